/*
 * The loop's turn.
 *
 * A turn goes, in this order: hooks before; wait; wake-up hooks; posts; I/O
 * (sources, then bytes kept by connections that were resumed); timers; hooks at
 * the end; flush; on_close of what was closed. What a step asks of an earlier one
 * is done in the next turn, which then does not wait. So no callback can keep a
 * turn from ending.
 *
 * Memory of sources goes only at the end of a turn, after the events that the
 * kernel reported for it were gone through: no event finds its source freed.
 */
#include <sched.h>
#include <stdatomic.h>

#include <bop/error.h>

#include "loop_internal.h"

void bop__loop_read_clock(struct bop_loop *loop)
{
    loop->now_ms = bop_max_u64(loop->now_ms, bop_clock_monotonic_ms(loop->clock));
}

static bool has_work(const struct bop_loop *loop)
{
    return !bop_list_empty(&loop->redeliver) || !bop_list_empty(&loop->flush) ||
           !bop_list_empty(&loop->closing) || !bop_list_empty(&loop->retired) ||
           !bop_list_empty(&loop->leaving) || bop__posts_pending(loop) ||
           /* Relaxed: only a hint to look. */
           atomic_load_explicit(&loop->wake.wakeup, memory_order_relaxed) || bop__drain_done(loop);
}

bool bop__loop_has_left(const struct bop_loop *loop)
{
    return (int64_t)(loop->source_count + loop->timers.count) + loop->holds > 0 ||
           loop->socket_count > 0 || !bop_list_empty(&loop->guests) || has_work(loop);
}

uint64_t bop__loop_wait_us(struct bop_loop *loop)
{
    uint64_t due_ms, now_us;

    if (has_work(loop)) {
        return 0;
    }
    due_ms = bop__timers_next_ms(&loop->timers);
    if (due_ms > UINT64_MAX / 1000) {
        return UINT64_MAX; /* There is none, or as good as none. */
    }
    now_us = bop_clock_monotonic_us(loop->clock);
    return due_ms * 1000 <= now_us ? 0 : due_ms * 1000 - now_us;
}

/* ---- Waiting ---- */

/*
 * Look for events for a while before sleeping. What a request waits for, a disk's
 * flush or a peer's answer, often takes less than to fall asleep and be woken.
 * Each search in vain doubles the number of waits that go without one.
 */
static int busy_poll(struct bop_loop *loop)
{
    uint64_t start_us;

    if (loop->poll_skips > 0) {
        loop->poll_skips--;
        return 0;
    }
    start_us = bop_clock_monotonic_us(loop->clock);
    for (unsigned tries = 0; tries < BOP__POLL_TRIES_MAX; tries++) {
        int count = loop->backend->ops->wait(loop->backend, 0);

        if (count != 0) {
            loop->poll_misses = 0;
            return count;
        }
        if (bop_clock_monotonic_us(loop->clock) - start_us >= loop->busy_poll_us) {
            break;
        }
        sched_yield();
    }
    if (loop->poll_misses < BOP__POLL_MISSES_MAX) {
        loop->poll_misses++;
    }
    loop->poll_skips = 1u << loop->poll_misses;
    return 0;
}

/* Returns 0 or -errno. */
static int wait_events(struct bop_loop *loop, int timeout_ms)
{
    uint64_t limit_us = timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * 1000;
    uint64_t us = limit_us == 0 ? 0 : bop_min_u64(limit_us, bop__loop_wait_us(loop));
    int count = us > loop->busy_poll_us && loop->busy_poll_us > 0 ? busy_poll(loop) : 0;

    if (count == 0) {
        count = loop->backend->ops->wait(loop->backend, us);
    }
    /* A signal: a turn without events. */
    return count == -EINTR || count > 0 ? 0 : count;
}

/* ---- The turn ---- */

static void run_hooks(struct bop_loop *loop, enum bop_hook_kind kind)
{
    struct bop_list *hooks = &loop->hooks[kind];

    loop->hook_next = hooks->next;
    while (loop->hook_next != hooks) {
        struct bop_hook *hook = BOP_CONTAINER_OF(loop->hook_next, struct bop_hook, link);

        loop->hook_next = hook->link.next;
        hook->fn(hook);
    }
    loop->hook_next = NULL;
}

