/*
 * The checkers accept what a correct cluster might have answered, and reject each way of
 * going wrong that they are there for: stale reads, lost and doubled writes, reordering, two
 * holders of a lock, tokens that go back, missed events.
 */
#include "tap.h"

#include <stdlib.h>

#include "check.h"

static struct chaos_verdict worst_of(const struct chaos_history *history)
{
    struct chaos_verdict worst = {.judgement = CHAOS_FINE};

    for (size_t i = 0; i < history->part_count; i++) {
        struct chaos_verdict verdict = chaos_check_part(&history->parts[i], 0);

        if (verdict.judgement != CHAOS_FINE) {
            worst = verdict;
        }
    }
    return worst;
}

/* The lines of a history, each ended by a line feed. */
static struct chaos_verdict judge(const char *text)
{
    struct chaos_history history;
    struct chaos_verdict verdict = {.judgement = CHAOS_UNDECIDED};
    FILE *file = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    char why[128] = "";

    chaos_history_init(&history);
    if (chaos_history_read(&history, file, why, sizeof(why)) &&
        chaos_history_finish(&history, why, sizeof(why))) {
        verdict = worst_of(&history);
    }
    CHECK_STR_EQ(why, "");
    fclose(file);
    chaos_history_deinit(&history);
    return verdict;
}

#define ACCEPTS(lines)                                                                             \
    do {                                                                                           \
        struct chaos_verdict verdict_ = judge(lines);                                              \
        CHECK_STR_EQ(verdict_.text, "");                                                           \
        CHECK_EQ(verdict_.judgement, CHAOS_FINE);                                                  \
    } while (0)

#define REJECTS(lines, part_of_reason)                                                             \
    do {                                                                                           \
        struct chaos_verdict verdict_ = judge(lines);                                              \
        CHECK_EQ(verdict_.judgement, CHAOS_WRONG);                                                 \
        CHECK_STR_HAS(verdict_.text, part_of_reason);                                              \
    } while (0)

/* ---- The format ---- */

TEST(history, says_what_is_wrong_with_a_line)
{
    static const struct {
        const char *line;
        const char *why;
    } cases[] = {
        {"x 2 1 ok reg.get r 0", "line 7: no start"},
        {"1 x 1 ok reg.get r 0", "line 7: no end"},
        {"2 1 1 ok reg.get r 0", "line 7: it ends before it begins"},
        {"1 2 x ok reg.get r 0", "line 7: no process"},
        {"1 2 1 maybe reg.get r 0", "line 7: no outcome"},
        {"1 2 1 unknown reg.get r", "line 7: the end does not fit the outcome"},
        {"1 - 1 ok reg.get r 0", "line 7: the end does not fit the outcome"},
        {"1 2 1 ok reg.got r 0", "line 7: no such operation"},
        {"1 2 1 ok reg.get", "line 7: no object"},
        {"1 2 1 ok reg.get r", "line 7: not as many numbers as the operation has"},
        {"1 2 1 ok reg.get r 1 2", "line 7: not as many numbers as the operation has"},
        {"1 2 1 fail reg.put r", "line 7: numbers are missing"},
        {"1 2 1 fail reg.put r 1 2", "line 7: too many numbers"},
        {"1 2 1 ok reg.get r one", "line 7: not a number"},
    };
    struct chaos_history history;
    char why[128];

    chaos_history_init(&history);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        CHECK(!chaos_history_add(&history, cases[i].line, 7, why, sizeof(why)));
        CHECK_STR_EQ(why, cases[i].why);
    }
    CHECK(chaos_history_add(&history, "# for people", 8, why, sizeof(why)));
    CHECK(chaos_history_add(&history, "", 9, why, sizeof(why)));
    CHECK_EQ(history.count, 0);
    chaos_history_deinit(&history);
}

