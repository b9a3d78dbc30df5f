/*
 * Messages of our own kinds: golden payloads decode to these values and encode
 * to the same bytes; everything near them is refused.
 */
#include "wire_golden.h"

static bool token_is_golden(const uint8_t *token)
{
    for (uint8_t i = 0; i < BOP_TOKEN_SIZE; i++) {
        if (token[i] != i) {
            return false;
        }
    }
    return true;
}

TEST(wire_messages, hello_request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_HELLO_REQUEST);
    struct bop_hello_request message;

    REQUIRE_EQ(bop_hello_request_decode(payload, &message), 0);
    CHECK_EQ(message.protocol, 1);
    CHECK_SLICE_EQ(message.cluster, bytes("prod"));
    CHECK_SLICE_EQ(message.client, bytes("app-7"));
    bop_hello_request_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(hello_request, payload);
}

TEST(wire_messages, hello_response)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_HELLO_RESPONSE);
    struct bop_hello_response message;

    REQUIRE_EQ(bop_hello_response_decode(payload, &message), 0);
    CHECK_EQ(message.status, BOP_STATUS_OK);
    CHECK_EQ(message.protocol, 1);
    CHECK_EQ(message.node, 2);
    CHECK_SLICE_EQ(message.cluster, bytes("prod"));
    CHECK_EQ(message.leader, 1);
    CHECK_SLICE_EQ(message.leader_address, bytes("10.0.0.1:4000"));
    CHECK_SLICE_EQ(message.version, bytes("0.1.0"));
    bop_hello_response_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(hello_response, payload);
}

TEST(wire_messages, session_open)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_SESSION_OPEN_REQUEST);
    struct bop_session_open_request request;
    struct bop_session_open_response response;

    REQUIRE_EQ(bop_session_open_request_decode(payload, &request), 0);
    CHECK_EQ(request.timeout_ms, 10000);
    CHECK(token_is_golden(request.token));
    bop_session_open_request_encode(&f->writer, &request);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(session_open_request, payload);

    payload = golden(f, BOP_WIRE_KIND_SESSION_OPEN_RESPONSE);
    REQUIRE_EQ(bop_session_open_response_decode(payload, &response), 0);
    CHECK_EQ(response.status, BOP_STATUS_OK);
    CHECK_EQ(response.session, 17);
    CHECK_EQ(response.timeout_ms, 10000);
    bop_buf_clear(&f->buf);
    bop_session_open_response_encode(&f->writer, &response);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(session_open_response, payload);
}

TEST(wire_messages, session_start)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_SESSION_START_REQUEST);
    struct bop_session_start_request request;
    struct bop_session_start_response response;

    REQUIRE_EQ(bop_session_start_request_decode(payload, &request), 0);
    CHECK_EQ(request.timeout_ms, 10000);
    CHECK_EQ(request.grace_ms, 2000);
    CHECK(token_is_golden(request.token));
    bop_session_start_request_encode(&f->writer, &request);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(session_start_request, payload);

    payload = golden(f, BOP_WIRE_KIND_SESSION_START_RESPONSE);
    REQUIRE_EQ(bop_session_start_response_decode(payload, &response), 0);
    CHECK_EQ(response.status, BOP_STATUS_OK);
    CHECK_EQ(response.session, 17);
    CHECK_EQ(response.timeout_ms, 10000);
    CHECK_EQ(response.grace_ms, 2000);
    bop_buf_clear(&f->buf);
    bop_session_start_response_encode(&f->writer, &response);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(session_start_response, payload);
}

TEST(wire_messages, session_resume_and_close)
{
    static const uint16_t kinds[] = {BOP_WIRE_KIND_SESSION_RESUME_REQUEST,
                                     BOP_WIRE_KIND_SESSION_CLOSE_REQUEST};

    for (size_t i = 0; i < BOP_COUNT_OF(kinds); i++) {
        struct bop_slice payload = golden(f, kinds[i]);
        struct bop_session_request message;

        REQUIRE_EQ(bop_session_request_decode(payload, &message), 0);
        CHECK_EQ(message.session, 17);
        CHECK(token_is_golden(message.token));
        bop_buf_clear(&f->buf);
        bop_session_request_encode(&f->writer, &message);
        CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
        REFUSES_ALL_BUT(session_request, payload);
    }
}

TEST(wire_messages, session_alive_and_statuses)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_SESSION_ALIVE_REQUEST);
    uint64_t session = 0;
    uint8_t status = 0;

    REQUIRE_EQ(bop_session_alive_request_decode(payload, &session), 0);
    CHECK_EQ(session, 17);
    bop_session_alive_request_encode(&f->writer, session);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    CHECK_EQ(bop_session_alive_request_decode(bop_slice(payload.data, 7), &session),
             BOP_EMALFORMED);
    CHECK_EQ(bop_session_alive_request_decode(bop_slice(payload.data, 9), &session),
             BOP_EMALFORMED);

    payload = golden(f, BOP_WIRE_KIND_SESSION_RESUME_RESPONSE);
    REQUIRE_EQ(bop_session_status_decode(payload, &status), 0);
    CHECK_EQ(status, BOP_STATUS_NO_SESSION);
    CHECK_EQ(bop_session_status_decode(bop_slice(payload.data, 0), &status), BOP_EMALFORMED);
    CHECK_EQ(bop_session_status_decode(bop_slice(payload.data, 2), &status), BOP_EMALFORMED);
}

