/*
 * Scans: pages of a collection's entries in store order, which is the order of their
 * keys but for long ones (machine_record.h).
 *
 * A cursor is a version byte and a place among the store keys, without the
 * collection's id: mostly the key of the last entry given. It stays good whatever is
 * put and deleted between the pages.
 */
#include "machine_internal.h"

#define CURSOR_VERSION 1
#define CURSOR_MAX     (1 + BOP_KV_KEY_MAX - MACHINE_MAP_ID_SIZE)
#define PAGE_HEADER    16 /* revision u64, cursor's length u32, count u32 */
#define ENTRY_OVERHEAD 16 /* Of an entry in a page: two lengths and a version. */

/* ---- Walking ---- */

int bop__machine_walk_begin(struct machine_walk *walk, struct bop_kv_txn *txn,
                            struct bop_kv_table table, uint32_t id)
{
    machine_store_be32(walk->id, id);
    return bop_kv_cursor_open(txn, table, &walk->cursor);
}

void bop__machine_walk_end(struct machine_walk *walk)
{
    bop_kv_cursor_close(walk->cursor);
}

/* 0 and the record if it is still of the collection. */
static int walk_found(struct machine_walk *walk, int rc, struct bop_slice key,
                      struct bop_slice value)
{
    if (rc < 0) {
        return rc;
    }
    if (key.size < MACHINE_MAP_ID_SIZE || memcmp(key.data, walk->id, MACHINE_MAP_ID_SIZE) != 0) {
        return BOP_ENOTFOUND;
    }
    walk->store_key = key;
    walk->store_value = value;
    walk->key = bop_slice(key.data + MACHINE_MAP_ID_SIZE, key.size - MACHINE_MAP_ID_SIZE);
    return bop__machine_entry_decode(key, value, &walk->entry);
}

int bop__machine_walk_seek(struct machine_walk *walk, struct bop_slice from, bool after)
{
    struct machine_key at;
    struct bop_slice key, value, wanted;
    int rc;

    BOP_ASSERT(from.size <= BOP_KV_KEY_MAX - MACHINE_MAP_ID_SIZE);
    memcpy(at.bytes, walk->id, MACHINE_MAP_ID_SIZE);
    if (from.size > 0) {
        memcpy(at.bytes + MACHINE_MAP_ID_SIZE, from.data, from.size);
    }
    wanted = bop_slice(at.bytes, MACHINE_MAP_ID_SIZE + from.size);
    rc = bop_kv_cursor_seek(walk->cursor, BOP_KV_AT_OR_AFTER, wanted, &key, &value);
    if (rc == 0 && after && bop_slice_equal(key, wanted)) {
        rc = bop_kv_cursor_seek(walk->cursor, BOP_KV_NEXT, bop_slice(NULL, 0), &key, &value);
    }
    return walk_found(walk, rc, key, value);
}

int bop__machine_walk_next(struct machine_walk *walk)
{
    struct bop_slice key, value;
    int rc = bop_kv_cursor_seek(walk->cursor, BOP_KV_NEXT, bop_slice(NULL, 0), &key, &value);

    return walk_found(walk, rc, key, value);
}

/* ---- Pages ---- */

int bop__machine_page_begin(struct machine_page *page, const struct bop_operation *operation,
                            struct bop_buf *out)
{
    static const uint8_t head[PAGE_HEADER];
    struct bop_slice cursor = operation->cursor;

    if (cursor.size > 0 && (cursor.size > CURSOR_MAX || cursor.data[0] != CURSOR_VERSION)) {
        return BOP_STATUS_BAD_REQUEST;
    }
    *page = (struct machine_page){.out = out, .begin = out->size + PAGE_HEADER};
    page->limit = (uint32_t)bop_min_u64(operation->limit, MACHINE_SCAN_LIMIT_MAX);
    if (page->limit == 0) {
        page->limit = MACHINE_SCAN_LIMIT_MAX;
    }
    page->again = cursor.size > 0;
    if (page->again) {
        page->from = bop_slice(cursor.data + 1, cursor.size - 1);
    }
    return bop_buf_append(out, head, sizeof(head));
}

int bop__machine_page_add(struct machine_page *page, struct bop_slice at,
                          const struct machine_entry *entry)
{
    struct bop_writer writer = bop_writer(page->out);

    page->more = page->count == page->limit ||
                 (page->count > 0 && page->out->size - page->begin + entry->key.size +
                                             entry->value.size + ENTRY_OVERHEAD >
                                         MACHINE_SCAN_BYTES_MAX);
    if (page->more) {
        return 1;
    }
    bop_write_bytes(&writer, entry->key);
    bop_write_u64(&writer, entry->version);
    bop_write_bytes(&writer, entry->value);
    BOP_ASSERT(at.size <= sizeof(page->last));
    if (at.size > 0) {
        memcpy(page->last, at.data, at.size);
    }
    page->last_size = at.size;
    page->count++;
    return writer.code;
}

