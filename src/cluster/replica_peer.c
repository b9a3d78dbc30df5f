/*
 * Frames from peers and messages to them. A message that cannot be sent now is
 * dropped: consensus repeats what matters.
 */
#include "replica_internal.h"

static bool is_member(const struct replica *replica, uint64_t id)
{
    for (unsigned n = 0; n < replica->conf.count; n++) {
        if (replica->conf.servers[n].id == id) {
            return true;
        }
    }
    return false;
}

/* Nodes come and go under new ids: what one left behind makes room for the next. */
static bool is_free(const struct replica *replica, const struct replica_peer *peer)
{
    return peer->id == 0 ||
           (!peer->connected && !peer->send.active && !is_member(replica, peer->id));
}

struct replica_peer *bop__replica_peer(struct replica *replica, uint64_t id)
{
    struct replica_peer *free_peer = NULL;

    if (id == 0 || id == replica->options.id) {
        return NULL;
    }
    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        if (replica->peers[n].id == id) {
            return &replica->peers[n];
        }
        /* One that was not heard of for the longest time; never used is longest. */
        if (is_free(replica, &replica->peers[n]) &&
            (!free_peer || replica->peers[n].heard_ms < free_peer->heard_ms)) {
            free_peer = &replica->peers[n];
        }
    }
    if (free_peer) {
        *free_peer = (struct replica_peer){.id = id, .send.fd = -1};
    }
    return free_peer;
}

struct bop_buf *bop__replica_frame_begin(struct replica *replica, uint64_t peer, size_t *out_at)
{
    struct replica_transport *transport = replica->options.transport;
    struct bop_buf *out = transport->output(transport, peer);

    return out && bop_wire_begin(out, out_at) == 0 ? out : NULL;
}

void bop__replica_frame_end(struct replica *replica, uint64_t peer, struct bop_buf *buf, size_t at,
                            enum bop_wire_kind kind, const struct bop_writer *writer)
{
    struct replica_transport *transport = replica->options.transport;

    if (writer->code < 0) {
        /* No memory for all of it: nothing of it goes out. */
        bop_wire_cancel(buf, at);
        return;
    }
    bop_wire_end(buf, at, kind, BOP_WIRE_REQUEST, 0);
    transport->flush(transport, peer);
}

/* How many entries from index on go into one frame. 0: one could not be read. */
static unsigned frame_entries(struct replica *replica, uint64_t index, unsigned count)
{
    size_t bytes = 0;
    unsigned n;

    for (n = 0; n < count && n < PEER_ENTRIES_MAX; n++) {
        struct bop_raft_entry storage;
        const struct bop_raft_entry *entry = bop__replica_log_get(replica, index + n, &storage);

        if (!entry) {
            return 0;
        }
        bytes += bop__peer_entry_size(entry);
        if (n > 0 && bytes > PEER_APPEND_BYTES_MAX) {
            break;
        }
    }
    return n;
}

/* Send one frame of an append; returns how many entries went out, 0: give up. */
static unsigned send_append_part(struct replica *replica, struct bop_raft_message *part,
                                 unsigned left)
{
    unsigned count = frame_entries(replica, part->append.prev_index + 1, left);
    struct bop_writer writer;
    struct bop_buf *out;
    size_t at;

    if (count == 0) {
        return 0;
    }
    out = bop__replica_frame_begin(replica, part->peer, &at);
    if (!out) {
        return 0;
    }
    part->append.count = count;
    writer = bop_writer(out);
    bop__peer_raft_encode(&writer, part);
    for (unsigned n = 0; n < count; n++) {
        struct bop_raft_entry storage;
        const struct bop_raft_entry *entry = bop__replica_log_get(
            replica, part->append.prev_index + 1 + n, &storage);

        if (!entry) {
            writer.code = BOP_EFAILED;
            break;
        }
        bop__peer_entry_encode(&writer, entry);
        if (n + 1 == count) {
            part->append.prev_index += count;
            part->append.prev_term = entry->term;
        }
    }
    bop__replica_frame_end(replica, part->peer, out, at, BOP_WIRE_KIND_PEER_RAFT, &writer);
    return writer.code < 0 ? 0 : count;
}

