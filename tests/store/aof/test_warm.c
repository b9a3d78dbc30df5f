/*
 * Packing, reading, verifying and unpacking whole files.
 */
#include "warm_harness.h"

#include <zstd.h>

static const struct segment_options some = {
    .base = 100, .generation = 5, .records = 700, .length_max = 400, .seed = 1};

static void open_or_fail(struct fixture *f, struct bop__segment_source **out_source)
{
    int rc = open_packed(f, out_source);

    if (rc != 0) {
        test_note("%s", f->err.message);
    }
    REQUIRE_EQ(rc, 0);
}

static void check_bytes(struct fixture *f, struct bop__segment_source *source, uint64_t offset,
                        size_t least)
{
    struct bop_slice want = bop_slice(f->segment.bytes.data + offset,
                                      f->segment.bytes.size - offset);
    struct bop_slice got;

    REQUIRE_EQ(source->at(source, offset, least, &got, &f->err), 0);
    CHECK(got.size >= bop_min_u64(least, want.size));
    REQUIRE(got.size <= want.size);
    want.size = got.size;
    CHECK_SLICE_EQ(got, want);
}

/* ---- The format, by its description and nothing of ours ---- */

static uint32_t u32_at(const struct fixture *f, size_t offset)
{
    REQUIRE(offset + 4 <= f->packed.size);
    return bop_load_u32(f->packed.data + offset);
}

TEST(warm, file_is_as_the_seekable_format_says)
{
    size_t size, table, entries, at = 0, plain_at = 0;
    uint8_t plain[16384];

    make_and_pack(f, &some);
    size = f->packed.size;
    CHECK_EQ(u32_at(f, size - 4), 0x8F92EAB1);
    CHECK_EQ(f->packed.data[size - 5], 0);
    entries = u32_at(f, size - 9);
    table = size - 17 - 8 * entries;
    CHECK_EQ(u32_at(f, table), 0x184D2A5E);
    CHECK_EQ(u32_at(f, table + 4), 9 + 8 * entries);
    for (size_t i = 0; i < entries; i++) {
        size_t packed_size = u32_at(f, table + 8 + 8 * i);
        size_t plain_size = u32_at(f, table + 12 + 8 * i);

        REQUIRE(at + packed_size <= table);
        if (plain_size > 0) {
            REQUIRE(plain_size <= sizeof(plain));
            CHECK_EQ(ZSTD_decompress(plain, sizeof(plain), f->packed.data + at, packed_size),
                     plain_size);
            CHECK_MEM_EQ(plain, f->segment.bytes.data + plain_at, plain_size);
            /* The descriptor of the frame's header: it has a checksum. */
            CHECK(f->packed.data[at + 4] & 4);
        } else {
            CHECK_EQ(u32_at(f, at) & 0xfffffff0, 0x184D2A50);
            CHECK_EQ(u32_at(f, at + 4), packed_size - 8);
        }
        at += packed_size;
        plain_at += plain_size;
    }
    CHECK_EQ(at, table);
    CHECK_EQ(plain_at, f->segment.bytes.size);
}

TEST(warm, trailer_is_where_and_what_the_document_says)
{
    const struct bop__segment_facts *facts = &f->segment.facts;
    size_t size, table, t;

    make_and_pack(f, &some);
    size = f->packed.size;
    table = size - 17 - 8 * u32_at(f, size - 9);
    t = table - 256;
    CHECK_MEM_EQ(f->packed.data + t, facts->log_id, 16);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 16), 100);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 24), 800);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 32), 5);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 40), 7);
    CHECK_EQ(u32_at(f, t + 52), facts->link);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 56), facts->end);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 64), facts->size);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 72), 100000);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 80), 799000);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 88), 300);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 96), 2397);
    CHECK_MEM_EQ(f->packed.data + t + 104, facts->root, 32);
    CHECK_EQ(u32_at(f, t + 136), f->facts.frames);
    CHECK_EQ(u32_at(f, t + 144), 0);
    CHECK_EQ(u32_at(f, t + 152), 16384);
    CHECK_EQ(bop_load_u64(f->packed.data + t + 160), size);
    CHECK_EQ(u32_at(f, t + 172), bop_crc32c(0, f->packed.data + table, size - table));
    CHECK_EQ(u32_at(f, t + 176), 256 + 12 * f->facts.frames);
    CHECK_EQ(u32_at(f, t + 240), 1);
    CHECK_MEM_EQ(f->packed.data + t + 248, "BOPWARM1", 8);
    CHECK_EQ(u32_at(f, table - u32_at(f, t + 176) - 8), 0x184D2A5B);
}

