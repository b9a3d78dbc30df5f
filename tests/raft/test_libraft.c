/*
 * One engine, fed by hand: the rules and workarounds of docs/design/raft.md, each
 * by what goes wrong without it, and messages that no sane peer sends.
 */
#include <stdio.h>

#include "../../src/raft/engine_libraft.h"
#include "tap.h"

#define ENTRIES_MAX 64

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_raft *raft;
    struct bop_raft_update update; /* Of the last step that was taken. */
    struct bop_raft_configuration conf;
    struct bop_buf encoded; /* conf, as it is in entry 1. */
    struct bop_buf changed;
    struct bop_raft_entry log[ENTRIES_MAX]; /* Handed to START; log[0] is entry first. */
    uint64_t now_ms;
};

/* Servers 1 to 3 vote. The instance is server 2. */
static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop_buf_init(&f->encoded, NULL, 0);
    bop_buf_init(&f->changed, NULL, 0);
    f->now_ms = 1000;
    f->conf.count = 3;
    for (unsigned i = 0; i < 3; i++) {
        f->conf.servers[i].id = i + 1;
        f->conf.servers[i].role = BOP_RAFT_VOTER;
        snprintf(f->conf.servers[i].address, sizeof(f->conf.servers[i].address), "n%u:1", i + 1);
    }
}

static void teardown(struct fixture *f)
{
    bop_raft_destroy(f->raft);
    bop_buf_deinit(&f->encoded);
    bop_buf_deinit(&f->changed);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static int create(struct fixture *f)
{
    struct bop_raft_options options = {
        .allocator = &f->heap.allocator, .id = 2, .address = "n2:1", .seed = 1};

    return bop_raft_create(NULL, &options, &f->raft, NULL);
}

static int step(struct fixture *f, struct bop_raft_event *event)
{
    event->now_ms = f->now_ms;
    return bop_raft_step(f->raft, event, &f->update);
}

static struct bop_raft_entry change_entry(struct bop_buf *buf, uint64_t term,
                                          const struct bop_raft_configuration *conf)
{
    bop_buf_clear(buf);
    REQUIRE_EQ(bop_raft_configuration_encode(conf, buf), 0);
    return (struct bop_raft_entry){
        .term = term, .type = BOP_RAFT_CHANGE, .data = bop_buf_slice(buf)};
}

static struct bop_raft_entry command(uint64_t term)
{
    return (struct bop_raft_entry){.term = term, .type = BOP_RAFT_COMMAND, .data = bytes("data")};
}

/* START in the given term with a log of the configuration and commands of term 1. */
static int start(struct fixture *f, uint64_t term, unsigned entries)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_START};

    f->log[0] = change_entry(&f->encoded, 1, &f->conf);
    for (unsigned i = 1; i < entries; i++) {
        f->log[i] = command(1);
    }
    event.start.term = term;
    event.start.first_index = 1;
    event.start.entries = f->log;
    event.start.count = entries;
    return step(f, &event);
}

static void begin(struct fixture *f, uint64_t term, unsigned entries)
{
    REQUIRE_EQ(create(f), 0);
    REQUIRE_EQ(start(f, term, entries), 0);
}

static int receive(struct fixture *f, struct bop_raft_message *message)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_RECEIVE, .receive = message};

    return step(f, &event);
}

static struct bop_raft_message append_message(uint64_t peer, uint64_t term, uint64_t prev_index,
                                              uint64_t prev_term, uint64_t commit,
                                              const struct bop_raft_entry *entries, unsigned count)
{
    struct bop_raft_message message = {.type = BOP_RAFT_APPEND, .peer = peer, .term = term};

    message.append.prev_index = prev_index;
    message.append.prev_term = prev_term;
    message.append.commit = commit;
    message.append.entries = entries;
    message.append.count = count;
    return message;
}

static void append(struct fixture *f, uint64_t peer, uint64_t term, uint64_t prev_index,
                   uint64_t prev_term, uint64_t commit, const struct bop_raft_entry *entries,
                   unsigned count)
{
    struct bop_raft_message message = append_message(peer, term, prev_index, prev_term, commit,
                                                     entries, count);

    REQUIRE_EQ(receive(f, &message), 0);
}

static void persisted(struct fixture *f, uint64_t index)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_ENTRIES_PERSISTED,
                                   .persisted_index = index};

    REQUIRE_EQ(step(f, &event), 0);
}

static void at(struct fixture *f, uint64_t now_ms)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_TIME};

    f->now_ms = now_ms;
    REQUIRE_EQ(step(f, &event), 0);
}

static struct bop_raft_status status(struct fixture *f)
{
    struct bop_raft_status out;

    bop_raft_status(f->raft, &out);
    return out;
}

static const struct bop_raft_message *sent(struct fixture *f, enum bop_raft_message_type type,
                                           uint64_t peer)
{
    for (unsigned i = 0; i < f->update.message_count; i++) {
        if (f->update.messages[i].type == type && f->update.messages[i].peer == peer) {
            return &f->update.messages[i];
        }
    }
    return NULL;
}

static int vote(struct fixture *f, uint64_t peer, uint64_t term, uint64_t last_index,
                uint64_t last_term, bool pre_vote)
{
    struct bop_raft_message message = {.type = BOP_RAFT_VOTE, .peer = peer, .term = term};

    message.vote.candidate = peer;
    message.vote.last_index = last_index;
    message.vote.last_term = last_term;
    message.vote.pre_vote = pre_vote;
    return receive(f, &message);
}

static void voted(struct fixture *f, uint64_t peer, uint64_t term, bool pre_vote)
{
    struct bop_raft_message message = {.type = BOP_RAFT_VOTE_RESULT, .peer = peer, .term = term};

    message.vote_result.granted = true;
    message.vote_result.pre_vote = pre_vote;
    REQUIRE_EQ(receive(f, &message), 0);
}

static void acknowledge(struct fixture *f, uint64_t peer, uint64_t index)
{
    struct bop_raft_message message = {
        .type = BOP_RAFT_APPEND_RESULT, .peer = peer, .term = status(f).term};

    message.append_result.last_index = index;
    REQUIRE_EQ(receive(f, &message), 0);
}

/* Let server 2 win an election with the votes of 3. Its log has `entries` of term 1. */
static void lead(struct fixture *f, unsigned entries)
{
    begin(f, 1, entries);
    at(f, bop_raft_deadline_ms(f->raft));
    REQUIRE_EQ(status(f).state, BOP_RAFT_CANDIDATE);
    voted(f, 3, 2, true);
    voted(f, 3, 2, false);
    REQUIRE_EQ(status(f).state, BOP_RAFT_LEADER);
}

static void lead_and_settle(struct fixture *f, unsigned entries)
{
    lead(f, entries);
    persisted(f, entries + 1);
    acknowledge(f, 3, entries + 1);
    REQUIRE(status(f).ready);
}