/* Put the page's head, whose length was not known before, in front of its entries. */
int bop__machine_page_end(struct machine_page *page, uint64_t revision)
{
    size_t cursor_size = page->more ? 1 + page->last_size : 0;
    size_t entries_size = page->out->size - page->begin;
    int rc = bop_buf_reserve(page->out, cursor_size);
    uint8_t *at;

    if (rc < 0) {
        return rc;
    }
    at = page->out->data + page->begin - PAGE_HEADER;
    memmove(at + PAGE_HEADER + cursor_size, at + PAGE_HEADER, entries_size);
    page->out->size += cursor_size;
    bop_store_u64(at, revision);
    bop_store_u32(at + 8, (uint32_t)cursor_size);
    if (cursor_size > 0) {
        at[12] = CURSOR_VERSION;
        memcpy(at + 13, page->last, page->last_size);
    }
    bop_store_u32(at + 12 + cursor_size, page->count);
    return BOP_STATUS_OK;
}

/* ---- Scans of keys and values as they are ---- */

static int fill(struct machine_page *page, struct machine_view *view, uint32_t id)
{
    struct machine_walk walk;
    int rc = bop__machine_walk_begin(&walk, view->txn, view->tables[MACHINE_ENTRIES], id);

    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_walk_seek(&walk, page->from, page->again);
    while (rc == 0) {
        rc = bop__machine_page_add(page, walk.key, &walk.entry);
        if (rc == 0) {
            rc = bop__machine_walk_next(&walk);
        }
    }
    bop__machine_walk_end(&walk);
    return rc < 0 && rc != BOP_ENOTFOUND ? rc : 0;
}

int bop__machine_collection_scan(struct machine_view *view, enum collection_kind kind,
                                 const struct bop_operation *operation, struct bop_buf *out)
{
    struct machine_collection_record record;
    struct machine_page page;
    int rc = bop__machine_page_begin(&page, operation, out);

    if (rc != 0) {
        return rc;
    }
    rc = bop__machine_view_collection(view, kind, operation->name, &record);
    if (rc == 0) {
        rc = fill(&page, view, record.id);
    } else if (rc == BOP_ENOTFOUND) {
        rc = 0;
    }
    return rc ? rc : bop__machine_page_end(&page, view->position.index);
}

/* ---- Scans of a range of keys ---- */

/*
 * Long keys are in store order by their first MACHINE_LONG_PREFIX bytes only. So a range
 * begins and ends by as much of the keys, and what is met in it is looked at whole.
 */
static struct bop_slice sortable(struct bop_slice key)
{
    return bop_slice(key.data, key.size < MACHINE_LONG_PREFIX ? key.size : MACHINE_LONG_PREFIX);
}

static bool in_range(const struct bop_operation *range, struct bop_slice key)
{
    return machine_begins_with(key, range->prefix) && bop_slice_compare(key, range->from) >= 0 &&
           (range->to.size == 0 || bop_slice_compare(key, range->to) < 0);
}

/* No key of the range is stored here or behind. */
static bool past_range(const struct bop_operation *range, struct bop_slice store_key)
{
    struct bop_slice key = sortable(store_key);
    int order;

    if (!machine_begins_with(key, sortable(range->prefix))) {
        return true; /* The walk began at the first that does, or behind it. */
    }
    if (range->to.size == 0) {
        return false;
    }
    order = bop_slice_compare(key, sortable(range->to));
    return order > 0 || (order == 0 && range->to.size <= MACHINE_LONG_PREFIX);
}

static int fill_range(struct machine_page *page, struct machine_view *view, uint32_t id,
                      const struct bop_operation *range)
{
    bool by_prefix = bop_slice_compare(range->prefix, range->from) > 0;
    struct bop_slice low = sortable(by_prefix ? range->prefix : range->from);
    bool again = page->again && bop_slice_compare(page->from, low) >= 0;
    struct machine_walk walk;
    int rc = bop__machine_walk_begin(&walk, view->txn, view->tables[MACHINE_ENTRIES], id);

    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_walk_seek(&walk, again ? page->from : low, again);
    while (rc == 0 && !past_range(range, walk.key)) {
        if (in_range(range, walk.entry.key)) {
            rc = bop__machine_page_add(page, walk.key, &walk.entry);
        }
        if (rc == 0) {
            rc = bop__machine_walk_next(&walk);
        }
    }
    bop__machine_walk_end(&walk);
    return rc < 0 && rc != BOP_ENOTFOUND ? rc : 0;
}

int bop__machine_range_scan(struct machine_view *view, const struct bop_operation *operation,
                            struct bop_buf *out)
{
    struct machine_collection_record record;
    struct machine_page page;
    int rc = bop__machine_page_begin(&page, operation, out);

    if (rc != 0) {
        return rc;
    }
    rc = bop__machine_view_collection(view, COLLECTION_MAP, operation->name, &record);
    if (rc == 0) {
        rc = fill_range(&page, view, record.id, operation);
    } else if (rc == BOP_ENOTFOUND) {
        rc = 0;
    }
    return rc ? rc : bop__machine_page_end(&page, view->position.index);
}
