/*
 * What the kinds of queue and their common front share.
 *
 * mpmc.c is the front: it checks arguments, calls the kind's operations, and
 * does waiting, waking, arming and closing for all of them. A kind only ever
 * pushes or pops without waiting. Each kind embeds struct bop_mpmc as the first
 * member of its own queue, and the token structs likewise.
 */
#ifndef BOP_MPMC_INTERNAL_H
#define BOP_MPMC_INTERNAL_H

#include <stdatomic.h>

#include <bop/mpmc.h>

#include "asymmetric_fence.h"
#include "eventcount.h"

#define BOP__CACHE_LINE 128 /* Two lines: the adjacent-line prefetcher pairs them. */

enum bop__mpmc_flags {
    BOP__MPMC_ALL = 1 << 0,      /* All of the items or none. */
    BOP__MPMC_NO_ALLOC = 1 << 1, /* BOP_EFULL rather than allocate. */
    BOP__MPMC_LOCKED = 1 << 2,   /* Others wait for a lock that the caller has. */
};

enum bop__mpmc_state {
    BOP__MPMC_OPEN = 0,
    BOP__MPMC_CLOSING = 1, /* Pushes are being shut out. */
    BOP__MPMC_CLOSED = 2,  /* No push succeeds any more. */
};

struct bop__mpmc_ops {
    /* Allocate the kind's queue and set it up; the front has checked the options and fills in
     * the common part afterwards. Returns 0 or a code. */
    int (*create)(const struct bop_mpmc_options *options, struct bop_allocator *allocator,
                  struct bop_mpmc **out_queue);
    /* Free everything. The front has popped all items before. */
    void (*destroy)(struct bop_mpmc *queue);

    int (*push)(struct bop_mpmc *queue, struct bop_mpmc_producer *producer, uint64_t item,
                unsigned flags);
    /* count > 0. Items pushed from the front, at least 1 (all of them with BOP__MPMC_ALL), or
     * BOP_EFULL, BOP_ECLOSED, -ENOMEM. */
    ssize_t (*push_bulk)(struct bop_mpmc *queue, struct bop_mpmc_producer *producer,
                         const uint64_t *items, size_t count, unsigned flags);
    /* 1 or 0. */
    int (*pop)(struct bop_mpmc *queue, struct bop_mpmc_consumer *consumer, uint64_t *out_item);
    /* count > 0. Items popped, or 0. */
    size_t (*pop_bulk)(struct bop_mpmc *queue, struct bop_mpmc_consumer *consumer,
                       uint64_t *out_items, size_t count);
    /* As pop_bulk, the last look before a consumer sleeps or is told "closed and drained": misses
     * nothing that was inside before the call, wherever it lies. BOP__MPMC_ELSEWHERE: it has
     * nothing for this consumer, and still something is inside, or may be. NULL: pop_bulk is like
     * that, and what it does not find is not inside. */
    ssize_t (*pop_last_look)(struct bop_mpmc *queue, struct bop_mpmc_consumer *consumer,
                             uint64_t *out_items, size_t count);

    int (*producer_open)(struct bop_mpmc *queue, struct bop_mpmc_producer **out_producer);
    void (*producer_close)(struct bop_mpmc_producer *producer);
    int (*consumer_open)(struct bop_mpmc *queue, unsigned claim_ahead,
                         struct bop_mpmc_consumer **out_consumer);
    void (*consumer_close)(struct bop_mpmc_consumer *consumer);

    /* The state is CLOSING: return when no push can succeed any more. */
    void (*close)(struct bop_mpmc *queue);
    size_t (*size)(const struct bop_mpmc *queue);
    size_t (*memory_bytes)(const struct bop_mpmc *queue);
    /* Whether a consumer that looks now may find something; it may err to the side of yes once.
     * Asked after arming. NULL: size is not 0. */
    bool (*worth_a_look)(struct bop_mpmc *queue);
};

#define BOP__MPMC_ELSEWHERE (-1)

/* The first member of each kind's queue. */
struct bop_mpmc {
    const struct bop__mpmc_ops *ops;
    enum bop_mpmc_kind kind;
    size_t bulk_max; /* More items at once never fit. 0 after create: the front's own guess. */
    struct bop_allocator *allocator;     /* For what is small and lives long. */
    struct bop_allocator *big_allocator; /* For blocks of 64 KiB: whole pages from the system
                                          * unless the user gave an allocator. */
    size_t memory_bytes_max;             /* SIZE_MAX: no ceiling. */
    bool may_refuse; /* bounded, or with a ceiling: pops look for waiting producers. */
    void (*discard)(void *user, uint64_t item);
    void (*notify)(void *user);
    void *user;
    atomic_int event_fd; /* -1 until asked for. */

    /* Read by every push and pop, written rarely. */
    _Alignas(BOP__CACHE_LINE) atomic_uint state; /* enum bop__mpmc_state */
    struct bop__eventcount not_empty;            /* Consumers wait here, and loops arm it. */
    _Alignas(BOP__CACHE_LINE) struct bop__eventcount not_full; /* Producers wait here. */
    atomic_uint bulks_waiting; /* Of them those with more than one item. */
};

/* The first member of each kind's tokens. */
struct bop_mpmc_producer {
    struct bop_mpmc *queue;
};
struct bop_mpmc_consumer {
    struct bop_mpmc *queue;
    /* The owner's, see pop.c. */
    unsigned pops;     /* That brought items, but for those of a claim, since one found none. */
    unsigned dry_runs; /* Pops that found none, after such. */
};

/* Let a moment pass in a loop that looks again, some 15 to 50 ns. */
static inline void bop__mpmc_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* As long as a pause there; yield is a no-op. */
#else
    atomic_signal_fence(memory_order_seq_cst); /* Keeps the loop. */
#endif
}

extern const struct bop__mpmc_ops bop__mpmc_lanes_ops;
extern const struct bop__mpmc_ops bop__mpmc_fifo_ops;
extern const struct bop__mpmc_ops bop__mpmc_bounded_ops;

#endif
