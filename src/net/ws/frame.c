/*
 * Frames (RFC 6455, section 5).
 *
 *      byte 0   FIN, RSV1-3, opcode
 *      byte 1   MASK, length: 0-125; 126: 2 more bytes; 127: 8 more
 *      then     those bytes, most significant first; the key, if MASK
 *
 * The decoder takes a header only when it is there to its last byte, and a control frame only with
 * its payload (131 bytes at most); until then they stay with the caller. But each byte of a header
 * is judged as soon as it is there, so that a peer that sends a bad one and waits is refused too.
 *
 * Between data frames of one message the decoder keeps the message's opcode and size; between
 * messages nothing.
 */
#include "ws_frame.h"

#define RSV_BITS    0x70u
#define OPCODE_BITS 0x0fu
#define MASK_BIT    0x80u
#define SIZE_16     126
#define SIZE_64     127

/* ---- Close codes ---- */

bool bop_ws_close_code_is_valid(unsigned code)
{
    /* 1004, 1005, 1006 and 1015 are reserved; up to 2999 the rest is nobody's yet. */
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

/* ---- Decoding ---- */

struct header {
    uint8_t first;
    unsigned size; /* Of the header. */
    uint64_t payload;
    uint32_t key;
};

static int fail(struct bop_ws_event *event, unsigned code, const char *why)
{
    *event = (struct bop_ws_event){.close_code = (uint16_t)code, .why = why};
    return -(int)code;
}

static int protocol_error(struct bop_ws_event *event, const char *why)
{
    return fail(event, BOP_WS_PROTOCOL, why);
}

/* The first byte: flags and opcode, in the light of the message under way. */
static int check_first(const struct bop_ws_decoder *decoder, const struct bop_ws_rules *rules,
                       uint8_t first, struct bop_ws_event *event)
{
    unsigned opcode = first & OPCODE_BITS;

    if ((first & RSV_BITS & ~BOP_WS_COMPRESSED) != 0) {
        return protocol_error(event, "a reserved bit is set");
    }
    if ((first & BOP_WS_COMPRESSED) &&
        (!rules->deflate || opcode == BOP_WS_CONTINUATION || opcode >= BOP_WS_CLOSE)) {
        return protocol_error(event, rules->deflate
                                         ? "only a message's first frame may be marked compressed"
                                         : "compressed, which was not negotiated");
    }
    switch (opcode) {
    case BOP_WS_CONTINUATION:
        return decoder->opcode ? 0 : protocol_error(event, "a continuation of no message");
    case BOP_WS_TEXT:
    case BOP_WS_BINARY:
        return !decoder->opcode ? 0 : protocol_error(event, "a new message inside another one");
    case BOP_WS_CLOSE:
    case BOP_WS_PING:
    case BOP_WS_PONG:
        return first & BOP_WS_FIN ? 0 : protocol_error(event, "a fragmented control frame");
    default:
        return protocol_error(event, "a reserved opcode");
    }
}

/* The second byte. */
static int check_second(const struct bop_ws_rules *rules, uint8_t first, uint8_t second,
                        struct bop_ws_event *event)
{
    if (((second & MASK_BIT) != 0) == rules->client) {
        return protocol_error(event, rules->client ? "a masked frame from a server"
                                                   : "an unmasked frame from a client");
    }
    if ((first & OPCODE_BITS) >= BOP_WS_CLOSE && (second & ~MASK_BIT) > BOP_WS_CONTROL_MAX) {
        return protocol_error(event, "a control frame of more than 125 bytes");
    }
    return 0;
}

/* A length of 2 or 8 more bytes, of which some may not be there yet. */
static int read_length(const uint8_t *at, size_t there, unsigned width, uint64_t *out_length,
                       struct bop_ws_event *event)
{
    uint64_t length = 0;

    if (width == 8 && there >= 1 && at[0] >= 0x80) {
        return protocol_error(event, "a length of more than 63 bits");
    }
    if (there < width) {
        return BOP_ETRUNCATED;
    }
    for (unsigned i = 0; i < width; i++) {
        length = length << 8 | at[i];
    }
    if (length < (width == 2 ? SIZE_16 : UINT64_C(1) << 16)) {
        return protocol_error(event, "a length that has a shorter form");
    }
    *out_length = length;
    return 0;
}

/* Returns 0, BOP_ETRUNCATED or an error. */
static int read_header(const struct bop_ws_decoder *decoder, const struct bop_ws_rules *rules,
                       struct bop_slice bytes, struct header *header, struct bop_ws_event *event)
{
    const uint8_t *at = bytes.data;
    unsigned size = 2;
    int rc;

    if (bytes.size < 1) {
        return BOP_ETRUNCATED;
    }
    header->first = at[0];
    rc = check_first(decoder, rules, at[0], event);
    if (rc != 0 || bytes.size < 2) {
        return rc != 0 ? rc : BOP_ETRUNCATED;
    }
    rc = check_second(rules, at[0], at[1], event);
    if (rc != 0) {
        return rc;
    }
    header->payload = at[1] & ~MASK_BIT;
    if (header->payload >= SIZE_16) {
        unsigned width = header->payload == SIZE_16 ? 2 : 8;

        rc = read_length(at + 2, bytes.size - 2, width, &header->payload, event);
        if (rc != 0) {
            return rc;
        }
        size += width;
    }
    if (!rules->client) {
        if (bytes.size < size + 4) {
            return BOP_ETRUNCATED;
        }
        header->key = bop_load_u32(at + size);
        size += 4;
    }
    header->size = size;
    return 0;
}

static int read_close(struct bop_ws_event *event)
{
    unsigned code;

    event->close_code = BOP_WS_NO_STATUS;
    if (event->size == 0) {
        return 1;
    }
    if (event->size == 1) {
        return protocol_error(event, "a close frame with half a code");
    }
    code = (unsigned)event->data[0] << 8 | event->data[1];
    if (!bop_ws_close_code_is_valid(code)) {
        return protocol_error(event, "a close code that may not be sent");
    }
    event->close_code = (uint16_t)code;
    event->data += 2;
    event->size -= 2;
    if (!bop_slice_is_utf8(bop_slice(event->data, event->size))) {
        return fail(event, BOP_WS_INVALID, "the reason of closing is not UTF-8");
    }
    return 1;
}

static int read_control(const struct bop_ws_rules *rules, const struct header *header,
                        struct bop_slice *bytes, struct bop_ws_event *event)
{
    uint8_t *data = (uint8_t *)(uintptr_t)bytes->data + header->size;
    size_t size = header->size + (size_t)header->payload;

    if (bytes->size < size) {
        return BOP_ETRUNCATED;
    }
    *bytes = bop_slice(bytes->data + size, bytes->size - size);
    *event = (struct bop_ws_event){
        .opcode = header->first & OPCODE_BITS, .data = data, .size = (size_t)header->payload};
    if (!rules->client) {
        bop_ws_mask(data, data, event->size, header->key);
    }
    return event->opcode == BOP_WS_CLOSE ? read_close(event) : 1;
}

/* Unmask a piece and, if it is text, check it. */
static inline bool take_payload(struct bop_ws_decoder *decoder, const struct bop_ws_rules *rules,
                                uint8_t *data, size_t size)
{
    bool text = decoder->opcode == BOP_WS_TEXT && !(decoder->flags & WS_DEFLATED);

    if (!rules->client) {
        bool not_ascii;

        decoder->key = bop__ws_unmask_text(data, size, decoder->key, &not_ascii);
        if (!not_ascii && decoder->utf8.missing == 0) {
            return true;
        }
    }
    return !text || bop_ws_utf8_feed(&decoder->utf8, bop_slice(data, size));
}

/* Give what is there of the frame under way. */
static inline int give_piece(struct bop_ws_decoder *decoder, const struct bop_ws_rules *rules,
                             bool first, struct bop_slice *bytes, struct bop_ws_event *event)
{
    uint8_t *data = (uint8_t *)(uintptr_t)bytes->data;
    size_t size = (size_t)bop_min_u64(decoder->left, bytes->size);
    bool last;

    if (!take_payload(decoder, rules, data, size)) {
        return fail(event, BOP_WS_INVALID, "text is not UTF-8");
    }
    bytes->data += size;
    bytes->size -= size;
    decoder->left -= size;
    last = decoder->left == 0 && (decoder->flags & WS_FRAME_LAST);
    if (last && decoder->utf8.missing != 0 && !(decoder->flags & WS_DEFLATED)) {
        return fail(event, BOP_WS_INVALID, "text ends within a character");
    }
    *event = (struct bop_ws_event){.opcode = decoder->opcode,
                                   .first = first,
                                   .last = last,
                                   .compressed = (decoder->flags & WS_DEFLATED) != 0,
                                   .data = data,
                                   .size = size,
                                   .frame_left = decoder->left};
    if (last) {
        /* But utf8, with which the caller yet checks what the last piece inflates to. */
        decoder->opcode = 0;
        decoder->flags = 0;
        decoder->size = 0;
    }
    return 1;
}

int bop_ws_decode(struct bop_ws_decoder *decoder, const struct bop_ws_rules *rules,
                  struct bop_slice *in_out_bytes, struct bop_ws_event *out_event)
{
    struct header header = {0};
    bool first;
    int rc;

    if (decoder->left != 0) {
        return in_out_bytes->size == 0 ? BOP_ETRUNCATED
                                       : give_piece(decoder, rules, false, in_out_bytes, out_event);
    }
    rc = read_header(decoder, rules, *in_out_bytes, &header, out_event);
    if (rc != 0) {
        return rc;
    }
    if ((header.first & OPCODE_BITS) >= BOP_WS_CLOSE) {
        return read_control(rules, &header, in_out_bytes, out_event);
    }
    first = decoder->opcode == 0;
    if (first) {
        *decoder = (struct bop_ws_decoder){
            .opcode = header.first & OPCODE_BITS,
            .flags = header.first & BOP_WS_COMPRESSED ? WS_DEFLATED : 0,
        };
    }
    if (!(decoder->flags & WS_DEFLATED)) {
        if (header.payload > rules->message_bytes_max - decoder->size) {
            return fail(out_event, BOP_WS_TOO_BIG, "the message is too big");
        }
        decoder->size += header.payload;
    }
    decoder->flags = (uint8_t)((decoder->flags & WS_DEFLATED) |
                               (header.first & BOP_WS_FIN ? WS_FRAME_LAST : 0));
    decoder->left = header.payload;
    decoder->key = header.key;
    *in_out_bytes = bop_slice(in_out_bytes->data + header.size, in_out_bytes->size - header.size);
    return give_piece(decoder, rules, first, in_out_bytes, out_event);
}

/* ---- Encoding ---- */

size_t bop_ws_header(uint8_t out_header[BOP_WS_HEADER_MAX], unsigned first_byte,
                     uint64_t payload_size, const uint32_t *key)
{
    uint8_t mask = key ? MASK_BIT : 0;
    size_t size = 2;

    out_header[0] = (uint8_t)first_byte;
    if (payload_size < SIZE_16) {
        out_header[1] = (uint8_t)(mask | payload_size);
    } else {
        unsigned width = payload_size <= UINT16_MAX ? 2 : 8;

        out_header[1] = mask | (width == 2 ? SIZE_16 : SIZE_64);
        for (unsigned i = 0; i < width; i++) {
            out_header[size++] = (uint8_t)(payload_size >> 8 * (width - 1 - i));
        }
    }
    if (key) {
        bop_store_u32(out_header + size, *key);
        size += 4;
    }
    return size;
}

int bop_ws_append(struct bop_buf *buf, unsigned first_byte, struct bop_slice payload,
                  const uint32_t *key)
{
    uint8_t header[BOP_WS_HEADER_MAX];
    size_t size = bop_ws_header(header, first_byte, payload.size, key);
    int rc;

    if (payload.size > SIZE_MAX - size) {
        return BOP_EFULL;
    }
    rc = bop_buf_reserve(buf, size + payload.size);
    if (rc != 0) {
        return rc;
    }
    memcpy(buf->data + buf->size, header, size);
    if (key) {
        bop_ws_mask(buf->data + buf->size + size, payload.data, payload.size, *key);
    } else if (payload.size > 0) {
        memcpy(buf->data + buf->size + size, payload.data, payload.size);
    }
    buf->size += size + payload.size;
    return 0;
}

int bop_ws_close_payload(uint8_t out_payload[BOP_WS_CONTROL_MAX], unsigned code,
                         struct bop_slice reason)
{
    size_t size = reason.size < BOP_WS_REASON_MAX ? reason.size : BOP_WS_REASON_MAX;

    if (code == BOP_WS_NO_STATUS) {
        return reason.size == 0 ? 0 : BOP_EINVAL;
    }
    if (!bop_ws_close_code_is_valid(code) || !bop_slice_is_utf8(reason)) {
        return BOP_EINVAL;
    }
    /* Not between the bytes of a character: the one after the cut must begin one. */
    while (size < reason.size && size > 0 && (reason.data[size] & 0xc0) == 0x80) {
        size--;
    }
    out_payload[0] = (uint8_t)(code >> 8);
    out_payload[1] = (uint8_t)code;
    if (size > 0) {
        memcpy(out_payload + 2, reason.data, size);
    }
    return (int)(2 + size);
}
