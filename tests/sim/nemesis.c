/*
 * What goes wrong, and when. Each run has its own mix of faults and its own pace;
 * after the last fault everything is put in order, and must then come to rest.
 */
#include <bop/sim.h>

#include "sim.h"

enum fault {
    FAULT_KILL,
    FAULT_POWER,
    FAULT_POWER_ALL,
    FAULT_CUT,  /* A process dies at one of its next I/O calls... */
    FAULT_TEAR, /* ...or the power fails there. */
    FAULT_STOP,
    FAULT_REBOOT,
    FAULT_PAUSE,
    FAULT_BREAK,
    FAULT_CLIENT_BREAK,
    FAULT_PARTITION,
    FAULT_ONE_WAY,
    FAULT_HEAL,
    FAULT_HANG,
    FAULT_SYNC,
    FAULT_FULL,
    FAULT_TRANSFER,
    FAULT_CLOCK,
    FAULT_TAIL,
    FAULT_OPERATOR, /* That is no fault, but comes among them. */
    FAULT_COUNT,
};

void sim_nemesis_init(struct sim *sim)
{
    static const uint8_t usual[FAULT_COUNT] = {
        [FAULT_KILL] = 6,          [FAULT_POWER] = 8,     [FAULT_POWER_ALL] = 2,
        [FAULT_CUT] = 8,           [FAULT_TEAR] = 10,     [FAULT_STOP] = 3,
        [FAULT_REBOOT] = 3,        [FAULT_PAUSE] = 4,     [FAULT_BREAK] = 10,
        [FAULT_CLIENT_BREAK] = 10, [FAULT_PARTITION] = 6, [FAULT_ONE_WAY] = 4,
        [FAULT_HEAL] = 12,         [FAULT_HANG] = 4,      [FAULT_SYNC] = 8,
        [FAULT_FULL] = 2,          [FAULT_TRANSFER] = 4,  [FAULT_CLOCK] = 2,
        [FAULT_TAIL] = 14,         [FAULT_OPERATOR] = 30,
    };

    _Static_assert(BOP_COUNT_OF(sim->fault_weights) == FAULT_COUNT, "one weight a fault");
    for (unsigned n = 0; n < FAULT_COUNT; n++) {
        /* Some runs do without some faults, and some have them in plenty. */
        sim->fault_weights[n] = usual[n] * (uint32_t)(sim_chance(sim, 1, 3)   ? 0
                                                      : sim_chance(sim, 1, 5) ? 5
                                                                              : 1);
    }
    sim->fault_weights[FAULT_HEAL] += 8;
    sim->fault_pause_us = sim_between(sim, 100 * SIM_MS, 1500 * SIM_MS);
    sim->replaces = sim_chance(sim, 1, 2);
    sim_push(sim, sim->now_us + sim_between(sim, SIM_S, 3 * SIM_S), SIM_EVENT_NEMESIS, 0, 0, 0);
    sim_push(sim, sim->now_us + SIM_S, SIM_EVENT_OPERATOR, 0, 0, 0);
}

static enum fault choose(struct sim *sim)
{
    uint64_t sum = 0, at;

    for (unsigned n = 0; n < FAULT_COUNT; n++) {
        sum += sim->fault_weights[n];
    }
    at = sim_below(sim, sum);
    for (unsigned n = 0; n < FAULT_COUNT; n++) {
        if (at < sim->fault_weights[n]) {
            return (enum fault)n;
        }
        at -= sim->fault_weights[n];
    }
    return FAULT_HEAL;
}

/* Half of the time whoever leads, for that is where things go wrong. */
static struct sim_node *victim(struct sim *sim)
{
    struct sim_node *node = &sim->nodes[sim_below(sim, sim->node_count)];

    if (sim_chance(sim, 1, 2)) {
        for (unsigned n = 0; n < sim->node_count; n++) {
            if (sim_node_leads(&sim->nodes[n])) {
                return &sim->nodes[n];
            }
        }
    }
    return node;
}

static void cut(struct sim *sim, struct sim_node *node, uint64_t after, bool power)
{
    if (node->stop_at != 0 || !node->exists) {
        return;
    }
    bop_fs_sim_stop_after(node->disk, after);
    node->stop_at = bop_fs_sim_operations(node->disk) + after;
    node->stop_power = power;
    if (node->up) {
        /* If it has so little to do, then it ends all the same. */
        sim_push(sim, sim->now_us + 2 * SIM_S, SIM_EVENT_CRASH, node->index, power, node->life);
    }
}

void sim_nemesis_start(struct sim_node *node)
{
    struct sim *sim = node->sim;
    uint32_t weight = sim->fault_weights[FAULT_CUT] + sim->fault_weights[FAULT_TEAR];

    if (!sim->calm && weight > 0 && sim_chance(sim, 1, 6)) {
        cut(sim, node, sim_between(sim, 1, 100), sim_chance(sim, 1, 2));
    }
}

static void partition(struct sim *sim, bool both_ways)
{
    uint64_t side = sim_below(sim, UINT64_C(1) << sim->node_count);

    for (unsigned a = 0; a < sim->node_count; a++) {
        for (unsigned b = 0; b < sim->node_count; b++) {
            bool apart = (side >> a & 1) != (side >> b & 1);

            if (a != b && apart && (both_ways || (side >> a & 1))) {
                sim_net_block(sim, a, b, true);
            }
        }
    }
}

