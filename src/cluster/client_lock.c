/*
 * Locks of a client.
 *
 *     ASKING --granted--> HELD --lost--> LOST
 *        |                 ^ |             |
 *        | waits           | | release     | release
 *        v                 | v             v
 *     WAITING -------------+ RELEASING --> gone
 *        | release              ^
 *        +----------------------+
 *
 * A request whose outcome is not known because no answer came in time is a STRAY: it is of no
 * concern to the user any more, and is released when it is found, or ends with the session.
 *
 * What became of requests that wait is read from the cluster, page by page of what the session has
 * (a sync). The same is done now and then with what is held: what is not there any more was
 * lost. A sync is about requests that were WAITING, HELD or STRAY when it began.
 *
 * A watch of the session tells of grants and of the ends of requests as they happen; syncs are
 * for what it misses, and for clusters that know no watches. A node that has not yet heard of the
 * session denies it its watch, so it is asked again after a while.
 *
 * A sync asks a majority, so it confirms that the session is there. Signs of life are given each
 * third of the session's timeout; so the cluster does not end the session before half of the
 * timeout after a sync has passed, or its grace, if that is less. When it has, without another
 * sync, the client counts its session as over.
 */
#include "client_lock.h"

#include <bop/mem.h>

enum lock_state {
    LOCK_ASKING,
    LOCK_WAITING,
    LOCK_HELD,
    LOCK_LOST,
    LOCK_RELEASING,
    LOCK_STRAY,
};

struct bop_client_lock {
    struct bop_list link; /* Of client->locks. */
    struct bop_client *client;
    enum lock_state state;
    bool adopting;
    bool abandoned; /* ASKING: release it as soon as it is there. */
    bool syncing;   /* The sync under way is about it, */
    bool seen;      /* and has found it. */
    uint64_t asked_ms;
    uint64_t timeout_ms; /* 0: it waits for ever. */
    uint64_t wait_until_ms;
    uint64_t stray_until_ms;
    struct bop_timer later;
    uint64_t session;
    uint64_t ticket;
    uint64_t token;
    bop_client_lock_fn fn; /* NULL once it was called; likewise released. */
    bop_client_lost_fn lost;
    void *user;
    bop_client_released_fn released;
    void *released_user;
    size_t name_size;
    uint8_t name[BOP_NAME_MAX];
};

static struct bop_client_lock *lock_of(struct bop_list *link)
{
    return BOP_CONTAINER_OF(link, struct bop_client_lock, link);
}

static struct bop_slice name_of(const struct bop_client_lock *lock)
{
    return bop_slice(lock->name, lock->name_size);
}

bool bop_client_lock_is_held(const struct bop_client_lock *lock)
{
    return lock->state == LOCK_HELD;
}

uint64_t bop_client_lock_token(const struct bop_client_lock *lock)
{
    return lock->token;
}

uint64_t bop_client_lock_ticket(const struct bop_client_lock *lock)
{
    return lock->ticket;
}

/* ---- How long what was heard holds ---- */

/* When what is held counts as lost, if no sync comes to its end until then. */
static uint64_t life_ms(const struct bop_client *client)
{
    uint64_t grace_ms = client->session_grace_ms ? client->session_grace_ms : UINT64_MAX;

    return bop_max_u64(bop_min_u64(client->session.timeout_ms / 2, grace_ms),
                       CLIENT_LOCK_LIFE_MIN_MS);
}

static uint64_t life_ends_ms(const struct bop_client *client)
{
    return client->locks.confirmed_ms + life_ms(client);
}

/* What was granted may be over, and another's, when it is heard of late: the session may have ended
 * on the way. Then it waits for the next sync, which finds what there is by then. */
static bool is_alive(const struct bop_client *client)
{
    return bop_loop_now_ms(client->loop) < life_ends_ms(client);
}

/* ---- Telling the user ---- */

/* Callbacks run with client->calling set, as those of requests do. */
static bool calling_begin(struct bop_client *client)
{
    bool before = client->calling;

    client->calling = true;
    return before;
}

/* fn is called once. */
static void tell_granted(struct bop_client_lock *lock, int code)
{
    bop_client_lock_fn fn = lock->fn;
    bool before = calling_begin(lock->client);
    struct bop_client *client = lock->client;

    lock->fn = NULL;
    if (fn) {
        fn(lock->user, lock, code); /* With 0 the lock may be gone afterwards. */
    }
    client->calling = before;
}

