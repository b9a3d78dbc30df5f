/*
 * What recovery.c, which finds the segments and heals the newest, and scan.c, which
 * reads and judges their content, share.
 */
#ifndef BOP_STORE_AOF_RECOVERY_H
#define BOP_STORE_AOF_RECOVERY_H

#include "internal.h"

/* What is read at once. */
#define BOP__RECOVERY_BYTES (256u * 1024)

struct bop__found {
    uint64_t base;
    uint64_t generation;
    struct bop__aof_segment_header header;
    bool sealed; /* With a footer that can be trusted: */
    struct bop__segment_facts facts;
};

struct bop__recovery {
    struct bop_aof *aof;
    struct bop_error *err;
    struct bop__found *found; /* By generation; the void ones at the end, after `count`. */
    size_t count;
    size_t first; /* Those before were let go of, and came back. */
    size_t total;
    size_t capacity;

    /* The file being read. */
    int fd;
    char path[BOP__AOF_PATH_MAX];
    uint64_t file_size;
    uint8_t *buffer; /* BOP__RECOVERY_BYTES. */
    uint64_t buffer_offset;
    size_t buffer_size;

    /* The end of the newest segment. */
    uint64_t vouched;  /* Records up to here were durable. */
    uint64_t log_end;  /* Where the last record ends. */
    uint64_t torn_end; /* Where the zeros begin, if something is before them; else 0. */
};

/** Open a segment's file for the functions below. Another one is closed. */
int bop__recovery_open(struct bop__recovery *r, uint64_t base, uint64_t generation, int flags);
void bop__recovery_close(struct bop__recovery *r);

/** Point at size bytes (at most BOP__RECOVERY_BYTES) at offset, all within the file. */
int bop__recovery_fetch(struct bop__recovery *r, uint64_t offset, size_t size,
                        const uint8_t **out_bytes);

/**
 * Read the records of the open segment up to limit, or, the newest's, to their end, and
 * judge what ends them. Sets where the segment ends, and r's vouched, log_end and torn_end.
 */
int bop__recovery_scan(struct bop__recovery *r, struct bop__segment *segment, uint64_t limit,
                       bool newest);

#endif
