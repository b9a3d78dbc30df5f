/*
 * Every operation of every kind of queue against a model, in long random
 * sequences on one thread.
 *
 * The model is the array of all items ever pushed, each with its producer, and
 * what has become of it. fifo and bounded must hand out the oldest; lanes one
 * that keeps the order of its producer at the consumer that asked, but for items
 * that were inside when a consumer token was closed, which may come late. While
 * other tokens may have claims, lanes may say "nothing for you"; otherwise all
 * answers are exact.
 *
 * MODEL_SEED=n in the environment runs that seed alone.
 */
#include <stdlib.h>

#include <bop/fs.h>
#include <bop/mpmc.h>
#include <bop/random.h>
#include <bop/spsc.h>

#include "tap.h"

#define SEEDS     40
#define STEPS     4000
#define ITEMS_MAX (STEPS * BULK_MAX)
#define BULK_MAX  100
#define TOKENS    3 /* Of each side; the place after them stands for NULL. */
#define ANY_VALUE                                                                                  \
    UINT64_C(0x9e3779b97f4a7c15) /* Odd, so that items are any 64 bits, and unique.                \
                                  */

struct model_item {
    unsigned producer; /* Each token that was ever opened is another. */
    bool popped;
    bool late; /* May come after a later one of its producer. */
};

struct side_token {
    struct bop_mpmc_producer *producer;
    struct bop_mpmc_consumer *consumer;
    unsigned id;
    bool claims_ahead;
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_random random;
    uint64_t seed;
    struct bop_mpmc *queue;
    struct bop_mpmc_options options;

    struct model_item *items;
    size_t pushed; /* Items in the array. */
    size_t oldest; /* All before it are popped. */
    size_t inside;
    bool closed;
    bool armed;
    unsigned notified;
    size_t discarded;

    struct side_token producers[TOKENS + 1];
    struct side_token consumers[TOKENS + 1];
    unsigned producer_ids;
    size_t *newest; /* [consumer][producer]: 1 + the last item received in time. */
};

#define PRODUCER_IDS_MAX (STEPS + 2)

/* -- The model --------------------------------------------------------------------------------- */

static bool is_lanes(const struct fixture *f)
{
    return f->options.kind == BOP_MPMC_LANES;
}

/* An item may be in the claim of another token that is open, kept there by order. */
static bool may_be_elsewhere(const struct fixture *f, const struct side_token *consumer)
{
    bool elsewhere = false;

    for (size_t i = 0; is_lanes(f) && i < TOKENS; i++) {
        elsewhere |= &f->consumers[i] != consumer && f->consumers[i].consumer &&
                     f->consumers[i].claims_ahead;
    }
    return elsewhere;
}

static uint64_t value_of(size_t index)
{
    return (uint64_t)index * ANY_VALUE;
}

static size_t index_of(uint64_t value)
{
    uint64_t inverse = ANY_VALUE;

    for (int i = 0; i < 6; i++) {
        inverse *= 2 - ANY_VALUE * inverse; /* Newton: doubles the bits that are right. */
    }
    return (size_t)(value * inverse);
}

static void note_pushed(struct fixture *f, const struct side_token *producer, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        f->items[f->pushed++] = (struct model_item){.producer = producer->id};
    }
    f->inside += count;
    if (f->armed && count > 0) {
        CHECK(f->notified > 0);
        f->armed = false;
    }
}

static void note_popped(struct fixture *f, const struct side_token *consumer, uint64_t value)
{
    size_t index = index_of(value);
    struct model_item *item = &f->items[index];

    REQUIRE(index < f->pushed); /* Else: from nowhere. */
    REQUIRE(!item->popped);
    item->popped = true;
    f->inside--;
    if (!is_lanes(f)) {
        REQUIRE_EQ(index, f->oldest);
    } else if (consumer && consumer->consumer) {
        size_t *newest =
            &f->newest[(size_t)(consumer - f->consumers) * PRODUCER_IDS_MAX + item->producer];

        REQUIRE(index >= *newest || item->late);
        *newest = index >= *newest ? index + 1 : *newest;
    }
    while (f->oldest < f->pushed && f->items[f->oldest].popped) {
        f->oldest++;
    }
}

