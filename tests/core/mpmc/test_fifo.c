/*
 * The kind fifo. The single-threaded tests check what the queue promises, and
 * play producers that stop in the middle of a push by reserving slots by hand.
 * Those with threads are meant for the thread sanitizer too.
 */
#include <pthread.h>
#include <sched.h>

#include <bop/error.h>
#include <bop/mpmc.h>
#include <bop/random.h>

#include "fifo.h"
#include "tap.h"

#define MARK (BOP__FIFO_MARK << 48)

/* The first segment is a small one, and one slot goes to each single item. */
#define SMALL_CELLS ((4096 - 384) / 8)
#define BIG_CELLS   ((65536 - 384) / 8)

/* What a queue at rest may keep: four spares of each class, the segment in use, and one that each
 * of two tokens or threads pins. */
#define KEPT_BYTES_MAX (4 * 65536 + 4 * 4096 + 3 * 65536)

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_mpmc *queue;
    struct bop_mpmc_producer *producer;
    struct bop_mpmc_consumer *consumer;
};

static struct bop_mpmc *create_queue(struct fixture *f, size_t memory_bytes_max)
{
    struct bop_mpmc_options options = {.allocator = &f->heap.allocator,
                                       .kind = BOP_MPMC_FIFO,
                                       .memory_bytes_max = memory_bytes_max};
    struct bop_mpmc *queue = NULL;

    REQUIRE_EQ(bop_mpmc_create(&options, &queue, NULL), 0);
    return queue;
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    f->queue = create_queue(f, 0);
    REQUIRE_EQ(bop_mpmc_producer_open(f->queue, &f->producer), 0);
    REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, 0, &f->consumer), 0);
}

/* With another ceiling. */
static void use_ceiling(struct fixture *f, size_t memory_bytes_max)
{
    bop_mpmc_producer_close(f->producer);
    bop_mpmc_consumer_close(f->consumer);
    bop_mpmc_destroy(f->queue);
    f->queue = create_queue(f, memory_bytes_max);
    REQUIRE_EQ(bop_mpmc_producer_open(f->queue, &f->producer), 0);
    REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, 0, &f->consumer), 0);
}

static void teardown(struct fixture *f)
{
    bop_mpmc_producer_close(f->producer);
    bop_mpmc_consumer_close(f->consumer);
    bop_mpmc_destroy(f->queue);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void push(struct fixture *f, uint64_t item)
{
    REQUIRE_EQ(bop_mpmc_push(f->queue, f->producer, item), 0);
}

static void pop(struct fixture *f, uint64_t expected)
{
    uint64_t item = ~expected;

    REQUIRE_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 1);
    REQUIRE_EQ(item, expected);
}

static void push_bulk(struct fixture *f, uint64_t first, size_t count)
{
    static uint64_t items[100000];

    REQUIRE(count <= BOP_COUNT_OF(items));
    for (size_t i = 0; i < count; i++) {
        items[i] = first + i;
    }
    REQUIRE_EQ(bop_mpmc_push_bulk(f->queue, f->producer, items, count), 0);
}

static void pop_numbers(struct fixture *f, uint64_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        pop(f, first + i);
    }
}

static void expect_empty(struct fixture *f)
{
    uint64_t item = 7;

    CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 0);
    CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), 0);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, f->consumer, &item, 1), 0);
    CHECK_EQ(item, 7); /* Written on success only. */
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

/* ---- Order ---- */

TEST(fifo, is_empty_at_first)
{
    expect_empty(f);
    CHECK_EQ(bop_mpmc_memory_bytes(f->queue), 4096);
}

TEST(fifo, hands_out_items_in_their_order_over_many_segments)
{
    for (uint64_t i = 1; i <= 50000; i++) {
        push(f, i);
    }
    CHECK_EQ(bop_mpmc_size(f->queue), 50000);
    pop_numbers(f, 1, 50000);
    expect_empty(f);
}

