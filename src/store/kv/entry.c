/*
 * Entries: get, put, delete, by key.
 *
 * LMDB trusts its caller with the size of integer keys and of fixed values, and
 * reads past a wrong one; the checks here make that BOP_EINVAL.
 */
#include <string.h>

#include "kv.h"

/* LMDB's node has a head of 8 bytes. */
#define NODE_HEAD_BYTES 8
/* Of put_multiple: values charged at once. */
#define MULTIPLE_STEP 32

void bop__kv_forget_found(struct bop_kv_txn *txn)
{
    if (txn->found.cursor) {
        mdb_cursor_close(txn->found.cursor);
        txn->found = (struct kv_found){.cursor = NULL};
    }
}

static int check_integer(size_t size, uint16_t known)
{
    if ((size != 4 && size != 8) || (known != 0 && size != known)) {
        return bop__kv_refuse(BOP_EINVAL,
                              "integers are of 4 or of 8 bytes, all of a table of the same size");
    }
    return 0;
}

int bop__kv_check_key(const struct bop_kv_txn *txn, unsigned table, struct bop_slice key)
{
    const struct kv_kind *kind = &txn->kv->kinds[table];

    if (BOP_UNLIKELY(key.size == 0 || key.size > BOP_KV_KEY_MAX)) {
        return bop__kv_refuse(BOP_EINVAL, "a key has 1 to 511 bytes");
    }
    if (BOP_UNLIKELY((kind->flags & MDB_INTEGERKEY) != 0)) {
        return check_integer(key.size,
                             atomic_load_explicit(&kind->key_bytes, memory_order_relaxed));
    }
    return 0;
}

int bop__kv_check_dup(const struct bop_kv_txn *txn, unsigned table, struct bop_slice value)
{
    const struct kv_kind *kind = &txn->kv->kinds[table];
    uint16_t known = atomic_load_explicit(&kind->value_bytes, memory_order_relaxed);

    if ((kind->flags & MDB_DUPSORT) == 0) {
        return bop__kv_refuse(BOP_EINVAL, "the table has no duplicates");
    }
    if (value.size == 0 || value.size > BOP_KV_KEY_MAX) {
        return bop__kv_refuse(BOP_EINVAL, "a value has 1 to 511 bytes where there are duplicates");
    }
    if ((kind->flags & MDB_INTEGERDUP) != 0) {
        return check_integer(value.size, known);
    }
    if ((kind->flags & MDB_DUPFIXED) != 0 && known != 0 && value.size != known) {
        return bop__kv_refuse(BOP_EINVAL, "all values of the table are of the same size");
    }
    return 0;
}

void bop__kv_learn(struct bop_kv_txn *txn, unsigned table, size_t key_bytes, size_t value_bytes)
{
    struct kv_kind *kind = &txn->kv->kinds[table];

    if (BOP_LIKELY((kind->flags & (MDB_INTEGERKEY | MDB_DUPFIXED)) == 0)) {
        return;
    }
    atomic_store_explicit(&kind->key_bytes, (uint16_t)key_bytes, memory_order_relaxed);
    atomic_store_explicit(&kind->value_bytes, (uint16_t)value_bytes, memory_order_relaxed);
}

int bop__kv_prepare_put(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
                        uint64_t value_size, const struct bop_slice *value)
{
    int rc;

    if (!bop__kv_table_valid(txn, table)) {
        return BOP_EINVAL;
    }
    rc = bop__kv_check_key(txn, table.handle, key);
    if (rc == 0 && BOP_UNLIKELY((txn->kv->kinds[table.handle].flags & MDB_DUPSORT) != 0)) {
        rc = value ? bop__kv_check_dup(txn, table.handle, *value)
                   : bop__kv_refuse(BOP_EINVAL, "not for a table with duplicates");
    }
    if (rc == 0 && value_size > KV_VALUE_BYTES_MAX) {
        rc = bop__kv_refuse(BOP_ETOOBIG, "a value has less than 2 GiB");
    }
    if (rc == 0) {
        rc = bop__kv_check_writable(txn);
    }
    return rc ? rc
              : bop__kv_charge(txn, table.handle, NODE_HEAD_BYTES + key.size + value_size, false);
}

