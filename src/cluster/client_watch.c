/*
 * Watches that outlive their connections. On each new one they are opened again, after
 * the last revision they were told:
 *
 *     WAITING --opened--> ASKED --OK--> OPEN --the connection breaks, or RESYNC--> WAITING
 *
 * Which revision that is: an event's own; and for a watch that is live (its past is told)
 * what any other live one of the connection shows, because a server tells a connection
 * in the order of revisions: an event of revision r says that all below r is told to
 * all, a progress mark that r is, too.
 *
 * An id on the wire is a slot and a count of openings, so that what a former opening
 * is still told finds nobody.
 */
#include "client_internal.h"

#include <bop/mem.h>

#define SLOT_BITS  20
#define SLOTS_MAX  (1u << SLOT_BITS)
#define SLOTS_MIN  16
#define ROUNDS_MAX (1u << (32 - SLOT_BITS))
#define PAUSE_MS   50 /* After BUSY and the like. */

enum watch_state {
    WATCH_WAITING,
    WATCH_ASKED,
    WATCH_OPEN,
};

struct bop_client_watch {
    struct bop_client *client;
    struct bop_list link;    /* Of all. */
    struct bop_list waiting; /* WAITING */
    bop_client_watch_fn fn;
    void *user;
    struct bop_buf request; /* As opened by the caller. */
    uint64_t last;          /* Told up to here; 0: not begun. */
    uint64_t part;          /* The entry of which a part was told... */
    uint64_t part_told;     /* ...and how many events of it. */
    uint64_t part_seen;     /* As far as it came on this connection. */
    uint32_t id;
    uint8_t flags;
    uint8_t state;
    bool live;
    bool fresh; /* A snapshot is wanted before anything else. */
    bool asked_fresh;
    bool began_fresh; /* Pages of one were told, and not its end... */
    bool paged;       /* ...on this connection. */
};

static struct bop_client_watch *watch_of(struct bop_list *link)
{
    return BOP_CONTAINER_OF(link, struct bop_client_watch, link);
}

/* ---- Slots ---- */

static struct bop_client_watch *find(const struct bop_client *client, uint32_t id)
{
    size_t slot = id & (SLOTS_MAX - 1);
    struct bop_client_watch *watch = slot < client->watches.capacity ? client->watches.slots[slot]
                                                                     : NULL;

    return watch && watch->id == id && watch->state != WATCH_WAITING ? watch : NULL;
}

static int grow(struct bop_client *client)
{
    struct client_watches *watches = &client->watches;
    size_t capacity = watches->capacity ? watches->capacity * 2 : SLOTS_MIN;
    struct bop_client_watch **slots;

    if (capacity > SLOTS_MAX) {
        return BOP_EFULL;
    }
    slots = (struct bop_client_watch **)bop_alloc_zeroed(client->allocator,
                                                         capacity * sizeof(*slots));
    if (!slots) {
        return BOP_ENOMEM;
    }
    if (watches->slots) {
        memcpy(slots, watches->slots, watches->capacity * sizeof(*slots));
        bop_free(client->allocator, watches->slots, watches->capacity * sizeof(*slots));
    }
    watches->slots = slots;
    watches->capacity = capacity;
    return 0;
}

/* Slot 0 stays free: no id is 0. */
static int take_slot(struct bop_client *client, struct bop_client_watch *watch)
{
    struct client_watches *watches = &client->watches;
    int rc = watches->count + 1 >= watches->capacity ? grow(client) : 0;

    if (rc < 0) {
        return rc;
    }
    watches->next_slot = bop_max_u64(watches->next_slot, 1);
    while (watches->slots[watches->next_slot]) {
        watches->next_slot++;
    }
    watches->slots[watches->next_slot] = watch;
    watch->id = (uint32_t)watches->next_slot;
    watches->count++;
    return 0;
}

