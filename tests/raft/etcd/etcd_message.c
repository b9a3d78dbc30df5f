/*
 * Messages: ours on the wire, etcd's in the core. See engine_etcd.h.
 */
#include "engine_etcd.h"

/* ---- In ---- */

static int drop(struct etcd_engine *self)
{
    self->dropped++;
    return 0;
}

static int feed(struct etcd_engine *self, struct etcd_message *message)
{
    struct etcd_entries none = {0};

    return bop_etcd_receive(self->core, message, &none) == 0 ? 0 : bop__etcd_fail(self);
}

static struct etcd_message core_message(const struct bop_raft_message *in, uint32_t type)
{
    struct etcd_message message;

    memset(&message, 0, sizeof(message));
    message.type = type;
    message.peer = in->peer;
    message.term = in->term;
    return message;
}

static bool terms_rise(const struct bop_raft_message *in)
{
    uint64_t term = in->append.prev_term;

    for (unsigned i = 0; i < in->append.count; i++) {
        if (in->append.entries[i].term < term) {
            return false;
        }
        term = in->append.entries[i].term;
    }
    return term <= in->term;
}

/* A leader that takes us for one who has what we have not is told nothing by dying, which is
 * what etcd would do: our disk was emptied, and a change that says so is under way. */
static uint64_t believable_commit(struct etcd_engine *self, uint64_t commit)
{
    if (commit > self->ready.last_index) {
        self->dropped++;
        return 0;
    }
    return commit;
}

static int receive_append(struct etcd_engine *self, const struct bop_raft_message *in)
{
    struct etcd_message message = core_message(in, ETCD_APP);
    struct etcd_entries entries;
    int rc;

    if (!terms_rise(in) || (in->append.prev_index == 0) != (in->append.prev_term == 0)) {
        return drop(self);
    }
    if (self->installing.index > 0 || (in->append.prev_index == 0 && in->append.count == 0)) {
        /* What follows a snapshot that is being installed must come again. */
        message.type = ETCD_HEARTBEAT;
        message.commit = self->installing.index > 0 ? 0
                                                    : believable_commit(self, in->append.commit);
        return feed(self, &message);
    }
    message.index = in->append.prev_index;
    message.log_term = in->append.prev_term;
    message.commit = in->append.commit;
    rc = bop__etcd_entries(self, in->append.entries, in->append.count, &entries);
    if (rc == BOP_EINVAL) {
        return drop(self);
    }
    if (rc != 0) {
        return bop__etcd_say(self, rc, "take in %u entries", in->append.count);
    }
    self->source = in->append.entries;
    self->source_index = in->append.prev_index + 1;
    self->source_count = in->append.count;
    rc = bop_etcd_receive(self->core, &message, &entries) == 0 ? 0 : bop__etcd_fail(self);
    bop__etcd_entries_free(self, &entries);
    return rc;
}

static int receive_append_result(struct etcd_engine *self, const struct bop_raft_message *in)
{
    struct etcd_message message = core_message(in, ETCD_APP_RESULT);

    if (in->append_result.rejected == 0 && in->append_result.last_index == 0) {
        message.type = ETCD_HEARTBEAT_RESULT;
    } else if (in->append_result.rejected > 0) {
        message.reject = true;
        message.index = in->append_result.rejected;
        message.hint = in->append_result.last_index;
    } else if (in->append_result.last_index > self->ready.last_index) {
        return drop(self);
    } else {
        message.index = in->append_result.last_index;
    }
    return feed(self, &message);
}

static int receive_vote(struct etcd_engine *self, const struct bop_raft_message *in)
{
    struct etcd_message message = core_message(in, in->vote.pre_vote ? ETCD_PRE_VOTE : ETCD_VOTE);

    if (in->vote.candidate != in->peer || in->vote.last_term > in->term) {
        return drop(self);
    }
    message.index = in->vote.last_index;
    message.log_term = in->vote.last_term;
    message.transfer = in->vote.disrupt_leader;
    return feed(self, &message);
}

static int receive_vote_result(struct etcd_engine *self, const struct bop_raft_message *in)
{
    struct etcd_message message = core_message(in, in->vote_result.pre_vote ? ETCD_PRE_VOTE_RESULT
                                                                            : ETCD_VOTE_RESULT);

    message.reject = !in->vote_result.granted;
    return feed(self, &message);
}

/* Its members may be of a time before we joined; etcd wants to find itself among them. */
static void join(struct etcd_engine *self, struct etcd_members *members)
{
    for (uint32_t i = 0; i < members->voter_count; i++) {
        if (members->voters[i] == self->id) {
            return;
        }
    }
    for (uint32_t i = 0; i < members->learner_count; i++) {
        if (members->learners[i] == self->id) {
            return;
        }
    }
    members->learners[members->learner_count++] = self->id;
}

