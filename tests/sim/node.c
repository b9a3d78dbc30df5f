/*
 * A node's life: its executors, opening and turning the replica, and the ways to
 * die. A life ends between two events, never inside the replica's own code: what
 * must be cut in the middle of a task is cut by its disk, which from some
 * operation on does nothing any more, and the life ends when the call returns.
 *
 * The store of the state machine is the one thing on a real file system (in a
 * directory that is best in memory). A process that dies keeps it; one that loses
 * power gets it back as it was, older, damaged, or not at all, for nothing was
 * promised about it.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bop/sim.h>

#include "replica_internal.h"
#include "sim.h"

#define DATA_PATH     "/data"
#define CLUSTER       "sim"
#define WALL_START_MS UINT64_C(1700000000000)
#define START_ATTEMPTS_MAX                                                                         \
    200 /* Of a node whose disk is in order again; a start that never works. */
#define STATE_FILE   "data.mdb"
#define DAMAGE_BYTES (256 * 1024) /* Where there is something to damage. */

/* ---- Clock and log ---- */

static uint64_t monotonic_us(struct bop_clock *self)
{
    return BOP_CONTAINER_OF(self, struct sim_node, clock)->sim->now_us;
}

static uint64_t wall_ms(struct bop_clock *self)
{
    struct sim_node *node = BOP_CONTAINER_OF(self, struct sim_node, clock);

    return WALL_START_MS + node->sim->now_us / 1000 + (uint64_t)node->wall_offset_ms;
}

static void write_log(struct bop_log *self, enum bop_log_level level, const char *module,
                      const char *message)
{
    struct sim_node *node = BOP_CONTAINER_OF(self, struct sim_node, log);

    sim_say(node->sim, node, "%s: %s", module, message);
}

/* ---- Executors ---- */

static uint64_t disk_latency(struct sim *sim)
{
    return !sim->calm && sim_chance(sim, 3, 100) ? sim_between(sim, 12 * SIM_MS, 300 * SIM_MS)
                                                 : sim_below(sim, 12 * SIM_MS);
}

static void run_next(struct sim_executor *executor)
{
    struct sim_node *node = executor->node;
    struct sim *sim = node->sim;
    uint64_t at_us = bop_max_u64(executor->hung_until_us, sim->now_us + disk_latency(sim));

    executor->running = true;
    sim_push(sim, at_us, SIM_EVENT_RUN, node->index, executor->number, node->life);
}

static void submit(struct bop_executor *self, struct bop_task *task)
{
    struct sim_executor *executor = BOP_CONTAINER_OF(self, struct sim_executor, executor);

    bop_list_push_back(&executor->queue, &task->link);
    if (!executor->running) {
        run_next(executor);
    }
}

static void run_task(struct sim_executor *executor)
{
    struct bop_list *link = bop_list_pop_front(&executor->queue);
    struct bop_task *task = BOP_CONTAINER_OF(link, struct bop_task, link);

    task->run(task);
    bop_list_push_back(&executor->ran, link);
}

static void task_done(struct sim_executor *executor)
{
    struct bop_list *link = bop_list_pop_front(&executor->ran);
    struct bop_task *task = BOP_CONTAINER_OF(link, struct bop_task, link);

    task->done(task);
}

static void on_run(struct sim_executor *executor)
{
    struct sim_node *node = executor->node;
    struct sim *sim = node->sim;

    if (executor->hung_until_us > sim->now_us) {
        run_next(executor);
        return;
    }
    run_task(executor);
    sim_push(sim, sim->now_us + sim_below(sim, 2 * SIM_MS), SIM_EVENT_DONE, node->index,
             executor->number, node->life);
    executor->running = false;
    if (!bop_list_empty(&executor->queue)) {
        run_next(executor);
    }
    sim_node_after(node);
}

static void on_done(struct sim_executor *executor)
{
    struct sim_node *node = executor->node;

    if (!bop_list_empty(&executor->ran)) {
        task_done(executor);
        sim_node_after(node);
        sim_node_touch(node);
    }
}

/* Run all that is left, one executor's tasks after the other's. */
static void drain(struct sim_node *node)
{
    bool some;

    do {
        some = false;
        for (unsigned n = 0; n < BOP_COUNT_OF(node->executors); n++) {
            struct sim_executor *executor = &node->executors[n];

            while (!bop_list_empty(&executor->queue) || !bop_list_empty(&executor->ran)) {
                some = true;
                if (bop_list_empty(&executor->ran)) {
                    run_task(executor);
                }
                task_done(executor);
            }
        }
    } while (some);
}

