/*
 * What clients ask for: writes, proposed here or through the leader; linearizable
 * reads, many under one question to the majority; signs of life of sessions.
 *
 * A write is answered by the node that took it, when that node applies the entry
 * that names it as origin. If leadership moves meanwhile, its fate is unknown: one
 * that may be repeated safely is answered RETRY at once, another waits for its
 * entry until its deadline.
 */
#include "buggify.h"
#include "replica_internal.h"

static struct replica_write **write_slot(struct replica *replica, uint64_t id)
{
    return &replica->writes[id & (PENDING_WRITES_MAX - 1)];
}

/* Take a pending write out of the table; NULL if it is not there (any more). */
static struct replica_write *take_write(struct replica *replica, uint64_t id)
{
    struct replica_write **slot = write_slot(replica, id);
    struct replica_write *write = *slot;

    if (!write || write->id != id) {
        return NULL;
    }
    *slot = NULL;
    replica->write_count--;
    while (replica->write_oldest < replica->write_next &&
           !*write_slot(replica, replica->write_oldest)) {
        replica->write_oldest++;
    }
    return write;
}

static void finish(struct replica *replica, uint64_t id, uint8_t status, struct bop_slice result)
{
    struct replica_write *write = take_write(replica, id);

    if (write) {
        write->done(write, status, result);
    }
}

void bop__replica_write_refused(struct replica *replica, uint64_t id, uint8_t status)
{
    finish(replica, id, status, bop_slice(NULL, 0));
}

void bop__replica_write_finish(struct replica *replica, const struct machine_result *result)
{
    uint8_t session[8];
    struct bop_slice bytes = bop_slice(NULL, 0);

    if (result->kind == 0) {
        return;
    }
    if (result->result_size > 0) {
        bytes = bop_slice(replica->results.data + result->result_at, result->result_size);
    }
    if (result->session != 0 && replica->status.state == BOP_RAFT_LEADER && replica->machine) {
        bop__machine_session_wrote(replica->machine, result->session, result->origin_node,
                                   replica->now_ms);
    }
    if (result->origin_node != replica->options.id) {
        return;
    }
    if (result->kind == COMMAND_SESSION_OPEN) {
        bop_store_u64(session, result->session);
        bytes = bop_slice(session, sizeof(session));
    }
    finish(replica, result->origin_request, result->status, bytes);
}

/* ---- Proposing ---- */

static uint64_t uncommitted_bytes(struct replica *replica)
{
    if (replica->status.commit >= replica->uncommitted[0].last) {
        replica->uncommitted[0] = replica->uncommitted[1];
        replica->uncommitted[1].bytes = 0;
        replica->uncommitted[1].last = replica->status.last_index;
    }
    return replica->uncommitted[0].bytes + replica->uncommitted[1].bytes;
}

static bool proposals_full(struct replica *replica)
{
    return replica->proposal_count >= PROPOSALS_MAX || buggify(BUGGIFY_PROPOSALS_FULL) ||
           uncommitted_bytes(replica) + replica->proposals.size >
               replica->options.uncommitted_bytes ||
           replica->cache.bytes > LOG_PENDING_MAX;
}

/* Queue an encoded command for this turn's submit. */
static int propose(struct replica *replica, struct bop_slice command)
{
    struct bop_writer writer = bop_writer(&replica->proposals);
    size_t begin = replica->proposals.size;

    bop_write_bytes(&writer, command);
    if (writer.code < 0) {
        replica->proposals.size = begin; /* Its length may be there already. */
        return writer.code;
    }
    replica->proposal_count++;
    return 0;
}

static int forward(struct replica *replica, struct bop_slice command)
{
    uint64_t leader = replica->status.leader;
    size_t at;
    struct bop_buf *out = buggify(BUGGIFY_FORWARD_DROP)
                              ? NULL
                              : bop__replica_frame_begin(replica, leader, &at);
    struct bop_writer writer;

    if (!out) {
        return BOP_ENOLEADER;
    }
    writer = bop_writer(out);
    bop_write_raw(&writer, command);
    bop__replica_frame_end(replica, leader, out, at, BOP_WIRE_KIND_PEER_FORWARD, &writer);
    return writer.code;
}

