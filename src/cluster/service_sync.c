/*
 * The prototype's state-sync stream, kinds 73 and 74: a connection that has joined is told
 * the whole state and from then on every change of it, as operations by tag
 * (docs/design/wire-protocol.md).
 *
 * Messages are numbered from 1 and acknowledged; SYNC_WINDOW of them may be on their way.
 * The state is read page by page as it is then, while changes go on: each page shows all
 * changes told before it, and all operations may be done twice, so the receiver ends up with
 * what there is. Changes that find no room (SYNC_OPERATIONS_MAX) are dropped and the state is
 * told again from the beginning, each thing being deleted first; so it is when an
 * acknowledgement says ERR. What was deleted meanwhile is told in any case.
 */
#include "service_legacy.h"

#define SYNC_WINDOW         8
#define SYNC_OPERATIONS_MAX 1000 /* That wait, as in the prototype. */
#define SYNC_BYTES_MAX      (4u * 1024 * 1024)
#define SYNC_PAGE           256 /* Entries of a collection read at once. */
#define SYNC_QUEUE_MAX      (1024u * 1024)

enum sync_tag {
    SYNC_MAP_CREATED = 0,
    SYNC_MAP_UPDATED = 1,
    SYNC_MAP_DELETED = 2,
    SYNC_SET_CREATED = 3,
    SYNC_SET_UPDATED = 4,
    SYNC_SET_DELETED = 5,
    SYNC_COUNTER_CREATED = 6,
    SYNC_COUNTER_UPDATED = 7,
    SYNC_COUNTER_DELETED = 8,
    SYNC_MULTIMAP_CREATED = 9,
    SYNC_MULTIMAP_UPDATED = 10,
    SYNC_MULTIMAP_KEY_CLEARED = 11,
    SYNC_MULTIMAP_DELETED = 12,
    SYNC_LOCK_CREATED = 13,
    SYNC_LOCK_ACQUIRED = 14,
    SYNC_LOCK_RELEASED = 15,
    SYNC_LOCK_DELETED = 16,
    SYNC_NODE_JOINED = 17,
    SYNC_NODE_LEFT = 18,
    SYNC_NODE_CONNECTION_ADDED = 19,
    SYNC_NODE_CONNECTION_REMOVED = 20,
};

/* What the state is told in: one kind of thing after another. */
static const struct phase {
    enum bop_name_kind kind;
    enum bop_op scan; /* Of what is in one; 0: nothing is, or it is told otherwise. */
    enum sync_tag created;
    enum sync_tag updated;
    enum sync_tag deleted;
} phases[] = {
    {BOP_NAME_MAP, BOP_OP_MAP_SCAN, SYNC_MAP_CREATED, SYNC_MAP_UPDATED, SYNC_MAP_DELETED},
    {BOP_NAME_SET, BOP_OP_SET_SCAN, SYNC_SET_CREATED, SYNC_SET_UPDATED, SYNC_SET_DELETED},
    {BOP_NAME_MULTIMAP, BOP_OP_MULTIMAP_ENTRIES, SYNC_MULTIMAP_CREATED, SYNC_MULTIMAP_UPDATED,
     SYNC_MULTIMAP_DELETED},
    {BOP_NAME_COUNTER, 0, SYNC_COUNTER_CREATED, SYNC_COUNTER_UPDATED, SYNC_COUNTER_DELETED},
    {BOP_NAME_LOCK, BOP_OP_LOCK_GET, SYNC_LOCK_CREATED, SYNC_LOCK_ACQUIRED, SYNC_LOCK_DELETED},
};
#define NODES_PHASE BOP_COUNT_OF(phases)
#define DONE_PHASE  (NODES_PHASE + 1)

