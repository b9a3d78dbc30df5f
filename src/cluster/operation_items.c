/*
 * What is inside operations that hold several: pairs, registrations, compares and
 * the operations of a transaction. All of it is checked once, when the operation is
 * decoded; the walks trust that.
 */
#include "operation.h"

/* The fewest bytes of one, so that a count that cannot be is refused before it is walked. */
#define MIN_ITEM      8
#define MIN_COMPARE   (2 + 3 * 4 + 8)
#define MIN_OPERATION (4 + 1 + 4)
#define MIN_RESULT    (1 + 4)

/* ---- Pairs and registrations ---- */

static void read_item(struct bop_reader *reader, enum bop_op op, struct bop_item *item)
{
    *item = (struct bop_item){.key = bop_read_bytes(reader)};
    if (op == BOP_OP_MAP_PUT_ALL) {
        item->value = bop_read_bytes(reader);
    } else {
        item->sequence = bop_read_u64(reader);
    }
}

void bop_item_encode(struct bop_writer *writer, enum bop_op op, const struct bop_item *item)
{
    bop_write_bytes(writer, item->key);
    if (op == BOP_OP_MAP_PUT_ALL) {
        bop_write_bytes(writer, item->value);
    } else {
        bop_write_u64(writer, item->sequence);
    }
}

bool bop_item_next(enum bop_op op, struct bop_slice *items, struct bop_item *out_item)
{
    struct bop_reader reader = bop_reader(*items);

    if (items->size == 0) {
        return false;
    }
    read_item(&reader, op, out_item);
    *items = bop_slice(reader.at, bop_reader_left(&reader));
    return !reader.failed;
}

void bop__items_read(struct bop_reader *reader, struct bop_operation *operation, int *code)
{
    const uint8_t *begin;
    struct bop_item item;

    operation->count = bop_read_u32(reader);
    begin = reader->at;
    if (operation->count > bop_reader_left(reader) / MIN_ITEM) {
        reader->failed = true;
        return;
    }
    for (uint32_t i = 0; i < operation->count && !reader->failed; i++) {
        read_item(reader, operation->op, &item);
        if ((item.key.size > BOP_KEY_MAX || item.value.size > BOP_VALUE_MAX) && *code == 0) {
            *code = BOP_ETOOBIG;
        }
    }
    operation->items = bop_slice(begin, (size_t)(reader->at - begin));
}

/* ---- Compares ---- */

static void read_compare(struct bop_reader *reader, struct bop_compare *compare)
{
    compare->kind = (enum bop_compare_kind)bop_read_u8(reader);
    compare->relation = (enum bop_relation)bop_read_u8(reader);
    compare->name = bop_read_string(reader);
    compare->key = bop_read_bytes(reader);
    compare->value = bop_read_bytes(reader);
    compare->number = bop_read_i64(reader);
}

void bop_compare_encode(struct bop_writer *writer, const struct bop_compare *compare)
{
    bop_write_u8(writer, (uint8_t)compare->kind);
    bop_write_u8(writer, (uint8_t)compare->relation);
    bop_write_bytes(writer, compare->name);
    bop_write_bytes(writer, compare->key);
    bop_write_bytes(writer, compare->value);
    bop_write_i64(writer, compare->number);
}

bool bop_compare_next(struct bop_slice *compares, struct bop_compare *out_compare)
{
    struct bop_reader reader = bop_reader(*compares);

    if (compares->size == 0) {
        return false;
    }
    read_compare(&reader, out_compare);
    *compares = bop_slice(reader.at, bop_reader_left(&reader));
    return !reader.failed;
}

static int check_compare(const struct bop_compare *compare)
{
    if (compare->kind < BOP_COMPARE_VERSION || compare->kind > BOP_COMPARE_MEMBER ||
        compare->relation < BOP_EQUAL || compare->relation > BOP_GREATER ||
        compare->name.size == 0) {
        return BOP_EMALFORMED;
    }
    return compare->name.size > BOP_NAME_MAX || compare->key.size > BOP_KEY_MAX ||
                   compare->value.size > BOP_VALUE_MAX
               ? BOP_ETOOBIG
               : 0;
}

