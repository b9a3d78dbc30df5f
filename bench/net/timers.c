/*
 * What timers cost: nanoseconds to arm and cancel one, while many others run.
 *
 * Prints "NAME VALUE" a line. The share of a core that 100,000 timers armed and
 * cancelled a second take is the first figure times 1e5 / 1e9.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <bop/error.h>
#include <bop/loop.h>

enum { RUNNING = 100000, ROUNDS = 20 };

static unsigned long fired;

static void on_timer(struct bop_timer *timer)
{
    fired++;
}

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

struct timers_bench {
    struct bop_loop *loop;
    struct bop_timer *timers; /* RUNNING of them. */
    double arm_and_cancel_ns;
    double move_ns;
    double fire_ns;
    int rc;
};

/* Inside a turn, where the time is known: as protocols do. */
static void measure_changes(struct timers_bench *bench)
{
    uint64_t random = 88172645463325252u;
    double start = now_ns();

    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < RUNNING; i++) {
            bop_timer_stop(bench->loop, &bench->timers[i]);
            bop_timer_start(bench->loop, &bench->timers[i], 1000 + next_random(&random) % 60000);
        }
    }
    bench->arm_and_cancel_ns = (now_ns() - start) / ROUNDS / RUNNING;
    start = now_ns();
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < RUNNING; i++) {
            bop_timer_start(bench->loop, &bench->timers[i], 30000);
        }
    }
    bench->move_ns = (now_ns() - start) / ROUNDS / RUNNING;
}

/* All of them, over half a second. */
static void measure_firing(struct timers_bench *bench)
{
    uint64_t random = 424242;
    double start = now_ns();

    for (int i = 0; i < RUNNING; i++) {
        bop_timer_start(bench->loop, &bench->timers[i], next_random(&random) % 500);
    }
    while (fired < RUNNING && bench->rc == 0) {
        bench->rc = bop_loop_run_once(bench->loop, -1);
    }
    bench->fire_ns = (now_ns() - start) / RUNNING;
}

struct bench_post {
    struct bop_post post;
    struct timers_bench *bench;
};

static void on_post(struct bop_post *post)
{
    measure_changes(BOP_CONTAINER_OF(post, struct bench_post, post)->bench);
}

int main(void)
{
    struct timers_bench bench = {.timers = calloc(RUNNING, sizeof(*bench.timers))};
    struct bench_post post = {.post.fn = on_post, .bench = &bench};

    if (bench.timers == NULL || bop_loop_create(NULL, &bench.loop) != 0) {
        fprintf(stderr, "no memory or no descriptors\n");
        return 1;
    }
    for (int i = 0; i < RUNNING; i++) {
        bop_timer_init(&bench.timers[i], on_timer);
        bop_timer_start(bench.loop, &bench.timers[i], 1000 + (uint64_t)i);
    }
    bop_loop_post(bench.loop, &post.post);
    bench.rc = bop_loop_run_once(bench.loop, 0);
    measure_firing(&bench);
    printf("arm_and_cancel_ns %.1f\n", bench.arm_and_cancel_ns);
    printf("move_ns %.1f\n", bench.move_ns);
    printf("fire_ns %.1f\n", bench.fire_ns);
    bop_loop_destroy(bench.loop);
    free(bench.timers);
    return bench.rc == 0 ? 0 : 1;
}