uint8_t bop__replica_write(struct replica *replica, struct replica_write *write,
                           struct command *command)
{
    struct bop_writer writer = bop_writer(&replica->scratch);
    bool leads = replica->status.state == BOP_RAFT_LEADER;
    uint64_t id = replica->write_next;
    int rc;

    if (replica->failed != 0) {
        return BOP_STATUS_RETRY;
    }
    if (*write_slot(replica, id) || (leads && proposals_full(replica))) {
        return BOP_STATUS_BUSY;
    }
    /* Whoever follows and cannot append would never hear of its being done. */
    if (replica->state_full || replica->log_full || (leads && replica->disk_low)) {
        return BOP_STATUS_NO_ROOM;
    }
    if (!leads && replica->status.leader == 0) {
        return BOP_STATUS_RETRY;
    }
    command->origin_node = replica->options.id;
    command->origin_request = id;
    command->time_ms = 0; /* The leader stamps it. */
    bop_buf_clear(&replica->scratch);
    bop__command_encode(&writer, command);
    rc = writer.code;
    if (rc == 0) {
        struct bop_slice bytes = bop_buf_slice(&replica->scratch);

        rc = leads ? propose(replica, bytes) : forward(replica, bytes);
    }
    if (rc < 0) {
        return rc == BOP_ENOMEM ? BOP_STATUS_BUSY : BOP_STATUS_RETRY;
    }
    write->id = id;
    write->deadline_ms = replica->now_ms + WRITE_DEADLINE_MS;
    *write_slot(replica, id) = write;
    replica->write_next++;
    replica->write_count++;
    return BOP_STATUS_OK;
}

static void refuse_forward(struct replica *replica, uint64_t peer, uint64_t request, uint8_t status)
{
    size_t at;
    struct bop_buf *out = bop__replica_frame_begin(replica, peer, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop_write_u64(&writer, request);
        bop_write_u8(&writer, status);
        bop__replica_frame_end(replica, peer, out, at, BOP_WIRE_KIND_PEER_FORWARD_REFUSED, &writer);
    }
    /* If it cannot be said, the peer's connection is broken and it knows by that. */
}

int bop__replica_forwarded(struct replica *replica, uint64_t peer, struct bop_slice bytes)
{
    struct command command;
    int rc = bop__command_decode(bytes, &command);

    if (rc < 0 || command.origin_node != peer) {
        return BOP_EMALFORMED;
    }
    if (replica->status.state != BOP_RAFT_LEADER) {
        refuse_forward(replica, peer, command.origin_request, BOP_STATUS_RETRY);
    } else if (replica->state_full || replica->disk_low) {
        refuse_forward(replica, peer, command.origin_request, BOP_STATUS_NO_ROOM);
    } else if (proposals_full(replica) || propose(replica, bytes) < 0) {
        refuse_forward(replica, peer, command.origin_request, BOP_STATUS_BUSY);
    }
    return 0;
}

/* Give all commands of the turn the leader's time and make entries of them. */
static size_t collect_proposals(struct replica *replica, unsigned count)
{
    uint8_t *at = replica->submitting.data;
    size_t bytes = 0;
    uint64_t time_ms = bop__replica_time(replica);

    for (unsigned n = 0; n < count; n++) {
        uint32_t size = bop_load_u32(at);

        bop__command_set_time(at + 4, time_ms);
        replica->submit_entries[n] = (struct bop_raft_entry){
            .type = BOP_RAFT_COMMAND,
            .data = bop_slice(at + 4, size),
        };
        at += 4 + size;
        bytes += size;
    }
    return bytes;
}

