/*
 * WebSocket as bytes: frames (RFC 6455), the opening handshake, permessage-deflate
 * (RFC 7692). Pure functions over memory: no sockets, no clock; what bop/ws.h's
 * connections are made of, for those who have a transport of their own.
 *
 * Strict: whatever a MUST of the two documents forbids is an error with the
 * close code to send, found at the first byte that shows it. Text is checked to
 * be UTF-8 as it comes, so a bad byte fails before its frame or message ends.
 *
 * An endpoint between two messages keeps nothing: a decoder that is idle may be
 * zeroed, or given up.
 *
 * Speed: unmasking and UTF-8 32 bytes at a time where the processor can, chosen
 * at run time; scalar twins give the same results on every input (fuzzed).
 *
 * Threads: none of its own; different objects in different threads are fine.
 */
#ifndef BOP_WS_CODEC_H
#define BOP_WS_CODEC_H

#include <bop/base.h>
#include <bop/error.h>
#include <bop/http1.h>
#include <bop/slice.h>

enum bop_ws_opcode {
    BOP_WS_CONTINUATION = 0,
    BOP_WS_TEXT = 1, /* UTF-8: checked when received, the caller's care when sent. */
    BOP_WS_BINARY = 2,
    BOP_WS_CLOSE = 8,
    BOP_WS_PING = 9,
    BOP_WS_PONG = 10,
};

/* The other bits of a frame's first byte. */
#define BOP_WS_FIN        0x80u
#define BOP_WS_COMPRESSED 0x40u /* RSV1, on a compressed message's first frame. */

/** Close codes of RFC 6455, 7.4.1, and of IANA's registry. Others: 3000 to 4999. */
enum bop_ws_code {
    BOP_WS_NORMAL = 1000,
    BOP_WS_GOING_AWAY = 1001,
    BOP_WS_PROTOCOL = 1002,
    BOP_WS_UNSUPPORTED = 1003,
    BOP_WS_NO_STATUS = 1005, /* Never sent: the peer's close frame named none. */
    BOP_WS_ABNORMAL = 1006,  /* Never sent: no close frame came. */
    BOP_WS_INVALID = 1007,   /* Text that is not UTF-8, data that does not inflate. */
    BOP_WS_POLICY = 1008,
    BOP_WS_TOO_BIG = 1009,
    BOP_WS_EXTENSION = 1010,
    BOP_WS_INTERNAL = 1011,
    BOP_WS_RESTART = 1012,
    BOP_WS_TRY_LATER = 1013,
};

#define BOP_WS_HEADER_MAX  14  /* Of a frame. */
#define BOP_WS_CONTROL_MAX 125 /* Payload of a control frame. */
#define BOP_WS_REASON_MAX  123 /* Of a close frame. */

/** Whether the code may stand in a close frame: 1000-1003, 1007-1014, 3000-4999. */
BOP_API bool bop_ws_close_code_is_valid(unsigned code);

/* ---- UTF-8 that comes in pieces ---- */

/** Where in a character the last piece ended. Zeroed: between two. */
struct bop_ws_utf8 {
    uint8_t missing; /* Bytes of the character that are yet to come. */
    uint8_t low;     /* Bounds of the next of them. */
    uint8_t high;
};

/** Check a piece. false: no continuation could make this UTF-8 (the state is then meaningless). */
BOP_API BOP_MUST_USE bool bop_ws_utf8_feed(struct bop_ws_utf8 *utf8, struct bop_slice bytes);
/** Whether the text may end here. */
static inline bool bop_ws_utf8_may_end(const struct bop_ws_utf8 *utf8)
{
    return utf8->missing == 0;
}

/* ---- Masking ---- */

/**
 * Xor the four bytes of key, first byte lowest, over size bytes from `from` to `to` (which may be
 * the same, and else must not overlap). Returns the key for the bytes that follow.
 */
BOP_API uint32_t bop_ws_mask(uint8_t *to, const uint8_t *from, size_t size, uint32_t key);

/** Unpredictable masking keys for a client, drawn from the system 64 at a time. Zeroed: none yet.
 */
