/*
 * Sets: collections of byte strings. A member is the key of an entry without a value;
 * its version is the index of the log entry that added it.
 */
#include "machine_internal.h"

static int tell(struct machine *machine, enum bop_event_type type,
                const struct bop_operation *operation)
{
    return bop__machine_event(
        machine, &(struct bop_event){.type = type, .name = operation->name, .key = operation->key});
}

static int set_add(struct machine *machine, uint64_t index, struct collection *set,
                   const struct bop_operation *operation, struct machine_key *store_key,
                   bool existed, struct machine_reply *reply)
{
    struct machine_entry entry = {.version = index, .key = operation->key};
    int rc;

    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, !existed);
    if (existed) {
        return 0;
    }
    if (!set) {
        rc = bop__machine_collection_make(machine, index, COLLECTION_SET, operation->name, &set);
        if (rc < 0 || !set) {
            machine_reply_set(reply, BOP_STATUS_BUSY);
            return rc;
        }
        machine_store_be32(store_key->bytes, set->record.id);
    }
    rc = tell(machine, BOP_EVENT_SET_ADD, operation);
    return rc ? rc : bop__machine_entry_put(machine, set, store_key, &entry, false);
}

static int set_remove(struct machine *machine, struct collection *set,
                      const struct bop_operation *operation, const struct machine_key *store_key,
                      bool existed, struct machine_reply *reply)
{
    int rc;

    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, existed);
    if (!existed) {
        return 0;
    }
    rc = tell(machine, BOP_EVENT_SET_REMOVE, operation);
    return rc ? rc : bop__machine_entry_delete(machine, set, store_key);
}

int bop__machine_set_write(struct machine *machine, uint64_t index,
                           const struct bop_operation *operation, struct machine_reply *out_reply)
{
    struct collection *set;
    struct machine_entry entry;
    struct machine_key store_key;
    bool existed = false;
    int rc;

    if (operation->op == BOP_OP_SET_CREATE) {
        return bop__machine_collection_create(machine, index, COLLECTION_SET, operation->name,
                                              out_reply);
    }
    if (operation->op == BOP_OP_SET_CLEAR) {
        return bop__machine_collection_clear(machine, COLLECTION_SET, operation->name, out_reply);
    }
    rc = bop__machine_collection_find(machine, COLLECTION_SET, operation->name, &set);
    if (rc == 0) {
        rc = bop__machine_key_make(set ? set->record.id : 0, operation->key, &store_key);
    }
    if (rc == 0 && set) {
        rc = bop__machine_entry_find(machine->txn, machine->tables[MACHINE_ENTRIES], &store_key,
                                     operation->key, &entry);
        existed = rc == 0;
    }
    if (rc == BOP_EEXISTS) {
        machine_reply_set(out_reply, BOP_STATUS_BAD_REQUEST);
        return 0;
    }
    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    return operation->op == BOP_OP_SET_ADD
               ? set_add(machine, index, set, operation, &store_key, existed, out_reply)
               : set_remove(machine, set, operation, &store_key, existed, out_reply);
}

static int set_contains(struct machine_view *view, const struct bop_operation *operation,
                        struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);
    struct machine_collection_record set;
    struct machine_entry entry;
    struct machine_key store_key;
    int rc = bop__machine_view_collection(view, COLLECTION_SET, operation->name, &set);

    if (rc == 0) {
        rc = bop__machine_key_make(set.id, operation->key, &store_key);
    }
    if (rc == 0) {
        rc = bop__machine_entry_find(view->txn, view->tables[MACHINE_ENTRIES], &store_key,
                                     operation->key, &entry);
    }
    if (rc < 0 && rc != BOP_ENOTFOUND && rc != BOP_EEXISTS) {
        return rc;
    }
    bop_write_bool(&writer, rc == 0);
    return writer.code ? writer.code : BOP_STATUS_OK;
}

int bop__machine_set_read(struct machine_view *view, const struct bop_operation *operation,
                          struct bop_buf *out)
{
    switch (operation->op) {
    case BOP_OP_SET_CONTAINS:
        return set_contains(view, operation, out);
    case BOP_OP_SET_SIZE:
        return bop__machine_collection_size(view, COLLECTION_SET, operation->name, out);
    case BOP_OP_SET_SCAN:
        return bop__machine_collection_scan(view, COLLECTION_SET, operation, out);
    default:
        return BOP_STATUS_BAD_REQUEST;
    }
}
