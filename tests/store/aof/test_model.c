/*
 * Random operations and crashes against a model.
 *
 * The model is the list of changes since the log was opened. What a crash leaves
 * must be the log as it was after some number of them: at least as many as were reported
 * durable, and never a mixture. Nothing that a crash leaves may be judged corrupt.
 *
 * The seed also says how the log is used: how many writes are on their way at once, in which
 * layout, to which levels, and if what is not durable may be re-homed. Writes are carried out in
 * parts and in any order (chaos.h).
 *
 * MODEL_SEEDS=n runs n seeds, MODEL_SEED=s runs one.
 */
#include <stdlib.h>

#include <bop/sim.h>

#include "chaos.h"
#include "harness.h"

#define SEEDS        400
#define STEPS        80
#define SEQ_BOUND    8192 /* The model's records are numbered below. */
#define CHANGES_MAX  4096
#define PAYLOAD_MAX  9000
#define READ_RECORDS 16

enum change_kind {
    APPEND, /* seq, id */
    BACK,   /* seq: the last kept */
    FRONT,  /* seq: the first after it */
    RESET,  /* seq: the first */
    FENCE,  /* id: the epoch */
};

struct change {
    enum change_kind kind;
    uint64_t seq;
    uint64_t id;
};

/* A log: the ids of its records; 0 where there is none. */
struct state {
    uint64_t first;
    uint64_t last;
    uint64_t epoch;
    uint64_t ids[SEQ_BOUND]; /* Those below first stay until others take their place. */
};

static struct model {
    struct state base; /* When the log was opened. */
    struct state now;
    struct change changes[CHANGES_MAX];
    size_t count;
    size_t durable; /* So many changes are known to be on disk. */
    uint64_t next_id;
    struct bop_random random;
    struct chaos chaos;
    struct chaos_fs fs;
    bool broken; /* A check failed: stop this seed. */
} model;

static uint64_t below(uint64_t bound)
{
    return bop_random_below(&model.random, bound);
}

/* ---- The model ---- */

static void apply(struct state *state, const struct change *change)
{
    switch (change->kind) {
    case APPEND:
        state->ids[change->seq] = change->id;
        state->last = change->seq;
        break;
    case BACK:
        memset(&state->ids[change->seq + 1], 0,
               (SEQ_BOUND - change->seq - 1) * sizeof(state->ids[0]));
        state->last = change->seq;
        if (state->last + 1 == state->first) {
            memset(state->ids, 0, sizeof(state->ids)); /* It begins anew. */
        }
        break;
    case FRONT:
        state->first = change->seq;
        break;
    case RESET:
        memset(state->ids, 0, sizeof(state->ids));
        state->first = change->seq;
        state->last = change->seq - 1;
        break;
    case FENCE:
        state->epoch = change->id;
        break;
    }
}

static void record_change(enum change_kind kind, uint64_t seq, uint64_t id)
{
    struct change change = {.kind = kind, .seq = seq, .id = id};

    REQUIRE(model.count < CHANGES_MAX);
    model.changes[model.count++] = change;
    apply(&model.now, &change);
}

/* ---- Payloads follow from ids ---- */

static size_t payload_of(uint64_t id, uint8_t out[PAYLOAD_MAX])
{
    struct bop_random random;
    uint64_t kind;
    size_t size;

    bop_random_seed(&random, id);
    kind = bop_random_below(&random, 20);
    size = (size_t)bop_random_below(&random, kind == 0 ? PAYLOAD_MAX : kind < 4 ? 1500 : 100);
    /* Many zeros look like sectors that were never written. */
    memset(out, 0, size);
    if (kind % 4 != 1) {
        for (size_t i = 0; i < size; i++) {
            out[i] = (uint8_t)bop_random_next(&random);
        }
    }
    return size;
}

static bool view_is(const struct bop_aof_view *view, uint64_t seq, uint64_t id)
{
    uint8_t payload[PAYLOAD_MAX];
    size_t size = payload_of(id, payload);

    return view->seq == seq && view->tag == id && view->time_us == id * 3 &&
           view->payload.size == size && memcmp(view->payload.data, payload, size) == 0;
}

/* ---- Comparing ---- */

/* Re-homing writes what the log is by then: its front may get to the disk before records that
 * were appended before it was moved up. */
static bool first_is(const struct fixture *f, const struct state *state, uint64_t first)
{
    if (first == state->first) {
        return true;
    }
    for (size_t i = 0; i < model.count; i++) {
        if (f->options.rehome_max > 0 && model.changes[i].kind == FRONT &&
            model.changes[i].seq == first && first > state->first) {
            return true;
        }
    }
    return false;
}

