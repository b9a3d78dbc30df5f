/*
 * The log through its interface: append, commit, read, reopen.
 */
#include <bop/sim.h>

#include "harness.h"

TEST(aof, is_empty_when_new)
{
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_first(f->aof), 1);
    CHECK_EQ(bop_aof_last(f->aof), 0);
    CHECK_EQ(bop_aof_durable(f->aof), 0);
    CHECK_EQ(f->recovery.segments, 1);
    CHECK_EQ(f->recovery.torn_bytes, 0);
    CHECK(!bop_aof_busy(f->aof));
}

TEST(aof, begins_at_the_number_asked_for)
{
    f->options.first_seq = 1000;
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_first(f->aof), 1000);
    CHECK_EQ(bop_aof_last(f->aof), 999);
    append_texts(f, "a", 3);
    close_log(f);

    f->options.first_seq = 5; /* Only of a new log. */
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_first(f->aof), 1000);
    check_texts(f, "a", 1000, 1002);
}

TEST(aof, commits_at_once_and_then_what_came_meanwhile)
{
    struct bop_aof_view view;

    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(append(f, bytes("one"), bytes("")), 0);
    REQUIRE_EQ(append(f, bytes("tw"), bytes("o")), 0);
    CHECK_EQ(bop_aof_last(f->aof), 2);
    CHECK_EQ(bop_aof_durable(f->aof), 0);
    CHECK(bop_aof_busy(f->aof));

    /* From memory. */
    REQUIRE_EQ(bop_aof_read(f->aof, 2, 1, SIZE_MAX, &f->buf, &view, &f->err), 1);
    CHECK_SLICE_EQ(view.payload, bytes("two"));

    bop_inline_poll(&f->executor);
    CHECK_EQ(f->durable_calls, 2);
    CHECK_EQ(f->durable, 2);
    CHECK_EQ(bop_aof_durable(f->aof), 2);
    CHECK(!bop_aof_busy(f->aof));

    REQUIRE_EQ(bop_aof_read(f->aof, 2, 1, SIZE_MAX, &f->buf, &view, &f->err), 1);
    CHECK_SLICE_EQ(view.payload, bytes("two"));
}

TEST(aof, keeps_records_over_a_reopening)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "first", 500); /* Several segments. */
    close_log(f);

    REQUIRE_EQ(open_log(f), 0);
    CHECK(f->recovery.segments > 1);
    CHECK_EQ(f->recovery.torn_bytes, 0);
    CHECK_EQ(bop_aof_last(f->aof), 500);
    CHECK_EQ(bop_aof_durable(f->aof), 500);
    check_texts(f, "first", 1, 500);
    append_texts(f, "second", 500);
    close_log(f);

    REQUIRE_EQ(open_log(f), 0);
    check_texts(f, "first", 1, 500);
    check_texts(f, "second", 501, 1000);
}

TEST(aof, keeps_acknowledged_records_over_a_power_loss)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "a", 300);
    bop_fs_sim_lose_power(f->sim);
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    check_texts(f, "a", 1, 300);
    CHECK_EQ(bop_aof_last(f->aof), 300);
}

TEST(aof, reads_many_records_within_bounds)
{
    struct bop_aof_view views[10];

    REQUIRE_EQ(open_log(f), 0);
    for (int i = 0; i < 20; i++) {
        REQUIRE_EQ(append(f, bytes("0123456789"), bytes("")), 0);
    }
    REQUIRE_EQ(bop_aof_read(f->aof, 3, 10, SIZE_MAX, &f->buf, views, &f->err), 10);
    for (unsigned i = 0; i < 10; i++) {
        CHECK_EQ(views[i].seq, 3 + i);
        CHECK_SLICE_EQ(views[i].payload, bytes("0123456789"));
    }
    CHECK_EQ(bop_aof_read(f->aof, 1, 10, 30, &f->buf, views, &f->err), 3); /* 3 times 10. */
    CHECK_EQ(bop_aof_read(f->aof, 1, 10, 39, &f->buf, views, &f->err), 3);
    CHECK_EQ(bop_aof_read(f->aof, 1, 10, 0, &f->buf, views, &f->err), 1); /* At least one. */
    CHECK_EQ(bop_aof_read(f->aof, 18, 10, SIZE_MAX, &f->buf, views, &f->err), 3); /* To the last. */
    CHECK_EQ(bop_aof_read(f->aof, 0, 1, SIZE_MAX, &f->buf, views, &f->err), BOP_ENOTFOUND);
    CHECK_EQ(bop_aof_read(f->aof, 21, 1, SIZE_MAX, &f->buf, views, &f->err), BOP_ENOTFOUND);
}

