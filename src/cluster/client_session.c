/*
 * The client's session: opened when the first write wants it, resumed on each new
 * connection, kept alive while nothing is written, replaced when it is lost.
 *
 *     NONE --want--> OPENING --OK--> OPEN
 *      ^               |              |
 *      +---------------+--------------+
 *        refused, unlinked   lost
 *
 * A lost session may be the last one's doing: an answer that names no session
 * (resume, alive) counts only if it is about the session there is now.
 */
#include "client_lock.h"

static void set_none(struct bop_client *client)
{
    client->session.state = CLIENT_SESSION_NONE;
    client->session.id = 0;
    client->session.last_sequence = 0;
}

static void encode_open(const struct bop_client *client, enum bop_wire_kind kind,
                        struct bop_writer *writer)
{
    struct bop_session_start_request start = {.timeout_ms = client->session_timeout_ms,
                                              .grace_ms = client->session_grace_ms};
    struct bop_session_open_request open = {.timeout_ms = client->session_timeout_ms};

    if (kind == BOP_WIRE_KIND_SESSION_START_REQUEST) {
        memcpy(start.token, client->session.token, sizeof(start.token));
        bop_session_start_request_encode(writer, &start);
    } else {
        memcpy(open.token, client->session.token, sizeof(open.token));
        bop_session_open_request_encode(writer, &open);
    }
}

void bop__client_session_want(struct bop_client *client)
{
    struct client_session *session = &client->session;
    enum bop_wire_kind kind = client->session_grace_ms > 0 ? BOP_WIRE_KIND_SESSION_START_REQUEST
                                                           : BOP_WIRE_KIND_SESSION_OPEN_REQUEST;
    struct bop_writer writer;
    struct bop_buf *buf;
    size_t at;

    if (session->state != CLIENT_SESSION_NONE || !bop__client_ready(client)) {
        return;
    }
    if (client->secret(session->token, sizeof(session->token)) != 0) {
        bop__client_pause(&client->writes); /* And then again. */
        return;
    }
    buf = bop__client_frame_begin(client, &at);
    if (!buf) {
        return;
    }
    writer = bop_writer(buf);
    encode_open(client, kind, &writer);
    if (bop__client_frame_end(client, buf, at, kind, kind, writer.code)) {
        session->state = CLIENT_SESSION_OPENING;
    }
}

/* Resume and close say the same, under different kinds. */
static bool send_token(struct bop_client *client, enum bop_wire_kind kind)
{
    struct bop_session_request message = {.session = client->session.id};
    struct bop_writer writer;
    struct bop_buf *buf;
    size_t at;

    memcpy(message.token, client->session.token, sizeof(message.token));
    buf = bop__client_frame_begin(client, &at);
    if (!buf) {
        return false;
    }
    writer = bop_writer(buf);
    bop_session_request_encode(&writer, &message);
    return bop__client_frame_end(client, buf, at, kind, kind, writer.code);
}

void bop__client_session_resume(struct bop_client *client)
{
    struct client_session *session = &client->session;

    if (session->state == CLIENT_SESSION_OPEN && session->resume_asked == 0 &&
        bop__client_ready(client) && send_token(client, BOP_WIRE_KIND_SESSION_RESUME_REQUEST)) {
        session->resume_asked = session->id;
        session->life_ms = bop_loop_now_ms(client->loop);
    }
}

void bop__client_session_close(struct bop_client *client)
{
    if (client->session.state == CLIENT_SESSION_OPEN && bop__client_ready(client)) {
        /* If it cannot be said the session expires. */
        BOP_IGNORE(send_token(client, BOP_WIRE_KIND_SESSION_CLOSE_REQUEST));
    }
    set_none(client);
}

void bop__client_session_unlinked(struct bop_client *client)
{
    client->session.resume_asked = 0;
    client->session.alive_asked = 0;
    if (client->session.state == CLIENT_SESSION_OPENING) {
        set_none(client);
    }
}

void bop__client_session_lost(struct bop_client *client)
{
    /* First, so that what the callbacks write waits for the next session. */
    set_none(client);
    client->info.sessions_lost++;
    bop_log(client->log, BOP_LOG_WARN, "client", "session lost outstanding=%zu",
            client->outstanding);
    bop__client_locks_lost(client);
    bop__client_fail_writes(client, true, BOP_ESESSION);
    client->calling = true;
    bop__client_presences_lost(client);
    if (client->on_session_lost) {
        client->on_session_lost(client->lost_user);
    }
    client->calling = false;
    bop__client_flush(client);
}