static struct bop_raft_snapshot snapshot_at(struct fixture *f, uint64_t index, uint64_t term)
{
    struct bop_raft_snapshot snapshot = {
        .index = index, .term = term, .conf_index = 1, .conf = f->conf};

    return snapshot;
}

/* ---- Creation and start ---- */

TEST(libraft, refuses_a_version_that_is_too_old)
{
    struct bop_error err = {0};

    CHECK_EQ(bop__libraft_check_version(1500, &err), BOP_EVERSION);
    CHECK_STR_HAS(err.message, "libraft 0.15.0");
    CHECK_STR_HAS(err.message, "install libraft 0.22.1 or later");
    CHECK_EQ(bop__libraft_check_version(2200, NULL), BOP_EVERSION);
    CHECK_EQ(bop__libraft_check_version(2201, NULL), 0);
    CHECK_EQ(bop__libraft_check_version(2300, NULL), 0);
}

TEST(libraft, refuses_options_that_cannot_work)
{
    struct bop_raft_options options = {.allocator = &f->heap.allocator};
    struct bop_raft *raft;

    CHECK_EQ(bop_raft_create(NULL, &options, &raft, NULL), BOP_EINVAL);
    options.id = 1;
    options.election_timeout_ms = 50;
    options.heartbeat_ms = 50;
    CHECK_EQ(bop_raft_create(NULL, &options, &raft, NULL), BOP_EINVAL);
}

TEST(libraft, starts_first_and_once)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_TIME};

    REQUIRE_EQ(create(f), 0);
    CHECK_EQ(status(f).state, BOP_RAFT_UNAVAILABLE);
    CHECK_EQ(bop_raft_deadline_ms(f->raft), UINT64_MAX);
    CHECK_EQ(step(f, &event), BOP_EINVAL);
    CHECK_EQ(start(f, 1, 3), 0);
    CHECK(f->update.commit_changed && f->update.configuration_changed && !f->update.hard_state);
    CHECK_EQ(status(f).commit, 1);
    CHECK_EQ(status(f).last_index, 3);
    CHECK_EQ(start(f, 1, 3), BOP_EINVAL);
}

TEST(libraft, refuses_to_start_with_what_does_not_fit_together)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_START};
    struct bop_raft_snapshot snapshot = snapshot_at(f, 10, 2);

    REQUIRE_EQ(create(f), 0);
    f->log[0] = command(2);
    f->log[1] = command(2);
    event.start.term = 2;
    event.start.first_index = 1;
    event.start.entries = f->log;
    event.start.count = 2;
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* No configuration. */
    event.start.snapshot = &snapshot;
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* Ends below the snapshot. */
    event.start.first_index = 12;
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* A gap. */
    event.start.first_index = 9;
    f->log[0].term = f->log[1].term = 1;
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* Another history. */
    f->log[1].term = 3;
    event.start.first_index = 10;
    CHECK_EQ(step(f, &event), BOP_EINVAL);
    f->log[0].term = 2;
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* A term beyond ours. */
    CHECK(bop_raft_last_error(f->raft)[0] != '\0');
    event.start.term = 3;
    CHECK_EQ(step(f, &event), 0);
    CHECK_EQ(status(f).commit, 10);
    CHECK_EQ(status(f).last_index, 11);
}

TEST(libraft, refuses_to_start_with_a_malformed_configuration)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_START};

    REQUIRE_EQ(create(f), 0);
    f->log[0] = change_entry(&f->encoded, 1, &f->conf);
    f->log[0].data.size -= 8;
    event.start.term = 1;
    event.start.first_index = 1;
    event.start.entries = f->log;
    event.start.count = 1;
    CHECK_EQ(step(f, &event), BOP_EINVAL);
}

/* Whichever allocation fails, of ours or of libraft's, it is said and nothing leaks. */
TEST(libraft, survives_each_failed_allocation)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_raft_entry entries[3] = {command(1), command(1), command(1)};
        struct bop_raft_configuration to = f->conf;
        int rc;

        f->now_ms = 1000;
        to.servers[2].role = BOP_RAFT_STANDBY;
        entries[1] = change_entry(&f->changed, 1, &to);
        rc = create(f);
        rc = rc != 0 ? rc : start(f, 1, 5);
        if (rc == 0) {
            struct bop_raft_message message = append_message(1, 1, 5, 1, 6, entries, 3);

            rc = receive(f, &message);
        }
        if (rc == 0) {
            struct bop_raft_event event = {.type = BOP_RAFT_EVENT_READ, .read_context = 1};

            rc = step(f, &event);
        }
        if (rc == 0) {
            struct bop_raft_message message = {.type = BOP_RAFT_INSTALL, .peer = 1, .term = 2};

            message.install = snapshot_at(f, 100, 2);
            rc = receive(f, &message);
        }
        if (rc == 0) {
            struct bop_raft_snapshot snapshot = snapshot_at(f, 100, 2);
            struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SNAPSHOT_PERSISTED,
                                           .snapshot_persisted = &snapshot};

            rc = step(f, &event);
        }
        CHECK_EQ(rc, f->faults.fired);
        bop_raft_destroy(f->raft);
        f->raft = NULL;
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK(f->faults.at > 20);
}

TEST(libraft, allocates_nothing_under_a_steady_load)
{
    struct bop_raft_entry entries[16];
    uint64_t allocations = 0;

    begin(f, 1, 1);
    for (unsigned i = 0; i < 16; i++) {
        entries[i] = command(1);
    }
    for (uint64_t index = 1; index < 16 * 100; index += 16) {
        append(f, 1, 1, index, 1, index, entries, 16);
        persisted(f, index + 16);
        if (index == 16 * 10 + 1) {
            allocations = f->faults.at;
        }
    }
    CHECK(allocations > 0);
    CHECK_EQ(f->faults.at, allocations);
}

/* ---- W1 ---- */

/* A CHANGE at 4, third of its message: without W1 the core takes it to be at 2, never
 * learns that it is committed, and goes on with the configuration before. */
TEST(libraft, knows_where_a_change_is_that_does_not_come_first)
{
    struct bop_raft_configuration to = f->conf;
    struct bop_raft_configuration now;
    struct bop_raft_entry entries[4];
    uint64_t committed;

    begin(f, 1, 1);
    to.servers[2].role = BOP_RAFT_STANDBY;
    entries[0] = entries[1] = entries[3] = command(1);
    entries[2] = change_entry(&f->changed, 1, &to);
    append(f, 1, 1, 1, 1, 1, entries, 4);
    REQUIRE_EQ(f->update.append_count, 1); /* One append, although fed in two pieces. */
    CHECK_EQ(f->update.appends[0].index, 2);
    CHECK_EQ(f->update.appends[0].count, 4);
    CHECK_PTR_EQ(f->update.appends[0].entries, entries);
    CHECK(f->update.configuration_changed);
    CHECK(status(f).changing);

    persisted(f, 5);
    append(f, 1, 1, 5, 1, 3, NULL, 0); /* All but the change is committed. */
    CHECK(status(f).changing);
    append(f, 1, 1, 5, 1, 4, NULL, 0);
    CHECK(!status(f).changing);
    bop_raft_configuration(f->raft, &now, &committed);
    CHECK_EQ(committed, 4);
    CHECK_EQ(now.servers[2].role, BOP_RAFT_STANDBY);
}

