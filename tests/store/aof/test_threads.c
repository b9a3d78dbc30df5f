/*
 * The log on real files with its tasks on a lane: appends, reads and truncation while
 * commits are under way. What the sanitizers look at.
 */
#include <semaphore.h>

#include "harness.h"

#define RECORDS 20000u

struct threaded {
    struct bop_lane *lane;
    sem_t wake;
    uint64_t durable;
};

static void wake(void *user)
{
    struct threaded *t = user;

    sem_post(&t->wake);
}

static void threaded_durable(void *user, uint64_t seq)
{
    struct threaded *t = user;

    CHECK(seq > t->durable);
    t->durable = seq;
}

static void begin(struct fixture *f, struct threaded *t, const char *path)
{
    const struct bop_lane_options lane_options = {.name = "aof", .notify = wake, .user = t};

    *t = (struct threaded){0};
    REQUIRE_EQ(sem_init(&t->wake, 0, 0), 0);
    REQUIRE_EQ(bop_lane_create(&lane_options, &t->lane), 0);
    f->options.fs = NULL;
    f->options.path = path;
    f->options.executor = bop_lane_executor(t->lane);
    f->options.segment_bytes = UINT64_C(1) << 18;
    f->options.on_durable = threaded_durable;
    f->options.user = t;
    REQUIRE_EQ(bop_aof_open(&f->options, &f->aof, NULL, &f->err), 0);
}

static void wait_for(struct threaded *t, uint64_t seq)
{
    while (t->durable < seq) {
        sem_wait(&t->wake);
        bop_lane_poll(t->lane);
    }
}

static void end(struct fixture *f, struct threaded *t)
{
    while (bop_aof_busy(f->aof)) {
        bop_lane_drain(t->lane);
    }
    bop_aof_close(f->aof);
    f->aof = NULL;
    bop_lane_destroy(t->lane);
    sem_destroy(&t->wake);
}

static void append_number(struct fixture *f, struct threaded *t)
{
    uint64_t seq = bop_aof_last(f->aof) + 1;
    char payload[32];

    snprintf(payload, sizeof(payload), "t %llu", (unsigned long long)seq);
    while (append(f, bytes(payload), bytes("")) == BOP_EFULL) {
        wait_for(t, t->durable + 1);
    }
}

TEST(threads, appends_and_reads_while_commits_are_under_way)
{
    const char *path = test_path(NULL, "log");
    struct threaded t;

    f->options.pending_bytes_max = 20000; /* So that some appends must wait. */
    begin(f, &t, path);
    for (unsigned i = 1; i <= RECORDS; i++) {
        append_number(f, &t);
        if (i % 100 == 0) {
            bop_lane_poll(t.lane);
            check_texts(f, "t", i - 99, i);
            check_texts(f, "t", 1 + i / 2, 1 + i / 2);
        }
    }
    wait_for(&t, RECORDS);
    end(f, &t);

    begin(f, &t, path);
    check_texts(f, "t", 1, RECORDS);
    end(f, &t);
}

TEST(threads, truncates_while_commits_are_under_way)
{
    const char *path = test_path(NULL, "log");
    struct threaded t;

    begin(f, &t, path);
    for (unsigned i = 1; i <= 200; i++) {
        for (unsigned k = 0; k < 50; k++) {
            append_number(f, &t);
        }
        if (i % 7 == 0) {
            t.durable = 0; /* It may go back. */
            REQUIRE_EQ(bop_aof_truncate_back(f->aof, bop_aof_last(f->aof) - 20), 0);
        }
        if (i % 31 == 0) {
            REQUIRE_EQ(bop_aof_truncate_front(f->aof, bop_aof_last(f->aof) - 30), 0);
        }
        bop_lane_poll(t.lane);
        check_texts(f, "t", bop_aof_first(f->aof), bop_aof_last(f->aof));
    }
    append_number(f, &t);
    wait_for(&t, bop_aof_last(f->aof));
    end(f, &t);
}
