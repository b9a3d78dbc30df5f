/*
 * The event loop: one a thread, over epoll or io_uring, with timers and with
 * posts from other threads.
 *
 * A turn: hooks before; wait for events or the next timer; wake-up hooks; run what
 * was posted; run I/O callbacks; run due timers; run the turn hooks; flush what
 * connections queued. So everything that one turn caused goes out in as few system
 * calls as possible, and a turn hook is the place to act once on all a turn brought
 * in. What a callback asks of a step that is over is done in the next turn, which
 * then does not wait.
 *
 * Threads: all calls from the loop's thread (the one that runs it, before the
 * first run the one that prepares it; it may change between runs), but for those
 * that say any thread. Callbacks run on the loop's thread, never from inside the
 * call that asked for them, but for bop_loop_run_on(). Debug builds stop a program
 * that touches timers or sockets from another thread while the loop runs.
 *
 * After fork() the child must leave the loops of its parent alone, destroying
 * included: their descriptors are shared with the parent. exec closes them.
 */
#ifndef BOP_LOOP_H
#define BOP_LOOP_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/clock.h>
#include <bop/list.h>

struct bop_loop;

/** What tells the loop of events. They differ in speed only. */
enum bop_loop_backend {
    /* epoll; messages to many subscribers are sent through io_uring, where it is to be had. */
    BOP_LOOP_BACKEND_DEFAULT = 0,
    BOP_LOOP_BACKEND_EPOLL, /* And nothing else. */
    /* Linux 6.1 or later; epoll where the kernel, a container's rules or the build lack it. */
    BOP_LOOP_BACKEND_IO_URING,
};

struct bop_loop_options {
    struct bop_allocator *allocator; /* Borrowed until destroy. Default: the process's. */
    struct bop_clock *clock;         /* Borrowed until destroy. Default: the system's. */
    /* Look for events again and again for so long before sleeping, giving way to other
     * threads in between: to be woken from sleep takes longer than most answers. A loop
     * whose events come later than that soon stops looking, and tries again now and then.
     * Default: 0, sleep at once. */
    unsigned busy_poll_us;
    /* The environment variable BOP_LOOP_BACKEND, if it is epoll or io_uring, overrides it. */
    enum bop_loop_backend backend;
};

BOP_API BOP_MUST_USE int bop_loop_create(const struct bop_loop_options *options,
                                         struct bop_loop **out_loop);

/** Close what is still open on the loop (their on_close fires with BOP_ECANCELED) and free it. */
BOP_API void bop_loop_destroy(struct bop_loop *loop);

/* ---- Running ---- */

/** Turn until bop_loop_stop(). Returns 0 or -errno of the wait. */
BOP_API BOP_MUST_USE int bop_loop_run(struct bop_loop *loop);

/** One turn, waiting at most timeout_ms (-1: no limit, 0: not at all). Returns 0 or -errno. */
BOP_API BOP_MUST_USE int bop_loop_run_once(struct bop_loop *loop, int timeout_ms);

/**
 * Turn until bop_loop_stop(), or until nothing is left that could make something
 * happen: no socket or listener, no running timer, nothing posted, and no hold.
 * Hooks are nothing to stay for. Returns 0 or -errno.
 */
BOP_API BOP_MUST_USE int bop_loop_run_to_end(struct bop_loop *loop);
/** Something is to be waited for that the loop does not know of, such as a post of
 * another thread; released when it has come. */
BOP_API void bop_loop_hold(struct bop_loop *loop);
BOP_API void bop_loop_release(struct bop_loop *loop);

/** Make the run calls return after the current turn. Any thread, and signal handlers. */
BOP_API void bop_loop_stop(struct bop_loop *loop);

/**
 * The graceful stop: close all listeners, and stop as soon as the last socket has
 * closed. Those that have not when timeout_ms is over are closed. Sockets are not told:
 * protocols have ways of their own to send their peers off before.
 */
BOP_API void bop_loop_drain(struct bop_loop *loop, uint64_t timeout_ms);

/* A loop within another one, instead of the calls above. The outer loop waits for the
 * descriptor to become readable and then calls bop_loop_run_once(loop, 0). */

/** Readable when a turn is due: events, posts, timers. Returns it or -errno. It is the loop's:
 * don't read or close it. From then on the loop must stay on this thread. */
BOP_API int bop_loop_fd(struct bop_loop *loop);
/** How long may be waited for the descriptor, rounded up; -1: no limit. To be called before waiting
 * if sockets were used other than from callbacks of the loop; else the descriptor is enough. */
BOP_API int64_t bop_loop_wait_ms(struct bop_loop *loop);

/* ---- Asking ---- */

