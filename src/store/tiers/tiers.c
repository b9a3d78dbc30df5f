/*
 * The tiers as their owner sees them: create, poll, destroy; the back-off that
 * everything shares; pins.
 */
#include <string.h>

#include <bop/error.h>
#include <bop/mem.h>

#include "internal.h"

#define GIB (UINT64_C(1) << 30)

uint64_t bop__tiers_now_us(const struct bop_tiers *tiers)
{
    return bop_clock_monotonic_us(tiers->options.clock);
}

uint64_t bop__tiers_wall_ms(const struct bop_tiers *tiers)
{
    return bop_clock_wall_ms(tiers->options.clock);
}

void bop__tiers_wake(struct bop_tiers *tiers)
{
    /* Release pairs with the acquire in poll: the plan sees what changed before. */
    if (!atomic_exchange_explicit(&tiers->dirty, true, memory_order_release) &&
        tiers->options.notify) {
        tiers->options.notify(tiers->options.user);
    }
}

/* ---- The back-off ---- */

/* Half of the doubled time is fixed, half is jitter: so that those that failed together
 * do not come back together. What trying again does not mend is tried at the slowest pace. */
static uint64_t delay_ms(struct bop_tiers *tiers, unsigned attempts, int code)
{
    uint64_t delay = tiers->options.retry_ms;

    if (code == BOP_EDENIED || code == BOP_ECONFIG || code == BOP_EMISMATCH) {
        delay = BOP__RETRY_MAX_MS;
    }
    for (unsigned i = 1; i < attempts && delay < BOP__RETRY_MAX_MS; i++) {
        delay *= 2;
    }
    delay = bop_min_u64(delay, bop_max_u64(BOP__RETRY_MAX_MS, tiers->options.retry_ms));
    return delay - delay / 2 + bop_random_below(&tiers->random, delay / 2 + 1);
}

void bop__retry_failed(struct bop_tiers *tiers, struct bop__retry *retry,
                       const struct bop_error *err)
{
    if (retry->attempts == 0) {
        tiers->failing++;
    }
    retry->attempts += retry->attempts < UINT32_MAX;
    retry->at_us = bop__tiers_now_us(tiers) + delay_ms(tiers, retry->attempts, err->code) * 1000;
    tiers->last_error = err->code;
    snprintf(tiers->message, sizeof(tiers->message), "%.*s", (int)sizeof(tiers->message) - 1,
             err->message[0] != '\0' ? err->message : bop_strerror(err->code));
}

void bop__retry_over(struct bop_tiers *tiers, struct bop__retry *retry)
{
    if (retry->attempts == 0) {
        return;
    }
    *retry = (struct bop__retry){0};
    tiers->failing--;
    if (tiers->failing == 0) {
        tiers->last_error = 0;
        tiers->message[0] = '\0';
    }
}

/* ---- Create ---- */

bool bop__tiers_is_plain(const char *text)
{
    size_t size = strlen(text);

    if (size == 0 || size > BOP__NAME_MAX || text[0] == '/' || text[size - 1] == '/') {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return false;
        }
    }
    return true;
}

static int check_options(const struct bop_tiers_options *options, struct bop_error *err)
{
    if (options->workers > BOP_TIERS_WORKERS_MAX ||
        options->executor_count > BOP_TIERS_WORKERS_MAX) {
        return bop_error_say(err, BOP_EINVAL, "at most %d workers", BOP_TIERS_WORKERS_MAX);
    }
    if (options->frame_bytes > 0 && (options->frame_bytes < BOP__WARM_FRAME_MIN ||
                                     options->frame_bytes > BOP__WARM_FRAME_MAX)) {
        return bop_error_say(err, BOP_EINVAL, "frame_bytes must be %u to %u", BOP__WARM_FRAME_MIN,
                             BOP__WARM_FRAME_MAX);
    }
    if (options->dictionary_bytes > BOP__WARM_DICTIONARY_MAX) {
        return bop_error_say(err, BOP_EINVAL, "dictionary_bytes must be at most %u",
                             BOP__WARM_DICTIONARY_MAX);
    }
    if (options->prefix && !bop__tiers_is_plain(options->prefix)) {
        return bop_error_say(err, BOP_EINVAL,
                             "the prefix must be 1 to %u printable characters without a space, and "
                             "with no slash at its ends",
                             BOP__NAME_MAX);
    }
    return 0;
}

static void set_default(uint64_t *value, uint64_t otherwise)
{
    if (*value == 0) {
        *value = otherwise;
    }
}

