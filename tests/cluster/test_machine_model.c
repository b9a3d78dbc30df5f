/*
 * Random logs against a model: arrays and loops, written after the rules and
 * not after the code. Each log is then applied in batches of other sizes, with
 * batches aborted and begun again, with the store reopened, and with a snapshot
 * loaded in the middle; every result and every byte of the store must be the same.
 */
#include <stdio.h>
#include <stdlib.h>

#include <bop/random.h>

#include "machine_help.h"
#include "snapshot.h"

#define ENTRIES      3000
#define MAPS         4
#define KEYS         24
#define SETS         2
#define MULTIMAPS    2
#define VALUES       4
#define COUNTERS     3
#define SESSIONS_MAX 256
#define REPLIES_MAX  ENTRIES

/* ---- The model ---- */

struct model_value {
    bool present;
    uint64_t version;
    uint32_t value;
};

struct model_reply {
    uint64_t sequence;
    uint8_t status;
    uint8_t size;
    uint8_t result[16];
};

struct model_session {
    uint64_t id;
    bool open;
    uint8_t token[BOP_TOKEN_SIZE];
    uint64_t acked;
    uint64_t highest;
    struct model_reply replies[REPLIES_MAX];
    size_t reply_count;
};

struct model {
    bool map_made[MAPS];
    struct model_value values[MAPS][KEYS];
    bool set_made[SETS];
    struct model_value members[SETS][KEYS];
    bool multimap_made[MULTIMAPS];
    struct model_value pairs[MULTIMAPS][KEYS][VALUES];
    bool counter_made[COUNTERS];
    int64_t counters[COUNTERS];
    struct model_session sessions[SESSIONS_MAX];
    size_t session_count;
};

/* An entry as bytes, and what is to come of it. */
struct log_entry {
    enum bop_raft_entry_type type;
    size_t at;
    size_t size;
    uint8_t status;
    uint8_t result_size;
    uint8_t result[16];
};

struct fixture {
    struct bop_random random;
    struct model *model;
    struct log_entry *log;
    struct bop_buf bytes;
    struct bop_buf operation;
    char map_names[MAPS][8];
    char set_names[SETS][8];
    char counter_names[COUNTERS][8];
    struct bop_slice keys[KEYS];
};

static void setup(struct fixture *f)
{
    f->model = calloc(1, sizeof(*f->model));
    f->log = calloc(ENTRIES, sizeof(*f->log));
    REQUIRE(f->model && f->log);
    bop_buf_init(&f->bytes, NULL, 0);
    bop_buf_init(&f->operation, NULL, 0);
    for (unsigned i = 0; i < MAPS; i++) {
        snprintf(f->map_names[i], sizeof(f->map_names[i]), "map%u", i);
    }
    for (unsigned i = 0; i < SETS; i++) {
        /* As two of the maps are called. */
        snprintf(f->set_names[i], sizeof(f->set_names[i]), "map%u", i);
    }
    for (unsigned i = 0; i < COUNTERS; i++) {
        snprintf(f->counter_names[i], sizeof(f->counter_names[i]), "c%u", i);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        /* Every third key is too long for the store, and they differ at their ends only. */
        size_t size = i % 3 == 0 ? 500 + i : 1 + i % 5;
        uint8_t *key = malloc(size);

        REQUIRE(key);
        memset(key, 'k', size);
        key[size - 1] = (uint8_t)('a' + i);
        f->keys[i] = bop_slice(key, size);
    }
}

static void teardown(struct fixture *f)
{
    for (unsigned i = 0; i < KEYS; i++) {
        free((void *)(uintptr_t)f->keys[i].data);
    }
    free(f->model);
    free(f->log);
    bop_buf_deinit(&f->bytes);
    bop_buf_deinit(&f->operation);
}

FIXTURE(setup, teardown)

static void expect(struct model_reply *reply, uint8_t status)
{
    reply->status = status;
    reply->size = 0;
}

static void expect_u64(struct model_reply *reply, uint64_t value)
{
    memcpy(reply->result + reply->size, &value, 8);
    reply->size = (uint8_t)(reply->size + 8);
}

/* A write as the random choices make it, with what is needed to run it in the model. */
struct write {
    struct bop_operation operation;
    unsigned map, set, key, counter;
    uint32_t value, expected;
    uint8_t value_bytes[4], expected_bytes[4];
};

