/*
 * A log's manifest: an append-only log of its own of what was begun and done with each sealed
 * segment, in small chunk files that are rotated, snapshotted and uploaded; and the catalogue that
 * replaying it gives. docs/design/manifest.md describes the files.
 *
 * One thread at a time uses a manifest; every call may block for the disk.
 */
#ifndef BOP_STORE_AOF_MANIFEST_H
#define BOP_STORE_AOF_MANIFEST_H

#include <bop/clock.h>

#include "footer.h"

/** Kinds keep their numbers for ever (reference row F56); unknown ones are kept and skipped. */
enum bop__manifest_kind {
    BOP__MANIFEST_SEGMENT_OPENED,
    BOP__MANIFEST_SEAL_SEGMENT,
    BOP__MANIFEST_COMPRESSION_STARTED,
    BOP__MANIFEST_COMPRESSION_DONE,
    BOP__MANIFEST_COMPRESSION_FAILED,
    BOP__MANIFEST_UPLOAD_STARTED,
    BOP__MANIFEST_UPLOAD_DONE,
    BOP__MANIFEST_UPLOAD_FAILED,
    BOP__MANIFEST_TIER2_DELETE_QUEUED,
    BOP__MANIFEST_TIER2_DELETED,
    BOP__MANIFEST_HYDRATION_STARTED,
    BOP__MANIFEST_HYDRATION_DONE,
    BOP__MANIFEST_HYDRATION_FAILED,
    BOP__MANIFEST_LOCAL_EVICTED,
    BOP__MANIFEST_SNAPSHOT_MARKER,
    BOP__MANIFEST_CUSTOM_EVENT,
    BOP__MANIFEST_CATALOGUE, /* One segment's whole entry, in a snapshot. */
    BOP__MANIFEST_TRUNCATED, /* Records dropped on purpose: below first_seq, or above last_seq. */
};

/** Why something failed (reference row F57). */
enum bop__manifest_reason {
    BOP__MANIFEST_TRANSIENT,
    BOP__MANIFEST_CORRUPT_SEGMENT,
    BOP__MANIFEST_AUTH,
    BOP__MANIFEST_NETWORK,
    BOP__MANIFEST_OBJECT_MISSING,
};

/** One record; which fields count depends on the kind, others are zero. */
struct bop__manifest_record {
    enum bop__manifest_kind kind;
    uint64_t generation;             /* The segment's: generations are never used twice in a log. */
    uint64_t time_ms;                /* Wall clock, when written. */
    struct bop__segment_facts facts; /* SEAL_SEGMENT. */
    uint64_t packed_bytes;           /* COMPRESSION_DONE, HYDRATION_DONE, LOCAL_EVICTED. */
    uint8_t sha256[32];              /* Of the packed file: COMPRESSION_DONE, UPLOAD_DONE. */
    unsigned tier;                   /* LOCAL_EVICTED: 0 or 1. HYDRATION_*: the source. */
    enum bop__manifest_reason reason;
    uint64_t due_ms;       /* TIER2_DELETE_QUEUED: not before. */
    uint64_t first_seq;    /* TRUNCATED. */
    uint64_t last_seq;     /* TRUNCATED: UINT64_MAX if only below first_seq. */
    const char *key;       /* UPLOAD_*, TIER2_*. */
    const char *text;      /* UPLOAD_STARTED: upload id. UPLOAD_DONE: etag. Else NULL. */
    struct bop_slice blob; /* CUSTOM_EVENT, and those of unknown kind. */
    uint32_t schema;       /* CUSTOM_EVENT. */
};

/** A segment as replaying says it is. */
struct bop__manifest_entry {
    struct bop__segment_facts facts;
    bool packed;         /* Tier 1 has had it verified ... */
    bool packed_evicted; /* ... and it was let go of. */
    bool raw_evicted;    /* The segment file was let go of. */
    bool packing;        /* Begun, not known to have ended. */
    bool hydrating;      /* Likewise. */
    bool uploading;      /* Begun, not known to have ended: upload_id, maybe, to go on with. */
    bool uploaded;
    bool delete_queued;
    bool deleted; /* Gone from tier 2, on purpose. */
    bool dropped; /* TRUNCATED covers it: on its way out of every tier. */
    uint64_t packed_bytes;
    uint8_t sha256[32];
    uint64_t packed_ms, uploaded_ms; /* When. */
    uint64_t due_ms;
    char *key;
    char *etag;
    char *upload_id;
};

