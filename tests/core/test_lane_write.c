/*
 * Writes of a lane on the real file system, by each of the ways to do them: a
 * task at a time, threads, and io_uring where the kernel has it.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "lane_fixture.h"

FIXTURE(lane_setup, lane_teardown)

struct way {
    unsigned writes;
    bool no_uring;
};

static const struct way ways[] = {{1, false}, {2, true},  {8, true},
                                  {2, false}, {8, false}, {64, false}};

/* Run the body with a lane made in each way. */
#define EACH_WAY(f)                                                                                \
    for (size_t way_ = 0; way_ < BOP_COUNT_OF(ways) && begin_way(f, &ways[way_]);                  \
         end_way(f), way_++)

static bool begin_way(struct fixture *f, const struct way *way)
{
    f->fired = 0;
    REQUIRE_EQ(ftruncate(f->fd, 0), 0);
    lane_create(f, way->writes, way->no_uring);
    return true;
}

static void end_way(struct fixture *f)
{
    lane_destroy(f);
    CHECK_EQ(f->heap.live, 0);
}

TEST(lane_write, says_how_it_writes)
{
    struct bop_executor *executor;

    lane_create(f, 0, false);
    executor = bop_lane_executor(f->lane);
    CHECK_EQ(executor->writes, 1);
    CHECK_STR_EQ(executor->method, "task");
    lane_destroy(f);
    lane_create(f, 64, true);
    executor = bop_lane_executor(f->lane);
    CHECK_EQ(executor->writes, 64);
    CHECK_STR_EQ(executor->method, "threads");
    lane_destroy(f);
    CHECK_EQ(lane_try_create(f, 65, true), BOP_EINVAL);
}

TEST(lane_write, writes_what_it_is_given)
{
    EACH_WAY(f)
    {
        size_t size = submit_pieces(f, WRITES);

        run_until(f, WRITES);
        check_results(f, WRITES, 0);
        check_file(f, size);
    }
}

TEST(lane_write, writes_past_the_cache)
{
    int fd = open(f->path, O_RDWR | O_DIRECT | O_CLOEXEC);

    if (fd < 0) {
        TEST_SKIP("no O_DIRECT in the tests' directory");
    }
    EACH_WAY(f)
    {
        for (unsigned i = 0; i < BYTES / 8192; i++) {
            struct item *item = item_of(f, i, (size_t)i * 8192, 8192);

            item->write.fd = fd;
            item->write.direct = true;
            item->write.sync = i % 4 != 0;
            submit_item(item);
        }
        run_until(f, BYTES / 8192);
        check_results(f, BYTES / 8192, 0);
        check_file(f, BYTES);
    }
    close(fd);
}

TEST(lane_write, syncs_without_writing)
{
    EACH_WAY(f)
    {
        struct item *item = item_of(f, 0, 0, 0);

        item->write.sync = true;
        submit_item(item);
        run_until(f, 1);
        check_results(f, 1, 0);
    }
}

TEST(lane_write, drains)
{
    EACH_WAY(f)
    {
        size_t size;

        bop_lane_drain(f->lane); /* Nothing there. */
        size = submit_pieces(f, WRITES);
        bop_lane_drain(f->lane);
        CHECK_EQ(f->fired, WRITES);
        CHECK_EQ(bop_lane_poll(f->lane), 0);
        check_results(f, WRITES, 0);
        check_file(f, size);
    }
}

TEST(lane_write, destroys_with_writes_on_their_way)
{
    EACH_WAY(f)
    {
        size_t size = submit_pieces(f, WRITES);

        lane_destroy(f);
        check_results(f, WRITES, 0);
        check_file(f, size);
    }
}

/* ---- From within done ---- */

TEST(lane_write, takes_a_write_again_from_its_done)
{
    EACH_WAY(f)
    {
        for (unsigned i = 0; i < 20; i++) {
            struct item *item = item_of(f, i, (size_t)i * 100, 100);

            item->again = 20;
            submit_item(item);
        }
        run_until(f, 20 * 11); /* Some are left to destroy. */
        lane_destroy(f);
        for (unsigned i = 0; i < 20; i++) {
            CHECK_EQ(f->items[i].fired, 21);
        }
        check_file(f, 2000);
    }
}

static void done_draining(struct bop_write *write)
{
    struct item *item = BOP_CONTAINER_OF(write, struct item, write);

    item_fired(item);
    bop_lane_drain(item->f->lane);
    CHECK_EQ(item->f->fired, 100);
}

static void done_polling(struct bop_write *write)
{
    struct item *item = BOP_CONTAINER_OF(write, struct item, write);

    item_fired(item);
    bop_lane_poll(item->f->lane);
}

TEST(lane_write, drains_and_polls_from_done)
{
    EACH_WAY(f)
    {
        for (unsigned i = 0; i < 100; i++) {
            struct item *item = item_of(f, i, (size_t)i * 100, 100);

            item->write.done = i % 10 == 9 ? done_draining : done_polling;
            submit_item(item);
        }
        bop_lane_drain(f->lane);
        check_results(f, 100, 0);
        check_file(f, 10000);
    }
}

/* ---- Beside tasks ---- */

static void task_run(struct bop_task *task)
{
    BOP_CONTAINER_OF(task, struct item, task)->runs++;
}

static void task_done(struct bop_task *task)
{
    struct item *item = BOP_CONTAINER_OF(task, struct item, task);

    CHECK_EQ(item->runs, 1);
    CHECK(item->number < 2 || item->f->items[item->number - 2].fired == 1); /* In order. */
    item_fired(item);
}

