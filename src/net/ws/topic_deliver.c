/*
 * Delivery: at the end of a turn each subscriber is sent its topics' batches.
 *
 * One batch is sent from its buffer by one call for each subscriber that has
 * nothing queued: no copy, no queue, no flush. What the kernel does not take,
 * and all where there are several batches, is queued, by reference unless it is
 * small, and goes out at once after this.
 *
 * Where many are subscribed, the sends go to the kernel in bursts. A send that is
 * noted must not outlive its socket, which calls of users may close: so all that
 * may lead to one is done after what was noted is sent.
 */
#include "topic.h"

#include <bop/error.h>
#include <sys/socket.h>

#include "../socket/burst.h"
#include "conn.h"

/* Subscribers whose memory is asked for ahead of their turn. */
#define AHEAD 1

/* Subscribers for whom a burst is worth its descriptor and its memory. */
#define BURST_SUBSCRIBERS_MIN 64u

/** A batch on its way to the subscribers. */
struct round {
    struct bop__branch *branch;
    struct bop__batch *batch;
    bool alone;                  /* There is no other batch. */
    struct bop_shared *deflated; /* For those who negotiated it, made for the first of them, */
    unsigned bits;               /* with this window. */
    struct bop__burst *burst;    /* NULL: one call for each. */
    uint64_t delivered;
    uint64_t dropped;
};

/* ---- Frames ---- */

/** One of a batch's messages. */
struct frame {
    size_t at;
    unsigned opcode;
    struct bop_slice payload;
};

/* The frame at `at`, a server's, whole. Returns where the next begins. */
static size_t read_frame(const struct bop_shared *frames, size_t at, struct frame *out_frame)
{
    const uint8_t *bytes = frames->data + at;
    size_t header = 2, size = bytes[1];

    if (size >= 126) {
        unsigned width = size == 126 ? 2 : 8;

        size = 0;
        for (unsigned i = 0; i < width; i++) {
            size = size << 8 | bytes[2 + i];
        }
        header += width;
    }
    *out_frame = (struct frame){
        .at = at, .opcode = bytes[0] & 15u, .payload = bop_slice(bytes + header, size)};
    return at + header + size;
}

static bool is_excepted(const struct bop__batch *batch, const struct bop__ws *ws, size_t at)
{
    for (size_t i = 0; i < batch->except_count; i++) {
        if (batch->excepts[i].at == at && batch->excepts[i].ws == bop__ws_handle(ws)) {
            return true;
        }
    }
    return false;
}

/* ---- Dropping ---- */

static void drop(struct round *round, struct bop__ws *ws)
{
    const struct bop_ws_options *options = &ws->group->options;
    struct bop__batch *batch = round->batch;
    struct frame frame;

    for (size_t at = 0; at < batch->frames->size;) {
        at = read_frame(batch->frames, at, &frame);
        if (is_excepted(batch, ws, frame.at)) {
            continue;
        }
        round->dropped++;
        if (options->on_dropped != NULL && bop__ws_is_open(ws)) {
            options->on_dropped(bop__ws_handle(ws), ws->user, (enum bop_ws_opcode)frame.opcode,
                                frame.payload);
        }
    }
}

/* ---- Compression ---- */

static struct bop_shared *deflate_all(const struct bop__batch *batch, struct bop__ws_group *group,
                                      unsigned bits)
{
    struct bop_shared *frames = batch->frames;
    struct bop_ws_zip *zip = bop__ws_zip(group);
    struct bop_ws_zip_stream stream = bop__ws_fresh_stream(bits);
    struct bop_buf *bytes = &group->home->deflated;
    /* No frame gets longer: then it stays as it is. */
    struct bop_shared *all = zip != NULL
                                 ? bop_shared_create(group->home->loop->allocator, frames->size)
                                 : NULL;
    struct frame frame;
    size_t size = 0;

    if (all == NULL) {
        return bop_shared_ref(frames);
    }
    for (size_t at = 0; at < frames->size;) {
        size_t next = read_frame(frames, at, &frame);

        bop_buf_clear(bytes);
        if (frame.payload.size >= group->options.deflate_threshold &&
            bop_ws_deflate(zip, &stream, frame.payload, true, bytes) == 0) {
            size += bop_ws_header(all->data + size, BOP_WS_FIN | BOP_WS_COMPRESSED | frame.opcode,
                                  bytes->size, NULL);
            memcpy(all->data + size, bytes->data, bytes->size);
            size += bytes->size;
        } else {
            memcpy(all->data + size, frames->data + at, next - at);
            size += next - at;
        }
        at = next;
    }
    bop_ws_zip_stream_deinit(zip, &stream);
    all->size = size;
    return all;
}

