/*
 * The calls for registrations: as those in client_calls.c, they fill in a bop_operation
 * and no more.
 */
#include <bop/client.h>
#include <bop/mem.h>

bool bop_client_registration_next(struct bop_slice *entries,
                                  struct bop_client_registration *out_registration)
{
    struct bop_scan_entry entry;

    if (!bop_scan_next(entries, &entry) || entry.value.size != 16) {
        return false;
    }
    *out_registration = (struct bop_client_registration){
        .address = entry.key,
        .added = entry.version,
        .session = bop_load_u64(entry.value.data),
        .sequence = bop_load_u64(entry.value.data + 8),
    };
    return true;
}

/* ---- Asking ---- */

int bop_client_registration_add(struct bop_client *client, struct bop_slice registry,
                                struct bop_slice address, uint64_t sequence, bop_client_fn fn,
                                void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_REGISTRATION_ADD, .name = registry, .key = address, .sequence = sequence};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_registration_remove(struct bop_client *client, struct bop_slice registry,
                                   struct bop_slice address, uint64_t sequence, bop_client_fn fn,
                                   void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_REGISTRATION_REMOVE, .name = registry, .key = address, .sequence = sequence};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

/* The operation, its items in buf. */
static int add_all(struct bop_slice registry, const struct bop_item *items, uint32_t count,
                   struct bop_buf *buf, struct bop_operation *out_operation)
{
    struct bop_writer writer = bop_writer(buf);

    for (uint32_t i = 0; i < count; i++) {
        bop_item_encode(&writer, BOP_OP_REGISTRATION_ADD_ALL, &items[i]);
    }
    *out_operation = (struct bop_operation){.op = BOP_OP_REGISTRATION_ADD_ALL,
                                            .name = registry,
                                            .count = count,
                                            .items = bop_buf_slice(buf)};
    return writer.code;
}

int bop_client_registration_add_all(struct bop_client *client, struct bop_slice registry,
                                    const struct bop_item *items, uint32_t count, bop_client_fn fn,
                                    void *user)
{
    struct bop_operation operation;
    struct bop_buf buf;
    int rc;

    bop_buf_init(&buf, NULL, 0);
    rc = add_all(registry, items, count, &buf, &operation);
    if (rc == 0) {
        rc = bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
    }
    bop_buf_deinit(&buf);
    return rc;
}

int bop_client_registration_get(struct bop_client *client, struct bop_slice registry,
                                struct bop_slice address, struct bop_slice cursor, uint32_t limit,
                                enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_REGISTRATION_GET,
                                      .name = registry,
                                      .key = address,
                                      .cursor = cursor,
                                      .limit = limit};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_registration_list(struct bop_client *client, struct bop_slice registry,
                                 struct bop_slice cursor, uint32_t limit,
                                 enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_REGISTRATION_LIST, .name = registry, .cursor = cursor, .limit = limit};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

/* ---- Blocking ---- */

int bop_client_blocking_registration_add(struct bop_client_blocking *client,
                                         struct bop_slice registry, struct bop_slice address,
                                         uint64_t sequence, bool *out_added, struct bop_error *err)
{
    struct bop_operation operation = {
        .op = BOP_OP_REGISTRATION_ADD, .name = registry, .key = address, .sequence = sequence};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result,
                                         err);

    if (rc == 0 && out_added) {
        *out_added = result.existed;
    }
    return rc;
}

int bop_client_blocking_registration_remove(struct bop_client_blocking *client,
                                            struct bop_slice registry, struct bop_slice address,
                                            uint64_t sequence, bool *out_removed,
                                            struct bop_error *err)
{
    struct bop_operation operation = {
        .op = BOP_OP_REGISTRATION_REMOVE, .name = registry, .key = address, .sequence = sequence};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result,
                                         err);

    if (rc == 0 && out_removed) {
        *out_removed = result.existed;
    }
    return rc;
}

int bop_client_blocking_registration_add_all(struct bop_client_blocking *client,
                                             struct bop_slice registry,
                                             const struct bop_item *items, uint32_t count,
                                             uint64_t *out_added, struct bop_error *err)
{
    struct bop_operation operation;
    struct bop_result result = {0};
    struct bop_buf buf;
    int rc;

    bop_buf_init(&buf, NULL, 0);
    rc = add_all(registry, items, count, &buf, &operation);
    if (rc == 0) {
        rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result,
                                         err);
    } else {
        bop_error_set(err, rc, "add registrations");
    }
    bop_buf_deinit(&buf);
    if (rc == 0 && out_added) {
        *out_added = result.size;
    }
    return rc;
}
