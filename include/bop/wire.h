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
    BOP_OP_MAP_PUT = 1,      /* map s, key b, value b, condition -> existed B, version q */
    BOP_OP_MAP_DELETE = 2,   /* map s, key b, condition -> existed B */
    BOP_OP_MAP_CREATE = 3,   /* map s -> created B */
    BOP_OP_MAP_CLEAR = 4,    /* map s -> entries removed q */
    BOP_OP_MAP_PUT_TTL = 5,  /* map s, key b, value b, condition, ttl_ms q (0: for good) -> as
                                MAP_PUT; the entry goes when the cluster's time has moved on by that
                                much, unless it is put again */
    BOP_OP_MAP_EXCHANGE = 6, /* as MAP_PUT_TTL -> version q, existed B, what was there b; with
                                BOP_STATUS_CONDITION too: then of what is there */
    BOP_OP_MAP_TAKE = 7,     /* map s, key b, condition -> as MAP_EXCHANGE, version q of what was
                                there: it is deleted */
    BOP_OP_MAP_PUT_ALL = 8,  /* map s, ttl_ms q, count u32, count times key b, value b -> how many
                                were not there before q */
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
    /* Locks, semaphores, read/write locks: `capacity` permits, of which a request takes some. All
     * of them belong to the session of the write. Fair: requests are served in the order of the
     * log. */
    BOP_OP_LOCK_ACQUIRE = 40, /* lock s, capacity u32, permits u32, timeout_ms q, label b -> ticket
                                 q (of the request), token q (of the grant; 0: it waits), position q
                                 (1: next; 0: granted). timeout 0: do not wait; then ticket 0 says
                                 that it is not free. 2^64 - 1: for ever. BOP_STATUS_CONDITION:
                                 the lock has another capacity, told as version q */
    BOP_OP_LOCK_RELEASE = 41, /* lock s, ticket q -> released B: was held, or waited for, and is not
                                 any more. Of another session's ticket: not found */
    BOP_OP_LOCK_CREATE = 42,  /* lock s, capacity u32 -> created B; it stays without requests */
    BOP_OP_LOCK_DELETE = 43,  /* lock s -> existed B; BOP_STATUS_CONDITION while there are requests,
                                 with their number as version q */
    BOP_OP_LOCK_ADOPT = 44,   /* lock s, label b -> ticket q, token q: a grant with this label, of
                                 whatever session, is this session's from now on; 0, 0: none */
    /* Members of a group: sessions that say who they are. They end with their session. */
    BOP_OP_MEMBER_JOIN = 48,  /* group s, member b, info b -> number q, by which members are in
                                 order;  BOP_STATUS_CONDITION with that of another session's member
                                 of  this  name */
    BOP_OP_MEMBER_SET = 49,   /* group s, member b, info b -> existed B: false if it is not the
                                 session's */
    BOP_OP_MEMBER_LEAVE = 50, /* group s, member b -> existed B, likewise */
    /* Registrations: who listens at an address. They end with their session. */
    BOP_OP_REGISTRATION_ADD = 52,     /* registry s, address b, sequence q -> added B */
    BOP_OP_REGISTRATION_REMOVE = 53,  /* registry s, address b, sequence q -> removed B */
    BOP_OP_REGISTRATION_ADD_ALL = 54, /* registry s, count u32, count times address b, sequence q ->
                                         how many were added q */
    /* Several operations in one entry of the log: all or nothing. */
    BOP_OP_TRANSACTION = 60, /* empty s, count u32, compares; count u32, operations b if all hold;
                                count u32, operations b else -> all held B, count u32, then for each
                                operation status u8, result b. If one fails (a condition,
                                an overflow, a bound ...) nothing is done and the answer is its
                                status; of BOP_STATUS_CONDITION with the number of that operation,
                                from 0, as version q */
    /* Reads. */
    BOP_OP_MAP_GET = 64,  /* map s, key b -> version q, value b; BOP_STATUS_NOT_FOUND */
    BOP_OP_MAP_SIZE = 65, /* map s -> size q; 0 for a map that does not exist */
    BOP_OP_MAP_SCAN = 66, /* map s, cursor b, limit u32 -> revision q, cursor b (empty: at the end),
                             count u32, then count times key b, version q, value b */
    BOP_OP_MAP_RANGE =
        67, /* map s, prefix b, from b, to b, cursor b, limit u32 -> as MAP_SCAN: keys
               that begin with prefix, from `from` on, below `to` (empty: to the end) */
    BOP_OP_MAP_GET_TTL = 68,  /* map s, key b -> version q, ttl_ms q left (0: for good), value b */
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
    /* lock s, cursor b, limit u32 -> capacity u32, permits taken u32, then as MAP_SCAN, a request
     * an entry, in the order of tickets: the label as key, the ticket as version, as value session
     * q, token q (0: it waits), permits u32. BOP_STATUS_NOT_FOUND */
    BOP_OP_LOCK_GET = 112,
    BOP_OP_LOCK_OWNED = 113,  /* empty s, session q, cursor b, limit u32 -> as MAP_SCAN: the
                                 session's  requests: the lock's name as key, the ticket as version,
                                 as value  token q, permits u32, label b */
    BOP_OP_MEMBER_LIST = 116, /* group s, cursor b, limit u32 -> as MAP_SCAN, in the order of
                                 joining: the member as key, its number as version, session q and
                                 info b as value */
    BOP_OP_MEMBER_GET = 117,  /* group s, member b -> number q, session q and info b as value b;
                                 BOP_STATUS_NOT_FOUND */
    BOP_OP_REGISTRATION_GET = 120, /* registry s, address b, cursor b, limit u32 -> as MAP_SCAN: the
                                      keys empty, session q and sequence q as value */
    BOP_OP_REGISTRATION_LIST = 121, /* registry s, cursor b, limit u32 -> likewise, all, the address
                                       as key */
    BOP_OP_NAMES = 124, /* empty s, kind u8 (enum bop_name_kind), prefix b, cursor b, limit u32 ->
                           as MAP_SCAN: names as keys, the index that made it as version, entries q
                           (of a counter: its value i) as value */
};

