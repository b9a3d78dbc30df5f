/*
 * What the tests of packed segments share: sealed segments made in memory, sources and packed
 * files that are memory, and a disk.
 */
#ifndef BOP_TESTS_STORE_AOF_WARM_HARNESS_H
#define BOP_TESTS_STORE_AOF_WARM_HARNESS_H

#include <stdio.h>

#include <bop/sim.h>

#include "store/aof/format.h"
#include "store/aof/warm_format.h"
#include "tap.h"

#define PACKED_PATH "/warm/a.zst"

/* ---- Bytes as sources ---- */

struct memory_source {
    struct bop__segment_source source;
    const uint8_t *bytes;
    size_t slice_max; /* Gives no more at once than asked for, or this; 0: all it has. */
    uint64_t calls;
};

static int memory_at(struct bop__segment_source *source, uint64_t offset, size_t least,
                     struct bop_slice *out_bytes, struct bop_error *err)
{
    struct memory_source *self = BOP_CONTAINER_OF(source, struct memory_source, source);
    uint64_t left = offset < source->size ? source->size - offset : 0;

    (void)err;
    self->calls++;
    if (self->slice_max > 0) {
        left = bop_min_u64(left, bop_max_u64(least, self->slice_max));
    }
    *out_bytes = bop_slice(left > 0 ? self->bytes + offset : NULL, (size_t)left);
    return 0;
}

static void memory_close(struct bop__segment_source *source)
{
    (void)source;
}

BOP_UNUSED static struct memory_source memory_source(const uint8_t *data, size_t size)
{
    return (struct memory_source){
        .source = {.name = "memory.seg", .size = size, .at = memory_at, .close = memory_close},
        .bytes = data};
}

struct memory_packed {
    struct bop__packed packed;
    struct bop_slice bytes;
    unsigned reads;
    size_t read_bytes;
    /* What was asked for. */
    unsigned asks;
    uint64_t asked_offset;
    size_t asked_size;
    uint64_t asked_frame;
    bool closed;
};

static int memory_read(struct bop__packed *packed, uint64_t offset, size_t size,
                       struct bop_buf *out, struct bop_error *err)
{
    struct memory_packed *self = BOP_CONTAINER_OF(packed, struct memory_packed, packed);

    (void)err;
    BOP_ASSERT(offset <= self->bytes.size && size <= self->bytes.size - offset);
    self->reads++;
    self->read_bytes += size;
    return bop_buf_append(out, self->bytes.data + offset, size);
}

BOP_UNUSED static int memory_ask(struct bop__packed *packed, uint64_t offset, size_t size,
                                 uint64_t frame)
{
    struct memory_packed *self = BOP_CONTAINER_OF(packed, struct memory_packed, packed);

    self->asks++;
    self->asked_offset = offset;
    self->asked_size = size;
    self->asked_frame = frame;
    return BOP_EHYDRATING;
}

static void memory_packed_close(struct bop__packed *packed)
{
    BOP_CONTAINER_OF(packed, struct memory_packed, packed)->closed = true;
}

BOP_UNUSED static struct memory_packed memory_packed(struct bop_slice data)
{
    return (struct memory_packed){.packed = {.tier = BOP_AOF_COLD,
                                             .name = "memory.zst",
                                             .size = data.size,
                                             .read = memory_read,
                                             .close = memory_packed_close},
                                  .bytes = data};
}

/* ---- Segments ---- */

struct segment_options {
    uint64_t base;
    uint64_t generation;
    unsigned records;
    size_t length_max; /* Of a payload: random up to this. */
    size_t big_every;  /* Each so many-th record is of big_length. */
    size_t big_length;
    bool fillers; /* Here and there, up to the next block. */
    bool noise;   /* Payloads that cannot be compressed. */
    uint64_t seed;
};

/* A sealed segment's file. */
struct segment {
    struct bop_buf bytes;
    struct bop__segment_facts facts;
    uint64_t *offsets; /* Of the records. */
    unsigned records;
};

