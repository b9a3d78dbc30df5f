/*
 * The read index by itself: what it asks, what it takes for an answer, when it
 * gives up.
 */
#include "../../src/raft/read_index.h"
#include "tap.h"

#define HEARTBEAT_MS 50
#define ELECTION_MS  300

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct read_index reads;
    struct raft_outbox out;
    struct read_view view;
};

/* Node 1 leads voters 1, 2 and 3 in term 5; its commit index is 10. */
static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop__raft_outbox_init(&f->out, &f->heap.allocator);
    bop__read_index_init(&f->reads, &f->heap.allocator, HEARTBEAT_MS, ELECTION_MS, 42);
    f->view = (struct read_view){
        .now_ms = 1000,
        .self = 1,
        .state = BOP_RAFT_LEADER,
        .term = 5,
        .leader = 1,
        .ready = true,
        .commit = 10,
        .voters = {1, 2, 3},
        .voter_count = 3,
    };
}

static void teardown(struct fixture *f)
{
    bop__read_index_deinit(&f->reads);
    bop__raft_outbox_deinit(&f->out);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void turn(struct fixture *f)
{
    bop__read_index_turn(&f->reads, &f->view, &f->out);
}

/* A step of its own: ask and turn. */
static void ask(struct fixture *f, uint64_t context)
{
    bop__raft_outbox_clear(&f->out);
    REQUIRE_EQ(bop__read_index_ask(&f->reads, &f->view, context, &f->out), 0);
    turn(f);
}

static void receive(struct fixture *f, enum bop_raft_message_type type, uint64_t peer,
                    uint64_t term, uint64_t sequence, uint64_t index)
{
    struct bop_raft_message message = {.type = type, .peer = peer, .term = term};

    message.read.sequence = sequence;
    message.read.index = index;
    bop__raft_outbox_clear(&f->out);
    bop__read_index_receive(&f->reads, &f->view, &message, &f->out);
    turn(f);
}

static void pass(struct fixture *f, uint64_t ms)
{
    bop__raft_outbox_clear(&f->out);
    f->view.now_ms += ms;
    turn(f);
}

static void follow(struct fixture *f, uint64_t leader)
{
    f->view.state = BOP_RAFT_FOLLOWER;
    f->view.leader = leader;
    f->view.ready = false;
}

#define CHECK_READ(i, context_, index_, code_)                                                     \
    do {                                                                                           \
        REQUIRE((i) < f->out.read_count);                                                          \
        CHECK_EQ(f->out.reads[i].context, context_);                                               \
        CHECK_EQ(f->out.reads[i].index, index_);                                                   \
        CHECK_EQ(f->out.reads[i].code, code_);                                                     \
    } while (0)

/* ---- Leader ---- */

TEST(read_index, asks_every_other_voter_and_serves_once_a_majority_has_answered)
{
    uint64_t sequence;

    ask(f, 100);
    CHECK_EQ(f->out.read_count, 0);
    REQUIRE_EQ(f->out.message_count, 2);
    CHECK_EQ(f->out.messages[0].type, BOP_RAFT_READ_PROBE);
    CHECK_EQ(f->out.messages[0].peer, 2);
    CHECK_EQ(f->out.messages[0].term, 5);
    CHECK_EQ(f->out.messages[1].peer, 3);
    sequence = f->out.messages[0].read.sequence;
    f->view.commit = 12; /* Came after the read, which need not wait for it. */

    receive(f, BOP_RAFT_READ_PROBE_RESULT, 3, 5, sequence, 0);
    CHECK_EQ(f->out.read_count, 1);
    CHECK_READ(0, 100, 10, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, sequence, 0);
    CHECK_EQ(f->out.read_count, 0); /* Once. */
    CHECK_EQ(bop__read_index_deadline_ms(&f->reads), UINT64_MAX);
}

TEST(read_index, is_served_at_once_where_the_leader_is_the_only_voter)
{
    f->view.voter_count = 1;
    ask(f, 100);
    CHECK_EQ(f->out.message_count, 0);
    CHECK_READ(0, 100, 10, 0);
}

TEST(read_index, takes_no_answer_of_strangers_standbys_other_terms_or_to_nothing_asked)
{
    uint64_t sequence;

    ask(f, 100);
    sequence = f->out.messages[0].read.sequence;
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 4, 5, sequence, 0);
    CHECK_EQ(f->out.read_count, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 4, sequence, 0);
    CHECK_EQ(f->out.read_count, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 6, sequence, 0);
    CHECK_EQ(f->out.read_count, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, sequence - 1, 0);
    CHECK_EQ(f->out.read_count, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, sequence + 1, 0);
    CHECK_EQ(f->out.read_count, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, UINT64_MAX, 0);
    CHECK_EQ(f->out.read_count, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, sequence, 0);
    CHECK_EQ(f->out.read_count, 1);
}

