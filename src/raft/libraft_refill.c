/*
 * W11: a follower that lost entries it had acknowledged: its disk lied, or its log was
 * damaged and repaired. The core never takes back what it counts as matched, so it would
 * send that follower nothing until the leader changes, and count it for entries that it
 * does not have.
 *
 *   - The follower is sent what it lost by us: probed back to where the logs meet, then
 *     filled up to what the core believes (or to the leader's snapshot, and from there).
 *     The core goes on from that point as if nothing had been.
 *   - Until then it counts for what it holds and no more. As the core counts otherwise, it
 *     is not told of any acknowledgement, nor of our own disk, beyond the entry that a
 *     majority really has (or beyond what is committed). It looks for what to commit only
 *     at and below the entry that it is told of, so it commits no other. The rest is held
 *     back and told later.
 *
 * Whoever says so falsely harms itself alone: it does not count, and is sent what it has.
 */
#include "engine_libraft.h"

#include <stdlib.h>

#define REFILL_ENTRIES_MAX 4096 /* At a time. */

static uint64_t core_match(const struct libraft *self, uint64_t id)
{
    raft_index match = 0;

    BOP_IGNORE(raft_match_index(&self->core, id, &match)); /* None, for who is no server. */
    return match;
}

static uint64_t true_match(const struct libraft *self, const struct libraft_peer *peer)
{
    return peer->lost ? peer->have : bop_max_u64(core_match(self, peer->id), peer->acked);
}

static const struct libraft_peer *known_peer(const struct libraft *self, uint64_t id)
{
    for (unsigned i = 0; i < self->peer_count; i++) {
        if (self->peers[i].id == id) {
            return &self->peers[i];
        }
    }
    return NULL;
}

uint64_t bop__libraft_match(const struct libraft *self, uint64_t id)
{
    const struct libraft_peer *peer = id == self->id ? NULL : known_peer(self, id);

    return peer ? true_match(self, peer) : core_match(self, id);
}

bool bop__libraft_lost(const struct libraft *self, uint64_t id)
{
    const struct libraft_peer *peer = known_peer(self, id);

    return peer && peer->lost;
}

/* ---- Filling up ---- */

static void send_snapshot(struct libraft *self, struct libraft_peer *peer)
{
    struct bop_raft_message *out;

    if (self->snapshot.index == 0 ||
        (peer->install_index != 0 && !peer->install_lost &&
         self->now_ms - peer->sent_ms < self->core.install_snapshot_timeout)) {
        return;
    }
    out = bop__raft_outbox_message(&self->out, BOP_RAFT_INSTALL, peer->id, self->core.current_term);
    if (out) {
        out->install = self->snapshot;
    }
    peer->install_index = self->snapshot.index;
    peer->install_lost = false;
    peer->sent = self->snapshot.index;
    peer->sent_ms = self->now_ms;
}

static void send_entries(struct libraft *self, struct libraft_peer *peer)
{
    uint64_t previous = peer->next - 1;
    uint64_t last = bop_max_u64(
        previous, bop_min_u64(core_match(self, peer->id), previous + REFILL_ENTRIES_MAX));
    struct bop_raft_message *out;

    if (bop__libraft_term_of(&self->core, previous > 0 ? previous : 1) == 0) {
        send_snapshot(self, peer);
        return;
    }
    out = bop__raft_outbox_message(&self->out, BOP_RAFT_APPEND, peer->id, self->core.current_term);
    if (out) {
        out->append.prev_index = previous;
        out->append.prev_term = previous > 0 ? bop__libraft_term_of(&self->core, previous) : 0;
        out->append.commit = self->core.commit_index;
        out->append.entries = NULL;
        out->append.count = (unsigned)(last - previous);
    }
    peer->sent = last;
    peer->sent_ms = self->now_ms;
}

static void begin(struct libraft *self, struct libraft_peer *peer, uint64_t rejected, uint64_t last)
{
    self->doubt = true;
    peer->lost = true;
    peer->have = 0;
    peer->acked = 0;
    if (core_match(self, peer->id) >= peer->install_index) {
        peer->install_index = 0; /* It had come. */
        peer->install_lost = false;
    }
    peer->next = bop_min_u64(rejected, last + 1);
    send_entries(self, peer);
}

static void take_rejection(struct libraft *self, struct libraft_peer *peer, uint64_t rejected,
                           uint64_t last)
{
    if (bop_min_u64(rejected - 1, last) < true_match(self, peer)) {
        begin(self, peer, rejected, last);
    } else if (peer->lost && rejected == peer->next - 1) {
        peer->next = bop_min_u64(rejected, last + 1);
        send_entries(self, peer);
    } else if (peer->lost &&
               (peer->install_lost || self->now_ms - peer->sent_ms >= self->election_timeout_ms)) {
        /* It rejects what the core sends, and what we sent may have been lost. */
        send_entries(self, peer);
    }
}

