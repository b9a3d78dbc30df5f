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

static const char *const state_names[] = {"unavailable", "follower", "candidate", "leader"};

/* What a key or counter held from an entry on, until the next one of these. */
struct moment {
    uint64_t index;
    bool present;
    uint64_t version; /* Of a counter: its value. */
    uint64_t number;  /* The operation that put it. */
};

struct history {
    struct moment *moments;
    size_t count, capacity;
};

struct reply {
    uint64_t number; /* 0: not run. */
    uint8_t status;
    bool existed;
    uint64_t result;
};

struct model_session {
    uint64_t id;
    bool open;
    uint64_t acked;
    uint8_t token[BOP_TOKEN_SIZE];
    struct reply *replies; /* By sequence. */
    size_t capacity;
};

struct sim_model {
    uint64_t applied;
    uint64_t floor;
    struct sim_entry *entries; /* By index. */
    size_t entry_capacity;
    uint8_t leaders[TERMS_MAX]; /* By term; 0: none seen. */
    struct history keys[SIM_KEYS];
    struct history counters[SIM_COUNTERS];
    struct model_session *sessions;
    size_t session_count, session_capacity;
};

void sim_model_init(struct sim *sim)
{
    sim->model = sim_memory(sizeof(*sim->model));
}

void sim_model_deinit(struct sim *sim)
{
    struct sim_model *model = sim->model;

    for (unsigned n = 0; n < SIM_KEYS; n++) {
        free(model->keys[n].moments);
    }
    for (unsigned n = 0; n < SIM_COUNTERS; n++) {
        free(model->counters[n].moments);
    }
    for (size_t n = 0; n < model->session_count; n++) {
        free(model->sessions[n].replies);
    }
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
    size_t count = moments_until(history, index);

    return count > 0 ? history->moments[count - 1] : (struct moment){0};
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
    const struct model_session *found = find_session(sim->model, session);

    return found && found->open;
}

/* Which operation a committed write is; 0: none of a client's. */
static uint64_t number_of(const struct sim *sim, const struct command *command,
                          const struct bop_operation *operation)
{
    if (operation->op == BOP_OP_MAP_PUT && operation->value.size >= 8) {
        return bop_load_u64(operation->value.data);
    }
    if (operation->op == BOP_OP_COUNTER_ADD) {
        return (uint64_t)operation->delta;
    }
    for (uint64_t number = sim->op_count; number > 0; number--) {
        const struct sim_op *op = &sim->ops[number - 1];

        if (op->op == operation->op && op->session == command->session &&
            op->sequence == command->sequence) {
            return number;
        }
    }
    return 0;
}

static bool condition_met(const struct bop_operation *operation, const struct moment *now)
{
    switch (operation->condition) {
    case BOP_IF_ALWAYS:
        return true;
    case BOP_IF_ABSENT:
        return !now->present;
    case BOP_IF_PRESENT:
        return now->present;
    default:
        return now->present && now->version == operation->version;
    }
}

static struct reply run_map(struct sim_model *model, uint64_t index, uint64_t number,
                            const struct bop_operation *operation)
{
    unsigned key = operation->key.size == 1 ? operation->key.data[0] - (unsigned)'a' : SIM_KEYS;
    struct history *history = &model->keys[key % SIM_KEYS];
    struct moment now = moment_at(history, index);
    bool put = operation->op == BOP_OP_MAP_PUT;

    if (!condition_met(operation, &now)) {
        return (struct reply){.number = number,
                              .status = BOP_STATUS_CONDITION,
                              .result = now.present ? now.version : 0};
    }
    if (put || now.present) {
        remember(history, (struct moment){.index = index,
                                          .present = put,
                                          .version = put ? index : 0,
                                          .number = put ? number : 0});
    }
    return (struct reply){.number = number, .existed = now.present, .result = put ? index : 0};
}

static struct reply run_counter(struct sim_model *model, uint64_t index, uint64_t number,
                                const struct bop_operation *operation)
{
    unsigned which = operation->name.size == 2 ? operation->name.data[1] - (unsigned)'0' : 0;
    struct history *history = &model->counters[which % SIM_COUNTERS];
    struct moment now = moment_at(history, index);

    now = (struct moment){
        .index = index, .present = true, .version = now.version + (uint64_t)operation->delta};
    remember(history, now);
    return (struct reply){.number = number, .result = now.version};
}

