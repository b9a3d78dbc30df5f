/*
 * Changes that an operator asks for, judged before they are made.
 *
 * A request that this node cannot answer goes to the leader and is answered from
 * there. If the leader is lost meanwhile nobody knows what became of a change, and that
 * is the answer. Consensus takes one change at a time, and the next one only when every
 * voter that is alive has the last one: until then the answer is BUSY.
 *
 * Judging comes before consensus and is stricter: consensus would take a change that
 * leaves more voters than are alive to agree on anything again.
 */
#include "replica_internal.h"

#include <stdio.h>

#define ADMIN_DEADLINE_MS  8000 /* Of a request, leaders sought and commits waited for. */
#define TRANSFER_TIMEOUTS  4    /* Election timeouts in which leadership must have gone over. */
#define TRANSFER_LAG_MAX   1000 /* Entries that one who is to lead may lack. */
#define QUORUM_OF(voters)  ((voters) / 2 + 1)
#define SURVIVES(strength) ((strength).alive - (strength).quorum)

/* ---- Answering ---- */

static struct replica_admin *find_waiting(struct replica *replica, uint64_t id)
{
    BOP_LIST_FOR_EACH(link, &replica->admins.waiting) {
        struct replica_admin *admin = BOP_CONTAINER_OF(link, struct replica_admin, link);

        if (admin->id == id) {
            return admin;
        }
    }
    return NULL;
}

static void finish(struct replica_admin *admin, struct bop_slice response)
{
    bop_list_remove(&admin->link);
    admin->done(admin, response);
}

/* Send what lies in admins.out to whoever asked. */
static void answer(struct replica *replica, struct admin_origin origin,
                   const struct bop_writer *writer)
{
    struct bop_slice response = bop_buf_slice(&replica->admins.out);
    struct replica_admin *admin;
    struct bop_writer to_peer;
    struct bop_buf *out;
    size_t at;

    if (writer->code < 0) {
        return; /* No memory for it: the request ends with its deadline. */
    }
    if (origin.peer == 0) {
        admin = find_waiting(replica, origin.request);
        if (admin) {
            finish(admin, response);
        }
        return;
    }
    out = bop__replica_frame_begin(replica, origin.peer, &at);
    if (out) {
        to_peer = bop_writer(out);
        bop_write_u64(&to_peer, origin.request);
        bop_write_raw(&to_peer, response);
        bop__replica_frame_end(replica, origin.peer, out, at, BOP_WIRE_KIND_PEER_ADMIN_DONE,
                               &to_peer);
    }
}

static struct bop_writer begin_answer(struct replica *replica)
{
    bop_buf_clear(&replica->admins.out);
    return bop_writer(&replica->admins.out);
}

static void answer_change(struct replica *replica, struct admin_origin origin,
                          const struct bop_admin_change_response *response)
{
    struct bop_writer writer = begin_answer(replica);

    bop_admin_change_response_encode(&writer, response);
    answer(replica, origin, &writer);
}

static void answer_transfer(struct replica *replica, struct admin_origin origin, uint8_t code,
                            const char *text)
{
    struct bop_admin_transfer_response response = {
        .code = code, .text = bop_slice_cstr(text), .leader = replica->status.leader};
    struct bop_writer writer = begin_answer(replica);

    bop_admin_transfer_response_encode(&writer, &response);
    answer(replica, origin, &writer);
}

/* Answer a request of any kind with no more than a code and its sentence. */
static void refuse(struct replica *replica, struct admin_origin origin, uint16_t kind, uint8_t code,
                   const char *text)
{
    struct bop_admin_change_response change = {.code = code, .text = bop_slice_cstr(text)};
    struct bop_admin_members members = {.code = code, .text = bop_slice_cstr(text)};
    struct bop_admin_params params = {.code = code, .text = bop_slice_cstr(text)};
    struct bop_writer writer;

    switch (kind) {
    case BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST:
        answer_change(replica, origin, &change);
        return;
    case BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST:
        answer_transfer(replica, origin, code, text);
        return;
    case BOP_WIRE_KIND_CLUSTER_MEMBERS_REQUEST:
        writer = begin_answer(replica);
        bop_admin_members_encode(&writer, &members);
        answer(replica, origin, &writer);
        return;
    default:
        writer = begin_answer(replica);
        bop_admin_params_response_encode(&writer, &params);
        answer(replica, origin, &writer);
        return;
    }
}

