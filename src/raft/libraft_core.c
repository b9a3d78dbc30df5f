/*
 * One call of raft_step() and what must follow from it at once.
 *
 *   - A configuration that the core knows to be committed is fed back before
 *     anything else (rule g): until then the core believes the one before it to
 *     be the committed one and would roll back to that. While a snapshot is being
 *     installed nothing is fed back: what the core then holds as uncommitted may
 *     be of the log that the snapshot replaces.
 *   - A new leader appends a barrier, unless the core did so by itself, which it
 *     does only if it has uncommitted entries. Reads and configuration changes
 *     wait for it.
 */
#include "engine_libraft.h"

#include <stdio.h>

static int code_of(int rv)
{
    switch (rv) {
    case RAFT_NOTLEADER:
        return BOP_ENOTLEADER;
    case RAFT_CANTCHANGE:
        return BOP_EBUSY;
    case RAFT_BADID:
    case RAFT_NOTFOUND:
        return BOP_EINVAL;
    case RAFT_NOMEM:
        return BOP_ENOMEM;
    case RAFT_SHUTDOWN:
        return BOP_ECORRUPT;
    default:
        return BOP_EFAILED;
    }
}

struct raft_server *bop__libraft_server(struct libraft *self, uint64_t id)
{
    for (unsigned i = 0; i < self->core.configuration.n; i++) {
        if (self->core.configuration.servers[i].id == id) {
            return &self->core.configuration.servers[i];
        }
    }
    return NULL;
}

void bop__libraft_forget_strangers(struct libraft *self)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < self->peer_count; i++) {
        if (bop__libraft_server(self, self->peers[i].id)) {
            self->peers[kept++] = self->peers[i];
        }
    }
    self->peer_count = kept;
}

struct libraft_peer *bop__libraft_peer(struct libraft *self, uint64_t id)
{
    struct libraft_peer *peer;

    for (unsigned i = 0; i < self->peer_count; i++) {
        if (self->peers[i].id == id) {
            return &self->peers[i];
        }
    }
    if (!bop__libraft_server(self, id)) {
        return NULL;
    }
    if (self->peer_count == BOP_RAFT_SERVERS_MAX) {
        bop__libraft_forget_strangers(self);
    }
    /* The configuration holds SERVERS_MAX at most, and this one had no record yet. */
    BOP_ASSERT(self->peer_count < BOP_RAFT_SERVERS_MAX);
    peer = &self->peers[self->peer_count++];
    *peer = (struct libraft_peer){.id = id, .heard_ms = self->now_ms};
    return peer;
}

bool bop__libraft_ready(const struct libraft *self)
{
    return self->core.state == RAFT_LEADER && self->led_term == self->core.current_term &&
           self->core.commit_index >= self->ready_index;
}

uint64_t bop__libraft_leader(const struct libraft *self)
{
    if (self->core.state == RAFT_LEADER) {
        return self->id;
    }
    /* The core keeps the leader of an earlier term until it hears of the next one. */
    if (self->core.state == RAFT_FOLLOWER && self->core.follower_state.current_leader.id != 0 &&
        self->seen_term == self->core.current_term) {
        return self->seen_leader;
    }
    return 0;
}

void bop__libraft_view(const struct libraft *self, struct read_view *out_view)
{
    out_view->now_ms = self->now_ms;
    out_view->self = self->id;
    out_view->state = (enum bop_raft_state)self->core.state;
    out_view->term = self->core.current_term;
    out_view->leader = bop__libraft_leader(self);
    out_view->ready = bop__libraft_ready(self);
    out_view->commit = self->core.commit_index;
    out_view->voter_count = 0;
    for (unsigned i = 0; i < self->core.configuration.n; i++) {
        if (self->core.configuration.servers[i].role == RAFT_VOTER) {
            out_view->voters[out_view->voter_count++] = self->core.configuration.servers[i].id;
        }
    }
}

