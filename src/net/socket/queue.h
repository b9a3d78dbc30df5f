/*
 * What a socket has to send: copied bytes in one buffer, and references to
 * counted buffers and files between them.
 *
 *      bytes   |----sent----|------|--------|-----|
 *      refs                        ^ at     ^ at
 *
 * The copied bytes are one stream, in which each reference has its place: so a
 * user may append to the buffer itself and need not know of references. A queue
 * is borrowed from the loop when there is something to send and given back when
 * all is sent; the one given back last, whose memory the processor has at hand,
 * is lent first.
 *
 * With boundaries, it knows where each write ends, so that whole writes can be
 * dropped from the front.
 */
#ifndef BOP_NET_QUEUE_H
#define BOP_NET_QUEUE_H

#include <sys/uio.h>

#include <bop/shared.h>
#include <bop/slice.h>

/** A piece of the stream that was not copied. */
struct bop__queue_ref {
    uint64_t at;               /* Before this byte of all that was ever copied. */
    struct bop_shared *shared; /* NULL: a file. */
    int fd;
    uint64_t offset; /* Of what is unsent. */
    uint64_t size;
};

struct bop__queue {
    struct bop_buf bytes;
    size_t sent;   /* Of bytes, that are still in front. */
    uint64_t base; /* Bytes that were copied before those in the buffer. */

    struct bop__queue_ref *refs; /* ref_first to ref_end are in use. */
    size_t ref_first;
    size_t ref_end;
    size_t ref_capacity;
    uint64_t ref_bytes; /* Unsent bytes of references. */

    bool boundaries;
    bool begun;       /* Of the first write something was sent. */
    uint64_t *writes; /* Bytes unsent of each write; those in write_first to write_end. */
    size_t write_first;
    size_t write_end;
    size_t write_capacity;
    uint64_t write_bytes; /* Their sum: what is more was appended unseen. */
};

void bop__queue_init(struct bop__queue *queue, struct bop_allocator *allocator);
void bop__queue_deinit(struct bop__queue *queue);
/** Drop all that is queued; keeps the memory. */
void bop__queue_clear(struct bop__queue *queue);

static inline uint64_t bop__queue_size(const struct bop__queue *queue)
{
    return queue->bytes.size - queue->sent + queue->ref_bytes;
}

static inline bool bop__queue_has_refs(const struct bop__queue *queue)
{
    return queue->ref_first != queue->ref_end;
}

/** With nothing but copied bytes, no boundaries and all sent: as good as new. */
static inline bool bop__queue_is_plain(const struct bop__queue *queue)
{
    return queue->bytes.size == 0 && queue->ref_capacity == 0 && !queue->boundaries &&
           queue->write_capacity == 0;
}

/** Both take a reference or the descriptor on success only. Return 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__queue_add_shared(struct bop__queue *queue, struct bop_shared *shared,
                                       size_t offset, size_t size);
BOP_MUST_USE int bop__queue_add_file(struct bop__queue *queue, int fd, uint64_t offset,
                                     uint64_t size);

/** With boundaries: what was added since the last call is one write. Returns 0 or BOP_ENOMEM, after
 * which it counts as part of the next. */
BOP_MUST_USE int bop__queue_mark(struct bop__queue *queue);
/** Drop whole writes that were not begun from the front, until `bytes` went or there are no more.
 * Returns how many writes went. */
size_t bop__queue_drop(struct bop__queue *queue, uint64_t bytes);

/** The front of the stream in pieces, up to the first file, if any. Returns their number. */
int bop__queue_gather(const struct bop__queue *queue, struct iovec *pieces, int pieces_max);
/** The file at the very front, or NULL. */
const struct bop__queue_ref *bop__queue_file(const struct bop__queue *queue);
/** The front was sent. */
void bop__queue_sent(struct bop__queue *queue, uint64_t size);

#endif