/* Run a write that was not run before; it must be one that a client may have asked for. */
static struct reply run(struct sim *sim, uint64_t index, const struct command *command)
{
    struct sim_model *model = sim->model;
    struct bop_operation operation;
    struct reply reply;
    struct sim_op *op;
    uint64_t number;

    if (bop_operation_decode(command->operation, &operation) < 0) {
        sim_fail(sim, "entry %" PRIu64 " holds what is no operation", index);
        return (struct reply){0};
    }
    number = number_of(sim, command, &operation);
    op = sim_op(sim, number);
    if (!op || op->op != operation.op || op->session != command->session ||
        op->sequence != command->sequence) {
        sim_fail(sim, "entry %" PRIu64 " holds what nobody asked for", index);
        return (struct reply){0};
    }
    reply = operation.op == BOP_OP_COUNTER_ADD ? run_counter(model, index, number, &operation)
                                               : run_map(model, index, number, &operation);
    if (op->applied != 0) {
        sim_fail(sim, "operation %" PRIu64 " was done twice, by entries %" PRIu64 " and %" PRIu64,
                 number, op->applied, index);
    } else if (op->state == SIM_OP_REFUSED) {
        sim_fail(sim, "operation %" PRIu64 " was refused and is done by entry %" PRIu64, number,
                 index);
    }
    op->applied = index;
    op->status = reply.status;
    op->existed = reply.existed;
    op->result = reply.result;
    return reply;
}

static void run_write(struct sim *sim, uint64_t index, const struct command *command)
{
    struct model_session *session;
    struct reply *reply;

    if (command->session == 0) {
        run(sim, index, command);
        return;
    }
    session = find_session(sim->model, command->session);
    if (!session || !session->open || command->sequence <= session->acked) {
        return; /* NO SESSION or STALE. */
    }
    session->replies = room(session->replies, &session->capacity, (size_t)command->sequence,
                            sizeof(*session->replies));
    reply = &session->replies[command->sequence];
    if (reply->number != 0) {
        return; /* Done before: answered again. */
    }
    *reply = run(sim, index, command);
    session->acked = bop_max_u64(session->acked, command->acked);
}

static void open_session(struct sim *sim, uint64_t index, const struct command *command)
{
    struct sim_model *model = sim->model;
    struct model_session *session;

    model->sessions = room(model->sessions, &model->session_capacity, model->session_count,
                           sizeof(*model->sessions));
    session = &model->sessions[model->session_count++];
    *session = (struct model_session){.id = index, .open = true};
    memcpy(session->token, command->token, sizeof(session->token));
}

static void end_sessions(struct sim *sim, const struct command *command)
{
    for (size_t at = 0; at < command->expired.size; at += 8) {
        struct model_session *session = find_session(sim->model,
                                                     bop_load_u64(command->expired.data + at));

        if (session) {
            session->open = false;
        }
    }
}

static void run_entry(struct sim *sim, uint64_t index, const struct bop_raft_entry *entry)
{
    struct command command;

    sim->model->applied = index;
    sim->stats.committed++;
    if (entry->type != BOP_RAFT_COMMAND) {
        return;
    }
    if (bop__command_decode(entry->data, &command) < 0) {
        sim_fail(sim, "entry %" PRIu64 " holds what is no command", index);
        return;
    }
    switch (command.kind) {
    case COMMAND_WRITE:
        run_write(sim, index, &command);
        break;
    case COMMAND_SESSION_OPEN:
        open_session(sim, index, &command);
        break;
    case COMMAND_SESSION_EXPIRE:
        end_sessions(sim, &command);
        break;
    case COMMAND_TIMERS:
    case COMMAND_LEVEL:
        break;
    default:
        sim_fail(sim, "entry %" PRIu64 " holds what nobody asked for", index);
    }
}

/* ---- What nodes show ---- */

