/*
 * The whole life of segments: packed, uploaded, let go of by budgets, brought back, retired.
 */
#include "harness.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct world w;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    world_init(&f->w, &f->heap.allocator, 1);
}

static void teardown(struct fixture *f)
{
    world_deinit(&f->w);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void begin(struct fixture *f)
{
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(&f->w.logs[0]), 0);
}

TEST(moves, a_sealed_segment_is_packed_and_uploaded)
{
    struct fake_log *log = &f->w.logs[0];
    struct bop_tiers_segment segment;
    char path[400], key[256];

    begin(f);
    REQUIRE(log_seal(log));
    CHECK_EQ(bop__archive_waiting(log->archive), 1);
    settle(&f->w);
    CHECK_EQ(bop__archive_waiting(log->archive), 0);
    CHECK_EQ(log->room, 1);
    CHECK_EQ(log->tier2, 60);
    segment = segment_of(log, 0);
    CHECK(segment.in_tier0 && segment.in_tier1 && segment.in_tier2);
    CHECK_EQ(segment.residency, BOP_TIERS_TIER0);
    CHECK(segment.packed_bytes > 0 && segment.packed_bytes < segment.bytes);
    key_of(log, 0, key);
    CHECK_STR_EQ(segment.key, key);
    CHECK_STR_HAS(key, "aof/orders/segment-00000000000000000001-00000000000000000001-");
    warm_path(log, 0, path);
    CHECK(bop_fs_exists(f->w.fs, path));
    CHECK(has_object(log, 0));
    CHECK_EQ(read_archived(log, &log->made[0], true, NULL), 0);
    CHECK_EQ(status_of(&f->w).last_error, 0);
}

TEST(moves, all_is_as_it_was_after_a_restart)
{
    struct fake_log *log = &f->w.logs[0];
    uint64_t puts;

    begin(f);
    REQUIRE(log_seal(log) && log_seal(log));
    settle(&f->w);
    world_close(&f->w);
    puts = object_memory_bytes_put(f->w.memory);
    begin(f);
    settle(&f->w);
    CHECK_EQ(log->tier2, 120);
    CHECK_EQ(bop__archive_waiting(log->archive), 0);
    CHECK(segment_of(log, 1).in_tier1 && segment_of(log, 1).in_tier2);
    CHECK_EQ(status_of(&f->w).packs, 0);
    CHECK_EQ(status_of(&f->w).uploads, 0);
    CHECK_EQ(object_memory_bytes_put(f->w.memory), puts); /* Not even the manifest. */
}

TEST(moves, tier_0_keeps_its_budget_and_the_hottest)
{
    struct fake_log *a = &f->w.logs[0], *b = &f->w.logs[1];

    begin(f);
    REQUIRE_EQ(log_open(b), 0);
    for (unsigned i = 0; i < 2; i++) {
        REQUIRE(log_seal(a) && log_seal(b));
        CHECK(a->made[i].bytes.size > 13400 && a->made[i].bytes.size < 20000);
    }
    settle(&f->w);
    CHECK_EQ(a->released + b->released, 0);
    world_close(&f->w);

    f->w.options.tier0_bytes = 40000;
    begin(f);
    REQUIRE_EQ(log_open(b), 0);
    bop__archive_touch(a->archive, 1); /* The others of that log gain by it. */
    settle(&f->w);
    CHECK(a->made[0].local && a->made[1].local);
    CHECK(!b->made[0].local && !b->made[1].local);
    CHECK_EQ(segment_of(b, 1).residency, BOP_TIERS_TIER1);
    CHECK(status_of(&f->w).tier0_bytes <= 40000);
    for (unsigned i = 0; i < 2; i++) {
        CHECK(is_readable(a, &a->made[i]) && is_readable(b, &b->made[i]));
    }
}

