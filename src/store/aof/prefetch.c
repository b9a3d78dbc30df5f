/*
 * Having bytes ready before they are read: the archive fetches its own; of local files the kernel
 * is told.
 */
#include "internal.h"
#include "lookup.h"

/* Tell of what lies in one local segment from seq on. Returns how much that is. */
static uint64_t prefetch_file(const struct bop__lookup *lookup, const struct bop__place *place,
                              uint64_t seq, uint64_t bytes)
{
    struct bop__segment_source *source = NULL;
    struct bop__footer footer = {0};
    uint64_t offset = BOP__AOF_SEGMENT_HEADER;

    if (bop__place_open(lookup, place, &source, NULL) < 0) {
        return 0;
    }
    if (place->sealed && bop__footer_read(lookup->allocator, source, false, &footer, NULL) == 0) {
        offset = bop__footer_find(&footer, seq)->offset;
        bop__footer_deinit(&footer);
    }
    bytes = bop_min_u64(bytes, place->end - offset);
    if (source->prefetch) {
        source->prefetch(source, offset, bytes);
    }
    source->close(source);
    return bytes;
}

int bop_aof_prefetch(struct bop_aof *aof, uint64_t seq, uint64_t bytes)
{
    struct bop__lookup lookup = bop__lookup_in(aof, BOP_AOF_OS, false, false);

    while (bytes > 0) {
        struct bop__place place;
        int rc = bop__lookup_seq(&lookup, seq, &place);

        if (rc < 0) {
            return rc == BOP_EEND ? 0 : rc;
        }
        if (!place.file) {
            rc = bop__archive_prefetch(aof->archive, seq, bytes);
            return rc < 0 ? rc : 0;
        }
        bytes -= prefetch_file(&lookup, &place, seq, bytes);
        seq = place.end_seq;
        bop__place_deinit(&place);
    }
    return 0;
}
