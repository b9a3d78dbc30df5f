/*
 * The prototype's payloads: each golden one is right, and nothing near it is.
 */
#include "tap.h"

#include "wire_vectors.h"

static int check(uint16_t kind, const char *data, size_t size)
{
    return bop_wire_check(kind, bop_slice(data, size));
}

/* Literals may hold zero bytes; the NUL at their end does not count. */
#define CHECK_PAYLOAD(kind, literal) check(BOP_WIRE_KIND_##kind, literal, sizeof(literal) - 1)

TEST(wire_check, refuses_every_prefix_and_a_byte_more)
{
    uint8_t buffer[VECTOR_BYTES_MAX + 1];

    for (size_t i = 0; i < BOP_COUNT_OF(vectors); i++) {
        const struct vector *vector = &vectors[i];
        struct bop_slice payload = vector_payload(vector, buffer);

        if (vector->kind >= BOP_WIRE_KIND_HELLO_REQUEST) {
            continue;
        }
        CHECK_EQ(bop_wire_check(vector->kind, payload), 0);
        for (size_t size = 0; size < payload.size; size++) {
            CHECK_EQ(bop_wire_check(vector->kind, bop_slice(payload.data, size)), BOP_EMALFORMED);
        }
        buffer[BOP_WIRE_HEADER + payload.size] = 0;
        CHECK_EQ(bop_wire_check(vector->kind, bop_slice(payload.data, payload.size + 1)),
                 BOP_EMALFORMED);
    }
}

TEST(wire_check, refuses_bools_and_codes_above_1)
{
    CHECK_EQ(CHECK_PAYLOAD(MAP_PUT_RESPONSE, "\1"), 0);
    CHECK_EQ(CHECK_PAYLOAD(MAP_PUT_RESPONSE, "\2"), BOP_EMALFORMED);
    CHECK_EQ(CHECK_PAYLOAD(SET_CONTAINS_RESPONSE, "\0\1"), 0);
    CHECK_EQ(CHECK_PAYLOAD(SET_CONTAINS_RESPONSE, "\0\2"), BOP_EMALFORMED);
    CHECK_EQ(CHECK_PAYLOAD(SET_CONTAINS_RESPONSE, "\377\0"), BOP_EMALFORMED);
    /* An optional's presence is a bool too. */
    CHECK_EQ(CHECK_PAYLOAD(MAP_GET_RESPONSE, "\0\1\0\0\0\0"), 0);
    CHECK_EQ(CHECK_PAYLOAD(MAP_GET_RESPONSE, "\0\2\0\0\0\0"), BOP_EMALFORMED);
    CHECK_EQ(CHECK_PAYLOAD(LOCK_ACQUIRE_RESPONSE, "\0\1\3"), BOP_EMALFORMED);
}

TEST(wire_check, refuses_strings_that_are_not_utf8)
{
    CHECK_EQ(CHECK_PAYLOAD(CREATE_MAP_REQUEST, "\2\0\0\0\303\244"), 0);
    CHECK_EQ(CHECK_PAYLOAD(CREATE_MAP_REQUEST, "\1\0\0\0\344"), BOP_EMALFORMED);
    CHECK_EQ(CHECK_PAYLOAD(CREATE_MAP_REQUEST, "\2\0\0\0\300\200"), BOP_EMALFORMED); /* Overlong. */
    CHECK_EQ(CHECK_PAYLOAD(GET_NODES_RESPONSE, "\0\1\0\0\0\1\0\0\0\377"), BOP_EMALFORMED);
    /* Bytes may be anything. */
    CHECK_EQ(CHECK_PAYLOAD(MAP_GET_REQUEST, "\0\0\0\0\1\0\0\0\377"), 0);
}

TEST(wire_check, refuses_lengths_past_the_end)
{
    CHECK_EQ(CHECK_PAYLOAD(CREATE_MAP_REQUEST, "\2\0\0\0a"), BOP_EMALFORMED);
    CHECK_EQ(CHECK_PAYLOAD(CREATE_MAP_REQUEST, "\377\377\377\377a"), BOP_EMALFORMED);
    CHECK_EQ(CHECK_PAYLOAD(MAP_GET_RESPONSE, "\0\1\377\377\377\377a"), BOP_EMALFORMED);
}

/* Four billion elements are refused before the first is looked at; the test would
 * take minutes if they were not. */
TEST(wire_check, refuses_counts_that_cannot_fit)
{
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(CHECK_PAYLOAD(GET_NODES_RESPONSE, "\0\377\377\377\377"), BOP_EMALFORMED);
        CHECK_EQ(CHECK_PAYLOAD(GET_NODES_RESPONSE, "\0\377\377\377\377\0\0\0\0"), BOP_EMALFORMED);
        CHECK_EQ(CHECK_PAYLOAD(MULTIMAP_VALUES_RESPONSE, "\0\377\377\377\377"), BOP_EMALFORMED);
        CHECK_EQ(CHECK_PAYLOAD(MULTIMAP_ENTRIES_RESPONSE, "\0\377\377\377\377"), BOP_EMALFORMED);
        CHECK_EQ(
            CHECK_PAYLOAD(MULTIMAP_ENTRIES_RESPONSE, "\0\1\0\0\0\0\0\0\0\377\377\377\377\0\0\0\0"),
            BOP_EMALFORMED);
        CHECK_EQ(CHECK_PAYLOAD(STATE_SYNC, "\1\0\0\0\0\0\0\0\377\377\377\377"), BOP_EMALFORMED);
    }
    CHECK_EQ(CHECK_PAYLOAD(GET_NODES_RESPONSE, "\0\0\0\0\0"), 0);
    CHECK_EQ(CHECK_PAYLOAD(MULTIMAP_ENTRIES_RESPONSE, "\0\0\0\0\0"), 0);
}

/* A name alone fits the tags that have no other field; the golden STATE_SYNC has all. */
TEST(wire_check, knows_21_sync_operations)
{
    uint8_t payload[] = {1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 'm'};

    for (unsigned tag = 0; tag < 256; tag++) {
        static const unsigned name_only = 1u << 0 | 1u << 2 | 1u << 3 | 1u << 5 | 1u << 6 |
                                          1u << 8 | 1u << 9 | 1u << 12 | 1u << 13 | 1u << 16 |
                                          1u << 17 | 1u << 18;
        bool fits = tag <= 20 && (name_only >> tag & 1);

        payload[12] = (uint8_t)tag;
        CHECK_EQ(bop_wire_check(BOP_WIRE_KIND_STATE_SYNC, bop_slice(payload, sizeof(payload))),
                 fits ? 0 : BOP_EMALFORMED);
    }
}

TEST(wire_check, leaves_our_own_kinds_to_their_decoders)
{
    CHECK_EQ(bop_wire_check(BOP_WIRE_KIND_HELLO_REQUEST, bytes("anything")), 0);
    CHECK_EQ(bop_wire_check(BOP_WIRE_KIND_PEER_RAFT, bytes("anything")), 0);
}
