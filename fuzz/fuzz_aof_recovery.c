/*
 * Segment files from somewhere: opening them never crashes, hangs or takes memory beyond the
 * files' size, and what opens can be read as a whole, appended to, and opened again with the same
 * content, also after a power loss.
 *
 * The input is a byte of mode and data. Mode bit 0: the data is the content of one segment file.
 * Else it is a recipe for one or two segments: records that are mostly right, with damage, as
 * random bytes would hardly ever get past a checksum. Mode bit 1: the file's header is made right.
 */
#include <stdlib.h>

#include <bop/aof.h>
#include <bop/sim.h>

#include "store/aof/format.h"

#define INPUT_MAX (1u << 20)
#define READ_MAX  64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- Files ---- */

struct builder {
    struct bop_fs *fs;
    struct bop_reader in;
    struct bop_buf file;
    uint32_t salt;
    uint32_t chain;
    uint64_t seq;
};

static void append(struct bop_buf *buf, const void *bytes, size_t size)
{
    BOP_ASSERT(bop_buf_append(buf, bytes, size) == 0);
}

static void write_segment(struct builder *b, uint64_t base, uint64_t generation)
{
    char name[BOP__AOF_NAME_SIZE];
    char path[64];
    int fd;

    bop__aof_segment_name(base, generation, name);
    snprintf(path, sizeof(path), "/log/%s", name);
    fd = b->fs->open(b->fs, path, O_RDWR | O_CREAT | O_TRUNC);
    BOP_ASSERT(fd >= 0);
    BOP_ASSERT(bop_fs_write_all(b->fs, fd, b->file.data, b->file.size, 0) == 0);
    BOP_ASSERT(b->fs->sync(b->fs, fd) == 0);
    BOP_ASSERT(b->fs->sync_dir(b->fs, "/log") == 0);
    BOP_IGNORE(b->fs->close(b->fs, fd));
}

static void put_header(struct builder *b, uint64_t base, uint64_t generation, uint32_t seed)
{
    const struct bop__aof_segment_header header = {
        .base = base, .generation = generation, .size = 1u << 22, .front = 1, .seed = seed};
    uint8_t block[BOP__AOF_SEGMENT_HEADER];

    bop__aof_segment_header_encode(&header, block);
    bop_buf_clear(&b->file);
    append(&b->file, block, sizeof(block));
    b->salt = bop__aof_salt(seed, base, generation);
    b->chain = b->salt;
    b->seq = base;
}

/* A record as the input's next bytes say: what is damaged, how long it is. */
static void put_record(struct builder *b)
{
    uint8_t damage = bop_read_u8(&b->in);
    uint16_t where = bop_read_u16(&b->in);
    size_t length = (size_t)bop_read_u8(&b->in) * (damage & 0x80 ? 64 : 1);
    struct bop__aof_record_header header = {
        .seq = b->seq + (damage & 1),
        .tag = where,
        .durable_seq = damage & 2 ? b->seq - 1 : where,
        .chain = b->chain ^ (damage >> 2 & 1),
        .length = BOP__AOF_HEADER_MARK | (uint32_t)length,
    };
    size_t begin = b->file.size;
    size_t record_size = (size_t)bop__aof_record_size(length);
    uint8_t *at;

    BOP_ASSERT(bop_buf_reserve(&b->file, record_size) == 0);
    at = b->file.data + begin;
    memset(at, damage & 8 ? 0 : (int)(where & 0xff), record_size);
    memset(at + BOP__AOF_RECORD_HEADER + length, 0, record_size - BOP__AOF_RECORD_HEADER - length);
    at[record_size - 1] = BOP__AOF_END_MARK;
    header.payload_crc = bop_crc32c(0, at + BOP__AOF_RECORD_HEADER, length);
    header.header_crc = bop__aof_header_crc(b->salt, &header);
    memcpy(at, &header, sizeof(header));
    if (damage & 16) {
        at[where % record_size] ^= (uint8_t)(1u << (where >> 13));
    }
    if (damage & 32) {
        size_t from = where % record_size;

        memset(at + from, 0, bop_min_u64(record_size - from, 512));
    }
    if (damage & 64) {
        record_size = where % record_size;
    }
    b->file.size += record_size;
    b->chain = bop__aof_link(&header);
    b->seq++;
}

