/*
 * Connections and their watches, opened, closed and freed; and the hub's turns. The
 * rules are in watch_internal.h.
 */
#include "buggify.h"
#include "watch_internal.h"

#include <bop/mem.h>

#define SLOTS_MIN     8
#define MARKS_EACH_MS 1000

/* ---- The hub ---- */

static void set_defaults(struct watch_options *options)
{
    options->watches_conn_max = options->watches_conn_max ? options->watches_conn_max
                                                          : WATCHES_CONN_MAX;
    options->watches_max = options->watches_max ? options->watches_max : WATCHES_NODE_MAX;
    options->bytes_max = options->bytes_max ? options->bytes_max : WATCH_BYTES_MAX;
    options->queue_high = options->queue_high ? options->queue_high : WATCH_QUEUE_HIGH;
    options->queue_low = options->queue_low ? options->queue_low : WATCH_QUEUE_LOW;
}

static void init_metrics(struct watch_hub *hub, struct bop_metrics *metrics)
{
    if (!metrics) {
        return;
    }
    hub->metrics.watches = bop_metrics_gauge(metrics, "bop_watches", NULL, "Watches open.");
    hub->metrics.events = bop_metrics_counter(metrics, "bop_watch_events_total", NULL,
                                              "Entries and pages told to watches.");
    hub->metrics.resyncs = bop_metrics_counter(metrics, "bop_watch_resyncs_total", NULL,
                                               "Watches that lost events and were told so.");
    hub->metrics.history = bop_metrics_gauge(metrics, "bop_watch_history_bytes", NULL,
                                             "Memory that holds the events of past entries.");
}

int bop__watch_hub_create(const struct watch_options *options, struct watch_hub **out_hub)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "cluster.watch");
    struct watch_hub *hub = (struct watch_hub *)bop_alloc_zeroed(allocator, sizeof(*hub));

    if (!hub) {
        return BOP_ENOMEM;
    }
    hub->options = *options;
    set_defaults(&hub->options);
    hub->allocator = allocator;
    hub->told = options->revision;
    bop__history_init(&hub->history, allocator, options->history_bytes_max, options->revision);
    bop__watch_index_init(&hub->index, allocator, options->seed);
    bop_list_init(&hub->conns);
    bop_list_init(&hub->busy);
    bop_list_init(&hub->views);
    bop_buf_init(&hub->bare, allocator, 0);
    bop_buf_init(&hub->out, allocator, 0);
    bop_buf_init(&hub->page, allocator, 0);
    init_metrics(hub, options->metrics);
    *out_hub = hub;
    return 0;
}

void bop__watch_hub_destroy(struct watch_hub *hub)
{
    if (!hub) {
        return;
    }
    BOP_ASSERT(bop_list_empty(&hub->conns) && bop_list_empty(&hub->views));
    bop__history_deinit(&hub->history);
    bop__watch_index_deinit(&hub->index);
    bop_buf_deinit(&hub->bare);
    bop_buf_deinit(&hub->out);
    bop_buf_deinit(&hub->page);
    if (hub->items) {
        bop_free(hub->allocator, hub->items, hub->item_capacity * sizeof(*hub->items));
    }
    if (hub->hits) {
        bop_free(hub->allocator, hub->hits, hub->hit_capacity * sizeof(*hub->hits));
    }
    bop_free(hub->allocator, hub, sizeof(*hub));
}

size_t bop__watch_hub_count(const struct watch_hub *hub)
{
    return hub->watches;
}

/* ---- Connections ---- */

int bop__watch_connect(struct watch_hub *hub, const struct watch_sink *sink, void *user,
                       struct watch_conn **out_conn)
{
    struct watch_conn *conn = (struct watch_conn *)bop_alloc_zeroed(hub->allocator, sizeof(*conn));

    if (!conn) {
        return BOP_ENOMEM;
    }
    conn->hub = hub;
    conn->number = ++hub->conns_made;
    conn->sink = sink;
    conn->user = user;
    conn->told_ms = hub->now_ms;
    bop_list_init(&conn->pending);
    bop_list_init(&conn->busy);
    bop_list_push_back(&hub->conns, &conn->link);
    bop__watch_index_init(&conn->own, hub->allocator, hub->options.seed);
    *out_conn = conn;
    return 0;
}

