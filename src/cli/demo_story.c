/*
 * What happens in the demo, in order:
 *
 *     start three nodes, wait for a leader
 *     write; at half of the entries kill the leader; at three quarters start it again
 *     wait until the three have applied the same
 *     read each node's map through a client pinned to it, and compare
 *
 * All waiting is turns of one loop. A turn also watches the processes, asks every
 * node how it is, and heeds Ctrl-C.
 */
#include <inttypes.h>
#include <signal.h>

#include <bop/raft.h>

#include "demo.h"

#define TURN_MS          5
#define PROBE_EVERY_US   100000
#define PROBE_HASTY_US   20000 /* While nobody leads. */
#define PROBE_TIMEOUT_MS 1000
#define FRESH_US         1000000 /* What a node said longer ago does not count. */
#define WRITE_TIMEOUT_MS 60000

/* ---- Turning ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = 1;
}

void demo_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};

    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

bool demo_interrupted(void)
{
    return interrupted != 0;
}

static uint64_t now_us(void)
{
    return bop_clock_monotonic_us(bop_clock_system());
}

static void ask_nodes(struct demo *demo)
{
    uint64_t now = now_us();

    if (demo->probing &&
        now - demo->probed_us >= (demo->leader ? PROBE_EVERY_US : PROBE_HASTY_US)) {
        demo->probed_us = now;
        for (unsigned i = 0; i < DEMO_NODES; i++) {
            probe_ask(&demo->probes[i]);
        }
    }
}

/* One turn of everything. Returns 0, or a code with demo->err set. */
int demo_turn(struct demo *demo)
{
    int rc;

    ask_nodes(demo);
    rc = bop_loop_run_once(demo->loop, TURN_MS);
    if (demo_interrupted()) {
        return bop_error_say(&demo->err, BOP_ECANCELED, "interrupted");
    }
    if (rc < 0 && rc != -EINTR) {
        return bop_error_set(&demo->err, rc, "wait for events");
    }
    return demo_cluster_watch(&demo->cluster, &demo->err);
}

int demo_too_long(struct demo *demo, const char *waiting_for)
{
    return bop_error_say(&demo->err, BOP_ETIMEOUT, "waited %d s in vain %s",
                         (int)(DEMO_PATIENCE_US / 1000000), waiting_for);
}

/* ---- Who leads ---- */

/* The one that leads by what was heard after since_us; NULL if none is known to. */
static const struct probe *leader_since(const struct demo *demo, uint64_t since_us)
{
    const struct probe *leader = NULL;

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        const struct probe *probe = &demo->probes[i];

        if (probe->answered && probe->heard_us >= since_us && demo->cluster.nodes[i].pid > 0 &&
            probe->status.state == BOP_RAFT_LEADER &&
            (!leader || probe->status.term > leader->status.term)) {
            leader = probe;
        }
    }
    return leader;
}

/* Look who leads now and tell if that is news. */
static void notice_leader(struct demo *demo)
{
    uint64_t now = now_us();
    uint64_t since = bop_max_u64(demo->load.killed_us, now > FRESH_US ? now - FRESH_US : 0);
    const struct probe *leader = leader_since(demo, since);

    if (!leader || leader->status.node == demo->leader) {
        return;
    }
    demo->leader = leader->status.node;
    if (demo->load.killed_us != 0 && demo->elected_us == 0) {
        demo->elected_us = leader->heard_us;
        demo_tell(demo, DEMO_GOOD,
                  "node %" PRIu64 " leads in term %" PRIu64 ", %" PRIu64 " ms after the kill",
                  demo->leader, leader->status.term,
                  (demo->elected_us - demo->load.killed_us) / 1000);
    } else {
        demo_tell(demo, DEMO_PLAIN, "node %" PRIu64 " leads in term %" PRIu64, demo->leader,
                  leader->status.term);
    }
}

/* ---- Starting ---- */

static int open_probes(struct demo *demo)
{
    int rc = 0;

    demo->probing = true;
    for (unsigned i = 0; i < DEMO_NODES && rc == 0; i++) {
        struct probe_options options = {
            .loop = demo->loop,
            .address = demo->cluster.nodes[i].address,
            .cluster = DEMO_CLUSTER,
            .timeout_ms = PROBE_TIMEOUT_MS,
        };

        rc = probe_open(&demo->probes[i], &options, &demo->err);
    }
    return rc;
}

static int start_nodes(struct demo *demo)
{
    struct demo_cluster *cluster = &demo->cluster;
    int rc = 0;

    for (unsigned i = 0; i < DEMO_NODES && rc == 0; i++) {
        rc = demo_cluster_start(cluster, i, &demo->err);
    }
    if (rc == 0) {
        demo_tell(demo, DEMO_PLAIN,
                  "started nodes 1, 2 and 3 at %s, %s and %s (processes %d, %d, "
                  "%d)",
                  cluster->nodes[0].address, cluster->nodes[1].address, cluster->nodes[2].address,
                  (int)cluster->nodes[0].pid, (int)cluster->nodes[1].pid,
                  (int)cluster->nodes[2].pid);
        rc = open_probes(demo);
    }
    return rc;
}

