/*
 * Real histories of the queues, checked (tests/lib/history.h): those of `fifo` and
 * `bounded` must be linearizable, those of `lanes` keep the order of each
 * producer, and none may lose or double an item, whatever tokens are closed and
 * threads exit in the middle.
 *
 * Many short rounds find more than one long run: in each, a new queue is brought
 * to a random place near a change of segments and a few threads do a few
 * operations each. BOP_LINEARIZABLE_ROUNDS=n does n rounds of each test rather
 * than a number that takes a second; BOP_LINEARIZABLE_SEED picks what they do, as
 * far as threads let themselves be picked.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <bop/mpmc.h>
#include <bop/random.h>

#include "history.h"
#include "tap.h"

#define THREADS_MAX    8
#define OPS_A_LOG      1600
#define BULK_MAX       8
#define PHASE_MAX      470 /* Cells of a small segment, and some. */
#define SECONDS_A_TEST 1
#define VALUE_OF_FIFO  UINT64_C(0xfff5000000000000) /* What the fifo kind marks its cells with. */

enum tokens {
    TOKENS_NONE,
    TOKENS_ALL,
    TOKENS_SOME, /* Every other thread. */
};

struct plan {
    enum bop_mpmc_kind kind;
    size_t capacity;
    unsigned producers;
    unsigned consumers;
    enum tokens tokens;
    unsigned bulk; /* Most items in one call. */
    unsigned claim_ahead;
    unsigned calls; /* Of each thread. */
    bool close;     /* The queue, in the middle. */
    bool leave;     /* Consumers close their tokens, or exit with them open, in the middle. */
};

struct worker {
    struct round *round;
    struct history_log *log;
    struct bop_mpmc_producer *producer;
    struct bop_mpmc_consumer *consumer;
    unsigned id;
    bool has_token;
    uint64_t seed;
    uint64_t pushed; /* Values made so far. */
    pthread_t thread;
};

struct round {
    const struct plan *plan;
    struct bop_mpmc *queue;
    struct history history;
    struct worker workers[THREADS_MAX + 1]; /* The last one is the main thread. */
    pthread_barrier_t start;                /* And the end of the calls. */
    atomic_uint left;                       /* Claims that a consumer has left behind. */
    atomic_uint next_actor; /* For pops without a token, each of which is a consumer of its own. */
};

struct fixture {
    struct round round;
};

static uint64_t environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

static void pause_at_random(struct bop_random *random)
{
    if (bop_random_chance(random, 1, 8)) {
        sched_yield();
    } else {
        for (volatile uint64_t spins = bop_random_below(random, 100); spins > 0; spins--) {
        }
    }
}

/* -- Producers --------------------------------------------------------------------------------- */

static uint64_t make_value(struct worker *worker)
{
    uint64_t value = (uint64_t)worker->id << 32 | worker->pushed++;

    return worker->id == 0 && worker->pushed > 1 ? value | VALUE_OF_FIFO : value;
}

/* Items pushed, or a code. */
static ssize_t push_somehow(struct worker *worker, struct bop_random *random,
                            const uint64_t *values, size_t count)
{
    struct bop_mpmc *queue = worker->round->queue;
    struct bop_mpmc_producer *token = worker->producer;
    uint64_t way = bop_random_below(random, 32);
    int rc;

    if (way == 0) {
        rc = bop_mpmc_push_bulk_wait(queue, token, values, count, 50);
    } else if (way == 1) {
        rc = bop_mpmc_try_push_bulk(queue, token, values, count);
    } else if (way < 12) {
        return bop_mpmc_push_some(queue, token, values, count);
    } else if (count > 1) {
        rc = bop_mpmc_push_bulk(queue, token, values, count);
    } else {
        rc = bop_mpmc_push(queue, token, values[0]);
    }
    return rc < 0 ? rc : (ssize_t)count;
}

