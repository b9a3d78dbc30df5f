/*
 * Going through a segment's bytes from record to record, each checked: header checksum, number,
 * link to the one before, length, payload checksum, padding. Fillers are entries too, without a
 * number.
 */
#ifndef BOP_STORE_AOF_WALK_H
#define BOP_STORE_AOF_WALK_H

#include "format.h"
#include "source.h"

/** Where a walk stands, and what must come there. */
struct bop__walk {
    uint32_t salt;
    uint32_t chain;   /* What the entry at offset carries, if known. */
    bool chain_known; /* False behind a jump. */
    uint64_t seq;     /* Of the next record. */
    uint64_t offset;  /* Of the next entry. */
    /* The bytes at offset, as far as the source gave them; void after any other call on it. */
    const uint8_t *at;
    size_t held;
};

/** The first record of a segment. */
static inline struct bop__walk bop__walk_begin(uint32_t seed, uint64_t base, uint64_t generation)
{
    uint32_t salt = bop__aof_salt(seed, base, generation);

    return (struct bop__walk){.salt = salt,
                              .chain = salt,
                              .chain_known = true,
                              .seq = base,
                              .offset = BOP__AOF_SEGMENT_HEADER};
}

/** Go on with the record seq, which lies at offset. */
static inline void bop__walk_jump(struct bop__walk *walk, uint64_t seq, uint64_t offset)
{
    if (offset >= walk->offset && offset - walk->offset < walk->held) {
        walk->at += offset - walk->offset;
        walk->held -= (size_t)(offset - walk->offset);
    } else {
        walk->held = 0;
    }
    walk->seq = seq;
    walk->offset = offset;
    walk->chain_known = false;
}

/**
 * Check the header at the walk's place, of which there are all bytes; the entry must end at most
 * `room` behind its beginning. Returns NULL, or in words what is wrong with it.
 */
static inline const char *bop__walk_header(const struct bop__walk *walk, const uint8_t *bytes,
                                           uint64_t room, struct bop__aof_record_header *out_header)
{
    memcpy(out_header, bytes, sizeof(*out_header));
    if (BOP_UNLIKELY(!bop__aof_header_valid(walk->salt, out_header))) {
        return "header checksum";
    }
    if (BOP_UNLIKELY(out_header->seq != walk->seq)) {
        return "another record is in its place";
    }
    if (BOP_UNLIKELY(walk->chain_known && out_header->chain != walk->chain)) {
        return "does not follow the record before";
    }
    if (BOP_UNLIKELY(bop__aof_record_size(bop__aof_record_length(out_header)) > room)) {
        return "length";
    }
    return NULL;
}

/** Check what follows a header that is right. bytes begin with the header. */
static inline const char *bop__walk_body(const struct bop__aof_record_header *header,
                                         const uint8_t *bytes)
{
    uint32_t length = bop__aof_record_length(header);
    const uint8_t *payload = bytes + BOP__AOF_RECORD_HEADER;
    unsigned tail = 8 * (length % BOP__AOF_RECORD_ALIGN);
    uint64_t word = bop_load_u64(payload + (length - length % BOP__AOF_RECORD_ALIGN));

    if (BOP_UNLIKELY(bop_crc32c(0, payload, length) != header->payload_crc)) {
        return "payload checksum";
    }
    /* The last word holds what is left of the payload, zeros, and the mark. */
    if (BOP_UNLIKELY(word >> tail != (uint64_t)BOP__AOF_END_MARK << (56 - tail))) {
        return "padding";
    }
    return NULL;
}

/** Step over the entry with this header, which was fetched or peeked at. */
static inline void bop__walk_step(struct bop__walk *walk,
                                  const struct bop__aof_record_header *header)
{
    uint64_t size = bop__aof_record_size(bop__aof_record_length(header));

    walk->seq += bop__aof_is_filler(header) ? 0 : 1;
    walk->offset += size;
    if (BOP_LIKELY(size <= walk->held)) {
        walk->at += size;
        walk->held -= (size_t)size;
    } else {
        walk->held = 0;
    }
    walk->chain = bop__aof_link(header);
    walk->chain_known = true;
}

/** Say that the entry at the walk's place is bad. Returns BOP_ECORRUPT. */
int bop__walk_corrupt(const struct bop__walk *walk, const char *name, const char *what,
                      struct bop_error *err);

/** As bop__walk_fetch, but nothing of the entry is needed but its header. */
int bop__walk_peek(struct bop__walk *walk, struct bop__segment_source *source, uint64_t end,
                   size_t guess, struct bop__aof_record_header *out_header, struct bop_error *err);

/** As bop__walk_fetch, for what is not held already. */
int bop__walk_fetch_more(struct bop__walk *walk, struct bop__segment_source *source, uint64_t end,
                         size_t guess, struct bop__aof_record_header *out_header,
                         struct bop_error *err);

/**
 * Have the entry at the walk's place whole in walk->at, from a source in which records end at `end`
 * at the latest. `guess` is how many bytes to ask for if it has to be asked. The header is checked,
 * the body is not. 0, BOP_ECORRUPT, or the source's code.
 */
static inline int bop__walk_fetch(struct bop__walk *walk, struct bop__segment_source *source,
                                  uint64_t end, size_t guess,
                                  struct bop__aof_record_header *out_header, struct bop_error *err)
{
    /* What is held lies below the end of the source, which is not below `end`. */
    if (BOP_LIKELY(walk->held >= BOP__AOF_RECORD_HEADER && end > walk->offset &&
                   end - walk->offset >= BOP__AOF_RECORD_HEADER)) {
        uint64_t room = bop_min_u64(walk->held, end - walk->offset);

        if (BOP_LIKELY(!bop__walk_header(walk, walk->at, room, out_header))) {
            return 0;
        }
    }
    return bop__walk_fetch_more(walk, source, end, guess, out_header, err);
}

#endif
