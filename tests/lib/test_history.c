/*
 * The checker of histories finds what is wrong and accepts what is right: by
 * hand-made histories, and by comparing it with the brute-force search on random
 * ones.
 */
#include <inttypes.h>
#include <stdlib.h>

#include <bop/random.h>

#include "history.h"
#include "tap.h"

#define PUSH(v, a, b)                                                                              \
    {                                                                                              \
        .kind = HISTORY_PUSH, .value = v, .from = a, .to = b                                       \
    }
#define POP(v, a, b)                                                                               \
    {                                                                                              \
        .kind = HISTORY_POP, .value = v, .from = a, .to = b, .actor = 1                            \
    }
#define EMPTY(a, b)                                                                                \
    {                                                                                              \
        .kind = HISTORY_EMPTY, .from = a, .to = b, .actor = 1                                      \
    }
#define PUSH_MORE(v, a, b)                                                                         \
    {                                                                                              \
        .kind = HISTORY_PUSH, .value = v, .from = a, .to = b, .after_previous = true               \
    }
#define POP_MORE(v, a, b)                                                                          \
    {                                                                                              \
        .kind = HISTORY_POP, .value = v, .from = a, .to = b, .actor = 1, .after_previous = true    \
    }

/* The verdict on a history written out, and that the search is of the same opinion. */
#define CHECK_FIFO(expected, ...)                                                                  \
    do {                                                                                           \
        const struct history_op ops_[] = {__VA_ARGS__};                                            \
        struct history_verdict verdict_ = history_check_fifo(ops_, BOP_COUNT_OF(ops_), 0);         \
                                                                                                   \
        CHECK_EQ(verdict_.violation, expected);                                                    \
        CHECK_EQ(verdict_.text[0] == '\0', expected == HISTORY_FINE);                              \
        CHECK_EQ(history_search_fifo(ops_, BOP_COUNT_OF(ops_), 0), expected == HISTORY_FINE);      \
    } while (0)

TEST(fifo, accepts_nothing_and_one)
{
    struct history_verdict verdict = history_check_fifo(NULL, 0, 0);

    CHECK_EQ(verdict.violation, HISTORY_FINE);
    CHECK_FIFO(HISTORY_FINE, PUSH(7, 0, 1));
    CHECK_FIFO(HISTORY_FINE, EMPTY(0, 1));
    CHECK_FIFO(HISTORY_FINE, PUSH(7, 0, 1), POP(7, 2, 3));
    CHECK_FIFO(HISTORY_FINE, PUSH(0, 0, 1), PUSH(UINT64_MAX, 2, 3), POP(0, 4, 5),
               POP(UINT64_MAX, 6, 7), EMPTY(8, 9));
}

TEST(fifo, accepts_a_pop_that_overlaps_its_push)
{
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 9), POP(1, 2, 3));
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 4, 9), POP(1, 2, 5));
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 4, 9), POP(1, 2, 4)); /* They touch. */
}

TEST(fifo, accepts_overlapping_pushes_in_either_order)
{
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 5), PUSH(2, 1, 6), POP(1, 7, 8), POP(2, 9, 10));
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 5), PUSH(2, 1, 6), POP(2, 7, 8), POP(1, 9, 10));
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 1), PUSH(2, 2, 3), POP(2, 4, 8), POP(1, 5, 6));
}

TEST(fifo, leaves_what_was_not_popped_inside)
{
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 1), PUSH(2, 2, 3), POP(1, 4, 5));
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 3), PUSH(2, 2, 4), POP(2, 5, 6));
}

TEST(fifo, finds_what_was_never_pushed)
{
    CHECK_FIFO(HISTORY_FRESH, POP(1, 0, 1));
    CHECK_FIFO(HISTORY_FRESH, PUSH(1, 0, 1), POP(2, 2, 3));
    CHECK_FIFO(HISTORY_FRESH, PUSH(1, 0, 1), POP(1, 2, 3), POP(0, 4, 5));
}

