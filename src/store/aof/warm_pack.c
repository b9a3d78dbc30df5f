/*
 * Packing a sealed segment.
 *
 * The segment is read once, by the check of its records; what it reads goes on to the cutter, whose
 * frames are compressed and written. So nothing is packed that was not checked: if
 * the check fails in the end, there is no file.
 */
#include <zdict.h>
#include <zstd.h>

#include "warm_cut.h"
#include "warm_format.h"
#include "warm_stream.h"

/* Samples for a dictionary: this many times its size, in pieces like this, and not fewer. */
#define SAMPLES_FACTOR 100u
#define SAMPLE_BYTES   4096u
#define SAMPLES_MIN    16u
/* zstd's smallest, and then some. */
#define DICTIONARY_MIN 1024u

struct packer {
    const struct bop__warm_pack_options *options;
    struct bop_allocator *allocator;
    struct bop__segment_source *segment;
    const char *path;
    struct bop__segment_facts facts;
    struct bop__new_file file;
    struct bop__cutter cutter;
    ZSTD_CCtx *context;
    uint8_t *packed; /* packed_capacity: a compressed frame. */
    size_t packed_capacity;
    struct bop_buf dictionary;
    struct bop_buf table; /* The seek table's skippable frame. */
    struct bop_buf index;
    uint32_t frames;
    uint32_t footer_frame;
    uint64_t done; /* Bytes of the segment. */
};

static int out_of_memory(const struct packer *p, struct bop_error *err)
{
    return bop_error_set(err, BOP_ENOMEM, "pack %s", p->path);
}

static bool canceled(const struct packer *p)
{
    /* Relaxed: it only says so, and nothing goes with it. */
    return p->options->cancel && atomic_load_explicit(p->options->cancel, memory_order_relaxed);
}

/* ---- Frames ---- */

static int put_u32(struct bop_buf *buf, uint32_t value)
{
    return bop_buf_append(buf, &value, sizeof(value));
}

static int put_entry(struct packer *p, uint64_t packed_size, uint64_t plain_size)
{
    int rc = put_u32(&p->table, (uint32_t)packed_size);

    return rc < 0 ? rc : put_u32(&p->table, (uint32_t)plain_size);
}

/* The cutter's: compress a frame and write it. */
static int add_frame(void *user, const uint8_t *bytes, size_t size, uint32_t records,
                     uint32_t first, struct bop_error *err)
{
    struct packer *p = user;
    struct bop__warm_index entry = {.records = records, .first = first};
    size_t packed_size;

    if (canceled(p)) {
        return bop_error_set(err, BOP_ECANCELED, "pack %s", p->path);
    }
    if (p->frames == BOP__WARM_FRAMES_MAX) {
        return bop_error_set(err, BOP_ETOOBIG, "pack %s: more than %u frames", p->path,
                             BOP__WARM_FRAMES_MAX);
    }
    packed_size = ZSTD_compress2(p->context, p->packed, p->packed_capacity, bytes, size);
    if (ZSTD_isError(packed_size)) {
        return bop_error_set(err, BOP_EFAILED, "pack %s: zstd: %s", p->path,
                             ZSTD_getErrorName(packed_size));
    }
    entry.crc = bop_crc32c(0, p->packed, packed_size);
    if (bop_buf_append(&p->index, &entry, sizeof(entry)) < 0 ||
        put_entry(p, packed_size, size) < 0) {
        return out_of_memory(p, err);
    }
    p->frames++;
    p->done += size;
    if (p->options->on_progress) {
        p->options->on_progress(p->options->user, p->done);
    }
    return bop__new_file_append(&p->file, p->packed, packed_size, err);
}

/* The tee's. */
static int feed(void *user, const uint8_t *bytes, size_t size, struct bop_error *err)
{
    struct packer *p = user;

    return bop__cutter_add(&p->cutter, bytes, size, err);
}

