/*
 * Readers: who they are, how far behind, and what they hold back.
 *
 * LMDB tells them as lines of text: "pid thread txn", with a dash for a slot that
 * reads nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "format.h"

struct listing {
    bop_kv_reader_fn *fn;
    void *context;
    uint64_t last_txn;
    int result;
};

static int take_line(const char *line, void *context)
{
    struct listing *listing = context;
    struct bop_kv_reader reader;

    if (sscanf(line, "%" SCNd64 " %" SCNx64 " %" SCNu64, &reader.pid, &reader.thread,
               &reader.txn) == 3) {
        reader.lag = listing->last_txn - bop_min_u64(reader.txn, listing->last_txn);
        listing->result = listing->fn(listing->context, &reader);
    }
    return listing->result ? -1 : 0; /* LMDB stops at a negative one. */
}

int bop_kv_readers(struct bop_kv *kv, bop_kv_reader_fn *fn, void *context)
{
    struct listing listing = {.fn = fn, .context = context};
    MDB_envinfo info;
    int rc;

    BOP_IGNORE(mdb_env_info(kv->env, &info)); /* Fails for a NULL only. */
    listing.last_txn = info.me_last_txnid;
    rc = mdb_reader_list(kv->env, take_line, &listing);
    return rc < 0 && listing.result == 0 ? bop__kv_code(rc) : listing.result;
}

int bop_kv_readers_check(struct bop_kv *kv, unsigned *out_dead)
{
    int dead = 0;
    int rc = bop__kv_code(mdb_reader_check(kv->env, &dead));

    if (rc == 0) {
        *out_dead = (unsigned)dead;
    }
    return rc;
}

static int keep_oldest(void *context, const struct bop_kv_reader *reader)
{
    struct bop_kv_reader *oldest = context;

    if (reader->txn < oldest->txn) {
        *oldest = *reader;
    }
    return 0;
}

void bop__kv_watch_readers(struct bop_kv *kv, uint64_t txn)
{
    struct bop_kv_reader oldest = {.txn = UINT64_MAX};

    kv->lag_check_txn = txn + bop_max_u64(kv->reader_lag_max / 8, 1);
    if (bop_kv_readers(kv, keep_oldest, &oldest) == 0 && oldest.txn != UINT64_MAX &&
        oldest.lag > kv->reader_lag_max) {
        kv->long_reader(kv->context, oldest.txn, oldest.lag);
    }
}

int bop_kv_retained(struct bop_kv *kv, uint64_t *out_pages)
{
    struct bop_kv_reader oldest = {.txn = UINT64_MAX};
    uint64_t pages = 0, txn_id, count;
    struct bop_kv_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = bop_kv_readers(kv, keep_oldest, &oldest);

    if (rc == 0) {
        rc = bop_kv_begin(kv, false, &txn);
    }
    if (rc < 0) {
        return rc;
    }
    rc = mdb_cursor_open(txn->txn, KV_FREE_TABLE, &cursor);
    if (rc == 0) {
        while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
            memcpy(&txn_id, key.mv_data, sizeof(txn_id));
            memcpy(&count, value.mv_data, sizeof(count));
            pages += txn_id >= oldest.txn ? count : 0; /* Older ones are free to be used. */
        }
        mdb_cursor_close(cursor);
    }
    bop_kv_abort(txn);
    if (rc != MDB_NOTFOUND) {
        return bop__kv_code(rc);
    }
    *out_pages = pages;
    return 0;
}
