/*
 * The state machine: opening, batches, positions, views.
 *
 * A store is believed if its META table has the format: that is put there by the
 * transaction that makes a new store, and by the last one of those that load a
 * snapshot. A store with tables but without it was left by a load that did not
 * come to its end, and is made anew.
 *
 * A store of an older format lacks tables; they were made empty by then, so that all
 * there is to do is to say so.
 *
 * An entry is dispatched here and run in the file of its kind (machine_internal.h). Whatever
 * fails with a code leaves memory and store in the middle of something, so the owner's only way on
 * is abort, which undoes the store's part and rebuilds memory's from it.
 */
#include <inttypes.h>

#include <bop/crc32c.h>
#include <bop/mem.h>

#include "machine_internal.h"

static const char *const table_names[MACHINE_TABLES] = {
    [MACHINE_MAPS] = "maps",
    [MACHINE_ENTRIES] = "entries",
    [MACHINE_COUNTERS] = "counters",
    [MACHINE_SESSIONS] = "sessions",
    [MACHINE_REPLIES] = "replies",
    [MACHINE_META] = "meta",
    [MACHINE_SETS] = "sets",
    [MACHINE_MULTIMAPS] = "multimaps",
    [MACHINE_GARBAGE] = "garbage",
    [MACHINE_RESULTS] = "results",
    [MACHINE_OWNED] = "owned",
    [MACHINE_DEADLINES] = "deadlines",
    [MACHINE_LOCKS] = "locks",
    [MACHINE_LOCK_REQUESTS] = "lock_requests",
    [MACHINE_GROUPS] = "groups",
    [MACHINE_MEMBERS] = "members",
    [MACHINE_MEMBER_NAMES] = "member_names",
    [MACHINE_REGISTRIES] = "registries",
};

/* ---- The store ---- */

static int meta_get(struct bop_kv_txn *txn, const struct bop_kv_table *tables, const char *name,
                    struct bop_slice *out_value)
{
    return bop_kv_get(txn, tables[MACHINE_META], bop_slice_cstr(name), out_value);
}

static int meta_put(struct machine *machine, const char *name, struct bop_slice value)
{
    return bop__machine_put_lasting(machine, MACHINE_META, bop_slice_cstr(name), value);
}

