/*
 * Posts from other threads, and stopping the loop. Run under the thread
 * sanitizer these are its tests.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "../net_fixture.h"

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
