/*
 * Snapshots: taking our own, finding the newest at start, and making the state
 * from one. How they travel is replica_transfer.c; replica_verify.c reads through what a
 * start had no need to, and replica_remove.c removes older ones.
 *
 * A file is named by index and term, so that the newest is found by name:
 * snapshots/<index as %016x>-<term as %016x>.snap.
 */
#include <stdio.h>
#include <stdlib.h>

#include "buggify.h"
#include "machine_past.h"
#include "replica_internal.h"

static int snapshot_path(const struct replica *replica, char *out_path, uint64_t index,
                         uint64_t term)
{
    return bop__replica_path(replica, out_path, SNAPSHOT_NAME, index, term);
}

static void machine_options(const struct replica *replica, struct machine_options *out_options)
{
    *out_options = (struct machine_options){
        .allocator = replica->options.allocator,
        .metrics = replica->options.metrics,
        .path = replica->state_path,
        .bytes_max = replica->options.state_bytes_max,
        .grow_step_bytes = replica->options.state_step_bytes,
    };
}

/* ---- What lies in the directory ---- */

bool bop__replica_snapshot_name(const char *name, uint64_t *out_index, uint64_t *out_term)
{
    char expected[64];
    unsigned long long index, term;

    if (sscanf(name, "%16llx-%16llx.snap", &index, &term) != 2) {
        return false;
    }
    snprintf(expected, sizeof(expected), "%016llx-%016llx.snap", index, term);
    *out_index = index;
    *out_term = term;
    return strcmp(expected, name) == 0;
}

struct newest_search {
    uint64_t below; /* Only snapshots under this index count. */
    uint64_t index;
    uint64_t term;
};

static int newest_visit(void *user, const char *name)
{
    struct newest_search *search = user;
    uint64_t index, term;

    if (bop__replica_snapshot_name(name, &index, &term) && index < search->below &&
        index >= search->index) {
        search->index = index;
        search->term = term;
    }
    return 0;
}

/* One whose writing was cut off. A file that is being received has another name. */
static int unfinished_visit(void *user, const char *name)
{
    struct replica *replica = user;
    char path[PATH_MAX_BYTES];
    size_t size = strlen(name);

    if (size > 9 && strcmp(name + size - 9, ".snap.tmp") == 0 &&
        bop__replica_path(replica, path, "snapshots/%s", name) == 0) {
        /* Best effort: it is looked for again at the next start. */
        BOP_IGNORE(replica->fs->unlink(replica->fs, path));
    }
    return 0;
}

typedef int snapshot_check_fn(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                              struct snapshot_info *out_info, struct bop_error *err);

/* Find the newest snapshot that passes a check. 0 also if there is none (raft.index 0). */
static int find_newest(struct replica *replica, snapshot_check_fn *check, struct bop_error *err)
{
    struct newest_search search = {.below = UINT64_MAX};
    char directory[PATH_MAX_BYTES], path[PATH_MAX_BYTES];
    int rc = bop__replica_path(replica, directory, "snapshots");

    memset(&replica->snapshot, 0, sizeof(replica->snapshot));
    if (rc == 0) {
        rc = bop_fs_mkdirs(replica->fs, directory);
    }
    if (rc == 0) {
        /* A name that was given right before the process died may not be on disk yet, and
         * the log is cut on the strength of it. */
        rc = replica->fs->sync_dir(replica->fs, directory);
    }
    if (rc == 0) {
        rc = replica->fs->list(replica->fs, directory, unfinished_visit, replica);
    }
    while (rc == 0) {
        search.index = 0;
        rc = replica->fs->list(replica->fs, directory, newest_visit, &search);
        if (rc < 0 || search.index == 0) {
            break;
        }
        rc = snapshot_path(replica, path, search.index, search.term);
        if (rc == 0) {
            rc = check(replica->options.allocator, replica->fs, path, &replica->snapshot, err);
        }
        if (rc == 0 && (replica->snapshot.raft.index != search.index ||
                        replica->snapshot.raft.term != search.term)) {
            rc = bop_error_say(err, BOP_ECORRUPT, "snapshot %s is not what its name says", path);
        }
        if (rc == 0 || rc == BOP_ENOMEM || rc == BOP_EVERSION) {
            return rc;
        }
        bop_log(replica->options.log, BOP_LOG_WARN, "snapshot", "skip one that is not whole: %s",
                err ? err->message : path);
        memset(&replica->snapshot, 0, sizeof(replica->snapshot));
        search.below = search.index;
        rc = 0;
    }
    return rc < 0 ? bop_error_set(err, rc, "look for snapshots in %s", directory) : 0;
}

