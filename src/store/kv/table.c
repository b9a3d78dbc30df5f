/*
 * Tables and their names, entries, cursors.
 *
 * LMDB ties a table's handle to the transaction that opened it, and closes the
 * handle if that one is aborted. Ours live as long as the store: all tables
 * there are get their handles at open, a new one when the transaction that makes it
 * commits, and opening a table is a look into that list.
 */
#include <stdio.h>
#include <string.h>

#include "kv.h"

/* LMDB's node has a head of 8 bytes. */
#define NODE_HEAD_BYTES 8

static MDB_val val(struct bop_slice slice)
{
    return (MDB_val){.mv_data = (void *)(uintptr_t)slice.data, .mv_size = slice.size};
}

static struct bop_slice slice_of(MDB_val value)
{
    return bop_slice(value.mv_data, value.mv_size);
}

/* ---- Names; all under the store's mutex ---- */

static int add_name(struct bop_kv *kv, const char *name, size_t size, unsigned handle,
                    bool committed)
{
    char *copy;

    BOP_ASSERT(kv->name_count < kv->tables_max); /* LMDB counted them with the same bound. */
    copy = bop_alloc(kv->allocator, size + 1);
    if (!copy) {
        return BOP_ENOMEM;
    }
    memcpy(copy, name, size);
    copy[size] = 0;
    kv->names[kv->name_count++] = (struct kv_name){
        .name = copy, .handle = handle, .committed = committed};
    return 0;
}

static const struct kv_name *find_name(struct bop_kv *kv, const char *name, bool writer)
{
    for (unsigned i = 0; i < kv->name_count; i++) {
        if (strcmp(kv->names[i].name, name) == 0 && (kv->names[i].committed || writer)) {
            return &kv->names[i];
        }
    }
    return NULL;
}

static void free_name(struct bop_kv *kv, struct kv_name *name)
{
    bop_free(kv->allocator, name->name, strlen(name->name) + 1);
}

void bop__kv_tables_settle(struct bop_kv *kv, bool committed)
{
    pthread_mutex_lock(&kv->mutex);
    /* New ones are at the end: only one write transaction adds at a time. */
    for (unsigned i = kv->name_count; i > 0 && !kv->names[i - 1].committed; i--) {
        if (committed) {
            kv->names[i - 1].committed = true;
        } else {
            free_name(kv, &kv->names[--kv->name_count]);
        }
    }
    pthread_mutex_unlock(&kv->mutex);
}

void bop__kv_tables_deinit(struct bop_kv *kv)
{
    for (unsigned i = 0; i < kv->name_count; i++) {
        free_name(kv, &kv->names[i]);
    }
    kv->name_count = 0;
}

static int load_name(struct bop_kv *kv, MDB_txn *txn, MDB_val key, struct bop_error *err)
{
    char name[BOP_KV_KEY_MAX + 1];
    MDB_dbi dbi;
    int rc;

    if (key.mv_size >= sizeof(name) || memchr(key.mv_data, 0, key.mv_size)) {
        return bop_error_set(err, BOP_ECORRUPT, "name of a table");
    }
    memcpy(name, key.mv_data, key.mv_size);
    name[key.mv_size] = 0;
    rc = bop__kv_code(mdb_dbi_open(txn, name, 0, &dbi));
    if (rc == BOP_EFULL) {
        return bop_error_say(err, rc, "the store has more than %u tables: raise tables_max",
                             kv->tables_max);
    }
    if (rc == 0) {
        rc = add_name(kv, name, key.mv_size, dbi, true);
    }
    return rc ? bop_error_set(err, rc, "table %s", name) : 0;
}

int bop__kv_tables_load(struct bop_kv *kv, struct bop_error *err)
{
    MDB_val key, value;
    MDB_cursor *cursor;
    MDB_txn *txn;
    int rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0) {
        return bop_error_set(err, bop__kv_code(rc), "list the tables");
    }
    rc = mdb_cursor_open(txn, KV_MAIN_TABLE, &cursor);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return bop_error_set(err, bop__kv_code(rc), "list the tables");
    }
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        int failed = load_name(kv, txn, key, err);

        if (failed) {
            mdb_cursor_close(cursor);
            mdb_txn_abort(txn);
            return failed;
        }
    }
    mdb_cursor_close(cursor);
    if (rc != MDB_NOTFOUND) {
        mdb_txn_abort(txn);
        return bop_error_set(err, bop__kv_code(rc), "list the tables");
    }
    rc = bop__kv_code(mdb_txn_commit(txn)); /* Not abort, which would close the handles. */
    return rc ? bop_error_set(err, rc, "list the tables") : 0;
}

/* ---- Tables ---- */

/* 0, or why a transaction can write no more. */
static int check_writable(const struct bop_kv_txn *txn)
{
    return txn->write ? txn->failed : BOP_EINVAL;
}