static void run_hooks_before(struct bop_loop *loop)
{
    if (!bop_list_empty(&loop->hooks[BOP_HOOK_BEFORE])) {
        loop->in_turn = true;
        bop__loop_read_clock(loop);
        run_hooks(loop, BOP_HOOK_BEFORE);
        loop->in_turn = false;
    }
}

static void run_hooks_wakeup(struct bop_loop *loop)
{
    /* Relaxed: the wake that goes with it makes another turn look. Acquire pairs with the
     * release in bop_loop_wakeup(). */
    if (atomic_load_explicit(&loop->wake.wakeup, memory_order_relaxed) &&
        atomic_exchange_explicit(&loop->wake.wakeup, false, memory_order_acquire)) {
        run_hooks(loop, BOP_HOOK_WAKEUP);
    }
}

static int run_turn(struct bop_loop *loop, int timeout_ms)
{
    int rc;

    BOP_ASSERT(!loop->in_turn);
    run_hooks_before(loop);
    rc = wait_events(loop, timeout_ms);
    if (rc != 0) {
        return rc;
    }
    loop->in_turn = true;
    loop->iteration++;
    bop__loop_read_clock(loop);
    run_hooks_wakeup(loop);
    bop__posts_run(loop);
    loop->backend->ops->dispatch(loop->backend);
    bop__socket_redeliver_all(loop);
    bop__timers_run(loop);
    run_hooks(loop, BOP_HOOK_END);
    bop__socket_flush_all(loop);
    bop__socket_finish_closes(loop);
    bop__guests_finish(loop);
    bop__drain_look(loop);
    loop->in_turn = false;
    bop__outside_settle(loop);
    return 0;
}

/* ---- Running ---- */

static void enter(struct bop_loop *loop)
{
    /* Relaxed: only this thread compares it with itself and finds it equal; and whether the
     * loop runs may have changed when the asker looks at the answer. */
    atomic_store_explicit(&loop->wake.thread, bop__thread_id(), memory_order_relaxed);
    atomic_store_explicit(&loop->wake.running, true, memory_order_relaxed);
}

static void leave(struct bop_loop *loop)
{
    atomic_store_explicit(&loop->wake.running, false, memory_order_relaxed); /* As above. */
}

int bop_loop_run_once(struct bop_loop *loop, int timeout_ms)
{
    int rc;

    enter(loop);
    rc = run_turn(loop, timeout_ms);
    leave(loop);
    return rc;
}

static int run(struct bop_loop *loop, bool to_end)
{
    bool stop = false;
    int rc = 0;

    enter(loop);
    do {
        /* Acquire pairs with the release in bop_loop_stop(), as does the exchange. */
        bool asked = atomic_load_explicit(&loop->wake.stop, memory_order_acquire);

        /* Asked already: its wake may have been spent on an earlier turn. */
        rc = run_turn(loop, asked || (to_end && !bop__loop_has_left(loop)) ? 0 : -1);
        if (rc != 0) {
            break;
        }
        stop = atomic_exchange_explicit(&loop->wake.stop, false, memory_order_acquire);
    } while (!stop && (!to_end || bop__loop_has_left(loop)));
    leave(loop);
    return rc;
}

int bop_loop_run(struct bop_loop *loop)
{
    return run(loop, false);
}

int bop_loop_run_to_end(struct bop_loop *loop)
{
    return run(loop, true);
}

void bop_loop_hold(struct bop_loop *loop)
{
    loop->holds++;
}

void bop_loop_release(struct bop_loop *loop)
{
    loop->holds--;
}

/* ---- Hooks ---- */

void bop_loop_add_hook_at(struct bop_loop *loop, struct bop_hook *hook, enum bop_hook_kind kind)
{
    BOP_ASSERT((unsigned)kind < BOP__HOOK_KINDS);
    bop_list_push_back(&loop->hooks[kind], &hook->link);
}

void bop_loop_add_hook(struct bop_loop *loop, struct bop_hook *hook)
{
    bop_loop_add_hook_at(loop, hook, BOP_HOOK_END);
}

void bop_loop_remove_hook(struct bop_loop *loop, struct bop_hook *hook)
{
    if (loop->hook_next == &hook->link) {
        loop->hook_next = hook->link.next;
    }
    bop_list_remove(&hook->link);
}
