/*
 * Scans: pages of a collection's entries in store order, which is the order of their
 * keys but for long ones (machine_record.h).
 *
 * A cursor is a version byte and the store key of the last entry given, without the
 * collection's id; it stays good whatever is put and deleted between the pages.
 */
#include "machine_internal.h"

#define CURSOR_VERSION 1
#define CURSOR_MAX     (1 + BOP_KV_KEY_MAX - MACHINE_MAP_ID_SIZE)
#define SCAN_HEADER    16 /* revision u64, cursor's length u32, count u32 */
#define ENTRY_OVERHEAD 16 /* Of an entry in a page: two lengths and a version. */

/* A page of a scan while it is being filled. */
struct scan {
    struct bop_buf *out;
    size_t begin; /* Where entries begin in out. */
    uint32_t limit;
    uint32_t count;
    struct machine_key last; /* Store key of the last entry in the page. */
    bool more;
};

/* Move to the first entry after the cursor, which is well-formed, or of the collection. */
static int scan_begin(struct bop_kv_cursor *cursor, uint32_t id, struct bop_slice after,
                      struct bop_slice *out_key, struct bop_slice *out_value)
{
    struct machine_key from = {.size = MACHINE_MAP_ID_SIZE};
    int rc;

    machine_store_be32(from.bytes, id);
    if (after.size > 0) {
        memcpy(from.bytes + MACHINE_MAP_ID_SIZE, after.data + 1, after.size - 1);
        from.size += after.size - 1;
    }
    rc = bop_kv_cursor_seek(cursor, BOP_KV_AT_OR_AFTER, bop_slice(from.bytes, from.size), out_key,
                            out_value);
    if (rc == 0 && after.size > 0 && bop_slice_equal(*out_key, bop_slice(from.bytes, from.size))) {
        rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bop_slice(NULL, 0), out_key, out_value);
    }
    return rc;
}

/* Append an entry if the page has room. 0 or a code. */
static int scan_add(struct scan *scan, struct bop_slice key, struct bop_slice value)
{
    struct bop_writer writer = bop_writer(scan->out);
    struct machine_entry entry;
    int rc = bop__machine_entry_decode(key, value, &entry);

    if (rc < 0) {
        return rc;
    }
    scan->more = scan->count == scan->limit ||
                 (scan->count > 0 && scan->out->size - scan->begin + entry.key.size +
                                             entry.value.size + ENTRY_OVERHEAD >
                                         MACHINE_SCAN_BYTES_MAX);
    if (scan->more) {
        return 0;
    }
    bop_write_bytes(&writer, entry.key);
    bop_write_u64(&writer, entry.version);
    bop_write_bytes(&writer, entry.value);
    memcpy(scan->last.bytes, key.data, key.size);
    scan->last.size = key.size;
    scan->count++;
    return writer.code;
}

static int scan_fill(struct scan *scan, struct machine_view *view, uint32_t id,
                     struct bop_slice after)
{
    uint8_t prefix[MACHINE_MAP_ID_SIZE];
    struct bop_kv_cursor *cursor;
    struct bop_slice key, value;
    int rc = bop_kv_cursor_open(view->txn, view->tables[MACHINE_ENTRIES], &cursor);

    if (rc < 0) {
        return rc;
    }
    machine_store_be32(prefix, id);
    rc = scan_begin(cursor, id, after, &key, &value);
    while (rc == 0 && key.size >= sizeof(prefix) && memcmp(key.data, prefix, sizeof(prefix)) == 0) {
        rc = scan_add(scan, key, value);
        if (rc < 0 || scan->more) {
            break;
        }
        rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bop_slice(NULL, 0), &key, &value);
    }
    bop_kv_cursor_close(cursor);
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

/* Put the page's head, whose length was not known before, in front of its entries. */
static int scan_head(struct scan *scan, uint64_t revision)
{
    size_t cursor_size = scan->more ? 1 + scan->last.size - MACHINE_MAP_ID_SIZE : 0;
    size_t entries_size = scan->out->size - scan->begin;
    int rc = bop_buf_reserve(scan->out, cursor_size);
    uint8_t *at;

    if (rc < 0) {
        return rc;
    }
    at = scan->out->data + scan->begin - SCAN_HEADER;
    memmove(at + SCAN_HEADER + cursor_size, at + SCAN_HEADER, entries_size);
    scan->out->size += cursor_size;
    bop_store_u64(at, revision);
    bop_store_u32(at + 8, (uint32_t)cursor_size);
    if (cursor_size > 0) {
        at[12] = CURSOR_VERSION;
        memcpy(at + 13, scan->last.bytes + MACHINE_MAP_ID_SIZE, cursor_size - 1);
    }
    bop_store_u32(at + 12 + cursor_size, scan->count);
    return 0;
}

int bop__machine_collection_scan(struct machine_view *view, enum collection_kind kind,
                                 const struct bop_operation *operation, struct bop_buf *out)
{
    static const uint8_t head[SCAN_HEADER];
    struct scan scan = {.out = out, .begin = out->size + SCAN_HEADER};
    struct bop_slice after = operation->cursor;
    struct machine_collection_record record;
    int rc;

    if (after.size > 0 && (after.size > CURSOR_MAX || after.data[0] != CURSOR_VERSION)) {
        return BOP_STATUS_BAD_REQUEST;
    }
    scan.limit = (uint32_t)bop_min_u64(operation->limit, MACHINE_SCAN_LIMIT_MAX);
    if (scan.limit == 0) {
        scan.limit = MACHINE_SCAN_LIMIT_MAX;
    }
    rc = bop_buf_append(out, head, sizeof(head));
    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_view_collection(view, kind, operation->name, &record);
    if (rc == 0) {
        rc = scan_fill(&scan, view, record.id, after);
    } else if (rc == BOP_ENOTFOUND) {
        rc = 0;
    }
    if (rc == 0) {
        rc = scan_head(&scan, view->position.index);
    }
    return rc ? rc : BOP_STATUS_OK;
}
