/*
 * Crashes at every I/O call of a workload.
 *
 * Each run has a disk of its own, whose seed follows from the workload's, the call and
 * the kind of end; so any of them can be repeated alone.
 */
#include <inttypes.h>

#include <bop/sim.h>

/* Calls of a check among which one is drawn to crash it at. */
#define CHECK_CALLS 64

static uint64_t mix(uint64_t seed, uint64_t operation, enum bop_sim_end end)
{
    struct bop_random random;

    bop_random_seed(&random, seed ^ operation << 24 ^ (uint64_t)end << 62);
    return bop_random_next(&random);
}

static void crash_disk(struct bop_fs_sim *disk, enum bop_sim_end end)
{
    if (end == BOP_SIM_POWER) {
        bop_fs_sim_lose_power(disk);
    } else {
        bop_fs_sim_kill_process(disk);
    }
}

/* Look at what is left, maybe after a crash in the middle of looking. */
static int judge(const struct bop_sim_crash *crash, struct bop_fs_sim *disk, uint64_t seed,
                 enum bop_sim_end end, struct bop_error *err)
{
    struct bop_random random;

    bop_fs_sim_set_faults(disk, &(struct bop_fs_sim_faults){0});
    if (!crash->check_once) {
        bop_random_seed(&random, seed);
        bop_fs_sim_stop_after(disk, 1 + bop_random_below(&random, CHECK_CALLS));
        /* What it says of a disk that fails under it does not count. */
        BOP_IGNORE(crash->check(crash->user, bop_fs_sim_fs(disk), err));
        crash_disk(disk, end);
        bop_fs_sim_stop_after(disk, 0);
    }
    return crash->check(crash->user, bop_fs_sim_fs(disk), err);
}

int bop_sim_crash_once(const struct bop_sim_crash *crash, uint64_t seed, uint64_t operation,
                       enum bop_sim_end end, bool *out_done, struct bop_error *err)
{
    uint64_t disk_seed = mix(seed, operation, end);
    struct bop_fs_sim_options options = {
        .allocator = crash->allocator,
        .seed = disk_seed,
        .tear_bytes = crash->tear_bytes ? crash->tear_bytes
                      : seed % 2        ? 512
                                        : 4096,
        .faults = crash->faults,
    };
    struct bop_error why = {0};
    struct bop_fs_sim *disk;
    bool done;
    int rc = bop_fs_sim_create(&options, &disk);

    if (rc < 0) {
        return bop_error_set(err, rc, "make a simulated disk: %s", bop_strerror(rc));
    }
    bop_fs_sim_stop_after(disk, operation);
    done = crash->run(crash->user, bop_fs_sim_fs(disk), seed);
    if (out_done) {
        *out_done = done;
    }
    crash_disk(disk, end);
    bop_fs_sim_stop_after(disk, 0);
    rc = judge(crash, disk, disk_seed, end, &why);
    bop_fs_sim_destroy(disk);
    if (rc != 0) {
        return bop_error_say(err, rc, "seed %" PRIu64 ", %s at call %" PRIu64 ": %.300s", seed,
                             end == BOP_SIM_POWER ? "power lost" : "process killed", operation,
                             why.message[0] ? why.message : bop_strerror(rc));
    }
    return 0;
}

/* How many calls the workload makes when nothing stops it. */
static int count_calls(const struct bop_sim_crash *crash, uint64_t seed, uint64_t *out_calls,
                       struct bop_error *err)
{
    struct bop_fs_sim_options options = {.allocator = crash->allocator, .seed = seed};
    struct bop_fs_sim *disk;
    bool done;
    int rc = bop_fs_sim_create(&options, &disk);

    if (rc < 0) {
        return bop_error_set(err, rc, "make a simulated disk: %s", bop_strerror(rc));
    }
    done = crash->run(crash->user, bop_fs_sim_fs(disk), seed);
    *out_calls = bop_fs_sim_operations(disk);
    bop_fs_sim_destroy(disk);
    return done ? 0
                : bop_error_set(err, BOP_EINVAL,
                                "seed %" PRIu64 ": the workload fails on a disk without faults",
                                seed);
}

static int sweep_seed(const struct bop_sim_crash *crash, uint64_t seed,
                      struct bop_sim_crashed *crashed, struct bop_error *err)
{
    struct bop_random random;
    uint64_t calls = 0, points;
    int rc = count_calls(crash, seed, &calls, err);

    if (rc < 0) {
        return rc;
    }
    bop_random_seed(&random, seed);
    points = crash->points_max ? bop_min_u64(crash->points_max, calls + 1) : calls + 1;
    for (uint64_t i = 1; rc == 0 && i <= points; i++) {
        crashed->operation = points > calls ? i : 1 + bop_random_below(&random, calls + 1);
        crashed->seed = seed;
        for (int end = BOP_SIM_KILL; rc == 0 && end <= BOP_SIM_POWER; end++) {
            crashed->end = (enum bop_sim_end)end;
            rc = bop_sim_crash_once(crash, seed, crashed->operation, crashed->end, NULL, err);
            crashed->crashes++;
        }
    }
    return rc;
}

int bop_sim_crash_sweep(const struct bop_sim_crash *crash, struct bop_sim_crashed *out_crashed,
                        struct bop_error *err)
{
    uint64_t first = crash->seed ? crash->seed : 1;
    unsigned seeds = crash->seeds ? crash->seeds : 1;
    int rc = 0;

    *out_crashed = (struct bop_sim_crashed){0};
    for (uint64_t seed = first; rc == 0 && seed - first < seeds; seed++) {
        rc = sweep_seed(crash, seed, out_crashed, err);
    }
    return rc;
}
