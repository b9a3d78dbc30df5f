/*
 * Segments in lower tiers as readers get them: by ranges, ahead, on somebody else's
 * thread, and from the next tier when one is bad. And what scrubbing finds.
 */
#include "harness.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct world w;
    struct fake_log *log;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    world_init(&f->w, &f->heap.allocator, 1);
    f->log = &f->w.logs[0];
}

static void teardown(struct fixture *f)
{
    world_deinit(&f->w);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* One segment of many frames, in tier 2 only unless the budgets say otherwise. */
static void begin(struct fixture *f, uint64_t tier0_bytes, uint64_t tier1_bytes)
{
    f->w.options.tier0_bytes = tier0_bytes;
    f->w.options.tier1_bytes = tier1_bytes;
    f->w.options.frame_bytes = 8192;
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(f->log), 0);
    REQUIRE(log_seal_of(f->log, 3000, 600));
    settle(&f->w);
}

static uint64_t gets(struct fixture *f)
{
    return object_memory_calls(f->w.memory, OBJECT_MEMORY_GET);
}

TEST(reading, a_blocking_reader_reads_ahead)
{
    enum bop_aof_tier tier;
    uint64_t before;

    begin(f, 1, 1);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_TIER2);
    before = gets(f);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, &tier), 0);
    CHECK_EQ(tier, BOP_AOF_COLD);
    CHECK(gets(f) - before >= 30 && gets(f) - before <= 80); /* 300 frames and the tail. */
    before = gets(f);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, &tier), 0);
    CHECK_EQ(gets(f), before); /* The cache has it all. */
    CHECK(status_of(&f->w).cache_bytes >= f->log->made[0].bytes.size);
}

TEST(reading, a_reader_that_does_not_block_is_told_when_to_look)
{
    struct bop__segment_source *source;
    const struct made *made;
    struct bop_slice got;
    unsigned waits = 0;
    uint64_t at = 0, before;
    int rc;

    begin(f, 1, 1);
    made = &f->log->made[0];
    before = gets(f);
    REQUIRE_EQ(bop__archive_source(f->log->archive, 1, false, &source, NULL), 0);
    while (at < source->size) {
        rc = source->at(source, at, 1, &got, NULL);
        if (rc == BOP_EHYDRATING) {
            unsigned hydrated = f->log->hydrated;

            REQUIRE(waits++ < 100);
            CHECK(bop_tiers_busy(f->w.tiers));
            settle(&f->w);
            CHECK_EQ(f->log->hydrated, hydrated + 1);
            continue;
        }
        REQUIRE_EQ(rc, 0);
        CHECK_MEM_EQ(got.data, made->bytes.data + at, got.size);
        at += got.size;
    }
    /* Four more frames come with each that was asked for. */
    CHECK(waits >= 30 && waits <= 80);
    CHECK_EQ(gets(f) - before, waits);
    CHECK(status_of(&f->w).hydration_us_p50 == 0 || status_of(&f->w).hydration_us_p99 > 0);

    before = gets(f);
    source->close(source);
    settle(&f->w);
    CHECK_EQ(gets(f), before);
}

TEST(reading, what_cannot_be_fetched_is_told_and_asked_for_again)
{
    struct bop__segment_source *source;
    struct bop_slice got;

    begin(f, 1, 1);
    REQUIRE_EQ(bop__archive_source(f->log->archive, 1, false, &source, NULL), 0);
    object_memory_outage(f->w.memory, BOP_EBUSY);
    CHECK_EQ(source->at(source, 0, 1, &got, NULL), BOP_EHYDRATING);
    settle(&f->w);
    CHECK_EQ(f->log->hydrated, 1);
    CHECK_EQ(source->at(source, 0, 1, &got, NULL), BOP_EBUSY);
    CHECK_EQ(status_of(&f->w).last_error, BOP_EBUSY);
    CHECK_EQ(status_of(&f->w).fetch_failures, 1);

    object_memory_outage(f->w.memory, 0);
    pass(&f->w, 200);
    CHECK_EQ(source->at(source, 0, 1, &got, NULL), BOP_EHYDRATING);
    settle(&f->w);
    CHECK_EQ(source->at(source, 0, 1, &got, NULL), BOP_EHYDRATING); /* After the tail the frame. */
    settle(&f->w);
    CHECK_EQ(source->at(source, 0, 1, &got, NULL), 0);
    CHECK_EQ(status_of(&f->w).last_error, 0);
    source->close(source);
}

