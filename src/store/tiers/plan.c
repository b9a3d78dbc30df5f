/*
 * What to do next: one walk over all segments finds the most urgent task of each
 * kind, and as many are begun as there are executors for.
 */
#include "internal.h"

struct choice {
    struct bop__archive *archive;
    struct bop__tiered *segment;
};

struct plan {
    struct bop_tiers *tiers;
    uint64_t now_us;
    uint64_t next_us;
    unsigned packs_waiting;
    bool offered; /* There is something to do for the log that is looked at. */
    struct choice choices[BOP__JOBS];
};

static bool is_due(struct plan *plan, const struct bop__retry *retry)
{
    if (retry->at_us <= plan->now_us) {
        return true;
    }
    plan->next_us = bop_min_u64(plan->next_us, retry->at_us);
    return false;
}

static void offer(struct plan *plan, enum bop__job_kind kind, struct bop__archive *archive,
                  struct bop__tiered *segment, const struct bop__retry *retry)
{
    if (!is_due(plan, retry)) {
        return;
    }
    plan->offered = true;
    if (!plan->choices[kind].archive) {
        plan->choices[kind] = (struct choice){archive, segment};
    }
}

/* ---- What a segment needs ---- */

/* What failed is not to be done any more: it was evicted, unpinned, or has no reader now. */
static void forgive(struct plan *plan, struct bop__retry *retry)
{
    if (retry->attempts > 0 && is_due(plan, retry)) {
        bop__retry_over(plan->tiers, retry);
    }
}

static void lost_tier1(struct bop__tiered *segment)
{
    bop__count(segment->archive->tiers, BOP__COUNT_TIER1_LOST, 1);
    bop__tiered_set_tier1(segment, false, segment->packed_bytes);
    /* Where no other tier has it the bad file stays: some of it may be of use. */
    segment->bad_file = segment->in_tier2 && !segment->bad_tier2;
    bop__tiers_event(segment, BOP_LOG_WARN, 1, "tier1_file_bad", "%s",
                     segment->bad_file   ? "tier 2 has the segment"
                     : segment->in_tier0 ? "it is packed again"
                                         : "no tier has the segment");
}

static void lost_tier2(struct bop__tiered *segment)
{
    struct bop_tiers *tiers = segment->archive->tiers;

    pthread_mutex_lock(&tiers->lock);
    segment->bad_tier2 = true;
    segment->archive->stale = true;
    segment->suspect2 = false;
    pthread_mutex_unlock(&tiers->lock);
    bop__tiers_event(segment, BOP_LOG_ERROR, 2, "tier2_object_bad", "key=%s %s", segment->key,
                     segment->in_tier1 || segment->in_tier0 ? "it is put again"
                                                            : "no tier has the segment");
}

/* What readers met and asked for, as it was under the lock. */
static void hear_readers(struct plan *plan, struct bop__tiered *segment)
{
    struct bop_tiers *tiers = plan->tiers;
    bool suspect1, suspect2, wanted, ahead;

    pthread_mutex_lock(&tiers->lock);
    suspect1 = segment->suspect1;
    suspect2 = segment->suspect2;
    wanted = segment->wanted_count > 0;
    ahead = segment->prefetch_bytes > 0;
    pthread_mutex_unlock(&tiers->lock);

    if (suspect1 && segment->in_tier1 && !segment->busy) {
        lost_tier1(segment);
    }
    if (suspect2 && !segment->bad_tier2) {
        lost_tier2(segment);
    }
    if (!segment->fetching && !wanted && !ahead) {
        forgive(plan, &segment->retries[BOP__RETRY_FETCH]);
    }
    if (!segment->fetching && wanted) {
        offer(plan, BOP__JOB_FETCH, segment->archive, segment, &segment->retries[BOP__RETRY_FETCH]);
    }
    if (!segment->fetching && ahead) {
        offer(plan, BOP__JOB_PREFETCH, segment->archive, segment,
              &segment->retries[BOP__RETRY_FETCH]);
    }
}

