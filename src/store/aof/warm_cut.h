/*
 * Cutting a segment's bytes into frames: a record that fits into a frame lies in one.
 */
#ifndef BOP_STORE_AOF_WARM_CUT_H
#define BOP_STORE_AOF_WARM_CUT_H

#include "format.h"

/**
 * Takes bytes as they come and gives each frame's to on_frame. It only looks at lengths: that the
 * records are right is for others to check, who see the same bytes.
 */
struct bop__cutter {
    struct bop_allocator *allocator;
    size_t frame_bytes;
    int (*on_frame)(void *user, const uint8_t *bytes, size_t size, uint32_t records, uint32_t first,
                    struct bop_error *err);
    void *user;
    bool lost;          /* What came is no record: the rest is not looked at. */
    uint64_t unit_left; /* Of the record that goes by; 0 while its header is collected. */
    size_t header_have;
    uint32_t records; /* That begin in the frame. */
    uint32_t first;   /* Where the first of them begins. */
    size_t size;      /* Of what is collected. */
    uint8_t *bytes;   /* frame_bytes and a header. */
};

/** Begin with a segment's header block. 0 or BOP_ENOMEM. */
int bop__cutter_init(struct bop__cutter *cutter, struct bop_allocator *allocator,
                     size_t frame_bytes);
int bop__cutter_add(struct bop__cutter *cutter, const uint8_t *bytes, size_t size,
                    struct bop_error *err);
/** The records end here: give out what is collected. False in *out_whole: in the midst of one. */
int bop__cutter_end(struct bop__cutter *cutter, bool *out_whole, struct bop_error *err);
/** Bytes without records, after the end. */
int bop__cutter_add_plain(struct bop__cutter *cutter, const uint8_t *bytes, size_t size,
                          struct bop_error *err);
void bop__cutter_deinit(struct bop__cutter *cutter);

#endif
