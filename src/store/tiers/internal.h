/*
 * What the files of the tiers share.
 *
 *      tiers.c       create, poll, the back-off, pins
 *      jobs.c        the tasks: what runs where, and what its end means
 *      plan.c        what to do next
 *      evict.c       who leaves tier 0 and 1; retention
 *      archive.c     one log's segments: open, close, what the log says and asks
 *      record.c pack.c upload.c publish.c remove.c fetch.c hydrate.c scrub.c     tasks
 *      object.c      a packed segment in the object store, and checks of one
 *      source.c      segments as readers see them
 *      status.c      status, metrics
 *      restore.c     a log's directory from the object store alone
 *
 * Who may touch what:
 *
 *   bop_tiers, bop__archive, bop__tiered   the owner's thread, but for fields under "Lock", which
 *                  any thread reads and writes under tiers->lock, and those under "Shared",
 *                  which the owner alone writes, under the lock, and others read under it.
 *   facts, key, number of a segment        never change; it lives while busy or read.
 *   bop__job       the owner's, then while the task runs the worker's.
 *   manifest       under archive->manifest_lock. Taken last; never with tiers->lock.
 */
#ifndef BOP_STORE_TIERS_INTERNAL_H
#define BOP_STORE_TIERS_INTERNAL_H

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "../aof/archive.h"
#include "../aof/manifest.h"
#include "../aof/warm.h"

/* Manifest records that one task writes at once. */
#define BOP__RECORDS_MAX 16
/* GETs of blocking readers at once. */
#define BOP__GETS_MAX 8
/* What readers of one segment may have asked for and not got yet; others ask again. */
#define BOP__WANTED_MAX 4
/* A fetch that brings what is not what was put is tried so often before the object is called bad.
 */
#define BOP__BAD_FETCHES 3
/* Of a packed segment that is moved, in one piece. */
#define BOP__PIECE_BYTES  ((size_t)1024 * 1024)
#define BOP__ENDS_BYTES   ((size_t)64 * 1024)
#define BOP__RETRY_MAX_MS 60000u
#define BOP__NAME_MAX     200u
#define BOP__PATH_MAX     4096u

struct bop__archive;

/** An object that a packed segment is, or is to be. */
struct bop__object_facts {
    const char *key;
    uint64_t size;
    uint64_t number;
    const uint8_t *sha256; /* NULL: unknown. */
};

/* ---- Tasks ---- */

/** In order of urgency. */
enum bop__job_kind {
    BOP__JOB_FETCH,    /* Frames of tier 2 into the cache, for a reader. */
    BOP__JOB_RECORD,   /* Records into the manifest. */
    BOP__JOB_PUBLISH,  /* The manifest into the object store. */
    BOP__JOB_REMOVE,   /* A segment, from everywhere but tier 0. */
    BOP__JOB_EVICT,    /* A segment, from tier 1. */
    BOP__JOB_PACK,     /* Tier 0 to 1. */
    BOP__JOB_UPLOAD,   /* Tier 1 to 2. */
    BOP__JOB_HYDRATE,  /* Tier 2 to 1. */
    BOP__JOB_PREFETCH, /* Frames of tier 2 into the cache, for later. */
    BOP__JOB_SCRUB,    /* Look at the copies of a segment. */
    BOP__JOBS,
};

/** When to try again. Zeroed: now. */
struct bop__retry {
    unsigned attempts; /* Failed ones since the last that went well. */
    uint64_t at_us;
};

/** A task of one executor. */
struct bop__job {
    struct bop_task task;
    struct bop_tiers *tiers;
    struct bop_executor *executor;
    bool busy;
    enum bop__job_kind kind;
    struct bop__archive *archive;
    struct bop__tiered *segment;
    _Atomic bool cancel;

