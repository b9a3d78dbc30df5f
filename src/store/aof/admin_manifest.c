/*
 * The manifest's chunks, for tools.
 */
#include "admin.h"

struct inspection {
    const struct bop_aof_manifest_options *options;
    struct bop_aof_manifest_report *report;
};

static int pass_chunk(void *user, const struct bop__manifest_chunk_report *chunk)
{
    struct inspection *inspection = user;
    char name[64];
    struct bop_aof_chunk_info info = {.file = name,
                                      .index = chunk->index,
                                      .file_bytes = chunk->file_bytes,
                                      .committed_bytes = chunk->committed_bytes,
                                      .uncommitted_bytes = chunk->uncommitted_bytes,
                                      .records = chunk->records,
                                      .unknown_records = chunk->unknown_records,
                                      .bad_records = chunk->bad_records,
                                      .stored_crc = chunk->stored_crc,
                                      .computed_crc = chunk->computed_crc,
                                      .snapshot = chunk->snapshot,
                                      .code = chunk->code,
                                      .problem = chunk->code ? chunk->message : NULL};

    snprintf(name, sizeof(name), "manifest/%020" PRIu64 ".mlog", chunk->index);
    inspection->report->chunks++;
    inspection->report->bad_chunks += chunk->code != 0;
    inspection->report->records += chunk->records;
    return inspection->options->on_chunk
               ? inspection->options->on_chunk(inspection->options->user, &info)
               : 0;
}

static int pass_record(void *user, uint64_t chunk, uint64_t offset,
                       const struct bop__manifest_record *record)
{
    struct inspection *inspection = user;
    struct bop_aof_manifest_event event = {.chunk = chunk,
                                           .offset = offset,
                                           .kind = bop__manifest_kind_name(record->kind),
                                           .generation = record->generation,
                                           .time_ms = record->time_ms,
                                           .key = record->key};

    return inspection->options->on_event
               ? inspection->options->on_event(inspection->options->user, &event)
               : 0;
}

static int check(const struct bop_aof_manifest_options *options, struct bop__admin *admin,
                 struct bop_aof_manifest_report *report, struct bop_error *err)
{
    struct inspection inspection = {.options = options, .report = report};
    char path[BOP__ADMIN_PATH_MAX];
    struct bop__manifest_options manifest = {
        .allocator = admin->allocator, .fs = admin->fs, .clock = admin->clock, .path = path};
    int rc = bop__admin_path(admin, "manifest", path, err);

    if (rc == 0 && !admin->has_manifest) {
        rc = bop_error_say(err, BOP_ENOTFOUND,
                           "%s has no manifest: the log was never opened with tiers", admin->path);
    }
    if (rc == 0) {
        memcpy(manifest.log_id, admin->log_id, sizeof(manifest.log_id));
        rc = bop__manifest_inspect(&manifest, pass_chunk, pass_record, &inspection, err);
    }
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; admin->manifest && i < bop__manifest_count(admin->manifest); i++) {
        const struct bop__manifest_entry *entry = bop__manifest_at(admin->manifest, i);

        report->segments++;
        report->in_tier2 += entry->uploaded && !entry->deleted;
    }
    return admin->manifest_code == 0
               ? 0
               : bop_error_say(err, admin->manifest_code, "%s", admin->manifest_err.message);
}

int bop_aof_manifest_check(const struct bop_aof_manifest_options *options,
                           struct bop_aof_manifest_report *out_report, struct bop_error *err)
{
    struct bop_aof_manifest_report report = {0};
    struct bop__admin admin;
    int rc = bop__admin_open(&options->log, &admin, err);

    if (rc == 0) {
        rc = check(options, &admin, &report, err);
    }
    bop__admin_deinit(&admin);
    *out_report = report;
    return rc;
}

int bop_aof_manifest_repair(const struct bop_aof_admin_options *options, unsigned *out_lost,
                            struct bop_error *err)
{
    char path[BOP__ADMIN_PATH_MAX];
    struct bop__admin admin;
    int lock_fd = -1;
    int rc = bop__admin_open(options, &admin, err);
    struct bop__manifest_options manifest = {
        .allocator = admin.allocator, .fs = admin.fs, .clock = admin.clock, .path = path};

    *out_lost = 0;
    if (rc == 0) {
        rc = bop__admin_lock(&admin, &lock_fd, err);
    }
    if (rc == 0) {
        rc = bop__admin_path(&admin, "manifest", path, err);
    }
    if (rc == 0 && admin.has_manifest && admin.manifest_code != 0) {
        memcpy(manifest.log_id, admin.log_id, sizeof(manifest.log_id));
        rc = bop__manifest_repair(&manifest, out_lost, err);
    }
    bop__admin_unlock(&admin, lock_fd);
    bop__admin_deinit(&admin);
    return rc;
}
