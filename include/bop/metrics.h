/*
 * One registry of counters, gauges and histograms, written out as Prometheus
 * text (exposition format 0.0.4, histograms cumulative) or read by name.
 *
 * Threads: registering and writing out take a lock; counting is one relaxed
 * atomic operation from any thread. A metric lives as long as its registry.
 * Registering a name and label set that exists gives the existing metric.
 */
#ifndef BOP_METRICS_H
#define BOP_METRICS_H

#include <stdatomic.h>

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/slice.h>

struct bop_metrics;

/** A number that goes up, or (as gauge) up and down. */
struct bop_metric {
    _Atomic int64_t value;
};

/** Counts by power-of-two bound: bucket i counts values up to 2^i in the unit of its name. */
#define BOP_HISTOGRAM_BUCKETS 40
struct bop_histogram {
    _Atomic uint64_t buckets[BOP_HISTOGRAM_BUCKETS];
    _Atomic uint64_t count;
    _Atomic uint64_t sum;
};

BOP_API BOP_MUST_USE int bop_metrics_create(struct bop_allocator *allocator,
                                            struct bop_metrics **out_metrics);
BOP_API void bop_metrics_destroy(struct bop_metrics *metrics);

/*
 * Register. name follows Prometheus' rules ([a-zA-Z_:][a-zA-Z0-9_:]*), help is
 * a sentence, labels is NULL or text like `peer="2"`; all are copied. Each
 * returns NULL when memory is short or the name is not well-formed or is in use
 * for another type, or when the registry holds 4096 series: labels must not take
 * ever new values.
 */
BOP_API struct bop_metric *bop_metrics_counter(struct bop_metrics *metrics, const char *name,
                                               const char *labels, const char *help);
BOP_API struct bop_metric *bop_metrics_gauge(struct bop_metrics *metrics, const char *name,
                                             const char *labels, const char *help);
BOP_API struct bop_histogram *bop_metrics_histogram(struct bop_metrics *metrics, const char *name,
                                                    const char *labels, const char *help);

/* Count. The metric may be NULL, so that code without a registry needs no branch of its own. */
static inline void bop_metric_add(struct bop_metric *metric, int64_t amount)
{
    if (metric) {
        /* Relaxed: a count orders nothing. */
        atomic_fetch_add_explicit(&metric->value, amount, memory_order_relaxed);
    }
}

static inline void bop_metric_set(struct bop_metric *metric, int64_t value)
{
    if (metric) {
        /* Relaxed: a gauge orders nothing. */
        atomic_store_explicit(&metric->value, value, memory_order_relaxed);
    }
}

static inline int64_t bop_metric_get(const struct bop_metric *metric)
{
    /* Relaxed: as above. */
    return metric ? atomic_load_explicit(&metric->value, memory_order_relaxed) : 0;
}

BOP_API void bop_histogram_record(struct bop_histogram *histogram, uint64_t value);

/** The upper bound of the bucket that holds the given quantile (0 to 1); 0 when empty. */
BOP_API uint64_t bop_histogram_quantile(const struct bop_histogram *histogram, double quantile);

/** Append the Prometheus text of all metrics, in order of registration. Returns 0 or BOP_ENOMEM. */
BOP_API BOP_MUST_USE int bop_metrics_write(struct bop_metrics *metrics, struct bop_buf *out_text);

#endif
