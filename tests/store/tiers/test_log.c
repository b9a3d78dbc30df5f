/*
 * A log and its tiers together: records get to every tier and are read from it under the same
 * numbers, by one reader, over restarts, and after the directory is lost.
 */
#include "harness.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct world w;
    struct bop_aof *aof;
    struct bop_aof_options options;
    struct bop_error err;
    uint64_t tier2; /* As on_level told. */
};

static void on_durable(void *user, uint64_t seq)
{
    BOP_IGNORE(user);
    CHECK(seq > 0);
}

static void on_level(void *user, enum bop_aof_level level, uint64_t seq)
{
    struct fixture *f = user;

    if (level == BOP_AOF_TIER2) {
        CHECK(seq > f->tier2);
        f->tier2 = seq;
    }
}

static void on_failed(void *user, int code, const char *message)
{
    BOP_IGNORE(user);
    CHECK_EQ(code, 0);
    CHECK_STR_EQ(message, "");
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    world_init(&f->w, &f->heap.allocator, 1);
    f->w.options.tier0_bytes = 40000;
    f->w.options.tier1_bytes = 30000; /* Twice the segments of tier 0, packed. */
    f->options = (struct bop_aof_options){.allocator = &f->heap.allocator,
                                          .fs = f->w.fs,
                                          .executor = &f->w.executor.executor,
                                          .path = "/data/real",
                                          .name = "real",
                                          .segment_bytes = 16384,
                                          .on_durable = on_durable,
                                          .on_level = on_level,
                                          .on_failed = on_failed,
                                          .user = f};
}

static void close_all(struct fixture *f)
{
    if (f->w.tiers) {
        settle(&f->w);
        bop_aof_close(f->aof);
        f->aof = NULL;
    }
    world_close(&f->w);
}

static void teardown(struct fixture *f)
{
    close_all(f);
    world_deinit(&f->w);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void open_all(struct fixture *f)
{
    int rc;

    REQUIRE_EQ(world_open(&f->w), 0);
    f->options.tiers = f->w.tiers;
    f->tier2 = 0;
    rc = bop_aof_open(&f->options, &f->aof, NULL, &f->err);
    if (rc < 0) {
        test_note("%s", f->err.message);
    }
    REQUIRE_EQ(rc, 0);
}

static void text_of(uint64_t seq, char out_text[128])
{
    snprintf(out_text, 128, "record %" PRIu64 " says %" PRIu64 " and %" PRIu64, seq, seq * 17,
             seq * seq);
}

static void append(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t seq = bop_aof_last(f->aof) + 1;
        struct bop_aof_record record = {.tag = seq, .time_us = seq};
        char text[128];

        text_of(seq, text);
        record.head = bytes(text);
        REQUIRE_EQ(bop_aof_append(f->aof, &record, 1), 0);
        if (i % 20 == 19) {
            settle(&f->w);
        }
    }
    settle(&f->w);
}

/* Read all from first on by one reader, and count where the records came from. */
static uint64_t read_all(struct fixture *f, uint64_t first, bool blocking,
                         uint64_t out_tiers[BOP_AOF_COLD + 1])
{
    struct bop_aof_reader_options options = {.allocator = &f->heap.allocator, .blocking = blocking};
    struct bop_aof_reader *reader;
    struct bop_aof_view view;
    uint64_t seq = first;
    int rc;

    memset(out_tiers, 0, (BOP_AOF_COLD + 1) * sizeof(*out_tiers));
    REQUIRE_EQ(bop_aof_reader_open(f->aof, &options, &reader), 0);
    rc = bop_aof_reader_seek(reader, first, &f->err);
    for (unsigned waits = 0; waits < 1000;) {
        char text[128];

        if (rc == BOP_EHYDRATING) {
            settle(&f->w);
            waits++;
        } else if (rc < 0) {
            break;
        }
        rc = bop_aof_reader_next(reader, &view, &f->err);
        if (rc == 0) {
            text_of(seq, text);
            CHECK_EQ(view.seq, seq);
            CHECK_SLICE_EQ(view.payload, bytes(text));
            out_tiers[view.tier]++;
            seq++;
        }
    }
    if (rc != BOP_EEND) {
        test_note("%s", f->err.message);
    }
    CHECK_EQ(rc, BOP_EEND);
    bop_aof_reader_close(reader);
    return seq - first;
}

