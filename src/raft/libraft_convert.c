/*
 * Between our types and libraft's. See engine_libraft.h.
 */
#include "engine_libraft.h"

#define RAW_CAPACITY_FIRST 64

static const int libraft_roles[] = {
    [BOP_RAFT_VOTER] = RAFT_VOTER,
    [BOP_RAFT_STANDBY] = RAFT_STANDBY,
    [BOP_RAFT_SPARE] = RAFT_SPARE,
};

static enum bop_raft_role role_of(int role)
{
    switch (role) {
    case RAFT_VOTER:
        return BOP_RAFT_VOTER;
    case RAFT_STANDBY:
        return BOP_RAFT_STANDBY;
    default:
        return BOP_RAFT_SPARE;
    }
}

int bop__libraft_reserve_raw(struct libraft *self, size_t count)
{
    size_t capacity = self->raw_capacity > 0 ? self->raw_capacity : RAW_CAPACITY_FIRST;
    struct raft_entry *raw;

    if (count <= self->raw_capacity) {
        return 0;
    }
    while (capacity < count) {
        capacity *= 2;
    }
    raw = bop_alloc_array(self->allocator, capacity, sizeof(*raw));
    if (!raw) {
        return BOP_ENOMEM;
    }
    bop_free(self->allocator, self->raw, self->raw_capacity * sizeof(*raw));
    self->raw = raw;
    self->raw_capacity = capacity;
    bop__libraft_heap_lend(&self->heap, 1, raw, capacity * sizeof(*raw));
    return 0;
}

void bop__libraft_lend_entries(struct libraft *self, const struct bop_raft_entry *entries,
                               size_t count)
{
    for (size_t i = 0; i < count; i++) {
        self->raw[i] = (struct raft_entry){
            .term = entries[i].term,
            .type = (enum raft_entry_type)entries[i].type,
            /* The core reads the payload of a CHANGE and never writes any. */
            .buf.base = (void *)(uintptr_t)entries[i].data.data,
            .buf.len = entries[i].data.size,
            .batch = self->payload,
        };
    }
    self->source = entries;
}

void bop__libraft_lend_configuration(struct libraft_conf *lent,
                                     const struct bop_raft_configuration *conf)
{
    for (unsigned i = 0; i < conf->count; i++) {
        lent->servers[i].id = conf->servers[i].id;
        lent->servers[i].role = libraft_roles[conf->servers[i].role];
        lent->servers[i].address = (char *)(uintptr_t)conf->servers[i].address;
    }
    lent->conf.servers = lent->servers;
    lent->conf.n = conf->count;
}

int bop__libraft_copy_configuration(struct libraft *self, const struct raft_configuration *conf,
                                    struct raft_configuration *out_conf)
{
    int rv = 0;

    raft_configuration_init(out_conf);
    bop__libraft_heap_enter(&self->heap);
    for (unsigned i = 0; rv == 0 && i < conf->n; i++) {
        const struct raft_server *server = &conf->servers[i];

        rv = raft_configuration_add(out_conf, server->id, server->address, server->role);
    }
    if (rv != 0) {
        raft_configuration_close(out_conf);
    }
    bop__libraft_heap_leave(&self->heap);
    /* The servers come from a valid configuration, so nothing else can be wrong. */
    return rv == 0 ? 0 : BOP_ENOMEM;
}

int bop__libraft_give_configuration(struct libraft *self, const struct bop_raft_configuration *conf,
                                    struct raft_configuration *out_conf)
{
    struct libraft_conf lent;

    bop__libraft_lend_configuration(&lent, conf);
    return bop__libraft_copy_configuration(self, &lent.conf, out_conf);
}

void bop__libraft_read_configuration(const struct raft_configuration *conf,
                                     struct bop_raft_configuration *out_conf)
{
    BOP_ASSERT(conf->n <= BOP_RAFT_SERVERS_MAX);
    out_conf->count = conf->n;
    for (unsigned i = 0; i < conf->n; i++) {
        struct bop_raft_server *server = &out_conf->servers[i];
        size_t length = strlen(conf->servers[i].address);

        BOP_ASSERT(length < sizeof(server->address));
        server->id = conf->servers[i].id;
        server->role = role_of(conf->servers[i].role);
        memcpy(server->address, conf->servers[i].address, length + 1);
    }
}