TEST(fifo, finds_a_pop_before_its_push)
{
    CHECK_FIFO(HISTORY_FRESH, POP(1, 0, 1), PUSH(1, 2, 3));
    CHECK_FIFO(HISTORY_FRESH, POP(1, 0, 1), PUSH(1, 2, 3), PUSH(2, 0, 1));
}

TEST(fifo, finds_a_value_popped_twice)
{
    CHECK_FIFO(HISTORY_REPEAT, PUSH(1, 0, 1), POP(1, 2, 3), POP(1, 4, 5));
    CHECK_FIFO(HISTORY_REPEAT, PUSH(1, 0, 9), POP(1, 2, 5), POP(1, 3, 6));
    CHECK_FIFO(HISTORY_REPEAT, PUSH(1, 0, 1), PUSH(2, 2, 3), POP(2, 4, 20), POP(1, 5, 6),
               POP(2, 7, 8));
}

TEST(fifo, finds_a_lost_value_that_others_overtook)
{
    CHECK_FIFO(HISTORY_ORDER, PUSH(1, 0, 1), PUSH(2, 2, 3), POP(2, 4, 5));
    CHECK_FIFO(HISTORY_WITNESS, PUSH(1, 0, 1), EMPTY(2, 3));
}

TEST(fifo, finds_values_popped_the_wrong_way_round)
{
    CHECK_FIFO(HISTORY_ORDER, PUSH(1, 0, 1), PUSH(2, 2, 3), POP(2, 4, 5), POP(1, 6, 7));
    /* Between threads only, at a distance, with others in between. */
    CHECK_FIFO(HISTORY_ORDER, PUSH(3, 0, 10), PUSH(1, 1, 4), PUSH(2, 5, 8), POP(3, 11, 30),
               POP(2, 12, 14), POP(1, 15, 18));
    CHECK_FIFO(HISTORY_FINE, PUSH(3, 0, 10), PUSH(1, 1, 4), PUSH(2, 5, 8), POP(3, 11, 30),
               POP(2, 12, 15), POP(1, 15, 18));
}

/* Three values of which each two could be put in order: together they can, too, or two cannot. */
TEST(fifo, decides_chains_of_three)
{
    /* Pushes 1 < 2, pops 2 < 3, and 3 overlaps 1 in both. */
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 3), PUSH(2, 4, 5), PUSH(3, 2, 9), POP(1, 10, 20),
               POP(2, 11, 12), POP(3, 15, 21));
    /* The pop of 1 waits for that of 3. */
    CHECK_FIFO(HISTORY_ORDER, PUSH(1, 0, 3), PUSH(2, 4, 5), PUSH(3, 2, 9), POP(1, 22, 23),
               POP(2, 11, 12), POP(3, 15, 21));
}

TEST(fifo, takes_equal_stamps_as_overlap)
{
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 2), PUSH(2, 2, 3), POP(2, 4, 5), POP(1, 6, 7));
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 1), PUSH(2, 2, 3), POP(2, 4, 6), POP(1, 6, 7));
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 5, 5), PUSH(2, 5, 5), POP(2, 5, 5), POP(1, 5, 5), EMPTY(5, 5));
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 2), EMPTY(2, 3));
    CHECK_FIFO(HISTORY_ORDER, PUSH(1, 0, 1), PUSH(2, 2, 3), POP(2, 4, 5), POP(1, 6, 7));
}

TEST(fifo, accepts_empty_where_it_was)
{
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 5), EMPTY(1, 2), POP(1, 6, 7));
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 1), EMPTY(2, 5), POP(1, 3, 7));
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 1), POP(1, 2, 5), EMPTY(5, 6), PUSH(2, 6, 9));
    CHECK_FIFO(HISTORY_FINE, EMPTY(0, 9), PUSH(1, 0, 1), PUSH(2, 2, 3), POP(1, 4, 5), POP(2, 6, 7));
}

