/*
 * The server itself: made, listening, stopped, freed.
 *
 * It lives until the last of those that point at it is gone: its user (destroy),
 * its connections (their on_close comes from the loop, later than destroy), and
 * the post that says it has stopped.
 */
#include <bop/router.h>

#include "upgrade.h"

static uint64_t or_default(uint64_t value, uint64_t fallback)
{
    return value != 0 ? value : fallback;
}

static struct bop_http_server_options with_defaults(const struct bop_http_server_options *options)
{
    struct bop_http_server_options full = {0};

    if (options != NULL) {
        full = *options;
    }
    full.body_bytes_max = or_default(full.body_bytes_max, 1u << 20);
    full.head_timeout_ms = or_default(full.head_timeout_ms, 10000);
    full.body_timeout_ms = or_default(full.body_timeout_ms, 30000);
    full.body_bytes_per_s_min = or_default(full.body_bytes_per_s_min, 100);
    full.idle_timeout_ms = or_default(full.idle_timeout_ms, 60000);
    full.write_timeout_ms = or_default(full.write_timeout_ms, 30000);
    full.requests_max = (unsigned)or_default(full.requests_max, 1u << 20);
    full.write_high = or_default(full.write_high, 64u * 1024);
    return full;
}

/* An eighth of the shortest timeout, so that none is more than that late. */
static uint32_t tick_of(const struct bop_http_server_options *options)
{
    uint64_t shortest = bop_min_u64(
        bop_min_u64(options->head_timeout_ms, options->body_timeout_ms),
        bop_min_u64(options->idle_timeout_ms, options->write_timeout_ms));

    return (uint32_t)bop_max_u64(bop_min_u64(shortest / 8, 1000), 1);
}

static void on_stopped(struct bop_post *post)
{
    struct bop_http_server *server = BOP_CONTAINER_OF(post, struct bop_http_server, stopped);

    if (!server->destroyed && server->on_stopped != NULL) {
        server->on_stopped(server, server->stopped_user);
    }
    bop__http_server_unref(server);
}

void bop__http_server_look_stopped(struct bop_http_server *server)
{
    if (server->stopping && !server->stop_posted && server->counters.connections_now == 0 &&
        server->guests_staying == 0) {
        server->stop_posted = true;
        server->references++;
        bop_timer_stop(server->loop, &server->deadline);
        bop_loop_post(server->loop, &server->stopped);
    }
}

static void kill_all(struct bop_http_server *server)
{
    for (unsigned i = 0; i < BOP__HTTP_WHEEL_SLOTS; i++) {
        BOP_LIST_FOR_EACH_SAFE(link, &server->wheel[i]) {
            bop__http_conn_kill(BOP_CONTAINER_OF(link, struct bop__http_conn, link));
        }
    }
    BOP_LIST_FOR_EACH_SAFE(guest_link, &server->guests) {
        struct bop__http_guest *guest = BOP_CONTAINER_OF(guest_link, struct bop__http_guest, link);

        if (guest->stays) {
            guest->on_kill(guest);
        }
    }
}

static void on_deadline(struct bop_timer *timer)
{
    kill_all(BOP_CONTAINER_OF(timer, struct bop_http_server, deadline));
}

int bop_http_server_create(struct bop_loop *loop, const struct bop_http_server_options *options,
                           struct bop_http_server **out_server)
{
    struct bop_allocator *allocator = bop_loop_allocator(loop);
    struct bop_http_server *server;
    int rc;

    if (options != NULL && options->server_name != NULL &&
        (strlen(options->server_name) > BOP__HTTP_SERVER_NAME_MAX ||
         !bop_http_header_is_valid(bop_slice_cstr("Server"),
                                   bop_slice_cstr(options->server_name)))) {
        return BOP_EINVAL;
    }
    server = (struct bop_http_server *)bop_alloc_zeroed(allocator, sizeof(*server));
    if (server == NULL) {
        return BOP_ENOMEM;
    }
    rc = bop_router_create(allocator, &server->router);
    if (rc != 0) {
        bop_free(allocator, server, sizeof(*server));
        return rc;
    }
    server->loop = loop;
    server->allocator = allocator;
    server->options = with_defaults(options);
    server->references = 1;
    server->tick_ms = tick_of(&server->options);
    bop_list_init(&server->routes);
    bop_list_init(&server->listeners);
    bop_list_init(&server->files);
    bop_list_init(&server->guests);
    for (unsigned i = 0; i < BOP__HTTP_WHEEL_SLOTS; i++) {
        bop_list_init(&server->wheel[i]);
    }
    bop_timer_init(&server->tick, bop__http_wheel_turn);
    bop_timer_init(&server->deadline, on_deadline);
    server->stopped.fn = on_stopped;
    *out_server = server;
    return 0;
}

static void free_guests(struct bop_http_server *server)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(&server->guests)) != NULL) {
        struct bop__http_guest *guest = BOP_CONTAINER_OF(link, struct bop__http_guest, link);

        guest->server = NULL;
        guest->on_free(guest);
    }
}

