/*
 * etcd's raft behind the table of an engine. See engine_etcd.h.
 */
#include "engine_etcd.h"

#include <bop/mem.h>

#include <stdio.h>

#define ELECTION_TIMEOUT_MS 300
#define HEARTBEAT_MS        50
#define INSTALL_TIMEOUT_MS  600000

int bop__etcd_say(struct etcd_engine *self, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(self->error, sizeof(self->error), format, args);
    va_end(args);
    return code;
}

int bop__etcd_fail(struct etcd_engine *self)
{
    char text[ETCD_ERROR_MAX];

    bop_etcd_failure(self->core, text);
    return bop__etcd_say(self, BOP_ECORRUPT, "etcd: %s", text);
}

static int said(struct etcd_engine *self, int result)
{
    return result == 0 ? 0 : bop__etcd_fail(self);
}

/* ---- How it stands ---- */

static bool is_leader(const struct etcd_engine *self)
{
    return self->ready.state == ETCD_LEADER;
}

static bool is_voter(const struct etcd_engine *self, uint64_t id)
{
    for (uint32_t i = 0; i < self->ready.members.voter_count; i++) {
        if (self->ready.members.voters[i] == id) {
            return true;
        }
    }
    return false;
}

static enum bop_raft_state state_of(const struct etcd_engine *self)
{
    switch (self->ready.state) {
    case ETCD_LEADER:
        return BOP_RAFT_LEADER;
    case ETCD_FOLLOWER:
        return BOP_RAFT_FOLLOWER;
    default:
        return BOP_RAFT_CANDIDATE;
    }
}

/* Who has no vote never stands for election, and would believe in a dead leader for ever. */
static uint64_t forget_ms(const struct etcd_engine *self)
{
    if (self->ready.state != ETCD_FOLLOWER || self->ready.leader == 0 || is_voter(self, self->id)) {
        return UINT64_MAX;
    }
    return self->heard_ms + UINT64_C(2) * self->election_timeout_ms;
}

static uint64_t leader_of(const struct etcd_engine *self)
{
    return self->now_ms >= forget_ms(self) ? 0 : self->ready.leader;
}

static bool is_ready(const struct etcd_engine *self)
{
    return is_leader(self) && self->ready.commit >= self->ready_index;
}

static void view_of(const struct etcd_engine *self, struct read_view *out)
{
    out->now_ms = self->now_ms;
    out->self = self->id;
    out->state = state_of(self);
    out->term = self->ready.term;
    out->leader = leader_of(self);
    out->ready = is_ready(self);
    out->commit = self->ready.commit;
    out->voter_count = self->ready.members.voter_count;
    memcpy(out->voters, self->ready.members.voters, sizeof(out->voters));
}

/* The newest configuration, committed or not; NULL: none is known. */
static const struct etcd_change *newest(const struct etcd_engine *self)
{
    return bop__etcd_change_at(self, UINT64_MAX);
}

/* ---- Creation ---- */

static void etcd_destroy(struct bop_raft *raft)
{
    struct etcd_engine *self = bop__etcd(raft);
    struct bop_allocator *allocator = self->allocator;

    if (self->core != 0) {
        bop_etcd_destroy(self->core);
    }
    bop__read_index_deinit(&self->reads);
    bop__raft_outbox_deinit(&self->out);
    bop_buf_deinit(&self->change_data);
    bop_free(allocator, self->changes, self->change_capacity * sizeof(*self->changes));
    bop_free(allocator, self->submitted, self->submitted_capacity * sizeof(*self->submitted));
    bop_free(allocator, self, sizeof(*self));
}

static int etcd_create(const struct bop_raft_options *options, struct bop_raft **out_raft,
                       struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "raft");
    struct etcd_engine *self = bop_alloc_zeroed(allocator, sizeof(*self));

    if (!self) {
        return bop_error_set(err, BOP_ENOMEM, "create a consensus instance");
    }
    self->base.engine = bop_raft_engine_etcd();
    self->allocator = allocator;
    self->id = options->id;
    self->election_timeout_ms = options->election_timeout_ms ? options->election_timeout_ms
                                                             : ELECTION_TIMEOUT_MS;
    self->heartbeat_ms = options->heartbeat_ms ? options->heartbeat_ms : HEARTBEAT_MS;
    self->install_timeout_ms = options->install_timeout_ms ? options->install_timeout_ms
                                                           : INSTALL_TIMEOUT_MS;
    bop_random_seed(&self->random, options->seed);
    bop__raft_outbox_init(&self->out, allocator);
    bop__read_index_init(&self->reads, allocator, self->heartbeat_ms, self->election_timeout_ms,
                         options->seed);
    bop_buf_init(&self->change_data, allocator, 0);
    *out_raft = &self->base;
    return 0;
}