static bool model_met(const struct write *write, const struct model_value *old)
{
    switch (write->operation.condition) {
    case BOP_IF_ABSENT:
        return !old->present;
    case BOP_IF_PRESENT:
        return old->present;
    case BOP_IF_VERSION:
        return old->present && old->version == write->operation.version;
    case BOP_IF_VALUE:
        return old->present && old->value == write->expected;
    default:
        return true;
    }
}

/* Forget `count` values; the result of a clear is how many there were. */
static void model_clear(struct model_value *values, size_t count, struct model_reply *reply)
{
    uint64_t present = 0;

    for (size_t i = 0; i < count; i++) {
        present += values[i].present;
        values[i].present = false;
    }
    expect(reply, BOP_STATUS_OK);
    expect_u64(reply, present);
}

static void model_map(struct model *model, uint64_t index, const struct write *write,
                      struct model_reply *reply)
{
    struct model_value *old = &model->values[write->map][write->key];
    bool made = model->map_made[write->map];

    if (write->operation.op == BOP_OP_MAP_CLEAR) {
        model_clear(model->values[write->map], KEYS, reply);
    } else if (write->operation.op == BOP_OP_MAP_CREATE) {
        model->map_made[write->map] = true;
        expect(reply, BOP_STATUS_OK);
        reply->result[reply->size++] = !made;
    } else if (!model_met(write, old)) {
        expect(reply, BOP_STATUS_CONDITION);
        expect_u64(reply, old->present ? old->version : 0);
    } else if (write->operation.op == BOP_OP_MAP_PUT) {
        expect(reply, BOP_STATUS_OK);
        reply->result[reply->size++] = old->present;
        expect_u64(reply, index);
        *old = (struct model_value){.present = true, .version = index, .value = write->value};
        model->map_made[write->map] = true;
    } else {
        expect(reply, BOP_STATUS_OK);
        reply->result[reply->size++] = old->present;
        old->present = false;
    }
}

static void model_set(struct model *model, uint64_t index, const struct write *write,
                      struct model_reply *reply)
{
    struct model_value *old = &model->members[write->set][write->key];
    bool made = model->set_made[write->set];

    if (write->operation.op == BOP_OP_SET_CLEAR) {
        model_clear(model->members[write->set], KEYS, reply);
        return;
    }
    expect(reply, BOP_STATUS_OK);
    if (write->operation.op == BOP_OP_SET_CREATE) {
        reply->result[reply->size++] = !made;
        model->set_made[write->set] = true;
    } else if (write->operation.op == BOP_OP_SET_ADD) {
        reply->result[reply->size++] = !old->present;
        if (!old->present) {
            *old = (struct model_value){.present = true, .version = index};
        }
        model->set_made[write->set] = true;
    } else {
        reply->result[reply->size++] = old->present;
        old->present = false;
    }
}

static void model_multimap(struct model *model, const struct write *write,
                           struct model_reply *reply)
{
    struct model_value *pair = &model->pairs[write->set][write->key][write->value];
    bool *made = &model->multimap_made[write->set];

    if (write->operation.op == BOP_OP_MULTIMAP_CLEAR) {
        model_clear(&model->pairs[write->set][0][0], KEYS * VALUES, reply);
        return;
    }
    if (write->operation.op == BOP_OP_MULTIMAP_REMOVE) {
        model_clear(model->pairs[write->set][write->key], VALUES, reply);
        return;
    }
    expect(reply, BOP_STATUS_OK);
    if (write->operation.op == BOP_OP_MULTIMAP_CREATE) {
        reply->result[reply->size++] = !*made;
        *made = true;
    } else if (write->operation.op == BOP_OP_MULTIMAP_PUT) {
        reply->result[reply->size++] = !pair->present;
        pair->present = true;
        *made = true;
    } else {
        reply->result[reply->size++] = pair->present;
        pair->present = false;
    }
}

static void model_run(struct model *model, uint64_t index, const struct write *write,
                      struct model_reply *reply)
{
    int64_t *counter = &model->counters[write->counter];

