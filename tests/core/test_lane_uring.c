/*
 * What is particular to io_uring: kernels that have none or forbid it, now or
 * later, and requests that they do not take.
 *
 * io_uring_submit() is this program's, so that it can fail on demand.
 */
#include <dlfcn.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "lane_fixture.h"
#include "state.h"

FIXTURE(lane_setup, lane_teardown)

/* ---- Submitting ---- */

static enum {
    WELL,
    INTERRUPTED, /* Each second call fails with EINTR. */
    REFUSED,     /* Nothing is taken. */
    PARTLY,      /* Of several requests the last is not taken. */
    NOT_ALWAYS,  /* These in turn. */
} submitting;
static unsigned calls;

/* Show the kernel all requests but the last, and submit them. */
static int submit_all_but_one(struct io_uring *ring)
{
    struct io_uring_sq *sq = &ring->sq;
    unsigned count = sq->sqe_tail - *sq->khead;

    for (unsigned tail = *sq->khead; tail != sq->sqe_tail; tail++) {
        sq->array[tail & sq->ring_mask] = tail & sq->ring_mask;
    }
    sq->sqe_head = sq->sqe_tail;
    __atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
    return count > 1 ? (int)syscall(SYS_io_uring_enter, ring->ring_fd, count - 1, 0, 0, NULL, 0)
                     : 0;
}

int io_uring_submit(struct io_uring *ring)
{
    static int (*submit)(struct io_uring * ring);

    if (!submit) {
        *(void **)&submit = dlsym(RTLD_NEXT, "io_uring_submit");
        REQUIRE(submit != NULL);
    }
    calls++;
    switch (submitting) {
    case INTERRUPTED:
        return calls % 2 ? -EINTR : submit(ring);
    case REFUSED:
        return -EAGAIN;
    case PARTLY:
        return submit_all_but_one(ring);
    case NOT_ALWAYS:
        return calls % 3 == 0 ? -EAGAIN : calls % 3 == 1 ? submit_all_but_one(ring) : submit(ring);
    default:
        return submit(ring);
    }
}

static void need_uring(struct fixture *f)
{
    submitting = WELL;
    lane_create(f, 8, false);
    if (strcmp(bop_lane_executor(f->lane)->method, "io_uring") != 0) {
        lane_destroy(f);
        TEST_SKIP("the kernel has no io_uring for us");
    }
}

/* All that is missing is done by the lane's thread, a sync not before its write. */
TEST(lane_uring, gets_over_what_the_kernel_does_not_take)
{
    need_uring(f);
    for (submitting = WELL; submitting <= NOT_ALWAYS; submitting++) {
        size_t size;

        f->fired = 0;
        REQUIRE_EQ(ftruncate(f->fd, 0), 0);
        size = submit_pieces(f, WRITES);
        run_until(f, WRITES);
        check_results(f, WRITES, 0);
        check_file(f, size);
    }
}

TEST(lane_uring, reports_failures_of_what_the_kernel_does_not_take)
{
    int full = open("/dev/full", O_RDWR | O_CLOEXEC);

    REQUIRE(full >= 0);
    need_uring(f);
    for (submitting = WELL; submitting <= NOT_ALWAYS; submitting++) {
        f->fired = 0;
        for (unsigned i = 0; i < WRITES; i++) {
            struct item *item = item_of(f, i, 0, 1000);

            item->write.fd = full;
            item->write.sync = i % 3 != 0;
            submit_item(item);
        }
        run_until(f, WRITES);
        check_results(f, WRITES, -ENOSPC);
    }
    close(full);
}

TEST(lane_uring, falls_back_when_requests_do_not_come_through)
{
    submitting = REFUSED;
    lane_create(f, 8, false);
    CHECK_STR_EQ(bop_lane_executor(f->lane)->method, "threads");
    submit_pieces(f, 10);
    run_until(f, 10);
    check_results(f, 10, 0);
}

/* ---- Forbidding: in children, for it cannot be taken back ---- */

/* Have a system call fail from now on, for this thread and those it starts. */
static void forbid(int call, unsigned code)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = BOP_COUNT_OF(program), .filter = program};

    REQUIRE_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    REQUIRE_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0), 0);
}

