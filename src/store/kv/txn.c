/*
 * Transactions.
 *
 * There is one write transaction at a time, whose struct and account lie in the
 * store; LMDB has a lock for that too, but ours is held for the whole of it. Ended
 * read transactions keep their slot in LMDB's table of readers and are renewed
 * by the next begin, which then needs neither memory nor LMDB's lock.
 */
#include "kv.h"

/* LMDB's flags of a write transaction. */
static unsigned begin_flags(const struct bop_kv_begin *how)
{
    return how->no_sync ? MDB_NOSYNC | MDB_NOMETASYNC : 0;
}

static int lock_writer(struct bop_kv *kv, bool try_only)
{
    int rc = try_only ? pthread_mutex_trylock(&kv->write_mutex)
                      : pthread_mutex_lock(&kv->write_mutex);

    switch (rc) {
    case 0:
        return 0;
    case EBUSY:
        return bop__kv_refuse(BOP_EBUSY, "another write transaction is under way");
    case EDEADLK:
        return bop__kv_refuse(-EDEADLK, "this thread has a write transaction under way");
    default:
        return -rc;
    }
}

static int begin_write(struct bop_kv *kv, const struct bop_kv_begin *how,
                       struct bop_kv_txn **out_txn)
{
    MDB_txn *txn;
    int rc = kv->read_only ? bop__kv_refuse(BOP_EINVAL, "the store was opened for reading")
                           : lock_writer(kv, how->try_only);

    if (rc < 0) {
        return rc;
    }
    rc = bop__kv_code(mdb_txn_begin(kv->env, NULL, begin_flags(how), &txn));
    if (rc == 0) {
        rc = bop__kv_account_open(kv, txn);
        if (rc < 0) {
            mdb_txn_abort(txn);
        }
    }
    if (rc < 0) {
        pthread_mutex_unlock(&kv->write_mutex);
        return rc;
    }
    BOP_ASSERT(!kv->writer.txn);
    kv->writer = (struct bop_kv_txn){
        .kv = kv, .txn = txn, .write = true, .level = 1, .context = how->context};
    if (kv->reader_lag_max > 0 && mdb_txn_id(txn) >= kv->lag_check_txn) {
        bop__kv_watch_readers(kv, mdb_txn_id(txn));
    }
    *out_txn = &kv->writer;
    return 0;
}

static int begin_nested(struct bop_kv *kv, const struct bop_kv_begin *how,
                        struct bop_kv_txn **out_txn)
{
    struct bop_kv_txn *parent = how->parent;
    struct bop_kv_txn *txn;
    int rc = bop__kv_check_writable(parent);

    if (rc == 0 && (parent->kv != kv || !how->write)) {
        rc = bop__kv_refuse(BOP_EINVAL, "a nested transaction writes to its parent's store");
    }
    if (rc == 0 && !kv->nested) {
        rc = bop__kv_refuse(BOP_EUNSUPPORTED, "the store was opened without options.nested");
    }
    if (rc < 0) {
        return rc;
    }
    txn = bop_alloc_zeroed(kv->allocator, sizeof(*txn));
    if (!txn) {
        return bop__kv_refuse(BOP_ENOMEM, "no memory for a transaction");
    }
    bop__kv_forget_found(parent);
    rc = bop__kv_code(mdb_txn_begin(kv->env, parent->txn, begin_flags(how), &txn->txn));
    if (rc < 0) {
        bop_free(kv->allocator, txn, sizeof(*txn));
        return rc;
    }
    txn->kv = kv;
    txn->write = true;
    txn->level = parent->level + 1;
    txn->parent = parent;
    txn->context = how->context;
    parent->child = txn;
    *out_txn = txn;
    return 0;
}

static void destroy_read(struct bop_kv_txn *txn)
{
    if (txn->txn) {
        mdb_txn_abort(txn->txn);
    }
    bop_free(txn->kv->allocator, txn, sizeof(*txn));
}

static struct bop_kv_txn *take_idle(struct bop_kv *kv)
{
    struct bop_kv_txn *txn = NULL;

    pthread_mutex_lock(&kv->mutex);
    if (kv->idle_count > 0) {
        txn = kv->idle[--kv->idle_count];
        txn->is_reset = false;
    }
    pthread_mutex_unlock(&kv->mutex);
    return txn;
}

static bool keep_idle(struct bop_kv_txn *txn)
{
    struct bop_kv *kv = txn->kv;
    bool kept = false;

    pthread_mutex_lock(&kv->mutex);
    if (kv->idle_count < KV_IDLE_READERS_MAX) {
        kv->idle[kv->idle_count++] = txn;
        kept = true;
    }
    pthread_mutex_unlock(&kv->mutex);
    return kept;
}

static int begin_read(struct bop_kv *kv, const struct bop_kv_begin *how,
                      struct bop_kv_txn **out_txn)
{
    struct bop_kv_txn *txn = take_idle(kv);
    int rc;

