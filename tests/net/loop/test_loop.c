/*
 * Turns: hooks, their order, the loop's making and end.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../net_fixture.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct net_clock clock;
    struct bop_loop *loop;
    char order[64]; /* A letter for each callback. */
    size_t order_count;
};

struct test_hook {
    struct bop_hook hook;
    struct fixture *f;
    char letter;
    struct test_hook *to_remove;
    struct test_hook *to_add;
};

static void note(struct fixture *f, char letter)
{
    REQUIRE(f->order_count + 1 < sizeof(f->order));
    f->order[f->order_count++] = letter;
}

static void on_hook(struct bop_hook *hook)
{
    struct test_hook *self = BOP_CONTAINER_OF(hook, struct test_hook, hook);

    note(self->f, self->letter);
    if (self->to_remove != NULL) {
        bop_loop_remove_hook(self->f->loop, &self->to_remove->hook);
        self->to_remove = NULL;
    }
    if (self->to_add != NULL) {
        bop_loop_add_hook(self->f->loop, &self->to_add->hook);
        self->to_add = NULL;
    }
}

static struct test_hook hook(struct fixture *f, char letter)
{
    return (struct test_hook){.hook.fn = on_hook, .f = f, .letter = letter};
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    net_clock_init(&f->clock, 0);
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

TEST(hook, run_in_order_of_adding_each_turn)
{
    struct test_hook a = hook(f, 'a'), b = hook(f, 'b');

    bop_loop_add_hook(f->loop, &a.hook);
    bop_loop_add_hook(f->loop, &b.hook);
    turn(f->loop);
    turn(f->loop);
    CHECK_STR_EQ(f->order, "abab");
}

TEST(hook, may_remove_itself_and_the_next)
{
    struct test_hook a = hook(f, 'a'), b = hook(f, 'b'), c = hook(f, 'c');

    bop_loop_add_hook(f->loop, &a.hook);
    bop_loop_add_hook(f->loop, &b.hook);
    bop_loop_add_hook(f->loop, &c.hook);
    a.to_remove = &b;
    c.to_remove = &c;
    turn(f->loop);
    turn(f->loop);
    CHECK_STR_EQ(f->order, "aca");
}

TEST(hook, added_by_a_hook_comes_after_all_others)
{
    struct test_hook a = hook(f, 'a'), b = hook(f, 'b'), c = hook(f, 'c');

    bop_loop_add_hook(f->loop, &a.hook);
    bop_loop_add_hook(f->loop, &b.hook);
    a.to_add = &c;
    turn(f->loop);
    turn(f->loop);
    CHECK_STR_EQ(f->order, "abcabc");
}

struct lettered_post {
    struct bop_post post;
    struct fixture *f;
};

static void on_post(struct bop_post *post)
{
    note(BOP_CONTAINER_OF(post, struct lettered_post, post)->f, 'p');
}

struct lettered_timer {
    struct bop_timer timer;
    struct fixture *f;
};

static void on_timer(struct bop_timer *timer)
{
    note(BOP_CONTAINER_OF(timer, struct lettered_timer, timer)->f, 't');
}

TEST(loop, turns_through_posts_then_timers_then_hooks)
{
    struct test_hook h = hook(f, 'h');
    struct lettered_post post = {.post.fn = on_post, .f = f};
    struct lettered_timer timer = {.f = f};

    bop_loop_add_hook(f->loop, &h.hook);
    bop_timer_init(&timer.timer, on_timer);
    CHECK_EQ(bop_timer_start(f->loop, &timer.timer, 0), 0);
    bop_loop_post(f->loop, &post.post);
    turn(f->loop);
    CHECK_STR_EQ(f->order, "pth");
}

TEST(hook, before_and_at_wakeup_have_their_places)
{
    struct test_hook before = hook(f, 'b'), wakeup = hook(f, 'w'), end = hook(f, 'e');
    struct lettered_post post = {.post.fn = on_post, .f = f};
    struct lettered_timer timer = {.f = f};

    bop_loop_add_hook_at(f->loop, &end.hook, BOP_HOOK_END);
    bop_loop_add_hook_at(f->loop, &wakeup.hook, BOP_HOOK_WAKEUP);
    bop_loop_add_hook_at(f->loop, &before.hook, BOP_HOOK_BEFORE);
    bop_timer_init(&timer.timer, on_timer);
    CHECK_EQ(bop_timer_start(f->loop, &timer.timer, 0), 0);
    bop_loop_post(f->loop, &post.post);
    bop_loop_wakeup(f->loop);
    bop_loop_wakeup(f->loop); /* Counts once. */
    turn(f->loop);
    CHECK_STR_EQ(f->order, "bwpte");
    turn(f->loop);
    CHECK_STR_EQ(f->order, "bwptebe");
    bop_loop_remove_hook(f->loop, &before.hook);
    bop_loop_remove_hook(f->loop, &end.hook);
    bop_loop_wakeup(f->loop);
    turn(f->loop);
    CHECK_STR_EQ(f->order, "bwptebew");
}

/* What a hook before the wait asks for, this very turn does. */
static void start_from_hook(struct bop_hook *self)
{
    struct test_hook *test_hook = BOP_CONTAINER_OF(self, struct test_hook, hook);
    static struct lettered_post post;

    note(test_hook->f, 'b');
    post = (struct lettered_post){.post.fn = on_post, .f = test_hook->f};
    bop_loop_post(test_hook->f->loop, &post.post);
}

TEST(hook, before_may_ask_for_what_the_turn_then_does)
{
    struct test_hook before = {.hook.fn = start_from_hook, .f = f};

    bop_loop_add_hook_at(f->loop, &before.hook, BOP_HOOK_BEFORE);
    CHECK_EQ(bop_loop_run_once(f->loop, -1), 0); /* Would wait for ever. */
    CHECK_STR_EQ(f->order, "bp");
}

TEST(loop, counts_its_turns)
{
    uint64_t first = bop_loop_iteration(f->loop);

    turn(f->loop);
    turn(f->loop);
    CHECK_EQ(bop_loop_iteration(f->loop), first + 2);
}

TEST(loop, tells_its_backend)
{
    const char *forced = getenv("BOP_LOOP_BACKEND");
    const char *name = bop_loop_backend_name(f->loop);

    CHECK(strcmp(name, "epoll") == 0 || strcmp(name, "io_uring") == 0);
    if (forced == NULL || strcmp(forced, "epoll") == 0) {
        CHECK_STR_EQ(name, "epoll"); /* The default, and always to be had. */
    }
}

static void *ask_thread(void *argument)
{
    CHECK(!bop_loop_is_on_thread(argument));
    return NULL;
}

static void ask_inside(struct bop_post *post)
{
    struct fixture *f = BOP_CONTAINER_OF(post, struct lettered_post, post)->f;
    pthread_t thread;

    CHECK(bop_loop_is_on_thread(f->loop));
    CHECK(bop_loop_is_running(f->loop));
    REQUIRE_EQ(pthread_create(&thread, NULL, ask_thread, f->loop), 0);
    pthread_join(thread, NULL);
}

TEST(loop, knows_its_thread)
{
    struct lettered_post post = {.post.fn = ask_inside, .f = f};

    CHECK(!bop_loop_is_on_thread(f->loop)); /* It may be run by any yet. */
    CHECK(!bop_loop_is_running(f->loop));
    bop_loop_post(f->loop, &post.post);
    turn(f->loop);
    CHECK(bop_loop_is_on_thread(f->loop));
    CHECK(!bop_loop_is_running(f->loop));
}

/* At each number of descriptors that is too few, creation says so and keeps none open. */
TEST(loop, is_not_created_without_descriptors)
{
    struct bop_loop_options options = {.allocator = &f->heap.allocator};
    struct rlimit before, few;
    int lowest = dup(0), rc = -EMFILE;
    unsigned failures = 0;

    REQUIRE(lowest >= 0);
    close(lowest);
    REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (int more = 0; rc != 0; more++) {
        struct bop_loop *loop = NULL;
        size_t live = f->heap.live;

        few = (struct rlimit){.rlim_cur = (rlim_t)(lowest + more), .rlim_max = before.rlim_max};
        REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
        rc = bop_loop_create(&options, &loop);
        setrlimit(RLIMIT_NOFILE, &before);
        if (rc != 0) {
            CHECK_EQ(rc, -EMFILE);
            CHECK(loop == NULL);
            CHECK_EQ(f->heap.live, live);
            failures++;
        }
        bop_loop_destroy(loop);
        REQUIRE(more < 10);
    }
    CHECK_EQ(failures, 2);    /* The wake descriptor, and the backend's. */
    CHECK_EQ(dup(0), lowest); /* None was left open. */
    close(lowest);
}

TEST(loop, gives_its_allocator_and_time)
{
    f->clock.now_us = 1234999;
    turn(f->loop);
    CHECK_EQ(bop_loop_now_ms(f->loop), 1234);
    CHECK_PTR_EQ(bop_loop_allocator(f->loop), &f->heap.allocator);
}

TEST(loop, has_defaults_for_all_options)
{
    struct bop_loop *loop;

    REQUIRE_EQ(bop_loop_create(NULL, &loop), 0);
    turn(loop);
    bop_loop_destroy(loop);
    bop_loop_destroy(NULL);
}

TEST(loop, survives_each_fault)
{
    struct bop_loop_options options = {.allocator = &f->heap.allocator};

    bop_loop_destroy(f->loop);
    f->loop = NULL;
    FAULT_SWEEP(&f->faults) {
        struct bop_loop *loop = NULL;
        int rc = bop_loop_create(&options, &loop);

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(loop == NULL, f->faults.fired != 0);
        bop_loop_destroy(loop);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 3); /* The loop, its receive buffer and the backend. */
}

/* Looking before sleeping changes when, not what: posts, timers and waits in vain end as ever. */
TEST(loop, polls_busily_without_missing_or_hanging)
{
    struct bop_loop_options options = {.allocator = &f->heap.allocator, .busy_poll_us = 100};
    struct bop_loop *loop;

    REQUIRE_EQ(bop_loop_create(&options, &loop), 0);
    for (int n = 0; n < 200; n++) {
        /* In vain, with and without a search before it, and then with a post. */
        CHECK_EQ(bop_loop_run_once(loop, 1), 0);
        if (n % 10 == 0) {
            struct lettered_post post = {.post.fn = on_post, .f = f};

            f->order_count = 0;
            bop_loop_post(loop, &post.post);
            CHECK_EQ(bop_loop_run_once(loop, -1), 0);
            CHECK_EQ(f->order_count, 1);
        }
    }
    bop_loop_destroy(loop);
}

/* A clock that stands still must not make the search endless. */
TEST(loop, ends_a_search_under_a_clock_that_stands)
{
    struct bop_loop_options options = {
        .allocator = &f->heap.allocator, .clock = &f->clock.clock, .busy_poll_us = 100};
    struct bop_loop *loop;

    REQUIRE_EQ(bop_loop_create(&options, &loop), 0);
    CHECK_EQ(bop_loop_run_once(loop, 1), 0);
    bop_loop_destroy(loop);
}