/* A CHANGE at 3 that arrives before we know that the one at 2 is committed, in a message
 * that says so. When 3 is truncated, 2 must be what is left. */
TEST(libraft, rolls_back_to_the_change_before_and_no_further)
{
    struct bop_raft_configuration to = f->conf;
    struct bop_raft_configuration now;
    struct bop_raft_entry entry;
    uint64_t committed;

    begin(f, 1, 1);
    to.servers[2].role = BOP_RAFT_STANDBY;
    entry = change_entry(&f->changed, 1, &to);
    append(f, 1, 1, 1, 1, 1, &entry, 1);
    persisted(f, 2);
    to.servers[2].role = BOP_RAFT_SPARE;
    entry = change_entry(&f->changed, 1, &to);
    append(f, 1, 1, 2, 1, 2, &entry, 1);
    bop_raft_configuration(f->raft, &now, &committed);
    CHECK_EQ(committed, 2);
    CHECK_EQ(now.servers[2].role, BOP_RAFT_SPARE);

    entry = command(2);
    append(f, 3, 2, 2, 1, 2, &entry, 1); /* A new leader replaces entry 3. */
    CHECK(f->update.configuration_changed);
    bop_raft_configuration(f->raft, &now, &committed);
    CHECK_EQ(committed, 2);
    CHECK_EQ(now.servers[2].role, BOP_RAFT_STANDBY);
}

/* ---- W2 ---- */

TEST(libraft, grants_a_vote_as_a_standby)
{
    f->conf.servers[1].role = BOP_RAFT_STANDBY;
    begin(f, 1, 3);
    REQUIRE_EQ(vote(f, 3, 2, 3, 1, false), 0);
    REQUIRE(sent(f, BOP_RAFT_VOTE_RESULT, 3) != NULL);
    CHECK(sent(f, BOP_RAFT_VOTE_RESULT, 3)->vote_result.granted);
    CHECK(f->update.hard_state);
    CHECK_EQ(f->update.term, 2);
    CHECK_EQ(f->update.vote, 3);

    /* It is a standby as before: it does not stand for election. */
    at(f, f->now_ms + 10000);
    CHECK_EQ(status(f).state, BOP_RAFT_FOLLOWER);
    CHECK_EQ(f->update.message_count, 0);
}

/* As a joining node that was made a voter, but has not got that change yet. */
TEST(libraft, grants_a_vote_without_being_in_its_own_configuration)
{
    struct bop_raft_configuration now;

    f->conf.servers[1].id = 9;
    begin(f, 1, 3);
    REQUIRE_EQ(vote(f, 3, 2, 3, 1, true), 0);
    CHECK(sent(f, BOP_RAFT_VOTE_RESULT, 3) &&
          sent(f, BOP_RAFT_VOTE_RESULT, 3)->vote_result.granted);
    REQUIRE_EQ(vote(f, 3, 2, 3, 1, false), 0);
    CHECK(sent(f, BOP_RAFT_VOTE_RESULT, 3) &&
          sent(f, BOP_RAFT_VOTE_RESULT, 3)->vote_result.granted);
    REQUIRE_EQ(vote(f, 1, 2, 3, 1, false), 0);
    CHECK(!sent(f, BOP_RAFT_VOTE_RESULT, 1)->vote_result.granted); /* One vote a term. */
    REQUIRE_EQ(vote(f, 1, 3, 2, 1, false), 0);
    CHECK(!sent(f, BOP_RAFT_VOTE_RESULT, 1)->vote_result.granted); /* Its log is shorter. */
    bop_raft_configuration(f->raft, &now, NULL);
    CHECK_EQ(now.count, 3);
}

/* A voter finds out by its own election timer; a standby has to be told. */
TEST(libraft, stops_believing_in_a_silent_leader_as_a_standby)
{
    f->conf.servers[1].role = BOP_RAFT_STANDBY;
    begin(f, 1, 3);
    append(f, 1, 1, 3, 1, 1, NULL, 0);
    CHECK_EQ(status(f).leader, 1);
    REQUIRE_EQ(vote(f, 3, 2, 3, 1, true), 0);
    CHECK(!sent(f, BOP_RAFT_VOTE_RESULT, 3)->vote_result.granted); /* It hears of its leader. */
    for (unsigned i = 0; i < 20 && status(f).leader != 0; i++) {
        REQUIRE(bop_raft_deadline_ms(f->raft) > f->now_ms);
        at(f, bop_raft_deadline_ms(f->raft));
    }
    CHECK_EQ(f->now_ms, 1000 + 2 * 300);
    CHECK(f->update.state_changed);
    REQUIRE_EQ(vote(f, 3, 2, 3, 1, true), 0);
    CHECK(sent(f, BOP_RAFT_VOTE_RESULT, 3)->vote_result.granted);
    /* Hearing of it again, it follows it again. */
    append(f, 1, 1, 3, 1, 1, NULL, 0);
    CHECK_EQ(status(f).leader, 1);
    CHECK(sent(f, BOP_RAFT_APPEND_RESULT, 1) != NULL);
}

/* ---- W12 ---- */

/* Or the node with the longest log asks for a term of the past for ever. */
TEST(libraft, tells_a_candidate_of_the_past_which_term_it_is)
{
    struct bop_raft_message message = {.type = BOP_RAFT_VOTE_RESULT, .peer = 3, .term = 5};

    begin(f, 5, 3);
    REQUIRE_EQ(vote(f, 3, 4, 9, 3, true), 0);
    REQUIRE(sent(f, BOP_RAFT_VOTE_RESULT, 3) != NULL);
    CHECK(!sent(f, BOP_RAFT_VOTE_RESULT, 3)->vote_result.granted);
    CHECK(sent(f, BOP_RAFT_VOTE_RESULT, 3)->vote_result.pre_vote);
    CHECK_EQ(sent(f, BOP_RAFT_VOTE_RESULT, 3)->term, 5);
    bop_raft_destroy(f->raft);

    /* And what that candidate does with it. */
    f->now_ms = 1000;
    begin(f, 3, 3);
    at(f, bop_raft_deadline_ms(f->raft));
    REQUIRE_EQ(status(f).state, BOP_RAFT_CANDIDATE);
    message.vote_result.pre_vote = true;
    REQUIRE_EQ(receive(f, &message), 0);
    CHECK_EQ(status(f).state, BOP_RAFT_FOLLOWER);
    CHECK_EQ(status(f).term, 5);
    CHECK(f->update.hard_state);
}