struct sync {
    struct bop_list link; /* In service->syncs. */
    struct service_conn *conn;
    uint64_t sent; /* The number of the last message. */
    uint64_t acked;
    struct bop_buf operations; /* That wait. */
    uint32_t count;
    struct bop_buf gone; /* Of them, those that no telling of the state makes up for. */
    uint32_t gone_count;
    /* Where the telling of the state is. */
    size_t phase;
    bool again;          /* Not the first time. */
    struct bop_buf name; /* The one whose content is told; empty: the next one is looked for. */
    struct bop_buf name_cursor; /* Behind it; empty at the first. */
    struct bop_buf cursor;      /* In its content. */
    bool last_name;
};

/* ---- Operations that wait ---- */

static struct bop_writer add(struct sync *sync, enum sync_tag tag, struct bop_slice name)
{
    struct bop_writer writer = bop_writer(&sync->operations);

    sync->count++;
    bop_write_u8(&writer, (uint8_t)tag);
    bop_write_bytes(&writer, name);
    return writer;
}

static void restart(struct sync *sync)
{
    sync->phase = 0;
    sync->again = true;
    sync->last_name = false;
    bop_buf_clear(&sync->name);
    bop_buf_clear(&sync->name_cursor);
    bop_buf_clear(&sync->cursor);
}

/* It may join again, and is told all. */
static void hang_up(struct sync *sync)
{
    if (!sync->conn->closed) {
        sync->conn->io->close(sync->conn->user);
    }
}

/* Too much waits, or memory is short: drop it and tell the state again. */
static void fall_behind(struct sync *sync)
{
    restart(sync);
    bop_buf_clear(&sync->operations);
    sync->count = sync->gone_count;
    if (bop_buf_append(&sync->operations, sync->gone.data, sync->gone.size) < 0 ||
        sync->gone_count > SYNC_OPERATIONS_MAX) {
        hang_up(sync);
    }
}

/* A deletion counts even if the rest is dropped. */
static void note_gone(struct sync *sync, size_t begin)
{
    sync->gone_count++;
    if (bop_buf_append(&sync->gone, sync->operations.data + begin, sync->operations.size - begin) <
        0) {
        sync->gone_count = SYNC_OPERATIONS_MAX + 1;
        fall_behind(sync);
    }
}

/* ---- Changes ---- */

/* Labels are bytes; of nodes they are their ids. */
static struct bop_slice node_of(struct bop_slice label)
{
    return bop_slice_is_utf8(label) ? label : bop_slice(NULL, 0);
}

static int add_pair(struct sync *sync, enum sync_tag tag, const struct bop_event *event, bool added)
{
    struct bop_writer writer = add(sync, tag, event->name);

    bop_write_bytes(&writer, event->key);
    if (tag == SYNC_MULTIMAP_UPDATED) {
        bop_write_bytes(&writer, event->value);
    }
    bop_write_bool(&writer, added);
    return writer.code;
}

static int add_entry(struct sync *sync, const struct bop_event *event, bool there)
{
    struct bop_writer writer = add(sync, SYNC_MAP_UPDATED, event->name);

    bop_write_bytes(&writer, event->key);
    bop_write_bool(&writer, there);
    if (there) {
        bop_write_bytes(&writer, event->value);
    }
    return writer.code;
}

static int add_counter(struct sync *sync, struct bop_slice name, int64_t value)
{
    struct bop_writer writer = add(sync, SYNC_COUNTER_UPDATED, name);

    bop_write_i64(&writer, value);
    return writer.code;
}

static int add_lock(struct sync *sync, enum sync_tag tag, struct bop_slice name,
                    struct bop_slice label)
{
    struct bop_writer writer = add(sync, tag, name);

    bop_write_bytes(&writer, node_of(label));
    return writer.code;
}

static int add_connection(struct sync *sync, enum sync_tag tag, struct bop_slice id,
                          uint64_t session)
{
    struct bop_writer writer = add(sync, tag, id);

    bop_write_u64(&writer, session);
    return writer.code;
}

/* A cleared collection is another one of the same name. */
static int add_clear(struct sync *sync, enum sync_tag deleted, enum sync_tag created,
                     struct bop_slice name)
{
    struct bop_writer writer = add(sync, deleted, name);

