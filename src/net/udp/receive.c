/*
 * Receiving: one recvmmsg into the loop's room, whose messages are taken apart
 * where GRO has put several datagrams of one sender together, and handed over.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#include "udp_internal.h"

/* Handed to on_datagrams at once. */
#define DATAGRAMS_MAX 64

/* Full receives in one turn; what else there is waits for the next, so that a
 * flood leaves room for others. */
#define RECEIVES_PER_TURN_MAX 4

struct bop__udp_room {
    struct mmsghdr messages[BOP__UDP_BATCH];
    struct iovec vectors[BOP__UDP_BATCH];
    struct sockaddr_storage names[BOP__UDP_BATCH];
    struct bop__udp_control controls[BOP__UDP_BATCH];
    struct bop_udp_datagram datagrams[DATAGRAMS_MAX];
    uint8_t bytes[BOP__UDP_BATCH][BOP__UDP_ROOM_BYTES]; /* Untouched pages cost nothing. */
};

int bop__udp_room_create(struct bop__udps *udps)
{
    struct bop__udp_room *room = (struct bop__udp_room *)bop_alloc(udps->slots.allocator,
                                                                   sizeof(*room));

    udps->room = room;
    return room != NULL ? 0 : BOP_ENOMEM;
}

void bop__udp_room_free(struct bop__udps *udps)
{
    if (udps->room != NULL) {
        bop_free(udps->slots.allocator, udps->room, sizeof(*udps->room));
    }
}

static void prepare(struct bop__udp_room *room, size_t datagram_bytes)
{
    for (size_t i = 0; i < BOP__UDP_BATCH; i++) {
        room->vectors[i] = (struct iovec){.iov_base = room->bytes[i], .iov_len = datagram_bytes};
        room->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &room->names[i],
            .msg_namelen = sizeof(room->names[i]),
            .msg_iov = &room->vectors[i],
            .msg_iovlen = 1,
            .msg_control = room->controls[i].bytes,
            .msg_controllen = sizeof(room->controls[i].bytes),
        };
    }
}

/* ---- What the kernel says of a message ---- */

static int int_of(const struct cmsghdr *control)
{
    int value = 0;

    /* An IPv4 TOS comes as one byte. */
    if (control->cmsg_len == CMSG_LEN(1)) {
        return *CMSG_DATA(control);
    }
    if (control->cmsg_len >= CMSG_LEN(sizeof(value))) {
        memcpy(&value, CMSG_DATA(control), sizeof(value));
    }
    return value;
}

static void read_ip_control(const struct cmsghdr *control, struct bop_udp_datagram *datagram)
{
    struct in_pktinfo info;

    if (control->cmsg_type == IP_TOS) {
        datagram->ecn = (uint8_t)(int_of(control) & 3);
    } else if (control->cmsg_type == IP_PKTINFO) {
        memcpy(&info, CMSG_DATA(control), sizeof(info));
        datagram->interface = (uint32_t)info.ipi_ifindex;
        datagram->local.family = AF_INET;
        memcpy(datagram->local.ip, &info.ipi_addr, sizeof(info.ipi_addr));
    }
}

static void read_ipv6_control(const struct cmsghdr *control, struct bop_udp_datagram *datagram)
{
    struct in6_pktinfo info;

    if (control->cmsg_type == IPV6_TCLASS) {
        datagram->ecn = (uint8_t)(int_of(control) & 3);
    } else if (control->cmsg_type == IPV6_PKTINFO) {
        memcpy(&info, CMSG_DATA(control), sizeof(info));
        datagram->interface = info.ipi6_ifindex;
        datagram->local.family = AF_INET6;
        memcpy(datagram->local.ip, &info.ipi6_addr, sizeof(info.ipi6_addr));
        if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) {
            datagram->local.scope = info.ipi6_ifindex;
        }
        datagram->local = bop__udp_unmap(datagram->local);
    }
}

/* Fill in all but the bytes. Returns the size of the datagrams that were put
 * together, 0 for a single one. */
static size_t read_controls(const struct bop__udp *udp, struct msghdr *message,
                            struct bop_udp_datagram *datagram)
{
    size_t segment_bytes = 0;

