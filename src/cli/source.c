/*
 * Entries from lines.
 */
#include "source.h"

#include <inttypes.h>

#include "ndjson.h"

void source_init(struct source *source, int fd, bool dpkg)
{
    *source = (struct source){.dpkg = dpkg};
    lines_init(&source->lines, fd, NDJSON_LINE_MAX);
    stanza_init(&source->stanza);
    bop_buf_init(&source->key, NULL, 0);
    bop_buf_init(&source->value, NULL, 0);
}

void source_deinit(struct source *source)
{
    lines_deinit(&source->lines);
    stanza_deinit(&source->stanza);
    bop_buf_deinit(&source->key);
    bop_buf_deinit(&source->value);
}

static int next_line(struct source *source, struct bop_slice *out_line, struct bop_error *err)
{
    int rc = lines_next(&source->lines, out_line);

    if (rc == 1) {
        source->line++;
    } else if (rc == BOP_ETOOBIG) {
        bop_error_say(err, rc, "line %" PRIu64 ": longer than %u bytes", source->line + 1,
                      NDJSON_LINE_MAX);
    } else if (rc < 0 && rc != BOP_EAGAIN) {
        bop_error_say(err, rc, "%s", bop_strerror(rc));
    }
    return rc;
}

static bool is_empty(struct bop_slice line)
{
    size_t at = 0;

    while (at < line.size && strchr(" \t\r\n", line.data[at]) && line.data[at]) {
        at++;
    }
    return at == line.size;
}

static int next_of_ndjson(struct source *source, struct bop_error *err)
{
    struct bop_slice line;
    int rc;

    do {
        rc = next_line(source, &line, err);
        if (rc != 1) {
            return rc;
        }
    } while (is_empty(line));
    rc = source->members    ? ndjson_read_member(line, &source->key, err)
         : source->counters ? ndjson_read_counter(line, &source->key, &source->number, err)
                            : ndjson_read(line, &source->key, &source->value, err);
    if (rc < 0) {
        bop_error_wrap(err, "line %" PRIu64, source->line);
        return rc;
    }
    return 1;
}

static int finish_stanza(struct source *source, struct bop_error *err)
{
    int rc = stanza_key(&source->stanza, &source->key);

    if (rc == BOP_ENOTFOUND) {
        return bop_error_say(err, BOP_EMALFORMED,
                             "line %" PRIu64 ": a paragraph without a Package field ends here; is "
                             "this a package database?",
                             source->line);
    }
    if (rc == 0) {
        bop_buf_clear(&source->value);
        rc = bop_buf_append(&source->value, source->stanza.text.data, source->stanza.text.size);
    }
    stanza_clear(&source->stanza);
    return rc < 0 ? bop_error_set(err, rc, "read line %" PRIu64, source->line) : 1;
}

static int next_of_dpkg(struct source *source, struct bop_error *err)
{
    struct bop_slice line;
    int rc;

    for (;;) {
        rc = next_line(source, &line, err);
        if (rc < 0) {
            return rc;
        }
        if (rc == 0) {
            return source->stanza.text.size > 0 ? finish_stanza(source, err) : 0;
        }
        rc = stanza_add(&source->stanza, line);
        if (rc == 1) {
            return finish_stanza(source, err);
        }
        if (rc < 0) {
            return bop_error_set(err, rc, "line %" PRIu64, source->line);
        }
    }
}

int source_next(struct source *source, struct bop_error *err)
{
    return source->dpkg ? next_of_dpkg(source, err) : next_of_ndjson(source, err);
}
