/*
 * The footer as bytes: leaves, then a trailer of fixed size, which is the very end of a sealed
 * file.
 *
 *     facts.end               size - 256   size
 *     +------+------+--...--+-------------+
 *     | leaf | leaf |       | trailer     |
 *     +------+------+--...--+-------------+
 *
 * What is read may be anybody's. The trailer is believed when its checksum is right and its numbers
 * fit each other and the file's size, so that what is allocated and read by them is bounded by that
 * size.
 */
#include "footer.h"

#include "format.h"

#define MAGIC   UINT64_C(0x5446464f41504f42) /* "BOPAOFFT" */
#define VERSION 1u

/* Leaves read from a source at a time. */
#define LEAVES_AT_ONCE 512u
/* A footer up to this size is read by one call. */
#define WHOLE_MAX (512u * 1024)

/** The last bytes of a sealed file. */
struct trailer {
    struct bop__segment_facts facts;
    uint64_t leaf_count;
    uint32_t leaves_crc;
    uint8_t zeros[92];
    uint32_t version;
    uint32_t crc; /* Of the trailer with this field zero. */
    uint64_t magic;
};

_Static_assert(sizeof(struct trailer) == BOP__FOOTER_TRAILER, "a disk format");
_Static_assert(offsetof(struct trailer, leaf_count) == 136, "a disk format");
_Static_assert(offsetof(struct trailer, leaves_crc) == 144, "a disk format");
_Static_assert(offsetof(struct trailer, version) == 240, "the same in all versions");
_Static_assert(offsetof(struct trailer, crc) == 244, "the same in all versions");
_Static_assert(offsetof(struct trailer, magic) == 248, "the same in all versions");

struct leaf {
    uint64_t seq;
    uint64_t offset;
    uint64_t time_us;
    uint64_t tag;
    uint32_t stride;
    uint32_t zero;
    uint8_t hash[BOP_AOF_DIGEST_SIZE];
};

_Static_assert(sizeof(struct leaf) == BOP__FOOTER_LEAF, "a disk format");
_Static_assert(offsetof(struct leaf, hash) == 40, "a disk format");

static uint32_t trailer_crc(const struct trailer *trailer)
{
    struct trailer copy = *trailer;

    copy.crc = 0;
    return bop_crc32c(0, &copy, sizeof(copy));
}

/* ---- Writing ---- */

static struct leaf encode_leaf(const struct bop__footer_leaf *leaf)
{
    struct leaf out = {.seq = leaf->seq,
                       .offset = leaf->offset,
                       .time_us = leaf->time_us,
                       .tag = leaf->tag,
                       .stride = leaf->stride};

    memcpy(out.hash, leaf->hash, sizeof(out.hash));
    return out;
}

static struct trailer encode_trailer(const struct bop__footer *footer, uint32_t leaves_crc)
{
    struct trailer out = {
        .facts = footer->facts,
        .leaf_count = footer->leaf_count,
        .leaves_crc = leaves_crc,
        .version = VERSION,
        .magic = MAGIC,
    };

    out.crc = trailer_crc(&out);
    return out;
}

int bop__footer_encode(struct bop__footer *footer, struct bop_buf *out_bytes)
{
    uint64_t size = (uint64_t)footer->leaf_count * sizeof(struct leaf) + BOP__FOOTER_TRAILER;
    struct trailer trailer = {0};
    uint32_t crc = 0;
    int rc = bop_buf_reserve(out_bytes, (size_t)size);

    if (rc < 0) {
        return rc;
    }
    footer->facts.size = footer->facts.end + size;
    for (size_t i = 0; i < footer->leaf_count; i++) {
        struct leaf leaf = encode_leaf(&footer->leaves[i]);

        crc = bop_crc32c(crc, &leaf, sizeof(leaf));
        memcpy(out_bytes->data + out_bytes->size, &leaf, sizeof(leaf));
        out_bytes->size += sizeof(leaf);
    }
    trailer = encode_trailer(footer, crc);
    memcpy(out_bytes->data + out_bytes->size, &trailer, sizeof(trailer));
    out_bytes->size += sizeof(trailer);
    return 0;
}

/* ---- Reading ---- */

