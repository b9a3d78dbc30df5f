/*
 * Do all nodes hold the same? Whoever takes a snapshot tells the others the digest of its
 * content. Snapshots are taken at multiples of snapshot_entries, so that nodes have some of
 * the same index.
 *
 * A node whose state differs from that of a majority of the servers, which is of one mind,
 * must not answer for it any more: it fails. That it has to find out itself: nobody else
 * can make it stop.
 */
#include "machine_record.h"
#include "replica_internal.h"

static const struct replica_digest *find(const struct replica_digest *digests, uint64_t index)
{
    for (unsigned n = 0; n < DIGESTS_KEPT; n++) {
        if (index != 0 && digests[n].index == index) {
            return &digests[n];
        }
    }
    return NULL;
}

static void keep(struct replica_digest *digests, const struct replica_digest *digest)
{
    unsigned oldest = 0;

    for (unsigned n = 1; n < DIGESTS_KEPT; n++) {
        if (digests[n].index < digests[oldest].index) {
            oldest = n;
        }
    }
    digests[oldest] = *digest;
}

/* How many of the others have this digest at its index. */
static unsigned count_like(const struct replica *replica, const struct replica_digest *wanted)
{
    unsigned count = 0;

    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers); n++) {
        const struct replica_digest *digest = find(replica->peers[n].digests, wanted->index);

        count += replica->peers[n].id != 0 && digest && digest->format == wanted->format &&
                 digest->digest == wanted->digest;
    }
    return count;
}

/* A peer's digest of an index of which we have one, and it is another. */
static void differ(struct replica *replica, uint64_t peer, const struct replica_digest *own,
                   const struct replica_digest *other)
{
    bop_metric_add(replica->metrics.digest_mismatches, 1);
    bop_log(replica->options.log, BOP_LOG_ERROR, "state",
            "the state at entry %" PRIu64 " is another one at node %" PRIu64 ": digest %016" PRIx64
            " here, %016" PRIx64 " there",
            own->index, peer, own->digest, other->digest);
    if (count_like(replica, other) > replica->conf.count / 2) {
        bop__replica_fail(replica, BOP_ECORRUPT,
                          "the state of this node at entry %" PRIu64
                          " is not that of a majority: keep its data directory for whoever looks "
                          "into it, and give the node a new one with `bop cluster replace`",
                          own->index);
    }
}

static void compare(struct replica *replica, const struct replica_peer *peer, uint64_t index)
{
    const struct replica_digest *own = find(replica->digests, index);
    const struct replica_digest *other = find(peer->digests, index);

    /* States of two formats are told in other bytes. */
    if (own && other && own->format == other->format && own->digest != other->digest) {
        differ(replica, peer->id, own, other);
    }
}

static void tell(struct replica *replica, const struct replica_peer *peer,
                 const struct replica_digest *digest)
{
    struct bop_writer writer;
    size_t at;
    struct bop_buf *out;

    /* One that announced no level is of a version that does not know the kind. */
    if (replica->members.hellos && peer->level == 0) {
        return;
    }
    out = bop__replica_frame_begin(replica, peer->id, &at);
    if (out) {
        writer = bop_writer(out);
        bop_write_u64(&writer, digest->index);
        bop_write_u32(&writer, digest->format);
        bop_write_u64(&writer, digest->digest);
        bop__replica_frame_end(replica, peer->id, out, at, BOP_WIRE_KIND_PEER_DIGEST, &writer);
    }
}

void bop__replica_digest_taken(struct replica *replica, uint64_t index, uint64_t digest)
{
    struct replica_digest own = {.index = index, .format = MACHINE_FORMAT, .digest = digest};

    keep(replica->digests, &own);
    for (size_t n = 0; n < BOP_COUNT_OF(replica->peers) && replica->failed == 0; n++) {
        const struct replica_peer *peer = &replica->peers[n];

        if (peer->id != 0 && peer->connected) {
            tell(replica, peer, &own);
        }
        if (peer->id != 0) {
            compare(replica, peer, index);
        }
    }
}

int bop__replica_digest_told(struct replica *replica, struct replica_peer *peer,
                             struct bop_slice payload)
{
    struct bop_reader reader = bop_reader(payload);
    struct replica_digest told = {.index = bop_read_u64(&reader)};

    told.format = bop_read_u32(&reader);
    told.digest = bop_read_u64(&reader);
    if (!bop_reader_done(&reader) || told.index == 0) {
        return BOP_EMALFORMED;
    }
    keep(peer->digests, &told);
    compare(replica, peer, told.index);
    return 0;
}