struct bop_ws_keys {
    uint32_t left;
    uint32_t keys[64];
};
/** Returns 0 or -errno. */
BOP_API BOP_MUST_USE int bop_ws_keys_next(struct bop_ws_keys *keys, uint32_t *out_key);

/* ---- Decoding frames ---- */

/** What an endpoint wants of its peer's frames. */
struct bop_ws_rules {
    uint64_t message_bytes_max; /* Of a message as sent, over it 1009; UINT64_MAX: no bound. A
                                   compressed one is bounded by bop_ws_inflate() instead. */
    bool client;                /* We are the client: frames must come unmasked. */
    bool deflate;               /* permessage-deflate was negotiated: RSV1 may be set. */
};

/**
 * Where a connection's decoding stands. Zeroed: at a message's beginning. While it is idle nothing
 * in it matters, so a connection need not keep it between messages.
 */
struct bop_ws_decoder {
    uint64_t left; /* Payload of the data frame under way that is yet to come. */
    uint64_t size; /* Payload of the message's frames so far, that of this one announced. */
    uint32_t key;  /* For the first byte that is yet to come. */
    struct bop_ws_utf8 utf8; /* Of a text message; of a compressed one for bop_ws_inflate(). */
    uint8_t opcode;          /* Of the message under way. 0: none. */
    uint8_t flags;
};

static inline bool bop_ws_decoder_is_idle(const struct bop_ws_decoder *decoder)
{
    return decoder->opcode == 0;
}

/** What bop_ws_decode() found: a piece of a message, or a whole control frame. */
struct bop_ws_event {
    uint8_t opcode;      /* TEXT or BINARY, that of the message also for its continuations; or
                            CLOSE, PING, PONG. */
    bool first;          /* A message begins with this piece. */
    bool last;           /* A message ends with this piece. first and last: it is whole. */
    bool compressed;     /* The message has to be inflated; text is then not checked yet. */
    uint16_t close_code; /* Of CLOSE: NO_STATUS if it has none. data is the reason then, or of an
                            error: what to close with. */
    size_t size;
    uint8_t *data;       /* Unmasked, in the bytes decoded. */
    uint64_t frame_left; /* Payload of this frame after this piece. */
    const char *why;     /* Of an error: one line, of static duration. */
};

/**
 * Decode some. Takes *in_out_bytes from its front, in which payload is unmasked: it must be
 * writable memory, whatever the slice says. Call until it returns something else than 1.
 *
 * Pieces are given as they come (also an empty first one, when only the frame's header is there);
 * a text's piece may end within a character. Control frames are given whole, also between pieces.
 * After CLOSE the caller decodes no more.
 *
 * Returns 1 (an event; call again); BOP_ETRUNCATED (more must come: of what is left in
 * *in_out_bytes, less than a header or a control frame, nothing was changed; give it again with
 * what follows); or -1002, -1007, -1009, with why set: the connection has failed.
 */
BOP_API BOP_MUST_USE int bop_ws_decode(struct bop_ws_decoder *decoder,
                                       const struct bop_ws_rules *rules,
                                       struct bop_slice *in_out_bytes,
                                       struct bop_ws_event *out_event);

/* ---- Encoding frames ---- */

/**
 * Write a frame's header. first_byte: an opcode with FIN and COMPRESSED; key NULL: unmasked (a
 * server), else the payload must be masked with it (a client). Returns the header's size.
 */
BOP_API size_t bop_ws_header(uint8_t out_header[BOP_WS_HEADER_MAX], unsigned first_byte,
                             uint64_t payload_size, const uint32_t *key);

/** Append a frame, its payload copied and masked as key says. Returns 0, BOP_ENOMEM or BOP_EFULL.
 */
BOP_API BOP_MUST_USE int bop_ws_append(struct bop_buf *buf, unsigned first_byte,
                                       struct bop_slice payload, const uint32_t *key);

/**
 * Make a close frame's payload: nothing for NO_STATUS, else code and reason, of which what is over
 * REASON_MAX is cut off between two characters. Returns its size; BOP_EINVAL if the code may not
 * be sent or the reason is not UTF-8.
 */