static void free_watch(struct bop_client_watch *watch)
{
    struct bop_client *client = watch->client;
    size_t slot = watch->id & (SLOTS_MAX - 1);

    client->watches.slots[slot] = NULL;
    client->watches.next_slot = bop_min_u64(client->watches.next_slot, slot);
    client->watches.count--;
    client->watches.acknowledging -= (watch->flags & BOP_WATCH_ACKNOWLEDGE) != 0;
    if (client->watches.walk == &watch->link) {
        client->watches.walk = watch->link.next;
    }
    bop_list_remove(&watch->waiting);
    bop_list_remove(&watch->link);
    bop_buf_deinit(&watch->request);
    bop_free(client->allocator, watch, sizeof(*watch));
}

/* ---- Telling ---- */

/* False if the callback closed it. */
static bool tell(struct bop_client_watch *watch, const struct bop_client_news *news)
{
    struct bop_client *client = watch->client;
    bool closed;

    BOP_ASSERT(!client->calling);
    client->calling = true;
    client->watches.calling = watch;
    client->watches.called_closed = false;
    watch->fn(watch->user, news);
    closed = client->watches.called_closed;
    client->watches.calling = NULL;
    client->calling = false;
    if (closed) {
        free_watch(watch);
    }
    return !closed;
}

static void end(struct bop_client_watch *watch, int code)
{
    struct bop_client_news news = {.code = code, .revision = watch->last};

    if (tell(watch, &news)) {
        free_watch(watch);
    }
}

/* The server does not say why: rights are the only reason. */
static void end_denied(struct bop_client_watch *watch, const char *why)
{
    bop__client_denied(watch->client, bop_slice_cstr(watch->client->token ? why : ""));
    end(watch, BOP_EDENIED);
}

/* ---- Opening ---- */

static void wait_to_open(struct bop_client_watch *watch)
{
    watch->state = WATCH_WAITING;
    watch->live = false;
    watch->part_seen = 0;
    watch->paged = false;
    bop_list_remove(&watch->waiting);
    bop_list_push_back(&watch->client->watches.waiting, &watch->waiting);
}

static void encode_open(struct bop_client_watch *watch, struct bop_writer *writer)
{
    struct bop_watch_open_request message;
    int rc = bop_watch_open_request_decode(bop_buf_slice(&watch->request), &message);

    BOP_ASSERT(rc == 0); /* It was tried when it was made. */
    watch->asked_fresh = watch->fresh;
    if (!watch->fresh) {
        message.flags = (uint8_t)(message.flags & ~BOP_WATCH_SNAPSHOT);
        message.revision = watch->last;
    }
    bop_watch_open_request_encode(writer, &message);
}

/* False if there is no room now. */
static bool send_open(struct bop_client_watch *watch)
{
    struct bop_client *client = watch->client;
    uint32_t slot = watch->id & (SLOTS_MAX - 1);
    uint32_t round = ((watch->id >> SLOT_BITS) + 1) % ROUNDS_MAX;
    struct bop_writer writer;
    struct bop_buf *buf;
    size_t at;

    buf = bop__client_frame_begin(client, &at);
    if (!buf) {
        return false;
    }
    writer = bop_writer(buf);
    encode_open(watch, &writer);
    if (!bop__client_frame_end(client, buf, at, BOP_WIRE_KIND_WATCH_OPEN_REQUEST,
                               round << SLOT_BITS | slot, writer.code)) {
        return false;
    }
    watch->id = round << SLOT_BITS | slot;
    watch->state = WATCH_ASKED;
    bop_list_remove(&watch->waiting);
    return true;
}

void bop__client_watches_flush(struct bop_client *client)
{
    struct client_watches *watches = &client->watches;

    if (!bop__client_ready(client) || bop_timer_is_running(&watches->pause)) {
        return;
    }
    while (!bop_list_empty(&watches->waiting) &&
           send_open(BOP_CONTAINER_OF(watches->waiting.next, struct bop_client_watch, waiting))) {
    }
}

static void on_pause_over(struct bop_timer *timer)
{
    bop__client_watches_flush(BOP_CONTAINER_OF(timer, struct bop_client, watches.pause));
}

void bop__client_watches_init(struct bop_client *client)
{
    bop_list_init(&client->watches.all);
    bop_list_init(&client->watches.waiting);
    bop_timer_init(&client->watches.pause, on_pause_over);
}

