/*
 * What the files of the log share: the log as its owner sees it, its segments, its
 * batches, and the jobs it has done in the background.
 *
 *      append.c     records into the open batch, at the places they will have
 *      batch.c      batches: their memory, and the order they are in
 *      commit.c     sending batches, and what follows when they are done
 *      writer.c     jobs: tasks that make, name, zero, seal and remove files
 *      draft.c      footers from commits on their way
 *      rehome.c     after a failed write: what is not durable goes to a new segment
 *      levels.c     how far records got, flush, seal, fence, status, room
 *      own_lane.c   a log that polls its own executor
 *
 * Who may touch what: all of this is the owner's. A job's task reads its inputs and writes
 * its outputs, in a struct of its own that the owner leaves alone meanwhile; a batch that was sent
 * is read by both and changed by nobody. What readers on other threads see is the catalogue.
 */
#ifndef BOP_STORE_AOF_INTERNAL_H
#define BOP_STORE_AOF_INTERNAL_H

#include <pthread.h>

#include <bop/aof.h>
#include <bop/list.h>

#include "archive.h"
#include "catalogue.h"
#include "format.h"

/* One index entry each so many bytes of a segment. */
#define BOP__AOF_INDEX_BYTES (32u * 1024)
/* Positions that readers go on from: two followers and the apply loop, and one to spare. */
#define BOP__AOF_CURSORS      4
#define BOP__AOF_WINDOW_BYTES (64u * 1024)
/* Commits on their way at once, at most. */
#define BOP__AOF_WRITES_MAX 16
/* What a commit holds, unless a single record is bigger. */
#define BOP__AOF_BATCH_BYTES (1024u * 1024)
#define BOP__AOF_PATH_MAX    4096

/* ---- Segments ---- */

struct bop__index_entry {
    uint64_t seq;
    uint64_t offset;
};

/** A segment's file, open for writing. */
struct bop__handle {
    /* One for each commit on its way, and one for jobs: the kernel tells of a failed write-back
     * once for each open of a file, so that two that share one would hear of it only once. */
    int fds[BOP__AOF_WRITES_MAX + 1];
    unsigned count;
    bool used;
    bool direct;
    uint64_t zeroed;       /* Written up to here, with records or zeros, or passed over. */
    uint64_t allocated;    /* Has blocks up to here, as far as is known. */
    uint64_t written_back; /* On the disk, or on its way there, up to here. */
};

enum bop__segment_state {
    BOP__SEGMENT_PLANNED, /* Records have their places in it; there is no file. */
    BOP__SEGMENT_BEGUN,   /* Its file is being written, under another name. */
    BOP__SEGMENT_NAMED,   /* It is on disk. */
};

struct bop__segment {
    struct bop_list link;      /* On a list of what is to be begun, removed, or freed. */
    struct bop_list seal_link; /* On the list of what is to be sealed. */
    uint64_t base;
    uint64_t generation;
    uint64_t size;
    uint64_t front;
    uint32_t seed;
    uint32_t salt;
    bool aligned;
    struct bop__aof_segment_header header;

    enum bop__segment_state state;
    struct bop__segment_file *file;  /* As readers know it; identity is set with init. */
    struct bop__handle *handle;      /* While it is written. */
    uint64_t sent_end;               /* Where what was sent ends. */
    struct bop__footer_draft *draft; /* Of its footer, from all that was sent; NULL: not all was. */
    unsigned small;                  /* Small commits that went into it. */
    bool unsynced;                   /* Written since it was last synced. */
    bool sealed;                     /* For what it holds now. */
    bool left;                       /* It is no longer of the log. */
    uint64_t cut_by; /* The generation whose beginning makes its end what it is; else 0. Before
                      * that is on disk its file still holds more. */

    uint64_t end_seq;     /* One above the last record kept. */
    uint64_t end;         /* Where the record end_seq begins, or would. */
    uint64_t records_end; /* Where the one before ends: fillers may lie between. */
    uint32_t chain;       /* What the record end_seq must carry. */
    uint64_t file_end;    /* Bytes below are in the file; those from here on in a batch. */
    uint64_t indexed_end; /* The offset of the last index entry. */
    struct bop__index_entry *index;
    size_t index_count;
    size_t index_capacity;
};