static void gather_barrier(struct libraft *self, uint64_t index)
{
    self->core_barrier = index;
    self->barrier = (struct bop_raft_entry){
        .term = self->core.current_term,
        .type = BOP_RAFT_BARRIER,
    };
    bop__raft_outbox_append(&self->out, index, &self->barrier, 1);
    /* Its eight bytes of payload say nothing; they are ours to free. */
    bop__libraft_heap_enter(&self->heap);
    raft_free(self->core.barrier.batch);
    self->core.barrier.batch = NULL;
    bop__libraft_heap_leave(&self->heap);
}

static void gather(struct libraft *self, const struct raft_update *update)
{
    if (update->flags & (RAFT_UPDATE_ENTRIES)) {
        const struct raft_entry *first = update->entries.batch;

        if (first == &self->core.barrier) {
            gather_barrier(self, update->entries.index);
        } else {
            BOP_ASSERT(first >= self->raw && first < self->raw + self->raw_capacity);
            bop__raft_outbox_append(&self->out, update->entries.index,
                                    self->source + (first - self->raw), update->entries.n);
        }
    }
    if (update->flags & (RAFT_UPDATE_SNAPSHOT)) {
        self->installing = self->incoming;
        self->install = true;
    }
    if (update->flags & (RAFT_UPDATE_MESSAGES)) {
        for (unsigned i = 0; i < update->messages.n; i++) {
            bop__libraft_put_message(self, &update->messages.batch[i]);
        }
    }
}

static int feed_configuration(struct libraft *self)
{
    struct raft_event event = {.type = RAFT_CONFIGURATION};
    int rc = bop__libraft_copy_configuration(self, &self->core.configuration,
                                             &event.configuration.conf);

    if (rc != 0) {
        return bop__libraft_say(self, rc, "take in a committed configuration");
    }
    event.configuration.index = self->core.configuration_uncommitted_index;
    return bop__libraft_feed(self, &event);
}

static int take_up_leadership(struct libraft *self)
{
    self->led_term = self->core.current_term;
    self->peer_count = 0;
    self->doubt = false;
    self->held = 0;
    for (unsigned i = 0; i < self->core.configuration.n; i++) {
        BOP_IGNORE(bop__libraft_peer(self, self->core.configuration.servers[i].id));
    }
    if (self->core_barrier > 0) {
        self->ready_index = self->core_barrier;
        return 0;
    }
    self->ready_index = raft_last_index(&self->core) + 1;
    self->barrier = (struct bop_raft_entry){
        .term = self->core.current_term,
        .type = BOP_RAFT_BARRIER,
    };
    return bop__libraft_submit(self, &self->barrier, 1);
}

static int follow_up(struct libraft *self)
{
    const struct raft *core = &self->core;
    int rc = 0;

    if (core->configuration_uncommitted_index != 0 &&
        core->configuration_uncommitted_index <= core->commit_index && !core->snapshot.installing) {
        rc = feed_configuration(self);
    }
    if (rc == 0 && core->state == RAFT_LEADER && self->led_term != core->current_term) {
        rc = take_up_leadership(self);
    }
    return rc;
}

int bop__libraft_feed(struct libraft *self, struct raft_event *event)
{
    struct raft_update update;
    int rv;

    memset(&update, 0, sizeof(update));
    event->time = self->now_ms;
    self->core_barrier = 0;
    bop__libraft_heap_enter(&self->heap);
    rv = raft_step(&self->core, event, &update);
    bop__libraft_heap_leave(&self->heap);
    if (self->heap.failed) {
        /* libraft gets over some failed allocations itself, others leave it half changed. */
        return bop__libraft_say(self, BOP_ENOMEM, "libraft ran out of memory");
    }
    if (rv != 0) {
        return bop__libraft_say(self, code_of(rv), "libraft: %s", raft_strerror(rv));
    }
    gather(self, &update);
    return follow_up(self);
}

int bop__libraft_submit(struct libraft *self, const struct bop_raft_entry *entries, unsigned count)
{
    struct raft_event event = {.type = RAFT_SUBMIT};
    int rc = bop__libraft_reserve_raw(self, count);

    if (rc != 0) {
        return bop__libraft_say(self, rc, "make room for %u entries", count);
    }
    bop__libraft_lend_entries(self, entries, count);
    event.submit.entries = self->raw;
    event.submit.n = count;
    return bop__libraft_feed(self, &event);
}
