/*
 * The calls for maps beyond put, get and delete, and for transactions: they fill in a
 * bop_operation and no more.
 */
#include <bop/client.h>

static struct bop_operation of_entry(enum bop_op op, struct bop_slice map, struct bop_slice key,
                                     const struct bop_client_if *only_if)
{
    struct bop_operation operation = {.op = op, .name = map, .key = key};

    if (only_if) {
        operation.condition = only_if->condition;
        operation.version = only_if->version;
        operation.expected = only_if->expected;
    }
    return operation;
}

int bop_client_map_put_ttl(struct bop_client *client, struct bop_slice map, struct bop_slice key,
                           struct bop_slice value, uint64_t ttl_ms,
                           const struct bop_client_if *only_if, bop_client_fn fn, void *user)
{
    struct bop_operation operation = of_entry(BOP_OP_MAP_PUT_TTL, map, key, only_if);

    operation.value = value;
    operation.ttl_ms = ttl_ms;
    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_map_exchange(struct bop_client *client, struct bop_slice map, struct bop_slice key,
                            struct bop_slice value, uint64_t ttl_ms,
                            const struct bop_client_if *only_if, bop_client_fn fn, void *user)
{
    struct bop_operation operation = of_entry(BOP_OP_MAP_EXCHANGE, map, key, only_if);

    operation.value = value;
    operation.ttl_ms = ttl_ms;
    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_map_take(struct bop_client *client, struct bop_slice map, struct bop_slice key,
                        const struct bop_client_if *only_if, bop_client_fn fn, void *user)
{
    struct bop_operation operation = of_entry(BOP_OP_MAP_TAKE, map, key, only_if);

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_map_get_ttl(struct bop_client *client, struct bop_slice map, struct bop_slice key,
                           enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    struct bop_operation operation = of_entry(BOP_OP_MAP_GET_TTL, map, key, NULL);

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_map_put_all(struct bop_client *client, struct bop_slice map, struct bop_slice items,
                           uint32_t count, uint64_t ttl_ms, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_MAP_PUT_ALL, .name = map, .items = items, .count = count, .ttl_ms = ttl_ms};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_transaction(struct bop_client *client, const struct bop_transaction *txn,
                           bop_client_fn fn, void *user)
{
    struct bop_operation operation;
    int rc = bop_transaction_operation(txn, &operation);

    return rc ? rc : bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}
