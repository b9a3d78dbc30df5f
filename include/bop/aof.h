/*
 * The append-only log: numbered records in segment files, committed in groups,
 * several groups at once on their way to the disk.
 *
 * Records get consecutive sequence numbers. An append is copied into the open
 * batch and returns at once with a number or a typed refusal; it never blocks.
 * Batches are written and synced by the executor, up to writes_max at once, and what
 * comes in while all are busy forms the next: no timer, one sync for many records.
 * on_durable then tells up to which record all is on disk, in order. How far a
 * record must get to count as acknowledged is named per append (bop_aof_level).
 *
 * Full segments are sealed: they get a footer with an index and a Merkle root. With
 * a bop_tiers they are then compressed, uploaded and let go of locally, and are read
 * from there under the same numbers. The format and the recovery rules are
 * docs/design/aof.md.
 *
 * A failed write or sync is final for the segment it met. What was not yet durable is
 * in memory still: with rehome_max it is written anew into a fresh segment, and only then
 * acknowledged. Without, or when that fails too, the log moves to FAILED, on_failed fires
 * once, nothing after the last durable record is ever called durable, and the
 * way on is to close and open, which reads what the disk holds.
 *
 * Threads: one owner calls everything and hears all callbacks, but for readers
 * (bop_aof_reader), which any thread may open and use, each by one thread at a
 * time. Callbacks never fire from inside a call on the log but bop_aof_poll and those that wait.
 */
#ifndef BOP_AOF_H
#define BOP_AOF_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/clock.h>
#include <bop/error.h>
#include <bop/executor.h>
#include <bop/fs.h>
#include <bop/log.h>
#include <bop/metrics.h>
#include <bop/slice.h>

#define BOP_AOF_RECORD_MAX (64u * 1024 * 1024)

#define BOP_AOF_ID_SIZE 16

struct bop_aof;
struct bop_tiers;

/** How far a record must have got to be acknowledged. Each includes those above it. */
enum bop_aof_level {
    BOP_AOF_DEFAULT, /* The log's options.level. */
    BOP_AOF_MEMORY,  /* In the log's memory: lost when the process dies. */
    BOP_AOF_OS,      /* Written to the page cache: lost when the machine dies. */
    BOP_AOF_DISK,    /* An fdatasync returned: lost with the disk. */
    BOP_AOF_TIER2,   /* Its segment is in the object store, read back and verified. */
};

/** Why an append or a read was refused, for now. Each has a code, a counter and a notice. */
enum bop_aof_refusal {
    BOP_AOF_REFUSED_ADMISSION, /* BOP_ENOROOM: the disk, or the local budget, has no room. */
    BOP_AOF_REFUSED_FLUSH,     /* BOP_EFULL: pending_bytes_max wait for the disk. */
    BOP_AOF_REFUSED_ROLLOVER,  /* BOP_EROLLOVER: sealed_max sealed segments wait for the next tier.
                                */
    BOP_AOF_REFUSED_HYDRATION, /* BOP_EHYDRATING: what is to be read is being fetched. */
};

/** Where commits begin in the file. */
enum bop_aof_layout {
    BOP_AOF_LAYOUT_DEFAULT, /* PACKED. */
    /* Each right behind the one before, through the page cache. Smallest files. */
    BOP_AOF_PACKED,
    /* Each in 4,096-byte blocks of its own, written past the page cache where the file system can
     * (O_DIRECT): no acknowledged byte is ever written again, and big commits are fastest. */
    BOP_AOF_ALIGNED,
};