/* An append of many entries goes out in frames of bounded size; prev moves on from one to the next.
 */
static void send_append(struct replica *replica, const struct bop_raft_message *message)
{
    struct bop_raft_message part = *message;
    unsigned left = message->append.count;

    if (part.append.prev_index + 1 < bop_aof_first(replica->aof)) {
        bop_log(replica->options.log, BOP_LOG_WARN, "raft",
                "entries a peer needs are gone peer=%" PRIu64 " from=%" PRIu64, message->peer,
                part.append.prev_index + 1);
        return;
    }
    while (left > 0) {
        unsigned sent = send_append_part(replica, &part, left);

        if (sent == 0) {
            return;
        }
        left -= sent;
    }
}

/* ---- What peers know to be committed ---- */

/* NULL for one that was never spoken to: an entry may name a node that is long gone. */
static struct replica_peer *peer_of_term(struct replica *replica, uint64_t id)
{
    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        struct replica_peer *peer = &replica->peers[n];

        if (id == 0 || peer->id != id) {
            continue;
        }
        if (peer->tell_term != replica->status.term) {
            peer->tell_term = replica->status.term;
            peer->told = 0;
            peer->waits_for = 0;
        }
        return peer;
    }
    return NULL;
}

void bop__replica_peer_waits(struct replica *replica, uint64_t id, uint64_t index)
{
    struct replica_peer *peer = peer_of_term(replica, id);

    if (peer && replica->status.state == BOP_RAFT_LEADER) {
        peer->waits_for = bop_max_u64(peer->waits_for, index);
    }
}

static void note_sent(struct replica *replica, const struct bop_raft_message *message)
{
    if (message->type == BOP_RAFT_READ_RESULT) {
        bop__replica_peer_waits(replica, message->peer, message->read.index);
    } else if (message->type == BOP_RAFT_APPEND) {
        struct replica_peer *peer = peer_of_term(replica, message->peer);
        uint64_t last = message->append.prev_index + message->append.count;

        if (peer) {
            peer->told = bop_max_u64(peer->told, bop_min_u64(message->append.commit, last));
        }
    }
}

/*
 * A follower learns with the next append what is committed. If none follows, that
 * is the next heartbeat, for which whoever asked the follower would have to wait.
 * So it is sent an append without entries.
 *
 * It goes on from the last entry that is known to match, so the follower takes it
 * for committed up to there at most. What it was told before is below waits_for
 * and so below that: its commit index cannot go back.
 */
static void tell_commit(struct replica *replica, struct replica_peer *peer)
{
    struct bop_raft_message message;
    struct bop_raft_entry storage;
    const struct bop_raft_entry *entry;
    uint64_t match = bop_raft_match_index(replica->raft, peer->id);

    if (match < peer->waits_for || match < bop_aof_first(replica->aof)) {
        return; /* Its next answer brings us here again. */
    }
    entry = bop__replica_log_get(replica, match, &storage);
    if (entry) {
        message.type = BOP_RAFT_APPEND;
        message.peer = peer->id;
        message.term = replica->status.term;
        message.append.prev_index = match;
        message.append.prev_term = entry->term;
        message.append.commit = replica->status.commit;
        message.append.entries = NULL;
        message.append.count = 0;
        bop__replica_send(replica, &message);
    }
}

void bop__replica_tell_commits(struct replica *replica)
{
    const struct bop_raft_status *status = &replica->status;

    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers) && status->state == BOP_RAFT_LEADER; n++) {
        struct replica_peer *peer = &replica->peers[n];

        if (peer->tell_term == status->term && peer->waits_for > peer->told &&
            peer->waits_for <= status->commit) {
            tell_commit(replica, peer);
        }
    }
}

