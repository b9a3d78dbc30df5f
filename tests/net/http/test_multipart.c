/*
 * multipart/form-data, fed whole and cut at every byte.
 */
#include <bop/error.h>
#include <bop/multipart.h>
#include <stdio.h>

#include "heap.h"
#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_multipart multipart;
    char story[4096]; /* What came out, as text. */
    int rc;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
}

static void teardown(struct fixture *f)
{
    bop_multipart_deinit(&f->multipart);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void tell(struct fixture *f, int event, const struct bop_multipart_piece *piece)
{
    size_t size = strlen(f->story);

    CHECK_EQ(piece->data.size > 0, event == BOP_MULTIPART_DATA);
    if (event == BOP_MULTIPART_PART) {
        snprintf(f->story + size, sizeof(f->story) - size, "[%.*s|%.*s|%.*s]",
                 (int)piece->name.size, (const char *)piece->name.data, (int)piece->file_name.size,
                 (const char *)piece->file_name.data, (int)piece->content_type.size,
                 (const char *)piece->content_type.data);
    } else if (event == BOP_MULTIPART_DATA) {
        snprintf(f->story + size, sizeof(f->story) - size, "%.*s", (int)piece->data.size,
                 (const char *)piece->data.data);
    } else if (event == BOP_MULTIPART_DONE) {
        snprintf(f->story + size, sizeof(f->story) - size, ".");
    }
}

static void feed(struct fixture *f, struct bop_slice bytes)
{
    struct bop_multipart_piece piece;

    if (f->rc < 0) {
        return;
    }
    REQUIRE_EQ(bop_multipart_feed(&f->multipart, bytes), 0);
    while ((f->rc = bop_multipart_next(&f->multipart, &piece)) > 0) {
        tell(f, f->rc, &piece);
    }
}

static void begin(struct fixture *f)
{
    bop_multipart_deinit(&f->multipart);
    f->story[0] = '\0';
    f->rc = 0;
    REQUIRE_EQ(bop_multipart_init(&f->multipart, bytes("multipart/form-data; boundary=b0"),
                                  &f->heap.allocator),
               0);
}

static void check_body(struct fixture *f, const char *body, int rc, const char *story)
{
    struct bop_slice all = bytes(body);

    for (size_t cut = 0; cut <= all.size; cut++) {
        begin(f);
        feed(f, bop_slice(all.data, cut));
        feed(f, bop_slice(all.data + cut, all.size - cut));
        CHECK_EQ(f->rc, rc);
        CHECK_STR_EQ(f->story, story);
    }
    begin(f);
    for (size_t i = 0; i < all.size; i++) {
        feed(f, bop_slice(all.data + i, 1));
    }
    CHECK_EQ(f->rc, rc);
    CHECK_STR_EQ(f->story, story);
}

#define FIELD(name) "Content-Disposition: form-data; name=\"" name "\"\r\n"

TEST(multipart, gives_fields_and_files)
{
    check_body(f,
               "--b0\r\n" FIELD(
                   "a") "\r\none\r\n--b0\r\n"
                        "content-disposition: form-data; name=f; filename=\"x; y.txt\"\r\n"
                        "Content-Type: text/plain\r\n\r\ntwo\r\n\r\n--b\r\n--b0--\r\nepilogue",
               0, "[a||]one[f|x; y.txt|text/plain]two\r\n\r\n--b.");
}

TEST(multipart, gives_empty_parts)
{
    check_body(f, "--b0\r\n" FIELD("a") "\r\n\r\n--b0--", 0, "[a||].");
    check_body(f, "--b0\r\n\r\n\r\n--b0--", 0, "[||].");
    check_body(f, "--b0--", 0, ".");
}

TEST(multipart, ignores_what_is_around)
{
    check_body(f, "preamble\r\n--b0 \t\r\n" FIELD("a") "\r\nx\r\n--b0--after\r\n--b0\r\n", 0,
               "[a||]x.");
}

TEST(multipart, refuses_what_is_malformed)
{
    check_body(f, "--b0x\r\n\r\n", BOP_EMALFORMED, "");
    check_body(f, "--b0\r\nno colon\r\n\r\nx\r\n--b0--", BOP_EMALFORMED, "");
    check_body(f, "--b0\n\n", BOP_EMALFORMED, "");
}

TEST(multipart, is_not_done_where_it_was_cut)
{
    check_body(f, "--b0\r\n" FIELD("a") "\r\nx\r\n--b0-", 0, "[a||]x");
}

TEST(multipart, bounds_heads_and_keeps_little)
{
    static char filler[100000];

    memset(filler, 'h', sizeof(filler));
    begin(f);
    feed(f, bytes("--b0\r\nA: "));
    feed(f, bop_slice(filler, sizeof(filler)));
    CHECK_EQ(f->rc, BOP_ETOOBIG);
    begin(f);
    feed(f, bytes("--b0\r\n" FIELD("a") "\r\n"));
    for (int i = 0; i < 100; i++) {
        feed(f, bop_slice(filler, sizeof(filler)));
        CHECK(f->heap.live < 3 * sizeof(filler));
    }
    feed(f, bytes("\r\n--b0--"));
    CHECK_EQ(f->rc, 0);
}

TEST(multipart, takes_its_boundary_from_the_type)
{
    static const struct {
        const char *type;
        int rc;
    } rows[] = {
        {"multipart/form-data; boundary=\"a b\"", 0},
        {"Multipart/Mixed;charset=utf-8; BOUNDARY=x", 0},
        {"multipart/form-data", BOP_EMALFORMED},
        {"multipart/form-data; boundary=", BOP_EMALFORMED},
        {"multipart/form-data; boundary=\"", BOP_EMALFORMED},
        {"text/plain; boundary=x", BOP_EMALFORMED},
        {"multipart/form-data; boundary=01234567890123456789012345678901234567890123456789"
         "012345678901234567890",
         BOP_EMALFORMED},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(rows); i++) {
        struct bop_multipart multipart = {0};

        CHECK_EQ(bop_multipart_init(&multipart, bytes(rows[i].type), &f->heap.allocator),
                 rows[i].rc);
        bop_multipart_deinit(&multipart);
    }
}
