/*
 * Maps beyond put and delete: times to live, exchange and take, bulk puts; levels; and what is told
 * of it all.
 */
#include <stdio.h>

#include "machine_help.h"

struct fixture {
    struct world world;
    struct bop_buf events;
};

static void setup(struct fixture *f)
{
    bop_buf_init(&f->events, NULL, 0);
    world_init(&f->world, NULL);
    world_newest_level(&f->world);
    bop__machine_events_to(f->world.machine, &f->events);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    bop_buf_deinit(&f->events);
}

FIXTURE(setup, teardown)

static uint8_t write(struct fixture *f, const struct bop_operation *operation)
{
    bop_buf_clear(&f->events);
    return world_write(&f->world, 0, 0, 0, operation);
}

static uint8_t put_ttl(struct fixture *f, const char *key, const char *value, uint64_t ttl_ms)
{
    struct bop_operation put = {.op = BOP_OP_MAP_PUT_TTL,
                                .name = bytes("m"),
                                .key = bytes(key),
                                .value = bytes(value),
                                .ttl_ms = ttl_ms};

    return write(f, &put);
}

static bool there(struct fixture *f, const char *key)
{
    return world_get(&f->world, "m", bytes(key)).status == BOP_STATUS_OK;
}

static struct bop_result get_ttl(struct fixture *f, const char *key)
{
    struct bop_operation get = {.op = BOP_OP_MAP_GET_TTL, .name = bytes("m"), .key = bytes(key)};

    return world_read(&f->world, &get);
}

static void timers_at(struct fixture *f, uint64_t time_ms)
{
    bop_buf_clear(&f->events);
    f->world.time_ms = time_ms;
    world_timers(&f->world);
}

/* The nth event of the last entry. */
static struct bop_event event(struct fixture *f, unsigned n)
{
    struct bop_slice events = bop_buf_slice(&f->events);
    struct bop_event event = {0};

    for (unsigned i = 0; i <= n; i++) {
        REQUIRE_EQ(bop_event_next(&events, &event), 1);
    }
    return event;
}

static unsigned event_count(struct fixture *f)
{
    struct bop_slice events = bop_buf_slice(&f->events);
    struct bop_event event;
    unsigned count = 0;

    while (bop_event_next(&events, &event) == 1) {
        count++;
    }
    CHECK_EQ(events.size, 0);
    return count;
}

/* ---- Times to live ---- */

TEST(ttl, an_entry_goes_when_its_time_has_come)
{
    CHECK_EQ(put_ttl(f, "k", "v", 500), BOP_STATUS_OK);
    CHECK_EQ(bop__machine_deadline_next(f->world.machine), 1500);
    CHECK_EQ(get_ttl(f, "k").ttl_ms, 500);
    timers_at(f, 1499);
    CHECK(there(f, "k"));
    CHECK_EQ(get_ttl(f, "k").ttl_ms, 1);
    CHECK_EQ(event_count(f), 0);
    timers_at(f, 1500);
    CHECK(!there(f, "k"));
    REQUIRE_EQ(event_count(f), 1);
    CHECK_EQ(event(f, 0).type, BOP_EVENT_MAP_DELETE);
    CHECK_EQ(event(f, 0).flags, BOP_EVENT_EXPIRED | BOP_EVENT_HAD_PREVIOUS);
    CHECK_SLICE_EQ(event(f, 0).previous, bytes("v"));
    CHECK_EQ(world_size(&f->world, "m"), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_DEADLINES), 0);
    CHECK_EQ(bop__machine_deadline_next(f->world.machine), UINT64_MAX);
}

TEST(ttl, of_an_entry_put_again_counts_no_more)
{
    put_ttl(f, "k", "v", 500);
    world_put(&f->world, "m", "k", "for good");
    CHECK_EQ(world_records(&f->world, MACHINE_DEADLINES), 0);
    CHECK_EQ(get_ttl(f, "k").ttl_ms, 0);
    timers_at(f, 5000);
    CHECK(there(f, "k"));
    put_ttl(f, "k", "v", 500);
    put_ttl(f, "k", "w", 900);
    CHECK_EQ(world_records(&f->world, MACHINE_DEADLINES), 1);
    timers_at(f, 5500);
    CHECK(there(f, "k"));
    timers_at(f, 5900);
    CHECK(!there(f, "k"));
}

