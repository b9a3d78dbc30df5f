/*
 * What the files of the log share: the log as its owner sees it, its batches,
 * and the writer that tasks use.
 *
 * Who may touch what:
 *
 *   bop_aof       the owner's thread only, but for `writer`.
 *   bop__segment  identity (base ... salt) never changes; the rest is the
 *                 owner's; link is whoever's list it is on.
 *   bop__batch    the owner's until a task takes it (state, under aof->lock), then read
 *                 by both and changed by nobody until the task's done callback; results
 *                 are written by run and read by done.
 *   bop__writer   the running task's only (open and close use it while none exists).
 *                 Tasks run one after another, in the order submitted.
 */
#ifndef BOP_STORE_AOF_INTERNAL_H
#define BOP_STORE_AOF_INTERNAL_H

#include <pthread.h>

#include <bop/aof.h>
#include <bop/list.h>

#include "catalogue.h"
#include "format.h"

/* One index entry each so many bytes of a segment. */
#define BOP__AOF_INDEX_BYTES (32u * 1024)
/* Positions that readers go on from: two followers and the apply loop, and one to spare. */
#define BOP__AOF_CURSORS      4
#define BOP__AOF_WINDOW_BYTES (64u * 1024)
/* Two may be with the executor, a third collects. */
#define BOP__AOF_BATCHES 3
/* A batch's buffer above this is given back after its commit. */
#define BOP__AOF_BATCH_KEEP_BYTES (4u * 1024 * 1024)
#define BOP__AOF_PATH_MAX         4096

/* ---- Segments ---- */

struct bop__index_entry {
    uint64_t seq;
    uint64_t offset;
};

struct bop__segment {
    struct bop_list link; /* On the writer's lists of what is to be removed, and was. */
    uint64_t base;
    uint64_t generation;
    uint64_t size;
    uint64_t front;
    uint32_t seed;
    uint32_t salt;
    bool aligned;
    struct bop__aof_segment_header header;

    uint64_t end_seq;  /* One above the last record kept. */
    uint32_t chain;    /* What the record end_seq must carry. */
    uint64_t end;      /* Where the record end_seq begins, or would. */
    uint64_t file_end; /* Bytes below are in the file; those from here on in a batch. */
    struct bop__index_entry *index;
    size_t index_count;
    size_t index_capacity;
};

/** A segment without identity yet, or NULL. */
struct bop__segment *bop__segment_new(struct bop_allocator *allocator);
/** Give a new segment its identity. It is empty. */
void bop__segment_init(struct bop__segment *segment, const struct bop__aof_segment_header *header);
void bop__segment_free(struct bop_allocator *allocator, struct bop__segment *segment);

/** A record lies at offset. Best effort: without memory reads only have to walk further. */
void bop__segment_index_add(struct bop_allocator *allocator, struct bop__segment *segment,
                            uint64_t seq, uint64_t offset);

/** The indexed record nearest at or below seq; the segment's first one if there is none. */
struct bop__index_entry bop__segment_index_find(const struct bop__segment *segment, uint64_t seq);

/** Records from seq on, the first of which lies at offset, are dropped; link is the last one's. */
void bop__segment_cut(struct bop__segment *segment, uint64_t seq, uint64_t offset, uint32_t link);

/* ---- The writer: what tasks do to files ---- */

struct bop__writer {
    struct bop_fs *fs;
    struct bop_log *log;
    const char *dir;
    uint64_t segment_bytes;

    int fd;                   /* Of the segment being written. */
    uint64_t size;            /* Its size. */
    uint64_t used;            /* The end of what was written to it. */
    uint64_t zeroed;          /* It is written, with records or zeros, up to here. */
    bool dirty;               /* Written since the last sync. */
    uint64_t written;         /* Since open, over all segments. */
    bool no_room;             /* The last attempt to prepare met a full disk. */
    int next_fd;              /* Of next.tmp, -1 if it is not prepared. */
    uint64_t next_end;        /* The zeros in it. */
    struct bop_list removals; /* Segments whose files are to go. */
    struct bop_list removed;  /* Those whose files are gone. */
    struct bop_error error;   /* The first failure; then nothing is done any more. */
};

