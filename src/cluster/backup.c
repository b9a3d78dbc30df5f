/*
 * Backup files without a cluster: checking one, and making one into the data directory
 * of a new cluster's node.
 *
 * The state is made from the file, and the new cluster's first entry is applied to it:
 * its servers, at the index after the backup's last and in the term after its term. A
 * snapshot of that is what the directory begins with; the log begins behind it. All nodes
 * that are made from one file with one list of servers so begin alike, and nothing in
 * the directory knows the servers of the old cluster.
 *
 * Whose directory it is is written first and the vote last: as long as that is missing,
 * bopd refuses to start.
 */
#include <bop/backup.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <bop/fs.h>
#include <bop/mem.h>
#include <bop/random.h>

#include "data_dir.h"
#include "machine.h"
#include "member.h"
#include "member_file.h"
#include "snapshot.h"
#include "vote_file.h"

#define PATH_BYTES 4096

struct restore {
    const struct bop_restore_options *options;
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    struct data_dir dir;
    struct snapshot_info from;
    struct snapshot_info made;
    struct bop_buf conf; /* The servers, in the payload form of a CHANGE entry. */
    char state[PATH_BYTES];
};

static int path_of(const struct restore *restore, char out_path[PATH_BYTES], const char *name)
{
    int length = snprintf(out_path, PATH_BYTES, "%s/%s", restore->options->data, name);

    return length < 0 || length >= PATH_BYTES ? -ENAMETOOLONG : 0;
}

/* ---- What is asked for ---- */

static void tell(const struct snapshot_info *info, struct bop_backup_info *out)
{
    *out = (struct bop_backup_info){
        .format = info->format,
        .index = info->raft.index,
        .term = info->raft.term,
        .bytes = info->bytes,
        .entries = info->entries,
        .time_ms = info->position.time_ms,
        .configuration = info->raft.conf,
    };
}

int bop_backup_check(const char *path, struct bop_backup_info *out_info, struct bop_error *err)
{
    struct snapshot_info info;
    int rc = bop__snapshot_check(NULL, bop_fs_real(), path, &info, err);

    if (rc == 0) {
        tell(&info, out_info);
    }
    return rc;
}

static int check_servers(struct restore *restore, struct bop_error *err)
{
    const struct bop_raft_configuration *servers = restore->options->servers;
    const struct bop_raft_server *self = bop__member_find(servers, restore->options->node);
    int rc;

    if (!self || self->role != BOP_RAFT_VOTER) {
        return bop_error_say(err, BOP_EINVAL,
                             "node %" PRIu64 " is not among the voters of the new cluster",
                             restore->options->node);
    }
    rc = bop_raft_configuration_encode(servers, &restore->conf);
    return rc < 0 ? bop_error_set(err, rc, "the servers of the new cluster") : 0;
}

static int any_visit(void *user, const char *name)
{
    snprintf(user, PATH_BYTES, "%s", name);
    return 1;
}

static int check_empty(const struct restore *restore, struct bop_error *err)
{
    char found[PATH_BYTES] = "";
    int rc = restore->fs->list(restore->fs, restore->options->data, any_visit, found);

    if (found[0]) {
        return bop_error_say(err, BOP_EEXISTS,
                             "%s is not empty (it has %s): a backup is restored into a new "
                             "directory",
                             restore->options->data, found);
    }
    return rc < 0 && rc != -ENOENT ? bop_error_set(err, rc, "look into %s", restore->options->data)
                                   : 0;
}

/* ---- Making it ---- */

/* The first entry of the new cluster, applied. */
static int apply_servers(struct restore *restore, struct machine *machine)
{
    struct bop_raft_entry entry = {
        .term = restore->from.raft.term + 1,
        .type = BOP_RAFT_CHANGE,
        .data = bop_buf_slice(&restore->conf),
    };
    struct machine_result result;
    struct bop_buf results;
    int rc = bop__machine_begin(machine);

    if (rc < 0) {
        return rc;
    }
    bop_buf_init(&results, restore->allocator, 0);
    rc = bop__machine_apply(machine, restore->from.raft.index + 1, &entry, &results, &result);
    bop_buf_deinit(&results);
    return rc < 0 ? rc : bop__machine_commit(machine);
}

