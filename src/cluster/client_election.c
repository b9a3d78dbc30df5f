/*
 * Elections: the leader is who holds a lock, with the candidate's name as label; those who
 * stand are those who wait for it. What ends with the session, a grant or a place in the queue,
 * is asked for again in the next one.
 *
 * An election that was resigned lives on, without a user, until what is under way has ended.
 */
#include "client_lock.h"

#include <bop/client_election.h>
#include <bop/client_watch.h>
#include <bop/mem.h>

#define AGAIN_MS   100  /* After an attempt for which there was no room. */
#define OBSERVE_MS 100  /* Without a watch... */
#define LOOK_MS    2000 /* ...and with one, for what it may miss. */

struct bop_client_election {
    struct bop_client *client;
    struct bop_client_election_options options; /* Its slices point to the next two. */
    uint8_t name[BOP_NAME_MAX];
    uint8_t candidate[BOP_LABEL_MAX];
    struct bop_client_lock *lock; /* NULL: none is asked for. */
    struct bop_timer again;
    bool resigned;
};

/* ---- Standing ---- */

static void free_election(struct bop_client_election *election)
{
    bop_timer_stop(election->client->loop, &election->again);
    bop_free(election->client->allocator, election, sizeof(*election));
}

static int stand(struct bop_client_election *election);

static void stand_later(struct bop_client_election *election)
{
    bop_timer_start(election->client->loop, &election->again, AGAIN_MS);
}

static void on_again(struct bop_timer *timer)
{
    struct bop_client_election *election = BOP_CONTAINER_OF(timer, struct bop_client_election,
                                                            again);

    if (stand(election) != 0) {
        stand_later(election);
    }
}

static void on_granted(void *user, struct bop_client_lock *lock, int code)
{
    struct bop_client_election *election = (struct bop_client_election *)user;

    if (code != 0) {
        election->lock = NULL;
    }
    if (election->resigned) {
        free_election(election); /* BOP_ECANCELED, or whatever came first. */
    } else if (code == 0) {
        if (election->options.won) {
            election->options.won(election->options.user, election, bop_client_lock_token(lock));
        }
    } else if (code == BOP_ESESSION || bop__client_may_be_done(code)) {
        stand_later(election);
    } else if (code != BOP_ECANCELED && election->options.failed) {
        election->options.failed(election->options.user, election, code);
    }
}

static void on_lost(void *user, struct bop_client_lock *lock)
{
    struct bop_client_election *election = (struct bop_client_election *)user;

    bop__client_lock_drop(lock);
    election->lock = NULL;
    stand_later(election);
    if (election->options.lost) {
        election->options.lost(election->options.user, election);
    }
}

static int stand(struct bop_client_election *election)
{
    struct bop_client_lock_options options = {.name = election->options.name,
                                              .label = election->options.candidate};

    return bop_client_lock_acquire(election->client, &options, on_granted, on_lost, election,
                                   &election->lock);
}

int bop_client_election_campaign(struct bop_client *client,
                                 const struct bop_client_election_options *options,
                                 struct bop_client_election **out_election)
{
    struct bop_client_election *election;
    int rc;

    if (options->name.size > BOP_NAME_MAX || options->candidate.size > BOP_LABEL_MAX) {
        return BOP_ETOOBIG;
    }
    election = (struct bop_client_election *)bop_alloc_zeroed(client->allocator, sizeof(*election));
    if (!election) {
        return BOP_ENOMEM;
    }
    election->client = client;
    election->options = *options;
    election->options.name.data = election->name;
    election->options.candidate.data = election->candidate;
    if (options->name.size > 0) {
        memcpy(election->name, options->name.data, options->name.size);
    }
    if (options->candidate.size > 0) {
        memcpy(election->candidate, options->candidate.data, options->candidate.size);
    }
    bop_timer_init(&election->again, on_again);
    rc = stand(election);
    if (rc < 0) {
        free_election(election);
        return rc;
    }
    *out_election = election;
    return 0;
}

bool bop_client_election_leads(const struct bop_client_election *election)
{
    return election->lock && bop_client_lock_is_held(election->lock);
}

void bop_client_election_resign(struct bop_client_election *election)
{
    struct bop_client_lock *lock;

    if (!election) {
        return;
    }
    lock = election->lock;
    election->resigned = true;
    if (!lock || bop_client_lock_is_held(lock)) {
        free_election(election);
    } /* Else on_granted() does it, now or when it comes. */
    if (lock) {
        bop__client_lock_drop(lock);
    }
}

