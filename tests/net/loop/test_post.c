/*
 * Posts from other threads, and stopping the loop. Run under the thread
 * sanitizer these are its tests.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "../net_fixture.h"
#include "net/loop/loop_internal.h"

enum { THREADS = 4, POSTS = 100000 };

struct fixture {
    struct test_heap heap;
    struct bop_loop *loop;
    unsigned next[THREADS]; /* What each thread's next post has to say. */
    unsigned out_of_order;
    unsigned done;
};

struct numbered_post {
    struct bop_post post;
    struct fixture *f;
    unsigned thread, number;
};

struct poster {
    struct fixture *f;
    unsigned thread;
    pthread_t handle;
    struct numbered_post *posts;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    REQUIRE_EQ(
        bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator}, &f->loop), 0);
}

static void teardown(struct fixture *f)
{
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void count_post(struct bop_post *post)
{
    struct numbered_post *self = BOP_CONTAINER_OF(post, struct numbered_post, post);
    struct fixture *f = self->f;

    f->out_of_order += self->number != f->next[self->thread];
    f->next[self->thread] = self->number + 1;
    if (++f->done == THREADS * POSTS) {
        bop_loop_stop(f->loop);
    }
}

static void *post_all(void *argument)
{
    struct poster *poster = argument;

    for (unsigned i = 0; i < POSTS; i++) {
        struct numbered_post *post = &poster->posts[i];

        *post = (struct numbered_post){
            .post.fn = count_post, .f = poster->f, .thread = poster->thread, .number = i};
        bop_loop_post(poster->f->loop, &post->post);
    }
    return NULL;
}

TEST(post, from_many_threads_run_in_each_one_s_order)
{
    struct poster posters[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        posters[i] = (struct poster){.f = f, .thread = i};
        posters[i].posts = malloc(POSTS * sizeof(*posters[i].posts));
        REQUIRE(posters[i].posts != NULL);
        REQUIRE_EQ(pthread_create(&posters[i].handle, NULL, post_all, &posters[i]), 0);
    }
    /* A lost wake would make this hang: the loop has nothing else to end its wait. */
    CHECK_EQ(bop_loop_run(f->loop), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(posters[i].handle, NULL);
        free(posters[i].posts);
        CHECK_EQ(f->next[i], POSTS);
    }
    CHECK_EQ(f->out_of_order, 0);
}

/* One post at a time, each waited for: the loop sleeps and is woken each time. */
struct pingpong {
    struct bop_post post;
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool answer;
};

static void answer(struct bop_post *post)
{
    struct pingpong *self = BOP_CONTAINER_OF(post, struct pingpong, post);

    pthread_mutex_lock(&self->lock);
    self->answer = true;
    pthread_cond_signal(&self->answered);
    pthread_mutex_unlock(&self->lock);
}

static void *run_loop(void *argument)
{
    CHECK_EQ(bop_loop_run(argument), 0);
    return NULL;
}

TEST(post, wakes_a_sleeping_loop_each_time)
{
    struct pingpong pingpong = {.post.fn = answer};
    pthread_t thread;

    pthread_mutex_init(&pingpong.lock, NULL);
    pthread_cond_init(&pingpong.answered, NULL);
    REQUIRE_EQ(pthread_create(&thread, NULL, run_loop, f->loop), 0);
    for (int i = 0; i < 1000; i++) {
        pingpong.answer = false;
        bop_loop_post(f->loop, &pingpong.post);
        pthread_mutex_lock(&pingpong.lock);
        while (!pingpong.answer) {
            pthread_cond_wait(&pingpong.answered, &pingpong.lock);
        }
        pthread_mutex_unlock(&pingpong.lock);
    }
    bop_loop_stop(f->loop);
    pthread_join(thread, NULL);
    pthread_cond_destroy(&pingpong.answered);
    pthread_mutex_destroy(&pingpong.lock);
}

static void post_again(struct bop_post *post)
{
    struct numbered_post *self = BOP_CONTAINER_OF(post, struct numbered_post, post);

    self->f->done++;
    bop_loop_post(self->f->loop, post);
}

TEST(post, posted_by_a_post_runs_in_the_next_turn)
{
    struct numbered_post post = {.post.fn = post_again, .f = f};

    bop_loop_post(f->loop, &post.post);
    turn(f->loop);
    CHECK_EQ(f->done, 1);
    turn(f->loop);
    CHECK_EQ(f->done, 2);
    /* The end of the loop runs what waits, but does not wait for it to end. */
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    CHECK_EQ(f->done, 4);
}

static void free_post(struct bop_post *post)
{
    free(BOP_CONTAINER_OF(post, struct numbered_post, post));
}

TEST(post, may_be_freed_by_its_function)
{
    for (int i = 0; i < 3; i++) {
        struct numbered_post *post = calloc(1, sizeof(*post));

        REQUIRE(post != NULL);
        post->post.fn = free_post;
        bop_loop_post(f->loop, &post->post);
    }
    turn(f->loop);
}

/* ---- One wake a batch ---- */

static uint64_t wakes(const struct fixture *f)
{
    return atomic_load(&f->loop->wake.written);
}

static void count_only(struct bop_post *post)
{
    BOP_CONTAINER_OF(post, struct numbered_post, post)->f->done++;
}

TEST(post, many_before_a_turn_cost_one_wake)
{
    struct numbered_post posts[100];
    uint64_t before = wakes(f);

    for (unsigned i = 0; i < BOP_COUNT_OF(posts); i++) {
        posts[i] = (struct numbered_post){.post.fn = count_only, .f = f};
        bop_loop_post(f->loop, &posts[i].post);
    }
    CHECK_EQ(wakes(f), before + 1);
    turn(f->loop);
    CHECK_EQ(f->done, 100);
    bop_loop_post(f->loop, &posts[0].post);
    CHECK_EQ(wakes(f), before + 2);
    turn(f->loop);
    CHECK_EQ(f->done, 101);
}

/* ---- On the loop's thread, or posted ---- */

TEST(run_on, is_at_once_on_the_thread_and_later_elsewhere)
{
    struct numbered_post post = {.post.fn = count_only, .f = f};

    CHECK_EQ(bop_loop_run_on(f->loop, &post.post), 0);
    CHECK_EQ(f->done, 0); /* Nobody runs the loop yet. */
    turn(f->loop);
    CHECK_EQ(f->done, 1);
    CHECK_EQ(bop_loop_run_on(f->loop, &post.post), 0);
    CHECK_EQ(f->done, 2);
}

static void *run_on_elsewhere(void *argument)
{
    struct numbered_post *post = argument;

    CHECK_EQ(bop_loop_run_on(post->f->loop, &post->post), 0);
    return NULL;
}

TEST(run_on, another_thread_posts)
{
    struct numbered_post post = {.post.fn = count_only, .f = f};
    pthread_t thread;

    turn(f->loop);
    REQUIRE_EQ(pthread_create(&thread, NULL, run_on_elsewhere, &post), 0);
    pthread_join(thread, NULL);
    CHECK_EQ(f->done, 0);
    turn(f->loop);
    CHECK_EQ(f->done, 1);
}

static void run_on_in_the_end(struct bop_post *post)
{
    struct numbered_post *self = BOP_CONTAINER_OF(post, struct numbered_post, post);
    struct numbered_post other = {.post.fn = count_only, .f = self->f};

    CHECK_EQ(bop_loop_run_on(self->f->loop, &other.post), BOP_ECLOSED);
    CHECK_EQ(bop_loop_call(self->f->loop, NULL, NULL), BOP_ECLOSED);
    CHECK(bop_loop_handle(self->f->loop) == NULL);
    self->f->done += 10;
}

TEST(run_on, is_refused_while_the_loop_ends)
{
    struct numbered_post post = {.post.fn = run_on_in_the_end, .f = f};

    bop_loop_post(f->loop, &post.post);
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    CHECK_EQ(f->done, 10);
}

/* ---- Calls ---- */

static void call_count(void *arg)
{
    struct fixture *f = arg;

    f->done++;
}

static void call_again(void *arg)
{
    struct fixture *f = arg;

    f->done++;
    CHECK_EQ(bop_loop_call(f->loop, call_count, f), 0);
}

struct order {
    char letters[16];
    size_t count;
};

struct order_post {
    struct bop_post post;
    struct order *order;
};

static void order_p(struct bop_post *post)
{
    struct order *order = BOP_CONTAINER_OF(post, struct order_post, post)->order;

    order->letters[order->count++] = 'p';
}

static void order_c(void *arg)
{
    struct order *order = arg;

    order->letters[order->count++] = 'c';
}

TEST(call, keeps_its_place_among_posts)
{
    struct order order = {.count = 0};
    struct order_post first = {.post.fn = order_p, .order = &order}, last = first;

    bop_loop_post(f->loop, &first.post);
    CHECK_EQ(bop_loop_call(f->loop, order_c, &order), 0);
    CHECK_EQ(bop_loop_call(f->loop, order_c, &order), 0);
    bop_loop_post(f->loop, &last.post);
    turn(f->loop);
    CHECK_STR_EQ(order.letters, "pccp");
}

TEST(call, made_by_a_call_comes_in_the_next_turn)
{
    CHECK_EQ(bop_loop_call(f->loop, call_again, f), 0);
    turn(f->loop);
    CHECK_EQ(f->done, 1);
    turn(f->loop);
    CHECK_EQ(f->done, 2);
}

static void post_a_call(struct bop_post *post)
{
    struct numbered_post *self = BOP_CONTAINER_OF(post, struct numbered_post, post);
    static struct numbered_post last;

    if (self != &last) {
        last = (struct numbered_post){.post.fn = post_a_call, .f = self->f};
        bop_loop_post(self->f->loop, &last.post);
    }
    self->f->done++;
    bop_loop_post(self->f->loop, &self->post); /* Dropped in the end. */
}

/* Posts without end do not keep the loop from ending, and their memory is not touched after. */
TEST(call, is_freed_with_the_loop)
{
    struct numbered_post post = {.post.fn = post_a_call, .f = f};

    CHECK_EQ(bop_loop_call(f->loop, call_count, f), 0);
    bop_loop_post(f->loop, &post.post);
    bop_loop_destroy(f->loop); /* teardown() sees that nothing is left of the heap. */
    f->loop = NULL;
    CHECK_EQ(f->done, 4); /* The call; the post, then both posts once more. */
}

/* ---- Handles ---- */

struct handle_user {
    struct bop_loop_handle *handle;
    pthread_t thread;
    unsigned accepted;
    _Atomic unsigned *called;
};

static void count_call(void *arg)
{
    atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static void *use_handle(void *argument)
{
    struct handle_user *user = argument;
    int rc;

    while ((rc = bop_loop_handle_call(user->handle, count_call, user->called)) == 0) {
        user->accepted++;
    }
    CHECK_EQ(rc, BOP_ECLOSED);
    CHECK(!bop_loop_handle_is_open(user->handle));
    bop_loop_handle_unref(user->handle);
    return NULL;
}

/* Threads post as the loop ends: what is accepted is called, and nothing crashes. */
TEST(handle, outlives_its_loop)
{
    enum { ROUNDS = 20 };

    for (int round = 0; round < ROUNDS; round++) {
        struct handle_user users[THREADS];
        _Atomic unsigned called = 0;
        unsigned accepted = 0;

        for (unsigned i = 0; i < THREADS; i++) {
            users[i] = (struct handle_user){.handle = bop_loop_handle(f->loop), .called = &called};
            REQUIRE(users[i].handle != NULL);
            CHECK(bop_loop_handle_is_open(users[i].handle));
            REQUIRE_EQ(pthread_create(&users[i].thread, NULL, use_handle, &users[i]), 0);
        }
        while (atomic_load(&called) < 100) {
            turn(f->loop);
        }
        bop_loop_destroy(f->loop);
        for (unsigned i = 0; i < THREADS; i++) {
            pthread_join(users[i].thread, NULL);
            accepted += users[i].accepted;
        }
        CHECK_EQ(atomic_load(&called), accepted);
        REQUIRE_EQ(
            bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator}, &f->loop),
            0);
    }
}

