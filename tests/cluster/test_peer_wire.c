#include "peer_wire.h"

#include <stdlib.h>

#include <bop/error.h>
#include <bop/random.h>

#include "tap.h"

struct fixture {
    struct test_heap heap;
    struct bop_buf buf;
    struct bop_random random;
    struct bop_raft_entry *entries; /* PEER_ENTRIES_MAX of them. */
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    bop_buf_init(&f->buf, &f->heap.allocator, 0);
    bop_random_seed(&f->random, 1);
    f->entries = calloc(PEER_ENTRIES_MAX, sizeof(*f->entries));
    REQUIRE(f->entries);
}

static void teardown(struct fixture *f)
{
    free(f->entries);
    bop_buf_deinit(&f->buf);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

typedef int (*decode_fn)(struct fixture *f, struct bop_slice payload);

/* What was encoded is refused when any byte of its end is missing, and with one more.
 * Each prefix lies in memory of its own size, so that a sanitizer sees a read beyond. */
static void check_ends(struct fixture *f, decode_fn decode)
{
    for (size_t size = 0; size <= f->buf.size + 1; size++) {
        uint8_t *copy = malloc(size > 0 ? size : 1);

        REQUIRE(copy);
        memcpy(copy, f->buf.data, size < f->buf.size ? size : f->buf.size);
        if (size > f->buf.size) {
            copy[size - 1] = 0;
        }
        CHECK_EQ(decode(f, bop_slice(copy, size)), size == f->buf.size ? 0 : BOP_EMALFORMED);
        free(copy);
    }
}

static struct bop_writer writer(struct fixture *f)
{
    bop_buf_clear(&f->buf);
    return bop_writer(&f->buf);
}

static uint64_t random_term(struct fixture *f)
{
    return bop_random_next(&f->random) >> 8;
}

/* Random ASCII of up to 40 bytes, in one of a few places. */
static struct bop_slice random_text(struct fixture *f, unsigned place)
{
    static char texts[4][40];
    size_t size = bop_random_below(&f->random, sizeof(texts[0]) + 1);

    for (size_t n = 0; n < size; n++) {
        texts[place][n] = (char)(' ' + bop_random_below(&f->random, 95));
    }
    return bop_slice(texts[place], size);
}

/* ---- Hello and welcome ---- */

static int decode_hello(struct fixture *f, struct bop_slice payload)
{
    struct peer_hello out;

    return bop__peer_hello_decode(payload, &out);
}

TEST(peer_hello, comes_back)
{
    for (unsigned round = 0; round < 50; round++) {
        struct peer_hello in = {.protocol = (uint16_t)bop_random_next(&f->random),
                                .node = bop_random_next(&f->random),
                                .target = bop_random_next(&f->random),
                                .cluster = random_text(f, 0),
                                .address = random_text(f, 1)};
        struct peer_hello out;
        struct bop_writer w = writer(f);

        bop__peer_hello_encode(&w, &in);
        REQUIRE_EQ(w.code, 0);
        REQUIRE_EQ(bop__peer_hello_decode(bop_buf_slice(&f->buf), &out), 0);
        CHECK_EQ(out.protocol, in.protocol);
        CHECK_EQ(out.node, in.node);
        CHECK_EQ(out.target, in.target);
        CHECK_SLICE_EQ(out.cluster, in.cluster);
        CHECK_SLICE_EQ(out.address, in.address);
        check_ends(f, decode_hello);
    }
}

/* docs/design/peer-protocol.md */
TEST(peer_hello, has_these_bytes)
{
    static const uint8_t expected[] = {1, 0,                     /* Protocol. */
                                       2, 0, 0, 0, 0,   0, 0, 0, /* Node. */
                                       3, 0, 0, 0, 0,   0, 0, 0, /* Target. */
                                       1, 0, 0, 0, 'c', 3, 0, 0, 0, 'h', ':', '1'};
    struct peer_hello in = {
        .protocol = 1, .node = 2, .target = 3, .cluster = bytes("c"), .address = bytes("h:1")};
    struct bop_writer w = writer(f);

    bop__peer_hello_encode(&w, &in);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bop_slice(expected, sizeof(expected)));
}

