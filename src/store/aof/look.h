/*
 * Going through a segment of which nothing is believed: each entry is checked, what is bad
 * is judged (the end, a torn tail, corruption: docs/design/aof.md), and the walk may go on behind
 * it. For tools: nothing is changed, and no log has to be open.
 */
#ifndef BOP_STORE_AOF_LOOK_H
#define BOP_STORE_AOF_LOOK_H

#include "format.h"
#include "source.h"

enum bop__look_verdict {
    BOP__LOOK_GOOD,
    BOP__LOOK_HEADER_BAD,   /* Its checksum does not match, or it is not all in the file. */
    BOP__LOOK_HEADER_WRONG, /* It was written, but not here or not then. */
    BOP__LOOK_BODY_BAD,     /* The header is right, the rest is not, or is not all in the file. */
};

/** Where a walk stands. */
struct bop__look {
    struct bop__segment_source *source; /* Its size is the file's. */
    uint64_t limit;                     /* Where records end at the latest. */
    uint32_t salt;
    bool aligned;
    uint64_t offset; /* Of the next entry, */
    uint64_t seq;
    uint32_t chain; /* and what it must carry, */
    bool chain_known;
    uint32_t link; /* Of the last record: the seed before the first. */
    bool link_known;
    uint64_t vouched; /* Records up to here were durable, as those seen say. */
};

/** Before the first record. The source is borrowed. */
struct bop__look bop__look_begin(struct bop__segment_source *source, uint32_t seed, uint64_t base,
                                 uint64_t generation, uint64_t limit, bool aligned);

/**
 * Check the entry at the walk's place. When it is good *out_bytes are all of it, until the next
 * call. Returns 0, or the source's code.
 */
int bop__look_entry(struct bop__look *look, struct bop__aof_record_header *out_header,
                    struct bop_slice *out_bytes, enum bop__look_verdict *out_verdict,
                    struct bop_error *err);

/** Step over an entry whose header is good. */
void bop__look_step(struct bop__look *look, const struct bop__aof_record_header *header);

/**
 * Judge the place, which was found bad: why it is corruption, or NULL if it is the end of the log
 * or a torn tail. *out_torn_end: behind the last byte that is not zero, 0 if all are. *out_vouched:
 * a later record says that it was on disk.
 */
int bop__look_judge(struct bop__look *look, const struct bop__aof_record_header *header,
                    enum bop__look_verdict verdict, const char **out_why, uint64_t *out_torn_end,
                    bool *out_vouched, struct bop_error *err);

/**
 * Go on at the next good header behind the place, which was found bad. False in *out_found: there
 * is none, and the place is as it was.
 */
int bop__look_resume(struct bop__look *look, const struct bop__aof_record_header *header,
                     enum bop__look_verdict verdict, bool *out_found, struct bop_error *err);

const char *bop__look_text(enum bop__look_verdict verdict);

#endif