static const uint64_t odd_items[] = {
    0,
    UINT64_MAX,
    UINT64_MAX - 1,
    UINT64_MAX - 2,
    1,
    MARK,
    MARK | 1,
    BOP__FIFO_TAKEN,
    BOP__FIFO_TAKEN - 1,
    MARK - 1,
    UINT64_C(1) << 63,
    BOP__FIFO_CLOSED | 1,
};

TEST(fifo, takes_every_value)
{
    uint64_t out[BOP_COUNT_OF(odd_items)];

    for (size_t round = 0; round < 200; round++) {
        for (size_t i = 0; i < BOP_COUNT_OF(odd_items); i++) {
            push(f, odd_items[i]);
        }
        CHECK_EQ(bop_mpmc_push_bulk(f->queue, NULL, odd_items, BOP_COUNT_OF(odd_items)), 0);
        CHECK_EQ(bop_mpmc_size(f->queue), 2 * BOP_COUNT_OF(odd_items));
        for (size_t i = 0; i < BOP_COUNT_OF(odd_items); i++) {
            pop(f, odd_items[i]);
        }
        REQUIRE_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, BOP_COUNT_OF(out)), BOP_COUNT_OF(out));
        CHECK_MEM_EQ(out, odd_items, sizeof(out));
    }
    expect_empty(f);
}

/* An item in a bulk may look like an empty slot, a run or one given up: it is none of them. */
TEST(fifo, counts_odd_values_in_a_half_taken_bulk)
{
    uint64_t out[4];

    CHECK_EQ(bop_mpmc_push_bulk(f->queue, f->producer, odd_items, BOP_COUNT_OF(odd_items)), 0);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, f->consumer, out, 4), 4);
    CHECK_MEM_EQ(out, odd_items, sizeof(out));
    CHECK_EQ(bop_mpmc_size(f->queue), BOP_COUNT_OF(odd_items) - 4);
    pop(f, 1);
    CHECK_EQ(bop_mpmc_size(f->queue), BOP_COUNT_OF(odd_items) - 5);
    for (size_t i = 5; i < BOP_COUNT_OF(odd_items); i++) {
        pop(f, odd_items[i]);
    }
    expect_empty(f);
}

/* A bulk just below, at and above what a segment holds, at each distance from its end. */
TEST(fifo, keeps_bulks_whole_at_the_borders_of_segments)
{
    static const size_t counts[] = {SMALL_CELLS - 2, SMALL_CELLS - 1, SMALL_CELLS,  BIG_CELLS - 2,
                                    BIG_CELLS - 1,   BIG_CELLS,       3 * BIG_CELLS};

    for (size_t i = 0; i < BOP_COUNT_OF(counts); i++) {
        for (uint64_t before = 0; before < 5; before++) {
            for (uint64_t j = 0; j < before; j++) {
                push(f, 1 + j);
            }
            push_bulk(f, 1 + before, counts[i]);
            push(f, 1 + before + counts[i]);
            CHECK_EQ(bop_mpmc_size(f->queue), before + counts[i] + 1);
            pop_numbers(f, 1, before + counts[i] + 1);
            expect_empty(f);
        }
    }
}

struct model {
    uint64_t pushed; /* Items are numbers, spread over all values. */
    uint64_t popped;
};

static uint64_t item_number(uint64_t number)
{
    return number % 7 == 0 ? odd_items[number % BOP_COUNT_OF(odd_items)] : number;
}

static void random_push(struct fixture *f, struct model *model, struct bop_random *random)
{
    uint64_t items[700];
    size_t count = (size_t)bop_random_below(random, bop_random_below(random, 4) == 0 ? 700 : 40);

    for (size_t i = 0; i < count; i++) {
        items[i] = item_number(model->pushed + i);
    }
    if (count == 1) {
        REQUIRE_EQ(bop_mpmc_push(f->queue, f->producer, items[0]), 0);
    } else {
        REQUIRE_EQ(bop_mpmc_push_bulk(f->queue, f->producer, items, count), 0);
    }
    model->pushed += count;
}