/* Five voters need two answers besides the leader's own. */
TEST(read_index, counts_voters_and_not_answers)
{
    uint64_t sequence;

    f->view.voter_count = 5;
    f->view.voters[3] = 4;
    f->view.voters[4] = 5;
    ask(f, 100);
    sequence = f->out.messages[0].read.sequence;
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, sequence, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, sequence, 0);
    CHECK_EQ(f->out.read_count, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 5, 5, sequence, 0);
    CHECK_EQ(f->out.read_count, 1);
}

/* A leader that has just removed itself does not count. */
TEST(read_index, does_not_count_a_leader_without_a_vote)
{
    uint64_t sequence;

    f->view.voters[0] = 2;
    f->view.voters[1] = 3;
    f->view.voter_count = 2;
    ask(f, 100);
    sequence = f->out.messages[0].read.sequence;
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, sequence, 0);
    CHECK_EQ(f->out.read_count, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 3, 5, sequence, 0);
    CHECK_EQ(f->out.read_count, 1);
}

TEST(read_index, lets_batches_share_a_probe_when_enough_are_under_way)
{
    uint64_t first = 0;

    for (uint64_t i = 0; i < PROBES_IN_FLIGHT_MAX; i++) {
        ask(f, 100 + i);
        REQUIRE_EQ(f->out.message_count, 2);
        first = i == 0 ? f->out.messages[0].read.sequence : first;
    }
    ask(f, 200);
    CHECK_EQ(f->out.message_count, 0);
    f->view.commit = 11;
    ask(f, 201);
    CHECK_EQ(f->out.message_count, 0);

    /* The first is answered: the two that wait go out together. */
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, first, 0);
    CHECK_EQ(f->out.read_count, 1);
    REQUIRE_EQ(f->out.message_count, 2);
    CHECK_EQ(f->out.messages[0].read.sequence, first + PROBES_IN_FLIGHT_MAX);

    /* An answer to the last is one to all before. */
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 3, 5, first + PROBES_IN_FLIGHT_MAX, 0);
    REQUIRE_EQ(f->out.read_count, PROBES_IN_FLIGHT_MAX - 1 + 2);
    CHECK_READ(PROBES_IN_FLIGHT_MAX - 1, 200, 10, 0);
    CHECK_READ(PROBES_IN_FLIGHT_MAX, 201, 11, 0);
}

TEST(read_index, waits_for_a_new_leader_to_know_what_is_committed)
{
    f->view.ready = false;
    ask(f, 100);
    CHECK_EQ(f->out.message_count, 0);
    f->view.ready = true;
    f->view.commit = 15; /* What the leader before acknowledged is in there. */
    pass(f, 1);
    REQUIRE_EQ(f->out.message_count, 2);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, f->out.messages[0].read.sequence, 0);
    CHECK_READ(0, 100, 15, 0);
}

TEST(read_index, sends_the_newest_probe_again_every_heartbeat)
{
    uint64_t sequence;

    ask(f, 100);
    ask(f, 101);
    sequence = f->out.messages[0].read.sequence;
    CHECK_EQ(bop__read_index_deadline_ms(&f->reads), 1000 + HEARTBEAT_MS);
    pass(f, HEARTBEAT_MS - 1);
    CHECK_EQ(f->out.message_count, 0);
    pass(f, 1);
    REQUIRE_EQ(f->out.message_count, 2);
    CHECK_EQ(f->out.messages[1].read.sequence, sequence);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, sequence, 0);
    CHECK_EQ(f->out.read_count, 2);
}

