#include <bop/random.h>

#include "machine_help.h"

#define TOKEN  "0123456789abcde"
#define TOKEN2 "0123456789abcdf"

struct fixture {
    struct test_heap heap;
    struct world world;
    uint64_t session;
    struct bop_operation add;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    world_init(&f->world, &f->heap.allocator);
    f->session = world_session(&f->world, 5000, TOKEN);
    f->add = op_add("c", 1);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* Add 1 to the counter. Returns its new value, or minus the status. */
static int64_t add(struct fixture *f, uint64_t sequence, uint64_t acked)
{
    uint8_t status = world_write(&f->world, f->session, sequence, acked, &f->add);

    return status == BOP_STATUS_OK ? world_decoded(&f->world, BOP_OP_COUNTER_ADD).number : -status;
}

TEST(session, id_is_the_index_that_opened_it)
{
    struct world *w = &f->world;

    CHECK_EQ(f->session, 1);
    CHECK_EQ(world_result(w).size, 8);
    CHECK_EQ(bop_load_u64(world_result(w).data), 1);
    CHECK_EQ(world_put(w, "m", "k", "v"), BOP_STATUS_OK);
    CHECK_EQ(world_session(w, 5000, TOKEN), 3);
    CHECK_EQ(bop__machine_session_count(w->machine), 2);
}

TEST(session, checks_its_token)
{
    const struct machine *machine = f->world.machine;

    CHECK_EQ(bop__machine_session_check(machine, 1, (const uint8_t *)TOKEN), true);
    CHECK_EQ(bop__machine_session_check(machine, 1, (const uint8_t *)TOKEN2), false);
    CHECK_EQ(bop__machine_session_check(machine, 1, NULL), true);
    CHECK_EQ(bop__machine_session_check(machine, 2, NULL), false);
    CHECK_EQ(bop__machine_session_check(machine, 0, NULL), false);
}

TEST(session, write_runs_once)
{
    CHECK_EQ(add(f, 1, 0), 1);
    CHECK_EQ(add(f, 1, 0), 1);
    CHECK_EQ(add(f, 2, 0), 2);
    CHECK_EQ(add(f, 1, 0), 1);
    world_reopen(&f->world);
    CHECK_EQ(add(f, 1, 0), 1);
    CHECK_EQ(add(f, 2, 0), 2);
    CHECK_EQ(add(f, 3, 0), 3);
}

/* In one batch too, and whatever the number of the operation is by then. */
TEST(session, retry_in_the_same_batch_runs_once)
{
    world_begin(&f->world);
    CHECK_EQ(add(f, 5, 0), 1);
    CHECK_EQ(add(f, 5, 0), 1);
    CHECK_EQ(add(f, 4, 0), 2); /* The log's order counts, not the sequences'. */
    CHECK_EQ(add(f, 5, 0), 1);
    world_commit(&f->world);
    CHECK_EQ(add(f, 4, 0), 2);
}

/* Failures are results as others: the retry must not find another answer. */
TEST(session, remembers_failures)
{
    struct world *w = &f->world;
    struct bop_operation put = op_put("m", bytes("k"), bytes("v"));
    struct bop_operation get = {.op = BOP_OP_MAP_GET, .name = bytes("m"), .key = bytes("k")};
    struct bop_result result;

    CHECK_EQ(world_put(w, "m", "k", "old"), BOP_STATUS_OK); /* Index 2. */
    put.condition = BOP_IF_ABSENT;
    CHECK_EQ(world_write(w, 1, 1, 0, &put), BOP_STATUS_CONDITION);
    CHECK_EQ(world_decoded(w, BOP_OP_MAP_PUT).version, 2);
    CHECK_EQ(world_delete(w, "m", "k"), BOP_STATUS_OK);
    CHECK_EQ(world_write(w, 1, 1, 0, &put), BOP_STATUS_CONDITION);
    CHECK_EQ(world_decoded(w, BOP_OP_MAP_PUT).version, 2);
    result = world_get(w, "m", bytes("k"));
    CHECK_EQ(result.status, BOP_STATUS_NOT_FOUND);

    CHECK_EQ(world_write(w, 1, 2, 0, &get), BOP_STATUS_BAD_REQUEST); /* No write. */
    CHECK_EQ(world_write(w, 1, 2, 0, &put), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(world_write(w, 1, 3, 0, &put), BOP_STATUS_OK);
}

TEST(session, forgets_what_is_acknowledged)
{
    for (uint64_t i = 1; i <= 200; i++) {
        CHECK_EQ(add(f, i, 0), i);
    }
    CHECK_EQ(add(f, 201, 130), 201);
    CHECK_EQ(add(f, 130, 0), -BOP_STATUS_STALE);
    CHECK_EQ(add(f, 1, 0), -BOP_STATUS_STALE);
    CHECK_EQ(add(f, 131, 0), 131);
    CHECK_EQ(add(f, 202, 7), 202); /* Never taken back. */
    CHECK_EQ(add(f, 130, 0), -BOP_STATUS_STALE);
    world_reopen(&f->world);
    CHECK_EQ(add(f, 130, 0), -BOP_STATUS_STALE);
    CHECK_EQ(add(f, 131, 0), 131);
    CHECK_EQ(add(f, 203, 0), 203);
}

/* A duplicate changes nothing, what it says of acknowledgements included. */
TEST(session, retry_acknowledges_nothing)
{
    CHECK_EQ(add(f, 1, 0), 1);
    CHECK_EQ(add(f, 2, 0), 2);
    CHECK_EQ(add(f, 2, 1), 2);
    CHECK_EQ(add(f, 1, 0), 1);
}

TEST(session, refuses_numbers_that_make_no_sense)
{
    CHECK_EQ(add(f, 0, 0), -BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(add(f, 5, 5), -BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(add(f, 5, UINT64_MAX), -BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(add(f, 5, 4), 1);
}

TEST(session, window_is_bounded)
{
    CHECK_EQ(add(f, MACHINE_WINDOW_MAX + 1, 0), -BOP_STATUS_BUSY);
    CHECK_EQ(add(f, MACHINE_WINDOW_MAX, 0), 1);
    CHECK_EQ(add(f, UINT64_MAX, 0), -BOP_STATUS_BUSY);
    CHECK_EQ(add(f, MACHINE_WINDOW_MAX + 1, 0), -BOP_STATUS_BUSY); /* Not remembered. */
    CHECK_EQ(add(f, MACHINE_WINDOW_MAX + 1, 1), 2);                /* Its own word counts. */
    CHECK_EQ(add(f, UINT64_MAX, UINT64_MAX - 1), 3);
    CHECK_EQ(add(f, UINT64_MAX, UINT64_MAX - 1), 3);
    CHECK_EQ(add(f, MACHINE_WINDOW_MAX, 0), -BOP_STATUS_STALE);
}

/* More chunks than are kept in memory; every fourth reply is asked for again. */
TEST(session, window_may_be_filled)
{
    world_begin(&f->world);
    for (uint64_t i = MACHINE_WINDOW_MAX; i > 0; i--) {
        CHECK_EQ(add(f, i, 0), MACHINE_WINDOW_MAX - i + 1);
    }
    world_commit(&f->world);
    world_reopen(&f->world);
    for (uint64_t i = 1; i <= MACHINE_WINDOW_MAX; i += 4) {
        world_begin(&f->world);
        CHECK_EQ(add(f, i, 0), MACHINE_WINDOW_MAX - i + 1);
        world_commit(&f->world);
    }
    CHECK_EQ(add(f, MACHINE_WINDOW_MAX + 1, MACHINE_WINDOW_MAX), MACHINE_WINDOW_MAX + 1);
}

/* 1500 sessions have a chunk each in a batch, and 1024 are cached. */
TEST(session, may_be_one_of_many)
{
    struct world *w = &f->world;
    uint64_t sessions[1500];

    world_begin(w);
    for (size_t i = 0; i < BOP_COUNT_OF(sessions); i++) {
        sessions[i] = world_session(w, 5000, TOKEN);
    }
    for (unsigned round = 0; round < 4; round++) {
        for (size_t i = 0; i < BOP_COUNT_OF(sessions); i++) {
            f->session = sessions[i];
            /* Rounds 1 and 3 repeat the writes of rounds 0 and 2. */
            CHECK_EQ(add(f, 1 + round / 2, 0), 1 + (round / 2) * BOP_COUNT_OF(sessions) + i);
        }
        if (round == 1) {
            world_commit(w);
            world_reopen(w);
            world_begin(w);
        }
    }
    world_commit(w);
    CHECK_EQ(world_expire(w, sessions, 1000), BOP_STATUS_OK);
    CHECK_EQ(bop__machine_session_count(w->machine), 501); /* 500 and that of the fixture. */
    for (size_t i = 0; i < BOP_COUNT_OF(sessions); i++) {
        f->session = sessions[i];
        CHECK_EQ(add(f, 1, 0), i < 1000 ? -BOP_STATUS_NO_SESSION : (int64_t)i + 1);
    }
}

TEST(session, ends_with_its_token)
{
    struct world *w = &f->world;

    CHECK_EQ(add(f, 1, 0), 1);
    CHECK_EQ(world_end_session(w, 1, TOKEN2), BOP_STATUS_REFUSED);
    CHECK_EQ(add(f, 1, 0), 1);
    CHECK_EQ(world_end_session(w, 1, TOKEN), BOP_STATUS_OK);
    CHECK_EQ(bop__machine_session_count(w->machine), 0);
    CHECK_EQ(add(f, 1, 0), -BOP_STATUS_NO_SESSION);
    CHECK_EQ(world_end_session(w, 1, TOKEN), BOP_STATUS_NO_SESSION);
    world_reopen(w);
    CHECK_EQ(add(f, 2, 0), -BOP_STATUS_NO_SESSION);
}

/* After its end the store holds as much of it as if it had never been: nothing. */
TEST(session, leaves_no_replies_behind)
{
    struct world *w = &f->world;

    for (uint64_t i = 1; i <= 300; i++) {
        CHECK_EQ(add(f, i * 7, 0), i);
    }
    CHECK_EQ(world_records(w, MACHINE_REPLIES), 33); /* 7 to 2100: chunks 0 to 32. */
    world_reopen(w);                                 /* It is not in memory then. */
    CHECK_EQ(world_expire(w, &f->session, 1), BOP_STATUS_OK);
    CHECK_EQ(world_records(w, MACHINE_REPLIES), 0);
    CHECK_EQ(world_records(w, MACHINE_SESSIONS), 0);
}

/* Chunks go when all of their 64 sequences are acknowledged: 0 to 63, 64 to 127, ... */
TEST(session, stores_no_chunk_that_is_acknowledged)
{
    struct world *w = &f->world;

    for (uint64_t i = 1; i <= 200; i++) {
        CHECK_EQ(add(f, i, 0), i);
    }
    CHECK_EQ(world_records(w, MACHINE_REPLIES), 4);
    CHECK_EQ(add(f, 201, 126), 201);
    CHECK_EQ(world_records(w, MACHINE_REPLIES), 3);
    CHECK_EQ(add(f, 202, 127), 202);
    CHECK_EQ(world_records(w, MACHINE_REPLIES), 2);
    CHECK_EQ(add(f, 1000000, 999999), 203);
    CHECK_EQ(world_records(w, MACHINE_REPLIES), 1);
}

TEST(session, expiry_of_what_is_gone_is_nothing)
{
    uint64_t ids[4] = {99, 0, f->session, f->session};

    CHECK_EQ(world_expire(&f->world, ids, 4), BOP_STATUS_OK);
    CHECK_EQ(bop__machine_session_count(f->world.machine), 0);
    CHECK_EQ(world_expire(&f->world, ids, 4), BOP_STATUS_OK);
}

/* ---- Liveness ---- */

TEST(liveness, expires_what_was_silent_for_longer_than_its_timeout)
{
    struct machine *machine = f->world.machine;
    uint64_t ids[4];

    CHECK_EQ(bop__machine_session_seen(machine, 1, 100), true);
    CHECK_EQ(bop__machine_session_seen(machine, 2, 100), false);
    CHECK_EQ(bop__machine_sessions_expired(machine, 5100, ids, 4), 0);
    REQUIRE_EQ(bop__machine_sessions_expired(machine, 5101, ids, 4), 1);
    CHECK_EQ(ids[0], 1);
    CHECK_EQ(bop__machine_sessions_expired(machine, 5101, ids, 0), 0);
    CHECK_EQ(bop__machine_sessions_expired(machine, 50, ids, 4), 0); /* Before it was seen. */
    bop__machine_sessions_seen_all(machine, 6000);
    CHECK_EQ(bop__machine_sessions_expired(machine, 11000, ids, 4), 0);
    CHECK_EQ(bop__machine_sessions_expired(machine, 11001, ids, 4), 1);
}

/* Nobody is ended for silence before somebody has begun to listen. */
TEST(liveness, begins_when_first_asked_for)
{
    struct machine *machine = f->world.machine;
    uint64_t ids[4];

    CHECK_EQ(bop__machine_sessions_expired(machine, 1000000, ids, 4), 0);
    CHECK_EQ(bop__machine_sessions_expired(machine, 1005000, ids, 4), 0);
    CHECK_EQ(bop__machine_sessions_expired(machine, 1005001, ids, 4), 1);
}

TEST(liveness, outlives_an_aborted_batch)
{
    struct world *w = &f->world;
    uint64_t ids[4];

    CHECK_EQ(bop__machine_session_seen(w->machine, 1, 100), true);
    world_begin(w);
    CHECK_EQ(world_put(w, "m", "k", "v"), BOP_STATUS_OK);
    world_abort(w);
    CHECK_EQ(bop__machine_sessions_expired(w->machine, 5101, ids, 4), 1);
}

TEST(liveness, clamps_the_timeout)
{
    struct world *w = &f->world;
    uint64_t ids[4];

    CHECK_EQ(bop__machine_session_timeout(0), 1000);
    CHECK_EQ(bop__machine_session_timeout(1001), 1001);
    CHECK_EQ(bop__machine_session_timeout(UINT32_MAX), 24 * 3600 * 1000);
    f->session = world_session(w, 1, TOKEN);
    bop__machine_sessions_seen_all(w->machine, 0);
    CHECK_EQ(bop__machine_sessions_expired(w->machine, 1000, ids, 4), 0);
    REQUIRE_EQ(bop__machine_sessions_expired(w->machine, 1001, ids, 4), 1);
    CHECK_EQ(ids[0], f->session);
}

/* ---- Grace ---- */

static uint64_t session_with_grace(struct fixture *f, uint32_t timeout_ms, uint32_t grace_ms)
{
    struct command command = {
        .kind = COMMAND_SESSION_OPEN, .timeout_ms = timeout_ms, .grace_ms = grace_ms};

    memcpy(command.token, TOKEN, BOP_TOKEN_SIZE);
    REQUIRE_EQ(world_command(&f->world, &command), BOP_STATUS_OK);
    return f->world.last.session;
}

static bool expired(struct fixture *f, uint64_t session, uint64_t now_ms)
{
    uint64_t ids[4];
    size_t count = bop__machine_sessions_expired(f->world.machine, now_ms, ids, 4);

    for (size_t i = 0; i < count; i++) {
        if (ids[i] == session) {
            return true;
        }
    }
    return false;
}

#define MODEL_SESSIONS 12
#define MODEL_GRACE_MS 300

struct model_session {
    uint64_t id; /* 0: there is none. */
    uint64_t seen_ms;
    uint32_t timeout_ms;
    uint32_t patience_ms;
};

/* Open it, or hear of it, or of its connection's end, or nothing. */
static void model_step(struct fixture *f, struct model_session *session, uint64_t what,
                       uint64_t now_ms)
{
    struct machine *machine = f->world.machine;

    if (session->id == 0) {
        session->id = session_with_grace(f, session->timeout_ms, MODEL_GRACE_MS);
        what = 0;
    }
    if (what == 0) {
        CHECK(bop__machine_session_heard(machine, session->id, 7, now_ms));
        session->seen_ms = now_ms;
        session->patience_ms = session->timeout_ms;
    } else if (what == 1 && session->patience_ms == session->timeout_ms) {
        bop__machine_session_cut(machine, session->id, 7, now_ms);
        session->seen_ms = now_ms;
        session->patience_ms = MODEL_GRACE_MS;
    }
}

/* Exactly those are found that are silent for too long; they are ended. */
static void model_check(struct fixture *f, struct model_session *sessions, uint64_t now_ms)
{
    uint64_t ids[MODEL_SESSIONS];
    size_t silent = 0,
           count = bop__machine_sessions_expired(f->world.machine, now_ms, ids, MODEL_SESSIONS);

    for (size_t i = 0; i < MODEL_SESSIONS; i++) {
        struct model_session *session = &sessions[i];
        bool found = false;

        for (size_t k = 0; k < count && session->id != 0; k++) {
            found = found || ids[k] == session->id;
        }
        CHECK_EQ(found, session->id != 0 && now_ms - session->seen_ms > session->patience_ms);
        silent += found;
        session->id = found ? 0 : session->id;
    }
    CHECK_EQ(silent, count);
    if (count > 0) {
        CHECK_EQ(world_expire(&f->world, ids, count), BOP_STATUS_OK);
    }
}

TEST(grace, agrees_with_a_model_however_often_it_is_asked)
{
    struct model_session sessions[MODEL_SESSIONS] = {0};
    struct bop_random random;
    uint64_t now_ms = 1000;

    bop_random_seed(&random, 5);
    world_newest_level(&f->world);
    world_end_session(&f->world, f->session, TOKEN);
    for (size_t i = 0; i < MODEL_SESSIONS; i++) {
        sessions[i].timeout_ms = 1000u << i % 4;
    }
    for (unsigned step = 0; step < 10000; step++) {
        now_ms += bop_random_below(&random, 150);
        model_step(f, &sessions[bop_random_below(&random, MODEL_SESSIONS)],
                   bop_random_below(&random, 4), now_ms);
        if (bop_random_below(&random, 3) > 0) {
            model_check(f, sessions, now_ms);
        }
    }
}

TEST(grace, needs_a_level_of_the_cluster)
{
    struct command command = {.kind = COMMAND_SESSION_OPEN, .timeout_ms = 5000, .grace_ms = 1};

    CHECK_EQ(world_command(&f->world, &command), BOP_STATUS_TOO_OLD);
    world_newest_level(&f->world);
    CHECK_EQ(world_command(&f->world, &command), BOP_STATUS_OK);
}

TEST(grace, ends_a_session_whose_connection_broke)
{
    struct machine *machine = f->world.machine;
    uint64_t session;

    world_newest_level(&f->world);
    session = session_with_grace(f, 10000, 300);
    CHECK(bop__machine_session_heard(machine, session, 7, 100));
    CHECK(!expired(f, session, 5000));
    bop__machine_session_cut(machine, session, 7, 5000);
    CHECK(!expired(f, session, 5300));
    bop__machine_session_cut(machine, session, 7, 5300); /* That was known. */
    CHECK(expired(f, session, 5301));
    bop__machine_session_wrote(machine, session, 7, 5301); /* It was sent before. */
    CHECK(expired(f, session, 5302));
    CHECK(bop__machine_session_heard(machine, session, 8, 5302)); /* It is back. */
    CHECK(!expired(f, session, 15302));
    CHECK(expired(f, session, 15303));
}

/* It went on through node 8, whose word came before that of node 7. */
TEST(grace, is_not_for_those_who_went_on_elsewhere)
{
    struct machine *machine = f->world.machine;
    uint64_t session;

    world_newest_level(&f->world);
    session = session_with_grace(f, 10000, 300);
    bop__machine_session_wrote(machine, session, 7, 100);
    CHECK(bop__machine_session_heard(machine, session, 8, 200));
    bop__machine_session_wrote(machine, session, 7, 250);
    bop__machine_session_cut(machine, session, 7, 300);
    CHECK(!expired(f, session, 10250));
    bop__machine_sessions_seen_all(machine, 20000); /* A new leader knows nothing. */
    bop__machine_session_cut(machine, session, 8, 20001);
    CHECK(!expired(f, session, 30000));
}

TEST(grace, of_0_is_the_whole_timeout)
{
    struct machine *machine = f->world.machine;

    CHECK(bop__machine_session_heard(machine, f->session, 7, 100));
    bop__machine_session_cut(machine, f->session, 7, 200);
    CHECK(!expired(f, f->session, 5100));
    CHECK(expired(f, f->session, 5101));
}

TEST(grace, is_kept_in_the_store)
{
    uint64_t session;

    world_newest_level(&f->world);
    session = session_with_grace(f, 10000, 300);
    CHECK_EQ(world_records(&f->world, MACHINE_SESSIONS), 2);
    world_reopen(&f->world);
    CHECK(bop__machine_session_heard(f->world.machine, session, 7, 100));
    bop__machine_session_cut(f->world.machine, session, 7, 200);
    CHECK(expired(f, session, 501));
}