static void random_pop(struct fixture *f, struct model *model, struct bop_random *random)
{
    uint64_t items[800];
    size_t count = 1 + (size_t)bop_random_below(random, 4 * bop_random_below(random, 200) + 1);
    ssize_t got = count == 1 ? bop_mpmc_pop(f->queue, f->consumer, items)
                             : bop_mpmc_pop_bulk(f->queue, f->consumer, items, count);

    REQUIRE_EQ(got, bop_min_u64(count, model->pushed - model->popped));
    for (ssize_t i = 0; i < got; i++) {
        REQUIRE_EQ(items[i], item_number(model->popped + (uint64_t)i));
    }
    model->popped += (uint64_t)got;
}

TEST(fifo, is_a_queue_whatever_the_order_of_calls)
{
    struct model model = {0, 0};
    struct bop_random random;

    bop_random_seed(&random, 20);
    for (int i = 0; i < 6000; i++) {
        /* Grow for a while, then shrink. */
        if (bop_random_below(&random, 100) < (i / 500 % 2 == 0 ? 60 : 35)) {
            random_push(f, &model, &random);
        } else {
            random_pop(f, &model, &random);
        }
        REQUIRE_EQ(bop_mpmc_size(f->queue), model.pushed - model.popped);
    }
}

/* ---- Memory ---- */

TEST(fifo, gives_memory_back_while_it_is_drained)
{
    size_t peak;

    for (uint64_t i = 1; i <= 300000; i++) {
        push(f, i);
    }
    peak = bop_mpmc_memory_bytes(f->queue);
    CHECK(peak >= 300000 * 8);
    CHECK(peak <= 300000 * 9);
    pop_numbers(f, 1, 300000);
    CHECK(bop_mpmc_memory_bytes(f->queue) <= KEPT_BYTES_MAX);
    CHECK(f->heap.live <= KEPT_BYTES_MAX + 16384); /* The queue, tokens and records. */
}

/* Back and forth needs no more memory than is there. */
TEST(fifo, uses_its_segments_again)
{
    size_t blocks = 0;

    for (int round = 0; round < 50; round++) {
        if (round == 10) {
            blocks = f->heap.blocks;
            f->faults.fail_at = f->faults.at + 1;
        }
        for (uint64_t i = 1; i <= 2000; i++) {
            push(f, i);
            pop(f, i);
        }
    }
    CHECK_EQ(f->faults.fired, 0);
    CHECK_EQ(f->heap.blocks, blocks);
    f->faults.fail_at = 0;
}

TEST(fifo, stays_below_its_ceiling)
{
    uint64_t pushed = 0;
    uint64_t two[2] = {1, 2};
    uint64_t item;

    use_ceiling(f, 200000);
    while (bop_mpmc_push(f->queue, f->producer, pushed + 1) == 0) {
        pushed++;
        CHECK(bop_mpmc_memory_bytes(f->queue) <= 200000);
    }
    /* No small segment fits any more, and all that are there are full. */
    CHECK(200000 - bop_mpmc_memory_bytes(f->queue) < 4096);
    CHECK(pushed > 180000 / 8);
    CHECK_EQ(bop_mpmc_size(f->queue), pushed);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 1), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 0), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, NULL, two, 2), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_some(f->queue, NULL, two, 2), BOP_EFULL);

    /* The first segment is gone with its last item, and there is room again. */
    for (uint64_t i = 1; i <= SMALL_CELLS + 1; i++) {
        pop(f, i);
    }
    CHECK_EQ(bop_mpmc_push(f->queue, f->producer, pushed + 1), 0);
    CHECK_EQ(bop_mpmc_size(f->queue), pushed - SMALL_CELLS);
    pop_numbers(f, SMALL_CELLS + 2, pushed - SMALL_CELLS);
    CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 0);
}

