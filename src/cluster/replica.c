/*
 * The replica as a whole: open, close, one turn, deadlines, status.
 *
 * Invariants:
 *
 *   (1) applied <= min(commit, durable) since start, and never moves while a
 *       snapshot is being installed. The state stands there, or before it after
 *       a batch was undone, for want of room.
 *   (2) durable_told <= durable <= last entry of the log.
 *   (3) A vote or a term is on disk before a message that follows from it is queued.
 *   (4) After a failure nothing more is sent, answered or written.
 */
#include <stdio.h>
#include <stdlib.h>

#include "data_dir.h"
#include "replica_internal.h"

#include <bop/mem.h>

int bop__replica_fail(struct replica *replica, int code, const char *format, ...)
{
    va_list args;

    if (replica->failed == 0) {
        replica->failed = code;
        va_start(args, format);
        vsnprintf(replica->failure, sizeof(replica->failure), format, args);
        va_end(args);
    }
    return replica->failed;
}

int bop__replica_path(const struct replica *replica, char *out_path, const char *format, ...)
{
    int length = snprintf(out_path, PATH_MAX_BYTES, "%s/", replica->options.path);
    int more;
    va_list args;

    if (length < 0 || length >= PATH_MAX_BYTES) {
        return -ENAMETOOLONG;
    }
    va_start(args, format);
    more = vsnprintf(out_path + length, (size_t)(PATH_MAX_BYTES - length), format, args);
    va_end(args);
    return more < 0 || more >= PATH_MAX_BYTES - length ? -ENAMETOOLONG : 0;
}

/* ---- Creation ---- */

static void set_defaults(struct replica_options *options)
{
    if (options->snapshot_entries == 0) {
        options->snapshot_entries = 1000000;
    }
    if (options->trailing_entries == 0) {
        options->trailing_entries = 10000;
    }
    if (options->segment_bytes == 0) {
        options->segment_bytes = 64 * 1024 * 1024;
    }
    if (options->election_timeout_ms == 0) {
        options->election_timeout_ms = 300;
    }
    if (options->heartbeat_ms == 0) {
        options->heartbeat_ms = 50;
    }
    if (options->level == 0) {
        options->level = MACHINE_LEVEL;
    }
    if (options->inflight_entries == 0) {
        options->inflight_entries = 65536;
    }
    if (options->uncommitted_bytes == 0) {
        options->uncommitted_bytes = UNCOMMITTED_MAX;
    }
}

/* Copies of the texts in options, so that the caller's may go. */
static int copy_strings(struct replica *replica)
{
    const char **texts[] = {&replica->options.path, &replica->options.boot_id,
                            &replica->options.cluster, &replica->options.address};
    char *at;

    for (size_t n = 0; n < BOP_COUNT_OF(texts); n++) {
        replica->strings_size += strlen(*texts[n]) + 1;
    }
    replica->strings = bop_alloc(replica->allocator, replica->strings_size);
    if (!replica->strings) {
        return BOP_ENOMEM;
    }
    at = replica->strings;
    for (size_t n = 0; n < BOP_COUNT_OF(texts); n++) {
        size_t size = strlen(*texts[n]) + 1;

        memcpy(at, *texts[n], size);
        *texts[n] = at;
        at += size;
    }
    return 0;
}

static int allocate(struct replica *replica)
{
    struct bop_allocator *allocator = replica->allocator;

    replica->decode_entries = bop_alloc_array(allocator, PEER_ENTRIES_MAX,
                                              sizeof(struct bop_raft_entry));
    replica->log_views = bop_alloc_array(allocator, LOG_READ_MAX, sizeof(struct bop_aof_view));
    replica->result_list = bop_alloc_array(allocator, APPLY_ENTRIES_MAX,
                                           sizeof(struct machine_result));
    replica->writes = bop_alloc_array(allocator, PENDING_WRITES_MAX,
                                      sizeof(struct replica_write *));
    replica->submit_entries = bop_alloc_array(allocator, PROPOSALS_MAX,
                                              sizeof(struct bop_raft_entry));
    if (!replica->decode_entries || !replica->log_views || !replica->result_list ||
        !replica->writes || !replica->submit_entries) {
        return BOP_ENOMEM;
    }
    return copy_strings(replica);
}