TEST(handle, posts_and_runs_as_the_loop_does)
{
    struct numbered_post post = {.post.fn = count_only, .f = f};
    struct bop_loop_handle *handle = bop_loop_handle(f->loop);

    REQUIRE(handle != NULL);
    CHECK_PTR_EQ(bop_loop_handle(f->loop), handle); /* One a loop, counted. */
    bop_loop_handle_unref(handle);
    CHECK_EQ(bop_loop_handle_post(handle, &post.post), 0);
    turn(f->loop);
    CHECK_EQ(f->done, 1);
    CHECK_EQ(bop_loop_handle_run_on(handle, &post.post), 0);
    CHECK_EQ(f->done, 2);
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    CHECK_EQ(bop_loop_handle_post(handle, &post.post), BOP_ECLOSED);
    CHECK_EQ(bop_loop_handle_run_on(handle, &post.post), BOP_ECLOSED);
    CHECK_EQ(f->done, 2);
    bop_loop_handle_unref(handle);
    bop_loop_handle_unref(NULL);
}

/* ---- Stop ---- */

TEST(stop, before_run_ends_it_after_a_turn)
{
    bop_loop_stop(f->loop);
    CHECK_EQ(bop_loop_run(f->loop), 0);
    /* Even if a turn by hand has used up the wake. */
    bop_loop_stop(f->loop);
    turn(f->loop);
    CHECK_EQ(bop_loop_run(f->loop), 0);
}

static struct bop_loop *signaled_loop;

static void on_signal(int number)
{
    bop_loop_stop(signaled_loop);
}

static void raise_signal(struct bop_timer *timer)
{
    raise(SIGUSR1);
}

TEST(stop, works_in_a_signal_handler)
{
    struct sigaction action = {.sa_handler = on_signal}, before;
    struct bop_timer timer;

    signaled_loop = f->loop;
    REQUIRE_EQ(sigaction(SIGUSR1, &action, &before), 0);
    bop_timer_init(&timer, raise_signal);
    CHECK_EQ(bop_timer_start(f->loop, &timer, 1), 0);
    CHECK_EQ(bop_loop_run(f->loop), 0);
    sigaction(SIGUSR1, &before, NULL);
}
