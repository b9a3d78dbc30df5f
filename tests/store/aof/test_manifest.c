/*
 * The manifest: what may follow what, and that nothing acknowledged is lost.
 */
#include <stdio.h>
#include <stdlib.h>

#include <bop/sim.h>

#include "store/aof/manifest_format.h"
#include "tap.h"

#define PATH "/log/manifest"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_sim *sim;
    struct bop_fs *fs;
    struct bop_clock clock;
    struct bop__manifest_options options;
    struct bop__manifest *manifest;
    struct bop_error err;
};

static uint64_t wall_ms(struct bop_clock *clock)
{
    return 1234567;
}

static uint64_t monotonic_us(struct bop_clock *clock)
{
    return 0;
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop_fs_sim_create(&(struct bop_fs_sim_options){.seed = 7}, &f->sim), 0);
    f->fs = bop_fs_sim_fs(f->sim);
    f->clock = (struct bop_clock){.monotonic_us = monotonic_us, .wall_ms = wall_ms};
    f->options = (struct bop__manifest_options){.allocator = &f->heap.allocator,
                                                .fs = f->fs,
                                                .clock = &f->clock,
                                                .path = PATH,
                                                .log_id = "the log's own id"};
}

static void reopen(struct fixture *f)
{
    bop__manifest_close(f->manifest);
    f->manifest = NULL;
    REQUIRE_EQ(bop__manifest_open(&f->options, &f->manifest, &f->err), 0);
}

static void teardown(struct fixture *f)
{
    bop__manifest_close(f->manifest);
    CHECK_EQ(f->heap.live, 0);
    bop_fs_sim_destroy(f->sim);
}

FIXTURE(setup, teardown)

/* ---- Records ---- */

static struct bop__manifest_record sealed(uint64_t generation, uint64_t base, uint64_t end_seq)
{
    return (struct bop__manifest_record){.kind = BOP__MANIFEST_SEAL_SEGMENT,
                                         .generation = generation,
                                         .facts = {.base = base,
                                                   .end_seq = end_seq,
                                                   .generation = generation,
                                                   .epoch = 3,
                                                   .seed = 11,
                                                   .link = 12,
                                                   .end = 8192,
                                                   .size = 9000,
                                                   .first_time_us = 100,
                                                   .last_time_us = 200,
                                                   .first_tag = 5,
                                                   .last_tag = 6,
                                                   .root = {1, 2, 3}}};
}

static struct bop__manifest_record about(enum bop__manifest_kind kind, uint64_t generation)
{
    return (struct bop__manifest_record){.kind = kind, .generation = generation};
}

static struct bop__manifest_record keyed(enum bop__manifest_kind kind, uint64_t generation,
                                         const char *key, const char *text)
{
    return (struct bop__manifest_record){.kind = kind,
                                         .generation = generation,
                                         .key = key,
                                         .text = text,
                                         .sha256 = {9},
                                         .due_ms = 777};
}

static struct bop__manifest_record evicted(uint64_t generation, unsigned tier)
{
    return (struct bop__manifest_record){
        .kind = BOP__MANIFEST_LOCAL_EVICTED, .generation = generation, .tier = tier};
}

static int add(struct fixture *f, struct bop__manifest_record record)
{
    return bop__manifest_append(f->manifest, &record, 1, &f->err);
}

static void pack(struct fixture *f, uint64_t generation)
{
    struct bop__manifest_record done = about(BOP__MANIFEST_COMPRESSION_DONE, generation);

    done.packed_bytes = 4000;
    done.sha256[0] = 9;
    REQUIRE_EQ(add(f, about(BOP__MANIFEST_COMPRESSION_STARTED, generation)), 0);
    REQUIRE_EQ(add(f, done), 0);
}

static void upload(struct fixture *f, uint64_t generation)
{
    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_UPLOAD_STARTED, generation, "a/key", "upload-1")), 0);
    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_UPLOAD_DONE, generation, "a/key", "etag-1")), 0);
}

/* ---- What may follow what ---- */

