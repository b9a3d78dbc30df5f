/*
 * Members: who they are, and what follows from it.
 *
 * The newest configuration says of each server which data directory it has (its
 * incarnation). That is known of a node that joins; of the servers of a new cluster the
 * leader records it once they have introduced themselves, one change after the other.
 * From then on a node that comes with another directory under the same id is refused by
 * everybody: it has forgotten its votes and what it acknowledged.
 *
 * Whose configuration is newer is right. A node that was replaced while we were away is
 * one that we do not know yet, and tells us so by the entry of its own configuration.
 */
#include "replica_internal.h"

#include <stdio.h>

#define PREFER_FIRST_MS 3000  /* A new leader leads so long before it looks for a better one. */
#define PREFER_AGAIN_MS 10000 /* After an attempt. */
#define PREFER_LAG_MAX  1000  /* Entries that one who is to lead may lack. */
#define TELL_AGAIN_MS   500

/* Drawn from the seed, and no number of the generator that everything else is drawn from. */
static uint64_t draw_incarnation(const struct replica *replica)
{
    struct bop_random random;
    uint64_t number;

    bop_random_seed(&random, replica->options.seed ^ UINT64_C(0x696e6361726e6174));
    do {
        number = bop_random_next(&random);
    } while (number == 0);
    return number;
}

/* It was a member, by a committed configuration. */
static bool is_marked(const struct replica *replica)
{
    return replica->members.belongs || replica->members.file.state == MEMBER_YES;
}

static int member_path(const struct replica *replica, char out_path[PATH_MAX_BYTES])
{
    return bop__replica_path(replica, out_path, "member");
}

int bop__replica_members_open(struct replica *replica, struct bop_error *err)
{
    struct member_file *file = &replica->members.file;
    char path[PATH_MAX_BYTES];
    int rc = member_path(replica, path);

    if (rc < 0) {
        return bop_error_set(err, rc, "%s/member", replica->options.path);
    }
    /* The servers of a new cluster are its members from the beginning, and so is whoever
     * used a directory of before there was this file. */
    rc = bop__member_file_open(file, replica->fs, path, draw_incarnation(replica),
                               replica->options.join ? MEMBER_NO : MEMBER_YES, err);
    if (rc == 0 && file->state == MEMBER_REMOVED) {
        return bop_error_say(err, BOP_EREMOVED,
                             "data directory %s is of node %" PRIu64
                             ", which was removed from its cluster: move it away and start with "
                             "--join and an empty directory to come back",
                             replica->options.path, replica->options.id);
    }
    return rc;
}

static void save_state(struct replica *replica, enum member_state state)
{
    char path[PATH_MAX_BYTES];
    struct bop_error err = {0};

    if (member_path(replica, path) < 0 ||
        bop__member_file_save(&replica->members.file, replica->fs, path, state, &err) < 0) {
        /* Tried again with the next turn of housekeeping, or told again after a restart. */
        bop_log(replica->options.log, BOP_LOG_WARN, "member", "%s", err.message);
    }
}

uint64_t bop__replica_configuration_index(const struct replica *replica)
{
    return replica->members.committed_index;
}

unsigned bop__replica_servers(const struct replica *replica, uint64_t out_ids[REPLICA_SERVERS_MAX])
{
    struct bop_raft_configuration applied = {0};
    unsigned count = 0;

    if (replica->machine &&
        bop_raft_configuration_decode(bop__machine_configuration(replica->machine), &applied) < 0) {
        applied.count = 0; /* None is applied yet. */
    }
    for (unsigned n = 0; n < applied.count; n++) {
        out_ids[count++] = applied.servers[n].id;
    }
    for (unsigned n = 0; n < replica->conf.count; n++) {
        if (!bop__member_find(&applied, replica->conf.servers[n].id)) {
            out_ids[count++] = replica->conf.servers[n].id;
        }
    }
    return count;
}

/* ---- Introductions ---- */

void bop__replica_introduction(const struct replica *replica, char out_text[MEMBER_TEXT_MAX])
{
    const struct replica_members *members = &replica->members;
    struct member self = {
        .priority = BOP_ADMIN_PRIORITY,
        .incarnation = members->file.incarnation,
        .learner = replica->options.learner,
        .since = is_marked(replica) ? bop_max_u64(1, members->committed_index) : 0,
        .level = replica->options.level,
    };

    snprintf(self.address, sizeof(self.address), "%s", replica->options.address);
    if (bop__member_format(&self, out_text) < 0) {
        snprintf(out_text, MEMBER_TEXT_MAX, "%s", replica->options.address);
    }
}