/* What this subscriber reads. */
static struct bop_shared *frames_for(struct round *round, const struct bop__ws *ws)
{
    struct bop__batch *batch = round->batch;
    const struct bop_ws_options *options = &ws->group->options;

    if (BOP_LIKELY(!ws->deflate) || ws->send_takeover ||
        batch->largest < options->deflate_threshold) {
        return batch->frames; /* What is sent plain does not touch a window that is kept. */
    }
    if (batch->prepared != NULL && batch->messages == 1) {
        return bop__prepared_frame(batch->prepared, ws);
    }
    if (round->deflated == NULL && ws->send_bits >= options->deflate_window_bits) {
        round->bits = options->deflate_window_bits;
        round->deflated = deflate_all(batch, ws->group, round->bits);
    }
    /* A larger window reads what was made for a smaller one. */
    return round->deflated != NULL && ws->send_bits >= round->bits ? round->deflated
                                                                   : batch->frames;
}

/* ---- Sending ---- */

static bool may_send_now(const struct bop__socket *sock)
{
    return sock->state == BOP__SOCKET_OPEN && !sock->leaving && !sock->shutting && !sock->opening &&
           !sock->has_tls && !sock->counts && !sock->write_waits && !bop__socket_blocked(sock) &&
           (sock->queue == NULL || bop__queue_size(sock->queue) == 0) &&
           (sock->more == NULL || sock->more->write_rate == NULL);
}

/* Returns how much went, or -errno of a connection that failed. */
static ssize_t send_now(struct bop__socket *sock, const struct bop_shared *frames)
{
    ssize_t sent = send(sock->source.fd, frames->data, frames->size, MSG_NOSIGNAL | MSG_DONTWAIT);

    return sent >= 0 ? sent : -errno;
}

/* The kernel took so much of them, or -errno: the rest is queued. */
static void after_send(struct round *round, struct bop__ws *ws, struct bop_shared *frames,
                       ssize_t sent)
{
    struct bop__socket *sock = bop__ws_sock(ws);

    if (BOP_UNLIKELY(sent == -EAGAIN || sent == -EINTR)) {
        sent = 0;
    } else if (BOP_UNLIKELY(sent < 0)) {
        bop__socket_begin_close(sock, (int)sent);
        return;
    } else if (sent > 0) {
        bop__socket_note_active(sock);
    }
    if (BOP_UNLIKELY((size_t)sent < frames->size) &&
        bop__socket_write_shared(sock, frames, (size_t)sent, frames->size - (size_t)sent) != 0) {
        if (sent > 0) {
            bop__socket_begin_close(sock, BOP_ENOMEM); /* A frame is cut short. */
        } else {
            drop(round, ws);
        }
        return;
    }
    round->delivered += round->batch->messages;
}

/* What was noted goes out. */
static void send_burst(struct round *round)
{
    const struct bop__burst_send *sends;
    unsigned count = bop__burst_send(round->burst, &sends);

    for (unsigned i = 0; i < count; i++) {
        struct bop__ws *ws = (struct bop__ws *)sends[i].user;

        if (BOP_LIKELY(sends[i].result >= 0 && (size_t)sends[i].result == sends[i].shared->size)) {
            round->delivered += round->batch->messages; /* Its memory is cold again: let it be. */
        } else if (bop__ws_sock(ws)->state == BOP__SOCKET_OPEN) {
            after_send(round, ws, sends[i].shared, sends[i].result);
        } /* Else it was closed by what one before it led to. */
    }
}

static void send_frames(struct round *round, struct bop__ws *ws)
{
    struct bop__socket *sock = bop__ws_sock(ws);
    struct bop_shared *frames = frames_for(round, ws);
    bool now = BOP_LIKELY(round->alone && may_send_now(sock));

    if (now && round->burst != NULL) {
        bop__socket_note_active(sock);
        bop__burst_add(round->burst, sock->source.fd, frames, ws);
        if (bop__burst_is_full(round->burst)) {
            send_burst(round);
        }
    } else {
        after_send(round, ws, frames, now ? send_now(sock, frames) : 0);
    }
}

/* ---- Those who need it otherwise ---- */

/* Frame by frame, as the connection frames them: for clients, and the publishers themselves. */
static void send_one_by_one(struct round *round, struct bop__ws *ws)
{
    struct bop__batch *batch = round->batch;
    struct frame frame;

    for (size_t at = 0; at < batch->frames->size;) {
        at = read_frame(batch->frames, at, &frame);
        if (is_excepted(batch, ws, frame.at)) {
            continue;
        }
        if (bop__ws_put(ws, BOP_WS_FIN | frame.opcode, frame.payload) == 0) {
            round->delivered++;
        } else {
            round->dropped++;
        }
    }
}