/* ---- At start ---- */

/* True if the log goes on from the newest snapshot; else it must begin anew there. */
static int log_fits(struct replica *replica, bool *out_fits, struct bop_error *err)
{
    const struct bop_raft_snapshot *snapshot = &replica->snapshot.raft;
    struct bop_raft_entry storage;
    const struct bop_raft_entry *entry;

    *out_fits = true;
    if (snapshot->index + 1 == bop_aof_first(replica->aof)) {
        return 0;
    }
    if (snapshot->index + 1 < bop_aof_first(replica->aof)) {
        return bop_error_say(
            err, BOP_ECORRUPT,
            "the log in %s begins at entry %" PRIu64
            " but the newest whole snapshot ends at %" PRIu64
            ": move the directory away and start with --join and a new --id, to fetch the "
            "data from the others",
            replica->options.path, bop_aof_first(replica->aof), snapshot->index);
    }
    if (snapshot->index > bop_aof_last(replica->aof)) {
        *out_fits = false;
        return 0;
    }
    entry = bop__replica_log_get(replica, snapshot->index, &storage);
    if (!entry) {
        return bop_error_say(err, replica->failed, "%s", replica->failure);
    }
    *out_fits = entry->term == snapshot->term;
    return 0;
}

static int load_newest(struct replica *replica, const struct machine_options *options,
                       struct bop_error *err)
{
    char path[PATH_MAX_BYTES];
    struct snapshot_info info;
    int rc;

    if (replica->snapshot.raft.index == 0) {
        return bop_kv_remove(replica->state_path, err);
    }
    rc = snapshot_path(replica, path, replica->snapshot.raft.index, replica->snapshot.raft.term);
    return rc < 0 ? rc : bop__snapshot_load(replica->fs, path, options, &info, err);
}

/* Open the store as it lies there and see whether it goes on to the log's entries. What it has
 * beyond them was in the log once: out_lost, else 0. */
static bool try_state(struct replica *replica, const struct machine_options *options,
                      uint64_t *out_lost)
{
    struct bop_error err = {0};
    uint64_t index;

    if (bop__machine_open(options, &replica->machine, &err) < 0) {
        bop_log(replica->options.log, BOP_LOG_WARN, "state", "make it anew: %s", err.message);
        replica->machine = NULL;
        return false;
    }
    index = bop__machine_position(replica->machine).index;
    if (index + 1 >= bop_aof_first(replica->aof) && index <= bop_aof_last(replica->aof)) {
        return true;
    }
    *out_lost = index > bop_aof_last(replica->aof) ? index : 0;
    bop__machine_close(replica->machine);
    replica->machine = NULL;
    return false;
}

/*
 * Make the state anew. Until that is done nothing in it may be trusted, in this boot
 * neither: a process that dies meanwhile leaves half of it.
 */
static int remake_state(struct replica *replica, const struct machine_options *options,
                        struct bop_error *err)
{
    int rc = bop__data_dir_mark(replica->fs, replica->options.path, DATA_DIR_UNTRUSTED, err);

    if (rc == 0) {
        rc = load_newest(replica, options, err);
    }
    if (rc == 0) {
        rc = bop__machine_open(options, &replica->machine, err);
    }
    return rc < 0 ? rc
                  : bop__data_dir_mark(replica->fs, replica->options.path, replica->options.boot_id,
                                       err);
}

/*
 * With a state that is whole and goes on to the log's entries, no snapshot is needed but for
 * what its header says; nothing is changed on the strength of that. Its content, which may be
 * long, is checked when the node serves. *out_opened: that is how it is.
 */
static int open_as_it_lies(struct replica *replica, const struct machine_options *options,
                           bool *out_opened)
{
    struct bop_error err = {0};
    uint64_t lost;
    bool fits;

    *out_opened = find_newest(replica, bop__snapshot_peek, &err) == 0 &&
                  log_fits(replica, &fits, &err) == 0 && fits && try_state(replica, options, &lost);
    if (*out_opened) {
        bop__replica_verify_begin(replica);
    }
    return replica->failed;
}

