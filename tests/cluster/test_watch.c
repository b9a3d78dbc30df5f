#include "watch.h"

#include <bop/random.h>

#include "tap.h"
#include "watch_internal.h"

#define BEGIN      100 /* Told before the hub is made. */
#define HIGH       4096
#define LOW        1024
#define RECORDS    4096
#define FRAME_SIZE 25 /* Of a frame without events. */

/* What a client was told. */
struct record {
    uint32_t watch;
    uint64_t revision;
    uint8_t flags;
    unsigned count; /* Events... */
    uint8_t type;   /* ...and what the first one is. */
    uint8_t event_flags;
    char key[32];
    char value[32];
    char previous[32];
};

struct client {
    struct watch_conn *conn;
    struct record records[RECORDS];
    unsigned count;
    unsigned read;
    size_t queued;
    bool stuck;                    /* Nothing leaves the queue. */
    const char *denied;            /* What it may not watch; NULL: it may watch all. */
    struct watch_subject reviewed; /* Asked for last. */
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_metrics *metrics;
    struct watch_hub *hub;
    struct client *client;
    struct bop_buf events;
    uint64_t revision;
    uint64_t now_ms;
};

static void keep_text(char *out, size_t size, struct bop_slice text)
{
    size_t length = bop_min_u64(text.size, size - 1);

    if (length > 0) {
        memcpy(out, text.data, length);
    }
    out[length] = '\0';
}

static void on_tell(void *user, uint32_t watch, const struct bop_watch_events *events)
{
    struct client *client = (struct client *)user;
    struct record *record = &client->records[client->count];
    struct bop_slice rest = events->events;
    struct bop_event event;
    int rc;

    REQUIRE(client->count < RECORDS);
    client->count++;
    *record = (struct record){.watch = watch, .revision = events->revision, .flags = events->flags};
    while ((rc = bop_event_next(&rest, &event)) > 0) {
        if (record->count++ == 0) {
            record->type = (uint8_t)event.type;
            record->event_flags = event.flags;
            keep_text(record->key, sizeof(record->key), event.key);
            keep_text(record->value, sizeof(record->value), event.value);
            keep_text(record->previous, sizeof(record->previous), event.previous);
        }
    }
    CHECK_EQ(rc, 0);
    if (client->stuck) {
        client->queued += FRAME_SIZE + events->events.size;
    }
}

static size_t on_queued(void *user)
{
    return ((struct client *)user)->queued;
}

static bool on_allows(void *user, const struct watch_subject *subject)
{
    struct client *client = (struct client *)user;

    client->reviewed = *subject;
    return !client->denied || !bop_slice_equal(subject->name, bytes(client->denied));
}

static const struct watch_sink sink = {.tell = on_tell, .queued = on_queued, .allows = on_allows};

static struct client *make_client(struct fixture *f)
{
    struct client *client = (struct client *)bop_alloc_zeroed(bop_allocator_default(),
                                                              sizeof(*client));

    REQUIRE(client);
    REQUIRE_EQ(bop__watch_connect(f->hub, &sink, client, &client->conn), 0);
    return client;
}

static void free_client(struct client *client)
{
    bop__watch_disconnect(client->conn);
    bop_free(bop_allocator_default(), client, sizeof(*client));
}

static int make_hub_at(struct fixture *f, uint64_t revision)
{
    struct watch_options options = {.allocator = &f->heap.allocator,
                                    .metrics = f->metrics,
                                    .revision = revision,
                                    .seed = 3,
                                    .history_bytes_max = 3 * HISTORY_CHUNK,
                                    .watches_conn_max = 300,
                                    .watches_max = 1000,
                                    .queue_high = HIGH,
                                    .queue_low = LOW};

    f->revision = revision;
    f->now_ms = 1000;
    return bop__watch_hub_create(&options, &f->hub);
}

static int make_hub(struct fixture *f)
{
    return make_hub_at(f, BEGIN);
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop_metrics_create(NULL, &f->metrics), 0);
    REQUIRE_EQ(make_hub(f), 0);
    bop_buf_init(&f->events, NULL, 0);
    f->client = make_client(f);
}

static void teardown(struct fixture *f)
{
    f->faults.fail_at = 0;
    free_client(f->client);
    bop__watch_hub_destroy(f->hub);
    bop_metrics_destroy(f->metrics);
    bop_buf_deinit(&f->events);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* ---- Entries ---- */

static void add(struct fixture *f, const struct bop_event *event)
{
    struct bop_writer writer = bop_writer(&f->events);

    bop_event_encode(&writer, event);
    REQUIRE_EQ(writer.code, 0);
}

/* An entry of what was added. */
static void apply(struct fixture *f)
{
    bop__watch_hub_events(f->hub, ++f->revision, bop_buf_slice(&f->events));
    bop_buf_clear(&f->events);
}

static struct bop_event put_event(const char *map, const char *key, const char *value)
{
    return (struct bop_event){
        .type = BOP_EVENT_MAP_PUT, .name = bytes(map), .key = bytes(key), .value = bytes(value)};
}

static void put(struct fixture *f, const char *map, const char *key, const char *value)
{
    struct bop_event event = put_event(map, key, value);

    add(f, &event);
    apply(f);
}

static uint64_t turn(struct fixture *f)
{
    f->now_ms++;
    return bop__watch_hub_turn(f->hub, f->revision, f->now_ms);
}

/* As many turns as the hub asks for at once. */
static void turns(struct fixture *f)
{
    while (turn(f) <= f->now_ms) {
    }
}

/* ---- Watches ---- */

static uint8_t open_as(struct client *client, uint32_t id,
                       const struct bop_watch_open_request *request, uint64_t *out_revision)
{
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);
    struct bop_watch_open_request decoded;
    uint8_t status;

    bop_buf_init(&buf, NULL, 0);
    bop_watch_open_request_encode(&writer, request);
    REQUIRE_EQ(bop_watch_open_request_decode(bop_buf_slice(&buf), &decoded), 0);
    status = bop__watch_open(client->conn, id, &decoded, out_revision);
    bop_buf_deinit(&buf); /* The hub has what it needs. */
    return status;
}