/* -- Pushing ----------------------------------------------------------------------------------- */

static size_t random_below(struct fixture *f, size_t bound)
{
    return (size_t)bop_random_below(&f->random, bound);
}

/* What all-or-none pushes of that many items must say; 1: any of 0 and BOP_EFULL. */
static int expected_push(const struct fixture *f, size_t count, bool allocates)
{
    if (count == 0) {
        return 0;
    }
    if (f->closed) {
        return BOP_ECLOSED;
    }
    if (f->options.kind == BOP_MPMC_BOUNDED) {
        return f->inside + count <= f->options.capacity ? 0 : BOP_EFULL;
    }
    return allocates && f->options.memory_bytes_max == 0 ? 0 : 1;
}

static void check_push(struct fixture *f, const struct side_token *producer, size_t count, int rc,
                       int expected)
{
    if (expected == 1) {
        REQUIRE(rc == 0 || rc == BOP_EFULL);
    } else {
        REQUIRE_EQ(rc, expected);
    }
    note_pushed(f, producer, rc == 0 ? count : 0);
}

static void push(struct fixture *f)
{
    const struct side_token *producer = &f->producers[random_below(f, TOKENS + 1)];
    uint64_t value = value_of(f->pushed);
    int expected = expected_push(f, 1, true);

    switch (random_below(f, 3)) {
    case 0:
        check_push(f, producer, 1, bop_mpmc_push(f->queue, producer->producer, value), expected);
        break;
    case 1:
        check_push(f, producer, 1, bop_mpmc_try_push(f->queue, producer->producer, value),
                   expected_push(f, 1, false));
        break;
    default: {
        int rc = bop_mpmc_push_wait(f->queue, producer->producer, value, random_below(f, 2));

        REQUIRE(rc != BOP_EFULL);
        check_push(f, producer, 1, rc == BOP_ETIMEOUT ? BOP_EFULL : rc, expected);
    }
    }
}

static void push_some(struct fixture *f, const struct side_token *producer, const uint64_t *values,
                      size_t count)
{
    ssize_t rc = bop_mpmc_push_some(f->queue, producer->producer, values, count);

    if (count == 0) {
        REQUIRE_EQ(rc, 0);
    } else if (f->closed) {
        REQUIRE_EQ(rc, BOP_ECLOSED);
    } else if (f->options.kind == BOP_MPMC_BOUNDED) {
        size_t fit = (size_t)bop_min_u64(count, f->options.capacity - f->inside);

        REQUIRE_EQ(rc, fit > 0 ? (ssize_t)fit : BOP_EFULL);
    } else if (f->options.memory_bytes_max == 0) {
        REQUIRE_EQ(rc, count);
    } else {
        REQUIRE(rc == BOP_EFULL || (rc > 0 && (size_t)rc <= count));
    }
    note_pushed(f, producer, rc > 0 ? (size_t)rc : 0);
}

static void push_bulk(struct fixture *f)
{
    const struct side_token *producer = &f->producers[random_below(f, TOKENS + 1)];
    size_t count = random_below(f, random_below(f, 8) == 0 ? BULK_MAX + 1 : 8);
    uint64_t values[BULK_MAX];
    int rc;

    for (size_t i = 0; i < count; i++) {
        values[i] = value_of(f->pushed + i);
    }
    switch (random_below(f, 4)) {
    case 0:
        push_some(f, producer, values, count);
        break;
    case 1:
        rc = bop_mpmc_push_bulk(f->queue, producer->producer, values, count);
        check_push(f, producer, count, rc, expected_push(f, count, true));
        break;
    case 2:
        rc = bop_mpmc_try_push_bulk(f->queue, producer->producer, values, count);
        check_push(f, producer, count, rc, expected_push(f, count, false));
        break;
    default:
        rc = bop_mpmc_push_bulk_wait(f->queue, producer->producer, values, count,
                                     random_below(f, 2));
        check_push(f, producer, count, rc == BOP_ETIMEOUT ? BOP_EFULL : rc,
                   expected_push(f, count, true));
    }
}