TEST(wire_messages, write_request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_WRITE_REQUEST);
    struct bop_write_request message;
    struct bop_operation operation;

    REQUIRE_EQ(bop_write_request_decode(payload, &message), 0);
    CHECK_EQ(message.session, 17);
    CHECK_EQ(message.sequence, 5);
    CHECK_EQ(message.acked, 4);
    REQUIRE_EQ(bop_operation_decode(message.operation, &operation), 0);
    CHECK_EQ(operation.op, BOP_OP_MAP_PUT);
    CHECK_SLICE_EQ(operation.name, bytes("m"));
    CHECK_SLICE_EQ(operation.key, bytes("k"));
    CHECK_SLICE_EQ(operation.value, bytes("v"));
    CHECK_EQ(operation.condition, BOP_IF_ALWAYS);
    bop_write_request_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    for (size_t size = 0; size < 24; size++) { /* Three numbers; then the rest. */
        CHECK_EQ(bop_write_request_decode(bop_slice(payload.data, size), &message), BOP_EMALFORMED);
    }
}

TEST(wire_messages, read_request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_READ_REQUEST);
    struct bop_read_request message;

    REQUIRE_EQ(bop_read_request_decode(payload, &message), 0);
    CHECK_EQ(message.consistency, BOP_READ_LINEARIZABLE);
    bop_read_request_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    CHECK_EQ(bop_read_request_decode(bop_slice(payload.data, 0), &message), BOP_EMALFORMED);
    f->bytes[BOP_WIRE_HEADER] = 2;
    CHECK_EQ(bop_read_request_decode(payload, &message), BOP_EMALFORMED);
}

TEST(wire_messages, replies)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_READ_RESPONSE);
    struct bop_reply message;
    struct bop_result result;

    REQUIRE_EQ(bop_reply_decode(payload, &message), 0);
    CHECK_EQ(message.status, BOP_STATUS_OK);
    REQUIRE_EQ(bop_result_decode(BOP_OP_MAP_GET, message.status, message.result, &result), 0);
    CHECK_EQ(result.version, 100);
    CHECK_SLICE_EQ(result.value, bytes("v"));
    bop_reply_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    CHECK_EQ(bop_reply_decode(bop_slice(payload.data, 0), &message), BOP_EMALFORMED);
}

/* Each golden operation is encoded to the same bytes, and so is the result that follows it. */
TEST(wire_messages, operations_and_results)
{
    enum bop_op op = (enum bop_op)0;
    unsigned operations = 0, results = 0;

    for (size_t i = 0; i < BOP_COUNT_OF(vectors); i++) {
        struct bop_slice payload = vector_payload(&vectors[i], f->bytes);
        struct bop_operation operation;
        struct bop_result result;

        bop_buf_clear(&f->buf);
        if (vectors[i].kind == BOP_WIRE_KIND_WRITE_REQUEST ||
            vectors[i].kind == BOP_WIRE_KIND_READ_REQUEST) {
            bool write = vectors[i].kind == BOP_WIRE_KIND_WRITE_REQUEST;
            size_t head = write ? 24 : 1;

            payload = bop_slice(payload.data + head, payload.size - head);
            REQUIRE_EQ(bop_operation_decode(payload, &operation), 0);
            CHECK_EQ(bop_op_is_write(operation.op), write);
            bop_operation_encode(&f->writer, &operation);
            CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
            op = operation.op;
            operations++;
        } else if (vectors[i].kind == BOP_WIRE_KIND_WRITE_RESPONSE ||
                   vectors[i].kind == BOP_WIRE_KIND_READ_RESPONSE) {
            uint8_t status = payload.data[0];

            payload = bop_slice(payload.data + 1, payload.size - 1);
            REQUIRE_EQ(bop_result_decode(op, status, payload, &result), 0);
            bop_result_encode(&f->writer, op, &result);
            CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
            results++;
        }
    }
    CHECK_EQ(operations, results);
    CHECK(operations >= 8);
}

