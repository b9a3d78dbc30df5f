/*
 * Lanes of the tiers' own, and readers on threads of theirs, while segments move under them.
 */
#include <time.h>

#include "harness.h"

#define READERS 3

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct world w;
    struct fake_log *log;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool notified;
    bool stop;
};

static void notify(void *user)
{
    struct fixture *f = user;

    pthread_mutex_lock(&f->lock);
    f->notified = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    world_init(&f->w, &f->heap.allocator, 1);
    f->log = &f->w.logs[0];
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    f->w.options.executor_count = 0;
    f->w.options.workers = 3;
    f->w.options.clock = NULL;
    f->w.options.objects = object_memory_store(f->w.memory); /* That one knows threads. */
    f->w.options.notify = notify;
    f->w.options.user = f;
    f->w.options.retry_ms = 1;
}

static void teardown(struct fixture *f)
{
    world_deinit(&f->w);
    CHECK_EQ(f->heap.live, 0);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
}

FIXTURE(setup, teardown)

/* Poll once, having waited for a reason to. */
static void poll_once(struct fixture *f)
{
    uint64_t next_ms = bop_min_u64(bop_tiers_poll(f->w.tiers), 1000);
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(next_ms % 1000) * 1000000;
    until.tv_sec += (time_t)(next_ms / 1000) + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&f->lock);
    while (!f->notified && pthread_cond_timedwait(&f->changed, &f->lock, &until) == 0) {
    }
    f->notified = false;
    pthread_mutex_unlock(&f->lock);
}

struct reader {
    struct fixture *f;
    pthread_t thread;
    unsigned first; /* Segments from here on, one after the other. */
    bool blocking;
    uint64_t read;
};

/* Wait for what is being fetched. False: the test is over. */
static bool wait_hydrated(struct reader *reader)
{
    struct fixture *f = reader->f;
    struct timespec until;
    bool stop;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&f->lock);
    if (!f->stop) {
        pthread_cond_timedwait(&f->changed, &f->lock, &until);
    }
    stop = f->stop;
    pthread_mutex_unlock(&f->lock);
    return !stop;
}

static int read_segment(struct reader *reader, const struct made *made)
{
    struct bop__archive *archive = reader->f->log->archive;
    struct bop__segment_source *source;
    struct bop_slice got;
    uint64_t at = 0;
    int rc;

    rc = bop__archive_source(archive, made->facts.generation, reader->blocking, &source, NULL);
    while (rc == 0 && at < source->size) {
        rc = source->at(source, at, 1, &got, NULL);
        if (rc == BOP_EHYDRATING && wait_hydrated(reader)) {
            rc = 0;
            continue;
        }
        if (rc == 0) {
            if (memcmp(got.data, made->bytes.data + at, got.size) != 0) {
                rc = BOP_ECORRUPT;
            }
            at += got.size;
        }
    }
    if (rc != BOP_ENOTFOUND) {
        source->close(source);
    }
    return rc;
}

static void *reader_main(void *user)
{
    struct reader *reader = user;
    struct fixture *f = reader->f;
    bool stop = false;

    for (unsigned i = reader->first; !stop; i = (i + 1) % 4) {
        int rc = read_segment(reader, &f->log->made[i]);

        CHECK(rc == 0 || rc == BOP_EHYDRATING || rc == BOP_EIO);
        reader->read += rc == 0;
        pthread_mutex_lock(&f->lock);
        stop = f->stop;
        pthread_mutex_unlock(&f->lock);
    }
    return NULL;
}

TEST(threads, lanes_bring_segments_to_tier_2)
{
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(f->log), 0);
    for (unsigned i = 0; i < 6; i++) {
        REQUIRE(log_seal(f->log));
    }
    while (f->log->tier2 < 360) {
        poll_once(f);
    }
    CHECK_EQ(bop__archive_waiting(f->log->archive), 0);
}

TEST(threads, readers_go_on_while_segments_move)
{
    struct reader readers[READERS];

    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 14000; /* Two of the twelve. */
    f->w.options.cache_bytes = 16384;
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(f->log), 0);
    for (unsigned i = 0; i < 4; i++) {
        REQUIRE(log_seal(f->log));
    }
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.f = f, .first = i, .blocking = i % 2 == 0};
        REQUIRE_EQ(pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        uint64_t wanted = f->log->made[f->log->count - 1].facts.end_seq - 1;

        while (f->log->tier2 < wanted) {
            poll_once(f);
        }
        REQUIRE(log_seal(f->log));
        object_memory_fail(f->w.memory, OBJECT_MEMORY_ANY, 3, BOP_EIO, OBJECT_MEMORY_REFUSE);
        if (i % 3 == 0) {
            REQUIRE_EQ(bop_tiers_pin(f->w.tiers, (struct bop_aof *)f->log, 1, 100), 0);
        } else if (i % 3 == 1) {
            REQUIRE_EQ(bop_tiers_unpin(f->w.tiers, (struct bop_aof *)f->log, 1, 100), 0);
        }
    }
    while (f->log->tier2 < 720) {
        poll_once(f);
    }
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
    }
    CHECK(readers[0].read + readers[1].read + readers[2].read > 0);
}

TEST(threads, closing_ends_what_is_under_way)
{
    REQUIRE_EQ(world_open(&f->w), 0);
    for (unsigned round = 0; round < 5; round++) {
        REQUIRE_EQ(log_open(f->log), 0);
        REQUIRE(log_seal(f->log) && log_seal(f->log));
        for (unsigned i = 0; i < round; i++) {
            bop_tiers_poll(f->w.tiers);
        }
        bop__archive_close(f->log->archive);
        f->log->archive = NULL;
    }
    REQUIRE_EQ(log_open(f->log), 0);
    while (f->log->tier2 < 600) {
        poll_once(f);
    }
}
