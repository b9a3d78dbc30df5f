/*
 * The parser of heads: what it finds in good ones. What it makes of bad ones is in
 * the tables (test_conformance.c).
 */
#include <bop/http1.h>

#include "tap.h"

struct fixture {
    struct bop_http_head head;
    const char *why;
};

FIXTURE(NULL, NULL)

static int parse(struct fixture *f, const char *text)
{
    return bop_http1_parse_request(bytes(text), NULL, &f->head, &f->why);
}

TEST(parse, finds_the_parts_of_a_request)
{
    const char *text = "POST /a/b?x=1&y HTTP/1.1\r\n"
                       "Host: example.org:8080\r\n"
                       "content-length:5\r\n"
                       "X-Empty:\r\n"
                       "X-Spaces: \t a b \t \r\n"
                       "\r\nhello";

    REQUIRE_EQ(parse(f, text), 0);
    CHECK_EQ(f->head.method, BOP_HTTP_POST);
    CHECK_EQ(f->head.target_form, BOP_HTTP_ORIGIN_FORM);
    CHECK_SLICE_EQ(f->head.method_text, bytes("POST"));
    CHECK_SLICE_EQ(f->head.target, bytes("/a/b?x=1&y"));
    CHECK_SLICE_EQ(f->head.path, bytes("/a/b"));
    CHECK_SLICE_EQ(f->head.query, bytes("x=1&y"));
    CHECK_SLICE_EQ(f->head.authority, bytes("example.org:8080"));
    CHECK_EQ(f->head.minor, 1);
    CHECK(f->head.keep_alive);
    CHECK_EQ(f->head.framing, BOP_HTTP_LENGTH);
    CHECK_EQ(f->head.content_length, 5);
    CHECK_EQ(f->head.header_count, 4);
    CHECK_SLICE_EQ(f->head.headers[1].name, bytes("content-length"));
    CHECK_SLICE_EQ(bop_http_known(&f->head, BOP_HTTP_CONTENT_LENGTH), bytes("5"));
    CHECK_SLICE_EQ(bop_http_find(&f->head, "x-spaces"), bytes("a b"));
    CHECK_EQ(bop_http_find(&f->head, "x-empty").size, 0);
    CHECK(bop_http_find(&f->head, "x-empty").data != NULL);
    CHECK(bop_http_find(&f->head, "x-none").data == NULL);
    CHECK(bop_http_known(&f->head, BOP_HTTP_COOKIE).data == NULL);
    CHECK_EQ(f->head.size, strlen(text) - 5);
}

TEST(parse, skips_empty_lines_before_a_request)
{
    REQUIRE_EQ(parse(f, "\r\n\r\nGET / HTTP/1.0\r\n\r\n"), 0);
    CHECK_EQ(f->head.size, 22); /* 4 of empty lines, 16 + 2 of the head. */
    CHECK_EQ(f->head.minor, 0);
    CHECK(!f->head.keep_alive);
    CHECK(f->head.authority.data == NULL);
}
