/*
 * What the tests of replica and service share: one replica on a simulated disk,
 * with a clock that the test turns, executors that run when the test says so, and a
 * transport whose queues it can look into.
 *
 * The store of the state machine lies in a real directory, as it always does.
 */
#ifndef BOP_TESTS_CLUSTER_REPLICA_HELP_H
#define BOP_TESTS_CLUSTER_REPLICA_HELP_H

#include <stdio.h>

#include <bop/sim.h>

#include "replica_internal.h"
#include "tap.h"

#define WORLD_DATA  "/data"
#define WORLD_WALL  UINT64_C(1700000000000)
#define WORLD_TURNS 2000 /* In which everything asked for must have come to pass. */

struct world {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_sim *disk;
    struct bop_fs_faulty faulty;
    struct bop_clock clock;
    uint64_t now_us;
    uint64_t wall_ahead_ms; /* By so much the clock on the wall was set forward. */
    struct bop_inline_executor log_executor;
    struct bop_inline_executor work_executor;
    struct replica_transport transport;
    struct bop_buf to_peer; /* What was sent to connected_peer. */
    uint64_t connected_peer;
    struct bop_raft_configuration initial;
    struct replica_options options;
    struct replica *replica;
    struct bop_error err;
    int failed; /* As on_failed told. */
    char failure[BOP_ERROR_MESSAGE_MAX];
};

static uint64_t world_monotonic_us(struct bop_clock *self)
{
    return BOP_CONTAINER_OF(self, struct world, clock)->now_us;
}

static uint64_t world_wall_ms(struct bop_clock *self)
{
    const struct world *world = BOP_CONTAINER_OF(self, struct world, clock);

    return WORLD_WALL + world->now_us / 1000 + world->wall_ahead_ms;
}

static struct bop_buf *world_output(struct replica_transport *self, uint64_t peer)
{
    struct world *world = BOP_CONTAINER_OF(self, struct world, transport);

    return peer == world->connected_peer ? &world->to_peer : NULL;
}

static void world_flush(struct replica_transport *self, uint64_t peer)
{
}

static void world_on_failed(void *user, int code, const char *message)
{
    struct world *world = user;

    CHECK_EQ(world->failed, 0); /* Told once. */
    world->failed = code;
    snprintf(world->failure, sizeof(world->failure), "%s", message);
}

BOP_UNUSED static void world_add_server(struct world *world, uint64_t id)
{
    struct bop_raft_server *server = &world->initial.servers[world->initial.count++];

    server->id = id;
    server->role = BOP_RAFT_VOTER;
    snprintf(server->address, sizeof(server->address), "host:%d", (int)id);
}

/* A new disk in place of the old one; the replica must be closed. */
BOP_UNUSED static void world_make_disk(struct world *world, uint64_t seed)
{
    struct bop_fs_sim_options options = {.seed = seed};

    bop_fs_sim_destroy(world->disk);
    world->disk = NULL;
    REQUIRE_EQ(bop_fs_sim_create(&options, &world->disk), 0);
    bop_fs_faulty_init(&world->faulty, bop_fs_sim_fs(world->disk), &world->faults);
    REQUIRE_EQ(bop_kv_remove(world->options.state_path, NULL), 0);
}

/* Node 1 of a cluster of its own, not opened yet. */
BOP_UNUSED static void world_init(struct world *world)
{
    test_heap_init(&world->heap, &world->faults);
    world->clock = (struct bop_clock){.monotonic_us = world_monotonic_us, .wall_ms = world_wall_ms};
    world->now_us = 1000000;
    bop_inline_init(&world->log_executor);
    bop_inline_init(&world->work_executor);
    world->transport = (struct replica_transport){.output = world_output, .flush = world_flush};
    bop_buf_init(&world->to_peer, NULL, 0);
    world_add_server(world, 1);
    world->options = (struct replica_options){
        .allocator = &world->heap.allocator,
        .fs = &world->faulty.fs,
        .clock = &world->clock,
        .log_executor = &world->log_executor.executor,
        .work_executor = &world->work_executor.executor,
        .transport = &world->transport,
        .events = {.on_failed = world_on_failed, .user = world},
        .path = WORLD_DATA,
        .state_path = test_path(NULL, "state"),
        .boot_id = "boot-1",
        .cluster = "blue",
        .id = 1,
        .address = "host:1",
        .initial = &world->initial,
        .seed = 1,
        .snapshot_entries = 1000000,
        .trailing_entries = 10,
        .segment_bytes = 64 * 1024,
        .state_bytes_max = 32 * 1024 * 1024,
        .state_step_bytes = 256 * 1024,
    };
    world_make_disk(world, 1);
}

