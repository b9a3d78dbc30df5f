#include <bop/crc32c.h>
#include <bop/sim.h>

#include "cut_log.h"
#include "machine_record.h"
#include "replica_help.h"

struct fixture {
    struct world w;
};

static void setup(struct fixture *f)
{
    world_init(&f->w);
}

static void teardown(struct fixture *f)
{
    world_deinit(&f->w);
}

FIXTURE(setup, teardown)

/* Open and lead. */
static void start(struct world *w)
{
    if (world_open(w) < 0) {
        test_note("%s", w->err.message);
        REQUIRE_EQ(w->err.code, 0);
    }
    REQUIRE(world_settle(w));
}

/* A snapshot of what is applied now, taken and durable. */
static void take_snapshot(struct world *w)
{
    uint64_t before = w->replica->snapshot.raft.index;

    w->replica->options.snapshot_entries = 1;
    world_run(w, 2);
    w->replica->options.snapshot_entries = 1000000;
    world_run(w, 2);
    REQUIRE(w->replica->snapshot.raft.index > before);
}

/* ---- Whether all nodes hold the same ---- */

/* A peer says what it holds: ours, or something else. */
static void tell_digest(struct world *w, uint64_t peer, uint64_t index, uint64_t digest)
{
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST, .kind = BOP_WIRE_KIND_PEER_DIGEST};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop_write_u64(&writer, index);
    bop_write_u32(&writer, MACHINE_FORMAT);
    bop_write_u64(&writer, digest);
    frame.payload = bop_buf_slice(&buf);
    CHECK_EQ(bop__replica_peer_frame(w->replica, peer, &frame), 0);
    frame.payload.size--;
    if (w->replica->failed == 0) {
        CHECK_EQ(bop__replica_peer_frame(w->replica, peer, &frame), BOP_EMALFORMED);
    }
    bop_buf_deinit(&buf);
}

TEST(replica, whose_state_a_majority_has_not_stops)
{
    struct world *w = &f->w;
    uint64_t index, digest;

    start(w);
    world_added(w, 5);
    for (uint64_t id = 2; id <= 3; id++) {
        bop__replica_peer_connected(w->replica, id);
    }
    w->replica->conf.count = 3; /* As if these were its servers. */
    tell_digest(w, 2, w->replica->applied, 77);
    take_snapshot(w);
    index = w->replica->snapshot.raft.index;
    digest = w->replica->snapshot.digest;
    CHECK(digest != 0);
    tell_digest(w, 2, index, digest);
    tell_digest(w, 3, index, digest);
    CHECK_EQ(w->replica->failed, 0);
    tell_digest(w, 2, index + 100, digest + 1); /* Of another entry. */
    CHECK_EQ(w->replica->failed, 0);
    world_added(w, 5);
    take_snapshot(w);
    index = w->replica->snapshot.raft.index;
    tell_digest(w, 2, index, 78);
    CHECK_EQ(w->replica->failed, 0); /* One against one. */
    tell_digest(w, 3, index, 78);
    CHECK_EQ(w->replica->failed, BOP_ECORRUPT);
    CHECK_STR_HAS(w->replica->failure, "bop cluster replace");
    world_run(w, 1);
    CHECK_EQ(w->failed, BOP_ECORRUPT);
    w->failed = 0;
}

/* Snapshots are taken at entries that other nodes take theirs at too, whatever a turn applies. */
TEST(replica, takes_snapshots_at_multiples)
{
    struct world *w = &f->w;
    struct world_write writes[25];

    start(w);
    w->replica->options.snapshot_entries = 10;
    for (size_t n = 0; n < BOP_COUNT_OF(writes); n++) {
        REQUIRE_EQ(world_add(w, &writes[n], 1), BOP_STATUS_OK);
    }
    REQUIRE(world_settle(w));
    world_run(w, 5);
    CHECK_EQ(w->replica->snapshot.raft.index % 10, 0);
    CHECK(w->replica->snapshot.raft.index >= 10);
    CHECK_EQ(world_counter(w), 25);
}

/* Each copies the pages it changes: it stays open for a while, and for nobody who wants to look. */
TEST(replica, commits_once_in_a_while_or_when_somebody_looks)
{
    struct world *w = &f->w;

    start(w);
    world_run(w, SETTLE_MS);
    CHECK(!w->replica->batch.open);
    world_added(w, 1);
    CHECK(w->replica->batch.open);
    world_run(w, SETTLE_MS / 2);
    CHECK(w->replica->batch.open);
    CHECK_EQ(world_counter(w), 1); /* Who wants to look waits for nothing. */
    CHECK(!w->replica->batch.open);
    world_added(w, 1);
    CHECK(w->replica->batch.open);
    world_run(w, SETTLE_MS);
    CHECK(!w->replica->batch.open);
}

/* ---- Starting ---- */

TEST(replica, of_a_new_cluster_of_one_leads)
{
    struct bop_raft_status status;
    struct bop_slice address;

    start(&f->w);
    bop__replica_raft_status(f->w.replica, &status);
    CHECK_EQ(status.state, BOP_RAFT_LEADER);
    CHECK_EQ(bop__replica_leader(f->w.replica, &address), 1);
    CHECK_SLICE_EQ(address, bytes("host:1"));
    world_added(&f->w, 5);
    CHECK_EQ(world_counter(&f->w), 5);
}

TEST(replica, goes_on_where_it_was_closed)
{
    uint64_t term;

    start(&f->w);
    for (int n = 0; n < 20; n++) {
        world_added(&f->w, 1);
    }
    term = f->w.replica->status.term;
    world_close(&f->w);
    start(&f->w);
    CHECK_EQ(world_counter(&f->w), 20);
    CHECK(f->w.replica->status.term > term);
    CHECK_EQ(f->w.faulty.open_files > 0, true);
    world_close(&f->w);
    CHECK_EQ(f->w.faulty.open_files, 0);
}

/* Killed over and over, with the power lost half of the times: nothing that was answered is lost.
 */
TEST(replica, keeps_what_it_answered)
{
    int64_t sum = 0;
    char boot[32];

    f->w.options.boot_id = boot;
    snprintf(boot, sizeof(boot), "boot-0");
    for (int life = 1; life <= 20; life++) {
        start(&f->w);
        CHECK_EQ(world_counter(&f->w), sum);
        for (int n = 0; n < 5; n++, sum++) {
            world_added(&f->w, 1);
        }
        if (life % 5 == 0) {
            take_snapshot(&f->w);
        }
        world_kill(&f->w);
        if (life % 2 == 0) {
            bop_fs_sim_lose_power(f->w.disk);
            snprintf(boot, sizeof(boot), "boot-%d", life);
        }
    }
}

TEST(replica, starts_from_a_snapshot_and_the_log)
{
    uint64_t snapshot, applied;

    f->w.options.segment_bytes = 4096;
    start(&f->w);
    for (int n = 0; n < 100; n++) {
        world_added(&f->w, 1);
    }
    take_snapshot(&f->w);
    snapshot = f->w.replica->snapshot.raft.index;
    CHECK(bop_aof_first(f->w.replica->aof) > 1); /* The log below it went. */
    for (int n = 0; n < 10; n++) {
        world_added(&f->w, 1);
    }
    applied = f->w.replica->applied;
    world_kill(&f->w);
    f->w.options.boot_id = "boot-2"; /* The state is not to be trusted. */
    REQUIRE_EQ(world_open(&f->w), 0);
    CHECK_EQ(f->w.replica->applied,
             snapshot); /* Made from the snapshot, the log not applied yet. */
    REQUIRE(world_settle(&f->w));
    CHECK(f->w.replica->applied > applied);
    CHECK_EQ(world_counter(&f->w), 110);
}

