/*
 * Clients: connect, ask, and be open once the server's answer is good.
 *
 * The request is made when it is asked for, so that nothing of the caller's is
 * needed later; it waits with the connection until that is there.
 */
#include <stdio.h>

#include <bop/url.h>

#include "../text.h"
#include "conn.h"

#define TIMEOUT_MS_DEFAULT 30000

#define HOST_BYTES_MAX   256 /* Of a name, and its NUL. */
#define REASON_BYTES_MAX 160

struct bop__ws_handshake {
    struct bop_ws_request request; /* What the answer is checked against. */
    struct bop_buf bytes;          /* As sent. */
    char key[BOP_WS_KEY_SIZE + 1];
    uint64_t timeout_ms;
};

/** Where a URL leads. */
struct where {
    bool secure;
    uint16_t port;
    char host[HOST_BYTES_MAX];
    char host_header[HOST_BYTES_MAX + 8]; /* With brackets and ":65535". */
};

uint64_t bop__ws_handshake_timeout_ms(const struct bop__ws *ws)
{
    return ws->extra != NULL && ws->extra->handshake != NULL ? ws->extra->handshake->timeout_ms
                                                             : UINT64_MAX;
}

static void free_handshake(struct bop_allocator *allocator, struct bop__ws_handshake *handshake)
{
    bop_buf_deinit(&handshake->bytes);
    bop_free(allocator, handshake, sizeof(*handshake));
}

void bop__ws_handshake_free(struct bop__ws *ws)
{
    struct bop__ws_handshake *handshake = ws->extra->handshake;

    ws->extra->handshake = NULL;
    if (handshake != NULL) {
        free_handshake(ws->group->home->loop->allocator, handshake);
    }
}

/* ---- The answer ---- */

static size_t give_up(struct bop__ws *ws, struct bop_slice bytes, const char *why)
{
    bop__ws_set_reason(ws, bop_slice_cstr(why));
    bop__ws_cut(ws);
    return bytes.size;
}

static void on_connected(struct bop_socket *socket, void *user)
{
    struct bop__ws *ws = (struct bop__ws *)user;
    struct bop_buf *request = &ws->extra->handshake->bytes;

    if (bop__socket_write(bop__ws_sock(ws), bop_buf_slice(request)) != 0) {
        bop__ws_cut(ws);
    }
    bop_buf_deinit(request);
}

static size_t refused(struct bop__ws *ws, struct bop_slice bytes, const struct bop_http_head *head)
{
    char why[REASON_BYTES_MAX];

    snprintf(why, sizeof(why), "the server answered %u %.*s", head->status,
             (int)bop_min_u64(head->reason.size, 100), (const char *)head->reason.data);
    return give_up(ws, bytes, why);
}

/* The head is there: is it the yes that was asked for? */
static size_t judge(struct bop__ws *ws, struct bop_slice bytes, const struct bop_http_head *head)
{
    struct bop__socket *sock = bop__ws_sock(ws);
    struct bop__ws_handshake *handshake = ws->extra->handshake;
    struct bop_ws_deflate deflate = {.on = false};
    const char *protocol = NULL, *why = "not a WebSocket's answer";
    size_t used = head->size;

    if (head->status != 101) {
        return refused(ws, bytes, head);
    }
    if (bop_ws_response_check(head, &handshake->request, handshake->key, &protocol, &deflate,
                              &why) != 0) {
        return give_up(ws, bytes, why);
    }
    if (bop__ws_set_deflate(ws, &deflate) != 0 || bop__ws_set_protocol(ws, protocol) != 0) {
        return give_up(ws, bytes, "out of memory");
    }
    bop__ws_handshake_free(ws);
    sock->events = &bop__ws_events;
    bop__ws_opened(ws);
    if (used < bytes.size && sock->state == BOP__SOCKET_OPEN && !sock->leaving && !sock->paused) {
        used += bop__ws_on_data(bop__socket_handle(sock), ws,
                                bop_slice(bytes.data + used, bytes.size - used));
    }
    return used;
}

/* Returns 0 with a final head, BOP_ETRUNCATED, or an error, for which the connection was given up.
 * Those on the way, such as 103, are counted to out_skipped. */