TEST(history, refuses_an_object_of_two_kinds)
{
    struct chaos_history history;
    char why[128];

    chaos_history_init(&history);
    CHECK(chaos_history_add(&history, "1 2 1 ok reg.get x 0", 1, why, sizeof(why)));
    CHECK(chaos_history_add(&history, "1 2 1 ok counter.get x 0", 2, why, sizeof(why)));
    CHECK(!chaos_history_finish(&history, why, sizeof(why)));
    CHECK_STR_EQ(why, "line 2: x is a register elsewhere");
    chaos_history_deinit(&history);
}

TEST(history, separates_objects_and_sorts_by_start)
{
    struct chaos_history history;
    char why[128];

    chaos_history_init(&history);
    CHECK(chaos_history_add(&history, "5 6 1 ok reg.get b 0", 1, why, sizeof(why)));
    CHECK(chaos_history_add(&history, "3 - 1 unknown reg.put a 4", 2, why, sizeof(why)));
    CHECK(chaos_history_add(&history, "1 2 1 ok reg.get b 0", 3, why, sizeof(why)));
    REQUIRE(chaos_history_finish(&history, why, sizeof(why)));
    REQUIRE_EQ(history.part_count, 2);
    CHECK_STR_EQ(history.parts[0].object, "a");
    CHECK_EQ(history.parts[0].events[0].end, CHAOS_NEVER);
    CHECK_EQ(history.parts[0].events[0].args[0], 4);
    CHECK_EQ(history.parts[1].count, 2);
    CHECK_EQ(history.parts[1].events[0].start, 1);
    CHECK_EQ(history.parts[1].events[1].start, 5);
    chaos_history_deinit(&history);
}

/* ---- Registers ---- */

TEST(reg, may_show_either_of_two_writes_that_overlap)
{
    ACCEPTS("1 9 1 ok reg.put r 1\n"
            "2 8 2 ok reg.put r 2\n"
            "10 11 3 ok reg.get r 1\n");
    ACCEPTS("1 9 1 ok reg.put r 1\n"
            "2 8 2 ok reg.put r 2\n"
            "10 11 3 ok reg.get r 2\n");
}

TEST(reg, rejects_a_stale_read)
{
    REJECTS("1 2 1 ok reg.put r 1\n"
            "3 4 1 ok reg.put r 2\n"
            "5 6 2 ok reg.get r 1\n",
            "line 3");
    /* Two reads, the later of which goes back, while the write was under way. */
    REJECTS("1 20 1 ok reg.put r 1\n"
            "2 3 2 ok reg.get r 1\n"
            "4 5 3 ok reg.get r 0\n",
            "line 3");
}

TEST(reg, rejects_a_lost_write)
{
    REJECTS("1 2 1 ok reg.put r 1\n"
            "5 6 2 ok reg.get r 0\n",
            "line 2");
}

TEST(reg, rejects_a_write_that_came_twice)
{
    /* A put of 1 that is done again after 2. */
    REJECTS("1 2 1 ok reg.put r 1\n"
            "3 4 1 ok reg.put r 2\n"
            "5 6 2 ok reg.get r 2\n"
            "7 8 2 ok reg.get r 1\n",
            "line 4");
}

TEST(reg, rejects_the_value_of_a_write_that_failed)
{
    REJECTS("1 2 1 fail reg.put r 1\n"
            "5 6 2 ok reg.get r 1\n",
            "line 2");
}

TEST(reg, lets_an_unknown_write_be_done_late_or_never)
{
    ACCEPTS("1 - 1 unknown reg.put r 1\n"
            "5 6 2 ok reg.get r 0\n"
            "7 8 2 ok reg.get r 1\n");
    ACCEPTS("1 - 1 unknown reg.put r 1\n"
            "7 8 2 ok reg.get r 0\n");
    REJECTS("1 - 1 unknown reg.put r 1\n"
            "5 6 2 ok reg.get r 1\n"
            "7 8 2 ok reg.get r 0\n",
            "line 3");
    /* Not before it was asked for. */
    REJECTS("5 6 2 ok reg.get r 1\n"
            "7 - 1 unknown reg.put r 1\n",
            "line 1");
}

