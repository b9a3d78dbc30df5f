/*
 * permessage-deflate's payload (RFC 7692, section 7.2): round trips in all shapes, the document's
 * own examples, what must be refused, and bombs.
 */
#include <bop/random.h>

#include "frame_fixture.h"

#include "../../../src/net/ws/deflate_internal.h"

#define MIB ((size_t)1 << 20)

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_ws_zip *zip;
    struct bop_ws_zip_stream send;
    struct bop_ws_zip_stream receive;
    struct bop_buf packed;
    struct bop_buf out;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(
        bop_ws_zip_create(&(struct bop_ws_zip_options){.allocator = &f->heap.allocator}, &f->zip),
        0);
    f->zip->whole_min = 0; /* So that the small cases are libdeflate's too. */
    bop_buf_init(&f->packed, &f->heap.allocator, 0);
    bop_buf_init(&f->out, &f->heap.allocator, 0);
    f->send.bits = f->receive.bits = 15;
}

static void teardown(struct fixture *f)
{
    if (f->zip) {
        bop_ws_zip_stream_deinit(f->zip, &f->send);
        bop_ws_zip_stream_deinit(f->zip, &f->receive);
    }
    bop_ws_zip_destroy(f->zip);
    bop_buf_deinit(&f->packed);
    bop_buf_deinit(&f->out);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* ---- Inflating, in as many ways as there are ---- */

enum way {
    WHOLE,
    IN_BYTES,
    IN_TWO,    /* Cut at `at`. */
    OUT_BYTES, /* At most one byte a call. */
    WAYS
};

/* As bop_ws_inflate() on a whole payload; all memory has its exact size. */
static int inflate_by(struct fixture *f, struct bop_slice payload, enum way way, size_t at,
                      uint64_t max, struct bop_ws_utf8 *utf8)
{
    size_t piece_size = way == IN_BYTES ? 1 : way == IN_TWO ? at : payload.size;
    size_t from = 0;
    int rc;

    bop_buf_clear(&f->out);
    do {
        size_t size = payload.size - from < piece_size ? payload.size - from : piece_size;
        uint8_t *memory = malloc(size ? size : 1);
        struct bop_slice piece = bop_slice(memory, size);
        bool last = from + size == payload.size;

        BOP_ASSERT(memory);
        if (size > 0) {
            memcpy(memory, payload.data + from, size);
        }
        do {
            rc = bop_ws_inflate(f->zip, &f->receive, &piece, last, max, utf8,
                                way == OUT_BYTES ? 1 : SIZE_MAX, &f->out);
        } while (rc == 1);
        CHECK(rc != 0 || piece.size == 0);
        free(memory);
        from += size;
        piece_size = way == IN_BYTES ? 1 : payload.size;
    } while (rc == 0 && from < payload.size);
    if (rc != 0) {
        bop_ws_zip_stream_deinit(f->zip, &f->receive);
    }
    return rc;
}

#define CONTENTS 4 /* JSON, zeros, random bytes, few letters. */

static void fill(uint8_t *data, size_t size, unsigned kind, struct bop_random *random)
{
    static const char json[] = "{\"user\":12345,\"name\":\"Ada Lovelace\",\"tags\":[\"a\",\"b\"]},";

    for (size_t i = 0; i < size; i++) {
        switch (kind) {
        case 0:
            data[i] = (uint8_t)(i % 97 == 0 ? '0' + bop_random_below(random, 10)
                                            : (uint8_t)json[i % (sizeof(json) - 1)]);
            break;
        case 1:
            data[i] = 0;
            break;
        case 2:
            data[i] = (uint8_t)bop_random_next(random);
            break;
        default:
            data[i] = (uint8_t)('a' + bop_random_below(random, 4));
        }
    }
}

TEST(deflate, round_trips_of_every_window_size_and_content)
{
    static const size_t sizes[] = {1, 2, 15, 64, 255, 256, 257, 600, 4096, 33000, 140000};
    struct bop_random random;
    uint8_t *data = malloc(140000);

    bop_random_seed(&random, 1);
    for (unsigned bits = 8; bits <= 15; bits++) {
        for (unsigned takeover = 0; takeover < 2; takeover++) {
            bop_ws_zip_stream_deinit(f->zip, &f->send);
            bop_ws_zip_stream_deinit(f->zip, &f->receive);
            f->send.takeover = f->receive.takeover = takeover;
            f->send.bits = f->receive.bits = (uint8_t)bits;
            for (size_t i = 0; i < BOP_COUNT_OF(sizes) * CONTENTS; i++) {
                size_t size = sizes[i / CONTENTS];
                enum way way = i % 7 == 6 && size < 5000 ? OUT_BYTES : i % 3;
                int rc;

                fill(data, size, i % CONTENTS, &random);
                bop_buf_clear(&f->packed);
                rc = bop_ws_deflate(f->zip, &f->send, bop_slice(data, size), true, &f->packed);
                if (rc == 1) {
                    CHECK(!takeover && f->packed.size == 0);
                    continue;
                }
                REQUIRE_EQ(rc, 0);
                CHECK(takeover || f->packed.size < size);
                rc = inflate_by(f, bop_buf_slice(&f->packed), way, f->packed.size / 2 + 1, size,
                                NULL);
                REQUIRE_EQ(rc, 0);
                CHECK_SLICE_EQ(bop_buf_slice(&f->out), bop_slice(data, size));
            }
        }
    }
    free(data);
}

/* RFC 7692, 7.2.3: the same message in each of the forms that the document shows. */
TEST(deflate, inflates_the_examples_of_the_document)
{
    static const struct {
        const char *name;
        const char *payload;
        size_t size;
        const char *text;
    } cases[] = {
        {"one block", "\xf2\x48\xcd\xc9\xc9\x07\x00", 7, "Hello"},
        {"a block without compression", "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", 11,
         "Hello"},
        {"a block marked final", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 8, "Hello"},
        {"two blocks", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", 13, "Hello"},
        {"an empty message", "\x00", 1, ""},
        {"an empty message by a fixed block", "\x02\x00", 2, ""},
        {"a final block and nothing after", "\xf3\x48\xcd\xc9\xc9\x07\x00", 7, "Hello"},
        {"two final blocks", "\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 15,
         "HelloHello"},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        for (size_t at = 1; at <= cases[i].size; at++) {
            for (int way = WHOLE; way < WAYS; way++) {
                struct bop_ws_utf8 utf8 = {0};
                int rc = inflate_by(f, bop_slice(cases[i].payload, cases[i].size), (enum way)way,
                                    at, strlen(cases[i].text), &utf8);

                if (rc != 0 || !bop_slice_equal(bop_buf_slice(&f->out), bytes(cases[i].text))) {
                    test__failed(__FILE__, __LINE__, "%s, way %d, cut at %zu: %d", cases[i].name,
                                 way, at, rc);
                }
            }
        }
    }
}

/* RFC 7692, 7.2.3.2: the second message needs the window of the first. */
TEST(deflate, takes_context_over)
{
    static const char first[] = "\xf2\x48\xcd\xc9\xc9\x07\x00", second[] = "\xf2\x00\x11\x00\x00";

    f->receive.takeover = true;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(
            inflate_by(f, bop_slice(i == 0 ? first : second, i == 0 ? 7 : 5), IN_BYTES, 0, 5, NULL),
            0);
        CHECK_SLICE_EQ(bop_buf_slice(&f->out), bytes("Hello"));
    }
    bop_ws_zip_stream_deinit(f->zip, &f->receive);
    f->receive.takeover = false;
    CHECK_EQ(inflate_by(f, bop_slice(second, 5), WHOLE, 0, 5, NULL), -1007);
    CHECK_EQ(inflate_by(f, bop_slice(second, 5), IN_BYTES, 0, 5, NULL), -1007);
}

TEST(deflate, refuses_what_is_corrupt)
{
    static const struct {
        const char *name;
        const char *payload;
        size_t size;
    } cases[] = {
        {"nothing", "", 0},
        {"a reserved block type", "\x06\x00", 2},
        {"a block that is cut", "\xf2\x48\xcd\xc9\xc9\x07", 6},
        {"a block that is cut early", "\xf2\x48\xcd", 3},
        {"a stored block whose lengths differ", "\x00\x05\x00\xfb\xff\x48\x65\x6c\x6c\x6f\x00", 11},
        {"a stored block that is cut", "\x00\x05\x00\xfa\xff\x48\x65", 7},
        {"a stored block that takes the end in", "\x00\x09\x00\xf6\xff\x48\x65\x6c\x6c\x6f", 10},
        {"a final stored block that takes the end in", "\x01\x09\x00\xf6\xff\x48\x65\x6c\x6c\x6f",
         10},
        {"one that takes in what libdeflate is given", "\x01\x16\x00\xe9\xff\x48\x65\x6c\x6c\x6f",
         10},
        {"a distance before the beginning", "\xf2\x00\x11\x00\x00", 5},
        {"what is left out twice", "\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff", 11},
        {"text", "Hello", 5},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        for (int way = WHOLE; way < WAYS; way++) {
            int rc = inflate_by(f, bop_slice(cases[i].payload, cases[i].size), (enum way)way,
                                cases[i].size / 2 + 1, 1000, NULL);

            if (rc != -1007) {
                test__failed(__FILE__, __LINE__, "%s, way %d: %d", cases[i].name, way, rc);
            }
        }
    }
}

/* 10 MiB of zeros in 10 KiB: not a byte past the limit is made. */
TEST(deflate, stops_a_bomb_at_the_limit)
{
    static const uint64_t limits[] = {0, 1, 1000, 16384, 65536, MIB, 10 * MIB - 1};
    uint8_t *zeros = calloc(1, 10 * MIB);

    REQUIRE_EQ(bop_ws_deflate(f->zip, &f->send, bop_slice(zeros, 10 * MIB), true, &f->packed), 0);
    CHECK(f->packed.size < 11000);
    for (size_t i = 0; i < BOP_COUNT_OF(limits); i++) {
        for (int way = WHOLE; way <= IN_TWO; way++) {
            bop_buf_deinit(&f->out);
            bop_buf_init(&f->out, &f->heap.allocator, 0);
            CHECK_EQ(inflate_by(f, bop_buf_slice(&f->packed), (enum way)way, 100, limits[i], NULL),
                     -1009);
            CHECK(f->out.size <= limits[i]);
            CHECK(f->out.capacity <= 2 * (limits[i] + 16 * f->packed.size + 20000));
        }
    }
    CHECK_EQ(inflate_by(f, bop_buf_slice(&f->packed), WHOLE, 0, 10 * MIB, NULL), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->out), bop_slice(zeros, 10 * MIB));
    free(zeros);
}

