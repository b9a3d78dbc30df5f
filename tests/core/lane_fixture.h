/*
 * Lanes with writes on their way, and a file to write to.
 */
#ifndef BOP_TESTS_CORE_LANE_FIXTURE_H
#define BOP_TESTS_CORE_LANE_FIXTURE_H

#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <bop/error.h>
#include <bop/executor.h>

#include "tap.h"

#define WRITES 400

struct item {
    struct bop_write write;
    struct bop_task task;
    struct fixture *f;
    unsigned number;
    unsigned runs;
    unsigned fired;
    unsigned again; /* Times to submit again from done. */
};

struct fixture {
    struct test_heap heap;
    struct bop_faults faults;
    struct bop_lane *lane;
    int event;
    pthread_t owner;
    bool submitting; /* Within a call that submits. */
    unsigned fired;

    const char *path;
    int fd;
    uint8_t *bytes; /* Of BYTES, aligned. */

    struct item items[WRITES];
};

#define BYTES (1u << 20)

static inline void lane_notify(void *user)
{
    struct fixture *f = user;

    CHECK(!pthread_equal(pthread_self(), f->owner));
    CHECK_EQ(eventfd_write(f->event, 1), 0);
}

static inline int lane_try_create(struct fixture *f, unsigned writes, bool no_uring)
{
    struct bop_lane_options options = {.allocator = &f->heap.allocator,
                                       .name = "lane",
                                       .notify = lane_notify,
                                       .user = f,
                                       .writes = writes,
                                       .no_uring = no_uring};

    return bop_lane_create(&options, &f->lane);
}

static inline void lane_create(struct fixture *f, unsigned writes, bool no_uring)
{
    REQUIRE_EQ(lane_try_create(f, writes, no_uring), 0);
}

static inline void lane_destroy(struct fixture *f)
{
    bop_lane_destroy(f->lane);
    f->lane = NULL;
}

static inline void lane_setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    f->owner = pthread_self();
    f->event = eventfd(0, EFD_CLOEXEC);
    REQUIRE(f->event >= 0);
    f->path = test_path(test_tmpdir(), "f");
    f->fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(f->fd >= 0);
    REQUIRE_EQ(posix_memalign((void **)&f->bytes, BOP_FS_ALIGN, BYTES), 0);
    for (size_t i = 0; i < BYTES; i++) {
        f->bytes[i] = (uint8_t)(i * 31 + i / 4096 * 7 + 1);
    }
}

static inline void lane_teardown(struct fixture *f)
{
    lane_destroy(f);
    free(f->bytes);
    close(f->fd);
    close(f->event);
    CHECK_EQ(f->heap.live, 0);
}

static inline void submit_item(struct item *item)
{
    item->f->submitting = true;
    bop_executor_write(bop_lane_executor(item->f->lane), &item->write);
    item->f->submitting = false;
}

static inline void item_fired(struct item *item)
{
    CHECK(pthread_equal(pthread_self(), item->f->owner));
    CHECK(!item->f->submitting);
    item->fired++;
    item->f->fired++;
}

static inline void item_done(struct bop_write *write)
{
    struct item *item = BOP_CONTAINER_OF(write, struct item, write);

    item_fired(item);
    if (item->again > 0) {
        item->again--;
        submit_item(item);
    }
}

/** A write of f->bytes' bytes to the same place of the file. */
static inline struct item *item_of(struct fixture *f, unsigned number, size_t from, size_t size)
{
    struct item *item = &f->items[number];

    *item = (struct item){.write = {.fs = bop_fs_real(),
                                    .fd = f->fd,
                                    .bytes = f->bytes + from,
                                    .size = size,
                                    .offset = from,
                                    .result = 1234,
                                    .done = item_done},
                          .f = f,
                          .number = number};
    return item;
}

static inline void wait_event(struct fixture *f)
{
    eventfd_t value;

    REQUIRE_EQ(eventfd_read(f->event, &value), 0);
}

/** As a loop does it: sleep until notified, then poll. A lost wake-up hangs here. */
static inline void run_until(struct fixture *f, unsigned fired)
{
    while (f->fired < fired) {
        wait_event(f);
        bop_lane_poll(f->lane);
    }
}

static inline void check_results(struct fixture *f, unsigned count, int result)
{
    for (unsigned i = 0; i < count; i++) {
        CHECK_EQ(f->items[i].fired, 1);
        CHECK_EQ(f->items[i].write.result, result);
    }
}

/** The file has the first bytes of f->bytes. */
static inline void check_file(struct fixture *f, size_t size)
{
    uint8_t *there = malloc(BYTES);

    REQUIRE(there != NULL);
    REQUIRE_EQ(bop_fs_read_exact(bop_fs_real(), f->fd, there, size, 0), 0);
    CHECK_MEM_EQ(there, f->bytes, size);
    free(there);
}

/** Submit writes that cover `count` pieces of different sizes; returns the bytes. */
static inline size_t submit_pieces(struct fixture *f, unsigned count)
{
    size_t at = 0;

    for (unsigned i = 0; i < count; i++) {
        size_t size = 1 + i * 37 % 2500;
        struct item *item = item_of(f, i, at, size);

        item->write.sync = i % 3 != 0;
        submit_item(item);
        at += size;
    }
    return at;
}

#endif