/* One that we know under this id is another directory than this one. */
static bool is_replaced(const struct replica *replica, const struct bop_raft_server *server,
                        const struct member *hello)
{
    struct member known;

    bop__member_of(server, &known);
    return known.incarnation != 0 && hello->incarnation != known.incarnation &&
           hello->since <= replica->members.committed_index;
}

/* Its id was added again, for a directory that is yet to come: one that was a member by then was
 * removed before. */
static bool is_of_before(const struct bop_raft_server *server, const struct member *hello)
{
    struct member known;

    bop__member_of(server, &known);
    return known.incarnation == 0 && hello->since != 0 && hello->since <= known.since;
}

/*
 * Who said hello before we knew by which directory its id is a member, or while its removal was in
 * our log, which was taken back since, must not be heard in the member's place.
 */
static void judge_again(struct replica *replica)
{
    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        struct replica_peer *peer = &replica->peers[n];
        struct member hello = {.incarnation = peer->incarnation, .since = peer->since};
        const struct bop_raft_server *server = bop__member_find(&replica->conf, peer->id);

        peer->impostor = server && hello.incarnation != 0 &&
                         (peer->outdated || is_replaced(replica, server, &hello) ||
                          is_of_before(server, &hello));
    }
}

/*
 * An operator adds a server by its address. What its id said of itself before may be of a directory
 * that is gone by now, and must not be recorded. Whoever is there is hung up on and says it again.
 */
static void outdate_hellos(struct replica *replica, const struct bop_raft_configuration *before)
{
    for (unsigned n = 0; n < replica->conf.count; n++) {
        const struct bop_raft_server *server = &replica->conf.servers[n];
        const struct bop_raft_server *old = bop__member_find(before, server->id);
        struct replica_peer *peer = bop__replica_peer(replica, server->id);
        struct member known, was = {.since = 0};

        bop__member_of(server, &known);
        if (old) {
            bop__member_of(old, &was);
        }
        if (peer && known.incarnation == 0 && known.since != was.since) {
            peer->outdated = true;
        }
    }
}

/* An incarnation is a member once. */
static bool is_gone(const struct replica_members *members, uint64_t incarnation)
{
    for (size_t n = 0; n < BOP_COUNT_OF(members->gone); n++) {
        if (members->gone[n] == incarnation) {
            return incarnation != 0;
        }
    }
    return false;
}

bool bop__replica_was_removed(const struct replica *replica, const struct member *hello)
{
    if (is_gone(&replica->members, hello->incarnation)) {
        return true;
    }
    return hello->since != 0 && hello->since < replica->members.committed_index &&
           !replica->status.changing;
}

enum introduction bop__replica_introduced(struct replica *replica, uint64_t id,
                                          struct bop_slice text, char *out_refusal,
                                          size_t refusal_size)
{
    const struct bop_raft_server *server = bop__member_find(&replica->conf, id);
    struct replica_peer *peer;
    struct member hello;

    replica->members.hellos = true;
    if (bop__member_parse(text, &hello) < 0) {
        snprintf(out_refusal, refusal_size, "what it says of itself makes no sense");
        return INTRODUCTION_REFUSED;
    }
    if (!hello.introduced) {
        return INTRODUCTION_ACCEPTED; /* A version that does not know of this. */
    }
    if (server && is_replaced(replica, server, &hello)) {
        snprintf(out_refusal, refusal_size,
                 "node %" PRIu64
                 " of this cluster has another data directory: if that is lost, run "
                 "`bop cluster replace %" PRIu64 "`, then start this one with --join and an empty "
                 "directory",
                 id, id);
        return INTRODUCTION_REPLACED;
    }
    if (server ? is_of_before(server, &hello) : bop__replica_was_removed(replica, &hello)) {
        snprintf(out_refusal, refusal_size, "node %" PRIu64 " was removed from this cluster", id);
        return INTRODUCTION_REMOVED;
    }
    if (!server && hello.since == 0 && replica->status.changing) {
        /* Its removal may be what is under way, and be taken back. */
        snprintf(out_refusal, refusal_size, "the members are being changed: ask again");
        return INTRODUCTION_REFUSED;
    }
    peer = bop__replica_peer(replica, id);
    if (peer) {
        peer->incarnation = hello.incarnation;
        peer->level = hello.level;
        peer->since = hello.since;
        peer->heard_ms = replica->now_ms; /* Or the next new one would get its place. */
        peer->impostor = false;
        peer->outdated = false;
        /* What it acknowledged may be lost with its last connection: it is asked what it has. */
        bop__replica_snapshot_stop_sending(replica, peer);
        replica->members.introductions = true;
    }
    return INTRODUCTION_ACCEPTED;
}

