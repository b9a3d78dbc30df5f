/* A peer: libwebsockets as Debian has it, "Hello world!" on HTTP, echo on WebSocket.
 *
 *      net_lws PORT
 */
#include <libwebsockets.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX (1u << 16)

struct session {
    size_t size;
    int binary;
    unsigned char bytes[]; /* LWS_PRE, then MESSAGE_MAX. */
};

static int on_http(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                   size_t size)
{
    static const char body[] = "Hello world!";
    uint8_t buffer[LWS_PRE + 512], *start = buffer + LWS_PRE, *at = start;
    uint8_t *end = buffer + sizeof(buffer) - 1;

    if (reason == LWS_CALLBACK_HTTP) {
        if (lws_add_http_common_headers(wsi, HTTP_STATUS_OK, "text/plain", sizeof(body) - 1, &at,
                                        end) ||
            lws_finalize_write_http_header(wsi, start, &at, end)) {
            return 1;
        }
        lws_callback_on_writable(wsi);
        return 0;
    }
    if (reason == LWS_CALLBACK_HTTP_WRITEABLE) {
        memcpy(start, body, sizeof(body) - 1);
        if (lws_write(wsi, start, sizeof(body) - 1, LWS_WRITE_HTTP_FINAL) < 0) {
            return 1;
        }
        return lws_http_transaction_completed(wsi) ? -1 : 0;
    }
    return lws_callback_http_dummy(wsi, reason, user, in, size);
}

static int on_echo(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                   size_t size)
{
    struct session *session = (struct session *)user;

    if (reason == LWS_CALLBACK_RECEIVE) {
        if (session->size + size > MESSAGE_MAX) {
            return -1;
        }
        memcpy(session->bytes + LWS_PRE + session->size, in, size);
        session->size += size;
        session->binary = lws_frame_is_binary(wsi);
        if (lws_is_final_fragment(wsi) && lws_remaining_packet_payload(wsi) == 0) {
            lws_callback_on_writable(wsi);
        }
    } else if (reason == LWS_CALLBACK_SERVER_WRITEABLE && session->size > 0) {
        size_t whole = session->size;

        session->size = 0;
        if (lws_write(wsi, session->bytes + LWS_PRE, whole,
                      session->binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT) < (int)whole) {
            return -1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct lws_protocols protocols[] = {
        {.name = "http", .callback = on_http},
        {.name = "echo",
         .callback = on_echo,
         .per_session_data_size = sizeof(struct session) + LWS_PRE + MESSAGE_MAX,
         .rx_buffer_size = MESSAGE_MAX},
        {.name = NULL},
    };
    struct lws_context_creation_info info = {.port = argc > 1 ? atoi(argv[1]) : 0,
                                             .protocols = protocols,
                                             .pt_serv_buf_size = MESSAGE_MAX,
                                             .iface = "127.0.0.1"};
    static const struct lws_protocol_vhost_options echo_default = {.name = "default", .value = "1"};
    static const struct lws_protocol_vhost_options pvo = {
        .name = "echo", .value = "", .options = &echo_default};
    struct lws_context *context;

    info.pvo = &pvo; /* Upgrades that name no subprotocol get echo. */
    lws_set_log_level(LLL_ERR, NULL);
    context = lws_create_context(&info);
    if (context == NULL) {
        return 1;
    }
    while (lws_service(context, 0) >= 0) {
    }
    lws_context_destroy(context);
    return 0;
}
