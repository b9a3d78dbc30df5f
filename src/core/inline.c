/*
 * The executor without a thread: a list of tasks that the owner runs by polling.
 */
#include <bop/executor.h>

static void inline_submit(struct bop_executor *self, struct bop_task *task)
{
    struct bop_inline_executor *executor = BOP_CONTAINER_OF(self, struct bop_inline_executor,
                                                            executor);

    bop_list_push_back(&executor->queue, &task->link);
}

void bop_inline_init(struct bop_inline_executor *executor)
{
    executor->executor = (struct bop_executor){.submit = inline_submit};
    bop_list_init(&executor->queue);
}

size_t bop_inline_poll(struct bop_inline_executor *executor)
{
    size_t count = 0;
    struct bop_list *link;

    while ((link = bop_list_pop_front(&executor->queue)) != NULL) {
        struct bop_task *task = BOP_CONTAINER_OF(link, struct bop_task, link);

        task->run(task);
        task->done(task); /* The task may be gone, or queued again, from here. */
        count++;
    }
    return count;
}