struct bop__manifest;

struct bop__manifest_options {
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    struct bop_clock *clock;
    struct bop_log *log;
    struct bop_metrics *metrics;
    const char *path; /* Directory; made if missing. */
    uint8_t log_id[BOP_AOF_ID_SIZE];
    uint64_t chunk_bytes; /* A chunk is full above this. Default 256 KiB. */
    unsigned chunks_kept; /* Beside the one in use, those below a snapshot. Default 2. */
    bool read_only;       /* Nothing is repaired or made; append is refused. For tools. */
};

/**
 * Open or make, replaying the newest chunk, which begins with a snapshot. Nothing is written
 * before the first append, which begins a new chunk. A torn tail is left out.
 * BOP_ECORRUPT names chunk, offset and what is wrong; BOP_EVERSION; BOP_EMISMATCH if it is
 * another log's.
 */
int bop__manifest_open(const struct bop__manifest_options *options,
                       struct bop__manifest **out_manifest, struct bop_error *err);
void bop__manifest_close(struct bop__manifest *manifest);

/**
 * Append records and sync: durable when this returns 0. They are checked against the catalogue
 * first, and refused with BOP_ECONDITION and nothing written if they do not follow (a segment
 * twice, one that overlaps another, done without begun, a deletion of what is not uploaded).
 * Rotates and takes snapshots by itself. After another code it is unknown whether the records will
 * be found at the next open, the catalogue is as before, and the next call begins a new chunk.
 */
int bop__manifest_append(struct bop__manifest *manifest, const struct bop__manifest_record *records,
                         size_t count, struct bop_error *err);

/** The catalogue: entries by ascending base; one that is dropped or deleted, and of which tier 2
 * has nothing, is left out. */
size_t bop__manifest_count(const struct bop__manifest *manifest);
const struct bop__manifest_entry *bop__manifest_at(const struct bop__manifest *manifest, size_t i);
/** By generation, or NULL. */
const struct bop__manifest_entry *bop__manifest_find(const struct bop__manifest *manifest,
                                                     uint64_t generation);

/** A chunk file. Sealed ones never change again. */
struct bop__manifest_chunk {
    uint64_t index;
    uint64_t bytes; /* Committed. */
    bool sealed;
    uint64_t uploaded; /* Bytes, as bop__manifest_uploaded said in this process. */
    char path[512];
};
size_t bop__manifest_chunks(const struct bop__manifest *manifest);
void bop__manifest_chunk_at(const struct bop__manifest *manifest, size_t i,
                            struct bop__manifest_chunk *out_chunk);
/** The chunk with this index is in the object store with so many bytes. */
void bop__manifest_uploaded(struct bop__manifest *manifest, uint64_t index, uint64_t bytes);
/** End the chunk in use, with a snapshot in the next one. */
int bop__manifest_rotate(struct bop__manifest *manifest, struct bop_error *err);

/** Look at chunks without opening: for each, and each record, in order. For tools and tests. */
struct bop__manifest_chunk_report {
    uint64_t index;
    uint64_t file_bytes, committed_bytes, uncommitted_bytes;
    uint64_t records, unknown_records, bad_records;
    uint32_t stored_crc, computed_crc;
    bool snapshot; /* It begins with a whole one. */
    int code;      /* 0 or what is wrong with it, and in words. */
    char message[BOP_ERROR_MESSAGE_MAX];
};
/* A callback's non-zero result ends it and is returned. */
int bop__manifest_inspect(const struct bop__manifest_options *options,
                          int (*on_chunk)(void *user, const struct bop__manifest_chunk_report *),
                          int (*on_record)(void *user, uint64_t chunk, uint64_t offset,
                                           const struct bop__manifest_record *),
                          void *user, struct bop_error *err);

/**
 * Put a chunk that cannot be read aside as <name>.broken and replay the one before it to its end;
 * what only the broken one said is lost, and out_lost says how many chunks went. For
 * `bop aof manifest check --repair`. Nothing is done to a manifest that opens.
 */
int bop__manifest_repair(const struct bop__manifest_options *options, unsigned *out_lost,
                         struct bop_error *err);

const char *bop__manifest_kind_name(enum bop__manifest_kind kind);

#endif