static void tell_released(struct bop_client_lock *lock, int code)
{
    bop_client_released_fn released = lock->released;
    bool before = calling_begin(lock->client);

    lock->released = NULL;
    if (released) {
        released(lock->released_user, code);
    }
    lock->client->calling = before;
}

static void tell_lost(struct bop_client_lock *lock)
{
    struct bop_client *client = lock->client;
    bool before = calling_begin(client);

    lock->state = LOCK_LOST;
    if (lock->lost) {
        lock->lost(lock->user, lock); /* Which may release it. */
    }
    client->calling = before;
}

static void free_lock(struct bop_client_lock *lock)
{
    bop_timer_stop(lock->client->loop, &lock->later);
    bop_list_remove(&lock->link);
    bop_free(lock->client->allocator, lock, sizeof(*lock));
}

/* It was not granted. If its release was asked for, that is done. */
static void end_in_vain(struct bop_client_lock *lock, int code)
{
    tell_granted(lock, lock->abandoned ? BOP_ECANCELED : code);
    tell_released(lock, 0);
    free_lock(lock);
}

static void end_released(struct bop_client_lock *lock, int code)
{
    tell_granted(lock, BOP_ECANCELED);
    tell_released(lock, code);
    free_lock(lock);
}

static void schedule(struct bop_client *client);
static void watch_begin(struct bop_client *client);

static void become_stray(struct bop_client_lock *lock, int code)
{
    lock->state = LOCK_STRAY;
    lock->stray_until_ms = bop_loop_now_ms(lock->client->loop) + CLIENT_LOCK_STRAY_MS;
    tell_granted(lock, lock->abandoned ? BOP_ECANCELED : code);
    tell_released(lock, code);
    schedule(lock->client);
}

/* ---- Releasing ---- */

static void on_released(void *user, int code, const struct bop_result *result)
{
    struct bop_client_lock *lock = (struct bop_client_lock *)user;

    (void)result;
    if (bop__client_may_be_done(code) && lock->session == lock->client->session.id) {
        become_stray(lock, code);
        return;
    }
    /* Its session is over, or another one has adopted it: it is ours no more. */
    end_released(lock, code == BOP_ESESSION || code == BOP_ENOTFOUND ? 0 : code);
}

/* 0 or a code of bop_client_execute(). */
static int send_release(struct bop_client_lock *lock)
{
    struct bop_operation operation = {
        .op = BOP_OP_LOCK_RELEASE, .name = name_of(lock), .sequence = lock->ticket};
    int rc = bop_client_execute(lock->client, &operation, BOP_READ_LINEARIZABLE, on_released, lock);

    if (rc == 0) {
        lock->state = LOCK_RELEASING;
        lock->syncing = false;
    }
    return rc;
}

/* The end of one that was lost is told from the loop, like any other. */
static void on_later(struct bop_timer *timer)
{
    end_released(BOP_CONTAINER_OF(timer, struct bop_client_lock, later), 0);
}

int bop_client_lock_release(struct bop_client_lock *lock, bop_client_released_fn fn, void *user)
{
    int rc = 0;

    BOP_ASSERT(lock->state <= LOCK_LOST && !lock->abandoned);
    switch (lock->state) {
    case LOCK_ASKING:
        lock->abandoned = true;
        break;
    case LOCK_LOST:
        lock->state = LOCK_RELEASING;
        bop_timer_start(lock->client->loop, &lock->later, 0);
        break;
    default:
        rc = send_release(lock);
    }
    if (rc == 0) {
        lock->released = fn;
        lock->released_user = user;
    }
    return rc;
}

void bop__client_lock_drop(struct bop_client_lock *lock)
{
    if (bop_client_lock_release(lock, NULL, NULL) < 0) {
        become_stray(lock, BOP_ECANCELED);
    }
}

/* ---- Asking ---- */

static void abandon(struct bop_client_lock *lock)
{
    int rc = send_release(lock);

    if (rc < 0) {
        become_stray(lock, rc);
    }
}

/* From then on nobody can be expected to say what came of a request that waits. */
static uint64_t wait_ends_ms(const struct bop_client_lock *lock)
{
    uint64_t answer_ms = lock->client->request_timeout_ms, end_ms;

    return lock->timeout_ms == 0 || __builtin_add_overflow(lock->timeout_ms, answer_ms, &end_ms) ||
                   __builtin_add_overflow(end_ms, bop_loop_now_ms(lock->client->loop), &end_ms)
               ? UINT64_MAX
               : end_ms;
}