TEST(reading, bytes_that_were_bent_on_their_way_are_fetched_again)
{
    begin(f, 1, 1);
    object_memory_corrupt_get(f->w.memory, 2);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, NULL), 0);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_TIER2);
}

TEST(reading, bytes_that_were_cut_on_their_way_are_fetched_again)
{
    begin(f, 1, 1);
    object_memory_short_get(f->w.memory, 3);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, NULL), 0);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_TIER2);
}

TEST(reading, an_object_that_is_gone_needs_recovery)
{
    char key[256];
    struct bop_buf kept;

    f->w.options.scrub_bytes_per_s = 1 << 20;
    begin(f, 1, 1);
    key_of(f->log, 0, key);
    bop_buf_init(&kept, NULL, 0);
    REQUIRE_EQ(bop_buf_append(&kept, object_memory_find(f->w.memory, key).data,
                              object_memory_find(f->w.memory, key).size),
               0);
    REQUIRE_EQ(
        object_memory_store(f->w.memory)->remove(object_memory_store(f->w.memory), key, NULL), 0);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, NULL), BOP_ECORRUPT);
    settle(&f->w);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_NEEDS_RECOVERY);
    CHECK_EQ(status_of(&f->w).segments[BOP_TIERS_NEEDS_RECOVERY], 1);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, NULL), BOP_ECORRUPT);

    /* Somebody puts it back: it is read at once, and scrubbing sees that it is whole. */
    REQUIRE_EQ(object_memory_set(f->w.memory, key, bop_buf_slice(&kept)), 0);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, NULL), 0);
    pass(&f->w, 2000);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_TIER2);
    bop_buf_deinit(&kept);
}

/* ---- Bad copies ---- */

TEST(reading, a_bad_file_in_tier_1_is_left_for_tier_2)
{
    enum bop_aof_tier tier;
    char path[400];

    begin(f, 1, 0);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_TIER1);
    warm_path(f->log, 0, path);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.sim, path, 4000), 0);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, &tier), 0);
    CHECK_EQ(tier, BOP_AOF_COLD);
    settle(&f->w);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_TIER2);
    CHECK(!bop_fs_exists(f->w.fs, path));
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, &tier), 0);
}

TEST(reading, a_missing_file_in_tier_1_is_found_missing_when_read_and_when_opened)
{
    char path[400];

    begin(f, 1, 0);
    REQUIRE(log_seal(f->log));
    settle(&f->w);
    warm_path(f->log, 0, path);
    REQUIRE_EQ(f->w.fs->unlink(f->w.fs, path), 0);
    CHECK(is_readable(f->log, &f->log->made[0]));
    settle(&f->w);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_TIER2);
    world_close(&f->w);

    warm_path(f->log, 1, path);
    REQUIRE_EQ(f->w.fs->unlink(f->w.fs, path), 0);
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(f->log), 0);
    CHECK_EQ(segment_of(f->log, 1).residency, BOP_TIERS_TIER2);
    CHECK(is_readable(f->log, &f->log->made[1]));
}

TEST(reading, a_bad_file_in_tier_1_is_packed_again_from_tier_0)
{
    char path[400];

    f->w.options.objects = NULL;
    f->log->keep = true;
    begin(f, 1, 0);
    warm_path(f->log, 0, path);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.sim, path, 4000), 0);
    f->w.options.scrub_bytes_per_s = 1 << 20;
    world_close(&f->w);
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(f->log), 0);
    pass(&f->w, 1000);
    CHECK_EQ(status_of(&f->w).scrub_errors, 1);
    CHECK_EQ(status_of(&f->w).packs, 1);
    f->log->keep = false;
    pass(&f->w, 1000);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_TIER1);
    CHECK(is_readable(f->log, &f->log->made[0]));
}

TEST(reading, bad_in_the_only_tier_needs_recovery_and_stays_for_repair)
{
    char path[400];

    f->w.options.objects = NULL;
    begin(f, 1, 0);
    warm_path(f->log, 0, path);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.sim, path, 4000), 0);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, NULL), BOP_ECORRUPT);
    settle(&f->w);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_NEEDS_RECOVERY);
    CHECK(bop_fs_exists(f->w.fs, path));
}

