/*
 * Servers: a route's requests become connections.
 *
 * The request is checked by the codec; here it is decided who may come, and what
 * is agreed on. The connection then takes over the HTTP connection's block. The
 * route's group is a guest of the server, told when it stops.
 */
#include "conn.h"

/** What on_upgrade may change. */
struct bop__ws_upgrade {
    struct bop_http_exchange *http;
    const struct bop_http_head *head;
    const char *protocol;
};

/* ---- The server's stop ---- */

static struct bop__ws_group *group_of(struct bop__http_guest *guest)
{
    return BOP_CONTAINER_OF(guest, struct bop__ws_group, guest);
}

static void each(struct bop__ws_group *group, void (*fn)(struct bop__ws *ws))
{
    for (unsigned i = 0; i < BOP__WS_WHEEL_SLOTS; i++) {
        BOP_LIST_FOR_EACH_SAFE(link, &group->wheel[i]) {
            fn(BOP_CONTAINER_OF(link, struct bop__ws, link));
        }
    }
}

static void say_going_away(struct bop__ws *ws)
{
    bop__ws_begin_close(ws, BOP_WS_GOING_AWAY, bop_slice(NULL, 0));
}

static void on_stop(struct bop__http_guest *guest, uint64_t deadline_ms)
{
    struct bop__ws_group *group = group_of(guest);

    group->stopping = true;
    each(group, say_going_away);
    if (group->connections == 0) {
        bop__http_guest_leave(guest);
    }
}

static void on_kill(struct bop__http_guest *guest)
{
    struct bop__ws_group *group = group_of(guest);

    group->stopping = true;
    each(group, bop__ws_cut);
    bop__http_guest_leave(guest);
}

static void on_free(struct bop__http_guest *guest)
{
    struct bop__ws_group *group = group_of(guest);

    group->given = NULL;
    bop__ws_group_release(group);
}

/* The first digest makes OpenSSL set itself up, which takes milliseconds and megabytes: not when
 * the first client waits. */
static void warm_up(void)
{
    static const char key[BOP_WS_KEY_SIZE + 1] = "dGhlIHNhbXBsZSBub25jZQ==";
    char accept[BOP_WS_ACCEPT_SIZE + 1];

    bop_ws_accept_key(key, accept);
}

static int join(struct bop_http_server *server, const struct bop_ws_options *options, void *user,
                struct bop__ws_group **out_group)
{
    struct bop__ws_group *group;
    int rc = bop__ws_group_create(server->loop, options, false, &group);

    if (rc != 0) {
        return rc;
    }
    warm_up();
    group->route_user = user;
    group->guest.on_stop = on_stop;
    group->guest.on_kill = on_kill;
    group->guest.on_free = on_free;
    bop__http_guest_join(server, &group->guest);
    *out_group = group;
    return 0;
}

/* The group of bop_ws_accept(), made with the first. */
static int find_group(struct bop_http_server *server, const struct bop_ws_options *options,
                      struct bop__ws_group **out_group)
{
    BOP_LIST_FOR_EACH(link, &server->guests) {
        struct bop__http_guest *guest = BOP_CONTAINER_OF(link, struct bop__http_guest, link);

        if (guest->on_stop == on_stop && group_of(guest)->given == options) {
            *out_group = group_of(guest);
            return 0;
        }
    }
    return join(server, options, NULL, out_group);
}

/* ---- The handshake ---- */

/* Answer what cannot be opened. */
static void refuse(struct bop_http_exchange *http, unsigned status, const char *why)
{
    struct bop__exchange *ex = bop__exchange_of(http);
    int rc = 0;

    if (ex == NULL) {
        return;
    }
    if (status == 405) {
        rc = bop__exchange_add_header(ex, "Allow", bop_slice_cstr("GET"));
    } else if (status == 426) {
        rc = bop__exchange_add_header(ex, "Upgrade", bop_slice_cstr("websocket"));
        if (rc == 0) {
            rc = bop__exchange_add_header(ex, "Connection", bop_slice_cstr("Upgrade"));
        }
        if (rc == 0) {
            rc = bop__exchange_add_header(ex, "Sec-WebSocket-Version", bop_slice_cstr("13"));
        }
    }
    if (rc != 0) {
        bop_http_close(http);
    } else {
        bop__exchange_reply_text(ex, status, why != NULL ? why : bop_http_reason(status));
    }
}

