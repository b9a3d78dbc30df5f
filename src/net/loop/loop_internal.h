/*
 * The loop as its own files see it: what a turn works through, and how a
 * connection, a listener or anything else with a descriptor takes part.
 *
 * Everything is the loop thread's but the two fields of struct bop__wake.
 */
#ifndef BOP_NET_LOOP_INTERNAL_H
#define BOP_NET_LOOP_INTERNAL_H

#include <stdatomic.h>

#include <bop/error.h>
#include <bop/list.h>
#include <bop/loop.h>
#include <bop/slice.h>

#include "backend.h"

/* What one recv can bring. One buffer serves all connections of a loop, so an
 * idle connection holds none. Not more than fits the processor's cache; and what
 * a flood of requests brings is handled in parts, of which one can be on its way
 * to disks and peers while the next is read. */
#define BOP__RECEIVE_BYTES (128u * 1024)

/* Looking for events in vain so many times doubles the pause until the next try. */
#define BOP__POLL_MISSES_MAX 6

/* Looks of one search, whatever the clock says. */
#define BOP__POLL_TRIES_MAX 4096

/** A descriptor watched by the loop. Embedded; must live until the turn that unwatched it ends. */
struct bop__source {
    int fd;           /* -1 while there is none. */
    uint16_t watched; /* The epoll events asked for. */
    bool attached;    /* Watched, be it for nothing. */
    /* A stream socket's, in a struct bop__socket: a backend that can reads it, and gives what came
     * to bop__socket_on_input() instead of reporting EPOLLIN. Set before it is watched. */
    bool delegates;
    void (*on_events)(struct bop__source *source, uint32_t events);
};

/**
 * What lives on a loop besides its sockets and listeners, UDP sockets and names
 * being resolved: so that the loop ends them with itself, and frees no source in
 * mid-turn. Embedded.
 */
struct bop__guest {
    struct bop_list link;                     /* loop.guests, or loop.leaving. */
    void (*close)(struct bop__guest *guest);  /* The loop is destroyed: has it leave at once. */
    void (*finish)(struct bop__guest *guest); /* It left, and a turn ends: calls back, frees. */
};

/* 11 digits to the base 64 are 66 bits: the last level has 16 slots in use. */
#define BOP__WHEEL_DIGIT_BITS 6
#define BOP__WHEEL_SLOTS      64
#define BOP__WHEEL_LEVELS     11

/** The timer wheel: see timer.c. */
struct bop__timers {
    uint64_t now_ms;  /* The wheel's time: what was due before it has been taken off. */
    uint64_t next_ms; /* If known: no timer is due earlier. UINT64_MAX: there is none. */
    bool next_known;
    size_t count;         /* Running, in the wheel or due. */
    uint32_t used_levels; /* A bit each. */
    uint64_t used_slots[BOP__WHEEL_LEVELS];
    struct bop_list due; /* Off the wheel, to be fired in this order by this turn. */
    struct bop_list slots[BOP__WHEEL_LEVELS][BOP__WHEEL_SLOTS];
};

#define BOP__HOOK_KINDS 3

/** What other threads touch. */
struct bop__wake {
    _Atomic(struct bop_post *) posted; /* A stack, newest first. */
    atomic_bool stop;
    atomic_bool wakeup;       /* bop_loop_wakeup() was called. */
    atomic_bool closed;       /* Being destroyed. */
    _Atomic uint64_t thread;  /* bop__thread_id() of who ran it last; 0: nobody yet. */
    atomic_bool running;      /* In one of the calls that run it. */
    _Atomic uint64_t written; /* Writes to the wake descriptor. */
};

struct bop__tls_wire;
struct bop__udps;

struct bop__ws_home; /* src/net/ws */

struct bop_loop {
    struct bop_allocator *allocator;
    struct bop_clock *clock;
    struct bop__backend *backend;
    uint64_t now_ms;
    uint64_t iteration;
    int wake_fd; /* An eventfd: each write is one wake, see post.c. */
    bool in_turn;
    bool destroying;
    bool only_epoll;       /* Asked for by name: nothing is to use io_uring. */
    bool draining;         /* bop_loop_drain() was called, and there is something left. */
    unsigned busy_poll_us; /* As in the options. */
    unsigned poll_misses;  /* Searches in a row that found nothing, up to a bound... */
    unsigned poll_skips;   /* ...and waits that go without one for it. */
    size_t source_count;   /* Watched. */
    int64_t holds;         /* bop_loop_hold() less bop_loop_release(). */
    struct bop__timers timers;
    struct bop_timer drain_timer;
    struct bop_list hooks[BOP__HOOK_KINDS];
    struct bop_list *hook_next;     /* The hook to run next, while they run. */
    struct bop_loop_handle *handle; /* NULL until asked for. */
    struct bop__tls_wire *tls;      /* NULL until a socket has TLS. */
    struct bop__udps *udps;         /* NULL until there is a UDP socket. */

    struct bop__ws_home *ws; /* What its WebSockets share; NULL while there are none. */

    struct bop__source outside; /* A timerfd, for a loop that another one drives; fd -1: none. */
    uint64_t outside_due_us;    /* When it rings; UINT64_MAX: never. */

    struct bop__sockets *sockets; /* Their memory; NULL until the first. */
    size_t socket_count;          /* Of those that are not closing. */
    struct bop_list listeners;    /* bop_listener.link of all that are listening. */
    struct bop_list redeliver;    /* bop__socket.work of those resumed with bytes kept. */
    struct bop_list flush;        /* bop__socket.work of those with output to send. */
    struct bop_list closing;      /* bop__socket.work of those that owe an on_close. */
    struct bop_list retired;      /* bop_listener.link of those closed. */
    struct bop_list guests;       /* bop__guest.link of those that stay. */
    struct bop_list leaving;      /* bop__guest.link of those that owe their finish. */

