/*
 * A log that lost its tail: a repair after damage ended it early, or a disk lied. What was
 * acknowledged there may have been committed on the strength of that, so whoever this node
 * helps to be elected might lack it.
 *
 * The state machine shows it, where it is still as it was left: what it applied was committed,
 * and durable in this log. Then this node takes no part in elections until a leader has sent
 * it all that this leader knew to be committed, that entry among it. A file keeps that over
 * further starts, for the state is made anew from what there is.
 */
#include "replica_internal.h"

#include <stdio.h>

#define FILE_NAME "lost"
#define FILE_MAX  32

static void format(uint64_t index, char out_text[FILE_MAX])
{
    snprintf(out_text, FILE_MAX, "%" PRIu64 "\n", index);
}

/* Takes exactly what format() makes. */
static int parse(struct bop_slice bytes, uint64_t *out_index)
{
    char text[FILE_MAX] = "", expected[FILE_MAX];

    if (bytes.size == 0 || bytes.size >= FILE_MAX) {
        return BOP_ECORRUPT;
    }
    memcpy(text, bytes.data, bytes.size);
    if (sscanf(text, "%20" SCNu64, out_index) != 1) {
        return BOP_ECORRUPT;
    }
    format(*out_index, expected);
    return strcmp(text, expected) == 0 ? 0 : BOP_ECORRUPT;
}

int bop__replica_loss_open(struct replica *replica, struct bop_error *err)
{
    char path[PATH_MAX_BYTES];
    struct bop_buf text;
    int rc = bop__replica_path(replica, path, FILE_NAME);

    if (rc < 0) {
        return bop_error_set(err, rc, "%s/" FILE_NAME, replica->options.path);
    }
    bop_buf_init(&text, replica->allocator, 0);
    rc = bop_fs_read_file(replica->fs, path, FILE_MAX, &text);
    if (rc >= 0) {
        rc = parse(bop_buf_slice(&text), &replica->lost.index);
    }
    bop_buf_deinit(&text);
    return rc >= 0 || rc == -ENOENT ? 0 : bop_error_set(err, rc, "read %s", path);
}

int bop__replica_loss_found(struct replica *replica, uint64_t index, struct bop_error *err)
{
    char path[PATH_MAX_BYTES], text[FILE_MAX];
    int rc = bop__replica_path(replica, path, FILE_NAME);

    bop_log(replica->options.log, BOP_LOG_ERROR, "log",
            "entries that were acknowledged are gone: the log ends at %" PRIu64 ", and %" PRIu64
            " was applied here. This node takes no part in elections until a "
            "leader has sent them again",
            bop_aof_last(replica->aof), index);
    replica->lost.index = bop_max_u64(replica->lost.index, index);
    format(replica->lost.index, text);
    return rc < 0 ? bop_error_set(err, rc, "%s/" FILE_NAME, replica->options.path)
                  : bop_fs_write_file(replica->fs, path, bop_slice_cstr(text), err);
}

bool bop__replica_loss_silences(const struct replica *replica,
                                const struct bop_raft_message *message)
{
    return replica->lost.index != 0 &&
           (message->type == BOP_RAFT_VOTE || message->type == BOP_RAFT_TIMEOUT_NOW);
}

void bop__replica_loss_heard(struct replica *replica, const struct bop_raft_message *message)
{
    if (replica->lost.index != 0 && message->type == BOP_RAFT_APPEND &&
        message->peer == replica->status.leader && message->term == replica->status.term) {
        replica->lost.committed = bop_max_u64(replica->lost.committed, message->append.commit);
    }
}

/* A leader that is its own majority has nobody to wait for. */
static bool is_over(const struct replica *replica)
{
    const struct bop_raft_status *status = &replica->status;

    return (status->state == BOP_RAFT_LEADER && status->ready) ||
           (!status->installing && replica->lost.committed >= replica->lost.index &&
            replica->durable >= replica->lost.committed &&
            status->commit >= replica->lost.committed);
}

/* For good, or where the power fails later several such nodes may wait for a leader once more that
 * only they could elect. */
static int remove_mark(const struct replica *replica)
{
    char path[PATH_MAX_BYTES];
    int rc = bop__replica_path(replica, path, FILE_NAME);

    if (rc == 0) {
        rc = replica->fs->unlink(replica->fs, path);
    }
    return rc == 0 || rc == -ENOENT ? replica->fs->sync_dir(replica->fs, replica->options.path)
                                    : rc;
}

void bop__replica_loss_turn(struct replica *replica)
{
    int rc;

    if (replica->lost.index == 0 || !is_over(replica)) {
        return;
    }
    rc = remove_mark(replica);
    if (rc < 0) {
        /* It is tried again with the next turn of housekeeping. */
        bop_log(replica->options.log, BOP_LOG_WARN, "log", "remove %s/" FILE_NAME ": %s",
                replica->options.path, bop_strerror(rc));
        return;
    }
    bop_log(replica->options.log, BOP_LOG_INFO, "log",
            "the entries up to %" PRIu64 " are there again: this node takes part in elections",
            replica->lost.index);
    replica->lost.index = 0;
    replica->lost.committed = 0;
}