static void register_metrics(struct replica *replica)
{
    struct bop_metrics *metrics = replica->options.metrics;

    if (!metrics) {
        return;
    }
    replica->metrics.applied = bop_metrics_counter(metrics, "bop_replica_applied_total", NULL,
                                                   "Entries applied to the state.");
    replica->metrics.term = bop_metrics_gauge(metrics, "bop_raft_term", NULL, "The current term.");
    replica->metrics.leader = bop_metrics_gauge(metrics, "bop_raft_leader", NULL,
                                                "1 while this node leads.");
    replica->metrics.commit = bop_metrics_gauge(metrics, "bop_raft_commit_index", NULL,
                                                "The last committed entry.");
    replica->metrics.elections = bop_metrics_counter(metrics, "bop_raft_elections_won_total", NULL,
                                                     "Elections this node won.");
    replica->metrics.proposals = bop_metrics_counter(metrics, "bop_replica_proposals_total", NULL,
                                                     "Commands submitted as leader.");
    replica->metrics.reads = bop_metrics_counter(metrics, "bop_replica_reads_total", NULL,
                                                 "Linearizable reads served.");
    replica->metrics.snapshots_taken = bop_metrics_counter(metrics, "bop_snapshots_taken_total",
                                                           NULL, "Snapshots written.");
    replica->metrics.digest_mismatches = bop_metrics_counter(
        metrics, "bop_state_mismatches_total", NULL,
        "Digests of another node's state that were not ours at that entry.");
    replica->metrics.snapshots_installed = bop_metrics_counter(
        metrics, "bop_snapshots_installed_total", NULL, "Snapshots installed from a peer.");
    replica->metrics.dropped_appends = bop_metrics_counter(
        metrics, "bop_replica_dropped_appends_total", NULL,
        "Appends dropped because the disk fell behind.");
    replica->metrics.apply_batch = bop_metrics_histogram(
        metrics, "bop_replica_apply_batch_entries", NULL, "Entries applied in one transaction.");
}

static void init(struct replica *replica, const struct replica_options *options)
{
    replica->options = *options;
    set_defaults(&replica->options);
    replica->allocator = bop_allocator_or_tag(options->allocator, "cluster.replica");
    replica->fs = replica->options.fs;
    bop__stoppable_fs_init(&replica->writing, replica->fs);
    replica->votes.fd = -1;
    bop_random_seed(&replica->random, replica->options.seed);
    /* No id of an earlier life of this node is met again: entries of it may still be applied. */
    replica->write_next = bop_random_next(&replica->random) >> 2;
    replica->write_oldest = replica->write_next;
    replica->now_ms = bop_clock_monotonic_ms(replica->options.clock);
    bop_list_init(&replica->reads_new);
    replica->reads_due_ms = UINT64_MAX;
    bop_list_init(&replica->read_batches);
    bop_list_init(&replica->admins.waiting);
    bop_buf_init(&replica->admins.out, replica->allocator, 0);
    bop__entry_cache_init(&replica->cache, replica->allocator, ENTRY_CACHE_MAX);
    bop_buf_init(&replica->scratch, replica->allocator, 0);
    bop_buf_init(&replica->log_scratch, replica->allocator, 0);
    bop_buf_init(&replica->results, replica->allocator, 0);
    bop_buf_init(&replica->events, replica->allocator, 0);
    bop_buf_init(&replica->proposals, replica->allocator, 0);
    bop_buf_init(&replica->submitting, replica->allocator, 0);
    bop_buf_init(&replica->taking.conf, replica->allocator, 0);
}

/* The first term, and the first entry of a new cluster: its servers. Every node makes the
 * same ones. The term goes first, for a log without one is refused; a start that was cut
 * in between finds a new directory with a log, and so writes the term again. */