/* More refusals than a segment's word has slots. */
TEST(fifo, can_be_refused_for_ever)
{
    use_ceiling(f, 1);
    while (bop_mpmc_push(f->queue, f->producer, 1) == 0) {
    }
    for (int i = 0; i < 1100000; i++) {
        REQUIRE_EQ(bop_mpmc_push(f->queue, f->producer, 1), BOP_EFULL);
    }
    /* 64 KiB are always allowed: sixteen small segments. */
    CHECK_EQ(bop_mpmc_memory_bytes(f->queue), 65536);
    CHECK_EQ(bop_mpmc_size(f->queue), 16 * SMALL_CELLS);
}

TEST(fifo, fits_a_bulk_whole_or_not_at_all)
{
    static uint64_t items[10000];
    uint64_t room;
    ssize_t some;

    for (size_t i = 0; i < BOP_COUNT_OF(items); i++) {
        items[i] = 1 + i;
    }
    use_ceiling(f, 65536);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, f->producer, items, 10000), BOP_EFULL);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
    /* Small segments do when a big one would go above the ceiling: 15 of them, and the first. */
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, f->producer, items, 5000), 0);
    some = bop_mpmc_push_some(f->queue, f->producer, items + 5000, 5000);
    CHECK(some > 1000 && some < 5000);
    CHECK_EQ(bop_mpmc_push_some(f->queue, f->producer, items, 5000), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 1), BOP_EFULL);
    room = 5000 + (uint64_t)some;
    CHECK_EQ(bop_mpmc_size(f->queue), room);
    pop_numbers(f, 1, room);
}

TEST(fifo, fills_the_last_cell_by_push_some)
{
    uint64_t last = 16 * SMALL_CELLS; /* 64 KiB of small segments. */
    uint64_t items[3] = {last, last + 1, last + 2};

    use_ceiling(f, 65536);
    for (uint64_t i = 1; i < last; i++) {
        push(f, i);
    }
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, f->producer, items, 3), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_some(f->queue, f->producer, items, 3), 1);
    pop_numbers(f, 1, last);
    expect_empty(f);
}

TEST(fifo, allocates_nothing_in_try_push)
{
    static uint64_t items[SMALL_CELLS];
    size_t blocks = f->heap.blocks;
    uint64_t pushed = 0;

    CHECK_EQ(bop_mpmc_try_push_bulk(f->queue, f->producer, items, SMALL_CELLS), BOP_EFULL);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
    while (bop_mpmc_try_push(f->queue, f->producer, pushed + 1) == 0) {
        pushed++;
    }
    CHECK_EQ(pushed, SMALL_CELLS);
    CHECK_EQ(bop_mpmc_try_push(f->queue, f->producer, 1), BOP_EFULL);
    CHECK_EQ(bop_mpmc_try_push_bulk(f->queue, f->producer, items, 2), BOP_EFULL);
    CHECK_EQ(f->heap.blocks, blocks);
    push(f, pushed + 1);
    CHECK_EQ(f->heap.blocks, blocks + 1);
    pop_numbers(f, 1, pushed + 1);
    /* The first segment is a spare now. */
    items[0] = 5;
    CHECK_EQ(bop_mpmc_try_push_bulk(f->queue, f->producer, items, SMALL_CELLS - 1), 0);
    CHECK_EQ(f->heap.blocks, blocks + 1);
    pop(f, 5);
}

