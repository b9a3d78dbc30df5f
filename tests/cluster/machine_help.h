/*
 * What the tests of the state machine share: a machine in a directory of its
 * own, entries made of operations, and the results of both taken apart.
 *
 * Each entry is a batch unless world_begin() was called.
 */
#ifndef BOP_TESTS_CLUSTER_MACHINE_HELP_H
#define BOP_TESTS_CLUSTER_MACHINE_HELP_H

#include <bop/metrics.h>

#include "machine_internal.h"
#include "tap.h"

#define WORLD_TERM 3

struct world {
    struct machine_options options;
    struct machine *machine;
    bool batch;
    uint64_t time_ms; /* The stamp of the next entry. */
    struct bop_buf bytes;
    struct bop_buf operation;
    struct bop_buf results;
    struct machine_result last;
    int code; /* Of the last apply or commit. */
};

BOP_UNUSED static void world_open(struct world *world)
{
    struct bop_error err = {0};

    if (!world->options.path) {
        world->options.path = test_path(NULL, "state");
    }
    if (bop__machine_open(&world->options, &world->machine, &err) != 0) {
        test_note("%s", err.message);
        REQUIRE_EQ(err.code, 0);
    }
}

BOP_UNUSED static void world_close(struct world *world)
{
    bop__machine_close(world->machine);
    world->machine = NULL;
    bop_buf_deinit(&world->bytes);
    bop_buf_deinit(&world->operation);
    bop_buf_deinit(&world->results);
}

BOP_UNUSED static void world_init(struct world *world, struct bop_allocator *allocator)
{
    world->options.allocator = allocator;
    bop_buf_init(&world->bytes, NULL, 0);
    bop_buf_init(&world->operation, NULL, 0);
    bop_buf_init(&world->results, NULL, 0);
    world->time_ms = 1000;
    world_open(world);
}

BOP_UNUSED static void world_reopen(struct world *world)
{
    bop__machine_close(world->machine);
    world->machine = NULL;
    world_open(world);
}

BOP_UNUSED static void world_begin(struct world *world)
{
    REQUIRE_EQ(bop__machine_begin(world->machine), 0);
    world->batch = true;
}

BOP_UNUSED static void world_commit(struct world *world)
{
    world->batch = false;
    world->code = bop__machine_commit(world->machine);
    REQUIRE_EQ(world->code, 0);
}

BOP_UNUSED static void world_abort(struct world *world)
{
    world->batch = false;
    REQUIRE_EQ(bop__machine_abort(world->machine), 0);
}

/* Apply an entry; a code ends the test. Returns the status. */
static uint8_t world_entry(struct world *world, enum bop_raft_entry_type type,
                           struct bop_slice data)
{
    struct bop_raft_entry entry = {.term = WORLD_TERM, .type = type, .data = data};
    bool single = !world->batch;

    if (single) {
        world_begin(world);
    }
    bop_buf_clear(&world->results);
    world->code = bop__machine_apply(world->machine,
                                     bop__machine_position(world->machine).index + 1, &entry,
                                     &world->results, &world->last);
    REQUIRE_EQ(world->code, 0);
    if (single) {
        world_commit(world);
    }
    return world->last.status;
}

static struct bop_slice world_result(const struct world *world)
{
    REQUIRE(world->last.result_at + world->last.result_size <= world->results.size);
    return world->last.result_size > 0
               ? bop_slice(world->results.data + world->last.result_at, world->last.result_size)
               : bop_slice(NULL, 0);
}

static uint8_t world_command(struct world *world, const struct command *command)
{
    struct bop_writer writer = bop_writer(&world->bytes);
    struct command stamped = *command;

    stamped.time_ms = world->time_ms;
    bop_buf_clear(&world->bytes);
    bop__command_encode(&writer, &stamped);
    REQUIRE_EQ(writer.code, 0);
    return world_entry(world, BOP_RAFT_COMMAND, bop_buf_slice(&world->bytes));
}

/* A write as a session's, or with session 0 as nobody's. */
static uint8_t world_write(struct world *world, uint64_t session, uint64_t sequence, uint64_t acked,
                           const struct bop_operation *operation)
{
    struct bop_writer writer = bop_writer(&world->operation);
    struct command command = {.kind = COMMAND_WRITE,
                              .origin_node = 7,
                              .origin_request = 70,
                              .session = session,
                              .sequence = sequence,
                              .acked = acked};

    bop_buf_clear(&world->operation);
    bop_operation_encode(&writer, operation);
    REQUIRE_EQ(writer.code, 0);
    command.operation = bop_buf_slice(&world->operation);
    return world_command(world, &command);
}

/* The result of the last write, as one of that operation. */
BOP_UNUSED static struct bop_result world_decoded(const struct world *world, enum bop_op op)
{
    struct bop_result result = {0};

    REQUIRE_EQ(bop_result_decode(op, world->last.status, world_result(world), &result), 0);
    return result;
}