TEST(wire_messages, status_response)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_STATUS_RESPONSE);
    struct bop_status_response message;

    REQUIRE_EQ(bop_status_response_decode(payload, &message), 0);
    CHECK_EQ(message.node, 1);
    CHECK_SLICE_EQ(message.cluster, bytes("prod"));
    CHECK_SLICE_EQ(message.version, bytes("0.1.0"));
    CHECK_EQ(message.state, 3);
    CHECK_EQ(message.term, 2);
    CHECK_EQ(message.leader, 1);
    CHECK_EQ(message.commit, 100);
    CHECK_EQ(message.applied, 99);
    CHECK_EQ(message.first_index, 1);
    CHECK_EQ(message.last_index, 101);
    CHECK_EQ(message.durable_index, 100);
    CHECK_EQ(message.snapshot_index, 0);
    CHECK_EQ(message.sessions, 3);
    CHECK_EQ(message.clients, 4);
    CHECK_EQ(message.uptime_ms, 5000);
    CHECK_EQ(message.applied_digest, 0x1122334455667788);
    CHECK_SLICE_EQ(message.health, bytes("ok"));
    REQUIRE_EQ(message.peer_count, 2);
    CHECK_EQ(message.peers[1].id, 2);
    CHECK_SLICE_EQ(message.peers[1].address, bytes("10.0.0.2:4000"));
    CHECK_EQ(message.peers[1].role, 1);
    CHECK_EQ(message.peers[0].connected, true);
    CHECK_EQ(message.peers[1].connected, false);
    CHECK_EQ(message.peers[1].match, 90);
    CHECK_EQ(message.peers[1].silent_ms, UINT64_MAX);
    CHECK_EQ(message.resident_bytes, 50000000);
    CHECK_EQ(message.committed_bytes, 40000000);
    REQUIRE_EQ(message.tag_count, 2);
    CHECK_SLICE_EQ(message.tags[0].name, bytes("raft"));
    CHECK_EQ(message.tags[0].live_bytes, 4096);
    CHECK_EQ(message.tags[0].peak_bytes, 8192);
    CHECK_EQ(message.tags[0].live_allocations, 3);
    CHECK_EQ(message.tags[0].allocations, 77);
    CHECK_EQ(message.tags[1].limit_bytes, 1u << 30);
    CHECK_SLICE_EQ(message.log_method, bytes("io_uring"));
    CHECK_EQ(message.log_writes, 2);
    CHECK_EQ(message.log_writes_max, 8);
    bop_status_response_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(status_response, payload);
}

/* The bytes of a status response without peers or tags up to its count of peers. */
#define STATUS_BYTES_BEFORE_PEERS (8 + 4 + 4 + 1 + 12 * 8 + 4)
#define STATUS_PEER_BYTES         30 /* With an empty address. */
#define STATUS_TAG_BYTES          44 /* With an empty name. */
#define STATUS_LOG_BYTES          20 /* Behind the tags, with an empty method. */

TEST(wire_messages, status_response_has_a_bound_of_peers)
{
    static struct bop_status_response message;
    static struct bop_status_response out;

    message.peer_count = BOP_STATUS_PEERS_MAX;
    bop_status_response_encode(&f->writer, &message);
    CHECK_EQ(bop_status_response_decode(bop_buf_slice(&f->buf), &out), 0);
    CHECK_EQ(f->buf.data[STATUS_BYTES_BEFORE_PEERS], BOP_STATUS_PEERS_MAX);
    f->buf.data[STATUS_BYTES_BEFORE_PEERS]++;
    CHECK_EQ(bop_buf_append(&f->buf, (uint8_t[STATUS_PEER_BYTES]){0}, STATUS_PEER_BYTES), 0);
    CHECK_EQ(bop_status_response_decode(bop_buf_slice(&f->buf), &out), BOP_EMALFORMED);
}

TEST(wire_messages, status_response_has_a_bound_of_tags)
{
    static struct bop_status_response message;
    static struct bop_status_response out;
    size_t at;

    message.tag_count = BOP_STATUS_TAGS_MAX;
    bop_status_response_encode(&f->writer, &message);
    CHECK_EQ(bop_status_response_decode(bop_buf_slice(&f->buf), &out), 0);
    /* The count is a byte before the tags. */
    at = f->buf.size - BOP_STATUS_TAGS_MAX * STATUS_TAG_BYTES - STATUS_LOG_BYTES - 1;
    CHECK_EQ(f->buf.data[at], BOP_STATUS_TAGS_MAX);
    f->buf.data[at]++;
    CHECK_EQ(bop_buf_append(&f->buf, (uint8_t[STATUS_TAG_BYTES]){0}, STATUS_TAG_BYTES), 0);
    CHECK_EQ(bop_status_response_decode(bop_buf_slice(&f->buf), &out), BOP_EMALFORMED);
}

TEST(wire_messages, texts_have_bounds)
{
    struct bop_hello_request message = {.protocol = 1};
    char text[BOP_NAME_MAX + 1];

    memset(text, 'x', sizeof(text));
    message.client = bop_slice(text, BOP_NAME_MAX);
    bop_hello_request_encode(&f->writer, &message);
    CHECK_EQ(bop_hello_request_decode(bop_buf_slice(&f->buf), &message), 0);
    bop_buf_clear(&f->buf);
    message.client = bop_slice(text, BOP_NAME_MAX + 1);
    bop_hello_request_encode(&f->writer, &message);
    CHECK_EQ(bop_hello_request_decode(bop_buf_slice(&f->buf), &message), BOP_EMALFORMED);
}

/* A decoder that fails leaves what it was given alone. */
TEST(wire_messages, failing_decoders_write_nothing)
{
    struct bop_hello_response message = {.node = 42};

    CHECK_EQ(bop_hello_response_decode(bytes("\1\2\3"), &message), BOP_EMALFORMED);
    CHECK_EQ(message.node, 42);
}
