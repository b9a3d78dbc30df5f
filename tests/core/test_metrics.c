/*
 * The metrics registry and its text.
 */
#include <bop/metrics.h>

#include <pthread.h>
#include <stdio.h>

#include <bop/error.h>

#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_metrics *metrics;
    struct bop_buf text;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop_buf_init(&f->text, &f->heap.allocator, 0);
    REQUIRE_EQ(bop_metrics_create(&f->heap.allocator, &f->metrics), 0);
}

static void teardown(struct fixture *f)
{
    bop_buf_deinit(&f->text);
    bop_metrics_destroy(f->metrics);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void check_text(struct fixture *f, const char *expected)
{
    bop_buf_clear(&f->text);
    REQUIRE_EQ(bop_metrics_write(f->metrics, &f->text), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->text), bytes(expected));
}

TEST(metrics, are_an_empty_text_at_first)
{
    check_text(f, "");
}

TEST(metrics, write_counters_and_gauges)
{
    struct bop_metric *counter = bop_metrics_counter(f->metrics, "bop_requests_total", NULL,
                                                     "Requests taken.");
    struct bop_metric *gauge = bop_metrics_gauge(f->metrics, "bop_queue:depth", NULL, "Waiting.");

    REQUIRE(counter && gauge);
    bop_metric_add(counter, 5);
    bop_metric_add(counter, 1);
    bop_metric_set(gauge, 10);
    bop_metric_add(gauge, -13);
    CHECK_EQ(bop_metric_get(counter), 6);
    CHECK_EQ(bop_metric_get(gauge), -3);
    check_text(f, "# HELP bop_requests_total Requests taken.\n"
                  "# TYPE bop_requests_total counter\n"
                  "bop_requests_total 6\n"
                  "# HELP bop_queue:depth Waiting.\n"
                  "# TYPE bop_queue:depth gauge\n"
                  "bop_queue:depth -3\n");
}

TEST(metrics, write_the_extremes)
{
    struct bop_metric *gauge = bop_metrics_gauge(f->metrics, "g", NULL, "G.");

    REQUIRE(gauge);
    bop_metric_set(gauge, INT64_MIN);
    check_text(f, "# HELP g G.\n# TYPE g gauge\ng -9223372036854775808\n");
    bop_metric_set(gauge, INT64_MAX);
    check_text(f, "# HELP g G.\n# TYPE g gauge\ng 9223372036854775807\n");
}

/* All series of a name stand together under one HELP and one TYPE, however they came. */
TEST(metrics, group_the_series_of_a_name)
{
    bop_metric_add(bop_metrics_counter(f->metrics, "a", "peer=\"1\"", "First."), 1);
    bop_metric_add(bop_metrics_counter(f->metrics, "b", "", "Second."), 2);
    bop_metric_add(bop_metrics_counter(f->metrics, "a", "peer=\"2\",dc=\"x\"", "Other."), 3);
    bop_metric_add(bop_metrics_counter(f->metrics, "a", NULL, "Other."), 4);
    check_text(f, "# HELP a First.\n"
                  "# TYPE a counter\n"
                  "a{peer=\"1\"} 1\n"
                  "a{peer=\"2\",dc=\"x\"} 3\n"
                  "a 4\n"
                  "# HELP b Second.\n"
                  "# TYPE b counter\n"
                  "b 2\n");
}

TEST(metrics, give_the_same_metric_for_the_same_name_and_labels)
{
    struct bop_metric *first = bop_metrics_counter(f->metrics, "a", "x=\"1\"", "A.");

    REQUIRE(first);
    CHECK_PTR_EQ(bop_metrics_counter(f->metrics, "a", "x=\"1\"", "B."), first);
    CHECK(bop_metrics_counter(f->metrics, "a", "x=\"2\"", "A.") != first);
    CHECK_PTR_EQ(bop_metrics_gauge(f->metrics, "g", NULL, "G."),
                 bop_metrics_gauge(f->metrics, "g", "", "G."));
    CHECK_PTR_EQ(bop_metrics_histogram(f->metrics, "h", NULL, "H."),
                 bop_metrics_histogram(f->metrics, "h", NULL, "H."));
}

