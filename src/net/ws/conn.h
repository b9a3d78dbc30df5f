/*
 * WebSocket connections as their own files see them.
 *
 *      OPENING ---> OPEN ---> CLOSING ---> LEAVING ---> (closed)
 *         |          |  \                    ^   ^
 *         |          |   +-------------------+   |
 *         +----------+---------------------------+
 *
 *      OPENING  a client, until the server's answer is there and good
 *      OPEN     messages go both ways
 *      CLOSING  we sent a close frame and wait for the peer's; its messages are dropped
 *      LEAVING  both were sent, or the connection failed: the socket closes once all is sent
 *
 * A connection's state lies in its socket's block, which on a server is the one
 * of the HTTP connection it came from: 64 bytes. A message of which a part has
 * come, subscriptions, and contexts of compression are outside of it, while
 * there are some. A handle is the socket's.
 *
 * What connections have in common is their group's: those of one route of a
 * server, or the clients of one loop with the same options. Each connection is
 * on its group's wheel (conn_wheel.c), which is also the list of them all.
 */
#ifndef BOP_NET_WS_CONN_H
#define BOP_NET_WS_CONN_H

#include <bop/ws.h>

#include "../http/upgrade.h"
#include "../socket/socket_internal.h"
#include "topic.h"

enum bop__ws_state {
    BOP__WS_OPENING = 0,
    BOP__WS_OPEN,
    BOP__WS_CLOSING,
    BOP__WS_LEAVING,
};

/* bop__ws.protocol: an index into the options' list, or one of these. */
#define BOP__WS_PROTOCOL_NONE  255
#define BOP__WS_PROTOCOL_EXTRA 254 /* extra->protocol */

/** A message of which not all has come. */
struct bop__ws_partial {
    struct bop_ws_decoder decoder;
    struct bop_buf message;           /* What is there of it, inflated; not with on_part. */
    struct bop_ws_zip_stream receive; /* Of a compressed message without context takeover. */
    struct bop__ws_partial *next;     /* While spare. */
};

struct bop__ws_handshake; /* client.c */

/** What most connections never need. */
struct bop__ws_extra {
    struct bop__ws_handshake *handshake; /* While OPENING. */
    struct bop__subscriptions subscriptions;
    struct bop_ws_zip_stream send;    /* With context takeover, and of a message in parts. */
    struct bop_ws_zip_stream receive; /* With context takeover. */
    struct bop_buf held;              /* Frames that wait for the last part of a message. */
    void *block;                      /* options.user_bytes */
    char *protocol;                   /* Of protocol_bytes. */
    size_t protocol_bytes;
    char *reason; /* For on_close, of reason_bytes. */
    size_t reason_bytes;
    struct bop_tls *tls; /* Made for this connection. */
};

struct bop__ws_group;

/** In the socket's block. */
struct bop__ws {
    struct bop__ws_group *group;
    struct bop_list link; /* A slot of the group's wheel. */
    void *user;
    struct bop__ws_partial *partial; /* NULL between messages. */
    struct bop__ws_extra *extra;     /* NULL until needed. */
    uint32_t active_ms;  /* When something was last received, or sent if that counts too. */
    uint32_t since_ms;   /* When it was opened, or its closing began. */
    uint16_t close_code; /* For on_close; 0: none came. */
    uint8_t state;       /* enum bop__ws_state */
    uint8_t pings;       /* Sent since active_ms. */
    uint8_t protocol;
    uint8_t send_bits : 4; /* Windows of compression. */
    uint8_t receive_bits : 4;
    bool client : 1;
    bool deflate : 1;       /* Negotiated. */
    bool send_takeover : 1; /* extra->send keeps its window. */
    bool receive_takeover : 1;
    bool in_parts : 1;      /* bop_ws_send_part() was called, and the last is to come. */
    bool deflates_part : 1; /* That message is compressed. */
    bool pressed : 1;       /* BOP_WS_PRESSURE was returned: on_drain is owed. */
    bool publishes : 1;     /* It was ever excepted from a message of a topic. */
    bool opened : 1;        /* on_open was called, or is about to be. */
};
_Static_assert(sizeof(struct bop__ws) <= BOP__HTTP_BLOCK_BYTES, "what an idle connection costs");

#define BOP__WS_WHEEL_SLOTS 64u

/** What the connections of a loop share. Lives as long as there is a group. */
struct bop__ws_home {
    struct bop_loop *loop;
    size_t references;
    struct bop_list groups; /* bop__ws_group.link */
    struct bop_buf inflated;
    struct bop_buf deflated;
    struct bop__ws_partial *spares;
    unsigned spare_count;
    struct bop__ws_upgrade *upgrade; /* While on_upgrade runs. */
    struct bop_ws_keys keys;
};

struct bop__ws_group {
    struct bop__http_guest guest; /* Of a server's. */
    struct bop__ws_home *home;
    struct bop_list link;
    const struct bop_ws_options *given; /* As the user has them; NULL: nobody joins any more. */
    struct bop_ws_options options;      /* With the defaults filled in. */
    void *route_user;
    struct bop__branch *branch; /* Of options.topics, or NULL. */
    struct bop_ws_zip *zip;     /* NULL until something is compressed. */
    size_t references;          /* Connections, and the server's. */
    size_t connections;
    struct bop_ws_counters *counters; /* The user's, or own. */
    struct bop_ws_counters own;       /* Counted even if nobody reads it: so nobody has to ask. */
    struct bop__export *exported;     /* NULL: in no registry. */
    uint64_t publish_ms;
    size_t short_queue_max; /* Up to this much queued, a small message asks for nothing else. */
    bool client;
    bool stopping;
    struct bop_timer tick;
    uint32_t tick_ms;
    uint32_t tick_now; /* The tick that was last worked through. */
    struct bop_list wheel[BOP__WS_WHEEL_SLOTS];
};