/** The time the current turn began, in ms of the loop's monotonic clock. */
BOP_API uint64_t bop_loop_now_ms(const struct bop_loop *loop);
/** Turns begun so far. */
BOP_API uint64_t bop_loop_iteration(const struct bop_loop *loop);
/** Whether the calling thread is the one that runs the loop or ran it last. Any thread. */
BOP_API bool bop_loop_is_on_thread(const struct bop_loop *loop);
/** Whether one of the run calls is under way. Any thread, to which it may be old news. */
BOP_API bool bop_loop_is_running(const struct bop_loop *loop);
BOP_API struct bop_allocator *bop_loop_allocator(const struct bop_loop *loop);
/** "epoll" or "io_uring". */
BOP_API const char *bop_loop_backend_name(const struct bop_loop *loop);

/* ---- Posts ---- */

/** Intrusive; must live until fn was called. May be posted again from then on. */
struct bop_post {
    struct bop_post *next; /* The loop's while posted. */
    void (*fn)(struct bop_post *post);
};

/**
 * Have fn called on the loop's thread, in order of posting. Any thread; never fails or
 * blocks. What is posted by a post is called in the next turn. The end of the loop calls
 * what was posted before, and what that posts, and drops the rest; a thread that cannot
 * know whether the loop is still there posts through a handle.
 */
BOP_API void bop_loop_post(struct bop_loop *loop, struct bop_post *post);

/** Call fn now, if on the loop's thread, else post it. Any thread. Returns 0, or BOP_ECLOSED
 * when the loop is being destroyed: fn is not called then. */
BOP_API BOP_MUST_USE int bop_loop_run_on(struct bop_loop *loop, struct bop_post *post);

/** As bop_loop_post(), without memory of the caller's: it is of the loop's allocator, which must
 * then be fit for any thread. Any thread. Returns 0, BOP_ENOMEM or BOP_ECLOSED. */
BOP_API BOP_MUST_USE int bop_loop_call(struct bop_loop *loop, void (*fn)(void *arg), void *arg);

/** Make a turn happen, whose wake-up hooks are called: once, however often this was called
 * before it. Any thread, and signal handlers. */
BOP_API void bop_loop_wakeup(struct bop_loop *loop);

/* ---- Handles: a loop that may be gone ---- */

/** Counted; outlives its loop. All functions but bop_loop_handle(): any thread. */
struct bop_loop_handle;

/** The loop's handle, with a reference for the caller. NULL: no memory, or being destroyed. */
BOP_API struct bop_loop_handle *bop_loop_handle(struct bop_loop *loop);
BOP_API struct bop_loop_handle *bop_loop_handle_ref(struct bop_loop_handle *handle);
/** NULL is fine. */
BOP_API void bop_loop_handle_unref(struct bop_loop_handle *handle);
/** As the calls above; BOP_ECLOSED once the loop's destruction has begun. */
BOP_API BOP_MUST_USE int bop_loop_handle_post(struct bop_loop_handle *handle,
                                              struct bop_post *post);
BOP_API BOP_MUST_USE int bop_loop_handle_run_on(struct bop_loop_handle *handle,
                                                struct bop_post *post);
BOP_API BOP_MUST_USE int bop_loop_handle_call(struct bop_loop_handle *handle, void (*fn)(void *arg),
                                              void *arg);
BOP_API bool bop_loop_handle_is_open(const struct bop_loop_handle *handle);

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

/** A timer that fires again and again. Intrusive, as timers are. */
struct bop_ticker {
    struct bop_timer timer;
    struct bop_loop *loop;
    uint64_t repeat_ms;
    void (*fn)(struct bop_ticker *ticker);
    void *user;
};

BOP_API void bop_ticker_init(struct bop_ticker *ticker, void (*fn)(struct bop_ticker *ticker),
                             void *user);
/** First after first_ms, then each repeat_ms (0: never again), counted from when it was due, not
 * from when it fired. Ticks missed are left out. A running one is set anew. */
BOP_API void bop_ticker_start(struct bop_loop *loop, struct bop_ticker *ticker, uint64_t first_ms,
                              uint64_t repeat_ms);
/** If it runs and repeats: the next tick comes repeat_ms from now. */
BOP_API void bop_ticker_reset(struct bop_ticker *ticker);
BOP_API void bop_ticker_stop(struct bop_ticker *ticker);

static inline bool bop_ticker_is_running(const struct bop_ticker *ticker)
{
    return bop_timer_is_running(&ticker->timer);
}

/* ---- Turn hooks ---- */

enum bop_hook_kind {
    BOP_HOOK_END = 0, /* At the end of every turn, before queued output is sent. */
    BOP_HOOK_BEFORE,  /* At the begin of every turn, before it waits. */
    BOP_HOOK_WAKEUP,  /* After the wait, if bop_loop_wakeup() was called. */
};

/** Intrusive; fn runs in order of adding. */
struct bop_hook {
    struct bop_list link;
    void (*fn)(struct bop_hook *hook);
};

/** A hook at the end of every turn. */
BOP_API void bop_loop_add_hook(struct bop_loop *loop, struct bop_hook *hook);
BOP_API void bop_loop_add_hook_at(struct bop_loop *loop, struct bop_hook *hook,
                                  enum bop_hook_kind kind);
/** May be called by a hook, for itself or another one. */
BOP_API void bop_loop_remove_hook(struct bop_loop *loop, struct bop_hook *hook);

#endif