struct bop_aof_options {
    struct bop_allocator *allocator; /* Borrowed until close. Default: the process's. */
    struct bop_fs *fs;               /* Borrowed until close. Default: the real one. */
    /* Borrowed until close; runs writes and syncs. NULL: the log has a lane of its own, and its
     * owner calls bop_aof_poll or bop_aof_wait. */
    struct bop_executor *executor;
    struct bop_log *log;         /* Borrowed. Default: none. */
    struct bop_metrics *metrics; /* Borrowed. Default: none. */
    const char *path;            /* Directory; made if missing. Required. */
    uint64_t segment_bytes;      /* Of one file. Default 64 MiB; at least 4 KiB. */
    /* In memory, as not yet durable, or, of levels below DISK, not yet written; appends above are
     * refused. Default 64 MiB. */
    uint64_t pending_bytes_max;
    uint64_t first_seq;       /* The first record's number in a new log. Default 1. */
    const uint8_t *id;        /* A new log's, BOP_AOF_ID_SIZE bytes. Default: random. */
    enum bop_aof_level level; /* Of appends that name none. Default DISK. */
    enum bop_aof_layout layout;
    unsigned writes_max; /* Commits on their way at once. Default 8, or what the executor can. */
    unsigned sealed_max; /* With tiers: sealed segments that may wait for them. Default 64. */
    unsigned
        rehome_max; /* How often an unacknowledged tail may move to a new segment. Default 0. */
    /* Full segments get no footer: none is read once more and hashed, but opening reads those that
     * are there, and there are no proofs. For logs whose segments are soon dropped; not with tiers.
     */
    bool no_footers;
    /* Appends are refused while the disk has less. Looked at in the background now and then, and
     * after each append that was refused. Default two segments. */
    uint64_t room_min;
    /* Appends that the disk has no room for are kept in memory, up to pending_bytes_max, and not
     * refused: for owners who have other means to stop what comes. */
    bool keeps_without_room;
    uint64_t epoch;          /* The writer's fencing epoch; see bop_aof_fence. Default 0. */
    struct bop_tiers *tiers; /* Borrowed until close. Default: all stays in local segment files. */
    const char *name;        /* The log's in the tiers; default: its id in hex. */
    /* bop_aof_poll has something to do (only with a lane of the log's own). Called on any
     * thread; typically wakes the owner. May be NULL. */
    void (*notify)(void *user);
    /* All records up to seq are on disk. */
    void (*on_durable)(void *user, uint64_t seq);
    /* All records up to seq have reached this level (OS, DISK or TIER2). May be NULL. */
    void (*on_level)(void *user, enum bop_aof_level level, uint64_t seq);
    /* What was refused for this reason may be tried again. May be NULL. */
    void (*on_room)(void *user, enum bop_aof_refusal refusal);
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
/** Without room, look in the background whether there is some again: what waits for it then goes on
 * its way. For logs to which nothing may come meanwhile; appends look by themselves. */
BOP_API void bop_aof_look_for_room(struct bop_aof *aof);

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

/** What an append asks beside records. Zeroed: as bop_aof_append. */
struct bop_aof_append {
    const struct bop_aof_record *records;
    size_t count;
    enum bop_aof_level level;
    uint64_t expected_seq; /* The number that the first record must get; 0: any. */
    uint64_t epoch;        /* The writer's; 0: not looked at. */
};

/** Says of one appended record what it is and where it went; for bop_aof_verify. */
struct bop_aof_receipt {
    uint8_t log_id[BOP_AOF_ID_SIZE];
    uint64_t seq;
    uint64_t generation;      /* Of the segment. */
    uint64_t offset;          /* In the segment. */
    uint32_t link;            /* Digest of the record and of all before it in its segment. */
    enum bop_aof_level level; /* What it was appended with. */
};

/**
 * Append as bop_aof_append, if the conditions hold. out_receipt, which may be NULL, is the last
 * record's. Beside the codes of bop_aof_append: BOP_ECONDITION if the next number is not
 * expected_seq; BOP_EFENCED if epoch is below the log's; BOP_ENOROOM, BOP_EROLLOVER: on_room tells
 * when it is worth another try.
 */
BOP_API BOP_MUST_USE int bop_aof_append_with(struct bop_aof *aof,
                                             const struct bop_aof_append *append,
                                             struct bop_aof_receipt *out_receipt);

/**
 * Room for one record's payload of at most size bytes, in the log's own buffer: fill it, then
 * complete or abandon before any other call on the log. Nothing is visible before complete.
 * Codes as bop_aof_append_with; append's records and count are ignored.
 */
BOP_API BOP_MUST_USE int bop_aof_reserve(struct bop_aof *aof, const struct bop_aof_append *append,
                                         size_t size, void **out_bytes);
/** The first size bytes of the room are the record. Cannot fail. */
BOP_API void bop_aof_complete(struct bop_aof *aof, size_t size, uint64_t tag, uint64_t time_us,
                              struct bop_aof_receipt *out_receipt);
/** Nothing was reserved. */
BOP_API void bop_aof_abandon(struct bop_aof *aof);

/**
 * Appends of writers with a lower epoch are refused from now on, and after every restart: the
 * epoch is in the header of a new segment, ordered like an append. Returns 0, BOP_EFENCED if the
 * log's is higher already, or a code of bop_aof_append. Raising it to what it is does nothing.
 */
BOP_API BOP_MUST_USE int bop_aof_fence(struct bop_aof *aof, uint64_t epoch);
BOP_API uint64_t bop_aof_epoch(const struct bop_aof *aof);

/** The log's identity, made with it. */
BOP_API void bop_aof_id(const struct bop_aof *aof, uint8_t out_id[BOP_AOF_ID_SIZE]);

/** The last record that has reached a level; first - 1 if none. */
BOP_API uint64_t bop_aof_reached(const struct bop_aof *aof, enum bop_aof_level level);

/** Bring all records up to seq to the disk, whatever they were appended with. Does not wait. */
BOP_API BOP_MUST_USE int bop_aof_flush(struct bop_aof *aof, uint64_t seq);

/** Close the segment that takes appends, if it has records; the next append begins another. */
BOP_API BOP_MUST_USE int bop_aof_seal(struct bop_aof *aof);

/** Do what finished, fire callbacks. Only with a lane of the log's own. Returns how many things. */
BOP_API size_t bop_aof_poll(struct bop_aof *aof);

/**
 * Poll until all records up to seq have reached a level (bop_aof_flush is implied for DISK).
 * Returns 0, BOP_ETIMEOUT, or the code with which the log failed. timeout_ms < 0: no limit.
 * Only with a lane of the log's own.
 */
BOP_API BOP_MUST_USE int bop_aof_wait(struct bop_aof *aof, enum bop_aof_level level, uint64_t seq,
                                      int timeout_ms);

/** As bop_aof_append_with, but wait for room while it is refused. timeout_ms as above. */
BOP_API BOP_MUST_USE int bop_aof_append_wait(struct bop_aof *aof,
                                             const struct bop_aof_append *append,
                                             struct bop_aof_receipt *out_receipt, int timeout_ms);

/**
 * Append, waiting for room, and wait until the records have reached the level asked for: for a
 * caller who has nothing else to do meanwhile. Without a limit of time, and with nothing else on
 * its way, the calling thread writes and syncs by itself, so that a lone commit wakes no other
 * thread. Codes as those of the two calls above; BOP_ETIMEOUT also if the records were appended and
 * have not got there yet: bop_aof_last() tells.
 */
BOP_API BOP_MUST_USE int bop_aof_commit(struct bop_aof *aof, const struct bop_aof_append *append,
                                        struct bop_aof_receipt *out_receipt, int timeout_ms);

/** What the log is and does just now. */
struct bop_aof_status {
    uint64_t first;
    uint64_t
        oldest; /* The first record that can be read, maybe from a lower tier; at most first. */
    uint64_t last;
    uint64_t os;
    uint64_t durable;
    uint64_t tier2;
    uint64_t epoch;
    uint64_t generation;
    uint64_t pending_bytes;
    uint64_t local_bytes; /* Of segment files. */
    unsigned segments;    /* Local ones. */
    unsigned archived;    /* Segments that are only in lower tiers. */
    unsigned writes;      /* On their way. */
    unsigned writes_max;
    unsigned rehomed;   /* Tails moved since open. */
    bool direct;        /* Past the page cache. */
    const char *method; /* The executor's, "io_uring", "threads" or "task". */
    bool no_room;       /* The disk has none, or less than room_min, as of the last look. */
    int failed;
};
BOP_API void bop_aof_status(const struct bop_aof *aof, struct bop_aof_status *out_status);

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

/** Where bytes come from. */
enum bop_aof_tier {
    BOP_AOF_HOT,  /* Memory, or a local segment file. */
    BOP_AOF_WARM, /* A local compressed segment. */
    BOP_AOF_COLD, /* The object store. */
};

/** A record read back. */
struct bop_aof_view {
    uint64_t seq;
    uint64_t tag;
    uint64_t time_us;
    struct bop_slice
        payload; /* In the buffer handed to the read; a reader's: until its next call. */
    enum bop_aof_tier tier;
};

/**
 * Read records from seq on into out_buf (cleared first) until count_max, or
 * bytes_max of payload (but at least one), or the last record. Checks every
 * checksum. Records not yet written are read from memory, those below first from lower tiers, up to
 * first. Returns how many; BOP_ENOTFOUND if seq is not in [status.oldest, last]; BOP_EHYDRATING if
 * it is being fetched (on_room tells when it has come); BOP_ECORRUPT or another code.
 * Blocks for the disk if the page cache does not hold them.
 */
BOP_API BOP_MUST_USE int bop_aof_read(struct bop_aof *aof, uint64_t seq, size_t count_max,
                                      size_t bytes_max, struct bop_buf *out_buf,
                                      struct bop_aof_view *out_views, struct bop_error *err);

/* ---- Readers: any thread, any tier, without copying ---- */

struct bop_aof_reader;

struct bop_aof_reader_options {
    struct bop_allocator *allocator; /* Borrowed until close. Default: the process's. */
    enum bop_aof_level level;        /* Records below it are not seen. OS or DISK. Default DISK. */
    bool pread;                      /* Never map files: for reads that the page cache lacks. */
    bool blocking; /* Wait for a lower tier's bytes instead of giving BOP_EHYDRATING. */
};

/**
 * A reader before the oldest record. Any thread, while the log is open; each reader is used by one
 * thread at a time, and is closed before its log.
 */
BOP_API BOP_MUST_USE int bop_aof_reader_open(struct bop_aof *aof,
                                             const struct bop_aof_reader_options *options,
                                             struct bop_aof_reader **out_reader);
BOP_API void bop_aof_reader_close(struct bop_aof_reader *reader);

/** The next record read will be seq. BOP_ENOTFOUND if it is below the oldest, or above the one that
 * follows the last one visible. */
BOP_API BOP_MUST_USE int bop_aof_reader_seek(struct bop_aof_reader *reader, uint64_t seq,
                                             struct bop_error *err);
/** ... the first one with this time or a later one; times do not fall within a log. */
BOP_API BOP_MUST_USE int bop_aof_reader_seek_time(struct bop_aof_reader *reader, uint64_t time_us,
                                                  struct bop_error *err);
/** ... the first one with this tag or a higher one; for logs whose tags do not fall. */
BOP_API BOP_MUST_USE int bop_aof_reader_seek_tag(struct bop_aof_reader *reader, uint64_t tag,
                                                 struct bop_error *err);

/**
 * The next record, its checksums and its link checked. Returns 0; BOP_EEND at the last one visible;
 * BOP_EHYDRATING while its bytes are fetched (bop_aof_reader_wait tells when); BOP_ENOTFOUND
 * if it was truncated meanwhile (seek again); BOP_ECORRUPT, with file, offset and record.
 */
BOP_API BOP_MUST_USE int bop_aof_reader_next(struct bop_aof_reader *reader,
                                             struct bop_aof_view *out_view, struct bop_error *err);

/** The number that the next call gives. */
BOP_API uint64_t bop_aof_reader_position(const struct bop_aof_reader *reader);

/** What a reader at the tail may wait for. */
enum bop_aof_event {
    BOP_AOF_EVENT_NONE,
    BOP_AOF_EVENT_RECORDS, /* There is a next record, or its bytes have come. */
    BOP_AOF_EVENT_SEALED, /* A segment was sealed since the last call; none is missed, see count. */
    BOP_AOF_EVENT_TRUNCATED,
    BOP_AOF_EVENT_CLOSED, /* The log closes or has failed: no more will come. */
};

/**
 * Wait until there is something for this reader. Returns the event, or NONE after timeout_ms (< 0:
 * no limit). A truncation and sealed segments are told once each, before records; after TRUNCATED
 * the next read says whether it concerned this reader.
 */
BOP_API enum bop_aof_event bop_aof_reader_wait(struct bop_aof_reader *reader, int timeout_ms);

/** Segments sealed since the log was opened, as of the last wait: after BOP_AOF_EVENT_SEALED the
 * difference to what it was before is how many are new. */
BOP_API uint64_t bop_aof_reader_sealed(const struct bop_aof_reader *reader);

/** Have the bytes from seq on fetched and kept ready, as far as budgets allow. The owner's. */
BOP_API BOP_MUST_USE int bop_aof_prefetch(struct bop_aof *aof, uint64_t seq, uint64_t bytes);

/* ---- Proofs ---- */

/** What became of a record with a receipt. */
enum bop_aof_verdict {
    BOP_AOF_VERDICT_PENDING,   /* Not yet at the level it was appended with. */
    BOP_AOF_VERDICT_KEPT,      /* There, and it is that record. */
    BOP_AOF_VERDICT_TRUNCATED, /* Dropped on purpose, or past retention. */
    BOP_AOF_VERDICT_LOST,      /* Not there, or another record in its place. */
};

struct bop_aof_verified {
    enum bop_aof_verdict verdict;
    enum bop_aof_tier tier; /* The first that has it. */
    uint64_t generation;    /* Of the segment where it lies now: not the receipt's if its */
    uint64_t offset;        /* tail was re-homed. */
};

/**
 * Say where the receipt's record lives now or that it is lost, by reading it. Any thread; waits for
 * a lower tier. One that was truncated before it was acknowledged from the disk may be called LOST.
 * Returns 0; BOP_EINVAL if the receipt is another log's; BOP_ECORRUPT or another code if there is
 * no telling.
 */
BOP_API BOP_MUST_USE int bop_aof_verify(struct bop_aof *aof, const struct bop_aof_receipt *receipt,
                                        struct bop_aof_verified *out_verified,
                                        struct bop_error *err);

#define BOP_AOF_DIGEST_SIZE 32 /* SHA-256. */
#define BOP_AOF_PROOF_MAX   40 /* Levels of a segment's Merkle tree. */

/** That one run of records belongs to a sealed segment with a known root (RFC 9162's hashing). */
struct bop_aof_proof {
    uint64_t first_seq; /* The run: what one leaf covers. */
    uint64_t last_seq;
    uint64_t leaf;
    uint64_t leaves;
    uint32_t count; /* Of siblings, from the leaf up. */
    uint8_t siblings[BOP_AOF_PROOF_MAX][BOP_AOF_DIGEST_SIZE];
    uint8_t root[BOP_AOF_DIGEST_SIZE];
};

/** Prove the run that holds seq: its bytes are appended to out_bytes. BOP_EEND: not sealed yet. Any
 * thread; waits for a lower tier. */
BOP_API BOP_MUST_USE int bop_aof_prove(struct bop_aof *aof, uint64_t seq,
                                       struct bop_aof_proof *out_proof, struct bop_buf *out_bytes,
                                       struct bop_error *err);
/** Check a proof, and that it ends in this root. Needs no log. 0, BOP_ECORRUPT or BOP_ENOMEM. */
BOP_API BOP_MUST_USE int bop_aof_proof_check(const struct bop_aof_proof *proof,
                                             struct bop_slice bytes,
                                             const uint8_t root[BOP_AOF_DIGEST_SIZE]);

#endif