TEST(reg, compares_and_sets_once)
{
    ACCEPTS("1 2 1 ok reg.put r 1\n"
            "3 9 2 ok reg.cas r 1 2 1\n"
            "3 9 3 ok reg.cas r 1 3 0\n"
            "10 11 2 ok reg.get r 2\n");
    /* Both cannot have found 1. */
    REJECTS("1 2 1 ok reg.put r 1\n"
            "3 9 2 ok reg.cas r 1 2 1\n"
            "3 9 3 ok reg.cas r 1 3 1\n",
            "not linearizable");
    /* Nor can it fail where 1 is. */
    REJECTS("1 2 1 ok reg.put r 1\n"
            "3 4 2 ok reg.cas r 1 2 0\n",
            "line 2");
}

/* ---- Counters ---- */

TEST(counter, adds_and_shows)
{
    ACCEPTS("1 9 1 ok counter.add c 2 5\n"
            "2 8 2 ok counter.add c 3 3\n"
            "10 11 2 ok counter.get c 5\n"
            "12 13 2 ok counter.cas c 5 9 1 9\n"
            "14 15 2 ok counter.cas c 5 1 0 9\n");
    REJECTS("1 9 1 ok counter.add c 2 2\n"
            "2 8 2 ok counter.add c 3 3\n",
            "not linearizable");
    REJECTS("1 2 1 ok counter.add c 2 2\n"
            "3 4 2 ok counter.get c 4\n",
            "line 2");
    REJECTS("1 2 1 ok counter.add c 2 2\n"
            "3 4 2 ok counter.cas c 7 1 0 3\n",
            "line 2");
}

/* ---- The search against every order there is ---- */

struct random {
    uint64_t state;
};

static unsigned below(struct random *random, unsigned bound)
{
    random->state = random->state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(random->state >> 33) % bound;
}

static bool any_order(const struct chaos_event *events, size_t count, unsigned done, int64_t state)
{
    if (done == (1u << count) - 1) {
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        const struct chaos_event *e = &events[i];
        int64_t next = state;
        bool may = (done >> i & 1) == 0;

        for (size_t n = 0; n < count && may; n++) {
            may = (done >> n & 1) != 0 || n == i || events[n].end >= e->start;
        }
        if (may && e->op == CHAOS_REG_GET) {
            may = state == e->args[0];
        } else if (may && e->op == CHAOS_REG_PUT) {
            next = e->args[0];
        } else if (may) {
            may = e->outcome == CHAOS_UNKNOWN || (state == e->args[0]) == (e->args[2] != 0);
            next = state == e->args[0] ? e->args[1] : state;
        }
        if (may && any_order(events, count, done | 1u << i, next)) {
            return true;
        }
    }
    return false;
}

#define ROUNDS  20000
#define OPS_MAX 6

TEST(search, agrees_with_trying_every_order)
{
    struct random random = {.state = 20};
    size_t fine = 0;

    for (int round = 0; round < ROUNDS; round++) {
        struct chaos_event events[OPS_MAX];
        int64_t args[OPS_MAX][3];
        size_t count = 1 + below(&random, OPS_MAX);
        struct chaos_part part = {
            .object = "r", .kind = CHAOS_REGISTER, .events = events, .count = count};
        struct chaos_verdict verdict;
        bool expected;

        for (size_t i = 0; i < count; i++) {
            enum chaos_op op = (enum chaos_op)(CHAOS_REG_GET + below(&random, 3));
            bool unknown = op != CHAOS_REG_GET && below(&random, 4) == 0;
            int64_t start = below(&random, 12);

            args[i][0] = below(&random, 3);
            args[i][1] = below(&random, 3);
            args[i][2] = below(&random, 2);
            events[i] = (struct chaos_event){.start = start,
                                             .end = unknown ? CHAOS_NEVER
                                                            : start + below(&random, 6),
                                             .outcome = unknown ? CHAOS_UNKNOWN : CHAOS_OK,
                                             .op = op,
                                             .object = "r",
                                             .count = 3,
                                             .args = args[i]};
        }
        verdict = chaos_check_linear(&part, 0);
        expected = any_order(events, count, 0, 0);
        REQUIRE_EQ(verdict.judgement == CHAOS_FINE, expected);
        fine += expected;
    }
    CHECK(fine > ROUNDS / 20 && fine < ROUNDS - ROUNDS / 20); /* Both answers were tried. */
}