TEST(read_index, gives_up_after_two_election_timeouts)
{
    ask(f, 100);
    pass(f, 2 * ELECTION_MS - 1);
    CHECK_EQ(f->out.read_count, 0);
    pass(f, 1);
    CHECK_EQ(f->out.read_count, 1);
    CHECK_READ(0, 100, 0, BOP_ENOLEADER);
    CHECK_EQ(bop__read_index_deadline_ms(&f->reads), UINT64_MAX);
}

TEST(read_index, gives_up_when_leadership_or_the_term_is_lost)
{
    ask(f, 100);
    follow(f, 0);
    pass(f, 1);
    CHECK_READ(0, 100, 0, BOP_ENOLEADER);

    f->view.state = BOP_RAFT_LEADER;
    f->view.leader = 1;
    f->view.ready = true;
    ask(f, 101);
    f->view.term = 7; /* Leader again, of a later term, within one step. */
    pass(f, 1);
    CHECK_READ(0, 101, 0, BOP_ENOLEADER);
}

TEST(read_index, refuses_more_than_it_can_hold)
{
    f->view.ready = false;
    for (uint64_t i = 0; i < READ_BATCHES_MAX; i++) {
        ask(f, i + 1);
    }
    CHECK_EQ(bop__read_index_ask(&f->reads, &f->view, 9999, &f->out), BOP_EBUSY);
    follow(f, 0);
    pass(f, 1);
    CHECK_EQ(f->out.read_count, READ_BATCHES_MAX);
}

/* ---- Follower ---- */

TEST(read_index, has_a_follower_ask_its_leader)
{
    uint64_t sequence;

    follow(f, 2);
    ask(f, 100);
    REQUIRE_EQ(f->out.message_count, 1);
    CHECK_EQ(f->out.messages[0].type, BOP_RAFT_READ_REQUEST);
    CHECK_EQ(f->out.messages[0].peer, 2);
    CHECK_EQ(f->out.messages[0].term, 5);
    sequence = f->out.messages[0].read.sequence;

    receive(f, BOP_RAFT_READ_RESULT, 3, 5, sequence, 77); /* Not the leader. */
    receive(f, BOP_RAFT_READ_RESULT, 2, 4, sequence, 77);
    receive(f, BOP_RAFT_READ_RESULT, 2, 5, sequence - 1, 77); /* Of an earlier life. */
    receive(f, BOP_RAFT_READ_RESULT, 2, 5, sequence + 1, 77);
    CHECK_EQ(f->out.read_count, 0);
    receive(f, BOP_RAFT_READ_RESULT, 2, 5, sequence, 12);
    CHECK_READ(0, 100, 12, 0);
    receive(f, BOP_RAFT_READ_RESULT, 2, 5, sequence, 12);
    CHECK_EQ(f->out.read_count, 0);
}

TEST(read_index, tells_a_follower_at_once_that_there_is_no_leader)
{
    follow(f, 0);
    ask(f, 100);
    CHECK_EQ(f->out.message_count, 0);
    CHECK_READ(0, 100, 0, BOP_ENOLEADER);
}

TEST(read_index, ends_when_the_leader_refuses_or_another_leads)
{
    follow(f, 2);
    ask(f, 100);
    receive(f, BOP_RAFT_READ_RESULT, 2, 5, f->out.messages[0].read.sequence, 0);
    CHECK_READ(0, 100, 0, BOP_ENOLEADER);

    ask(f, 101);
    follow(f, 3);
    pass(f, 1);
    CHECK_READ(0, 101, 0, BOP_ENOLEADER);
}

TEST(read_index, asks_the_leader_again_and_then_gives_up)
{
    uint64_t sequence;

    follow(f, 2);
    ask(f, 100);
    sequence = f->out.messages[0].read.sequence;
    pass(f, HEARTBEAT_MS);
    REQUIRE_EQ(f->out.message_count, 1);
    CHECK_EQ(f->out.messages[0].read.sequence, sequence);
    pass(f, 2 * ELECTION_MS);
    CHECK_READ(0, 100, 0, BOP_ENOLEADER);
    receive(f, BOP_RAFT_READ_RESULT, 2, 5, sequence, 12); /* Too late. */
    CHECK_EQ(f->out.read_count, 0);
}