    if (write->operation.op == BOP_OP_COUNTER_CREATE) {
        expect(reply, BOP_STATUS_OK);
        reply->result[reply->size++] = !model->counter_made[write->counter];
        model->counter_made[write->counter] = true;
    } else if (write->operation.op == BOP_OP_COUNTER_CAS) {
        bool met = *counter == write->operation.expected_number;

        *counter = met ? write->operation.number : *counter;
        model->counter_made[write->counter] |= met;
        expect(reply, met ? BOP_STATUS_OK : BOP_STATUS_CONDITION);
        expect_u64(reply, (uint64_t)*counter);
    } else if (write->operation.op == BOP_OP_COUNTER_SET ||
               write->operation.op == BOP_OP_COUNTER_DELETE) {
        expect(reply, BOP_STATUS_OK);
        reply->result[reply->size++] = model->counter_made[write->counter];
        model->counter_made[write->counter] = write->operation.op == BOP_OP_COUNTER_SET;
        *counter = write->operation.number; /* 0 of a delete. */
    } else if (write->operation.op == BOP_OP_COUNTER_ADD) {
        int64_t sum;

        if (__builtin_add_overflow(*counter, write->operation.delta, &sum)) {
            expect(reply, BOP_STATUS_OVERFLOW);
            return;
        }
        *counter = sum;
        model->counter_made[write->counter] = true;
        expect(reply, BOP_STATUS_OK);
        expect_u64(reply, (uint64_t)sum);
    } else if (write->operation.op >= BOP_OP_MULTIMAP_PUT) {
        model_multimap(model, write, reply);
    } else if (write->operation.op >= BOP_OP_SET_ADD) {
        model_set(model, index, write, reply);
    } else {
        model_map(model, index, write, reply);
    }
}

static void model_write(struct model *model, uint64_t index, struct model_session *session,
                        uint64_t sequence, uint64_t acked, const struct write *write,
                        struct model_reply *reply)
{
    if (acked >= sequence) {
        expect(reply, BOP_STATUS_BAD_REQUEST);
        return;
    }
    if (!session->open) {
        expect(reply, BOP_STATUS_NO_SESSION);
        return;
    }
    if (sequence <= session->acked) {
        expect(reply, BOP_STATUS_STALE);
        return;
    }
    for (size_t i = 0; i < session->reply_count; i++) {
        if (session->replies[i].sequence == sequence) {
            *reply = session->replies[i];
            return;
        }
    }
    acked = bop_max_u64(acked, session->acked);
    if (sequence > acked + MACHINE_WINDOW_MAX) {
        expect(reply, BOP_STATUS_BUSY);
        return;
    }
    model_run(model, index, write, reply);
    session->acked = acked;
    session->highest = bop_max_u64(session->highest, sequence);
    reply->sequence = sequence;
    REQUIRE(session->reply_count < REPLIES_MAX);
    session->replies[session->reply_count++] = *reply;
}

/* ---- A log ---- */

static void choose_multimap_write(struct fixture *f, uint64_t choice, struct write *write)
{
    struct bop_operation *operation = &write->operation;

    operation->name = bytes(f->set_names[write->set]);
    if (choice == 27) {
        operation->op = bop_random_chance(&f->random, 1, 3) ? BOP_OP_MULTIMAP_CLEAR
                                                            : BOP_OP_MULTIMAP_CREATE;
        return;
    }
    operation->op = choice == 28  ? BOP_OP_MULTIMAP_REMOVE
                    : choice < 33 ? BOP_OP_MULTIMAP_PUT
                                  : BOP_OP_MULTIMAP_REMOVE_VALUE;
    operation->key = f->keys[write->key];
    if (choice > 28) {
        operation->value = bop_slice(write->value_bytes, 4);
    }
}

