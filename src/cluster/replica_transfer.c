/*
 * Snapshots on their way: the newest file is streamed to a peer in chunks, a
 * window of them unacknowledged; the receiver writes them to a file, verifies the
 * whole, and only then tells consensus that a snapshot has come.
 *
 * What has come stays when the connection breaks. The next one who offers the same
 * snapshot, this leader or another, goes on from there if the last bytes are the same: in
 * these is a checksum of all that is before them, and the whole is verified anyway.
 */
#include "buggify.h"
#include "replica_internal.h"

#include <bop/crc32c.h>

/* ---- Sending ---- */

void bop__replica_snapshot_stop_sending(struct replica *replica, struct replica_peer *peer)
{
    if (!peer->send.active) {
        return;
    }
    /* It was open for reading only. */
    BOP_IGNORE(replica->fs->close(replica->fs, peer->send.fd));
    peer->send.active = false;
    peer->send.fd = -1;
}

/* Send one chunk. False: not now, or the transfer was given up. */
static bool send_chunk(struct replica *replica, struct replica_peer *peer)
{
    struct peer_chunk chunk = {
        .raft_term = peer->send.raft_term,
        .index = peer->send.index,
        .term = peer->send.term,
        .size = peer->send.size,
        .offset = peer->send.sent,
    };
    size_t size = (size_t)bop_min_u64(buggify(BUGGIFY_CHUNK_SMALL) ? 700 : CHUNK_BYTES,
                                      peer->send.size - peer->send.sent);
    struct bop_writer writer;
    struct bop_buf *out;
    size_t at;
    int rc;

    if (!replica->options.transport->output(replica->options.transport, peer->id)) {
        return false; /* Its queue is full: a later turn goes on. */
    }
    bop_buf_clear(&replica->scratch);
    if (bop_buf_reserve(&replica->scratch, size) < 0) {
        return false;
    }
    rc = bop_fs_read_exact(replica->fs, peer->send.fd, replica->scratch.data, size,
                           peer->send.sent);
    if (rc < 0) {
        bop_log(replica->options.log, BOP_LOG_WARN, "snapshot", "send to node %" PRIu64 ": %s",
                peer->id, bop_strerror(rc));
        bop__replica_snapshot_stop_sending(replica, peer);
        return false;
    }
    chunk.bytes = bop_slice(replica->scratch.data, size);
    out = bop__replica_frame_begin(replica, peer->id, &at);
    if (!out) {
        return false;
    }
    writer = bop_writer(out);
    bop__peer_chunk_encode(&writer, &chunk);
    bop__replica_frame_end(replica, peer->id, out, at, BOP_WIRE_KIND_PEER_SNAPSHOT_CHUNK, &writer);
    if (writer.code < 0) {
        return false;
    }
    peer->send.sent += size;
    bop__replica_send_count(replica, size);
    return true;
}

uint32_t bop__replica_send_wait_ms(const struct replica *replica)
{
    uint64_t now_us = replica->now_ms * 1000 + SEND_AHEAD_US;

    return replica->options.send_bytes_s == 0 || replica->send_due_us <= now_us
               ? 0
               : (uint32_t)((replica->send_due_us - now_us) / 1000 + 1);
}

void bop__replica_send_count(struct replica *replica, uint64_t bytes)
{
    uint64_t bytes_s = replica->options.send_bytes_s;

    if (bytes_s > 0) {
        replica->send_due_us = bop_max_u64(replica->send_due_us, replica->now_ms * 1000) +
                               bytes * 1000000 / bytes_s;
    }
}

static bool has_more(const struct replica_peer *peer)
{
    return peer->send.active && !peer->send.offered && peer->send.sent < peer->send.size &&
           peer->send.sent - peer->send.acked < (buggify(BUGGIFY_WINDOW_SMALL) ? 1 : CHUNK_WINDOW);
}

