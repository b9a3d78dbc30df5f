/*
 * What nodes say to each other, as payloads of PEER_* frames. The layouts are in
 * docs/design/peer-protocol.md.
 */
#ifndef BOP_CLUSTER_PEER_WIRE_H
#define BOP_CLUSTER_PEER_WIRE_H

#include <bop/raft.h>
#include <bop/slice.h>
#include <bop/wire.h>

#define PEER_PROTOCOL 1

/* The highest term: the log's tags keep 56 bits of it. No honest cluster gets there. */
#define PEER_TERM_MAX ((UINT64_C(1) << 56) - 1)

/* Entries of one message, and bytes after which the owner begins another one. */
#define PEER_ENTRIES_MAX      8192
#define PEER_APPEND_BYTES_MAX (1024 * 1024)

/** PEER_HELLO: first on a connection, from the node that dialed. PEER_WELCOME is the answer. */
struct peer_hello {
    uint16_t protocol;
    uint64_t node;
    uint64_t target; /* Who the dialing node thinks it reached. */
    struct bop_slice cluster;
    struct bop_slice address; /* Where the dialing node listens. */
};
BOP_MUST_USE int bop__peer_hello_decode(struct bop_slice payload, struct peer_hello *out);
void bop__peer_hello_encode(struct bop_writer *writer, const struct peer_hello *in);

/** PEER_WELCOME: accepted or not, and why not. */
struct peer_welcome {
    uint16_t protocol;
    uint64_t node;
    struct bop_slice refusal; /* Empty: accepted. */
};
BOP_MUST_USE int bop__peer_welcome_decode(struct bop_slice payload, struct peer_welcome *out);
void bop__peer_welcome_encode(struct bop_writer *writer, const struct peer_welcome *in);

/**
 * PEER_RAFT. Entries of a decoded APPEND are put into `entries` (room for
 * PEER_ENTRIES_MAX), their data borrowed from the payload.
 */
BOP_MUST_USE int bop__peer_raft_decode(struct bop_slice payload, struct bop_raft_entry *entries,
                                       struct bop_raft_message *out);
/** Everything but the entries of an APPEND, which follow each by bop__peer_entry_encode(). */
void bop__peer_raft_encode(struct bop_writer *writer, const struct bop_raft_message *in);
void bop__peer_entry_encode(struct bop_writer *writer, const struct bop_raft_entry *entry);
/** Bytes that an entry takes in an APPEND. */
static inline size_t bop__peer_entry_size(const struct bop_raft_entry *entry)
{
    return 13 + entry->data.size;
}

/** PEER_SNAPSHOT_CHUNK. */
struct peer_chunk {
    uint64_t raft_term; /* Of the leader that sends. */
    uint64_t index;     /* Of the snapshot. */
    uint64_t term;
    uint64_t size; /* Of the file. */
    uint64_t offset;
    struct bop_slice bytes; /* The rest of the payload. */
};
BOP_MUST_USE int bop__peer_chunk_decode(struct bop_slice payload, struct peer_chunk *out);
void bop__peer_chunk_encode(struct bop_writer *writer, const struct peer_chunk *in);

/** PEER_SNAPSHOT_ACK: bytes received so far; offset UINT64_MAX: give up this transfer. */
struct peer_chunk_ack {
    uint64_t index;
    uint64_t offset;
};
BOP_MUST_USE int bop__peer_chunk_ack_decode(struct bop_slice payload, struct peer_chunk_ack *out);
void bop__peer_chunk_ack_encode(struct bop_writer *writer, const struct peer_chunk_ack *in);

/** PEER_SNAPSHOT_OFFER: a snapshot is about to be sent. How much of it is there already? */
struct peer_offer {
    uint64_t raft_term; /* Of the leader that sends. */
    uint64_t index;     /* Of the snapshot. */
    uint64_t term;
    uint64_t size; /* Of the file. */
};
BOP_MUST_USE int bop__peer_offer_decode(struct bop_slice payload, struct peer_offer *out);
void bop__peer_offer_encode(struct bop_writer *writer, const struct peer_offer *in);

/** How many of the last bytes PEER_SNAPSHOT_HAVE has a checksum of. */
#define PEER_HAVE_TAIL (512 * 1024)

/** PEER_SNAPSHOT_HAVE: so much is there. */
struct peer_have {
    uint64_t index;
    uint64_t term;
    uint64_t offset; /* 0: nothing. */
    uint32_t crc;    /* crc32c of the last PEER_HAVE_TAIL bytes of it, or of all. */
};
BOP_MUST_USE int bop__peer_have_decode(struct bop_slice payload, struct peer_have *out);
void bop__peer_have_encode(struct bop_writer *writer, const struct peer_have *in);

#endif
