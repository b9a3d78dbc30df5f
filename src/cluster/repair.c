/*
 * Repair after the loss of a majority: one node that survived becomes the only server
 * of its cluster.
 *
 * It is done to a data directory at rest. An entry is put behind the last one of the log
 * by which this node alone is the cluster, in a term above any that this node knows of.
 * The next start finds itself the only voter, leads, and so commits all that the log
 * holds. Nothing in the log is taken away or altered.
 *
 * The term and the vote go first: after a cut in between nothing has happened but that
 * the node has a higher term.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/aof.h>
#include <bop/clock.h>
#include <bop/cluster_admin.h>
#include <bop/executor.h>
#include <bop/fs.h>
#include <bop/mem.h>

#include "data_dir.h"
#include "member.h"
#include "member_file.h"
#include "snapshot.h"
#include "vote_file.h"

#define PATH_BYTES   4096
#define READ_ENTRIES 1024
#define READ_BYTES   (256u * 1024)
#define COPY_BYTES   (1024u * 1024)

struct repair {
    const struct bop_repair_options *options;
    struct bop_repair_report *report;
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    struct data_dir dir;
    struct vote_file votes;
    struct bop_inline_executor executor;
    struct bop_aof *aof;
    uint64_t last_term;
    int failed; /* The log's writing. */
};

static int path_of(const struct repair *repair, char out_path[PATH_BYTES], const char *name)
{
    int length = snprintf(out_path, PATH_BYTES, "%s/%s", repair->options->data, name);

    return length < 0 || length >= PATH_BYTES ? -ENAMETOOLONG : 0;
}

/* ---- A copy of what is changed ---- */

static int copy_bytes(struct bop_fs *fs, int from, int to, uint8_t *block)
{
    uint64_t offset = 0;

    for (;;) {
        ssize_t count = fs->pread(fs, from, block, COPY_BYTES, offset);
        int rc;

        if (count <= 0) {
            return (int)count;
        }
        rc = bop_fs_write_all(fs, to, block, (size_t)count, offset);
        if (rc < 0) {
            return rc;
        }
        offset += (uint64_t)count;
    }
}

static int copy_file(struct repair *repair, const char *from_path, const char *to_path)
{
    struct bop_fs *fs = repair->fs;
    uint8_t *block = bop_alloc(repair->allocator, COPY_BYTES);
    int from = fs->open(fs, from_path, O_RDONLY);
    int to = from < 0 ? from : fs->open(fs, to_path, O_RDWR | O_CREAT | O_EXCL);
    int rc = !block ? BOP_ENOMEM : to < 0 ? to : copy_bytes(fs, from, to, block);

    if (rc == 0) {
        rc = fs->sync(fs, to);
    }
    if (from >= 0) {
        BOP_IGNORE(fs->close(fs, from)); /* It was read only. */
    }
    if (from >= 0 && to >= 0) {
        int closed = fs->close(fs, to);

        rc = rc < 0 ? rc : closed;
    }
    bop_free(repair->allocator, block, COPY_BYTES);
    return rc;
}

static int copy_one(struct repair *repair, const char *folder, const char *name)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    int length = snprintf(from, sizeof(from), "%s/%s%s", repair->options->data, folder, name);

    if (length < 0 || length >= PATH_BYTES) {
        return -ENAMETOOLONG;
    }
    length = snprintf(to, sizeof(to), "%s/%s%s", repair->report->backup, folder, name);
    return length < 0 || length >= PATH_BYTES ? -ENAMETOOLONG : copy_file(repair, from, to);
}

static int copy_log_file(void *user, const char *name)
{
    return copy_one(user, "log/", name);
}

static int make_backup(struct repair *repair, struct bop_error *err)
{
    char log[PATH_BYTES];
    char *backup = repair->report->backup;
    int length = snprintf(backup, sizeof(repair->report->backup), "%s/repair-%" PRIu64,
                          repair->options->data, bop_clock_wall_ms(bop_clock_system()));
    int rc = length < 0 || length >= PATH_BYTES - 8 ? -ENAMETOOLONG : 0;

    if (rc == 0) {
        snprintf(log, sizeof(log), "%.*s/log", PATH_BYTES - 8, backup);
        rc = bop_fs_mkdirs(repair->fs, log);
    }
    if (rc == 0) {
        rc = copy_one(repair, "", "vote");
    }
    if (rc == 0) {
        rc = path_of(repair, log, "log");
    }
    if (rc == 0) {
        rc = repair->fs->list(repair->fs, log, copy_log_file, repair);
    }
    if (rc == 0) {
        rc = repair->fs->sync_dir(repair->fs, backup);
    }
    return rc < 0 ? bop_error_set(err, rc, "keep a copy in %s", backup) : 0;
}

