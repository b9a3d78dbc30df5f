/*
 * The metrics registry.
 *
 * A family is what shares a name, a type and a help text; its series differ in
 * their labels. Prometheus wants all lines of a family in one group, so the
 * order of the text is that of the families, by their first series, and within
 * a family that of its series.
 *
 * Series are found by walking the lists: registering is rare, and the number of
 * series is bounded.
 */
#include <bop/metrics.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

#include <bop/error.h>
#include <bop/list.h>
#include <bop/mem.h>

/* Series of one registry; a label that takes ever new values meets this bound. */
#define METRICS_SERIES_MAX 4096

enum metric_type {
    METRIC_COUNTER,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
};

static const char *const type_names[] = {
    [METRIC_COUNTER] = "counter",
    [METRIC_GAUGE] = "gauge",
    [METRIC_HISTOGRAM] = "histogram",
};

struct series {
    struct bop_list link; /* On family.series. */
    union {
        struct bop_metric metric;
        struct bop_histogram histogram;
    } value;
    size_t size;   /* Of this block. */
    char labels[]; /* NUL-terminated; empty for none. */
};

struct family {
    struct bop_list link; /* On metrics.families. */
    struct bop_list series;
    enum metric_type type;
    size_t size;      /* Of this block. */
    const char *help; /* In this block, after the name. */
    char name[];
};

struct bop_metrics {
    struct bop_allocator *allocator;
    pthread_mutex_t lock; /* Of all below but the values. */
    struct bop_list families;
    size_t series_count;
};

int bop_metrics_create(struct bop_allocator *allocator, struct bop_metrics **out_metrics)
{
    struct bop_metrics *metrics;
    int rc;

    allocator = bop_allocator_or_tag(allocator, "core.metrics");
    metrics = bop_alloc_zeroed(allocator, sizeof(*metrics));
    if (!metrics) {
        return BOP_ENOMEM;
    }
    rc = pthread_mutex_init(&metrics->lock, NULL);
    if (rc != 0) {
        bop_free(allocator, metrics, sizeof(*metrics));
        return -rc;
    }
    metrics->allocator = allocator;
    bop_list_init(&metrics->families);
    *out_metrics = metrics;
    return 0;
}

void bop_metrics_destroy(struct bop_metrics *metrics)
{
    if (!metrics) {
        return;
    }
    BOP_LIST_FOR_EACH_SAFE(family_link, &metrics->families) {
        struct family *family = BOP_CONTAINER_OF(family_link, struct family, link);

        BOP_LIST_FOR_EACH_SAFE(series_link, &family->series) {
            struct series *series = BOP_CONTAINER_OF(series_link, struct series, link);

            bop_free(metrics->allocator, series, series->size);
        }
        bop_free(metrics->allocator, family, family->size);
    }
    pthread_mutex_destroy(&metrics->lock);
    bop_free(metrics->allocator, metrics, sizeof(*metrics));
}

/* ---- Registering ---- */

static bool is_name_character(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' ||
           (!first && c >= '0' && c <= '9');
}

static bool is_name(const char *name)
{
    if (!is_name_character(name[0], true)) {
        return false;
    }
    for (size_t i = 1; name[i]; i++) {
        if (!is_name_character(name[i], false)) {
            return false;
        }
    }
    return true;
}

/* True if `name` is one of the names that a histogram called `histogram` writes out. */
static bool is_part_of(const char *name, const char *histogram)
{
    size_t length = strlen(histogram);

    return strncmp(name, histogram, length) == 0 &&
           (strcmp(name + length, "_bucket") == 0 || strcmp(name + length, "_sum") == 0 ||
            strcmp(name + length, "_count") == 0);
}

/* True if the two cannot both be there: their lines would mix. */
static bool names_clash(const struct family *family, const char *name, enum metric_type type)
{
    if (strcmp(family->name, name) == 0) {
        return family->type != type;
    }
    return (family->type == METRIC_HISTOGRAM && is_part_of(name, family->name)) ||
           (type == METRIC_HISTOGRAM && is_part_of(family->name, name));
}

static struct family *create_family(struct bop_metrics *metrics, const char *name,
                                    enum metric_type type, const char *help)
{
    size_t name_size = strlen(name) + 1;
    size_t help_size = strlen(help) + 1;
    size_t size = sizeof(struct family) + name_size + help_size;
    struct family *family = bop_alloc_zeroed(metrics->allocator, size);