static int bootstrap(struct replica *replica, struct bop_error *err)
{
    struct bop_raft_entry entry = {.term = 1, .type = BOP_RAFT_CHANGE};
    bool empty = replica->snapshot.raft.index == 0 &&
                 bop_aof_last(replica->aof) < bop_aof_first(replica->aof);
    int rc = 0;

    if (empty && replica->options.join) {
        return 0;
    }
    if (replica->votes.term == 0) {
        rc = bop__vote_file_save(&replica->votes, 1, 0);
    }
    if (rc == 0 && empty) {
        bop_buf_clear(&replica->scratch);
        rc = bop_raft_configuration_encode(replica->options.initial, &replica->scratch);
        if (rc == 0) {
            entry.data = bop_buf_slice(&replica->scratch);
            rc = bop__replica_log_append(replica, 1, &entry, 1);
        }
    }
    return rc < 0 ? bop_error_set(err, rc, "write the first entry") : 0;
}

/* Read the log's terms for the engine. The payload is needed of configurations only. */
static int read_entries(struct replica *replica, struct bop_raft_entry *entries, uint64_t first,
                        size_t count, struct bop_buf *configurations, struct bop_error *err)
{
    for (size_t n = 0; n < count; n++) {
        struct bop_raft_entry storage;
        const struct bop_raft_entry *entry = bop__replica_log_get(replica, first + n, &storage);

        if (!entry) {
            return bop_error_say(err, replica->failed, "%s", replica->failure);
        }
        entries[n] = *entry;
        entries[n].data = bop_slice(NULL, 0);
        if (entry->type == BOP_RAFT_CHANGE) {
            int rc = bop_buf_append(configurations, entry->data.data, entry->data.size);

            if (rc < 0) {
                return bop_error_set(err, rc, "read the configurations in the log");
            }
            /* The buffer may still move: the address is filled in below. */
            entries[n].data.size = entry->data.size;
        }
    }
    for (size_t n = 0, at = 0; n < count; n++) {
        if (entries[n].type == BOP_RAFT_CHANGE) {
            entries[n].data.data = configurations->data + at;
            at += entries[n].data.size;
        }
    }
    return 0;
}

/* True if this node is the only voter, by the newest configuration: it leads at once. */
static bool votes_alone(const struct replica *replica, const struct bop_raft_entry *entries,
                        size_t count)
{
    struct bop_raft_configuration conf = replica->snapshot.raft.conf;
    unsigned voters = 0;
    bool self = false;

    for (size_t n = count; n > 0; n--) {
        if (entries[n - 1].type == BOP_RAFT_CHANGE) {
            if (bop_raft_configuration_decode(entries[n - 1].data, &conf) < 0) {
                return false; /* Consensus will say so. */
            }
            break;
        }
    }
    for (unsigned n = 0; n < conf.count; n++) {
        voters += conf.servers[n].role == BOP_RAFT_VOTER;
        self = self || (conf.servers[n].role == BOP_RAFT_VOTER &&
                        conf.servers[n].id == replica->options.id);
    }
    return self && voters == 1;
}

/*
 * The only voter leads without an election, in the term it has. But standbys may have got
 * entries of that term which were lost here with the power, and others must not take
 * their place under the same term: a life of its own gets a term of its own.
 */
static int begin_term(struct replica *replica, struct bop_error *err)
{
    int rc = bop__vote_file_save(&replica->votes, replica->votes.term + 1, replica->options.id);

    return rc < 0 ? bop_error_set(err, rc, "begin a term") : 0;
}

/* The last configuration but one: it is committed, for only one at a time is not. Returns the
 * entry of the last one; 0: there is none. */
static uint64_t configuration_before(const struct replica *replica,
                                     const struct bop_raft_entry *entries, uint64_t first,
                                     size_t count, struct bop_raft_configuration *out_before)
{
    struct bop_raft_configuration last = replica->snapshot.raft.conf;
    uint64_t index = replica->snapshot.raft.conf_index;

    *out_before = (struct bop_raft_configuration){0};
    for (size_t n = 0; n < count; n++) {
        if (entries[n].type == BOP_RAFT_CHANGE && first + n > replica->snapshot.raft.index) {
            *out_before = last;
            index = first + n;
            if (bop_raft_configuration_decode(entries[n].data, &last) < 0) {
                last.count = 0; /* Consensus will say so. */
            }
        }
    }
    return index;
}

