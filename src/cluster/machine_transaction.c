/*
 * Transactions: compares, then one of two lists of operations, in one entry of the log.
 *
 * Each operation sees what those before it did. If one fails, all of them are taken
 * back, and the answer is its status.
 */
#include "machine_internal.h"

/* The state as it is in the middle of the batch, for reads. */
static int open_view(struct machine *machine, struct machine_view *view)
{
    view->allocator = machine->allocator;
    view->txn = machine->txn;
    view->position = machine->position;
    memcpy(view->tables, machine->tables, sizeof(view->tables));
    /* Reads look into the store alone. */
    return bop__machine_collections_flush(machine);
}

static int all_hold(struct machine *machine, struct bop_slice compares, bool *out_hold)
{
    struct machine_view view;
    struct bop_compare compare;
    int rc = open_view(machine, &view);

    *out_hold = true;
    while (rc == 0 && *out_hold && bop_compare_next(&compares, &compare)) {
        rc = bop__machine_compare(&view, &compare, &machine->scratch, out_hold);
    }
    return rc;
}

static int run_read(struct machine *machine, const struct bop_operation *operation,
                    struct machine_reply *reply)
{
    struct machine_view view;
    int status = open_view(machine, &view);

    bop_buf_clear(&machine->large);
    if (status == 0) {
        status = bop__machine_read(&view, operation, &machine->large);
    }
    if (status < 0) {
        return status;
    }
    machine_reply_set(reply, (enum bop_status)status);
    machine_reply_large(reply);
    return 0;
}

/* Run one and append what it came to. */
static int run_one(struct machine *machine, struct bop_slice bytes, struct machine_reply *reply)
{
    struct bop_writer writer = bop_writer(&machine->results);
    struct bop_operation operation;
    int rc = bop_operation_decode(bytes, &operation);

    if (rc == 0) {
        rc = bop_op_is_write(operation.op)
                 ? bop__machine_execute(machine, machine->entry.index, bytes, reply)
                 : run_read(machine, &operation, reply);
    }
    if (rc < 0) {
        return rc;
    }
    bop_write_u8(&writer, reply->status);
    bop_write_bytes(&writer, reply->size == MACHINE_RESULT_LARGE
                                 ? bop_buf_slice(&machine->large)
                                 : bop_slice(reply->result, reply->size));
    return writer.code;
}

/* A read that finds nothing tells just that. */
static bool failed(const struct machine_reply *reply)
{
    return reply->status != BOP_STATUS_OK && reply->status != BOP_STATUS_NOT_FOUND;
}

/* Run them until one fails. *out_failed is its number, or how many there were. */
static int run_all(struct machine *machine, struct bop_slice operations,
                   struct machine_reply *reply, uint64_t *out_failed)
{
    struct bop_slice bytes;

    machine_reply_set(reply, BOP_STATUS_OK);
    *out_failed = 0;
    while (bop_transaction_next(&operations, &bytes)) {
        int rc = run_one(machine, bytes, reply);

        if (rc < 0) {
            return rc;
        }
        if (machine->results.size > BOP_TRANSACTION_RESULT_MAX) {
            machine_reply_set(reply, BOP_STATUS_TOO_BIG);
        }
        if (failed(reply)) {
            return 0;
        }
        (*out_failed)++;
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    return 0;
}

static int answer(struct machine *machine, bool held, uint32_t count, struct machine_reply *reply)
{
    struct bop_writer writer = bop_writer(&machine->large);

    bop_buf_clear(&machine->large);
    bop_write_bool(&writer, held);
    bop_write_u32(&writer, count);
    bop_write_raw(&writer, bop_buf_slice(&machine->results));
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_large(reply);
    return writer.code;
}

static int take_back(struct machine *machine, uint64_t number, struct machine_reply *reply)
{
    uint8_t status = reply->status;

    machine_reply_set(reply, (enum bop_status)status);
    if (status == BOP_STATUS_CONDITION) {
        machine_reply_add_u64(reply, number);
    }
    return bop__machine_undo_run(machine);
}

int bop__machine_transaction_write(struct machine *machine, const struct bop_operation *operation,
                                   struct machine_reply *out_reply)
{
    uint64_t number = 0;
    bool held = false;
    int rc = all_hold(machine, operation->compares, &held);

    bop_buf_clear(&machine->results);
    if (rc == 0) {
        rc = bop__machine_undo_begin(machine);
    }
    if (rc == 0) {
        rc = run_all(machine, held ? operation->then_items : operation->else_items, out_reply,
                     &number);
    }
    if (rc < 0) {
        return rc;
    }
    if (failed(out_reply)) {
        return take_back(machine, number, out_reply);
    }
    bop__machine_undo_drop(machine);
    return answer(machine, held, held ? operation->then_count : operation->else_count, out_reply);
}