/* The proposals could not be submitted: whoever waits for them is told. */
static void refuse_proposals(struct replica *replica, unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        struct command command;
        int rc = bop__command_decode(replica->submit_entries[n].data, &command);

        BOP_ASSERT(rc == 0); /* It was encoded here or decoded once before. */
        if (command.origin_node == replica->options.id) {
            bop__replica_write_refused(replica, command.origin_request, BOP_STATUS_RETRY);
        } else {
            refuse_forward(replica, command.origin_node, command.origin_request, BOP_STATUS_RETRY);
        }
    }
}

static void submit_proposals(struct replica *replica)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SUBMIT, .now_ms = replica->now_ms};
    unsigned count = replica->proposal_count;
    struct bop_buf spare = replica->submitting;
    size_t bytes;

    if (count == 0) {
        return;
    }
    /* What is proposed from inside the step goes into the other buffer. */
    replica->submitting = replica->proposals;
    replica->proposals = spare;
    bop_buf_clear(&replica->proposals);
    replica->proposal_count = 0;
    bytes = collect_proposals(replica, count);
    event.submit.entries = replica->submit_entries;
    event.submit.count = count;
    if (bop__replica_step(replica, &event) < 0) {
        refuse_proposals(replica, count);
        return;
    }
    replica->uncommitted[1].bytes += bytes;
    replica->uncommitted[1].last = replica->status.last_index;
    bop_metric_add(replica->metrics.proposals, count);
}

/* ---- Reading ---- */

void bop__replica_read(struct replica *replica, struct replica_read *read)
{
    uint64_t due_ms = read->patient ? replica->now_ms + READ_GATHER_MS : replica->now_ms;

    bop_list_push_back(&replica->reads_new, &read->link);
    replica->reads_due_ms = bop_min_u64(replica->reads_due_ms, due_ms);
}

static void fail_reads(struct bop_list *reads, int code)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(reads))) {
        struct replica_read *read = BOP_CONTAINER_OF(link, struct replica_read, link);

        read->done(read, code, NULL);
    }
}

static void free_batch(struct replica *replica, struct read_batch *batch)
{
    bop_list_remove(&batch->link);
    replica->read_batch_count--;
    bop_free(replica->allocator, batch, sizeof(*batch));
}

static void drop_batch(struct replica *replica, struct read_batch *batch, int code)
{
    struct bop_list reads;

    /* done may ask for further reads: the batch must be gone by then. */
    bop_list_init(&reads);
    while (!bop_list_empty(&batch->reads)) {
        bop_list_push_back(&reads, bop_list_pop_front(&batch->reads));
    }
    free_batch(replica, batch);
    fail_reads(&reads, code);
}

static struct read_batch *find_batch(struct replica *replica, uint64_t context)
{
    BOP_LIST_FOR_EACH(link, &replica->read_batches) {
        struct read_batch *batch = BOP_CONTAINER_OF(link, struct read_batch, link);

        if (batch->context == context) {
            return batch;
        }
    }
    return NULL;
}

void bop__replica_read_granted(struct replica *replica, const struct bop_raft_read_update *read)
{
    struct read_batch *batch = find_batch(replica, read->context);

    if (!batch) {
        return;
    }
    if (read->code < 0) {
        drop_batch(replica, batch, read->code);
    } else {
        batch->index = read->index;
    }
}

