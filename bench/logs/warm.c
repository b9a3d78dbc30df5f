/*
 * What packed segments (tier 1) cost.
 *
 *     log_warm DIRECTORY json|binary FRAME_KIB SEGMENT_MIB LEVEL
 *
 * json: lines of a log of 150 to 450 bytes; binary: records of 128 bytes, half of which is noise.
 * Makes a sealed segment, packs it, and reads single records of random numbers: read_us of frames
 * that are not in the cache (the file is in the page cache), hit_us of frames that are. Each
 * record's checksum is checked. pack and unpack figures are MB of the segment; packing checks each
 * record and the root on the way.
 */
#include <bop/random.h>

#include "common.h"
#include "store/aof/walk.h"
#include "store/aof/warm.h"

#define READS     5000u
#define PATH_SIZE 4096

static struct {
    bool json;
    size_t frame_bytes;
    size_t segment_bytes;
    int level;
    char packed_path[PATH_SIZE];
    char plain_path[PATH_SIZE];
    struct bop_random random;
    struct bop_buf segment;
    struct bop__segment_facts facts;
} job;

static void check(int rc, const struct bop_error *err)
{
    if (rc < 0)
        die(err->message, bop_strerror(rc));
}

/* ---- A segment ---- */

static size_t make_payload(uint64_t seq, uint8_t *payload)
{
    static const char *const levels[] = {"info", "info", "info", "debug", "warn"};
    static const char *const paths[] = {"/v1/orders", "/v1/orders/items", "/health", "/v1/users"};
    uint64_t noise = bop_random_next(&job.random);

    if (!job.json) {
        for (size_t i = 0; i < 64; i += 8)
            bop_store_u64(payload + i, bop_random_next(&job.random));
        for (size_t i = 64; i < 128; i += 8)
            bop_store_u64(payload + i, seq + i / 8);
        return 128;
    }
    return (size_t)snprintf(
        (char *)payload, 512,
        "{\"ts\":\"2025-11-03T12:%02u:%02u.%06uZ\",\"level\":\"%s\",\"service\":\"orders-%u\","
        "\"request_id\":\"%016llx\",\"method\":\"GET\",\"path\":\"%s/%u\",\"status\":%u,"
        "\"latency_us\":%u,\"user\":%u,\"message\":\"request handled%.*s\"}",
        (unsigned)(seq / 60000 % 60), (unsigned)(seq / 1000 % 60), (unsigned)(noise % 1000000),
        levels[noise % 5], (unsigned)(noise >> 8) % 12, (unsigned long long)noise * 0x9e3779b9,
        paths[noise >> 16 & 3], (unsigned)(noise >> 20) % 100000, noise % 17 ? 200u : 404u,
        (unsigned)(noise >> 24) % 90000, (unsigned)(noise >> 30) % 5000, (int)(noise >> 40) % 150,
        " after a retry of the upstream call, which had timed out before; the answer came from the"
        " replica and is up to one second older than the leader's state");
}

static void put_record(uint64_t seq, uint32_t salt, uint32_t *chain)
{
    uint8_t payload[512];
    size_t length = make_payload(seq, payload);
    size_t size = (size_t)bop__aof_record_size(length);
    uint8_t *at = job.segment.data + job.segment.size;
    struct bop__aof_record_header header = {.seq = seq,
                                            .tag = seq,
                                            .time_us = seq * 10,
                                            .durable_seq = seq - 1,
                                            .payload_crc = bop_crc32c(0, payload, length),
                                            .chain = *chain,
                                            .length = BOP__AOF_HEADER_MARK | (uint32_t)length};

    header.header_crc = bop__aof_header_crc(salt, &header);
    memset(at, 0, size);
    memcpy(at, &header, sizeof(header));
    memcpy(at + sizeof(header), payload, length);
    at[size - 1] = BOP__AOF_END_MARK;
    job.segment.size += size;
    *chain = bop__aof_link(&header);
}

static int memory_at(struct bop__segment_source *self, uint64_t offset, size_t least,
                     struct bop_slice *out_bytes, struct bop_error *err)
{
    (void)least;
    (void)err;
    *out_bytes = bop_slice(job.segment.data + offset, (size_t)(self->size - offset));
    return 0;
}

static void memory_close(struct bop__segment_source *self)
{
    (void)self;
}

static struct bop__segment_source memory_source(void)
{
    return (struct bop__segment_source){
        .name = "segment", .size = job.segment.size, .at = memory_at, .close = memory_close};
}

