/*
 * A queue of 64-bit values (or pointers) between any number of producers and
 * any number of consumers, in one of three kinds chosen at creation.
 *
 *      kind      capacity   order                          progress
 *      lanes     grows      of each producer               lock-free with tokens but
 *                                                          while a claim is taken over
 *      fifo      grows      of all: linearizable           lock-free
 *      bounded   fixed      of all: linearizable but for   a preempted thread may
 *                           a refusal, see below           hold up its own cell
 *
 * `lanes` is the default and the fastest: each producer token writes to a lane
 * of its own without any read-modify-write, and a consumer token claims several
 * items ahead with one. Each consumer receives the items of one producer in the
 * order in which they were pushed; between two consumers the claims interleave,
 * so that one may be handed item 17 before the other is handed item 3. With
 * claim_ahead = 1 the items of a producer leave in their order altogether. What
 * a consumer has claimed and not touched is not lost to the others: one that
 * finds nothing else takes it over where it keeps its own order that way, and
 * in any case once the token is closed or the thread that claimed has exited.
 * A producer token that is some 65,000 items ahead offers its CPU to other
 * threads from time to time (sched_yield); the try_ forms do not.
 *
 * `fifo` runs on segments whose slots producers reserve by fetch-and-add (after
 * Correia and Ramalhete's FAAArrayQueue, 2016), with a bulk published by one
 * compare-and-swap, hazard pointers (Michael, 2004) that stay in the token, and
 * segments that are recycled and given back. A token that idles keeps one of them.
 *
 * `bounded` is a ring after Vyukov's (2010) with bulk forms that take a run of
 * cells with one compare-and-swap; it costs ten bytes an item of its capacity. It
 * may refuse a push as full, or a pop as empty, while another thread is in the
 * middle of the operation that would make it possible; what it does accept is
 * linearizable.
 *
 * Every value is allowed. What was written before a push is seen after the pop
 * that returns it.
 *
 * Tokens. Each operation takes a token or NULL. A token makes operations faster;
 * it may move from thread to thread (with the usual happens-before), must be
 * used by one thread at a time, and must be closed before its queue is
 * destroyed: builds with debug_checks abort with a message if it is used after.
 * Without a token a thread's pushes still keep their order.
 *
 * Threads: any thread may call any function at any time, but for create and
 * destroy, which need the queue to themselves. Nothing waits for items or room
 * but the functions whose name ends in _wait; close waits for pushes under way.
 * Locks are held for a moment in `lanes` only: by pushes without a token, which
 * take turns at a few lanes, by whoever opens or closes a token, and by who takes
 * over a claim, which its owner waits for if it pops just then: some microseconds,
 * or until that thread runs again if it is preempted.
 *
 * The algorithms, their memory orders and what has been model-checked are in
 * docs/design/mpmc.md.
 */
#ifndef BOP_MPMC_H
#define BOP_MPMC_H

#include <sys/types.h>

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/error.h>

struct bop_mpmc;
struct bop_mpmc_producer;
struct bop_mpmc_consumer;

enum bop_mpmc_kind {
    BOP_MPMC_LANES = 0,
    BOP_MPMC_FIFO = 1,
    BOP_MPMC_BOUNDED = 2,
};

#define BOP_MPMC_FOREVER UINT64_MAX

/** How to build a queue. A zeroed field means its default. */
struct bop_mpmc_options {
    struct bop_allocator *allocator; /* Borrowed until destroy; any thread. Default: "core.mpmc". */
    enum bop_mpmc_kind kind;
    /* bounded: items, a power of two, 2 to 2^31; required. Others: must be 0. */
    size_t capacity;
    /* lanes and fifo: a push that would take the queue's blocks above this is refused with
     * BOP_EFULL. Default: no ceiling. At least one block (64 KiB) is always allowed. */
    size_t memory_bytes_max;
    /* Owned items: destroy hands each item still inside to this, in no particular order between
     * producers. Default: they are dropped. */
    void (*discard)(void *user, uint64_t item);
    /* Called on the thread of the call that finds the queue armed, with no lock held; it may push
     * and pop. That call is a push or close; with lanes also a pop or the closing of a token that
     * leaves items to others. See bop_mpmc_arm(). */
    void (*notify)(void *user);
    void *user;
};

/**
 * Create an empty queue.
 *
 * Returns 0; -EINVAL for options as above, with err naming the field; -ENOMEM. err may be NULL.
 */
BOP_API BOP_MUST_USE int bop_mpmc_create(const struct bop_mpmc_options *options,
                                         struct bop_mpmc **out_queue, struct bop_error *err);

/** Discard what is inside and free the queue. No other call may be under way; NULL is fine. */
BOP_API void bop_mpmc_destroy(struct bop_mpmc *queue);

/**
 * Refuse pushes from now on, and wake everyone who waits. When this returns no push succeeds any
 * more, and what was accepted can be popped; then pops return BOP_ECLOSED. Closing twice is fine.
 */
BOP_API void bop_mpmc_close(struct bop_mpmc *queue);

/** Items inside: exact while no operation is under way, else a figure between the extremes. */
BOP_API size_t bop_mpmc_size(const struct bop_mpmc *queue);

/** Bytes of blocks that the queue holds now, spare ones included. */
BOP_API size_t bop_mpmc_memory_bytes(const struct bop_mpmc *queue);

/* -- Tokens ------------------------------------------------------------------------------------ */

/** Returns 0 or -ENOMEM. */
BOP_API BOP_MUST_USE int bop_mpmc_producer_open(struct bop_mpmc *queue,
                                                struct bop_mpmc_producer **out_producer);