void bop__watch_conn_busy(struct watch_conn *conn)
{
    if (bop_list_empty(&conn->busy)) {
        bop_list_push_back(&conn->hub->busy, &conn->busy);
    }
}

static struct watch **slot_of(const struct watch_conn *conn, uint32_t id)
{
    return &conn->slots[(id * UINT32_C(0x9e3779b1)) >> 7 & (conn->capacity - 1)];
}

static struct watch *find(const struct watch_conn *conn, uint32_t id)
{
    struct watch *watch = conn->capacity ? *slot_of(conn, id) : NULL;

    while (watch && watch->id != id) {
        watch = watch->next;
    }
    return watch;
}

static int grow(struct watch_conn *conn)
{
    struct watch_conn old = *conn;
    size_t capacity = old.capacity ? old.capacity * 2 : SLOTS_MIN;
    struct watch **slots = (struct watch **)bop_alloc_zeroed(conn->hub->allocator,
                                                             capacity * sizeof(struct watch *));

    if (!slots) {
        return BOP_ENOMEM;
    }
    conn->slots = slots;
    conn->capacity = capacity;
    for (size_t n = 0; n < old.capacity; n++) {
        while (old.slots[n]) {
            struct watch *watch = old.slots[n];
            struct watch **slot = slot_of(conn, watch->id);

            old.slots[n] = watch->next;
            watch->next = *slot;
            *slot = watch;
        }
    }
    if (old.slots) {
        bop_free(conn->hub->allocator, old.slots, old.capacity * sizeof(struct watch *));
    }
    return 0;
}

void bop__watch_free(struct watch *watch)
{
    struct watch_conn *conn = watch->conn;
    struct watch_hub *hub = conn->hub;
    struct watch **at = slot_of(conn, watch->id);

    while (*at != watch) {
        at = &(*at)->next;
    }
    *at = watch->next;
    conn->count--;
    hub->watches--;
    bop_metric_add(hub->metrics.watches, -1);
    if (watch->flags & BOP_WATCH_PROGRESS) {
        conn->progress--;
        hub->progress--;
    }
    bop_list_remove(&watch->link);
    bop__watch_scan_free(watch);
    bop__watch_index_put(watch->interval);
    bop_free(hub->allocator, watch, sizeof(*watch));
}

void bop__watch_disconnect(struct watch_conn *conn)
{
    if (!conn) {
        return;
    }
    for (size_t n = 0; n < conn->capacity; n++) {
        while (conn->slots[n]) {
            bop__watch_free(conn->slots[n]);
        }
    }
    if (conn->slots) {
        bop_free(conn->hub->allocator, conn->slots, conn->capacity * sizeof(struct watch *));
    }
    bop__watch_index_deinit(&conn->own);
    bop_list_remove(&conn->busy);
    bop_list_remove(&conn->link);
    bop_free(conn->hub->allocator, conn, sizeof(*conn));
}

void bop__watch_acked(struct watch_conn *conn, const struct bop_watch_ack *ack)
{
    conn->acked = bop_max_u64(conn->acked, ack->revision);
    if (ack->flags & BOP_WATCH_ACK_MARK) {
        conn->mark_asked = true;
        bop__watch_conn_busy(conn);
    }
}

uint64_t bop__watch_conn_acked(const struct watch_conn *conn)
{
    return conn->acked;
}

uint64_t bop__watch_conn_told(const struct watch_conn *conn)
{
    return conn->behind || !bop_list_empty(&conn->pending) ? 0 : conn->hub->told;
}

void bop__watch_tell(struct watch_conn *conn, const struct watch *watch, uint64_t revision,
                     uint8_t flags, struct bop_slice events)
{
    struct bop_watch_events message = {.revision = revision, .flags = flags, .events = events};

    conn->told_ms = conn->hub->now_ms;
    bop_metric_add(conn->hub->metrics.events, watch ? 1 : 0);
    conn->sink->tell(conn->user, watch ? watch->id : 0, &message);
}

/* ---- Moving watches between lists and indexes ---- */

