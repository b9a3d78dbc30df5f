/*
 * The loop's turn, its beginning and its end.
 *
 * A turn goes, in this order: wait; posts; I/O (sources, then bytes kept by
 * connections that were resumed); timers; hooks; flush; on_close of what was
 * closed. What a step asks of an earlier one is done in the next turn, which
 * then does not wait. So no callback can keep a turn from ending.
 *
 * Memory of sources goes only at the end of a turn, after the events that the
 * kernel reported for it were gone through: no event finds its source freed.
 */
#include <sched.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <bop/error.h>
#include <bop/mem.h>

#include "loop_internal.h"

/* ---- Sources ---- */

static int control(struct bop_loop *loop, int operation, struct bop__source *source,
                   uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (epoll_ctl(loop->epoll_fd, operation, source->fd, &event) != 0) {
        return -errno;
    }
    source->watched = events;
    return 0;
}

int bop__loop_watch(struct bop_loop *loop, struct bop__source *source, uint32_t events)
{
    return control(loop, EPOLL_CTL_ADD, source, events);
}

int bop__loop_rewatch(struct bop_loop *loop, struct bop__source *source, uint32_t events)
{
    return events == source->watched ? 0 : control(loop, EPOLL_CTL_MOD, source, events);
}

void bop__loop_close_source(struct bop_loop *loop, struct bop__source *source)
{
    if (source->fd < 0) {
        return;
    }
    /* Closing unwatches only the last duplicate, and a forked child may hold one.
     * It fails if the descriptor was never watched, which is fine. */
    BOP_IGNORE(epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL));
    /* Linux closes it whatever close() returns. */
    BOP_IGNORE(close(source->fd));
    source->fd = -1;
    source->watched = 0;
}

/* ---- Spare buffers ---- */

void bop__loop_take_spare(struct bop_loop *loop, struct bop_buf *buf)
{
    BOP_DEBUG_ASSERT(buf->data == NULL);
    if (loop->spare_count > 0) {
        struct bop_buf *spare = &loop->spares[--loop->spare_count];

        buf->data = spare->data;
        buf->capacity = spare->capacity;
    }
}

void bop__loop_leave_spare(struct bop_loop *loop, struct bop_buf *buf)
{
    buf->size = 0;
    if (buf->data == NULL) {
        return;
    }
    if (buf->capacity <= BOP__SPARE_BUF_BYTES_MAX && loop->spare_count < BOP__SPARE_BUFS_MAX) {
        loop->spares[loop->spare_count++] = *buf;
        buf->data = NULL;
        buf->capacity = 0;
        return;
    }
    bop_buf_deinit(buf);
}

/* ---- Guests ---- */

void bop__loop_add_guest(struct bop_loop *loop, struct bop__guest *guest)
{
    BOP_ASSERT(guest->close != NULL && guest->finish != NULL);
    bop_list_push_back(&loop->guests, &guest->link);
}

void bop__loop_guest_leaves(struct bop_loop *loop, struct bop__guest *guest)
{
    bop_list_remove(&guest->link);
    bop_list_push_back(&loop->leaving, &guest->link);
}

/* Those that leave from here on are finished by the next turn, as sockets are. */
static void finish_guests(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->leaving, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        struct bop__guest *guest = BOP_CONTAINER_OF(link, struct bop__guest, link);

        guest->finish(guest);
    }
}

static void close_guests(struct bop_loop *loop)
{
    while (!bop_list_empty(&loop->guests)) {
        struct bop__guest *guest = BOP_CONTAINER_OF(loop->guests.next, struct bop__guest, link);

        guest->close(guest);
        BOP_ASSERT(loop->guests.next != &guest->link);
    }
}

/* ---- The turn ---- */

static bool has_work(struct bop_loop *loop)
{
    return !bop_list_empty(&loop->redeliver) || !bop_list_empty(&loop->flush) ||
           !bop_list_empty(&loop->closing) || !bop_list_empty(&loop->retired) ||
           !bop_list_empty(&loop->leaving) || bop__posts_pending(loop);
}

/* Microseconds to wait, UINT64_MAX for no limit. */
static uint64_t wait_us(struct bop_loop *loop, int timeout_ms)
{
    uint64_t limit_us = timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * 1000;
    uint64_t due_ms, now_us;

    if (limit_us == 0 || has_work(loop)) {
        return 0;
    }
    due_ms = bop__timers_next_ms(&loop->timers);
    if (due_ms > UINT64_MAX / 1000) {
        return limit_us; /* There is none, or as good as none. */
    }
    now_us = bop_clock_monotonic_us(loop->clock);
    return due_ms * 1000 <= now_us ? 0 : bop_min_u64(limit_us, due_ms * 1000 - now_us);
}

