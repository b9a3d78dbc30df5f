/*
 * Barriers: a counter of those who came. Of parties p, who comes as the n-th goes on when the
 * counter has reached the next multiple of p at or above n; so rounds follow each other without a
 * reset.
 *
 * A watch of the counter says when to look at it; without one it is looked at again and again.
 */
#include "client_lock.h"

#include <bop/client_election.h>
#include <bop/client_watch.h>
#include <bop/mem.h>

#define POLL_MIN_MS 5
#define POLL_MAX_MS 100
#define LOOK_MS     2000 /* With a watch, for what it may miss. */

struct barrier {
    struct bop_list link; /* Of client->locks.barriers. */
    struct bop_client *client;
    void (*fn)(void *user, int code);
    void *user;
    uint64_t deadline_ms; /* UINT64_MAX: never. */
    uint64_t poll_ms;
    uint32_t parties;
    int64_t goal;
    struct bop_timer timer;
    struct bop_client_watch *watch; /* NULL: there is none, or not any more. */
    bool changed;                   /* Since it was looked at. */
    size_t name_size;
    uint8_t name[BOP_NAME_MAX];
};

static void end(struct barrier *barrier, int code)
{
    void (*fn)(void *user, int code) = barrier->fn;
    void *user = barrier->user;

    bop_client_watch_close(barrier->watch);
    bop_timer_stop(barrier->client->loop, &barrier->timer);
    bop_list_remove(&barrier->link);
    bop_free(barrier->client->allocator, barrier, sizeof(*barrier));
    if (fn) {
        fn(user, code);
    }
}

void bop__client_barriers_close(struct bop_client *client)
{
    while (!bop_list_empty(&client->locks.barriers)) {
        end(BOP_CONTAINER_OF(client->locks.barriers.next, struct barrier, link), BOP_ECANCELED);
    }
}

static struct bop_operation about(const struct barrier *barrier, enum bop_op op)
{
    return (struct bop_operation){.op = op, .name = bop_slice(barrier->name, barrier->name_size)};
}

static void wait_more(struct barrier *barrier)
{
    uint64_t now_ms = bop_loop_now_ms(barrier->client->loop);
    uint64_t left_ms = barrier->deadline_ms > now_ms ? barrier->deadline_ms - now_ms : POLL_MIN_MS;
    uint64_t wait_ms = barrier->changed ? 0 : bop_min_u64(barrier->poll_ms, left_ms);

    bop_timer_start(barrier->client->loop, &barrier->timer, wait_ms);
    barrier->poll_ms = bop_min_u64(barrier->poll_ms * 2, barrier->watch ? LOOK_MS : POLL_MAX_MS);
}

/* Somebody came or left: look. If that is done already, once more when the answer is there. */
static void on_news(void *user, const struct bop_client_news *news)
{
    struct barrier *barrier = (struct barrier *)user;

    if (news->code != 0) {
        barrier->watch = NULL;
        barrier->poll_ms = POLL_MIN_MS;
    }
    barrier->changed = true;
    if (bop_timer_is_running(&barrier->timer) && !barrier->client->closing) {
        bop_timer_start(barrier->client->loop, &barrier->timer, 0);
    }
}

/* Where there are no watches, looking at it does. */
static void watch(struct barrier *barrier)
{
    struct bop_client_watch_options options = {
        .what = BOP_WATCH_COUNTER, .name = bop_slice(barrier->name, barrier->name_size)};

    if (bop_client_watch_open(barrier->client, &options, on_news, barrier, &barrier->watch) != 0) {
        barrier->watch = NULL;
    }
}

/* Take the coming back, unless the barrier got full meanwhile. */
static void on_left(void *user, int code, const struct bop_result *result)
{
    struct barrier *barrier = (struct barrier *)user;

    if (code == BOP_ECONDITION && result->number < barrier->goal) {
        wait_more(barrier); /* Somebody came or left. Look again, and try again. */
        return;
    }
    end(barrier, code == 0 ? BOP_ETIMEOUT : code == BOP_ECONDITION ? 0 : code);
}

static void leave(struct barrier *barrier, int64_t value)
{
    struct bop_operation cas = about(barrier, BOP_OP_COUNTER_CAS);

    cas.expected_number = value;
    cas.number = value - 1;
    if (bop_client_execute(barrier->client, &cas, BOP_READ_LINEARIZABLE, on_left, barrier) != 0) {
        wait_more(barrier);
    }
}

static void on_counted(void *user, int code, const struct bop_result *result)
{
    struct barrier *barrier = (struct barrier *)user;

    if (code != 0 && code != BOP_ETIMEOUT) {
        end(barrier, code);
    } else if (code == 0 && result->number >= barrier->goal) {
        end(barrier, 0);
    } else if (code == 0 && bop_loop_now_ms(barrier->client->loop) >= barrier->deadline_ms) {
        leave(barrier, result->number);
    } else {
        wait_more(barrier);
    }
}

static void on_timer(struct bop_timer *timer)
{
    struct barrier *barrier = BOP_CONTAINER_OF(timer, struct barrier, timer);
    struct bop_operation get = about(barrier, BOP_OP_COUNTER_GET);
    int rc;

    barrier->changed = false;
    rc = bop_client_execute(barrier->client, &get, BOP_READ_LINEARIZABLE, on_counted, barrier);
    if (rc == BOP_EFULL || rc == BOP_ENOMEM) {
        wait_more(barrier);
    } else if (rc < 0) {
        end(barrier, rc);
    }
}

static void on_come(void *user, int code, const struct bop_result *result)
{
    struct barrier *barrier = (struct barrier *)user;
    int64_t parties = barrier->parties;

    if (code != 0) {
        end(barrier, code);
        return;
    }
    barrier->goal = (result->number + parties - 1) / parties * parties;
    if (result->number < barrier->goal) {
        watch(barrier);
    }
    on_counted(barrier, 0, result);
}

int bop_client_barrier_wait(struct bop_client *client, struct bop_slice name, uint32_t parties,
                            uint64_t timeout_ms, void (*fn)(void *user, int code), void *user)
{
    struct bop_operation add = {.op = BOP_OP_COUNTER_ADD, .delta = 1};
    struct barrier *barrier;
    int rc;

    if (parties == 0 || name.size == 0) {
        return BOP_EINVAL;
    }
    if (name.size > BOP_NAME_MAX) {
        return BOP_ETOOBIG;
    }
    barrier = (struct barrier *)bop_alloc_zeroed(client->allocator, sizeof(*barrier));
    if (!barrier) {
        return BOP_ENOMEM;
    }
    barrier->client = client;
    barrier->fn = fn;
    barrier->user = user;
    barrier->parties = parties;
    barrier->poll_ms = POLL_MIN_MS;
    barrier->deadline_ms = timeout_ms ? bop_loop_now_ms(client->loop) + timeout_ms : UINT64_MAX;
    barrier->name_size = name.size;
    memcpy(barrier->name, name.data, name.size);
    bop_timer_init(&barrier->timer, on_timer);
    add.name = bop_slice(barrier->name, barrier->name_size);
    rc = bop_client_execute(client, &add, BOP_READ_LINEARIZABLE, on_come, barrier);
    if (rc < 0) {
        bop_free(client->allocator, barrier, sizeof(*barrier));
        return rc;
    }
    bop_list_push_back(&client->locks.barriers, &barrier->link);
    return 0;
}