/* -- Popping ----------------------------------------------------------------------------------- */

/* rc items, or what a pop said instead. */
static void check_pop(struct fixture *f, const struct side_token *consumer, const uint64_t *values,
                      size_t count, ssize_t rc)
{
    size_t inside = f->inside;

    if (rc <= 0 && count > 0 && inside > 0) {
        REQUIRE_EQ(rc, 0);
        REQUIRE(may_be_elsewhere(f, consumer));
        return;
    }
    if (rc <= 0) {
        REQUIRE_EQ(rc, f->closed && count > 0 ? BOP_ECLOSED : 0);
        return;
    }
    REQUIRE((size_t)rc <= count);
    if (!is_lanes(f)) {
        REQUIRE_EQ(rc, bop_min_u64(count, inside));
    }
    for (ssize_t i = 0; i < rc; i++) {
        note_popped(f, consumer, values[i]);
    }
}

static void pop_from(struct fixture *f, const struct side_token *consumer)
{
    uint64_t values[BULK_MAX];
    size_t count = random_below(f, random_below(f, 8) == 0 ? BULK_MAX + 1 : 8);
    ssize_t rc;

    switch (random_below(f, 4)) {
    case 0:
        rc = bop_mpmc_pop(f->queue, consumer->consumer, values);
        check_pop(f, consumer, values, 1, rc);
        break;
    case 1:
        rc = bop_mpmc_pop_wait(f->queue, consumer->consumer, values, random_below(f, 2));
        check_pop(f, consumer, values, 1, rc);
        break;
    case 2:
        rc = bop_mpmc_pop_bulk(f->queue, consumer->consumer, values, count);
        check_pop(f, consumer, values, count, rc);
        break;
    default:
        rc = bop_mpmc_pop_bulk_wait(f->queue, consumer->consumer, values, count,
                                    random_below(f, 2));
        check_pop(f, consumer, values, count, rc);
    }
}

static void pop(struct fixture *f)
{
    pop_from(f, &f->consumers[random_below(f, TOKENS + 1)]);
}

/* -- Tokens, arming ---------------------------------------------------------------------------- */

static void toggle_producer(struct fixture *f)
{
    struct side_token *token = &f->producers[random_below(f, TOKENS)];

    if (token->producer) {
        bop_mpmc_producer_close(token->producer);
        token->producer = NULL;
        token->id = TOKENS; /* As NULL. */
    } else {
        REQUIRE_EQ(bop_mpmc_producer_open(f->queue, &token->producer), 0);
        token->id = ++f->producer_ids;
    }
}

static void close_consumer(struct fixture *f, struct side_token *token)
{
    bop_mpmc_consumer_close(token->consumer);
    token->consumer = NULL;
    memset(&f->newest[(size_t)(token - f->consumers) * PRODUCER_IDS_MAX], 0,
           PRODUCER_IDS_MAX * sizeof(*f->newest));
    for (size_t i = f->oldest; token->claims_ahead && i < f->pushed; i++) {
        f->items[i].late = true;
    }
}

static void toggle_consumer(struct fixture *f)
{
    static const unsigned claims[] = {0, 1, 1, 7, BOP_MPMC_CLAIM_AHEAD_MAX};
    struct side_token *token = &f->consumers[random_below(f, TOKENS)];

    if (token->consumer) {
        close_consumer(f, token);
    } else {
        unsigned claim = claims[random_below(f, BOP_COUNT_OF(claims))];

        REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, claim, &token->consumer), 0);
        token->claims_ahead = claim != 1;
    }
}

static void arm(struct fixture *f)
{
    bool armed = bop_mpmc_arm(f->queue);

    if (f->closed || (f->inside > 0 && !may_be_elsewhere(f, NULL))) {
        REQUIRE(!armed);
    } else if (f->inside == 0 && !is_lanes(f)) {
        REQUIRE(armed);
    }
    f->armed = armed;
    f->notified = 0;
}

