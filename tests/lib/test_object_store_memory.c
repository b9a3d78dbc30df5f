/*
 * The object store in memory: it keeps the contract, and its faults happen when
 * and as they were ordered.
 */
#include "object_store_memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include <openssl/evp.h>

#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct object_memory *memory;
    struct bop_object_store *store;
    struct bop_buf out;
    struct bop_error err;
    char seen[256];    /* Keys listed, with a space behind each. */
    char uploads[256]; /* Upload ids told, likewise. */
    uint64_t progress;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    f->memory = object_memory_create(&f->heap.allocator);
    REQUIRE(f->memory);
    f->store = object_memory_store(f->memory);
    bop_buf_init(&f->out, &f->heap.allocator, 0);
}

static void teardown(struct fixture *f)
{
    bop_buf_deinit(&f->out);
    object_memory_destroy(f->memory);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static struct bop_object_put put_of(const char *key, const char *content)
{
    struct bop_object_put put = {.key = key, .source = {.bytes = content, .size = strlen(content)}};

    CHECK(EVP_Digest(content, strlen(content), put.sha256, NULL, EVP_sha256(), NULL) == 1);
    return put;
}

static int put(struct fixture *f, const char *key, const char *content)
{
    struct bop_object_put order = put_of(key, content);

    return f->store->put(f->store, &order, NULL, &f->err);
}

static int get(struct fixture *f, const char *key, uint64_t offset, uint64_t size)
{
    bop_buf_clear(&f->out);
    return f->store->get(f->store, key, offset, size, &f->out, &f->err);
}

static int see(void *user, const char *key, BOP_UNUSED const struct bop_object_info *info)
{
    struct fixture *f = user;
    size_t used = strlen(f->seen);

    snprintf(f->seen + used, sizeof(f->seen) - used, "%s ", key);
    return strcmp(key, "stop") == 0 ? 7 : 0;
}

static int list(struct fixture *f, const char *prefix)
{
    f->seen[0] = '\0';
    return f->store->list(f->store, prefix, see, f, &f->err);
}

TEST(object_memory, keeps_what_was_put)
{
    struct bop_object_info info;

    CHECK_EQ(put(f, "a/b", "hello"), 0);
    CHECK_EQ(get(f, "a/b", 0, UINT64_MAX), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->out), bytes("hello"));
    CHECK_EQ(get(f, "a/b", 3, 100), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->out), bytes("lo"));
    CHECK_EQ(get(f, "a/b", 5, 1), 0);
    CHECK_EQ(f->out.size, 0);
    CHECK_EQ(f->store->head(f->store, "a/b", &info, &f->err), 0);
    CHECK_EQ(info.size, 5);
    CHECK_EQ(info.modified_s, 1000000000);
    CHECK(info.sha256_known);
    CHECK_EQ(f->store->remove(f->store, "a/b", &f->err), 0);
    CHECK_EQ(f->store->remove(f->store, "a/b", &f->err), 0);
    CHECK_EQ(get(f, "a/b", 0, 1), BOP_ENOTFOUND);
    CHECK_STR_EQ(f->err.message, "get object a/b: not found");
    CHECK_EQ(object_memory_count(f->memory), 0);
}

TEST(object_memory, lists_in_byte_order)
{
    CHECK_EQ(put(f, "b", "1"), 0);
    CHECK_EQ(put(f, "stop", "1"), 0);
    CHECK_EQ(put(f, "a/2", "1"), 0);
    CHECK_EQ(put(f, "a/1", "1"), 0);
    CHECK_EQ(put(f, "z", "1"), 0);
    CHECK_EQ(list(f, "a/"), 0);
    CHECK_STR_EQ(f->seen, "a/1 a/2 ");
    CHECK_EQ(list(f, NULL), 7);
    CHECK_STR_EQ(f->seen, "a/1 a/2 b stop ");
}

