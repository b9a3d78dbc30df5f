/*
 * Several threads that read the same packed file through one cache, while it forgets.
 */
#include <pthread.h>

#include "warm_harness.h"

#define THREADS 4u
#define READS   400u

static const struct segment_options some = {
    .base = 1, .generation = 1, .records = 1500, .length_max = 300, .seed = 8};

struct shared {
    struct fixture *fixture;
    struct bop__frame_cache *cache;
    uint64_t file_number;
    atomic_uint turn;
};

static void read_some(struct shared *shared, struct bop__segment_source *source,
                      struct bop_random *random)
{
    const struct bop_buf *want = &shared->fixture->segment.bytes;

    for (unsigned i = 0; i < READS; i++) {
        uint64_t at = bop_random_below(random, source->size);
        struct bop_slice got = {0};

        REQUIRE_EQ(source->at(source, at, (size_t)bop_random_below(random, 8000), &got, NULL), 0);
        /* Held while it is compared, whatever the others push out. */
        CHECK_MEM_EQ(got.data, want->data + at, got.size);
        if (i % 100 == 50) {
            bop__frame_cache_forget(shared->cache, shared->file_number);
        }
        if (i % 100 == 70) {
            REQUIRE_EQ(bop__warm_load(source, bop_random_below(random, 20), 8, NULL), 0);
        }
    }
}

static void *work(void *user)
{
    struct shared *shared = user;
    struct bop_random random;

    bop_random_seed(&random, atomic_fetch_add(&shared->turn, 1));
    for (unsigned i = 0; i < 3; i++) {
        struct memory_packed packed = memory_packed(bop_buf_slice(&shared->fixture->packed));
        struct bop__segment_source *source;

        packed.packed.file_number = shared->file_number;
        REQUIRE_EQ(bop__warm_open(NULL, &packed.packed, shared->cache, &source, NULL), 0);
        read_some(shared, source, &random);
        source->close(source);
    }
    return NULL;
}

static void run_threads(struct fixture *f, uint64_t cache_bytes)
{
    struct shared shared = {.fixture = f, .file_number = 12};
    pthread_t threads[THREADS];

    REQUIRE_EQ(bop__frame_cache_create(NULL, cache_bytes, &shared.cache), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        REQUIRE_EQ(pthread_create(&threads[i], NULL, work, &shared), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK(bop__frame_cache_bytes(shared.cache) <= bop_max_u64(cache_bytes, 64 * 1024));
    bop__frame_cache_destroy(shared.cache);
}

TEST(warm_threads, read_through_a_cache_that_has_all)
{
    make_and_pack(f, &some);
    run_threads(f, 4u << 20);
}

TEST(warm_threads, read_through_a_cache_that_has_little)
{
    f->options.frame_bytes = 4096;
    f->options.dictionary_bytes = 2048;
    make_and_pack(f, &some);
    run_threads(f, 50000);
}