int bop__machine_tables_open(struct bop_kv_txn *txn, struct bop_kv_table tables[MACHINE_TABLES])
{
    for (size_t i = 0; i < MACHINE_TABLES; i++) {
        int rc = bop_kv_table_open(txn, table_names[i], true, &tables[i]);

        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int format_put(struct bop_kv_txn *txn, const struct bop_kv_table *tables)
{
    uint8_t format[4];

    bop_store_u32(format, MACHINE_FORMAT);
    return bop_kv_put(txn, tables[MACHINE_META], bop_slice_cstr(MACHINE_META_FORMAT),
                      bop_slice(format, sizeof(format)));
}

static int all_empty(struct bop_kv_txn *txn, const struct bop_kv_table *tables, bool *out_empty)
{
    *out_empty = true;
    for (size_t i = 0; i < MACHINE_TABLES; i++) {
        uint64_t count;
        int rc = bop_kv_table_count(txn, tables[i], &count);

        if (rc < 0) {
            return rc;
        }
        *out_empty = *out_empty && count == 0;
    }
    return 0;
}

/* Look at the format, and put it into an empty store. *out_remains: a load did not finish. */
static int check_format(struct bop_kv_txn *txn, const struct bop_kv_table *tables,
                        bool *out_remains)
{
    struct bop_slice value;
    bool empty;
    int rc = meta_get(txn, tables, MACHINE_META_FORMAT, &value);

    *out_remains = false;
    if (rc == 0) {
        rc = bop__machine_record_check(MACHINE_META, bop_slice_cstr(MACHINE_META_FORMAT), value);
        return rc == 0 && bop_load_u32(value.data) != MACHINE_FORMAT ? format_put(txn, tables) : rc;
    }
    if (rc != BOP_ENOTFOUND) {
        return rc;
    }
    rc = all_empty(txn, tables, &empty);
    if (rc < 0) {
        return rc;
    }
    *out_remains = !empty;
    return empty ? format_put(txn, tables) : 0;
}

/* Open the tables of a store that is open. */
static int open_tables(struct machine *machine, bool *out_remains)
{
    struct bop_kv_txn *txn;
    int rc = bop_kv_begin(machine->kv, true, &txn);

    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_tables_open(txn, machine->tables);
    if (rc == 0) {
        rc = check_format(txn, machine->tables, out_remains);
    }
    if (rc < 0) {
        bop_kv_abort(txn);
        return rc;
    }
    return bop_kv_commit(txn);
}

static int open_store(struct machine *machine, const struct machine_options *options,
                      struct bop_error *err)
{
    struct bop_kv_options kv_options = {.allocator = options->allocator,
                                        .path = options->path,
                                        .bytes_max = options->bytes_max,
                                        .grow_step_bytes = options->grow_step_bytes};
    bool remains = false;

    for (int attempt = 0;; attempt++) {
        int rc = bop_kv_open(&kv_options, &machine->kv, err);

        if (rc < 0) {
            return rc;
        }
        rc = open_tables(machine, &remains);
        if (rc < 0) {
            return bop_error_set(err, rc, "open the state %s", options->path);
        }
        if (!remains) {
            return 0;
        }
        if (attempt > 0) {
            return bop_error_set(err, BOP_ECORRUPT, "make the state %s anew", options->path);
        }
        bop_kv_close(machine->kv);
        machine->kv = NULL;
        rc = bop_kv_remove(options->path, err);
        if (rc < 0) {
            return rc;
        }
    }
}

/* ---- What is kept in memory ---- */

static int read_position(struct bop_kv_txn *txn, const struct bop_kv_table *tables,
                         struct machine_position *out_position)
{
    struct bop_slice value;
    int rc = meta_get(txn, tables, MACHINE_META_POSITION, &value);

    if (rc == BOP_ENOTFOUND) {
        *out_position = (struct machine_position){0};
        return 0;
    }
    return rc ? rc : bop__machine_position_decode(value, out_position);
}

static int read_meta(struct machine *machine, struct bop_kv_txn *txn)
{
    struct bop_slice value;
    int rc = read_position(txn, machine->tables, &machine->position);

    if (rc < 0) {
        return rc;
    }
    machine->map_next = 1;
    machine->map_next_dirty = false;
    rc = meta_get(txn, machine->tables, MACHINE_META_MAP_NEXT, &value);
    if (rc == 0) {
        if (value.size != 4) {
            return BOP_ECORRUPT;
        }
        machine->map_next = bop_load_u32(value.data);
    } else if (rc != BOP_ENOTFOUND) {
        return rc;
    }
    machine->level = MACHINE_LEVEL_MIN;
    rc = meta_get(txn, machine->tables, MACHINE_META_LEVEL, &value);
    if (rc == 0) {
        rc = bop__machine_record_check(MACHINE_META, bop_slice_cstr(MACHINE_META_LEVEL), value);
        if (rc < 0) {
            return rc;
        }
        machine->level = bop_load_u32(value.data);
    } else if (rc != BOP_ENOTFOUND) {
        return rc;
    }
    bop_buf_clear(&machine->conf);
    rc = meta_get(txn, machine->tables, MACHINE_META_CONF, &value);
    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? 0 : rc;
    }
    return bop_buf_append(&machine->conf, value.data, value.size);
}

/* Make memory agree with the store. */
static int rebuild(struct machine *machine)
{
    struct bop_kv_txn *txn;
    int rc;

    bop__machine_collections_forget(machine);
    bop__machine_owned_forget(machine);
    bop__machine_replies_forget(machine);
    bop__machine_undo_drop(machine);
    machine->lock_id_known = false;
    rc = bop_kv_begin(machine->kv, false, &txn);
    if (rc < 0) {
        return rc;
    }
    rc = read_meta(machine, txn);
    if (rc == 0) {
        rc = bop_kv_table_count(txn, machine->tables[MACHINE_ENTRIES], &machine->entries);
    }
    if (rc == 0) {
        rc = bop_kv_table_count(txn, machine->tables[MACHINE_GARBAGE], &machine->garbage);
    }
    if (rc == 0) {
        rc = bop_kv_table_count(txn, machine->tables[MACHINE_RESULTS], &machine->large_results);
    }
    if (rc == 0) {
        rc = bop__machine_deadlines_load(machine, txn);
    }
    if (rc == 0) {
        rc = bop__machine_sessions_load(machine, txn);
    }
    bop_kv_abort(txn);
    return rc;
}

static void register_metrics(struct machine *machine, struct bop_metrics *metrics)
{
    if (!metrics) {
        return;
    }
    /* One that could not be had counts nothing, and is no reason to do without the rest. */
    machine->metric_applied = bop_metrics_counter(metrics, "bop_machine_applied_total", NULL,
                                                  "Log entries applied.");
    machine->metric_replays = bop_metrics_counter(
        metrics, "bop_machine_replays_total", NULL,
        "Repeated writes answered with the first one's result.");
    machine->metric_sessions = bop_metrics_gauge(metrics, "bop_machine_sessions", NULL,
                                                 "Open sessions.");
    machine->metric_entries = bop_metrics_gauge(metrics, "bop_machine_map_entries", NULL,
                                                "Entries of all maps, sets and multimaps.");
}

static void set_gauges(struct machine *machine)
{
    bop_metric_set(machine->metric_sessions, (int64_t)machine->sessions.count);
    bop_metric_set(machine->metric_entries, (int64_t)machine->entries);
}

/* ---- Opening ---- */

int bop__machine_open(const struct machine_options *options, struct machine **out_machine,
                      struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "cluster.machine");
    struct machine *machine = bop_alloc_zeroed(allocator, sizeof(*machine));
    int rc = BOP_ENOMEM;

    if (!machine) {
        return bop_error_set(err, rc, "open the state %s", options->path);
    }
    machine->allocator = allocator;
    bop_buf_init(&machine->conf, allocator, 0);
    bop_buf_init(&machine->scratch, allocator, 0);
    bop_buf_init(&machine->pair, allocator, 0);
    bop_buf_init(&machine->large, allocator, 0);
    bop_buf_init(&machine->results, allocator, 0);
    bop_buf_init(&machine->undo.records, allocator, 0);
    bop_buf_init(&machine->owned_dirty, allocator, 0);
    machine->collections.slots = bop_alloc_array(allocator, MACHINE_COLLECTION_SLOTS,
                                                 sizeof(*machine->collections.slots));
    machine->chunks.index = bop_alloc_array(allocator, MACHINE_CHUNK_SLOTS,
                                            sizeof(*machine->chunks.index));
    if (!machine->collections.slots || !machine->chunks.index) {
        bop_error_set(err, rc, "open the state %s", options->path);
        goto fail;
    }
    rc = open_store(machine, options, err);
    if (rc < 0) {
        goto fail;
    }
    rc = rebuild(machine);
    if (rc < 0) {
        bop_error_set(err, rc, "read the state %s", options->path);
        goto fail;
    }
    register_metrics(machine, options->metrics);
    set_gauges(machine);
    *out_machine = machine;
    return 0;

fail:
    bop__machine_close(machine);
    return rc;
}

