/*
 * The workloads of bench/queue over one queue of 64-bit values, in C17 and C++17. A program of this
 * folder is a queue and these; it defines, before it includes this file,
 *
 *     struct queue, struct producer, struct consumer       (tokens; empty where there are none)
 *     struct queue *queue_create(void);                     NULL if it cannot
 *     void queue_destroy(struct queue *);
 *     bool producer_open(struct queue *, struct producer *);   void producer_close(...);
 *     bool consumer_open(struct queue *, struct consumer *);   void consumer_close(...);
 *     bool push(struct queue *, struct producer *, uint64_t);
 *     size_t push_bulk(struct queue *, struct producer *, const uint64_t *, size_t);
 *     bool pop(struct queue *, struct consumer *, uint64_t *);
 *     size_t pop_bulk(struct queue *, struct consumer *, uint64_t *, size_t);
 *
 * all of them static, and, if it also has #define QUEUE_WAITS,
 *
 *     void pop_wait(struct queue *, struct consumer *, uint64_t *);
 *     size_t pop_bulk_wait(struct queue *, struct consumer *, uint64_t *, size_t);
 *
 * Usage of the program, which prints "NAME VALUE" lines:
 *
 *     flow PRODUCERS CONSUMERS BULK ITEMS   ns an item; bulk 1: by the calls for single items
 *     wait PRODUCERS CONSUMERS BULK ITEMS   the same with consumers that sleep while it is empty
 *     pingpong TRIPS                        us there and back through two queues
 *     memory ITEMS                          what stays resident a second after all was drained
 *     burst ITEMS                           ns a push and a pop, one thread, 1,000 at a time
 *
 * Everyone who finds a queue full or empty tries again by the same rule, retry(). All items are
 * counted and summed up: a queue that loses, repeats or changes one ends the program with status 1.
 */
#ifndef BENCH_QUEUES_WORKLOADS_H
#define BENCH_QUEUES_WORKLOADS_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SIDE_MAX     16 /* Threads of a side. */
#define BULK_MAX     256
#define LIMIT_S      2 /* Of a flow: what has not ended by then does not, or as good as. */
#define POLL_US      100
#define SETTLE_US    1000000 /* To give memory back in. */
#define BURST        1000
#define SPINS        32   /* Tries between two offers of the CPU to others. */
#define PRODUCER_BIT 40   /* Of an item: above it its producer, below it its number. */
#define STOP         0ull /* An item that no producer sends. */

#define ALONE __attribute__((aligned(128))) /* On cache lines of its own. */

static void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    _exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline void retry(unsigned *spins)
{
    if (++*spins % SPINS)
        relax();
    else
        sched_yield();
}

/* Two threads go to two CPUs, wherever the program may run on two; more are left to the system. */
static void pin_to(unsigned index)
{
    cpu_set_t allowed;
    cpu_set_t one;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 || CPU_COUNT(&allowed) < 2)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || index-- != 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof(one), &one);
        return;
    }
}

/* -- Flow: producers on one side, consumers on the other ----------------------------------------
 */

struct worker {
    struct queue *queue ALONE;
    pthread_t thread;
    uint64_t number; /* Of a producer: 1 and up. */
    uint64_t items;  /* Of a producer: to push. */
    uint64_t sum;
    size_t bulk;
    bool waits;
    bool pinned;
    uint64_t got ALONE; /* Of a consumer. Read by the main thread meanwhile. */
};

static struct worker producers[SIDE_MAX];
static struct worker consumers[SIDE_MAX];
static struct {
    unsigned ready ALONE;
    unsigned go ALONE; /* 1: begin. 2: all was popped. */
    unsigned gone ALONE;
} flow;

static void wait_for_go(void)
{
    __atomic_add_fetch(&flow.ready, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&flow.go, __ATOMIC_ACQUIRE))
        sched_yield();
}

static void produce_single(struct worker *self, struct producer *token)
{
    uint64_t item = self->number << PRODUCER_BIT;
    uint64_t sum = 0;
    unsigned spins = 0;

    for (uint64_t i = 0; i < self->items; i++) {
        item++;
        while (!push(self->queue, token, item))
            retry(&spins);
        sum += item;
    }
    self->sum = sum;
}

static void produce_bulk(struct worker *self, struct producer *token)
{
    uint64_t items[BULK_MAX];
    uint64_t item = self->number << PRODUCER_BIT;
    uint64_t sum = 0;
    unsigned spins = 0;

    for (uint64_t i = 0; i < self->items; i += self->bulk) {
        size_t count = self->items - i < self->bulk ? (size_t)(self->items - i) : self->bulk;

        for (size_t k = 0; k < count; k++) {
            items[k] = ++item;
            sum += item;
        }
        for (size_t done = 0; done < count;) {
            size_t pushed = push_bulk(self->queue, token, items + done, count - done);

            done += pushed;
            if (!pushed)
                retry(&spins);
        }
    }
    self->sum = sum;
}

