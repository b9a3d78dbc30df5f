/*
 * Committed entries into the state machine: many entries, one transaction. Only
 * what is durable here is applied, so that the state never runs ahead of the log
 * it is rebuilt from.
 *
 * A transaction copies each page that it changes, however little. So it stays
 * open for a while, across turns, and answers do not wait for its end: what is
 * lost with it is applied again from the log, with the same results. It is
 * committed, "settled", when it is large or old, and when somebody wants to look.
 *
 * After a transaction that was lost the state stands before replica->applied.
 * Entries in between are applied again, by themselves, and nobody is told: they
 * found room before, which the one that found none may never do.
 *
 * A follower that nobody waits for lets entries gather for a few milliseconds.
 */
#include "buggify.h"
#include "replica_internal.h"

#define FETCH_AHEAD 6   /* Entries. */
#define FETCH_BYTES 512 /* Of each. */
#define CACHE_LINE  64

#define EVENTS_BYTES_KEPT (4u * 1024 * 1024) /* Of the buffer; a larger one was an exception. */

/* What the state stands at, the open batch included. */
static uint64_t position(const struct replica *replica)
{
    return bop__machine_position(replica->machine).index;
}

/* The data of an entry that is applied shortly: they left the processor's cache while disks and
 * peers were waited for. */
static void fetch(const struct replica *replica, uint64_t index)
{
    const struct bop_raft_entry *entry = bop__entry_cache_get(&replica->cache, index);

    if (entry) {
        size_t size = bop_min_u64(entry->data.size, FETCH_BYTES);

        for (size_t at = 0; at < size; at += CACHE_LINE) {
            __builtin_prefetch(entry->data.data + at);
        }
    }
}

/* Apply from first on within the bounds of one turn's share. Returns how many, or a code. */
static int apply_some(struct replica *replica, uint64_t first, uint64_t last)
{
    size_t bytes = 0;
    unsigned count = 0;
    int rc = 0;

    bop_buf_clear(&replica->results);
    bop_buf_clear(&replica->events);
    bop__machine_events_to(replica->machine,
                           replica->options.events.on_events ? &replica->events : NULL);
    for (uint64_t index = first; index <= last && count < APPLY_ENTRIES_MAX &&
                                 bytes + replica->events.size < APPLY_BYTES_MAX;
         index++) {
        struct bop_raft_entry storage;
        const struct bop_raft_entry *entry = bop__replica_log_get(replica, index, &storage);

        if (!entry) {
            return replica->failed;
        }
        fetch(replica, index + FETCH_AHEAD);
        rc = bop__machine_apply(replica->machine, index, entry, &replica->results,
                                &replica->result_list[count]);
        if (rc < 0) {
            return rc;
        }
        bytes += entry->data.size;
        count++;
        if (buggify(BUGGIFY_APPLY_FEW)) {
            break;
        }
    }
    replica->batch.entries += count;
    replica->batch.bytes += bytes;
    replica->applied_bytes += bytes;
    return (int)count;
}