TEST(metrics, copy_what_they_are_given)
{
    char name[] = "name", labels[] = "x=\"1\"", help[] = "Help.";

    REQUIRE(bop_metrics_gauge(f->metrics, name, labels, help));
    memset(name, 'z', 4);
    memset(labels, 'z', 4);
    memset(help, 'z', 4);
    check_text(f, "# HELP name Help.\n# TYPE name gauge\nname{x=\"1\"} 0\n");
}

TEST(metrics, refuse_a_name_in_use_for_another_type)
{
    REQUIRE(bop_metrics_counter(f->metrics, "a", NULL, "A."));
    REQUIRE(bop_metrics_histogram(f->metrics, "h", NULL, "H."));
    CHECK_PTR_EQ(bop_metrics_gauge(f->metrics, "a", NULL, "A."), NULL);
    CHECK_PTR_EQ(bop_metrics_gauge(f->metrics, "a", "x=\"1\"", "A."), NULL);
    CHECK_PTR_EQ(bop_metrics_histogram(f->metrics, "a", NULL, "A."), NULL);
    CHECK_PTR_EQ(bop_metrics_counter(f->metrics, "h", NULL, "H."), NULL);
}

/* A histogram h writes lines of these names. */
TEST(metrics, refuse_a_name_that_a_histogram_writes)
{
    REQUIRE(bop_metrics_histogram(f->metrics, "h", NULL, "H."));
    CHECK_PTR_EQ(bop_metrics_counter(f->metrics, "h_sum", NULL, "A."), NULL);
    CHECK_PTR_EQ(bop_metrics_counter(f->metrics, "h_count", NULL, "A."), NULL);
    CHECK_PTR_EQ(bop_metrics_gauge(f->metrics, "h_bucket", NULL, "A."), NULL);
    CHECK(bop_metrics_counter(f->metrics, "h_counts", NULL, "A."));
    CHECK(bop_metrics_counter(f->metrics, "h_total", NULL, "A."));

    REQUIRE(bop_metrics_counter(f->metrics, "i_count", NULL, "A."));
    CHECK_PTR_EQ(bop_metrics_histogram(f->metrics, "i", NULL, "A."), NULL);
}

TEST(metrics, refuse_malformed_names)
{
    static const char *const bad[] = {"", "1a", "a-b", "a b", "a{", "\xc3\xa9", "a\n", ".a"};
    static const char *const good[] = {"a", "_", ":", "a1", "A_b:C9"};

    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        CHECK_PTR_EQ(bop_metrics_counter(f->metrics, bad[i], NULL, "A."), NULL);
        CHECK_PTR_EQ(bop_metrics_histogram(f->metrics, bad[i], NULL, "A."), NULL);
    }
    for (size_t i = 0; i < BOP_COUNT_OF(good); i++) {
        CHECK(bop_metrics_counter(f->metrics, good[i], NULL, "A."));
    }
}

TEST(metrics, escape_the_help)
{
    REQUIRE(bop_metrics_gauge(f->metrics, "a", NULL, "One\\two\nthree \"four\"."));
    check_text(f, "# HELP a One\\\\two\\nthree \"four\".\n# TYPE a gauge\na 0\n");
}

/* 4096 series, then no more: labels that take ever new values stop here. */
TEST(metrics, have_a_bounded_number_of_series)
{
    char labels[32];

    for (int i = 0; i < 4096; i++) {
        snprintf(labels, sizeof(labels), "x=\"%d\"", i);
        REQUIRE(bop_metrics_counter(f->metrics, "a", labels, "A."));
    }
    CHECK_PTR_EQ(bop_metrics_counter(f->metrics, "a", "x=\"4096\"", "A."), NULL);
    CHECK_PTR_EQ(bop_metrics_counter(f->metrics, "b", NULL, "A."), NULL);
    CHECK(bop_metrics_counter(f->metrics, "a", "x=\"17\"", "A."));
}

TEST(metrics, may_be_null_when_counted)
{
    bop_metric_add(NULL, 1);
    bop_metric_set(NULL, 1);
    CHECK_EQ(bop_metric_get(NULL), 0);
    bop_histogram_record(NULL, 1);
    bop_metrics_destroy(NULL);
}

/* ---- Histograms ---- */

/* 0, 1: up to 2^0. 2: 2^1. 3, 4: 2^2. 1000: 2^10 = 1024. 2^39 is in the last bucket, 2^39 + 1
 * and the largest in none but +Inf. The sum is 1010 + 2^40 + 1 - 1, past 2^64 once. */