static void check_entry(struct sim_node *node, uint64_t index)
{
    struct sim *sim = node->sim;
    struct sim_model *model = sim->model;
    struct bop_raft_entry storage;
    const struct bop_raft_entry *entry = bop__replica_log_get(node->replica, index, &storage);
    struct sim_entry *known;
    uint64_t payload;

    if (!entry) {
        return; /* Its disk has stopped, and it with it. */
    }
    known = entry_at(model, index);
    payload = (uint64_t)entry->type << 32 | bop_crc32c(0, entry->data.data, entry->data.size);
    if (index == model->applied + 1) {
        known->term = entry->term;
        known->payload = payload;
        sim_mix(sim, payload);
        run_entry(sim, index, entry);
    } else if (index > model->applied) {
        sim_fail(sim, "node %" PRIu64 " applies entry %" PRIu64 " before anybody %" PRIu64,
                 node->id, index, model->applied + 1);
    } else if (known->term != entry->term || known->payload != payload) {
        sim_fail(sim,
                 "committed entry %" PRIu64 " is another one at node %" PRIu64 ": term %" PRIu64
                 " not %" PRIu64,
                 index, node->id, entry->term, known->term);
    }
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
        check_entry(node, index);
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

void sim_model_reopened(struct sim_node *node)
{
    struct replica *replica = node->replica;

    node->observed = replica->applied;
    if (replica->failed != 0) {
        return; /* The first turn will say so. */
    }
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
    struct bop_result result;
    uint64_t value;

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
    if (bop_result_decode(op->op, status, bytes, &result) < 0) {
        sim_fail(sim, "the result of operation %" PRIu64 " is malformed", number);
        return;
    }
    value = op->op == BOP_OP_COUNTER_ADD ? (uint64_t)result.number : result.version;
    if (status != op->status || result.existed != op->existed || value != op->result) {
        sim_fail(sim,
                 "operation %" PRIu64 " is answered %s %d %" PRIu64
                 ", the model says %s %d %" PRIu64,
                 number, bop_status_text(status), result.existed, value,
                 bop_status_text(op->status), op->existed, op->result);
        return;
    }
    raise_floor(sim->model, op->applied);
}

/* True if the bytes are those that the operation of that number puts. */
static bool is_value(struct sim *sim, uint64_t number, struct bop_slice value)
{
    const struct sim_op *op = sim_op(sim, number);
    bool same;
    uint8_t *expected;

    if (!op || op->size != value.size) {
        return false;
    }
    expected = sim_memory(op->size);
    sim_op_value(number, op->size, expected);
    same = memcmp(expected, value.data, op->size) == 0;
    free(expected);
    return same;
}

static bool shows(struct sim *sim, const struct sim_op *op, const struct moment *moment,
                  uint8_t status, const struct bop_result *result)
{
    if (status == BOP_STATUS_NOT_FOUND || !moment->present) {
        return status == BOP_STATUS_NOT_FOUND && !moment->present;
    }
    if (op->op == BOP_OP_COUNTER_GET) {
        return (uint64_t)result->number == moment->version;
    }
    return result->version == moment->version && is_value(sim, moment->number, result->value);
}

/* The first entry from `floor` on after which the history shows the result; 0: none. */
static uint64_t place_read(struct sim *sim, const struct sim_op *op, const struct history *history,
                           uint64_t floor, uint8_t status, const struct bop_result *result)
{
    struct moment moment = moment_at(history, floor);

    if (shows(sim, op, &moment, status, result)) {
        return bop_max_u64(floor, 1);
    }
    for (size_t n = moments_until(history, floor); n < history->count; n++) {
        if (shows(sim, op, &history->moments[n], status, result)) {
            return history->moments[n].index;
        }
    }
    return 0;
}

static uint64_t size_at(const struct sim_model *model, uint64_t index)
{
    uint64_t size = 0;

    for (unsigned n = 0; n < SIM_KEYS; n++) {
        size += moment_at(&model->keys[n], index).present;
    }
    return size;
}

static uint64_t place_size(const struct sim_model *model, uint64_t floor, uint64_t size)
{
    for (uint64_t index = floor; index <= model->applied; index++) {
        if (size_at(model, index) == size) {
            return bop_max_u64(index, 1);
        }
    }
    return 0;
}

/* A scan says itself where it was read. */
static uint64_t place_scan(struct sim *sim, uint64_t floor, const struct bop_result *result)
{
    struct sim_model *model = sim->model;
    struct bop_slice entries = result->entries;
    struct bop_scan_entry entry;

    if (result->revision < floor || result->revision > model->applied ||
        result->count != size_at(model, result->revision)) {
        return 0;
    }
    while (bop_scan_next(&entries, &entry)) {
        unsigned key = entry.key.size == 1 ? entry.key.data[0] - (unsigned)'a' : SIM_KEYS;
        struct moment moment = {0};

        if (key < SIM_KEYS) {
            moment = moment_at(&model->keys[key], result->revision);
        }
        if (!moment.present || moment.version != entry.version ||
            !is_value(sim, moment.number, entry.value)) {
            return 0;
        }
    }
    return bop_max_u64(result->revision, 1);
}

void sim_model_read(struct sim *sim, uint64_t number, uint8_t status, struct bop_slice bytes)
{
    struct sim_model *model = sim->model;
    const struct sim_op *op = sim_op(sim, number);
    uint64_t floor = op->stale ? 0 : op->floor, place;
    struct bop_result result;

    if (bop_result_decode(op->op, status, bytes, &result) < 0) {
        sim_fail(sim, "the result of operation %" PRIu64 " is malformed", number);
        return;
    }
    switch (op->op) {
    case BOP_OP_MAP_SIZE:
        place = place_size(model, floor, result.size);
        break;
    case BOP_OP_MAP_SCAN:
        place = place_scan(sim, floor, &result);
        break;
    case BOP_OP_COUNTER_GET:
        place = place_read(sim, op, &model->counters[op->key], floor, status, &result);
        break;
    default:
        place = place_read(sim, op, &model->keys[op->key], floor, status, &result);
    }
    if (place == 0) {
        sim_fail(sim,
                 "read %" PRIu64 " of kind %d of key %u shows \"%s\" version %" PRIu64
                 ", which was not there from entry %" PRIu64 " on",
                 number, (int)op->op, op->key, bop_status_text(status), result.version, floor);
    } else if (!op->stale) {
        raise_floor(model, place);
    }
}

/* ---- The end ---- */

static void check_state(struct sim_node *node)
{
    struct sim *sim = node->sim;
    struct sim_model *model = sim->model;
    struct bop_operation scan = {.op = BOP_OP_MAP_SCAN, .name = bop_slice_cstr("m")};
    struct bop_result result = {0};
    struct machine_view *view;
    struct bop_buf out;
    int rc = bop__replica_view_open(node->replica, &view);

    bop_buf_init(&out, NULL, 0);
    if (rc == 0) {
        rc = bop__machine_read(view, &scan, &out);
        bop__machine_view_close(view);
    }
    if (rc == 0) {
        rc = bop_result_decode(scan.op, BOP_STATUS_OK, bop_buf_slice(&out), &result);
    }
    if (rc < 0 || (result.cursor.size == 0 && place_scan(sim, model->applied, &result) == 0)) {
        sim_fail(sim, "in the end node %" PRIu64 " holds another map than the model", node->id);
    }
    bop_buf_deinit(&out);
}

bool sim_model_at_rest(const struct sim *sim)
{
    for (unsigned n = 0; n < sim->node_count; n++) {
        const struct sim_node *node = &sim->nodes[n];

        if (!node->up || node->replica->applied != sim->model->applied) {
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

        leaders += replica->status.state == BOP_RAFT_LEADER;
        if (replica->applied != sim->model->applied || !replica->machine) {
            sim_fail(sim,
                     "liveness: node %" PRIu64 " has applied %" PRIu64 " of %" PRIu64 " entries",
                     node->id, replica->applied, sim->model->applied);
        } else {
            check_content(node, replica->applied);
            check_state(node);
        }
    }
    if (!sim->failed && leaders != 1) {
        sim_fail(sim, "liveness: %u nodes lead", leaders);
    }
}