    /* Asked. */
    struct bop__manifest_record records[BOP__RECORDS_MAX]; /* RECORD. */
    struct bop__tiered *batch[BOP__RECORDS_MAX];
    unsigned count;
    uint64_t frame; /* FETCH: the first one. PREFETCH: a record. */
    uint64_t size;  /* Bytes wanted from there on. */
    uint64_t begun_us;
    struct bop__object_facts object; /* FETCH, PREFETCH. */
    int level;                       /* PACK. */
    bool check_tier1;                /* SCRUB: these copies; EVICT: the file is bad. */
    bool check_tier2;                /* SCRUB; REMOVE: there may be an object. */
    bool again;                      /* UPLOAD: the object that is there is bad. */
    bool claimed;                    /* PUBLISH: the name is known to be this log's. */
    uint64_t lowest;                 /* PUBLISH: chunks below this were removed before. */
    uint64_t version;                /* Of the manifest, after the task's last record. */

    /* Found. */
    int code;
    struct bop_error err;
    struct bop__warm_facts facts;
    uint64_t bytes; /* Moved, or looked at. */
    bool bad_tier0, bad_tier1, bad_tier2;
};

/* ---- Segments ---- */

enum bop__retry_of {
    BOP__RETRY_LOCAL,  /* Packing, evicting, removing, scrubbing. */
    BOP__RETRY_REMOTE, /* Uploading, hydrating, removing. */
    BOP__RETRY_FETCH,
    BOP__RETRIES,
};

/** What a reader lacks. */
struct bop__wanted {
    uint64_t frame;
    uint64_t size;
    uint64_t asked_us;
};

struct bop__tiered {
    struct bop_list link; /* On archive->dropped, or unlinked. */
    struct bop__archive *archive;
    struct bop__segment_facts facts;
    char *key; /* In the object store. */

    /* As the manifest has it. */
    bool recorded;
    bool uploading; /* Begun: there may be an object. */
    bool delete_queued;
    bool dropped; /* Written under archive->manifest_lock: workers read it under that. */
    uint64_t due_ms;
    uint8_t sha256[32];
    uint64_t packed_ms;
    uint64_t uploaded_version, queued_version; /* Of the manifest, when it said so. */

    /* Beyond it. */
    bool busy; /* A task other than FETCH and PREFETCH has it. */
    enum bop__job_kind busy_with;
    bool fetching;
    bool say_evicted; /* Left tier 0: to be recorded. */
    bool say_deleted; /* By retention: to be queued, or, without an object store, to be dropped. */
    bool refused;     /* The manifest does not take it. */
    bool bad_tier0;   /* Its file in tier 0 cannot be packed. */
    bool bad_file;    /* That in tier 1 is to be removed: tier 2 has it. */
    uint64_t came0_ms, came1_ms; /* Wall clock: when it came to tiers 0 and 1. */
    uint64_t release_us;         /* Not to be asked for again before. */
    uint64_t scrubbed;           /* Ascending: when it was looked at. */
    unsigned bad_fetches;
    struct bop__retry retries[BOP__RETRIES];

    /* Shared. */
    char *path; /* In tier 0; NULL: was never there. */
    bool in_tier0, in_tier1, in_tier2;
    bool bad_tier2;
    bool closed; /* No source of it is opened any more. */
    uint64_t packed_bytes;
    uint64_t number; /* Of its packed bytes, for the cache. */
    int fetch_code;  /* Of the last fetch, told until fetch_until_us. */
    uint64_t fetch_until_us;

    /* Lock. */
    unsigned readers;
    bool suspect1; /* A reader met a bad or missing file in tier 1, */
    bool suspect2; /* or a bad or missing object. */
    struct bop__wanted wanted[BOP__WANTED_MAX];
    unsigned wanted_count;
    uint64_t prefetch_seq;
    uint64_t prefetch_bytes; /* 0: nothing is to be fetched ahead. */

    _Atomic uint64_t touched; /* Ascending; relaxed: only an order to evict in. */
};

/* ---- Logs ---- */

struct bop__pin {
    struct bop_list link;
    uint64_t first_seq, last_seq;
};

struct bop__archive {
    struct bop_list link;
    struct bop_tiers *tiers;
    struct bop__archive_calls calls;
    void *log;
    char *path; /* The log's directory. */
    char *warm; /* <path>/warm */
    char *name;
    char *keys; /* "<prefix>/<name>" */
    uint8_t log_id[BOP_AOF_ID_SIZE];

    pthread_mutex_t manifest_lock;
    struct bop__manifest *manifest;
    uint64_t appended; /* Under the lock: appends, the manifest's version. */