static void choose_write(struct fixture *f, struct write *write)
{
    struct bop_random *r = &f->random;
    uint64_t choice = bop_random_below(r, 35);

    *write = (struct write){.map = (unsigned)bop_random_below(r, MAPS),
                            .set = (unsigned)bop_random_below(r, SETS),
                            .key = (unsigned)bop_random_below(r, KEYS),
                            .counter = (unsigned)bop_random_below(r, COUNTERS),
                            .value = (uint32_t)bop_random_below(r, 4),
                            .expected = (uint32_t)bop_random_below(r, 4)};
    memcpy(write->value_bytes, &write->value, 4);
    memcpy(write->expected_bytes, &write->expected, 4);
    write->operation.name = bytes(f->map_names[write->map]);
    if (choice == 0) {
        /* Seldom, that there is something to clear. */
        write->operation.op = bop_random_chance(r, 1, 3) ? BOP_OP_MAP_CLEAR : BOP_OP_MAP_CREATE;
    } else if (choice < 14) {
        const struct model_value *old = &f->model->values[write->map][write->key];

        write->operation.op = choice < 9 ? BOP_OP_MAP_PUT : BOP_OP_MAP_DELETE;
        write->operation.key = f->keys[write->key];
        write->operation.condition = (enum bop_condition)bop_random_below(r, 5);
        if (choice < 9) {
            write->operation.value = bop_slice(write->value_bytes, 4);
        }
        if (write->operation.condition == BOP_IF_VERSION) {
            write->operation.version = old->version + bop_random_below(r, 2);
        }
        if (write->operation.condition == BOP_IF_VALUE) {
            write->operation.expected = bop_slice(write->expected_bytes, 4);
        }
    } else if (choice >= 27) {
        choose_multimap_write(f, choice, write);
    } else if (choice >= 20) {
        write->operation.name = bytes(f->set_names[write->set]);
        write->operation.op = choice == 20  ? bop_random_chance(r, 1, 3) ? BOP_OP_SET_CLEAR
                                                                         : BOP_OP_SET_CREATE
                              : choice < 24 ? BOP_OP_SET_ADD
                                            : BOP_OP_SET_REMOVE;
        if (choice > 20) {
            write->operation.key = f->keys[write->key];
        }
    } else {
        write->operation.name = bytes(f->counter_names[write->counter]);
        write->operation.op = choice == 14 ? BOP_OP_COUNTER_CREATE : BOP_OP_COUNTER_ADD;
        if (choice == 16) {
            write->operation.op = BOP_OP_COUNTER_CAS;
            write->operation.expected_number = f->model->counters[write->counter] +
                                               (int64_t)bop_random_below(r, 2);
            write->operation.number = (int64_t)bop_random_next(r);
        } else if (choice == 17) {
            write->operation.op = bop_random_chance(r, 1, 2) ? BOP_OP_COUNTER_SET
                                                             : BOP_OP_COUNTER_DELETE;
            if (write->operation.op == BOP_OP_COUNTER_SET) {
                write->operation.number = (int64_t)bop_random_below(r, 100) - 50;
            }
        }
        if (write->operation.op == BOP_OP_COUNTER_ADD) {
            write->operation.delta = choice == 15 ? INT64_MAX / 2
                                                  : (int64_t)bop_random_below(r, 100) - 50;
        }
    }
}

static struct model_session *choose_session(struct fixture *f)
{
    size_t count = f->model->session_count;
    struct model_session *session = NULL;

    /* Mostly one that is open. */
    for (unsigned attempt = 0; attempt < 20 && count > 0; attempt++) {
        session = &f->model->sessions[bop_random_below(&f->random, count)];
        if (session->open || bop_random_chance(&f->random, 1, 30)) {
            break;
        }
    }
    return session;
}

/* A number near those in use: mostly the next one, often an old one, now and then one far off. */
static uint64_t choose_sequence(struct fixture *f, const struct model_session *session)
{
    uint64_t choice = bop_random_below(&f->random, 20);

    if (choice < 10) {
        return session->highest + 1;
    }
    if (choice < 13) {
        return session->highest + bop_random_below(&f->random, 100);
    }
    if (choice < 19) {
        return bop_random_below(&f->random, session->highest + 2);
    }
    return session->acked + MACHINE_WINDOW_MAX - 1 + bop_random_below(&f->random, 3);
}

static uint64_t choose_acked(struct fixture *f, const struct model_session *session,
                             uint64_t sequence)
{
    switch (bop_random_below(&f->random, 6)) {
    case 0:
        return bop_random_below(&f->random, sequence + 2);
    case 1:
        return sequence > 0 ? sequence - 1 : 0;
    case 2:
        return 0;
    default:
        return session->acked;
    }
}

static void make_write(struct fixture *f, uint64_t index, struct command *command,
                       struct model_reply *reply)
{
    struct bop_writer writer = bop_writer(&f->operation);
    struct model_session *session = choose_session(f);
    struct write write;

    choose_write(f, &write);
    bop_buf_clear(&f->operation);
    bop_operation_encode(&writer, &write.operation);
    command->kind = COMMAND_WRITE;
    command->operation = bop_buf_slice(&f->operation);
    if (!session || bop_random_chance(&f->random, 1, 8)) {
        model_run(f->model, index, &write, reply);
        return;
    }
    command->session = session->id;
    command->sequence = choose_sequence(f, session);
    command->acked = choose_acked(f, session, command->sequence);
    model_write(f->model, index, session, command->sequence, command->acked, &write, reply);
}

