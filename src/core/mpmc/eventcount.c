/*
 * The waiting side of the eventcount, on a futex.
 *
 *      63        32 31          1   0
 *      +-----------+-----------+-----+
 *      |  waiters  |   woken   |armed|    word
 *      +-----------+-----------+-----+
 *
 * A changer stores its change, fences, and reads `word`; a waiter announces
 * itself in `word`, fences, and looks for a change. One of the two sees the
 * other, so nobody sleeps over a change that was there to be seen.
 *
 * A wake-up takes microseconds to arrive, and changes keep coming. `woken` counts
 * the waiters that are on their way already, and a changer that finds everybody
 * on the way calls nobody. Invariants:
 *
 *   (1) woken <= waiters.
 *   (2) At most waiters - woken threads sleep, or will, without a wake-up under
 *       way to them. A waiter that leaves takes one off both numbers, whether
 *       or not it is the one that was meant: `woken` errs to the low side only,
 *       which costs a system call and no more.
 *
 * (2) stands on the order in prepare: the key is read before the announcement.
 * A changer that counts the waiter in `woken` changes the epoch after it has seen
 * the announcement, so that the key is an old one and the waiter does not sleep.
 *
 *   (3) Whom the kernel wakes leaves. It wakes by priority, not by age, and so
 *       may wake a waiter that came after the epoch had changed instead of one
 *       that is counted as woken. If that waiter slept on, the other would lie
 *       there with nobody to call it; by leaving it takes one off `woken`, and
 *       looks for the change itself.
 */
#include "eventcount.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ARMED     UINT64_C(1)
#define WOKEN_ONE UINT64_C(2)
#define WAITER    (UINT64_C(1) << 32)

static uint64_t waiters_of(uint64_t word)
{
    return word >> 32;
}

static uint64_t woken_of(uint64_t word)
{
    return (word & (WAITER - 1)) >> 1;
}

uint32_t bop__eventcount_prepare(struct bop__eventcount *eventcount)
{
    /* Acquire: not after the announcement, invariant (2); and pairs with the release in
     * signal_slow(), so that what came before a wake-up that is over is seen by the last look. */
    uint32_t key = atomic_load_explicit(&eventcount->epoch, memory_order_acquire);

    /* seq_cst, which holds the load above back as release; the fence below orders the last look. */
    atomic_fetch_add_explicit(&eventcount->word, WAITER, memory_order_seq_cst);
    bop__fence_rare();
    return key;
}

/* Take the announcement back. */
static void leave(struct bop__eventcount *eventcount)
{
    /* Relaxed: the exchange below fails and tells if it is stale. */
    uint64_t word = atomic_load_explicit(&eventcount->word, memory_order_relaxed);
    uint64_t next;

    do {
        next = word - WAITER - (woken_of(word) > 0 ? WOKEN_ONE : 0);
        /* Relaxed: nothing is published by it. */
    } while (!atomic_compare_exchange_weak_explicit(&eventcount->word, &word, next,
                                                    memory_order_relaxed, memory_order_relaxed));
}

void bop__eventcount_cancel(struct bop__eventcount *eventcount)
{
    leave(eventcount);
}

static int futex_wait(struct bop__eventcount *eventcount, uint32_t key, uint64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / 1000000000),
                                .tv_nsec = (long)(deadline_ns % 1000000000)};
    /* With a bit set the deadline is absolute, on the monotonic clock. */
    long rc = syscall(SYS_futex, &eventcount->epoch, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, key,
                      deadline_ns == UINT64_MAX ? NULL : &deadline, NULL, FUTEX_BITSET_MATCH_ANY);

    return rc < 0 ? -errno : 0;
}

bool bop__eventcount_wait(struct bop__eventcount *eventcount, uint32_t key, uint64_t deadline_ns)
{
    bool signalled = true;

    /* Acquire pairs with the release in signal_slow(): the change is seen after waking up. */
    while (atomic_load_explicit(&eventcount->epoch, memory_order_acquire) == key) {
        int rc = futex_wait(eventcount, key, deadline_ns);

        signalled = rc != -ETIMEDOUT;
        if (rc == 0 || rc == -ETIMEDOUT) {
            break; /* Woken, though the epoch be the same: see (3). */
        }
    }
    leave(eventcount);
    return signalled;
}

/* Count up to count more waiters as woken, and disarm. Returns the word as it was. */
static uint64_t mark_woken(struct bop__eventcount *eventcount, unsigned count, uint64_t *out_marked)
{
    /* Acquire: what a waiter or an arming did before it announced itself is seen by notify. */
    uint64_t word = atomic_load_explicit(&eventcount->word, memory_order_acquire);
    uint64_t next;

    do {
        uint64_t asleep = waiters_of(word) - woken_of(word);

        *out_marked = asleep < count ? asleep : count;
        next = (word & ~ARMED) + *out_marked * WOKEN_ONE;
        if (next == word) {
            return word; /* All are on their way, and it is not armed. */
        }
        /* acq_rel: acquire as above; release holds the change before the mark. */
    } while (!atomic_compare_exchange_weak_explicit(&eventcount->word, &word, next,
                                                    memory_order_acq_rel, memory_order_acquire));
    return word;
}

bool bop__eventcount_signal_slow(struct bop__eventcount *eventcount, unsigned count)
{
    uint64_t marked;
    uint64_t word = mark_woken(eventcount, count, &marked);

    if (marked > 0) {
        /* Release pairs with the acquires of the waiters: they see the change. */
        atomic_fetch_add_explicit(&eventcount->epoch, 1, memory_order_release);
        syscall(SYS_futex, &eventcount->epoch, FUTEX_WAKE | FUTEX_PRIVATE_FLAG,
                marked > INT_MAX ? INT_MAX : (int)marked, NULL, NULL, 0);
    }
    return (word & ARMED) != 0;
}

void bop__eventcount_arm(struct bop__eventcount *eventcount)
{
    /* seq_cst: release shows the notifier what the caller did before; the fence orders the look. */
    atomic_fetch_or_explicit(&eventcount->word, ARMED, memory_order_seq_cst);
    bop__fence_rare();
}

void bop__eventcount_disarm(struct bop__eventcount *eventcount)
{
    /* Relaxed: it takes back, and publishes nothing. */
    atomic_fetch_and_explicit(&eventcount->word, ~ARMED, memory_order_relaxed);
}
