/*
 * All local files are lost: what was told to be in tier 2 comes back from the bucket.
 */
#include "harness.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct world w;     /* That is lost. */
    struct world again; /* On another machine, with the same bucket. */
    struct bop_tiers_restored restored;
    struct bop_error err;
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

static void begin(struct fixture *f)
{
    world_init(&f->w, &f->heap.allocator, 1);
    f->w.options.delete_grace_ms = 1000;
}

static void open_first(struct fixture *f)
{
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(&f->w.logs[0]), 0);
}

/* The first machine burns down; the other one has its bucket and knows what was in the log. */
static void lose(struct fixture *f)
{
    struct fake_log *from = &f->w.logs[0], *to = &f->again.logs[0];

    world_init(&f->again, &f->heap.allocator, 2);
    object_memory_destroy(f->again.memory);
    f->again.memory = f->w.memory;
    f->w.memory = NULL;
    f->again.clock.now_us = f->w.clock.now_us;
    f->again.options.delete_grace_ms = 1000;
    to->count = from->count;
    for (unsigned i = 0; i < from->count; i++) {
        to->made[i] = from->made[i];
        to->made[i].local = false;
        from->made[i].bytes = (struct bop_buf){0};
    }
    from->count = 0;
    world_deinit(&f->w);
}

static int restore(struct fixture *f)
{
    return bop_tiers_restore(&f->again.options, "/data/orders", "orders", &f->restored, &f->err);
}

static void open_again(struct fixture *f)
{
    REQUIRE_EQ(world_open(&f->again), 0);
    REQUIRE_EQ(log_open(&f->again.logs[0]), 0);
}

/* The segment that the log goes on with. */
static struct bop__aof_segment_header next_header(struct fixture *f, uint64_t generation)
{
    struct bop__aof_segment_header header = {0};
    char name[BOP__AOF_NAME_SIZE], path[128];
    struct bop_buf bytes;

    bop__aof_segment_name(f->restored.last_seq + 1, generation, name);
    snprintf(path, sizeof(path), "/data/orders/%s", name);
    bop_buf_init(&bytes, NULL, 0);
    CHECK_EQ(bop_fs_read_file(f->again.fs, path, 1 << 20, &bytes), 0);
    if (bytes.size >= BOP__AOF_SEGMENT_HEADER) {
        CHECK_EQ(bop__aof_segment_header_decode(bytes.data, path, &header, NULL), 0);
    }
    bop_buf_deinit(&bytes);
    return header;
}

TEST(restore, brings_everything_back_byte_by_byte)
{
    struct fake_log *log = &f->again.logs[0];
    struct bop__aof_segment_header header;

    begin(f);
    open_first(f);
    for (unsigned i = 0; i < 4; i++) {
        REQUIRE(log_seal(&f->w.logs[0]));
        settle(&f->w);
    }
    lose(f);

    REQUIRE_EQ(restore(f), 0);
    CHECK_EQ(f->restored.segments, 4);
    CHECK_EQ(f->restored.first_seq, 1);
    CHECK_EQ(f->restored.last_seq, 240);
    CHECK(f->restored.manifest_chunks >= 1);
    header = next_header(f, 4 + 1000 + 1);
    CHECK_EQ(header.base, 241);
    CHECK_EQ(header.front, 1);
    CHECK_EQ(header.seed, log->made[3].facts.link);
    CHECK_EQ(header.epoch, 3);
    CHECK_MEM_EQ(header.log_id, log->made[0].facts.log_id, BOP_AOF_ID_SIZE);

    open_again(f);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(segment_of(log, i).residency, BOP_TIERS_TIER2);
        CHECK_EQ(read_archived(log, &log->made[i], true, NULL), 0);
    }
    /* And it goes on. */
    REQUIRE(log_seal(log));
    settle(&f->again);
    CHECK_EQ(log->tier2, 300);
    CHECK_EQ(status_of(&f->again).last_error, 0);
    world_deinit(&f->again);
}

TEST(restore, needs_a_directory_of_its_own_and_a_log)
{
    begin(f);
    open_first(f);
    REQUIRE(log_seal(&f->w.logs[0]));
    settle(&f->w);
    lose(f);
    REQUIRE_EQ(bop_fs_mkdirs(f->again.fs, "/data/orders/warm"), 0);
    CHECK_EQ(restore(f), BOP_EEXISTS);
    CHECK_STR_HAS(f->err.message, "/data/orders");
    CHECK_EQ(bop_tiers_restore(&f->again.options, "/data/x", "nobody", &f->restored, &f->err),
             BOP_ENOTFOUND);
    CHECK_STR_HAS(f->err.message, "aof/nobody/");
    CHECK_EQ(bop_tiers_restore(&f->again.options, "/data/x", "", &f->restored, &f->err),
             BOP_EINVAL);
    f->again.options.objects = NULL;
    CHECK_EQ(restore(f), BOP_EINVAL);
    world_deinit(&f->again);
}

