/*
 * Tags, as the rest of the memory module sees them.
 *
 *      tag's live bytes = the sum over the threads of allocated - deallocated
 *      tag->live        = the sum over the threads of `flushed`
 *
 * The second is what a peak, a limit and a callback are measured by. A thread
 * flushes when it is off by more than BOP__TAG_SLACK; with a limit or a callback
 * at each operation, so that it is exact.
 */
#ifndef BOP_CORE_MEM_TAG_H
#define BOP_CORE_MEM_TAG_H

#include "thread.h"

#define BOP__TAG_SLACK 65536

struct bop__tag {
    struct bop_allocator heap;  /* What bop_tag() returns. */
    struct bop_allocator pages; /* What bop_tag_pages() returns. */
    unsigned index;
    uint32_t counts_offset; /* Of its counts in a thread's record. */
    _Atomic bool exact;     /* It has a limit or a callback: flush always. */
    char name[BOP_TAG_NAME_MAX + 1];

    _Atomic uint64_t limit;                        /* 0: none. */
    _Atomic uint64_t low_bytes;                    /* UINT64_MAX: no callback for that. */
    _Atomic bool low_armed;                        /* The live bytes were not above low_bytes. */
    void (*low_fn)(void *user, size_t live_bytes); /* With low_user, under bop__mem_lock. */
    void *low_user;

    _Alignas(64) _Atomic int64_t live;
    _Atomic int64_t peak;

    /* The sums at the last reset; under bop__mem_lock. */
    struct bop_tag_stats base;
};

/* Of all tags together. */
extern _Atomic int64_t bop__total_live;
extern _Atomic int64_t bop__total_peak;

/* The tags there are, by index. An index below the count stays valid. */
extern struct bop__tag bop__tags[BOP_TAG_MAX];
unsigned bop__tag_count(void);

/* "untagged" for what is none, as BOP__SAMPLE_UNTAGGED. */
const char *bop__tag_name(unsigned index);

/* The tag "untagged", once the family counts. */
extern struct bop__tag *_Atomic bop__tag_untagged;

/* Count on a thread's record after the fact. */
void bop__tag_count_alloc(struct bop__mem_thread *thread, struct bop__tag *tag, size_t size);
void bop__tag_count_free(struct bop__mem_thread *thread, struct bop__tag *tag, size_t size);

/* Bring the tag's sum up to date with the thread's counts. Any thread, if `thread` stays. */
void bop__tag_flush(struct bop__mem_thread *thread, struct bop__tag *tag);

/* The thread exits, or did not come along into a fork's child: add its counts to bop__mem_direct's.
 * Under bop__mem_lock. */
void bop__tag_fold(struct bop__mem_thread *thread);

#endif
