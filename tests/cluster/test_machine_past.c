/*
 * The state as it was at one moment, walked in slices while the machine goes on with random
 * writes of all kinds: every record and its order are those of a view that was opened at that
 * moment. Batches are open, committed and aborted meanwhile; notes find no room; memory fails.
 */
#include <stdio.h>

#include <bop/random.h>

#include "machine_help.h"
#include "machine_past.h"
#include "make_operation.h"

#define SESSIONS 4
#define ROUNDS   150
#define ENTRIES  100 /* During a walk. */

struct fixture {
    struct world world;
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_random random;
    struct bop_buf expected; /* What a view tells. */
    struct bop_buf told;     /* What the past does. */
    uint64_t sessions[SESSIONS];
    uint64_t sequences[SESSIONS];
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    world_init(&f->world, &f->heap.allocator);
    world_newest_level(&f->world);
    bop_random_seed(&f->random, 1);
    bop_buf_init(&f->expected, NULL, 0);
    bop_buf_init(&f->told, NULL, 0);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    bop_buf_deinit(&f->expected);
    bop_buf_deinit(&f->told);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* ---- Writes ---- */

/* A session ends, or begins. */
static void make_session(struct fixture *f, struct command *command, unsigned n)
{
    *command = (struct command){.kind = COMMAND_SESSION_OPEN, .timeout_ms = 5000};
    if (f->sessions[n] != 0) {
        *command = (struct command){.kind = COMMAND_SESSION_CLOSE, .session = f->sessions[n]};
    }
}

static void make_random_write(struct fixture *f, struct command *command, unsigned n)
{
    struct bop_writer writer = bop_writer(&f->world.operation);
    uint8_t chosen[256];
    struct bop_reader choices = bop_reader(bop_slice(chosen, sizeof(chosen)));

    for (size_t i = 0; i < sizeof(chosen); i++) {
        chosen[i] = (uint8_t)bop_random_below(&f->random, 240); /* Few large ones. */
    }
    bop_buf_clear(&f->world.operation);
    make_write(&writer, &choices);
    REQUIRE_EQ(writer.code, 0);
    *command = (struct command){
        .kind = COMMAND_WRITE, .origin_node = 1, .operation = bop_buf_slice(&f->world.operation)};
    if (f->sessions[n] != 0) {
        command->session = f->sessions[n];
        command->sequence = ++f->sequences[n];
        command->acked = command->sequence - bop_random_below(&f->random, 3) - 1;
        command->acked = command->acked > command->sequence ? 0 : command->acked;
    }
}

/* Apply one entry. 0, or a code that a fault is the reason of. */
static int apply_one(struct fixture *f)
{
    struct world *w = &f->world;
    struct bop_writer writer = bop_writer(&w->bytes);
    struct bop_raft_entry entry = {.term = WORLD_TERM, .type = BOP_RAFT_COMMAND};
    unsigned n = (unsigned)bop_random_below(&f->random, SESSIONS);
    uint64_t dice = bop_random_below(&f->random, 40);
    struct command command;
    int rc;

    if (dice == 0) {
        make_session(f, &command, n);
    } else if (dice == 1) {
        command = (struct command){.kind = COMMAND_TIMERS};
    } else {
        make_random_write(f, &command, n);
    }
    w->time_ms += bop_random_below(&f->random, 20);
    command.time_ms = w->time_ms;
    bop_buf_clear(&w->bytes);
    bop__command_encode(&writer, &command);
    REQUIRE_EQ(writer.code, 0);
    entry.data = bop_buf_slice(&w->bytes);
    bop_buf_clear(&w->results);
    rc = bop__machine_apply(w->machine, bop__machine_position(w->machine).index + 1, &entry,
                            &w->results, &w->last);
    if (rc == 0 && command.kind == COMMAND_SESSION_OPEN) {
        f->sessions[n] = w->last.session;
        f->sequences[n] = 0;
    } else if (rc == 0 && command.kind == COMMAND_SESSION_CLOSE) {
        f->sessions[n] = 0;
    }
    return rc;
}

static void find_sessions_again(struct fixture *f)
{
    for (unsigned n = 0; n < SESSIONS; n++) {
        if (!bop__machine_session_check(f->world.machine, f->sessions[n], NULL)) {
            f->sessions[n] = 0; /* It was opened in what was undone. */
        }
    }
}

/* Some entries, in batches that may stay open, be committed or aborted. Returns how many. */
static unsigned go_on(struct fixture *f, unsigned entries_max)
{
    struct world *w = &f->world;
    unsigned entries = (unsigned)bop_random_below(&f->random, entries_max + 1);

    for (unsigned n = 0; n < entries; n++) {
        int rc = 0;

        if (!w->batch) {
            rc = bop__machine_begin(w->machine);
            w->batch = rc == 0;
        }
        if (rc == 0) {
            rc = apply_one(f);
        }
        if (rc < 0) {
            CHECK_EQ(rc, f->faults.fired);
        }
        /* An abort that finds no memory is the machine's end: none while one is to fail. */
        if (w->batch &&
            (rc < 0 || (f->faults.fail_at == 0 && bop_random_chance(&f->random, 1, 16)))) {
            world_abort(w);
            find_sessions_again(f);
        } else if (w->batch && bop_random_chance(&f->random, 1, 4)) {
            w->batch = false;
            rc = bop__machine_commit(w->machine);
            if (rc < 0) {
                CHECK_EQ(rc, f->faults.fired);
                find_sessions_again(f);
            }
        }
    }
    return entries;
}

static void settle(struct fixture *f)
{
    if (f->world.batch) {
        world_commit(&f->world);
    }
}

/* ---- Walks ---- */

static int write_down(void *user, enum machine_table table, struct bop_slice key,
                      struct bop_slice value)
{
    struct bop_writer writer = bop_writer(user);