/* ---- START ---- */

/* etcd keeps the commit index on disk, to know which configurations are in force after a start.
 * We do not. But a change is begun only when the one before it is committed. */
static uint64_t known_commit(const struct etcd_engine *self, const struct bop_raft_event *event)
{
    /* Of a log from the beginning, the servers that founded the cluster. */
    uint64_t commit = event->start.snapshot ? event->start.snapshot->index : event->start.count > 0;

    if (self->change_count > 1) {
        commit = bop_max_u64(commit, self->changes[self->change_count - 2].index);
    }
    return commit;
}

static int start_changes(struct etcd_engine *self, const struct bop_raft_event *event)
{
    const struct bop_raft_snapshot *snapshot = event->start.snapshot;
    uint64_t first = event->start.first_index;
    size_t skip = 0;
    int rc = 0;

    if (snapshot) {
        self->snapshot = *snapshot;
        rc = bop__etcd_changes_reset(self, snapshot->conf_index, &snapshot->conf);
        skip = first <= snapshot->index ? (size_t)(snapshot->index + 1 - first) : 0;
    }
    if (rc == 0 && event->start.count > skip) {
        rc = bop__etcd_changes_append(self, first + skip, event->start.entries + skip,
                                      event->start.count - skip);
    }
    return rc;
}

/* The first entry is what etcd's log goes on from, unless that is the snapshot or nothing. */
static size_t start_base(const struct bop_raft_event *event, struct etcd_start *start)
{
    const struct bop_raft_snapshot *snapshot = event->start.snapshot;

    if (snapshot) {
        start->snapshot_index = start->base_index = snapshot->index;
        start->snapshot_term = start->base_term = snapshot->term;
    }
    if (!snapshot || event->start.count == 0 || event->start.first_index > snapshot->index) {
        return 0;
    }
    start->base_index = event->start.first_index;
    start->base_term = event->start.entries[0].term;
    return 1;
}

static int start_core(struct etcd_engine *self, const struct bop_raft_event *event)
{
    struct etcd_start start = {
        .id = self->id,
        .term = event->start.term,
        .vote = event->start.vote,
        .commit = known_commit(self, event),
        .election_ticks = (uint32_t)bop_max_u64(2, self->election_timeout_ms / self->heartbeat_ms)};
    const struct etcd_change *change = bop__etcd_change_at(self, start.commit);
    size_t skip = start_base(event, &start);
    struct etcd_entries entries;
    char text[ETCD_ERROR_MAX];
    int rc;

    if (change) {
        bop__etcd_members(&change->conf, &start.members);
    }
    rc = bop__etcd_entries(self, skip > 0 ? event->start.entries + skip : event->start.entries,
                           event->start.count - skip, &entries);
    if (rc != 0) {
        return bop__etcd_say(self, rc, "start: %s", bop_strerror(rc));
    }
    if (bop_etcd_create(&start, &entries, &self->core, text) != 0) {
        rc = bop__etcd_say(self, BOP_EINVAL, "start: etcd: %s", text);
    }
    bop__etcd_entries_free(self, &entries);
    return rc;
}

static void put_off_election(struct etcd_engine *self)
{
    self->election_ms = self->now_ms + self->election_timeout_ms +
                        bop_random_below(&self->random, self->election_timeout_ms);
}

static int step_start(struct etcd_engine *self, const struct bop_raft_event *event)
{
    int rc = start_changes(self, event);

    if (rc != 0) {
        return bop__etcd_say(self, rc, "start: %s", bop_strerror(rc));
    }
    rc = start_core(self, event);
    if (rc != 0) {
        return rc;
    }
    self->tick_ms = self->now_ms + self->heartbeat_ms;
    self->heard_ms = self->now_ms;
    put_off_election(self);
    rc = said(self, bop_etcd_collect(self->core, &self->ready));
    if (rc == 0 && self->ready.members.voter_count == 1 && is_voter(self, self->id)) {
        rc = said(self, bop_etcd_campaign(self->core)); /* There is nobody to wait for. */
    }
    return rc;
}