TEST(replica, trusts_the_state_only_within_its_boot)
{
    uint64_t applied;

    start(&f->w);
    for (int n = 0; n < 10; n++) {
        world_added(&f->w, 1);
    }
    applied = f->w.replica->applied;
    world_run(&f->w, SETTLE_MS + 1);
    world_kill(&f->w);
    REQUIRE_EQ(world_open(&f->w), 0);
    CHECK_EQ(f->w.replica->applied, applied); /* The same boot: as it was left. */
    world_kill(&f->w);
    f->w.options.boot_id = "boot-2";
    REQUIRE_EQ(world_open(&f->w), 0);
    CHECK_EQ(f->w.replica->applied, 0); /* Another one: from the log. */
    REQUIRE(world_settle(&f->w));
    CHECK_EQ(world_counter(&f->w), 10);
    world_close(&f->w);
    f->w.options.boot_id = "boot-3";
    REQUIRE_EQ(world_open(&f->w), 0);
    CHECK(f->w.replica->applied > applied); /* Closed in order: it was synced. */
}

/* When it is elected, all that the log holds is still to be applied. */
TEST(replica, counts_time_on_from_the_log_and_not_from_the_wall)
{
    uint64_t before, after;

    start(&f->w);
    world_added(&f->w, 1);
    before = bop__machine_position(f->w.replica->machine).time_ms;
    CHECK(before >= WORLD_WALL);
    world_kill(&f->w);
    f->w.options.boot_id = "boot-2";
    f->w.wall_ahead_ms = 3600 * 1000;
    REQUIRE_EQ(world_open(&f->w), 0);
    CHECK_EQ(f->w.replica->applied, 0);
    REQUIRE(world_settle(&f->w));
    world_added(&f->w, 1);
    after = bop__machine_position(f->w.replica->machine).time_ms;
    CHECK(after >= before);
    CHECK(after < before + 60 * 1000);
}

static uint8_t put_value(struct world *w, struct world_write *write, unsigned number,
                         struct bop_slice value)
{
    char key[16];
    struct bop_operation operation = {.op = BOP_OP_MAP_PUT, .name = bytes("m"), .value = value};
    struct command command = {.kind = COMMAND_WRITE};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);
    uint8_t status;

    operation.key = bop_slice(key, (size_t)snprintf(key, sizeof(key), "%u", number));
    bop_buf_init(&buf, NULL, 0);
    bop_operation_encode(&writer, &operation);
    command.operation = bop_buf_slice(&buf);
    *write = (struct world_write){.write = {.done = world_write_done}};
    status = bop__replica_write(w->replica, &write->write, &command);
    bop_buf_deinit(&buf);
    return status;
}

/* What was answered before is in the state, though it was undone with what found no room. */
TEST(replica, keeps_what_was_applied_when_there_is_no_room_for_more)
{
    static uint8_t value[2 << 20];
    static struct world_write puts[16];
    unsigned put = 0;

    start(&f->w);
    world_added(&f->w, 1);
    for (; !f->w.replica->state_full; put++) {
        REQUIRE(put < BOP_COUNT_OF(puts));
        world_added(&f->w, 1);
        REQUIRE_EQ(put_value(&f->w, &puts[put], put, bop_slice(value, sizeof(value))),
                   BOP_STATUS_OK);
        for (unsigned n = 0; n < 10 && puts[put].answers == 0; n++) {
            world_turn(&f->w); /* The clock stands still: all this is one batch. */
        }
    }
    CHECK_EQ(puts[put - 1].answers, 0);
    CHECK_EQ(world_counter(&f->w), put + 1);
    world_run(&f->w, 2 * APPLY_RETRY_MS);
    CHECK(f->w.replica->state_full);
    CHECK_EQ(world_counter(&f->w), put + 1);
    world_close(&f->w);
    f->w.options.state_bytes_max = 64 << 20;
    start(&f->w);
    CHECK(!f->w.replica->state_full);
    CHECK_EQ(world_counter(&f->w), put + 1);
}

/* The disk is full to the last byte before anybody looked: nothing ends, what was taken waits, and
 * all goes on when there is room. */
TEST(replica, whose_disk_is_full_goes_on_when_there_is_room)
{
    static uint8_t value[100 * 1024]; /* More than a segment of the log. */
    struct bop_fs *fs = bop_fs_sim_fs(f->w.disk);
    struct world_write puts[2];
    uint64_t free_bytes;

    start(&f->w);
    world_added(&f->w, 1);
    bop_fs_sim_set_capacity(f->w.disk, UINT64_C(1) << 40);
    REQUIRE_EQ(fs->free_bytes(fs, "/", &free_bytes), 0);
    bop_fs_sim_set_capacity(f->w.disk, (UINT64_C(1) << 40) - free_bytes);
    REQUIRE_EQ(put_value(&f->w, &puts[0], 0, bop_slice(value, sizeof(value))), BOP_STATUS_OK);
    world_run(&f->w, 10 * HOUSEKEEPING_MS);
    CHECK_EQ(bop__replica_failed(f->w.replica), 0);
    CHECK_EQ(puts[0].answers, 0);
    CHECK_EQ(put_value(&f->w, &puts[1], 1, bytes("v")), BOP_STATUS_NO_ROOM);
    CHECK_EQ(world_counter(&f->w), 1); /* Reads go on. */
    bop_fs_sim_set_capacity(f->w.disk, 0);
    world_run(&f->w, 3 * HOUSEKEEPING_MS);
    CHECK_EQ(puts[0].answers, 1);
    CHECK_EQ(puts[0].status, BOP_STATUS_OK);
    CHECK_EQ(bop_aof_durable(f->w.replica->aof), bop_aof_last(f->w.replica->aof));
    world_added(&f->w, 1);
}

/* True if the directory's mark says that the state may be trusted in this boot. */
static bool is_trusted(struct world *w, const char *boot)
{
    struct data_dir dir;
    bool whole;

    REQUIRE_EQ(bop__data_dir_open(&dir, w->options.fs, WORLD_DATA, 1, "blue", boot, NULL), 0);
    whole = dir.state_whole;
    bop__data_dir_close(&dir, w->options.fs);
    return whole;
}

static uint64_t state_position(struct world *w)
{
    struct machine_options options = {.path = w->options.state_path};
    struct machine *machine;
    uint64_t index;

    REQUIRE_EQ(bop__machine_open(&options, &machine, NULL), 0);
    index = bop__machine_position(machine).index;
    bop__machine_close(machine);
    return index;
}

/* A process that dies while it replaces a state that is not trusted leaves the old one,
 * or half of the new one. The boot goes on, and so does the distrust. */