BOP_API BOP_MUST_USE int bop_ws_close_payload(uint8_t out_payload[BOP_WS_CONTROL_MAX],
                                              unsigned code, struct bop_slice reason);

/* ---- permessage-deflate: negotiation ---- */

/** What to offer or to accept. Zero fields take the defaults. */
struct bop_ws_deflate_options {
    bool enabled;        /* Default: off. */
    uint8_t server_bits; /* At most, of the window of what the server sends: 8 to 15. Default 15. */
    uint8_t client_bits; /* The same of the client's; a server can only ask a client that can. */
    bool server_takeover; /* Keep the window from message to message: compresses better, costs */
    bool client_takeover; /* memory for each connection. Default: neither. */
};

/** What was agreed on. */
struct bop_ws_deflate {
    bool on;
    bool server_takeover;
    bool client_takeover;
    uint8_t server_bits; /* 8 to 15 */
    uint8_t client_bits;
};

#define BOP_WS_EXTENSION_TEXT_MAX 160

/**
 * Server: answer a client's offers, the first that can be accepted. head was found good by
 * bop_ws_request_check(). Sets out_deflate, and out_text to the value of Sec-WebSocket-Extensions
 * to send. Returns whether there is one.
 */
BOP_API bool bop_ws_deflate_accept(const struct bop_http_head *head,
                                   const struct bop_ws_deflate_options *options,
                                   struct bop_ws_deflate *out_deflate,
                                   char out_text[BOP_WS_EXTENSION_TEXT_MAX]);

/* ---- permessage-deflate: payload ---- */

/**
 * What compressing and inflating need and the connections of a loop can share: scratch memory,
 * states for messages that take no context over, and spare ones.
 */
struct bop_ws_zip;
/** A state of zlib's that belongs to one direction of one connection; NULL while it needs none. */
struct bop_ws_zip_state;

/** Zero fields take the defaults. */
struct bop_ws_zip_options {
    struct bop_allocator *allocator; /* Of everything but libdeflate, which has its own 12 KiB. */
    int level;                       /* 1 (fast) to 9 (small). Default 6. */
    int mem_level;      /* zlib's, 1 to 9, of states that keep their window. Default 8. */
    unsigned spare_max; /* States kept for later use, of each kind. Default 4. */
};
/** Returns 0, BOP_EINVAL or BOP_ENOMEM. */
BOP_API BOP_MUST_USE int bop_ws_zip_create(const struct bop_ws_zip_options *options,
                                           struct bop_ws_zip **out_zip);
/** NULL is fine. Its states must have been given back. */
BOP_API void bop_ws_zip_destroy(struct bop_ws_zip *zip);

/** One direction of a connection. Owned by it; zeroed but for the first three at first. */
struct bop_ws_zip_stream {
    uint8_t bits;  /* Of that direction's window. */
    bool takeover; /* Of that direction. */
    bool inside;   /* A message is under way. */
    struct bop_ws_zip_state *state;
};
/** The directions of a connection as agreed: what it sends and what it receives. */
BOP_API void bop_ws_zip_streams(const struct bop_ws_deflate *deflate, bool client,
                                struct bop_ws_zip_stream *out_send,
                                struct bop_ws_zip_stream *out_receive);
/** Give back what the direction holds, as at the end of the connection. */
BOP_API void bop_ws_zip_stream_deinit(struct bop_ws_zip *zip, struct bop_ws_zip_stream *stream);

/**
 * Compress a message, or a part of one, and append the payload to send; the first frame of a
 * message has COMPRESSED set.
 *
 * Returns 0; 1 if a whole message is better sent as it is (empty, or without takeover no smaller;
 * nothing was appended); BOP_ENOMEM or BOP_EFULL (nothing was appended, but a stream with takeover,
 * or inside a message, is lost: close).
 */
BOP_API BOP_MUST_USE int bop_ws_deflate(struct bop_ws_zip *zip, struct bop_ws_zip_stream *send,
                                        struct bop_slice part, bool last, struct bop_buf *out);

