/* Counters: 64-bit numbers by name. One that an add does not find begins at 0. */
#include "machine_internal.h"

/* 0, BOP_ENOTFOUND, or another code. */
static int counter_find(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice name,
                        struct machine_counter *out_counter)
{
    struct bop_slice value;
    int rc = bop_kv_get(txn, table, name, &value);

    return rc ? rc : bop__machine_counter_decode(value, out_counter);
}

static int counter_store(struct machine *machine, struct bop_slice name,
                         const struct machine_counter *counter)
{
    uint8_t bytes[MACHINE_COUNTER_SIZE];

    bop__machine_counter_encode(bytes, counter);
    return bop_kv_put(machine->txn, machine->tables[MACHINE_COUNTERS], name,
                      bop_slice(bytes, sizeof(bytes)));
}

int bop__machine_counter_write(struct machine *machine, uint64_t index,
                               const struct bop_operation *operation,
                               struct machine_reply *out_reply)
{
    struct machine_counter counter = {.value = 0, .created = index};
    int found = counter_find(machine->txn, machine->tables[MACHINE_COUNTERS], operation->name,
                             &counter);
    int rc = 0;

    if (found < 0 && found != BOP_ENOTFOUND) {
        return found;
    }
    if (operation->op == BOP_OP_COUNTER_CREATE) {
        if (found == BOP_ENOTFOUND) {
            rc = counter_store(machine, operation->name, &counter);
        }
        machine_reply_set(out_reply, BOP_STATUS_OK);
        machine_reply_add_u8(out_reply, found == BOP_ENOTFOUND);
        return rc;
    }
    if (__builtin_add_overflow(counter.value, operation->delta, &counter.value)) {
        machine_reply_set(out_reply, BOP_STATUS_OVERFLOW);
        return 0;
    }
    machine_reply_set(out_reply, BOP_STATUS_OK);
    machine_reply_add_u64(out_reply, (uint64_t)counter.value);
    return counter_store(machine, operation->name, &counter);
}

int bop__machine_counter_read(struct machine_view *view, const struct bop_operation *operation,
                              struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);
    struct machine_counter counter;
    int rc = counter_find(view->txn, view->tables[MACHINE_COUNTERS], operation->name, &counter);

    if (rc != 0) {
        return rc == BOP_ENOTFOUND ? BOP_STATUS_NOT_FOUND : rc;
    }
    bop_write_i64(&writer, counter.value);
    return writer.code ? writer.code : BOP_STATUS_OK;
}