void bop__machine_close(struct machine *machine)
{
    struct bop_allocator *allocator;

    if (!machine) {
        return;
    }
    allocator = machine->allocator;
    bop_kv_abort(machine->txn);
    bop_kv_close(machine->kv);
    bop_buf_deinit(&machine->conf);
    bop_buf_deinit(&machine->scratch);
    bop_buf_deinit(&machine->pair);
    bop_buf_deinit(&machine->large);
    bop_buf_deinit(&machine->results);
    bop_buf_deinit(&machine->undo.records);
    bop_buf_deinit(&machine->owned_dirty);
    bop_free(allocator, machine->collections.slots,
             MACHINE_COLLECTION_SLOTS * sizeof(*machine->collections.slots));
    bop_free(allocator, machine->chunks.index,
             MACHINE_CHUNK_SLOTS * sizeof(*machine->chunks.index));
    bop_free(allocator, machine->chunks.chunks,
             machine->chunks.capacity * sizeof(*machine->chunks.chunks));
    bop_free(allocator, machine->sessions.slots,
             machine->sessions.capacity * sizeof(*machine->sessions.slots));
    bop_free(allocator, machine, sizeof(*machine));
}

struct machine_position bop__machine_position(const struct machine *machine)
{
    return machine->position;
}

struct bop_slice bop__machine_configuration(const struct machine *machine)
{
    return bop_buf_slice(&machine->conf);
}