/* ---- Packing ---- */

TEST(warm, says_what_was_packed)
{
    struct bop__warm_facts verified;
    struct bop__packed *packed;

    make_and_pack(f, &some);
    CHECK_EQ(f->facts.packed_size, f->packed.size);
    CHECK(f->packed.size < f->segment.bytes.size / 2);
    CHECK_EQ(f->facts.segment.base, 100);
    CHECK_EQ(f->facts.segment.end_seq, 800);
    CHECK_EQ(f->facts.segment.size, f->segment.bytes.size);
    REQUIRE_EQ(bop__packed_file_open(NULL, f->fs, PACKED_PATH, &packed, &f->err), 0);
    REQUIRE_EQ(bop__warm_verify(NULL, packed, f->segment.facts.root, &verified, &f->err), 0);
    CHECK_EQ(verified.packed_size, f->facts.packed_size);
    CHECK_EQ(verified.frames, f->facts.frames);
    CHECK_EQ(verified.segment.end, f->segment.facts.end);
    CHECK_MEM_EQ(verified.sha256, f->facts.sha256, 32);
    packed->close(packed);
    CHECK(!bop_fs_exists(f->fs, PACKED_PATH ".tmp"));
}

TEST(warm, wants_sizes_it_can_do)
{
    segment_make(&f->segment, &some);
    f->options.frame_bytes = BOP__WARM_FRAME_MIN - 1;
    CHECK_EQ(pack(f), BOP_EINVAL);
    f->options.frame_bytes = BOP__WARM_FRAME_MAX + 1;
    CHECK_EQ(pack(f), BOP_EINVAL);
    f->options.frame_bytes = 16384;
    f->options.dictionary_bytes = 100;
    CHECK_EQ(pack(f), BOP_EINVAL);
    f->options.dictionary_bytes = BOP__WARM_DICTIONARY_MAX + 1;
    CHECK_EQ(pack(f), BOP_EINVAL);
}

TEST(warm, packs_nothing_that_is_not_sealed)
{
    segment_make(&f->segment, &some);
    f->segment.bytes.size = f->segment.facts.end;
    CHECK_EQ(pack(f), BOP_ENOTFOUND);
    CHECK(!bop_fs_exists(f->fs, PACKED_PATH));
}

/* Each record is checked on the way, and so is the root over them. */
TEST(warm, packs_nothing_that_is_damaged)
{
    segment_make(&f->segment, &some);
    for (size_t i = 0; i < 50; i++) {
        size_t at = BOP__AOF_SEGMENT_HEADER + i * (f->segment.facts.end - 5000) / 50;

        f->segment.bytes.data[at] ^= 0x10;
        CHECK_EQ(pack(f), BOP_ECORRUPT);
        CHECK_STR_HAS(f->err.message, "memory.seg");
        CHECK(!bop_fs_exists(f->fs, PACKED_PATH));
        CHECK(!bop_fs_exists(f->fs, PACKED_PATH ".tmp"));
        f->segment.bytes.data[at] ^= 0x10;
    }
    CHECK_EQ(pack(f), 0);
}

static void cancel_late(void *user, uint64_t done)
{
    if (done > 50000) {
        atomic_store((_Atomic bool *)user, true);
    }
}

TEST(warm, packing_can_be_canceled)
{
    _Atomic bool cancel = true;

    segment_make(&f->segment, &some);
    f->options.cancel = &cancel;
    CHECK_EQ(pack(f), BOP_ECANCELED);
    atomic_store(&cancel, false);
    f->options.on_progress = cancel_late;
    f->options.user = &cancel;
    CHECK_EQ(pack(f), BOP_ECANCELED);
    CHECK(!bop_fs_exists(f->fs, PACKED_PATH));
    CHECK(!bop_fs_exists(f->fs, PACKED_PATH ".tmp"));
}

static void remember(void *user, uint64_t done)
{
    uint64_t *last = user;

    CHECK(done > *last);
    *last = done;
}