static void on_answer(void *user, int code, const struct bop_result *result)
{
    struct bop_client_lock *lock = (struct bop_client_lock *)user;
    struct bop_client *client = lock->client;

    lock->session = client->session.id;
    if (bop__client_may_be_done(code) && lock->session != 0) {
        become_stray(lock, code);
        return;
    }
    if (code != 0 || result->ticket == 0) {
        end_in_vain(lock, code ? code : lock->adopting ? BOP_ENOTFOUND : BOP_ETIMEOUT);
        return;
    }
    client->locks.confirmed_ms = bop_max_u64(client->locks.confirmed_ms, lock->asked_ms);
    lock->ticket = result->ticket;
    lock->token = result->token;
    lock->state = lock->token && is_alive(client) ? LOCK_HELD : LOCK_WAITING;
    lock->wait_until_ms = wait_ends_ms(lock);
    watch_begin(client);
    client->locks.poll_ms = CLIENT_LOCK_POLL_MIN_MS;
    if (lock->abandoned) {
        abandon(lock);
    } else if (lock->state == LOCK_HELD) {
        tell_granted(lock, 0);
    }
    schedule(client);
}

static int ask(struct bop_client *client, const struct bop_operation *operation,
               uint64_t timeout_ms, bop_client_lock_fn fn, bop_client_lost_fn lost, void *user,
               struct bop_client_lock **out_lock)
{
    struct bop_client_lock *lock;
    int rc;

    if (operation->name.size == 0) {
        return BOP_EINVAL;
    }
    if (operation->name.size > BOP_NAME_MAX) {
        return BOP_ETOOBIG;
    }
    lock = (struct bop_client_lock *)bop_alloc_zeroed(client->allocator, sizeof(*lock));
    if (!lock) {
        return BOP_ENOMEM;
    }
    lock->client = client;
    lock->asked_ms = bop_loop_now_ms(client->loop);
    lock->timeout_ms = timeout_ms;
    lock->adopting = operation->op == BOP_OP_LOCK_ADOPT;
    lock->fn = fn;
    lock->lost = lost;
    lock->user = user;
    lock->name_size = operation->name.size;
    memcpy(lock->name, operation->name.data, operation->name.size);
    bop_timer_init(&lock->later, on_later);
    rc = bop_client_execute(client, operation, BOP_READ_LINEARIZABLE, on_answer, lock);
    if (rc < 0) {
        bop_free(client->allocator, lock, sizeof(*lock));
        return rc;
    }
    bop_list_push_back(&client->locks.list, &lock->link);
    *out_lock = lock;
    return 0;
}

int bop_client_lock_acquire(struct bop_client *client,
                            const struct bop_client_lock_options *options, bop_client_lock_fn fn,
                            bop_client_lost_fn lost, void *user, struct bop_client_lock **out_lock)
{
    struct bop_operation operation = {
        .op = BOP_OP_LOCK_ACQUIRE,
        .name = options->name,
        .label = options->label,
        .capacity = options->capacity ? options->capacity : 1,
        .permits = options->permits ? options->permits : 1,
        .ttl_ms = options->try_only          ? 0
                  : options->timeout_ms != 0 ? options->timeout_ms
                                             : BOP_LOCK_TIMEOUT_NEVER,
    };

    return ask(client, &operation, options->timeout_ms, fn, lost, user, out_lock);
}

int bop_client_lock_adopt(struct bop_client *client, struct bop_slice name, struct bop_slice label,
                          bop_client_lock_fn fn, bop_client_lost_fn lost, void *user,
                          struct bop_client_lock **out_lock)
{
    struct bop_operation operation = {.op = BOP_OP_LOCK_ADOPT, .name = name, .label = label};

    return label.size == 0 ? BOP_EINVAL : ask(client, &operation, 0, fn, lost, user, out_lock);
}

/* ---- Syncs ---- */

/* Move those that pick chooses to a list of their own: callbacks change the client's. */
static void take(struct bop_client *client, bool (*pick)(const struct bop_client_lock *lock),
                 struct bop_list *out_taken)
{
    struct bop_list *link = client->locks.list.next;

    bop_list_init(out_taken);
    while (link != &client->locks.list) {
        struct bop_list *next = link->next;

        if (pick(lock_of(link))) {
            bop_list_remove(link);
            bop_list_push_back(out_taken, link);
        }
        link = next;
    }
}

/* The first of what was taken, back on the client's list; NULL when none is left. */
static struct bop_client_lock *take_next(struct bop_client *client, struct bop_list *taken)
{
    struct bop_client_lock *lock;