TEST(moves, the_oldest_leaves_tier_0_first)
{
    struct fake_log *log = &f->w.logs[0];

    begin(f);
    for (unsigned i = 0; i < 4; i++) {
        REQUIRE(log_seal(log));
    }
    settle(&f->w);
    world_close(&f->w);
    f->w.options.tier0_bytes = 40000;
    begin(f);
    bop__archive_touch(log->archive, 1);
    settle(&f->w);
    CHECK(!log->made[0].local && !log->made[1].local);
    CHECK(log->made[2].local && log->made[3].local);
}

TEST(moves, a_log_that_cannot_let_go_is_asked_again)
{
    struct fake_log *log = &f->w.logs[0];

    f->w.options.tier0_bytes = 1;
    log->keep = true;
    begin(f);
    REQUIRE(log_seal(log));
    CHECK(settle(&f->w) <= 100);
    CHECK(log->made[0].local);
    log->keep = false;
    pass(&f->w, 200);
    CHECK(!log->made[0].local);
}

TEST(moves, nothing_leaves_tier_0_before_it_is_packed)
{
    struct fake_log *log = &f->w.logs[0];

    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 1;
    begin(f);
    REQUIRE(log_seal(log));
    for (unsigned i = 0; i < 200 && log->made[0].local; i++) {
        CHECK(is_readable(log, &log->made[0]));
        CHECK_EQ(log->released, 0);
        bop_tiers_poll(f->w.tiers);
        bop_inline_poll(&f->w.executor);
    }
    CHECK_EQ(log->released, 1);
    settle(&f->w);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER2);
    CHECK(is_readable(log, &log->made[0]));
}

TEST(moves, a_full_disk_stops_packing_and_harms_nothing)
{
    struct fake_log *log = &f->w.logs[0];

    f->w.options.tier0_bytes = 1;
    begin(f);
    REQUIRE(log_seal(log));
    bop_fs_sim_set_capacity(f->w.sim, 1);
    pass(&f->w, 3000);
    CHECK(log->made[0].local);
    CHECK_EQ(status_of(&f->w).packs, 0);
    CHECK(status_of(&f->w).last_error == -ENOSPC);
    CHECK(status_of(&f->w).message[0] != '\0');
    CHECK(is_readable(log, &log->made[0]));
    bop_fs_sim_set_capacity(f->w.sim, 0);
    pass(&f->w, 120000);
    CHECK(!log->made[0].local);
    CHECK_EQ(status_of(&f->w).last_error, 0);
    CHECK(is_readable(log, &log->made[0]));
}

TEST(moves, tier_1_lets_go_of_the_coldest_that_is_uploaded)
{
    struct fake_log *log = &f->w.logs[0];

    f->w.options.tier0_bytes = 1;
    begin(f);
    for (unsigned i = 0; i < 4; i++) {
        REQUIRE(log_seal(log));
    }
    settle(&f->w);
    world_close(&f->w);

    f->w.options.tier1_bytes = 2 * 8000;
    begin(f);
    CHECK(segment_of(log, 0).packed_bytes > 5000 && segment_of(log, 0).packed_bytes < 8000);
    bop__archive_touch(log->archive, 1);
    settle(&f->w);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER1);
    CHECK_EQ(segment_of(log, 1).residency, BOP_TIERS_TIER2);
    CHECK_EQ(segment_of(log, 2).residency, BOP_TIERS_TIER2);
    CHECK_EQ(segment_of(log, 3).residency, BOP_TIERS_TIER1);
    CHECK(status_of(&f->w).tier1_bytes <= 2 * 8000);
    CHECK_EQ(status_of(&f->w).evictions, 2);
    for (unsigned i = 0; i < 4; i++) {
        char path[400];

        warm_path(log, i, path);
        CHECK_EQ(bop_fs_exists(f->w.fs, path), i == 0 || i == 3);
        CHECK(has_object(log, i));
        CHECK(is_readable(log, &log->made[i]));
    }
}

