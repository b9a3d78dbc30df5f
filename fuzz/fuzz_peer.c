/*
 * Fuzzes what nodes take from each other.
 *
 * The first byte says what the rest is: a payload for one decoder, or the life of a
 * replica. There a follower in a cluster of three, on a simulated disk, is told what
 * its two peers say and what the clock does, in any order and as wrong as can be:
 * well-formed messages with numbers of the fuzzer's choice, raw frames, chunks of a real
 * snapshot with or without damage, broken connections, power failures.
 *
 * Properties: nothing crashes, leaks or reads outside (the sanitizers' part); what is
 * decoded and encoded again gives the same bytes; memory stays below a bound; what the
 * replica sends can be parsed; commit and term never go back; a node that has stopped,
 * of itself or not, can be started again with its term.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <bop/sim.h>

#include "replica_internal.h"

#define FUZZ_HEAP_MAX (64u * 1024 * 1024) /* Of one replica with an input of a few KiB. */
#define STEPS_MAX     400
#define RESTARTS_MAX  16 /* Each costs as much as hundreds of steps. */
#define STORE_SIZE    (4u * 1024 * 1024)

#include "fuzz_heap.h"

/* ---- Decoders ---- */

static struct bop_raft_entry entries[PEER_ENTRIES_MAX];

static int raft_again(struct bop_slice payload, struct bop_writer *writer)
{
    struct bop_raft_message message;
    int rc = bop__peer_raft_decode(payload, entries, &message);

    if (rc == 0) {
        bop__peer_raft_encode(writer, &message);
        for (unsigned n = 0; message.type == BOP_RAFT_APPEND && n < message.append.count; n++) {
            bop__peer_entry_encode(writer, &entries[n]);
        }
    }
    return rc;
}

/* Decode and encode again. */
static int again(uint8_t which, struct bop_slice payload, struct bop_writer *writer)
{
    struct peer_hello hello;
    struct peer_welcome welcome;
    struct peer_chunk chunk;
    struct peer_chunk_ack ack;
    struct peer_offer offer;
    struct peer_have have;
    struct command command;
    int rc;

    switch (which % 8) {
    case 0:
        rc = bop__peer_hello_decode(payload, &hello);
        if (rc == 0) {
            bop__peer_hello_encode(writer, &hello);
        }
        return rc;
    case 1:
        rc = bop__peer_welcome_decode(payload, &welcome);
        if (rc == 0) {
            bop__peer_welcome_encode(writer, &welcome);
        }
        return rc;
    case 2:
        return raft_again(payload, writer);
    case 3:
        rc = bop__peer_chunk_decode(payload, &chunk);
        if (rc == 0) {
            bop__peer_chunk_encode(writer, &chunk);
        }
        return rc;
    case 4:
        rc = bop__peer_chunk_ack_decode(payload, &ack);
        if (rc == 0) {
            bop__peer_chunk_ack_encode(writer, &ack);
        }
        return rc;
    case 6:
        rc = bop__peer_offer_decode(payload, &offer);
        if (rc == 0) {
            bop__peer_offer_encode(writer, &offer);
        }
        return rc;
    case 7:
        rc = bop__peer_have_decode(payload, &have);
        if (rc == 0) {
            bop__peer_have_encode(writer, &have);
        }
        return rc;
    default:
        rc = bop__command_decode(payload, &command);
        if (rc == 0) {
            bop__command_encode(writer, &command);
        }
        return rc;
    }
}

static void try_decoder(uint8_t which, struct bop_slice payload)
{
    uint8_t *copy = malloc(payload.size > 0 ? payload.size : 1); /* Of its very size. */
    struct bop_writer writer;
    struct bop_buf buf;

    require(copy != NULL);
    if (payload.size > 0) {
        memcpy(copy, payload.data, payload.size);
    }
    payload.data = copy;
    bop_buf_init(&buf, NULL, 0);
    writer = bop_writer(&buf);
    if (again(which, payload, &writer) == 0) {
        require(writer.code == 0 && bop_slice_equal(bop_buf_slice(&buf), payload));
    }
    bop_buf_deinit(&buf);
    free(copy);
}

/* ---- The world of a replica ---- */

struct world {
    struct bop_fs_sim *disk;
    struct bop_clock clock;
    uint64_t now_us;
    struct bop_inline_executor executor;
    struct replica_transport transport;
    struct bop_buf output; /* To whichever peer. */
    struct replica_options options;
    struct replica *replica;
    uint64_t term; /* The highest that it had. */
    uint64_t commit;
    char boot[16];
    unsigned boots;
    unsigned restarts;
};