    bop_write_u8(&writer, (uint8_t)table);
    bop_write_bytes(&writer, key);
    bop_write_bytes(&writer, value);
    return writer.code;
}

static void see_what_is(struct fixture *f)
{
    struct machine_view *view;

    bop_buf_clear(&f->expected);
    REQUIRE_EQ(bop__machine_view_open(f->world.machine, &view), 0);
    REQUIRE_EQ(bop__machine_walk(view, write_down, &f->expected), 0);
    bop__machine_view_close(view);
}

/* Walk to the end, in slices, with writes in between; not for ever, or each walk would leave
 * several times as much behind as it found. 0 or the first failure. */
static int walk_to_end(struct fixture *f, struct machine_past *past, size_t slice_max,
                       unsigned entries_max)
{
    unsigned left = ENTRIES;
    bool more = true;
    int rc = 0;

    bop_buf_clear(&f->told);
    left -= go_on(f, entries_max);
    while (rc == 0 && more) {
        rc = bop__machine_past_turn(past);
        if (rc == 0) {
            /* What it does not see. */
            left -= go_on(f, entries_max < left ? entries_max : left);
            rc = bop__machine_past_walk(past, 1 + bop_random_below(&f->random, slice_max),
                                        write_down, &f->told, &more);
            left -= go_on(f, entries_max < left ? entries_max : left);
        }
    }
    return rc;
}

/* A past with so much room for notes is that of now. */
static void compare(struct fixture *f, size_t bytes_max, size_t slice_max, unsigned entries_max)
{
    struct machine_past *past;
    uint64_t index;

    settle(f);
    see_what_is(f);
    index = bop__machine_position(f->world.machine).index;
    REQUIRE_EQ(bop__machine_past_open(f->world.machine, bytes_max, &past), 0);
    CHECK_EQ(bop__machine_past_position(past).index, index);
    CHECK_EQ(walk_to_end(f, past, slice_max, entries_max), 0);
    CHECK_EQ(bop__machine_past_position(past).index, index);
    CHECK_SLICE_EQ(bop_buf_slice(&f->told), bop_buf_slice(&f->expected));
    bop__machine_past_close(past);
}

TEST(machine_past, is_what_was_whatever_changes_meanwhile)
{
    for (unsigned n = 0; n < ROUNDS; n++) {
        go_on(f, 20);
        compare(f, SIZE_MAX, n % 4 == 0 ? 1 : 400, 1 + n % 12);
    }
    test_note("%d bytes at last", (int)f->expected.size);
    CHECK(f->expected.size > 1000);
}

TEST(machine_past, finds_no_room_for_notes)
{
    for (unsigned n = 0; n < ROUNDS; n++) {
        go_on(f, 20);
        compare(f, bop_random_below(&f->random, 4000), 400, 1 + n % 12);
    }
    CHECK(f->expected.size > 1000);
}

/* All of it changes, goes or comes, before the first record was told. */
TEST(machine_past, is_told_from_notes_alone)
{
    struct world *w = &f->world;
    struct machine_past *past;
    bool more = true;
    char key[16];

    for (unsigned n = 0; n < 300; n += 2) {
        snprintf(key, sizeof(key), "%03u", n);
        CHECK_EQ(world_put(w, "m", key, "old"), BOP_STATUS_OK);
    }
    see_what_is(f);
    REQUIRE_EQ(bop__machine_past_open(w->machine, SIZE_MAX, &past), 0);
    for (unsigned times = 0; times < 2; times++) {
        for (unsigned n = 0; n < 300; n++) {
            snprintf(key, sizeof(key), "%03u", n);
            CHECK_EQ(n % 3 == 0 ? world_delete(w, "m", key) : world_put(w, "m", key, "new"),
                     BOP_STATUS_OK);
        }
    }
    bop_buf_clear(&f->told);
    while (more) {
        REQUIRE_EQ(bop__machine_past_turn(past), 0);
        REQUIRE_EQ(bop__machine_past_walk(past, 100, write_down, &f->told, &more), 0);
    }
    CHECK_SLICE_EQ(bop_buf_slice(&f->told), bop_buf_slice(&f->expected));
    bop__machine_past_close(past);
}

/* ---- On another thread ---- */

struct walker {
    struct machine_past *past;
    struct bop_buf *told;
    bool more;
    int rc;
};

static void *walk_slice(void *user)
{
    struct walker *walker = user;

    walker->rc = bop__machine_past_walk(walker->past, 2000, write_down, walker->told,
                                        &walker->more);
    return NULL;
}

TEST(machine_past, is_walked_beside_the_writes)
{
    struct walker walker = {.told = &f->told, .more = true};

    for (unsigned n = 0; n < 40; n++) {
        go_on(f, 20);
    }
    settle(f);
    see_what_is(f);
    REQUIRE_EQ(bop__machine_past_open(f->world.machine, SIZE_MAX, &walker.past), 0);
    bop_buf_clear(&f->told);
    while (walker.more) {
        pthread_t thread;

        REQUIRE_EQ(bop__machine_past_turn(walker.past), 0);
        REQUIRE_EQ(pthread_create(&thread, NULL, walk_slice, &walker), 0);
        go_on(f, 20);
        REQUIRE_EQ(pthread_join(thread, NULL), 0);
        REQUIRE_EQ(walker.rc, 0);
    }
    CHECK_SLICE_EQ(bop_buf_slice(&f->told), bop_buf_slice(&f->expected));
    bop__machine_past_close(walker.past);
}

/* ---- Failures ---- */

static int refuse(void *user, enum machine_table table, struct bop_slice key,
                  struct bop_slice value)
{
    unsigned *left = user;