uint64_t bop__replica_snapshot_due_ms(const struct replica *replica)
{
    uint32_t wait_ms = bop__replica_send_wait_ms(replica);

    for (size_t n = 0; wait_ms > 0 && n < BOP_COUNT_OF(replica->peers); n++) {
        if (has_more(&replica->peers[n])) {
            return replica->now_ms + wait_ms;
        }
    }
    return UINT64_MAX;
}

static void send_window(struct replica *replica, struct replica_peer *peer)
{
    while (has_more(peer) && bop__replica_send_wait_ms(replica) == 0 && send_chunk(replica, peer)) {
    }
}

void bop__replica_snapshot_send_on(struct replica *replica)
{
    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        send_window(replica, &replica->peers[n]);
    }
}

/* The checksum of what lies before an offset. */
static int tail_crc(struct replica *replica, int fd, uint64_t offset, uint32_t *out_crc)
{
    size_t size = (size_t)bop_min_u64(offset, PEER_HAVE_TAIL);
    int rc;

    bop_buf_clear(&replica->scratch);
    rc = bop_buf_reserve(&replica->scratch, size);
    if (rc == 0) {
        rc = bop_fs_read_exact(replica->fs, fd, replica->scratch.data, size, offset - size);
    }
    if (rc == 0) {
        *out_crc = bop_crc32c(0, replica->scratch.data, size);
    }
    return rc;
}

/* Ask how much of it is there already. One that announced no level is of a version that does not
 * know the kind. */
static bool make_offer(struct replica *replica, struct replica_peer *peer)
{
    struct peer_offer offer = {
        .raft_term = peer->send.raft_term,
        .index = peer->send.index,
        .term = peer->send.term,
        .size = peer->send.size,
    };
    struct bop_writer writer;
    struct bop_buf *out;
    size_t at;

    if (replica->members.hellos && peer->level == 0) {
        return false;
    }
    out = bop__replica_frame_begin(replica, peer->id, &at);
    if (!out) {
        return false;
    }
    writer = bop_writer(out);
    bop__peer_offer_encode(&writer, &offer);
    bop__replica_frame_end(replica, peer->id, out, at, BOP_WIRE_KIND_PEER_SNAPSHOT_OFFER, &writer);
    return writer.code == 0;
}

void bop__replica_snapshot_have(struct replica *replica, struct replica_peer *peer,
                                const struct peer_have *have)
{
    uint32_t crc;

    if (!peer->send.active || !peer->send.offered || have->index != peer->send.index ||
        have->term != peer->send.term) {
        return;
    }
    peer->send.offered = false;
    peer->send.acked_ms = replica->now_ms;
    if (have->offset > 0 && have->offset < peer->send.size &&
        tail_crc(replica, peer->send.fd, have->offset, &crc) == 0 && crc == have->crc) {
        peer->send.sent = have->offset;
        peer->send.acked = have->offset;
        bop_log(replica->options.log, BOP_LOG_INFO, "snapshot",
                "go on sending to node=%" PRIu64 " index=%" PRIu64 " from byte=%" PRIu64, peer->id,
                peer->send.index, have->offset);
    }
    send_window(replica, peer);
}

