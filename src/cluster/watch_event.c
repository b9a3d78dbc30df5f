/*
 * What an entry changed, to those who watch. An entry of one event, as most are, goes
 * straight to the watches around its key. One of many is matched event by event, and
 * then told watch by watch: all of an entry that is for a watch is in one frame, or in a row
 * of frames if it is much.
 */
#include "buggify.h"
#include "watch_internal.h"

#include <stdlib.h>

#include <bop/mem.h>

#define TARGETS_MAX 3
#define TYPE_KINDS                                                                                 \
    8 /* Event types are numbered in groups of so many, one for each kind of object. */

/* Whose watches an event may be for. */
struct target {
    uint8_t what;
    enum watch_scope scope;
    struct bop_slice name;
    struct bop_slice key;
};

struct targets {
    unsigned count;
    struct target list[TARGETS_MAX];
    uint8_t session[8];
    uint8_t name[1 + BOP_NAME_MAX];
};

/* ---- Taking an entry apart ---- */

static int grow_items(struct watch_hub *hub)
{
    size_t capacity = hub->item_capacity ? hub->item_capacity * 2 : 16;
    struct watch_item *items = (struct watch_item *)bop_alloc_array(hub->allocator, capacity,
                                                                    sizeof(*items));

    if (!items) {
        return BOP_ENOMEM;
    }
    if (hub->items) {
        memcpy(items, hub->items, hub->item_count * sizeof(*items));
        bop_free(hub->allocator, hub->items, hub->item_capacity * sizeof(*items));
    }
    hub->items = items;
    hub->item_capacity = capacity;
    return 0;
}

int bop__watch_entry(struct watch_hub *hub, struct bop_slice events)
{
    hub->item_count = 0;
    bop_buf_clear(&hub->bare);
    while (events.size > 0) {
        struct watch_item *item;
        const uint8_t *begin = events.data;
        int rc = hub->item_count == hub->item_capacity ? grow_items(hub) : 0;

        if (rc < 0) {
            return rc;
        }
        item = &hub->items[hub->item_count];
        rc = bop_event_next(&events, &item->event);
        if (rc <= 0) {
            return rc;
        }
        item->raw = bop_slice(begin, (size_t)(events.data - begin));
        item->bare_size = 0;
        hub->item_count++;
    }
    return 0;
}

/* An event's bytes as a watch wants them. */
static struct bop_slice bytes_of(struct watch_hub *hub, struct watch_item *item, bool previous)
{
    if (!(item->event.flags & BOP_EVENT_HAD_PREVIOUS) ||
        (previous && item->raw.size <= WATCH_ENTRY_BYTES / 4)) {
        return item->raw;
    }
    if (item->bare_size == 0) {
        struct bop_event bare = item->event;
        struct bop_writer writer = bop_writer(&hub->bare);

        item->bare_at = hub->bare.size;
        bare.flags = (uint8_t)(bare.flags | BOP_EVENT_NO_PREVIOUS);
        bare.previous = bop_slice(NULL, 0);
        bop_event_encode(&writer, &bare);
        if (writer.code < 0) {
            hub->bare.size = item->bare_at;
            return item->raw; /* More than was asked for, which harms nobody. */
        }
        item->bare_size = hub->bare.size - item->bare_at;
    }
    return bop_slice(hub->bare.data + item->bare_at, item->bare_size);
}

/* ---- For whom ---- */

static uint8_t what_of(enum bop_event_type type)
{
    unsigned group = (unsigned)type / TYPE_KINDS;

    return group < BOP_WATCH_REGISTRY ? (uint8_t)(BOP_WATCH_MAP + group) : 0;
}

static enum watch_scope scope_of(enum bop_event_type type)
{
    switch (type) {
    case BOP_EVENT_MAP_CLEAR:
    case BOP_EVENT_SET_CLEAR:
    case BOP_EVENT_MULTIMAP_CLEAR:
        return WATCH_ALL;
    case BOP_EVENT_MAP_CREATE:
    case BOP_EVENT_SET_CREATE:
    case BOP_EVENT_MULTIMAP_CREATE:
        return WATCH_WHOLE;
    default:
        return type >= BOP_EVENT_COUNTER_SET && type <= BOP_EVENT_LOCK_DELETE ? WATCH_WHOLE
                                                                              : WATCH_KEY;
    }
}

static bool is_of_names(enum bop_event_type type)
{
    switch (type) {
    case BOP_EVENT_MAP_CREATE:
    case BOP_EVENT_SET_CREATE:
    case BOP_EVENT_MULTIMAP_CREATE:
    case BOP_EVENT_COUNTER_CREATE:
    case BOP_EVENT_COUNTER_DELETE:
    case BOP_EVENT_LOCK_CREATE:
    case BOP_EVENT_LOCK_DELETE:
        return true;
    default:
        return false;
    }
}

