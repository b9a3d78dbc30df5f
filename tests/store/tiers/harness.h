/*
 * What the tests of the tiers share: a world of a simulated disk, an object store in
 * memory and a clock that is set by hand, and logs that only pretend: they put sealed
 * segments, which were made by hand, where a log would, and remember what is in them.
 */
#ifndef BOP_TESTS_STORE_TIERS_HARNESS_H
#define BOP_TESTS_STORE_TIERS_HARNESS_H

#include <stdio.h>

#include <bop/sim.h>

#include "../aof/segments.h"
#include "object_store_memory.h"
#include "store/tiers/internal.h"
#include "tap.h"

#define SEGMENTS_MAX 16
#define LOGS_MAX     2

/* A segment as its log knows it. */
struct made {
    struct bop_buf bytes; /* The sealed file. */
    struct bop__segment_facts facts;
    bool acked;  /* It was on disk when the disk was still there. */
    bool local;  /* In tier 0. */
    bool voided; /* Truncated. */
    char path[320];
};

struct fake_log {
    struct world *world;
    const char *name;
    char path[256];
    struct bop__archive *archive;
    struct made made[SEGMENTS_MAX];
    unsigned count;
    bool keep; /* Let go of nothing. */

    unsigned released, hydrated, room;
    uint64_t tier2, oldest;
};

struct test_clock {
    struct bop_clock clock;
    uint64_t now_us;
};

/* The object store as the process sees it: when the process dies, so does its way there. */
struct mortal_store {
    struct bop_object_store store;
    struct world *world;
    uint64_t calls;
    uint64_t die_at; /* This call, from 1; 0: none. */
    bool die_after;  /* It is done first. */
    bool dead;
};

struct world {
    struct bop_allocator *allocator;
    struct bop_fs_sim *sim;
    struct bop_fs *fs;
    uint64_t stop_at; /* Operations of the disk after which it is dead; 0: never. */
    struct object_memory *memory;
    struct mortal_store mortal;
    struct test_clock clock;
    struct bop_inline_executor executor;
    struct bop_executor *executors[3];
    struct bop_tiers_options options;
    struct bop_tiers *tiers;
    struct fake_log logs[LOGS_MAX];
};

/* ---- The clock ---- */

static uint64_t clock_monotonic_us(struct bop_clock *self)
{
    return BOP_CONTAINER_OF(self, struct test_clock, clock)->now_us;
}

static uint64_t clock_wall_ms(struct bop_clock *self)
{
    return 1700000000000 + clock_monotonic_us(self) / 1000;
}

/* ---- The store of a process that may die ---- */

static bool is_dead(struct world *w)
{
    return w->mortal.dead || (w->stop_at > 0 && bop_fs_sim_operations(w->sim) >= w->stop_at);
}

static void die(struct world *w)
{
    w->mortal.dead = true;
    bop_fs_sim_stop_after(w->sim, 1);
}

/* Before a call: its code if it is not to be done. */
static int mortal_begin(struct mortal_store *mortal)
{
    if (is_dead(mortal->world)) {
        return BOP_EIO;
    }
    mortal->calls++;
    if (mortal->calls == mortal->die_at && !mortal->die_after) {
        die(mortal->world);
        return BOP_EIO;
    }
    return 0;
}

static int mortal_end(struct mortal_store *mortal, int rc)
{
    if (mortal->calls == mortal->die_at && mortal->die_after) {
        die(mortal->world);
        return BOP_EIO;
    }
    return rc;
}

static struct mortal_store *mortal_of(struct bop_object_store *self)
{
    return BOP_CONTAINER_OF(self, struct mortal_store, store);
}

static struct bop_object_store *under(struct mortal_store *mortal)
{
    return object_memory_store(mortal->world->memory);
}

static int mortal_put(struct bop_object_store *self, struct bop_object_put *put,
                      struct bop_object_info *out_info, struct bop_error *err)
{
    struct mortal_store *mortal = mortal_of(self);
    int rc = mortal_begin(mortal);

