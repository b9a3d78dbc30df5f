/*
 * The client: made, ended, counted.
 */
#include <string.h>

#include "../loop/loop_internal.h"
#include "../socket/socket_internal.h"
#include "client_internal.h"

#define CONNECTIONS_PER_HOST_DEFAULT 8
#define CONNECTIONS_DEFAULT          256
#define WAITING_DEFAULT              1024
#define KEEP_MS_DEFAULT              30000
#define CONNECT_TIMEOUT_MS_DEFAULT   10000

static struct bop_http_client_options with_defaults(const struct bop_http_client_options *options)
{
    struct bop_http_client_options full = options != NULL
                                              ? *options
                                              : (struct bop_http_client_options){.tls = NULL};

    full.connections_per_host_max = full.connections_per_host_max != 0
                                        ? full.connections_per_host_max
                                        : CONNECTIONS_PER_HOST_DEFAULT;
    full.connections_max = full.connections_max != 0 ? full.connections_max : CONNECTIONS_DEFAULT;
    full.waiting_max = full.waiting_max != 0 ? full.waiting_max : WAITING_DEFAULT;
    full.pipeline_max = full.pipeline_max != 0 ? full.pipeline_max : 1;
    full.keep_ms = full.keep_ms != 0 ? full.keep_ms : KEEP_MS_DEFAULT;
    full.connect_timeout_ms = full.connect_timeout_ms != 0 ? full.connect_timeout_ms
                                                           : CONNECT_TIMEOUT_MS_DEFAULT;
    return full;
}

static void free_client(struct bop_http_client *client)
{
    struct bop_allocator *allocator = client->allocator;

    bop_tls_destroy(client->own_tls);
    bop_buf_deinit(&client->out);
    if (client->user_agent != NULL) {
        bop_free(allocator, client->user_agent, strlen(client->user_agent) + 1);
    }
    bop_free(allocator, client, sizeof(*client));
}

int bop_http_client_create(struct bop_loop *loop, const struct bop_http_client_options *options,
                           struct bop_http_client **out_client)
{
    struct bop_allocator *allocator = bop_loop_allocator(loop);
    struct bop_http_client *client = (struct bop_http_client *)bop_alloc_zeroed(allocator,
                                                                                sizeof(*client));
    struct bop__sockets *sockets = bop__sockets_of(loop);

    if (client == NULL) {
        return BOP_ENOMEM;
    }
    client->loop = loop;
    client->allocator = allocator;
    client->options = with_defaults(options);
    bop_list_init(&client->calls);
    for (size_t i = 0; i < BOP__CLIENT_BUCKETS; i++) {
        bop_list_init(&client->buckets[i]);
    }
    bop_buf_init(&client->out, allocator, 0);
    if (sockets != NULL) {
        client->pool = bop__slots_pool(&sockets->slots, sizeof(struct bop__call));
    }
    if (client->options.user_agent != NULL) {
        size_t size = strlen(client->options.user_agent) + 1;

        client->user_agent = (char *)bop_alloc(allocator, size);
        if (client->user_agent != NULL) {
            memcpy(client->user_agent, client->options.user_agent, size);
        }
        client->options.user_agent = client->user_agent;
    }
    if (client->pool == NULL ||
        (options != NULL && options->user_agent != NULL && client->user_agent == NULL)) {
        free_client(client);
        return BOP_ENOMEM;
    }
    *out_client = client;
    return 0;
}

void bop_http_client_destroy(struct bop_http_client *client)
{
    if (client == NULL) {
        return;
    }
    client->destroying = true;
    bop__client_unexport(client);
    while (!bop_list_empty(&client->calls)) {
        bop__call_end(BOP_CONTAINER_OF(client->calls.next, struct bop__call, all), BOP_ECANCELED,
                      NULL);
    }
    /* Their sockets close in the loop's time and find no client any more. */
    for (size_t i = 0; i < BOP__CLIENT_BUCKETS; i++) {
        BOP_LIST_FOR_EACH_SAFE(link, &client->buckets[i]) {
            struct bop__client_origin *origin = BOP_CONTAINER_OF(link, struct bop__client_origin,
                                                                 link);

            BOP_LIST_FOR_EACH_SAFE(conn_link, &origin->conns) {
                bop__conn_forget(BOP_CONTAINER_OF(conn_link, struct bop__client_conn, link));
            }
            bop__origin_release(origin);
        }
    }
    free_client(client);
}

struct bop_http_client_counters bop_http_client_counters(const struct bop_http_client *client)
{
    struct bop_http_client_counters counters = client->counters;

    counters.open_now = client->conn_count;
    counters.kept_now = client->kept_count;
    counters.waiting_now = client->waiting;
    return counters;
}