    struct bop__tiered **segments; /* Shared. Those not dropped, by base and so by generation. */
    size_t count;                  /* Shared. */
    size_t capacity;
    struct bop_list dropped; /* Shared. Those to be removed from everywhere. */
    struct bop_list pins;

    unsigned jobs;
    bool closed;
    bool recording, publishing;
    bool one_by_one;  /* A record of several was refused: find out which. */
    bool claimed;     /* The name in the object store is this log's. */
    bool urgent;      /* Something waits for the manifest to be published. */
    uint64_t version; /* Of the manifest, as far as the owner knows. */
    uint64_t published;
    uint64_t lowest; /* Chunk objects below were removed. */
    struct bop__retry record_retry, publish_retry;
    uint64_t missed; /* Generation that memory was lacking for; 0: none. */
    struct bop__retry missed_retry;

    /* What the log was told, and is to be told. */
    uint64_t tier2_told, oldest_told;
    uint64_t oldest; /* Retention took everything below; 0: nothing. */
    size_t waiting_told;
    size_t waiting; /* As last counted; stale: to be counted anew. */
    bool stale;
    _Atomic bool hydrated;
};

/* ---- All ---- */

enum bop__counter_kind {
    BOP__COUNT_DROPS,
    BOP__COUNT_PACKS,
    BOP__COUNT_PACK_FAILURES,
    BOP__COUNT_EVICTIONS,
    BOP__COUNT_HYDRATIONS,
    BOP__COUNT_HYDRATION_FAILURES,
    BOP__COUNT_UPLOADS,
    BOP__COUNT_UPLOAD_FAILURES,
    BOP__COUNT_UPLOAD_RETRIES,
    BOP__COUNT_FETCHES,
    BOP__COUNT_FETCH_FAILURES,
    BOP__COUNT_DELETES,
    BOP__COUNT_DELETE_FAILURES,
    BOP__COUNT_DELETE_RETRIES,
    BOP__COUNT_PUBLISHES,
    BOP__COUNT_PUBLISH_FAILURES,
    BOP__COUNT_TIER1_LOST,
    BOP__COUNT_SCRUBBED_BYTES,
    BOP__COUNT_SCRUB_ERRORS,
    BOP__COUNTERS,
};

struct bop__counter {
    _Atomic uint64_t value;
    struct bop_metric *metric; /* NULL: no registry. */
};

enum bop__gauge_kind {
    BOP__GAUGE_TIER0_BYTES,
    BOP__GAUGE_TIER0_WANTED,
    BOP__GAUGE_TIER0_EVICTIONS,
    BOP__GAUGE_TIER1_BYTES,
    BOP__GAUGE_TIER1_PACKS,
    BOP__GAUGE_TIER1_HYDRATIONS,
    BOP__GAUGE_TIER2_BYTES,
    BOP__GAUGE_TIER2_UPLOADS,
    BOP__GAUGE_TIER2_DELETES,
    BOP__GAUGE_TIER2_GRACE,
    BOP__GAUGE_CACHE_BYTES,
    BOP__GAUGE_LEVEL,
    BOP__GAUGE_RESIDENCY, /* One for each state. */
    BOP__GAUGES = BOP__GAUGE_RESIDENCY + BOP_TIERS_RESIDENCIES,
};

struct bop_tiers {
    struct bop_tiers_options options; /* With the defaults filled in. */
    struct bop_allocator *allocator;
    char *prefix;
    struct bop_lane *lanes[BOP_TIERS_WORKERS_MAX];
    struct bop__job *jobs;
    unsigned job_count;
    unsigned busy; /* Of them. */
    unsigned running[BOP__JOBS];
    struct bop_random random;
    struct bop_list archives;
    struct bop__frame_cache *cache;

    unsigned packs_waiting; /* As the last plan counted them. */
    unsigned failing;       /* Retries with attempts. */
    int last_error;
    char message[160];
    uint64_t tier0_bytes, tier1_bytes;
    uint64_t evicting_bytes;  /* Of tier1_bytes, on their way out. */
    uint64_t scrub_us;        /* Not before. */
    uint64_t scrubs, numbers; /* Counters. */
    bool polling;
    bool notify_again;

