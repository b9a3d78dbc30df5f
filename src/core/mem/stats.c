/*
 * Statistics: the threads' counts summed, as structs and as text.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bop/mem.h>

#include "tag.h"

#ifdef BOP_HAVE_MIMALLOC
#include <mimalloc.h>
#endif

#define LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)

/* -- Summing ----------------------------------------------------------------------------------- */

/* What frees have not caught up with, or counted twice, while operations are under way. */
static uint64_t not_negative(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Since the start of the process. Under bop__mem_lock. Returns what the threads were at most above
 * what they have flushed. */
static int64_t sum_threads(const struct bop__tag *tag, struct bop_tag_stats *out_sum)
{
    int64_t above = 0;

    memset(out_sum, 0, sizeof(*out_sum));
    BOP__MEM_FOR_EACH(thread)
    {
        const struct bop__tag_counts *counts = &thread->tags[tag->index];
        /* What was freed before what was allocated, lest the difference be negative. */
        uint64_t deallocations = LOAD(counts->deallocations);
        uint64_t deallocated = LOAD(counts->bytes_deallocated);

        out_sum->deallocations += deallocations;
        out_sum->bytes_deallocated += deallocated;
        out_sum->allocations += LOAD(counts->allocations);
        out_sum->bytes_allocated += LOAD(counts->bytes_allocated);
        if (!bop__mem_is_direct(thread) && LOAD(counts->high) > LOAD(counts->flushed)) {
            above += LOAD(counts->high) - LOAD(counts->flushed);
        }
    }
    out_sum->live_allocations = not_negative(out_sum->allocations, out_sum->deallocations);
    out_sum->live_bytes = not_negative(out_sum->bytes_allocated, out_sum->bytes_deallocated);
    return above;
}

/* Once told, a peak does not fall. */
static uint64_t peak_at_least(_Atomic int64_t *peak, int64_t value)
{
    int64_t seen = LOAD(*peak);

    while (seen < value && !atomic_compare_exchange_weak_explicit(
                               peak, &seen, value, memory_order_relaxed, memory_order_relaxed)) {
    }
    return (uint64_t)bop_max_u64((uint64_t)(seen > value ? seen : value), 0);
}

/* Under bop__mem_lock. */
static void tag_stats(struct bop__tag *tag, struct bop_tag_stats *out)
{
    int64_t above = sum_threads(tag, out);
    int64_t highest = LOAD(tag->live) + above;

    if (highest < (int64_t)out->live_bytes) {
        highest = (int64_t)out->live_bytes;
    }
    out->peak_bytes = peak_at_least(&tag->peak, highest);
    out->allocations -= tag->base.allocations;
    out->deallocations -= tag->base.deallocations;
    out->bytes_allocated -= tag->base.bytes_allocated;
    out->bytes_deallocated -= tag->base.bytes_deallocated;
    out->limit_bytes = LOAD(tag->limit);
    memcpy(out->name, tag->name, sizeof(out->name));
}

static void add(struct bop_tag_stats *total, const struct bop_tag_stats *tag)
{
    total->allocations += tag->allocations;
    total->deallocations += tag->deallocations;
    total->bytes_allocated += tag->bytes_allocated;
    total->bytes_deallocated += tag->bytes_deallocated;
    total->live_allocations += tag->live_allocations;
    total->live_bytes += tag->live_bytes;
}

/* The second number of statm, in pages. */
static uint64_t resident_bytes(void)
{
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    char text[128];
    ssize_t size = 0;
    char *rest;

    if (fd >= 0) {
        size = read(fd, text, sizeof(text) - 1);
        close(fd);
    }
    if (size <= 0) {
        return 0;
    }
    text[size] = '\0';
    strtoull(text, &rest, 10);
    return strtoull(rest, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t committed_bytes(void)
{
#ifdef BOP_HAVE_MIMALLOC
    if (!bop__mem_foreign) {
        size_t elapsed, user, system, rss, rss_peak, commit = 0, commit_peak, faults;

        mi_process_info(&elapsed, &user, &system, &rss, &rss_peak, &commit, &commit_peak, &faults);
        return commit;
    }
#endif
    return 0;
}

void bop_mem_stats(struct bop_mem_stats *out_stats)
{
    unsigned count = bop__tag_count();

    memset(out_stats, 0, sizeof(*out_stats));
    out_stats->resident_bytes = resident_bytes();
    out_stats->committed_bytes = committed_bytes();
    out_stats->tag_count = count;
    memcpy(out_stats->total.name, "total", sizeof("total"));
    pthread_mutex_lock(&bop__mem_lock);
    for (unsigned i = 0; i < count; i++) {
        tag_stats(&bop__tags[i], &out_stats->tags[i]);
        add(&out_stats->total, &out_stats->tags[i]);
    }
    out_stats->total.peak_bytes = peak_at_least(&bop__total_peak,
                                                (int64_t)out_stats->total.live_bytes);
    pthread_mutex_unlock(&bop__mem_lock);
}

void bop_mem_stats_reset(void)
{
    unsigned count = bop__tag_count();
    uint64_t total = 0;

    pthread_mutex_lock(&bop__mem_lock);
    for (unsigned i = 0; i < count; i++) {
        struct bop__tag *tag = &bop__tags[i];

        BOP__MEM_FOR_EACH(thread)
        {
            struct bop__tag_counts *counts = &thread->tags[i];
            int64_t live = (int64_t)(LOAD(counts->bytes_allocated) -
                                     LOAD(counts->bytes_deallocated));

            /* The owner's: what it writes at the same time is no older. */
            atomic_store_explicit(&counts->high, live, memory_order_relaxed);
            bop__tag_flush(thread, tag);
        }
        BOP_IGNORE(sum_threads(tag, &tag->base));
        atomic_store_explicit(&tag->peak, (int64_t)tag->base.live_bytes, memory_order_relaxed);
        total += tag->base.live_bytes;
    }
    atomic_store_explicit(&bop__total_peak, (int64_t)total, memory_order_relaxed);
    pthread_mutex_unlock(&bop__mem_lock);
}

/* -- As text ----------------------------------------------------------------------------------- */

void bop_mem_stats_line(const struct bop_tag_stats *stats, char *text, size_t text_size)
{
    BOP_IGNORE(snprintf(text, text_size,
                        "%s: live %" PRIu64 " bytes in %" PRIu64 " blocks, peak %" PRIu64
                        " bytes, %" PRIu64 " allocations, %" PRIu64 " deallocations, %s",
                        stats->name, stats->live_bytes, stats->live_allocations, stats->peak_bytes,
                        stats->allocations, stats->deallocations,
                        stats->live_allocations ? "leaks" : "no leaks"));
}

static int stream_code(FILE *out)
{
    if (fflush(out) == 0 && !ferror(out)) {
        return 0;
    }
    return errno ? -errno : -EIO;
}

static void json_tag(const struct bop_tag_stats *stats, FILE *out)
{
    fprintf(out,
            "\"%s\":{\"allocations\":%" PRIu64 ",\"deallocations\":%" PRIu64
            ",\"bytes_allocated\":%" PRIu64 ",\"bytes_deallocated\":%" PRIu64
            ",\"live_allocations\":%" PRIu64 ",\"live_bytes\":%" PRIu64 ",\"peak_bytes\":%" PRIu64
            ",\"limit_bytes\":%" PRIu64 "}",
            stats->name, stats->allocations, stats->deallocations, stats->bytes_allocated,
            stats->bytes_deallocated, stats->live_allocations, stats->live_bytes, stats->peak_bytes,
            stats->limit_bytes);
}

int bop_mem_stats_json(const struct bop_mem_stats *stats, FILE *out)
{
    errno = 0;
    fprintf(out, "{\"resident_bytes\":%" PRIu64 ",\"committed_bytes\":%" PRIu64 ",",
            stats->resident_bytes, stats->committed_bytes);
    json_tag(&stats->total, out);
    fputs(",\"tags\":{", out);
    for (size_t i = 0; i < stats->tag_count; i++) {
        fputs(i ? "," : "", out);
        json_tag(&stats->tags[i], out);
    }
    fputs("}}", out);
    return stream_code(out);
}

struct metric {
    const char *name;
    const char *type;
    const char *help;
    size_t offset;
};

static const struct metric metrics[] = {
    {"bop_memory_live_bytes", "gauge", "Bytes allocated and not freed.",
     offsetof(struct bop_tag_stats, live_bytes)},
    {"bop_memory_peak_bytes", "gauge", "The most live bytes since the start.",
     offsetof(struct bop_tag_stats, peak_bytes)},
    {"bop_memory_limit_bytes", "gauge", "Live bytes that are not exceeded; 0: no limit.",
     offsetof(struct bop_tag_stats, limit_bytes)},
    {"bop_memory_allocations_total", "counter", "Allocations.",
     offsetof(struct bop_tag_stats, allocations)},
    {"bop_memory_deallocations_total", "counter", "Deallocations.",
     offsetof(struct bop_tag_stats, deallocations)},
    {"bop_memory_allocated_bytes_total", "counter", "Bytes allocated.",
     offsetof(struct bop_tag_stats, bytes_allocated)},
};

int bop_mem_stats_prometheus(const struct bop_mem_stats *stats, FILE *out)
{
    errno = 0;
    fprintf(out,
            "# HELP bop_memory_resident_bytes Memory of the process that is resident.\n"
            "# TYPE bop_memory_resident_bytes gauge\n"
            "bop_memory_resident_bytes %" PRIu64 "\n",
            stats->resident_bytes);
    for (size_t i = 0; i < BOP_COUNT_OF(metrics); i++) {
        fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", metrics[i].name, metrics[i].help,
                metrics[i].name, metrics[i].type);
        for (size_t j = 0; j < stats->tag_count; j++) {
            uint64_t value;

            memcpy(&value, (const char *)&stats->tags[j] + metrics[i].offset, sizeof(value));
            fprintf(out, "%s{tag=\"%s\"} %" PRIu64 "\n", metrics[i].name, stats->tags[j].name,
                    value);
        }
    }
    return stream_code(out);
}
