/*
 * Local files first, the archive for what is below them.
 */
#include "lookup.h"

#include "internal.h"

struct bop__lookup bop__lookup_in(struct bop_aof *aof, enum bop_aof_level level, bool pread,
                                  bool blocking)
{
    return (struct bop__lookup){
        .allocator = aof->allocator,
        .fs = aof->fs,
        .catalogue = &aof->catalogue,
        .archive = aof->archive,
        .level = level == BOP_AOF_OS ? BOP_AOF_OS : BOP_AOF_DISK,
        .pread = pread,
        .blocking = blocking,
    };
}

/* The view's reference becomes the place's. */
static struct bop__place place_of_view(const struct bop__file_view *view)
{
    return (struct bop__place){
        .file = view->file,
        .base = view->file->header.base,
        .generation = view->file->header.generation,
        .seed = view->file->header.seed,
        .end_seq = view->end_seq,
        .end = view->end,
        .sealed = view->sealed,
        .facts = view->facts,
        .truncations = view->truncations,
    };
}

static struct bop__place place_of_facts(const struct bop__segment_facts *facts,
                                        uint64_t truncations)
{
    return (struct bop__place){
        .base = facts->base,
        .generation = facts->generation,
        .seed = facts->seed,
        .end_seq = facts->end_seq,
        .end = facts->end,
        .sealed = true,
        .facts = *facts,
        .truncations = truncations,
    };
}

int bop__lookup_from(const struct bop__lookup *lookup, uint64_t seq, struct bop__place *out_place)
{
    uint64_t truncations = atomic_load_explicit(&lookup->catalogue->atomic_truncations,
                                                memory_order_acquire);
    struct bop__segment_facts facts;
    struct bop__file_view view;
    int rc = bop__aof_catalogue_find(lookup->catalogue, lookup->level, seq, &view);

    if (rc == 0) {
        *out_place = place_of_view(&view);
        return 0;
    }
    if (rc != BOP_ENOTFOUND) {
        return rc;
    }
    if (lookup->archive && bop__archive_find(lookup->archive, seq, &facts) == 0) {
        *out_place = place_of_facts(&facts, truncations);
        return 0;
    }
    if (!bop__aof_catalogue_nth(lookup->catalogue, lookup->level, 0, &view)) {
        return BOP_ENOTFOUND;
    }
    *out_place = place_of_view(&view);
    if (out_place->end_seq == out_place->base) {
        bop__place_deinit(out_place);
        return BOP_EEND;
    }
    return 0;
}

int bop__lookup_seq(const struct bop__lookup *lookup, uint64_t seq, struct bop__place *out_place)
{
    struct bop__place place;
    int rc = bop__lookup_from(lookup, seq, &place);

    if (rc < 0) {
        return rc;
    }
    if (seq < place.base || seq >= place.end_seq) {
        bop__place_deinit(&place);
        return BOP_ENOTFOUND;
    }
    *out_place = place;
    return 0;
}

void bop__place_deinit(struct bop__place *place)
{
    bop__segment_file_unref(place->file);
    place->file = NULL;
}

int bop__place_open(const struct bop__lookup *lookup, const struct bop__place *place,
                    struct bop__segment_source **out_source, struct bop_error *err)
{
    int rc;

    if (!place->file) {
        bop__archive_touch(lookup->archive, place->generation);
        return bop__archive_source(lookup->archive, place->generation, lookup->blocking, out_source,
                                   err);
    }
    rc = bop__file_source_open(lookup->allocator, lookup->fs, place->file->path, false,
                               lookup->pread, out_source, err);
    if (rc == -ENOENT) {
        struct bop__file_view view;

        /* Gone because the log let go of it? If it did not, the file is missing. */
        if (!bop__aof_catalogue_generation(lookup->catalogue, lookup->level, place->generation,
                                           &view)) {
            return BOP_ENOTFOUND;
        }
        bop__segment_file_unref(view.file);
        return rc;
    }
    if (rc == 0) {
        (*out_source)->size = place->sealed ? place->facts.size : place->end;
    }
    return rc;
}
