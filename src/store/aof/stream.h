/*
 * A reader's inside: what it keeps open, and where it stands.
 */
#ifndef BOP_STORE_AOF_STREAM_H
#define BOP_STORE_AOF_STREAM_H

#include "lookup.h"
#include "walk.h"

/* Segments that a reader keeps open, so that reading here and there does not open files all the
 * time. A log's tail and a hot 4 GiB of 64 MiB segments fit. */
#define BOP__READER_SEGMENTS 64u
/* Of a segment without a footer a place is remembered each so many bytes that were walked over. */
#define BOP__READER_MARK_BYTES (64u * 1024)

/** Where a record lies. */
struct bop__mark {
    uint64_t seq;
    uint64_t offset;
};

/** A segment that is kept open. */
struct bop__reader_segment {
    uint64_t generation; /* 0: free. */
    uint64_t base;
    bool local;
    bool sealed; /* The source has a footer. */
    uint64_t last_used;
    struct bop__segment_source *source; /* NULL: to be opened when it is read. */
    struct bop__footer footer;
    bool footer_tried; /* It was read, and has leaves, or that is not worth another try. */
    struct bop__mark *marks;
    size_t mark_count;
    size_t mark_capacity;
};

struct bop_aof_reader {
    struct bop__lookup lookup;
    struct bop_allocator *allocator;

    uint64_t next; /* The record that is read next. */
    bool voided;   /* It, or what was read before it, is no longer what it was. */

    /* The segment that is read, NULL if it is still to be found, as it was looked up. */
    struct bop__reader_segment *segment;
    struct bop__walk walk;
    uint64_t base;
    uint64_t end_seq;
    uint64_t end;
    uint64_t truncations;
    size_t hint; /* How many bytes the next read is worth. */

    /* The record next - 1 was read in the segment of this generation, and this is its link. */
    bool follows;
    uint64_t generation;
    uint32_t link;

    uint64_t clock; /* For last_used. */
    struct bop__reader_segment segments[BOP__READER_SEGMENTS];

    /* What bop_aof_reader_wait has told. */
    bool hydrating; /* The last read wants bytes that are being fetched. */
    uint64_t hydrations;
    uint64_t told_sealed;
    uint64_t told_truncations;
};

/** A reader over what lookup says, before the oldest record. 0 or BOP_ENOMEM. */
int bop__reader_open(const struct bop__lookup *lookup, struct bop_allocator *allocator,
                     struct bop_aof_reader **out_reader);

/** Make this segment the current one, and have it open. Codes as bop__place_open. */
int bop__reader_enter(struct bop_aof_reader *r, const struct bop__place *place,
                      struct bop_error *err);
/** Close files that the log has let go of: they take room on the disk while they are open. */
void bop__reader_purge(struct bop_aof_reader *r);

/** The next record read will be seq, whatever was read before. */
void bop__reader_jump(struct bop_aof_reader *r, uint64_t seq);

/* stream_seek.c */

/** Bring the walk to the record seq of the current segment, by footers and what else is known. */
int bop__reader_walk_to(struct bop_aof_reader *r, uint64_t seq, struct bop_error *err);

#endif
