/*
 * Fuzzes the state machine: a log of entries by the fuzzer's choice.
 *
 * Properties: nothing crashes, leaks or reads outside (the sanitizers' part). Two machines
 * are given the same log, one of them entry by entry, the other in batches, of which some
 * are undone and done again, with the store closed and opened in between: they answer alike,
 * tell the same events and hold the same bytes. Every record makes sense by itself. Each
 * result and each answer to a read can be decoded as one of its operation. An operation that
 * is refused leaves everything but its session as it was.
 */
#include <unistd.h>

#include "machine_internal.h"
#include "snapshot.h"

#include "fuzz_round_trip.h"
#include "make_operation.h"

#define STEPS_MAX   200
#define STORE_BYTES (8u * 1024 * 1024)
#define TOKEN       "0123456789abcdef"

/* A machine, and what the last entry came to. */
struct side {
    char path[64];
    struct machine_options options;
    struct machine *machine;
    bool batch;
    struct bop_buf results;
    struct bop_buf events;
    struct machine_result last;
};

/* An entry of the batch that is open. */
struct undone {
    struct bop_buf entries[32];
    size_t count;
};

struct world {
    struct side one;
    struct side two;
    struct undone undone;
    uint64_t time_ms;
    uint64_t session; /* Opened last. */
    uint64_t sequence;
};

static char directory[] = "/dev/shm/fuzz_machine_XXXXXX"; /* In memory: it is waited for. */

static void remove_directory(void)
{
    char path[64];

    for (unsigned n = 1; n <= 2; n++) {
        snprintf(path, sizeof(path), "%s/%u", directory, n);
        BOP_IGNORE(bop_kv_remove(path, NULL));
        rmdir(path);
    }
    rmdir(directory);
}

static void side_open(struct side *side)
{
    struct bop_error err = {0};
    int rc = bop__machine_open(&side->options, &side->machine, &err);

    if (rc < 0) {
        fprintf(stderr, "open: %s\n", err.message);
    }
    require(rc == 0);
    bop__machine_events_to(side->machine, &side->events);
}

static void side_init(struct side *side, unsigned number)
{
    memset(side, 0, sizeof(*side));
    snprintf(side->path, sizeof(side->path), "%s/%u", directory, number);
    require(bop_kv_remove(side->path, NULL) == 0);
    side->options = (struct machine_options){
        .path = side->path, .bytes_max = STORE_BYTES, .grow_step_bytes = 64 * 1024};
    bop_buf_init(&side->results, NULL, 0);
    bop_buf_init(&side->events, NULL, 0);
    side_open(side);
}

static void side_deinit(struct side *side)
{
    bop__machine_close(side->machine);
    bop_buf_deinit(&side->results);
    bop_buf_deinit(&side->events);
}

static void side_apply(struct side *side, struct bop_slice data)
{
    struct bop_raft_entry entry = {.term = 3, .type = BOP_RAFT_COMMAND, .data = data};

    if (!side->batch) {
        require(bop__machine_begin(side->machine) == 0);
        side->batch = true;
    }
    bop_buf_clear(&side->results);
    bop_buf_clear(&side->events);
    require(bop__machine_apply(side->machine, bop__machine_position(side->machine).index + 1,
                               &entry, &side->results, &side->last) == 0);
}

static void side_commit(struct side *side)
{
    if (side->batch) {
        require(bop__machine_commit(side->machine) == 0);
        side->batch = false;
    }
}

static uint64_t side_digest(struct side *side)
{
    struct machine_view *view;
    uint64_t digest;

    require(bop__machine_view_open(side->machine, &view) == 0);
    require(bop__machine_content_digest(view, &digest) == 0);
    bop__machine_view_close(view);
    return digest;
}

static struct bop_slice side_result(const struct side *side)
{
    require(side->last.result_at + side->last.result_size <= side->results.size);
    return side->last.result_size > 0
               ? bop_slice(side->results.data + side->last.result_at, side->last.result_size)
               : bop_slice(NULL, 0);
}

