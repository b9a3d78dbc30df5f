/*
 * Connections between nodes, as node_link.c and node_conn.c make them: each node
 * dials every other one and speaks only on what it dialed. A connection that
 * breaks loses what was under way; but what a dead node has sent may still
 * arrive, until its next life is accepted.
 */
#include <stdlib.h>
#include <string.h>

#include <bop/crc32c.h>

#include "sim.h"

#define WIRE_CRC_BYTES 4

static struct sim_link *link_of(struct sim *sim, unsigned a, unsigned b)
{
    return &sim->links[a][b];
}

void sim_net_init(struct sim *sim)
{
    for (unsigned a = 0; a < SIM_NODES_MAX; a++) {
        for (unsigned b = 0; b < SIM_NODES_MAX; b++) {
            struct sim_link *link = link_of(sim, a, b);

            bop_buf_init(&link->out, NULL, 0);
            sim_pipe_init(&link->pipe);
        }
    }
}

void sim_net_deinit(struct sim *sim)
{
    for (unsigned a = 0; a < SIM_NODES_MAX; a++) {
        for (unsigned b = 0; b < SIM_NODES_MAX; b++) {
            bop_buf_deinit(&sim->links[a][b].out);
            sim_pipe_clear(&sim->links[a][b].pipe);
        }
    }
}

static void dial_later(struct sim *sim, unsigned a, unsigned b)
{
    struct sim_link *link = link_of(sim, a, b);

    link->epoch++;
    sim_push(sim, sim->now_us + sim_between(sim, 10 * SIM_MS, 400 * SIM_MS), SIM_EVENT_DIAL, a, b,
             link->epoch);
}

/* What is under way on a connection that has ended: gone, or still to come. */
static void leave_under_way(struct sim *sim, struct sim_link *link)
{
    bop_buf_clear(&link->out);
    if (sim_chance(sim, 1, 2)) {
        link->accepted = 0;
        sim_pipe_clear(&link->pipe);
    }
}

void sim_net_up(struct sim_node *node)
{
    for (unsigned b = 0; b < node->sim->node_count; b++) {
        if (b != node->index) {
            dial_later(node->sim, node->index, b);
        }
    }
}

void sim_net_down(struct sim_node *node)
{
    struct sim *sim = node->sim;

    for (unsigned other = 0; other < sim->node_count; other++) {
        struct sim_link *from = link_of(sim, node->index, other);
        struct sim_link *to = link_of(sim, other, node->index);

        if (other == node->index) {
            continue;
        }
        from->ready = false;
        from->epoch++;
        leave_under_way(sim, from);
        to->accepted = 0;
        sim_pipe_clear(&to->pipe);
        if (to->ready) {
            uint64_t after = to->blocked || from->blocked
                                 ? sim_between(sim, 500 * SIM_MS, 5000 * SIM_MS)
                                 : sim_latency(sim);

            sim_push(sim, sim->now_us + after, SIM_EVENT_LOST, other, node->index, to->epoch);
        }
    }
}

void sim_net_block(struct sim *sim, unsigned a, unsigned b, bool blocked)
{
    struct sim_link *link = link_of(sim, a, b);

    if (link->blocked == blocked) {
        return;
    }
    link->blocked = blocked;
    if (!blocked && link->accepted) {
        sim_push(sim, sim->now_us + sim_latency(sim), SIM_EVENT_DELIVER, a, b, link->accepted);
    }
    if (blocked && link->ready && sim_chance(sim, 1, 2)) {
        sim_push(sim, sim->now_us + sim_between(sim, 100 * SIM_MS, 8000 * SIM_MS), SIM_EVENT_LOST,
                 a, b, link->epoch);
    }
}

void sim_net_break(struct sim *sim, unsigned a, unsigned b)
{
    struct sim_link *link = link_of(sim, a, b);

    if (link->ready) {
        sim->stats.breaks++;
        sim_push(sim, sim->now_us, SIM_EVENT_LOST, a, b, link->epoch);
    }
}

struct bop_buf *sim_net_output(struct replica_transport *self, uint64_t peer)
{
    struct sim_node *node = BOP_CONTAINER_OF(self, struct sim_node, transport);
    struct sim_link *link;

