/*
 * Encoding and decoding of what nodes say to each other. Every decoder wants the
 * whole payload, believes no count before the bytes for it are there, and leaves
 * no byte unread.
 */
#include "peer_wire.h"

#include <bop/error.h>

static int done(const struct bop_reader *reader)
{
    return bop_reader_done(reader) ? 0 : BOP_EMALFORMED;
}

int bop__peer_hello_decode(struct bop_slice payload, struct peer_hello *out)
{
    struct bop_reader reader = bop_reader(payload);

    out->protocol = bop_read_u16(&reader);
    out->node = bop_read_u64(&reader);
    out->target = bop_read_u64(&reader);
    out->cluster = bop_read_string(&reader);
    out->address = bop_read_string(&reader);
    return done(&reader);
}

void bop__peer_hello_encode(struct bop_writer *writer, const struct peer_hello *in)
{
    bop_write_u16(writer, in->protocol);
    bop_write_u64(writer, in->node);
    bop_write_u64(writer, in->target);
    bop_write_bytes(writer, in->cluster);
    bop_write_bytes(writer, in->address);
}

int bop__peer_welcome_decode(struct bop_slice payload, struct peer_welcome *out)
{
    struct bop_reader reader = bop_reader(payload);

    out->protocol = bop_read_u16(&reader);
    out->node = bop_read_u64(&reader);
    out->refusal = bop_read_string(&reader);
    return done(&reader);
}

void bop__peer_welcome_encode(struct bop_writer *writer, const struct peer_welcome *in)
{
    bop_write_u16(writer, in->protocol);
    bop_write_u64(writer, in->node);
    bop_write_bytes(writer, in->refusal);
}

/* A term that the log can hold; another one fails the reader. */
static uint64_t read_term(struct bop_reader *reader)
{
    uint64_t term = bop_read_u64(reader);

    if (term > PEER_TERM_MAX) {
        reader->failed = true;
    }
    return term;
}

static void read_entries(struct bop_reader *reader, struct bop_raft_entry *entries,
                         unsigned *out_count)
{
    uint32_t count = bop_read_u32(reader);

    if (count > PEER_ENTRIES_MAX) {
        reader->failed = true;
        return;
    }
    for (uint32_t n = 0; n < count && !reader->failed; n++) {
        uint8_t type;

        entries[n].term = read_term(reader);
        type = bop_read_u8(reader);
        entries[n].data = bop_read_bytes(reader);
        if (type < BOP_RAFT_COMMAND || type > BOP_RAFT_CHANGE) {
            reader->failed = true;
        }
        entries[n].type = (enum bop_raft_entry_type)type;
    }
    *out_count = count;
}

int bop__peer_raft_decode(struct bop_slice payload, struct bop_raft_entry *entries,
                          struct bop_raft_message *out)
{
    struct bop_reader reader = bop_reader(payload);
    uint8_t type = bop_read_u8(&reader);

    memset(out, 0, sizeof(*out));
    out->type = (enum bop_raft_message_type)type;
    out->term = read_term(&reader);
    switch (type) {
    case BOP_RAFT_APPEND:
        out->append.prev_index = bop_read_u64(&reader);
        out->append.prev_term = bop_read_u64(&reader);
        out->append.commit = bop_read_u64(&reader);
        out->append.entries = entries;
        read_entries(&reader, entries, &out->append.count);
        break;
    case BOP_RAFT_APPEND_RESULT:
        out->append_result.rejected = bop_read_u64(&reader);
        out->append_result.last_index = bop_read_u64(&reader);
        out->append_result.features = bop_read_u16(&reader);
        out->append_result.capacity = bop_read_u16(&reader);
        break;
    case BOP_RAFT_VOTE:
        out->vote.candidate = bop_read_u64(&reader);
        out->vote.last_index = bop_read_u64(&reader);
        out->vote.last_term = bop_read_u64(&reader);
        out->vote.disrupt_leader = bop_read_bool(&reader);
        out->vote.pre_vote = bop_read_bool(&reader);
        break;
    case BOP_RAFT_VOTE_RESULT:
        out->vote_result.granted = bop_read_bool(&reader);
        out->vote_result.pre_vote = bop_read_bool(&reader);
        out->vote_result.features = bop_read_u16(&reader);
        out->vote_result.capacity = bop_read_u16(&reader);
        break;
    case BOP_RAFT_TIMEOUT_NOW:
        out->timeout_now.last_index = bop_read_u64(&reader);
        out->timeout_now.last_term = bop_read_u64(&reader);
        break;
    case BOP_RAFT_READ_PROBE:
    case BOP_RAFT_READ_PROBE_RESULT:
    case BOP_RAFT_READ_REQUEST:
    case BOP_RAFT_READ_RESULT:
        out->read.sequence = bop_read_u64(&reader);
        out->read.index = bop_read_u64(&reader);
        break;
    default:
        /* INSTALL never travels as a message: the snapshot itself does, in chunks. */
        return BOP_EMALFORMED;
    }
    return done(&reader);
}

