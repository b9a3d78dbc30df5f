/*
 * Every allocation and every file operation fails once in turn, and a disk that is full.
 */
#include <bop/sim.h>

#include "harness.h"

struct sweep {
    struct bop_fs_faulty faulty;
    uint64_t acked;    /* The last record that was called durable. */
    uint64_t appended; /* The last one accepted. */
};

static void sweep_durable(void *user, uint64_t seq)
{
    struct sweep *s = user;

    CHECK(seq > s->acked);
    s->acked = seq;
}

static void sweep_failed(void *user, int code, const char *message)
{
    BOP_IGNORE(user);
    CHECK(code < 0);
    CHECK(message[0] != '\0');
}

/* Append "s <number>" and commit. */
static void sweep_append(struct fixture *f, struct sweep *s)
{
    char payload[32];

    snprintf(payload, sizeof(payload), "s %llu", (unsigned long long)bop_aof_last(f->aof) + 1);
    if (append(f, bytes(payload), bytes("")) == 0) {
        s->appended = bop_aof_last(f->aof);
    }
    bop_inline_poll(&f->executor);
}

/* Open, roll over segments, truncate, read. Whatever fails, what was acknowledged is kept. */
static void use_log(struct fixture *f, struct sweep *s)
{
    struct bop_aof_view view;

    for (int i = 0; i < 6; i++) {
        sweep_append(f, s);
    }
    if (bop_aof_last(f->aof) >= 2 && bop_aof_truncate_front(f->aof, 2) == 0) {
        BOP_IGNORE(bop_aof_read(f->aof, bop_aof_last(f->aof), 1, 0, &f->buf, &view, NULL));
    }
    sweep_append(f, s);
}

static void check_kept(struct fixture *f, const struct sweep *s)
{
    f->options.fs = f->fs;
    REQUIRE_EQ(open_log(f), 0);
    CHECK(bop_aof_last(f->aof) >= s->acked);
    CHECK(bop_aof_last(f->aof) <= s->appended);
    check_texts(f, "s", bop_aof_first(f->aof), bop_aof_last(f->aof));
    close_log(f);
}

/* A new disk for each round, and the faulty file system over it. */
static void new_disk(struct fixture *f, struct sweep *s)
{
    struct bop_fs_sim_options sim_options = {.seed = 7};

    bop_fs_sim_destroy(f->sim);
    REQUIRE_EQ(bop_fs_sim_create(&sim_options, &f->sim), 0);
    f->fs = bop_fs_sim_fs(f->sim);
    bop_fs_faulty_init(&s->faulty, f->fs, &f->faults);
    f->options.fs = &s->faulty.fs;
    f->options.segment_bytes = 4096 + 3 * 56;
    f->options.on_durable = sweep_durable;
    f->options.on_failed = sweep_failed;
    f->options.user = s;
    s->acked = 0;
    s->appended = 0;
}

/* The harness's heap counts as steps too; without faults it is only a heap. */
static void check_without_faults(struct fixture *f, const struct sweep *s)
{
    struct bop_faults faults = f->faults;

    f->faults.fail_at = 0;
    check_kept(f, s);
    f->faults = faults;
}

TEST(faults, a_new_log_survives_each)
{
    FAULT_SWEEP(&f->faults) {
        struct sweep s;
        int rc;

        new_disk(f, &s);
        rc = bop_aof_open(&f->options, &f->aof, &f->recovery, &f->err);
        if (rc == 0) {
            use_log(f, &s);
            close_log(f);
        } else {
            CHECK_EQ(rc, f->faults.fired);
            CHECK_EQ(f->err.code, rc);
        }
        CHECK_EQ(s.faulty.open_files, 0);
        CHECK_EQ(f->heap.live, 0);
        check_without_faults(f, &s);
    }
    CHECK(f->faults.at > 80); /* A new call gets its fault too. */
}

/* A log with several segments, void ones and a torn tail is opened. */
TEST(faults, recovery_survives_each)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_faults faults = f->faults;
        struct sweep s;
        int rc;

        f->faults.fail_at = 0;
        new_disk(f, &s);
        f->options.fs = f->fs;
        REQUIRE_EQ(bop_aof_open(&f->options, &f->aof, NULL, NULL), 0);
        use_log(f, &s);
        REQUIRE_EQ(append(f, bytes("s 8"), bytes("")), 0);
        s.appended = 8;
        bop_fs_sim_stop_after(f->sim, 1); /* Half of a write, maybe. */
        close_log(f);
        bop_fs_sim_kill_process(f->sim);
        f->options.fs = &s.faulty.fs;
        f->faults = faults;

        rc = bop_aof_open(&f->options, &f->aof, &f->recovery, &f->err);
        CHECK_EQ(rc, f->faults.fired);
        close_log(f);
        CHECK_EQ(s.faulty.open_files, 0);
        CHECK_EQ(f->heap.live, 0);
        check_without_faults(f, &s);
    }
    CHECK(f->faults.at > 35);
}