/** What it pushed stays. NULL is fine. */
BOP_API void bop_mpmc_producer_close(struct bop_mpmc_producer *producer);

/* The most that a consumer token may claim at once. */
#define BOP_MPMC_CLAIM_AHEAD_MAX 256

/**
 * claim_ahead: lanes: how many items it may claim at once; 1 means none ahead, 0 means 16, and up
 * to 64 where they are a small part of what waits. Others ignore it. Returns 0, -EINVAL or -ENOMEM.
 */
BOP_API BOP_MUST_USE int bop_mpmc_consumer_open(struct bop_mpmc *queue, unsigned claim_ahead,
                                                struct bop_mpmc_consumer **out_consumer);
/** What it had claimed goes to the others; it arrives late in its producer's order. NULL is fine.
 */
BOP_API void bop_mpmc_consumer_close(struct bop_mpmc_consumer *consumer);

/* -- Push -------------------------------------------------------------------------------------- */

/*
 * All pushes return 0 (or a count), or
 *   BOP_EFULL    a bounded queue is full, the memory ceiling is reached, or a non-allocating form
 *                would have to allocate
 *   BOP_ECLOSED  the queue is closed
 *   -ENOMEM      no memory for a block
 * and after any of these the items are still the caller's.
 */

/** Push one item. producer may be NULL. */
BOP_API BOP_MUST_USE int bop_mpmc_push(struct bop_mpmc *queue, struct bop_mpmc_producer *producer,
                                       uint64_t item);

/**
 * Push all of the items or none; 0 items succeed. They are popped in their order, as for single
 * pushes; others' items may come between them. A bounded queue's capacity bounds the count.
 */
BOP_API BOP_MUST_USE int bop_mpmc_push_bulk(struct bop_mpmc *queue,
                                            struct bop_mpmc_producer *producer,
                                            const uint64_t *items, size_t count);

/** Push as many of the items as fit, from the front: their number (at least 1), or why none. */
BOP_API BOP_MUST_USE ssize_t bop_mpmc_push_some(struct bop_mpmc *queue,
                                                struct bop_mpmc_producer *producer,
                                                const uint64_t *items, size_t count);

/** As push, and BOP_EFULL rather than allocate. */
BOP_API BOP_MUST_USE int bop_mpmc_try_push(struct bop_mpmc *queue,
                                           struct bop_mpmc_producer *producer, uint64_t item);

/** As push_bulk, and BOP_EFULL rather than allocate. */
BOP_API BOP_MUST_USE int bop_mpmc_try_push_bulk(struct bop_mpmc *queue,
                                                struct bop_mpmc_producer *producer,
                                                const uint64_t *items, size_t count);

/** As push, and while it is full wait, at most timeout_us or BOP_MPMC_FOREVER: BOP_ETIMEOUT then.
 */
BOP_API BOP_MUST_USE int bop_mpmc_push_wait(struct bop_mpmc *queue,
                                            struct bop_mpmc_producer *producer, uint64_t item,
                                            uint64_t timeout_us);

/** As push_bulk, all or none, and wait as push_wait does. */
BOP_API BOP_MUST_USE int bop_mpmc_push_bulk_wait(struct bop_mpmc *queue,
                                                 struct bop_mpmc_producer *producer,
                                                 const uint64_t *items, size_t count,
                                                 uint64_t timeout_us);

/* -- Pop --------------------------------------------------------------------------------------- */

/**
 * Pop one item. consumer may be NULL.
 *
 * Returns 1 and the item, 0 if the queue is empty, or BOP_ECLOSED if it is closed and drained.
 */
BOP_API BOP_MUST_USE int bop_mpmc_pop(struct bop_mpmc *queue, struct bop_mpmc_consumer *consumer,
                                      uint64_t *out_item);

/** Pop up to count items: their number, 0 if the queue is empty, or BOP_ECLOSED as pop. */
BOP_API BOP_MUST_USE ssize_t bop_mpmc_pop_bulk(struct bop_mpmc *queue,
                                               struct bop_mpmc_consumer *consumer,
                                               uint64_t *out_items, size_t count);

/** As pop, and while it is empty wait, at most timeout_us or BOP_MPMC_FOREVER: 0 then. */
BOP_API BOP_MUST_USE int bop_mpmc_pop_wait(struct bop_mpmc *queue,
                                           struct bop_mpmc_consumer *consumer, uint64_t *out_item,
                                           uint64_t timeout_us);

/** As pop_bulk, and waits as pop_wait does for the first item. */
BOP_API BOP_MUST_USE ssize_t bop_mpmc_pop_bulk_wait(struct bop_mpmc *queue,
                                                    struct bop_mpmc_consumer *consumer,
                                                    uint64_t *out_items, size_t count,
                                                    uint64_t timeout_us);

/* -- In an event loop -------------------------------------------------------------------------- */

/**
 * Ask for one notification. True: armed, the next push (or close) calls options.notify and, if
 * there is one, writes to the eventfd; it may also be called spuriously. False: the queue is not
 * empty or is closed, and nothing was armed: pop first. One arming at a time; arming again is fine.
 */
BOP_API BOP_MUST_USE bool bop_mpmc_arm(struct bop_mpmc *queue);

/**
 * The queue's eventfd, created by the first call: non-blocking, close-on-exec, owned by the queue.
 * Readable after a notification until bop_mpmc_arm() or a read clears it. Returns it or -errno.
 */
BOP_API BOP_MUST_USE int bop_mpmc_eventfd(struct bop_mpmc *queue);

#endif
