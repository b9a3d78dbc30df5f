/*
 * What the tiers say of themselves: counters and gauges, in the registry too, one
 * combined snapshot, and events for the log.
 */
#include <string.h>

#include "internal.h"

/* docs/design/tiers.md lists these with what they mean. */
static const struct {
    const char *name, *help;
} counter_names[BOP__COUNTERS] = {
    [BOP__COUNT_DROPS] = {"bop_aof_tier0_drops_total", "Segments that left tier 0."},
    [BOP__COUNT_PACKS] = {"bop_aof_tier1_compressions_total",
                          "Segments that were packed and verified."},
    [BOP__COUNT_PACK_FAILURES] = {"bop_aof_tier1_compression_failures_total",
                                  "Attempts to pack a segment that failed."},
    [BOP__COUNT_EVICTIONS] = {"bop_aof_tier1_evictions_total", "Segments that left tier 1."},
    [BOP__COUNT_HYDRATIONS] = {"bop_aof_tier1_hydrations_total",
                               "Segments that came back to tier 1."},
    [BOP__COUNT_HYDRATION_FAILURES] = {"bop_aof_tier1_hydration_failures_total",
                                       "Attempts to get a segment back that failed."},
    [BOP__COUNT_UPLOADS] = {"bop_aof_tier2_uploads_total",
                            "Segments that were uploaded and verified."},
    [BOP__COUNT_UPLOAD_FAILURES] = {"bop_aof_tier2_upload_failures_total",
                                    "Attempts to upload a segment that failed."},
    [BOP__COUNT_UPLOAD_RETRIES] = {"bop_aof_tier2_upload_retries_total",
                                   "Attempts to upload a segment after one that failed."},
    [BOP__COUNT_FETCHES] = {"bop_aof_tier2_fetches_total", "Reads of ranges of objects."},
    [BOP__COUNT_FETCH_FAILURES] = {"bop_aof_tier2_fetch_failures_total",
                                   "Reads of ranges of objects that failed."},
    [BOP__COUNT_DELETES] = {"bop_aof_tier2_deletes_total", "Objects that were deleted."},
    [BOP__COUNT_DELETE_FAILURES] = {"bop_aof_tier2_delete_failures_total",
                                    "Attempts to delete an object that failed."},
    [BOP__COUNT_DELETE_RETRIES] = {"bop_aof_tier2_delete_retries_total",
                                   "Attempts to delete an object after one that failed."},
    [BOP__COUNT_PUBLISHES] = {"bop_aof_manifest_publishes_total",
                              "Times the object store got the whole manifest."},
    [BOP__COUNT_PUBLISH_FAILURES] = {"bop_aof_manifest_publish_failures_total",
                                     "Attempts to publish the manifest that failed."},
    [BOP__COUNT_TIER1_LOST] = {"bop_aof_tier1_lost_total",
                               "Packed files that were found missing or bad."},
    [BOP__COUNT_SCRUBBED_BYTES] = {"bop_aof_scrubbed_bytes_total", "Bytes that were verified."},
    [BOP__COUNT_SCRUB_ERRORS] = {"bop_aof_scrub_errors_total",
                                 "Segments of which a bad copy was found."},
};

static const struct {
    const char *name, *labels, *help;
} gauge_names[BOP__GAUGES] = {
    [BOP__GAUGE_TIER0_BYTES] = {"bop_aof_tier0_bytes", NULL, "Sealed segments in tier 0."},
    [BOP__GAUGE_TIER0_WANTED] = {"bop_aof_tier0_activation_queue_depth", NULL,
                                 "Frames that readers wait for."},
    [BOP__GAUGE_TIER0_EVICTIONS] = {"bop_aof_tier0_scheduled_evictions", NULL,
                                    "Segments that the log could not let go of yet."},
    [BOP__GAUGE_TIER1_BYTES] = {"bop_aof_tier1_bytes", NULL, "Packed segments in tier 1."},
    [BOP__GAUGE_TIER1_PACKS] = {"bop_aof_tier1_compression_queue_depth", NULL,
                                "Segments that wait for their packing."},
    [BOP__GAUGE_TIER1_HYDRATIONS] = {"bop_aof_tier1_hydration_queue_depth", NULL,
                                     "Pinned segments that are only in tier 2."},
    [BOP__GAUGE_TIER2_BYTES] = {"bop_aof_tier2_bytes", NULL, "Packed segments in tier 2."},
    [BOP__GAUGE_TIER2_UPLOADS] = {"bop_aof_tier2_upload_queue_depth", NULL,
                                  "Packed segments that wait for their upload."},
    [BOP__GAUGE_TIER2_DELETES] = {"bop_aof_tier2_delete_queue_depth", NULL,
                                  "Objects that are to be deleted and are due."},
    [BOP__GAUGE_TIER2_GRACE] = {"bop_aof_tier2_deletes_in_grace", NULL,
                                "Objects that are to be deleted later."},
    [BOP__GAUGE_CACHE_BYTES] = {"bop_aof_tier_cache_bytes", NULL, "Decompressed frames."},
    [BOP__GAUGE_LEVEL] = {"bop_aof_tier1_compression_level", NULL, "Of zstd, in use now."},
    [BOP__GAUGE_RESIDENCY + BOP_TIERS_TIER0] = {"bop_aof_segments", "residency=\"tier0\"",
                                                "Sealed segments by the first tier that has them."},
    [BOP__GAUGE_RESIDENCY + BOP_TIERS_TIER1] = {"bop_aof_segments", "residency=\"tier1\"", ""},
    [BOP__GAUGE_RESIDENCY + BOP_TIERS_TIER2] = {"bop_aof_segments", "residency=\"tier2\"", ""},
    [BOP__GAUGE_RESIDENCY +
        BOP_TIERS_NEEDS_RECOVERY] = {"bop_aof_segments", "residency=\"needs_recovery\"", ""},
};

