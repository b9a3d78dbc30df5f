/*
 * Giving memory back.
 */
#include "purge.h"

#include "raw.h"

void bop__purge_thread_init(struct bop__mem_thread *thread)
{
}

void bop__purge_gate(struct bop__mem_thread *thread)
{
    atomic_fetch_and(&thread->gate, BOP__GATE_DIRECT | BOP__GATE_FOREIGN | BOP__GATE_COUNT);
}

void bop__purge_wait(struct bop__mem_thread *thread)
{
}

void bop__purge_fork_prepare(void)
{
}

void bop__purge_fork_parent(void)
{
}

void bop__purge_fork_child(void)
{
}

void bop_mem_purge(void)
{
#ifdef BOP_HAVE_MIMALLOC
    struct bop__mem_thread *self = bop__mem_enter_slow();

    if (!bop__mem_foreign) {
        mi_collect(true);
    }
    bop__mem_leave(self);
#else
    malloc_trim(0);
#endif
}
