/*
 * A chunk's records, one after the other, into the catalogue.
 */
#include "manifest_replay.h"

#include <inttypes.h>

static int corrupt(const struct bop__manifest_replay *replay, const char *what,
                   struct bop_error *err)
{
    return bop_error_set(err, BOP_ECORRUPT, "%s: at offset %" PRIu64 ", record %" PRIu64 ": %s",
                         replay->path, replay->end, replay->place.number, what);
}

static int take_snapshot(struct bop__manifest_replay *replay,
                         const struct bop__manifest_decoded *decoded, struct bop_error *err)
{
    struct bop_error why;
    int rc;

    if (decoded->record.kind == BOP__MANIFEST_SNAPSHOT_MARKER) {
        if (decoded->entries != replay->catalogue->count) {
            return corrupt(replay, "the snapshot is not whole", err);
        }
        replay->snapshot_end = replay->end + decoded->size;
        return 0;
    }
    if (decoded->record.kind != BOP__MANIFEST_CATALOGUE) {
        return corrupt(replay, "the chunk does not begin with a snapshot", err);
    }
    rc = bop__catalogue_restore(replay->catalogue, &decoded->entry, &why);
    return rc == BOP_ECONDITION ? corrupt(replay, why.message, err) : rc;
}

static int take(struct bop__manifest_replay *replay, const struct bop__manifest_decoded *decoded,
                struct bop_error *err)
{
    struct bop_error why;
    int rc;

    if (replay->snapshot_end == 0) {
        return take_snapshot(replay, decoded, err);
    }
    if (!decoded->known) {
        replay->unknown++;
        return 0;
    }
    rc = bop__catalogue_apply(replay->catalogue, &decoded->record, &why);
    return rc == BOP_ECONDITION ? corrupt(replay, why.message, err) : rc;
}

static int take_all(struct bop__manifest_replay *replay, struct bop_slice chunk,
                    struct bop__manifest_decoded *decoded, struct bop_error *err)
{
    int rc;

    while ((rc = bop__manifest_record_decode(chunk, replay->end, &replay->place, decoded)) == 0) {
        uint64_t at = replay->end;

        replay->place.number--; /* For messages: this record's. */
        rc = take(replay, decoded, err);
        replay->place.number++;
        if (rc < 0) {
            return rc;
        }
        replay->end += decoded->size;
        replay->records++;
        rc = replay->on_record ? replay->on_record(replay->user, at, &decoded->record) : 0;
        if (rc != 0) {
            return rc;
        }
    }
    return rc == BOP_EMALFORMED ? corrupt(replay, "the record makes no sense", err) : 0;
}

int bop__manifest_replay(struct bop__manifest_replay *replay, struct bop_slice chunk,
                         struct bop_error *err)
{
    struct bop__manifest_decoded *decoded;
    int rc;

    replay->end = replay->snapshot_end = replay->records = replay->unknown = 0;
    rc = bop__manifest_header_decode(chunk, replay->path, &replay->header, &replay->place, err);
    if (rc < 0) {
        return rc;
    }
    if (replay->header.index != replay->index) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: its header says chunk %" PRIu64, replay->path,
                             replay->header.index);
    }
    if (memcmp(replay->header.log_id, replay->log_id, BOP_AOF_ID_SIZE) != 0) {
        return bop_error_set(err, BOP_EMISMATCH, "%s: belongs to another log", replay->path);
    }
    decoded = bop_alloc(replay->allocator, sizeof(*decoded));
    if (!decoded) {
        return bop_error_set(err, BOP_ENOMEM, "%s: no memory", replay->path);
    }
    replay->end = BOP__MANIFEST_HEADER;
    rc = take_all(replay, chunk, decoded, err);
    bop_free(replay->allocator, decoded, sizeof(*decoded));
    if (rc == BOP_ENOMEM) {
        return bop_error_set(err, rc, "%s: no memory", replay->path);
    }
    if (rc != 0) {
        return rc;
    }
    /* A snapshot is on disk whole before the chunk has its name. */
    if (replay->snapshot_end == 0 ||
        !bop__manifest_tail_is_torn(chunk, replay->end, &replay->place)) {
        return corrupt(replay, "a record that was written in full is bad", err);
    }
    return 0;
}
