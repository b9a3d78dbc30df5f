/*
 * Watches and views on the wire: kinds 150 to 156 and 174 to 181 of
 * docs/design/wire-protocol.md. What they promise is in docs/design/watches.md; the
 * client's side of them in bop/client.h.
 *
 * A watch is known by the request id of the request that opened it, on its connection.
 */
#ifndef BOP_WATCH_H
#define BOP_WATCH_H

#include <bop/wire.h>

/** What a watch is of. 1 to 7 are those of enum bop_name_kind. */
enum bop_watch_what {
    BOP_WATCH_MAP = 1, /* By key; so the next two. */
    BOP_WATCH_SET = 2, /* The member is the key. */
    BOP_WATCH_MULTIMAP = 3,
    BOP_WATCH_COUNTER = 4,
    BOP_WATCH_LOCK = 5,
    BOP_WATCH_GROUP = 6,    /* The member is the key. */
    BOP_WATCH_REGISTRY = 7, /* The address is the key. */
    BOP_WATCH_SESSION = 8,  /* All that sessions own, and their begin and end. No name; the key is
                               the session's id, most significant byte first. */
    BOP_WATCH_NAMES = 9,    /* What is made and deleted. No name; the key is enum bop_name_kind as a
                               byte, then the name. */
};
#define BOP_WATCH_WHAT_MAX BOP_WATCH_NAMES

enum bop_watch_flags {
    BOP_WATCH_PREVIOUS = 0x01,    /* Tell what was there before. */
    BOP_WATCH_SNAPSHOT = 0x02,    /* Begin with how things stand, and again after a resync. */
    BOP_WATCH_PROGRESS = 0x04,    /* Marks after a quiet time. */
    BOP_WATCH_ACKNOWLEDGE = 0x08, /* It answers each mark with an ACK: who settles waits for it. */
};

struct bop_watch_open_request { /* 150 */
    uint8_t what;               /* enum bop_watch_what. */
    struct bop_slice name;      /* s; empty for SESSION and NAMES. */
    struct bop_slice prefix;    /* Keys that begin with it, */
    struct bop_slice from;      /* from here on, */
    struct bop_slice to;        /* below this one; each may be empty and excludes nothing then. */
    uint8_t flags;              /* enum bop_watch_flags. */
    uint64_t revision;          /* Events after this one. 0: from now on. */
};
struct bop_watch_open_response { /* 151 */
    uint8_t status;
    uint64_t revision; /* OK: events after this one follow. COMPACTED: the oldest that could be. */
};
struct bop_watch_close_request { /* 152 */
    uint32_t watch;              /* The request id of its open. */
};
/* 153 is the status u8 alone: OK or NOT_FOUND. */

enum bop_watch_events_flags {
    BOP_WATCH_EVENTS_PROGRESS = 0x01, /* No events; request id 0: all watches of the connection were
                                         told all up to revision. */
    BOP_WATCH_EVENTS_SNAPSHOT = 0x02, /* How things stood at revision. */
    BOP_WATCH_EVENTS_RESYNC = 0x04,   /* Events were lost. The watch is over, but if it was opened
                                         with SNAPSHOT: then one follows. */
    BOP_WATCH_EVENTS_MORE = 0x08,     /* Of this revision, or of the snapshot, more follows. */
    BOP_WATCH_EVENTS_LIVE = 0x10,     /* Past and snapshot are told: what follows is new. */
    BOP_WATCH_EVENTS_DENIED = 0x20,   /* The watch is over: it is not allowed any more. */
};
struct bop_watch_events { /* 155 */
    uint64_t revision;
    uint8_t flags;
    struct bop_slice events; /* The rest: bop_event_next(). */
};

enum bop_watch_ack_flags {
    BOP_WATCH_ACK_MARK = 0x01, /* Asks for a progress mark. */
};
struct bop_watch_ack { /* 156, unanswered */
    uint64_t revision; /* All up to here was seen to. */
    uint8_t flags;
};

/* 174 has no payload. */
struct bop_view_open_response { /* 175 */
    uint8_t status;
    uint64_t view;
    uint64_t revision;
};
struct bop_view_read_request { /* 176; 177 is as 143. */
    uint64_t view;
    struct bop_slice operation; /* The rest. */
};
struct bop_view_close_request { /* 178; 179 is the status u8 alone. */
    uint64_t view;
};

/* 180: answer when all who watch this with ACKNOWLEDGE have acknowledged what it is now. */
struct bop_watch_settle_request {
    uint8_t what;          /* enum bop_watch_what. */
    struct bop_slice name; /* As in the open. */
    struct bop_slice key;
    uint32_t timeout_ms; /* 0: 5 s. At most a minute. */
};
struct bop_watch_settle_response { /* 181 */
    uint8_t status;
    bool complete; /* All have, on all nodes. */
};

/* As those of wire.h. Decoders check ranges, names and flags; bop_watch_events_decode() each
 * event too. */
BOP_API BOP_MUST_USE int bop_watch_open_request_decode(struct bop_slice payload,
                                                       struct bop_watch_open_request *out);
BOP_API void bop_watch_open_request_encode(struct bop_writer *writer,
                                           const struct bop_watch_open_request *in);
BOP_API BOP_MUST_USE int bop_watch_open_response_decode(struct bop_slice payload,
                                                        struct bop_watch_open_response *out);
BOP_API void bop_watch_open_response_encode(struct bop_writer *writer,
                                            const struct bop_watch_open_response *in);
BOP_API BOP_MUST_USE int bop_watch_close_request_decode(struct bop_slice payload,
                                                        struct bop_watch_close_request *out);
BOP_API void bop_watch_close_request_encode(struct bop_writer *writer,
                                            const struct bop_watch_close_request *in);
BOP_API BOP_MUST_USE int bop_watch_events_decode(struct bop_slice payload,
                                                 struct bop_watch_events *out);
BOP_API void bop_watch_events_encode(struct bop_writer *writer, const struct bop_watch_events *in);
BOP_API BOP_MUST_USE int bop_watch_ack_decode(struct bop_slice payload, struct bop_watch_ack *out);
BOP_API void bop_watch_ack_encode(struct bop_writer *writer, const struct bop_watch_ack *in);
BOP_API BOP_MUST_USE int bop_view_open_response_decode(struct bop_slice payload,
                                                       struct bop_view_open_response *out);
BOP_API void bop_view_open_response_encode(struct bop_writer *writer,
                                           const struct bop_view_open_response *in);
BOP_API BOP_MUST_USE int bop_view_read_request_decode(struct bop_slice payload,
                                                      struct bop_view_read_request *out);
BOP_API void bop_view_read_request_encode(struct bop_writer *writer,
                                          const struct bop_view_read_request *in);
BOP_API BOP_MUST_USE int bop_view_close_request_decode(struct bop_slice payload,
                                                       struct bop_view_close_request *out);
BOP_API void bop_view_close_request_encode(struct bop_writer *writer,
                                           const struct bop_view_close_request *in);
BOP_API BOP_MUST_USE int bop_watch_settle_request_decode(struct bop_slice payload,
                                                         struct bop_watch_settle_request *out);
BOP_API void bop_watch_settle_request_encode(struct bop_writer *writer,
                                             const struct bop_watch_settle_request *in);
BOP_API BOP_MUST_USE int bop_watch_settle_response_decode(struct bop_slice payload,
                                                          struct bop_watch_settle_response *out);
BOP_API void bop_watch_settle_response_encode(struct bop_writer *writer,
                                              const struct bop_watch_settle_response *in);

#endif