/* The log holds what the state says, and nothing else. */
static bool log_is(struct fixture *f, const struct state *state)
{
    uint64_t first = bop_aof_first(f->aof);
    uint64_t seq = first;

    if (bop_aof_last(f->aof) != state->last || !first_is(f, state, first) ||
        bop_aof_epoch(f->aof) != state->epoch) {
        return false;
    }
    while (seq <= state->last) {
        struct bop_aof_view views[READ_RECORDS];
        int count = bop_aof_read(f->aof, seq, READ_RECORDS, 4000, &f->buf, views, &f->err);

        if (count <= 0) {
            CHECK_STR_EQ(f->err.message, "");
            return false;
        }
        for (int i = 0; i < count; i++, seq++) {
            if (state->ids[seq] == 0 || !view_is(&views[i], seq, state->ids[seq])) {
                return false;
            }
        }
    }
    return true;
}

/* Some state from the last durable change on is what was found; that one is the new base. */
static bool settle(struct fixture *f)
{
    static struct state state;

    state = model.base;
    for (size_t i = 0;; i++) {
        if (i >= model.durable && log_is(f, &state)) {
            break;
        }
        if (i == model.count) {
            return false;
        }
        apply(&state, &model.changes[i]);
    }
    state.first = bop_aof_first(f->aof);
    model.base = state;
    model.now = state;
    model.count = 0;
    model.durable = 0;
    return true;
}

/* ---- Operations ---- */

static void model_on_durable(void *user, uint64_t seq)
{
    BOP_IGNORE(user);
    CHECK(seq <= model.now.last);
    for (size_t i = model.count; i-- > model.durable;) {
        if (model.changes[i].kind == APPEND && model.changes[i].seq == seq) {
            model.durable = i + 1;
            return;
        }
    }
    CHECK(!"reported durable: a record that was dropped or reported before");
    model.broken = true;
}

/* Levels include one another. */
static void model_on_level(void *user, enum bop_aof_level level, uint64_t seq)
{
    struct fixture *f = user;

    CHECK(seq <= model.now.last);
    CHECK_EQ(bop_aof_reached(f->aof, level), seq);
    CHECK(bop_aof_reached(f->aof, BOP_AOF_OS) >= bop_aof_reached(f->aof, BOP_AOF_DISK));
}

/* Conditions that do not hold, and then those that do. */
static int append_with(struct fixture *f, struct bop_aof_append *append)
{
    struct bop_aof_receipt receipt = {0};
    int rc;

    if (bop_aof_failed(f->aof) == 0 && below(4) == 0) {
        append->expected_seq = bop_aof_last(f->aof) + 2;
        CHECK_EQ(bop_aof_append_with(f->aof, append, NULL), BOP_ECONDITION);
        append->expected_seq = bop_aof_last(f->aof) + 1;
        if (bop_aof_epoch(f->aof) > 1) {
            append->epoch = bop_aof_epoch(f->aof) - 1;
            CHECK_EQ(bop_aof_append_with(f->aof, append, NULL), BOP_EFENCED);
        }
        append->epoch = bop_aof_epoch(f->aof);
    }
    rc = bop_aof_append_with(f->aof, append, &receipt);
    if (rc == 0) {
        CHECK_EQ(receipt.seq, bop_aof_last(f->aof));
        CHECK_EQ(receipt.offset % 8, 0);
    }
    return rc;
}

/* One record in the log's own memory, or nothing. */
static void do_reserve(struct fixture *f)
{
    struct bop_aof_append append = {.level = (enum bop_aof_level)below(4)};
    uint8_t payload[PAYLOAD_MAX];
    size_t size = payload_of(model.next_id, payload);
    void *bytes;
    int rc;

    if (bop_aof_last(f->aof) >= SEQ_BOUND - 2 || model.count + 9 > CHANGES_MAX) {
        return;
    }
    rc = bop_aof_reserve(f->aof, &append, size + (size_t)below(100), &bytes);
    CHECK(rc == 0 || rc == BOP_EFULL || (rc == BOP_EFAILED && bop_aof_failed(f->aof) != 0));
    if (rc < 0) {
        return;
    }
    memcpy(bytes, payload, size);
    if (below(3) == 0) {
        bop_aof_abandon(f->aof);
        return;
    }
    bop_aof_complete(f->aof, size, model.next_id, model.next_id * 3, NULL);
    record_change(APPEND, model.now.last + 1, model.next_id++);
}

