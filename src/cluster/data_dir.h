/*
 * The data directory: whose it is, which format, one process at a time, and
 * whether the system has gone down since it was last used. The layout is
 * docs/design/data-directory.md.
 */
#ifndef BOP_CLUSTER_DATA_DIR_H
#define BOP_CLUSTER_DATA_DIR_H

#include <bop/error.h>
#include <bop/fs.h>

#define DATA_DIR_FORMAT 1

struct data_dir {
    int lock_fd;      /* Held while open. */
    bool fresh;       /* There was no identity in it. */
    bool state_whole; /* Nothing unsynced can have been lost since the last use. */
};

/**
 * Lock a directory (made if missing) and check that it is this node's. The error
 * says whose it is and what to do: BOP_ELOCKED, BOP_EMISMATCH, BOP_EVERSION, BOP_ECORRUPT;
 * BOP_EINVAL for a cluster's name that cannot be written down. An empty boot id is one that
 * is not known, which trusts no state but a clean one.
 */
BOP_MUST_USE int bop__data_dir_open(struct data_dir *dir, struct bop_fs *fs, const char *path,
                                    uint64_t node, const char *cluster, const char *boot_id,
                                    struct bop_error *err);

/**
 * Whose it is, as it says itself, without a lock. BOP_ECORRUPT if it says nothing that makes sense,
 * BOP_ENOTFOUND if it is no data directory.
 */
BOP_MUST_USE int bop__data_dir_identity(struct bop_fs *fs, const char *path, uint64_t *out_node,
                                        char *out_cluster, size_t cluster_size,
                                        struct bop_error *err);

/** Write down whose it is: the last step of making one. */
BOP_MUST_USE int bop__data_dir_claim(struct bop_fs *fs, const char *path, uint64_t node,
                                     const char *cluster, struct bop_error *err);

/** Note that from now on unsynced state exists, which lives as long as this boot. */
BOP_MUST_USE int bop__data_dir_mark(struct bop_fs *fs, const char *path, const char *boot_id,
                                    struct bop_error *err);

void bop__data_dir_close(struct data_dir *dir, struct bop_fs *fs);

/** What is written in place of a boot id once everything is synced. */
#define DATA_DIR_CLEAN "clean"

/** And while it is being made anew: no boot has this id. */
#define DATA_DIR_UNTRUSTED "untrusted"

#endif
