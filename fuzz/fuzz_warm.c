/*
 * Packed segments from anybody: opening, reading, verifying and unpacking them never reads outside
 * of anything; what can be read is the same however it is read, and what is verified can be
 * unpacked to just that.
 *
 * The first byte says what the rest is. Bit 0: checksums and sizes of the tail are put right first,
 * for random bytes never have them. Bit 1: those of the frames too, so that zstd gets to see them.
 */
#include <bop/random.h>
#include <bop/sim.h>

#include "store/aof/warm_format.h"

#define INPUT_MAX   (256u * 1024)
#define READS       40u
#define CACHE_BYTES 8192u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- Repairing ---- */

struct parts {
    uint8_t *bytes;
    size_t size;
    size_t table;
    size_t entries;
    struct bop__warm_trailer trailer;
};

static bool find_parts(struct parts *p, uint8_t *bytes, size_t size)
{
    uint64_t table_size;

    *p = (struct parts){.bytes = bytes, .size = size};
    if (size < bop__seek_table_size(0) + BOP__WARM_TRAILER_SIZE + BOP__WARM_SKIPPABLE_HEADER) {
        return false;
    }
    p->entries = bop_load_u32(bytes + size - BOP__SEEK_END_SIZE);
    table_size = bop__seek_table_size(p->entries);
    if (p->entries > size || table_size > size - BOP__WARM_TRAILER_SIZE) {
        return false;
    }
    p->table = size - (size_t)table_size;
    memcpy(&p->trailer, bytes + p->table - BOP__WARM_TRAILER_SIZE, sizeof(p->trailer));
    return true;
}

static void repair_frames(struct parts *p)
{
    size_t index = p->table - p->trailer.content_size;
    size_t at = 0;

    for (size_t i = 0; i < p->entries && i < p->trailer.frames; i++) {
        size_t size = bop_load_u32(p->bytes + p->table + 8 + i * BOP__SEEK_ENTRY_SIZE);
        uint8_t *crc = p->bytes + index + i * BOP__WARM_INDEX_SIZE + 8;

        if (size > p->size - at || crc + 4 > p->bytes + p->size) {
            return;
        }
        bop_store_u32(crc, bop_crc32c(0, p->bytes + at, size));
        at += size;
    }
}

static void repair(uint8_t *bytes, size_t size, bool frames)
{
    struct parts p;
    struct bop__warm_trailer *t = &p.trailer;

    if (!find_parts(&p, bytes, size)) {
        return;
    }
    t->magic = BOP__WARM_MAGIC;
    t->version = BOP__WARM_VERSION;
    t->flags = 0;
    t->packed_size = size;
    if (t->content_size >= BOP__WARM_TRAILER_SIZE && t->content_size <= p.table) {
        if (frames) {
            repair_frames(&p);
        }
        t->index_crc = bop_crc32c(0, bytes + p.table - t->content_size,
                                  t->content_size - BOP__WARM_TRAILER_SIZE);
        if (t->dictionary_size > 0 &&
            t->dictionary_size < p.table - t->content_size - BOP__WARM_SKIPPABLE_HEADER) {
            t->dictionary_crc = bop_crc32c(0,
                                           bytes + p.table - t->content_size -
                                               BOP__WARM_SKIPPABLE_HEADER - t->dictionary_size,
                                           t->dictionary_size);
        }
    }
    t->table_crc = bop_crc32c(0, bytes + p.table, size - p.table);
    t->crc = bop__warm_trailer_crc(t);
    memcpy(bytes + p.table - BOP__WARM_TRAILER_SIZE, t, sizeof(*t));
}

/* ---- Using it ---- */

struct memory_packed {
    struct bop__packed packed;
    const uint8_t *bytes;
};

static int memory_read(struct bop__packed *packed, uint64_t offset, size_t size,
                       struct bop_buf *out, struct bop_error *err)
{
    struct memory_packed *self = BOP_CONTAINER_OF(packed, struct memory_packed, packed);

    (void)err;
    BOP_ASSERT(offset <= packed->size && size <= packed->size - offset);
    return bop_buf_append(out, self->bytes + offset, size);
}

static void memory_close(struct bop__packed *packed)
{
    (void)packed;
}

