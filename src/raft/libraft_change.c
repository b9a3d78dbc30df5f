/*
 * START, snapshots, membership changes and handing over.
 *
 * W4: the core takes in a configuration change as soon as the one before it is
 * committed. That is too soon in two ways. A leader must first have committed an
 * entry of its own term, or two leaders' changes may have majorities that do not
 * meet (Ongaro, raft-dev, July 2015). And a follower that learns of a change
 * before it learns that the one before it is committed forgets the latter, and
 * rolls back too far if the new one is truncated. So a change waits until the
 * leader is ready, and until every voter it hears of has acknowledged the last
 * one.
 */
#include "engine_libraft.h"

#include <limits.h>

/* ---- START ---- */

static int check_entries(struct libraft *self, const struct bop_raft_event *event)
{
    const struct bop_raft_entry *entries = event->start.entries;
    struct bop_raft_configuration conf;
    uint64_t term = 0;

    for (size_t i = 0; i < event->start.count; i++) {
        uint64_t index = event->start.first_index + i;

        if (entries[i].term == 0 || entries[i].term < term || entries[i].term > event->start.term ||
            entries[i].type < BOP_RAFT_COMMAND || entries[i].type > BOP_RAFT_CHANGE) {
            return bop__libraft_say(self, BOP_EINVAL, "start: entry %llu has term %llu and type %d",
                                    (unsigned long long)index, (unsigned long long)entries[i].term,
                                    (int)entries[i].type);
        }
        term = entries[i].term;
        if (entries[i].type == BOP_RAFT_CHANGE &&
            bop_raft_configuration_decode(entries[i].data, &conf) != 0) {
            return bop__libraft_say(self, BOP_EINVAL, "start: entry %llu is no configuration",
                                    (unsigned long long)index);
        }
    }
    return 0;
}

static bool snapshot_sane(const struct bop_raft_snapshot *snapshot)
{
    return snapshot->index > 0 && snapshot->index <= RAFT_NUMBER_MAX && snapshot->term > 0 &&
           snapshot->conf_index > 0 && snapshot->conf_index <= snapshot->index &&
           bop__raft_configuration_valid(&snapshot->conf);
}

/* The log and the snapshot must be of one history without a gap. */
static int check_start(struct libraft *self, const struct bop_raft_event *event)
{
    const struct bop_raft_snapshot *snapshot = event->start.snapshot;
    uint64_t first = event->start.first_index;
    uint64_t end = first + event->start.count;

    if (event->start.term > RAFT_NUMBER_MAX || event->start.count > UINT_MAX ||
        (event->start.term == 0 &&
         (event->start.vote != 0 || snapshot || event->start.count > 0))) {
        return bop__libraft_say(self, BOP_EINVAL, "start: state without a term");
    }
    if (snapshot && (!snapshot_sane(snapshot) || snapshot->term > event->start.term)) {
        return bop__libraft_say(self, BOP_EINVAL, "start: the snapshot's description is wrong");
    }
    if (event->start.count == 0) {
        return 0;
    }
    if (!snapshot && (first != 1 || event->start.entries[0].type != BOP_RAFT_CHANGE)) {
        return bop__libraft_say(self, BOP_EINVAL,
                                "start: a log without a snapshot begins with a configuration");
    }
    if (first == 0 || first > RAFT_NUMBER_MAX ||
        (snapshot && (first > snapshot->index + 1 || end <= snapshot->index ||
                      (first <= snapshot->index &&
                       event->start.entries[snapshot->index - first].term != snapshot->term)))) {
        return bop__libraft_say(self, BOP_EINVAL, "start: the log does not meet the snapshot");
    }
    return check_entries(self, event);
}

static void trim_raw(struct libraft *self)
{
    bop__libraft_heap_lend(&self->heap, 1, NULL, 0);
    bop_free(self->allocator, self->raw, self->raw_capacity * sizeof(*self->raw));
    self->raw = NULL;
    self->raw_capacity = 0;
}

