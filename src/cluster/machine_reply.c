/*
 * Replies: what the writes of sessions came to, in chunks of 64 sequences.
 *
 * A chunk holds every reply of its sequences until the session has acknowledged
 * all 64, and is then removed at once, by the write whose acknowledgement did it.
 * So what is stored follows from the entries applied alone. (Were replies left out
 * of a chunk one by one as they are acknowledged, what the store holds would
 * depend on when the chunk was last written.)
 *
 * A chunk also tells how far its session had acknowledged when the last reply
 * came into it. The highest of these over a session's chunks is how far it has
 * acknowledged now: the chunk of the write that said so is still there, for that
 * write's sequence is above what it acknowledged. So no record of a session has to
 * be written when it writes.
 */
#include "buggify.h"
#include "machine_internal.h"

static size_t slot_of(uint64_t session, uint64_t number)
{
    return (size_t)machine_mix(session, number) % MACHINE_CHUNK_SLOTS;
}

/* The chunk if it is in the cache, else NULL. */
static struct chunk_state *cache_find(struct chunk_cache *cache, uint64_t session, uint64_t number)
{
    for (size_t i = slot_of(session, number); cache->index[i] != 0;
         i = (i + 1) % MACHINE_CHUNK_SLOTS) {
        struct chunk_state *chunk = &cache->chunks[cache->index[i] - 1];

        if (chunk->session == session && chunk->number == number) {
            return chunk;
        }
    }
    return NULL;
}

static int cache_grow(struct machine *machine)
{
    struct chunk_cache *cache = &machine->chunks;
    size_t capacity = cache->capacity ? cache->capacity * 2 : MACHINE_CHUNKS_CACHED_MIN;
    struct chunk_state *chunks = bop_realloc(machine->allocator, cache->chunks,
                                             cache->capacity * sizeof(*chunks),
                                             capacity * sizeof(*chunks));

    if (!chunks) {
        return BOP_ENOMEM;
    }
    cache->chunks = chunks;
    cache->capacity = capacity;
    return 0;
}

/* A chunk that the cache has not, with nothing in it. */
static int cache_add(struct machine *machine, uint64_t session, uint64_t number,
                     struct chunk_state **out_chunk)
{
    struct chunk_cache *cache = &machine->chunks;
    struct chunk_state *chunk;
    size_t i = slot_of(session, number);
    int rc = 0;

    if (cache->count == MACHINE_CHUNKS_CACHED_MAX ||
        (cache->count > 0 && buggify(BUGGIFY_CHUNKS_FORGET))) {
        rc = bop__machine_replies_flush(machine);
        if (rc == 0) {
            bop__machine_replies_forget(machine);
        }
    } else if (cache->count == cache->capacity) {
        rc = cache_grow(machine);
    }
    if (rc < 0) {
        return rc;
    }
    while (cache->index[i] != 0) {
        i = (i + 1) % MACHINE_CHUNK_SLOTS;
    }
    chunk = &cache->chunks[cache->count++];
    cache->index[i] = (uint16_t)cache->count;
    chunk->session = session;
    chunk->number = number;
    chunk->stored = false;
    chunk->dirty = false;
    chunk->dead = false;
    chunk->chunk.acked = 0;
    chunk->chunk.applied = 0;
    *out_chunk = chunk;
    return 0;
}

int bop__machine_replies_flush(struct machine *machine)
{
    struct chunk_cache *cache = &machine->chunks;

    for (size_t i = 0; i < cache->count; i++) {
        struct chunk_state *chunk = &cache->chunks[i];
        uint8_t key[MACHINE_CHUNK_KEY], bytes[MACHINE_CHUNK_MAX];
        size_t size;
        int rc;

        if (!chunk->dirty || chunk->dead) {
            continue;
        }
        bop__machine_chunk_key(key, chunk->session, chunk->number);
        size = bop__machine_chunk_encode(bytes, &chunk->chunk);
        rc = bop__machine_put_lasting(machine, MACHINE_REPLIES, bop_slice(key, sizeof(key)),
                                      bop_slice(bytes, size));
        if (rc < 0) {
            return rc;
        }
        chunk->dirty = false;
        chunk->stored = true;
    }
    return 0;
}

void bop__machine_replies_forget(struct machine *machine)
{
    machine->chunks.count = 0;
    machine->chunks.dead = 0;
    if (machine->chunks.index) {
        memset(machine->chunks.index, 0, MACHINE_CHUNK_SLOTS * sizeof(*machine->chunks.index));
    }
}

void bop__machine_replies_tidy(struct machine *machine)
{
    if (machine->chunks.count >= MACHINE_CHUNKS_TIDY &&
        machine->chunks.dead > machine->chunks.count / 2) {
        bop__machine_replies_forget(machine);
    }
}

