#include "queue.h"

#include <unistd.h>

#include <bop/error.h>

/* Less than this at the front of the buffer is not worth moving the rest for. */
#define COMPACT_BYTES_MIN (64u * 1024)

/* More than this many references are not kept room for. */
#define REFS_KEPT_MAX 64

static void end_ref(struct bop__queue_ref *ref)
{
    if (ref->shared != NULL) {
        bop_shared_unref(ref->shared);
    } else {
        BOP_IGNORE(close(ref->fd)); /* It was only read. */
    }
}

void bop__queue_init(struct bop__queue *queue, struct bop_allocator *allocator)
{
    *queue = (struct bop__queue){.begun = false};
    /* Its bound is kept by who appends, in terms of what is unsent. */
    bop_buf_init(&queue->bytes, allocator, 0);
}

void bop__queue_clear(struct bop__queue *queue)
{
    while (queue->ref_first < queue->ref_end) {
        end_ref(&queue->refs[queue->ref_first++]);
    }
    queue->bytes.size = 0;
    queue->sent = 0;
    queue->base = 0;
    queue->ref_first = 0;
    queue->ref_end = 0;
    queue->ref_bytes = 0;
    queue->boundaries = false;
    queue->begun = false;
    queue->write_first = 0;
    queue->write_end = 0;
    queue->write_bytes = 0;
    if (queue->ref_capacity > REFS_KEPT_MAX) {
        bop_free(queue->bytes.allocator, queue->refs,
                 queue->ref_capacity * sizeof(struct bop__queue_ref));
        queue->refs = NULL;
        queue->ref_capacity = 0;
    }
    if (queue->writes != NULL) {
        bop_free(queue->bytes.allocator, queue->writes, queue->write_capacity * sizeof(uint64_t));
        queue->writes = NULL;
        queue->write_capacity = 0;
    }
}

void bop__queue_deinit(struct bop__queue *queue)
{
    bop__queue_clear(queue);
    if (queue->refs != NULL) {
        bop_free(queue->bytes.allocator, queue->refs,
                 queue->ref_capacity * sizeof(struct bop__queue_ref));
    }
    bop_buf_deinit(&queue->bytes);
}

/* ---- Adding ---- */

/* Make room for one more behind `end` in an array used from `first`. Returns 0 or BOP_ENOMEM. */
static int reserve(struct bop_allocator *allocator, void **array, size_t item_bytes, size_t *first,
                   size_t *end, size_t *capacity)
{
    size_t used = *end - *first, bigger = *capacity != 0 ? 2 * *capacity : 8;
    void *grown;

    if (*end < *capacity) {
        return 0;
    }
    if (*first >= used && *first > 0) { /* Each is moved once on average. */
        memmove(*array, (char *)*array + *first * item_bytes, used * item_bytes);
        *first = 0;
        *end = used;
        return 0;
    }
    grown = bop_realloc(allocator, *array, *capacity * item_bytes, bigger * item_bytes);
    if (grown == NULL) {
        return BOP_ENOMEM;
    }
    *array = grown;
    *capacity = bigger;
    return 0;
}

static int add_ref(struct bop__queue *queue, const struct bop__queue_ref *ref)
{
    void *refs = queue->refs;
    int rc = reserve(queue->bytes.allocator, &refs, sizeof(*ref), &queue->ref_first,
                     &queue->ref_end, &queue->ref_capacity);

    queue->refs = (struct bop__queue_ref *)refs;
    if (rc != 0) {
        return rc;
    }
    queue->refs[queue->ref_end] = *ref;
    queue->refs[queue->ref_end++].at = queue->base + queue->bytes.size;
    queue->ref_bytes += ref->size;
    return 0;
}

int bop__queue_add_shared(struct bop__queue *queue, struct bop_shared *shared, size_t offset,
                          size_t size)
{
    int rc = add_ref(queue, &(struct bop__queue_ref){
                                .shared = shared, .fd = -1, .offset = offset, .size = size});

    if (rc == 0) {
        bop_shared_ref(shared);
    }
    return rc;
}

int bop__queue_add_file(struct bop__queue *queue, int fd, uint64_t offset, uint64_t size)
{
    return add_ref(queue, &(struct bop__queue_ref){.fd = fd, .offset = offset, .size = size});
}

int bop__queue_mark(struct bop__queue *queue)
{
    uint64_t size = bop__queue_size(queue) - queue->write_bytes;
    void *writes = queue->writes;
    int rc;

    if (size == 0) {
        return 0;
    }
    rc = reserve(queue->bytes.allocator, &writes, sizeof(uint64_t), &queue->write_first,
                 &queue->write_end, &queue->write_capacity);
    queue->writes = (uint64_t *)writes;
    if (rc != 0) {
        return rc;
    }
    queue->writes[queue->write_end++] = size;
    queue->write_bytes += size;
    return 0;
}

/* ---- Taking from the front ---- */