static void init_executors(struct sim_node *node)
{
    for (unsigned n = 0; n < BOP_COUNT_OF(node->executors); n++) {
        struct sim_executor *executor = &node->executors[n];

        *executor = (struct sim_executor){.executor.submit = submit, .node = node, .number = n};
        bop_list_init(&executor->queue);
        bop_list_init(&executor->ran);
    }
}

/* ---- Mutations of the disk: syncs that do nothing, while the node is up ---- */

#define FDS_MAX 4096

static int (*true_sync)(struct bop_fs *self, int fd);
static int (*true_open)(struct bop_fs *self, const char *path, int flags);
static const struct sim *mutated;
static bool lost_fds[SIM_NODES_MAX][FDS_MAX]; /* Whose syncs are lost. */

static const struct sim_node *node_of_disk(const struct bop_fs *fs)
{
    for (unsigned n = 0; n < mutated->node_count; n++) {
        const struct sim_node *node = &mutated->nodes[n];

        if (node->disk && bop_fs_sim_fs(node->disk) == fs) {
            return node;
        }
    }
    return NULL;
}

static int lose_sync(struct bop_fs *self, int fd)
{
    const struct sim_node *node = node_of_disk(self);

    return node && node->up && fd >= 0 && lost_fds[node->index][fd % FDS_MAX] ? 0
                                                                              : true_sync(self, fd);
}

static int open_and_note(struct bop_fs *self, const char *path, int flags)
{
    const struct sim_node *node = node_of_disk(self);
    int fd = true_open(self, path, flags);

    if (node && fd >= 0) {
        lost_fds[node->index][fd % FDS_MAX] = mutated->options.mutation == SIM_MUTATE_LOSE_VOTE
                                                  ? strstr(path, "/vote") != NULL
                                                  : strstr(path, "/log/") != NULL;
    }
    return fd;
}

static void mutate_disk(struct sim_node *node)
{
    struct bop_fs *fs = bop_fs_sim_fs(node->disk);
    enum sim_mutation mutation = node->sim->options.mutation;

    if (mutation == SIM_MUTATE_LOSE_WRITE || mutation == SIM_MUTATE_LOSE_VOTE) {
        mutated = node->sim;
        true_sync = fs->sync;
        true_open = fs->open;
        fs->sync = lose_sync;
        fs->open = open_and_note;
    }
}

static void make_disk(struct sim_node *node)
{
    struct bop_fs_sim_options options = {.seed = bop_random_next(&node->sim->random),
                                         .capacity_bytes = UINT64_C(1) << 30};

    if (bop_fs_sim_create(&options, &node->disk) < 0) {
        abort();
    }
    mutate_disk(node);
}

/* Mutation: after a loss of power the disk is empty, and the node does not know. */
static void forget_disk(struct sim_node *node)
{
    if (node->sim->options.mutation == SIM_MUTATE_LOSE_DISK && node->lost_power) {
        bop_fs_sim_destroy(node->disk);
        make_disk(node);
    }
    node->lost_power = false;
}

/* ---- The store of the state machine ---- */

static void state_file(const struct sim_node *node, char out_path[320], const char *suffix)
{
    snprintf(out_path, 320, "%s/" STATE_FILE "%s", node->state_path, suffix);
}

static void remove_state(struct sim_node *node)
{
    struct bop_error err = {0};

    if (bop_kv_remove(node->state_path, &err) < 0) {
        sim_fail(node->sim, "remove the store: %s", err.message);
    }
}

/* Without its holes, which are most of it. */
static bool copy_bytes(int in, int out)
{
    static char buffer[1 << 16];
    off_t end = lseek(in, 0, SEEK_END), at = 0;

    while ((at = lseek(in, at, SEEK_DATA)) >= 0) {
        ssize_t got = pread(in, buffer, sizeof(buffer), at);

        if (got <= 0 || pwrite(out, buffer, (size_t)got, at) != got) {
            return false;
        }
        at += got;
    }
    return end >= 0 && ftruncate(out, end) == 0;
}

