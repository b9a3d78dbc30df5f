/*
 * A segment as its owner sees it: where it begins and ends, and a sparse index.
 */
#include "internal.h"

struct bop__segment *bop__segment_new(struct bop_allocator *allocator)
{
    struct bop__segment *segment = bop_alloc_zeroed(allocator, sizeof(*segment));

    if (segment) {
        bop_list_init(&segment->link);
    }
    return segment;
}

void bop__segment_init(struct bop__segment *segment, const struct bop__aof_segment_header *header)
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
    segment->file_end = BOP__AOF_SEGMENT_HEADER;
}

void bop__segment_free(struct bop_allocator *allocator, struct bop__segment *segment)
{
    if (!segment) {
        return;
    }
    bop_free(allocator, segment->index, segment->index_capacity * sizeof(*segment->index));
    bop_free(allocator, segment, sizeof(*segment));
}

void bop__segment_index_add(struct bop_allocator *allocator, struct bop__segment *segment,
                            uint64_t seq, uint64_t offset)
{
    size_t count = segment->index_count;
    uint64_t before = count > 0 ? segment->index[count - 1].offset : BOP__AOF_SEGMENT_HEADER;

    if (offset - before < BOP__AOF_INDEX_BYTES) {
        return;
    }
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
    segment->end_seq = seq;
    segment->end = offset;
    segment->chain = link;
}
