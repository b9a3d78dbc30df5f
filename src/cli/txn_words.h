/*
 * The lines of `bop txn`, and the transaction that they make:
 *
 *      if map users ada version = 0
 *      then map put users ada "Ada Lovelace"
 *      else map get users ada
 */
#ifndef BOP_CLI_TXN_WORDS_H
#define BOP_CLI_TXN_WORDS_H

#include <bop/transaction.h>

#define TXN_WORDS_MAX 8

struct txn_words {
    struct bop_transaction txn;
    struct bop_buf then_ops; /* The number of each operation, to know its result by. */
    struct bop_buf else_ops;
    /* The words of the last line. */
    struct bop_buf bytes;
    size_t at[TXN_WORDS_MAX];
    size_t sizes[TXN_WORDS_MAX];
    size_t count;
};

void txn_words_init(struct txn_words *words);
void txn_words_deinit(struct txn_words *words);

/** Take a line. NULL, or what is wrong with it. */
const char *txn_words_add(struct txn_words *words, struct bop_slice line);

#endif