static void produce(struct worker *worker, struct bop_random *random)
{
    struct round *round = worker->round;

    for (unsigned call = 0; call < round->plan->calls; call++) {
        uint64_t values[BULK_MAX];
        size_t count = 1;
        ssize_t pushed;
        uint64_t from;

        if (round->plan->bulk > 1 && bop_random_chance(random, 1, 2)) {
            count += bop_random_below(random, round->plan->bulk);
        }
        for (size_t i = 0; i < count; i++) {
            values[i] = make_value(worker);
        }
        pause_at_random(random);
        from = history_now(&round->history);
        pushed = push_somehow(worker, random, values, count);
        if (pushed > 0) {
            history_record(worker->log, HISTORY_PUSH, from, values, (size_t)pushed);
        } else if (pushed == BOP_ECLOSED) {
            CHECK(round->plan->close);
            return;
        } else {
            CHECK(pushed == BOP_EFULL || pushed == BOP_ETIMEOUT);
        }
    }
}

/* -- Consumers --------------------------------------------------------------------------------- */

static ssize_t pop_somehow(struct worker *worker, struct bop_random *random, uint64_t *values)
{
    struct bop_mpmc *queue = worker->round->queue;
    struct bop_mpmc_consumer *token = worker->consumer;
    size_t most = 1 + (size_t)bop_random_below(random, worker->round->plan->bulk);

    if (bop_random_chance(random, 1, 32)) {
        return bop_mpmc_pop_bulk_wait(queue, token, values, most, 50);
    }
    if (most > 1) {
        return bop_mpmc_pop_bulk(queue, token, values, most);
    }
    return bop_mpmc_pop(queue, token, values);
}

/* One pop, recorded. Returns what it did. */
static ssize_t consume_once(struct worker *worker, struct bop_random *random)
{
    struct round *round = worker->round;
    uint64_t values[BULK_MAX];
    uint64_t from = history_now(&round->history);
    ssize_t popped = pop_somehow(worker, random, values);

    if (worker->consumer == NULL) {
        worker->log->actor = atomic_fetch_add_explicit(&round->next_actor, 1, memory_order_relaxed);
    }
    if (popped > 0) {
        history_record(worker->log, HISTORY_POP, from, values, (size_t)popped);
    } else if (popped == 0) {
        history_record(worker->log, HISTORY_EMPTY, from, NULL, 1);
    } else {
        CHECK_EQ(popped, BOP_ECLOSED);
    }
    return popped;
}

static void open_consumer(struct worker *worker)
{
    struct round *round = worker->round;

    CHECK_EQ(bop_mpmc_consumer_open(round->queue, round->plan->claim_ahead, &worker->consumer), 0);
    worker->log->actor = atomic_fetch_add_explicit(&round->next_actor, 1, memory_order_relaxed);
}

static void consume(struct worker *worker, struct bop_random *random)
{
    struct round *round = worker->round;

    for (unsigned call = 0; call < round->plan->calls; call++) {
        pause_at_random(random);
        if (consume_once(worker, random) < 0) {
            CHECK(round->plan->close);
            return;
        }
        if (!round->plan->leave || worker->consumer == NULL || !bop_random_chance(random, 1, 6)) {
            continue;
        }
        atomic_fetch_add_explicit(&round->left, 1, memory_order_relaxed);
        if (bop_random_chance(random, 1, 3)) {
            return; /* The thread exits and its token stays open. */
        }
        bop_mpmc_consumer_close(worker->consumer);
        open_consumer(worker);
    }
}

static void *work(void *user)
{
    struct worker *worker = user;
    struct round *round = worker->round;
    struct bop_random random;

    bop_random_seed(&random, worker->seed);
    pthread_barrier_wait(&round->start);
    if (worker->id < round->plan->producers) {
        produce(worker, &random);
    } else {
        consume(worker, &random);
    }
    /* A thread that exits with something claimed leaves it behind, to arrive late. So where nobody
     * is to leave, the consumers go on until they have nothing. */
    if (!round->plan->leave) {
        pthread_barrier_wait(&round->start);
        while (worker->id >= round->plan->producers && consume_once(worker, &random) > 0) {
        }
    }
    return NULL;
}

/* -- A round ----------------------------------------------------------------------------------- */

/* Push and pop some items that nobody records, so that the round begins anywhere in a segment. */
static void move_on(struct round *round, struct bop_random *random)
{
    uint64_t item;

    for (uint64_t left = bop_random_below(random, PHASE_MAX); left > 0; left--) {
        REQUIRE_EQ(bop_mpmc_push(round->queue, NULL, 1), 0);
        REQUIRE_EQ(bop_mpmc_pop(round->queue, NULL, &item), 1);
    }
}

