/*
 * Locks that are waited for, by the client's own calls: grants are pushed, and a
 * client hears that its lock is lost before another one gets it. So who gives one back that was not
 * lost until then has had it all the time, which the checker takes at its word.
 *
 * But only until what it has heard of by then: a process that stood still does not know more.
 */
#include <bop/client_lock.h>

#include "load.h"

#define LOCKS      2
#define USES_MAX   100
#define TIMEOUT_MS 1500

enum { IDLE, HOLDING };

static struct load_generation locks[LOCKS];

static void granted(void *user, struct bop_client_lock *lock, int code)
{
    struct slot *slot = user;

    if (code == 0) {
        slot->phase = HOLDING;
        slot->lock = lock;
        slot->token = (int64_t)bop_client_lock_token(lock);
    }
    /* Of those who got nothing the checker wants to know nothing. */
    load_end(slot, code == 0 ? 0 : BOP_ECONDITION, &slot->token, 1);
}

static bool take(struct slot *slot)
{
    struct bop_client_lock_options options = {.timeout_ms = TIMEOUT_MS};
    struct bop_client_lock *lock;
    char name[LOAD_OBJECT_MAX];

    slot->object_index = load_below(LOCKS);
    load_use(&locks[slot->object_index], 'w', slot->object_index, USES_MAX, name);
    options.name = bop_slice_cstr(name);
    load_begin(slot, CHAOS_LOCK_TAKE, name);
    return load_refused(
        slot, bop_client_lock_acquire(slot->client, &options, granted, NULL, slot, &lock));
}

static void released(void *user, int code)
{
    struct slot *slot = user;

    load_end(slot, code, &slot->held, 1);
}

static bool drop(struct slot *slot)
{
    char name[LOAD_OBJECT_MAX];

    snprintf(name, sizeof(name), "%s", slot->object);
    load_begin(slot, CHAOS_LOCK_DROP, name);
    slot->start = load_heard_ns();
    load_asks(slot, slot->token);
    slot->held = bop_client_lock_is_held(slot->lock);
    if (!load_refused(slot, bop_client_lock_release(slot->lock, released, slot))) {
        return false;
    }
    slot->phase = IDLE;
    return true;
}

static bool next(struct slot *slot)
{
    if (slot->phase == HOLDING) {
        return drop(slot);
    }
    return take(slot);
}

const struct workload load_lock_wait = {.name = "lock-wait", .weight = 1, .next = next};
