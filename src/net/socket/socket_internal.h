/*
 * A socket as its own files see it, and as the protocols in this library do.
 *
 *      CONNECTING ----> OPEN ----> CLOSED ----> FREE
 *           |                        ^
 *           +------------------------+
 *
 * CLOSED has no descriptor and owes its on_close, which the end of a turn calls;
 * then the slot is free. An OPEN socket with a TLS handshake or whose connection
 * has just been made is `opening` until on_open. One that is `leaving` (close
 * after flush) sends its queue, says so to the peer (shutdown), and reads and
 * drops until the peer has closed too: to close with bytes unread would reset
 * the connection, and the peer could lose what it was sent last.
 *
 * Bytes go this way, and the files that see to it:
 *
 *      recv -> bop__socket_input -> [TLS] -> bop__socket_received -> on_data    read.c
 *      write -> struct bop__queue -> [TLS] -> bop__socket_transmit -> send      write.c, send.c
 *
 * Users hold handles (slot.h); in here a socket is a pointer, good until the end
 * of the turn in which on_close was called. Protocols of this library use the
 * functions below, which take the pointer, and bop__socket_of() in callbacks.
 */
#ifndef BOP_NET_SOCKET_INTERNAL_H
#define BOP_NET_SOCKET_INTERNAL_H

#include <bop/list.h>
#include <bop/socket.h>

#include "../loop/loop_internal.h"
#include "../rate/rate.h"
#include "address.h"
#include "queue.h"
#include "slots.h"

struct bop__connecting; /* connect.c's. */
struct bop__tls_stream; /* src/net/tls. */

/* "unix:", the longest path, and its NUL; longer than any address. */
#define BOP__PEER_NAME_MAX 128

enum bop__socket_state {
    BOP__SOCKET_FREE = 0,
    BOP__SOCKET_CONNECTING,
    BOP__SOCKET_OPEN,
    BOP__SOCKET_CLOSED,
};

/** What sockets have in common: those of a listener on one loop, or connected alike. */
struct bop__socket_context {
    struct bop_loop *loop;
    struct bop__pool *pool;          /* NULL until the first socket. */
    struct bop_listener *listener;   /* That accepted them, or NULL. */
    struct bop_socket_limits limits; /* Defaults filled in. */
    size_t user_bytes;
    size_t references; /* Sockets, and one of the loop's memory; of those without a listener. */
};

/** Bytes that on_data did not take, in one block. */
struct bop__kept {
    size_t size;
    size_t capacity;
    uint8_t data[];
};

/** What most sockets never need. */
struct bop__socket_more {
    struct bop__tls_stream *tls;
    struct bop__connecting *connecting; /* NULL if it did not connect. */
    char *peer_name;                    /* BOP__PEER_NAME_MAX bytes once asked for. */
    char *error_text;                   /* BOP_ERROR_MESSAGE_MAX bytes, if something was said. */
    uint64_t idle_ms;                   /* For when it is open. */
    uint64_t lifetime_due_ms;           /* Of the loop's clock; 0: never. */
    uint64_t pause_due_ms;              /* Close if the queue stays high until then; 0: never. */
    struct bop__rate *read_rate;        /* NULL: no limit. */
    struct bop__rate *write_rate;
    uint64_t read_due_ms; /* While read_waits. */
    uint64_t write_due_ms;
    uint64_t limited_asked; /* For on_limited. */
    uint64_t limited_available;
    struct bop_socket_counters counters;
};

