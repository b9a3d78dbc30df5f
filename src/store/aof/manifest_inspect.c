/*
 * Looking at a manifest's chunks without opening it.
 */
#include "manifest_replay.h"

#include <stdio.h>

struct inspection {
    const struct bop__manifest_options *options;
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    int (*on_chunk)(void *user, const struct bop__manifest_chunk_report *report);
    int (*on_record)(void *user, uint64_t chunk, uint64_t offset,
                     const struct bop__manifest_record *record);
    void *user;
    struct bop_error *err;
    uint64_t index;
    struct bop_buf buf;
};

static int pass_record(void *user, uint64_t offset, const struct bop__manifest_record *record)
{
    struct inspection *inspection = user;

    return inspection->on_record
               ? inspection->on_record(inspection->user, inspection->index, offset, record)
               : 0;
}

static void report_crc(struct bop_slice chunk, struct bop__manifest_chunk_report *report)
{
    struct bop__manifest_chunk_header header;

    if (chunk.size < sizeof(header)) {
        return;
    }
    memcpy(&header, chunk.data, sizeof(header));
    report->stored_crc = header.crc;
    header.crc = 0;
    report->computed_crc = bop_crc32c(0, &header, sizeof(header));
}

static int inspect_chunk(void *user, const char *name)
{
    struct inspection *inspection = user;
    struct bop__manifest_chunk_report report = {0};
    struct bop__catalogue catalogue;
    struct bop_error why;
    char path[512];
    struct bop__manifest_replay replay = {.allocator = inspection->allocator,
                                          .path = path,
                                          .log_id = inspection->options->log_id,
                                          .catalogue = &catalogue,
                                          .on_record = pass_record,
                                          .user = inspection};
    int length, rc;

    if (!bop__manifest_name_parse(name, &inspection->index)) {
        return 0;
    }
    length = snprintf(path, sizeof(path), "%s/%s", inspection->options->path, name);
    if (length < 0 || (size_t)length >= sizeof(path)) {
        return bop_error_set(inspection->err, BOP_ETOOBIG, "%s: the path is too long",
                             inspection->options->path);
    }
    bop_buf_clear(&inspection->buf);
    rc = bop_fs_read_file(inspection->fs, path, BOP__MANIFEST_CHUNK_MAX, &inspection->buf);
    if (rc < 0) {
        return bop_error_set(inspection->err, rc, "%s: cannot read it: %s", path, bop_strerror(rc));
    }
    replay.index = report.index = inspection->index;
    bop__catalogue_init(&catalogue, inspection->allocator);
    rc = bop__manifest_replay(&replay, bop_buf_slice(&inspection->buf), &why);
    bop__catalogue_deinit(&catalogue);
    if (rc > 0 || rc == BOP_ENOMEM) {
        return rc;
    }
    report.code = rc;
    report.file_bytes = inspection->buf.size;
    report.committed_bytes = replay.end;
    report.uncommitted_bytes = report.file_bytes - replay.end;
    report.records = replay.records;
    report.unknown_records = replay.unknown;
    report.bad_records = rc < 0 ? 1 : 0;
    report.snapshot = replay.snapshot_end > 0;
    report_crc(bop_buf_slice(&inspection->buf), &report);
    snprintf(report.message, sizeof(report.message), "%s", rc < 0 ? why.message : "");
    return inspection->on_chunk ? inspection->on_chunk(inspection->user, &report) : 0;
}

int bop__manifest_inspect(const struct bop__manifest_options *options,
                          int (*on_chunk)(void *user, const struct bop__manifest_chunk_report *),
                          int (*on_record)(void *user, uint64_t chunk, uint64_t offset,
                                           const struct bop__manifest_record *),
                          void *user, struct bop_error *err)
{
    struct inspection inspection = {.options = options,
                                    .allocator = bop_allocator_or_default(options->allocator),
                                    .fs = options->fs ? options->fs : bop_fs_real(),
                                    .on_chunk = on_chunk,
                                    .on_record = on_record,
                                    .user = user,
                                    .err = err};
    int rc;

    bop_buf_init(&inspection.buf, inspection.allocator, 0);
    rc = inspection.fs->list(inspection.fs, options->path, inspect_chunk, &inspection);
    bop_buf_deinit(&inspection.buf);
    return rc;
}
