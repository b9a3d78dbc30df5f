/*
 * Settling: a request like a read, sent again when the connection broke, which does no harm. To
 * add a registration and to settle it are two, one after the other.
 */
#include "client_internal.h"

#include <bop/mem.h>

int bop_client_watch_settle(struct bop_client *client, enum bop_watch_what what,
                            struct bop_slice name, struct bop_slice key, uint32_t timeout_ms,
                            bop_client_settled_fn fn, void *user)
{
    struct bop_watch_settle_request message = {
        .what = (uint8_t)what, .name = name, .key = key, .timeout_ms = timeout_ms};
    struct client_request *request;
    struct bop_writer writer;
    int rc = bop__client_request_begin(client, &request);

    if (rc < 0) {
        return rc;
    }
    writer = bop_writer(&request->operation);
    bop_watch_settle_request_encode(&writer, &message);
    rc = writer.code;
    if (rc == 0 &&
        bop_watch_settle_request_decode(bop_buf_slice(&request->operation), &message) < 0) {
        rc = BOP_EINVAL;
    }
    if (rc < 0) {
        bop_buf_clear(&request->operation);
        return rc;
    }
    request->kind = BOP_WIRE_KIND_WATCH_SETTLE_REQUEST;
    request->settled_fn = fn;
    request->user = user;
    bop__client_request_accept(client, request);
    return 0;
}

int bop__client_settle_answer(struct bop_client *client, struct client_request *request,
                              struct bop_slice payload)
{
    struct bop_watch_settle_response message;
    int rc = bop_watch_settle_response_decode(payload, &message);

    if (rc < 0) {
        bop__client_request_finish(client, request, BOP_EPROTOCOL, NULL);
        return BOP_EPROTOCOL;
    }
    if (message.status == BOP_STATUS_RETRY || message.status == BOP_STATUS_BUSY) {
        bop__client_request_again(client, request);
        return 0;
    }
    rc = bop_status_code(message.status);
    bop__client_request_finish(client, request,
                               rc                 ? rc
                               : message.complete ? 0
                                                  : BOP_EUNCERTAIN,
                               NULL);
    return 0;
}

/* ---- Adding ---- */

struct addition {
    struct bop_client *client;
    struct bop_allocator *allocator;
    bop_client_fn fn;
    void *user;
    struct bop_result result;
    uint32_t timeout_ms;
    size_t name_size;
    size_t key_size;
    uint8_t bytes[]; /* Name and key. */
};

static void end(struct addition *addition, int code, const struct bop_result *result)
{
    if (addition->fn) {
        addition->fn(addition->user, code, result);
    }
    bop_free(addition->allocator, addition,
             sizeof(*addition) + addition->name_size + addition->key_size);
}

/* It is added, whatever became of the second request. */
static void on_settled(void *user, int code)
{
    struct addition *addition = (struct addition *)user;

    end(addition, code == 0 || code == BOP_ECANCELED ? code : BOP_EUNCERTAIN, &addition->result);
}

static void on_added(void *user, int code, const struct bop_result *result)
{
    struct addition *addition = (struct addition *)user;

    if (code != 0) {
        end(addition, code, result);
        return;
    }
    addition->result = *result;
    if (bop_client_watch_settle(
            addition->client, BOP_WATCH_REGISTRY, bop_slice(addition->bytes, addition->name_size),
            bop_slice(addition->bytes + addition->name_size, addition->key_size),
            addition->timeout_ms, on_settled, addition) != 0) {
        end(addition, BOP_EUNCERTAIN, result);
    }
}

int bop_client_registration_add_settled(struct bop_client *client, struct bop_slice registry,
                                        struct bop_slice address, uint64_t sequence,
                                        uint32_t timeout_ms, bop_client_fn fn, void *user)
{
    struct addition *addition;
    int rc;

    if (registry.size > BOP_NAME_MAX || address.size > BOP_KEY_MAX) {
        return BOP_ETOOBIG;
    }
    addition = (struct addition *)bop_alloc_zeroed(
        client->allocator, sizeof(*addition) + registry.size + address.size);
    if (!addition) {
        return BOP_ENOMEM;
    }
    addition->client = client;
    addition->allocator = client->allocator;
    addition->fn = fn;
    addition->user = user;
    addition->timeout_ms = timeout_ms;
    addition->name_size = registry.size;
    addition->key_size = address.size;
    if (registry.size > 0) {
        memcpy(addition->bytes, registry.data, registry.size);
    }
    if (address.size > 0) {
        memcpy(addition->bytes + registry.size, address.data, address.size);
    }
    rc = bop_client_registration_add(client, registry, address, sequence, on_added, addition);
    if (rc < 0) {
        bop_free(client->allocator, addition, sizeof(*addition) + registry.size + address.size);
    }
    return rc;
}