/* A byte that is no UTF-8 fails the first piece that it can be inflated from. */
TEST(deflate, checks_text_as_it_comes)
{
    struct bop_ws_utf8 utf8 = {0};
    struct bop_slice piece;
    int rc;

    REQUIRE_EQ(bop_ws_deflate(f->zip, &f->send, bytes("aaaa\xff"), false, &f->packed), 0);
    piece = bop_buf_slice(&f->packed);
    rc = bop_ws_inflate(f->zip, &f->receive, &piece, false, 1000, &utf8, SIZE_MAX, &f->out);
    CHECK_EQ(rc, -1007);
    bop_ws_zip_stream_deinit(f->zip, &f->send);
    bop_ws_zip_stream_deinit(f->zip, &f->receive);
    bop_buf_clear(&f->packed);
    REQUIRE_EQ(bop_ws_deflate(f->zip, &f->send, bytes("caf\xc3"), false, &f->packed), 0);
    REQUIRE_EQ(bop_ws_deflate(f->zip, &f->send, bytes(""), true, &f->packed), 0);
    for (int way = WHOLE; way < WAYS; way++) {
        utf8 = (struct bop_ws_utf8){0};
        CHECK_EQ(inflate_by(f, bop_buf_slice(&f->packed), (enum way)way, 3, 1000, &utf8), -1007);
    }
}