int bop__queue_gather(const struct bop__queue *queue, struct iovec *pieces, int pieces_max)
{
    size_t from = queue->sent;
    int count = 0;

    for (size_t i = queue->ref_first; i <= queue->ref_end && count < pieces_max; i++) {
        const struct bop__queue_ref *ref = i < queue->ref_end ? &queue->refs[i] : NULL;
        size_t to = ref != NULL ? (size_t)(ref->at - queue->base) : queue->bytes.size;

        if (to > from) {
            pieces[count++] = (struct iovec){.iov_base = queue->bytes.data + from,
                                             .iov_len = to - from};
            from = to;
        }
        if (ref == NULL || ref->shared == NULL || count == pieces_max) {
            break;
        }
        pieces[count++] = (struct iovec){.iov_base = ref->shared->data + ref->offset,
                                         .iov_len = ref->size};
    }
    return count;
}

const struct bop__queue_ref *bop__queue_file(const struct bop__queue *queue)
{
    const struct bop__queue_ref *ref;

    if (!bop__queue_has_refs(queue)) {
        return NULL;
    }
    ref = &queue->refs[queue->ref_first];
    return ref->shared == NULL && ref->at == queue->base + queue->sent ? ref : NULL;
}

/* Bytes of the buffer were sent or dropped from its front. */
static void pass_bytes(struct bop__queue *queue, size_t count)
{
    queue->sent += count;
    if (queue->sent == queue->bytes.size) {
        queue->base += queue->sent;
        queue->bytes.size = 0;
        queue->sent = 0;
    } else if (queue->sent >= COMPACT_BYTES_MIN && queue->sent >= queue->bytes.size / 2) {
        queue->base += queue->sent;
        bop_buf_consume(&queue->bytes, queue->sent);
        queue->sent = 0;
    }
}

static void pass_writes(struct bop__queue *queue, uint64_t size)
{
    while (size > 0 && queue->write_first < queue->write_end) {
        uint64_t *left = &queue->writes[queue->write_first];
        uint64_t part = bop_min_u64(size, *left);

        *left -= part;
        size -= part;
        queue->write_bytes -= part;
        queue->begun = *left > 0;
        queue->write_first += *left == 0;
    }
}

void bop__queue_sent(struct bop__queue *queue, uint64_t size)
{
    if (queue->boundaries) {
        pass_writes(queue, size);
    }
    while (size > 0) {
        struct bop__queue_ref *ref = bop__queue_has_refs(queue) ? &queue->refs[queue->ref_first]
                                                                : NULL;
        size_t before = (ref != NULL ? (size_t)(ref->at - queue->base) : queue->bytes.size) -
                        queue->sent;
        size_t part = bop_min_u64(size, before);

        pass_bytes(queue, part);
        size -= part;
        if (size == 0 || ref == NULL) {
            BOP_ASSERT(size == 0);
            break;
        }
        part = bop_min_u64(size, ref->size);
        ref->offset += part;
        ref->size -= part;
        queue->ref_bytes -= part;
        size -= part;
        if (ref->size == 0) {
            end_ref(ref);
            queue->ref_first++;
        }
    }
}

/* ---- Dropping ---- */

/* Take `size` bytes of the stream out of it, behind the first `keep`. */
static void cut(struct bop__queue *queue, uint64_t keep, uint64_t size)
{
    uint64_t at = queue->base + queue->sent; /* Position in the copied stream. */
    size_t i = queue->ref_first, kept_refs;
    size_t from, gone = 0;

    /* Pass what is kept. */
    while (i < queue->ref_end && keep > 0) {
        uint64_t before = queue->refs[i].at - at;

        if (keep < before + queue->refs[i].size) {
            break; /* Only of copied bytes: a write that was begun ends at a reference's end. */
        }
        keep -= before + queue->refs[i].size;
        at = queue->refs[i].at;
        i++;
    }
    at += keep;
    kept_refs = i;
    from = (size_t)(at - queue->base);
    /* Drop. */
    while (size > 0) {
        uint64_t to = i < queue->ref_end ? queue->refs[i].at : queue->base + queue->bytes.size;
        uint64_t part = bop_min_u64(size, to - at);

        at += part;
        gone += (size_t)part;
        size -= part;
        if (size > 0) {
            BOP_ASSERT(i < queue->ref_end && queue->refs[i].size <= size);
            size -= queue->refs[i].size;
            queue->ref_bytes -= queue->refs[i].size;
            end_ref(&queue->refs[i++]);
        }
    }
    for (; i < queue->ref_end; i++) {
        queue->refs[i].at -= gone;
        queue->refs[kept_refs++] = queue->refs[i];
    }
    queue->ref_end = kept_refs;
    if (gone > 0) {
        memmove(queue->bytes.data + from, queue->bytes.data + from + gone,
                queue->bytes.size - from - gone);
        queue->bytes.size -= gone;
    }
}

size_t bop__queue_drop(struct bop__queue *queue, uint64_t bytes)
{
    size_t first = queue->write_first + queue->begun, end = first;
    uint64_t keep = queue->begun ? queue->writes[queue->write_first] : 0, size = 0;

    while (end < queue->write_end && size < bytes) {
        size += queue->writes[end++];
    }
    if (size == 0) {
        return 0;
    }
    cut(queue, keep, size);
    queue->write_bytes -= size;
    memmove(queue->writes + first, queue->writes + end,
            (queue->write_end - end) * sizeof(uint64_t));
    queue->write_end -= end - first;
    return end - first;
}
