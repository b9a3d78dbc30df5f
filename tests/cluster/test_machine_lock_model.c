/*
 * Random logs of locks against a model: queues in arrays, written after the rules and not
 * after the code. Each log is run a second time in batches of other sizes, some of them
 * aborted and begun again, and with the store reopened: every byte must be the same.
 */
#include <stdio.h>

#include <bop/random.h>

#include "lock_help.h"
#include "machine_lock.h"

#define ENTRIES      4000
#define LOCKS        5
#define SESSIONS     8
#define REQUESTS_MAX 64 /* Of a lock; the generator stays below. */
#define LABELS       6

struct request {
    uint64_t ticket;
    uint64_t session;
    uint64_t token;
    uint64_t deadline_ms;
    uint32_t permits;
    unsigned label;
};

struct lock {
    bool exists;
    bool stays;
    uint32_t capacity;
    uint64_t first_ticket; /* When it had none before: orders deadlines of the same time. */
    struct request requests[REQUESTS_MAX];
    size_t count;
};

struct model {
    struct lock locks[LOCKS];
    uint64_t index; /* Of the entry under way. */
    uint64_t time_ms;
};

struct fixture {
    struct bop_random random;
    struct model model;
    struct world world;
    struct owner owners[SESSIONS];
    struct bop_buf log; /* All entries. */
    bool checked;
};

static void setup(struct fixture *f)
{
    bop_buf_init(&f->log, NULL, 0);
    world_init(&f->world, NULL);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    bop_buf_deinit(&f->log);
}

FIXTURE(setup, teardown)

static const char *const names[LOCKS] = {"a", "b", "c", "d", "e"};
static const char *const labels[LABELS] = {"", "u", "v", "w", "x", "y"};
static const uint32_t capacities[LOCKS] = {1, 1, 3, 5, INT32_MAX};

/* ---- The model ---- */

static void model_remove(struct lock *lock, size_t at)
{
    memmove(&lock->requests[at], &lock->requests[at + 1],
            (lock->count - at - 1) * sizeof(lock->requests[0]));
    lock->count--;
    if (lock->count == 0 && !lock->stays) {
        lock->exists = false;
    }
}

static uint64_t model_taken(const struct lock *lock)
{
    uint64_t taken = 0;

    for (size_t i = 0; i < lock->count; i++) {
        taken += lock->requests[i].token ? lock->requests[i].permits : 0;
    }
    return taken;
}

static size_t model_waiting(const struct lock *lock)
{
    size_t waiting = 0;

    for (size_t i = 0; i < lock->count; i++) {
        waiting += lock->requests[i].token == 0;
    }
    return waiting;
}

/* In the order of the queue, until one does not fit. */
static void model_grant(struct model *model, struct lock *lock)
{
    for (size_t i = 0; i < lock->count; i++) {
        struct request *request = &lock->requests[i];

        if (request->token != 0) {
            continue;
        }
        if (model_taken(lock) + request->permits > lock->capacity) {
            return;
        }
        request->token = model->index;
    }
}

static struct request *model_find(struct lock *lock, uint64_t ticket)
{
    for (size_t i = 0; i < lock->count; i++) {
        if (lock->requests[i].ticket == ticket) {
            return &lock->requests[i];
        }
    }
    return NULL;
}

/* All sessions that end are taken out first, and then others get what is free. */
static void model_end(struct model *model, const uint64_t *sessions, size_t count)
{
    for (size_t n = 0; n < LOCKS; n++) {
        struct lock *lock = &model->locks[n];

        for (size_t s = 0; s < count; s++) {
            for (size_t i = lock->count; i-- > 0;) {
                if (lock->requests[i].session == sessions[s]) {
                    model_remove(lock, i);
                }
            }
        }
        model_grant(model, lock);
    }
}

/* The one whose time is up first: by time, then by the lock's first ticket, then by its own. */
static struct request *model_due(struct model *model, struct lock **out_lock)
{
    struct request *first = NULL;

    for (size_t n = 0; n < LOCKS; n++) {
        struct lock *lock = &model->locks[n];

        for (size_t i = 0; i < lock->count; i++) {
            struct request *request = &lock->requests[i];

            if (request->token != 0 || request->deadline_ms > model->time_ms ||
                (first && request->deadline_ms > first->deadline_ms) ||
                (first && request->deadline_ms == first->deadline_ms &&
                 lock->first_ticket >= (*out_lock)->first_ticket)) {
                continue;
            }
            first = request;
            *out_lock = lock;
        }
    }
    return first;
}

