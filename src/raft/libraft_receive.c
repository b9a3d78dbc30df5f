/*
 * Messages from peers: first checked, for the core asserts what it expects of
 * them and in a release build runs on without, then fed to it in a form that its
 * defects do not touch. W1 ... are the names docs/design/raft.md has for them.
 *
 *   W1  A CHANGE that is not first in its message is recorded under the wrong
 *       index: such messages are cut so that each CHANGE comes first, and what the
 *       message says of the commit index is told before a CHANGE that follows
 *       another.
 *   W2  A node that has no vote by its own configuration grants none, though by
 *       the candidate's it may have one; and it never stops believing in a leader
 *       that fell silent, for which it would refuse as well.
 *   W3  An append that begins below our snapshot is rejected or, from entry 1,
 *       appended at the wrong place: the part below is cut off.
 *   W5  While a snapshot is being installed, appends go unanswered, so a new leader
 *       that must probe this node loses contact: they are answered as heartbeats.
 *   W6  A snapshot that was lost on its way is not sent again for minutes: once a
 *       connection broke and the peer is back, the core is told that it has it not.
 *   W11 A follower that lost what it had acknowledged is left alone: see
 *       libraft_refill.c.
 *   W12 A pre-vote of an older term is denied in the name of the term it asked
 *       for: the candidate never learns the newer one. If it has the longest log,
 *       no one can win any more.
 *   W13 A probe of a place below what is committed, with news of more, takes the
 *       commit index back to that place: such news is kept from the core.
 *   W14 The acknowledgement of an installed snapshot is sent once. If it is lost, and
 *       the leader has a newer one by then, the node gets nothing for minutes: it is
 *       sent again with each rejection of what comes after the snapshot.
 *
 * What makes no sense is dropped and counted. It costs its sender a timeout.
 */
#include "engine_libraft.h"

/* Of MESSAGE__*_VERSION in libraft 0.22.1; 2 says that the field pre_vote is there. */
#define VOTE_VERSION 2

static int drop(struct libraft *self)
{
    self->dropped++;
    return 0;
}

/* A message of the core's kind with every field zeroed (rule d). */
static struct raft_message core_message(const struct bop_raft_message *in,
                                        enum raft_message_type type)
{
    struct raft_message message;

    memset(&message, 0, sizeof(message));
    message.type = type;
    message.server_id = in->peer;
    message.server_address = PEER_ADDRESS;
    return message;
}

static int feed_message(struct libraft *self, struct raft_message *message)
{
    struct raft_event event = {.type = RAFT_RECEIVE};

    event.receive.message = message;
    return bop__libraft_feed(self, &event);
}

/* ---- What only a leader says: APPEND and INSTALL ---- */

/* Two leaders in one term, or one that we are ourselves: the core would forget its own state. */
static bool leader_plausible(const struct libraft *self, const struct bop_raft_message *in)
{
    if (in->term > self->core.current_term) {
        return true;
    }
    return self->core.state != RAFT_LEADER &&
           (self->seen_term != in->term || self->seen_leader == in->peer);
}

static void note_leader(struct libraft *self, const struct bop_raft_message *in)
{
    if (self->core.state == RAFT_FOLLOWER && self->core.current_term == in->term) {
        self->seen_leader = in->peer;
        self->seen_term = in->term;
        self->seen_ms = self->now_ms;
    }
}

/* The core's own answer to a leader of the past leaves a field unset. */
static int refuse_stale(struct libraft *self, const struct bop_raft_message *in, uint64_t rejected)
{
    struct bop_raft_message *out = bop__raft_outbox_message(&self->out, BOP_RAFT_APPEND_RESULT,
                                                            in->peer, self->core.current_term);

    if (out) {
        out->append_result.rejected = rejected;
        out->append_result.last_index = 0;
        out->append_result.features = 0;
        out->append_result.capacity = 0;
    }
    return 0;
}

static bool entry_sane(const struct bop_raft_entry *entry, uint64_t previous_term,
                       uint64_t term_max)
{
    struct bop_raft_configuration conf;

    if (entry->term == 0 || entry->term < previous_term || entry->term > term_max) {
        return false;
    }
    switch (entry->type) {
    case BOP_RAFT_COMMAND:
    case BOP_RAFT_BARRIER:
        return true;
    case BOP_RAFT_CHANGE:
        return bop_raft_configuration_decode(entry->data, &conf) == 0;
    }
    return false;
}