TEST(manifest, follows_a_segment_through_its_life)
{
    const struct bop__manifest_entry *entry;

    reopen(f);
    CHECK_EQ(bop__manifest_chunks(f->manifest), 0);
    REQUIRE_EQ(add(f, sealed(1, 1, 101)), 0);
    pack(f, 1);
    REQUIRE_EQ(add(f, evicted(1, 0)), 0);
    upload(f, 1);
    REQUIRE_EQ(add(f, evicted(1, 1)), 0);
    reopen(f);
    REQUIRE_EQ(bop__manifest_count(f->manifest), 1);
    entry = bop__manifest_find(f->manifest, 1);
    REQUIRE(entry != NULL);
    CHECK(entry == bop__manifest_at(f->manifest, 0));
    CHECK_EQ(entry->facts.base, 1);
    CHECK_EQ(entry->facts.end_seq, 101);
    CHECK_EQ(entry->facts.link, 12);
    CHECK_EQ(entry->facts.root[2], 3);
    CHECK(entry->packed && entry->packed_evicted && entry->raw_evicted && entry->uploaded);
    CHECK(!entry->uploading && !entry->packing && !entry->dropped);
    CHECK_EQ(entry->packed_bytes, 4000);
    CHECK_EQ(entry->uploaded_ms, 1234567);
    CHECK_STR_EQ(entry->key, "a/key");
    CHECK_STR_EQ(entry->etag, "etag-1");
    CHECK(entry->upload_id == NULL);

    REQUIRE_EQ(add(f, about(BOP__MANIFEST_HYDRATION_STARTED, 1)), 0);
    REQUIRE_EQ(add(f, (struct bop__manifest_record){.kind = BOP__MANIFEST_HYDRATION_DONE,
                                                    .generation = 1,
                                                    .tier = 1}),
               0);
    CHECK(!bop__manifest_find(f->manifest, 1)->packed_evicted);

    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_TIER2_DELETE_QUEUED, 1, "a/key", NULL)), 0);
    reopen(f);
    entry = bop__manifest_find(f->manifest, 1);
    CHECK(entry->delete_queued);
    CHECK_EQ(entry->due_ms, 777);
    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_TIER2_DELETED, 1, "a/key", NULL)), 0);
    CHECK_EQ(bop__manifest_count(f->manifest), 0);
    reopen(f);
    CHECK_EQ(bop__manifest_count(f->manifest), 0);
}

TEST(manifest, refuses_duplicates_and_overlaps)
{
    reopen(f);
    REQUIRE_EQ(add(f, sealed(2, 11, 21)), 0);
    CHECK_EQ(add(f, sealed(2, 31, 41)), BOP_ECONDITION);
    CHECK_EQ(add(f, sealed(3, 20, 31)), BOP_ECONDITION);
    CHECK(strstr(f->err.message, "overlap") != NULL);
    CHECK_EQ(add(f, sealed(3, 1, 12)), BOP_ECONDITION);
    CHECK_EQ(add(f, sealed(3, 1, 100)), BOP_ECONDITION);
    CHECK_EQ(add(f, sealed(3, 13, 14)), BOP_ECONDITION);
    CHECK_EQ(add(f, sealed(3, 21, 21)), BOP_ECONDITION);
    CHECK_EQ(add(f, sealed(0, 21, 22)), BOP_ECONDITION);
    REQUIRE_EQ(add(f, sealed(3, 21, 31)), 0);
    REQUIRE_EQ(add(f, sealed(4, 1, 11)), 0);
    reopen(f);
    REQUIRE_EQ(bop__manifest_count(f->manifest), 3);
    CHECK_EQ(bop__manifest_at(f->manifest, 0)->facts.generation, 4);
    CHECK_EQ(bop__manifest_at(f->manifest, 2)->facts.generation, 3);
}