    if (rc < 0) {
        return bop_error_set(err, rc, "put %s", put->key);
    }
    return mortal_end(mortal, under(mortal)->put(under(mortal), put, out_info, err));
}

static int mortal_get(struct bop_object_store *self, const char *key, uint64_t offset,
                      uint64_t size, struct bop_buf *out, struct bop_error *err)
{
    struct mortal_store *mortal = mortal_of(self);
    int rc = mortal_begin(mortal);

    if (rc < 0) {
        return bop_error_set(err, rc, "get %s", key);
    }
    return mortal_end(mortal, under(mortal)->get(under(mortal), key, offset, size, out, err));
}

static int mortal_head(struct bop_object_store *self, const char *key,
                       struct bop_object_info *out_info, struct bop_error *err)
{
    struct mortal_store *mortal = mortal_of(self);
    int rc = mortal_begin(mortal);

    if (rc < 0) {
        return bop_error_set(err, rc, "head %s", key);
    }
    return mortal_end(mortal, under(mortal)->head(under(mortal), key, out_info, err));
}

static int mortal_remove(struct bop_object_store *self, const char *key, struct bop_error *err)
{
    struct mortal_store *mortal = mortal_of(self);
    int rc = mortal_begin(mortal);

    if (rc < 0) {
        return bop_error_set(err, rc, "remove %s", key);
    }
    return mortal_end(mortal, under(mortal)->remove(under(mortal), key, err));
}

static int mortal_list(struct bop_object_store *self, const char *prefix,
                       int (*fn)(void *user, const char *key, const struct bop_object_info *info),
                       void *user, struct bop_error *err)
{
    struct mortal_store *mortal = mortal_of(self);
    int rc = mortal_begin(mortal);

    if (rc < 0) {
        return bop_error_set(err, rc, "list %s", prefix);
    }
    return mortal_end(mortal, under(mortal)->list(under(mortal), prefix, fn, user, err));
}

/* ---- What a log is asked and told ---- */

static struct made *made_of(struct fake_log *log, uint64_t generation)
{
    for (unsigned i = 0; i < log->count; i++) {
        if (log->made[i].facts.generation == generation) {
            return &log->made[i];
        }
    }
    return NULL;
}

static bool log_release(void *user, uint64_t generation)
{
    struct fake_log *log = user;
    struct made *made = made_of(log, generation);

    REQUIRE(made);
    if (log->keep) {
        return false;
    }
    CHECK(made->local);
    made->local = false;
    log->released++;
    BOP_IGNORE(log->world->fs->unlink(log->world->fs, made->path));
    return true;
}

static void log_tier2(void *user, uint64_t seq)
{
    struct fake_log *log = user;

    CHECK(seq > log->tier2);
    log->tier2 = seq;
}

static void log_hydrated(void *user)
{
    ((struct fake_log *)user)->hydrated++;
}

static void log_room(void *user)
{
    ((struct fake_log *)user)->room++;
}

static void log_again(void *user)
{
    BOP_IGNORE(user); /* It repeats by itself. */
}

static void log_oldest(void *user, uint64_t seq)
{
    struct fake_log *log = user;

    CHECK(seq > log->oldest);
    log->oldest = seq;
}

static const struct bop__archive_calls log_calls = {.release = log_release,
                                                    .tier2 = log_tier2,
                                                    .hydrated = log_hydrated,
                                                    .room = log_room,
                                                    .again = log_again,
                                                    .oldest = log_oldest};

/* ---- The world ---- */