/* The batch is undone. No room is waited out; anything else is the end. */
static void give_up_batch(struct replica *replica, int code, bool begun)
{
    int rc = begun ? bop__machine_abort(replica->machine) : 0;

    replica->batch.open = false;
    if (rc < 0 || code != BOP_ENOROOM) {
        bop__replica_fail(replica, rc < 0 ? rc : code, "apply up to entry %" PRIu64 ": %s",
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

static int begin_batch(struct replica *replica)
{
    int rc = replica->batch.open ? 0 : bop__machine_begin(replica->machine);

    if (rc < 0) {
        give_up_batch(replica, rc, false);
    } else if (!replica->batch.open) {
        replica->batch.open = true;
        replica->batch.entries = 0;
        replica->batch.bytes = 0;
        replica->batch.due_ms = replica->now_ms + SETTLE_MS;
    }
    return rc;
}

int bop__replica_settle(struct replica *replica)
{
    int rc;

    if (!replica->batch.open || replica->failed != 0) {
        return replica->failed;
    }
    rc = bop__machine_commit(replica->machine);
    if (rc < 0) {
        give_up_batch(replica, rc, false);
        return rc;
    }
    replica->batch.open = false;
    return 0;
}

int bop__replica_view_open(struct replica *replica, struct machine_view **out_view)
{
    int rc = bop__replica_settle(replica);

    return rc < 0 ? rc : bop__machine_view_open(replica->machine, out_view);
}

/* While there was no room, each step forward is kept as soon as it is made. */
static bool must_settle(const struct replica *replica)
{
    return replica->batch.open &&
           (replica->batch.entries >= SETTLE_ENTRIES || replica->batch.bytes >= SETTLE_BYTES ||
            replica->batch.due_ms <= replica->now_ms || replica->state_full ||
            buggify(BUGGIFY_SETTLE_NOW));
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

/* What an entry changed, to those who watch. */
static void tell_events(struct replica *replica, uint64_t index,
                        const struct machine_result *result)
{
    const struct replica_events *events = &replica->options.events;

    if (events->on_events && result->events_size > 0) {
        events->on_events(events->user, index,
                          bop_slice(replica->events.data + result->events_at, result->events_size));
    }
}

/* What became of the entries that begin with first, to those who wait. An entry's events come
 * before its results: who has the answer to a write has heard what it changed. */
static void tell(struct replica *replica, uint64_t first, unsigned count)
{
    replica->applied = first + count - 1;
    bop_metric_add(replica->metrics.applied, count);
    bop_histogram_record(replica->metrics.apply_batch, count);
    for (unsigned n = 0; n < count; n++) {
        bop__replica_peer_waits(replica, replica->result_list[n].origin_node, first + n);
        tell_events(replica, first + n, &replica->result_list[n]);
        bop__replica_write_finish(replica, &replica->result_list[n]);
    }
    if (replica->events.capacity > EVENTS_BYTES_KEPT) {
        bop_buf_deinit(&replica->events);
        bop_buf_init(&replica->events, replica->allocator, 0);
    }
}

/* Apply from first to last or part of it, and settle if it is time. Returns how many, or a code. */
static int apply_and_settle(struct replica *replica, uint64_t first, uint64_t last)
{
    int count, rc = begin_batch(replica);

    if (rc < 0) {
        return rc;
    }
    count = apply_some(replica, first, last);
    if (count < 0) {
        give_up_batch(replica, count, true);
        return count;
    }
    rc = must_settle(replica) ? bop__replica_settle(replica) : 0;
    return rc < 0 ? rc : count;
}

/* Once more what was lost with its batch. False if it must wait. */
static bool apply_again(struct replica *replica, uint64_t first)
{
    if (replica->now_ms < replica->batch.again_ms) {
        return false;
    }
    if (apply_and_settle(replica, first, replica->applied) < 0) {
        replica->batch.again_ms = replica->now_ms + APPLY_RETRY_MS;
        return false;
    }
    return true;
}

/* The next entry of which a snapshot is taken. */
static uint64_t next_stop(const struct replica *replica)
{
    uint64_t every = replica->options.snapshot_entries;

    return (replica->applied / every + 1) * every;
}

/* What is committed and was not applied before. False if there is nothing to do now. */
static bool apply_new(struct replica *replica, uint64_t first, uint64_t due_ms)
{
    uint64_t last = bop_min_u64(replica->status.commit, replica->durable);
    uint64_t stop = next_stop(replica);
    int count;

    if (first > last || (replica->state_full && replica->now_ms < replica->apply_again_ms) ||
        may_gather(replica, last, due_ms)) {
        return false;
    }
    count = apply_and_settle(replica, first, bop_min_u64(last, stop));
    if (count > 0) {
        replica->state_full = false;
        tell(replica, first, (unsigned)count);
        replica->apply_stopped = replica->applied == stop &&
                                 bop__replica_snapshot_may_take(replica);
    }
    return count > 0 || replica->failed == 0;
}

/* One share. False if there is nothing more to do now. */
static bool apply_share(struct replica *replica, uint64_t due_ms)
{
    uint64_t first;

    if (replica->failed != 0 || !replica->machine || replica->status.installing) {
        return false;
    }
    if (replica->apply_stopped) {
        replica->apply_more = true; /* After the snapshot is begun, in this turn. */
        return false;
    }
    first = position(replica) + 1;
    return first <= replica->applied ? apply_again(replica, first)
                                     : apply_new(replica, first, due_ms);
}

void bop__replica_apply(struct replica *replica)
{
    uint64_t due_ms = replica->apply_due_ms;

    replica->apply_more = false;
    replica->apply_due_ms = 0;
    while (apply_share(replica, due_ms)) {
        if (bop_clock_monotonic_ms(replica->options.clock) - replica->now_ms > APPLY_TURN_MS) {
            replica->apply_more = true;
            return;
        }
    }
    if (must_settle(replica)) {
        /* A failure is kept in the replica. */
        BOP_IGNORE(bop__replica_settle(replica));
    }
}