/** At most 128 bytes: an idle socket's all, but for user_bytes behind it. */
struct bop__socket {
    struct bop__slot slot;
    uint8_t state : 2;       /* enum bop__socket_state */
    bool paused : 1;         /* By the user. */
    bool held : 1;           /* By BOP_SOCKET_PAUSE: reading waits until the queue is low. */
    bool read_waits : 1;     /* The read rate's limit was met: until more->read_due_ms. */
    bool write_waits : 1;    /* Likewise of the write rate. */
    bool limited : 1;        /* on_limited is due. */
    bool opening : 1;        /* on_open is to come: timeout_ms is that of connecting. */
    bool in_input : 1;       /* on_data runs: what it queues is sent when it returns. */
    bool wants_flush : 1;    /* There is something to send, at the latest at the turn's end. */
    bool wants_delivery : 1; /* It was resumed: give what is kept. */
    bool listed : 1;         /* On loop.redeliver, for wants_delivery. */
    bool rose : 1;           /* on_pressure(on) is due. */
    bool above : 1;          /* on_pressure(on) came, off is to. */
    bool shutting : 1;       /* Nothing follows what is queued. */
    bool said_tls_bye : 1;   /* close_notify is on its way. */
    bool said_bye : 1;       /* The sending side is shut down. */
    bool leaving : 1;        /* To be closed after what is queued; input is dropped. */
    bool left_by_peer : 1;   /* Leaving, because the peer did: on_close(0). */
    bool deaf : 1;           /* bop_socket_shutdown_read() was called: input is dropped. */
    bool at_end : 1;         /* The peer's end came. */
    bool end_owed : 1;       /* ...and is yet to be told. */
    bool has_tls : 1;        /* more->tls is set. */
    bool counts : 1;         /* more->counters are kept. */
    struct bop__source source;
    struct bop__socket_context *context;
    const struct bop_socket_events *events; /* Borrowed; NULL until attached. */
    void *user;                             /* The user's, or what follows this struct. */
    struct bop_list work;                   /* loop.redeliver, loop.flush, loop.closing or none. */
    struct bop__kept *kept;
    struct bop__queue *queue; /* NULL while nothing is to be sent. */
    struct bop__socket_more *more;
    struct bop_timer timer; /* For the next of all timeouts, or earlier. */
    uint32_t active_ms;     /* The clock's low bits when something was last received or sent, or
                               connecting or leaving began. */
    union {
        uint32_t timeout_ms; /* Of opening or leaving, else of idleness; 0: none. */
        int reason;          /* When CLOSED. */
    };
};

_Static_assert(sizeof(struct bop__socket) <= 128, "an idle socket is two cache lines");

/* Queues kept for reuse, and the largest buffer worth keeping: at most 4 MiB a
 * loop, and none for a socket with nothing to send. One takes what a read of
 * requests makes for a peer, or it would be grown anew, by copying, each turn. */
#define BOP__SPARE_QUEUES_MAX      16
#define BOP__SPARE_QUEUE_BYTES_MAX (256u * 1024)

/** All memory of a loop's sockets. */
struct bop__sockets {
    struct bop__slots slots;
    struct bop__socket_context *context; /* The last one connected with, for the next alike. */
    unsigned spare_count;
    struct bop__queue *spares[BOP__SPARE_QUEUES_MAX];
    uint8_t *file_bytes; /* BOP__FILE_BYTES to read files into, once needed. */
};

#define BOP__FILE_BYTES (64u * 1024)

/** The memory of a loop's sockets, made with the first. NULL: no memory. */
struct bop__sockets *bop__sockets_of(struct bop_loop *loop);

/* Of a socket's own memory: what does not fit is better allocated. */
#define BOP__USER_BYTES_MAX 4096

/** The socket of a handle; NULL for a handle of the past. */
static inline struct bop__socket *bop__socket_of(const struct bop_socket *handle)
{
    return (struct bop__socket *)bop__slot_of(handle);
}

static inline struct bop_socket *bop__socket_handle(const struct bop__socket *sock)
{
    return (struct bop_socket *)bop__slot_handle(&sock->slot);
}

/** The memory of user_bytes. */
static inline void *bop__socket_block(struct bop__socket *sock)
{
    return sock + 1;
}

/** Which socket a block of user_bytes belongs to. */
static inline struct bop__socket *bop__socket_of_block(const void *block)
{
    return (struct bop__socket *)block - 1;
}

static inline struct bop_loop *bop__socket_loop(const struct bop__socket *sock)
{
    return sock->context->loop;
}

static inline struct bop__tls_stream *bop__socket_tls(const struct bop__socket *sock)
{
    return sock->has_tls ? sock->more->tls : NULL;
}

/* ---- socket.c: the life of a socket ---- */

/** The context for sockets that are connected so, with a reference for one. NULL: no memory. */
struct bop__socket_context *bop__socket_context(struct bop_loop *loop,
                                                const struct bop_socket_limits *limits,
                                                size_t user_bytes);
