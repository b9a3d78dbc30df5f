/*
 * Queues of typed values: small ones inside the item, large ones in blocks that
 * nobody leaks, whatever fails and wherever they end.
 */
#include <pthread.h>
#include <stdio.h>

#include <bop/fs.h>
#include <bop/mpmc_typed.h>

#include "tap.h"

struct tiny {
    uint8_t bytes[3];
};
struct word {
    uint32_t low;
    uint32_t high;
};
struct large {
    uint64_t number;
    char text[32];
};

_Static_assert(sizeof(struct tiny) == 3 && sizeof(struct word) == 8 && sizeof(struct large) == 40,
               "the sizes that matter");

BOP_MPMC_DEFINE(tinies, struct tiny)
BOP_MPMC_DEFINE(words, struct word)
BOP_MPMC_DEFINE(larges, struct large)
BOP_MPMC_DEFINE(names, const char *) /* A pointer is a type as well. */

#define CAPACITY 256
#define BULK     100 /* More than go at once. */

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_mpmc_options options;
    struct larges *larges;
    struct bop_error err;
    uint64_t discarded;
    uint64_t discarded_sum;
    unsigned notified;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    f->options = (struct bop_mpmc_options){
        .allocator = &f->heap.allocator,
        .kind = BOP_MPMC_BOUNDED,
        .capacity = CAPACITY,
        .user = f,
    };
}

static void teardown(struct fixture *f)
{
    larges_destroy(f->larges);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static struct large large(uint64_t number)
{
    struct large value = {.number = number};

    snprintf(value.text, sizeof(value.text), "number %" PRIu64, number);
    return value;
}

static void check_large(const struct large *value, uint64_t number)
{
    struct large expected = large(number);

    CHECK_EQ(value->number, number);
    CHECK_STR_EQ(value->text, expected.text);
}

static void discard_large(void *user, struct large *value)
{
    struct fixture *f = user;

    check_large(value, value->number);
    f->discarded++;
    f->discarded_sum += value->number;
}

static void create_larges(struct fixture *f)
{
    REQUIRE_EQ(larges_create(&f->options, discard_large, &f->larges, &f->err), 0);
}

/* -- Values ------------------------------------------------------------------------------------ */

/* No block is taken for what fits into the item. */
TEST(mpmc_typed, carries_small_values_inside_the_item)
{
    struct tiny in[3] = {{{0xff, 0xfe, 0xfd}}, {{1, 2, 3}}, {{0}}}, out[3];
    struct tinies *queue = NULL;
    size_t live;

    REQUIRE_EQ(tinies_create(&f->options, NULL, &queue, NULL), 0);
    live = f->heap.live;
    memset(out, 0x55, sizeof(out));
    CHECK_EQ(tinies_push(queue, NULL, in[0]), 0);
    CHECK_EQ(tinies_push_bulk(queue, NULL, in + 1, 2), 0);
    CHECK_EQ(f->heap.live, live);
    CHECK_EQ(tinies_size(queue), 3);
    CHECK_EQ(tinies_pop(queue, NULL, &out[0]), 1);
    CHECK_EQ(tinies_pop_bulk(queue, NULL, out + 1, 2), 2);
    CHECK_MEM_EQ(out, in, sizeof(in));
    CHECK_EQ(tinies_push(queue, NULL, in[0]), 0);
    tinies_destroy(queue);
}

TEST(mpmc_typed, carries_words)
{
    struct word out = {0};
    struct words *queue = NULL;

    REQUIRE_EQ(words_create(&f->options, NULL, &queue, NULL), 0);
    CHECK_EQ(words_try_push(queue, NULL, (struct word){.low = UINT32_MAX, .high = 7}), 0);
    CHECK_EQ(words_push_wait(queue, NULL, (struct word){0}, 0), 0);
    CHECK_EQ(words_pop_wait(queue, NULL, &out, 0), 1);
    CHECK_EQ(out.low, UINT32_MAX);
    CHECK_EQ(out.high, 7);
    CHECK_EQ(words_pop(queue, NULL, &out), 1);
    CHECK_EQ(out.low, 0);
    CHECK_EQ(words_pop(queue, NULL, &out), 0);
    words_destroy(queue);
}

TEST(mpmc_typed, carries_pointers)
{
    static const char *const in[2] = {"one", "two"};
    const char *out = NULL;
    struct names *queue = NULL;

    REQUIRE_EQ(names_create(&f->options, NULL, &queue, NULL), 0);
    CHECK_EQ(names_push_bulk(queue, NULL, in, 2), 0);
    CHECK_EQ(names_pop(queue, NULL, &out), 1);
    CHECK_PTR_EQ(out, in[0]);
    names_destroy(queue);
}

TEST(mpmc_typed, carries_large_values_in_blocks)
{
    struct large out = {0};
    size_t blocks;

    create_larges(f);
    blocks = f->heap.blocks;
    for (uint64_t i = 0; i < 3; i++) {
        CHECK_EQ(larges_push(f->larges, NULL, large(i)), 0);
    }
    CHECK_EQ(f->heap.blocks, blocks + 3);
    for (uint64_t i = 0; i < 3; i++) {
        CHECK_EQ(larges_pop(f->larges, NULL, &out), 1);
        check_large(&out, i);
    }
    CHECK_EQ(f->heap.blocks, blocks);
    CHECK_EQ(larges_pop(f->larges, NULL, &out), 0);
    CHECK_EQ(larges_pop_wait(f->larges, NULL, &out, 1), 0);
    check_large(&out, 2); /* Written on success only. */
}

TEST(mpmc_typed, works_with_tokens)
{
    struct bop_mpmc_producer *producer;
    struct bop_mpmc_consumer *consumer;
    struct large out;

    create_larges(f);
    REQUIRE_EQ(larges_producer_open(f->larges, &producer), 0);
    REQUIRE_EQ(larges_consumer_open(f->larges, 0, &consumer), 0);
    CHECK_EQ(larges_push(f->larges, producer, large(5)), 0);
    CHECK_EQ(larges_pop(f->larges, consumer, &out), 1);
    check_large(&out, 5);
    bop_mpmc_producer_close(producer);
    bop_mpmc_consumer_close(consumer);
}

/* -- Bulks ------------------------------------------------------------------------------------- */

static void fill(struct large *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        values[i] = large(i);
    }
}