static int write_snapshot(struct restore *restore, struct machine *machine, struct bop_error *err)
{
    struct machine_position position = bop__machine_position(machine);
    struct machine_view *view = NULL;
    char path[PATH_BYTES], name[64];
    int rc = path_of(restore, path, "snapshots");

    if (rc == 0) {
        rc = bop_fs_mkdirs(restore->fs, path);
    }
    snprintf(name, sizeof(name), "snapshots/%016" PRIx64 "-%016" PRIx64 ".snap", position.index,
             position.term);
    if (rc == 0) {
        rc = path_of(restore, path, name);
    }
    if (rc == 0) {
        rc = bop__machine_view_open(machine, &view);
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "make %s/%s", restore->options->data, name);
    }
    rc = bop__snapshot_write(restore->allocator, restore->fs, path, view,
                             bop_buf_slice(&restore->conf), &restore->made, err);
    bop__machine_view_close(view);
    return rc;
}

static int make_state(struct restore *restore, struct bop_error *err)
{
    struct machine_options options = {
        .allocator = restore->allocator,
        .path = restore->state,
        .bytes_max = restore->options->state_bytes_max,
    };
    struct snapshot_info info;
    struct machine *machine = NULL;
    int rc = bop__snapshot_load(restore->fs, restore->options->file, &options, &info, err);

    if (rc == 0) {
        rc = bop__machine_open(&options, &machine, err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = apply_servers(restore, machine);
    if (rc < 0) {
        bop_error_set(err, rc, "write the servers into %s", restore->state);
    } else {
        rc = write_snapshot(restore, machine, err);
    }
    if (rc == 0) {
        rc = bop__machine_sync(machine, err);
    }
    bop__machine_close(machine);
    return rc < 0 ? rc
                  : bop__data_dir_mark(restore->fs, restore->options->data, DATA_DIR_CLEAN, err);
}

static int make_member(struct restore *restore, struct bop_error *err)
{
    struct member_file file;
    char path[PATH_BYTES];
    uint64_t incarnation;
    int rc = path_of(restore, path, "member");

    if (rc == 0) {
        rc = bop_random_secret(&incarnation, sizeof(incarnation));
    }
    return rc < 0
               ? bop_error_set(err, rc, "make %s/member", restore->options->data)
               : bop__member_file_open(&file, restore->fs, path, incarnation | 1, MEMBER_YES, err);
}

static int make_vote(struct restore *restore, struct bop_error *err)
{
    struct vote_file votes = {.fd = -1};
    char path[PATH_BYTES];
    int rc = path_of(restore, path, "vote.tmp");

    if (rc == 0) {
        rc = bop__vote_file_open(&votes, restore->fs, path, true, err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = bop__vote_file_save(&votes, restore->made.raft.term, 0);
    bop__vote_file_close(&votes);
    if (rc == 0) {
        char final_path[PATH_BYTES];

        rc = path_of(restore, final_path, "vote");
        if (rc == 0) {
            rc = restore->fs->rename(restore->fs, path, final_path);
        }
    }
    if (rc == 0) {
        rc = restore->fs->sync_dir(restore->fs, restore->options->data);
    }
    return rc < 0 ? bop_error_set(err, rc, "write %s/vote", restore->options->data) : 0;
}

static int make_directory(struct restore *restore, struct bop_error *err)
{
    const struct bop_restore_options *options = restore->options;
    int rc = path_of(restore, restore->state, "state");

    if (rc < 0) {
        return bop_error_set(err, rc, "%s", options->data);
    }
    rc = bop__data_dir_open(&restore->dir, restore->fs, options->data, options->node,
                            options->cluster, "", err);
    if (rc == 0) {
        rc = bop__data_dir_claim(restore->fs, options->data, options->node, options->cluster, err);
    }
    if (rc == 0) {
        rc = make_state(restore, err);
    }
    if (rc == 0) {
        rc = make_member(restore, err);
    }
    if (rc == 0) {
        rc = make_vote(restore, err);
    }
    if (rc < 0) {
        bop_error_wrap(err, "restore into %s, which is of no use: remove it", options->data);
    }
    bop__data_dir_close(&restore->dir, restore->fs);
    return rc;
}

int bop_restore(const struct bop_restore_options *options, struct bop_backup_info *out_info,
                struct bop_error *err)
{
    struct restore restore = {
        .options = options,
        .allocator = bop_allocator_or_tag(options->allocator, "cluster.restore"),
        .fs = options->fs ? options->fs : bop_fs_real(),
        .dir = {.lock_fd = -1},
    };
    int rc;

    bop_buf_init(&restore.conf, restore.allocator, 0);
    rc = check_servers(&restore, err);
    if (rc == 0) {
        rc = check_empty(&restore, err);
    }
    if (rc == 0) {
        rc = bop__snapshot_check(restore.allocator, restore.fs, options->file, &restore.from, err);
    }
    if (rc == 0) {
        rc = make_directory(&restore, err);
    }
    bop_buf_deinit(&restore.conf);
    if (rc == 0) {
        tell(&restore.made, out_info);
    }
    return rc;
}
