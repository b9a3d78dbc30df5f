/*
 * What the rest of the memory module knows of the purger.
 */
#ifndef BOP_CORE_MEM_PURGE_H
#define BOP_CORE_MEM_PURGE_H

#include "thread.h"

/* Before the process's first allocation. */
void bop__purge_process_init(void);

/* The thread registers: note what the purger has to know. The record is nobody else's yet. */
void bop__purge_thread_init(struct bop__mem_thread *thread);

/* Do what is up in the owner's gate, or wait until it is done. Outside of the heap. */
void bop__purge_gate(struct bop__mem_thread *thread);

/* The gate says BOP__GATE_START: one more allocation of a fork's child. */
void bop__purge_count_child(struct bop__mem_thread *thread);

/* Start the purger once the process has so much resident; 0: no more. Not before there is something
 * to give back, for programs that count their threads, or fork at once, to find one. */
void bop__purge_start_from(uint64_t resident_bytes);

/* Is it time to look at the process's size? Outside of the heap. */
void bop__purge_look(struct bop__mem_door *door);

/* The owner has been in the heap for what the fast path has not: fresh memory, for one. */
static inline void bop__purge_count(struct bop__mem_door *door)
{
    if (BOP_UNLIKELY(--door->looks_in == 0)) {
        bop__purge_look(door);
    }
}

/* The owner exits: wait until the purger has left its heap. Under bop__mem_lock, which is released
 * meanwhile. */
void bop__purge_wait(struct bop__mem_thread *thread);

/* prepare locks; the others unlock, and in the child there is no purger. */
void bop__purge_fork_prepare(void);
void bop__purge_fork_parent(void);
void bop__purge_fork_child(void);

#endif
