/*
 * Fuzzes operations and their results: what WRITE and READ requests, entries of the log
 * and their answers carry.
 *
 * Properties: nothing reads outside of the input (the sanitizers' part); what is accepted,
 * encoded anew, gives the same bytes; what it holds several of is walked to its end, in as
 * many steps as its count says, and gives the same bytes again.
 *
 * The first byte says what the rest is: 0 an operation; else the number of an operation,
 * whose result follows behind a status.
 */
#include <bop/wire.h>

#include "fuzz_round_trip.h"

/* ---- Operations ---- */

static void walk_items(const struct bop_operation *operation)
{
    struct bop_writer writer = fuzz_writer();
    struct bop_slice rest = operation->items;
    struct bop_item item;
    uint32_t count = 0;

    while (bop_item_next(operation->op, &rest, &item)) {
        require(item.key.size <= BOP_KEY_MAX && item.value.size <= BOP_VALUE_MAX);
        bop_item_encode(&writer, operation->op, &item);
        count++;
    }
    require(rest.size == 0 && count == operation->count);
    fuzz_same(&writer, operation->items);
}

static void walk_compares(const struct bop_operation *operation)
{
    struct bop_writer writer = fuzz_writer();
    struct bop_slice rest = operation->compares;
    struct bop_compare compare;
    uint32_t count = 0;

    while (bop_compare_next(&rest, &compare)) {
        require(compare.name.size > 0 && compare.name.size <= BOP_NAME_MAX);
        bop_compare_encode(&writer, &compare);
        count++;
    }
    require(rest.size == 0 && count == operation->compare_count && count <= BOP_TRANSACTION_MAX);
    fuzz_same(&writer, operation->compares);
}

static void walk_operations(struct bop_slice rest, uint32_t count)
{
    struct bop_operation inner;
    struct bop_slice bytes;

    require(count <= BOP_TRANSACTION_MAX);
    while (bop_transaction_next(&rest, &bytes)) {
        require(bop_operation_decode(bytes, &inner) == 0 && inner.op != BOP_OP_TRANSACTION);
        count--;
    }
    require(rest.size == 0 && count == 0);
}

static void operation(struct bop_slice bytes)
{
    struct bop_operation in;
    int rc = bop_operation_decode(bytes, &in);

    require(rc == 0 || rc == BOP_EMALFORMED || rc == BOP_ETOOBIG);
    if (rc < 0) {
        return;
    }
    FUZZ_ROUND_TRIP(operation, bytes);
    require(in.name.size <= BOP_NAME_MAX && in.key.size <= BOP_KEY_MAX);
    require(in.value.size <= BOP_VALUE_MAX && in.expected.size <= BOP_VALUE_MAX);
    require(in.cursor.size <= BOP_CURSOR_MAX && in.label.size <= BOP_LABEL_MAX);
    walk_items(&in);
    walk_compares(&in);
    walk_operations(in.then_items, in.then_count);
    walk_operations(in.else_items, in.else_count);
}

/* ---- Results ---- */

static void walk_page(const struct bop_result *result)
{
    struct bop_writer writer = fuzz_writer();
    struct bop_slice rest = result->entries;
    struct bop_scan_entry entry;
    uint32_t count = 0;

    while (bop_scan_next(&rest, &entry)) {
        bop_scan_entry_encode(&writer, &entry);
        count++;
    }
    require(rest.size == 0 && count == result->count);
    fuzz_same(&writer, result->entries);
}

static void walk_results(const struct bop_result *result)
{
    struct bop_writer writer = fuzz_writer();
    struct bop_slice rest = result->entries;
    struct bop_slice bytes;
    uint32_t count = 0;
    uint8_t status;

    while (bop_transaction_result_next(&rest, &status, &bytes)) {
        bop_write_u8(&writer, status);
        bop_write_bytes(&writer, bytes);
        count++;
    }
    require(rest.size == 0 && count == result->count);
    fuzz_same(&writer, result->entries);
}

static void result(enum bop_op op, uint8_t status, struct bop_slice bytes)
{
    struct bop_result in;
    int rc = bop_result_decode(op, status, bytes, &in);

    require(rc == 0 || rc == BOP_EMALFORMED);
    require(bop_status_text(status) != NULL);
    require((bop_status_code(status) == 0) == (status == BOP_STATUS_OK));
    if (rc < 0) {
        return;
    }
    require(in.status == status);
    if (status == BOP_STATUS_OK || status == BOP_STATUS_CONDITION) {
        struct bop_writer writer = fuzz_writer();

        bop_result_encode(&writer, op, &in);
        fuzz_same(&writer, bytes);
    }
    if (op == BOP_OP_TRANSACTION) {
        walk_results(&in);
    } else {
        walk_page(&in);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == 0) {
        operation(bop_slice(data + 1, size - 1));
    } else if (size > 1) {
        result((enum bop_op)data[0], data[1], bop_slice(data + 2, size - 2));
    }
    return 0;
}
