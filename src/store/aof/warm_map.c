/*
 * Reading the tail of a packed file: facts, index, seek table, dictionary.
 *
 * It may come from anybody. Nothing is taken for a size before it is known to fit into the
 * file, and the checksum over it was right; and as a checksum can be made right by anybody too, all
 * values are checked against each other, so that what is handed out is safe to use.
 */
#include "warm_map.h"

#include <inttypes.h>
#include <openssl/evp.h>

/* A footer has far less than 100 bytes for each 64 KiB of records; it is read as a whole. */
#define FOOTER_MAX(end) ((end) / 64 + 64 * 1024)

struct parser {
    struct bop_allocator *allocator;
    struct bop__packed *packed;
    struct bop__warm_tail *tail;
    struct bop_error *err;
    struct bop__warm_trailer trailer;
    uint64_t table_size; /* Of the seek table's skippable frame. */
    uint32_t entries;    /* Of the seek table. */
};

static int corrupt(struct parser *p, const char *what)
{
    return bop_error_set(p->err, BOP_ECORRUPT, "%s: packed segment: %s", p->packed->name, what);
}

/* ---- Reading ---- */

/* Have the tail from `begin` on, at least. */
static int have_from(struct parser *p, uint64_t begin)
{
    struct bop__warm_tail *tail = p->tail;
    struct bop_buf more;
    size_t missing;
    int rc;

    if (begin >= tail->begin) {
        return 0;
    }
    missing = (size_t)(tail->begin - begin);
    bop_buf_init(&more, p->allocator, 0);
    rc = bop_buf_reserve(&more, missing + tail->bytes.size);
    if (rc < 0) {
        return rc;
    }
    rc = p->packed->read(p->packed, begin, missing, &more, p->err);
    if (rc == 0) {
        BOP_ASSERT(more.size == missing);
        rc = bop_buf_append(&more, tail->bytes.data, tail->bytes.size);
    }
    if (rc < 0) {
        bop_buf_deinit(&more);
        return rc;
    }
    bop_buf_deinit(&tail->bytes);
    tail->bytes = more;
    tail->begin = begin;
    return 0;
}

static const uint8_t *bytes_at(const struct parser *p, uint64_t offset)
{
    BOP_ASSERT(offset >= p->tail->begin && offset <= p->packed->size);
    return p->tail->bytes.data + (offset - p->tail->begin);
}

static uint64_t table_offset(const struct parser *p)
{
    return p->packed->size - p->table_size;
}

static uint64_t trailer_offset(const struct parser *p)
{
    return table_offset(p) - BOP__WARM_TRAILER_SIZE;
}

static uint64_t content_offset(const struct parser *p)
{
    return table_offset(p) - p->trailer.content_size;
}

static uint64_t dictionary_offset(const struct parser *p)
{
    return content_offset(p) - BOP__WARM_SKIPPABLE_HEADER - p->trailer.dictionary_size;
}

/* ---- The facts ---- */

static int read_seek_end(struct parser *p)
{
    const uint64_t least = bop__seek_table_size(0) + BOP__WARM_SKIPPABLE_HEADER +
                           BOP__WARM_TRAILER_SIZE;
    const uint8_t *end;
    uint64_t begin;
    int rc;

    if (p->packed->size < least) {
        return corrupt(p, "too short");
    }
    begin = p->packed->size - bop_min_u64(p->packed->size, BOP__WARM_TAIL_READ);
    rc = have_from(p, begin);
    if (rc < 0) {
        return rc;
    }
    end = bytes_at(p, p->packed->size - BOP__SEEK_END_SIZE);
    p->entries = bop_load_u32(end);
    if (end[4] != 0 || bop_load_u32(end + 5) != BOP__SEEK_END_MAGIC) {
        return corrupt(p,
                       "it does not end with a seek table of ours: cut, damaged or no such file");
    }
    p->table_size = bop__seek_table_size(p->entries);
    if (p->entries > BOP__WARM_FRAMES_MAX + 2 || p->table_size > p->packed->size - least) {
        return corrupt(p, "number of frames");
    }
    return have_from(p, trailer_offset(p));
}

static bool facts_possible(const struct bop__warm_trailer *t)
{
    return t->facts.base > 0 && t->facts.base < t->facts.end_seq &&
           t->facts.end_seq <= UINT64_MAX / 2 + 1 && t->facts.end < t->facts.size &&
           t->facts.size - t->facts.end <= FOOTER_MAX(t->facts.end) &&
           t->frame_bytes >= BOP__WARM_FRAME_MIN && t->frame_bytes <= BOP__WARM_FRAME_MAX &&
           t->frames <= BOP__WARM_FRAMES_MAX && t->footer_frame > 0 &&
           t->footer_frame < t->frames && t->dictionary_size <= BOP__WARM_DICTIONARY_MAX &&
           (t->dictionary_size > 0 || t->dictionary_crc == 0) &&
           t->facts.size <= (uint64_t)t->frames * t->frame_bytes;
}