static bool append_sane(const struct bop_raft_message *in)
{
    uint64_t term = in->append.prev_term;

    if (in->append.prev_index > RAFT_NUMBER_MAX || in->append.commit > RAFT_NUMBER_MAX ||
        (in->append.prev_index == 0) != (in->append.prev_term == 0) || term > in->term ||
        (in->append.count > 0 && !in->append.entries)) {
        return false;
    }
    for (unsigned i = 0; i < in->append.count; i++) {
        if (!entry_sane(&in->append.entries[i], term, in->term)) {
            return false;
        }
        term = in->append.entries[i].term;
    }
    return true;
}

/* W3, and W5: cut off what must not reach the core. */
static void trim_append(const struct libraft *self, struct bop_raft_message *append)
{
    uint64_t below = self->core.trail.snapshot.index;

    if (append->append.prev_index < below) {
        uint64_t surplus = bop_min_u64(below - append->append.prev_index, append->append.count);

        /* All up to the snapshot is committed: the leader has it too, with the same terms. */
        if (surplus > 0) {
            append->append.entries += surplus;
            append->append.count -= (unsigned)surplus;
        }
        append->append.prev_index = below;
        append->append.prev_term = self->core.trail.snapshot.term;
    }
    if (self->core.snapshot.installing) {
        append->append.count = 0;
    }
}

/* W13: the news of a piece that ends below what is committed changes nothing. */
static uint64_t piece_commit(const struct libraft *self, const struct bop_raft_message *in,
                             uint64_t last)
{
    return last < self->core.commit_index ? bop_min_u64(in->append.commit, self->core.commit_index)
                                          : in->append.commit;
}

/* Feed entries [first, first + count) of the append, which raw holds all of. */
static int feed_piece(struct libraft *self, const struct bop_raft_message *in, unsigned first,
                      unsigned count, bool *out_accepted)
{
    struct raft_message message = core_message(in, RAFT_APPEND_ENTRIES);
    unsigned sent = self->out.message_count;
    int rc;

    message.append_entries.term = in->term;
    message.append_entries.prev_log_index = in->append.prev_index + first;
    message.append_entries.prev_log_term = first > 0 ? in->append.entries[first - 1].term
                                                     : in->append.prev_term;
    message.append_entries.leader_commit = piece_commit(self, in,
                                                        in->append.prev_index + first + count);
    message.append_entries.entries = count > 0 ? self->raw + first : NULL;
    message.append_entries.n_entries = count;
    rc = feed_message(self, &message);

    *out_accepted = true;
    for (; sent < self->out.message_count; sent++) {
        if (self->out.messages[sent].type == BOP_RAFT_APPEND_RESULT &&
            self->out.messages[sent].append_result.rejected != 0) {
            *out_accepted = false;
        }
    }
    return rc;
}

/* W1: no CHANGE but at the front of a piece. */
static unsigned piece_size(const struct bop_raft_message *append, unsigned first)
{
    unsigned end = first + 1;

    while (end < append->append.count && append->append.entries[end].type != BOP_RAFT_CHANGE) {
        end++;
    }
    return end - first;
}

static bool change_follows_change(const struct libraft *self, const struct bop_raft_message *append)
{
    uint64_t pending = self->core.configuration_uncommitted_index;

    return append->append.count > 0 && append->append.entries[0].type == BOP_RAFT_CHANGE &&
           pending != 0 && pending <= append->append.prev_index;
}

static int feed_append(struct libraft *self, const struct bop_raft_message *append)
{
    unsigned first = 0;
    bool accepted;
    int rc = bop__libraft_reserve_raw(self, append->append.count);

    if (rc != 0) {
        return bop__libraft_say(self, rc, "take in %u entries", append->append.count);
    }
    bop__libraft_lend_entries(self, append->append.entries, append->append.count);
    if (append->append.count == 0 || change_follows_change(self, append)) {
        rc = feed_piece(self, append, 0, 0, &accepted);
        if (rc != 0 || !accepted) {
            return rc;
        }
    }
    while (first < append->append.count) {
        unsigned count = piece_size(append, first);

        rc = feed_piece(self, append, first, count, &accepted);
        if (rc != 0 || !accepted) {
            return rc;
        }
        first += count;
    }
    return 0;
}

