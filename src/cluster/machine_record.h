/*
 * The records of the state machine's tables as bytes: a disk format, and the
 * format of snapshots, docs/design/state-machine.md. Numbers in values are
 * little-endian; numbers in keys big-endian, so that they sort.
 *
 * Decoders accept exactly what the encoders make and return BOP_ECORRUPT for
 * anything else: what is not whole must not be applied upon.
 */
#ifndef BOP_CLUSTER_MACHINE_RECORD_H
#define BOP_CLUSTER_MACHINE_RECORD_H

#include <bop/slice.h>
#include <bop/wire.h>

#include "machine.h"

/* Each has tables that the one before had not; an older state is one in which they are empty. */
#define MACHINE_FORMAT     3
#define MACHINE_FORMAT_MIN 1

/* A disk format: snapshots number the tables like this. Whoever loads them puts META in last, so
 * that a state gets its position after all else. */
enum machine_table {
    MACHINE_MAPS = 0,       /* name -> id, entries, created */
    MACHINE_ENTRIES = 1,    /* collection's id u32, key -> version, value */
    MACHINE_COUNTERS = 2,   /* name -> value, created */
    MACHINE_SESSIONS = 3,   /* id u64 -> timeout, token, opened, [grace] */
    MACHINE_REPLIES = 4,    /* session id u64, chunk u64 -> the replies of 64 sequences */
    MACHINE_META = 5,       /* format, position, conf, map_next */
    MACHINE_SETS = 6,       /* name -> id, entries, created */
    MACHINE_MULTIMAPS = 7,  /* name -> id, entries, created */
    MACHINE_GARBAGE = 8,    /* id u32 of what was cleared -> entries left over */
    MACHINE_RESULTS = 9,    /* session id u64, sequence u64 -> a result too large for REPLIES */
    MACHINE_OWNED = 10,     /* session id u64, kind u8, id u32, number u64 -> what ends with it */
    MACHINE_DEADLINES = 11, /* time u64, kind u8, id u32, number u64 -> what goes then */
    MACHINE_LOCKS = 12,     /* name -> id, capacity, permits taken, requests, created */
    MACHINE_LOCK_REQUESTS = 13, /* lock's id u32, ticket u64 -> session, token, permits, ... */
    MACHINE_GROUPS = 14,        /* name -> id, entries, created */
    MACHINE_MEMBERS = 15,       /* group's id u32, number u64 -> session, group, member, info */
    MACHINE_MEMBER_NAMES = 16,  /* group's id u32, member -> number */
    MACHINE_REGISTRIES = 17,    /* name -> id, entries, created */
};
#define MACHINE_TABLES 18

/** How many tables a format has. */
static inline unsigned machine_format_tables(uint32_t format)
{
    return format == 1 ? 6 : format == 2 ? 9 : MACHINE_TABLES;
}

/* Keys of META, in their order. */
#define MACHINE_META_CONF     "conf"
#define MACHINE_META_FORMAT   "format"
#define MACHINE_META_LEVEL    "level"
#define MACHINE_META_MAP_NEXT "map_next"
#define MACHINE_META_POSITION "position"

#define MACHINE_POSITION_SIZE 40
#define MACHINE_CONF_MAX      65536 /* Bytes of a CHANGE entry's payload. */

static inline void machine_store_be32(uint8_t *p, uint32_t value)
{
    bop_store_u32(p, __builtin_bswap32(value));
}

static inline void machine_store_be64(uint8_t *p, uint64_t value)
{
    bop_store_u64(p, __builtin_bswap64(value));
}

static inline uint64_t machine_load_be64(const uint8_t *p)
{
    return __builtin_bswap64(bop_load_u64(p));
}