TEST(fifo, finds_empty_where_something_was_inside)
{
    CHECK_FIFO(HISTORY_WITNESS, PUSH(1, 0, 1), EMPTY(2, 3), POP(1, 4, 5));
    CHECK_FIFO(HISTORY_WITNESS, PUSH(1, 0, 1), EMPTY(3, 4), POP(1, 5, 5));
}

/* No value is inside all the time, but always one is. */
TEST(fifo, finds_empty_behind_values_that_take_turns)
{
    CHECK_FIFO(HISTORY_WITNESS, PUSH(1, 0, 1), EMPTY(2, 9), PUSH(2, 3, 4), POP(1, 5, 6),
               POP(2, 10, 11));
    /* The second push may have ended after the first pop took effect. */
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 1), EMPTY(2, 9), PUSH(2, 3, 6), POP(1, 5, 6),
               POP(2, 10, 11));
    CHECK_FIFO(HISTORY_WITNESS, PUSH(1, 0, 1), EMPTY(2, 19), PUSH(2, 3, 4), POP(1, 5, 6),
               PUSH(3, 7, 8), POP(2, 9, 12), POP(3, 20, 21));
}

TEST(fifo, lets_an_empty_answer_pass_where_it_may_be_spurious)
{
    const struct history_op ops[] = {PUSH(1, 0, 1), EMPTY(2, 3), POP(1, 4, 5)};
    const struct history_op bad[] = {PUSH(1, 0, 1), EMPTY(2, 3), POP(1, 4, 5), POP(1, 6, 7)};
    struct history_verdict verdict = history_check_fifo(ops, 3, HISTORY_EMPTY_IS_SPURIOUS);

    CHECK_EQ(verdict.violation, HISTORY_FINE);
    CHECK(history_search_fifo(ops, 3, HISTORY_EMPTY_IS_SPURIOUS));
    verdict = history_check_fifo(bad, 4, HISTORY_EMPTY_IS_SPURIOUS);
    CHECK_EQ(verdict.violation, HISTORY_REPEAT);
}

TEST(fifo, keeps_the_order_inside_a_bulk)
{
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 5), PUSH_MORE(2, 0, 5), POP(1, 6, 7), POP(2, 8, 9));
    CHECK_FIFO(HISTORY_ORDER, PUSH(1, 0, 5), PUSH_MORE(2, 0, 5), POP(2, 6, 7), POP(1, 8, 9));
    CHECK_FIFO(HISTORY_ORDER, PUSH(1, 0, 1), PUSH(2, 2, 3), POP(2, 6, 9), POP_MORE(1, 6, 9));
    /* Others' values may come between. */
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 5), PUSH_MORE(2, 0, 5), PUSH(3, 1, 2), POP(1, 6, 7),
               POP(3, 8, 9), POP(2, 10, 11));
    /* Two bulks pushed at once, and popped as two bulks at once. */
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 5), PUSH_MORE(2, 0, 5), PUSH(3, 0, 5), PUSH_MORE(4, 0, 5),
               POP(1, 6, 9), POP_MORE(4, 6, 9), POP(3, 6, 9), POP_MORE(2, 6, 9));
    /* 1 < 2 and 3 < 4 as pushed, 2 < 3 and 4 < 1 as popped: any two fit, the four do not. */
    CHECK_FIFO(HISTORY_ORDER, PUSH(1, 0, 5), PUSH_MORE(2, 0, 5), PUSH(3, 0, 5), PUSH_MORE(4, 0, 5),
               POP(2, 6, 9), POP_MORE(3, 6, 9), POP(4, 6, 9), POP_MORE(1, 6, 9));
}