/* ---- Who is there ---- */

static bool is_alive(struct replica *replica, uint64_t id)
{
    const struct replica_peer *peer = bop__replica_peer(replica, id);

    return id == replica->options.id ||
           (peer && peer->connected && peer->heard_ms != 0 &&
            replica->now_ms - peer->heard_ms < UINT64_C(2) * replica->options.election_timeout_ms);
}

static struct bop_admin_strength strength_of(struct replica *replica,
                                             const struct bop_raft_configuration *conf)
{
    struct bop_admin_strength strength = {0};

    for (unsigned n = 0; n < conf->count; n++) {
        if (conf->servers[n].role == BOP_RAFT_VOTER) {
            strength.voters++;
            strength.alive += is_alive(replica, conf->servers[n].id);
        }
    }
    strength.quorum = (uint8_t)QUORUM_OF(strength.voters);
    return strength;
}

static uint64_t lag_of(struct replica *replica, uint64_t id)
{
    uint64_t match = id == replica->options.id ? replica->durable
                                               : bop_raft_match_index(replica->raft, id);

    return replica->status.last_index - bop_min_u64(match, replica->status.last_index);
}

static void fill_server(struct replica *replica, const struct bop_raft_server *server,
                        struct bop_admin_server *out)
{
    bool self = server->id == replica->options.id;
    const struct replica_peer *peer = bop__replica_peer(replica, server->id);
    struct member member;

    bop__member_of(server, &member);
    *out = (struct bop_admin_server){
        .id = server->id,
        .address = bop__member_address(server->address),
        .role = (uint8_t)server->role,
        .learner = member.learner,
        .priority = member.priority,
        .incarnation = member.incarnation,
        .connected = self || (peer && peer->connected),
        .match = self ? replica->durable : bop_raft_match_index(replica->raft, server->id),
        .silent_ms = self                     ? 0
                     : peer && peer->heard_ms ? replica->now_ms - peer->heard_ms
                                              : UINT64_MAX,
        .level = self   ? replica->options.level
                 : peer ? peer->level
                        : 0,
    };
}

static void tell_members(struct replica *replica, struct admin_origin origin)
{
    struct bop_admin_members members = {
        .leader = replica->options.id,
        .term = replica->status.term,
        .commit = replica->status.commit,
        .configuration_index = bop__replica_configuration_index(replica),
        .changing = replica->status.changing,
        .count = (uint8_t)replica->conf.count,
    };
    struct bop_writer writer = begin_answer(replica);

    for (unsigned n = 0; n < replica->conf.count; n++) {
        fill_server(replica, &replica->conf.servers[n], &members.servers[n]);
    }
    bop_admin_members_encode(&writer, &members);
    answer(replica, origin, &writer);
}

/* ---- Judging a change ---- */

struct judgment {
    struct replica *replica;
    const struct bop_admin_change_request *request;
    struct bop_raft_configuration conf; /* As it is to be. */
    struct bop_raft_server *server;     /* Of it, the one that is changed; NULL: it is gone. */
    bool nothing;                       /* It is so already. */
    uint8_t code;
    char text[BOP_ADMIN_TEXT_MAX];
};

static BOP_PRINTF(3, 4) void judge(struct judgment *judgment, uint8_t code, const char *format, ...)
{
    va_list args;

    judgment->code = code;
    va_start(args, format);
    vsnprintf(judgment->text, sizeof(judgment->text), format, args);
    va_end(args);
}

/* "host:port" or "[v6]:port", with a port. */
static bool is_address(struct bop_slice text)
{
    size_t digits = 0, at = text.size;
    unsigned port = 0, scale = 1;

    if (text.size == 0 || text.size > MEMBER_ADDRESS_MAX || memchr(text.data, ';', text.size) ||
        memchr(text.data, ' ', text.size) || memchr(text.data, '\0', text.size)) {
        return false;
    }
    for (; at > 0 && text.data[at - 1] >= '0' && text.data[at - 1] <= '9' && digits < 6; at--) {
        port += (text.data[at - 1] - (unsigned)'0') * scale;
        scale *= 10;
        digits++;
    }
    return digits > 0 && digits < 6 && port > 0 && port <= UINT16_MAX && at > 1 &&
           text.data[at - 1] == ':';
}

