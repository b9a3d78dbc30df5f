/*
 * Everything fails once in turn, and servers misbehave: all of it is got over.
 */
#include "harness.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_faulty faulty;
    struct world w;
    struct fake_log *log;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    f->log = &f->w.logs[0];
}

static void teardown(struct fixture *f)
{
    world_deinit(&f->w);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void begin(struct fixture *f)
{
    world_init(&f->w, &f->heap.allocator, 1);
}

static void open_all(struct fixture *f)
{
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(f->log), 0);
}

/* Tell of a segment until it is heard. */
static void seal(struct fixture *f)
{
    unsigned tries = 0;

    if (!log_seal(f->log)) {
        struct made *made = &f->log->made[f->log->count - 1];

        while (bop__archive_sealed(f->log->archive, &made->facts, made->path) < 0) {
            REQUIRE(tries++ < 3);
        }
    }
}

static void live(struct fixture *f)
{
    f->w.options.tier0_bytes = 20000;
    f->w.options.tier1_bytes = 8000;
    f->w.options.retention_bytes = 13000;
    f->w.options.delete_grace_ms = 1000;
    for (unsigned tries = 0; world_open(&f->w) < 0; tries++) {
        REQUIRE(tries < 2);
    }
    for (unsigned tries = 0; log_open(f->log) < 0; tries++) {
        REQUIRE(tries < 2);
    }
    for (unsigned i = 0; i < 4; i++) {
        seal(f);
        pass(&f->w, 700);
    }
    if (bop_tiers_pin(f->w.tiers, (struct bop_aof *)f->log, 181, 181) < 0) {
        REQUIRE_EQ(bop_tiers_pin(f->w.tiers, (struct bop_aof *)f->log, 121, 181), 0);
    }
    pass(&f->w, 5000);
    BOP_IGNORE(read_archived(f->log, &f->log->made[2], false, NULL));
    BOP_IGNORE(read_archived(f->log, &f->log->made[3], true, NULL));
    pass(&f->w, 100000);
}

TEST(failures, each_operation_fails_once)
{
    uint64_t rounds = 0;

    FAULT_SWEEP(&f->faults) {
        struct bop_faults faults = f->faults;

        rounds++;
        f->faults.fail_at = 0;
        begin(f);
        bop_fs_faulty_init(&f->faulty, f->w.fs, &f->faults);
        f->w.options.fs = &f->faulty.fs;
        object_memory_faults(f->w.memory, &f->faults);
        f->faults = faults;
        live(f);
        CHECK_EQ(status_of(&f->w).last_error, 0);
        CHECK_EQ(f->log->tier2, 240);
        CHECK(has_object(f->log, 3));
        faults = f->faults;
        f->faults.fail_at = 0;
        CHECK(is_readable(f->log, &f->log->made[2]) && is_readable(f->log, &f->log->made[3]));
        world_deinit(&f->w);
        CHECK_EQ(f->faulty.open_files, 0);
        CHECK_EQ(f->heap.live, 0);
        f->w = (struct world){0};
        f->faults = faults;
    }
    test_note("%llu rounds", (unsigned long long)rounds);
    CHECK(rounds > 300);
    begin(f);
}

/* ---- Servers ---- */

TEST(failures, back_off_doubles_with_jitter_up_to_a_minute)
{
    uint64_t calls, last = 0, gap = 0;

    begin(f);
    open_all(f);
    object_memory_outage(f->w.memory, BOP_EBUSY);
    settle(&f->w);
    for (unsigned i = 0; i < 14; i++) {
        uint64_t next_ms = settle(&f->w);

        REQUIRE(next_ms > 0 && next_ms <= 60001);
        CHECK(next_ms + 1 >= gap / 2); /* Never much less than half of the one before, doubled. */
        gap = next_ms;
        calls = f->w.mortal.calls;
        CHECK(i == 0 || calls == last + 1); /* One try for each wait. */
        last = calls;
        f->w.clock.now_us += next_ms * 1000;
    }
    CHECK(gap > 29000);
    CHECK_EQ(status_of(&f->w).last_error, BOP_EBUSY);
    object_memory_outage(f->w.memory, 0);
    pass(&f->w, 61000);
    CHECK_EQ(status_of(&f->w).last_error, 0);
}

TEST(failures, what_trying_again_does_not_mend_is_tried_slowly)
{
    begin(f);
    open_all(f);
    object_memory_outage(f->w.memory, BOP_EDENIED);
    seal(f);
    CHECK(settle(&f->w) >= 29000);
    CHECK_EQ(status_of(&f->w).last_error, BOP_EDENIED);
    CHECK(is_readable(f->log, &f->log->made[0]));
    object_memory_outage(f->w.memory, 0);
    pass(&f->w, 61000);
    CHECK_EQ(f->log->tier2, 60);
}

TEST(failures, answers_that_are_lost_do_no_harm)
{
    static const enum object_memory_call calls[] = {OBJECT_MEMORY_PUT, OBJECT_MEMORY_REMOVE};

    begin(f);
    f->w.options.retention_bytes = 13000;
    open_all(f);
    for (unsigned i = 0; i < 8; i++) {
        object_memory_fail(f->w.memory, calls[i % 2], 1 + i / 2 % 3, BOP_ETIMEOUT,
                           OBJECT_MEMORY_LOSE_ANSWER);
        seal(f);
        pass(&f->w, 10000);
    }
    pass(&f->w, 200000);
    CHECK_EQ(f->log->tier2, 480);
    CHECK_EQ(status_of(&f->w).last_error, 0);
    for (unsigned i = 0; i < 8; i++) {
        CHECK_EQ(has_object(f->log, i), segment_of(f->log, i).in_tier2);
    }
}

