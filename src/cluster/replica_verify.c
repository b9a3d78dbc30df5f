/*
 * The newest snapshot, checked while the node already serves.
 *
 * A start that finds its state whole needs of the newest snapshot no more than what its header
 * says. To read all of it takes as long as there is data, and so is done afterwards, slice by
 * slice beside everything else. Until then it is good for nothing: it is not sent to anybody, and
 * whoever loads it checks it first anyway. If it turns out to be damaged, another one is
 * taken at once.
 */
#include <bop/mem.h>

#include "replica_internal.h"
#include "snapshot_format.h"

/* Of a task: others, say a snapshot or a backup to be written, wait for it no longer than that. */
#define VERIFY_SLICE_BYTES (8u * 1024 * 1024)

static bool is_newest(const struct replica *replica)
{
    return replica->verify.index == replica->snapshot.raft.index;
}

static void close_reader(struct replica *replica)
{
    if (replica->verify.reader) {
        bop__snapshot_reader_close(replica->verify.reader);
        bop_free(replica->allocator, replica->verify.reader, sizeof(*replica->verify.reader));
        replica->verify.reader = NULL;
    }
}

static int open_reader(struct replica *replica)
{
    const struct snapshot_verify *verify = &replica->verify;
    char path[PATH_MAX_BYTES];
    int rc = bop__replica_path(replica, path, SNAPSHOT_NAME, verify->index, verify->term);

    if (rc < 0) {
        return rc;
    }
    replica->verify.reader = bop_alloc(replica->allocator, sizeof(*verify->reader));
    return verify->reader
               ? bop__snapshot_reader_open(verify->reader, replica->allocator, replica->fs, path)
               : BOP_ENOMEM;
}

static void verify_run(struct bop_task *task)
{
    struct snapshot_verify *verify = BOP_CONTAINER_OF(task, struct snapshot_verify, task);
    struct replica *replica = BOP_CONTAINER_OF(verify, struct replica, verify);
    struct bop_slice records;
    uint64_t end;
    int rc = verify->reader ? 0 : open_reader(replica);

    if (rc == 0) {
        end = verify->reader->offset + VERIFY_SLICE_BYTES;
        do {
            rc = bop__snapshot_reader_next(verify->reader, &records);
        } while (rc > 0 && verify->reader->offset < end);
    }
    verify->rc = rc;
}

static void verify_done(struct bop_task *task)
{
    struct snapshot_verify *verify = BOP_CONTAINER_OF(task, struct snapshot_verify, task);
    struct replica *replica = BOP_CONTAINER_OF(verify, struct replica, verify);

    verify->running = false;
    if (verify->rc > 0 && is_newest(replica)) {
        return; /* The next turn goes on. */
    }
    close_reader(replica);
    if (verify->rc == BOP_ENOMEM) {
        verify->again_ms = replica->now_ms + TAKE_RETRY_MS;
        return;
    }
    verify->phase = verify->rc == 0 || !is_newest(replica) ? VERIFY_IDLE : VERIFY_DAMAGED;
    if (verify->phase == VERIFY_DAMAGED) {
        bop_log(replica->options.log, BOP_LOG_ERROR, "snapshot",
                "the one of index=%" PRIu64 " is not whole: %s; another one is taken",
                verify->index, bop_strerror(verify->rc));
    }
}

void bop__replica_verify_begin(struct replica *replica)
{
    replica->verify = (struct snapshot_verify){
        .phase = replica->snapshot.raft.index == 0 ? VERIFY_IDLE : VERIFY_UNDER_WAY,
        .index = replica->snapshot.raft.index,
        .term = replica->snapshot.raft.term,
    };
}

void bop__replica_verify_turn(struct replica *replica)
{
    struct snapshot_verify *verify = &replica->verify;

    if (verify->phase == VERIFY_IDLE || verify->running) {
        return;
    }
    if (!is_newest(replica)) {
        close_reader(replica);
        verify->phase = VERIFY_IDLE;
    } else if (verify->phase == VERIFY_UNDER_WAY && replica->now_ms >= verify->again_ms) {
        verify->running = true;
        verify->task = (struct bop_task){.run = verify_run, .done = verify_done};
        bop_executor_submit(replica->options.work_executor, &verify->task);
    }
}

bool bop__replica_verify_passed(const struct replica *replica)
{
    return replica->verify.phase == VERIFY_IDLE || !is_newest(replica);
}

bool bop__replica_verify_failed(const struct replica *replica)
{
    return replica->verify.phase == VERIFY_DAMAGED && is_newest(replica);
}

void bop__replica_verify_replaced(struct replica *replica)
{
    replica->verify.phase = VERIFY_IDLE;
}

void bop__replica_verify_deinit(struct replica *replica)
{
    close_reader(replica);
}