TEST(replica, killed_while_it_makes_the_state_anew_makes_it_again)
{
    char boot[32];
    bool opened = false;

    f->w.options.boot_id = boot;
    snprintf(boot, sizeof(boot), "boot-0");
    start(&f->w);
    world_added(&f->w, 1);
    for (int n = 1; !opened; n++) {
        world_kill(&f->w);
        snprintf(boot, sizeof(boot), "boot-%d", n);
        bop_fs_sim_stop_after(f->w.disk, (uint64_t)n);
        opened = world_open(&f->w) == 0 && f->w.replica->failed == 0;
        world_kill(&f->w);
        CHECK(!is_trusted(&f->w, boot) || state_position(&f->w) == 0); /* Made of no snapshot. */
        start(&f->w);
        CHECK_EQ(world_counter(&f->w), 1);
    }
}

/* ---- Refusals ---- */

TEST(replica, refuses_the_directory_of_another_node)
{
    start(&f->w);
    world_close(&f->w);
    f->w.options.id = 2;
    CHECK_EQ(world_open(&f->w), BOP_EMISMATCH);
    CHECK_STR_HAS(f->w.err.message, "belongs to node 1");
    f->w.options.id = 1;
    f->w.options.cluster = "red";
    CHECK_EQ(world_open(&f->w), BOP_EMISMATCH);
    CHECK_STR_HAS(f->w.err.message, "belongs to cluster \"blue\"");
    CHECK_EQ(f->w.faulty.open_files, 0);
}

TEST(replica, refuses_to_start_without_its_vote)
{
    start(&f->w);
    world_close(&f->w);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.disk, WORLD_DATA "/vote", 100), 0);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.disk, WORLD_DATA "/vote", 4096 * 8 + 100), 0);
    CHECK_EQ(world_open(&f->w), BOP_ECORRUPT);
    CHECK_STR_HAS(f->w.err.message, "/vote");
}

static int find_segment(void *user, const char *name)
{
    size_t size = strlen(name);

    if (size > 10) {
        snprintf(user, 256, "%s/log/%s", WORLD_DATA, name);
    }
    return 0;
}

/* Entries that were acknowledged may be lost: a node must not go on as if they never were. */
TEST(replica, refuses_a_damaged_log)
{
    char path[256] = "";

    start(&f->w);
    for (int n = 0; n < 10; n++) {
        world_added(&f->w, 1);
    }
    world_close(&f->w);
    REQUIRE_EQ(f->w.options.fs->list(f->w.options.fs, WORLD_DATA "/log", find_segment, path), 0);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.disk, path, (uint64_t)(4096 + 100) * 8), 0);
    CHECK_EQ(world_open(&f->w), BOP_ECORRUPT);
    CHECK_STR_HAS(f->w.err.message, path);
    CHECK_EQ(f->w.faulty.open_files, 0);
}

static int count_visit(void *user, const char *name)
{
    ++*(unsigned *)user;
    return 0;
}

/* Names in the directory of snapshots. */
static unsigned snapshot_files(struct world *w)
{
    unsigned count = 0;

    CHECK_EQ(w->options.fs->list(w->options.fs, WORLD_DATA "/snapshots", count_visit, &count), 0);
    return count;
}

/* Who stops a node does not wait for a snapshot that is being written. */
TEST(replica, gives_up_a_snapshot_when_it_is_to_stop)
{
    struct world *w = &f->w;

    start(w);
    world_added(w, 1);
    w->replica->options.snapshot_entries = 1;
    bop__replica_turn(w->replica);
    REQUIRE(bop__replica_busy(w->replica));
    bop__replica_stop(w->replica);
    bop_inline_poll(&w->work_executor);
    CHECK(!bop__replica_busy(w->replica));
    CHECK_EQ(w->replica->snapshot.raft.index, 0);
    CHECK_EQ(snapshot_files(w), 0);
    CHECK_EQ(w->failed, 0);
    world_close(w);
    start(w);
    CHECK_EQ(world_counter(w), 1);
    take_snapshot(w);
    CHECK_EQ(snapshot_files(w), 1);
}

/* Of a process that died while it wrote one. */
TEST(replica, removes_an_unfinished_snapshot)
{
    static const char path[] = WORLD_DATA "/snapshots/0000000000000005-0000000000000001.snap.tmp";
    struct world *w = &f->w;
    int fd;

    start(w);
    world_added(w, 1);
    take_snapshot(w);
    world_close(w);
    fd = w->options.fs->open(w->options.fs, path, O_RDWR | O_CREAT);
    REQUIRE(fd >= 0);
    CHECK_EQ(w->options.fs->close(w->options.fs, fd), 0);
    start(w);
    CHECK_EQ(snapshot_files(w), 1);
    CHECK_EQ(world_counter(w), 1);
}

/* A snapshot that is damaged is passed over as long as log and state do without it. */
TEST(replica, passes_over_a_damaged_snapshot)
{
    char path[256];

    start(&f->w);
    world_added(&f->w, 1);
    take_snapshot(&f->w);
    snprintf(path, sizeof(path), "%s/snapshots/%016" PRIx64 "-%016" PRIx64 ".snap", WORLD_DATA,
             f->w.replica->snapshot.raft.index, f->w.replica->snapshot.raft.term);
    world_close(&f->w);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.disk, path, 300), 0);
    start(&f->w);
    CHECK_EQ(f->w.replica->snapshot.raft.index, 0);
    CHECK_EQ(world_counter(&f->w), 1);
}

/* ---- A snapshot whose content a start did not read ---- */

static void snapshot_file(const struct world *w, char path[256])
{
    snprintf(path, 256, "%s/" SNAPSHOT_NAME, WORLD_DATA, w->replica->snapshot.raft.index,
             w->replica->snapshot.raft.term);
}

/* A node with a snapshot of all that it applied. Returns its index. */
static uint64_t start_and_take(struct world *w, char out_path[256])
{
    start(w);
    world_added(w, 1);
    take_snapshot(w);
    snapshot_file(w, out_path);
    return w->replica->snapshot.raft.index;
}

/* Start with a state that is whole, and a snapshot of some length. Returns its index. */
static uint64_t start_with_snapshot(struct world *w, bool damaged, const char *boot)
{
    char path[256];
    uint64_t index = start_and_take(w, path);

    CHECK(bop__replica_verify_passed(w->replica)); /* What we wrote ourselves is whole. */
    world_close(w);
    if (damaged) {
        REQUIRE_EQ(bop_fs_sim_flip_bit(w->disk, path, (uint64_t)200 * 8), 0); /* In a record. */
    }
    w->options.boot_id = boot;
    REQUIRE_EQ(world_open(w), 0);
    return index;
}

TEST(replica, reads_its_snapshot_through_while_it_serves)
{
    uint64_t index = start_with_snapshot(&f->w, false, "boot-1");

    CHECK_EQ(f->w.replica->snapshot.raft.index, index);
    CHECK(f->w.replica->snapshot.entries > 0);
    CHECK(!bop__replica_verify_passed(f->w.replica));
    REQUIRE(world_settle(&f->w));
    world_run(&f->w, 5);
    CHECK(bop__replica_verify_passed(f->w.replica));
    CHECK(!bop__replica_verify_failed(f->w.replica));
    CHECK_EQ(f->w.replica->snapshot.raft.index, index);
    CHECK_EQ(world_counter(&f->w), 1);
}