TEST(log, records_are_read_from_every_tier)
{
    uint64_t tiers[BOP_AOF_COLD + 1];
    struct bop_aof_status status;

    open_all(f);
    append(f, 2000);
    CHECK(f->tier2 > 1500);
    CHECK_EQ(bop_aof_reached(f->aof, BOP_AOF_TIER2), f->tier2);
    bop_aof_status(f->aof, &status);
    CHECK_EQ(status.oldest, 1);
    CHECK(status.first > 1000);
    CHECK(status.archived > 5);
    CHECK_EQ(read_all(f, 1, true, tiers), 2000);
    CHECK(tiers[BOP_AOF_HOT] > 0 && tiers[BOP_AOF_WARM] > 0 && tiers[BOP_AOF_COLD] > 0);
    CHECK_EQ(status_of(&f->w).last_error, 0);
}

TEST(log, a_reader_that_does_not_block_gets_all_too)
{
    uint64_t tiers[BOP_AOF_COLD + 1];

    open_all(f);
    append(f, 1000);
    CHECK_EQ(read_all(f, 1, false, tiers), 1000);
    CHECK(tiers[BOP_AOF_COLD] > 0);
}

TEST(log, a_restart_changes_nothing)
{
    uint64_t tiers[BOP_AOF_COLD + 1];

    open_all(f);
    append(f, 1000);
    close_all(f);
    open_all(f);
    settle(&f->w);
    CHECK_EQ(bop_aof_last(f->aof), 1000);
    CHECK_EQ(read_all(f, 1, true, tiers), 1000);
    append(f, 500);
    CHECK_EQ(read_all(f, 1, true, tiers), 1500);
}

TEST(log, a_lost_directory_comes_back_from_the_bucket)
{
    uint64_t tiers[BOP_AOF_COLD + 1];
    struct bop_tiers_restored restored;
    uint64_t promised;

    open_all(f);
    append(f, 1000);
    promised = f->tier2;
    CHECK(promised > 500);
    close_all(f);

    f->options.path = "/data/again";
    REQUIRE_EQ(bop_tiers_restore(&f->w.options, f->options.path, "real", &restored, &f->err), 0);
    CHECK(restored.last_seq >= promised);
    open_all(f);
    CHECK_EQ(bop_aof_last(f->aof), restored.last_seq);
    CHECK_EQ(read_all(f, 1, true, tiers), restored.last_seq);
    append(f, 1000);
    CHECK_EQ(read_all(f, 1, true, tiers), restored.last_seq + 1000);
    CHECK(f->tier2 > restored.last_seq);
    CHECK_EQ(status_of(&f->w).last_error, 0);
    close_all(f);
    open_all(f);
    CHECK_EQ(read_all(f, 1, true, tiers), restored.last_seq + 1000);
}

TEST(log, retention_moves_the_oldest_up_over_restarts)
{
    uint64_t tiers[BOP_AOF_COLD + 1];
    struct bop_aof_status status;
    uint64_t oldest;

    f->w.options.retention_bytes = 20000;
    open_all(f);
    append(f, 2000);
    pass(&f->w, 10000);
    bop_aof_status(f->aof, &status);
    oldest = status.oldest;
    CHECK(oldest > 100);
    CHECK_EQ(read_all(f, oldest, true, tiers), 2001 - oldest);
    close_all(f);
    open_all(f);
    settle(&f->w);
    bop_aof_status(f->aof, &status);
    CHECK(status.oldest >= oldest);
    CHECK_EQ(read_all(f, status.oldest, true, tiers), 2001 - status.oldest);
}

TEST(log, truncation_from_the_back_reaches_the_tiers)
{
    uint64_t tiers[BOP_AOF_COLD + 1];

    open_all(f);
    append(f, 1000);
    REQUIRE_EQ(bop_aof_truncate_back(f->aof, 990), 0);
    settle(&f->w);
    f->tier2 = bop_min_u64(f->tier2, 990);
    append(f, 100);
    CHECK_EQ(bop_aof_last(f->aof), 1090);
    CHECK_EQ(read_all(f, 1, true, tiers), 1090);
    pass(&f->w, 10000);
    close_all(f);
    open_all(f);
    CHECK_EQ(read_all(f, 1, true, tiers), 1090);
}