/* ---- Looking ---- */

static void on_log_failed(void *user, int code, const char *message)
{
    struct repair *repair = user;

    repair->failed = code;
}

static int open_log(struct repair *repair, struct bop_error *err)
{
    char path[PATH_BYTES];
    struct bop_aof_recovery recovery;
    struct bop_aof_options options = {
        .allocator = repair->options->allocator,
        .fs = repair->fs,
        .executor = &repair->executor.executor,
        .log = repair->options->log,
        .path = path,
        .no_footers = true,
        .room_min = 1,
        .on_failed = on_log_failed,
        .user = repair,
    };
    int rc = path_of(repair, path, "log");

    bop_inline_init(&repair->executor);
    if (rc < 0) {
        return bop_error_set(err, rc, "%s/log", repair->options->data);
    }
    return bop_aof_open(&options, &repair->aof, &recovery, err);
}

/* Look at one entry: the last configuration counts, and the last term. */
static int note_entry(struct repair *repair, const struct bop_aof_view *view, uint64_t index,
                      struct bop_error *err)
{
    repair->last_term = view->tag >> 8;
    if ((view->tag & 0xff) != BOP_RAFT_CHANGE) {
        return 0;
    }
    if (bop_raft_configuration_decode(view->payload, &repair->report->before) < 0) {
        return bop_error_say(err, BOP_ECORRUPT, "entry %" PRIu64 " of the log in %s makes no sense",
                             index, repair->options->data);
    }
    repair->report->conf_index = index;
    return 0;
}

static int read_log(struct repair *repair, struct bop_aof_view *views, struct bop_buf *buf,
                    struct bop_error *err)
{
    uint64_t index = bop_aof_first(repair->aof);
    uint64_t last = bop_aof_last(repair->aof);

    while (index <= last) {
        int count = bop_aof_read(repair->aof, index, READ_ENTRIES, READ_BYTES, buf, views, err);

        if (count < 0) {
            return count;
        }
        for (int n = 0; n < count; n++) {
            int rc = note_entry(repair, &views[n], index + (uint64_t)n, err);

            if (rc < 0) {
                return rc;
            }
        }
        index += (uint64_t)count;
    }
    repair->report->first_index = bop_aof_first(repair->aof);
    repair->report->last_index = last;
    return 0;
}

static int scan_log(struct repair *repair, struct bop_error *err)
{
    struct bop_aof_view *views = bop_alloc_array(repair->allocator, READ_ENTRIES, sizeof(*views));
    struct bop_buf buf;
    int rc;

    bop_buf_init(&buf, repair->allocator, 0);
    rc = views ? read_log(repair, views, &buf, err)
               : bop_error_set(err, BOP_ENOMEM, "read the log in %s", repair->options->data);
    bop_buf_deinit(&buf);
    bop_free(repair->allocator, views, READ_ENTRIES * sizeof(*views));
    return rc;
}

struct newest {
    char name[64];
};

/* Names are in byte order, and that is the order of their indexes. */
static int newest_visit(void *user, const char *name)
{
    struct newest *newest = user;
    size_t length = strlen(name);

    if (length < sizeof(newest->name) && length > 5 && strcmp(name + length - 5, ".snap") == 0) {
        memcpy(newest->name, name, length + 1);
    }
    return 0;
}

/* What lies below the log. */
static int look_at_snapshot(struct repair *repair, struct bop_error *err)
{
    struct newest newest = {.name = ""};
    struct snapshot_info info;
    char path[PATH_BYTES];
    int rc = path_of(repair, path, "snapshots");

    if (rc == 0) {
        rc = repair->fs->list(repair->fs, path, newest_visit, &newest);
    }
    if (rc < 0 || !newest.name[0]) {
        return rc == -ENOENT || rc == 0 ? 0 : bop_error_set(err, rc, "look into %s", path);
    }
    if (snprintf(path, sizeof(path), "%s/snapshots/%s", repair->options->data, newest.name) >=
        PATH_BYTES) {
        return bop_error_set(err, -ENAMETOOLONG, "%s", repair->options->data);
    }
    rc = bop__snapshot_check(repair->allocator, repair->fs, path, &info, err);
    if (rc < 0) {
        return rc;
    }
    repair->report->snapshot_index = info.raft.index;
    if (repair->report->conf_index == 0) {
        repair->report->before = info.raft.conf;
    }
    repair->last_term = bop_max_u64(repair->last_term, info.raft.term);
    return 0;
}

