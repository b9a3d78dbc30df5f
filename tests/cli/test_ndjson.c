/* Entries to lines and back: any bytes. */
#include <stdlib.h>

#include <bop/random.h>

#include "ndjson.h"
#include "tap.h"

struct fixture {
    struct bop_buf line;
    struct bop_buf key;
    struct bop_buf value;
    struct bop_error err;
};

static void setup(struct fixture *f)
{
    bop_buf_init(&f->line, NULL, 0);
    bop_buf_init(&f->key, NULL, 0);
    bop_buf_init(&f->value, NULL, 0);
}

static void teardown(struct fixture *f)
{
    bop_buf_deinit(&f->line);
    bop_buf_deinit(&f->key);
    bop_buf_deinit(&f->value);
}

FIXTURE(setup, teardown)

/* Write, compare with the text, read, compare with what was written. */
static void round_trip(struct fixture *f, struct bop_slice key, struct bop_slice value,
                       const char *text)
{
    bop_buf_clear(&f->line);
    REQUIRE_EQ(ndjson_write(&f->line, key, value), 0);
    if (text) {
        CHECK_SLICE_EQ(bop_buf_slice(&f->line), bytes(text));
    }
    CHECK_EQ(f->line.data[f->line.size - 1], '\n');
    CHECK_PTR_EQ(memchr(f->line.data, '\n', f->line.size - 1), NULL);
    CHECK(bop_slice_is_utf8(bop_buf_slice(&f->line)));
    REQUIRE_EQ(ndjson_read(bop_buf_slice(&f->line), &f->key, &f->value, &f->err), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->key), key);
    CHECK_SLICE_EQ(bop_buf_slice(&f->value), value);
}

static void refused(struct fixture *f, const char *line, const char *message)
{
    CHECK_EQ(ndjson_read(bytes(line), &f->key, &f->value, &f->err), BOP_EMALFORMED);
    CHECK_STR_HAS(f->err.message, message);
}

TEST(ndjson, keeps_text_as_text)
{
    round_trip(f, bytes("hello"), bytes("world"), "{\"key\":\"hello\",\"value\":\"world\"}\n");
    round_trip(f, bytes(""), bytes(""), "{\"key\":\"\",\"value\":\"\"}\n");
    round_trip(f, bytes("a\"\\\n"), bytes("\xc3\xa9\t"),
               "{\"key\":\"a\\\"\\\\\\n\",\"value\":\"\xc3\xa9\\t\"}\n");
    round_trip(f, bop_slice("a\0b", 3), bytes("\x7f"),
               "{\"key\":\"a\\u0000b\",\"value\":\"\x7f\"}\n");
}

TEST(ndjson, keeps_other_bytes_in_base64)
{
    round_trip(f, bytes("\xff"), bytes("x"), "{\"key64\":\"/w==\",\"value\":\"x\"}\n");
    round_trip(f, bytes("k"), bytes("\xff\xfe"), "{\"key\":\"k\",\"value64\":\"//4=\"}\n");
    round_trip(f, bytes("k"), bytes("\xff\xfe\xfd"), "{\"key\":\"k\",\"value64\":\"//79\"}\n");
    round_trip(f, bytes("\xed\xa0\x80"), bytes(""), "{\"key64\":\"7aCA\",\"value\":\"\"}\n");
}

/* Bytes of any kind, and such as look like text. */
TEST(ndjson, gives_any_bytes_back)
{
    static const uint8_t tricky[] = {0, '"', '\\', '\n', 0x7f, 0xc3, 0xa9, 0xed, 0xa0, 0xff, 'a'};
    struct bop_random random;
    uint8_t key[64], value[300];

    bop_random_seed(&random, 7);
    for (int round = 0; round < 3000; round++) {
        size_t key_size = bop_random_below(&random, sizeof(key) + 1);
        size_t value_size = bop_random_below(&random, sizeof(value) + 1);
        bool any = bop_random_chance(&random, 1, 2);

        for (size_t i = 0; i < sizeof(value); i++) {
            value[i] = any ? (uint8_t)bop_random_next(&random)
                           : tricky[bop_random_below(&random, sizeof(tricky))];
            key[i % sizeof(key)] = (uint8_t)(value[i] & (round % 3 ? 0x7f : 0xff));
        }
        round_trip(f, bop_slice(key, key_size), bop_slice(value, value_size), NULL);
    }
}

TEST(ndjson, takes_members_in_any_order_and_ignores_others)
{
    REQUIRE_EQ(ndjson_read(bytes("  {\"value\":\"v\",\"version\":3,\"key64\":\"aw==\"} \r\n"),
                           &f->key, &f->value, &f->err),
               0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->key), bytes("k"));
    CHECK_SLICE_EQ(bop_buf_slice(&f->value), bytes("v"));
}

TEST(ndjson, refuses_what_is_no_entry)
{
    refused(f, "", "no JSON");
    refused(f, "{\"key\":\"k\",\"value\":\"v\"", "no JSON");
    refused(f, "{\"key\":\"k\",\"value\":\"v\"} x", "no JSON");
    refused(f, "{\"key\":\"\xff\",\"value\":\"v\"}", "no JSON");
    refused(f, "{\"key\":\"k\",\"key\":\"k\",\"value\":\"v\"}", "no JSON");
    refused(f, "[]", "no JSON object");
    refused(f, "{\"key\":\"k\"}", "neither \"value\" nor \"value64\"");
    refused(f, "{\"key\":\"k\",\"key64\":\"aw==\",\"value\":\"v\"}", "both \"key\" and \"key64\"");
    refused(f, "{\"key\":1,\"value\":\"v\"}", "\"key\" is no string");
    refused(f, "{\"key\":\"k\",\"value64\":null}", "\"value64\" is no string");
}

TEST(ndjson, refuses_what_is_no_base64)
{
    static const char *const bad[] = {
        "a",    "aw",   "aw=",      "aw==aw==", "a===", "====",      "aw=a",
        "a w=", "ax==", "awE=aaaa", "aw-_",     "aaF=", "aa\\u0000a"};
    char line[100];

    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        snprintf(line, sizeof(line), "{\"key64\":\"%s\",\"value\":\"v\"}", bad[i]);
        refused(f, line, "\"key64\" is no base64");
    }
}
