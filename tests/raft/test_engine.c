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
        .engine = SIM_ENGINE,
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

/* ---- Crashes and partitions ---- */

TEST(engine, goes_on_without_a_crashed_leader_and_takes_it_back)
{
    struct sim *sim = cluster(f, 3, 3);
    uint64_t old = sim_run_until_leader(sim, 3000);
    uint64_t leader;

    CHECK_EQ(sim_submit(sim, old, 5), 0);
    REQUIRE(sim_run_until_equal(sim, 2000));
    sim_crash(sim, old);
    leader = sim_run_until_leader(sim, 3000);
    REQUIRE(leader != 0 && leader != old);
    CHECK_EQ(sim_submit(sim, leader, 5), 0);
    sim_run(sim, 500);
    sim_start(sim, old);
    CHECK(sim_run_until_equal(sim, 3000));
    CHECK_EQ(sim->nodes[old].applied, sim->committed_last);
    CHECK_EQ(sim_leader(sim), leader); /* Pre-vote: its return disturbs nobody. */
}

/* What the old leader wrote without a majority is replaced on its disk. */
TEST(engine, truncates_what_an_isolated_leader_wrote)
{
    struct sim *sim = cluster(f, 3, 3);
    uint64_t old = sim_run_until_leader(sim, 3000);
    uint64_t leader, committed;

    REQUIRE(sim_run_until_equal(sim, 2000));
    committed = sim->committed_last;
    sim_isolate(sim, old);
    CHECK_EQ(sim_submit(sim, old, 20), 0);
    leader = sim_run_until_leader(sim, 3000);
    sim_run(sim, 2000);
    CHECK(sim_status(sim, old).state != BOP_RAFT_LEADER); /* It noticed. */
    leader = sim_leader(sim);
    REQUIRE(leader != 0 && leader != old);
    CHECK_EQ(sim_submit(sim, leader, 3), 0);
    sim_run(sim, 500);
    CHECK(sim->committed_last >= committed + 4); /* A barrier and three commands. */
    CHECK_EQ(sim_status(sim, old).commit, committed);
    sim_heal(sim);
    CHECK(sim_run_until_equal(sim, 3000));
    CHECK_EQ(sim_status(sim, old).last_index, sim_status(sim, leader).last_index);
}

TEST(engine, commits_nothing_without_a_majority_on_disk)
{
    struct sim *sim = cluster(f, 3, 3);
    uint64_t leader = sim_run_until_leader(sim, 3000);
    uint64_t committed;

    REQUIRE(sim_run_until_equal(sim, 2000));
    committed = sim->committed_last;
    for (uint64_t id = 1; id <= 3; id++) {
        sim->nodes[id].hold_disk = id != leader;
    }
    CHECK_EQ(sim_submit(sim, leader, 4), 0);
    sim_run(sim, 200);
    CHECK_EQ(sim_status(sim, leader).commit, committed);
    sim->nodes[leader % 3 + 1].hold_disk = false; /* One of two others is enough. */
    sim_run(sim, 200);
    CHECK_EQ(sim_status(sim, leader).commit, committed + 4);
    sim->nodes[1].hold_disk = sim->nodes[2].hold_disk = sim->nodes[3].hold_disk = false;
    CHECK(sim_run_until_equal(sim, 2000));
}

TEST(engine, survives_the_crash_of_all)
{
    struct sim *sim = cluster(f, 5, 5);
    uint64_t leader = sim_run_until_leader(sim, 3000);

    CHECK_EQ(sim_submit(sim, leader, 30), 0);
    REQUIRE(sim_run_until_equal(sim, 2000));
    CHECK_EQ(sim_submit(sim, leader, 30), 0); /* Under way when it happens. */
    sim_run(sim, 4);
    for (uint64_t id = 1; id <= 5; id++) {
        sim_crash(sim, id);
    }
    for (uint64_t id = 1; id <= 5; id++) {
        sim_start(sim, id);
    }
    leader = sim_run_until_leader(sim, 5000);
    REQUIRE(leader != 0);
    CHECK(sim_run_until_equal(sim, 3000));
    CHECK(sim->committed_last >= 32);
}

