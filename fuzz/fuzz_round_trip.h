/*
 * What fuzzers of decoders share: failing, and decoding, encoding and comparing.
 */
#ifndef BOP_FUZZ_ROUND_TRIP_H
#define BOP_FUZZ_ROUND_TRIP_H

#include <stdio.h>
#include <stdlib.h>

#include <bop/slice.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define require(condition) ((condition) ? (void)0 : fuzz_failed(#condition, __FILE__, __LINE__))

static inline BOP_NORETURN void fuzz_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, condition);
    abort();
}

/* Where messages are encoded again. One input after the other uses it. */
static struct bop_buf fuzz_scratch;

static inline void fuzz_clear(void)
{
    if (!fuzz_scratch.allocator) {
        bop_buf_init(&fuzz_scratch, NULL, 0);
    }
    bop_buf_clear(&fuzz_scratch);
}

/* Into nothing so far. */
static inline struct bop_writer fuzz_writer(void)
{
    fuzz_clear();
    return bop_writer(&fuzz_scratch);
}

/* What was encoded is this, byte for byte. */
static inline void fuzz_same(const struct bop_writer *writer, struct bop_slice bytes)
{
    require(writer->code == 0);
    require(bop_slice_equal(bop_buf_slice(&fuzz_scratch), bytes));
}

/* A message that is accepted has one encoding: the one that was accepted. */
#define FUZZ_ROUND_TRIP_AS(type, decode, encode, payload)                                          \
    do {                                                                                           \
        struct type message_;                                                                      \
                                                                                                   \
        if (decode(payload, &message_) == 0) {                                                     \
            struct bop_writer writer_ = fuzz_writer();                                             \
                                                                                                   \
            encode(&writer_, &message_);                                                           \
            fuzz_same(&writer_, payload);                                                          \
        }                                                                                          \
    } while (0)
#define FUZZ_ROUND_TRIP(name, payload)                                                             \
    FUZZ_ROUND_TRIP_AS(bop_##name, bop_##name##_decode, bop_##name##_encode, payload)

#endif
