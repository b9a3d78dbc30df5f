/*
 * What the fuzzers of requests and of responses share.
 */
#ifndef BOP_FUZZ_HTTP1_H
#define BOP_FUZZ_HTTP1_H

#include <stdlib.h>

#include "net/http/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef int (*parse_fn)(const struct bop__http_engine *engine, struct bop_slice bytes,
                        uint8_t choice, struct bop_http_head *head, const char **out_why);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* The same place, not only the same text. */
static void require_same(struct bop_slice a, struct bop_slice b)
{
    require(a.data == b.data && a.size == b.size);
}

static void require_same_heads(const struct bop_http_head *a, const struct bop_http_head *b)
{
    require(a->method == b->method && a->target_form == b->target_form);
    require(a->framing == b->framing && a->status == b->status && a->minor == b->minor);
    require(a->keep_alive == b->keep_alive && a->expect_continue == b->expect_continue);
    require(a->upgrade == b->upgrade && a->trailers == b->trailers);
    require(a->content_length == b->content_length && a->size == b->size);
    require_same(a->method_text, b->method_text);
    require_same(a->target, b->target);
    require_same(a->authority, b->authority);
    require_same(a->path.data == NULL || a->path.size != 1 ? a->path : b->path, b->path);
    require_same(a->query, b->query);
    require_same(a->reason, b->reason);
    require(a->header_count == b->header_count);
    require(memcmp(a->known, b->known, sizeof(a->known)) == 0);
    for (unsigned i = 0; i < a->header_count; i++) {
        require_same(a->headers[i].name, b->headers[i].name);
        require_same(a->headers[i].value, b->headers[i].value);
    }
}

static void require_inside(struct bop_slice part, struct bop_slice whole)
{
    require(part.data == NULL ||
            (part.data >= whole.data && part.data + part.size <= whole.data + whole.size));
}

static void require_sane(const struct bop_http_head *head, struct bop_slice bytes)
{
    require(head->size >= 4 && head->size <= bytes.size);
    require(memcmp(bytes.data + head->size - 4, "\r\n\r\n", 4) == 0);
    require(head->header_count <= BOP_HTTP_HEADERS_MAX && head->minor <= 1);
    require_inside(head->target, bytes);
    require_inside(head->query, bytes);
    require_inside(head->authority, bytes);
    require_inside(head->reason, bytes);
    for (unsigned i = 0; i < head->header_count; i++) {
        const struct bop_http_header *header = &head->headers[i];

        require_inside(header->name, bytes);
        require_inside(header->value, bytes);
        require(header->value.data != NULL);
        require(bop_http_header_is_valid(header->name, header->value));
    }
    for (unsigned i = 0; i < BOP_HTTP_KNOWN_COUNT; i++) {
        struct bop_slice found = bop_http_find(head, bop__http_names[i].text);

        require_same(bop_http_known(head, (enum bop_http_known)i), found);
    }
}

/* A part, in memory that ends with it. */
static void check_part(parse_fn parse, uint8_t choice, struct bop_slice bytes, size_t cut, int rc,
                       size_t need)
{
    static struct bop_http_head head;
    uint8_t *copy = malloc(cut > 0 ? cut : 1);
    const struct bop__http_engine *engine;
    const char *why;

    require(copy != NULL);
    memcpy(copy, bytes.data, cut);
    for (unsigned i = 0; (engine = bop__http_engine_at(i)) != NULL; i++) {
        int got = parse(engine, bop_slice(copy, cut), choice, &head, &why);

        require(got == BOP_ETRUNCATED ? rc != 0 || cut < need : got == rc);
    }
    free(copy);
}

static void check_heads(parse_fn parse, uint8_t choice, struct bop_slice bytes)
{
    static struct bop_http_head first, other;
    const struct bop__http_engine *engine;
    const char *first_why = "", *why = "";
    int rc = parse(bop__http_engine_at(0), bytes, choice, &first, &first_why);
    size_t step;

    for (unsigned i = 1; (engine = bop__http_engine_at(i)) != NULL; i++) {
        require(parse(engine, bytes, choice, &other, &why) == rc);
        if (rc == 0) {
            require_same_heads(&first, &other);
        } else if (rc != BOP_ETRUNCATED) {
            require(strcmp(why, first_why) == 0);
        }
    }
    if (rc == 0) {
        require_sane(&first, bytes);
    }
    /* Every cut of what is short, some of what is long. */
    step = 1 + bytes.size / 64;
    for (size_t cut = choice % step; cut < bytes.size; cut += step) {
        check_part(parse, choice, bytes, cut, rc, rc == 0 ? first.size : 0);
    }
}

#endif