TEST(restore, leaves_out_what_was_retired_and_truncated)
{
    struct fake_log *log = &f->again.logs[0];

    begin(f);
    f->w.options.retention_bytes = 20000;
    f->w.options.delete_grace_ms = 100000;
    open_first(f);
    for (unsigned i = 0; i < 5; i++) {
        REQUIRE(log_seal(&f->w.logs[0]));
        settle(&f->w);
    }
    REQUIRE_EQ(log_truncate(&f->w.logs[0], 240), 0);
    settle(&f->w);
    lose(f);
    REQUIRE_EQ(restore(f), 0);
    CHECK_EQ(f->restored.segments, 2);
    CHECK_EQ(f->restored.first_seq, 121);
    CHECK_EQ(f->restored.last_seq, 240);
    open_again(f);
    CHECK(is_readable(log, &log->made[2]) && is_readable(log, &log->made[3]));
    CHECK_EQ(read_archived(log, &log->made[0], true, NULL), BOP_ENOTFOUND);
    CHECK_EQ(read_archived(log, &log->made[4], true, NULL), BOP_ENOTFOUND);
    REQUIRE(log_seal(log));
    pass(&f->again, 200000);
    CHECK(!has_object(log, 0) && !has_object(log, 1) && !has_object(log, 4));
    CHECK(has_object(log, 5));
    CHECK_EQ(status_of(&f->again).last_error, 0);
    world_deinit(&f->again);
}

TEST(restore, finds_what_a_late_listing_lacks)
{
    begin(f);
    open_first(f);
    REQUIRE(log_seal(&f->w.logs[0]));
    settle(&f->w);
    REQUIRE_EQ(object_memory_stale_lists(f->w.memory, true), 0);
    for (unsigned i = 0; i < 5; i++) {
        world_close(&f->w); /* Each opening begins a chunk. */
        open_first(f);
        REQUIRE(log_seal(&f->w.logs[0]));
        settle(&f->w);
        CHECK_EQ(status_of(&f->w).last_error, 0);
    }
    lose(f);
    REQUIRE_EQ(restore(f), 0);
    CHECK_EQ(f->restored.segments, 6);
    world_deinit(&f->again);
}

/* The bucket as it is at any moment: what was told to be in tier 2 is found by a restore. */
TEST(restore, holds_what_was_promised_at_every_moment)
{
    for (uint64_t n = 2;; n++) {
        struct fake_log *log;
        uint64_t promised, first;
        bool died;

        begin(f);
        f->w.options.tier0_bytes = 20000;
        f->w.options.tier1_bytes = 8000;
        f->w.options.retention_bytes = 13000;
        f->w.mortal.die_at = n / 2;
        f->w.mortal.die_after = n % 2 > 0;
        open_first(f);
        log = &f->w.logs[0];
        for (unsigned i = 0; i < 4 && log_seal(log); i++) {
            pass(&f->w, 700);
        }
        died = f->w.mortal.dead;
        promised = log->tier2;
        lose(f);
        log = &f->again.logs[0];
        if (promised == 0 && restore(f) == BOP_ENOTFOUND) {
            CHECK(died);
            world_deinit(&f->again);
            continue;
        }
        if (promised > 0) {
            REQUIRE_EQ(restore(f), 0);
        }
        CHECK(f->restored.last_seq >= promised);
        CHECK(f->restored.segments >= (promised > 60 ? 2 : promised > 0 ? 1 : 0));
        open_again(f);
        first = f->restored.first_seq;
        for (unsigned i = 0; i < log->count; i++) {
            if (log->made[i].facts.base >= first &&
                log->made[i].facts.end_seq - 1 <= f->restored.last_seq) {
                CHECK(is_readable(log, &log->made[i]));
            }
        }
        pass(&f->again, 5000);
        CHECK_EQ(status_of(&f->again).last_error, 0);
        world_deinit(&f->again);
        if (!died) {
            CHECK(n > 40);
            return;
        }
    }
}

TEST(restore, survives_each_failure)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_faults faults = f->faults;
        int rc;

        f->faults.fail_at = 0;
        begin(f);
        open_first(f);
        REQUIRE(log_seal(&f->w.logs[0]) && log_seal(&f->w.logs[0]));
        settle(&f->w);
        lose(f);
        object_memory_faults(f->again.memory, &f->faults);
        f->faults = faults;
        rc = restore(f);
        CHECK(rc == f->faults.fired || rc == BOP_ENOMEM);
        CHECK_EQ(rc < 0, f->err.message[0] != '\0' && rc < 0);
        faults = f->faults;
        f->faults.fail_at = 0;
        world_deinit(&f->again);
        CHECK_EQ(f->heap.live, 0);
        f->faults = faults;
    }
    CHECK(f->faults.at > 45);
}
