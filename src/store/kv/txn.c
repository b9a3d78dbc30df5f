/*
 * Transactions.
 *
 * There is one write transaction at a time, whose struct and account lie in the
 * store; LMDB has a lock for that too, but ours is held for the whole of it. Ended
 * read transactions keep their slot in LMDB's table of readers and are renewed
 * by the next begin, which then needs neither memory nor LMDB's lock.
 */
#include "kv.h"

static int begin_write(struct bop_kv *kv, struct bop_kv_txn **out_txn)
{
    MDB_txn *txn;
    int rc;

    pthread_mutex_lock(&kv->write_mutex);
    rc = bop__kv_code(mdb_txn_begin(kv->env, NULL, 0, &txn));
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
    kv->writer.txn = txn;
    kv->writer.failed = 0;
    kv->writer.cursors = 0;
    kv->writer.found = (struct kv_found){.cursor = NULL};
    *out_txn = &kv->writer;
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

static int begin_read(struct bop_kv *kv, struct bop_kv_txn **out_txn)
{
    struct bop_kv_txn *txn = take_idle(kv);
    int rc;

    if (txn) {
        rc = bop__kv_code(mdb_txn_renew(txn->txn));
    } else {
        txn = bop_alloc_zeroed(kv->allocator, sizeof(*txn));
        if (!txn) {
            return BOP_ENOMEM;
        }
        txn->kv = kv;
        rc = bop__kv_code(mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &txn->txn));
    }
    if (rc < 0) {
        destroy_read(txn);
        return rc;
    }
    atomic_fetch_add_explicit(&kv->readers, 1, memory_order_relaxed);
    *out_txn = txn;
    return 0;
}

static void end_read(struct bop_kv_txn *txn)
{
    /* Relaxed: a figure for the statistics. */
    atomic_fetch_sub_explicit(&txn->kv->readers, 1, memory_order_relaxed);
    mdb_txn_reset(txn->txn);
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

int bop_kv_begin(struct bop_kv *kv, bool write, struct bop_kv_txn **out_txn)
{
    return write ? begin_write(kv, out_txn) : begin_read(kv, out_txn);
}

int bop_kv_commit(struct bop_kv_txn *txn)
{
    struct bop_kv *kv = txn->kv;
    int rc = txn->failed;

    if (!txn->write || rc < 0) {
        bop_kv_abort(txn);
        return rc;
    }
    BOP_ASSERT(txn->cursors == 0);
    rc = bop__kv_code(mdb_txn_commit(txn->txn));
    txn->txn = NULL;
    bop__kv_tables_settle(kv, rc == 0);
    /* The account was right: nothing was written where no block was. */
    BOP_ASSERT(bop__kv_used(kv) <= atomic_load_explicit(&kv->reserved_bytes, memory_order_relaxed));
    pthread_mutex_unlock(&kv->write_mutex);
    return rc;
}

void bop_kv_abort(struct bop_kv_txn *txn)
{
    struct bop_kv *kv;

    if (!txn) {
        return;
    }
    BOP_ASSERT(txn->cursors == 0);
    if (!txn->write) {
        end_read(txn);
        return;
    }
    kv = txn->kv;
    mdb_txn_abort(txn->txn);
    txn->txn = NULL;
    bop__kv_tables_settle(kv, false);
    pthread_mutex_unlock(&kv->write_mutex);
}