/* A message in parts: each can be inflated when it comes. */
TEST(deflate, sends_parts)
{
    for (unsigned takeover = 0; takeover < 2; takeover++) {
        f->send.takeover = f->receive.takeover = takeover;
        for (int message = 0; message < 3; message++) {
            static const char *const parts[] = {"Hello, ", "", "Hello, ", "world", ""};

            bop_buf_clear(&f->out);
            for (size_t i = 0; i < BOP_COUNT_OF(parts); i++) {
                bool last = i + 1 == BOP_COUNT_OF(parts);
                struct bop_slice piece;
                size_t before = f->out.size;

                bop_buf_clear(&f->packed);
                REQUIRE_EQ(bop_ws_deflate(f->zip, &f->send, bytes(parts[i]), last, &f->packed), 0);
                piece = bop_buf_slice(&f->packed);
                REQUIRE_EQ(
                    bop_ws_inflate(f->zip, &f->receive, &piece, last, 100, NULL, SIZE_MAX, &f->out),
                    0);
                CHECK_EQ(f->out.size - before, strlen(parts[i]));
            }
            CHECK_SLICE_EQ(bop_buf_slice(&f->out), bytes("Hello, Hello, world"));
            CHECK_EQ(f->send.state != NULL, takeover);
            CHECK_EQ(f->receive.state != NULL, takeover);
        }
        bop_ws_zip_stream_deinit(f->zip, &f->send);
        bop_ws_zip_stream_deinit(f->zip, &f->receive);
    }
}