/* ---- Snapshots ---- */

TEST(engine, brings_an_empty_node_in_by_a_snapshot)
{
    struct sim *sim = cluster(f, 3, 4);
    uint64_t leader = sim_run_until_leader(sim, 3000);

    CHECK_EQ(sim_submit(sim, leader, 60), 0);
    REQUIRE(sim_run_until_equal(sim, 2000));
    for (uint64_t id = 1; id <= 3; id++) {
        CHECK_EQ(sim_snapshot(sim, id, 5), 0);
    }
    sim_start(sim, 4);
    CHECK_EQ(sim_status(sim, 4).last_index, 0);
    CHECK_EQ(sim_change(sim, leader, 4, BOP_RAFT_STANDBY), 0);
    CHECK(sim_run_until_equal(sim, 5000));
    CHECK_EQ(sim_status(sim, 4).snapshot_index, 62);
    CHECK(sim->installs >= 1);
    CHECK_EQ(sim->nodes[4].applied, 63); /* Its own change came after the snapshot. */
    sim_crash(sim, 4);
    sim_start(sim, 4);
    CHECK_EQ(sim_submit(sim, leader, 1), 0);
    CHECK(sim_run_until_equal(sim, 5000));
}

/* ---- Membership ---- */

static void settle(struct fixture *f, uint64_t limit_ms)
{
    REQUIRE(sim_run_until_equal(f->sim, limit_ms));
    sim_run(f->sim, 100); /* The acknowledgements of the last one. */
}

TEST(engine, grows_from_one_node_to_three_and_replaces_the_first)
{
    struct sim *sim = cluster(f, 1, 3);
    uint64_t leader;

    REQUIRE_EQ(sim_run_until_leader(sim, 1000), 1);
    for (uint64_t id = 2; id <= 3; id++) {
        sim_start(sim, id);
        CHECK_EQ(sim_change(sim, 1, id, BOP_RAFT_STANDBY), 0);
        settle(f, 3000);
        CHECK_EQ(bop_raft_match_index(sim->nodes[1].raft, id), sim_status(sim, 1).last_index);
        CHECK_EQ(sim_change(sim, 1, id, BOP_RAFT_VOTER), 0);
        settle(f, 3000);
    }
    /* The leader removes itself: it stays until that is committed, then steps down. */
    CHECK_EQ(sim_change(sim, 1, 1, 0), 0);
    sim_run(sim, 100);
    CHECK_EQ(sim_status(sim, 1).state, BOP_RAFT_FOLLOWER);
    leader = sim_run_until_leader(sim, 5000);
    CHECK(leader == 2 || leader == 3);
    sim_crash(sim, 1);
    CHECK_EQ(sim_submit(sim, leader, 3), 0);
    CHECK(sim_run_until_equal(sim, 3000));
}

/* Bug B: two of three voters are up, but one of them has not got the change that made it one. */
TEST(engine, elects_with_a_voter_that_does_not_know_it_is_one)
{
    struct sim *sim = cluster(f, 3, 4);
    uint64_t leader = sim_run_until_leader(sim, 3000);
    uint64_t other = leader % 3 + 1, third = other % 3 + 1;

    sim_start(sim, 4);
    CHECK_EQ(sim_change(sim, leader, 4, BOP_RAFT_STANDBY), 0);
    settle(f, 3000);
    sim->cut[leader][4] = true; /* It stays a standby by its own log. */
    CHECK_EQ(sim_change(sim, leader, 4, BOP_RAFT_VOTER), 0);
    sim_run(sim, 200);
    CHECK(!sim_status(sim, leader).changing);
    CHECK_EQ(bop_raft_match_index(sim->nodes[leader].raft, other),
             sim_status(sim, leader).last_index);
    sim_crash(sim, leader);
    sim_crash(sim, third);
    /* Two of four are up: nobody can lead. With three, one vote must be node 4's. */
    CHECK_EQ(sim_run_until_leader(sim, 3000), 0);
    sim_start(sim, third);
    CHECK(sim_run_until_leader(sim, 10000) != 0);
    CHECK(sim_run_until_equal(sim, 3000));
    sim_start(sim, leader);
    sim_heal(sim);
    CHECK(sim_run_until_equal(sim, 3000));
}