static void close_queue(struct fixture *f)
{
    bop_mpmc_close(f->queue);
    CHECK(!f->armed || f->notified > 0);
    f->armed = false;
    f->closed = true;
}

/* -- Runs -------------------------------------------------------------------------------------- */

static void discard(void *user, uint64_t item)
{
    struct fixture *f = user;

    f->discarded++;
    note_popped(f, NULL, item);
}

static void notify(void *user)
{
    struct fixture *f = user;

    f->notified++;
}

static void step(struct fixture *f)
{
    size_t dice = random_below(f, 100);

    if (dice < 28) {
        push(f);
    } else if (dice < 40) {
        push_bulk(f);
    } else if (dice < 90) {
        pop(f);
    } else if (dice < 93) {
        toggle_producer(f);
    } else if (dice < 96) {
        toggle_consumer(f);
    } else {
        arm(f);
    }
    REQUIRE_EQ(bop_mpmc_size(f->queue), f->inside);
}

static void begin(struct fixture *f, uint64_t seed)
{
    bop_random_seed(&f->random, seed);
    f->seed = seed;
    f->pushed = f->oldest = f->inside = f->discarded = 0;
    f->closed = f->armed = false;
    f->producer_ids = TOKENS;
    memset(f->producers, 0, sizeof(f->producers));
    memset(f->consumers, 0, sizeof(f->consumers));
    memset(f->newest, 0, (TOKENS + 1) * (size_t)PRODUCER_IDS_MAX * sizeof(*f->newest));
    for (size_t i = 0; i <= TOKENS; i++) {
        f->producers[i].id = TOKENS;
    }
    REQUIRE_EQ(bop_mpmc_create(&f->options, &f->queue, NULL), 0);
}

static void close_tokens(struct fixture *f)
{
    for (size_t i = 0; i < TOKENS; i++) {
        bop_mpmc_producer_close(f->producers[i].producer);
        f->producers[i].producer = NULL;
        if (f->consumers[i].consumer) {
            close_consumer(f, &f->consumers[i]);
        }
    }
}

/* By turns the queue is drained to the end, or destroyed with what is inside. */
static void end(struct fixture *f)
{
    size_t inside;

    close_tokens(f);
    while (f->seed % 2 == 0 && f->inside > 0) {
        pop_from(f, &f->consumers[TOKENS]);
    }
    inside = f->inside;
    bop_mpmc_destroy(f->queue);
    f->queue = NULL;
    CHECK_EQ(f->discarded, inside);
    CHECK_EQ(f->inside, 0);
    CHECK_EQ(f->heap.live, 0);
}

static void run_seed(struct fixture *f, uint64_t seed)
{
    size_t open_steps;

    begin(f, seed);
    open_steps = STEPS - random_below(f, STEPS / 2);
    for (size_t i = 0; i < STEPS; i++) {
        if (i == open_steps) {
            close_queue(f);
        }
        step(f);
    }
    end(f);
    f->seed = 0;
}