/* The entry of the configuration that the change begins with: a committed one, or the change is
 * not taken. */
static uint64_t configuration_index(const struct replica *replica)
{
    struct bop_raft_configuration conf;
    uint64_t index;

    bop_raft_configuration(replica->raft, &conf, &index);
    return bop_max_u64(1, index);
}

static void judge_add(struct judgment *j)
{
    const struct bop_admin_change_request *in = j->request;
    struct member member = {.priority = in->priority,
                            .learner = (in->flags & BOP_ADMIN_VOTER) == 0,
                            .since = configuration_index(j->replica)};
    struct bop_raft_server *server;

    if (!is_address(in->address)) {
        judge(j, BOP_ADMIN_BAD_REQUEST, "an address is HOST:PORT, of at most %d bytes",
              MEMBER_ADDRESS_MAX);
        return;
    }
    for (unsigned n = 0; n < j->conf.count; n++) {
        const struct bop_raft_server *other = &j->conf.servers[n];
        bool same = bop_slice_equal(bop__member_address(other->address), in->address);

        if (other->id == in->node && same) {
            j->nothing = true;
            judge(j, BOP_ADMIN_OK, "node %" PRIu64 " is a server of the cluster already", in->node);
            return;
        }
        if (other->id == in->node || same) {
            judge(j, BOP_ADMIN_EXISTS, "node %" PRIu64 " at %.*s is a server of the cluster",
                  other->id, (int)bop__member_address(other->address).size, other->address);
            return;
        }
    }
    if (j->conf.count == BOP_RAFT_SERVERS_MAX) {
        judge(j, BOP_ADMIN_TOO_MANY, "a cluster has at most %d servers: remove one first",
              BOP_RAFT_SERVERS_MAX);
        return;
    }
    memcpy(member.address, in->address.data, in->address.size);
    server = &j->conf.servers[j->conf.count++];
    *server = (struct bop_raft_server){.id = in->node, .role = BOP_RAFT_STANDBY};
    BOP_IGNORE(bop__member_format(&member, server->address)); /* The address is short enough. */
    judge(j, BOP_ADMIN_OK, "node %" PRIu64 " gets the log and has no vote%s", in->node,
          member.learner ? "" : " until it has caught up");
}

static void set_learner(struct bop_raft_server *server, bool learner)
{
    struct member member;
    char text[MEMBER_TEXT_MAX];

    bop__member_of(server, &member);
    member.learner = learner;
    if (bop__member_format(&member, text) == 0) {
        memcpy(server->address, text, sizeof(text));
    }
}

static void judge_promote(struct judgment *j)
{
    uint64_t id = j->server->id, lag = lag_of(j->replica, id);

    if (j->server->role == BOP_RAFT_VOTER) {
        j->nothing = true;
        judge(j, BOP_ADMIN_OK, "node %" PRIu64 " has a vote already", id);
        return;
    }
    j->server->role = BOP_RAFT_VOTER;
    set_learner(j->server, false);
    if (!is_alive(j->replica, id)) {
        judge(j, BOP_ADMIN_LAGS,
              "node %" PRIu64
              " cannot be reached: start it (with --join if it is new), then promote "
              "it",
              id);
    } else if (!bop__replica_caught_up(j->replica, id)) {
        judge(j, BOP_ADMIN_LAGS,
              "node %" PRIu64 " lacks %" PRIu64 " entries of the log: it is promoted once it lacks "
              "at most %d, and has the one that added it",
              id, lag, JOIN_CAUGHT_UP);
    } else {
        judge(j, BOP_ADMIN_OK, "node %" PRIu64 " has a vote", id);
    }
}

/* Leadership goes first, for a leader cannot take itself out in good order. */
static bool judge_leader(struct judgment *j)
{
    struct replica *replica = j->replica;
    uint64_t id = j->request->node;
    struct bop_admin_strength strength = strength_of(replica, &replica->conf);

    if (id != replica->options.id) {
        return false;
    }
    if (strength.voters < 2) {
        judge(j, BOP_ADMIN_REFUSED, "node %" PRIu64 " is the only voter: promote another one first",
              id);
        return true;
    }
    if (strength.alive < 2) {
        judge(j, BOP_ADMIN_NO_QUORUM, "no other voter is up to lead in place of node %" PRIu64, id);
        return true;
    }
    judge(j, BOP_ADMIN_MOVING, "node %" PRIu64 " leads and hands over first: ask again in a moment",
          id);
    return true;
}