BOP_UNUSED static int world_open(struct world *world)
{
    memset(&world->err, 0, sizeof(world->err));
    world->failed = 0;
    world->options.seed++;
    return bop__replica_open(&world->options, &world->replica, &world->err);
}

/* Let executors and replica do what they can at this moment. */
BOP_UNUSED static void world_turn(struct world *world)
{
    bop_inline_poll(&world->log_executor);
    bop_inline_poll(&world->work_executor);
    bop__replica_turn(world->replica);
}

/* Turn for so many milliseconds. */
BOP_UNUSED static void world_run(struct world *world, uint64_t ms)
{
    for (uint64_t n = 0; n < ms; n++) {
        world->now_us += 1000;
        world_turn(world);
    }
}

/* Turn until all that is committed is applied by a leader that may be read from. */
BOP_UNUSED static bool world_settle(struct world *world)
{
    for (unsigned n = 0; n < WORLD_TURNS && world->failed == 0; n++) {
        const struct replica *replica = world->replica;

        if (replica->status.ready && replica->applied == bop_aof_last(replica->aof) &&
            replica->proposal_count == 0 && bop_list_empty(&replica->reads_new) &&
            bop_list_empty(&replica->read_batches) && !bop__replica_busy(replica)) {
            return true;
        }
        world_run(world, 1);
    }
    return false;
}

/* The tasks finish, then it is closed as its owner does. */
BOP_UNUSED static void world_close(struct world *world)
{
    if (world->replica) {
        bop_inline_poll(&world->log_executor);
        bop_inline_poll(&world->work_executor);
        CHECK(!bop__replica_busy(world->replica));
        bop__replica_close(world->replica);
        world->replica = NULL;
    }
}

/* The process dies: of its memory nothing is written any more. */
BOP_UNUSED static void world_kill(struct world *world)
{
    if (world->replica) {
        world->replica->failed = BOP_ECANCELED; /* So that closing marks nothing. */
        bop_fs_sim_stop_after(world->disk, 1);
        world_close(world);
    }
    bop_fs_sim_kill_process(world->disk);
    world->faulty.open_files = 0;
}

BOP_UNUSED static void world_deinit(struct world *world)
{
    world->faults.fail_at = 0;
    world_close(world);
    bop_buf_deinit(&world->to_peer);
    bop_fs_sim_destroy(world->disk);
    CHECK_EQ(world->heap.live, 0);
}

/* ---- Writing and reading ---- */

struct world_write {
    struct replica_write write;
    unsigned answers;
    uint8_t status;
    size_t size;
    uint8_t result[64];
};

static void world_write_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct world_write *self = BOP_CONTAINER_OF(write, struct world_write, write);

    self->answers++;
    self->status = status;
    self->size = bop_min_u64(result.size, sizeof(self->result));
    if (self->size > 0) {
        memcpy(self->result, result.data, self->size);
    }
}

/* Ask to add to the counter "c". Returns the status with which it was taken. */
BOP_UNUSED static uint8_t world_add(struct world *world, struct world_write *write, int64_t delta)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_ADD, .name = bytes("c"), .delta = delta};
    struct command command = {.kind = COMMAND_WRITE};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);
    uint8_t status;

    bop_buf_init(&buf, NULL, 0);
    bop_operation_encode(&writer, &operation);
    command.operation = bop_buf_slice(&buf);
    *write = (struct world_write){.write = {.done = world_write_done}};
    status = bop__replica_write(world->replica, &write->write, &command);
    bop_buf_deinit(&buf);
    return status;
}

/* Add, and see to it that it is answered with OK. */
BOP_UNUSED static void world_added(struct world *world, int64_t delta)
{
    struct world_write write;

    REQUIRE_EQ(world_add(world, &write, delta), BOP_STATUS_OK);
    for (unsigned n = 0; n < WORLD_TURNS && write.answers == 0; n++) {
        world_run(world, 1);
    }
    REQUIRE_EQ(write.answers, 1);
    REQUIRE_EQ(write.status, BOP_STATUS_OK);
}

/* What the counter "c" stands at, as of the state that is there. */
BOP_UNUSED static int64_t world_counter(struct world *world)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_GET, .name = bytes("c")};
    struct machine_view *view;
    struct bop_buf out;
    int64_t value = 0;

    bop_buf_init(&out, NULL, 0);
    REQUIRE_EQ(bop__replica_view_open(world->replica, &view), 0);
    if (bop__machine_read(view, &operation, &out) == BOP_STATUS_OK) {
        REQUIRE_EQ(out.size, 8);
        value = (int64_t)bop_load_u64(out.data);
    }
    bop__machine_view_close(view);
    bop_buf_deinit(&out);
    return value;
}

#endif
