/*
 * Footers drafted from commits on their way: they are those that reading the file gives, and where
 * a draft cannot be used the file is read.
 */
#include <stdatomic.h>
#include <stdio.h>

#include "segments.h"

#include "store/aof/footer.h"

#define SEGMENT_BYTES (1u << 20)
#define RECORD        3000u
#define COMMIT        100u /* Records: 300 KB. */

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs fs; /* The real one, but for what is counted. */
    const char *dir;
    struct bop_aof *aof;
    struct bop_error err;
    uint8_t payload[RECORD];
    struct bop_aof_record records[COMMIT];
};

static _Atomic uint64_t read_bytes;

static ssize_t counted_pread(struct bop_fs *self, int fd, void *out, size_t size, uint64_t offset)
{
    ssize_t got = bop_fs_real()->pread(bop_fs_real(), fd, out, size, offset);

    if (got > 0) {
        atomic_fetch_add(&read_bytes, (uint64_t)got);
    }
    return got;
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    f->fs = *bop_fs_real();
    f->fs.pread = counted_pread;
    f->dir = test_tmpdir();
    for (size_t i = 0; i < RECORD; i++) {
        f->payload[i] = (uint8_t)(i * 7);
    }
    for (unsigned i = 0; i < COMMIT; i++) {
        f->records[i] = (struct bop_aof_record){
            .tag = i, .time_us = 5000 + i, .body = bop_slice(f->payload, RECORD - i)};
    }
}

