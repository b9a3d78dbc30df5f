/*
 * A log of a few segment files as readers see it, made by hand: each step of its owner is a call.
 * Single-threaded but for what the catalogue allows.
 */
#ifndef BOP_TESTS_STORE_AOF_SMALL_LOG_H
#define BOP_TESTS_STORE_AOF_SMALL_LOG_H

#include <unistd.h>

#include "segments.h"
#include "store/aof/stream.h"

#define SMALL_SEGMENTS 64

struct small_segment {
    struct maker maker;
    struct bop__segment_file *file;
    int fd;
    uint64_t written; /* Of maker.file. */
    bool sealed;
};

struct small_log {
    const char *dir;
    struct bop_fs *fs;
    struct bop__aof_catalogue catalogue;
    struct small_segment segments[SMALL_SEGMENTS]; /* All there ever were. */
    size_t count;
    uint64_t generation;
    size_t zeros; /* Written ahead of records. */
    struct bop__watermark os, durable;
};

static inline struct small_segment *small_newest(struct small_log *log)
{
    return &log->segments[log->count - 1];
}

/* The number that the next record gets. */
static inline uint64_t small_next(struct small_log *log)
{
    return small_newest(log)->maker.facts.end_seq;
}

/* Begin a segment; what is above its base is void. */
BOP_UNUSED static void small_begin(struct small_log *log, uint64_t base, uint32_t seed)
{
    struct small_segment *segment = &log->segments[log->count];
    struct bop__aof_segment_header header;

    REQUIRE(log->count < SMALL_SEGMENTS);
    log->count++;
    log->generation++;
    *segment = (struct small_segment){0};
    maker_init(&segment->maker, base, log->generation, seed);
    segment->file = bop__segment_file_new(log->catalogue.allocator, log->dir);
    REQUIRE(segment->file);
    memcpy(&header, segment->maker.file.data, sizeof(header));
    bop__segment_file_init(segment->file, &header, log->dir);
    segment->fd = log->fs->open(log->fs, segment->file->path, O_RDWR | O_CREAT | O_EXCL);
    REQUIRE(segment->fd >= 0);
    REQUIRE_EQ(bop__aof_catalogue_reserve(&log->catalogue, 1), 0);
    bop__aof_catalogue_add(&log->catalogue, segment->file);
}

BOP_UNUSED static void small_init(struct small_log *log, struct bop_allocator *allocator,
                                  struct bop_fs *fs, uint64_t first)
{
    *log = (struct small_log){.dir = test_tmpdir(), .fs = fs, .zeros = 10000};
    REQUIRE_EQ(bop__aof_catalogue_init(&log->catalogue, allocator), 0);
    log->os.seq = log->durable.seq = first - 1;
    bop__aof_catalogue_oldest(&log->catalogue, first);
    bop__aof_catalogue_publish(&log->catalogue, log->os, log->durable);
    small_begin(log, first, 0);
}

BOP_UNUSED static void small_deinit(struct small_log *log)
{
    for (size_t i = 0; i < log->count; i++) {
        maker_deinit(&log->segments[i].maker);
        bop__segment_file_unref(log->segments[i].file);
        BOP_IGNORE(log->fs->close(log->fs, log->segments[i].fd));
    }
    bop__aof_catalogue_deinit(&log->catalogue);
}

/* Append a record, not visible yet. */
BOP_UNUSED static void small_append(struct small_log *log, size_t length)
{
    maker_record(&small_newest(log)->maker, length);
}

/* Write what was appended to the newest segment's file, with zeros ahead. */
BOP_UNUSED static void small_write(struct small_log *log)
{
    struct small_segment *segment = small_newest(log);
    struct bop_buf *bytes = &segment->maker.file;
    uint64_t size = 0;

    REQUIRE_EQ(bop_fs_write_all(log->fs, segment->fd, bytes->data + segment->written,
                                bytes->size - segment->written, segment->written),
               0);
    segment->written = bytes->size;
    REQUIRE_EQ(log->fs->size(log->fs, segment->fd, &size), 0);
    if (size < bytes->size + log->zeros / 2) {
        REQUIRE_EQ(log->fs->truncate(log->fs, segment->fd, bytes->size + log->zeros), 0);
    }
}

