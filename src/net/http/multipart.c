/*
 * multipart/form-data.
 *
 * A body is "--b" CRLF head CRLF data CRLF "--b" ... CRLF "--b--". It is read as
 * if a CRLF stood before it, so that each boundary looks the same: the delimiter,
 * then "--" for the last or CRLF, with blanks between allowed.
 */
#include <bop/error.h>
#include <bop/multipart.h>
#include <strings.h>

#include "../text.h"

enum state {
    PREAMBLE, /* Before the first boundary: ignored. */
    AFTER,    /* Behind a delimiter. */
    HEAD,
    DATA,
    DONE,
};

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static struct bop_slice from(struct bop_slice text, size_t at)
{
    /* Adding even 0 to NULL is undefined. */
    return at == text.size ? bop_slice(NULL, 0) : bop_slice(text.data + at, text.size - at);
}

static struct bop_slice trim(struct bop_slice text)
{
    while (text.size > 0 && is_blank(text.data[0])) {
        text = from(text, 1);
    }
    while (text.size > 0 && is_blank(text.data[text.size - 1])) {
        text.size--;
    }
    return text;
}

/* The next of `; name=value`, the value without its quotes. False at the end, or at what is none.
 * A quoted one ends at its quote: browsers escape quotes as %22. */
static bool next_parameter(struct bop_slice *rest, struct bop_slice *name, struct bop_slice *value)
{
    const uint8_t *end;

    *rest = trim(*rest);
    if (rest->size == 0 || rest->data[0] != ';') {
        return false;
    }
    *rest = trim(from(*rest, 1));
    end = rest->size > 0 ? (const uint8_t *)memchr(rest->data, '=', rest->size) : NULL;
    if (end == NULL) {
        return false;
    }
    *name = trim(bop_slice(rest->data, (size_t)(end - rest->data)));
    *rest = trim(from(*rest, (size_t)(end - rest->data) + 1));
    if (rest->size > 0 && rest->data[0] == '"') {
        *rest = from(*rest, 1);
        end = rest->size > 0 ? (const uint8_t *)memchr(rest->data, '"', rest->size) : NULL;
        if (end == NULL) {
            return false;
        }
        *value = bop_slice(rest->data, (size_t)(end - rest->data));
        *rest = from(*rest, value->size + 1);
        return true;
    }
    end = rest->size > 0 ? (const uint8_t *)memchr(rest->data, ';', rest->size) : NULL;
    value->data = rest->data;
    value->size = end != NULL ? (size_t)(end - rest->data) : rest->size;
    *rest = from(*rest, value->size);
    *value = trim(*value);
    return true;
}

int bop_multipart_init(struct bop_multipart *multipart, struct bop_slice content_type,
                       struct bop_allocator *allocator)
{
    const uint8_t *semicolon;
    struct bop_slice name, value;

    if (!bop__text_begins(content_type, "multipart/")) {
        return BOP_EMALFORMED;
    }
    semicolon = (const uint8_t *)memchr(content_type.data, ';', content_type.size);
    if (semicolon == NULL) {
        return BOP_EMALFORMED;
    }
    content_type = from(content_type, (size_t)(semicolon - content_type.data));
    while (next_parameter(&content_type, &name, &value)) {
        if (!bop__text_is(name, "boundary")) {
            continue;
        }
        if (value.size == 0 || value.size > BOP_MULTIPART_BOUNDARY_MAX) {
            return BOP_EMALFORMED;
        }
        *multipart = (struct bop_multipart){.state = PREAMBLE,
                                            .delimiter_size = (uint8_t)(value.size + 4)};
        memcpy(multipart->delimiter, "\r\n--", 4);
        memcpy(multipart->delimiter + 4, value.data, value.size);
        bop_buf_init(&multipart->kept, allocator, 0);
        return bop_buf_append(&multipart->kept, "\r\n", 2);
    }
    return BOP_EMALFORMED;
}

void bop_multipart_deinit(struct bop_multipart *multipart)
{
    bop_buf_deinit(&multipart->kept);
}

int bop_multipart_feed(struct bop_multipart *multipart, struct bop_slice bytes)
{
    bop_buf_consume(&multipart->kept, multipart->at);
    multipart->at = 0;
    if (multipart->state == DONE || bytes.size == 0) {
        return 0;
    }
    return bop_buf_append(&multipart->kept, bytes.data, bytes.size);
}

/* Up to the delimiter, or as far as none can begin. Sets *found where it is there. */
static struct bop_slice up_to_delimiter(struct bop_multipart *multipart, bool *found)
{
    struct bop_slice rest = from(bop_buf_slice(&multipart->kept), multipart->at);
    const uint8_t *at;
    size_t tail = bop_min_u64(rest.size, multipart->delimiter_size - 1u);