/* ---- W13 ---- */

/* A new leader looks for the place where the logs meet, and has committed more meanwhile. */
TEST(libraft, does_not_take_its_commit_index_back)
{
    struct bop_raft_entry entry = command(1);

    begin(f, 1, 5);
    append(f, 1, 1, 5, 1, 4, NULL, 0);
    CHECK_EQ(status(f).commit, 4);
    append(f, 3, 2, 2, 1, 6, NULL, 0);
    CHECK_EQ(status(f).commit, 4);
    append(f, 3, 2, 2, 1, 6, &entry, 1); /* Up to 3 only. */
    CHECK_EQ(status(f).commit, 4);
    append(f, 3, 2, 5, 1, 6, NULL, 0);
    CHECK_EQ(status(f).commit, 5);
}

/* ---- W3 ---- */

/* A node with a snapshot at 10 and nothing below it. */
static void begin_compacted(struct fixture *f)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_START};
    struct bop_raft_snapshot snapshot = snapshot_at(f, 10, 1);

    REQUIRE_EQ(create(f), 0);
    event.start.term = 1;
    event.start.snapshot = &snapshot;
    REQUIRE_EQ(step(f, &event), 0);
}

TEST(libraft, takes_what_an_append_has_above_its_snapshot)
{
    struct bop_raft_entry entries[8];

    begin_compacted(f);
    for (unsigned i = 0; i < 8; i++) {
        entries[i] = command(1);
    }
    append(f, 1, 1, 5, 1, 13, entries, 8); /* 6 to 13: 11 to 13 are new. */
    REQUIRE_EQ(f->update.append_count, 1);
    CHECK_EQ(f->update.appends[0].index, 11);
    CHECK_EQ(f->update.appends[0].count, 3);
    CHECK_PTR_EQ(f->update.appends[0].entries, entries + 5);
    CHECK(!sent(f, BOP_RAFT_APPEND_RESULT, 1));
    CHECK_EQ(status(f).commit, 13);
    persisted(f, 13);
    REQUIRE(sent(f, BOP_RAFT_APPEND_RESULT, 1) != NULL);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.last_index, 13);
}

/* From entry 1 there is nothing that the core could compare: it would append at 11 what belongs
 * at 1. */
TEST(libraft, does_not_append_the_beginning_behind_the_snapshot)
{
    struct bop_raft_entry entries[3] = {command(1), command(1), command(1)};

    begin_compacted(f);
    entries[0] = change_entry(&f->changed, 1, &f->conf);
    append(f, 1, 1, 0, 0, 1, entries, 3);
    CHECK_EQ(f->update.append_count, 0);
    CHECK_EQ(status(f).last_index, 10);
    REQUIRE(sent(f, BOP_RAFT_APPEND_RESULT, 1) != NULL);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.rejected, 0);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.last_index, 10);
}

/* ---- W4 ---- */

static int change(struct fixture *f, const struct bop_raft_configuration *to)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_CHANGE, .change = to};

    return step(f, &event);
}

TEST(libraft, holds_a_change_until_its_term_has_committed_something)
{
    struct bop_raft_configuration to = f->conf;

    to.servers[0].role = BOP_RAFT_STANDBY;
    begin(f, 1, 3);
    CHECK_EQ(change(f, &to), BOP_ENOTLEADER);
    bop_raft_destroy(f->raft);

    lead(f, 3);
    acknowledge(f, 1, 3); /* All have the last configuration. */
    acknowledge(f, 3, 3);
    CHECK_EQ(change(f, &to), BOP_EBUSY);
    persisted(f, 4);
    CHECK_EQ(change(f, &to), BOP_EBUSY);
    acknowledge(f, 3, 4);
    CHECK(status(f).ready);
    CHECK_EQ(change(f, &to), 0);
    REQUIRE_EQ(f->update.append_count, 1);
    CHECK_EQ(f->update.appends[0].index, 5);
    CHECK_EQ(f->update.appends[0].entries[0].type, BOP_RAFT_CHANGE);
    CHECK_EQ(f->update.appends[0].entries[0].term, 2);
    CHECK(f->update.configuration_changed);
    CHECK_EQ(change(f, &f->conf), BOP_EBUSY); /* One at a time. */
}

TEST(libraft, holds_a_change_until_every_live_voter_has_the_last_one)
{
    struct bop_raft_configuration to = f->conf;

    lead_and_settle(f, 3);
    acknowledge(f, 1, 4);
    to.count = 4;
    to.servers[3] = (struct bop_raft_server){.id = 4, .role = BOP_RAFT_STANDBY, .address = "n4:1"};
    CHECK_EQ(change(f, &to), 0);
    persisted(f, 5);
    acknowledge(f, 3, 5);
    CHECK(!status(f).changing);
    to.servers[3].role = BOP_RAFT_VOTER;
    CHECK_EQ(change(f, &to), BOP_EBUSY); /* Server 1 lives and does not have entry 5. */
    acknowledge(f, 1, 5);
    CHECK_EQ(change(f, &to), 0);
}

TEST(libraft, does_not_wait_for_a_voter_that_is_silent)
{
    struct bop_raft_configuration to = f->conf;

    lead_and_settle(f, 3);
    to.servers[0].role = BOP_RAFT_STANDBY;
    CHECK_EQ(change(f, &to), BOP_EBUSY); /* Server 1 may just be slow. */
    for (unsigned i = 0; i < 8; i++) {
        at(f, f->now_ms + 50);
        acknowledge(f, 3, 4);
    }
    CHECK_EQ(change(f, &to), 0);
}

TEST(libraft, changes_one_server_at_a_time_and_keeps_a_voter)
{
    struct bop_raft_configuration to = f->conf;

    lead_and_settle(f, 3);
    acknowledge(f, 1, 4);
    CHECK_EQ(change(f, &to), BOP_EINVAL); /* Nothing. */
    to.servers[0].role = to.servers[2].role = BOP_RAFT_STANDBY;
    CHECK_EQ(change(f, &to), BOP_EINVAL); /* Two. */
    to.servers[1].role = BOP_RAFT_STANDBY;
    CHECK_EQ(change(f, &to), BOP_EINVAL); /* Nobody left to vote. */
    to = f->conf;
    to.servers[0].id = 0;
    CHECK_EQ(change(f, &to), BOP_EINVAL);
    CHECK(!status(f).changing);

    /* Its own order counts for nothing: the core goes by positions. */
    to = f->conf;
    to.servers[0] = f->conf.servers[2];
    to.servers[2] = f->conf.servers[0];
    to.servers[2].role = BOP_RAFT_STANDBY;
    CHECK_EQ(change(f, &to), 0);
    CHECK_EQ(bop_raft_match_index(f->raft, 3), 4);
    CHECK_EQ(bop_raft_match_index(f->raft, 2), 4);
    bop_raft_configuration(f->raft, &to, NULL);
    CHECK_EQ(to.servers[0].id, 1);
    CHECK_EQ(to.servers[0].role, BOP_RAFT_STANDBY);
}