/* ---- Batches ---- */

int bop__machine_begin(struct machine *machine)
{
    BOP_ASSERT(!machine->txn);
    machine->batch_applied = 0;
    machine->batch_replays = 0;
    machine->batch_entries = 0;
    return machine->failed ? BOP_EFAILED : bop_kv_begin(machine->kv, true, &machine->txn);
}

/* Everything that was put off to the end of the batch. */
static int flush(struct machine *machine)
{
    uint8_t position[MACHINE_POSITION_SIZE], next[4];
    int rc = bop__machine_collections_flush(machine);

    if (rc == 0) {
        rc = bop__machine_owned_flush(machine);
    }
    if (rc == 0) {
        rc = bop__machine_replies_flush(machine);
    }
    if (rc == 0 && machine->map_next_dirty) {
        bop_store_u32(next, machine->map_next);
        rc = meta_put(machine, MACHINE_META_MAP_NEXT, bop_slice(next, sizeof(next)));
    }
    if (rc == 0) {
        bop__machine_position_encode(position, &machine->position);
        rc = meta_put(machine, MACHINE_META_POSITION, bop_slice(position, sizeof(position)));
    }
    return rc;
}

int bop__machine_commit(struct machine *machine)
{
    struct bop_kv_txn *txn = machine->txn;
    int rc;

    BOP_ASSERT(txn);
    rc = flush(machine);
    if (rc == 0) {
        machine->txn = NULL; /* Gone, whatever the result. */
        rc = bop_kv_commit(txn);
    }
    if (rc < 0) {
        /* If memory cannot be rebuilt either, machine->failed keeps that. */
        BOP_IGNORE(bop__machine_abort(machine));
        return rc;
    }
    bop__machine_replies_tidy(machine);
    machine->map_next_dirty = false;
    machine->entries += (uint64_t)machine->batch_entries;
    bop_metric_add(machine->metric_applied, (int64_t)machine->batch_applied);
    bop_metric_add(machine->metric_replays, (int64_t)machine->batch_replays);
    set_gauges(machine);
    if (machine->scratch.capacity > MACHINE_SCRATCH_BYTES_KEPT) {
        bop_buf_deinit(&machine->scratch);
        bop_buf_init(&machine->scratch, machine->allocator, 0);
    }
    return 0;
}

int bop__machine_abort(struct machine *machine)
{
    int rc;

    bop_kv_abort(machine->txn);
    machine->txn = NULL;
    rc = rebuild(machine);
    if (rc < 0) {
        machine->failed = rc;
    }
    return rc;
}

/* ---- Applying ---- */

void bop__machine_events_to(struct machine *machine, struct bop_buf *events)
{
    machine->events = events;
}

uint32_t bop__machine_level(const struct machine *machine)
{
    return machine->level;
}

/* The level that brought an operation. */
static uint32_t level_of(enum bop_op op)
{
    return (op >= BOP_OP_MAP_PUT_TTL && op <= BOP_OP_MAP_PUT_ALL) || op >= BOP_OP_LOCK_ACQUIRE ? 2
                                                                                               : 1;
}

int bop__machine_execute(struct machine *machine, uint64_t index, struct bop_slice bytes,
                         struct machine_reply *out_reply)
{
    struct bop_operation operation;
    int rc = bop_operation_decode(bytes, &operation);

