/*
 * Cursors.
 *
 * Moves that LMDB lacks (below, after, the order of pairs) are made of those it
 * has. Some of LMDB's leave the key or the value as it was; those are read
 * again where the cursor then is.
 */
#include <string.h>

#include "kv.h"

int bop_kv_cursor_open(struct bop_kv_txn *txn, struct bop_kv_table table,
                       struct bop_kv_cursor **out_cursor)
{
    struct bop_kv_cursor *cursor;
    int rc;

    if (!bop__kv_table_valid(txn, table)) {
        return BOP_EINVAL;
    }
    cursor = bop_alloc_zeroed(txn->kv->allocator, sizeof(*cursor));
    if (!cursor) {
        return BOP_ENOMEM;
    }
    cursor->txn = txn;
    cursor->table = table.handle;
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

int bop_kv_cursor_renew(struct bop_kv_cursor *cursor, struct bop_kv_txn *txn)
{
    int rc;

    if (cursor->txn->write || txn->write || txn->kv != cursor->txn->kv) {
        return bop__kv_refuse(BOP_EINVAL, "only cursors of read transactions are renewed");
    }
    rc = bop__kv_code(mdb_cursor_renew(txn->txn, cursor->cursor));
    if (rc == 0) {
        cursor->txn->cursors--;
        txn->cursors++;
        cursor->txn = txn;
        cursor->placed = false;
    }
    return rc;
}

static bool has_dups(const struct bop_kv_cursor *cursor)
{
    return (cursor->txn->kv->kinds[cursor->table].flags & MDB_DUPSORT) != 0;
}

static int get(struct bop_kv_cursor *cursor, MDB_val *k, MDB_val *v, MDB_cursor_op op)
{
    return bop__kv_code(mdb_cursor_get(cursor->cursor, k, v, op));
}

/* The end of the table. LMDB would remember that it is one, and miss a next entry that is put
 * meanwhile if it begins a page. A search forgets that. */
static int seek_last(struct bop_kv_cursor *cursor, MDB_val *k, MDB_val *v)
{
    int rc = get(cursor, k, v, MDB_LAST);

    if (rc == 0 && cursor->txn->write) {
        rc = get(cursor, k, v, has_dups(cursor) ? MDB_GET_BOTH : MDB_SET_KEY);
        if (rc == 0 && has_dups(cursor)) {
            rc = get(cursor, k, v, MDB_GET_CURRENT);
        }
    }
    return rc;
}

/* The last entry below the key (at or below it, with `at`). */
static int seek_below(struct bop_kv_cursor *cursor, struct bop_slice key, bool at, MDB_val *k,
                      MDB_val *v)
{
    int rc;

    if (key.size == 0) {
        return BOP_ENOTFOUND;
    }
    rc = get(cursor, k, v, MDB_SET_RANGE);
    if (rc == BOP_ENOTFOUND) {
        return seek_last(cursor, k, v);
    }
    if (rc == 0 && at) {
        MDB_val wanted = bop__kv_val(key);

        if (mdb_cmp(cursor->txn->txn, cursor->table, k, &wanted) == 0) {
            /* The last value of it. */
            rc = has_dups(cursor) ? get(cursor, k, v, MDB_LAST_DUP) : 0;
            return rc == 0 ? get(cursor, k, v, MDB_GET_CURRENT) : rc;
        }
    }
    return rc ? rc : get(cursor, k, v, MDB_PREV_NODUP);
}

static int seek_after(struct bop_kv_cursor *cursor, struct bop_slice key, MDB_val *k, MDB_val *v)
{
    MDB_val wanted = bop__kv_val(key);
    int rc = get(cursor, k, v, MDB_SET_RANGE);

    if (rc == 0 && mdb_cmp(cursor->txn->txn, cursor->table, k, &wanted) == 0) {
        rc = get(cursor, k, v, MDB_NEXT_NODUP);
    }
    return rc;
}

/* A move to a key, or below or above it. */
static int seek_key(struct bop_kv_cursor *cursor, enum bop_kv_seek seek, struct bop_slice key,
                    MDB_val *k, MDB_val *v)
{
    int rc = key.size == 0 ? 0 : bop__kv_check_key(cursor->txn, cursor->table, key);

    if (rc < 0) {
        return rc;
    }
    *k = bop__kv_val(key);
    if (seek == BOP_KV_AT_OR_BEFORE || seek == BOP_KV_BEFORE) {
        return seek_below(cursor, key, seek == BOP_KV_AT_OR_BEFORE, k, v);
    }
    if (seek == BOP_KV_AT) {
        return key.size == 0 ? BOP_ENOTFOUND : get(cursor, k, v, MDB_SET_KEY);
    }
    if (key.size == 0) { /* All keys are above the empty one. */
        return get(cursor, k, v, MDB_FIRST);
    }
    return seek == BOP_KV_AFTER ? seek_after(cursor, key, k, v) : get(cursor, k, v, MDB_SET_RANGE);
}

/* A move among the values of the cursor's key. */
static int seek_dup(struct bop_kv_cursor *cursor, enum bop_kv_seek seek, MDB_val *k, MDB_val *v)
{
    static const MDB_cursor_op operations[] = {
        [BOP_KV_FIRST_DUP] = MDB_FIRST_DUP,
        [BOP_KV_LAST_DUP] = MDB_LAST_DUP,
        [BOP_KV_NEXT_DUP] = MDB_NEXT_DUP,
        [BOP_KV_PREV_DUP] = MDB_PREV_DUP,
    };
    int rc;

    if (!has_dups(cursor)) {
        return bop__kv_refuse(BOP_EINVAL, "the table has no duplicates");
    }
    if (!cursor->placed) {
        return bop__kv_refuse(BOP_EINVAL, "the cursor is at no entry");
    }
    rc = get(cursor, k, v, operations[seek]);
    return rc ? rc : get(cursor, k, v, MDB_GET_CURRENT);
}

static int move(struct bop_kv_cursor *cursor, enum bop_kv_seek seek, struct bop_slice key,
                MDB_val *k, MDB_val *v)
{
    switch (seek) {
    case BOP_KV_NEXT:
        return get(cursor, k, v, MDB_NEXT);
    case BOP_KV_PREV:
        return get(cursor, k, v, MDB_PREV);
    case BOP_KV_FIRST:
        return get(cursor, k, v, MDB_FIRST);
    case BOP_KV_LAST:
        return seek_last(cursor, k, v);
    case BOP_KV_CURRENT:
        return cursor->placed ? get(cursor, k, v, MDB_GET_CURRENT)
                              : bop__kv_refuse(BOP_EINVAL, "the cursor is at no entry");
    case BOP_KV_NEXT_KEY:
        return get(cursor, k, v, MDB_NEXT_NODUP);
    case BOP_KV_PREV_KEY:
        return get(cursor, k, v, MDB_PREV_NODUP);
    case BOP_KV_AT_OR_AFTER:
    case BOP_KV_AT:
    case BOP_KV_AFTER:
    case BOP_KV_AT_OR_BEFORE:
    case BOP_KV_BEFORE:
        return seek_key(cursor, seek, key, k, v);
    case BOP_KV_FIRST_DUP:
    case BOP_KV_LAST_DUP:
    case BOP_KV_NEXT_DUP:
    case BOP_KV_PREV_DUP:
        return seek_dup(cursor, seek, k, v);
    }
    return bop__kv_refuse(BOP_EINVAL, "no such move");
}

int bop_kv_cursor_seek(struct bop_kv_cursor *cursor, enum bop_kv_seek seek, struct bop_slice key,
                       struct bop_slice *out_key, struct bop_slice *out_value)
{
    MDB_val k = {0}, v = {0};
    int rc = move(cursor, seek, key, &k, &v);

