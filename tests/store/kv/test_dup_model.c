/*
 * Random operations on tables with duplicates against a matrix of keys and
 * values: after each, the store answers as the matrix does.
 */
#include <stdlib.h>

#include <bop/kv_admin.h>
#include <bop/random.h>

#include "kv_test.h"

FIXTURE(setup, teardown)

enum { KEYS = 24, VALUES = 700, STEPS = 30000 };

struct model {
    bool has[KEYS][VALUES];
};

struct run {
    struct bop_kv *kv;
    struct bop_kv_table table;
    struct bop_kv_txn *txn;
    struct bop_kv_cursor *cursor;
    struct model now, committed;
    struct bop_random random;
    bool fixed;
};

/* Of fixed size: native integers. Else text of different lengths, in the order of the numbers. */
struct word {
    uint64_t number;
    char text[40];
    struct bop_slice slice;
};

static struct bop_slice word_of(const struct run *run, unsigned number, struct word *word)
{
    if (run->fixed) {
        word->number = number;
        return bop_slice(&word->number, sizeof(word->number));
    }
    snprintf(word->text, sizeof(word->text), "%05u%.*s", number, (int)(number % 30),
             "..............................");
    return bop_slice_cstr(word->text);
}

/* The pair at or beyond a place of the matrix, seen as one line; -1: none. */
static int find_pair(const struct model *model, int at, int step)
{
    for (; at >= 0 && at < KEYS * VALUES; at += step) {
        if (model->has[at / VALUES][at % VALUES]) {
            return at;
        }
    }
    return -1;
}

static unsigned count_of(const struct model *model, unsigned key)
{
    unsigned count = 0;

    for (int i = 0; i < VALUES; i++) {
        count += model->has[key][i];
    }
    return count;
}

static void check_at(struct run *run, int rc, int expect, struct bop_slice key,
                     struct bop_slice value)
{
    struct word word;

    CHECK_EQ(rc, expect < 0 ? BOP_ENOTFOUND : 0);
    if (rc == 0 && expect >= 0) {
        CHECK_SLICE_EQ(key, word_of(run, (unsigned)(expect / VALUES), &word));
        CHECK_SLICE_EQ(value, word_of(run, (unsigned)(expect % VALUES), &word));
    }
}

static void random_put(struct run *run, unsigned key, unsigned value)
{
    bool *has = &run->now.has[key][value];
    bool some = count_of(&run->now, key) > 0;
    struct word k, v;
    struct bop_slice kw = word_of(run, key, &k), vw = word_of(run, value, &v);
    uint64_t dice = bop_random_below(&run->random, 10);

    if (dice == 0) {
        CHECK_EQ(bop_kv_put_with(run->txn, run->table, kw, vw, BOP_KV_NO_OVERWRITE, NULL),
                 some ? BOP_EEXISTS : 0);
        *has |= !some;
        return;
    }
    if (dice < 3) {
        CHECK_EQ(bop_kv_put_with(run->txn, run->table, kw, vw, BOP_KV_NO_DUP_DATA, NULL),
                 *has ? BOP_EEXISTS : 0);
    } else if (dice < 5) {
        CHECK_EQ(bop_kv_cursor_put(run->cursor, kw, vw, 0), 0);
    } else {
        CHECK_EQ(bop_kv_put(run->txn, run->table, kw, vw), 0);
    }
    *has = true;
}

static void random_put_multiple(struct run *run, unsigned key, unsigned value)
{
    uint64_t many[200], written;
    size_t count = 1 + (size_t)bop_random_below(&run->random, 200);
    struct word k;

    if (!run->fixed) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        many[i] = (value + i * 3) % VALUES;
        run->now.has[key][many[i]] = true;
    }
    CHECK_EQ(bop_kv_put_multiple(run->txn, run->table, word_of(run, key, &k),
                                 bop_slice(many, count * 8), 8, &written),
             0);
    CHECK_EQ(written, count);
}

static void random_del(struct run *run, unsigned key, unsigned value)
{
    struct word k, v;
    bool some = count_of(&run->now, key) > 0;

    if (bop_random_chance(&run->random, 1, 60)) {
        CHECK_EQ(bop_kv_del(run->txn, run->table, word_of(run, key, &k)), some ? 0 : BOP_ENOTFOUND);
        memset(run->now.has[key], 0, sizeof(run->now.has[key]));
        return;
    }
    CHECK_EQ(bop_kv_del_pair(run->txn, run->table, word_of(run, key, &k), word_of(run, value, &v)),
             run->now.has[key][value] ? 0 : BOP_ENOTFOUND);
    run->now.has[key][value] = false;
}

