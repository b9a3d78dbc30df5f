/*
 * The wire protocol: frames, message kinds, operations and status codes. The
 * whole of it, with byte examples, is docs/design/wire-protocol.md.
 *
 * A frame is 16 bytes of header and a payload, all little-endian:
 *
 *      0         4        8         9       10      12          16
 *      +---------+--------+---------+-------+-------+-----------+---------
 *      | crc u32 | size   | version | flags | kind  | request   | payload
 *      |         | u32    | u8      | u8    | u16   | id u32    |
 *      +---------+--------+---------+-------+-------+-----------+---------
 *
 * size counts the whole frame; crc is CRC-32 (IEEE 802.3, as zlib's) of all that
 * follows it. Every field is checked against what has arrived and against a
 * limit before anything is allocated or believed.
 */
#ifndef BOP_WIRE_H
#define BOP_WIRE_H

#include <bop/base.h>
#include <bop/error.h>
#include <bop/slice.h>

#define BOP_WIRE_VERSION   1
#define BOP_WIRE_HEADER    16
#define BOP_WIRE_FRAME_MAX (16u * 1024 * 1024)

/* Bounds that hold for every request. */
#define BOP_NAME_MAX  255          /* Bytes of the name of a map, set, ...; 1 or more, UTF-8. */
#define BOP_KEY_MAX   (64u * 1024) /* Bytes of a key, a set's member, a multimap's value; or 0. */
#define BOP_VALUE_MAX (8u * 1024 * 1024) /* Bytes of a value. */
#define BOP_CURSOR_MAX                                                                             \
    (BOP_KEY_MAX + 1024)     /* Bytes of a scan's cursor, which is the server's to read. */
#define BOP_ADDRESS_MAX 279  /* Bytes of "host:port". */
#define BOP_HEALTH_MAX  1024 /* Bytes of a status response's sentence. */

enum bop_wire_flags {
    BOP_WIRE_REQUEST = 0x01,
    BOP_WIRE_RESPONSE = 0x02,
    BOP_WIRE_PING = 0x04,
    BOP_WIRE_PONG = 0x08,
};

/** BOP_WIRE_KIND_MAP_PUT_REQUEST = 9 and so on: see wire_kinds.def. */
enum bop_wire_kind {
#define BOP_WIRE_KIND(name, number, fields, flags) BOP_WIRE_KIND_##name = number,
#include <bop/wire_kinds.def>
#undef BOP_WIRE_KIND
};

struct bop_wire_frame {
    uint8_t flags;
    uint16_t kind;
    uint32_t request;
    struct bop_slice payload;
};

/**
 * Take one frame off the front of what has arrived. The payload is borrowed.
 * frame_max bounds its size, header included; 0 means BOP_WIRE_FRAME_MAX.
 *
 * Returns 0 and sets *out_frame and *out_used; BOP_EAGAIN if more bytes are
 * needed; BOP_EMALFORMED (size below a header, unknown kind, flags that do not fit the kind),
 * BOP_EVERSION, BOP_ETOOBIG or BOP_ECORRUPT (checksum) otherwise: the
 * connection must then be closed. version, size, kind and flags are judged in
 * this order as soon as the header is there, before the payload is waited for.
 * Which flags fit which kind is in wire_kinds.def. err may be NULL.
 */
BOP_API BOP_MUST_USE int bop_wire_parse(struct bop_slice bytes, size_t frame_max,
                                        struct bop_wire_frame *out_frame, size_t *out_used,
                                        struct bop_error *err);

/** Begin a frame at the end of buf: room for a header is made and *out_at remembers it. */
BOP_API BOP_MUST_USE int bop_wire_begin(struct bop_buf *buf, size_t *out_at);

/** Finish it: all bytes appended since are the payload. The frame must be below 4 GiB. */
BOP_API void bop_wire_end(struct bop_buf *buf, size_t at, enum bop_wire_kind kind, uint8_t flags,
                          uint32_t request);

/** Take back what was begun at `at`, for an encoder that failed. */
static inline void bop_wire_cancel(struct bop_buf *buf, size_t at)
{
    buf->size = at;
}

