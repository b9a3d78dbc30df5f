/*
 * Linearizable reads without the log. See read_index.h for the protocol.
 *
 * Invariants, checked by reads_check() in debug builds:
 *
 *   (1) sent <= count <= capacity; capacity is 0 or a power of two.
 *   (2) The first `sent` batches have sequences above `confirmed` and up to
 *       `sequence`, never falling; the others have none.
 *   (3) confirmed <= sequence.
 */
#include "read_index.h"

#include <bop/random.h>

#define CAPACITY_FIRST 16

static struct read_batch *batch_at(const struct read_index *reads, unsigned i)
{
    return &reads->batches[(reads->head + i) & (reads->capacity - 1)];
}

static void reads_check(const struct read_index *reads)
{
    uint64_t last = reads->confirmed + 1;

    BOP_DEBUG_ASSERT(reads->sent <= reads->count && reads->count <= reads->capacity);
    BOP_DEBUG_ASSERT((reads->capacity & (reads->capacity - 1)) == 0);
    BOP_DEBUG_ASSERT(reads->confirmed <= reads->sequence);
    for (unsigned i = 0; i < reads->count; i++) {
        uint64_t sequence = batch_at(reads, i)->sequence;

        BOP_DEBUG_ASSERT(i < reads->sent ? sequence >= last && sequence <= reads->sequence
                                         : sequence == 0);
        last = i < reads->sent ? sequence : last;
    }
}

void bop__read_index_init(struct read_index *reads, struct bop_allocator *allocator,
                          unsigned heartbeat_ms, unsigned election_timeout_ms, uint64_t seed)
{
    struct bop_random random;

    memset(reads, 0, sizeof(*reads));
    reads->allocator = allocator;
    reads->heartbeat_ms = heartbeat_ms;
    reads->timeout_ms = UINT64_C(2) * election_timeout_ms;
    /* Far from the end of the numbers, and apart from those of another start. */
    bop_random_seed(&random, seed);
    reads->sequence = (bop_random_next(&random) >> 2) + 1;
    reads->confirmed = reads->sequence;
}

void bop__read_index_tune(struct read_index *reads, unsigned heartbeat_ms,
                          unsigned election_timeout_ms)
{
    reads->heartbeat_ms = heartbeat_ms;
    reads->timeout_ms = UINT64_C(2) * election_timeout_ms;
}

void bop__read_index_deinit(struct read_index *reads)
{
    bop_free(reads->allocator, reads->batches, reads->capacity * sizeof(*reads->batches));
}

static int grow(struct read_index *reads)
{
    unsigned capacity = reads->capacity > 0 ? reads->capacity * 2 : CAPACITY_FIRST;
    struct read_batch *batches;

    if (reads->count < reads->capacity) {
        return 0;
    }
    if (reads->count >= READ_BATCHES_MAX) {
        return BOP_EBUSY;
    }
    batches = bop_alloc_array(reads->allocator, capacity, sizeof(*batches));
    if (!batches) {
        return BOP_ENOMEM;
    }
    for (unsigned i = 0; i < reads->count; i++) {
        batches[i] = *batch_at(reads, i);
    }
    bop_free(reads->allocator, reads->batches, reads->capacity * sizeof(*batches));
    reads->batches = batches;
    reads->capacity = capacity;
    reads->head = 0;
    return 0;
}

static int push(struct read_index *reads, const struct read_view *view, uint64_t peer, uint64_t tag)
{
    int rc = grow(reads);

    if (rc != 0) {
        return rc;
    }
    *batch_at(reads, reads->count++) = (struct read_batch){
        .peer = peer,
        .tag = tag,
        .index = view->state == BOP_RAFT_LEADER && view->ready ? view->commit : 0,
        .since_ms = view->now_ms,
    };
    return 0;
}

/* Tell whoever asked. A peer learns of a refusal by index 0. */
static void answer(const struct read_batch *batch, uint64_t term, uint64_t index, int code,
                   struct raft_outbox *out)
{
    struct bop_raft_message *message;

    if (batch->peer == 0) {
        bop__raft_outbox_read(out, batch->tag, code == 0 ? index : 0, code);
        return;
    }
    message = bop__raft_outbox_message(out, BOP_RAFT_READ_RESULT, batch->peer, term);
    if (message) {
        message->read.sequence = batch->tag;
        message->read.index = code == 0 ? index : 0;
    }
}

static void pop(struct read_index *reads)
{
    reads->head = (reads->head + 1) & (reads->capacity - 1);
    reads->count--;
    if (reads->sent > 0) {
        reads->sent--;
    }
}

static void fail_all(struct read_index *reads, struct raft_outbox *out)
{
    while (reads->count > 0) {
        answer(batch_at(reads, 0), reads->term, 0, BOP_ENOLEADER, out);
        pop(reads);
    }
    reads->confirmed = reads->sequence;
}