    *datagram = (struct bop_udp_datagram){
        .peer = bop__udp_unmap(bop_address_from_sockaddr(message->msg_name))};
    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control != NULL;
         control = CMSG_NXTHDR(message, control)) {
        if (control->cmsg_level == IPPROTO_IP) {
            read_ip_control(control, datagram);
        } else if (control->cmsg_level == IPPROTO_IPV6) {
            read_ipv6_control(control, datagram);
        } else if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
            segment_bytes = (size_t)int_of(control);
        }
    }
    datagram->local.port = udp->bound.port;
    return segment_bytes;
}

/* ---- Handing over ---- */

/* Datagrams gathered in the room, of a socket. */
struct gathered {
    struct bop__udp *udp;
    struct bop_udp_datagram *datagrams;
    size_t count;
};

static void hand_over(struct gathered *gathered)
{
    struct bop__udp *udp = gathered->udp;
    size_t count = gathered->count;

    gathered->count = 0;
    if (count > 0 && udp->open) {
        udp->events->on_datagrams(bop__udp_handle(udp), udp->user, gathered->datagrams, count);
    }
}

static void gather(struct gathered *gathered, const struct bop_udp_datagram *like,
                   struct bop_slice bytes, bool truncated)
{
    struct bop__udp *udp = gathered->udp;
    struct bop_udp_datagram *datagram;

    if (gathered->count == DATAGRAMS_MAX) {
        hand_over(gathered);
    }
    datagram = &gathered->datagrams[gathered->count++];
    *datagram = *like;
    datagram->truncated = truncated || bytes.size > udp->datagram_bytes_max;
    datagram->bytes = bop_slice(bytes.data, bop_min_u64(bytes.size, udp->datagram_bytes_max));
    udp->counters.datagrams_received++;
    udp->counters.bytes_received += datagram->bytes.size;
    udp->counters.truncated += datagram->truncated;
}

/* One message: a datagram, or several of one size and a last one. */
static void gather_message(struct gathered *gathered, struct mmsghdr *message, const uint8_t *data)
{
    struct bop_udp_datagram like;
    size_t size = message->msg_len;
    size_t segment_bytes = read_controls(gathered->udp, &message->msg_hdr, &like);
    bool truncated = (message->msg_hdr.msg_flags & MSG_TRUNC) != 0;

    while (segment_bytes != 0 && size > segment_bytes) {
        gather(gathered, &like, bop_slice(data, segment_bytes), false);
        data += segment_bytes;
        size -= segment_bytes;
    }
    gather(gathered, &like, bop_slice(data, size), truncated);
}

/* Returns whether there may be more. */
static bool receive_once(struct bop__udp *udp)
{
    struct bop__udp_room *room = udp->loop->udps->room;
    struct gathered gathered = {.udp = udp, .datagrams = room->datagrams};
    struct bop_address peer = udp->peer;
    int count;

    /* What GRO puts together is longer than one datagram may be. */
    prepare(room, udp->has_gro ? BOP__UDP_ROOM_BYTES
                               : bop_min_u64(udp->datagram_bytes_max, BOP__UDP_ROOM_BYTES));
    count = recvmmsg(udp->source.fd, room->messages, BOP__UDP_BATCH, MSG_DONTWAIT, NULL);
    if (count < 0) {
        if (errno == EAGAIN || errno == EINTR) {
            return false;
        }
        /* Not of receiving: what was sent earlier met it. */
        udp->counters.errors++;
        bop__udp_tell_error(udp, -errno, &peer);
        return true;
    }
    udp->counters.receives++;
    for (int i = 0; i < count; i++) {
        gather_message(&gathered, &room->messages[i], room->bytes[i]);
    }
    hand_over(&gathered);
    return count == BOP__UDP_BATCH;
}

void bop__udp_receive(struct bop__udp *udp)
{
    for (int i = 0; i < RECEIVES_PER_TURN_MAX; i++) {
        if (!receive_once(udp) || !udp->open || udp->paused) {
            break;
        }
    }
}