static void open_watch(struct client *client, uint32_t id,
                       const struct bop_watch_open_request *request)
{
    uint64_t revision;

    REQUIRE_EQ(open_as(client, id, request, &revision), BOP_STATUS_OK);
}

static struct bop_watch_open_request of_key(const char *map, const char *key)
{
    static char to[32];

    REQUIRE(strlen(key) < sizeof(to));
    memset(to, 0, sizeof(to));
    memcpy(to, key, strlen(key));
    return (struct bop_watch_open_request){.what = BOP_WATCH_MAP,
                                           .name = bytes(map),
                                           .from = bytes(key),
                                           .to = bop_slice(to, strlen(key) + 1)};
}

static struct bop_watch_open_request of_map(const char *map)
{
    return (struct bop_watch_open_request){.what = BOP_WATCH_MAP, .name = bytes(map)};
}

static const struct record *next(struct client *client)
{
    static const struct record none;

    if (client->read == client->count) {
        CHECK(!"something more was told");
        return &none;
    }
    return &client->records[client->read++];
}

static bool is_quiet(const struct client *client)
{
    return client->read == client->count;
}

static void expect_put(struct client *client, uint32_t watch, uint64_t revision, const char *key,
                       const char *value)
{
    const struct record *record = next(client);

    CHECK_EQ(record->watch, watch);
    CHECK_EQ(record->revision, revision);
    CHECK_EQ(record->flags, 0);
    CHECK_EQ(record->count, 1);
    CHECK_EQ(record->type, BOP_EVENT_MAP_PUT);
    CHECK_STR_EQ(record->key, key);
    CHECK_STR_EQ(record->value, value);
}

static void expect_flags(struct client *client, uint32_t watch, uint64_t revision, uint8_t flags)
{
    const struct record *record = next(client);

    CHECK_EQ(record->watch, watch);
    CHECK_EQ(record->revision, revision);
    CHECK_EQ(record->flags, flags);
    CHECK_EQ(record->count, 0);
}

/* ---- Which events ---- */

TEST(watch, of_a_key_hears_of_it_only)
{
    struct bop_watch_open_request request = of_key("m", "k");

    open_watch(f->client, 7, &request);
    put(f, "m", "j", "no");
    put(f, "m", "k", "yes");
    put(f, "m", "kk", "no");
    put(f, "n", "k", "no");
    expect_put(f->client, 7, BEGIN + 2, "k", "yes");
    CHECK(is_quiet(f->client));
    CHECK_EQ(bop__watch_hub_count(f->hub), 1);
}

TEST(watch, of_a_prefix)
{
    struct bop_watch_open_request request = of_map("m");

    request.prefix = bytes("ab");
    open_watch(f->client, 1, &request);
    put(f, "m", "aa", "no");
    put(f, "m", "ab", "1");
    put(f, "m", "abz", "2");
    put(f, "m", "ac", "no");
    expect_put(f->client, 1, BEGIN + 2, "ab", "1");
    expect_put(f->client, 1, BEGIN + 3, "abz", "2");
    CHECK(is_quiet(f->client));
}

TEST(watch, of_a_prefix_of_the_highest_bytes)
{
    struct bop_watch_open_request request = of_map("m");

    request.prefix = bytes("\xff\xff");
    open_watch(f->client, 1, &request);
    put(f, "m", "\xff", "no");
    put(f, "m", "\xff\xff", "1");
    put(f, "m", "\xff\xff\xff", "2");
    expect_put(f->client, 1, BEGIN + 2, "\xff\xff", "1");
    expect_put(f->client, 1, BEGIN + 3, "\xff\xff\xff", "2");
    CHECK(is_quiet(f->client));
}

TEST(watch, of_a_range_within_a_prefix)
{
    struct bop_watch_open_request request = of_map("m");

    request.prefix = bytes("a");
    request.from = bytes("ac");
    request.to = bytes("b");
    open_watch(f->client, 1, &request);
    put(f, "m", "ab", "no");
    put(f, "m", "ac", "1");
    put(f, "m", "az", "2");
    put(f, "m", "b", "no");
    expect_put(f->client, 1, BEGIN + 2, "ac", "1");
    expect_put(f->client, 1, BEGIN + 3, "az", "2");
    CHECK(is_quiet(f->client));
}

