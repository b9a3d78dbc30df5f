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

/* ---- Sec-WebSocket-Extensions ---- */

#define WS_PARAMETERS_MAX 5 /* One more than permessage-deflate knows: more are as bad as five. */
#define WS_VALUE_MAX      15

/** "name[=value]", the value without its quotes. */
struct ws_parameter {
    struct bop_slice name;
    bool has_value;
    char value[WS_VALUE_MAX + 1]; /* "" if longer: none that we know is. */
};

/** One element of the list. */
struct ws_extension {
    struct bop_slice name;
    unsigned parameter_count; /* At most WS_PARAMETERS_MAX: further ones are left out. */
    struct ws_parameter parameters[WS_PARAMETERS_MAX];
};

/** Goes through all elements of all headers of that name. Zeroed but for head: at the first. */
struct ws_extensions {
    const struct bop_http_head *head;
    unsigned header; /* The next one to look at. */
    struct bop_slice left;
    unsigned in_header; /* Elements found in this one. */
};
/** Returns 1, 0 at the end, or BOP_EMALFORMED. */
int bop__ws_extension_next(struct ws_extensions *extensions, struct ws_extension *out_extension);

/** What a client offers, as text; and what it makes of the answer: 0, or BOP_EPROTOCOL. */
void bop__ws_deflate_offer(const struct bop_ws_deflate_options *options,
                           char out_text[BOP_WS_EXTENSION_TEXT_MAX]);
int bop__ws_deflate_agree(const struct ws_extension *answer,
                          const struct bop_ws_deflate_options *options,
                          struct bop_ws_deflate *out_deflate, const char **out_why);

bool bop__ws_is_token(struct bop_slice text);
bool bop__ws_is_token_byte(uint8_t byte);

#endif