/* Else nothing but a snapshot that was read through may stand for what the log has not. */
static int open_checked(struct replica *replica, const struct machine_options *options,
                        bool trusted, struct bop_error *err)
{
    uint64_t lost = 0;
    bool fits;
    int rc = find_newest(replica, bop__snapshot_check, err);

    if (rc == 0) {
        rc = log_fits(replica, &fits, err);
    }
    if (rc == 0 && !fits) {
        /* The snapshot came and the process died before the log was reset. */
        rc = bop_aof_reset(replica->aof, replica->snapshot.raft.index + 1);
        replica->durable = replica->snapshot.raft.index;
        replica->durable_told = replica->durable;
        replica->log_window_count = 0;
        if (rc < 0) {
            bop_error_set(err, rc, "reset the log");
        }
    }
    if (rc == 0 && (!trusted || !try_state(replica, options, &lost))) {
        rc = lost != 0 ? bop__replica_loss_found(replica, lost, err) : 0;
        rc = rc == 0 ? remake_state(replica, options, err) : rc;
    }
    return rc;
}

int bop__replica_state_open(struct replica *replica, bool trusted, struct bop_error *err)
{
    struct machine_options options;
    bool opened = false;
    int rc = bop__replica_loss_open(replica, err);

    machine_options(replica, &options);
    if (rc == 0 && trusted) {
        rc = bop__data_dir_mark(replica->fs, replica->options.path, replica->options.boot_id, err);
    }
    if (rc == 0 && trusted) {
        rc = open_as_it_lies(replica, &options, &opened);
        if (rc < 0) {
            bop_error_say(err, rc, "%s", replica->failure);
        }
    }
    if (rc == 0 && !opened) {
        rc = open_checked(replica, &options, trusted, err);
    }
    if (rc < 0) {
        return rc;
    }
    replica->applied = bop__machine_position(replica->machine).index;
    if (replica->applied + 1 < bop_aof_first(replica->aof)) {
        return bop_error_say(err, BOP_ECORRUPT,
                             "the log in %s begins at entry %" PRIu64
                             " and nothing leads there: move the directory away and start with "
                             "--join and a new --id, to fetch the data from the others",
                             replica->options.path, bop_aof_first(replica->aof));
    }
    return 0;
}

/* ---- Taking one ---- */

static int take_open(struct replica *replica, struct snapshot_taking *taking)
{
    struct machine_position position = bop__machine_past_position(taking->past);

    return bop__snapshot_writer_open(replica->options.allocator, &replica->writing.fs, taking->path,
                                     &position, bop_buf_slice(&taking->conf), false,
                                     &taking->writer, &taking->error);
}

static int take_slice(struct snapshot_taking *taking)
{
    int rc = bop__machine_past_walk(taking->past,
                                    buggify(BUGGIFY_SLICE_SMALL) ? 32 : SNAPSHOT_SLICE,
                                    bop__snapshot_writer_record, taking->writer, &taking->more);

    return rc < 0 ? bop_error_set(&taking->error, rc, "write %s", taking->path) : 0;
}

/* A slice, and what comes before the first one and after the last. */
static void take_run(struct bop_task *task)
{
    struct snapshot_taking *taking = BOP_CONTAINER_OF(task, struct snapshot_taking, task);
    struct replica *replica = BOP_CONTAINER_OF(taking, struct replica, taking);

    taking->more = false;
    taking->rc = taking->writer ? 0 : take_open(replica, taking);
    if (taking->rc == 0) {
        taking->rc = take_slice(taking);
    }
    if (taking->rc == 0 && !taking->more) {
        struct snapshot_writer *writer = taking->writer;

        taking->writer = NULL;
        taking->rc = bop__snapshot_writer_finish(writer, &taking->info, &taking->error);
    }
}

/* Entries to keep below a new snapshot: as many as asked for, but about a segment at most. */
static uint64_t trailing_entries(const struct replica *replica, uint64_t index)
{
    uint64_t entries = index - replica->snapshot.raft.index;
    uint64_t entry_bytes = replica->taking.log_bytes / entries + 1;

    return bop_max_u64(1, bop_min_u64(replica->options.trailing_entries,
                                      replica->options.segment_bytes / entry_bytes));
}

/* Who was sent a snapshot loads it, and is then sent what came meanwhile: if that were gone, it
 * would be sent another one, and so on for as long as there are writes. Who gets no further for
 * long, or would have it all from a full disk, is not waited for. */
static bool catches_up(const struct replica *replica, struct replica_peer *peer, uint64_t first)
{
    uint64_t match;

    if (peer->catching_up.index == 0) {
        return false;
    }
    match = bop_raft_match_index(replica->raft, peer->id);
    if (match > peer->catching_up.index) {
        peer->catching_up.index = match;
        peer->catching_up.ms = replica->now_ms;
    }
    if (match >= first || replica->disk_low || replica->status.state != BOP_RAFT_LEADER ||
        replica->status.term != peer->catching_up.term ||
        replica->now_ms - peer->catching_up.ms >= CATCH_UP_MS) {
        peer->catching_up.index = 0;
    }
    return peer->catching_up.index != 0;
}