static int read_answer(struct bop__ws *ws, struct bop_slice bytes, struct bop_http_head *head,
                       size_t *out_skipped)
{
    static const struct bop_http1_limits limits;
    const char *why = "malformed";
    char text[REASON_BYTES_MAX];
    int rc;

    *out_skipped = 0;
    do {
        rc = bop_http1_parse_response(
            bop_slice(bytes.data + *out_skipped, bytes.size - *out_skipped), &limits, BOP_HTTP_GET,
            head, &why);
        if (rc != 0 || head->status >= 200 || head->status == 101) {
            break;
        }
        *out_skipped += head->size;
    } while (*out_skipped < bytes.size);
    if (rc == 0 && head->status < 200 && head->status != 101) {
        return BOP_ETRUNCATED;
    }
    if (rc != 0 && rc != BOP_ETRUNCATED) {
        snprintf(text, sizeof(text), "the server's answer: %s", why);
        give_up(ws, bytes, text);
    }
    return rc;
}

static size_t on_answer(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    struct bop__ws *ws = (struct bop__ws *)user;
    struct bop_http_head head;
    size_t skipped;
    int rc = read_answer(ws, bytes, &head, &skipped);

    if (rc == BOP_ETRUNCATED) {
        return skipped;
    }
    if (rc != 0) {
        return bytes.size;
    }
    return skipped + judge(ws, bop_slice(bytes.data + skipped, bytes.size - skipped), &head);
}

static void on_answer_end(struct bop_socket *socket, void *user)
{
    give_up((struct bop__ws *)user, bop_slice(NULL, 0), "the server closed instead of answering");
}

static void on_closed(struct bop_socket *socket, void *user, int reason)
{
    bop__ws_events.on_close(socket, user, reason);
}

static const struct bop_socket_events handshake_events = {
    .on_open = on_connected,
    .on_data = on_answer,
    .on_end = on_answer_end,
    .on_close = on_closed,
};

/* ---- The request ---- */

static int read_url(const char *text, struct bop_url *url, struct where *where,
                    struct bop_error *err)
{
    char port[8] = "";

    if (bop_url_parse(bop_slice_cstr(text), url) != 0) {
        bop_error_set(err, BOP_EINVAL, "connect to %s: not a URL", text);
        return BOP_EINVAL;
    }
    where->secure = url->scheme.data != NULL && bop__text_is(url->scheme, "wss");
    if (!where->secure && (url->scheme.data == NULL || !bop__text_is(url->scheme, "ws"))) {
        bop_error_set(err, BOP_EINVAL, "connect to %s: neither ws:// nor wss://", text);
        return BOP_EINVAL;
    }
    if (url->host.size == 0 || url->host.size >= HOST_BYTES_MAX || url->user.data != NULL ||
        url->fragment.data != NULL) {
        bop_error_set(err, BOP_EINVAL, "connect to %s: a host it must have, no user, no fragment",
                      text);
        return BOP_EINVAL;
    }
    where->port = url->port;
    if (where->port != bop_url_default_port(url->scheme)) {
        snprintf(port, sizeof(port), ":%u", where->port);
    }
    snprintf(where->host, sizeof(where->host), "%.*s", (int)url->host.size,
             (const char *)url->host.data);
    snprintf(where->host_header, sizeof(where->host_header), "%s%s%s%s",
             url->is_ip_literal ? "[" : "", where->host, url->is_ip_literal ? "]" : "", port);
    return 0;
}

/* "/path?query" */
static int append_target(const struct bop_url *url, struct bop_buf *buf)
{
    int rc = url->path.size == 0 ? bop_buf_append(buf, "/", 1)
                                 : bop_buf_append(buf, url->path.data, url->path.size);

    if (rc == 0 && url->query.data != NULL) {
        rc = bop_buf_append(buf, "?", 1);
        if (rc == 0) {
            rc = bop_buf_append(buf, url->query.data, url->query.size);
        }
    }
    return rc == 0 ? bop_buf_append(buf, "", 1) : rc;
}

static struct bop_ws_deflate_options deflate_of(const struct bop_ws_options *options)
{
    bool takeover = options->compression == BOP_WS_COMPRESS_TAKEOVER;

    return (struct bop_ws_deflate_options){
        .enabled = options->compression != BOP_WS_COMPRESS_NEVER,
        .client_bits = (uint8_t)options->deflate_window_bits,
        .server_takeover = takeover,
        .client_takeover = takeover,
    };
}

