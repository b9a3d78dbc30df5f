/*
 * One event into the engine, and what its update asks for, in the order that
 * bop/raft.h demands: the vote on disk, entries to the log, then messages.
 */
#include "replica_internal.h"

static int save_vote(struct replica *replica, const struct bop_raft_update *update)
{
    int rc = bop__vote_file_save(&replica->votes, update->term, update->vote);

    if (rc < 0) {
        /* A vote that may or may not be on disk must not be acted upon. */
        bop__replica_fail(replica, rc, "save term and vote: %s", bop_strerror(rc));
    }
    return rc;
}

static int append(struct replica *replica, const struct bop_raft_update *update)
{
    for (unsigned n = 0; n < update->append_count; n++) {
        const struct bop_raft_append_update *part = &update->appends[n];
        int rc;

        if (part->count == 0) {
            continue;
        }
        rc = bop__replica_log_append(replica, part->index, part->entries, part->count);
        if (rc < 0) {
            bop__replica_fail(replica, rc, "append to the log: %s", bop_strerror(rc));
            return rc;
        }
    }
    return 0;
}

static void note_state(struct replica *replica, const struct bop_raft_status *before)
{
    const struct bop_raft_status *now = &replica->status;

    if (now->state == before->state && now->leader == before->leader && now->term == before->term) {
        return;
    }
    bop_metric_set(replica->metrics.term, (int64_t)now->term);
    bop_metric_set(replica->metrics.leader, now->state == BOP_RAFT_LEADER);
    if (now->state == BOP_RAFT_LEADER && before->state != BOP_RAFT_LEADER) {
        bop_metric_add(replica->metrics.elections, 1);
        bop_log(replica->options.log, BOP_LOG_INFO, "raft",
                "this node leads term=%" PRIu64 " last=%" PRIu64, now->term, now->last_index);
        bop__replica_time_begin(replica);
        if (replica->machine) {
            bop__machine_sessions_seen_all(replica->machine, replica->now_ms);
        }
    } else if (now->leader != before->leader && now->leader != 0) {
        bop_log(replica->options.log, BOP_LOG_INFO, "raft", "node %" PRIu64 " leads term=%" PRIu64,
                now->leader, now->term);
    } else if (before->state == BOP_RAFT_LEADER) {
        bop_log(replica->options.log, BOP_LOG_INFO, "raft",
                "this node no longer leads term=%" PRIu64, now->term);
    }
    bop__replica_requests_leadership(replica);
}

static void note_configuration(struct replica *replica, bool was_changing)
{
    struct bop_raft_configuration before = replica->conf;

    bop_raft_configuration(replica->raft, &replica->conf, NULL);
    bop__replica_members_configured(replica, &before, was_changing);
    if (replica->options.events.on_configuration) {
        replica->options.events.on_configuration(replica->options.events.user, &replica->conf);
    }
}

static void carry_out(struct replica *replica, const struct bop_raft_update *update)
{
    struct bop_raft_status before = replica->status;

    bop_raft_status(replica->raft, &replica->status);
    if ((update->hard_state && save_vote(replica, update) < 0) || append(replica, update) < 0) {
        return;
    }
    if (update->install) {
        bop__replica_snapshot_install(replica, update->install);
    }
    for (unsigned n = 0; n < update->message_count && replica->failed == 0; n++) {
        bop__replica_send(replica, &update->messages[n]);
    }
    if (update->configuration_changed) {
        note_configuration(replica, before.changing);
    }
    for (unsigned n = 0; n < update->read_count; n++) {
        bop__replica_read_granted(replica, &update->reads[n]);
    }
    note_state(replica, &before);
}

int bop__replica_step(struct replica *replica, const struct bop_raft_event *event)
{
    struct bop_raft_update update;
    int rc;

    if (replica->failed != 0) {
        return replica->failed;
    }
    memset(&update, 0, sizeof(update));
    rc = bop_raft_step(replica->raft, event, &update);
    if (rc == BOP_ENOTLEADER || rc == BOP_ENOLEADER || rc == BOP_EBUSY || rc == BOP_EINVAL) {
        return rc;
    }
    if (rc < 0) {
        return bop__replica_fail(replica, rc, "consensus failed on event %d: %s", event->type,
                                 bop_strerror(rc));
    }
    carry_out(replica, &update);
    return replica->failed;
}
