/*
 * Committed entries into the state machine: many entries, one transaction, then
 * the answers. Only what is durable here is applied, so that the state never
 * runs ahead of the log it is rebuilt from.
 *
 * A transaction copies each page that it changes, however little. So a follower
 * that nobody waits for lets entries gather for a few milliseconds.
 */
#include "replica_internal.h"

/* Apply from first on within the bounds of one batch. Returns how many, or a code. */
static int apply_batch(struct replica *replica, uint64_t first, uint64_t last)
{
    size_t bytes = 0;
    unsigned count = 0;
    int rc = 0;

    bop_buf_clear(&replica->results);
    for (uint64_t index = first;
         index <= last && count < APPLY_ENTRIES_MAX && bytes < APPLY_BYTES_MAX; index++) {
        struct bop_raft_entry storage;
        const struct bop_raft_entry *entry = bop__replica_log_get(replica, index, &storage);

        if (!entry) {
            return replica->failed;
        }
        rc = bop__machine_apply(replica->machine, index, entry, &replica->results,
                                &replica->result_list[count]);
        if (rc < 0) {
            return rc;
        }
        bytes += entry->data.size;
        count++;
    }
    replica->applied_bytes += bytes;
    return (int)count;
}

/* Undo a batch that could not be finished. No room is waited out; anything else is the end. */
static void give_up_batch(struct replica *replica, int code, bool begun)
{
    int rc = begun ? bop__machine_abort(replica->machine) : 0;

    if (rc < 0 || code != BOP_ENOROOM) {
        bop__replica_fail(replica, rc < 0 ? rc : code, "apply after entry %" PRIu64 ": %s",
                          replica->applied, bop_strerror(rc < 0 ? rc : code));
        return;
    }
    if (!replica->state_full) {
        bop_log(replica->options.log, BOP_LOG_ERROR, "state",
                "no room on disk for the state applied=%" PRIu64
                "; free some, it goes on by itself",
                replica->applied);
    }
    replica->state_full = true;
    replica->apply_again_ms = replica->now_ms + APPLY_RETRY_MS;
}

/* Whether what is committed may gather: then apply_due_ms says until when. */
static bool may_gather(struct replica *replica, uint64_t last, uint64_t due_ms)
{
    if (replica->status.state == BOP_RAFT_LEADER || replica->write_count > 0 ||
        !bop_list_empty(&replica->read_batches) || last - replica->applied >= APPLY_ENTRIES_MAX ||
        (due_ms != 0 && due_ms <= replica->now_ms)) {
        return false;
    }
    replica->apply_due_ms = due_ms != 0 ? due_ms : replica->now_ms + APPLY_GATHER_MS;
    return true;
}

void bop__replica_apply(struct replica *replica)
{
    uint64_t due_ms = replica->apply_due_ms;

    replica->apply_more = false;
    replica->apply_due_ms = 0;
    for (;;) {
        uint64_t last = bop_min_u64(replica->status.commit, replica->durable);
        int rc, count;

        if (replica->failed != 0 || !replica->machine || replica->status.installing ||
            replica->applied >= last ||
            (replica->state_full && replica->now_ms < replica->apply_again_ms) ||
            may_gather(replica, last, due_ms)) {
            return;
        }
        rc = bop__machine_begin(replica->machine);
        if (rc < 0) {
            give_up_batch(replica, rc, false);
            return;
        }
        count = apply_batch(replica, replica->applied + 1, last);
        if (count < 0) {
            give_up_batch(replica, count, true);
            return;
        }
        rc = bop__machine_commit(replica->machine);
        if (rc < 0) {
            give_up_batch(replica, rc, false);
            return;
        }
        replica->state_full = false;
        replica->applied += (unsigned)count;
        bop_metric_add(replica->metrics.applied, count);
        bop_histogram_record(replica->metrics.apply_batch, (uint64_t)count);
        for (int n = 0; n < count; n++) {
            bop__replica_peer_waits(replica, replica->result_list[n].origin_node,
                                    replica->applied - (unsigned)(count - 1 - n));
            bop__replica_write_finish(replica, &replica->result_list[n]);
        }
        if (bop_clock_monotonic_ms(replica->options.clock) - replica->now_ms > APPLY_TURN_MS) {
            replica->apply_more = true;
            return;
        }
    }
}