    cursor->placed = rc == 0;
    if (rc == 0) {
        *out_key = bop__kv_slice(k);
        *out_value = bop__kv_slice(v);
    }
    return rc;
}

int bop_kv_cursor_fetch(struct bop_kv_cursor *cursor, enum bop_kv_seek move_,
                        struct bop_kv_pair *out_pairs, size_t pairs_max, size_t *out_count)
{
    static const MDB_cursor_op operations[] = {
        [BOP_KV_NEXT] = MDB_NEXT,           [BOP_KV_PREV] = MDB_PREV,
        [BOP_KV_NEXT_KEY] = MDB_NEXT_NODUP, [BOP_KV_PREV_KEY] = MDB_PREV_NODUP,
        [BOP_KV_NEXT_DUP] = MDB_NEXT_DUP,   [BOP_KV_PREV_DUP] = MDB_PREV_DUP,
    };
    MDB_val k = {0}, v = {0};
    size_t count;
    int rc = 0;

    if ((unsigned)move_ >= BOP_COUNT_OF(operations) || operations[move_] == MDB_FIRST) {
        return bop__kv_refuse(BOP_EINVAL, "not a move that can be repeated");
    }
    if (move_ >= BOP_KV_NEXT_DUP && (!has_dups(cursor) || !cursor->placed)) {
        return bop__kv_refuse(BOP_EINVAL, "no duplicates to move among");
    }
    for (count = 0; count < pairs_max; count++) {
        rc = mdb_cursor_get(cursor->cursor, &k, &v, operations[move_]);
        if (rc != 0) {
            break;
        }
        out_pairs[count].key = bop__kv_slice(k);
        out_pairs[count].value = bop__kv_slice(v);
    }
    cursor->placed = rc == 0 && (count > 0 || cursor->placed);
    *out_count = count;
    return rc == MDB_NOTFOUND ? 0 : bop__kv_code(rc);
}

/* ---- Pairs ---- */

/* The first pair at or after the given; in *out_exact whether it is that one. */
static int pair_or_after(struct bop_kv_cursor *cursor, MDB_val key, MDB_val value, MDB_val *k,
                         MDB_val *v, bool *out_exact)
{
    int rc;

    *k = key;
    *v = value;
    *out_exact = false;
    rc = get(cursor, k, v, MDB_GET_BOTH_RANGE);
    if (rc == 0) {
        rc = get(cursor, k, v, MDB_GET_CURRENT);
        *out_exact = rc == 0 && mdb_dcmp(cursor->txn->txn, cursor->table, v, &value) == 0;
        return rc;
    }
    return rc == BOP_ENOTFOUND ? seek_after(cursor, bop__kv_slice(key), k, v) : rc;
}

/* GET_BOTH_RANGE finds a lone value only if it is at or above the given one, and seek_after looks
 * for its key: both need the key as it was given. */
static int seek_pair(struct bop_kv_cursor *cursor, enum bop_kv_seek_pair seek, MDB_val key,
                     MDB_val value, MDB_val *k, MDB_val *v)
{
    bool exact;
    int rc;

    if (seek == BOP_KV_PAIR || seek == BOP_KV_PAIR_OR_AFTER_IN_KEY) {
        *k = key;
        *v = value;
        rc = get(cursor, k, v, seek == BOP_KV_PAIR ? MDB_GET_BOTH : MDB_GET_BOTH_RANGE);
        return rc ? rc : get(cursor, k, v, MDB_GET_CURRENT);
    }
    *k = key;
    rc = pair_or_after(cursor, key, value, k, v, &exact);
    switch (seek) {
    case BOP_KV_PAIR_AFTER:
        return rc == 0 && exact ? get(cursor, k, v, MDB_NEXT) : rc;
    case BOP_KV_PAIR_OR_BEFORE:
    case BOP_KV_PAIR_BEFORE:
        if (rc == BOP_ENOTFOUND) {
            return seek_last(cursor, k, v);
        }
        return rc || (exact && seek == BOP_KV_PAIR_OR_BEFORE) ? rc : get(cursor, k, v, MDB_PREV);
    default:
        return rc;
    }
}

int bop_kv_cursor_seek_pair(struct bop_kv_cursor *cursor, enum bop_kv_seek_pair seek,
                            struct bop_slice key, struct bop_slice value, struct bop_slice *out_key,
                            struct bop_slice *out_value)
{
    MDB_val k = {0}, v = {0};
    int rc = bop__kv_check_key(cursor->txn, cursor->table, key);

