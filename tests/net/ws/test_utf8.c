/*
 * UTF-8 in pieces: whole tables of sequences, cut everywhere, against a plain model; every kind of
 * vectors; and that a bad byte fails where it stands.
 */
#include <stdio.h>
#include <stdlib.h>

#include <bop/random.h>

#include "tap.h"

#include "../../../src/net/ws/ws_frame.h"

#define FOR_EACH_SIMD(simd)                                                                        \
    for (int simd = WS_SCALAR;                                                                     \
         simd <= (int)bop__ws_simd_best() && (bop__ws_simd_limit((enum ws_simd)simd), true);       \
         simd++)

/* ---- The model: by what the code points are ---- */

/* The size of the longest beginning that some text could go on from; *out_whole: it may end there,
 * and is all there is. */
static size_t good_prefix(struct bop_slice text, bool *out_whole)
{
    size_t at = 0;

    *out_whole = true;
    while (at < text.size) {
        uint8_t byte = text.data[at];
        unsigned size = byte < 0x80 ? 1 : byte < 0xc0 ? 0 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
        unsigned there = 1;

        /* Whether some code point from 0x80 on, no surrogate, begins with the bytes so far. */
        for (; size > 1 && there <= size && at + there <= text.size; there++) {
            uint32_t low = byte & (0x7fu >> size), high;

            for (unsigned i = 1; i < there; i++) {
                if ((text.data[at + i] & 0xc0) != 0x80) {
                    goto bad;
                }
                low = low << 6 | (text.data[at + i] & 0x3f);
            }
            high = low;
            for (unsigned i = there; i < size; i++) {
                low <<= 6;
                high = high << 6 | 0x3f;
            }
            if (high < (size == 2   ? 0x80u
                        : size == 3 ? 0x800u
                                    : 0x10000u) ||
                low > 0x10ffff || (low >= 0xd800 && high <= 0xdfff) || byte >= 0xf8) {
                goto bad;
            }
        }
        if (size == 0) {
            goto bad;
        }
        if (size > 1 && there <= size) { /* Cut at the end. */
            *out_whole = false;
            return text.size;
        }
        at += size;
        continue;
    bad:
        *out_whole = false;
        return at + there - 1;
    }
    return at;
}

/* ---- Checks ---- */

/* Feed in pieces of `step` bytes after a first one of `cut`; how many bytes until it failed, or
 * SIZE_MAX. */
static size_t feed(struct bop_slice text, size_t cut, size_t step, bool *out_may_end)
{
    struct bop_ws_utf8 utf8 = {0};
    size_t from = 0, to = cut < text.size ? cut : text.size;

    for (;;) {
        if (!bop_ws_utf8_feed(&utf8, bop_slice(text.data + from, to - from))) {
            return to;
        }
        if (to == text.size) {
            *out_may_end = bop_ws_utf8_may_end(&utf8);
            return SIZE_MAX;
        }
        from = to;
        to = text.size - to > step ? to + step : text.size;
    }
}

static void check_text(const char *name, struct bop_slice text)
{
    bool whole, may_end = false;
    size_t good = good_prefix(text, &whole);
    /* In memory of its exact size, so that a sanitizer sees a read beyond it. */
    uint8_t *memory = malloc(text.size ? text.size : 1);
    struct bop_slice copy = bop_slice(memory, text.size);
    size_t at;

    BOP_ASSERT(memory);
    if (text.size > 0) {
        memcpy(memory, text.data, text.size);
    }
    at = feed(copy, 1, 1, &may_end);
    if (at != (good == text.size ? SIZE_MAX : good + 1) || (at == SIZE_MAX && may_end != whole)) {
        test__failed(__FILE__, __LINE__, "%s: fails at %zu instead of %zu", name, at, good + 1);
    }
    for (size_t cut = 0; cut <= text.size; cut++) {
        at = feed(copy, cut, text.size, &may_end);
        if ((at == SIZE_MAX) != (good == text.size) || (good < cut && at != cut) ||
            (at == SIZE_MAX && may_end != whole)) {
            test__failed(__FILE__, __LINE__, "%s, cut at %zu: %zu", name, cut, at);
        }
    }
    if (bop__ws_utf8_whole(copy.data, copy.size) != whole) {
        test__failed(__FILE__, __LINE__, "%s: whole differs", name);
    }
    free(memory);
}

