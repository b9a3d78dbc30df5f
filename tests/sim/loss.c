/*
 * A log that comes back without its last entries, though they were acknowledged: a repair after
 * damage ended it early. Consensus does not promise to survive that. It does so where all other
 * voters have what was lost, are a majority without this one, which has no vote until it has that
 * again, and where it did not change who votes; so that is when it happens.
 */
#include "../lib/cut_log.h"
#include "replica_internal.h"
#include "sim.h"

#define LOG_PATH "/data/log"

/* It has applied all that the log at stake holds, misses nothing itself and knows of no change that
 * is under way. */
static bool may_rely_on(const struct sim_node *node, uint64_t last)
{
    return node->exists && node->up && node->replica->failed == 0 &&
           node->replica->applied >= last && node->replica->lost.index == 0 &&
           !node->replica->status.changing;
}

static bool others_have_all(const struct sim *sim, const struct sim_node *node)
{
    const struct bop_raft_configuration *conf = sim_model_configuration(sim);
    unsigned voters = 0, others = 0;

    for (unsigned n = 0; n < conf->count; n++) {
        const struct bop_raft_server *server = &conf->servers[n];

        if (server->role != BOP_RAFT_VOTER) {
            continue;
        }
        voters++;
        if (server->id == node->id) {
            continue;
        }
        if (!may_rely_on(&sim->nodes[server->id - 1], node->tail.last)) {
            return false;
        }
        others++;
    }
    return bop__member_find(conf, node->id) && others > voters / 2;
}

/* Behind the snapshot and behind the last change of who votes. */
static uint64_t lowest_end(struct sim_node *node)
{
    struct replica *replica = node->replica;
    uint64_t low = bop_max_u64(replica->snapshot.raft.index, bop_aof_first(replica->aof));
    uint64_t end = bop_aof_last(replica->aof);

    while (end > low) {
        struct bop_raft_entry storage;
        const struct bop_raft_entry *entry = bop__replica_log_get(replica, end, &storage);

        if (!entry || entry->type == BOP_RAFT_CHANGE) {
            break;
        }
        end--;
    }
    return end;
}

void sim_lose_tail(struct sim *sim, struct sim_node *node)
{
    struct replica *replica = node->replica;

    if (!node->exists || !node->up || node->excused || node->stop_at != 0 || replica->failed != 0 ||
        replica->lost.index != 0 || replica->status.changing) {
        return;
    }
    node->tail.low = lowest_end(node);
    node->tail.last = bop_aof_last(replica->aof);
    node->tail.applied = replica->batch.open ? 0
                                             : replica->applied; /* Else not all is in the store. */
    node->tail.wanted = node->tail.low < node->tail.last;
    sim_node_crash(node, sim_chance(sim, 1, 4));
}

void sim_tail_start(struct sim_node *node)
{
    struct sim *sim = node->sim;
    uint64_t keep;

    /* On a full disk a repair changes nothing. */
    if (!node->tail.wanted || sim->calm || sim->replacing || node->full_until_us != 0 ||
        !others_have_all(sim, node)) {
        node->tail.wanted = false;
        return;
    }
    node->tail.wanted = false;
    keep = sim_between(sim, node->tail.low, node->tail.last - 1);
    if (cut_log(bop_fs_sim_fs(node->disk), LOG_PATH, sim->segment_bytes, keep) < 0) {
        return; /* The power took as much with it. */
    }
    sim->stats.tails++;
    node->tail.lost = true;
    node->tail.kept = keep;
    node->tail.missed = !node->lost_power && node->tail.applied > keep ? node->tail.applied : 0;
    sim_say(sim, node, "its log ends at %" PRIu64 " and not at %" PRIu64, keep, node->tail.last);
}