static void make_open(struct fixture *f, uint64_t index, struct command *command,
                      struct model_reply *reply)
{
    struct model_session *session = &f->model->sessions[f->model->session_count++];

    session->id = index;
    session->open = true;
    for (size_t i = 0; i < BOP_TOKEN_SIZE; i++) {
        session->token[i] = (uint8_t)bop_random_below(&f->random, 256);
    }
    command->kind = COMMAND_SESSION_OPEN;
    command->timeout_ms = (uint32_t)bop_random_next(&f->random);
    memcpy(command->token, session->token, BOP_TOKEN_SIZE);
    expect(reply, BOP_STATUS_OK);
    expect_u64(reply, index);
}

static void make_close(struct fixture *f, struct command *command, struct model_reply *reply)
{
    struct model_session *session = choose_session(f);
    bool right = bop_random_chance(&f->random, 1, 2);

    command->kind = COMMAND_SESSION_CLOSE;
    command->session = session ? session->id : 1;
    if (session && right) {
        memcpy(command->token, session->token, BOP_TOKEN_SIZE);
    }
    if (!session || !session->open) {
        expect(reply, BOP_STATUS_NO_SESSION);
        return;
    }
    expect(reply, right ? BOP_STATUS_OK : BOP_STATUS_REFUSED);
    session->open = !right;
}

static void make_expire(struct fixture *f, struct command *command, uint64_t ids[2],
                        struct model_reply *reply)
{
    command->kind = COMMAND_SESSION_EXPIRE;
    for (size_t i = 0; i < 2; i++) {
        struct model_session *session = choose_session(f);

        ids[i] = session ? session->id : 77777;
        if (session) {
            session->open = false;
        }
    }
    command->expired = bop_slice(ids, 16);
    expect(reply, BOP_STATUS_OK);
}

static void make_command(struct fixture *f, uint64_t index, struct model_reply *reply)
{
    struct bop_writer writer = bop_writer(&f->bytes);
    struct command command = {.time_ms = 1000 + bop_random_below(&f->random, 1000)};
    uint64_t choice = bop_random_below(&f->random, 100);
    uint64_t ids[2];

    if (choice < 4 && f->model->session_count < SESSIONS_MAX) {
        make_open(f, index, &command, reply);
    } else if (choice < 6) {
        make_close(f, &command, reply);
    } else if (choice == 6) {
        make_expire(f, &command, ids, reply);
    } else {
        make_write(f, index, &command, reply);
    }
    bop__command_encode(&writer, &command);
    REQUIRE_EQ(writer.code, 0);
}

static void make_log(struct fixture *f, uint64_t seed)
{
    bop_random_seed(&f->random, seed);
    memset(f->model, 0, sizeof(*f->model));
    bop_buf_clear(&f->bytes);
    for (size_t i = 0; i < ENTRIES; i++) {
        struct log_entry *entry = &f->log[i];
        struct model_reply reply = {0};
        uint64_t choice = bop_random_below(&f->random, 100);

        *entry = (struct log_entry){.type = BOP_RAFT_COMMAND, .at = f->bytes.size};
        if (choice == 0) {
            entry->type = BOP_RAFT_BARRIER;
        } else if (choice == 1) {
            entry->type = BOP_RAFT_CHANGE;
            REQUIRE_EQ(bop_buf_append(&f->bytes, "configuration", 3 + i % 10), 0);
        } else if (choice == 2) {
            REQUIRE_EQ(bop_buf_append(&f->bytes, "\1\1nonsense", 10), 0);
            reply.status = BOP_STATUS_BAD_REQUEST;
        } else {
            make_command(f, i + 1, &reply);
        }
        entry->size = f->bytes.size - entry->at;
        entry->status = reply.status;
        entry->result_size = reply.size;
        memcpy(entry->result, reply.result, reply.size);
    }
}

/* ---- Applying it ---- */