static void want_removal(struct plan *plan, struct bop__tiered *segment)
{
    struct bop__archive *archive = segment->archive;
    bool objects = plan->tiers->options.objects != NULL;

    if (segment->delete_queued && !(objects && archive->claimed)) {
        return; /* There is an object, and nobody to remove it. */
    }
    if (segment->delete_queued && archive->published < segment->queued_version) {
        archive->urgent = true;
        return;
    }
    if (!segment->say_deleted && (segment->delete_queued || segment->dropped) &&
        is_due(plan, &segment->retries[BOP__RETRY_REMOTE]) &&
        bop__tiered_removable(segment, &plan->next_us)) {
        offer(plan, BOP__JOB_REMOVE, archive, segment, &segment->retries[BOP__RETRY_REMOTE]);
    }
}

static void want_scrub(struct plan *plan, struct bop__tiered *segment)
{
    struct choice *choice = &plan->choices[BOP__JOB_SCRUB];
    struct bop_tiers *tiers = plan->tiers;

    if (tiers->options.scrub_bytes_per_s == 0 || (!segment->in_tier1 && !segment->in_tier2)) {
        return;
    }
    if (tiers->running[BOP__JOB_SCRUB] > 0) {
        return;
    }
    if (tiers->scrub_us > plan->now_us) {
        plan->next_us = bop_min_u64(plan->next_us, tiers->scrub_us);
    } else if (is_due(plan, &segment->retries[BOP__RETRY_LOCAL]) &&
               (!choice->archive || segment->scrubbed < choice->segment->scrubbed)) {
        *choice = (struct choice){segment->archive, segment};
    }
}

static void rest(struct plan *plan, struct bop__tiered *segment)
{
    const struct bop_tiers_options *options = &plan->tiers->options;

    forgive(plan, &segment->retries[BOP__RETRY_REMOTE]);
    if (plan->tiers->tier1_bytes <= options->tier1_bytes && options->scrub_bytes_per_s == 0) {
        forgive(plan, &segment->retries[BOP__RETRY_LOCAL]);
    }
    want_scrub(plan, segment);
}

/* The next move of a segment. */
static void weigh(struct plan *plan, struct bop__tiered *segment)
{
    struct bop__archive *archive = segment->archive;
    const struct bop__retry *local = &segment->retries[BOP__RETRY_LOCAL];
    const struct bop__retry *remote = &segment->retries[BOP__RETRY_REMOTE];

    hear_readers(plan, segment);
    if (segment->busy) {
        return;
    }
    if (segment->closed) {
        want_removal(plan, segment);
    } else if (!segment->recorded) {
        plan->packs_waiting += !segment->refused;
    } else if (segment->bad_file) {
        offer(plan, BOP__JOB_EVICT, archive, segment, local);
    } else if (!bop__tiered_is_lower(segment) && segment->in_tier0) {
        plan->packs_waiting++;
        offer(plan, BOP__JOB_PACK, archive, segment, local);
    } else if (archive->claimed && segment->in_tier1 &&
               (!segment->in_tier2 || segment->bad_tier2)) {
        offer(plan, BOP__JOB_UPLOAD, archive, segment, remote);
    } else if (!segment->in_tier0 && !segment->in_tier1 && bop__tiered_is_lower(segment) &&
               bop__tiered_pinned(segment)) {
        offer(plan, BOP__JOB_HYDRATE, archive, segment, remote);
    } else {
        rest(plan, segment);
    }
}

/* ---- What a log needs ---- */

/* True if there is something to record of a segment, for which out_record is made. */
static bool needs_record(struct plan *plan, struct bop__tiered *segment, bool first,
                         struct bop__manifest_record *out_record)
{
    bool objects = plan->tiers->options.objects != NULL;

    *out_record = (struct bop__manifest_record){.generation = segment->facts.generation};
    if (segment->busy || segment->refused) {
        return false;
    }
    if (!segment->recorded && !segment->dropped) {
        if (bop__archive_is_dropped(segment->archive, segment->facts.generation)) {
            return false;
        }
        out_record->kind = BOP__MANIFEST_SEAL_SEGMENT;
        out_record->facts = segment->facts;
        return true;
    }
    if (segment->say_evicted && !segment->closed) {
        out_record->kind = BOP__MANIFEST_LOCAL_EVICTED;
        out_record->packed_bytes = segment->facts.size;
        return true;
    }
    if (segment->say_deleted && (segment->in_tier2 || segment->uploading)) {
        out_record->kind = BOP__MANIFEST_TIER2_DELETE_QUEUED;
        out_record->key = segment->key;
        out_record->due_ms = segment->due_ms;
        return true;
    }
    /* All below a number are dropped at once: one after the other, the oldest first. */
    if (segment->say_deleted && !objects && first &&
        bop__tiered_removable(segment, &plan->next_us)) {
        out_record->kind = BOP__MANIFEST_TRUNCATED;
        out_record->first_seq = segment->facts.end_seq;
        out_record->last_seq = UINT64_MAX;
        return true;
    }
    return false;
}

