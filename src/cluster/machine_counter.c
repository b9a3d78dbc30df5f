/*
 * Counters: 64-bit numbers by name. One that an add or a
 * compare-and-set does not find begins at 0.
 */
#include "machine_internal.h"

/* 0, BOP_ENOTFOUND, or another code. */
static int counter_find(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice name,
                        struct machine_counter *out_counter)
{
    struct bop_slice value;
    int rc = bop_kv_get(txn, table, name, &value);

    return rc ? rc : bop__machine_counter_decode(value, out_counter);
}

static int tell(struct machine *machine, enum bop_event_type type, struct bop_slice name,
                int64_t value)
{
    return bop__machine_event(machine,
                              &(struct bop_event){.type = type, .name = name, .number = value});
}

static int counter_store(struct machine *machine, enum bop_event_type type, struct bop_slice name,
                         const struct machine_counter *counter)
{
    uint8_t bytes[MACHINE_COUNTER_SIZE];

    int rc = tell(machine, type, name, counter->value);

    if (rc < 0) {
        return rc;
    }
    bop__machine_counter_encode(bytes, counter);
    return bop__machine_put(machine, MACHINE_COUNTERS, name, bop_slice(bytes, sizeof(bytes)));
}

static int counter_add(struct machine *machine, const struct bop_operation *operation,
                       struct machine_counter *counter, struct machine_reply *reply)
{
    if (__builtin_add_overflow(counter->value, operation->delta, &counter->value)) {
        machine_reply_set(reply, BOP_STATUS_OVERFLOW);
        return 0;
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u64(reply, (uint64_t)counter->value);
    return counter_store(machine, BOP_EVENT_COUNTER_SET, operation->name, counter);
}

static int counter_delete(struct machine *machine, const struct bop_operation *operation)
{
    int rc = tell(machine, BOP_EVENT_COUNTER_DELETE, operation->name, 0);

    return rc ? rc : bop__machine_del(machine, MACHINE_COUNTERS, operation->name);
}

static int counter_cas(struct machine *machine, const struct bop_operation *operation,
                       struct machine_counter *counter, struct machine_reply *reply)
{
    bool met = counter->value == operation->expected_number;

    if (met) {
        counter->value = operation->number;
    }
    machine_reply_set(reply, met ? BOP_STATUS_OK : BOP_STATUS_CONDITION);
    machine_reply_add_u64(reply, (uint64_t)counter->value);
    return met ? counter_store(machine, BOP_EVENT_COUNTER_SET, operation->name, counter) : 0;
}

/* A write that answers with a bool. */
static int answer(int rc, bool yes, struct machine_reply *reply)
{
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, yes);
    return rc;
}

int bop__machine_counter_write(struct machine *machine, uint64_t index,
                               const struct bop_operation *operation,
                               struct machine_reply *out_reply)
{
    struct machine_counter counter = {.value = 0, .created = index};
    int rc = counter_find(machine->txn, machine->tables[MACHINE_COUNTERS], operation->name,
                          &counter);
    bool existed = rc == 0;

    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    switch (operation->op) {
    case BOP_OP_COUNTER_CREATE:
        rc = existed ? 0
                     : counter_store(machine, BOP_EVENT_COUNTER_CREATE, operation->name, &counter);
        return answer(rc, !existed, out_reply);
    case BOP_OP_COUNTER_SET:
        counter.value = operation->number;
        rc = counter_store(machine, BOP_EVENT_COUNTER_SET, operation->name, &counter);
        return answer(rc, existed, out_reply);
    case BOP_OP_COUNTER_DELETE:
        rc = existed ? counter_delete(machine, operation) : 0;
        return answer(rc, existed, out_reply);
    case BOP_OP_COUNTER_CAS:
        return counter_cas(machine, operation, &counter, out_reply);
    default:
        return counter_add(machine, operation, &counter, out_reply);
    }
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