static void judge_demote(struct judgment *j)
{
    uint64_t id = j->server->id;

    if (j->server->role != BOP_RAFT_VOTER) {
        j->nothing = true;
        judge(j, BOP_ADMIN_OK, "node %" PRIu64 " has no vote already", id);
        return;
    }
    j->server->role = BOP_RAFT_STANDBY;
    set_learner(j->server, true);
    if (!judge_leader(j)) {
        judge(j, BOP_ADMIN_OK, "node %" PRIu64 " has no vote any more and goes on getting the log",
              id);
    }
}

static void judge_remove(struct judgment *j)
{
    size_t at = (size_t)(j->server - j->conf.servers);
    uint64_t id = j->server->id;

    memmove(j->server, j->server + 1, (j->conf.count - at - 1) * sizeof(*j->server));
    j->conf.count--;
    j->server = NULL;
    if (!judge_leader(j)) {
        judge(j, BOP_ADMIN_OK,
              "node %" PRIu64 " is removed: its data directory is of no use any "
              "more",
              id);
    }
}

static void judge_priority(struct judgment *j)
{
    struct member member;
    char text[MEMBER_TEXT_MAX];

    bop__member_of(j->server, &member);
    j->nothing = member.priority == j->request->priority;
    member.priority = j->request->priority;
    if (bop__member_format(&member, text) < 0) {
        judge(j, BOP_ADMIN_REFUSED, "the address of node %" PRIu64 " is too long for a priority",
              j->server->id);
        return;
    }
    memcpy(j->server->address, text, sizeof(text));
    judge(j, BOP_ADMIN_OK, "node %" PRIu64 " has priority %" PRIu32 "%s", j->server->id,
          member.priority, member.priority == 0 ? " and leads only while nobody else can" : "");
}

static void judge_request(struct judgment *j)
{
    const struct bop_admin_change_request *in = j->request;
    const struct bop_raft_server *found = bop__member_find(&j->conf, in->node);

    if (in->action < BOP_ADMIN_ADD || in->action > BOP_ADMIN_PRIORITY_SET || in->node == 0 ||
        (in->flags & ~(BOP_ADMIN_PLAN | BOP_ADMIN_VOTER)) != 0 ||
        in->priority > BOP_ADMIN_PRIORITY_MAX) {
        judge(j, BOP_ADMIN_BAD_REQUEST, "an action, a node or a priority that cannot be");
        return;
    }
    if (in->action == BOP_ADMIN_ADD) {
        judge_add(j);
        return;
    }
    if (!found) {
        judge(j, BOP_ADMIN_UNKNOWN_NODE, "the cluster has no node %" PRIu64, in->node);
        return;
    }
    j->server = &j->conf.servers[found - j->conf.servers];
    switch ((enum bop_admin_action)in->action) {
    case BOP_ADMIN_PROMOTE:
        judge_promote(j);
        break;
    case BOP_ADMIN_DEMOTE:
        judge_demote(j);
        break;
    case BOP_ADMIN_REMOVE:
        judge_remove(j);
        break;
    case BOP_ADMIN_PRIORITY_SET:
        judge_priority(j);
        break;
    case BOP_ADMIN_ADD:
        break;
    }
}

/* Whatever it is: voters that are alive must be enough to go on. */
static void judge_strength(struct judgment *j, const struct bop_admin_strength *after)
{
    if (j->code != BOP_ADMIN_OK || j->nothing) {
        return;
    }
    if (after->voters == 0) {
        judge(j, BOP_ADMIN_REFUSED, "the last voter cannot go: promote another one first");
    } else if (after->alive < after->quorum) {
        judge(
            j, BOP_ADMIN_NO_QUORUM,
            "of the %u voters there would be %u must be up, and only %u are: start or remove those "
            "that are down first",
            after->voters, after->quorum, after->alive);
    }
}

/* ---- Making it ---- */

static uint8_t code_of_refusal(int rc)
{
    return rc == BOP_EBUSY        ? BOP_ADMIN_BUSY
           : rc == BOP_ENOTLEADER ? BOP_ADMIN_NO_LEADER
                                  : BOP_ADMIN_REFUSED;
}