/* Apply entry i and compare what came of it. */
static void apply(struct fixture *f, struct world *w, size_t i)
{
    const struct log_entry *entry = &f->log[i];
    uint8_t status = world_entry(w, entry->type, bop_slice(f->bytes.data + entry->at, entry->size));

    CHECK_EQ(status, entry->status);
    CHECK_SLICE_EQ(world_result(w), bop_slice(entry->result, entry->result_size));
}

static void apply_range(struct fixture *f, struct world *w, size_t from, size_t to)
{
    world_begin(w);
    for (size_t i = from; i < to; i++) {
        apply(f, w, i);
    }
    world_commit(w);
}

/* In batches of up to max; now and then one is first aborted, or the store is reopened after it. */
static void apply_batches(struct fixture *f, struct world *w, size_t from, size_t to, uint64_t max,
                          bool trouble)
{
    while (from < to) {
        size_t end = from + 1 + (size_t)bop_random_below(&f->random, max);

        end = end < to ? end : to;
        if (trouble && bop_random_chance(&f->random, 1, 4)) {
            world_begin(w);
            for (size_t i = from; i < end; i++) {
                apply(f, w, i);
            }
            world_abort(w);
        }
        apply_range(f, w, from, end);
        if (trouble && bop_random_chance(&f->random, 1, 4)) {
            world_reopen(w);
        }
        from = end;
    }
}

/* Go on in a machine loaded from a snapshot of the first one. */
static void move(struct world *w)
{
    const char *path = test_path(NULL, "snapshot");
    struct machine_view *view;
    struct snapshot_info info;

    REQUIRE_EQ(bop__machine_view_open(w->machine, &view), 0);
    REQUIRE_EQ(
        bop__snapshot_write(NULL, bop_fs_real(), path, view, bop_slice(NULL, 0), &info, NULL), 0);
    bop__machine_view_close(view);
    bop__machine_close(w->machine);
    w->machine = NULL;
    w->options.path = test_path(NULL, "moved");
    REQUIRE_EQ(bop__snapshot_load(bop_fs_real(), path, &w->options, &info, NULL), 0);
    world_open(w);
}

/* Chunks of 64 sequences that hold a reply and are not acknowledged to their ends. */
static uint64_t model_chunks(const struct model *model)
{
    uint64_t count = 0;

    for (size_t i = 0; i < model->session_count; i++) {
        const struct model_session *session = &model->sessions[i];

        for (size_t j = 0; j < session->reply_count && session->open; j++) {
            uint64_t chunk = session->replies[j].sequence / 64;
            bool first = chunk * 64 + 63 > session->acked;

            for (size_t k = 0; k < j && first; k++) {
                first = session->replies[k].sequence / 64 != chunk;
            }
            count += first;
        }
    }
    return count;
}

static void compare_sets(struct fixture *f, struct world *w)
{
    uint64_t made = 0;

    for (unsigned set = 0; set < SETS; set++) {
        struct bop_slice name = bytes(f->set_names[set]);
        struct bop_operation get_size = {.op = BOP_OP_SET_SIZE, .name = name};
        struct bop_operation scan = {.op = BOP_OP_SET_SCAN, .name = name};
        struct bop_scan_entry entry;
        struct bop_result page;
        uint64_t size = 0;

        for (unsigned key = 0; key < KEYS; key++) {
            struct bop_operation contains = {
                .op = BOP_OP_SET_CONTAINS, .name = name, .key = f->keys[key]};

            CHECK_EQ(world_read(w, &contains).existed, f->model->members[set][key].present);
            size += f->model->members[set][key].present;
        }
        CHECK_EQ(world_read(w, &get_size).size, size);
        page = world_read(w, &scan);
        CHECK_EQ(page.count, size);
        while (bop_scan_next(&page.entries, &entry)) {
            for (unsigned key = 0; key < KEYS; key++) {
                if (bop_slice_equal(f->keys[key], entry.key)) {
                    CHECK_EQ(entry.version, f->model->members[set][key].version);
                    size--;
                }
            }
        }
        CHECK_EQ(size, 0);
        made += f->model->set_made[set];
    }
    CHECK_EQ(world_records(w, MACHINE_SETS), made);
}