/* Returns 0, BOP_EINVAL, BOP_ENOMEM or -errno. */
static int make_handshake(struct bop__ws_group *group, const struct bop_ws_connect_options *options,
                          const struct bop_url *url, const struct where *where,
                          struct bop__ws_handshake **out_handshake)
{
    struct bop_allocator *allocator = group->home->loop->allocator;
    struct bop__ws_handshake *handshake = (struct bop__ws_handshake *)bop_alloc_zeroed(
        allocator, sizeof(*handshake));
    struct bop_buf target;
    int rc;

    if (handshake == NULL) {
        return BOP_ENOMEM;
    }
    bop_buf_init(&handshake->bytes, allocator, 0);
    bop_buf_init(&target, allocator, 0);
    handshake->timeout_ms = options->timeout_ms != 0 ? options->timeout_ms : TIMEOUT_MS_DEFAULT;
    handshake->request.protocols = group->options.protocols;
    while (group->options.protocols != NULL &&
           group->options.protocols[handshake->request.protocol_count] != NULL) {
        handshake->request.protocol_count++;
    }
    handshake->request.deflate = deflate_of(&group->options);
    rc = append_target(url, &target);
    if (rc == 0) {
        struct bop_ws_request request = handshake->request;

        request.host = where->host_header;
        request.target = (const char *)target.data;
        request.headers = options->headers;
        request.header_count = options->header_count;
        rc = bop_ws_request_append(&request, &handshake->bytes, handshake->key);
    }
    bop_buf_deinit(&target);
    if (rc != 0) {
        free_handshake(allocator, handshake);
        return rc;
    }
    *out_handshake = handshake;
    return 0;
}

/* ---- Connecting ---- */

/* Begin, and make the socket's block a connection. The handshake is taken over on success. */
static int begin(struct bop__ws_group *group, const struct bop_ws_connect_options *options,
                 const struct where *where, struct bop__ws_handshake *handshake,
                 struct bop_tls *own_tls, struct bop__ws **out_ws, struct bop_error *err)
{
    struct bop_connect_options connect = {
        .host = options->unix_path == NULL ? where->host : NULL,
        .port = options->unix_path == NULL ? where->port : 0,
        .path = options->unix_path,
        .timeout_ms = handshake->timeout_ms,
        .tls = !where->secure    ? NULL
               : own_tls != NULL ? own_tls
                                 : options->tls,
        .tls_name = where->host,
        .limits = {.write_high = 64u << 10, .write_low = 32u << 10},
        .events = &handshake_events,
        .user_bytes = sizeof(struct bop__ws),
    };
    struct bop_socket *socket;
    struct bop__ws *ws;
    int rc = bop_connect(group->home->loop, &connect, &socket, err);

    if (rc != 0) {
        return rc;
    }
    ws = (struct bop__ws *)bop_socket_user(socket);
    if (bop__ws_extra(ws) == NULL) {
        bop__socket_discard(bop__ws_sock(ws));
        bop_error_set(err, BOP_ENOMEM, "connect to %s", options->url);
        return BOP_ENOMEM;
    }
    ws->extra->handshake = handshake;
    ws->extra->tls = own_tls;
    bop__ws_init(ws, group, options->user);
    *out_ws = ws;
    return 0;
}

int bop_ws_connect(struct bop_loop *loop, const struct bop_ws_connect_options *options,
                   struct bop_ws **out_ws, struct bop_error *err)
{
    struct bop__ws_handshake *handshake = NULL;
    struct bop_tls *own_tls = NULL;
    struct bop__ws_group *group;
    struct bop__ws *ws = NULL;
    struct where where;
    struct bop_url url;
    int rc = read_url(options->url, &url, &where, err);

    if (rc != 0) {
        return rc;
    }
    rc = bop__ws_client_group(loop, options->options, &group);
    if (rc != 0) {
        bop_error_set(err, rc, "connect to %s", options->url);
        return rc;
    }
    rc = make_handshake(group, options, &url, &where, &handshake);
    if (rc != 0) {
        bop_error_set(err, rc, "connect to %s", options->url);
    } else if (where.secure && options->tls == NULL) {
        rc = bop_tls_create(&(struct bop_tls_options){.server = false}, &own_tls, err);
    }
    if (rc == 0) {
        rc = begin(group, options, &where, handshake, own_tls, &ws, err);
    }
    if (rc != 0) {
        bop_tls_destroy(own_tls);
        if (handshake != NULL) {
            free_handshake(loop->allocator, handshake);
        }
    } else if (out_ws != NULL) {
        *out_ws = bop__ws_handle(ws);
    }
    bop__ws_group_release(group); /* The connection has its own reference. */
    return rc;
}
