/*
 * What readers on other threads may see of a log: its local segment files, how far each may be
 * read, and the events that those at the tail wait for.
 *
 * The owner publishes, any thread looks. All is under one mutex, held for a few assignments; nobody
 * does I/O under it. A file is published when its name is durable, and leaves when the log lets go
 * of it; who holds a reference may go on reading what it opened before (the file may be unlinked
 * any time; one that cannot be opened any more is looked for anew). What was published as readable
 * never changes in the file, but that a sealed file ends with a footer where zeros were, behind
 * its records, and is cut there.
 *
 * Truncation from the back makes bytes void that were readable. Who reads remembers `truncations`,
 * and after reading compares: if it has changed, what was read may be void, and its place must be
 * looked for anew. (Bytes stay readable meanwhile: nothing is overwritten.)
 */
#ifndef BOP_STORE_AOF_CATALOGUE_H
#define BOP_STORE_AOF_CATALOGUE_H

#include <pthread.h>
#include <stdatomic.h>

#include "footer.h"
#include "format.h"

/** A local segment file. */
struct bop__segment_file {
    /* These never change once it is published. */
    struct bop_allocator *allocator;
    struct bop__aof_segment_header
        header; /* Identity: base, generation, seed, epoch, origins ... */
    uint32_t salt;
    bool aligned; /* It may hold fillers. */

    atomic_uint references;

    /* Under the catalogue's lock; readers get copies in a bop__file_view. */
    bool newest;      /* It still grows: end_seq and end say nothing yet. */
    uint64_t end_seq; /* One above the last record kept. */
    uint64_t end;     /* Where that one ends; fillers may follow. */
    bool sealed;
    struct bop__segment_facts facts; /* Once sealed. facts.end_seq may be above end_seq, if a
                                      * truncation from the back came after that. */
    size_t path_size;
    char path[];
};

/** One file as a reader may see it now. */
struct bop__file_view {
    struct bop__segment_file *file; /* A reference, the caller's. */
    uint64_t end_seq;               /* One above the last record of it that is visible. */
    uint64_t end;                   /* Bytes below may be read. */
    bool whole;                     /* It grows no more, and all that is kept of it is visible. */
    bool sealed;                    /* facts are valid. */
    struct bop__segment_facts facts;
    uint64_t truncations; /* When this was looked up. */
};

/** What there is, all of one moment. */
struct bop__catalogue_state {
    uint64_t oldest;      /* The first record that can be read, maybe from a lower tier. */
    uint64_t first;       /* The first one in local files. */
    uint64_t visible;     /* The last one visible at the level asked for; first - 1 if none. */
    size_t files;         /* Local ones. */
    uint64_t changes;     /* Counts everything below and above; for bop__catalogue_wait. */
    uint64_t truncations; /* From the back, and resets. */
    uint64_t sealed;      /* Segments sealed since open. */
    uint64_t hydrations;  /* Fetches that ended: who waits for bytes may try again. */
    bool closed;          /* The log closes or has failed: nothing more will come. */
};

/* What is visible at a level. */
struct bop__watermark {
    uint64_t seq;
    uint64_t end; /* Where record seq ends in its file. */
};

struct bop__aof_catalogue {
    /* state.truncations, for readers to look at before each record without the lock. */
    _Atomic uint64_t atomic_truncations;
    /* What is not worth a lock at each append: bop_aof_last, and what tier 2 has. */
    _Atomic uint64_t last;
    _Atomic uint64_t tier2;
    struct bop_allocator *allocator;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool made;
    unsigned waiters;
    struct bop__segment_file **files; /* By ascending base, contiguous. */
    size_t count;
    size_t capacity;
    struct bop__watermark os;
    struct bop__watermark durable;
    struct bop__catalogue_state state; /* visible, files and first are filled in for copies. */
};