/* The core's trail is a ring of (last index, term), the first entry being offset + 1. */
uint64_t bop__libraft_term_of(const struct raft *core, uint64_t index)
{
    const struct raft_trail *trail = &core->trail;

    if (index > trail->offset) {
        for (unsigned at = trail->front; at != trail->back; at = (at + 1) % trail->size) {
            if (index <= trail->records[at].index) {
                return trail->records[at].term;
            }
        }
    }
    return index > 0 && index == trail->snapshot.index ? trail->snapshot.term : 0;
}

static void put_install(struct libraft *self, const struct raft_message *in)
{
    struct bop_raft_message *out;
    struct libraft_peer *peer;

    if (self->snapshot.index == 0) {
        return; /* The core speaks of a snapshot only after it was told of one. */
    }
    peer = bop__libraft_peer(self, in->server_id);
    if (peer) {
        peer->install_index = in->install_snapshot.last_index;
        peer->install_lost = false;
        peer->sent_ms = self->now_ms;
    }
    out = bop__raft_outbox_message(&self->out, BOP_RAFT_INSTALL, in->server_id,
                                   in->install_snapshot.term);
    if (out) {
        out->install = self->snapshot;
    }
}

static void put_append(struct libraft *self, const struct raft_message *in)
{
    const struct raft_append_entries *args = &in->append_entries;
    struct bop_raft_message *out = bop__raft_outbox_message(&self->out, BOP_RAFT_APPEND,
                                                            in->server_id, args->term);

    if (out) {
        out->append.prev_index = args->prev_log_index;
        out->append.prev_term = args->prev_log_term;
        out->append.commit = args->leader_commit;
        out->append.entries = NULL;
        out->append.count = args->n_entries;
    }
}

static void put_append_result(struct libraft *self, const struct raft_message *in)
{
    const struct raft_append_entries_result *args = &in->append_entries_result;
    struct bop_raft_message *out = bop__raft_outbox_message(&self->out, BOP_RAFT_APPEND_RESULT,
                                                            in->server_id, args->term);

    if (out) {
        out->append_result.rejected = args->rejected;
        out->append_result.last_index = args->last_log_index;
        out->append_result.features = args->features;
        out->append_result.capacity = args->capacity;
    }
}

static void put_vote(struct libraft *self, const struct raft_message *in)
{
    const struct raft_request_vote *args = &in->request_vote;
    struct bop_raft_message *out = bop__raft_outbox_message(&self->out, BOP_RAFT_VOTE,
                                                            in->server_id, args->term);

    if (out) {
        out->vote.candidate = args->candidate_id;
        out->vote.last_index = args->last_log_index;
        out->vote.last_term = args->last_log_term;
        out->vote.disrupt_leader = args->disrupt_leader;
        out->vote.pre_vote = args->pre_vote;
    }
}

static void put_vote_result(struct libraft *self, const struct raft_message *in)
{
    const struct raft_request_vote_result *args = &in->request_vote_result;
    struct bop_raft_message *out = bop__raft_outbox_message(&self->out, BOP_RAFT_VOTE_RESULT,
                                                            in->server_id, args->term);

    if (out) {
        out->vote_result.granted = args->vote_granted;
        out->vote_result.pre_vote = args->pre_vote;
        out->vote_result.features = args->features;
        out->vote_result.capacity = args->capacity;
    }
}

static void put_timeout_now(struct libraft *self, const struct raft_message *in)
{
    const struct raft_timeout_now *args = &in->timeout_now;
    struct bop_raft_message *out = bop__raft_outbox_message(&self->out, BOP_RAFT_TIMEOUT_NOW,
                                                            in->server_id, args->term);

    if (out) {
        out->timeout_now.last_index = args->last_log_index;
        out->timeout_now.last_term = args->last_log_term;
    }
}

void bop__libraft_put_message(struct libraft *self, const struct raft_message *message)
{
    if (message->server_id == 0) {
        return; /* To a leader that forget_leader() has forgotten. */
    }
    switch (message->type) {
    case RAFT_APPEND_ENTRIES:
        put_append(self, message);
        break;
    case RAFT_APPEND_ENTRIES_RESULT:
        put_append_result(self, message);
        break;
    case RAFT_REQUEST_VOTE:
        put_vote(self, message);
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        put_vote_result(self, message);
        break;
    case RAFT_INSTALL_SNAPSHOT:
        put_install(self, message);
        break;
    case RAFT_TIMEOUT_NOW:
        put_timeout_now(self, message);
        break;
    }
}
