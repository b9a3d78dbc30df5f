/*
 * An operator who changes the cluster while it is under fire: adds, promotes, demotes,
 * removes, prefers, hands over, and replaces nodes whose disk is gone.
 *
 * A run has one of two kinds of operator. One changes whatever comes to mind; the
 * cluster refuses what would not be safe. The other replaces: a node loses its disk for
 * good and comes back under the same id with nothing, is asked to be removed, and joins
 * anew. At most one disk is on the way at a time, so that a majority of those that count
 * has what was acknowledged.
 */
#include <stdlib.h>

#include "member.h"
#include "replica_internal.h"
#include "sim.h"

struct question {
    struct replica_admin admin; /* First. */
    struct sim *sim;
    struct bop_buf payload;
};

static void answered(struct replica_admin *admin, struct bop_slice response)
{
    struct question *question = (struct question *)admin;
    struct sim *sim = question->sim;
    struct bop_admin_change_response change;
    struct bop_admin_transfer_response transfer;
    int rc = admin->kind == BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST
                 ? bop_admin_change_response_decode(response, &change)
                 : bop_admin_transfer_response_decode(response, &transfer);

    if (rc < 0) {
        sim_fail(sim, "an answer to an operator is malformed");
    }
    sim->stats.answers++;
    bop_buf_deinit(&question->payload);
    free(question);
}

static void ask(struct sim_node *node, enum bop_wire_kind kind,
                const struct bop_admin_change_request *change, uint64_t to)
{
    struct sim *sim = node->sim;
    struct question *question = sim_memory(sizeof(*question));
    struct bop_writer writer = bop_writer(&question->payload);
    struct bop_admin_transfer_request transfer = {.node = to};

    bop_buf_init(&question->payload, NULL, 0);
    if (kind == BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST) {
        bop_admin_change_request_encode(&writer, change);
    } else {
        bop_admin_transfer_request_encode(&writer, &transfer);
    }
    BOP_ASSERT(writer.code == 0);
    question->sim = sim;
    question->admin.kind = (uint16_t)kind;
    question->admin.payload = bop_buf_slice(&question->payload);
    question->admin.done = answered;
    bop__replica_admin(node->replica, &question->admin);
    sim_node_after(node);
    sim_node_touch(node);
}

static void ask_change(struct sim_node *node, enum bop_admin_action action, struct sim_node *target)
{
    struct sim *sim = node->sim;
    struct bop_admin_change_request change = {
        .action = (uint8_t)action,
        .node = target->id,
        .priority = action == BOP_ADMIN_ADD || action == BOP_ADMIN_PRIORITY_SET
                        ? (uint32_t)sim_below(sim, 4)
                        : 0,
        .flags = action == BOP_ADMIN_ADD && sim_chance(sim, 1, 2) ? BOP_ADMIN_VOTER : 0,
        .address = bop_slice_cstr(action == BOP_ADMIN_ADD ? target->address : "")};

    sim_say(sim, node, "is asked to change node %" PRIu64 " by %d", target->id, (int)action);
    ask(node, BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST, &change, 0);
}

static struct sim_node *some_node(struct sim *sim)
{
    return &sim->nodes[sim_below(sim, sim->node_count)];
}

/* ---- Disks that are gone ---- */

/* The server as the committed configuration has it; NULL: it has not. */
static const struct bop_raft_server *server_of(const struct sim *sim, uint64_t id)
{
    const struct bop_raft_configuration *conf = sim_model_configuration(sim);

    return bop__member_find(conf, id);
}

static unsigned voters(const struct sim *sim)
{
    const struct bop_raft_configuration *conf = sim_model_configuration(sim);
    unsigned count = 0;

    for (unsigned n = 0; n < conf->count; n++) {
        count += conf->servers[n].role == BOP_RAFT_VOTER;
    }
    return count;
}

/* Those that count are there and know by which directory it was a member: nobody takes it for what
 * it was. */