TEST(watch, clears_concern_every_key_and_creates_none)
{
    struct bop_watch_open_request whole = of_map("m"), key = of_key("m", "k");
    struct bop_event clear = {.type = BOP_EVENT_MAP_CLEAR, .name = bytes("m"), .number = 3};
    struct bop_event create = {.type = BOP_EVENT_MAP_CREATE, .name = bytes("m")};

    open_watch(f->client, 1, &whole);
    open_watch(f->client, 2, &key);
    add(f, &create);
    apply(f);
    CHECK_EQ(next(f->client)->watch, 1);
    CHECK(is_quiet(f->client));
    add(f, &clear);
    apply(f);
    CHECK_EQ(next(f->client)->type, BOP_EVENT_MAP_CLEAR);
    CHECK_EQ(next(f->client)->type, BOP_EVENT_MAP_CLEAR);
    CHECK(is_quiet(f->client));
}

TEST(watch, hears_what_was_there_before_if_it_asks)
{
    struct bop_watch_open_request request = of_map("m");
    struct bop_event event = put_event("m", "k", "new");
    const struct record *record;

    open_watch(f->client, 1, &request);
    request.flags = BOP_WATCH_PREVIOUS;
    open_watch(f->client, 2, &request);
    event.flags = BOP_EVENT_HAD_PREVIOUS;
    event.previous = bytes("old");
    add(f, &event);
    apply(f);
    for (int n = 0; n < 2; n++) {
        record = next(f->client);
        CHECK_STR_EQ(record->value, "new");
        CHECK_STR_EQ(record->previous, record->watch == 2 ? "old" : "");
        CHECK_EQ(record->event_flags,
                 BOP_EVENT_HAD_PREVIOUS | (record->watch == 2 ? 0 : BOP_EVENT_NO_PREVIOUS));
    }
    CHECK(is_quiet(f->client));
}

TEST(watch, hears_of_an_entry_in_one_frame)
{
    struct bop_watch_open_request whole = of_map("m"), key = of_key("m", "b");
    static const char *const keys[] = {"a", "b", "c", "b"};
    bool whole_told = false;

    open_watch(f->client, 1, &whole);
    open_watch(f->client, 2, &key);
    for (size_t n = 0; n < 4; n++) {
        struct bop_event event = put_event("m", keys[n], "v");

        add(f, &event);
    }
    apply(f);
    for (int n = 0; n < 2; n++) {
        const struct record *record = next(f->client);

        whole_told = whole_told || record->watch == 1;
        CHECK_EQ(record->count, record->watch == 1 ? 4 : 2);
        CHECK_STR_EQ(record->key, record->watch == 1 ? "a" : "b");
        CHECK_EQ(record->flags, 0);
    }
    CHECK(whole_told);
    CHECK(is_quiet(f->client));
}

TEST(watch, a_large_entry_comes_in_pieces)
{
    struct bop_watch_open_request request = of_map("m");
    static uint8_t value[300 * 1024];
    unsigned told = 0;

    open_watch(f->client, 1, &request);
    for (int n = 0; n < 10; n++) {
        struct bop_event event = put_event("m", "k", "");

        event.value = bop_slice(value, sizeof(value));
        add(f, &event);
    }
    apply(f);
    while (!is_quiet(f->client)) {
        const struct record *record = next(f->client);

        told += record->count;
        CHECK_EQ(record->revision, BEGIN + 1);
        CHECK_EQ(record->flags, told < 10 ? BOP_WATCH_EVENTS_MORE : 0);
    }
    CHECK_EQ(told, 10);
}

TEST(watch, an_entry_too_large_is_a_resync)
{
    struct bop_watch_open_request request = of_map("m");
    static uint8_t value[4 * 1024 * 1024];

    open_watch(f->client, 1, &request);
    for (int n = 0; n < 9; n++) {
        struct bop_event event = put_event("m", "k", "");

        event.value = bop_slice(value, sizeof(value));
        add(f, &event);
    }
    apply(f);
    turns(f);
    expect_flags(f->client, 1, BEGIN + 1, BOP_WATCH_EVENTS_RESYNC);
    CHECK_EQ(bop__watch_hub_count(f->hub), 0);
}

TEST(watch, of_a_session_hears_of_what_it_owns)
{
    static const uint8_t id[9] = {0, 0, 0, 0, 0, 0, 0x01, 0x02};
    struct bop_watch_open_request request = {
        .what = BOP_WATCH_SESSION, .from = bop_slice(id, 8), .to = bop_slice(id, 9)};
    struct bop_event grant = {
        .type = BOP_EVENT_LOCK_GRANT, .name = bytes("l"), .session = 0x0102, .token = 5};
    struct bop_event other = {.type = BOP_EVENT_LOCK_GRANT, .name = bytes("l"), .session = 0x0103};
    struct bop_event end = {.type = BOP_EVENT_SESSION_END, .session = 0x0102};

    open_watch(f->client, 1, &request);
    add(f, &grant);
    add(f, &other);
    apply(f);
    add(f, &end);
    apply(f);
    CHECK_EQ(next(f->client)->type, BOP_EVENT_LOCK_GRANT);
    CHECK_EQ(next(f->client)->type, BOP_EVENT_SESSION_END);
    CHECK(is_quiet(f->client));
}

