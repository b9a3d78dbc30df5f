/*
 * Multimaps: pairs (machine_pair.h) of a key and a value, each there once, any number of
 * values to a key.
 */
#include "machine_pair.h"

/* ---- Writes ---- */

static int tell(struct machine *machine, enum bop_event_type type,
                const struct bop_operation *operation, uint64_t number)
{
    return bop__machine_event(machine, &(struct bop_event){.type = type,
                                                           .name = operation->name,
                                                           .key = operation->key,
                                                           .value = operation->value,
                                                           .number = (int64_t)number});
}

static int put(struct machine *machine, uint64_t index, struct collection *multimap,
               const struct bop_operation *operation, struct machine_key *store_key,
               struct machine_entry *entry, struct machine_reply *reply)
{
    int rc;

    if (!multimap) {
        rc = bop__machine_collection_make(machine, index, COLLECTION_MULTIMAP, operation->name,
                                          &multimap);
        if (rc < 0 || !multimap) {
            machine_reply_set(reply, BOP_STATUS_BUSY);
            return rc;
        }
        machine_store_be32(store_key->bytes, multimap->record.id);
    }
    entry->version = index;
    rc = tell(machine, BOP_EVENT_MULTIMAP_PUT, operation, 0);
    return rc ? rc : bop__machine_entry_put(machine, multimap, store_key, entry, false);
}

/* A put or a remove of one pair. */
static int change_pair(struct machine *machine, uint64_t index, struct collection *multimap,
                       const struct machine_head *head, const struct bop_operation *operation,
                       struct machine_reply *reply)
{
    bool putting = operation->op == BOP_OP_MULTIMAP_PUT;
    struct machine_key store_key;
    struct machine_entry entry;
    int rc = bop__machine_pair_encode(head, operation->key, operation->value, &machine->pair,
                                      &entry);

    if (rc == 0) {
        rc = bop__machine_key_make(multimap ? multimap->record.id : 0, entry.key, &store_key);
    }
    if (rc < 0) {
        return rc;
    }
    rc = BOP_ENOTFOUND;
    if (multimap) {
        rc = bop__machine_pair_find(machine->txn, machine->tables[MACHINE_ENTRIES], &store_key,
                                    &entry);
    }
    if (rc == BOP_EEXISTS) {
        machine_reply_set(reply, BOP_STATUS_BAD_REQUEST);
        return 0;
    }
    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, putting == (rc == BOP_ENOTFOUND));
    if (putting) {
        return rc == 0 ? 0 : put(machine, index, multimap, operation, &store_key, &entry, reply);
    }
    if (rc == BOP_ENOTFOUND) {
        return 0;
    }
    rc = tell(machine, BOP_EVENT_MULTIMAP_REMOVE_VALUE, operation, 0);
    return rc ? rc : bop__machine_entry_delete(machine, multimap, &store_key);
}

/* All pairs of a key. */
static int remove_key(struct machine *machine, struct collection *multimap,
                      const struct machine_head *head, const struct bop_operation *operation,
                      struct machine_reply *reply)
{
    uint64_t removed = 0;
    int rc = 0;

    if (multimap) {
        rc = bop__machine_entries_remove(machine, multimap->record.id, machine_head_slice(head),
                                         UINT64_MAX, &removed);
        if (rc == 0 && removed > multimap->record.entries) {
            rc = BOP_ECORRUPT;
        }
        multimap->record.entries -= removed;
        multimap->dirty = true;
    }
    if (rc == 0 && removed > 0) {
        rc = tell(machine, BOP_EVENT_MULTIMAP_REMOVE, operation, removed);
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u64(reply, removed);
    return rc;
}

int bop__machine_multimap_write(struct machine *machine, uint64_t index,
                                const struct bop_operation *operation,
                                struct machine_reply *out_reply)
{
    struct collection *multimap;
    struct machine_head head;
    int rc;

    if (operation->op == BOP_OP_MULTIMAP_CREATE) {
        return bop__machine_collection_create(machine, index, COLLECTION_MULTIMAP, operation->name,
                                              out_reply);
    }
    if (operation->op == BOP_OP_MULTIMAP_CLEAR) {
        return bop__machine_collection_clear(machine, COLLECTION_MULTIMAP, operation->name,
                                             out_reply);
    }
    rc = bop__machine_collection_find(machine, COLLECTION_MULTIMAP, operation->name, &multimap);
    if (rc == 0) {
        rc = bop__machine_head_make(operation->key, &head);
    }
    if (rc != 0) {
        return rc;
    }
    return operation->op == BOP_OP_MULTIMAP_REMOVE
               ? remove_key(machine, multimap, &head, operation, out_reply)
               : change_pair(machine, index, multimap, &head, operation, out_reply);
}

/* ---- Reads ---- */

/* What of a pair belongs into a page of this operation. */
static int add_pair(struct machine_page *page, enum bop_op op, const struct machine_pairs *pairs)
{
    struct machine_entry entry = {.version = pairs->walk.entry.version};

    if (op == BOP_OP_MULTIMAP_ENTRIES || op == BOP_OP_MULTIMAP_KEYS) {
        entry.key = pairs->pair.key;
    }
    if (op == BOP_OP_MULTIMAP_KEYS) {
        entry.version = 0;
        return bop__machine_page_add(page, pairs->pair.head, &entry);
    }
    entry.value = pairs->pair.value;
    return bop__machine_page_add(page, pairs->walk.key, &entry);
}

static int fill_page(struct machine_page *page, enum bop_op op, struct machine_pairs *pairs)
{
    bool keys = op == BOP_OP_MULTIMAP_KEYS;
    int rc = keys && page->again ? bop__machine_pairs_next_key(pairs, page->from)
                                 : bop__machine_pairs_first(pairs, page);

    while (rc == 0) {
        rc = add_pair(page, op, pairs);
        if (rc == 0) {
            rc = keys ? bop__machine_pairs_next_key(pairs, pairs->pair.head)
                      : bop__machine_pairs_next(pairs);
        }
    }
    return rc < 0 && rc != BOP_ENOTFOUND ? rc : 0;
}

static int scan(struct machine_view *view, const struct bop_operation *operation,
                struct bop_slice head, struct bop_buf *out)
{
    struct machine_page page;
    struct machine_pairs pairs;
    int rc = bop__machine_page_begin(&page, operation, out);