TEST(manifest, refuses_what_does_not_follow)
{
    static const enum bop__manifest_kind never_first[] = {
        BOP__MANIFEST_COMPRESSION_DONE, BOP__MANIFEST_COMPRESSION_FAILED,
        BOP__MANIFEST_UPLOAD_STARTED,   BOP__MANIFEST_UPLOAD_DONE,
        BOP__MANIFEST_UPLOAD_FAILED,    BOP__MANIFEST_TIER2_DELETE_QUEUED,
        BOP__MANIFEST_TIER2_DELETED,    BOP__MANIFEST_HYDRATION_DONE,
        BOP__MANIFEST_HYDRATION_FAILED, BOP__MANIFEST_LOCAL_EVICTED,
        BOP__MANIFEST_SNAPSHOT_MARKER,  BOP__MANIFEST_CATALOGUE,
    };

    reopen(f);
    REQUIRE_EQ(add(f, sealed(1, 1, 11)), 0);
    for (size_t i = 0; i < BOP_COUNT_OF(never_first); i++) {
        CHECK_EQ(add(f, keyed(never_first[i], 1, "k", NULL)), BOP_ECONDITION);
        CHECK_EQ(add(f, keyed(never_first[i], 5, "k", NULL)), BOP_ECONDITION);
    }
    pack(f, 1);
    CHECK_EQ(add(f, evicted(1, 1)), BOP_ECONDITION);
    CHECK_EQ(add(f, keyed(BOP__MANIFEST_UPLOAD_STARTED, 1, NULL, NULL)), BOP_ECONDITION);
    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_UPLOAD_STARTED, 1, "k", NULL)), 0);
    CHECK_EQ(add(f, keyed(BOP__MANIFEST_UPLOAD_DONE, 1, "other", NULL)), BOP_ECONDITION);
    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_UPLOAD_FAILED, 1, "k", NULL)), 0);
    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_UPLOAD_STARTED, 1, "k", "id")), 0);
    CHECK_STR_EQ(bop__manifest_find(f->manifest, 1)->upload_id, "id");
    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_UPLOAD_DONE, 1, "k", "e")), 0);
    CHECK_EQ(add(f, keyed(BOP__MANIFEST_UPLOAD_STARTED, 1, "k", NULL)), BOP_ECONDITION);
    CHECK_EQ(add(f, keyed(BOP__MANIFEST_TIER2_DELETED, 1, "k", NULL)), BOP_ECONDITION);
}

TEST(manifest, an_append_is_all_or_nothing)
{
    struct bop__manifest_record records[] = {sealed(1, 1, 11), sealed(2, 11, 21),
                                             sealed(2, 21, 31)};

    reopen(f);
    CHECK_EQ(bop__manifest_append(f->manifest, records, 3, &f->err), BOP_ECONDITION);
    CHECK_EQ(bop__manifest_count(f->manifest), 0);
    CHECK_EQ(bop__manifest_append(f->manifest, records, 0, &f->err), BOP_EINVAL);
    REQUIRE_EQ(bop__manifest_append(f->manifest, records, 2, &f->err), 0);
    CHECK_EQ(bop__manifest_count(f->manifest), 2);
}

TEST(manifest, truncation_drops_segments_but_not_what_tier_2_holds)
{
    reopen(f);
    for (uint64_t i = 1; i <= 4; i++) {
        REQUIRE_EQ(add(f, sealed(i, i * 10, i * 10 + 10)), 0);
    }
    pack(f, 1);
    upload(f, 1);
    REQUIRE_EQ(add(f, (struct bop__manifest_record){.kind = BOP__MANIFEST_TRUNCATED,
                                                    .first_seq = 25,
                                                    .last_seq = 44}),
               0);
    /* 1 ends at 19 and is in tier 2; 2 holds 25 still; 4 holds 45 to 49. */
    reopen(f);
    CHECK_EQ(bop__manifest_count(f->manifest), 3);
    CHECK(bop__manifest_find(f->manifest, 1)->dropped);
    CHECK(!bop__manifest_find(f->manifest, 2)->dropped);
    CHECK(bop__manifest_find(f->manifest, 4) == NULL);
    /* Another may take the place of what was dropped. */
    REQUIRE_EQ(add(f, sealed(5, 40, 60)), 0);
    REQUIRE_EQ(add(f, sealed(6, 12, 15)), 0);
    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_TIER2_DELETE_QUEUED, 1, "a/key", NULL)), 0);
    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_TIER2_DELETED, 1, "a/key", NULL)), 0);
    reopen(f);
    CHECK(bop__manifest_find(f->manifest, 1) == NULL);
    CHECK_EQ(bop__manifest_count(f->manifest), 4);
}

/* ---- Undoing ---- */

/* All that a catalogue knows, as text. */
static void spell(struct bop__manifest *manifest, struct bop_buf *out_text)
{
    char line[512];

    bop_buf_clear(out_text);
    for (size_t i = 0; i < bop__manifest_count(manifest); i++) {
        const struct bop__manifest_entry *e = bop__manifest_at(manifest, i);
        int size = snprintf(line, sizeof(line), "%ju %ju-%ju %d%d%d%d%d%d%d%d%d%d %s %s %s\n",
                            (uintmax_t)e->facts.generation, (uintmax_t)e->facts.base,
                            (uintmax_t)e->facts.end_seq, e->packed, e->packed_evicted,
                            e->raw_evicted, e->packing, e->hydrating, e->uploading, e->uploaded,
                            e->delete_queued, e->deleted, e->dropped, e->key ? e->key : "-",
                            e->etag ? e->etag : "-", e->upload_id ? e->upload_id : "-");

        REQUIRE_EQ(bop_buf_append(out_text, line, (size_t)size), 0);
        CHECK(bop__manifest_find(manifest, e->facts.generation) == e);
    }
}