/** A segment without identity yet, or NULL. */
struct bop__segment *bop__segment_new(struct bop_aof *aof);
/** Give a new segment its identity. It is empty. */
void bop__segment_init(struct bop_aof *aof, struct bop__segment *segment,
                       const struct bop__aof_segment_header *header);
void bop__segment_free(struct bop_aof *aof, struct bop__segment *segment);
/** Free all on a list. */
void bop__segments_free(struct bop_aof *aof, struct bop_list *list);

/** A record lies at offset. Best effort: without memory reads only have to walk further. */
void bop__segment_index_add(struct bop_allocator *allocator, struct bop__segment *segment,
                            uint64_t seq, uint64_t offset);

/** The indexed record nearest at or below seq; the segment's first one if there is none. */
struct bop__index_entry bop__segment_index_find(const struct bop__segment *segment, uint64_t seq);

/** Records from seq on, the first of which lies at offset, are dropped; link is the last one's. */
void bop__segment_cut(struct bop__segment *segment, uint64_t seq, uint64_t offset, uint32_t link);

/** "<dir>/<name>" of a segment. False if it is too long. */
bool bop__segment_path(const char *dir, uint64_t base, uint64_t generation,
                       char out_path[BOP__AOF_PATH_MAX]);
/** "<dir>/<name>". False if it is too long. */
bool bop__aof_path(const char *dir, const char *name, char out_path[BOP__AOF_PATH_MAX]);

/* ---- Batches ---- */

enum bop__batch_state {
    BOP__BATCH_OPEN,  /* Collects; the last of the queue. */
    BOP__BATCH_READY, /* Waits for its turn. */
    BOP__BATCH_SENT,
    BOP__BATCH_DONE, /* Written; waits for those before it. */
};

/** One commit: bytes of one segment. */
struct bop__batch {
    struct bop_list link; /* On the queue, on `kept` or on `spare`. */
    struct bop_aof *aof;
    enum bop__batch_state state;
    bool sync;   /* It is to reach the disk. */
    bool push;   /* It is to be written soon. */
    bool begins; /* Its segment begins with it. */
    unsigned slot;
    struct bop__segment *segment;
    uint64_t offset; /* Where its bytes go. */
    uint8_t *memory; /* `bytes` is the first aligned place in it. */
    uint8_t *bytes;
    size_t size;
    size_t capacity; /* From bytes on. */
    uint64_t records;
    uint32_t prev_link;         /* Of the record before its first one. */
    struct bop__watermark last; /* Its last record; lowered by truncation. seq 0: none. */
    struct bop_list removals;   /* Segments that go when its segment is named. */
    struct bop_write write;
    struct bop_task task;            /* When there is nothing to write, only to sync. */
    struct bop_list draft_link;      /* On `drafts`, or being drafted. */
    struct bop__footer_draft *draft; /* That it has to go into; else NULL. Counted. */
    bool left;                       /* The queue; it stays for the draft alone. */
    int sync_fd;
    int code;
    uint64_t sent_us;
};

/** A batch with room for size bytes and a filler, or NULL. */
struct bop__batch *bop__batch_new(struct bop_aof *aof, size_t size);
/** Room for more bytes, and a filler. 0 or BOP_ENOMEM. */
int bop__batch_reserve(struct bop_aof *aof, struct bop__batch *batch, size_t more);
void bop__batch_free(struct bop_aof *aof, struct bop__batch *batch);
/** Free all on a list, with the segments that they were to remove. */
void bop__batches_free(struct bop_aof *aof, struct bop_list *list);
/** Put it at the end of the queue: it collects, from the end of segment on. */
void bop__batch_open(struct bop_aof *aof, struct bop__batch *batch, struct bop__segment *segment);
/** The open one takes no more. Nothing if there is none. */
void bop__batch_close(struct bop_aof *aof);
/** Nothing above seq, which ends at end, of what is appended so far will be reported. */
void bop__batches_clip(struct bop_aof *aof, uint64_t seq, uint64_t end);
/** Bytes of a segment from offset on, if they wait in a batch; NULL if not. */
const uint8_t *bop__batch_find(const struct bop_aof *aof, const struct bop__segment *segment,
                               uint64_t offset, size_t *out_size);

/* ---- Jobs ---- */

