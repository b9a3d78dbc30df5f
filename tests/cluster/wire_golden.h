/*
 * What the tests of messages share: golden payloads, and that what is near them is refused.
 */
#ifndef BOP_TESTS_CLUSTER_WIRE_GOLDEN_H
#define BOP_TESTS_CLUSTER_WIRE_GOLDEN_H

#include "tap.h"

#include "wire_vectors.h"

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

/* Every message but those that end in "the rest" is refused cut and with a byte
 * more. `name` is of the struct and the functions. */
#define REFUSES_ALL_BUT(name, payload)                                                             \
    do {                                                                                           \
        struct bop_##name message_;                                                                \
        for (size_t size_ = 0; size_ < (payload).size; size_++) {                                  \
            CHECK_EQ(bop_##name##_decode(bop_slice((payload).data, size_), &message_),             \
                     BOP_EMALFORMED);                                                              \
        }                                                                                          \
        CHECK_EQ(bop_##name##_decode(bop_slice((payload).data, (payload).size + 1), &message_),    \
                 BOP_EMALFORMED);                                                                  \
    } while (0)

#endif
