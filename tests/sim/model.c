/*
 * What must hold.
 *
 * The committed entries are taken from the nodes as they apply them. The first
 * node to apply an entry gives it to a model of the state machine, written anew
 * and simply; whoever applies it later must have the same one. From this follow
 * the checks, each of which costs little:
 *
 *   - one leader a term;
 *   - an entry, once applied anywhere, is the same everywhere and for ever, and so
 *     is the state's digest after it;
 *   - a write that was answered stands in the log exactly once, was not there
 *     before it was asked for, and has the model's result; one that was refused
 *     stands nowhere;
 *   - reads are linearizable. Writes are ordered by the log, so only a place for
 *     each read is to be found: not before what was acknowledged when it was
 *     asked for (the floor), where the key has what the read returned. The
 *     earliest such place is taken, and raises the floor for whatever is asked
 *     for after the answer. As every operation takes the earliest place it can,
 *     there is an order if and only if this finds one;
 *   - in the end every node has applied every entry and holds the model's state.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/crc32c.h>

#include "replica_internal.h"
#include "sim.h"

#define TERMS_MAX 100000
#define PACE_US   5000 /* Of rounding. */
#define EXPIRE_SLACK_US                                                                            \
    (500 * SIM_MS) /* Between a session's opening at the leader and its being seen here. */

static const char *const state_names[] = {"unavailable", "follower", "candidate", "leader"};

/* What an object of the state shows from an entry on, until the next one of these. */
struct moment {
    uint64_t index;
    uint64_t digest;
    uint64_t ttl_ms; /* Of a map's entry. */
};

struct history {
    struct moment *moments;
    size_t count, capacity;
};

struct model_session {
    uint64_t id;
    uint64_t opened_us; /* Not before. */
    uint32_t patience_ms;
    uint64_t acked;
    uint8_t token[BOP_TOKEN_SIZE];
    uint64_t *numbers; /* Of the operations that were run, by sequence. */
    size_t capacity;
    struct history owned; /* Its requests of locks. */
};

struct sim_model {
    uint64_t applied;
    uint64_t floor;
    struct sim_entry *entries; /* By index. */
    size_t entry_capacity;
    uint8_t leaders[TERMS_MAX]; /* By term; 0: none seen. */
    struct state state;
    struct state_events events;
    struct history objects[OBJECT_COUNT];
    struct model_session *sessions;
    size_t session_count, session_capacity;
    int64_t pace_us;                    /* Real time is at least so much ahead of the cluster's. */
    struct bop_raft_configuration conf; /* The last one committed; count 0: the first. */
};

static void note_object(struct sim_model *model, unsigned object, uint64_t index);

void sim_model_init(struct sim *sim)
{
    sim->model = sim_memory(sizeof(*sim->model));
    state_init(&sim->model->state);
    sim->model->pace_us = INT64_MIN;
    for (unsigned n = 0; n < OBJECT_COUNT; n++) {
        note_object(sim->model, n, 0);
    }
}

void sim_model_deinit(struct sim *sim)
{
    struct sim_model *model = sim->model;

    for (unsigned n = 0; n < OBJECT_COUNT; n++) {
        free(model->objects[n].moments);
    }
    for (size_t n = 0; n < model->session_count; n++) {
        free(model->sessions[n].numbers);
        free(model->sessions[n].owned.moments);
    }
    free(model->events.list);
    free(model->sessions);
    free(model->entries);
    free(model);
}

uint64_t sim_model_floor(const struct sim *sim)
{
    return sim->model->floor;
}

uint64_t sim_model_applied(const struct sim *sim)
{
    return sim->model->applied;
}

/* Room for one more element of an array that doubles. */
static void *room(void *array, size_t *capacity, size_t wanted, size_t size)
{
    size_t before = *capacity;

    if (wanted < before) {
        return array;
    }
    *capacity = before ? before : 64;
    while (*capacity <= wanted) {
        *capacity *= 2;
    }
    array = realloc(array, *capacity * size);
    BOP_ASSERT(array);
    memset((char *)array + before * size, 0, (*capacity - before) * size);
    return array;
}

static struct sim_entry *entry_at(struct sim_model *model, uint64_t index)
{
    model->entries = room(model->entries, &model->entry_capacity, (size_t)index,
                          sizeof(*model->entries));
    return &model->entries[index];
}

/* ---- Histories ---- */

static void remember(struct history *history, struct moment moment)
{
    history->moments = room(history->moments, &history->capacity, history->count,
                            sizeof(*history->moments));
    history->moments[history->count++] = moment;
}

