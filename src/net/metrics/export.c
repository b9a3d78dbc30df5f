/*
 * Counters in a registry: for each the metric, and what was already added to it.
 */
#include "export.h"

#include <stdio.h>
#include <string.h>

struct exported_series {
    struct bop_metric *metric;
    int64_t added;
};

struct bop__export {
    struct bop_allocator *allocator;
    struct bop_metrics *metrics;
    const struct bop__series *table;
    size_t count;
    struct exported_series series[];
};

static size_t bytes_of(size_t count)
{
    return sizeof(struct bop__export) + count * sizeof(struct exported_series);
}

static struct bop_metric *make(struct bop_metrics *metrics, const struct bop__series *series,
                               const char *labels)
{
    char both[256];
    int size = snprintf(both, sizeof(both), "%s%s%s", labels != NULL ? labels : "",
                        labels != NULL && series->labels != NULL ? "," : "",
                        series->labels != NULL ? series->labels : "");

    if (size < 0 || (size_t)size >= sizeof(both)) {
        return NULL;
    }
    return series->gauge
               ? bop_metrics_gauge(metrics, series->name, size > 0 ? both : NULL, series->help)
               : bop_metrics_counter(metrics, series->name, size > 0 ? both : NULL, series->help);
}

struct bop__export *bop__export_create(struct bop_allocator *allocator, struct bop_metrics *metrics,
                                       const char *labels, const struct bop__series *table,
                                       size_t count)
{
    struct bop__export *exported = (struct bop__export *)bop_alloc_zeroed(allocator,
                                                                          bytes_of(count));

    if (exported == NULL) {
        return NULL;
    }
    exported->allocator = allocator;
    exported->metrics = metrics;
    exported->table = table;
    exported->count = count;
    for (size_t i = 0; i < count; i++) {
        exported->series[i].metric = make(metrics, &table[i], labels);
        if (exported->series[i].metric == NULL) {
            bop_free(allocator, exported, bytes_of(count));
            return NULL;
        }
    }
    return exported;
}

void bop__export_destroy(struct bop__export *exported)
{
    if (exported == NULL) {
        return;
    }
    for (size_t i = 0; i < exported->count; i++) {
        if (exported->table[i].gauge) {
            bop_metric_add(exported->series[i].metric, -exported->series[i].added);
        }
    }
    bop_free(exported->allocator, exported, bytes_of(exported->count));
}

struct bop_metrics *bop__export_registry(const struct bop__export *exported)
{
    return exported->metrics;
}

void bop__export_update(struct bop__export *exported, const void *counters)
{
    for (size_t i = 0; exported != NULL && i < exported->count; i++) {
        struct exported_series *series = &exported->series[i];
        int64_t now;

        memcpy(&now, (const char *)counters + exported->table[i].offset, sizeof(now));
        if (now != series->added) {
            bop_metric_add(series->metric, now - series->added);
            series->added = now;
        }
    }
}
