/*
 * Messages of administration: golden payloads decode to these values and encode to the
 * same bytes; everything near them is refused.
 */
#include <bop/cluster_admin.h>

#include "wire_golden.h"

/* Encodes to the same bytes; cut anywhere and with a byte more it is refused. */
#define COMES_BACK(decode, encode, payload, message)                                               \
    do {                                                                                           \
        encode(&f->writer, &(message));                                                            \
        CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);                                           \
        for (size_t size_ = 0; size_ < (payload).size; size_++) {                                  \
            CHECK_EQ(decode(bop_slice((payload).data, size_), &(message)), BOP_EMALFORMED);        \
        }                                                                                          \
        CHECK_EQ(decode(bop_slice((payload).data, (payload).size + 1), &(message)),                \
                 BOP_EMALFORMED);                                                                  \
    } while (0)

TEST(wire_admin, members)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_CLUSTER_MEMBERS_RESPONSE);
    struct bop_admin_members message;

    REQUIRE_EQ(bop_admin_members_decode(payload, &message), 0);
    CHECK_EQ(message.code, BOP_ADMIN_OK);
    CHECK_EQ(message.leader, 1);
    CHECK_EQ(message.term, 3);
    CHECK_EQ(message.commit, 90);
    CHECK_EQ(message.configuration_index, 7);
    CHECK(message.changing);
    REQUIRE_EQ(message.count, 2);
    CHECK_SLICE_EQ(message.servers[0].address, bytes("10.0.0.1:4000"));
    CHECK_EQ(message.servers[0].role, BOP_RAFT_VOTER);
    CHECK_EQ(message.servers[0].priority, 5);
    CHECK_EQ(message.servers[0].incarnation, UINT64_C(0xabcdef0123456789));
    CHECK_EQ(message.servers[0].level, 2);
    CHECK(message.servers[1].learner);
    CHECK_EQ(message.servers[1].silent_ms, UINT64_MAX);
    COMES_BACK(bop_admin_members_decode, bop_admin_members_encode, payload, message);
}

TEST(wire_admin, change_request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST);
    struct bop_admin_change_request message;

    REQUIRE_EQ(bop_admin_change_request_decode(payload, &message), 0);
    CHECK_EQ(message.action, BOP_ADMIN_ADD);
    CHECK_EQ(message.flags, BOP_ADMIN_VOTER);
    CHECK_EQ(message.node, 4);
    CHECK_EQ(message.priority, 5);
    CHECK_SLICE_EQ(message.address, bytes("10.0.0.4:4000"));
    COMES_BACK(bop_admin_change_request_decode, bop_admin_change_request_encode, payload, message);
}

TEST(wire_admin, change_response)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_CLUSTER_CHANGE_RESPONSE);
    struct bop_admin_change_response message;

    REQUIRE_EQ(bop_admin_change_response_decode(payload, &message), 0);
    CHECK_EQ(message.code, BOP_ADMIN_NO_QUORUM);
    CHECK_SLICE_EQ(message.text, bytes("no"));
    CHECK_EQ(message.before.voters, 3);
    CHECK_EQ(message.after.quorum, 3);
    CHECK_EQ(message.after.alive, 2);
    CHECK_EQ(message.index, 91);
    COMES_BACK(bop_admin_change_response_decode, bop_admin_change_response_encode, payload,
               message);
}

TEST(wire_admin, transfer)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST);
    struct bop_admin_transfer_request request;
    struct bop_admin_transfer_response response;

    REQUIRE_EQ(bop_admin_transfer_request_decode(payload, &request), 0);
    CHECK_EQ(request.node, 2);
    COMES_BACK(bop_admin_transfer_request_decode, bop_admin_transfer_request_encode, payload,
               request);
    payload = golden(f, BOP_WIRE_KIND_CLUSTER_TRANSFER_RESPONSE);
    bop_buf_clear(&f->buf);
    REQUIRE_EQ(bop_admin_transfer_response_decode(payload, &response), 0);
    CHECK_SLICE_EQ(response.text, bytes("done"));
    CHECK_EQ(response.leader, 2);
    COMES_BACK(bop_admin_transfer_response_decode, bop_admin_transfer_response_encode, payload,
               response);
}

TEST(wire_admin, params)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_CLUSTER_PARAMS_REQUEST);
    struct bop_admin_params message;

    REQUIRE_EQ(bop_admin_params_request_decode(payload, &message), 0);
    REQUIRE_EQ(message.count, 1);
    CHECK_SLICE_EQ(message.params[0].name, bytes("heartbeat_ms"));
    CHECK_SLICE_EQ(message.params[0].value, bytes("40"));
    COMES_BACK(bop_admin_params_request_decode, bop_admin_params_request_encode, payload, message);
    payload = golden(f, BOP_WIRE_KIND_CLUSTER_PARAMS_RESPONSE);
    bop_buf_clear(&f->buf);
    REQUIRE_EQ(bop_admin_params_response_decode(payload, &message), 0);
    CHECK_EQ(message.node, 1);
    CHECK(message.params[0].live);
    CHECK_SLICE_EQ(message.params[0].about, bytes("how often"));
    COMES_BACK(bop_admin_params_response_decode, bop_admin_params_response_encode, payload,
               message);
}

TEST(wire_admin, codes_have_texts)
{
    CHECK_STR_EQ(bop_admin_code_text(BOP_ADMIN_OK), "ok");
    CHECK_STR_EQ(bop_admin_code_text(BOP_ADMIN_REFUSED), "refused");
    CHECK_STR_EQ(bop_admin_code_text(255), "unknown code");
    CHECK(bop_admin_code_is_passing(BOP_ADMIN_BUSY));
    CHECK(!bop_admin_code_is_passing(BOP_ADMIN_OK));
    CHECK(!bop_admin_code_is_passing(BOP_ADMIN_NO_QUORUM));
}
