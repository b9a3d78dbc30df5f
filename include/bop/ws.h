/*
 * WebSocket (RFC 6455) with permessage-deflate (RFC 7692): server and client on
 * a loop, and topics that many loops publish to.
 *
 *      static void echo(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
 *                       struct bop_slice message)
 *      {
 *          bop_ws_send(ws, opcode, message);
 *      }
 *      static const struct bop_ws_options options = {.on_message = echo};
 *      bop_ws_route(server, "/echo", &options, NULL);
 *
 * Handles: a struct bop_ws * carries a generation, as a socket's handle does
 * (bop/socket.h): after on_close has returned, calls return BOP_ECLOSED and do
 * nothing.
 *
 * Close: on_close is called exactly once for each on_open. A close that is
 * answered within close_timeout_ms is clean; else the connection is cut.
 *
 * Threads: the loop's, but for bop_topics_* and bop_ws_prepared_* where said.
 */
#ifndef BOP_WS_H
#define BOP_WS_H

#include <bop/http.h>
#include <bop/loop.h>
#include <bop/shared.h>
#include <bop/slice.h>
#include <bop/socket.h>
#include <bop/tls.h>
#include <bop/ws_codec.h>

struct bop_ws;
struct bop_topics;
struct bop_ws_prepared;

enum bop_ws_compression {
    BOP_WS_COMPRESS_DEFAULT = 0, /* Negotiated, without context takeover: no memory a connection. */
    BOP_WS_COMPRESS_NEVER,
    BOP_WS_COMPRESS_TAKEOVER, /* Contexts kept where the peer agrees: better ratio, 8 to 300 KiB a
                                 connection. */
};

/** What a message does to a peer whose queue is above pressure_max. */
enum bop_ws_slow {
    BOP_WS_SLOW_DROP = 0, /* The message is dropped for it, and counted. */
    BOP_WS_SLOW_CLOSE,    /* It is closed with 1008. */
};

/** What happened to connections; topics have counters of their own. */
struct bop_ws_counters {
    uint64_t opened;
    uint64_t open_now;
    uint64_t messages_received; /* Whole ones. */
    uint64_t messages_sent;     /* Not those of topics. */
    uint64_t pings_sent;        /* By the connection itself. */
    uint64_t slow; /* Times that something was dropped, the queue being above pressure_max. */
    uint64_t slow_closed; /* Connections closed for that. */
    uint64_t failed;      /* Connections failed with a code: the peer broke a rule or a bound. */
    uint64_t timeouts;    /* Connections cut: nothing came, or no close frame. */
};

/**
 * Handlers, and rules of their connections. Borrowed as long as the route or the
 * connection. NULL handlers are skipped, zero fields take the defaults.
 */
struct bop_ws_options {
    /* A request to open came (servers). Set the user, pick a subprotocol with
     * bop_ws_accept_protocol(), add headers by bop_http_header(), and return 0; or another status
     * to refuse with, 400 to 599. */
    unsigned (*on_upgrade)(struct bop_http_exchange *http, const struct bop_http_head *head,
                           void *route_user, void **in_out_user);
    void (*on_open)(struct bop_ws *ws, void *user);
    /* A whole message. One of this and on_part is required. */
    void (*on_message)(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                       struct bop_slice message);
    /* Instead: pieces as they come, so that a large message needs no memory. */
    void (*on_part)(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                    struct bop_slice bytes, bool first, bool last);
    void (*on_drain)(struct bop_ws *ws, void *user); /* After BOP_WS_PRESSURE: write on. */
    /* A topic's message was dropped, see slow. A send that is says so by BOP_EFULL. */
    void (*on_dropped)(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                       struct bop_slice message);
    void (*on_ping)(struct bop_ws *ws, void *user,
                    struct bop_slice payload); /* Answered already. */
    void (*on_pong)(struct bop_ws *ws, void *user, struct bop_slice payload);
    /* From inside bop_ws_subscribe() and bop_ws_unsubscribe(); for those left, before on_close. */
    void (*on_subscription)(struct bop_ws *ws, void *user, const char *topic, bool subscribed);
    /* code: of the peer's close frame, NO_STATUS if it named none; or ABNORMAL if none came, then
     * with what went wrong in words, if anything did: for a client that could not open, too. */
    void (*on_close)(struct bop_ws *ws, void *user, unsigned code, struct bop_slice reason);