static void open_token(struct worker *worker)
{
    struct round *round = worker->round;

    if (!worker->has_token) {
        return;
    }
    if (worker->id < round->plan->producers) {
        REQUIRE_EQ(bop_mpmc_producer_open(round->queue, &worker->producer), 0);
    } else {
        open_consumer(worker);
    }
}

static void round_begin(struct round *round, struct bop_random *random)
{
    const struct plan *plan = round->plan;
    struct bop_mpmc_options options = {.kind = plan->kind, .capacity = plan->capacity};

    history_clear(&round->history);
    REQUIRE_EQ(bop_mpmc_create(&options, &round->queue, NULL), 0);
    move_on(round, random);
    atomic_store_explicit(&round->left, 0, memory_order_relaxed);
    atomic_store_explicit(&round->next_actor, THREADS_MAX + 1, memory_order_relaxed);
    for (unsigned id = 0; id <= THREADS_MAX; id++) {
        bool token = plan->tokens == TOKENS_ALL || (plan->tokens == TOKENS_SOME && id % 2 == 1);

        round->workers[id] = (struct worker){
            .round = round,
            .log = &round->history.logs[id],
            .id = id,
            .has_token = token,
            .seed = bop_random_next(random),
        };
        round->history.logs[id].actor = id;
        if (id < plan->producers + plan->consumers) {
            open_token(&round->workers[id]);
        }
    }
}

/* All that is left, by the main thread. */
static void drain(struct round *round, struct bop_random *random)
{
    struct worker *worker = &round->workers[THREADS_MAX];
    ssize_t popped;

    if (round->plan->tokens != TOKENS_NONE) {
        open_consumer(worker);
    }
    do {
        popped = consume_once(worker, random);
    } while (popped > 0);
    CHECK_EQ(popped, round->plan->close ? BOP_ECLOSED : 0);
}

static void round_run(struct round *round, struct bop_random *random)
{
    unsigned threads = round->plan->producers + round->plan->consumers;

    round_begin(round, random);
    REQUIRE_EQ(pthread_barrier_init(&round->start, NULL, threads + 1), 0);
    for (unsigned id = 0; id < threads; id++) {
        REQUIRE_EQ(pthread_create(&round->workers[id].thread, NULL, work, &round->workers[id]), 0);
    }
    pthread_barrier_wait(&round->start);
    if (round->plan->close) {
        pause_at_random(random);
        pause_at_random(random);
        bop_mpmc_close(round->queue);
    }
    if (!round->plan->leave) {
        pthread_barrier_wait(&round->start); /* All have made their calls. */
    }
    for (unsigned id = 0; id < threads; id++) {
        REQUIRE_EQ(pthread_join(round->workers[id].thread, NULL), 0);
    }
    pthread_barrier_destroy(&round->start);
    drain(round, random);
    for (unsigned id = 0; id <= THREADS_MAX; id++) {
        bop_mpmc_producer_close(round->workers[id].producer);
        bop_mpmc_consumer_close(round->workers[id].consumer);
    }
    CHECK_EQ(bop_mpmc_size(round->queue), 0);
    bop_mpmc_destroy(round->queue);
    round->queue = NULL;
}

static bool is_fine(struct history_verdict verdict)
{
    if (verdict.violation != HISTORY_FINE) {
        test_note("%s", verdict.text);
    }
    return verdict.violation == HISTORY_FINE;
}