TEST(warm, packing_tells_its_progress)
{
    uint64_t last = 0;

    segment_make(&f->segment, &some);
    f->options.on_progress = remember;
    f->options.user = &last;
    CHECK_EQ(pack(f), 0);
    CHECK_EQ(last, f->segment.bytes.size);
}

static void check_memory(void *user, uint64_t done)
{
    const struct test_heap *heap = user;

    (void)done;
    CHECK(heap->live < 1u << 20);
}

/* Of a segment of many MiB only a few frames are in memory at a time. */
TEST(warm, packing_takes_little_memory)
{
    struct test_heap heap;
    struct bop_faults faults = {0};
    struct segment_options big = some;
    struct memory_source source;

    big.records = 20000;
    big.length_max = 800;
    segment_make(&f->segment, &big);
    CHECK(f->segment.bytes.size > 8u << 20);
    source = memory_source(f->segment.bytes.data, f->segment.bytes.size);
    source.slice_max = 65536;
    test_heap_init(&heap, &faults);
    f->options.allocator = &heap.allocator;
    f->options.on_progress = check_memory;
    f->options.user = &heap;
    REQUIRE_EQ(bop__warm_pack(&f->options, &source.source, PACKED_PATH, &f->facts, &f->err), 0);
    CHECK_EQ(heap.live, 0);
    CHECK(source.calls < 2 * big.records); /* One pass, and not many calls a record. */
}

/* ---- Reading ---- */

TEST(warm, gives_the_segment_back)
{
    struct bop__segment_source *source;

    make_and_pack(f, &some);
    open_or_fail(f, &source);
    CHECK_EQ(source->size, f->segment.bytes.size);
    CHECK_EQ(source->tier, BOP_AOF_WARM);
    CHECK_STR_EQ(source->name, PACKED_PATH);
    CHECK_EQ(bop__warm_segment(source)->generation, 5);
    CHECK_MEM_EQ(bop__warm_segment(source)->root, f->segment.facts.root, 32);
    for (uint64_t at = 0; at < source->size; at += 777) {
        check_bytes(f, source, at, 1);
    }
    check_bytes(f, source, 0, f->segment.bytes.size);
    check_bytes(f, source, 0, SIZE_MAX);
    check_bytes(f, source, source->size - 1, 10);
    check_bytes(f, source, source->size, 10);
    source->close(source);
}

TEST(warm, reads_the_footer_through_the_source)
{
    struct bop__footer footer;
    struct bop__segment_source *source;

    make_and_pack(f, &some);
    open_or_fail(f, &source);
    REQUIRE_EQ(bop__footer_read(&f->heap.allocator, source, false, &footer, &f->err), 0);
    CHECK_EQ(footer.facts.end_seq, 800);
    CHECK(footer.leaf_count > 1);
    bop__footer_deinit(&footer);
    source->close(source);
}

/* One record is one frame: the tail was read at opening, and then one read brings one frame. */
TEST(warm, reads_a_record_with_one_frame)
{
    struct memory_packed packed;
    struct bop__segment_source *source;
    unsigned before;

    make_and_pack(f, &some);
    packed = memory_packed(bop_buf_slice(&f->packed));
    REQUIRE_EQ(bop__warm_open(NULL, &packed.packed, f->cache, &source, &f->err), 0);
    CHECK_EQ(packed.reads, 1);
    for (uint64_t seq = 100; seq < 800; seq += 31) {
        uint64_t near_seq = 0, near_at = 0, at = f->segment.offsets[seq - 100];
        size_t bytes_before = packed.read_bytes;
        struct bop__aof_record_header header;
        struct bop_slice got;

        before = packed.reads;
        REQUIRE(source->find(source, seq, &near_seq, &near_at));
        CHECK(near_seq <= seq);
        CHECK_EQ(near_at, f->segment.offsets[near_seq - 100]);
        REQUIRE_EQ(source->at(source, near_at, 48, &got, &f->err), 0);
        /* The wanted one is in the same bytes, whole. */
        REQUIRE(at - near_at + 48 <= got.size);
        memcpy(&header, got.data + (at - near_at), sizeof(header));
        CHECK_EQ(header.seq, seq);
        CHECK(at - near_at + bop__aof_record_size(bop__aof_record_length(&header)) <= got.size);
        CHECK(packed.reads <= before + 1);
        CHECK(packed.read_bytes - bytes_before <= ZSTD_compressBound(16384));
    }
    before = packed.reads;
    check_bytes(f, source, f->segment.facts.end, 100); /* The footer came with the tail. */
    CHECK_EQ(packed.reads, before);
    source->close(source);
    CHECK(packed.closed);
}

