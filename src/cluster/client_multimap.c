/*
 * The calls for multimaps: as those in client_calls.c, they fill in a bop_operation
 * and no more.
 */
#include <bop/client.h>

static int execute(struct bop_client *client, enum bop_op op, struct bop_slice multimap,
                   struct bop_slice key, struct bop_slice value, enum bop_consistency consistency,
                   bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = op, .name = multimap, .key = key, .value = value};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_multimap_put(struct bop_client *client, struct bop_slice multimap,
                            struct bop_slice key, struct bop_slice value, bop_client_fn fn,
                            void *user)
{
    return execute(client, BOP_OP_MULTIMAP_PUT, multimap, key, value, BOP_READ_LINEARIZABLE, fn,
                   user);
}

int bop_client_multimap_remove(struct bop_client *client, struct bop_slice multimap,
                               struct bop_slice key, bop_client_fn fn, void *user)
{
    return execute(client, BOP_OP_MULTIMAP_REMOVE, multimap, key, bop_slice(NULL, 0),
                   BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_multimap_remove_value(struct bop_client *client, struct bop_slice multimap,
                                     struct bop_slice key, struct bop_slice value, bop_client_fn fn,
                                     void *user)
{
    return execute(client, BOP_OP_MULTIMAP_REMOVE_VALUE, multimap, key, value,
                   BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_multimap_clear(struct bop_client *client, struct bop_slice multimap,
                              bop_client_fn fn, void *user)
{
    return execute(client, BOP_OP_MULTIMAP_CLEAR, multimap, bop_slice(NULL, 0), bop_slice(NULL, 0),
                   BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_multimap_size(struct bop_client *client, struct bop_slice multimap,
                             enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    return execute(client, BOP_OP_MULTIMAP_SIZE, multimap, bop_slice(NULL, 0), bop_slice(NULL, 0),
                   consistency, fn, user);
}

int bop_client_multimap_key_size(struct bop_client *client, struct bop_slice multimap,
                                 struct bop_slice key, enum bop_consistency consistency,
                                 bop_client_fn fn, void *user)
{
    return execute(client, BOP_OP_MULTIMAP_KEY_SIZE, multimap, key, bop_slice(NULL, 0), consistency,
                   fn, user);
}

int bop_client_multimap_contains_key(struct bop_client *client, struct bop_slice multimap,
                                     struct bop_slice key, enum bop_consistency consistency,
                                     bop_client_fn fn, void *user)
{
    return execute(client, BOP_OP_MULTIMAP_CONTAINS_KEY, multimap, key, bop_slice(NULL, 0),
                   consistency, fn, user);
}

int bop_client_multimap_contains_value(struct bop_client *client, struct bop_slice multimap,
                                       struct bop_slice value, enum bop_consistency consistency,
                                       bop_client_fn fn, void *user)
{
    return execute(client, BOP_OP_MULTIMAP_CONTAINS_VALUE, multimap, bop_slice(NULL, 0), value,
                   consistency, fn, user);
}

int bop_client_multimap_contains_entry(struct bop_client *client, struct bop_slice multimap,
                                       struct bop_slice key, struct bop_slice value,
                                       enum bop_consistency consistency, bop_client_fn fn,
                                       void *user)
{
    return execute(client, BOP_OP_MULTIMAP_CONTAINS_ENTRY, multimap, key, value, consistency, fn,
                   user);
}

int bop_client_multimap_scan(struct bop_client *client, enum bop_op op, struct bop_slice multimap,
                             struct bop_slice key, struct bop_slice cursor, uint32_t limit,
                             enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {
        .op = op, .name = multimap, .key = key, .cursor = cursor, .limit = limit};

    return op == BOP_OP_MULTIMAP_GET || op == BOP_OP_MULTIMAP_KEYS ||
                   op == BOP_OP_MULTIMAP_VALUES || op == BOP_OP_MULTIMAP_ENTRIES
               ? bop_client_execute(client, &operation, consistency, fn, user)
               : BOP_EINVAL;
}

/* ---- Blocking ---- */

int bop_client_blocking_multimap_put(struct bop_client_blocking *client, struct bop_slice multimap,
                                     struct bop_slice key, struct bop_slice value, bool *out_added,
                                     struct bop_error *err)
{
    struct bop_operation operation = {
        .op = BOP_OP_MULTIMAP_PUT, .name = multimap, .key = key, .value = value};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result,
                                         err);

    if (rc == 0 && out_added) {
        *out_added = result.existed;
    }
    return rc;
}

int bop_client_blocking_multimap_remove(struct bop_client_blocking *client,
                                        struct bop_slice multimap, struct bop_slice key,
                                        uint64_t *out_removed, struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_MULTIMAP_REMOVE, .name = multimap, .key = key};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result,
                                         err);

    if (rc == 0 && out_removed) {
        *out_removed = result.size;
    }
    return rc;
}

int bop_client_blocking_multimap_remove_value(struct bop_client_blocking *client,
                                              struct bop_slice multimap, struct bop_slice key,
                                              struct bop_slice value, bool *out_removed,
                                              struct bop_error *err)
{
    struct bop_operation operation = {
        .op = BOP_OP_MULTIMAP_REMOVE_VALUE, .name = multimap, .key = key, .value = value};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result,
                                         err);

    if (rc == 0 && out_removed) {
        *out_removed = result.existed;
    }
    return rc;
}

int bop_client_blocking_multimap_key_size(struct bop_client_blocking *client,
                                          struct bop_slice multimap, struct bop_slice key,
                                          enum bop_consistency consistency, uint64_t *out_size,
                                          struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_MULTIMAP_KEY_SIZE, .name = multimap, .key = key};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, consistency, NULL, &result, err);

    if (rc == 0) {
        *out_size = result.size;
    }
    return rc;
}

int bop_client_blocking_multimap_contains_entry(struct bop_client_blocking *client,
                                                struct bop_slice multimap, struct bop_slice key,
                                                struct bop_slice value,
                                                enum bop_consistency consistency,
                                                bool *out_contained, struct bop_error *err)
{
    struct bop_operation operation = {
        .op = BOP_OP_MULTIMAP_CONTAINS_ENTRY, .name = multimap, .key = key, .value = value};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, consistency, NULL, &result, err);

    if (rc == 0) {
        *out_contained = result.existed;
    }
    return rc;
}