/* A failed change may leave a transaction in the middle of something: it can only be aborted. */
static int changed(struct bop_kv_txn *txn, int lmdb_code)
{
    int rc = bop__kv_code(lmdb_code);

    txn->found.key.mv_size = 0;
    if (rc < 0 && rc != BOP_ENOTFOUND && rc != BOP_EINVAL) {
        txn->failed = rc;
    }
    return rc;
}

static int make_table(struct bop_kv_txn *txn, const char *name, struct bop_kv_table *out_table)
{
    struct bop_kv *kv = txn->kv;
    MDB_dbi dbi;
    int rc = check_writable(txn);

    if (rc == 0) {
        rc = bop__kv_charge(txn, KV_MAIN_TABLE, 0, false);
    }
    if (rc == 0) {
        rc = changed(txn, mdb_dbi_open(txn->txn, name, MDB_CREATE, &dbi));
    }
    if (rc == BOP_EFULL) {
        txn->failed = 0; /* LMDB says so before it touches anything. */
    }
    if (rc != 0) {
        return rc;
    }
    pthread_mutex_lock(&kv->mutex);
    rc = add_name(kv, name, strlen(name), dbi, false);
    pthread_mutex_unlock(&kv->mutex);
    if (rc < 0) {
        txn->failed = rc; /* Else the table would be there, without a handle. */
        return rc;
    }
    out_table->handle = dbi;
    return 0;
}

int bop_kv_table_open(struct bop_kv_txn *txn, const char *name, bool create,
                      struct bop_kv_table *out_table)
{
    const struct kv_name *found;
    unsigned handle = 0;
    size_t size = strlen(name);
    MDB_stat stat;
    int rc;

    if (size == 0 || size > BOP_KV_KEY_MAX) {
        return BOP_EINVAL;
    }
    pthread_mutex_lock(&txn->kv->mutex);
    found = find_name(txn->kv, name, txn->write);
    if (found) {
        handle = found->handle;
    }
    pthread_mutex_unlock(&txn->kv->mutex);
    if (!handle) {
        return create ? make_table(txn, name, out_table) : BOP_ENOTFOUND;
    }
    /* A reader's snapshot may be older than the table. */
    rc = bop__kv_code(mdb_stat(txn->txn, handle, &stat));
    if (rc < 0) {
        return rc == BOP_EINVAL ? BOP_ENOTFOUND : rc;
    }
    out_table->handle = handle;
    return 0;
}

/* Before what takes pages away: LMDB need not keep the cursor right through that. */
static void forget_found(struct bop_kv_txn *txn)
{
    if (txn->found.cursor) {
        mdb_cursor_close(txn->found.cursor);
        txn->found = (struct kv_found){.cursor = NULL};
    }
}

/* LMDB's own two tables are not for callers. */
static bool table_valid(struct bop_kv_table table)
{
    return table.handle >= KV_FIRST_TABLE;
}

int bop_kv_table_clear(struct bop_kv_txn *txn, struct bop_kv_table table)
{
    int rc = table_valid(table) ? check_writable(txn) : BOP_EINVAL;

    if (rc == 0) {
        rc = bop__kv_charge_clear(txn, table.handle);
    }
    forget_found(txn);
    return rc ? rc : changed(txn, mdb_drop(txn->txn, table.handle, 0));
}

int bop_kv_table_count(struct bop_kv_txn *txn, struct bop_kv_table table, uint64_t *out_count)
{
    MDB_stat stat;
    int rc = table_valid(table) ? bop__kv_code(mdb_stat(txn->txn, table.handle, &stat))
                                : BOP_EINVAL;

    if (rc == 0) {
        *out_count = stat.ms_entries;
    }
    return rc;
}

/* ---- Entries ---- */

static bool key_valid(struct bop_slice key)
{
    return key.size > 0 && key.size <= BOP_KV_KEY_MAX;
}

/* Get, and remember where it was. */
static int find(struct bop_kv_txn *txn, unsigned table, MDB_val *key, MDB_val *out_value)
{
    struct kv_found *found = &txn->found;
    int rc;

    if (!txn->write || txn->failed < 0) {
        return mdb_get(txn->txn, table, key, out_value);
    }
    if (!found->cursor && mdb_cursor_open(txn->txn, table, &found->cursor) == 0) {
        found->table = table;
    }
    if (!found->cursor || found->table != table) {
        return mdb_get(txn->txn, table, key, out_value);
    }
    found->key.mv_size = 0;
    rc = mdb_cursor_get(found->cursor, key, out_value, MDB_SET_KEY);
    if (rc == 0) {
        found->key = *key; /* The stored one. */
    }
    return rc;
}

static bool is_found(const struct bop_kv_txn *txn, unsigned table, struct bop_slice key)
{
    const struct kv_found *found = &txn->found;

    return found->key.mv_size == key.size && found->table == table &&
           memcmp(found->key.mv_data, key.data, key.size) == 0;
}