/* Whichever allocation fails, all items are in or none. */
TEST(fifo, loses_nothing_for_lack_of_memory)
{
    static uint64_t items[3 * BIG_CELLS];
    static uint64_t out[3 * BIG_CELLS];

    for (size_t i = 0; i < BOP_COUNT_OF(items); i++) {
        items[i] = i;
    }
    FAULT_SWEEP(&f->faults) {
        struct bop_mpmc_options options = {.allocator = &f->heap.allocator, .kind = BOP_MPMC_FIFO};
        struct bop_mpmc_producer *producer = NULL;
        struct bop_mpmc_consumer *consumer = NULL;
        struct bop_mpmc *queue = NULL;
        int rc = bop_mpmc_create(&options, &queue, NULL);

        rc = rc == 0 ? bop_mpmc_producer_open(queue, &producer) : rc;
        rc = rc == 0 ? bop_mpmc_consumer_open(queue, 0, &consumer) : rc;
        rc = rc == 0 ? bop_mpmc_push_bulk(queue, producer, items, BOP_COUNT_OF(items)) : rc;
        CHECK_EQ(rc, f->faults.fired);
        if (queue) {
            size_t inside = rc == 0 ? BOP_COUNT_OF(items) : 0;

            CHECK_EQ(bop_mpmc_size(queue), inside);
            CHECK_EQ(bop_mpmc_pop_bulk(queue, consumer, out, BOP_COUNT_OF(out)), inside);
            CHECK_MEM_EQ(out, items, inside * sizeof(out[0]));
        }
        bop_mpmc_producer_close(producer);
        bop_mpmc_consumer_close(consumer);
        bop_mpmc_destroy(queue);
    }
    /* The queue, its first segment, two for each token, and three big segments and a bit. */
    CHECK(f->faults.at >= 10);
}

/* ---- Producers that stop in the middle ---- */

/* One that was preempted between its two steps. */
struct late {
    struct bop__fifo_hazard *hazard;
    struct bop__fifo_segment *segment;
    uint32_t slot;
};

static struct late reserve_slot(struct fixture *f)
{
    struct bop__fifo *queue = bop__fifo_of(f->queue);
    struct late late = {.hazard = bop__fifo_hazard_open(&queue->hazards)};
    uint64_t before;

    REQUIRE(late.hazard != NULL);
    late.segment = bop__fifo_hazard_protect(&queue->hazards, late.hazard, &queue->tail);
    before = atomic_fetch_add(&late.segment->enqueue, BOP__FIFO_SLOT);
    late.slot = bop__fifo_slots(before);
    return late;
}

/* It goes on. True: its item is in; false: its slot was given up, and the item is dead. */
static bool go_on(struct fixture *f, struct late *late, uint64_t item)
{
    uint64_t expected = 0;
    bool in = atomic_compare_exchange_strong(&late->segment->cells[late->slot], &expected, item);

    if (!in) {
        CHECK_EQ(expected, BOP__FIFO_TAKEN);
        atomic_fetch_add(&late->segment->dead, 1);
    }
    bop__fifo_hazard_close(&bop__fifo_of(f->queue)->hazards, late->hazard);
    return in;
}

TEST(fifo, passes_a_producer_that_is_late)
{
    struct late late = reserve_slot(f);

    push(f, 11);
    pop(f, 11);
    CHECK(!go_on(f, &late, 10));
    expect_empty(f);

    late = reserve_slot(f);
    push(f, 21);
    CHECK(go_on(f, &late, 20)); /* In time. */
    CHECK_EQ(bop_mpmc_size(f->queue), 2);
    pop(f, 20);
    pop(f, 21);
    expect_empty(f);
}

TEST(fifo, says_empty_when_all_that_is_under_way_is_late)
{
    struct late late = reserve_slot(f);

    expect_empty(f);
    CHECK(!go_on(f, &late, 10));
    expect_empty(f);
}

