/*
 * Messages of backups: golden payloads decode to these values and encode to the same
 * bytes; everything near them is refused.
 */
#include <stdlib.h>

#include <bop/backup.h>

#include "tap.h"

#include "wire_vectors.h"

#define BACKUP UINT64_C(0x1122334455667788)

struct fixture {
    uint8_t bytes[VECTOR_BYTES_MAX + 1];
    struct bop_buf buf;
    struct bop_writer writer;
};

static void setup(struct fixture *f)
{
    bop_buf_init(&f->buf, NULL, 0);
    f->writer = bop_writer(&f->buf);
}

static void teardown(struct fixture *f)
{
    CHECK_EQ(f->writer.code, 0);
    bop_buf_deinit(&f->buf);
}

FIXTURE(setup, teardown)

static struct bop_slice golden(struct fixture *f, uint16_t kind)
{
    for (size_t i = 0; i < BOP_COUNT_OF(vectors); i++) {
        if (vectors[i].kind == kind) {
            return vector_payload(&vectors[i], f->bytes);
        }
    }
    REQUIRE(!"a golden frame of this kind");
    return bop_slice(NULL, 0);
}

/* Cut anywhere, or a byte longer, it is refused. */
#define REFUSES_ALL_BUT(decode, payload, message)                                                  \
    do {                                                                                           \
        for (size_t size_ = 0; size_ < (payload).size; size_++) {                                  \
            CHECK_EQ(decode(bop_slice((payload).data, size_), &(message)), BOP_EMALFORMED);        \
        }                                                                                          \
        CHECK_EQ(decode(bop_slice((payload).data, (payload).size + 1), &(message)),                \
                 BOP_EMALFORMED);                                                                  \
    } while (0)

TEST(wire_backup, request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_BACKUP_REQUEST);
    struct bop_backup_request message;

    REQUIRE_EQ(bop_backup_request_decode(payload, &message), 0);
    CHECK_EQ(message.action, BOP_BACKUP_LOOK);
    CHECK_EQ(message.backup, BACKUP);
    bop_backup_request_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(bop_backup_request_decode, payload, message);
    f->bytes[payload.data - f->bytes] = BOP_BACKUP_DROP + 1;
    CHECK_EQ(bop_backup_request_decode(payload, &message), BOP_EMALFORMED);
    f->bytes[payload.data - f->bytes] = 0;
    CHECK_EQ(bop_backup_request_decode(payload, &message), BOP_EMALFORMED);
}

TEST(wire_backup, response)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_BACKUP_RESPONSE);
    struct bop_backup_response message;

    REQUIRE_EQ(bop_backup_response_decode(payload, &message), 0);
    CHECK_EQ(message.code, BOP_BACKUP_OK);
    CHECK_SLICE_EQ(message.text, bop_slice_cstr("ok"));
    CHECK_EQ(message.backup, BACKUP);
    CHECK_EQ(message.node, 2);
    CHECK_EQ(message.bytes, 1020);
    CHECK_EQ(message.index, 26);
    CHECK_EQ(message.term, 3);
    bop_backup_response_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(bop_backup_response_decode, payload, message);
}

TEST(wire_backup, read_request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_BACKUP_READ_REQUEST);
    struct bop_backup_read_request message;

    REQUIRE_EQ(bop_backup_read_request_decode(payload, &message), 0);
    CHECK_EQ(message.backup, BACKUP);
    CHECK_EQ(message.offset, 1000);
    CHECK_EQ(message.size, 20);
    bop_backup_read_request_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(bop_backup_read_request_decode, payload, message);
}

TEST(wire_backup, read_response)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_BACKUP_READ_RESPONSE);
    struct bop_backup_read_response message;
    uint8_t *large = calloc(1, BOP_BACKUP_PIECE_MAX + 14);

    REQUIRE_EQ(bop_backup_read_response_decode(payload, &message), 0);
    CHECK_EQ(message.code, BOP_BACKUP_LATER);
    CHECK_EQ(message.wait_ms, 7);
    CHECK_EQ(message.offset, 1000);
    CHECK_SLICE_EQ(message.bytes, bop_slice_cstr("piece"));
    bop_backup_read_response_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    /* Its head is 13 bytes: code, time and offset. */
    for (size_t size = 0; size < 13; size++) {
        CHECK_EQ(bop_backup_read_response_decode(bop_slice(payload.data, size), &message),
                 BOP_EMALFORMED);
    }
    REQUIRE(large != NULL);
    CHECK_EQ(bop_backup_read_response_decode(bop_slice(large, BOP_BACKUP_PIECE_MAX + 13), &message),
             0);
    CHECK_EQ(bop_backup_read_response_decode(bop_slice(large, BOP_BACKUP_PIECE_MAX + 14), &message),
             BOP_EMALFORMED);
    free(large);
}