/* Five segments: 1 only packed, 2 in tier 2, 3 begun, 4 plain, 5 dropped and still in tier 2. */
static void make_five(struct fixture *f)
{
    for (uint64_t i = 1; i <= 5; i++) {
        REQUIRE_EQ(add(f, sealed(i, i * 10, i * 10 + 10)), 0);
    }
    pack(f, 1);
    pack(f, 2);
    upload(f, 2);
    pack(f, 3);
    REQUIRE_EQ(add(f, keyed(BOP__MANIFEST_UPLOAD_STARTED, 3, "k3", NULL)), 0);
    pack(f, 5);
    upload(f, 5);
    REQUIRE_EQ(
        add(f, (struct bop__manifest_record){.kind = BOP__MANIFEST_TRUNCATED, .last_seq = 50}), 0);
}

/* One append that changes, adds and removes; some entries more than once. The keys are those of the
 * entries themselves, which must stay good meanwhile. */
static size_t many_changes(struct fixture *f, struct bop__manifest_record records[8])
{
    const char *key2 = bop__manifest_find(f->manifest, 2)->key;
    const char *key5 = bop__manifest_find(f->manifest, 5)->key;
    const char *key3 = bop__manifest_find(f->manifest, 3)->key;
    size_t count = 0;

    records[count++] = keyed(BOP__MANIFEST_TIER2_DELETE_QUEUED, 5, key5, NULL);
    records[count++] = keyed(BOP__MANIFEST_TIER2_DELETED, 5, key5, NULL); /* 5 leaves. */
    records[count++] = keyed(BOP__MANIFEST_UPLOAD_STARTED, 3, key3, "upload-3");
    records[count++] = keyed(BOP__MANIFEST_UPLOAD_DONE, 3, key3, "etag-3");
    records[count++] = sealed(6, 50, 70);
    records[count++] = keyed(BOP__MANIFEST_TIER2_DELETE_QUEUED, 2, key2, NULL);
    /* 1 leaves; 2 is dropped. */
    records[count++] = (struct bop__manifest_record){
        .kind = BOP__MANIFEST_TRUNCATED, .first_seq = 30, .last_seq = UINT64_MAX};
    records[count++] = evicted(4, 0); /* Does not follow: no lower tier holds it. */
    return count;
}

TEST(manifest, a_failed_append_leaves_the_catalogue_as_it_was)
{
    struct bop__manifest_record records[8];
    struct bop_buf before, after;

    bop_buf_init(&before, bop_allocator_default(), 0);
    bop_buf_init(&after, bop_allocator_default(), 0);
    reopen(f);
    make_five(f);
    spell(f->manifest, &before);

    /* Refused at the last record, */
    CHECK_EQ(many_changes(f, records), 8);
    CHECK_EQ(bop__manifest_append(f->manifest, records, 8, &f->err), BOP_ECONDITION);
    spell(f->manifest, &after);
    CHECK_SLICE_EQ(bop_buf_slice(&after), bop_buf_slice(&before));
    /* not written, */
    bop_fs_sim_fail_syncs(f->sim, 1);
    CHECK_EQ(bop__manifest_append(f->manifest, records, 7, &f->err), -EIO);
    spell(f->manifest, &after);
    CHECK_SLICE_EQ(bop_buf_slice(&after), bop_buf_slice(&before));
    /* or without memory at any place. */
    FAULT_SWEEP(&f->faults) {
        int rc = bop__manifest_append(f->manifest, records, 7, &f->err);

        CHECK_EQ(rc, f->faults.fired);
        spell(f->manifest, &after);
        CHECK_EQ(bop_slice_equal(bop_buf_slice(&after), bop_buf_slice(&before)), rc < 0);
    }
    CHECK_EQ(bop__manifest_count(f->manifest), 4);
    CHECK(bop__manifest_find(f->manifest, 2)->dropped);
    CHECK(bop__manifest_find(f->manifest, 3)->uploaded);
    CHECK(bop__manifest_find(f->manifest, 5) == NULL);
    /* What the files say is the same. */
    spell(f->manifest, &before);
    reopen(f);
    spell(f->manifest, &after);
    CHECK_SLICE_EQ(bop_buf_slice(&after), bop_buf_slice(&before));
    bop_buf_deinit(&before);
    bop_buf_deinit(&after);
}