/** One step of a 64-bit digest (splitmix64's finalizer, Steele and others 2014). */
static inline uint64_t machine_mix(uint64_t digest, uint64_t word)
{
    uint64_t x = (digest ^ word) + UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* ---- Position ---- */

void bop__machine_position_encode(uint8_t out_bytes[MACHINE_POSITION_SIZE],
                                  const struct machine_position *position);
BOP_MUST_USE int bop__machine_position_decode(struct bop_slice bytes,
                                              struct machine_position *out_position);

/* ---- Collections: maps, sets and multimaps ---- */

#define MACHINE_COLLECTION_SIZE 20

struct machine_collection_record {
    uint32_t id;
    uint64_t entries;
    uint64_t created; /* Index of the entry that made it. */
};
void bop__machine_collection_encode(uint8_t out_bytes[MACHINE_COLLECTION_SIZE],
                                    const struct machine_collection_record *record);
BOP_MUST_USE int bop__machine_collection_decode(struct bop_slice bytes,
                                                struct machine_collection_record *out_record);

/* ---- Entries ---- */

/*
 * A key of up to MACHINE_SHORT_KEY_MAX bytes is stored as it is. A longer one as
 * its first MACHINE_LONG_PREFIX bytes and the SHA-256 of the whole, which makes
 * a store key of exactly BOP_KV_KEY_MAX bytes and so never one of the first kind.
 */
#define MACHINE_MAP_ID_SIZE   4
#define MACHINE_DIGEST_SIZE   32
#define MACHINE_PAIR_HEAD_MAX 240 /* What stands in front of a value in a multimap's pair. */
#define MACHINE_ENTRY_KEY_MAX (BOP_KEY_MAX + MACHINE_PAIR_HEAD_MAX)
#define MACHINE_SHORT_KEY_MAX (BOP_KV_KEY_MAX - MACHINE_MAP_ID_SIZE - 1)
#define MACHINE_LONG_PREFIX   (BOP_KV_KEY_MAX - MACHINE_MAP_ID_SIZE - MACHINE_DIGEST_SIZE)

struct machine_key {
    size_t size;
    uint8_t bytes[BOP_KV_KEY_MAX];
};

/** The store key of a collection's key. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__machine_key_make(uint32_t id, struct bop_slice key,
                                       struct machine_key *out_key);

/* In front of an entry's value lies its version; with this bit set, its deadline follows. */
#define MACHINE_VERSION_DEADLINE (UINT64_C(1) << 63)

struct machine_entry {
    uint64_t version;
    uint64_t deadline_ms;
    struct bop_slice key; /* Whole. */
    struct bop_slice value;
};

/** Take a record apart; slices are borrowed from both. */
BOP_MUST_USE int bop__machine_entry_decode(struct bop_slice store_key, struct bop_slice bytes,
                                           struct machine_entry *out_entry);
/** Replace what is in buf by the bytes of an entry. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__machine_entry_encode(const struct machine_key *store_key,
                                           const struct machine_entry *entry, struct bop_buf *buf);

/* ---- Counters ---- */

#define MACHINE_COUNTER_SIZE 16

struct machine_counter {
    int64_t value;
    uint64_t created;
};
void bop__machine_counter_encode(uint8_t out_bytes[MACHINE_COUNTER_SIZE],
                                 const struct machine_counter *counter);
BOP_MUST_USE int bop__machine_counter_decode(struct bop_slice bytes,
                                             struct machine_counter *out_counter);

/* ---- Sessions ---- */

#define MACHINE_SESSION_SIZE     (4 + BOP_TOKEN_SIZE + 8)   /* Without grace; */
#define MACHINE_SESSION_SIZE_MAX (MACHINE_SESSION_SIZE + 4) /* with it. */

struct machine_session_record {
    uint32_t timeout_ms;
    uint32_t grace_ms; /* 0: none. */
    uint8_t token[BOP_TOKEN_SIZE];
    uint64_t opened_ms;
};
/** Returns the size. */
size_t bop__machine_session_encode(uint8_t out_bytes[MACHINE_SESSION_SIZE_MAX],
                                   const struct machine_session_record *record);
BOP_MUST_USE int bop__machine_session_decode(struct bop_slice bytes,
                                             struct machine_session_record *out_record);

/* ---- Replies ---- */

#define MACHINE_CHUNK_REPLIES 64
#define MACHINE_RESULT_MAX    24  /* Bytes of a write's result that lies in its chunk. */
#define MACHINE_RESULT_LARGE  255 /* The size of one that lies in a table of its own. */
#define MACHINE_CHUNK_KEY     16
/* acked, applied, then status, size and bytes of each reply. */
#define MACHINE_CHUNK_MAX (16 + MACHINE_CHUNK_REPLIES * (2 + MACHINE_RESULT_MAX))

struct machine_reply {
    uint8_t status;
    uint8_t size;
    uint8_t result[MACHINE_RESULT_MAX];
};

/** What a session's writes with sequences 64 n to 64 n + 63 came to. */
struct machine_chunk {
    uint64_t acked;   /* The session's when the last of them was applied. */
    uint64_t applied; /* Bit i: sequence 64 n + i is. */
    struct machine_reply replies[MACHINE_CHUNK_REPLIES];
};
/** Returns the size. */
size_t bop__machine_chunk_encode(uint8_t out_bytes[MACHINE_CHUNK_MAX],
                                 const struct machine_chunk *chunk);
BOP_MUST_USE int bop__machine_chunk_decode(struct bop_slice bytes, struct machine_chunk *out_chunk);
void bop__machine_chunk_key(uint8_t out_key[MACHINE_CHUNK_KEY], uint64_t session, uint64_t number);

/* ---- Garbage ---- */

#define MACHINE_GARBAGE_KEY  4
#define MACHINE_GARBAGE_SIZE 8

/** How many entries are left of a collection that was cleared: one or more. */
BOP_MUST_USE int bop__machine_garbage_decode(struct bop_slice bytes, uint64_t *out_left);

/* ---- Locks: machine_lock_record.c ---- */

BOP_MUST_USE int bop__machine_lock_check(struct bop_slice value);
BOP_MUST_USE int bop__machine_lock_request_check(struct bop_slice key, struct bop_slice value);

/* ---- All of them ---- */

/** Does a record make sense by itself? Returns 0, BOP_ECORRUPT, BOP_EVERSION or BOP_ENOMEM. */
BOP_MUST_USE int bop__machine_record_check(enum machine_table table, struct bop_slice key,
                                           struct bop_slice value);

#endif
