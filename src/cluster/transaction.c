/* Building transactions: include/bop/transaction.h. */
#include <bop/transaction.h>

#include "operation.h"

void bop_transaction_init(struct bop_transaction *txn, struct bop_allocator *allocator)
{
    *txn = (struct bop_transaction){0};
    bop_buf_init(&txn->compares, allocator, 0);
    bop_buf_init(&txn->then_items, allocator, 0);
    bop_buf_init(&txn->else_items, allocator, 0);
}

void bop_transaction_deinit(struct bop_transaction *txn)
{
    bop_buf_deinit(&txn->compares);
    bop_buf_deinit(&txn->then_items);
    bop_buf_deinit(&txn->else_items);
}

void bop_transaction_if(struct bop_transaction *txn, const struct bop_compare *compare)
{
    struct bop_writer writer = bop_writer(&txn->compares);

    bop_compare_encode(&writer, compare);
    txn->compare_count++;
    if (txn->code == 0) {
        txn->code = writer.code;
    }
}

/* Its size goes in front, which is known when it is there. */
static int add(struct bop_buf *items, const struct bop_operation *operation)
{
    struct bop_writer writer = bop_writer(items);
    size_t at = items->size;

    if (!bop__operation_shape(operation->op) || operation->op == BOP_OP_TRANSACTION) {
        return BOP_EINVAL;
    }
    bop_write_u32(&writer, 0);
    bop_operation_encode(&writer, operation);
    if (writer.code == 0) {
        bop_store_u32(items->data + at, (uint32_t)(items->size - at - 4));
    }
    return writer.code;
}

static void note(struct bop_transaction *txn, int code)
{
    if (txn->code == 0) {
        txn->code = code;
    }
}

void bop_transaction_then(struct bop_transaction *txn, const struct bop_operation *operation)
{
    note(txn, add(&txn->then_items, operation));
    txn->then_count++;
}

void bop_transaction_else(struct bop_transaction *txn, const struct bop_operation *operation)
{
    note(txn, add(&txn->else_items, operation));
    txn->else_count++;
}

int bop_transaction_operation(const struct bop_transaction *txn,
                              struct bop_operation *out_operation)
{
    *out_operation = (struct bop_operation){.op = BOP_OP_TRANSACTION,
                                            .compare_count = txn->compare_count,
                                            .then_count = txn->then_count,
                                            .else_count = txn->else_count,
                                            .compares = bop_buf_slice(&txn->compares),
                                            .then_items = bop_buf_slice(&txn->then_items),
                                            .else_items = bop_buf_slice(&txn->else_items)};
    if (txn->code == 0 &&
        (txn->compare_count > BOP_TRANSACTION_MAX || txn->then_count > BOP_TRANSACTION_MAX ||
         txn->else_count > BOP_TRANSACTION_MAX)) {
        return BOP_ETOOBIG;
    }
    return txn->code;
}