/* Run fn in a child, where a failed check ends in a status. */
static void check_in_child(struct fixture *f, void (*fn)(struct fixture *f))
{
    int status;
    pid_t child = fork();

    REQUIRE(child >= 0);
    if (child == 0) {
        unsigned before = test__failures();

        dup2(STDERR_FILENO, STDOUT_FILENO); /* What it says is no TAP of ours. */
        fn(f);
        _exit(test__failures() != before);
    }
    REQUIRE_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void check_writes(struct fixture *f, const char *method)
{
    size_t size;

    f->fired = 0;
    CHECK_STR_EQ(bop_lane_executor(f->lane)->method, method);
    size = submit_pieces(f, 100);
    run_until(f, 100);
    check_results(f, 100, 0);
    check_file(f, size);
    lane_destroy(f);
    CHECK_EQ(f->heap.live, 0);
}

static void without_setup(struct fixture *f)
{
    forbid(SYS_io_uring_setup, EPERM);
    lane_create(f, 8, false);
    check_writes(f, "threads");
    forbid(SYS_io_uring_setup, ENOSYS);
    lane_create(f, 8, false);
    check_writes(f, "threads");
    forbid(SYS_io_uring_setup, ENOMEM);
    lane_create(f, 8, false);
    check_writes(f, "threads");
}

static void without_enter(struct fixture *f)
{
    forbid(SYS_io_uring_enter, EPERM);
    lane_create(f, 8, false);
    check_writes(f, "threads");
}

static void without_register(struct fixture *f)
{
    forbid(SYS_io_uring_register, EPERM);
    lane_create(f, 8, false);
    check_writes(f, "threads");
}

TEST(lane_uring, is_done_without_where_it_is_forbidden)
{
    check_in_child(f, without_setup);
    check_in_child(f, without_enter);
    check_in_child(f, without_register);
}

static void forbidden_later(struct fixture *f)
{
    lane_create(f, 8, false);
    submit_pieces(f, 100);
    forbid(SYS_io_uring_enter, EPERM);
    bop_lane_drain(f->lane);
    check_writes(f, "io_uring");
}

TEST(lane_uring, goes_on_when_it_is_forbidden_later)
{
    need_uring(f);
    lane_destroy(f);
    check_in_child(f, forbidden_later);
}

static ssize_t fake_pwrite(struct bop_fs *self, int fd, const void *bytes, size_t size,
                           uint64_t offset)
{
    return (ssize_t)size;
}

/* A lane with io_uring and a write to another file system, where threads cannot be had. */
static void without_threads(struct fixture *f)
{
    struct bop_fs fake = {.pwrite = fake_pwrite};

    lane_create(f, 8, false);
    forbid(SYS_clone3, EAGAIN);
    forbid(SYS_clone, EAGAIN);
    for (unsigned i = 0; i < 100; i++) {
        struct item *item = item_of(f, i, i, 1);

        item->write.fs = &fake;
        submit_item(item);
    }
    run_until(f, 100);
    check_results(f, 100, 0);
    lane_destroy(f);
    CHECK_EQ(lane_try_create(f, 8, false), -EAGAIN);
    CHECK_EQ(lane_try_create(f, 8, true), -EAGAIN);
    CHECK_EQ(lane_try_create(f, 0, true), -EAGAIN);
    CHECK_EQ(f->heap.live, 0);
}

TEST(lane_uring, needs_no_threads_for_other_file_systems)
{
    need_uring(f);
    lane_destroy(f);
    check_in_child(f, without_threads);
}

/* A child that lives on has the ring's descriptor; the parent's writes do not care. */
TEST(lane_uring, survives_a_fork)
{
    int ends[2];
    pid_t child;
    char byte;

    need_uring(f);
    REQUIRE_EQ(pipe(ends), 0);
    submit_pieces(f, 100);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        close(ends[1]);
        _exit(read(ends[0], &byte, 1) != 0);
    }
    bop_lane_drain(f->lane);
    check_writes(f, "io_uring");
    close(ends[1]);
    close(ends[0]);
    CHECK_EQ(waitpid(child, NULL, 0), child);
}