TEST(watch, of_names_hears_what_is_made)
{
    struct bop_watch_open_request all = {.what = BOP_WATCH_NAMES};
    struct bop_watch_open_request some = {.what = BOP_WATCH_NAMES, .prefix = bytes("\4app/")};
    struct bop_event map = {.type = BOP_EVENT_MAP_CREATE, .name = bytes("app/m")};
    struct bop_event counter = {.type = BOP_EVENT_COUNTER_CREATE, .name = bytes("app/c")};

    open_watch(f->client, 1, &all);
    open_watch(f->client, 2, &some);
    add(f, &map);
    apply(f);
    CHECK_EQ(next(f->client)->watch, 1);
    CHECK(is_quiet(f->client));
    put(f, "app/m", "k", "v");
    CHECK(is_quiet(f->client));
    add(f, &counter);
    apply(f);
    CHECK_EQ(next(f->client)->type, BOP_EVENT_COUNTER_CREATE);
    CHECK_EQ(next(f->client)->type, BOP_EVENT_COUNTER_CREATE);
    CHECK(is_quiet(f->client));
}

TEST(watch, of_other_kinds)
{
    static const struct {
        uint8_t what;
        enum bop_event_type type;
    } rows[] = {
        {BOP_WATCH_SET, BOP_EVENT_SET_ADD},
        {BOP_WATCH_MULTIMAP, BOP_EVENT_MULTIMAP_REMOVE},
        {BOP_WATCH_COUNTER, BOP_EVENT_COUNTER_SET},
        {BOP_WATCH_LOCK, BOP_EVENT_LOCK_RELEASE},
        {BOP_WATCH_GROUP, BOP_EVENT_MEMBER_LEAVE},
        {BOP_WATCH_REGISTRY, BOP_EVENT_REGISTRATION_ADD},
    };

    for (uint32_t n = 0; n < BOP_COUNT_OF(rows); n++) {
        struct bop_watch_open_request request = {.what = rows[n].what, .name = bytes("x")};

        open_watch(f->client, n + 1, &request);
    }
    for (uint32_t n = 0; n < BOP_COUNT_OF(rows); n++) {
        struct bop_event event = {.type = rows[n].type, .name = bytes("x"), .session = 9};

        add(f, &event);
        apply(f);
        CHECK_EQ(next(f->client)->watch, n + 1);
        CHECK(is_quiet(f->client));
    }
}

/* ---- Opening ---- */

