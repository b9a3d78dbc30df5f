/*
 * Locks: the records of their tables, and what of them others need.
 *
 *      LOCKS           name -> id u32, capacity u32, permits taken u32, requests u32,
 *                      waiting u32, highest ticket granted u64, index that made it u64, stays B
 *      LOCK_REQUESTS   id u32, ticket u64 -> session u64, token u64, deadline u64,
 *                      permits u32, name b, label
 *      OWNED           session, kind, id, ticket -> empty; session, kind, 0, 0 -> how many
 *                      requests the session has u32
 *      DEADLINES       time, kind, id, ticket -> empty, of those that wait and not for ever
 */
#ifndef BOP_CLUSTER_MACHINE_LOCK_H
#define BOP_CLUSTER_MACHINE_LOCK_H

#include "machine_internal.h"

#define MACHINE_LOCK_REQUESTS_MAX 131072 /* Of one lock. */

#define MACHINE_LOCK_SIZE        37
#define MACHINE_LOCK_REQUEST_KEY 12

struct machine_lock {
    uint32_t id; /* By which its requests are found; 0 while there are none. */
    uint32_t capacity;
    uint32_t taken;    /* Permits. */
    uint32_t requests; /* All; */
    uint32_t waiting;  /* those of them that wait. */
    uint64_t granted;  /* Requests with tickets up to this one are granted, those above it wait. */
    uint64_t created;  /* Index of the entry that made it. */
    bool stays;        /* Without requests, too. */
};

struct machine_lock_request {
    uint64_t session;
    uint64_t token;       /* 0: it waits. */
    uint64_t deadline_ms; /* Of one that waits; 0: none. */
    uint32_t permits;
    struct bop_slice name; /* The lock's. */
    struct bop_slice label;
};

void bop__machine_lock_encode(uint8_t out_bytes[MACHINE_LOCK_SIZE],
                              const struct machine_lock *lock);
BOP_MUST_USE int bop__machine_lock_decode(struct bop_slice bytes, struct machine_lock *out_lock);

struct bop_slice bop__machine_lock_request_key(uint8_t out_key[MACHINE_LOCK_REQUEST_KEY],
                                               uint32_t id, uint64_t ticket);
/** Replace what is in buf by the bytes of a request. 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__machine_lock_request_encode(const struct machine_lock_request *request,
                                                  struct bop_buf *buf);
/** Slices are borrowed. */
BOP_MUST_USE int bop__machine_lock_request_decode(struct bop_slice bytes,
                                                  struct machine_lock_request *out_request);

/** 0, BOP_ENOTFOUND or another code. So the next one. */
BOP_MUST_USE int bop__machine_lock_find(struct bop_kv_txn *txn, const struct bop_kv_table *tables,
                                        struct bop_slice name, struct machine_lock *out_lock);
/** Slices are borrowed from the store. */
BOP_MUST_USE int bop__machine_lock_request_find(struct bop_kv_txn *txn,
                                                const struct bop_kv_table *tables, uint32_t id,
                                                uint64_t ticket,
                                                struct machine_lock_request *out_request);

/** A walk over the requests of a lock, in the order of tickets. Slices are borrowed until it moves,
 * or until the next change. */
struct machine_lock_walk {
    struct bop_kv_cursor *cursor;
    uint32_t id;
    uint64_t ticket;
    struct machine_lock_request request;
};
BOP_MUST_USE int bop__machine_lock_walk_begin(struct machine_lock_walk *walk,
                                              struct bop_kv_txn *txn,
                                              const struct bop_kv_table *tables, uint32_t id);
/** To the first ticket at this one or above. 0, BOP_ENOTFOUND or another code. So next. */
BOP_MUST_USE int bop__machine_lock_walk_seek(struct machine_lock_walk *walk, uint64_t ticket);
BOP_MUST_USE int bop__machine_lock_walk_next(struct machine_lock_walk *walk);
void bop__machine_lock_walk_end(struct machine_lock_walk *walk);

#endif