/* ---- A generation that is sealed twice ---- */

struct found {
    uint64_t seq;
    uint64_t generation; /* 0: none yet. */
    uint64_t end_seq;
    bool in_tier2;
    char key[256];
};

static int find_segment(void *user, const struct bop_tiers_segment *segment)
{
    struct found *found = user;

    if (segment->base <= found->seq && segment->end_seq > found->seq) {
        found->generation = segment->generation;
        found->end_seq = segment->end_seq;
        found->in_tier2 = segment->in_tier2;
        snprintf(found->key, sizeof(found->key), "%s", segment->key);
    }
    return 0;
}

static struct found segment_with(struct fixture *f, uint64_t seq)
{
    struct found found = {.seq = seq};

    CHECK_EQ(bop_tiers_segments(f->w.tiers, f->aof, find_segment, &found), 0);
    CHECK(found.generation > 0);
    return found;
}

/* A segment that is in the object store is cut, and sealed again under the generation it has: as
 * another object. Not even the old one's coming back under its name, by a request that was carried
 * out late, does any harm, here or to a restore. */
TEST(log, a_segment_that_was_cut_is_another_object)
{
    uint64_t tiers[BOP_AOF_COLD + 1];
    struct bop_tiers_restored restored;
    struct found before, after;
    struct bop_buf old;
    struct bop_slice object;

    bop_buf_init(&old, &f->heap.allocator, 0);
    f->w.options.tier0_bytes = 1 << 20;
    open_all(f);
    append(f, 600);
    before = segment_with(f, 250);
    CHECK(before.in_tier2 && before.end_seq > 251);
    object = object_memory_find(f->w.memory, before.key);
    REQUIRE_EQ(bop_buf_append(&old, object.data, object.size), 0);

    REQUIRE_EQ(bop_aof_truncate_back(f->aof, 250), 0);
    f->tier2 = 0;
    append(f, 350);
    pass(&f->w, 10000); /* The grace of the old objects, and what waited for it. */
    append(f, 100);
    after = segment_with(f, 250);
    CHECK_EQ(after.generation, before.generation);
    CHECK_EQ(after.end_seq, 251);
    CHECK(after.in_tier2);
    CHECK(strcmp(after.key, before.key) != 0);
    CHECK(object_memory_find(f->w.memory, before.key).data == NULL);
    CHECK_EQ(read_all(f, 1, true, tiers), 700);

    REQUIRE_EQ(object_memory_set(f->w.memory, before.key, bop_buf_slice(&old)), 0);
    REQUIRE_EQ(bop_aof_seal(f->aof), 0);
    settle(&f->w);
    CHECK_EQ(f->tier2, 700);
    close_all(f);
    f->options.path = "/data/again";
    REQUIRE_EQ(bop_tiers_restore(&f->w.options, f->options.path, "real", &restored, &f->err), 0);
    CHECK_EQ(restored.last_seq, 700);
    open_all(f);
    CHECK_EQ(read_all(f, 1, true, tiers), 700);
    CHECK(tiers[BOP_AOF_COLD] > 500);
    bop_buf_deinit(&old);
}

/* ---- No memory ---- */

/* What the archive had no memory to take in is told again, also if nothing more is ever sealed. */
TEST(log, a_segment_is_told_again_when_memory_was_lacking)
{
    struct test_heap tiers_heap;
    struct bop_faults faults = {0};

    test_heap_init(&tiers_heap, &faults);
    f->w.options.allocator = &tiers_heap.allocator;
    open_all(f);
    append(f, 40);
    settle(&f->w);
    faults.fail_at = faults.at + 1; /* The archive's next allocation. */
    REQUIRE_EQ(bop_aof_seal(f->aof), 0);
    while (bop_aof_busy(f->aof)) {
        bop_inline_poll(&f->w.executor);
    }
    CHECK_EQ(faults.fired, BOP_ENOMEM);
    faults = (struct bop_faults){0};
    CHECK_EQ(f->tier2, 0);
    pass(&f->w, 1000);
    CHECK_EQ(f->tier2, 40);
    close_all(f);
    CHECK_EQ(tiers_heap.live, 0);
    f->w.options.allocator = &f->heap.allocator;
}
