/*
 * Timers, on a clock that the test moves.
 */
#include <stdlib.h>

#include "../net_fixture.h"
#include "net/loop/loop_internal.h"

#define LOG_MAX 4096

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct net_clock clock;
    struct bop_loop *loop;
    int log[LOG_MAX]; /* The ids of timers in the order they fired. */
    size_t log_count;
};

struct test_timer {
    struct bop_timer timer;
    struct fixture *f;
    int id;
    unsigned again;             /* Times to start itself anew, without delay. */
    struct test_timer *to_stop; /* Stopped when this one fires. */
};

static void on_timer(struct bop_timer *timer)
{
    struct test_timer *self = BOP_CONTAINER_OF(timer, struct test_timer, timer);

    CHECK(!bop_timer_is_running(timer));
    REQUIRE(self->f->log_count < LOG_MAX);
    self->f->log[self->f->log_count++] = self->id;
    if (self->to_stop != NULL) {
        bop_timer_stop(self->f->loop, &self->to_stop->timer);
    }
    if (self->again > 0) {
        self->again--;
        CHECK_EQ(bop_timer_start(self->f->loop, timer, 0), 0);
    }
}

static void init(struct fixture *f, struct test_timer *timer, int id)
{
    *timer = (struct test_timer){.f = f, .id = id};
    bop_timer_init(&timer->timer, on_timer);
}

static void start(struct fixture *f, struct test_timer *timer, uint64_t delay_ms)
{
    CHECK_EQ(bop_timer_start(f->loop, &timer->timer, delay_ms), 0);
}

static void advance_ms(struct fixture *f, uint64_t ms)
{
    f->clock.now_us += ms * 1000;
    turn(f->loop);
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    net_clock_init(&f->clock, 1000);
    REQUIRE_EQ(bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator,
                                                          .clock = &f->clock.clock},
                               &f->loop),
               0);
}