static int expect_pair(const struct model *model, enum bop_kv_seek_pair how, int at)
{
    int found;

    switch (how) {
    case BOP_KV_PAIR:
        return model->has[at / VALUES][at % VALUES] ? at : -1;
    case BOP_KV_PAIR_OR_AFTER_IN_KEY:
        found = find_pair(model, at, 1);
        return found / VALUES == at / VALUES ? found : -1;
    case BOP_KV_PAIR_OR_AFTER:
        return find_pair(model, at, 1);
    case BOP_KV_PAIR_AFTER:
        return find_pair(model, at + 1, 1);
    case BOP_KV_PAIR_OR_BEFORE:
        return find_pair(model, at, -1);
    case BOP_KV_PAIR_BEFORE:
        return find_pair(model, at - 1, -1);
    }
    return -1;
}

/* From where a move led, go on by moves relative to it. */
static void walk_on(struct run *run, int at)
{
    const struct model *model = &run->now;
    struct bop_slice key, value;
    uint64_t count;

    for (int i = 0; i < 4 && at >= 0; i++) {
        int first = at / VALUES * VALUES, after = first + VALUES;
        enum bop_kv_seek how;
        int rc, expect;

        switch (bop_random_below(&run->random, 9)) {
        case 0:
            how = BOP_KV_NEXT, expect = find_pair(model, at + 1, 1);
            break;
        case 1:
            how = BOP_KV_PREV, expect = find_pair(model, at - 1, -1);
            break;
        case 2:
            how = BOP_KV_NEXT_KEY, expect = find_pair(model, after, 1);
            break;
        case 3:
            how = BOP_KV_PREV_KEY, expect = find_pair(model, first - 1, -1);
            break;
        case 4:
            how = BOP_KV_FIRST_DUP, expect = find_pair(model, first, 1);
            break;
        case 5:
            how = BOP_KV_LAST_DUP, expect = find_pair(model, after - 1, -1);
            break;
        case 6:
            how = BOP_KV_NEXT_DUP, expect = find_pair(model, at + 1, 1);
            expect = expect < after ? expect : -1;
            break;
        case 7:
            how = BOP_KV_PREV_DUP, expect = find_pair(model, at - 1, -1);
            expect = expect >= first ? expect : -1;
            break;
        default:
            how = BOP_KV_CURRENT, expect = at;
            break;
        }
        rc = bop_kv_cursor_seek(run->cursor, how, bytes(""), &key, &value);
        check_at(run, rc, expect, key, value);
        at = expect;
    }
    if (at >= 0) {
        CHECK_EQ(bop_kv_cursor_count(run->cursor, &count), 0);
        CHECK_EQ(count, count_of(model, (unsigned)(at / VALUES)));
    }
    if (at >= 0 && bop_random_chance(&run->random, 1, 8)) {
        CHECK_EQ(bop_kv_cursor_del(run->cursor, false), 0);
        run->now.has[at / VALUES][at % VALUES] = false;
    }
}

static void random_seek(struct run *run, unsigned number, unsigned value_number)
{
    const struct model *model = &run->now;
    int first = (int)number * VALUES, at = first + (int)value_number, expect = -1, rc;
    struct word k, v;
    struct bop_slice kw = word_of(run, number, &k), key = {0}, value = {0};

    if (bop_random_chance(&run->random, 1, 2)) {
        enum bop_kv_seek_pair how = (enum bop_kv_seek_pair)bop_random_below(&run->random, 6);

        rc = bop_kv_cursor_seek_pair(run->cursor, how, kw, word_of(run, value_number, &v), &key,
                                     &value);
        expect = expect_pair(model, how, at);
    } else {
        static const enum bop_kv_seek hows[] = {
            BOP_KV_AT,           BOP_KV_AFTER, BOP_KV_AT_OR_AFTER, BOP_KV_BEFORE,
            BOP_KV_AT_OR_BEFORE, BOP_KV_FIRST, BOP_KV_LAST};
        size_t how = (size_t)bop_random_below(&run->random, BOP_COUNT_OF(hows));
        const int expects[] = {
            count_of(model, number) ? find_pair(model, first, 1) : -1,
            find_pair(model, first + VALUES, 1),
            find_pair(model, first, 1),
            find_pair(model, first - 1, -1),
            find_pair(model, first + VALUES - 1, -1),
            find_pair(model, 0, 1),
            find_pair(model, KEYS * VALUES - 1, -1),
        };

        rc = bop_kv_cursor_seek(run->cursor, hows[how], kw, &key, &value);
        expect = expects[how];
    }
    check_at(run, rc, expect, key, value);
    walk_on(run, expect);
}