    if (!node->up || peer == 0 || peer > node->sim->node_count) {
        return NULL;
    }
    link = link_of(node->sim, node->index, (unsigned)peer - 1);
    return link->ready && link->pipe.bytes <= node->sim->queue_max ? &link->out : NULL;
}

void sim_net_flush(struct replica_transport *self, uint64_t peer)
{
    struct sim_node *node = BOP_CONTAINER_OF(self, struct sim_node, transport);
    struct sim *sim = node->sim;
    struct sim_link *link = link_of(sim, node->index, (unsigned)peer - 1);
    uint64_t at_us = sim_pipe_push(sim, &link->pipe, bop_buf_slice(&link->out));

    bop_buf_clear(&link->out);
    sim_push(sim, at_us, SIM_EVENT_DELIVER, node->index, (unsigned)peer - 1, link->epoch);
}

/* Mutation: one byte of the last entry of an append is another one, and nobody can tell. */
static void tamper(struct sim *sim, struct sim_piece *piece, const struct bop_wire_frame *frame)
{
    struct bop_buf again;
    size_t at;

    if (frame->kind != BOP_WIRE_KIND_PEER_RAFT || frame->payload.size < 200 ||
        !sim_chance(sim, 1, 20)) {
        return;
    }
    bop_buf_init(&again, NULL, 0);
    BOP_ASSERT(bop_wire_begin(&again, &at) == 0);
    BOP_ASSERT(bop_buf_append(&again, frame->payload.data, frame->payload.size) == 0);
    again.data[again.size - 1] ^= 1;
    bop_wire_end(&again, at, BOP_WIRE_KIND_PEER_RAFT, BOP_WIRE_REQUEST, 0);
    memcpy(piece->bytes + (frame->payload.data - piece->bytes) - BOP_WIRE_HEADER, again.data,
           again.size);
    bop_buf_deinit(&again);
}

/* It took a for another one when that said hello, and knows better now. */
static void hang_up(struct sim *sim, unsigned a, unsigned b)
{
    struct sim_link *link = link_of(sim, a, b);

    sim_say(sim, &sim->nodes[b], "hangs up on node %u", a + 1);
    link->accepted = 0;
    sim_push(sim, sim->now_us + sim_latency(sim), SIM_EVENT_LOST, a, b, link->epoch);
}

/* Hand the frames of a piece to the replica. */
static void hand_over(struct sim *sim, unsigned a, unsigned b, struct sim_piece *piece)
{
    struct sim_node *node = &sim->nodes[b];
    struct bop_slice rest = bop_slice(piece->bytes, piece->size);
    uint64_t life = node->life;

    while (rest.size > 0 && !sim->failed && node->up && node->life == life) {
        struct bop_wire_frame frame;
        size_t used;
        int rc = bop_wire_parse(rest, 0, &frame, &used, NULL);

        if (rc == 0 && sim->options.mutation == SIM_MUTATE_TAMPER) {
            tamper(sim, piece, &frame);
        }
        if (rc == 0) {
            rc = bop__replica_peer_frame(node->replica, a + 1, &frame);
        }
        if (rc == BOP_EREMOVED) {
            hang_up(sim, a, b);
            return;
        }
        if (rc < 0) {
            sim_fail(sim, "node %u refuses what node %u says: %s", b + 1, a + 1, bop_strerror(rc));
            return;
        }
        rest = bop_slice(rest.data + used, rest.size - used);
        sim_node_after(node);
    }
    sim_node_touch(node);
}

static void deliver(struct sim *sim, unsigned a, unsigned b, uint64_t epoch)
{
    struct sim_link *link = link_of(sim, a, b);
    struct sim_node *node = &sim->nodes[b];
    struct sim_piece *piece;

    while (link->accepted == epoch && !link->blocked && node->up && !sim->failed &&
           (piece = sim_pipe_pop(sim, &link->pipe))) {
        sim_mix(sim, bop_crc32c(0, piece->bytes, piece->size));
        hand_over(sim, a, b, piece);
        free(piece);
    }
}

static void lost(struct sim *sim, unsigned a, unsigned b)
{
    struct sim_link *link = link_of(sim, a, b);
    struct sim_node *node = &sim->nodes[a];

    link->ready = false;
    leave_under_way(sim, link);
    sim_say(sim, node, "lost node %u", b + 1);
    bop__replica_peer_lost(node->replica, b + 1);
    sim_node_after(node);
    sim_node_touch(node);
    dial_later(sim, a, b);
}