/* ---- W5 ---- */

static void install(struct fixture *f, uint64_t index)
{
    struct bop_raft_message message = {.type = BOP_RAFT_INSTALL, .peer = 1, .term = 2};

    message.install = snapshot_at(f, index, 2);
    REQUIRE_EQ(receive(f, &message), 0);
}

TEST(libraft, answers_its_leader_while_it_installs_a_snapshot)
{
    struct bop_raft_snapshot snapshot = snapshot_at(f, 100, 2);
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SNAPSHOT_PERSISTED,
                                   .snapshot_persisted = &snapshot};
    struct bop_raft_entry entries[2] = {command(2), command(2)};

    begin(f, 1, 3);
    install(f, 100);
    REQUIRE(f->update.install != NULL);
    CHECK_EQ(f->update.install->index, 100);
    CHECK(status(f).installing);
    persisted(f, 3); /* Of the log that goes. */
    CHECK_EQ(f->update.message_count, 0);

    append(f, 1, 2, 100, 2, 102, entries, 2);
    CHECK_EQ(f->update.append_count, 0);
    REQUIRE(sent(f, BOP_RAFT_APPEND_RESULT, 1) != NULL);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.rejected, 0);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.last_index, 0);

    install(f, 100); /* Once more, as after a broken connection. */
    CHECK(f->update.install == NULL);
    snapshot.index = 99;
    CHECK_EQ(step(f, &event), BOP_EINVAL);
    snapshot.index = 100;
    CHECK_EQ(step(f, &event), 0);
    CHECK(!status(f).installing);
    CHECK_EQ(status(f).commit, 100);
    CHECK_EQ(status(f).last_index, 100);
    CHECK_EQ(status(f).snapshot_index, 100);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.last_index, 100);
    append(f, 1, 2, 100, 2, 102, entries, 2);
    REQUIRE_EQ(f->update.append_count, 1);
    CHECK_EQ(f->update.appends[0].index, 101);
}

/* ---- W6 ---- */

static void snapshot_taken(struct fixture *f, uint64_t index, uint64_t term)
{
    struct bop_raft_snapshot snapshot = snapshot_at(f, index, term);
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SNAPSHOT_TAKEN};

    event.taken.snapshot = &snapshot;
    REQUIRE_EQ(step(f, &event), 0);
}

static void reject(struct fixture *f, uint64_t peer, uint64_t index, uint64_t last)
{
    struct bop_raft_message message = {
        .type = BOP_RAFT_APPEND_RESULT, .peer = peer, .term = status(f).term};

    message.append_result.rejected = index;
    message.append_result.last_index = last;
    REQUIRE_EQ(receive(f, &message), 0);
}

TEST(libraft, sends_a_snapshot_again_after_its_connection_broke)
{
    struct bop_raft_event lost = {.type = BOP_RAFT_EVENT_PEER_LOST, .peer = 1};

    lead_and_settle(f, 9);
    snapshot_taken(f, 10, 2);
    reject(f, 1, 9, 0); /* Server 1 is empty. */
    REQUIRE(sent(f, BOP_RAFT_INSTALL, 1) != NULL);
    CHECK_EQ(sent(f, BOP_RAFT_INSTALL, 1)->install.index, 10);
    CHECK_EQ(sent(f, BOP_RAFT_INSTALL, 1)->install.conf.count, 3);
    acknowledge(f, 1, 0);
    CHECK(!sent(f, BOP_RAFT_INSTALL, 1)); /* It is under way. */
    REQUIRE_EQ(step(f, &lost), 0);
    acknowledge(f, 1, 0); /* Back, and without it. */
    CHECK(sent(f, BOP_RAFT_INSTALL, 1) != NULL);
    acknowledge(f, 1, 0);
    CHECK(!sent(f, BOP_RAFT_INSTALL, 1));
    acknowledge(f, 1, 10);
    CHECK_EQ(bop_raft_match_index(f->raft, 1), 10);
    REQUIRE_EQ(step(f, &lost), 0);
    acknowledge(f, 1, 10);
    CHECK(!sent(f, BOP_RAFT_INSTALL, 1));
}

/* ---- W14 ---- */

static unsigned acknowledgements_of(const struct fixture *f, uint64_t index)
{
    unsigned count = 0;

    for (unsigned n = 0; n < f->update.message_count; n++) {
        const struct bop_raft_message *message = &f->update.messages[n];

        count += message->type == BOP_RAFT_APPEND_RESULT && message->peer == 1 &&
                 message->append_result.rejected == 0 && message->append_result.last_index == index;
    }
    return count;
}

TEST(libraft, says_again_that_it_has_a_snapshot)
{
    struct bop_raft_snapshot snapshot = snapshot_at(f, 100, 2);
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SNAPSHOT_PERSISTED,
                                   .snapshot_persisted = &snapshot};
    struct bop_raft_entry entry = command(2);

    begin(f, 1, 3);
    install(f, 100);
    append(f, 1, 2, 120, 2, 120, NULL, 0); /* The leader has a newer one... */
    CHECK_EQ(acknowledgements_of(f, 100), 0);
    REQUIRE_EQ(step(f, &event), 0);
    CHECK_EQ(acknowledgements_of(f, 100), 1); /* ...and this is lost. */
    for (int n = 0; n < 2; n++) {
        append(f, 1, 2, 120, 2, 120, NULL, 0);
        REQUIRE(sent(f, BOP_RAFT_APPEND_RESULT, 1) != NULL);
        CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.rejected, 120);
        CHECK_EQ(acknowledgements_of(f, 100), 1);
    }
    append(f, 1, 2, 100, 2, 100, &entry, 1);
    persisted(f, 101);
    append(f, 1, 2, 120, 2, 120, NULL, 0); /* It lacks something else. */
    REQUIRE(sent(f, BOP_RAFT_APPEND_RESULT, 1) != NULL);
    CHECK_EQ(f->update.message_count, 1);
}

/* ---- W7 and other snapshots ---- */

TEST(libraft, takes_only_snapshots_that_it_can_stand_on)
{
    struct bop_raft_snapshot snapshot = snapshot_at(f, 1, 1);
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SNAPSHOT_TAKEN};

    event.taken.snapshot = &snapshot;
    lead_and_settle(f, 9);
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* At entry 1: an empty node would never get it. */
    snapshot = snapshot_at(f, 11, 2);
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* Not there. */
    snapshot = snapshot_at(f, 9, 2);
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* Another term. */
    snapshot = snapshot_at(f, 9, 1);
    snapshot.conf_index = 5;
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* No configuration there. */
    snapshot_taken(f, 9, 1);
    snapshot = snapshot_at(f, 9, 1);
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* Have it. */
    CHECK_EQ(status(f).snapshot_index, 9);
    CHECK_EQ(status(f).last_index, 10);
}

