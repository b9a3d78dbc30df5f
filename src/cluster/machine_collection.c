/*
 * Collections: what maps, sets and multimaps have in common. Each is a name in a
 * table of its kind, a number that no other collection ever has, and entries
 * under that number.
 *
 * Id and size of those last used lie in a cache; a size goes to the store when the
 * batch is committed.
 */
#include <bop/crc32c.h>

#include "buggify.h"
#include "machine_internal.h"

/* ---- The cache ---- */

static enum machine_table names_table(enum collection_kind kind)
{
    static const enum machine_table tables[COLLECTION_KINDS] = {
        [COLLECTION_MAP] = MACHINE_MAPS,
        [COLLECTION_SET] = MACHINE_SETS,
        [COLLECTION_MULTIMAP] = MACHINE_MULTIMAPS,
        [COLLECTION_GROUP] = MACHINE_GROUPS,
        [COLLECTION_REGISTRY] = MACHINE_REGISTRIES,
    };

    return tables[kind];
}

/* Nobody is told when a group or a registry is made: that follows from what is put in. */
static int tell_make(struct machine *machine, enum collection_kind kind, struct bop_slice name)
{
    static const enum bop_event_type types[COLLECTION_KINDS] = {
        [COLLECTION_MAP] = BOP_EVENT_MAP_CREATE,
        [COLLECTION_SET] = BOP_EVENT_SET_CREATE,
        [COLLECTION_MULTIMAP] = BOP_EVENT_MULTIMAP_CREATE,
    };

    return types[kind] == 0 ? 0
                            : bop__machine_event(
                                  machine, &(struct bop_event){.type = types[kind], .name = name});
}

static uint32_t hash_of(enum collection_kind kind, struct bop_slice name)
{
    return bop_crc32c((uint32_t)kind, name.data, name.size);
}

/* The slot of a name, or the free one where it belongs. There always is one: count stays below. */
static struct collection *cache_slot(struct collection_cache *cache, enum collection_kind kind,
                                     struct bop_slice name, uint32_t hash)
{
    for (size_t i = hash;; i++) {
        struct collection *slot = &cache->slots[i % MACHINE_COLLECTION_SLOTS];

        if (!slot->used || (slot->hash == hash && slot->kind == kind &&
                            bop_slice_equal(bop_slice(slot->name, slot->name_size), name))) {
            return slot;
        }
    }
}

static int store_record(struct machine *machine, enum collection_kind kind, struct bop_slice name,
                        const struct machine_collection_record *record)
{
    uint8_t bytes[MACHINE_COLLECTION_SIZE];

    bop__machine_collection_encode(bytes, record);
    return bop__machine_put(machine, names_table(kind), name, bop_slice(bytes, sizeof(bytes)));
}

int bop__machine_collections_flush(struct machine *machine)
{
    for (size_t i = 0; i < MACHINE_COLLECTION_SLOTS; i++) {
        struct collection *slot = &machine->collections.slots[i];
        int rc;

        if (!slot->used || !slot->dirty) {
            continue;
        }
        rc = store_record(machine, slot->kind, bop_slice(slot->name, slot->name_size),
                          &slot->record);
        if (rc < 0) {
            return rc;
        }
        slot->dirty = false;
    }
    return 0;
}

void bop__machine_collections_forget(struct machine *machine)
{
    struct collection_cache *cache = &machine->collections;

    for (size_t i = 0; i < MACHINE_COLLECTION_SLOTS && cache->slots; i++) {
        cache->slots[i].used = false;
    }
    cache->count = 0;
}

/* 0, BOP_ENOTFOUND or another code. */
static int load_record(struct bop_kv_txn *txn, const struct bop_kv_table *tables,
                       enum collection_kind kind, struct bop_slice name,
                       struct machine_collection_record *out_record)
{
    struct bop_slice value;
    int rc = bop_kv_get(txn, tables[names_table(kind)], name, &value);

    return rc ? rc : bop__machine_collection_decode(value, out_record);
}

int bop__machine_collection_find(struct machine *machine, enum collection_kind kind,
                                 struct bop_slice name, struct collection **out_collection)
{
    struct collection_cache *cache = &machine->collections;
    uint32_t hash = hash_of(kind, name);
    struct collection *slot = cache_slot(cache, kind, name, hash);
    struct machine_collection_record record;
    int rc;

    if (slot->used) {
        *out_collection = slot;
        return 0;
    }
    *out_collection = NULL;
    rc = load_record(machine->txn, machine->tables, kind, name, &record);
    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? 0 : rc;
    }
    if (cache->count == MACHINE_COLLECTIONS_CACHED_MAX ||
        (cache->count > 0 && buggify(BUGGIFY_COLLECTIONS_FORGET))) {
        rc = bop__machine_collections_flush(machine);
        if (rc < 0) {
            return rc;
        }
        bop__machine_collections_forget(machine);
        slot = cache_slot(cache, kind, name, hash);
    }
    *slot = (struct collection){.kind = kind,
                                .record = record,
                                .hash = hash,
                                .used = true,
                                .name_size = (uint8_t)name.size};
    memcpy(slot->name, name.data, name.size);
    cache->count++;
    *out_collection = slot;
    return 0;
}