static void copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (out >= 0 && !copy_bytes(in, out)) {
        unlink(to); /* As if it was lost. */
    }
    if (in >= 0) {
        close(in);
    }
    if (out >= 0) {
        close(out);
    }
}

/* Some pages are another file's. */
static void damage_state(struct sim_node *node)
{
    char path[320];
    struct stat status;
    uint64_t words[64];
    int fd;

    state_file(node, path, "");
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0 || status.st_size < DAMAGE_BYTES) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    for (unsigned n = 0; n < 16; n++) {
        off_t at = (off_t)(sim_below(node->sim, DAMAGE_BYTES / sizeof(words)) * sizeof(words));

        for (unsigned i = 0; i < BOP_COUNT_OF(words); i++) {
            words[i] = bop_random_next(&node->sim->random);
        }
        BOP_IGNORE(pwrite(fd, words, sizeof(words), at)); /* If not, it is damaged less. */
    }
    if (sim_chance(node->sim, 1, 3)) {
        BOP_IGNORE(ftruncate(fd, status.st_size / 2)); /* Likewise. */
    }
    close(fd);
}

/* True if the store was synced and not opened since: then it must be as it was. */
static bool state_is_clean(struct sim_node *node)
{
    struct bop_buf text;
    bool clean;

    bop_buf_init(&text, NULL, 0);
    clean = bop_fs_read_file(bop_fs_sim_fs(node->disk), DATA_PATH "/boot", 100, &text) >= 0 &&
            bop_slice_equal(bop_buf_slice(&text), bop_slice_cstr(DATA_DIR_CLEAN));
    bop_buf_deinit(&text);
    return clean;
}

/* What a loss of power makes of it. */
static void lose_state(struct sim_node *node)
{
    char path[320], old[320];

    if (state_is_clean(node)) {
        return;
    }
    state_file(node, path, "");
    state_file(node, old, ".old");
    switch (sim_below(node->sim, 4)) {
    case 0:
        remove_state(node);
        break;
    case 1:
        damage_state(node);
        break;
    case 2:
        copy_file(old, path); /* There may be none yet. */
        break;
    default:
        break;
    }
}

static void remember_state(struct sim_node *node)
{
    char path[320], old[320];

    state_file(node, path, "");
    state_file(node, old, ".old");
    copy_file(path, old);
}

/* ---- Starting ---- */

static void on_failed(void *user, int code, const char *message)
{
    struct sim_node *node = user;

    sim_say(node->sim, node, "failed: %s", message);
    node->gave_up = true;
    if (code == BOP_EREMOVED) {
        node->removed = true;
        node->sim->stats.removed++;
    } else if (!node->excused && node->stop_at == 0) {
        sim_fail(node->sim, "node %" PRIu64 " fails without a reason: %s", node->id, message);
    }
}

/* Mutation. */
static void tell_twice(struct sim_node *node, uint64_t index, struct bop_slice events)
{
    struct bop_buf twice;

    bop_buf_init(&twice, NULL, 0);
    BOP_ASSERT(bop_buf_append(&twice, events.data, events.size) == 0);
    BOP_ASSERT(bop_buf_append(&twice, events.data, events.size) == 0);
    bop__service_events(node->service, index, bop_buf_slice(&twice));
    bop_buf_deinit(&twice);
}

static void on_events(void *user, uint64_t index, struct bop_slice events)
{
    struct sim_node *node = user;

    sim_model_told(node, index, events);
    if (node->service && node->sim->options.mutation == SIM_MUTATE_TWICE) {
        tell_twice(node, index, events);
    } else if (node->service) {
        bop__service_events(node->service, index, events);
    }
}

static void on_reset(void *user, uint64_t index)
{
    struct sim_node *node = user;

    node->reset = index;
    if (node->service) {
        bop__service_reset(node->service, index);
    }
}

static void on_release(void *user)
{
    bop__service_release(((struct sim_node *)user)->service);
}

static int on_peer(void *user, uint64_t peer, const struct bop_wire_frame *frame)
{
    struct service *service = ((struct sim_node *)user)->service;

    return service ? bop__service_peer(service, peer, frame) : 0;
}

static void initial_configuration(const struct sim *sim, struct bop_raft_configuration *conf)
{
    *conf = (struct bop_raft_configuration){.count = sim->founders};
    for (unsigned n = 0; n < sim->founders; n++) {
        conf->servers[n].id = sim->nodes[n].id;
        conf->servers[n].role = BOP_RAFT_VOTER;
        memcpy(conf->servers[n].address, sim->nodes[n].address, sizeof(sim->nodes[n].address));
    }
}

