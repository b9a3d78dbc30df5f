/*
 * io_uring: what the loop wants to know goes to the kernel with the wait itself,
 * one system call a turn however much there is to watch anew.
 *
 * Readiness is asked for by a poll request each time anew: once it has answered
 * and the source was called, the next wait asks again. That is what makes it
 * level-triggered, which a standing request would not be. A source's record is
 * found by its descriptor, so the source itself holds nothing of this.
 *
 *      watch, rewatch, an event   -> record in `dirty`
 *      wait                       -> requests for all that are dirty, submit, wait
 *      unwatch while asked        -> take the request back at once: it holds the
 *                                    file, which would not be closed before
 *
 * A request taken back may have answered already. Its user data carries the
 * record's generation, which is another one by then, so the answer is dropped.
 *
 * The ring belongs to the thread that waits on it (SINGLE_ISSUER): it is made
 * without one and bound by the first wait. If the loop is run on another thread
 * later, it gets another ring, and asks for everything anew.
 */
#include <errno.h>
#include <liburing.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <bop/error.h>
#include <bop/mem.h>

#include "loop_internal.h"

/* Requests that one submission takes; with more it submits in between. */
#define REQUESTS_MAX 512
/* Answers waiting; the kernel keeps those for which there is no room, which costs more. */
#define ANSWERS_MAX 4096

/* Descriptors that need no further memory. */
#define FIRST_RECORDS 1024

/* What an answer is about; lies in the highest byte of its user data. */
enum kind {
    KIND_NONE = 0, /* Nobody's. */
    KIND_WAKE,
    KIND_POLL, /* Then 24 bits of generation and 32 of the descriptor. */
};

struct record {
    struct bop__source *source; /* NULL: not watched. */
    uint32_t generation;        /* Of 24 bits. */
    uint16_t asked;             /* The events of the request. */
    bool polled;                /* A request is with the kernel. */
    bool dirty;                 /* Among the dirty. */
    int dirty_fd;               /* Of the k-th record: the descriptor of the k-th dirty one. */
};

struct answer {
    uint64_t data;
    int32_t result;
    uint32_t flags;
};

struct uring_backend {
    struct bop__backend base;
    struct io_uring ring;
    bool has_ring;
    uint64_t thread; /* It is bound to; 0: not yet. */
    bool wake_polled;
    struct record *records; /* By descriptor; first_records until that are too few. */
    size_t record_count;
    size_t dirty_count;
    unsigned event_count;
    struct answer events[BOP__EVENTS_MAX];
    struct record first_records[FIRST_RECORDS];
};

static struct uring_backend *self_of(struct bop__backend *backend)
{
    return BOP_CONTAINER_OF(backend, struct uring_backend, base);
}

static uint64_t data_of(enum kind kind, uint32_t generation, int fd)
{
    return (uint64_t)kind << 56 | (uint64_t)(generation & 0xffffff) << 32 | (uint32_t)fd;
}

/* ---- The ring ---- */

static int make_ring(struct uring_backend *self)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED |
                 IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL,
        .cq_entries = ANSWERS_MAX,
    };
    int rc = io_uring_queue_init_params(REQUESTS_MAX, &self->ring, &params);

    if (rc != 0) {
        return rc;
    }
    if (!(params.features & IORING_FEAT_EXT_ARG) || !(params.features & IORING_FEAT_NODROP)) {
        io_uring_queue_exit(&self->ring);
        return -ENOSYS;
    }
    /* The child of a fork would write to the rings of its parent. */
    BOP_IGNORE(io_uring_ring_dontfork(&self->ring)); /* Best effort. */
    self->has_ring = true;
    self->thread = 0;
    return 0;
}

/* Forget what was asked: to be asked anew of the next ring. */
static void drop_ring(struct uring_backend *self)
{
    if (!self->has_ring) {
        return;
    }
    io_uring_queue_exit(&self->ring);
    self->has_ring = false;
    self->wake_polled = false;
    self->dirty_count = 0;
    for (size_t fd = 0; fd < self->record_count; fd++) {
        struct record *record = &self->records[fd];

        record->generation++;
        record->polled = false;
        record->dirty = record->source != NULL;
        if (record->dirty) {
            self->records[self->dirty_count++].dirty_fd = (int)fd;
        }
    }
}

/* liburing 2.3 forgets to export its function for this. */
static int enable_ring(struct uring_backend *self)
{
    long rc = syscall(__NR_io_uring_register, self->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS,
                      NULL, 0);

    return rc == 0 ? 0 : -errno;
}

/* A ring that is this thread's. */
static int own_ring(struct uring_backend *self)
{
    int rc = 0;

    if (self->has_ring && self->thread != 0 && self->thread != bop__thread_id()) {
        drop_ring(self);
    }
    if (!self->has_ring) {
        rc = make_ring(self);
    }
    if (rc == 0 && self->thread == 0) {
        rc = enable_ring(self);
        self->thread = rc == 0 ? bop__thread_id() : 0;
    }
    return rc;
}