void bop__replica_snapshot_send(struct replica *replica, const struct bop_raft_message *message)
{
    struct replica_peer *peer = bop__replica_peer(replica, message->peer);
    const struct bop_raft_snapshot *newest = &replica->snapshot.raft;
    char path[PATH_MAX_BYTES];
    int rc;

    if (!peer || !peer->connected || newest->index == 0) {
        return;
    }
    if (!bop__replica_verify_passed(replica)) {
        return; /* Nobody is sent what may not be whole. Consensus asks again. */
    }
    if (peer->send.active && replica->now_ms - peer->send.acked_ms < SEND_STALL_MS) {
        return; /* On its way; consensus is only impatient. */
    }
    if (peer->send.refused_ms != 0 && replica->now_ms - peer->send.refused_ms < SEND_AGAIN_MS) {
        return; /* It loads one, or has no room. */
    }
    peer->send.refused_ms = 0;
    bop__replica_snapshot_stop_sending(replica, peer);
    rc = bop__replica_path(replica, path, SNAPSHOT_NAME, newest->index, newest->term);
    if (rc == 0) {
        rc = replica->fs->open(replica->fs, path, O_RDONLY);
    }
    if (rc < 0) {
        bop_log(replica->options.log, BOP_LOG_WARN, "snapshot", "open %s: %s", path,
                bop_strerror(rc));
        return;
    }
    peer->send.active = true;
    peer->send.fd = rc;
    peer->send.raft_term = message->term;
    peer->send.index = newest->index;
    peer->send.term = newest->term;
    peer->send.size = replica->snapshot.bytes;
    peer->send.sent = 0;
    peer->send.acked = 0;
    peer->send.acked_ms = replica->now_ms;
    if (peer->send.logged != newest->index) {
        peer->send.logged = newest->index;
        bop_log(replica->options.log, BOP_LOG_INFO, "snapshot",
                "send to node=%" PRIu64 " index=%" PRIu64 " bytes=%" PRIu64, peer->id,
                newest->index, peer->send.size);
    }
    peer->send.offered = make_offer(replica, peer);
    send_window(replica, peer);
}

void bop__replica_snapshot_ack(struct replica *replica, struct replica_peer *peer,
                               const struct peer_chunk_ack *ack)
{
    if (!peer->send.active || ack->index != peer->send.index) {
        return;
    }
    if (ack->offset > peer->send.sent || ack->offset < peer->send.acked) {
        /* Given up over there, or nonsense: consensus asks again in time. */
        peer->send.refused_ms = replica->now_ms;
        bop__replica_snapshot_stop_sending(replica, peer);
        return;
    }
    peer->send.acked = ack->offset;
    peer->send.acked_ms = replica->now_ms;
    if (peer->send.acked == peer->send.size) {
        peer->catching_up.index = peer->send.index;
        peer->catching_up.term = replica->status.term;
        peer->catching_up.ms = replica->now_ms;
        bop__replica_snapshot_stop_sending(replica, peer);
    } else {
        send_window(replica, peer);
    }
}

/* ---- Receiving ---- */

static void acknowledge(struct replica *replica, uint64_t peer, uint64_t index, uint64_t offset)
{
    struct peer_chunk_ack ack = {.index = index, .offset = offset};
    size_t at;
    struct bop_buf *out = bop__replica_frame_begin(replica, peer, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop__peer_chunk_ack_encode(&writer, &ack);
        bop__replica_frame_end(replica, peer, out, at, BOP_WIRE_KIND_PEER_SNAPSHOT_ACK, &writer);
    }
}

static void incoming_stop(struct replica *replica)
{
    if (replica->incoming.active) {
        /* What it holds is not wanted any more. */
        BOP_IGNORE(replica->fs->close(replica->fs, replica->incoming.fd));
        replica->incoming.active = false;
    }
}

/* As much as is to come must fit, and the log's room be left. */
static int incoming_fits(const struct replica *replica, uint64_t size)
{
    uint64_t left;
    int rc = replica->fs->free_bytes(replica->fs, replica->options.path, &left);

    return rc == 0 && left < SNAPSHOT_ROOM_KEPT + size ? BOP_ENOROOM : rc;
}

static int incoming_start(struct replica *replica, uint64_t peer, const struct peer_chunk *chunk)
{
    char path[PATH_MAX_BYTES];
    int rc, fd;

    incoming_stop(replica);
    rc = bop__replica_path(replica, path, "snapshots/incoming.tmp");
    if (rc < 0) {
        return rc;
    }
    fd = replica->fs->open(replica->fs, path, O_RDWR | O_CREAT | O_TRUNC);
    if (fd < 0) {
        return fd;
    }
    /* After what lay there from before is emptied. */
    rc = incoming_fits(replica, chunk->size);
    if (rc < 0) {
        /* Nothing was written to it. */
        BOP_IGNORE(replica->fs->close(replica->fs, fd));
        return rc;
    }
    replica->incoming = (struct incoming_snapshot){
        .active = true,
        .fd = fd,
        .from = peer,
        .raft_term = chunk->raft_term,
        .index = chunk->index,
        .term = chunk->term,
        .size = chunk->size,
    };
    return 0;
}