/* ---- The seam to the socket ---- */

static inline struct bop__socket *bop__ws_sock(const struct bop__ws *ws)
{
    return bop__socket_of_block(ws);
}

static inline struct bop_ws *bop__ws_handle(const struct bop__ws *ws)
{
    return (struct bop_ws *)(void *)bop__socket_handle(bop__ws_sock(ws));
}

/** The connection of a handle; NULL for one of the past. */
static inline struct bop__ws *bop__ws_of(const struct bop_ws *handle)
{
    struct bop__socket *sock = (struct bop__socket *)bop__slot_of(handle);

    return sock != NULL ? (struct bop__ws *)bop__socket_block(sock) : NULL;
}

/** Whether messages go: nothing of the socket's end has begun either. */
static inline bool bop__ws_is_open(const struct bop__ws *ws)
{
    const struct bop__socket *sock = bop__ws_sock(ws);

    return ws->state == BOP__WS_OPEN && sock->state == BOP__SOCKET_OPEN && !sock->leaving;
}

static inline uint32_t bop__ws_now(const struct bop__ws *ws)
{
    return (uint32_t)bop__socket_loop(bop__ws_sock(ws))->now_ms;
}

/* ---- conn_group.c ---- */

/** Returns 0, BOP_EINVAL or BOP_ENOMEM; the caller has its one reference. */
BOP_MUST_USE int bop__ws_group_create(struct bop_loop *loop, const struct bop_ws_options *options,
                                      bool client, struct bop__ws_group **out_group);
void bop__ws_group_release(struct bop__ws_group *group);
/** The compressor, made when first needed. NULL: no memory. */
struct bop_ws_zip *bop__ws_zip(struct bop__ws_group *group);
/** The clients' group for these options, with a reference. */
BOP_MUST_USE int bop__ws_client_group(struct bop_loop *loop, const struct bop_ws_options *options,
                                      struct bop__ws_group **out_group);

/* ---- conn.c ---- */

extern const struct bop_socket_events bop__ws_events;

/** Fill in a zeroed block, whose socket is there; takes a reference of the group. */
void bop__ws_init(struct bop__ws *ws, struct bop__ws_group *group, void *user);
/** What was agreed on in the handshake. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__ws_set_deflate(struct bop__ws *ws, const struct bop_ws_deflate *deflate);
/** protocol: of the options or a copy is made; NULL: none. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__ws_set_protocol(struct bop__ws *ws, const char *protocol);
/** The handshake is done: on_open. */
void bop__ws_opened(struct bop__ws *ws);
/** NULL: no memory. */
struct bop__ws_extra *bop__ws_extra(struct bop__ws *ws);
/** Remember what on_close will say. The reason is lost for want of memory. */
void bop__ws_set_reason(struct bop__ws *ws, struct bop_slice reason);
/** Send a close frame and wait for the peer's. Nothing happens unless open. */
void bop__ws_begin_close(struct bop__ws *ws, unsigned code, struct bop_slice reason);
/** Fail the connection: a close frame, then the end. */
void bop__ws_fail(struct bop__ws *ws, unsigned code, const char *why);
/** The peer's close frame came: answer it, and end. */
void bop__ws_peer_closes(struct bop__ws *ws, unsigned code, struct bop_slice reason);
/** Cut it. */
void bop__ws_cut(struct bop__ws *ws);

/* ---- conn_receive.c ---- */

size_t bop__ws_on_data(struct bop_socket *socket, void *user, struct bop_slice bytes);
void bop__ws_drop_partial(struct bop__ws *ws);
void bop__ws_free_spares(struct bop__ws_home *home);

/* ---- conn_send.c ---- */

/** Append a frame to what is sent. Returns 0, BOP_ECLOSED, BOP_EFULL, BOP_ENOMEM or -errno. */
BOP_MUST_USE int bop__ws_put(struct bop__ws *ws, unsigned first_byte, struct bop_slice payload);
/** Whether a message is to be dropped, as the queue is too long; by the rules it is closed then. */
bool bop__ws_is_slow(struct bop__ws *ws);
/** After something was queued: 0, BOP_WS_PRESSURE or BOP_ECLOSED. */
int bop__ws_pressure(struct bop__ws *ws);
/** The socket's queue fell. */
void bop__ws_drained(struct bop__ws *ws);
/** How the windows stand for what is sent without context takeover. */
static inline struct bop_ws_zip_stream bop__ws_fresh_stream(unsigned bits)
{
    return (struct bop_ws_zip_stream){.bits = (uint8_t)bits};
}

/* ---- conn_wheel.c ---- */

void bop__ws_wheel_init(struct bop__ws_group *group);
void bop__ws_wheel_add(struct bop__ws *ws);
void bop__ws_wheel_remove(struct bop__ws *ws);
/** Its deadline changed. */
void bop__ws_wheel_wait(struct bop__ws *ws);

/* ---- metrics.c ---- */

/** Register what the options ask for. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__ws_group_export(struct bop__ws_group *group);
/** Bring registries up to date: the group's, and its topics'. */
void bop__ws_group_publish(struct bop__ws_group *group);
/** The same for the last time. */
void bop__ws_group_unexport(struct bop__ws_group *group);

/* ---- client.c ---- */

void bop__ws_handshake_free(struct bop__ws *ws);
uint64_t bop__ws_handshake_timeout_ms(const struct bop__ws *ws);

#endif