TEST(ttl, of_a_deleted_entry_is_forgotten)
{
    put_ttl(f, "k", "v", 500);
    world_delete(&f->world, "m", "k");
    CHECK_EQ(world_records(&f->world, MACHINE_DEADLINES), 0);
    world_put(&f->world, "m", "k", "v");
    timers_at(f, 1500);
    CHECK(there(f, "k"));
}

TEST(ttl, of_a_map_that_was_cleared_harms_nobody)
{
    struct bop_operation clear = {.op = BOP_OP_MAP_CLEAR, .name = bytes("m")};

    put_ttl(f, "k", "v", 500);
    CHECK_EQ(write(f, &clear), BOP_STATUS_OK);
    put_ttl(f, "k", "w", 5000);
    timers_at(f, 1500);
    CHECK(there(f, "k"));
    CHECK_EQ(world_records(&f->world, MACHINE_DEADLINES), 1);
}

TEST(ttl, outlives_a_restart)
{
    put_ttl(f, "k", "v", 500);
    world_reopen(&f->world);
    CHECK_EQ(bop__machine_deadline_next(f->world.machine), 1500);
    timers_at(f, 1500);
    CHECK(!there(f, "k"));
}

TEST(ttl, of_long_keys_and_of_many_in_one_entry)
{
    uint8_t key[2000];
    struct bop_buf items;
    struct bop_writer writer = bop_writer(&items);
    struct bop_operation all = {.op = BOP_OP_MAP_PUT_ALL, .name = bytes("m"), .ttl_ms = 100};

    bop_buf_init(&items, NULL, 0);
    memset(key, 'x', sizeof(key));
    for (size_t size = 90; size < 112; size++) {
        struct bop_item item = {.key = bop_slice(key, size), .value = bytes("v")};

        bop_item_encode(&writer, all.op, &item);
        item.key = bop_slice(key, size + 1800);
        bop_item_encode(&writer, all.op, &item);
        all.count += 2;
    }
    all.items = bop_buf_slice(&items);
    CHECK_EQ(write(f, &all), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(&f->world, all.op).size, 44);
    CHECK_EQ(world_records(&f->world, MACHINE_DEADLINES), 44);
    CHECK_EQ(world_size(&f->world, "m"), 44);
    timers_at(f, 1100);
    CHECK_EQ(world_size(&f->world, "m"), 0);
    CHECK_EQ(event_count(f), 44);
    bop_buf_deinit(&items);
}

TEST(ttl, so_many_go_with_one_entry_and_the_rest_with_the_next)
{
    char key[16];

    world_begin(&f->world);
    for (unsigned n = 0; n < MACHINE_TIMERS_MAX + 5; n++) {
        snprintf(key, sizeof(key), "%u", n);
        put_ttl(f, key, "v", 10);
    }
    world_commit(&f->world);
    timers_at(f, 1010);
    CHECK_EQ(world_size(&f->world, "m"), 5);
    CHECK_EQ(bop__machine_deadline_next(f->world.machine), 1010);
    timers_at(f, 1010);
    CHECK_EQ(world_size(&f->world, "m"), 0);
}

TEST(ttl, too_long_a_one_is_refused)
{
    CHECK_EQ(put_ttl(f, "k", "v", BOP_TTL_MAX_MS + 1), BOP_STATUS_TOO_BIG);
    CHECK(!there(f, "k"));
    CHECK_EQ(put_ttl(f, "k", "v", BOP_TTL_MAX_MS), BOP_STATUS_OK);
}

/* ---- Exchange and take ---- */

TEST(exchange, answers_with_what_was_there)
{
    struct bop_operation exchange = {
        .op = BOP_OP_MAP_EXCHANGE, .name = bytes("m"), .key = bytes("k"), .value = bytes("one")};
    struct bop_result result;

    CHECK_EQ(write(f, &exchange), BOP_STATUS_OK);
    result = world_decoded(&f->world, exchange.op);
    CHECK(!result.existed);
    CHECK_EQ(result.version, 2);
    exchange.value = bytes("two");
    CHECK_EQ(write(f, &exchange), BOP_STATUS_OK);
    result = world_decoded(&f->world, exchange.op);
    CHECK(result.existed);
    CHECK_SLICE_EQ(result.value, bytes("one"));
    exchange.condition = BOP_IF_ABSENT;
    CHECK_EQ(write(f, &exchange), BOP_STATUS_CONDITION);
    result = world_decoded(&f->world, exchange.op);
    CHECK_SLICE_EQ(result.value, bytes("two"));
    CHECK_EQ(result.version, 3);
}