/* Looked at all the time: who has caught up and is lost later is nobody the log waits for. */
void bop__replica_catching_up_turn(struct replica *replica)
{
    uint64_t trailing = replica->options.trailing_entries;
    uint64_t first = replica->applied > trailing ? replica->applied - trailing + 1 : 1;

    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        /* What it says is kept with the peer. */
        BOP_IGNORE(catches_up(replica, &replica->peers[n], first));
    }
}

/* The first entry to keep in the log below a new snapshot: for followers a little
 * behind, and for those that are or were sent an older snapshot. With the last entry of
 * that, by which they are asked whether they have it. */
static uint64_t first_kept(struct replica *replica, uint64_t index)
{
    uint64_t trailing = trailing_entries(replica, index);
    uint64_t most = index > trailing ? index - trailing + 1 : 1, first = most;

    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        struct replica_peer *peer = &replica->peers[n];

        if (peer->send.active) {
            first = bop_min_u64(first, peer->send.index);
        }
        if (catches_up(replica, peer, most)) {
            first = bop_min_u64(first, peer->catching_up.index);
        }
    }
    return bop_max_u64(first, bop_aof_first(replica->aof));
}

static void take_finish(struct replica *replica)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SNAPSHOT_TAKEN,
                                   .now_ms = replica->now_ms};
    uint64_t index = replica->taking.info.raft.index;
    uint64_t keep;
    int rc;

    if (index == replica->snapshot.raft.index && bop__replica_verify_failed(replica)) {
        bop__replica_verify_replaced(replica); /* For consensus it is the one that was there. */
        replica->snapshot = replica->taking.info;
        bop_log(replica->options.log, BOP_LOG_INFO, "snapshot", "taken again index=%" PRIu64,
                index);
        return;
    }
    if (index <= replica->snapshot.raft.index || replica->install.phase > INSTALL_CHECKING) {
        return; /* A newer one came from a peer meanwhile. */
    }
    keep = first_kept(replica, index);
    event.taken.snapshot = &replica->taking.info.raft;
    event.taken.trailing = index + 1 - keep;
    if (bop__replica_step(replica, &event) < 0) {
        return;
    }
    replica->snapshot = replica->taking.info;
    bop_metric_add(replica->metrics.snapshots_taken, 1);
    bop_log(replica->options.log, BOP_LOG_INFO, "snapshot",
            "taken index=%" PRIu64 " bytes=%" PRIu64 " entries=%" PRIu64, index,
            replica->snapshot.bytes, replica->snapshot.entries);
    rc = bop_aof_truncate_front(replica->aof, keep);
    if (rc < 0) {
        bop__replica_fail(replica, rc, "truncate the log: %s", bop_strerror(rc));
    }
    replica->removing.wanted = true;
    bop__replica_digest_taken(replica, index, replica->snapshot.digest);
}

/* On to the next slice, which sees what is there by now and is told what was. False: it is not
 * begun, and taking->rc says why; after true that is the lane's until the slice is done. */
static bool take_on(struct replica *replica)
{
    struct snapshot_taking *taking = &replica->taking;

    taking->resting = false;
    taking->applied = replica->applied;
    taking->rc = bop__machine_past_turn(taking->past);
    if (taking->rc < 0) {
        bop_error_set(&taking->error, taking->rc, "look at the state");
        return false;
    }
    bop_executor_submit(replica->options.work_executor, &taking->task);
    return true;
}

/*
 * A slice takes processor, disk and caches from whatever goes on. So there is a rest behind each
 * one while entries are applied, and a large state is written in about a minute, or in half a
 * second for each 10 MiB if that is less.
 */
static bool take_rest(struct replica *replica)
{
    struct snapshot_taking *taking = &replica->taking;
    uint64_t rest_ms = bop_min_u64(SNAPSHOT_REST_MS,
                                   (uint64_t)SNAPSHOT_REST_ALL * SNAPSHOT_SLICE /
                                       bop_max_u64(replica->snapshot.bytes, SNAPSHOT_SLICE));

    if (replica->applied == taking->applied || !bop__machine_past_rest(taking->past)) {
        return false;
    }
    taking->resting = true;
    taking->rest_until_ms = bop_clock_monotonic_ms(replica->options.clock) + rest_ms;
    return true;
}