static int receive_install(struct etcd_engine *self, const struct bop_raft_message *in)
{
    struct etcd_message message = core_message(in, ETCD_SNAPSHOT);
    const struct bop_raft_snapshot *snapshot = &in->install;

    if (self->installing.index > 0) {
        return 0; /* One at a time. */
    }
    if (snapshot->index == 0 || snapshot->term == 0 || snapshot->term > in->term ||
        snapshot->conf_index == 0 || snapshot->conf_index > snapshot->index ||
        !bop__raft_configuration_valid(&snapshot->conf)) {
        return drop(self);
    }
    self->incoming = *snapshot;
    message.index = snapshot->index;
    message.log_term = snapshot->term;
    bop__etcd_members(&snapshot->conf, &message.members);
    join(self, &message.members);
    return feed(self, &message);
}

static int receive_timeout_now(struct etcd_engine *self, const struct bop_raft_message *in)
{
    struct etcd_message message = core_message(in, ETCD_TIMEOUT_NOW);

    /* etcd would stand for election without the changes that wait to be applied. */
    if (in->peer != self->ready.leader || self->ready.waiting > 0 || self->installing.index > 0) {
        return 0;
    }
    return feed(self, &message);
}

int bop__etcd_receive(struct etcd_engine *self, const struct bop_raft_message *in)
{
    if (in->peer == 0 || in->peer == self->id || in->term == 0) {
        return drop(self);
    }
    switch (in->type) {
    case BOP_RAFT_APPEND:
        return receive_append(self, in);
    case BOP_RAFT_APPEND_RESULT:
        return receive_append_result(self, in);
    case BOP_RAFT_VOTE:
        return receive_vote(self, in);
    case BOP_RAFT_VOTE_RESULT:
        return receive_vote_result(self, in);
    case BOP_RAFT_INSTALL:
        return receive_install(self, in);
    case BOP_RAFT_TIMEOUT_NOW:
        return receive_timeout_now(self, in);
    default:
        return drop(self);
    }
}

/* ---- Out ---- */

static void fill_append(const struct etcd_message *in, struct bop_raft_message *out)
{
    out->append.prev_index = in->type == ETCD_APP ? in->index : 0;
    out->append.prev_term = in->type == ETCD_APP ? in->log_term : 0;
    out->append.count = in->type == ETCD_APP ? in->count : 0;
    /* From entry 0 and without entries it will be taken for a heartbeat: it says as much. */
    out->append.commit = in->type == ETCD_APP && in->index + in->count == 0 ? 0 : in->commit;
    out->append.entries = NULL;
}

static void fill_append_result(const struct etcd_message *in, struct bop_raft_message *out)
{
    out->append_result.rejected = in->reject ? in->index : 0;
    out->append_result.last_index = in->reject ? in->hint : in->index;
    out->append_result.features = 0;
    out->append_result.capacity = 0;
}

static void fill_vote(const struct etcd_engine *self, const struct etcd_message *in,
                      struct bop_raft_message *out)
{
    out->vote.candidate = self->id;
    out->vote.last_index = in->index;
    out->vote.last_term = in->log_term;
    out->vote.disrupt_leader = in->transfer;
    out->vote.pre_vote = in->type == ETCD_PRE_VOTE;
}

static void fill_vote_result(const struct etcd_message *in, struct bop_raft_message *out)
{
    out->vote_result.granted = !in->reject;
    out->vote_result.pre_vote = in->type == ETCD_PRE_VOTE_RESULT;
    out->vote_result.features = 0;
    out->vote_result.capacity = 0;
}

static enum bop_raft_message_type type_of(uint32_t type)
{
    switch (type) {
    case ETCD_APP:
    case ETCD_HEARTBEAT:
        return BOP_RAFT_APPEND;
    case ETCD_APP_RESULT:
    case ETCD_HEARTBEAT_RESULT:
        return BOP_RAFT_APPEND_RESULT;
    case ETCD_VOTE:
    case ETCD_PRE_VOTE:
        return BOP_RAFT_VOTE;
    case ETCD_VOTE_RESULT:
    case ETCD_PRE_VOTE_RESULT:
        return BOP_RAFT_VOTE_RESULT;
    case ETCD_SNAPSHOT:
        return BOP_RAFT_INSTALL;
    default:
        BOP_ASSERT(type == ETCD_TIMEOUT_NOW);
        return BOP_RAFT_TIMEOUT_NOW;
    }
}

static void put(struct etcd_engine *self, const struct etcd_message *in)
{
    enum bop_raft_message_type type = type_of(in->type);
    struct bop_raft_message *out = bop__raft_outbox_message(&self->out, type, in->peer, in->term);

    if (!out) {
        return;
    }
    switch (type) {
    case BOP_RAFT_APPEND:
        fill_append(in, out);
        break;
    case BOP_RAFT_APPEND_RESULT:
        fill_append_result(in, out);
        break;
    case BOP_RAFT_VOTE:
        fill_vote(self, in, out);
        break;
    case BOP_RAFT_VOTE_RESULT:
        fill_vote_result(in, out);
        break;
    case BOP_RAFT_INSTALL:
        out->install = self->snapshot;
        break;
    default:
        out->timeout_now.last_index = in->index;
        out->timeout_now.last_term = in->log_term;
    }
}

void bop__etcd_put_messages(struct etcd_engine *self)
{
    for (uint32_t i = 0; i < self->ready.message_count; i++) {
        put(self, &self->ready.messages[i]);
    }
}