    if (bop_list_empty(taken)) {
        return NULL;
    }
    lock = lock_of(taken->next);
    bop_list_remove(&lock->link);
    bop_list_push_back(&client->locks.list, &lock->link);
    return lock;
}

static bool is_syncing(const struct bop_client_lock *lock)
{
    return lock->syncing;
}

static void settle_stray(struct bop_client_lock *lock)
{
    bool over = bop_loop_now_ms(lock->client->loop) >= lock->stray_until_ms;

    if (lock->seen) {
        BOP_IGNORE(send_release(lock)); /* Else the next sync finds it again. */
    } else if (lock->ticket != 0 || over) {
        free_lock(lock);
    }
}

/* What the sync has come to for this one. */
static void settle(struct bop_client_lock *lock)
{
    lock->syncing = false;
    switch (lock->state) {
    case LOCK_WAITING:
        if (!lock->seen) {
            end_in_vain(lock, BOP_ETIMEOUT);
        } else if (lock->token != 0 && is_alive(lock->client)) {
            lock->state = LOCK_HELD;
            tell_granted(lock, 0);
        }
        break;
    case LOCK_HELD:
        if (!lock->seen) {
            tell_lost(lock);
        }
        break;
    case LOCK_STRAY:
        settle_stray(lock);
        break;
    default:
        break;
    }
}

static void settle_all(struct bop_client *client)
{
    struct bop_client_lock *lock;
    struct bop_list taken;

    take(client, is_syncing, &taken);
    while ((lock = take_next(client, &taken))) {
        settle(lock);
    }
}

static void forget_sync(struct bop_client *client)
{
    client->locks.sync_session = 0;
    BOP_LIST_FOR_EACH(link, &client->locks.list) {
        lock_of(link)->syncing = false;
    }
}

/* A stray without a ticket takes one of its name that nobody knows, unless somebody may yet. */
static void match_stray(struct bop_client *client, const struct bop_scan_entry *entry)
{
    struct bop_client_lock *stray = NULL;

    BOP_LIST_FOR_EACH(link, &client->locks.list) {
        struct bop_client_lock *lock = lock_of(link);

        if (!bop_slice_equal(name_of(lock), entry->key)) {
            continue;
        }
        if (lock->state == LOCK_ASKING) {
            return;
        }
        if (lock->state == LOCK_STRAY && lock->ticket == 0 && lock->syncing) {
            stray = lock;
        }
    }
    if (stray) {
        stray->ticket = entry->version;
        stray->seen = true;
    }
}

static void match(struct bop_client *client, const struct bop_scan_entry *entry)
{
    BOP_LIST_FOR_EACH(link, &client->locks.list) {
        struct bop_client_lock *lock = lock_of(link);

        if (lock->ticket == entry->version && bop_slice_equal(name_of(lock), entry->key)) {
            lock->seen = true;
            if (lock->state == LOCK_WAITING && lock->syncing && entry->value.size >= 8) {
                lock->token = bop_load_u64(entry->value.data);
            }
            return;
        }
    }
    match_stray(client, entry);
}

static void ask_page(struct bop_client *client, struct bop_slice cursor);

static void on_page(void *user, int code, const struct bop_result *result)
{
    struct bop_client *client = (struct bop_client *)user;
    struct bop_scan_entry entry;
    struct bop_slice entries = result->entries;

    if (client->closing) {
        return;
    }
    if (code != 0 || client->locks.sync_session != client->session.id) {
        forget_sync(client);
    } else {
        while (bop_scan_next(&entries, &entry)) {
            match(client, &entry);
        }
        if (result->cursor.size > 0) {
            ask_page(client, result->cursor);
            return;
        }
        client->locks.sync_session = 0;
        client->locks.confirmed_ms = client->locks.sync_ms;
        settle_all(client);
    }
    schedule(client);
}

static void ask_page(struct bop_client *client, struct bop_slice cursor)
{
    struct bop_operation operation = {.op = BOP_OP_LOCK_OWNED,
                                      .session = client->session.id,
                                      .cursor = cursor,
                                      .limit = CLIENT_LOCK_PAGE};

    if (bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, on_page, client) != 0) {
        forget_sync(client); /* The timer begins another one. */
    }
}