static void do_append(struct fixture *f)
{
    static uint8_t payloads[8][PAYLOAD_MAX];
    struct bop_aof_record records[8];
    size_t count = 1 + below(8);
    struct bop_aof_append append = {
        .records = records, .count = count, .level = (enum bop_aof_level)below(4)};
    int rc;

    if (bop_aof_last(f->aof) + count >= SEQ_BOUND - 1 || model.count + count + 8 > CHANGES_MAX) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t id = model.next_id + i;
        size_t size = payload_of(id, payloads[i]);
        size_t head = (size_t)below(size + 1);

        records[i] = (struct bop_aof_record){
            .tag = id,
            .time_us = id * 3,
            .head = bop_slice(payloads[i], head),
            .body = bop_slice(payloads[i] + head, size - head),
        };
    }
    rc = append_with(f, &append);
    CHECK(rc == 0 || rc == BOP_EFULL || (rc == BOP_EFAILED && bop_aof_failed(f->aof) != 0));
    for (size_t i = 0; rc == 0 && i < count; i++) {
        record_change(APPEND, model.now.last + 1, model.next_id++);
    }
}

static void do_truncate(struct fixture *f)
{
    uint64_t first = bop_aof_first(f->aof);
    uint64_t last = bop_aof_last(f->aof);
    uint64_t seq;

    if (bop_aof_failed(f->aof) != 0) {
        return;
    }
    switch (below(4)) {
    case 0:
    case 1: /* Often near the end, as conflicts are. */
        seq = last - below(bop_min_u64(last - (first - 1), below(4) == 0 ? 1000 : 5) + 1);
        REQUIRE_EQ(bop_aof_truncate_back(f->aof, seq), 0);
        if (seq != last) {
            record_change(BACK, seq, 0);
        }
        break;
    case 2:
        REQUIRE_EQ(bop_aof_truncate_front(f->aof, first + below(last - first + 2)), 0);
        if (bop_aof_first(f->aof) != first) {
            record_change(FRONT, bop_aof_first(f->aof), 0);
        }
        break;
    default:
        if (below(2) == 0) {
            REQUIRE_EQ(bop_aof_fence(f->aof, model.now.epoch + 1), 0);
            CHECK_EQ(bop_aof_fence(f->aof, model.now.epoch), BOP_EFENCED);
            record_change(FENCE, 0, model.now.epoch + 1);
        } else if (below(2) == 0) {
            REQUIRE_EQ(bop_aof_seal(f->aof), 0);
        } else if (below(2) == 0) {
            seq = 1 + below(SEQ_BOUND / 2);
            REQUIRE_EQ(bop_aof_reset(f->aof, seq), 0);
            record_change(RESET, seq, 0);
        }
        break;
    }
}

static void do_read(struct fixture *f)
{
    uint64_t first = bop_aof_first(f->aof);
    uint64_t count = bop_aof_last(f->aof) - (first - 1);

    for (int i = 0; i < 4 && count > 0; i++) {
        uint64_t seq = first + below(count);
        struct bop_aof_view view;
        int rc = bop_aof_read(f->aof, seq, 1, 0, &f->buf, &view, &f->err);

        if (rc != 1) {
            CHECK_STR_EQ(f->err.message, "");
            model.broken = true;
            return;
        }
        CHECK(view_is(&view, seq, model.now.ids[seq]));
    }
}

static void do_commit(struct fixture *f)
{
    int rc = bop_aof_flush(f->aof, UINT64_MAX);

    CHECK(rc == 0 || (rc == BOP_EFAILED && bop_aof_failed(f->aof) != 0));
    chaos_finish(&model.chaos);
    CHECK(!bop_aof_busy(f->aof));
    if (bop_aof_failed(f->aof) == 0) {
        CHECK_EQ(bop_aof_durable(f->aof), bop_aof_last(f->aof));
        model.durable = model.count;
    }
}

/* Let the executor finish and close. */
static void model_close(struct fixture *f)
{
    chaos_finish(&model.chaos);
    bop_aof_close(f->aof);
    f->aof = NULL;
}

/* Open, which may be cut short and interrupted by crashes itself, until it succeeds. */
static void reopen(struct fixture *f)
{
    int rc;

    while (below(3) == 0) {
        bop_fs_sim_stop_after(f->sim, 1 + below(40));
        rc = bop_aof_open(&f->options, &f->aof, &f->recovery, &f->err);
        CHECK(rc == 0 || rc == -EIO || rc == -EBADF);
        bop_aof_close(f->aof);
        f->aof = NULL;
        (below(2) == 0 ? bop_fs_sim_kill_process : bop_fs_sim_lose_power)(f->sim);
    }
    rc = open_log(f);
    if (rc != 0) {
        CHECK_STR_EQ(f->err.message, "");
        model.broken = true;
        return;
    }
    if (!settle(f)) {
        test_note("found [%llu, %llu], expected after change %zu of %zu from [%llu, %llu]",
                  (unsigned long long)bop_aof_first(f->aof),
                  (unsigned long long)bop_aof_last(f->aof), model.durable, model.count,
                  (unsigned long long)model.base.first, (unsigned long long)model.base.last);
        for (size_t i = 0; i < model.count; i++) {
            test_note("change %zu kind %d seq %llu id %llu", i, (int)model.changes[i].kind,
                      (unsigned long long)model.changes[i].seq,
                      (unsigned long long)model.changes[i].id);
        }
        CHECK(!"what the crash left is a state the log was in");
        model.broken = true;
    }
}

