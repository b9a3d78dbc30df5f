/*
 * The engine on libraft's sans-I/O core: the table of functions. What the core
 * needs of us beyond what libraft's documentation says is in docs/design/raft.md.
 */
#include "engine_libraft.h"

#include <bop/mem.h>

#include <pthread.h>
#include <stdio.h>

#define ELECTION_TIMEOUT_MS  300
#define HEARTBEAT_MS         50
#define INSTALL_TIMEOUT_MS   600000
#define INFLIGHT_ENTRIES_MAX 65536

/* libraft.so does not export it, so it is there only where libraft was linked statically. */
extern __attribute__((weak)) int raft_version_number(void);

/* A shared one is at least found by its soname, which an old libraft does not have. */
static int libraft_version(void)
{
    return raft_version_number ? raft_version_number() : RAFT_VERSION_NUMBER;
}

int bop__libraft_check_version(int version, struct bop_error *err)
{
    if (version < LIBRAFT_VERSION_MIN) {
        return bop_error_say(err, BOP_EVERSION,
                             "libraft %d.%d.%d can lose data and lacks what is needed here: "
                             "install libraft 0.22.1 or later",
                             version / 10000, version / 100 % 100, version % 100);
    }
    return 0;
}

int bop__libraft_say(struct libraft *self, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(self->error, sizeof(self->error), format, args);
    va_end(args);
    return code;
}

/* ---- Creation ---- */

static int init_core(struct libraft *self, const struct bop_raft_options *options,
                     struct bop_error *err)
{
    /* raft_init() touches a tracer that all instances share. */
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int rv;

    pthread_mutex_lock(&lock);
    bop__libraft_heap_enter(&self->heap);
    rv = raft_init(&self->core, NULL, NULL, self->id,
                   options->address ? options->address : PEER_ADDRESS);
    bop__libraft_heap_leave(&self->heap);
    pthread_mutex_unlock(&lock);
    if (rv != 0) {
        return bop_error_set(err, BOP_ENOMEM, "create the consensus core");
    }
    /* Tracing formats every message and does so in a buffer that all threads share. */
    self->core.tracer = NULL;
    raft_seed(&self->core, (unsigned)(options->seed ^ options->seed >> 32));
    raft_set_election_timeout(&self->core, self->election_timeout_ms);
    raft_set_heartbeat_timeout(&self->core, self->heartbeat_ms);
    raft_set_install_snapshot_timeout(&self->core, options->install_timeout_ms
                                                       ? options->install_timeout_ms
                                                       : INSTALL_TIMEOUT_MS);
    raft_set_max_inflight_entries(&self->core, options->inflight_entries_max
                                                   ? options->inflight_entries_max
                                                   : INFLIGHT_ENTRIES_MAX);
    raft_set_pre_vote(&self->core, true);
    return 0;
}

static void libraft_destroy(struct bop_raft *raft)
{
    struct libraft *self = bop__libraft(raft);
    struct bop_allocator *allocator = self->allocator;
    size_t leaked;

    if (self->failed == 0 && self->core.address) {
        bop__libraft_heap_enter(&self->heap);
        raft_close(&self->core, NULL);
        bop__libraft_heap_leave(&self->heap);
        leaked = bop__libraft_heap_deinit(&self->heap);
        BOP_DEBUG_ASSERT(leaked == 0);
    } else {
        /* Its pointers cannot be trusted; its blocks can. */
        leaked = bop__libraft_heap_deinit(&self->heap);
    }
    (void)leaked;
    bop__read_index_deinit(&self->reads);
    bop__raft_outbox_deinit(&self->out);
    bop_buf_deinit(&self->change_data);
    bop_free(allocator, self->raw, self->raw_capacity * sizeof(*self->raw));
    bop_free(allocator, self->submitted, self->submitted_capacity * sizeof(*self->submitted));
    bop_free(allocator, self, sizeof(*self));
}