/* One that is newer by then makes the check needless. */
TEST(replica, reads_through_no_snapshot_that_is_replaced)
{
    uint64_t index = start_with_snapshot(&f->w, true, "boot-1");

    f->w.replica->verify.again_ms = UINT64_MAX; /* So late that it is replaced before. */
    REQUIRE(world_settle(&f->w));
    world_added(&f->w, 1);
    CHECK(!bop__replica_verify_passed(f->w.replica));
    take_snapshot(&f->w);
    CHECK(f->w.replica->snapshot.raft.index > index);
    CHECK(bop__replica_verify_passed(f->w.replica));
    world_run(&f->w, 2);
    CHECK_EQ(f->w.replica->verify.phase, VERIFY_IDLE);
}

TEST(replica, takes_another_snapshot_for_one_that_is_damaged)
{
    uint64_t index = start_with_snapshot(&f->w, true, "boot-1");

    CHECK_EQ(f->w.replica->snapshot.raft.index, index);
    REQUIRE(world_settle(&f->w)); /* The new term's first entry is behind it. */
    world_run(&f->w, 5);
    CHECK(f->w.replica->snapshot.raft.index > index);
    CHECK(bop__replica_verify_passed(f->w.replica));
    index = f->w.replica->snapshot.raft.index;
    world_kill(&f->w);
    f->w.options.boot_id = "boot-2"; /* The new one is loaded. */
    REQUIRE_EQ(world_open(&f->w), 0);
    CHECK_EQ(f->w.replica->snapshot.raft.index, index);
    CHECK(bop__replica_verify_passed(f->w.replica));
    REQUIRE(world_settle(&f->w));
    CHECK_EQ(world_counter(&f->w), 1);
}

/* ... though nothing was applied since. */
TEST(replica, takes_the_snapshot_again_that_is_damaged)
{
    struct world *w = &f->w;
    struct snapshot_info info;
    char path[256];
    uint64_t index = start_and_take(w, path);

    REQUIRE_EQ(index, w->replica->applied);
    REQUIRE_EQ(bop_fs_sim_flip_bit(w->disk, path, (uint64_t)200 * 8), 0);
    bop__replica_verify_begin(w->replica);
    world_run(w, 10);
    CHECK(bop__replica_verify_passed(w->replica));
    CHECK_EQ(w->replica->snapshot.raft.index, index);
    CHECK_EQ(bop__snapshot_check(NULL, w->options.fs, path, &info, NULL), 0);
    CHECK_EQ(info.raft.index, index);
}

/* Where the state has to be made from it, it is read first. */
TEST(replica, loads_no_snapshot_that_is_damaged)
{
    char boot[] = "boot-2";

    start_with_snapshot(&f->w, false, "boot-1");
    world_kill(&f->w);
    f->w.options.boot_id = boot;
    REQUIRE_EQ(world_open(&f->w), 0);
    CHECK(f->w.replica->snapshot.raft.index > 0);
    CHECK(bop__replica_verify_passed(f->w.replica));
    world_kill(&f->w);
    boot[5] = '3';
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE(world_settle(&f->w));
    take_snapshot(&f->w);
    {
        char path[256];

        snapshot_file(&f->w, path);
        world_kill(&f->w);
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->w.disk, path, (uint64_t)200 * 8), 0);
    }
    boot[5] = '4';
    REQUIRE_EQ(world_open(&f->w), 0);
    CHECK_EQ(f->w.replica->snapshot.raft.index, 0); /* The log has it all. */
    REQUIRE(world_settle(&f->w));
    CHECK_EQ(world_counter(&f->w), 1);
}

TEST(replica, sends_no_snapshot_before_it_is_read_through)
{
    struct world *w = &f->w;
    struct bop_raft_message message = {.type = BOP_RAFT_INSTALL, .peer = 2};
    struct replica_peer *peer;

    start_with_snapshot(w, false, "boot-1");
    bop__replica_peer_connected(w->replica, 2);
    peer = bop__replica_peer(w->replica, 2);
    REQUIRE(peer);
    message.term = w->replica->status.term;
    bop__replica_snapshot_send(w->replica, &message);
    CHECK(!peer->send.active);
    REQUIRE(world_settle(w));
    world_run(w, 5);
    bop__replica_snapshot_send(w->replica, &message);
    CHECK(peer->send.active);
}

/* It loads one just now, or has no room: consensus, which asks with each heartbeat, is told to
 * wait. */
TEST(replica, offers_no_snapshot_again_at_once)
{
    struct world *w = &f->w;
    struct bop_raft_message message = {.type = BOP_RAFT_INSTALL, .peer = 2};
    struct peer_chunk_ack refused = {.offset = UINT64_MAX};
    struct replica_peer *peer;

    start_with_snapshot(w, true, "boot-1");
    REQUIRE(world_settle(w));
    world_run(w, 5);
    bop__replica_peer_connected(w->replica, 2);
    peer = bop__replica_peer(w->replica, 2);
    REQUIRE(peer);
    message.term = w->replica->status.term;
    for (unsigned n = 0; n < 2; n++) {
        bop__replica_snapshot_send(w->replica, &message);
        REQUIRE(peer->send.active);
        refused.index = peer->send.index;
        bop__replica_snapshot_ack(w->replica, peer, &refused);
        CHECK(!peer->send.active);
        bop__replica_snapshot_send(w->replica, &message);
        CHECK(!peer->send.active);
        if (n == 0) {
            world_run(w, SEND_AGAIN_MS);
        }
    }
    bop__replica_peer_lost(w->replica, 2); /* Whoever comes is asked. */
    bop__replica_peer_connected(w->replica, 2);
    bop__replica_snapshot_send(w->replica, &message);
    CHECK(peer->send.active);
}

/* All of the newest snapshot is there, as it says. */
static void deliver_snapshot(struct world *w, struct replica_peer *peer)
{
    struct bop_raft_message message = {
        .type = BOP_RAFT_INSTALL, .peer = peer->id, .term = w->replica->status.term};
    struct peer_have have = {.index = w->replica->snapshot.raft.index,
                             .term = w->replica->snapshot.raft.term};
    struct peer_chunk_ack ack = {.index = have.index, .offset = w->replica->snapshot.bytes};

    bop__replica_snapshot_send(w->replica, &message);
    REQUIRE(peer->send.active);
    bop__replica_snapshot_have(w->replica, peer, &have);
    REQUIRE_EQ(peer->send.sent, ack.offset);
    bop__replica_snapshot_ack(w->replica, peer, &ack);
    CHECK(!peer->send.active);
}

static void fill_segments(struct world *w)
{
    for (int n = 0; n < 100; n++) {
        world_added(w, 1);
    }
    take_snapshot(w);
}

/* While it loads that, the log must not go on without it. */
TEST(replica, keeps_what_follows_a_snapshot_that_it_sent)
{
    struct world *w = &f->w;
    struct replica_peer *peer;
    uint64_t sent;

    w->options.segment_bytes = 4096;
    start(w);
    fill_segments(w);
    w->replica->options.trailing_entries = 1;
    w->connected_peer = 2;
    bop__replica_peer_connected(w->replica, 2);
    peer = bop__replica_peer(w->replica, 2);
    REQUIRE(peer);
    deliver_snapshot(w, peer);
    sent = w->replica->snapshot.raft.index;
    for (unsigned n = 0; n < 2; n++) {
        fill_segments(w);
        CHECK(w->replica->snapshot.raft.index > sent);
        CHECK(bop_aof_first(w->replica->aof) <= sent);
    }
    w->now_us += (uint64_t)CATCH_UP_MS * 1000; /* But not for ever. */
    world_run(w, 2);
    fill_segments(w);
    CHECK(bop_aof_first(w->replica->aof) > sent);
}

