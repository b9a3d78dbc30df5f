/*
 * A crash at every operation of the disk and at every call of the object store, before and
 * after it is done: what was sealed is readable from some tier at any time, and in the end
 * nothing is left over in any.
 */
#include "harness.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
}

static void teardown(struct fixture *f)
{
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

#define KEPT_BYTES 13000 /* Two segments, packed. */

/* Small budgets: of each segment that comes, an older one leaves each tier. */
static void world_begin(struct fixture *f, struct world *w, uint64_t seed)
{
    world_init(w, &f->heap.allocator, seed);
    w->options.tier0_bytes = 20000;
    w->options.tier1_bytes = 8000;
    w->options.retention_bytes = KEPT_BYTES;
    w->options.delete_grace_ms = 1000;
}

/* The invariant: each segment that was on disk once, and that retention has no claim to, can be
 * read. Retention takes the oldest, and leaves what it must. */
static void check_kept(struct fake_log *log)
{
    uint64_t kept = 0;
    bool gone = false;

    for (unsigned i = log->count; i-- > 0;) {
        const struct made *made = &log->made[i];

        if (!made->acked || made->voided) {
            /* It was counted as long as it was there. */
            kept += made->acked ? KEPT_BYTES / 2 : 0;
            continue;
        }
        if (is_readable(log, made)) {
            CHECK(!gone); /* None is missing between two that are there. */
            /* One that was dropped and is there again is packed anew. */
            kept += bop_max_u64(segment_of(log, i).packed_bytes, KEPT_BYTES / 2);
        } else {
            gone = true;
        }
    }
    CHECK(!gone || kept > KEPT_BYTES / 2);
}

struct objects {
    struct fake_log *log;
    unsigned segments;
};

static int count_object(void *user, const char *key, const struct bop_object_info *info)
{
    struct objects *objects = user;

    BOP_IGNORE(info);
    for (unsigned i = 0; i < objects->log->count; i++) {
        char expected[256];

        key_of(objects->log, i, expected);
        if (strcmp(key, expected) == 0) {
            CHECK(segment_of(objects->log, i).in_tier2);
            objects->segments++;
            return 0;
        }
    }
    CHECK_STR_EQ(key, "a segment's key");
    return 0;
}

static int count_file(void *user, const char *name)
{
    unsigned *count = user;

    CHECK(strstr(name, ".tmp") == NULL);
    (*count)++;
    return 0;
}

/* When all is settled, each object and each file is somebody's. */
static void check_no_orphans(struct fake_log *log)
{
    struct bop_object_store *store = object_memory_store(log->world->memory);
    struct objects objects = {.log = log};
    unsigned files = 0, in_tier1 = 0, in_tier2 = 0;
    char path[320];

    REQUIRE_EQ(store->list(store, "aof/orders/segment-", count_object, &objects, NULL), 0);
    snprintf(path, sizeof(path), "%s/warm", log->path);
    REQUIRE_EQ(log->world->fs->list(log->world->fs, path, count_file, &files), 0);
    for (unsigned i = 0; i < log->count; i++) {
        in_tier1 += segment_of(log, i).in_tier1;
        in_tier2 += segment_of(log, i).in_tier2;
    }
    CHECK_EQ(objects.segments, in_tier2);
    CHECK_EQ(files, in_tier1);
}

static bool open_all(struct world *w)
{
    return world_open(w) == 0 && log_open(&w->logs[0]) == 0;
}

/* Live until the end, or until death. With check, the invariant is looked at after each step. */
static void live(struct world *w, unsigned segments)
{
    struct fake_log *log = &w->logs[0];

    for (unsigned i = 0; i < segments; i++) {
        if (!log_seal(log)) {
            break;
        }
        pass(w, 700);
    }
    if (log->count > 0 && log->made[log->count - 1].acked && !is_dead(w)) {
        uint64_t last = log->made[log->count - 1].facts.base - 1;

        if (log_truncate(log, last) < 0) {
            /* It may be on disk or not: the log asks again when it comes back. */
            log->made[log->count - 1].voided = false;
        }
        pass(w, 100);
    }
    pass(w, 1500);
}

static void close_dead(struct world *w)
{
    if (w->tiers) {
        world_close(w);
    }
}

/* The machine comes back. */
static void revive(struct world *w, bool power)
{
    close_dead(w);
    if (power) {
        bop_fs_sim_lose_power(w->sim);
    } else {
        bop_fs_sim_kill_process(w->sim);
    }
    bop_fs_sim_stop_after(w->sim, 0);
    w->stop_at = 0;
    w->mortal.dead = false;
    w->mortal.die_at = 0;
}

static void check_after(struct world *w)
{
    struct fake_log *log = &w->logs[0];

    REQUIRE(open_all(w));
    check_kept(log);
    settle(w);
    check_kept(log);
    REQUIRE(log_seal(log));
    pass(w, 200000); /* Back-offs and graces are over. */
    check_kept(log);
    check_no_orphans(log);
    CHECK_STR_EQ(status_of(w).message, "");
    CHECK_EQ(status_of(w).last_error, 0);
    CHECK_EQ(log->tier2, log->made[log->count - 1].facts.end_seq - 1);
}

TEST(crash, at_every_operation_of_the_disk)
{
    for (uint64_t n = 1;; n++) {
        struct world w;
        bool died;

        world_begin(f, &w, n);
        w.stop_at = bop_fs_sim_operations(w.sim) + n;
        bop_fs_sim_stop_after(w.sim, n);
        if (open_all(&w)) {
            live(&w, 4);
        }
        died = is_dead(&w);
        revive(&w, n % 2 == 0);
        check_after(&w);
        world_deinit(&w);
        if (!died) {
            test_note("%llu operations", (unsigned long long)n);
            CHECK(n > 150);
            return;
        }
    }
}

TEST(crash, at_every_call_of_the_object_store)
{
    for (uint64_t n = 2;; n++) {
        struct world w;
        bool died;

        world_begin(f, &w, n);
        w.mortal.die_at = n / 2;
        w.mortal.die_after = n % 2 > 0;
        REQUIRE(open_all(&w));
        live(&w, 4);
        died = w.mortal.dead;
        revive(&w, n % 4 < 2);
        check_after(&w);
        world_deinit(&w);
        if (!died) {
            test_note("%llu calls", (unsigned long long)n / 2);
            CHECK(n > 40);
            return;
        }
    }
}

/* The model, at each step of a life without a crash. */
TEST(crash, every_step_keeps_all_readable)
{
    struct world w;
    struct fake_log *log = &w.logs[0];

    world_begin(f, &w, 5);
    REQUIRE(open_all(&w));
    for (unsigned i = 0; i < 6; i++) {
        REQUIRE(log_seal(log));
        for (unsigned step = 0; step < 60; step++) {
            bop_tiers_poll(w.tiers);
            check_kept(log);
            bop_inline_poll(&w.executor);
            check_kept(log);
            w.clock.now_us += 30000;
        }
    }
    CHECK(status_of(&w).deletes > 0 && status_of(&w).evictions > 0);
    world_deinit(&w);
}