static void submit(struct judgment *j, struct admin_origin origin,
                   struct bop_admin_change_response *response)
{
    struct replica *replica = j->replica;
    struct replica_admins *admins = &replica->admins;
    int rc;

    if (admins->change.active) {
        judge(j, BOP_ADMIN_BUSY, "another change is under way");
    } else {
        rc = bop__replica_change(replica, &j->conf);
        if (rc == 0) {
            response->index = replica->status.last_index;
            admins->change.active = true;
            admins->change.origin = origin;
            admins->change.term = replica->status.term;
            admins->change.response = *response;
            memcpy(admins->change.text, j->text, sizeof(j->text));
            bop_log(replica->options.log, BOP_LOG_INFO, "member", "change index=%" PRIu64 ": %s",
                    response->index, j->text);
            return;
        }
        judge(j, code_of_refusal(rc), "%s", bop_raft_last_error(replica->raft));
    }
    response->code = j->code;
    response->text = bop_slice_cstr(j->text);
    answer_change(replica, origin, response);
}

static void serve_change(struct replica *replica, struct admin_origin origin,
                         const struct bop_admin_change_request *request)
{
    struct judgment j = {.replica = replica, .request = request, .conf = replica->conf};
    struct bop_admin_change_response response = {0};

    judge_request(&j);
    response.before = strength_of(replica, &replica->conf);
    response.after = strength_of(replica, &j.conf);
    judge_strength(&j, &response.after);
    response.code = j.code;
    response.text = bop_slice_cstr(j.text);
    if ((request->flags & BOP_ADMIN_PLAN) != 0 || j.nothing ||
        (j.code != BOP_ADMIN_OK && j.code != BOP_ADMIN_MOVING)) {
        answer_change(replica, origin, &response);
        return;
    }
    if (j.code == BOP_ADMIN_OK) {
        submit(&j, origin, &response);
        return;
    }
    /* If it cannot begin now, the next request tries again. */
    BOP_IGNORE(bop__replica_transfer_to(replica, 0));
    answer_change(replica, origin, &response);
}

/* Tell the one who asked, once it is known what became of the change. */
static void look_at_change(struct replica *replica)
{
    struct replica_admins *admins = &replica->admins;
    struct bop_raft_configuration conf;
    uint64_t committed;

    bop_raft_configuration(replica->raft, &conf, &committed);
    admins->change.response.text = bop_slice_cstr(admins->change.text);
    if (committed < admins->change.response.index) {
        if (replica->status.state == BOP_RAFT_LEADER &&
            replica->status.term == admins->change.term) {
            return;
        }
        admins->change.response.code = BOP_ADMIN_UNCERTAIN;
        admins->change.response.text = bop_slice_cstr(
            "leadership was lost meanwhile: look at the members, then ask again");
    }
    admins->change.active = false;
    answer_change(replica, admins->change.origin, &admins->change.response);
}

/* ---- Transfer ---- */

int bop__replica_transfer_to(struct replica *replica, uint64_t peer)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_TRANSFER, .peer = peer};

    replica->now_ms = bop_clock_monotonic_ms(replica->options.clock);
    event.now_ms = replica->now_ms;
    if (replica->status.state != BOP_RAFT_LEADER) {
        return BOP_ENOTLEADER;
    }
    return bop__replica_step(replica, &event);
}

/* Why this one cannot lead; OK: it can. */
static uint8_t judge_successor(struct replica *replica, uint64_t id, char text[BOP_ADMIN_TEXT_MAX])
{
    const struct bop_raft_server *server = bop__member_find(&replica->conf, id);
    uint64_t lag = lag_of(replica, id);

    if (!server) {
        snprintf(text, BOP_ADMIN_TEXT_MAX, "the cluster has no node %" PRIu64, id);
        return BOP_ADMIN_UNKNOWN_NODE;
    }
    if (server->role != BOP_RAFT_VOTER) {
        snprintf(text, BOP_ADMIN_TEXT_MAX, "node %" PRIu64 " has no vote: promote it first", id);
        return BOP_ADMIN_REFUSED;
    }
    if (!is_alive(replica, id)) {
        snprintf(text, BOP_ADMIN_TEXT_MAX, "node %" PRIu64 " cannot be reached", id);
        return BOP_ADMIN_REFUSED;
    }
    if (lag > TRANSFER_LAG_MAX) {
        snprintf(text, BOP_ADMIN_TEXT_MAX, "node %" PRIu64 " lacks %" PRIu64 " entries of the log",
                 id, lag);
        return BOP_ADMIN_LAGS;
    }
    return BOP_ADMIN_OK;
}