static void teardown(struct fixture *f)
{
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

TEST(timer, fires_once_when_its_time_has_come)
{
    struct test_timer timer;

    init(f, &timer, 1);
    CHECK(!bop_timer_is_running(&timer.timer));
    start(f, &timer, 10);
    CHECK(bop_timer_is_running(&timer.timer));
    CHECK_EQ(timer.timer.due_ms, 1010);
    advance_ms(f, 9);
    CHECK_EQ(f->log_count, 0);
    CHECK_EQ(bop_loop_now_ms(f->loop), 1009);
    advance_ms(f, 1);
    CHECK_EQ(f->log_count, 1);
    CHECK(!bop_timer_is_running(&timer.timer));
    advance_ms(f, 100);
    CHECK_EQ(f->log_count, 1);
}

/* A loop that was not turned for long takes delays from now, not from its last turn. */
TEST(timer, counts_from_now_between_turns)
{
    struct test_timer timer;

    init(f, &timer, 1);
    f->clock.now_us += 5000 * 1000;
    start(f, &timer, 10);
    turn(f->loop);
    CHECK_EQ(f->log_count, 0);
    advance_ms(f, 10);
    CHECK_EQ(f->log_count, 1);
}

TEST(timer, fire_in_order_of_due_time_then_of_starting)
{
    struct test_timer timers[5];

    for (int i = 0; i < 5; i++) {
        init(f, &timers[i], i);
    }
    start(f, &timers[0], 30);
    start(f, &timers[1], 10);
    start(f, &timers[2], 20);
    start(f, &timers[3], 10);
    start(f, &timers[4], 30);
    advance_ms(f, 1000);
    REQUIRE_EQ(f->log_count, 5);
    CHECK_EQ(f->log[0], 1);
    CHECK_EQ(f->log[1], 3);
    CHECK_EQ(f->log[2], 2);
    CHECK_EQ(f->log[3], 0);
    CHECK_EQ(f->log[4], 4);
}

TEST(timer, that_is_stopped_does_not_fire)
{
    struct test_timer first, second;

    init(f, &first, 1);
    init(f, &second, 2);
    start(f, &first, 10);
    start(f, &second, 10);
    first.to_stop = &second; /* Even when it was due already. */
    advance_ms(f, 10);
    CHECK_EQ(f->log_count, 1);
    CHECK(!bop_timer_is_running(&second.timer));
    bop_timer_stop(f->loop, &second.timer);
    advance_ms(f, 10);
    CHECK_EQ(f->log_count, 1);
}

TEST(timer, started_again_while_running_moves)
{
    struct test_timer early, late;

    init(f, &early, 1);
    init(f, &late, 2);
    start(f, &early, 10);
    start(f, &late, 20);
    start(f, &early, 30);
    advance_ms(f, 20);
    REQUIRE_EQ(f->log_count, 1);
    CHECK_EQ(f->log[0], 2);
    advance_ms(f, 10);
    REQUIRE_EQ(f->log_count, 2);
    CHECK_EQ(f->log[1], 1);
}

/* A timer that starts itself without a delay leaves every turn room for the rest. */
TEST(timer, started_by_a_timer_fires_in_the_next_turn)
{
    struct test_timer timer;

    init(f, &timer, 1);
    timer.again = 2;
    start(f, &timer, 0);
    turn(f->loop);
    CHECK_EQ(f->log_count, 1);
    turn(f->loop);
    CHECK_EQ(f->log_count, 2);
    turn(f->loop);
    CHECK_EQ(f->log_count, 3);
    turn(f->loop);
    CHECK_EQ(f->log_count, 3);
}

TEST(timer, with_an_endless_delay_never_fires)
{
    struct test_timer timer;

    init(f, &timer, 1);
    start(f, &timer, UINT64_MAX);
    CHECK_EQ(timer.timer.due_ms, UINT64_MAX);
    advance_ms(f, UINT32_MAX);
    CHECK_EQ(f->log_count, 0);
    bop_timer_stop(f->loop, &timer.timer);
}

/* The wait ends for the timer, not for its own limit: else this would hang. */
TEST(timer, ends_the_wait)
{
    struct bop_loop *loop;
    struct test_timer timer;

    REQUIRE_EQ(bop_loop_create(NULL, &loop), 0);
    init(f, &timer, 1);
    CHECK_EQ(bop_timer_start(loop, &timer.timer, 3), 0);
    while (f->log_count == 0) {
        CHECK_EQ(bop_loop_run_once(loop, -1), 0);
    }
    bop_loop_destroy(loop);
}

TEST(timer, is_stopped_by_the_end_of_the_loop)
{
    struct test_timer timer;

    init(f, &timer, 1);
    start(f, &timer, 10);
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    CHECK(!bop_timer_is_running(&timer.timer));
    CHECK_EQ(f->log_count, 0);
}

/* ---- Against a model ---- */

enum { MODEL_COUNT = 300, MODEL_ROUNDS = 30000 };

struct model {
    bool running[MODEL_COUNT];
    uint64_t due_ms[MODEL_COUNT];
    uint64_t started[MODEL_COUNT]; /* A number: which was started first. */
    uint64_t starts;
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

/* Of any magnitude: as many short as long ones. */
static uint64_t random_ms(uint64_t *state, unsigned bits_max)
{
    unsigned bits = (unsigned)(next_random(state) % (bits_max + 1));

    return bits == 0 ? 0 : next_random(state) >> (64 - bits);
}

/* The one that a sorted list would have first; -1: none is due at now_ms. */
static int model_first(const struct model *model, uint64_t now_ms)
{
    int first = -1;

    for (int i = 0; i < MODEL_COUNT; i++) {
        if (model->running[i] && model->due_ms[i] <= now_ms &&
            (first < 0 || model->due_ms[i] < model->due_ms[first] ||
             (model->due_ms[i] == model->due_ms[first] &&
              model->started[i] < model->started[first]))) {
            first = i;
        }
    }
    return first;
}

static void change_one(struct fixture *f, struct model *model, struct test_timer *timers,
                       uint64_t *random, unsigned delay_bits)
{
    int i = (int)(next_random(random) % MODEL_COUNT);

    if (next_random(random) % 3 == 0) {
        bop_timer_stop(f->loop, &timers[i].timer);
        model->running[i] = false;
        return;
    }
    start(f, &timers[i], random_ms(random, delay_bits));
    model->running[i] = true;
    model->due_ms[i] = timers[i].timer.due_ms;
    model->started[i] = model->starts++;
}

static void step(struct fixture *f, struct model *model, uint64_t ms)
{
    uint64_t now_ms = f->clock.now_us / 1000 + ms;

    f->log_count = 0;
    advance_ms(f, ms);
    for (size_t i = 0; i < f->log_count; i++) {
        int expected = model_first(model, now_ms);

        REQUIRE_EQ(f->log[i], expected);
        model->running[expected] = false;
    }
    REQUIRE_EQ(model_first(model, now_ms), -1);
}

/* Start, move, stop and let time pass at random; magnitudes of both differ by the seed. */
static void compare_with_model(struct fixture *f, uint64_t seed, unsigned delay_bits,
                               unsigned step_bits)
{
    struct test_timer *timers = malloc(MODEL_COUNT * sizeof(*timers));
    struct model model = {.starts = 0};
    uint64_t random = seed;

    REQUIRE(timers != NULL);
    for (int i = 0; i < MODEL_COUNT; i++) {
        init(f, &timers[i], i);
    }
    for (int round = 0; round < MODEL_ROUNDS; round++) {
        change_one(f, &model, timers, &random, delay_bits);
        if (next_random(&random) % 8 == 0) {
            /* The clock's microseconds must not pass the end of time. */
            uint64_t left_ms = (UINT64_MAX - f->clock.now_us) / 1000;

            step(f, &model, bop_min_u64(random_ms(&random, step_bits), left_ms / 2));
        }
        if (round % 64 == 0) {
            uint64_t next_ms = bop__timers_next_ms(&f->loop->timers);

            bop__timers_check(&f->loop->timers);
            /* Not later than the first one due, and not lower than the wheel's time. */
            for (int i = 0; i < MODEL_COUNT; i++) {
                REQUIRE(!model.running[i] || next_ms <= model.due_ms[i]);
            }
            REQUIRE(next_ms >= f->loop->timers.now_ms);
        }
    }
    for (int i = 0; i < MODEL_COUNT; i++) {
        bop_timer_stop(f->loop, &timers[i].timer);
    }
    bop__timers_check(&f->loop->timers);
    CHECK_EQ(bop__timers_next_ms(&f->loop->timers), UINT64_MAX);
    free(timers);
}

TEST(timer, wheel_agrees_with_a_model_of_near_timers)
{
    compare_with_model(f, 88172645463325252u, 9, 7);
}

TEST(timer, wheel_agrees_with_a_model_of_timers_of_all_kinds)
{
    compare_with_model(f, 1234567u, 20, 14);
}

/* Delays up to the end of time, and steps of up to 2^40 ms, 35 years. */
TEST(timer, wheel_agrees_with_a_model_of_far_timers)
{
    compare_with_model(f, 424242u, 64, 40);
}

/* Few timers far away: the loop sleeps until the first of them, not to move it. */
TEST(timer, next_is_exact_among_few)
{
    struct test_timer timers[3];

    for (int i = 0; i < 3; i++) {
        init(f, &timers[i], i);
    }
    start(f, &timers[0], 5000);
    start(f, &timers[1], 4999);
    start(f, &timers[2], 300000);
    CHECK_EQ(bop__timers_next_ms(&f->loop->timers), 1000 + 4999);
    bop_timer_stop(f->loop, &timers[1].timer);
    CHECK_EQ(bop__timers_next_ms(&f->loop->timers), 1000 + 5000);
    advance_ms(f, 5000);
    CHECK_EQ(bop__timers_next_ms(&f->loop->timers), 1000 + 300000);
    start(f, &timers[2], 300000); /* Moved, at 6,000. */
    CHECK_EQ(bop__timers_next_ms(&f->loop->timers), 6000 + 300000);
    bop_timer_stop(f->loop, &timers[2].timer);
    CHECK_EQ(bop__timers_next_ms(&f->loop->timers), UINT64_MAX);
}

/* Many in one slot of the wheel: one wake at its begin and one for the first of them. */
TEST(timer, many_cost_few_wakes)
{
    enum { COUNT = 1000 };
    struct test_timer *timers = malloc(COUNT * sizeof(*timers));
    unsigned wakes = 0;

    REQUIRE(timers != NULL);
    for (int i = 0; i < COUNT; i++) {
        init(f, &timers[i], i);
        start(f, &timers[i], 60000); /* All at 61,000, two levels up. */
    }
    while (f->log_count == 0) {
        uint64_t next_ms = bop__timers_next_ms(&f->loop->timers);

        REQUIRE(next_ms > f->clock.now_us / 1000);
        f->clock.now_us = next_ms * 1000;
        turn(f->loop);
        wakes++;
    }
    CHECK_EQ(f->log_count, COUNT);
    CHECK_EQ(f->clock.now_us / 1000, 61000);
    CHECK(wakes <= 3);
    free(timers);
}

/* A clock that goes back, which none should, must not confuse the wheel. */
TEST(timer, survives_a_clock_that_goes_back)
{
    struct test_timer timer;

    init(f, &timer, 1);
    advance_ms(f, 1000);
    f->clock.now_us -= 500 * 1000;
    start(f, &timer, 10);
    CHECK_EQ(timer.timer.due_ms, 2010); /* From the latest time seen. */
    turn(f->loop);
    bop__timers_check(&f->loop->timers);
    CHECK_EQ(f->log_count, 0);
    advance_ms(f, 510);
    CHECK_EQ(f->log_count, 1);
}

/* Starting, moving and stopping have nothing that could fail. */
TEST(timer, allocates_nothing)
{
    struct test_timer *timers = malloc(1000 * sizeof(*timers));
    size_t live = f->heap.live;

    REQUIRE(timers != NULL);
    for (int i = 0; i < 1000; i++) {
        init(f, &timers[i], i);
        start(f, &timers[i], (uint64_t)i * i);
    }
    CHECK_EQ(f->heap.live, live);
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    for (int i = 0; i < 1000; i++) {
        REQUIRE(!bop_timer_is_running(&timers[i].timer));
    }
    free(timers);
}