    size_t
        message_bytes_max; /* Received, inflated; over it 1009. Default 16 MiB (on_part: none). */
    size_t pressure_high;  /* Queued bytes from which sends say PRESSURE. Default 64 KiB. */
    size_t pressure_max;   /* Default 1 MiB: see slow. */
    enum bop_ws_slow slow;
    uint64_t idle_timeout_ms;  /* Nothing received: 1006. Default 120 s; UINT64_MAX: none. */
    uint64_t ping_interval_ms; /* Ping after so long without bytes. Default half the idle timeout;
                                  UINT64_MAX: never. */
    uint64_t lifetime_ms;      /* Then 1001. Default: none. */
    uint64_t close_timeout_ms; /* For the peer's close frame. Default 5 s. */
    bool sending_is_activity;  /* Sends too put off the idle timeout. */
    enum bop_ws_compression compression;
    unsigned deflate_window_bits; /* 9 to 15, of our side. Default 15. */
    unsigned deflate_level;       /* 1 to 9. Default 6. */
    size_t deflate_threshold;     /* Smaller messages go as they are. Default 512. */
    const char *const *protocols; /* Subprotocols in order of preference, NULL-terminated; NULL:
                                     none. The first that both know is chosen. */
    const char *const *origins; /* Origin headers allowed, NULL-terminated; NULL: any. Else 403. */
    struct bop_topics *topics;  /* For bop_ws_subscribe(). NULL: none. */
    size_t user_bytes;          /* Zeroed memory of the connection, as its user. */
    struct bop_ws_counters *counters; /* Counted here, on the loop's thread: each loop needs its
                                         own. Borrowed as the options are. NULL: nowhere. */
    struct bop_metrics *metrics;      /* Or kept in a registry (not both: BOP_EINVAL), as
                                         bop_ws_..., at most a second late. Those with the same labels
                                         add up. Borrowed likewise. */
    const char *metrics_labels;       /* As in bop/metrics.h, or NULL. */
};

/* ---- Servers ---- */

/** Open WebSockets at a pattern of the server; plain requests there get 426. user: route_user, and
 * the connection's unless on_upgrade sets another. As bop_http_route(). */
BOP_API BOP_MUST_USE int bop_ws_route(struct bop_http_server *server, const char *pattern,
                                      const struct bop_ws_options *options, void *user);
/** Or from a handler of one's own: answers the exchange; on_open is called before it returns. 0, or
 * the code why it was refused. out_ws may be NULL. */
BOP_API int bop_ws_accept(struct bop_http_exchange *http, const struct bop_http_head *head,
                          const struct bop_ws_options *options, void *user, struct bop_ws **out_ws);
/** In on_upgrade: choose a subprotocol that the client offered. BOP_EINVAL if it did not. */
BOP_API int bop_ws_accept_protocol(struct bop_http_exchange *http, const char *protocol);

/* ---- Clients ---- */

struct bop_ws_connect_options {
    const char *url;                       /* "ws://host:port/path?query", "wss://..." */
    const struct bop_http_header *headers; /* More of them. Borrowed during the call. */
    size_t header_count;
    struct bop_tls *tls;                  /* For wss; NULL: the system's CAs, made for this one. */
    uint64_t timeout_ms;                  /* To be open. Default 30 s. */
    const char *unix_path;                /* Connect there instead; the URL names the host. */
    const struct bop_ws_options *options; /* Borrowed while connected. */
    void *user;
};
/** Begin to connect; on_open or on_close follows. */
BOP_API BOP_MUST_USE int bop_ws_connect(struct bop_loop *loop,
                                        const struct bop_ws_connect_options *options,
                                        struct bop_ws **out_ws, struct bop_error *err);

/* ---- Sending ---- */

/** The message was taken, but the queue is above pressure_high: wait for on_drain. */
#define BOP_WS_PRESSURE 1

/** Send a message; compressed where negotiated and not below the threshold. Returns 0,
 * BOP_WS_PRESSURE, BOP_EFULL (dropped, see bop_ws_slow), BOP_ENOMEM or BOP_ECLOSED. */
BOP_API int bop_ws_send(struct bop_ws *ws, enum bop_ws_opcode opcode, struct bop_slice message);
/** As it is, whatever was negotiated. */
BOP_API int bop_ws_send_plain(struct bop_ws *ws, enum bop_ws_opcode opcode,
                              struct bop_slice message);
/** A message in pieces: a frame each. Until the last, other messages get BOP_EBUSY, and those of
 * topics wait. */
BOP_API int bop_ws_send_part(struct bop_ws *ws, enum bop_ws_opcode opcode, struct bop_slice bytes,
                             bool last);
