/*
 * Maps: the cache of their sizes, writes and reads.
 *
 * A map is made by the first put into it (or by a create) and gets a number, by
 * which its entries are keyed. A scan walks entries in store order, which is the
 * order of their keys but for long ones (machine_record.h). Its cursor is a
 * version byte and the store key of the last entry given, without the map's id;
 * it stays good whatever is put and deleted between the pages.
 */
#include <bop/crc32c.h>

#include "machine_internal.h"

#define CURSOR_VERSION 1
#define CURSOR_MAX     (1 + BOP_KV_KEY_MAX - MACHINE_MAP_ID_SIZE)
#define SCAN_HEADER    16 /* revision u64, cursor's length u32, count u32 */
#define ENTRY_OVERHEAD 16 /* Of an entry in a page: two lengths and a version. */

/* ---- The cache ---- */

/* The slot of a name, or the free one where it belongs. There always is one: count stays below. */
static struct map_state *cache_slot(struct map_cache *cache, struct bop_slice name, uint32_t hash)
{
    for (size_t i = hash;; i++) {
        struct map_state *slot = &cache->slots[i % MACHINE_MAP_SLOTS];

        if (!slot->used ||
            (slot->hash == hash && bop_slice_equal(bop_slice(slot->name, slot->name_size), name))) {
            return slot;
        }
    }
}

int bop__machine_maps_flush(struct machine *machine)
{
    for (size_t i = 0; i < MACHINE_MAP_SLOTS; i++) {
        struct map_state *map = &machine->maps.slots[i];
        uint8_t bytes[MACHINE_MAP_RECORD_SIZE];
        int rc;

        if (!map->used || !map->dirty) {
            continue;
        }
        bop__machine_map_encode(bytes, &map->record);
        rc = bop_kv_put(machine->txn, machine->tables[MACHINE_MAPS],
                        bop_slice(map->name, map->name_size), bop_slice(bytes, sizeof(bytes)));
        if (rc < 0) {
            return rc;
        }
        map->dirty = false;
    }
    return 0;
}

void bop__machine_maps_forget(struct machine *machine)
{
    for (size_t i = 0; i < MACHINE_MAP_SLOTS && machine->maps.slots; i++) {
        machine->maps.slots[i].used = false;
    }
    machine->maps.count = 0;
}

/* Bring a map into the cache. *out_map is NULL if there is none of that name. */
static int map_find(struct machine *machine, struct bop_slice name, struct map_state **out_map)
{
    struct map_cache *cache = &machine->maps;
    uint32_t hash = bop_crc32c(0, name.data, name.size);
    struct map_state *slot = cache_slot(cache, name, hash);
    struct machine_map_record record;
    struct bop_slice value;
    int rc;

    if (slot->used) {
        *out_map = slot;
        return 0;
    }
    *out_map = NULL;
    rc = bop_kv_get(machine->txn, machine->tables[MACHINE_MAPS], name, &value);
    if (rc == 0) {
        rc = bop__machine_map_decode(value, &record);
    }
    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? 0 : rc;
    }
    if (cache->count == MACHINE_MAPS_CACHED_MAX) {
        rc = bop__machine_maps_flush(machine);
        if (rc < 0) {
            return rc;
        }
        bop__machine_maps_forget(machine);
        slot = cache_slot(cache, name, hash);
    }
    *slot = (struct map_state){
        .record = record, .hash = hash, .used = true, .name_size = (uint8_t)name.size};
    memcpy(slot->name, name.data, name.size);
    cache->count++;
    *out_map = slot;
    return 0;
}

/* Make a map that map_find() did not find. *out_map is NULL if there are too many. */
static int map_make(struct machine *machine, uint64_t index, struct bop_slice name,
                    struct map_state **out_map)
{
    struct machine_map_record record = {.id = machine->map_next, .entries = 0, .created = index};
    uint8_t bytes[MACHINE_MAP_RECORD_SIZE];
    int rc;

    *out_map = NULL;
    if (machine->map_next == UINT32_MAX) {
        return 0;
    }
    bop__machine_map_encode(bytes, &record);
    rc = bop_kv_put(machine->txn, machine->tables[MACHINE_MAPS], name,
                    bop_slice(bytes, sizeof(bytes)));
    if (rc < 0) {
        return rc;
    }
    machine->map_next++;
    machine->map_next_dirty = true;
    return map_find(machine, name, out_map);
}

/* ---- Writes ---- */