/** Something done in the background. At most one of each kind is under way. */
struct bop__job {
    struct bop_task task;
    struct bop_aof *aof;
    bool busy;
    int code;
    struct bop_error err;
};

struct bop__jobs {
    unsigned busy;
    struct {
        struct bop__job job;
        struct bop__handle *handle;
        uint64_t zeros;
        uint64_t allocate;
        bool stale;
    } prepare;
    struct {
        struct bop__job job;
        struct bop__segment *segment;
        int sync_fd;                /* Of the segment before, if it is not synced; else -1. */
        struct bop__handle *retire; /* Of the segment before. */
    } name;
    struct {
        struct bop__job job;
        struct bop__segment *segment;
        uint64_t from;
        uint64_t to;
        bool allocate;
    } zero;
    struct {
        struct bop__job job;
        int fd;
        uint64_t from;
        uint64_t to;
    } write_back;
    struct {
        struct bop__job job;
        struct bop__segment *segment;
    } remove;
    struct {
        struct bop__job job;
        uint64_t bytes;
    } room;
    struct {
        struct bop__job job;
        struct bop__segment *segment;
        struct bop__segment_facts facts;
        struct bop__footer_draft *draft; /* NULL: the file is to be read. */
        struct bop__segment_source *source;
        struct bop__footer_reading *reading; /* The next step goes on with it. */
    } seal;
    struct {
        struct bop__job job;
        struct bop__batch *batch;
    } draft;
};

void bop__jobs_init(struct bop_aof *aof);
void bop__job_init(struct bop_aof *aof, struct bop__job *job, void (*run)(struct bop_task *),
                   void (*done)(struct bop_task *));
void bop__job_start(struct bop_aof *aof, struct bop__job *job);
/** In its done: the job of a task, which is over. */
struct bop__job *bop__job_finished(struct bop_task *task);
/** See what is to be done, and have it done. */
void bop__jobs_start(struct bop_aof *aof);
/** The header of aof->beginning, and all before it, is on disk: give it its name. */
void bop__job_name(struct bop_aof *aof);
/** Close a handle's files and free it. NULL is fine. */
void bop__handle_close(struct bop_aof *aof, struct bop__handle *handle);
/** At open, while nothing else runs: make a file ready, give it a header, have fill, if there is
 * one, write its records, and name it. */
int bop__begin_now(struct bop_aof *aof, struct bop__segment *segment,
                   int (*fill)(void *user, int fd, struct bop_error *err), void *user,
                   struct bop_error *err);
/** At open: go on in a segment that exists. The file is written up to zeroed. */
int bop__continue_now(struct bop_aof *aof, struct bop__segment *segment, uint64_t zeroed,
                      struct bop_error *err);
/** A segment was cut: the footer that it has, or is getting, is for more. */
void bop__seal_again(struct bop_aof *aof, struct bop__segment *segment);
/** Overwrite [from, to) of a file with zeros. */
int bop__aof_write_zeros(struct bop_fs *fs, int fd, uint64_t from, uint64_t to);
/** A segment that is named and not the newest is to be sealed. */
void bop__seal_later(struct bop_aof *aof, struct bop__segment *segment);
bool bop__is_no_room(int code);

/* ---- Drafts: draft.c ---- */

void bop__draft_init(struct bop_aof *aof);
/** A batch is sent: have it go into its segment's draft. */
void bop__draft_sent(struct bop_aof *aof, struct bop__batch *batch);
/** Begin with the next one. */
void bop__draft_start(struct bop_aof *aof);
/** What was sent is not what the segment will hold. */
void bop__draft_drop(struct bop__segment *segment);
/** A batch that nobody needs but a draft, maybe. */
void bop__batch_release(struct bop_aof *aof, struct bop__batch *batch);
/** No job is under way: let go of what waits to be drafted. */
void bop__drafts_free(struct bop_aof *aof);

/* ---- Readers on the owner's thread ---- */

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
    struct bop_metric *pending_bytes;
    struct bop_metric *refused[4]; /* By enum bop_aof_refusal. */
    struct bop_metric *rehomed;
    struct bop_metric *sealed;
    struct bop_metric *failed;
};

/** What an append needs, got hold of before anything is changed. */
struct bop__plan {
    uint64_t bytes;
    struct bop_list batches;  /* Blank ones, in the order they are needed. */
    struct bop_list segments; /* Likewise. */
    bool goes_on;             /* All of it into the batch that is open. */
};

