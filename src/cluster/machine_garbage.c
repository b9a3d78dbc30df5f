/*
 * Clearing a collection, however many entries it has, in one step: it goes on under a new
 * id, and what lies under the old one is garbage. Each entry of the log that is applied
 * removes a little of it, so that all machines hold the same of it at any index.
 */
#include "machine_internal.h"

static int store_left(struct machine *machine, uint32_t id, uint64_t left)
{
    uint8_t key[MACHINE_GARBAGE_KEY], value[MACHINE_GARBAGE_SIZE];
    int rc;

    machine_store_be32(key, id);
    bop_store_u64(value, left);
    if (left > 0) {
        return bop__machine_put(machine, MACHINE_GARBAGE, bop_slice(key, sizeof(key)),
                                bop_slice(value, sizeof(value)));
    }
    rc = bop__machine_del(machine, MACHINE_GARBAGE, bop_slice(key, sizeof(key)));
    if (rc == 0) {
        machine->garbage--;
    }
    return rc;
}

static int tell_clear(struct machine *machine, enum collection_kind kind, struct bop_slice name,
                      uint64_t entries)
{
    static const enum bop_event_type types[COLLECTION_KINDS] = {
        [COLLECTION_MAP] = BOP_EVENT_MAP_CLEAR,
        [COLLECTION_SET] = BOP_EVENT_SET_CLEAR,
        [COLLECTION_MULTIMAP] = BOP_EVENT_MULTIMAP_CLEAR,
    };

    return bop__machine_event(
        machine,
        &(struct bop_event){.type = types[kind], .name = name, .number = (int64_t)entries});
}

int bop__machine_collection_clear(struct machine *machine, enum collection_kind kind,
                                  struct bop_slice name, struct machine_reply *reply)
{
    struct collection *collection;
    uint64_t entries;
    int rc = bop__machine_collection_find(machine, kind, name, &collection);

    if (rc < 0) {
        return rc;
    }
    entries = collection ? collection->record.entries : 0;
    if (entries > 0) {
        if (machine->map_next == UINT32_MAX) {
            machine_reply_set(reply, BOP_STATUS_BUSY);
            return 0;
        }
        rc = store_left(machine, collection->record.id, entries);
        if (rc < 0) {
            return rc;
        }
        machine->garbage++;
        collection->record.id = machine->map_next++;
        collection->record.entries = 0;
        collection->dirty = true;
        machine->map_next_dirty = true;
        rc = tell_clear(machine, kind, name, entries);
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u64(reply, entries);
    return rc;
}

/* The garbage with the lowest id. */
static int first_garbage(struct machine *machine, uint32_t *out_id, uint64_t *out_left)
{
    struct bop_kv_cursor *cursor;
    struct bop_slice key, value;
    int rc = bop_kv_cursor_open(machine->txn, machine->tables[MACHINE_GARBAGE], &cursor);

    if (rc < 0) {
        return rc;
    }
    rc = bop_kv_cursor_seek(cursor, BOP_KV_FIRST, bop_slice(NULL, 0), &key, &value);
    if (rc == 0) {
        rc = bop__machine_record_check(MACHINE_GARBAGE, key, value);
    }
    if (rc == 0) {
        *out_id = __builtin_bswap32(bop_load_u32(key.data));
        rc = bop__machine_garbage_decode(value, out_left);
    }
    bop_kv_cursor_close(cursor);
    return rc == BOP_ENOTFOUND ? BOP_ECORRUPT : rc; /* There is some, or nobody would ask. */
}

int bop__machine_garbage_sweep(struct machine *machine)
{
    uint64_t left = 0, removed = 0;
    uint32_t id = 0;
    int rc = first_garbage(machine, &id, &left);

    if (rc == 0) {
        rc = bop__machine_entries_remove(machine, id, bop_slice(NULL, 0), MACHINE_SWEEP_MAX,
                                         &removed);
    }
    if (rc < 0) {
        return rc;
    }
    if (removed != bop_min_u64(left, MACHINE_SWEEP_MAX)) {
        return BOP_ECORRUPT;
    }
    return store_left(machine, id, left - removed);
}