static int libraft_create(const struct bop_raft_options *options, struct bop_raft **out_raft,
                          struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "raft");
    unsigned election_timeout_ms = options->election_timeout_ms ? options->election_timeout_ms
                                                                : ELECTION_TIMEOUT_MS;
    unsigned heartbeat_ms = options->heartbeat_ms ? options->heartbeat_ms : HEARTBEAT_MS;
    struct libraft *self;
    int rc = bop__libraft_check_version(libraft_version(), err);

    if (rc != 0) {
        return rc;
    }
    if (options->id == 0 || heartbeat_ms >= election_timeout_ms) {
        return bop_error_say(err, BOP_EINVAL,
                             "a server needs an id above 0, and its heartbeat (%u ms) must be "
                             "shorter than its election timeout (%u ms)",
                             heartbeat_ms, election_timeout_ms);
    }
    self = bop_alloc_zeroed(allocator, sizeof(*self));
    if (!self) {
        return bop_error_set(err, BOP_ENOMEM, "create a consensus instance");
    }
    self->base.engine = bop_raft_engine_libraft();
    self->allocator = allocator;
    self->id = options->id;
    self->election_timeout_ms = election_timeout_ms;
    self->heartbeat_ms = heartbeat_ms;
    bop__libraft_heap_install();
    bop__libraft_heap_init(&self->heap, allocator);
    bop__libraft_heap_lend(&self->heap, 0, self, sizeof(*self));
    bop__raft_outbox_init(&self->out, allocator);
    bop__read_index_init(&self->reads, allocator, heartbeat_ms, election_timeout_ms, options->seed);
    bop_buf_init(&self->change_data, allocator, 0);
    rc = init_core(self, options, err);
    if (rc != 0) {
        libraft_destroy(&self->base);
        return rc;
    }
    *out_raft = &self->base;
    return 0;
}

/* ---- Steps ---- */

static int step_submit(struct libraft *self, const struct bop_raft_entry *entries, unsigned count)
{
    if (self->core.state != RAFT_LEADER) {
        return bop__libraft_say(self, BOP_ENOTLEADER, "submit: not the leader");
    }
    if (count == 0) {
        return bop__libraft_say(self, BOP_EINVAL, "submit: no entries");
    }
    if (count > self->submitted_capacity) {
        size_t capacity = (size_t)count * 2;
        struct bop_raft_entry *submitted = bop_alloc_array(self->allocator, capacity,
                                                           sizeof(*submitted));

        if (!submitted) {
            return bop__libraft_say(self, BOP_ENOMEM, "submit %u entries", count);
        }
        bop_free(self->allocator, self->submitted,
                 self->submitted_capacity * sizeof(*self->submitted));
        self->submitted = submitted;
        self->submitted_capacity = capacity;
    }
    for (unsigned i = 0; i < count; i++) {
        if (entries[i].type != BOP_RAFT_COMMAND) {
            return bop__libraft_say(self, BOP_EINVAL, "submit: entry %u is no command", i);
        }
        self->submitted[i] = entries[i];
        self->submitted[i].term = self->core.current_term;
    }
    return bop__libraft_submit(self, self->submitted, count);
}

/*
 * Rule b: rising, within the log, and of this log rather than of one that a
 * snapshot is about to replace. Anything else is a report that has been overtaken.
 */
static int step_persisted(struct libraft *self, uint64_t index)
{
    struct raft_event event = {.type = RAFT_PERSISTED_ENTRIES};

    if (self->core.snapshot.installing || self->core.state == RAFT_CANDIDATE ||
        index <= self->core.last_stored || index > raft_last_index(&self->core)) {
        return 0;
    }
    if (self->doubt) {
        self->held = bop_max_u64(self->held, index);
        return bop__libraft_settle(self);
    }
    event.persisted_entries.index = index;
    return bop__libraft_feed(self, &event);
}

static int step_time(struct libraft *self)
{
    struct raft_event event = {.type = RAFT_TIMEOUT};

    self->timed_ms = self->now_ms;
    bop__libraft_forget_leader(self);
    if (self->now_ms < raft_timeout(&self->core)) {
        return 0;
    }
    return bop__libraft_feed(self, &event);
}

static int step_read(struct libraft *self, uint64_t context)
{
    struct read_view view;
    int rc;

    bop__libraft_view(self, &view);
    rc = bop__read_index_ask(&self->reads, &view, context, &self->out);
    return rc == 0 ? 0 : bop__libraft_say(self, rc, "read: %s", bop_strerror(rc));
}