/* 24 unknown writes of which one is seen: without a memory of states there are 24! orders. */
TEST(search, remembers_where_it_was)
{
    char text[4096] = "", line[64];

    for (int i = 1; i <= 12; i++) {
        snprintf(line, sizeof(line), "%d - %d unknown reg.put r %d\n", i, i, i);
        strcat(text, line);
    }
    strcat(text, "50 51 1 ok reg.get r 7\n"
                 "52 53 1 ok reg.get r 0\n");
    REJECTS(text, "not linearizable");
}

TEST(search, gives_up_when_told_to)
{
    char text[8192] = "", line[64];
    struct chaos_history history;
    struct chaos_verdict verdict;
    char why[128];
    FILE *file;

    for (int i = 1; i <= 60; i++) {
        snprintf(line, sizeof(line), "%d - %d unknown counter.add c %d\n", i, i, 1 << i % 20);
        strcat(text, line);
    }
    strcat(text, "100 101 1 ok counter.get c -1\n");
    file = fmemopen(text, strlen(text), "r");
    chaos_history_init(&history);
    REQUIRE(chaos_history_read(&history, file, why, sizeof(why)));
    REQUIRE(chaos_history_finish(&history, why, sizeof(why)));
    verdict = chaos_check_linear(&history.parts[0], 1);
    CHECK_EQ(verdict.judgement, CHAOS_UNDECIDED);
    fclose(file);
    chaos_history_deinit(&history);
}

/* ---- Tallies ---- */

#define TALLY                                                                                      \
    "1 4 1 ok tally.add t 1 1\n"                                                                   \
    "2 6 2 ok tally.add t 2 3\n"                                                                   \
    "5 - 3 unknown tally.add t 4\n"

TEST(tally, stays_within_its_bounds)
{
    ACCEPTS(TALLY "10 11 1 ok tally.get t 3\n");
    ACCEPTS(TALLY "10 11 1 ok tally.get t 7\n");
    ACCEPTS(TALLY "3 11 1 ok tally.get t 1\n");
    REJECTS(TALLY "10 11 1 ok tally.get t 2\n", "additions were lost");
    REJECTS(TALLY "10 11 1 ok tally.get t 8\n", "added twice");
    REJECTS(TALLY "10 11 1 ok tally.get t 7\n12 13 1 ok tally.get t 3\n", "line 4 had shown 7");
    REJECTS(TALLY "10 11 1 ok tally.add t 1 3\n", "additions were lost");
    REJECTS("1 9 1 ok tally.add t 1 2\n2 8 2 ok tally.add t 1 2\n", "both give 2");
}

/* ---- Sets ---- */

#define SET                                                                                        \
    "1 2 1 ok set.add s 10 1\n"                                                                    \
    "3 - 2 unknown set.add s 11\n"                                                                 \
    "4 5 3 fail set.add s 12\n"

