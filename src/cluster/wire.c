/*
 * Frames: taking them off a stream of bytes, and putting them on a buffer.
 *
 * The order of the checks is what makes hostile bytes cheap: version, size, kind
 * and flags come from the 16 bytes of header alone, so no payload is waited for,
 * let alone summed, that would be refused in the end; and nothing is allocated.
 */
#include <bop/wire.h>

#include <inttypes.h>

#include <libdeflate.h>

#include "wire_kinds.h"

/* Where the fields of the header lie. */
enum {
    AT_CRC = 0,
    AT_SIZE = 4, /* The checksum covers everything from here on. */
    AT_VERSION = 8,
    AT_FLAGS = 9,
    AT_KIND = 10,
    AT_REQUEST = 12,
};

_Static_assert(AT_REQUEST + sizeof(uint32_t) == BOP_WIRE_HEADER, "the header is a wire format");

/* Sets of values that the flags byte may have. */
#define ONLY(flags)        (1u << (flags))
#define FLAGS_REQUEST      (ONLY(BOP_WIRE_REQUEST) | ONLY(BOP_WIRE_REQUEST | BOP_WIRE_PING))
#define FLAGS_RESPONSE     (ONLY(BOP_WIRE_RESPONSE) | ONLY(BOP_WIRE_RESPONSE | BOP_WIRE_PONG))
#define FLAGS_PING         (FLAGS_REQUEST | ONLY(BOP_WIRE_PING))
#define FLAGS_PONG         (FLAGS_RESPONSE | ONLY(BOP_WIRE_PONG))
#define FLAGS_OWN_REQUEST  ONLY(BOP_WIRE_REQUEST)
#define FLAGS_OWN_RESPONSE ONLY(BOP_WIRE_RESPONSE)
#define FLAGS_PEER         (ONLY(BOP_WIRE_REQUEST) | ONLY(0))
#define FLAGS_KNOWN        0x0fu
#define FIRST_PEER_KIND    1024
#define CLIENT_KIND_COUNT  192 /* Slots for the kinds below FIRST_PEER_KIND: 0 to 191. */
#define SLOT_OF_KIND(number)                                                                       \
    ((number) < FIRST_PEER_KIND ? (number) : (number)-FIRST_PEER_KIND + CLIENT_KIND_COUNT)

static const struct wire_kind_info kinds[] = {
#define BOP_WIRE_KIND(kind, number, letters, flags)                                                \
    [SLOT_OF_KIND(number)] = {.name = #kind, .fields = letters, .flags_allowed = FLAGS_##flags},
#include <bop/wire_kinds.def>
#undef BOP_WIRE_KIND
};

const struct wire_kind_info *bop__wire_kind(uint16_t kind)
{
    size_t slot = kind;

    if (kind >= FIRST_PEER_KIND) {
        slot = (size_t)kind - FIRST_PEER_KIND + CLIENT_KIND_COUNT;
    } else if (kind >= CLIENT_KIND_COUNT) {
        return NULL;
    }
    if (slot >= BOP_COUNT_OF(kinds) || !kinds[slot].name) {
        return NULL;
    }
    return &kinds[slot];
}

const char *bop_wire_kind_name(uint16_t kind)
{
    const struct wire_kind_info *info = bop__wire_kind(kind);

    return info ? info->name : NULL;
}

/* Judge what the header alone can tell. */
static int check_header(const uint8_t *header, size_t frame_max, struct bop_error *err)
{
    uint32_t size = bop_load_u32(header + AT_SIZE);
    uint16_t kind = bop_load_u16(header + AT_KIND);
    uint8_t flags = header[AT_FLAGS];
    const struct wire_kind_info *info;

    if (header[AT_VERSION] != BOP_WIRE_VERSION) {
        return bop_error_set(err, BOP_EVERSION, "frame of protocol version %u, not %u",
                             header[AT_VERSION], BOP_WIRE_VERSION);
    }
    if (size < BOP_WIRE_HEADER) {
        return bop_error_set(err, BOP_EMALFORMED, "frame of %" PRIu32 " bytes, less than a header",
                             size);
    }
    if (size > frame_max) {
        return bop_error_set(err, BOP_ETOOBIG, "frame of %" PRIu32 " bytes, at most %zu allowed",
                             size, frame_max);
    }
    info = bop__wire_kind(kind);
    if (!info) {
        return bop_error_set(err, BOP_EMALFORMED, "frame of unknown kind %u", kind);
    }
    if (flags > FLAGS_KNOWN || !(info->flags_allowed >> flags & 1)) {
        return bop_error_set(err, BOP_EMALFORMED, "%s frame with flags 0x%02x", info->name, flags);
    }
    return 0;
}

int bop_wire_parse(struct bop_slice bytes, size_t frame_max, struct bop_wire_frame *out_frame,
                   size_t *out_used, struct bop_error *err)
{
    const uint8_t *header = bytes.data;
    uint32_t size, crc;
    int rc;

    if (bytes.size < BOP_WIRE_HEADER) {
        return BOP_EAGAIN;
    }
    rc = check_header(header, frame_max ? frame_max : BOP_WIRE_FRAME_MAX, err);
    if (rc < 0) {
        return rc;
    }
    size = bop_load_u32(header + AT_SIZE);
    if (bytes.size < size) {
        return BOP_EAGAIN;
    }
    crc = libdeflate_crc32(0, header + AT_SIZE, size - AT_SIZE);
    if (crc != bop_load_u32(header + AT_CRC)) {
        return bop_error_set(err, BOP_ECORRUPT,
                             "frame with checksum %08" PRIx32 ", its bytes have %08" PRIx32,
                             bop_load_u32(header + AT_CRC), crc);
    }

    out_frame->flags = header[AT_FLAGS];
    out_frame->kind = bop_load_u16(header + AT_KIND);
    out_frame->request = bop_load_u32(header + AT_REQUEST);
    out_frame->payload = bop_slice(header + BOP_WIRE_HEADER, size - BOP_WIRE_HEADER);
    *out_used = size;
    return 0;
}

int bop_wire_begin(struct bop_buf *buf, size_t *out_at)
{
    static const uint8_t room[BOP_WIRE_HEADER];
    size_t at = buf->size;
    int rc = bop_buf_append(buf, room, sizeof(room));

    if (rc == 0) {
        *out_at = at;
    }
    return rc;
}

void bop_wire_end(struct bop_buf *buf, size_t at, enum bop_wire_kind kind, uint8_t flags,
                  uint32_t request)
{
    uint8_t *header = buf->data + at;
    size_t size = buf->size - at;

    BOP_ASSERT(at <= buf->size && size >= BOP_WIRE_HEADER && size <= UINT32_MAX);
    bop_store_u32(header + AT_SIZE, (uint32_t)size);
    header[AT_VERSION] = BOP_WIRE_VERSION;
    header[AT_FLAGS] = flags;
    bop_store_u16(header + AT_KIND, (uint16_t)kind);
    bop_store_u32(header + AT_REQUEST, request);
    bop_store_u32(header + AT_CRC, libdeflate_crc32(0, header + AT_SIZE, size - AT_SIZE));
}
