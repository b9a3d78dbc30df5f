/*
 * The paragraphs of a package database (deb822): fields "Name: value", lines that
 * begin with a blank continue the field before, an empty line ends a paragraph.
 * The text is kept byte for byte; of the fields only three are looked at.
 */
#include <strings.h>

#include "source.h"

#define STANZA_MAX (8u * 1024 * 1024) /* What a value may have. */

void stanza_init(struct stanza *stanza)
{
    bop_buf_init(&stanza->text, NULL, STANZA_MAX);
    bop_buf_init(&stanza->name, NULL, 0);
    bop_buf_init(&stanza->architecture, NULL, 0);
    stanza->same = false;
}

void stanza_deinit(struct stanza *stanza)
{
    bop_buf_deinit(&stanza->text);
    bop_buf_deinit(&stanza->name);
    bop_buf_deinit(&stanza->architecture);
}

void stanza_clear(struct stanza *stanza)
{
    bop_buf_clear(&stanza->text);
    bop_buf_clear(&stanza->name);
    bop_buf_clear(&stanza->architecture);
    stanza->same = false;
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static struct bop_slice trimmed(struct bop_slice text)
{
    while (text.size > 0 && is_blank(text.data[0])) {
        text.data++;
        text.size--;
    }
    while (text.size > 0 && is_blank(text.data[text.size - 1])) {
        text.size--;
    }
    return text;
}

/* The value of a line that begins the field; field names know no case. */
static bool take_field(struct bop_slice line, const char *name, struct bop_slice *out_value)
{
    size_t size = strlen(name);

    if (line.size <= size || line.data[size] != ':' ||
        strncasecmp((const char *)line.data, name, size) != 0) {
        return false;
    }
    *out_value = trimmed(bop_slice(line.data + size + 1, line.size - size - 1));
    return true;
}

static int set(struct bop_buf *buf, struct bop_slice value)
{
    bop_buf_clear(buf);
    return bop_buf_append(buf, value.data, value.size);
}

int stanza_add(struct stanza *stanza, struct bop_slice line)
{
    struct bop_slice value;
    int rc;

    if (trimmed(line).size == 0) {
        return stanza->text.size > 0;
    }
    rc = bop_buf_append(&stanza->text, line.data, line.size);
    if (rc < 0) {
        return rc;
    }
    if (take_field(line, "Package", &value)) {
        rc = set(&stanza->name, value);
    } else if (take_field(line, "Architecture", &value)) {
        rc = set(&stanza->architecture, value);
    } else if (take_field(line, "Multi-Arch", &value)) {
        stanza->same = bop_slice_equal(value, bop_slice_cstr("same"));
    }
    return rc;
}

int stanza_key(const struct stanza *stanza, struct bop_buf *out_key)
{
    int rc;

    if (stanza->name.size == 0) {
        return BOP_ENOTFOUND;
    }
    rc = set(out_key, bop_buf_slice(&stanza->name));
    if (rc == 0 && stanza->same && stanza->architecture.size > 0) {
        rc = bop_buf_append(out_key, ":", 1);
        if (rc == 0) {
            rc = bop_buf_append(out_key, stanza->architecture.data, stanza->architecture.size);
        }
    }
    return rc;
}