/** What a name may be of; names of one kind know nothing of those of another. */
enum bop_name_kind {
    BOP_NAME_MAP = 1,
    BOP_NAME_SET = 2,
    BOP_NAME_MULTIMAP = 3,
    BOP_NAME_COUNTER = 4,
    BOP_NAME_LOCK = 5,
    BOP_NAME_GROUP = 6,
    BOP_NAME_REGISTRY = 7,
};

#define BOP_LABEL_MAX              1024 /* Bytes of a lock request's label. */
#define BOP_LOCK_TIMEOUT_NEVER     UINT64_MAX
#define BOP_TTL_MAX_MS             (UINT64_C(1) << 53) /* Of entries and of requests that wait. */
#define BOP_TRANSACTION_MAX        512                /* Compares, and operations of either kind. */
#define BOP_TRANSACTION_RESULT_MAX (8u * 1024 * 1024) /* Bytes of the results together. */

/** A compare of a transaction: kind u8, relation u8, name s, key b, value b, number i. */
enum bop_compare_kind {
    BOP_COMPARE_VERSION = 1,  /* Of a map's entry with number; 0 if there is none. */
    BOP_COMPARE_VALUE = 2,    /* Of a map's entry with value, byte by byte. Without an entry only
                                 NOT_EQUAL holds. */
    BOP_COMPARE_COUNTER = 3,  /* Its value with number; 0 if there is none. */
    BOP_COMPARE_SET = 4,      /* Members `key` of a set, 0 or 1, with number. */
    BOP_COMPARE_MULTIMAP = 5, /* Pairs of key and value of a multimap, 0 or 1, with number. */
    BOP_COMPARE_LOCK = 6,     /* Grants of a lock with the token `number`: 0 or 1, with 1. */
    BOP_COMPARE_MEMBER = 7,   /* Members `key` of a group, 0 or 1, with number. */
};
enum bop_relation {
    BOP_EQUAL = 1,
    BOP_NOT_EQUAL = 2,
    BOP_LESS = 3, /* What is there is less. */
    BOP_GREATER = 4,
};
struct bop_compare {
    enum bop_compare_kind kind;
    enum bop_relation relation;
    struct bop_slice name;
    struct bop_slice key;
    struct bop_slice value;
    int64_t number;
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
    BOP_STATUS_TOO_OLD = 14, /* The cluster does not speak of this yet: a node of it is of an older
                                version. */
    BOP_STATUS_COMPACTED = 15, /* A watch from a revision whose events are not kept any more. */
    BOP_STATUS_NO_VIEW = 16,   /* It is over, or of another connection: open another. */
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
    uint64_t ttl_ms;         /* Maps; and of LOCK_ACQUIRE the timeout. */
    uint64_t session;        /* LOCK_OWNED */
    uint64_t sequence;       /* Registrations: its number. Locks: the ticket. */
    uint32_t capacity;       /* LOCK_ACQUIRE and LOCK_CREATE */
    uint32_t permits;        /* LOCK_ACQUIRE */
    struct bop_slice label;  /* LOCK_ACQUIRE and LOCK_ADOPT */
    enum bop_name_kind kind; /* NAMES */
    uint32_t count;          /* Of what is in items: PUT_ALL and ADD_ALL. */
    struct bop_slice items;  /* Walked by bop_item_next(). */
    uint32_t compare_count;  /* TRANSACTION, as the next five. */
    uint32_t then_count;
    uint32_t else_count;
    struct bop_slice compares;   /* Walked by bop_compare_next(). */
    struct bop_slice then_items; /* Walked by bop_transaction_next(). */
    struct bop_slice else_items;
};

