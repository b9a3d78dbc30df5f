/*
 * What a thread has for the malloc family: its counters by tag, and the biased
 * lock that keeps the purger out of its heap.
 *
 * The record hangs off one thread-local pointer; the lock, its door, is
 * thread-local itself. Around each call into the heap its owner does
 *
 *      busy = INSIDE; compiler fence; gate == 0?      the heap      busy = OUTSIDE
 *
 * and the purger, which may only touch the heap of a thread that is outside,
 *
 *      gate |= PURGING; fence on all threads; busy != INSIDE?
 *
 * so that one of the two sees the other. The owner pays two stores, a load and a
 * branch; docs/design/memory.md says why that is sound. Whatever is rare hangs
 * on the gate as well: that of a thread without a record yet, or any more, is
 * never 0.
 */
#ifndef BOP_CORE_MEM_THREAD_H
#define BOP_CORE_MEM_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include <bop/mem.h>

enum bop__mem_busy {
    BOP__MEM_QUIET = 0, /* Outside, and the purger has seen it so. */
    BOP__MEM_INSIDE = 1,
    BOP__MEM_OUTSIDE = 2, /* And was inside since the purger last looked. */
};

enum bop__mem_gate {
    BOP__GATE_DIRECT = 1 << 0,  /* A sentinel: no lock, counters shared by all who use it. */
    BOP__GATE_FOREIGN = 1 << 1, /* Another copy of this library owns malloc(): use that. */
    BOP__GATE_PURGING = 1 << 2, /* The purger is in the heap: wait. */
    BOP__GATE_WAKE = 1 << 3,    /* The purger sleeps until somebody does something. */
    BOP__GATE_COLLECT = 1 << 4, /* The owner is to collect its heap itself. */
    BOP__GATE_START = 1 << 5,   /* A fork's child has allocated: start its purger. */
    BOP__GATE_SAMPLE = 1 << 6,  /* Blocks are sampled, or sampled ones are alive. */
    BOP__GATE_ALL = 0xff,       /* What concerns every call. */
    BOP__GATE_COUNT = 1 << 8,   /* The family counts under "untagged"; tags do not care. */
    BOP__GATE_FAMILY = BOP__GATE_ALL | BOP__GATE_COUNT,
};

/*
 * One thread's share of a tag's counts, written by its owner alone but for `flushed`, and `high`
 * at a reset. Live bytes are bytes_allocated - bytes_deallocated and may be negative: somebody has
 * to free what another thread allocated.
 */
struct bop__tag_counts {
    _Alignas(64) _Atomic uint64_t allocations;
    _Atomic uint64_t deallocations;
    _Atomic uint64_t bytes_allocated;
    _Atomic uint64_t bytes_deallocated;
    _Atomic int64_t high;    /* The most live bytes since the last flush. */
    _Atomic int64_t flushed; /* The live bytes that are in the tag's sum already. */
    uint64_t look_from;      /* The owner's: bytes_deallocated to look at the fall from. */
};

/* A door has two faces: tags do not care whether the family is counted. */
enum bop__fast_face { BOP__FAST_FAMILY, BOP__FAST_TAGS, BOP__FAST_FACES };

#define BOP__FAST_NOBODY 1 /* No thread's number: those are addresses of what is aligned. */

/* Lies in the thread's own thread-local storage: each call goes by it, without a pointer to load.
 */
struct bop__mem_door {
    _Alignas(64) _Atomic uint8_t busy; /* enum bop__mem_busy */
    _Atomic uint32_t gate;             /* enum bop__mem_gate */

    /* What the gate says, for fast.h: changed with it, under the registry's lock. */
    struct bop__fast_heap *_Atomic heaps[BOP__FAST_FACES];
    _Atomic uintptr_t owners[BOP__FAST_FACES]; /* mimalloc's number of the thread. */

    /* The owner's. */
    uint32_t looks_in;   /* Calls of the slow kind before bop__purge_look(). */
    uint32_t looks_step; /* The last such number. */
};

struct bop__mem_thread {
    _Alignas(64) struct bop__mem_door *door; /* The owner's; of the sentinels, a shared one. */