    if (rc != 0) {
        return rc;
    }
    rc = bop__machine_pairs_begin(&pairs, view, COLLECTION_MULTIMAP, operation->name, head);
    if (rc == 0) {
        rc = fill_page(&page, operation->op, &pairs);
        bop__machine_walk_end(&pairs.walk);
    } else if (rc == BOP_ENOTFOUND) {
        rc = 0;
    }
    return rc ? rc : bop__machine_page_end(&page, view->position.index);
}

/* Count pairs up to max: of a head, or with a value, or both by turns. */
static int count(struct machine_view *view, const struct bop_operation *operation,
                 struct bop_slice head, const struct bop_slice *value, uint64_t max,
                 uint64_t *out_count)
{
    struct machine_pairs pairs;
    uint64_t found = 0;
    int rc = bop__machine_pairs_begin(&pairs, view, COLLECTION_MULTIMAP, operation->name, head);

    if (rc == 0) {
        rc = bop__machine_pairs_first(&pairs, NULL);
        while (rc == 0 && found < max) {
            found += !value || bop_slice_equal(pairs.pair.value, *value);
            rc = bop__machine_pairs_next(&pairs);
        }
        bop__machine_walk_end(&pairs.walk);
    }
    *out_count = found;
    return rc < 0 && rc != BOP_ENOTFOUND ? rc : 0;
}

static int contains_entry(struct machine_view *view, const struct bop_operation *operation,
                          const struct machine_head *head, uint64_t *out_count)
{
    struct machine_collection_record record;
    struct machine_key store_key;
    struct machine_entry entry;
    struct bop_buf buf;
    int rc = bop__machine_view_collection(view, COLLECTION_MULTIMAP, operation->name, &record);

    *out_count = 0;
    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? 0 : rc;
    }
    bop_buf_init(&buf, view->allocator, 0);
    rc = bop__machine_pair_encode(head, operation->key, operation->value, &buf, &entry);
    if (rc == 0) {
        rc = bop__machine_key_make(record.id, entry.key, &store_key);
    }
    if (rc == 0) {
        rc = bop__machine_pair_find(view->txn, view->tables[MACHINE_ENTRIES], &store_key, &entry);
        *out_count = rc == 0;
    }
    bop_buf_deinit(&buf);
    return rc == BOP_ENOTFOUND || rc == BOP_EEXISTS ? 0 : rc;
}

static int answer(int rc, bool as_number, uint64_t number, struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);

    if (rc < 0) {
        return rc;
    }
    if (as_number) {
        bop_write_u64(&writer, number);
    } else {
        bop_write_bool(&writer, number > 0);
    }
    return writer.code ? writer.code : BOP_STATUS_OK;
}

int bop__machine_multimap_read(struct machine_view *view, const struct bop_operation *operation,
                               struct bop_buf *out)
{
    struct bop_slice all = bop_slice(NULL, 0);
    struct machine_head head;
    uint64_t number;
    int rc = bop__machine_head_make(operation->key, &head);

    if (rc < 0) {
        return rc;
    }
    switch (operation->op) {
    case BOP_OP_MULTIMAP_GET:
        return scan(view, operation, machine_head_slice(&head), out);
    case BOP_OP_MULTIMAP_KEYS:
    case BOP_OP_MULTIMAP_VALUES:
    case BOP_OP_MULTIMAP_ENTRIES:
        return scan(view, operation, all, out);
    case BOP_OP_MULTIMAP_SIZE:
        return bop__machine_collection_size(view, COLLECTION_MULTIMAP, operation->name, out);
    case BOP_OP_MULTIMAP_KEY_SIZE:
        rc = count(view, operation, machine_head_slice(&head), NULL, UINT64_MAX, &number);
        return answer(rc, true, number, out);
    case BOP_OP_MULTIMAP_CONTAINS_KEY:
        rc = count(view, operation, machine_head_slice(&head), NULL, 1, &number);
        return answer(rc, false, number, out);
    case BOP_OP_MULTIMAP_CONTAINS_VALUE:
        rc = count(view, operation, all, &operation->value, 1, &number);
        return answer(rc, false, number, out);
    case BOP_OP_MULTIMAP_CONTAINS_ENTRY:
        rc = contains_entry(view, operation, &head, &number);
        return answer(rc, false, number, out);
    default:
        return BOP_STATUS_BAD_REQUEST;
    }
}