TEST(moves, what_is_not_uploaded_stays_in_tier_1)
{
    struct fake_log *log = &f->w.logs[0];

    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 1;
    begin(f);
    object_memory_outage(f->w.memory, BOP_EIO);
    REQUIRE(log_seal(log) && log_seal(log));
    pass(&f->w, 60000);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER1);
    CHECK_EQ(segment_of(log, 1).residency, BOP_TIERS_TIER1);
    CHECK_EQ(log->tier2, 0);
    CHECK(is_readable(log, &log->made[0]));
    object_memory_outage(f->w.memory, 0);
    pass(&f->w, 120000);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER2);
    CHECK_EQ(segment_of(log, 1).residency, BOP_TIERS_TIER2);
    CHECK_EQ(log->tier2, 120);
    CHECK(is_readable(log, &log->made[0]));
}

TEST(moves, a_pin_keeps_and_fetches)
{
    struct fake_log *log = &f->w.logs[0];
    struct bop_aof *aof = (struct bop_aof *)log;

    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 1;
    begin(f);
    REQUIRE_EQ(bop_tiers_pin(f->w.tiers, aof, 61, 61), 0);
    REQUIRE(log_seal(log) && log_seal(log));
    settle(&f->w);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER2);
    CHECK_EQ(segment_of(log, 1).residency, BOP_TIERS_TIER1);
    CHECK(segment_of(log, 1).pinned);

    REQUIRE_EQ(bop_tiers_pin(f->w.tiers, aof, 1, 60), 0);
    settle(&f->w);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER1);
    CHECK(is_readable(log, &log->made[0]));
    CHECK_EQ(bop_tiers_unpin(f->w.tiers, aof, 1, 59), BOP_ENOTFOUND);
    CHECK_EQ(bop_tiers_unpin(f->w.tiers, aof, 1, 60), 0);
    CHECK_EQ(bop_tiers_unpin(f->w.tiers, aof, 1, 60), BOP_ENOTFOUND);
    settle(&f->w);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER2);
    CHECK_EQ(bop_tiers_pin(f->w.tiers, NULL, 1, 60), BOP_ENOTFOUND);
}

/* A pin ends with the log's being open. Nothing leaves before the first poll, so one that is set
 * right after opening leaves no gap. */
TEST(moves, a_pin_set_after_opening_keeps_what_was_pinned_before)
{
    struct fake_log *log = &f->w.logs[0];
    struct bop_aof *aof = (struct bop_aof *)log;

    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 1;
    begin(f);
    REQUIRE_EQ(bop_tiers_pin(f->w.tiers, aof, 1, 60), 0);
    REQUIRE(log_seal(log) && log_seal(log));
    settle(&f->w);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER1);
    world_close(&f->w);

    begin(f);
    CHECK(!segment_of(log, 0).pinned);
    REQUIRE_EQ(bop_tiers_pin(f->w.tiers, aof, 1, 60), 0);
    settle(&f->w);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER1);
    CHECK_EQ(status_of(&f->w).evictions, 0);
    world_close(&f->w);

    begin(f);
    settle(&f->w);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER2);
}

TEST(moves, residency_has_a_minimum)
{
    struct fake_log *log = &f->w.logs[0];

    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 1;
    f->w.options.residency_min_ms = 1000;
    begin(f);
    REQUIRE(log_seal(log));
    CHECK(settle(&f->w) <= 1000);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER0);
    CHECK(segment_of(log, 0).in_tier1);
    pass(&f->w, 999);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER0);
    pass(&f->w, 2);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER2);
}

/* ---- Retention ---- */