TEST(fifo, finds_empty_in_the_midst_of_a_bulk)
{
    CHECK_FIFO(HISTORY_FINE, PUSH(1, 0, 9), PUSH_MORE(2, 0, 9), POP(1, 1, 2), EMPTY(3, 4),
               POP(2, 5, 6));
    CHECK_FIFO(HISTORY_WITNESS, PUSH(1, 0, 2), PUSH_MORE(2, 0, 2), POP(1, 1, 2), EMPTY(3, 4),
               POP(2, 5, 6));
    CHECK_FIFO(HISTORY_WITNESS, PUSH(1, 0, 9), PUSH_MORE(2, 0, 9), PUSH(3, 0, 1), EMPTY(2, 3),
               POP(1, 4, 5), POP_MORE(3, 4, 5), POP(2, 6, 7));
    /* 3 is inside at 3, so before it 1 and 2, of which 1 leaves at 5. */
    CHECK_FIFO(HISTORY_WITNESS, PUSH(1, 0, 4), PUSH_MORE(2, 0, 4), POP(1, 5, 5), PUSH(3, 3, 3),
               POP(2, 4, 6), POP_MORE(3, 4, 6), EMPTY(4, 4));
}

TEST(fifo, refuses_what_is_no_history)
{
    const struct history_op twice[] = {PUSH(1, 0, 1), PUSH(1, 2, 3)};
    const struct history_op backwards[] = {PUSH(1, 1, 0)};
    struct history_verdict verdict = history_check_fifo(twice, 2, 0);

    CHECK_EQ(verdict.violation, HISTORY_MISUSE);
    verdict = history_check_fifo(backwards, 1, 0);
    CHECK_EQ(verdict.violation, HISTORY_MISUSE);
}

TEST(fifo, says_which_values)
{
    const struct history_op ops[] = {PUSH(11, 0, 1), PUSH(22, 2, 3), POP(22, 4, 5), POP(11, 6, 7)};
    struct history_verdict verdict = history_check_fifo(ops, 4, 0);

    CHECK_STR_HAS(verdict.text, "11 was pushed at [0, 1]");
    CHECK_STR_HAS(verdict.text, "22 was pushed after it at [2, 3]");
}

/* -- Against the search ------------------------------------------------------------------------ */

#define RANDOM_OPS_MAX 14

struct draft {
    struct history_op ops[RANDOM_OPS_MAX];
    size_t count;
};

/* Any operations at any times: mostly wrong. */
static void draw_anything(struct bop_random *random, struct draft *draft)
{
    uint64_t pushed = 0;

    draft->count = 1 + bop_random_below(random, 9);
    for (size_t i = 0; i < draft->count; i++) {
        struct history_op *op = &draft->ops[i];
        uint64_t span = 1 + bop_random_below(random, 12);

        *op = (struct history_op){.from = bop_random_below(random, 16)};
        op->to = op->from + bop_random_below(random, span);
        if (bop_random_chance(random, 1, 2)) {
            op->kind = HISTORY_PUSH;
            op->value = ++pushed;
        } else if (bop_random_chance(random, 3, 4)) {
            op->kind = HISTORY_POP;
            op->value = 1 + bop_random_below(random, 5);
        } else {
            op->kind = HISTORY_EMPTY;
        }
    }
}

/* What a queue did, one operation a tick, each stretched over some ticks around. */
static void draw_true(struct bop_random *random, struct draft *draft)
{
    uint64_t inside[RANDOM_OPS_MAX];
    uint64_t slack = 1 + bop_random_below(random, 6);
    size_t head = 0, tail = 0;

    draft->count = 4 + bop_random_below(random, RANDOM_OPS_MAX - 3);
    for (size_t i = 0; i < draft->count; i++) {
        struct history_op *op = &draft->ops[i];

        *op = (struct history_op){.from = 100 + i - bop_random_below(random, slack),
                                  .to = 100 + i + bop_random_below(random, slack)};
        if (bop_random_chance(random, 1, 2)) {
            op->kind = HISTORY_PUSH;
            op->value = i + 1;
            inside[tail++] = op->value;
        } else if (head < tail) {
            op->kind = HISTORY_POP;
            op->value = inside[head++];
        } else {
            op->kind = HISTORY_EMPTY;
        }
    }
}