static int start_engine(struct replica *replica, struct bop_error *err)
{
    uint64_t first = bop_aof_first(replica->aof);
    size_t count = (size_t)(bop_aof_last(replica->aof) + 1 - first);
    size_t size = sizeof(struct bop_raft_entry);
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_START, .now_ms = replica->now_ms};
    struct bop_raft_entry *entries = bop_alloc_array(replica->allocator, count + 1, size);
    struct bop_raft_configuration before;
    struct bop_buf configurations;
    uint64_t conf_index;
    int rc = BOP_ENOMEM;

    bop_buf_init(&configurations, replica->allocator, 0);
    if (entries) {
        rc = read_entries(replica, entries, first, count, &configurations, err);
    } else {
        bop_error_set(err, rc, "list the %zu entries of the log", count);
    }
    if (rc == 0 && votes_alone(replica, entries, count)) {
        rc = begin_term(replica, err);
    }
    if (rc == 0) {
        conf_index = configuration_before(replica, entries, first, count, &before);
        replica->conf = before;
        event.start.term = replica->votes.term;
        event.start.vote = replica->votes.vote;
        event.start.snapshot = replica->snapshot.raft.index ? &replica->snapshot.raft : NULL;
        event.start.first_index = first;
        event.start.entries = entries;
        event.start.count = count;
        rc = bop__replica_step(replica, &event);
        bop__replica_members_started(replica, &before, conf_index);
        if (rc < 0) {
            bop_error_set(err, rc, "start consensus from %s: %s", replica->options.path,
                          bop_raft_last_error(replica->raft));
        }
    }
    bop_buf_deinit(&configurations);
    if (entries) {
        bop_free(replica->allocator, entries, (count + 1) * size);
    }
    return rc;
}

static int create_engine(struct replica *replica, struct bop_error *err)
{
    struct bop_raft_options options = {
        .allocator = replica->options.allocator,
        .id = replica->options.id,
        .address = replica->options.address,
        .seed = bop_random_next(&replica->random),
        .election_timeout_ms = replica->options.election_timeout_ms,
        .heartbeat_ms = replica->options.heartbeat_ms,
        .install_timeout_ms = 5000,
        .inflight_entries_max = replica->options.inflight_entries,
    };

    return bop_raft_create(replica->options.engine, &options, &replica->raft, err);
}

static int recover(struct replica *replica, struct bop_error *err)
{
    char path[PATH_MAX_BYTES];
    int rc = replica->options.state_path ? snprintf(replica->state_path, PATH_MAX_BYTES, "%s",
                                                    replica->options.state_path) < PATH_MAX_BYTES
                                               ? 0
                                               : -ENAMETOOLONG
                                         : bop__replica_path(replica, replica->state_path, "state");

    bop__replica_backups_open(replica);
    if (rc == 0) {
        rc = bop__replica_path(replica, path, "vote");
    }
    if (rc == 0) {
        rc = bop__vote_file_open(&replica->votes, replica->fs, path, replica->dir.fresh, err);
    }
    if (rc == 0) {
        rc = bop__replica_members_open(replica, err);
    }
    if (rc == 0) {
        rc = bop__replica_log_open(replica, err);
    }
    if (rc == 0) {
        rc = bop__replica_state_open(replica, replica->dir.state_whole, err);
    }
    if (rc == 0) {
        rc = bootstrap(replica, err);
    }
    if (rc == 0) {
        rc = create_engine(replica, err);
    }
    if (rc == 0) {
        rc = start_engine(replica, err);
    }
    if (rc == 0 && replica->dir.fresh) {
        rc = bop__data_dir_claim(replica->fs, replica->options.path, replica->options.id,
                                 replica->options.cluster, err);
    }
    return rc;
}