TEST(moves, retention_by_time_queues_and_then_deletes)
{
    struct fake_log *log = &f->w.logs[0];

    f->w.options.retention_ms = 60000;
    f->w.options.tier0_bytes = 1;
    begin(f);
    REQUIRE(log_seal(log));
    pass(&f->w, 30000);
    REQUIRE(log_seal(log));
    pass(&f->w, 29000);
    CHECK_EQ(log->oldest, 0);
    pass(&f->w, 2000);
    CHECK_EQ(log->oldest, 61);
    CHECK(segment_of(log, 0).delete_queued);
    CHECK(has_object(log, 0));
    CHECK_EQ(read_archived(log, &log->made[0], true, NULL), BOP_ENOTFOUND);
    CHECK_EQ(status_of(&f->w).deletes_in_grace, 1);
    pass(&f->w, 5000);
    CHECK(!has_object(log, 0));
    CHECK_EQ(segment_of(log, 0).generation, 0);
    CHECK_EQ(status_of(&f->w).deletes, 1);
    CHECK(is_readable(log, &log->made[1]));
}

TEST(moves, a_queued_deletion_survives_a_restart)
{
    struct fake_log *log = &f->w.logs[0];
    struct bop__segment_facts facts[2];

    f->w.options.retention_ms = 60000;
    begin(f);
    REQUIRE(log_seal(log) && log_seal(log));
    pass(&f->w, 61000);
    CHECK(segment_of(log, 0).delete_queued);
    world_close(&f->w);

    f->w.options.retention_ms = 0; /* What is queued goes all the same. */
    begin(f);
    CHECK_EQ(bop__archive_segments(log->archive, facts, 2), 1);
    settle(&f->w);
    CHECK(has_object(log, 0) && log->made[0].local);
    pass(&f->w, 5000);
    CHECK(!has_object(log, 0) && !log->made[0].local);
    CHECK(has_object(log, 1) && log->made[1].local); /* The newest is never taken. */
}

TEST(moves, a_reader_holds_a_deletion_up)
{
    struct fake_log *log = &f->w.logs[0];
    struct bop__segment_source *source;
    struct bop_slice got;

    f->w.options.retention_ms = 60000;
    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 1;
    begin(f);
    REQUIRE(log_seal(log) && log_seal(log));
    settle(&f->w);
    REQUIRE_EQ(bop__archive_source(log->archive, 1, true, &source, NULL), 0);
    pass(&f->w, 600000);
    CHECK(segment_of(log, 0).delete_queued);
    CHECK(has_object(log, 0));
    CHECK_EQ(source->at(source, 0, 1, &got, NULL), 0);
    source->close(source);
    settle(&f->w);
    CHECK(!has_object(log, 0));
}

TEST(moves, retention_by_size_takes_the_oldest_uploaded)
{
    struct fake_log *log = &f->w.logs[0];
    unsigned kept = 0;

    f->w.options.retention_bytes = 20000;
    begin(f);
    for (unsigned i = 0; i < 5; i++) {
        REQUIRE(log_seal(log));
    }
    pass(&f->w, 6000);
    for (unsigned i = 0; i < 5; i++) {
        kept += segment_of(log, i).generation != 0;
        CHECK_EQ(segment_of(log, i).generation != 0, i >= 3 || has_object(log, i));
    }
    CHECK(kept >= 2 && kept <= 3);
    CHECK_EQ(log->oldest, log->made[5 - kept].facts.base);
    CHECK_EQ(object_memory_uploads(f->w.memory), 0);
}

TEST(moves, without_an_object_store_retention_takes_from_tier_1)
{
    struct fake_log *log = &f->w.logs[0];
    struct bop__segment_facts facts[4];
    char path[400];

    f->w.options.objects = NULL;
    f->w.options.retention_ms = 60000;
    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 1;
    begin(f);
    REQUIRE(log_seal(log) && log_seal(log));
    pass(&f->w, 59000);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER1); /* The last tier has no budget. */
    REQUIRE(log_seal(log));
    pass(&f->w, 2000);
    CHECK_EQ(log->oldest, 121);
    pass(&f->w, 5000);
    warm_path(log, 0, path);
    CHECK(!bop_fs_exists(f->w.fs, path));
    CHECK(is_readable(log, &log->made[2]));
    world_close(&f->w);
    begin(f);
    REQUIRE_EQ(bop__archive_segments(log->archive, facts, 4), 1);
    CHECK_EQ(facts[0].base, 121);
}

