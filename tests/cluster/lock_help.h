/*
 * What the tests of locks share: operations about locks in a world whose cluster speaks
 * of them, sessions that number their writes, and the state of a lock read back.
 */
#ifndef BOP_TESTS_CLUSTER_LOCK_HELP_H
#define BOP_TESTS_CLUSTER_LOCK_HELP_H

#include "machine_help.h"

#define LOCK_TOKEN   "0123456789abcde"
#define LOCK_FOREVER BOP_LOCK_TIMEOUT_NEVER

struct owner {
    uint64_t session;
    uint64_t sequence;
};

/* Locks came with level 2. */
BOP_UNUSED static void lock_level(struct world *world)
{
    struct command command = {.kind = COMMAND_LEVEL, .level = 2};

    REQUIRE_EQ(world_command(world, &command), BOP_STATUS_OK);
}

BOP_UNUSED static struct owner owner_open(struct world *world)
{
    return (struct owner){.session = world_session(world, 5000, LOCK_TOKEN)};
}

BOP_UNUSED static uint8_t owner_write(struct world *world, struct owner *owner,
                                      const struct bop_operation *operation)
{
    uint64_t sequence = owner->session ? ++owner->sequence : 0;

    return world_write(world, owner->session, sequence, sequence ? sequence - 1 : 0, operation);
}

BOP_UNUSED static struct bop_operation op_acquire(const char *lock, uint32_t capacity,
                                                  uint32_t permits, uint64_t timeout_ms,
                                                  const char *label)
{
    return (struct bop_operation){.op = BOP_OP_LOCK_ACQUIRE,
                                  .name = bytes(lock),
                                  .capacity = capacity,
                                  .permits = permits,
                                  .ttl_ms = timeout_ms,
                                  .label = bytes(label)};
}

BOP_UNUSED static struct bop_operation op_release(const char *lock, uint64_t ticket)
{
    return (struct bop_operation){
        .op = BOP_OP_LOCK_RELEASE, .name = bytes(lock), .sequence = ticket};
}

/* What the last write came to, as the result of an operation of that kind. */
BOP_UNUSED static struct bop_result lock_do(struct world *world, struct owner *owner,
                                            const struct bop_operation *operation)
{
    owner_write(world, owner, operation);
    return world_decoded(world, operation->op);
}

BOP_UNUSED static struct bop_result lock_acquire(struct world *world, struct owner *owner,
                                                 const char *lock, uint64_t timeout_ms)
{
    struct bop_operation operation = op_acquire(lock, 1, 1, timeout_ms, "");

    return lock_do(world, owner, &operation);
}

BOP_UNUSED static bool lock_release(struct world *world, struct owner *owner, const char *lock,
                                    uint64_t ticket)
{
    struct bop_operation operation = op_release(lock, ticket);
    struct bop_result result = lock_do(world, owner, &operation);

    CHECK_EQ(result.status, BOP_STATUS_OK);
    return result.existed;
}

/* A TIMERS entry at a time. */
BOP_UNUSED static void lock_timers(struct world *world, uint64_t time_ms)
{
    struct command command = {.kind = COMMAND_TIMERS};

    world->time_ms = time_ms;
    REQUIRE_EQ(world_command(world, &command), BOP_STATUS_OK);
}

/* The token of a request, as a read tells it; 0 if it waits, UINT64_MAX if it is not there. */
BOP_UNUSED static uint64_t lock_token(struct world *world, const char *lock, uint64_t ticket)
{
    struct bop_operation get = {.op = BOP_OP_LOCK_GET, .name = bytes(lock)};
    struct bop_result page = world_read(world, &get);
    struct bop_scan_entry entry;

    while (page.status == BOP_STATUS_OK && bop_scan_next(&page.entries, &entry)) {
        REQUIRE_EQ(entry.value.size, 20);
        if (entry.version == ticket) {
            return bop_load_u64(entry.value.data + 8);
        }
    }
    return UINT64_MAX;
}

/* No record of any request is left. */
BOP_UNUSED static void lock_check_empty(struct world *world)
{
    CHECK_EQ(world_records(world, MACHINE_LOCKS), 0);
    CHECK_EQ(world_records(world, MACHINE_LOCK_REQUESTS), 0);
    CHECK_EQ(world_records(world, MACHINE_OWNED), 0);
    CHECK_EQ(world_records(world, MACHINE_DEADLINES), 0);
}

#endif