void bop__writer_init(struct bop__writer *writer, struct bop_fs *fs, struct bop_log *log,
                      const char *dir, uint64_t segment_bytes);
/** Close files. */
void bop__writer_deinit(struct bop__writer *writer);

/** Go on in a segment that exists, at `used`; the descriptor becomes the writer's. */
void bop__writer_continue(struct bop__writer *writer, int fd, uint64_t size, uint64_t used,
                          uint64_t zeroed);

/* Each returns 0 or the writer's failure, which is then final. */
int bop__writer_begin(struct bop__writer *writer, const struct bop__segment *segment);
int bop__writer_write(struct bop__writer *writer, const uint8_t *bytes, uint64_t size,
                      uint64_t offset);
int bop__writer_sync(struct bop__writer *writer);

/** True if there is something to do that commits should not wait for. */
bool bop__writer_wants_upkeep(const struct bop__writer *writer);
/** Do one bounded step of it; out_more says if another should follow at once. */
int bop__writer_upkeep(struct bop__writer *writer, bool *out_more);

/** "<dir>/<name>" of a segment. False if it is too long. */
bool bop__segment_path(const char *dir, uint64_t base, uint64_t generation,
                       char out_path[BOP__AOF_PATH_MAX]);
/** "<dir>/<name>". False if it is too long. */
bool bop__aof_path(const char *dir, const char *name, char out_path[BOP__AOF_PATH_MAX]);

/** Overwrite [from, to) of a file with zeros. */
int bop__aof_write_zeros(struct bop_fs *fs, int fd, uint64_t from, uint64_t to);

/* ---- Batches ---- */

enum bop__op_kind {
    BOP__OP_WRITE,  /* size bytes of data, from `from` on, to the segment at offset. */
    BOP__OP_BEGIN,  /* Sync the segment before and begin this one. */
    BOP__OP_REMOVE, /* Let go of this one's file. */
};

struct bop__op {
    enum bop__op_kind kind;
    struct bop__segment *segment;
    uint64_t offset;
    size_t from;
    size_t size;
};

enum bop__batch_state {
    BOP__BATCH_FREE,
    BOP__BATCH_OPEN,   /* Collects, and is not submitted. */
    BOP__BATCH_QUEUED, /* Submitted, and still collects. */
    BOP__BATCH_TAKEN,  /* Its task has begun; or the log has failed, and it stays for reads. */
};

struct bop__batch {
    struct bop_task task;
    struct bop_aof *aof;
    enum bop__batch_state state;
    struct bop_buf data;
    struct bop__op *ops;
    size_t op_count;
    size_t op_capacity;
    uint64_t records;
    uint64_t last_seq; /* Durable once this is done; lowered by truncation. 0: none. */

    /* Results. */
    int code;
    bool wants_upkeep;
};

/* ---- Readers ---- */

struct bop__cursor {
    struct bop__segment *segment; /* NULL: unused. */
    int fd;                       /* -1 until the file is needed. */
    uint64_t next_seq;
    uint64_t next_offset;
    uint32_t chain; /* What the record next_seq must carry, if known. */
    bool chain_known;
    uint64_t last_used;
    uint8_t
        *window; /* File bytes [window_offset, + window_size); never stale: a file only grows. */
    uint64_t window_offset;
    size_t window_size;
};

/* ---- The log ---- */

struct bop__aof_metrics {
    struct bop_metric *appended_records;
    struct bop_metric *appended_bytes;
    struct bop_metric *commits;
    struct bop_histogram *commit_us;
    struct bop_histogram *batch_records;
    struct bop_metric *durable_seq;
    struct bop_metric *first_seq;
    struct bop_metric *last_seq;
    struct bop_metric *segments;
    struct bop_metric *failed;
};

struct bop_aof {
    struct bop_aof_options options; /* path is the log's own copy. */
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    char *path;
    int lock_fd;