void bop__status_init(struct bop_tiers *tiers)
{
    struct bop_metrics *metrics = tiers->options.metrics;

    tiers->latency = &tiers->own_latency;
    if (!metrics) {
        return;
    }
    for (unsigned i = 0; i < BOP__COUNTERS; i++) {
        tiers->counters[i].metric = bop_metrics_counter(metrics, counter_names[i].name, NULL,
                                                        counter_names[i].help);
    }
    for (unsigned i = 0; i < BOP__GAUGES; i++) {
        tiers->gauges[i] = bop_metrics_gauge(metrics, gauge_names[i].name, gauge_names[i].labels,
                                             gauge_names[i].help);
    }
    tiers->latency = bop_metrics_histogram(metrics, "bop_aof_tier1_hydration_latency_us", NULL,
                                           "From asking for a frame to its coming.");
    if (!tiers->latency) {
        tiers->latency = &tiers->own_latency;
    }
}

void bop__count(struct bop_tiers *tiers, enum bop__counter_kind kind, uint64_t amount)
{
    /* Relaxed: a count orders nothing. */
    atomic_fetch_add_explicit(&tiers->counters[kind].value, amount, memory_order_relaxed);
    bop_metric_add(tiers->counters[kind].metric, (int64_t)amount);
}

void bop__tiers_event(const struct bop__tiered *segment, enum bop_log_level level, unsigned tier,
                      const char *event, const char *format, ...)
{
    struct bop_log *log = segment->archive->tiers->options.log;
    char module[16], more[BOP_ERROR_MESSAGE_MAX];
    va_list args;

    if (!log || level < log->level) {
        return;
    }
    va_start(args, format);
    vsnprintf(more, sizeof(more), format, args);
    va_end(args);
    snprintf(module, sizeof(module), "aof.tier%u", tier);
    bop_log(log, level, module, "%s log=%s segment=%" PRIu64 " base=%" PRIu64 "%s%s", event,
            segment->archive->name, segment->facts.generation, segment->facts.base,
            more[0] != '\0' ? " " : "", more);
}

/* ---- The snapshot ---- */

struct sums {
    struct bop_tiers_status *status;
    uint64_t now_ms;
    unsigned wanted, refusing, hydrations;
};

static void add_live(struct sums *sums, const struct bop__tiered *segment)
{
    struct bop_tiers_status *status = sums->status;
    bool objects = segment->archive->tiers->options.objects != NULL;
    bool lower = bop__tiered_is_lower(segment);

    status->segments[bop__tiered_residency(segment)]++;
    status->tier2_bytes += segment->in_tier2 ? segment->packed_bytes : 0;
    status->packs_waiting += !lower && segment->in_tier0;
    status->uploads_waiting += objects && segment->in_tier1 &&
                               (!segment->in_tier2 || segment->bad_tier2);
    sums->refusing += segment->in_tier0 && segment->release_us > 0;
    sums->hydrations += !segment->in_tier0 && !segment->in_tier1 && lower &&
                        bop__tiered_pinned(segment);
}

static void add(struct sums *sums, struct bop__tiered *segment)
{
    struct bop_tiers_status *status = sums->status;
    struct bop_tiers *tiers = segment->archive->tiers;

    pthread_mutex_lock(&tiers->lock);
    sums->wanted += segment->wanted_count;
    pthread_mutex_unlock(&tiers->lock);
    if (!segment->closed) {
        add_live(sums, segment);
    } else if (segment->due_ms > sums->now_ms) {
        status->deletes_in_grace++;
    } else {
        status->deletes_waiting++;
    }
}