TEST(lane_write, goes_on_beside_tasks)
{
    EACH_WAY(f)
    {
        for (unsigned i = 0; i < WRITES; i += 2) {
            struct item *item = item_of(f, i + 1, 0, 0);

            submit_item(item_of(f, i, i * 500ul, 1000));
            item->task = (struct bop_task){.run = task_run, .done = task_done};
            item->write.result = 0;
            bop_executor_submit(bop_lane_executor(f->lane), &item->task);
        }
        run_until(f, WRITES / 2);
        bop_lane_drain(f->lane);
        check_results(f, WRITES, 0);
        check_file(f, WRITES * 500ul);
    }
}

/* ---- Errors ---- */

/* Every third write goes to a descriptor that fails it; the others must not notice. */
static void check_failing(struct fixture *f, int fd, bool sync, int code)
{
    for (unsigned i = 0; i < 60; i++) {
        struct item *item = item_of(f, i, (size_t)i * 1000, 1000);

        item->write.fd = i % 3 ? f->fd : fd;
        item->write.sync = i % 3 || sync;
        submit_item(item);
    }
    run_until(f, 60);
    for (unsigned i = 0; i < 60; i++) {
        CHECK_EQ(f->items[i].fired, 1);
        CHECK_EQ(f->items[i].write.result, i % 3 ? 0 : code);
    }
    f->fired = 0;
}

TEST(lane_write, reports_each_failure_to_its_write)
{
    int full = open("/dev/full", O_RDWR | O_CLOEXEC);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC); /* Takes writes, and fails syncs. */
    int read_only = open(f->path, O_RDONLY | O_CLOEXEC);

    REQUIRE(full >= 0 && null >= 0 && read_only >= 0);
    EACH_WAY(f)
    {
        check_failing(f, full, false, -ENOSPC);
        check_failing(f, full, true, -ENOSPC); /* Not what the sync says that was cancelled. */
        check_failing(f, null, false, 0);
        check_failing(f, null, true, -EINVAL);
        check_failing(f, read_only, true, -EBADF);
        check_failing(f, -1, true, -EBADF);
    }
    close(read_only);
    close(null);
    close(full);
}

/* The first call writes in part, the second fails. */
TEST(lane_write, reports_a_limit_met_amid_a_write)
{
    struct rlimit before, low;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);

    REQUIRE_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = before;
    low.rlim_cur = 100 * 1000 + 500;
    EACH_WAY(f)
    {
        REQUIRE_EQ(setrlimit(RLIMIT_FSIZE, &low), 0);
        for (unsigned i = 0; i < 200; i++) {
            struct item *item = item_of(f, i, (size_t)i * 1000, 1000);

            item->write.sync = i % 2;
            submit_item(item);
        }
        bop_lane_drain(f->lane);
        REQUIRE_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
        for (unsigned i = 0; i < 200; i++) {
            CHECK_EQ(f->items[i].fired, 1);
            CHECK_EQ(f->items[i].write.result, i < 100 ? 0 : -EFBIG);
        }
        check_file(f, 100 * 1000 + 500);
    }
    signal(SIGXFSZ, handler);
}

TEST(lane_write, refuses_offsets_that_no_file_has)
{
    EACH_WAY(f)
    {
        static const uint64_t offsets[] = {UINT64_MAX, UINT64_C(1) << 63, INT64_MAX};

        for (unsigned i = 0; i < BOP_COUNT_OF(offsets); i++) {
            struct item *item = item_of(f, i, 0, 1);

            item->write.offset = offsets[i];
            submit_item(item);
        }
        bop_lane_drain(f->lane);
        check_results(f, 2, -EFBIG);
        CHECK(f->items[2].write.result < 0); /* EFBIG or EINVAL, as the file system likes. */
    }
}

/* The kernel takes less than 2 GiB at once. */
TEST(lane_write, goes_on_after_a_short_write)
{
    size_t size = (UINT64_C(2) << 30) + 8192;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    REQUIRE(null >= 0 && bytes != MAP_FAILED);
    EACH_WAY(f)
    {
        for (unsigned i = 0; i < 4; i++) {
            struct item *item = item_of(f, i, 0, size);

            item->write.fd = null;
            item->write.bytes = bytes;
            item->write.sync = i >= 2; /* Which /dev/null refuses, after all is written. */
            submit_item(item);
        }
        run_until(f, 4);
        for (unsigned i = 0; i < 4; i++) {
            CHECK_EQ(f->items[i].fired, 1);
            CHECK_EQ(f->items[i].write.result, i < 2 ? 0 : -EINVAL);
        }
    }
    munmap(bytes, size);
    close(null);
}

TEST(lane_write, survives_each_lack_of_memory)
{
    for (size_t i = 0; i < BOP_COUNT_OF(ways); i++) {
        FAULT_SWEEP(&f->faults) {
            int rc = lane_try_create(f, ways[i].writes, ways[i].no_uring);

            CHECK_EQ(rc, f->faults.fired);
            if (rc == 0) {
                lane_destroy(f);
            }
            CHECK_PTR_EQ(f->lane, NULL);
            CHECK_EQ(f->heap.live, 0);
        }
        /* The lane and its two queues; the writes on their way, and what carries them. */
        CHECK_EQ(f->faults.at, ways[i].writes == 1 ? 3 : 5);
    }
}