int bop__replica_open(const struct replica_options *options, struct replica **out_replica,
                      struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "cluster.replica");
    struct replica *replica = bop_alloc_zeroed(allocator, sizeof(*replica));
    struct bop_error ignored = {0};
    int rc;

    err = err ? err : &ignored;
    if (!replica) {
        return bop_error_set(err, BOP_ENOMEM, "open a replica");
    }
    init(replica, options);
    rc = allocate(replica);
    if (rc < 0) {
        replica->dir.lock_fd = -1;
        bop_error_set(err, rc, "open a replica");
    } else {
        rc = bop__data_dir_open(&replica->dir, replica->fs, replica->options.path,
                                replica->options.id, replica->options.cluster,
                                replica->options.boot_id, err);
    }
    if (rc == 0) {
        rc = recover(replica, err);
    }
    if (rc < 0 && replica->aof && bop_aof_busy(replica->aof)) {
        /* Tasks of the log are with its executor, so nothing can be freed now: go the
         * way of a replica that failed. */
        bop__replica_fail(replica, rc, "%s", err->message);
        *out_replica = replica;
        return 0;
    }
    if (rc < 0) {
        replica->failed = rc;
        bop__replica_close(replica);
        return rc;
    }
    register_metrics(replica);
    *out_replica = replica;
    return 0;
}

/* Sync what was not, so that the next start need not make the state anew. */
static void close_in_order(struct replica *replica)
{
    struct bop_error err = {0};

    if (replica->failed != 0 || !replica->machine) {
        return;
    }
    if (bop__replica_settle(replica) < 0 || bop__machine_sync(replica->machine, &err) < 0 ||
        bop__data_dir_mark(replica->fs, replica->options.path, DATA_DIR_CLEAN, &err) < 0) {
        bop_log(replica->options.log, BOP_LOG_WARN, "replica",
                "the state will be made anew at the next start of the system: %s", err.message);
    }
}

static void free_arrays(struct replica *replica)
{
    struct bop_allocator *allocator = replica->allocator;

    bop_free(allocator, replica->decode_entries, PEER_ENTRIES_MAX * sizeof(struct bop_raft_entry));
    bop_free(allocator, replica->log_views, LOG_READ_MAX * sizeof(struct bop_aof_view));
    bop_free(allocator, replica->result_list, APPLY_ENTRIES_MAX * sizeof(struct machine_result));
    bop_free(allocator, replica->writes, PENDING_WRITES_MAX * sizeof(struct replica_write *));
    bop_free(allocator, replica->submit_entries, PROPOSALS_MAX * sizeof(struct bop_raft_entry));
    bop_free(allocator, replica->log_records,
             replica->log_records_capacity * sizeof(struct bop_aof_record));
    bop_free(allocator, replica->strings, replica->strings_size);
}

void bop__replica_close(struct replica *replica)
{
    if (!replica) {
        return;
    }
    if (replica->writes) {
        bop__replica_requests_deinit(replica);
    }
    bop__replica_admins_deinit(replica);
    bop__replica_snapshot_deinit(replica);
    bop__replica_snapshot_give_up(replica);
    bop__replica_verify_deinit(replica);
    bop__replica_backups_deinit(replica);
    if (replica->options.events.on_release) {
        replica->options.events.on_release(replica->options.events.user);
    }
    close_in_order(replica);
    bop__machine_close(replica->machine);
    bop_raft_destroy(replica->raft);
    bop_aof_close(replica->aof);
    bop__vote_file_close(&replica->votes);
    bop__data_dir_close(&replica->dir, replica->fs);
    bop__entry_cache_deinit(&replica->cache);
    bop_buf_deinit(&replica->scratch);
    bop_buf_deinit(&replica->log_scratch);
    bop_buf_deinit(&replica->results);
    bop_buf_deinit(&replica->events);
    bop_buf_deinit(&replica->proposals);
    bop_buf_deinit(&replica->submitting);
    bop_buf_deinit(&replica->taking.conf);
    free_arrays(replica);
    bop_free(replica->allocator, replica, sizeof(*replica));
}

void bop__replica_stop(struct replica *replica)
{
    bop__stoppable_fs_stop(&replica->writing);
}