/** "MAP_PUT_REQUEST", or NULL for a kind that is not known. */
BOP_API const char *bop_wire_kind_name(uint16_t kind);

/**
 * Check the payload of one of the prototype's kinds against its fields: lengths,
 * UTF-8, bools, response codes, no trailing bytes. Kinds with a decoder of their
 * own pass. Returns 0 or BOP_EMALFORMED.
 */
BOP_API BOP_MUST_USE int bop_wire_check(uint16_t kind, struct bop_slice payload);

/* ---- Operations: what WRITE and READ requests and log entries carry ---- */

enum bop_op {
    /* Writes. */
    BOP_OP_MAP_PUT = 1,    /* map s, key b, value b, condition -> existed B, version q */
    BOP_OP_MAP_DELETE = 2, /* map s, key b, condition -> existed B */
    BOP_OP_MAP_CREATE = 3, /* map s -> created B */
    BOP_OP_MAP_CLEAR = 4,  /* map s -> entries removed q */
    BOP_OP_COUNTER_ADD =
        16, /* counter s, delta i -> new value i; BOP_STATUS_OVERFLOW changes nothing */
    BOP_OP_COUNTER_CREATE = 17,  /* counter s -> created B */
    BOP_OP_COUNTER_CAS = 18,     /* counter s, expected i, value i -> value i; BOP_STATUS_CONDITION
                                  * with the value i that there is; none counts as 0 */
    BOP_OP_COUNTER_SET = 19,     /* counter s, value i -> existed B */
    BOP_OP_COUNTER_DELETE = 20,  /* counter s -> existed B */
    BOP_OP_SET_ADD = 24,         /* set s, member b -> added B */
    BOP_OP_SET_REMOVE = 25,      /* set s, member b -> removed B */
    BOP_OP_SET_CREATE = 26,      /* set s -> created B */
    BOP_OP_SET_CLEAR = 27,       /* set s -> members removed q */
    BOP_OP_MULTIMAP_PUT = 32,    /* multimap s, key b, value b -> added B */
    BOP_OP_MULTIMAP_REMOVE = 33, /* multimap s, key b -> pairs removed q */
    BOP_OP_MULTIMAP_REMOVE_VALUE = 34, /* multimap s, key b, value b -> removed B */
    BOP_OP_MULTIMAP_CREATE = 35,       /* multimap s -> created B */
    BOP_OP_MULTIMAP_CLEAR = 36,        /* multimap s -> pairs removed q */
    /* Reads. */
    BOP_OP_MAP_GET = 64,  /* map s, key b -> version q, value b; BOP_STATUS_NOT_FOUND */
    BOP_OP_MAP_SIZE = 65, /* map s -> size q; 0 for a map that does not exist */
    BOP_OP_MAP_SCAN = 66, /* map s, cursor b, limit u32 -> revision q, cursor b (empty: at the end),
                             count u32, then count times key b, version q, value b */
    BOP_OP_MAP_RANGE =
        67, /* map s, prefix b, from b, to b, cursor b, limit u32 -> as MAP_SCAN: keys
               that begin with prefix, from `from` on, below `to` (empty: to the end) */
    BOP_OP_COUNTER_GET = 80,  /* counter s -> value i; BOP_STATUS_NOT_FOUND */
    BOP_OP_SET_CONTAINS = 88, /* set s, member b -> contained B */
    BOP_OP_SET_SIZE = 89,     /* set s -> size q; 0 for a set that does not exist */
    BOP_OP_SET_SCAN = 90, /* set s, cursor b, limit u32 -> as MAP_SCAN: members as keys, the values
                             empty */
    BOP_OP_MULTIMAP_GET = 96,  /* multimap s, key b, cursor b, limit u32 -> as MAP_SCAN: the key's
                                  values, the keys empty */
    BOP_OP_MULTIMAP_SIZE = 97, /* multimap s -> pairs q */
    BOP_OP_MULTIMAP_KEY_SIZE = 98,        /* multimap s, key b -> values of the key q */
    BOP_OP_MULTIMAP_CONTAINS_KEY = 99,    /* multimap s, key b -> contained B */
    BOP_OP_MULTIMAP_CONTAINS_VALUE = 100, /* multimap s, value b -> contained B */
    BOP_OP_MULTIMAP_CONTAINS_ENTRY = 101, /* multimap s, key b, value b -> contained B */
    /* multimap s, cursor b, limit u32 -> as MAP_SCAN: */
    BOP_OP_MULTIMAP_KEYS = 102,    /* each key once, version 0, the values empty; */
    BOP_OP_MULTIMAP_VALUES = 103,  /* the value of each pair, the keys empty; */
    BOP_OP_MULTIMAP_ENTRIES = 104, /* the pairs. */
};