/* Nothing can be taken now, or not from one who leads in a term that is not saved here: with
 * its snapshot the next start would find that newer than its own vote. Whoever leads in that
 * term says so before it sends one. */
static bool must_refuse(const struct replica *replica, uint64_t raft_term)
{
    return replica->install.phase != INSTALL_IDLE || raft_term > replica->status.term;
}

int bop__replica_snapshot_offered(struct replica *replica, uint64_t peer,
                                  const struct peer_offer *offer)
{
    struct incoming_snapshot *incoming = &replica->incoming;
    struct peer_have have = {.index = offer->index, .term = offer->term};
    struct bop_writer writer;
    struct bop_buf *out;
    size_t at;

    if (offer->size == 0 || offer->size > SNAPSHOT_BYTES_MAX || offer->index == 0 ||
        offer->index == UINT64_MAX || offer->term > offer->raft_term) {
        return BOP_EMALFORMED;
    }
    if (must_refuse(replica, offer->raft_term)) {
        acknowledge(replica, peer, offer->index, UINT64_MAX);
        return 0;
    }
    if (incoming->active && incoming->index == offer->index && incoming->term == offer->term &&
        incoming->size == offer->size &&
        tail_crc(replica, incoming->fd, incoming->received, &have.crc) == 0) {
        have.offset = incoming->received;
        incoming->from = peer;
        incoming->raft_term = offer->raft_term;
    }
    out = bop__replica_frame_begin(replica, peer, &at);
    if (out) {
        writer = bop_writer(out);
        bop__peer_have_encode(&writer, &have);
        bop__replica_frame_end(replica, peer, out, at, BOP_WIRE_KIND_PEER_SNAPSHOT_HAVE, &writer);
    }
    return 0;
}

static void check_run(struct bop_task *task)
{
    struct snapshot_install *install = BOP_CONTAINER_OF(task, struct snapshot_install, task);
    struct replica *replica = BOP_CONTAINER_OF(install, struct replica, install);
    struct bop_fs *fs = replica->fs;
    char path[PATH_MAX_BYTES], directory[PATH_MAX_BYTES];
    uint64_t index = install->info.raft.index, term = install->info.raft.term;
    int closed, rc = fs->sync(fs, install->fd);

    closed = fs->close(fs, install->fd);
    rc = rc < 0 ? rc : closed;
    if (rc == 0) {
        rc = bop__replica_path(replica, path, "snapshots/incoming.tmp");
    }
    if (rc == 0) {
        rc = bop__replica_path(replica, directory, "snapshots");
    }
    if (rc == 0) {
        rc = bop__snapshot_check(replica->options.allocator, fs, path, &install->info,
                                 &install->error);
    }
    if (rc == 0 && (install->info.raft.index != index || install->info.raft.term != term)) {
        rc = BOP_ECORRUPT; /* Not what it was announced as, and what its name would say. */
    }
    if (rc == 0) {
        rc = fs->rename(fs, path, install->path);
    }
    if (rc == 0) {
        rc = fs->sync_dir(fs, directory);
        if (rc < 0) {
            /* Nobody may find a file that may not be there tomorrow. */
            BOP_IGNORE(fs->unlink(fs, install->path));
        }
    }
    install->rc = rc;
}