static void set_defaults(struct bop_tiers_options *options)
{
    options->fs = options->fs ? options->fs : bop_fs_real();
    options->clock = options->clock ? options->clock : bop_clock_system();
    options->workers = options->workers > 0 ? options->workers : 4;
    options->level = options->level != 0 ? options->level : 1;
    options->frame_bytes = options->frame_bytes > 0 ? options->frame_bytes : 65536;
    options->read_ahead = options->read_ahead > 0 ? options->read_ahead : 4;
    set_default(&options->tier0_bytes, 2 * GIB);
    set_default(&options->tier1_bytes, 8 * GIB);
    set_default(&options->cache_bytes, 64u * 1024 * 1024);
    set_default(&options->delete_grace_ms, 60000);
    set_default(&options->retry_ms, 100);
}

static int create_lanes(struct bop_tiers *tiers)
{
    struct bop_lane_options options = {.allocator = tiers->options.allocator,
                                       .name = "bop-tiers",
                                       .notify = tiers->options.notify,
                                       .user = tiers->options.user};

    for (unsigned i = 0; i < tiers->job_count; i++) {
        int rc = bop_lane_create(&options, &tiers->lanes[i]);

        if (rc < 0) {
            return rc;
        }
        tiers->jobs[i].executor = bop_lane_executor(tiers->lanes[i]);
    }
    return 0;
}

static void notify_nobody(void *user)
{
    BOP_IGNORE(user);
}

static int create_jobs(struct bop_tiers *tiers)
{
    const struct bop_tiers_options *options = &tiers->options;

    tiers->job_count = options->executor_count > 0 ? (unsigned)options->executor_count
                                                   : options->workers;
    tiers->jobs = bop_alloc_array(tiers->allocator, tiers->job_count, sizeof(*tiers->jobs));
    if (!tiers->jobs) {
        return BOP_ENOMEM;
    }
    for (unsigned i = 0; i < tiers->job_count; i++) {
        tiers->jobs[i].tiers = tiers;
    }
    for (unsigned i = 0; i < options->executor_count; i++) {
        tiers->jobs[i].executor = options->executors[i];
    }
    return options->executor_count > 0 ? 0 : create_lanes(tiers);
}

int bop_tiers_create(const struct bop_tiers_options *options, struct bop_tiers **out_tiers,
                     struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "store.tiers");
    struct bop_tiers *tiers;
    int rc;

    rc = check_options(options, err);
    if (rc < 0) {
        return rc;
    }
    tiers = bop_alloc_zeroed(allocator, sizeof(*tiers));
    if (!tiers) {
        return bop_error_set(err, BOP_ENOMEM, "create tiers");
    }
    tiers->allocator = allocator;
    tiers->options = *options;
    set_defaults(&tiers->options);
    if (!tiers->options.notify) {
        tiers->options.notify = notify_nobody;
    }
    bop_list_init(&tiers->archives);
    bop_random_seed(&tiers->random, options->seed);
    pthread_mutex_init(&tiers->lock, NULL);
    pthread_cond_init(&tiers->get_ended, NULL);
    bop__status_init(tiers);

    options = &tiers->options;
    tiers->prefix = bop_alloc(allocator, BOP__NAME_MAX + 1);
    rc = tiers->prefix ? 0 : BOP_ENOMEM;
    if (rc == 0) {
        snprintf(tiers->prefix, BOP__NAME_MAX + 1, "%s", options->prefix ? options->prefix : "aof");
        rc = bop__frame_cache_create(options->allocator, options->cache_bytes, &tiers->cache);
    }
    if (rc == 0) {
        rc = create_jobs(tiers);
    }
    if (rc < 0) {
        bop_tiers_destroy(tiers);
        return bop_error_set(err, rc, "create tiers");
    }
    *out_tiers = tiers;
    return 0;
}

void bop_tiers_destroy(struct bop_tiers *tiers)
{
    if (!tiers) {
        return;
    }
    for (unsigned i = 0; i < BOP_TIERS_WORKERS_MAX; i++) {
        bop_lane_destroy(tiers->lanes[i]);
    }
    BOP_ASSERT(tiers->busy == 0 && bop_list_empty(&tiers->archives));
    if (tiers->jobs) {
        bop_free(tiers->allocator, tiers->jobs, tiers->job_count * sizeof(*tiers->jobs));
    }
    bop__frame_cache_destroy(tiers->cache);
    if (tiers->prefix) {
        bop_free(tiers->allocator, tiers->prefix, BOP__NAME_MAX + 1);
    }
    pthread_cond_destroy(&tiers->get_ended);
    pthread_mutex_destroy(&tiers->lock);
    bop_free(tiers->allocator, tiers, sizeof(*tiers));
}

/* ---- Poll ---- */

static void deliver(struct bop_tiers *tiers)
{
    BOP_LIST_FOR_EACH_SAFE(link, &tiers->archives) {
        bop__archive_deliver(BOP_CONTAINER_OF(link, struct bop__archive, link));
    }
}

