/*
 * Random operations against a sorted array: after each, the store answers as the
 * array does. Transactions end by commit, abort, or close and reopen.
 */
#include <stdlib.h>

#include <bop/kv_admin.h>
#include <bop/random.h>

#include "kv_test.h"

FIXTURE(setup, teardown)

enum { KEYS = 300, KEY_BYTES = 3, VALUE_BYTES = 6000 };

/* The value of a key is its number, its version and a filler, so an array of both is the model. */
struct entry {
    bool present;
    uint32_t version;
    uint32_t size;
};

struct model {
    struct entry entries[KEYS];
};

struct run {
    struct bop_kv *kv;
    struct bop_kv_table table;
    struct bop_kv_txn *txn;
    struct bop_kv_cursor *cursor;
    struct model now, committed;
    struct bop_random random;
    int at; /* Where the model's cursor is; -1: nowhere. */
    uint32_t version;
};

/* Keys of one to three bytes, so that some begin others, in the order of their numbers. */
static struct bop_slice key_of(unsigned number, uint8_t out_key[KEY_BYTES])
{
    out_key[0] = (uint8_t)(number / 10);
    out_key[1] = (uint8_t)(number % 10 / 4);
    out_key[2] = (uint8_t)(number % 10 % 4);
    return bop_slice(out_key, number % 10 == 0 ? 1 : number % 4 == 0 && number % 10 == 4 ? 2 : 3);
}

static struct bop_slice value_of(unsigned number, const struct entry *entry,
                                 uint8_t out_value[VALUE_BYTES])
{
    memset(out_value, (int)(number + entry->version), entry->size);
    bop_store_u32(out_value, number);
    bop_store_u32(out_value + 4, entry->version);
    return bop_slice(out_value, entry->size);
}

static void check_value(unsigned number, const struct entry *entry, struct bop_slice got)
{
    uint8_t value[VALUE_BYTES];

    CHECK_SLICE_EQ(got, value_of(number, entry, value));
}

static void random_put(struct run *run, unsigned number, bool append)
{
    struct entry entry = {.present = true, .version = ++run->version};
    uint8_t key[KEY_BYTES], value[VALUE_BYTES];
    int expect = 0;

    entry.size = 8 + (uint32_t)bop_random_below(&run->random,
                                                bop_random_chance(&run->random, 1, 8) ? 5900 : 90);
    for (unsigned i = number; append && i < KEYS; i++) {
        expect = run->now.entries[i].present ? BOP_EINVAL : expect;
    }
    CHECK_EQ((append ? bop_kv_append : bop_kv_put)(run->txn, run->table, key_of(number, key),
                                                   value_of(number, &entry, value)),
             expect);
    if (expect == 0) {
        run->now.entries[number] = entry;
    }
}

static void random_get(struct run *run, unsigned number)
{
    const struct entry *entry = &run->now.entries[number];
    uint8_t key[KEY_BYTES];
    struct bop_slice got;
    int rc = bop_kv_get(run->txn, run->table, key_of(number, key), &got);

    CHECK_EQ(rc, entry->present ? 0 : BOP_ENOTFOUND);
    if (rc == 0) {
        check_value(number, entry, got);
    }
}

static int model_seek(const struct model *model, int from, int step)
{
    while (from >= 0 && from < KEYS && !model->entries[from].present) {
        from += step;
    }
    return from < KEYS ? from : -1;
}

static void random_seek(struct run *run, unsigned number)
{
    enum bop_kv_seek how = (enum bop_kv_seek)bop_random_below(&run->random, 5);
    uint8_t key[KEY_BYTES], found[KEY_BYTES];
    struct bop_slice got_key, got_value;
    int expect = -1, rc;

    if (run->at < 0 && (how == BOP_KV_NEXT || how == BOP_KV_PREV)) {
        return; /* From nowhere: LMDB's own business. */
    }
    switch ((unsigned)how) {
    case BOP_KV_FIRST:
        expect = model_seek(&run->now, 0, 1);
        break;
    case BOP_KV_LAST:
        expect = model_seek(&run->now, KEYS - 1, -1);
        break;
    case BOP_KV_NEXT:
        expect = model_seek(&run->now, run->at + 1, 1);
        break;
    case BOP_KV_PREV:
        expect = model_seek(&run->now, run->at - 1, -1);
        break;
    case BOP_KV_AT_OR_AFTER:
        expect = model_seek(&run->now, (int)number, 1);
        break;
    }
    rc = bop_kv_cursor_seek(run->cursor, how, key_of(number, key), &got_key, &got_value);
    CHECK_EQ(rc, expect < 0 ? BOP_ENOTFOUND : 0);
    if (rc == 0 && expect >= 0) {
        CHECK_SLICE_EQ(got_key, key_of((unsigned)expect, found));
        check_value((unsigned)expect, &run->now.entries[expect], got_value);
    }
    run->at = expect;
}

