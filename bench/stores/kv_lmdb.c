/*
 * bench/kv's workloads on LMDB itself, with the flags that bop_kv gives it.
 */
#include <lmdb.h>

#include "kv_workloads.h"

static MDB_env *env;
static MDB_txn *txn;
static MDB_dbi table;

static void store_open(const char *path, bool read_ahead)
{
    require(mdb_env_create(&env) == 0 && mdb_env_set_maxdbs(env, 32) == 0 &&
                mdb_env_set_mapsize(env, (size_t)64 << 30) == 0,
            "create");
    require(mdb_env_open(env, path,
                         MDB_WRITEMAP | MDB_NOSYNC | MDB_NOMETASYNC | MDB_NOTLS |
                             (read_ahead ? 0 : MDB_NORDAHEAD),
                         0600) == 0,
            "open");
    txn_begin(true);
    require(mdb_dbi_open(txn, "t", MDB_CREATE, &table) == 0, "table");
    txn_end(true);
}

static void store_close(void)
{
    mdb_env_close(env);
}

/* A reader is kept and renewed, as LMDB's documentation advises. */
static MDB_txn *reader;

static void txn_begin(bool write)
{
    if (write) {
        require(mdb_txn_begin(env, NULL, 0, &txn) == 0, "begin");
    } else if (reader) {
        txn = reader;
        require(mdb_txn_renew(txn) == 0, "renew");
    } else {
        require(mdb_txn_begin(env, NULL, MDB_RDONLY, &reader) == 0, "begin");
        txn = reader;
    }
}

static void txn_end(bool commit)
{
    if (commit) {
        require(mdb_txn_commit(txn) == 0, "commit");
    } else {
        mdb_txn_reset(txn);
    }
}

static void put(const void *key, const void *value)
{
    MDB_val k = {KEY_BYTES, (void *)key}, v = {VALUE_BYTES, (void *)value};

    require(mdb_put(txn, table, &k, &v, 0) == 0, "put");
}

static uint8_t get(const void *key)
{
    MDB_val k = {KEY_BYTES, (void *)key}, v;

    require(mdb_get(txn, table, &k, &v) == 0, "get");
    return *(const uint8_t *)v.mv_data;
}

static uint64_t scan(uint64_t *out_sum)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t total = 0;

    require(mdb_cursor_open(txn, table, &cursor) == 0, "cursor");
    *out_sum = 0;
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
        *out_sum += *(const uint8_t *)value.mv_data;
        total++;
    }
    mdb_cursor_close(cursor);
    return total;
}