static void make_pending(struct watch *watch, enum watch_state state)
{
    watch->state = (uint8_t)state;
    bop_list_remove(&watch->link);
    bop_list_push_back(&watch->conn->pending, &watch->link);
    bop__watch_conn_busy(watch->conn);
}

/* A client takes what one live watch is told as a sign that all others of the connection were told
 * what came before. So one that was not hears of it before the next event is told. */
void bop__watch_lose(struct watch *watch)
{
    bool live = watch->state == WATCH_LIVE;

    bop__watch_scan_free(watch);
    make_pending(watch, WATCH_LOST);
    if (live) {
        bop__watch_tell_resync(watch);
    }
}

void bop__watch_tell_resync(struct watch *watch)
{
    struct watch_hub *hub = watch->conn->hub;

    watch->resync_told = true;
    bop_metric_add(hub->metrics.resyncs, 1);
    bop__watch_tell(watch->conn, watch, hub->told, BOP_WATCH_EVENTS_RESYNC, bop_slice(NULL, 0));
}

/* To an equal interval of another index. */
static int change_index(struct watch *watch, struct watch_index *to)
{
    struct watch_interval *old = watch->interval, *interval;
    struct bop_slice name = bop_slice(old->name->bytes, old->name->size);
    int rc;

    if (old->name->index == to) {
        return 0;
    }
    rc = bop__watch_index_get(to, old->name->what, name, bop__watch_interval_from(old),
                              bop__watch_interval_to(old), &interval);
    if (rc < 0) {
        return rc;
    }
    bop_list_remove(&watch->link);
    watch->interval = interval;
    bop__watch_index_put(old);
    return 0;
}

int bop__watch_go_live(struct watch *watch)
{
    struct watch_conn *conn = watch->conn;
    int rc = change_index(watch, conn->behind ? &conn->own : &conn->hub->index);

    if (rc < 0) {
        return rc;
    }
    watch->state = WATCH_LIVE;
    bop_list_remove(&watch->link);
    bop_list_push_back(&watch->interval->watches, &watch->link);
    return 0;
}

void bop__watch_conn_move(struct watch_conn *conn, struct watch_index *to)
{
    for (size_t n = 0; n < conn->capacity; n++) {
        for (struct watch *watch = conn->slots[n]; watch; watch = watch->next) {
            if (watch->state != WATCH_LIVE) {
                continue;
            }
            if (change_index(watch, to) < 0) {
                bop__watch_lose(watch);
            } else {
                bop_list_remove(&watch->link);
                bop_list_push_back(&watch->interval->watches, &watch->link);
            }
        }
    }
}

/* ---- Opening and closing ---- */

struct bounds {
    struct bop_slice from;
    struct bop_slice to;
    uint8_t buffer[BOP_KEY_MAX]; /* The prefix's successor. */
};

/* Above all that begins with prefix: its last byte that can be one more is. False: nothing is. */
static bool successor(struct bop_slice prefix, uint8_t *buffer, struct bop_slice *out_successor)
{
    size_t size = prefix.size;

    while (size > 0 && prefix.data[size - 1] == 0xff) {
        size--;
    }
    if (size == 0) {
        return false;
    }
    memcpy(buffer, prefix.data, size);
    buffer[size - 1]++;
    *out_successor = bop_slice(buffer, size);
    return true;
}

/* Prefix, from and to as one interval. False if nothing can be in it. */
static bool bounds_of(const struct bop_watch_open_request *request, struct bounds *bounds)
{
    struct bop_slice end;

    bounds->from = request->from;
    bounds->to = request->to;
    if (request->prefix.size > 0) {
        if (bop_slice_compare(bounds->from, request->prefix) < 0) {
            bounds->from = request->prefix;
        }
        if (successor(request->prefix, bounds->buffer, &end) &&
            (bounds->to.size == 0 || bop_slice_compare(end, bounds->to) < 0)) {
            bounds->to = end;
        }
    }
    return bounds->to.size == 0 || bop_slice_compare(bounds->from, bounds->to) < 0;
}