static bool condition_met(const struct bop_operation *operation, const struct machine_entry *old)
{
    switch (operation->condition) {
    case BOP_IF_ALWAYS:
        return true;
    case BOP_IF_ABSENT:
        return !old;
    case BOP_IF_PRESENT:
        return old != NULL;
    case BOP_IF_VERSION:
        return old && old->version == operation->version;
    case BOP_IF_VALUE:
        return old && bop_slice_equal(old->value, operation->expected);
    }
    return false;
}

/*
 * Look for an entry. Returns 0, BOP_ENOTFOUND, or BOP_EEXISTS if another key has
 * the same prefix and digest: a collision of SHA-256, which nobody has seen yet.
 */
static int entry_find(struct bop_kv_txn *txn, struct bop_kv_table table,
                      const struct machine_key *store_key, struct bop_slice key,
                      struct machine_entry *out_entry)
{
    struct bop_slice stored = bop_slice(store_key->bytes, store_key->size);
    struct bop_slice value;
    int rc = bop_kv_get(txn, table, stored, &value);

    if (rc == 0) {
        rc = bop__machine_entry_decode(stored, value, out_entry);
    }
    if (rc == 0 && store_key->size == BOP_KV_KEY_MAX && !bop_slice_equal(out_entry->key, key)) {
        rc = BOP_EEXISTS;
    }
    return rc;
}

static int map_put(struct machine *machine, uint64_t index, struct map_state *map,
                   const struct bop_operation *operation, struct machine_key *store_key,
                   const struct machine_entry *old, struct machine_reply *reply)
{
    struct machine_entry entry = {
        .version = index, .key = operation->key, .value = operation->value};
    bool existed = old != NULL;
    int rc;

    if (!map) {
        rc = map_make(machine, index, operation->name, &map);
        if (rc < 0 || !map) {
            machine_reply_set(reply, BOP_STATUS_BUSY);
            return rc;
        }
        machine_store_be32(store_key->bytes, map->record.id);
    }
    rc = bop__machine_entry_encode(store_key, &entry, &machine->scratch);
    if (rc == 0) {
        rc = bop_kv_put(machine->txn, machine->tables[MACHINE_ENTRIES],
                        bop_slice(store_key->bytes, store_key->size),
                        bop_buf_slice(&machine->scratch));
    }
    if (rc < 0) {
        return rc;
    }
    if (!existed) {
        map->record.entries++;
        map->dirty = true;
        machine->batch_entries++;
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, existed);
    machine_reply_add_u64(reply, index);
    return 0;
}

static int map_delete(struct machine *machine, struct map_state *map,
                      const struct machine_key *store_key, bool existed,
                      struct machine_reply *reply)
{
    if (existed) {
        int rc = bop_kv_del(machine->txn, machine->tables[MACHINE_ENTRIES],
                            bop_slice(store_key->bytes, store_key->size));

        if (rc < 0) {
            return rc;
        }
        if (map->record.entries == 0) {
            return BOP_ECORRUPT;
        }
        map->record.entries--;
        map->dirty = true;
        machine->batch_entries--;
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, existed);
    return 0;
}

/* A put or a delete of one key. */
static int map_change(struct machine *machine, uint64_t index, struct map_state *map,
                      const struct bop_operation *operation, struct machine_reply *reply)
{
    struct machine_entry entry, *old = NULL;
    struct machine_key store_key;
    int rc = bop__machine_key_make(map ? map->record.id : 0, operation->key, &store_key);

    if (rc < 0) {
        return rc;
    }
    if (map) {
        rc = entry_find(machine->txn, machine->tables[MACHINE_ENTRIES], &store_key, operation->key,
                        &entry);
        if (rc == BOP_EEXISTS) {
            machine_reply_set(reply, BOP_STATUS_BAD_REQUEST);
            return 0;
        }
        if (rc < 0 && rc != BOP_ENOTFOUND) {
            return rc;
        }
        old = rc == 0 ? &entry : NULL;
    }
    if (!condition_met(operation, old)) {
        machine_reply_set(reply, BOP_STATUS_CONDITION);
        machine_reply_add_u64(reply, old ? old->version : 0);
        return 0;
    }
    return operation->op == BOP_OP_MAP_PUT
               ? map_put(machine, index, map, operation, &store_key, old, reply)
               : map_delete(machine, map, &store_key, old != NULL, reply);
}