struct bop__own_lane;

struct bop_aof {
    struct bop_aof_options options; /* path is the log's own copy. */
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    struct bop_executor *executor;
    struct bop__own_lane *lane; /* NULL: the executor is the caller's. */
    char *path;
    int lock_fd;
    uint8_t id[BOP_AOF_ID_SIZE];

    /* Oldest first; never empty once open, and the last one takes appends. */
    struct bop__segment **segments;
    size_t segment_count;
    size_t segment_capacity;
    uint64_t generation; /* Of the newest segment. */
    uint64_t epoch;
    uint64_t front; /* What headers say: the first record not truncated, local or archived. */
    uint64_t last;
    uint32_t tail_link;            /* The link of the last record, 0 if there was none. */
    struct bop__watermark os;      /* Written; the page cache has it. */
    struct bop__watermark durable; /* On disk. */
    uint64_t tier2;
    uint64_t oldest; /* The first record that can be read, maybe from a lower tier. */
    int failed;
    struct bop_error error; /* The first failure. */
    bool opening;           /* Nobody is told anything yet. */
    int poison;             /* A write failed: nothing is sent until that is settled. */

    /* Commits. */
    struct bop_list queue; /* Batches, oldest first; the last may be open. */
    struct bop_list kept;  /* Written ones that are not durable, while they may be re-homed. */
    struct bop_list spare;
    unsigned spare_count;
    struct bop__batch *open;
    bool takes_write;         /* The owner is about to wait, and may as well write by itself, */
    struct bop__batch *taken; /* ... this one. */
    unsigned writes_max;
    unsigned writes;          /* On their way. */
    unsigned writes_unsynced; /* ... of them those without a sync. */
    uint32_t slots;           /* A bit for each that is taken. */
    uint64_t pending_bytes;
    uint64_t sent_bytes;   /* Since open. */
    uint64_t commit_bytes; /* What a synced commit has, on average. */
    struct bop__plan reserved;
    size_t reserved_size;
    bool is_reserved;
    enum bop_aof_level reserved_level;

    /* Files. */
    struct bop__segment *writing;   /* The one begun last. */
    struct bop__segment *beginning; /* ... while it has no name; else NULL. */
    struct bop__handle *next;       /* Of a file that is ready to become a segment. */
    struct bop__handle handles[3];
    bool stale_next; /* There may be a next.tmp that is of no use. */
    struct bop_write header_write;
    unsigned header_slot;
    uint8_t *header_memory;
    uint8_t *header_block;
    bool header_done;
    bool aligned;
    bool direct;
    struct bop_list removals; /* Segments whose files are to go. */
    struct bop_list to_seal;
    struct bop_list drafts; /* Batches that were sent and have to go into a draft, in order. */
    uint64_t draft_bytes;   /* Of them. */
    unsigned sealing;       /* Named ones that are not the newest and have no footer. */
    struct bop__jobs jobs;

    /* Room. */
    bool no_room;          /* The disk was full, or below room_min, when last looked at. */
    bool room_wanted;      /* Look again. */
    bool stuck;            /* A commit met the full disk: none goes before there is room. */
    uint64_t room_checked; /* sent_bytes when it was looked at. */
    unsigned refused;      /* A bit for each enum bop_aof_refusal that was given. */

    /* What callbacks were told. */
    uint64_t told_os;
    uint64_t told_durable;
    uint64_t told_tier2;
    bool told_failed;
    struct bop__watermark published_os;
    uint64_t published_durable;

    unsigned rehomed;
    unsigned rehome_tries; /* Since something became durable. */

    struct bop__archive *archive;        /* NULL without tiers. */
    uint64_t archive_told;               /* It was told of segments that begin below. */
    struct bop__aof_catalogue catalogue; /* What other threads see. */

    struct bop__cursor cursors[BOP__AOF_CURSORS];
    struct bop_aof_reader *below; /* Of what is only in lower tiers; NULL until it is needed. */
    uint64_t cursor_clock;
    struct bop__aof_metrics metrics;
};