    /* The owner's. */
    uint64_t in_callback;  /* A bit a tag whose low-memory callback runs. */
    int64_t total_pending; /* Live bytes of all tags that are not in the total's sum yet. */

    /* Under the registry's lock. */
    struct bop__mem_thread *next;
    struct bop__mem_thread *previous;
    struct bop__fast_heap *fast_heap; /* What the door opens to; NULL: nothing. */
    uintptr_t fast_owner;

    /* The purger's. */
    void *heap; /* mi_heap_t of the owner; NULL once it exits. */
    clockid_t cpu_clock;
    uint64_t cpu_ns;
    unsigned idle_ticks;
    unsigned calm_ticks;
    uint64_t purge_after_ns;
    uint64_t purged_generation;

    struct bop__tag_counts tags[BOP_TAG_MAX];
};

/* Shared by threads that are between two worlds: being registered, or past their exit. Threads
 * that exit fold their counts into its, which are counted by atomic additions. */
extern struct bop__mem_thread bop__mem_direct;

extern _Thread_local
    __attribute__((tls_model("initial-exec"))) struct bop__mem_thread *bop__mem_self;
extern _Thread_local
    __attribute__((tls_model("initial-exec"))) struct bop__mem_door bop__mem_own_door;

/* The way in, if nothing of `mask` is up. False: bop__mem_enter_slow() is to be called. */
static inline bool bop__mem_enter(struct bop__mem_door *door, unsigned mask)
{
    atomic_store_explicit(&door->busy, BOP__MEM_INSIDE, memory_order_relaxed);
    /* Pairs with the membarrier() in the purger. */
    atomic_signal_fence(memory_order_seq_cst);
    /* Acquire: what a purger did to the heap is seen before it is used. */
    return BOP_LIKELY(!(atomic_load_explicit(&door->gate, memory_order_acquire) & mask));
}

static inline void bop__mem_leave(struct bop__mem_door *door)
{
    /* Release: pairs with the purger's load, which sees what was done to the heap. */
    atomic_store_explicit(&door->busy, BOP__MEM_OUTSIDE, memory_order_release);
}

/* See to whatever the gate says, then go in; returns the thread's record, or bop__mem_direct. */
struct bop__mem_thread *bop__mem_enter_slow(void);

/* The thread's record, or bop__mem_direct, without going in. */
struct bop__mem_thread *bop__mem_thread(void);

static inline bool bop__mem_is_direct(const struct bop__mem_thread *thread)
{
    return thread == &bop__mem_direct;
}

/* Another copy of this library is the process's malloc(): this one goes through it. Decided before
 * anything is allocated. */
extern bool bop__mem_foreign;

/*
 * Whoever exports malloc() on top of this family calls it from a constructor, before there is a
 * second thread: all of mimalloc's users in the process are then known to go through the family,
 * and what idle threads hold can be given back for them. It must export the symbol bop_malloc_owner
 * of any type as well: other copies of this library in the process, say one linked statically into
 * a program that runs with the library preloaded, know by it to use malloc() in mimalloc's stead.
 */
void bop__heap_own_malloc(void);
extern bool bop__mem_owns_malloc;

/* The registry: all records. */
extern pthread_mutex_t bop__mem_lock;
extern struct bop__mem_thread *bop__mem_threads;

/* All records and the sentinel; under the lock. */
#define BOP__MEM_FOR_EACH(thread)                                                                  \
    for (struct bop__mem_thread *thread = &bop__mem_direct; thread;                                \
         thread = thread == &bop__mem_direct ? bop__mem_threads : thread->next)

/* Set in the thread's gate, or clear. Under the lock. */
void bop__mem_gate_set(struct bop__mem_thread *thread, unsigned bits);
void bop__mem_gate_clear(struct bop__mem_thread *thread, unsigned bits);

/* Set in each gate, and in those to come; clear in all of them. Under the lock. */
void bop__mem_gate_all(unsigned bits);
void bop__mem_gate_none(unsigned bits);
unsigned bop__mem_gate_of_new_threads(void);

#endif
