/*
 * How things stand where a watch begins: read page by page from a view and told as
 * events with BOP_EVENT_SNAPSHOT, at the view's revision; what came after it is in the
 * history. Snapshots that begin at about the same time share a view, as a thousand
 * clients do that come back after a node was lost.
 */
#include "watch_internal.h"

#include <bop/mem.h>

/* ---- Views ---- */

static void release_view(struct watch_view *view, struct watch_hub *hub)
{
    if (--view->references > 0) {
        return;
    }
    bop__machine_view_close(view->view);
    bop_list_remove(&view->link);
    hub->view_count--;
    bop_free(hub->allocator, view, sizeof(*view));
}

/* A young view that the history reaches back to; the newest is the last. */
static struct watch_view *shared_view(struct watch_hub *hub)
{
    struct watch_view *view;

    if (bop_list_empty(&hub->views)) {
        return NULL;
    }
    view = BOP_CONTAINER_OF(hub->views.prev, struct watch_view, link);
    return view->revision >= hub->history.after &&
                   (view->revision == hub->told ||
                    hub->now_ms - view->opened_ms < WATCH_VIEW_SHARE_MS)
               ? view
               : NULL;
}

static struct watch_view *open_view(struct watch_hub *hub)
{
    struct watch_view *view;

    if (hub->view_count >= WATCH_VIEWS_MAX || !hub->options.replica ||
        !bop__replica_machine(hub->options.replica)) {
        return NULL;
    }
    view = (struct watch_view *)bop_alloc_zeroed(hub->allocator, sizeof(*view));
    if (!view || bop__replica_view_open(hub->options.replica, &view->view) < 0) {
        goto fail;
    }
    view->revision = bop__machine_view_position(view->view).index;
    view->opened_ms = hub->now_ms;
    if (view->revision < hub->told) {
        /* A batch was undone and is on its way again: the state stands before what was told. */
        bop__machine_view_close(view->view);
        goto fail;
    }
    bop_list_push_back(&hub->views, &view->link);
    hub->view_count++;
    return view;

fail:
    if (view) {
        bop_free(hub->allocator, view, sizeof(*view));
    }
    return NULL;
}

static bool begin(struct watch *watch)
{
    struct watch_hub *hub = watch->conn->hub;
    struct watch_view *view = shared_view(hub);
    struct watch_scan *scan;

    if (!view) {
        view = open_view(hub);
    }
    if (!view) {
        return false;
    }
    view->references++;
    scan = (struct watch_scan *)bop_alloc_zeroed(hub->allocator, sizeof(*scan));
    if (!scan) {
        release_view(view, hub);
        return false;
    }
    scan->view = view;
    scan->kind = BOP_NAME_MAP;
    scan->begun_ms = hub->now_ms;
    bop_buf_init(&scan->cursor, hub->allocator, 0);
    watch->scan = scan;
    return true;
}

void bop__watch_scan_free(struct watch *watch)
{
    struct watch_scan *scan = watch->scan;

    if (scan) {
        release_view(scan->view, watch->conn->hub);
        bop_buf_deinit(&scan->cursor);
        bop_free(watch->conn->hub->allocator, scan, sizeof(*scan));
        watch->scan = NULL;
    }
}

/* ---- Asking for a page ---- */

/* The operation that reads what a watch of this kind wants: of all keys, or of one. */
static enum bop_op op_of(const struct watch *watch)
{
    bool exact = watch->interval->exact;

    switch ((enum bop_watch_what)watch->interval->name->what) {
    case BOP_WATCH_MAP:
        return exact ? BOP_OP_MAP_GET : BOP_OP_MAP_RANGE;
    case BOP_WATCH_SET:
        return exact ? BOP_OP_SET_CONTAINS : BOP_OP_SET_SCAN;
    case BOP_WATCH_MULTIMAP:
        return exact ? BOP_OP_MULTIMAP_GET : BOP_OP_MULTIMAP_ENTRIES;
    case BOP_WATCH_COUNTER:
        return BOP_OP_COUNTER_GET;
    case BOP_WATCH_LOCK:
        return BOP_OP_LOCK_GET;
    case BOP_WATCH_GROUP:
        return exact ? BOP_OP_MEMBER_GET : BOP_OP_MEMBER_LIST;
    case BOP_WATCH_REGISTRY:
        return exact ? BOP_OP_REGISTRATION_GET : BOP_OP_REGISTRATION_LIST;
    case BOP_WATCH_NAMES:
        return BOP_OP_NAMES;
    case BOP_WATCH_SESSION:
        break;
    }
    BOP_ASSERT(!"a snapshot of sessions was refused at open");
    return BOP_OP_MAP_GET;
}

