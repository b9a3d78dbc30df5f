/*
 * The tiers below a log's local segments: sealed segments are compressed (tier 1,
 * local, read in place), uploaded to an object store (tier 2, read by ranges), and let go
 * of again by budgets and by retention. One bop_tiers serves many logs of one owner.
 *
 *   sealed segment -> packed, verified, in the manifest -> may leave tier 0
 *                  -> uploaded, read back, verified, in the manifest -> may leave tier 1
 *                  -> past retention: queued in the manifest, deleted after the grace
 *
 * Nothing is deleted before the next tier holds it verified and the manifest, on disk, says so.
 * Every move is an intent and a done record in the log's manifest (docs/design/manifest.md); the
 * manifest goes to the object store too, so that all local files can be lost.
 *
 * Threads: one owner, the logs' own, calls everything and hears all callbacks; the work
 * runs on the workers. Failures are retried with back-off for as long as the tiers live, and are
 * seen in status and metrics; they never harm what is stored.
 */
#ifndef BOP_TIERS_H
#define BOP_TIERS_H

#include <bop/aof.h>
#include <bop/object_store.h>
#include <bop/random.h>

#define BOP_TIERS_WORKERS_MAX 16

/** What is read of an object that was put, beside its size and digest as the store has them. */
enum bop_tiers_read_back {
    BOP_TIERS_READ_BACK_ALL,  /* All of it, and its digest computed. */
    BOP_TIERS_READ_BACK_ENDS, /* The first and the last 64 KiB, compared with the file. */
};

/** Sizes are bytes over all logs. 0 means the default. */
struct bop_tiers_options {
    struct bop_allocator *allocator; /* Borrowed until destroy. Default: the process's. */
    struct bop_fs *fs;               /* Borrowed. Default: the real one. */
    struct bop_clock *clock;         /* Borrowed. Default: the system's. */
    struct bop_log *log;             /* Borrowed. Default: none. */
    struct bop_metrics *metrics;     /* Borrowed. Default: none. */
    uint64_t seed;                   /* Of the jitter of retries. */

    /* Run the work, borrowed. None: `workers` lanes of the tiers' own, and the owner calls
     * bop_tiers_poll when notify was called. */
    struct bop_executor *const *executors;
    size_t executor_count;
    unsigned workers; /* Default 4, at most BOP_TIERS_WORKERS_MAX. */
    /* bop_tiers_poll has something to do. Called on any thread, also with executors; may be
     * NULL. */
    void (*notify)(void *user);
    void *user;

    uint64_t tier0_bytes;      /* Sealed segments above this leave, coldest first. Default 2 GiB. */
    uint64_t tier1_bytes;      /* Likewise. Default 8 GiB. */
    uint64_t residency_min_ms; /* Nothing leaves a tier sooner after it came. Default 0. */
    uint64_t cache_bytes;      /* Of decompressed frames, tier 1's and 2's. Default 64 MiB. */
    unsigned read_ahead;       /* Frames fetched behind one that was asked of tier 2. Default 4. */

    int level;          /* zstd's, default 1. Under pressure lower ones, down to -5, are taken. */
    bool level_fixed;   /* Never. */
    size_t frame_bytes; /* 16 to 64 KiB. Default 64 KiB. */
    size_t dictionary_bytes; /* Of a dictionary a segment, 0: none; at most 128 KiB. */

    struct bop_object_store *objects; /* Tier 2, borrowed. Default: none, tier 1 is the last. */
    const char *prefix;               /* Of the keys. Default "aof". Copied. */
    enum bop_tiers_read_back read_back;
    uint64_t retention_ms; /* A segment whose last record is older goes. 0: never. */
    uint64_t
        retention_bytes; /* A log's oldest segments above this go, packed sizes. 0: no limit. */
    uint64_t delete_grace_ms;   /* Between queueing a deletion and doing it. Default 60,000. */
    uint64_t retry_ms;          /* First back-off, doubled to a minute, with jitter. Default 100. */
    uint64_t scrub_bytes_per_s; /* Background verification of what is kept. 0: none. */
    bool scrub_objects;         /* It reads objects too; else only asks for size and digest. */
};

BOP_API BOP_MUST_USE int bop_tiers_create(const struct bop_tiers_options *options,
                                          struct bop_tiers **out_tiers, struct bop_error *err);