/*
 * Look for events for a while before sleeping. What a request waits for, a disk's
 * flush or a peer's answer, often takes less than to fall asleep and be woken.
 * Each search in vain doubles the number of waits that go without one.
 */
static int busy_poll(struct bop_loop *loop, struct epoll_event *events)
{
    uint64_t start_us;

    if (loop->poll_skips > 0) {
        loop->poll_skips--;
        return 0;
    }
    start_us = bop_clock_monotonic_us(loop->clock);
    for (unsigned tries = 0; tries < BOP__POLL_TRIES_MAX; tries++) {
        int count = epoll_wait(loop->epoll_fd, events, BOP__EVENTS_MAX, 0);

        if (count != 0) {
            loop->poll_misses = 0;
            return count > 0 ? count : -errno;
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

/* Sleep until there are events, or for so long. */
static int sleep_events(struct bop_loop *loop, struct epoll_event *events, uint64_t us)
{
    uint64_t ms;

    if (us != 0 && us != UINT64_MAX && !loop->lacks_pwait2) {
        struct timespec timeout = {.tv_sec = (time_t)bop_min_u64(us / 1000000, INT32_MAX),
                                   .tv_nsec = (long)(us % 1000000) * 1000};
        int count = epoll_pwait2(loop->epoll_fd, events, BOP__EVENTS_MAX, &timeout, NULL);

        /* Before Linux 5.11 there is none, and some containers refuse with EPERM
         * what they do not know. */
        if (count >= 0 || (errno != ENOSYS && errno != EPERM)) {
            return count >= 0 ? count : -errno;
        }
        loop->lacks_pwait2 = true;
    }
    /* Rounded up: a wait that ends early would only be repeated. */
    ms = us == UINT64_MAX ? us : us / 1000 + (us % 1000 != 0);
    {
        int timeout_ms = us == UINT64_MAX ? -1 : (int)bop_min_u64(ms, INT32_MAX);
        int count = epoll_wait(loop->epoll_fd, events, BOP__EVENTS_MAX, timeout_ms);

        return count >= 0 ? count : -errno;
    }
}

static int wait_events(struct bop_loop *loop, struct epoll_event *events, uint64_t us)
{
    int count = us > loop->busy_poll_us && loop->busy_poll_us > 0 ? busy_poll(loop, events) : 0;

    return count != 0 ? count : sleep_events(loop, events, us);
}

static void run_hooks(struct bop_loop *loop)
{
    loop->hook_next = loop->hooks.next;
    while (loop->hook_next != &loop->hooks) {
        struct bop_hook *hook = BOP_CONTAINER_OF(loop->hook_next, struct bop_hook, link);

        loop->hook_next = hook->link.next;
        hook->fn(hook);
    }
    loop->hook_next = NULL;
}

int bop_loop_run_once(struct bop_loop *loop, int timeout_ms)
{
    struct epoll_event events[BOP__EVENTS_MAX];
    int count;

    BOP_ASSERT(!loop->in_turn);
    count = wait_events(loop, events, wait_us(loop, timeout_ms));
    if (count == -EINTR) {
        count = 0; /* A signal: a turn without events. */
    }
    if (count < 0) {
        return count;
    }
    loop->in_turn = true;
    bop__loop_read_clock(loop);
    bop__posts_run(loop);
    for (int i = 0; i < count; i++) {
        struct bop__source *source = (struct bop__source *)events[i].data.ptr;

        /* The wake descriptor has no source; a closed one is not asked again. */
        if (source != NULL && source->fd >= 0) {
            source->on_events(source, events[i].events);
        }
    }
    bop__socket_redeliver_all(loop);
    bop__timers_run(loop);
    run_hooks(loop);
    bop__socket_flush_all(loop);
    bop__socket_finish_closes(loop);
    finish_guests(loop);
    loop->in_turn = false;
    return 0;
}

int bop_loop_run(struct bop_loop *loop)
{
    bool stop = false;

    do {
        /* Acquire pairs with the release in bop_loop_stop(), as does the exchange. */
        bool asked = atomic_load_explicit(&loop->wake.stop, memory_order_acquire);
        /* Asked already: its wake may have been spent on an earlier turn. */
        int rc = bop_loop_run_once(loop, asked ? 0 : -1);

        if (rc != 0) {
            return rc;
        }
        stop = atomic_exchange_explicit(&loop->wake.stop, false, memory_order_acquire);
    } while (!stop);
    return 0;
}

void bop__loop_read_clock(struct bop_loop *loop)
{
    loop->now_ms = bop_max_u64(loop->now_ms, bop_clock_monotonic_ms(loop->clock));
}

uint64_t bop_loop_now_ms(const struct bop_loop *loop)
{
    return loop->now_ms;
}

struct bop_allocator *bop_loop_allocator(const struct bop_loop *loop)
{
    return loop->allocator;
}

/* ---- Hooks ---- */

void bop_loop_add_hook(struct bop_loop *loop, struct bop_hook *hook)
{
    bop_list_push_back(&loop->hooks, &hook->link);
}

void bop_loop_remove_hook(struct bop_loop *loop, struct bop_hook *hook)
{
    if (loop->hook_next == &hook->link) {
        loop->hook_next = hook->link.next;
    }
    bop_list_remove(&hook->link);
}

/* ---- Beginning and end ---- */

static int open_descriptors(struct bop_loop *loop)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};

    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        return -errno;
    }
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        return -errno;
    }
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) == 0 ? 0 : -errno;
}