/** The segment that holds seq, which lies in [first, last]. */
struct bop__segment *bop__aof_segment_of(const struct bop_aof *aof, uint64_t seq);
/** Room for more segments. 0 or BOP_ENOMEM. */
int bop__aof_segments_reserve(struct bop_aof *aof, size_t more);
/** The newest segment. */
static inline struct bop__segment *bop__aof_newest(const struct bop_aof *aof)
{
    return aof->segments[aof->segment_count - 1];
}
/** The header of the segment that would be begun now; the log takes the next generation. */
struct bop__aof_segment_header bop__aof_next_header(struct bop_aof *aof, uint64_t base,
                                                    uint64_t size);
/** What a segment's size is that has a first record of this size. */
uint64_t bop__aof_segment_size(const struct bop_aof *aof, uint64_t record_size);
/** State all that must hold between calls. */
void bop__aof_check(const struct bop_aof *aof);
/** Set the gauges. */
void bop__aof_update_metrics(struct bop_aof *aof);

/* append.c */

/** Begin a segment after the last record; `blank` becomes it, and batch its first. The oldest
 * `drop` leave, and those that begin above the last record. There is room for it. */
void bop__aof_begin_segment(struct bop_aof *aof, struct bop__batch *batch,
                            struct bop__segment *blank, uint64_t size, size_t drop);
/** Get hold of a segment and of a batch for it. 0 or BOP_ENOMEM. */
int bop__aof_blank_segment(struct bop_aof *aof, struct bop__segment **out_segment,
                           struct bop__batch **out_batch);
void bop__plan_drop(struct bop_aof *aof, struct bop__plan *plan);

/* commit.c */

/** Send what is due. */
void bop__pump(struct bop_aof *aof);
/** Write aof->taken on this thread. */
void bop__write_taken(struct bop_aof *aof);
/** Something was done: see what follows, send, and tell. */
void bop__after(struct bop_aof *aof);
/** All that is written is on disk. */
void bop__made_durable(struct bop_aof *aof);
/** A write or a job failed. */
void bop__poison(struct bop_aof *aof, int code, const struct bop_error *err);
/** Where the next write may go from. There is one free. */
unsigned bop__slot_take(struct bop_aof *aof);
void bop__slot_give(struct bop_aof *aof, unsigned slot);

/* rehome.c */

/** Move what is not durable to new segments. False if that cannot be done; why is in err. */
bool bop__rehome(struct bop_aof *aof, struct bop_error *err);

/* levels.c */

/** 0, or why this cannot be appended now. */
int bop__admit(struct bop_aof *aof, uint64_t bytes, const struct bop_aof_append *append,
               size_t count);
/** Remember a refusal, count it, and return its code. */
int bop__refuse(struct bop_aof *aof, enum bop_aof_refusal refusal);
/** As many sealed segments wait for the next tier as may. */
bool bop__is_rolled_full(const struct bop_aof *aof);
enum bop_aof_level bop__level(const struct bop_aof *aof, enum bop_aof_level level);

/* archived.c */

int bop__archived_open(struct bop_aof *aof, struct bop_error *err);
/** Tell the archive of sealed segments that it has not heard of, in order. */
void bop__archived_tell(struct bop_aof *aof);
void bop__archived_close(struct bop_aof *aof);
/** Segments that are only in the archive. */
unsigned bop__archived_count(const struct bop_aof *aof);
/** Records from front to base - 1 have no local segments: 0 if the archive has them. */
int bop__archived_check(struct bop_aof *aof, uint64_t front, uint64_t base, struct bop_error *err);

/* own_lane.c */

int bop__own_lane_open(struct bop_aof *aof, struct bop_error *err);
/** Let it finish. */
void bop__own_lane_close(struct bop_aof *aof);

/* reader.c */

void bop__cursors_init(struct bop_aof *aof);
void bop__cursors_deinit(struct bop_aof *aof);
/** The segment goes: nobody reads it any more. */
void bop__cursors_forget(struct bop_aof *aof, const struct bop__segment *segment);
/** The link of a record that is there, and the offset of the next one in its segment. */
int bop__aof_link_of(struct bop_aof *aof, uint64_t seq, uint32_t *out_link, uint64_t *out_end);

/* recovery.c */

/** Find what the directory holds: fill segments, last, chain, and go on there. */
int bop__aof_recover(struct bop_aof *aof, struct bop_aof_recovery *out_recovery,
                     struct bop_error *err);

#endif