TEST(exchange, take_answers_with_what_it_deleted)
{
    struct bop_operation take = {.op = BOP_OP_MAP_TAKE, .name = bytes("m"), .key = bytes("k")};
    struct bop_result result;

    CHECK_EQ(write(f, &take), BOP_STATUS_OK);
    CHECK(!world_decoded(&f->world, take.op).existed);
    put_ttl(f, "k", "v", 100);
    CHECK_EQ(write(f, &take), BOP_STATUS_OK);
    result = world_decoded(&f->world, take.op);
    CHECK_SLICE_EQ(result.value, bytes("v"));
    CHECK(!there(f, "k"));
    CHECK_EQ(world_records(&f->world, MACHINE_DEADLINES), 0);
}

/* A large result is answered to a retry as it was, and goes when it is acknowledged. */
TEST(exchange, is_answered_again_as_it_was)
{
    struct bop_operation exchange = {
        .op = BOP_OP_MAP_EXCHANGE, .name = bytes("m"), .key = bytes("k"), .value = bytes("one")};
    uint64_t session = world_session(&f->world, 5000, "0123456789abcdef");

    world_put(&f->world, "m", "k", "zero");
    CHECK_EQ(world_write(&f->world, session, 1, 0, &exchange), BOP_STATUS_OK);
    exchange.value = bytes("two");
    CHECK_EQ(world_write(&f->world, session, 2, 0, &exchange), BOP_STATUS_OK);
    for (unsigned again = 0; again < 2; again++) {
        CHECK_EQ(world_write(&f->world, session, 1, 0, &exchange), BOP_STATUS_OK);
        CHECK_SLICE_EQ(world_decoded(&f->world, exchange.op).value, bytes("zero"));
        CHECK_EQ(world_write(&f->world, session, 2, 0, &exchange), BOP_STATUS_OK);
        CHECK_SLICE_EQ(world_decoded(&f->world, exchange.op).value, bytes("one"));
        world_reopen(&f->world);
    }
    CHECK_EQ(world_records(&f->world, MACHINE_RESULTS), 2);
    for (uint64_t n = 3; n < 70; n++) {
        CHECK_EQ(world_write(&f->world, session, n, n - 1, &exchange), BOP_STATUS_OK);
    }
    CHECK_EQ(world_records(&f->world, MACHINE_RESULTS), 6); /* Of the chunk that begins with 64. */
    CHECK_EQ(world_end_session(&f->world, session, "0123456789abcdef"), BOP_STATUS_OK);
    CHECK_EQ(world_records(&f->world, MACHINE_RESULTS), 0);
}

/* ---- Levels ---- */

TEST(level, below_it_an_operation_is_not_known_yet)
{
    struct world young = {0};
    struct bop_operation put = {
        .op = BOP_OP_MAP_PUT_TTL, .name = bytes("m"), .key = bytes("k"), .ttl_ms = 5};
    struct command beyond = {.kind = COMMAND_LEVEL, .level = 1};

    young.options.path = test_path(NULL, "young");
    world_init(&young, NULL);
    CHECK_EQ(world_write(&young, 0, 0, 0, &put), BOP_STATUS_TOO_OLD);
    CHECK_EQ(world_put(&young, "m", "k", "v"), BOP_STATUS_OK);
    world_newest_level(&young);
    CHECK_EQ(world_write(&young, 0, 0, 0, &put), BOP_STATUS_OK);
    CHECK_EQ(world_command(&young, &beyond), BOP_STATUS_OK); /* It never goes back. */
    CHECK_EQ(bop__machine_level(young.machine), MACHINE_LEVEL);
    world_reopen(&young);
    CHECK_EQ(bop__machine_level(young.machine), MACHINE_LEVEL);
    world_close(&young);
}

TEST(level, that_this_version_does_not_know_stops_it)
{
    struct command command = {.kind = COMMAND_LEVEL, .level = MACHINE_LEVEL + 1};
    struct bop_writer writer = bop_writer(&f->world.bytes);
    struct bop_raft_entry entry = {.term = WORLD_TERM, .type = BOP_RAFT_COMMAND};

    bop_buf_clear(&f->world.bytes);
    bop__command_encode(&writer, &command);
    entry.data = bop_buf_slice(&f->world.bytes);
    world_begin(&f->world);
    CHECK_EQ(bop__machine_apply(f->world.machine, bop__machine_position(f->world.machine).index + 1,
                                &entry, &f->world.results, &f->world.last),
             BOP_EVERSION);
    world_abort(&f->world);
}

/* ---- Events ---- */