static void teardown(struct fixture *f)
{
    bop_aof_close(f->aof);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void open_log(struct fixture *f, enum bop_aof_layout layout)
{
    const struct bop_aof_options options = {.allocator = &f->heap.allocator,
                                            .fs = &f->fs,
                                            .path = f->dir,
                                            .segment_bytes = SEGMENT_BYTES,
                                            .layout = layout,
                                            .room_min = 1};

    REQUIRE_EQ(bop_aof_open(&options, &f->aof, NULL, &f->err), 0);
}

static void close_log(struct fixture *f)
{
    bop_aof_close(f->aof);
    f->aof = NULL;
}

/* Several on their way at once. */
static void commit(struct fixture *f, unsigned commits, unsigned count)
{
    const struct bop_aof_append append = {.records = f->records, .count = count};

    for (unsigned i = 0; i < commits; i++) {
        REQUIRE_EQ(bop_aof_append_wait(f->aof, &append, NULL, -1), 0);
    }
    REQUIRE_EQ(bop_aof_wait(f->aof, BOP_AOF_DISK, bop_aof_last(f->aof), -1), 0);
}

/* ---- What was sealed ---- */

struct look {
    struct fixture *f;
    unsigned sealed;
};

static int look_at(void *user, const char *name)
{
    struct look *look = user;
    struct bop__segment_source *source = NULL;
    struct bop__footer stored = {0}, read = {0};
    int rc;

    if (!strstr(name, ".seg")) {
        return 0;
    }
    REQUIRE_EQ(bop__file_source_open(&look->f->heap.allocator, bop_fs_real(),
                                     test_path(look->f->dir, name), true, false, &source,
                                     &look->f->err),
               0);
    rc = bop__footer_read(&look->f->heap.allocator, source, false, &stored, &look->f->err);
    if (rc == 0) {
        read.facts = stored.facts;
        memset(read.facts.root, 0, sizeof(read.facts.root));
        read.facts.link = 0;
        REQUIRE_EQ(bop__footer_build(&look->f->heap.allocator, source, &read, &look->f->err), 0);
        CHECK_MEM_EQ(&read.facts, &stored.facts, sizeof(read.facts));
        CHECK_EQ(read.leaf_count, stored.leaf_count);
        for (size_t i = 0; i < read.leaf_count; i++) {
            CHECK_EQ(read.leaves[i].seq, stored.leaves[i].seq);
            CHECK_EQ(read.leaves[i].offset, stored.leaves[i].offset);
            CHECK_EQ(read.leaves[i].stride, stored.leaves[i].stride);
            CHECK_MEM_EQ(read.leaves[i].hash, stored.leaves[i].hash, sizeof(read.leaves[i].hash));
        }
        bop__footer_deinit(&read);
        bop__footer_deinit(&stored);
        look->sealed++;
    }
    source->close(source);
    return 0;
}

/* Every footer is what reading the segment gives. Returns how many there are. */
static unsigned check_footers(struct fixture *f)
{
    struct look look = {.f = f};

    REQUIRE_EQ(bop_fs_real()->list(bop_fs_real(), f->dir, look_at, &look), 0);
    return look.sealed;
}

/* ---- Tests ---- */

static void seal_without_reading(struct fixture *f, enum bop_aof_layout layout)
{
    open_log(f, layout);
    read_bytes = 0;
    commit(f, 20, COMMIT);
    close_log(f);
    /* 6 MB; sealing looks at a few heads behind the records. */
    CHECK(read_bytes < SEGMENT_BYTES / 16);
    CHECK(check_footers(f) >= 5);
    open_log(f, layout);
    CHECK_EQ(bop_aof_last(f->aof), 20 * COMMIT);
    close_log(f);
}

TEST(draft, is_the_footer_of_packed_commits)
{
    seal_without_reading(f, BOP_AOF_PACKED);
}

TEST(draft, is_the_footer_of_aligned_commits)
{
    seal_without_reading(f, BOP_AOF_ALIGNED);
}

/* The end of a segment that goes on after a restart was not seen from its beginning. */
TEST(draft, is_not_used_after_a_restart)
{
    open_log(f, BOP_AOF_PACKED);
    commit(f, 1, COMMIT);
    close_log(f);
    open_log(f, BOP_AOF_PACKED);
    read_bytes = 0;
    commit(f, 3, COMMIT);
    close_log(f);
    CHECK(read_bytes >= SEGMENT_BYTES / 2);
    CHECK_EQ(check_footers(f), 1);
}

/* What was cut off is in the draft, and not in the segment. */
TEST(draft, is_not_used_of_a_segment_that_was_cut)
{
    open_log(f, BOP_AOF_ALIGNED);
    commit(f, 3, COMMIT);
    REQUIRE_EQ(bop_aof_truncate_back(f->aof, 250), 0);
    commit(f, 4, COMMIT);
    CHECK_EQ(bop_aof_last(f->aof), 250 + 4 * COMMIT);
    REQUIRE_EQ(bop_aof_seal(f->aof), 0);
    close_log(f);
    CHECK(check_footers(f) >= 2);
    open_log(f, BOP_AOF_ALIGNED);
    CHECK_EQ(bop_aof_last(f->aof), 250 + 4 * COMMIT);
    close_log(f);
}

/* A few small commits among big ones do no harm; many take the draft away. Both are sealed. */
TEST(draft, takes_small_commits_too)
{
    open_log(f, BOP_AOF_PACKED);
    for (unsigned i = 0; i < 6; i++) {
        commit(f, 1, COMMIT);
        for (unsigned k = 0; k < i * 8; k++) {
            commit(f, 1, 1);
        }
    }
    REQUIRE_EQ(bop_aof_seal(f->aof), 0);
    close_log(f);
    CHECK(check_footers(f) >= 2);
}

/* ---- By itself ---- */

/* Of a segment's bytes, in pieces of whole entries, as commits are. */
static int draft_of(struct fixture *f, const struct maker *maker, size_t pieces,
                    struct bop__footer *out_footer)
{
    struct bop__segment_facts begun = maker->facts;
    struct bop__footer_draft *draft;
    const uint8_t *bytes = maker->file.data;
    uint64_t at = BOP__AOF_SEGMENT_HEADER;
    int rc;

    begun.end = begun.end_seq = 0;
    begun.end_seq = begun.base;
    draft = bop__footer_draft_new(&f->heap.allocator, &begun);
    if (!draft) {
        return BOP_ENOMEM;
    }
    while (at < maker->file.size) {
        uint64_t to = at;

        for (size_t i = 0; i < pieces && to < maker->file.size; i++) {
            struct bop__aof_record_header header;

            memcpy(&header, bytes + to, sizeof(header));
            to += bop__aof_record_size(bop__aof_record_length(&header));
        }
        bop__footer_draft_add(draft, at, bytes + at, (size_t)(to - at));
        at = to;
    }
    out_footer->facts = maker->facts;
    rc = bop__footer_draft_finish(draft, out_footer);
    bop__footer_draft_unref(draft);
    return rc;
}

static void make(struct maker *maker, bool filler_last)
{
    maker_init(maker, 100, 5, 0xabcd);
    for (unsigned i = 0; i < 3000; i++) {
        maker_record(maker, i * 37 % 300);
        if (i % 100 == 50 || (filler_last && i == 2999)) {
            uint64_t end = maker->facts.end;

            maker_filler(maker);
            maker->facts.end = i == 2999 ? end : maker->facts.end;
        }
    }
}

/* However the commits were cut, and with a filler behind the last record or without. */
TEST(draft, does_not_depend_on_the_commits)
{
    for (int filler_last = 0; filler_last < 2; filler_last++) {
        struct maker maker;
        struct bop__footer first, other;

        make(&maker, filler_last);
        REQUIRE_EQ(draft_of(f, &maker, 1, &first), 0);
        for (size_t pieces = 2; pieces < 4000; pieces *= 3) {
            REQUIRE_EQ(draft_of(f, &maker, pieces, &other), 0);
            CHECK_MEM_EQ(&other.facts, &first.facts, sizeof(other.facts));
            bop__footer_deinit(&other);
        }
        bop__footer_deinit(&first);
        maker_deinit(&maker);
    }
}

TEST(draft, is_refused_for_another_end)
{
    struct maker maker;
    struct bop__footer footer;

    make(&maker, false);
    maker.facts.end_seq--;
    CHECK_EQ(draft_of(f, &maker, 7, &footer), BOP_EMISMATCH);
    maker.facts.end_seq++;
    maker.facts.end -= 8;
    CHECK_EQ(draft_of(f, &maker, 7, &footer), BOP_EMISMATCH);
    maker_deinit(&maker);
}

TEST(draft, survives_each_fault)
{
    struct maker maker;

    make(&maker, true);
    FAULT_SWEEP(&f->faults) {
        struct bop__footer footer = {0};
        int rc = draft_of(f, &maker, 50, &footer);

        CHECK_EQ(rc, f->faults.fired);
        bop__footer_deinit(&footer);
        CHECK_EQ(f->heap.live, 0);
    }
    maker_deinit(&maker);
}