static void make_segment(void)
{
    struct bop__aof_segment_header header = {
        .base = 1, .generation = 1, .size = job.segment_bytes, .front = 1};
    struct bop__footer footer = {.facts = {.base = 1, .generation = 1}};
    struct bop__segment_source source;
    uint32_t salt = bop__aof_salt(0, 1, 1);
    uint32_t chain = salt;
    struct bop_error err = {0};
    uint64_t seq = 1;

    bop_buf_init(&job.segment, NULL, 0);
    check(bop_buf_reserve(&job.segment, job.segment_bytes + 1024), &err);
    bop__aof_segment_header_encode(&header, job.segment.data);
    job.segment.size = BOP__AOF_SEGMENT_HEADER;
    while (job.segment.size < job.segment_bytes)
        put_record(seq++, salt, &chain);
    footer.facts.end_seq = seq;
    footer.facts.end = job.segment.size;
    source = memory_source();
    check(bop__footer_build(bop_allocator_default(), &source, &footer, &err), &err);
    check(bop__footer_encode(&footer, &job.segment), &err);
    job.facts = footer.facts;
    bop__footer_deinit(&footer);
}

/* ---- Measuring ---- */

static void pack(void)
{
    struct bop__warm_pack_options options = {
        .fs = bop_fs_real(), .level = job.level, .frame_bytes = job.frame_bytes};
    struct bop__segment_source source = memory_source();
    struct bop__warm_facts facts;
    struct bop_error err = {0};
    uint64_t began = now_ns();

    check(bop__warm_pack(&options, &source, job.packed_path, &facts, &err), &err);
    printf("pack_mb_s %.1f\n", (double)job.segment.size * 1e3 / (double)(now_ns() - began));
    printf("ratio %.3f\n", (double)job.segment.size / (double)facts.packed_size);
}

static struct bop__packed *open_packed(void)
{
    struct bop__packed *packed;
    struct bop_error err = {0};

    check(bop__packed_file_open(NULL, bop_fs_real(), job.packed_path, &packed, &err), &err);
    return packed;
}

static void verify_and_unpack(void)
{
    struct bop__packed *packed = open_packed();
    struct bop__warm_facts facts;
    struct bop_error err = {0};
    uint64_t began = now_ns();

    check(bop__warm_verify(NULL, packed, job.facts.root, &facts, &err), &err);
    printf("verify_mb_s %.1f\n", (double)job.segment.size * 1e3 / (double)(now_ns() - began));
    began = now_ns();
    check(bop__warm_unpack(NULL, bop_fs_real(), packed, job.plain_path, &err), &err);
    printf("unpack_mb_s %.1f\n", (double)job.segment.size * 1e3 / (double)(now_ns() - began));
    packed->close(packed);
}

/* Read one record as a reader does: to its frame, from record to record, and check it. */
static void read_record(struct bop__segment_source *source, uint64_t seq)
{
    struct bop__aof_record_header header;
    struct bop_slice bytes;
    struct bop_error err = {0};
    uint64_t at, near;
    size_t skipped = 0;

    if (!source->find(source, seq, &near, &at))
        die("find", "not there");
    check(source->at(source, at, BOP__AOF_RECORD_HEADER, &bytes, &err), &err);
    for (;; near++) {
        memcpy(&header, bytes.data + skipped, sizeof(header));
        if (near == seq)
            break;
        skipped += (size_t)bop__aof_record_size(bop__aof_record_length(&header));
    }
    if (header.seq != seq || bop__walk_body(&header, bytes.data + skipped))
        die("read", "another record");
}

static void read_records(const char *name, uint64_t cache_bytes, uint64_t seqs)
{
    struct bop__frame_cache *cache;
    struct bop__segment_source *source;
    struct bop_error err = {0};
    uint64_t began;

    check(bop__frame_cache_create(NULL, cache_bytes, &cache), &err);
    check(bop__warm_open(NULL, open_packed(), cache, &source, &err), &err);
    for (uint64_t seq = 1; seq <= seqs; seq += 50)
        read_record(source, seq); /* Whatever has a place in the cache is there. */
    began = now_ns();
    for (unsigned i = 0; i < READS; i++)
        read_record(source, 1 + bop_random_below(&job.random, seqs));
    printf("%s %.2f\n", name, (double)(now_ns() - began) / 1e3 / READS);
    source->close(source);
    bop__frame_cache_destroy(cache);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: log_warm DIRECTORY json|binary FRAME_KIB SEGMENT_MIB LEVEL\n");
        return 2;
    }
    snprintf(job.packed_path, sizeof(job.packed_path), "%s/warm.zst", argv[1]);
    snprintf(job.plain_path, sizeof(job.plain_path), "%s/warm.seg", argv[1]);
    job.json = strcmp(argv[2], "json") == 0;
    job.frame_bytes = (size_t)strtoul(argv[3], NULL, 10) * 1024;
    job.segment_bytes = (size_t)strtoul(argv[4], NULL, 10) << 20;
    job.level = (int)strtol(argv[5], NULL, 10);
    bop_random_seed(&job.random, 1);
    make_segment();
    pack();
    verify_and_unpack();
    read_records("read_us", 1, job.facts.end_seq - 1);
    /* The first MiB, in a cache that has more. */
    read_records("hit_us", 16u << 20, (job.facts.end_seq - 1) * (1u << 20) / job.facts.end);
    unlink(job.packed_path);
    unlink(job.plain_path);
    bop_buf_deinit(&job.segment);
    return 0;
}