/* ---- Removal ---- */

static void leave(struct replica *replica)
{
    save_state(replica, MEMBER_REMOVED);
    bop__replica_fail(replica, BOP_EREMOVED,
                      "node %" PRIu64 " was removed from cluster \"%s\" and stops: to come back it "
                      "needs --join and an empty data directory",
                      replica->options.id, replica->options.cluster);
}

/* The directory is left as it is: it may have been started in the wrong place. */
static void give_way(struct replica *replica)
{
    bop__replica_fail(replica, BOP_EREMOVED,
                      "the cluster knows node %" PRIu64 " by another data directory than %s: run "
                      "`bop cluster replace %" PRIu64 "` if that one is lost, then start with "
                      "--join and an empty directory",
                      replica->options.id, replica->options.path, replica->options.id);
}

void bop__replica_removed_encode(const struct replica *replica, struct bop_writer *writer,
                                 enum introduction why)
{
    bop_write_u64(writer, replica->members.committed_index);
    bop_write_bool(writer, why == INTRODUCTION_REPLACED);
}

int bop__replica_removed(struct replica *replica, struct bop_slice payload, bool to_hello)
{
    struct bop_reader reader = bop_reader(payload);
    uint64_t index = bop_read_u64(&reader);
    bool replaced = bop_read_bool(&reader);

    if (!bop_reader_done(&reader)) {
        return BOP_EMALFORMED;
    }
    /* Only a configuration that is newer than any that we know of can say so. One that has not
     * heard that it joined has no place that another directory could have. */
    if (replica->failed == 0 && (is_marked(replica) || (to_hello && !replaced)) &&
        replica->members.committed_index < index) {
        if (replaced) {
            give_way(replica);
        } else {
            leave(replica);
        }
    }
    return 0;
}

static void tell_removed(struct replica *replica, uint64_t peer)
{
    size_t at;
    struct bop_buf *out = bop__replica_frame_begin(replica, peer, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop__replica_removed_encode(replica, &writer, INTRODUCTION_REMOVED);
        bop__replica_frame_end(replica, peer, out, at, BOP_WIRE_KIND_PEER_REMOVED, &writer);
    }
}

/* A leader says nothing to one that it removed, not even that. So we do; again and again,
 * for it may not have known by then that it was a member. */
static void tell_all_removed(struct replica *replica)
{
    if (replica->status.changing || replica->now_ms < replica->members.tell_ms) {
        return;
    }
    replica->members.tell_ms = replica->now_ms + TELL_AGAIN_MS;
    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        struct replica_peer *peer = &replica->peers[n];

        if (peer->id == 0 || !peer->connected) {
            continue;
        }
        /* When it said hello we may not have known yet what is committed. */
        if ((peer->was_member ||
             (peer->since != 0 && peer->since < replica->members.committed_index)) &&
            !bop__member_find(&replica->conf, peer->id)) {
            tell_removed(replica, peer->id);
        }
    }
}

/* ---- What the committed configuration says of this node ---- */

/* The configuration has us, and not another directory in our place. */
static bool has_us(const struct replica *replica, const struct bop_raft_configuration *conf)
{
    const struct bop_raft_server *self = bop__member_find(conf, replica->options.id);
    struct member known;

    if (!self) {
        return false;
    }
    bop__member_of(self, &known);
    return known.incarnation == 0 || known.incarnation == replica->members.file.incarnation;
}

bool bop__replica_members_have_us(const struct replica *replica)
{
    return is_marked(replica) || has_us(replica, &replica->conf);
}

/* The configuration of this entry has us, and we are a member by it or by a later one. */
static void belong_by(struct replica *replica, uint64_t index)
{
    if (!replica->members.belongs) {
        replica->members.belongs = true;
        replica->members.belongs_index = index;
    }
}

/* The committed configuration of this entry has us: no older one can say that we were removed. */
static void belong(struct replica *replica, uint64_t index)
{
    belong_by(replica, index);
    replica->members.committed_index = bop_max_u64(replica->members.committed_index, index);
}

/*
 * Others may have committed the entry by which we are a member before it is durable here. If it
 * were written down by then and the power failed, the next start would find a committed
 * configuration without us, and take the addition that is yet to come again for a removal.
 */
