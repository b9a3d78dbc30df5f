/*
 * Clusters under random misfortune: crashes that lose or tear what was not
 * synced, cut and broken links, snapshots, membership changes, handed-over
 * leadership, with writes and reads all the while. The simulator checks what must
 * never happen; after a calm the cluster must have a leader and be of one mind.
 *
 * SIM_SEEDS sets the number of seeds, SIM_SEED the first. A failure names its
 * seed, and a seed always gives the same run.
 */
#include <stdio.h>
#include <stdlib.h>

#include "raft_sim.h"
#include "tap.h"

#define SEEDS         400
#define LOSING_SEEDS  100
#define CHAOS_MS      10000
#define CALM_MS       20000
#define NODES         6
#define VOTERS        5
#define BACKLOG_MAX   200
#define ACTION_MS_MAX 20

struct total {
    uint64_t committed;
    uint64_t elections;
    uint64_t crashes;
    uint64_t losses;
    uint64_t changes;
    uint64_t installs;
    uint64_t reads_granted;
    uint64_t reads_refused;
};

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : otherwise;
}

static uint64_t any_node(struct sim *sim)
{
    return 1 + bop_random_below(&sim->random, sim->options.nodes);
}

static void act_write(struct sim *sim)
{
    for (uint64_t id = 1; id <= NODES; id++) {
        struct bop_raft_status status = sim_status(sim, id);

        if (status.state == BOP_RAFT_LEADER && status.last_index < status.commit + BACKLOG_MAX) {
            BOP_IGNORE(sim_submit(sim, id, 1 + (unsigned)bop_random_below(&sim->random, 16)));
        }
    }
}

static void act_read(struct sim *sim)
{
    uint64_t id = any_node(sim);

    if (sim->nodes[id].up) {
        BOP_IGNORE(sim_read(sim, id));
    }
}

static void act_crash(struct sim *sim)
{
    uint64_t id = bop_random_chance(&sim->random, 1, 3) ? sim_leader(sim) : any_node(sim);

    if (id != 0) {
        sim_crash(sim, id);
    }
}

static void act_start(struct sim *sim)
{
    sim_start(sim, any_node(sim));
}

static void act_cut(struct sim *sim)
{
    uint64_t id = any_node(sim);

    switch (bop_random_below(&sim->random, 6)) {
    case 0:
    case 1:
    case 2:
        sim_heal(sim);
        break;
    case 3:
        sim_isolate(sim, id);
        break;
    default:
        for (uint64_t peer = 1; peer <= NODES; peer++) {
            sim->cut[id][peer] |= bop_random_chance(&sim->random, 1, 2);
            sim->cut[peer][id] |= bop_random_chance(&sim->random, 1, 3);
        }
    }
}

static void act_break(struct sim *sim)
{
    sim_break(sim, any_node(sim), any_node(sim));
}

static void act_snapshot(struct sim *sim)
{
    uint64_t id = any_node(sim);

    if (sim->nodes[id].up) {
        BOP_IGNORE(sim_snapshot(sim, id, bop_random_below(&sim->random, 20)));
    }
}

/* Never below three voters, so that there is something to go on with. */
static void act_change(struct sim *sim)
{
    static const enum bop_raft_role roles[] = {BOP_RAFT_VOTER, BOP_RAFT_VOTER, BOP_RAFT_STANDBY,
                                               BOP_RAFT_SPARE, 0};
    enum bop_raft_role role = roles[bop_random_below(&sim->random, BOP_COUNT_OF(roles))];
    struct bop_raft_configuration conf;
    uint64_t leader = sim_leader(sim);
    unsigned voters = 0;

    if (leader == 0) {
        return;
    }
    bop_raft_configuration(sim->nodes[leader].raft, &conf, NULL);
    for (unsigned i = 0; i < conf.count; i++) {
        voters += conf.servers[i].role == BOP_RAFT_VOTER;
    }
    if (role == BOP_RAFT_VOTER || voters > 3) {
        BOP_IGNORE(sim_change(sim, leader, any_node(sim), role));
    }
}

static void act_transfer(struct sim *sim)
{
    uint64_t leader = sim_leader(sim);

    if (leader != 0) {
        BOP_IGNORE(sim_transfer(sim, leader, 0));
    }
}

/* Its disk had lied. */
static void act_lose(struct sim *sim)
{
    uint64_t id = any_node(sim);

    sim_crash(sim, id);
    sim_lose_tail(sim, id);
    sim_start(sim, id);
}

/* How often each thing happens, in parts of all. */
static const struct {
    void (*act)(struct sim *sim);
    unsigned parts;
} actions[] = {
    {act_write, 300}, {act_read, 120},    {act_crash, 6},   {act_start, 40},   {act_cut, 8},
    {act_break, 10},  {act_snapshot, 30}, {act_change, 40}, {act_transfer, 4}, {act_lose, 40},
};

