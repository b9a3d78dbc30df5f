#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/crc32c.h>

#include "state.h"

uint64_t state_mix(uint64_t digest, uint64_t word)
{
    digest = (digest ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return (digest ^ digest >> 29) + UINT64_C(0x2545f4914f6cdd1d);
}

uint64_t state_hash(struct bop_slice bytes)
{
    return bytes.size == 0 ? 0 : state_mix(bytes.size, bop_crc32c(0, bytes.data, bytes.size)) | 1;
}

void state_init(struct state *state)
{
    memset(state, 0, sizeof(*state));
    state->level = 1;
}

/* ---- Names ---- */

static bool named(struct bop_slice name, char first, unsigned count, unsigned *out_number)
{
    unsigned number = name.size == 2 ? name.data[1] - (unsigned)'0' : count;

    *out_number = number < count ? number : 0;
    return name.size == 2 && (char)name.data[0] == first && number < count;
}

static bool letter(struct bop_slice key, char first, unsigned count, unsigned *out_number)
{
    unsigned number = key.size == 1 ? key.data[0] - (unsigned)first : count;

    *out_number = number < count ? number : 0;
    return number < count;
}

static char letters[26][2];

static struct bop_slice letter_slice(unsigned number)
{
    letters[number][0] = (char)('a' + number);
    return bop_slice(letters[number], 1);
}

/* ---- Results and events as digests ---- */

static uint64_t plain_digest(enum bop_op op, const struct bop_result *result, uint64_t value)
{
    uint64_t digest = state_mix(op, result->status);

    digest = state_mix(digest, result->existed);
    digest = state_mix(digest, result->version);
    digest = state_mix(digest, (uint64_t)result->number);
    digest = state_mix(digest, result->size);
    digest = state_mix(digest, result->ticket);
    digest = state_mix(digest, result->token);
    digest = state_mix(digest, result->position);
    return state_mix(digest, value);
}

static bool transaction_digest(const struct bop_operation *operation,
                               const struct bop_result *result, uint64_t *out_digest)
{
    struct bop_slice results = result->entries, bytes, inner;
    struct bop_slice operations = result->existed ? operation->then_items : operation->else_items;
    uint64_t digest = state_mix(operation->op, result->existed), one;
    uint32_t count = 0;
    uint8_t status;

    while (bop_transaction_next(&operations, &bytes)) {
        struct bop_operation part;

        if (bop_operation_decode(bytes, &part) < 0 ||
            !bop_transaction_result_next(&results, &status, &inner) ||
            !state_result_digest(&part, status, inner, &one)) {
            return false;
        }
        digest = state_mix(digest, one);
        count++;
    }
    *out_digest = digest;
    return count == result->count && results.size == 0;
}

bool state_result_digest(const struct bop_operation *operation, uint8_t status,
                         struct bop_slice bytes, uint64_t *out_digest)
{
    struct bop_result result;

    if (bop_result_decode(operation->op, status, bytes, &result) < 0) {
        return false;
    }
    if (operation->op == BOP_OP_TRANSACTION && status == BOP_STATUS_OK) {
        return transaction_digest(operation, &result, out_digest);
    }
    *out_digest = plain_digest(operation->op, &result, state_hash(result.value));
    return true;
}

static struct state_reply reply(const struct bop_operation *operation,
                                const struct bop_result *result, uint64_t value)
{
    return (struct state_reply){.status = result->status,
                                .digest = plain_digest(operation->op, result, value)};
}

static struct state_reply reply_status(const struct bop_operation *operation, uint8_t status)
{
    return reply(operation, &(struct bop_result){.status = status}, 0);
}

static struct state_reply reply_condition(const struct bop_operation *operation, uint64_t version)
{
    return reply(operation,
                 &(struct bop_result){.status = BOP_STATUS_CONDITION, .version = version}, 0);
}

static struct state_reply reply_bool(const struct bop_operation *operation, bool yes)
{
    return reply(operation, &(struct bop_result){.existed = yes}, 0);
}

static struct state_reply reply_size(const struct bop_operation *operation, uint64_t size)
{
    return reply(operation, &(struct bop_result){.size = size}, 0);
}

static uint8_t what_of(enum bop_event_type type)
{
    return type >= BOP_EVENT_SESSION_OPEN       ? BOP_WATCH_SESSION
           : type >= BOP_EVENT_REGISTRATION_ADD ? BOP_WATCH_REGISTRY
           : type >= BOP_EVENT_MEMBER_JOIN      ? BOP_WATCH_GROUP
           : type >= BOP_EVENT_LOCK_WAIT        ? BOP_WATCH_LOCK
           : type >= BOP_EVENT_COUNTER_SET      ? BOP_WATCH_COUNTER
           : type >= BOP_EVENT_MULTIMAP_PUT     ? BOP_WATCH_MULTIMAP
           : type >= BOP_EVENT_SET_ADD          ? BOP_WATCH_SET
                                                : BOP_WATCH_MAP;
}

/* With the value and what was before as digests. */
/* As docs/design/watches.md has it: what is made and deleted. */
static bool is_of_names(enum bop_event_type type)
{
    return type == BOP_EVENT_MAP_CREATE || type == BOP_EVENT_SET_CREATE ||
           type == BOP_EVENT_MULTIMAP_CREATE || type == BOP_EVENT_COUNTER_CREATE ||
           type == BOP_EVENT_COUNTER_DELETE || type == BOP_EVENT_LOCK_CREATE ||
           type == BOP_EVENT_LOCK_DELETE;
}

static struct state_event make_event(uint64_t index, const struct bop_event *event, uint64_t value,
                                     uint64_t previous)
{
    struct state_event made = {.index = index,
                               .previous = previous,
                               .session = event->session,
                               .what = what_of(event->type),
                               .flags = event->flags,
                               .names = is_of_names(event->type)};
    uint64_t digest = state_mix(event->type, event->flags & ~(unsigned)BOP_EVENT_NO_PREVIOUS);

    digest = state_mix(digest, state_hash(event->name));
    digest = state_mix(digest, state_hash(event->key));
    digest = state_mix(digest, value);
    digest = state_mix(digest, event->session);
    digest = state_mix(digest, (uint64_t)event->number);
    made.digest = state_mix(digest, event->token);
    snprintf(made.name, sizeof(made.name), "%.*s", (int)bop_min_u64(event->name.size, 2),
             event->name.size ? (const char *)event->name.data : "");
    return made;
}

struct state_event state_event_of(uint64_t index, const struct bop_event *event)
{
    return make_event(index, event, state_hash(event->value), state_hash(event->previous));
}

static void tell(struct state *state, struct state_events *events, const struct bop_event *event,
                 uint64_t value, uint64_t previous)
{
    if (events->count == events->capacity) {
        events->capacity = events->capacity ? events->capacity * 2 : 1024;
        events->list = realloc(events->list, events->capacity * sizeof(*events->list));
        BOP_ASSERT(events->list);
    }
    events->list[events->count++] = make_event(state->index, event, value, previous);
}

/* ---- Maps ---- */

static void make_map(struct state *state, struct state_events *events, struct state_map *map,
                     struct bop_slice name)
{
    if (!map->made) {
        map->made = true;
        map->id = ++state->next_id;
        tell(state, events, &(struct bop_event){.type = BOP_EVENT_MAP_CREATE, .name = name}, 0, 0);
    }
}

static void put(struct state *state, struct state_events *events, struct state_map *map,
                struct bop_slice name, struct bop_slice key, unsigned number,
                struct bop_slice value, uint64_t ttl_ms)
{
    struct state_cell *cell = &map->keys[number];
    struct bop_event event = {.type = BOP_EVENT_MAP_PUT,
                              .flags = cell->present ? BOP_EVENT_HAD_PREVIOUS : 0,
                              .name = name,
                              .key = key};

    make_map(state, events, map, name);
    tell(state, events, &event, state_hash(value), cell->present ? cell->value : 0);
    *cell = (struct state_cell){.present = true,
                                .version = state->index,
                                .value = state_hash(value),
                                .ttl_ms = ttl_ms,
                                .deadline_ms = ttl_ms ? state->time_ms + ttl_ms : 0};
}

static void delete_cell(struct state *state, struct state_events *events, struct state_cell *cell,
                        struct bop_slice name, struct bop_slice key, uint8_t flags)
{
    struct bop_event event = {.type = BOP_EVENT_MAP_DELETE,
                              .flags = flags | BOP_EVENT_HAD_PREVIOUS,
                              .name = name,
                              .key = key};

    tell(state, events, &event, 0, cell->value);
    *cell = (struct state_cell){0};
}

static bool condition_met(const struct bop_operation *operation, const struct state_cell *cell)
{
    switch (operation->condition) {
    case BOP_IF_ALWAYS:
        return true;
    case BOP_IF_ABSENT:
        return !cell->present;
    case BOP_IF_PRESENT:
        return cell->present;
    case BOP_IF_VERSION:
        return cell->present && cell->version == operation->version;
    case BOP_IF_VALUE:
        return cell->present && cell->value == state_hash(operation->expected);
    }
    return false;
}

static uint64_t map_count(const struct state_map *map)
{
    uint64_t count = 0;

    for (unsigned k = 0; k < STATE_KEYS; k++) {
        count += map->keys[k].present;
    }
    return count;
}

static struct state_reply map_clear(struct state *state, struct state_events *events,
                                    struct state_map *map, const struct bop_operation *operation)
{
    uint64_t count = map_count(map);

    if (count > 0) {
        struct bop_event event = {
            .type = BOP_EVENT_MAP_CLEAR, .name = operation->name, .number = (int64_t)count};

        tell(state, events, &event, 0, 0);
        memset(map->keys, 0, sizeof(map->keys));
        map->id = ++state->next_id;
    }
    return reply_size(operation, count);
}

static struct state_reply map_put_all(struct state *state, struct state_events *events,
                                      struct state_map *map, const struct bop_operation *operation)
{
    struct bop_slice items = operation->items;
    struct bop_item item;
    uint64_t added = 0;

    while (bop_item_next(BOP_OP_MAP_PUT_ALL, &items, &item)) {
        unsigned key;

        state->lost |= !letter(item.key, 'a', STATE_KEYS, &key);
        added += !map->keys[key].present;
        put(state, events, map, operation->name, item.key, key, item.value, operation->ttl_ms);
    }
    return reply_size(operation, added);
}

static struct state_reply map_one(struct state *state, struct state_events *events,
                                  struct state_map *map, const struct bop_operation *operation)
{
    enum bop_op op = operation->op;
    struct bop_result result = {0};
    struct state_cell old;
    unsigned key;

    state->lost |= !letter(operation->key, 'a', STATE_KEYS, &key);
    old = map->keys[key];
    result.existed = old.present;
    result.version = old.version;
    if (!condition_met(operation, &old)) {
        result.status = BOP_STATUS_CONDITION;
        if (op != BOP_OP_MAP_EXCHANGE && op != BOP_OP_MAP_TAKE) {
            return reply_condition(operation, old.version);
        }
        return reply(operation, &result, old.value);
    }
    if (op == BOP_OP_MAP_DELETE || op == BOP_OP_MAP_TAKE) {
        if (old.present) {
            delete_cell(state, events, &map->keys[key], operation->name, operation->key, 0);
        }
        return op == BOP_OP_MAP_TAKE ? reply(operation, &result, old.value)
                                     : reply_bool(operation, old.present);
    }
    put(state, events, map, operation->name, operation->key, key, operation->value,
        op == BOP_OP_MAP_PUT ? 0 : operation->ttl_ms);
    result.version = state->index;
    return reply(operation, &result, op == BOP_OP_MAP_EXCHANGE ? old.value : 0);
}

static struct state_map *find_map(struct state *state, struct bop_slice name)
{
    unsigned which;

    state->lost |= !letter(name, 'm', STATE_MAPS, &which);
    return &state->maps[which];
}

static struct state_reply write_map(struct state *state, struct state_events *events,
                                    const struct bop_operation *operation)
{
    struct state_map *map = find_map(state, operation->name);
    bool made = map->made;

    switch (operation->op) {
    case BOP_OP_MAP_CREATE:
        make_map(state, events, map, operation->name);
        return reply_bool(operation, !made);
    case BOP_OP_MAP_CLEAR:
        return map_clear(state, events, map, operation);
    case BOP_OP_MAP_PUT_ALL:
        return map_put_all(state, events, map, operation);
    default:
        return map_one(state, events, map, operation);
    }
}

/* ---- Counters ---- */

static struct state_counter *find_counter(struct state *state, struct bop_slice name)
{
    unsigned which;

    state->lost |= !named(name, 'c', STATE_COUNTERS, &which);
    return &state->counters[which];
}

static struct state_reply write_counter(struct state *state, struct state_events *events,
                                        const struct bop_operation *operation)
{
    struct state_counter *counter = find_counter(state, operation->name);
    struct bop_event event = {.type = BOP_EVENT_COUNTER_SET, .name = operation->name};
    struct bop_result result = {0};
    bool made = counter->made;

    switch (operation->op) {
    case BOP_OP_COUNTER_CREATE:
    case BOP_OP_COUNTER_DELETE:
        if ((operation->op == BOP_OP_COUNTER_CREATE) != made) {
            event.type = made ? BOP_EVENT_COUNTER_DELETE : BOP_EVENT_COUNTER_CREATE;
            *counter = (struct state_counter){.made = !made};
            tell(state, events, &event, 0, 0);
        }
        return reply_bool(operation, operation->op == BOP_OP_COUNTER_DELETE ? made : !made);
    case BOP_OP_COUNTER_CAS:
        if (counter->value != operation->expected_number) {
            result.status = BOP_STATUS_CONDITION;
            result.number = counter->value;
            return reply(operation, &result, 0);
        }
        counter->value = operation->number;
        break;
    case BOP_OP_COUNTER_SET:
        counter->value = operation->number;
        break;
    default:
        counter->value += operation->delta;
    }
    counter->made = true;
    event.number = result.number = counter->value;
    tell(state, events, &event, 0, 0);
    return operation->op == BOP_OP_COUNTER_SET ? reply_bool(operation, made)
                                               : reply(operation, &result, 0);
}

/* ---- Sets and multimaps ---- */

static uint64_t cells_clear(struct state_cell *cells, size_t count)
{
    uint64_t present = 0;

    for (size_t n = 0; n < count; n++) {
        present += cells[n].present;
        cells[n] = (struct state_cell){0};
    }
    return present;
}

/* Of a set or multimap; returns whether it was not there. */
static bool make(struct state *state, struct state_events *events, bool *made,
                 enum bop_event_type type, struct bop_slice name)
{
    if (*made) {
        return false;
    }
    *made = true;
    tell(state, events, &(struct bop_event){.type = type, .name = name}, 0, 0);
    return true;
}

static void tell_number(struct state *state, struct state_events *events, enum bop_event_type type,
                        const struct bop_operation *operation, uint64_t number)
{
    if (number > 0) {
        tell(state, events,
             &(struct bop_event){.type = type,
                                 .name = operation->name,
                                 .key = operation->key,
                                 .number = (int64_t)number},
             0, 0);
    }
}

static struct state_reply write_set(struct state *state, struct state_events *events,
                                    const struct bop_operation *operation)
{
    struct bop_event event = {.name = operation->name, .key = operation->key};
    unsigned which, number = 0;
    struct state_set *set;
    struct state_cell *cell;
    uint64_t count;

    state->lost |= !letter(operation->name, 's', STATE_SETS, &which);
    set = &state->sets[which];
    if (operation->op == BOP_OP_SET_CREATE) {
        return reply_bool(operation,
                          make(state, events, &set->made, BOP_EVENT_SET_CREATE, operation->name));
    }
    if (operation->op == BOP_OP_SET_CLEAR) {
        count = cells_clear(set->members, STATE_MEMBERS);
        tell_number(state, events, BOP_EVENT_SET_CLEAR, operation, count);
        return reply_size(operation, count);
    }
    state->lost |= !letter(operation->key, 'a', STATE_MEMBERS, &number);
    cell = &set->members[number];
    if (cell->present == (operation->op == BOP_OP_SET_ADD)) {
        return reply_bool(operation, false);
    }
    if (operation->op == BOP_OP_SET_ADD) {
        make(state, events, &set->made, BOP_EVENT_SET_CREATE, operation->name);
        *cell = (struct state_cell){.present = true, .version = state->index};
        event.type = BOP_EVENT_SET_ADD;
    } else {
        *cell = (struct state_cell){0};
        event.type = BOP_EVENT_SET_REMOVE;
    }
    tell(state, events, &event, 0, 0);
    return reply_bool(operation, true);
}

static struct state_reply write_pair(struct state *state, struct state_events *events,
                                     struct state_multimap *multimap, unsigned key,
                                     const struct bop_operation *operation)
{
    struct bop_event event = {.name = operation->name, .key = operation->key};
    bool putting = operation->op == BOP_OP_MULTIMAP_PUT;
    struct state_cell *pair;
    unsigned value;

    state->lost |= !letter(operation->value, 'a', STATE_VALUES, &value);
    pair = &multimap->pairs[key][value];
    if (pair->present == putting) {
        return reply_bool(operation, false);
    }
    if (putting) {
        make(state, events, &multimap->made, BOP_EVENT_MULTIMAP_CREATE, operation->name);
    }
    event.type = putting ? BOP_EVENT_MULTIMAP_PUT : BOP_EVENT_MULTIMAP_REMOVE_VALUE;
    *pair = (struct state_cell){.present = putting, .version = putting ? state->index : 0};
    tell(state, events, &event, state_hash(operation->value), 0);
    return reply_bool(operation, true);
}

static struct state_reply write_multimap(struct state *state, struct state_events *events,
                                         const struct bop_operation *operation)
{
    unsigned which, key = 0;
    struct state_multimap *multimap;
    uint64_t count;

    state->lost |= !letter(operation->name, 'u', STATE_MULTIMAPS, &which);
    multimap = &state->multimaps[which];
    switch (operation->op) {
    case BOP_OP_MULTIMAP_CREATE:
        return reply_bool(operation, make(state, events, &multimap->made, BOP_EVENT_MULTIMAP_CREATE,
                                          operation->name));
    case BOP_OP_MULTIMAP_CLEAR:
        count = cells_clear(&multimap->pairs[0][0], STATE_PAIR_KEYS * STATE_VALUES);
        tell_number(state, events, BOP_EVENT_MULTIMAP_CLEAR, operation, count);
        return reply_size(operation, count);
    default:
        break;
    }
    state->lost |= !letter(operation->key, 'a', STATE_PAIR_KEYS, &key);
    if (operation->op == BOP_OP_MULTIMAP_REMOVE) {
        count = cells_clear(multimap->pairs[key], STATE_VALUES);
        tell_number(state, events, BOP_EVENT_MULTIMAP_REMOVE, operation, count);
        return reply_size(operation, count);
    }
    return write_pair(state, events, multimap, key, operation);
}

/* ---- Locks ---- */

static const char *const lock_names[STATE_LOCKS] = {"l0", "l1", "l2"};

static void tell_lock(struct state *state, struct state_events *events, enum bop_event_type type,
                      const struct state_lock *lock, const struct state_request *request,
                      uint8_t flags)
{
    struct bop_event event = {
        .type = type, .flags = flags, .name = bop_slice_cstr(lock_names[lock - state->locks])};

    if (request) {
        event.session = request->session;
        event.number = (int64_t)request->ticket;
        event.token = request->token;
    }
    tell(state, events, &event, request && type != BOP_EVENT_LOCK_CANCEL ? request->label : 0, 0);
}

static uint64_t taken(const struct state_lock *lock)
{
    uint64_t sum = 0;

    for (unsigned n = 0; n < lock->count; n++) {
        sum += lock->requests[n].token ? lock->requests[n].permits : 0;
    }
    return sum;
}

static uint64_t waiting(const struct state_lock *lock)
{
    uint64_t count = 0;

    for (unsigned n = 0; n < lock->count; n++) {
        count += lock->requests[n].token == 0;
    }
    return count;
}

static bool lives(const struct state *state, uint64_t session)
{
    for (unsigned n = 0; n < state->open_count; n++) {
        if (state->open[n].id == session) {
            return !state->open[n].ending;
        }
    }
    return false;
}

/* In the order of the queue, until one does not fit. */
static void grant(struct state *state, struct state_events *events, struct state_lock *lock)
{
    for (unsigned n = 0; n < lock->count; n++) {
        struct state_request *request = &lock->requests[n];

        if (request->token != 0) {
            continue;
        }
        if (taken(lock) + request->permits > lock->capacity || !lives(state, request->session)) {
            return;
        }
        request->token = state->index;
        request->deadline_ms = UINT64_MAX;
        tell_lock(state, events, BOP_EVENT_LOCK_GRANT, lock, request, 0);
    }
}

static void leave(struct state *state, struct state_events *events, struct state_lock *lock,
                  unsigned at, uint8_t flags)
{
    struct state_request *request = &lock->requests[at];

    tell_lock(state, events, request->token ? BOP_EVENT_LOCK_RELEASE : BOP_EVENT_LOCK_CANCEL, lock,
              request, flags);
    memmove(request, request + 1, (lock->count - at - 1) * sizeof(*request));
    lock->count--;
    if (lock->count == 0) {
        lock->id = 0;
        lock->exists = lock->stays;
    }
    grant(state, events, lock);
}

/* Ids are the tickets of first requests, or the next number that is free. */
static uint64_t free_lock_id(const struct state *state, uint64_t id)
{
    for (unsigned n = 0; n < STATE_LOCKS; n++) {
        if (state->locks[n].id == id) {
            return free_lock_id(state, id + 1);
        }
    }
    return id;
}

static struct state_reply acquire(struct state *state, struct state_events *events,
                                  struct state_lock *lock, const struct bop_operation *operation)
{
    bool fits = waiting(lock) == 0 && taken(lock) + operation->permits <= operation->capacity;
    bool forever = operation->ttl_ms == BOP_LOCK_TIMEOUT_NEVER;
    struct bop_result result = {.ticket = state->index};
    struct state_request *request;

    if (lock->exists && lock->capacity != operation->capacity) {
        return reply_condition(operation, lock->capacity);
    }
    if (lock->count > 0 && lock->requests[lock->count - 1].ticket == state->index) {
        return reply_status(operation, BOP_STATUS_BAD_REQUEST);
    }
    if (!fits && operation->ttl_ms == 0) {
        return reply(operation, &(struct bop_result){.position = waiting(lock) + 1}, 0);
    }
    if (lock->count == STATE_REQUESTS) {
        state->lost = true;
        return reply_status(operation, BOP_STATUS_BUSY);
    }
    if (lock->count == 0) {
        lock->id = free_lock_id(state, state->index);
    }
    lock->exists = true;
    lock->capacity = operation->capacity;
    request = &lock->requests[lock->count++];
    *request = (struct state_request){
        .ticket = state->index,
        .session = state->session,
        .token = fits ? state->index : 0,
        .deadline_ms = forever || fits ? UINT64_MAX : state->time_ms + operation->ttl_ms,
        .permits = operation->permits,
        .label = state_hash(operation->label)};
    tell_lock(state, events, fits ? BOP_EVENT_LOCK_GRANT : BOP_EVENT_LOCK_WAIT, lock, request, 0);
    result.token = request->token;
    result.position = fits ? 0 : waiting(lock);
    return reply(operation, &result, 0);
}

static struct state_reply release(struct state *state, struct state_events *events,
                                  struct state_lock *lock, const struct bop_operation *operation)
{
    for (unsigned n = 0; n < lock->count; n++) {
        if (lock->requests[n].ticket == operation->sequence) {
            if (lock->requests[n].session != state->session) {
                return reply_status(operation, BOP_STATUS_NOT_FOUND);
            }
            leave(state, events, lock, n, 0);
            return reply_bool(operation, true);
        }
    }
    return reply_bool(operation, false);
}

static struct state_reply adopt(struct state *state, struct state_events *events,
                                struct state_lock *lock, const struct bop_operation *operation)
{
    for (unsigned n = 0; n < lock->count; n++) {
        struct state_request *request = &lock->requests[n];

        if (request->token != 0 && request->label == state_hash(operation->label)) {
            if (request->session != state->session) {
                tell_lock(state, events, BOP_EVENT_LOCK_RELEASE, lock, request, 0);
                request->session = state->session;
                tell_lock(state, events, BOP_EVENT_LOCK_GRANT, lock, request, 0);
            }
            return reply(operation,
                         &(struct bop_result){.ticket = request->ticket, .token = request->token},
                         0);
        }
    }
    return reply(operation, &(struct bop_result){0}, 0);
}

static struct state_lock *find_lock(struct state *state, struct bop_slice name)
{
    unsigned which;

    state->lost |= !named(name, 'l', STATE_LOCKS, &which);
    return &state->locks[which];
}

static struct state_reply write_lock(struct state *state, struct state_events *events,
                                     const struct bop_operation *operation)
{
    struct state_lock *lock = find_lock(state, operation->name);
    bool existed = lock->exists;

    if (operation->op == BOP_OP_LOCK_CREATE) {
        if (existed && lock->capacity != operation->capacity) {
            return reply_condition(operation, lock->capacity);
        }
        if (!existed || !lock->stays) {
            tell_lock(state, events, BOP_EVENT_LOCK_CREATE, lock, NULL, 0);
        }
        lock->exists = lock->stays = true;
        lock->capacity = operation->capacity;
        return reply_bool(operation, !existed);
    }
    if (operation->op == BOP_OP_LOCK_DELETE) {
        if (lock->count > 0) {
            return reply_condition(operation, lock->count);
        }
        if (existed) {
            tell_lock(state, events, BOP_EVENT_LOCK_DELETE, lock, NULL, 0);
        }
        lock->exists = lock->stays = false;
        return reply_bool(operation, existed);
    }
    if (state->session == 0) {
        return reply_status(operation, BOP_STATUS_NO_SESSION);
    }
    return operation->op == BOP_OP_LOCK_ACQUIRE   ? acquire(state, events, lock, operation)
           : operation->op == BOP_OP_LOCK_RELEASE ? release(state, events, lock, operation)
                                                  : adopt(state, events, lock, operation);
}

/* ---- Members and registrations ---- */

static void tell_member(struct state *state, struct state_events *events, enum bop_event_type type,
                        const struct state_member *member, uint8_t flags)
{
    struct bop_event event = {.type = type,
                              .flags = flags,
                              .name = bop_slice_cstr("g"),
                              .session = member->session,
                              .number = (int64_t)member->number};

    for (unsigned n = 0; n < BOP_COUNT_OF(letters); n++) {
        if (state_hash(letter_slice(n)) == member->name) {
            event.key = letter_slice(n);
        }
    }
    tell(state, events, &event, member->info, 0);
}

/* What a list shows: session q, info b. */
static uint64_t shown(uint64_t session, struct bop_slice info)
{
    uint8_t bytes[128];

    BOP_ASSERT(info.size <= sizeof(bytes) - 12);
    bop_store_u64(bytes, session);
    bop_store_u32(bytes + 8, (uint32_t)info.size);
    if (info.size > 0) {
        memcpy(bytes + 12, info.data, info.size);
    }
    return state_hash(bop_slice(bytes, 12 + info.size));
}

static void remove_member(struct state *state, unsigned at)
{
    memmove(&state->members[at], &state->members[at + 1],
            (state->member_count - at - 1) * sizeof(state->members[0]));
    state->member_count--;
}

static struct state_reply write_member(struct state *state, struct state_events *events,
                                       const struct bop_operation *operation)
{
    struct state_member *member = NULL;
    struct bop_result result = {0};
    bool own;

    for (unsigned n = 0; n < state->member_count; n++) {
        if (state->members[n].name == state_hash(operation->key)) {
            member = &state->members[n];
        }
    }
    own = member && member->session == state->session;
    if (state->session == 0) {
        return reply_status(operation, BOP_STATUS_BAD_REQUEST);
    }
    if (operation->op == BOP_OP_MEMBER_JOIN && !member) {
        for (unsigned n = 0; n < state->member_count; n++) {
            if (state->members[n].number == state->index) {
                return reply_status(operation, BOP_STATUS_BAD_REQUEST);
            }
        }
        state->lost |= state->member_count == STATE_GROUP;
        member = &state->members[state->lost ? 0 : state->member_count++];
        *member = (struct state_member){.number = state->index,
                                        .session = state->session,
                                        .name = state_hash(operation->key),
                                        .info = state_hash(operation->value),
                                        .shown = shown(state->session, operation->value)};
        tell_member(state, events, BOP_EVENT_MEMBER_JOIN, member, 0);
        result.version = state->index;
        return reply(operation, &result, 0);
    }
    if (operation->op == BOP_OP_MEMBER_JOIN && !own) {
        return reply_condition(operation, member->number);
    }
    if (own && operation->op == BOP_OP_MEMBER_LEAVE) {
        tell_member(state, events, BOP_EVENT_MEMBER_LEAVE, member, 0);
        remove_member(state, (unsigned)(member - state->members));
    } else if (own) {
        member->info = state_hash(operation->value);
        member->shown = shown(state->session, operation->value);
        tell_member(state, events, BOP_EVENT_MEMBER_SET, member, 0);
    }
    if (operation->op == BOP_OP_MEMBER_JOIN) {
        result.version = member->number;
        return reply(operation, &result, 0);
    }
    return reply_bool(operation, own);
}

static void tell_registration(struct state *state, struct state_events *events,
                              enum bop_event_type type, const struct state_registration *one,
                              uint8_t flags)
{
    struct bop_event event = {.type = type,
                              .flags = flags,
                              .name = bop_slice_cstr("r"),
                              .key = letter_slice(one->address),
                              .session = one->session,
                              .number = (int64_t)one->sequence};

    tell(state, events, &event, 0, 0);
}

static struct state_registration *find_registration(struct state *state, uint64_t sequence)
{
    for (unsigned n = 0; n < state->registration_count; n++) {
        struct state_registration *one = &state->registrations[n];

        if (one->session == state->session && one->sequence == sequence) {
            return one;
        }
    }
    return NULL;
}

static void remove_registration(struct state *state, struct state_registration *one)
{
    *one = state->registrations[--state->registration_count];
}

/* False: the number is in use for another address. */
static bool add_registration(struct state *state, struct state_events *events,
                             struct bop_slice address, uint64_t sequence, uint64_t *added)
{
    struct state_registration *one = find_registration(state, sequence);
    unsigned number;

    state->lost |= !letter(address, 'a', STATE_ADDRESSES, &number);
    if (one) {
        return one->address == number;
    }
    if (state->registration_count == STATE_REGISTRY) {
        state->lost = true;
        return false;
    }
    one = &state->registrations[state->registration_count++];
    *one = (struct state_registration){
        .session = state->session, .sequence = sequence, .index = state->index, .address = number};
    tell_registration(state, events, BOP_EVENT_REGISTRATION_ADD, one, 0);
    ++*added;
    return true;
}

static struct state_reply add_all(struct state *state, struct state_events *events,
                                  const struct bop_operation *operation)
{
    struct bop_slice items = operation->items;
    struct state *before = malloc(sizeof(*before));
    size_t told = events->count;
    struct bop_item item;
    uint64_t added = 0;
    bool good = true;

    BOP_ASSERT(before);
    *before = *state;
    while (good && bop_item_next(operation->op, &items, &item)) {
        good = add_registration(state, events, item.key, item.sequence, &added);
    }
    if (!good) {
        *state = *before;
        events->count = told;
    }
    free(before);
    return good ? reply_size(operation, added) : reply_status(operation, BOP_STATUS_BAD_REQUEST);
}

static struct state_reply write_registration(struct state *state, struct state_events *events,
                                             const struct bop_operation *operation)
{
    struct state_registration *one;
    uint64_t added = 0;
    unsigned number;

    if (state->session == 0) {
        return reply_status(operation, BOP_STATUS_BAD_REQUEST);
    }
    if (operation->op == BOP_OP_REGISTRATION_ADD_ALL) {
        return add_all(state, events, operation);
    }
    if (operation->op == BOP_OP_REGISTRATION_ADD) {
        return add_registration(state, events, operation->key, operation->sequence, &added)
                   ? reply_bool(operation, added > 0)
                   : reply_status(operation, BOP_STATUS_BAD_REQUEST);
    }
    one = find_registration(state, operation->sequence);
    state->lost |= !letter(operation->key, 'a', STATE_ADDRESSES, &number);
    if (!one || one->address != number) {
        return reply_bool(operation, false);
    }
    tell_registration(state, events, BOP_EVENT_REGISTRATION_REMOVE, one, 0);
    remove_registration(state, one);
    return reply_bool(operation, true);
}

/* ---- Transactions ---- */

static bool related(enum bop_relation relation, int64_t there, int64_t wanted)
{
    return relation == BOP_EQUAL       ? there == wanted
           : relation == BOP_NOT_EQUAL ? there != wanted
           : relation == BOP_LESS      ? there < wanted
                                       : there > wanted;
}

static bool holds(struct state *state, const struct bop_compare *compare)
{
    bool there = false;
    unsigned a, b;

    switch (compare->kind) {
    case BOP_COMPARE_VERSION:
        state->lost |= !letter(compare->key, 'a', STATE_KEYS, &a);
        return related(compare->relation, (int64_t)find_map(state, compare->name)->keys[a].version,
                       compare->number);
    case BOP_COMPARE_COUNTER:
        return related(compare->relation, find_counter(state, compare->name)->value,
                       compare->number);
    case BOP_COMPARE_SET:
        state->lost |= !letter(compare->key, 'a', STATE_MEMBERS, &a);
        there = state->sets[0].members[a].present;
        break;
    case BOP_COMPARE_MULTIMAP:
        state->lost |= !letter(compare->key, 'a', STATE_PAIR_KEYS, &a);
        state->lost |= !letter(compare->value, 'a', STATE_VALUES, &b);
        there = state->multimaps[0].pairs[a][b].present;
        break;
    case BOP_COMPARE_MEMBER:
        for (unsigned n = 0; n < state->member_count; n++) {
            there |= state->members[n].name == state_hash(compare->key);
        }
        break;
    case BOP_COMPARE_LOCK:
        for (unsigned n = 0; n < find_lock(state, compare->name)->count; n++) {
            uint64_t token = find_lock(state, compare->name)->requests[n].token;

            there |= token != 0 && token == (uint64_t)compare->number;
        }
        return related(compare->relation, there, 1);
    default:
        state->lost = true;
    }
    return related(compare->relation, there, compare->number);
}

/* A read in the middle: gets of maps and counters. */
static struct state_reply read_one(struct state *state, const struct bop_operation *operation)
{
    struct bop_result result = {0};
    uint64_t value = 0;
    unsigned key;

    if (operation->op == BOP_OP_COUNTER_GET) {
        const struct state_counter *counter = find_counter(state, operation->name);

        result.status = counter->made ? BOP_STATUS_OK : BOP_STATUS_NOT_FOUND;
        result.number = counter->value;
    } else {
        const struct state_cell *cell;

        state->lost |= operation->op != BOP_OP_MAP_GET ||
                       !letter(operation->key, 'a', STATE_KEYS, &key);
        cell = &find_map(state, operation->name)->keys[state->lost ? 0 : key];
        result.status = cell->present ? BOP_STATUS_OK : BOP_STATUS_NOT_FOUND;
        result.version = cell->version;
        value = cell->value;
    }
    return reply(operation, &result, value);
}

static struct state_reply transact(struct state *state, struct state_events *events,
                                   const struct bop_operation *operation)
{
    struct bop_slice compares = operation->compares, operations, bytes;
    struct state *before = malloc(sizeof(*before));
    struct state_reply one = {0};
    size_t told = events->count;
    struct bop_compare compare;
    uint64_t number = 0, digest;
    bool held = true;

    BOP_ASSERT(before);
    *before = *state;
    while (held && bop_compare_next(&compares, &compare)) {
        held = holds(state, &compare);
    }
    operations = held ? operation->then_items : operation->else_items;
    digest = state_mix(operation->op, held);
    while (bop_transaction_next(&operations, &bytes)) {
        struct bop_operation part;

        state->lost |= bop_operation_decode(bytes, &part) < 0;
        one = bop_op_is_write(part.op) ? state_write(state, events, &part) : read_one(state, &part);
        if (one.status != BOP_STATUS_OK && one.status != BOP_STATUS_NOT_FOUND) {
            bool lost = state->lost;

            *state = *before;
            state->lost = lost;
            events->count = told;
            free(before);
            return one.status == BOP_STATUS_CONDITION ? reply_condition(operation, number)
                                                      : reply_status(operation, one.status);
        }
        digest = state_mix(digest, one.digest);
        number++;
    }
    free(before);
    return (struct state_reply){.status = BOP_STATUS_OK, .digest = digest};
}

/* ---- All of them ---- */

struct state_reply state_write(struct state *state, struct state_events *events,
                               const struct bop_operation *operation)
{
    enum bop_op op = operation->op;

    if (state->level < 2 &&
        ((op >= BOP_OP_MAP_PUT_TTL && op <= BOP_OP_MAP_PUT_ALL) || op >= BOP_OP_LOCK_ACQUIRE)) {
        return reply_status(operation, BOP_STATUS_TOO_OLD);
    }
    if (op == BOP_OP_TRANSACTION) {
        return transact(state, events, operation);
    }
    return op >= BOP_OP_REGISTRATION_ADD ? write_registration(state, events, operation)
           : op >= BOP_OP_MEMBER_JOIN    ? write_member(state, events, operation)
           : op >= BOP_OP_LOCK_ACQUIRE   ? write_lock(state, events, operation)
           : op >= BOP_OP_MULTIMAP_PUT   ? write_multimap(state, events, operation)
           : op >= BOP_OP_SET_ADD        ? write_set(state, events, operation)
           : op >= BOP_OP_COUNTER_ADD    ? write_counter(state, events, operation)
                                         : write_map(state, events, operation);
}

/* ---- Time ---- */

/* What is due first: by time, kind, what it belongs to, and its number. */
struct due {
    uint64_t time_ms, kind, id, number;
    unsigned which, at;
};

static bool sooner(const struct due *a, const struct due *b)
{
    return a->time_ms != b->time_ms ? a->time_ms < b->time_ms
           : a->kind != b->kind     ? a->kind < b->kind
           : a->id != b->id         ? a->id < b->id
           : a->number != b->number ? a->number < b->number
                                    : a->at < b->at;
}

static bool first_due(const struct state *state, struct due *out_due)
{
    struct due first = {.time_ms = UINT64_MAX}, due;

    for (unsigned m = 0; m < STATE_MAPS; m++) {
        for (unsigned k = 0; k < STATE_KEYS; k++) {
            const struct state_cell *cell = &state->maps[m].keys[k];

            due = (struct due){cell->deadline_ms, 1, state->maps[m].id, cell->version, m, k};
            if (cell->deadline_ms != 0 && sooner(&due, &first)) {
                first = due;
            }
        }
    }
    for (unsigned m = 0; m < STATE_LOCKS; m++) {
        for (unsigned n = 0; n < state->locks[m].count; n++) {
            const struct state_request *request = &state->locks[m].requests[n];

            due = (struct due){request->deadline_ms, 2, state->locks[m].id, request->ticket, m, n};
            if (sooner(&due, &first)) {
                first = due;
            }
        }
    }
    *out_due = first;
    return first.time_ms <= state->time_ms;
}

void state_timers(struct state *state, struct state_events *events)
{
    struct due due;

    while (first_due(state, &due)) {
        if (due.kind == 1) {
            char name = (char)('m' + due.which);

            delete_cell(state, events, &state->maps[due.which].keys[due.at], bop_slice(&name, 1),
                        letter_slice(due.at), BOP_EVENT_EXPIRED);
        } else {
            leave(state, events, &state->locks[due.which], due.at, BOP_EVENT_EXPIRED);
        }
    }
}

/* ---- Sessions ---- */

void state_open(struct state *state, struct state_events *events, uint64_t session)
{
    if (state->open_count == STATE_OPEN) {
        state->lost = true;
        return;
    }
    state->open[state->open_count].id = session;
    state->open[state->open_count++].ending = false;
    tell(state, events, &(struct bop_event){.type = BOP_EVENT_SESSION_OPEN, .session = session}, 0,
         0);
}

bool state_is_open(const struct state *state, uint64_t session)
{
    return lives(state, session);
}

/* By their numbers. */
static void end_registrations(struct state *state, struct state_events *events, uint64_t session)
{
    struct state_registration *first;

    do {
        first = NULL;
        for (unsigned n = 0; n < state->registration_count; n++) {
            struct state_registration *one = &state->registrations[n];

            if (one->session == session && (!first || one->sequence < first->sequence)) {
                first = one;
            }
        }
        if (first) {
            tell_registration(state, events, BOP_EVENT_REGISTRATION_REMOVE, first,
                              BOP_EVENT_EXPIRED);
            remove_registration(state, first);
        }
    } while (first);
}

/* By their locks, as they got their first requests, then by ticket. */
static void end_requests(struct state *state, struct state_events *events, uint64_t session)
{
    struct state_lock *lock;
    unsigned at = 0;

    do {
        lock = NULL;
        for (unsigned m = 0; m < STATE_LOCKS; m++) {
            for (unsigned n = 0; n < state->locks[m].count; n++) {
                if (state->locks[m].requests[n].session == session &&
                    (!lock || state->locks[m].id < lock->id)) {
                    lock = &state->locks[m];
                    at = n;
                }
            }
        }
        if (lock) {
            leave(state, events, lock, at, BOP_EVENT_EXPIRED);
        }
    } while (lock);
}

static void end_members(struct state *state, struct state_events *events, uint64_t session)
{
    for (unsigned n = 0; n < state->member_count;) {
        if (state->members[n].session == session) {
            tell_member(state, events, BOP_EVENT_MEMBER_LEAVE, &state->members[n],
                        BOP_EVENT_EXPIRED);
            remove_member(state, n);
        } else {
            n++;
        }
    }
}

static void end_one(struct state *state, struct state_events *events, uint64_t session,
                    bool expired)
{
    end_registrations(state, events, session);
    end_requests(state, events, session);
    end_members(state, events, session);
    tell(state, events,
         &(struct bop_event){.type = BOP_EVENT_SESSION_END,
                             .flags = expired ? BOP_EVENT_EXPIRED : 0,
                             .session = session},
         0, 0);
    for (unsigned n = 0; n < state->open_count; n++) {
        if (state->open[n].id == session) {
            state->open[n] = state->open[--state->open_count];
            return;
        }
    }
}

void state_end(struct state *state, struct state_events *events, struct bop_slice sessions,
               bool expired)
{
    for (size_t at = 0; at < sessions.size; at += 8) {
        for (unsigned n = 0; n < state->open_count; n++) {
            if (state->open[n].id == bop_load_u64(sessions.data + at)) {
                state->open[n].ending = true;
            }
        }
    }
    for (size_t at = 0; at < sessions.size; at += 8) {
        uint64_t session = bop_load_u64(sessions.data + at);

        for (unsigned n = 0; n < state->open_count; n++) {
            if (state->open[n].id == session) {
                end_one(state, events, session, expired);
                break;
            }
        }
    }
}

/* ---- What reads show ---- */

uint64_t state_item(uint64_t key, uint64_t version, uint64_t value)
{
    return state_mix(state_mix(state_mix(7, key), version), value);
}

unsigned state_read_object(const struct bop_operation *operation)
{
    unsigned which = 0, key = 0;

    switch (operation->op) {
    case BOP_OP_MAP_GET:
    case BOP_OP_MAP_GET_TTL:
        letter(operation->name, 'm', STATE_MAPS, &which);
        letter(operation->key, 'a', STATE_KEYS, &key);
        return OBJECT_MAP_KEY + which * STATE_KEYS + key;
    case BOP_OP_MAP_SIZE:
        letter(operation->name, 'm', STATE_MAPS, &which);
        return OBJECT_MAP_SIZE + which;
    case BOP_OP_MAP_SCAN:
    case BOP_OP_MAP_RANGE:
        letter(operation->name, 'm', STATE_MAPS, &which);
        return OBJECT_MAP + which;
    case BOP_OP_COUNTER_GET:
        named(operation->name, 'c', STATE_COUNTERS, &which);
        return OBJECT_COUNTER + which;
    case BOP_OP_SET_CONTAINS:
        letter(operation->key, 'a', STATE_MEMBERS, &key);
        return OBJECT_SET_MEMBER + key;
    case BOP_OP_SET_SCAN:
        return OBJECT_SET;
    case BOP_OP_MULTIMAP_GET:
        letter(operation->key, 'a', STATE_PAIR_KEYS, &key);
        return OBJECT_PAIRS_OF + key;
    case BOP_OP_MULTIMAP_ENTRIES:
        return OBJECT_MULTIMAP;
    case BOP_OP_LOCK_GET:
        named(operation->name, 'l', STATE_LOCKS, &which);
        return OBJECT_LOCK + which;
    case BOP_OP_MEMBER_LIST:
        return OBJECT_GROUP;
    case BOP_OP_REGISTRATION_LIST:
        return OBJECT_REGISTRY;
    default:
        return OBJECT_COUNT;
    }
}

uint64_t state_read_digest(const struct bop_operation *operation, const struct bop_result *result)
{
    bool in_order = operation->op == BOP_OP_LOCK_GET || operation->op == BOP_OP_MEMBER_LIST;
    struct bop_slice entries = result->entries;
    struct bop_scan_entry entry;
    uint64_t digest;

    if (result->status != BOP_STATUS_OK) {
        return 0;
    }
    switch (operation->op) {
    case BOP_OP_MAP_GET:
    case BOP_OP_MAP_GET_TTL:
        return state_item(1, result->version, state_hash(result->value));
    case BOP_OP_MAP_SIZE:
        return state_item(2, result->size, 0);
    case BOP_OP_COUNTER_GET:
        return state_item(3, (uint64_t)result->number, 0);
    case BOP_OP_SET_CONTAINS:
        return state_item(4, result->existed, 0);
    default:
        break;
    }
    digest = state_item(result->count, result->capacity, result->permits);
    while (bop_scan_next(&entries, &entry)) {
        uint64_t item = operation->op == BOP_OP_LOCK_OWNED
                            ? state_owned_item(&entry)
                            : state_item(state_hash(entry.key), entry.version,
                                         state_hash(entry.value));

        digest = in_order ? state_mix(digest, item) : digest + item;
    }
    return digest;
}

static uint64_t map_digest(const struct state_map *map)
{
    uint64_t digest = state_item(map_count(map), 0, 0);

    for (unsigned k = 0; k < STATE_KEYS; k++) {
        const struct state_cell *cell = &map->keys[k];

        if (cell->present) {
            digest += state_item(state_hash(letter_slice(k)), cell->version, cell->value);
        }
    }
    return digest;
}

static uint64_t set_digest(const struct state_set *set)
{
    uint64_t count = 0, sum = 0;

    for (unsigned k = 0; k < STATE_MEMBERS; k++) {
        const struct state_cell *cell = &set->members[k];

        if (cell->present) {
            count++;
            sum += state_item(state_hash(letter_slice(k)), cell->version, 0);
        }
    }
    return state_item(count, 0, 0) + sum;
}

static uint64_t pairs_digest(const struct state_multimap *multimap, unsigned first, unsigned end,
                             bool with_keys)
{
    uint64_t count = 0, sum = 0;

    for (unsigned k = first; k < end; k++) {
        for (unsigned v = 0; v < STATE_VALUES; v++) {
            const struct state_cell *cell = &multimap->pairs[k][v];

            if (cell->present) {
                count++;
                sum += state_item(with_keys ? state_hash(letter_slice(k)) : 0, cell->version,
                                  state_hash(letter_slice(v)));
            }
        }
    }
    return state_item(count, 0, 0) + sum;
}

static uint64_t lock_digest(const struct state_lock *lock)
{
    uint64_t digest = state_item(lock->count, lock->capacity, taken(lock));

    if (!lock->exists) {
        return 0;
    }
    for (unsigned n = 0; n < lock->count; n++) {
        const struct state_request *request = &lock->requests[n];
        uint8_t value[20];

        bop_store_u64(value, request->session);
        bop_store_u64(value + 8, request->token);
        bop_store_u32(value + 16, request->permits);
        digest = state_mix(digest, state_item(request->label, request->ticket,
                                              state_hash(bop_slice(value, sizeof(value)))));
    }
    return digest;
}

static uint64_t group_digest(const struct state *state)
{
    uint64_t digest = state_item(state->member_count, 0, 0);

    for (unsigned n = 0; n < state->member_count; n++) {
        const struct state_member *member = &state->members[n];

        digest = state_mix(digest, state_item(member->name, member->number, member->shown));
    }
    return digest;
}

static uint64_t registry_digest(const struct state *state)
{
    uint64_t digest = state_item(state->registration_count, 0, 0);

    for (unsigned n = 0; n < state->registration_count; n++) {
        const struct state_registration *one = &state->registrations[n];
        uint8_t value[16];

        bop_store_u64(value, one->session);
        bop_store_u64(value + 8, one->sequence);
        digest += state_item(state_hash(letter_slice(one->address)), one->index,
                             state_hash(bop_slice(value, sizeof(value))));
    }
    return digest;
}

uint64_t state_object_digest(const struct state *state, unsigned object)
{
    if (object >= OBJECT_QUEUE) {
        return state_shown_digest(state, object);
    }
    if (object >= OBJECT_REGISTRY) {
        return registry_digest(state);
    }
    if (object >= OBJECT_GROUP) {
        return group_digest(state);
    }
    if (object >= OBJECT_LOCK) {
        return lock_digest(&state->locks[object - OBJECT_LOCK]);
    }
    if (object >= OBJECT_MULTIMAP) {
        return pairs_digest(&state->multimaps[0], 0, STATE_PAIR_KEYS, true);
    }
    if (object >= OBJECT_PAIRS_OF) {
        unsigned key = object - OBJECT_PAIRS_OF;

        return pairs_digest(&state->multimaps[0], key, key + 1, false);
    }
    if (object >= OBJECT_SET) {
        return set_digest(&state->sets[0]);
    }
    if (object >= OBJECT_SET_MEMBER) {
        return state_item(4, state->sets[0].members[object - OBJECT_SET_MEMBER].present, 0);
    }
    if (object >= OBJECT_COUNTER) {
        const struct state_counter *counter = &state->counters[object - OBJECT_COUNTER];

        return counter->made ? state_item(3, (uint64_t)counter->value, 0) : 0;
    }
    if (object >= OBJECT_MAP) {
        return map_digest(&state->maps[object - OBJECT_MAP]);
    }
    if (object >= OBJECT_MAP_SIZE) {
        return state_item(2, map_count(&state->maps[object - OBJECT_MAP_SIZE]), 0);
    }
    const struct state_cell *cell = &state->maps[object / STATE_KEYS].keys[object % STATE_KEYS];

    return cell->present ? state_item(1, cell->version, cell->value) : 0;
}