/* W14. It is true at any time: what a snapshot holds is committed. */
static void acknowledge_install(struct libraft *self, unsigned sent)
{
    unsigned end = self->out.message_count;

    for (; sent < end; sent++) {
        struct bop_raft_message rejection = self->out.messages[sent];
        struct bop_raft_message *out;

        if (rejection.type != BOP_RAFT_APPEND_RESULT || self->core.snapshot.installing ||
            rejection.append_result.rejected <= self->snapshot.index ||
            rejection.append_result.last_index != self->snapshot.index) {
            continue;
        }
        out = bop__raft_outbox_message(&self->out, BOP_RAFT_APPEND_RESULT, rejection.peer,
                                       rejection.term);
        if (out) {
            out->append_result = rejection.append_result;
            out->append_result.rejected = 0;
        }
    }
}

static int receive_append(struct libraft *self, const struct bop_raft_message *in)
{
    unsigned sent = self->out.message_count;
    struct bop_raft_message append;
    int rc;

    if (in->term < self->core.current_term) {
        return refuse_stale(self, in, in->append.prev_index);
    }
    if (!leader_plausible(self, in) || !append_sane(in)) {
        return drop(self);
    }
    append.type = in->type;
    append.peer = in->peer;
    append.term = in->term;
    append.append = in->append;
    trim_append(self, &append);
    rc = feed_append(self, &append);
    acknowledge_install(self, sent);
    note_leader(self, in);
    return rc;
}

static bool install_sane(const struct libraft *self, const struct bop_raft_message *in)
{
    const struct bop_raft_snapshot *snapshot = &in->install;
    uint64_t ours;

    if (snapshot->index == 0 || snapshot->index > RAFT_NUMBER_MAX || snapshot->term == 0 ||
        snapshot->term > in->term || snapshot->conf_index == 0 ||
        snapshot->conf_index > snapshot->index || !bop__raft_configuration_valid(&snapshot->conf)) {
        return false;
    }
    /* It must not replace what is committed here by something else. */
    ours = bop__libraft_term_of(&self->core, snapshot->index);
    return snapshot->index > self->core.commit_index || ours == 0 || ours == snapshot->term;
}

static int receive_install(struct libraft *self, const struct bop_raft_message *in)
{
    struct raft_message message = core_message(in, RAFT_INSTALL_SNAPSHOT);
    int rc;

    if (in->term < self->core.current_term) {
        return refuse_stale(self, in, 0);
    }
    if (!leader_plausible(self, in) || !install_sane(self, in)) {
        return drop(self);
    }
    self->incoming = in->install;
    bop__libraft_lend_configuration(&self->incoming_conf, &self->incoming.conf);
    message.install_snapshot.term = in->term;
    message.install_snapshot.last_index = in->install.index;
    message.install_snapshot.last_term = in->install.term;
    message.install_snapshot.conf_index = in->install.conf_index;
    message.install_snapshot.conf = self->incoming_conf.conf;
    message.install_snapshot.data.base = self->payload;
    message.install_snapshot.data.len = sizeof(self->payload);
    rc = feed_message(self, &message);
    note_leader(self, in);
    return rc;
}

static int receive_timeout_now(struct libraft *self, const struct bop_raft_message *in)
{
    struct raft_message message = core_message(in, RAFT_TIMEOUT_NOW);

    if (in->term != self->core.current_term || in->peer != bop__libraft_leader(self)) {
        return 0; /* Of a leader that is none any more. */
    }
    message.timeout_now.term = in->term;
    message.timeout_now.last_log_index = in->timeout_now.last_index;
    message.timeout_now.last_log_term = in->timeout_now.last_term;
    return feed_message(self, &message);
}

/* ---- Answers to a leader ---- */

/* W6: with the peer back, its progress goes from "snapshot under way" to probing. */
static int repeat_lost_install(struct libraft *self, const struct bop_raft_message *in,
                               struct libraft_peer *peer)
{
    struct raft_message message = core_message(in, RAFT_APPEND_ENTRIES_RESULT);
    raft_index match = 0;

