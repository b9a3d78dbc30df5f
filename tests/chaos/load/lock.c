/*
 * Locks with fencing tokens: taken without waiting, held for a while, given back. A lock
 * whose grant nobody heard of stays taken until its session ends, so locks come in generations.
 */
#include "load.h"

#define LOCKS    2
#define USES_MAX 150

enum { IDLE, HOLDING };

static struct load_generation locks[LOCKS];

static void taken(void *user, int code, const struct bop_result *result)
{
    struct slot *slot = user;
    int64_t token = (int64_t)result->token;

    if (code == 0 && result->ticket == 0) {
        load_end(slot, BOP_ECONDITION, NULL, 0); /* It is not free. */
        return;
    }
    if (code == 0) {
        slot->phase = HOLDING;
        slot->ticket = result->ticket;
        slot->token = token;
    }
    load_end(slot, code, &token, 1);
}

static bool take(struct slot *slot)
{
    struct bop_operation operation = {.op = BOP_OP_LOCK_ACQUIRE, .capacity = 1, .permits = 1};
    char name[LOAD_OBJECT_MAX];

    slot->object_index = load_below(LOCKS);
    load_use(&locks[slot->object_index], 'k', slot->object_index, USES_MAX, name);
    operation.name = bop_slice_cstr(name);
    load_begin(slot, CHAOS_LOCK_TAKE, name);
    return load_refused(
        slot, bop_client_execute(slot->client, &operation, BOP_READ_LINEARIZABLE, taken, slot));
}

static void dropped(void *user, int code, const struct bop_result *result)
{
    struct slot *slot = user;
    int64_t held = code == 0 && result->existed;

    /* Not found: another session took the request, and this one's had ended. */
    load_end(slot, code == BOP_ENOTFOUND ? 0 : code, &held, 1);
}

static bool drop(struct slot *slot)
{
    struct bop_operation operation = {.op = BOP_OP_LOCK_RELEASE, .sequence = slot->ticket};
    char name[LOAD_OBJECT_MAX];

    snprintf(name, sizeof(name), "%s", slot->object);
    operation.name = bop_slice_cstr(name);
    slot->phase = IDLE;
    load_begin(slot, CHAOS_LOCK_DROP, name);
    load_asks(slot, slot->token);
    return load_refused(
        slot, bop_client_execute(slot->client, &operation, BOP_READ_LINEARIZABLE, dropped, slot));
}

static bool next(struct slot *slot)
{
    if (slot->phase == HOLDING) {
        return load_below(3) == 0 && drop(slot); /* Hold it for some turns. */
    }
    return take(slot);
}

const struct workload load_lock = {.name = "lock", .weight = 1, .next = next};