static int dispatch(struct libraft *self, const struct bop_raft_event *event)
{
    switch (event->type) {
    case BOP_RAFT_EVENT_START:
        return bop__libraft_start(self, event);
    case BOP_RAFT_EVENT_TIME:
        return step_time(self);
    case BOP_RAFT_EVENT_RECEIVE:
        return bop__libraft_receive(self, event->receive);
    case BOP_RAFT_EVENT_SUBMIT:
        return step_submit(self, event->submit.entries, event->submit.count);
    case BOP_RAFT_EVENT_CHANGE:
        return bop__libraft_change(self, event->change);
    case BOP_RAFT_EVENT_ENTRIES_PERSISTED:
        return step_persisted(self, event->persisted_index);
    case BOP_RAFT_EVENT_SNAPSHOT_TAKEN:
        return bop__libraft_snapshot_taken(self, event->taken.snapshot, event->taken.trailing);
    case BOP_RAFT_EVENT_SNAPSHOT_PERSISTED:
        return bop__libraft_snapshot_persisted(self, event->snapshot_persisted);
    case BOP_RAFT_EVENT_READ:
        return step_read(self, event->read_context);
    case BOP_RAFT_EVENT_TRANSFER:
        return bop__libraft_transfer(self, event->peer);
    case BOP_RAFT_EVENT_PEER_LOST:
        bop__libraft_peer_lost(self, event->peer);
        return 0;
    }
    return bop__libraft_say(self, BOP_EINVAL, "no such event: %d", (int)event->type);
}

/* What an update is measured against. */
struct before {
    uint64_t term;
    uint64_t vote;
    unsigned short state;
    uint64_t leader;
    uint64_t commit;
    uint64_t conf_index;
    uint64_t conf_term;
};

static void look(const struct libraft *self, struct before *out)
{
    const struct raft *core = &self->core;

    out->term = core->current_term;
    out->vote = core->voted_for;
    out->state = core->state;
    out->leader = bop__libraft_leader(self);
    out->commit = core->commit_index;
    out->conf_index = core->configuration_uncommitted_index ? core->configuration_uncommitted_index
                                                            : core->configuration_committed_index;
    out->conf_term = bop__libraft_term_of(core, out->conf_index);
}

static void fill_update(const struct libraft *self, const struct before *before,
                        struct bop_raft_update *out)
{
    struct before after;

    look(self, &after);
    out->hard_state = after.term != before->term || after.vote != before->vote;
    out->term = after.term;
    out->vote = after.vote;
    out->appends = self->out.appends;
    out->append_count = self->out.append_count;
    out->install = self->install ? &self->installing : NULL;
    out->messages = self->out.messages;
    out->message_count = self->out.message_count;
    out->state_changed = after.state != before->state || after.leader != before->leader;
    out->commit_changed = after.commit != before->commit;
    out->reads = self->out.reads;
    out->read_count = self->out.read_count;
    /* Index and term tell entries apart; a compacted term only makes us say it once too often. */
    out->configuration_changed = after.conf_index != before->conf_index ||
                                 after.conf_term != before->conf_term;
}

static bool is_refusal(int code)
{
    return code == BOP_ENOTLEADER || code == BOP_EBUSY || code == BOP_EINVAL;
}

static int libraft_step(struct bop_raft *raft, const struct bop_raft_event *event,
                        struct bop_raft_update *out_update)
{
    struct libraft *self = bop__libraft(raft);
    struct read_view view;
    struct before before;
    int rc;

    if (self->failed != 0) {
        return BOP_EFAILED;
    }
    if (self->started == (event->type == BOP_RAFT_EVENT_START)) {
        return bop__libraft_say(self, BOP_EINVAL, "START comes first of all, and once");
    }
    self->error[0] = '\0';
    self->install = false;
    self->now_ms = bop_max_u64(self->now_ms, event->now_ms);
    bop__raft_outbox_clear(&self->out);
    look(self, &before);
    if (event->type == BOP_RAFT_EVENT_START) {
        before.term = event->start.term;
        before.vote = event->start.vote;
    }

