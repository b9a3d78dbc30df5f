/*
 * The output queue against a plain model: bytes, references and files in order,
 * sent in any steps, with whole writes dropped.
 */
#include <stdlib.h>
#include <unistd.h>

#include "../../../src/net/socket/queue.h"
#include "heap.h"
#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop__queue queue;
    uint64_t random;
    uint8_t next; /* Bytes count up, so that a missing or doubled one shows. */
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop__queue_init(&f->queue, &f->heap.allocator);
    f->random = 1;
}

static void teardown(struct fixture *f)
{
    bop__queue_deinit(&f->queue);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static uint64_t below(struct fixture *f, uint64_t bound)
{
    f->random ^= f->random << 13, f->random ^= f->random >> 7, f->random ^= f->random << 17;
    return f->random % bound;
}

static void count_up(struct fixture *f, uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        data[i] = f->next++;
    }
}

/* Append copied bytes, or a counted buffer of which a part is queued. */
static void add(struct fixture *f, struct bop_buf *model, size_t size, bool shared)
{
    uint8_t bytes[3000];

    count_up(f, bytes, size);
    REQUIRE_EQ(bop_buf_append(model, bytes, size), 0);
    if (shared) {
        struct bop_shared *buffer = bop_shared_create(&f->heap.allocator, size + 7);

        REQUIRE(buffer != NULL);
        memcpy(buffer->data + 3, bytes, size);
        REQUIRE_EQ(bop__queue_add_shared(&f->queue, buffer, 3, size), 0);
        bop_shared_unref(buffer);
    } else {
        REQUIRE_EQ(bop_buf_append(&f->queue.bytes, bytes, size), 0);
    }
}

/* Take up to so much off the front, comparing. */
static void take(struct fixture *f, struct bop_buf *model, size_t size)
{
    struct iovec pieces[5];
    int count = bop__queue_gather(&f->queue, pieces, 5);
    size_t taken = 0;

    for (int i = 0; i < count && taken < size; i++) {
        size_t part = bop_min_u64(pieces[i].iov_len, size - taken);

        REQUIRE(pieces[i].iov_len > 0);
        REQUIRE(taken + part <= model->size);
        REQUIRE(memcmp(pieces[i].iov_base, model->data + taken, part) == 0);
        taken += part;
    }
    bop__queue_sent(&f->queue, taken);
    bop_buf_consume(model, taken);
    REQUIRE_EQ(bop__queue_size(&f->queue), model->size);
}

TEST(queue, keeps_the_order_of_all)
{
    struct bop_buf model;

    bop_buf_init(&model, NULL, 0);
    for (int i = 0; i < 200000; i++) {
        if (below(f, 100) < 52) {
            add(f, &model, 1 + below(f, below(f, 10) == 0 ? 3000 : 40), below(f, 3) == 0);
        } else {
            take(f, &model, 1 + below(f, 2500));
        }
    }
    while (model.size > 0) {
        take(f, &model, 5000);
    }
    bop_buf_deinit(&model);
}

/* A model of writes: which bytes each is of. */
struct write {
    size_t size;
    bool begun;
};

TEST(queue, drops_whole_writes_that_were_not_begun)
{
    enum { WRITES_MAX = 64 };
    struct write writes[WRITES_MAX];
    size_t count = 0;
    struct bop_buf model;

    bop_buf_init(&model, NULL, 0);
    f->queue.boundaries = true;
    for (int i = 0; i < 100000; i++) {
        uint64_t what = below(f, 10);

        if (what < 5 && count < WRITES_MAX) {
            size_t before = model.size, parts = 1 + below(f, 3);

            while (parts-- > 0) {
                add(f, &model, 1 + below(f, 600), below(f, 2) == 0);
            }
            REQUIRE_EQ(bop__queue_mark(&f->queue), 0);
            writes[count++] = (struct write){.size = model.size - before};
        } else if (what < 8 && model.size > 0) {
            size_t before = model.size, gone, at = 0;

            take(f, &model, 1 + below(f, 1500));
            gone = before - model.size;
            while (at < count && gone >= writes[at].size) {
                gone -= writes[at++].size;
            }
            if (gone > 0) {
                writes[at].size -= gone;
                writes[at].begun = true;
            }
            memmove(writes, writes + at, (count - at) * sizeof(writes[0]));
            count -= at;
        } else if (count > 0) {
            size_t first = writes[0].begun, keep = first ? writes[0].size : 0, size = 0;
            size_t end = first, wanted = 1 + below(f, 2000);

            while (end < count && size < wanted) {
                size += writes[end++].size;
            }
            REQUIRE_EQ(bop__queue_drop(&f->queue, wanted), end - first);
            memmove(model.data + keep, model.data + keep + size, model.size - keep - size);
            model.size -= size;
            memmove(writes + first, writes + end, (count - end) * sizeof(writes[0]));
            count -= end - first;
            REQUIRE_EQ(bop__queue_size(&f->queue), model.size);
        }
    }
    bop_buf_deinit(&model);
}