/* zlib has no window of 256 bytes; what it makes for one of 512 must fit. */
TEST(deflate, keeps_to_a_window_of_256_bytes)
{
    struct bop_random random;
    uint8_t data[8192];

    bop_random_seed(&random, 2);
    for (size_t i = 0; i < sizeof(data); i++) { /* Matches at all distances up to 600. */
        size_t back = 1 + bop_random_below(&random, 600);

        data[i] = (uint8_t)(i < 600 || bop_random_chance(&random, 1, 40) ? bop_random_next(&random)
                                                                         : data[i - back]);
        for (size_t run = bop_random_below(&random, 20); run > 0 && i > 600 && i + 1 < sizeof(data);
             run--, i++) {
            data[i + 1] = data[i + 1 - back];
        }
    }
    f->send.bits = 8;
    REQUIRE_EQ(bop_ws_deflate(f->zip, &f->send, bop_slice(data, sizeof(data)), true, &f->packed),
               0);
    REQUIRE_EQ(bop_buf_append(&f->packed, ws_tail, sizeof(ws_tail)), 0);
    {
        z_stream z = {.next_in = f->packed.data, .avail_in = (unsigned)f->packed.size};
        uint8_t byte;
        size_t at = 0;

        /* A byte a call: what it refers to can only come from the window. */
        REQUIRE_EQ(inflateInit2(&z, -8), Z_OK);
        for (; at < sizeof(data); at++) {
            z.next_out = &byte;
            z.avail_out = 1;
            if (inflate(&z, Z_SYNC_FLUSH) != Z_OK || byte != data[at]) {
                break;
            }
        }
        CHECK_EQ(at, sizeof(data));
        inflateEnd(&z);
    }
}

/* Each allocation fails once in turn; the call says so, and nothing leaks. */
TEST(deflate, survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_ws_zip *zip = NULL;
        struct bop_ws_zip_stream send = {.bits = 9, .takeover = true};
        struct bop_ws_zip_stream receive = {.bits = 9, .takeover = true};
        struct bop_buf packed, out;
        int rc = bop_ws_zip_create(&(struct bop_ws_zip_options){.allocator = &f->heap.allocator},
                                   &zip);
        int fired;

        bop_buf_init(&packed, &f->heap.allocator, 0);
        bop_buf_init(&out, &f->heap.allocator, 0);
        if (rc == 0) {
            rc = bop_ws_deflate(zip, &send, bytes("Hello, Hello, Hello"), true, &packed);
        }
        if (rc == 0) {
            struct bop_slice piece = bop_buf_slice(&packed);

            rc = bop_ws_inflate(zip, &receive, &piece, true, 100, NULL, SIZE_MAX, &out);
        }
        fired = f->faults.fired;
        CHECK_EQ(rc, fired);
        if (zip) {
            bop_ws_zip_stream_deinit(zip, &send);
            bop_ws_zip_stream_deinit(zip, &receive);
        }
        bop_ws_zip_destroy(zip);
        bop_buf_deinit(&packed);
        bop_buf_deinit(&out);
    }
}

TEST(deflate, keeps_few_spare_states)
{
    struct bop_ws_zip_stream streams[8];

    for (size_t i = 0; i < BOP_COUNT_OF(streams); i++) {
        struct bop_slice piece = bytes("\xf2\x48");

        streams[i] = (struct bop_ws_zip_stream){.bits = 15};
        REQUIRE_EQ(bop_ws_inflate(f->zip, &streams[i], &piece, false, 100, NULL, SIZE_MAX, &f->out),
                   0);
        CHECK(streams[i].state != NULL);
    }
    for (size_t i = 0; i < BOP_COUNT_OF(streams); i++) {
        bop_ws_zip_stream_deinit(f->zip, &streams[i]);
    }
    CHECK_EQ(f->zip->spare_count[0], 4);
}

TEST(deflate, refuses_options_that_make_no_sense)
{
    struct bop_ws_zip *zip = NULL;

    CHECK_EQ(bop_ws_zip_create(&(struct bop_ws_zip_options){.level = 10}, &zip), BOP_EINVAL);
    CHECK_EQ(bop_ws_zip_create(&(struct bop_ws_zip_options){.mem_level = 10}, &zip), BOP_EINVAL);
    CHECK(zip == NULL);
}