static void *produce(void *argument)
{
    struct worker *self = (struct worker *)argument;
    struct producer token;

    if (self->pinned)
        pin_to(0);
    if (!producer_open(self->queue, &token))
        die("no producer token");
    wait_for_go();
    if (self->bulk == 1)
        produce_single(self, &token);
    else
        produce_bulk(self, &token);
    producer_close(self->queue, &token);
    return NULL;
}

/* The count is written for each item, to a line that only the main thread reads, and that rarely:
 * it costs every queue the same next to nothing, and no consumer has to tell another one. */
static inline void count_in(struct worker *self, uint64_t *got, size_t count)
{
    *got += count;
    __atomic_store_n(&self->got, *got, __ATOMIC_RELAXED);
}

static void consume_single(struct worker *self, struct consumer *token)
{
    uint64_t sum = 0;
    uint64_t got = 0;
    uint64_t item = 0;
    unsigned spins = 0;

    for (;;) {
        if (pop(self->queue, token, &item)) {
            sum += item;
            count_in(self, &got, 1);
        } else if (__atomic_load_n(&flow.go, __ATOMIC_RELAXED) == 2) {
            break;
        } else {
            retry(&spins);
        }
    }
    self->sum = sum;
}

static void consume_bulk(struct worker *self, struct consumer *token)
{
    uint64_t items[BULK_MAX];
    uint64_t sum = 0;
    uint64_t got = 0;
    unsigned spins = 0;

    for (;;) {
        size_t count = pop_bulk(self->queue, token, items, self->bulk);

        for (size_t i = 0; i < count; i++)
            sum += items[i];
        if (count)
            count_in(self, &got, count);
        else if (__atomic_load_n(&flow.go, __ATOMIC_RELAXED) == 2)
            break;
        else
            retry(&spins);
    }
    self->sum = sum;
}

#ifdef QUEUE_WAITS
static void consume_single_wait(struct worker *self, struct consumer *token)
{
    uint64_t sum = 0;
    uint64_t got = 0;
    uint64_t item = 0;

    for (;;) {
        pop_wait(self->queue, token, &item);
        if (item == STOP)
            break;
        sum += item;
        count_in(self, &got, 1);
    }
    self->sum = sum;
}

static void consume_bulk_wait(struct worker *self, struct consumer *token)
{
    uint64_t items[BULK_MAX];
    uint64_t sum = 0;
    uint64_t got = 0;

    for (;;) {
        size_t count = pop_bulk_wait(self->queue, token, items, self->bulk);

        if (count && items[0] == STOP)
            break;
        for (size_t i = 0; i < count; i++)
            sum += items[i];
        count_in(self, &got, count);
    }
    self->sum = sum;
}
#endif

static void consume_any(struct worker *self, struct consumer *token)
{
#ifdef QUEUE_WAITS
    if (self->waits) {
        if (self->bulk == 1)
            consume_single_wait(self, token);
        else
            consume_bulk_wait(self, token);
        return;
    }
#endif
    if (self->bulk == 1)
        consume_single(self, token);
    else
        consume_bulk(self, token);
}

static void *consume(void *argument)
{
    struct worker *self = (struct worker *)argument;
    struct consumer token;

    if (self->pinned)
        pin_to(1);
    if (!consumer_open(self->queue, &token))
        die("no consumer token");
    wait_for_go();
    consume_any(self, &token);
    consumer_close(self->queue, &token);
    __atomic_add_fetch(&flow.gone, 1, __ATOMIC_RELEASE);
    return NULL;
}

static uint64_t got_by_all(unsigned count)
{
    uint64_t got = 0;

    for (unsigned i = 0; i < count; i++)
        got += __atomic_load_n(&consumers[i].got, __ATOMIC_RELAXED);
    return got;
}

static void start(struct worker *side, unsigned count, const struct worker *like, uint64_t items)
{
    void *(*run)(void *) = side == producers ? produce : consume;

    for (unsigned i = 0; i < count; i++) {
        side[i] = *like;
        side[i].number = i + 1;
        side[i].items = items / count;
        if (pthread_create(&side[i].thread, NULL, run, &side[i]) != 0)
            die("no thread");
    }
}

