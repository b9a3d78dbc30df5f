/*
 * UDP sockets on a loop: datagrams received and sent in batches.
 *
 * Receiving: one system call brings up to 32 datagrams, and with the kernel's
 * help (GRO) up to 64 in each, into memory of the loop; on_datagrams gets them
 * together. Sending: a call hands a batch to the kernel at once (sendmmsg, and
 * GSO for runs of datagrams of one size); what the kernel has no room for is
 * copied to a queue with a bound and sent when it has.
 *
 * What the kernel lacks is found out at run time and done without: it costs
 * speed, nothing else.
 *
 * Handles are opaque and carry a generation, as those of bop/socket.h: good until
 * on_close returns, and recognized later: calls return BOP_ECLOSED, 0, NULL or
 * false then, and do nothing. After bop_udp_close() no callback but on_close
 * follows.
 *
 * Threads: the loop's only.
 */
#ifndef BOP_UDP_H
#define BOP_UDP_H

#include <bop/address.h>
#include <bop/base.h>
#include <bop/error.h>
#include <bop/loop.h>
#include <bop/slice.h>

struct bop_udp;

/* The most that fits an IPv4 datagram. */
#define BOP_UDP_DATAGRAM_BYTES_MAX 65507

/** Explicit congestion notification (RFC 3168), the two bits of the IP header. */
enum bop_udp_ecn {
    BOP_UDP_ECN_NONE = 0,
    BOP_UDP_ECN_1 = 1,
    BOP_UDP_ECN_0 = 2,
    BOP_UDP_ECN_CONGESTION = 3,
};

/** A datagram received. Lent for the time of the callback. */
struct bop_udp_datagram {
    struct bop_slice bytes;   /* May be empty. */
    struct bop_address peer;  /* Who sent it. */
    struct bop_address local; /* To which address of this host, or group, it was sent. */
    uint32_t interface;       /* That it came by. */
    uint8_t ecn;              /* enum bop_udp_ecn */
    bool truncated;           /* It was longer than datagram_bytes_max: its end is lost. */
};

/** What happens on a socket. NULL callbacks are skipped, but for on_close. */
struct bop_udp_events {
    /* Datagrams came; count is 1 or more. Without it nothing is received. */
    void (*on_datagrams)(struct bop_udp *udp, void *user, const struct bop_udp_datagram *datagrams,
                         size_t count);
    /* All that was queued has been sent. */
    void (*on_drain)(struct bop_udp *udp, void *user);
    /* -ECONNREFUSED and the like: a datagram sent earlier was answered by an ICMP error, of which
     * the kernel tells connected sockets; or a queued datagram could not be sent and was dropped.
     * peer is where to. The socket goes on. */
    void (*on_error)(struct bop_udp *udp, void *user, int code, const struct bop_address *peer);
    /* BOP_ECANCELED by us, -errno else. Required. */
    void (*on_close)(struct bop_udp *udp, void *user, int reason);
};

/** Zero fields take the defaults. */
struct bop_udp_options {
    const char *host; /* Numeric, to bind to. NULL: any address of IPv4 and IPv6. */
    uint16_t port;    /* 0: any free one, see bop_udp_local(). */
    const struct bop_address *address; /* Instead of host and port. Copied. */
    const struct bop_address *peer;    /* Connect to this one. Copied. */
    bool only_ipv6;                    /* Without a host: no IPv4. */
    bool reuse_port;    /* SO_REUSEPORT: several sockets on one port, the kernel spreads. */
    bool reuse_address; /* SO_REUSEADDR: several sockets on one port, all get what is multicast. */
    bool broadcast;
    bool dont_fragment;          /* Longer than the path allows: -EMSGSIZE. */
    bool no_offload;             /* Neither GSO nor GRO. */
    uint8_t ttl;                 /* Default: the system's. */
    size_t datagram_bytes_max;   /* To receive; longer ones are truncated. Default: all. */
    size_t queue_bytes_max;      /* To be sent, and 64 for each message. Default 1 MiB. */
    size_t receive_buffer_bytes; /* Of the kernel (SO_RCVBUF). Default: the system's. */
    size_t send_buffer_bytes;
    const struct bop_udp_events *events; /* Borrowed until on_close. Required. */
    void *user;
};

/** Make a socket. The error names host and port. */
BOP_API BOP_MUST_USE int bop_udp_create(struct bop_loop *loop,
                                        const struct bop_udp_options *options,
                                        struct bop_udp **out_udp, struct bop_error *err);

/** Drop what is queued and close; on_close(BOP_ECANCELED) follows from the loop. Idempotent. */
BOP_API void bop_udp_close(struct bop_udp *udp);

/* ---- Sending ---- */

