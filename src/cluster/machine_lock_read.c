/* Locks: who holds them and who waits, and what a session has. */
#include "machine_lock.h"

#define TICKET_BYTES     8  /* A cursor among the requests of a lock, */
#define OWNED_BYTES      12 /* and among those of a session: id and ticket. */
#define GET_VALUE_BYTES  20
#define OWNED_VALUE_HEAD (8 + 4 + 4)

/* ---- The requests of a lock ---- */

static int add_request(struct machine_page *page, const struct machine_lock_walk *walk)
{
    uint8_t at[TICKET_BYTES], value[GET_VALUE_BYTES];
    struct machine_entry entry = {.version = walk->ticket,
                                  .key = walk->request.label,
                                  .value = bop_slice(value, sizeof(value))};

    machine_store_be64(at, walk->ticket);
    bop_store_u64(value, walk->request.session);
    bop_store_u64(value + 8, walk->request.token);
    bop_store_u32(value + 16, walk->request.permits);
    return bop__machine_page_add(page, bop_slice(at, sizeof(at)), &entry);
}

static int fill_requests(struct machine_page *page, struct machine_view *view, uint32_t id)
{
    struct machine_lock_walk walk;
    int rc = bop__machine_lock_walk_begin(&walk, view->txn, view->tables, id);

    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_lock_walk_seek(&walk,
                                     page->again ? machine_load_be64(page->from.data) + 1 : 0);
    while (rc == 0) {
        rc = add_request(page, &walk);
        if (rc == 0) {
            rc = bop__machine_lock_walk_next(&walk);
        }
    }
    bop__machine_lock_walk_end(&walk);
    return rc < 0 && rc != BOP_ENOTFOUND ? rc : 0;
}

static int read_lock(struct machine_view *view, const struct bop_operation *operation,
                     struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);
    struct machine_page page;
    struct machine_lock lock;
    int rc = bop__machine_lock_find(view->txn, view->tables, operation->name, &lock);

    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? BOP_STATUS_NOT_FOUND : rc;
    }
    bop_write_u32(&writer, lock.capacity);
    bop_write_u32(&writer, lock.taken);
    rc = writer.code ? writer.code : bop__machine_page_begin(&page, operation, out);
    if (rc != 0) {
        return rc;
    }
    if (page.again && page.from.size != TICKET_BYTES) {
        return BOP_STATUS_BAD_REQUEST;
    }
    rc = lock.requests > 0 ? fill_requests(&page, view, lock.id) : 0;
    return rc ? rc : bop__machine_page_end(&page, view->position.index);
}

/* ---- The requests of a session ---- */

/* A key of OWNED is session u64, kind u8, id u32, ticket u64. */
static int add_owned(struct machine_page *page, struct machine_view *view, struct bop_slice key,
                     struct bop_buf *value)
{
    struct bop_slice at = bop_slice(key.data + 9, OWNED_BYTES);
    struct bop_writer writer = bop_writer(value);
    struct machine_entry entry = {.version = machine_load_be64(at.data + 4)};
    struct machine_lock_request request;
    int rc = bop__machine_lock_request_find(
        view->txn, view->tables, __builtin_bswap32(bop_load_u32(at.data)), entry.version, &request);

    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? BOP_ECORRUPT : rc;
    }
    bop_buf_clear(value);
    bop_write_u64(&writer, request.token);
    bop_write_u32(&writer, request.permits);
    bop_write_bytes(&writer, request.label);
    if (writer.code < 0) {
        return writer.code;
    }
    entry.key = request.name;
    entry.value = bop_buf_slice(value);
    return bop__machine_page_add(page, at, &entry);
}

static int walk_owned(struct machine_page *page, struct machine_view *view, uint64_t session,
                      struct bop_kv_cursor *cursor, struct bop_buf *value)
{
    uint8_t from[MACHINE_OWNED_KEY] = {0};
    struct bop_slice key, nothing;
    int rc;

    machine_store_be64(from, session);
    from[8] = OWNED_LOCK_REQUEST; /* Of id 0 is their number, behind which they begin. */
    if (page->again) {
        memcpy(from + 9, page->from.data, OWNED_BYTES);
    }
    rc = bop_kv_cursor_seek(cursor, BOP_KV_AFTER, bop_slice(from, sizeof(from)), &key, &nothing);
    while (rc == 0 && key.size == MACHINE_OWNED_KEY && memcmp(key.data, from, 9) == 0) {
        rc = add_owned(page, view, key, value);
        if (rc == 0) {
            rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bop_slice(NULL, 0), &key, &nothing);
        }
    }
    return rc < 0 && rc != BOP_ENOTFOUND ? rc : 0;
}

static int read_owned(struct machine_view *view, const struct bop_operation *operation,
                      struct bop_buf *out)
{
    struct bop_kv_cursor *cursor;
    struct machine_page page;
    struct bop_buf value;
    int rc = bop__machine_page_begin(&page, operation, out);

    if (rc != 0 || (page.again && page.from.size != OWNED_BYTES)) {
        return rc ? rc : BOP_STATUS_BAD_REQUEST;
    }
    rc = bop_kv_cursor_open(view->txn, view->tables[MACHINE_OWNED], &cursor);
    if (rc < 0) {
        return rc;
    }
    bop_buf_init(&value, view->allocator, 0);
    rc = walk_owned(&page, view, operation->session, cursor, &value);
    bop_buf_deinit(&value);
    bop_kv_cursor_close(cursor);
    return rc ? rc : bop__machine_page_end(&page, view->position.index);
}

int bop__machine_lock_read(struct machine_view *view, const struct bop_operation *operation,
                           struct bop_buf *out)
{
    return operation->op == BOP_OP_LOCK_GET ? read_lock(view, operation, out)
                                            : read_owned(view, operation, out);
}

/* ---- For compares ---- */

int bop__machine_lock_granted(struct machine_view *view, struct bop_slice name, uint64_t token,
                              bool *out_granted)
{
    struct machine_lock_walk walk;
    struct machine_lock lock;
    int rc = bop__machine_lock_find(view->txn, view->tables, name, &lock);

    *out_granted = false;
    if (rc < 0 || lock.requests == 0) {
        return rc == BOP_ENOTFOUND ? 0 : rc;
    }
    rc = bop__machine_lock_walk_begin(&walk, view->txn, view->tables, lock.id);
    if (rc < 0) {
        return rc;
    }
    /* Tokens rise with tickets, and those that wait come last. */
    rc = bop__machine_lock_walk_seek(&walk, 0);
    while (rc == 0 && walk.request.token != 0 && walk.request.token < token) {
        rc = bop__machine_lock_walk_next(&walk);
    }
    *out_granted = rc == 0 && walk.request.token != 0 && walk.request.token == token;
    bop__machine_lock_walk_end(&walk);
    return rc == BOP_ENOTFOUND ? 0 : rc;
}
