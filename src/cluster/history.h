/*
 * The events of past entries, in memory and within a bound of bytes: from here a
 * watch begins at a past revision, and one whose connection fell behind goes on.
 *
 * Entries lie one after another in chunks; the oldest chunk goes when there would be
 * too many bytes. What is told is complete after history.after: every entry above
 * that changed something is here.
 *
 * Threads: one.
 */
#ifndef BOP_CLUSTER_HISTORY_H
#define BOP_CLUSTER_HISTORY_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/slice.h>

#define HISTORY_CHUNK        (64u * 1024)
#define HISTORY_BYTES_MAX    (16u * 1024 * 1024) /* Default. */
#define HISTORY_CHUNKS_LEAST 2

struct history_chunk;

struct history {
    struct bop_allocator *allocator;
    struct history_chunk **chunks; /* A ring of `capacity`, by number. NULL until the first add. */
    size_t capacity;
    uint64_t first; /* Numbers of the chunks there are: first to next - 1. */
    uint64_t next;
    size_t bytes_max;
    size_t bytes;   /* Of the chunks. */
    uint64_t after; /* Complete after this revision. */
    uint64_t last;  /* The newest entry's, or after. */
};

/** A place between two entries; good until the next add or reset. */
struct history_cursor {
    uint64_t chunk;
    size_t at;
};

/** bytes_max 0: the default. Allocates nothing. */
void bop__history_init(struct history *history, struct bop_allocator *allocator, size_t bytes_max,
                       uint64_t after);
void bop__history_deinit(struct history *history);

/** Keep the events of an entry, of a higher revision than all before. One that finds no
 * room or memory is not kept, nor any before it. */
void bop__history_add(struct history *history, uint64_t revision, struct bop_slice events);

/** Forget everything: complete after this revision, and empty. */
void bop__history_reset(struct history *history, uint64_t after);

/** Stand behind the entry `after`. False: there were entries behind it which are gone. */
BOP_MUST_USE bool bop__history_seek(const struct history *history, uint64_t after,
                                    struct history_cursor *out_cursor);
/** The entry behind the cursor, which moves past it. False at the end. */
BOP_MUST_USE bool bop__history_next(const struct history *history, struct history_cursor *cursor,
                                    uint64_t *out_revision, struct bop_slice *out_events);

#endif