bool bop__replica_busy(const struct replica *replica)
{
    return bop_aof_busy(replica->aof) || (replica->taking.active && !replica->taking.resting) ||
           replica->verify.running || replica->removing.running ||
           bop__replica_backups_cutting(replica) || replica->install.phase == INSTALL_CHECKING ||
           replica->install.phase == INSTALL_LOADING;
}

/* ---- Turning ---- */

static void tell_durable(struct replica *replica)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_ENTRIES_PERSISTED,
                                   .now_ms = replica->now_ms,
                                   .persisted_index = replica->durable};

    if (replica->durable <= replica->durable_told || replica->status.installing) {
        return;
    }
    replica->durable_told = replica->durable;
    /* A failure is kept in the replica. */
    BOP_IGNORE(bop__replica_step(replica, &event));
}

/* Stop taking writes before the log finds no room. */
static void look_at_disk(struct replica *replica)
{
    struct bop_aof_status log;
    uint64_t free_bytes;
    int rc = replica->fs->free_bytes(replica->fs, replica->options.path, &free_bytes);
    bool low = rc == 0 && free_bytes < DISK_RESERVE;

    replica->disk_taken = 0;
    bop_aof_look_for_room(replica->aof);
    bop_aof_status(replica->aof, &log);
    replica->log_full = log.no_room;
    low |= log.no_room;
    if (low != replica->disk_low) {
        replica->disk_low = low;
        bop_log(replica->options.log, low ? BOP_LOG_ERROR : BOP_LOG_INFO, "disk",
                low ? "less than 32 MiB free under %s: no more writes until there is room"
                    : "room again under %s: writes are taken",
                replica->options.path);
    }
}

static void tick(struct replica *replica)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_TIME, .now_ms = replica->now_ms};

    if (replica->now_ms >= bop_raft_deadline_ms(replica->raft)) {
        /* A failure is kept in the replica. */
        BOP_IGNORE(bop__replica_step(replica, &event));
    }
    if (replica->disk_taken >= DISK_LOOK) {
        look_at_disk(replica);
    }
    if (replica->now_ms >= replica->housekeeping_ms) {
        replica->housekeeping_ms = replica->now_ms + HOUSEKEEPING_MS;
        look_at_disk(replica);
        bop__replica_catching_up_turn(replica);
        bop__replica_requests_housekeeping(replica);
        bop__replica_members_turn(replica);
        bop__replica_join_turn(replica);
        bop__replica_backups_turn(replica);
        bop_metric_set(replica->metrics.commit, (int64_t)replica->status.commit);
    }
}

void bop__replica_turn(struct replica *replica)
{
    replica->now_ms = bop_clock_monotonic_ms(replica->options.clock);
    if (replica->failed == 0) {
        tick(replica);
    }
    if (replica->failed == 0) {
        tell_durable(replica);
        bop__replica_admins_turn(replica);
        bop__replica_requests_turn(replica);
        bop__replica_apply(replica);
        bop__replica_reads_serve(replica);
        bop__replica_tell_commits(replica);
        bop__replica_snapshot_turn(replica);
        bop__replica_snapshot_send_on(replica);
    }
    if (replica->failed != 0 && !replica->failure_told) {
        replica->failure_told = true;
        replica->options.events.on_failed(replica->options.events.user, replica->failed,
                                          replica->failure);
    }
    BOP_ASSERT(replica->durable_told <= replica->durable);
}

uint64_t bop__replica_deadline_ms(const struct replica *replica)
{
    uint64_t deadline;

    if (replica->failed != 0) {
        return replica->failure_told ? UINT64_MAX : replica->now_ms;
    }
    deadline = bop_min_u64(bop_raft_deadline_ms(replica->raft), replica->housekeeping_ms);
    if (replica->apply_more) {
        return replica->now_ms;
    }
    deadline = bop_min_u64(deadline, bop__replica_snapshot_due_ms(replica));
    deadline = bop_min_u64(deadline, bop__replica_timers_due_ms(replica));
    if (replica->taking.resting) {
        deadline = bop_min_u64(deadline, replica->taking.rest_until_ms);
    }
    if (replica->batch.open) {
        deadline = bop_min_u64(deadline, replica->batch.due_ms);
    }
    if (replica->read_batch_count < READ_BATCHES_MAX) {
        deadline = bop_min_u64(deadline, replica->reads_due_ms);
    }
    return replica->apply_due_ms != 0 ? bop_min_u64(deadline, replica->apply_due_ms) : deadline;
}