/* All that was appended is visible, with disk at both levels. */
BOP_UNUSED static void small_publish(struct small_log *log, bool disk)
{
    struct bop__segment_facts *facts = &small_newest(log)->maker.facts;

    small_write(log);
    log->os = (struct bop__watermark){.seq = facts->end_seq - 1,
                                      .end = facts->end_seq > facts->base ? facts->end : 0};
    log->durable = disk ? log->os : log->durable;
    bop__aof_catalogue_publish(&log->catalogue, log->os, log->durable);
}

/* The link of the last record. */
static inline uint32_t small_link(struct small_log *log)
{
    struct small_segment *segment = small_newest(log);

    return segment->maker.facts.end_seq > segment->maker.facts.base ? segment->maker.facts.link
                                                                    : segment->maker.facts.seed;
}

/* The next segment, behind all that was published. */
BOP_UNUSED static void small_roll(struct small_log *log)
{
    struct small_segment *before = small_newest(log);

    bop__aof_catalogue_end(&log->catalogue, before->file, before->maker.facts.end_seq,
                           before->maker.facts.end);
    small_begin(log, small_next(log), small_link(log));
    small_write(log);
}

/* Give a segment that is not the newest its footer. */
BOP_UNUSED static void small_seal(struct small_log *log, size_t n)
{
    struct small_segment *segment = &log->segments[n];
    struct bop__segment_source *source = NULL;
    struct bop__footer footer = {.facts = segment->maker.facts};

    REQUIRE_EQ(bop__file_source_open(bop_allocator_default(), log->fs, segment->file->path, false,
                                     true, &source, NULL),
               0);
    source->size = footer.facts.end;
    REQUIRE_EQ(bop__footer_build(bop_allocator_default(), source, &footer, NULL), 0);
    source->close(source);
    REQUIRE_EQ(bop__footer_seal(log->fs, segment->file->path, &footer, NULL), 0);
    bop__aof_catalogue_sealed(&log->catalogue, segment->file, &footer.facts, true);
    segment->maker.facts = footer.facts;
    segment->sealed = true;
    bop__footer_deinit(&footer);
}

/* The log lets go of a segment's file. */
BOP_UNUSED static void small_drop(struct small_log *log, size_t n)
{
    bop__aof_catalogue_drop(&log->catalogue, log->segments[n].file);
    REQUIRE_EQ(log->fs->unlink(log->fs, log->segments[n].file->path), 0);
}

/* Where record seq ends, and its link, in the newest segment that holds it. */
BOP_UNUSED static void small_where(struct small_log *log, uint64_t seq, size_t *out_segment,
                                   uint64_t *out_end, uint32_t *out_link)
{
    for (size_t n = log->count; n-- > 0;) {
        const struct maker *m = &log->segments[n].maker;
        uint64_t offset = BOP__AOF_SEGMENT_HEADER;

        if (m->facts.base > seq || m->facts.end_seq <= seq) {
            continue;
        }
        while (true) {
            struct bop__aof_record_header header;

            memcpy(&header, m->file.data + offset, sizeof(header));
            offset += bop__aof_record_size(bop__aof_record_length(&header));
            if (header.seq == seq && !bop__aof_is_filler(&header)) {
                *out_segment = n;
                *out_end = offset;
                *out_link = bop__aof_link(&header);
                return;
            }
        }
    }
    REQUIRE(false);
}

/* Drop what lies above last_kept, which is in a segment, and begin another. */
BOP_UNUSED static void small_truncate(struct small_log *log, uint64_t last_kept)
{
    uint64_t end = 0;
    uint32_t link = 0;
    size_t n = 0;

    small_where(log, last_kept, &n, &end, &link);
    bop__aof_catalogue_truncate(&log->catalogue, last_kept, end);
    log->segments[n].maker.facts.end_seq = last_kept + 1;
    log->segments[n].maker.facts.end = end;
    log->segments[n].maker.facts.link = link;
    for (size_t i = n + 1; i < log->count; i++) {
        log->segments[i].maker.facts.end_seq = log->segments[i].maker.facts.base;
    }
    if (log->os.seq > last_kept) {
        log->os = (struct bop__watermark){last_kept, end};
    }
    if (log->durable.seq > last_kept) {
        log->durable = (struct bop__watermark){last_kept, end};
    }
    small_begin(log, last_kept + 1, link);
    small_write(log);
}

BOP_UNUSED static struct bop__lookup small_lookup(struct small_log *log, bool pread)
{
    return (struct bop__lookup){.allocator = log->catalogue.allocator,
                                .fs = log->fs,
                                .catalogue = &log->catalogue,
                                .level = BOP_AOF_DISK,
                                .pread = pread};
}

#endif