/* ---- Events ---- */

static int step_time(struct etcd_engine *self)
{
    int rc = 0;

    if (self->now_ms >= self->tick_ms) {
        self->tick_ms = self->now_ms + self->heartbeat_ms;
        rc = said(self, bop_etcd_time(self->core, self->install_timeout_ms / self->heartbeat_ms));
    }
    if (rc == 0 && !is_leader(self) && self->now_ms >= self->election_ms) {
        put_off_election(self);
        if (is_voter(self, self->id) && self->installing.index == 0) {
            rc = said(self, bop_etcd_campaign(self->core));
        }
    }
    return rc;
}

static int step_receive(struct etcd_engine *self, const struct bop_raft_message *message)
{
    struct read_view view;

    switch (message->type) {
    case BOP_RAFT_READ_PROBE:
    case BOP_RAFT_READ_PROBE_RESULT:
    case BOP_RAFT_READ_REQUEST:
    case BOP_RAFT_READ_RESULT:
        view_of(self, &view);
        bop__read_index_receive(&self->reads, &view, message, &self->out);
        return 0;
    default:
        return bop__etcd_receive(self, message);
    }
}

static int propose(struct etcd_engine *self, const struct bop_raft_entry *entries, unsigned count)
{
    struct etcd_entries list;
    int rc;

    self->source = entries;
    self->source_index = self->ready.last_index + 1;
    self->source_count = count;
    rc = bop__etcd_entries(self, entries, count, &list);
    if (rc != 0) {
        return bop__etcd_say(self, rc, "propose %u entries", count);
    }
    rc = bop_etcd_propose(self->core, &list);
    bop__etcd_entries_free(self, &list);
    return rc > 0 ? bop__etcd_say(self, BOP_ENOTLEADER, "etcd drops it") : said(self, rc);
}

static bool may_propose(const struct etcd_engine *self)
{
    return is_leader(self) && self->ready.transferee == 0;
}

static int step_submit(struct etcd_engine *self, const struct bop_raft_entry *entries,
                       unsigned count)
{
    size_t size = sizeof(*self->submitted);

    if (!may_propose(self)) {
        return bop__etcd_say(self, BOP_ENOTLEADER, "submit: not the leader");
    }
    if (count == 0) {
        return bop__etcd_say(self, BOP_EINVAL, "submit: no entries");
    }
    if (count > self->submitted_capacity) {
        struct bop_raft_entry *submitted = bop_realloc(
            self->allocator, self->submitted, self->submitted_capacity * size, count * size);

        if (!submitted) {
            return bop__etcd_say(self, BOP_ENOMEM, "submit %u entries", count);
        }
        self->submitted = submitted;
        self->submitted_capacity = count;
    }
    for (unsigned i = 0; i < count; i++) {
        if (entries[i].type != BOP_RAFT_COMMAND) {
            return bop__etcd_say(self, BOP_EINVAL, "submit: entry %u is no command", i);
        }
        self->submitted[i] = entries[i];
        self->submitted[i].term = self->ready.term;
    }
    return propose(self, self->submitted, count);
}

static int step_change(struct etcd_engine *self, const struct bop_raft_configuration *conf)
{
    const struct etcd_change *now = newest(self);
    struct bop_raft_configuration ordered;
    struct bop_raft_entry change = {.term = self->ready.term, .type = BOP_RAFT_CHANGE};
    int rc;

    if (!may_propose(self)) {
        return bop__etcd_say(self, BOP_ENOTLEADER, "change: not the leader");
    }
    if (!bop__raft_configuration_valid(conf) || bop__raft_configuration_voters(conf) == 0) {
        return bop__etcd_say(self, BOP_EINVAL, "change: no valid configuration with a voter");
    }
    if (!is_ready(self) || !now || now->index > self->ready.commit) {
        return bop__etcd_say(self, BOP_EBUSY, "change: another one, or this term, is not settled");
    }
    if (bop__raft_configuration_difference(&now->conf, conf, &ordered) != 1) {
        return bop__etcd_say(self, BOP_EINVAL, "change: not of exactly one server");
    }
    bop_buf_clear(&self->change_data);
    rc = bop_raft_configuration_encode(&ordered, &self->change_data);
    if (rc != 0) {
        return bop__etcd_say(self, rc, "change: encode the configuration");
    }
    change.data = bop_buf_slice(&self->change_data);
    self->barrier = change;
    return propose(self, &self->barrier, 1);
}

