/*
 * The crash sweep, held against small stores of which some are wrong on purpose.
 */
#include <stdio.h>

#include <bop/sim.h>

#include "tap.h"

#define STEPS 5

/* A store of one number, and what is wrong with it. */
enum fault {
    RIGHT,
    NO_SYNC,       /* Acknowledges before the sync. */
    NO_DIR_SYNC,   /* Renames without making the name durable. */
    IN_PLACE,      /* Overwrites: a crash leaves half of it. */
    RECOVERY_EATS, /* Opening removes the file before it writes it anew. */
};

struct store {
    enum fault fault;
    uint64_t acknowledged;
    uint64_t attempted;
    unsigned checks;
    unsigned runs;
};

#define RECORD_BYTES 3000

static void fill(uint64_t number, uint8_t out_bytes[RECORD_BYTES])
{
    for (size_t i = 0; i < RECORD_BYTES; i += 8) {
        bop_store_u64(out_bytes + i, number + 1);
    }
}

static int write_at(struct bop_fs *fs, const char *path, uint64_t number, bool sync)
{
    uint8_t bytes[RECORD_BYTES];
    int fd = fs->open(fs, path, O_RDWR | O_CREAT);
    int rc;

    if (fd < 0) {
        return fd;
    }
    fill(number, bytes);
    rc = bop_fs_write_all(fs, fd, bytes, sizeof(bytes), 0);
    if (rc == 0 && sync) {
        rc = fs->sync(fs, fd);
    }
    fs->close(fs, fd);
    return rc;
}

static int put(struct store *store, struct bop_fs *fs, uint64_t number)
{
    int rc;

    store->attempted = number;
    if (store->fault == IN_PLACE) {
        rc = write_at(fs, "/n", number, true);
        return rc < 0 ? rc : fs->sync_dir(fs, "/");
    }
    rc = write_at(fs, "/n.tmp", number, store->fault != NO_SYNC);
    if (rc == 0) {
        rc = fs->rename(fs, "/n.tmp", "/n");
    }
    if (rc == 0 && store->fault != NO_DIR_SYNC) {
        rc = fs->sync_dir(fs, "/");
    }
    return rc;
}

static bool run(void *user, struct bop_fs *fs, uint64_t seed)
{
    struct store *store = user;

    store->runs++;
    store->acknowledged = store->attempted = 0;
    for (uint64_t number = 1; number <= STEPS; number++) {
        if (put(store, fs, number) < 0) {
            return false;
        }
        store->acknowledged = number;
    }
    return true;
}

static int check(void *user, struct bop_fs *fs, struct bop_error *err)
{
    struct store *store = user;
    struct bop_buf buf;
    uint8_t wanted[RECORD_BYTES];
    uint64_t number = 0;
    int rc;

    store->checks++;
    bop_buf_init(&buf, NULL, 0);
    rc = bop_fs_read_file(fs, "/n", 1 << 20, &buf);
    if (rc == 0 && buf.size == RECORD_BYTES) {
        number = bop_load_u64(buf.data) - 1;
        fill(number, wanted);
        rc = memcmp(buf.data, wanted, RECORD_BYTES) == 0 ? 0 : BOP_ECORRUPT;
    } else if (rc == 0) {
        rc = BOP_ECORRUPT;
    }
    rc = rc == -ENOENT ? 0 : rc;
    if (rc == 0 && (number < store->acknowledged || number > store->attempted)) {
        rc = BOP_EMISMATCH;
    }
    if (rc < 0) {
        rc = bop_error_set(err, rc, "found %" PRIu64 ", acknowledged %" PRIu64, number,
                           store->acknowledged);
    } else if (store->fault == RECOVERY_EATS && number > 0) {
        fs->unlink(fs, "/n");
        fs->sync_dir(fs, "/");
        BOP_IGNORE(write_at(fs, "/n", number, true));
        fs->sync_dir(fs, "/");
    }
    bop_buf_deinit(&buf);
    return rc;
}

static int sweep(struct store *store, struct bop_sim_crashed *crashed, struct bop_error *err)
{
    struct bop_sim_crash crash = {.run = run, .check = check, .user = store, .seeds = 20};

    return bop_sim_crash_sweep(&crash, crashed, err);
}

TEST(sim_crash, passes_a_store_that_is_right)
{
    struct store store = {.fault = RIGHT};
    struct bop_sim_crashed crashed;
    struct bop_error err = {0};

    CHECK_EQ(sweep(&store, &crashed, &err), 0);
    /* Five calls a put, one more for after the end, two ends, twenty seeds. */
    CHECK_EQ(crashed.crashes, (STEPS * 5 + 1) * 2 * 20);
    CHECK_EQ(store.checks, 2 * crashed.crashes);
    CHECK_EQ(store.runs, crashed.crashes + 20);
}

TEST(sim_crash, finds_each_mistake_and_repeats_it)
{
    static const enum fault faults[] = {NO_SYNC, NO_DIR_SYNC, IN_PLACE, RECOVERY_EATS};

    for (size_t i = 0; i < BOP_COUNT_OF(faults); i++) {
        struct store store = {.fault = faults[i]};
        struct bop_sim_crash crash = {.run = run, .check = check, .user = &store};
        struct bop_sim_crashed crashed;
        struct bop_error err = {0}, again = {0};
        int rc = sweep(&store, &crashed, &err);

        CHECK(rc == BOP_ECORRUPT || rc == BOP_EMISMATCH);
        CHECK(strstr(err.message, "seed ") != NULL && strstr(err.message, "at call ") != NULL);
        CHECK_EQ(
            bop_sim_crash_once(&crash, crashed.seed, crashed.operation, crashed.end, NULL, &again),
            rc);
        CHECK_STR_EQ(again.message, err.message);
    }
}

TEST(sim_crash, points_can_be_drawn)
{
    struct store store = {.fault = RIGHT};
    struct bop_sim_crash crash = {.run = run,
                                  .check = check,
                                  .user = &store,
                                  .seed = 7,
                                  .seeds = 3,
                                  .points_max = 4,
                                  .check_once = true,
                                  .faults = {.short_write = 20000, .short_read = 20000}};
    struct bop_sim_crashed crashed;
    struct bop_error err = {0};
    bool done;

    CHECK_EQ(bop_sim_crash_sweep(&crash, &crashed, &err), 0);
    CHECK_EQ(crashed.crashes, 3 * 4 * 2);
    CHECK_EQ(store.checks, crashed.crashes);
    CHECK_EQ(crashed.seed, 9);
    CHECK_EQ(bop_sim_crash_once(&crash, 9, 1, BOP_SIM_KILL, &done, &err), 0);
    CHECK(!done);
    CHECK_EQ(bop_sim_crash_once(&crash, 9, 1000, BOP_SIM_POWER, &done, &err), 0);
    CHECK(done);
}

static bool never_done(void *user, struct bop_fs *fs, uint64_t seed)
{
    return false;
}

TEST(sim_crash, a_workload_must_work_without_crashes)
{
    struct store store = {.fault = RIGHT};
    struct bop_sim_crash crash = {.run = never_done, .check = check, .user = &store};
    struct bop_sim_crashed crashed;
    struct bop_error err = {0};

    CHECK_EQ(bop_sim_crash_sweep(&crash, &crashed, &err), BOP_EINVAL);
    CHECK(strstr(err.message, "without faults") != NULL);
}
