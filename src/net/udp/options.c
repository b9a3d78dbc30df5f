/*
 * The options of UDP sockets. A socket of both IP versions is set for each of
 * them: the kernel looks at one or the other by the address of a datagram.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#include "udp_internal.h"

static int set(const struct bop__udp *udp, int level, int option, int value)
{
    return setsockopt(udp->source.fd, level, option, &value, sizeof(value)) == 0 ? 0 : -errno;
}

/* An option that is called differently for each IP version. */
static int set_ip(const struct bop__udp *udp, int v4_option, int v6_option, int value)
{
    int rc = 0;

    if (udp->family == AF_INET6) {
        rc = set(udp, IPPROTO_IPV6, v6_option, value);
    }
    if (rc == 0 && (udp->family == AF_INET || udp->splits)) {
        rc = set(udp, IPPROTO_IP, v4_option, value);
    }
    return rc;
}

static int set_buffer(const struct bop__udp *udp, int option, size_t bytes)
{
    return bytes != 0 ? set(udp, SOL_SOCKET, option, (int)bop_min_u64(bytes, INT32_MAX)) : 0;
}

static int set_dont_fragment(const struct bop__udp *udp, bool on)
{
    return set_ip(udp, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, on ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT);
}

/* What a handler is told of a datagram, and what the kernel may do in one go. */
static int set_receiving(struct bop__udp *udp, const struct bop_udp_options *options)
{
    int rc = set_ip(udp, IP_PKTINFO, IPV6_RECVPKTINFO, 1);

    if (rc == 0) {
        rc = set_ip(udp, IP_RECVTOS, IPV6_RECVTCLASS, 1);
    }
    if (rc == 0 && !options->no_offload) {
        /* Linux 4.18 and 5.0. */
        udp->has_gso = set(udp, IPPROTO_UDP, UDP_SEGMENT, 0) == 0;
        udp->has_gro = set(udp, IPPROTO_UDP, UDP_GRO, 1) == 0;
    }
    return rc;
}