static void targets_of(const struct bop_event *event, struct targets *out)
{
    uint8_t what = what_of(event->type);

    out->count = 0;
    if (what) {
        out->list[out->count++] = (struct target){
            .what = what, .scope = scope_of(event->type), .name = event->name, .key = event->key};
    }
    if (event->session != 0) {
        for (int n = 0; n < 8; n++) {
            out->session[n] = (uint8_t)(event->session >> (56 - 8 * n));
        }
        out->list[out->count++] = (struct target){
            .what = BOP_WATCH_SESSION, .scope = WATCH_KEY, .key = bop_slice(out->session, 8)};
    }
    if (is_of_names(event->type) && event->name.size <= BOP_NAME_MAX) {
        out->name[0] = what;
        if (event->name.size > 0) {
            memcpy(out->name + 1, event->name.data, event->name.size);
        }
        out->list[out->count++] = (struct target){
            .what = BOP_WATCH_NAMES,
            .scope = WATCH_KEY,
            .key = bop_slice(out->name, event->name.size + 1)};
    }
}

/* ---- Telling one watch ---- */

/* All of the entry that is for a watch: count hits in a row. */
static void tell_hits(struct watch *watch, const struct watch_hit *hits, size_t count,
                      uint64_t revision)
{
    struct watch_hub *hub = watch->conn->hub;
    bool previous = (watch->flags & BOP_WATCH_PREVIOUS) != 0;
    size_t total = 0;

    for (size_t n = 0; n < count; n++) {
        total += bytes_of(hub, &hub->items[hits[n].item], previous).size;
    }
    if (total > WATCH_ENTRY_BYTES) {
        bop__watch_lose(watch);
        return;
    }
    watch->last = revision;
    if (count == 1) {
        bop__watch_tell(watch->conn, watch, revision, 0,
                        bytes_of(hub, &hub->items[hits[0].item], previous));
        return;
    }
    bop_buf_clear(&hub->out);
    for (size_t n = 0; n < count; n++) {
        struct bop_slice bytes = bytes_of(hub, &hub->items[hits[n].item], previous);

        if (hub->out.size > 0 &&
            (hub->out.size + bytes.size > WATCH_FRAME_BYTES || buggify(BUGGIFY_WATCH_PIECES))) {
            bop__watch_tell(watch->conn, watch, revision, BOP_WATCH_EVENTS_MORE,
                            bop_buf_slice(&hub->out));
            bop_buf_clear(&hub->out);
        }
        if (bop_buf_append(&hub->out, bytes.data, bytes.size) < 0) {
            bop__watch_lose(watch);
            return;
        }
    }
    bop__watch_tell(watch->conn, watch, revision, 0, bop_buf_slice(&hub->out));
}

/* ---- Telling all ---- */

struct dispatch {
    struct watch_hub *hub;
    struct watch_conn *conn; /* Whose index it is; NULL: the hub's. */
    uint64_t revision;
    uint32_t item;
    bool full;
    bool moving; /* Some connection fell behind. */
};

/* A live watch of this entry, told or left for later. */
static void tell_live(struct dispatch *dispatch, struct watch *watch, const struct watch_hit *hits,
                      size_t count)
{
    struct watch_conn *conn = watch->conn;

    if (watch->last >= dispatch->revision || watch->state != WATCH_LIVE || dispatch->full ||
        (!dispatch->conn && conn->behind)) {
        return;
    }
    tell_hits(watch, hits, count, dispatch->revision);
    if (bop__watch_queued(conn) <= dispatch->hub->options.queue_high &&
        !buggify(BUGGIFY_WATCH_BEHIND)) {
        return;
    }
    if (dispatch->conn) {
        dispatch->full = true;
    } else {
        conn->behind = true;
        conn->moving = true;
        conn->sent = dispatch->revision - 1; /* What it was told of this one its watches know. */
        dispatch->moving = true;
        bop__watch_conn_busy(conn);
    }
}

static void hit_alone(void *user, struct watch_interval *interval)
{
    struct dispatch *dispatch = (struct dispatch *)user;

    BOP_LIST_FOR_EACH_SAFE(link, &interval->watches) {
        struct watch *watch = BOP_CONTAINER_OF(link, struct watch, link);
        struct watch_hit hit = {.watch = watch, .item = dispatch->item};

        tell_live(dispatch, watch, &hit, 1);
    }
}

static bool add_hit(struct watch_hub *hub, struct watch *watch, uint32_t item)
{
    if (hub->hit_count == hub->hit_capacity) {
        size_t capacity = hub->hit_capacity ? hub->hit_capacity * 2 : 64;
        struct watch_hit *hits = (struct watch_hit *)bop_alloc_array(hub->allocator, capacity,
                                                                     sizeof(*hits));

        if (!hits) {
            return false;
        }
        if (hub->hits) {
            memcpy(hits, hub->hits, hub->hit_count * sizeof(*hits));
            bop_free(hub->allocator, hub->hits, hub->hit_capacity * sizeof(*hits));
        }
        hub->hits = hits;
        hub->hit_capacity = capacity;
    }
    hub->hits[hub->hit_count++] = (struct watch_hit){.watch = watch, .item = item};
    return true;
}