/* Amid a message in parts: they go after it. */
static void hold(struct round *round, struct bop__ws *ws)
{
    struct bop__batch *batch = round->batch;
    struct bop__ws_extra *extra = bop__ws_extra(ws);
    struct frame frame;
    uint32_t key = 0;

    if (extra == NULL || extra->held.size > ws->group->options.pressure_max) {
        drop(round, ws);
        return;
    }
    for (size_t at = 0; at < batch->frames->size;) {
        at = read_frame(batch->frames, at, &frame);
        if (is_excepted(batch, ws, frame.at)) {
            continue;
        }
        if ((ws->client && bop_ws_keys_next(&ws->group->home->keys, &key) != 0) ||
            bop_ws_append(&extra->held, BOP_WS_FIN | frame.opcode, frame.payload,
                          ws->client ? &key : NULL) != 0) {
            round->dropped++;
        } else {
            round->delivered++;
        }
    }
}

static void deliver_to(struct round *round, struct bop__ws *ws)
{
    bool publishes = ws->publishes && round->batch->except_count > 0;

    if (BOP_UNLIKELY(!bop__ws_is_open(ws))) {
        return;
    }
    if (round->burst != NULL &&
        BOP_UNLIKELY(ws->in_parts || ws->client || publishes || !may_send_now(bop__ws_sock(ws)))) {
        send_burst(round); /* What follows may call a user, who may close any of them. */
    }
    if (BOP_UNLIKELY(bop__ws_is_slow(ws))) {
        if (ws->state != BOP__WS_OPEN) {
            bop__count(&round->branch->counts.closed, 1);
        }
        drop(round, ws);
        return;
    }
    if (ws->group->options.sending_is_activity) {
        ws->active_ms = bop__ws_now(ws);
    }
    if (BOP_UNLIKELY(ws->in_parts)) {
        hold(round, ws);
    } else if (BOP_UNLIKELY(ws->client || publishes)) {
        send_one_by_one(round, ws);
    } else {
        send_frames(round, ws);
    }
}

/* ---- The turn's end ---- */

static inline void ask_for(const struct bop__topic *topic, size_t i)
{
    const char *at = (const char *)topic->list[i].ws;

    if (at != NULL) {
        __builtin_prefetch(at);
        __builtin_prefetch(at - 64);
        __builtin_prefetch(at - 128);
    }
}

/* The branch's, made for the first who needs it; NULL if there is none. */
static struct bop__burst *burst_for(struct bop__branch *branch, size_t subscribers)
{
    if (branch->burst != NULL && bop__burst_is_broken(branch->burst)) {
        bop__burst_destroy(branch->burst);
        branch->burst = NULL;
    }
    if (subscribers < BURST_SUBSCRIBERS_MIN || branch->loop->only_epoll) {
        return NULL;
    }
    if (!branch->burst_tried) {
        branch->burst_tried = true;
        branch->burst = bop__burst_create(branch->topics->allocator);
    }
    return branch->burst;
}

static void deliver(struct bop__branch *branch, struct bop__batch *batch, bool alone)
{
    struct round round = {.branch = branch, .batch = batch, .alone = alone};
    struct bop__topic *topic = batch->topic;
    size_t count = topic->count; /* Who comes meanwhile was not there when it was published. */

    round.burst = alone ? burst_for(branch, count) : NULL;
    topic->walks++;
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count) {
            ask_for(topic, i + AHEAD);
        }
        if (topic->list[i].ws != NULL) {
            deliver_to(&round, topic->list[i].ws);
        }
    }
    if (round.burst != NULL) {
        send_burst(&round);
    }
    bop__topic_end_walk(branch, topic);
    bop_shared_unref(round.deflated);
    bop__count(&branch->counts.delivered, (int64_t)round.delivered);
    bop__count(&branch->counts.dropped, (int64_t)round.dropped);
}

void bop__branch_deliver(struct bop_hook *hook)
{
    struct bop__branch *branch = BOP_CONTAINER_OF(hook, struct bop__branch, hook);
    struct bop_list now, *link;
    bool alone;

    branch->delivered_in = branch->loop->iteration;
    if (BOP_LIKELY(bop_list_empty(&branch->batches))) {
        return;
    }
    bop__list_take(&branch->batches, &now); /* What on_dropped publishes is the next turn's. */
    alone = now.next == now.prev;
    while ((link = bop_list_pop_front(&now)) != NULL) {
        struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);
        struct bop__topic *topic = batch->topic;

        deliver(branch, batch, alone);
        bop__topic_batch_free(branch, batch);
        topic->batches--;
        bop__topic_look_unused(branch, topic);
    }
}
