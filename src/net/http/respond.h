/*
 * Writing answers, as the files that do it share it.
 */
#ifndef BOP_NET_HTTP_RESPOND_H
#define BOP_NET_HTTP_RESPOND_H

#include "server_internal.h"

static inline uint8_t *bop__put(uint8_t *at, const void *from, size_t size)
{
    memcpy(at, from, size);
    return at + size;
}

#define PUT(at, literal) bop__put(at, literal, sizeof(literal) - 1)

static inline uint8_t *bop__put_hex(uint8_t *at, uint64_t value)
{
    unsigned shift = value == 0 ? 0 : (63u - (unsigned)__builtin_clzll(value)) & ~3u;

    for (;; shift -= 4) {
        *at++ = (uint8_t) "0123456789abcdef"[value >> shift & 15u];
        if (shift == 0) {
            return at;
        }
    }
}

/** How an answer's body ends. */
enum bop__http_framed {
    BOP__HTTP_BY_LENGTH,
    BOP__HTTP_BY_CHUNKS,
    BOP__HTTP_BY_CLOSE,
    BOP__HTTP_BY_NOTHING, /* 204, or 304 without a length announced. */
};

/** A status whose answers have no content, whatever the headers say. */
static inline bool bop__http_has_no_content(unsigned status)
{
    return status < 200 || status == 204 || status == 304;
}

/* ---- exchange_head.c ---- */

/** The socket's output with room for this much; NULL with the code in *out_rc. */
struct bop_buf *bop__http_output(struct bop__http_conn *conn, size_t room, int *out_rc);
/** Bytes were appended to it, up to `end`. */
void bop__http_wrote(struct bop__http_conn *conn, struct bop_buf *out, const uint8_t *end);
/** Put the head into the output, with room for `room` bytes of the body behind it: append them from
 * *out_at on and tell bop__http_wrote(). Returns 0, or a code with nothing changed. */
BOP_MUST_USE int bop__exchange_begin(struct bop__exchange *ex, const char *content_type,
                                     enum bop__http_framed framed, uint64_t length, size_t room,
                                     struct bop_buf **out, uint8_t **out_at);

/* ---- exchange_respond.c ---- */

/** The whole answer, of the status and headers set. Returns 0, or a code with nothing changed. */
BOP_MUST_USE int bop__exchange_reply(struct bop__exchange *ex, const char *content_type,
                                     struct bop_slice body);
/** The same with gzip, where that makes it smaller. */
BOP_MUST_USE int bop__exchange_reply_compressed(struct bop__exchange *ex, const char *content_type,
                                                struct bop_slice body);

#endif