TEST(set, keeps_what_was_acknowledged)
{
    ACCEPTS(SET "8 9 1 ok set.all s 10\n");
    ACCEPTS(SET "6 7 1 ok set.has s 11 0\n8 9 1 ok set.has s 11 1\n10 11 1 ok set.all s 11 10\n");
    REJECTS(SET "8 9 1 ok set.all s 11\n", "acknowledged in line 1");
    REJECTS(SET "8 9 1 ok set.has s 10 0\n", "acknowledged in line 1");
    REJECTS(SET "8 9 1 ok set.all s 10 10\n", "twice");
    REJECTS(SET "8 9 1 ok set.all s 10 12\n", "failed in line 3");
    REJECTS(SET "8 9 1 ok set.all s 10 13\n", "nobody had asked");
    REJECTS("5 6 1 ok set.add s 10 1\n1 2 1 ok set.has s 10 1\n", "nobody had asked");
    REJECTS(SET "6 7 1 ok set.has s 11 1\n8 9 1 ok set.has s 11 0\n", "line 4 had found");
    REJECTS(SET "6 7 1 ok set.has s 11 1\n8 9 1 ok set.all s 10\n", "line 4 had found");
    REJECTS("1 2 1 ok set.add s 10 0\n", "before it was added");
}

/* ---- Lists ---- */

#define LIST                                                                                       \
    "1 2 1 ok list.append l 10\n"                                                                  \
    "3 6 1 ok list.append l 11\n"                                                                  \
    "4 - 2 unknown list.append l 12\n"                                                             \
    "5 6 3 fail list.append l 13\n"

TEST(list, shows_prefixes_of_itself)
{
    ACCEPTS(LIST "3 4 1 ok list.get l 10\n8 9 1 ok list.get l 10 12 11\n");
    ACCEPTS(LIST "8 9 1 ok list.get l 10 11\n10 11 1 ok list.get l 10 11 12\n");
    REJECTS(LIST "8 9 1 ok list.get l 10 12\n", "does not know of line 2");
    REJECTS(LIST "8 9 1 ok list.get l 10 11 12\n10 11 1 ok list.get l 10 11\n",
            "does not know of line 5");
    REJECTS(LIST "8 9 1 ok list.get l 10 12 11\n8 9 1 ok list.get l 10 11\n", "not a prefix");
    REJECTS(LIST "8 9 1 ok list.get l 11 10\n", "had ended before");
    REJECTS(LIST "8 9 1 ok list.get l 10 11 11\n", "twice");
    REJECTS(LIST "8 9 1 ok list.get l 10 11 13\n", "refused");
    REJECTS(LIST "8 9 1 ok list.get l 10 11 14\n", "nobody appended");
    REJECTS(LIST "1 2 1 ok list.get l 10 12\n8 9 1 ok list.get l 10 12 11\n", "not asked for yet");
}

/* ---- Locks ---- */

#define LOCK                                                                                       \
    "1 2 1 ok lock.take k 5\n"                                                                     \
    "8 9 1 ok lock.drop k 5 1\n"

TEST(lock, has_one_holder_at_a_time)
{
    ACCEPTS(LOCK "3 9 2 ok lock.take k 6\n12 13 2 ok lock.drop k 6 1\n");
    ACCEPTS("1 2 1 ok lock.take k 5\n8 9 1 ok lock.drop k 5 0\n"
            "3 4 2 ok lock.take k 6\n7 8 2 ok lock.drop k 6 1\n");
    REJECTS(LOCK "3 4 2 ok lock.take k 6\n12 13 2 ok lock.drop k 6 1\n", "two had it at once");
    REJECTS(LOCK "1 11 2 ok lock.take k 4\n12 13 2 ok lock.drop k 4 1\n", "a lower token");
    REJECTS(LOCK "10 11 2 ok lock.take k 4\n", "line 3 got token 4 after line 1 had got 5");
    REJECTS(LOCK "10 11 2 ok lock.take k 5\n", "the same token");
    REJECTS(LOCK "10 11 1 ok lock.drop k 5 1\n", "given back twice");
    REJECTS(LOCK "10 11 1 ok lock.drop k 7 1\n", "nobody got");
}

/* ---- Transactions ---- */

TEST(bank, keeps_its_money)
{
    ACCEPTS("1 2 1 ok bank.move b 0 1 5 1\n3 4 1 ok bank.read b 20 2 5 15\n");
    REJECTS("3 4 1 ok bank.read b 20 2 5 20\n", "hold 25, not 20");
    REJECTS("3 4 1 ok bank.read b 20 2 -5 25\n", "account 0 has -5");
    REJECTS("3 4 1 ok bank.read b 20 2 20\n", "1 accounts, not 2");
}