static struct memory_packed memory_packed(const uint8_t *bytes, size_t size)
{
    return (struct memory_packed){
        .packed = {.name = "fuzz", .size = size, .read = memory_read, .close = memory_close},
        .bytes = bytes};
}

/* Read all of it front to back. False if some of it cannot be read. */
static bool read_all(struct bop__segment_source *source, struct bop_buf *out)
{
    bool all = true;

    for (uint64_t at = 0; at < source->size;) {
        struct bop_slice got = {0};

        if (source->at(source, at, 1, &got, NULL) == 0) {
            BOP_ASSERT(got.size > 0 && got.size <= source->size - at);
            BOP_ASSERT(bop_buf_append(out, got.data, got.size) == 0);
            at += got.size;
        } else {
            all = false;
            at += 1 + at / 2;
        }
    }
    return all;
}

static void read_here_and_there(struct bop__segment_source *source, const struct bop_buf *all,
                                bool whole)
{
    struct bop_random random;

    bop_random_seed(&random, source->size);
    for (unsigned i = 0; i < READS; i++) {
        uint64_t at = bop_random_below(&random, source->size);
        size_t least = (size_t)bop_random_below(&random, 10000);
        struct bop_slice got = {0};
        uint64_t seq, offset;

        if (source->at(source, at, least, &got, NULL) == 0) {
            BOP_ASSERT(got.size >= bop_min_u64(least, source->size - at));
            BOP_ASSERT(!whole || memcmp(got.data, all->data + at, got.size) == 0);
        } else {
            BOP_ASSERT(!whole);
        }
        if (source->find(source, bop_random_next(&random) >> (i % 64), &seq, &offset)) {
            BOP_ASSERT(offset < source->size);
        }
    }
}

static void use(const uint8_t *bytes, size_t size)
{
    struct memory_packed packed = memory_packed(bytes, size);
    struct bop__frame_cache *cache;
    struct bop__segment_source *source;

    BOP_ASSERT(bop__frame_cache_create(NULL, CACHE_BYTES, &cache) == 0);
    if (bop__warm_open(NULL, &packed.packed, cache, &source, NULL) == 0) {
        struct bop_buf all;
        bool whole;

        bop_buf_init(&all, NULL, 0);
        whole = read_all(source, &all);
        read_here_and_there(source, &all, whole);
        BOP_IGNORE(bop__warm_load(source, 0, BOP__WARM_LOAD_MAX, NULL)); /* What there is. */
        source->close(source);
        bop_buf_deinit(&all);
    }
    bop__frame_cache_destroy(cache);
}

/* What is verified can be unpacked, and what can be unpacked was verified. */
static void verify_and_unpack(const uint8_t *bytes, size_t size)
{
    struct bop_fs_sim_options options = {.seed = 1};
    struct memory_packed packed = memory_packed(bytes, size);
    struct bop__warm_facts facts = {0};
    struct bop_fs_sim *sim;
    struct parts parts;
    int rc, rc_unpack;

    if (!find_parts(&parts, (uint8_t *)bytes, size)) {
        return;
    }
    rc = bop__warm_verify(NULL, &packed.packed, parts.trailer.facts.root, &facts, NULL);
    BOP_ASSERT(bop_fs_sim_create(&options, &sim) == 0);
    rc_unpack = bop__warm_unpack(NULL, bop_fs_sim_fs(sim), &packed.packed, "/out", NULL);
    BOP_ASSERT((rc == 0) == (rc_unpack == 0));
    BOP_ASSERT(bop_fs_exists(bop_fs_sim_fs(sim), "/out") == (rc == 0));
    bop_fs_sim_destroy(sim);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *bytes;

    if (size < 2 || size > INPUT_MAX) {
        return 0;
    }
    /* Of its own, so that the sanitizer sees its bounds. */
    bytes = bop_alloc(bop_allocator_default(), size - 1);
    BOP_ASSERT(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    if (data[0] & 1) {
        repair(bytes, size - 1, data[0] & 2);
    }
    use(bytes, size - 1);
    verify_and_unpack(bytes, size - 1);
    bop_free(bop_allocator_default(), bytes, size - 1);
    return 0;
}