TEST(warm, finds_only_what_is_there)
{
    struct bop__segment_source *source;
    uint64_t seq, offset;

    make_and_pack(f, &some);
    open_or_fail(f, &source);
    CHECK(!source->find(source, 99, &seq, &offset));
    CHECK(!source->find(source, 800, &seq, &offset));
    REQUIRE(source->find(source, 100, &seq, &offset));
    CHECK_EQ(seq, 100);
    CHECK_EQ(offset, BOP__AOF_SEGMENT_HEADER);
    CHECK(source->find(source, 799, &seq, &offset));
    source->close(source);
}

/* ---- Any segment, any read ---- */

static void check_finds(struct fixture *f, struct bop__segment_source *source)
{
    const struct bop__segment_facts *facts = &f->segment.facts;

    for (uint64_t seq = facts->base; seq < facts->end_seq; seq++) {
        uint64_t near_seq = 0, near_at = 0;
        uint64_t at = f->segment.offsets[seq - facts->base];
        struct bop_slice got;

        REQUIRE(source->find(source, seq, &near_seq, &near_at));
        CHECK(near_seq <= seq);
        CHECK_EQ(near_at, f->segment.offsets[near_seq - facts->base]);
        /* In the same frame, or else it begins one. */
        REQUIRE_EQ(source->at(source, near_at, 1, &got, &f->err), 0);
        CHECK(at - near_at < got.size);
    }
}

static void check_any_segment(struct fixture *f, uint64_t seed)
{
    static const size_t frames[] = {1024, 4096, 16384, 65536};
    struct segment_options o = {.generation = seed + 1, .seed = seed};
    struct bop__segment_source *source;
    struct bop_random random;

    bop_random_seed(&random, seed);
    o.base = 1 + bop_random_below(&random, 1000);
    o.records = 1 + (unsigned)bop_random_below(&random, 300);
    o.length_max = (size_t)1 << bop_random_below(&random, 11);
    o.big_every = bop_random_chance(&random, 1, 2) ? 1 + bop_random_below(&random, 60) : 0;
    o.big_length = 1000 + bop_random_below(&random, 40000);
    o.fillers = bop_random_chance(&random, 1, 2);
    o.noise = bop_random_chance(&random, 1, 3);
    f->options.frame_bytes = frames[bop_random_below(&random, BOP_COUNT_OF(frames))];
    f->options.level = (int)bop_random_below(&random, 9) - 5;
    f->options.dictionary_bytes = bop_random_chance(&random, 1, 3) ? 4096 : 0;
    make_and_pack(f, &o);
    open_or_fail(f, &source);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t at = bop_random_below(&random, source->size);
        size_t least = bop_random_chance(&random, 1, 3) ? 200000 : 3000;

        check_bytes(f, source, at, (size_t)bop_random_below(&random, least));
    }
    check_finds(f, source);
    source->close(source);
    segment_free(&f->segment);
    f->segment = (struct segment){0};
}

TEST(warm, any_read_of_any_segment_gives_its_bytes)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        check_any_segment(f, seed);
    }
}

/* A reader that asks for much at each small step does not read frames again and again. */
TEST(warm, reading_on_reads_each_frame_once)
{
    struct memory_packed packed;
    struct bop__segment_source *source;

    make_and_pack(f, &some);
    packed = memory_packed(bop_buf_slice(&f->packed));
    REQUIRE_EQ(bop__warm_open(&f->heap.allocator, &packed.packed, NULL, &source, &f->err), 0);
    for (unsigned i = 0; i < some.records; i++) {
        check_bytes(f, source, f->segment.offsets[i], 60000);
    }
    CHECK(packed.read_bytes <= 2 * f->packed.size + BOP__WARM_FRAME_MAX);
    CHECK(packed.reads <= 2 * f->facts.frames);
    source->close(source);
}