/* ---- Truncation ---- */

TEST(moves, truncation_drops_from_all_tiers)
{
    struct fake_log *log = &f->w.logs[0];
    char path[400];

    f->w.options.tier0_bytes = 1;
    begin(f);
    REQUIRE(log_seal(log) && log_seal(log) && log_seal(log));
    settle(&f->w);
    REQUIRE_EQ(log_truncate(log, 100), 0);
    CHECK_EQ(read_archived(log, &log->made[1], true, NULL), BOP_ENOTFOUND);
    settle(&f->w);
    CHECK(has_object(log, 1) && has_object(log, 2));

    /* Other records take their place, and the old ones go. */
    REQUIRE(log_seal(log));
    CHECK_EQ(log->made[3].facts.generation, 4);
    pass(&f->w, 6000);
    CHECK(has_object(log, 0) && has_object(log, 3));
    CHECK(!has_object(log, 1) && !has_object(log, 2));
    warm_path(log, 2, path);
    CHECK(!bop_fs_exists(f->w.fs, path));
    CHECK(is_readable(log, &log->made[0]));
    CHECK(is_readable(log, &log->made[3]));
    CHECK_EQ(log_truncate(log, 1000), 0);
}

TEST(moves, truncation_survives_a_restart_in_the_grace)
{
    struct fake_log *log = &f->w.logs[0];
    struct bop__segment_facts facts[4];

    begin(f);
    REQUIRE(log_seal(log) && log_seal(log));
    settle(&f->w);
    REQUIRE_EQ(log_truncate(log, 60), 0);
    settle(&f->w);
    world_close(&f->w);
    begin(f);
    REQUIRE_EQ(bop__archive_segments(log->archive, facts, 4), 1);
    pass(&f->w, 6000);
    CHECK(!has_object(log, 1));
    CHECK(has_object(log, 0));
}

TEST(moves, truncation_overtakes_what_is_under_way)
{
    struct fake_log *log = &f->w.logs[0];

    begin(f);
    settle(&f->w); /* The name is claimed. */
    for (unsigned steps = 0; steps < 12; steps++) {
        unsigned i = log->count;

        REQUIRE(log_seal(log));
        for (unsigned step = 0; step < steps / 2; step++) {
            bop_tiers_poll(f->w.tiers);
            if (step + 1 < steps / 2 || steps % 2 > 0) {
                bop_inline_poll(&f->w.executor);
            }
        }
        REQUIRE_EQ(log_truncate(log, log->made[i].facts.base - 1), 0);
    }
    pass(&f->w, 6000);
    CHECK_EQ(bop__archive_segments(log->archive, NULL, 0), 0);
    for (unsigned i = 0; i < log->count; i++) {
        char path[400];

        warm_path(log, i, path);
        CHECK(!has_object(log, i));
        CHECK(!bop_fs_exists(f->w.fs, path));
    }
    CHECK_EQ(status_of(&f->w).tier0_bytes, 0);
    CHECK_EQ(status_of(&f->w).tier1_bytes, 0);
}

/* ---- Several logs ---- */

