/*
 * Judging entries of a segment, as recovery does, and finding those behind damage.
 */
#include "look.h"

#include "walk.h"

/* What is asked of the source at once. */
#define LOOK_BYTES (256u * 1024)

struct bop__look bop__look_begin(struct bop__segment_source *source, uint32_t seed, uint64_t base,
                                 uint64_t generation, uint64_t limit, bool aligned)
{
    uint32_t salt = bop__aof_salt(seed, base, generation);

    return (struct bop__look){.source = source,
                              .limit = limit,
                              .salt = salt,
                              .aligned = aligned,
                              .offset = BOP__AOF_SEGMENT_HEADER,
                              .seq = base,
                              .chain = salt,
                              .chain_known = true,
                              .link = seed,
                              .link_known = true};
}

const char *bop__look_text(enum bop__look_verdict verdict)
{
    switch (verdict) {
    case BOP__LOOK_GOOD:
        return "good";
    case BOP__LOOK_HEADER_BAD:
        return "header checksum";
    case BOP__LOOK_HEADER_WRONG:
        return "another record is in its place";
    case BOP__LOOK_BODY_BAD:
        return "payload checksum";
    }
    return "";
}

/* ---- One entry ---- */

/* Exactly size bytes at offset; fewer (out_bytes->size) where the file ends. */
static int fetch(struct bop__look *look, uint64_t offset, size_t size, struct bop_slice *out_bytes,
                 struct bop_error *err)
{
    int rc;

    *out_bytes = bop_slice(NULL, 0);
    if (offset >= look->source->size) {
        return 0;
    }
    rc = look->source->at(look->source, offset, size, out_bytes, err);
    out_bytes->size = rc == 0 ? bop_min_u64(out_bytes->size, size) : 0;
    return rc;
}

static enum bop__look_verdict check_header(const struct bop__look *look,
                                           const struct bop__aof_record_header *header)
{
    uint64_t room = look->limit > look->offset ? look->limit - look->offset : 0;

    if (!bop__aof_header_valid(look->salt, header)) {
        return BOP__LOOK_HEADER_BAD;
    }
    if (header->seq != look->seq || (look->chain_known && header->chain != look->chain) ||
        header->durable_seq >= header->seq ||
        bop__aof_record_size(bop__aof_record_length(header)) > room) {
        return BOP__LOOK_HEADER_WRONG;
    }
    return BOP__LOOK_GOOD;
}

int bop__look_entry(struct bop__look *look, struct bop__aof_record_header *out_header,
                    struct bop_slice *out_bytes, enum bop__look_verdict *out_verdict,
                    struct bop_error *err)
{
    size_t size;
    int rc = fetch(look, look->offset, BOP__AOF_RECORD_HEADER, out_bytes, err);

    memset(out_header, 0, sizeof(*out_header));
    *out_verdict = BOP__LOOK_HEADER_BAD;
    if (rc < 0 || out_bytes->size < BOP__AOF_RECORD_HEADER) {
        return rc;
    }
    memcpy(out_header, out_bytes->data, sizeof(*out_header));
    *out_verdict = check_header(look, out_header);
    if (*out_verdict != BOP__LOOK_GOOD) {
        return 0;
    }
    size = (size_t)bop__aof_record_size(bop__aof_record_length(out_header));
    rc = fetch(look, look->offset, size, out_bytes, err);
    if (rc == 0 && (out_bytes->size < size || bop__walk_body(out_header, out_bytes->data))) {
        *out_verdict = BOP__LOOK_BODY_BAD;
    }
    return rc;
}

void bop__look_step(struct bop__look *look, const struct bop__aof_record_header *header)
{
    look->offset += bop__aof_record_size(bop__aof_record_length(header));
    look->chain = bop__aof_link(header);
    look->chain_known = true;
    look->vouched = bop_max_u64(look->vouched, header->durable_seq);
    if (!bop__aof_is_filler(header)) {
        look->seq++;
        look->link = look->chain;
        look->link_known = true;
    }
}

/* ---- What ends the good ones ---- */

/* True if [from, to) lies in the file, ends with a byte that is not zero, and has no sector
 * whose part in it is all zeros. In a header the last byte must not be the only one. */
static int fully_written(struct bop__look *look, uint64_t from, uint64_t to, bool *out_fully,
                         struct bop_error *err)
{
    bool header = to - from == BOP__AOF_RECORD_HEADER;

    *out_fully = false;
    while (from < to) {
        uint64_t sector_end = (from / BOP__AOF_SECTOR + 1) * BOP__AOF_SECTOR;
        size_t size = (size_t)(bop_min_u64(sector_end, to) - from);
        size_t counted = header && from + size == to ? size - 1 : size;
        struct bop_slice bytes;
        uint8_t any = 0;
        int rc = fetch(look, from, size, &bytes, err);

        if (rc < 0 || bytes.size < size) {
            return rc;
        }
        for (size_t i = 0; i < counted; i++) {
            any |= bytes.data[i];
        }
        from += size;
        if (any == 0 || (from == to && bytes.data[size - 1] == 0)) {
            return 0;
        }
    }
    *out_fully = true;
    return 0;
}

