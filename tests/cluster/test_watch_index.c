#include "watch_index.h"

#include "tap.h"

#define MODEL_MAX 400
#define STEPS     20000
#define TEXT_MAX  6

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct watch_index index;
    unsigned hits;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop__watch_index_init(&f->index, &f->heap.allocator, 7);
}

static void teardown(struct fixture *f)
{
    bop__watch_index_deinit(&f->index);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void count_hit(void *user, struct watch_interval *interval)
{
    ((struct fixture *)user)->hits++;
    CHECK(interval->references > 0);
}

static struct watch_interval *get(struct fixture *f, const char *name, const char *from,
                                  const char *to)
{
    struct watch_interval *interval = NULL;

    REQUIRE_EQ(bop__watch_index_get(&f->index, 1, bytes(name), bytes(from), bytes(to), &interval),
               0);
    bop__watch_index_check(&f->index);
    return interval;
}

static unsigned hits(struct fixture *f, const char *name, enum watch_scope scope, const char *key)
{
    f->hits = 0;
    bop__watch_index_match(&f->index, 1, bytes(name), scope, bytes(key), count_hit, f);
    return f->hits;
}

TEST(watch_index, is_nothing_at_first)
{
    CHECK_EQ(hits(f, "m", WATCH_KEY, "k"), 0);
    CHECK_EQ(hits(f, "m", WATCH_ALL, ""), 0);
    CHECK_EQ(hits(f, "m", WATCH_WHOLE, ""), 0);
}

TEST(watch_index, finds_intervals_around_a_key)
{
    struct watch_interval *whole = get(f, "m", "", "");
    struct watch_interval *some = get(f, "m", "b", "d");
    struct watch_interval *upper = get(f, "m", "c", "");

    CHECK_EQ(hits(f, "m", WATCH_KEY, "a"), 1);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "b"), 2);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "c"), 3);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "czzz"), 3);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "d"), 2);
    CHECK_EQ(hits(f, "m", WATCH_KEY, ""), 1);
    CHECK_EQ(hits(f, "m", WATCH_ALL, ""), 3);
    CHECK_EQ(hits(f, "m", WATCH_WHOLE, ""), 1);
    CHECK_EQ(hits(f, "n", WATCH_KEY, "c"), 0);
    bop__watch_index_put(whole);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "c"), 2);
    CHECK_EQ(hits(f, "m", WATCH_WHOLE, ""), 0);
    bop__watch_index_put(some);
    bop__watch_index_put(upper);
    CHECK_EQ(f->index.bytes, 0);
}

TEST(watch_index, an_exact_key_is_an_interval)
{
    struct watch_interval *exact, *longer;

    REQUIRE_EQ(
        bop__watch_index_get(&f->index, 1, bytes("m"), bytes("ab"), bop_slice("ab", 3), &exact), 0);
    /* Of the same sizes, and none. */
    REQUIRE_EQ(bop__watch_index_get(&f->index, 1, bytes("m"), bytes("ab"), bytes("abc"), &longer),
               0);
    CHECK(exact->exact);
    CHECK(!longer->exact);
    CHECK_SLICE_EQ(bop__watch_interval_from(exact), bytes("ab"));
    CHECK_SLICE_EQ(bop__watch_interval_to(exact), bop_slice("ab", 3));
    CHECK_SLICE_EQ(bop__watch_interval_from(longer), bytes("ab"));
    CHECK_SLICE_EQ(bop__watch_interval_to(longer), bytes("abc"));
    CHECK_EQ(hits(f, "m", WATCH_KEY, "ab"), 2);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "abb"), 1);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "abc"), 0);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "a"), 0);
    bop__watch_index_put(exact);
    bop__watch_index_put(longer);
}

TEST(watch_index, the_empty_key_is_one)
{
    struct watch_interval *empty;

    REQUIRE_EQ(bop__watch_index_get(&f->index, 1, bytes("m"), bytes(""), bop_slice("", 1), &empty),
               0);
    CHECK_EQ(hits(f, "m", WATCH_KEY, ""), 1);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "a"), 0);
    CHECK_EQ(hits(f, "m", WATCH_WHOLE, ""), 0);
    bop__watch_index_put(empty);
}