static void note(struct bop_reader *reader, int rc, int *code)
{
    if (rc == BOP_ETOOBIG && *code == 0) {
        *code = rc;
    } else if (rc < 0 && rc != BOP_ETOOBIG) {
        reader->failed = true;
    }
}

/* How many there are: few enough to be true, and to be allowed. */
static uint32_t read_count(struct bop_reader *reader, size_t item_min, int *code)
{
    uint32_t count = bop_read_u32(reader);

    if (count > bop_reader_left(reader) / item_min) {
        reader->failed = true;
        return 0;
    }
    if (count > BOP_TRANSACTION_MAX && *code == 0) {
        *code = BOP_ETOOBIG;
    }
    return count;
}

static struct bop_slice read_compares(struct bop_reader *reader, uint32_t *out_count, int *code)
{
    struct bop_compare compare;
    const uint8_t *begin;

    *out_count = read_count(reader, MIN_COMPARE, code);
    begin = reader->at;
    for (uint32_t i = 0; i < *out_count && !reader->failed; i++) {
        read_compare(reader, &compare);
        if (!reader->failed) {
            note(reader, check_compare(&compare), code);
        }
    }
    return bop_slice(begin, (size_t)(reader->at - begin));
}

/* ---- Transactions ---- */

static struct bop_slice read_operations(struct bop_reader *reader, uint32_t *out_count, int *code)
{
    const uint8_t *begin;

    *out_count = read_count(reader, MIN_OPERATION, code);
    begin = reader->at;
    for (uint32_t i = 0; i < *out_count && !reader->failed; i++) {
        struct bop_slice bytes = bop_read_bytes(reader);
        struct bop_operation inner;

        /* None inside another one, so this goes one deep. */
        if (bytes.size == 0 || bytes.data[0] == BOP_OP_TRANSACTION) {
            reader->failed = true;
        } else {
            note(reader, bop_operation_decode(bytes, &inner), code);
        }
    }
    return bop_slice(begin, (size_t)(reader->at - begin));
}

void bop__transaction_read(struct bop_reader *reader, struct bop_operation *operation, int *code)
{
    operation->compares = read_compares(reader, &operation->compare_count, code);
    operation->then_items = read_operations(reader, &operation->then_count, code);
    operation->else_items = read_operations(reader, &operation->else_count, code);
}

void bop__transaction_write(struct bop_writer *writer, const struct bop_operation *operation)
{
    bop_write_u32(writer, operation->compare_count);
    bop_write_raw(writer, operation->compares);
    bop_write_u32(writer, operation->then_count);
    bop_write_raw(writer, operation->then_items);
    bop_write_u32(writer, operation->else_count);
    bop_write_raw(writer, operation->else_items);
}

bool bop_transaction_next(struct bop_slice *operations, struct bop_slice *out_operation)
{
    struct bop_reader reader = bop_reader(*operations);

    if (operations->size == 0) {
        return false;
    }
    *out_operation = bop_read_bytes(&reader);
    *operations = bop_slice(reader.at, bop_reader_left(&reader));
    return !reader.failed;
}

void bop__transaction_results_read(struct bop_reader *reader, struct bop_result *result)
{
    result->count = bop_read_u32(reader);
    if (result->count > bop_reader_left(reader) / MIN_RESULT) {
        reader->failed = true;
        return;
    }
    result->entries = bop_slice(reader->at, bop_reader_left(reader));
    for (uint32_t i = 0; i < result->count && !reader->failed; i++) {
        (void)bop_read_u8(reader);
        (void)bop_read_bytes(reader);
    }
}

bool bop_transaction_result_next(struct bop_slice *entries, uint8_t *out_status,
                                 struct bop_slice *out_result)
{
    struct bop_reader reader = bop_reader(*entries);

    if (entries->size == 0) {
        return false;
    }
    *out_status = bop_read_u8(&reader);
    *out_result = bop_read_bytes(&reader);
    *entries = bop_slice(reader.at, bop_reader_left(&reader));
    return !reader.failed;
}