TEST(peer_hello, wants_utf8)
{
    struct peer_hello in = {.cluster = bytes("\xff"), .address = bytes("a:1")};
    struct bop_writer w = writer(f);

    bop__peer_hello_encode(&w, &in);
    CHECK_EQ(decode_hello(f, bop_buf_slice(&f->buf)), BOP_EMALFORMED);
}

static int decode_welcome(struct fixture *f, struct bop_slice payload)
{
    struct peer_welcome out;

    return bop__peer_welcome_decode(payload, &out);
}

TEST(peer_welcome, comes_back)
{
    for (unsigned round = 0; round < 50; round++) {
        struct peer_welcome in = {.protocol = (uint16_t)bop_random_next(&f->random),
                                  .node = bop_random_next(&f->random),
                                  .refusal = random_text(f, 0)};
        struct peer_welcome out;
        struct bop_writer w = writer(f);

        bop__peer_welcome_encode(&w, &in);
        REQUIRE_EQ(bop__peer_welcome_decode(bop_buf_slice(&f->buf), &out), 0);
        CHECK_EQ(out.protocol, in.protocol);
        CHECK_EQ(out.node, in.node);
        CHECK_SLICE_EQ(out.refusal, in.refusal);
        check_ends(f, decode_welcome);
    }
}

/* ---- Messages of consensus ---- */

static int decode_raft(struct fixture *f, struct bop_slice payload)
{
    struct bop_raft_message out;

    return bop__peer_raft_decode(payload, f->entries, &out);
}

static void encode_raft(struct fixture *f, const struct bop_raft_message *in)
{
    struct bop_writer w = writer(f);

    bop__peer_raft_encode(&w, in);
    for (unsigned n = 0; in->type == BOP_RAFT_APPEND && n < in->append.count; n++) {
        size_t before = f->buf.size;

        bop__peer_entry_encode(&w, &in->append.entries[n]);
        CHECK_EQ(f->buf.size - before, bop__peer_entry_size(&in->append.entries[n]));
    }
    REQUIRE_EQ(w.code, 0);
}

static struct bop_raft_message round_trip(struct fixture *f, const struct bop_raft_message *in)
{
    struct bop_raft_message out;

    encode_raft(f, in);
    check_ends(f, decode_raft);
    memset(&out, 0xa5, sizeof(out));
    REQUIRE_EQ(bop__peer_raft_decode(bop_buf_slice(&f->buf), f->entries, &out), 0);
    CHECK_EQ(out.type, in->type);
    CHECK_EQ(out.term, in->term);
    return out;
}

TEST(peer_raft, append_comes_back)
{
    for (unsigned round = 0; round < 50; round++) {
        struct bop_raft_entry entries[4];
        struct bop_raft_message in = {
            .type = BOP_RAFT_APPEND,
            .term = random_term(f),
            .append = {.prev_index = bop_random_next(&f->random),
                       .prev_term = bop_random_next(&f->random),
                       .commit = bop_random_next(&f->random),
                       .entries = entries,
                       .count = (unsigned)bop_random_below(&f->random, 5)}};
        struct bop_raft_message out;

        for (unsigned n = 0; n < in.append.count; n++) {
            entries[n] = (struct bop_raft_entry){
                .term = random_term(f),
                .type = (enum bop_raft_entry_type)(1 + bop_random_below(&f->random, 3)),
                .data = random_text(f, n)};
        }
        out = round_trip(f, &in);
        CHECK_EQ(out.append.prev_index, in.append.prev_index);
        CHECK_EQ(out.append.prev_term, in.append.prev_term);
        CHECK_EQ(out.append.commit, in.append.commit);
        REQUIRE_EQ(out.append.count, in.append.count);
        CHECK_PTR_EQ(out.append.entries, f->entries);
        for (unsigned n = 0; n < in.append.count; n++) {
            CHECK_EQ(f->entries[n].term, entries[n].term);
            CHECK_EQ(f->entries[n].type, entries[n].type);
            CHECK_SLICE_EQ(f->entries[n].data, entries[n].data);
        }
    }
}