/* The name is what it is found and sent by. */
TEST(replica, passes_over_a_snapshot_with_a_wrong_name)
{
    char from[256], to[256];

    start(&f->w);
    world_added(&f->w, 1);
    take_snapshot(&f->w);
    snprintf(from, sizeof(from), "%s/snapshots/%016" PRIx64 "-%016" PRIx64 ".snap", WORLD_DATA,
             f->w.replica->snapshot.raft.index, f->w.replica->snapshot.raft.term);
    snprintf(to, sizeof(to), "%s/snapshots/%016x-%016x.snap", WORLD_DATA, 99, 2);
    world_close(&f->w);
    REQUIRE_EQ(f->w.options.fs->rename(f->w.options.fs, from, to), 0);
    f->w.options.boot_id = "boot-2";
    start(&f->w);
    CHECK_EQ(f->w.replica->snapshot.raft.index, 0);
    CHECK_EQ(world_counter(&f->w), 1);
}

TEST(replica, without_the_entries_before_its_log_says_how_to_fetch_them)
{
    char path[256];

    f->w.options.segment_bytes = 4096;
    start(&f->w);
    for (int n = 0; n < 100; n++) {
        world_added(&f->w, 1);
    }
    take_snapshot(&f->w);
    REQUIRE(bop_aof_first(f->w.replica->aof) > 1);
    snprintf(path, sizeof(path), "%s/snapshots/%016" PRIx64 "-%016" PRIx64 ".snap", WORLD_DATA,
             f->w.replica->snapshot.raft.index, f->w.replica->snapshot.raft.term);
    world_close(&f->w);
    f->w.options.boot_id = "boot-2";
    REQUIRE_EQ(f->w.options.fs->unlink(f->w.options.fs, path), 0);
    REQUIRE_EQ(f->w.options.fs->unlink(f->w.options.fs, WORLD_DATA "/boot"), 0);
    CHECK_EQ(world_open(&f->w), BOP_ECORRUPT);
    CHECK_STR_HAS(f->w.err.message, "--join");
}

/* ---- While it runs ---- */

/* What fails on disk is not gone on with: nothing is answered, and it is told once. */
TEST(replica, stops_when_its_log_fails)
{
    struct world_write write;

    start(&f->w);
    world_added(&f->w, 1);
    bop_fs_sim_fail_syncs(f->w.disk, 1);
    REQUIRE_EQ(world_add(&f->w, &write, 1), BOP_STATUS_OK);
    world_run(&f->w, 100);
    CHECK_EQ(f->w.failed, -EIO);
    CHECK_STR_HAS(f->w.failure, "log");
    CHECK_EQ(write.answers, 0);
    CHECK_EQ(bop__replica_failed(f->w.replica), -EIO);
    CHECK_EQ(bop__replica_deadline_ms(f->w.replica), UINT64_MAX);
    CHECK_EQ(world_add(&f->w, &write, 1), BOP_STATUS_RETRY);
    world_close(&f->w);
    start(&f->w);
    CHECK(world_counter(&f->w) == 1 || world_counter(&f->w) == 2);
}

TEST(replica, answers_all_that_waits_when_it_is_closed)
{
    struct world_write writes[3];

    start(&f->w);
    for (size_t n = 0; n < BOP_COUNT_OF(writes); n++) {
        REQUIRE_EQ(world_add(&f->w, &writes[n], 1), BOP_STATUS_OK);
    }
    bop__replica_turn(f->w.replica);
    world_close(&f->w);
    for (size_t n = 0; n < BOP_COUNT_OF(writes); n++) {
        CHECK_EQ(writes[n].answers, 1);
        CHECK_EQ(writes[n].status, BOP_STATUS_UNCERTAIN); /* They carry no session. */
    }
}

struct patient_read {
    struct replica_read read;
    unsigned answers;
};

static void patient_read_done(struct replica_read *read, int code, struct machine_view *view)
{
    CHECK_EQ(code, 0);
    CHECK(view != NULL);
    BOP_CONTAINER_OF(read, struct patient_read, read)->answers++;
}

static struct patient_read patient_read(bool patient)
{
    return (struct patient_read){.read = {.done = patient_read_done, .patient = patient}};
}

/* Those that nobody waits for are asked for together, at their time or with one that cannot wait.
 */
TEST(replica, lets_patient_reads_gather)
{
    struct patient_read first = patient_read(true), second = patient_read(true);
    struct patient_read third = patient_read(true), urgent = patient_read(false);
    struct world *w = &f->w;
    uint64_t context;

    start(w);
    world_turn(w);
    context = w->replica->read_context;
    bop__replica_read(w->replica, &first.read);
    CHECK(bop__replica_deadline_ms(w->replica) <= w->replica->now_ms + READ_GATHER_MS);
    world_run(w, READ_GATHER_MS - 2);
    bop__replica_read(w->replica, &second.read);
    CHECK_EQ(w->replica->read_context, context); /* Nothing was asked yet. */
    world_run(w, 2 * READ_GATHER_MS);
    CHECK_EQ(w->replica->read_context, context + 1);
    CHECK_EQ(first.answers, 1);
    CHECK_EQ(second.answers, 1);

    bop__replica_read(w->replica, &third.read);
    bop__replica_read(w->replica, &urgent.read);
    world_turn(w);
    world_turn(w);
    CHECK_EQ(w->replica->read_context, context + 2);
    CHECK_EQ(third.answers, 1);
    CHECK_EQ(urgent.answers, 1);
}

TEST(replica, gives_up_a_write_at_its_deadline)
{
    struct world_write write;

    start(&f->w);
    REQUIRE_EQ(world_add(&f->w, &write, 1), BOP_STATUS_OK);
    for (unsigned n = 0; n < WRITE_DEADLINE_MS + 2 * HOUSEKEEPING_MS; n++) {
        f->w.now_us += 1000;
        bop__replica_turn(f->w.replica); /* The disk does not answer. */
    }
    CHECK_EQ(write.answers, 1);
    CHECK_EQ(write.status, BOP_STATUS_UNCERTAIN);
    world_run(&f->w, 10);
    CHECK_EQ(write.answers, 1); /* Its entry was applied after all: nobody to tell. */
    CHECK_EQ(world_counter(&f->w), 1);
}

TEST(replica, takes_no_more_writes_than_it_can_remember)
{
    static struct world_write writes[PENDING_WRITES_MAX + 1];
    unsigned taken = 0;

    start(&f->w);
    while (taken < PENDING_WRITES_MAX && world_add(&f->w, &writes[taken], 1) == BOP_STATUS_OK) {
        taken++;
        if (taken % PROPOSALS_MAX == 0) {
            bop__replica_turn(f->w.replica);
        }
    }
    CHECK_EQ(taken, PENDING_WRITES_MAX);
    CHECK_EQ(world_add(&f->w, &writes[taken], 1), BOP_STATUS_BUSY);
    REQUIRE(world_settle(&f->w));
    for (unsigned n = 0; n < taken; n++) {
        CHECK_EQ(writes[n].answers, 1);
    }
    CHECK_EQ(world_counter(&f->w), PENDING_WRITES_MAX);
    world_added(&f->w, 1);
}

