/*
 * A segment as its owner sees it: where it begins and ends, and a sparse index.
 */
#include "internal.h"

bool bop__aof_path(const char *dir, const char *name, char out_path[BOP__AOF_PATH_MAX])
{
    int size = snprintf(out_path, BOP__AOF_PATH_MAX, "%s/%s", dir, name);

    return size > 0 && size < BOP__AOF_PATH_MAX;
}

bool bop__segment_path(const char *dir, uint64_t base, uint64_t generation,
                       char out_path[BOP__AOF_PATH_MAX])
{
    char name[BOP__AOF_NAME_SIZE];

    bop__aof_segment_name(base, generation, name);
    return bop__aof_path(dir, name, out_path);
}

struct bop__segment *bop__segment_new(struct bop_aof *aof)
{
    struct bop__segment *segment = bop_alloc_zeroed(aof->allocator, sizeof(*segment));

    if (!segment) {
        return NULL;
    }
    segment->file = bop__segment_file_new(aof->allocator, aof->path);
    if (!segment->file) {
        bop_free(aof->allocator, segment, sizeof(*segment));
        return NULL;
    }
    bop_list_init(&segment->link);
    bop_list_init(&segment->seal_link);
    return segment;
}

void bop__segment_init(struct bop_aof *aof, struct bop__segment *segment,
                       const struct bop__aof_segment_header *header)
{
    segment->header = *header;
    segment->base = header->base;
    segment->generation = header->generation;
    segment->size = header->size;
    segment->front = header->front;
    segment->seed = header->seed;
    segment->salt = bop__aof_salt(header->seed, header->base, header->generation);
    segment->aligned = (header->flags & BOP__AOF_FLAG_ALIGNED) != 0;
    segment->chain = segment->salt;
    segment->end_seq = header->base;
    segment->end = BOP__AOF_SEGMENT_HEADER;
    segment->records_end = BOP__AOF_SEGMENT_HEADER;
    segment->file_end = BOP__AOF_SEGMENT_HEADER;
    segment->sent_end = BOP__AOF_SEGMENT_HEADER;
    segment->indexed_end = BOP__AOF_SEGMENT_HEADER;
    bop__segment_file_init(segment->file, header, aof->path);
}

void bop__segment_free(struct bop_aof *aof, struct bop__segment *segment)
{
    if (!segment) {
        return;
    }
    bop__handle_close(aof, segment->handle);
    bop__draft_drop(segment);
    bop__segment_file_unref(segment->file);
    bop_free(aof->allocator, segment->index, segment->index_capacity * sizeof(*segment->index));
    bop_free(aof->allocator, segment, sizeof(*segment));
}

void bop__segments_free(struct bop_aof *aof, struct bop_list *list)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(list)) != NULL) {
        bop__segment_free(aof, BOP_CONTAINER_OF(link, struct bop__segment, link));
    }
}

void bop__segment_index_add(struct bop_allocator *allocator, struct bop__segment *segment,
                            uint64_t seq, uint64_t offset)
{
    size_t count = segment->index_count;

    if (offset - segment->indexed_end < BOP__AOF_INDEX_BYTES) {
        return;
    }
    segment->indexed_end = offset;
    if (count == segment->index_capacity) {
        size_t capacity = count > 0 ? count * 2 : 8;
        struct bop__index_entry *index = bop_realloc(
            allocator, segment->index, count * sizeof(*index), capacity * sizeof(*index));

        if (!index) {
            return;
        }
        segment->index = index;
        segment->index_capacity = capacity;
    }
    segment->index[count] = (struct bop__index_entry){.seq = seq, .offset = offset};
    segment->index_count = count + 1;
}

struct bop__index_entry bop__segment_index_find(const struct bop__segment *segment, uint64_t seq)
{
    size_t low = 0;
    size_t high = segment->index_count; /* The first entry known to be above seq. */

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (segment->index[middle].seq <= seq) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0
               ? segment->index[low - 1]
               : (struct bop__index_entry){.seq = segment->base, .offset = BOP__AOF_SEGMENT_HEADER};
}

void bop__segment_cut(struct bop__segment *segment, uint64_t seq, uint64_t offset, uint32_t link)
{
    BOP_ASSERT(seq > segment->base && seq <= segment->end_seq && offset <= segment->end);
    while (segment->index_count > 0 && segment->index[segment->index_count - 1].seq >= seq) {
        segment->index_count--;
    }
    segment->indexed_end = segment->index_count > 0
                               ? segment->index[segment->index_count - 1].offset
                               : BOP__AOF_SEGMENT_HEADER;
    segment->end_seq = seq;
    segment->end = offset;
    segment->records_end = offset;
    segment->file_end = bop_min_u64(segment->file_end, offset);
    segment->sealed = false; /* Its footer, if it has one, is for more. */
    bop__draft_drop(segment);
    segment->chain = link;
}