static void check_done(struct bop_task *task)
{
    struct snapshot_install *install = BOP_CONTAINER_OF(task, struct snapshot_install, task);
    struct replica *replica = BOP_CONTAINER_OF(install, struct replica, install);
    struct bop_raft_message message = {.type = BOP_RAFT_INSTALL};
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_RECEIVE, .receive = &message};

    install->phase = INSTALL_IDLE;
    if (replica->failed != 0) {
        return;
    }
    if (install->rc < 0) {
        bop_log(replica->options.log, BOP_LOG_WARN, "snapshot",
                "drop the one from node %" PRIu64 ": %s", install->from,
                install->error.code ? install->error.message : bop_strerror(install->rc));
        return;
    }
    replica->now_ms = bop_clock_monotonic_ms(replica->options.clock);
    event.now_ms = replica->now_ms;
    message.peer = install->from;
    message.term = install->raft_term;
    message.install = install->info.raft;
    /* Either the engine asks for the install, which moves the phase on, or it has no use
     * for this snapshot any more; a failure is kept in the replica. */
    BOP_IGNORE(bop__replica_step(replica, &event));
}

static void incoming_check(struct replica *replica)
{
    struct snapshot_install *install = &replica->install;
    struct incoming_snapshot *incoming = &replica->incoming;

    incoming->active = false;
    memset(install, 0, sizeof(*install));
    install->phase = INSTALL_CHECKING;
    install->fd = incoming->fd;
    install->from = incoming->from;
    install->raft_term = incoming->raft_term;
    install->info.raft.index = incoming->index;
    install->info.raft.term = incoming->term;
    if (bop__replica_path(replica, install->path, SNAPSHOT_NAME, incoming->index, incoming->term) <
        0) {
        install->path[0] = '\0'; /* The rename will say so. */
    }
    install->task = (struct bop_task){.run = check_run, .done = check_done};
    bop_executor_submit(replica->options.work_executor, &install->task);
}

/* True if the chunk is the next one of the transfer that runs. */
static bool is_next(const struct incoming_snapshot *incoming, uint64_t peer,
                    const struct peer_chunk *chunk)
{
    return incoming->active && incoming->from == peer && incoming->index == chunk->index &&
           incoming->term == chunk->term && incoming->size == chunk->size &&
           incoming->received == chunk->offset;
}

int bop__replica_snapshot_chunk(struct replica *replica, uint64_t peer,
                                const struct peer_chunk *chunk)
{
    struct incoming_snapshot *incoming = &replica->incoming;
    int rc = 0;

    if (chunk->size == 0 || chunk->size > SNAPSHOT_BYTES_MAX || chunk->index == 0 ||
        chunk->index == UINT64_MAX || chunk->bytes.size == 0 || chunk->bytes.size > chunk->size ||
        chunk->offset > chunk->size - chunk->bytes.size || chunk->term > chunk->raft_term) {
        return BOP_EMALFORMED;
    }
    if (must_refuse(replica, chunk->raft_term)) {
        acknowledge(replica, peer, chunk->index, UINT64_MAX);
        return 0;
    }
    if (chunk->offset == 0) {
        rc = incoming_start(replica, peer, chunk);
    } else if (!is_next(incoming, peer, chunk)) {
        return 0; /* Of a transfer that was given up. */
    }
    if (rc == 0) {
        rc = bop_fs_write_all(replica->fs, incoming->fd, chunk->bytes.data, chunk->bytes.size,
                              chunk->offset);
    }
    if (rc < 0) {
        bop_log(replica->options.log, BOP_LOG_WARN, "snapshot", "receive from node %" PRIu64 ": %s",
                peer, bop_strerror(rc));
        incoming_stop(replica);
        acknowledge(replica, peer, chunk->index, UINT64_MAX);
        return 0;
    }
    incoming->received += chunk->bytes.size;
    acknowledge(replica, peer, chunk->index, incoming->received);
    if (incoming->received == incoming->size) {
        incoming_check(replica);
    }
    return 0;
}

void bop__replica_snapshot_deinit(struct replica *replica)
{
    incoming_stop(replica);
    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        bop__replica_snapshot_stop_sending(replica, &replica->peers[n]);
    }
}
