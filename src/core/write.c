/*
 * Writes for executors that know tasks only.
 */
#include <bop/executor.h>

#include "lane.h"

int bop__write_run(struct bop_write *write, size_t from)
{
    int rc = bop_fs_write_all(write->fs, write->fd, (const uint8_t *)write->bytes + from,
                              write->size - from, write->offset + from);

    if (rc == 0 && write->sync) {
        rc = write->fs->sync(write->fs, write->fd);
    }
    return rc;
}

static void run_as_task(struct bop_task *task)
{
    struct bop_write *write = BOP_CONTAINER_OF(task, struct bop_write, task);

    write->result = bop__write_run(write, 0);
}

void bop__write_done(struct bop_task *task)
{
    struct bop_write *write = BOP_CONTAINER_OF(task, struct bop_write, task);

    write->done(write);
}

void bop_executor_write(struct bop_executor *executor, struct bop_write *write)
{
    if (executor->write) {
        executor->write(executor, write);
        return;
    }
    write->task.run = run_as_task;
    write->task.done = bop__write_done;
    bop_executor_submit(executor, &write->task);
}