/* A file stands in its place: nothing behind it is gathered before it is sent. */
TEST(queue, has_files_in_their_place)
{
    struct bop_buf model;
    struct iovec pieces[4];
    const struct bop__queue_ref *file;
    int fd = dup(0);

    REQUIRE(fd >= 0);
    bop_buf_init(&model, NULL, 0);
    add(f, &model, 10, false);
    REQUIRE_EQ(bop__queue_add_file(&f->queue, fd, 100, 50), 0);
    add(f, &model, 20, false);
    add(f, &model, 30, true);
    CHECK_EQ(bop__queue_size(&f->queue), 110);
    CHECK_PTR_EQ(bop__queue_file(&f->queue), NULL);
    CHECK_EQ(bop__queue_gather(&f->queue, pieces, 4), 1);
    CHECK_EQ(pieces[0].iov_len, 10);
    bop__queue_sent(&f->queue, 10);
    file = bop__queue_file(&f->queue);
    REQUIRE(file != NULL);
    CHECK_EQ(file->fd, fd);
    CHECK_EQ(bop__queue_gather(&f->queue, pieces, 4), 0);
    bop__queue_sent(&f->queue, 49);
    CHECK_EQ(file->offset, 149);
    bop__queue_sent(&f->queue, 1);
    CHECK_EQ(close(fd), -1); /* The queue did. */
    CHECK_PTR_EQ(bop__queue_file(&f->queue), NULL);
    CHECK_EQ(bop__queue_gather(&f->queue, pieces, 4), 2);
    CHECK_MEM_EQ(pieces[0].iov_base, model.data + 10, 20);
    CHECK_MEM_EQ(pieces[1].iov_base, model.data + 30, 30);
    bop_buf_deinit(&model);
}

TEST(queue, cleared_lets_go_of_all)
{
    struct bop_shared *buffer = bop_shared_create(&f->heap.allocator, 1000);
    int fd = dup(0);

    REQUIRE(buffer != NULL && fd >= 0);
    for (int i = 0; i < 100; i++) {
        REQUIRE_EQ(bop__queue_add_shared(&f->queue, buffer, 0, 1000), 0);
    }
    REQUIRE_EQ(bop__queue_add_file(&f->queue, fd, 0, 1), 0);
    CHECK_EQ(atomic_load(&buffer->references), 101);
    bop__queue_clear(&f->queue);
    CHECK_EQ(atomic_load(&buffer->references), 1);
    CHECK_EQ(close(fd), -1);
    CHECK_EQ(bop__queue_size(&f->queue), 0);
    bop_shared_unref(buffer);
}

TEST(queue, is_unchanged_by_a_fault)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_shared *buffer = bop_shared_create(&f->heap.allocator, 1000);
        uint64_t queued = 0;

        bop__queue_deinit(&f->queue);
        bop__queue_init(&f->queue, &f->heap.allocator);
        f->queue.boundaries = true;
        for (int i = 0; i < 20 && buffer != NULL; i++) {
            if (bop__queue_add_shared(&f->queue, buffer, 0, 1000) == 0) {
                queued += 1000;
            }
            BOP_IGNORE(bop__queue_mark(&f->queue)); /* The next one says it too. */
            REQUIRE_EQ(bop__queue_size(&f->queue), queued);
        }
        CHECK(f->faults.fired == 0 || queued < 20000 || buffer == NULL || f->queue.write_end < 20);
        bop_shared_unref(buffer);
    }
    bop__queue_deinit(&f->queue);
    bop__queue_init(&f->queue, &f->heap.allocator);
}

/* ---- Counted buffers ---- */

static struct bop_shared *released;

static void note_release(struct bop_shared *shared)
{
    released = shared;
}

TEST(shared, is_released_with_the_last_reference)
{
    struct bop_shared own;
    char data[4] = "abc";

    released = NULL;
    bop_shared_init(&own, data, 3, note_release);
    CHECK_PTR_EQ(bop_shared_ref(&own), &own);
    bop_shared_unref(&own);
    CHECK_PTR_EQ(released, NULL);
    bop_shared_unref(&own);
    CHECK_PTR_EQ(released, &own);
    bop_shared_unref(NULL);
}

TEST(shared, may_be_filled_with_less)
{
    struct bop_shared *shared = bop_shared_create(&f->heap.allocator, 100);

    REQUIRE(shared != NULL);
    CHECK_EQ(shared->size, 100);
    shared->size = 10;
    bop_shared_unref(shared);
    CHECK_EQ(f->heap.live, 0);
    CHECK_PTR_EQ(bop_shared_create(&f->heap.allocator, SIZE_MAX - 8), NULL);
}