static int open_replica(struct sim_node *node, struct bop_error *err)
{
    struct sim *sim = node->sim;
    struct bop_raft_configuration initial;
    struct replica_options options = {
        .engine = sim->options.engine,
        .fs = bop_fs_sim_fs(node->disk),
        .clock = &node->clock,
        .log_executor = &node->executors[0].executor,
        .work_executor = &node->executors[1].executor,
        .log = &node->log,
        .transport = &node->transport,
        .events = {.on_failed = on_failed,
                   .on_events = on_events,
                   .on_reset = on_reset,
                   .on_release = on_release,
                   .on_peer = on_peer,
                   .user = node},
        .path = DATA_PATH,
        .state_path = node->state_path,
        .boot_id = node->boot_id,
        .cluster = CLUSTER,
        .id = node->id,
        .address = node->address,
        .initial = &initial,
        .join = node->join,
        .seed = bop_random_next(&sim->random),
        .election_timeout_ms = 300,
        .heartbeat_ms = 50,
        .snapshot_entries = sim->snapshot_entries,
        .trailing_entries = sim->trailing_entries,
        .segment_bytes = sim->segment_bytes,
        .state_bytes_max = UINT64_C(256) << 20,
        .state_step_bytes = 1 << 20,
    };

    initial_configuration(sim, &initial);
    return bop__replica_open(&options, &node->replica, err);
}

static int make_service(struct sim_node *node)
{
    struct service_options options = {
        .clock = &node->clock,
        .replica = node->replica,
        .cluster = CLUSTER,
        .version = "sim",
        .node = node->id,
        .watch_seed = 1,
        .history_bytes_max = sim_chance(node->sim, 1, 3) ? 1 : 0, /* As little as there can be. */
    };

    return bop__service_create(&options, &node->service);
}

static bool tasks_wait(const struct sim_node *node)
{
    return !bop_list_empty(&node->executors[0].queue) || !bop_list_empty(&node->executors[1].queue);
}

static bool disk_stopped(const struct sim_node *node)
{
    return node->stop_at != 0 && bop_fs_sim_operations(node->disk) >= node->stop_at;
}

static void start_later(struct sim_node *node)
{
    struct sim *sim = node->sim;

    sim_push(sim, sim->now_us + sim_between(sim, 20 * SIM_MS, 3000 * SIM_MS), SIM_EVENT_START,
             node->index, 0, node->life);
}

void sim_node_wipe(struct sim_node *node)
{
    BOP_ASSERT(!node->up);
    bop_fs_sim_destroy(node->disk);
    make_disk(node);
    remove_state(node);
    node->join = true;
    node->removed = false;
    node->was_member = false;
    node->was_removed = false;
    node->lost_power = false;
    node->full_until_us = 0;
    node->excused = false;
    node->tail.wanted = false;
    node->tail.lost = false;
    node->tail.missed = 0;
}

/* It was removed from the cluster, and is told so. Some come back with nothing. */
static void retire(struct sim_node *node)
{
    struct sim *sim = node->sim;

    node->claimed = !node->was_removed;
    sim_node_wipe(node);
    if (!sim->calm && sim_chance(sim, 1, 2)) {
        start_later(node);
    } else {
        node->exists = false;
    }
}

/* What the disk makes of a life's end. */
static void end_disk(struct sim_node *node, bool power)
{
    node->stop_at = 0;
    bop_fs_sim_fail_syncs(node->disk, 0);
    node->excused = false;
    if (power) {
        bop_fs_sim_lose_power(node->disk);
        node->boot++;
        node->lost_power = true;
    } else {
        bop_fs_sim_kill_process(node->disk);
    }
}

