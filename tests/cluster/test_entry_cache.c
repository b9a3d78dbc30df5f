#include "entry_cache.h"

#include <bop/random.h>

#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct entry_cache cache;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop__entry_cache_init(&f->cache, &f->heap.allocator, 1024);
}

static void teardown(struct fixture *f)
{
    bop__entry_cache_deinit(&f->cache);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static struct bop_raft_entry command(uint64_t term, const char *text)
{
    return (struct bop_raft_entry){.term = term, .type = BOP_RAFT_COMMAND, .data = bytes(text)};
}

/* Append `count` entries with this text, which get the numbers from `first` on. */
static int append(struct entry_cache *cache, uint64_t first, unsigned count, const char *text)
{
    struct bop_raft_entry entries[64];

    REQUIRE(count <= BOP_COUNT_OF(entries));
    for (unsigned n = 0; n < count; n++) {
        entries[n] = command(first + n, text);
    }
    return bop__entry_cache_append(cache, first, entries, count);
}

TEST(entry_cache, has_nothing_at_first)
{
    CHECK_PTR_EQ(bop__entry_cache_get(&f->cache, 0), NULL);
    CHECK_PTR_EQ(bop__entry_cache_get(&f->cache, 1), NULL);
    CHECK_PTR_EQ(bop__entry_cache_get(&f->cache, UINT64_MAX), NULL);
}

TEST(entry_cache, gives_copies_of_what_was_appended)
{
    char text[] = "one";
    struct bop_raft_entry entries[] = {
        {.term = 3, .type = BOP_RAFT_COMMAND, .data = bytes(text)},
        {.term = 3, .type = BOP_RAFT_BARRIER},
        {.term = 4, .type = BOP_RAFT_CHANGE, .data = bytes("three")},
    };

    REQUIRE_EQ(bop__entry_cache_append(&f->cache, 7, entries, 3), 0);
    memset(text, 'x', sizeof(text));
    memset(entries, 0, sizeof(entries));
    CHECK_PTR_EQ(bop__entry_cache_get(&f->cache, 6), NULL);
    REQUIRE(bop__entry_cache_get(&f->cache, 7));
    CHECK_EQ(bop__entry_cache_get(&f->cache, 7)->term, 3);
    CHECK_EQ(bop__entry_cache_get(&f->cache, 7)->type, BOP_RAFT_COMMAND);
    CHECK_SLICE_EQ(bop__entry_cache_get(&f->cache, 7)->data, bytes("one"));
    CHECK_EQ(bop__entry_cache_get(&f->cache, 8)->type, BOP_RAFT_BARRIER);
    CHECK_EQ(bop__entry_cache_get(&f->cache, 8)->data.size, 0);
    CHECK_EQ(bop__entry_cache_get(&f->cache, 9)->term, 4);
    CHECK_SLICE_EQ(bop__entry_cache_get(&f->cache, 9)->data, bytes("three"));
    CHECK_PTR_EQ(bop__entry_cache_get(&f->cache, 10), NULL);
}

TEST(entry_cache, truncates_in_the_middle_of_a_block)
{
    REQUIRE_EQ(append(&f->cache, 1, 3, "old"), 0);
    REQUIRE_EQ(append(&f->cache, 4, 3, "old"), 0);
    bop__entry_cache_truncate(&f->cache, 2);
    CHECK(bop__entry_cache_get(&f->cache, 2));
    CHECK_PTR_EQ(bop__entry_cache_get(&f->cache, 3), NULL);
    CHECK_PTR_EQ(bop__entry_cache_get(&f->cache, 4), NULL);
    REQUIRE_EQ(append(&f->cache, 3, 1, "new"), 0);
    REQUIRE(bop__entry_cache_get(&f->cache, 3));
    CHECK_SLICE_EQ(bop__entry_cache_get(&f->cache, 3)->data, bytes("new"));
}

TEST(entry_cache, truncated_to_nothing_takes_any_number)
{
    REQUIRE_EQ(append(&f->cache, 10, 3, "old"), 0);
    bop__entry_cache_truncate(&f->cache, 9);
    CHECK_EQ(f->cache.bytes, 0);
    REQUIRE_EQ(append(&f->cache, 100, 1, "new"), 0);
    CHECK(bop__entry_cache_get(&f->cache, 100));
}

TEST(entry_cache, trims_only_what_may_go)
{
    char text[600];

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    for (uint64_t first = 1; first <= 9; first += 2) {
        REQUIRE_EQ(append(&f->cache, first, 2, text), 0); /* 1,198 bytes of data: over the bound. */
    }
    bop__entry_cache_trim(&f->cache, 0);
    CHECK(bop__entry_cache_get(&f->cache, 1));
    bop__entry_cache_trim(&f->cache, 3); /* The second block ends at 4. */
    CHECK_PTR_EQ(bop__entry_cache_get(&f->cache, 2), NULL);
    CHECK(bop__entry_cache_get(&f->cache, 3));
    bop__entry_cache_trim(&f->cache, UINT64_MAX); /* The newest block always stays. */
    CHECK_PTR_EQ(bop__entry_cache_get(&f->cache, 8), NULL);
    CHECK(bop__entry_cache_get(&f->cache, 9));
    CHECK(bop__entry_cache_get(&f->cache, 10));
}

TEST(entry_cache, below_its_bound_trims_nothing)
{
    REQUIRE_EQ(append(&f->cache, 1, 1, "a"), 0);
    REQUIRE_EQ(append(&f->cache, 2, 1, "b"), 0);
    bop__entry_cache_trim(&f->cache, 2);
    CHECK(bop__entry_cache_get(&f->cache, 1));
}

/* The ring of blocks grows while it is wrapped around. */
TEST(entry_cache, grows_in_order)
{
    char text[100];

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    for (uint64_t index = 1; index <= 1000; index++) {
        REQUIRE_EQ(append(&f->cache, index, 1, text), 0);
        if (index % 3 == 0 && index < 200) {
            bop__entry_cache_trim(&f->cache, index / 2);
        }
    }
    for (uint64_t index = 100; index <= 1000; index++) {
        REQUIRE(bop__entry_cache_get(&f->cache, index));
        CHECK_EQ(bop__entry_cache_get(&f->cache, index)->term, index);
    }
}

/* ---- Against a model: entries by number, of which the oldest may be missing ---- */

#define MODEL_MAX 4096

struct model {
    uint64_t terms[MODEL_MAX];
    size_t sizes[MODEL_MAX];
    uint64_t first; /* No lower one was ever appended, or all of them were cleared. */
    uint64_t last;
};

static void model_append(struct fixture *f, struct model *model, struct bop_random *random)
{
    static uint8_t data[300];
    struct bop_raft_entry entries[8];
    unsigned count = 1 + (unsigned)bop_random_below(random, BOP_COUNT_OF(entries));

    if (model->last + count >= MODEL_MAX) {
        return;
    }
    for (unsigned n = 0; n < count; n++) {
        uint64_t index = model->last + 1 + n;

        model->terms[index] = 1 + bop_random_below(random, 1000);
        model->sizes[index] = bop_random_below(random, sizeof(data));
        entries[n] = (struct bop_raft_entry){.term = model->terms[index],
                                             .type = BOP_RAFT_COMMAND,
                                             .data = bop_slice(data, model->sizes[index])};
    }
    REQUIRE_EQ(bop__entry_cache_append(&f->cache, model->last + 1, entries, count), 0);
    model->last += count;
}

static void model_check(struct fixture *f, const struct model *model, uint64_t droppable)
{
    bool met = false;

    CHECK_PTR_EQ(bop__entry_cache_get(&f->cache, model->last + 1), NULL);
    for (uint64_t index = model->first; index <= model->last; index++) {
        const struct bop_raft_entry *entry = bop__entry_cache_get(&f->cache, index);

        /* Once one is there all newer ones are, and what must not go is. */
        CHECK(entry || (!met && index <= droppable));
        if (entry) {
            met = true;
            CHECK_EQ(entry->term, model->terms[index]);
            CHECK_EQ(entry->data.size, model->sizes[index]);
        }
    }
}

TEST(entry_cache, is_as_its_model)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct bop_random random;
        struct model model = {.first = 1};
        uint64_t droppable = 0;

        bop_random_seed(&random, seed);
        bop__entry_cache_clear(&f->cache);
        for (unsigned step = 0; step < 200; step++) {
            switch (bop_random_below(&random, 8)) {
            case 0:
                /* Never below what was trimmed: what is durable and applied stays. */
                model.last = droppable + bop_random_below(&random, model.last - droppable + 1);
                bop__entry_cache_truncate(&f->cache, model.last);
                break;
            case 1:
            case 2:
                droppable += bop_random_below(&random, model.last - droppable + 1);
                bop__entry_cache_trim(&f->cache, droppable);
                break;
            default:
                model_append(f, &model, &random);
            }
            model_check(f, &model, droppable);
        }
    }
}

TEST(entry_cache, survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        struct entry_cache cache;
        int rc = 0;
        uint64_t index = 0;

        bop__entry_cache_init(&cache, &f->heap.allocator, 1024);
        while (rc == 0 && index < 70) {
            rc = append(&cache, index + 1, 1, "entry");
            index += rc == 0;
        }
        CHECK_EQ(rc, f->faults.fired);
        /* A failed append changes nothing. */
        CHECK_PTR_EQ(bop__entry_cache_get(&cache, index + 1), NULL);
        CHECK(index == 0 || bop__entry_cache_get(&cache, index));
        bop__entry_cache_deinit(&cache);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 72); /* 70 blocks, and the ring twice: for 64 and for 128 of them. */
}