/* Get, and remember where it was. */
static int find(struct bop_kv_txn *txn, unsigned table, MDB_val *key, MDB_val *out_value)
{
    struct kv_found *found = &txn->found;
    int rc;

    if (!txn->write || txn->failed < 0 || txn->child) {
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
           (txn->kv->kinds[table].flags & MDB_DUPSORT) == 0 &&
           memcmp(found->key.mv_data, key.data, key.size) == 0;
}

int bop_kv_get(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
               struct bop_slice *out_value)
{
    MDB_val k = bop__kv_val(key), value;
    int rc;

    if (!bop__kv_table_valid(txn, table)) {
        return BOP_EINVAL;
    }
    rc = bop__kv_check_key(txn, table.handle, key);
    if (rc == 0) {
        rc = bop__kv_code(find(txn, table.handle, &k, &value));
    }
    if (rc == 0) {
        *out_value = bop__kv_slice(value);
    }
    return rc;
}

int bop_kv_get_at_or_after(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
                           struct bop_slice *out_key, struct bop_slice *out_value, bool *out_exact)
{
    MDB_val k = bop__kv_val(key), value;
    MDB_cursor *cursor;
    int rc;

    if (!bop__kv_table_valid(txn, table)) {
        return BOP_EINVAL;
    }
    rc = bop__kv_check_key(txn, table.handle, key);
    if (rc == 0) {
        rc = bop__kv_code(mdb_cursor_open(txn->txn, table.handle, &cursor));
    }
    if (rc < 0) {
        return rc;
    }
    rc = bop__kv_code(mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE));
    mdb_cursor_close(cursor);
    if (rc == 0) {
        *out_key = bop__kv_slice(k);
        *out_value = bop__kv_slice(value);
        *out_exact = bop_slice_equal(*out_key, key);
    }
    return rc;
}

static unsigned put_flags(unsigned flags)
{
    return (flags & BOP_KV_NO_OVERWRITE ? MDB_NOOVERWRITE : 0) |
           (flags & BOP_KV_NO_DUP_DATA ? MDB_NODUPDATA : 0) |
           (flags & BOP_KV_APPEND ? MDB_APPEND : 0) |
           (flags & BOP_KV_APPEND_DUP ? MDB_APPENDDUP : 0);
}

static int put(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
               struct bop_slice value, unsigned flags, MDB_val *out)
{
    MDB_val k = bop__kv_val(key);
    int rc = bop__kv_prepare_put(txn, table, key, value.size, &value);

    *out = bop__kv_val(value);
    if (rc < 0) {
        return rc;
    }
    if (flags == 0 && is_found(txn, table.handle, key)) {
        return bop__kv_changed(txn, mdb_cursor_put(txn->found.cursor, &k, out, MDB_CURRENT));
    }
    rc = bop__kv_changed(txn, mdb_put(txn->txn, table.handle, &k, out, flags));
    if (rc == 0) {
        bop__kv_learn(txn, table.handle, key.size, value.size);
    }
    return rc;
}

int bop_kv_put(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
               struct bop_slice value)
{
    MDB_val v;

    return put(txn, table, key, value, 0, &v);
}

int bop_kv_append(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
                  struct bop_slice value)
{
    MDB_val v;

    return put(txn, table, key, value, MDB_APPEND, &v);
}

int bop_kv_put_with(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
                    struct bop_slice value, unsigned flags, struct bop_slice *out_existing)
{
    MDB_val v;
    int rc;

    if (flags >= BOP_KV_REPLACE_CURRENT) {
        return bop__kv_refuse(BOP_EINVAL, "flags of a put");
    }
    if ((flags & BOP_KV_APPEND_DUP) != 0 && bop__kv_table_valid(txn, table) &&
        (txn->kv->kinds[table.handle].flags & MDB_DUPSORT) == 0) {
        return bop__kv_refuse(BOP_EINVAL, "the table has no duplicates");
    }
    rc = put(txn, table, key, value, put_flags(flags), &v);
    if (rc == BOP_EINVAL && bop_kv_cause() == MDB_KEYEXIST &&
        (flags & (BOP_KV_NO_OVERWRITE | BOP_KV_NO_DUP_DATA)) != 0) {
        if (out_existing) {
            *out_existing = bop__kv_slice(v);
        }
        return BOP_EEXISTS;
    }
    return rc;
}