static void model_timers(struct model *model)
{
    struct lock *lock = NULL;
    struct request *request;

    while ((request = model_due(model, &lock))) {
        model_remove(lock, (size_t)(request - lock->requests));
        model_grant(model, lock);
    }
}

/* ---- Writes, each checked against what the model says ---- */

static void note_entry(struct fixture *f)
{
    struct bop_writer writer = bop_writer(&f->log);

    bop_write_bytes(&writer, bop_buf_slice(&f->world.bytes));
    REQUIRE_EQ(writer.code, 0);
}

static struct bop_result run(struct fixture *f, struct owner *owner,
                             const struct bop_operation *operation)
{
    struct bop_result result = lock_do(&f->world, owner, operation);

    note_entry(f);
    return result;
}

static void acquire(struct fixture *f, struct owner *owner, unsigned n)
{
    struct model *model = &f->model;
    struct lock *lock = &model->locks[n];
    uint32_t capacity = bop_random_chance(&f->random, 1, 20) ? 2 : capacities[n];
    uint32_t permits = n == 4 && bop_random_chance(&f->random, 1, 2)
                           ? capacity
                           : 1 + (uint32_t)bop_random_below(&f->random, bop_min_u64(capacity, 4));
    uint64_t timeout_ms = bop_random_chance(&f->random, 1, 3) ? LOCK_FOREVER
                                                              : bop_random_below(&f->random, 400);
    unsigned label = (unsigned)bop_random_below(&f->random, LABELS);
    struct bop_operation operation = op_acquire(names[n], capacity, permits, timeout_ms,
                                                labels[label]);
    bool fits;
    struct bop_result got;

    if (lock->count + 1 >= REQUESTS_MAX) {
        return;
    }
    got = run(f, owner, &operation);
    if (lock->exists && lock->capacity != capacity) {
        CHECK_EQ(got.status, BOP_STATUS_CONDITION);
        CHECK_EQ(got.version, lock->capacity);
        return;
    }
    CHECK_EQ(got.status, BOP_STATUS_OK);
    fits = model_waiting(lock) == 0 && model_taken(lock) + permits <= capacity;
    if (!fits && timeout_ms == 0) {
        CHECK_EQ(got.ticket, 0);
        CHECK_EQ(got.position, model_waiting(lock) + 1);
        return;
    }
    if (lock->count == 0) {
        lock->first_ticket = model->index;
    }
    lock->exists = true;
    lock->capacity = capacity;
    lock->requests[lock->count++] = (struct request){
        .ticket = model->index,
        .session = owner->session,
        .token = fits ? model->index : 0,
        .deadline_ms = timeout_ms == LOCK_FOREVER ? UINT64_MAX : model->time_ms + timeout_ms,
        .permits = permits,
        .label = label};
    CHECK_EQ(got.ticket, model->index);
    CHECK_EQ(got.token, fits ? model->index : 0);
    CHECK_EQ(got.position, fits ? 0 : model_waiting(lock));
}

static void release(struct fixture *f, struct owner *owner, unsigned n)
{
    struct lock *lock = &f->model.locks[n];
    uint64_t ticket = lock->count && bop_random_chance(&f->random, 9, 10)
                          ? lock->requests[bop_random_below(&f->random, lock->count)].ticket
                          : bop_random_below(&f->random, f->model.index + 1);
    struct bop_operation operation = op_release(names[n], ticket);
    struct request *request = model_find(lock, ticket);
    struct bop_result got;

    if (request && bop_random_chance(&f->random, 9, 10)) {
        for (unsigned i = 0; i < SESSIONS; i++) {
            owner = f->owners[i].session == request->session ? &f->owners[i] : owner;
        }
    }
    got = run(f, owner, &operation);
    if (request && request->session != owner->session) {
        CHECK_EQ(got.status, BOP_STATUS_NOT_FOUND);
        return;
    }
    CHECK_EQ(got.status, BOP_STATUS_OK);
    CHECK_EQ(got.existed, request != NULL);
    if (request) {
        model_remove(lock, (size_t)(request - lock->requests));
        model_grant(&f->model, lock);
    }
}

