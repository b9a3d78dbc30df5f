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
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

/* Descriptors below Linux's own bound: 16 MiB of addresses, of which pages in use are memory. */
#define RECORDS_MAX (1u << 20)

/* 1 MiB a loop, once it has a socket. What a turn brings beyond that waits in the sockets. */
#define BUFFER_COUNT 8u
#define BUFFER_BYTES (128u * 1024)
#define BUFFER_GROUP 1
#define RING_BYTES   4096u /* The ring of buffers itself: a page. */

/* What may be asked for. There are only levels here: changes alone are asked for in vain. */
#define POLL_EVENTS (EPOLLIN | EPOLLOUT)

/* Linux 6.12; liburing 2.3 does not know of them. */
#define PBUF_RING_INC  2u
#define CQE_F_BUF_MORE (1u << 4)

/* What an answer is about; lies in the highest byte of its user data. */
enum kind {
    KIND_NONE = 0, /* Nobody's. */
    KIND_WAKE,
    KIND_POLL,    /* Then 16 bits of generation and, lowest, 32 of the descriptor. */
    KIND_RECEIVE, /* Likewise. */
};

struct record {
    struct bop__source *source;    /* NULL: not watched. */
    int next_dirty;                /* If dirty: the next descriptor that is; -1: none. */
    unsigned generation : 10;      /* Another one for each who is watched. */
    unsigned poll_generation : 10; /* And for each poll request. */
    unsigned asked : 3;            /* The events of the poll request, see pack_events(). */
    bool polled : 1;               /* A poll request is with the kernel. */
    bool receives : 1;             /* A standing receive request is, until its last answer. */
    bool stops : 1;                /* It was taken back. */
    bool dirty : 1;                /* What the kernel knows may differ from what it should. */
};

_Static_assert(sizeof(struct record) <= 16, "there is one for each descriptor");

struct answer {
    uint64_t data;
    const uint8_t *bytes; /* Received. */
    int32_t result;
    uint32_t flags;
};

/* Memory that the kernel receives into: it fills one buffer after the other, each
 * by as many pieces as come, and gets it back when all of them were looked at. */
struct buffers {
    struct io_uring_buf_ring *ring; /* NULL: this kernel cannot do so, or not tried yet. */
    uint8_t *bytes;                 /* Behind it. */
    bool tried;
    uint32_t filled[BUFFER_COUNT]; /* How much of each. */
};

struct uring_backend {
    struct bop__backend base;
    struct io_uring ring;
    bool has_ring;
    uint64_t thread; /* It is bound to; 0: not yet. */
    /* An eventfd that the kernel writes to with each answer, for an outside loop; -1: none. The
     * ring's own descriptor wakes nobody until this thread has made the answers. */
    int notify_fd;
    bool wake_polled;
    struct record *records; /* RECORDS_MAX, by descriptor. */
    int last_fd;            /* The highest that was ever watched; -1: none. */
    int first_dirty;        /* -1: none. */
    int last_dirty;
    struct buffers buffers;
    unsigned event_count;
    struct answer events[BOP__EVENTS_MAX];
};

static struct uring_backend *self_of(struct bop__backend *backend)
{
    return BOP_CONTAINER_OF(backend, struct uring_backend, base);
}

static uint64_t data_of(enum kind kind, uint16_t generation, int fd)
{
    return (uint64_t)kind << 56 | (uint64_t)generation << 32 | (uint32_t)fd;
}

static struct record *record_of(struct uring_backend *self, int fd)
{
    return &self->records[fd];
}

static void mark(struct uring_backend *self, int fd)
{
    struct record *record = record_of(self, fd);

    if (record->dirty) {
        return;
    }
    record->dirty = true;
    record->next_dirty = -1;
    if (self->first_dirty < 0) {
        self->first_dirty = fd;
    } else {
        record_of(self, self->last_dirty)->next_dirty = fd;
    }
    self->last_dirty = fd;
}

/* ---- Buffers ---- */

static void add_buffer(struct buffers *buffers, unsigned id)
{
    buffers->filled[id] = 0;
    io_uring_buf_ring_add(buffers->ring, buffers->bytes + (size_t)id * BUFFER_BYTES, BUFFER_BYTES,
                          (unsigned short)id, io_uring_buf_ring_mask(BUFFER_COUNT), 0);
    io_uring_buf_ring_advance(buffers->ring, 1);
}

