/*
 * Timers, on a clock that the test moves.
 */
#include <stdlib.h>

#include "../net_fixture.h"

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

/* Against a plain array: start, move, stop and fire at random. */
TEST(timer, queue_agrees_with_a_model)
{
    enum { COUNT = 300, ROUNDS = 20000 };
    struct test_timer *timers = malloc(COUNT * sizeof(*timers));
    uint64_t random = 88172645463325252u;

    REQUIRE(timers != NULL);
    for (int i = 0; i < COUNT; i++) {
        init(f, &timers[i], i);
    }
    for (int round = 0; round < ROUNDS; round++) {
        struct test_timer *timer;
        uint64_t last_due = 0, due[COUNT];
        size_t expected = 0;

        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        timer = &timers[random % COUNT];
        if ((random >> 32) % 3 == 0) {
            bop_timer_stop(f->loop, &timer->timer);
        } else {
            start(f, timer, 1 + (random >> 40) % 500);
        }
        if ((random >> 20) % 8 != 0) {
            continue;
        }
        f->clock.now_us += ((random >> 50) % 40) * 1000;
        for (int i = 0; i < COUNT; i++) {
            due[i] = bop_timer_is_running(&timers[i].timer) ? timers[i].timer.due_ms : UINT64_MAX;
            expected += due[i] <= f->clock.now_us / 1000;
        }
        f->log_count = 0;
        turn(f->loop);
        REQUIRE_EQ(f->log_count, expected);
        for (size_t i = 0; i < f->log_count; i++) {
            REQUIRE(due[f->log[i]] >= last_due);
            last_due = due[f->log[i]];
        }
    }
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    free(timers);
}

TEST(timer, survives_each_fault)
{
    struct bop_loop_options options = {.allocator = &f->heap.allocator};

    bop_loop_destroy(f->loop);
    f->loop = NULL;
    FAULT_SWEEP(&f->faults) {
        struct test_timer timers[40];
        struct bop_loop *loop = NULL;
        int rc = bop_loop_create(&options, &loop);

        for (int i = 0; i < 40 && rc == 0; i++) {
            init(f, &timers[i], i);
            rc = bop_timer_start(loop, &timers[i].timer, 5);
            CHECK_EQ(bop_timer_is_running(&timers[i].timer), rc == 0);
        }
        CHECK_EQ(rc, f->faults.fired);
        bop_loop_destroy(loop);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 5); /* 2 of the loop; the queue at 16, 32 and 64. */
}