/**
 * Inflate a piece of a compressed message (event.data, event.last) and append what it gives.
 *
 * message_bytes_max: of the message inflated. utf8: of a text message, to check what is appended
 * (decoder.utf8; a copy of one's own zeroed at the message's first piece does as well); else NULL.
 * out_more: how many bytes to append at most in this call (SIZE_MAX: all), for messages given on
 * in pieces.
 *
 * Returns 0 (the piece is taken; with last, the message is at its end), 1 (out_more bytes were
 * appended and there may be more: call again with what is left in *in_out_piece, also if that is
 * nothing), -1007 (corrupt, or not UTF-8), -1009 (more than message_bytes_max; found while
 * inflating, never past one byte more), BOP_ENOMEM or BOP_EFULL.
 */
BOP_API BOP_MUST_USE int bop_ws_inflate(struct bop_ws_zip *zip, struct bop_ws_zip_stream *receive,
                                        struct bop_slice *in_out_piece, bool last,
                                        uint64_t message_bytes_max, struct bop_ws_utf8 *utf8,
                                        size_t out_more, struct bop_buf *out);

/* ---- The opening handshake, server ---- */

#define BOP_WS_KEY_SIZE    24 /* Of Sec-WebSocket-Key. */
#define BOP_WS_ACCEPT_SIZE 28 /* Of Sec-WebSocket-Accept. */

/**
 * Check a request and compute the value of Sec-WebSocket-Accept (NUL-terminated).
 *
 * Returns 0, or -status of the answer to give: -400; -405 (with Allow: GET); -426 (with Upgrade:
 * websocket and Sec-WebSocket-Version: 13), also for a request that asks for no WebSocket. out_why
 * as in bop_http1_parse_request(). Who may come from where (Origin) is for the caller to say, 403.
 */
BOP_API BOP_MUST_USE int bop_ws_request_check(const struct bop_http_head *head,
                                              char out_accept[BOP_WS_ACCEPT_SIZE + 1],
                                              const char **out_why);

/** The first subprotocol of the client's list that is one of ours; case matters. NULL: none, so
 * the answer has no Sec-WebSocket-Protocol. */
BOP_API const char *bop_ws_protocol_choose(const struct bop_http_head *head,
                                           const char *const *protocols, size_t protocol_count);

/** Sec-WebSocket-Accept for a key of 24 characters. */
BOP_API void bop_ws_accept_key(const char key[BOP_WS_KEY_SIZE],
                               char out_accept[BOP_WS_ACCEPT_SIZE + 1]);

/* ---- The opening handshake, client ---- */

/** What is asked for. */
struct bop_ws_request {
    const char *host;   /* Value of Host: with ":port" unless it is the scheme's own. */
    const char *target; /* "/chat?room=1". Default "/". */
    const char *origin; /* NULL: none. */
    const char *const *protocols;
    size_t protocol_count;
    const struct bop_http_header *headers; /* More of them. */
    size_t header_count;
    struct bop_ws_deflate_options deflate;
};

/**
 * Append the head of a request, with a new random key, which is also set (NUL-terminated).
 * Returns 0; BOP_EINVAL for a host, target, protocol or header that may not be sent (the headers
 * of the handshake itself among them); BOP_ENOMEM, BOP_EFULL, or -errno for want of randomness.
 */
BOP_API BOP_MUST_USE int bop_ws_request_append(const struct bop_ws_request *request,
                                               struct bop_buf *buf,
                                               char out_key[BOP_WS_KEY_SIZE + 1]);

/**
 * Check a response: status 101, Upgrade, Connection, Accept; no protocol or extension that was not
 * asked for. out_protocol is one of the request's, or NULL. Returns 0, or BOP_EPROTOCOL with
 * out_why: close the connection without a frame (a status other than 101 is head's to tell).
 */
BOP_API BOP_MUST_USE int
bop_ws_response_check(const struct bop_http_head *head, const struct bop_ws_request *request,
                      const char key[BOP_WS_KEY_SIZE], const char **out_protocol,
                      struct bop_ws_deflate *out_deflate, const char **out_why);

#endif