static void random_range(struct run *run, unsigned from, unsigned to, bool del)
{
    struct bop_kv_range range = {.from_open = bop_random_chance(&run->random, 1, 2),
                                 .to_closed = bop_random_chance(&run->random, 1, 2)};
    struct word f, t;
    uint64_t count = 0, expect = 0;
    int rc;

    for (unsigned key = 0; key < KEYS; key++) {
        if (key < from || (key == from && range.from_open) || key > to ||
            (key == to && !range.to_closed)) {
            continue;
        }
        expect += count_of(&run->now, key);
        if (del) {
            memset(run->now.has[key], 0, sizeof(run->now.has[key]));
        }
    }
    range.from = word_of(run, from, &f);
    range.to = word_of(run, to, &t);
    do {
        rc = (del ? bop_kv_range_del : bop_kv_range_count)(run->txn, run->table, &range, 3, &count);
    } while (rc == BOP_EAGAIN);
    CHECK_EQ(rc, 0);
    CHECK_EQ(count, expect);
}

static void check_multiple(struct run *run, unsigned number)
{
    struct bop_slice key, value, values;
    size_t value_bytes;
    unsigned at = 0;
    struct word k;
    int rc;

    if (!run->fixed || count_of(&run->now, number) == 0) {
        return;
    }
    CHECK_EQ(bop_kv_cursor_seek(run->cursor, BOP_KV_AT, word_of(run, number, &k), &key, &value), 0);
    rc = bop_kv_cursor_get_multiple(run->cursor, true, &values, &value_bytes);
    while (rc == 0) {
        CHECK_EQ(value_bytes, 8);
        for (size_t i = 0; i < values.size; i += 8) {
            uint64_t got;

            memcpy(&got, values.data + i, 8);
            while (at < VALUES && !run->now.has[number][at]) {
                at++;
            }
            CHECK_EQ(got, at);
            at++;
        }
        rc = bop_kv_cursor_get_multiple(run->cursor, false, &values, &value_bytes);
    }
    CHECK_EQ(rc, BOP_ENOTFOUND);
    while (at < VALUES) {
        CHECK(!run->now.has[number][at]);
        at++;
    }
}

static void begin_next(struct run *run)
{
    unsigned flags = BOP_KV_CREATE | BOP_KV_DUP_SORT;

    flags |= run->fixed ? BOP_KV_DUP_FIXED | BOP_KV_INTEGER_DUP | BOP_KV_INTEGER_KEY : 0;
    run->txn = begin(run->kv, true);
    REQUIRE_EQ(bop_kv_table_open_with(run->txn, "t", flags, &run->table), 0);
    REQUIRE_EQ(bop_kv_cursor_open(run->txn, run->table, &run->cursor), 0);
}

static void end(struct run *run, bool commit)
{
    bop_kv_cursor_close(run->cursor);
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
    unsigned key = (unsigned)bop_random_below(&run->random, KEYS);
    unsigned value = (unsigned)bop_random_below(&run->random, VALUES);
    uint64_t dice = bop_random_below(&run->random, 1000);

    if (dice < 350) {
        random_put(run, key, value);
    } else if (dice < 370) {
        random_put_multiple(run, key, value);
    } else if (dice < 550) {
        random_del(run, key, value);
    } else if (dice < 940) {
        random_seek(run, key, value);
    } else if (dice < 960) {
        random_range(run, key, (unsigned)bop_random_below(&run->random, KEYS), dice < 941);
    } else if (dice < 980) {
        check_multiple(run, key);
    } else {
        end(run, dice < 995);
        if (dice == 999) {
            bop_kv_close(run->kv);
            run->kv = open_store(f);
        }
        begin_next(run);
    }
}

static void run_model(struct fixture *f, bool fixed)
{
    static struct run run;
    const char *given = getenv("KV_MODEL_SEED");
    struct bop_kv_check_result checked;
    uint64_t seed = given ? strtoull(given, NULL, 10) : 1;

    test_note("seed %" PRIu64, seed);
    memset(&run, 0, sizeof(run));
    run.fixed = fixed;
    bop_random_seed(&run.random, seed);
    run.kv = open_store(f);
    begin_next(&run);
    end(&run, true);
    begin_next(&run);
    for (int i = 0; i < STEPS; i++) {
        random_step(f, &run);
    }
    end(&run, true);
    CHECK_EQ(bop_kv_check(run.kv, NULL, &checked, NULL), 0);
    CHECK(checked.pages > 10);
    bop_kv_close(run.kv);
}

TEST(kv_dup_model, agrees_with_a_matrix)
{
    run_model(f, false);
}

TEST(kv_dup_model, agrees_with_a_matrix_of_fixed_values)
{
    run_model(f, true);
}
