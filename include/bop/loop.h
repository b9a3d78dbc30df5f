/*
 * The event loop: epoll, level-triggered, one a thread, with timers and with
 * posts from other threads.
 *
 * A turn: wait for events or the next timer; run what was posted; run I/O
 * callbacks; run due timers; run the turn hooks; flush what connections queued.
 * So everything that one turn caused goes out in as few system calls as
 * possible, and a turn hook is the place to act once on all a turn brought in.
 *
 * Threads: all calls from the loop's thread (the one that runs it), but for
 * bop_loop_post() and bop_loop_stop(), which any thread may call. Callbacks run
 * on the loop's thread, never from inside the call that asked for them.
 */
#ifndef BOP_LOOP_H
#define BOP_LOOP_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/clock.h>
#include <bop/list.h>

struct bop_loop;

struct bop_loop_options {
    struct bop_allocator *allocator; /* Borrowed until destroy. Default: the process's. */
    struct bop_clock *clock;         /* Borrowed until destroy. Default: the system's. */
    /* Look for events again and again for so long before sleeping, giving way to other
     * threads in between: to be woken from sleep takes longer than most answers. A loop
     * whose events come later than that soon stops looking, and tries again now and then.
     * Default: 0, sleep at once. */
    unsigned busy_poll_us;
};

BOP_API BOP_MUST_USE int bop_loop_create(const struct bop_loop_options *options,
                                         struct bop_loop **out_loop);

/** Close what is still open on the loop (their on_close fires with BOP_ECANCELED) and free it. */
BOP_API void bop_loop_destroy(struct bop_loop *loop);

/** Turn until bop_loop_stop(). Returns 0 or -errno of epoll_wait. */
BOP_API BOP_MUST_USE int bop_loop_run(struct bop_loop *loop);

/** One turn, waiting at most timeout_ms (-1: no limit, 0: not at all). Returns 0 or -errno. */
BOP_API BOP_MUST_USE int bop_loop_run_once(struct bop_loop *loop, int timeout_ms);

/** Make bop_loop_run() return after the current turn. Any thread, and signal handlers. */
BOP_API void bop_loop_stop(struct bop_loop *loop);

/** The time the current turn began, in ms of the loop's monotonic clock. */
BOP_API uint64_t bop_loop_now_ms(const struct bop_loop *loop);

BOP_API struct bop_allocator *bop_loop_allocator(const struct bop_loop *loop);

/* ---- Posts ---- */

/** Intrusive; must live until fn was called. May be posted again from then on. */
struct bop_post {
    struct bop_post *next; /* The loop's while posted. */
    void (*fn)(struct bop_post *post);
};

/** Have fn called on the loop's thread, in order of posting. Any thread; never fails or blocks. */
BOP_API void bop_loop_post(struct bop_loop *loop, struct bop_post *post);

/* ---- Timers: a wheel of 1 ms ticks; no allocation, descriptor or system call each ---- */

/** Intrusive; init before use, stop before its memory goes. Its user data lies around it. */
struct bop_timer {
    struct bop_list link; /* The loop's while running; next is NULL while stopped. */
    uint64_t due_ms;
    void (*fn)(struct bop_timer *timer);
};

BOP_API void bop_timer_init(struct bop_timer *timer, void (*fn)(struct bop_timer *timer));

/**
 * Fire once, delay_ms after the current turn's time; a running timer is moved.
 * Any delay is fine; one past the end of time never fires. In constant time. What is
 * started by a timer fires in the next turn at the earliest. Always returns 0.
 */
BOP_API int bop_timer_start(struct bop_loop *loop, struct bop_timer *timer, uint64_t delay_ms);
/** In constant time; nothing happens if it is stopped. A timer is stopped when it fires. */
BOP_API void bop_timer_stop(struct bop_loop *loop, struct bop_timer *timer);

static inline bool bop_timer_is_running(const struct bop_timer *timer)
{
    return timer->link.next != NULL;
}

/* ---- Turn hooks ---- */

/** Intrusive; fn runs at the end of every turn, in order of adding, before queued output is sent.
 */
struct bop_hook {
    struct bop_list link;
    void (*fn)(struct bop_hook *hook);
};

BOP_API void bop_loop_add_hook(struct bop_loop *loop, struct bop_hook *hook);
BOP_API void bop_loop_remove_hook(struct bop_loop *loop, struct bop_hook *hook);

#endif
