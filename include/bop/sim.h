/*
 * A simulated disk, and crashes at every point of what uses it: for tests of code that keeps data
 * in files through bop/fs.h, ours and yours.
 *
 * A disk in memory with a page cache, on which all that real disks are known to do
 * happens by a seed: what was written and not synced may be there, be missing or be torn, in any
 * order; calls fail, are short, or hang; bits rot. The same seed and the same calls give the same
 * disk.
 *
 * bop_sim_crash_sweep() runs a workload over and over, each time with the machine stopping at
 * another I/O call, opens what is left, and has it compared with what was acknowledged.
 * examples/crash_test.c is a complete program.
 *
 * Threads: one lock inside; any thread. Runs that must repeat use one thread.
 */
#ifndef BOP_SIM_H
#define BOP_SIM_H

#include <bop/fs.h>

/* ---- The disk ---- */

/** What goes wrong by chance, each in so many of 65,536 calls. */
struct bop_fs_sim_faults {
    unsigned short_read;  /* A pread of more than one byte returns fewer than there are. */
    unsigned short_write; /* A pwrite of more than one byte writes fewer. */
    unsigned write_error; /* A pwrite writes nothing, and fails with -EIO. */
    unsigned
        sync_error; /* A sync or sync_dir fails with -EIO; what it should have synced is lost. */
    unsigned rot;   /* At a power loss, of each file: one bit of it flips. */
};

/** What a simulated disk does. Zeroed: never fails, loses unsynced data at a crash. */
struct bop_fs_sim_options {
    struct bop_allocator *allocator; /* Borrowed. Default: the process's. */
    uint64_t seed;                   /* All choices follow from it. */
    uint64_t capacity_bytes;         /* -ENOSPC above this many data bytes; 0: no limit. */
    unsigned tear_bytes; /* What the disk writes whole or not at all: 512, the default, or 4096. */
    struct bop_fs_sim_faults faults;
};

/**
 * A disk in memory with a page cache. What was written and not synced may at a
 * power loss be there, be missing or be torn at any multiple of tear_bytes, each
 * sector by itself and in any order; names not synced by sync_dir may be
 * there or not. At a process crash everything written stays.
 *
 * Directories are durable once made or renamed; sync_dir is about files. A
 * rename is seen whole or not at all. A failed sync_dir too loses for good what
 * it should have synced. Paths start at the root with or without a slash, and
 * ".." in one is BOP_EINVAL. The capacity is met by file sizes, holes included.
 */
struct bop_fs_sim;

BOP_API BOP_MUST_USE int bop_fs_sim_create(const struct bop_fs_sim_options *options,
                                           struct bop_fs_sim **out_sim);
BOP_API void bop_fs_sim_destroy(struct bop_fs_sim *sim);

/** The file system to hand out; valid until destroy. */
BOP_API struct bop_fs *bop_fs_sim_fs(struct bop_fs_sim *sim);

/** The process dies: its descriptors and locks are gone, the page cache stays. */
BOP_API void bop_fs_sim_kill_process(struct bop_fs_sim *sim);

/** The power fails: as above, and of what was not synced each sector and name is kept by chance. */
BOP_API void bop_fs_sim_lose_power(struct bop_fs_sim *sim);

/**
 * Every operation from the n-th from now on (1 is the next) fails with -EIO and
 * changes nothing, but that a pwrite as the n-th may be done in part. So a task
 * can be cut at each of its I/O calls; 0 takes it back. kill_process and
 * lose_power take it back too.
 */
BOP_API void bop_fs_sim_stop_after(struct bop_fs_sim *sim, uint64_t operations);

/** Operations since creation: what a sweep over stop_after counts to. */
BOP_API uint64_t bop_fs_sim_operations(const struct bop_fs_sim *sim);

/** The next `count` syncs fail with -EIO, and what they should have synced is lost. */
BOP_API void bop_fs_sim_fail_syncs(struct bop_fs_sim *sim, unsigned count);

/** The n-th sync from now on (1 is the next) fails likewise; 0 takes it back. */
BOP_API void bop_fs_sim_fail_sync_at(struct bop_fs_sim *sim, uint64_t n);

