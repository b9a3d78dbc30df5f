/*
 * Sending: messages are cut into what the kernel takes in one piece (a datagram,
 * or with GSO a run of them), and the pieces handed over by sendmmsg, many at a
 * time. A cursor says how far that got, in messages and in bytes of the next.
 *
 * The queue holds copies of messages, or of the rests of them, that the kernel
 * had no room for. While there is one, everything goes through it, so that
 * nothing is sent before what was accepted earlier.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#include "udp_internal.h"

/* Pieces handed over at once. */
#define PIECES_MAX 32

/* What the kernel takes as one run: so many datagrams (64 before Linux 6.9), and
 * so many bytes, with room for the headers of either IP version. */
#define RUN_DATAGRAMS_MAX 64
#define RUN_BYTES_MAX     65000u

/* What a queued message counts for besides its bytes: empty ones have a bound too. */
#define QUEUED_BYTES_EXTRA 64

struct bop__udp_queued {
    struct bop_list link;
    struct bop_udp_message message; /* Points into this block. */
    struct bop_address to;
    struct bop_address from;
    uint8_t bytes[];
};

struct cursor {
    const struct bop_udp_message *messages;
    size_t count;
    size_t index;  /* Of the message to send next, */
    size_t offset; /* and how much of it is sent. */
    bool singly;   /* No runs of the datagrams of this message: the kernel refused one. */
    bool retried;  /* After an error that an earlier datagram had met. */
};

struct pieces {
    struct mmsghdr messages[PIECES_MAX];
    struct iovec vectors[PIECES_MAX];
    struct sockaddr_storage names[PIECES_MAX];
    struct bop__udp_control controls[PIECES_MAX];
    size_t count;
};

/* ---- Pieces ---- */

static bool is_run(const struct bop_udp_message *message)
{
    return message->segment_bytes != 0 && message->bytes.size > message->segment_bytes;
}

/* How much of the message goes next, in one piece. */
static size_t piece_bytes(const struct bop__udp *udp, const struct bop_udp_message *message,
                          size_t offset, bool singly)
{
    size_t left = message->bytes.size - offset, segment = message->segment_bytes, run;

    if (segment == 0 || !is_run(message)) {
        return left;
    }
    run = bop_min_u64(RUN_DATAGRAMS_MAX, RUN_BYTES_MAX / segment);
    if (!udp->has_gso || singly || run == 0) {
        run = 1;
    }
    return bop_min_u64(left, run * segment);
}

/* Past a piece: returns whether its message is done. */
static bool advance(const struct bop_udp_message *message, size_t *offset, size_t bytes)
{
    *offset += bytes;
    if (*offset < message->bytes.size) {
        return false;
    }
    *offset = 0;
    return true;
}

static void add_control(struct msghdr *header, int level, int type, const void *data, size_t size)
{
    struct cmsghdr *control = (struct cmsghdr *)(void *)((char *)header->msg_control +
                                                         header->msg_controllen);

    control->cmsg_level = level;
    control->cmsg_type = type;
    control->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(control), data, size);
    header->msg_controllen += CMSG_SPACE(size);
    BOP_ASSERT(header->msg_controllen <= BOP__UDP_CONTROL_BYTES);
}

static void add_ecn(struct msghdr *header, bool v4, uint8_t ecn)
{
    int value = ecn & 3;

    add_control(header, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, &value,
                sizeof(value));
}

