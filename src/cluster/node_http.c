/*
 * The node's HTTP API, if it is to have one.
 */
#include "node.h"

int bop__node_http_listen(struct bop_node *node, struct bop_error *err)
{
    struct http_api_options options = {
        .allocator = node->options.allocator,
        .loop = node->loop,
        .log = node->log,
        .metrics = node->options.metrics,
        .host = node->options.http_host,
        .port = node->options.http_port,
        .tls = node->tls.http,
    };

    return node->options.http_host ? bop__http_api_create(&options, &node->http, err) : 0;
}

void bop__node_http_serve(struct bop_node *node)
{
    struct http_api_backend backend = {
        .replica = node->replica,
        .service = node->service,
        .auth = node->auth,
        .work_executor = bop_lane_executor(node->work_lane),
    };

    if (node->http) {
        bop__http_api_serve(node->http, &backend);
    }
}

void bop__node_http_stop(struct bop_node *node)
{
    if (node->http) {
        bop__http_api_stop(node->http);
    }
}

void bop__node_http_close(struct bop_node *node)
{
    if (node->http) {
        bop__http_api_close(node->http);
    }
}

bool bop__node_http_is_idle(const struct bop_node *node)
{
    return !node->http || bop__http_api_is_idle(node->http);
}

void bop__node_http_destroy(struct bop_node *node)
{
    bop__http_api_destroy(node->http);
    node->http = NULL;
}

uint16_t bop_node_http_port(const struct bop_node *node)
{
    return node->http ? bop__http_api_port(node->http) : 0;
}
