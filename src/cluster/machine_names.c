/*
 * The names there are, of each kind, in the order of their bytes. A prefix "app/" gives
 * those of the namespace "app": namespaces are nothing but what stands in front of the
 * first '/' of a name.
 */
#include "machine_lock.h"

static enum machine_table table_of(enum bop_name_kind kind)
{
    static const enum machine_table tables[] = {
        [BOP_NAME_MAP] = MACHINE_MAPS,
        [BOP_NAME_SET] = MACHINE_SETS,
        [BOP_NAME_MULTIMAP] = MACHINE_MULTIMAPS,
        [BOP_NAME_COUNTER] = MACHINE_COUNTERS,
        [BOP_NAME_LOCK] = MACHINE_LOCKS,
        [BOP_NAME_GROUP] = MACHINE_GROUPS,
        [BOP_NAME_REGISTRY] = MACHINE_REGISTRIES,
    };

    return tables[kind];
}

/* What made it, and how large it is. */
static int describe(enum bop_name_kind kind, struct bop_slice value, uint64_t *out_created,
                    uint64_t *out_size)
{
    struct machine_collection_record collection;
    struct machine_counter counter;
    struct machine_lock lock;
    int rc;

    switch (kind) {
    case BOP_NAME_COUNTER:
        rc = bop__machine_counter_decode(value, &counter);
        *out_created = counter.created;
        *out_size = (uint64_t)counter.value;
        return rc;
    case BOP_NAME_LOCK:
        rc = bop__machine_lock_decode(value, &lock);
        *out_created = lock.created;
        *out_size = lock.requests;
        return rc;
    default:
        rc = bop__machine_collection_decode(value, &collection);
        *out_created = collection.created;
        *out_size = collection.entries;
        return rc;
    }
}

static int add(struct machine_page *page, enum bop_name_kind kind, struct bop_slice name,
               struct bop_slice value)
{
    uint64_t created = 0, size = 0;
    uint8_t bytes[8];
    struct machine_entry entry;
    int rc = describe(kind, value, &created, &size);

    if (rc < 0) {
        return rc;
    }
    bop_store_u64(bytes, size);
    entry = (struct machine_entry){
        .version = created, .key = name, .value = bop_slice(bytes, sizeof(bytes))};
    return bop__machine_page_add(page, name, &entry);
}

/* From the prefix on, or from behind the last name of the page before. */
static int first(struct machine_page *page, struct bop_kv_cursor *cursor, struct bop_slice prefix,
                 struct bop_slice *out_name, struct bop_slice *out_value)
{
    bool again = page->again && bop_slice_compare(page->from, prefix) >= 0;
    struct bop_slice from = again ? page->from : prefix;
    int rc = from.size > 0
                 ? bop_kv_cursor_seek(cursor, BOP_KV_AT_OR_AFTER, from, out_name, out_value)
                 : bop_kv_cursor_seek(cursor, BOP_KV_FIRST, from, out_name, out_value);

    if (rc == 0 && again && bop_slice_equal(*out_name, from)) {
        rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bop_slice(NULL, 0), out_name, out_value);
    }
    return rc;
}

int bop__machine_names_read(struct machine_view *view, const struct bop_operation *operation,
                            struct bop_buf *out)
{
    struct bop_kv_cursor *cursor;
    struct bop_slice name, value;
    struct machine_page page;
    int rc = bop__machine_page_begin(&page, operation, out);

    if (rc != 0) {
        return rc;
    }
    if (operation->prefix.size > BOP_NAME_MAX) { /* No name begins with so much. */
        return bop__machine_page_end(&page, view->position.index);
    }
    rc = bop_kv_cursor_open(view->txn, view->tables[table_of(operation->kind)], &cursor);
    if (rc < 0) {
        return rc;
    }
    rc = first(&page, cursor, operation->prefix, &name, &value);
    while (rc == 0 && machine_begins_with(name, operation->prefix)) {
        rc = add(&page, operation->kind, name, value);
        if (rc == 0) {
            rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bop_slice(NULL, 0), &name, &value);
        }
    }
    bop_kv_cursor_close(cursor);
    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    return bop__machine_page_end(&page, view->position.index);
}