/* ---- What is to be seen ---- */

static int look_at_record(void *user, enum machine_table table, struct bop_slice key,
                          struct bop_slice value)
{
    require(bop__machine_record_check(table, key, value) == 0);
    return 0;
}

static void look_at_events(struct bop_slice events)
{
    struct bop_event event;
    int rc;

    while ((rc = bop_event_next(&events, &event)) > 0) {
    }
    require(rc == 0);
}

static void compare(struct world *world)
{
    struct machine_position one = bop__machine_position(world->one.machine);
    struct machine_position two = bop__machine_position(world->two.machine);
    struct machine_view *view;

    side_commit(&world->two);
    while (world->undone.count > 0) {
        bop_buf_deinit(&world->undone.entries[--world->undone.count]);
    }
    require(one.index == two.index && one.digest == two.digest && one.time_ms == two.time_ms);
    require(side_digest(&world->one) == side_digest(&world->two));
    require(bop__machine_deadline_next(world->one.machine) ==
            bop__machine_deadline_next(world->two.machine));
    require(bop__machine_session_count(world->one.machine) ==
            bop__machine_session_count(world->two.machine));
    require(bop__machine_view_open(world->one.machine, &view) == 0);
    require(bop__machine_walk(view, look_at_record, NULL) == 0);
    bop__machine_view_close(view);
}

/* ---- Entries ---- */

static void decoded(const struct side *side, struct bop_slice bytes)
{
    struct bop_operation operation;
    struct bop_result result;

    if (side->last.kind == COMMAND_WRITE && bop_operation_decode(bytes, &operation) == 0) {
        require(bop_result_decode(operation.op, side->last.status, side_result(side), &result) ==
                0);
    }
}

static void give(struct world *world, struct bop_slice data)
{
    struct undone *undone = &world->undone;

    side_apply(&world->one, data);
    side_commit(&world->one);
    side_apply(&world->two, data);
    require(world->one.last.kind == world->two.last.kind);
    require(world->one.last.status == world->two.last.status);
    require(bop_slice_equal(side_result(&world->one), side_result(&world->two)));
    require(bop_slice_equal(bop_buf_slice(&world->one.events), bop_buf_slice(&world->two.events)));
    look_at_events(bop_buf_slice(&world->one.events));
    if (undone->count == BOP_COUNT_OF(undone->entries)) {
        side_commit(&world->two);
        while (undone->count > 0) {
            bop_buf_deinit(&undone->entries[--undone->count]);
        }
        return;
    }
    bop_buf_init(&undone->entries[undone->count], NULL, 0);
    require(bop_buf_append(&undone->entries[undone->count++], data.data, data.size) == 0);
}