/* It could not be started: that must have a reason, and one that goes. */
static void start_failed(struct sim_node *node, int code, const struct bop_error *err)
{
    struct sim *sim = node->sim;
    bool power;

    sim_say(sim, node, "does not start: %s", err->message);
    if (code == BOP_EREMOVED && !disk_stopped(node)) {
        node->removed = true; /* It wrote that down before, and died before it said so. */
        node->life++;
        retire(node);
        return;
    }
    if (tasks_wait(node)) {
        sim_fail(sim, "node %" PRIu64 " could not start and left tasks behind", node->id);
    } else if (!node->excused && node->full_until_us == 0 && !disk_stopped(node)) {
        sim_fail(sim, "node %" PRIu64 " cannot start: %s (%s)", node->id, err->message,
                 bop_strerror(code));
    } else if (++node->refused > START_ATTEMPTS_MAX) {
        sim_fail(sim, "node %" PRIu64 " never starts: %s", node->id, err->message);
    }
    init_executors(node);
    power = disk_stopped(node) && node->stop_power;
    end_disk(node, power);
    if (power) {
        lose_state(node);
        node->tail.missed = 0; /* What would have told is not believed any more. */
    }
    node->life++;
    start_later(node);
}

void sim_node_start(struct sim_node *node)
{
    struct sim *sim = node->sim;
    struct bop_error err = {0};
    int rc;

    /* Events that the memory of the last life gave rise to as it was freed are none of this. */
    node->life++;
    if (!node->exists) {
        node->exists = true;
        sim->stats.joins++;
    }
    snprintf(node->boot_id, sizeof(node->boot_id), "boot-%" PRIu64 "-%u", node->id, node->boot);
    sim_say(sim, node, "start");
    sim_tail_start(node);
    forget_disk(node);
    sim_nemesis_start(node);
    rc = open_replica(node, &err);
    if (rc < 0) {
        start_failed(node, rc, &err);
        return;
    }
    if (make_service(node) < 0) {
        abort();
    }
    if (node->stop_at != 0) {
        sim_push(sim, sim->now_us + 2 * SIM_S, SIM_EVENT_CRASH, node->index, node->stop_power,
                 node->life);
    }
    node->up = true;
    node->gave_up = false;
    node->turning = false;
    node->timer_us = 0;
    node->refused = 0;
    node->paused_until_us = 0;
    sim_model_reopened(node);
    sim_net_up(node);
    sim_node_touch(node);
    sim_node_after(node);
}

/* ---- Turning ---- */

void sim_node_touch(struct sim_node *node)
{
    struct sim *sim = node->sim;

    if (node->up && !node->turning) {
        node->turning = true;
        sim_push(sim, sim->now_us + sim_below(sim, 300), SIM_EVENT_TURN, node->index, 0,
                 node->life);
    }
}

bool sim_node_leads(const struct sim_node *node)
{
    struct bop_raft_status status;

    if (!node->up) {
        return false;
    }
    bop__replica_raft_status(node->replica, &status);
    return status.state == BOP_RAFT_LEADER;
}

static void set_timer(struct sim_node *node)
{
    struct sim *sim = node->sim;
    uint64_t due_ms = bop_min_u64(bop__replica_deadline_ms(node->replica), node->service_due_ms);
    uint64_t at_us = bop_max_u64(bop_min_u64(due_ms, UINT64_MAX / 1000) * 1000, sim->now_us + 200);

    if (node->timer_us <= sim->now_us || at_us < node->timer_us) {
        node->timer_us = at_us;
        sim_push(sim, at_us, SIM_EVENT_TIMER, node->index, 0, node->life);
    }
}

static void turn(struct sim_node *node)
{
    uint64_t life = node->life;

    node->turning = false;
    bop__replica_turn(node->replica);
    if (bop__replica_failed(node->replica) == 0) {
        node->service_due_ms = bop__service_turn(node->service);
    }
    sim_model_observe(node);
    sim_node_after(node);
    if (node->up && node->life == life) {
        set_timer(node);
    }
}

void sim_node_after(struct sim_node *node)
{
    if (!node->up) {
        return;
    }
    if (disk_stopped(node)) {
        sim_say(node->sim, node, "its disk has stopped");
        sim_node_crash(node, node->stop_power);
    } else if (node->gave_up) {
        node->sim->stats.exits++;
        sim_node_crash(node, false);
    }
}

/* ---- Ending ---- */

static void take_down(struct sim_node *node)
{
    node->up = false;
    node->life++;
    sim_net_down(node);
    sim_clients_node_down(node);
}

static void dispose(struct sim_node *node)
{
    drain(node);
    if (bop__replica_busy(node->replica)) {
        sim_fail(node->sim, "node %" PRIu64 " is busy and has no tasks", node->id);
    }
    bop__replica_close(node->replica);
    bop__service_destroy(node->service);
    node->replica = NULL;
    node->service = NULL;
    if (tasks_wait(node)) {
        sim_fail(node->sim, "node %" PRIu64 " was closed and left tasks behind", node->id);
    }
    init_executors(node);
}