/** The condition of a put or delete: u8, then for VERSION a u64, for VALUE bytes. */
enum bop_condition {
    BOP_IF_ALWAYS = 0,
    BOP_IF_ABSENT = 1,  /* There is no such key. */
    BOP_IF_PRESENT = 2, /* There is one. */
    BOP_IF_VERSION = 3, /* There is one, with this version. */
    BOP_IF_VALUE = 4,   /* There is one, with these bytes. */
};

/** u8 in responses of our own kinds. */
enum bop_status {
    BOP_STATUS_OK = 0,
    BOP_STATUS_NOT_FOUND = 1,
    BOP_STATUS_CONDITION = 2, /* Not met; nothing was changed. Result: version q of what is there, 0
                                 if nothing; of COUNTER_CAS the value i. */
    BOP_STATUS_RETRY = 3,     /* Not decided here: send the same request again, anywhere. */
    BOP_STATUS_NO_SESSION = 4, /* Expired, closed or never opened. */
    BOP_STATUS_BAD_REQUEST = 5,
    BOP_STATUS_TOO_BIG = 6,
    BOP_STATUS_BUSY = 7,    /* A bound is met: slow down, then send it again. */
    BOP_STATUS_NO_ROOM = 8, /* The disk is full. */
    BOP_STATUS_STALE = 9,   /* The client said itself that it has this reply. */
    BOP_STATUS_OVERFLOW = 10,
    BOP_STATUS_UNCERTAIN = 11, /* A write without a session whose outcome is not known. */
    BOP_STATUS_REFUSED = 12,   /* Wrong cluster or wrong token. */
    BOP_STATUS_DENIED = 13,    /* Not allowed. Result of 141 and 143: string, what is missing. */
};

/** "ok", "not found", ... Never NULL. */
BOP_API const char *bop_status_text(uint8_t status);

/** The error code that says the same: 0, BOP_ENOTFOUND, BOP_ECONDITION, ... BOP_EPROTOCOL for a
 * strange one. */
BOP_API int bop_status_code(uint8_t status);

/** A decoded operation; slices are borrowed from what was decoded. */
struct bop_operation {
    enum bop_op op;
    struct bop_slice name;
    struct bop_slice key; /* Of sets: the member. */
    struct bop_slice value;
    enum bop_condition condition;
    uint64_t version;
    struct bop_slice expected;
    int64_t delta;
    int64_t number;          /* COUNTER_SET and COUNTER_CAS: the new value. */
    int64_t expected_number; /* COUNTER_CAS */
    struct bop_slice prefix; /* MAP_RANGE, as the next two. */
    struct bop_slice from;
    struct bop_slice to;
    struct bop_slice cursor;
    uint32_t limit;
};

/** Returns 0, or BOP_EMALFORMED or BOP_ETOOBIG; checks names, sizes and every field. */
BOP_API BOP_MUST_USE int bop_operation_decode(struct bop_slice bytes,
                                              struct bop_operation *out_operation);
/** Append its bytes. */
BOP_API void bop_operation_encode(struct bop_writer *writer, const struct bop_operation *operation);

static inline bool bop_op_is_write(enum bop_op op)
{
    return op < BOP_OP_MAP_GET;
}

/**
 * A decoded result. Which fields count follows from the operation and the
 * status; the others are zero. Slices are borrowed from what was decoded.
 */
