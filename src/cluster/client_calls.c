/*
 * The calls for each operation: they fill in a bop_operation and no more.
 */
#include <bop/client.h>

static void set_condition(struct bop_operation *operation, const struct bop_client_if *only_if)
{
    if (only_if) {
        operation->condition = only_if->condition;
        operation->version = only_if->version;
        operation->expected = only_if->expected;
    }
}

int bop_client_map_put(struct bop_client *client, struct bop_slice map, struct bop_slice key,
                       struct bop_slice value, const struct bop_client_if *only_if,
                       bop_client_fn fn, void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_MAP_PUT, .name = map, .key = key, .value = value};

    set_condition(&operation, only_if);
    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_map_delete(struct bop_client *client, struct bop_slice map, struct bop_slice key,
                          const struct bop_client_if *only_if, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_MAP_DELETE, .name = map, .key = key};

    set_condition(&operation, only_if);
    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_map_get(struct bop_client *client, struct bop_slice map, struct bop_slice key,
                       enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_MAP_GET, .name = map, .key = key};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_map_size(struct bop_client *client, struct bop_slice map,
                        enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_MAP_SIZE, .name = map};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_map_scan(struct bop_client *client, struct bop_slice map, struct bop_slice cursor,
                        uint32_t limit, enum bop_consistency consistency, bop_client_fn fn,
                        void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_MAP_SCAN, .name = map, .cursor = cursor, .limit = limit};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_counter_add(struct bop_client *client, struct bop_slice counter, int64_t delta,
                           bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_ADD, .name = counter, .delta = delta};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_counter_cas(struct bop_client *client, struct bop_slice counter, int64_t expected,
                           int64_t value, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_COUNTER_CAS, .name = counter, .expected_number = expected, .number = value};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_counter_set(struct bop_client *client, struct bop_slice counter, int64_t value,
                           bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_SET, .name = counter, .number = value};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_counter_delete(struct bop_client *client, struct bop_slice counter, bop_client_fn fn,
                              void *user)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_DELETE, .name = counter};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_map_range(struct bop_client *client, struct bop_slice map,
                         const struct bop_client_range *range, struct bop_slice cursor,
                         uint32_t limit, enum bop_consistency consistency, bop_client_fn fn,
                         void *user)
{
    struct bop_operation operation = {.op = BOP_OP_MAP_RANGE,
                                      .name = map,
                                      .prefix = range->prefix,
                                      .from = range->from,
                                      .to = range->to,
                                      .cursor = cursor,
                                      .limit = limit};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_counter_get(struct bop_client *client, struct bop_slice counter,
                           enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_GET, .name = counter};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_set_add(struct bop_client *client, struct bop_slice set, struct bop_slice member,
                       bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_SET_ADD, .name = set, .key = member};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_set_remove(struct bop_client *client, struct bop_slice set, struct bop_slice member,
                          bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_SET_REMOVE, .name = set, .key = member};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_set_contains(struct bop_client *client, struct bop_slice set,
                            struct bop_slice member, enum bop_consistency consistency,
                            bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_SET_CONTAINS, .name = set, .key = member};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_set_size(struct bop_client *client, struct bop_slice set,
                        enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_SET_SIZE, .name = set};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_set_scan(struct bop_client *client, struct bop_slice set, struct bop_slice cursor,
                        uint32_t limit, enum bop_consistency consistency, bop_client_fn fn,
                        void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_SET_SCAN, .name = set, .cursor = cursor, .limit = limit};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_map_clear(struct bop_client *client, struct bop_slice map, bop_client_fn fn,
                         void *user)
{
    struct bop_operation operation = {.op = BOP_OP_MAP_CLEAR, .name = map};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_set_clear(struct bop_client *client, struct bop_slice set, bop_client_fn fn,
                         void *user)
{
    struct bop_operation operation = {.op = BOP_OP_SET_CLEAR, .name = set};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

/* ---- Blocking ---- */

int bop_client_blocking_map_put(struct bop_client_blocking *client, struct bop_slice map,
                                struct bop_slice key, struct bop_slice value,
                                const struct bop_client_if *only_if, uint64_t *out_version,
                                struct bop_error *err)
{
    struct bop_operation operation = {
        .op = BOP_OP_MAP_PUT, .name = map, .key = key, .value = value};
    struct bop_result result;
    int rc;

    set_condition(&operation, only_if);
    rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result, err);
    if (out_version && (rc == 0 || rc == BOP_ECONDITION)) {
        *out_version = result.version;
    }
    return rc;
}

int bop_client_blocking_map_delete(struct bop_client_blocking *client, struct bop_slice map,
                                   struct bop_slice key, const struct bop_client_if *only_if,
                                   struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_MAP_DELETE, .name = map, .key = key};
    struct bop_result result;
    int rc;

    set_condition(&operation, only_if);
    rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result, err);
    if (rc == 0 && !result.existed) {
        rc = bop_error_set(err, BOP_ENOTFOUND, "delete");
    }
    return rc;
}

