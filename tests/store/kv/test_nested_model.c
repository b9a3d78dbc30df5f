/*
 * Random nested transactions against a stack of arrays: the innermost commits into the
 * one around it or leaves no trace, to any depth, and the outermost likewise.
 */
#include <bop/random.h>

#include "kv_test.h"

FIXTURE(setup, teardown)

enum { KEYS = 120, DEPTH = 6, STEPS = 4000, SEEDS = 6 };

/* 0: absent; else the version put. */
struct level {
    uint32_t versions[KEYS];
    struct bop_kv_txn *txn;
};

struct run {
    struct bop_kv *kv;
    struct bop_kv_table table;
    struct level committed;
    struct level levels[DEPTH];
    int depth; /* Levels begun; 0: no transaction. */
    uint32_t version;
    struct bop_random random;
};

static struct bop_slice key_of(const uint8_t *number)
{
    return bop_slice(number, 1);
}

static void begin_one(struct run *run)
{
    struct level *around = run->depth > 0 ? &run->levels[run->depth - 1] : NULL;
    struct bop_kv_begin how = {.write = true, .parent = around ? around->txn : NULL};
    struct level *level = &run->levels[run->depth];

    memcpy(level->versions, (around ? around : &run->committed)->versions, sizeof(level->versions));
    REQUIRE_EQ(bop_kv_begin_with(run->kv, &how, &level->txn), 0);
    run->depth++;
}

static void end_one(struct run *run)
{
    struct level *level = &run->levels[run->depth - 1];
    struct level *around = run->depth > 1 ? &run->levels[run->depth - 2] : &run->committed;

    run->depth--;
    if (bop_random_chance(&run->random, 3, 5)) {
        REQUIRE_EQ(bop_kv_commit(level->txn), 0);
        memcpy(around->versions, level->versions, sizeof(level->versions));
    } else {
        bop_kv_abort(level->txn);
    }
}

static void change(struct run *run)
{
    struct level *level = &run->levels[run->depth - 1];
    uint8_t number = (uint8_t)bop_random_below(&run->random, KEYS);

    if (bop_random_chance(&run->random, 2, 3)) {
        uint8_t value[600] = {0};
        size_t size = 4 + (size_t)bop_random_below(&run->random, sizeof(value) - 4);

        bop_store_u32(value, ++run->version);
        REQUIRE_EQ(bop_kv_put(level->txn, run->table, key_of(&number), bop_slice(value, size)), 0);
        level->versions[number] = run->version;
    } else {
        CHECK_EQ(bop_kv_del(level->txn, run->table, key_of(&number)),
                 level->versions[number] ? 0 : BOP_ENOTFOUND);
        level->versions[number] = 0;
    }
}

/* Everything, as the innermost transaction or a reader of what is committed sees it. */
static void compare(struct run *run)
{
    struct level *level = run->depth > 0 ? &run->levels[run->depth - 1] : &run->committed;
    struct bop_kv_txn *txn = level->txn;

    if (run->depth == 0) {
        REQUIRE_EQ(bop_kv_begin(run->kv, false, &txn), 0);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        uint8_t number = (uint8_t)i;
        struct bop_slice value;
        int rc = bop_kv_get(txn, run->table, key_of(&number), &value);

        CHECK_EQ(rc, level->versions[i] ? 0 : BOP_ENOTFOUND);
        if (rc == 0) {
            CHECK_EQ(bop_load_u32(value.data), level->versions[i]);
        }
    }
    if (run->depth == 0) {
        bop_kv_abort(txn);
    } else if (run->depth > 1) {
        /* The one around it waits until this one has ended. */
        CHECK_EQ(bop_kv_put(run->levels[run->depth - 2].txn, run->table, bop_slice("x", 1),
                            bop_slice("y", 1)),
                 BOP_EBUSY);
    }
}

TEST(kv_nested_model, commits_inwards_and_aborts_without_a_trace)
{
    struct bop_kv_options options = small_options(f);

    options.nested = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct run run = {0};
        unsigned deepest = 0;

        bop_random_seed(&run.random, seed);
        REQUIRE_EQ(bop_kv_open(&options, &run.kv, NULL), 0);
        begin_one(&run);
        REQUIRE_EQ(bop_kv_table_open(run.levels[0].txn, "t", true, &run.table), 0);
        REQUIRE_EQ(bop_kv_commit(run.levels[0].txn), 0);
        run.depth = 0;
        for (unsigned step = 0; step < STEPS; step++) {
            uint64_t what = bop_random_below(&run.random, 10);

            if (run.depth == 0 || (what == 0 && run.depth < DEPTH)) {
                begin_one(&run);
            } else if (what == 1) {
                end_one(&run);
                compare(&run);
            } else if (what == 2) {
                compare(&run);
            } else {
                change(&run);
            }
            deepest = run.depth > (int)deepest ? (unsigned)run.depth : deepest;
        }
        CHECK_EQ(deepest, DEPTH);
        while (run.depth > 0) {
            end_one(&run);
        }
        compare(&run);
        bop_kv_close(run.kv);
        REQUIRE_EQ(bop_kv_remove(options.path, NULL), 0);
    }
}
