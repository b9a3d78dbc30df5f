/*
 * LMDB as a log: rising integer keys, put with MDB_APPEND, its fastest way in. Each commit syncs;
 * fast is MDB_NOSYNC with MDB_WRITEMAP.
 */
#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>

struct log {
    MDB_env *env;
    MDB_dbi table;
    uint64_t next;
};

static struct log *log_open(const char *directory, bool durable);
static void log_commit(struct log *log, const void *record, size_t size, unsigned count);
static uint64_t log_count(struct log *log);
static void log_close(struct log *log);

#include "peer.h"

static void check(const char *what, int rc)
{
    if (rc != 0)
        die(what, mdb_strerror(rc));
}

static struct log *log_open(const char *directory, bool durable)
{
    static struct log log;
    MDB_txn *txn;

    check("create", mdb_env_create(&log.env));
    check("map", mdb_env_set_mapsize(log.env, 8 * BYTES_MAX));
    check("open", mdb_env_open(log.env, directory, durable ? 0 : MDB_NOSYNC | MDB_WRITEMAP, 0600));
    check("begin", mdb_txn_begin(log.env, NULL, 0, &txn));
    check("table", mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &log.table));
    check("commit", mdb_txn_commit(txn));
    return &log;
}

static void log_commit(struct log *log, const void *record, size_t size, unsigned count)
{
    MDB_txn *txn;

    check("begin", mdb_txn_begin(log->env, NULL, 0, &txn));
    for (unsigned i = 0; i < count; i++) {
        MDB_val key = {.mv_size = sizeof(log->next), .mv_data = &log->next};
        MDB_val value = {.mv_size = size, .mv_data = (void *)record};

        check("put", mdb_put(txn, log->table, &key, &value, MDB_APPEND));
        log->next++;
    }
    check("commit", mdb_txn_commit(txn));
}

static uint64_t log_count(struct log *log)
{
    MDB_stat stat;

    check("stat", mdb_env_stat(log->env, &stat));
    return stat.ms_entries;
}

static void log_close(struct log *log)
{
    mdb_env_close(log->env);
}