static void want_record(struct plan *plan, struct bop__archive *archive)
{
    struct bop__manifest_record record;
    bool needed = false;

    if (archive->recording) {
        return;
    }
    for (size_t i = 0; i < archive->count && !needed; i++) {
        needed = needs_record(plan, archive->segments[i], i == 0, &record);
    }
    BOP_LIST_FOR_EACH(link, &archive->dropped) {
        needed = needed || needs_record(plan, BOP_CONTAINER_OF(link, struct bop__tiered, link),
                                        false, &record);
    }
    if (needed) {
        offer(plan, BOP__JOB_RECORD, archive, NULL, &archive->record_retry);
    }
}

static void want_publish(struct plan *plan, struct bop__archive *archive)
{
    bool changed = archive->version > archive->published || !archive->claimed;

    if (plan->tiers->options.objects && !archive->publishing && changed &&
        (archive->urgent || (archive->jobs == 0 && !plan->offered))) {
        offer(plan, BOP__JOB_PUBLISH, archive, NULL, &archive->publish_retry);
    }
}

static void weigh_archive(struct plan *plan, struct bop__archive *archive)
{
    if (archive->closed) {
        return;
    }
    plan->offered = false;
    if (archive->missed != 0) {
        plan->next_us = bop_min_u64(plan->next_us, archive->missed_retry.at_us);
    }
    want_record(plan, archive);
    for (size_t i = 0; i < archive->count; i++) {
        weigh(plan, archive->segments[i]);
    }
    BOP_LIST_FOR_EACH(link, &archive->dropped) {
        weigh(plan, BOP_CONTAINER_OF(link, struct bop__tiered, link));
    }
    want_publish(plan, archive);
}

/* ---- Begin ---- */

int bop__tiers_level(const struct bop_tiers *tiers)
{
    static const struct {
        unsigned waiting; /* More than this a worker: */
        int level;
    } steps[] = {{8, -5}, {4, -3}, {2, -1}};

    for (size_t i = 0; i < BOP_COUNT_OF(steps) && !tiers->options.level_fixed; i++) {
        if (tiers->packs_waiting > steps[i].waiting * tiers->job_count &&
            steps[i].level < tiers->options.level) {
            return steps[i].level;
        }
    }
    return tiers->options.level;
}

static bool is_long(enum bop__job_kind kind)
{
    return kind >= BOP__JOB_PACK;
}

static bool is_remote(enum bop__job_kind kind)
{
    return kind > BOP__JOB_PACK;
}

/* One executor is kept free of what takes long, and one more of what waits for the network, as far
 * as there are as many: a stalled server does not stop packing, nor packing cold reads. */
static bool may_run(const struct bop_tiers *tiers, enum bop__job_kind kind)
{
    unsigned longs = 0, remotes = 0;
    unsigned count = tiers->job_count;

    for (unsigned i = 0; i < BOP__JOBS; i++) {
        longs += is_long((enum bop__job_kind)i) ? tiers->running[i] : 0;
        remotes += is_remote((enum bop__job_kind)i) ? tiers->running[i] : 0;
    }
    if (is_long(kind) && count > 1 && longs >= count - 1) {
        return false;
    }
    return !is_remote(kind) || count <= 2 || remotes < count - 2;
}

static void begin_fetch(struct bop__job *job)
{
    struct bop__tiered *segment = job->segment;
    struct bop__wanted *wanted = &segment->wanted[0];

    pthread_mutex_lock(&job->tiers->lock);
    job->object = bop__tiered_object(segment);
    job->object.sha256 = NULL; /* It may change while frames are fetched, and is not needed. */
    if (job->kind == BOP__JOB_PREFETCH) {
        job->frame = segment->prefetch_seq;
        job->size = segment->prefetch_bytes;
        segment->prefetch_bytes = 0;
    } else {
        job->frame = wanted->frame;
        job->size = wanted->size;
        job->begun_us = wanted->asked_us;
    }
    pthread_mutex_unlock(&job->tiers->lock);
}

