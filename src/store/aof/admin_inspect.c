/*
 * Telling what there is, from what can be known without reading all of it.
 */
#include "admin.h"
#include "look.h"

/* Read the newest segment's records, to learn where they end. */
static int find_end(struct bop__admin *admin, struct bop__admin_segment *segment, uint64_t *out_end,
                    struct bop_error *err)
{
    struct bop__segment_source *source;
    struct bop__aof_record_header header;
    enum bop__look_verdict verdict = BOP__LOOK_GOOD;
    struct bop_slice bytes;
    struct bop__look look;
    int rc = bop__admin_source(admin, segment, &source, err);

    if (rc < 0) {
        return rc;
    }
    look = bop__look_begin(source, segment->header.seed, segment->base, segment->generation,
                           segment->header.size, segment->header.flags & BOP__AOF_FLAG_ALIGNED);
    while (rc == 0 && verdict == BOP__LOOK_GOOD) {
        rc = bop__look_entry(&look, &header, &bytes, &verdict, err);
        if (rc == 0 && verdict == BOP__LOOK_GOOD) {
            bop__look_step(&look, &header);
        }
    }
    source->close(source);
    segment->limit = look.seq;
    *out_end = look.offset;
    return rc;
}

static void add_manifest(const struct bop__admin_segment *segment,
                         struct bop_aof_segment_info *info)
{
    const struct bop__manifest_entry *entry = segment->entry;

    info->in_tier1 = segment->packed_name[0] != '\0';
    info->packed_file = info->in_tier1 ? segment->packed_name : NULL;
    info->packed_bytes = segment->packed_bytes;
    if (entry) {
        info->known = true;
        info->in_tier2 = entry->uploaded && !entry->deleted;
        info->uploading = entry->uploading;
        info->delete_queued = entry->delete_queued;
        info->packed_bytes = entry->packed_bytes;
        info->key = entry->key;
    }
    info->residency = segment->local && segment->code == 0 ? BOP_TIERS_TIER0
                      : info->in_tier1                     ? BOP_TIERS_TIER1
                      : info->in_tier2                     ? BOP_TIERS_TIER2
                                                           : BOP_TIERS_NEEDS_RECOVERY;
}

static void add_facts(const struct bop__admin_segment *segment, struct bop_aof_segment_info *info)
{
    const struct bop__segment_facts *facts = &segment->facts;

    info->sealed = segment->local ? segment->footer_code == 0 : segment->entry != NULL;
    if (info->sealed) {
        info->end_seq = bop_min_u64(facts->end_seq, segment->limit);
        info->end = facts->end;
        info->first_time_us = facts->first_time_us;
        info->last_time_us = facts->last_time_us;
        memcpy(info->root, facts->root, sizeof(info->root));
        info->epoch = facts->epoch;
    }
    if (segment->local && segment->footer_code < 0 && segment->footer_code != BOP_ENOTFOUND &&
        info->code == 0) {
        info->code = segment->footer_code;
        info->problem = segment->footer_err.message;
    }
}

static int make_info(struct bop__admin *admin, struct bop__admin_segment *segment,
                     struct bop_aof_segment_info *info)
{
    bool readable = segment->code == 0 || segment->guessed || segment->misnamed;
    int rc = 0;

    *info = (struct bop_aof_segment_info){.file = segment->name,
                                          .base = segment->base,
                                          .generation = segment->generation,
                                          .local = segment->local,
                                          .newest = segment->newest,
                                          .left = !segment->kept,
                                          .file_bytes = segment->file_bytes,
                                          .code = segment->code,
                                          .problem = segment->code ? segment->err.message : NULL};
    if (segment->local && readable) {
        info->epoch = segment->header.epoch;
        info->front = segment->header.front;
        info->limit_bytes = segment->header.size;
        info->version = segment->header.version;
        info->aligned = segment->header.flags & BOP__AOF_FLAG_ALIGNED;
    }
    if (segment->newest && readable) {
        rc = find_end(admin, segment, &info->end, &segment->err);
        if (rc < 0 && rc != BOP_ENOMEM) {
            info->code = rc;
            info->problem = segment->err.message;
            rc = 0;
        }
    }
    if (segment->limit != UINT64_MAX) {
        info->end_seq = segment->limit;
    }
    if (!segment->newest) {
        add_facts(segment, info);
    }
    add_manifest(segment, info);
    return rc;
}

static void count(const struct bop_aof_segment_info *info, struct bop_aof_info *all)
{
    all->problems += info->code != 0;
    all->local_bytes += info->local ? info->file_bytes : 0;
    all->packed_bytes += info->in_tier1 ? info->packed_bytes : 0;
    all->tier2_bytes += info->in_tier2 ? info->packed_bytes : 0;
    all->left += info->left && info->local;
    if (info->left) {
        return;
    }
    all->segments += info->local;
    all->archived += !info->local;
    all->oldest = all->oldest == 0 ? info->base : all->oldest;
    all->first = all->first == 0 && info->local ? info->base : all->first;
    all->last = info->end_seq > 0 ? info->end_seq - 1 : info->base - 1;
}

static int inspect(struct bop__admin *admin, bop_aof_segment_fn *fn, void *user,
                   struct bop_aof_info *all)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < admin->total; i++) {
        struct bop_aof_segment_info info;

        rc = make_info(admin, &admin->segments[i], &info);
        count(&info, all);
        if (rc == 0 && fn) {
            rc = fn(user, &info);
        }
    }
    memcpy(all->log_id, admin->log_id, sizeof(all->log_id));
    all->first = all->first == 0 ? all->last + 1 : all->first;
    all->epoch = admin->epoch;
    all->generation = admin->generation;
    all->has_manifest = admin->has_manifest;
    all->manifest_code = admin->manifest_code;
    if (admin->manifest_code != 0) {
        all->problems++;
        memcpy(all->manifest_problem, admin->manifest_err.message, sizeof(all->manifest_problem));
    }
    return rc;
}

int bop_aof_inspect(const struct bop_aof_admin_options *options, bop_aof_segment_fn *fn, void *user,
                    struct bop_aof_info *out_info, struct bop_error *err)
{
    struct bop_aof_info info = {0};
    struct bop__admin admin;
    int rc = bop__admin_open(options, &admin, err);

    if (rc == 0) {
        rc = inspect(&admin, fn, user, &info);
        if (rc == BOP_ENOMEM) {
            bop_error_set(err, rc, "look at %s", options->path);
        }
    }
    bop__admin_deinit(&admin);
    if (rc == 0) {
        *out_info = info;
    }
    return rc;
}