/* What the taking holds, given back. */
static void take_end(struct snapshot_taking *taking)
{
    bop__snapshot_writer_drop(taking->writer);
    taking->writer = NULL;
    bop__machine_past_close(taking->past);
    taking->past = NULL;
    taking->active = false;
    taking->resting = false;
}

void bop__replica_snapshot_give_up(struct replica *replica)
{
    if (replica->taking.active && replica->taking.resting) {
        take_end(&replica->taking);
    }
}

static void take_ended(struct replica *replica)
{
    struct snapshot_taking *taking = &replica->taking;

    take_end(taking);
    if (replica->failed != 0 || taking->rc == BOP_ECANCELED) {
        return;
    }
    if (taking->rc < 0) {
        /* Nothing is lost by that but room for the log; the next turn of entries tries again. */
        bop_log(replica->options.log, BOP_LOG_WARN, "snapshot", "not taken: %s",
                taking->error.message);
        replica->take_again_ms = replica->now_ms + TAKE_RETRY_MS;
        replica->applied_bytes += taking->log_bytes;
        return;
    }
    take_finish(replica);
}

static void take_done(struct bop_task *task)
{
    struct snapshot_taking *taking = BOP_CONTAINER_OF(task, struct snapshot_taking, task);
    struct replica *replica = BOP_CONTAINER_OF(taking, struct replica, taking);

    if (taking->rc == 0 && taking->more && replica->failed == 0) {
        if (take_rest(replica)) {
            return;
        }
        if (take_on(replica)) {
            return;
        }
    }
    take_ended(replica);
}

/* The rest is over. */
static void take_turn(struct replica *replica)
{
    struct snapshot_taking *taking = &replica->taking;

    if (!taking->resting) {
        return;
    }
    if (replica->install.phase == INSTALL_WAITING) {
        bop__replica_snapshot_give_up(replica); /* A newer one is there. */
    } else if (replica->now_ms >= taking->rest_until_ms) {
        if (!take_on(replica)) {
            take_ended(replica);
        }
    }
}

static size_t past_bytes_max(const struct replica *replica)
{
    return bop_max_u64(PAST_BYTES_MIN, replica->snapshot.bytes / PAST_SHARE);
}

static void take(struct replica *replica)
{
    struct snapshot_taking *taking = &replica->taking;
    struct machine_position position = bop__machine_position(replica->machine);
    struct bop_slice conf = bop__machine_configuration(replica->machine);

    bop_buf_clear(&taking->conf);
    if (snapshot_path(replica, taking->path, position.index, position.term) < 0 ||
        bop_buf_append(&taking->conf, conf.data, conf.size) < 0 ||
        bop__replica_settle(replica) < 0 ||
        bop__machine_past_open(replica->machine, past_bytes_max(replica), &taking->past) < 0) {
        replica->take_again_ms = replica->now_ms + TAKE_RETRY_MS;
        return;
    }
    memset(&taking->error, 0, sizeof(taking->error));
    taking->task = (struct bop_task){.run = take_run, .done = take_done};
    if (!take_on(replica)) {
        bop__machine_past_close(taking->past);
        taking->past = NULL;
        replica->take_again_ms = replica->now_ms + TAKE_RETRY_MS;
        return;
    }
    taking->active = true;
    taking->log_bytes = replica->applied_bytes;
    replica->applied_bytes = 0;
}

/* ---- Installing one ---- */

static void load_run(struct bop_task *task)
{
    struct snapshot_install *install = BOP_CONTAINER_OF(task, struct snapshot_install, task);
    struct replica *replica = BOP_CONTAINER_OF(install, struct replica, install);
    struct machine_options options;
    struct snapshot_info info;

    machine_options(replica, &options);
    install->rc = bop__snapshot_load(replica->fs, install->path, &options, &info, &install->error);
}

static void load_done(struct bop_task *task)
{
    struct snapshot_install *install = BOP_CONTAINER_OF(task, struct snapshot_install, task);
    struct replica *replica = BOP_CONTAINER_OF(install, struct replica, install);
    struct machine_options options;

    install->phase = INSTALL_IDLE;
    if (replica->failed != 0) {
        return;
    }
    if (install->rc == 0) {
        machine_options(replica, &options);
        install->rc = bop__machine_open(&options, &replica->machine, &install->error);
    }
    if (install->rc < 0) {
        bop__replica_fail(replica, install->rc, "install a snapshot: %s", install->error.message);
        return;
    }
    replica->applied = bop__machine_position(replica->machine).index;
    if (replica->options.events.on_reset) {
        replica->options.events.on_reset(replica->options.events.user, replica->applied);
    }
    install->phase = INSTALL_SETTLING;
}