/* ---- Rules ---- */

/* Rule b: a write that was overtaken by a truncation proves nothing. */
TEST(libraft, believes_no_report_beyond_its_log_or_backwards)
{
    struct bop_raft_entry entries[2] = {command(1), command(1)};

    begin(f, 1, 3);
    append(f, 1, 1, 3, 1, 1, entries, 2);
    entries[0] = command(2);
    append(f, 3, 2, 3, 1, 1, entries, 1); /* Replaces 4 and drops 5. */
    REQUIRE_EQ(f->update.append_count, 1);
    CHECK_EQ(f->update.appends[0].index, 4);
    CHECK_EQ(f->update.appends[0].count, 1);
    persisted(f, 5);
    CHECK_EQ(f->update.message_count, 0);
    persisted(f, 3);
    CHECK_EQ(f->update.message_count, 0);
    persisted(f, 4);
    REQUIRE(sent(f, BOP_RAFT_APPEND_RESULT, 3) != NULL);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 3)->append_result.last_index, 4);
    persisted(f, 4);
    CHECK_EQ(f->update.message_count, 0);
}

TEST(libraft, appends_one_barrier_when_it_is_elected)
{
    lead(f, 3); /* Entries 2 and 3 may be uncommitted, so the core does it by itself. */
    REQUIRE_EQ(f->update.append_count, 1);
    CHECK_EQ(f->update.appends[0].index, 4);
    CHECK_EQ(f->update.appends[0].count, 1);
    CHECK_EQ(f->update.appends[0].entries[0].type, BOP_RAFT_BARRIER);
    CHECK_EQ(f->update.appends[0].entries[0].term, 2);
    CHECK_EQ(f->update.appends[0].entries[0].data.size, 0);
    bop_raft_destroy(f->raft);

    f->now_ms = 1000;
    lead(f, 1); /* Here it would not: all is committed. */
    REQUIRE_EQ(f->update.append_count, 1);
    CHECK_EQ(f->update.appends[0].index, 2);
    CHECK_EQ(f->update.appends[0].entries[0].type, BOP_RAFT_BARRIER);
    CHECK(!status(f).ready);
    persisted(f, 2);
    acknowledge(f, 3, 2);
    CHECK(status(f).ready);
}

TEST(libraft, takes_commands_only_and_fills_in_the_term)
{
    struct bop_raft_entry entries[2] = {command(0), command(0)};
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SUBMIT};

    event.submit.entries = entries;
    event.submit.count = 2;
    lead_and_settle(f, 1);
    REQUIRE_EQ(step(f, &event), 0);
    REQUIRE_EQ(f->update.append_count, 1);
    CHECK_EQ(f->update.appends[0].index, 3);
    CHECK_EQ(f->update.appends[0].count, 2);
    CHECK_EQ(f->update.appends[0].entries[1].term, 2);
    CHECK_PTR_EQ(f->update.appends[0].entries[1].data.data, entries[1].data.data);
    REQUIRE(sent(f, BOP_RAFT_APPEND, 3) != NULL);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND, 3)->append.prev_index, 2);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND, 3)->append.count, 2);
    entries[1].type = BOP_RAFT_BARRIER;
    CHECK_EQ(step(f, &event), BOP_EINVAL);
    event.submit.count = 0;
    CHECK_EQ(step(f, &event), BOP_EINVAL);
}

/* A voter turned spare keeps a last heartbeat in the core that never gets younger. */
TEST(libraft, does_not_spin_for_a_spare)
{
    struct bop_raft_configuration to = f->conf;
    unsigned steps = 0;

    lead_and_settle(f, 1);
    acknowledge(f, 1, 2);
    to.servers[0].role = BOP_RAFT_SPARE;
    REQUIRE_EQ(change(f, &to), 0);
    persisted(f, 3);
    acknowledge(f, 3, 3);
    for (uint64_t end = f->now_ms + 1000; f->now_ms < end; steps++) {
        REQUIRE(bop_raft_deadline_ms(f->raft) > f->now_ms);
        at(f, bop_raft_deadline_ms(f->raft));
        acknowledge(f, 3, 3);
    }
    CHECK(steps <= 1000 / 25 + 1);
    CHECK_EQ(status(f).state, BOP_RAFT_LEADER);
}

TEST(libraft, hands_over_to_the_voter_that_has_the_most)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_TRANSFER};
    struct bop_raft_entry entry = command(0);
    struct bop_raft_event submit = {.type = BOP_RAFT_EVENT_SUBMIT};

    submit.submit.entries = &entry;
    submit.submit.count = 1;
    lead_and_settle(f, 1);
    acknowledge(f, 1, 1);
    event.peer = 2;
    CHECK_EQ(step(f, &event), BOP_EINVAL); /* Itself. */
    event.peer = 9;
    CHECK_EQ(step(f, &event), BOP_EINVAL);
    event.peer = 0;
    CHECK_EQ(step(f, &event), 0);
    CHECK(sent(f, BOP_RAFT_TIMEOUT_NOW, 3) != NULL);
    CHECK_EQ(step(f, &event), BOP_EBUSY);
    CHECK_EQ(step(f, &submit), BOP_ENOTLEADER);
    CHECK_EQ(change(f, &f->conf), BOP_ENOTLEADER);
}

/* ---- Peers out of their minds ---- */

/* What is dropped changes nothing and is counted. */
static void check_dropped(struct fixture *f, struct bop_raft_message *message)
{
    struct bop_raft_status before = status(f);
    struct bop_raft_status after;

    CHECK_EQ(receive(f, message), 0);
    after = status(f);
    CHECK_EQ(after.dropped, before.dropped + 1);
    CHECK_EQ(after.term, before.term);
    CHECK_EQ(after.state, before.state);
    CHECK_EQ(after.commit, before.commit);
    CHECK_EQ(after.last_index, before.last_index);
    CHECK_EQ(f->update.message_count, 0);
    CHECK_EQ(f->update.append_count, 0);
    CHECK(f->update.install == NULL);
}

