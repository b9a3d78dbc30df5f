/*
 * Fuzzes consensus: a cluster of four engines, one of them without a vote at first, on
 * virtual time, and what happens to them by the fuzzer's choice: crashes that tear what was
 * not synced, links that are cut in either direction, disks that do not finish, writes, reads,
 * snapshots, changes of members, leadership handed over. tests/raft/raft_sim.h says what is
 * checked as it goes: one leader a term, what is committed stays, all apply the same, reads
 * see what was there before them.
 *
 * After a calm with all nodes up there is a leader.
 */
#include "raft_sim.h"

#include "fuzz_round_trip.h"

#define NODES       4
#define STEPS_MAX   300
#define BACKLOG_MAX 200   /* Entries that are not committed yet. */
#define CALM_MS     60000 /* In which there must come to be a leader. */

static uint8_t choice(struct bop_reader *choices)
{
    return bop_reader_left(choices) > 0 ? bop_read_u8(choices) : 0;
}

static uint64_t any_node(struct bop_reader *choices)
{
    return 1 + choice(choices) % NODES;
}

static void write_at(struct sim *sim, uint64_t id, unsigned count)
{
    if (sim->nodes[id].up) {
        struct bop_raft_status status = sim_status(sim, id);

        if (status.last_index < status.commit + BACKLOG_MAX) {
            BOP_IGNORE(sim_submit(sim, id, count)); /* It need not lead. */
        }
    }
}

/* Never below two voters, so that there is something to go on with. */
static void change(struct sim *sim, uint64_t id, uint8_t how)
{
    static const enum bop_raft_role roles[] = {BOP_RAFT_VOTER, BOP_RAFT_VOTER, BOP_RAFT_STANDBY,
                                               BOP_RAFT_SPARE, 0};
    enum bop_raft_role role = roles[how % BOP_COUNT_OF(roles)];
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
    if (role == BOP_RAFT_VOTER || voters > 2) {
        BOP_IGNORE(sim_change(sim, leader, id, role)); /* It may be none just now. */
    }
}

static void step(struct sim *sim, struct bop_reader *choices)
{
    uint8_t what = choice(choices);
    uint64_t id = any_node(choices), other;

    switch (what % 16) {
    case 0:
    case 1:
    case 2:
        sim_run(sim, choice(choices) * UINT64_C(8));
        break;
    case 3:
    case 4:
        write_at(sim, what & 16 ? sim_leader(sim) ? sim_leader(sim) : id : id,
                 1 + choice(choices) % 8);
        break;
    case 5:
        sim_crash(sim, id);
        break;
    case 6:
    case 7:
        sim_start(sim, id);
        break;
    case 8:
        other = any_node(choices);
        sim->cut[id][other] = !sim->cut[id][other];
        break;
    case 9:
        sim_heal(sim);
        break;
    case 10:
        sim_break(sim, id, any_node(choices));
        break;
    case 11:
        sim->nodes[id].hold_disk = !sim->nodes[id].hold_disk;
        break;
    case 12:
        if (sim->nodes[id].up) {
            BOP_IGNORE(sim_snapshot(sim, id, choice(choices) % 8)); /* There may be nothing. */
        }
        break;
    case 13:
        change(sim, id, choice(choices));
        break;
    case 14:
        if (sim->nodes[id].up) {
            BOP_IGNORE(sim_read(sim, id)); /* It may have too many. */
        }
        break;
    default:
        if (sim_leader(sim) != 0) {
            BOP_IGNORE(sim_transfer(sim, sim_leader(sim), what & 16 ? id : 0)); /* Or it cannot. */
        }
    }
}

static void require_no_violation(const struct sim *sim)
{
    if (sim->violation[0] != '\0') {
        fprintf(stderr, "%s\n", sim->violation);
    }
    require(sim->violation[0] == '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_reader choices = bop_reader(bop_slice(data, size));
    struct sim_options options = {.seed = choice(&choices),
                                  .nodes = NODES,
                                  .voters = NODES - 1,
                                  .latency_ms_max = choice(&choices) % 64,
                                  .disk_ms_max = choice(&choices) % 32,
                                  .piece_max = choice(&choices) % 8};
    struct sim *sim = sim_create(&options);

    for (unsigned n = 0; n < STEPS_MAX && bop_reader_left(&choices) > 0; n++) {
        step(sim, &choices);
        require_no_violation(sim);
    }
    sim_heal(sim);
    for (uint64_t id = 1; id <= NODES; id++) {
        sim->nodes[id].hold_disk = false;
        sim_start(sim, id);
    }
    sim_run(sim, 1000); /* A handing over under way ends. */
    require(sim_run_until_leader(sim, CALM_MS) != 0);
    require_no_violation(sim);
    sim_destroy(sim);
    return 0;
}
