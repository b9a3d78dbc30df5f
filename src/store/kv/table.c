/*
 * Tables and their names.
 *
 * LMDB ties a table's handle to the transaction that opened it, and closes the
 * handle if that one is aborted. Ours live as long as the store: all tables
 * there are get their handles at open, a new one when the transaction that makes it
 * commits, and opening a table is a look into that list.
 */
#include <stdio.h>
#include <string.h>

#include "kv.h"

/* ---- Names; all under the store's mutex ---- */

static int add_name(struct bop_kv *kv, const char *name, size_t size, unsigned handle,
                    unsigned level)
{
    char *copy;

    BOP_ASSERT(kv->name_count < kv->tables_max); /* LMDB counted them with the same bound. */
    copy = bop_alloc(kv->allocator, size + 1);
    if (!copy) {
        return BOP_ENOMEM;
    }
    memcpy(copy, name, size);
    copy[size] = 0;
    kv->names[kv->name_count++] = (struct kv_name){.name = copy, .handle = handle, .level = level};
    return 0;
}

static struct kv_name *find_name(struct bop_kv *kv, const char *name, bool writer)
{
    for (unsigned i = 0; i < kv->name_count; i++) {
        if (strcmp(kv->names[i].name, name) == 0 && (kv->names[i].level == 0 || writer)) {
            return &kv->names[i];
        }
    }
    return NULL;
}

static void free_name(struct bop_kv *kv, struct kv_name *name)
{
    bop_free(kv->allocator, name->name, strlen(name->name) + 1);
}

static void remove_name(struct bop_kv *kv, unsigned at)
{
    free_name(kv, &kv->names[at]);
    memmove(&kv->names[at], &kv->names[at + 1], (--kv->name_count - at) * sizeof(kv->names[0]));
}