static int feed_start(struct libraft *self, const struct bop_raft_event *event)
{
    const struct bop_raft_snapshot *snapshot = event->start.snapshot;
    struct raft_snapshot_metadata metadata;
    struct raft_event start = {.type = RAFT_START};
    int rc;

    memset(&metadata, 0, sizeof(metadata));
    start.start.term = event->start.term;
    start.start.voted_for = event->start.vote;
    start.start.start_index = 1;
    if (snapshot) {
        metadata.index = snapshot->index;
        metadata.term = snapshot->term;
        metadata.configuration_index = snapshot->conf_index;
        rc = bop__libraft_give_configuration(self, &snapshot->conf, &metadata.configuration);
        if (rc != 0) {
            return rc;
        }
        self->snapshot = *snapshot;
        start.start.metadata = &metadata;
        start.start.start_index = snapshot->index + 1;
    }
    if (event->start.count > 0) {
        start.start.start_index = event->start.first_index;
        start.start.entries = self->raw;
        start.start.n_entries = (unsigned)event->start.count;
    }
    return bop__libraft_feed(self, &start);
}

int bop__libraft_start(struct libraft *self, const struct bop_raft_event *event)
{
    int rc = check_start(self, event);

    if (rc != 0) {
        return rc;
    }
    rc = bop__libraft_reserve_raw(self, event->start.count);
    if (rc != 0) {
        return bop__libraft_say(self, rc, "start: no memory for %zu entries", event->start.count);
    }
    bop__libraft_lend_entries(self, event->start.entries, event->start.count);
    self->started = true;
    self->timed_ms = self->now_ms;
    rc = feed_start(self, event);
    trim_raw(self);
    return rc;
}

/* ---- Snapshots ---- */

/*
 * W7: with a snapshot that ends at entry 1 and nothing below it, the core takes
 * entry 1 to be in its log and sends an empty node heartbeats for ever.
 */
#define SNAPSHOT_INDEX_MIN 2

int bop__libraft_snapshot_taken(struct libraft *self, const struct bop_raft_snapshot *snapshot,
                                uint64_t trailing)
{
    const struct raft *core = &self->core;
    struct raft_event event = {.type = RAFT_SNAPSHOT};
    int rc;

    if (core->snapshot.installing) {
        return bop__libraft_say(self, BOP_EBUSY, "snapshot taken: another is being installed");
    }
    if (!snapshot_sane(snapshot) || snapshot->index < SNAPSHOT_INDEX_MIN ||
        snapshot->index <= core->trail.snapshot.index || snapshot->index > core->last_stored ||
        snapshot->index > core->commit_index ||
        snapshot->term != bop__libraft_term_of(core, snapshot->index) ||
        snapshot->conf_index > core->configuration_committed_index) {
        return bop__libraft_say(self, BOP_EINVAL,
                                "snapshot taken: %llu is old or 1, or not committed and durable",
                                (unsigned long long)snapshot->index);
    }
    rc = bop__libraft_give_configuration(self, &snapshot->conf,
                                         &event.snapshot.metadata.configuration);
    if (rc != 0) {
        return bop__libraft_say(self, rc, "snapshot taken: no memory");
    }
    event.snapshot.metadata.index = snapshot->index;
    event.snapshot.metadata.term = snapshot->term;
    event.snapshot.metadata.configuration_index = snapshot->conf_index;
    event.snapshot.trailing = (unsigned)bop_min_u64(trailing, UINT_MAX);
    self->snapshot = *snapshot;
    return bop__libraft_feed(self, &event);
}

int bop__libraft_snapshot_persisted(struct libraft *self, const struct bop_raft_snapshot *snapshot)
{
    struct raft_event event = {.type = RAFT_PERSISTED_SNAPSHOT};
    int rc;

    if (!self->core.snapshot.installing || snapshot->index != self->installing.index ||
        snapshot->term != self->installing.term) {
        return bop__libraft_say(self, BOP_EINVAL, "snapshot persisted: it is not being installed");
    }
    rc = bop__libraft_give_configuration(self, &self->installing.conf,
                                         &event.persisted_snapshot.metadata.configuration);
    if (rc != 0) {
        return bop__libraft_say(self, rc, "snapshot persisted: no memory");
    }
    event.persisted_snapshot.metadata.index = self->installing.index;
    event.persisted_snapshot.metadata.term = self->installing.term;
    event.persisted_snapshot.metadata.configuration_index = self->installing.conf_index;
    event.persisted_snapshot.last = true;
    self->snapshot = self->installing;
    return bop__libraft_feed(self, &event);
}

/* ---- Membership ---- */