void bop__client_watches_unlinked(struct bop_client *client)
{
    struct client_watches *watches = &client->watches;

    BOP_LIST_FOR_EACH(link, &watches->all) {
        struct bop_client_watch *watch = watch_of(link);

        if (watch->state == WATCH_WAITING) {
            continue;
        }
        if (watch->live && watches->told > watch->last) {
            watch->last = watches->told;
        }
        wait_to_open(watch);
    }
    watches->told = 0;
}

void bop__client_watches_close(struct bop_client *client)
{
    struct client_watches *watches = &client->watches;

    bop_timer_stop(client->loop, &watches->pause);
    while (!bop_list_empty(&watches->all)) {
        end(watch_of(watches->all.next), BOP_ECANCELED);
    }
    if (watches->slots) {
        bop_free(client->allocator, watches->slots, watches->capacity * sizeof(*watches->slots));
        watches->slots = NULL;
        watches->capacity = 0;
    }
}

/* ---- Answers ---- */

/* What was missed is gone: begin anew, with a snapshot or from now on. */
static void resync(struct bop_client_watch *watch, uint64_t revision, bool open_again)
{
    struct bop_client_news news = {.revision = revision, .flags = BOP_WATCH_EVENTS_RESYNC};

    watch->last = 0;
    watch->part = 0;
    watch->live = false;
    watch->began_fresh = false;
    watch->fresh = (watch->flags & BOP_WATCH_SNAPSHOT) != 0;
    if (open_again) {
        wait_to_open(watch);
    }
    if (tell(watch, &news) && open_again) {
        bop__client_watches_flush(watch->client);
    }
}

static int on_opened(struct bop_client *client, const struct bop_wire_frame *frame)
{
    struct bop_client_watch *watch = find(client, frame->request);
    struct bop_watch_open_response message;

    if (bop_watch_open_response_decode(frame->payload, &message) < 0) {
        return BOP_EPROTOCOL;
    }
    if (!watch) {
        return 0; /* It was closed meanwhile, and that was sent after it. */
    }
    if (watch->state != WATCH_ASKED) {
        return BOP_EPROTOCOL;
    }
    switch (message.status) {
    case BOP_STATUS_OK:
        watch->state = WATCH_OPEN;
        if (!watch->asked_fresh && watch->last == 0) {
            watch->last = message.revision;
            watch->live = true;
        }
        return 0;
    case BOP_STATUS_COMPACTED:
        resync(watch, message.revision, true);
        return 0;
    case BOP_STATUS_RETRY:
    case BOP_STATUS_BUSY:
        wait_to_open(watch);
        BOP_IGNORE(bop_timer_start(client->loop, &client->watches.pause, PAUSE_MS));
        return 0;
    case BOP_STATUS_DENIED:
        end_denied(watch, "the token may not watch this");
        return 0;
    default:
        end(watch, bop_status_code(message.status));
        return 0;
    }
}

/* Everything up to here was told, and all callbacks have returned. */
static void acknowledge(struct bop_client *client, uint64_t revision)
{
    struct bop_watch_ack message = {.revision = revision};
    struct bop_writer writer;
    struct bop_buf *buf;
    size_t at;

    if (client->watches.acknowledging == 0 || !bop__client_ready(client)) {
        return;
    }
    buf = bop__client_frame_begin(client, &at);
    if (buf) {
        writer = bop_writer(buf);
        bop_watch_ack_encode(&writer, &message);
        /* What cannot be sent makes somebody wait until his time is over. */
        BOP_IGNORE(bop__client_frame_end(client, buf, at, BOP_WIRE_KIND_WATCH_ACK, 0, writer.code));
    }
}

static void on_mark(struct bop_client *client, uint64_t revision)
{
    struct bop_client_news news = {.revision = revision, .flags = BOP_WATCH_EVENTS_PROGRESS};

    client->watches.told = bop_max_u64(client->watches.told, revision);
    client->watches.walk = client->watches.all.next;
    while (client->watches.walk != &client->watches.all) {
        struct bop_client_watch *watch = watch_of(client->watches.walk);

        client->watches.walk = watch->link.next; /* Moves on if that one is closed meanwhile. */
        if (watch->live && watch->flags & BOP_WATCH_PROGRESS) {
            watch->last = bop_max_u64(watch->last, revision);
            tell(watch, &news);
        }
    }
    client->watches.walk = NULL;
    acknowledge(client, revision);
}