TEST(events, tell_what_a_put_changed)
{
    world_begin(&f->world);
    CHECK_EQ(put_ttl(f, "k", "v", 0), BOP_STATUS_OK);
    CHECK_EQ(event_count(f), 2);
    CHECK_EQ(event(f, 0).type, BOP_EVENT_MAP_CREATE);
    CHECK_EQ(event(f, 1).type, BOP_EVENT_MAP_PUT);
    CHECK_EQ(event(f, 1).flags, 0);
    CHECK_SLICE_EQ(event(f, 1).value, bytes("v"));
    CHECK_EQ(f->world.last.events_at, 0);
    CHECK_EQ(f->world.last.events_size, f->events.size);
    CHECK_EQ(put_ttl(f, "k", "w", 0), BOP_STATUS_OK);
    CHECK_EQ(event_count(f), 1);
    CHECK_EQ(event(f, 0).flags, BOP_EVENT_HAD_PREVIOUS);
    CHECK_SLICE_EQ(event(f, 0).previous, bytes("v"));
    world_commit(&f->world);
}

TEST(events, tell_of_sets_multimaps_and_counters)
{
    static const struct {
        enum bop_op op;
        enum bop_event_type type;
        unsigned events; /* The first write makes its collection too. */
    } rows[] = {
        {BOP_OP_SET_ADD, BOP_EVENT_SET_ADD, 2},
        {BOP_OP_SET_ADD, 0, 0},
        {BOP_OP_SET_REMOVE, BOP_EVENT_SET_REMOVE, 1},
        {BOP_OP_SET_REMOVE, 0, 0},
        {BOP_OP_MULTIMAP_PUT, BOP_EVENT_MULTIMAP_PUT, 2},
        {BOP_OP_MULTIMAP_PUT, 0, 0},
        {BOP_OP_MULTIMAP_REMOVE_VALUE, BOP_EVENT_MULTIMAP_REMOVE_VALUE, 1},
        {BOP_OP_MULTIMAP_PUT, BOP_EVENT_MULTIMAP_PUT, 1},
        {BOP_OP_MULTIMAP_REMOVE, BOP_EVENT_MULTIMAP_REMOVE, 1},
        {BOP_OP_MULTIMAP_CLEAR, 0, 0},
        {BOP_OP_MULTIMAP_PUT, BOP_EVENT_MULTIMAP_PUT, 1},
        {BOP_OP_MULTIMAP_CLEAR, BOP_EVENT_MULTIMAP_CLEAR, 1},
        {BOP_OP_COUNTER_ADD, BOP_EVENT_COUNTER_SET, 1},
        {BOP_OP_COUNTER_DELETE, BOP_EVENT_COUNTER_DELETE, 1},
        {BOP_OP_COUNTER_DELETE, 0, 0},
        {BOP_OP_COUNTER_CREATE, BOP_EVENT_COUNTER_CREATE, 1},
        {BOP_OP_COUNTER_CREATE, 0, 0},
        {BOP_OP_COUNTER_SET, BOP_EVENT_COUNTER_SET, 1},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(rows); i++) {
        struct bop_operation operation = {.op = rows[i].op,
                                          .name = bytes("n"),
                                          .key = bytes("k"),
                                          .value = bytes("v"),
                                          .delta = 5,
                                          .number = 7};

        CHECK_EQ(write(f, &operation), BOP_STATUS_OK);
        CHECK_EQ(event_count(f), rows[i].events);
        if (rows[i].events > 0) {
            CHECK_EQ(event(f, rows[i].events - 1).type, rows[i].type);
            CHECK_SLICE_EQ(event(f, rows[i].events - 1).name, bytes("n"));
        }
    }
}

/* ---- Faults ---- */

TEST(ttl, damaged_deadlines_are_noticed)
{
    CHECK_EQ(bop__machine_record_check(MACHINE_DEADLINES, bop_slice("123", 3), bytes("")),
             BOP_ECORRUPT);
    CHECK_EQ(bop__machine_record_check(MACHINE_DEADLINES,
                                       bop_slice("00000000\1"
                                                 "00000000000k",
                                                 22),
                                       bop_slice("\1\0\0\0m\1\0\0\0k", 10)),
             0);
    CHECK_EQ(bop__machine_record_check(MACHINE_DEADLINES,
                                       bop_slice("00000000\7"
                                                 "00000000000k",
                                                 22),
                                       bop_slice("\1\0\0\0m\1\0\0\0k", 10)),
             BOP_ECORRUPT);
}