static uint64_t operations_of_a_record(struct fixture *f, uint64_t generation)
{
    FAULT_SWEEP(&f->faults) {
        int rc = add(f, about(BOP__MANIFEST_COMPRESSION_STARTED, generation));

        CHECK_EQ(rc, f->faults.fired);
    }
    return f->faults.at;
}

/* What a record costs does not grow with the segments that there are. */
TEST(manifest, an_append_takes_the_same_memory_whatever_else_there_is)
{
    uint64_t few;

    reopen(f);
    REQUIRE_EQ(add(f, sealed(1, 1, 2)), 0);
    few = operations_of_a_record(f, 1);
    for (uint64_t i = 2; i <= 1000; i++) {
        REQUIRE_EQ(add(f, sealed(i, i, i + 1)), 0);
    }
    CHECK_EQ(operations_of_a_record(f, 1), few);
    CHECK_EQ(operations_of_a_record(f, 500), few);
}

/* ---- Chunks ---- */

static int count_chunk(void *user, const struct bop__manifest_chunk_report *report)
{
    unsigned *count = user;

    CHECK_EQ(report->code, 0);
    CHECK_EQ(report->stored_crc, report->computed_crc);
    CHECK_EQ(report->uncommitted_bytes, 0);
    CHECK(report->snapshot);
    ++*count;
    return 0;
}

TEST(manifest, rotates_and_keeps_two_older_chunks)
{
    struct bop__manifest_chunk chunk;
    unsigned count = 0;

    f->options.chunk_bytes = 2000;
    reopen(f);
    for (uint64_t i = 1; i <= 200; i++) {
        REQUIRE_EQ(add(f, sealed(i, i * 10, i * 10 + 10)), 0);
    }
    CHECK_EQ(bop__manifest_chunks(f->manifest), 3);
    bop__manifest_chunk_at(f->manifest, 2, &chunk);
    CHECK(!chunk.sealed);
    CHECK(chunk.index > 4 && chunk.index < 12); /* Chunks grow with the catalogue. */
    bop__manifest_uploaded(f->manifest, chunk.index, 44);
    bop__manifest_chunk_at(f->manifest, 2, &chunk);
    CHECK_EQ(chunk.uploaded, 44);
    REQUIRE_EQ(bop__manifest_inspect(&f->options, count_chunk, NULL, &count, &f->err), 0);
    CHECK_EQ(count, 3);
    reopen(f);
    CHECK_EQ(bop__manifest_count(f->manifest), 200);
}

TEST(manifest, read_only_leaves_all_as_it_is)
{
    uint64_t digest;

    reopen(f);
    REQUIRE_EQ(add(f, sealed(1, 1, 11)), 0);
    f->options.read_only = true;
    digest = bop_fs_sim_digest(f->sim);
    reopen(f);
    CHECK_EQ(bop__manifest_count(f->manifest), 1);
    CHECK_EQ(add(f, sealed(2, 11, 21)), BOP_EINVAL);
    CHECK_EQ(bop_fs_sim_digest(f->sim), digest);
}

static void newest_path(struct fixture *f, char out_path[512])
{
    struct bop__manifest_chunk chunk;

    bop__manifest_chunk_at(f->manifest, bop__manifest_chunks(f->manifest) - 1, &chunk);
    snprintf(out_path, 512, "%s", chunk.path);
}

/* Append a record of a kind of the future to the newest chunk, as a newer program would. */
static void append_unknown(struct fixture *f)
{
    struct bop__manifest_record unknown = {
        .kind = (enum bop__manifest_kind)999, .generation = 1, .blob = bytes("what is to come")};
    struct bop__manifest_chunk_header header;
    struct bop__manifest_decoded *decoded = malloc(sizeof(*decoded));
    struct bop__manifest_place place;
    struct bop_buf buf, more;
    uint64_t at = BOP__MANIFEST_HEADER;
    char path[512];
    int fd;

    newest_path(f, path);
    bop_buf_init(&buf, NULL, 0);
    bop_buf_init(&more, NULL, 0);
    REQUIRE(decoded != NULL);
    REQUIRE_EQ(bop_fs_read_file(f->fs, path, 1 << 20, &buf), 0);
    REQUIRE_EQ(bop__manifest_header_decode(bop_buf_slice(&buf), path, &header, &place, &f->err), 0);
    while (bop__manifest_record_decode(bop_buf_slice(&buf), at, &place, decoded) == 0) {
        at += decoded->size;
    }
    place.back = 0;
    REQUIRE_EQ(bop__manifest_record_encode(&unknown, NULL, &place, &more), 0);
    fd = f->fs->open(f->fs, path, O_RDWR);
    REQUIRE(fd >= 0);
    REQUIRE_EQ(bop_fs_write_all(f->fs, fd, more.data, more.size, at), 0);
    f->fs->close(f->fs, fd);
    bop_buf_deinit(&buf);
    bop_buf_deinit(&more);
    free(decoded);
}