/* ---- What peers send: more of it in fuzz/fuzz_peer.c ---- */

static int give_chunk(struct world *w, const struct peer_chunk *chunk)
{
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST,
                                   .kind = BOP_WIRE_KIND_PEER_SNAPSHOT_CHUNK};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);
    int rc;

    bop_buf_init(&buf, NULL, 0);
    bop__peer_chunk_encode(&writer, chunk);
    frame.payload = bop_buf_slice(&buf);
    rc = bop__replica_peer_frame(w->replica, 2, &frame);
    bop_buf_deinit(&buf);
    return rc;
}

/* The offset in the acknowledgement that was sent. */
static uint64_t acknowledged(struct world *w)
{
    struct bop_wire_frame frame;
    struct peer_chunk_ack ack;
    size_t used;

    REQUIRE_EQ(bop_wire_parse(bop_buf_slice(&w->to_peer), 0, &frame, &used, NULL), 0);
    REQUIRE_EQ(frame.kind, BOP_WIRE_KIND_PEER_SNAPSHOT_ACK);
    REQUIRE_EQ(bop__peer_chunk_ack_decode(frame.payload, &ack), 0);
    bop_buf_consume(&w->to_peer, used);
    return ack.offset;
}

/* A follower in its first term. */
static void follow(struct world *w)
{
    world_add_server(w, 2);
    world_add_server(w, 3);
    w->connected_peer = 2;
    REQUIRE_EQ(world_open(w), 0);
    bop__replica_peer_connected(w->replica, 2);
}

TEST(replica, takes_the_chunks_of_a_snapshot_in_order)
{
    struct peer_chunk chunk = {
        .raft_term = 1, .index = 5, .term = 1, .size = 8, .bytes = bytes("abcd")};

    follow(&f->w);
    CHECK_EQ(give_chunk(&f->w, &chunk), 0);
    CHECK_EQ(acknowledged(&f->w), 4);
    CHECK_EQ(give_chunk(&f->w, &chunk), 0); /* From the beginning again. */
    CHECK_EQ(acknowledged(&f->w), 4);
    chunk.offset = 3;
    CHECK_EQ(give_chunk(&f->w, &chunk), 0);
    CHECK_EQ(f->w.to_peer.size, 0); /* Not the next one. */
    chunk.offset = 4;
    CHECK_EQ(give_chunk(&f->w, &chunk), 0);
    CHECK_EQ(acknowledged(&f->w), 8);
    world_run(&f->w, 5); /* It is no snapshot: dropped, and the node goes on. */
    CHECK_EQ(bop__replica_failed(f->w.replica), 0);
    CHECK(!bop__replica_busy(f->w.replica));
}

static int give_offer(struct world *w, const struct peer_offer *offer)
{
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST,
                                   .kind = BOP_WIRE_KIND_PEER_SNAPSHOT_OFFER};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);
    int rc;

    bop_buf_init(&buf, NULL, 0);
    bop__peer_offer_encode(&writer, offer);
    frame.payload = bop_buf_slice(&buf);
    rc = bop__replica_peer_frame(w->replica, 2, &frame);
    bop_buf_deinit(&buf);
    return rc;
}

static struct peer_have has(struct world *w)
{
    struct bop_wire_frame frame;
    struct peer_have have;
    size_t used;

    REQUIRE_EQ(bop_wire_parse(bop_buf_slice(&w->to_peer), 0, &frame, &used, NULL), 0);
    REQUIRE_EQ(frame.kind, BOP_WIRE_KIND_PEER_SNAPSHOT_HAVE);
    REQUIRE_EQ(bop__peer_have_decode(frame.payload, &have), 0);
    bop_buf_consume(&w->to_peer, used);
    return have;
}

/* What came of a snapshot is kept when the connection breaks, and told to whoever offers the same.
 */
TEST(replica, says_how_much_of_an_offered_snapshot_it_has)
{
    const struct peer_offer offer = {.raft_term = 1, .index = 5, .term = 1, .size = 8};
    struct peer_offer others[] = {offer, offer};
    struct peer_chunk chunk = {
        .raft_term = 1, .index = 5, .term = 1, .size = 8, .bytes = bytes("abcd")};
    struct peer_have have;

    follow(&f->w);
    CHECK_EQ(give_offer(&f->w, &offer), 0);
    have = has(&f->w);
    CHECK_EQ(have.index, 5);
    CHECK_EQ(have.term, 1);
    CHECK_EQ(have.offset, 0);
    CHECK_EQ(give_chunk(&f->w, &chunk), 0);
    CHECK_EQ(acknowledged(&f->w), 4);
    bop__replica_peer_lost(f->w.replica, 2);
    bop__replica_peer_connected(f->w.replica, 2);
    CHECK_EQ(give_offer(&f->w, &offer), 0);
    have = has(&f->w);
    CHECK_EQ(have.offset, 4);
    CHECK_EQ(have.crc, bop_crc32c(0, "abcd", 4));
    others[0].size = 9;
    others[1].index = 6;
    for (size_t n = 0; n < BOP_COUNT_OF(others); n++) {
        CHECK_EQ(give_offer(&f->w, &others[n]), 0);
        CHECK_EQ(has(&f->w).offset, 0);
    }
    chunk.offset = 4;
    CHECK_EQ(give_chunk(&f->w, &chunk), 0);
    CHECK_EQ(acknowledged(&f->w), 8);
    world_run(&f->w, 5); /* It is no snapshot: dropped whole, and not offered as a beginning. */
    CHECK_EQ(give_offer(&f->w, &offer), 0);
    CHECK_EQ(has(&f->w).offset, 0);
}

TEST(replica, receives_no_snapshot_that_the_disk_has_no_room_for)
{
    struct peer_chunk chunk = {.raft_term = 1, .index = 5, .term = 1, .bytes = bytes("abcd")};
    struct bop_fs *fs = bop_fs_sim_fs(f->w.disk);
    const uint64_t free_bytes = 2 * SNAPSHOT_ROOM_KEPT;
    uint64_t before, after;

    follow(&f->w);
    bop_fs_sim_set_capacity(f->w.disk, UINT64_C(1) << 40);
    REQUIRE_EQ(fs->free_bytes(fs, "/", &before), 0);
    bop_fs_sim_set_capacity(f->w.disk, (UINT64_C(1) << 40) - before + free_bytes);
    chunk.size = free_bytes - SNAPSHOT_ROOM_KEPT + 1;
    CHECK_EQ(give_chunk(&f->w, &chunk), 0);
    CHECK_EQ(acknowledged(&f->w), UINT64_MAX); /* Refused. */
    REQUIRE_EQ(fs->free_bytes(fs, "/", &after), 0);
    CHECK_EQ(after, free_bytes);
    chunk.size--;
    CHECK_EQ(give_chunk(&f->w, &chunk), 0);
    CHECK_EQ(acknowledged(&f->w), 4);
    CHECK_EQ(bop__replica_failed(f->w.replica), 0);
}

