/*
 * What the files of the WebSocket codec share, and its tests see: see
 * bop/ws_codec.h for what it does. Connections need no more than that one.
 */
#ifndef BOP_NET_WS_FRAME_H
#define BOP_NET_WS_FRAME_H

#include <bop/ws_codec.h>

/* Bits of struct bop_ws_decoder's flags. */
#define WS_FRAME_LAST 2u /* Which is the message's last. */
#define WS_DEFLATED   4u /* The message is compressed. */

_Static_assert(sizeof(struct bop_ws_decoder) <= 32, "lives in a connection's block");

/** What the processor can, at most; tests and fuzzers lower it. */
enum ws_simd {
    WS_SCALAR = 0,
    WS_SSE = 1, /* SSSE3 */
    WS_AVX2 = 2,
};
/** The best this processor has. */
enum ws_simd bop__ws_simd_best(void);
/** Use no more than that from now on. Not while another thread uses the codec. */
void bop__ws_simd_limit(enum ws_simd most);
/** What is used. */
enum ws_simd bop__ws_simd(void);

/** As bop_ws_mask() in place, and tells whether any byte came out above 0x7f. */
uint32_t bop__ws_unmask_text(uint8_t *bytes, size_t size, uint32_t key, bool *out_not_ascii);

/** Whether whole text is UTF-8. */
bool bop__ws_utf8_whole(const uint8_t *bytes, size_t size);

#endif