BOP_UNUSED static void world_init(struct world *w, struct bop_allocator *allocator, uint64_t seed)
{
    struct bop_fs_sim_options sim_options = {.seed = seed};

    *w = (struct world){.allocator = allocator};
    REQUIRE_EQ(bop_fs_sim_create(&sim_options, &w->sim), 0);
    w->fs = bop_fs_sim_fs(w->sim);
    w->memory = object_memory_create(NULL);
    REQUIRE(w->memory);
    w->mortal = (struct mortal_store){.store = {.put = mortal_put,
                                                .get = mortal_get,
                                                .head = mortal_head,
                                                .remove = mortal_remove,
                                                .list = mortal_list},
                                      .world = w};
    w->clock = (struct test_clock){
        .clock = {.monotonic_us = clock_monotonic_us, .wall_ms = clock_wall_ms}, .now_us = 1000000};
    bop_inline_init(&w->executor);
    for (unsigned i = 0; i < BOP_COUNT_OF(w->executors); i++) {
        w->executors[i] = &w->executor.executor;
    }
    w->options = (struct bop_tiers_options){.allocator = allocator,
                                            .fs = w->fs,
                                            .clock = &w->clock.clock,
                                            .seed = seed,
                                            .executors = w->executors,
                                            .executor_count = BOP_COUNT_OF(w->executors),
                                            .objects = &w->mortal.store,
                                            .frame_bytes = 1024,
                                            .delete_grace_ms = 5000};
    for (unsigned i = 0; i < LOGS_MAX; i++) {
        w->logs[i].world = w;
        w->logs[i].name = i == 0 ? "orders" : "events";
        snprintf(w->logs[i].path, sizeof(w->logs[i].path), "/data/%s", w->logs[i].name);
    }
}

BOP_UNUSED static int world_open(struct world *w)
{
    return bop_tiers_create(&w->options, &w->tiers, NULL);
}

static bool read_local(struct fake_log *log, const struct made *made)
{
    struct bop_buf buf;
    bool same;

    bop_buf_init(&buf, NULL, 0);
    same = bop_fs_read_file(log->world->fs, made->path, SIZE_MAX, &buf) == 0 &&
           bop_slice_equal(bop_buf_slice(&buf), bop_buf_slice(&made->bytes));
    bop_buf_deinit(&buf);
    return same;
}

BOP_UNUSED static int log_open(struct fake_log *log)
{
    struct bop__archive_options options = {
        .path = log->path, .name = log->name, .calls = &log_calls, .log = log};
    int rc;

    rc = bop_fs_mkdirs(log->world->fs, log->path);
    if (rc < 0) {
        return rc;
    }
    memset(options.log_id, log == &log->world->logs[0] ? 0x1d : 0x2e, sizeof(options.log_id));
    log->tier2 = log->oldest = 0;
    rc = bop__archive_open(log->world->tiers, &options, &log->archive, NULL);
    for (unsigned i = 0; rc == 0 && i < log->count; i++) {
        struct made *made = &log->made[i];

        made->local = !made->voided && bop_fs_exists(log->world->fs, made->path);
        if (!made->acked && !made->voided) {
            /* It was being sealed when the disk went. */
            made->acked = made->local = made->local && read_local(log, made);
            made->voided = !made->local;
        }
        if (made->local) {
            rc = bop__archive_sealed(log->archive, &made->facts, made->path);
        }
    }
    if (rc < 0) {
        bop__archive_close(log->archive);
        log->archive = NULL;
    }
    return rc;
}

/* Run what is queued, and what follows from it, until only time brings more. */
BOP_UNUSED static uint64_t settle(struct world *w)
{
    uint64_t next_ms = 0;

    for (unsigned i = 0; i < 10000; i++) {
        next_ms = bop_tiers_poll(w->tiers);
        if (bop_inline_poll(&w->executor) == 0 && !bop_tiers_busy(w->tiers)) {
            return next_ms;
        }
    }
    CHECK(!"it never rests");
    return next_ms;
}

/* Let time pass, doing what is due on the way. */
BOP_UNUSED static void pass(struct world *w, uint64_t ms)
{
    uint64_t until_us = w->clock.now_us + ms * 1000;

    while (w->clock.now_us < until_us) {
        uint64_t next_ms = settle(w);
        uint64_t left_ms = (until_us - w->clock.now_us + 999) / 1000;

        w->clock.now_us += bop_max_u64(1, bop_min_u64(next_ms, left_ms)) * 1000;
    }
    settle(w);
}

