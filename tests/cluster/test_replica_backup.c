/*
 * Backups of one replica: cut beside its work, read in pieces, dropped, forgotten, and in
 * nobody's way. Requests on the wire are in tests/system/test_backup.py.
 */
#include "replica_help.h"

struct fixture {
    struct world w;
};

static void setup(struct fixture *f)
{
    world_init(&f->w);
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE(world_settle(&f->w));
}

static void teardown(struct fixture *f)
{
    world_deinit(&f->w);
    CHECK_EQ(f->w.faulty.open_files, 0);
}

FIXTURE(setup, teardown)

static struct bop_backup_response ask(struct fixture *f, enum bop_backup_action action, uint64_t id)
{
    struct bop_backup_request request = {.action = (uint8_t)action, .backup = id};
    struct bop_backup_response response;

    bop__replica_backup(f->w.replica, &request, &response);
    return response;
}

static struct bop_backup_read_response read_piece(struct fixture *f, uint64_t id, uint64_t offset,
                                                  uint32_t size)
{
    struct bop_backup_read_request request = {.backup = id, .offset = offset, .size = size};
    struct bop_backup_read_response response;

    bop__replica_backup_read(f->w.replica, &request, &response);
    CHECK_EQ(response.offset, offset);
    return response;
}

/* One that is cut. */
static struct bop_backup_response cut(struct fixture *f)
{
    struct bop_backup_response response = ask(f, BOP_BACKUP_CUT_STALE, 0);

    REQUIRE_EQ(response.code, BOP_BACKUP_CUTTING);
    CHECK_EQ(response.bytes, 0);
    world_turn(&f->w);
    return ask(f, BOP_BACKUP_LOOK, response.backup);
}

static int count_visit(void *user, const char *name)
{
    ++*(unsigned *)user;
    return 0;
}

static unsigned files(struct fixture *f)
{
    unsigned count = 0;
    int rc = f->w.faulty.fs.list(&f->w.faulty.fs, WORLD_DATA "/backups", count_visit, &count);

    CHECK(rc == 0 || rc == -ENOENT);
    return count;
}

TEST(replica_backup, is_the_state_when_it_was_asked_for)
{
    struct bop_backup_response backup;
    struct bop_backup_read_response piece;
    struct snapshot_info info;
    char path[200];

    world_added(&f->w, 5);
    backup = ask(f, BOP_BACKUP_CUT_STALE, 0);
    CHECK_EQ(backup.code, BOP_BACKUP_CUTTING);
    CHECK_EQ(backup.node, 1);
    CHECK_EQ(read_piece(f, backup.backup, 0, 10).code, BOP_BACKUP_CUTTING);
    CHECK(bop__replica_busy(f->w.replica));
    world_added(&f->w, 1);
    backup = ask(f, BOP_BACKUP_LOOK, backup.backup);
    REQUIRE_EQ(backup.code, BOP_BACKUP_OK);
    CHECK(backup.index > 0);
    CHECK(backup.index < bop__replica_applied(f->w.replica));
    snprintf(path, sizeof(path), WORLD_DATA "/backups/%016" PRIx64 ".snap", backup.backup);
    REQUIRE_EQ(bop__snapshot_check(NULL, &f->w.faulty.fs, path, &info, NULL), 0);
    CHECK_EQ(info.raft.index, backup.index);
    CHECK_EQ(info.bytes, backup.bytes);
    CHECK_EQ(info.raft.conf.count, 1);
    piece = read_piece(f, backup.backup, 0, 8);
    CHECK_EQ(piece.code, BOP_BACKUP_OK);
    CHECK_SLICE_EQ(piece.bytes, bytes("BOPSNAP\n"));
    CHECK_EQ(read_piece(f, backup.backup, backup.bytes - 3, 8).bytes.size, 3);
    CHECK_EQ(read_piece(f, backup.backup, backup.bytes, 8).bytes.size, 0);
    CHECK_EQ(read_piece(f, backup.backup, backup.bytes + 1, 8).code, BOP_BACKUP_BAD_REQUEST);
    CHECK_EQ(read_piece(f, backup.backup + 1, 0, 8).code, BOP_BACKUP_UNKNOWN);
    CHECK_EQ(ask(f, BOP_BACKUP_LOOK, backup.backup + 1).code, BOP_BACKUP_UNKNOWN);
    CHECK_EQ(ask(f, BOP_BACKUP_LOOK, 0).code, BOP_BACKUP_UNKNOWN);
}

TEST(replica_backup, is_gone_when_it_is_dropped)
{
    struct bop_backup_response backup = cut(f);

    REQUIRE_EQ(backup.code, BOP_BACKUP_OK);
    CHECK_EQ(files(f), 1);
    CHECK_EQ(ask(f, BOP_BACKUP_DROP, backup.backup).code, BOP_BACKUP_OK);
    CHECK_EQ(files(f), 0);
    CHECK_EQ(ask(f, BOP_BACKUP_DROP, backup.backup).code, BOP_BACKUP_UNKNOWN);
    /* Before it is cut: as soon as it is. */
    backup = ask(f, BOP_BACKUP_CUT_STALE, 0);
    CHECK_EQ(ask(f, BOP_BACKUP_DROP, backup.backup).code, BOP_BACKUP_OK);
    CHECK_EQ(ask(f, BOP_BACKUP_LOOK, backup.backup).code, BOP_BACKUP_UNKNOWN);
    world_turn(&f->w);
    CHECK_EQ(files(f), 0);
    CHECK(!bop__replica_busy(f->w.replica));
}