TEST(peer_raft, results_and_votes_come_back)
{
    for (unsigned round = 0; round < 50; round++) {
        struct bop_raft_message in = {.term = random_term(f)};
        struct bop_raft_message out;
        uint64_t a = bop_random_next(&f->random), b = bop_random_next(&f->random);
        uint16_t c = (uint16_t)bop_random_next(&f->random);

        in.type = BOP_RAFT_APPEND_RESULT;
        in.append_result.rejected = a;
        in.append_result.last_index = b;
        in.append_result.features = c;
        in.append_result.capacity = (uint16_t)~c;
        out = round_trip(f, &in);
        CHECK_EQ(out.append_result.rejected, a);
        CHECK_EQ(out.append_result.last_index, b);
        CHECK_EQ(out.append_result.features, c);
        CHECK_EQ(out.append_result.capacity, (uint16_t)~c);

        in.type = BOP_RAFT_VOTE;
        memset(&in.vote, 0, sizeof(in.vote));
        in.vote.candidate = a;
        in.vote.last_index = b;
        in.vote.last_term = a ^ b;
        in.vote.disrupt_leader = a & 1;
        in.vote.pre_vote = b & 1;
        out = round_trip(f, &in);
        CHECK_EQ(out.vote.candidate, a);
        CHECK_EQ(out.vote.last_index, b);
        CHECK_EQ(out.vote.last_term, a ^ b);
        CHECK_EQ(out.vote.disrupt_leader, a & 1);
        CHECK_EQ(out.vote.pre_vote, b & 1);

        in.type = BOP_RAFT_VOTE_RESULT;
        memset(&in.vote_result, 0, sizeof(in.vote_result));
        in.vote_result.granted = a & 1;
        in.vote_result.pre_vote = b & 1;
        in.vote_result.features = c;
        in.vote_result.capacity = (uint16_t)(c + 1);
        out = round_trip(f, &in);
        CHECK_EQ(out.vote_result.granted, a & 1);
        CHECK_EQ(out.vote_result.pre_vote, b & 1);
        CHECK_EQ(out.vote_result.features, c);
        CHECK_EQ(out.vote_result.capacity, (uint16_t)(c + 1));
    }
}

TEST(peer_raft, small_messages_come_back)
{
    static const enum bop_raft_message_type reads[] = {BOP_RAFT_READ_PROBE,
                                                       BOP_RAFT_READ_PROBE_RESULT,
                                                       BOP_RAFT_READ_REQUEST, BOP_RAFT_READ_RESULT};
    struct bop_raft_message in = {.type = BOP_RAFT_TIMEOUT_NOW,
                                  .term = 5,
                                  .timeout_now = {.last_index = 6, .last_term = UINT64_MAX}};
    struct bop_raft_message out = round_trip(f, &in);

    CHECK_EQ(out.timeout_now.last_index, 6);
    CHECK_EQ(out.timeout_now.last_term, UINT64_MAX);
    for (size_t n = 0; n < BOP_COUNT_OF(reads); n++) {
        in = (struct bop_raft_message){
            .type = reads[n], .term = 7, .read = {.sequence = 8, .index = UINT64_MAX - n}};
        out = round_trip(f, &in);
        CHECK_EQ(out.read.sequence, 8);
        CHECK_EQ(out.read.index, UINT64_MAX - n);
    }
}

TEST(peer_raft, of_a_strange_type_is_refused)
{
    uint8_t payload[64] = {0};

    for (unsigned type = 0; type < 256; type++) {
        bool known = (type >= 1 && type <= 10 && type != BOP_RAFT_INSTALL);
        bool taken = false;

        payload[0] = (uint8_t)type;
        for (size_t size = 0; size <= sizeof(payload); size++) {
            taken = taken || decode_raft(f, bop_slice(payload, size)) == 0;
        }
        CHECK_EQ(taken, known);
    }
}

/* A count that promises more than is there, or more than anybody sends. */
TEST(peer_raft, believes_no_count)
{
    static const uint32_t counts[] = {2, 3, PEER_ENTRIES_MAX, PEER_ENTRIES_MAX + 1, UINT32_MAX};
    struct bop_raft_entry entry = {.term = 1, .type = BOP_RAFT_COMMAND, .data = bytes("x")};
    struct bop_raft_message in = {
        .type = BOP_RAFT_APPEND, .term = 1, .append = {.entries = &entry, .count = 1}};

    encode_raft(f, &in);
    for (size_t n = 0; n < BOP_COUNT_OF(counts); n++) {
        bop_store_u32(f->buf.data + 33, counts[n]); /* Behind type, term and three numbers. */
        CHECK_EQ(decode_raft(f, bop_buf_slice(&f->buf)), BOP_EMALFORMED);
    }
    bop_store_u32(f->buf.data + 33, 0); /* And one that leaves an entry over. */
    CHECK_EQ(decode_raft(f, bop_buf_slice(&f->buf)), BOP_EMALFORMED);
}