static int look(struct repair *repair, struct bop_error *err)
{
    struct bop_repair_report *report = repair->report;
    char path[PATH_BYTES];
    int rc = path_of(repair, path, "vote");

    if (rc == 0) {
        rc = bop__vote_file_open(&repair->votes, repair->fs, path, false, err);
    }
    if (rc == 0) {
        rc = open_log(repair, err);
    }
    if (rc == 0) {
        rc = scan_log(repair, err);
    }
    if (rc == 0) {
        rc = look_at_snapshot(repair, err);
    }
    if (rc < 0) {
        return rc;
    }
    report->term = repair->votes.term;
    report->new_term = bop_max_u64(repair->votes.term, repair->last_term) + 1;
    report->new_index = report->last_index + 1;
    if (report->snapshot_index > report->last_index) {
        return bop_error_say(err, BOP_EBUSY,
                             "a snapshot in %s is newer than its log: start the node once, stop it "
                             "again, then repair",
                             repair->options->data);
    }
    if (!bop__member_find(&report->before, report->node)) {
        return bop_error_say(err, BOP_EMISMATCH,
                             "node %" PRIu64 " is no server of the cluster by its own log: take "
                             "another node's directory",
                             report->node);
    }
    return 0;
}

/* ---- Doing it ---- */

/* As it is in the configuration, but alone and with a vote. */
static void make_configuration(const struct repair *repair, struct bop_raft_configuration *out)
{
    struct member self;

    *out = (struct bop_raft_configuration){.count = 1};
    out->servers[0] = *bop__member_find(&repair->report->before, repair->report->node);
    out->servers[0].role = BOP_RAFT_VOTER;
    bop__member_of(&out->servers[0], &self);
    self.learner = false;
    /* It is shorter than the text it was made from. */
    BOP_IGNORE(bop__member_format(&self, out->servers[0].address));
}

static int append(struct repair *repair, struct bop_slice payload)
{
    struct bop_aof_record record = {
        .tag = repair->report->new_term << 8 | BOP_RAFT_CHANGE,
        .time_us = bop_clock_wall_ms(bop_clock_system()) * 1000,
        .body = payload,
    };
    int rc = bop_aof_append(repair->aof, &record, 1);

    while (rc == 0 && repair->failed == 0 && bop_aof_busy(repair->aof)) {
        bop_inline_poll(&repair->executor);
    }
    if (rc == 0) {
        rc = repair->failed;
    }
    if (rc == 0 && bop_aof_durable(repair->aof) < repair->report->new_index) {
        rc = -EIO;
    }
    return rc;
}

static int change(struct repair *repair, struct bop_error *err)
{
    struct bop_raft_configuration conf;
    struct bop_buf payload;
    int rc;

    make_configuration(repair, &conf);
    bop_buf_init(&payload, repair->allocator, 0);
    rc = bop_raft_configuration_encode(&conf, &payload);
    if (rc == 0) {
        rc = bop__vote_file_save(&repair->votes, repair->report->new_term, repair->report->node);
    }
    if (rc == 0) {
        rc = append(repair, bop_buf_slice(&payload));
    }
    bop_buf_deinit(&payload);
    return rc < 0 ? bop_error_set(err, rc, "write to %s", repair->options->data) : 0;
}

static void close_all(struct repair *repair)
{
    while (repair->aof && bop_aof_busy(repair->aof) && bop_inline_poll(&repair->executor) > 0) {
    }
    bop_aof_close(repair->aof);
    bop__vote_file_close(&repair->votes);
    bop__data_dir_close(&repair->dir, repair->fs);
}

static int lock(struct repair *repair, struct bop_error *err)
{
    struct bop_repair_report *report = repair->report;
    int rc = bop__data_dir_identity(repair->fs, repair->options->data, &report->node,
                                    report->cluster, sizeof(report->cluster), err);

    return rc < 0 ? rc
                  : bop__data_dir_open(&repair->dir, repair->fs, repair->options->data,
                                       report->node, report->cluster, "", err);
}

int bop_repair(const struct bop_repair_options *options, struct bop_repair_report *out_report,
               struct bop_error *err)
{
    struct repair repair = {
        .options = options,
        .report = out_report,
        .allocator = bop_allocator_or_tag(options->allocator, "cluster.repair"),
        .fs = bop_fs_real(),
        .dir = {.lock_fd = -1},
        .votes = {.fd = -1},
    };
    int rc;

    memset(out_report, 0, sizeof(*out_report));
    rc = lock(&repair, err);
    if (rc == 0 && !options->dry_run) {
        rc = make_backup(&repair, err);
    }
    if (rc == 0) {
        rc = look(&repair, err);
    }
    if (rc == 0 && !options->dry_run) {
        rc = change(&repair, err);
    }
    close_all(&repair);
    return rc;
}
