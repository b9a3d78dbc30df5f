/*
 * Looking into heads, the names the parser knows, and what may be written.
 */
#include <stdio.h>
#include <stdlib.h>

#include "parse.h"
#include "tap.h"

struct fixture {
    struct bop_http_head head;
};

FIXTURE(NULL, NULL)

static void parse(struct fixture *f, const char *text)
{
    const char *why = NULL;
    int rc = bop_http1_parse_request(bytes(text), NULL, &f->head, &why);

    if (rc != 0) {
        test_note("%s", why);
    }
    REQUIRE_EQ(rc, 0);
}

TEST(head, finds_every_known_name_in_any_case)
{
    for (unsigned i = 0; i < BOP__HTTP_NAME_COUNT; i++) {
        const struct bop__http_name *name = &bop__http_names[i];
        char text[BOP__HTTP_NAME_MAX + 2];

        REQUIRE_EQ(strlen(name->text), name->size);
        for (unsigned mask = 0; mask < 3; mask++) {
            for (size_t k = 0; k <= name->size; k++) {
                bool upper = mask == 2 || (mask == 1 && k % 2 == 0);

                text[k] = name->text[k];
                if (upper && text[k] >= 'a' && text[k] <= 'z') {
                    text[k] = (char)(text[k] - 32);
                }
            }
            CHECK_EQ(bop__http_name_find((const uint8_t *)text, name->size), i);
        }
        /* Shorter, longer and different by any one bit: another name. */
        for (size_t size = 1; size <= name->size + 1u; size++) {
            memcpy(text, name->text, name->size + 1u);
            text[name->size] = 'x';
            CHECK_EQ(bop__http_name_find((const uint8_t *)text, size) == i, size == name->size);
        }
        for (size_t bit = 0; bit < name->size * 8u; bit++) {
            memcpy(text, name->text, name->size);
            text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
            if (bit % 8 != 5 && bop__http_is((uint8_t)text[bit / 8], BOP__HTTP_TOKEN)) {
                CHECK(bop__http_name_find((const uint8_t *)text, name->size) != i);
            }
        }
    }
}

TEST(head, keeps_the_first_of_known_headers)
{
    parse(f, "GET / HTTP/1.1\r\nHost: h\r\ncookie: a=1\r\nX: y\r\nCookie: b=2\r\n\r\n");
    CHECK_SLICE_EQ(bop_http_known(&f->head, BOP_HTTP_COOKIE), bytes("a=1"));
    CHECK_EQ(f->head.known[BOP_HTTP_COOKIE], 1);
    CHECK_EQ(f->head.known[BOP_HTTP_RANGE], -1);
    /* The next parse knows nothing of it. */
    parse(f, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(bop_http_known(&f->head, BOP_HTTP_COOKIE).data == NULL);
}

TEST(head, finds_tokens_in_lists_over_several_lines)
{
    parse(f, "GET / HTTP/1.1\r\nHost: h\r\nX: a, B ,,\tc\r\nx: d\r\nY: a b\r\n\r\n");
    CHECK(bop_http_has_token(&f->head, "x", "a"));
    CHECK(bop_http_has_token(&f->head, "X", "b"));
    CHECK(bop_http_has_token(&f->head, "X", "c"));
    CHECK(bop_http_has_token(&f->head, "X", "D"));
    CHECK(!bop_http_has_token(&f->head, "X", "e"));
    CHECK(!bop_http_has_token(&f->head, "Y", "a"));
    CHECK(bop_http_has_token(&f->head, "Y", "a b"));
    CHECK(!bop_http_has_token(&f->head, "Z", "a"));
}

TEST(write, allows_headers_that_cannot_split_a_message)
{
    CHECK(bop_http_header_is_valid(bytes("X-Y"), bytes("a b\tc \xff")));
    CHECK(bop_http_header_is_valid(bytes("X"), bytes("")));
    CHECK(!bop_http_header_is_valid(bytes(""), bytes("a")));
    CHECK(!bop_http_header_is_valid(bytes("X Y"), bytes("a")));
    CHECK(!bop_http_header_is_valid(bytes("X:"), bytes("a")));
    CHECK(!bop_http_header_is_valid(bytes("X\n"), bytes("a")));
    CHECK(!bop_http_header_is_valid(bytes("X"), bytes("a\r\nSet-Cookie: b")));
    CHECK(!bop_http_header_is_valid(bytes("X"), bytes("a\n")));
    CHECK(!bop_http_header_is_valid(bytes("X"), bop_slice("a\0", 2)));
    CHECK(!bop_http_header_is_valid(bytes("X"), bytes("\x7f")));
}

TEST(write, knows_the_reasons)
{
    static const unsigned known[] = {100, 101, 200, 206, 301, 304, 400, 404, 405, 408, 411,
                                     413, 414, 416, 417, 426, 431, 500, 501, 503, 505, 511};

    for (size_t i = 0; i < BOP_COUNT_OF(known); i++) {
        CHECK(*bop_http_reason(known[i]) != '\0');
    }
    CHECK_STR_EQ(bop_http_reason(200), "OK");
    CHECK_STR_EQ(bop_http_reason(404), "Not Found");
    CHECK_STR_EQ(bop_http_reason(511), "Network Authentication Required");
    CHECK_STR_EQ(bop_http_reason(0), "");
    CHECK_STR_EQ(bop_http_reason(299), "");
    CHECK_STR_EQ(bop_http_reason(1000), "");
}