TEST(libraft, drops_appends_that_make_no_sense)
{
    struct bop_raft_entry entries[2] = {command(2), command(2)};
    struct bop_raft_message message;

    begin(f, 2, 3);
    message = append_message(0, 2, 3, 1, 1, entries, 2);
    check_dropped(f, &message); /* From nobody. */
    message = append_message(2, 2, 3, 1, 1, entries, 2);
    check_dropped(f, &message); /* From ourselves. */
    message = append_message(1, 0, 3, 1, 1, entries, 2);
    check_dropped(f, &message);
    message = append_message(1, UINT64_MAX, 3, 1, 1, entries, 2);
    check_dropped(f, &message);
    message = append_message(1, 2, UINT64_MAX, 1, 1, entries, 2);
    check_dropped(f, &message);
    message = append_message(1, 2, 3, 1, UINT64_MAX, entries, 2);
    check_dropped(f, &message);
    message = append_message(1, 2, 3, 0, 1, entries, 2);
    check_dropped(f, &message); /* An entry without a term. */
    message = append_message(1, 2, 0, 1, 1, entries, 2);
    check_dropped(f, &message);
    message = append_message(1, 2, 3, 3, 1, entries, 2);
    check_dropped(f, &message); /* Of the future. */
    message = append_message(1, 2, 3, 1, 1, NULL, 2);
    check_dropped(f, &message);
    entries[1].term = 1;
    message = append_message(1, 2, 3, 1, 1, entries, 2);
    check_dropped(f, &message); /* Terms that fall. */
    entries[1].term = 3;
    check_dropped(f, &message);
    entries[1].term = 2;
    entries[1].type = BOP_RAFT_CHANGE;
    check_dropped(f, &message); /* "data" is no configuration. */
    entries[1].type = (enum bop_raft_entry_type)4;
    check_dropped(f, &message);
    message.type = (enum bop_raft_message_type)11;
    check_dropped(f, &message);
}

TEST(libraft, drops_a_second_leader_of_a_term)
{
    struct bop_raft_message message = append_message(3, 2, 3, 1, 1, NULL, 0);

    begin(f, 2, 3);
    append(f, 1, 2, 3, 1, 1, NULL, 0);
    check_dropped(f, &message);
    CHECK_EQ(status(f).leader, 1);
    bop_raft_destroy(f->raft);

    f->now_ms = 1000;
    lead(f, 3); /* Term 2 is ours. */
    check_dropped(f, &message);
    message.type = BOP_RAFT_INSTALL;
    message.install = snapshot_at(f, 50, 2);
    check_dropped(f, &message);
}

TEST(libraft, drops_snapshots_that_make_no_sense)
{
    struct bop_raft_message message = {.type = BOP_RAFT_INSTALL, .peer = 1, .term = 2};

    begin(f, 2, 3);
    append(f, 1, 2, 3, 1, 3, NULL, 0); /* All is committed. */
    message.install = snapshot_at(f, 0, 1);
    check_dropped(f, &message);
    message.install = snapshot_at(f, 50, 0);
    check_dropped(f, &message);
    message.install = snapshot_at(f, 50, 3);
    check_dropped(f, &message);
    message.install = snapshot_at(f, UINT64_MAX, 2);
    check_dropped(f, &message);
    message.install = snapshot_at(f, 50, 2);
    message.install.conf_index = 51;
    check_dropped(f, &message);
    message.install = snapshot_at(f, 50, 2);
    message.install.conf.count = BOP_RAFT_SERVERS_MAX + 1;
    check_dropped(f, &message);
    message.install = snapshot_at(f, 3, 2); /* Entry 3 is committed, with term 1. */
    check_dropped(f, &message);
}

TEST(libraft, drops_votes_that_make_no_sense)
{
    struct bop_raft_message message = {.type = BOP_RAFT_VOTE, .peer = 1, .term = 2};

    begin(f, 1, 3);
    message.vote.candidate = 3;
    check_dropped(f, &message); /* For another. */
    message.vote.candidate = 1;
    message.vote.last_index = UINT64_MAX;
    check_dropped(f, &message);
    message.vote.last_index = 3;
    message.vote.last_term = 3;
    check_dropped(f, &message);

    at(f, bop_raft_deadline_ms(f->raft));
    REQUIRE_EQ(status(f).state, BOP_RAFT_CANDIDATE);
    message = (struct bop_raft_message){.type = BOP_RAFT_VOTE_RESULT, .peer = 1, .term = 9};
    message.vote_result.granted = true;
    message.vote_result.pre_vote = true;
    check_dropped(f, &message); /* A vote for a term nobody asked for. */
}

/* In any state but candidate the core would read another state's memory. */
TEST(libraft, ignores_votes_it_did_not_ask_for)
{
    begin(f, 1, 3);
    voted(f, 1, 2, true);
    voted(f, 3, 7, false);
    CHECK_EQ(status(f).state, BOP_RAFT_FOLLOWER);
    CHECK_EQ(status(f).term, 1);
    bop_raft_destroy(f->raft);

    f->now_ms = 1000;
    lead(f, 3);
    voted(f, 1, 2, true);
    voted(f, 1, 2, false);
    CHECK_EQ(status(f).state, BOP_RAFT_LEADER);
}

TEST(libraft, drops_acknowledgements_that_make_no_sense)
{
    struct bop_raft_message message = {.type = BOP_RAFT_APPEND_RESULT, .peer = 3, .term = 2};

    lead_and_settle(f, 3);
    message.append_result.rejected = UINT64_MAX;
    check_dropped(f, &message);
    message.append_result.rejected = 0;
    message.append_result.last_index = UINT64_MAX;
    check_dropped(f, &message);
    reject(f, 3, 4, 0); /* It had acknowledged that, but who knows. */
    reject(f, 3, 2, 1);
    reject(f, 9, 4, 0);      /* A stranger. */
    acknowledge(f, 9, 4);    /* Likewise. */
    acknowledge(f, 3, 1000); /* More than there is. */
    CHECK_EQ(bop_raft_match_index(f->raft, 3), 4);
    CHECK_EQ(status(f).commit, 4);
}

/* ---- W11: a follower that lost what it had acknowledged ---- */

static void submit(struct fixture *f)
{
    struct bop_raft_entry entry = command(0);
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SUBMIT};

    event.submit.entries = &entry;
    event.submit.count = 1;
    REQUIRE_EQ(step(f, &event), 0);
}

static void check_append(struct fixture *f, uint64_t peer, uint64_t previous, unsigned count)
{
    const struct bop_raft_message *message = sent(f, BOP_RAFT_APPEND, peer);

    REQUIRE(message != NULL);
    CHECK_EQ(message->append.prev_index, previous);
    CHECK_EQ(message->append.count, count);
}

TEST(libraft, sends_a_follower_again_what_it_lost)
{
    lead_and_settle(f, 3);
    reject(f, 3, 4, 2);
    check_append(f, 3, 2, 2);
    CHECK_EQ(bop_raft_match_index(f->raft, 3), 0);
    acknowledge(f, 3, 4);
    CHECK_EQ(bop_raft_match_index(f->raft, 3), 4);
    submit(f); /* The core goes on as ever. */
    check_append(f, 3, 4, 1);
    reject(f, 3, 4, 0);
    check_append(f, 3, 0, 4);
}