void bop__kv_tables_settle(struct bop_kv *kv, unsigned level, bool committed)
{
    pthread_mutex_lock(&kv->mutex);
    for (unsigned i = kv->name_count; i > 0; i--) {
        struct kv_name *name = &kv->names[i - 1];

        if (name->drop_level == level && !committed) {
            name->drop_level = 0;
        } else if (name->drop_level == level) {
            name->drop_level = level - 1;
            if (level == 1) {
                remove_name(kv, i - 1);
                continue;
            }
        }
        if (name->level == level && committed) {
            name->level = level - 1;
        } else if (name->level == level) {
            remove_name(kv, i - 1);
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

/* Fill in what is known of a table; its first entry tells the sizes. */
static int load_kind(struct bop_kv *kv, MDB_txn *txn, MDB_dbi dbi)
{
    struct kv_kind *kind = &kv->kinds[dbi];
    uint16_t key_bytes = 0, value_bytes = 0;
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_dbi_flags(txn, dbi, &kind->flags);

    if (rc == 0 && (kind->flags & (MDB_INTEGERKEY | MDB_DUPFIXED)) != 0) {
        rc = mdb_cursor_open(txn, dbi, &cursor);
        if (rc == 0) {
            rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
            mdb_cursor_close(cursor);
        }
        if (rc == 0) {
            key_bytes = (uint16_t)key.mv_size;
            value_bytes = (uint16_t)value.mv_size;
        }
        rc = rc == MDB_NOTFOUND ? 0 : rc;
    }
    atomic_store_explicit(&kind->key_bytes, key_bytes, memory_order_relaxed);
    atomic_store_explicit(&kind->value_bytes, value_bytes, memory_order_relaxed);
    return rc;
}

static bool is_own_name(const char *name)
{
    return strncmp(name, KV_OWN_PREFIX, sizeof(KV_OWN_PREFIX) - 1) == 0;
}

/* Of the tables that are the caller's. */
static bool names_full(struct bop_kv *kv)
{
    unsigned own = find_name(kv, KV_OWN_TABLE, true) != NULL;

    return kv->name_count - own >= kv->tables_max - 1;
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
    rc = !is_own_name(name) && names_full(kv) ? BOP_EFULL
                                              : bop__kv_code(mdb_dbi_open(txn, name, 0, &dbi));
    if (rc == BOP_EFULL) {
        return bop_error_say(err, rc, "the store has more than %u tables: raise tables_max",
                             kv->tables_max - 1);
    }
    if (rc == 0) {
        rc = bop__kv_code(load_kind(kv, txn, dbi));
    }
    if (rc < 0) {
        bop__kv_error(err, rc, "table");
        BOP_IGNORE(bop_error_wrap(err, "%s", name)); /* The code stays. */
        return rc;
    }
    rc = add_name(kv, name, key.mv_size, dbi, 0);
    return rc ? bop_error_set(err, rc, "table %s", name) : 0;
}

int bop__kv_tables_load(struct bop_kv *kv, struct bop_error *err)
{
    MDB_val key, value;
    MDB_cursor *cursor;
    MDB_txn *txn;
    int rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0) {
        return bop__kv_error(err, bop__kv_code(rc), "list the tables");
    }
    rc = mdb_cursor_open(txn, KV_MAIN_TABLE, &cursor);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return bop__kv_error(err, bop__kv_code(rc), "list the tables");
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
        return bop__kv_error(err, bop__kv_code(rc), "list the tables");
    }
    rc = bop__kv_code(mdb_txn_commit(txn)); /* Not abort, which would close the handles. */
    return rc ? bop_error_set(err, rc, "list the tables") : 0;
}

/* ---- Tables ---- */

/* LMDB's flag for each of ours, from BOP_KV_REVERSE_KEY on. */
static const struct {
    unsigned ours, lmdb;
} kinds[] = {
    {BOP_KV_REVERSE_KEY, MDB_REVERSEKEY}, {BOP_KV_DUP_SORT, MDB_DUPSORT},
    {BOP_KV_INTEGER_KEY, MDB_INTEGERKEY}, {BOP_KV_DUP_FIXED, MDB_DUPFIXED},
    {BOP_KV_INTEGER_DUP, MDB_INTEGERDUP}, {BOP_KV_REVERSE_DUP, MDB_REVERSEDUP},
};

static unsigned flags_to_lmdb(unsigned flags)
{
    unsigned out = 0;

    for (size_t i = 0; i < BOP_COUNT_OF(kinds); i++) {
        out |= flags & kinds[i].ours ? kinds[i].lmdb : 0;
    }
    return out;
}

static unsigned flags_from_lmdb(unsigned flags)
{
    unsigned out = 0;

    for (size_t i = 0; i < BOP_COUNT_OF(kinds); i++) {
        out |= flags & kinds[i].lmdb ? kinds[i].ours : 0;
    }
    return out;
}

static bool flags_make_sense(unsigned flags)
{
    const unsigned need_dups = BOP_KV_DUP_FIXED | BOP_KV_INTEGER_DUP | BOP_KV_REVERSE_DUP;

    return flags < BOP_KV_REVERSE_DUP << 1 &&
           ((flags & need_dups) == 0 || (flags & BOP_KV_DUP_SORT) != 0) &&
           ((flags & BOP_KV_INTEGER_DUP) == 0 || (flags & BOP_KV_DUP_FIXED) != 0) &&
           (flags & (BOP_KV_INTEGER_KEY | BOP_KV_REVERSE_KEY)) !=
               (BOP_KV_INTEGER_KEY | BOP_KV_REVERSE_KEY) &&
           (flags & (BOP_KV_INTEGER_DUP | BOP_KV_REVERSE_DUP)) !=
               (BOP_KV_INTEGER_DUP | BOP_KV_REVERSE_DUP);
}

int bop__kv_check_writable(const struct bop_kv_txn *txn)
{
    if (!txn->write) {
        return bop__kv_refuse(BOP_EINVAL, "a change in a read transaction");
    }
    if (txn->child) {
        return bop__kv_refuse(BOP_EBUSY, "a nested transaction is under way");
    }
    return txn->failed;
}

int bop__kv_changed(struct bop_kv_txn *txn, int lmdb_code)
{
    int rc = bop__kv_code(lmdb_code);

    txn->found.key.mv_size = 0;
    if (rc < 0 && rc != BOP_ENOTFOUND && rc != BOP_EINVAL) {
        txn->failed = rc;
    }
    return rc;
}

static int make_table(struct bop_kv_txn *txn, const char *name, unsigned flags,
                      struct bop_kv_table *out_table)
{
    struct bop_kv *kv = txn->kv;
    MDB_dbi dbi;
    int rc = bop__kv_check_writable(txn);
    bool full;

    if (rc < 0) {
        return rc;
    }
    pthread_mutex_lock(&kv->mutex);
    full = !is_own_name(name) && names_full(kv);
    pthread_mutex_unlock(&kv->mutex);
    if (full) {
        return bop__kv_refuse(BOP_EFULL, "tables_max tables are there already");
    }
    rc = bop__kv_charge(txn, KV_MAIN_TABLE, 0, false);
    if (rc == 0) {
        rc = bop__kv_changed(txn,
                             mdb_dbi_open(txn->txn, name, MDB_CREATE | flags_to_lmdb(flags), &dbi));
    }
    if (rc == BOP_EFULL) {
        txn->failed = 0; /* LMDB says so before it touches anything. */
    }
    if (rc != 0) {
        return rc;
    }
    pthread_mutex_lock(&kv->mutex);
    BOP_IGNORE(load_kind(kv, txn->txn, dbi)); /* An empty table: nothing to fail. */
    rc = add_name(kv, name, strlen(name), dbi, txn->level);
    pthread_mutex_unlock(&kv->mutex);
    if (rc < 0) {
        txn->failed = rc; /* Else the table would be there, without a handle. */
        return bop__kv_refuse(rc, "no memory for a table's name");
    }
    out_table->handle = dbi;
    return 0;
}

/* Look a name up. In *out_dropped, whether the transaction is about to drop the table. */
static unsigned find_handle(struct bop_kv_txn *txn, const char *name, bool create,
                            bool *out_dropped)
{
    struct kv_name *found;
    unsigned handle = 0;

    pthread_mutex_lock(&txn->kv->mutex);
    found = find_name(txn->kv, name, txn->write);
    *out_dropped = found && txn->write && found->drop_level > 0;
    if (found) {
        handle = found->handle;
        if (*out_dropped && create && found->drop_level == txn->level) {
            found->drop_level = 0;
            *out_dropped = false;
        }
    }
    pthread_mutex_unlock(&txn->kv->mutex);
    return handle;
}

int bop__kv_table_open(struct bop_kv_txn *txn, const char *name, bool create, bool any_kind,
                       unsigned flags, struct bop_kv_table *out_table)
{
    bool dropped;
    unsigned handle = find_handle(txn, name, create, &dropped);
    MDB_stat stat;
    int rc;

    if (!handle) {
        return create ? make_table(txn, name, flags, out_table) : BOP_ENOTFOUND;
    }
    if (dropped) {
        return create ? bop__kv_refuse(BOP_EBUSY, "dropped by the transaction around this one")
                      : BOP_ENOTFOUND;
    }
    /* A reader's snapshot may be older than the table. */
    rc = bop__kv_code(mdb_stat(txn->txn, handle, &stat));
    if (rc < 0) {
        return rc == BOP_EINVAL ? BOP_ENOTFOUND : rc;
    }
    if (!any_kind && flags_from_lmdb(txn->kv->kinds[handle].flags) != flags) {
        return bop__kv_refuse(BOP_EWRONGKIND, "the table is of another kind");
    }
    out_table->handle = handle;
    return 0;
}

static int check_name(const char *name)
{
    size_t size = strlen(name);

    if (size == 0 || size > BOP_KV_KEY_MAX) {
        return bop__kv_refuse(BOP_EINVAL, "a table's name has 1 to 511 bytes");
    }
    return is_own_name(name) ? bop__kv_refuse(BOP_EINVAL, "a name of the store's own") : 0;
}

int bop_kv_table_open(struct bop_kv_txn *txn, const char *name, bool create,
                      struct bop_kv_table *out_table)
{
    int rc = check_name(name);

    return rc ? rc : bop__kv_table_open(txn, name, create, true, 0, out_table);
}

int bop_kv_table_open_with(struct bop_kv_txn *txn, const char *name, unsigned flags,
                           struct bop_kv_table *out_table)
{
    bool create = (flags & BOP_KV_CREATE) != 0;
    int rc = check_name(name);

    flags &= ~(unsigned)BOP_KV_CREATE;
    if (rc == 0 && !flags_make_sense(flags)) {
        rc = bop__kv_refuse(BOP_EINVAL, "flags of a table that do not go together");
    }
    return rc ? rc : bop__kv_table_open(txn, name, create, false, flags, out_table);
}

bool bop__kv_table_valid(const struct bop_kv_txn *txn, struct bop_kv_table table)
{
    return BOP_LIKELY(table.handle >= KV_FIRST_TABLE &&
                      table.handle < txn->kv->tables_max + KV_FIRST_TABLE) ||
           bop__kv_refuse(0, "not a table's handle") != 0;
}

int bop_kv_table_clear(struct bop_kv_txn *txn, struct bop_kv_table table)
{
    int rc = bop__kv_table_valid(txn, table) ? bop__kv_check_writable(txn) : BOP_EINVAL;

    if (rc == 0) {
        rc = bop__kv_charge_clear(txn, table.handle);
    }
    bop__kv_forget_found(txn);
    return rc ? rc : bop__kv_changed(txn, mdb_drop(txn->txn, table.handle, 0));
}

int bop_kv_table_drop(struct bop_kv_txn *txn, struct bop_kv_table table)
{
    int rc = bop_kv_table_clear(txn, table);

    if (rc < 0) {
        return rc;
    }
    /* LMDB would close the handle at once, also if the transaction is aborted: wait for the commit.
     */
    pthread_mutex_lock(&txn->kv->mutex);
    for (unsigned i = 0; i < txn->kv->name_count; i++) {
        struct kv_name *name = &txn->kv->names[i];

        if (name->handle == table.handle && name->drop_level == 0) {
            name->drop_level = txn->level;
        }
    }
    pthread_mutex_unlock(&txn->kv->mutex);
    return 0;
}

int bop__kv_tables_drop(struct bop_kv_txn *txn)
{
    int rc = 0;

    pthread_mutex_lock(&txn->kv->mutex);
    for (unsigned i = 0; i < txn->kv->name_count && rc == 0; i++) {
        if (txn->kv->names[i].drop_level == 1) {
            rc = mdb_drop(txn->txn, txn->kv->names[i].handle, 1);
        }
    }
    pthread_mutex_unlock(&txn->kv->mutex);
    return rc;
}

int bop_kv_table_stat(struct bop_kv_txn *txn, struct bop_kv_table table,
                      struct bop_kv_table_stat *out_stat)
{
    MDB_stat stat;
    int rc = bop__kv_table_valid(txn, table) ? bop__kv_code(mdb_stat(txn->txn, table.handle, &stat))
                                             : BOP_EINVAL;

    if (rc == 0) {
        *out_stat = (struct bop_kv_table_stat){
            .flags = flags_from_lmdb(txn->kv->kinds[table.handle].flags),
            .depth = stat.ms_depth,
            .page_bytes = stat.ms_psize,
            .branch_pages = stat.ms_branch_pages,
            .leaf_pages = stat.ms_leaf_pages,
            .overflow_pages = stat.ms_overflow_pages,
            .entries = stat.ms_entries,
        };
    }
    return rc;
}

int bop_kv_table_count(struct bop_kv_txn *txn, struct bop_kv_table table, uint64_t *out_count)
{
    struct bop_kv_table_stat stat;
    int rc = bop_kv_table_stat(txn, table, &stat);

    if (rc == 0) {
        *out_count = stat.entries;
    }
    return rc;
}

static int call_for_name(struct bop_kv_txn *txn, MDB_val key, bop_kv_name_fn *fn, void *context)
{
    struct bop_kv_table table;
    char name[BOP_KV_KEY_MAX + 1];
    int rc;

    if (key.mv_size >= sizeof(name)) {
        return bop__kv_refuse(BOP_ECORRUPT, "name of a table");
    }
    memcpy(name, key.mv_data, key.mv_size);
    name[key.mv_size] = 0;
    if (is_own_name(name)) {
        return 0;
    }
    rc = bop__kv_table_open(txn, name, false, true, 0, &table);
    /* About to be dropped: as if it were not there. */
    return rc == 0 ? fn(context, name, table) : rc == BOP_ENOTFOUND ? 0 : rc;
}

int bop_kv_tables(struct bop_kv_txn *txn, bop_kv_name_fn *fn, void *context)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int result = 0;
    int rc = mdb_cursor_open(txn->txn, KV_MAIN_TABLE, &cursor);

    if (rc != 0) {
        return bop__kv_code(rc);
    }
    while (result == 0 && (rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        result = call_for_name(txn, key, fn, context);
    }
    mdb_cursor_close(cursor);
    return result || rc == MDB_NOTFOUND ? result : bop__kv_code(rc);
}

int bop_kv_compare_keys(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice a,
                        struct bop_slice b)
{
    MDB_val x = bop__kv_val(a), y = bop__kv_val(b);

    BOP_ASSERT(bop__kv_table_valid(txn, table));
    return mdb_cmp(txn->txn, table.handle, &x, &y);
}

int bop_kv_compare_values(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice a,
                          struct bop_slice b)
{
    MDB_val x = bop__kv_val(a), y = bop__kv_val(b);

    BOP_ASSERT(bop__kv_table_valid(txn, table));
    /* LMDB has no order of values for a table without duplicates. */
    return txn->kv->kinds[table.handle].flags & MDB_DUPSORT
               ? mdb_dcmp(txn->txn, table.handle, &x, &y)
               : bop_slice_compare(a, b);
}