/* Late ones in many segments, before bulks and single items. */
TEST(fifo, counts_right_after_many_were_late)
{
    uint64_t pushed = 0, popped = 0;

    for (int round = 0; round < 1500; round++) {
        struct late late = reserve_slot(f);
        bool room = late.slot < bop__fifo_segment_limit(late.segment);
        size_t count = 1 + (size_t)round % 9;

        push_bulk(f, 1 + pushed, count);
        pushed += count;
        if (round % 4 == 3) {
            pop_numbers(f, 1 + popped, pushed - popped); /* Passes the late one. */
            popped = pushed;
            CHECK(!room || !go_on(f, &late, UINT64_MAX));
        } else if (room) {
            CHECK(go_on(f, &late, BOP__FIFO_TAKEN)); /* Stands for one given up. */
            atomic_fetch_add(&late.segment->dead, 1);
        }
        if (!room) { /* It has no slot after all, and would have gone to another segment. */
            bop__fifo_hazard_close(&bop__fifo_of(f->queue)->hazards, late.hazard);
        }
        REQUIRE_EQ(bop_mpmc_size(f->queue), pushed - popped);
    }
    pop_numbers(f, 1 + popped, pushed - popped);
    expect_empty(f);
}

/* ---- Closing ---- */

TEST(fifo, is_drained_after_it_was_closed)
{
    uint64_t items[2] = {1, 2}, item;

    push_bulk(f, 1, 3000);
    bop_mpmc_close(f->queue);
    bop_mpmc_close(f->queue);
    CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 1), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 0), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, f->producer, items, 2), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_push_some(f->queue, f->producer, items, 2), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_size(f->queue), 3000);
    pop_numbers(f, 1, 3000);
    CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

/* The kind's own push, as of one that the front let through just before. */
TEST(fifo, lets_no_push_through_that_was_under_way)
{
    const struct bop__mpmc_ops *ops = &bop__mpmc_fifo_ops;
    uint64_t items[2] = {1, 2};
    struct late early, late;

    push_bulk(f, 1, 3);
    early = reserve_slot(f);
    push(f, 4);
    for (uint64_t i = 5; i <= 3000; i++) {
        push(f, i);
    }
    late = reserve_slot(f);
    bop_mpmc_close(f->queue);
    CHECK(!go_on(f, &early, 1));
    CHECK(!go_on(f, &late, 1));
    CHECK_EQ(bop_mpmc_size(f->queue), 3000);
    CHECK_EQ(ops->push(f->queue, NULL, 1, 0), BOP_ECLOSED);
    CHECK_EQ(ops->push(f->queue, NULL, 0, 0), BOP_ECLOSED);
    CHECK_EQ(ops->push_bulk(f->queue, NULL, items, 2, BOP__MPMC_ALL), BOP_ECLOSED);
    CHECK_EQ(ops->push_bulk(f->queue, NULL, items, 2, 0), BOP_ECLOSED);
    pop_numbers(f, 1, 3000);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

/* ---- Segments that somebody is in ---- */

TEST(fifo, frees_what_a_token_pinned_when_the_token_goes)
{
    struct bop_mpmc_producer *idle;
    size_t pinned;

    REQUIRE_EQ(bop_mpmc_producer_open(f->queue, &idle), 0);
    for (uint64_t i = 1; i <= 20000; i++) { /* Into a big segment. */
        push(f, i);
    }
    REQUIRE_EQ(bop_mpmc_push(f->queue, idle, 20001), 0);
    push_bulk(f, 20002, 100000);
    push(f, 120002); /* Our own token leaves that segment. */
    pop_numbers(f, 1, 120002);
    CHECK(bop__fifo_of(f->queue)->hazards.retired != NULL);
    pinned = bop_mpmc_memory_bytes(f->queue);
    bop_mpmc_producer_close(idle);
    CHECK_PTR_EQ(bop__fifo_of(f->queue)->hazards.retired, NULL);
    CHECK_EQ(bop_mpmc_memory_bytes(f->queue), pinned - 65536);
}

TEST(fifo, is_not_held_up_by_operations_without_a_token)
{
    uint64_t item;

    for (uint64_t i = 1; i <= 20000; i++) {
        REQUIRE_EQ(bop_mpmc_push(f->queue, NULL, i), 0);
    }
    REQUIRE_EQ(bop_mpmc_pop(f->queue, NULL, &item), 1);
    pop_numbers(f, 2, 19999);
    CHECK_PTR_EQ(bop__fifo_of(f->queue)->hazards.retired, NULL);
    CHECK(bop_mpmc_memory_bytes(f->queue) <= KEPT_BYTES_MAX);
}

/* ---- Threads ---- */

#define THREADS_MAX 12

enum pusher_style {
    SINGLE,
    BULK,
    MIXED,
};

struct swarm {
    struct fixture *f;
    unsigned producers;
    unsigned consumers;
    uint64_t items_each; /* 0: until closed. */
    _Atomic bool closed; /* Close has returned. */
    _Atomic uint64_t popped;
    _Atomic uint64_t sum;
    atomic_uint failures;
};

struct member {
    struct swarm *swarm;
    pthread_t thread;
    unsigned number;
    uint64_t pushed;
    uint64_t sum;
};

/* The n-th item of a producer; a few of them take the way of odd values. */
static uint64_t swarm_item(unsigned producer, uint64_t n)
{
    return (n % 16 == 5 ? MARK : 0) | (uint64_t)(producer + 1) << 40 | n;
}

/* Push up to 100 items: 0 or a code. */
static int push_next(struct member *me, struct bop_mpmc_producer *producer, size_t count)
{
    struct bop_mpmc *queue = me->swarm->f->queue;
    uint64_t items[100];
    int rc;

    for (size_t i = 0; i < count; i++) {
        items[i] = swarm_item(me->number, me->pushed + i);
    }
    rc = count == 1 ? bop_mpmc_push(queue, producer, items[0])
                    : bop_mpmc_push_bulk(queue, producer, items, count);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        me->sum += items[i];
        me->pushed++;
    }
    return rc;
}

