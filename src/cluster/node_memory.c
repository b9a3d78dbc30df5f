/*
 * What a status response tells of the process's memory.
 */
#include <bop/mem.h>

#include "node.h"

void bop__node_tell_memory(struct bop_status_response *out)
{
    /* The names in the response point here; the loop's thread alone comes by. */
    static _Thread_local struct bop_mem_stats stats;

    bop_mem_stats(&stats);
    out->resident_bytes = stats.resident_bytes;
    out->committed_bytes = stats.committed_bytes;
    out->tag_count = 0;
    for (size_t i = 0; i < stats.tag_count && i < BOP_STATUS_TAGS_MAX; i++) {
        const struct bop_tag_stats *tag = &stats.tags[i];

        out->tags[out->tag_count++] = (struct bop_status_tag){
            .name = bop_slice_cstr(tag->name),
            .live_bytes = tag->live_bytes,
            .peak_bytes = tag->peak_bytes,
            .live_allocations = tag->live_allocations,
            .allocations = tag->allocations,
            .limit_bytes = tag->limit_bytes,
        };
    }
}