    return writer.code ? writer.code : add(sync, created, name).code;
}

static int add_gone(struct sync *sync, enum sync_tag tag, struct bop_slice name)
{
    size_t begin = sync->operations.size;
    struct bop_writer writer = add(sync, tag, name);

    if (writer.code == 0) {
        note_gone(sync, begin);
    }
    return writer.code;
}

static int add_member(struct sync *sync, const struct bop_event *event)
{
    struct bop_slice id = bop__service_node_id(event->name, event->key);
    int rc;

    if (id.size == 0) {
        return 0;
    }
    if (event->type == BOP_EVENT_MEMBER_LEAVE) {
        return add_connection(sync, SYNC_NODE_CONNECTION_REMOVED, id, event->session);
    }
    rc = add(sync, SYNC_NODE_JOINED, id).code;
    return rc ? rc : add_connection(sync, SYNC_NODE_CONNECTION_ADDED, id, event->session);
}

static int add_event(struct sync *sync, const struct bop_event *event)
{
    switch (event->type) {
    case BOP_EVENT_MAP_CREATE:
        return add(sync, SYNC_MAP_CREATED, event->name).code;
    case BOP_EVENT_MAP_PUT:
    case BOP_EVENT_MAP_DELETE:
        return add_entry(sync, event, event->type == BOP_EVENT_MAP_PUT);
    case BOP_EVENT_MAP_CLEAR:
        return add_clear(sync, SYNC_MAP_DELETED, SYNC_MAP_CREATED, event->name);
    case BOP_EVENT_SET_CREATE:
        return add(sync, SYNC_SET_CREATED, event->name).code;
    case BOP_EVENT_SET_ADD:
    case BOP_EVENT_SET_REMOVE:
        return add_pair(sync, SYNC_SET_UPDATED, event, event->type == BOP_EVENT_SET_ADD);
    case BOP_EVENT_SET_CLEAR:
        return add_clear(sync, SYNC_SET_DELETED, SYNC_SET_CREATED, event->name);
    case BOP_EVENT_COUNTER_CREATE:
        return add(sync, SYNC_COUNTER_CREATED, event->name).code;
    case BOP_EVENT_COUNTER_SET:
        return add_counter(sync, event->name, event->number);
    case BOP_EVENT_COUNTER_DELETE:
        return add_gone(sync, SYNC_COUNTER_DELETED, event->name);
    case BOP_EVENT_MULTIMAP_CREATE:
        return add(sync, SYNC_MULTIMAP_CREATED, event->name).code;
    case BOP_EVENT_MULTIMAP_PUT:
    case BOP_EVENT_MULTIMAP_REMOVE_VALUE:
        return add_pair(sync, SYNC_MULTIMAP_UPDATED, event, event->type == BOP_EVENT_MULTIMAP_PUT);
    case BOP_EVENT_MULTIMAP_REMOVE: {
        struct bop_writer writer = add(sync, SYNC_MULTIMAP_KEY_CLEARED, event->name);

        bop_write_bytes(&writer, event->key);
        return writer.code;
    }
    case BOP_EVENT_MULTIMAP_CLEAR:
        return add_clear(sync, SYNC_MULTIMAP_DELETED, SYNC_MULTIMAP_CREATED, event->name);
    case BOP_EVENT_LOCK_CREATE:
        return add(sync, SYNC_LOCK_CREATED, event->name).code;
    case BOP_EVENT_LOCK_GRANT:
        return add_lock(sync, SYNC_LOCK_ACQUIRED, event->name, event->value);
    case BOP_EVENT_LOCK_RELEASE:
        return add_lock(sync, SYNC_LOCK_RELEASED, event->name, event->value);
    case BOP_EVENT_LOCK_DELETE:
        return add_gone(sync, SYNC_LOCK_DELETED, event->name);
    case BOP_EVENT_MEMBER_JOIN:
    case BOP_EVENT_MEMBER_LEAVE:
        return add_member(sync, event);
    default:
        return 0; /* The prototype has no word for it. */
    }
}

