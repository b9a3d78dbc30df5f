/*
 * What WebSocket's codec costs, in CPU time: frames decoded, bytes unmasked, text checked,
 * messages compressed and inflated.
 *
 * Prints "NAME VALUE": nanoseconds (_ns) or gigabytes a second (_gbs), the median of rounds.
 * "sse" and "scalar" are what processors with less would take.
 *
 * usage: net_ws_codec [ROUNDS [SCALE]], SCALE in percent of the work of a round.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "net/ws/ws_frame.h"

#define ROUNDS_MAX 1001

struct work {
    const char *name;
    void (*run)(size_t times);
    size_t times;
    size_t bytes; /* Of one time; 0: it is nanoseconds that count. */
};

static uint8_t *memory, *text;
static struct bop_buf frames, packed, out;
static struct bop_slice message;
static struct bop_ws_zip *zip;
static struct bop_ws_zip_stream send, receive;

static void check(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

static double cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* ---- What is measured ---- */

/* 16 masked frames at a time, as one read brings them. Unmasking what is plain masks it, so every
 * second time the payload is what it was: binary, as text would fail. */
static void decode(size_t times)
{
    static const struct bop_ws_rules rules = {.message_bytes_max = 1 << 20};
    struct bop_ws_decoder decoder = {0};
    struct bop_ws_event event;

    for (size_t i = 0; i < times; i += 16) {
        struct bop_slice left = bop_buf_slice(&frames);
        size_t count = 0;

        while (bop_ws_decode(&decoder, &rules, &left, &event) == 1) {
            count += event.last;
            __asm__ volatile("" : : "r"(&event) : "memory");
        }
        check(count == 16, "decoding");
    }
}

static void encode(size_t times)
{
    for (size_t i = 0; i < times; i++) {
        bop_buf_clear(&out);
        check(bop_ws_append(&out, BOP_WS_FIN | BOP_WS_TEXT, bop_slice(text, 20), NULL) == 0,
              "encoding");
    }
}

static void encode_masked(size_t times)
{
    static struct bop_ws_keys keys;
    uint32_t key = 0;

    for (size_t i = 0; i < times; i++) {
        bop_buf_clear(&out);
        check(bop_ws_keys_next(&keys, &key) == 0, "a key");
        check(bop_ws_append(&out, BOP_WS_FIN | BOP_WS_TEXT, bop_slice(text, 20), &key) == 0,
              "encoding");
    }
}

static void unmask(size_t times)
{
    for (size_t i = 0; i < times; i++) {
        bop_ws_mask(memory, memory, 16384, 0x12345678);
    }
}

static void utf8(size_t times)
{
    for (size_t i = 0; i < times; i++) {
        struct bop_ws_utf8 state = {0};

        check(bop_ws_utf8_feed(&state, bop_slice(text, 16384)), "UTF-8");
    }
}

static void deflate_message(size_t times)
{
    for (size_t i = 0; i < times; i++) {
        bop_buf_clear(&packed);
        check(bop_ws_deflate(zip, &send, message, true, &packed) == 0, "deflating");
    }
}

static void inflate_message(size_t times)
{
    for (size_t i = 0; i < times; i++) {
        struct bop_slice piece = bop_buf_slice(&packed);

        bop_buf_clear(&out);
        check(bop_ws_inflate(zip, &receive, &piece, true, 1 << 20, NULL, SIZE_MAX, &out) == 0,
              "inflating");
    }
}

/* By zlib: what a message in two frames takes. */
static void inflate_stream(size_t times)
{
    for (size_t i = 0; i < times; i++) {
        struct bop_slice piece = bop_buf_slice(&packed);

        bop_buf_clear(&out);
        check(bop_ws_inflate(zip, &receive, &piece, true, 1 << 20, NULL, 1 << 20, &out) == 0,
              "inflating");
    }
}

/* ---- Measuring ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(const struct work *work, const char *suffix, int rounds, size_t scale)
{
    static double costs[ROUNDS_MAX];
    size_t times = work->times * scale / 100 + 16;

    times -= times % 16;
    for (int i = 0; i < rounds; i++) {
        double start = cpu_ns();

        work->run(times);
        costs[i] = (cpu_ns() - start) / (double)times;
    }
    qsort(costs, (size_t)rounds, sizeof(costs[0]), by_value);
    if (work->bytes) {
        printf("%s%s_gbs %.2f\n", work->name, suffix, (double)work->bytes / costs[rounds / 2]);
    } else {
        printf("%s%s_ns %.1f\n", work->name, suffix, costs[rounds / 2]);
    }
}

static void make_frames(size_t size)
{
    uint32_t key = 0x5a17c3e9;

    bop_buf_clear(&frames);
    for (int i = 0; i < 16; i++) {
        check(bop_ws_append(&frames, BOP_WS_FIN | BOP_WS_BINARY, bop_slice(text, size), &key) == 0,
              "encoding");
    }
}

static void fill_text(const char *word)
{
    size_t size = strlen(word);

    for (size_t i = 0; i < 16384; i++) {
        text[i] = (uint8_t)word[i % size];
    }
    for (size_t i = 16384 - 16384 % size; i < 16384; i++) {
        text[i] = 'a';
    }
}

static void measure_deflate(size_t size, const char *name, int rounds, size_t scale)
{
    static const char json[] = "{\"id\":%u,\"user\":\"user-%u\",\"price\":%u.%02u,\"ok\":true},";
    struct work work = {.times = 4000000 / size};
    char title[64];
    unsigned at = 0;

    for (unsigned i = 1; at + 100 < 16384; i++) {
        at += (unsigned)snprintf((char *)text + at, 100, json, i * 7919, i * 31 % 1000,
                                 i * 104729 % 10000, i % 100);
    }
    message = bop_slice(text, size);
    work.run = deflate_message;
    work.name = title;
    snprintf(title, sizeof(title), "deflate_%s", name);
    measure(&work, "", rounds, scale);
    printf("deflate_%s_ratio %.3f\n", name, (double)packed.size / (double)size);
    snprintf(title, sizeof(title), "inflate_%s", name);
    work.run = inflate_message;
    measure(&work, "", rounds, scale);
    work.run = inflate_stream;
    measure(&work, "_zlib", rounds, scale);
}

int main(int argc, char **argv)
{
    static const char *const simd_names[] = {"_scalar", "_sse", ""};
    int rounds = argc > 1 ? atoi(argv[1]) : 11;
    size_t scale = argc > 2 ? (size_t)atol(argv[2]) : 100;

    if (rounds < 1 || rounds > ROUNDS_MAX || scale < 1) {
        fprintf(stderr, "usage: net_ws_codec [ROUNDS [SCALE]]\n");
        return 2;
    }
    memory = calloc(1, 16384);
    text = calloc(1, 16384 + 128);
    check(memory && text, "memory");
    bop_buf_init(&frames, NULL, 0);
    bop_buf_init(&packed, NULL, 0);
    bop_buf_init(&out, NULL, 0);
    fill_text("plain text ");
    for (int simd = WS_SCALAR; simd <= (int)bop__ws_simd_best(); simd++) {
        bop__ws_simd_limit((enum ws_simd)simd);
        make_frames(20);
        measure(&(struct work){"decode_20", decode, 1600000, 0}, simd_names[simd], rounds, scale);
        make_frames(1024);
        measure(&(struct work){"decode_1024", decode, 160000, 0}, simd_names[simd], rounds, scale);
        measure(&(struct work){"unmask", unmask, 8000, 16384}, simd_names[simd], rounds, scale);
        fill_text("plain text ");
        measure(&(struct work){"utf8_ascii", utf8, 8000, 16384}, simd_names[simd], rounds, scale);
        fill_text("\xce\xb1\xce\xb2\xe2\x82\xac\xf0\x9f\x98\x80 x");
        measure(&(struct work){"utf8_mixed", utf8, 1000, 16384}, simd_names[simd], rounds, scale);
        fill_text("plain text ");
    }
    measure(&(struct work){"encode_20", encode, 1600000, 0}, "", rounds, scale);
    measure(&(struct work){"encode_20_masked", encode_masked, 1600000, 0}, "", rounds, scale);
    check(bop_ws_zip_create(&(struct bop_ws_zip_options){.level = 0}, &zip) == 0, "zlib");
    send.bits = receive.bits = 15;
    measure_deflate(1024, "1024", rounds, scale);
    measure_deflate(16000, "16000", rounds, scale);
    bop_ws_zip_destroy(zip);
    bop_buf_deinit(&frames);
    bop_buf_deinit(&packed);
    bop_buf_deinit(&out);
    free(memory);
    free(text);
    return 0;
}