static void random_del(struct run *run, unsigned number)
{
    uint8_t key[KEY_BYTES];

    CHECK_EQ(bop_kv_del(run->txn, run->table, key_of(number, key)),
             run->now.entries[number].present ? 0 : BOP_ENOTFOUND);
    run->now.entries[number].present = false;
    if (run->at == (int)number) {
        run->at = -1;
    }
}

static void check_count(struct run *run)
{
    uint64_t count, expect = 0;

    for (int i = 0; i < KEYS; i++) {
        expect += run->now.entries[i].present;
    }
    CHECK_EQ(bop_kv_table_count(run->txn, run->table, &count), 0);
    CHECK_EQ(count, expect);
}

static void begin_next(struct run *run)
{
    run->txn = begin(run->kv, true);
    REQUIRE_EQ(bop_kv_table_open(run->txn, "t", true, &run->table), 0);
    REQUIRE_EQ(bop_kv_cursor_open(run->txn, run->table, &run->cursor), 0);
    run->at = -1;
}

static void end(struct run *run, bool commit)
{
    bop_kv_cursor_close(run->cursor);
    run->cursor = NULL;
    if (commit) {
        CHECK_EQ(bop_kv_commit(run->txn), 0);
        run->committed = run->now;
    } else {
        bop_kv_abort(run->txn);
        run->now = run->committed;
    }
}

static void random_step(struct fixture *f, struct run *run)
{
    unsigned number = (unsigned)bop_random_below(&run->random, KEYS);
    uint64_t dice = bop_random_below(&run->random, 1000);

    if (dice < 300) {
        if (bop_random_chance(&run->random, 1, 2)) {
            random_get(run, number); /* A put of what was just found goes another way. */
        }
        random_put(run, number, false);
    } else if (dice < 320) {
        random_put(run, number, true);
    } else if (dice < 520) {
        random_del(run, number);
    } else if (dice < 700) {
        random_get(run, number);
    } else if (dice < 970) {
        random_seek(run, number);
    } else if (dice < 972) {
        CHECK_EQ(bop_kv_table_clear(run->txn, run->table), 0);
        memset(&run->now, 0, sizeof(run->now));
        /* LMDB does not move cursors of a table that is cleared. */
        bop_kv_cursor_close(run->cursor);
        REQUIRE_EQ(bop_kv_cursor_open(run->txn, run->table, &run->cursor), 0);
        run->at = -1;
    } else {
        check_count(run);
        end(run, dice < 992);
        if (dice >= 999) {
            bop_kv_close(run->kv);
            run->kv = open_store(f);
        }
        begin_next(run);
    }
}

TEST(kv_model, agrees_with_a_sorted_array)
{
    static struct run run;
    const char *given = getenv("KV_MODEL_SEED");
    struct bop_kv_check_result checked;
    uint64_t seed = given ? strtoull(given, NULL, 10) : 1;

    test_note("seed %" PRIu64, seed);
    memset(&run, 0, sizeof(run));
    bop_random_seed(&run.random, seed);
    run.kv = open_store(f);
    begin_next(&run);
    end(&run, true);
    begin_next(&run);
    for (int i = 0; i < 60000; i++) {
        random_step(f, &run);
    }
    end(&run, true);
    CHECK_EQ(bop_kv_check(run.kv, NULL, &checked, NULL), 0);
    CHECK(checked.pages > 10);
    bop_kv_close(run.kv);
}