static int find_unknown(void *user, uint64_t chunk, uint64_t offset,
                        const struct bop__manifest_record *record)
{
    if (record->kind == (enum bop__manifest_kind)999) {
        CHECK_SLICE_EQ(record->blob, bytes("what is to come"));
        CHECK_STR_EQ(bop__manifest_kind_name(record->kind), "unknown");
        ++*(unsigned *)user;
    }
    return 0;
}

TEST(manifest, skips_kinds_of_the_future)
{
    unsigned found = 0;

    reopen(f);
    REQUIRE_EQ(add(f, sealed(1, 1, 11)), 0);
    append_unknown(f);
    reopen(f);
    CHECK_EQ(bop__manifest_count(f->manifest), 1);
    REQUIRE_EQ(bop__manifest_inspect(&f->options, NULL, find_unknown, &found, &f->err), 0);
    CHECK_EQ(found, 1);
    REQUIRE_EQ(add(f, sealed(2, 11, 21)), 0);
    reopen(f);
    CHECK_EQ(bop__manifest_count(f->manifest), 2);
}

TEST(manifest, custom_events_are_kept_for_those_who_look)
{
    struct bop__manifest_record event = {
        .kind = BOP__MANIFEST_CUSTOM_EVENT, .schema = 4, .blob = bytes("hello")};

    reopen(f);
    REQUIRE_EQ(add(f, event), 0);
    reopen(f);
    CHECK_EQ(bop__manifest_count(f->manifest), 0);
}

TEST(manifest, belongs_to_its_log)
{
    reopen(f);
    REQUIRE_EQ(add(f, sealed(1, 1, 11)), 0);
    bop__manifest_close(f->manifest);
    f->manifest = NULL;
    f->options.log_id[0] ^= 1;
    CHECK_EQ(bop__manifest_open(&f->options, &f->manifest, &f->err), BOP_EMISMATCH);
}

/* ---- Damage ---- */

/* One segment sealed and packed, one more sealed. */
static void fill(struct fixture *f)
{
    reopen(f);
    REQUIRE_EQ(add(f, sealed(1, 1, 11)), 0);
    pack(f, 1);
    upload(f, 1);
    REQUIRE_EQ(add(f, sealed(2, 11, 21)), 0);
}

TEST(manifest, every_bit_flipped_is_told_or_harmless)
{
    uint64_t size;
    char path[512];
    int fd;

    fill(f);
    newest_path(f, path);
    bop__manifest_close(f->manifest);
    f->manifest = NULL;
    fd = f->fs->open(f->fs, path, O_RDONLY);
    REQUIRE(fd >= 0);
    REQUIRE_EQ(f->fs->size(f->fs, fd, &size), 0);
    f->fs->close(f->fs, fd);
    for (uint64_t bit = 0; bit < size * 8; bit++) {
        int rc;

        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, path, bit), 0);
        rc = bop__manifest_open(&f->options, &f->manifest, &f->err);
        if (rc == 0) {
            /* The zeros behind a payload say nothing. */
            CHECK_EQ(bop__manifest_count(f->manifest), 2);
            CHECK(bop__manifest_find(f->manifest, 1)->uploaded);
        } else {
            CHECK(rc == BOP_ECORRUPT || rc == BOP_EVERSION || rc == BOP_EMISMATCH);
            CHECK(strstr(f->err.message, path) != NULL);
        }
        bop__manifest_close(f->manifest);
        f->manifest = NULL;
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, path, bit), 0);
    }
}