struct bop_result {
    uint8_t status;
    bool existed;     /* Put, delete and remove: there was such a thing. Contains: there is. Creates
                       * and adds: it was made, or added, just now. */
    uint64_t version; /* Put: the new one. Get: the value's. Condition not met: what is there. */
    int64_t number;   /* Counters. */
    uint64_t size;    /* Sizes; and of clears and a key's remove: how many there were. */
    uint64_t revision;        /* Scan: the state it was read at. */
    struct bop_slice value;   /* Get. */
    struct bop_slice cursor;  /* Scan: where to go on; empty at the end. */
    uint32_t count;           /* Scan: entries in this page. */
    struct bop_slice entries; /* Scan: walked by bop_scan_next(). */
};

/**
 * Decode the result of op. With a status other than OK and CONDITION the bytes are not
 * looked at. Returns 0 or BOP_EMALFORMED; the entries of a scan are checked too.
 */
BOP_API BOP_MUST_USE int bop_result_decode(enum bop_op op, uint8_t status, struct bop_slice bytes,
                                           struct bop_result *out_result);
/** Append its bytes, the status not among them. */
BOP_API void bop_result_encode(struct bop_writer *writer, enum bop_op op,
                               const struct bop_result *result);

/** One entry of a scan, its slices borrowed. */
struct bop_scan_entry {
    struct bop_slice key;
    uint64_t version;
    struct bop_slice value;
};

/** Take the first entry off `entries`. Returns false when none is left. */
BOP_API bool bop_scan_next(struct bop_slice *entries, struct bop_scan_entry *out_entry);
/** Append an entry's bytes. */
BOP_API void bop_scan_entry_encode(struct bop_writer *writer, const struct bop_scan_entry *entry);

/* ---- Our own client messages (field order is the order on the wire) ---- */

#define BOP_TOKEN_SIZE 16

struct bop_hello_request {    /* 128 */
    uint16_t protocol;        /* BOP_WIRE_VERSION. */
    struct bop_slice cluster; /* s: the cluster's name; empty: any. */
    struct bop_slice client;  /* s: a name for people. */
};

struct bop_hello_response { /* 129 */
    uint8_t status;         /* OK or REFUSED. */
    uint16_t protocol;
    uint64_t node;
    struct bop_slice cluster;        /* s */
    uint64_t leader;                 /* 0: none known. */
    struct bop_slice leader_address; /* s; empty: none known. */
    struct bop_slice version;        /* s: the server's. */
};

struct bop_session_open_request { /* 130 */
    uint32_t timeout_ms;
    uint8_t token[BOP_TOKEN_SIZE]; /* The client's secret, which resuming must show. */
};
struct bop_session_open_response { /* 131 */
    uint8_t status;
    uint64_t session;
    uint32_t timeout_ms; /* As granted. */
};

/* 146 is the token alone: what a client shows to be allowed what it asks for. */
#define BOP_AUTH_TOKEN_MAX 512

/* 132, 134. 136 is the session q alone; 133, 135, 137 and 147 are the status u8 alone. */
struct bop_session_request {
    uint64_t session;
    uint8_t token[BOP_TOKEN_SIZE];
};

struct bop_write_request {      /* 140 */
    uint64_t session;           /* 0: none; then a lost reply leaves the outcome unknown. */
    uint64_t sequence;          /* Numbered from 1 in each session. */
    uint64_t acked;             /* All replies up to here have arrived and may be forgotten. */
    struct bop_slice operation; /* The rest of the payload. */
};
struct bop_reply { /* 141 and 143 */
    uint8_t status;
    struct bop_slice result; /* The rest; see bop_result_decode(). */
};

enum bop_consistency {
    BOP_READ_LINEARIZABLE = 0,
    BOP_READ_STALE = 1, /* What this node has. */
};

struct bop_read_request {       /* 142 */
    uint8_t consistency;        /* enum bop_consistency. */
    struct bop_slice operation; /* The rest. */
};