TEST(object_memory, refuses_what_a_server_refuses)
{
    struct bop_object_put wrong = put_of("k", "hello");

    wrong.sha256[0] ^= 1;
    CHECK_EQ(f->store->put(f->store, &wrong, NULL, &f->err), BOP_ECORRUPT);
    CHECK_EQ(put(f, "", "hello"), BOP_EINVAL);
    CHECK_EQ(put(f, "\xff", "hello"), BOP_EINVAL);
    CHECK_EQ(put(f, "k", "hello"), 0);
    bop_buf_deinit(&f->out);
    bop_buf_init(&f->out, &f->heap.allocator, 4);
    CHECK_EQ(get(f, "k", 0, UINT64_MAX), BOP_ETOOBIG);
    CHECK_EQ(get(f, "k", 0, 4), 0);
}

TEST(object_memory, replaces_only_what_it_may)
{
    struct bop_object_put other = put_of("k", "other");
    struct bop_object_put same = put_of("k", "hello");

    other.only_new = same.only_new = true;
    CHECK_EQ(put(f, "k", "hello"), 0);
    CHECK_EQ(f->store->put(f->store, &other, NULL, &f->err), BOP_ECONDITION);
    CHECK_EQ(f->store->put(f->store, &same, NULL, &f->err), 0);
    CHECK_EQ(object_memory_bytes_put(f->memory), 5); /* Nothing was sent again. */
    other.only_new = false;
    CHECK_EQ(f->store->put(f->store, &other, NULL, &f->err), 0);
    CHECK_SLICE_EQ(object_memory_find(f->memory, "k"), bytes("other"));
}

TEST(object_memory, fails_the_call_it_was_told_to)
{
    object_memory_fail(f->memory, OBJECT_MEMORY_PUT, 2, BOP_EBUSY, OBJECT_MEMORY_REFUSE);
    CHECK_EQ(put(f, "a", "1"), 0);
    CHECK_EQ(get(f, "a", 0, 1), 0);
    CHECK_EQ(put(f, "b", "1"), BOP_EBUSY);
    CHECK_PTR_EQ(object_memory_find(f->memory, "b").data, NULL);
    CHECK_EQ(put(f, "b", "1"), 0);
    object_memory_fail(f->memory, OBJECT_MEMORY_ANY, 1, BOP_EIO, OBJECT_MEMORY_LOSE_ANSWER);
    CHECK_EQ(put(f, "c", "1"), BOP_EIO);
    CHECK_SLICE_EQ(object_memory_find(f->memory, "c"), bytes("1"));
    object_memory_fail(f->memory, OBJECT_MEMORY_REMOVE, 1, BOP_EIO, OBJECT_MEMORY_LOSE_ANSWER);
    CHECK_EQ(f->store->remove(f->store, "c", &f->err), BOP_EIO);
    CHECK_EQ(object_memory_count(f->memory), 2);
    object_memory_outage(f->memory, BOP_ETIMEOUT);
    CHECK_EQ(list(f, ""), BOP_ETIMEOUT);
    object_memory_outage(f->memory, 0);
    CHECK_EQ(list(f, ""), 0);
    CHECK_EQ(object_memory_calls(f->memory, OBJECT_MEMORY_PUT), 4);
    CHECK_EQ(object_memory_calls(f->memory, OBJECT_MEMORY_ANY), 8);
}

TEST(object_memory, gives_a_sweep_its_steps)
{
    object_memory_faults(f->memory, &f->faults);
    FAULT_SWEEP(&f->faults) {
        int rc = put(f, "a", "1");
        int got = rc ? rc : get(f, "a", 0, 1);

        CHECK_EQ(got, f->faults.fired);
    }
    CHECK_EQ(f->faults.at, 2);
    object_memory_faults(f->memory, NULL);
}

TEST(object_memory, lists_late_when_told_to)
{
    CHECK_EQ(put(f, "a", "1"), 0);
    CHECK_EQ(object_memory_stale_lists(f->memory, true), 0);
    CHECK_EQ(put(f, "b", "1"), 0);
    CHECK_EQ(f->store->remove(f->store, "a", &f->err), 0);
    CHECK_EQ(list(f, ""), 0);
    CHECK_STR_EQ(f->seen, "a ");
    CHECK_EQ(object_memory_stale_lists(f->memory, false), 0);
    CHECK_EQ(list(f, ""), 0);
    CHECK_STR_EQ(f->seen, "b ");
}