static bool is_allowed(const struct bop_watch_open_request *request)
{
    bool bounded = request->prefix.size + request->from.size + request->to.size > 0;

    return !((request->what == BOP_WATCH_COUNTER || request->what == BOP_WATCH_LOCK) && bounded) &&
           !(request->what == BOP_WATCH_SESSION && (request->flags & BOP_WATCH_SNAPSHOT)) &&
           !(request->revision != 0 && (request->flags & BOP_WATCH_SNAPSHOT));
}

static bool is_full(const struct watch_conn *conn)
{
    const struct watch_hub *hub = conn->hub;

    return conn->count >= hub->options.watches_conn_max ||
           hub->watches >= hub->options.watches_max ||
           hub->watches * sizeof(struct watch) + hub->index.bytes >= hub->options.bytes_max;
}

static struct watch *make(struct watch_conn *conn, uint32_t id,
                          const struct bop_watch_open_request *request, struct bounds *bounds)
{
    struct watch_hub *hub = conn->hub;
    struct watch *watch, **slot;

    if (conn->count == conn->capacity && grow(conn) < 0) {
        return NULL;
    }
    watch = (struct watch *)bop_alloc_zeroed(hub->allocator, sizeof(*watch));
    if (!watch) {
        return NULL;
    }
    if (bop__watch_index_get(conn->behind ? &conn->own : &hub->index, request->what, request->name,
                             bounds->from, bounds->to, &watch->interval) < 0) {
        bop_free(hub->allocator, watch, sizeof(*watch));
        return NULL;
    }
    watch->conn = conn;
    watch->id = id;
    watch->flags = request->flags;
    bop_list_init(&watch->link);
    slot = slot_of(conn, id);
    watch->next = *slot;
    *slot = watch;
    conn->count++;
    hub->watches++;
    bop_metric_add(hub->metrics.watches, 1);
    if (watch->flags & BOP_WATCH_PROGRESS) {
        conn->progress++;
        hub->progress++;
    }
    return watch;
}

static void begin(struct watch *watch, const struct bop_watch_open_request *request)
{
    uint64_t told = watch->conn->hub->told;

    watch->last = request->revision ? request->revision : told;
    if (request->flags & BOP_WATCH_SNAPSHOT) {
        make_pending(watch, WATCH_SNAPSHOT);
    } else if (request->revision) {
        make_pending(watch, WATCH_REPLAY);
    } else {
        watch->state = WATCH_LIVE;
        bop_list_push_back(&watch->interval->watches, &watch->link);
    }
}

uint8_t bop__watch_open(struct watch_conn *conn, uint32_t id,
                        const struct bop_watch_open_request *request, uint64_t *out_revision)
{
    struct watch_hub *hub = conn->hub;
    struct bounds bounds;
    struct watch *watch;

    *out_revision = 0;
    if (id == 0 || find(conn, id) || !is_allowed(request) || !bounds_of(request, &bounds)) {
        return BOP_STATUS_BAD_REQUEST;
    }
    if (request->revision == 0 && hub->told == 0) {
        return BOP_STATUS_RETRY; /* No revision to begin at, and to come back with, is known yet. */
    }
    if (request->revision != 0 && request->revision < hub->history.after) {
        *out_revision = hub->history.after;
        return BOP_STATUS_COMPACTED;
    }
    watch = is_full(conn) ? NULL : make(conn, id, request, &bounds);
    if (!watch) {
        return BOP_STATUS_BUSY;
    }
    begin(watch, request);
    *out_revision = watch->last;
    return BOP_STATUS_OK;
}

bool bop__watch_close(struct watch_conn *conn, uint32_t id)
{
    struct watch *watch = find(conn, id);

    if (watch) {
        bop__watch_free(watch);
    }
    return watch != NULL;
}

/* ---- From the replica ---- */

void bop__watch_hub_reset(struct watch_hub *hub, uint64_t revision)
{
    bop__history_reset(&hub->history, revision);
    hub->told = revision;
    BOP_LIST_FOR_EACH(link, &hub->conns) {
        struct watch_conn *conn = BOP_CONTAINER_OF(link, struct watch_conn, link);

        for (size_t n = 0; n < conn->capacity; n++) {
            for (struct watch *watch = conn->slots[n]; watch; watch = watch->next) {
                if (watch->state == WATCH_LIVE && watch->last < revision) {
                    bop__watch_lose(watch);
                }
            }
        }
    }
}

