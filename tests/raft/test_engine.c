/*
 * The engine in whole clusters, one property at a time.
 */
#include "raft_sim.h"
#include "tap.h"

struct fixture {
    struct test_heap heap;
    struct sim *sim;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
}

static void teardown(struct fixture *f)
{
    if (f->sim) {
        CHECK_STR_EQ(f->sim->violation, "");
        sim_destroy(f->sim);
    }
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* A cluster of voters, all up, and nodes beyond that are not. */
static struct sim *cluster(struct fixture *f, unsigned voters, unsigned nodes)
{
    struct sim_options options = {
        .seed = 7,
        .nodes = nodes,
        .voters = voters,
        .latency_ms_max = 5,
        .disk_ms_max = 3,
        .allocator = &f->heap.allocator,
    };

    f->sim = sim_create(&options);
    for (uint64_t id = 1; id <= voters; id++) {
        sim_start(f->sim, id);
    }
    return f->sim;
}

TEST(engine, lone_node_leads_at_once_and_commits_what_is_durable)
{
    struct sim *sim = cluster(f, 1, 1);

    CHECK_EQ(sim_status(sim, 1).state, BOP_RAFT_LEADER);
    CHECK(!sim_status(sim, 1).ready); /* Its barrier is not on disk yet. */
    CHECK_EQ(sim_run_until_leader(sim, 1000), 1);
    CHECK_EQ(sim_submit(sim, 1, 3), 0);
    CHECK_EQ(sim_status(sim, 1).commit, 2); /* The configuration and the barrier. */
    sim_run(sim, 100);
    CHECK_EQ(sim_status(sim, 1).commit, 5);
    CHECK_EQ(sim->nodes[1].applied, 5);
}

TEST(engine, three_nodes_elect_and_replicate)
{
    struct sim *sim = cluster(f, 3, 3);
    uint64_t leader = sim_run_until_leader(sim, 3000);

    REQUIRE(leader != 0);
    CHECK_EQ(sim_submit(sim, leader, 10), 0);
    CHECK_EQ(sim_submit(sim, leader % 3 + 1, 1), BOP_ENOTLEADER);
    CHECK(sim_run_until_equal(sim, 2000));
    CHECK_EQ(sim->committed_last, 12);
}