/* Those who wait for items are told one by one, as one of them could take the word for two. */
static void stop_consumers(struct queue *queue, unsigned count, bool waits)
{
    struct producer token;

    __atomic_store_n(&flow.go, 2, __ATOMIC_RELEASE);
    if (!waits)
        return;
    if (!producer_open(queue, &token))
        die("no producer token");
    for (unsigned i = 0; i < count; i++) {
        if (!push(queue, &token, STOP))
            die("an empty queue is full");
        while (__atomic_load_n(&flow.gone, __ATOMIC_ACQUIRE) == i)
            usleep(POLL_US);
    }
    producer_close(queue, &token);
}

/* Let it flow until all items were popped or the time is over. Returns how many were. */
static uint64_t run_flow(unsigned producer_count, unsigned consumer_count, uint64_t items,
                         uint64_t *out_ns)
{
    uint64_t began;
    uint64_t got;
    struct timespec until;

    while (__atomic_load_n(&flow.ready, __ATOMIC_ACQUIRE) != producer_count + consumer_count)
        usleep(POLL_US);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LIMIT_S;
    began = now_ns();
    __atomic_store_n(&flow.go, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < producer_count; i++) {
        if (pthread_timedjoin_np(producers[i].thread, NULL, &until) != 0)
            break;
    }
    while ((got = got_by_all(consumer_count)) != items &&
           now_ns() - began < LIMIT_S * 1000000000ull)
        usleep(POLL_US);
    *out_ns = now_ns() - began;
    return got;
}

static void check_flow(unsigned producer_count, unsigned consumer_count, uint64_t items)
{
    uint64_t pushed = 0;
    uint64_t popped = 0;

    for (unsigned i = 0; i < producer_count; i++)
        pushed += producers[i].sum;
    for (unsigned i = 0; i < consumer_count; i++)
        popped += consumers[i].sum;
    if (pushed != popped || got_by_all(consumer_count) != items)
        die("wrong: not the items that were pushed");
}

static void measure_flow(unsigned producer_count, unsigned consumer_count, size_t bulk,
                         uint64_t items, bool waits)
{
    struct worker like;
    uint64_t ns = 0;
    uint64_t got;

    memset(&like, 0, sizeof(like));
    items -= items % producer_count;
    like.queue = queue_create();
    if (!like.queue)
        die("no queue");
    like.bulk = bulk;
    like.waits = waits;
    like.pinned = producer_count + consumer_count == 2;
    start(consumers, consumer_count, &like, 0);
    start(producers, producer_count, &like, items);
    got = run_flow(producer_count, consumer_count, items, &ns);
    if (got > items)
        die("wrong: more items than were pushed");
    printf("ns %.6g\nover %d\n", (double)ns / (double)(got ? got : 1), got != items);
    fflush(stdout);
    if (got != items)
        _exit(0); /* Its threads will not end. */
    stop_consumers(like.queue, consumer_count, waits);
    for (unsigned i = 0; i < consumer_count; i++)
        pthread_join(consumers[i].thread, NULL);
    check_flow(producer_count, consumer_count, items);
    queue_destroy(like.queue);
}

/* -- Ping-pong ----------------------------------------------------------------------------------
 */

#ifdef QUEUE_WAITS
struct pair {
    struct queue *there;
    struct queue *back;
    uint64_t trips;
};

static void *answer(void *argument)
{
    struct pair *pair = (struct pair *)argument;
    struct producer producer;
    struct consumer consumer;
    uint64_t item = 0;

    pin_to(1);
    if (!producer_open(pair->back, &producer) || !consumer_open(pair->there, &consumer))
        die("no token");
    for (uint64_t i = 0; i < pair->trips; i++) {
        pop_wait(pair->there, &consumer, &item);
        if (!push(pair->back, &producer, item + 1))
            die("an empty queue is full");
    }
    producer_close(pair->back, &producer);
    consumer_close(pair->there, &consumer);
    return NULL;
}

static void measure_pingpong(uint64_t trips)
{
    struct pair pair = {queue_create(), queue_create(), trips};
    struct producer producer;
    struct consumer consumer;
    pthread_t thread;
    uint64_t began;
    uint64_t item = 0;

    if (!pair.there || !pair.back || !producer_open(pair.there, &producer) ||
        !consumer_open(pair.back, &consumer) || pthread_create(&thread, NULL, answer, &pair) != 0)
        die("no queues, tokens or thread");
    pin_to(0);
    began = now_ns();
    for (uint64_t i = 0; i < trips; i++) {
        if (!push(pair.there, &producer, 2 * i))
            die("an empty queue is full");
        pop_wait(pair.back, &consumer, &item);
        if (item != 2 * i + 1)
            die("wrong: not the answer");
    }
    printf("us %.6g\n", (double)(now_ns() - began) / 1000 / (double)trips);
    pthread_join(thread, NULL);
    producer_close(pair.there, &producer);
    consumer_close(pair.back, &consumer);
    queue_destroy(pair.there);
    queue_destroy(pair.back);
}
#endif