    struct bop__counter counters[BOP__COUNTERS];
    struct bop_metric *gauges[BOP__GAUGES];
    struct bop_histogram own_latency;
    struct bop_histogram *latency;

    _Atomic bool dirty;      /* Something changed since the last plan. */
    _Atomic uint64_t stamps; /* Of touched. */
    pthread_mutex_t lock;
    pthread_cond_t get_ended;
    unsigned gets; /* Lock. Blocking ones under way. */
};

/* tiers.c */

/** Something changed that poll must look at. Any thread. */
void bop__tiers_wake(struct bop_tiers *tiers);
uint64_t bop__tiers_now_us(const struct bop_tiers *tiers);
uint64_t bop__tiers_wall_ms(const struct bop_tiers *tiers);
void bop__retry_failed(struct bop_tiers *tiers, struct bop__retry *retry,
                       const struct bop_error *err);
void bop__retry_over(struct bop_tiers *tiers, struct bop__retry *retry);
bool bop__tiered_pinned(const struct bop__tiered *segment);
/** Fit to be a part of keys. */
bool bop__tiers_is_plain(const char *text);

/* jobs.c */

/** Start a task on a free executor, which there is. */
struct bop__job *bop__tiers_job_begin(struct bop_tiers *tiers, enum bop__job_kind kind,
                                      struct bop__archive *archive, struct bop__tiered *segment);
void bop__tiers_job_submit(struct bop__job *job);
void bop__tiers_jobs_cancel(struct bop__archive *archive);

/* What the tasks do, on a worker; and on the owner's thread, when they are through. */
void bop__fetch_run(struct bop__job *job);
void bop__fetch_done(struct bop__job *job);
void bop__record_run(struct bop__job *job);
void bop__record_done(struct bop__job *job);
void bop__publish_run(struct bop__job *job);
void bop__publish_done(struct bop__job *job);
void bop__remove_run(struct bop__job *job);
void bop__remove_done(struct bop__job *job);
void bop__evict_run(struct bop__job *job);
void bop__evict_done(struct bop__job *job);
/** Read a packed file whole, and compare it with what the segment's root says. */
int bop__packed_check(struct bop__job *job, const char *path, struct bop__warm_facts *out_facts);
void bop__pack_run(struct bop__job *job);
void bop__pack_done(struct bop__job *job);
void bop__upload_run(struct bop__job *job);
void bop__upload_done(struct bop__job *job);
void bop__hydrate_run(struct bop__job *job);
void bop__hydrate_done(struct bop__job *job);
void bop__prefetch_run(struct bop__job *job);
void bop__prefetch_done(struct bop__job *job);
void bop__scrub_run(struct bop__job *job);
void bop__scrub_done(struct bop__job *job);

/* plan.c */

/** Begin what can be begun. Returns when to look again at the latest, UINT64_MAX: never. */
uint64_t bop__tiers_plan(struct bop_tiers *tiers);
int bop__tiers_level(const struct bop_tiers *tiers);

/* evict.c */

/** Ask the logs to let go of what tier 0 has too much of. *next_us becomes lower if need be. */
void bop__evict_tier0(struct bop_tiers *tiers, uint64_t *next_us);
/** The one to leave tier 1, or NULL. */
struct bop__tiered *bop__evict_tier1_pick(struct bop_tiers *tiers, uint64_t *next_us);
/** Mark what is past retention. */
void bop__retention(struct bop__archive *archive, uint64_t *next_us);
/** A wall clock time as one of the monotonic clock. */
void bop__tiers_wait_wall(const struct bop_tiers *tiers, uint64_t wall_ms, uint64_t *next_us);
/** Nobody reads it, and its time has come. */
bool bop__tiered_removable(struct bop__tiered *segment, uint64_t *next_us);

/* source.c */

/** A reader, or a task, met something that is not as it should be in this tier. Any thread. */
void bop__tiered_suspect(struct bop__tiered *segment, unsigned tier);
/** What says that the bytes of a file or object are not those that were put there. */
bool bop__is_bad(int code);

/* archive.c */