static void sync_begin(struct bop_client *client)
{
    if (client->locks.sync_session != 0 || client->session.id == 0) {
        return;
    }
    client->locks.sync_session = client->session.id;
    client->locks.sync_ms = bop_loop_now_ms(client->loop);
    BOP_LIST_FOR_EACH(link, &client->locks.list) {
        struct bop_client_lock *lock = lock_of(link);

        lock->syncing = lock->state == LOCK_WAITING || lock->state == LOCK_HELD ||
                        lock->state == LOCK_STRAY;
        lock->seen = false;
    }
    ask_page(client, bop_slice(NULL, 0));
}

/* ---- The watch ---- */

static struct bop_client_lock *find(struct bop_client *client, const struct bop_event *event)
{
    BOP_LIST_FOR_EACH(link, &client->locks.list) {
        struct bop_client_lock *lock = lock_of(link);

        if (lock->ticket == (uint64_t)event->number &&
            bop_slice_equal(name_of(lock), event->name)) {
            return lock;
        }
    }
    return NULL;
}

static void on_event(struct bop_client *client, const struct bop_event *event)
{
    struct bop_client_lock *lock = find(client, event);

    if (!lock) {
        return;
    }
    if (event->type == BOP_EVENT_LOCK_GRANT && lock->state == LOCK_WAITING) {
        if (is_alive(client)) {
            lock->token = event->token;
            lock->state = LOCK_HELD;
            lock->syncing = false;
            tell_granted(lock, 0);
        }
    } else if (event->type == BOP_EVENT_LOCK_CANCEL && lock->state == LOCK_WAITING) {
        end_in_vain(lock, BOP_ETIMEOUT);
    } else if (event->type == BOP_EVENT_LOCK_RELEASE && lock->state == LOCK_HELD) {
        lock->syncing = false;
        tell_lost(lock); /* Somebody has adopted it. */
    }
}

static void on_news(void *user, const struct bop_client_news *news)
{
    struct bop_client *client = (struct bop_client *)user;
    struct bop_slice left = news->events;
    struct bop_event event;

    if (news->code != 0) {
        client->locks.watch = NULL;
        if (news->code == BOP_EDENIED) {
            client->locks.watch_again_ms = bop_loop_now_ms(client->loop) + CLIENT_LOCK_WATCH_MS;
            schedule(client);
        }
        return;
    }
    /* The session may be lost meanwhile, by what a callback does; then nothing is found any more.
     */
    while (bop_event_next(&left, &event) == 1) {
        on_event(client, &event);
    }
    if (news->flags & BOP_WATCH_EVENTS_RESYNC) {
        client->locks.poll_ms = CLIENT_LOCK_POLL_MIN_MS; /* Something was missed. */
    }
    schedule(client);
}

static void watch_end(struct bop_client *client)
{
    bop_client_watch_close(client->locks.watch);
    client->locks.watch = NULL;
}

static void watch_open(struct bop_client *client)
{
    uint8_t id[8];
    struct bop_slice key = bop_slice(id, sizeof(id));
    struct bop_client_watch_options options = {.what = BOP_WATCH_SESSION, .key = &key};

    bop_store_u64(id, __builtin_bswap64(client->session.id));
    client->locks.watched = client->session.id;
    client->locks.watch_again_ms = 0;
    if (bop_client_watch_open(client, &options, on_news, client, &client->locks.watch) != 0) {
        client->locks.watch = NULL;
    }
}

/* Once a session: where there are no watches, syncs do. */
static void watch_begin(struct bop_client *client)
{
    if (client->session.id == 0 || client->locks.watched == client->session.id) {
        return;
    }
    watch_end(client);
    watch_open(client);
}

static bool is_to_watch_again(const struct bop_client *client)
{
    return client->locks.watch_again_ms != 0 && client->locks.watched == client->session.id;
}

/* The token once more: what the node made of it when it was shown may be why it denied. */
static void watch_again(struct bop_client *client)
{
    bop__client_session_resume(client);
    watch_open(client);
    client->locks.poll_ms = CLIENT_LOCK_POLL_MIN_MS; /* For what came meanwhile. */
}

/* ---- The timer ---- */

static bool any(const struct bop_client *client, enum lock_state a, enum lock_state b)
{
    BOP_LIST_FOR_EACH(link, &client->locks.list) {
        if (lock_of(link)->state == a || lock_of(link)->state == b) {
            return true;
        }
    }
    return false;
}

static uint64_t next_sync_ms(const struct bop_client *client)
{
    return client->locks.sync_ms + life_ms(client) / CLIENT_LOCK_SYNCS;
}