TEST(replica, refuses_offers_that_make_no_sense)
{
    const struct peer_offer good = {.raft_term = 1, .index = 5, .term = 1, .size = 8};
    struct peer_offer offers[] = {good, good, good, good, good};

    offers[0].size = 0;
    offers[1].size = SNAPSHOT_BYTES_MAX + 1;
    offers[2].index = 0;
    offers[3].index = UINT64_MAX;
    offers[4].term = 2;
    follow(&f->w);
    for (size_t n = 0; n < BOP_COUNT_OF(offers); n++) {
        CHECK_EQ(give_offer(&f->w, &offers[n]), BOP_EMALFORMED);
    }
    offers[4].raft_term = 2; /* Of a leader that this node has not heard of. */
    CHECK_EQ(give_offer(&f->w, &offers[4]), 0);
    CHECK_EQ(acknowledged(&f->w), UINT64_MAX);
}

/* Its own saved term would be older than the snapshot's, which no start accepts. */
TEST(replica, takes_no_snapshot_of_a_term_it_has_not_heard_of)
{
    struct peer_chunk chunk = {
        .raft_term = 2, .index = 5, .term = 2, .size = 8, .bytes = bytes("abcd")};

    follow(&f->w);
    CHECK_EQ(give_chunk(&f->w, &chunk), 0);
    CHECK_EQ(acknowledged(&f->w), UINT64_MAX);
    chunk.raft_term = 1; /* Nobody leads in a term below that of its log. */
    CHECK_EQ(give_chunk(&f->w, &chunk), BOP_EMALFORMED);
}

static void ask_for_vote(struct world *w)
{
    struct bop_raft_message message = {
        .type = BOP_RAFT_VOTE,
        .peer = 1,
        .term = 5,
        .vote = {.candidate = 2, .last_index = 1000, .last_term = 4, .disrupt_leader = true}};
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST, .kind = BOP_WIRE_KIND_PEER_RAFT};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop__peer_raft_encode(&writer, &message);
    frame.payload = bop_buf_slice(&buf);
    CHECK_EQ(bop__replica_peer_frame(w->replica, 2, &frame), 0);
    bop_buf_deinit(&buf);
}

/* Whoever asks may take it for the node whose place it is to take, which had one. */
TEST(replica, that_was_no_member_yet_has_no_vote)
{
    f->w.options.join = true;
    REQUIRE_EQ(world_open(&f->w), 0);
    ask_for_vote(&f->w);
    CHECK_EQ(f->w.replica->status.term, 0);
    CHECK_EQ(f->w.replica->votes.vote, 0);
    world_close(&f->w);
    f->w.options.join = false;
    f->w.options.path = "/member";
    start(&f->w);
    ask_for_vote(&f->w);
    CHECK_EQ(f->w.replica->votes.term, 5);
    CHECK_EQ(f->w.replica->votes.vote, 2);
}

static void give_append(struct world *w, const struct bop_raft_entry *entry, uint64_t prev,
                        uint64_t commit)
{
    struct bop_raft_message message = {.type = BOP_RAFT_APPEND,
                                       .peer = 1,
                                       .term = 1,
                                       .append = {.prev_index = prev,
                                                  .prev_term = prev == 0 ? 0 : 1,
                                                  .commit = commit,
                                                  .count = entry ? 1 : 0}};
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST, .kind = BOP_WIRE_KIND_PEER_RAFT};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop__peer_raft_encode(&writer, &message);
    if (entry) {
        bop__peer_entry_encode(&writer, entry);
    }
    frame.payload = bop_buf_slice(&buf);
    CHECK_EQ(bop__replica_peer_frame(w->replica, 2, &frame), 0);
    bop_buf_deinit(&buf);
}

/* Node 2 leads and is the cluster, and with the second entry this node is of it. */
static void make_changes(struct bop_buf bufs[2], struct bop_raft_entry entries[2])
{
    struct bop_raft_configuration conf = {
        .count = 1, .servers = {{.id = 2, .role = BOP_RAFT_VOTER, .address = "host:2"}}};

    for (unsigned n = 0; n < 2; n++) {
        bop_buf_init(&bufs[n], NULL, 0);
        REQUIRE_EQ(bop_raft_configuration_encode(&conf, &bufs[n]), 0);
        entries[n] = (struct bop_raft_entry){
            .term = 1, .type = BOP_RAFT_CHANGE, .data = bop_buf_slice(&bufs[n])};
        conf.servers[conf.count++] = (struct bop_raft_server){
            .id = 1, .role = BOP_RAFT_STANDBY, .address = "host:1"};
    }
}

/* A node that joins has the entry before its addition. */
static void join_with(struct fixture *f, const struct bop_raft_entry changes[2])
{
    f->w.options.join = true;
    REQUIRE_EQ(world_open(&f->w), 0);
    give_append(&f->w, &changes[0], 0, 1);
    world_run(&f->w, 5);
}

/* It dies, and comes back with the first entry only... */
static void forget_addition(struct fixture *f)
{
    world_kill(&f->w);
    REQUIRE_EQ(cut_log(f->w.options.fs, WORLD_DATA "/log", f->w.options.segment_bytes, 1), 0);
    REQUIRE_EQ(world_open(&f->w), 0);
}

/* ...and is told of the second one again, by which it is not ended. */
static void hear_of_addition(struct fixture *f, const struct bop_raft_entry changes[2])
{
    give_append(&f->w, NULL, 1, 1);
    world_run(&f->w, 2 * HOUSEKEEPING_MS);
    CHECK_EQ(f->w.failed, 0);
    give_append(&f->w, &changes[1], 1, 2);
    world_run(&f->w, 2 * HOUSEKEEPING_MS);
    CHECK_EQ(f->w.failed, 0);
}

/* Nothing that was committed and has yet to come again is a removal. */
TEST(replica, that_forgets_its_addition_with_the_power_was_not_removed)
{
    struct bop_raft_entry changes[2];
    struct bop_buf bufs[2];

    make_changes(bufs, changes);
    join_with(f, changes);
    REQUIRE_EQ(f->w.replica->durable, 1);
    give_append(&f->w, &changes[1], 1, 2);
    for (unsigned n = 0; n < 2; n++) { /* And its disk does nothing. */
        f->w.now_us += HOUSEKEEPING_MS * 1000;
        bop__replica_turn(f->w.replica);
    }
    REQUIRE_EQ(f->w.replica->status.commit, 2);
    REQUIRE_EQ(f->w.replica->durable, 1);
    CHECK(f->w.replica->members.belongs);
    CHECK_EQ(f->w.replica->members.file.state, MEMBER_NO);
    forget_addition(f);
    REQUIRE_EQ(bop_aof_last(f->w.replica->aof), 1);
    hear_of_addition(f, changes);
    CHECK_EQ(f->w.replica->members.file.state, MEMBER_YES);
    bop_buf_deinit(&bufs[0]);
    bop_buf_deinit(&bufs[1]);
}

