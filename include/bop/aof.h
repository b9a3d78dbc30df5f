/*
 * The append-only log: numbered records in segment files, committed in groups.
 *
 * Records get consecutive sequence numbers. An append is copied into the open
 * batch and returns at once; a task on the executor writes the batch and syncs
 * it, and while it does, what comes in forms the next batch: no timer, one sync
 * for many records. on_durable then tells up to which record all is on disk,
 * in order. The format and the recovery rules are docs/design/aof.md.
 *
 * A failed write or sync is final: the log moves to FAILED, on_failed fires
 * once, nothing after the last durable record is ever called durable, and the
 * way on is to close and open, which reads what the disk holds.
 *
 * Threads: one owner calls everything and hears all callbacks; only the tasks
 * run elsewhere. Callbacks never fire from inside a call on the log.
 */
#ifndef BOP_AOF_H
#define BOP_AOF_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/error.h>
#include <bop/executor.h>
#include <bop/fs.h>
#include <bop/log.h>
#include <bop/metrics.h>
#include <bop/slice.h>

#define BOP_AOF_RECORD_MAX (64u * 1024 * 1024)

struct bop_aof;

struct bop_aof_options {
    struct bop_allocator *allocator; /* Borrowed until close. Default: the process's. */
    struct bop_fs *fs;               /* Borrowed until close. Default: the real one. */
    struct bop_executor *executor;   /* Borrowed until close; runs writes and syncs. Required. */
    struct bop_log *log;             /* Borrowed. Default: none. */
    struct bop_metrics *metrics;     /* Borrowed. Default: none. */
    const char *path;                /* Directory; made if missing. Required. */
    uint64_t segment_bytes;          /* Of one file. Default 64 MiB; at least 4 KiB. */
    uint64_t pending_bytes_max; /* Not yet durable; appends above are refused. Default 64 MiB. */
    uint64_t first_seq;         /* The first record's number in a new log. Default 1. */
    /* All records up to seq are on disk. */
    void (*on_durable)(void *user, uint64_t seq);
    /* The log has failed for good. */
    void (*on_failed)(void *user, int code, const char *message);
    void *user;
};

/** What opening found. */
struct bop_aof_recovery {
    uint64_t torn_bytes;    /* Cut from the tail: never acknowledged. */
    uint64_t torn_from_seq; /* The first record that is not there; 0 if nothing was cut. */
    unsigned segments;
};

/**
 * Open or make a log, reading it to its end. A torn tail is cut. Corruption
 * (a bad record that was durable: a later record vouches for it, or no part of it
 * reads as never written) is BOP_ECORRUPT, the error names file, offset and
 * record, and nothing is changed. BOP_EVERSION for a newer format.
 * out_recovery may be NULL.
 */
BOP_API BOP_MUST_USE int bop_aof_open(const struct bop_aof_options *options,
                                      struct bop_aof **out_aof,
                                      struct bop_aof_recovery *out_recovery, struct bop_error *err);

/**
 * Stop. The caller has let the executor finish (no task of the log may be
 * queued or running); what was appended and not committed is dropped. NULL is fine.
 */
BOP_API void bop_aof_close(struct bop_aof *aof);

/** True while a task is queued or running or a batch waits for one. */
BOP_API bool bop_aof_busy(const struct bop_aof *aof);

/** The first record kept; last + 1 when the log is empty. */
BOP_API uint64_t bop_aof_first(const struct bop_aof *aof);
/** The last record appended, durable or not; first - 1 when the log is empty. */
BOP_API uint64_t bop_aof_last(const struct bop_aof *aof);
/** The last record that is on disk; not above last. */
BOP_API uint64_t bop_aof_durable(const struct bop_aof *aof);
/** 0, or the code with which the log failed. */
BOP_API int bop_aof_failed(const struct bop_aof *aof);

/** One record to append. The payload is in one piece or two, of 0 to BOP_AOF_RECORD_MAX bytes. */
struct bop_aof_record {
    uint64_t tag;     /* The owner's: an external id. */
    uint64_t time_us; /* The owner's timestamp. */
    struct bop_slice head;
    struct bop_slice body;
};

/**
 * Append copies of count records; the first one gets number last + 1. All or
 * none. Returns 0; BOP_EFULL when pending_bytes_max is met (try again after
 * on_durable; what is too much by itself is let in when nothing is pending); BOP_EFAILED;
 * BOP_ETOOBIG; BOP_ENOMEM; BOP_EOVERFLOW above number 2^63 - 1.
 */
BOP_API BOP_MUST_USE int bop_aof_append(struct bop_aof *aof, const struct bop_aof_record *records,
                                        size_t count);

/**
 * Drop every record above last_kept (first - 1 drops all), durable or not, for
 * others to be appended in their place. Takes effect at once for last and
 * reads; on disk it is ordered among the appends. on_durable is never again
 * called for a dropped record: durable falls to last_kept if it was above.
 * Returns 0, BOP_EINVAL, BOP_EFAILED, BOP_ENOMEM, or, with nothing changed, the code
 * with which the record last_kept could not be read.
 */
BOP_API BOP_MUST_USE int bop_aof_truncate_back(struct bop_aof *aof, uint64_t last_kept);

/**
 * Allow whole segments that hold only records below first_kept to go.
 * bop_aof_first() moves up accordingly, maybe not all the way. If any goes, a new
 * segment begins behind the last record. Ordered like an append; files go in the background.
 */
BOP_API BOP_MUST_USE int bop_aof_truncate_front(struct bop_aof *aof, uint64_t first_kept);

/**
 * Drop everything and begin anew at number first (a snapshot came that covers
 * what was here). Ordered like an append; after a crash either the old or the new
 * log is there.
 */
BOP_API BOP_MUST_USE int bop_aof_reset(struct bop_aof *aof, uint64_t first);

/** A record read back; head is empty and body holds the whole payload. */
struct bop_aof_view {
    uint64_t seq;
    uint64_t tag;
    uint64_t time_us;
    struct bop_slice payload; /* In the buffer handed to the read. */
};

/**
 * Read records from seq on into out_buf (cleared first) until count_max, or
 * bytes_max of payload (but at least one), or the last record. Checks every
 * checksum. Records not yet written are read from memory. Returns how many,
 * BOP_ENOTFOUND if seq is not in [first, last], BOP_ECORRUPT or another code.
 * Blocks for the disk if the page cache does not hold them.
 */
BOP_API BOP_MUST_USE int bop_aof_read(struct bop_aof *aof, uint64_t seq, size_t count_max,
                                      size_t bytes_max, struct bop_buf *out_buf,
                                      struct bop_aof_view *out_views, struct bop_error *err);

#endif