/* ---- Sending ---- */

void bop__replica_send(struct replica *replica, const struct bop_raft_message *message)
{
    struct bop_writer writer;
    struct bop_buf *out;
    size_t at;

    if (bop__replica_loss_silences(replica, message)) {
        return;
    }
    note_sent(replica, message);
    if (message->type == BOP_RAFT_INSTALL) {
        bop__replica_snapshot_send(replica, message);
        return;
    }
    if (message->type == BOP_RAFT_APPEND && message->append.count > 0) {
        send_append(replica, message);
        return;
    }
    out = bop__replica_frame_begin(replica, message->peer, &at);
    if (!out) {
        return;
    }
    writer = bop_writer(out);
    bop__peer_raft_encode(&writer, message);
    bop__replica_frame_end(replica, message->peer, out, at, BOP_WIRE_KIND_PEER_RAFT, &writer);
}

void bop__replica_peer_connected(struct replica *replica, uint64_t id)
{
    struct replica_peer *peer = bop__replica_peer(replica, id);

    if (peer) {
        peer->connected = true;
    }
}

void bop__replica_peer_lost(struct replica *replica, uint64_t id)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_PEER_LOST, .peer = id};
    struct replica_peer *peer = bop__replica_peer(replica, id);

    if (!peer) {
        return;
    }
    peer->connected = false;
    peer->send.refused_ms = 0;
    peer->send.logged = 0;
    bop__replica_snapshot_stop_sending(replica, peer);
    replica->now_ms = bop_clock_monotonic_ms(replica->options.clock);
    event.now_ms = replica->now_ms;
    /* A failure is kept in the replica and told in the next turn. */
    BOP_IGNORE(bop__replica_step(replica, &event));
    if (id == replica->status.leader) {
        /* What was forwarded may not have arrived: as good as a new leader. */
        replica->pending_leader = 0;
        bop__replica_requests_leadership(replica);
    }
}

/* A follower whose disk falls behind drops entries rather than holding them all in memory. And
 * whoever has yet to find itself in the cluster has no vote: one who asks for it may take it for
 * the node that lost its disk, not knowing yet by which directory that was a member. */
static bool must_drop(struct replica *replica, const struct bop_raft_message *message)
{
    if (message->type == BOP_RAFT_VOTE && !bop__replica_members_have_us(replica)) {
        return true;
    }
    if (bop__replica_loss_silences(replica, message)) {
        return true;
    }
    if (message->type != BOP_RAFT_APPEND || message->append.count == 0 ||
        replica->cache.bytes <= LOG_PENDING_MAX) {
        return false;
    }
    bop_metric_add(replica->metrics.dropped_appends, 1);
    return true;
}

static int receive_raft(struct replica *replica, uint64_t peer, struct bop_slice payload)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_RECEIVE, .now_ms = replica->now_ms};
    struct bop_raft_message message;
    int rc = bop__peer_raft_decode(payload, replica->decode_entries, &message);

    if (rc < 0) {
        return rc;
    }
    message.peer = peer;
    if (must_drop(replica, &message)) {
        return 0;
    }
    event.receive = &message;
    /* What the engine refuses changes nothing, and its own failure is not the peer's fault. */
    BOP_IGNORE(bop__replica_step(replica, &event));
    bop__replica_loss_heard(replica, &message);
    return 0;
}

static int receive_refused(struct replica *replica, struct bop_slice payload)
{
    struct bop_reader reader = bop_reader(payload);
    uint64_t id = bop_read_u64(&reader);
    uint8_t status = bop_read_u8(&reader);

    if (!bop_reader_done(&reader) || status == BOP_STATUS_OK) {
        return BOP_EMALFORMED;
    }
    bop__replica_write_refused(replica, id, status);
    return 0;
}