struct text_case {
    const char *name;
    const char *text;
    size_t size;
    size_t good; /* Bytes before the first bad one; SIZE_MAX: no bad one. */
    bool whole;
};

#define GOOD(text)      (text), sizeof(text) - 1, SIZE_MAX, true
#define CUT(text)       (text), sizeof(text) - 1, SIZE_MAX, false
#define BAD(text, good) (text), sizeof(text) - 1, (good), false

#include "cases_utf8.h"

/* The text alone, and at every place around the edges of vectors. */
TEST(utf8, cases)
{
    size_t count = 0;

    for (size_t i = 0; i < BOP_COUNT_OF(utf8_cases); i++) {
        const struct text_case *c = &utf8_cases[i];
        bool whole;
        size_t good = good_prefix(bop_slice(c->text, c->size), &whole);

        if (good != (c->good == SIZE_MAX ? c->size : c->good) || whole != c->whole) {
            test__failed(__FILE__, __LINE__, "%s: the model says %zu", c->name, good);
        }
        FOR_EACH_SIMD(simd)
        {
            for (size_t before = 0; before < 70; before += before < 20 ? 1 : 7, count++) {
                char text[256];
                size_t after = before % 3 * 33;

                memset(text, 'a', sizeof(text));
                memcpy(text + before, c->text, c->size);
                check_text(c->name, bop_slice(text, before + c->size + after));
            }
        }
    }
    test_note("%zu cases, each cut everywhere", count);
}

/* Each of the 2^21 sequences of the four-byte form and shorter that are characters, and those that
 * are not but look like one. */
TEST(utf8, every_code_point)
{
    for (uint32_t code = 0; code < 0x200000; code++) {
        unsigned size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
        bool good = code < 0x110000 && (code < 0xd800 || code > 0xdfff);
        struct bop_ws_utf8 utf8 = {0};
        uint8_t text[4];

        for (unsigned i = 0; i < size; i++) {
            text[i] = (uint8_t)(0x80 | (code >> 6 * (size - 1 - i) & 0x3f));
        }
        text[0] = (uint8_t)(first[size] | code >> 6 * (size - 1));
        if (bop_ws_utf8_feed(&utf8, bop_slice(text, size)) != good ||
            (good && !bop_ws_utf8_may_end(&utf8))) {
            test__failed(__FILE__, __LINE__, "U+%X", code);
        }
    }
}

/* Each pair of bytes, and each of the three- and four-byte sequences by the bytes that matter, at
 * the edge of a vector. */
TEST(utf8, every_pair_of_bytes)
{
    static const uint8_t third[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    uint8_t text[64];
    bool whole;

    FOR_EACH_SIMD(simd)
    {
        for (unsigned pair = 0; pair < 65536; pair++) {
            for (unsigned more = 0; more < BOP_COUNT_OF(third); more++) {
                size_t at = 28 + pair % 5;

                memset(text, 'a', sizeof(text));
                text[at] = (uint8_t)(pair >> 8);
                text[at + 1] = (uint8_t)pair;
                text[at + 2] = third[more];
                text[at + 3] = third[(more + pair) % BOP_COUNT_OF(third)];
                good_prefix(bop_slice(text, sizeof(text)), &whole);
                if (bop__ws_utf8_whole(text, sizeof(text)) != whole) {
                    test__failed(__FILE__, __LINE__, "%02x %02x %02x %02x", text[at], text[at + 1],
                                 text[at + 2], text[at + 3]);
                }
            }
        }
    }
}

/* Long texts of characters of all sizes, good ones and with one byte changed. */
TEST(utf8, long_texts)
{
    struct bop_random random;
    uint8_t text[400];
    char name[32];

    bop_random_seed(&random, 5);
    for (int round = 0; round < 300; round++) {
        size_t size = 0;

        while (size < 300) {
            static const char *const some[] = {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                                               "plain words "};
            const char *next = some[bop_random_below(&random, round % 2 ? 5 : 4)];

            memcpy(text + size, next, strlen(next));
            size += strlen(next);
        }
        if (round % 3 != 0) {
            text[bop_random_below(&random, size)] = (uint8_t)bop_random_next(&random);
        }
        snprintf(name, sizeof(name), "round %d", round);
        FOR_EACH_SIMD(simd)
        {
            check_text(name, bop_slice(text, size));
        }
    }
}