static void begin_record(struct plan *plan, struct bop__job *job)
{
    struct bop__archive *archive = job->archive;
    unsigned max = archive->one_by_one ? 1 : BOP__RECORDS_MAX;

    archive->recording = true;
    for (size_t i = 0; i < archive->count && job->count < max; i++) {
        if (needs_record(plan, archive->segments[i], i == 0, &job->records[job->count])) {
            job->batch[job->count++] = archive->segments[i];
        }
    }
    BOP_LIST_FOR_EACH(link, &archive->dropped) {
        struct bop__tiered *segment = BOP_CONTAINER_OF(link, struct bop__tiered, link);

        if (job->count < max && needs_record(plan, segment, false, &job->records[job->count])) {
            job->batch[job->count++] = segment;
        }
    }
    for (unsigned i = 0; i < job->count; i++) {
        job->batch[i]->busy = true;
        job->batch[i]->busy_with = BOP__JOB_RECORD;
    }
}

static void begin(struct plan *plan, enum bop__job_kind kind)
{
    struct bop__tiered *segment = plan->choices[kind].segment;
    struct bop__archive *archive = plan->choices[kind].archive;
    struct bop_tiers *tiers = plan->tiers;
    struct bop__job *job = bop__tiers_job_begin(tiers, kind, archive, segment);

    switch (kind) {
    case BOP__JOB_FETCH:
    case BOP__JOB_PREFETCH:
        begin_fetch(job);
        break;
    case BOP__JOB_RECORD:
        begin_record(plan, job);
        break;
    case BOP__JOB_PUBLISH:
        archive->publishing = true;
        archive->urgent = false;
        job->claimed = archive->claimed;
        job->lowest = archive->lowest;
        break;
    case BOP__JOB_REMOVE:
        job->check_tier2 = segment->delete_queued;
        break;
    case BOP__JOB_EVICT:
        job->check_tier1 = segment->bad_file;
        tiers->evicting_bytes += segment->bad_file ? 0 : segment->packed_bytes;
        break;
    case BOP__JOB_PACK:
        job->level = bop__tiers_level(tiers);
        break;
    case BOP__JOB_UPLOAD:
        job->again = segment->bad_tier2;
        if (segment->retries[BOP__RETRY_REMOTE].attempts > 0) {
            bop__count(tiers, BOP__COUNT_UPLOAD_RETRIES, 1);
        }
        break;
    case BOP__JOB_SCRUB:
        job->check_tier1 = segment->in_tier1;
        job->check_tier2 = segment->in_tier2;
        break;
    default:
        break;
    }
    /* Logs take turns. */
    bop_list_remove(&archive->link);
    bop_list_push_back(&tiers->archives, &archive->link);
    bop__tiers_job_submit(job);
}

/* Begin the most urgent task that there is and that may run. */
static bool begin_one(struct plan *plan)
{
    struct bop_tiers *tiers = plan->tiers;
    struct bop__tiered *coldest;

    BOP_LIST_FOR_EACH(link, &tiers->archives) {
        weigh_archive(plan, BOP_CONTAINER_OF(link, struct bop__archive, link));
    }
    coldest = bop__evict_tier1_pick(tiers, &plan->next_us);
    if (coldest && !plan->choices[BOP__JOB_EVICT].archive) {
        plan->choices[BOP__JOB_EVICT] = (struct choice){coldest->archive, coldest};
    }
    tiers->packs_waiting = plan->packs_waiting;
    for (unsigned kind = 0; kind < BOP__JOBS; kind++) {
        if (plan->choices[kind].archive && may_run(tiers, (enum bop__job_kind)kind)) {
            begin(plan, (enum bop__job_kind)kind);
            return true;
        }
    }
    return false;
}

uint64_t bop__tiers_plan(struct bop_tiers *tiers)
{
    struct plan plan;
    uint64_t next_us = UINT64_MAX;
    bool began;

    bop__evict_tier0(tiers, &next_us);
    BOP_LIST_FOR_EACH(link, &tiers->archives) {
        struct bop__archive *archive = BOP_CONTAINER_OF(link, struct bop__archive, link);

        if (!archive->closed) {
            bop__retention(archive, &next_us);
        }
    }
    do {
        plan = (struct plan){
            .tiers = tiers, .now_us = bop__tiers_now_us(tiers), .next_us = next_us};
        began = tiers->busy < tiers->job_count && begin_one(&plan);
    } while (began);
    return plan.next_us;
}