static uint64_t monotonic_us(struct bop_clock *self)
{
    return BOP_CONTAINER_OF(self, struct world, clock)->now_us;
}

static uint64_t wall_ms(struct bop_clock *self)
{
    return 1700000000000 + BOP_CONTAINER_OF(self, struct world, clock)->now_us / 1000;
}

static struct bop_buf *output(struct replica_transport *self, uint64_t peer)
{
    return &BOP_CONTAINER_OF(self, struct world, transport)->output;
}

/* What goes out is whole frames. */
static void flush(struct replica_transport *self, uint64_t peer)
{
    struct bop_buf *out = &BOP_CONTAINER_OF(self, struct world, transport)->output;
    struct bop_wire_frame frame;
    size_t used;

    while (out->size > 0) {
        require(bop_wire_parse(bop_buf_slice(out), 0, &frame, &used, NULL) == 0);
        bop_buf_consume(out, used);
    }
}

static void on_failed(void *user, int code, const char *message)
{
    require(code < 0 && message[0] != '\0');
}

static char store[] = "/dev/shm/fuzz_peer_XXXXXX"; /* In memory, or it is all that is waited for. */
static struct bop_buf snapshot;

static void remove_store(void)
{
    bop_buf_deinit(&snapshot);
    BOP_IGNORE(bop_kv_remove(store, NULL));
    rmdir(store);
}

static const struct bop_raft_configuration three = {
    .count = 3,
    .servers = {{.id = 1, .role = BOP_RAFT_VOTER, .address = "a:1"},
                {.id = 2, .role = BOP_RAFT_VOTER, .address = "b:2"},
                {.id = 3, .role = BOP_RAFT_VOTER, .address = "c:3"}}};

/* A snapshot as peers send it: of five entries, the last one of term 2. */
static void make_snapshot(void)
{
    struct machine_options options = {
        .path = store, .bytes_max = STORE_SIZE, .grow_step_bytes = 64 * 1024};
    struct bop_raft_entry entry = {.term = 1, .type = BOP_RAFT_CHANGE};
    struct bop_fs_sim_options disk_options = {.seed = 1};
    struct bop_fs_sim *disk;
    struct machine_result result;
    struct machine_view *view;
    struct snapshot_info info;
    struct machine *machine;
    struct bop_buf conf, results;

    bop_buf_init(&conf, NULL, 0);
    bop_buf_init(&results, NULL, 0);
    require(bop_raft_configuration_encode(&three, &conf) == 0);
    require(bop__machine_open(&options, &machine, NULL) == 0);
    require(bop__machine_begin(machine) == 0);
    for (uint64_t index = 1; index <= 5; index++) {
        entry.data = index == 1 ? bop_buf_slice(&conf) : bop_slice(NULL, 0);
        require(bop__machine_apply(machine, index, &entry, &results, &result) == 0);
        entry.type = BOP_RAFT_BARRIER;
        entry.term = 2;
    }
    require(bop__machine_commit(machine) == 0);
    require(bop__machine_view_open(machine, &view) == 0);
    require(bop_fs_sim_create(&disk_options, &disk) == 0);
    require(bop__snapshot_write(bop_allocator_default(), bop_fs_sim_fs(disk), "/s", view,
                                bop_buf_slice(&conf), &info, NULL) == 0);
    bop_buf_init(&snapshot, NULL, 0);
    require(bop_fs_read_file(bop_fs_sim_fs(disk), "/s", 1 << 20, &snapshot) == 0);
    bop__machine_view_close(view);
    bop__machine_close(machine);
    bop_fs_sim_destroy(disk);
    bop_buf_deinit(&conf);
    bop_buf_deinit(&results);
}

static void world_open(struct world *world)
{
    struct bop_error err = {0};
    int rc;

    world->options.seed++;
    rc = bop__replica_open(&world->options, &world->replica, &err);
    if (rc < 0 || world->replica->failed != 0) {
        fprintf(stderr, "open: %s\n", rc < 0 ? err.message : world->replica->failure);
    }
    require(rc == 0 && world->replica->failed == 0);
    require(world->replica->status.term >= world->term);
    world->commit = 0;
    bop__replica_peer_connected(world->replica, 2);
    bop__replica_peer_connected(world->replica, 3);
}

static void world_close(struct world *world)
{
    bop_inline_poll(&world->executor);
    require(!bop__replica_busy(world->replica));
    bop__replica_close(world->replica);
    world->replica = NULL;
}