/* One question for all reads that came since the last one. */
static void ask_reads(struct replica *replica)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_READ, .now_ms = replica->now_ms};
    struct read_batch *batch;
    int rc;

    if (replica->reads_due_ms > replica->now_ms || replica->read_batch_count >= READ_BATCHES_MAX ||
        (replica->read_batch_count > 0 && buggify(BUGGIFY_READS_WAIT))) {
        return;
    }
    replica->reads_due_ms = UINT64_MAX;
    batch = bop_alloc(replica->allocator, sizeof(*batch));
    if (!batch) {
        fail_reads(&replica->reads_new, BOP_ENOMEM);
        return;
    }
    batch->context = ++replica->read_context;
    batch->index = 0;
    bop_list_init(&batch->reads);
    while (!bop_list_empty(&replica->reads_new)) {
        bop_list_push_back(&batch->reads, bop_list_pop_front(&replica->reads_new));
    }
    bop_list_push_back(&replica->read_batches, &batch->link);
    replica->read_batch_count++;
    event.read_context = batch->context;
    rc = bop__replica_step(replica, &event);
    if (rc < 0) {
        batch = find_batch(replica, event.read_context);
        if (batch) {
            drop_batch(replica, batch, rc);
        }
    }
}

static void serve_batch(struct replica *replica, struct read_batch *batch)
{
    struct machine_view *view;
    struct bop_list *link;
    int rc = bop__replica_view_open(replica, &view);

    if (rc < 0) {
        drop_batch(replica, batch, rc);
        return;
    }
    while ((link = bop_list_pop_front(&batch->reads))) {
        struct replica_read *read = BOP_CONTAINER_OF(link, struct replica_read, link);

        bop_metric_add(replica->metrics.reads, 1);
        read->done(read, 0, view);
    }
    bop__machine_view_close(view);
    free_batch(replica, batch);
}

void bop__replica_reads_serve(struct replica *replica)
{
    if (!replica->machine) {
        return;
    }
    BOP_LIST_FOR_EACH_SAFE(link, &replica->read_batches) {
        struct read_batch *batch = BOP_CONTAINER_OF(link, struct read_batch, link);

        if (batch->index != 0 && batch->index <= bop__machine_position(replica->machine).index) {
            serve_batch(replica, batch);
        }
    }
}

/* ---- Sessions ---- */

static void tell_leader_alive(struct replica *replica)
{
    uint64_t leader = replica->status.leader;
    size_t at;
    struct bop_buf *out;
    struct bop_writer writer;

    if (replica->alive_count == 0 || leader == 0 || leader == replica->options.id) {
        return;
    }
    out = bop__replica_frame_begin(replica, leader, &at);
    if (!out) {
        return;
    }
    writer = bop_writer(out);
    bop_write_u32(&writer, replica->alive_count);
    for (unsigned n = 0; n < replica->alive_count; n++) {
        bop_write_u64(&writer, replica->alive[n]);
    }
    bop__replica_frame_end(replica, leader, out, at, BOP_WIRE_KIND_PEER_ALIVE, &writer);
    replica->alive_count = 0;
}

/* In their order, with the next message. */
static void tell_leader_later(struct replica *replica, uint64_t word)
{
    if (replica->alive_count == ALIVE_MAX) {
        tell_leader_alive(replica);
    }
    /* If there is nobody to tell, nobody expires sessions either. */
    if (replica->alive_count < ALIVE_MAX) {
        replica->alive[replica->alive_count++] = word;
    }
    if (buggify(BUGGIFY_ALIVE_NOW)) {
        tell_leader_alive(replica);
    }
}

void bop__replica_session_alive(struct replica *replica, uint64_t session)
{
    if (replica->status.state == BOP_RAFT_LEADER) {
        if (replica->machine) {
            bop__machine_session_heard(replica->machine, session, replica->options.id,
                                       replica->now_ms);
        }
        return;
    }
    tell_leader_later(replica, session);
}

void bop__replica_session_cut(struct replica *replica, uint64_t session)
{
    if (replica->status.state == BOP_RAFT_LEADER) {
        if (replica->machine) {
            bop__machine_session_cut(replica->machine, session, replica->options.id,
                                     replica->now_ms);
        }
        return;
    }
    tell_leader_later(replica, session | ALIVE_CUT);
}