/** Without the lock: what was appended last, and what tier 2 has. Nobody waits for these. */
static inline void bop__aof_catalogue_note(struct bop__aof_catalogue *catalogue, uint64_t last,
                                           uint64_t tier2)
{
    /* Relaxed: numbers by themselves. */
    atomic_store_explicit(&catalogue->last, last, memory_order_relaxed);
    atomic_store_explicit(&catalogue->tier2, tier2, memory_order_relaxed);
}

/* ---- Readers: any thread ---- */

/** level is BOP_AOF_OS or BOP_AOF_DISK. */
struct bop__catalogue_state bop__aof_catalogue_state(struct bop__aof_catalogue *catalogue,
                                                     enum bop_aof_level level);

/** The file that holds record seq. 0; BOP_EEND if seq is above what is visible; BOP_ENOTFOUND if it
 * is below the local files. */
int bop__aof_catalogue_find(struct bop__aof_catalogue *catalogue, enum bop_aof_level level,
                            uint64_t seq, struct bop__file_view *out_view);

/** The n-th file, from 0, the oldest. False if there is none. It may have nothing visible: then
 * end_seq is its base. */
bool bop__aof_catalogue_nth(struct bop__aof_catalogue *catalogue, enum bop_aof_level level,
                            size_t n, struct bop__file_view *out_view);

/** The file of this generation. False if there is none. */
bool bop__aof_catalogue_generation(struct bop__aof_catalogue *catalogue, enum bop_aof_level level,
                                   uint64_t generation, struct bop__file_view *out_view);

/** Wait until state.changes is not `seen` any more. False after timeout_ms; < 0: no limit. */
bool bop__aof_catalogue_wait(struct bop__aof_catalogue *catalogue, uint64_t seen, int timeout_ms);

struct bop__segment_file *bop__segment_file_ref(struct bop__segment_file *file);
void bop__segment_file_unref(struct bop__segment_file *file);

/* ---- The owner ---- */

int bop__aof_catalogue_init(struct bop__aof_catalogue *catalogue, struct bop_allocator *allocator);
/** No reader is left. */
void bop__aof_catalogue_deinit(struct bop__aof_catalogue *catalogue);

/** A file without content yet and not in any catalogue, or NULL. The reference is the caller's. */
struct bop__segment_file *bop__segment_file_new(struct bop_allocator *allocator, const char *dir);
/** Give it its identity and path; dir is the one it was made for. */
void bop__segment_file_init(struct bop__segment_file *file,
                            const struct bop__aof_segment_header *header, const char *dir);

/** Room for more files. 0 or BOP_ENOMEM. */
int bop__aof_catalogue_reserve(struct bop__aof_catalogue *catalogue, size_t more);
/** A file that was named becomes the newest. A reference is taken. There is room. Files that begin
 * at or above it leave; of the one before the end was said. */
void bop__aof_catalogue_add(struct bop__aof_catalogue *catalogue, struct bop__segment_file *file);
/** The file holds no record from end_seq on. */
void bop__aof_catalogue_end(struct bop__aof_catalogue *catalogue, struct bop__segment_file *file,
                            uint64_t end_seq, uint64_t end);
/** The file leaves. Nothing if it is not there. */
void bop__aof_catalogue_drop(struct bop__aof_catalogue *catalogue, struct bop__segment_file *file);
/** The footer is on disk. counts: it is one that was sealed since open. */
void bop__aof_catalogue_sealed(struct bop__aof_catalogue *catalogue, struct bop__segment_file *file,
                               const struct bop__segment_facts *facts, bool counts);

/** What is visible now. */
void bop__aof_catalogue_publish(struct bop__aof_catalogue *catalogue, struct bop__watermark os,
                                struct bop__watermark durable);
/** Records above are void: nothing above is visible from now on, until published anew. */
void bop__aof_catalogue_truncate(struct bop__aof_catalogue *catalogue, uint64_t last_kept,
                                 uint64_t end);
void bop__aof_catalogue_oldest(struct bop__aof_catalogue *catalogue, uint64_t oldest);
void bop__aof_catalogue_hydrated(struct bop__aof_catalogue *catalogue);
void bop__aof_catalogue_close(struct bop__aof_catalogue *catalogue);

#endif