TEST(watch_index, equal_intervals_are_one)
{
    struct watch_interval *a = get(f, "m", "b", "d");
    struct watch_interval *b = get(f, "m", "b", "d");
    struct watch_interval *other;

    CHECK_PTR_EQ(a, b);
    REQUIRE_EQ(bop__watch_index_get(&f->index, 2, bytes("m"), bytes("b"), bytes("d"), &other), 0);
    CHECK(other != a);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "c"), 1);
    bop__watch_index_put(a);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "c"), 1);
    bop__watch_index_put(b);
    CHECK_EQ(hits(f, "m", WATCH_KEY, "c"), 0);
    bop__watch_index_put(other);
}

TEST(watch_index, without_memory_nothing_changes)
{
    struct watch_interval *interval;

    FAULT_SWEEP(&f->faults) {
        int rc = bop__watch_index_get(&f->index, 1, bytes("m"), bytes("a"), bytes("b"), &interval);

        CHECK_EQ(rc, f->faults.fired ? BOP_ENOMEM : 0);
        CHECK_EQ(hits(f, "m", WATCH_ALL, ""), rc == 0);
        if (rc == 0) {
            bop__watch_index_put(interval);
        }
        CHECK_EQ(f->index.count, 0);
        bop__watch_index_deinit(&f->index);
        bop__watch_index_init(&f->index, &f->heap.allocator, 7);
        CHECK_EQ(f->heap.live, 0);
    }
}

/* ---- Against a plain list ---- */

struct model_entry {
    char from[TEXT_MAX];
    char to[TEXT_MAX];
    struct watch_interval *interval;
};

static void random_text(struct bop_random *random, char *text)
{
    size_t size = bop_random_below(random, TEXT_MAX);

    for (size_t n = 0; n < size; n++) {
        text[n] = (char)('a' + bop_random_below(random, 3));
    }
    text[size] = '\0';
}

static bool contains(const struct model_entry *entry, const char *key)
{
    return strcmp(entry->from, key) <= 0 && (!entry->to[0] || strcmp(key, entry->to) < 0);
}

struct seen {
    struct watch_interval *list[MODEL_MAX];
    unsigned count;
};

static void note_hit(void *user, struct watch_interval *interval)
{
    struct seen *seen = (struct seen *)user;

    REQUIRE(seen->count < MODEL_MAX);
    for (unsigned n = 0; n < seen->count; n++) {
        REQUIRE(seen->list[n] != interval); /* Each once. */
    }
    seen->list[seen->count++] = interval;
}

static bool was_seen(const struct seen *seen, const struct watch_interval *interval)
{
    for (unsigned n = 0; n < seen->count; n++) {
        if (seen->list[n] == interval) {
            return true;
        }
    }
    return false;
}

static void check_model(struct fixture *f, const struct model_entry *model, unsigned count,
                        const char *key)
{
    struct seen seen = {.count = 0};

    bop__watch_index_match(&f->index, 1, bytes("m"), WATCH_KEY, bytes(key), note_hit, &seen);
    for (unsigned n = 0; n < count; n++) {
        REQUIRE_EQ(was_seen(&seen, model[n].interval), contains(&model[n], key));
    }
    bop__watch_index_check(&f->index);
}

TEST(watch_index, finds_what_a_plain_list_would)
{
    static struct model_entry model[MODEL_MAX];
    struct bop_random random;
    unsigned count = 0;
    char key[TEXT_MAX];

    bop_random_seed(&random, 11);
    for (unsigned step = 0; step < STEPS; step++) {
        if (count < MODEL_MAX &&
            bop_random_chance(&random, 50 + (step / 2000 % 2 ? -15 : 15), 100)) {
            struct model_entry *entry = &model[count];

            random_text(&random, entry->from);
            random_text(&random, entry->to);
            if (!entry->to[0] || strcmp(entry->from, entry->to) < 0) {
                REQUIRE_EQ(bop__watch_index_get(&f->index, 1, bytes("m"), bytes(entry->from),
                                                bytes(entry->to), &entry->interval),
                           0);
                count++;
            }
        } else if (count > 0) {
            unsigned gone = (unsigned)bop_random_below(&random, count);

            bop__watch_index_put(model[gone].interval);
            model[gone] = model[--count];
        }
        if (step % 50 == 0) {
            random_text(&random, key);
            check_model(f, model, count, key);
        }
    }
    while (count > 0) {
        bop__watch_index_put(model[--count].interval);
    }
}