static void build(struct builder *b, uint8_t mode)
{
    struct bop__aof_segment_header header;

    put_header(b, 1, 1, 0);
    while (bop_reader_left(&b->in) >= 4 && b->file.size < INPUT_MAX) {
        if ((mode & 4) && b->file.size > 16384) {
            uint32_t seed = b->seq == 1 ? 0 : b->chain;
            uint64_t base = b->seq - (mode >> 3 & 1);

            write_segment(b, 1, 1);
            put_header(b, base > 0 ? base : 1, 2, seed);
            mode = 0;
        }
        put_record(b);
    }
    memcpy(&header, b->file.data, sizeof(header));
    write_segment(b, header.base, header.generation);
}

static void build_raw(struct builder *b, uint8_t mode)
{
    append(&b->file, b->in.at, bop_reader_left(&b->in));
    if ((mode & 2) && b->file.size >= BOP__AOF_SEGMENT_HEADER) {
        struct bop__aof_segment_header header;
        uint8_t block[BOP__AOF_SEGMENT_HEADER];

        memcpy(&header, b->file.data, sizeof(header));
        header.base = 1;
        header.generation = 1;
        header.flags = 0;
        bop__aof_segment_header_encode(&header, block);
        memcpy(b->file.data, block, sizeof(block));
    }
    write_segment(b, 1, 1);
}

/* ---- Using what opens ---- */

struct opened {
    uint64_t first;
    uint64_t last;
    uint32_t digest; /* Of all records. */
};

static void read_all(struct bop_aof *aof, struct opened *out)
{
    struct bop_aof_view views[READ_MAX];
    struct bop_buf buf;

    *out = (struct opened){.first = bop_aof_first(aof), .last = bop_aof_last(aof)};
    bop_buf_init(&buf, NULL, 0);
    for (uint64_t seq = out->first; seq <= out->last;) {
        int count = bop_aof_read(aof, seq, READ_MAX, 65536, &buf, views, NULL);

        BOP_ASSERT(count > 0);
        for (int i = 0; i < count; i++, seq++) {
            BOP_ASSERT(views[i].seq == seq);
            out->digest = bop_crc32c(out->digest, views[i].payload.data, views[i].payload.size);
            out->digest = bop_crc32c(out->digest, &views[i].tag, sizeof(views[i].tag));
        }
    }
    bop_buf_deinit(&buf);
}

/* Open, compare with what was there before if that is known, append a record, close. */
static bool use(const struct bop_aof_options *options, struct bop_inline_executor *executor,
                struct opened *known)
{
    struct bop_aof_record record = {.tag = 1, .head = bop_slice_cstr("more")};
    struct opened found;
    struct bop_aof *aof;

    if (bop_aof_open(options, &aof, NULL, NULL) < 0) {
        return false;
    }
    read_all(aof, &found);
    if (known->first > 0) {
        BOP_ASSERT(found.first == known->first && found.last == known->last);
        BOP_ASSERT(found.digest == known->digest);
    }
    if (bop_aof_append(aof, &record, 1) == 0) {
        bop_inline_poll(executor);
        BOP_ASSERT(bop_aof_durable(aof) == found.last + 1);
    }
    read_all(aof, known);
    bop_aof_close(aof);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_fs_sim_options sim_options = {.seed = 1};
    struct bop_inline_executor executor;
    struct bop_aof_options options = {.executor = &executor.executor, .path = "/log"};
    struct opened known = {0};
    struct builder b = {0};
    struct bop_fs_sim *sim;

    if (size < 1 || size > INPUT_MAX) {
        return 0;
    }
    BOP_ASSERT(bop_fs_sim_create(&sim_options, &sim) == 0);
    bop_inline_init(&executor);
    b.fs = bop_fs_sim_fs(sim);
    b.in = bop_reader(bop_slice(data + 1, size - 1));
    bop_buf_init(&b.file, NULL, 0);
    BOP_ASSERT(bop_fs_mkdirs(b.fs, "/log") == 0);
    if (data[0] & 1) {
        build_raw(&b, data[0]);
    } else {
        build(&b, data[0]);
    }
    options.fs = b.fs;
    options.segment_bytes = 65536;
    if (use(&options, &executor, &known)) {
        BOP_ASSERT(use(&options, &executor, &known));
        bop_fs_sim_lose_power(sim);
        BOP_ASSERT(use(&options, &executor, &known));
    }
    bop_buf_deinit(&b.file);
    bop_fs_sim_destroy(sim);
    return 0;
}
