/*
 * What the model's state looks like to whoever is shown all of an object at once: the pages
 * with which a watch begins, and what a session owns. As digests; the order of entries counts
 * for locks only.
 */
#include <string.h>

#include "state.h"

static const char *const map_names[STATE_MAPS] = {"m", "n"};
static const char *const counter_names[STATE_COUNTERS] = {"c0", "c1", "c2", "c3"};
static const char *const lock_names[STATE_LOCKS] = {"l0", "l1", "l2"};

static uint64_t two(uint64_t a, uint64_t b)
{
    return state_mix(state_mix(5, a), b);
}

static uint64_t name_item(enum bop_name_kind kind, const char *name)
{
    return state_item(kind, state_hash(bop_slice_cstr(name)), 0);
}

/* ---- Of the state ---- */

static uint64_t queue_digest(const struct state_lock *lock)
{
    uint64_t digest = state_item(lock->count, 0, 0);

    for (unsigned n = 0; n < lock->count; n++) {
        const struct state_request *one = &lock->requests[n];

        digest = state_mix(digest,
                           state_item(one->label, one->ticket, two(one->session, one->token)));
    }
    return digest;
}

static uint64_t joined_digest(const struct state *state)
{
    uint64_t digest = state_item(state->member_count, 0, 0);

    for (unsigned n = 0; n < state->member_count; n++) {
        const struct state_member *one = &state->members[n];

        digest += state_item(one->name, one->number, two(one->session, one->info));
    }
    return digest;
}

static uint64_t registered_digest(const struct state *state)
{
    uint64_t digest = state_item(state->registration_count, 0, 0);

    for (unsigned n = 0; n < state->registration_count; n++) {
        const struct state_registration *one = &state->registrations[n];
        uint8_t address = (uint8_t)('a' + one->address);

        digest += state_item(state_hash(bop_slice(&address, 1)), one->sequence,
                             two(one->session, 0));
    }
    return digest;
}

static uint64_t names_digest(const struct state *state)
{
    uint64_t count = 0, sum = 0;

    for (unsigned n = 0; n < STATE_MAPS; n++) {
        count += state->maps[n].made;
        sum += state->maps[n].made ? name_item(BOP_NAME_MAP, map_names[n]) : 0;
    }
    for (unsigned n = 0; n < STATE_COUNTERS; n++) {
        count += state->counters[n].made;
        sum += state->counters[n].made ? name_item(BOP_NAME_COUNTER, counter_names[n]) : 0;
    }
    for (unsigned n = 0; n < STATE_LOCKS; n++) {
        count += state->locks[n].exists;
        sum += state->locks[n].exists ? name_item(BOP_NAME_LOCK, lock_names[n]) : 0;
    }
    count += state->sets[0].made + state->multimaps[0].made;
    sum += state->sets[0].made ? name_item(BOP_NAME_SET, "s") : 0;
    sum += state->multimaps[0].made ? name_item(BOP_NAME_MULTIMAP, "u") : 0;
    return state_item(count, 0, 0) + sum;
}

uint64_t state_shown_digest(const struct state *state, unsigned object)
{
    if (object >= OBJECT_NAMES) {
        return names_digest(state);
    }
    if (object >= OBJECT_REGISTERED) {
        return registered_digest(state);
    }
    return object >= OBJECT_JOINED ? joined_digest(state)
                                   : queue_digest(&state->locks[object - OBJECT_QUEUE]);
}

uint64_t state_owned_digest(const struct state *state, uint64_t session)
{
    uint64_t count = 0, sum = 0;

    for (unsigned n = 0; n < STATE_LOCKS; n++) {
        for (unsigned i = 0; i < state->locks[n].count; i++) {
            const struct state_request *one = &state->locks[n].requests[i];

            if (one->session == session) {
                count++;
                sum += state_item(state_hash(bop_slice_cstr(lock_names[n])), one->ticket,
                                  state_mix(two(one->token, one->permits), one->label));
            }
        }
    }
    return state_item(count, 0, 0) + sum;
}

/* ---- As it was told ---- */

uint64_t state_owned_item(const struct bop_scan_entry *entry)
{
    struct bop_reader reader = bop_reader(entry->value);
    uint64_t token = bop_read_u64(&reader);
    uint32_t permits = bop_read_u32(&reader);
    uint64_t label = state_hash(bop_read_bytes(&reader));

    return state_item(state_hash(entry->key), entry->version,
                      bop_reader_done(&reader) ? state_mix(two(token, permits), label) : 0);
}

unsigned state_watch_object(uint8_t what, const char *name)
{
    switch (what) {
    case BOP_WATCH_MAP:
        return OBJECT_MAP + (unsigned)(name[0] - 'm');
    case BOP_WATCH_SET:
        return OBJECT_SET;
    case BOP_WATCH_MULTIMAP:
        return OBJECT_MULTIMAP;
    case BOP_WATCH_COUNTER:
        return OBJECT_COUNTER + (unsigned)(name[1] - '0');
    case BOP_WATCH_LOCK:
        return OBJECT_QUEUE + (unsigned)(name[1] - '0');
    case BOP_WATCH_GROUP:
        return OBJECT_JOINED;
    case BOP_WATCH_REGISTRY:
        return OBJECT_REGISTERED;
    default:
        return what == BOP_WATCH_NAMES ? OBJECT_NAMES : OBJECT_COUNT;
    }
}

/* The kind of name that an event of a snapshot speaks of. */
static enum bop_name_kind made_kind(enum bop_event_type type)
{
    switch (type) {
    case BOP_EVENT_MAP_CREATE:
        return BOP_NAME_MAP;
    case BOP_EVENT_SET_CREATE:
        return BOP_NAME_SET;
    case BOP_EVENT_MULTIMAP_CREATE:
        return BOP_NAME_MULTIMAP;
    case BOP_EVENT_COUNTER_CREATE:
        return BOP_NAME_COUNTER;
    default:
        return BOP_NAME_LOCK;
    }
}

static uint64_t shown_item(uint8_t what, const struct bop_event *event)
{
    uint64_t value = state_hash(event->value), number = (uint64_t)event->number;

    switch (what) {
    case BOP_WATCH_LOCK:
        return state_item(value, number, two(event->session, event->token));
    case BOP_WATCH_GROUP:
        return state_item(state_hash(event->key), number, two(event->session, value));
    case BOP_WATCH_REGISTRY:
        return state_item(state_hash(event->key), number, two(event->session, 0));
    case BOP_WATCH_NAMES:
        return state_item(made_kind(event->type), state_hash(event->name), 0);
    default:
        return state_item(state_hash(event->key), number, value);
    }
}

void state_show(struct state_shown *shown, uint8_t what, const struct bop_event *event)
{
    uint64_t item = shown_item(what, event);

    shown->count++;
    shown->sum += item;
    BOP_ASSERT(what != BOP_WATCH_LOCK || shown->count <= STATE_REQUESTS);
    if (what == BOP_WATCH_LOCK) {
        shown->items[shown->count - 1] = item;
    } else if (what == BOP_WATCH_COUNTER) {
        shown->sum = state_item(3, (uint64_t)event->number, 0);
    }
}

uint64_t state_shown(const struct state_shown *shown, uint8_t what)
{
    uint64_t digest = state_item(shown->count, 0, 0);

    if (what == BOP_WATCH_COUNTER) {
        return shown->sum;
    }
    for (uint64_t n = 0; n < shown->count && what == BOP_WATCH_LOCK; n++) {
        digest = state_mix(digest, shown->items[n]);
    }
    return what == BOP_WATCH_LOCK ? digest : digest + shown->sum;
}