    if (!family) {
        return NULL;
    }
    family->type = type;
    family->size = size;
    bop_list_init(&family->series);
    memcpy(family->name, name, name_size);
    memcpy(family->name + name_size, help, help_size);
    family->help = family->name + name_size;
    return family;
}

static struct series *create_series(struct bop_metrics *metrics, const char *labels)
{
    size_t labels_size = strlen(labels) + 1;
    size_t size = sizeof(struct series) + labels_size;
    struct series *series = bop_alloc_zeroed(metrics->allocator, size);

    if (!series) {
        return NULL;
    }
    series->size = size;
    memcpy(series->labels, labels, labels_size);
    return series;
}

static struct series *find_series(struct family *family, const char *labels)
{
    BOP_LIST_FOR_EACH(link, &family->series) {
        struct series *series = BOP_CONTAINER_OF(link, struct series, link);

        if (strcmp(series->labels, labels) == 0) {
            return series;
        }
    }
    return NULL;
}

static struct series *register_locked(struct bop_metrics *metrics, const char *name,
                                      const char *labels, enum metric_type type, const char *help)
{
    struct family *family = NULL;
    struct series *series;

    BOP_LIST_FOR_EACH(link, &metrics->families) {
        struct family *other = BOP_CONTAINER_OF(link, struct family, link);

        if (names_clash(other, name, type)) {
            return NULL;
        }
        if (strcmp(other->name, name) == 0) {
            family = other;
        }
    }
    series = family ? find_series(family, labels) : NULL;
    if (series) {
        return series;
    }

    if (metrics->series_count == METRICS_SERIES_MAX) {
        return NULL;
    }
    series = create_series(metrics, labels);
    if (!series) {
        return NULL;
    }
    if (!family) {
        family = create_family(metrics, name, type, help);
        if (!family) {
            bop_free(metrics->allocator, series, series->size);
            return NULL;
        }
        bop_list_push_back(&metrics->families, &family->link);
    }
    bop_list_push_back(&family->series, &series->link);
    metrics->series_count++;
    return series;
}

static struct series *register_series(struct bop_metrics *metrics, const char *name,
                                      const char *labels, enum metric_type type, const char *help)
{
    struct series *series;

    if (!is_name(name)) {
        return NULL;
    }
    pthread_mutex_lock(&metrics->lock);
    series = register_locked(metrics, name, labels ? labels : "", type, help);
    pthread_mutex_unlock(&metrics->lock);
    return series;
}

struct bop_metric *bop_metrics_counter(struct bop_metrics *metrics, const char *name,
                                       const char *labels, const char *help)
{
    struct series *series = register_series(metrics, name, labels, METRIC_COUNTER, help);

    return series ? &series->value.metric : NULL;
}

struct bop_metric *bop_metrics_gauge(struct bop_metrics *metrics, const char *name,
                                     const char *labels, const char *help)
{
    struct series *series = register_series(metrics, name, labels, METRIC_GAUGE, help);

    return series ? &series->value.metric : NULL;
}

struct bop_histogram *bop_metrics_histogram(struct bop_metrics *metrics, const char *name,
                                            const char *labels, const char *help)
{
    struct series *series = register_series(metrics, name, labels, METRIC_HISTOGRAM, help);

    return series ? &series->value.histogram : NULL;
}

/* ---- Histograms ---- */