    return (*left)-- > 0 ? 0 : -EIO;
}

TEST(machine_past, ends_when_its_reader_fails)
{
    struct machine_past *past;
    unsigned left = 2;
    bool more;

    go_on(f, 200);
    settle(f);
    REQUIRE_EQ(bop__machine_past_open(f->world.machine, SIZE_MAX, &past), 0);
    go_on(f, 20);
    REQUIRE_EQ(bop__machine_past_turn(past), 0);
    CHECK_EQ(bop__machine_past_walk(past, SIZE_MAX, refuse, &left, &more), -EIO);
    bop__machine_past_close(past);
    compare(f, SIZE_MAX, 400, 4);
}

/* Each allocation fails once: then the past fails, or it is what was; writes go on in any case. */
TEST(machine_past, survives_each_fault)
{
    for (unsigned n = 0; n < 50; n++) {
        go_on(f, 20);
    }
    settle(f);
    FAULT_SWEEP(&f->faults) {
        struct machine_past *past;
        uint64_t fail_at = f->faults.fail_at;
        int rc;

        f->faults.fail_at = 0;
        settle(f);
        see_what_is(f);
        bop_random_seed(&f->random, 5);
        f->faults = (struct bop_faults){.fail_at = fail_at};
        rc = bop__machine_past_open(f->world.machine, 3000, &past);
        if (rc == 0) {
            rc = walk_to_end(f, past, 2000, 12);
            bop__machine_past_close(past);
        }
        CHECK(rc == 0 || rc == f->faults.fired);
        if (rc == 0) {
            CHECK_SLICE_EQ(bop_buf_slice(&f->told), bop_buf_slice(&f->expected));
        }
    }
    test_note("%d allocations", (int)f->faults.at);
}