static int pack_records(struct packer *p, struct bop_error *err)
{
    struct bop__segment_facts facts;
    struct bop__tee tee;
    bool whole;
    int rc;

    bop__tee_init(&tee, p->segment, p->facts.end, feed, p);
    rc = bop__segment_check(p->allocator, p->segment, &tee.source, p->facts.root, &facts, err);
    if (rc == 0) {
        rc = bop__tee_finish(&tee, err);
    }
    if (rc == 0) {
        rc = bop__cutter_end(&p->cutter, &whole, err);
        if (rc == 0 && !whole) {
            rc = bop_error_set(err, BOP_ECORRUPT,
                               "pack %s: the segment's records do not end where its footer says",
                               p->path);
        }
    }
    return rc;
}

static int pack_footer(struct packer *p, struct bop_error *err)
{
    uint64_t at = p->facts.end;
    bool whole;

    p->footer_frame = p->frames;
    while (at < p->facts.size) {
        struct bop_slice bytes;
        int rc = p->segment->at(p->segment, at, 1, &bytes, err);

        if (rc == 0 && bytes.size == 0) {
            rc = bop_error_set(err, BOP_ECORRUPT, "pack %s: the segment ends in its footer",
                               p->path);
        }
        if (rc == 0) {
            bytes.size = (size_t)bop_min_u64(bytes.size, p->facts.size - at);
            rc = bop__cutter_add_plain(&p->cutter, bytes.data, bytes.size, err);
        }
        if (rc < 0) {
            return rc;
        }
        at += bytes.size;
    }
    return bop__cutter_end(&p->cutter, &whole, err);
}

/* ---- The dictionary ---- */

static int collect_samples(struct packer *p, struct bop_buf *samples, size_t count,
                           struct bop_error *err)
{
    uint64_t begin = BOP__AOF_SEGMENT_HEADER;
    uint64_t step = (p->facts.end - begin) / count;

    for (size_t i = 0; i < count; i++) {
        struct bop_slice bytes;
        int rc = p->segment->at(p->segment, begin + i * step, SAMPLE_BYTES, &bytes, err);

        if (rc < 0) {
            return rc;
        }
        if (bytes.size < SAMPLE_BYTES) {
            return bop_error_set(err, BOP_ECORRUPT, "pack %s: the segment ends early", p->path);
        }
        if (bop_buf_append(samples, bytes.data, SAMPLE_BYTES) < 0) {
            return out_of_memory(p, err);
        }
        if (canceled(p)) {
            return bop_error_set(err, BOP_ECANCELED, "pack %s", p->path);
        }
    }
    return 0;
}

/* Learn from samples, if there is something to learn. */
static int train(struct packer *p, const struct bop_buf *samples, size_t count,
                 struct bop_error *err)
{
    size_t *sizes = bop_alloc_array(p->allocator, count, sizeof(*sizes));
    size_t size;

    if (!sizes || bop_buf_reserve(&p->dictionary, p->options->dictionary_bytes) < 0) {
        if (sizes) {
            bop_free(p->allocator, sizes, count * sizeof(*sizes));
        }
        return out_of_memory(p, err);
    }
    for (size_t i = 0; i < count; i++) {
        sizes[i] = SAMPLE_BYTES;
    }
    size = ZDICT_trainFromBuffer(p->dictionary.data, p->options->dictionary_bytes, samples->data,
                                 sizes, (unsigned)count);
    bop_free(p->allocator, sizes, count * sizeof(*sizes));
    p->dictionary.size = ZDICT_isError(size) ? 0 : size;
    return 0;
}

static int make_dictionary(struct packer *p, struct bop_error *err)
{
    uint64_t wanted = (uint64_t)p->options->dictionary_bytes * SAMPLES_FACTOR;
    size_t count = (size_t)(bop_min_u64(wanted, p->facts.end - BOP__AOF_SEGMENT_HEADER) /
                            SAMPLE_BYTES);
    struct bop_buf samples;
    int rc;

    if (p->options->dictionary_bytes == 0 || count < SAMPLES_MIN) {
        return 0;
    }
    bop_buf_init(&samples, p->allocator, 0);
    rc = collect_samples(p, &samples, count, err);
    if (rc == 0) {
        rc = train(p, &samples, count, err);
    }
    bop_buf_deinit(&samples);
    if (rc == 0 && p->dictionary.size > 0 &&
        ZSTD_isError(
            ZSTD_CCtx_loadDictionary(p->context, p->dictionary.data, p->dictionary.size))) {
        rc = out_of_memory(p, err);
    }
    return rc;
}