TEST(aof, keeps_records_bigger_than_a_segment)
{
    static uint8_t big[100000];
    struct bop_aof_view view;

    memset(big, 'x', sizeof(big));
    f->options.segment_bytes = 4096; /* No room for any record: each gets its own. */
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "small", 1);
    REQUIRE_EQ(append(f, bop_slice(big, sizeof(big)), bytes("y")), 0);
    REQUIRE_EQ(append(f, bytes(""), bytes("")), 0);
    bop_inline_poll(&f->executor);
    for (int round = 0; round < 2; round++) {
        check_texts(f, "small", 1, 1);
        REQUIRE_EQ(bop_aof_read(f->aof, 2, 1, SIZE_MAX, &f->buf, &view, &f->err), 1);
        REQUIRE_EQ(view.payload.size, sizeof(big) + 1);
        CHECK_MEM_EQ(view.payload.data, big, sizeof(big));
        CHECK_EQ(view.payload.data[sizeof(big)], 'y');
        REQUIRE_EQ(bop_aof_read(f->aof, 3, 1, SIZE_MAX, &f->buf, &view, &f->err), 1);
        CHECK_EQ(view.payload.size, 0);
        close_log(f);
        REQUIRE_EQ(open_log(f), 0);
    }
}

TEST(aof, refuses_above_its_bounds)
{
    uint8_t byte = 0;
    struct bop_aof_record record = {.head = {.data = &byte, .size = BOP_AOF_RECORD_MAX},
                                    .body = {.data = &byte, .size = 1}};

    f->options.pending_bytes_max = 100;
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_append(f->aof, &record, 1), BOP_ETOOBIG);
    CHECK_EQ(bop_aof_append(f->aof, &record, 0), 0);
    CHECK(!bop_aof_busy(f->aof));

    REQUIRE_EQ(append(f, bytes("x"), bytes("")), 0); /* 56 bytes with its header. */
    CHECK_EQ(append(f, bytes("x"), bytes("")), BOP_EFULL);
    CHECK_EQ(bop_aof_last(f->aof), 1);
    bop_inline_poll(&f->executor);
    CHECK_EQ(append(f, bytes("x"), bytes("")), 0);
}

TEST(aof, has_one_owner)
{
    struct bop_aof *other = NULL;

    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_open(&f->options, &other, NULL, &f->err), BOP_ELOCKED);
    CHECK_STR_HAS(f->err.message, LOG_PATH);
    CHECK_PTR_EQ(other, NULL);
}

TEST(aof, refuses_bad_options)
{
    struct bop_aof_options options = f->options;
    struct bop_aof *aof;

    options.path = NULL;
    CHECK_EQ(bop_aof_open(&options, &aof, NULL, NULL), BOP_EINVAL);
    options = f->options;
    options.level = BOP_AOF_TIER2; /* Without tiers. */
    CHECK_EQ(bop_aof_open(&options, &aof, NULL, NULL), BOP_EINVAL);
    options = f->options;
    options.layout = (enum bop_aof_layout)7;
    CHECK_EQ(bop_aof_open(&options, &aof, NULL, NULL), BOP_EINVAL);
    options = f->options;
    options.segment_bytes = 4095;
    CHECK_EQ(bop_aof_open(&options, &aof, NULL, NULL), BOP_EINVAL);
}

TEST(aof, counts_itself)
{
    struct bop_metrics *metrics;

    REQUIRE_EQ(bop_metrics_create(NULL, &metrics), 0);
    f->options.metrics = metrics;
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "x", 5);
    CHECK_EQ(
        bop_metric_get(bop_metrics_counter(metrics, "bop_aof_appended_records_total", NULL, "x")),
        5);
    CHECK_EQ(bop_metric_get(bop_metrics_counter(metrics, "bop_aof_commits_total", NULL, "x")), 2);
    CHECK_EQ(bop_metric_get(bop_metrics_gauge(metrics, "bop_aof_durable_seq", NULL, "x")), 5);
    CHECK_EQ(bop_metric_get(bop_metrics_gauge(metrics, "bop_aof_last_seq", NULL, "x")), 5);
    CHECK_EQ(bop_metric_get(bop_metrics_gauge(metrics, "bop_aof_failed", NULL, "x")), 0);
    close_log(f);
    bop_metrics_destroy(metrics);
}