TEST(read_index, starts_its_numbers_elsewhere_with_another_seed)
{
    struct read_index other;

    bop__read_index_init(&other, &f->heap.allocator, HEARTBEAT_MS, ELECTION_MS, 43);
    CHECK(other.sequence != f->reads.sequence);
    bop__read_index_deinit(&other);
}

/* ---- Answering ---- */

TEST(read_index, answers_a_probe_of_its_own_term_only)
{
    follow(f, 2);
    receive(f, BOP_RAFT_READ_PROBE, 2, 4, 9, 0);
    receive(f, BOP_RAFT_READ_PROBE, 2, 6, 9, 0);
    CHECK_EQ(f->out.message_count, 0);
    receive(f, BOP_RAFT_READ_PROBE, 2, 5, 9, 0);
    REQUIRE_EQ(f->out.message_count, 1);
    CHECK_EQ(f->out.messages[0].type, BOP_RAFT_READ_PROBE_RESULT);
    CHECK_EQ(f->out.messages[0].peer, 2);
    CHECK_EQ(f->out.messages[0].term, 5);
    CHECK_EQ(f->out.messages[0].read.sequence, 9);
}

TEST(read_index, runs_a_batch_for_a_follower)
{
    uint64_t sequence;

    receive(f, BOP_RAFT_READ_REQUEST, 3, 5, 70, 0);
    REQUIRE_EQ(f->out.message_count, 2);
    CHECK_EQ(f->out.messages[0].type, BOP_RAFT_READ_PROBE);
    sequence = f->out.messages[0].read.sequence;
    receive(f, BOP_RAFT_READ_REQUEST, 3, 5, 70, 0); /* Again, while it waits. */
    CHECK_EQ(f->out.message_count, 0);
    receive(f, BOP_RAFT_READ_PROBE_RESULT, 2, 5, sequence, 0);
    REQUIRE_EQ(f->out.message_count, 1);
    CHECK_EQ(f->out.messages[0].type, BOP_RAFT_READ_RESULT);
    CHECK_EQ(f->out.messages[0].peer, 3);
    CHECK_EQ(f->out.messages[0].read.sequence, 70);
    CHECK_EQ(f->out.messages[0].read.index, 10);
    CHECK_EQ(f->out.read_count, 0);
}

TEST(read_index, refuses_a_follower_when_it_does_not_lead)
{
    follow(f, 2);
    receive(f, BOP_RAFT_READ_REQUEST, 3, 4, 70, 0); /* It will learn of term 5 by other means. */
    CHECK_EQ(f->out.message_count, 0);
    receive(f, BOP_RAFT_READ_REQUEST, 3, 5, 70, 0);
    REQUIRE_EQ(f->out.message_count, 1);
    CHECK_EQ(f->out.messages[0].type, BOP_RAFT_READ_RESULT);
    CHECK_EQ(f->out.messages[0].read.index, 0);
}

TEST(read_index, tells_a_follower_that_waits_when_leadership_is_lost)
{
    receive(f, BOP_RAFT_READ_REQUEST, 3, 5, 70, 0);
    follow(f, 0);
    f->view.term = 6;
    pass(f, 1);
    REQUIRE_EQ(f->out.message_count, 1);
    CHECK_EQ(f->out.messages[0].type, BOP_RAFT_READ_RESULT);
    CHECK_EQ(f->out.messages[0].term, 5); /* The term it asked in: it may know no other yet. */
    CHECK_EQ(f->out.messages[0].read.index, 0);
}

TEST(read_index, says_when_memory_is_out)
{
    FAULT_SWEEP(&f->faults) {
        struct read_index reads;
        struct raft_outbox out;
        int rc;

        bop__raft_outbox_init(&out, &f->heap.allocator);
        bop__read_index_init(&reads, &f->heap.allocator, HEARTBEAT_MS, ELECTION_MS, 1);
        rc = bop__read_index_ask(&reads, &f->view, 1, &out);
        if (rc == 0) {
            bop__read_index_turn(&reads, &f->view, &out);
        }
        CHECK_EQ(rc != 0 || out.failed, f->faults.fired != 0);
        bop__read_index_deinit(&reads);
        bop__raft_outbox_deinit(&out);
    }
    CHECK_EQ(f->faults.at, 2); /* The ring and the messages. */
}