static void add_from(struct msghdr *header, bool v4, const struct bop_address *from)
{
    if (v4) {
        struct in_pktinfo info = {0};

        memcpy(&info.ipi_spec_dst, from->ip, sizeof(info.ipi_spec_dst));
        add_control(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
    } else {
        struct in6_pktinfo info = {.ipi6_ifindex = from->scope};

        memcpy(&info.ipi6_addr, from->ip, sizeof(info.ipi6_addr));
        add_control(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
    }
}

static void add_piece(const struct bop__udp *udp, struct pieces *pieces,
                      const struct bop_udp_message *message, size_t offset, size_t bytes)
{
    size_t i = pieces->count++;
    struct msghdr *header = &pieces->messages[i].msg_hdr;
    uint16_t family = message->to != NULL ? message->to->family : udp->peer.family;
    bool v4 = family != AF_UNSPEC ? family == AF_INET : udp->family == AF_INET;

    /* Nothing may be added to the NULL of an empty one. */
    pieces->vectors[i] = (struct iovec){
        .iov_base = (void *)(uintptr_t)(offset > 0 ? message->bytes.data + offset
                                                   : message->bytes.data),
        .iov_len = bytes};
    *header = (struct msghdr){
        .msg_iov = &pieces->vectors[i], .msg_iovlen = 1, .msg_control = pieces->controls[i].bytes};
    memset(&pieces->controls[i], 0, sizeof(pieces->controls[i]));
    if (message->to != NULL) {
        header->msg_name = &pieces->names[i];
        header->msg_namelen = bop__udp_to_sockaddr(udp, message->to, &pieces->names[i]);
    }
    if (message->ecn != 0) {
        add_ecn(header, v4, message->ecn);
    }
    if (message->from != NULL) {
        add_from(header, v4, message->from);
    }
    if (is_run(message) && bytes > message->segment_bytes) {
        add_control(header, IPPROTO_UDP, UDP_SEGMENT, &message->segment_bytes,
                    sizeof(message->segment_bytes));
    }
    if (header->msg_controllen == 0) {
        header->msg_control = NULL;
    }
}

/* As many pieces as go at once, from the cursor on. */
static void cut(const struct bop__udp *udp, const struct cursor *cursor, struct pieces *pieces)
{
    size_t index = cursor->index, offset = cursor->offset;

    pieces->count = 0;
    while (pieces->count < PIECES_MAX && index < cursor->count) {
        const struct bop_udp_message *message = &cursor->messages[index];
        size_t bytes = piece_bytes(udp, message, offset, cursor->singly && index == cursor->index);

        add_piece(udp, pieces, message, offset, bytes);
        index += advance(message, &offset, bytes);
    }
}

/* ---- Handing over ---- */

static void count_sent(struct bop__udp *udp, const struct bop_udp_message *message, size_t bytes)
{
    size_t segment = message->segment_bytes;

    udp->counters.bytes_sent += bytes;
    udp->counters.datagrams_sent += segment != 0 && is_run(message)
                                        ? (bytes + segment - 1) / segment
                                        : 1;
}

static void take_sent(struct bop__udp *udp, struct cursor *cursor, const struct pieces *pieces,
                      size_t count)
{
    udp->counters.sends++;
    cursor->retried = false;
    BOP_ASSERT(count <= pieces->count);
    for (size_t i = 0; i < count; i++) {
        const struct bop_udp_message *message = &cursor->messages[cursor->index];

        BOP_ASSERT(cursor->index < cursor->count);
        count_sent(udp, message, pieces->vectors[i].iov_len);
        if (advance(message, &cursor->offset, pieces->vectors[i].iov_len)) {
            cursor->index++;
            cursor->singly = false;
        }
    }
}

/* Errors that an earlier datagram of a connected socket may have met: the kernel
 * tells the next call. */
static bool may_be_of_earlier(const struct bop__udp *udp, int rc)
{
    return udp->peer.family != AF_UNSPEC &&
           (rc == -ECONNREFUSED || rc == -EHOSTUNREACH || rc == -ENETUNREACH || rc == -EHOSTDOWN ||
            rc == -EACCES || rc == -EPROTO || rc == -ENOPROTOOPT || rc == -EMSGSIZE);
}

/* The kernel took nothing. Returns 0 to try again, or what to give up for. */
static int judge(struct bop__udp *udp, struct cursor *cursor, const struct pieces *pieces, int rc)
{
    const struct bop_udp_message *message = &cursor->messages[cursor->index];
    bool was_run = is_run(message) && pieces->vectors[0].iov_len > message->segment_bytes;

    if (rc == -EINTR) {
        return 0;
    }
    /* No run of this size, or by this device: its datagrams may go one by one. */
    if (was_run && (rc == -EINVAL || rc == -EIO || rc == -EMSGSIZE || rc == -EOPNOTSUPP)) {
        udp->has_gso = udp->has_gso && rc != -EIO;
        cursor->singly = true;
        return 0;
    }
    if (may_be_of_earlier(udp, rc) && !cursor->retried) {
        cursor->retried = true;
        return 0;
    }
    return rc;
}

/* Send until all is sent. Returns 0, -EAGAIN when the kernel has no room, or what
 * is wrong with the message the cursor is at. */
static int transmit(struct bop__udp *udp, struct cursor *cursor)
{
    struct pieces pieces;

    while (cursor->index < cursor->count) {
        bool retried = cursor->retried;
        int sent, rc;

        cut(udp, cursor, &pieces);
        sent = sendmmsg(udp->source.fd, pieces.messages, (unsigned)pieces.count,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
        rc = sent < 0 ? -errno : 0;
        if (sent > 0) {
            take_sent(udp, cursor, &pieces, (size_t)sent);
        } else if (judge(udp, cursor, &pieces, rc) != 0) {
            return rc;
        }
        if (!retried && cursor->retried) {
            bop__udp_owe_error(udp, rc);
        }
    }
    return 0;
}

/* ---- The queue ---- */

static size_t queued_block_bytes(size_t bytes)
{
    return sizeof(struct bop__udp_queued) + bytes;
}

static void free_queued(struct bop__udp *udp, struct bop__udp_queued *queued)
{
    udp->queue_bytes -= queued->message.bytes.size;
    udp->queue_count--;
    bop_list_remove(&queued->link);
    bop_free(udp->loop->allocator, queued, queued_block_bytes(queued->message.bytes.size));
}

static bool has_room(const struct bop__udp *udp, size_t size)
{
    return udp->queue_count == 0 ||
           udp->queue_bytes + size + udp->queue_count * QUEUED_BYTES_EXTRA <= udp->queue_bytes_max;
}

/* Returns 0 or BOP_ENOMEM. */
static int enqueue(struct bop__udp *udp, const struct bop_udp_message *message, size_t offset)
{
    size_t size = message->bytes.size - offset;
    struct bop__udp_queued *queued;

    queued = (struct bop__udp_queued *)bop_alloc_zeroed(udp->loop->allocator,
                                                        queued_block_bytes(size));
    if (queued == NULL) {
        return BOP_ENOMEM;
    }
    queued->message = *message;
    if (size > 0) {
        memcpy(queued->bytes, message->bytes.data + offset, size);
    }
    queued->message.bytes = bop_slice(queued->bytes, size);
    if (message->to != NULL) {
        queued->to = *message->to;
        queued->message.to = &queued->to;
    }
    if (message->from != NULL) {
        queued->from = *message->from;
        queued->message.from = &queued->from;
    }
    bop_list_push_back(&udp->queue, &queued->link);
    udp->queue_bytes += size;
    udp->queue_count++;
    udp->counters.queued++;
    return 0;
}

void bop__udp_drop_queue(struct bop__udp *udp)
{
    while (!bop_list_empty(&udp->queue)) {
        free_queued(udp, BOP_CONTAINER_OF(udp->queue.next, struct bop__udp_queued, link));
    }
}

/* The first of the queue, as many as go at once. */
static size_t gather_queued(const struct bop__udp *udp, struct bop_udp_message *messages)
{
    size_t count = 0;

    BOP_LIST_FOR_EACH(link, &udp->queue) {
        if (count == PIECES_MAX) {
            break;
        }
        messages[count++] = BOP_CONTAINER_OF(link, struct bop__udp_queued, link)->message;
    }
    return count;
}

/* Of the first one queued, this much has been sent. */
static void shorten_first(struct bop__udp *udp, size_t offset)
{
    struct bop__udp_queued *queued = BOP_CONTAINER_OF(udp->queue.next, struct bop__udp_queued,
                                                      link);
    struct bop_udp_message rest = queued->message;
    struct bop__udp_queued *shorter;

    if (offset == 0) {
        return;
    }
    /* The block is freed with the size it was asked for with: so the rest moves to
     * a block of its own, or, without memory for that, is lost as datagrams are. */
    if (enqueue(udp, &rest, offset) == 0) {
        shorter = BOP_CONTAINER_OF(udp->queue.prev, struct bop__udp_queued, link);
        bop_list_remove(&shorter->link);
        bop_list_push_front(&udp->queue, &shorter->link);
        udp->counters.queued--; /* It was counted already. */
    } else {
        udp->counters.dropped++;
    }
    free_queued(udp, queued);
}

/* The first one queued cannot be sent. */
static void drop_first(struct bop__udp *udp, int code)
{
    struct bop__udp_queued *queued = BOP_CONTAINER_OF(udp->queue.next, struct bop__udp_queued,
                                                      link);
    struct bop_address to = queued->message.to != NULL ? queued->to : udp->peer;

    free_queued(udp, queued);
    udp->counters.dropped++;
    bop__udp_tell_error(udp, code, &to);
}

void bop__udp_flush(struct bop__udp *udp)
{
    int rc = 0;

    while (udp->open && rc != -EAGAIN && !bop_list_empty(&udp->queue)) {
        struct bop_udp_message messages[PIECES_MAX];
        struct cursor cursor = {.messages = messages, .count = gather_queued(udp, messages)};

        rc = transmit(udp, &cursor);
        for (size_t i = 0; i < cursor.index; i++) {
            free_queued(udp, BOP_CONTAINER_OF(udp->queue.next, struct bop__udp_queued, link));
        }
        if (rc == -EAGAIN) {
            shorten_first(udp, cursor.offset);
        } else if (rc != 0) {
            drop_first(udp, rc);
        }
    }
    if (udp->open && bop_list_empty(&udp->queue)) {
        bop__udp_update_watch(udp);
        if (udp->events->on_drain != NULL) {
            udp->events->on_drain(bop__udp_handle(udp), udp->user);
        }
    }
}

/* ---- For users ---- */

/* Returns 0 or what is wrong with a message. */
static int check(const struct bop__udp *udp, const struct bop_udp_message *message)
{
    struct sockaddr_storage storage;

    if (message->to != NULL && bop__udp_to_sockaddr(udp, message->to, &storage) == 0) {
        return message->to->family == AF_UNSPEC ? BOP_EINVAL : -EAFNOSUPPORT;
    }
    if (message->from != NULL) {
        uint16_t family = message->to != NULL ? message->to->family : udp->peer.family;

        if (message->from->family != family) {
            return BOP_EINVAL;
        }
    }
    return message->bytes.size > udp->queue_bytes_max ? BOP_ETOOBIG : 0;
}

/* Queue from the cursor on, as far as there is room. Returns 0 or why not all. */
static int enqueue_rest(struct bop__udp *udp, struct cursor *cursor)
{
    int rc = 0;

    while (rc == 0 && cursor->index < cursor->count) {
        const struct bop_udp_message *message = &cursor->messages[cursor->index];

        rc = has_room(udp, message->bytes.size - cursor->offset)
                 ? enqueue(udp, message, cursor->offset)
                 : BOP_EFULL;
        if (rc == 0) {
            cursor->index++;
            cursor->offset = 0;
        }
    }
    bop__udp_update_watch(udp);
    udp->counters.refused += rc == BOP_EFULL;
    return rc;
}

int64_t bop_udp_send(struct bop_udp *handle, const struct bop_udp_message *messages, size_t count)
{
    struct bop__udp *udp = bop__udp_of(handle);
    struct cursor cursor = {.messages = messages};
    int wrong = 0, rc = 0;

    if (udp == NULL || !udp->open) {
        return BOP_ECLOSED;
    }
    while (wrong == 0 && cursor.count < count) {
        wrong = check(udp, &messages[cursor.count]);
        cursor.count += wrong == 0;
    }
    if (bop_list_empty(&udp->queue)) {
        rc = transmit(udp, &cursor);
    } else {
        rc = -EAGAIN;
    }
    if (rc == -EAGAIN) {
        rc = enqueue_rest(udp, &cursor);
    }
    if (cursor.offset > 0) {
        /* A part of it is on its way: it counts as accepted, and as lost. */
        bop__udp_owe_error(udp, rc);
        cursor.index++;
    }
    if (cursor.index > 0 || count == 0) {
        return (int64_t)cursor.index;
    }
    return rc != 0 ? rc : wrong;
}

int bop_udp_send_to(struct bop_udp *udp, const struct bop_address *to, struct bop_slice bytes)
{
    struct bop_udp_message message = {.bytes = bytes, .to = to};
    int64_t rc = bop_udp_send(udp, &message, 1);

    return rc < 0 ? (int)rc : 0;
}

size_t bop_udp_queued(const struct bop_udp *handle)
{
    const struct bop__udp *udp = bop__udp_of(handle);

    return udp != NULL ? udp->queue_bytes : 0;
}
