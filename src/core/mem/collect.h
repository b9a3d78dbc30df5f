/*
 * Collecting a heap: what the purger does once it has the heap to itself.
 */
#ifndef BOP_CORE_MEM_COLLECT_H
#define BOP_CORE_MEM_COLLECT_H

#include <bop/base.h>

/* May a heap be collected by another thread than its owner, who is kept out of it? Depends on the
 * version of mimalloc alone. */
bool bop__collect_is_for_others(void);

/* The calling thread's heap, for the functions below. It lives until the thread exits. */
void *bop__collect_heap(void);

/* Free the empty pages of a heap and return what is free of its segments. The caller has the heap
 * to itself, and there is no other heap of the owner's. */
void bop__collect_other(void *heap);

/* The calling thread's heap, what exited threads have left, and, if `force`, at once what is kept
 * for the next to need it. Inside. */
void bop__collect_own(bool force);

/* Set what suits the purger: it returns memory, so that owners need not. */
void bop__collect_tune(void);

#endif