    if (txn) {
        rc = bop__kv_code(mdb_txn_renew(txn->txn));
    } else {
        txn = bop_alloc_zeroed(kv->allocator, sizeof(*txn));
        if (!txn) {
            return bop__kv_refuse(BOP_ENOMEM, "no memory for a transaction");
        }
        txn->kv = kv;
        rc = bop__kv_code(mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &txn->txn));
    }
    if (rc < 0) {
        destroy_read(txn);
        return rc;
    }
    txn->context = how->context;
    atomic_fetch_add_explicit(&kv->readers, 1, memory_order_relaxed);
    *out_txn = txn;
    return 0;
}

static void end_read(struct bop_kv_txn *txn)
{
    /* Relaxed: a figure for the statistics. */
    atomic_fetch_sub_explicit(&txn->kv->readers, 1, memory_order_relaxed);
    if (!txn->is_reset) {
        mdb_txn_reset(txn->txn);
    }
    if (!keep_idle(txn)) {
        destroy_read(txn);
    }
}

void bop__kv_idle_deinit(struct bop_kv *kv)
{
    while (kv->idle_count > 0) {
        destroy_read(kv->idle[--kv->idle_count]);
    }
}

int bop_kv_begin_with(struct bop_kv *kv, const struct bop_kv_begin *how,
                      struct bop_kv_txn **out_txn)
{
    if (how->parent) {
        return begin_nested(kv, how, out_txn);
    }
    return how->write ? begin_write(kv, how, out_txn) : begin_read(kv, how, out_txn);
}

int bop_kv_begin(struct bop_kv *kv, bool write, struct bop_kv_txn **out_txn)
{
    return bop_kv_begin_with(kv, &(struct bop_kv_begin){.write = write}, out_txn);
}

/* A write transaction is over, for LMDB as well. */
static void end_write(struct bop_kv_txn *txn, bool committed)
{
    struct bop_kv *kv = txn->kv;

    txn->txn = NULL;
    bop__kv_tables_settle(kv, txn->level, committed);
    if (txn->parent) {
        txn->parent->child = NULL;
        bop_free(kv->allocator, txn, sizeof(*txn));
        return;
    }
    /* The account was right: nothing was written where no block was. */
    BOP_ASSERT(!committed ||
               bop__kv_used(kv) <= atomic_load_explicit(&kv->reserved_bytes, memory_order_relaxed));
    if (committed) {
        bop__kv_unsynced(kv);
    }
    pthread_mutex_unlock(&kv->write_mutex);
}

int bop_kv_commit(struct bop_kv_txn *txn)
{
    int rc = txn->failed;

    if (!txn->write || rc < 0) {
        bop_kv_abort(txn);
        return rc;
    }
    BOP_ASSERT(txn->cursors == 0 && !txn->child);
    rc = txn->parent ? 0 : bop__kv_code(bop__kv_tables_drop(txn));
    if (rc < 0) {
        bop_kv_abort(txn);
        return rc;
    }
    rc = bop__kv_code(mdb_txn_commit(txn->txn));
    end_write(txn, rc == 0);
    return rc;
}

void bop_kv_abort(struct bop_kv_txn *txn)
{
    if (!txn) {
        return;
    }
    BOP_ASSERT(txn->cursors == 0 && !txn->child);
    if (!txn->write) {
        end_read(txn);
        return;
    }
    mdb_txn_abort(txn->txn);
    end_write(txn, false);
}

int bop_kv_reset(struct bop_kv_txn *txn)
{
    if (txn->write || txn->is_reset) {
        return bop__kv_refuse(BOP_EINVAL, "not a read transaction under way");
    }
    mdb_txn_reset(txn->txn);
    txn->is_reset = true;
    return 0;
}

int bop_kv_renew(struct bop_kv_txn *txn)
{
    int rc;

    if (txn->write || !txn->is_reset) {
        return bop__kv_refuse(BOP_EINVAL, "not a read transaction that was reset");
    }
    rc = bop__kv_code(mdb_txn_renew(txn->txn));
    txn->is_reset = rc != 0;
    return rc;
}

uint64_t bop_kv_txn_id(const struct bop_kv_txn *txn)
{
    return mdb_txn_id(txn->txn);
}

uint64_t bop_kv_txn_lag(const struct bop_kv_txn *txn)
{
    MDB_envinfo info;
    uint64_t id = mdb_txn_id(txn->txn);

    BOP_IGNORE(mdb_env_info(txn->kv->env, &info)); /* Fails for a NULL only. */
    return txn->write || txn->is_reset || info.me_last_txnid < id ? 0 : info.me_last_txnid - id;
}

bool bop_kv_txn_is_write(const struct bop_kv_txn *txn)
{
    return txn->write;
}

void *bop_kv_txn_context(const struct bop_kv_txn *txn)
{
    return txn->context;
}