    /* Oldest first; never empty once open, and the last one takes appends. */
    struct bop__segment **segments;
    size_t segment_count;
    size_t segment_capacity;
    uint64_t generation; /* Of the newest segment. */
    uint64_t last;
    uint64_t durable;
    uint32_t tail_link; /* The link of the last record, 0 if there was none. */
    uint8_t id[BOP_AOF_ID_SIZE];
    uint64_t epoch;
    int failed;

    pthread_mutex_t lock; /* Over the batches' state, and their content until they are taken. */
    bool lock_made;
    struct bop__batch batches[BOP__AOF_BATCHES];
    struct bop__batch *open; /* Collects, or NULL. May have been taken meanwhile. */
    unsigned submitted;      /* Batches with the executor. */
    uint64_t pending_bytes;

    struct bop__writer writer;
    struct bop_task upkeep;
    bool upkeep_submitted;
    /* Results of the upkeep task. */
    int upkeep_code;
    bool upkeep_more;
    struct bop_list upkeep_removed;

    struct bop__aof_catalogue catalogue; /* What other threads see. */

    struct bop__cursor cursors[BOP__AOF_CURSORS];
    uint64_t cursor_clock;
    struct bop__aof_metrics metrics;
};

/** The segment that holds seq, which lies in [first, last]. */
struct bop__segment *bop__aof_segment_of(const struct bop_aof *aof, uint64_t seq);
/** Room for more segments. 0 or BOP_ENOMEM. */
int bop__aof_segments_reserve(struct bop_aof *aof, size_t more);
/** The header of the segment that would be begun now; the log takes the next generation. */
struct bop__aof_segment_header bop__aof_next_header(struct bop_aof *aof, uint64_t base,
                                                    uint64_t front, uint64_t size);
/** State all that must hold between calls. */
void bop__aof_check(const struct bop_aof *aof);
/** Set the gauges. */
void bop__aof_update_metrics(struct bop_aof *aof);

/**
 * Begin a segment after the last record; `blank` becomes it. The oldest `drop` leave,
 * and those that begin above the last record. There is room for it among the segments,
 * and for an op for it and each that leaves in the batch.
 */
void bop__aof_begin_segment(struct bop_aof *aof, struct bop__batch *batch,
                            struct bop__segment *blank, uint64_t size, size_t drop);

/* batch.c: what the owner does to batches. */

/** Make room for an operation's needs in a batch that collects; the lock is held on success. */
int bop__batch_enter(struct bop_aof *aof, size_t bytes, size_t ops, struct bop__batch **out_batch);
/** Release the lock and see that what was put into the batch gets its task. */
void bop__batch_leave(struct bop_aof *aof, struct bop__batch *batch);
/** Add an op; there is room. */
void bop__batch_add(struct bop__batch *batch, enum bop__op_kind kind, struct bop__segment *segment);
/** Add a write of the last `size` bytes of data. */
void bop__batch_add_write(struct bop__batch *batch, struct bop__segment *segment, uint64_t offset,
                          size_t size);
/** Nothing above seq, of what is appended so far, will be called durable. */
void bop__batch_clip(struct bop_aof *aof, uint64_t seq);
/** Bytes of a segment from offset on, if they wait in a batch; NULL if not. */
const uint8_t *bop__batch_find(const struct bop_aof *aof, const struct bop__segment *segment,
                               uint64_t offset, size_t *out_size);
void bop__batches_init(struct bop_aof *aof);
void bop__batches_deinit(struct bop_aof *aof);

/* reader.c */

void bop__cursors_init(struct bop_aof *aof);
void bop__cursors_deinit(struct bop_aof *aof);
/** The segment goes: nobody reads it any more. */
void bop__cursors_forget(struct bop_aof *aof, const struct bop__segment *segment);
/** The link of a record that is there, and the offset of the next one in its segment. */
int bop__aof_link_of(struct bop_aof *aof, uint64_t seq, uint32_t *out_link, uint64_t *out_end);

/* recovery.c */

/** Find what the directory holds: fill segments, last, chain, and let the writer go on there. */
int bop__aof_recover(struct bop_aof *aof, struct bop_aof_recovery *out_recovery,
                     struct bop_error *err);

#endif