uint64_t bop_tiers_poll(struct bop_tiers *tiers)
{
    uint64_t next_us, now_us;

    BOP_ASSERT(!tiers->polling); /* Not from a call to the log. */
    tiers->polling = true;
    for (unsigned i = 0; i < tiers->job_count; i++) {
        if (tiers->lanes[i]) {
            bop_lane_poll(tiers->lanes[i]);
        }
    }
    do {
        /* Acquire pairs with the release in wake. */
        atomic_exchange_explicit(&tiers->dirty, false, memory_order_acquire);
        deliver(tiers);
        next_us = bop__tiers_plan(tiers);
        /* Relaxed: a wake that is missed here has notified. */
    } while (atomic_load_explicit(&tiers->dirty, memory_order_relaxed));
    bop__status_gauges(tiers);
    tiers->polling = false;

    now_us = bop__tiers_now_us(tiers);
    if (next_us == UINT64_MAX) {
        return UINT64_MAX;
    }
    return next_us > now_us ? (next_us - now_us + 999) / 1000 : 0;
}

bool bop_tiers_busy(const struct bop_tiers *tiers)
{
    /* Relaxed: whoever wants to know what a wake was about polls. */
    return tiers->busy > 0 || atomic_load_explicit(&tiers->dirty, memory_order_relaxed);
}

/* ---- Pins ---- */

static struct bop__archive *archive_of(struct bop_tiers *tiers, const struct bop_aof *aof)
{
    BOP_LIST_FOR_EACH(link, &tiers->archives) {
        struct bop__archive *archive = BOP_CONTAINER_OF(link, struct bop__archive, link);

        if (archive->log == aof && !archive->closed) {
            return archive;
        }
    }
    return NULL;
}

int bop_tiers_pin(struct bop_tiers *tiers, struct bop_aof *aof, uint64_t first_seq,
                  uint64_t last_seq)
{
    struct bop__archive *archive = archive_of(tiers, aof);
    struct bop__pin *pin;

    if (!archive) {
        return BOP_ENOTFOUND;
    }
    pin = bop_alloc(tiers->allocator, sizeof(*pin));
    if (!pin) {
        return BOP_ENOMEM;
    }
    pin->first_seq = first_seq;
    pin->last_seq = last_seq;
    bop_list_push_back(&archive->pins, &pin->link);
    bop__tiers_wake(tiers);
    return 0;
}

int bop_tiers_unpin(struct bop_tiers *tiers, struct bop_aof *aof, uint64_t first_seq,
                    uint64_t last_seq)
{
    struct bop__archive *archive = archive_of(tiers, aof);

    if (!archive) {
        return BOP_ENOTFOUND;
    }
    BOP_LIST_FOR_EACH(link, &archive->pins) {
        struct bop__pin *pin = BOP_CONTAINER_OF(link, struct bop__pin, link);

        if (pin->first_seq == first_seq && pin->last_seq == last_seq) {
            bop_list_remove(&pin->link);
            bop_free(tiers->allocator, pin, sizeof(*pin));
            bop__tiers_wake(tiers);
            return 0;
        }
    }
    return BOP_ENOTFOUND;
}

bool bop__tiered_pinned(const struct bop__tiered *segment)
{
    BOP_LIST_FOR_EACH(link, &segment->archive->pins) {
        const struct bop__pin *pin = BOP_CONTAINER_OF(link, struct bop__pin, link);

        if (pin->first_seq < segment->facts.end_seq && pin->last_seq >= segment->facts.base) {
            return true;
        }
    }
    return false;
}

int bop_tiers_segments(struct bop_tiers *tiers, struct bop_aof *aof,
                       int (*fn)(void *user, const struct bop_tiers_segment *segment), void *user)
{
    struct bop__archive *archive = archive_of(tiers, aof);
    int rc = 0;

    if (!archive) {
        return BOP_ENOTFOUND;
    }
    for (size_t i = 0; rc == 0 && i < archive->count; i++) {
        const struct bop__tiered *at = archive->segments[i];
        struct bop_tiers_segment segment = {.base = at->facts.base,
                                            .end_seq = at->facts.end_seq,
                                            .generation = at->facts.generation,
                                            .bytes = at->facts.size,
                                            .packed_bytes = at->packed_bytes,
                                            .first_time_us = at->facts.first_time_us,
                                            .last_time_us = at->facts.last_time_us,
                                            .residency = bop__tiered_residency(at),
                                            .in_tier0 = at->in_tier0,
                                            .in_tier1 = at->in_tier1,
                                            .in_tier2 = at->in_tier2 && !at->bad_tier2,
                                            .pinned = bop__tiered_pinned(at),
                                            .delete_queued = at->delete_queued,
                                            .key = at->in_tier2 ? at->key : NULL};

        memcpy(segment.root, at->facts.root, sizeof(segment.root));
        rc = fn(user, &segment);
    }
    return rc;
}
