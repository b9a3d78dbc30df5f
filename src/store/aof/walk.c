/*
 * Getting records out of a source: with one call for each if the guess at its size is good.
 */
#include "walk.h"

#include <inttypes.h>

int bop__walk_corrupt(const struct bop__walk *walk, const char *name, const char *what,
                      struct bop_error *err)
{
    return bop_error_set(err, BOP_ECORRUPT, "%s: record %" PRIu64 " at offset %" PRIu64 ": %s",
                         name, walk->seq, walk->offset, what);
}

static int hold(struct bop__walk *walk, struct bop__segment_source *source, size_t least,
                struct bop_error *err)
{
    struct bop_slice bytes = {0};
    int rc;

    walk->held = 0;
    rc = source->at(source, walk->offset, least, &bytes, err);
    if (rc == 0) {
        walk->at = bytes.data;
        walk->held = bytes.size;
    }
    return rc;
}

int bop__walk_peek(struct bop__walk *walk, struct bop__segment_source *source, uint64_t end,
                   size_t guess, struct bop__aof_record_header *out_header, struct bop_error *err)
{
    uint64_t room = end > walk->offset ? end - walk->offset : 0;
    const char *wrong;

    if (room < BOP__AOF_RECORD_HEADER) {
        return bop__walk_corrupt(walk, source->name, "lies beyond the end", err);
    }
    if (walk->held < BOP__AOF_RECORD_HEADER) {
        size_t least = (size_t)bop_min_u64(bop_max_u64(guess, BOP__AOF_RECORD_HEADER), room);
        int rc = hold(walk, source, least, err);

        if (rc < 0) {
            return rc;
        }
    }
    if (walk->held < BOP__AOF_RECORD_HEADER) {
        return bop__walk_corrupt(walk, source->name, "the file ends before it", err);
    }
    wrong = bop__walk_header(walk, walk->at, room, out_header);
    return wrong ? bop__walk_corrupt(walk, source->name, wrong, err) : 0;
}

int bop__walk_fetch_more(struct bop__walk *walk, struct bop__segment_source *source, uint64_t end,
                         size_t guess, struct bop__aof_record_header *out_header,
                         struct bop_error *err)
{
    int rc = bop__walk_peek(walk, source, end, guess, out_header, err);
    uint64_t size = bop__aof_record_size(bop__aof_record_length(out_header));

    if (rc < 0 || walk->held >= size) {
        return rc;
    }
    rc = hold(walk, source, (size_t)size, err);
    if (rc == 0 && walk->held < size) {
        rc = bop__walk_corrupt(walk, source->name, "the file ends in it", err);
    }
    return rc;
}