static void adopt(struct fixture *f, struct owner *owner, unsigned n)
{
    struct lock *lock = &f->model.locks[n];
    unsigned label = 1 + (unsigned)bop_random_below(&f->random, LABELS - 1);
    struct bop_operation operation = {
        .op = BOP_OP_LOCK_ADOPT, .name = bytes(names[n]), .label = bytes(labels[label])};
    struct bop_result got = run(f, owner, &operation);

    CHECK_EQ(got.status, BOP_STATUS_OK);
    for (size_t i = 0; i < lock->count && lock->requests[i].token; i++) {
        if (lock->requests[i].label == label) {
            CHECK_EQ(got.ticket, lock->requests[i].ticket);
            CHECK_EQ(got.token, lock->requests[i].token);
            lock->requests[i].session = owner->session;
            return;
        }
    }
    CHECK_EQ(got.ticket, 0);
    CHECK_EQ(got.token, 0);
}

static void create_or_delete(struct fixture *f, struct owner *owner, unsigned n)
{
    struct lock *lock = &f->model.locks[n];
    bool create = bop_random_chance(&f->random, 1, 2);
    struct bop_operation operation = {.op = create ? BOP_OP_LOCK_CREATE : BOP_OP_LOCK_DELETE,
                                      .name = bytes(names[n]),
                                      .capacity = capacities[n]};
    struct bop_result got = run(f, owner, &operation);

    if (create ? lock->exists && lock->capacity != capacities[n] : lock->count > 0) {
        CHECK_EQ(got.status, BOP_STATUS_CONDITION);
        CHECK_EQ(got.version, create ? lock->capacity : lock->count);
        return;
    }
    CHECK_EQ(got.status, BOP_STATUS_OK);
    CHECK_EQ(got.existed, create ? !lock->exists : lock->exists);
    if (create) {
        lock->capacity = capacities[n];
    }
    lock->exists = lock->stays = create;
}

static void open_session(struct fixture *f, unsigned n)
{
    f->owners[n] = owner_open(&f->world);
    note_entry(f);
}

static void end_sessions(struct fixture *f)
{
    uint64_t ends[SESSIONS];
    size_t count = 0;

    for (unsigned i = 0; i < SESSIONS; i++) {
        if (bop_random_chance(&f->random, 1, 4)) {
            ends[count++] = f->owners[i].session;
        }
    }
    for (size_t i = count; i > 1; i--) { /* In any order. */
        size_t other = bop_random_below(&f->random, i);
        uint64_t swapped = ends[other];

        ends[other] = ends[i - 1];
        ends[i - 1] = swapped;
    }
    CHECK_EQ(world_expire(&f->world, ends, count), BOP_STATUS_OK);
    note_entry(f);
    model_end(&f->model, ends, count);
    for (size_t s = 0; s < count; s++) {
        for (unsigned i = 0; i < SESSIONS; i++) {
            if (f->owners[i].session == ends[s]) {
                f->model.index++;
                open_session(f, i);
            }
        }
    }
}

/* ---- Reading it all back ---- */

static void check_lock(struct fixture *f, unsigned n)
{
    struct lock *lock = &f->model.locks[n];
    struct bop_operation get = {.op = BOP_OP_LOCK_GET, .name = bytes(names[n])};
    struct bop_result page = world_read(&f->world, &get);
    struct bop_scan_entry entry;

    CHECK_EQ(page.status, lock->exists ? BOP_STATUS_OK : BOP_STATUS_NOT_FOUND);
    if (!lock->exists) {
        return;
    }
    CHECK_EQ(page.capacity, lock->capacity);
    CHECK_EQ(page.permits, model_taken(lock));
    REQUIRE_EQ(page.count, lock->count);
    for (size_t i = 0; i < lock->count; i++) {
        const struct request *request = &lock->requests[i];

        REQUIRE(bop_scan_next(&page.entries, &entry));
        CHECK_SLICE_EQ(entry.key, bytes(labels[request->label]));
        CHECK_EQ(entry.version, request->ticket);
        CHECK_EQ(bop_load_u64(entry.value.data), request->session);
        CHECK_EQ(bop_load_u64(entry.value.data + 8), request->token);
        CHECK_EQ(bop_load_u32(entry.value.data + 16), request->permits);
    }
}