/* ---- A full disk ---- */

/* Admission stops before the disk is full; what was appended is committed and read, and
 * appending goes on once there is room. */
TEST(faults, a_nearly_full_disk_refuses_and_recovers)
{
    struct bop_aof_record record = {.body = bytes("refused")};
    int rc = 0;

    f->options.segment_bytes = 65536;
    f->options.room_min = 100000;
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 10);
    bop_fs_sim_set_capacity(f->sim, 300 * 1024);
    while (rc == 0) {
        char payload[32];

        snprintf(payload, sizeof(payload), "r %llu", (unsigned long long)bop_aof_last(f->aof) + 1);
        rc = append(f, bytes(payload), bytes(""));
        bop_inline_poll(&f->executor);
    }
    CHECK_EQ(rc, BOP_ENOROOM);
    CHECK_EQ(bop_aof_failed(f->aof), 0);
    CHECK_EQ(bop_aof_durable(f->aof), bop_aof_last(f->aof));
    check_texts(f, "r", 1, bop_aof_last(f->aof));
    CHECK_EQ(bop_aof_append(f->aof, &record, 1), BOP_ENOROOM);
    bop_inline_poll(&f->executor);

    bop_fs_sim_set_capacity(f->sim, 0);
    CHECK_EQ(bop_aof_append(f->aof, &record, 1), BOP_ENOROOM); /* Has somebody look. */
    bop_inline_poll(&f->executor);
    append_texts(f, "r", 10);
    check_texts(f, "r", 1, bop_aof_last(f->aof));
}

/* ... or, for whom that is better, keeps what there is no room for until there is some. */
TEST(faults, a_full_disk_refuses_nothing_of_a_log_that_keeps_it)
{
    uint64_t acked, last;

    f->options.segment_bytes = 65536;
    f->options.room_min = 1;
    f->options.keeps_without_room = true;
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 10);
    bop_fs_sim_set_capacity(f->sim, 300 * 1024);
    append_texts(f, "r", 20000);
    bop_inline_poll(&f->executor);
    acked = bop_aof_durable(f->aof);
    last = bop_aof_last(f->aof);
    CHECK(acked < last);
    CHECK_EQ(last, 20010);
    CHECK_EQ(bop_aof_failed(f->aof), 0);
    check_texts(f, "r", 1, last);
    bop_aof_look_for_room(f->aof);
    bop_inline_poll(&f->executor);
    CHECK_EQ(bop_aof_durable(f->aof), acked); /* Still full. */

    bop_fs_sim_set_capacity(f->sim, 0);
    bop_aof_look_for_room(f->aof);
    bop_inline_poll(&f->executor);
    CHECK_EQ(bop_aof_durable(f->aof), last);
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    check_texts(f, "r", 1, last);
}

/* Where the room cannot be watched, the log uses what there is and waits for more; it loses
 * nothing, and opens again with all that was acknowledged. */
TEST(faults, a_full_disk_stops_the_log_and_loses_nothing)
{
    struct bop_aof_record record = {.body = bytes("last")};
    uint64_t acked, last;
    int rc = 0;

    f->options.segment_bytes = 1024 * 1024;
    f->options.room_min = 1;
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 10);
    bop_fs_sim_set_capacity(f->sim, 300 * 1024);
    while (rc == 0) {
        char payload[32];

        snprintf(payload, sizeof(payload), "r %llu", (unsigned long long)bop_aof_last(f->aof) + 1);
        rc = append(f, bytes(payload), bytes(""));
        if (bop_aof_last(f->aof) % 100 == 0) {
            bop_inline_poll(&f->executor);
        }
    }
    CHECK_EQ(rc, BOP_ENOROOM);
    CHECK_EQ(bop_aof_failed(f->aof), 0);
    acked = bop_aof_durable(f->aof);
    last = bop_aof_last(f->aof);
    CHECK(acked > 2000); /* Much of the 300 KiB was used. */
    CHECK(acked <= last);
    check_texts(f, "r", 1, last);
    close_log(f);

    REQUIRE_EQ(open_log(f), 0); /* Still full. */
    CHECK(bop_aof_last(f->aof) >= acked);
    last = bop_aof_last(f->aof);
    check_texts(f, "r", 1, last);
    BOP_IGNORE(bop_aof_append(f->aof, &record, 1));
    bop_inline_poll(&f->executor);
    last = bop_aof_last(f->aof);
    bop_fs_sim_set_capacity(f->sim, 0);
    BOP_IGNORE(bop_aof_append(f->aof, &record, 1)); /* Refused, and has somebody look. */
    bop_inline_poll(&f->executor);
    CHECK(bop_aof_durable(f->aof) >= last); /* What waited went on its way. */
    REQUIRE_EQ(bop_aof_append(f->aof, &record, 1), 0);
    bop_inline_poll(&f->executor);
    CHECK_EQ(bop_aof_durable(f->aof), bop_aof_last(f->aof));
}