/* Collect; a watch for whose hit there is no memory is lost. */
static void hit_among_many(void *user, struct watch_interval *interval)
{
    struct dispatch *dispatch = (struct dispatch *)user;

    BOP_LIST_FOR_EACH_SAFE(link, &interval->watches) {
        struct watch *watch = BOP_CONTAINER_OF(link, struct watch, link);

        if (watch->last < dispatch->revision && !add_hit(dispatch->hub, watch, dispatch->item)) {
            bop__watch_lose(watch);
        }
    }
}

static int compare_hits(const void *a, const void *b)
{
    const struct watch_hit *left = (const struct watch_hit *)a;
    const struct watch_hit *right = (const struct watch_hit *)b;

    /* Not by where they lie in memory: what is told and when is to be the same each time. */
    if (left->watch->conn != right->watch->conn) {
        return left->watch->conn->number < right->watch->conn->number ? -1 : 1;
    }
    if (left->watch->id != right->watch->id) {
        return left->watch->id < right->watch->id ? -1 : 1;
    }
    return left->item < right->item ? -1 : left->item > right->item;
}

static void tell_many(struct dispatch *dispatch)
{
    struct watch_hub *hub = dispatch->hub;

    if (hub->hit_count > 1) {
        qsort(hub->hits, hub->hit_count, sizeof(*hub->hits), compare_hits);
    }
    for (size_t n = 0, next; n < hub->hit_count; n = next) {
        next = n + 1;
        while (next < hub->hit_count && hub->hits[next].watch == hub->hits[n].watch) {
            next++;
        }
        tell_live(dispatch, hub->hits[n].watch, &hub->hits[n], next - n);
    }
}

static void match_items(struct dispatch *dispatch, struct watch_index *index)
{
    struct watch_hub *hub = dispatch->hub;
    bool alone = hub->item_count == 1;

    hub->hit_count = 0;
    for (size_t n = 0; n < hub->item_count; n++) {
        struct targets targets;

        dispatch->item = (uint32_t)n;
        targets_of(&hub->items[n].event, &targets);
        for (unsigned t = 0; t < targets.count; t++) {
            const struct target *target = &targets.list[t];

            bop__watch_index_match(index, target->what, target->name, target->scope, target->key,
                                   alone ? hit_alone : hit_among_many, dispatch);
        }
    }
    if (!alone) {
        tell_many(dispatch);
    }
}

/* Those that fell behind leave the hub's index. */
static void move_out(struct watch_hub *hub)
{
    BOP_LIST_FOR_EACH(link, &hub->busy) {
        struct watch_conn *conn = BOP_CONTAINER_OF(link, struct watch_conn, busy);

        if (conn->moving) {
            conn->moving = false;
            bop__watch_conn_move(conn, &conn->own);
        }
    }
}

bool bop__watch_dispatch(struct watch_hub *hub, struct watch_index *index, struct watch_conn *conn,
                         uint64_t revision)
{
    struct dispatch dispatch = {.hub = hub, .conn = conn, .revision = revision};

    match_items(&dispatch, index);
    if (dispatch.moving) {
        move_out(hub);
    }
    return !dispatch.full;
}

void bop__watch_dispatch_one(struct watch *watch, uint64_t revision)
{
    struct watch_hub *hub = watch->conn->hub;
    const struct watch_name *name = watch->interval->name;

    hub->hit_count = 0;
    for (size_t n = 0; n < hub->item_count; n++) {
        struct targets targets;

        targets_of(&hub->items[n].event, &targets);
        for (unsigned t = 0; t < targets.count; t++) {
            const struct target *target = &targets.list[t];

            if (target->what == name->what &&
                bop_slice_equal(target->name, bop_slice(name->bytes, name->size)) &&
                bop__watch_interval_matches(watch->interval, target->scope, target->key) &&
                !add_hit(hub, watch, (uint32_t)n)) {
                bop__watch_lose(watch);
                return;
            }
        }
    }
    if (hub->hit_count > 0) {
        tell_hits(watch, hub->hits, hub->hit_count, revision);
    }
}

/* ---- From the replica ---- */

void bop__watch_hub_events(struct watch_hub *hub, uint64_t revision, struct bop_slice events)
{
    int rc;

    bop__history_add(&hub->history, revision, events);
    hub->told = revision;
    if (hub->watches == 0) {
        return;
    }
    rc = bop__watch_entry(hub, events);
    if (rc < 0) {
        bop__watch_hub_reset(hub, revision); /* For want of memory nobody can be told. */
        return;
    }
    bop__watch_dispatch(hub, &hub->index, NULL, revision);
}