void bop_histogram_record(struct bop_histogram *histogram, uint64_t value)
{
    /* The least i with value <= 2^i; above the last there is only count. */
    unsigned bucket = value <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(value - 1);

    if (!histogram) {
        return;
    }
    /* Relaxed: a count orders nothing. A reader may see one of the three
     * without the others and allows for it. */
    if (bucket < BOP_HISTOGRAM_BUCKETS) {
        atomic_fetch_add_explicit(&histogram->buckets[bucket], 1, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&histogram->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum, value, memory_order_relaxed);
}

/* What a histogram held at some moment, in itself consistent. */
struct snapshot {
    uint64_t cumulative[BOP_HISTOGRAM_BUCKETS];
    uint64_t count; /* At least the last of cumulative. */
    uint64_t sum;
};

static void take_snapshot(const struct bop_histogram *histogram, struct snapshot *out_snapshot)
{
    uint64_t total = 0;

    /* Relaxed: as in bop_histogram_record(). */
    for (int i = 0; i < BOP_HISTOGRAM_BUCKETS; i++) {
        total += atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
        out_snapshot->cumulative[i] = total;
    }
    out_snapshot->count = bop_max_u64(
        total, atomic_load_explicit(&histogram->count, memory_order_relaxed));
    out_snapshot->sum = atomic_load_explicit(&histogram->sum, memory_order_relaxed);
}

uint64_t bop_histogram_quantile(const struct bop_histogram *histogram, double quantile)
{
    struct snapshot snapshot;

    take_snapshot(histogram, &snapshot);
    if (snapshot.count == 0) {
        return 0;
    }
    for (int i = 0; i < BOP_HISTOGRAM_BUCKETS; i++) {
        if (snapshot.cumulative[i] > 0 &&
            (double)snapshot.cumulative[i] >= quantile * (double)snapshot.count) {
            return UINT64_C(1) << i;
        }
    }
    return UINT64_MAX;
}

/* ---- Writing out ---- */

static void write_text(struct bop_writer *out, const char *text)
{
    bop_write_raw(out, bop_slice_cstr(text));
}

/* HELP is text to the end of the line: backslash and line feed are escaped. */
static void write_help(struct bop_writer *out, const char *help)
{
    for (; *help; help++) {
        if (*help == '\\') {
            write_text(out, "\\\\");
        } else if (*help == '\n') {
            write_text(out, "\\n");
        } else {
            bop_write_u8(out, (uint8_t)*help);
        }
    }
}

/* name_suffix{labels,le="bound"}, the braces only where there is something in them. */
static void write_series_name(struct bop_writer *out, const struct family *family,
                              const char *suffix, const struct series *series, const char *bound)
{
    write_text(out, family->name);
    write_text(out, suffix);
    if (series->labels[0] || bound) {
        write_text(out, "{");
        write_text(out, series->labels);
        if (bound) {
            write_text(out, series->labels[0] ? ",le=\"" : "le=\"");
            write_text(out, bound);
            write_text(out, "\"");
        }
        write_text(out, "}");
    }
}

static void write_unsigned(struct bop_writer *out, const struct family *family, const char *suffix,
                           const struct series *series, const char *bound, uint64_t value)
{
    char text[32];

    write_series_name(out, family, suffix, series, bound);
    snprintf(text, sizeof(text), " %" PRIu64 "\n", value);
    write_text(out, text);
}

static void write_histogram(struct bop_writer *out, const struct family *family,
                            const struct series *series)
{
    struct snapshot snapshot;
    char bound[32];

    take_snapshot(&series->value.histogram, &snapshot);
    for (int i = 0; i < BOP_HISTOGRAM_BUCKETS; i++) {
        snprintf(bound, sizeof(bound), "%" PRIu64, UINT64_C(1) << i);
        write_unsigned(out, family, "_bucket", series, bound, snapshot.cumulative[i]);
    }
    write_unsigned(out, family, "_bucket", series, "+Inf", snapshot.count);
    write_unsigned(out, family, "_sum", series, NULL, snapshot.sum);
    write_unsigned(out, family, "_count", series, NULL, snapshot.count);
}

static void write_metric(struct bop_writer *out, const struct family *family,
                         const struct series *series)
{
    char text[32];

    write_series_name(out, family, "", series, NULL);
    snprintf(text, sizeof(text), " %" PRId64 "\n", bop_metric_get(&series->value.metric));
    write_text(out, text);
}

static void write_family(struct bop_writer *out, const struct family *family)
{
    write_text(out, "# HELP ");
    write_text(out, family->name);
    write_text(out, " ");
    write_help(out, family->help);
    write_text(out, "\n# TYPE ");
    write_text(out, family->name);
    write_text(out, " ");
    write_text(out, type_names[family->type]);
    write_text(out, "\n");

    BOP_LIST_FOR_EACH(link, &family->series) {
        const struct series *series = BOP_CONTAINER_OF(link, struct series, link);

        if (family->type == METRIC_HISTOGRAM) {
            write_histogram(out, family, series);
        } else {
            write_metric(out, family, series);
        }
    }
}

int bop_metrics_write(struct bop_metrics *metrics, struct bop_buf *out_text)
{
    struct bop_writer out = bop_writer(out_text);
    size_t size_before = out_text->size;

    pthread_mutex_lock(&metrics->lock);
    BOP_LIST_FOR_EACH(link, &metrics->families) {
        write_family(&out, BOP_CONTAINER_OF(link, struct family, link));
    }
    pthread_mutex_unlock(&metrics->lock);

    if (out.code != 0) {
        out_text->size = size_before; /* Half a text would be taken for a whole one. */
    }
    return out.code;
}
