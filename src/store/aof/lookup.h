/*
 * Where a record lies now: in a local segment file, or in the archive. Any thread.
 */
#ifndef BOP_STORE_AOF_LOOKUP_H
#define BOP_STORE_AOF_LOOKUP_H

#include "archive.h"
#include "catalogue.h"

/* A segment that goes elsewhere between looking it up and opening it is looked up again so often.
 */
#define BOP__LOOKUP_TRIES 8

/** What is looked in. All borrowed. */
struct bop__lookup {
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    struct bop__aof_catalogue *catalogue;
    struct bop__archive *archive; /* NULL: nothing leaves the local files. */
    enum bop_aof_level level;     /* Records below it are not seen. */
    bool pread;                   /* Files are not mapped. */
    bool blocking;                /* Bytes of a lower tier are waited for. */
};

struct bop_aof;

/** How to look in a log; a level other than OS means DISK. */
struct bop__lookup bop__lookup_in(struct bop_aof *aof, enum bop_aof_level level, bool pread,
                                  bool blocking);

/** A segment, as it was at one moment. */
struct bop__place {
    struct bop__segment_file *file; /* A reference; NULL: it is in the archive. */
    uint64_t base;
    uint64_t generation;
    uint32_t seed;
    uint64_t end_seq; /* One above the last record that is visible. */
    uint64_t end;     /* Bytes below may be read. */
    bool sealed;      /* facts are valid. */
    struct bop__segment_facts facts;
    uint64_t truncations;
};

/** The segment that holds seq. BOP_EEND: it is above what is visible; BOP_ENOTFOUND: it is gone. */
int bop__lookup_seq(const struct bop__lookup *lookup, uint64_t seq, struct bop__place *out_place);

/** The segment that holds seq, or else the first one above it that is visible. Codes as above. */
int bop__lookup_from(const struct bop__lookup *lookup, uint64_t seq, struct bop__place *out_place);

void bop__place_deinit(struct bop__place *place);

/**
 * Its bytes: of a sealed one all, of another those that are visible. BOP_ENOTFOUND: it has gone
 * elsewhere meanwhile, look again.
 */
int bop__place_open(const struct bop__lookup *lookup, const struct bop__place *place,
                    struct bop__segment_source **out_source, struct bop_error *err);

/** bop_aof_prove and bop_aof_verify, but for the log. */
int bop__prove(const struct bop__lookup *lookup, uint64_t seq, struct bop_aof_proof *out_proof,
               struct bop_buf *out_bytes, struct bop_error *err);
int bop__verify(const struct bop__lookup *lookup, const struct bop_aof_receipt *receipt,
                struct bop_aof_verified *out_verified, struct bop_error *err);

#endif