void bop__watch_hub_release(struct watch_hub *hub)
{
    BOP_LIST_FOR_EACH(link, &hub->busy) {
        struct watch_conn *conn = BOP_CONTAINER_OF(link, struct watch_conn, busy);

        BOP_LIST_FOR_EACH_SAFE(at, &conn->pending) {
            struct watch *watch = BOP_CONTAINER_OF(at, struct watch, link);

            if (watch->scan) {
                bop__watch_lose(watch);
            }
        }
    }
    BOP_ASSERT(bop_list_empty(&hub->views));
}

/* ---- Rights ---- */

static bool is_allowed_still(const struct watch *watch)
{
    const struct watch_interval *interval = watch->interval;
    struct watch_subject subject = {
        .what = interval->name->what,
        .name = bop_slice(interval->name->bytes, interval->name->size),
        .from = bop__watch_interval_from(interval),
        .to = bop__watch_interval_to(interval),
    };

    return watch->conn->sink->allows(watch->conn->user, &subject);
}

static void review(struct watch_conn *conn)
{
    for (size_t n = 0; n < conn->capacity; n++) {
        struct watch *next;

        for (struct watch *watch = conn->slots[n]; watch; watch = next) {
            next = watch->next;
            if (!is_allowed_still(watch)) {
                bop__watch_tell(conn, watch, conn->hub->told, BOP_WATCH_EVENTS_DENIED,
                                bop_slice(NULL, 0));
                bop__watch_free(watch);
            }
        }
    }
}

void bop__watch_hub_review(struct watch_hub *hub)
{
    BOP_LIST_FOR_EACH(link, &hub->conns) {
        review(BOP_CONTAINER_OF(link, struct watch_conn, link));
    }
}

/* ---- Turns ---- */

/* All that the live watches of a connection could be told was told. */
static void mark(struct watch_conn *conn)
{
    conn->mark_asked = false;
    conn->marked = conn->hub->told;
    bop__watch_tell(conn, NULL, conn->hub->told, BOP_WATCH_EVENTS_PROGRESS, bop_slice(NULL, 0));
}

static void mark_quiet(struct watch_hub *hub)
{
    BOP_LIST_FOR_EACH(link, &hub->conns) {
        struct watch_conn *conn = BOP_CONTAINER_OF(link, struct watch_conn, link);

        if (conn->progress > 0 && bop_list_empty(&conn->busy) &&
            hub->now_ms - conn->told_ms >= WATCH_QUIET_MS) {
            mark(conn);
        }
    }
}

uint64_t bop__watch_hub_turn(struct watch_hub *hub, uint64_t revision, uint64_t now_ms)
{
    uint64_t due_ms = UINT64_MAX;
    struct bop_list *last = hub->busy.prev;
    bool more = !bop_list_empty(&hub->busy);

    hub->now_ms = now_ms;
    hub->told = bop_max_u64(hub->told, revision);
    hub->entries_left = buggify(BUGGIFY_WATCH_SHARE) ? 1 : WATCH_TURN_ENTRIES;
    hub->pages_left = WATCH_TURN_PAGES;
    while (more) {
        struct watch_conn *conn = BOP_CONTAINER_OF(hub->busy.next, struct watch_conn, busy);

        more = &conn->busy != last;
        bop_list_remove(&conn->busy);
        due_ms = bop_min_u64(due_ms, bop__watch_conn_work(conn));
        if (conn->behind || !bop_list_empty(&conn->pending)) {
            bop__watch_conn_busy(conn); /* Behind the others: all have their turn. */
        } else if (conn->mark_asked) {
            mark(conn);
        }
    }
    if (hub->progress > 0) {
        if (now_ms >= hub->marks_ms) {
            mark_quiet(hub);
            hub->marks_ms = now_ms + MARKS_EACH_MS;
        }
        due_ms = bop_min_u64(due_ms, hub->marks_ms);
    }
    bop_metric_set(hub->metrics.history, (int64_t)hub->history.bytes);
    return due_ms;
}
