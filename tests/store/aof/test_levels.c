/*
 * How far records get and who may append: levels, flush, seal, fences, conditions, refusals, and a
 * log that polls a lane of its own. What holds over crashes is the model's (test_model.c).
 */
#include <pthread.h>
#include <stdatomic.h>

#include <bop/sim.h>

#include "harness.h"

static int append_at(struct fixture *f, enum bop_aof_level level, const char *text)
{
    const struct bop_aof_record record = {.body = bop_slice_cstr(text)};
    const struct bop_aof_append append = {.records = &record, .count = 1, .level = level};

    return bop_aof_append_with(f->aof, &append, NULL);
}

TEST(levels, a_record_goes_as_far_as_it_was_asked_to)
{
    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(append_at(f, BOP_AOF_MEMORY, "memory"), 0);
    bop_inline_poll(&f->executor);
    CHECK_EQ(bop_aof_reached(f->aof, BOP_AOF_MEMORY), 1);
    CHECK_EQ(bop_aof_reached(f->aof, BOP_AOF_OS), 0);

    REQUIRE_EQ(append_at(f, BOP_AOF_OS, "os"), 0);
    bop_inline_poll(&f->executor);
    CHECK_EQ(bop_aof_reached(f->aof, BOP_AOF_OS), 2);
    CHECK_EQ(bop_aof_reached(f->aof, BOP_AOF_DISK), 0);

    REQUIRE_EQ(append_at(f, BOP_AOF_DISK, "disk"), 0);
    bop_inline_poll(&f->executor);
    CHECK_EQ(bop_aof_reached(f->aof, BOP_AOF_DISK), 3);
    CHECK_EQ(f->durable, 3);
    CHECK_EQ(bop_aof_reached(f->aof, BOP_AOF_TIER2), 0);
}

TEST(levels, flush_brings_to_the_disk_what_asked_for_less)
{
    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(append_at(f, BOP_AOF_MEMORY, "one"), 0);
    REQUIRE_EQ(bop_aof_flush(f->aof, 1), 0);
    bop_inline_poll(&f->executor);
    CHECK_EQ(bop_aof_durable(f->aof), 1);

    REQUIRE_EQ(append_at(f, BOP_AOF_OS, "two"), 0);
    bop_inline_poll(&f->executor); /* Written; only a sync is missing. */
    CHECK_EQ(bop_aof_durable(f->aof), 1);
    REQUIRE_EQ(bop_aof_flush(f->aof, 2), 0);
    bop_inline_poll(&f->executor);
    CHECK_EQ(bop_aof_durable(f->aof), 2);
    REQUIRE_EQ(bop_aof_flush(f->aof, 2), 0);
    CHECK(!bop_aof_busy(f->aof));
}

/* What the log had begun to bring to the disk. */
static struct {
    unsigned calls;
    uint64_t end;
} written_back;

static void note_write_back(struct bop_fs *self, int fd, uint64_t from, uint64_t to)
{
    (void)self, (void)fd;
    CHECK_EQ(from, written_back.end);
    CHECK(to > from && to % BOP_FS_ALIGN == 0);
    written_back.end = to;
    written_back.calls++;
}

TEST(levels, what_asked_for_less_than_the_disk_is_on_its_way_there)
{
    static const uint8_t zeros[512 * 1024];
    const struct bop_aof_record record = {.body = {.data = zeros, .size = sizeof(zeros)}};
    struct bop_aof_append append = {.records = &record, .count = 1, .level = BOP_AOF_OS};
    unsigned calls;

    memset(&written_back, 0, sizeof(written_back));
    f->fs->write_back = note_write_back;
    f->options.segment_bytes = 16u << 20;
    REQUIRE_EQ(open_log(f), 0);
    for (int i = 0; i < 18; i++) {
        REQUIRE_EQ(bop_aof_append_with(f->aof, &append, NULL), 0);
        bop_inline_poll(&f->executor);
    }
    /* An eighth of the segment at a time. */
    CHECK_EQ(written_back.calls, 4);
    CHECK(written_back.end >= 8u << 20 && written_back.end < 9u << 20);
    CHECK_EQ(bop_aof_durable(f->aof), 0);

    calls = written_back.calls;
    append.level = BOP_AOF_DISK;
    for (int i = 0; i < 10; i++) {
        REQUIRE_EQ(bop_aof_append_with(f->aof, &append, NULL), 0);
        bop_inline_poll(&f->executor);
    }
    CHECK_EQ(bop_aof_durable(f->aof), 28);
    CHECK_EQ(written_back.calls, calls); /* Each was synced. */
}

