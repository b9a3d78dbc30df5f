/*
 * The messages of our own kinds, field by field in the order on the wire.
 *
 * A decoder reads all fields and checks once at the end: the reader has kept
 * the first failure. Nothing is copied but fixed-size fields; slices point into
 * the payload.
 */
#include <bop/wire.h>

/* A string of at most size_max bytes. */
static struct bop_slice read_text(struct bop_reader *reader, size_t size_max)
{
    struct bop_slice text = bop_read_string(reader);

    if (text.size > size_max) {
        reader->failed = true;
    }
    return text;
}

static void read_token(struct bop_reader *reader, uint8_t *out_token)
{
    struct bop_slice token = bop_read_raw(reader, BOP_TOKEN_SIZE);

    if (!reader->failed) {
        memcpy(out_token, token.data, BOP_TOKEN_SIZE);
    }
}

/* What no decoder has read yet: the last field of some messages. */
static struct bop_slice read_rest(struct bop_reader *reader)
{
    return bop_read_raw(reader, bop_reader_left(reader));
}

static int finish(const struct bop_reader *reader)
{
    return bop_reader_done(reader) ? 0 : BOP_EMALFORMED;
}

/* ---- Hello ---- */

int bop_hello_request_decode(struct bop_slice payload, struct bop_hello_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_hello_request message = {0};

    message.protocol = bop_read_u16(&reader);
    message.cluster = read_text(&reader, BOP_NAME_MAX);
    message.client = read_text(&reader, BOP_NAME_MAX);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_hello_request_encode(struct bop_writer *writer, const struct bop_hello_request *in)
{
    bop_write_u16(writer, in->protocol);
    bop_write_bytes(writer, in->cluster);
    bop_write_bytes(writer, in->client);
}

int bop_hello_response_decode(struct bop_slice payload, struct bop_hello_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_hello_response message = {0};

    message.status = bop_read_u8(&reader);
    message.protocol = bop_read_u16(&reader);
    message.node = bop_read_u64(&reader);
    message.cluster = read_text(&reader, BOP_NAME_MAX);
    message.leader = bop_read_u64(&reader);
    message.leader_address = read_text(&reader, BOP_ADDRESS_MAX);
    message.version = read_text(&reader, BOP_NAME_MAX);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_hello_response_encode(struct bop_writer *writer, const struct bop_hello_response *in)
{
    bop_write_u8(writer, in->status);
    bop_write_u16(writer, in->protocol);
    bop_write_u64(writer, in->node);
    bop_write_bytes(writer, in->cluster);
    bop_write_u64(writer, in->leader);
    bop_write_bytes(writer, in->leader_address);
    bop_write_bytes(writer, in->version);
}

/* ---- Sessions ---- */

int bop_session_open_request_decode(struct bop_slice payload, struct bop_session_open_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_session_open_request message = {0};

    message.timeout_ms = bop_read_u32(&reader);
    read_token(&reader, message.token);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_session_open_request_encode(struct bop_writer *writer,
                                     const struct bop_session_open_request *in)
{
    bop_write_u32(writer, in->timeout_ms);
    bop_write_raw(writer, bop_slice(in->token, BOP_TOKEN_SIZE));
}

int bop_session_open_response_decode(struct bop_slice payload,
                                     struct bop_session_open_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_session_open_response message = {0};

    message.status = bop_read_u8(&reader);
    message.session = bop_read_u64(&reader);
    message.timeout_ms = bop_read_u32(&reader);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_session_open_response_encode(struct bop_writer *writer,
                                      const struct bop_session_open_response *in)
{
    bop_write_u8(writer, in->status);
    bop_write_u64(writer, in->session);
    bop_write_u32(writer, in->timeout_ms);
}

int bop_session_start_request_decode(struct bop_slice payload,
                                     struct bop_session_start_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_session_start_request message = {0};

    message.timeout_ms = bop_read_u32(&reader);
    message.grace_ms = bop_read_u32(&reader);
    read_token(&reader, message.token);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_session_start_request_encode(struct bop_writer *writer,
                                      const struct bop_session_start_request *in)
{
    bop_write_u32(writer, in->timeout_ms);
    bop_write_u32(writer, in->grace_ms);
    bop_write_raw(writer, bop_slice(in->token, BOP_TOKEN_SIZE));
}

int bop_session_start_response_decode(struct bop_slice payload,
                                      struct bop_session_start_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_session_start_response message = {0};

    message.status = bop_read_u8(&reader);
    message.session = bop_read_u64(&reader);
    message.timeout_ms = bop_read_u32(&reader);
    message.grace_ms = bop_read_u32(&reader);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_session_start_response_encode(struct bop_writer *writer,
                                       const struct bop_session_start_response *in)
{
    bop_write_u8(writer, in->status);
    bop_write_u64(writer, in->session);
    bop_write_u32(writer, in->timeout_ms);
    bop_write_u32(writer, in->grace_ms);
}

int bop_session_request_decode(struct bop_slice payload, struct bop_session_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_session_request message = {0};

    message.session = bop_read_u64(&reader);
    read_token(&reader, message.token);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_session_request_encode(struct bop_writer *writer, const struct bop_session_request *in)
{
    bop_write_u64(writer, in->session);
    bop_write_raw(writer, bop_slice(in->token, BOP_TOKEN_SIZE));
}

int bop_session_alive_request_decode(struct bop_slice payload, uint64_t *out_session)
{
    struct bop_reader reader = bop_reader(payload);
    uint64_t session = bop_read_u64(&reader);

    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out_session = session;
    return 0;
}

void bop_session_alive_request_encode(struct bop_writer *writer, uint64_t session)
{
    bop_write_u64(writer, session);
}

int bop_session_status_decode(struct bop_slice payload, uint8_t *out_status)
{
    if (payload.size != 1) {
        return BOP_EMALFORMED;
    }
    *out_status = payload.data[0];
    return 0;
}

/* ---- Writes and reads ---- */

int bop_write_request_decode(struct bop_slice payload, struct bop_write_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_write_request message = {0};

    message.session = bop_read_u64(&reader);
    message.sequence = bop_read_u64(&reader);
    message.acked = bop_read_u64(&reader);
    message.operation = read_rest(&reader);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_write_request_encode(struct bop_writer *writer, const struct bop_write_request *in)
{
    bop_write_u64(writer, in->session);
    bop_write_u64(writer, in->sequence);
    bop_write_u64(writer, in->acked);
    bop_write_raw(writer, in->operation);
}

int bop_read_request_decode(struct bop_slice payload, struct bop_read_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_read_request message = {0};

    message.consistency = bop_read_u8(&reader);
    message.operation = read_rest(&reader);
    if (finish(&reader) < 0 || message.consistency > BOP_READ_STALE) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_read_request_encode(struct bop_writer *writer, const struct bop_read_request *in)
{
    bop_write_u8(writer, in->consistency);
    bop_write_raw(writer, in->operation);
}

int bop_reply_decode(struct bop_slice payload, struct bop_reply *out)
{
    if (payload.size == 0) {
        return BOP_EMALFORMED;
    }
    out->status = payload.data[0];
    out->result = bop_slice(payload.data + 1, payload.size - 1);
    return 0;
}

void bop_reply_encode(struct bop_writer *writer, const struct bop_reply *in)
{
    bop_write_u8(writer, in->status);
    bop_write_raw(writer, in->result);
}

/* ---- Status ---- */

static void read_status_peer(struct bop_reader *reader, struct bop_status_peer *out)
{
    out->id = bop_read_u64(reader);
    out->address = read_text(reader, BOP_ADDRESS_MAX);
    out->role = bop_read_u8(reader);
    out->connected = bop_read_bool(reader);
    out->match = bop_read_u64(reader);
    out->silent_ms = bop_read_u64(reader);
}

static void write_status_peer(struct bop_writer *writer, const struct bop_status_peer *in)
{
    bop_write_u64(writer, in->id);
    bop_write_bytes(writer, in->address);
    bop_write_u8(writer, in->role);
    bop_write_bool(writer, in->connected);
    bop_write_u64(writer, in->match);
    bop_write_u64(writer, in->silent_ms);
}

static void read_status_tag(struct bop_reader *reader, struct bop_status_tag *out)
{
    out->name = read_text(reader, BOP_NAME_MAX);
    out->live_bytes = bop_read_u64(reader);
    out->peak_bytes = bop_read_u64(reader);
    out->live_allocations = bop_read_u64(reader);
    out->allocations = bop_read_u64(reader);
    out->limit_bytes = bop_read_u64(reader);
}

static void write_status_tag(struct bop_writer *writer, const struct bop_status_tag *in)
{
    bop_write_bytes(writer, in->name);
    bop_write_u64(writer, in->live_bytes);
    bop_write_u64(writer, in->peak_bytes);
    bop_write_u64(writer, in->live_allocations);
    bop_write_u64(writer, in->allocations);
    bop_write_u64(writer, in->limit_bytes);
}

/* The numbers of a status response, in the order on the wire. */
#define STATUS_NUMBERS(EACH)                                                                       \
    EACH(term)                                                                                     \
    EACH(leader)                                                                                   \
    EACH(commit)                                                                                   \
    EACH(applied)                                                                                  \
    EACH(first_index)                                                                              \
    EACH(last_index)                                                                               \
    EACH(durable_index)                                                                            \
    EACH(snapshot_index)                                                                           \
    EACH(sessions)                                                                                 \
    EACH(clients)                                                                                  \
    EACH(uptime_ms)                                                                                \
    EACH(applied_digest)

int bop_status_response_decode(struct bop_slice payload, struct bop_status_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_status_response message = {0};

    message.node = bop_read_u64(&reader);
    message.cluster = read_text(&reader, BOP_NAME_MAX);
    message.version = read_text(&reader, BOP_NAME_MAX);
    message.state = bop_read_u8(&reader);
#define READ_NUMBER(field) message.field = bop_read_u64(&reader);
    STATUS_NUMBERS(READ_NUMBER)
#undef READ_NUMBER
    message.health = read_text(&reader, BOP_HEALTH_MAX);
    message.peer_count = bop_read_u8(&reader);
    if (message.peer_count > BOP_STATUS_PEERS_MAX) {
        return BOP_EMALFORMED;
    }
    for (unsigned i = 0; i < message.peer_count; i++) {
        read_status_peer(&reader, &message.peers[i]);
    }
    message.resident_bytes = bop_read_u64(&reader);
    message.committed_bytes = bop_read_u64(&reader);
    message.tag_count = bop_read_u8(&reader);
    if (message.tag_count > BOP_STATUS_TAGS_MAX) {
        return BOP_EMALFORMED;
    }
    for (unsigned i = 0; i < message.tag_count; i++) {
        read_status_tag(&reader, &message.tags[i]);
    }
    message.log_method = read_text(&reader, BOP_NAME_MAX);
    message.log_writes = bop_read_u64(&reader);
    message.log_writes_max = bop_read_u64(&reader);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_status_response_encode(struct bop_writer *writer, const struct bop_status_response *in)
{
    BOP_ASSERT(in->peer_count <= BOP_STATUS_PEERS_MAX && in->tag_count <= BOP_STATUS_TAGS_MAX);
    bop_write_u64(writer, in->node);
    bop_write_bytes(writer, in->cluster);
    bop_write_bytes(writer, in->version);
    bop_write_u8(writer, in->state);
#define WRITE_NUMBER(field) bop_write_u64(writer, in->field);
    STATUS_NUMBERS(WRITE_NUMBER)
#undef WRITE_NUMBER
    bop_write_bytes(writer, in->health);
    bop_write_u8(writer, in->peer_count);
    for (unsigned i = 0; i < in->peer_count; i++) {
        write_status_peer(writer, &in->peers[i]);
    }
    bop_write_u64(writer, in->resident_bytes);
    bop_write_u64(writer, in->committed_bytes);
    bop_write_u8(writer, in->tag_count);
    for (unsigned i = 0; i < in->tag_count; i++) {
        write_status_tag(writer, &in->tags[i]);
    }
    bop_write_bytes(writer, in->log_method);
    bop_write_u64(writer, in->log_writes);
    bop_write_u64(writer, in->log_writes_max);
}