static void check_owned(struct fixture *f, const struct owner *owner)
{
    struct bop_operation get = {.op = BOP_OP_LOCK_OWNED, .session = owner->session};
    struct bop_result page = world_read(&f->world, &get);
    size_t count = 0;

    for (unsigned n = 0; n < LOCKS; n++) {
        for (size_t i = 0; i < f->model.locks[n].count; i++) {
            count += f->model.locks[n].requests[i].session == owner->session;
        }
    }
    CHECK_EQ(page.count, count);
}

static void check_all(struct fixture *f)
{
    for (unsigned n = 0; n < LOCKS; n++) {
        check_lock(f, n);
    }
    for (unsigned i = 0; i < SESSIONS; i++) {
        check_owned(f, &f->owners[i]);
    }
    CHECK_EQ(world_records(&f->world, MACHINE_LOCKS) <= LOCKS, true);
}

static void step(struct fixture *f)
{
    struct owner *owner = &f->owners[bop_random_below(&f->random, SESSIONS)];
    unsigned n = (unsigned)bop_random_below(&f->random, LOCKS);
    unsigned what = (unsigned)bop_random_below(&f->random, 100);

    f->world.time_ms = f->model.time_ms += bop_random_below(&f->random, 10);
    f->model.index = bop__machine_position(f->world.machine).index + 1;
    if (what < 48) {
        acquire(f, owner, n);
    } else if (what < 80) {
        release(f, owner, n);
    } else if (what < 86) {
        adopt(f, owner, n);
    } else if (what < 90) {
        create_or_delete(f, owner, n);
    } else if (what < 97) {
        model_timers(&f->model);
        lock_timers(&f->world, f->model.time_ms);
        note_entry(f);
    } else {
        end_sessions(f);
    }
}

/* ---- The same log in other batches ---- */

static int apply_next(struct world *world, struct bop_reader *reader)
{
    struct bop_raft_entry entry = {
        .term = WORLD_TERM, .type = BOP_RAFT_COMMAND, .data = bop_read_bytes(reader)};
    struct machine_result result;

    bop_buf_clear(&world->results);
    return bop__machine_apply(world->machine, bop__machine_position(world->machine).index + 1,
                              &entry, &world->results, &result);
}

static void run_again(struct fixture *f, struct world *again)
{
    struct bop_reader reader = bop_reader(bop_buf_slice(&f->log));

    while (bop_reader_left(&reader) > 0) {
        struct bop_reader begin = reader;
        uint64_t size = 1 + bop_random_below(&f->random, 60);

        world_begin(again);
        for (uint64_t i = 0; i < size && bop_reader_left(&reader) > 0; i++) {
            REQUIRE_EQ(apply_next(again, &reader), 0);
        }
        if (bop_random_chance(&f->random, 1, 5)) {
            world_abort(again);
            reader = begin;
        } else {
            world_commit(again);
        }
        if (bop_random_chance(&f->random, 1, 30)) {
            world_reopen(again);
        }
    }
}

static void play(struct fixture *f, uint64_t seed)
{
    struct world again = {0};
    char path[32];

    bop_random_seed(&f->random, seed);
    f->model = (struct model){.time_ms = 1000};
    bop_buf_clear(&f->log);
    lock_level(&f->world);
    note_entry(f);
    for (unsigned i = 0; i < SESSIONS; i++) {
        open_session(f, i);
    }
    for (unsigned i = 0; i < ENTRIES; i++) {
        step(f);
        if (i % 16 == 0) {
            check_all(f);
        }
    }
    check_all(f);
    snprintf(path, sizeof(path), "again%u", (unsigned)seed);
    again.options.path = test_path(NULL, path);
    world_init(&again, NULL);
    run_again(f, &again);
    CHECK_EQ(bop__machine_position(again.machine).digest,
             bop__machine_position(f->world.machine).digest);
    CHECK_EQ(world_digest(&again), world_digest(&f->world));
    world_close(&again);
}

static void play_seed(struct fixture *f, uint64_t seed)
{
    test_note("seed %llu", (unsigned long long)seed);
    play(f, seed);
}

TEST(lock_model, agrees_with_random_log_1)
{
    play_seed(f, 1);
}

TEST(lock_model, agrees_with_random_log_2)
{
    play_seed(f, 2);
}

TEST(lock_model, agrees_with_random_log_3)
{
    play_seed(f, 3);
}