static void heard_of(struct replica *replica, uint64_t peer, uint64_t word)
{
    if (word & ALIVE_CUT) {
        bop__machine_session_cut(replica->machine, word & ~ALIVE_CUT, peer, replica->now_ms);
    } else {
        bop__machine_session_heard(replica->machine, word, peer, replica->now_ms);
    }
}

void bop__replica_alive_list(struct replica *replica, uint64_t peer, struct bop_slice payload)
{
    struct bop_reader reader = bop_reader(payload);
    uint32_t count = bop_read_u32(&reader);

    for (uint32_t n = 0; n < count && !reader.failed; n++) {
        uint64_t word = bop_read_u64(&reader);

        if (!reader.failed && replica->status.state == BOP_RAFT_LEADER && replica->machine) {
            heard_of(replica, peer, word);
        }
    }
}

static void expire_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct replica *replica = BOP_CONTAINER_OF(write, struct replica, expire_write);

    replica->expiring = false;
}

/* Leader: end sessions that were not heard of, all in one entry. */
static void expire_sessions(struct replica *replica)
{
    uint64_t sessions[COMMAND_EXPIRE_MAX];
    struct command command = {.kind = COMMAND_SESSION_EXPIRE};
    size_t count;

    if (!replica->status.ready || replica->expiring || !replica->machine) {
        return;
    }
    count = bop__machine_sessions_expired(replica->machine, replica->now_ms, sessions,
                                          COMMAND_EXPIRE_MAX);
    if (count == 0) {
        return;
    }
    command.expired = bop_slice(sessions, count * sizeof(sessions[0]));
    replica->expire_write = (struct replica_write){.done = expire_done, .retryable = true};
    replica->expiring = bop__replica_write(replica, &replica->expire_write, &command) ==
                        BOP_STATUS_OK;
    if (replica->expiring) {
        bop_log(replica->options.log, BOP_LOG_INFO, "session", "expire count=%zu first=%" PRIu64,
                count, sessions[0]);
    }
}

/* ---- Together ---- */

void bop__replica_requests_leadership(struct replica *replica)
{
    uint64_t last = replica->write_next;

    if (replica->status.leader == replica->pending_leader &&
        replica->status.term == replica->pending_term) {
        return;
    }
    replica->pending_leader = replica->status.leader;
    replica->pending_term = replica->status.term;
    for (uint64_t id = replica->write_oldest; id < last; id++) {
        struct replica_write *write = *write_slot(replica, id);

        if (write && write->id == id && write->retryable) {
            finish(replica, id, BOP_STATUS_RETRY, bop_slice(NULL, 0));
        }
    }
}

void bop__replica_requests_housekeeping(struct replica *replica)
{
    uint64_t last = replica->write_next;

    for (uint64_t id = replica->write_oldest; id < last; id++) {
        struct replica_write *write = *write_slot(replica, id);

        if (write && write->id == id && write->deadline_ms <= replica->now_ms) {
            finish(replica, id, write->retryable ? BOP_STATUS_RETRY : BOP_STATUS_UNCERTAIN,
                   bop_slice(NULL, 0));
        }
    }
    tell_leader_alive(replica);
    expire_sessions(replica);
}

void bop__replica_requests_turn(struct replica *replica)
{
    bop__replica_time_turn(replica);
    submit_proposals(replica);
    ask_reads(replica);
}

void bop__replica_requests_deinit(struct replica *replica)
{
    for (uint64_t id = replica->write_oldest; id < replica->write_next; id++) {
        struct replica_write *write = *write_slot(replica, id);

        if (write && write->id == id) {
            finish(replica, id, write->retryable ? BOP_STATUS_RETRY : BOP_STATUS_UNCERTAIN,
                   bop_slice(NULL, 0));
        }
    }
    fail_reads(&replica->reads_new, BOP_ECANCELED);
    while (!bop_list_empty(&replica->read_batches)) {
        drop_batch(replica, BOP_CONTAINER_OF(replica->read_batches.next, struct read_batch, link),
                   BOP_ECANCELED);
    }
}