static void world_init(struct world *world)
{
    struct bop_fs_sim_options disk_options = {.seed = 1};

    memset(world, 0, sizeof(*world));
    require(bop_fs_sim_create(&disk_options, &world->disk) == 0);
    require(bop_kv_remove(store, NULL) == 0);
    world->clock = (struct bop_clock){.monotonic_us = monotonic_us, .wall_ms = wall_ms};
    world->now_us = 1000000;
    bop_inline_init(&world->executor);
    world->transport = (struct replica_transport){.output = output, .flush = flush};
    bop_buf_init(&world->output, NULL, 0);
    strcpy(world->boot, "0");
    world->options = (struct replica_options){
        .allocator = &heap,
        .fs = bop_fs_sim_fs(world->disk),
        .clock = &world->clock,
        .log_executor = &world->executor.executor,
        .work_executor = &world->executor.executor,
        .transport = &world->transport,
        .events = {.on_failed = on_failed},
        .path = "/data",
        .state_path = store,
        .boot_id = world->boot,
        .cluster = "c",
        .id = 1,
        .address = "a:1",
        .initial = &three,
        .snapshot_entries = 20,
        .trailing_entries = 4,
        .segment_bytes = 4096,
        .state_bytes_max = STORE_SIZE,
        .state_step_bytes = 64 * 1024,
    };
    world_open(world);
}

static void world_deinit(struct world *world)
{
    world_close(world);
    bop_fs_sim_destroy(world->disk);
    bop_buf_deinit(&world->output);
    require(heap_live == 0);
}

/* ---- What happens, by the fuzzer's choice ---- */

static void give(struct world *world, uint64_t peer, enum bop_wire_kind kind,
                 struct bop_slice payload)
{
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST, .kind = kind, .payload = payload};
    int rc = bop__replica_peer_frame(world->replica, peer, &frame);

    require(rc == 0 || rc == BOP_EMALFORMED || rc == BOP_EPROTOCOL || rc == BOP_EVERSION);
}

/* Small numbers meet each other; a few of them are large. */
static uint64_t read_number(struct bop_reader *input)
{
    uint8_t byte = bop_read_u8(input);

    return byte < 240 ? byte : byte == 255 ? UINT64_MAX : UINT64_C(1) << (4 * (byte - 240));
}

static void write_entry(struct bop_writer *writer, struct bop_reader *input)
{
    struct bop_raft_entry entry = {.term = read_number(input)};
    uint8_t what = bop_read_u8(input);
    struct bop_buf data;
    struct bop_writer inner = bop_writer(&data);

    bop_buf_init(&data, NULL, 0);
    entry.type = (enum bop_raft_entry_type)(1 + what % 3);
    if (what % 3 == 2) {
        struct bop_raft_configuration conf = three;

        conf.count = 1 + what / 3 % 3;
        conf.servers[what / 9 % 3].role = (enum bop_raft_role)(1 + what / 27 % 3);
        BOP_IGNORE(bop_raft_configuration_encode(&conf, &data));
    } else if (what % 3 == 0) {
        struct bop_operation operation = {
            .op = BOP_OP_COUNTER_ADD, .name = bop_slice_cstr("c"), .delta = 1};
        struct command command = {.kind = COMMAND_WRITE, .origin_node = 1 + what / 3 % 3};

        if (what & 128) {
            bop_write_raw(&inner, bop_read_raw(input, bop_min_u64(bop_reader_left(input), 16)));
        } else {
            bop__command_encode(&inner, &command);
            bop_operation_encode(&inner, &operation);
        }
    }
    entry.data = bop_buf_slice(&data);
    bop__peer_entry_encode(writer, &entry);
    bop_buf_deinit(&data);
}