static void take_acknowledgement(struct libraft *self, struct libraft_peer *peer, uint64_t last)
{
    last = bop_min_u64(last, raft_last_index(&self->core));
    if (!peer->lost) {
        peer->acked = self->doubt ? bop_max_u64(peer->acked, last) : 0;
        return;
    }
    peer->have = bop_max_u64(peer->have, last);
    peer->next = bop_max_u64(peer->next, peer->have + 1);
    if (peer->have < core_match(self, peer->id) && peer->have >= peer->sent) {
        send_entries(self, peer);
    }
}

/* ---- Counting ---- */

static int descending(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left < right) - (left > right);
}

/* The last entry that a majority of the voters has, or that is committed. */
static uint64_t limit_of(const struct libraft *self)
{
    const struct raft_configuration *conf = &self->core.configuration;
    uint64_t matches[BOP_RAFT_SERVERS_MAX];
    unsigned count = 0;

    for (unsigned i = 0; i < conf->n; i++) {
        if (conf->servers[i].role == RAFT_VOTER) {
            matches[count++] = conf->servers[i].id == self->id
                                   ? bop_max_u64(self->core.last_stored, self->held)
                                   : bop__libraft_match(self, conf->servers[i].id);
        }
    }
    if (count == 0) {
        return self->core.commit_index;
    }
    qsort(matches, count, sizeof(matches[0]), descending);
    return bop_max_u64(matches[count / 2], self->core.commit_index);
}

static bool some_are_lost(struct libraft *self)
{
    bool some = false;

    for (unsigned i = 0; i < self->peer_count; i++) {
        struct libraft_peer *peer = &self->peers[i];

        peer->lost = peer->lost && peer->have < core_match(self, peer->id);
        some = some || peer->lost;
    }
    return some;
}

uint64_t bop__libraft_tellable(const struct libraft *self, uint64_t index)
{
    return self->doubt ? bop_min_u64(index, limit_of(self)) : index;
}

static int feed_acknowledgement(struct libraft *self, uint64_t peer, uint64_t index)
{
    struct raft_message message;
    struct raft_event event = {.type = RAFT_RECEIVE, .receive.message = &message};

    memset(&message, 0, sizeof(message));
    message.type = RAFT_APPEND_ENTRIES_RESULT;
    message.server_id = peer;
    message.server_address = PEER_ADDRESS;
    message.append_entries_result.version = APPEND_RESULT_VERSION;
    message.append_entries_result.term = self->core.current_term;
    message.append_entries_result.last_log_index = index;
    return bop__libraft_feed(self, &event);
}

static int tell_held(struct libraft *self, uint64_t limit)
{
    struct raft_event event = {.type = RAFT_PERSISTED_ENTRIES};
    int rc = 0;

    event.persisted_entries.index = bop_min_u64(self->held, limit);
    if (event.persisted_entries.index > self->core.last_stored) {
        rc = bop__libraft_feed(self, &event);
    }
    for (unsigned i = 0; i < self->peer_count && rc == 0 && self->core.state == RAFT_LEADER; i++) {
        const struct libraft_peer *peer = &self->peers[i];
        uint64_t index = bop_min_u64(peer->acked, limit);

        if (bop__libraft_server(self, peer->id) && index > core_match(self, peer->id)) {
            rc = feed_acknowledgement(self, peer->id, index);
        }
    }
    return rc;
}

int bop__libraft_settle(struct libraft *self)
{
    int rc;

    if (!self->doubt || self->core.state != RAFT_LEADER) {
        return 0;
    }
    self->doubt = some_are_lost(self);
    rc = tell_held(self, self->doubt ? limit_of(self) : UINT64_MAX);
    if (rc == 0 && !self->doubt && self->core.state == RAFT_LEADER) {
        self->held = 0;
        for (unsigned i = 0; i < self->peer_count; i++) {
            self->peers[i].acked = 0;
        }
    }
    return rc;
}

void bop__libraft_answered(struct libraft *self, struct libraft_peer *peer, uint64_t rejected,
                           uint64_t last)
{
    if (rejected != 0) {
        take_rejection(self, peer, rejected, last);
    } else {
        take_acknowledgement(self, peer, last);
    }
}

/* A leader that is none any more owes the core what it held back of its own disk, unless
 * that was replaced in the same step. */
int bop__libraft_release(struct libraft *self)
{
    struct raft_event event = {.type = RAFT_PERSISTED_ENTRIES};
    uint64_t held = self->held;

    if (self->core.state == RAFT_LEADER) {
        return 0;
    }
    self->doubt = false;
    self->held = 0;
    for (unsigned i = 0; i < self->out.append_count; i++) {
        held = bop_min_u64(held, self->out.appends[i].index - 1);
    }
    if (self->core.snapshot.installing || held <= self->core.last_stored) {
        return 0;
    }
    event.persisted_entries.index = held;
    return bop__libraft_feed(self, &event);
}
