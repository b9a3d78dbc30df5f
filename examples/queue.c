/*
 * Queues between threads: owned jobs, back-pressure, a poll loop, an orderly end.
 *
 *     queue [JOBS [STOP_AFTER]]
 *
 *      producers --jobs (bounded)--> workers --results--> poll loop of main()
 *
 * The producers make JOBS jobs (1000) and wait while the workers are behind. With
 * STOP_AFTER the loop has enough after that many results and leaves the rest.
 */
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/mpmc.h>

#define PRODUCERS       3
#define WORKERS         2
#define JOBS_AT_ONCE    64 /* So many wait for a worker at most. */
#define RESULTS_AT_ONCE 256
#define RESULTS_A_POP   16

/* Owned by one thread at a time: the queue hands the ownership on with the pointer. */
struct job {
    unsigned number;
    char text[32];
};

struct plant {
    struct bop_mpmc *jobs;
    struct bop_mpmc *results;
    unsigned job_count;
    /* Rarely touched, so the default memory order, the strongest, will do. */
    atomic_uint producers_left;
    atomic_uint workers_left;
    atomic_bool stop;
    unsigned discarded;
};

struct producer {
    struct plant *plant;
    unsigned number;
    pthread_t thread;
};

static BOP_NORETURN void die(const char *what, int rc)
{
    fprintf(stderr, "queue: %s: %s\n", what, bop_strerror(rc));
    exit(1);
}

/* Returns 0, or BOP_ECLOSED: then the job is still ours, and goes. */
static int submit(struct plant *plant, unsigned number)
{
    struct job *job = malloc(sizeof(*job));
    int rc;

    if (!job) {
        die("job", -ENOMEM);
    }
    job->number = number;
    snprintf(job->text, sizeof(job->text), "job %u", number);
    /* Back-pressure: this waits while JOBS_AT_ONCE jobs are waiting. */
    rc = bop_mpmc_push_wait(plant->jobs, NULL, (uintptr_t)job, BOP_MPMC_FOREVER);
    if (rc < 0) {
        free(job);
    }
    return rc;
}

/* The last producer to be done closes the jobs: the workers drain them and leave. */
static void *produce(void *argument)
{
    struct producer *producer = argument;
    struct plant *plant = producer->plant;

    for (unsigned i = producer->number; i < plant->job_count; i += PRODUCERS) {
        if (submit(plant, i) < 0) {
            break;
        }
    }
    if (atomic_fetch_sub(&plant->producers_left, 1) == 1) {
        bop_mpmc_close(plant->jobs);
    }
    return NULL;
}

/* The last worker to leave closes the results. */
static void *work(void *argument)
{
    struct plant *plant = argument;
    uint64_t item;
    int rc;

    while (!plant->stop && bop_mpmc_pop_wait(plant->jobs, NULL, &item, BOP_MPMC_FOREVER) == 1) {
        struct job *job = (struct job *)(uintptr_t)item;
        uint64_t result = (uint64_t)job->number + strlen(job->text);

        free(job);
        rc = bop_mpmc_push_wait(plant->results, NULL, result, BOP_MPMC_FOREVER);
        if (rc < 0) {
            die("result", rc);
        }
    }
    if (atomic_fetch_sub(&plant->workers_left, 1) == 1) {
        bop_mpmc_close(plant->results);
    }
    return NULL;
}

/*
 * Pop until nothing is there; then arm and poll, for the next push makes the eventfd readable. If
 * arm returns false something has come in between. The end is BOP_ECLOSED: closed and drained.
 */
static uint64_t collect(struct plant *plant, uint64_t enough, uint64_t *out_sum)
{
    struct pollfd ready = {.fd = bop_mpmc_eventfd(plant->results), .events = POLLIN};
    uint64_t results[RESULTS_A_POP];
    uint64_t count = 0;
    ssize_t got;

    if (ready.fd < 0) {
        die("eventfd", ready.fd);
    }
    while ((got = bop_mpmc_pop_bulk(plant->results, NULL, results, RESULTS_A_POP)) >= 0) {
        for (ssize_t i = 0; i < got; i++) {
            *out_sum += results[i];
        }
        count += (uint64_t)got;
        if (count >= enough && !plant->stop) {
            plant->stop = true;
            bop_mpmc_close(plant->jobs); /* Refuses the producers, and wakes up the workers. */
        }
        if (got == 0 && bop_mpmc_arm(plant->results)) {
            poll(&ready, 1, -1); /* A server has its sockets here, too. */
        }
    }
    return count;
}

static void start(pthread_t *thread, void *(*run)(void *argument), void *argument)
{
    int code = pthread_create(thread, NULL, run, argument);

    if (code != 0) {
        die("thread", -code);
    }
}

static uint64_t run(struct plant *plant, uint64_t enough, uint64_t *out_sum)
{
    struct producer producers[PRODUCERS];
    pthread_t workers[WORKERS];
    uint64_t count;

    atomic_init(&plant->producers_left, PRODUCERS);
    atomic_init(&plant->workers_left, WORKERS);
    for (unsigned i = 0; i < WORKERS; i++) {
        start(&workers[i], work, plant);
    }
    for (unsigned i = 0; i < PRODUCERS; i++) {
        producers[i] = (struct producer){.plant = plant, .number = i};
        start(&producers[i].thread, produce, &producers[i]);
    }
    count = collect(plant, enough, out_sum);
    for (unsigned i = 0; i < PRODUCERS; i++) {
        pthread_join(producers[i].thread, NULL);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(workers[i], NULL);
    }
    return count;
}

/* Jobs that nobody took are handed to this when the queue is destroyed. */
static void discard_job(void *user, uint64_t item)
{
    struct plant *plant = user;

    plant->discarded++;
    free((void *)(uintptr_t)item);
}

int main(int argc, char **argv)
{
    struct plant plant = {.job_count = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000};
    uint64_t enough = argc > 2 ? strtoul(argv[2], NULL, 10) : UINT64_MAX;
    struct bop_mpmc_options for_jobs = {
        .kind = BOP_MPMC_BOUNDED,
        .capacity = JOBS_AT_ONCE,
        .discard = discard_job,
        .user = &plant,
    };
    struct bop_mpmc_options for_results = {.kind = BOP_MPMC_BOUNDED, .capacity = RESULTS_AT_ONCE};
    struct bop_error err = {0};
    uint64_t count, sum = 0;

    if (bop_mpmc_create(&for_jobs, &plant.jobs, &err) < 0 ||
        bop_mpmc_create(&for_results, &plant.results, &err) < 0) {
        fprintf(stderr, "queue: %s\n", err.message);
        return 1;
    }
    count = run(&plant, enough, &sum);
    bop_mpmc_destroy(plant.results);
    bop_mpmc_destroy(plant.jobs);
    printf("%" PRIu64 " results, sum %" PRIu64 ", %u jobs discarded\n", count, sum,
           plant.discarded);
    return 0;
}
