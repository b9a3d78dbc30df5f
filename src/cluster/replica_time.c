/*
 * The cluster's time, and what its leader proposes by itself because of it.
 *
 * Time in entries is the leader's: it goes on from the highest time in its log when it
 * was elected, at the pace of its monotonic clock. So it never goes back or jumps,
 * whatever happens to the clock on the wall, and it stands still while nobody leads:
 * what was to live for a minute does not die of an outage. Only a cluster that has no
 * time yet takes it from the wall.
 */
#include "replica_internal.h"

/* The time of the last command that is in the log and not applied, by which it is the highest of
 * all; 0: there is none. A state that was made anew has yet to apply all of them. */
static uint64_t time_in_log(struct replica *replica)
{
    uint64_t first = bop_max_u64(replica->applied + 1, bop_aof_first(replica->aof));

    for (uint64_t index = bop_aof_last(replica->aof); index >= first; index--) {
        struct bop_raft_entry storage;
        const struct bop_raft_entry *entry = bop__replica_log_get(replica, index, &storage);

        if (!entry) {
            return 0; /* The replica has failed. */
        }
        if (entry->type == BOP_RAFT_COMMAND && entry->data.size >= COMMAND_HEADER) {
            return bop_load_u64(entry->data.data + COMMAND_TIME_OFFSET);
        }
    }
    return 0;
}

void bop__replica_time_begin(struct replica *replica)
{
    struct replica_time *time = &replica->time;

    /* What it gave to entries that never came to be counts for nothing: others led since, who may
     * have begun at an earlier time. */
    time->base_ms = bop_max_u64(replica->machine ? bop__machine_position(replica->machine).time_ms
                                                 : 0,
                                time_in_log(replica));
    if (time->base_ms == 0) {
        time->base_ms = bop_clock_wall_ms(replica->options.clock);
    }
    time->since_ms = replica->now_ms;
    time->last_ms = time->base_ms;
}

uint64_t bop__replica_time(struct replica *replica)
{
    struct replica_time *time = &replica->time;
    uint64_t now = time->base_ms + (replica->now_ms - time->since_ms);

    time->last_ms = bop_max_u64(time->last_ms, now);
    return time->last_ms;
}

/* ---- Timers ---- */

static bool may_propose(const struct replica *replica)
{
    return replica->failed == 0 && replica->status.ready && replica->machine;
}

static void timers_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    BOP_CONTAINER_OF(write, struct replica, time.timers_write)->time.timers_pending = false;
}

uint64_t bop__replica_timers_due_ms(const struct replica *replica)
{
    const struct replica_time *time = &replica->time;
    uint64_t next;

    if (!may_propose(replica) || time->timers_pending) {
        return UINT64_MAX;
    }
    next = bop__machine_deadline_next(replica->machine);
    if (next == UINT64_MAX) {
        return UINT64_MAX;
    }
    next = next > time->base_ms ? time->since_ms + (next - time->base_ms) : time->since_ms;
    return bop_max_u64(next, time->again_ms);
}

static void propose_timers(struct replica *replica)
{
    struct command command = {.kind = COMMAND_TIMERS};
    struct replica_time *time = &replica->time;

    time->timers_write = (struct replica_write){.done = timers_done, .retryable = true};
    time->timers_pending = bop__replica_write(replica, &time->timers_write, &command) ==
                           BOP_STATUS_OK;
    if (!time->timers_pending) {
        time->again_ms = replica->now_ms + HOUSEKEEPING_MS;
    }
}

/* ---- Levels ---- */

static void level_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    BOP_CONTAINER_OF(write, struct replica, time.level_write)->time.level_pending = false;
}

static void raise_level(struct replica *replica)
{
    struct command command = {.kind = COMMAND_LEVEL, .level = bop__replica_level(replica)};
    struct replica_time *time = &replica->time;

    time->level_write = (struct replica_write){.done = level_done, .retryable = true};
    time->level_pending = bop__replica_write(replica, &time->level_write, &command) ==
                          BOP_STATUS_OK;
    if (time->level_pending) {
        bop_log(replica->options.log, BOP_LOG_INFO, "state",
                "raise the cluster's level to=%" PRIu32, command.level);
    }
}

void bop__replica_time_turn(struct replica *replica)
{
    if (!may_propose(replica)) {
        return;
    }
    /* Asked first what costs nothing: this is done at each turn. */
    if (bop__machine_level(replica->machine) < replica->options.level &&
        !replica->time.level_pending &&
        bop__machine_level(replica->machine) < bop__replica_level(replica)) {
        raise_level(replica);
    }
    if (bop__replica_timers_due_ms(replica) <= replica->now_ms) {
        propose_timers(replica);
    }
}