/* A client that sends no Origin is no browser, and is not led here by somebody's page. */
static bool origin_is_allowed(const struct bop_ws_options *options,
                              const struct bop_http_head *head)
{
    struct bop_slice origin = bop_http_known(head, BOP_HTTP_ORIGIN);

    if (options->origins == NULL || origin.data == NULL) {
        return true;
    }
    for (size_t i = 0; options->origins[i] != NULL; i++) {
        if (bop_slice_equal(origin, bop_slice_cstr(options->origins[i]))) {
            return true;
        }
    }
    return false;
}

static const char *choose_protocol(const struct bop_ws_options *options,
                                   const struct bop_http_head *head)
{
    size_t count = 0;

    if (options->protocols == NULL) {
        return NULL;
    }
    while (options->protocols[count] != NULL) {
        count++;
    }
    return bop_ws_protocol_choose(head, options->protocols, count);
}

static int add_headers(struct bop_http_exchange *http, const char *accept, const char *protocol,
                       const char *extensions)
{
    int rc = bop_http_header(http, "Sec-WebSocket-Accept", bop_slice_cstr(accept));

    if (rc == 0 && protocol != NULL) {
        rc = bop_http_header(http, "Sec-WebSocket-Protocol", bop_slice_cstr(protocol));
    }
    if (rc == 0 && extensions != NULL) {
        rc = bop_http_header(http, "Sec-WebSocket-Extensions", bop_slice_cstr(extensions));
    }
    return rc;
}

/* A name that the PROXY header gave is the peer's. */
static void keep_peer_name(struct bop__http_conn *conn, char name[BOP__HTTP_PEER_NAME_MAX])
{
    name[0] = '\0';
    if (conn->proxied) {
        memcpy(name, ((struct bop__http_proxied *)conn)->peer_name, BOP__HTTP_PEER_NAME_MAX);
    }
}

/* All is agreed on: the connection changes hands. */
static int take_over(struct bop_http_exchange *http, struct bop__ws_group *group,
                     const struct bop_ws_deflate *deflate, const char *protocol, void *user,
                     struct bop_ws **out_ws)
{
    struct bop__exchange *ex = bop__exchange_of(http);
    char peer_name[BOP__HTTP_PEER_NAME_MAX];
    struct bop__socket *sock;
    struct bop__ws *ws;
    int rc;

    keep_peer_name(ex->conn, peer_name);
    rc = bop__http_take_over(http, "websocket", &bop__ws_events, &sock);
    if (rc != 0) {
        return rc;
    }
    ws = (struct bop__ws *)bop__socket_block(sock);
    bop__ws_init(ws, group, user);
    if (peer_name[0] != '\0') {
        bop__socket_set_peer_name(sock, peer_name);
    }
    rc = bop__ws_set_deflate(ws, deflate);
    if (rc == 0) {
        rc = bop__ws_set_protocol(ws, protocol);
    }
    if (rc != 0) {
        bop__ws_cut(ws);
        return rc;
    }
    if (out_ws != NULL) {
        *out_ws = bop__ws_handle(ws);
    }
    bop__ws_opened(ws);
    return 0;
}

/* Ask the user. Returns 0 or the status to refuse with. */
static unsigned ask(struct bop__ws_group *group, struct bop__ws_upgrade *upgrade, void **user)
{
    unsigned status = 0;

    if (group->options.on_upgrade != NULL) {
        struct bop__ws_upgrade *outer = group->home->upgrade;

        group->home->upgrade = upgrade;
        status = group->options.on_upgrade(upgrade->http, upgrade->head, group->route_user, user);
        group->home->upgrade = outer;
    }
    return status;
}