int bop__machine_map_write(struct machine *machine, uint64_t index,
                           const struct bop_operation *operation, struct machine_reply *out_reply)
{
    struct map_state *map;
    bool existed;
    int rc = map_find(machine, operation->name, &map);

    if (rc < 0) {
        return rc;
    }
    if (operation->op != BOP_OP_MAP_CREATE) {
        return map_change(machine, index, map, operation, out_reply);
    }
    existed = map != NULL;
    if (!existed) {
        rc = map_make(machine, index, operation->name, &map);
        if (rc < 0 || !map) {
            machine_reply_set(out_reply, BOP_STATUS_BUSY);
            return rc;
        }
    }
    machine_reply_set(out_reply, BOP_STATUS_OK);
    machine_reply_add_u8(out_reply, !existed);
    return 0;
}

/* ---- Reads ---- */

/* 0, BOP_ENOTFOUND if there is no such map, or another code. */
static int view_map(struct machine_view *view, struct bop_slice name,
                    struct machine_map_record *out_record)
{
    struct bop_slice value;
    int rc = bop_kv_get(view->txn, view->tables[MACHINE_MAPS], name, &value);

    return rc ? rc : bop__machine_map_decode(value, out_record);
}

static int map_get(struct machine_view *view, const struct bop_operation *operation,
                   struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);
    struct machine_map_record map;
    struct machine_entry entry;
    struct machine_key store_key;
    int rc = view_map(view, operation->name, &map);

    if (rc == 0) {
        rc = bop__machine_key_make(map.id, operation->key, &store_key);
    }
    if (rc == 0) {
        rc = entry_find(view->txn, view->tables[MACHINE_ENTRIES], &store_key, operation->key,
                        &entry);
    }
    if (rc != 0) {
        return rc == BOP_ENOTFOUND || rc == BOP_EEXISTS ? BOP_STATUS_NOT_FOUND : rc;
    }
    bop_write_u64(&writer, entry.version);
    bop_write_bytes(&writer, entry.value);
    return writer.code ? writer.code : BOP_STATUS_OK;
}

static int map_size(struct machine_view *view, const struct bop_operation *operation,
                    struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);
    struct machine_map_record map = {0};
    int rc = view_map(view, operation->name, &map);

    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    bop_write_u64(&writer, map.entries);
    return writer.code ? writer.code : BOP_STATUS_OK;
}

/* A page of a scan while it is being filled. */
struct scan {
    struct bop_buf *out;
    size_t begin; /* Where entries begin in out. */
    uint32_t limit;
    uint32_t count;
    struct machine_key last; /* Store key of the last entry in the page. */
    bool more;
};

/* Move to the first entry after the cursor, which is well-formed, or of the map. */
static int scan_begin(struct bop_kv_cursor *cursor, uint32_t map, struct bop_slice after,
                      struct bop_slice *out_key, struct bop_slice *out_value)
{
    struct machine_key from = {.size = MACHINE_MAP_ID_SIZE};
    int rc;

    machine_store_be32(from.bytes, map);
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

static int scan_fill(struct scan *scan, struct machine_view *view, uint32_t map,
                     struct bop_slice after)
{
    uint8_t prefix[MACHINE_MAP_ID_SIZE];
    struct bop_kv_cursor *cursor;
    struct bop_slice key, value;
    int rc = bop_kv_cursor_open(view->txn, view->tables[MACHINE_ENTRIES], &cursor);

    if (rc < 0) {
        return rc;
    }
    machine_store_be32(prefix, map);
    rc = scan_begin(cursor, map, after, &key, &value);
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

static int map_scan(struct machine_view *view, const struct bop_operation *operation,
                    struct bop_buf *out)
{
    static const uint8_t head[SCAN_HEADER];
    struct scan scan = {.out = out, .begin = out->size + SCAN_HEADER};
    struct bop_slice after = operation->cursor;
    struct machine_map_record map;
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
    rc = view_map(view, operation->name, &map);
    if (rc == 0) {
        rc = scan_fill(&scan, view, map.id, after);
    } else if (rc == BOP_ENOTFOUND) {
        rc = 0;
    }
    if (rc == 0) {
        rc = scan_head(&scan, view->position.index);
    }
    return rc ? rc : BOP_STATUS_OK;
}

int bop__machine_map_read(struct machine_view *view, const struct bop_operation *operation,
                          struct bop_buf *out)
{
    switch (operation->op) {
    case BOP_OP_MAP_GET:
        return map_get(view, operation, out);
    case BOP_OP_MAP_SIZE:
        return map_size(view, operation, out);
    case BOP_OP_MAP_SCAN:
        return map_scan(view, operation, out);
    default:
        return BOP_STATUS_BAD_REQUEST;
    }
}
