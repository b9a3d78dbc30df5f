/*
 * Slots and their generations: no handle ever means what it was not given for.
 */
#include <stdlib.h>

#include "../../../src/net/socket/slots.h"
#include "heap.h"
#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop__slots slots;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop__slots_init(&f->slots, &f->heap.allocator);
}

static void teardown(struct fixture *f)
{
    bop__slots_deinit(&f->slots);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static bool is_zero(const struct bop__slot *slot, size_t bytes)
{
    const uint8_t *at = (const uint8_t *)slot;

    for (size_t i = sizeof(*slot); i < bytes; i++) {
        if (at[i] != 0) {
            return false;
        }
    }
    return true;
}

TEST(slots, are_aligned_and_zeroed)
{
    struct bop__pool *pool = bop__slots_pool(&f->slots, 130);

    REQUIRE(pool != NULL);
    CHECK_EQ(pool->slot_bytes, 192);
    for (int i = 0; i < 100; i++) {
        struct bop__slot *slot = bop__pool_take(pool);

        REQUIRE(slot != NULL);
        CHECK_EQ((uintptr_t)slot % BOP__SLOT_ALIGN, 0);
        REQUIRE(is_zero(slot, 192));
        memset(slot + 1, 0xab, 192 - sizeof(*slot));
        if (i % 3 == 0) {
            bop__pool_give(pool, slot);
        }
    }
}

TEST(slots, of_one_size_share_a_pool)
{
    struct bop__pool *pool = bop__slots_pool(&f->slots, 128);

    CHECK_PTR_EQ(bop__slots_pool(&f->slots, 65), pool);
    CHECK(bop__slots_pool(&f->slots, 129) != pool);
}

TEST(slots, know_their_handles)
{
    struct bop__slot *slot = bop__pool_take(bop__slots_pool(&f->slots, 64));
    void *first = bop__slot_handle(slot), *second;

    CHECK_PTR_EQ(bop__slot_of(first), slot);
    CHECK_PTR_EQ(bop__slot_of(NULL), NULL);
    CHECK(bop__slot_renew(slot));
    second = bop__slot_handle(slot);
    CHECK_PTR_EQ(bop__slot_of(first), NULL);
    CHECK_PTR_EQ(bop__slot_of(second), slot);
    bop__pool_give(bop__slots_pool(&f->slots, 64), slot);
    CHECK_PTR_EQ(bop__slot_of(second), NULL);
}

/* One slot, used so often that its generations run out: then another comes. */
TEST(slots, are_retired_when_their_generations_are_used_up)
{
    struct bop__pool *pool = bop__slots_pool(&f->slots, 64);
    struct bop__slot *first = bop__pool_take(pool), *slot = first;
    void *oldest = bop__slot_handle(first), *before = oldest;
    uint32_t generation = slot->generation;

    CHECK(generation > 0);
    bop__pool_give(pool, slot);
    for (uint32_t i = 0; i < BOP__SLOT_GENERATIONS + 1000; i++) {
        slot = bop__pool_take(pool);
        if (slot == first) {
            REQUIRE(slot->generation == ++generation);
        }
        REQUIRE(bop__slot_of(before) == NULL && bop__slot_of(oldest) == NULL);
        before = bop__slot_handle(slot);
        REQUIRE(bop__slot_of(before) == slot);
        bop__pool_give(pool, slot);
    }
    CHECK(slot != first);
    CHECK_EQ(generation, BOP__SLOT_GENERATIONS - 2);
    CHECK_EQ(first->generation, BOP__SLOT_GENERATIONS - 1);
}

TEST(slots, can_be_renewed_until_their_generations_are_used_up)
{
    struct bop__pool *pool = bop__slots_pool(&f->slots, 64);
    struct bop__slot *slot = bop__pool_take(pool);
    uint32_t count = 0;

    while (bop__slot_renew(slot)) {
        count++;
    }
    CHECK_EQ(count, BOP__SLOT_GENERATIONS - 3);
    CHECK_PTR_EQ(bop__slot_of(bop__slot_handle(slot)), slot);
    bop__pool_give(pool, slot);
    CHECK(bop__pool_take(pool) != slot);
}

/* Many come and go, at random: each handle is good exactly as long as its slot is taken. */
TEST(slots, outlive_floods)
{
    enum { MOST = 20000, STEPS = 400000, PAST = 4096 };
    struct bop__pool *pool = bop__slots_pool(&f->slots, 192);
    struct bop__slot **taken = calloc(MOST, sizeof(*taken));
    void **past = calloc(PAST, sizeof(*past));
    size_t count = 0, gone = 0, peak = 0;
    uint64_t random = 1;

    REQUIRE(taken != NULL && past != NULL);
    for (int step = 0; step < STEPS; step++) {
        /* Ebb and flood, so that chunks fall empty and are reset. */
        bool grow = (step / 50000) % 2 == 0;

        random = random * 6364136223846793005u + 1442695040888963407u;
        if (count < MOST && (count == 0 || (random >> 60 < 12) == grow)) {
            taken[count] = bop__pool_take(pool);
            REQUIRE(taken[count] != NULL);
            REQUIRE(is_zero(taken[count], 192));
            memset(taken[count] + 1, 0xff, 188);
            count++;
            peak = bop_max_u64(peak, f->heap.live);
        } else {
            size_t at = (random >> 20) % count;

            past[gone++ % PAST] = bop__slot_handle(taken[at]);
            bop__pool_give(pool, taken[at]);
            taken[at] = taken[--count];
        }
        if (step % 1000 == 0) {
            for (size_t i = 0; i < bop_min_u64(gone, PAST); i++) {
                REQUIRE(bop__slot_of(past[i]) == NULL);
            }
            for (size_t i = 0; i < count; i += 97) {
                REQUIRE(bop__slot_of(bop__slot_handle(taken[i])) == taken[i]);
            }
        }
    }
    CHECK(peak <= 2 * (size_t)MOST * 192);
    free(taken);
    free(past);
}

TEST(slots, survive_each_fault)
{
    bop__slots_deinit(&f->slots);
    FAULT_SWEEP(&f->faults) {
        struct bop__pool *pool;
        unsigned taken = 0;

        bop__slots_init(&f->slots, &f->heap.allocator);
        pool = bop__slots_pool(&f->slots, 64);
        while (pool != NULL && taken < 2000 && bop__pool_take(pool) != NULL) {
            taken++;
        }
        CHECK((taken == 2000) == (f->faults.fired == 0));
        bop__slots_deinit(&f->slots);
        CHECK_EQ(f->heap.live, 0);
    }
    bop__slots_init(&f->slots, &f->heap.allocator);
}

static void count_slot(struct bop__slot *slot, void *arg)
{
    ++*(unsigned *)arg;
}

TEST(slots, are_all_gone_through)
{
    unsigned seen = 0;

    for (int i = 0; i < 500; i++) {
        REQUIRE(bop__pool_take(bop__slots_pool(&f->slots, i % 2 ? 64 : 128)) != NULL);
    }
    bop__slots_each(&f->slots, count_slot, &seen);
    CHECK_EQ(seen, 500);
}