TEST(failures, an_upload_that_was_cut_off_goes_on_after_a_restart)
{
    uint64_t before;

    begin(f);
    object_memory_part_bytes(f->w.memory, 2048);
    open_all(f);
    settle(&f->w); /* The name is claimed. */
    object_memory_fail(f->w.memory, OBJECT_MEMORY_PUT, 1, BOP_EIO, OBJECT_MEMORY_REFUSE);
    before = object_memory_bytes_put(f->w.memory);
    seal(f);
    settle(&f->w);
    CHECK_EQ(object_memory_uploads(f->w.memory), 1);
    world_close(&f->w);
    open_all(f);
    pass(&f->w, 1000);
    CHECK_EQ(f->log->tier2, 60);
    CHECK_EQ(object_memory_uploads(f->w.memory), 0);
    /* The parts that were there were not sent again: what is above is the manifest. */
    CHECK(object_memory_bytes_put(f->w.memory) - before < 2 * segment_of(f->log, 0).packed_bytes);
}

TEST(failures, an_object_that_does_not_hold_what_was_put_is_put_again)
{
    static const enum bop_tiers_read_back ways[] = {BOP_TIERS_READ_BACK_ALL,
                                                    BOP_TIERS_READ_BACK_ENDS};

    for (unsigned i = 0; i < 2; i++) {
        begin(f);
        f->w.options.read_back = ways[i];
        open_all(f);
        seal(f);
        object_memory_corrupt_get(f->w.memory, 1); /* As if the store had it so. */
        pass(&f->w, 10000);
        CHECK_EQ(f->log->tier2, 60);
        CHECK_EQ(status_of(&f->w).upload_failures, 1);
        CHECK_EQ(status_of(&f->w).upload_retries, 1);
        CHECK(is_readable(f->log, &f->log->made[0]));
        if (i == 0) {
            world_deinit(&f->w);
        }
    }
}

TEST(failures, stale_lists_leave_nothing_behind)
{
    begin(f);
    open_all(f);
    seal(f);
    settle(&f->w);
    REQUIRE_EQ(object_memory_stale_lists(f->w.memory, true), 0);
    for (unsigned i = 0; i < 6; i++) {
        world_close(&f->w);
        open_all(f);
        seal(f);
        pass(&f->w, 1000);
        CHECK_EQ(status_of(&f->w).last_error, 0);
    }
    REQUIRE_EQ(object_memory_stale_lists(f->w.memory, false), 0);
    world_close(&f->w);
    open_all(f);
    seal(f);
    pass(&f->w, 1000);
    CHECK(object_memory_count(f->w.memory) <= 8 + 1 + 4);
}

TEST(failures, a_file_that_goes_bad_before_its_upload_is_packed_again)
{
    char path[400];

    begin(f);
    open_all(f);
    object_memory_outage(f->w.memory, BOP_EIO);
    seal(f);
    settle(&f->w);
    warm_path(f->log, 0, path);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.sim, path, 8 * 2000), 0);
    object_memory_outage(f->w.memory, 0);
    pass(&f->w, 200000);
    CHECK_EQ(f->log->tier2, 60);
    CHECK_EQ(status_of(&f->w).packs, 2);
    CHECK_EQ(status_of(&f->w).last_error, 0);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, NULL), 0);
}

TEST(failures, pressure_lowers_the_level_and_it_comes_back)
{
    begin(f);
    f->w.options.executor_count = 1;
    open_all(f);
    settle(&f->w);
    for (unsigned i = 0; i < 12; i++) {
        seal(f);
    }
    bop_tiers_poll(f->w.tiers);
    CHECK_EQ(status_of(&f->w).level, -5);
    settle(&f->w);
    CHECK_EQ(status_of(&f->w).level, 1);
    CHECK_EQ(bop__archive_waiting(f->log->archive), 0);
}

TEST(failures, a_segment_that_overlaps_is_refused_and_the_others_go_on)
{
    struct made *made;

    begin(f);
    open_all(f);
    seal(f);
    settle(&f->w);
    /* The next one says that it begins where the first did. */
    f->log->made[0].voided = true;
    seal(f);
    made = &f->log->made[1];
    CHECK_EQ(made->facts.base, 1);
    f->log->made[0].voided = false;
    made->voided = true;
    seal(f);
    pass(&f->w, 10000);
    CHECK_EQ(status_of(&f->w).last_error, BOP_ECONDITION);
    CHECK_STR_HAS(status_of(&f->w).message, "overlap");
    CHECK(has_object(f->log, 0) && !has_object(f->log, 1) && has_object(f->log, 2));
    CHECK(made->local);
}

TEST(failures, bad_options_are_refused)
{
    struct bop_tiers *tiers;
    struct bop_error err;

    begin(f);
    f->w.options.prefix = "a b";
    CHECK_EQ(bop_tiers_create(&f->w.options, &tiers, &err), BOP_EINVAL);
    f->w.options.prefix = "/a";
    CHECK_EQ(bop_tiers_create(&f->w.options, &tiers, &err), BOP_EINVAL);
    f->w.options.prefix = NULL;
    f->w.options.frame_bytes = 1;
    CHECK_EQ(bop_tiers_create(&f->w.options, &tiers, &err), BOP_EINVAL);
    f->w.options.frame_bytes = 0;
    f->w.options.workers = 17;
    CHECK_EQ(bop_tiers_create(&f->w.options, &tiers, &err), BOP_EINVAL);
    f->w.options.workers = 0;
    f->w.options.dictionary_bytes = 1 << 20;
    CHECK_EQ(bop_tiers_create(&f->w.options, &tiers, &err), BOP_EINVAL);
}