TEST(moves, logs_share_budgets_and_names_depend_on_no_order)
{
    struct fake_log *a = &f->w.logs[0], *b = &f->w.logs[1];
    struct bop_tiers_status status;

    f->w.options.tier0_bytes = 40000;
    f->w.options.tier1_bytes = 20000;
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(a), 0);
    REQUIRE_EQ(log_open(b), 0);
    for (unsigned i = 0; i < 3; i++) {
        REQUIRE(log_seal(a) && log_seal(b));
    }
    settle(&f->w);
    status = status_of(&f->w);
    CHECK(status.tier0_bytes <= 40000 && status.tier0_bytes > 20000);
    CHECK(status.tier1_bytes <= 20000 && status.tier1_bytes > 10000);
    CHECK(a->released > 0 && b->released > 0);
    world_close(&f->w);

    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(b), 0);
    REQUIRE_EQ(log_open(a), 0);
    settle(&f->w);
    CHECK_EQ(status_of(&f->w).uploads, 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(is_readable(a, &a->made[i]) && is_readable(b, &b->made[i]));
        CHECK(has_object(a, i) && has_object(b, i));
    }
    CHECK_EQ(a->tier2, 180);
    CHECK_EQ(b->tier2, 180);
}

TEST(moves, a_log_is_opened_once_and_by_a_plain_name)
{
    struct fake_log *log = &f->w.logs[0];
    struct bop__archive_options options = {
        .path = log->path, .name = "/orders", .calls = &log_calls, .log = log};
    struct bop__archive *archive;

    begin(f);
    CHECK_EQ(bop__archive_open(f->w.tiers, &options, &archive, NULL), BOP_EINVAL);
    options.name = "orders";
    CHECK_EQ(bop__archive_open(f->w.tiers, &options, &archive, NULL), BOP_EBUSY);
}

/* ---- The manifest in the bucket ---- */

TEST(moves, the_manifest_is_published_and_old_chunks_go)
{
    struct fake_log *log = &f->w.logs[0];
    struct bop_slice id;

    for (unsigned i = 0; i < 8; i++) {
        begin(f); /* Each opening begins a chunk with its first record. */
        REQUIRE(log_seal(log));
        settle(&f->w);
        world_close(&f->w);
    }
    id = object_memory_find(f->w.memory, "aof/orders/log-id");
    CHECK_SLICE_EQ(id, bytes("1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d"));
    CHECK(object_memory_find(f->w.memory, "aof/orders/manifest/00000000000000000008.mlog").data);
    CHECK(!object_memory_find(f->w.memory, "aof/orders/manifest/00000000000000000001.mlog").data);
    CHECK(object_memory_count(f->w.memory) <= 8 + 1 + 4);
}

TEST(moves, another_logs_objects_are_left_alone)
{
    struct fake_log *log = &f->w.logs[0];

    REQUIRE_EQ(object_memory_set(f->w.memory, "aof/orders/log-id",
                                 bytes("00000000000000000000000000000000")),
               0);
    f->w.options.tier0_bytes = 1;
    begin(f);
    REQUIRE(log_seal(log));
    pass(&f->w, 300000);
    CHECK_EQ(object_memory_count(f->w.memory), 1);
    CHECK_EQ(status_of(&f->w).last_error, BOP_EMISMATCH);
    CHECK_STR_HAS(status_of(&f->w).message, "belong to another log");
    CHECK_EQ(log->tier2, 0);
    CHECK_EQ(segment_of(log, 0).residency, BOP_TIERS_TIER1);
    CHECK(is_readable(log, &log->made[0]));
}

TEST(moves, an_old_copy_of_a_directory_does_not_overwrite_a_newer_one)
{
    struct fake_log *log = &f->w.logs[0];

    begin(f);
    REQUIRE(log_seal(log));
    settle(&f->w);
    world_close(&f->w);
    REQUIRE_EQ(object_memory_set(f->w.memory, "aof/orders/manifest/00000000000000000009.mlog",
                                 bytes("newer")),
               0);
    begin(f);
    REQUIRE(log_seal(log));
    pass(&f->w, 200000);
    CHECK_EQ(status_of(&f->w).last_error, BOP_EMISMATCH);
    CHECK_STR_HAS(status_of(&f->w).message, "newer");
    CHECK(!has_object(log, 1));
    CHECK(is_readable(log, &log->made[0]) && is_readable(log, &log->made[1]));
}