static int read_facts(struct parser *p)
{
    struct bop__warm_trailer *t = &p->trailer;

    memcpy(t, bytes_at(p, trailer_offset(p)), sizeof(*t));
    if (t->magic != BOP__WARM_MAGIC) {
        return corrupt(p, "its trailer is not where it should be: damaged or no such file");
    }
    if (t->crc != bop__warm_trailer_crc(t)) {
        return corrupt(p, "checksum of the trailer");
    }
    if (t->version != BOP__WARM_VERSION || t->flags != 0) {
        return bop_error_say(p->err, BOP_EVERSION,
                             "%s has packed segment version %u, flags 0x%x, this program knows "
                             "version %u and no flags: use the program that wrote it, or a newer "
                             "one",
                             p->packed->name, t->version, t->flags, BOP__WARM_VERSION);
    }
    if (t->packed_size != p->packed->size) {
        return bop_error_set(p->err, BOP_ECORRUPT,
                             "%s: packed segment: it has %" PRIu64
                             " bytes and should have %" PRIu64,
                             p->packed->name, p->packed->size, t->packed_size);
    }
    if (!facts_possible(t) ||
        t->content_size != t->frames * BOP__WARM_INDEX_SIZE + BOP__WARM_TRAILER_SIZE ||
        p->entries != t->frames + (t->dictionary_size > 0) + 1 ||
        /* Sums of what fits into 32 bits each. */
        (uint64_t)t->content_size + t->dictionary_size + UINT64_C(2) * BOP__WARM_SKIPPABLE_HEADER >
            table_offset(p)) {
        return corrupt(p, "values of the trailer");
    }
    return 0;
}

/* ---- What the facts have checksums of ---- */

static bool skippable_header_is(const uint8_t *header, uint32_t magic, uint64_t size)
{
    return bop_load_u32(header) == magic && bop_load_u32(header + 4) == size;
}

static int check_sums(struct parser *p)
{
    const struct bop__warm_trailer *t = &p->trailer;
    const uint8_t *table, *content;
    int rc;

    /* With the header before the dictionary, which there may not be. */
    rc = have_from(p, dictionary_offset(p) -
                          (t->dictionary_size > 0 ? BOP__WARM_SKIPPABLE_HEADER : 0));
    if (rc < 0) {
        return rc;
    }
    table = bytes_at(p, table_offset(p));
    content = bytes_at(p, content_offset(p));
    if (bop_crc32c(0, table, (size_t)p->table_size) != t->table_crc ||
        !skippable_header_is(table, BOP__SEEK_TABLE_MAGIC,
                             p->table_size - BOP__WARM_SKIPPABLE_HEADER)) {
        return corrupt(p, "checksum of the seek table");
    }
    if (bop_crc32c(0, content, t->content_size - BOP__WARM_TRAILER_SIZE) != t->index_crc ||
        !skippable_header_is(content - BOP__WARM_SKIPPABLE_HEADER, BOP__WARM_TRAILER_MAGIC,
                             t->content_size)) {
        return corrupt(p, "checksum of the index");
    }
    if (t->dictionary_size > 0) {
        const uint8_t *dictionary = bytes_at(p, dictionary_offset(p));

        if (bop_crc32c(0, dictionary, t->dictionary_size) != t->dictionary_crc ||
            !skippable_header_is(dictionary - BOP__WARM_SKIPPABLE_HEADER,
                                 BOP__WARM_DICTIONARY_MAGIC, t->dictionary_size)) {
            return corrupt(p, "checksum of the dictionary");
        }
    }
    return 0;
}

/* ---- The map ---- */

/* The place of frame i, whose sums so far are in it, and the sums of the next one. */
static bool fill_place(const struct parser *p, struct bop__warm_place *place, uint32_t i)
{
    const uint8_t *entry = bytes_at(p, table_offset(p) + BOP__WARM_SKIPPABLE_HEADER +
                                           (uint64_t)i * BOP__SEEK_ENTRY_SIZE);
    const uint8_t *index = bytes_at(p, content_offset(p) + (uint64_t)i * BOP__WARM_INDEX_SIZE);
    uint32_t packed = bop_load_u32(entry);
    uint32_t plain = bop_load_u32(entry + 4);

    place->records = bop_load_u32(index);
    place->first = bop_load_u32(index + 4);
    place->crc = bop_load_u32(index + 8);
    place[1].offset = place->offset + packed;
    place[1].at = place->at + plain;
    place[1].first_seq = place->first_seq + place->records;
    return plain > 0 && plain <= p->trailer.frame_bytes && packed > 0 &&
           packed <= ZSTD_compressBound(plain) && place->records <= plain && place->first < plain &&
           (place->records > 0 || place->first == 0);
}