static int step_taken(struct etcd_engine *self, const struct bop_raft_snapshot *snapshot,
                      uint64_t trailing)
{
    if (self->installing.index > 0) {
        return bop__etcd_say(self, BOP_EBUSY, "snapshot taken: another is being installed");
    }
    if (snapshot->index < 2 || snapshot->index <= self->snapshot.index ||
        snapshot->index > self->ready.commit || snapshot->index > self->ready.durable) {
        return bop__etcd_say(self, BOP_EINVAL,
                             "snapshot taken: %llu is old or 1, or not committed and durable",
                             (unsigned long long)snapshot->index);
    }
    self->snapshot = *snapshot;
    return said(self, bop_etcd_compact(self->core, snapshot->index, trailing));
}

static int step_installed(struct etcd_engine *self, const struct bop_raft_snapshot *snapshot)
{
    int rc;

    if (self->installing.index == 0 || snapshot->index != self->installing.index ||
        snapshot->term != self->installing.term) {
        return bop__etcd_say(self, BOP_EINVAL, "snapshot persisted: it is not being installed");
    }
    self->snapshot = self->installing;
    self->installing.index = 0;
    rc = bop__etcd_changes_reset(self, self->snapshot.conf_index, &self->snapshot.conf);
    return rc != 0 ? bop__etcd_say(self, rc, "snapshot persisted: no memory")
                   : said(self, bop_etcd_installed(self->core));
}

static int step_read(struct etcd_engine *self, uint64_t context)
{
    struct read_view view;
    int rc;

    view_of(self, &view);
    rc = bop__read_index_ask(&self->reads, &view, context, &self->out);
    return rc == 0 ? 0 : bop__etcd_say(self, rc, "read: %s", bop_strerror(rc));
}

/* The voter with the longest log; 0: there is none. */
static uint64_t best_successor(const struct etcd_engine *self)
{
    const struct etcd_progress *best = NULL;

    for (uint32_t i = 0; i < self->ready.progress_count; i++) {
        const struct etcd_progress *progress = &self->ready.progress[i];

        if (progress->id != self->id && is_voter(self, progress->id) &&
            (!best || progress->match > best->match)) {
            best = progress;
        }
    }
    return best ? best->id : 0;
}

static int step_transfer(struct etcd_engine *self, uint64_t peer)
{
    if (!is_leader(self)) {
        return bop__etcd_say(self, BOP_ENOTLEADER, "transfer: not the leader");
    }
    if (self->ready.transferee != 0) {
        return bop__etcd_say(self, BOP_EBUSY, "transfer: another one is under way");
    }
    if (peer == 0) {
        peer = best_successor(self);
    }
    if (peer == self->id || !is_voter(self, peer)) {
        return bop__etcd_say(self, BOP_EINVAL, "transfer: no other voter");
    }
    return said(self, bop_etcd_transfer(self->core, peer));
}

static int dispatch(struct etcd_engine *self, const struct bop_raft_event *event)
{
    switch (event->type) {
    case BOP_RAFT_EVENT_START:
        return step_start(self, event);
    case BOP_RAFT_EVENT_TIME:
        return step_time(self);
    case BOP_RAFT_EVENT_RECEIVE:
        return step_receive(self, event->receive);
    case BOP_RAFT_EVENT_SUBMIT:
        return step_submit(self, event->submit.entries, event->submit.count);
    case BOP_RAFT_EVENT_CHANGE:
        return step_change(self, event->change);
    case BOP_RAFT_EVENT_ENTRIES_PERSISTED:
        return said(self, bop_etcd_persisted(self->core, bop_min_u64(event->persisted_index,
                                                                     self->ready.last_index)));
    case BOP_RAFT_EVENT_SNAPSHOT_TAKEN:
        return step_taken(self, event->taken.snapshot, event->taken.trailing);
    case BOP_RAFT_EVENT_SNAPSHOT_PERSISTED:
        return step_installed(self, event->snapshot_persisted);
    case BOP_RAFT_EVENT_READ:
        return step_read(self, event->read_context);
    case BOP_RAFT_EVENT_TRANSFER:
        return step_transfer(self, event->peer);
    case BOP_RAFT_EVENT_PEER_LOST:
        return is_leader(self) ? said(self, bop_etcd_lost(self->core, event->peer)) : 0;
    }
    return bop__etcd_say(self, BOP_EINVAL, "no such event: %d", (int)event->type);
}

