/*
 * The tasks: one for each executor, so that none is needed from memory when a
 * segment must move, and what is waiting stays where urgency decides, not in
 * an executor's queue.
 */
#include "internal.h"

struct job_calls {
    void (*run)(struct bop__job *job);
    void (*done)(struct bop__job *job);
};

static const struct job_calls job_calls[BOP__JOBS] = {
    [BOP__JOB_FETCH] = {bop__fetch_run, bop__fetch_done},
    [BOP__JOB_RECORD] = {bop__record_run, bop__record_done},
    [BOP__JOB_PUBLISH] = {bop__publish_run, bop__publish_done},
    [BOP__JOB_REMOVE] = {bop__remove_run, bop__remove_done},
    [BOP__JOB_EVICT] = {bop__evict_run, bop__evict_done},
    [BOP__JOB_PACK] = {bop__pack_run, bop__pack_done},
    [BOP__JOB_UPLOAD] = {bop__upload_run, bop__upload_done},
    [BOP__JOB_HYDRATE] = {bop__hydrate_run, bop__hydrate_done},
    [BOP__JOB_PREFETCH] = {bop__prefetch_run, bop__prefetch_done},
    [BOP__JOB_SCRUB] = {bop__scrub_run, bop__scrub_done},
};

static bool takes_segment(enum bop__job_kind kind)
{
    return kind != BOP__JOB_FETCH && kind != BOP__JOB_PREFETCH;
}

static void run(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);

    job_calls[job->kind].run(job);
}

static void end(struct bop__job *job)
{
    job->busy = false;
    job->tiers->busy--;
    job->tiers->running[job->kind]--;
    job->archive->jobs--;
    for (unsigned i = 0; i < job->count; i++) {
        job->batch[i]->busy = false;
    }
    if (!job->segment) {
        return;
    }
    if (takes_segment(job->kind)) {
        job->segment->busy = false;
    } else {
        job->segment->fetching = false;
    }
}

static void done(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);
    struct bop_tiers *tiers = job->tiers;
    struct bop__archive *archive = job->archive;

    end(job);
    if (!archive->closed) {
        if (job->version > archive->version) {
            archive->version = job->version;
        }
        job_calls[job->kind].done(job);
    } else if (archive->jobs == 0) {
        bop__archive_free(archive);
    }
    bop__tiers_wake(tiers);
}

static struct bop__job *free_job(struct bop_tiers *tiers)
{
    for (unsigned i = 0; i < tiers->job_count; i++) {
        if (!tiers->jobs[i].busy) {
            return &tiers->jobs[i];
        }
    }
    return NULL;
}

struct bop__job *bop__tiers_job_begin(struct bop_tiers *tiers, enum bop__job_kind kind,
                                      struct bop__archive *archive, struct bop__tiered *segment)
{
    struct bop__job *job = free_job(tiers);
    struct bop_executor *executor = job->executor;

    BOP_ASSERT(!segment || !takes_segment(kind) || !segment->busy);
    *job = (struct bop__job){
        .task = {.run = run, .done = done},
        .tiers = tiers,
        .executor = executor,
        .busy = true,
        .kind = kind,
        .archive = archive,
        .segment = segment,
        .begun_us = bop__tiers_now_us(tiers),
    };
    tiers->busy++;
    tiers->running[kind]++;
    archive->jobs++;
    if (segment && takes_segment(kind)) {
        segment->busy = true;
        segment->busy_with = kind;
    } else if (segment) {
        segment->fetching = true;
    }
    return job;
}

void bop__tiers_job_submit(struct bop__job *job)
{
    bop_executor_submit(job->executor, &job->task);
}

void bop__tiers_jobs_cancel(struct bop__archive *archive)
{
    struct bop_tiers *tiers = archive->tiers;

    for (unsigned i = 0; i < tiers->job_count; i++) {
        if (tiers->jobs[i].busy && tiers->jobs[i].archive == archive) {
            /* Relaxed: the task looks now and then, and nothing hangs on when. */
            atomic_store_explicit(&tiers->jobs[i].cancel, true, memory_order_relaxed);
        }
    }
}