TEST(levels, seal_ends_a_segment_that_has_records)
{
    struct bop_aof_status status;

    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(bop_aof_seal(f->aof), 0);
    bop_aof_status(f->aof, &status);
    CHECK_EQ(status.segments, 1);
    append_texts(f, "r", 3);
    REQUIRE_EQ(bop_aof_seal(f->aof), 0);
    REQUIRE_EQ(bop_aof_seal(f->aof), 0);
    bop_inline_poll(&f->executor);
    bop_aof_status(f->aof, &status);
    CHECK_EQ(status.segments, 2);
    CHECK_EQ(status.last, 3);
    append_texts(f, "r", 1);
    CHECK(bop_fs_exists(f->fs, segment_path(4, 2)));
    check_texts(f, "r", 1, 4);
}

TEST(levels, a_log_may_do_without_footers)
{
    struct bop_aof_proof proof;
    struct bop_buf bytes;
    int rc;

    bop_buf_init(&bytes, NULL, 0);
    for (int without = 0; without < 2; without++) {
        f->options.no_footers = without == 1;
        f->options.path = without ? "/without" : LOG_PATH;
        REQUIRE_EQ(open_log(f), 0);
        append_texts(f, "r", 3);
        bop_inline_poll(&f->executor);
        REQUIRE_EQ(bop_aof_seal(f->aof), 0);
        append_texts(f, "r", 1);
        bop_inline_poll(&f->executor);
        rc = bop_aof_prove(f->aof, 2, &proof, &bytes, &f->err);
        CHECK_EQ(rc, without ? BOP_EEND : 0);
        close_log(f);
        REQUIRE_EQ(open_log(f), 0);
        CHECK_EQ(bop_aof_last(f->aof), 4);
        check_texts(f, "r", 1, 4);
        close_log(f);
    }
    f->options.tiers = (struct bop_tiers *)f; /* Refused before anybody looks at it. */
    CHECK_EQ(open_log(f), BOP_EINVAL);
    f->options.tiers = NULL;
    bop_buf_deinit(&bytes);
}

TEST(levels, a_fence_holds_over_restarts)
{
    const struct bop_aof_record record = {.body = bytes("x")};
    struct bop_aof_append old = {.records = &record, .count = 1, .epoch = 4};

    f->options.epoch = 4;
    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(bop_aof_append_with(f->aof, &old, NULL), 0);
    REQUIRE_EQ(bop_aof_fence(f->aof, 5), 0);
    CHECK_EQ(bop_aof_append_with(f->aof, &old, NULL), BOP_EFENCED);
    CHECK_EQ(bop_aof_fence(f->aof, 4), BOP_EFENCED);
    CHECK_EQ(bop_aof_fence(f->aof, 5), 0);
    close_log(f);
    CHECK_EQ(bop_aof_open(&f->options, &f->aof, NULL, &f->err), BOP_EFENCED);
    CHECK_STR_HAS(f->err.message, "epoch 4 is fenced off by 5");
    f->options.epoch = 0;
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_epoch(f->aof), 5);
    CHECK_EQ(bop_aof_append_with(f->aof, &old, NULL), BOP_EFENCED);
    close_log(f);
    f->options.epoch = 7; /* A new writer raises it by opening. */
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_epoch(f->aof), 7);
}

