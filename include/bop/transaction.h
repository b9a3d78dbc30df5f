/*
 * Building transactions: compares, then operations for the case that all of them
 * hold, and others for the case that one does not. All of it is one entry of the
 * log: it happens at one moment, wholly or not at all.
 *
 *     struct bop_transaction txn;
 *
 *     bop_transaction_init(&txn, NULL);
 *     bop_transaction_if(&txn, &(struct bop_compare){.kind = BOP_COMPARE_COUNTER, ...});
 *     bop_transaction_then(&txn, &(struct bop_operation){.op = BOP_OP_COUNTER_ADD, ...});
 *     bop_transaction_else(&txn, &(struct bop_operation){.op = BOP_OP_COUNTER_GET, ...});
 *     rc = bop_client_transaction(client, &txn, fn, user);
 *     bop_transaction_deinit(&txn);
 *
 * A failure on the way is kept and told when it is used, so the calls between need
 * no looking after.
 *
 * Threads: one at a time.
 */
#ifndef BOP_TRANSACTION_H
#define BOP_TRANSACTION_H

#include <bop/alloc.h>
#include <bop/slice.h>
#include <bop/wire.h>

struct bop_transaction {
    int code; /* 0, or why it cannot be: BOP_ENOMEM, BOP_EINVAL. */
    uint32_t compare_count;
    uint32_t then_count;
    uint32_t else_count;
    struct bop_buf compares;
    struct bop_buf then_items;
    struct bop_buf else_items;
};

BOP_API void bop_transaction_init(struct bop_transaction *txn, struct bop_allocator *allocator);
BOP_API void bop_transaction_deinit(struct bop_transaction *txn);

/** What they are given is copied. */
BOP_API void bop_transaction_if(struct bop_transaction *txn, const struct bop_compare *compare);
BOP_API void bop_transaction_then(struct bop_transaction *txn,
                                  const struct bop_operation *operation);
BOP_API void bop_transaction_else(struct bop_transaction *txn,
                                  const struct bop_operation *operation);

/** The operation that it comes to, which borrows from txn. Returns txn->code; BOP_ETOOBIG above
 * BOP_TRANSACTION_MAX of anything. */
BOP_API BOP_MUST_USE int bop_transaction_operation(const struct bop_transaction *txn,
                                                   struct bop_operation *out_operation);

#endif