/* Append a record or a filler as the log would. */
static void put_entry(struct segment *s, uint32_t mark, uint64_t seq, uint64_t offset_seq,
                      size_t length, uint32_t salt, uint32_t *chain, const uint8_t *payload)
{
    size_t begin = s->bytes.size;
    size_t size = (size_t)bop__aof_record_size(length);
    struct bop__aof_record_header header = {
        .seq = seq,
        .tag = mark == BOP__AOF_HEADER_MARK ? seq * 3 : 0,
        .time_us = mark == BOP__AOF_HEADER_MARK ? seq * 1000 : 0,
        .durable_seq = offset_seq - 1,
        .payload_crc = bop_crc32c(0, payload, length),
        .chain = *chain,
        .length = mark | (uint32_t)length,
    };

    REQUIRE_EQ(bop_buf_reserve(&s->bytes, size), 0);
    memset(s->bytes.data + begin, 0, size);
    header.header_crc = bop__aof_header_crc(salt, &header);
    memcpy(s->bytes.data + begin, &header, sizeof(header));
    memcpy(s->bytes.data + begin + sizeof(header), payload, length);
    s->bytes.data[begin + size - 1] = BOP__AOF_END_MARK;
    s->bytes.size += size;
    *chain = bop__aof_link(&header);
}

static void fill_payload(const struct segment_options *o, struct bop_random *random,
                         uint8_t *payload, size_t length)
{
    static const char words[][8] = {"alpha", "beta", "gamma=1", "delta", "{\"id\":", "}, ", "0000"};

    for (size_t i = 0; i < length;) {
        if (o->noise) {
            payload[i++] = (uint8_t)bop_random_next(random);
        } else {
            const char *word = words[bop_random_below(random, BOP_COUNT_OF(words))];

            for (; *word && i < length; i++) {
                payload[i] = (uint8_t)*word++;
            }
        }
    }
}

static void put_filler(struct segment *s, uint64_t next, uint32_t salt, uint32_t *chain)
{
    uint8_t payload[2 * BOP__AOF_BLOCK];
    size_t left = BOP__AOF_BLOCK - s->bytes.size % BOP__AOF_BLOCK;

    left += left < BOP__AOF_FILLER_MIN ? BOP__AOF_BLOCK : 0;
    memset(payload, BOP__AOF_FILLER_BYTE, sizeof(payload));
    put_entry(s, BOP__AOF_FILLER_MARK, next, next, left - BOP__AOF_RECORD_HEADER - 1, salt, chain,
              payload);
}

static void put_records(struct segment *s, const struct segment_options *o)
{
    size_t room = bop_max_u64(o->length_max, o->big_length) + 1;
    uint8_t *payload = bop_alloc(bop_allocator_default(), room);
    uint32_t salt = bop__aof_salt(0, o->base, o->generation);
    uint32_t chain = salt;
    struct bop_random random;

    REQUIRE(payload != NULL);
    bop_random_seed(&random, o->seed);
    for (unsigned i = 0; i < o->records; i++) {
        bool big = o->big_every > 0 && i % o->big_every == o->big_every - 1;
        size_t length = big ? o->big_length : (size_t)bop_random_below(&random, o->length_max + 1);

        fill_payload(o, &random, payload, length);
        s->offsets[i] = s->bytes.size;
        put_entry(s, BOP__AOF_HEADER_MARK, o->base + i, o->base + i, length, salt, &chain, payload);
        s->facts.link = chain;
        if (o->fillers && i + 1 < o->records && bop_random_chance(&random, 1, 5)) {
            put_filler(s, o->base + i + 1, salt, &chain);
        }
    }
    bop_free(bop_allocator_default(), payload, room);
}

