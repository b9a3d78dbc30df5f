/*
 * A UDP socket as its own files see it.
 */
#ifndef BOP_NET_UDP_INTERNAL_H
#define BOP_NET_UDP_INTERNAL_H

#include <sys/socket.h>

#include <bop/list.h>
#include <bop/udp.h>

#include "../loop/loop_internal.h"
#include "../socket/slots.h"

/* Datagrams, or with GRO runs of them, that one system call brings. */
#define BOP__UDP_BATCH 32

/* Room for each: the most a datagram or a run of them can be. */
#define BOP__UDP_ROOM_BYTES 65536u

/* Control messages of one datagram. */
#define BOP__UDP_CONTROL_BYTES 192

struct bop__udp {
    struct bop__slot slot;
    bool open;
    bool paused;
    bool splits; /* It has both IP versions: IPv4 addresses are mapped for the kernel. */
    bool has_gso;
    bool has_gro;
    struct bop__source source;
    struct bop__guest guest;
    struct bop_loop *loop;
    const struct bop_udp_events *events;
    void *user;
    uint16_t family;
    struct bop_address bound;
    struct bop_address peer; /* Of a connected one. */
    size_t datagram_bytes_max;
    size_t queue_bytes_max;
    size_t queue_bytes;
    size_t queue_count;
    struct bop_list queue;        /* bop__udp_queued.link */
    struct bop_timer error_timer; /* Calls on_error with: */
    int error;
    int reason; /* For on_close. */
    struct bop_udp_counters counters;
};

/** Where a receive goes to: of a loop, for all its sockets. */
struct bop__udp_room;

/** All memory of a loop's UDP sockets. */
struct bop__udps {
    struct bop__slots slots;
    struct bop__pool *pool;
    struct bop__udp_room *room; /* NULL until the first one receives. */
};

struct bop__udp_control {
    _Alignas(struct cmsghdr) char bytes[BOP__UDP_CONTROL_BYTES];
};

static inline struct bop__udp *bop__udp_of(const struct bop_udp *handle)
{
    return (struct bop__udp *)bop__slot_of(handle);
}

static inline struct bop_udp *bop__udp_handle(const struct bop__udp *udp)
{
    return (struct bop_udp *)bop__slot_handle(&udp->slot);
}

/* ---- udp.c ---- */

/** Close the descriptor and owe the on_close. Nothing happens if closed already. */
void bop__udp_begin_close(struct bop__udp *udp, int reason);
/** Returns 0 or -errno. */
BOP_MUST_USE int bop__udp_bind(struct bop__udp *udp, const struct bop_address *local);
/** Watch for what there is to do. */
void bop__udp_update_watch(struct bop__udp *udp);
/** An error of what was sent earlier: call on_error, from the loop. */
void bop__udp_owe_error(struct bop__udp *udp, int code);
void bop__udp_tell_error(struct bop__udp *udp, int code, const struct bop_address *peer);

/* ---- options.c ---- */

/** All but binding. Returns 0 or -errno. */
BOP_MUST_USE int bop__udp_set_options(struct bop__udp *udp, const struct bop_udp_options *options);
/** The address as the socket's family has it on the wire, IPv4 mapped. Returns its size, 0 if it
 * cannot be had. */
socklen_t bop__udp_to_sockaddr(const struct bop__udp *udp, const struct bop_address *address,
                               struct sockaddr_storage *out_sockaddr);
/** An IPv4 address is one, also if it came mapped. */
struct bop_address bop__udp_unmap(struct bop_address address);

/* ---- receive.c ---- */

void bop__udp_receive(struct bop__udp *udp);
/** Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__udp_room_create(struct bop__udps *udps);
void bop__udp_room_free(struct bop__udps *udps);

/* ---- send.c ---- */

/** The kernel has room: send what is queued. */
void bop__udp_flush(struct bop__udp *udp);
void bop__udp_drop_queue(struct bop__udp *udp);

#endif