static void free_loop(struct bop_loop *loop)
{
    struct bop_allocator *allocator = loop->allocator;

    bop__timers_deinit(&loop->timers);
    while (loop->spare_count > 0) {
        bop_buf_deinit(&loop->spares[--loop->spare_count]);
    }
    if (loop->wake_fd >= 0) {
        BOP_IGNORE(close(loop->wake_fd)); /* Nothing is buffered in it. */
    }
    if (loop->epoll_fd >= 0) {
        BOP_IGNORE(close(loop->epoll_fd)); /* As above. */
    }
    if (loop->receive != NULL) {
        bop_free(allocator, loop->receive, BOP__RECEIVE_BYTES);
    }
    bop_free(allocator, loop, sizeof(*loop));
}

int bop_loop_create(const struct bop_loop_options *options, struct bop_loop **out_loop)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options ? options->allocator : NULL,
                                                           "net");
    struct bop_loop *loop = (struct bop_loop *)bop_alloc_zeroed(allocator, sizeof(*loop));
    int rc;

    if (loop == NULL) {
        return BOP_ENOMEM;
    }
    loop->allocator = allocator;
    loop->clock = options && options->clock ? options->clock : bop_clock_system();
    loop->busy_poll_us = options ? options->busy_poll_us : 0;
    loop->epoll_fd = -1;
    loop->wake_fd = -1;
    bop__loop_read_clock(loop);
    bop__timers_init(&loop->timers, loop->now_ms);
    bop_list_init(&loop->hooks);
    bop_list_init(&loop->connections);
    bop_list_init(&loop->listeners);
    bop_list_init(&loop->redeliver);
    bop_list_init(&loop->flush);
    bop_list_init(&loop->closing);
    bop_list_init(&loop->retired);
    bop_list_init(&loop->guests);
    bop_list_init(&loop->leaving);
    atomic_init(&loop->wake.posted, NULL);
    atomic_init(&loop->wake.stop, false);
    loop->receive = (uint8_t *)bop_alloc(allocator, BOP__RECEIVE_BYTES);
    rc = loop->receive != NULL ? open_descriptors(loop) : BOP_ENOMEM;
    if (rc != 0) {
        free_loop(loop);
        return rc;
    }
    *out_loop = loop;
    return 0;
}

void bop_loop_destroy(struct bop_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    BOP_ASSERT(!loop->in_turn);
    loop->destroying = true; /* From here on nothing new is opened. */
    loop->in_turn = true;
    bop__posts_run(loop);
    bop__socket_close_all(loop);
    close_guests(loop);
    while (!bop_list_empty(&loop->closing) || !bop_list_empty(&loop->retired) ||
           !bop_list_empty(&loop->leaving)) {
        bop__socket_finish_closes(loop);
        finish_guests(loop);
    }
    /* What was posted by those; what these post in their turn has no loop left to
     * run on and is dropped, or one that posts itself again would never end. */
    bop__posts_run(loop);
    free_loop(loop);
}