/* Make a sealed segment. */
BOP_UNUSED static void segment_make(struct segment *s, const struct segment_options *o)
{
    struct bop__aof_segment_header header = {.base = o->base,
                                             .generation = o->generation,
                                             .size = UINT64_C(1) << 40,
                                             .front = 1,
                                             .log_id = {1, 2, 3},
                                             .epoch = 7};
    struct bop__footer footer = {.facts = {.log_id = {1, 2, 3},
                                           .base = o->base,
                                           .end_seq = o->base + o->records,
                                           .generation = o->generation,
                                           .epoch = 7}};
    struct memory_source source;

    *s = (struct segment){.records = o->records};
    bop_buf_init(&s->bytes, NULL, 0);
    s->offsets = bop_alloc_array(bop_allocator_default(), o->records, sizeof(*s->offsets));
    REQUIRE(s->offsets != NULL);
    REQUIRE_EQ(bop_buf_reserve(&s->bytes, BOP__AOF_SEGMENT_HEADER), 0);
    bop__aof_segment_header_encode(&header, s->bytes.data);
    s->bytes.size = BOP__AOF_SEGMENT_HEADER;
    put_records(s, o);
    footer.facts.end = s->bytes.size;
    source = memory_source(s->bytes.data, s->bytes.size);
    REQUIRE_EQ(bop__footer_build(bop_allocator_default(), &source.source, &footer, NULL), 0);
    REQUIRE_EQ(bop__footer_encode(&footer, &s->bytes), 0);
    CHECK_EQ(footer.facts.link, s->facts.link);
    CHECK_EQ(footer.facts.size, s->bytes.size);
    s->facts = footer.facts;
    bop__footer_deinit(&footer);
}

BOP_UNUSED static void segment_free(struct segment *s)
{
    if (s->offsets) {
        bop_free(bop_allocator_default(), s->offsets, s->records * sizeof(*s->offsets));
    }
    bop_buf_deinit(&s->bytes);
}

/* ---- The fixture ---- */

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_sim *sim;
    struct bop_fs *fs;
    struct bop_error err;
    struct segment segment;
    struct bop__warm_pack_options options;
    struct bop__warm_facts facts; /* Of what was packed last. */
    struct bop_buf packed;        /* That file's bytes. */
    struct bop__frame_cache *cache;
};

static void setup(struct fixture *f)
{
    struct bop_fs_sim_options sim_options = {.seed = 1};

    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop_fs_sim_create(&sim_options, &f->sim), 0);
    f->fs = bop_fs_sim_fs(f->sim);
    REQUIRE_EQ(bop_fs_mkdirs(f->fs, "/warm"), 0);
    bop_buf_init(&f->packed, NULL, 0);
    REQUIRE_EQ(bop__frame_cache_create(&f->heap.allocator, 1u << 20, &f->cache), 0);
    f->options = (struct bop__warm_pack_options){
        .allocator = &f->heap.allocator, .fs = f->fs, .level = 1, .frame_bytes = 16384};
}

static void teardown(struct fixture *f)
{
    bop__frame_cache_destroy(f->cache);
    CHECK_EQ(f->heap.live, 0);
    segment_free(&f->segment);
    bop_buf_deinit(&f->packed);
    bop_fs_sim_destroy(f->sim);
}

FIXTURE(setup, teardown)

/* Pack the fixture's segment and read the file. */
BOP_UNUSED static int pack(struct fixture *f)
{
    struct memory_source source = memory_source(f->segment.bytes.data, f->segment.bytes.size);
    int rc = bop__warm_pack(&f->options, &source.source, PACKED_PATH, &f->facts, &f->err);

    if (rc == 0) {
        bop_buf_clear(&f->packed);
        REQUIRE_EQ(bop_fs_read_file(f->fs, PACKED_PATH, SIZE_MAX / 2, &f->packed), 0);
    }
    return rc;
}

BOP_UNUSED static void make_and_pack(struct fixture *f, const struct segment_options *o)
{
    segment_make(&f->segment, o);
    if (pack(f) != 0) {
        test_note("%s", f->err.message);
        REQUIRE_EQ(f->err.code, 0);
    }
}

/* Open the packed file through the fixture's cache. */
BOP_UNUSED static int open_packed(struct fixture *f, struct bop__segment_source **out_source)
{
    struct bop__packed *packed;
    int rc = bop__packed_file_open(&f->heap.allocator, f->fs, PACKED_PATH, &packed, &f->err);

    if (rc == 0) {
        rc = bop__warm_open(&f->heap.allocator, packed, f->cache, out_source, &f->err);
    }
    return rc;
}

#endif