void bop__replica_snapshot_install(struct replica *replica,
                                   const struct bop_raft_snapshot *snapshot)
{
    struct snapshot_install *install = &replica->install;
    int rc;

    if (install->info.raft.index != snapshot->index || install->info.raft.term != snapshot->term) {
        bop__replica_fail(replica, BOP_EPROTOCOL, "asked to install a snapshot that is not here");
        return;
    }
    rc = bop_aof_reset(replica->aof, snapshot->index + 1);
    if (rc < 0) {
        bop__replica_fail(replica, rc, "reset the log: %s", bop_strerror(rc));
        return;
    }
    bop__entry_cache_clear(&replica->cache);
    replica->log_window_count = 0;
    replica->durable = snapshot->index;
    replica->durable_told = snapshot->index;
    install->phase = INSTALL_WAITING;
}

/* Begin to load once no view of the old state is open any more. */
static void install_load(struct replica *replica)
{
    struct snapshot_install *install = &replica->install;

    if (replica->options.events.on_release) {
        replica->options.events.on_release(replica->options.events.user);
    }
    bop__machine_close(replica->machine);
    replica->machine = NULL;
    replica->batch.open = false;
    install->phase = INSTALL_LOADING;
    install->task = (struct bop_task){.run = load_run, .done = load_done};
    bop_executor_submit(replica->options.work_executor, &install->task);
}

static void install_finish(struct replica *replica)
{
    struct snapshot_install *install = &replica->install;
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SNAPSHOT_PERSISTED,
                                   .now_ms = replica->now_ms,
                                   .snapshot_persisted = &install->info.raft};

    install->phase = INSTALL_IDLE;
    replica->snapshot = install->info;
    bop_metric_add(replica->metrics.snapshots_installed, 1);
    bop_log(replica->options.log, BOP_LOG_INFO, "snapshot",
            "installed index=%" PRIu64 " bytes=%" PRIu64 " from node=%" PRIu64,
            install->info.raft.index, install->info.bytes, install->from);
    /* A failure is kept in the replica. */
    BOP_IGNORE(bop__replica_step(replica, &event));
    replica->removing.wanted = true;
}

/* True after so many entries or bytes since the last snapshot. */
bool bop__replica_snapshot_may_take(const struct replica *replica)
{
    return replica->install.phase == INSTALL_IDLE && !replica->taking.active && replica->machine &&
           replica->now_ms >= replica->take_again_ms;
}

/*
 * At multiples of the entries between two, where other nodes take theirs; or if that was missed.
 * Writing a large state pays off only once about half as much was applied since.
 */
static bool take_is_due(const struct replica *replica)
{
    const struct snapshot_info *last = &replica->snapshot;
    bool large = last->bytes >= SNAPSHOT_LARGE;
    uint64_t every = replica->options.snapshot_entries;
    uint64_t entries = bop_max_u64(every, large ? last->entries / 2 : 0);
    uint64_t bytes = bop_max_u64(SNAPSHOT_SEGMENTS * replica->options.segment_bytes,
                                 large ? last->bytes / 2 : 0);
    uint64_t since;

    if (replica->applied <= last->raft.index) {
        /* One that is damaged is written anew, at the same place if need be. */
        return replica->applied == last->raft.index && bop__replica_verify_failed(replica);
    }
    since = replica->applied - last->raft.index;
    return bop__replica_verify_failed(replica) ||
           (since >= entries && replica->applied % every == 0) || since >= 2 * entries ||
           replica->applied_bytes >= bytes || buggify(BUGGIFY_SNAPSHOT_NOW);
}

void bop__replica_snapshot_turn(struct replica *replica)
{
    take_turn(replica);
    if (replica->install.phase == INSTALL_WAITING && !replica->taking.active &&
        !bop__replica_backups_cutting(replica)) {
        install_load(replica);
    }
    if (replica->install.phase == INSTALL_SETTLING && !bop_aof_busy(replica->aof)) {
        install_finish(replica);
    }
    if (bop__replica_snapshot_may_take(replica) && take_is_due(replica)) {
        take(replica);
    }
    bop__replica_remove_turn(replica);
    bop__replica_verify_turn(replica);
    replica->apply_stopped = false;
}
