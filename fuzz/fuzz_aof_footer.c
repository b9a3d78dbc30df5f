/*
 * The end of a segment file from somewhere: reading its footer never crashes, reads outside of the
 * file or takes memory beyond the file's size, and what is read leads to places in the file and is
 * written as it was.
 *
 * The input is a byte of mode and the file's end; what lies before is zeros. Mode bit 0: the
 * trailer's magic, version, size and checksum are made right. Bit 1: the checksum of the leaves
 * too. The other bits say how many bytes of zeros lie before, in steps of 1,024.
 */
#include <stdlib.h>

#include <bop/aof.h>

#include "store/aof/footer.h"
#include "store/aof/format.h"

#define INPUT_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- A file in memory ---- */

struct memory_source {
    struct bop__segment_source source;
    struct bop_buf file;
};

static int memory_at(struct bop__segment_source *self, uint64_t offset, size_t least,
                     struct bop_slice *out_bytes, struct bop_error *err)
{
    struct memory_source *m = BOP_CONTAINER_OF(self, struct memory_source, source);

    BOP_ASSERT(offset <= m->file.size && least <= m->file.size - offset);
    /* No more than asked for, so that a read beyond it is seen. */
    *out_bytes = bop_slice(m->file.data + offset, least);
    return 0;
}

/* ---- Allocations are bounded by the file ---- */

struct bounded {
    struct bop_allocator allocator;
    size_t size_max;
};

static void *bounded_alloc(struct bop_allocator *self, size_t size)
{
    BOP_ASSERT(size <= BOP_CONTAINER_OF(self, struct bounded, allocator)->size_max);
    return malloc(size);
}

static void *bounded_realloc(struct bop_allocator *self, void *memory, size_t old_size,
                             size_t new_size)
{
    BOP_ASSERT(new_size <= BOP_CONTAINER_OF(self, struct bounded, allocator)->size_max);
    return realloc(memory, new_size);
}

static void bounded_free(struct bop_allocator *self, void *memory, size_t size)
{
    free(memory);
}

/* ---- */

static void make_right(struct bop_buf *file, uint8_t mode)
{
    uint8_t *trailer = file->data + file->size - BOP__FOOTER_TRAILER;
    uint64_t end = bop_load_u64(trailer + 56);

    memcpy(trailer + 248, "BOPAOFFT", 8);
    bop_store_u32(trailer + 240, 1);
    bop_store_u64(trailer + 64, file->size);
    if ((mode & 2) && end <= file->size - BOP__FOOTER_TRAILER) {
        bop_store_u32(trailer + 144,
                      bop_crc32c(0, file->data + end, file->size - BOP__FOOTER_TRAILER - end));
    }
    bop_store_u32(trailer + 244, 0);
    bop_store_u32(trailer + 244, bop_crc32c(0, trailer, BOP__FOOTER_TRAILER));
}

static void check(const struct bop__footer *footer, const struct memory_source *m)
{
    const struct bop__segment_facts *facts = &footer->facts;
    struct bop__footer copy = *footer;
    struct bop_buf again;

    for (uint64_t i = 0; i < 64; i++) {
        uint64_t seq = facts->base + (facts->end_seq - facts->base) / 64 * i;
        const struct bop__footer_leaf *leaf = bop__footer_find(footer, seq);

        BOP_ASSERT(leaf->seq <= seq && leaf->offset < facts->end);
        BOP_ASSERT(leaf->stride == 0 ||
                   leaf->offset + (seq - leaf->seq + 1) * leaf->stride <= facts->end);
    }
    bop_buf_init(&again, NULL, 0);
    BOP_ASSERT(bop__footer_encode(&copy, &again) == 0);
    BOP_ASSERT(copy.facts.size == m->file.size);
    BOP_ASSERT(again.size == m->file.size - facts->end);
    BOP_ASSERT(memcmp(again.data, m->file.data + facts->end, again.size) == 0);
    bop_buf_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memory_source m = {.source = {.name = "file", .at = memory_at}};
    struct bounded bounded = {
        .allocator = {.alloc = bounded_alloc, .realloc = bounded_realloc, .free = bounded_free}};
    struct bop__footer facts_only, footer;
    size_t before;
    int rc;

    if (size < 1 || size > INPUT_MAX) {
        return 0;
    }
    before = (size_t)(data[0] >> 2) * 1024;
    bop_buf_init(&m.file, NULL, 0);
    BOP_ASSERT(bop_buf_reserve(&m.file, before + size) == 0);
    memset(m.file.data, 0, before);
    m.file.size = before;
    BOP_ASSERT(bop_buf_append(&m.file, data + 1, size - 1) == 0);
    if ((data[0] & 1) && size - 1 >= BOP__FOOTER_TRAILER) {
        make_right(&m.file, data[0]);
    }
    m.source.size = m.file.size;
    bounded.size_max = 2 * m.file.size;
    rc = bop__footer_read(&bounded.allocator, &m.source, true, &facts_only, NULL);
    if (bop__footer_read(&bounded.allocator, &m.source, false, &footer, NULL) == 0) {
        BOP_ASSERT(rc == 0 && facts_only.facts.end == footer.facts.end);
        check(&footer, &m);
        bop__footer_deinit(&footer);
    }
    bop_buf_deinit(&m.file);
    return 0;
}