BOP_API int bop_ws_ping(struct bop_ws *ws, struct bop_slice payload);
BOP_API int bop_ws_pong(struct bop_ws *ws, struct bop_slice payload);
/** Begin to close: 1000, 1001, 1003, 1007 to 1014 or 3000 to 4999 (else BOP_EINVAL), with at most
 * 123 bytes of UTF-8. What is queued goes out first. */
BOP_API int bop_ws_close(struct bop_ws *ws, unsigned code, struct bop_slice reason);
/** Cut the connection without a close frame. */
BOP_API void bop_ws_terminate(struct bop_ws *ws);

/** Framed and compressed once, sent many times, to servers' connections only. Any thread. */
BOP_API BOP_MUST_USE struct bop_ws_prepared *
bop_ws_prepare(enum bop_ws_opcode opcode, struct bop_slice message, bool compress);
BOP_API void bop_ws_prepared_unref(struct bop_ws_prepared *prepared);
BOP_API int bop_ws_send_prepared(struct bop_ws *ws, struct bop_ws_prepared *prepared);

/* ---- Asking ---- */

BOP_API void *bop_ws_user(const struct bop_ws *ws);
BOP_API bool bop_ws_is_open(const struct bop_ws *ws);
BOP_API size_t bop_ws_queued(const struct bop_ws *ws);
BOP_API const char *bop_ws_protocol(const struct bop_ws *ws); /* Chosen, or NULL. */
BOP_API bool bop_ws_is_compressed(const struct bop_ws *ws);
BOP_API const char *bop_ws_peer_name(const struct bop_ws *ws);
BOP_API struct bop_loop *bop_ws_loop(const struct bop_ws *ws);
/** Stop and go on reading: back-pressure towards the peer. Of a piece of a compressed message that
 * is given to on_part, the rest may still come. */
BOP_API void bop_ws_pause(struct bop_ws *ws);
BOP_API void bop_ws_resume(struct bop_ws *ws);

/* ---- Topics ---- */

/** Topics that connections of any number of loops subscribe to. Created and destroyed on any
 * thread; routes and connections that have them keep what they need of them. */
BOP_API BOP_MUST_USE struct bop_topics *bop_topics_create(struct bop_allocator *allocator);
BOP_API void bop_topics_destroy(struct bop_topics *topics);

/** 0 (also when subscribed already), BOP_ENOMEM, BOP_EUNSUPPORTED without topics, BOP_ECLOSED. */
BOP_API int bop_ws_subscribe(struct bop_ws *ws, const char *topic);
BOP_API int bop_ws_unsubscribe(struct bop_ws *ws, const char *topic);
BOP_API bool bop_ws_is_subscribed(const struct bop_ws *ws, const char *topic);
/** For each topic of a connection; fn returns false to end. */
BOP_API void bop_ws_each_topic(const struct bop_ws *ws, bool (*fn)(const char *topic, void *user),
                               void *user);

/**
 * Send to all subscribers, on all loops, in the order of publishing of one thread. Any thread.
 * Messages of a turn to one topic go out together, one send a subscriber. Returns 0 or BOP_ENOMEM.
 */
BOP_API int bop_topics_publish(struct bop_topics *topics, const char *topic,
                               enum bop_ws_opcode opcode, struct bop_slice message);
BOP_API int bop_topics_publish_prepared(struct bop_topics *topics, const char *topic,
                                        struct bop_ws_prepared *prepared);
/** As publish, to all but the connection itself. Its loop's thread. */
BOP_API int bop_ws_publish(struct bop_ws *ws, const char *topic, enum bop_ws_opcode opcode,
                           struct bop_slice message);
/** Subscribers on all loops. Any thread; exact when nothing changes meanwhile. */
BOP_API size_t bop_topics_subscribers(struct bop_topics *topics, const char *topic);

struct bop_topics_counters {
    uint64_t topics;
    uint64_t subscriptions;
    uint64_t published;
    uint64_t delivered;
    uint64_t dropped; /* For slow subscribers. */
    uint64_t closed;  /* Likewise. */
};
BOP_API struct bop_topics_counters bop_topics_counters(const struct bop_topics *topics);

/** Keep them in a registry as well, as bop_topics_..., brought up to date once a second while there
 * are connections, and by calling this again. labels as in bop/metrics.h, or NULL. The registry is
 * borrowed until bop_topics_destroy(). Any thread. Returns 0, BOP_EINVAL (another registry), or
 * BOP_ENOMEM as registering does. */
BOP_API BOP_MUST_USE int bop_topics_metrics(struct bop_topics *topics, struct bop_metrics *metrics,
                                            const char *labels);

#endif