/* ---- Dictionaries ---- */

TEST(warm, a_dictionary_helps_small_frames)
{
    struct segment_options o = some;
    struct bop__segment_source *source;
    size_t without;

    o.records = 3000;
    f->options.frame_bytes = 1024;
    make_and_pack(f, &o);
    without = f->packed.size;
    f->options.dictionary_bytes = 8192;
    REQUIRE_EQ(pack(f), 0);
    CHECK(f->packed.size < without);
    open_or_fail(f, &source);
    check_bytes(f, source, 0, SIZE_MAX);
    source->close(source);
    open_or_fail(f, &source); /* With the map, and so the dictionary, from the cache. */
    check_bytes(f, source, 5000, 100);
    source->close(source);
}

TEST(warm, does_without_a_dictionary_if_nothing_can_be_learned)
{
    struct segment_options o = some;
    size_t table;

    o.records = 5;
    f->options.dictionary_bytes = 8192;
    make_and_pack(f, &o);
    table = f->packed.size - 17 - 8 * u32_at(f, f->packed.size - 9);
    CHECK_EQ(u32_at(f, table - 256 + 144), 0);
}

/* ---- Verifying and unpacking ---- */

TEST(warm, unpacks_the_file_as_it_was)
{
    struct segment_options o = some;
    struct bop__packed *packed;
    struct bop_buf back;

    o.fillers = true;
    o.big_every = 50;
    o.big_length = 30000;
    make_and_pack(f, &o);
    bop_buf_init(&back, NULL, 0);
    REQUIRE_EQ(bop__packed_file_open(&f->heap.allocator, f->fs, PACKED_PATH, &packed, &f->err), 0);
    REQUIRE_EQ(bop__warm_unpack(&f->heap.allocator, f->fs, packed, "/warm/b.seg", &f->err), 0);
    packed->close(packed);
    REQUIRE_EQ(bop_fs_read_file(f->fs, "/warm/b.seg", SIZE_MAX / 2, &back), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&back), bop_buf_slice(&f->segment.bytes));
    bop_buf_deinit(&back);
    CHECK(!bop_fs_exists(f->fs, "/warm/b.seg.tmp"));
}

/* Front to back, each byte once but for the tail. */
TEST(warm, verifying_reads_the_file_once)
{
    struct segment_options o = some;
    struct memory_packed packed;
    struct bop__warm_facts facts;

    o.records = 20000;
    o.noise = true;
    make_and_pack(f, &o);
    CHECK(f->packed.size > 3u << 20);
    packed = memory_packed(bop_buf_slice(&f->packed));
    REQUIRE_EQ(bop__warm_verify(&f->heap.allocator, &packed.packed, f->segment.facts.root, &facts,
                                &f->err),
               0);
    CHECK(packed.read_bytes < f->packed.size + f->packed.size / 10 + (256u << 10));
    CHECK(packed.reads <= f->packed.size / (1u << 20) + 4);
    CHECK(!packed.closed);
}

TEST(warm, verifying_wants_the_root_it_is_told)
{
    uint8_t root[32];
    struct bop__packed *packed;
    struct bop__warm_facts facts;

    make_and_pack(f, &some);
    memcpy(root, f->segment.facts.root, sizeof(root));
    root[31] ^= 1;
    REQUIRE_EQ(bop__packed_file_open(NULL, f->fs, PACKED_PATH, &packed, &f->err), 0);
    CHECK_EQ(bop__warm_verify(NULL, packed, root, &facts, &f->err), BOP_ECORRUPT);
    CHECK_STR_HAS(f->err.message, PACKED_PATH);
    CHECK_STR_HAS(f->err.message, "root");
    packed->close(packed);
}

/* ---- Bytes that are far away ---- */