int bop__machine_collection_make(struct machine *machine, uint64_t index, enum collection_kind kind,
                                 struct bop_slice name, struct collection **out_collection)
{
    struct machine_collection_record record = {
        .id = machine->map_next, .entries = 0, .created = index};
    int rc;

    *out_collection = NULL;
    if (machine->map_next == UINT32_MAX) {
        return 0;
    }
    rc = store_record(machine, kind, name, &record);
    if (rc < 0) {
        return rc;
    }
    machine->map_next++;
    machine->map_next_dirty = true;
    rc = tell_make(machine, kind, name);
    if (rc < 0) {
        return rc;
    }
    return bop__machine_collection_find(machine, kind, name, out_collection);
}

int bop__machine_collection_create(struct machine *machine, uint64_t index,
                                   enum collection_kind kind, struct bop_slice name,
                                   struct machine_reply *reply)
{
    struct collection *collection;
    bool existed;
    int rc = bop__machine_collection_find(machine, kind, name, &collection);

    if (rc < 0) {
        return rc;
    }
    existed = collection != NULL;
    if (!existed) {
        rc = bop__machine_collection_make(machine, index, kind, name, &collection);
        if (rc < 0 || !collection) {
            machine_reply_set(reply, BOP_STATUS_BUSY);
            return rc;
        }
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, !existed);
    return 0;
}

/* ---- Entries ---- */

int bop__machine_entry_find(struct bop_kv_txn *txn, struct bop_kv_table table,
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

int bop__machine_entry_put(struct machine *machine, struct collection *collection,
                           const struct machine_key *store_key, const struct machine_entry *entry,
                           bool existed)
{
    int rc = bop__machine_entry_encode(store_key, entry, &machine->scratch);

    if (rc == 0) {
        rc = bop__machine_put(machine, MACHINE_ENTRIES,
                              bop_slice(store_key->bytes, store_key->size),
                              bop_buf_slice(&machine->scratch));
    }
    if (rc == 0 && !existed) {
        collection->record.entries++;
        collection->dirty = true;
        machine->batch_entries++;
    }
    return rc;
}

int bop__machine_entry_insert(struct machine *machine, struct collection *collection,
                              const struct machine_key *store_key,
                              const struct machine_entry *entry)
{
    struct bop_slice existing;
    int rc = bop__machine_entry_encode(store_key, entry, &machine->scratch);

    if (rc == 0) {
        rc = bop__machine_insert(machine, MACHINE_ENTRIES,
                                 bop_slice(store_key->bytes, store_key->size),
                                 bop_buf_slice(&machine->scratch), &existing);
    }
    if (rc == 0) {
        collection->record.entries++;
        collection->dirty = true;
        machine->batch_entries++;
    }
    return rc;
}

int bop__machine_entry_delete(struct machine *machine, struct collection *collection,
                              const struct machine_key *store_key)
{
    int rc = bop__machine_del(machine, MACHINE_ENTRIES,
                              bop_slice(store_key->bytes, store_key->size));

    if (rc < 0) {
        return rc;
    }
    if (collection->record.entries == 0) {
        return BOP_ECORRUPT;
    }
    collection->record.entries--;
    collection->dirty = true;
    machine->batch_entries--;
    return 0;
}

int bop__machine_entries_remove(struct machine *machine, uint32_t id, struct bop_slice prefix,
                                uint64_t max, uint64_t *out_removed)
{
    struct machine_walk walk;
    uint64_t removed = 0;
    int rc = bop__machine_walk_begin(&walk, machine->txn, machine->tables[MACHINE_ENTRIES], id);

    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_walk_seek(&walk, prefix, false);
    while (rc == 0 && removed < max && machine_begins_with(walk.key, prefix)) {
        rc = bop__machine_cursor_del(machine, MACHINE_ENTRIES, walk.cursor, walk.store_key,
                                     walk.store_value);
        if (rc == 0) {
            removed++;
            rc = bop__machine_walk_next(&walk);
        }
    }
    bop__machine_walk_end(&walk);
    machine->batch_entries -= (int64_t)removed;
    *out_removed = removed;
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

/* ---- Reads ---- */

int bop__machine_view_collection(struct machine_view *view, enum collection_kind kind,
                                 struct bop_slice name,
                                 struct machine_collection_record *out_record)
{
    return load_record(view->txn, view->tables, kind, name, out_record);
}

int bop__machine_collection_size(struct machine_view *view, enum collection_kind kind,
                                 struct bop_slice name, struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);
    struct machine_collection_record record = {0};
    int rc = bop__machine_view_collection(view, kind, name, &record);

    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    bop_write_u64(&writer, record.entries);
    return writer.code ? writer.code : BOP_STATUS_OK;
}