/* Take off what was told before a connection broke. */
static void take_told(struct bop_client_watch *watch, struct bop_client_news *news)
{
    struct bop_slice rest = news->events;
    struct bop_event event;

    if (watch->part != news->revision) {
        watch->part = news->revision;
        watch->part_told = 0;
        watch->part_seen = 0;
    }
    while (bop_event_next(&rest, &event) > 0) {
        if (++watch->part_seen > watch->part_told) {
            watch->part_told = watch->part_seen;
        } else {
            news->events = rest;
        }
    }
}

/* Events of an entry. */
static void on_entry(struct bop_client_watch *watch, struct bop_client_news *news)
{
    struct client_watches *watches = &watch->client->watches;

    if (news->revision <= watch->last) {
        return;
    }
    take_told(watch, news);
    if (!(news->flags & BOP_WATCH_EVENTS_MORE)) {
        watch->last = news->revision;
        if (watch->live) {
            watches->told = bop_max_u64(watches->told, news->revision - 1);
        }
    }
    if (news->events.size > 0) {
        tell(watch, news);
    }
}

/* A page of a snapshot. One that a connection broke is begun anew, and what was told of it counts
 * no more. */
static void on_page(struct bop_client_watch *watch, struct bop_client_news *news)
{
    struct bop_client_news again = {.revision = news->revision, .flags = BOP_WATCH_EVENTS_RESYNC};
    bool more = (news->flags & BOP_WATCH_EVENTS_MORE) != 0;
    bool anew = watch->began_fresh && !watch->paged;

    watch->paged = true;
    watch->began_fresh = more;
    if (!more) {
        watch->last = news->revision;
        watch->fresh = false;
        watch->paged = false;
    }
    if (!anew || tell(watch, &again)) {
        tell(watch, news);
    }
}

static int on_events(struct bop_client *client, const struct bop_wire_frame *frame)
{
    struct bop_client_watch *watch = find(client, frame->request);
    struct bop_watch_events message;
    struct bop_client_news news = {0};

    if (bop_watch_events_decode(frame->payload, &message) < 0) {
        return BOP_EPROTOCOL;
    }
    if (message.flags & BOP_WATCH_EVENTS_PROGRESS) {
        on_mark(client, message.revision);
        return 0;
    }
    if (!watch) {
        return 0;
    }
    if (watch->state != WATCH_OPEN) {
        return BOP_EPROTOCOL;
    }
    news.revision = message.revision;
    news.flags = message.flags;
    news.events = message.events;
    if (message.flags & BOP_WATCH_EVENTS_DENIED) {
        end_denied(watch, "the token may not watch this any more");
    } else if (message.flags & BOP_WATCH_EVENTS_RESYNC) {
        resync(watch, message.revision, !watch->asked_fresh);
    } else if (message.flags & BOP_WATCH_EVENTS_LIVE) {
        watch->live = true;
        watch->last = bop_max_u64(watch->last, message.revision);
        tell(watch, &news);
    } else if (message.flags & BOP_WATCH_EVENTS_SNAPSHOT) {
        on_page(watch, &news);
    } else {
        on_entry(watch, &news);
    }
    return 0;
}

int bop__client_watch_answer(struct bop_client *client, const struct bop_wire_frame *frame)
{
    switch (frame->kind) {
    case BOP_WIRE_KIND_WATCH_OPEN_RESPONSE:
        return on_opened(client, frame);
    case BOP_WIRE_KIND_WATCH_EVENTS:
        return on_events(client, frame);
    case BOP_WIRE_KIND_WATCH_CLOSE_RESPONSE:
        return 0; /* Whether it was still there is the same to us. */
    default:
        return BOP_EPROTOCOL;
    }
}

/* ---- The caller's ---- */