int bop__machine_replies_chunk(struct machine *machine, const struct session *session,
                               uint64_t sequence, struct chunk_state **out_chunk)
{
    uint64_t number = sequence / MACHINE_CHUNK_REPLIES;
    struct chunk_state *chunk = cache_find(&machine->chunks, session->id, number);
    uint8_t key[MACHINE_CHUNK_KEY];
    struct bop_slice value;
    int rc;

    BOP_DEBUG_ASSERT(session->loaded);
    if (chunk) {
        BOP_ASSERT(!chunk->dead);
        *out_chunk = chunk;
        return 0;
    }
    /* First: it may write what it holds to the store, which ends what a get has borrowed. */
    rc = cache_add(machine, session->id, number, &chunk);
    if (rc < 0 || number > session->chunk_last) {
        *out_chunk = chunk;
        return rc;
    }
    bop__machine_chunk_key(key, session->id, number);
    rc = bop_kv_get(machine->txn, machine->tables[MACHINE_REPLIES], bop_slice(key, sizeof(key)),
                    &value);
    if (rc == 0) {
        rc = bop__machine_chunk_decode(value, &chunk->chunk);
        chunk->stored = true;
    }
    *out_chunk = chunk;
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

/* Remove what of a chunk lies in the table of results. */
static int remove_large(struct machine *machine, uint64_t session, uint64_t number)
{
    struct bop_kv_cursor *cursor;
    struct bop_slice key, value;
    uint8_t from[MACHINE_CHUNK_KEY];
    int rc = bop_kv_cursor_open(machine->txn, machine->tables[MACHINE_RESULTS], &cursor);

    if (rc < 0) {
        return rc;
    }
    bop__machine_chunk_key(from, session, number * MACHINE_CHUNK_REPLIES);
    rc = bop_kv_cursor_seek(cursor, BOP_KV_AT_OR_AFTER, bop_slice(from, sizeof(from)), &key,
                            &value);
    while (rc == 0 && key.size == MACHINE_CHUNK_KEY && memcmp(key.data, from, 8) == 0 &&
           machine_load_be64(key.data + 8) / MACHINE_CHUNK_REPLIES == number) {
        rc = bop__machine_cursor_del_lasting(machine, MACHINE_RESULTS, cursor, key, value);
        if (rc == 0) {
            machine->large_results--;
            rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bop_slice(NULL, 0), &key, &value);
        }
    }
    bop_kv_cursor_close(cursor);
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

int bop__machine_large_put(struct machine *machine, uint64_t session, uint64_t sequence)
{
    uint8_t key[MACHINE_CHUNK_KEY];

    bop__machine_chunk_key(key, session, sequence);
    machine->large_results++;
    return bop__machine_put_lasting(machine, MACHINE_RESULTS, bop_slice(key, sizeof(key)),
                                    bop_buf_slice(&machine->large));
}

int bop__machine_large_get(struct machine *machine, uint64_t session, uint64_t sequence)
{
    uint8_t key[MACHINE_CHUNK_KEY];
    struct bop_slice value;
    int rc;

    bop__machine_chunk_key(key, session, sequence);
    rc = bop_kv_get(machine->txn, machine->tables[MACHINE_RESULTS], bop_slice(key, sizeof(key)),
                    &value);
    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? BOP_ECORRUPT : rc;
    }
    bop_buf_clear(&machine->large);
    return bop_buf_append(&machine->large, value.data, value.size);
}

int bop__machine_replies_remove(struct machine *machine, const struct session *session,
                                uint64_t first, uint64_t end)
{
    for (uint64_t number = first; number < end; number++) {
        struct chunk_state *chunk = cache_find(&machine->chunks, session->id, number);
        uint8_t key[MACHINE_CHUNK_KEY];
        int rc = machine->large_results > 0 ? remove_large(machine, session->id, number) : 0;

        if (rc < 0) {
            return rc;
        }
        if (chunk && !chunk->dead) {
            chunk->dead = true;
            machine->chunks.dead++;
        }
        if (chunk && !chunk->stored) {
            continue;
        }
        bop__machine_chunk_key(key, session->id, number);
        rc = bop__machine_del_lasting(machine, MACHINE_REPLIES, bop_slice(key, sizeof(key)));
        if (rc < 0 && rc != BOP_ENOTFOUND) {
            return rc;
        }
    }
    return 0;
}

/* Walk a session's chunks. The cursor stands where its first one would be. */
static int load_chunks(struct bop_kv_cursor *cursor, struct session *session)
{
    uint8_t from[MACHINE_CHUNK_KEY];
    struct bop_slice key, value;
    int rc;

    bop__machine_chunk_key(from, session->id, 0);
    rc = bop_kv_cursor_seek(cursor, BOP_KV_AT_OR_AFTER, bop_slice(from, sizeof(from)), &key,
                            &value);
    while (rc == 0 && key.size == MACHINE_CHUNK_KEY && memcmp(key.data, from, 8) == 0) {
        if (value.size < 8) {
            return BOP_ECORRUPT;
        }
        session->acked = bop_max_u64(session->acked, bop_load_u64(value.data));
        session->chunk_last = machine_load_be64(key.data + 8);
        rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bop_slice(NULL, 0), &key, &value);
    }
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

int bop__machine_replies_load(struct machine *machine, struct session *session)
{
    struct bop_kv_cursor *cursor;
    int rc;

    if (session->loaded) {
        return 0;
    }
    /* A session not loaded has nothing in the cache that the store has not. */
    rc = bop_kv_cursor_open(machine->txn, machine->tables[MACHINE_REPLIES], &cursor);
    if (rc == 0) {
        session->acked = 0;
        session->chunk_last = 0;
        rc = load_chunks(cursor, session);
        bop_kv_cursor_close(cursor);
    }
    session->loaded = rc == 0;
    return rc;
}