int bop__udp_set_options(struct bop__udp *udp, const struct bop_udp_options *options)
{
    int rc = 0;

    if (udp->family == AF_INET6) {
        rc = set(udp, IPPROTO_IPV6, IPV6_V6ONLY, !udp->splits);
    }
    if (rc == 0 && options->reuse_port) {
        rc = set(udp, SOL_SOCKET, SO_REUSEPORT, 1);
    }
    if (rc == 0 && options->reuse_address) {
        rc = set(udp, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    if (rc == 0 && options->broadcast) {
        rc = set(udp, SOL_SOCKET, SO_BROADCAST, 1);
    }
    if (rc == 0 && options->dont_fragment) {
        rc = set_dont_fragment(udp, true);
    }
    if (rc == 0 && options->ttl != 0) {
        rc = set_ip(udp, IP_TTL, IPV6_UNICAST_HOPS, options->ttl);
    }
    if (rc == 0) {
        rc = set_buffer(udp, SO_RCVBUF, options->receive_buffer_bytes);
    }
    if (rc == 0) {
        rc = set_buffer(udp, SO_SNDBUF, options->send_buffer_bytes);
    }
    return rc == 0 ? set_receiving(udp, options) : rc;
}

/* ---- Addresses ---- */

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

socklen_t bop__udp_to_sockaddr(const struct bop__udp *udp, const struct bop_address *address,
                               struct sockaddr_storage *out_sockaddr)
{
    struct bop_address wire = *address;

    if (udp->splits && address->family == AF_INET) {
        wire.family = AF_INET6;
        memcpy(wire.ip, mapped, sizeof(mapped));
        memcpy(wire.ip + sizeof(mapped), address->ip, 4);
    }
    return wire.family == udp->family ? bop_address_to_sockaddr(&wire, out_sockaddr) : 0;
}

struct bop_address bop__udp_unmap(struct bop_address address)
{
    if (address.family == AF_INET6 && memcmp(address.ip, mapped, sizeof(mapped)) == 0) {
        address.family = AF_INET;
        memmove(address.ip, address.ip + sizeof(mapped), 4);
        memset(address.ip + 4, 0, sizeof(address.ip) - 4);
        address.scope = 0;
    }
    return address;
}

/* ---- For users ---- */

/* A port that the kernel chose it takes back when the socket is disconnected. */
static int keep_port(struct bop__udp *udp)
{
    struct bop_address bound = udp->bound;
    struct sockaddr_storage storage;
    socklen_t size = sizeof(storage);

    if (getsockname(udp->source.fd, (struct sockaddr *)&storage, &size) != 0) {
        return -errno;
    }
    return bop_address_from_sockaddr((struct sockaddr *)&storage).port == 0
               ? bop__udp_bind(udp, &bound)
               : 0;
}

int bop_udp_connect(struct bop_udp *handle, const struct bop_address *peer)
{
    struct bop__udp *udp = bop__udp_of(handle);
    struct sockaddr_storage storage = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof(struct sockaddr);

    if (udp == NULL || !udp->open) {
        return BOP_ECLOSED;
    }
    if (peer != NULL) {
        size = bop__udp_to_sockaddr(udp, peer, &storage);
        if (size == 0) {
            return -EAFNOSUPPORT;
        }
    }
    if (connect(udp->source.fd, (struct sockaddr *)&storage, size) != 0) {
        return -errno;
    }
    udp->peer = peer != NULL ? *peer : (struct bop_address){.family = AF_UNSPEC};
    return peer == NULL ? keep_port(udp) : 0;
}

/* Join or leave, from anywhere or from one source: the same call for both IP
 * versions but for its level. */
static int change_group(struct bop_udp *handle, const struct bop_udp_group *group, int any_option,
                        int source_option)
{
    struct bop__udp *udp = bop__udp_of(handle);
    int level = group->group.family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
    struct group_req any = {.gr_interface = group->interface};
    struct group_source_req one = {.gsr_interface = group->interface};
    int rc;

    if (udp == NULL || !udp->open) {
        return BOP_ECLOSED;
    }
    if (group->source == NULL) {
        BOP_IGNORE(bop_address_to_sockaddr(&group->group, &any.gr_group)); /* Refused if none. */
        rc = setsockopt(udp->source.fd, level, any_option, &any, sizeof(any));
    } else {
        BOP_IGNORE(bop_address_to_sockaddr(&group->group, &one.gsr_group)); /* As above. */
        BOP_IGNORE(bop_address_to_sockaddr(group->source, &one.gsr_source));
        rc = setsockopt(udp->source.fd, level, source_option, &one, sizeof(one));
    }
    return rc == 0 ? 0 : -errno;
}

int bop_udp_join(struct bop_udp *handle, const struct bop_udp_group *group)
{
    return change_group(handle, group, MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP);
}

int bop_udp_leave(struct bop_udp *handle, const struct bop_udp_group *group)
{
    return change_group(handle, group, MCAST_LEAVE_GROUP, MCAST_LEAVE_SOURCE_GROUP);
}

static int set_multicast_interface(const struct bop__udp *udp, uint32_t interface)
{
    struct ip_mreqn v4 = {.imr_ifindex = (int)interface};
    int rc = 0;

    if (udp->family == AF_INET6) {
        rc = set(udp, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)interface);
    }
    if (rc == 0 && (udp->family == AF_INET || udp->splits) &&
        setsockopt(udp->source.fd, IPPROTO_IP, IP_MULTICAST_IF, &v4, sizeof(v4)) != 0) {
        rc = -errno;
    }
    return rc;
}

int bop_udp_set_multicast(struct bop_udp *handle, uint32_t interface, uint8_t hops,
                          bool to_this_host)
{
    struct bop__udp *udp = bop__udp_of(handle);
    int rc;

    if (udp == NULL || !udp->open) {
        return BOP_ECLOSED;
    }
    rc = set_multicast_interface(udp, interface);
    if (rc == 0) {
        rc = set_ip(udp, IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS, hops);
    }
    return rc == 0 ? set_ip(udp, IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP, to_this_host) : rc;
}

int bop_udp_set_ttl(struct bop_udp *handle, uint8_t ttl)
{
    const struct bop__udp *udp = bop__udp_of(handle);

    return udp != NULL && udp->open ? set_ip(udp, IP_TTL, IPV6_UNICAST_HOPS, ttl) : BOP_ECLOSED;
}

int bop_udp_set_broadcast(struct bop_udp *handle, bool on)
{
    const struct bop__udp *udp = bop__udp_of(handle);

    return udp != NULL && udp->open ? set(udp, SOL_SOCKET, SO_BROADCAST, on) : BOP_ECLOSED;
}

int bop_udp_set_dont_fragment(struct bop_udp *handle, bool on)
{
    const struct bop__udp *udp = bop__udp_of(handle);

    return udp != NULL && udp->open ? set_dont_fragment(udp, on) : BOP_ECLOSED;
}
