/* Durability, what is not synced yet, and what there is to know of a store. */
#include "format.h"

unsigned bop__kv_sync_flags(unsigned durability)
{
    return durability == BOP_KV_SURVIVES_SYSTEM            ? 0
           : durability == BOP_KV_SURVIVES_SYSTEM_BUT_LAST ? MDB_NOMETASYNC
                                                           : MDB_NOMETASYNC | MDB_NOSYNC;
}

/* Relaxed, all of these: figures that decide when to sync, not what is synced. */
static uint64_t get(_Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

void bop__kv_unsynced(struct bop_kv *kv)
{
    if (atomic_load_explicit(&kv->durability, memory_order_relaxed) != BOP_KV_SURVIVES_SYSTEM) {
        atomic_fetch_add_explicit(&kv->unsynced_commits, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&kv->unsynced_bytes, kv->account.put_bytes, memory_order_relaxed);
    }
}

int bop_kv_sync(struct bop_kv *kv, struct bop_error *err)
{
    /* A commit meanwhile stays counted. */
    uint64_t commits = get(&kv->unsynced_commits), bytes = get(&kv->unsynced_bytes);
    int rc = bop__kv_code(mdb_env_sync(kv->env, 1));

    if (rc < 0) {
        return bop__kv_error(err, rc, "sync the store");
    }
    atomic_fetch_sub_explicit(&kv->unsynced_commits, commits, memory_order_relaxed);
    atomic_fetch_sub_explicit(&kv->unsynced_bytes, bytes, memory_order_relaxed);
    atomic_store_explicit(&kv->unsynced_since_ms, 0, memory_order_relaxed);
    return 0;
}

bool bop_kv_sync_due(struct bop_kv *kv, uint64_t now_ms)
{
    uint64_t since = get(&kv->unsynced_since_ms);

    if (get(&kv->unsynced_commits) == 0) {
        return false;
    }
    if (since == 0) {
        since = now_ms;
        atomic_store_explicit(&kv->unsynced_since_ms, since, memory_order_relaxed);
    }
    return (kv->sync_bytes > 0 && get(&kv->unsynced_bytes) >= kv->sync_bytes) ||
           (kv->sync_period_ms > 0 && now_ms - since >= kv->sync_period_ms);
}

int bop_kv_set_durability(struct bop_kv *kv, enum bop_kv_durability durability,
                          struct bop_error *err)
{
    const unsigned all = MDB_NOMETASYNC | MDB_NOSYNC;
    unsigned flags = bop__kv_sync_flags(durability);
    int rc = 0;

    if (kv->read_only || (unsigned)durability > BOP_KV_SURVIVES_SYSTEM) {
        return bop_error_set(err, BOP_EINVAL, "change the durability");
    }
    rc = pthread_mutex_lock(&kv->write_mutex);
    if (rc != 0) {
        return bop_error_set(err, -rc, "change the durability: a write transaction is under way");
    }
    rc = mdb_env_set_flags(kv->env, all & ~flags, 0);
    if (rc == 0) {
        rc = mdb_env_set_flags(kv->env, flags, 1);
    }
    rc = bop__kv_code(rc);
    if (rc == 0) {
        atomic_store_explicit(&kv->durability, (unsigned)durability, memory_order_relaxed);
    }
    pthread_mutex_unlock(&kv->write_mutex);
    if (rc < 0) {
        return bop__kv_error(err, rc, "change the durability");
    }
    return durability == BOP_KV_SURVIVES_PROCESS ? 0 : bop_kv_sync(kv, err);
}

void bop_kv_info(struct bop_kv *kv, struct bop_kv_info *out_info)
{
    struct bop_kv_stats stats;

    bop_kv_stats(kv, &stats);
    *out_info = (struct bop_kv_info){
        .path = kv->path,
        .fd = kv->data_fd,
        .page_bytes = kv->page_bytes,
        .map_bytes = stats.map_bytes,
        .reserved_bytes = stats.reserved_bytes,
        .used_bytes = stats.used_bytes,
        .last_txn = stats.last_txn,
        .unsynced_commits = get(&kv->unsynced_commits),
        .unsynced_bytes = get(&kv->unsynced_bytes),
        .readers = stats.readers,
        .readers_max = kv->readers_max,
        .tables_max = kv->tables_max - 1,
        .key_bytes_max = BOP_KV_KEY_MAX,
        .value_bytes_max = KV_VALUE_BYTES_MAX,
        .durability = (enum bop_kv_durability)atomic_load_explicit(&kv->durability,
                                                                   memory_order_relaxed),
        .nested = kv->nested,
        .read_only = kv->read_only,
    };
    pthread_mutex_lock(&kv->mutex);
    out_info->tables = kv->name_count;
    pthread_mutex_unlock(&kv->mutex);
}
