/*
 * Whom a client trusts and what it shows: TLS and the token.
 */
#include "client_internal.h"

#include <bop/mem.h>

static char *copy(struct bop_client *client, const char *text)
{
    size_t size = strlen(text) + 1;
    char *out = (char *)bop_alloc(client->allocator, size);

    if (out) {
        memcpy(out, text, size);
    }
    return out;
}

static int open_tls(struct bop_client *client, const struct bop_client_tls *options,
                    struct bop_error *err)
{
    struct bop_tls_options tls = {
        .identity = {.cert_file = options->certificate, .key_file = options->key},
        .ca_file = options->ca,
    };

    if (options->server_name) {
        client->server_name = copy(client, options->server_name);
        if (!client->server_name) {
            return bop_error_set(err, BOP_ENOMEM, "create a client");
        }
    }
    if (options->shared) {
        client->tls = options->shared;
        return 0;
    }
    client->own_tls = true;
    return bop_tls_create(&tls, &client->tls, err);
}

int bop__client_trust_init(struct bop_client *client, const struct bop_client_options *options,
                           struct bop_error *err)
{
    size_t size = options->token ? strlen(options->token) : 0;
    int rc = options->tls ? open_tls(client, options->tls, err) : 0;

    if (rc < 0 || !options->token) {
        return rc;
    }
    if (size == 0 || size > BOP_AUTH_TOKEN_MAX) {
        return bop_error_say(err, BOP_EINVAL, "a token of %zu bytes: 1 to %d wanted", size,
                             BOP_AUTH_TOKEN_MAX);
    }
    client->token = copy(client, options->token);
    return client->token ? 0 : bop_error_set(err, BOP_ENOMEM, "create a client");
}

void bop__client_trust_deinit(struct bop_client *client)
{
    if (client->own_tls) {
        bop_tls_destroy(client->tls);
    }
    if (client->server_name) {
        bop_free(client->allocator, client->server_name, strlen(client->server_name) + 1);
    }
    if (client->token) {
        size_t size = strlen(client->token) + 1;

        explicit_bzero(client->token, size);
        bop_free(client->allocator, client->token, size);
    }
}

void bop__client_denied(struct bop_client *client, struct bop_slice said)
{
    static const char unknown[] = "the server does not know the token";
    static const char none[] = "the server wants a token";

    if (said.size == 0 || !bop_slice_is_utf8(said)) {
        said = bop_slice_cstr(client->token ? unknown : none);
    }
    bop_error_say(&client->info.denied, BOP_EDENIED, "%.*s", (int)bop_min_u64(said.size, 300),
                  (const char *)said.data);
}

bool bop__client_error_text(struct bop_slice payload, struct bop_slice *out_text)
{
    struct bop_reader reader = bop_reader(payload);

    bop_read_u8(&reader);
    *out_text = bop_read_string(&reader);
    return bop_reader_done(&reader) && out_text->size > 0;
}
