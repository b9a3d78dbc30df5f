/*
 * The state machine without memory: a random log of all operations and commands, in which
 * each allocation fails once in turn. The batch is undone and applied again; then results,
 * events and every byte of the store are those of a machine that never lacked any.
 */
#include <bop/random.h>

#include "machine_help.h"
#include "make_operation.h"

#define ENTRIES    160
#define BATCH      8
#define SESSIONS   3
#define SEED_COUNT 3

struct fixture {
    struct world world;
    struct bop_buf entries; /* size u32, bytes: of each entry. */
    struct bop_buf results; /* What all of them came to: status, size u32, bytes. */
    struct bop_buf events;
    struct bop_buf told;     /* The results of the machine that lacks memory, */
    struct bop_buf happened; /* and its events. */
};

static void setup(struct fixture *f)
{
    world_init(&f->world, NULL);
    bop_buf_init(&f->entries, NULL, 0);
    bop_buf_init(&f->results, NULL, 0);
    bop_buf_init(&f->events, NULL, 0);
    bop_buf_init(&f->told, NULL, 0);
    bop_buf_init(&f->happened, NULL, 0);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    bop_buf_deinit(&f->entries);
    bop_buf_deinit(&f->results);
    bop_buf_deinit(&f->events);
    bop_buf_deinit(&f->told);
    bop_buf_deinit(&f->happened);
}

FIXTURE(setup, teardown)

/* ---- A random log ---- */

static void add_command(struct fixture *f, const struct command *command)
{
    struct bop_writer writer = bop_writer(&f->world.bytes);

    bop_buf_clear(&f->world.bytes);
    bop__command_encode(&writer, command);
    writer = bop_writer(&f->entries);
    bop_write_bytes(&writer, bop_buf_slice(&f->world.bytes));
    REQUIRE_EQ(writer.code, 0);
}

static void add_write(struct fixture *f, struct bop_random *random, uint64_t time_ms,
                      uint64_t sequences[SESSIONS])
{
    uint8_t bytes_of_choice[256];
    struct bop_reader choices = bop_reader(bop_slice(bytes_of_choice, sizeof(bytes_of_choice)));
    struct bop_writer writer = bop_writer(&f->world.operation);
    struct command command = {.kind = COMMAND_WRITE, .time_ms = time_ms, .origin_node = 1};
    uint64_t owner = bop_random_below(random, SESSIONS + 1);

    for (size_t n = 0; n < sizeof(bytes_of_choice); n++) {
        bytes_of_choice[n] = (uint8_t)bop_random_below(random, 240); /* Few large ones. */
    }
    bop_buf_clear(&f->world.operation);
    make_write(&writer, &choices);
    REQUIRE_EQ(writer.code, 0);
    command.operation = bop_buf_slice(&f->world.operation);
    if (owner < SESSIONS) {
        command.session = owner + 2; /* The index of the entry that opened it. */
        command.sequence = ++sequences[owner];
        command.acked = sequences[owner] - 1;
    }
    add_command(f, &command);
}

/* The newest level, sessions, then writes and times; at last the sessions end. */
static void make_log(struct fixture *f, uint64_t seed)
{
    struct command level = {.kind = COMMAND_LEVEL, .level = MACHINE_LEVEL};
    struct command open = {.kind = COMMAND_SESSION_OPEN, .timeout_ms = 5000, .grace_ms = 1000};
    struct command timers = {.kind = COMMAND_TIMERS};
    struct command close = {.kind = COMMAND_SESSION_CLOSE, .session = 2};
    struct command expire = {.kind = COMMAND_SESSION_EXPIRE};
    uint64_t sequences[SESSIONS] = {0};
    struct bop_random random;
    uint64_t time_ms = 1000, expired[] = {3, 4};

    bop_random_seed(&random, seed);
    bop_buf_clear(&f->entries);
    add_command(f, &level);
    for (unsigned n = 0; n < SESSIONS; n++) {
        add_command(f, &open);
    }
    for (unsigned n = 0; n < ENTRIES; n++) {
        time_ms += bop_random_below(&random, 20);
        timers.time_ms = time_ms;
        if (n % 16 == 15) {
            add_command(f, &timers);
        } else {
            add_write(f, &random, time_ms, sequences);
        }
    }
    close.time_ms = expire.time_ms = time_ms;
    add_command(f, &close);
    expire.expired = bop_slice(expired, sizeof(expired));
    add_command(f, &expire);
}

/* ---- Applying it ---- */

/* Apply up to BATCH entries from *at on. 0, and *at and what came of them moved on; or a code, and
 * nothing was done. */
static int apply_batch(struct world *w, struct bop_slice *rest, struct bop_buf *results,
                       struct bop_buf *events)
{
    struct bop_reader reader = bop_reader(*rest);
    size_t results_before = results->size, events_before = events->size;
    struct bop_writer writer = bop_writer(results);
    int rc = bop__machine_begin(w->machine);