TEST(manifest, every_truncation_leaves_what_was_before)
{
    size_t counts[3] = {0};
    struct bop_buf whole;
    char path[512];

    fill(f);
    newest_path(f, path);
    bop__manifest_close(f->manifest);
    f->manifest = NULL;
    bop_buf_init(&whole, NULL, 0);
    REQUIRE_EQ(bop_fs_read_file(f->fs, path, 1 << 20, &whole), 0);
    for (uint64_t size = whole.size; size-- > 0;) {
        int fd = f->fs->open(f->fs, path, O_RDWR);
        int rc;

        REQUIRE(fd >= 0);
        REQUIRE_EQ(f->fs->truncate(f->fs, fd, size), 0);
        f->fs->close(f->fs, fd);
        rc = bop__manifest_open(&f->options, &f->manifest, &f->err);
        if (size < BOP__MANIFEST_HEADER + bop__manifest_record_size(8)) {
            CHECK_EQ(rc, BOP_ECORRUPT); /* Header and snapshot are there before the name is. */
        } else {
            REQUIRE_EQ(rc, 0);
            counts[bop__manifest_count(f->manifest)]++;
        }
        bop__manifest_close(f->manifest);
        f->manifest = NULL;
    }
    CHECK(counts[0] > 0 && counts[1] > 0);
    CHECK(counts[2] < 8);
    bop_buf_deinit(&whole);
}

TEST(manifest, repair_goes_back_to_the_chunk_before)
{
    unsigned lost = 9;
    char path[512];

    fill(f);
    reopen(f);
    REQUIRE_EQ(add(f, sealed(3, 21, 31)), 0);
    newest_path(f, path);
    bop__manifest_close(f->manifest);
    f->manifest = NULL;
    REQUIRE_EQ(bop__manifest_repair(&f->options, &lost, &f->err), 0);
    CHECK_EQ(lost, 0);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, path, 8 * 100), 0);
    REQUIRE_EQ(bop__manifest_open(&f->options, &f->manifest, &f->err), BOP_ECORRUPT);
    REQUIRE_EQ(bop__manifest_repair(&f->options, &lost, &f->err), 0);
    CHECK_EQ(lost, 1);
    strcat(path, ".broken");
    CHECK(bop_fs_exists(f->fs, path));
    reopen(f);
    CHECK_EQ(bop__manifest_count(f->manifest), 2);
    CHECK(bop__manifest_find(f->manifest, 1)->uploaded);
}

TEST(manifest, repair_says_so_when_nothing_is_left)
{
    unsigned lost;
    char path[512];

    reopen(f);
    REQUIRE_EQ(add(f, sealed(1, 1, 11)), 0);
    newest_path(f, path);
    bop__manifest_close(f->manifest);
    f->manifest = NULL;
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, path, 8 * 20), 0);
    CHECK_EQ(bop__manifest_repair(&f->options, &lost, &f->err), BOP_ECORRUPT);
    CHECK(strstr(f->err.message, "object store") != NULL);
    CHECK(bop_fs_exists(f->fs, path));
}

/* ---- Failures and crashes ---- */

TEST(manifest, a_failed_sync_begins_a_new_chunk)
{
    reopen(f);
    REQUIRE_EQ(add(f, sealed(1, 1, 11)), 0);
    bop_fs_sim_fail_syncs(f->sim, 1);
    CHECK_EQ(add(f, sealed(2, 11, 21)), -EIO);
    CHECK_EQ(bop__manifest_count(f->manifest), 1);
    CHECK_EQ(bop__manifest_chunks(f->manifest), 1);
    REQUIRE_EQ(add(f, sealed(2, 11, 21)), 0);
    CHECK_EQ(bop__manifest_chunks(f->manifest), 2);
    bop_fs_sim_lose_power(f->sim);
    reopen(f);
    CHECK_EQ(bop__manifest_count(f->manifest), 2);
}

/* The life of a few segments; returns how many appends were acknowledged. */
static unsigned workload(struct fixture *f)
{
    struct bop__manifest_record done = about(BOP__MANIFEST_COMPRESSION_DONE, 2);
    struct bop__manifest_record steps[] = {
        sealed(1, 1, 11),  sealed(2, 11, 21), about(BOP__MANIFEST_COMPRESSION_STARTED, 2), done,
        sealed(3, 21, 31), evicted(2, 0)};
    unsigned acknowledged = 0;

    if (bop__manifest_open(&f->options, &f->manifest, &f->err) < 0) {
        return 0;
    }
    for (size_t i = 0; i < BOP_COUNT_OF(steps); i++) {
        if (add(f, steps[i]) < 0) {
            break;
        }
        acknowledged++;
    }
    return acknowledged;
}

/* What the catalogue must show after so many steps; one more may have happened. */
static bool shows(const struct bop__manifest *manifest, unsigned steps)
{
    const struct bop__manifest_entry *second = bop__manifest_find(manifest, 2);
    size_t segments = (steps >= 1) + (steps >= 2) + (steps >= 5);

    if (bop__manifest_count(manifest) != segments) {
        return false;
    }
    return !second || (second->packing == (steps == 3) && second->packed == (steps >= 4) &&
                       second->raw_evicted == (steps >= 6));
}