static bool may_see(const struct sync *sync, struct bop_slice name)
{
    return !sync->conn->who.auth || bop__auth_allows(&sync->conn->who, BOP_RIGHT_READ, name);
}

static void take_event(struct sync *sync, const struct bop_event *event)
{
    if (may_see(sync, event->name) && add_event(sync, event) < 0) {
        fall_behind(sync);
    }
    if (sync->count > SYNC_OPERATIONS_MAX || sync->operations.size > SYNC_BYTES_MAX) {
        fall_behind(sync);
    }
}

void bop__service_sync_events(struct service *service, struct bop_slice events)
{
    struct bop_event event;

    if (bop_list_empty(&service->syncs)) {
        return;
    }
    while (bop_event_next(&events, &event) == 1) {
        struct bop_slice id = bop__service_node_id(event.name, event.key);
        struct bop_writer writer = bop_writer(&service->nodes_left);

        if (event.type == BOP_EVENT_MEMBER_LEAVE && id.size > 0) {
            bop_write_bytes(&writer, id); /* Without memory nobody is told that it left. */
        }
        BOP_LIST_FOR_EACH(link, &service->syncs) {
            take_event(BOP_CONTAINER_OF(link, struct sync, link), &event);
        }
    }
}

void bop__service_sync_reset(struct service *service)
{
    BOP_LIST_FOR_EACH(link, &service->syncs) {
        /* What was deleted while nobody looked cannot be known: they join again. */
        hang_up(BOP_CONTAINER_OF(link, struct sync, link));
    }
}

/* Events are looked at one by one, so one that may see less goes on. */
void bop__service_sync_review(struct service *service)
{
    BOP_LIST_FOR_EACH(link, &service->syncs) {
        struct sync *sync = BOP_CONTAINER_OF(link, struct sync, link);

        if (!bop__auth_known(&sync->conn->who)) {
            hang_up(sync);
        }
    }
}

/* ---- The state ---- */

/* Run a read; 0, or a code, or a bop_status above 0. */
static int ask(struct machine_view *view, const struct bop_operation *operation,
               struct bop_buf *page, struct bop_result *out_result)
{
    int rc;

    bop_buf_clear(page);
    rc = bop__machine_read(view, operation, page);
    return rc ? rc
              : bop_result_decode(operation->op, BOP_STATUS_OK, bop_buf_slice(page), out_result);
}

static int move(struct bop_buf *cursor, struct bop_slice to)
{
    bop_buf_clear(cursor);
    return bop_buf_append(cursor, to.data, to.size);
}

/* One entry of a map, a set, a multimap or a lock. */
static int tell_entry(struct sync *sync, const struct phase *phase,
                      const struct bop_scan_entry *entry)
{
    struct bop_event event = {
        .name = bop_buf_slice(&sync->name), .key = entry->key, .value = entry->value};

    switch (phase->kind) {
    case BOP_NAME_MAP:
        return add_entry(sync, &event, true);
    case BOP_NAME_LOCK:
        /* Those that wait are not told of. */
        return bop_load_u64(entry->value.data + 8) == 0
                   ? 0
                   : add_lock(sync, phase->updated, event.name, entry->key);
    default:
        return add_pair(sync, phase->updated, &event, true);
    }
}

static int tell_content(struct sync *sync, const struct phase *phase, struct machine_view *view,
                        struct bop_buf *page)
{
    struct bop_operation scan = {.op = phase->scan,
                                 .name = bop_buf_slice(&sync->name),
                                 .cursor = bop_buf_slice(&sync->cursor),
                                 .limit = SYNC_PAGE};
    struct bop_scan_entry entry;
    struct bop_result result = {0};
    int rc = ask(view, &scan, page, &result);

