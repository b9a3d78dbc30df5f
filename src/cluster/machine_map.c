/*
 * Maps: writes and reads. A map is made by the first put into it (or by a create).
 */
#include "machine_internal.h"

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

static int map_put(struct machine *machine, uint64_t index, struct collection *map,
                   const struct bop_operation *operation, struct machine_key *store_key,
                   const struct machine_entry *old, struct machine_reply *reply)
{
    struct machine_entry entry = {
        .version = index, .key = operation->key, .value = operation->value};
    bool existed = old != NULL;
    int rc;

    if (!map) {
        rc = bop__machine_collection_make(machine, index, COLLECTION_MAP, operation->name, &map);
        if (rc < 0 || !map) {
            machine_reply_set(reply, BOP_STATUS_BUSY);
            return rc;
        }
        machine_store_be32(store_key->bytes, map->record.id);
    }
    rc = bop__machine_entry_put(machine, map, store_key, &entry, existed);
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, existed);
    machine_reply_add_u64(reply, index);
    return rc;
}

static int map_delete(struct machine *machine, struct collection *map,
                      const struct machine_key *store_key, bool existed,
                      struct machine_reply *reply)
{
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, existed);
    return existed ? bop__machine_entry_delete(machine, map, store_key) : 0;
}

/* A put or a delete of one key. */
static int map_change(struct machine *machine, uint64_t index, struct collection *map,
                      const struct bop_operation *operation, struct machine_reply *reply)
{
    struct machine_entry entry, *old = NULL;
    struct machine_key store_key;
    int rc = bop__machine_key_make(map ? map->record.id : 0, operation->key, &store_key);

    if (rc < 0) {
        return rc;
    }
    if (map) {
        rc = bop__machine_entry_find(machine->txn, machine->tables[MACHINE_ENTRIES], &store_key,
                                     operation->key, &entry);
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
    struct collection *map;
    int rc;

    if (operation->op == BOP_OP_MAP_CREATE) {
        return bop__machine_collection_create(machine, index, COLLECTION_MAP, operation->name,
                                              out_reply);
    }
    if (operation->op == BOP_OP_MAP_CLEAR) {
        return bop__machine_collection_clear(machine, COLLECTION_MAP, operation->name, out_reply);
    }
    rc = bop__machine_collection_find(machine, COLLECTION_MAP, operation->name, &map);
    return rc ? rc : map_change(machine, index, map, operation, out_reply);
}

/* ---- Reads ---- */

static int map_get(struct machine_view *view, const struct bop_operation *operation,
                   struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);
    struct machine_collection_record map;
    struct machine_entry entry;
    struct machine_key store_key;
    int rc = bop__machine_view_collection(view, COLLECTION_MAP, operation->name, &map);

    if (rc == 0) {
        rc = bop__machine_key_make(map.id, operation->key, &store_key);
    }
    if (rc == 0) {
        rc = bop__machine_entry_find(view->txn, view->tables[MACHINE_ENTRIES], &store_key,
                                     operation->key, &entry);
    }
    if (rc != 0) {
        return rc == BOP_ENOTFOUND || rc == BOP_EEXISTS ? BOP_STATUS_NOT_FOUND : rc;
    }
    bop_write_u64(&writer, entry.version);
    bop_write_bytes(&writer, entry.value);
    return writer.code ? writer.code : BOP_STATUS_OK;
}

int bop__machine_map_read(struct machine_view *view, const struct bop_operation *operation,
                          struct bop_buf *out)
{
    switch (operation->op) {
    case BOP_OP_MAP_GET:
        return map_get(view, operation, out);
    case BOP_OP_MAP_SIZE:
        return bop__machine_collection_size(view, COLLECTION_MAP, operation->name, out);
    case BOP_OP_MAP_RANGE:
        return bop__machine_range_scan(view, operation, out);
    case BOP_OP_MAP_SCAN:
        return bop__machine_collection_scan(view, COLLECTION_MAP, operation, out);
    default:
        return BOP_STATUS_BAD_REQUEST;
    }
}