/** One pair of MAP_PUT_ALL, or one registration of REGISTRATION_ADD_ALL: address and sequence. */
struct bop_item {
    struct bop_slice key;
    struct bop_slice value;
    uint64_t sequence;
};
/** Take the first one off `items` of an operation of this kind. False when none is left. */
BOP_API bool bop_item_next(enum bop_op op, struct bop_slice *items, struct bop_item *out_item);
BOP_API void bop_item_encode(struct bop_writer *writer, enum bop_op op,
                             const struct bop_item *item);
/** Take the first compare off `compares`. False when none is left. */
BOP_API bool bop_compare_next(struct bop_slice *compares, struct bop_compare *out_compare);
BOP_API void bop_compare_encode(struct bop_writer *writer, const struct bop_compare *compare);
/** Take the first operation's bytes off. They were decoded once: none is a TRANSACTION, all make
 * sense. False when none is left. */
BOP_API bool bop_transaction_next(struct bop_slice *operations, struct bop_slice *out_operation);

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
    uint64_t ttl_ms;  /* GET_TTL: what is left; 0: for good. */
    uint64_t ticket;  /* Locks, as the next four. */
    uint64_t token;   /* 0: not granted. */
    uint64_t position; /* Among those who wait, from 1; 0: granted. */
    uint32_t capacity;
    uint32_t permits;         /* Taken. */
    uint64_t revision;        /* Scan: the state it was read at. */
    struct bop_slice value;   /* Get. */
    struct bop_slice cursor;  /* Scan: where to go on; empty at the end. */
    uint32_t count;           /* Scan: entries in this page. */
    struct bop_slice entries; /* Scan: walked by bop_scan_next(). Of a transaction: by
                               * bop_transaction_result_next(). */
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

/** Take the status and the result bytes of an operation of a transaction off `entries`. False when
 * none is left. */
BOP_API bool bop_transaction_result_next(struct bop_slice *entries, uint8_t *out_status,
                                         struct bop_slice *out_result);

/* ---- Events: what an entry of the log changed, for those who watch ---- */