    if (rc < 0) {
        machine_reply_set(out_reply,
                          rc == BOP_ETOOBIG ? BOP_STATUS_TOO_BIG : BOP_STATUS_BAD_REQUEST);
        return 0;
    }
    if (bop_op_is_write(operation.op) && level_of(operation.op) > machine->level) {
        machine_reply_set(out_reply, BOP_STATUS_TOO_OLD);
        return 0;
    }
    switch (operation.op) {
    case BOP_OP_MAP_PUT:
    case BOP_OP_MAP_DELETE:
    case BOP_OP_MAP_CREATE:
    case BOP_OP_MAP_CLEAR:
    case BOP_OP_MAP_PUT_TTL:
    case BOP_OP_MAP_EXCHANGE:
    case BOP_OP_MAP_TAKE:
    case BOP_OP_MAP_PUT_ALL:
        return bop__machine_map_write(machine, index, &operation, out_reply);
    case BOP_OP_SET_ADD:
    case BOP_OP_SET_REMOVE:
    case BOP_OP_SET_CREATE:
    case BOP_OP_SET_CLEAR:
        return bop__machine_set_write(machine, index, &operation, out_reply);
    case BOP_OP_MULTIMAP_PUT:
    case BOP_OP_MULTIMAP_REMOVE:
    case BOP_OP_MULTIMAP_REMOVE_VALUE:
    case BOP_OP_MULTIMAP_CREATE:
    case BOP_OP_MULTIMAP_CLEAR:
        return bop__machine_multimap_write(machine, index, &operation, out_reply);
    case BOP_OP_COUNTER_ADD:
    case BOP_OP_COUNTER_CREATE:
    case BOP_OP_COUNTER_CAS:
    case BOP_OP_COUNTER_SET:
    case BOP_OP_COUNTER_DELETE:
        return bop__machine_counter_write(machine, index, &operation, out_reply);
    case BOP_OP_MEMBER_JOIN:
    case BOP_OP_MEMBER_SET:
    case BOP_OP_MEMBER_LEAVE:
        return bop__machine_member_write(machine, &operation, out_reply);
    case BOP_OP_REGISTRATION_ADD:
    case BOP_OP_REGISTRATION_REMOVE:
    case BOP_OP_REGISTRATION_ADD_ALL:
        return bop__machine_registration_write(machine, &operation, out_reply);
    case BOP_OP_LOCK_ACQUIRE:
    case BOP_OP_LOCK_RELEASE:
    case BOP_OP_LOCK_CREATE:
    case BOP_OP_LOCK_DELETE:
    case BOP_OP_LOCK_ADOPT:
        return bop__machine_lock_write(machine, &operation, out_reply);
    case BOP_OP_TRANSACTION:
        return bop__machine_transaction_write(machine, &operation, out_reply);
    default:
        machine_reply_set(out_reply, BOP_STATUS_BAD_REQUEST);
        return 0;
    }
}

/* The cluster speaks of more from here on. It never goes back. */
static int raise_level(struct machine *machine, uint32_t level, struct machine_reply *out_reply)
{
    uint8_t bytes[4];

    machine_reply_set(out_reply, BOP_STATUS_OK);
    if (level <= machine->level) {
        return 0;
    }
    if (level > MACHINE_LEVEL) {
        return BOP_EVERSION; /* Others go on with what this version does not know. */
    }
    machine->level = level;
    bop_store_u32(bytes, level);
    return meta_put(machine, MACHINE_META_LEVEL, bop_slice(bytes, sizeof(bytes)));
}

static int dispatch(struct machine *machine, uint64_t index, const struct command *command,
                    struct machine_reply *out_reply)
{
    switch (command->kind) {
    case COMMAND_WRITE:
        return command->session == 0
                   ? bop__machine_execute(machine, index, command->operation, out_reply)
                   : bop__machine_session_write(machine, index, command, out_reply);
    case COMMAND_SESSION_OPEN:
        return bop__machine_session_open(machine, index, command, out_reply);
    case COMMAND_SESSION_CLOSE:
        return bop__machine_session_close(machine, command, out_reply);
    case COMMAND_SESSION_EXPIRE:
        return bop__machine_sessions_expire(machine, command, out_reply);
    case COMMAND_TIMERS:
        return bop__machine_timers(machine, out_reply);
    case COMMAND_LEVEL:
        return raise_level(machine, command->level, out_reply);
    }
    machine_reply_set(out_reply, BOP_STATUS_BAD_REQUEST);
    return 0;
}

static int apply_command(struct machine *machine, uint64_t index, struct bop_slice data,
                         struct bop_buf *results, struct machine_result *out_result)
{
    struct machine_reply reply;
    struct command command;
    int rc = bop__command_decode(data, &command);