TEST(watch, refuses_what_makes_no_sense)
{
    struct bop_watch_open_request good = of_map("m"), bad;
    uint64_t revision;

    CHECK_EQ(open_as(f->client, 0, &good, &revision), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(open_as(f->client, 1, &good, &revision), BOP_STATUS_OK);
    CHECK_EQ(revision, BEGIN);
    CHECK_EQ(open_as(f->client, 1, &good, &revision), BOP_STATUS_BAD_REQUEST); /* In use. */
    bad = good;
    bad.from = bytes("b");
    bad.to = bytes("a");
    CHECK_EQ(open_as(f->client, 2, &bad, &revision), BOP_STATUS_BAD_REQUEST);
    bad = good;
    bad.what = BOP_WATCH_COUNTER;
    bad.prefix = bytes("a");
    CHECK_EQ(open_as(f->client, 2, &bad, &revision), BOP_STATUS_BAD_REQUEST);
    bad = good;
    bad.flags = BOP_WATCH_SNAPSHOT;
    bad.revision = BEGIN;
    CHECK_EQ(open_as(f->client, 2, &bad, &revision), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(bop__watch_hub_count(f->hub), 1);
}

TEST(watch, keeps_to_its_bounds)
{
    struct bop_watch_open_request request = of_map("m");
    uint64_t revision;

    for (uint32_t n = 1; n <= 300; n++) {
        open_watch(f->client, n, &request);
    }
    CHECK_EQ(open_as(f->client, 301, &request, &revision), BOP_STATUS_BUSY);
    CHECK(bop__watch_close(f->client->conn, 17));
    CHECK(!bop__watch_close(f->client->conn, 17));
    CHECK_EQ(open_as(f->client, 301, &request, &revision), BOP_STATUS_OK);
    put(f, "m", "k", "v");
    CHECK_EQ(f->client->count, 300);
}

TEST(watch, is_heard_no_more_once_closed)
{
    struct bop_watch_open_request request = of_map("m");

    open_watch(f->client, 1, &request);
    open_watch(f->client, 2, &request);
    CHECK(bop__watch_close(f->client->conn, 1));
    put(f, "m", "k", "v");
    expect_put(f->client, 2, BEGIN + 1, "k", "v");
    CHECK(is_quiet(f->client));
}

TEST(watch, goes_with_its_connection)
{
    struct client *other = make_client(f);
    struct bop_watch_open_request request = of_map("m");

    open_watch(other, 1, &request);
    open_watch(f->client, 1, &request);
    free_client(other);
    put(f, "m", "k", "v");
    expect_put(f->client, 1, BEGIN + 1, "k", "v");
}

/* ---- The past ---- */

/* Whose connection breaks asks for what came after, and 0 would mean from now on. */
TEST(watch, waits_for_a_revision_to_begin_at)
{
    struct bop_watch_open_request request = of_map("m");
    uint64_t revision = 0;

    free_client(f->client);
    bop__watch_hub_destroy(f->hub);
    REQUIRE_EQ(make_hub_at(f, 0), 0);
    f->client = make_client(f);
    CHECK_EQ(open_as(f->client, 1, &request, &revision), BOP_STATUS_RETRY);
    request.revision = 1;
    CHECK_EQ(open_as(f->client, 1, &request, &revision), BOP_STATUS_OK);
    put(f, "m", "k", "v"); /* Revision 1. */
    put(f, "m", "k", "w");
    turns(f);
    expect_put(f->client, 1, 2, "k", "w");
    request.revision = 0;
    CHECK_EQ(open_as(f->client, 2, &request, &revision), BOP_STATUS_OK);
    CHECK_EQ(revision, 2);
}

TEST(watch, ends_with_the_right_to_it)
{
    struct bop_watch_open_request m = of_map("m"), key = of_key("m", "k"), kept = of_map("kept");
    struct client *other = make_client(f);

    open_watch(f->client, 1, &m);
    open_watch(f->client, 2, &kept);
    m.revision = BEGIN;
    open_watch(f->client, 3, &m); /* In its past. */
    open_watch(other, 1, &key);
    f->client->denied = "m";
    bop__watch_hub_review(f->hub);
    CHECK_SLICE_EQ(other->reviewed.from, bytes("k"));
    CHECK_SLICE_EQ(other->reviewed.to, bop_slice("k", 2));
    CHECK_EQ(other->reviewed.what, BOP_WATCH_MAP);
    CHECK_EQ(f->client->count, 2);
    for (unsigned n = 0; n < 2; n++) {
        const struct record *record = next(f->client);

        CHECK_EQ(record->flags, BOP_WATCH_EVENTS_DENIED);
        CHECK(record->watch == 1 || record->watch == 3);
    }
    CHECK_EQ(bop__watch_hub_count(f->hub), 2);
    put(f, "m", "k", "v");
    put(f, "kept", "k", "v");
    turns(f);
    expect_put(f->client, 2, BEGIN + 2, "k", "v");
    expect_put(other, 1, BEGIN + 1, "k", "v");
    CHECK(is_quiet(f->client) && is_quiet(other));
    CHECK(!bop__watch_close(f->client->conn, 1));
    open_watch(f->client, 1, &m); /* The id is free again. */
    free_client(other);
}

TEST(watch, of_a_connection_that_is_behind_ends_with_the_right_to_it)
{
    struct bop_watch_open_request m = of_map("m");

    open_watch(f->client, 1, &m);
    f->client->stuck = true;
    for (unsigned n = 0; n < 200; n++) {
        put(f, "m", "k", "some value that fills the queue");
        turns(f);
    }
    CHECK(f->client->queued >= HIGH);
    f->client->denied = "m";
    bop__watch_hub_review(f->hub);
    CHECK_EQ(f->client->records[f->client->count - 1].flags, BOP_WATCH_EVENTS_DENIED);
    CHECK_EQ(bop__watch_hub_count(f->hub), 0);
    f->client->stuck = false;
    f->client->queued = 0;
    turns(f);
    CHECK_EQ(f->client->records[f->client->count - 1].flags, BOP_WATCH_EVENTS_DENIED);
}

TEST(watch, begins_at_a_past_revision)
{
    struct bop_watch_open_request request = of_key("m", "k");

    for (int n = 0; n < 5; n++) {
        put(f, "m", "k", "old");
        put(f, "m", "other", "no");
    }
    request.revision = BEGIN + 4;
    open_watch(f->client, 1, &request);
    CHECK(is_quiet(f->client)); /* Not from within open. */
    put(f, "m", "k", "new");    /* Before its turn has come. */
    turns(f);
    expect_put(f->client, 1, BEGIN + 5, "k", "old");
    expect_put(f->client, 1, BEGIN + 7, "k", "old");
    expect_put(f->client, 1, BEGIN + 9, "k", "old");
    expect_put(f->client, 1, BEGIN + 11, "k", "new");
    expect_flags(f->client, 1, BEGIN + 11, BOP_WATCH_EVENTS_LIVE);
    put(f, "m", "k", "newer");
    expect_put(f->client, 1, BEGIN + 12, "k", "newer");
    CHECK(is_quiet(f->client));
}

TEST(watch, begins_at_a_revision_to_come)
{
    struct bop_watch_open_request request = of_key("m", "k");

    request.revision = BEGIN + 2; /* Of a node that is ahead. */
    open_watch(f->client, 1, &request);
    turns(f);
    expect_flags(f->client, 1, BEGIN + 2, BOP_WATCH_EVENTS_LIVE);
    put(f, "m", "k", "1");
    put(f, "m", "k", "2");
    put(f, "m", "k", "3");
    expect_put(f->client, 1, BEGIN + 3, "k", "3");
    CHECK(is_quiet(f->client));
}

TEST(watch, cannot_begin_where_nothing_is_kept)
{
    struct bop_watch_open_request request = of_map("m");
    static char value[2000];
    uint64_t revision;

    request.revision = BEGIN - 1;
    CHECK_EQ(open_as(f->client, 1, &request, &revision), BOP_STATUS_COMPACTED);
    CHECK_EQ(revision, BEGIN);
    request.revision = BEGIN;
    CHECK_EQ(open_as(f->client, 1, &request, &revision), BOP_STATUS_OK);
    turns(f);
    memset(value, 'v', sizeof(value) - 1);
    for (int n = 0; n < 500; n++) {
        put(f, "m", "k", value);
    }
    CHECK_EQ(open_as(f->client, 2, &request, &revision), BOP_STATUS_COMPACTED);
    CHECK(revision > BEGIN);
    request.revision = revision;
    CHECK_EQ(open_as(f->client, 2, &request, &revision), BOP_STATUS_OK);
}

TEST(watch, a_past_that_goes_meanwhile_is_a_resync)
{
    struct bop_watch_open_request request = of_map("other");
    static char value[2000];

    memset(value, 'v', sizeof(value) - 1);
    request.revision = BEGIN;
    open_watch(f->client, 1, &request);
    for (int n = 0; n < 500; n++) {
        put(f, "m", "k", value);
    }
    turns(f);
    expect_flags(f->client, 1, f->revision, BOP_WATCH_EVENTS_RESYNC);
    CHECK_EQ(bop__watch_hub_count(f->hub), 0);
}

/* ---- Slow clients ---- */

TEST(watch, goes_on_from_the_history_when_it_was_behind)
{
    struct bop_watch_open_request request = of_map("m");
    unsigned told;

    open_watch(f->client, 1, &request);
    open_watch(f->client, 2, &request);
    f->client->stuck = true;
    for (int n = 0; n < 500; n++) {
        put(f, "m", "k", "v");
        turns(f);
    }
    told = f->client->count;
    CHECK(told < 200);
    CHECK(f->client->queued <= HIGH + 100);
    put(f, "m", "k", "last");
    CHECK_EQ(f->client->count, told);
    f->client->queued = LOW + 1; /* Not yet. */
    turns(f);
    CHECK_EQ(f->client->count, told);
    f->client->stuck = false;
    f->client->queued = 0;
    turns(f);
    put(f, "m", "k", "after");
    CHECK_EQ(f->client->count, 2 * 502);
    for (uint64_t n = 1; n <= 502; n++) {
        const struct record *a = next(f->client), *b = next(f->client);

        CHECK_EQ(a->revision, BEGIN + n); /* Both watches, revision by revision. */
        CHECK_EQ(b->revision, BEGIN + n);
        CHECK(a->watch != b->watch);
    }
}

TEST(watch, opens_while_its_connection_is_behind)
{
    struct bop_watch_open_request request = of_map("m");

    open_watch(f->client, 1, &request);
    f->client->stuck = true;
    for (int n = 0; n < 200; n++) {
        put(f, "m", "k", "v");
    }
    open_watch(f->client, 2, &request); /* From now on, which is after those. */
    put(f, "m", "k", "w");
    f->client->queued = 0;
    f->client->stuck = false;
    f->client->read = f->client->count;
    turns(f);
    while (f->client->count - f->client->read > 2) {
        CHECK_EQ(next(f->client)->watch, 1);
    }
    CHECK_EQ(next(f->client)->revision, BEGIN + 201);
    CHECK_EQ(next(f->client)->revision, BEGIN + 201);
}

TEST(watch, is_told_that_it_lost_events_when_there_is_room)
{
    struct bop_watch_open_request request = of_map("m");
    static char value[2000];

    memset(value, 'v', sizeof(value) - 1);
    open_watch(f->client, 1, &request);
    open_watch(f->client, 2, &request);
    f->client->stuck = true;
    for (int n = 0; n < 1000; n++) {
        put(f, "m", "k", value);
        turns(f);
    }
    f->client->read = f->client->count;
    CHECK_EQ(bop__watch_hub_count(f->hub), 2);
    f->client->queued = 0;
    turns(f);
    expect_flags(f->client, next(f->client)->watch == 1 ? 2 : 1, f->revision,
                 BOP_WATCH_EVENTS_RESYNC);
    CHECK(is_quiet(f->client));
    CHECK_EQ(bop__watch_hub_count(f->hub), 0);
}

TEST(watch, of_a_fast_connection_does_not_wait_for_a_slow_one)
{
    struct client *slow = make_client(f);
    struct bop_watch_open_request request = of_map("m");

    open_watch(slow, 1, &request);
    open_watch(f->client, 1, &request);
    slow->stuck = true;
    for (int n = 0; n < 500; n++) {
        put(f, "m", "k", "v");
    }
    CHECK_EQ(f->client->count, 500);
    CHECK(slow->count < 200);
    free_client(slow);
    put(f, "m", "k", "v");
    CHECK_EQ(f->client->count, 501);
}

TEST(watch, a_new_state_is_a_resync)
{
    struct bop_watch_open_request request = of_map("m"), ahead = of_map("m");

    open_watch(f->client, 1, &request);
    ahead.revision = BEGIN + 70;
    open_watch(f->client, 2, &ahead);
    turns(f);
    f->client->read = f->client->count;
    f->revision = BEGIN + 50;
    bop__watch_hub_reset(f->hub, f->revision);
    turns(f);
    expect_flags(f->client, 1, f->revision, BOP_WATCH_EVENTS_RESYNC);
    CHECK(is_quiet(f->client));
    CHECK_EQ(bop__watch_hub_count(f->hub), 1); /* That one has missed nothing. */
}

/* ---- Marks ---- */

TEST(watch, is_told_after_a_quiet_time_that_there_was_nothing)
{
    struct bop_watch_open_request request = of_map("m");

    request.flags = BOP_WATCH_PROGRESS;
    open_watch(f->client, 1, &request);
    put(f, "other", "k", "v");
    turns(f);
    CHECK(is_quiet(f->client));
    f->now_ms += WATCH_QUIET_MS;
    turns(f);
    expect_flags(f->client, 0, BEGIN + 1, BOP_WATCH_EVENTS_PROGRESS);
    turns(f);
    CHECK(is_quiet(f->client));
    CHECK(turn(f) <= f->now_ms + WATCH_QUIET_MS); /* It wants to be called again. */
}

TEST(watch, is_told_on_request_how_far_it_is)
{
    struct bop_watch_open_request request = of_map("m");
    struct bop_watch_ack ack = {.revision = BEGIN + 1, .flags = BOP_WATCH_ACK_MARK};

    open_watch(f->client, 1, &request);
    put(f, "other", "k", "v");
    bop__watch_acked(f->client->conn, &ack);
    turns(f);
    expect_flags(f->client, 0, BEGIN + 1, BOP_WATCH_EVENTS_PROGRESS);
    turns(f);
    CHECK(is_quiet(f->client));
    CHECK_EQ(bop__watch_conn_acked(f->client->conn), BEGIN + 1);
}

/* ---- Settling ---- */

static bool is_settled(struct fixture *f, const char *map, const char *key, uint64_t revision)
{
    struct bop_watch_settle_request ask = {
        .what = BOP_WATCH_MAP, .name = bytes(map), .key = bytes(key)};

    return bop__watch_settled(f->hub, &ask, revision);
}

static void acknowledge(struct client *client, uint64_t revision)
{
    struct bop_watch_ack ack = {.revision = revision};

    bop__watch_acked(client->conn, &ack);
}

TEST(watch, is_settled_when_it_has_acknowledged_a_mark)
{
    struct bop_watch_open_request request = of_key("m", "k");
    struct client *other = make_client(f);

    open_watch(other, 1, &request); /* It does not say that it acknowledges. */
    CHECK(is_settled(f, "m", "k", BEGIN));
    request.flags = BOP_WATCH_ACKNOWLEDGE;
    open_watch(f->client, 1, &request);
    put(f, "m", "k", "v");
    CHECK(is_settled(f, "m", "kk", BEGIN + 1));
    CHECK(is_settled(f, "n", "k", BEGIN + 1));
    CHECK(!is_settled(f, "m", "k", BEGIN + 1));
    turns(f);
    expect_put(f->client, 1, BEGIN + 1, "k", "v");
    expect_flags(f->client, 0, BEGIN + 1, BOP_WATCH_EVENTS_PROGRESS);
    CHECK(!is_settled(f, "m", "k", BEGIN + 1));
    turns(f);
    CHECK(is_quiet(f->client)); /* It is asked once. */
    acknowledge(f->client, BEGIN);
    CHECK(!is_settled(f, "m", "k", BEGIN + 1));
    acknowledge(f->client, BEGIN + 1);
    CHECK(is_settled(f, "m", "k", BEGIN + 1));
    put(f, "m", "k", "w");
    CHECK(!is_settled(f, "m", "k", BEGIN + 2));
    CHECK(bop__watch_close(f->client->conn, 1));
    CHECK(is_settled(f, "m", "k", BEGIN + 2));
    expect_put(other, 1, BEGIN + 1, "k", "v");
    expect_put(other, 1, BEGIN + 2, "k", "w");
    turns(f);
    CHECK(is_quiet(other));
    free_client(other);
}

TEST(watch, is_not_settled_while_it_is_behind_or_in_its_past)
{
    struct bop_watch_open_request request = of_map("m");
    struct client *late = make_client(f);
    const struct record *last;

    request.flags = BOP_WATCH_ACKNOWLEDGE;
    open_watch(f->client, 1, &request);
    f->client->stuck = true;
    for (int n = 0; n < 300; n++) {
        put(f, "m", "k", "v");
        turns(f);
    }
    CHECK(!is_settled(f, "m", "k", f->revision));
    f->client->stuck = false;
    f->client->queued = 0;
    turns(f);
    last = &f->client->records[f->client->count - 1];
    CHECK_EQ(last->flags, BOP_WATCH_EVENTS_PROGRESS); /* Behind all events. */
    CHECK_EQ(last->revision, f->revision);
    acknowledge(f->client, f->revision);
    CHECK(is_settled(f, "m", "k", f->revision));

    request.revision = BEGIN + 10;
    open_watch(late, 1, &request);
    CHECK(!is_settled(f, "m", "k", f->revision));
    CHECK(is_settled(f, "n", "k", f->revision));
    turns(f);
    last = &late->records[late->count - 1];
    CHECK_EQ(last->flags, BOP_WATCH_EVENTS_PROGRESS);
    acknowledge(late, f->revision);
    CHECK(is_settled(f, "m", "k", f->revision));
    free_client(late);
}

/* ---- Without memory ---- */

/* Each failure is answered at open, or told as a resync; never is an event left out in silence. */
TEST(watch, loses_nothing_in_silence_for_want_of_memory)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_watch_open_request request = of_map("m");
        uint64_t revision;
        bool lost = false;
        unsigned told = 0;
        uint8_t status;

        f->client->count = 0;
        f->client->read = 0;
        f->client->queued = 0;
        f->client->stuck = false;
        status = open_as(f->client, 1, &request, &revision);
        CHECK(status == BOP_STATUS_OK || (status == BOP_STATUS_BUSY && f->faults.fired));
        for (int n = 0; n < 3; n++) {
            struct bop_event event = put_event("m", "k", "v");

            event.flags = BOP_EVENT_HAD_PREVIOUS;
            add(f, &event);
            add(f, &event);
            apply(f);
        }
        f->client->stuck = true;
        f->client->queued = HIGH;
        for (int n = 0; n < 3; n++) {
            put(f, "m", "k", "v");
        }
        f->client->stuck = false;
        f->client->queued = 0;
        f->now_ms += 1000;
        turns(f);
        f->now_ms += 1000;
        turns(f);
        for (uint64_t at = revision; !is_quiet(f->client);) {
            const struct record *record = next(f->client);

            lost = lost || (record->flags & BOP_WATCH_EVENTS_RESYNC);
            if (!lost) {
                CHECK_EQ(record->revision, ++at);
                told++;
            }
        }
        CHECK(status != BOP_STATUS_OK || lost || told == 6);
        bop__watch_close(f->client->conn, 1);
    }
}