TEST(peer_raft, takes_as_many_entries_as_it_may)
{
    for (unsigned more = 0; more < 2; more++) {
        struct bop_raft_message in = {.type = BOP_RAFT_APPEND, .term = 1};
        struct bop_raft_entry entry = {.term = 1, .type = BOP_RAFT_BARRIER};
        struct bop_writer w = writer(f);

        in.append.count = PEER_ENTRIES_MAX + more;
        bop__peer_raft_encode(&w, &in);
        for (unsigned n = 0; n < in.append.count; n++) {
            bop__peer_entry_encode(&w, &entry);
        }
        REQUIRE_EQ(w.code, 0);
        CHECK_EQ(decode_raft(f, bop_buf_slice(&f->buf)), more ? BOP_EMALFORMED : 0);
    }
}

TEST(peer_raft, refuses_strange_entry_types_and_sizes)
{
    struct bop_raft_entry entry = {.term = 1, .type = BOP_RAFT_COMMAND, .data = bytes("abc")};
    struct bop_raft_message in = {
        .type = BOP_RAFT_APPEND, .term = 1, .append = {.entries = &entry, .count = 1}};

    encode_raft(f, &in);
    for (unsigned type = 0; type < 256; type++) {
        f->buf.data[45] = (uint8_t)type; /* Behind the message's 37 bytes and the term. */
        CHECK_EQ(decode_raft(f, bop_buf_slice(&f->buf)),
                 type >= BOP_RAFT_COMMAND && type <= BOP_RAFT_CHANGE ? 0 : BOP_EMALFORMED);
    }
    f->buf.data[45] = BOP_RAFT_COMMAND;
    bop_store_u32(f->buf.data + 46, 4);
    CHECK_EQ(decode_raft(f, bop_buf_slice(&f->buf)), BOP_EMALFORMED);
    bop_store_u32(f->buf.data + 46, UINT32_MAX);
    CHECK_EQ(decode_raft(f, bop_buf_slice(&f->buf)), BOP_EMALFORMED);
}

/* The log keeps 56 bits of a term. */
TEST(peer_raft, refuses_terms_that_the_log_cannot_hold)
{
    struct bop_raft_entry entry = {.term = PEER_TERM_MAX, .type = BOP_RAFT_BARRIER};
    struct bop_raft_message in = {
        .type = BOP_RAFT_APPEND, .term = PEER_TERM_MAX, .append = {.entries = &entry, .count = 1}};
    struct peer_chunk chunk;
    uint8_t payload[40] = {0};

    encode_raft(f, &in);
    CHECK_EQ(decode_raft(f, bop_buf_slice(&f->buf)), 0);
    entry.term++;
    encode_raft(f, &in);
    CHECK_EQ(decode_raft(f, bop_buf_slice(&f->buf)), BOP_EMALFORMED);
    entry.term--;
    in.term++;
    encode_raft(f, &in);
    CHECK_EQ(decode_raft(f, bop_buf_slice(&f->buf)), BOP_EMALFORMED);

    CHECK_EQ(bop__peer_chunk_decode(bop_slice(payload, sizeof(payload)), &chunk), 0);
    payload[7] = 1; /* The leader's term. */
    CHECK_EQ(bop__peer_chunk_decode(bop_slice(payload, sizeof(payload)), &chunk), BOP_EMALFORMED);
    payload[7] = 0;
    payload[23] = 1; /* The snapshot's. */
    CHECK_EQ(bop__peer_chunk_decode(bop_slice(payload, sizeof(payload)), &chunk), BOP_EMALFORMED);
}

TEST(peer_raft, refuses_bools_that_are_none)
{
    struct bop_raft_message in = {.type = BOP_RAFT_VOTE, .term = 1};

    encode_raft(f, &in);
    f->buf.data[f->buf.size - 1] = 2;
    CHECK_EQ(decode_raft(f, bop_buf_slice(&f->buf)), BOP_EMALFORMED);
}

/* ---- Offers of snapshots ---- */

