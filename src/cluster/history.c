/*
 * A chunk holds whole entries: revision u64, size u32, as many bytes.
 *
 * Invariants:
 *
 *   (1) after <= last; entries rise from above after to last.
 *   (2) bytes is the sum of the chunks' sizes, and at most bytes_max, but that one chunk
 *       is always allowed.
 */
#include "history.h"

#include <bop/mem.h>

#define ENTRY_HEADER 12

struct history_chunk {
    uint64_t last; /* Revision of its last entry. */
    size_t size;   /* Used. */
    size_t capacity;
    uint8_t bytes[];
};

void bop__history_init(struct history *history, struct bop_allocator *allocator, size_t bytes_max,
                       uint64_t after)
{
    *history = (struct history){.allocator = allocator,
                                .bytes_max = bytes_max ? bytes_max : HISTORY_BYTES_MAX,
                                .after = after,
                                .last = after};
    history->capacity = history->bytes_max / HISTORY_CHUNK + HISTORY_CHUNKS_LEAST;
}

static struct history_chunk *chunk_at(const struct history *history, uint64_t number)
{
    return history->chunks[number % history->capacity];
}

static void drop_first(struct history *history)
{
    struct history_chunk *chunk = chunk_at(history, history->first);

    history->after = chunk->last;
    history->bytes -= sizeof(*chunk) + chunk->capacity;
    bop_free(history->allocator, chunk, sizeof(*chunk) + chunk->capacity);
    history->first++;
}

void bop__history_reset(struct history *history, uint64_t after)
{
    while (history->first < history->next) {
        drop_first(history);
    }
    history->after = after;
    history->last = after;
}

void bop__history_deinit(struct history *history)
{
    bop__history_reset(history, 0);
    if (history->chunks) {
        bop_free(history->allocator, history->chunks, history->capacity * sizeof(*history->chunks));
        history->chunks = NULL;
    }
}

/* A chunk with room for one more entry of this size, or NULL. */
static struct history_chunk *chunk_for(struct history *history, size_t size)
{
    size_t capacity = bop_max_u64(size, HISTORY_CHUNK - sizeof(struct history_chunk));
    struct history_chunk *chunk;

    if (history->first < history->next) {
        chunk = chunk_at(history, history->next - 1);
        if (chunk->capacity - chunk->size >= size) {
            return chunk;
        }
    }
    if (sizeof(*chunk) + capacity > history->bytes_max) {
        return NULL;
    }
    while (history->first < history->next &&
           (history->bytes + sizeof(*chunk) + capacity > history->bytes_max ||
            history->next - history->first == history->capacity)) {
        drop_first(history);
    }
    if (!history->chunks) {
        history->chunks = (struct history_chunk **)bop_alloc_array(
            history->allocator, history->capacity, sizeof(struct history_chunk *));
    }
    chunk = history->chunks
                ? (struct history_chunk *)bop_alloc(history->allocator, sizeof(*chunk) + capacity)
                : NULL;
    if (!chunk) {
        return NULL;
    }
    chunk->size = 0;
    chunk->capacity = capacity;
    history->bytes += sizeof(*chunk) + capacity;
    history->chunks[history->next++ % history->capacity] = chunk;
    return chunk;
}

void bop__history_add(struct history *history, uint64_t revision, struct bop_slice events)
{
    struct history_chunk *chunk;

    BOP_ASSERT(revision > history->last);
    chunk = events.size <= UINT32_MAX ? chunk_for(history, ENTRY_HEADER + events.size) : NULL;
    if (!chunk) {
        bop__history_reset(history, revision);
        return;
    }
    bop_store_u64(chunk->bytes + chunk->size, revision);
    bop_store_u32(chunk->bytes + chunk->size + 8, (uint32_t)events.size);
    memcpy(chunk->bytes + chunk->size + ENTRY_HEADER, events.data, events.size);
    chunk->size += ENTRY_HEADER + events.size;
    chunk->last = revision;
    history->last = revision;
}

bool bop__history_seek(const struct history *history, uint64_t after,
                       struct history_cursor *out_cursor)
{
    uint64_t low = history->first, high = history->next;
    const struct history_chunk *chunk;

    if (after < history->after) {
        return false;
    }
    /* The first chunk that ends above `after`. */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (chunk_at(history, middle)->last > after) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    *out_cursor = (struct history_cursor){.chunk = low};
    if (low < history->next) {
        chunk = chunk_at(history, low);
        while (bop_load_u64(chunk->bytes + out_cursor->at) <= after) {
            out_cursor->at += ENTRY_HEADER + bop_load_u32(chunk->bytes + out_cursor->at + 8);
        }
    }
    return true;
}

bool bop__history_next(const struct history *history, struct history_cursor *cursor,
                       uint64_t *out_revision, struct bop_slice *out_events)
{
    const struct history_chunk *chunk;

    while (cursor->chunk < history->next) {
        chunk = chunk_at(history, cursor->chunk);
        if (cursor->at < chunk->size) {
            const uint8_t *entry = chunk->bytes + cursor->at;

            *out_revision = bop_load_u64(entry);
            *out_events = bop_slice(entry + ENTRY_HEADER, bop_load_u32(entry + 8));
            cursor->at += ENTRY_HEADER + out_events->size;
            return true;
        }
        *cursor = (struct history_cursor){.chunk = cursor->chunk + 1};
    }
    return false;
}