/* ---- Against what should be told ---- */

#define MODEL_CLIENTS 4
#define MODEL_WATCHES 8
#define MODEL_STEPS   3000

struct expected {
    bool open;
    bool lost;
    char key;           /* 0: all. */
    uint64_t opened_at; /* Told after this one. */
    uint64_t last;      /* Told up to here, as far as was checked. */
};

struct model {
    struct client *clients[MODEL_CLIENTS];
    struct expected watches[MODEL_CLIENTS][MODEL_WATCHES + 1];
    char keys[BEGIN + MODEL_STEPS * 2]; /* By revision. */
};

/* The next revision after `after` that is for this watch; 0: none yet. */
static uint64_t next_for(const struct fixture *f, const struct model *model,
                         const struct expected *watch, uint64_t after)
{
    for (uint64_t revision = after + 1; revision <= f->revision; revision++) {
        if (!watch->key || model->keys[revision] == watch->key) {
            return revision;
        }
    }
    return 0;
}

static void check_told(struct fixture *f, struct model *model, unsigned c)
{
    struct client *client = model->clients[c];

    while (!is_quiet(client)) {
        const struct record *record = next(client);
        struct expected *watch = &model->watches[c][record->watch];

        REQUIRE(record->watch >= 1 && record->watch <= MODEL_WATCHES);
        REQUIRE(watch->open);
        if (record->flags == BOP_WATCH_EVENTS_RESYNC) {
            watch->open = false;
            continue;
        }
        if (record->flags == BOP_WATCH_EVENTS_LIVE) {
            continue;
        }
        REQUIRE_EQ(record->revision, next_for(f, model, watch, watch->last));
        watch->last = record->revision;
    }
    client->count = 0;
    client->read = 0;
}