/* One small thing goes wrong, or nearly so. */
static void spoil(struct bop_random *random, struct draft *draft)
{
    struct history_op *a = &draft->ops[bop_random_below(random, draft->count)];
    struct history_op *b = &draft->ops[bop_random_below(random, draft->count)];

    switch (bop_random_below(random, 4)) {
    case 0:
        if (a->kind == b->kind) {
            uint64_t value = a->value;

            a->value = b->value;
            b->value = value;
        }
        break;
    case 1:
        a->from += 3;
        a->to = bop_max_u64(a->to, a->from);
        break;
    case 2:
        a->to -= bop_min_u64(a->to - a->from, 4);
        break;
    default:
        if (a->kind == HISTORY_POP) {
            *a = (struct history_op){.kind = HISTORY_EMPTY, .from = a->from, .to = a->to};
        }
        break;
    }
}

/* Neighbours of one kind become a bulk now and then. */
static void tie(struct bop_random *random, struct draft *draft)
{
    for (size_t i = 1; i < draft->count; i++) {
        struct history_op *op = &draft->ops[i], *previous = op - 1;

        if (op->kind == previous->kind && op->kind != HISTORY_EMPTY &&
            bop_random_chance(random, 1, 2)) {
            op->after_previous = true;
            op->from = previous->from = bop_min_u64(op->from, previous->from);
            op->to = previous->to = bop_max_u64(op->to, previous->to);
            for (size_t j = i - 1; j > 0 && draft->ops[j].after_previous; j--) {
                draft->ops[j - 1].from = op->from;
                draft->ops[j - 1].to = op->to;
            }
        }
    }
}

static void draw(struct bop_random *random, struct draft *draft)
{
    if (bop_random_chance(random, 1, 3)) {
        draw_anything(random, draft);
    } else {
        draw_true(random, draft);
        for (uint64_t times = bop_random_below(random, 4); times > 0; times--) {
            spoil(random, draft);
        }
    }
    if (bop_random_chance(random, 1, 3)) {
        tie(random, draft);
    }
}

static void note_draft(const struct draft *draft)
{
    static const char *const names[] = {"push", "pop", "empty"};

    for (size_t i = 0; i < draft->count; i++) {
        const struct history_op *op = &draft->ops[i];

        test_note("%s %" PRIu64 " [%" PRIu64 ", %" PRIu64 "]%s", names[op->kind], op->value,
                  op->from, op->to, op->after_previous ? " after the one above" : "");
    }
}

static uint64_t environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

/* A failing seed is run again by BOP_HISTORY_SEED=seed BOP_HISTORY_ROUNDS=1. */
TEST(fifo, agrees_with_the_search_on_random_histories)
{
    uint64_t first = environment("BOP_HISTORY_SEED", 1);
    uint64_t rounds = environment("BOP_HISTORY_ROUNDS", 60000);
    uint64_t seen[HISTORY_WITNESS + 1] = {0};

    for (uint64_t seed = first; seed < first + rounds; seed++) {
        struct bop_random random;
        struct draft draft;
        struct history_verdict verdict;
        unsigned options;
        bool found;

        bop_random_seed(&random, seed);
        draw(&random, &draft);
        options = bop_random_chance(&random, 1, 8) ? HISTORY_EMPTY_IS_SPURIOUS : 0;
        verdict = history_check_fifo(draft.ops, draft.count, options);
        found = history_search_fifo(draft.ops, draft.count, options);
        seen[verdict.violation]++;
        if (found != (verdict.violation == HISTORY_FINE)) {
            test_note("seed %" PRIu64 ", options %u: the search says %s, the checker: %s", seed,
                      options, found ? "fine" : "wrong", verdict.text);
            note_draft(&draft);
            REQUIRE(found == (verdict.violation == HISTORY_FINE));
        }
    }
    test_note("seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " fine, %" PRIu64 " fresh, %" PRIu64
              " repeated, %" PRIu64 " out of order, %" PRIu64 " wrongly empty",
              first, first + rounds - 1, seen[HISTORY_FINE], seen[HISTORY_FRESH],
              seen[HISTORY_REPEAT], seen[HISTORY_ORDER], seen[HISTORY_WITNESS]);
    CHECK_EQ(seen[HISTORY_MISUSE], 0);
    if (rounds >= 60000) {
        CHECK(seen[HISTORY_FINE] > rounds / 10);
        CHECK(seen[HISTORY_FRESH] > rounds / 100);
        CHECK(seen[HISTORY_REPEAT] > rounds / 100);
        CHECK(seen[HISTORY_ORDER] > rounds / 100);
        CHECK(seen[HISTORY_WITNESS] > rounds / 100);
    }
}