static int wait_for_leader(struct demo *demo)
{
    uint64_t deadline = now_us() + DEMO_PATIENCE_US;
    int rc = 0;

    while (rc == 0 && demo->leader == 0) {
        rc = now_us() > deadline ? demo_too_long(demo, "for a leader") : demo_turn(demo);
        notice_leader(demo);
    }
    return rc;
}

/* ---- Writing ---- */

static int open_client(struct demo *demo)
{
    const char *endpoints[DEMO_NODES];
    struct bop_client_options options = {
        .loop = demo->loop,
        .endpoints = endpoints,
        .endpoint_count = DEMO_NODES,
        .cluster = DEMO_CLUSTER,
        .name = "bop demo",
        .session_timeout_ms = WRITE_TIMEOUT_MS,
        .request_timeout_ms = WRITE_TIMEOUT_MS,
    };

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        endpoints[i] = demo->cluster.nodes[i].address;
    }
    return bop_client_create(&options, &demo->client, &demo->err);
}

static void kill_leader(struct demo *demo)
{
    char count[COUNT_TEXT_MAX];

    demo->killed = (unsigned)(demo->leader - 1);
    demo_cluster_kill(&demo->cluster, demo->killed);
    demo_load_killed(&demo->load);
    demo->leader = 0;
    demo->phase = DEMO_KILLED;
    demo_tell(demo, DEMO_BAD,
              "node %u, the leader, killed with SIGKILL after %s entries; the client is told "
              "nothing",
              demo->killed + 1, count_text(demo->load.acked, count));
}

static void recovered(struct demo *demo)
{
    demo->phase = DEMO_RECOVERED;
    demo_tell(demo, DEMO_GOOD, "writes are acknowledged again, %" PRIu64 " ms after the kill",
              (demo->load.again_us - demo->load.killed_us) / 1000);
}

static int restart_killed(struct demo *demo)
{
    int rc = demo_cluster_start(&demo->cluster, demo->killed, &demo->err);

    if (rc == 0) {
        demo->phase = DEMO_RESTARTED;
        demo_tell(demo, DEMO_PLAIN, "node %u started again (process %d)", demo->killed + 1,
                  (int)demo->cluster.nodes[demo->killed].pid);
    }
    return rc;
}

/* Do what is due at this point of the writing. */
static int direct(struct demo *demo)
{
    const struct demo_load *load = &demo->load;
    size_t count = demo->data.count;

    switch (demo->phase) {
    case DEMO_CALM:
        if (load->acked >= count / 2 && demo->leader != 0) {
            kill_leader(demo);
        }
        return 0;
    case DEMO_KILLED:
        if (load->again_us != 0 && demo->elected_us != 0) {
            recovered(demo);
        }
        return 0;
    case DEMO_RECOVERED:
        return load->acked >= count - count / 4 ? restart_killed(demo) : 0;
    case DEMO_RESTARTED:
        break;
    }
    return 0;
}

static void show(struct demo *demo)
{
    char note[64] = "nobody leads";

    if (demo->leader) {
        snprintf(note, sizeof(note), "node %" PRIu64 " leads", demo->leader);
    }
    progress_show(&demo->progress, demo->load.acked, note);
}

/* One turn of the writing. */
static int write_some(struct demo *demo)
{
    int rc;

    demo_load_go_on(&demo->load);
    rc = demo_turn(demo);
    if (rc < 0) {
        return rc;
    }
    if (demo->load.code < 0) {
        return bop_error_set(&demo->err, demo->load.code, "a write failed");
    }
    notice_leader(demo);
    show(demo);
    return direct(demo);
}

static int write_all(struct demo *demo)
{
    uint64_t moved_us = now_us(), moved_at = 0;
    char count[COUNT_TEXT_MAX];
    int rc = open_client(demo);

    if (rc < 0) {
        return rc;
    }
    demo_load_begin(&demo->load, demo->client, &demo->data);
    progress_init(&demo->progress, demo->out, "acknowledged", demo->data.count, true);
    while (rc == 0 && !(demo_load_done(&demo->load) && demo->phase == DEMO_RESTARTED)) {
        rc = write_some(demo);
        if (demo->load.acked != moved_at) {
            moved_at = demo->load.acked;
            moved_us = now_us();
        } else if (rc == 0 && now_us() - moved_us > DEMO_PATIENCE_US) {
            rc = demo_too_long(demo, "for a write to be acknowledged");
        }
    }
    if (rc == 0) {
        demo_tell(demo, DEMO_GOOD, "all %s entries are acknowledged",
                  count_text(demo->load.acked, count));
    }
    return rc;
}

int demo_play(struct demo *demo)
{
    int rc = start_nodes(demo);

    if (rc == 0) {
        rc = wait_for_leader(demo);
    }
    if (rc == 0) {
        rc = write_all(demo);
    }
    if (rc == 0) {
        rc = demo_compare(demo);
    }
    return rc;
}