/* ---- The end of the file ---- */

static int put_skippable(struct packer *p, uint32_t magic, uint64_t size, struct bop_error *err)
{
    uint8_t header[BOP__WARM_SKIPPABLE_HEADER];

    bop_store_u32(header, magic);
    bop_store_u32(header + 4, (uint32_t)size);
    return bop__new_file_append(&p->file, header, sizeof(header), err);
}

static int write_dictionary(struct packer *p, struct bop_error *err)
{
    int rc;

    if (p->dictionary.size == 0) {
        return 0;
    }
    rc = put_skippable(p, BOP__WARM_DICTIONARY_MAGIC, p->dictionary.size, err);
    if (rc == 0) {
        rc = bop__new_file_append(&p->file, p->dictionary.data, p->dictionary.size, err);
    }
    if (rc == 0 && put_entry(p, BOP__WARM_SKIPPABLE_HEADER + p->dictionary.size, 0) < 0) {
        rc = out_of_memory(p, err);
    }
    return rc;
}

/* The seek table is complete but for its end and the size in its header. */
static int finish_table(struct packer *p, uint32_t content_size)
{
    static const uint8_t descriptor = 0;
    uint32_t entries = p->frames + (p->dictionary.size > 0) + 1;
    int rc = put_entry(p, BOP__WARM_SKIPPABLE_HEADER + content_size, 0);

    rc = rc < 0 ? rc : put_u32(&p->table, entries);
    rc = rc < 0 ? rc : bop_buf_append(&p->table, &descriptor, sizeof(descriptor));
    rc = rc < 0 ? rc : put_u32(&p->table, BOP__SEEK_END_MAGIC);
    if (rc == 0) {
        BOP_ASSERT(p->table.size == bop__seek_table_size(entries));
        bop_store_u32(p->table.data + 4, (uint32_t)(p->table.size - BOP__WARM_SKIPPABLE_HEADER));
    }
    return rc;
}

static void fill_trailer(const struct packer *p, uint32_t content_size,
                         struct bop__warm_trailer *out_trailer)
{
    *out_trailer = (struct bop__warm_trailer){
        .facts = p->facts,
        .frames = p->frames,
        .footer_frame = p->footer_frame,
        .dictionary_size = (uint32_t)p->dictionary.size,
        .dictionary_crc = bop_crc32c(0, p->dictionary.data, p->dictionary.size),
        .frame_bytes = (uint32_t)p->options->frame_bytes,
        .level = p->options->level,
        .packed_size = p->file.size + BOP__WARM_SKIPPABLE_HEADER + content_size + p->table.size,
        .index_crc = bop_crc32c(0, p->index.data, p->index.size),
        .table_crc = bop_crc32c(0, p->table.data, p->table.size),
        .content_size = content_size,
        .version = BOP__WARM_VERSION,
        .magic = BOP__WARM_MAGIC,
    };
    out_trailer->crc = bop__warm_trailer_crc(out_trailer);
}

static int write_tail(struct packer *p, struct bop_error *err)
{
    uint32_t content_size = (uint32_t)(p->index.size + BOP__WARM_TRAILER_SIZE);
    struct bop__warm_trailer trailer;
    int rc = write_dictionary(p, err);

    if (rc == 0 && finish_table(p, content_size) < 0) {
        rc = out_of_memory(p, err);
    }
    if (rc < 0) {
        return rc;
    }
    fill_trailer(p, content_size, &trailer);
    rc = put_skippable(p, BOP__WARM_TRAILER_MAGIC, content_size, err);
    if (rc == 0) {
        rc = bop__new_file_append(&p->file, p->index.data, p->index.size, err);
    }
    if (rc == 0) {
        rc = bop__new_file_append(&p->file, &trailer, sizeof(trailer), err);
    }
    if (rc == 0) {
        rc = bop__new_file_append(&p->file, p->table.data, p->table.size, err);
    }
    BOP_ASSERT(rc < 0 || p->file.size == trailer.packed_size);
    return rc;
}

/* ---- All of it ---- */