static struct bop_operation operation_of(const struct watch *watch)
{
    const struct watch_name *name = watch->interval->name;

    return (struct bop_operation){
        .op = op_of(watch),
        .name = bop_slice(name->bytes, name->size),
        .key = bop__watch_interval_from(watch->interval),
        .from = bop__watch_interval_from(watch->interval),
        .to = bop__watch_interval_to(watch->interval),
        .cursor = bop_buf_slice(&watch->scan->cursor),
        .kind = (enum bop_name_kind)watch->scan->kind,
    };
}

/* ---- An entry as an event ---- */

static void event_of_lock(const struct bop_scan_entry *entry, struct bop_event *event)
{
    struct bop_reader reader = bop_reader(entry->value);

    event->session = bop_read_u64(&reader);
    event->token = bop_read_u64(&reader);
    event->type = event->token ? BOP_EVENT_LOCK_GRANT : BOP_EVENT_LOCK_WAIT;
    event->key = bop_slice(NULL, 0);
    event->value = entry->key;
}

static void event_of_owned(const struct bop_scan_entry *entry, struct bop_event *event, bool member)
{
    struct bop_reader reader = bop_reader(entry->value);

    event->session = bop_read_u64(&reader);
    if (member) {
        event->type = BOP_EVENT_MEMBER_JOIN;
        event->value = bop_read_bytes(&reader);
    } else {
        event->type = BOP_EVENT_REGISTRATION_ADD;
        event->number = bop_read_i64(&reader);
        event->value = bop_slice(NULL, 0);
    }
}

static enum bop_event_type made_type(uint8_t kind)
{
    static const enum bop_event_type types[] = {
        [BOP_NAME_MAP] = BOP_EVENT_MAP_CREATE,
        [BOP_NAME_SET] = BOP_EVENT_SET_CREATE,
        [BOP_NAME_MULTIMAP] = BOP_EVENT_MULTIMAP_CREATE,
        [BOP_NAME_COUNTER] = BOP_EVENT_COUNTER_CREATE,
        [BOP_NAME_LOCK] = BOP_EVENT_LOCK_CREATE,
    };

    return types[kind];
}

/* name_key has room for a kind and a name. False if it is outside of the watch's bounds. */
static bool event_of(const struct watch *watch, const struct bop_scan_entry *entry,
                     uint8_t *name_key, struct bop_event *out_event)
{
    const struct watch_interval *interval = watch->interval;
    struct bop_slice key = interval->exact ? bop__watch_interval_from(interval) : entry->key;

    *out_event = (struct bop_event){.flags = BOP_EVENT_SNAPSHOT,
                                    .name = bop_slice(interval->name->bytes, interval->name->size),
                                    .key = key,
                                    .value = entry->value,
                                    .number = (int64_t)entry->version};
    switch ((enum bop_watch_what)interval->name->what) {
    case BOP_WATCH_MAP:
        out_event->type = BOP_EVENT_MAP_PUT;
        break;
    case BOP_WATCH_SET:
        out_event->type = BOP_EVENT_SET_ADD;
        break;
    case BOP_WATCH_MULTIMAP:
        out_event->type = BOP_EVENT_MULTIMAP_PUT;
        break;
    case BOP_WATCH_LOCK:
        event_of_lock(entry, out_event);
        return true;
    case BOP_WATCH_GROUP:
    case BOP_WATCH_REGISTRY:
        event_of_owned(entry, out_event, interval->name->what == BOP_WATCH_GROUP);
        break;
    default: /* Names. */
        out_event->type = made_type(watch->scan->kind);
        out_event->name = entry->key;
        out_event->key = bop_slice(NULL, 0);
        out_event->value = bop_slice(NULL, 0);
        name_key[0] = watch->scan->kind;
        if (entry->key.size > 0) {
            memcpy(name_key + 1, entry->key.data, entry->key.size);
        }
        key = bop_slice(name_key, entry->key.size + 1);
        break;
    }
    return bop__watch_interval_matches(interval, WATCH_KEY, key);
}