/** Append to the manifest and tell the version it has then. Any thread. */
int bop__archive_append(struct bop__archive *archive, struct bop__manifest_record *records,
                        size_t count, uint64_t *out_version, struct bop_error *err);
/** Path of a packed segment; false if it is too long. suffix: "" or ".tmp". */
bool bop__archive_warm_path(const struct bop__archive *archive,
                            const struct bop__segment_facts *facts, const char *suffix,
                            char out_path[BOP__PATH_MAX]);
/** By generation, of those not dropped, or NULL. Not the owner's thread: under tiers->lock. */
struct bop__tiered *bop__archive_segment(const struct bop__archive *archive, uint64_t generation);
bool bop__archive_is_dropped(const struct bop__archive *archive, uint64_t generation);
void bop__archive_deliver(struct bop__archive *archive);
void bop__archive_free(struct bop__archive *archive);
/** It is in no tier and in no list any more. */
void bop__tiered_free(struct bop__tiered *segment);
void bop__tiered_set_tier0(struct bop__tiered *segment, bool there);
void bop__tiered_set_tier1(struct bop__tiered *segment, bool there, uint64_t packed_bytes);
void bop__tiered_set_tier2(struct bop__tiered *segment, bool there);
enum bop_tiers_residency bop__tiered_residency(const struct bop__tiered *segment);
/** Packed at least once and still somewhere below tier 0. */
bool bop__tiered_is_lower(const struct bop__tiered *segment);
/** Take a segment out of the live ones, to be removed from everywhere. */
void bop__tiered_drop(struct bop__archive *archive, size_t index);

/* object.c */

/** Who reads an object. */
enum bop__object_use {
    BOP__OBJECT_WORKER, /* Blocks. */
    BOP__OBJECT_READER, /* Blocks, reads ahead, and not too many at once. */
    BOP__OBJECT_ASKING, /* Has it fetched, and comes again. */
};

/** A packed segment in the object store. It has been read by somebody who holds the segment. */
int bop__object_open(struct bop__tiered *segment, const struct bop__object_facts *facts,
                     enum bop__object_use use, struct bop__packed **out_packed);
/** Append exactly these bytes; BOP_ECORRUPT if the object ends before. */
int bop__object_get(struct bop_tiers *tiers, const char *key, uint64_t offset, size_t size,
                    struct bop_buf *out, struct bop_error *err);
/** HEAD: size and digest. */
int bop__object_head(struct bop_tiers *tiers, const struct bop__object_facts *facts,
                     struct bop_object_info *out_info, struct bop_error *err);
/** Read all of it, in pieces; into a file (fd) if that is not negative; and compare the digest. */
int bop__object_copy(struct bop_tiers *tiers, const struct bop__object_facts *facts, int fd,
                     const _Atomic bool *cancel, struct bop_error *err);
int bop__sha256_file(struct bop_tiers *tiers, int fd, uint64_t size, uint8_t out_digest[32],
                     struct bop_error *err);
int bop__sha256(const void *bytes, size_t size, uint8_t out_digest[32]);
void bop__hex(const uint8_t *bytes, size_t size, char *out_text);

/* publish.c */

/** The object with the log's id: made, or the one there is compared. */
int bop__publish_claim(struct bop_tiers *tiers, const char *keys,
                       const uint8_t log_id[BOP_AOF_ID_SIZE], struct bop_error *err);

/* status.c */

void bop__status_init(struct bop_tiers *tiers);
void bop__count(struct bop_tiers *tiers, enum bop__counter_kind kind, uint64_t amount);
void bop__status_gauges(struct bop_tiers *tiers);
/** "<event> log=<name> segment=<generation> base=<base> <more>" of module "aof.tier<n>". */
BOP_PRINTF(5, 6)
void bop__tiers_event(const struct bop__tiered *segment, enum bop_log_level level, unsigned tier,
                      const char *event, const char *format, ...);

static inline struct bop__object_facts bop__tiered_object(const struct bop__tiered *segment)
{
    return (struct bop__object_facts){.key = segment->key,
                                      .size = segment->packed_bytes,
                                      .number = segment->number,
                                      .sha256 = segment->sha256};
}

#endif