enum bop_event_type {
    BOP_EVENT_MAP_PUT = 1,    /* name, key, value, previous if had */
    BOP_EVENT_MAP_DELETE = 2, /* name, key, previous; EXPIRED */
    BOP_EVENT_MAP_CREATE = 3,
    BOP_EVENT_MAP_CLEAR = 4, /* number: entries there were. So with all CLEARs. */
    BOP_EVENT_SET_ADD = 8,   /* name, key */
    BOP_EVENT_SET_REMOVE = 9,
    BOP_EVENT_SET_CREATE = 10,
    BOP_EVENT_SET_CLEAR = 11,
    BOP_EVENT_MULTIMAP_PUT = 16, /* name, key, value */
    BOP_EVENT_MULTIMAP_REMOVE_VALUE = 17,
    BOP_EVENT_MULTIMAP_REMOVE = 18, /* name, key: of all values, number of them. */
    BOP_EVENT_MULTIMAP_CREATE = 19,
    BOP_EVENT_MULTIMAP_CLEAR = 20,
    BOP_EVENT_COUNTER_SET = 24, /* name, number: the value now. */
    BOP_EVENT_COUNTER_CREATE = 25,
    BOP_EVENT_COUNTER_DELETE = 26,
    BOP_EVENT_LOCK_WAIT = 32,    /* name, value: the label, session, number: the ticket */
    BOP_EVENT_LOCK_GRANT = 33,   /* likewise, token */
    BOP_EVENT_LOCK_RELEASE = 34, /* likewise, of one that was granted */
    BOP_EVENT_LOCK_CANCEL = 35,  /* name, session, number: it does not wait any more; EXPIRED: its
                                    time is up */
    BOP_EVENT_LOCK_CREATE = 36,
    BOP_EVENT_LOCK_DELETE = 37,
    BOP_EVENT_MEMBER_JOIN = 40, /* name, key: the member, value: info, session, number: its own */
    BOP_EVENT_MEMBER_SET = 41,
    BOP_EVENT_MEMBER_LEAVE = 42,     /* EXPIRED: its session ended. */
    BOP_EVENT_REGISTRATION_ADD = 48, /* name, key: address, session, number: the sequence */
    BOP_EVENT_REGISTRATION_REMOVE = 49,
    BOP_EVENT_SESSION_OPEN = 56, /* session */
    BOP_EVENT_SESSION_END = 57,  /* session; EXPIRED */
};
enum bop_event_flags {
    BOP_EVENT_HAD_PREVIOUS = 0x01,
    BOP_EVENT_EXPIRED = 0x02,     /* It went by the clock, and nobody asked for it. */
    BOP_EVENT_SNAPSHOT = 0x04,    /* Not a change: how things stand where a watch begins. */
    BOP_EVENT_NO_PREVIOUS = 0x08, /* Beside HAD_PREVIOUS: it was not asked for, or is too long. */
};
/** type u8, flags u8, name s, key b, value b, previous b, session q, number i, token q. Those that
 * a type has not are empty and 0. */
struct bop_event {
    enum bop_event_type type;
    uint8_t flags;
    struct bop_slice name;
    struct bop_slice key;
    struct bop_slice value;
    struct bop_slice previous;
    uint64_t session;
    int64_t number;
    uint64_t token;
};
BOP_API void bop_event_encode(struct bop_writer *writer, const struct bop_event *event);
/** Take the first one off `events`, its slices borrowed. 1; 0 at the end; or BOP_EMALFORMED. */
BOP_API BOP_MUST_USE int bop_event_next(struct bop_slice *events, struct bop_event *out_event);

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

/* 138 and 139 open a session with grace: when the connection it was last opened or resumed on
 * breaks, it ends after so much more silence, and not only after its timeout. */
struct bop_session_start_request { /* 138 */
    uint32_t timeout_ms;
    uint32_t grace_ms; /* 0: none. */
    uint8_t token[BOP_TOKEN_SIZE];
};
struct bop_session_start_response { /* 139 */
    uint8_t status;
    uint64_t session;
    uint32_t timeout_ms; /* As granted. */
    uint32_t grace_ms;
};

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
BOP_API BOP_MUST_USE int bop_session_start_request_decode(struct bop_slice payload,
                                                          struct bop_session_start_request *out);
BOP_API void bop_session_start_request_encode(struct bop_writer *writer,
                                              const struct bop_session_start_request *in);
BOP_API BOP_MUST_USE int bop_session_start_response_decode(struct bop_slice payload,
                                                           struct bop_session_start_response *out);
BOP_API void bop_session_start_response_encode(struct bop_writer *writer,
                                               const struct bop_session_start_response *in);
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
