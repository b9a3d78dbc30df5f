/*
 * Maps: writes and reads. A map is made by the first put into it (or by a create).
 *
 * An entry that has a time to live carries its deadline, and the table of deadlines
 * points back at it by version: one that was put again since is left alone.
 */
#include "machine_internal.h"

/* A write of one key while it runs. */
struct map_write {
    const struct bop_operation *operation;
    struct bop_slice key;
    struct bop_slice value;
    uint64_t index;
    struct collection *map; /* NULL: there is none yet. */
    struct machine_key store_key;
    struct machine_entry found;      /* Borrowed from the store, until it changes. */
    const struct machine_entry *old; /* &found, or NULL. */
};

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

static int tell(struct machine *machine, const struct map_write *write, enum bop_event_type type,
                uint8_t flags)
{
    struct bop_event event = {.type = type,
                              .flags = flags,
                              .name = write->operation->name,
                              .key = write->key,
                              .value = write->value};

    if (write->old) {
        event.flags |= BOP_EVENT_HAD_PREVIOUS;
        event.previous = write->old->value;
    }
    return bop__machine_event(machine, &event);
}

static struct machine_deadline deadline_of(const struct collection *map,
                                           const struct machine_entry *entry)
{
    return (struct machine_deadline){.time_ms = entry->deadline_ms,
                                     .kind = DEADLINE_ENTRY,
                                     .id = map->record.id,
                                     .number = entry->version,
                                     .key = entry->key};
}

static int deadline_put(struct machine *machine, const struct map_write *write,
                        const struct machine_entry *entry)
{
    struct bop_writer writer = bop_writer(&machine->scratch);
    struct machine_deadline deadline = deadline_of(write->map, entry);

    bop_buf_clear(&machine->scratch);
    bop_write_bytes(&writer, write->operation->name);
    bop_write_bytes(&writer, entry->key);
    return writer.code
               ? writer.code
               : bop__machine_deadline_put(machine, &deadline, bop_buf_slice(&machine->scratch));
}

/* The entry that was there does not wait for its deadline any more. Takes a copy of nothing: after
 * it, what was borrowed of the old entry is gone, but for its numbers and the key asked for. */
static int deadline_drop(struct machine *machine, struct map_write *write)
{
    struct machine_deadline deadline;

    if (!write->old || write->old->deadline_ms == 0) {
        return 0;
    }
    write->found.key = write->key;
    deadline = deadline_of(write->map, &write->found);
    return bop__machine_deadline_del(machine, &deadline);
}

static int make_map(struct machine *machine, struct map_write *write)
{
    int rc = bop__machine_collection_make(machine, write->index, COLLECTION_MAP,
                                          write->operation->name, &write->map);

    if (rc == 0 && write->map) {
        machine_store_be32(write->store_key.bytes, write->map->record.id);
    }
    return rc;
}

/* Put, whatever was there. *out_done is false if there are too many collections. */
static int put(struct machine *machine, struct map_write *write, uint64_t ttl_ms, bool *out_done)
{
    struct machine_entry entry = {.version = write->index,
                                  .deadline_ms = ttl_ms == 0 ? 0
                                                             : machine->position.time_ms + ttl_ms,
                                  .key = write->key,
                                  .value = write->value};
    bool existed = write->old != NULL;
    int rc = write->map ? 0 : make_map(machine, write);

    *out_done = write->map != NULL;
    if (rc < 0 || !write->map) {
        return rc;
    }
    rc = tell(machine, write, BOP_EVENT_MAP_PUT, 0);
    if (rc == 0) {
        rc = deadline_drop(machine, write);
    }
    if (rc == 0) {
        rc = bop__machine_entry_put(machine, write->map, &write->store_key, &entry, existed);
    }
    return rc == 0 && ttl_ms != 0 ? deadline_put(machine, write, &entry) : rc;
}

static int delete (struct machine *machine, struct map_write *write, uint8_t flags)
{
    int rc;

    if (!write->old) {
        return 0;
    }
    rc = tell(machine, write, BOP_EVENT_MAP_DELETE, flags);
    if (rc == 0) {
        rc = deadline_drop(machine, write);
    }
    return rc ? rc : bop__machine_entry_delete(machine, write->map, &write->store_key);
}