TEST(manifest, a_crash_at_any_call_loses_nothing_acknowledged)
{
    f->options.chunk_bytes = 500; /* Rotations too. */
    for (unsigned power = 0; power < 2; power++) {
        for (uint64_t seed = 1; seed <= 8; seed++) {
            unsigned acknowledged = 0;

            for (uint64_t at = 1; acknowledged < 6; at++) {
                bop_fs_sim_destroy(f->sim);
                REQUIRE_EQ(bop_fs_sim_create(&(struct bop_fs_sim_options){.seed = seed * 1000 + at},
                                             &f->sim),
                           0);
                f->options.fs = f->fs = bop_fs_sim_fs(f->sim);
                bop_fs_sim_stop_after(f->sim, at);
                acknowledged = workload(f);
                bop__manifest_close(f->manifest);
                f->manifest = NULL;
                if (power) {
                    bop_fs_sim_lose_power(f->sim);
                } else {
                    bop_fs_sim_kill_process(f->sim);
                }
                reopen(f);
                CHECK(shows(f->manifest, acknowledged) || shows(f->manifest, acknowledged + 1));
                /* And it goes on. */
                REQUIRE_EQ(add(f, sealed(100, 1000, 1001)), 0);
                reopen(f);
                CHECK(bop__manifest_find(f->manifest, 100) != NULL);
                bop__manifest_close(f->manifest);
                f->manifest = NULL;
            }
        }
    }
}

TEST(manifest, fails_cleanly_without_memory_or_disk)
{
    struct bop_fs_faulty faulty;

    FAULT_SWEEP(&f->faults) {
        struct bop_fs_sim *sim;
        unsigned acknowledged;

        REQUIRE_EQ(bop_fs_sim_create(&(struct bop_fs_sim_options){.seed = 3}, &sim), 0);
        bop_fs_faulty_init(&faulty, bop_fs_sim_fs(sim), &f->faults);
        f->options.fs = &faulty.fs;
        acknowledged = workload(f);
        CHECK((acknowledged == 6) == (f->faults.fired == 0));
        if (f->manifest) {
            CHECK(shows(f->manifest, acknowledged));
        }
        bop__manifest_close(f->manifest);
        f->manifest = NULL;
        CHECK_EQ(faulty.open_files, 0);
        CHECK_EQ(f->heap.live, 0);
        bop_fs_sim_destroy(sim);
    }
    f->options.fs = f->fs;
}

/* ---- The bytes themselves ---- */

TEST(manifest, writes_the_bytes_that_are_documented)
{
    struct bop__manifest_place place;
    struct bop_buf buf;

    bop_buf_init(&buf, NULL, 0);
    REQUIRE_EQ(bop__manifest_header_encode(7, f->options.log_id, 21, 0x01020304, &buf, &place), 0);
    REQUIRE_EQ(buf.size, BOP__MANIFEST_HEADER);
    CHECK(memcmp(buf.data, "BOPMLOG1\x01\0\0\0", 12) == 0);
    CHECK_EQ(bop_load_u64(buf.data + 16), 7);
    CHECK_EQ(bop_load_u64(buf.data + 24), 21);
    CHECK(memcmp(buf.data + 32, "the log's own id\x04\x03\x02\x01", 20) == 0);
    CHECK_EQ(bop_load_u32(buf.data + 12), place.salt);
    place.back = 2;
    REQUIRE_EQ(bop__manifest_record_encode(
                   &(struct bop__manifest_record){.kind = BOP__MANIFEST_TIER2_DELETE_QUEUED,
                                                  .generation = 5,
                                                  .time_ms = 6,
                                                  .key = "abc",
                                                  .due_ms = 8},
                   NULL, &place, &buf),
               0);
    REQUIRE_EQ(buf.size, BOP__MANIFEST_HEADER + 64);
    CHECK(memcmp(buf.data + 64,
                 "\x15\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x08\0\x02\0\x0d\0\0\0",
                 32) == 0);
    CHECK_EQ(bop_load_u32(buf.data + 64 + 36), 0x01020304);
    CHECK(memcmp(buf.data + 64 + 44, "\xa5\xb5\xb0\xa5\x03\0abc\x08\0\0\0\0\0\0\0\0\0\0", 20) == 0);
    CHECK_EQ(place.number, 22);
    bop_buf_deinit(&buf);
}