/* ---- Observing ---- */

struct bop_client_observer {
    struct bop_client *client;
    bop_client_observe_fn fn;
    void *user;
    struct bop_timer timer;
    struct bop_client_watch *watch; /* Of the lock. NULL: there is none, or not any more. */
    bool asking;
    bool changed; /* Since it was asked. */
    bool ended;
    bool told;
    uint64_t token;
    size_t name_size;
    uint8_t name[BOP_NAME_MAX];
};

static void free_observer(struct bop_client_observer *observer)
{
    bop_client_watch_close(observer->watch);
    bop_timer_stop(observer->client->loop, &observer->timer);
    bop_free(observer->client->allocator, observer, sizeof(*observer));
}

static void observe_later(struct bop_client_observer *observer)
{
    bop_timer_start(observer->client->loop, &observer->timer,
                    observer->changed ? 0
                    : observer->watch ? LOOK_MS
                                      : OBSERVE_MS);
}

/* Something became of the lock: look at it. */
static void on_news(void *user, const struct bop_client_news *news)
{
    struct bop_client_observer *observer = (struct bop_client_observer *)user;

    if (news->code != 0) {
        observer->watch = NULL;
    }
    observer->changed = true;
    if (!observer->asking && !observer->client->closing) {
        observe_later(observer);
    }
}

/* The first request of the lock, if it is granted. A grant has a token of its own, so an equal one
 * is the same. */
static void on_seen(void *user, int code, const struct bop_result *result)
{
    struct bop_client_observer *observer = (struct bop_client_observer *)user;
    struct bop_slice entries = result->entries;
    struct bop_scan_entry first = {0};
    uint64_t token = 0;

    observer->asking = false;
    if (observer->ended || code == BOP_ECANCELED) {
        if (observer->ended) {
            free_observer(observer);
        }
        return;
    }
    observe_later(observer);
    if (code != 0 && code != BOP_ENOTFOUND) {
        return;
    }
    if (code == 0 && bop_scan_next(&entries, &first) && first.value.size >= 16) {
        token = bop_load_u64(first.value.data + 8);
    }
    if (!observer->told || token != observer->token) {
        observer->told = true;
        observer->token = token;
        observer->fn(observer->user, token ? first.key : bop_slice(NULL, 0), token);
    }
}

static void on_observe(struct bop_timer *timer)
{
    struct bop_client_observer *observer = BOP_CONTAINER_OF(timer, struct bop_client_observer,
                                                            timer);
    struct bop_operation get = {
        .op = BOP_OP_LOCK_GET, .name = bop_slice(observer->name, observer->name_size), .limit = 1};

    observer->changed = false;
    observer->asking = bop_client_execute(observer->client, &get, BOP_READ_LINEARIZABLE, on_seen,
                                          observer) == 0;
    if (!observer->asking) {
        bop_timer_start(observer->client->loop, timer, OBSERVE_MS);
    }
}

int bop_client_election_observe(struct bop_client *client, struct bop_slice name,
                                bop_client_observe_fn fn, void *user,
                                struct bop_client_observer **out_observer)
{
    struct bop_client_watch_options options = {.what = BOP_WATCH_LOCK, .name = name};
    struct bop_client_observer *observer;

    if (name.size == 0 || name.size > BOP_NAME_MAX) {
        return name.size == 0 ? BOP_EINVAL : BOP_ETOOBIG;
    }
    observer = (struct bop_client_observer *)bop_alloc_zeroed(client->allocator, sizeof(*observer));
    if (!observer) {
        return BOP_ENOMEM;
    }
    observer->client = client;
    observer->fn = fn;
    observer->user = user;
    observer->name_size = name.size;
    memcpy(observer->name, name.data, name.size);
    bop_timer_init(&observer->timer, on_observe);
    if (bop_client_watch_open(client, &options, on_news, observer, &observer->watch) != 0) {
        observer->watch = NULL; /* It looks more often, then. */
    }
    bop_timer_start(client->loop, &observer->timer, 0);
    *out_observer = observer;
    return 0;
}

void bop_client_election_unobserve(struct bop_client_observer *observer)
{
    if (!observer) {
        return;
    }
    observer->ended = true;
    bop_client_watch_close(observer->watch); /* Whatever is still asked. */
    observer->watch = NULL;
    if (!observer->asking) {
        free_observer(observer);
    }
}