TEST(mpmc_typed, moves_bulks_of_any_length)
{
    static const size_t counts[] = {
        0, 1, BOP_MPMC_TYPED_AT_ONCE, BOP_MPMC_TYPED_AT_ONCE + 1, 2 * BOP_MPMC_TYPED_AT_ONCE, 200};
    struct large in[200], out[201];

    create_larges(f);
    fill(in, 200);
    for (size_t c = 0; c < BOP_COUNT_OF(counts); c++) {
        size_t count = counts[c];

        REQUIRE_EQ(larges_push_bulk(f->larges, NULL, in, count), 0);
        REQUIRE_EQ(larges_size(f->larges), count);
        REQUIRE_EQ(larges_pop_bulk(f->larges, NULL, out, 201), count);
        REQUIRE(memcmp(in, out, count * sizeof(in[0])) == 0);
        REQUIRE_EQ(larges_push_some(f->larges, NULL, in, count), count);
        REQUIRE_EQ(larges_pop_bulk_wait(f->larges, NULL, out, count, 1000), count);
        REQUIRE(memcmp(in, out, count * sizeof(in[0])) == 0);
    }
}

TEST(mpmc_typed, pushes_bulks_whole_or_not_at_all)
{
    struct large in[BULK], out;
    size_t blocks;

    create_larges(f);
    fill(in, BULK);
    CHECK_EQ(larges_push_bulk(f->larges, NULL, in, BULK), 0);
    CHECK_EQ(larges_try_push_bulk(f->larges, NULL, in, BULK), 0);
    blocks = f->heap.blocks;
    /* 56 places are left of 256. */
    CHECK_EQ(larges_push_bulk(f->larges, NULL, in, BULK), BOP_EFULL);
    CHECK_EQ(larges_try_push_bulk(f->larges, NULL, in, 57), BOP_EFULL);
    CHECK_EQ(larges_push_bulk_wait(f->larges, NULL, in, 57, 1), BOP_ETIMEOUT);
    CHECK_EQ(f->heap.blocks, blocks);
    CHECK_EQ(larges_push_some(f->larges, NULL, in, BULK), 56);
    CHECK_EQ(f->heap.blocks, blocks + 56);
    CHECK_EQ(larges_push_some(f->larges, NULL, in, 1), BOP_EFULL);
    CHECK_EQ(larges_try_push(f->larges, NULL, in[0]), BOP_EFULL);
    CHECK_EQ(larges_push_wait(f->larges, NULL, in[0], 1), BOP_ETIMEOUT);
    CHECK_EQ(f->heap.blocks, blocks + 56);
    CHECK_EQ(larges_pop(f->larges, NULL, &out), 1);
    check_large(&out, 0);
    CHECK_EQ(larges_push_bulk_wait(f->larges, NULL, in, 1, BOP_MPMC_FOREVER), 0);
}