    BOP_IGNORE(raft_match_index(&self->core, in->peer, &match)); /* A server of ours: no error. */
    if (match >= peer->install_index) {
        peer->install_index = 0;
        peer->install_lost = false;
    }
    if (!peer->install_lost) {
        return 0;
    }
    peer->install_lost = false;
    message.append_entries_result.version = APPEND_RESULT_VERSION;
    message.append_entries_result.term = in->term;
    message.append_entries_result.rejected = peer->install_index;
    message.append_entries_result.last_log_index = match;
    return feed_message(self, &message);
}

/* A peer that rejects what it had acknowledged: the core's bookkeeping does not survive that, so
 * it hears of the contact alone. The rest is libraft_refill.c's. */
static void mend_rejection(struct libraft *self, uint64_t peer,
                           struct raft_append_entries_result *result)
{
    raft_index match = 0;

    if (result->rejected == 0) {
        return;
    }
    BOP_IGNORE(raft_match_index(&self->core, peer, &match)); /* A server of ours: no error. */
    if (result->rejected <= match) {
        result->rejected = 0;
        result->last_log_index = 0;
        return;
    }
    result->last_log_index = bop_min_u64(result->last_log_index, result->rejected - 1);
    result->last_log_index = bop_max_u64(result->last_log_index, match);
}

static int receive_append_result(struct libraft *self, const struct bop_raft_message *in)
{
    struct raft_message message = core_message(in, RAFT_APPEND_ENTRIES_RESULT);
    struct raft_append_entries_result *result = &message.append_entries_result;
    struct libraft_peer *peer;
    int rc;

    if (self->core.state != RAFT_LEADER || in->term < self->core.current_term) {
        return 0; /* To an earlier leadership of ours. */
    }
    peer = bop__libraft_peer(self, in->peer);
    if (!peer) {
        return 0; /* A server that was removed since. */
    }
    if (in->append_result.rejected > RAFT_NUMBER_MAX ||
        in->append_result.last_index > RAFT_NUMBER_MAX) {
        return drop(self);
    }
    if (in->term == self->core.current_term) {
        bop__libraft_answered(self, peer, in->append_result.rejected, in->append_result.last_index);
        rc = peer->lost ? 0 : repeat_lost_install(self, in, peer);
        if (rc != 0) {
            return rc;
        }
        peer->heard_ms = self->now_ms;
    }
    result->version = APPEND_RESULT_VERSION;
    result->term = in->term;
    result->rejected = in->append_result.rejected;
    result->last_log_index = result->rejected != 0
                                 ? in->append_result.last_index
                                 : bop__libraft_tellable(self, in->append_result.last_index);
    result->features = in->append_result.features;
    result->capacity = in->append_result.capacity;
    mend_rejection(self, in->peer, result);
    rc = feed_message(self, &message);
    return rc == 0 ? bop__libraft_settle(self) : rc;
}

void bop__libraft_peer_lost(struct libraft *self, uint64_t peer)
{
    for (unsigned i = 0; i < self->peer_count; i++) {
        if (self->peers[i].id == peer && self->peers[i].install_index > 0) {
            self->peers[i].install_lost = true;
        }
    }
}

/* ---- Votes ---- */

static int receive_vote_as_voter(struct libraft *self, struct raft_message *message)
{
    struct raft_server *me = bop__libraft_server(self, self->id);
    struct raft_configuration saved = self->core.configuration;
    struct raft_server voter = {.id = self->id, .role = RAFT_VOTER};
    int role;
    int rc;

    if (me) {
        role = me->role;
        me->role = RAFT_VOTER;
        rc = feed_message(self, message);
        me->role = role;
        return rc;
    }
    if (self->core.state == RAFT_LEADER) {
        return feed_message(self, message); /* Its progress hangs on the configuration. */
    }
    /* Nobody frees or keeps the configuration in this event. */
    self->core.configuration.servers = &voter;
    self->core.configuration.n = 1;
    rc = feed_message(self, message);
    self->core.configuration = saved;
    return rc;
}