static bool round_check(struct round *round)
{
    const struct plan *plan = round->plan;
    /* A pop without a token is a consumer of its own in a queue of lanes. What was left behind
     * arrives late. */
    size_t late_max = (size_t)round->left * (plan->claim_ahead > 0 ? plan->claim_ahead : 64);
    unsigned options = plan->kind == BOP_MPMC_BOUNDED ? HISTORY_EMPTY_IS_SPURIOUS : 0;
    size_t count;
    const struct history_op *ops = history_merge(&round->history, &count);

    if (!is_fine(history_check_conserved(ops, count, true)) ||
        !is_fine(history_check_producer_order(ops, count, late_max))) {
        return false;
    }
    if (plan->kind == BOP_MPMC_LANES) {
        return true;
    }
    return is_fine(history_check_fifo(ops, count, options)) &&
           (plan->capacity == 0 || is_fine(history_check_capacity(ops, count, plan->capacity)));
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Rounds of the plans in turn, for about a second or as many as were asked for; at least one of
 * each. */
static void run(struct fixture *f, const struct plan *plans, size_t plan_count)
{
    uint64_t seed = environment("BOP_LINEARIZABLE_SEED", 1);
    uint64_t rounds = environment("BOP_LINEARIZABLE_ROUNDS", 0), done = 0;
    double end = seconds() + SECONDS_A_TEST;

    while (done < plan_count || (rounds > 0 ? done < rounds : seconds() < end)) {
        struct bop_random random;

        bop_random_seed(&random, seed + done);
        f->round.plan = &plans[done % plan_count];
        round_run(&f->round, &random);
        if (!round_check(&f->round)) {
            test_note("plan %zu, round %" PRIu64 " of seed %" PRIu64, (size_t)(done % plan_count),
                      done, seed);
            CHECK(!"a history that the queue must not have");
            return;
        }
        done++;
    }
    test_note("%" PRIu64 " rounds", done);
}

static void setup(struct fixture *f)
{
    history_init(&f->round.history, THREADS_MAX + 1, OPS_A_LOG);
}

static void teardown(struct fixture *f)
{
    history_deinit(&f->round.history);
}

FIXTURE(setup, teardown)

/* -- The kinds that are linearizable ----------------------------------------------------------- */

TEST(fifo, is_linearizable)
{
    static const struct plan plans[] = {
        {.kind = BOP_MPMC_FIFO, .producers = 2, .consumers = 2, .bulk = 1, .calls = 40},
        {.kind = BOP_MPMC_FIFO,
         .producers = 2,
         .consumers = 2,
         .bulk = 1,
         .calls = 40,
         .tokens = TOKENS_ALL},
        {.kind = BOP_MPMC_FIFO,
         .producers = 4,
         .consumers = 4,
         .bulk = 1,
         .calls = 20,
         .tokens = TOKENS_ALL},
        {.kind = BOP_MPMC_FIFO,
         .producers = 4,
         .consumers = 2,
         .bulk = 1,
         .calls = 20,
         .tokens = TOKENS_SOME},
    };

    run(f, plans, BOP_COUNT_OF(plans));
}

TEST(fifo, is_linearizable_in_bulk)
{
    static const struct plan plans[] = {
        {.kind = BOP_MPMC_FIFO,
         .producers = 2,
         .consumers = 2,
         .bulk = 4,
         .calls = 20,
         .tokens = TOKENS_ALL},
        {.kind = BOP_MPMC_FIFO,
         .producers = 3,
         .consumers = 3,
         .bulk = 7,
         .calls = 40,
         .tokens = TOKENS_SOME},
        {.kind = BOP_MPMC_FIFO, .producers = 2, .consumers = 4, .bulk = 7, .calls = 40},
    };

    run(f, plans, BOP_COUNT_OF(plans));
}

TEST(fifo, is_linearizable_while_it_is_closed)
{
    static const struct plan plans[] = {
        {.kind = BOP_MPMC_FIFO,
         .producers = 2,
         .consumers = 2,
         .bulk = 1,
         .calls = 40,
         .close = true},
        {.kind = BOP_MPMC_FIFO,
         .producers = 3,
         .consumers = 2,
         .bulk = 7,
         .calls = 40,
         .tokens = TOKENS_ALL,
         .close = true},
    };

    run(f, plans, BOP_COUNT_OF(plans));
}

TEST(bounded, is_linearizable)
{
    static const struct plan plans[] = {
        {.kind = BOP_MPMC_BOUNDED,
         .capacity = 2,
         .producers = 2,
         .consumers = 2,
         .bulk = 1,
         .calls = 40},
        {.kind = BOP_MPMC_BOUNDED,
         .capacity = 4,
         .producers = 3,
         .consumers = 3,
         .bulk = 1,
         .calls = 40,
         .tokens = TOKENS_SOME},
        {.kind = BOP_MPMC_BOUNDED,
         .capacity = 16,
         .producers = 4,
         .consumers = 4,
         .bulk = 1,
         .calls = 20,
         .tokens = TOKENS_ALL},
    };

    run(f, plans, BOP_COUNT_OF(plans));
}

TEST(bounded, is_linearizable_in_bulk)
{
    static const struct plan plans[] = {
        {.kind = BOP_MPMC_BOUNDED,
         .capacity = 2,
         .producers = 2,
         .consumers = 2,
         .bulk = 2,
         .calls = 40},
        {.kind = BOP_MPMC_BOUNDED,
         .capacity = 8,
         .producers = 4,
         .consumers = 2,
         .bulk = 7,
         .calls = 20,
         .tokens = TOKENS_ALL},
        {.kind = BOP_MPMC_BOUNDED,
         .capacity = 16,
         .producers = 2,
         .consumers = 4,
         .bulk = 5,
         .calls = 40},
    };

    run(f, plans, BOP_COUNT_OF(plans));
}

TEST(bounded, is_linearizable_while_it_is_closed)
{
    static const struct plan plans[] = {
        {.kind = BOP_MPMC_BOUNDED,
         .capacity = 4,
         .producers = 2,
         .consumers = 2,
         .bulk = 1,
         .calls = 40,
         .close = true},
        {.kind = BOP_MPMC_BOUNDED,
         .capacity = 8,
         .producers = 3,
         .consumers = 2,
         .bulk = 4,
         .calls = 40,
         .close = true},
    };

    run(f, plans, BOP_COUNT_OF(plans));
}

/* -- Lanes ------------------------------------------------------------------------------------- */

TEST(lanes, keep_the_order_of_each_producer)
{
    static const struct plan plans[] = {
        {.kind = BOP_MPMC_LANES,
         .producers = 1,
         .consumers = 1,
         .bulk = 1,
         .calls = 200,
         .tokens = TOKENS_ALL},
        {.kind = BOP_MPMC_LANES, .producers = 2, .consumers = 2, .bulk = 1, .calls = 100},
        {.kind = BOP_MPMC_LANES,
         .producers = 2,
         .consumers = 2,
         .bulk = 1,
         .calls = 100,
         .tokens = TOKENS_ALL},
        {.kind = BOP_MPMC_LANES,
         .producers = 1,
         .consumers = 4,
         .bulk = 4,
         .calls = 100,
         .tokens = TOKENS_ALL,
         .claim_ahead = 3},
        {.kind = BOP_MPMC_LANES,
         .producers = 4,
         .consumers = 1,
         .bulk = 7,
         .calls = 50,
         .tokens = TOKENS_ALL,
         .claim_ahead = 64},
        {.kind = BOP_MPMC_LANES,
         .producers = 4,
         .consumers = 4,
         .bulk = 7,
         .calls = 50,
         .tokens = TOKENS_SOME},
        {.kind = BOP_MPMC_LANES,
         .producers = 3,
         .consumers = 3,
         .bulk = 1,
         .calls = 100,
         .tokens = TOKENS_ALL,
         .claim_ahead = 1},
    };

    run(f, plans, BOP_COUNT_OF(plans));
}

TEST(lanes, lose_nothing_when_consumers_leave)
{
    static const struct plan plans[] = {
        {.kind = BOP_MPMC_LANES,
         .producers = 2,
         .consumers = 2,
         .bulk = 1,
         .calls = 100,
         .tokens = TOKENS_ALL,
         .leave = true},
        {.kind = BOP_MPMC_LANES,
         .producers = 2,
         .consumers = 4,
         .bulk = 4,
         .calls = 50,
         .tokens = TOKENS_ALL,
         .leave = true,
         .claim_ahead = 4},
        {.kind = BOP_MPMC_LANES,
         .producers = 4,
         .consumers = 4,
         .bulk = 7,
         .calls = 50,
         .tokens = TOKENS_SOME,
         .leave = true,
         .claim_ahead = 256},
    };

    run(f, plans, BOP_COUNT_OF(plans));
}

TEST(lanes, lose_nothing_when_they_are_closed)
{
    static const struct plan plans[] = {
        {.kind = BOP_MPMC_LANES,
         .producers = 2,
         .consumers = 2,
         .bulk = 1,
         .calls = 100,
         .tokens = TOKENS_ALL,
         .close = true},
        {.kind = BOP_MPMC_LANES,
         .producers = 4,
         .consumers = 3,
         .bulk = 7,
         .calls = 50,
         .tokens = TOKENS_SOME,
         .close = true,
         .leave = true},
    };

    run(f, plans, BOP_COUNT_OF(plans));
}
