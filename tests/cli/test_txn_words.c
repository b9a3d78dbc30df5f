/*
 * The lines of `bop txn`.
 */
#include "tap.h"

#include "txn_words.h"

struct fixture {
    struct txn_words words;
};

static void setup(struct fixture *f)
{
    txn_words_init(&f->words);
}

static void teardown(struct fixture *f)
{
    txn_words_deinit(&f->words);
}

FIXTURE(setup, teardown)

static const char *add(struct fixture *f, const char *line)
{
    return txn_words_add(&f->words, bytes(line));
}

TEST(txn_words, make_a_transaction)
{
    struct bop_operation txn, put;
    struct bop_slice inner;
    struct bop_compare compare;

    CHECK_STR_EQ(add(f, "if map users ada version = 0\n"), NULL);
    CHECK_STR_EQ(add(f, "then map put users ada \"Ada \\\"L\\x6f\\\"\""), NULL);
    CHECK_STR_EQ(add(f, "else counter add misses -1"), NULL);
    REQUIRE_EQ(bop_transaction_operation(&f->words.txn, &txn), 0);
    CHECK_EQ(txn.compare_count, 1);
    CHECK_EQ(txn.then_count, 1);
    CHECK_EQ(txn.else_count, 1);
    REQUIRE(bop_compare_next(&txn.compares, &compare));
    CHECK_EQ(compare.kind, BOP_COMPARE_VERSION);
    CHECK_EQ(compare.relation, BOP_EQUAL);
    REQUIRE(bop_transaction_next(&txn.then_items, &inner));
    REQUIRE_EQ(bop_operation_decode(inner, &put), 0);
    CHECK_EQ(put.op, BOP_OP_MAP_PUT);
    CHECK_SLICE_EQ(put.name, bytes("users"));
    CHECK_SLICE_EQ(put.value, bytes("Ada \"Lo\""));
}

TEST(txn_words, leave_out_comments_and_empty_lines)
{
    CHECK_STR_EQ(add(f, ""), NULL);
    CHECK_STR_EQ(add(f, " \t\n"), NULL);
    CHECK_STR_EQ(add(f, "# if nothing\n"), NULL);
    CHECK_EQ(f->words.txn.compare_count, 0);
}

/* Also as the very first one, when no word had any bytes yet. */
TEST(txn_words, may_be_empty)
{
    CHECK_STR_EQ(add(f, "\"\"\n"), "a line begins with if, then or else");
    CHECK_STR_EQ(add(f, "then map put m \"\" \"\""), NULL);
    CHECK_EQ(f->words.txn.then_count, 1);
}

TEST(txn_words, say_what_is_wrong)
{
    CHECK_STR_EQ(add(f, "then \"map"), "a quote that is not closed");
    CHECK_STR_HAS(add(f, "then \"\\y\""), "backslash");
    CHECK_STR_EQ(add(f, "1 2 3 4 5 6 7 8 9"), "too many words");
    CHECK_STR_HAS(add(f, "then map fly m"), "no operation");
    CHECK_STR_HAS(add(f, "if map m k version about 7"), "no comparison");
}