/* Role, term and leader are what a batch was taken in under; a change ends it. */
static void notice_change(struct read_index *reads, const struct read_view *view,
                          struct raft_outbox *out)
{
    if (reads->state == view->state && reads->term == view->term && reads->leader == view->leader) {
        return;
    }
    fail_all(reads, out);
    reads->state = view->state;
    reads->term = view->term;
    reads->leader = view->leader;
    reads->acked_count = 0;
}

/* Everything sent with a sequence up to this one is decided. index 0: as the batches say. */
static void confirm(struct read_index *reads, uint64_t sequence, uint64_t index, int code,
                    struct raft_outbox *out)
{
    while (reads->sent > 0 && batch_at(reads, 0)->sequence <= sequence) {
        const struct read_batch *batch = batch_at(reads, 0);

        answer(batch, reads->term, index > 0 ? index : batch->index, code, out);
        pop(reads);
    }
    reads->confirmed = bop_max_u64(reads->confirmed, sequence);
}

/* ---- Leader ---- */

static void send_probe(struct read_index *reads, const struct read_view *view,
                       struct raft_outbox *out)
{
    for (unsigned i = 0; i < view->voter_count; i++) {
        struct bop_raft_message *message;

        if (view->voters[i] == view->self) {
            continue;
        }
        message = bop__raft_outbox_message(out, BOP_RAFT_READ_PROBE, view->voters[i], view->term);
        if (message) {
            message->read.sequence = reads->sequence;
            message->read.index = 0;
        }
    }
    reads->sent_ms = view->now_ms;
}

static uint64_t acked_by(const struct read_index *reads, uint64_t peer)
{
    for (unsigned i = 0; i < reads->acked_count; i++) {
        if (reads->acked[i].peer == peer) {
            return reads->acked[i].sequence;
        }
    }
    return 0;
}

/* The highest sequence that a majority of the voters has answered. */
static uint64_t majority(const struct read_index *reads, const struct read_view *view)
{
    uint64_t best = 0;

    for (unsigned i = 0; i < view->voter_count; i++) {
        uint64_t candidate = view->voters[i] == view->self ? reads->sequence
                                                           : acked_by(reads, view->voters[i]);
        unsigned reached = 0;

        for (unsigned j = 0; j < view->voter_count; j++) {
            reached += view->voters[j] == view->self ||
                       acked_by(reads, view->voters[j]) >= candidate;
        }
        if (reached > view->voter_count / 2 && candidate > best) {
            best = candidate;
        }
    }
    return best;
}

static void record_ack(struct read_index *reads, uint64_t peer, uint64_t sequence)
{
    for (unsigned i = 0; i < reads->acked_count; i++) {
        if (reads->acked[i].peer == peer) {
            reads->acked[i].sequence = bop_max_u64(reads->acked[i].sequence, sequence);
            return;
        }
    }
    if (reads->acked_count == BOP_RAFT_SERVERS_MAX) {
        /* Servers came and went within one term. Beginning anew costs one more round. */
        reads->acked_count = 0;
    }
    reads->acked[reads->acked_count++] = (struct read_acked){.peer = peer, .sequence = sequence};
}

static bool is_voter(const struct read_view *view, uint64_t peer)
{
    for (unsigned i = 0; i < view->voter_count; i++) {
        if (view->voters[i] == peer) {
            return true;
        }
    }
    return false;
}

static void take_probe_result(struct read_index *reads, const struct read_view *view,
                              const struct bop_raft_message *message, struct raft_outbox *out)
{
    if (view->state != BOP_RAFT_LEADER || message->term != view->term ||
        message->read.sequence > reads->sequence || !is_voter(view, message->peer)) {
        return;
    }
    record_ack(reads, message->peer, message->read.sequence);
    confirm(reads, majority(reads, view), 0, 0, out);
}

/* A request that waits already was sent again only because its result takes long. */
static bool waits(const struct read_index *reads, uint64_t peer, uint64_t tag)
{
    for (unsigned i = 0; i < reads->count; i++) {
        if (batch_at(reads, i)->peer == peer && batch_at(reads, i)->tag == tag) {
            return true;
        }
    }
    return false;
}

static void take_request(struct read_index *reads, const struct read_view *view,
                         const struct bop_raft_message *message, struct raft_outbox *out)
{
    struct read_batch refused = {.peer = message->peer, .tag = message->read.sequence};

    if (message->term != view->term) {
        return; /* Whoever lags learns the term by other means and gives the request up. */
    }
    if (view->state == BOP_RAFT_LEADER) {
        if (waits(reads, message->peer, message->read.sequence) ||
            push(reads, view, message->peer, message->read.sequence) == 0) {
            return;
        }
    }
    answer(&refused, view->term, 0, BOP_ENOLEADER, out);
}

/* ---- Follower ---- */

static void send_request(struct read_index *reads, const struct read_view *view,
                         struct raft_outbox *out)
{
    struct bop_raft_message *message = bop__raft_outbox_message(out, BOP_RAFT_READ_REQUEST,
                                                                view->leader, view->term);