/* Stop at one of the next file operations, let the rest fail, and go. */
static void do_crash(struct fixture *f)
{
    uint64_t operations = below(2) == 0 ? 1 : 1 + below(40);

    bop_fs_sim_stop_after(f->sim, operations);
    if (below(2) == 0) {
        do_append(f);
    }
    chaos_finish(&model.chaos);
    CHECK(f->failed_calls <= 1);
    model_close(f);
    (below(2) == 0 ? bop_fs_sim_kill_process : bop_fs_sim_lose_power)(f->sim);
    reopen(f);
}

static void do_fail_sync(struct fixture *f)
{
    uint64_t durable;

    (below(3) == 0 ? do_truncate : do_append)(f);
    bop_fs_sim_fail_syncs(f->sim, 1);
    chaos_finish(&model.chaos);
    bop_fs_sim_fail_syncs(f->sim, 0);
    if (bop_aof_failed(f->aof) == 0) {
        return;
    }
    CHECK_EQ(f->failed_calls, 1);
    durable = bop_aof_durable(f->aof);
    do_append(f);
    do_read(f);
    chaos_finish(&model.chaos);
    CHECK_EQ(bop_aof_durable(f->aof), durable);
    model_close(f);
    if (below(2) == 0) {
        bop_fs_sim_lose_power(f->sim);
    }
    reopen(f);
}

static void step(struct fixture *f)
{
    uint64_t choice = below(100);
    uint64_t steps = below(3) == 0 ? below(30) : 0;

    while (steps-- > 0 && chaos_step(&model.chaos)) {
    }
    if (choice < 35) {
        do_append(f);
    } else if (choice < 40) {
        do_reserve(f);
    } else if (choice < 60) {
        do_commit(f);
    } else if (choice < 72) {
        do_truncate(f);
    } else if (choice < 86) {
        do_read(f);
    } else if (choice < 96) {
        do_crash(f);
    } else if (choice < 98) {
        do_fail_sync(f);
    } else {
        do_commit(f);
        model_close(f);
        reopen(f);
    }
}

static bool run_seed(struct fixture *f, uint64_t seed)
{
    static const uint64_t sizes[] = {4096, 6000, 8192, 16384, 65536};
    struct bop_fs_sim_options sim_options = {.seed = seed};

    memset(&model, 0, sizeof(model));
    bop_random_seed(&model.random, seed);
    model.next_id = 1;
    bop_fs_sim_destroy(f->sim);
    REQUIRE_EQ(bop_fs_sim_create(&sim_options, &f->sim), 0);
    chaos_fs_init(&model.fs, bop_fs_sim_fs(f->sim));
    chaos_init(&model.chaos, seed, below(3) == 0 ? 0 : 1 + (unsigned)below(8));
    f->options.fs = &model.fs.fs;
    f->options.executor = &model.chaos.executor;
    f->options.layout = below(2) == 0 ? BOP_AOF_ALIGNED : BOP_AOF_PACKED;
    f->options.rehome_max = below(2) == 0 ? 0 : 1 + (unsigned)below(3);
    f->options.on_level = model_on_level;
    f->options.on_durable = model_on_durable;
    f->options.segment_bytes = sizes[below(BOP_COUNT_OF(sizes))];
    f->options.pending_bytes_max = below(4) == 0 ? 2000 : 0;
    f->options.first_seq = 1 + below(100);
    model.base.first = f->options.first_seq;
    model.base.last = f->options.first_seq - 1;
    model.now = model.base;
    REQUIRE_EQ(open_log(f), 0);
    for (unsigned i = 0; i < STEPS && !model.broken; i++) {
        step(f);
        CHECK(model.broken || bop_aof_last(f->aof) == model.now.last);
        CHECK(model.broken || bop_aof_first(f->aof) == model.now.first);
        CHECK(model.broken || bop_aof_durable(f->aof) <= model.now.last);
    }
    if (f->aof) {
        model_close(f);
    }
    if (model.broken) {
        test_note("replay with MODEL_SEED=%llu", (unsigned long long)seed);
    }
    return !model.broken;
}

TEST(model, any_crash_leaves_a_state_the_log_was_in)
{
    const char *one = getenv("MODEL_SEED");
    const char *many = getenv("MODEL_SEEDS");
    uint64_t from = one ? strtoull(one, NULL, 10) : 1;
    uint64_t to = one ? from : many ? strtoull(many, NULL, 10) : SEEDS;

    for (uint64_t seed = from; seed <= to; seed++) {
        if (!run_seed(f, seed)) {
            return;
        }
    }
}