static void compare_multimaps(struct fixture *f, struct world *w)
{
    uint64_t made = 0;

    for (unsigned multimap = 0; multimap < MULTIMAPS; multimap++) {
        struct bop_operation read = {.name = bytes(f->set_names[multimap])};
        uint64_t size = 0, keys = 0;

        for (unsigned key = 0; key < KEYS; key++) {
            uint64_t of_key = 0;

            read.key = f->keys[key];
            for (uint32_t value = 0; value < VALUES; value++) {
                bool present = f->model->pairs[multimap][key][value].present;

                read.op = BOP_OP_MULTIMAP_CONTAINS_ENTRY;
                read.value = bop_slice(&value, 4);
                CHECK_EQ(world_read(w, &read).existed, present);
                of_key += present;
            }
            read.op = BOP_OP_MULTIMAP_KEY_SIZE;
            read.value = bop_slice(NULL, 0);
            CHECK_EQ(world_read(w, &read).size, of_key);
            read.op = BOP_OP_MULTIMAP_GET;
            CHECK_EQ(world_read(w, &read).count, of_key);
            read.op = BOP_OP_MULTIMAP_CONTAINS_KEY;
            CHECK_EQ(world_read(w, &read).existed, of_key > 0);
            size += of_key;
            keys += of_key > 0;
        }
        read.key = bop_slice(NULL, 0);
        read.op = BOP_OP_MULTIMAP_SIZE;
        CHECK_EQ(world_read(w, &read).size, size);
        read.op = BOP_OP_MULTIMAP_ENTRIES;
        CHECK_EQ(world_read(w, &read).count, size);
        read.op = BOP_OP_MULTIMAP_KEYS;
        CHECK_EQ(world_read(w, &read).count, keys);
        made += f->model->multimap_made[multimap];
    }
    CHECK_EQ(world_records(w, MACHINE_MULTIMAPS), made);
}

/* What can be read is what the model holds. */
static void compare(struct fixture *f, struct world *w)
{
    for (unsigned map = 0; map < MAPS; map++) {
        uint64_t size = 0;

        for (unsigned key = 0; key < KEYS; key++) {
            const struct model_value *value = &f->model->values[map][key];
            struct bop_result result = world_get(w, f->map_names[map], f->keys[key]);

            CHECK_EQ(result.status, value->present ? BOP_STATUS_OK : BOP_STATUS_NOT_FOUND);
            if (value->present) {
                CHECK_EQ(result.version, value->version);
                CHECK_SLICE_EQ(result.value, bop_slice(&value->value, 4));
            }
            size += value->present;
        }
        CHECK_EQ(world_size(w, f->map_names[map]), size);
    }
    compare_sets(f, w);
    compare_multimaps(f, w);
    for (unsigned i = 0; i < COUNTERS; i++) {
        struct bop_operation get = {.op = BOP_OP_COUNTER_GET, .name = bytes(f->counter_names[i])};
        struct bop_result result = world_read(w, &get);

        CHECK_EQ(result.status, f->model->counter_made[i] ? BOP_STATUS_OK : BOP_STATUS_NOT_FOUND);
        CHECK_EQ(result.number, f->model->counters[i]);
    }
    for (size_t i = 0; i < f->model->session_count; i++) {
        const struct model_session *session = &f->model->sessions[i];

        CHECK_EQ(bop__machine_session_check(w->machine, session->id, session->token),
                 session->open);
    }
    CHECK_EQ(world_records(w, MACHINE_REPLIES), model_chunks(f->model));
}

TEST(model, agrees_whatever_the_batches)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct world one = {0}, many = {0}, troubled = {0};
        uint64_t content, digest;

        make_log(f, seed);
        world_init(&one, NULL);
        world_init(&many, NULL);
        world_init(&troubled, NULL);
        apply_batches(f, &one, 0, ENTRIES, 1, false);
        apply_batches(f, &many, 0, ENTRIES, 500, false);
        apply_batches(f, &troubled, 0, ENTRIES / 2, 100, true);
        move(&troubled);
        apply_batches(f, &troubled, ENTRIES / 2, ENTRIES, 100, true);
        compare(f, &one);
        content = world_digest(&one);
        digest = bop__machine_position(one.machine).digest;
        CHECK_EQ(world_digest(&many), content);
        CHECK_SLICE_EQ(bop__machine_configuration(one.machine),
                       bop__machine_configuration(troubled.machine));
        CHECK_EQ(world_digest(&troubled), content);
        CHECK_EQ(bop__machine_position(many.machine).digest, digest);
        CHECK_EQ(bop__machine_position(troubled.machine).digest, digest);
        world_close(&one);
        world_close(&many);
        world_close(&troubled);
    }
}