TEST(warm, asks_instead_of_blocking)
{
    struct memory_packed near, far;
    struct bop__segment_source *loader, *source;
    struct bop_slice got;

    make_and_pack(f, &some);
    near = memory_packed(bop_buf_slice(&f->packed));
    far = memory_packed(bop_buf_slice(&f->packed));
    near.packed.file_number = far.packed.file_number = 77;
    far.packed.ask = memory_ask;
    CHECK_EQ(bop__warm_open(NULL, &far.packed, f->cache, &source, &f->err), BOP_EHYDRATING);
    CHECK(far.closed);
    CHECK_EQ(far.asked_frame, BOP__WARM_TAIL);
    CHECK_EQ(far.asked_offset + far.asked_size, f->packed.size);

    REQUIRE_EQ(bop__warm_open(NULL, &near.packed, f->cache, &loader, &f->err), 0);
    REQUIRE_EQ(bop__warm_open(NULL, &far.packed, f->cache, &source, &f->err), 0);
    check_bytes(f, source, f->segment.facts.end, 256); /* The footer came with the tail. */
    CHECK_EQ(source->at(source, 20000, 100, &got, &f->err), BOP_EHYDRATING);
    CHECK_EQ(far.asks, 2);
    REQUIRE_EQ(bop__warm_load(loader, far.asked_frame, 1, &f->err), 0);
    check_bytes(f, source, 20000, 100);
    CHECK_EQ(far.asks, 2);
    CHECK_EQ(far.reads, 0);

    /* What spans frames is asked for at once. */
    CHECK_EQ(source->at(source, 40000, 60000, &got, &f->err), BOP_EHYDRATING);
    CHECK(far.asked_size > 3 * 1000);
    REQUIRE_EQ(bop__warm_load(loader, far.asked_frame, 5, &f->err), 0);
    check_bytes(f, source, 40000, 60000);
    CHECK_EQ(far.asks, 3);
    source->close(source);
    loader->close(loader);
}

TEST(warm, loads_with_one_read)
{
    struct memory_packed packed;
    struct bop__segment_source *source;
    unsigned reads;

    make_and_pack(f, &some);
    packed = memory_packed(bop_buf_slice(&f->packed));
    REQUIRE_EQ(bop__warm_open(NULL, &packed.packed, f->cache, &source, &f->err), 0);
    reads = packed.reads;
    REQUIRE_EQ(bop__warm_load(source, 1, 4, &f->err), 0);
    CHECK_EQ(packed.reads, reads + 1);
    REQUIRE_EQ(bop__warm_load(source, 0, UINT_MAX, &f->err), 0);
    CHECK(packed.reads <= reads + 3);
    reads = packed.reads;
    REQUIRE_EQ(bop__warm_load(source, 0, UINT_MAX, &f->err), 0);
    REQUIRE_EQ(bop__warm_load(source, bop__warm_frames(source), 1, &f->err), 0);
    check_bytes(f, source, 0, SIZE_MAX);
    CHECK_EQ(packed.reads, reads);
    source->close(source);
}

/* A record that is bigger than the cache gets together nevertheless. */
TEST(warm, collects_what_is_bigger_than_the_cache)
{
    struct bop__frame_cache *small;
    struct memory_packed near, far;
    struct bop__segment_source *loader, *source;
    struct bop_slice got;
    unsigned tries = 0;
    int rc;

    make_and_pack(f, &some);
    REQUIRE_EQ(bop__frame_cache_create(NULL, 1, &small), 0);
    near = memory_packed(bop_buf_slice(&f->packed));
    far = memory_packed(bop_buf_slice(&f->packed));
    near.packed.file_number = far.packed.file_number = 78;
    far.packed.ask = memory_ask;
    /* The footer's frame pushes the tail out; without a frame before it it is the last one there.
     */
    REQUIRE_EQ(bop__warm_open(NULL, &near.packed, small, &loader, &f->err), 0);
    while ((rc = bop__warm_open(NULL, &far.packed, small, &source, &f->err)) == BOP_EHYDRATING &&
           tries++ < 3) {
        loader->close(loader);
        REQUIRE_EQ(bop__warm_open(NULL, &near.packed, small, &loader, &f->err), 0);
    }
    REQUIRE_EQ(rc, 0);
    tries = 0;
    while ((rc = source->at(source, 5000, 100000, &got, &f->err)) == BOP_EHYDRATING) {
        REQUIRE(tries++ < 20);
        REQUIRE_EQ(bop__warm_load(loader, far.asked_frame, 1, &f->err), 0);
    }
    REQUIRE_EQ(rc, 0);
    CHECK_MEM_EQ(got.data, f->segment.bytes.data + 5000, 100000);
    source->close(source);
    loader->close(loader);
    bop__frame_cache_destroy(small);
}