/** Fill in one for a listener, which has no references. */
void bop__socket_context_init(struct bop__socket_context *context, struct bop_loop *loop,
                              const struct bop_socket_limits *limits, size_t user_bytes);

/** A socket in CONNECTING, without a descriptor. Takes over the caller's reference of the context,
 * also when it fails. NULL: no memory. */
struct bop__socket *bop__socket_create(struct bop__socket_context *context);
/** Free one that never got to the user. */
void bop__socket_discard(struct bop__socket *sock);
/** From CONNECTING: it takes over this connected descriptor, watched already, and is OPEN; then
 * starts TLS, of this name, or calls on_open. It closes if that fails. */
void bop__socket_connected(struct bop__socket *sock, struct bop__source *from, struct bop_tls *tls,
                           const char *name);
/** Connected, and with TLS the handshake done: call on_open, send what waits. May be called for any
 * open socket; nothing happens if it was open already. */
void bop__socket_opened(struct bop__socket *sock);
/** Close the descriptor and owe the on_close. Nothing happens if closed already. */
void bop__socket_begin_close(struct bop__socket *sock, int reason);
void bop__socket_close_after_flush(struct bop__socket *sock, uint64_t timeout_ms);
/** Watch for EPOLLIN, EPOLLOUT, both or none; if that fails the socket closes. */
void bop__socket_watch(struct bop__socket *sock, uint32_t events);
/** The pending error of the descriptor: 0 or -errno. */
BOP_MUST_USE int bop__socket_error(int fd);
/** The block of seldom needs. NULL: no memory. */
struct bop__socket_more *bop__socket_more(struct bop__socket *sock);
/** What bop_socket_error_text() gives. Forgotten if there is no memory for it. */
void bop__socket_set_error_text(struct bop__socket *sock, const char *text);
/** Set more->tls, which bop__tls_free() is called for in the end. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__socket_set_tls(struct bop__socket *sock, struct bop__tls_stream *tls);

/* ---- timeout.c: one timer for all timeouts of a socket ---- */

void bop__socket_on_timer(struct bop_timer *timer);
/** A timeout was set or may have become earlier. */
void bop__socket_arm(struct bop__socket *sock);
/** From now on: of opening or leaving while it is that, else of idleness. 0: none. */
void bop__socket_set_timeout(struct bop__socket *sock, uint64_t timeout_ms);
/** Something was received or sent: the timer finds out when it fires. */
static inline void bop__socket_note_active(struct bop__socket *sock)
{
    if (!sock->opening && !sock->leaving) {
        sock->active_ms = (uint32_t)bop__socket_loop(sock)->now_ms;
    }
}

/* ---- read.c ---- */

/** What epoll reported for an open socket. */
void bop__socket_on_events(struct bop__source *source, uint32_t events);
/** Bytes came from the wire, lent for the call; what is queued for this socket meanwhile is sent
 * before it returns. For TLS they are still encrypted. */
void bop__socket_input(struct bop__socket *sock, struct bop_slice bytes);
/** The wire's end came: with TLS, its own end is yet to be judged. */
void bop__socket_input_end(struct bop__socket *sock);
/** Plain bytes for on_data, lent for the call. May close the socket. */
void bop__socket_received(struct bop__socket *sock, struct bop_slice bytes);
/** The peer's end, after all its bytes. May close the socket. */
void bop__socket_ended(struct bop__socket *sock);
void bop__socket_pause(struct bop__socket *sock);
void bop__socket_resume(struct bop__socket *sock);
/** As pausing, by the queue that is full; it takes both to be undone to read on. */
void bop__socket_hold(struct bop__socket *sock);
void bop__socket_release(struct bop__socket *sock);
/** Read or don't, as paused, held and the like say. */
void bop__socket_update_reading(struct bop__socket *sock);

/* ---- write.c: queueing ---- */

BOP_MUST_USE int bop__socket_write(struct bop__socket *sock, struct bop_slice bytes);
BOP_MUST_USE int bop__socket_write_parts(struct bop__socket *sock, const struct bop_slice *parts,
                                         size_t count);
BOP_MUST_USE int bop__socket_write_shared(struct bop__socket *sock, struct bop_shared *shared,
                                          size_t offset, size_t size);