static int decode_offer(struct fixture *f, struct bop_slice payload)
{
    struct peer_offer out;

    return bop__peer_offer_decode(payload, &out);
}

static int decode_have(struct fixture *f, struct bop_slice payload)
{
    struct peer_have out;

    return bop__peer_have_decode(payload, &out);
}

TEST(peer_offer, has_these_bytes)
{
    static const uint8_t golden[] = {1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
                                     3, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0};
    struct peer_offer in = {.raft_term = 1, .index = 2, .term = 3, .size = 260}, out;
    struct bop_writer w = writer(f);

    bop__peer_offer_encode(&w, &in);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bop_slice(golden, sizeof(golden)));
    REQUIRE_EQ(bop__peer_offer_decode(bop_buf_slice(&f->buf), &out), 0);
    CHECK_EQ(out.raft_term, 1);
    CHECK_EQ(out.index, 2);
    CHECK_EQ(out.term, 3);
    CHECK_EQ(out.size, 260);
    check_ends(f, decode_offer);
}

TEST(peer_have, has_these_bytes)
{
    static const uint8_t golden[] = {2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0,
                                     0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 5, 0, 0, 6};
    struct peer_have in = {.index = 2, .term = 3, .offset = 260, .crc = 0x06000005}, out;
    struct bop_writer w = writer(f);

    bop__peer_have_encode(&w, &in);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bop_slice(golden, sizeof(golden)));
    REQUIRE_EQ(bop__peer_have_decode(bop_buf_slice(&f->buf), &out), 0);
    CHECK_EQ(out.index, 2);
    CHECK_EQ(out.term, 3);
    CHECK_EQ(out.offset, 260);
    CHECK_EQ(out.crc, 0x06000005);
    check_ends(f, decode_have);
}

/* ---- Chunks of snapshots ---- */

static int decode_ack(struct fixture *f, struct bop_slice payload)
{
    struct peer_chunk_ack out;

    return bop__peer_chunk_ack_decode(payload, &out);
}

TEST(peer_chunk, comes_back)
{
    for (unsigned round = 0; round < 50; round++) {
        struct peer_chunk in = {.raft_term = random_term(f),
                                .index = bop_random_next(&f->random),
                                .term = random_term(f),
                                .size = bop_random_next(&f->random),
                                .offset = bop_random_next(&f->random),
                                .bytes = random_text(f, 0)};
        struct peer_chunk out;
        struct bop_writer w = writer(f);

        bop__peer_chunk_encode(&w, &in);
        REQUIRE_EQ(bop__peer_chunk_decode(bop_buf_slice(&f->buf), &out), 0);
        CHECK_EQ(out.raft_term, in.raft_term);
        CHECK_EQ(out.index, in.index);
        CHECK_EQ(out.term, in.term);
        CHECK_EQ(out.size, in.size);
        CHECK_EQ(out.offset, in.offset);
        CHECK_SLICE_EQ(out.bytes, in.bytes);
        for (size_t size = 0; size < 40; size++) {
            CHECK_EQ(bop__peer_chunk_decode(bop_slice(f->buf.data, size), &out), BOP_EMALFORMED);
        }
    }
}

TEST(peer_chunk_ack, comes_back)
{
    struct peer_chunk_ack in = {.index = 5, .offset = UINT64_MAX};
    struct peer_chunk_ack out;
    struct bop_writer w = writer(f);

    bop__peer_chunk_ack_encode(&w, &in);
    REQUIRE_EQ(bop__peer_chunk_ack_decode(bop_buf_slice(&f->buf), &out), 0);
    CHECK_EQ(out.index, 5);
    CHECK_EQ(out.offset, UINT64_MAX);
    check_ends(f, decode_ack);
}

/* Whatever the bytes: no crash, and what is accepted gives the same bytes again. */
TEST(peer_raft, is_read_one_way_only)
{
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t payload[96];
        size_t size = bop_random_below(&f->random, sizeof(payload) + 1);
        struct bop_raft_message out;

        for (size_t n = 0; n < size; n++) {
            payload[n] = (uint8_t)(bop_random_chance(&f->random, 3, 4)
                                       ? 0
                                       : bop_random_below(&f->random, 12));
        }
        if (bop__peer_raft_decode(bop_slice(payload, size), f->entries, &out) == 0) {
            encode_raft(f, &out);
            CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bop_slice(payload, size));
        }
    }
}