static bool may_save(const struct replica *replica)
{
    return replica->members.belongs && replica->members.file.state == MEMBER_NO &&
           replica->durable >= replica->members.belongs_index;
}

/*
 * Only one configuration at a time is not committed. So of two that follow each other,
 * or of which one was taken back, one is; and if both have us, that one has. But where one that was
 * not committed was taken back for another that is not, the committed one is still that before
 * both.
 */
void bop__replica_members_configured(struct replica *replica,
                                     const struct bop_raft_configuration *before, bool was_changing)
{
    struct replica_members *members = &replica->members;
    struct bop_raft_configuration conf;
    bool replaced;
    uint64_t index;

    bop_raft_configuration(replica->raft, &conf, &index);
    replaced = was_changing && replica->status.changing && index == members->conf_index;
    members->conf_index = index;
    if (!replaced && has_us(replica, before) && has_us(replica, &replica->conf)) {
        belong_by(replica, index);
        belong(replica, replica->status.changing || index <= replica->status.commit ? index : 0);
    }
    for (unsigned n = 0; n < replica->conf.count; n++) {
        struct replica_peer *peer = bop__replica_peer(replica, replica->conf.servers[n].id);

        if (peer) {
            peer->was_member = true;
        }
    }
    outdate_hellos(replica, before);
    judge_again(replica);
}

void bop__replica_members_started(struct replica *replica,
                                  const struct bop_raft_configuration *before, uint64_t index)
{
    if (replica->members.file.state == MEMBER_YES && !has_us(replica, before) &&
        has_us(replica, &replica->conf)) {
        belong(replica, index);
    }
}

static void judge_self(struct replica *replica)
{
    struct replica_members *members = &replica->members;
    const struct bop_raft_server *self = bop__member_find(&replica->conf, replica->options.id);
    struct member known;

    if (!self) {
        if (is_marked(replica)) {
            leave(replica);
        }
        return;
    }
    bop__member_of(self, &known);
    if (known.incarnation == 0 || known.incarnation == members->file.incarnation) {
        belong(replica, members->committed_index);
    } else if (is_marked(replica)) {
        give_way(replica);
    } else if (!members->complained) {
        members->complained = true;
        bop_log(replica->options.log, BOP_LOG_ERROR, "member",
                "the cluster has a node %" PRIu64 " with another data directory: run `bop cluster "
                "replace %" PRIu64 "` if that one is lost",
                replica->options.id, replica->options.id);
    }
}

/* Remember who left with it. */
static void note_gone(struct replica_members *members, const struct bop_raft_configuration *conf,
                      uint64_t index)
{
    for (unsigned n = 0; n < members->committed.count; n++) {
        const struct bop_raft_server *server = &members->committed.servers[n];
        const struct bop_raft_server *now = bop__member_find(conf, server->id);
        struct member was, is = {.incarnation = 0};

        bop__member_of(server, &was);
        if (now) {
            bop__member_of(now, &is);
        }
        if (was.incarnation != 0 && is.incarnation != was.incarnation) {
            members->gone[members->gone_count++ % MEMBERS_GONE] = was.incarnation;
        }
    }
    members->committed = *conf;
    members->gone_index = index;
}

/* Keep up with what is committed. */
static void note_committed(struct replica *replica)
{
    const struct bop_raft_snapshot *snapshot = &replica->snapshot.raft;
    struct bop_raft_configuration conf;
    uint64_t index;

    /* Another change may be under way from then on. */
    if (snapshot->conf_index > replica->members.committed_index &&
        has_us(replica, &snapshot->conf)) {
        belong(replica, snapshot->conf_index);
    }
    bop_raft_configuration(replica->raft, &conf, &index);
    if (replica->status.changing || index == 0 || index > replica->status.commit) {
        return;
    }
    if (replica->members.gone_index != index) {
        note_gone(&replica->members, &conf, index);
    }
    if (replica->members.committed_index != index) {
        replica->members.committed_index = index;
        /* One that is removed at its own request has to hear that first: then it stops. */
        replica->members.tell_ms = replica->now_ms + HOUSEKEEPING_MS;
        judge_again(replica);
    }
    /* Of what was lost and comes again this node has outlived all once, its removal under the same
     * number before it joined with this directory, say. */
    if (index > replica->lost.index) {
        judge_self(replica);
    }
}

/* ---- The leader records who its servers are ---- */