TEST(histogram, counts_cumulatively_up_to_powers_of_two)
{
    static const uint64_t values[] = {
        0, 1, 2, 3, 4, 1000, UINT64_C(1) << 39, (UINT64_C(1) << 39) + 1, UINT64_MAX};
    struct bop_histogram *histogram = bop_metrics_histogram(f->metrics, "h_us", "op=\"get\"",
                                                            "Time.");
    char expected[8192];
    int at;

    REQUIRE(histogram);
    for (size_t i = 0; i < BOP_COUNT_OF(values); i++) {
        bop_histogram_record(histogram, values[i]);
    }
    at = snprintf(expected, sizeof(expected), "# HELP h_us Time.\n# TYPE h_us histogram\n");
    for (int i = 0; i < 40; i++) {
        int count = i == 0 ? 2 : i == 1 ? 3 : i < 10 ? 5 : i < 39 ? 6 : 7;

        at += snprintf(expected + at, sizeof(expected) - (size_t)at,
                       "h_us_bucket{op=\"get\",le=\"%" PRIu64 "\"} %d\n", UINT64_C(1) << i, count);
    }
    snprintf(expected + at, sizeof(expected) - (size_t)at,
             "h_us_bucket{op=\"get\",le=\"+Inf\"} 9\n"
             "h_us_sum{op=\"get\"} %" PRIu64 "\n"
             "h_us_count{op=\"get\"} 9\n",
             1010 + (UINT64_C(1) << 40));
    check_text(f, expected);
}

TEST(histogram, needs_no_labels)
{
    struct bop_histogram *histogram = bop_metrics_histogram(f->metrics, "h", NULL, "H.");

    REQUIRE(histogram);
    bop_histogram_record(histogram, 5);
    REQUIRE_EQ(bop_metrics_write(f->metrics, &f->text), 0);
    REQUIRE_EQ(bop_buf_append(&f->text, "", 1), 0); /* The NUL of a string. */
    CHECK_STR_HAS((const char *)f->text.data, "\nh_bucket{le=\"4\"} 0\nh_bucket{le=\"8\"} 1\n");
    CHECK_STR_HAS(
        (const char *)f->text.data,
        "\nh_bucket{le=\"549755813888\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 5\nh_count 1\n");
}

/* The bound of each value's bucket: the smallest power of two that is not below it. */
TEST(histogram, finds_the_bucket_at_each_edge)
{
    for (int i = 1; i < BOP_HISTOGRAM_BUCKETS; i++) {
        struct bop_histogram histogram = {0};

        bop_histogram_record(&histogram, UINT64_C(1) << i);
        bop_histogram_record(&histogram, (UINT64_C(1) << i) - (i > 1)); /* 2^i - 1 but for 2. */
        CHECK_EQ(histogram.buckets[i], 2);
        bop_histogram_record(&histogram, (UINT64_C(1) << i) + 1);
        CHECK_EQ(histogram.buckets[i], 2);
        CHECK_EQ(histogram.count, 3);
    }
}

/* Of 100 values, 90 are up to 1, 9 up to 8 and one past all bounds. */
TEST(histogram, gives_quantiles_as_bounds)
{
    struct bop_histogram histogram = {0};

    CHECK_EQ(bop_histogram_quantile(&histogram, 0.5), 0);
    for (int i = 0; i < 90; i++) {
        bop_histogram_record(&histogram, 1);
    }
    for (int i = 0; i < 9; i++) {
        bop_histogram_record(&histogram, 7);
    }
    bop_histogram_record(&histogram, UINT64_MAX);
    CHECK_EQ(bop_histogram_quantile(&histogram, 0), 1);
    CHECK_EQ(bop_histogram_quantile(&histogram, 0.5), 1);
    CHECK_EQ(bop_histogram_quantile(&histogram, 0.9), 1);
    CHECK_EQ(bop_histogram_quantile(&histogram, 0.91), 8);
    CHECK_EQ(bop_histogram_quantile(&histogram, 0.99), 8);
    CHECK_EQ(bop_histogram_quantile(&histogram, 1), UINT64_MAX);
}