/* W12 */
static int deny_stale_pre_vote(struct libraft *self, const struct bop_raft_message *in)
{
    struct bop_raft_message *out = bop__raft_outbox_message(&self->out, BOP_RAFT_VOTE_RESULT,
                                                            in->peer, self->core.current_term);

    if (out) {
        out->vote_result.granted = false;
        out->vote_result.pre_vote = true;
        out->vote_result.features = 0;
        out->vote_result.capacity = 0;
    }
    return 0;
}

static int receive_vote(struct libraft *self, const struct bop_raft_message *in)
{
    struct raft_message message = core_message(in, RAFT_REQUEST_VOTE);

    if (in->vote.candidate != in->peer || in->vote.last_index > RAFT_NUMBER_MAX ||
        in->vote.last_term > in->term) {
        return drop(self);
    }
    if (in->vote.pre_vote && in->term < self->core.current_term) {
        return deny_stale_pre_vote(self, in);
    }
    message.request_vote.version = VOTE_VERSION;
    message.request_vote.term = in->term;
    message.request_vote.candidate_id = in->vote.candidate;
    message.request_vote.last_log_index = in->vote.last_index;
    message.request_vote.last_log_term = in->vote.last_term;
    message.request_vote.disrupt_leader = in->vote.disrupt_leader;
    message.request_vote.pre_vote = in->vote.pre_vote;
    return receive_vote_as_voter(self, &message);
}

static int receive_vote_result(struct libraft *self, const struct bop_raft_message *in)
{
    struct raft_message message = core_message(in, RAFT_REQUEST_VOTE_RESULT);

    /* Rule d: in any other state the core reads a union wrongly. */
    if (self->core.state != RAFT_CANDIDATE) {
        return 0;
    }
    if (in->vote_result.granted && in->term > self->core.current_term + 1) {
        return drop(self); /* A vote we cannot have asked for. */
    }
    message.request_vote_result.version = VOTE_VERSION;
    message.request_vote_result.term = in->term;
    message.request_vote_result.vote_granted = in->vote_result.granted;
    message.request_vote_result.pre_vote = in->vote_result.pre_vote;
    message.request_vote_result.features = in->vote_result.features;
    message.request_vote_result.capacity = in->vote_result.capacity;
    return feed_message(self, &message);
}

uint64_t bop__libraft_forget_ms(const struct libraft *self)
{
    const struct raft *core = &self->core;

    if (core->state != RAFT_FOLLOWER || core->follower_state.current_leader.id == 0) {
        return UINT64_MAX;
    }
    for (unsigned i = 0; i < core->configuration.n; i++) {
        if (core->configuration.servers[i].id == self->id &&
            core->configuration.servers[i].role == RAFT_VOTER) {
            return UINT64_MAX; /* It stands for election itself. */
        }
    }
    return self->seen_ms + UINT64_C(2) * self->election_timeout_ms;
}

void bop__libraft_forget_leader(struct libraft *self)
{
    if (self->now_ms >= bop__libraft_forget_ms(self)) {
        /* The address may stay: what the core sends to server 0 we do not pass on. */
        self->core.follower_state.current_leader.id = 0;
    }
}

/* ---- All ---- */

int bop__libraft_receive(struct libraft *self, const struct bop_raft_message *message)
{
    struct read_view view;

    if (message->peer == 0 || message->peer == self->id || message->term == 0 ||
        message->term > RAFT_NUMBER_MAX) {
        return drop(self);
    }
    switch (message->type) {
    case BOP_RAFT_APPEND:
        return receive_append(self, message);
    case BOP_RAFT_APPEND_RESULT:
        return receive_append_result(self, message);
    case BOP_RAFT_VOTE:
        return receive_vote(self, message);
    case BOP_RAFT_VOTE_RESULT:
        return receive_vote_result(self, message);
    case BOP_RAFT_INSTALL:
        return receive_install(self, message);
    case BOP_RAFT_TIMEOUT_NOW:
        return receive_timeout_now(self, message);
    case BOP_RAFT_READ_PROBE:
    case BOP_RAFT_READ_PROBE_RESULT:
    case BOP_RAFT_READ_REQUEST:
    case BOP_RAFT_READ_RESULT:
        bop__libraft_view(self, &view);
        bop__read_index_receive(&self->reads, &view, message, &self->out);
        return 0;
    }
    return drop(self);
}