static uint64_t incarnation_of(struct replica *replica, uint64_t id)
{
    const struct replica_peer *peer;

    if (id == replica->options.id) {
        return replica->members.file.incarnation;
    }
    peer = bop__replica_peer(replica, id);
    return peer && !peer->outdated ? peer->incarnation : 0;
}

static void record_one(struct replica *replica)
{
    struct bop_raft_configuration conf = replica->conf;

    for (unsigned n = 0; n < conf.count; n++) {
        uint64_t incarnation = incarnation_of(replica, conf.servers[n].id);
        struct member member;

        bop__member_of(&conf.servers[n], &member);
        if (member.incarnation != 0 || incarnation == 0) {
            continue;
        }
        member.incarnation = incarnation;
        member.since = 0;
        if (bop__member_format(&member, conf.servers[n].address) == 0) {
            bop__replica_change(replica, &conf);
            return;
        }
    }
}

/* A server of the configuration that has never been there: its incarnation would be known. It will
 * start with a version that knows the level, or be told. After a while it is not waited for, or a
 * new cluster would be kept back by one that is not there yet. */
static bool never_there(const struct replica *replica, const struct bop_raft_server *server,
                        const struct replica_peer *peer)
{
    struct member member;

    bop__member_of(server, &member);
    return member.incarnation == 0 && (!peer || peer->heard_ms == 0) &&
           replica->now_ms - replica->time.since_ms >= LEVEL_WAIT_MS;
}

/* A server that was not heard of since this node started may be of any version. */
uint32_t bop__replica_level(struct replica *replica)
{
    uint32_t level = replica->options.level;

    for (unsigned n = 0; n < replica->conf.count && replica->members.hellos; n++) {
        uint64_t id = replica->conf.servers[n].id;
        const struct replica_peer *peer = bop__replica_peer(replica, id);

        if (id != replica->options.id && !never_there(replica, &replica->conf.servers[n], peer)) {
            level = (uint32_t)bop_min_u64(level, peer ? peer->level : 0);
        }
    }
    return level;
}

/* ---- Who should lead ---- */

static bool may_lead(struct replica *replica, const struct bop_raft_server *server)
{
    const struct replica_peer *peer = bop__replica_peer(replica, server->id);

    return peer && server->role == BOP_RAFT_VOTER && peer->connected && peer->heard_ms != 0 &&
           replica->now_ms - peer->heard_ms < replica->options.election_timeout_ms &&
           bop_raft_match_index(replica->raft, server->id) + PREFER_LAG_MAX >=
               replica->status.last_index;
}

/* Hand over to a voter that is preferred to this one, once it is up to date. */
static void prefer(struct replica *replica)
{
    const struct bop_raft_server *best = bop__member_find(&replica->conf, replica->options.id);
    struct member member, best_member = {.priority = 0};

    if (replica->now_ms < replica->members.prefer_ms) {
        return;
    }
    replica->members.prefer_ms = replica->now_ms + HOUSEKEEPING_MS * 5;
    if (best) {
        bop__member_of(best, &best_member);
    }
    for (unsigned n = 0; n < replica->conf.count; n++) {
        bop__member_of(&replica->conf.servers[n], &member);
        if (member.priority > best_member.priority &&
            may_lead(replica, &replica->conf.servers[n])) {
            best = &replica->conf.servers[n];
            best_member = member;
        }
    }
    if (best && best->id != replica->options.id) {
        bop_log(replica->options.log, BOP_LOG_INFO, "raft",
                "hand over to node=%" PRIu64 ", which is preferred priority=%" PRIu32, best->id,
                best_member.priority);
        replica->members.prefer_ms = replica->now_ms + PREFER_AGAIN_MS;
        BOP_IGNORE(bop__replica_transfer_to(replica, best->id)); /* Tried again later. */
    }
}

void bop__replica_members_turn(struct replica *replica)
{
    struct replica_members *members = &replica->members;

    note_committed(replica);
    bop__replica_loss_turn(replica);
    if (may_save(replica)) {
        save_state(replica, MEMBER_YES);
    }
    if (replica->failed != 0) {
        return;
    }
    if (replica->status.state != BOP_RAFT_LEADER || !replica->status.ready) {
        members->led_since_ms = 0;
        return;
    }
    if (members->led_since_ms == 0) {
        members->led_since_ms = replica->now_ms;
        members->prefer_ms = replica->now_ms + PREFER_FIRST_MS;
    }
    tell_all_removed(replica);
    if (!replica->status.changing) {
        prefer(replica);
        if (members->introductions && replica->status.state == BOP_RAFT_LEADER) {
            record_one(replica);
        }
    }
}