    if (message) {
        message->read.sequence = reads->sequence;
        message->read.index = 0;
    }
    reads->sent_ms = view->now_ms;
}

static void take_result(struct read_index *reads, const struct read_view *view,
                        const struct bop_raft_message *message, struct raft_outbox *out)
{
    uint64_t sequence = message->read.sequence;

    /* Only what the leader of this very term says of a request that is under way. */
    if (view->state != BOP_RAFT_FOLLOWER || message->term != view->term ||
        message->peer != view->leader || sequence <= reads->confirmed ||
        sequence > reads->sequence) {
        return;
    }
    confirm(reads, sequence, message->read.index, message->read.index > 0 ? 0 : BOP_ENOLEADER, out);
}

static void take_probe(const struct read_view *view, const struct bop_raft_message *message,
                       struct raft_outbox *out)
{
    struct bop_raft_message *reply;

    if (message->term != view->term || view->state == BOP_RAFT_LEADER) {
        return;
    }
    reply = bop__raft_outbox_message(out, BOP_RAFT_READ_PROBE_RESULT, message->peer, view->term);
    if (reply) {
        reply->read.sequence = message->read.sequence;
        reply->read.index = 0;
    }
}

/* ---- Both ---- */

static void send_newest(struct read_index *reads, const struct read_view *view,
                        struct raft_outbox *out)
{
    if (view->state == BOP_RAFT_LEADER) {
        send_probe(reads, view, out);
    } else {
        send_request(reads, view, out);
    }
}

/* Give what waits the next sequence and send it, if there is room in flight. */
static void send_waiting(struct read_index *reads, const struct read_view *view,
                         struct raft_outbox *out)
{
    if (reads->sent == reads->count || reads->sequence - reads->confirmed >= PROBES_IN_FLIGHT_MAX ||
        (view->state == BOP_RAFT_LEADER && !view->ready)) {
        return;
    }
    reads->sequence++;
    for (; reads->sent < reads->count; reads->sent++) {
        struct read_batch *batch = batch_at(reads, reads->sent);

        batch->sequence = reads->sequence;
        if (batch->index == 0) {
            batch->index = view->commit;
        }
    }
    send_newest(reads, view, out);
}

static void give_up_late(struct read_index *reads, const struct read_view *view,
                         struct raft_outbox *out)
{
    while (reads->count > 0 && view->now_ms >= batch_at(reads, 0)->since_ms + reads->timeout_ms) {
        const struct read_batch *batch = batch_at(reads, 0);

        if (reads->sent > 0) {
            reads->confirmed = bop_max_u64(reads->confirmed, batch->sequence - 1);
        }
        answer(batch, reads->term, 0, BOP_ENOLEADER, out);
        pop(reads);
    }
    if (reads->sent == 0) {
        reads->confirmed = reads->sequence; /* Nobody waits for what is under way. */
    }
}

int bop__read_index_ask(struct read_index *reads, const struct read_view *view, uint64_t context,
                        struct raft_outbox *out)
{
    notice_change(reads, view, out);
    if (view->state != BOP_RAFT_LEADER && view->leader == 0) {
        bop__raft_outbox_read(out, context, 0, BOP_ENOLEADER);
        return 0;
    }
    return push(reads, view, 0, context);
}

void bop__read_index_receive(struct read_index *reads, const struct read_view *view,
                             const struct bop_raft_message *message, struct raft_outbox *out)
{
    notice_change(reads, view, out);
    switch (message->type) {
    case BOP_RAFT_READ_PROBE:
        take_probe(view, message, out);
        break;
    case BOP_RAFT_READ_PROBE_RESULT:
        take_probe_result(reads, view, message, out);
        break;
    case BOP_RAFT_READ_REQUEST:
        take_request(reads, view, message, out);
        break;
    case BOP_RAFT_READ_RESULT:
        take_result(reads, view, message, out);
        break;
    default:
        BOP_ASSERT(!"a message of the read index");
    }
}

void bop__read_index_turn(struct read_index *reads, const struct read_view *view,
                          struct raft_outbox *out)
{
    notice_change(reads, view, out);
    if (reads->count == 0) {
        return;
    }
    give_up_late(reads, view, out);
    if (reads->sent > 0 && view->now_ms >= reads->sent_ms + reads->heartbeat_ms) {
        send_newest(reads, view, out);
    }
    send_waiting(reads, view, out);
    if (view->state == BOP_RAFT_LEADER && reads->sent > 0) {
        /* A lone voter, or a configuration that needs fewer voices than the last one. */
        confirm(reads, majority(reads, view), 0, 0, out);
    }
    reads_check(reads);
}

uint64_t bop__read_index_deadline_ms(const struct read_index *reads)
{
    uint64_t deadline = UINT64_MAX;

    if (reads->count > 0) {
        deadline = batch_at(reads, 0)->since_ms + reads->timeout_ms;
    }
    if (reads->sent > 0) {
        deadline = bop_min_u64(deadline, reads->sent_ms + reads->heartbeat_ms);
    }
    return deadline;
}