TEST(reading, a_segment_that_rots_in_tier_0_is_never_packed_over)
{
    f->w.options.objects = NULL;
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(f->log), 0);
    REQUIRE(log_seal(f->log));
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.sim, f->log->made[0].path, 8 * 5000), 0);
    pass(&f->w, 10000);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_NEEDS_RECOVERY);
    CHECK_EQ(status_of(&f->w).last_error, BOP_ECORRUPT);
    CHECK_EQ(bop__archive_waiting(f->log->archive), 1);
    CHECK(f->log->made[0].local);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.sim, f->log->made[0].path, 8 * 5000), 0);
    pass(&f->w, 120000);
    CHECK_EQ(segment_of(f->log, 0).residency, BOP_TIERS_TIER0);
    CHECK_EQ(bop__archive_waiting(f->log->archive), 0);
}

/* ---- Scrubbing ---- */

TEST(reading, scrubbing_finds_damage_in_both_tiers_and_mends_it)
{
    char path[400], key[256];

    f->w.options.scrub_bytes_per_s = 1 << 20;
    f->w.options.scrub_objects = true;
    begin(f, 1, 0);
    REQUIRE(log_seal(f->log));
    pass(&f->w, 2000);
    CHECK(status_of(&f->w).scrubbed_bytes > 0);
    CHECK_EQ(status_of(&f->w).scrub_errors, 0);

    key_of(f->log, 0, key);
    REQUIRE(object_memory_flip_bit(f->w.memory, key, 8 * 3000));
    warm_path(f->log, 1, path);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.sim, path, 8 * 3000), 0);
    pass(&f->w, 2000);
    CHECK_EQ(status_of(&f->w).scrub_errors, 2);
    CHECK(segment_of(f->log, 0).in_tier2); /* Put again from tier 1. */
    CHECK_EQ(segment_of(f->log, 1).residency, BOP_TIERS_TIER2);
    pass(&f->w, 2000);
    CHECK_EQ(status_of(&f->w).scrub_errors, 2);
    REQUIRE_EQ(f->w.fs->unlink(f->w.fs, (warm_path(f->log, 0, path), path)), 0);
    CHECK(is_readable(f->log, &f->log->made[0]));
    CHECK(is_readable(f->log, &f->log->made[1]));
}

TEST(reading, scrubbing_keeps_its_rate)
{
    uint64_t bytes;

    f->w.options.scrub_bytes_per_s = 10000;
    begin(f, 1, 0);
    bytes = segment_of(f->log, 0).packed_bytes + 4096;
    pass(&f->w, 60000);
    CHECK(status_of(&f->w).scrubbed_bytes >= 600000 - bytes);
    CHECK(status_of(&f->w).scrubbed_bytes <= 600000 + 2 * bytes);
}

/* ---- Prefetch ---- */

TEST(reading, prefetch_fills_the_cache)
{
    struct bop__segment_source *source;
    struct bop_slice got;
    uint64_t before, at;

    begin(f, 1, 1);
    REQUIRE_EQ(bop__archive_prefetch(f->log->archive, 300, 100000), 0);
    settle(&f->w);
    CHECK_EQ(status_of(&f->w).fetches, 1);
    before = gets(f);
    REQUIRE_EQ(bop__archive_source(f->log->archive, 1, false, &source, NULL), 0);
    REQUIRE_EQ(source->at(source, 210000, 1, &got, NULL), 0);
    for (at = 210000; at < 290000; at += got.size) {
        REQUIRE_EQ(source->at(source, at, 1, &got, NULL), 0);
        CHECK_MEM_EQ(got.data, f->log->made[0].bytes.data + at, got.size);
    }
    CHECK_EQ(gets(f), before);
    CHECK_EQ(source->at(source, 0, 1, &got, NULL), BOP_EHYDRATING);
    source->close(source);
}

TEST(reading, the_archive_is_searched_by_record)
{
    struct bop__segment_facts facts;

    begin(f, 1, 1);
    REQUIRE(log_seal(f->log));
    REQUIRE_EQ(bop__archive_find(f->log->archive, 0, &facts), 0);
    CHECK_EQ(facts.base, 1);
    REQUIRE_EQ(bop__archive_find(f->log->archive, 3000, &facts), 0);
    CHECK_EQ(facts.base, 1);
    REQUIRE_EQ(bop__archive_find(f->log->archive, 3001, &facts), 0);
    CHECK_EQ(facts.base, 3001);
    CHECK_EQ(bop__archive_find(f->log->archive, 3061, &facts), BOP_ENOTFOUND);
    CHECK_EQ(read_archived(f->log, &(struct made){.facts = {.generation = 77}}, true, NULL),
             BOP_ENOTFOUND);
}
