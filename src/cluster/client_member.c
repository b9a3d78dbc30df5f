/*
 * The calls for members of groups and for the names there are: as those in
 * client_calls.c, they fill in a bop_operation and no more.
 */
#include <bop/client.h>

#define PAGE_ENTRIES 1000

bool bop_client_member_next(struct bop_slice *entries, struct bop_client_member *out_member)
{
    struct bop_scan_entry entry;
    struct bop_reader reader;

    if (!bop_scan_next(entries, &entry)) {
        return false;
    }
    reader = bop_reader(entry.value);
    *out_member = (struct bop_client_member){.name = entry.key, .number = entry.version};
    out_member->session = bop_read_u64(&reader);
    out_member->info = bop_read_bytes(&reader);
    return bop_reader_done(&reader);
}

bool bop_client_name_next(struct bop_slice *entries, struct bop_client_name *out_name)
{
    struct bop_scan_entry entry;

    if (!bop_scan_next(entries, &entry) || entry.value.size != 8) {
        return false;
    }
    *out_name = (struct bop_client_name){.name = entry.key,
                                         .created = entry.version,
                                         .size = (int64_t)bop_load_u64(entry.value.data)};
    return true;
}

/* ---- Asking ---- */

int bop_client_member_join(struct bop_client *client, struct bop_slice group,
                           struct bop_slice member, struct bop_slice info, bop_client_fn fn,
                           void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_MEMBER_JOIN, .name = group, .key = member, .value = info};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_member_set(struct bop_client *client, struct bop_slice group,
                          struct bop_slice member, struct bop_slice info, bop_client_fn fn,
                          void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_MEMBER_SET, .name = group, .key = member, .value = info};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_member_leave(struct bop_client *client, struct bop_slice group,
                            struct bop_slice member, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_MEMBER_LEAVE, .name = group, .key = member};

    return bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, fn, user);
}

int bop_client_member_get(struct bop_client *client, struct bop_slice group,
                          struct bop_slice member, enum bop_consistency consistency,
                          bop_client_fn fn, void *user)
{
    struct bop_operation operation = {.op = BOP_OP_MEMBER_GET, .name = group, .key = member};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_member_list(struct bop_client *client, struct bop_slice group,
                           struct bop_slice cursor, uint32_t limit,
                           enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_MEMBER_LIST, .name = group, .cursor = cursor, .limit = limit};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

int bop_client_names(struct bop_client *client, enum bop_name_kind kind, struct bop_slice prefix,
                     struct bop_slice cursor, uint32_t limit, enum bop_consistency consistency,
                     bop_client_fn fn, void *user)
{
    struct bop_operation operation = {
        .op = BOP_OP_NAMES, .kind = kind, .prefix = prefix, .cursor = cursor, .limit = limit};

    return bop_client_execute(client, &operation, consistency, fn, user);
}

/* ---- Blocking ---- */

int bop_client_blocking_member_join(struct bop_client_blocking *client, struct bop_slice group,
                                    struct bop_slice member, struct bop_slice info,
                                    uint64_t *out_number, struct bop_error *err)
{
    struct bop_operation operation = {
        .op = BOP_OP_MEMBER_JOIN, .name = group, .key = member, .value = info};
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, &operation, BOP_READ_LINEARIZABLE, NULL, &result,
                                         err);

    if (out_number && (rc == 0 || rc == BOP_ECONDITION)) {
        *out_number = result.version;
    }
    return rc;
}

static int blocking_bool(struct bop_client_blocking *client, const struct bop_operation *operation,
                         bool *out_yes, struct bop_error *err)
{
    struct bop_result result;
    int rc = bop_client_blocking_execute(client, operation, BOP_READ_LINEARIZABLE, NULL, &result,
                                         err);

    if (rc == 0 && out_yes) {
        *out_yes = result.existed;
    }
    return rc;
}

int bop_client_blocking_member_set(struct bop_client_blocking *client, struct bop_slice group,
                                   struct bop_slice member, struct bop_slice info, bool *out_set,
                                   struct bop_error *err)
{
    struct bop_operation operation = {
        .op = BOP_OP_MEMBER_SET, .name = group, .key = member, .value = info};

    return blocking_bool(client, &operation, out_set, err);
}

int bop_client_blocking_member_leave(struct bop_client_blocking *client, struct bop_slice group,
                                     struct bop_slice member, bool *out_left, struct bop_error *err)
{
    struct bop_operation operation = {.op = BOP_OP_MEMBER_LEAVE, .name = group, .key = member};

    return blocking_bool(client, &operation, out_left, err);
}

int bop_client_blocking_pages(struct bop_client_blocking *client,
                              const struct bop_operation *operation,
                              enum bop_consistency consistency, bop_client_page_fn fn, void *user,
                              struct bop_error *err)
{
    struct bop_operation page = *operation;
    struct bop_buf buf, cursor;
    int rc;

    bop_buf_init(&buf, NULL, 0);
    bop_buf_init(&cursor, NULL, 0);
    page.limit = page.limit ? page.limit : PAGE_ENTRIES;
    do {
        struct bop_result result;

        page.cursor = bop_buf_slice(&cursor);
        rc = bop_client_blocking_execute(client, &page, consistency, &buf, &result, err);
        if (rc == 0) {
            bop_buf_clear(&cursor);
            rc = bop_buf_append(&cursor, result.cursor.data, result.cursor.size);
        }
        if (rc == 0 && !fn(user, &result)) {
            break;
        }
    } while (rc == 0 && cursor.size > 0);
    bop_buf_deinit(&buf);
    bop_buf_deinit(&cursor);
    return rc;
}
