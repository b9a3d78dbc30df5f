/*
 * Deadlines, by time. Time is the cluster's: what the leader writes into entries. It
 * knows when the next one is due and then proposes a TIMERS entry, with which every
 * replica lets go of the same things.
 *
 *      time u64 | kind u8 | id u32 | number u64      all big-endian, then, of an
 *      entry, its key, or if that is long, its beginning and the SHA-256 of all of it
 */
#include <openssl/evp.h>

#include "machine_internal.h"

struct deadline_key {
    size_t size;
    uint8_t bytes[MACHINE_DEADLINE_KEY_MAX];
};

/* 0 or BOP_ENOMEM. */
static int make_key(struct deadline_key *out_key, const struct machine_deadline *deadline)
{
    const struct bop_slice *entry = &deadline->key;
    uint8_t *at = out_key->bytes + MACHINE_DEADLINE_KEY_MIN;
    size_t head = MACHINE_DEADLINE_KEY_LONG - MACHINE_DIGEST_SIZE;

    machine_store_be64(out_key->bytes, deadline->time_ms);
    out_key->bytes[8] = (uint8_t)deadline->kind;
    machine_store_be32(out_key->bytes + 9, deadline->id);
    machine_store_be64(out_key->bytes + 13, deadline->number);
    if (entry->size <= MACHINE_DEADLINE_KEY_SHORT) {
        if (entry->size > 0) {
            memcpy(at, entry->data, entry->size);
        }
        out_key->size = MACHINE_DEADLINE_KEY_MIN + entry->size;
        return 0;
    }
    memcpy(at, entry->data, head);
    out_key->size = MACHINE_DEADLINE_KEY_MAX;
    /* The library fails for want of memory only. */
    return EVP_Digest(entry->data, entry->size, at + head, NULL, EVP_sha256(), NULL) == 1
               ? 0
               : BOP_ENOMEM;
}

int bop__machine_deadline_put(struct machine *machine, const struct machine_deadline *deadline,
                              struct bop_slice value)
{
    struct deadline_key key;
    int rc = make_key(&key, deadline);

    machine->deadline_next = bop_min_u64(machine->deadline_next, deadline->time_ms);
    return rc ? rc
              : bop__machine_put(machine, MACHINE_DEADLINES, bop_slice(key.bytes, key.size), value);
}

int bop__machine_deadline_del(struct machine *machine, const struct machine_deadline *deadline)
{
    struct deadline_key key;
    int rc = make_key(&key, deadline);

    return rc ? rc : bop__machine_del(machine, MACHINE_DEADLINES, bop_slice(key.bytes, key.size));
}

/* The first of all. 0, BOP_ENOTFOUND or another code. key and value are copies; NULL: not wanted.
 */
static int first(struct machine *machine, struct bop_kv_txn *txn,
                 struct machine_deadline *out_deadline, struct deadline_key *out_key,
                 struct bop_buf *value)
{
    struct bop_kv_cursor *cursor;
    struct bop_slice key, found;
    int rc = bop_kv_cursor_open(txn, machine->tables[MACHINE_DEADLINES], &cursor);

    if (rc < 0) {
        return rc;
    }
    rc = bop_kv_cursor_seek(cursor, BOP_KV_FIRST, bop_slice(NULL, 0), &key, &found);
    if (rc == 0 && (key.size < MACHINE_DEADLINE_KEY_MIN || key.size > MACHINE_DEADLINE_KEY_MAX)) {
        rc = BOP_ECORRUPT;
    }
    if (rc == 0) {
        *out_deadline = (struct machine_deadline){
            .time_ms = machine_load_be64(key.data),
            .kind = (enum machine_deadline_kind)key.data[8],
            .id = __builtin_bswap32(bop_load_u32(key.data + 9)),
            .number = machine_load_be64(key.data + 13)};
    }
    if (rc == 0 && value) {
        memcpy(out_key->bytes, key.data, key.size);
        out_key->size = key.size;
        bop_buf_clear(value);
        rc = bop_buf_append(value, found.data, found.size);
    }
    bop_kv_cursor_close(cursor);
    return rc;
}

int bop__machine_deadlines_load(struct machine *machine, struct bop_kv_txn *txn)
{
    struct machine_deadline deadline;
    int rc = first(machine, txn, &deadline, NULL, NULL);

    machine->deadline_next = rc == 0 ? deadline.time_ms : UINT64_MAX;
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

uint64_t bop__machine_deadline_next(const struct machine *machine)
{
    return machine->deadline_next;
}

static int come(struct machine *machine, const struct machine_deadline *deadline,
                struct bop_slice value)
{
    switch (deadline->kind) {
    case DEADLINE_ENTRY:
        return bop__machine_entry_expire(machine, deadline, value);
    case DEADLINE_LOCK:
        return bop__machine_lock_timeout(machine, deadline);
    }
    return BOP_ECORRUPT;
}

int bop__machine_timers(struct machine *machine, struct machine_reply *out_reply)
{
    struct machine_deadline deadline;
    struct deadline_key key;
    struct bop_buf value;
    int rc = 0;

    bop_buf_init(&value, machine->allocator, 0);
    for (unsigned n = 0; n < MACHINE_TIMERS_MAX && rc == 0; n++) {
        rc = first(machine, machine->txn, &deadline, &key, &value);
        if (rc != 0 || deadline.time_ms > machine->position.time_ms) {
            break;
        }
        rc = bop__machine_del(machine, MACHINE_DEADLINES, bop_slice(key.bytes, key.size));
        if (rc == 0) {
            rc = come(machine, &deadline, bop_buf_slice(&value));
        }
    }
    bop_buf_deinit(&value);
    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    machine_reply_set(out_reply, BOP_STATUS_OK);
    return bop__machine_deadlines_load(machine, machine->txn);
}