/** One datagram to send; or, with segment_bytes, several of that size to one peer, of which the
 * last may be shorter. */
struct bop_udp_message {
    struct bop_slice bytes;
    const struct bop_address *to;   /* NULL: whom the socket is connected to. */
    const struct bop_address *from; /* A local address to send from, whose port is ignored.
                                       NULL: the kernel's choice. */
    uint16_t segment_bytes;         /* 0: one datagram. */
    uint8_t ecn;                    /* enum bop_udp_ecn */
};

/**
 * Send, or queue a copy of what the kernel has no room for.
 *
 * Returns how many messages were accepted: fewer than count if the queue is full
 * or a message cannot be sent, which comes out when it is given as the first:
 * BOP_EFULL (wait for on_drain), BOP_ETOOBIG (longer than the queue may be),
 * -EMSGSIZE, -ENETUNREACH, -EDESTADDRREQ and the like, BOP_EINVAL, BOP_ENOMEM,
 * BOP_ECLOSED.
 */
BOP_API int64_t bop_udp_send(struct bop_udp *udp, const struct bop_udp_message *messages,
                             size_t count);

/** Send one datagram. to NULL: whom the socket is connected to. Returns 0 or an error as above. */
BOP_API BOP_MUST_USE int bop_udp_send_to(struct bop_udp *udp, const struct bop_address *to,
                                         struct bop_slice bytes);

/** Bytes queued and not yet taken by the kernel. */
BOP_API size_t bop_udp_queued(const struct bop_udp *udp);

/* ---- Receiving ---- */

/** Stop and go on receiving: what comes meanwhile waits in the kernel as far as that has room. */
BOP_API void bop_udp_pause(struct bop_udp *udp);
BOP_API void bop_udp_resume(struct bop_udp *udp);

/* ---- Settings. All return 0, BOP_ECLOSED or -errno. ---- */

/** Receive from and send to this peer only; NULL: from and to any again. */
BOP_API BOP_MUST_USE int bop_udp_connect(struct bop_udp *udp, const struct bop_address *peer);

/** A multicast group. */
struct bop_udp_group {
    struct bop_address group;         /* Its port is ignored. */
    const struct bop_address *source; /* Only from there (SSM). NULL: from anywhere. */
    uint32_t interface;               /* As if_nametoindex() gives. 0: the system's choice. */
};
BOP_API BOP_MUST_USE int bop_udp_join(struct bop_udp *udp, const struct bop_udp_group *group);
BOP_API BOP_MUST_USE int bop_udp_leave(struct bop_udp *udp, const struct bop_udp_group *group);

/** How to send to groups: by which interface (0: the system's choice), how many hops (system: 1),
 * and whether members on this host get it (system: yes). */
BOP_API BOP_MUST_USE int bop_udp_set_multicast(struct bop_udp *udp, uint32_t interface,
                                               uint8_t hops, bool to_this_host);

BOP_API BOP_MUST_USE int bop_udp_set_ttl(struct bop_udp *udp, uint8_t ttl);
BOP_API BOP_MUST_USE int bop_udp_set_broadcast(struct bop_udp *udp, bool on);
BOP_API BOP_MUST_USE int bop_udp_set_dont_fragment(struct bop_udp *udp, bool on);

/* ---- Asking ---- */

BOP_API bool bop_udp_is_open(const struct bop_udp *udp);
BOP_API void *bop_udp_user(const struct bop_udp *udp);
BOP_API struct bop_loop *bop_udp_loop(const struct bop_udp *udp);

/** What it is bound to. No address once closed. */
BOP_API struct bop_address bop_udp_local(const struct bop_udp *udp);
/** Whom it is connected to, if anybody. */
BOP_API struct bop_address bop_udp_peer(const struct bop_udp *udp);

/** For setsockopt() and the like; -1 when closed. Don't read, write or close it. */
BOP_API int bop_udp_fd(const struct bop_udp *udp);

struct bop_udp_counters {
    uint64_t datagrams_received;
    uint64_t bytes_received;
    uint64_t receives; /* System calls that brought some. */
    uint64_t truncated;
    uint64_t datagrams_sent;
    uint64_t bytes_sent;
    uint64_t sends;   /* System calls that took some. */
    uint64_t queued;  /* Datagrams, or runs of them, that had to wait. */
    uint64_t refused; /* Calls that ended with BOP_EFULL or short for it. */
    uint64_t dropped; /* Queued ones that could not be sent. */
    uint64_t errors;  /* Calls of on_error for what was sent earlier. */
    bool has_gso;
    bool has_gro;
};
/** Zeros for a handle of the past. */
BOP_API struct bop_udp_counters bop_udp_counters(const struct bop_udp *udp);

#endif