/* Looking through what lies behind a bad place. */
struct behind {
    struct bop__look *look;
    uint64_t from; /* What lies before is part of a record: headers in it are its payload's. */
    uint64_t torn_end;
    bool vouched;
    bool stop_at_header; /* The first good header is what is looked for. */
    bool found;
    uint64_t found_offset;
    struct bop__aof_record_header header;
};

/* The bad one is a filler, and it was on disk: the record behind it vouches for the one before. */
static bool behind_filler(const struct bop__look *at, const struct bop__aof_record_header *header,
                          uint64_t offset)
{
    return at->aligned && header->seq == at->seq && !bop__aof_is_filler(header) &&
           offset == at->offset + bop__aof_filler_size(at->offset) &&
           header->durable_seq + 1 >= at->seq;
}

/* Look at a word: is it the last one so far that is not zero, does a header begin there? */
static void look_at_word(struct behind *behind, uint64_t offset, const uint8_t *bytes, size_t size)
{
    const struct bop__look *at = behind->look;
    uint64_t seq = bop_load_u64(bytes);
    struct bop__aof_record_header header;

    if (seq == 0) {
        return;
    }
    behind->torn_end = offset + sizeof(seq);
    /* Records lie behind each other, so seq says how far away this is at least. */
    if (offset < behind->from || offset == at->offset || seq < at->seq || size < sizeof(header) ||
        seq - at->seq > (offset - at->offset) / BOP__AOF_RECORD_HEADER) {
        return;
    }
    memcpy(&header, bytes, sizeof(header));
    if (header.durable_seq >= header.seq || !bop__aof_header_valid(at->salt, &header)) {
        return;
    }
    behind->found = true;
    behind->found_offset = offset;
    behind->header = header;
    behind->vouched |= header.durable_seq >= at->seq || behind_filler(at, &header, offset);
    behind->from = offset + bop__aof_record_size(bop__aof_record_length(&header));
}

static bool satisfied(const struct behind *behind)
{
    return behind->stop_at_header ? behind->found : behind->vouched;
}

/* From the bad place on, until what is looked for is found or the file ends. */
static int look_behind(struct behind *behind, struct bop_error *err)
{
    uint64_t offset = behind->look->offset;
    uint64_t file_size = behind->look->source->size;

    while (offset < file_size && !satisfied(behind)) {
        size_t size = (size_t)bop_min_u64(file_size - offset, LOOK_BYTES);
        struct bop_slice bytes;
        size_t at = 0;
        int rc = fetch(behind->look, offset, size, &bytes, err);

        if (rc < 0) {
            return rc;
        }
        for (; at + sizeof(uint64_t) <= bytes.size && !satisfied(behind); at += sizeof(uint64_t)) {
            look_at_word(behind, offset + at, bytes.data + at, bytes.size - at);
        }
        if (bytes.size < LOOK_BYTES) {
            /* The odd bytes of a file whose size is no multiple of a word. */
            for (; at < bytes.size; at++) {
                behind->torn_end = bytes.data[at] != 0 ? offset + at + 1 : behind->torn_end;
            }
            break;
        }
        /* Again from the last place where a whole header might begin. */
        offset += bytes.size - (BOP__AOF_RECORD_HEADER - sizeof(uint64_t));
    }
    return 0;
}

int bop__look_judge(struct bop__look *look, const struct bop__aof_record_header *header,
                    enum bop__look_verdict verdict, const char **out_why, uint64_t *out_torn_end,
                    bool *out_vouched, struct bop_error *err)
{
    struct behind behind = {.look = look, .from = look->offset};
    uint64_t extent = BOP__AOF_RECORD_HEADER;
    bool fully = false;
    int rc;

    *out_why = NULL;
    if (verdict == BOP__LOOK_BODY_BAD) {
        extent = bop__aof_record_size(bop__aof_record_length(header));
        behind.from += extent;
    }
    rc = look_behind(&behind, err);
    *out_torn_end = behind.torn_end;
    *out_vouched = behind.vouched;
    if (rc < 0) {
        return rc;
    }
    if (behind.vouched) {
        *out_why = "a later record says that it was on disk";
    } else if (verdict == BOP__LOOK_HEADER_WRONG) {
        *out_why = "it was never written there";
    } else {
        rc = fully_written(look, look->offset, look->offset + extent, &fully, err);
        *out_why = fully ? "it was written as a whole" : NULL;
    }
    return rc;
}

int bop__look_resume(struct bop__look *look, const struct bop__aof_record_header *header,
                     enum bop__look_verdict verdict, bool *out_found, struct bop_error *err)
{
    struct behind behind = {.look = look, .from = look->offset, .stop_at_header = true};
    int rc;

    if (verdict == BOP__LOOK_BODY_BAD) {
        behind.from += bop__aof_record_size(bop__aof_record_length(header));
    }
    rc = look_behind(&behind, err);
    *out_found = rc == 0 && behind.found;
    if (*out_found) {
        /* What a bad record's own header says is its link is right if that header is. */
        look->chain_known = false;
        look->link_known = false;
        look->offset = behind.found_offset;
        look->seq = behind.header.seq;
    }
    return rc;
}