static void change_watch(struct fixture *f, struct model *model, struct bop_random *random)
{
    unsigned c = (unsigned)bop_random_below(random, MODEL_CLIENTS);
    uint32_t id = 1 + (uint32_t)bop_random_below(random, MODEL_WATCHES);
    struct expected *watch = &model->watches[c][id];
    char key[2] = {(char)(bop_random_chance(random, 1, 4) ? 0 : 'a' + bop_random_below(random, 4))};
    struct bop_watch_open_request request = key[0] ? of_key("m", key) : of_map("m");
    uint64_t revision;

    check_told(f, model, c);
    if (watch->open) {
        CHECK(bop__watch_close(model->clients[c]->conn, id));
        watch->open = false;
        return;
    }
    if (bop_random_chance(random, 1, 2)) {
        request.revision = f->revision - bop_random_below(random, 20);
    }
    if (open_as(model->clients[c], id, &request, &revision) == BOP_STATUS_OK) {
        *watch = (struct expected){
            .open = true, .key = key[0], .opened_at = revision, .last = revision};
    } else {
        CHECK(request.revision < f->hub->history.after);
    }
}

TEST(watch, tells_every_watch_all_of_it_once_and_in_order)
{
    static struct model model;
    struct bop_random random;

    memset(&model, 0, sizeof(model));
    bop_random_seed(&random, 17);
    for (unsigned c = 0; c < MODEL_CLIENTS; c++) {
        model.clients[c] = make_client(f);
    }
    for (unsigned step = 0; step < MODEL_STEPS; step++) {
        struct client *client = model.clients[bop_random_below(&random, MODEL_CLIENTS)];

        if (bop_random_chance(&random, 1, 10)) {
            change_watch(f, &model, &random);
        }
        if (bop_random_chance(&random, 1, 30)) {
            client->stuck = !client->stuck;
            client->queued = client->stuck ? client->queued : 0;
        }
        for (uint64_t n = bop_random_below(&random, 3); n > 0; n--) {
            char key[2] = {(char)('a' + bop_random_below(&random, 4))};

            model.keys[f->revision + 1] = key[0];
            put(f, "m", key, "a value that fills the queue");
        }
        if (bop_random_chance(&random, 1, 3)) {
            turn(f);
        }
    }
    for (unsigned c = 0; c < MODEL_CLIENTS; c++) {
        model.clients[c]->stuck = false;
        model.clients[c]->queued = 0;
    }
    turns(f);
    for (unsigned c = 0; c < MODEL_CLIENTS; c++) {
        check_told(f, &model, c);
        for (unsigned n = 1; n <= MODEL_WATCHES; n++) {
            struct expected *watch = &model.watches[c][n];

            CHECK(!watch->open || next_for(f, &model, watch, watch->last) == 0);
        }
        free_client(model.clients[c]);
    }
}