TEST(replica_backup, is_forgotten_when_nobody_asks_for_it)
{
    struct bop_backup_response backup = cut(f);

    f->w.now_us += (BOP_BACKUP_KEEP_MS - 1000) * 1000;
    world_turn(&f->w);
    CHECK_EQ(ask(f, BOP_BACKUP_LOOK, backup.backup).code, BOP_BACKUP_OK);
    f->w.now_us += (BOP_BACKUP_KEEP_MS - 1000) * 1000;
    world_turn(&f->w);
    CHECK_EQ(read_piece(f, backup.backup, 0, 8).code, BOP_BACKUP_OK);
    f->w.now_us += (BOP_BACKUP_KEEP_MS + 1000) * 1000;
    world_turn(&f->w);
    CHECK_EQ(ask(f, BOP_BACKUP_LOOK, backup.backup).code, BOP_BACKUP_UNKNOWN);
    CHECK_EQ(files(f), 0);
}

TEST(replica_backup, makes_room_for_another_when_it_is_idle)
{
    uint64_t ids[BACKUPS_MAX];

    for (unsigned n = 0; n < BACKUPS_MAX; n++) {
        ids[n] = cut(f).backup;
        f->w.now_us += 1000000;
        world_turn(&f->w);
    }
    CHECK_EQ(ask(f, BOP_BACKUP_CUT_STALE, 0).code, BOP_BACKUP_BUSY);
    f->w.now_us += BACKUP_IDLE_MS * 1000;
    world_turn(&f->w);
    CHECK_EQ(ask(f, BOP_BACKUP_LOOK, ids[0]).code, BOP_BACKUP_OK); /* Now it is the youngest. */
    CHECK_EQ(cut(f).code, BOP_BACKUP_OK);
    CHECK_EQ(ask(f, BOP_BACKUP_LOOK, ids[0]).code, BOP_BACKUP_OK);
    CHECK_EQ(ask(f, BOP_BACKUP_LOOK, ids[1]).code, BOP_BACKUP_UNKNOWN);
    CHECK_EQ(files(f), BACKUPS_MAX);
}

TEST(replica_backup, files_of_an_earlier_run_are_removed)
{
    struct bop_backup_response backup = cut(f);

    world_kill(&f->w);
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE(f->w.replica != NULL);
    REQUIRE(world_settle(&f->w));
    CHECK_EQ(files(f), 0);
    CHECK_EQ(ask(f, BOP_BACKUP_LOOK, backup.backup).code, BOP_BACKUP_UNKNOWN);
    CHECK_EQ(cut(f).code, BOP_BACKUP_OK);
    world_close(&f->w); /* In order: then nothing is left by itself. */
    CHECK_EQ(files(f), 0);
}

TEST(replica_backup, is_sent_no_faster_than_allowed)
{
    struct bop_backup_response backup;
    uint64_t sent = 0;

    world_added(&f->w, 5);
    backup = cut(f);
    f->w.replica->options.send_bytes_s = 10000;
    for (unsigned ms = 0; ms < 1000; ms++) {
        struct bop_backup_read_response piece = read_piece(f, backup.backup, 0, 100);

        CHECK_EQ(piece.code, piece.wait_ms > 0 ? BOP_BACKUP_LATER : BOP_BACKUP_OK);
        sent += piece.bytes.size;
        f->w.now_us += 1000;
    }
    CHECK(sent >= 9800); /* 10,000 a second, and what may go ahead of it. */
    CHECK(sent <= 10200);
}

/* Whatever fails in cutting, it is told, the replica goes on, and nothing leaks. */
TEST(replica_backup, survives_each_fault)
{
    world_added(&f->w, 5);
    FAULT_SWEEP(&f->w.faults) {
        struct bop_backup_response backup = ask(f, BOP_BACKUP_CUT_STALE, 0);

        CHECK(backup.code == BOP_BACKUP_CUTTING || backup.code == BOP_BACKUP_NOT_NOW);
        bop_inline_poll(&f->w.work_executor);
        if (backup.code == BOP_BACKUP_CUTTING) {
            backup = ask(f, BOP_BACKUP_LOOK, backup.backup);
            CHECK_EQ(backup.code, f->w.faults.fired == 0 ? BOP_BACKUP_OK : BOP_BACKUP_FAILED);
            CHECK(backup.text.size > 0);
            CHECK_EQ(ask(f, BOP_BACKUP_DROP, backup.backup).code, BOP_BACKUP_OK);
        }
    }
    CHECK_EQ(f->w.failed, 0);
    CHECK_EQ(files(f), 0);
    world_added(&f->w, 1);
    CHECK_EQ(world_counter(&f->w), 6);
}