TEST(engine, hands_leadership_over_when_asked)
{
    struct sim *sim = cluster(f, 3, 3);
    uint64_t leader = sim_run_until_leader(sim, 3000);
    uint64_t successor = leader % 3 + 1;
    uint64_t term = sim_status(sim, leader).term;

    REQUIRE(sim_run_until_equal(sim, 2000));
    CHECK_EQ(sim_transfer(sim, leader, successor), 0);
    sim_run(sim, 100); /* No election timeout is waited for. */
    CHECK_EQ(sim_leader(sim), successor);
    CHECK_EQ(sim_status(sim, successor).term, term + 1);
    CHECK_EQ(sim_transfer(sim, leader, 0), BOP_ENOTLEADER);
}

/* ---- Reads ---- */

/* The simulator checks each grant against what had been acknowledged before. */
TEST(engine, serves_reads_on_leader_follower_and_standby)
{
    struct sim *sim = cluster(f, 3, 4);
    uint64_t leader = sim_run_until_leader(sim, 3000);

    sim_start(sim, 4);
    CHECK_EQ(sim_change(sim, leader, 4, BOP_RAFT_STANDBY), 0);
    settle(f, 3000);
    for (unsigned round = 0; round < 10; round++) {
        CHECK_EQ(sim_submit(sim, leader, 3), 0);
        sim_run(sim, 7);
        for (uint64_t id = 1; id <= 4; id++) {
            CHECK_EQ(sim_read(sim, id), 0);
        }
    }
    sim_run(sim, 500);
    CHECK_EQ(sim->reads_granted, 40);
    CHECK_EQ(sim->reads_refused, 0);
}

TEST(engine, refuses_reads_on_a_leader_that_was_deposed_unawares)
{
    struct sim *sim = cluster(f, 3, 3);
    uint64_t old = sim_run_until_leader(sim, 3000);
    uint64_t end;

    REQUIRE(sim_run_until_equal(sim, 2000));
    for (uint64_t peer = 1; peer <= 3; peer++) {
        sim->cut[peer][old] = true; /* It takes itself for the leader for a while yet. */
        sim->cut[old][peer] = true;
    }
    end = sim->now_ms + 3000;
    while (sim->now_ms < end) {
        BOP_IGNORE(sim_read(sim, old));
        sim_run(sim, 20);
        if (sim_leader(sim) != old && sim_leader(sim) != 0) {
            BOP_IGNORE(sim_submit(sim, sim_leader(sim), 1));
        }
    }
    sim_run(sim, 1000);
    CHECK_EQ(sim->reads_granted, 0);
    CHECK(sim->reads_refused >= 100);
}

TEST(engine, gives_the_same_run_for_the_same_seed)
{
    uint64_t committed[2], values[2];

    for (unsigned i = 0; i < 2; i++) {
        struct sim *sim = cluster(f, 5, 5);
        uint64_t leader = sim_run_until_leader(sim, 3000);

        CHECK_EQ(sim_submit(sim, leader, 9), 0);
        sim_crash(sim, leader);
        leader = sim_run_until_leader(sim, 3000);
        CHECK_EQ(sim_submit(sim, leader, 9), 0);
        sim_run(sim, 1000);
        committed[i] = sim->committed_last * 1000 + leader;
        values[i] = bop_random_next(&sim->random);
        CHECK_STR_EQ(sim->violation, "");
        sim_destroy(sim);
        f->sim = NULL;
    }
    CHECK_EQ(committed[0], committed[1]);
    CHECK_EQ(values[0], values[1]);
}