/* -- One thread ---------------------------------------------------------------------------------
 */

struct alone {
    struct queue *queue;
    struct producer producer;
    struct consumer consumer;
    unsigned spins;
};

static void alone_open(struct alone *self)
{
    self->spins = 0;
    self->queue = queue_create();
    if (!self->queue || !producer_open(self->queue, &self->producer) ||
        !consumer_open(self->queue, &self->consumer))
        die("no queue or token");
}

static void alone_close(struct alone *self)
{
    producer_close(self->queue, &self->producer);
    consumer_close(self->queue, &self->consumer);
    queue_destroy(self->queue);
}

/* Both return the ns they took. */
static uint64_t alone_push(struct alone *self, uint64_t items)
{
    uint64_t began = now_ns();

    for (uint64_t i = 1; i <= items; i++) {
        while (!push(self->queue, &self->producer, i))
            retry(&self->spins);
    }
    return now_ns() - began;
}

static uint64_t alone_pop(struct alone *self, uint64_t items)
{
    uint64_t began = now_ns();
    uint64_t sum = 0;
    uint64_t item = 0;

    for (uint64_t i = 0; i < items; i++) {
        while (!pop(self->queue, &self->consumer, &item))
            retry(&self->spins);
        sum += item;
    }
    began = now_ns() - began;
    if (sum != items * (items + 1) / 2)
        die("wrong: not the items that were pushed");
    return began;
}

static void measure_burst(uint64_t items)
{
    struct alone self;
    uint64_t push_ns = 0;
    uint64_t pop_ns = 0;
    uint64_t done = 0;

    alone_open(&self);
    for (; done < items; done += BURST) {
        push_ns += alone_push(&self, BURST);
        pop_ns += alone_pop(&self, BURST);
    }
    printf("push_ns %.6g\npop_ns %.6g\n", (double)push_ns / (double)done,
           (double)pop_ns / (double)done);
    alone_close(&self);
}

static double resident_mb(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;

    if (!file || fscanf(file, "%*u %lu", &pages) != 1)
        die("/proc/self/statm cannot be read");
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

static void measure_memory(uint64_t items)
{
    struct alone self;
    double start_mb;
    double peak_mb;
    double kept_mb;

    alone_open(&self);
    resident_mb(); /* What reading it takes is part of the start. */
    start_mb = resident_mb();
    alone_push(&self, items);
    peak_mb = resident_mb() - start_mb;
    alone_pop(&self, items);
    usleep(SETTLE_US);
    kept_mb = resident_mb() - start_mb;
    printf("peak_mb %.6g\nkept_mb %.6g\nkept_percent %.6g\n", peak_mb, kept_mb,
           kept_mb > 0 ? 100 * kept_mb / peak_mb : 0.0);
    alone_close(&self);
}

/* -- The program --------------------------------------------------------------------------------
 */

static uint64_t number_of(int argc, char **argv, int index, uint64_t most)
{
    char *end = NULL;
    uint64_t value = index < argc ? strtoull(argv[index], &end, 10) : 0;

    if (!end || *end != '\0' || value < 1 || value > most)
        die("usage: flow|wait PRODUCERS CONSUMERS BULK ITEMS, pingpong|memory|burst ITEMS");
    return value;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    const uint64_t items_max = 1ull << PRODUCER_BIT;

    if (strcmp(mode, "flow") == 0 || strcmp(mode, "wait") == 0) {
#ifndef QUEUE_WAITS
        if (strcmp(mode, "wait") == 0)
            die("this queue has nobody wait");
#endif
        measure_flow((unsigned)number_of(argc, argv, 2, SIDE_MAX),
                     (unsigned)number_of(argc, argv, 3, SIDE_MAX),
                     (size_t)number_of(argc, argv, 4, BULK_MAX),
                     number_of(argc, argv, 5, items_max), strcmp(mode, "wait") == 0);
#ifdef QUEUE_WAITS
    } else if (strcmp(mode, "pingpong") == 0) {
        measure_pingpong(number_of(argc, argv, 2, items_max));
#endif
    } else if (strcmp(mode, "memory") == 0) {
        measure_memory(number_of(argc, argv, 2, items_max));
    } else {
        if (strcmp(mode, "burst") != 0)
            die("no such workload");
        measure_burst(number_of(argc, argv, 2, items_max));
    }
    return 0;
}

#endif