void bop__client_session_tick(struct bop_client *client)
{
    struct client_session *session = &client->session;
    uint64_t now = bop_loop_now_ms(client->loop);
    struct bop_writer writer;
    struct bop_buf *buf;
    size_t at;

    if (session->state != CLIENT_SESSION_OPEN || !bop__client_ready(client) ||
        session->alive_asked != 0 ||
        now + client->tick_ms < session->life_ms + session->timeout_ms / 3) {
        return;
    }
    buf = bop__client_frame_begin(client, &at);
    if (!buf) {
        return;
    }
    writer = bop_writer(buf);
    bop_session_alive_request_encode(&writer, session->id);
    if (bop__client_frame_end(client, buf, at, BOP_WIRE_KIND_SESSION_ALIVE_REQUEST,
                              BOP_WIRE_KIND_SESSION_ALIVE_REQUEST, writer.code)) {
        session->alive_asked = session->id;
        session->life_ms = now;
    }
}

static int decode_opened(const struct bop_wire_frame *frame, struct bop_session_start_response *out)
{
    struct bop_session_open_response open;
    int rc;

    if (frame->kind == BOP_WIRE_KIND_SESSION_START_RESPONSE) {
        return bop_session_start_response_decode(frame->payload, out);
    }
    rc = bop_session_open_response_decode(frame->payload, &open);
    *out = (struct bop_session_start_response){
        .status = open.status, .session = open.session, .timeout_ms = open.timeout_ms};
    return rc;
}

static int on_opened(struct bop_client *client, const struct bop_wire_frame *frame)
{
    struct client_session *session = &client->session;
    struct bop_session_start_response message = {0};

    if (decode_opened(frame, &message) < 0 || session->state != CLIENT_SESSION_OPENING) {
        return BOP_EPROTOCOL;
    }
    set_none(client);
    switch (message.status) {
    case BOP_STATUS_OK:
        if (message.session == 0 || message.timeout_ms == 0) {
            return BOP_EPROTOCOL;
        }
        session->state = CLIENT_SESSION_OPEN;
        session->id = message.session;
        session->timeout_ms = message.timeout_ms;
        session->life_ms = bop_loop_now_ms(client->loop);
        client->writes.pause_ms = CLIENT_PAUSE_MIN_MS;
        client->info.sessions_opened++;
        bop__client_flush(client);
        return 0;
    case BOP_STATUS_TOO_OLD:
        if (client->session_grace_ms > 0) {
            client->session_grace_ms = 0;
            bop__client_flush(client);
            return 0;
        }
        return BOP_EPROTOCOL;
    case BOP_STATUS_RETRY:
    case BOP_STATUS_BUSY:
        client->info.retries++;
        bop__client_pause(&client->writes);
        return 0;
    default:
        if (message.status == BOP_STATUS_DENIED) {
            bop__client_denied(client, bop_slice(NULL, 0));
        }
        bop__client_fail_writes(client, false, bop_status_code(message.status));
        return 0;
    }
}

/* The first one of the lane is the first to have been sent. */
static bool has_sent_writes(const struct bop_client *client)
{
    const struct bop_list *requests = &client->writes.requests;

    return !bop_list_empty(requests) &&
           BOP_CONTAINER_OF(requests->next, struct client_request, link)->sequence != 0;
}

/* The answer to a question about the session `asked`. */
static int on_status(struct bop_client *client, struct bop_slice payload, uint64_t asked)
{
    uint8_t status;

    if (bop_session_status_decode(payload, &status) < 0) {
        return BOP_EPROTOCOL;
    }
    /* A node that lags may not know the session yet, so only the log's word, the
     * answer to a write, ends one that has writes under way. Without any, a new
     * session is as good. RETRY and the like decide nothing. */
    if (asked != 0 && asked == client->session.id && !has_sent_writes(client) &&
        (status == BOP_STATUS_NO_SESSION || status == BOP_STATUS_REFUSED)) {
        bop__client_session_lost(client);
    }
    return 0;
}

int bop__client_session_answer(struct bop_client *client, const struct bop_wire_frame *frame)
{
    struct client_session *session = &client->session;
    uint64_t asked;

    switch (frame->kind) {
    case BOP_WIRE_KIND_SESSION_OPEN_RESPONSE:
    case BOP_WIRE_KIND_SESSION_START_RESPONSE:
        return on_opened(client, frame);
    case BOP_WIRE_KIND_SESSION_RESUME_RESPONSE:
        asked = session->resume_asked;
        session->resume_asked = 0;
        return on_status(client, frame->payload, asked);
    case BOP_WIRE_KIND_SESSION_ALIVE_RESPONSE:
        asked = session->alive_asked;
        session->alive_asked = 0;
        return on_status(client, frame->payload, asked);
    default:
        return BOP_EPROTOCOL;
    }
}
