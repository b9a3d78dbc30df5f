/* The records of locks as bytes, and walks over them: machine_lock.h. */
#include "machine_lock.h"

/* ---- Locks ---- */

void bop__machine_lock_encode(uint8_t out_bytes[MACHINE_LOCK_SIZE], const struct machine_lock *lock)
{
    bop_store_u32(out_bytes, lock->id);
    bop_store_u32(out_bytes + 4, lock->capacity);
    bop_store_u32(out_bytes + 8, lock->taken);
    bop_store_u32(out_bytes + 12, lock->requests);
    bop_store_u32(out_bytes + 16, lock->waiting);
    bop_store_u64(out_bytes + 20, lock->granted);
    bop_store_u64(out_bytes + 28, lock->created);
    out_bytes[36] = lock->stays;
}

static bool lock_makes_sense(const struct machine_lock *lock)
{
    if (lock->capacity == 0 || lock->taken > lock->capacity || lock->waiting > lock->requests ||
        (lock->requests > lock->waiting) != (lock->taken > 0)) {
        return false;
    }
    return lock->requests == 0 ? lock->id == 0 && lock->stays && lock->granted == 0
                               : lock->id > 0 && lock->granted > 0;
}

int bop__machine_lock_decode(struct bop_slice bytes, struct machine_lock *out_lock)
{
    struct machine_lock lock;

    if (bytes.size != MACHINE_LOCK_SIZE || bytes.data[36] > 1) {
        return BOP_ECORRUPT;
    }
    lock.id = bop_load_u32(bytes.data);
    lock.capacity = bop_load_u32(bytes.data + 4);
    lock.taken = bop_load_u32(bytes.data + 8);
    lock.requests = bop_load_u32(bytes.data + 12);
    lock.waiting = bop_load_u32(bytes.data + 16);
    lock.granted = bop_load_u64(bytes.data + 20);
    lock.created = bop_load_u64(bytes.data + 28);
    lock.stays = bytes.data[36] == 1;
    *out_lock = lock;
    return lock_makes_sense(&lock) ? 0 : BOP_ECORRUPT;
}

int bop__machine_lock_find(struct bop_kv_txn *txn, const struct bop_kv_table *tables,
                           struct bop_slice name, struct machine_lock *out_lock)
{
    struct bop_slice value;
    int rc = bop_kv_get(txn, tables[MACHINE_LOCKS], name, &value);

    return rc ? rc : bop__machine_lock_decode(value, out_lock);
}

/* ---- Requests ---- */

struct bop_slice bop__machine_lock_request_key(uint8_t out_key[MACHINE_LOCK_REQUEST_KEY],
                                               uint32_t id, uint64_t ticket)
{
    machine_store_be32(out_key, id);
    machine_store_be64(out_key + 4, ticket);
    return bop_slice(out_key, MACHINE_LOCK_REQUEST_KEY);
}

int bop__machine_lock_request_encode(const struct machine_lock_request *request,
                                     struct bop_buf *buf)
{
    struct bop_writer writer = bop_writer(buf);

    bop_buf_clear(buf);
    bop_write_u64(&writer, request->session);
    bop_write_u64(&writer, request->token);
    bop_write_u64(&writer, request->deadline_ms);
    bop_write_u32(&writer, request->permits);
    bop_write_bytes(&writer, request->name);
    bop_write_raw(&writer, request->label);
    return writer.code;
}

int bop__machine_lock_request_decode(struct bop_slice bytes,
                                     struct machine_lock_request *out_request)
{
    struct bop_reader reader = bop_reader(bytes);
    struct machine_lock_request request;

    request.session = bop_read_u64(&reader);
    request.token = bop_read_u64(&reader);
    request.deadline_ms = bop_read_u64(&reader);
    request.permits = bop_read_u32(&reader);
    request.name = bop_read_string(&reader);
    request.label = bop_read_raw(&reader, bop_reader_left(&reader));
    if (reader.failed || request.session == 0 || request.permits == 0 || request.name.size == 0 ||
        request.name.size > BOP_NAME_MAX || request.label.size > BOP_LABEL_MAX ||
        (request.token != 0 && request.deadline_ms != 0)) {
        return BOP_ECORRUPT;
    }
    *out_request = request;
    return 0;
}

int bop__machine_lock_request_find(struct bop_kv_txn *txn, const struct bop_kv_table *tables,
                                   uint32_t id, uint64_t ticket,
                                   struct machine_lock_request *out_request)
{
    uint8_t key[MACHINE_LOCK_REQUEST_KEY];
    struct bop_slice value;
    int rc = bop_kv_get(txn, tables[MACHINE_LOCK_REQUESTS],
                        bop__machine_lock_request_key(key, id, ticket), &value);

    return rc ? rc : bop__machine_lock_request_decode(value, out_request);
}

int bop__machine_lock_request_check(struct bop_slice key, struct bop_slice value)
{
    struct machine_lock_request request;

    return key.size == MACHINE_LOCK_REQUEST_KEY && bop_load_u32(key.data) != 0 &&
                   bop_load_u64(key.data + 4) != 0
               ? bop__machine_lock_request_decode(value, &request)
               : BOP_ECORRUPT;
}

int bop__machine_lock_check(struct bop_slice value)
{
    struct machine_lock lock;
    int rc = bop__machine_lock_decode(value, &lock);

    /* Within an entry that ends many sessions all may wait for a moment, between entries never. */
    return rc == 0 && lock.waiting > 0 && lock.taken == 0 ? BOP_ECORRUPT : rc;
}

/* ---- Walks ---- */

int bop__machine_lock_walk_begin(struct machine_lock_walk *walk, struct bop_kv_txn *txn,
                                 const struct bop_kv_table *tables, uint32_t id)
{
    walk->id = id;
    return bop_kv_cursor_open(txn, tables[MACHINE_LOCK_REQUESTS], &walk->cursor);
}

void bop__machine_lock_walk_end(struct machine_lock_walk *walk)
{
    bop_kv_cursor_close(walk->cursor);
}

static int walk_move(struct machine_lock_walk *walk, enum bop_kv_seek seek, struct bop_slice to)
{
    struct bop_slice key, value;
    int rc = bop_kv_cursor_seek(walk->cursor, seek, to, &key, &value);

    if (rc < 0) {
        return rc;
    }
    if (key.size != MACHINE_LOCK_REQUEST_KEY) {
        return BOP_ECORRUPT;
    }
    if (__builtin_bswap32(bop_load_u32(key.data)) != walk->id) {
        return BOP_ENOTFOUND;
    }
    walk->ticket = machine_load_be64(key.data + 4);
    return bop__machine_lock_request_decode(value, &walk->request);
}

int bop__machine_lock_walk_seek(struct machine_lock_walk *walk, uint64_t ticket)
{
    uint8_t key[MACHINE_LOCK_REQUEST_KEY];

    return walk_move(walk, BOP_KV_AT_OR_AFTER,
                     bop__machine_lock_request_key(key, walk->id, ticket));
}

int bop__machine_lock_walk_next(struct machine_lock_walk *walk)
{
    return walk_move(walk, BOP_KV_NEXT, bop_slice(NULL, 0));
}