static struct bop_operation op_put(const char *map, struct bop_slice key, struct bop_slice value)
{
    return (struct bop_operation){
        .op = BOP_OP_MAP_PUT, .name = bytes(map), .key = key, .value = value};
}

BOP_UNUSED static struct bop_operation op_delete(const char *map, struct bop_slice key)
{
    return (struct bop_operation){.op = BOP_OP_MAP_DELETE, .name = bytes(map), .key = key};
}

BOP_UNUSED static struct bop_operation op_add(const char *counter, int64_t delta)
{
    return (struct bop_operation){.op = BOP_OP_COUNTER_ADD, .name = bytes(counter), .delta = delta};
}

BOP_UNUSED static uint8_t world_put(struct world *world, const char *map, const char *key,
                                    const char *value)
{
    struct bop_operation operation = op_put(map, bytes(key), bytes(value));

    return world_write(world, 0, 0, 0, &operation);
}

BOP_UNUSED static uint8_t world_delete(struct world *world, const char *map, const char *key)
{
    struct bop_operation operation = op_delete(map, bytes(key));

    return world_write(world, 0, 0, 0, &operation);
}

BOP_UNUSED static uint64_t world_session(struct world *world, uint32_t timeout_ms,
                                         const char token[BOP_TOKEN_SIZE])
{
    struct command command = {.kind = COMMAND_SESSION_OPEN, .timeout_ms = timeout_ms};

    memcpy(command.token, token, BOP_TOKEN_SIZE);
    REQUIRE_EQ(world_command(world, &command), BOP_STATUS_OK);
    return world->last.session;
}

BOP_UNUSED static uint8_t world_end_session(struct world *world, uint64_t session,
                                            const char token[BOP_TOKEN_SIZE])
{
    struct command command = {.kind = COMMAND_SESSION_CLOSE, .session = session};

    memcpy(command.token, token, BOP_TOKEN_SIZE);
    return world_command(world, &command);
}

BOP_UNUSED static uint8_t world_expire(struct world *world, const uint64_t *sessions, size_t count)
{
    struct command command = {.kind = COMMAND_SESSION_EXPIRE,
                              .expired = bop_slice(sessions, count * sizeof(*sessions))};

    return world_command(world, &command);
}

/* The cluster speaks of all that there is. */
BOP_UNUSED static void world_newest_level(struct world *world)
{
    struct command command = {.kind = COMMAND_LEVEL, .level = MACHINE_LEVEL};

    REQUIRE_EQ(world_command(world, &command), BOP_STATUS_OK);
}

/* What is due by world->time_ms goes. */
BOP_UNUSED static void world_timers(struct world *world)
{
    struct command command = {.kind = COMMAND_TIMERS};

    REQUIRE_EQ(world_command(world, &command), BOP_STATUS_OK);
}

/* Run a read at what is committed; the result's slices lie in world->results. */
BOP_UNUSED static struct bop_result world_read(struct world *world,
                                               const struct bop_operation *operation)
{
    struct bop_result result = {0};
    struct machine_view *view;
    int rc;

    REQUIRE_EQ(bop__machine_view_open(world->machine, &view), 0);
    bop_buf_clear(&world->results);
    rc = bop__machine_read(view, operation, &world->results);
    bop__machine_view_close(view);
    REQUIRE(rc >= 0);
    REQUIRE_EQ(
        bop_result_decode(operation->op, (uint8_t)rc, bop_buf_slice(&world->results), &result), 0);
    return result;
}

BOP_UNUSED static struct bop_result world_get(struct world *world, const char *map,
                                              struct bop_slice key)
{
    struct bop_operation operation = {.op = BOP_OP_MAP_GET, .name = bytes(map), .key = key};

    return world_read(world, &operation);
}

BOP_UNUSED static uint64_t world_size(struct world *world, const char *map)
{
    struct bop_operation operation = {.op = BOP_OP_MAP_SIZE, .name = bytes(map)};

    return world_read(world, &operation).size;
}

BOP_UNUSED static uint64_t world_digest(struct world *world)
{
    struct machine_view *view;
    uint64_t digest;

    REQUIRE_EQ(bop__machine_view_open(world->machine, &view), 0);
    REQUIRE_EQ(bop__machine_content_digest(view, &digest), 0);
    bop__machine_view_close(view);
    return digest;
}

struct world_count {
    enum machine_table table;
    uint64_t count;
};

static int world_count_record(void *user, enum machine_table table, struct bop_slice key,
                              struct bop_slice value)
{
    struct world_count *counting = user;

    CHECK_EQ(bop__machine_record_check(table, key, value), 0);
    counting->count += table == counting->table;
    return 0;
}

/* How many records a table has. */
BOP_UNUSED static uint64_t world_records(struct world *world, enum machine_table table)
{
    struct world_count counting = {.table = table};
    struct machine_view *view;

    REQUIRE_EQ(bop__machine_view_open(world->machine, &view), 0);
    CHECK_EQ(bop__machine_walk(view, world_count_record, &counting), 0);
    bop__machine_view_close(view);
    return counting.count;
}

#endif