TEST(skew, sets_one_side_only)
{
    ACCEPTS("1 9 1 ok skew.set p 0 1\n1 9 2 ok skew.set p 1 0\n10 11 1 ok skew.read p 1 0\n");
    ACCEPTS("1 9 1 ok skew.set p 0 1\n3 4 1 ok skew.read p 0 0\n");
    REJECTS("1 9 1 ok skew.set p 0 1\n1 9 2 ok skew.set p 1 1\n", "set both sides");
    REJECTS("1 - 1 unknown skew.set p 0\n3 4 1 ok skew.read p 1 1\n", "both sides set");
    REJECTS("1 2 1 ok skew.set p 0 1\n3 4 1 ok skew.read p 0 0\n", "does not find");
    REJECTS("1 9 1 ok skew.set p 0 1\n3 4 1 ok skew.read p 0 1\n", "kept from being set");
}

/* ---- Watches ---- */

#define PUTS                                                                                       \
    "1 2 1 ok watch.put m 1 10 100\n"                                                              \
    "3 4 1 ok watch.put m 2 20 101\n"                                                              \
    "5 - 1 unknown watch.put m 1 11\n"                                                             \
    "6 7 1 fail watch.put m 1 12\n"
#define FINAL "20 21 1 ok watch.final m 1 10 100 2 20 101\n"

TEST(watch, hears_of_everything_once_and_in_order)
{
    ACCEPTS(PUTS
            "2 3 9 ok watch.event m 9 0 1 10 100\n4 5 9 ok watch.event m 9 1 2 20 101\n"
            "2 3 8 ok watch.event m 8 0 1 10 100\n4 5 8 ok watch.event m 8 1 2 20 101\n" FINAL);
    ACCEPTS(PUTS "2 3 9 ok watch.event m 9 0 1 10 100\n4 5 9 ok watch.event m 9 1 2 20 101\n"
                 "6 7 9 ok watch.event m 9 2 1 11 104\n"
                 "20 21 1 ok watch.final m 1 11 104 2 20 101\n");
    REJECTS(PUTS "2 3 9 ok watch.event m 9 0 1 10 100\n" FINAL,
            "did not hear of the put in line 2");
    REJECTS(PUTS "2 3 9 ok watch.event m 9 0 2 20 101\n4 5 9 ok watch.event m 9 1 1 10 100\n",
            "version 100 after version 101");
    REJECTS(PUTS "2 3 9 ok watch.event m 9 0 1 10 100\n4 5 9 ok watch.event m 9 1 1 10 100\n",
            "version 100 after version 100");
    REJECTS(PUTS "6 7 9 ok watch.event m 9 0 1 12 104\n", "nobody had put 12");
    REJECTS(PUTS "6 7 9 ok watch.event m 9 0 2 10 100\n", "nobody had put 10");
    REJECTS(PUTS "6 7 9 ok watch.event m 9 0 1 10 99\n", "says version 99");
}

TEST(watch, may_miss_what_it_was_told_that_it_missed)
{
    ACCEPTS(PUTS "2 3 9 ok watch.reset m 9 0 100\n4 5 9 ok watch.event m 9 1 2 20 101\n" FINAL);
    REJECTS(PUTS "2 3 9 ok watch.reset m 9 0 100\n" FINAL, "did not hear of the put in line 2");
    REJECTS(PUTS "2 3 9 ok watch.reset m 9 0 101\n4 5 9 ok watch.event m 9 1 2 20 101\n",
            "after version 101");
}

TEST(watch, ends_with_what_the_map_holds)
{
    REJECTS(PUTS "2 3 9 ok watch.event m 9 0 1 10 100\n4 5 9 ok watch.event m 9 1 2 20 101\n"
                 "20 21 1 ok watch.final m 1 11 104 2 20 101\n",
            "key 1 holds 11");
}