/* ---- What came of it ---- */

/* What an update is measured against. */
struct before {
    uint64_t term;
    uint64_t vote;
    uint32_t state;
    uint64_t leader;
    uint64_t commit;
    uint64_t conf_index;
};

static void look(const struct etcd_engine *self, struct before *out)
{
    const struct etcd_change *change = newest(self);

    *out = (struct before){.term = self->ready.term,
                           .vote = self->ready.vote,
                           .state = self->ready.state,
                           .leader = self->ready.leader,
                           .commit = self->ready.commit,
                           .conf_index = change ? change->index : 0};
}

/* The core has appended: from what we fed to it, or a new leader's empty entry. */
static int gather_append(struct etcd_engine *self)
{
    const struct etcd_ready *ready = &self->ready;
    const struct bop_raft_entry *entries = &self->barrier;
    int rc;

    if (ready->append_count == 0) {
        return 0;
    }
    if (self->source && ready->append_index >= self->source_index) {
        uint64_t skip = ready->append_index - self->source_index;

        BOP_ASSERT(skip + ready->append_count <= self->source_count);
        entries = self->source + skip;
    } else {
        BOP_ASSERT(ready->append_count == 1 && is_leader(self));
        self->barrier = (struct bop_raft_entry){.term = ready->term, .type = BOP_RAFT_BARRIER};
        self->ready_index = ready->append_index;
    }
    BOP_ASSERT(entries[0].term == ready->append_term_first &&
               entries[ready->append_count - 1].term == ready->append_term_last);
    bop__raft_outbox_append(&self->out, ready->append_index, entries, ready->append_count);
    rc = bop__etcd_changes_append(self, ready->append_index, entries, ready->append_count);
    return rc == 0 ? 0 : bop__etcd_say(self, rc, "note a configuration");
}

static int gather(struct etcd_engine *self)
{
    int rc = said(self, bop_etcd_collect(self->core, &self->ready));

    if (rc == 0) {
        rc = gather_append(self);
    }
    if (rc == 0 && self->ready.install_index > 0) {
        BOP_ASSERT(self->ready.install_index == self->incoming.index &&
                   self->ready.install_term == self->incoming.term);
        self->installing = self->incoming;
    }
    if (rc == 0) {
        bop__etcd_changes_settle(self, self->ready.commit);
        bop__etcd_put_messages(self);
    }
    return rc;
}

static void note_contact(struct etcd_engine *self, const struct bop_raft_event *event,
                         const struct before *before)
{
    bool led = event->type == BOP_RAFT_EVENT_RECEIVE && self->ready.state == ETCD_FOLLOWER &&
               event->receive->peer == self->ready.leader &&
               (event->receive->type == BOP_RAFT_APPEND ||
                event->receive->type == BOP_RAFT_INSTALL);
    bool voted = self->ready.vote != 0 && self->ready.vote != self->id &&
                 (self->ready.vote != before->vote || self->ready.term != before->term);
    bool fell = self->ready.state == ETCD_FOLLOWER && before->state != ETCD_FOLLOWER;

    if (led) {
        self->heard_ms = self->now_ms;
    }
    if (led || voted || fell) {
        put_off_election(self);
    }
}

static void fill_update(const struct etcd_engine *self, const struct before *before,
                        struct bop_raft_update *out)
{
    struct before after;

    look(self, &after);
    out->hard_state = after.term != before->term || after.vote != before->vote;
    out->term = after.term;
    out->vote = after.vote;
    out->appends = self->out.appends;
    out->append_count = self->out.append_count;
    out->install = self->ready.install_index > 0 ? &self->installing : NULL;
    out->messages = self->out.messages;
    out->message_count = self->out.message_count;
    out->state_changed = after.state != before->state || after.leader != before->leader ||
                         self->now_ms >= forget_ms(self);
    out->commit_changed = after.commit != before->commit;
    out->reads = self->out.reads;
    out->read_count = self->out.read_count;
    /* A truncation may put another one in its place: then it is said once too often. */
    out->configuration_changed = after.conf_index != before->conf_index ||
                                 (self->ready.append_count > 0 &&
                                  self->ready.append_index <= after.conf_index);
}

static bool is_refusal(int code)
{
    return code == BOP_ENOTLEADER || code == BOP_EBUSY || code == BOP_EINVAL;
}