/* Whether a segment can be so: every number against those before it, without a sum that wraps. */
static bool trailer_plausible(const struct trailer *t, uint64_t file_size)
{
    static const uint8_t zeros[sizeof(t->zeros)];
    const struct bop__segment_facts *facts = &t->facts;
    uint64_t room, records;

    if (facts->size != file_size || facts->size < BOP__AOF_SEGMENT_HEADER + BOP__FOOTER_TRAILER ||
        facts->end < BOP__AOF_SEGMENT_HEADER || facts->end > facts->size - BOP__FOOTER_TRAILER ||
        facts->end % BOP__AOF_RECORD_ALIGN != 0) {
        return false;
    }
    room = facts->end - BOP__AOF_SEGMENT_HEADER;
    records = facts->end_seq - facts->base;
    return facts->base >= 1 && facts->end_seq > facts->base &&
           facts->end_seq - 1 <= BOP__AOF_SEQ_MAX && records <= room / bop__aof_record_size(0) &&
           facts->generation >= 1 && t->leaf_count >= 1 && t->leaf_count <= records &&
           memcmp(t->zeros, zeros, sizeof(zeros)) == 0 &&
           t->leaf_count ==
               (facts->size - BOP__FOOTER_TRAILER - facts->end) / sizeof(struct leaf) &&
           (facts->size - BOP__FOOTER_TRAILER - facts->end) % sizeof(struct leaf) == 0;
}

static int decode_trailer(const uint8_t bytes[BOP__FOOTER_TRAILER], uint64_t file_size,
                          const char *path, struct trailer *out_trailer, struct bop_error *err)
{
    struct trailer trailer = {0};

    memcpy(&trailer, bytes, sizeof(trailer));
    if (trailer.magic != MAGIC) {
        return bop_error_set(err, BOP_ENOTFOUND, "%s: footer", path);
    }
    if (trailer.crc != trailer_crc(&trailer)) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: footer checksum", path);
    }
    if (trailer.version != VERSION) {
        return bop_error_say(err, BOP_EVERSION,
                             "%s has footer version %u, this program knows version %u: use the "
                             "program that wrote it, or a newer one",
                             path, trailer.version, VERSION);
    }
    if (!trailer_plausible(&trailer, file_size)) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: footer values", path);
    }
    *out_trailer = trailer;
    return 0;
}

int bop__footer_decode_trailer(const uint8_t bytes[BOP__FOOTER_TRAILER], uint64_t file_size,
                               const char *path, struct bop__segment_facts *out_facts,
                               struct bop_error *err)
{
    struct trailer trailer = {0};
    int rc = decode_trailer(bytes, file_size, path, &trailer, err);

    if (rc == 0) {
        *out_facts = trailer.facts;
    }
    return rc;
}

/* Whether leaf i can follow the one before it. */
static bool leaf_plausible(const struct bop__footer *footer, size_t i)
{
    const struct bop__footer_leaf *leaf = &footer->leaves[i];
    const struct bop__segment_facts *facts = &footer->facts;

    if (leaf->offset % BOP__AOF_RECORD_ALIGN != 0 || leaf->offset >= facts->end ||
        leaf->seq >= facts->end_seq || leaf->stride % BOP__AOF_RECORD_ALIGN != 0 ||
        (leaf->stride != 0 && leaf->stride < bop__aof_record_size(0))) {
        return false;
    }
    if (i == 0) {
        return leaf->offset == BOP__AOF_SEGMENT_HEADER && leaf->seq == facts->base;
    }
    return leaf->offset > leaf[-1].offset &&
           leaf->offset - leaf[-1].offset >= BOP__FOOTER_LEAF_BYTES && leaf->seq > leaf[-1].seq;
}

/* All records of a leaf with a stride lie in it. */
static bool stride_plausible(const struct bop__footer *footer, size_t i)
{
    const struct bop__footer_leaf *leaf = &footer->leaves[i];
    bool last = i + 1 == footer->leaf_count;
    uint64_t bytes = (last ? footer->facts.end : leaf[1].offset) - leaf->offset;
    uint64_t records = (last ? footer->facts.end_seq : leaf[1].seq) - leaf->seq;

    return leaf->stride == 0 || (bytes % leaf->stride == 0 && bytes / leaf->stride == records);
}

/* False if it has bytes that mean nothing. */
static bool decode_leaf(const uint8_t *bytes, struct bop__footer_leaf *out_leaf)
{
    struct leaf leaf;

    memcpy(&leaf, bytes, sizeof(leaf));
    *out_leaf = (struct bop__footer_leaf){.seq = leaf.seq,
                                          .offset = leaf.offset,
                                          .time_us = leaf.time_us,
                                          .tag = leaf.tag,
                                          .stride = leaf.stride};
    memcpy(out_leaf->hash, leaf.hash, sizeof(leaf.hash));
    return leaf.zero == 0;
}

static int leaves_corrupt(const struct bop__segment_source *source, const char *what,
                          struct bop_error *err)
{
    return bop_error_set(err, BOP_ECORRUPT, "%s: %s of the footer's leaves", source->name, what);
}

static int read_leaves(struct bop__segment_source *source, uint32_t crc_wanted,
                       struct bop__footer *footer, struct bop_error *err)
{
    uint64_t offset = footer->facts.end;
    bool right = true;
    uint32_t crc = 0;