/* How many moments begin at or before index. */
static size_t moments_until(const struct history *history, uint64_t index)
{
    size_t low = 0, high = history->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (history->moments[middle].index <= index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct moment moment_at(const struct history *history, uint64_t index)
{
    return history->moments[moments_until(history, index) - 1];
}

/* What it shows after this entry, if that is another thing than before. */
static void note_object(struct sim_model *model, unsigned object, uint64_t index)
{
    struct history *history = &model->objects[object];
    struct moment moment = {.index = index, .digest = state_object_digest(&model->state, object)};

    if (object < OBJECT_MAP_SIZE) {
        moment.ttl_ms = model->state.maps[object / STATE_KEYS].keys[object % STATE_KEYS].ttl_ms;
    }
    if (history->count == 0 || history->moments[history->count - 1].digest != moment.digest) {
        remember(history, moment);
    }
}

/* ---- The model's state machine ---- */

static struct model_session *find_session(const struct sim_model *model, uint64_t id)
{
    for (size_t n = model->session_count; n > 0; n--) {
        if (model->sessions[n - 1].id == id) {
            return &model->sessions[n - 1];
        }
    }
    return NULL;
}

bool sim_model_session_open(const struct sim *sim, uint64_t session)
{
    return state_is_open(&sim->model->state, session);
}

const struct state *sim_model_state(const struct sim *sim)
{
    return &sim->model->state;
}

/* Whatever changed in the locks is somebody's. */
static void note_owned(struct sim_model *model, uint64_t index)
{
    for (unsigned n = 0; n < model->session_count; n++) {
        struct model_session *session = &model->sessions[n];
        struct moment moment = {.index = index,
                                .digest = state_owned_digest(&model->state, session->id)};
        size_t count = session->owned.count;

        if (count == 0 || session->owned.moments[count - 1].digest != moment.digest) {
            remember(&session->owned, moment);
        }
    }
}

static bool note_all(struct sim_model *model, uint64_t index)
{
    bool locks = false;

    for (unsigned n = 0; n < OBJECT_COUNT; n++) {
        size_t before = model->objects[n].count;

        note_object(model, n, index);
        locks = locks ||
                (n >= OBJECT_QUEUE && n < OBJECT_JOINED && model->objects[n].count != before);
    }
    return locks;
}

/* Which operation of no session a committed write is: that shows in what it puts or adds. */
static uint64_t number_of_bytes(const struct bop_operation *operation)
{
    struct bop_slice items = operation->items, value = operation->value;
    struct bop_item item;

    if (operation->op == BOP_OP_COUNTER_ADD) {
        return (uint64_t)operation->delta;
    }
    if (operation->op == BOP_OP_MAP_PUT_ALL && bop_item_next(operation->op, &items, &item)) {
        value = item.value;
    }
    return value.size >= 8 ? bop_load_u64(value.data) : 0;
}

/* 0: none of a client's. */
static uint64_t number_of(const struct sim *sim, const struct command *command,
                          const struct bop_operation *operation)
{
    if (command->session == 0) {
        return number_of_bytes(operation);
    }
    for (uint64_t number = sim->op_count; number > 0; number--) {
        const struct sim_op *op = &sim->ops[number - 1];

        if (op->session == command->session && op->sequence == command->sequence && op->op != 0 &&
            bop_op_is_write(op->op)) {
            return number;
        }
    }
    return 0;
}

/* The cluster's time never runs faster than time does. An operation was stamped when it had been
 * sent, and what is applied now is stamped already. */
static void check_pace(struct sim *sim, uint64_t time_ms, uint64_t sent_us)
{
    struct sim_model *model = sim->model;
    int64_t time_us = (int64_t)(time_ms * 1000);

    if (sent_us != 0) {
        int64_t ahead_us = (int64_t)sent_us - time_us;

        model->pace_us = ahead_us > model->pace_us ? ahead_us : model->pace_us;
    }
    if (model->pace_us != INT64_MIN && time_us + model->pace_us > (int64_t)sim->now_us + PACE_US) {
        sim_fail(sim, "the cluster's time ran ahead by %" PRId64 " ms",
                 (time_us + model->pace_us - (int64_t)sim->now_us) / 1000);
    }
}

/* Run a write that was not run before; it must be one that a client may have asked for. Returns its
 * number. */
static uint64_t run(struct sim *sim, uint64_t index, const struct command *command)
{
    struct sim_model *model = sim->model;
    struct bop_operation operation;
    struct state_reply reply;
    struct sim_op *op;
    uint64_t number;

    if (bop_operation_decode(command->operation, &operation) < 0) {
        sim_fail(sim, "entry %" PRIu64 " holds what is no operation", index);
        return 0;
    }
    number = number_of(sim, command, &operation);
    op = sim_op(sim, number);
    if (!op || op->session != command->session || op->sequence != command->sequence ||
        !bop_slice_equal(command->operation, bop_slice(op->bytes, op->size))) {
        sim_fail(sim, "entry %" PRIu64 " holds what nobody asked for", index);
        return 0;
    }
    check_pace(sim, command->time_ms, op->first_us);
    model->state.session = command->session;
    reply = state_write(&model->state, &model->events, &operation);
    if (op->applied != 0) {
        sim_fail(sim, "operation %" PRIu64 " was done twice, by entries %" PRIu64 " and %" PRIu64,
                 number, op->applied, index);
    } else if (op->state == SIM_OP_REFUSED) {
        sim_fail(sim, "operation %" PRIu64 " was refused and is done by entry %" PRIu64, number,
                 index);
    } else if (model->state.lost) {
        sim_fail(sim, "the model has lost its way at entry %" PRIu64, index);
    }
    op->applied = index;
    op->status = reply.status;
    op->result = reply.digest;
    return number;
}

static void run_write(struct sim *sim, uint64_t index, const struct command *command)
{
    struct model_session *session;
    uint64_t *number;

    if (command->session == 0) {
        run(sim, index, command);
        return;
    }
    session = find_session(sim->model, command->session);
    if (!session || !sim_model_session_open(sim, command->session) ||
        command->sequence <= session->acked) {
        return; /* NO SESSION or STALE. */
    }
    session->numbers = room(session->numbers, &session->capacity, (size_t)command->sequence,
                            sizeof(*session->numbers));
    number = &session->numbers[command->sequence];
    if (*number != 0) {
        return; /* Done before: answered again. */
    }
    *number = run(sim, index, command);
    session->acked = bop_max_u64(session->acked, command->acked);
}

static void open_session(struct sim *sim, uint64_t index, const struct command *command)
{
    struct sim_model *model = sim->model;
    struct model_session *session;

    if (command->grace_ms > 0 && model->state.level < MACHINE_LEVEL_GRACE) {
        return;
    }
    model->sessions = room(model->sessions, &model->session_capacity, model->session_count,
                           sizeof(*model->sessions));
    session = &model->sessions[model->session_count++];
    *session = (struct model_session){
        .id = index,
        .opened_us = sim->now_us,
        .patience_ms = bop__machine_session_timeout(command->timeout_ms)};
    if (command->grace_ms > 0) {
        session->patience_ms = (uint32_t)bop_min_u64(session->patience_ms, command->grace_ms);
    }
    memcpy(session->token, command->token, sizeof(session->token));
    remember(&session->owned, (struct moment){.index = 0, .digest = state_item(0, 0, 0)});
    state_open(&model->state, &model->events, index);
}

static void expire_sessions(struct sim *sim, const struct command *command)
{
    for (size_t at = 0; at < command->expired.size; at += 8) {
        const struct model_session *session = find_session(
            sim->model, bop_load_u64(command->expired.data + at));

        /* It was opened when that was applied for the first time, or a little earlier. */
        if (session &&
            session->opened_us + session->patience_ms * SIM_MS > sim->now_us + EXPIRE_SLACK_US) {
            sim_fail(sim, "session %" PRIu64 " ends before its time", session->id);
        }
    }
    state_end(&sim->model->state, &sim->model->events, command->expired, true);
}

static void close_session(struct sim *sim, const struct command *command)
{
    const struct model_session *session = find_session(sim->model, command->session);
    uint8_t id[8];

    if (session && memcmp(session->token, command->token, sizeof(session->token)) == 0) {
        bop_store_u64(id, command->session);
        state_end(&sim->model->state, &sim->model->events, bop_slice(id, sizeof(id)), false);
    }
}

static void run_command(struct sim *sim, uint64_t index, const struct command *command)
{
    struct state *state = &sim->model->state;

    state->index = index;
    state->time_ms = bop_max_u64(state->time_ms, command->time_ms);
    check_pace(sim, command->time_ms, 0);
    switch (command->kind) {
    case COMMAND_WRITE:
        run_write(sim, index, command);
        break;
    case COMMAND_SESSION_OPEN:
        open_session(sim, index, command);
        break;
    case COMMAND_SESSION_CLOSE:
        close_session(sim, command);
        break;
    case COMMAND_SESSION_EXPIRE:
        expire_sessions(sim, command);
        break;
    case COMMAND_TIMERS:
        state_timers(state, &sim->model->events);
        break;
    case COMMAND_LEVEL:
        state->level = (uint32_t)bop_max_u64(state->level, command->level);
        break;
    default:
        sim_fail(sim, "entry %" PRIu64 " holds what nobody asked for", index);
    }
}

static uint64_t event_digest(uint64_t digest, const struct state_event *event)
{
    return state_mix(state_mix(digest, event->digest), event->previous);
}

/* Who was a member, by the directory it has now, and is not any more may say that it was removed.
 */
static void note_removed(struct sim *sim)
{
    for (unsigned n = 0; n < sim->node_count; n++) {
        struct sim_node *node = &sim->nodes[n];
        const struct bop_raft_server *server = bop__member_find(&sim->model->conf, node->id);
        struct member member = {0};

        if (server) {
            bop__member_of(server, &member);
        }
        if (server && (member.incarnation == 0 || member.incarnation != node->lost_incarnation)) {
            node->was_member = true;
        } else {
            node->claimed = false;
            node->was_removed |= node->was_member;
        }
    }
}

static void run_entry(struct sim *sim, uint64_t index, const struct bop_raft_entry *entry)
{
    struct sim_model *model = sim->model;
    struct sim_entry *known = &model->entries[index];
    struct command command;

    model->applied = index;
    sim->stats.committed++;
    known->seen_us = sim->now_us;
    known->first_event = model->events.count;
    if (entry->type == BOP_RAFT_CHANGE) {
        if (bop_raft_configuration_decode(entry->data, &model->conf) < 0) {
            sim_fail(sim, "entry %" PRIu64 " holds what is no configuration", index);
        }
        sim->stats.changes++;
        note_removed(sim);
    }
    if (entry->type == BOP_RAFT_COMMAND) {
        if (bop__command_decode(entry->data, &command) < 0) {
            sim_fail(sim, "entry %" PRIu64 " holds what is no command", index);
            return;
        }
        run_command(sim, index, &command);
    }
    for (size_t n = known->first_event; n < model->events.count; n++) {
        known->events = event_digest(known->events, &model->events.list[n]);
    }
    if (entry->type == BOP_RAFT_COMMAND && note_all(model, index)) {
        note_owned(model, index);
    }
}

const struct bop_raft_configuration *sim_model_configuration(const struct sim *sim)
{
    return &sim->model->conf;
}

/* ---- What nodes tell ---- */

/* A node says what an entry changed: kept until the entry is looked at. */
void sim_model_told(struct sim_node *node, uint64_t index, struct bop_slice events)
{
    struct bop_event event;
    uint64_t digest = 0;
    int rc;

    while ((rc = bop_event_next(&events, &event)) > 0) {
        struct state_event made = state_event_of(index, &event);

        digest = event_digest(digest, &made);
    }
    if (rc < 0 || node->told_count == SIM_TOLD_MAX ||
        (node->told_count > 0 && node->told[node->told_count - 1].index >= index)) {
        sim_fail(node->sim, "node %" PRIu64 " tells events of entry %" PRIu64 " out of order",
                 node->id, index);
        return;
    }
    node->told[node->told_count++] = (struct sim_told){.index = index, .digest = digest};
}

/* All events of the entries from `first` on were told, each once. Before the state was replaced
 * by a snapshot some may not have been. */
static void check_told(struct sim_node *node, uint64_t first, uint64_t last)
{
    struct sim_model *model = node->sim->model;
    unsigned at = 0;

    for (uint64_t index = first; index <= last; index++) {
        uint64_t expected = model->entries[index].events;
        bool told = at < node->told_count && node->told[at].index == index;

        if (told ? node->told[at].digest != expected : expected != 0 && index > node->reset) {
            sim_fail(node->sim, "node %" PRIu64 " tells %s events of entry %" PRIu64, node->id,
                     told ? "other" : "no", index);
            return;
        }
        at += told;
    }
    if (at < node->told_count) {
        sim_fail(node->sim, "node %" PRIu64 " tells events of entry %" PRIu64 " once more",
                 node->id, node->told[at].index);
    }
    node->told_count = 0;
}

/* Whether a watch of this kind hears this event. */
static bool hears(const struct sim_watch *watch, const struct state_event *event)
{
    switch (watch->what) {
    case BOP_WATCH_SESSION:
        return event->session != 0 && event->session == watch->session;
    case BOP_WATCH_NAMES:
        return event->names;
    default:
        return event->what == watch->what && strcmp(event->name, watch->name) == 0;
    }
}

/* The first event at `at` or behind that the watch hears. */
static size_t next_heard(const struct sim_model *model, const struct sim_watch *watch, size_t at)
{
    while (at < model->events.count && !hears(watch, &model->events.list[at])) {
        at++;
    }
    return at;
}

static size_t events_after(const struct sim_model *model, uint64_t revision)
{
    return revision >= model->applied ? model->events.count
                                      : model->entries[revision + 1].first_event;
}

void sim_model_watch_from(struct sim *sim, struct sim_watch *watch, uint64_t revision)
{
    watch->revision = revision;
    watch->next_event = events_after(sim->model, revision);
}

/* How things stood, in one or more frames: as the model has it. */
static void show_snapshot(struct sim *sim, struct sim_watch *watch,
                          const struct bop_watch_events *in)
{
    struct sim_model *model = sim->model;
    unsigned object = state_watch_object((uint8_t)watch->what, watch->name);
    struct bop_slice events = in->events;
    struct bop_event event;

    while (bop_event_next(&events, &event) > 0) {
        state_show(watch->shown, (uint8_t)watch->what, &event);
    }
    if (in->flags & BOP_WATCH_EVENTS_MORE) {
        return;
    }
    if (in->revision < watch->revision || object == OBJECT_COUNT ||
        moment_at(&model->objects[object], in->revision).digest !=
            state_shown(watch->shown, (uint8_t)watch->what)) {
        sim_fail(sim,
                 "a watch of %d \"%s\" begins with what was not there at entry %" PRIu64
                 " (from %" PRIu64 " on)",
                 watch->what, watch->name, in->revision, watch->revision);
    }
    sim->stats.shown++;
    watch->begins = false;
    sim_model_watch_from(sim, watch, in->revision);
}

/* A watch was told: exactly what comes next for it. */
void sim_model_watched(struct sim *sim, struct sim_watch *watch, const struct bop_watch_events *in)
{
    struct sim_model *model = sim->model;
    struct bop_slice events = in->events;
    struct bop_event event;
    size_t at;

    if (in->revision > model->applied) {
        sim_fail(sim, "a watch is told of entry %" PRIu64 " before it is applied", in->revision);
        return;
    }
    if (watch->begins != ((in->flags & BOP_WATCH_EVENTS_SNAPSHOT) != 0)) {
        sim_fail(sim, "a watch of %d \"%s\" begins %s", watch->what, watch->name,
                 watch->begins ? "without a snapshot" : "again");
        return;
    }
    if (watch->begins) {
        show_snapshot(sim, watch, in);
        return;
    }
    /* It may have begun after what the model had seen by then. */
    watch->next_event = bop_max_u64(watch->next_event, events_after(model, watch->revision));
    while (bop_event_next(&events, &event) > 0) {
        struct state_event heard = state_event_of(in->revision, &event), *expected;

        at = next_heard(model, watch, watch->next_event);
        expected = &model->events.list[at];
        if (at == model->events.count || expected->index != in->revision ||
            expected->digest != heard.digest ||
            (!(event.flags & BOP_EVENT_NO_PREVIOUS) && expected->previous != heard.previous)) {
            sim_fail(sim,
                     "a watch of %d \"%s\" after %" PRIu64 " is told event %d of entry %" PRIu64
                     ", expected %" PRIu64,
                     watch->what, watch->name, watch->revision, (int)event.type, in->revision,
                     at == model->events.count ? 0 : expected->index);
            return;
        }
        watch->next_event = at + 1;
        sim->stats.watched++;
    }
    if (!(in->flags & BOP_WATCH_EVENTS_MORE)) {
        at = next_heard(model, watch, watch->next_event);
        if (at < model->events.count && model->events.list[at].index <= in->revision) {
            sim_fail(sim, "a watch of %d \"%s\" was not told all of entry %" PRIu64, watch->what,
                     watch->name, model->events.list[at].index);
            return;
        }
        watch->revision = bop_max_u64(watch->revision, in->revision);
    }
}

void sim_model_marked(struct sim *sim, struct sim_watch *watch, uint64_t revision)
{
    const struct sim_model *model = sim->model;
    size_t at = next_heard(model, watch,
                           bop_max_u64(watch->next_event, events_after(model, watch->revision)));

    if (revision > model->applied || watch->begins ||
        (at < model->events.count && model->events.list[at].index <= revision)) {
        sim_fail(sim, "a watch of %d \"%s\" was not told all up to entry %" PRIu64, watch->what,
                 watch->name, revision);
        return;
    }
    watch->revision = bop_max_u64(watch->revision, revision);
}

/* It was told all that has happened, but for the last seconds. */
bool sim_model_watch_is_late(const struct sim *sim, const struct sim_watch *watch)
{
    const struct sim_model *model = sim->model;
    size_t at = next_heard(model, watch,
                           bop_max_u64(watch->next_event, events_after(model, watch->revision)));

    return at < model->events.count &&
           model->entries[model->events.list[at].index].seen_us + 2 * SIM_S < sim->now_us;
}

/* ---- What nodes show ---- */

/* A committed entry, of a node whose disk has stopped since it applied it: another one's copy, for
 * the clients may hear of it nevertheless. NULL: nobody else who is up has it. */
static const struct bop_raft_entry *others_entry(const struct sim_node *node, uint64_t index,
                                                 struct bop_raft_entry *storage)
{
    struct sim *sim = node->sim;

    for (unsigned n = 0; n < sim->node_count; n++) {
        const struct sim_node *other = &sim->nodes[n];

        if (other != node && other->up && other->replica && other->replica->failed == 0 &&
            other->stop_at == 0 && other->replica->status.commit >= index &&
            bop_aof_first(other->replica->aof) <= index &&
            bop_aof_last(other->replica->aof) >= index) {
            return bop__replica_log_get(other->replica, index, storage);
        }
    }
    return NULL;
}

/* Returns false if the entry cannot be read: nothing behind it may be shown before it. */
static bool check_entry(struct sim_node *node, uint64_t index)
{
    struct sim *sim = node->sim;
    struct sim_model *model = sim->model;
    struct bop_raft_entry storage;
    const struct bop_raft_entry *entry = bop__replica_log_get(node->replica, index, &storage);
    struct sim_entry *known;
    uint64_t payload;

    if (!entry) {
        entry = others_entry(node, index, &storage);
    }
    if (!entry) {
        return false; /* Its disk has stopped, and it with it. */
    }
    known = entry_at(model, index);
    payload = (uint64_t)entry->type << 32 | bop_crc32c(0, entry->data.data, entry->data.size);
    if (index == model->applied + 1) {
        known->term = entry->term;
        known->payload = payload;
        sim_mix(sim, payload);
        run_entry(sim, index, entry);
        known = entry_at(model, index);
    } else if (index > model->applied) {
        sim_fail(sim, "node %" PRIu64 " applies entry %" PRIu64 " before anybody %" PRIu64,
                 node->id, index, model->applied + 1);
    } else if (known->term != entry->term || known->payload != payload) {
        sim_fail(sim,
                 "committed entry %" PRIu64 " is another one at node %" PRIu64 ": term %" PRIu64
                 " not %" PRIu64,
                 index, node->id, entry->term, known->term);
    }
    return true;
}

static void check_digest(struct sim_node *node, uint64_t index)
{
    struct sim_entry *known = entry_at(node->sim->model, index);
    uint64_t digest = bop__machine_position(node->replica->machine).digest;

    if (known->digest == 0) {
        known->digest = digest;
    } else if (known->digest != digest) {
        sim_fail(node->sim, "after entry %" PRIu64 " node %" PRIu64 " stands at another digest",
                 index, node->id);
    }
}

static void check_content(struct sim_node *node, uint64_t index)
{
    struct sim_entry *known = entry_at(node->sim->model, index);
    struct machine_view *view;
    uint64_t digest = 0;
    int rc = bop__replica_view_open(node->replica, &view);

    if (rc == 0) {
        rc = bop__machine_content_digest(view, &digest);
        bop__machine_view_close(view);
    }
    if (rc < 0) {
        sim_fail(node->sim, "node %" PRIu64 " cannot read its state: %s", node->id,
                 bop_strerror(rc));
    } else if (known->content == 0) {
        known->content = digest;
    } else if (known->content != digest) {
        sim_fail(node->sim, "after entry %" PRIu64 " node %" PRIu64 " has another state", index,
                 node->id);
    }
}

void sim_model_backed_up(struct sim *sim, uint64_t index, uint64_t digest, uint64_t content)
{
    struct sim_entry *known = entry_at(sim->model, index);

    if (index > sim->model->applied || (known->digest != 0 && known->digest != digest) ||
        (known->content != 0 && known->content != content)) {
        sim_fail(sim, "a backup of entry %" PRIu64 " is of another state: %s", index,
                 known->digest != digest ? "its history" : "its content");
        return;
    }
    known->digest = digest;
    known->content = content; /* Who comes by there is compared with it. */
}

static void check_leader(struct sim_node *node)
{
    struct sim_model *model = node->sim->model;
    const struct bop_raft_status *status = &node->replica->status;

    if (status->state != BOP_RAFT_LEADER || node->replica->failed != 0) {
        return;
    }
    BOP_ASSERT(status->term < TERMS_MAX);
    if (model->leaders[status->term] == 0) {
        model->leaders[status->term] = (uint8_t)node->id;
        node->sim->stats.leaders++;
    } else if (model->leaders[status->term] != node->id) {
        sim_fail(node->sim, "term %" PRIu64 " has two leaders, nodes %u and %" PRIu64, status->term,
                 model->leaders[status->term], node->id);
    }
}

static void check_applied(struct sim_node *node)
{
    struct replica *replica = node->replica;
    uint64_t first = bop_aof_first(replica->aof), last = bop_aof_last(replica->aof);
    uint64_t before = node->observed;

    if (!replica->machine || replica->applied == before) {
        return;
    }
    if (replica->applied < before) {
        sim_fail(node->sim, "node %" PRIu64 " goes back from entry %" PRIu64 " to %" PRIu64,
                 node->id, before, replica->applied);
        return;
    }
    for (uint64_t index = bop_max_u64(before + 1, first);
         index <= replica->applied && index <= last && !node->sim->failed; index++) {
        if (!check_entry(node, index)) {
            break;
        }
    }
    node->observed = replica->applied;
    if (node->sim->failed || replica->failed != 0) {
        return;
    }
    if (replica->applied > node->sim->model->applied) {
        sim_fail(node->sim, "node %" PRIu64 " has applied %" PRIu64 ", which nobody has seen",
                 node->id, replica->applied);
        return;
    }
    check_told(node, before + 1, replica->applied);
    check_digest(node, replica->applied);
    if (first > before + 1) {
        node->sim->stats.installs++;
        check_content(node, replica->applied);
    }
}

/* With --verbose: how a replica stands, whenever that is different. */
static void show(struct sim_node *node)
{
    const struct replica *replica = node->replica;
    char text[sizeof(node->shown)];

    if (!node->sim->options.verbose) {
        return;
    }
    snprintf(text, sizeof(text),
             "term %" PRIu64 " %s leader %" PRIu64 "%s%s applied %" PRIu64 " commit %" PRIu64
             " durable %" PRIu64 " told %" PRIu64 " log %" PRIu64 "..%" PRIu64 " snapshot %" PRIu64
             " install %d",
             replica->status.term, state_names[replica->status.state], replica->status.leader,
             replica->status.installing ? " installing" : "", replica->status.ready ? " ready" : "",
             replica->applied, replica->status.commit, replica->durable, replica->durable_told,
             bop_aof_first(replica->aof), bop_aof_last(replica->aof), replica->snapshot.raft.index,
             (int)replica->install.phase);
    if (strcmp(text, node->shown) != 0) {
        memcpy(node->shown, text, sizeof(text));
        printf("# %10.6f node %" PRIu64 " %s\n", (double)node->sim->now_us / 1e6, node->id, text);
    }
}

void sim_model_observe(struct sim_node *node)
{
    if (node->up && !node->sim->failed) {
        show(node);
        check_leader(node);
        check_applied(node);
    }
}

/* Whether it knows that its log lost what it had applied. A snapshot that was taken meanwhile makes
 * up for it. */
static void check_loss(struct sim_node *node)
{
    const struct replica *replica = node->replica;
    bool must = node->tail.missed != 0 && replica->snapshot.raft.index <= node->tail.kept;

    if ((replica->lost.index != 0 && !node->tail.lost) ||
        (must && replica->lost.index != node->tail.missed)) {
        sim_fail(node->sim, "node %" PRIu64 " misses entry %" PRIu64 " and not %" PRIu64, node->id,
                 replica->lost.index, node->tail.missed);
    }
    node->tail.missed = 0;
}

void sim_model_reopened(struct sim_node *node)
{
    struct replica *replica = node->replica;

    node->observed = replica->applied;
    node->told_count = 0;
    node->reset = 0;
    if (replica->failed != 0) {
        return; /* The first turn will say so. */
    }
    check_loss(node);
    if (replica->applied > node->sim->model->applied) {
        sim_fail(node->sim, "node %" PRIu64 " begins at entry %" PRIu64 ", which nobody has seen",
                 node->id, replica->applied);
    } else if (replica->applied > 0) {
        check_digest(node, replica->applied);
        check_content(node, replica->applied);
    }
}

/* ---- What clients are told ---- */

static void raise_floor(struct sim_model *model, uint64_t index)
{
    model->floor = bop_max_u64(model->floor, index);
}

void sim_model_written(struct sim *sim, uint64_t number, uint8_t status, struct bop_slice bytes)
{
    const struct sim_op *op = sim_op(sim, number);
    struct bop_operation operation;
    uint64_t digest;

    if (op->op == 0) {
        if (!find_session(sim->model, op->session)) {
            sim_fail(sim, "session %" PRIu64 " was never opened", op->session);
        }
        raise_floor(sim->model, op->session);
        return;
    }
    if (op->applied == 0) {
        sim_fail(sim, "operation %" PRIu64 " is acknowledged and stands nowhere", number);
        return;
    }
    if (op->applied <= op->floor) {
        sim_fail(sim, "operation %" PRIu64 " was done by entry %" PRIu64 " before it was asked for",
                 number, op->applied);
        return;
    }
    if (bop_operation_decode(bop_slice(op->bytes, op->size), &operation) < 0 ||
        !state_result_digest(&operation, status, bytes, &digest)) {
        sim_fail(sim, "the result of operation %" PRIu64 " is malformed", number);
        return;
    }
    if (status != op->status || digest != op->result) {
        sim_fail(sim,
                 "operation %" PRIu64 " of kind %d, done by entry %" PRIu64
                 ", is answered %s, and the model has %s%s",
                 number, (int)op->op, op->applied, bop_status_text(status),
                 bop_status_text(op->status), status == op->status ? " with another result" : "");
        return;
    }
    raise_floor(sim->model, op->applied);
}

/* The first entry from `floor` on after which the object shows this; UINT64_MAX: none. */
static uint64_t place_read(const struct history *history, uint64_t floor, uint64_t digest,
                           uint64_t *out_ttl_ms)
{
    for (size_t n = moments_until(history, floor) - 1; n < history->count; n++) {
        if (history->moments[n].digest == digest) {
            *out_ttl_ms = history->moments[n].ttl_ms;
            return bop_max_u64(floor, history->moments[n].index);
        }
    }
    return UINT64_MAX;
}

/* A scan says itself where it was read. */
static uint64_t place_scan(const struct sim_model *model, const struct history *history,
                           uint64_t floor, const struct bop_result *result, uint64_t digest)
{
    return result->revision < floor || result->revision > model->applied ||
                   moment_at(history, result->revision).digest != digest
               ? UINT64_MAX
               : result->revision;
}

static bool is_scan(enum bop_op op)
{
    return op == BOP_OP_MAP_SCAN || op == BOP_OP_MAP_RANGE || op == BOP_OP_SET_SCAN ||
           op == BOP_OP_MULTIMAP_GET || op == BOP_OP_MULTIMAP_ENTRIES || op == BOP_OP_LOCK_GET ||
           op == BOP_OP_LOCK_OWNED || op == BOP_OP_MEMBER_LIST || op == BOP_OP_REGISTRATION_LIST;
}

/* Of what a read shows. */
static const struct history *history_of(const struct sim_model *model,
                                        const struct bop_operation *operation)
{
    return operation->op == BOP_OP_LOCK_OWNED ? &find_session(model, operation->session)->owned
                                              : &model->objects[state_read_object(operation)];
}

/* Where a read was read, at `floor` or above; UINT64_MAX: nowhere. */
static uint64_t place(const struct sim_model *model, const struct bop_operation *operation,
                      const struct bop_result *result, uint64_t floor)
{
    const struct history *history = history_of(model, operation);
    uint64_t digest = state_read_digest(operation, result), ttl_ms = 0, found;

    if (is_scan(operation->op) && result->status == BOP_STATUS_OK) {
        return place_scan(model, history, floor, result, digest);
    }
    found = place_read(history, floor, digest, &ttl_ms);
    if (operation->op == BOP_OP_MAP_GET_TTL &&
        ((result->ttl_ms == 0) != (ttl_ms == 0) || result->ttl_ms > ttl_ms)) {
        return UINT64_MAX;
    }
    return found;
}

void sim_model_viewed(struct sim *sim, uint64_t revision, struct bop_slice operation,
                      const struct bop_reply *reply)
{
    const struct history *history;
    struct bop_operation asked;
    struct bop_result result;

    if (bop_operation_decode(operation, &asked) < 0 ||
        bop_result_decode(asked.op, reply->status, reply->result, &result) < 0) {
        sim_fail(sim, "what a view shows is malformed");
        return;
    }
    history = history_of(sim->model, &asked);
    if (moment_at(history, revision).digest != state_read_digest(&asked, &result) ||
        (is_scan(asked.op) && result.status == BOP_STATUS_OK && result.revision != revision)) {
        sim_fail(sim, "a view of entry %" PRIu64 " shows for %d what was not there", revision,
                 (int)asked.op);
    }
    sim->stats.viewed++;
}

void sim_model_read(struct sim *sim, uint64_t number, uint8_t status, struct bop_slice bytes)
{
    struct sim_model *model = sim->model;
    const struct sim_op *op = sim_op(sim, number);
    uint64_t floor = op->stale ? 0 : op->floor, where;
    struct bop_operation operation;
    struct bop_result result;

    if (bop_operation_decode(bop_slice(op->bytes, op->size), &operation) < 0 ||
        bop_result_decode(op->op, status, bytes, &result) < 0) {
        sim_fail(sim, "the result of operation %" PRIu64 " is malformed", number);
        return;
    }
    where = place(model, &operation, &result, floor);
    if (where == UINT64_MAX) {
        sim_fail(sim,
                 "read %" PRIu64 " of kind %d shows \"%s\" version %" PRIu64 " revision %" PRIu64
                 ", which was not there from entry %" PRIu64 " on",
                 number, (int)op->op, bop_status_text(status), result.version, result.revision,
                 floor);
    } else if (!op->stale) {
        raise_floor(model, where);
    }
}

/* ---- The end ---- */

static void check_read(struct sim_node *node, struct machine_view *view,
                       const struct bop_operation *operation)
{
    struct sim *sim = node->sim;
    struct bop_result result = {0};
    struct bop_buf out;
    int status;

    bop_buf_init(&out, NULL, 0);
    status = bop__machine_read(view, operation, &out);
    if (status < 0 ||
        bop_result_decode(operation->op, (uint8_t)status, bop_buf_slice(&out), &result) < 0 ||
        (result.cursor.size == 0 &&
         place(sim->model, operation, &result, sim->model->applied) == UINT64_MAX)) {
        sim_fail(sim, "in the end node %" PRIu64 " shows for %d of \"%.2s\" what the model has not",
                 node->id, (int)operation->op, (const char *)operation->name.data);
    }
    bop_buf_deinit(&out);
}

static void check_state(struct sim_node *node)
{
    static const struct {
        enum bop_op op;
        const char *name;
    } reads[] = {
        {BOP_OP_MAP_SCAN, "m"},         {BOP_OP_MAP_SCAN, "n"},     {BOP_OP_MAP_SIZE, "m"},
        {BOP_OP_MAP_SIZE, "n"},         {BOP_OP_COUNTER_GET, "c0"}, {BOP_OP_COUNTER_GET, "c1"},
        {BOP_OP_COUNTER_GET, "c2"},     {BOP_OP_COUNTER_GET, "c3"}, {BOP_OP_SET_SCAN, "s"},
        {BOP_OP_MULTIMAP_ENTRIES, "u"}, {BOP_OP_LOCK_GET, "l0"},    {BOP_OP_LOCK_GET, "l1"},
        {BOP_OP_LOCK_GET, "l2"},        {BOP_OP_MEMBER_LIST, "g"},  {BOP_OP_REGISTRATION_LIST, "r"},
    };
    struct machine_view *view;
    int rc = bop__replica_view_open(node->replica, &view);

    if (rc < 0) {
        sim_fail(node->sim, "node %" PRIu64 " cannot read its state: %s", node->id,
                 bop_strerror(rc));
        return;
    }
    for (unsigned n = 0; n < BOP_COUNT_OF(reads); n++) {
        struct bop_operation read = {.op = reads[n].op, .name = bop_slice_cstr(reads[n].name)};

        check_read(node, view, &read);
    }
    bop__machine_view_close(view);
}

bool sim_model_at_rest(const struct sim *sim)
{
    for (unsigned n = 0; n < sim->node_count; n++) {
        const struct sim_node *node = &sim->nodes[n];

        if (node->exists && (!node->up || node->replica->applied != sim->model->applied)) {
            return false;
        }
    }
    return true;
}

void sim_model_finish(struct sim *sim)
{
    unsigned leaders = 0;

    for (unsigned n = 0; n < sim->node_count && !sim->failed; n++) {
        struct sim_node *node = &sim->nodes[n];
        struct replica *replica = node->replica;

        if (node->claimed) {
            sim_fail(sim, "node %" PRIu64 " believed that it was removed, and was not", node->id);
        }
        if (!node->exists) {
            continue; /* It was removed. */
        }
        leaders += replica->status.state == BOP_RAFT_LEADER;
        if (replica->applied != sim->model->applied || !replica->machine) {
            sim_fail(sim,
                     "liveness: node %" PRIu64 " has applied %" PRIu64 " of %" PRIu64 " entries",
                     node->id, replica->applied, sim->model->applied);
        } else if (replica->lost.index != 0) {
            sim_fail(sim, "liveness: node %" PRIu64 " still misses entry %" PRIu64, node->id,
                     replica->lost.index);
        } else {
            check_content(node, replica->applied);
            check_state(node);
        }
    }
    if (!sim->failed && leaders != 1) {
        sim_fail(sim, "liveness: %u nodes lead", leaders);
    }
}
