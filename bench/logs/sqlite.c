/*
 * SQLite as a log: rows with rising keys, in WAL mode. synchronous=FULL syncs the WAL at each
 * commit; fast is OFF. Checkpoints come by themselves, as its default has them.
 */
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct log {
    sqlite3 *db;
    sqlite3_stmt *insert;
    sqlite3_stmt *begin;
    sqlite3_stmt *commit;
};

static struct log *log_open(const char *directory, bool durable);
static void log_commit(struct log *log, const void *record, size_t size, unsigned count);
static uint64_t log_count(struct log *log);
static void log_close(struct log *log);

#include "peer.h"

static void check(struct log *log, const char *what, bool good)
{
    if (!good)
        die(what, sqlite3_errmsg(log->db));
}

static void run_text(struct log *log, const char *text)
{
    check(log, text, sqlite3_exec(log->db, text, NULL, NULL, NULL) == SQLITE_OK);
}

static sqlite3_stmt *prepare(struct log *log, const char *text)
{
    sqlite3_stmt *statement;

    check(log, text, sqlite3_prepare_v2(log->db, text, -1, &statement, NULL) == SQLITE_OK);
    return statement;
}

static struct log *log_open(const char *directory, bool durable)
{
    static struct log log;
    char path[4096];

    snprintf(path, sizeof(path), "%s/log.db", directory);
    check(&log, "open", sqlite3_open(path, &log.db) == SQLITE_OK);
    run_text(&log, "PRAGMA journal_mode=WAL");
    run_text(&log, durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=OFF");
    run_text(&log, "CREATE TABLE log (seq INTEGER PRIMARY KEY, record BLOB)");
    log.insert = prepare(&log, "INSERT INTO log (record) VALUES (?)");
    log.begin = prepare(&log, "BEGIN");
    log.commit = prepare(&log, "COMMIT");
    return &log;
}

static void step(struct log *log, sqlite3_stmt *statement)
{
    check(log, "step", sqlite3_step(statement) == SQLITE_DONE);
    sqlite3_reset(statement);
}

static void log_commit(struct log *log, const void *record, size_t size, unsigned count)
{
    step(log, log->begin);
    for (unsigned i = 0; i < count; i++) {
        sqlite3_bind_blob(log->insert, 1, record, (int)size, SQLITE_STATIC);
        step(log, log->insert);
    }
    step(log, log->commit);
}

static uint64_t log_count(struct log *log)
{
    sqlite3_stmt *statement = prepare(log, "SELECT count(*) FROM log");
    uint64_t count;

    check(log, "count", sqlite3_step(statement) == SQLITE_ROW);
    count = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return count;
}

static void log_close(struct log *log)
{
    sqlite3_finalize(log->commit);
    sqlite3_finalize(log->begin);
    sqlite3_finalize(log->insert);
    check(log, "close", sqlite3_close(log->db) == SQLITE_OK);
}