/* NULL: the kernel takes no more at this time. */
static struct io_uring_sqe *next_request(struct uring_backend *self)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);

    if (sqe == NULL) {
        BOP_IGNORE(io_uring_submit(&self->ring)); /* Then there is still no room. */
        sqe = io_uring_get_sqe(&self->ring);
    }
    return sqe;
}

/* ---- Requests ---- */

static bool ask_wake(struct uring_backend *self)
{
    struct io_uring_sqe *sqe;

    if (self->wake_polled) {
        return true;
    }
    sqe = next_request(self);
    if (sqe == NULL) {
        return false;
    }
    /* A standing request answers each write anew, as an edge. */
    io_uring_prep_poll_multishot(sqe, self->base.loop->wake_fd, EPOLLIN);
    io_uring_sqe_set_data64(sqe, data_of(KIND_WAKE, 0, 0));
    self->wake_polled = true;
    return true;
}

/* Take the request back. */
static bool unask(struct uring_backend *self, struct record *record, int fd)
{
    struct io_uring_sqe *sqe = next_request(self);

    if (sqe == NULL) {
        return false;
    }
    io_uring_prep_poll_remove(sqe, data_of(KIND_POLL, record->generation, fd));
    io_uring_sqe_set_data64(sqe, data_of(KIND_NONE, 0, 0));
    record->polled = false;
    record->generation++;
    return true;
}

/* Make the kernel's knowledge what it should be. False: try again later. */
static bool ask(struct uring_backend *self, int fd)
{
    struct record *record = &self->records[fd];
    struct io_uring_sqe *sqe;

    if (record->source == NULL || (record->polled && record->asked == record->source->watched)) {
        return true;
    }
    if (record->polled && !unask(self, record, fd)) {
        return false;
    }
    sqe = next_request(self);
    if (sqe == NULL) {
        return false;
    }
    io_uring_prep_poll_add(sqe, fd, record->source->watched & ~BOP__SOURCE_CHANGES);
    io_uring_sqe_set_data64(sqe, data_of(KIND_POLL, record->generation, fd));
    record->asked = record->source->watched;
    record->polled = true;
    return true;
}

static void ask_all(struct uring_backend *self)
{
    size_t kept = 0;

    BOP_IGNORE(ask_wake(self)); /* The next wait tries again. */
    for (size_t i = 0; i < self->dirty_count; i++) {
        int fd = self->records[i].dirty_fd;

        if (kept == 0 && ask(self, fd)) {
            self->records[fd].dirty = false;
        } else {
            self->records[kept++].dirty_fd = fd;
        }
    }
    self->dirty_count = kept;
}

/* ---- Sources ---- */

static void mark(struct uring_backend *self, int fd)
{
    struct record *record = &self->records[fd];

    if (!record->dirty) {
        record->dirty = true;
        self->records[self->dirty_count++].dirty_fd = fd;
    }
}

static void free_records(struct uring_backend *self)
{
    if (self->records != self->first_records) {
        bop_free(self->base.loop->allocator, self->records,
                 self->record_count * sizeof(*self->records));
    }
}

static int grow(struct uring_backend *self, size_t needed)
{
    size_t count = self->record_count * 2;
    struct record *grown;

    while (count < needed) {
        count *= 2;
    }
    grown = (struct record *)bop_alloc_zeroed(self->base.loop->allocator, count * sizeof(*grown));
    if (grown == NULL) {
        return BOP_ENOMEM;
    }
    memcpy(grown, self->records, self->record_count * sizeof(*grown));
    free_records(self);
    self->records = grown;
    self->record_count = count;
    return 0;
}

static int watch(struct bop__backend *backend, struct bop__source *source, uint32_t events)
{
    struct uring_backend *self = self_of(backend);
    int rc = (size_t)source->fd < self->record_count ? 0 : grow(self, (size_t)source->fd + 1);

    if (rc == 0) {
        BOP_ASSERT(self->records[source->fd].source == NULL);
        self->records[source->fd].source = source;
        mark(self, source->fd);
    }
    return rc;
}

static int rewatch(struct bop__backend *backend, struct bop__source *source, uint32_t events)
{
    struct uring_backend *self = self_of(backend);

    self->records[source->fd].source = source; /* Another one, if it was moved. */
    mark(self, source->fd);
    return 0;
}

static void unwatch(struct bop__backend *backend, struct bop__source *source)
{
    struct uring_backend *self = self_of(backend);
    struct record *record = &self->records[source->fd];

    record->source = NULL;
    if (record->polled && self->thread != bop__thread_id()) {
        drop_ring(self); /* That takes all back. */
    } else if (record->polled) {
        /* Should it fail, the file stays open until the request has answered. */
        BOP_IGNORE(unask(self, record, source->fd));
        BOP_IGNORE(io_uring_submit_and_get_events(&self->ring));
        record->polled = false;
    }
    /* What came for it and is yet to be dispatched is no more for it. */
    record->generation++;
}

/* ---- The turn ---- */

