/*
 * What the log's tests share: a log on a simulated disk with an executor that
 * runs when told to, and records whose content follows from their number.
 */
#ifndef BOP_TESTS_STORE_AOF_HARNESS_H
#define BOP_TESTS_STORE_AOF_HARNESS_H

#include <stdio.h>

#include <bop/aof.h>
#include <bop/sim.h>

#include "store/aof/format.h"
#include "tap.h"

#define LOG_PATH "/log"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_sim *sim;
    struct bop_fs *fs;
    struct bop_inline_executor executor;
    struct bop_aof_options options;
    struct bop_aof *aof;
    struct bop_aof_recovery recovery;
    struct bop_error err;
    struct bop_buf buf;

    /* What callbacks told. */
    uint64_t durable;
    unsigned durable_calls;
    unsigned failed_calls;
    int failed_code;
};

static void on_durable(void *user, uint64_t seq)
{
    struct fixture *f = user;

    f->durable = seq;
    f->durable_calls++;
}

static void on_failed(void *user, int code, const char *message)
{
    struct fixture *f = user;

    CHECK(message[0] != '\0');
    f->failed_code = code;
    f->failed_calls++;
}

static void setup(struct fixture *f)
{
    struct bop_fs_sim_options sim_options = {.seed = 1};

    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop_fs_sim_create(&sim_options, &f->sim), 0);
    f->fs = bop_fs_sim_fs(f->sim);
    bop_inline_init(&f->executor);
    bop_buf_init(&f->buf, NULL, 0);
    f->options = (struct bop_aof_options){
        .allocator = &f->heap.allocator,
        .fs = f->fs,
        .executor = &f->executor.executor,
        .path = LOG_PATH,
        .segment_bytes = 16384,
        .on_durable = on_durable,
        .on_failed = on_failed,
        .user = f,
    };
}

/* Let the executor finish and close. */
BOP_UNUSED static void close_log(struct fixture *f)
{
    bop_inline_poll(&f->executor);
    bop_aof_close(f->aof);
    f->aof = NULL;
}

static void teardown(struct fixture *f)
{
    close_log(f);
    bop_buf_deinit(&f->buf);
    CHECK_EQ(f->heap.live, 0);
    bop_fs_sim_destroy(f->sim);
}

FIXTURE(setup, teardown)

BOP_UNUSED static int open_log(struct fixture *f)
{
    f->durable = 0;
    f->durable_calls = 0;
    f->failed_calls = 0;
    f->failed_code = 0;
    return bop_aof_open(&f->options, &f->aof, &f->recovery, &f->err);
}

/* Append one record; its tag is its number, its time twice that. */
BOP_UNUSED static int append(struct fixture *f, struct bop_slice head, struct bop_slice body)
{
    uint64_t seq = bop_aof_last(f->aof) + 1;
    struct bop_aof_record record = {.tag = seq, .time_us = seq * 2, .head = head, .body = body};

    return bop_aof_append(f->aof, &record, 1);
}

/* Append count records, each "<text> <number>", and commit them. */
BOP_UNUSED static void append_texts(struct fixture *f, const char *text, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char payload[256];

        snprintf(payload, sizeof(payload), "%s %llu", text,
                 (unsigned long long)bop_aof_last(f->aof) + 1);
        REQUIRE_EQ(append(f, bytes(payload), bytes("")), 0);
    }
    bop_inline_poll(&f->executor);
}

/* Records first to last are there and are "<text> <number>". */
BOP_UNUSED static void check_texts(struct fixture *f, const char *text, uint64_t first,
                                   uint64_t last)
{
    for (uint64_t seq = first; seq <= last; seq++) {
        struct bop_aof_view view;
        char payload[256];

        snprintf(payload, sizeof(payload), "%s %llu", text, (unsigned long long)seq);
        REQUIRE_EQ(bop_aof_read(f->aof, seq, 1, SIZE_MAX, &f->buf, &view, &f->err), 1);
        CHECK_EQ(view.seq, seq);
        CHECK_EQ(view.tag, seq);
        CHECK_EQ(view.time_us, seq * 2);
        CHECK_SLICE_EQ(view.payload, bytes(payload));
    }
}

/* The path of a segment's file. Of the last call only. */
BOP_UNUSED static const char *segment_path(uint64_t base, uint64_t generation)
{
    static char path[64];

    snprintf(path, sizeof(path), LOG_PATH "/%016llx-%016llx.seg", (unsigned long long)base,
             (unsigned long long)generation);
    return path;
}

#endif
