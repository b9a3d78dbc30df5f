/*
 * zlib's states and who holds them.
 *
 * A direction of a connection holds one while it has to: with context takeover from its first
 * compressed message on, without it only inside of a message that comes or goes in pieces. All
 * others are spare ones of the loop.
 */
#ifndef BOP_NET_WS_DEFLATE_INTERNAL_H
#define BOP_NET_WS_DEFLATE_INTERNAL_H

#include <libdeflate.h>
#define ZLIB_CONST
#include <zlib.h>

#include "ws_frame.h"

#define WS_MAGIC_SIZE 8

struct bop_ws_zip_state {
    struct bop_ws_zip_state *next; /* Of the spare ones. */
    bool deflates;
    uint8_t bits; /* Of its window. */
    uint8_t mem_level;
    /* Inflating: of the message under way. */
    uint8_t tail;   /* Bytes of ws_tail given to zlib. */
    bool ended;     /* The last byte it took ended a block marked final. */
    uint64_t total; /* Bytes it gave. */
    z_stream z;
};

struct bop_ws_zip {
    struct bop_allocator *allocator;
    int level;
    int mem_level;
    unsigned spare_max;
    unsigned spare_count[2]; /* By `deflates`. */
    struct bop_ws_zip_state *spare[2];
    struct libdeflate_decompressor *decompressor;
    size_t whole_min;     /* Payloads below go to zlib. Tests set it to 0. */
    struct bop_buf whole; /* A payload with what libdeflate needs after it. */
    uint8_t magic[WS_MAGIC_SIZE];
};

/** What a sender leaves out after each message, and the receiver puts there again. */
extern const uint8_t ws_tail[4];

/** A state at its beginning. NULL: no memory. */
struct bop_ws_zip_state *bop__ws_zip_take(struct bop_ws_zip *zip, bool deflates, unsigned bits,
                                          int mem_level);
/** NULL is fine. */
void bop__ws_zip_give(struct bop_ws_zip *zip, struct bop_ws_zip_state *state);

#endif
