/*
 * RocksDB as a log: batches of puts with rising keys. Its best settings for that: FIFO compaction
 * (nothing is ever merged), no compression, log files that are used again; WAL synced if durable.
 * Threads that commit at once are joined to groups by RocksDB itself.
 */
#include <rocksdb/c.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LOG_THREADS

struct log {
    rocksdb_t *db;
    rocksdb_writeoptions_t *write;
    _Atomic uint64_t next;
};

static struct log *log_open(const char *directory, bool durable);
static void log_commit(struct log *log, const void *record, size_t size, unsigned count);
static uint64_t log_count(struct log *log);
static void log_close(struct log *log);

#include "peer.h"

static void check(const char *what, char *error)
{
    if (error)
        die(what, error);
}

static struct log *log_open(const char *directory, bool durable)
{
    static struct log log;
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_fifo_compaction_options_t *fifo = rocksdb_fifo_compaction_options_create();
    char *error = NULL;

    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_compaction_style(options, rocksdb_fifo_compaction);
    rocksdb_fifo_compaction_options_set_max_table_files_size(fifo, UINT64_C(1) << 40);
    rocksdb_options_set_fifo_compaction_options(options, fifo);
    rocksdb_options_set_recycle_log_file_num(options, 4);
    log.db = rocksdb_open(options, directory, &error);
    check("open", error);
    log.write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(log.write, durable);
    rocksdb_fifo_compaction_options_destroy(fifo);
    rocksdb_options_destroy(options);
    return &log;
}

static void log_commit(struct log *log, const void *record, size_t size, unsigned count)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    uint64_t next = atomic_fetch_add(&log->next, count);
    char *error = NULL;

    for (unsigned i = 0; i < count; i++) {
        uint64_t key = __builtin_bswap64(next + i); /* In the order of bytes. */

        rocksdb_writebatch_put(batch, (const char *)&key, sizeof(key), record, size);
    }
    rocksdb_write(log->db, log->write, batch, &error);
    check("write", error);
    rocksdb_writebatch_destroy(batch);
}

static uint64_t log_count(struct log *log)
{
    return rocksdb_get_latest_sequence_number(log->db);
}

static void log_close(struct log *log)
{
    rocksdb_writeoptions_destroy(log->write);
    rocksdb_close(log->db);
}