/** From now on these things go wrong by chance; zeroed: none. */
BOP_API void bop_fs_sim_set_faults(struct bop_fs_sim *sim, const struct bop_fs_sim_faults *faults);

/**
 * Syncs called from now on hang: they do not return before bop_fs_sim_release_syncs(), which lets
 * them do their work, or a crash, at which they fail with -EIO. For programs with threads.
 */
BOP_API void bop_fs_sim_hang_syncs(struct bop_fs_sim *sim);
BOP_API void bop_fs_sim_release_syncs(struct bop_fs_sim *sim);
/** How many hang just now. */
BOP_API unsigned bop_fs_sim_hanging(const struct bop_fs_sim *sim);

/** Set the capacity, so that a disk can fill up and be freed again. 0: no limit. */
BOP_API void bop_fs_sim_set_capacity(struct bop_fs_sim *sim, uint64_t capacity_bytes);

/** Flip one bit of a file at rest. Returns 0, -ENOENT, or BOP_EINVAL past its end. */
BOP_API BOP_MUST_USE int bop_fs_sim_flip_bit(struct bop_fs_sim *sim, const char *path,
                                             uint64_t bit);

/** What rotted. */
struct bop_fs_sim_rotten {
    char path[256];
    uint64_t bit;
};

/** Flip one bit, drawn by the seed from all bits of all files that have a name. BOP_ENOTFOUND if
 * there is none, or its path is too long. */
BOP_API BOP_MUST_USE int bop_fs_sim_rot(struct bop_fs_sim *sim,
                                        struct bop_fs_sim_rotten *out_rotten);

/** A digest of all names and contents as a reader sees them now: equal runs give equal digests. */
BOP_API uint64_t bop_fs_sim_digest(const struct bop_fs_sim *sim);

/* ---- Crashes ---- */

/** How a run ends. */
enum bop_sim_end {
    BOP_SIM_KILL,  /* The process dies: what was written stays. */
    BOP_SIM_POWER, /* The power fails: what was not synced is kept by chance. */
};

/** A workload and how to judge what a crash left of it. Zero means the default. */
struct bop_sim_crash {
    /*
     * Use an empty disk until all is done or a call fails (after a crash every call does), and note
     * what was acknowledged. What is open must be closed. Returns whether all was done.
     */
    bool (*run)(void *user, struct bop_fs *fs, uint64_t seed);
    /*
     * Open what is left and compare: what was acknowledged must be there, what was not may be there
     * whole or not at all. Returns 0, or a code with what is wrong in err. It may itself be
     * crashed, and is then called again, so it changes nothing of what it compares with.
     */
    int (*check)(void *user, struct bop_fs *fs, struct bop_error *err);
    void *user;
    struct bop_allocator *allocator;
    uint64_t seed;       /* The first. Default 1. */
    unsigned seeds;      /* How many. Default 1. */
    unsigned tear_bytes; /* Default: 512 with odd seeds, 4096 with even ones. */
    unsigned
        points_max;  /* Crashes a seed and kind of end, drawn at random. Default: at every call. */
    bool check_once; /* Do not also crash the check, at a call drawn at random. */
    struct bop_fs_sim_faults faults; /* While run() is at it. */
};

/** How far a sweep got, and what to repeat if it failed. */
struct bop_sim_crashed {
    uint64_t crashes;
    uint64_t seed;      /* Of the last run: give these three to bop_sim_crash_once(). */
    uint64_t operation; /* The call at which it was stopped. */
    enum bop_sim_end end;
};

/**
 * Crash the workload at each I/O call in turn, by both ends, with each seed. Returns 0, or what
 * check() returned for the first state that is wrong, with seed and operation in the message.
 */
BOP_API BOP_MUST_USE int bop_sim_crash_sweep(const struct bop_sim_crash *crash,
                                             struct bop_sim_crashed *out_crashed,
                                             struct bop_error *err);

/** One crash of a sweep. out_done, which may be NULL, says whether the workload got to its end. */
BOP_API BOP_MUST_USE int bop_sim_crash_once(const struct bop_sim_crash *crash, uint64_t seed,
                                            uint64_t operation, enum bop_sim_end end,
                                            bool *out_done, struct bop_error *err);

#endif