/* What is no scan, as an entry of one. False if there is nothing. */
static bool single(enum bop_op op, const struct bop_result *result,
                   struct bop_scan_entry *out_entry)
{
    *out_entry = (struct bop_scan_entry){.version = result->version, .value = result->value};
    return op == BOP_OP_MAP_GET || op == BOP_OP_MEMBER_GET ||
           (op == BOP_OP_SET_CONTAINS && result->existed);
}

static void encode_page(const struct watch *watch, const struct bop_operation *operation,
                        const struct bop_result *result, struct bop_writer *writer)
{
    uint8_t name_key[1 + BOP_NAME_MAX];
    struct bop_slice rest = result->entries;
    struct bop_scan_entry entry;
    struct bop_event event;

    if (operation->op == BOP_OP_COUNTER_GET) {
        event = (struct bop_event){.type = BOP_EVENT_COUNTER_SET,
                                   .flags = BOP_EVENT_SNAPSHOT,
                                   .name = operation->name,
                                   .number = result->number};
        bop_event_encode(writer, &event);
    } else if (single(operation->op, result, &entry) && event_of(watch, &entry, name_key, &event)) {
        bop_event_encode(writer, &event);
    }
    while (bop_scan_next(&rest, &entry)) {
        if (event_of(watch, &entry, name_key, &event)) {
            bop_event_encode(writer, &event);
        }
    }
}

/* ---- Going through ---- */

/* The next page into hub->out, and the cursor behind it. *out_more: another one follows. */
static int read_page(struct watch *watch, bool *out_more)
{
    struct watch_hub *hub = watch->conn->hub;
    struct watch_scan *scan = watch->scan;
    struct bop_operation operation = operation_of(watch);
    struct bop_result result = {0};
    struct bop_writer writer = bop_writer(&hub->out);
    int rc;

    bop_buf_clear(&hub->page);
    bop_buf_clear(&hub->out);
    rc = bop__machine_read(scan->view->view, &operation, &hub->page);
    if (rc < 0) {
        return rc;
    }
    if (rc == BOP_STATUS_OK &&
        bop_result_decode(operation.op, BOP_STATUS_OK, bop_buf_slice(&hub->page), &result) < 0) {
        return BOP_ECORRUPT;
    }
    if (rc == BOP_STATUS_OK) {
        encode_page(watch, &operation, &result, &writer);
    }
    bop_buf_clear(&scan->cursor);
    rc = bop_buf_append(&scan->cursor, result.cursor.data, result.cursor.size);
    *out_more = result.cursor.size > 0;
    if (!*out_more && operation.op == BOP_OP_NAMES && scan->kind < BOP_NAME_LOCK) {
        scan->kind++;
        *out_more = true;
    }
    return rc < 0 ? rc : writer.code;
}

enum watch_step bop__watch_snapshot_step(struct watch *watch)
{
    struct watch_conn *conn = watch->conn;
    struct watch_hub *hub = conn->hub;
    uint64_t revision;
    bool more;

    if (hub->pages_left == 0) {
        return WATCH_STEP_TURN;
    }
    if (bop__watch_queued(conn) > hub->options.queue_high) {
        if (watch->scan && hub->now_ms - watch->scan->begun_ms > WATCH_VIEW_MS) {
            watch->state = WATCH_LOST; /* A view must not be kept for those who do not listen. */
            bop__watch_scan_free(watch);
        }
        return WATCH_STEP_FULL;
    }
    if (!watch->scan && !begin(watch)) {
        return WATCH_STEP_LATER;
    }
    hub->pages_left--;
    if (read_page(watch, &more) < 0) {
        bop__watch_scan_free(watch);
        watch->state = WATCH_LOST;
        return WATCH_STEP_LATER;
    }
    revision = watch->scan->view->revision;
    if (!more) {
        bop__watch_scan_free(watch);
        watch->last = revision;
        watch->state = WATCH_REPLAY;
    }
    if (more && hub->out.size == 0) {
        return WATCH_STEP_NEXT; /* Nothing of it is within the bounds. */
    }
    bop__watch_tell(conn, watch, revision,
                    (uint8_t)(BOP_WATCH_EVENTS_SNAPSHOT | (more ? BOP_WATCH_EVENTS_MORE : 0)),
                    bop_buf_slice(&hub->out));
    return WATCH_STEP_NEXT;
}