/* The process is gone at once; then its memory is freed with a disk that does nothing. */
void sim_node_crash(struct sim_node *node, bool power)
{
    struct sim *sim = node->sim;

    sim_say(sim, node, power ? "lose power" : "die");
    sim->stats.crashes++;
    sim->stats.power_losses += power;
    if (sim_chance(sim, 1, 4)) {
        remember_state(node);
    }
    take_down(node);
    end_disk(node, power);
    bop_fs_sim_stop_after(node->disk, 1);
    dispose(node);
    bop_fs_sim_stop_after(node->disk, 0);
    if (power) {
        lose_state(node);
    }
    /* The descriptors were gone before, and nothing could be opened since. */
    if (node->removed) {
        retire(node);
    } else {
        start_later(node);
    }
}

/* In order, as on SIGTERM; then perhaps the machine is started anew. */
void sim_node_stop(struct sim_node *node, bool reboot)
{
    struct sim *sim = node->sim;

    sim_say(sim, node, reboot ? "stop and reboot" : "stop");
    sim->stats.stops++;
    take_down(node);
    dispose(node);
    node->stop_at = 0;
    if (reboot) {
        bop_fs_sim_lose_power(node->disk);
        node->boot++;
    } else {
        bop_fs_sim_kill_process(node->disk);
    }
    start_later(node);
}

/* ---- Events ---- */

void sim_node_event(struct sim *sim, const struct sim_event *event)
{
    struct sim_node *node = &sim->nodes[event->a];

    if (event->c != node->life) {
        return;
    }
    if (event->kind == SIM_EVENT_START) {
        if (!node->up) {
            sim_node_start(node);
        }
        return;
    }
    if (!node->up) {
        return;
    }
    if (event->kind == SIM_EVENT_CRASH) {
        sim_node_crash(node, event->b != 0);
        return;
    }
    if (sim->now_us < node->paused_until_us) {
        sim_push(sim, node->paused_until_us, (enum sim_event_kind)event->kind, event->a, event->b,
                 event->c);
        return;
    }
    switch (event->kind) {
    case SIM_EVENT_RUN:
        on_run(&node->executors[event->b]);
        break;
    case SIM_EVENT_DONE:
        on_done(&node->executors[event->b]);
        break;
    case SIM_EVENT_TIMER:
        node->timer_us = 0;
        turn(node);
        break;
    default:
        turn(node);
    }
}

/* ---- From begin to end ---- */

void sim_node_init(struct sim *sim, unsigned index)
{
    struct sim_node *node = &sim->nodes[index];

    node->sim = sim;
    node->index = index;
    node->id = index + 1;
    node->join = index >= sim->founders;
    node->exists = !node->join;
    node->was_member = !node->join;
    node->life = 1;
    node->clock = (struct bop_clock){.monotonic_us = monotonic_us, .wall_ms = wall_ms};
    node->wall_offset_ms = (int64_t)sim_below(sim, 20000) - 10000;
    node->log = (struct bop_log){.level = BOP_LOG_INFO, .write = write_log};
    node->transport = (struct replica_transport){.output = sim_net_output, .flush = sim_net_flush};
    snprintf(node->address, sizeof(node->address), "node%" PRIu64 ":1", node->id);
    snprintf(node->state_path, sizeof(node->state_path), "%s/state%u", sim->options.scratch, index);
    node->told = sim_memory(SIM_TOLD_MAX * sizeof(*node->told));
    init_executors(node);
    remove_state(node);
    make_disk(node);
    sim_push(sim,
             node->join ? sim_between(sim, sim->now_us, sim->faults_end_us)
                        : sim->now_us + sim_below(sim, 100 * SIM_MS),
             SIM_EVENT_START, index, 0, node->life);
}

void sim_node_deinit(struct sim_node *node)
{
    char path[320];

    if (node->up) {
        take_down(node);
        bop_fs_sim_kill_process(node->disk);
        bop_fs_sim_stop_after(node->disk, 1);
        dispose(node);
    }
    bop_fs_sim_destroy(node->disk);
    free(node->told);
    remove_state(node);
    state_file(node, path, ".old");
    unlink(path);
    rmdir(node->state_path);
}
