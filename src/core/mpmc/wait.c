/*
 * How long to look before sleeping.
 *
 * Sleeping and being woken costs some ten microseconds, looking again a few
 * nanoseconds; but looking in vain takes the processor from whoever is to bring
 * the item. So the time spent looking follows what it brought lately: it doubles
 * when the item came while looking, and halves when it did not. Two threads that
 * answer each other could both sleep for ever that way, each too late for the
 * other's short look; so now and then somebody looks for as long as a wake-up
 * takes, which finds the item if that is so, and then what it took is what is
 * looked for next. On a machine with one processor nobody looks.
 */
#include "front.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

/* A round is a look and a pause, some 20 to 50 ns. */
#define SPINS_MIN   16u
#define SPINS_MAX   1024u
#define SPINS_INIT  64u
#define PROBE_EVERY 32u /* Of a thread's waits, one looks for SPINS_MAX. */

#define NS_A_SECOND UINT64_C(1000000000)

static pthread_once_t processors_once = PTHREAD_ONCE_INIT;
static bool one_processor;

static void count_processors(void)
{
    /* The machine's: this thread may be bound to one of several. Unknown counts as several. */
    one_processor = sysconf(_SC_NPROCESSORS_ONLN) == 1;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_A_SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t deadline_after(uint64_t timeout_us)
{
    uint64_t ns, deadline;

    if (timeout_us == BOP_MPMC_FOREVER || __builtin_mul_overflow(timeout_us, 1000, &ns) ||
        __builtin_add_overflow(now_ns(), ns, &deadline)) {
        return UINT64_MAX; /* Some centuries from now. */
    }
    return deadline;
}

struct bop__mpmc_wait bop__mpmc_wait_begin(struct bop__eventcount *eventcount, uint64_t timeout_us)
{
    static _Thread_local unsigned waits;
    struct bop__mpmc_wait wait = {.eventcount = eventcount};

    pthread_once(&processors_once, count_processors);
    /* Relaxed: a hint. */
    wait.spins_learned = atomic_load_explicit(&eventcount->spins, memory_order_relaxed);
    if (wait.spins_learned == 0) {
        wait.spins_learned = SPINS_INIT;
    }
    wait.spins_allowed = ++waits % PROBE_EVERY == 0 ? SPINS_MAX : wait.spins_learned;
    if (!one_processor) {
        wait.spins_left = wait.spins_allowed;
    }
    wait.deadline_ns = deadline_after(timeout_us);
    return wait;
}

static void learn(const struct bop__mpmc_wait *wait, unsigned spins)
{
    spins = (unsigned)bop_min_u64(bop_max_u64(spins, SPINS_MIN), SPINS_MAX);
    if (spins != wait->spins_learned) {
        /* Relaxed: a hint. A lost update is as good. */
        atomic_store_explicit(&wait->eventcount->spins, spins, memory_order_relaxed);
    }
}

bool bop__mpmc_wait_spin(struct bop__mpmc_wait *wait)
{
    if (wait->spins_left == 0) {
        return false;
    }
    bop__mpmc_pause();
    if (--wait->spins_left == 0) {
        learn(wait, wait->spins_learned / 2);
    }
    return true;
}

void bop__mpmc_wait_spin_paid(struct bop__mpmc_wait *wait)
{
    if (wait->spins_left > 0) {
        unsigned used = wait->spins_allowed - wait->spins_left;

        learn(wait, 2 * (unsigned)bop_max_u64(wait->spins_learned, used));
    }
}

/*
 * How many to wake up. In a ring a push that publishes late makes ready what lies behind it as
 * well, for which the others have called consumers in vain; and a pop that is late with its cell
 * likewise. So as many are called as there are items, or places, now: whoever is late sees those
 * of the others, or the consumers that they have called see its own.
 */
void bop__mpmc_signal_not_empty_slow(struct bop_mpmc *queue, unsigned count)
{
    if (queue->kind == BOP_MPMC_BOUNDED) {
        count = (unsigned)bop_max_u64(count, queue->ops->size(queue));
    }
    if (bop__eventcount_signal_slow(&queue->not_empty, count)) {
        bop__mpmc_notify(queue);
    }
}

void bop__mpmc_signal_not_full_slow(struct bop_mpmc *queue, unsigned count)
{
    if (queue->kind == BOP_MPMC_BOUNDED) {
        count = (unsigned)bop_max_u64(count, queue->bulk_max - queue->ops->size(queue));
    } else {
        count = UINT32_MAX; /* One item may free a whole block. */
    }
    BOP_IGNORE(bop__eventcount_signal_slow(&queue->not_full, count)); /* Nobody arms this one. */
    /* The one that was called may be a bulk which still does not fit, while another's push would.
     * Relaxed: that bulk has been in the queue of sleepers, and so is seen here. */
    if (atomic_load_explicit(&queue->bulks_waiting, memory_order_relaxed) > 0) {
        BOP_IGNORE(bop__eventcount_signal_slow(&queue->not_full, UINT32_MAX));
    }
}

bool bop__mpmc_wait_sleep(struct bop__mpmc_wait *wait, uint32_t key, uint64_t nap_ns)
{
    uint64_t until_ns = wait->deadline_ns;

    if (nap_ns != UINT64_MAX) {
        until_ns = bop_min_u64(until_ns, now_ns() + nap_ns);
    }
    return bop__eventcount_wait(wait->eventcount, key, until_ns) || until_ns < wait->deadline_ns;
}