/* -- The checkers that count ------------------------------------------------------------------- */

TEST(conserved, finds_lost_doubled_and_invented_values)
{
    const struct history_op good[] = {PUSH(1, 0, 1), PUSH(2, 2, 3), POP(2, 4, 5), POP(1, 6, 7)};
    const struct history_op doubled[] = {PUSH(1, 0, 1), POP(1, 4, 5), POP(1, 6, 7)};
    const struct history_op invented[] = {PUSH(1, 0, 1), POP(1, 4, 5), POP(3, 6, 7)};
    struct history_verdict verdict = history_check_conserved(good, 4, true);

    CHECK_EQ(verdict.violation, HISTORY_FINE);
    verdict = history_check_conserved(good, 3, false);
    CHECK_EQ(verdict.violation, HISTORY_FINE);
    verdict = history_check_conserved(good, 3, true);
    CHECK_EQ(verdict.violation, HISTORY_LOST);
    CHECK_STR_EQ(verdict.text, "1 was pushed and never popped");
    verdict = history_check_conserved(doubled, 3, true);
    CHECK_EQ(verdict.violation, HISTORY_REPEAT);
    verdict = history_check_conserved(invented, 3, true);
    CHECK_EQ(verdict.violation, HISTORY_FRESH);
}

#define PUSH_BY(who, v, a, b)                                                                      \
    {                                                                                              \
        .kind = HISTORY_PUSH, .value = v, .from = a, .to = b, .actor = who                         \
    }
#define POP_BY(who, v, a, b)                                                                       \
    {                                                                                              \
        .kind = HISTORY_POP, .value = v, .from = a, .to = b, .actor = who                          \
    }

TEST(producer_order, looks_at_each_pair_of_producer_and_consumer)
{
    /* Consumer 2 runs ahead of consumer 3, and producers 0 and 1 interleave. */
    const struct history_op good[] = {
        PUSH_BY(0, 50, 0, 1),  PUSH_BY(0, 40, 2, 3), PUSH_BY(0, 30, 4, 5), PUSH_BY(1, 45, 0, 1),
        PUSH_BY(1, 35, 2, 3),  POP_BY(2, 45, 6, 7),  POP_BY(2, 40, 8, 9),  POP_BY(2, 30, 10, 11),
        POP_BY(3, 50, 12, 13), POP_BY(3, 35, 14, 15)};
    /* Consumer 2 gets 40 before 50. */
    const struct history_op late[] = {PUSH_BY(0, 50, 0, 1), PUSH_BY(0, 40, 2, 3),
                                      PUSH_BY(0, 30, 4, 5), POP_BY(2, 40, 6, 7),
                                      POP_BY(2, 50, 8, 9),  POP_BY(2, 30, 10, 11)};
    struct history_verdict verdict = history_check_producer_order(good, BOP_COUNT_OF(good), 0);

    CHECK_EQ(verdict.violation, HISTORY_FINE);
    verdict = history_check_producer_order(late, BOP_COUNT_OF(late), 0);
    CHECK_EQ(verdict.violation, HISTORY_LATE);
    CHECK_STR_EQ(verdict.text, "actor 2 popped 50 of actor 0 after 40 (0 may come late)");
    verdict = history_check_producer_order(late, BOP_COUNT_OF(late), 1);
    CHECK_EQ(verdict.violation, HISTORY_FINE);
}