/* The answers there are, copied: the ring has room for others then. */
static void take_answers(struct uring_backend *self)
{
    struct io_uring_cqe *found[BOP__EVENTS_MAX];

    self->event_count = io_uring_peek_batch_cqe(&self->ring, found, BOP__EVENTS_MAX);
    for (unsigned i = 0; i < self->event_count; i++) {
        self->events[i] = (struct answer){
            .data = found[i]->user_data, .result = found[i]->res, .flags = found[i]->flags};
    }
    io_uring_cq_advance(&self->ring, self->event_count);
}

static int submit_and_wait(struct uring_backend *self, uint64_t us)
{
    struct io_uring_cqe *first;
    struct __kernel_timespec timeout = {.tv_sec = (long long)(us / 1000000),
                                        .tv_nsec = (long long)(us % 1000000) * 1000};

    if (us == 0) {
        return io_uring_submit_and_get_events(&self->ring);
    }
    if (us == UINT64_MAX) {
        return io_uring_submit_and_wait(&self->ring, 1);
    }
    return io_uring_submit_and_wait_timeout(&self->ring, &first, 1, &timeout, NULL);
}

static int wait(struct bop__backend *backend, uint64_t timeout_us)
{
    struct uring_backend *self = self_of(backend);
    int rc = own_ring(self);

    self->event_count = 0;
    if (rc != 0) {
        return rc;
    }
    ask_all(self);
    rc = submit_and_wait(self, self->dirty_count > 0 ? 0 : timeout_us);
    switch (rc < 0 ? rc : 0) {
    case 0:
    case -ETIME:  /* The time is over. */
    case -EBUSY:  /* Answers must be taken first. */
    case -EAGAIN: /* Out of memory for the time being. */
    case -EINTR:
        break;
    case -EBADR: /* Answers were lost for lack of memory. */
        drop_ring(self);
        return 0;
    default:
        return rc;
    }
    take_answers(self);
    return self->event_count > 0 || rc != -EINTR ? (int)self->event_count : rc;
}

static void handle_poll(struct uring_backend *self, const struct answer *event)
{
    int fd = (int)(uint32_t)event->data;
    struct record *record = &self->records[fd];
    struct bop__source *source = record->source;
    uint32_t events;

    if (((event->data >> 32) & 0xffffff) != (record->generation & 0xffffff)) {
        return; /* Of a request taken back. */
    }
    record->polled = false;
    mark(self, fd); /* Ask again. */
    if (event->result == -ECANCELED) {
        return; /* The thread that asked has ended. */
    }
    events = event->result < 0 ? (uint32_t)(EPOLLERR | EPOLLHUP) : (uint32_t)event->result;
    events &= (uint32_t)source->watched | EPOLLERR | EPOLLHUP;
    if (events != 0) {
        source->on_events(source, events);
    }
}

static void dispatch(struct bop__backend *backend)
{
    struct uring_backend *self = self_of(backend);

    for (unsigned i = 0; i < self->event_count; i++) {
        const struct answer *event = &self->events[i];

        switch ((enum kind)(event->data >> 56)) {
        case KIND_WAKE:
            if (!(event->flags & IORING_CQE_F_MORE)) {
                self->wake_polled = false;
            }
            break;
        case KIND_POLL:
            handle_poll(self, event);
            break;
        case KIND_NONE:
            break;
        }
    }
    self->event_count = 0;
}

static int settle(struct bop__backend *backend)
{
    struct uring_backend *self = self_of(backend);
    int rc = own_ring(self);

    if (rc == 0) {
        ask_all(self);
        rc = io_uring_submit(&self->ring);
    }
    return rc < 0 ? rc : 0;
}

static int get_fd(struct bop__backend *backend)
{
    struct uring_backend *self = self_of(backend);
    int rc = own_ring(self);

    return rc == 0 ? self->ring.ring_fd : rc;
}

static void destroy(struct bop__backend *backend)
{
    struct uring_backend *self = self_of(backend);

    if (self->has_ring) {
        io_uring_queue_exit(&self->ring);
    }
    free_records(self);
    bop_free(backend->loop->allocator, self, sizeof(*self));
}

static const struct bop__backend_ops uring_ops = {
    .destroy = destroy,
    .watch = watch,
    .rewatch = rewatch,
    .unwatch = unwatch,
    .wait = wait,
    .dispatch = dispatch,
    .fd = get_fd,
    .settle = settle,
};

int bop__uring_create(struct bop_loop *loop, struct bop__backend **out_backend)
{
    struct uring_backend *self = bop_alloc_zeroed(loop->allocator, sizeof(*self));
    int rc;

    if (self == NULL) {
        return BOP_ENOMEM;
    }
    self->base = (struct bop__backend){.ops = &uring_ops, .loop = loop, .name = "io_uring"};
    self->records = self->first_records;
    self->record_count = FIRST_RECORDS;
    rc = make_ring(self);
    if (rc != 0) {
        destroy(&self->base);
        return rc;
    }
    *out_backend = &self->base;
    return 0;
}