    if (rc == 0) {
        rc = bop__kv_check_dup(cursor->txn, cursor->table, value);
    }
    if (rc == 0 && (unsigned)seek > BOP_KV_PAIR_BEFORE) {
        rc = bop__kv_refuse(BOP_EINVAL, "no such move");
    }
    if (rc == 0) {
        rc = seek_pair(cursor, seek, bop__kv_val(key), bop__kv_val(value), &k, &v);
    }
    cursor->placed = rc == 0;
    if (rc == 0) {
        *out_key = bop__kv_slice(k);
        *out_value = bop__kv_slice(v);
    }
    return rc;
}

int bop_kv_cursor_get_multiple(struct bop_kv_cursor *cursor, bool first,
                               struct bop_slice *out_values, size_t *out_value_bytes)
{
    MDB_val k = {0}, v = {0}, one = {0};
    int rc;

    if ((cursor->txn->kv->kinds[cursor->table].flags & MDB_DUPFIXED) == 0 || !cursor->placed) {
        return bop__kv_refuse(BOP_EINVAL, "at no key of a table of values of one size");
    }
    rc = get(cursor, &k, &one, first ? MDB_FIRST_DUP : MDB_GET_CURRENT);
    if (rc == 0) {
        rc = get(cursor, &k, &v, first ? MDB_GET_MULTIPLE : MDB_NEXT_MULTIPLE);
    }
    if (rc == 0) {
        /* Of a lone value LMDB says nothing. */
        *out_values = bop__kv_slice(v.mv_data ? v : one);
        *out_value_bytes = one.mv_size;
    }
    return rc;
}

/* ---- Changes ---- */

int bop_kv_cursor_put(struct bop_kv_cursor *cursor, struct bop_slice key, struct bop_slice value,
                      unsigned flags)
{
    struct bop_kv_txn *txn = cursor->txn;
    struct bop_kv_table table = {cursor->table};
    MDB_val k = bop__kv_val(key), v = bop__kv_val(value), at, old;
    unsigned lmdb_flags = 0;
    int rc = bop__kv_prepare_put(txn, table, key, value.size, &value);

    if (rc == 0 && flags >= BOP_KV_REPLACE_CURRENT << 1) {
        rc = bop__kv_refuse(BOP_EINVAL, "flags of a put");
    }
    if (rc == 0 && (flags & BOP_KV_REPLACE_CURRENT) != 0) {
        rc = cursor->placed ? get(cursor, &at, &old, MDB_GET_CURRENT) : BOP_EINVAL;
        if (rc < 0 || mdb_cmp(txn->txn, cursor->table, &at, &k) != 0) {
            return bop__kv_refuse(BOP_EINVAL, "the cursor is not at an entry of this key");
        }
        /* In place; but a duplicate has its place in the order. */
        if (has_dups(cursor)) {
            rc = bop_kv_cursor_del(cursor, false);
            rc = rc ? rc : bop__kv_charge(txn, cursor->table, value.size, false);
        } else {
            lmdb_flags = MDB_CURRENT;
        }
    }
    if (rc < 0) {
        return rc;
    }
    lmdb_flags |= flags & BOP_KV_NO_OVERWRITE ? MDB_NOOVERWRITE : 0;
    lmdb_flags |= flags & BOP_KV_NO_DUP_DATA ? MDB_NODUPDATA : 0;
    lmdb_flags |= flags & BOP_KV_APPEND ? MDB_APPEND : 0;
    lmdb_flags |= flags & BOP_KV_APPEND_DUP && has_dups(cursor) ? MDB_APPENDDUP : 0;
    rc = bop__kv_changed(txn, mdb_cursor_put(cursor->cursor, &k, &v, lmdb_flags));
    cursor->placed = rc == 0;
    if (rc == 0) {
        bop__kv_learn(txn, cursor->table, key.size, value.size);
    }
    return rc == BOP_EINVAL && bop_kv_cause() == MDB_KEYEXIST &&
                   (flags & (BOP_KV_NO_OVERWRITE | BOP_KV_NO_DUP_DATA)) != 0
               ? BOP_EEXISTS
               : rc;
}

int bop_kv_cursor_del(struct bop_kv_cursor *cursor, bool all_dups)
{
    struct bop_kv_txn *txn = cursor->txn;
    int rc = bop__kv_check_writable(txn);

    if (rc == 0 && !cursor->placed) {
        rc = bop__kv_refuse(BOP_EINVAL, "the cursor is at no entry");
    }
    if (rc == 0) {
        rc = bop__kv_charge(txn, cursor->table, 0, true);
    }
    if (rc < 0) {
        return rc;
    }
    bop__kv_forget_found(txn);
    cursor->placed = false;
    return bop__kv_changed(
        txn, mdb_cursor_del(cursor->cursor, all_dups && has_dups(cursor) ? MDB_NODUPDATA : 0));
}

int bop_kv_cursor_count(struct bop_kv_cursor *cursor, uint64_t *out_count)
{
    size_t count = 1;
    int rc = 0;

    if (!cursor->placed) {
        return bop__kv_refuse(BOP_EINVAL, "the cursor is at no entry");
    }
    if (has_dups(cursor)) {
        rc = bop__kv_code(mdb_cursor_count(cursor->cursor, &count));
    }
    if (rc == 0) {
        *out_count = count;
    }
    return rc;
}