static int encode_request(struct bop_client_watch *watch,
                          const struct bop_client_watch_options *options)
{
    struct bop_watch_open_request message = {
        .what = (uint8_t)options->what,
        .name = options->name,
        .prefix = options->prefix,
        .from = options->from,
        .to = options->to,
        .flags = options->flags,
        .revision = options->revision,
    };
    struct bop_writer writer = bop_writer(&watch->request);
    struct bop_buf end_key;
    int rc = 0;

    bop_buf_init(&end_key, watch->client->allocator, 0);
    if (options->key) {
        static const uint8_t zero = 0;

        rc = bop_buf_append(&end_key, options->key->data, options->key->size);
        if (rc == 0) {
            rc = bop_buf_append(&end_key, &zero, 1);
        }
        message.prefix = bop_slice(NULL, 0);
        message.from = *options->key;
        message.to = bop_buf_slice(&end_key);
    }
    if (rc == 0) {
        bop_watch_open_request_encode(&writer, &message);
        rc = writer.code;
    }
    bop_buf_deinit(&end_key);
    if (rc < 0) {
        return rc;
    }
    rc = bop_watch_open_request_decode(bop_buf_slice(&watch->request), &message);
    if (rc < 0 || (message.revision != 0 && (message.flags & BOP_WATCH_SNAPSHOT))) {
        return BOP_EINVAL;
    }
    return 0;
}

int bop_client_watch_open(struct bop_client *client, const struct bop_client_watch_options *options,
                          bop_client_watch_fn fn, void *user, struct bop_client_watch **out_watch)
{
    struct bop_client_watch *watch;
    int rc;

    if (client->closing) {
        return BOP_ECLOSED;
    }
    watch = (struct bop_client_watch *)bop_alloc_zeroed(client->allocator, sizeof(*watch));
    if (!watch) {
        return BOP_ENOMEM;
    }
    watch->client = client;
    watch->fn = fn;
    watch->user = user;
    watch->flags = options->flags;
    watch->last = options->revision;
    watch->fresh = (options->flags & BOP_WATCH_SNAPSHOT) != 0;
    bop_buf_init(&watch->request, client->allocator, 0);
    rc = encode_request(watch, options);
    if (rc == 0) {
        rc = take_slot(client, watch);
    }
    if (rc < 0) {
        bop_buf_deinit(&watch->request);
        bop_free(client->allocator, watch, sizeof(*watch));
        return rc;
    }
    client->watches.acknowledging += (watch->flags & BOP_WATCH_ACKNOWLEDGE) != 0;
    bop_list_init(&watch->waiting);
    bop_list_push_back(&client->watches.all, &watch->link);
    wait_to_open(watch);
    bop__client_watches_flush(client);
    *out_watch = watch;
    return 0;
}

static void send_close(struct bop_client_watch *watch)
{
    struct bop_client *client = watch->client;
    struct bop_watch_close_request message = {.watch = watch->id};
    struct bop_writer writer;
    struct bop_buf *buf;
    size_t at;

    if (watch->state == WATCH_WAITING || !bop__client_ready(client)) {
        return;
    }
    buf = bop__client_frame_begin(client, &at);
    if (buf) {
        writer = bop_writer(buf);
        bop_watch_close_request_encode(&writer, &message);
        /* What cannot be sent leaves a watch that tells nobody until the connection ends. */
        BOP_IGNORE(bop__client_frame_end(client, buf, at, BOP_WIRE_KIND_WATCH_CLOSE_REQUEST,
                                         BOP_WIRE_KIND_WATCH_CLOSE_REQUEST, writer.code));
    }
}

void bop_client_watch_close(struct bop_client_watch *watch)
{
    if (!watch) {
        return;
    }
    if (!watch->client->closing) {
        send_close(watch);
    }
    if (watch->client->watches.calling == watch) {
        watch->client->watches.called_closed = true;
    } else {
        free_watch(watch);
    }
}

uint64_t bop_client_watch_revision(const struct bop_client_watch *watch)
{
    return watch->live ? bop_max_u64(watch->last, watch->client->watches.told) : watch->last;
}
