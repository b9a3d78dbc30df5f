/*
 * What a client must show before it is served, asked before anything else is looked
 * at. Kinds that nobody thought of here want an administrator.
 */
#include "service_internal.h"

#include <stdio.h>

/* Answered to whoever asks: they tell nothing but who leads. */
static bool is_for_strangers(uint16_t kind)
{
    return kind == BOP_WIRE_KIND_HELLO_REQUEST || kind == BOP_WIRE_KIND_AUTH_REQUEST ||
           kind == BOP_WIRE_KIND_PING;
}

/* For everybody with a token; rights are asked for by name, where there are names. */
static bool is_for_clients(uint16_t kind)
{
    return kind <= BOP_WIRE_KIND_STATE_SYNC_ACK ||
           (kind >= BOP_WIRE_KIND_SESSION_OPEN_REQUEST && kind <= BOP_WIRE_KIND_STATUS_REQUEST) ||
           (kind >= SERVICE_WATCH_KINDS && kind < SERVICE_WATCH_KINDS_END) ||
           (kind >= SERVICE_VIEW_KINDS && kind < SERVICE_VIEW_KINDS_END);
}

static void respond_denied(struct service_conn *conn, const struct bop_wire_frame *frame,
                           const char *text)
{
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop_write_u8(&writer, BOP_STATUS_DENIED);
        if (text) {
            bop_write_bytes(&writer, bop_slice_cstr(text));
        }
        bop__service_end(conn, out, at, (enum bop_wire_kind)(frame->kind + 1), BOP_WIRE_RESPONSE,
                         frame->request, &writer);
    }
}

void bop__service_deny(struct service_conn *conn, const struct bop_wire_frame *frame,
                       const char *text)
{
    char whole[AUTH_TEXT_MAX + 20];

    switch (frame->kind) {
    case BOP_WIRE_KIND_SESSION_OPEN_REQUEST:
    case BOP_WIRE_KIND_SESSION_START_REQUEST:
        bop__service_answer_open(conn, frame->kind, frame->request,
                                 &(struct bop_session_start_response){.status = BOP_STATUS_DENIED});
        break;
    case BOP_WIRE_KIND_SESSION_RESUME_REQUEST:
    case BOP_WIRE_KIND_SESSION_CLOSE_REQUEST:
    case BOP_WIRE_KIND_SESSION_ALIVE_REQUEST:
    case BOP_WIRE_KIND_AUTH_REQUEST:
        respond_denied(conn, frame, NULL);
        break;
    case BOP_WIRE_KIND_WRITE_REQUEST:
    case BOP_WIRE_KIND_READ_REQUEST:
    case BOP_WIRE_KIND_VIEW_READ_REQUEST:
        respond_denied(conn, frame, text);
        break;
    case BOP_WIRE_KIND_WATCH_OPEN_REQUEST:
    case BOP_WIRE_KIND_WATCH_CLOSE_REQUEST:
    case BOP_WIRE_KIND_VIEW_OPEN_REQUEST:
    case BOP_WIRE_KIND_VIEW_CLOSE_REQUEST:
        bop__service_deny_watch(conn, frame);
        break;
    case BOP_WIRE_KIND_WATCH_ACK:
        break; /* Nobody waits for an answer. */
    default:
        snprintf(whole, sizeof(whole), "access denied: %s", text);
        bop__service_error(conn, frame->request, whole);
    }
}

bool bop__service_admits_slowly(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    char text[AUTH_TEXT_MAX];
    bool for_clients = is_for_clients(frame->kind);

    if (is_for_strangers(frame->kind) ||
        (for_clients ? bop__auth_known(&conn->who)
                     : bop__auth_allows_all(&conn->who, BOP_RIGHT_ADMIN))) {
        return true;
    }
    bop__service_deny(
        conn, frame,
        bop__auth_refusal(&conn->who, BOP_RIGHT_ADMIN, bop_slice(NULL, 0), true, text));
    return false;
}

/* The locks of a session are told to whoever has shown that it is his. */
static bool is_own(struct service_conn *conn, const struct bop_operation *operation)
{
    return operation->op == BOP_OP_LOCK_OWNED && conn->session != 0 &&
           operation->session == conn->session && bop__auth_known(&conn->who);
}

bool bop__service_allows_slowly(struct service_conn *conn, const struct bop_wire_frame *frame,
                                const struct bop_operation *operation)
{
    char text[AUTH_TEXT_MAX];

    if (bop__auth_allows_operation(&conn->who, operation) || is_own(conn, operation)) {
        return true;
    }
    bop__service_deny(conn, frame, bop__auth_operation_refusal(&conn->who, operation, text));
    return false;
}

int bop__service_show_token(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    uint8_t status = BOP_STATUS_OK;
    struct bop_buf *out;
    struct bop_writer writer;
    size_t at;

    if (frame->payload.size == 0 || frame->payload.size > BOP_AUTH_TOKEN_MAX) {
        return BOP_EMALFORMED;
    }
    if (!bop__auth_show_token(&conn->who, frame->payload)) {
        status = BOP_STATUS_DENIED;
        if (conn->io->complain) {
            conn->io->complain(conn->user, "it shows a token that is not known");
        }
    }
    out = bop__service_begin(conn, &at);
    if (out) {
        writer = bop_writer(out);
        bop_write_u8(&writer, status);
        bop__service_end(conn, out, at, BOP_WIRE_KIND_AUTH_RESPONSE, BOP_WIRE_RESPONSE,
                         frame->request, &writer);
    }
    /* Who goes on guessing has to connect anew. */
    return conn->who.failures < AUTH_FAILURES_MAX ? 0 : BOP_EDENIED;
}

void bop__service_show_certificate(struct service_conn *conn, const char *names)
{
    BOP_IGNORE(bop__auth_show_certificate(&conn->who, names)); /* There may come a token. */
}

bool bop__service_knows(struct service_conn *conn)
{
    return bop__auth_known(&conn->who);
}