static void heal(struct sim *sim)
{
    for (unsigned a = 0; a < sim->node_count; a++) {
        for (unsigned b = 0; b < sim->node_count; b++) {
            sim_net_block(sim, a, b, false);
        }
    }
}

static void power_all(struct sim *sim)
{
    for (unsigned n = 0; n < sim->node_count; n++) {
        if (sim->nodes[n].up) {
            sim_node_crash(&sim->nodes[n], true);
        }
    }
}

static void fill(struct sim *sim, struct sim_node *node)
{
    struct bop_fs *fs = bop_fs_sim_fs(node->disk);
    uint64_t left;

    if (node->stop_at != 0 || !node->exists || fs->free_bytes(fs, "/", &left) < 0) {
        return;
    }
    bop_fs_sim_set_capacity(node->disk, (UINT64_C(1) << 30) - left + sim_below(sim, 128 * 1024));
    node->full_until_us = sim->now_us + sim_between(sim, SIM_S, 4 * SIM_S);
    sim_say(sim, node, "its disk is full");
}

static void free_disks(struct sim *sim, bool all)
{
    for (unsigned n = 0; n < sim->node_count; n++) {
        struct sim_node *node = &sim->nodes[n];

        if (node->full_until_us != 0 && (all || node->full_until_us <= sim->now_us)) {
            node->full_until_us = 0;
            bop_fs_sim_set_capacity(node->disk, UINT64_C(1) << 30);
            sim_say(sim, node, "its disk has room again");
        }
    }
}

static void harm_node(struct sim *sim, struct sim_node *node, enum fault fault)
{
    if (!node->up) {
        return;
    }
    switch (fault) {
    case FAULT_KILL:
    case FAULT_POWER:
        sim_node_crash(node, fault == FAULT_POWER);
        break;
    case FAULT_STOP:
    case FAULT_REBOOT:
        if (node->stop_at == 0 && !node->excused) {
            sim_node_stop(node, fault == FAULT_REBOOT);
        }
        break;
    case FAULT_PAUSE:
        node->paused_until_us = sim->now_us + sim_between(sim, 50 * SIM_MS, 4 * SIM_S);
        sim_say(sim, node, "paused until %.6f", (double)node->paused_until_us / 1e6);
        break;
    case FAULT_HANG:
        node->executors[sim_below(sim, 2)].hung_until_us = sim->now_us +
                                                           sim_between(sim, SIM_S, 5 * SIM_S);
        sim_say(sim, node, "its disk hangs");
        break;
    case FAULT_TRANSFER:
        if (bop__replica_transfer(node->replica)) {
            sim_say(sim, node, "hands over");
            sim_node_after(node);
            sim_node_touch(node);
        }
        break;
    case FAULT_CLOCK:
        node->wall_offset_ms = (int64_t)sim_below(sim, 7200000) - 3600000;
        break;
    case FAULT_SYNC:
        node->excused = true;
        bop_fs_sim_fail_syncs(node->disk, (unsigned)sim_between(sim, 1, 2));
        sim_say(sim, node, "its next sync fails");
        break;
    default:
        break;
    }
}

static void harm(struct sim *sim, enum fault fault)
{
    switch (fault) {
    case FAULT_POWER_ALL:
        power_all(sim);
        break;
    case FAULT_CUT:
    case FAULT_TEAR:
        cut(sim, victim(sim), sim_between(sim, 1, 12), fault == FAULT_TEAR);
        break;
    case FAULT_BREAK:
        sim_net_break(sim, victim(sim)->index, (unsigned)sim_below(sim, sim->node_count));
        break;
    case FAULT_CLIENT_BREAK:
        sim_client_break(sim, (unsigned)sim_below(sim, sim->client_count),
                         (unsigned)sim_below(sim, SIM_CONNS));
        break;
    case FAULT_PARTITION:
    case FAULT_ONE_WAY:
        sim_say(sim, NULL, "partition");
        partition(sim, fault == FAULT_PARTITION);
        break;
    case FAULT_HEAL:
        heal(sim);
        break;
    case FAULT_FULL:
        fill(sim, victim(sim));
        break;
    case FAULT_TAIL:
        sim_lose_tail(sim, victim(sim));
        break;
    case FAULT_OPERATOR:
        sim_operator_act(sim);
        break;
    default:
        harm_node(sim, victim(sim), fault);
    }
}

void sim_nemesis_event(struct sim *sim)
{
    if (sim->calm) {
        return;
    }
    free_disks(sim, false);
    harm(sim, choose(sim));
    sim_push(sim, sim->now_us + 1 + sim_below(sim, 2 * sim->fault_pause_us), SIM_EVENT_NEMESIS, 0,
             0, 0);
}

/* Put everything in order. What was set off before may still come. */
void sim_nemesis_calm(struct sim *sim)
{
    sim_say(sim, NULL, "calm");
    heal(sim);
    free_disks(sim, true);
    for (unsigned n = 0; n < sim->node_count; n++) {
        struct sim_node *node = &sim->nodes[n];

        bop_fs_sim_fail_syncs(node->disk, 0);
        for (unsigned i = 0; i < BOP_COUNT_OF(node->executors); i++) {
            node->executors[i].hung_until_us = 0;
        }
        node->paused_until_us = 0;
        if (!node->up && node->exists) {
            node->life++;
            sim_node_start(node);
        }
    }
}