int bop_kv_get(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
               struct bop_slice *out_value)
{
    MDB_val k = val(key), value;
    int rc;

    if (!table_valid(table) || !key_valid(key)) {
        return BOP_EINVAL;
    }
    rc = bop__kv_code(find(txn, table.handle, &k, &value));
    if (rc == 0) {
        *out_value = slice_of(value);
    }
    return rc;
}

static int put(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
               struct bop_slice value, unsigned flags)
{
    MDB_val k = val(key), v = val(value);
    int rc;

    if (!table_valid(table) || !key_valid(key)) {
        return BOP_EINVAL;
    }
    if (value.size > KV_VALUE_BYTES_MAX) {
        return BOP_ETOOBIG;
    }
    rc = check_writable(txn);
    if (rc == 0) {
        rc = bop__kv_charge(txn, table.handle, NODE_HEAD_BYTES + key.size + value.size, false);
    }
    if (rc < 0) {
        return rc;
    }
    if (flags == 0 && is_found(txn, table.handle, key)) {
        return changed(txn, mdb_cursor_put(txn->found.cursor, &k, &v, MDB_CURRENT));
    }
    return changed(txn, mdb_put(txn->txn, table.handle, &k, &v, flags));
}

int bop_kv_put(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
               struct bop_slice value)
{
    return put(txn, table, key, value, 0);
}

int bop_kv_append(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
                  struct bop_slice value)
{
    return put(txn, table, key, value, MDB_APPEND);
}

int bop_kv_del(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key)
{
    MDB_val k = val(key);
    int rc;

    if (!table_valid(table) || !key_valid(key)) {
        return BOP_EINVAL;
    }
    rc = check_writable(txn);
    if (rc == 0) {
        rc = bop__kv_charge(txn, table.handle, 0, true);
    }
    forget_found(txn);
    return rc ? rc : changed(txn, mdb_del(txn->txn, table.handle, &k, NULL));
}

/* ---- Cursors ---- */

int bop_kv_cursor_open(struct bop_kv_txn *txn, struct bop_kv_table table,
                       struct bop_kv_cursor **out_cursor)
{
    struct bop_kv_cursor *cursor;
    int rc;

    if (!table_valid(table)) {
        return BOP_EINVAL;
    }
    cursor = bop_alloc_zeroed(txn->kv->allocator, sizeof(*cursor));
    if (!cursor) {
        return BOP_ENOMEM;
    }
    cursor->txn = txn;
    rc = bop__kv_code(mdb_cursor_open(txn->txn, table.handle, &cursor->cursor));
    if (rc < 0) {
        bop_free(txn->kv->allocator, cursor, sizeof(*cursor));
        return rc;
    }
    txn->cursors++;
    *out_cursor = cursor;
    return 0;
}

void bop_kv_cursor_close(struct bop_kv_cursor *cursor)
{
    if (!cursor) {
        return;
    }
    mdb_cursor_close(cursor->cursor);
    cursor->txn->cursors--;
    bop_free(cursor->txn->kv->allocator, cursor, sizeof(*cursor));
}

int bop_kv_cursor_seek(struct bop_kv_cursor *cursor, enum bop_kv_seek seek, struct bop_slice key,
                       struct bop_slice *out_key, struct bop_slice *out_value)
{
    static const MDB_cursor_op operations[] = {
        [BOP_KV_FIRST] = MDB_FIRST,
        [BOP_KV_LAST] = MDB_LAST,
        [BOP_KV_NEXT] = MDB_NEXT,
        [BOP_KV_PREV] = MDB_PREV,
        [BOP_KV_AT_OR_AFTER] = MDB_SET_RANGE,
    };
    MDB_val k = {0}, value;
    int rc;

    if ((unsigned)seek >= BOP_COUNT_OF(operations)) {
        return BOP_EINVAL;
    }
    if (seek == BOP_KV_AT_OR_AFTER) {
        if (key.size > BOP_KV_KEY_MAX) {
            return BOP_EINVAL;
        }
        k = val(key);
        seek = key.size == 0 ? BOP_KV_FIRST : seek; /* All keys are above the empty one. */
    }
    rc = bop__kv_code(mdb_cursor_get(cursor->cursor, &k, &value, operations[seek]));
    if (rc == 0 && seek == BOP_KV_LAST && cursor->txn->write) {
        /* LMDB would remember the end, and miss a next entry that is put meanwhile if it begins a
         * page. A search forgets that. */
        rc = bop__kv_code(mdb_cursor_get(cursor->cursor, &k, &value, MDB_SET_KEY));
    }
    if (rc == 0) {
        *out_key = slice_of(k);
        *out_value = slice_of(value);
    }
    return rc;
}
