/*
 * Operations made of bytes that choose: of a fuzzer's input, or random ones. Every byte
 * makes something, and most of what is made makes sense: names, keys and numbers are few,
 * so that operations meet each other.
 */
#ifndef BOP_TESTS_MAKE_OPERATION_H
#define BOP_TESTS_MAKE_OPERATION_H

#include <bop/wire.h>

#include "operation.h"

/* Bytes that were there to choose by may end; what is made then is all zeros. */
static inline uint8_t make_choice(struct bop_reader *choices)
{
    return bop_reader_left(choices) > 0 ? bop_read_u8(choices) : 0;
}

/* Small numbers meet each other; a few of them are large. */
static inline uint64_t make_number(struct bop_reader *choices)
{
    uint8_t byte = make_choice(choices);

    return byte < 240 ? byte : byte == 255 ? UINT64_MAX : UINT64_C(1) << (4 * (byte - 240));
}

static inline struct bop_slice make_name(struct bop_reader *choices)
{
    static const char *const names[] = {"a", "b", "a/b", "a/c", "b/\xc3\xa4", "__vertx.subs"};

    return bop_slice_cstr(names[make_choice(choices) % BOP_COUNT_OF(names)]);
}

/* Keys, members, values, labels: the same few; some longer than a key of the store; or whatever
 * the choices say. */
static inline struct bop_slice make_bytes(struct bop_reader *choices)
{
    static const char *const few[] = {"",   "a", "b",  "ab",       "abc", "b\xff",
                                      "/a", "1", "-1", "\xc3\xa4", "a/b", "\x01"};
    static uint8_t large[4096];
    uint8_t byte = make_choice(choices);

    if (byte < 192) {
        return bop_slice_cstr(few[byte % BOP_COUNT_OF(few)]);
    }
    if (byte < 224) {
        size_t left = bop_reader_left(choices);

        return bop_read_raw(choices, left < byte % 32u ? left : byte % 32u);
    }
    memset(large, 'k', sizeof(large));
    return bop_slice(large, (size_t)(byte - 220) * 100);
}

static inline void make_condition(struct bop_writer *writer, struct bop_reader *choices)
{
    uint8_t condition = make_choice(choices) % 5;

    bop_write_u8(writer, condition);
    if (condition == BOP_IF_VERSION) {
        bop_write_u64(writer, make_number(choices));
    } else if (condition == BOP_IF_VALUE) {
        bop_write_bytes(writer, make_bytes(choices));
    }
}

static inline void make_items(struct bop_writer *writer, struct bop_reader *choices, enum bop_op op)
{
    uint32_t count = make_choice(choices) % 5;

    bop_write_u32(writer, count);
    while (count-- > 0) {
        struct bop_item item = {.key = make_bytes(choices)};

        if (op == BOP_OP_MAP_PUT_ALL) {
            item.value = make_bytes(choices);
        } else {
            item.sequence = make_number(choices);
        }
        bop_item_encode(writer, op, &item);
    }
}

static inline void make_compares(struct bop_writer *writer, struct bop_reader *choices)
{
    uint32_t count = make_choice(choices) % 3;

    bop_write_u32(writer, count);
    while (count-- > 0) {
        struct bop_compare compare = {
            .kind = (enum bop_compare_kind)(1 + make_choice(choices) % 7),
            .relation = (enum bop_relation)(1 + make_choice(choices) % 4),
            .name = make_name(choices),
            .key = make_bytes(choices),
            .value = make_bytes(choices),
            .number = (int64_t)make_number(choices),
        };

        bop_compare_encode(writer, &compare);
    }
}

static inline void make_transaction(struct bop_writer *writer, struct bop_reader *choices);

/* What stands for a letter of struct operation_shape. */
static inline void make_field(struct bop_writer *writer, struct bop_reader *choices, enum bop_op op,
                              char letter)
{
    switch (letter) {
    case 'c':
        make_condition(writer, choices);
        break;
    case 't':
    case 'd':
    case 'e':
    case 'n':
    case 's':
    case 'q':
        bop_write_u64(writer, make_number(choices));
        break;
    case 'l':
    case 'a':
    case 'r':
        bop_write_u32(writer, (uint32_t)make_number(choices));
        break;
    case 'i':
        bop_write_u8(writer, (uint8_t)(1 + make_choice(choices) % BOP_NAME_REGISTRY));
        break;
    case '*':
        make_items(writer, choices, op);
        break;
    case 'x':
        make_transaction(writer, choices);
        break;
    case '-':
        break;
    default:
        bop_write_bytes(writer, make_bytes(choices));
    }
}

/* The operation of this number: in most cases one that can be decoded. */
static inline void make_operation_of(struct bop_writer *writer, struct bop_reader *choices,
                                     enum bop_op op)
{
    const struct operation_shape *shape = bop__operation_shape(op);

    bop_write_u8(writer, (uint8_t)op);
    bop_write_bytes(writer, shape->fields[0] == '-' ? bop_slice(NULL, 0) : make_name(choices));
    for (const char *letter = shape->fields; *letter != '\0'; letter++) {
        make_field(writer, choices, op, *letter);
    }
}

/* Any operation in [from, to) with a number that has one; a transaction only at the top. */
static inline void make_operation_in(struct bop_writer *writer, struct bop_reader *choices,
                                     unsigned from, unsigned to, bool inner)
{
    unsigned op = from + make_choice(choices) % (to - from);

    while (!bop__operation_shape((enum bop_op)op) || (inner && op == BOP_OP_TRANSACTION)) {
        op = op + 1 < to ? op + 1 : from;
    }
    make_operation_of(writer, choices, (enum bop_op)op);
}

static inline void make_operations(struct bop_writer *writer, struct bop_reader *choices)
{
    uint32_t count = make_choice(choices) % 5;

    bop_write_u32(writer, count);
    while (count-- > 0) {
        struct bop_buf buf;
        struct bop_writer inner = bop_writer(&buf);

        bop_buf_init(&buf, NULL, 0);
        /* Writes mostly, and reads. */
        if (make_choice(choices) % 4 != 0) {
            make_operation_in(&inner, choices, 1, BOP_OP_MAP_GET, true);
        } else {
            make_operation_in(&inner, choices, BOP_OP_MAP_GET, 128, true);
        }
        bop_write_bytes(writer, bop_buf_slice(&buf));
        bop_buf_deinit(&buf);
    }
}

static inline void make_transaction(struct bop_writer *writer, struct bop_reader *choices)
{
    make_compares(writer, choices);
    make_operations(writer, choices);
    make_operations(writer, choices);
}

static inline void make_write(struct bop_writer *writer, struct bop_reader *choices)
{
    make_operation_in(writer, choices, 1, BOP_OP_MAP_GET, false);
}

static inline void make_read(struct bop_writer *writer, struct bop_reader *choices)
{
    make_operation_in(writer, choices, BOP_OP_MAP_GET, 128, false);
}

#endif