/* Look for the entry. *out_alien: a key with its prefix and digest is there, and is another. */
static int look(struct machine *machine, struct map_write *write, bool *out_alien)
{
    int rc = bop__machine_key_make(write->map ? write->map->record.id : 0, write->key,
                                   &write->store_key);

    write->old = NULL;
    *out_alien = false;
    if (rc < 0 || !write->map) {
        return rc;
    }
    rc = bop__machine_entry_find(machine->txn, machine->tables[MACHINE_ENTRIES], &write->store_key,
                                 write->key, &write->found);
    *out_alien = rc == BOP_EEXISTS;
    if (rc == 0) {
        write->old = &write->found;
    }
    return rc == BOP_ENOTFOUND || rc == BOP_EEXISTS ? 0 : rc;
}

/* What was there, as EXCHANGE and TAKE answer. */
static int answer_previous(struct machine *machine, const struct machine_entry *old,
                           uint64_t version, struct machine_reply *reply)
{
    struct bop_writer writer = bop_writer(&machine->large);

    bop_buf_clear(&machine->large);
    bop_write_u64(&writer, version);
    bop_write_bool(&writer, old != NULL);
    bop_write_bytes(&writer, old ? old->value : bop_slice(NULL, 0));
    machine_reply_large(reply);
    return writer.code;
}

static bool wants_previous(const struct bop_operation *operation)
{
    return operation->op == BOP_OP_MAP_EXCHANGE || operation->op == BOP_OP_MAP_TAKE;
}

static int refuse(struct machine *machine, const struct map_write *write,
                  struct machine_reply *reply)
{
    uint64_t version = write->old ? write->old->version : 0;

    machine_reply_set(reply, BOP_STATUS_CONDITION);
    if (wants_previous(write->operation)) {
        return answer_previous(machine, write->old, version, reply);
    }
    machine_reply_add_u64(reply, version);
    return 0;
}

static int run_put(struct machine *machine, struct map_write *write, struct machine_reply *reply)
{
    bool existed = write->old != NULL;
    bool done;
    int rc = 0;

    machine_reply_set(reply, BOP_STATUS_OK);
    if (write->operation->op == BOP_OP_MAP_EXCHANGE) {
        rc = answer_previous(machine, write->old, write->index, reply);
    } else {
        machine_reply_add_u8(reply, existed);
        machine_reply_add_u64(reply, write->index);
    }
    if (rc == 0) {
        rc = put(machine, write, write->operation->ttl_ms, &done);
    }
    if (rc == 0 && !done) {
        machine_reply_set(reply, BOP_STATUS_BUSY);
    }
    return rc;
}

static int run_delete(struct machine *machine, struct map_write *write, struct machine_reply *reply)
{
    uint64_t version = write->old ? write->old->version : 0;
    int rc = 0;

    machine_reply_set(reply, BOP_STATUS_OK);
    if (write->operation->op == BOP_OP_MAP_TAKE) {
        rc = answer_previous(machine, write->old, version, reply);
    } else {
        machine_reply_add_u8(reply, write->old != NULL);
    }
    return rc ? rc : delete (machine, write, 0);
}

/* A put or a delete of one key, of whatever form. */
static int map_change(struct machine *machine, struct map_write *write, struct machine_reply *reply)
{
    enum bop_op op = write->operation->op;
    bool alien;
    int rc = look(machine, write, &alien);

    if (rc < 0 || alien) {
        machine_reply_set(reply, BOP_STATUS_BAD_REQUEST);
        return rc;
    }
    if (!condition_met(write->operation, write->old)) {
        return refuse(machine, write, reply);
    }
    return op == BOP_OP_MAP_DELETE || op == BOP_OP_MAP_TAKE ? run_delete(machine, write, reply)
                                                            : run_put(machine, write, reply);
}