BOP_UNUSED static void world_close(struct world *w)
{
    if (!w->tiers) {
        return;
    }
    settle(w);
    for (unsigned i = 0; i < LOGS_MAX; i++) {
        bop__archive_close(w->logs[i].archive);
        w->logs[i].archive = NULL;
    }
    bop_inline_poll(&w->executor);
    bop_tiers_destroy(w->tiers);
    w->tiers = NULL;
}

BOP_UNUSED static void world_deinit(struct world *w)
{
    world_close(w);
    for (unsigned l = 0; l < LOGS_MAX; l++) {
        for (unsigned i = 0; i < w->logs[l].count; i++) {
            bop_buf_deinit(&w->logs[l].made[i].bytes);
        }
    }
    object_memory_destroy(w->memory);
    bop_fs_sim_destroy(w->sim);
}

/* ---- Segments ---- */

struct bytes_source {
    struct bop__segment_source source;
    struct bop_slice bytes;
};

static int bytes_at(struct bop__segment_source *self, uint64_t offset, size_t least,
                    struct bop_slice *out_bytes, struct bop_error *err)
{
    struct bytes_source *source = BOP_CONTAINER_OF(self, struct bytes_source, source);

    BOP_IGNORE(least);
    BOP_IGNORE(err);
    *out_bytes = bop_slice(source->bytes.data + offset, source->bytes.size - (size_t)offset);
    return 0;
}

/* Make the next segment of a log in memory, sealed. */
static struct made *make_segment(struct fake_log *log, unsigned records, size_t length)
{
    struct made *made = &log->made[log->count];
    struct made *last = NULL; /* Of those that count. */
    struct bop__footer footer;
    struct bytes_source source;
    struct maker maker;
    char name[BOP__AOF_NAME_SIZE];

    REQUIRE(log->count < SEGMENTS_MAX);
    for (unsigned i = 0; i < log->count; i++) {
        last = log->made[i].voided ? last : &log->made[i];
    }
    maker_init(&maker, last ? last->facts.end_seq : 1, log->count + 1, last ? last->facts.link : 0);
    for (unsigned i = 0; i < records; i++) {
        maker_record(&maker, length + i % 50);
    }
    source = (struct bytes_source){
        .source = {.name = "made", .size = maker.file.size, .at = bytes_at},
        .bytes = bop_buf_slice(&maker.file)};
    memset(&footer, 0, sizeof(footer));
    footer.facts = maker.facts;
    REQUIRE_EQ(bop__footer_build(bop_allocator_default(), &source.source, &footer, NULL), 0);
    REQUIRE_EQ(bop__footer_encode(&footer, &maker.file), 0);
    *made = (struct made){.bytes = maker.file, .facts = footer.facts};
    bop__footer_deinit(&footer);
    bop__aof_segment_name(made->facts.base, made->facts.generation, name);
    snprintf(made->path, sizeof(made->path), "%s/%s", log->path, name);
    log->count++;
    return made;
}

static int put_file(struct bop_fs *fs, const char *directory, const char *path,
                    struct bop_slice bytes)
{
    int fd = fs->open(fs, path, O_RDWR | O_CREAT | O_TRUNC);
    int rc;

    if (fd < 0) {
        return fd;
    }
    rc = bop_fs_write_all(fs, fd, bytes.data, bytes.size, 0);
    if (rc == 0) {
        rc = fs->sync(fs, fd);
    }
    fs->close(fs, fd);
    return rc < 0 ? rc : fs->sync_dir(fs, directory);
}

/* The log fills a segment and seals it. False: the disk failed. */
BOP_UNUSED static bool log_seal_of(struct fake_log *log, unsigned records, size_t length)
{
    struct made *made = make_segment(log, records, length);

    if (put_file(log->world->fs, log->path, made->path, bop_buf_slice(&made->bytes)) < 0) {
        return false;
    }
    made->acked = made->local = true;
    return bop__archive_sealed(log->archive, &made->facts, made->path) == 0;
}

BOP_UNUSED static bool log_seal(struct fake_log *log)
{
    return log_seal_of(log, 60, 100);
}

