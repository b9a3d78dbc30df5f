/*
 * bench/kv's workloads on bop_kv.
 */
#include <bop/kv.h>

#include "kv_workloads.h"

#define FETCH 64

static struct bop_kv *kv;
static struct bop_kv_txn *txn;
static struct bop_kv_table table;

static void store_open(const char *path, bool read_ahead)
{
    struct bop_kv_options options = {.path = path, .read_ahead = read_ahead};

    require(bop_kv_open(&options, &kv, NULL) == 0, "open");
    txn_begin(true);
    require(bop_kv_table_open(txn, "t", true, &table) == 0, "table");
    txn_end(true);
}

static void store_close(void)
{
    bop_kv_close(kv);
}

static void txn_begin(bool write)
{
    require(bop_kv_begin(kv, write, &txn) == 0, "begin");
}

static void txn_end(bool commit)
{
    if (commit) {
        require(bop_kv_commit(txn) == 0, "commit");
    } else {
        bop_kv_abort(txn);
    }
}

static void put(const void *key, const void *value)
{
    require(bop_kv_put(txn, table, bop_slice(key, KEY_BYTES), bop_slice(value, VALUE_BYTES)) == 0,
            "put");
}

static uint8_t get(const void *key)
{
    struct bop_slice value = {0};

    require(bop_kv_get(txn, table, bop_slice(key, KEY_BYTES), &value) == 0, "get");
    return value.data[0];
}

static uint64_t scan(uint64_t *out_sum)
{
    const struct bop_slice none = {0};
    struct bop_kv_pair pairs[FETCH];
    struct bop_kv_cursor *cursor;
    size_t count = 1;
    uint64_t total = 1;

    require(bop_kv_cursor_open(txn, table, &cursor) == 0, "cursor");
    require(bop_kv_cursor_seek(cursor, BOP_KV_FIRST, none, &pairs[0].key, &pairs[0].value) == 0,
            "seek");
    *out_sum = pairs[0].value.data[0];
    while (count > 0) {
        require(bop_kv_cursor_fetch(cursor, BOP_KV_NEXT, pairs, FETCH, &count) == 0, "fetch");
        for (size_t i = 0; i < count; i++) {
            *out_sum += pairs[i].value.data[0];
        }
        total += count;
    }
    bop_kv_cursor_close(cursor);
    return total;
}