static void begin(struct etcd_engine *self, const struct bop_raft_event *event,
                  struct before *out_before)
{
    self->error[0] = '\0';
    self->now_ms = bop_max_u64(self->now_ms, event->now_ms);
    self->source = NULL;
    bop__raft_outbox_clear(&self->out);
    look(self, out_before);
    if (event->type == BOP_RAFT_EVENT_START) {
        out_before->term = event->start.term;
        out_before->vote = event->start.vote;
    }
}

static int etcd_step(struct bop_raft *raft, const struct bop_raft_event *event,
                     struct bop_raft_update *out_update)
{
    struct etcd_engine *self = bop__etcd(raft);
    struct read_view view;
    struct before before;
    int rc;

    if (self->failed != 0) {
        return BOP_EFAILED;
    }
    if ((self->core != 0) == (event->type == BOP_RAFT_EVENT_START)) {
        return bop__etcd_say(self, BOP_EINVAL, "START comes first of all, and once");
    }
    begin(self, event, &before);
    rc = dispatch(self, event);
    if (rc == 0) {
        rc = gather(self);
    }
    if (rc == 0) {
        note_contact(self, event, &before);
        view_of(self, &view);
        bop__read_index_turn(&self->reads, &view, &self->out);
        fill_update(self, &before, out_update);
        if (self->out.failed) {
            rc = bop__etcd_say(self, BOP_ENOMEM, "gather the update");
        }
    }
    if (rc != 0 && !is_refusal(rc)) {
        self->failed = rc;
    }
    return rc;
}

/* ---- Questions ---- */

static uint64_t etcd_deadline_ms(const struct bop_raft *raft)
{
    const struct etcd_engine *self = bop__etcd(raft);
    uint64_t deadline = self->tick_ms;

    if (self->core == 0 || self->failed != 0) {
        return UINT64_MAX;
    }
    if (!is_leader(self)) {
        deadline = bop_min_u64(deadline, self->election_ms);
    }
    return bop_min_u64(deadline, bop__read_index_deadline_ms(&self->reads));
}

static void etcd_status(const struct bop_raft *raft, struct bop_raft_status *out)
{
    const struct etcd_engine *self = bop__etcd(raft);
    const struct etcd_change *change = newest(self);

    memset(out, 0, sizeof(*out));
    out->dropped = self->dropped;
    if (self->core == 0 || self->failed != 0) {
        return;
    }
    out->state = state_of(self);
    out->term = self->ready.term;
    out->vote = self->ready.vote;
    out->leader = leader_of(self);
    out->commit = self->ready.commit;
    out->last_index = self->ready.last_index;
    out->snapshot_index = self->snapshot.index;
    out->installing = self->installing.index > 0;
    out->ready = is_ready(self);
    out->changing = change && change->index > self->ready.commit;
}

static void etcd_configuration(const struct bop_raft *raft, struct bop_raft_configuration *out_conf,
                               uint64_t *out_committed_index)
{
    const struct etcd_engine *self = bop__etcd(raft);
    const struct etcd_change *change = newest(self);
    const struct etcd_change *committed = bop__etcd_change_at(self, self->ready.commit);

    out_conf->count = 0;
    if (change) {
        *out_conf = change->conf;
    }
    if (out_committed_index) {
        *out_committed_index = committed ? committed->index : 0;
    }
}

static uint64_t etcd_match_index(const struct bop_raft *raft, uint64_t peer)
{
    const struct etcd_engine *self = bop__etcd(raft);

    if (!is_leader(self) || peer == self->id) {
        return is_leader(self) ? self->ready.durable : 0;
    }
    for (uint32_t i = 0; i < self->ready.progress_count; i++) {
        if (self->ready.progress[i].id == peer) {
            return self->ready.progress[i].match;
        }
    }
    return 0;
}

static const char *etcd_last_error(const struct bop_raft *raft)
{
    return bop__etcd(raft)->error;
}

const struct bop_raft_engine *bop_raft_engine_etcd(void)
{
    static const struct bop_raft_engine engine = {
        .name = "etcd",
        .create = etcd_create,
        .destroy = etcd_destroy,
        .step = etcd_step,
        .deadline_ms = etcd_deadline_ms,
        .status = etcd_status,
        .configuration = etcd_configuration,
        .match_index = etcd_match_index,
        .last_error = etcd_last_error,
    };

    return &engine;
}