void bop__peer_raft_encode(struct bop_writer *writer, const struct bop_raft_message *in)
{
    bop_write_u8(writer, (uint8_t)in->type);
    bop_write_u64(writer, in->term);
    switch (in->type) {
    case BOP_RAFT_APPEND:
        bop_write_u64(writer, in->append.prev_index);
        bop_write_u64(writer, in->append.prev_term);
        bop_write_u64(writer, in->append.commit);
        bop_write_u32(writer, in->append.count);
        break;
    case BOP_RAFT_APPEND_RESULT:
        bop_write_u64(writer, in->append_result.rejected);
        bop_write_u64(writer, in->append_result.last_index);
        bop_write_u16(writer, in->append_result.features);
        bop_write_u16(writer, in->append_result.capacity);
        break;
    case BOP_RAFT_VOTE:
        bop_write_u64(writer, in->vote.candidate);
        bop_write_u64(writer, in->vote.last_index);
        bop_write_u64(writer, in->vote.last_term);
        bop_write_bool(writer, in->vote.disrupt_leader);
        bop_write_bool(writer, in->vote.pre_vote);
        break;
    case BOP_RAFT_VOTE_RESULT:
        bop_write_bool(writer, in->vote_result.granted);
        bop_write_bool(writer, in->vote_result.pre_vote);
        bop_write_u16(writer, in->vote_result.features);
        bop_write_u16(writer, in->vote_result.capacity);
        break;
    case BOP_RAFT_TIMEOUT_NOW:
        bop_write_u64(writer, in->timeout_now.last_index);
        bop_write_u64(writer, in->timeout_now.last_term);
        break;
    case BOP_RAFT_READ_PROBE:
    case BOP_RAFT_READ_PROBE_RESULT:
    case BOP_RAFT_READ_REQUEST:
    case BOP_RAFT_READ_RESULT:
        bop_write_u64(writer, in->read.sequence);
        bop_write_u64(writer, in->read.index);
        break;
    case BOP_RAFT_INSTALL:
        BOP_ASSERT(in->type != BOP_RAFT_INSTALL);
    }
}

void bop__peer_entry_encode(struct bop_writer *writer, const struct bop_raft_entry *entry)
{
    bop_write_u64(writer, entry->term);
    bop_write_u8(writer, (uint8_t)entry->type);
    bop_write_bytes(writer, entry->data);
}

int bop__peer_chunk_decode(struct bop_slice payload, struct peer_chunk *out)
{
    struct bop_reader reader = bop_reader(payload);

    out->raft_term = read_term(&reader);
    out->index = bop_read_u64(&reader);
    out->term = read_term(&reader);
    out->size = bop_read_u64(&reader);
    out->offset = bop_read_u64(&reader);
    out->bytes = bop_read_raw(&reader, bop_reader_left(&reader));
    return done(&reader);
}

void bop__peer_chunk_encode(struct bop_writer *writer, const struct peer_chunk *in)
{
    bop_write_u64(writer, in->raft_term);
    bop_write_u64(writer, in->index);
    bop_write_u64(writer, in->term);
    bop_write_u64(writer, in->size);
    bop_write_u64(writer, in->offset);
    bop_write_raw(writer, in->bytes);
}

int bop__peer_chunk_ack_decode(struct bop_slice payload, struct peer_chunk_ack *out)
{
    struct bop_reader reader = bop_reader(payload);

    out->index = bop_read_u64(&reader);
    out->offset = bop_read_u64(&reader);
    return done(&reader);
}

void bop__peer_chunk_ack_encode(struct bop_writer *writer, const struct peer_chunk_ack *in)
{
    bop_write_u64(writer, in->index);
    bop_write_u64(writer, in->offset);
}

int bop__peer_offer_decode(struct bop_slice payload, struct peer_offer *out)
{
    struct bop_reader reader = bop_reader(payload);

    out->raft_term = read_term(&reader);
    out->index = bop_read_u64(&reader);
    out->term = read_term(&reader);
    out->size = bop_read_u64(&reader);
    return done(&reader);
}

void bop__peer_offer_encode(struct bop_writer *writer, const struct peer_offer *in)
{
    bop_write_u64(writer, in->raft_term);
    bop_write_u64(writer, in->index);
    bop_write_u64(writer, in->term);
    bop_write_u64(writer, in->size);
}

int bop__peer_have_decode(struct bop_slice payload, struct peer_have *out)
{
    struct bop_reader reader = bop_reader(payload);

    out->index = bop_read_u64(&reader);
    out->term = read_term(&reader);
    out->offset = bop_read_u64(&reader);
    out->crc = bop_read_u32(&reader);
    return done(&reader);
}

void bop__peer_have_encode(struct bop_writer *writer, const struct peer_have *in)
{
    bop_write_u64(writer, in->index);
    bop_write_u64(writer, in->term);
    bop_write_u64(writer, in->offset);
    bop_write_u32(writer, in->crc);
}