int bop_client_blocking_map_get(struct bop_client_blocking *client, struct bop_slice map,
                                struct bop_slice key, enum bop_consistency consistency,
                                struct bop_buf *out_value, uint64_t *out_version,
                                struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_MAP_GET, .name = map, .key = key};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, consistency, out_value, &result, err);

    if (rc == 0) {
        /* The buffer holds the result as encoded, the value last. */
        bop_buf_consume(out_value, out_value->size - result.value.size);
        if (out_version) {
            *out_version = result.version;
        }
    }
    return rc;
}

static int blocking_size(struct bop_client_blocking *client, const struct bop_operation *operation,
                         enum bop_consistency consistency, uint64_t *out_size,
                         struct bop_error *err)
{
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, operation, consistency, NULL, &result, err);

    if (rc == 0 && out_size) {
        *out_size = result.size;
    }
    return rc;
}

int bop_client_blocking_map_size(struct bop_client_blocking *client, struct bop_slice map,
                                 enum bop_consistency consistency, uint64_t *out_size,
                                 struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_MAP_SIZE, .name = map};

    return blocking_size(client, &operation, consistency, out_size, err);
}

static int blocking_number(struct bop_client_blocking *client,
                           const struct bop_operation *operation, enum bop_consistency consistency,
                           int64_t *out_value, struct bop_error *err)
{
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, operation, consistency, NULL, &result, err);

    if (rc == 0 && out_value) {
        *out_value = result.number;
    }
    return rc;
}

int bop_client_blocking_counter_add(struct bop_client_blocking *client, struct bop_slice counter,
                                    int64_t delta, int64_t *out_value, struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_ADD, .name = counter, .delta = delta};

    return blocking_number(client, &operation, BOP_READ_LINEARIZABLE, out_value, err);
}

int bop_client_blocking_counter_cas(struct bop_client_blocking *client, struct bop_slice counter,
                                    int64_t expected, int64_t value, int64_t *out_value,
                                    struct bop_error *err)
{
    struct bop_operation operation = {
        .op = BOP_OP_COUNTER_CAS, .name = counter, .expected_number = expected, .number = value};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result,
                                         err);

    if (out_value && (rc == 0 || rc == BOP_ECONDITION)) {
        *out_value = result.number;
    }
    return rc;
}

int bop_client_blocking_counter_set(struct bop_client_blocking *client, struct bop_slice counter,
                                    int64_t value, struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_SET, .name = counter, .number = value};

    return bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, NULL, err);
}

int bop_client_blocking_counter_delete(struct bop_client_blocking *client, struct bop_slice counter,
                                       struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_DELETE, .name = counter};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result,
                                         err);

    return rc == 0 && !result.existed ? bop_error_set(err, BOP_ENOTFOUND, "delete") : rc;
}

int bop_client_blocking_counter_get(struct bop_client_blocking *client, struct bop_slice counter,
                                    enum bop_consistency consistency, int64_t *out_value,
                                    struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_GET, .name = counter};

    return blocking_number(client, &operation, consistency, out_value, err);
}

static int blocking_bool(struct bop_client_blocking *client, const struct bop_operation *operation,
                         enum bop_consistency consistency, bool *out_yes, struct bop_error *err)
{
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, operation, consistency, NULL, &result, err);

    if (rc == 0 && out_yes) {
        *out_yes = result.existed;
    }
    return rc;
}

int bop_client_blocking_set_add(struct bop_client_blocking *client, struct bop_slice set,
                                struct bop_slice member, bool *out_added, struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_SET_ADD, .name = set, .key = member};

    return blocking_bool(client, &operation, BOP_READ_LINEARIZABLE, out_added, err);
}

int bop_client_blocking_set_remove(struct bop_client_blocking *client, struct bop_slice set,
                                   struct bop_slice member, bool *out_removed,
                                   struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_SET_REMOVE, .name = set, .key = member};

    return blocking_bool(client, &operation, BOP_READ_LINEARIZABLE, out_removed, err);
}

int bop_client_blocking_set_contains(struct bop_client_blocking *client, struct bop_slice set,
                                     struct bop_slice member, enum bop_consistency consistency,
                                     bool *out_contained, struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_SET_CONTAINS, .name = set, .key = member};

    return blocking_bool(client, &operation, consistency, out_contained, err);
}

int bop_client_blocking_set_size(struct bop_client_blocking *client, struct bop_slice set,
                                 enum bop_consistency consistency, uint64_t *out_size,
                                 struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_SET_SIZE, .name = set};

    return blocking_size(client, &operation, consistency, out_size, err);
}
