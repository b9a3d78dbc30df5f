/*
 * A TCP connection as its own files see it.
 *
 *      CONNECTING ----> OPEN ----> CLOSED ----> freed
 *           |                        ^
 *           +------------------------+
 *
 * CLOSED has no descriptor and owes its on_close, which the end of a turn
 * calls; then the memory goes. An OPEN connection that is `leaving` (close after
 * flush) sends its queue, says so to the peer (shutdown), and reads and drops
 * until the peer has closed too: to close with bytes unread would reset the
 * connection, and the peer could lose what it was sent last.
 */
#ifndef BOP_NET_SOCKET_INTERNAL_H
#define BOP_NET_SOCKET_INTERNAL_H

#include <bop/list.h>
#include <bop/socket.h>

#include "../loop/loop_internal.h"
#include "address.h"

enum bop__socket_state {
    BOP__SOCKET_CONNECTING,
    BOP__SOCKET_OPEN,
    BOP__SOCKET_CLOSED,
};

struct bop_listener {
    struct bop__source source;
    struct bop_loop *loop;
    struct bop_list link;              /* loop.listeners, then loop.retired, then none. */
    struct bop_timer again;            /* Accept again, after running out of descriptors. */
    struct bop_listen_options options; /* host is not kept. */
    unsigned connections;              /* Accepted and not yet freed: they point here. */
    bool closed;
    uint16_t port;
};

struct bop_socket {
    struct bop__source source;
    struct bop_loop *loop;
    const struct bop_socket_events *events; /* Borrowed; NULL until attached. */
    void *user;
    struct bop_list link;    /* loop.connections, or loop.closing. */
    struct bop_list queued;  /* loop.flush, or none. */
    struct bop_list pending; /* loop.redeliver, or none. */
    struct bop_buf in;       /* What on_data has not consumed. */
    struct bop_buf out;      /* To send: from out_sent on. */
    size_t out_sent;
    struct bop_socket_limits limits;
    struct bop_timer timer;         /* Of connecting, then of leaving. */
    struct bop_listener *listener;  /* That accepted it, or NULL. */
    struct addrinfo *addresses;     /* Of the host to connect to, while connecting. */
    const struct addrinfo *address; /* The next of them to try. */
    char *peer_text;                /* BOP__ADDRESS_TEXT_MAX bytes once asked for. */
    struct bop__address peer;
    int reason;    /* For on_close. */
    uint8_t state; /* enum bop__socket_state */
    bool paused;
    bool above_high; /* on_pressure(off) is due when the queue falls to the low watermark. */
    bool leaving;    /* bop_socket_close_after_flush() was called. */
    bool said_bye;   /* Leaving, all sent and the sending side shut down. */
    bool at_end;     /* Leaving, and the peer has closed its side. */
};

/* ---- sock.c ---- */

/** A connection in CONNECTING, without a descriptor. NULL: out of memory. */
struct bop_socket *bop__socket_create(struct bop_loop *loop,
                                      const struct bop_socket_limits *limits);
/** Free one that never got to the user. */
void bop__socket_discard(struct bop_socket *sock);
/** Close the descriptor and owe the on_close. Nothing happens if closed already. */
void bop__socket_begin_close(struct bop_socket *sock, int reason);
/** Change the watched events; if that fails the connection closes. */
void bop__socket_watch(struct bop_socket *sock, uint32_t events);
/** The pending error of the socket: 0 or -errno. */
BOP_MUST_USE int bop__socket_error(int fd);

/* ---- read.c ---- */

/** What epoll reported for an open connection. */
void bop__socket_on_events(struct bop__source *source, uint32_t events);

/* ---- write.c ---- */

/** One attempt to send the queue. Returns 0 or -errno, not -EAGAIN. */
BOP_MUST_USE int bop__socket_send(struct bop_socket *sock);

static inline bool bop__socket_blocked(const struct bop_socket *sock)
{
    return (sock->source.watched & 4u /* EPOLLOUT */) != 0;
}

/* ---- listen.c ---- */

/** Forget one connection; frees a closed listener with the last. */
void bop__listener_release(struct bop_listener *listener);
/** The end of a turn in which it was closed. */
void bop__listener_retire(struct bop_listener *listener);

#endif