/* -- Ends -------------------------------------------------------------------------------------- */

TEST(mpmc_typed, frees_what_is_refused_once_closed)
{
    struct large in[BULK], out;
    size_t blocks;

    create_larges(f);
    fill(in, BULK);
    CHECK_EQ(larges_push(f->larges, NULL, in[1]), 0);
    larges_close(f->larges);
    blocks = f->heap.blocks;
    CHECK_EQ(larges_push(f->larges, NULL, in[0]), BOP_ECLOSED);
    CHECK_EQ(larges_push_bulk(f->larges, NULL, in, BULK), BOP_ECLOSED);
    CHECK_EQ(larges_push_some(f->larges, NULL, in, BULK), BOP_ECLOSED);
    CHECK_EQ(larges_push_wait(f->larges, NULL, in[0], BOP_MPMC_FOREVER), BOP_ECLOSED);
    CHECK_EQ(f->heap.blocks, blocks);
    CHECK_EQ(larges_pop_bulk(f->larges, NULL, &out, 1), 1);
    check_large(&out, 1);
    CHECK_EQ(larges_pop(f->larges, NULL, &out), BOP_ECLOSED);
    CHECK_EQ(larges_pop_bulk(f->larges, NULL, &out, 1), BOP_ECLOSED);
    CHECK_EQ(larges_pop_bulk_wait(f->larges, NULL, &out, 1, BOP_MPMC_FOREVER), BOP_ECLOSED);
}

TEST(mpmc_typed, discards_what_is_left)
{
    create_larges(f);
    for (uint64_t i = 0; i < 100; i++) {
        CHECK_EQ(larges_push(f->larges, NULL, large(i)), 0);
    }
    larges_destroy(f->larges);
    f->larges = NULL;
    CHECK_EQ(f->discarded, 100);
    CHECK_EQ(f->discarded_sum, 4950); /* 0 + 1 + ... + 99. */
}

TEST(mpmc_typed, frees_what_is_left_without_a_discard)
{
    REQUIRE_EQ(larges_create(&f->options, NULL, &f->larges, NULL), 0);
    CHECK_EQ(larges_push(f->larges, NULL, large(1)), 0);
    larges_destroy(f->larges);
    larges_destroy(NULL);
    f->larges = NULL;
    CHECK_EQ(f->discarded, 0);
    CHECK_EQ(f->heap.live, 0);
}

static void discard_word(void *user, struct word *value)
{
    struct fixture *f = user;

    f->discarded++;
    f->discarded_sum += value->low;
}

TEST(mpmc_typed, discards_small_values_too)
{
    struct words *queue = NULL;

    REQUIRE_EQ(words_create(&f->options, discard_word, &queue, NULL), 0);
    CHECK_EQ(words_push(queue, NULL, (struct word){.low = 11}), 0);
    words_destroy(queue);
    CHECK_EQ(f->discarded, 1);
    CHECK_EQ(f->discarded_sum, 11);
}

static void notify(void *user)
{
    struct fixture *f = user;

    f->notified++;
}

TEST(mpmc_typed, notifies_with_the_callers_user)
{
    f->options.notify = notify;
    create_larges(f);
    CHECK(larges_arm(f->larges));
    CHECK_EQ(larges_push(f->larges, NULL, large(1)), 0);
    CHECK_EQ(f->notified, 1);
    CHECK(!larges_arm(f->larges));
    CHECK(larges_eventfd(f->larges) >= 0);
    CHECK(larges_memory_bytes(f->larges) >= (size_t)CAPACITY * 10);
}

/* -- Failures ---------------------------------------------------------------------------------- */

static void discard_raw(void *user, uint64_t item)
{
    (void)user;
    (void)item;
}