/* The watch says most of it, so less is asked. */
static uint64_t poll_max_ms(const struct bop_client *client)
{
    return client->locks.watch
               ? bop_max_u64(life_ms(client) / CLIENT_LOCK_SYNCS, CLIENT_LOCK_POLL_MAX_MS)
               : CLIENT_LOCK_POLL_MAX_MS;
}

static bool holds(const struct bop_client *client)
{
    return any(client, LOCK_HELD, LOCK_HELD);
}

static void schedule(struct bop_client *client)
{
    uint64_t now_ms = bop_loop_now_ms(client->loop), delay_ms = UINT64_MAX;

    if (any(client, LOCK_WAITING, LOCK_STRAY)) {
        delay_ms = client->locks.poll_ms;
    } else if (holds(client)) {
        uint64_t due_ms = bop_min_u64(life_ends_ms(client), next_sync_ms(client));

        /* One under way may take its time. */
        delay_ms = due_ms > now_ms ? due_ms - now_ms : CLIENT_LOCK_POLL_MIN_MS;
    }
    if (delay_ms != UINT64_MAX && is_to_watch_again(client)) {
        uint64_t again_ms = client->locks.watch_again_ms;

        delay_ms = bop_min_u64(delay_ms, again_ms > now_ms ? again_ms - now_ms : 0);
    }
    if (delay_ms == UINT64_MAX || client->closing) {
        bop_timer_stop(client->loop, &client->locks.timer);
    } else if (!bop_timer_is_running(&client->locks.timer) ||
               client->locks.timer.due_ms > now_ms + delay_ms) {
        bop_timer_start(client->loop, &client->locks.timer, delay_ms);
    }
}

static bool has_waited(const struct bop_client_lock *lock)
{
    return lock->state == LOCK_WAITING &&
           bop_loop_now_ms(lock->client->loop) >= lock->wait_until_ms;
}

/* Nobody answers: who waits hears that the time is over. What the cluster makes of the request is
 * given back once it answers again. */
static void give_up_waiting(struct bop_client *client)
{
    struct bop_client_lock *lock;
    struct bop_list taken;

    take(client, has_waited, &taken);
    while ((lock = take_next(client, &taken))) {
        become_stray(lock, BOP_ETIMEOUT);
    }
}

static void on_timer(struct bop_timer *timer)
{
    struct bop_client *client = BOP_CONTAINER_OF(timer, struct bop_client, locks.timer);
    uint64_t now_ms = bop_loop_now_ms(client->loop);

    give_up_waiting(client);
    if (is_to_watch_again(client) && now_ms >= client->locks.watch_again_ms) {
        watch_again(client);
    }
    if (holds(client) && now_ms >= life_ends_ms(client)) {
        bop__client_session_lost(client);
    } else if (any(client, LOCK_WAITING, LOCK_STRAY)) {
        client->locks.poll_ms = bop_min_u64(client->locks.poll_ms * 2, poll_max_ms(client));
        sync_begin(client);
    } else if (holds(client) && now_ms >= next_sync_ms(client)) {
        sync_begin(client);
    }
    schedule(client);
}

/* ---- Of the client ---- */

void bop__client_locks_init(struct bop_client *client)
{
    bop_list_init(&client->locks.list);
    bop_list_init(&client->locks.barriers);
    bop_timer_init(&client->locks.timer, on_timer);
    client->locks.poll_ms = CLIENT_LOCK_POLL_MIN_MS;
}

/* Requests that are under way end by themselves. */
static bool is_at_rest(const struct bop_client_lock *lock)
{
    return lock->state == LOCK_WAITING || lock->state == LOCK_HELD || lock->state == LOCK_STRAY;
}

void bop__client_locks_lost(struct bop_client *client)
{
    struct bop_client_lock *lock;
    struct bop_list taken;

    forget_sync(client);
    watch_end(client);
    take(client, is_at_rest, &taken);
    while ((lock = take_next(client, &taken))) {
        if (lock->state == LOCK_HELD) {
            tell_lost(lock);
        } else {
            end_in_vain(lock, BOP_ESESSION);
        }
    }
    schedule(client);
}

void bop__client_locks_close(struct bop_client *client)
{
    while (!bop_list_empty(&client->locks.list)) {
        struct bop_client_lock *lock = lock_of(client->locks.list.next);

        lock->lost = NULL;
        end_in_vain(lock, BOP_ECANCELED);
    }
    watch_end(client);
    bop__client_barriers_close(client);
    bop_timer_stop(client->loop, &client->locks.timer);
}