int bop_kv_reserve(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
                   size_t size, void **out_place)
{
    MDB_val k = bop__kv_val(key), v = {.mv_size = size};
    int rc = bop__kv_prepare_put(txn, table, key, size, NULL);

    if (rc == 0) {
        rc = bop__kv_changed(txn, mdb_put(txn->txn, table.handle, &k, &v, MDB_RESERVE));
    }
    if (rc == 0) {
        bop__kv_learn(txn, table.handle, key.size, size);
        *out_place = v.mv_data;
    }
    return rc;
}

int bop_kv_replace(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
                   struct bop_slice value, struct bop_buf *out_old, bool *out_found)
{
    struct bop_slice old;
    size_t size = out_old->size;
    int rc = bop_kv_get(txn, table, key, &old);
    bool found = rc == 0;

    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    if ((txn->kv->kinds[table.handle].flags & MDB_DUPSORT) != 0) {
        return bop__kv_refuse(BOP_EINVAL, "not for a table with duplicates");
    }
    rc = found ? bop_buf_append(out_old, old.data, old.size) : 0;
    if (rc < 0) {
        return bop__kv_refuse(rc, "the buffer takes no more");
    }
    rc = bop_kv_put(txn, table, key, value);
    if (rc < 0) {
        out_old->size = size;
        return rc;
    }
    *out_found = found;
    return 0;
}

static int del(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
               MDB_val *value)
{
    MDB_val k = bop__kv_val(key);
    int rc;

    if (!bop__kv_table_valid(txn, table)) {
        return BOP_EINVAL;
    }
    rc = bop__kv_check_key(txn, table.handle, key);
    if (rc == 0 && value) {
        rc = bop__kv_check_dup(txn, table.handle, bop__kv_slice(*value));
    }
    if (rc == 0) {
        rc = bop__kv_check_writable(txn);
    }
    if (rc == 0) {
        rc = bop__kv_charge(txn, table.handle, 0, true);
    }
    bop__kv_forget_found(txn); /* LMDB need not keep the cursor right through that. */
    return rc ? rc : bop__kv_changed(txn, mdb_del(txn->txn, table.handle, &k, value));
}

int bop_kv_del(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key)
{
    return del(txn, table, key, NULL);
}

int bop_kv_del_pair(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
                    struct bop_slice value)
{
    MDB_val v = bop__kv_val(value);

    return del(txn, table, key, &v);
}

/* A few values at once, whose pages the account covers. */
static int put_some(struct bop_kv_txn *txn, MDB_cursor *cursor, struct bop_kv_table table,
                    struct bop_slice key, struct bop_slice values, size_t value_bytes)
{
    MDB_val k = bop__kv_val(key);
    MDB_val v[2] = {{.mv_size = value_bytes, .mv_data = (void *)(uintptr_t)values.data},
                    {.mv_size = values.size / value_bytes}};
    int rc = bop__kv_charge_many(txn, table.handle, NODE_HEAD_BYTES + key.size + value_bytes,
                                 v[1].mv_size);

    return rc ? rc : bop__kv_changed(txn, mdb_cursor_put(cursor, &k, v, MDB_MULTIPLE));
}

int bop_kv_put_multiple(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
                        struct bop_slice values, size_t value_bytes, uint64_t *out_written)
{
    MDB_cursor *cursor;
    size_t step = MULTIPLE_STEP * value_bytes;
    int rc;

    *out_written = 0;
    if (value_bytes == 0 || values.size % value_bytes != 0) {
        return bop__kv_refuse(BOP_EINVAL, "no whole number of values");
    }
    if (values.size == 0) {
        return 0;
    }
    rc = bop__kv_prepare_put(txn, table, key, value_bytes,
                             &(struct bop_slice){values.data, value_bytes});
    if (rc == 0 && (txn->kv->kinds[table.handle].flags & MDB_DUPFIXED) == 0) {
        rc = bop__kv_refuse(BOP_EINVAL, "the table's values are not of one size");
    }
    if (rc == 0) {
        rc = bop__kv_code(mdb_cursor_open(txn->txn, table.handle, &cursor));
    }
    if (rc < 0) {
        return rc;
    }
    for (size_t at = 0; at < values.size && rc == 0; at += step) {
        size_t size = values.size - at < step ? values.size - at : step;

        rc = put_some(txn, cursor, table, key, bop_slice(values.data + at, size), value_bytes);
        *out_written += rc ? 0 : size / value_bytes;
    }
    if (rc == 0) {
        bop__kv_learn(txn, table.handle, key.size, value_bytes);
    }
    mdb_cursor_close(cursor);
    return rc;
}