static void run_seeds(struct fixture *f, void (*run)(struct fixture *f, uint64_t seed))
{
    const char *wanted = getenv("MODEL_SEED");

    if (wanted) {
        run(f, strtoull(wanted, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        run(f, seed);
    }
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    f->items = calloc(ITEMS_MAX, sizeof(*f->items));
    f->newest = calloc((TOKENS + 1) * (size_t)PRODUCER_IDS_MAX, sizeof(*f->newest));
    REQUIRE(f->items != NULL && f->newest != NULL);
    f->options = (struct bop_mpmc_options){
        .allocator = &f->heap.allocator, .discard = discard, .notify = notify, .user = f};
}

static void teardown(struct fixture *f)
{
    if (f->seed != 0) { /* It ended in the middle. */
        test_note("MODEL_SEED=%" PRIu64, f->seed);
    }
    free(f->items);
    free(f->newest);
}

FIXTURE(setup, teardown)

TEST(mpmc_model, bounded)
{
    static const size_t capacities[] = {2, 8, 64, 1024};

    f->options.kind = BOP_MPMC_BOUNDED;
    for (size_t i = 0; i < BOP_COUNT_OF(capacities); i++) {
        f->options.capacity = capacities[i];
        run_seeds(f, run_seed);
    }
}

TEST(mpmc_model, lanes)
{
    f->options.kind = BOP_MPMC_LANES;
    run_seeds(f, run_seed);
    f->options.memory_bytes_max = 64 << 10;
    run_seeds(f, run_seed);
}

TEST(mpmc_model, fifo)
{
    f->options.kind = BOP_MPMC_FIFO;
    run_seeds(f, run_seed);
    f->options.memory_bytes_max = 64 << 10;
    run_seeds(f, run_seed);
}

/* -- One producer, one consumer ---------------------------------------------------------------- */

static void spsc_push(struct fixture *f, struct bop_spsc *queue)
{
    size_t count = random_below(f, 20);
    size_t fit = (size_t)bop_min_u64(count, f->options.capacity - f->inside);
    uint64_t values[20];
    int expected = f->closed ? BOP_ECLOSED : f->inside < f->options.capacity ? 0 : BOP_EFULL;
    ssize_t rc;

    for (size_t i = 0; i < count; i++) {
        values[i] = value_of(f->pushed + i);
    }
    switch (random_below(f, 3)) {
    case 0:
        rc = bop_spsc_push_bulk(queue, values, count);
        REQUIRE_EQ(rc, f->closed   ? BOP_ECLOSED
                       : fit > 0   ? (ssize_t)fit
                       : count > 0 ? BOP_EFULL
                                   : 0);
        note_pushed(f, &f->producers[0], rc > 0 ? (size_t)rc : 0);
        break;
    case 1:
        check_push(f, &f->producers[0], 1, bop_spsc_push(queue, value_of(f->pushed)), expected);
        break;
    default:
        rc = bop_spsc_push_wait(queue, value_of(f->pushed), random_below(f, 2));
        check_push(f, &f->producers[0], 1, rc == BOP_ETIMEOUT ? BOP_EFULL : (int)rc, expected);
    }
}

static void spsc_pop(struct fixture *f, struct bop_spsc *queue)
{
    size_t count = random_below(f, 20);
    uint64_t values[20];

    switch (random_below(f, 3)) {
    case 0:
        check_pop(f, NULL, values, count, bop_spsc_pop_bulk(queue, values, count));
        break;
    case 1:
        check_pop(f, NULL, values, 1, bop_spsc_pop(queue, values));
        break;
    default:
        check_pop(f, NULL, values, 1, bop_spsc_pop_wait(queue, values, random_below(f, 2)));
    }
}

static void run_spsc_seed(struct fixture *f, uint64_t seed)
{
    struct bop_spsc_options options = {.allocator = &f->heap.allocator,
                                       .capacity = f->options.capacity,
                                       .discard = discard,
                                       .user = f};
    struct bop_spsc *queue;
    size_t inside;

    bop_random_seed(&f->random, seed);
    f->seed = seed;
    f->pushed = f->oldest = f->inside = f->discarded = 0;
    f->closed = false;
    REQUIRE_EQ(bop_spsc_create(&options, &queue, NULL), 0);
    for (size_t i = 0; i < STEPS; i++) {
        if (i == STEPS - STEPS / 10) {
            bop_spsc_close(queue);
            f->closed = true;
        } else if (random_below(f, 2) == 0) {
            spsc_push(f, queue);
        } else {
            spsc_pop(f, queue);
        }
        REQUIRE_EQ(bop_spsc_size(queue), f->inside);
    }
    inside = f->inside;
    bop_spsc_destroy(queue);
    CHECK_EQ(f->discarded, inside);
    CHECK_EQ(f->heap.live, 0);
    f->seed = 0;
}

TEST(mpmc_model, spsc)
{
    static const size_t capacities[] = {2, 16, 256};

    f->options.kind = BOP_MPMC_BOUNDED; /* Its rules are the same. */
    for (size_t i = 0; i < BOP_COUNT_OF(capacities); i++) {
        f->options.capacity = capacities[i];
        run_seeds(f, run_spsc_seed);
    }
}