TEST(histogram, gives_the_least_bucket_in_use_at_quantile_0)
{
    struct bop_histogram histogram = {0};

    bop_histogram_record(&histogram, 100);
    CHECK_EQ(bop_histogram_quantile(&histogram, 0), 128);
    CHECK_EQ(bop_histogram_quantile(&histogram, 1), 128);
}

/* ---- Failures and threads ---- */

/* Each allocation fails once. What could not be made is NULL and not in the text; the text is
 * whole or not there; what was in the buffer stays. */
TEST(metrics, survive_each_fault)
{
    bop_metrics_destroy(f->metrics);
    f->metrics = NULL;
    FAULT_SWEEP(&f->faults) {
        struct bop_metrics *metrics = NULL;
        int rc = bop_metrics_create(&f->heap.allocator, &metrics);

        CHECK_EQ(rc == 0, metrics != NULL);
        if (metrics) {
            bool all = bop_metrics_counter(metrics, "a", NULL, "A.") &&
                       bop_metrics_counter(metrics, "a", "x=\"1\"", "A.") &&
                       bop_metrics_gauge(metrics, "g", NULL, "G.");

            CHECK(all || f->faults.fired == BOP_ENOMEM);
            if (all) {
                rc = bop_buf_append(&f->text, "before", 6);
                rc = rc ? rc : bop_metrics_write(metrics, &f->text);
                CHECK_EQ(rc, f->faults.fired);
                CHECK(rc == 0 || f->text.size == 0 || f->text.size == 6);
            }
        }
        bop_metrics_destroy(metrics);
        bop_buf_deinit(&f->text);
        CHECK_EQ(f->heap.live, 0);
    }
    /* The registry, two families, three series, and the text at 64 and 128 bytes. */
    CHECK_EQ(f->faults.at, 8);
}

TEST(metrics, leave_a_full_buffer_as_it_was)
{
    REQUIRE(bop_metrics_counter(f->metrics, "a", NULL, "A."));
    f->text.size_max = 20;
    REQUIRE_EQ(bop_buf_append(&f->text, "before", 6), 0);
    CHECK_EQ(bop_metrics_write(f->metrics, &f->text), BOP_EFULL);
    CHECK_SLICE_EQ(bop_buf_slice(&f->text), bytes("before"));
}

#define THREADS 4
#define ROUNDS  2000

static void *count_in_thread(void *argument)
{
    struct fixture *f = argument;

    for (int i = 0; i < ROUNDS; i++) {
        bop_metric_add(bop_metrics_counter(f->metrics, "c", NULL, "C."), 1);
        bop_histogram_record(bop_metrics_histogram(f->metrics, "h", NULL, "H."), 3);
    }
    return NULL;
}

/* The value in the first line that begins so; the text ends in NUL. */
static uint64_t value_of(const char *text, const char *line)
{
    const char *at = strstr(text, line);
    uint64_t value = 0;

    CHECK(at && sscanf(at + strlen(line), "%" SCNu64, &value) == 1);
    return value;
}

/* Written out at any moment, a histogram is consistent in itself; in the end nothing is lost. */
TEST(metrics, count_from_any_thread)
{
    pthread_t threads[THREADS];
    uint64_t count = 0;

    REQUIRE(bop_metrics_histogram(f->metrics, "h", NULL, "H."));
    for (int i = 0; i < THREADS; i++) {
        REQUIRE_EQ(pthread_create(&threads[i], NULL, count_in_thread, f), 0);
    }
    while (count < THREADS * ROUNDS) {
        const char *text;

        bop_buf_clear(&f->text);
        REQUIRE_EQ(bop_metrics_write(f->metrics, &f->text), 0);
        REQUIRE_EQ(bop_buf_append(&f->text, "", 1), 0);
        text = (const char *)f->text.data;
        count = value_of(text, "\nh_count ");
        CHECK_EQ(value_of(text, "\nh_bucket{le=\"+Inf\"} "), count);
        CHECK(value_of(text, "\nh_bucket{le=\"4\"} ") <= count);
    }
    for (int i = 0; i < THREADS; i++) {
        REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQ(bop_metric_get(bop_metrics_counter(f->metrics, "c", NULL, "C.")), THREADS * ROUNDS);
    CHECK_EQ(bop_histogram_quantile(bop_metrics_histogram(f->metrics, "h", NULL, "H."), 0.5), 4);
}
