/*
 * Scans, and counting and removing ranges in bounded pieces.
 */
#include <string.h>

#include "kv.h"

#define SCAN_PAIRS 32

static int scan(struct bop_kv_cursor *cursor, enum bop_kv_seek start, struct bop_slice key,
                enum bop_kv_seek move, bop_kv_scan_fn *fn, void *context)
{
    struct bop_kv_pair pairs[SCAN_PAIRS];
    size_t count = 1;
    int rc = bop_kv_cursor_seek(cursor, start, key, &pairs[0].key, &pairs[0].value);

    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? 0 : rc;
    }
    while (count > 0) {
        for (size_t i = 0; i < count; i++) {
            rc = fn(context, pairs[i].key, pairs[i].value);
            if (rc != 0) {
                return rc;
            }
        }
        rc = bop_kv_cursor_fetch(cursor, move, pairs, SCAN_PAIRS, &count);
        if (rc < 0) {
            return rc;
        }
        if (count < SCAN_PAIRS && count > 0) {
            /* The end: a further move might start anew. */
            for (size_t i = 0; i < count && rc == 0; i++) {
                rc = fn(context, pairs[i].key, pairs[i].value);
            }
            return rc;
        }
    }
    return 0;
}

int bop_kv_scan(struct bop_kv_txn *txn, struct bop_kv_table table, enum bop_kv_seek start,
                struct bop_slice key, enum bop_kv_seek move, bop_kv_scan_fn *fn, void *context)
{
    struct bop_kv_cursor *cursor;
    int rc = bop_kv_cursor_open(txn, table, &cursor);

    if (rc == 0) {
        rc = scan(cursor, start, key, move, fn, context);
        bop_kv_cursor_close(cursor);
    }
    return rc;
}

static bool below_end(struct bop_kv_cursor *cursor, const struct bop_kv_range *range,
                      struct bop_slice key)
{
    int order;

    if (range->to.size == 0) {
        return true;
    }
    order = bop_kv_compare_keys(cursor->txn, (struct bop_kv_table){cursor->table}, key, range->to);
    return order < 0 || (order == 0 && range->to_closed);
}

/* Count the keys of the range up to a bound, and remove them if `del`. */
static int walk(struct bop_kv_cursor *cursor, struct bop_kv_range *range, uint64_t keys_max,
                bool del, uint64_t *count)
{
    struct bop_slice key, value;
    uint64_t values;
    int rc = bop_kv_cursor_seek(cursor, range->from_open ? BOP_KV_AFTER : BOP_KV_AT_OR_AFTER,
                                range->from, &key, &value);

    while (rc == 0 && below_end(cursor, range, key)) {
        if (keys_max-- == 0) {
            memcpy(range->place, key.data, key.size);
            range->from = bop_slice(range->place, key.size);
            range->from_open = false;
            return bop__kv_refuse(BOP_EAGAIN, "there are more");
        }
        rc = bop_kv_cursor_count(cursor, &values);
        if (rc == 0 && del) {
            rc = bop_kv_cursor_del(cursor, true);
        }
        if (rc == 0) {
            *count += values;
            rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT_KEY, key, &key, &value);
        }
    }
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

static int walk_table(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_kv_range *range,
                      uint64_t keys_max, bool del, uint64_t *count)
{
    struct bop_kv_cursor *cursor;
    int rc = bop_kv_cursor_open(txn, table, &cursor);

    if (rc < 0) {
        return rc;
    }
    rc = range->to.size ? bop__kv_check_key(txn, table.handle, range->to) : 0;
    if (rc == 0) {
        rc = walk(cursor, range, keys_max, del, count);
    }
    bop_kv_cursor_close(cursor);
    return rc;
}

int bop_kv_range_count(struct bop_kv_txn *txn, struct bop_kv_table table,
                       struct bop_kv_range *range, uint64_t keys_max, uint64_t *count)
{
    return walk_table(txn, table, range, keys_max, false, count);
}

int bop_kv_range_del(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_kv_range *range,
                     uint64_t keys_max, uint64_t *count)
{
    int rc = bop__kv_check_writable(txn);

    return rc ? rc : walk_table(txn, table, range, keys_max, true, count);
}