    if (rc == BOP_STATUS_NOT_FOUND) {
        rc = 0; /* A lock that went meanwhile. */
    }
    while (rc == 0 && bop_scan_next(&result.entries, &entry)) {
        rc = tell_entry(sync, phase, &entry);
    }
    if (rc == 0) {
        rc = move(&sync->cursor, result.cursor);
    }
    if (sync->cursor.size == 0) {
        bop_buf_clear(&sync->name);
    }
    return rc;
}

/* The next thing of this kind, and all of it but its content. */
static int tell_name(struct sync *sync, const struct phase *phase, struct machine_view *view,
                     struct bop_buf *page)
{
    struct bop_operation names = {.op = BOP_OP_NAMES,
                                  .kind = phase->kind,
                                  .cursor = bop_buf_slice(&sync->name_cursor),
                                  .limit = 1};
    struct bop_scan_entry entry;
    struct bop_result result = {0};
    int rc = sync->last_name ? 0 : ask(view, &names, page, &result);

    if (rc != 0) {
        return rc;
    }
    if (sync->last_name || !bop_scan_next(&result.entries, &entry)) {
        sync->phase++;
        sync->last_name = false;
        bop_buf_clear(&sync->name_cursor);
        return 0;
    }
    sync->last_name = result.cursor.size == 0;
    rc = move(&sync->name_cursor, result.cursor);
    if (rc < 0 || !may_see(sync, entry.key)) {
        return rc;
    }
    if (sync->again) {
        rc = add(sync, phase->deleted, entry.key).code;
    }
    if (rc == 0) {
        rc = add(sync, phase->created, entry.key).code;
    }
    if (rc == 0 && phase->kind == BOP_NAME_COUNTER && entry.value.size == 8) {
        return add_counter(sync, entry.key, (int64_t)bop_load_u64(entry.value.data));
    }
    return rc ? rc : move(&sync->name, entry.key);
}

static int tell_node(void *user, struct bop_slice id, uint64_t session)
{
    struct sync *sync = user;
    int rc = add(sync, SYNC_NODE_JOINED, id).code;

    return rc ? rc : add_connection(sync, SYNC_NODE_CONNECTION_ADDED, id, session);
}

/* A page of the state, as it is now, behind the operations that wait. 0, a status or a code. */
static int tell_page(struct sync *sync, struct machine_view *view)
{
    struct bop_allocator *allocator = sync->conn->service->allocator;
    struct bop_buf page;
    int rc = 0;

    bop_buf_init(&page, allocator, 0);
    while (rc == 0 && sync->phase < NODES_PHASE && sync->count < SYNC_PAGE) {
        const struct phase *phase = &phases[sync->phase];

        rc = sync->name.size > 0 ? tell_content(sync, phase, view, &page)
                                 : tell_name(sync, phase, view, &page);
    }
    if (rc == 0 && sync->phase == NODES_PHASE && sync->count < SYNC_PAGE) {
        rc = bop__service_each_node(view, allocator, tell_node, sync);
        sync->phase++;
    }
    bop_buf_deinit(&page);
    return rc;
}

/* ---- Messages ---- */

static bool has_room(const struct sync *sync)
{
    const struct service_conn *conn = sync->conn;

    return !conn->closed && sync->sent - sync->acked < SYNC_WINDOW &&
           (!conn->io->queued || conn->io->queued(conn->user) < SYNC_QUEUE_MAX);
}

static void send(struct sync *sync)
{
    size_t at;
    struct bop_buf *out = bop__service_begin(sync->conn, &at);
    struct bop_writer writer;

    if (!out) {
        return;
    }
    writer = bop_writer(out);
    bop_write_u64(&writer, ++sync->sent);
    bop_write_u32(&writer, sync->count);
    bop_write_raw(&writer, bop_buf_slice(&sync->operations));
    bop__service_end(sync->conn, out, at, BOP_WIRE_KIND_STATE_SYNC, BOP_WIRE_REQUEST,
                     (uint32_t)sync->sent, &writer);
    bop_buf_clear(&sync->operations);
    bop_buf_clear(&sync->gone);
    sync->count = 0;
    sync->gone_count = 0;
}