static int receive_chunk(struct replica *replica, uint64_t peer, struct bop_slice payload)
{
    struct peer_chunk chunk;
    int rc = bop__peer_chunk_decode(payload, &chunk);

    return rc < 0 ? rc : bop__replica_snapshot_chunk(replica, peer, &chunk);
}

static int receive_chunk_ack(struct replica *replica, struct replica_peer *peer,
                             struct bop_slice payload)
{
    struct peer_chunk_ack ack;
    int rc = bop__peer_chunk_ack_decode(payload, &ack);

    if (rc == 0) {
        bop__replica_snapshot_ack(replica, peer, &ack);
    }
    return rc;
}

static int receive_offer(struct replica *replica, uint64_t peer, struct bop_slice payload)
{
    struct peer_offer offer;
    int rc = bop__peer_offer_decode(payload, &offer);

    return rc < 0 ? rc : bop__replica_snapshot_offered(replica, peer, &offer);
}

static int receive_have(struct replica *replica, struct replica_peer *peer,
                        struct bop_slice payload)
{
    struct peer_have have;
    int rc = bop__peer_have_decode(payload, &have);

    if (rc == 0) {
        bop__replica_snapshot_have(replica, peer, &have);
    }
    return rc;
}

int bop__replica_peer_frame(struct replica *replica, uint64_t id,
                            const struct bop_wire_frame *frame)
{
    struct replica_peer *peer = bop__replica_peer(replica, id);

    if (replica->failed != 0) {
        return 0;
    }
    if (!peer) {
        return BOP_EPROTOCOL;
    }
    if (peer->impostor) {
        return BOP_EREMOVED; /* When it says hello again it hears why. */
    }
    replica->now_ms = bop_clock_monotonic_ms(replica->options.clock);
    peer->heard_ms = replica->now_ms;
    switch (frame->kind) {
    case BOP_WIRE_KIND_PEER_RAFT:
        return receive_raft(replica, id, frame->payload);
    case BOP_WIRE_KIND_PEER_FORWARD:
        return bop__replica_forwarded(replica, id, frame->payload);
    case BOP_WIRE_KIND_PEER_FORWARD_REFUSED:
        return receive_refused(replica, frame->payload);
    case BOP_WIRE_KIND_PEER_ALIVE:
        bop__replica_alive_list(replica, id, frame->payload);
        return 0;
    case BOP_WIRE_KIND_PEER_SNAPSHOT_CHUNK:
        return receive_chunk(replica, id, frame->payload);
    case BOP_WIRE_KIND_PEER_SNAPSHOT_ACK:
        return receive_chunk_ack(replica, peer, frame->payload);
    case BOP_WIRE_KIND_PEER_SNAPSHOT_OFFER:
        return receive_offer(replica, id, frame->payload);
    case BOP_WIRE_KIND_PEER_SNAPSHOT_HAVE:
        return receive_have(replica, peer, frame->payload);
    case BOP_WIRE_KIND_PEER_DIGEST:
        return bop__replica_digest_told(replica, peer, frame->payload);
    case BOP_WIRE_KIND_PEER_JOIN:
        return bop__replica_join_asked(replica, id, frame->payload);
    case BOP_WIRE_KIND_PEER_ADMIN:
        return bop__replica_admin_asked(replica, id, frame->payload);
    case BOP_WIRE_KIND_PEER_ADMIN_DONE:
        return bop__replica_admin_answered(replica, frame->payload);
    case BOP_WIRE_KIND_PEER_REMOVED:
        return bop__replica_removed(replica, frame->payload, false);
    case BOP_WIRE_KIND_PEER_WATCH_ASK:
    case BOP_WIRE_KIND_PEER_WATCH_DONE:
        return replica->options.events.on_peer
                   ? replica->options.events.on_peer(replica->options.events.user, id, frame)
                   : 0;
    default:
        return BOP_EPROTOCOL;
    }
}