/* What came late does not make what follows late, or on time. */
TEST(producer_order, counts_each_late_value_once)
{
    const struct history_op late[] = {PUSH_BY(0, 1, 0, 1), PUSH_BY(0, 2, 0, 1), PUSH_BY(0, 3, 0, 1),
                                      PUSH_BY(0, 4, 0, 1), POP_BY(2, 3, 2, 2),  POP_BY(2, 1, 2, 2),
                                      POP_BY(2, 2, 2, 2),  POP_BY(2, 4, 2, 2)};
    struct history_verdict verdict = history_check_producer_order(late, 8, 2);

    CHECK_EQ(verdict.violation, HISTORY_FINE);
    verdict = history_check_producer_order(late, 8, 1);
    CHECK_EQ(verdict.violation, HISTORY_LATE);
}

TEST(capacity, counts_what_is_inside_for_certain)
{
    const struct history_op full[] = {PUSH(1, 0, 1), PUSH(2, 2, 3), PUSH(3, 4, 6),
                                      POP(1, 5, 7),  POP(2, 8, 9),  POP(3, 10, 11)};
    const struct history_op crowded[] = {PUSH(1, 0, 1), PUSH(2, 2, 3), PUSH(3, 4, 6), POP(1, 7, 8)};
    struct history_verdict verdict = history_check_capacity(full, 6, 2);

    CHECK_EQ(verdict.violation, HISTORY_FINE);
    verdict = history_check_capacity(full, 6, 1);
    CHECK_EQ(verdict.violation, HISTORY_CROWDED);
    verdict = history_check_capacity(crowded, 4, 2);
    CHECK_EQ(verdict.violation, HISTORY_CROWDED);
    verdict = history_check_capacity(crowded, 4, 3);
    CHECK_EQ(verdict.violation, HISTORY_FINE);
}

/* -- Recording --------------------------------------------------------------------------------- */

TEST(recorder, puts_logs_together_with_growing_stamps)
{
    struct history h;
    const uint64_t bulk[] = {5, 6};
    const struct history_op *ops;
    size_t count;
    uint64_t from;

    history_init(&h, 2, 3);
    from = history_now(&h);
    history_record(&h.logs[1], HISTORY_POP, from, bulk, 2);
    from = history_now(&h);
    history_record(&h.logs[0], HISTORY_PUSH, from, bulk, 1);
    from = history_now(&h);
    history_record(&h.logs[1], HISTORY_EMPTY, from, NULL, 1);
    CHECK(!history_has_room(&h.logs[1], 1));
    CHECK(history_has_room(&h.logs[0], 2));

    ops = history_merge(&h, &count);
    REQUIRE_EQ(count, 4);
    CHECK_EQ(ops[0].actor, 0);
    CHECK_EQ(ops[0].from, 2);
    CHECK_EQ(ops[0].to, 3);
    CHECK_EQ(ops[1].value, 5);
    CHECK_EQ(ops[1].from, 0);
    CHECK_EQ(ops[1].to, 1);
    CHECK(!ops[1].after_previous);
    CHECK_EQ(ops[2].value, 6);
    CHECK(ops[2].after_previous);
    CHECK_EQ(ops[3].kind, HISTORY_EMPTY);
    CHECK(!ops[3].after_previous);

    history_clear(&h);
    history_merge(&h, &count);
    CHECK_EQ(count, 0);
    history_deinit(&h);
}
