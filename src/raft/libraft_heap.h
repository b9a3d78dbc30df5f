/*
 * The memory of one libraft instance.
 *
 * libraft allocates through one process-wide heap. Ours passes each call on to
 * the allocator of the instance that is at work on this thread, and keeps the
 * blocks of an instance in a list. That buys three things:
 *
 *   - Memory we lend to libraft (entries, their batches, configurations inside
 *     messages) may lie in ranges that its free() leaves alone. The rules of
 *     0.22.1 on who frees what, which differ from case to case and from version
 *     to version, do not matter then.
 *   - After a failed allocation free() does nothing any more. libraft has error
 *     paths that free twice or leave a freed pointer behind; they do no harm to
 *     memory that stays. The instance is given up after that (BOP_ENOMEM), and
 *     its blocks go when it is destroyed.
 *   - What libraft leaks on an error path is released with the instance as well.
 */
#ifndef BOP_RAFT_LIBRAFT_HEAP_H
#define BOP_RAFT_LIBRAFT_HEAP_H

#include <bop/alloc.h>

#define LIBRAFT_LENT_MAX 2

struct libraft_block;

struct libraft_range {
    uintptr_t begin;
    uintptr_t end;
};

struct libraft_heap {
    struct bop_allocator *allocator;
    struct libraft_block *blocks;
    struct libraft_range lent[LIBRAFT_LENT_MAX];
    bool failed; /* An allocation failed: nothing libraft holds can be trusted. */
};

/** Make libraft use these heaps. Any number of times, from any thread. */
void bop__libraft_heap_install(void);

void bop__libraft_heap_init(struct libraft_heap *heap, struct bop_allocator *allocator);

/** Free what is left. Returns the number of blocks that were. */
size_t bop__libraft_heap_deinit(struct libraft_heap *heap);

/** Let libraft's free() ignore a range; size 0 takes it back. slot is below LIBRAFT_LENT_MAX. */
void bop__libraft_heap_lend(struct libraft_heap *heap, unsigned slot, const void *begin,
                            size_t size);

/** Calls of libraft on this thread work for this heap from here on, until leave. */
void bop__libraft_heap_enter(struct libraft_heap *heap);
void bop__libraft_heap_leave(struct libraft_heap *heap);

#endif