static void serve_transfer(struct replica *replica, struct admin_origin origin, uint64_t to)
{
    struct replica_admins *admins = &replica->admins;
    char text[BOP_ADMIN_TEXT_MAX] = "";
    uint8_t code = BOP_ADMIN_OK;
    int rc;

    if (to == replica->options.id) {
        answer_transfer(replica, origin, BOP_ADMIN_OK, "it leads already");
        return;
    }
    if (to != 0) {
        code = judge_successor(replica, to, text);
    }
    if (code == BOP_ADMIN_OK) {
        rc = admins->transfer.active ? BOP_EBUSY : bop__replica_transfer_to(replica, to);
        if (rc == 0) {
            admins->transfer.active = true;
            admins->transfer.origin = origin;
            admins->transfer.to = to;
            admins->transfer.deadline_ms = replica->now_ms +
                                           (uint64_t)TRANSFER_TIMEOUTS *
                                               replica->options.election_timeout_ms;
            return;
        }
        code = code_of_refusal(rc);
        snprintf(text, sizeof(text), "%s",
                 admins->transfer.active ? "another transfer is under way"
                                         : bop_raft_last_error(replica->raft));
    }
    answer_transfer(replica, origin, code, text);
}

static void look_at_transfer(struct replica *replica)
{
    struct replica_admins *admins = &replica->admins;
    uint64_t leader = replica->status.leader;
    bool over = leader != 0 && leader != replica->options.id;
    bool late = replica->now_ms >= admins->transfer.deadline_ms;
    char text[BOP_ADMIN_TEXT_MAX];
    uint8_t code = BOP_ADMIN_REFUSED;

    if (!over && !late) {
        return;
    }
    admins->transfer.active = false;
    if (!over) {
        snprintf(text, sizeof(text), "nobody took over in time");
    } else {
        code = admins->transfer.to == 0 || admins->transfer.to == leader ? BOP_ADMIN_OK : code;
        snprintf(text, sizeof(text), "node %" PRIu64 " leads", leader);
    }
    answer_transfer(replica, admins->transfer.origin, code, text);
}

/* ---- Requests on their way ---- */

/* Leader. */
static void serve(struct replica *replica, struct admin_origin origin, uint16_t kind,
                  struct bop_slice payload)
{
    struct bop_admin_change_request change;
    struct bop_admin_transfer_request transfer;

    if (kind == BOP_WIRE_KIND_CLUSTER_MEMBERS_REQUEST && payload.size == 0) {
        tell_members(replica, origin);
    } else if (kind == BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST &&
               bop_admin_change_request_decode(payload, &change) == 0) {
        serve_change(replica, origin, &change);
    } else if (kind == BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST &&
               bop_admin_transfer_request_decode(payload, &transfer) == 0) {
        serve_transfer(replica, origin, transfer.node);
    } else {
        refuse(replica, origin, kind, BOP_ADMIN_BAD_REQUEST, "a request that cannot be read");
    }
}

static void serve_params(struct replica *replica, struct replica_admin *admin)
{
    struct admin_origin origin = {.request = admin->id};
    struct bop_admin_params params;
    struct bop_writer writer;

    if (bop_admin_params_request_decode(admin->payload, &params) < 0) {
        refuse(replica, origin, admin->kind, BOP_ADMIN_BAD_REQUEST,
               "a request that cannot be read");
        return;
    }
    writer = begin_answer(replica);
    bop__replica_params(replica, &params, &writer);
    answer(replica, origin, &writer);
}

static void send_on(struct replica *replica, struct replica_admin *admin)
{
    uint64_t leader = replica->status.leader;
    size_t at;
    struct bop_buf *out = bop__replica_frame_begin(replica, leader, &at);
    struct bop_writer writer;

    if (!out) {
        return; /* In a later turn. */
    }
    writer = bop_writer(out);
    bop_write_u64(&writer, admin->id);
    bop_write_u16(&writer, admin->kind);
    bop_write_raw(&writer, admin->payload);
    bop__replica_frame_end(replica, leader, out, at, BOP_WIRE_KIND_PEER_ADMIN, &writer);
    if (writer.code == 0) {
        admin->sent_to = leader;
        admin->sent_term = replica->status.term;
    }
}

