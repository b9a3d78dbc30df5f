/*
 * Bytes: borrowed slices, growable buffers, and checked little-endian readers
 * and writers.
 *
 * A reader never reads past its slice: the first read that would, or that finds
 * a value its type does not allow, sets `failed`, and from then on every read
 * gives zeros. So a decoder reads all its fields and checks once at the end.
 * A writer appends to a buffer and works the same way when memory runs out or
 * the buffer's bound is met.
 */
#ifndef BOP_SLICE_H
#define BOP_SLICE_H

#include <string.h>

#include <bop/alloc.h>
#include <bop/base.h>

/** Borrowed bytes, passed by value. data may be NULL when size is 0. */
struct bop_slice {
    const uint8_t *data;
    size_t size;
};

static inline struct bop_slice bop_slice(const void *data, size_t size)
{
    return (struct bop_slice){.data = (const uint8_t *)data, .size = size};
}

static inline struct bop_slice bop_slice_cstr(const char *text)
{
    return bop_slice(text, strlen(text));
}

static inline bool bop_slice_equal(struct bop_slice a, struct bop_slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/** Below, at or above 0 as memcmp; of two where one begins the other, the shorter is less. */
BOP_API int bop_slice_compare(struct bop_slice a, struct bop_slice b);

/** True if the bytes are well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms). */
BOP_API bool bop_slice_is_utf8(struct bop_slice slice);

/* ---- Growable buffer ---- */

/**
 * Bytes that grow. Zeroed but for the allocator is a valid empty buffer; deinit
 * frees. size_max bounds its growth (0: no bound but memory).
 */
struct bop_buf {
    struct bop_allocator *allocator;
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t size_max;
};

/** An empty buffer; NULL means the default allocator. */
BOP_API void bop_buf_init(struct bop_buf *buf, struct bop_allocator *allocator, size_t size_max);
BOP_API void bop_buf_deinit(struct bop_buf *buf);

/** Make room for `more` bytes after size. Returns 0, BOP_ENOMEM or BOP_EFULL; no change on failure.
 */
BOP_API BOP_MUST_USE int bop_buf_reserve(struct bop_buf *buf, size_t more);

/** Append a copy. Returns 0, BOP_ENOMEM or BOP_EFULL; no change on failure. */
BOP_API BOP_MUST_USE int bop_buf_append(struct bop_buf *buf, const void *data, size_t size);

/** Drop the first `count` bytes (at most size) and move the rest to the front. */
BOP_API void bop_buf_consume(struct bop_buf *buf, size_t count);

/** Forget the content, keep the memory. */
static inline void bop_buf_clear(struct bop_buf *buf)
{
    buf->size = 0;
}

static inline struct bop_slice bop_buf_slice(const struct bop_buf *buf)
{
    return bop_slice(buf->data, buf->size);
}

/* ---- Fixed-position little-endian access: memory the caller has checked ---- */

static inline uint16_t bop_load_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint32_t bop_load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint64_t bop_load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline void bop_store_u16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof(v));
}

static inline void bop_store_u32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static inline void bop_store_u64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bop_load_* and bop_store_* assume a little-endian machine"
#endif

/* ---- Checked reader ---- */

struct bop_reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

static inline struct bop_reader bop_reader(struct bop_slice slice)
{
    /* Adding even 0 to NULL is undefined. */
    return (struct bop_reader){.at = slice.data,
                               .end = slice.size > 0 ? slice.data + slice.size : slice.data,
                               .failed = false};
}

static inline size_t bop_reader_left(const struct bop_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/** True if nothing failed and every byte was read: what a decoder returns on. */
static inline bool bop_reader_done(const struct bop_reader *reader)
{
    return !reader->failed && reader->at == reader->end;
}

BOP_API uint8_t bop_read_u8(struct bop_reader *reader);
BOP_API uint16_t bop_read_u16(struct bop_reader *reader);
BOP_API uint32_t bop_read_u32(struct bop_reader *reader);
BOP_API uint64_t bop_read_u64(struct bop_reader *reader);
BOP_API int64_t bop_read_i64(struct bop_reader *reader);
/** A byte that is 0 or 1; any other fails the reader. */
BOP_API bool bop_read_bool(struct bop_reader *reader);
/** Exactly size bytes, borrowed from what is being read. */
BOP_API struct bop_slice bop_read_raw(struct bop_reader *reader, size_t size);
/** u32 length, then that many bytes, borrowed. */
BOP_API struct bop_slice bop_read_bytes(struct bop_reader *reader);
/** As bop_read_bytes(); what is not UTF-8 fails the reader. */
BOP_API struct bop_slice bop_read_string(struct bop_reader *reader);

/* ---- Checked writer ---- */

/** Appends to a buffer it borrows. code is 0 or the first failure (BOP_ENOMEM, BOP_EFULL). */
struct bop_writer {
    struct bop_buf *buf;
    int code;
};

static inline struct bop_writer bop_writer(struct bop_buf *buf)
{
    return (struct bop_writer){.buf = buf, .code = 0};
}

BOP_API void bop_write_u8(struct bop_writer *writer, uint8_t value);
BOP_API void bop_write_u16(struct bop_writer *writer, uint16_t value);
BOP_API void bop_write_u32(struct bop_writer *writer, uint32_t value);
BOP_API void bop_write_u64(struct bop_writer *writer, uint64_t value);
BOP_API void bop_write_i64(struct bop_writer *writer, int64_t value);
BOP_API void bop_write_bool(struct bop_writer *writer, bool value);
BOP_API void bop_write_raw(struct bop_writer *writer, struct bop_slice bytes);
/** u32 length, then the bytes. More than 2^32 - 1 fails with BOP_EFULL. */
BOP_API void bop_write_bytes(struct bop_writer *writer, struct bop_slice bytes);

#endif
