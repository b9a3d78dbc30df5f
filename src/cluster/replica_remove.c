/*
 * Removing snapshots that a newer one stands for.
 *
 * To remove a file of gigabytes takes the system as long as to free all that it has, which can be
 * longer than an election timeout. So it is done beside everything else, one at a time.
 */
#include "replica_internal.h"

static bool is_being_sent(const struct replica *replica, uint64_t index)
{
    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        if (replica->peers[n].send.active && replica->peers[n].send.index == index) {
            return true;
        }
    }
    return false;
}

/* Ends the walk at the first one. */
static int old_visit(void *user, const char *name)
{
    struct replica *replica = user;
    uint64_t index, term;

    return bop__replica_snapshot_name(name, &index, &term) &&
           index < replica->snapshot.raft.index && !is_being_sent(replica, index) &&
           bop__replica_path(replica, replica->removing.path, "snapshots/%s", name) == 0;
}

static void remove_run(struct bop_task *task)
{
    struct snapshot_removing *removing = BOP_CONTAINER_OF(task, struct snapshot_removing, task);
    struct replica *replica = BOP_CONTAINER_OF(removing, struct replica, removing);

    removing->rc = replica->fs->unlink(replica->fs, removing->path);
}

static void remove_done(struct bop_task *task)
{
    struct snapshot_removing *removing = BOP_CONTAINER_OF(task, struct snapshot_removing, task);

    removing->running = false;
    /* Best effort: it is looked for again after the next snapshot. */
    removing->wanted = removing->rc == 0;
}

void bop__replica_remove_turn(struct replica *replica)
{
    struct snapshot_removing *removing = &replica->removing;
    char directory[PATH_MAX_BYTES];

    if (!removing->wanted || removing->running) {
        return;
    }
    removing->running = bop__replica_path(replica, directory, "snapshots") == 0 &&
                        replica->fs->list(replica->fs, directory, old_visit, replica) > 0;
    removing->wanted = removing->running;
    if (removing->running) {
        removing->task = (struct bop_task){.run = remove_run, .done = remove_done};
        bop_executor_submit(replica->options.work_executor, &removing->task);
    }
}
