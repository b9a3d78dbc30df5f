/*
 * Backups that clients take of this node: each a snapshot file of its own, cut on the
 * work lane as the node's own snapshots are, read in pieces, and removed when it is
 * dropped or forgotten. include/bop/backup.h has the messages.
 */
#ifndef BOP_CLUSTER_REPLICA_BACKUP_H
#define BOP_CLUSTER_REPLICA_BACKUP_H

#include <bop/backup.h>
#include <bop/error.h>
#include <bop/executor.h>

#include "snapshot.h"

#define BACKUPS_MAX    4     /* Of a node: each takes as much room as its state. */
#define BACKUP_IDLE_MS 30000 /* Nobody asked for so long: it may make room for another one. */

struct replica;

struct replica_backup {
    uint64_t id; /* Drawn at random, so that no other node and no other run knows it. 0: free. */
    struct replica *replica;
    bool cutting;
    bool dropped; /* Meanwhile: it is freed when it is cut. */
    uint64_t used_ms;
    int fd; /* Of the file, once it is cut. */
    int rc;
    struct bop_error error;
    struct snapshot_info info;
    struct bop_task task;
    struct machine_view *view;
    struct bop_buf conf;
};

/** Cut one of what is applied here, look at one, or drop it. The text is borrowed until the
 * next call. CUT is done as CUT_STALE: the caller has seen to it that this node is up to date. */
void bop__replica_backup(struct replica *replica, const struct bop_backup_request *in,
                         struct bop_backup_response *out);

/** A piece of one, borrowed until the next call of the replica. */
void bop__replica_backup_read(struct replica *replica, const struct bop_backup_read_request *in,
                              struct bop_backup_read_response *out);

#endif