TEST(mpmc_typed, refuses_bad_options)
{
    f->options.discard = discard_raw;
    CHECK_EQ(larges_create(&f->options, discard_large, &f->larges, &f->err), -EINVAL);
    CHECK_STR_HAS(f->err.message, "discard");
    f->options.discard = NULL;
    f->options.capacity = 3;
    CHECK_EQ(larges_create(&f->options, discard_large, &f->larges, &f->err), -EINVAL);
    CHECK_STR_HAS(f->err.message, "capacity");
    CHECK_PTR_EQ(f->larges, NULL);
}

TEST(mpmc_typed, survives_each_fault_at_creation)
{
    FAULT_SWEEP(&f->faults) {
        int rc = larges_create(&f->options, NULL, &f->larges, &f->err);

        CHECK_EQ(rc, f->faults.fired);
        larges_destroy(f->larges);
        f->larges = NULL;
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 2); /* The wrapper and the ring. */
}

/* Whichever of the blocks is missing, all are given back and nothing is pushed. */
TEST(mpmc_typed, survives_each_fault_in_a_bulk)
{
    struct large in[BULK];
    size_t live;

    create_larges(f);
    fill(in, BULK);
    live = f->heap.live;
    FAULT_SWEEP(&f->faults) {
        int rc = larges_push_bulk(f->larges, NULL, in, BULK);

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(larges_size(f->larges), rc == 0 ? BULK : 0);
        CHECK(rc == 0 || f->heap.live == live);
    }
    CHECK_EQ(f->faults.at, BULK + 1); /* The array of items and the blocks. */
}

/* What was wrapped before memory ran out is pushed, and only that. */
TEST(mpmc_typed, pushes_some_as_far_as_memory_goes)
{
    struct large in[BULK], out[BULK];

    create_larges(f);
    fill(in, BULK);
    for (uint64_t fail_at = 1; fail_at <= BULK; fail_at++) {
        ssize_t pushed;

        f->faults = (struct bop_faults){.fail_at = fail_at};
        pushed = larges_push_some(f->larges, NULL, in, BULK);
        f->faults.fail_at = 0;
        REQUIRE_EQ(pushed, fail_at == 1 ? BOP_ENOMEM : (ssize_t)fail_at - 1);
        REQUIRE_EQ(larges_size(f->larges), fail_at - 1);
        REQUIRE_EQ(larges_pop_bulk(f->larges, NULL, out, BULK), fail_at - 1);
        REQUIRE(memcmp(in, out, (fail_at - 1) * sizeof(in[0])) == 0);
    }
}

TEST(mpmc_typed, survives_each_fault_in_a_push)
{
    create_larges(f);
    FAULT_SWEEP(&f->faults) {
        int rc = larges_push(f->larges, NULL, large(1));

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(larges_size(f->larges), rc == 0 ? 1 : 0);
    }
    CHECK_EQ(f->faults.at, 1);
}

/* -- Threads ----------------------------------------------------------------------------------- */

#define THREADS 3
#define MANY    5000

static void *produce(void *fixture)
{
    struct fixture *f = fixture;

    for (uint64_t i = 0; i < MANY; i++) {
        REQUIRE_EQ(larges_push_wait(f->larges, NULL, large(i), BOP_MPMC_FOREVER), 0);
    }
    return NULL;
}

static void *consume(void *fixture)
{
    struct fixture *f = fixture;
    struct large out[7];
    uint64_t sum = 0;
    ssize_t got;

    while ((got = larges_pop_bulk_wait(f->larges, NULL, out, 7, BOP_MPMC_FOREVER)) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            check_large(&out[i], out[i].number);
            sum += out[i].number;
        }
    }
    CHECK_EQ(got, BOP_ECLOSED);
    return (void *)(uintptr_t)sum;
}

/* Blocks made on one thread are freed on another. */
TEST(mpmc_typed, carries_blocks_between_threads)
{
    pthread_t producers[THREADS], consumers[THREADS];
    uint64_t sum = 0;

    f->options.capacity = 16;
    create_larges(f);
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE_EQ(pthread_create(&producers[i], NULL, produce, f), 0);
        REQUIRE_EQ(pthread_create(&consumers[i], NULL, consume, f), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE_EQ(pthread_join(producers[i], NULL), 0);
    }
    larges_close(f->larges);
    for (size_t i = 0; i < THREADS; i++) {
        void *part;

        REQUIRE_EQ(pthread_join(consumers[i], &part), 0);
        sum += (uintptr_t)part;
    }
    CHECK_EQ(sum, (uint64_t)THREADS * MANY * (MANY - 1) / 2);
}