static void give_command(struct world *world, struct command *command)
{
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    command->time_ms = world->time_ms;
    command->origin_node = 1;
    bop__command_encode(&writer, command);
    require(writer.code == 0);
    give(world, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

/* Of these nothing may have come. */
static bool is_refusal(uint8_t status)
{
    return status != BOP_STATUS_OK && status != BOP_STATUS_NOT_FOUND;
}

static void give_write(struct world *world, struct bop_reader *choices)
{
    struct command command = {.kind = COMMAND_WRITE};
    uint8_t how = make_choice(choices);
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    make_write(&writer, choices);
    command.operation = bop_buf_slice(&buf);
    if (how % 4 != 0) {
        command.session = how & 128 ? make_number(choices) : world->session;
        command.sequence = how & 64 ? make_number(choices) : ++world->sequence;
        command.acked = how & 32 ? make_number(choices) : command.sequence - 1;
    }
    give_command(world, &command);
    decoded(&world->one, command.operation);
    if (is_refusal(world->one.last.status)) {
        require(world->one.events.size == 0);
    }
    bop_buf_deinit(&buf);
}

static void give_session(struct world *world, struct bop_reader *choices)
{
    struct command command = {.kind = COMMAND_SESSION_OPEN};
    uint8_t how = make_choice(choices);
    uint64_t expired[2];

    memcpy(command.token, TOKEN, BOP_TOKEN_SIZE);
    switch (how % 4) {
    case 0:
        command.kind = COMMAND_SESSION_CLOSE;
        command.session = how & 128 ? make_number(choices) : world->session;
        break;
    case 1:
        command.kind = COMMAND_SESSION_EXPIRE;
        bop_store_u64((uint8_t *)&expired[0], world->session);
        bop_store_u64((uint8_t *)&expired[1], make_number(choices));
        command.expired = bop_slice(expired, how & 128 ? 16 : 8);
        break;
    default:
        command.timeout_ms = (uint32_t)make_number(choices);
        command.grace_ms = how & 128 ? (uint32_t)make_number(choices) : 0;
    }
    give_command(world, &command);
    if (command.kind == COMMAND_SESSION_OPEN && world->one.last.status == BOP_STATUS_OK) {
        world->session = world->one.last.session;
        world->sequence = 0;
    }
}

static void give_raw(struct world *world, struct bop_reader *choices)
{
    size_t size = bop_min_u64(make_choice(choices), bop_reader_left(choices));

    give(world, bop_read_raw(choices, size));
}

static void read_both(struct world *world, struct bop_reader *choices)
{
    struct bop_operation operation;
    struct machine_view *view;
    struct bop_result result;
    struct bop_buf bytes, out;
    struct bop_writer writer = bop_writer(&bytes);
    int rc;

    bop_buf_init(&bytes, NULL, 0);
    bop_buf_init(&out, NULL, 0);
    make_read(&writer, choices);
    if (bop_operation_decode(bop_buf_slice(&bytes), &operation) == 0) {
        require(bop__machine_view_open(world->one.machine, &view) == 0);
        rc = bop__machine_read(view, &operation, &out);
        require(rc >= 0);
        require(bop_result_decode(operation.op, (uint8_t)rc, bop_buf_slice(&out), &result) == 0);
        bop__machine_view_close(view);
    }
    bop_buf_deinit(&bytes);
    bop_buf_deinit(&out);
}

/* The batch is undone, and its entries are applied again. */
static void undo(struct world *world)
{
    struct side *side = &world->two;
    struct undone *undone = &world->undone;

    if (!side->batch) {
        return;
    }
    require(bop__machine_abort(side->machine) == 0);
    side->batch = false;
    for (size_t n = 0; n < undone->count; n++) {
        side_apply(side, bop_buf_slice(&undone->entries[n]));
    }
}

static void reopen(struct world *world)
{
    compare(world);
    bop__machine_close(world->two.machine);
    side_open(&world->two);
    compare(world);
}

static void step(struct world *world, struct bop_reader *choices)
{
    uint8_t what = make_choice(choices);
    struct command command = {.kind = COMMAND_TIMERS};

    world->time_ms += what >> 6;
    switch (what % 16) {
    case 0:
        give_session(world, choices);
        break;
    case 1:
        world->time_ms += make_number(choices) % 100000;
        give_command(world, &command);
        break;
    case 2:
        give_raw(world, choices);
        break;
    case 3:
        undo(world);
        break;
    case 4:
        compare(world);
        break;
    case 5:
        reopen(world);
        break;
    case 6:
    case 7:
        read_both(world, choices);
        break;
    default:
        give_write(world, choices);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    struct bop_reader choices = bop_reader(bop_slice(data, size));
    struct command level = {.kind = COMMAND_LEVEL, .level = MACHINE_LEVEL};
    struct world world = {.time_ms = 1000};

    if (!made) {
        require(mkdtemp(directory) != NULL);
        atexit(remove_directory);
        made = true;
    }
    side_init(&world.one, 1);
    side_init(&world.two, 2);
    if (make_choice(&choices) % 8 != 0) {
        give_command(&world, &level);
    }
    for (unsigned n = 0; n < STEPS_MAX && bop_reader_left(&choices) > 0; n++) {
        step(&world, &choices);
    }
    compare(&world);
    side_deinit(&world.one);
    side_deinit(&world.two);
    return 0;
}