/* Whoever has been silent for an election timeout may be down for good and is not waited for. */
static bool acknowledged_by_the_living(struct libraft *self)
{
    const struct raft_configuration *conf = &self->core.configuration;

    for (unsigned i = 0; i < conf->n; i++) {
        const struct libraft_peer *peer = bop__libraft_peer(self, conf->servers[i].id);

        if (conf->servers[i].role != RAFT_VOTER || conf->servers[i].id == self->id ||
            self->now_ms - peer->heard_ms >= self->election_timeout_ms) {
            continue;
        }
        if (bop__libraft_match(self, peer->id) < self->core.configuration_committed_index) {
            return false;
        }
    }
    return true;
}

static int check_change(struct libraft *self, const struct bop_raft_configuration *conf,
                        struct bop_raft_configuration *out_ordered)
{
    struct bop_raft_configuration now;

    if (self->core.state != RAFT_LEADER || raft_transferee(&self->core) != 0) {
        return bop__libraft_say(self, BOP_ENOTLEADER, "change: not the leader");
    }
    if (!bop__raft_configuration_valid(conf) || bop__raft_configuration_voters(conf) == 0) {
        return bop__libraft_say(self, BOP_EINVAL, "change: no valid configuration with a voter");
    }
    if (!bop__libraft_ready(self)) {
        return bop__libraft_say(self, BOP_EBUSY, "change: the leader's term is not settled yet");
    }
    if (self->core.configuration_uncommitted_index != 0) {
        return bop__libraft_say(self, BOP_EBUSY, "change: another one is under way");
    }
    if (!acknowledged_by_the_living(self)) {
        return bop__libraft_say(self, BOP_EBUSY, "change: a voter does not have the last one yet");
    }
    /* The order matters: the core takes progress over by position if the number is the same. */
    bop__libraft_read_configuration(&self->core.configuration, &now);
    if (bop__raft_configuration_difference(&now, conf, out_ordered) != 1) {
        return bop__libraft_say(self, BOP_EINVAL, "change: not of exactly one server");
    }
    return 0;
}

int bop__libraft_change(struct libraft *self, const struct bop_raft_configuration *conf)
{
    struct bop_raft_configuration ordered;
    int rc = check_change(self, conf, &ordered);

    if (rc != 0) {
        return rc;
    }
    bop_buf_clear(&self->change_data);
    rc = bop_raft_configuration_encode(&ordered, &self->change_data);
    if (rc != 0) {
        return bop__libraft_say(self, rc, "change: encode the configuration");
    }
    self->change = (struct bop_raft_entry){
        .term = self->core.current_term,
        .type = BOP_RAFT_CHANGE,
        .data = bop_buf_slice(&self->change_data),
    };
    rc = bop__libraft_submit(self, &self->change, 1);
    bop__libraft_forget_strangers(self);
    return rc;
}

/* ---- Handing over ---- */

/* The voter with the longest log among those heard of; 0: there is none. The core takes anyone. */
static uint64_t best_successor(struct libraft *self)
{
    const struct raft_configuration *conf = &self->core.configuration;
    raft_index best_match = 0;
    uint64_t best = 0;

    for (unsigned i = 0; i < conf->n; i++) {
        const struct libraft_peer *peer = bop__libraft_peer(self, conf->servers[i].id);
        uint64_t match;

        if (conf->servers[i].role != RAFT_VOTER || conf->servers[i].id == self->id || peer->lost ||
            self->now_ms - peer->heard_ms >= self->election_timeout_ms) {
            continue;
        }
        match = bop__libraft_match(self, peer->id);
        if (best == 0 || match > best_match) {
            best = peer->id;
            best_match = match;
        }
    }
    return best;
}

int bop__libraft_transfer(struct libraft *self, uint64_t peer)
{
    struct raft_event event = {.type = RAFT_TRANSFER};

    if (self->core.state != RAFT_LEADER) {
        return bop__libraft_say(self, BOP_ENOTLEADER, "transfer: not the leader");
    }
    if (raft_transferee(&self->core) != 0) {
        return bop__libraft_say(self, BOP_EBUSY, "transfer: another one is under way");
    }
    if (peer == 0) {
        peer = best_successor(self);
    }
    if (peer == 0) {
        return bop__libraft_say(self, BOP_EINVAL, "transfer: no other voter is up");
    }
    if (bop__libraft_lost(self, peer)) {
        /* The core believes that it is up to date, and would let it stand for election. */
        return bop__libraft_say(self, BOP_EBUSY,
                                "transfer: it lost entries and is being sent them");
    }
    event.transfer.server_id = peer;
    return bop__libraft_feed(self, &event);
}