/* All pairs in one entry: all or, if one of them cannot be, none. */
static int put_all(struct machine *machine, struct map_write *write, struct machine_reply *reply)
{
    struct bop_slice items = write->operation->items;
    uint64_t added = 0;
    struct bop_item item;
    bool nested = machine->undo.active; /* In a transaction, which sees to it. */
    int rc = nested ? 0 : bop__machine_undo_begin(machine);

    machine_reply_set(reply, BOP_STATUS_OK);
    while (rc == 0 && reply->status == BOP_STATUS_OK &&
           bop_item_next(BOP_OP_MAP_PUT_ALL, &items, &item)) {
        bool alien = false, done = true;

        write->key = item.key;
        write->value = item.value;
        /* It may have been pushed out of the cache by then. */
        rc = bop__machine_collection_find(machine, COLLECTION_MAP, write->operation->name,
                                          &write->map);
        if (rc == 0) {
            rc = look(machine, write, &alien);
        }
        added += rc == 0 && !alien && !write->old;
        if (rc == 0 && !alien) {
            rc = put(machine, write, write->operation->ttl_ms, &done);
        }
        if (rc == 0 && (alien || !done)) {
            machine_reply_set(reply, alien ? BOP_STATUS_BAD_REQUEST : BOP_STATUS_BUSY);
        }
    }
    if (rc < 0) {
        return rc;
    }
    if (reply->status != BOP_STATUS_OK) {
        return nested ? 0 : bop__machine_undo_run(machine);
    }
    machine_reply_add_u64(reply, added);
    if (!nested) {
        bop__machine_undo_drop(machine);
    }
    return 0;
}

int bop__machine_map_write(struct machine *machine, uint64_t index,
                           const struct bop_operation *operation, struct machine_reply *out_reply)
{
    struct map_write write = {
        .operation = operation, .key = operation->key, .value = operation->value, .index = index};
    int rc;

    if (operation->op == BOP_OP_MAP_CREATE) {
        return bop__machine_collection_create(machine, index, COLLECTION_MAP, operation->name,
                                              out_reply);
    }
    if (operation->op == BOP_OP_MAP_CLEAR) {
        return bop__machine_collection_clear(machine, COLLECTION_MAP, operation->name, out_reply);
    }
    if (operation->op == BOP_OP_MAP_PUT_ALL) {
        return put_all(machine, &write, out_reply);
    }
    rc = bop__machine_collection_find(machine, COLLECTION_MAP, operation->name, &write.map);
    return rc ? rc : map_change(machine, &write, out_reply);
}

int bop__machine_entry_expire(struct machine *machine, const struct machine_deadline *deadline,
                              struct bop_slice value)
{
    struct bop_reader reader = bop_reader(value);
    struct bop_operation operation = {.name = bop_read_bytes(&reader)};
    struct map_write write = {.operation = &operation, .key = bop_read_bytes(&reader)};
    bool alien = false;
    int rc;

    if (!bop_reader_done(&reader)) {
        return BOP_ECORRUPT;
    }
    rc = bop__machine_collection_find(machine, COLLECTION_MAP, operation.name, &write.map);
    if (rc < 0 || !write.map || write.map->record.id != deadline->id) {
        return rc; /* The map was cleared since. */
    }
    rc = look(machine, &write, &alien);
    if (rc < 0 || alien || !write.old || write.old->version != deadline->number) {
        return rc;
    }
    write.found.deadline_ms = 0; /* Its record is gone already. */
    return delete (machine, &write, BOP_EVENT_EXPIRED);
}

/* ---- Reads ---- */

static uint64_t ttl_left(const struct machine_view *view, const struct machine_entry *entry)
{
    if (entry->deadline_ms == 0) {
        return 0;
    }
    return entry->deadline_ms > view->position.time_ms ? entry->deadline_ms - view->position.time_ms
                                                       : 1; /* It goes any moment now. */
}

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
    if (operation->op == BOP_OP_MAP_GET_TTL) {
        bop_write_u64(&writer, ttl_left(view, &entry));
    }
    bop_write_bytes(&writer, entry.value);
    return writer.code ? writer.code : BOP_STATUS_OK;
}

int bop__machine_map_read(struct machine_view *view, const struct bop_operation *operation,
                          struct bop_buf *out)
{
    switch (operation->op) {
    case BOP_OP_MAP_GET:
    case BOP_OP_MAP_GET_TTL:
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
