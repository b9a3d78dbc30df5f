/*
 * A file system whose long work on another thread can be cut short: once it is stopped, what
 * would write, sync or give a name fails with BOP_ECANCELED, and what cleans up goes on.
 *
 * Threads: stop, any; the rest as of the file system below.
 */
#ifndef BOP_CLUSTER_STOPPABLE_FS_H
#define BOP_CLUSTER_STOPPABLE_FS_H

#include <stdatomic.h>

#include <bop/fs.h>

struct stoppable_fs {
    struct bop_fs fs;
    struct bop_fs *below; /* Borrowed. */
    _Atomic bool stopped;
};

void bop__stoppable_fs_init(struct stoppable_fs *self, struct bop_fs *below);
void bop__stoppable_fs_stop(struct stoppable_fs *self);

#endif