TEST(libraft, goes_back_until_the_logs_meet)
{
    lead_and_settle(f, 3);
    reject(f, 3, 4, 3); /* It has another entry there. */
    check_append(f, 3, 3, 1);
    reject(f, 3, 3, 2);
    check_append(f, 3, 2, 2);
    acknowledge(f, 3, 3);
    CHECK(!sent(f, BOP_RAFT_APPEND, 3)); /* The rest is on its way. */
    reject(f, 3, 4, 3);                  /* Of a heartbeat. */
    CHECK(!sent(f, BOP_RAFT_APPEND, 3));
    f->now_ms += 400; /* It did not arrive. */
    reject(f, 3, 4, 3);
    check_append(f, 3, 3, 1);
    acknowledge(f, 3, 4);
    CHECK_EQ(bop_raft_match_index(f->raft, 3), 4);
}

TEST(libraft, is_told_of_a_loss_by_an_answer_to_what_comes_later)
{
    lead_and_settle(f, 3);
    submit(f);
    submit(f);
    reject(f, 3, 6, 1); /* Beyond all that it had acknowledged. */
    check_append(f, 3, 1, 3);
    acknowledge(f, 3, 4);
    at(f, f->now_ms + 50); /* The core sends the others. */
    check_append(f, 3, 4, 2);
}

TEST(libraft, does_not_count_what_was_lost)
{
    lead_and_settle(f, 3);
    submit(f);
    acknowledge(f, 3, 5);
    reject(f, 3, 5, 4);
    persisted(f, 5);
    CHECK_EQ(status(f).commit, 4); /* Nobody but we have entry 5. */
    acknowledge(f, 1, 4);
    CHECK_EQ(status(f).commit, 4);
    acknowledge(f, 1, 5);
    CHECK_EQ(status(f).commit, 5);
    CHECK_EQ(bop_raft_match_index(f->raft, 3), 0);
}

TEST(libraft, counts_others_only_as_far_as_a_majority_goes)
{
    lead_and_settle(f, 3);
    submit(f);
    submit(f);
    acknowledge(f, 3, 6);
    reject(f, 3, 6, 4);
    acknowledge(f, 1, 6);
    CHECK_EQ(status(f).commit, 4);
    CHECK_EQ(bop_raft_match_index(f->raft, 1), 6);
    persisted(f, 5);
    CHECK_EQ(status(f).commit, 5);
    acknowledge(f, 3, 6); /* It is as it was, so all may count. */
    CHECK_EQ(status(f).commit, 6);
    persisted(f, 6);
    acknowledge(f, 1, 6);
    CHECK_EQ(status(f).commit, 6);
}

TEST(libraft, tells_its_own_disk_when_it_leads_no_more)
{
    lead_and_settle(f, 3);
    submit(f);
    acknowledge(f, 3, 5);
    reject(f, 3, 5, 4);
    persisted(f, 5);
    append(f, 1, 3, 5, 2, 4, NULL, 0);
    CHECK_EQ(status(f).state, BOP_RAFT_FOLLOWER);
    append(f, 1, 3, 5, 2, 4, NULL, 0);
    REQUIRE(sent(f, BOP_RAFT_APPEND_RESULT, 1) != NULL);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.rejected, 0);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.last_index, 5);
}

TEST(libraft, forgets_what_it_held_back_when_that_is_replaced)
{
    struct bop_raft_entry entry = command(3);

    lead_and_settle(f, 3);
    submit(f);
    acknowledge(f, 3, 5);
    reject(f, 3, 5, 4);
    persisted(f, 5);
    append(f, 1, 3, 4, 2, 4, &entry, 1);
    REQUIRE_EQ(f->update.append_count, 1);
    append(f, 1, 3, 5, 3, 4, NULL, 0);
    REQUIRE(sent(f, BOP_RAFT_APPEND_RESULT, 1) != NULL);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.last_index, 4);
    persisted(f, 5);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.last_index, 5);
}

TEST(libraft, sends_a_snapshot_to_who_lost_more_than_it_has)
{
    struct bop_raft_event lost = {.type = BOP_RAFT_EVENT_PEER_LOST, .peer = 3};

    lead_and_settle(f, 9);
    submit(f);
    acknowledge(f, 3, 11);
    persisted(f, 11);
    snapshot_taken(f, 10, 2);
    reject(f, 3, 11, 2);
    REQUIRE(sent(f, BOP_RAFT_INSTALL, 3) != NULL);
    CHECK_EQ(sent(f, BOP_RAFT_INSTALL, 3)->install.index, 10);
    f->now_ms += 400;
    reject(f, 3, 11, 2);
    CHECK(!sent(f, BOP_RAFT_INSTALL, 3)); /* It is under way. */
    REQUIRE_EQ(step(f, &lost), 0);
    reject(f, 3, 11, 2);
    CHECK(sent(f, BOP_RAFT_INSTALL, 3) != NULL);
    acknowledge(f, 3, 10);
    CHECK(!sent(f, BOP_RAFT_INSTALL, 3));
    check_append(f, 3, 10, 1);
    acknowledge(f, 3, 11);
    CHECK_EQ(bop_raft_match_index(f->raft, 3), 11);
}

/* With the shortest of logs it would ask for votes in a term of its own. */
TEST(libraft, does_not_hand_over_to_who_lost_entries)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_TRANSFER, .peer = 3};

    lead_and_settle(f, 3);
    reject(f, 3, 4, 2);
    CHECK_EQ(step(f, &event), BOP_EBUSY);
    acknowledge(f, 3, 4);
    CHECK_EQ(step(f, &event), 0);
}

TEST(libraft, answers_a_leader_of_the_past_without_garbage)
{
    struct bop_raft_entry entry = command(1);

    begin(f, 5, 3);
    append(f, 1, 1, 3, 1, 1, &entry, 1);
    REQUIRE(sent(f, BOP_RAFT_APPEND_RESULT, 1) != NULL);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->term, 5);
    CHECK_EQ(sent(f, BOP_RAFT_APPEND_RESULT, 1)->append_result.last_index, 0);
    CHECK_EQ(f->update.append_count, 0);
    CHECK_EQ(status(f).leader, 0);
}

/* The one thing a peer can say that nothing can be made of: this node or that one is broken. */
TEST(libraft, stops_when_a_leader_contradicts_what_is_committed)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_TIME};
    struct bop_raft_entry entry = command(2);
    struct bop_raft_message message = append_message(3, 2, 2, 1, 3, &entry, 1);

    begin(f, 1, 3);
    append(f, 1, 1, 3, 1, 3, NULL, 0);
    CHECK_EQ(receive(f, &message), BOP_ECORRUPT);
    CHECK(bop_raft_last_error(f->raft)[0] != '\0');
    CHECK_EQ(step(f, &event), BOP_EFAILED);
    CHECK_EQ(status(f).state, BOP_RAFT_UNAVAILABLE);
    CHECK_EQ(bop_raft_deadline_ms(f->raft), UINT64_MAX);
}