    *found = false;
    if (rest.size == 0) {
        return rest;
    }
    at = (const uint8_t *)memmem(rest.data, rest.size, multipart->delimiter,
                                 multipart->delimiter_size);
    if (at != NULL) {
        *found = true;
        rest.size = (size_t)(at - rest.data);
        multipart->at += rest.size + multipart->delimiter_size;
        return rest;
    }
    /* Only what can be the begin of one is kept back. */
    while (tail > 0 && memcmp(rest.data + rest.size - tail, multipart->delimiter, tail) != 0) {
        tail--;
    }
    rest.size -= tail;
    multipart->at += rest.size;
    return rest;
}

/* Behind a delimiter: "--", or a line's end. Returns an event, or -1 to go on. */
static int after_delimiter(struct bop_multipart *multipart)
{
    struct bop_slice rest = from(bop_buf_slice(&multipart->kept), multipart->at);
    size_t blanks = 0;

    if (rest.size >= 2 && memcmp(rest.data, "--", 2) == 0) {
        multipart->state = DONE;
        return BOP_MULTIPART_DONE;
    }
    while (blanks < rest.size && is_blank(rest.data[blanks])) {
        blanks++;
    }
    if (blanks > BOP_MULTIPART_BOUNDARY_MAX) {
        return BOP_EMALFORMED;
    }
    if (rest.size - blanks < 2) {
        bool may_be = rest.size == blanks || rest.data[blanks] == '\r' ||
                      (blanks == 0 && rest.data[0] == '-');

        return may_be ? BOP_MULTIPART_MORE : BOP_EMALFORMED;
    }
    if (memcmp(rest.data + blanks, "\r\n", 2) != 0) {
        return BOP_EMALFORMED;
    }
    multipart->at += blanks;
    multipart->state = HEAD; /* Its CRLF is kept: an empty head is CRLF CRLF, too. */
    return -1;
}

/* Take the fields we know out of the head's lines. */
static int read_head(struct bop_slice lines, struct bop_multipart_piece *piece)
{
    while (lines.size > 0) {
        const uint8_t *end = (const uint8_t *)memmem(lines.data, lines.size, "\r\n", 2);
        struct bop_slice line = bop_slice(lines.data, (size_t)(end - lines.data));
        const uint8_t *colon = line.size == 0 ? NULL
                                              : (const uint8_t *)memchr(line.data, ':', line.size);
        struct bop_slice header, value, name, text;

        lines = from(lines, line.size + 2);
        if (colon == NULL) {
            return BOP_EMALFORMED;
        }
        header = bop_slice(line.data, (size_t)(colon - line.data));
        value = trim(from(line, header.size + 1));
        if (bop__text_is(header, "Content-Type")) {
            piece->content_type = value;
        } else if (bop__text_is(header, "Content-Disposition")) {
            const uint8_t *semicolon = value.size == 0
                                           ? NULL
                                           : (const uint8_t *)memchr(value.data, ';', value.size);

            text = semicolon == NULL ? bop_slice(NULL, 0)
                                     : from(value, (size_t)(semicolon - value.data));
            while (next_parameter(&text, &name, &value)) {
                if (bop__text_is(name, "name")) {
                    piece->name = value;
                } else if (bop__text_is(name, "filename")) {
                    piece->file_name = value;
                }
            }
        }
    }
    return BOP_MULTIPART_PART;
}

static int take_head(struct bop_multipart *multipart, struct bop_multipart_piece *piece)
{
    struct bop_slice rest = from(bop_buf_slice(&multipart->kept), multipart->at);
    const uint8_t *end = rest.size == 0
                             ? NULL
                             : (const uint8_t *)memmem(rest.data, rest.size, "\r\n\r\n", 4);
    size_t size = end != NULL ? (size_t)(end - rest.data) : rest.size;

    if (size > BOP_MULTIPART_HEAD_MAX) {
        return BOP_ETOOBIG;
    }
    if (end == NULL) {
        return BOP_MULTIPART_MORE;
    }
    /* Between the CRLF of the boundary's line and the empty line; the CRLF of that may be the
     * begin of the next delimiter, where the part is empty. */
    piece->head = bop_slice(rest.data + 2, size);
    multipart->at += size + 4;
    multipart->state = DATA;
    if (size == 0) {
        piece->head.size = 0;
    }
    return read_head(piece->head, piece);
}

int bop_multipart_next(struct bop_multipart *multipart, struct bop_multipart_piece *out_piece)
{
    struct bop_slice data;
    bool found;
    int event = -1;

    *out_piece = (struct bop_multipart_piece){0};
    while (event == -1) {
        switch ((enum state)multipart->state) {
        case PREAMBLE:
        case DATA:
            data = up_to_delimiter(multipart, &found);
            if (multipart->state == DATA && data.size > 0) {
                out_piece->data = data;
                event = BOP_MULTIPART_DATA;
            } else if (!found) {
                event = BOP_MULTIPART_MORE;
            }
            if (found) {
                multipart->state = AFTER;
            }
            break;
        case AFTER:
            event = after_delimiter(multipart);
            break;
        case HEAD:
            event = take_head(multipart, out_piece);
            break;
        case DONE:
            return BOP_MULTIPART_MORE;
        }
    }
    return event;
}