static void go_on(struct sync *sync, struct machine_view **view)
{
    struct replica *replica = sync->conn->service->replica;

    while (has_room(sync)) {
        if (sync->phase < DONE_PHASE) {
            if ((!*view && bop__replica_view_open(replica, view) < 0) ||
                tell_page(sync, *view) != 0) {
                fall_behind(sync); /* No memory, or no state just now: later. */
                return;
            }
        }
        if (sync->count == 0) {
            return;
        }
        send(sync);
    }
}

static int same_node(void *user, struct bop_slice id, uint64_t session)
{
    return bop_slice_equal(id, *(const struct bop_slice *)user);
}

/* A node leaves with its last connection. */
static void tell_nodes_left(struct service *service, struct machine_view *view)
{
    struct bop_reader reader = bop_reader(bop_buf_slice(&service->nodes_left));

    while (bop_reader_left(&reader) > 0) {
        struct bop_slice id = bop_read_bytes(&reader);

        if (bop__service_each_node(view, service->allocator, same_node, &id) != 0) {
            continue;
        }
        BOP_LIST_FOR_EACH(link, &service->syncs) {
            struct sync *sync = BOP_CONTAINER_OF(link, struct sync, link);

            if (add_gone(sync, SYNC_NODE_LEFT, id) < 0) {
                fall_behind(sync);
            }
        }
    }
    bop_buf_clear(&service->nodes_left);
}

void bop__service_sync_turn(struct service *service)
{
    struct machine_view *view = NULL;

    if (bop_list_empty(&service->syncs) || !bop__replica_machine(service->replica)) {
        return;
    }
    if (service->nodes_left.size > 0 && bop__replica_view_open(service->replica, &view) == 0) {
        tell_nodes_left(service, view);
    }
    BOP_LIST_FOR_EACH(link, &service->syncs) {
        go_on(BOP_CONTAINER_OF(link, struct sync, link), &view);
    }
    bop__machine_view_close(view);
}

/* ---- Connections ---- */

int bop__service_sync_begin(struct service_conn *conn, struct sync **out_sync)
{
    struct bop_allocator *allocator = conn->service->allocator;
    struct sync *sync = bop_alloc_zeroed(allocator, sizeof(*sync));

    if (!sync) {
        return BOP_ENOMEM;
    }
    sync->conn = conn;
    bop_buf_init(&sync->operations, allocator, 0);
    bop_buf_init(&sync->gone, allocator, 0);
    bop_buf_init(&sync->name, allocator, 0);
    bop_buf_init(&sync->name_cursor, allocator, 0);
    bop_buf_init(&sync->cursor, allocator, 0);
    bop_list_push_back(&conn->service->syncs, &sync->link);
    *out_sync = sync;
    return 0;
}

void bop__service_sync_end(struct sync *sync)
{
    if (!sync) {
        return;
    }
    bop_list_remove(&sync->link);
    bop_buf_deinit(&sync->operations);
    bop_buf_deinit(&sync->gone);
    bop_buf_deinit(&sync->name);
    bop_buf_deinit(&sync->name_cursor);
    bop_buf_deinit(&sync->cursor);
    bop_free(sync->conn->service->allocator, sync, sizeof(*sync));
}

int bop__service_sync_acked(struct sync *sync, struct bop_slice payload)
{
    struct bop_reader reader = bop_reader(payload); /* It was checked. */
    uint8_t code = bop_read_u8(&reader);
    uint64_t number = bop_read_u64(&reader);

    if (!sync || number > sync->sent) {
        return BOP_EPROTOCOL;
    }
    sync->acked = bop_max_u64(sync->acked, number);
    if (code != 0) {
        restart(sync);
    }
    return 0;
}