static void dial(struct sim *sim, unsigned a, unsigned b)
{
    struct sim_link *link = link_of(sim, a, b);

    if (!sim->nodes[b].up || link->blocked || link_of(sim, b, a)->blocked) {
        dial_later(sim, a, b);
        return;
    }
    bop__replica_introduction(sim->nodes[a].replica, link->hello);
    sim_push(sim, sim->now_us + sim_latency(sim), SIM_EVENT_ACCEPT, a, b, link->epoch);
}

/* Returns whether it is let in. If not, it may be told that it is no member any more. */
static bool introduce(struct sim *sim, unsigned a, unsigned b)
{
    struct sim_link *link = link_of(sim, a, b);
    struct sim_node *node = &sim->nodes[b];
    char refusal[500] = "";
    enum introduction said = bop__replica_introduced(
        node->replica, a + 1, bop_slice_cstr(link->hello), refusal, sizeof(refusal));
    struct bop_buf word;
    struct bop_writer writer = bop_writer(&word);

    link->word_size = 0;
    if (said == INTRODUCTION_REMOVED || said == INTRODUCTION_REPLACED) {
        bop_buf_init(&word, NULL, 0);
        bop__replica_removed_encode(node->replica, &writer, said);
        BOP_ASSERT(writer.code == 0 && word.size <= sizeof(link->word));
        memcpy(link->word, word.data, word.size);
        link->word_size = word.size;
        bop_buf_deinit(&word);
    }
    if (said != INTRODUCTION_ACCEPTED) {
        sim_say(sim, node, "refuses node %u: %s", a + 1, refusal);
    }
    sim_node_after(node);
    sim_node_touch(node);
    return said == INTRODUCTION_ACCEPTED;
}

static void accept_link(struct sim *sim, unsigned a, unsigned b)
{
    struct sim_link *link = link_of(sim, a, b);

    if (!sim->nodes[b].up || link->blocked) {
        dial_later(sim, a, b);
        return;
    }
    sim_pipe_clear(&link->pipe);
    link->accepted = introduce(sim, a, b) ? link->epoch : 0;
    sim_push(sim, sim->now_us + sim_latency(sim), SIM_EVENT_READY, a, b, link->epoch);
}

static void ready(struct sim *sim, unsigned a, unsigned b)
{
    struct sim_link *link = link_of(sim, a, b);
    struct sim_node *node = &sim->nodes[a];

    if (link->accepted == 0 && link->word_size > 0 && !link_of(sim, b, a)->blocked) {
        BOP_ASSERT(
            bop__replica_removed(node->replica, bop_slice(link->word, link->word_size), true) == 0);
        link->word_size = 0;
        sim_node_touch(node);
    }
    if (link->accepted != link->epoch || link_of(sim, b, a)->blocked) {
        dial_later(sim, a, b);
        return;
    }
    link->ready = true;
    sim_say(sim, node, "connected to node %u", b + 1);
    bop__replica_peer_connected(node->replica, b + 1);
    sim_node_after(node);
    sim_node_touch(node);
}

void sim_net_event(struct sim *sim, const struct sim_event *event)
{
    struct sim_link *link = link_of(sim, event->a, event->b);
    struct sim_node *node =
        &sim->nodes[event->kind == SIM_EVENT_DELIVER || event->kind == SIM_EVENT_ACCEPT ? event->b
                                                                                        : event->a];

    if (node->up && sim->now_us < node->paused_until_us) {
        sim_push(sim, node->paused_until_us, (enum sim_event_kind)event->kind, event->a, event->b,
                 event->c);
        return;
    }
    if (event->kind == SIM_EVENT_DELIVER) {
        deliver(sim, event->a, event->b, event->c);
        return;
    }
    if (event->c != link->epoch || !sim->nodes[event->a].up) {
        return; /* Of a connection that is no more. */
    }
    switch (event->kind) {
    case SIM_EVENT_DIAL:
        dial(sim, event->a, event->b);
        break;
    case SIM_EVENT_ACCEPT:
        accept_link(sim, event->a, event->b);
        break;
    case SIM_EVENT_READY:
        ready(sim, event->a, event->b);
        break;
    default:
        if (link->ready) {
            lost(sim, event->a, event->b);
        }
    }
}