/* The log drops what is above, from the end; the files go in its own way. */
BOP_UNUSED static int log_truncate(struct fake_log *log, uint64_t last_kept)
{
    int rc = bop__archive_truncate_back(log->archive, last_kept, NULL);

    for (unsigned i = 0; rc == 0 && i < log->count; i++) {
        struct made *made = &log->made[i];

        if (made->facts.end_seq - 1 > last_kept) {
            made->voided = true;
            made->local = false;
            BOP_IGNORE(log->world->fs->unlink(log->world->fs, made->path));
        }
    }
    if (rc == 0) {
        log->tier2 = bop_min_u64(log->tier2, last_kept);
    }
    return rc;
}

/* ---- What can be read ---- */

/* Read a segment through its archive and compare. Returns 0, BOP_ECORRUPT if it is another, or
 * what the source said. */
BOP_UNUSED static int read_archived(struct fake_log *log, const struct made *made, bool blocking,
                                    enum bop_aof_tier *out_tier)
{
    struct bop__segment_source *source;
    struct bop_slice got;
    uint64_t at = 0;
    int rc;

    rc = bop__archive_source(log->archive, made->facts.generation, blocking, &source, NULL);
    if (rc < 0) {
        return rc;
    }
    CHECK_EQ(source->size, made->bytes.size);
    while (rc == 0 && at < source->size) {
        rc = source->at(source, at, 1, &got, NULL);
        if (rc == 0 && (got.size == 0 || got.size > made->bytes.size - at ||
                        memcmp(got.data, made->bytes.data + at, got.size) != 0)) {
            rc = BOP_ECORRUPT;
        }
        at += rc == 0 ? got.size : 0;
    }
    if (out_tier) {
        *out_tier = source->tier;
    }
    source->close(source);
    return rc;
}

/* Whether all of it can be read, from anywhere. */
BOP_UNUSED static bool is_readable(struct fake_log *log, const struct made *made)
{
    return (made->local && read_local(log, made)) || read_archived(log, made, true, NULL) == 0;
}

/* What the tiers say of one segment; zeros if nothing. */
struct asked {
    uint64_t generation;
    struct bop_tiers_segment segment;
};

static int ask_segment(void *user, const struct bop_tiers_segment *segment)
{
    struct asked *asked = user;

    if (segment->generation == asked->generation) {
        asked->segment = *segment;
    }
    return 0;
}

BOP_UNUSED static struct bop_tiers_segment segment_of(struct fake_log *log, unsigned index)
{
    struct asked asked = {.generation = log->made[index].facts.generation};

    CHECK_EQ(bop_tiers_segments(log->world->tiers, (struct bop_aof *)log, ask_segment, &asked), 0);
    return asked.segment;
}

BOP_UNUSED static struct bop_tiers_status status_of(struct world *w)
{
    struct bop_tiers_status status;

    bop_tiers_status(w->tiers, &status);
    return status;
}

BOP_UNUSED static void warm_path(struct fake_log *log, unsigned index, char out_path[400])
{
    const struct bop__segment_facts *facts = &log->made[index].facts;

    snprintf(out_path, 400, "%s/warm/segment-%020" PRIu64 "-%020" PRIu64 ".zst", log->path,
             facts->generation, facts->base);
}

BOP_UNUSED static void key_of(struct fake_log *log, unsigned index, char out_key[256])
{
    const struct bop__segment_facts *facts = &log->made[index].facts;
    int size = snprintf(out_key, 256, "aof/%s/segment-%020" PRIu64 "-%020" PRIu64 "-", log->name,
                        facts->generation, facts->base);

    for (unsigned i = 0; i < 8; i++) {
        size += snprintf(out_key + size, 256 - (size_t)size, "%02x", facts->root[i]);
    }
    snprintf(out_key + size, 256 - (size_t)size, ".zst");
}

BOP_UNUSED static bool has_object(struct fake_log *log, unsigned index)
{
    char key[256];

    key_of(log, index, key);
    return object_memory_find(log->world->memory, key).data != NULL;
}

#endif