    if (rc < 0) {
        out_result->status = BOP_STATUS_BAD_REQUEST;
        return 0;
    }
    machine->position.time_ms = bop_max_u64(machine->position.time_ms, command.time_ms);
    out_result->kind = command.kind;
    out_result->origin_node = command.origin_node;
    out_result->origin_request = command.origin_request;
    out_result->session = command.session;
    machine->entry.index = index;
    machine->entry.session = 0;
    bop_buf_clear(&machine->large);
    rc = dispatch(machine, index, &command, &reply);
    if (rc < 0) {
        return rc;
    }
    if (command.kind == COMMAND_SESSION_OPEN && reply.status == BOP_STATUS_OK) {
        out_result->session = index;
    }
    out_result->status = reply.status;
    if (reply.size == MACHINE_RESULT_LARGE) {
        out_result->result_size = machine->large.size;
        return bop_buf_append(results, machine->large.data, machine->large.size);
    }
    out_result->result_size = reply.size;
    return bop_buf_append(results, reply.result, reply.size);
}

static int apply_change(struct machine *machine, uint64_t index, struct bop_slice data)
{
    int rc;

    if (data.size > MACHINE_CONF_MAX) {
        return 0;
    }
    rc = meta_put(machine, MACHINE_META_CONF, data);
    if (rc == 0) {
        bop_buf_clear(&machine->conf);
        rc = bop_buf_append(&machine->conf, data.data, data.size);
    }
    machine->position.conf_index = index;
    return rc;
}

static uint64_t chain(uint64_t digest, uint64_t index, const struct bop_raft_entry *entry)
{
    digest = machine_mix(digest, index);
    digest = machine_mix(digest, entry->term);
    return machine_mix(digest, (uint64_t)entry->type << 32 |
                                   bop_crc32c(0, entry->data.data, entry->data.size));
}

int bop__machine_apply(struct machine *machine, uint64_t index, const struct bop_raft_entry *entry,
                       struct bop_buf *results, struct machine_result *out_result)
{
    struct machine_result result = {.result_at = results->size,
                                    .events_at = machine->events ? machine->events->size : 0};
    int rc = 0;

    BOP_ASSERT(machine->txn);
    BOP_ASSERT(index == machine->position.index + 1);
    switch (entry->type) {
    case BOP_RAFT_COMMAND:
        rc = apply_command(machine, index, entry->data, results, &result);
        break;
    case BOP_RAFT_CHANGE:
        rc = apply_change(machine, index, entry->data);
        break;
    case BOP_RAFT_BARRIER:
        break;
    }
    if (rc == 0 && machine->garbage > 0) {
        rc = bop__machine_garbage_sweep(machine);
    }
    if (rc < 0) {
        return rc;
    }
    result.events_size = machine->events ? machine->events->size - result.events_at : 0;
    machine->position.index = index;
    machine->position.term = entry->term;
    machine->position.digest = chain(machine->position.digest, index, entry);
    machine->batch_applied++;
    *out_result = result;
    return 0;
}

/* ---- Views ---- */

int bop__machine_view_open(struct machine *machine, struct machine_view **out_view)
{
    struct machine_view *view = bop_alloc(machine->allocator, sizeof(*view));
    int rc;

    if (!view) {
        return BOP_ENOMEM;
    }
    view->allocator = machine->allocator;
    memcpy(view->tables, machine->tables, sizeof(view->tables));
    rc = bop_kv_begin(machine->kv, false, &view->txn);
    if (rc < 0) {
        bop_free(machine->allocator, view, sizeof(*view));
        return rc;
    }
    rc = read_position(view->txn, view->tables, &view->position);
    if (rc < 0) {
        bop__machine_view_close(view);
        return rc;
    }
    *out_view = view;
    return 0;
}

void bop__machine_view_close(struct machine_view *view)
{
    if (!view) {
        return;
    }
    bop_kv_abort(view->txn);
    bop_free(view->allocator, view, sizeof(*view));
}

struct machine_position bop__machine_view_position(const struct machine_view *view)
{
    return view->position;
}