static void give_message(struct world *world, uint64_t peer, struct bop_reader *input)
{
    struct bop_raft_message message = {.term = 0};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    message.type = (enum bop_raft_message_type)(1 + bop_read_u8(input) % 10);
    message.term = read_number(input);
    /* The first fields of each member lie alike; which of them are read says the encoder. */
    message.append.prev_index = read_number(input);
    message.append.prev_term = read_number(input);
    message.append.commit = read_number(input);
    switch (message.type) {
    case BOP_RAFT_APPEND:
        message.append.count = bop_read_u8(input) % 16;
        break;
    case BOP_RAFT_APPEND_RESULT:
        message.append_result.features = 0;
        message.append_result.capacity = 0;
        break;
    case BOP_RAFT_VOTE:
        message.vote.disrupt_leader = bop_read_u8(input) & 1;
        message.vote.pre_vote = bop_read_u8(input) & 1;
        break;
    case BOP_RAFT_VOTE_RESULT:
        memset(&message.vote_result, 0, sizeof(message.vote_result));
        message.vote_result.granted = bop_read_u8(input) & 1;
        message.vote_result.pre_vote = bop_read_u8(input) & 1;
        break;
    case BOP_RAFT_INSTALL:
        message.type = BOP_RAFT_TIMEOUT_NOW;
        break;
    default:
        break;
    }
    bop__peer_raft_encode(&writer, &message);
    for (unsigned n = 0; message.type == BOP_RAFT_APPEND && n < message.append.count; n++) {
        write_entry(&writer, input);
    }
    give(world, peer, BOP_WIRE_KIND_PEER_RAFT, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

static void give_chunk(struct world *world, uint64_t peer, struct bop_reader *input)
{
    size_t parts = 1 + bop_read_u8(input) % 3;
    size_t part = bop_read_u8(input) % parts;
    size_t from = snapshot.size * part / parts, to = snapshot.size * (part + 1) / parts;
    struct peer_chunk chunk = {.raft_term = read_number(input),
                               .index = read_number(input),
                               .term = read_number(input),
                               .size = snapshot.size,
                               .offset = from};
    uint8_t damage = bop_read_u8(input);
    uint8_t *copy = malloc(to - from);
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    require(copy != NULL);
    bop_buf_init(&buf, NULL, 0);
    memcpy(copy, snapshot.data + from, to - from);
    if (damage & 1) {
        copy[damage % (to - from)] ^= 1;
    }
    chunk.bytes = bop_slice(copy, to - from);
    bop__peer_chunk_encode(&writer, &chunk);
    give(world, peer, BOP_WIRE_KIND_PEER_SNAPSHOT_CHUNK, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
    free(copy);
}

static void give_raw(struct world *world, uint64_t peer, struct bop_reader *input)
{
    uint16_t kind = (uint16_t)(BOP_WIRE_KIND_PEER_HELLO +
                               bop_read_u8(input) %
                                   (BOP_WIRE_KIND_PEER_WATCH_DONE - BOP_WIRE_KIND_PEER_HELLO + 1));
    size_t size = bop_read_u8(input);
    struct bop_slice payload = bop_read_raw(input, bop_min_u64(size, bop_reader_left(input)));

    give(world, peer, (enum bop_wire_kind)kind, payload);
}

static void pass_time(struct world *world, uint64_t ms)
{
    world->now_us += ms * 1000;
    bop_inline_poll(&world->executor);
    bop__replica_turn(world->replica);
}

static void restart(struct world *world, uint8_t how)
{
    world->restarts++;
    if (how % 4 == 0) {
        world_close(world); /* In order. */
    } else {
        bop_fs_sim_stop_after(world->disk, 1 + how / 4);
        world->replica->failed = world->replica->failed ? world->replica->failed : BOP_ECANCELED;
        world_close(world);
        if (how % 4 == 1) {
            bop_fs_sim_kill_process(world->disk);
        } else {
            bop_fs_sim_lose_power(world->disk);
            snprintf(world->boot, sizeof(world->boot), "%u", ++world->boots);
        }
    }
    world_open(world);
}

static void step(struct world *world, struct bop_reader *input)
{
    uint8_t what = bop_read_u8(input);
    uint64_t peer = 2 + (what >> 7);

    switch (what % 8) {
    case 0:
    case 1:
    case 2:
        give_message(world, peer, input);
        break;
    case 3:
        give_chunk(world, peer, input);
        break;
    case 4:
        give_raw(world, peer, input);
        break;
    case 5:
    case 6:
        pass_time(world, bop_read_u8(input) * UINT64_C(4));
        break;
    default:
        if (what & 8) {
            restart(world, bop_read_u8(input));
        } else if (what & 16) {
            bop__replica_peer_lost(world->replica, peer);
        } else {
            bop__replica_peer_connected(world->replica, peer);
        }
    }
}

static void check(struct world *world)
{
    const struct bop_raft_status *status = &world->replica->status;

    if (world->replica->failed != 0) {
        restart(world, 1);
        return;
    }
    require(status->term >= world->term);
    require(status->commit >= world->commit);
    world->term = world->replica->votes.term;
    world->commit = status->commit;
}

static void live(struct bop_reader input)
{
    struct world world;

    world_init(&world);
    for (unsigned n = 0;
         n < STEPS_MAX && world.restarts < RESTARTS_MAX && bop_reader_left(&input) > 0; n++) {
        step(&world, &input);
        check(&world);
    }
    pass_time(&world, 1);
    world_deinit(&world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;

    if (!made) {
        require(mkdtemp(store) != NULL);
        atexit(remove_store);
        make_snapshot();
        made = true;
    }
    if (size == 0) {
        return 0;
    }
    if (data[0] & 1) {
        live(bop_reader(bop_slice(data + 1, size - 1)));
    } else {
        try_decoder(data[0] >> 1, bop_slice(data + 1, size - 1));
    }
    return 0;
}
