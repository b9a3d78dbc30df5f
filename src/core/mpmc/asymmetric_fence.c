/*
 * membarrier(2) behind the asymmetric fences.
 */
#include "asymmetric_fence.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

bool bop__asymmetric_fence_hot_is_full = true;

static pthread_once_t registered_once = PTHREAD_ONCE_INIT;
static bool kernel_helps;

static void register_once(void)
{
    kernel_helps = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
                   syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
    bop__asymmetric_fence_hot_is_full = !kernel_helps;
}

void bop__asymmetric_fence_init(void)
{
    pthread_once(&registered_once, register_once);
}

void bop__asymmetric_fence_force_full(bool force)
{
    bop__asymmetric_fence_init();
    bop__asymmetric_fence_hot_is_full = force || !kernel_helps;
}

void bop__fence_full(void)
{
    /* The thread's own, so that the thread sanitizer, which does not know fences, takes it for
     * no synchronization between threads: an order that hangs on a fence alone is to be reported.
     */
    static _Thread_local atomic_uint own;

    /* seq_cst: a read-modify-write is a full fence on x86-64; elsewhere the fence proper is it. */
    atomic_fetch_add_explicit(&own, 1, memory_order_seq_cst);
#if !defined(__x86_64__)
    __sync_synchronize();
#endif
}

void bop__fence_rare(void)
{
    if (bop__asymmetric_fence_hot_is_full) {
        bop__fence_full();
        return;
    }
    /* A failure would be silent reordering; after the trial call in register_once() there is none
     * but for a bug in the arguments. */
    BOP_ASSERT(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0);
}