    if (rc < 0) {
        return rc;
    }
    for (unsigned n = 0; n < BATCH && rc == 0 && bop_reader_left(&reader) > 0; n++) {
        struct bop_raft_entry entry = {
            .term = WORLD_TERM, .type = BOP_RAFT_COMMAND, .data = bop_read_bytes(&reader)};

        bop_buf_clear(&w->results);
        rc = bop__machine_apply(w->machine, bop__machine_position(w->machine).index + 1, &entry,
                                &w->results, &w->last);
        if (rc == 0) {
            bop_write_u8(&writer, w->last.status);
            bop_write_bytes(&writer, world_result(w));
        }
    }
    if (rc == 0) {
        rc = bop__machine_commit(w->machine);
    } else {
        CHECK_EQ(bop__machine_abort(w->machine), 0);
    }
    REQUIRE_EQ(writer.code, 0);
    if (rc < 0) {
        results->size = results_before;
        events->size = events_before;
        return rc;
    }
    *rest = bop_slice(reader.at, bop_reader_left(&reader));
    return 0;
}

/* All of the log. With faults at most one batch fails, for the reason there is, and is done again
 * from where it stood. */
static void apply_log(struct fixture *f, const struct bop_faults *faults, struct bop_buf *results,
                      struct bop_buf *events)
{
    struct world *w = &f->world;
    struct bop_slice rest = bop_buf_slice(&f->entries);

    bop_buf_clear(results);
    bop_buf_clear(events);
    bop__machine_events_to(w->machine, events);
    while (rest.size > 0) {
        uint64_t index = bop__machine_position(w->machine).index;
        int rc = apply_batch(w, &rest, results, events);

        if (rc < 0) {
            CHECK(faults && faults->fired != 0);
            CHECK_EQ(rc, BOP_ENOMEM);
            CHECK_EQ(bop__machine_position(w->machine).index, index);
            REQUIRE_EQ(apply_batch(w, &rest, results, events), 0);
        }
    }
    bop__machine_events_to(w->machine, NULL);
}

static void sweep(struct fixture *f, uint64_t seed)
{
    struct world *w = &f->world;
    struct bop_faults faults = {0};
    struct test_heap heap;
    uint64_t content;

    make_log(f, seed);
    apply_log(f, NULL, &f->results, &f->events);
    content = world_digest(w);
    test_note("seed %d: %d bytes of events", (int)seed, (int)f->events.size);
    bop__machine_close(w->machine);
    w->machine = NULL;
    test_heap_init(&heap, &faults);
    w->options.allocator = &heap.allocator;
    FAULT_SWEEP(&faults) {
        int rc;

        REQUIRE_EQ(bop_kv_remove(w->options.path, NULL), 0);
        rc = bop__machine_open(&w->options, &w->machine, NULL);
        CHECK_EQ(rc, rc < 0 ? faults.fired : 0);
        if (rc < 0) {
            CHECK_EQ(heap.live, 0);
            REQUIRE_EQ(bop__machine_open(&w->options, &w->machine, NULL), 0);
        }
        apply_log(f, &faults, &f->told, &f->happened);
        faults.fail_at = 0; /* Looking at it must not fail. */
        CHECK_SLICE_EQ(bop_buf_slice(&f->told), bop_buf_slice(&f->results));
        CHECK_SLICE_EQ(bop_buf_slice(&f->happened), bop_buf_slice(&f->events));
        CHECK_EQ(world_digest(w), content);
        bop__machine_close(w->machine);
        w->machine = NULL;
        CHECK_EQ(heap.live, 0);
    }
    test_note("%d allocations", (int)faults.at);
    w->options.allocator = NULL;
    REQUIRE_EQ(bop_kv_remove(w->options.path, NULL), 0);
    world_open(w);
}

TEST(machine_faults, leave_no_trace_in_a_random_log)
{
    for (uint64_t seed = 1; seed <= SEED_COUNT; seed++) {
        sweep(f, seed);
    }
}

/* ---- Reads ---- */

/* Each kind of read, at a state that has something of everything. */
TEST(machine_faults, of_reads_are_told)
{
    struct world *w = &f->world;
    struct bop_faults faults = {0};
    struct bop_random random;
    struct test_heap heap;

    bop_random_seed(&random, 7);
    make_log(f, 1);
    test_heap_init(&heap, &faults);
    bop__machine_close(w->machine);
    w->options.allocator = &heap.allocator;
    REQUIRE_EQ(bop_kv_remove(w->options.path, NULL), 0);
    world_open(w);
    apply_log(f, NULL, &f->results, &f->events);
    for (unsigned n = 0; n < 300; n++) {
        uint8_t chosen[64];
        struct bop_reader choices = bop_reader(bop_slice(chosen, sizeof(chosen)));
        struct bop_writer writer = bop_writer(&w->operation);
        struct bop_operation operation;

        for (size_t i = 0; i < sizeof(chosen); i++) {
            chosen[i] = (uint8_t)bop_random_below(&random, 240);
        }
        bop_buf_clear(&w->operation);
        make_read(&writer, &choices);
        if (bop_operation_decode(bop_buf_slice(&w->operation), &operation) != 0) {
            continue;
        }
        bop_buf_clear(&f->results);
        FAULT_SWEEP(&faults) {
            struct machine_view *view;
            int rc = bop__machine_view_open(w->machine, &view);

            CHECK(rc == 0 || rc == faults.fired);
            if (rc == 0) {
                bop_buf_clear(&f->told);
                rc = bop__machine_read(view, &operation, &f->told);
                CHECK(rc >= 0 || rc == faults.fired);
                bop__machine_view_close(view);
            }
        }
    }
    bop__machine_close(w->machine);
    w->machine = NULL;
    CHECK_EQ(heap.live, 0);
}