/* Odd members have no token, every third pushes bulks, every third both. */
static void *produce(void *argument)
{
    struct member *me = argument;
    struct swarm *swarm = me->swarm;
    struct bop_mpmc_producer *producer = NULL;
    int rc = 0;

    if (me->number % 2 == 0) {
        rc = bop_mpmc_producer_open(swarm->f->queue, &producer);
    }
    while (rc == 0 && (swarm->items_each == 0 || me->pushed < swarm->items_each)) {
        size_t count = me->number % 3 == SINGLE ? 1
                       : me->number % 3 == BULK ? 64
                       : me->pushed % 5 == 0    ? 100
                                                : 1;
        bool late;

        if (swarm->items_each > 0) {
            count = bop_min_u64(count, swarm->items_each - me->pushed);
        }
        late = swarm->closed;
        rc = push_next(me, producer, count);
        if (rc == 0 && late) {
            atomic_fetch_add(&swarm->failures, 1);
        }
    }
    if (rc != 0 && (rc != BOP_ECLOSED || swarm->items_each > 0)) {
        atomic_fetch_add(&swarm->failures, 1);
    }
    bop_mpmc_producer_close(producer);
    return NULL;
}

/* Each producer's items must come in their order to each consumer. */
static bool in_order(uint64_t *next, uint64_t item)
{
    uint64_t plain = item >> 48 == BOP__FIFO_MARK ? item & ~(UINT64_C(0xffff) << 48) : item;
    uint64_t producer = (plain >> 40) - 1, n = plain & ((UINT64_C(1) << 40) - 1);

    if (producer >= THREADS_MAX || n < next[producer] ||
        item != swarm_item((unsigned)producer, n)) {
        return false;
    }
    next[producer] = n + 1;
    return true;
}