static int set_up_context(struct packer *p, struct bop_error *err)
{
    p->context = ZSTD_createCCtx();
    if (!p->context) {
        return out_of_memory(p, err);
    }
    /* The size of the content and the dictionary's id are written by default. */
    if (ZSTD_isError(
            ZSTD_CCtx_setParameter(p->context, ZSTD_c_compressionLevel, p->options->level)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(p->context, ZSTD_c_checksumFlag, 1))) {
        return bop_error_set(err, BOP_EINVAL, "pack %s: level %d", p->path, p->options->level);
    }
    return 0;
}

static int set_up(struct packer *p, struct bop_error *err)
{
    int rc = set_up_context(p, err);

    if (rc < 0) {
        return rc;
    }
    p->packed_capacity = ZSTD_compressBound(p->options->frame_bytes);
    p->packed = bop_alloc(p->allocator, p->packed_capacity);
    if (!p->packed || bop__cutter_init(&p->cutter, p->allocator, p->options->frame_bytes) < 0 ||
        put_u32(&p->table, BOP__SEEK_TABLE_MAGIC) < 0 || put_u32(&p->table, 0) < 0) {
        return out_of_memory(p, err);
    }
    p->cutter.on_frame = add_frame;
    p->cutter.user = p;
    return 0;
}

static void tear_down(struct packer *p)
{
    bop_buf_deinit(&p->index);
    bop_buf_deinit(&p->table);
    bop_buf_deinit(&p->dictionary);
    bop__cutter_deinit(&p->cutter);
    if (p->packed) {
        bop_free(p->allocator, p->packed, p->packed_capacity);
    }
    ZSTD_freeCCtx(p->context);
}

static int read_facts(struct packer *p, struct bop_error *err)
{
    struct bop__footer footer = {0};
    int rc = bop__footer_read(p->allocator, p->segment, true, &footer, err);

    p->facts = footer.facts;
    bop__footer_deinit(&footer);
    if (rc == 0 && p->facts.size != p->segment->size) {
        rc = bop_error_set(err, BOP_ECORRUPT, "pack %s: the segment's size is not its footer's",
                           p->path);
    }
    return rc;
}

static int pack(struct packer *p, struct bop__warm_facts *out_facts, struct bop_error *err)
{
    int rc = read_facts(p, err);

    if (rc == 0) {
        rc = set_up(p, err);
    }
    if (rc == 0) {
        rc = make_dictionary(p, err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = bop__new_file_init(&p->file, p->allocator, p->options->fs, p->path, err);
    if (rc == 0) {
        rc = pack_records(p, err);
    }
    if (rc == 0) {
        rc = pack_footer(p, err);
    }
    if (rc == 0) {
        rc = write_tail(p, err);
    }
    if (rc == 0) {
        struct bop__warm_facts facts = {
            .segment = p->facts, .packed_size = p->file.size, .frames = p->frames};

        rc = bop__new_file_finish(&p->file, facts.sha256, err);
        if (rc == 0) {
            *out_facts = facts;
        }
    }
    bop__new_file_deinit(&p->file);
    return rc;
}

int bop__warm_pack(const struct bop__warm_pack_options *options,
                   struct bop__segment_source *segment, const char *path,
                   struct bop__warm_facts *out_facts, struct bop_error *err)
{
    struct packer p = {
        .options = options,
        .allocator = bop_allocator_or_default(options->allocator),
        .segment = segment,
        .path = path,
    };
    int rc;

    if (options->frame_bytes < BOP__WARM_FRAME_MIN || options->frame_bytes > BOP__WARM_FRAME_MAX ||
        options->dictionary_bytes > BOP__WARM_DICTIONARY_MAX ||
        (options->dictionary_bytes > 0 && options->dictionary_bytes < DICTIONARY_MIN)) {
        return bop_error_set(err, BOP_EINVAL, "pack %s: sizes of frames or dictionary", path);
    }
    bop_buf_init(&p.dictionary, p.allocator, 0);
    bop_buf_init(&p.table, p.allocator, 0);
    bop_buf_init(&p.index, p.allocator, 0);
    rc = pack(&p, out_facts, err);
    tear_down(&p);
    return rc;
}