/* The entries of the skippable frames, which follow those with content. */
static bool skippable_entries_right(const struct parser *p)
{
    const struct bop__warm_trailer *t = &p->trailer;
    const uint8_t *entry = bytes_at(p, table_offset(p) + BOP__WARM_SKIPPABLE_HEADER +
                                           (uint64_t)t->frames * BOP__SEEK_ENTRY_SIZE);

    if (t->dictionary_size > 0) {
        if (bop_load_u32(entry) != BOP__WARM_SKIPPABLE_HEADER + t->dictionary_size ||
            bop_load_u32(entry + 4) != 0) {
            return false;
        }
        entry += BOP__SEEK_ENTRY_SIZE;
    }
    return bop_load_u32(entry) == BOP__WARM_SKIPPABLE_HEADER + t->content_size &&
           bop_load_u32(entry + 4) == 0;
}

static int fill_places(struct parser *p, struct bop__warm_map *map)
{
    const struct bop__warm_trailer *t = &p->trailer;
    const struct bop__warm_place *last = &map->places[t->frames];
    uint64_t frames_end = dictionary_offset(p) -
                          (t->dictionary_size > 0 ? BOP__WARM_SKIPPABLE_HEADER : 0);

    map->places[0] = (struct bop__warm_place){.first_seq = t->facts.base};
    for (uint32_t i = 0; i < t->frames; i++) {
        /* What is behind the sums of the last place is not filled by any frame. */
        map->places[i + 1] = (struct bop__warm_place){0};
        if (!fill_place(p, &map->places[i], i) ||
            (i >= t->footer_frame && map->places[i].records)) {
            return bop_error_set(p->err, BOP_ECORRUPT,
                                 "%s: packed segment: values of frame %" PRIu32 " in the index",
                                 p->packed->name, i);
        }
    }
    if (last->offset != frames_end || last->at != t->facts.size ||
        last->first_seq != t->facts.end_seq || map->places[t->footer_frame].at != t->facts.end ||
        !skippable_entries_right(p)) {
        return corrupt(p, "values of the seek table");
    }
    map->tail = map->places[t->footer_frame].offset;
    return 0;
}

/* A number that the same content has again: from a digest of the facts, which have checksums of
 * all the rest. */
static int make_number(const struct bop__warm_trailer *trailer, uint64_t *out_number)
{
    uint8_t digest[EVP_MAX_MD_SIZE];

    if (EVP_Digest(trailer, sizeof(*trailer), digest, NULL, EVP_sha256(), NULL) != 1) {
        return BOP_ENOMEM;
    }
    *out_number = bop_load_u64(digest) | 1;
    return 0;
}

static int make_map(struct parser *p, struct bop__frame **out_map)
{
    const struct bop__warm_trailer *t = &p->trailer;
    uint64_t number = p->packed->file_number;
    struct bop__warm_map *map;
    struct bop__frame *frame;
    size_t size;
    int rc = 0;

    if (number == 0) {
        rc = make_number(t, &number);
        if (rc < 0) {
            return rc;
        }
    }
    size = sizeof(*map) + ((size_t)t->frames + 1) * sizeof(map->places[0]) + t->dictionary_size;
    frame = bop__frame_create(p->allocator, number, BOP__WARM_TAIL, size);
    if (!frame) {
        return BOP_ENOMEM;
    }
    map = (struct bop__warm_map *)(void *)frame->data;
    *map = (struct bop__warm_map){
        .file_number = number,
        .packed_size = p->packed->size,
        .frames = t->frames,
        .footer_frame = t->footer_frame,
        .dictionary_size = t->dictionary_size,
    };
    map->facts = t->facts;
    rc = fill_places(p, map);
    if (rc < 0) {
        bop__frame_release(frame);
        return rc;
    }
    memcpy(&map->places[map->frames + 1], bytes_at(p, dictionary_offset(p)), t->dictionary_size);
    *out_map = frame;
    return 0;
}

int bop__warm_map_read(struct bop_allocator *allocator, struct bop__packed *packed,
                       struct bop__warm_tail *out_tail, struct bop__frame **out_map,
                       struct bop_error *err)
{
    struct parser p = {.allocator = allocator, .packed = packed, .tail = out_tail, .err = err};
    struct bop__frame *frame = NULL;
    int rc;

    out_tail->begin = packed->size;
    bop_buf_init(&out_tail->bytes, allocator, 0);
    rc = read_seek_end(&p);
    if (rc == 0) {
        rc = read_facts(&p);
    }
    if (rc == 0) {
        rc = check_sums(&p);
    }
    if (rc == 0) {
        rc = make_map(&p, &frame);
    }
    if (rc == 0) {
        rc = have_from(&p, ((const struct bop__warm_map *)(void *)frame->data)->tail);
    }
    if (rc < 0) {
        bop__frame_release(frame);
        if (rc == BOP_ENOMEM) {
            bop_error_set(err, rc, "open packed segment %s", packed->name);
        }
        return rc;
    }
    *out_map = frame;
    return 0;
}