TEST(levels, an_append_may_ask_for_its_number)
{
    const struct bop_aof_record record = {.body = bytes("x")};
    struct bop_aof_append append = {.records = &record, .count = 1, .expected_seq = 2};
    struct bop_aof_receipt receipt;

    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_append_with(f->aof, &append, NULL), BOP_ECONDITION);
    append.expected_seq = 1;
    REQUIRE_EQ(bop_aof_append_with(f->aof, &append, &receipt), 0);
    CHECK_EQ(receipt.seq, 1);
    CHECK_EQ(receipt.generation, 1);
    CHECK_EQ(receipt.offset, 4096);
    CHECK_EQ(receipt.level, BOP_AOF_DISK);
    CHECK_EQ(bop_aof_append_with(f->aof, &append, NULL), BOP_ECONDITION);
}

static void on_room(void *user, enum bop_aof_refusal refusal)
{
    struct fixture *f = user;

    CHECK_EQ(refusal, BOP_AOF_REFUSED_FLUSH);
    f->failed_calls++; /* Nothing fails here. */
}

TEST(levels, a_refused_append_is_told_when_there_is_room)
{
    f->options.pending_bytes_max = 200;
    f->options.on_room = on_room;
    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(append_at(f, BOP_AOF_DISK, "one"), 0);
    REQUIRE_EQ(append_at(f, BOP_AOF_DISK, "two"), 0);
    REQUIRE_EQ(append_at(f, BOP_AOF_DISK, "three"), 0);
    CHECK_EQ(append_at(f, BOP_AOF_DISK, "four"), BOP_EFULL);
    CHECK_EQ(f->failed_calls, 0);
    bop_inline_poll(&f->executor);
    CHECK_EQ(f->failed_calls, 1);
    REQUIRE_EQ(append_at(f, BOP_AOF_DISK, "four"), 0);
}

TEST(levels, what_is_reserved_is_a_record_once_it_is_complete)
{
    struct bop_aof_receipt receipt;
    struct bop_aof_view view;
    void *room;

    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_reserve(f->aof, NULL, (size_t)BOP_AOF_RECORD_MAX + 1, &room), BOP_ETOOBIG);
    REQUIRE_EQ(bop_aof_reserve(f->aof, NULL, 100000, &room), 0); /* More than a segment. */
    CHECK_EQ(bop_aof_last(f->aof), 0);
    bop_aof_abandon(f->aof);
    REQUIRE_EQ(bop_aof_reserve(f->aof, NULL, 100, &room), 0);
    memcpy(room, "reserved", 8);
    bop_aof_complete(f->aof, 8, 5, 6, &receipt);
    CHECK_EQ(receipt.seq, 1);
    bop_inline_poll(&f->executor);
    CHECK_EQ(f->durable, 1);
    REQUIRE_EQ(bop_aof_read(f->aof, 1, 1, SIZE_MAX, &f->buf, &view, &f->err), 1);
    CHECK_EQ(view.tag, 5);
    CHECK_EQ(view.time_us, 6);
    CHECK_SLICE_EQ(view.payload, bytes("reserved"));
}

/* ---- Re-homing ---- */

TEST(levels, what_a_failed_sync_took_is_written_anew)
{
    struct bop_aof_status status;

    f->options.rehome_max = 1;
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 3);
    bop_fs_sim_fail_syncs(f->sim, 1);
    append_texts(f, "r", 3);
    CHECK_EQ(f->failed_calls, 0);
    CHECK_EQ(f->durable, 6);
    bop_aof_status(f->aof, &status);
    CHECK_EQ(status.rehomed, 1);
    CHECK_EQ(status.segments, 2);
    check_texts(f, "r", 1, 6);
    close_log(f);
    bop_fs_sim_lose_power(f->sim);
    REQUIRE_EQ(open_log(f), 0);
    check_texts(f, "r", 1, 6);

    bop_fs_sim_fail_syncs(f->sim, 100); /* The disk is gone. */
    append_texts(f, "r", 1);
    CHECK_EQ(f->failed_calls, 1);
    CHECK_EQ(bop_aof_durable(f->aof), 6);
    bop_fs_sim_fail_syncs(f->sim, 0);
}