#define BOP_STATUS_PEERS_MAX 15
struct bop_status_peer {
    uint64_t id;
    struct bop_slice address; /* s */
    uint8_t role;             /* enum bop_raft_role. */
    bool connected;
    uint64_t match;     /* Leader only: durable there. */
    uint64_t silent_ms; /* Since something came from it; UINT64_MAX: never. */
};
/** What one part of the server holds: a row of bop_mem_stats(). */
#define BOP_STATUS_TAGS_MAX 64
struct bop_status_tag {
    struct bop_slice name; /* s */
    uint64_t live_bytes;
    uint64_t peak_bytes;
    uint64_t live_allocations;
    uint64_t allocations;
    uint64_t limit_bytes; /* 0: none. */
};
struct bop_status_response { /* 145; 144 has no payload */
    uint64_t node;
    struct bop_slice cluster; /* s */
    struct bop_slice version; /* s */
    uint8_t state;            /* enum bop_raft_state. */
    uint64_t term;
    uint64_t leader;
    uint64_t commit;
    uint64_t applied;
    uint64_t first_index;
    uint64_t last_index;
    uint64_t durable_index;
    uint64_t snapshot_index;
    uint64_t sessions;
    uint64_t clients;
    uint64_t uptime_ms;
    uint64_t applied_digest; /* Of all entries applied; equal on nodes with equal applied. */
    struct bop_slice health; /* s: "ok" or a sentence. */
    uint8_t peer_count;
    struct bop_status_peer peers[BOP_STATUS_PEERS_MAX]; /* Self included. */
    uint64_t resident_bytes;                            /* Of the process. */
    uint64_t committed_bytes; /* That its heap holds; 0: it cannot tell. */
    uint8_t tag_count;
    struct bop_status_tag tags[BOP_STATUS_TAGS_MAX];
    struct bop_slice log_method; /* s: how the log's writes are done: "io_uring", "threads", ... */
    uint64_t log_writes;         /* On their way to the disk just now. */
    uint64_t log_writes_max;     /* How many there may be. */
};

/* Each decoder wants the whole payload and leaves no byte unread; BOP_EMALFORMED otherwise. */
BOP_API BOP_MUST_USE int bop_hello_request_decode(struct bop_slice payload,
                                                  struct bop_hello_request *out);
BOP_API void bop_hello_request_encode(struct bop_writer *writer,
                                      const struct bop_hello_request *in);
BOP_API BOP_MUST_USE int bop_hello_response_decode(struct bop_slice payload,
                                                   struct bop_hello_response *out);
BOP_API void bop_hello_response_encode(struct bop_writer *writer,
                                       const struct bop_hello_response *in);
BOP_API BOP_MUST_USE int bop_session_open_request_decode(struct bop_slice payload,
                                                         struct bop_session_open_request *out);
BOP_API void bop_session_open_request_encode(struct bop_writer *writer,
                                             const struct bop_session_open_request *in);
BOP_API BOP_MUST_USE int bop_session_open_response_decode(struct bop_slice payload,
                                                          struct bop_session_open_response *out);
BOP_API void bop_session_open_response_encode(struct bop_writer *writer,
                                              const struct bop_session_open_response *in);
BOP_API BOP_MUST_USE int bop_session_request_decode(struct bop_slice payload,
                                                    struct bop_session_request *out);
BOP_API void bop_session_request_encode(struct bop_writer *writer,
                                        const struct bop_session_request *in);
BOP_API BOP_MUST_USE int bop_session_alive_request_decode(struct bop_slice payload,
                                                          uint64_t *out_session);
BOP_API void bop_session_alive_request_encode(struct bop_writer *writer, uint64_t session);
/** The one byte of 133, 135, 137 and 147. */
BOP_API BOP_MUST_USE int bop_session_status_decode(struct bop_slice payload, uint8_t *out_status);
BOP_API BOP_MUST_USE int bop_write_request_decode(struct bop_slice payload,
                                                  struct bop_write_request *out);
BOP_API void bop_write_request_encode(struct bop_writer *writer,
                                      const struct bop_write_request *in);
BOP_API BOP_MUST_USE int bop_read_request_decode(struct bop_slice payload,
                                                 struct bop_read_request *out);
BOP_API void bop_read_request_encode(struct bop_writer *writer, const struct bop_read_request *in);
BOP_API BOP_MUST_USE int bop_reply_decode(struct bop_slice payload, struct bop_reply *out);
BOP_API void bop_reply_encode(struct bop_writer *writer, const struct bop_reply *in);
BOP_API BOP_MUST_USE int bop_status_response_decode(struct bop_slice payload,
                                                    struct bop_status_response *out);
BOP_API void bop_status_response_encode(struct bop_writer *writer,
                                        const struct bop_status_response *in);

#endif