int bop__machine_read(struct machine_view *view, const struct bop_operation *operation,
                      struct bop_buf *out)
{
    size_t begin = out->size;
    int rc;

    switch (operation->op) {
    case BOP_OP_MAP_GET:
    case BOP_OP_MAP_SIZE:
    case BOP_OP_MAP_SCAN:
    case BOP_OP_MAP_RANGE:
    case BOP_OP_MAP_GET_TTL:
        rc = bop__machine_map_read(view, operation, out);
        break;
    case BOP_OP_SET_CONTAINS:
    case BOP_OP_SET_SIZE:
    case BOP_OP_SET_SCAN:
        rc = bop__machine_set_read(view, operation, out);
        break;
    case BOP_OP_MULTIMAP_GET:
    case BOP_OP_MULTIMAP_SIZE:
    case BOP_OP_MULTIMAP_KEY_SIZE:
    case BOP_OP_MULTIMAP_CONTAINS_KEY:
    case BOP_OP_MULTIMAP_CONTAINS_VALUE:
    case BOP_OP_MULTIMAP_CONTAINS_ENTRY:
    case BOP_OP_MULTIMAP_KEYS:
    case BOP_OP_MULTIMAP_VALUES:
    case BOP_OP_MULTIMAP_ENTRIES:
        rc = bop__machine_multimap_read(view, operation, out);
        break;
    case BOP_OP_COUNTER_GET:
        rc = bop__machine_counter_read(view, operation, out);
        break;
    case BOP_OP_LOCK_GET:
    case BOP_OP_LOCK_OWNED:
        rc = bop__machine_lock_read(view, operation, out);
        break;
    case BOP_OP_MEMBER_LIST:
    case BOP_OP_MEMBER_GET:
        rc = bop__machine_member_read(view, operation, out);
        break;
    case BOP_OP_REGISTRATION_GET:
    case BOP_OP_REGISTRATION_LIST:
        rc = bop__machine_registration_read(view, operation, out);
        break;
    case BOP_OP_NAMES:
        rc = bop__machine_names_read(view, operation, out);
        break;
    default:
        rc = BOP_STATUS_BAD_REQUEST;
    }
    if (rc != BOP_STATUS_OK) {
        out->size = begin; /* No half of a result. */
    }
    return rc;
}

uint64_t bop__machine_record_digest(uint64_t digest, enum machine_table table, struct bop_slice key,
                                    struct bop_slice value)
{
    digest = machine_mix(digest, (uint64_t)table << 56 | (uint64_t)key.size << 32 | value.size);
    return machine_mix(digest, (uint64_t)bop_crc32c(0, key.data, key.size) << 32 |
                                   bop_crc32c(0, value.data, value.size));
}

int bop__machine_walk(struct machine_view *view, machine_walk_fn *fn, void *user)
{
    for (unsigned table = 0; table < MACHINE_TABLES; table++) {
        struct bop_kv_cursor *cursor;
        struct bop_slice key, value;
        int rc = bop_kv_cursor_open(view->txn, view->tables[table], &cursor);

        if (rc < 0) {
            return rc;
        }
        rc = bop_kv_cursor_seek(cursor, BOP_KV_FIRST, bop_slice(NULL, 0), &key, &value);
        while (rc == 0) {
            rc = fn(user, (enum machine_table)table, key, value);
            if (rc == 0) {
                rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bop_slice(NULL, 0), &key, &value);
            }
        }
        bop_kv_cursor_close(cursor);
        if (rc != BOP_ENOTFOUND) {
            return rc;
        }
    }
    return 0;
}

static int digest_record(void *user, enum machine_table table, struct bop_slice key,
                         struct bop_slice value)
{
    uint64_t *digest = user;

    *digest = bop__machine_record_digest(*digest, table, key, value);
    return 0;
}

int bop__machine_content_digest(struct machine_view *view, uint64_t *out_digest)
{
    uint64_t digest = 0;
    int rc = bop__machine_walk(view, digest_record, &digest);

    if (rc == 0) {
        *out_digest = digest;
    }
    return rc;
}

int bop__machine_sync(struct machine *machine, struct bop_error *err)
{
    return bop_kv_sync(machine->kv, err);
}
