/*
 * The cache of frames: what stays, what goes, and that a frame is loaded once.
 */
#include <pthread.h>

#include "store/aof/frame_cache.h"
#include "tap.h"

#define FRAME 1000u
/* What a frame of that size counts. */
#define COUNTED (FRAME + sizeof(struct bop__frame))

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop__frame_cache *cache;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop__frame_cache_create(&f->heap.allocator, 4 * COUNTED, &f->cache), 0);
}

static void teardown(struct fixture *f)
{
    bop__frame_cache_destroy(f->cache);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void fill(struct bop__frame *frame)
{
    memset(frame->data, (int)(frame->file_number * 16 + frame->number), frame->size);
}

static void check_filled(const struct bop__frame *frame)
{
    uint8_t want = (uint8_t)(frame->file_number * 16 + frame->number);

    CHECK_EQ(frame->data[0], want);
    CHECK_EQ(frame->data[frame->size - 1], want);
}

/* Load a frame that is not there. */
static void load(struct fixture *f, uint64_t file, uint64_t number)
{
    struct bop__frame *frame = NULL;

    REQUIRE_EQ(bop__frame_cache_claim(f->cache, file, number, FRAME, true, &frame), 0);
    fill(frame);
    bop__frame_cache_publish(f->cache, frame);
    bop__frame_release(frame);
}

static bool there(struct fixture *f, uint64_t file, uint64_t number)
{
    struct bop__frame *frame = bop__frame_cache_find(f->cache, file, number);

    if (frame) {
        check_filled(frame);
        bop__frame_release(frame);
    }
    return frame != NULL;
}

TEST(frame_cache, drops_what_was_not_used_for_longest)
{
    for (uint64_t i = 0; i < 4; i++) {
        load(f, 1, i);
    }
    CHECK_EQ(bop__frame_cache_bytes(f->cache), 4 * COUNTED);
    CHECK(there(f, 1, 0)); /* Now frame 1 is the oldest. */
    load(f, 1, 4);
    CHECK_EQ(bop__frame_cache_bytes(f->cache), 4 * COUNTED);
    CHECK(!there(f, 1, 1));
    CHECK(there(f, 1, 0));
    CHECK(there(f, 1, 2));
    CHECK(there(f, 1, 4));
    CHECK(!there(f, 2, 4)); /* Of another file. */
}

TEST(frame_cache, what_is_held_outlives_its_place)
{
    struct bop__frame *held;

    load(f, 1, 0);
    held = bop__frame_cache_find(f->cache, 1, 0);
    REQUIRE(held != NULL);
    for (uint64_t i = 1; i < 6; i++) {
        load(f, 1, i);
    }
    CHECK(!there(f, 1, 0));
    check_filled(held);
    bop__frame_cache_forget(f->cache, 1);
    CHECK_EQ(bop__frame_cache_bytes(f->cache), 0);
    check_filled(held);
    bop__frame_release(held);
}

TEST(frame_cache, keeps_the_last_one_even_above_the_budget)
{
    struct bop__frame *frame = NULL;

    load(f, 1, 0);
    REQUIRE_EQ(bop__frame_cache_claim(f->cache, 1, 1, 100 * FRAME, true, &frame), 0);
    fill(frame);
    bop__frame_cache_publish(f->cache, frame);
    bop__frame_release(frame);
    CHECK(there(f, 1, 1));
    CHECK(!there(f, 1, 0));
    load(f, 1, 2);
    CHECK(!there(f, 1, 1));
    CHECK_EQ(bop__frame_cache_bytes(f->cache), COUNTED);
}

TEST(frame_cache, says_that_somebody_loads_it)
{
    struct bop__frame *frame = NULL, *other = NULL;

    REQUIRE_EQ(bop__frame_cache_claim(f->cache, 1, 0, FRAME, true, &frame), 0);
    CHECK_EQ(bop__frame_cache_claim(f->cache, 1, 0, FRAME, false, &other), BOP_EBUSY);
    CHECK(!there(f, 1, 0));
    fill(frame);
    bop__frame_cache_publish(f->cache, frame);
    CHECK_EQ(bop__frame_cache_claim(f->cache, 1, 0, FRAME, false, &other), 1);
    CHECK_PTR_EQ(frame, other);
    bop__frame_release(frame);
    bop__frame_release(other);
}

TEST(frame_cache, what_could_not_be_loaded_can_be_tried_again)
{
    struct bop__frame *frame = NULL;

    REQUIRE_EQ(bop__frame_cache_claim(f->cache, 1, 0, FRAME, true, &frame), 0);
    bop__frame_cache_abandon(f->cache, frame);
    CHECK_EQ(bop__frame_cache_bytes(f->cache), 0);
    load(f, 1, 0);
    CHECK(there(f, 1, 0));
}

TEST(frame_cache, forgets_what_is_being_loaded)
{
    struct bop__frame *frame = NULL;

    REQUIRE_EQ(bop__frame_cache_claim(f->cache, 1, 0, FRAME, true, &frame), 0);
    bop__frame_cache_forget(f->cache, 1);
    fill(frame);
    bop__frame_cache_publish(f->cache, frame);
    check_filled(frame);
    CHECK(!there(f, 1, 0));
    bop__frame_release(frame);
    REQUIRE_EQ(bop__frame_cache_claim(f->cache, 1, 0, FRAME, true, &frame), 0);
    bop__frame_cache_forget(f->cache, 1);
    bop__frame_cache_abandon(f->cache, frame);
}

TEST(frame_cache, puts_a_frame_once)
{
    struct bop__frame *a = bop__frame_create(&f->heap.allocator, 1, 5, FRAME);
    struct bop__frame *b = bop__frame_create(&f->heap.allocator, 1, 5, FRAME);

    REQUIRE(a && b);
    fill(a);
    CHECK_PTR_EQ(bop__frame_cache_put(f->cache, a), a);
    CHECK_PTR_EQ(bop__frame_cache_put(f->cache, b), a);
    CHECK(there(f, 1, 5));
    bop__frame_release(a);
    bop__frame_release(a);
}

TEST(frame_cache, survives_lack_of_memory)
{
    FAULT_SWEEP(&f->faults) {
        struct bop__frame_cache *cache = NULL;
        struct bop__frame *frame = NULL;
        size_t before = f->heap.live;
        int rc = bop__frame_cache_create(&f->heap.allocator, 1000000, &cache);

        if (rc == 0) {
            rc = bop__frame_cache_claim(cache, 1, 0, FRAME, true, &frame);
            if (rc == 0) {
                bop__frame_cache_publish(cache, frame);
                bop__frame_release(frame);
            }
        }
        CHECK_EQ(rc, f->faults.fired);
        bop__frame_cache_destroy(cache);
        CHECK_EQ(f->heap.live, before);
    }
}

/* ---- Threads ---- */

#define THREADS 4u
#define ROUNDS  2000u
#define NUMBERS 12u

struct shared {
    struct bop__frame_cache *cache;
    atomic_uint loading[NUMBERS];
    atomic_uint loads;
    atomic_uint turn;
};

static void use(struct shared *shared, struct bop_random *random)
{
    uint64_t number = bop_random_below(random, NUMBERS);
    struct bop__frame *frame = NULL;
    int rc = bop__frame_cache_claim(shared->cache, 3, number, FRAME, true, &frame);

    REQUIRE(rc == 0 || rc == 1);
    if (rc == 0) {
        /* Nobody else loads it at the same time. */
        CHECK_EQ(atomic_fetch_add(&shared->loading[number], 1), 0);
        fill(frame);
        atomic_fetch_add(&shared->loads, 1);
        CHECK_EQ(atomic_fetch_sub(&shared->loading[number], 1), 1);
        if (bop_random_chance(random, 1, 10)) {
            bop__frame_cache_abandon(shared->cache, frame);
            return;
        }
        bop__frame_cache_publish(shared->cache, frame);
    }
    check_filled(frame);
    bop__frame_release(frame);
}

static void *work(void *user)
{
    struct shared *shared = user;
    struct bop_random random;

    bop_random_seed(&random, atomic_fetch_add(&shared->turn, 1));
    for (unsigned i = 0; i < ROUNDS; i++) {
        use(shared, &random);
    }
    return NULL;
}

TEST(frame_cache, loads_a_frame_once_for_all_threads)
{
    struct shared shared = {.cache = f->cache};
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        REQUIRE_EQ(pthread_create(&threads[i], NULL, work, &shared), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK(bop__frame_cache_bytes(f->cache) <= 4 * COUNTED);
    CHECK(atomic_load(&shared.loads) > NUMBERS);
}

struct waiter {
    struct bop__frame_cache *cache;
    atomic_bool began;
    int rc;
    bool right;
};

static void *wait_for_it(void *user)
{
    struct waiter *w = user;
    struct bop__frame *frame = NULL;

    atomic_store(&w->began, true);
    w->rc = bop__frame_cache_claim(w->cache, 1, 9, FRAME, true, &frame);
    if (w->rc == 1) {
        w->right = frame->data[5] == (uint8_t)(16 + 9);
        bop__frame_release(frame);
    } else if (w->rc == 0) {
        bop__frame_cache_abandon(w->cache, frame);
    }
    return NULL;
}

/* Whichever comes first: it waits and gets it, or finds it; it never loads it as well. */
TEST(frame_cache, who_comes_second_waits_for_the_first)
{
    struct waiter w = {.cache = f->cache};
    struct bop__frame *frame = NULL;
    pthread_t thread;

    REQUIRE_EQ(bop__frame_cache_claim(f->cache, 1, 9, FRAME, true, &frame), 0);
    REQUIRE_EQ(pthread_create(&thread, NULL, wait_for_it, &w), 0);
    while (!atomic_load(&w.began)) {
    }
    fill(frame);
    bop__frame_cache_publish(f->cache, frame);
    REQUIRE_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(w.rc, 1);
    CHECK(w.right);
    bop__frame_release(frame);
}