void bop__http_server_unref(struct bop_http_server *server)
{
    if (--server->references > 0) {
        return;
    }
    bop_timer_stop(server->loop, &server->tick);
    bop_timer_stop(server->loop, &server->deadline);
    bop__exchange_free_pool(server);
    bop__http_deflate_free(server);
    bop_router_destroy(server->router);
    bop__http_routes_free(server);
    free_guests(server);
    bop_free(server->allocator, server, sizeof(*server));
}

static void count_listener(const struct bop__http_listener *listener,
                           struct bop_http_counters *counters)
{
    struct bop_listener_counters of_it = bop_listener_counters(listener->listener);

    counters->refused += of_it.refused;
    counters->out_of_files += of_it.out_of_files;
}

static void close_listeners(struct bop_http_server *server)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(&server->listeners)) != NULL) {
        struct bop__http_listener *listener = BOP_CONTAINER_OF(link, struct bop__http_listener,
                                                               link);

        count_listener(listener, &server->counters);
        bop_listener_close(listener->listener);
        bop_free(server->allocator, listener, sizeof(*listener));
    }
}

void bop_http_server_destroy(struct bop_http_server *server)
{
    if (server == NULL) {
        return;
    }
    server->destroyed = true;
    bop__http_metrics_end(server);
    close_listeners(server);
    kill_all(server);
    bop__files_free_all(server);
    bop__http_server_unref(server);
}

/* What waits for a request goes; what has one is told with its answer. */
static void ask_to_leave(struct bop__http_conn *conn)
{
    if (conn->phase == BOP__HTTP_IDLE || conn->phase == BOP__HTTP_PROXY) {
        bop__http_conn_leave(conn);
    }
}

void bop_http_server_stop(struct bop_http_server *server, uint64_t deadline_ms,
                          void (*stopped)(struct bop_http_server *server, void *user), void *user)
{
    if (server->stopping) {
        return;
    }
    server->stopping = true;
    server->on_stopped = stopped;
    server->stopped_user = user;
    close_listeners(server);
    for (unsigned i = 0; i < BOP__HTTP_WHEEL_SLOTS; i++) {
        BOP_LIST_FOR_EACH_SAFE(link, &server->wheel[i]) {
            ask_to_leave(BOP_CONTAINER_OF(link, struct bop__http_conn, link));
        }
    }
    BOP_LIST_FOR_EACH_SAFE(guest_link, &server->guests) {
        struct bop__http_guest *guest = BOP_CONTAINER_OF(guest_link, struct bop__http_guest, link);

        if (guest->stays) {
            guest->on_stop(guest, deadline_ms);
        }
    }
    bop__http_server_look_stopped(server);
    if (!server->stop_posted) {
        bop_timer_start(server->loop, &server->deadline, deadline_ms);
    }
}

int bop_http_listen(struct bop_http_server *server, const struct bop_http_listen_options *options,
                    struct bop_listener **out_listener, struct bop_error *err)
{
    struct bop__http_listener *listener;
    int rc;

    if (server->stopping) {
        bop_error_set(err, BOP_ECLOSED, "listen: the server is stopping");
        return BOP_ECLOSED;
    }
    listener = (struct bop__http_listener *)bop_alloc_zeroed(server->allocator, sizeof(*listener));
    if (listener == NULL) {
        bop_error_set(err, BOP_ENOMEM, "listen");
        return BOP_ENOMEM;
    }
    listener->server = server;
    listener->proxy_protocol = options->proxy_protocol;
    listener->tls = options->proxy_protocol ? options->tls : NULL;
    rc = bop_listen(server->loop,
                    &(struct bop_listen_options){
                        .host = options->host,
                        .port = options->port,
                        .path = options->path,
                        .tls = options->proxy_protocol ? NULL : options->tls,
                        .connections_max = options->connections_max,
                        .reuse_port = options->reuse_port,
                        .limits = {.write_high = server->options.write_high,
                                   .write_low = server->options.write_high / 2},
                        .user_bytes = options->proxy_protocol ? sizeof(struct bop__http_proxied)
                                                              : BOP__HTTP_BLOCK_BYTES,
                        .on_accept = bop__http_accept,
                        .user = listener,
                    },
                    &listener->listener, err);
    if (rc != 0) {
        bop_free(server->allocator, listener, sizeof(*listener));
        return rc;
    }
    bop_list_push_back(&server->listeners, &listener->link);
    if (out_listener != NULL) {
        *out_listener = listener->listener;
    }
    return 0;
}

struct bop_http_counters bop_http_counters(const struct bop_http_server *server)
{
    struct bop_http_counters counters = server->counters;

    BOP_LIST_FOR_EACH(link, &server->listeners) {
        count_listener(BOP_CONTAINER_OF(link, struct bop__http_listener, link), &counters);
    }
    return counters;
}

void bop__http_guest_join(struct bop_http_server *server, struct bop__http_guest *guest)
{
    guest->server = server;
    guest->stays = true;
    server->guests_staying++;
    bop_list_push_back(&server->guests, &guest->link);
}

void bop__http_guest_leave(struct bop__http_guest *guest)
{
    if (guest->stays) {
        guest->stays = false;
        guest->server->guests_staying--;
        bop__http_server_look_stopped(guest->server);
    }
}
