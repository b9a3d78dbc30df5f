/*
 * The footer of a sealed segment: what it holds, an index, and the Merkle tree's
 * leaves. It lies behind the last record; docs/design/aof.md describes it.
 */
#ifndef BOP_STORE_AOF_FOOTER_H
#define BOP_STORE_AOF_FOOTER_H

#include <stddef.h>

#include <bop/aof.h>

#include "source.h"

/* A leaf, and an index entry, begins with the first record that lies this far behind the leaf
 * before, or farther. */
#define BOP__FOOTER_LEAF_BYTES (64u * 1024)

/** What is known of a sealed segment without reading it. As it lies here it is in footers, in
 * packed segments and in the manifest: a disk format. */
struct bop__segment_facts {
    uint8_t log_id[BOP_AOF_ID_SIZE];
    uint64_t base;
    uint64_t end_seq; /* One above its last record; above base. */
    uint64_t generation;
    uint64_t epoch;
    uint32_t seed; /* The link of record base - 1, as the segment's header has it. */
    uint32_t link; /* Of its last record. */
    uint64_t end;  /* Where its records end. */
    uint64_t size; /* Of the sealed file: footer included. */
    uint64_t first_time_us, last_time_us;
    uint64_t first_tag, last_tag;
    uint8_t root[BOP_AOF_DIGEST_SIZE];
};

_Static_assert(sizeof(struct bop__segment_facts) == 136, "a disk format");
_Static_assert(offsetof(struct bop__segment_facts, base) == 16, "a disk format");
_Static_assert(offsetof(struct bop__segment_facts, seed) == 48, "a disk format");
_Static_assert(offsetof(struct bop__segment_facts, end) == 56, "a disk format");
_Static_assert(offsetof(struct bop__segment_facts, first_time_us) == 72, "a disk format");
_Static_assert(offsetof(struct bop__segment_facts, first_tag) == 88, "a disk format");
_Static_assert(offsetof(struct bop__segment_facts, root) == 104, "a disk format");

/** One leaf: the records from seq on, to the next leaf's, and what lies between. */
struct bop__footer_leaf {
    uint64_t seq;
    uint64_t offset;
    uint64_t time_us; /* Of its first record. */
    uint64_t tag;
    uint32_t stride; /* What each of its records takes, if that is all it has; else 0. */
    uint8_t hash[BOP_AOF_DIGEST_SIZE];
};

struct bop__footer {
    struct bop_allocator *allocator;
    struct bop__segment_facts facts;
    struct bop__footer_leaf *leaves;
    size_t leaf_count;
};

/**
 * Read a segment's records from source, checking each, and make its footer. facts->base,
 * generation, seed, log_id, epoch, end_seq and end are given in out_footer->facts; the rest is
 * found. 0, BOP_ECORRUPT or another code.
 */
int bop__footer_build(struct bop_allocator *allocator, struct bop__segment_source *source,
                      struct bop__footer *out_footer, struct bop_error *err);

/**
 * The same in steps. The source, borrowed, is read from its beginning on. step takes in about so
 * many bytes: 1 if there are more, 0 at the end, when finish gives the footer; or a code. end
 * always.
 */
struct bop__footer_reading;
int bop__footer_read_begin(struct bop_allocator *allocator, struct bop__segment_source *source,
                           const struct bop__segment_facts *facts,
                           struct bop__footer_reading **out_reading, struct bop_error *err);
int bop__footer_read_step(struct bop__footer_reading *reading, uint64_t bytes,
                          struct bop_error *err);
int bop__footer_read_finish(struct bop__footer_reading *reading, struct bop__footer *out_footer,
                            struct bop_error *err);
void bop__footer_read_end(struct bop__footer_reading *reading);

/**
 * A footer in the making, from the commits of a segment as they are written: what is then sealed
 * need not be read. Counted references; the count is the owner's, all else of one thread at a time.
 */
struct bop__footer_draft;

/** For a segment without records. facts: as for bop__footer_build, without the end. NULL: no
 * memory. */
struct bop__footer_draft *bop__footer_draft_new(struct bop_allocator *allocator,
                                                const struct bop__segment_facts *facts);
struct bop__footer_draft *bop__footer_draft_ref(struct bop__footer_draft *draft);
/** Somebody else has it too. */
bool bop__footer_draft_is_shared(const struct bop__footer_draft *draft);
/** NULL is fine. */
void bop__footer_draft_unref(struct bop__footer_draft *draft);
/** The next bytes of the segment: whole records and fillers, that come behind those before. A
 * failure is told by finish. */
void bop__footer_draft_add(struct bop__footer_draft *draft, uint64_t offset, const uint8_t *bytes,
                           size_t size);
/** Once. facts.end and end_seq are given in out_footer->facts. 0; BOP_EMISMATCH: the segment ends
 * elsewhere; or what failed before. Then the file has to be read. */
int bop__footer_draft_finish(struct bop__footer_draft *draft, struct bop__footer *out_footer);

/* The footer in the file: leaves of this size, and the trailer, which is the file's end. */
#define BOP__FOOTER_LEAF    72u
#define BOP__FOOTER_TRAILER 256u

/**
 * Read the last BOP__FOOTER_TRAILER bytes of a file of this size. path is for the message.
 * BOP_ENOTFOUND: they are no trailer, so the file was not sealed; BOP_ECORRUPT; BOP_EVERSION.
 */
int bop__footer_decode_trailer(const uint8_t bytes[BOP__FOOTER_TRAILER], uint64_t file_size,
                               const char *path, struct bop__segment_facts *out_facts,
                               struct bop_error *err);

/** Append the footer's bytes, as they follow the byte facts.end of the file; facts.size is set. */
int bop__footer_encode(struct bop__footer *footer, struct bop_buf *out_bytes);

/**
 * Read the footer at the end of a source of known size. BOP_ENOTFOUND if there is none (the
 * segment was not sealed); BOP_ECORRUPT; BOP_EVERSION. With facts_only no leaves are read.
 */
int bop__footer_read(struct bop_allocator *allocator, struct bop__segment_source *source,
                     bool facts_only, struct bop__footer *out_footer, struct bop_error *err);

void bop__footer_deinit(struct bop__footer *footer);

/** The leaf that holds seq, which the segment does. */
const struct bop__footer_leaf *bop__footer_find(const struct bop__footer *footer, uint64_t seq);

/* Beside a segment that is sealed as a copy, for a while. */
#define BOP__FOOTER_COPY_NAME "seal.tmp"

/**
 * Seal a file: append the footer behind facts.end, cut the file there, sync it. Idempotent. If
 * records were dropped from the segment a copy without them takes the file's name, as readers may
 * be at them: who has the file open goes on with the old one. One at a time in a directory.
 */
int bop__footer_seal(struct bop_fs *fs, const char *path, struct bop__footer *footer,
                     struct bop_error *err);

#endif