/* Whom it helped to be elected might lack what was committed because this log had it. */
TEST(replica, whose_log_lost_its_tail_has_no_vote)
{
    struct bop_status_response status;
    uint64_t applied;

    start(&f->w);
    for (int n = 0; n < 10; n++) {
        world_added(&f->w, 1);
    }
    applied = f->w.replica->applied;
    world_run(&f->w, SETTLE_MS + 1);
    world_kill(&f->w);
    REQUIRE_EQ(cut_log(f->w.options.fs, WORLD_DATA "/log", f->w.options.segment_bytes, 4), 0);
    for (int round = 0; round < 2; round++) { /* The state tells, and then the file does. */
        REQUIRE_EQ(world_open(&f->w), 0);
        CHECK_EQ(f->w.replica->lost.index, applied);
        bop__replica_status(f->w.replica, &status);
        CHECK_STR_HAS((const char *)status.health.data, "the log lost entries");
        CHECK(f->w.replica->applied <= 4);
        ask_for_vote(&f->w);
        CHECK_EQ(f->w.replica->votes.vote, 1);
        CHECK(f->w.replica->votes.term < 5);
        world_kill(&f->w);
    }
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE(world_settle(&f->w)); /* There is nobody else to ask. */
    world_run(&f->w, 200);
    CHECK_EQ(f->w.replica->lost.index, 0);
    CHECK(!bop_fs_exists(f->w.options.fs, WORLD_DATA "/lost"));
    world_kill(&f->w);
    bop_fs_sim_lose_power(f->w.disk);
    REQUIRE_EQ(world_open(&f->w), 0);
    CHECK_EQ(f->w.replica->lost.index, 0); /* Nor does it come again. */
}

/* What was lost and comes again was outlived once, a removal from before the addition as well. */
TEST(replica, is_not_removed_by_what_its_log_lost)
{
    struct bop_raft_entry changes[2];
    struct bop_buf bufs[2];

    make_changes(bufs, changes);
    join_with(f, changes);
    give_append(&f->w, &changes[1], 1, 2);
    world_run(&f->w, SETTLE_MS + 2 * HOUSEKEEPING_MS);
    REQUIRE_EQ(f->w.replica->members.file.state, MEMBER_YES);
    forget_addition(f);
    REQUIRE_EQ(f->w.replica->lost.index, 2);
    hear_of_addition(f, changes);
    CHECK_EQ(f->w.replica->lost.index, 0);
    give_append(&f->w, &changes[0], 2, 3); /* And this one is new. */
    world_run(&f->w, 2 * HOUSEKEEPING_MS);
    CHECK_EQ(f->w.failed, BOP_EREMOVED);
    bop_buf_deinit(&bufs[0]);
    bop_buf_deinit(&bufs[1]);
}

TEST(replica, refuses_a_damaged_mark_of_loss)
{
    static const char *const texts[] = {"x\n", "12", "1 2\n", "99999999999999999999999\n"};

    start(&f->w);
    world_close(&f->w);
    for (size_t n = 0; n < BOP_COUNT_OF(texts); n++) {
        int rc = bop_fs_write_file(f->w.options.fs, WORLD_DATA "/lost", bop_slice_cstr(texts[n]),
                                   NULL);

        REQUIRE_EQ(rc, 0);
        CHECK_EQ(world_open(&f->w), BOP_ECORRUPT);
    }
}

/* Under more ids than there is room for, as when nodes are replaced over the years. */
TEST(replica, hears_of_ever_new_peers)
{
    struct peer_chunk_ack ack = {.index = 5, .offset = 6};
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST,
                                   .kind = BOP_WIRE_KIND_PEER_SNAPSHOT_ACK};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    follow(&f->w);
    bop_buf_init(&buf, NULL, 0);
    bop__peer_chunk_ack_encode(&writer, &ack);
    frame.payload = bop_buf_slice(&buf);
    CHECK_EQ(bop__replica_peer_frame(f->w.replica, 3, &frame), 0);
    for (uint64_t id = 100; id < 200; id++) {
        f->w.now_us += 1000;
        bop__replica_peer_connected(f->w.replica, id);
        CHECK_EQ(bop__replica_peer_frame(f->w.replica, id, &frame), 0);
        bop__replica_peer_lost(f->w.replica, id);
        CHECK_EQ(bop__replica_peer_frame(f->w.replica, id, &frame), 0);
    }
    CHECK(bop__replica_peer(f->w.replica, 2)->connected);    /* Connected all the time. */
    CHECK(bop__replica_peer(f->w.replica, 3)->heard_ms > 0); /* A member, so it is remembered. */
    for (uint64_t id = 300; id < 314; id++) {
        bop__replica_peer_connected(f->w.replica, id);
    }
    CHECK_EQ(bop__replica_peer_frame(f->w.replica, 400, &frame), BOP_EPROTOCOL); /* All in use. */
    bop_buf_deinit(&buf);
}

TEST(replica, refuses_chunks_that_make_no_sense)
{
    const struct peer_chunk good = {
        .raft_term = 1, .index = 5, .term = 1, .size = 8, .bytes = bytes("abcd")};
    struct peer_chunk chunks[] = {good, good, good, good, good, good};

    chunks[0].size = 0;
    chunks[1].size = 3; /* Below what is there. */
    chunks[2].size = SNAPSHOT_BYTES_MAX + 1;
    chunks[3].index = 0;
    chunks[4].bytes = bytes("");
    chunks[5].offset = UINT64_MAX - 2;
    follow(&f->w);
    for (size_t n = 0; n < BOP_COUNT_OF(chunks); n++) {
        CHECK_EQ(give_chunk(&f->w, &chunks[n]), BOP_EMALFORMED);
    }
}

/* ---- Faults: each allocation and each operation on files fails once in turn ---- */

/* A log of some entries, in all cases but that of a new node. */
static void prepare(struct world *w, bool with_snapshot)
{
    start(w);
    for (int n = 0; n < 6; n++) {
        world_added(w, 1);
        if (n == 3 && with_snapshot) {
            take_snapshot(w);
        }
    }
    world_close(w);
}

/* Open under faults, then once more without: the first says what is wrong or works, the
 * second works and has what was there. */
static void open_under_faults(struct world *w, int64_t sum)
{
    int rc = world_open(w);

    CHECK(rc == 0 || rc == w->faults.fired);
    CHECK(rc == 0 || w->err.message[0] != '\0');
    if (rc == 0) {
        bool settled = world_settle(w);

        w->faults.fail_at = 0;
        CHECK(settled || (w->failed == w->faults.fired && w->failure[0] != '\0'));
        CHECK(!settled || world_counter(w) == sum);
        world_close(w);
    }
    CHECK_EQ(w->faulty.open_files, 0);
    CHECK_EQ(w->heap.live, 0);
    w->faults.fail_at = 0;
    start(w);
    CHECK_EQ(world_counter(w), sum);
    world_close(w);
}

static void sweep(struct world *w, bool fresh, bool with_snapshot, const char *boot)
{
    uint64_t rounds = 0;

    FAULT_SWEEP(&w->faults) {
        uint64_t fail_at = w->faults.fail_at;

        w->faults.fail_at = 0;
        world_make_disk(w, fail_at);
        w->options.boot_id = "boot-1";
        if (!fresh) {
            prepare(w, with_snapshot);
        }
        w->options.boot_id = boot;
        w->faults.at = 0;
        w->faults.fail_at = fail_at;
        open_under_faults(w, fresh ? 0 : 6);
        rounds++;
    }
    test_note("%d rounds", (int)rounds);
}

TEST(replica, of_a_new_node_survives_each_fault)
{
    sweep(&f->w, true, false, "boot-1");
}

TEST(replica, with_a_log_survives_each_fault)
{
    sweep(&f->w, false, false, "boot-1");
}

TEST(replica, with_a_snapshot_to_load_survives_each_fault)
{
    sweep(&f->w, false, true, "boot-2");
}