static int answer(struct bop_http_exchange *http, const struct bop_http_head *head,
                  struct bop__ws_group *group, void *user, struct bop_ws **out_ws)
{
    const struct bop_ws_options *options = &group->options;
    struct bop_ws_deflate_options wanted = {
        .enabled = options->compression != BOP_WS_COMPRESS_NEVER,
        .server_bits = (uint8_t)options->deflate_window_bits,
        .server_takeover = options->compression == BOP_WS_COMPRESS_TAKEOVER,
        .client_takeover = options->compression == BOP_WS_COMPRESS_TAKEOVER,
    };
    struct bop__ws_upgrade upgrade = {.http = http, .head = head};
    struct bop_ws_deflate deflate = {.on = false};
    char accept[BOP_WS_ACCEPT_SIZE + 1], extensions[BOP_WS_EXTENSION_TEXT_MAX];
    const char *why = NULL;
    bool extends;
    unsigned status;
    int rc = bop_ws_request_check(head, accept, &why);

    if (rc != 0) {
        refuse(http, (unsigned)-rc, why);
        return BOP_EPROTOCOL;
    }
    if (!origin_is_allowed(options, head)) {
        refuse(http, 403, "this origin may not come here");
        return BOP_EDENIED;
    }
    if (group->stopping) {
        refuse(http, 503, "the server is stopping");
        return BOP_ECLOSED;
    }
    upgrade.protocol = choose_protocol(options, head);
    status = ask(group, &upgrade, &user);
    if (!bop_http_is_open(http)) {
        return BOP_ECLOSED; /* It was answered, or closed. */
    }
    if (status != 0) {
        refuse(http, status, NULL);
        return BOP_EDENIED;
    }
    extends = bop_ws_deflate_accept(head, &wanted, &deflate, extensions);
    rc = add_headers(http, accept, upgrade.protocol, extends ? extensions : NULL);
    if (rc == 0) {
        rc = take_over(http, group, &deflate, upgrade.protocol, user, out_ws);
    }
    if (rc != 0) {
        refuse(http, rc == BOP_EINVAL ? 400 : 503, NULL);
    }
    return rc;
}

static void on_request(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    struct bop__ws_group *group = (struct bop__ws_group *)user;

    BOP_IGNORE(answer(http, head, group, group->route_user, NULL)); /* The client was told. */
}

/* ---- For users ---- */

int bop_ws_route(struct bop_http_server *server, const char *pattern,
                 const struct bop_ws_options *options, void *user)
{
    struct bop__ws_group *group;
    int rc = join(server, options, user, &group);

    if (rc != 0) {
        return rc;
    }
    rc = bop_http_route(server, NULL, pattern, on_request, group);
    if (rc != 0) {
        bop__http_guest_leave(&group->guest);
        bop_list_remove(&group->guest.link);
        group->guest.server = NULL;
        bop__ws_group_release(group);
    }
    return rc;
}

int bop_ws_accept(struct bop_http_exchange *http, const struct bop_http_head *head,
                  const struct bop_ws_options *options, void *user, struct bop_ws **out_ws)
{
    struct bop_http_server *server = bop__http_server_of(http);
    struct bop__ws_group *group;
    int rc;

    if (server == NULL) {
        return BOP_ECLOSED;
    }
    rc = find_group(server, options, &group);
    if (rc != 0) {
        refuse(http, 503, NULL);
        return rc;
    }
    return answer(http, head, group, user, out_ws);
}

int bop_ws_accept_protocol(struct bop_http_exchange *http, const char *protocol)
{
    struct bop_loop *loop = bop_http_loop(http);
    struct bop__ws_upgrade *upgrade = loop != NULL && loop->ws != NULL ? loop->ws->upgrade : NULL;

    if (upgrade == NULL || upgrade->http != http ||
        bop_ws_protocol_choose(upgrade->head, &protocol, 1) == NULL) {
        return BOP_EINVAL;
    }
    upgrade->protocol = protocol;
    return 0;
}