static void *consume(void *argument)
{
    struct member *me = argument;
    struct swarm *swarm = me->swarm;
    struct bop_mpmc_consumer *consumer = NULL;
    uint64_t next[THREADS_MAX] = {0}, items[50], sum = 0;
    ssize_t got = 0;

    if (me->number % 2 == 0 && bop_mpmc_consumer_open(swarm->f->queue, 0, &consumer) != 0) {
        atomic_fetch_add(&swarm->failures, 1);
        return NULL;
    }
    while (got >= 0) {
        got = me->number % 3 == 0 ? bop_mpmc_pop_bulk(swarm->f->queue, consumer, items, 50)
                                  : bop_mpmc_pop(swarm->f->queue, consumer, items);
        for (ssize_t i = 0; i < got; i++) {
            if (!in_order(next, items[i])) {
                atomic_fetch_add(&swarm->failures, 1);
            }
            sum += items[i];
        }
        if (got > 0) {
            atomic_fetch_add(&swarm->popped, (uint64_t)got);
        } else {
            sched_yield();
        }
    }
    if (got != BOP_ECLOSED) {
        atomic_fetch_add(&swarm->failures, 1);
    }
    atomic_fetch_add(&swarm->sum, sum);
    bop_mpmc_consumer_close(consumer);
    return NULL;
}

static void run_swarm(struct swarm *swarm, uint64_t close_after)
{
    struct member producers[THREADS_MAX] = {0}, consumers[THREADS_MAX] = {0};
    struct bop_mpmc *queue = swarm->f->queue;
    uint64_t pushed = 0, sum = 0;

    for (unsigned i = 0; i < swarm->producers; i++) {
        producers[i] = (struct member){.swarm = swarm, .number = i};
        REQUIRE_EQ(pthread_create(&producers[i].thread, NULL, produce, &producers[i]), 0);
    }
    for (unsigned i = 0; i < swarm->consumers; i++) {
        consumers[i] = (struct member){.swarm = swarm, .number = i};
        REQUIRE_EQ(pthread_create(&consumers[i].thread, NULL, consume, &consumers[i]), 0);
    }
    while (close_after > 0 && swarm->popped < close_after) {
        CHECK(bop_mpmc_size(queue) < SIZE_MAX / 2);
        sched_yield();
    }
    if (close_after > 0) {
        bop_mpmc_close(queue);
        swarm->closed = true;
    }
    for (unsigned i = 0; i < swarm->producers; i++) {
        pthread_join(producers[i].thread, NULL);
        pushed += producers[i].pushed;
        sum += producers[i].sum;
    }
    bop_mpmc_close(queue);
    for (unsigned i = 0; i < swarm->consumers; i++) {
        pthread_join(consumers[i].thread, NULL);
    }
    CHECK_EQ(swarm->failures, 0);
    CHECK_EQ(swarm->popped, pushed);
    CHECK_EQ(swarm->sum, sum);
    CHECK_EQ(bop_mpmc_size(queue), 0);
    CHECK(bop_mpmc_memory_bytes(queue) <= 4 * 65536 + 4 * 4096 + 32 * 65536);
}

TEST(fifo, loses_nothing_between_threads)
{
    struct swarm swarm = {.f = f, .producers = 4, .consumers = 4, .items_each = 30000};

    run_swarm(&swarm, 0);
}

/* More threads without tokens than there are records at hand. */
TEST(fifo, loses_nothing_in_a_crowd)
{
    struct swarm swarm = {.f = f, .producers = 12, .consumers = 12, .items_each = 6000};

    run_swarm(&swarm, 0);
}

TEST(fifo, loses_nothing_of_one_producer_and_one_consumer)
{
    struct swarm swarm = {.f = f, .producers = 1, .consumers = 1, .items_each = 100000};

    run_swarm(&swarm, 0);
}

TEST(fifo, takes_nothing_more_once_closed_under_fire)
{
    for (uint64_t round = 1; round <= 20; round++) {
        struct swarm swarm = {.f = f, .producers = 3, .consumers = 2};

        run_swarm(&swarm, 300 * round);
        use_ceiling(f, 0);
    }
}