/* ---- A lane of the log's own, real files ---- */

static int open_own(struct fixture *f, const char *path, struct bop_aof **out_aof,
                    enum bop_aof_layout layout)
{
    const struct bop_aof_options options = {
        .path = path,
        .segment_bytes = 65536,
        .layout = layout,
        .room_min = 1,
    };

    return bop_aof_open(&options, out_aof, NULL, &f->err);
}

static void use_own_lane(struct fixture *f, enum bop_aof_layout layout)
{
    const char *dir = test_tmpdir();
    const struct bop_aof_record record = {.body = bytes("by itself")};
    const struct bop_aof_append append = {.records = &record, .count = 1};
    struct bop_aof_view view;
    struct bop_aof *aof;

    REQUIRE_EQ(open_own(f, dir, &aof, layout), 0);
    for (unsigned i = 0; i < 3000; i++) { /* Over several segments. */
        REQUIRE_EQ(bop_aof_append_wait(aof, &append, NULL, -1), 0);
        if (i % 500 == 0) {
            REQUIRE_EQ(bop_aof_wait(aof, BOP_AOF_DISK, bop_aof_last(aof), -1), 0);
            CHECK_EQ(bop_aof_durable(aof), i + 1);
        }
    }
    REQUIRE_EQ(bop_aof_wait(aof, BOP_AOF_DISK, 3000, -1), 0);
    CHECK_EQ(bop_aof_wait(aof, BOP_AOF_DISK, 3001, 0), BOP_ETIMEOUT);
    bop_aof_close(aof);
    REQUIRE_EQ(open_own(f, dir, &aof, layout), 0);
    CHECK_EQ(bop_aof_last(aof), 3000);
    for (uint64_t seq = 1; seq <= 3000; seq += 7) {
        REQUIRE_EQ(bop_aof_read(aof, seq, 1, SIZE_MAX, &f->buf, &view, &f->err), 1);
        CHECK_SLICE_EQ(view.payload, bytes("by itself"));
    }
    bop_aof_close(aof);
}

TEST(levels, a_log_can_poll_itself)
{
    use_own_lane(f, BOP_AOF_PACKED);
}

TEST(levels, a_log_can_poll_itself_in_aligned_blocks)
{
    use_own_lane(f, BOP_AOF_ALIGNED);
}

/* ---- Committing ---- */

/* The real file system, of which a sync can be made to fail, and which knows who synced. */
static struct {
    struct bop_fs fs;
    pthread_t owner;
    _Atomic unsigned by_owner;
    _Atomic unsigned failures; /* So many of the owner's fail. */
} watched;

static int watched_sync(struct bop_fs *self, int fd)
{
    int rc = bop_fs_real()->sync(bop_fs_real(), fd);

    if (pthread_equal(pthread_self(), watched.owner)) {
        atomic_fetch_add(&watched.by_owner, 1);
        if (atomic_load(&watched.failures) > 0) {
            atomic_fetch_sub(&watched.failures, 1);
            return -EIO;
        }
    }
    return rc;
}

static struct bop_aof *open_watched(struct fixture *f, const char *dir, enum bop_aof_layout layout,
                                    unsigned rehome_max)
{
    const struct bop_aof_options options = {.path = dir,
                                            .fs = &watched.fs,
                                            .segment_bytes = 65536,
                                            .layout = layout,
                                            .room_min = 1,
                                            .rehome_max = rehome_max};
    struct bop_aof *aof = NULL;

    watched.fs = *bop_fs_real();
    watched.fs.sync = watched_sync;
    watched.owner = pthread_self();
    REQUIRE_EQ(bop_aof_open(&options, &aof, NULL, &f->err), 0);
    watched.by_owner = watched.failures = 0; /* Opening syncs too. */
    return aof;
}

