/*
 * Shapes of operations and their results: what of struct bop_operation and struct
 * bop_result an operation's bytes hold, in order. One letter a field, so that
 * encoders and decoders are each one loop. Shared by operation.c and operation_result.c.
 */
#ifndef BOP_CLUSTER_OPERATION_H
#define BOP_CLUSTER_OPERATION_H

#include <bop/wire.h>

/*
 * Fields of an operation, behind its name:
 *
 *   k  key b         v  value b, large     w  value b, small    c  condition
 *   t  ttl_ms q      d  delta i            e  expected i        n  number i
 *   p  prefix b      f  from b             o  to b
 *   u  cursor b      l  limit u32          s  session q         q  sequence q
 *   a  capacity u32  r  permits u32        b  label b           i  kind u8
 *   *  count u32, items                    x  compares and operations of a transaction
 *   -  there is no name: it is empty
 *
 * Fields of a result:
 *
 *   B  existed B     Q  version q          Z  size q            N  number i
 *   V  value b       M  ttl_ms q           K  ticket q          T  token q
 *   P  position q    A  capacity u32       R  permits u32
 *   S  a page of a scan                    X  results of a transaction
 */
struct operation_shape {
    const char *fields;    /* NULL: there is no such operation. */
    const char *result;    /* With BOP_STATUS_OK. */
    const char *condition; /* With BOP_STATUS_CONDITION; NULL: version. */
};

/** The shape of an operation; NULL for a number that is none. */
const struct operation_shape *bop__operation_shape(enum bop_op op);

/* operation_items.c: the inside of what holds several. Reading checks everything, and fails the
 * reader or sets *code to BOP_ETOOBIG. */
void bop__items_read(struct bop_reader *reader, struct bop_operation *operation, int *code);
void bop__transaction_read(struct bop_reader *reader, struct bop_operation *operation, int *code);
void bop__transaction_write(struct bop_writer *writer, const struct bop_operation *operation);
void bop__transaction_results_read(struct bop_reader *reader, struct bop_result *result);

#endif