BOP_MUST_USE int bop__socket_write_file(struct bop__socket *sock, int fd, uint64_t offset,
                                        uint64_t size);
struct bop_buf *bop__socket_output(struct bop__socket *sock);
void bop__socket_flush_later(struct bop__socket *sock);
/** What was queued since the last mark is one write, for those of which whole ones are dropped. */
void bop__socket_mark(struct bop__socket *sock);
/** Bytes queued, and encrypted but not yet sent. */
size_t bop__socket_queued(const struct bop__socket *sock);
/** The queue, borrowed from the loop's spares if there is none yet. NULL: no memory. */
struct bop__queue *bop__socket_queue(struct bop__socket *sock);
/** Give the queue back if it is empty. */
void bop__socket_leave_queue(struct bop__socket *sock);

/* ---- send.c: sending what is queued ---- */

/** One attempt to send the queue, by TLS or as it is. Returns 0 or -errno, not -EAGAIN. */
BOP_MUST_USE int bop__socket_send(struct bop__socket *sock);
/** The front of the queue in the clear, for TLS: a piece of it, of a file read into the loop's
 * buffer. Empty if nothing is queued or reading failed, which *out_rc then says. */
struct bop_slice bop__socket_peek(struct bop__socket *sock, int *out_rc);
/** So much of what was peeked is encrypted and counts as sent. */
void bop__socket_taken(struct bop__socket *sock, size_t size);
/** Send, and what follows from that: watching for room, shutdown, close. No callbacks. */
void bop__socket_transmit(struct bop__socket *sock);
/** Transmit and tell of pressure. */
void bop__socket_flush(struct bop__socket *sock);
/** Note that the queue is above the high watermark, if it is. */
void bop__socket_note_height(struct bop__socket *sock);
/** Nothing follows what is queued. */
int bop__socket_shutdown(struct bop__socket *sock);

static inline bool bop__socket_blocked(const struct bop__socket *sock)
{
    return (sock->source.watched & 4u /* EPOLLOUT */) != 0;
}

/* ---- names.c ---- */

const char *bop__socket_peer_name(struct bop__socket *sock);
/** Remember a name, for a socket that has no descriptor to ask. */
void bop__socket_set_peer_name(struct bop__socket *sock, const char *name);

/* ---- connect.c ---- */

/** Connecting is over, the socket closes: close what is open. It may be over for long. */
void bop__connecting_end(struct bop__socket *sock);

/* ---- unix.c ---- */

struct sockaddr_un;

/** The address of a path; '@' in front: abstract. Returns its size, BOP_EINVAL for an empty path,
 * or -ENAMETOOLONG. */
BOP_MUST_USE int bop__unix_address(const char *path, struct sockaddr_un *out_address);
/** A bound, listening socket; a path that nobody listens on any more is replaced. Returns it or
 * -errno. */
BOP_MUST_USE int bop__unix_listen(const char *path, int backlog);

/* ---- listen.c ---- */

struct bop_listener {
    struct bop__source source;
    struct bop_loop *loop;
    struct bop_allocator *allocator;
    struct bop_list link;                  /* loop.listeners, then loop.retired, then none. */
    struct bop_timer again;                /* Accept again, after running out of descriptors. */
    struct bop_listen_options options;     /* host, path and loops are not kept. */
    struct bop_listener_counters counters; /* Those of its own thread. */
    _Atomic uint64_t out_of_memory;
    _Atomic size_t references; /* Itself, and each that is open. */
    _Atomic size_t open;       /* Sockets, those on their way to another loop included. */
    atomic_bool closed;
    uint16_t port;
    char *path; /* Of a Unix socket to remove in the end, or NULL. */
    size_t path_bytes;
    uint64_t path_device; /* What was bound there: another may have replaced it. */
    uint64_t path_inode;
    size_t next;          /* Context of the next connection. */
    size_t context_count; /* One a loop. */
    struct bop__socket_context contexts[];
};

/** A socket was freed: frees a closed listener with the last. Any thread. */
void bop__listener_release(struct bop_listener *listener);
/** The end of a turn in which it was closed. */
void bop__listener_retire(struct bop_listener *listener);

#endif
