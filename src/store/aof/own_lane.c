/*
 * A log with a lane of its own: the owner polls the log, or waits on it.
 */
#include "internal.h"

#include <errno.h>
#include <time.h>

/* How long a waiting call sleeps at most before it looks for room again. */
#define LOOK_AGAIN_MS 50

struct bop__own_lane {
    struct bop_lane *lane;
    struct bop_aof *aof;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool woken; /* Under the lock: something is to be polled. */
};

/* On a thread of the lane's. */
static void wake(void *user)
{
    struct bop__own_lane *own = user;

    pthread_mutex_lock(&own->lock);
    own->woken = true;
    pthread_cond_signal(&own->changed);
    pthread_mutex_unlock(&own->lock);
    if (own->aof->options.notify) {
        own->aof->options.notify(own->aof->options.user);
    }
}

static int make_sync(struct bop__own_lane *own)
{
    pthread_condattr_t attributes;
    int rc = pthread_condattr_init(&attributes);

    if (rc != 0) {
        return -rc;
    }
    rc = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (rc == 0) {
        rc = pthread_cond_init(&own->changed, &attributes);
    }
    pthread_condattr_destroy(&attributes);
    if (rc == 0) {
        rc = pthread_mutex_init(&own->lock, NULL);
        if (rc != 0) {
            pthread_cond_destroy(&own->changed);
        }
    }
    return -rc;
}

int bop__own_lane_open(struct bop_aof *aof, struct bop_error *err)
{
    struct bop__own_lane *own = bop_alloc_zeroed(aof->allocator, sizeof(*own));
    struct bop_lane_options options = {
        .allocator = aof->allocator,
        .name = "bop-aof",
        .notify = wake,
        .user = own,
        .writes = aof->options.writes_max,
    };
    int rc;

    if (!own) {
        return bop_error_set(err, BOP_ENOMEM, "make the log's lane");
    }
    own->aof = aof;
    rc = make_sync(own);
    if (rc < 0) {
        bop_free(aof->allocator, own, sizeof(*own));
        return bop_error_set(err, rc, "make the log's lane");
    }
    rc = bop_lane_create(&options, &own->lane);
    if (rc < 0) {
        pthread_cond_destroy(&own->changed);
        pthread_mutex_destroy(&own->lock);
        bop_free(aof->allocator, own, sizeof(*own));
        return bop_error_set(err, rc, "make the log's lane");
    }
    aof->lane = own;
    aof->executor = bop_lane_executor(own->lane);
    return 0;
}

void bop__own_lane_close(struct bop_aof *aof)
{
    struct bop__own_lane *own = aof->lane;

    if (!own) {
        return;
    }
    while (bop_aof_busy(aof)) {
        bop_lane_drain(own->lane);
    }
    bop_lane_destroy(own->lane);
    pthread_cond_destroy(&own->changed);
    pthread_mutex_destroy(&own->lock);
    bop_free(aof->allocator, own, sizeof(*own));
    aof->lane = NULL;
}

size_t bop_aof_poll(struct bop_aof *aof)
{
    BOP_ASSERT(aof->lane);
    pthread_mutex_lock(&aof->lane->lock);
    aof->lane->woken = false;
    pthread_mutex_unlock(&aof->lane->lock);
    bop_aof_look_for_room(aof);
    return bop_lane_poll(aof->lane->lane);
}

/* ---- Waiting ---- */

static int64_t now_ms(void)
{
    struct timespec now;

    BOP_IGNORE(clock_gettime(CLOCK_MONOTONIC, &now)); /* Fails for a bad clock only. */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t deadline_of(int timeout_ms)
{
    return timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
}

static int left_ms(int64_t deadline_ms)
{
    int64_t left = deadline_ms - now_ms();

    return deadline_ms == INT64_MAX ? -1 : (int)(left > 0 ? left : 0);
}

/* Poll; if there was nothing, sleep until there is. Returns 0 or BOP_ETIMEOUT. */
static int poll_or_sleep(struct bop_aof *aof, int64_t deadline_ms)
{
    struct bop__own_lane *own = aof->lane;
    int64_t now = now_ms();
    int64_t until = bop_min_u64((uint64_t)deadline_ms, (uint64_t)now + LOOK_AGAIN_MS);
    struct timespec at = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    int rc = 0;

    if (bop_aof_poll(aof) > 0) {
        return 0;
    }
    if (now >= deadline_ms) {
        return BOP_ETIMEOUT;
    }
    pthread_mutex_lock(&own->lock);
    while (!own->woken && rc == 0) {
        rc = pthread_cond_timedwait(&own->changed, &own->lock, &at);
    }
    pthread_mutex_unlock(&own->lock);
    return 0;
}

int bop_aof_wait(struct bop_aof *aof, enum bop_aof_level level, uint64_t seq, int timeout_ms)
{
    int64_t deadline_ms = deadline_of(timeout_ms);
    int rc = 0;

    BOP_ASSERT(aof->lane);
    level = bop__level(aof, level);
    if (level >= BOP_AOF_OS && aof->open && aof->failed == 0) {
        aof->open->push = true;
        bop__pump(aof);
    }
    if (level >= BOP_AOF_DISK && aof->failed == 0) {
        rc = bop_aof_flush(aof, seq);
    }
    while (rc == 0 && bop_aof_reached(aof, level) < seq) {
        if (aof->failed != 0) {
            return aof->failed;
        }
        rc = poll_or_sleep(aof, deadline_ms);
    }
    return rc;
}

static bool is_refusal(int code)
{
    return code == BOP_EFULL || code == BOP_ENOROOM || code == BOP_EROLLOVER;
}

int bop_aof_append_wait(struct bop_aof *aof, const struct bop_aof_append *append,
                        struct bop_aof_receipt *out_receipt, int timeout_ms)
{
    int64_t deadline_ms = deadline_of(timeout_ms);
    int rc = bop_aof_append_with(aof, append, out_receipt);

    BOP_ASSERT(aof->lane);
    while (is_refusal(rc)) {
        int waited = poll_or_sleep(aof, deadline_ms);

        if (waited < 0) {
            return waited;
        }
        rc = bop_aof_append_with(aof, append, out_receipt);
    }
    return rc;
}

/* ---- Committing ---- */

static bool is_woken(struct bop__own_lane *own)
{
    bool woken;

    pthread_mutex_lock(&own->lock);
    woken = own->woken;
    pthread_mutex_unlock(&own->lock);
    return woken;
}

/* Nothing is on its way that acknowledging a write would have to wait for. */
static bool is_alone(const struct bop_aof *aof)
{
    return aof->writes == 0 && bop_list_empty(&aof->queue) && !aof->beginning;
}

int bop_aof_commit(struct bop_aof *aof, const struct bop_aof_append *append,
                   struct bop_aof_receipt *out_receipt, int timeout_ms)
{
    int64_t deadline_ms = deadline_of(timeout_ms);
    int rc;

    BOP_ASSERT(aof->lane);
    if (is_woken(aof->lane)) {
        bop_aof_poll(aof); /* What was done meanwhile: nobody else might look. */
    }
    aof->takes_write = timeout_ms < 0 && is_alone(aof);
    rc = bop_aof_append_with(aof, append, out_receipt);
    aof->takes_write = false;
    if (aof->taken) {
        bop__write_taken(aof);
    }
    if (is_refusal(rc)) {
        rc = bop_aof_append_wait(aof, append, out_receipt, left_ms(deadline_ms));
    }
    return rc < 0 ? rc : bop_aof_wait(aof, append->level, aof->last, left_ms(deadline_ms));
}
