/*
 * An allocator that finds bugs, and the sweep that lets everything fail once.
 *
 * test_heap counts what is live, checks the size given back on free, fills new
 * and freed memory with patterns, moves a block at each realloc so that an old
 * pointer does not happen to work, and fails when its faults say so. A wrong
 * size, a second free or a write past the end aborts the program with a message.
 */
#ifndef BOP_TESTS_HEAP_H
#define BOP_TESTS_HEAP_H

#include <pthread.h>
#include <stdatomic.h>

#include <bop/alloc.h>
#include <bop/fs.h>

struct test_heap {
    struct bop_allocator allocator; /* What to hand out. Any thread. */
    struct bop_faults *faults;      /* Borrowed; may be NULL. */
    pthread_mutex_t lock;           /* Of faults, as far as the heap uses them. */
    _Atomic size_t live;            /* Bytes. */
    _Atomic size_t blocks;
};

void test_heap_init(struct test_heap *heap, struct bop_faults *faults);

/**
 * Run the body until no fault fires: in round k the k-th operation fails.
 *
 *     FAULT_SWEEP(&f->faults) {
 *         int rc = make_thing(f, &thing);
 *
 *         CHECK_EQ(rc, f->faults.fired);
 *         destroy_thing(thing);
 *         CHECK_EQ(f->heap.live, 0);
 *     }
 *     CHECK_EQ(f->faults.at, 8); // The operations of the last round, in which nothing failed.
 *
 * A failed check names the round, and ends the sweep with it. After the loop no
 * operation fails. faults is evaluated once.
 */
#define FAULT_SWEEP(faults)                                                                        \
    for (struct test__sweep sweep_ = test__sweep_begin(faults); test__sweep_next(&sweep_);)

struct test__sweep {
    struct bop_faults *faults;
    uint64_t round;
    unsigned failures_before;
};

struct test__sweep test__sweep_begin(struct bop_faults *faults);
bool test__sweep_next(struct test__sweep *sweep);

#endif
