/*
 * Threads that carry a lane's writes, as many as may be on their way at once:
 * each takes a flight, writes and syncs with plain calls, and hands it back.
 *
 * Their queue is a list under a lock: a write with its sync takes far longer than
 * a lock, and a list is never full, not even while a thread stands amid a pop.
 */
#include <bop/error.h>
#include <bop/mem.h>

#include "lane.h"

struct lane_threads {
    struct bop_lane *lane;
    unsigned count;
    unsigned started;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct bop_list queue; /* Flights, by rest.link. */
    bool closed;           /* Nothing comes any more. */

    pthread_t threads[];
};

static struct lane_flight *pop(struct lane_threads *threads)
{
    struct bop_list *link;

    pthread_mutex_lock(&threads->lock);
    while (bop_list_empty(&threads->queue) && !threads->closed) {
        pthread_cond_wait(&threads->changed, &threads->lock);
    }
    link = bop_list_pop_front(&threads->queue);
    pthread_mutex_unlock(&threads->lock);
    return link ? BOP_CONTAINER_OF(link, struct lane_flight, rest.link) : NULL;
}

static void *thread_main(void *user)
{
    struct lane_flight *flight;

    while ((flight = pop(user)) != NULL) {
        flight->write->result = bop__write_run(flight->write, 0);
        bop__lane_flight_finished(flight);
    }
    return NULL;
}

void bop__lane_threads_begin(struct lane_threads *threads, struct lane_flight *flight)
{
    pthread_mutex_lock(&threads->lock);
    bop_list_push_back(&threads->queue, &flight->rest.link);
    pthread_mutex_unlock(&threads->lock);
    pthread_cond_signal(&threads->changed);
}

int bop__lane_threads_create(struct bop_lane *lane, unsigned count,
                             struct lane_threads **out_threads)
{
    struct lane_threads *threads;
    int rc = 0;

    threads = bop_alloc_zeroed(lane->allocator,
                               sizeof(*threads) + count * sizeof(threads->threads[0]));
    if (!threads) {
        return BOP_ENOMEM;
    }
    threads->lane = lane;
    threads->count = count;
    bop_list_init(&threads->queue);
    /* Without attributes neither needs anything that could fail. */
    pthread_mutex_init(&threads->lock, NULL);
    pthread_cond_init(&threads->changed, NULL);
    for (; rc == 0 && threads->started < count; threads->started += rc == 0) {
        rc = bop__lane_start_thread(lane, &threads->threads[threads->started], thread_main,
                                    threads);
    }
    if (rc < 0) {
        bop__lane_threads_destroy(threads);
        return rc;
    }
    *out_threads = threads;
    return 0;
}

void bop__lane_threads_destroy(struct lane_threads *threads)
{
    if (!threads) {
        return;
    }
    pthread_mutex_lock(&threads->lock);
    threads->closed = true;
    pthread_mutex_unlock(&threads->lock);
    pthread_cond_broadcast(&threads->changed);
    for (unsigned i = 0; i < threads->started; i++) {
        pthread_join(threads->threads[i], NULL);
    }
    pthread_cond_destroy(&threads->changed);
    pthread_mutex_destroy(&threads->lock);
    bop_free(threads->lane->allocator, threads,
             sizeof(*threads) + threads->count * sizeof(threads->threads[0]));
}