static void unmap_buffers(struct buffers *buffers)
{
    if (buffers->ring != NULL) {
        BOP_IGNORE(munmap(buffers->ring, RING_BYTES + (size_t)BUFFER_COUNT * BUFFER_BYTES));
        buffers->ring = NULL;
    }
}

/* For a ring that has none. Without them sources are polled and read by system calls. */
static void give_buffers(struct uring_backend *self)
{
    struct buffers *buffers = &self->buffers;
    struct io_uring_buf_reg group = {
        .ring_entries = BUFFER_COUNT, .bgid = BUFFER_GROUP, .pad = PBUF_RING_INC};
    void *memory = mmap(NULL, RING_BYTES + (size_t)BUFFER_COUNT * BUFFER_BYTES,
                        PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    buffers->tried = true;
    if (memory == MAP_FAILED) {
        return;
    }
    buffers->ring = (struct io_uring_buf_ring *)memory;
    buffers->bytes = (uint8_t *)memory + RING_BYTES;
    group.ring_addr = (uint64_t)(uintptr_t)memory;
    if (io_uring_register_buf_ring(&self->ring, &group, 0) != 0) {
        unmap_buffers(buffers);
        return;
    }
    io_uring_buf_ring_init(buffers->ring);
    for (unsigned id = 0; id < BUFFER_COUNT; id++) {
        add_buffer(buffers, id);
    }
    self->base.receives = true;
}

static bool receives(struct uring_backend *self, const struct bop__source *source)
{
    if (!source->delegates || !(source->watched & EPOLLIN)) {
        return false;
    }
    if (!self->buffers.tried) {
        give_buffers(self);
    }
    return self->buffers.ring != NULL;
}

/* Where the bytes of an answer lie. */
static const uint8_t *find_bytes(struct uring_backend *self, const struct io_uring_cqe *answer)
{
    struct buffers *buffers = &self->buffers;
    unsigned id = answer->flags >> IORING_CQE_BUFFER_SHIFT;
    const uint8_t *bytes;

    if (!(answer->flags & IORING_CQE_F_BUFFER)) {
        return NULL;
    }
    BOP_ASSERT(id < BUFFER_COUNT && answer->res >= 0 &&
               (uint32_t)answer->res <= BUFFER_BYTES - buffers->filled[id]);
    bytes = buffers->bytes + (size_t)id * BUFFER_BYTES + buffers->filled[id];
    buffers->filled[id] += (uint32_t)answer->res;
    return bytes;
}

/* ---- The ring ---- */

static int make_ring(struct uring_backend *self)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED |
                 IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG,
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

/* What they answer from here on is dropped. */
static void forget_requests(struct record *record)
{
    record->generation++;
    record->poll_generation++;
    record->polled = false;
    record->receives = false;
    record->stops = false;
}

/* Forget what was asked: to be asked anew of the next ring. */
static void drop_ring(struct uring_backend *self)
{
    if (!self->has_ring) {
        return;
    }
    io_uring_queue_exit(&self->ring);
    unmap_buffers(&self->buffers);
    self->buffers.tried = false;
    self->has_ring = false;
    self->wake_polled = false;
    for (int fd = 0; fd <= self->last_fd; fd++) {
        forget_requests(record_of(self, fd));
        if (record_of(self, fd)->source != NULL) {
            mark(self, fd);
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

static bool is_others(const struct uring_backend *self)
{
    return self->has_ring && self->thread != 0 && self->thread != bop__thread_id();
}

/* A ring that is this thread's. */
static int own_ring(struct uring_backend *self)
{
    int rc = 0;

    if (is_others(self)) {
        drop_ring(self);
    }
    if (!self->has_ring) {
        rc = make_ring(self);
    }
    if (rc == 0 && self->thread == 0) {
        rc = enable_ring(self);
        self->thread = rc == 0 ? bop__thread_id() : 0;
        if (rc == 0 && self->notify_fd >= 0) {
            rc = io_uring_register_eventfd(&self->ring, self->notify_fd);
        }
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
    /* Asked anew after each answer, as for sources: nothing rests on an edge. */
    io_uring_prep_poll_add(sqe, self->base.loop->wake_fd, EPOLLIN);
    io_uring_sqe_set_data64(sqe, data_of(KIND_WAKE, 0, 0));
    self->wake_polled = true;
    return true;
}

/* Take a request back. Of a poll nothing more is heard. A standing receive request may have
 * brought bytes already, which are given, and ends with an answer of its own. */
static bool unask(struct uring_backend *self, struct record *record, enum kind kind, int fd)
{
    struct io_uring_sqe *sqe = next_request(self);

    if (sqe == NULL) {
        return false;
    }
    if (kind == KIND_POLL) {
        io_uring_prep_poll_remove(sqe, data_of(kind, record->poll_generation, fd));
        record->polled = false;
        record->poll_generation++;
    } else {
        io_uring_prep_cancel64(sqe, data_of(kind, record->generation, fd), 0);
        record->stops = true;
    }
    io_uring_sqe_set_data64(sqe, data_of(KIND_NONE, 0, 0));
    return true;
}

static unsigned pack_events(uint32_t events)
{
    return (events & EPOLLIN ? 1u : 0) | (events & EPOLLOUT ? 2u : 0);
}

static bool ask_poll(struct uring_backend *self, struct record *record, int fd, uint16_t events)
{
    struct io_uring_sqe *sqe;

    if (record->polled && record->asked == pack_events(events)) {
        return true;
    }
    if (record->polled && !unask(self, record, KIND_POLL, fd)) {
        return false;
    }
    sqe = next_request(self);
    if (sqe == NULL) {
        return false;
    }
    io_uring_prep_poll_add(sqe, fd, events);
    io_uring_sqe_set_data64(sqe, data_of(KIND_POLL, record->poll_generation, fd));
    record->asked = pack_events(events);
    record->polled = true;
    return true;
}

static bool ask_receive(struct uring_backend *self, struct record *record, int fd)
{
    struct io_uring_sqe *sqe;

    if (record->receives) {
        return true; /* Or asked anew after its last answer, if it was taken back. */
    }
    sqe = next_request(self);
    if (sqe == NULL) {
        return false;
    }
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    io_uring_sqe_set_data64(sqe, data_of(KIND_RECEIVE, record->generation, fd));
    record->receives = true;
    record->stops = false;
    return true;
}

/* Make the kernel's knowledge what it should be. False: try again later. */
static bool ask(struct uring_backend *self, int fd)
{
    struct record *record = record_of(self, fd);
    bool wants, receiving, polls;
    uint16_t events;

    if (record->source == NULL) {
        return true;
    }
    wants = receives(self, record->source);
    receiving = wants || record->receives;
    /* Receiving tells of the end and of errors, in their place after the bytes. */
    events = record->source->watched & (receiving ? EPOLLOUT : POLL_EVENTS);
    polls = !receiving || events != 0;
    if (polls && !ask_poll(self, record, fd, events)) {
        return false;
    }
    if (!polls && record->polled && !unask(self, record, KIND_POLL, fd)) {
        return false;
    }
    if (wants) {
        return ask_receive(self, record, fd);
    }
    return !record->receives || record->stops || unask(self, record, KIND_RECEIVE, fd);
}

static void ask_all(struct uring_backend *self)
{
    BOP_IGNORE(ask_wake(self)); /* The next wait tries again. */
    while (self->first_dirty >= 0 && ask(self, self->first_dirty)) {
        struct record *record = record_of(self, self->first_dirty);

        record->dirty = false;
        self->first_dirty = record->next_dirty;
    }
}

/* ---- Sources ---- */

/* A file is always ready and never has events: refused, as by epoll. */
static int check_kind(int fd)
{
    struct stat stat;

    if (fstat(fd, &stat) != 0) {
        return -errno;
    }
    return S_ISREG(stat.st_mode) || S_ISDIR(stat.st_mode) ? -EPERM : 0;
}

static int watch(struct bop__backend *backend, struct bop__source *source, uint32_t events)
{
    struct uring_backend *self = self_of(backend);
    int rc = check_kind(source->fd);

    if (rc == 0 && (unsigned)source->fd >= RECORDS_MAX) {
        rc = -EMFILE;
    }
    if (rc == 0) {
        BOP_ASSERT(record_of(self, source->fd)->source == NULL);
        record_of(self, source->fd)->source = source;
        self->last_fd = source->fd > self->last_fd ? source->fd : self->last_fd;
        mark(self, source->fd);
        if (source->delegates && !self->buffers.tried && self->has_ring && !is_others(self)) {
            give_buffers(self);
        }
    }
    return rc;
}

static int rewatch(struct bop__backend *backend, struct bop__source *source, uint32_t events)
{
    struct uring_backend *self = self_of(backend);

    record_of(self, source->fd)->source = source; /* Another one, if it was moved. */
    mark(self, source->fd);
    return 0;
}

static void unwatch(struct bop__backend *backend, struct bop__source *source)
{
    struct uring_backend *self = self_of(backend);
    struct record *record = record_of(self, source->fd);

    record->source = NULL;
    if (!record->polled && !record->receives) {
        /* Nothing is asked. */
    } else if (!is_others(self)) {
        /* Should it fail, the file stays open until the request has answered. */
        BOP_IGNORE(!record->polled || unask(self, record, KIND_POLL, source->fd));
        BOP_IGNORE(!record->receives || record->stops ||
                   unask(self, record, KIND_RECEIVE, source->fd));
        BOP_IGNORE(io_uring_submit_and_get_events(&self->ring));
    } else if (io_uring_cq_ready(&self->ring) == 0 && self->event_count == 0) {
        drop_ring(self); /* That takes all back. */
    } /* Else the next wait drops it, after the answers that others have there. */
    forget_requests(record);
}

/* ---- The turn ---- */

/* Newer kernels make 20 answers a call if only one is waited for. A turn should
 * have them all, and do for all at once what it does at its end.
 *
 * The flag says that there may be some to make. It is set after the work was put
 * on the kernel's list, so it may come when that is done already, and then stays
 * until the next work: a call that makes no answer is the last. */
static void make_answers(struct uring_backend *self)
{
    unsigned ready = io_uring_cq_ready(&self->ring), before;

    do {
        if (!(IO_URING_READ_ONCE(*self->ring.sq.kflags) & IORING_SQ_TASKRUN) ||
            ready >= BOP__EVENTS_MAX || io_uring_get_events(&self->ring) < 0) {
            break; /* If it fails, the next wait tells. */
        }
        before = ready;
        ready = io_uring_cq_ready(&self->ring);
    } while (ready > before);
}

/* The answers there are, copied: the ring has room for others then. */
static void take_answers(struct uring_backend *self)
{
    struct io_uring_cqe *found[BOP__EVENTS_MAX];

    self->event_count = io_uring_peek_batch_cqe(&self->ring, found, BOP__EVENTS_MAX);
    for (unsigned i = 0; i < self->event_count; i++) {
        self->events[i] = (struct answer){.data = found[i]->user_data,
                                          .bytes = find_bytes(self, found[i]),
                                          .result = found[i]->res,
                                          .flags = found[i]->flags};
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
    int rc;

    self->event_count = 0;
    if (is_others(self)) {
        take_answers(self); /* It has no more to come, but these may be bytes. */
        if (self->event_count > 0) {
            return (int)self->event_count;
        }
    }
    rc = own_ring(self);
    if (rc != 0) {
        return rc;
    }
    ask_all(self);
    rc = submit_and_wait(self, self->first_dirty >= 0 ? 0 : timeout_us);
    switch (rc < 0 ? rc : 0) {
    case 0:
    case -ETIME:  /* The time is over. */
    case -EBUSY:  /* Answers must be taken first. */
    case -EAGAIN: /* Out of memory for the time being. */
    case -EINTR:
        break;
    default: /* -EBADR: answers were lost for lack of memory, and bytes with them. */
        return rc;
    }
    make_answers(self);
    take_answers(self);
    return self->event_count > 0 || rc != -EINTR ? (int)self->event_count : rc;
}

static uint16_t generation_of(const struct answer *event)
{
    return (uint16_t)(event->data >> 32);
}

static void handle_poll(struct uring_backend *self, const struct answer *event)
{
    int fd = (int)(uint32_t)event->data;
    struct record *record = record_of(self, fd);
    struct bop__source *source = record->source;
    uint32_t events;

    if (generation_of(event) != record->poll_generation) {
        return; /* Of a request taken back. */
    }
    record->polled = false;
    mark(self, fd); /* Ask again. */
    if (event->result == -ECANCELED) {
        return; /* The thread that asked has ended. */
    }
    events = event->result < 0 ? (uint32_t)(EPOLLERR | EPOLLHUP) : (uint32_t)event->result;
    events &= (uint32_t)source->watched | (record->receives ? 0 : EPOLLERR | EPOLLHUP);
    if (events != 0) {
        source->on_events(source, events);
    }
}

static void handle_receive(struct uring_backend *self, const struct answer *event)
{
    int fd = (int)(uint32_t)event->data;
    struct record *record = record_of(self, fd);

    if (generation_of(event) == record->generation) {
        if (!(event->flags & IORING_CQE_F_MORE)) {
            record->receives = false;
            mark(self, fd); /* Ask again, if it is still wanted. */
        }
        switch (event->result) {
        case -ENOBUFS: /* All are full of what this turn goes through. */
        case -ECANCELED:
        case -EINTR:
        case -EAGAIN:
            break;
        default:
            bop__socket_on_input(record->source, event->result, event->bytes);
        }
    }
    if ((event->flags & IORING_CQE_F_BUFFER) && !(event->flags & CQE_F_BUF_MORE)) {
        add_buffer(&self->buffers, event->flags >> IORING_CQE_BUFFER_SHIFT);
    }
}

/* Made not readable before it is asked for again. Whoever wrote to it has left a post, or a wish
 * to stop or for a wake-up, which the turn or the next one finds without a wait. */
static void take_wake(struct uring_backend *self)
{
    eventfd_t writes;

    self->wake_polled = false;
    BOP_IGNORE(eventfd_read(self->base.loop->wake_fd, &writes) != 0);
}

static void dispatch(struct bop__backend *backend)
{
    struct uring_backend *self = self_of(backend);

    for (unsigned i = 0; i < self->event_count; i++) {
        const struct answer *event = &self->events[i];

        switch ((enum kind)(event->data >> 56)) {
        case KIND_WAKE:
            take_wake(self);
            break;
        case KIND_POLL:
            handle_poll(self, event);
            break;
        case KIND_RECEIVE:
            handle_receive(self, event);
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
    eventfd_t answers;
    int rc = own_ring(self);

    if (rc == 0) {
        ask_all(self);
        /* Made not readable before the answers are looked at: later ones are written anew. */
        BOP_IGNORE(self->notify_fd >= 0 && eventfd_read(self->notify_fd, &answers) != 0);
        rc = io_uring_submit_and_get_events(&self->ring);
        if (self->notify_fd >= 0 && io_uring_cq_ready(&self->ring) > 0) {
            BOP_IGNORE(eventfd_write(self->notify_fd, 1)); /* Full: readable all the same. */
        }
    }
    return rc < 0 ? rc : 0;
}

static int get_fd(struct bop__backend *backend)
{
    struct uring_backend *self = self_of(backend);
    int fd, rc = own_ring(self);

    if (rc != 0 || self->notify_fd >= 0) {
        return rc != 0 ? rc : self->notify_fd;
    }
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return -errno;
    }
    rc = io_uring_register_eventfd(&self->ring, fd);
    if (rc != 0) {
        BOP_IGNORE(close(fd)); /* Nothing was written to it. */
        return rc;
    }
    self->notify_fd = fd;
    return fd;
}

static void destroy(struct bop__backend *backend)
{
    struct uring_backend *self = self_of(backend);

    if (self->has_ring) {
        io_uring_queue_exit(&self->ring);
    }
    if (self->notify_fd >= 0) {
        BOP_IGNORE(close(self->notify_fd)); /* Nothing of value is in it. */
    }
    unmap_buffers(&self->buffers);
    if (self->records != NULL) {
        BOP_IGNORE(munmap(self->records, RECORDS_MAX * sizeof(struct record)));
    }
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
    void *records;
    int rc;

    if (self == NULL) {
        return BOP_ENOMEM;
    }
    self->base = (struct bop__backend){.ops = &uring_ops, .loop = loop, .name = "io_uring"};
    self->notify_fd = -1;
    self->first_dirty = -1;
    self->last_fd = -1;
    records = mmap(NULL, RECORDS_MAX * sizeof(struct record), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    self->records = records != MAP_FAILED ? (struct record *)records : NULL;
    rc = self->records != NULL ? make_ring(self) : BOP_ENOMEM;
    if (rc != 0) {
        destroy(&self->base);
        return rc;
    }
    *out_backend = &self->base;
    return 0;
}