static bool leader_is_lost(struct replica *replica, const struct replica_admin *admin)
{
    const struct replica_peer *peer = bop__replica_peer(replica, admin->sent_to);

    return admin->sent_to != replica->options.id &&
           (!peer || !peer->connected ||
            (replica->status.leader != 0 && admin->kind == BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST &&
             replica->status.leader != admin->sent_to));
}

static void move_on(struct replica *replica, struct replica_admin *admin)
{
    struct admin_origin origin = {.request = admin->id};

    if (admin->kind == BOP_WIRE_KIND_CLUSTER_PARAMS_REQUEST) {
        serve_params(replica, admin);
    } else if (replica->now_ms >= admin->deadline_ms ||
               (admin->sent_to != 0 && leader_is_lost(replica, admin))) {
        if (admin->sent_to != 0) {
            refuse(replica, origin, admin->kind, BOP_ADMIN_UNCERTAIN,
                   "the leader was lost meanwhile: look at the members, then ask again");
        } else {
            refuse(replica, origin, admin->kind, BOP_ADMIN_NO_LEADER,
                   "nobody leads: are most nodes of the cluster up?");
        }
    } else if (admin->sent_to == 0 && replica->status.state == BOP_RAFT_LEADER) {
        admin->sent_to = replica->options.id;
        serve(replica, origin, admin->kind, admin->payload);
    } else if (admin->sent_to == 0 && replica->status.leader != 0) {
        send_on(replica, admin);
    }
}

void bop__replica_admin(struct replica *replica, struct replica_admin *admin)
{
    admin->id = ++replica->admins.last_id;
    admin->sent_to = 0;
    admin->deadline_ms = replica->now_ms + ADMIN_DEADLINE_MS;
    bop_list_push_back(&replica->admins.waiting, &admin->link);
}

void bop__replica_admins_turn(struct replica *replica)
{
    struct replica_admins *admins = &replica->admins;

    if (admins->change.active) {
        look_at_change(replica);
    }
    if (admins->transfer.active) {
        look_at_transfer(replica);
    }
    BOP_LIST_FOR_EACH_SAFE(link, &admins->waiting) {
        move_on(replica, BOP_CONTAINER_OF(link, struct replica_admin, link));
    }
}

void bop__replica_admins_deinit(struct replica *replica)
{
    BOP_LIST_FOR_EACH_SAFE(link, &replica->admins.waiting) {
        struct replica_admin *admin = BOP_CONTAINER_OF(link, struct replica_admin, link);
        uint64_t id = admin->id; /* Its owner may free it once it is answered. */

        refuse(replica, (struct admin_origin){.request = id}, admin->kind, BOP_ADMIN_UNCERTAIN,
               "the node stops");
        if (find_waiting(replica, id)) {
            finish(admin, bop_slice(NULL, 0)); /* No memory for a sentence. */
        }
    }
    bop_buf_deinit(&replica->admins.out);
}

/* ---- Between nodes ---- */

int bop__replica_admin_asked(struct replica *replica, uint64_t peer, struct bop_slice payload)
{
    struct bop_reader reader = bop_reader(payload);
    struct admin_origin origin = {.peer = peer, .request = bop_read_u64(&reader)};
    uint16_t kind = bop_read_u16(&reader);

    if (reader.failed || kind < BOP_WIRE_KIND_CLUSTER_MEMBERS_REQUEST ||
        kind > BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST || kind % 2 != 0) {
        return BOP_EMALFORMED;
    }
    if (replica->status.state != BOP_RAFT_LEADER) {
        refuse(replica, origin, kind, BOP_ADMIN_NO_LEADER, "the leader leads no more: ask again");
    } else {
        serve(replica, origin, kind, bop_read_raw(&reader, bop_reader_left(&reader)));
    }
    return 0;
}

int bop__replica_admin_answered(struct replica *replica, struct bop_slice payload)
{
    struct bop_reader reader = bop_reader(payload);
    struct replica_admin *admin = find_waiting(replica, bop_read_u64(&reader));

    if (reader.failed) {
        return BOP_EMALFORMED;
    }
    if (admin && admin->sent_to != 0) {
        finish(admin, bop_read_raw(&reader, bop_reader_left(&reader)));
    }
    return 0;
}