/** All logs are closed, and executors that were handed in have no task of the tiers'. NULL is fine.
 * Closing a log waits for the call to the object store that its lanes are in, as long as the
 * store's own limits let it: bop_object_store.cancel before cuts that short. */
BOP_API void bop_tiers_destroy(struct bop_tiers *tiers);

/** Do what is due by the clock and what finished. Returns ms until it should be called again
 * at the latest, UINT64_MAX if there is nothing to wait for. */
BOP_API uint64_t bop_tiers_poll(struct bop_tiers *tiers);

/** True while anything is queued or under way that does not wait for time to pass. */
BOP_API bool bop_tiers_busy(const struct bop_tiers *tiers);

/**
 * Keep the segments that hold [first_seq, last_seq] in tier 0 or 1, fetched if need be, until unpin
 * is called with the same two or the log is closed. A pin is its process's and is not kept: set it
 * again after opening and before the first poll, and nothing of it has left meanwhile.
 * BOP_ENOTFOUND if the log has no tiers here, or there is no such pin; BOP_ENOMEM.
 */
BOP_API BOP_MUST_USE int bop_tiers_pin(struct bop_tiers *tiers, struct bop_aof *aof,
                                       uint64_t first_seq, uint64_t last_seq);
BOP_API BOP_MUST_USE int bop_tiers_unpin(struct bop_tiers *tiers, struct bop_aof *aof,
                                         uint64_t first_seq, uint64_t last_seq);

enum bop_tiers_residency {
    BOP_TIERS_TIER0,          /* Local, as written. */
    BOP_TIERS_TIER1,          /* Local, packed. */
    BOP_TIERS_TIER2,          /* Only in the object store. */
    BOP_TIERS_NEEDS_RECOVERY, /* In the manifest, and in no tier, or bad in each. */
    BOP_TIERS_RESIDENCIES,
};

/** A segment as the manifest and the files know it. */
struct bop_tiers_segment {
    uint64_t base;
    uint64_t end_seq; /* One above its last record. */
    uint64_t generation;
    uint64_t bytes;        /* As written. */
    uint64_t packed_bytes; /* 0: not packed yet. */
    uint64_t first_time_us;
    uint64_t last_time_us;
    enum bop_tiers_residency residency; /* The first tier that has it. */
    bool in_tier0, in_tier1, in_tier2;  /* Verified copies. */
    bool pinned;
    bool delete_queued;
    uint8_t root[BOP_AOF_DIGEST_SIZE];
    const char *key; /* In the object store, without the store's prefix; NULL: none. */
};

/** Call fn for each sealed segment of a log, oldest first. */
BOP_API int bop_tiers_segments(struct bop_tiers *tiers, struct bop_aof *aof,
                               int (*fn)(void *user, const struct bop_tiers_segment *segment),
                               void *user);

/** One combined snapshot; the metrics of the same names are in the registry. */
struct bop_tiers_status {
    uint64_t tier0_bytes, tier1_bytes, tier2_bytes, cache_bytes;
    uint64_t segments[BOP_TIERS_RESIDENCIES];
    unsigned packs_waiting, uploads_waiting, fetches_waiting, deletes_waiting, deletes_in_grace;
    uint64_t packs, pack_failures, uploads, upload_failures, upload_retries;
    uint64_t fetches, fetch_failures, deletes, delete_failures, delete_retries;
    uint64_t evictions, hydration_us_p50, hydration_us_p90, hydration_us_p99;
    uint64_t scrubbed_bytes, scrub_errors;
    int level;      /* In use now. */
    int last_error; /* 0 when the last try of everything went well. */
    char message[160];
};
BOP_API void bop_tiers_status(const struct bop_tiers *tiers, struct bop_tiers_status *out_status);

/** What a restore found. */
struct bop_tiers_restored {
    unsigned segments;
    uint64_t first_seq;
    uint64_t last_seq; /* The log goes on after this one. */
    unsigned manifest_chunks;
};

/**
 * Rebuild a log's directory, which must not exist or be empty, from the object store: the manifest,
 * and an empty segment behind the last archived record. Segments stay in tier 2 until read.
 * name is the log's in the tiers. Blocks. BOP_ENOTFOUND names the prefix looked under.
 */
BOP_API BOP_MUST_USE int bop_tiers_restore(const struct bop_tiers_options *options,
                                           const char *path, const char *name,
                                           struct bop_tiers_restored *out_restored,
                                           struct bop_error *err);

#endif