TEST(object_memory, spoils_what_it_gives)
{
    CHECK_EQ(put(f, "a", "hello!"), 0);
    object_memory_corrupt_get(f->memory, 1);
    CHECK_EQ(get(f, "a", 0, UINT64_MAX), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->out), bytes("helmo!")); /* 'l' is 0x6c. */
    object_memory_short_get(f->memory, 1);
    CHECK_EQ(get(f, "a", 0, UINT64_MAX), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->out), bytes("hel"));
    CHECK(object_memory_flip_bit(f->memory, "a", 0));
    CHECK(!object_memory_flip_bit(f->memory, "a", 48));
    CHECK_EQ(get(f, "a", 0, UINT64_MAX), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->out), bytes("iello!"));
}

static void note_upload(void *user, const char *id)
{
    struct fixture *f = user;
    size_t used = strlen(f->uploads);

    snprintf(f->uploads + used, sizeof(f->uploads) - used, "%s.", id);
}

static void note_progress(void *user, uint64_t done)
{
    ((struct fixture *)user)->progress = done;
}

TEST(object_memory, goes_on_with_an_upload_that_was_cut_off)
{
    struct bop_object_put order = put_of("a", "0123456789");

    order.on_upload_id = note_upload;
    order.on_progress = note_progress;
    order.user = f;
    object_memory_part_bytes(f->memory, 4);
    object_memory_fail(f->memory, OBJECT_MEMORY_PUT, 1, BOP_EIO, OBJECT_MEMORY_REFUSE);
    CHECK_EQ(f->store->put(f->store, &order, NULL, &f->err), BOP_EIO);
    CHECK_STR_EQ(order.upload_id, "upload-1");
    CHECK_EQ(f->progress, 4);
    CHECK_EQ(object_memory_uploads(f->memory), 1);
    CHECK_EQ(object_memory_count(f->memory), 0);
    CHECK_EQ(f->store->put(f->store, &order, NULL, &f->err), 0);
    CHECK_STR_EQ(order.upload_id, "");
    CHECK_STR_EQ(f->uploads, "upload-1.upload-1..");
    CHECK_EQ(f->progress, 10);
    CHECK_EQ(object_memory_bytes_put(f->memory), 10);
    CHECK_EQ(object_memory_uploads(f->memory), 0);
    CHECK_SLICE_EQ(object_memory_find(f->memory, "a"), bytes("0123456789"));
}

static void *get_a(void *user)
{
    struct fixture *f = user;
    struct bop_buf out;
    int rc;

    bop_buf_init(&out, NULL, 0);
    rc = f->store->get(f->store, "a", 0, 1, &out, NULL);
    bop_buf_deinit(&out);
    return rc == BOP_ECANCELED ? f : NULL;
}

TEST(object_memory, frees_held_calls_when_canceled)
{
    pthread_t thread;
    void *result;

    CHECK_EQ(put(f, "a", "1"), 0);
    object_memory_hold(f->memory, true);
    REQUIRE_EQ(pthread_create(&thread, NULL, get_a, f), 0);
    while (object_memory_held(f->memory) == 0) {
        sched_yield();
    }
    f->store->cancel(f->store);
    pthread_join(thread, &result);
    CHECK_PTR_EQ(result, f);
    CHECK_EQ(put(f, "b", "1"), BOP_ECANCELED);
    object_memory_hold(f->memory, false);
    object_memory_revive(f->memory);
    CHECK_EQ(put(f, "b", "1"), 0);
}

/* Memory that runs out anywhere leaves the store as it was, and nothing leaks. */
TEST(object_memory, survives_each_failed_allocation)
{
    f->heap.faults = &f->faults;
    FAULT_SWEEP(&f->faults) {
        struct object_memory *memory = object_memory_create(&f->heap.allocator);
        struct bop_object_put order = put_of("k", "0123456789");
        struct bop_object_store *store = memory ? object_memory_store(memory) : NULL;
        int rc = BOP_ENOMEM;

        if (store) {
            object_memory_part_bytes(memory, 4);
            rc = store->put(store, &order, NULL, NULL);
            CHECK_EQ(object_memory_count(memory), rc == 0);
        }
        CHECK_EQ(rc, f->faults.fired);
        object_memory_destroy(memory);
    }
    CHECK(f->faults.at > 5);
    f->heap.faults = NULL;
}
