/*
 * Writes for executors that know tasks only.
 */
#include <bop/executor.h>

static void run_as_task(struct bop_task *task)
{
    struct bop_write *write = BOP_CONTAINER_OF(task, struct bop_write, task);

    write->result = bop_fs_write_all(write->fs, write->fd, write->bytes, write->size,
                                     write->offset);
    if (write->result == 0 && write->sync) {
        write->result = write->fs->sync(write->fs, write->fd);
    }
}

static void done_as_task(struct bop_task *task)
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
    write->task.done = done_as_task;
    bop_executor_submit(executor, &write->task);
}