    for (size_t i = 0; i < footer->leaf_count;) {
        size_t count = bop_min_u64(footer->leaf_count - i, LEAVES_AT_ONCE);
        struct bop_slice bytes = {0};
        int rc = source->at(source, offset, count * sizeof(struct leaf), &bytes, err);

        if (rc < 0) {
            return rc;
        }
        if (bytes.size < count * sizeof(struct leaf)) {
            return leaves_corrupt(source, "the file ends in some", err);
        }
        crc = bop_crc32c(crc, bytes.data, count * sizeof(struct leaf));
        for (size_t k = 0; k < count; k++, i++) {
            right &= decode_leaf(bytes.data + k * sizeof(struct leaf), &footer->leaves[i]);
        }
        offset += count * sizeof(struct leaf);
    }
    if (crc != crc_wanted) {
        return leaves_corrupt(source, "checksum", err);
    }
    for (size_t i = 0; i < footer->leaf_count; i++) {
        right = right && leaf_plausible(footer, i);
    }
    for (size_t i = 0; i < footer->leaf_count; i++) {
        right = right && stride_plausible(footer, i);
    }
    return right ? 0 : leaves_corrupt(source, "values", err);
}

static int read_trailer(struct bop__segment_source *source, struct trailer *out_trailer,
                        struct bop_error *err)
{
    struct bop_slice bytes = {0};
    int rc;

    if (source->size < BOP__AOF_SEGMENT_HEADER + BOP__FOOTER_TRAILER) {
        return bop_error_set(err, BOP_ENOTFOUND, "%s: footer", source->name);
    }
    rc = source->at(source, source->size - BOP__FOOTER_TRAILER, BOP__FOOTER_TRAILER, &bytes, err);
    if (rc < 0) {
        return rc;
    }
    if (bytes.size < BOP__FOOTER_TRAILER) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: ends in its footer", source->name);
    }
    return decode_trailer(bytes.data, source->size, source->name, out_trailer, err);
}

/* Of a file that is not in the page cache each read waits for the disk: have all of a footer by
 * one, as long as it can be by the file's size. What is wrong is told when it is looked at. */
static void fetch_whole(struct bop__segment_source *source)
{
    uint64_t most = BOP__FOOTER_TRAILER +
                    (source->size / BOP__FOOTER_LEAF_BYTES + 1) * sizeof(struct leaf);
    struct bop_slice bytes;

    if (source->tier == BOP_AOF_HOT && most <= WHOLE_MAX && most < source->size) {
        BOP_IGNORE(source->at(source, source->size - most, (size_t)most, &bytes, NULL));
    }
}

int bop__footer_read(struct bop_allocator *allocator, struct bop__segment_source *source,
                     bool facts_only, struct bop__footer *out_footer, struct bop_error *err)
{
    struct bop__footer footer = {.allocator = allocator};
    struct trailer trailer = {0};
    int rc;

    if (!facts_only) {
        fetch_whole(source);
    }
    rc = read_trailer(source, &trailer, err);
    if (rc < 0) {
        return rc;
    }
    footer.facts = trailer.facts;
    if (!facts_only) {
        footer.leaf_count = (size_t)trailer.leaf_count;
        footer.leaves = bop_alloc(allocator, footer.leaf_count * sizeof(*footer.leaves));
        if (!footer.leaves) {
            return bop_error_set(err, BOP_ENOMEM, "read the footer of %s", source->name);
        }
        rc = read_leaves(source, trailer.leaves_crc, &footer, err);
        if (rc < 0) {
            bop__footer_deinit(&footer);
            return rc;
        }
    }
    *out_footer = footer;
    return 0;
}

void bop__footer_deinit(struct bop__footer *footer)
{
    if (footer->leaves) {
        bop_free(footer->allocator, footer->leaves, footer->leaf_count * sizeof(*footer->leaves));
        footer->leaves = NULL;
        footer->leaf_count = 0;
    }
}

const struct bop__footer_leaf *bop__footer_find(const struct bop__footer *footer, uint64_t seq)
{
    size_t low = 0, high = footer->leaf_count;
    uint64_t records = footer->facts.end_seq - footer->facts.base;
    /* Where it would be if all records were alike, which they often are nearly. */
    size_t guess = (size_t)((double)(seq - footer->facts.base) / (double)records * (double)high);

    if (guess > 0 && guess < high && footer->leaves[guess].seq > seq) {
        high = guess;
        low = footer->leaves[guess - 1].seq <= seq ? guess - 1 : 0;
    } else if (guess < high) {
        low = guess;
        high = guess + 1 == high || footer->leaves[guess + 1].seq > seq ? guess + 1 : high;
    }
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (footer->leaves[middle].seq <= seq) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &footer->leaves[low];
}