static void act(struct sim *sim, bool losses)
{
    unsigned total = 0, pick;

    /* Losing comes last: seeds without it stay what they are. */
    for (unsigned i = 0; i < BOP_COUNT_OF(actions) - !losses; i++) {
        total += actions[i].parts;
    }
    pick = (unsigned)bop_random_below(&sim->random, total);
    for (unsigned i = 0; i < BOP_COUNT_OF(actions); i++) {
        if (pick < actions[i].parts) {
            actions[i].act(sim);
            return;
        }
        pick -= actions[i].parts;
    }
}

/* Everything is well again, and must come to rest. */
static bool calm_down(struct sim *sim)
{
    uint64_t leader;
    bool equal;

    sim_heal(sim);
    for (uint64_t id = 1; id <= NODES; id++) {
        sim_start(sim, id);
    }
    sim_run(sim, 1000); /* A handing over under way ends. */
    leader = sim_run_until_leader(sim, CALM_MS);
    CHECK(leader != 0);
    if (leader == 0) {
        return false;
    }
    CHECK_EQ(sim_submit(sim, leader, 1), 0);
    equal = sim_run_until_equal(sim, CALM_MS);
    CHECK(equal);
    CHECK(!sim_status(sim, sim_leader(sim)).changing);
    sim_run(sim, 1000); /* More than two election timeouts: no read is left. */
    return equal;
}

static bool run_seed(uint64_t seed, bool losses, struct total *total)
{
    struct sim_options options = {
        .seed = seed,
        .nodes = NODES,
        .voters = VOTERS,
        .latency_ms_max = 1 + (unsigned)(seed % 15),
        .disk_ms_max = (unsigned)(seed % 13),
        .piece_max = seed % 3 == 0 ? 5 : 0,
        .engine = SIM_ENGINE,
    };
    struct sim *sim = sim_create(&options);
    bool ok;

    for (uint64_t id = 1; id <= NODES; id++) {
        sim_start(sim, id);
    }
    while (sim->now_ms < CHAOS_MS && sim->violation[0] == '\0') {
        sim_run(sim, 1 + bop_random_below(&sim->random, ACTION_MS_MAX));
        act(sim, losses);
    }
    ok = calm_down(sim) && sim->violation[0] == '\0';
    if (!ok) {
        sim_print(sim);
    }
    CHECK_STR_EQ(sim->violation, "");
    total->committed += sim->committed_last;
    total->elections += sim->elections;
    total->crashes += sim->crashes;
    total->losses += sim->losses;
    total->changes += sim->changes;
    total->installs += sim->installs;
    total->reads_granted += sim->reads_granted;
    total->reads_refused += sim->reads_refused;
    sim_destroy(sim);
    return ok;
}

TEST(raft, keeps_its_promises_under_misfortune)
{
    uint64_t first = from_environment("SIM_SEED", 1);
    uint64_t count = from_environment("SIM_SEEDS", SEEDS);
    struct total total = {0};

    for (uint64_t seed = first; seed < first + count; seed++) {
        unsigned long long failed = seed;

        if (!run_seed(seed, false, &total)) {
            test_note("seed %llu", failed);
            break;
        }
    }
    test_note("%" PRIu64 " committed, %" PRIu64 " elections, %" PRIu64 " crashes, %" PRIu64
              " changes, %" PRIu64 " snapshots sent, %" PRIu64 " reads, %" PRIu64 " refused",
              total.committed, total.elections, total.crashes, total.changes, total.installs,
              total.reads_granted, total.reads_refused);
    if (count >= SEEDS) {
        /* That it was put to the test at all. */
        CHECK(total.crashes > count && total.changes > count && total.installs > count &&
              total.reads_granted > count && total.elections > count);
    }
}

/* Followers come back without entries that they had acknowledged, and are sent them again. */
TEST(raft, fills_up_who_lost_entries)
{
    uint64_t first = from_environment("SIM_SEED", 1);
    uint64_t count = from_environment("SIM_SEEDS", LOSING_SEEDS);
    struct total total = {0};

    for (uint64_t seed = first; seed < first + count; seed++) {
        unsigned long long failed = seed;

        if (!run_seed(seed, true, &total)) {
            test_note("seed %llu", failed);
            break;
        }
    }
    test_note("%" PRIu64 " committed, %" PRIu64 " times entries lost", total.committed,
              total.losses);
    CHECK(total.losses > count || count < LOSING_SEEDS);
}

/* Seeds that once found something; new ones go to the end. */
TEST(raft, keeps_them_on_seeds_that_found_something)
{
    static const uint64_t seeds[] = {
        3399,   /* A snapshot at entry 1. */
        102578, /* A pre-vote of the past that was never told so. */
    };
    struct total total = {0};

    for (unsigned i = 0; i < BOP_COUNT_OF(seeds); i++) {
        CHECK(run_seed(seeds[i], false, &total));
    }
}