static void sum_up(const struct bop_tiers *tiers, struct sums *sums)
{
    sums->now_ms = bop__tiers_wall_ms(tiers);
    BOP_LIST_FOR_EACH(link, &tiers->archives) {
        struct bop__archive *archive = BOP_CONTAINER_OF(link, struct bop__archive, link);

        for (size_t i = 0; i < archive->count; i++) {
            add(sums, archive->segments[i]);
        }
        BOP_LIST_FOR_EACH(at, &archive->dropped) {
            add(sums, BOP_CONTAINER_OF(at, struct bop__tiered, link));
        }
    }
    sums->status->fetches_waiting = sums->wanted;
}

static uint64_t counted(const struct bop_tiers *tiers, enum bop__counter_kind kind)
{
    /* Relaxed: a count orders nothing. */
    return atomic_load_explicit(&tiers->counters[kind].value, memory_order_relaxed);
}

static void fill_counters(const struct bop_tiers *tiers, struct bop_tiers_status *status)
{
    status->packs = counted(tiers, BOP__COUNT_PACKS);
    status->pack_failures = counted(tiers, BOP__COUNT_PACK_FAILURES);
    status->uploads = counted(tiers, BOP__COUNT_UPLOADS);
    status->upload_failures = counted(tiers, BOP__COUNT_UPLOAD_FAILURES);
    status->upload_retries = counted(tiers, BOP__COUNT_UPLOAD_RETRIES);
    status->fetches = counted(tiers, BOP__COUNT_FETCHES);
    status->fetch_failures = counted(tiers, BOP__COUNT_FETCH_FAILURES);
    status->deletes = counted(tiers, BOP__COUNT_DELETES);
    status->delete_failures = counted(tiers, BOP__COUNT_DELETE_FAILURES);
    status->delete_retries = counted(tiers, BOP__COUNT_DELETE_RETRIES);
    status->evictions = counted(tiers, BOP__COUNT_EVICTIONS);
    status->scrubbed_bytes = counted(tiers, BOP__COUNT_SCRUBBED_BYTES);
    status->scrub_errors = counted(tiers, BOP__COUNT_SCRUB_ERRORS);
}

void bop_tiers_status(const struct bop_tiers *tiers, struct bop_tiers_status *out_status)
{
    struct sums sums = {.status = out_status};

    *out_status = (struct bop_tiers_status){
        .tier0_bytes = tiers->tier0_bytes,
        .tier1_bytes = tiers->tier1_bytes,
        .cache_bytes = bop__frame_cache_bytes(tiers->cache),
        .hydration_us_p50 = bop_histogram_quantile(tiers->latency, 0.5),
        .hydration_us_p90 = bop_histogram_quantile(tiers->latency, 0.9),
        .hydration_us_p99 = bop_histogram_quantile(tiers->latency, 0.99),
        .level = bop__tiers_level(tiers),
        .last_error = tiers->last_error,
    };
    memcpy(out_status->message, tiers->message, sizeof(out_status->message));
    fill_counters(tiers, out_status);
    sum_up(tiers, &sums);
}

void bop__status_gauges(struct bop_tiers *tiers)
{
    struct bop_tiers_status status = {0};
    struct sums sums = {.status = &status};

    if (!tiers->options.metrics) {
        return;
    }
    sum_up(tiers, &sums);
    const uint64_t values[BOP__GAUGE_RESIDENCY] = {
        [BOP__GAUGE_TIER0_BYTES] = tiers->tier0_bytes,
        [BOP__GAUGE_TIER0_WANTED] = sums.wanted,
        [BOP__GAUGE_TIER0_EVICTIONS] = sums.refusing,
        [BOP__GAUGE_TIER1_BYTES] = tiers->tier1_bytes,
        [BOP__GAUGE_TIER1_PACKS] = status.packs_waiting,
        [BOP__GAUGE_TIER1_HYDRATIONS] = sums.hydrations,
        [BOP__GAUGE_TIER2_BYTES] = status.tier2_bytes,
        [BOP__GAUGE_TIER2_UPLOADS] = status.uploads_waiting,
        [BOP__GAUGE_TIER2_DELETES] = status.deletes_waiting,
        [BOP__GAUGE_TIER2_GRACE] = status.deletes_in_grace,
        [BOP__GAUGE_CACHE_BYTES] = bop__frame_cache_bytes(tiers->cache),
        [BOP__GAUGE_LEVEL] = (uint64_t)(int64_t)bop__tiers_level(tiers),
    };
    for (unsigned i = 0; i < BOP__GAUGE_RESIDENCY; i++) {
        bop_metric_set(tiers->gauges[i], (int64_t)values[i]);
    }
    for (unsigned i = 0; i < BOP_TIERS_RESIDENCIES; i++) {
        bop_metric_set(tiers->gauges[BOP__GAUGE_RESIDENCY + i], (int64_t)status.segments[i]);
    }
}