    rc = dispatch(self, event);
    if (rc == 0) {
        rc = bop__libraft_release(self);
    }
    if (rc == 0) {
        bop__libraft_view(self, &view);
        bop__read_index_turn(&self->reads, &view, &self->out);
    }
    if (rc == 0 && self->out.failed) {
        rc = bop__libraft_say(self, BOP_ENOMEM, "gather the update");
    }
    if (rc == 0) {
        fill_update(self, &before, out_update);
    } else if (!is_refusal(rc)) {
        self->failed = rc;
    }
    return rc;
}

/* ---- Questions ---- */

static uint64_t libraft_deadline_ms(const struct bop_raft *raft)
{
    struct libraft *self = bop__libraft(raft);
    uint64_t deadline;

    if (!self->started || self->failed != 0) {
        return UINT64_MAX;
    }
    deadline = raft_timeout(&self->core);
    if (deadline <= self->timed_ms) {
        /* The last TIME did what was due, so this is of a peer that gets nothing any more:
         * a voter turned spare, whose last heartbeat the core keeps counting from. */
        deadline = self->timed_ms + (self->heartbeat_ms + 1) / 2;
    }
    deadline = bop_min_u64(deadline, bop__libraft_forget_ms(self));
    return bop_min_u64(deadline, bop__read_index_deadline_ms(&self->reads));
}

static void libraft_status(const struct bop_raft *raft, struct bop_raft_status *out)
{
    struct libraft *self = bop__libraft(raft);

    memset(out, 0, sizeof(*out));
    out->dropped = self->dropped;
    if (!self->started || self->failed != 0) {
        out->state = BOP_RAFT_UNAVAILABLE;
        return;
    }
    out->state = (enum bop_raft_state)self->core.state;
    out->term = self->core.current_term;
    out->vote = self->core.voted_for;
    out->leader = bop__libraft_leader(self);
    out->commit = self->core.commit_index;
    out->last_index = raft_last_index(&self->core);
    out->snapshot_index = self->core.trail.snapshot.index;
    out->installing = self->core.snapshot.installing;
    out->ready = bop__libraft_ready(self);
    out->changing = self->core.configuration_uncommitted_index != 0;
}

static void libraft_configuration(const struct bop_raft *raft,
                                  struct bop_raft_configuration *out_conf,
                                  uint64_t *out_committed_index)
{
    const struct libraft *self = bop__libraft(raft);

    out_conf->count = 0;
    if (self->failed == 0) {
        bop__libraft_read_configuration(&self->core.configuration, out_conf);
    }
    if (out_committed_index) {
        *out_committed_index = self->core.configuration_committed_index;
    }
}

static uint64_t libraft_match_index(const struct bop_raft *raft, uint64_t peer)
{
    const struct libraft *self = bop__libraft(raft);

    return self->failed != 0 || self->core.state != RAFT_LEADER ? 0
                                                                : bop__libraft_match(self, peer);
}

static int libraft_tune(struct bop_raft *raft, const struct bop_raft_options *options)
{
    struct libraft *self = bop__libraft(raft);

    if (options->heartbeat_ms == 0 || options->heartbeat_ms >= options->election_timeout_ms ||
        options->inflight_entries_max == 0) {
        return BOP_EINVAL;
    }
    self->election_timeout_ms = options->election_timeout_ms;
    self->heartbeat_ms = options->heartbeat_ms;
    raft_set_election_timeout(&self->core, options->election_timeout_ms);
    raft_set_heartbeat_timeout(&self->core, options->heartbeat_ms);
    raft_set_max_inflight_entries(&self->core, options->inflight_entries_max);
    bop__read_index_tune(&self->reads, options->heartbeat_ms, options->election_timeout_ms);
    return 0;
}

static const char *libraft_last_error(const struct bop_raft *raft)
{
    return bop__libraft(raft)->error;
}

const struct bop_raft_engine *bop_raft_engine_libraft(void)
{
    static const struct bop_raft_engine engine = {
        .name = "libraft",
        .create = libraft_create,
        .destroy = libraft_destroy,
        .step = libraft_step,
        .deadline_ms = libraft_deadline_ms,
        .status = libraft_status,
        .configuration = libraft_configuration,
        .match_index = libraft_match_index,
        .last_error = libraft_last_error,
        .tune = libraft_tune,
    };

    return &engine;
}