static bool all_know(const struct sim *sim, const struct sim_node *node)
{
    const struct bop_raft_configuration *conf = sim_model_configuration(sim);

    for (unsigned n = 0; n < sim->node_count; n++) {
        const struct sim_node *other = &sim->nodes[n];
        const struct bop_raft_server *server;
        struct bop_raft_configuration known;
        struct member member;

        if (other == node || !bop__member_find(conf, other->id)) {
            continue;
        }
        if (!other->up) {
            return false;
        }
        bop__replica_configuration(other->replica, &known);
        server = bop__member_find(&known, node->id);
        if (!server) {
            return false;
        }
        bop__member_of(server, &member);
        if (member.incarnation == 0 || known.count != conf->count) {
            return false;
        }
    }
    return true;
}

/* Who lost the end of its log has no vote before it has that again: as good as one that is away. */
static bool some_lost_entries(const struct sim *sim)
{
    for (unsigned n = 0; n < sim->node_count; n++) {
        const struct sim_node *node = &sim->nodes[n];

        if (node->tail.wanted || (node->tail.lost && (!node->up || node->replica->lost.index))) {
            return true;
        }
    }
    return false;
}

static bool may_lose(const struct sim *sim, const struct sim_node *node)
{
    const struct bop_raft_server *server = server_of(sim, node->id);
    struct member member;

    if (!server || sim->replacing || some_lost_entries(sim) || voters(sim) < 3 || !node->exists ||
        !node->up) {
        return false;
    }
    bop__member_of(server, &member);
    return member.incarnation != 0 && !node->removed && all_know(sim, node);
}

static void replace(struct sim *sim, struct sim_node *node)
{
    const struct bop_raft_server *server = server_of(sim, node->id);
    struct member member;

    if (!may_lose(sim, node)) {
        return;
    }
    bop__member_of(server, &member);
    sim->replacing = node;
    node->lost_incarnation = member.incarnation;
    sim->stats.replaced++;
    sim_say(sim, node, "its disk is gone");
    sim_node_crash(node, false);
    sim_node_wipe(node);
}

/* The one that was is removed; the new one may be there already. */
static bool is_replaced(const struct sim *sim)
{
    const struct bop_raft_server *server = server_of(sim, sim->replacing->id);
    struct member member;

    if (!server) {
        return true;
    }
    bop__member_of(server, &member);
    return member.incarnation != sim->replacing->lost_incarnation;
}

void sim_operator_event(struct sim *sim)
{
    struct sim_node *node = some_node(sim);

    if (sim->replacing && is_replaced(sim)) {
        sim->replacing = NULL;
    }
    if (sim->replacing && node->up && node != sim->replacing) {
        ask_change(node, BOP_ADMIN_REMOVE, sim->replacing);
    }
    sim_push(sim, sim->now_us + sim_between(sim, 100 * SIM_MS, 600 * SIM_MS), SIM_EVENT_OPERATOR, 0,
             0, 0);
}

/* ---- What an operator thinks of ---- */

void sim_operator_act(struct sim *sim)
{
    static const enum bop_admin_action actions[] = {
        BOP_ADMIN_ADD,    BOP_ADMIN_PROMOTE, BOP_ADMIN_PROMOTE,
        BOP_ADMIN_DEMOTE, BOP_ADMIN_REMOVE,  BOP_ADMIN_PRIORITY_SET,
    };
    struct sim_node *node = some_node(sim), *target = some_node(sim);
    enum bop_admin_action action = actions[sim_below(sim, BOP_COUNT_OF(actions))];

    if (!node->up || sim_model_configuration(sim)->count == 0) {
        return;
    }
    if (sim_chance(sim, 1, 4)) {
        sim_say(sim, node, "is asked to hand over to node %" PRIu64, target->id);
        ask(node, BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST, NULL,
            sim_chance(sim, 1, 2) ? 0 : target->id);
    } else if (!sim->replaces) {
        ask_change(node, action, target);
    } else if (sim_chance(sim, 1, 3)) {
        ask_change(node, BOP_ADMIN_PRIORITY_SET, target);
    } else {
        replace(sim, target);
    }
}
