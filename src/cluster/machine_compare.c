/* Compares of transactions: does one hold, in the middle of a batch? */
#include "machine_internal.h"

static bool holds(enum bop_relation relation, int order)
{
    switch (relation) {
    case BOP_EQUAL:
        return order == 0;
    case BOP_NOT_EQUAL:
        return order != 0;
    case BOP_LESS:
        return order < 0;
    case BOP_GREATER:
        return order > 0;
    }
    return false;
}

static int order_of(int64_t there, int64_t wanted)
{
    return there < wanted ? -1 : there > wanted;
}

static int order_of_bytes(struct bop_slice there, struct bop_slice wanted)
{
    size_t size = there.size < wanted.size ? there.size : wanted.size;
    int order = size > 0 ? memcmp(there.data, wanted.data, size) : 0;

    return order != 0 ? order : order_of((int64_t)there.size, (int64_t)wanted.size);
}

/* Ask what a read operation asks. 0 with *out_status and *out_result set, or a code. */
static int ask(struct machine_view *view, const struct bop_operation *operation,
               struct bop_buf *scratch, struct bop_result *out_result)
{
    int status;

    bop_buf_clear(scratch);
    status = bop__machine_read(view, operation, scratch);
    if (status < 0) {
        return status;
    }
    return bop_result_decode(operation->op, (uint8_t)status, bop_buf_slice(scratch), out_result);
}

int bop__machine_compare(struct machine_view *view, const struct bop_compare *compare,
                         struct bop_buf *scratch, bool *out_holds)
{
    struct bop_operation operation = {
        .name = compare->name, .key = compare->key, .value = compare->value};
    struct bop_result result = {0};
    bool granted = false;
    int64_t there = 0;
    int rc;

    switch (compare->kind) {
    case BOP_COMPARE_VERSION:
    case BOP_COMPARE_VALUE:
        operation.op = BOP_OP_MAP_GET;
        break;
    case BOP_COMPARE_COUNTER:
        operation.op = BOP_OP_COUNTER_GET;
        break;
    case BOP_COMPARE_SET:
        operation.op = BOP_OP_SET_CONTAINS;
        break;
    case BOP_COMPARE_MULTIMAP:
        operation.op = BOP_OP_MULTIMAP_CONTAINS_ENTRY;
        break;
    case BOP_COMPARE_MEMBER:
        operation.op = BOP_OP_MEMBER_GET;
        break;
    case BOP_COMPARE_LOCK:
        rc = bop__machine_lock_granted(view, compare->name, (uint64_t)compare->number, &granted);
        *out_holds = holds(compare->relation, order_of(granted, 1));
        return rc;
    }
    rc = ask(view, &operation, scratch, &result);
    if (rc < 0) {
        return rc;
    }
    switch (compare->kind) {
    case BOP_COMPARE_VALUE:
        *out_holds = result.status == BOP_STATUS_OK
                         ? holds(compare->relation, order_of_bytes(result.value, compare->value))
                         : compare->relation == BOP_NOT_EQUAL;
        return 0;
    case BOP_COMPARE_VERSION:
        there = (int64_t)result.version;
        break;
    case BOP_COMPARE_COUNTER:
        there = result.number;
        break;
    case BOP_COMPARE_MEMBER:
        there = result.status == BOP_STATUS_OK;
        break;
    default:
        there = result.existed;
    }
    *out_holds = holds(compare->relation, order_of(there, compare->number));
    return 0;
}
