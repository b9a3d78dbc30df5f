/*
 * A node that asks to be added: it begins with an empty log, asks every peer it
 * knows until it finds itself in the configuration, and whoever leads adds it as
 * standby and makes it a voter once it has caught up. It may not know the leader: those
 * whom it asks pass that on.
 *
 * The configuration in which it finds itself may never be committed: then the next
 * leader does not know it and says nothing to it. So it asks as well while it knows
 * no leader; one that has it already ignores that.
 */
#include "replica_internal.h"

#define JOIN_ASK_MS 500

static bool is_member(const struct bop_raft_configuration *conf, uint64_t id)
{
    return bop__member_find(conf, id) != NULL;
}

/* Ask a peer to add the node `id`. */
static void ask(struct replica *replica, uint64_t peer, uint64_t id, struct bop_slice text)
{
    size_t at;
    struct bop_buf *out = bop__replica_frame_begin(replica, peer, &at);
    struct bop_writer writer;

    if (!out) {
        return;
    }
    writer = bop_writer(out);
    bop_write_u64(&writer, id);
    bop_write_bytes(&writer, text);
    bop__replica_frame_end(replica, peer, out, at, BOP_WIRE_KIND_PEER_JOIN, &writer);
}

int bop__replica_change(struct replica *replica, const struct bop_raft_configuration *conf)
{
    struct bop_raft_event event = {
        .type = BOP_RAFT_EVENT_CHANGE, .now_ms = replica->now_ms, .change = conf};

    return bop__replica_step(replica, &event);
}

static bool is_learner(const struct bop_raft_server *server)
{
    struct member member;

    bop__member_of(server, &member);
    return member.learner;
}

/* It is so near to the end of the log that it may get a vote, and holds the configuration that has
 * it: else it would not know that it may vote. */
bool bop__replica_caught_up(const struct replica *replica, uint64_t id)
{
    uint64_t match = bop_raft_match_index(replica->raft, id);

    return match + JOIN_CAUGHT_UP >= replica->status.last_index &&
           match >= replica->members.committed_index;
}

/* Leader: make the first standby that is to be a voter and has caught up one. */
static void promote(struct replica *replica)
{
    struct bop_raft_configuration conf = replica->conf;

    if (!replica->status.ready || replica->status.changing) {
        return;
    }
    for (unsigned n = 0; n < conf.count; n++) {
        struct bop_raft_server *server = &conf.servers[n];

        if (server->role == BOP_RAFT_STANDBY && !is_learner(server) &&
            bop__replica_caught_up(replica, server->id)) {
            server->role = BOP_RAFT_VOTER;
            bop_log(replica->options.log, BOP_LOG_INFO, "raft", "promote node=%" PRIu64,
                    server->id);
            /* Refused while another change is under way: the next turn tries again. */
            BOP_IGNORE(bop__replica_change(replica, &conf));
            return;
        }
    }
}

void bop__replica_join_turn(struct replica *replica)
{
    char text[MEMBER_TEXT_MAX];

    if (replica->status.state == BOP_RAFT_LEADER) {
        promote(replica);
        return;
    }
    if (!replica->options.join || replica->members.file.state != MEMBER_NO ||
        replica->now_ms < replica->join_ms ||
        (replica->status.leader != 0 && is_member(&replica->conf, replica->options.id))) {
        return;
    }
    replica->join_ms = replica->now_ms + JOIN_ASK_MS;
    bop__replica_introduction(replica, text);
    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        if (replica->peers[n].connected) {
            ask(replica, replica->peers[n].id, replica->options.id, bop_slice_cstr(text));
        }
    }
}

/* What one of them says of itself goes to the leader, what others pass on goes nowhere else. */
static void pass_on(struct replica *replica, uint64_t peer, uint64_t id, struct bop_slice text)
{
    uint64_t leader = replica->status.leader;

    if (peer == id && leader != 0 && leader != replica->options.id && leader != peer) {
        ask(replica, leader, id, text);
    }
}

int bop__replica_join_asked(struct replica *replica, uint64_t peer, struct bop_slice payload)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_raft_configuration conf = replica->conf;
    struct bop_raft_server server = {.id = bop_read_u64(&reader), .role = BOP_RAFT_STANDBY};
    struct bop_slice text = bop_read_string(&reader);
    struct member member;

    if (!bop_reader_done(&reader) || server.id == 0 || bop__member_parse(text, &member) < 0) {
        return BOP_EMALFORMED;
    }
    if (bop__replica_was_removed(replica, &member)) {
        /* It may have asked while it was one, and that took its time to come here. If it is there
         * still, and even if it has not heard that it was one, it hears why when it says hello. */
        return peer == server.id ? BOP_EREMOVED : 0;
    }
    if (replica->status.state != BOP_RAFT_LEADER) {
        pass_on(replica, peer, server.id, text);
        return 0;
    }
    if (!replica->status.ready || replica->status.changing || is_member(&conf, server.id) ||
        conf.count == BOP_RAFT_SERVERS_MAX) {
        return 0;
    }
    /* What it says of itself beyond that counts for its connection only. */
    member.priority = BOP_ADMIN_PRIORITY;
    member.since = 0;
    member.level = 0;
    if (bop__member_format(&member, server.address) < 0) {
        return BOP_EMALFORMED;
    }
    conf.servers[conf.count++] = server;
    bop_log(replica->options.log, BOP_LOG_INFO, "raft", "add node=%" PRIu64 " at %s", server.id,
            server.address);
    /* Refused while another change is under way: it asks again. */
    BOP_IGNORE(bop__replica_change(replica, &conf));
    return 0;
}