    uint8_t *receive; /* BOP__RECEIVE_BYTES, lent to on_data for the time of its call. */
    char apart[64];   /* Keeps what other threads write off the lines the loop reads. */
    struct bop__wake wake;
};

/** Move all links to an empty head, so that what is added meanwhile waits its turn. */
static inline void bop__list_take(struct bop_list *from, struct bop_list *to)
{
    bop_list_init(to);
    if (!bop_list_empty(from)) {
        bop_list_insert_between(from->prev, to, from->next);
        bop_list_init(from);
    }
}

/* ---- turn.c ---- */

/** Bring now_ms up to date. It never goes back. */
void bop__loop_read_clock(struct bop_loop *loop);
/** Microseconds that a turn would wait, UINT64_MAX for no limit. */
uint64_t bop__loop_wait_us(struct bop_loop *loop);
/** Whether something could still happen without a call from outside. */
bool bop__loop_has_left(const struct bop_loop *loop);

/* ---- outside.c ---- */

/** If another loop drives this one: let its descriptor become readable when a turn is due. */
void bop__outside_settle(struct bop_loop *loop);
void bop__outside_close(struct bop_loop *loop);

/* ---- drain.c ---- */

void bop__drain_init(struct bop_loop *loop);
/** The end of a turn: stop the loop if all is closed. */
void bop__drain_look(struct bop_loop *loop);
bool bop__drain_done(const struct bop_loop *loop);

/* ---- handle.c ---- */

/** Let no post through any more; returns once those on their way have arrived. */
void bop__loop_close_handle(struct bop_loop *loop);
/** As bop_loop_is_on_thread(); false once the loop is closed. Any thread. */
bool bop__loop_handle_is_here(struct bop_loop_handle *handle);
/** Debug builds: nobody but the thread that runs a loop touches what lives on it. */
static inline void bop__loop_check_thread(const struct bop_loop *loop)
{
    BOP_DEBUG_ASSERT(!bop_loop_is_running(loop) || bop_loop_is_on_thread(loop));
}

/** A number for the calling thread, never 0, that no other thread ever had. */
uint64_t bop__thread_id(void);

/* ---- source.c ---- */

/** Watch a descriptor for epoll events. Returns 0 or -errno. */
BOP_MUST_USE int bop__loop_watch(struct bop_loop *loop, struct bop__source *source,
                                 uint32_t events);
/** Change the events. Returns 0 or -errno. */
BOP_MUST_USE int bop__loop_rewatch(struct bop_loop *loop, struct bop__source *source,
                                   uint32_t events);
/** Let `to`, which has its on_events, take over the descriptor of `from`, which has none then.
 * Returns 0 or -errno, with nothing changed. */
BOP_MUST_USE int bop__loop_move_source(struct bop_loop *loop, struct bop__source *from,
                                       struct bop__source *to);
/** Leave the descriptor open, for another loop or for good. */
void bop__loop_unwatch(struct bop_loop *loop, struct bop__source *source);
/** Unwatch and close the descriptor, if there is one. */
void bop__loop_close_source(struct bop_loop *loop, struct bop__source *source);

/* ---- guest.c ---- */

/** Live on the loop. Both of its functions are set. */
void bop__loop_add_guest(struct bop_loop *loop, struct bop__guest *guest);
/** Have finish called once, at the end of the turn. */
void bop__loop_guest_leaves(struct bop_loop *loop, struct bop__guest *guest);
/** Call finish for those that have left so far. */
void bop__guests_finish(struct bop_loop *loop);
/** Have all leave. */
void bop__guests_close_all(struct bop_loop *loop);

/* ---- post.c ---- */

/** Call what was posted before now, in order. */
void bop__posts_run(struct bop_loop *loop);
/** Forget what is posted. */
void bop__posts_drop(struct bop_loop *loop);
/** Let the loop's wait end. Any thread and signal handlers. */
void bop__loop_wake(struct bop_loop *loop);
static inline bool bop__posts_pending(const struct bop_loop *loop)
{
    /* Relaxed: only a hint to look; taking the posts synchronizes. */
    return atomic_load_explicit(&loop->wake.posted, memory_order_relaxed) != NULL;
}

/* ---- timer.c ---- */

void bop__timers_init(struct bop__timers *timers, uint64_t now_ms);
/** Mark all as stopped. */
void bop__timers_deinit(struct bop__timers *timers);
/** Fire what is due at now_ms and was started before this call, in order of due time. */
void bop__timers_run(struct bop_loop *loop);
/** Nothing is due before that time. UINT64_MAX: no timer runs. */
uint64_t bop__timers_next_ms(struct bop__timers *timers);
/** Assert the invariants, looking at every timer. */
void bop__timers_check(const struct bop__timers *timers);

/* ---- sock.c, tcp_listen.c: the steps of a turn and of the loop's end ---- */

/** What a backend read of a source that delegates: bytes, good for the call; 0: the end; -errno. */
void bop__socket_on_input(struct bop__source *source, int32_t result, const uint8_t *bytes);
void bop__socket_redeliver_all(struct bop_loop *loop);
void bop__socket_flush_all(struct bop_loop *loop);
/** Call on_close for those closed so far, and free them and retired listeners. */
void bop__socket_finish_closes(struct bop_loop *loop);
/** Begin to close all connections and listeners. */
void bop__socket_close_all(struct bop_loop *loop);
/** Free the memory of sockets: handles of the past cannot be looked at any more. */
void bop__sockets_free(struct bop_loop *loop);

/* ---- src/net/udp/udp.c ---- */

/** Free the memory of all UDP sockets, at the loop's very end. */
void bop__udps_free(struct bop_loop *loop);

#endif