uint64_t bop__replica_applied(const struct replica *replica)
{
    return replica->applied;
}

int bop__replica_failed(const struct replica *replica)
{
    return replica->failed;
}

bool bop__replica_transfer(struct replica *replica)
{
    return bop__replica_transfer_to(replica, 0) == 0;
}

/* ---- Looking in ---- */

struct machine *bop__replica_machine(struct replica *replica)
{
    return replica->machine;
}

void bop__replica_raft_status(const struct replica *replica, struct bop_raft_status *out_status)
{
    *out_status = replica->status;
}

void bop__replica_configuration(const struct replica *replica,
                                struct bop_raft_configuration *out_conf)
{
    *out_conf = replica->conf;
}

static struct bop_slice address_of(struct replica *replica, uint64_t id)
{
    for (unsigned n = 0; n < replica->conf.count; n++) {
        if (replica->conf.servers[n].id == id) {
            return bop__member_address(replica->conf.servers[n].address);
        }
    }
    return bop_slice(NULL, 0);
}

uint64_t bop__replica_leader(struct replica *replica, struct bop_slice *out_address)
{
    *out_address = address_of(replica, replica->status.leader);
    return replica->status.leader;
}

static const char *health(const struct replica *replica)
{
    if (replica->failed != 0) {
        return replica->failure;
    }
    if (replica->state_full || replica->disk_low) {
        return "no room on disk: free some";
    }
    if (replica->install.phase >= INSTALL_WAITING) {
        return "installing a snapshot";
    }
    if (replica->lost.index != 0) {
        return "the log lost entries: a leader has to send them again";
    }
    return replica->status.leader == 0 ? "no leader known" : "ok";
}

static void status_peer(struct replica *replica, const struct bop_raft_server *server,
                        struct bop_status_peer *out)
{
    const struct replica_peer *peer = bop__replica_peer(replica, server->id);
    bool self = server->id == replica->options.id;

    *out = (struct bop_status_peer){
        .id = server->id,
        .address = bop__member_address(server->address),
        .role = (uint8_t)server->role,
        .connected = self || (peer && peer->connected),
        .silent_ms = self                     ? 0
                     : peer && peer->heard_ms ? replica->now_ms - peer->heard_ms
                                              : UINT64_MAX,
        .match = self ? replica->durable : bop_raft_match_index(replica->raft, server->id),
    };
}

void bop__replica_status(struct replica *replica, struct bop_status_response *out)
{
    struct bop_aof_status log;

    bop_aof_status(replica->aof, &log);
    *out = (struct bop_status_response){
        .node = replica->options.id,
        .cluster = bop_slice_cstr(replica->options.cluster),
        .state = (uint8_t)replica->status.state,
        .term = replica->status.term,
        .leader = replica->status.leader,
        .commit = replica->status.commit,
        .applied = replica->applied,
        .first_index = bop_aof_first(replica->aof),
        .last_index = bop_aof_last(replica->aof),
        .durable_index = replica->durable,
        .snapshot_index = replica->snapshot.raft.index,
        .health = bop_slice_cstr(health(replica)),
        .log_method = bop_slice_cstr(log.method),
        .log_writes = log.writes,
        .log_writes_max = log.writes_max,
    };
    if (replica->machine) {
        out->sessions = bop__machine_session_count(replica->machine);
        out->applied_digest = bop__machine_position(replica->machine).digest;
    }
    for (unsigned n = 0; n < replica->conf.count && n < BOP_STATUS_PEERS_MAX; n++) {
        status_peer(replica, &replica->conf.servers[n], &out->peers[n]);
        out->peer_count++;
    }
}