static const struct bop_aof_record committed = {.body = {(const uint8_t *)"committed", 9}};
static const struct bop_aof_append to_commit = {.records = &committed, .count = 1};

static void commit_over_segments(struct fixture *f, enum bop_aof_layout layout)
{
    const struct bop_aof_append to_memory = {
        .records = &committed, .count = 1, .level = BOP_AOF_MEMORY};
    const char *dir = test_tmpdir();
    struct bop_aof *aof = open_watched(f, dir, layout, 0);
    struct bop_aof_status status;

    for (uint64_t i = 1; i <= 1207; i++) {
        switch (i % 8) {
        case 0: /* Behind what waits, and behind what is on its way. */
            REQUIRE_EQ(bop_aof_append_with(aof, &to_memory, NULL), 0);
            break;
        case 1:
            REQUIRE_EQ(bop_aof_append(aof, &committed, 1), 0);
            break;
        default:
            REQUIRE_EQ(bop_aof_commit(aof, &to_commit, NULL, i % 8 == 2 ? 600000 : -1), 0);
            CHECK_EQ(bop_aof_durable(aof), i);
        }
    }
    bop_aof_status(aof, &status);
    CHECK(status.segments > 1);
    bop_aof_close(aof);
    aof = open_watched(f, dir, layout, 0);
    CHECK_EQ(bop_aof_last(aof), 1207);
    bop_aof_close(aof);
}

TEST(commit, is_durable_when_it_returns)
{
    commit_over_segments(f, BOP_AOF_PACKED);
    commit_over_segments(f, BOP_AOF_ALIGNED);
}

/* Alone it is written by the thread that waits; with a limit of time, which a disk that hangs would
 * not keep, by another one. */
TEST(commit, is_written_by_who_waits)
{
    struct bop_aof *aof = open_watched(f, test_tmpdir(), BOP_AOF_ALIGNED, 0);

    REQUIRE_EQ(bop_aof_commit(aof, &to_commit, NULL, -1), 0);
    CHECK_EQ(watched.by_owner, 1);
    REQUIRE_EQ(bop_aof_commit(aof, &to_commit, NULL, 600000), 0);
    CHECK_EQ(watched.by_owner, 1);
    bop_aof_close(aof);
}

/* A failed sync is as final here as elsewhere. */
TEST(commit, fails_with_the_log)
{
    const char *dir = test_tmpdir();
    struct bop_aof *aof = open_watched(f, dir, BOP_AOF_PACKED, 0);

    REQUIRE_EQ(bop_aof_commit(aof, &to_commit, NULL, -1), 0);
    watched.failures = 1;
    CHECK_EQ(bop_aof_commit(aof, &to_commit, NULL, -1), -EIO);
    CHECK_EQ(bop_aof_durable(aof), 1);
    CHECK_EQ(bop_aof_commit(aof, &to_commit, NULL, -1), BOP_EFAILED);
    CHECK_EQ(bop_aof_durable(aof), 1);
    bop_aof_close(aof);
}

TEST(commit, waits_until_it_is_rehomed)
{
    const char *dir = test_tmpdir();
    struct bop_aof *aof = open_watched(f, dir, BOP_AOF_PACKED, 1);
    struct bop_aof_status status;
    struct bop_aof_view view;

    REQUIRE_EQ(bop_aof_commit(aof, &to_commit, NULL, -1), 0);
    watched.failures = 1;
    REQUIRE_EQ(bop_aof_commit(aof, &to_commit, NULL, -1), 0);
    CHECK_EQ(bop_aof_durable(aof), 2);
    bop_aof_status(aof, &status);
    CHECK_EQ(status.rehomed, 1);
    bop_aof_close(aof);
    aof = open_watched(f, dir, BOP_AOF_PACKED, 1);
    REQUIRE_EQ(bop_aof_read(aof, 2, 1, SIZE_MAX, &f->buf, &view, &f->err), 1);
    CHECK_SLICE_EQ(view.payload, bytes("committed"));
    bop_aof_close(aof);
}
