/*
 * Slices, growable buffers, checked readers and writers.
 */
#include <bop/slice.h>

#include <bop/error.h>
#include <bop/mem.h>

/* The first allocation of a buffer; from there on it doubles. */
#define BUF_CAPACITY_MIN 64

int bop_slice_compare(struct bop_slice a, struct bop_slice b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common > 0 ? memcmp(a.data, b.data, common) : 0;

    if (order != 0) {
        return order;
    }
    return (a.size > b.size) - (a.size < b.size);
}

/*
 * The length of the well-formed sequence at `at`, or 0. RFC 3629: what limits
 * the second byte keeps out overlong forms (E0, F0), surrogates (ED) and what
 * lies above U+10FFFF (F4).
 */
static size_t utf8_sequence(const uint8_t *at, size_t left)
{
    uint8_t lead = at[0];
    uint8_t low = 0x80, high = 0xbf;
    size_t length;

    if (lead < 0x80) {
        return 1;
    }
    if (lead < 0xc2 || lead > 0xf4) {
        return 0;
    }
    length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (left < length) {
        return 0;
    }
    if (lead == 0xe0) {
        low = 0xa0;
    } else if (lead == 0xed) {
        high = 0x9f;
    } else if (lead == 0xf0) {
        low = 0x90;
    } else if (lead == 0xf4) {
        high = 0x8f;
    }
    if (at[1] < low || at[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

bool bop_slice_is_utf8(struct bop_slice slice)
{
    size_t at = 0;

    while (at < slice.size) {
        size_t length;

        /* Most text is ASCII: eight bytes at once. */
        if (slice.size - at >= 8 &&
            (bop_load_u64(slice.data + at) & UINT64_C(0x8080808080808080)) == 0) {
            at += 8;
            continue;
        }
        length = utf8_sequence(slice.data + at, slice.size - at);
        if (length == 0) {
            return false;
        }
        at += length;
    }
    return true;
}

/* ---- Growable buffer ---- */

void bop_buf_init(struct bop_buf *buf, struct bop_allocator *allocator, size_t size_max)
{
    *buf = (struct bop_buf){.allocator = bop_allocator_or_tag(allocator, "core.buffer"),
                            .size_max = size_max};
}

void bop_buf_deinit(struct bop_buf *buf)
{
    if (buf->data) {
        bop_free(bop_allocator_or_tag(buf->allocator, "core.buffer"), buf->data, buf->capacity);
    }
    buf->data = NULL;
    buf->size = 0;
    buf->capacity = 0;
}

int bop_buf_reserve(struct bop_buf *buf, size_t more)
{
    size_t capacity;
    uint8_t *data;

    if (buf->size_max > 0 && (buf->size > buf->size_max || more > buf->size_max - buf->size)) {
        return BOP_EFULL;
    }
    if (more <= buf->capacity - buf->size) {
        return 0;
    }
    if (more > SIZE_MAX / 2 - buf->size) {
        return BOP_ENOMEM;
    }

    capacity = buf->capacity < BUF_CAPACITY_MIN ? BUF_CAPACITY_MIN : buf->capacity * 2;
    if (buf->size_max > 0 && capacity > buf->size_max) {
        capacity = buf->size_max;
    }
    if (capacity < buf->size + more) {
        capacity = buf->size + more;
    }
    data = bop_realloc(bop_allocator_or_tag(buf->allocator, "core.buffer"), buf->data,
                       buf->capacity, capacity);
    if (!data) {
        return BOP_ENOMEM;
    }
    buf->data = data;
    buf->capacity = capacity;
    return 0;
}

int bop_buf_append(struct bop_buf *buf, const void *data, size_t size)
{
    int rc = bop_buf_reserve(buf, size);

    if (rc == 0 && size > 0) {
        memcpy(buf->data + buf->size, data, size);
        buf->size += size;
    }
    return rc;
}

void bop_buf_consume(struct bop_buf *buf, size_t count)
{
    if (count >= buf->size) {
        buf->size = 0;
    } else if (count > 0) {
        memmove(buf->data, buf->data + count, buf->size - count);
        buf->size -= count;
    }
}

/* ---- Checked reader ---- */

/* A failed reader has nothing left, so that a loop over what is left ends too. */
static void fail_reader(struct bop_reader *reader)
{
    reader->failed = true;
    reader->at = reader->end;
}

/* The next size bytes, or NULL. size is not 0. */
static const uint8_t *take(struct bop_reader *reader, size_t size)
{
    const uint8_t *at = reader->at;

    if (reader->failed || size > bop_reader_left(reader)) {
        fail_reader(reader);
        return NULL;
    }
    reader->at += size;
    return at;
}

uint8_t bop_read_u8(struct bop_reader *reader)
{
    const uint8_t *at = take(reader, 1);

    return at ? *at : 0;
}

uint16_t bop_read_u16(struct bop_reader *reader)
{
    const uint8_t *at = take(reader, 2);

    return at ? bop_load_u16(at) : 0;
}

uint32_t bop_read_u32(struct bop_reader *reader)
{
    const uint8_t *at = take(reader, 4);

    return at ? bop_load_u32(at) : 0;
}

uint64_t bop_read_u64(struct bop_reader *reader)
{
    const uint8_t *at = take(reader, 8);

    return at ? bop_load_u64(at) : 0;
}

int64_t bop_read_i64(struct bop_reader *reader)
{
    return (int64_t)bop_read_u64(reader);
}

bool bop_read_bool(struct bop_reader *reader)
{
    uint8_t value = bop_read_u8(reader);

    if (value > 1) {
        fail_reader(reader);
        return false;
    }
    return value == 1;
}

struct bop_slice bop_read_raw(struct bop_reader *reader, size_t size)
{
    const uint8_t *at;

    if (size == 0) {
        return bop_slice(reader->at, 0);
    }
    at = take(reader, size);
    return at ? bop_slice(at, size) : bop_slice(NULL, 0);
}

struct bop_slice bop_read_bytes(struct bop_reader *reader)
{
    uint32_t size = bop_read_u32(reader);

    return bop_read_raw(reader, size);
}

struct bop_slice bop_read_string(struct bop_reader *reader)
{
    struct bop_slice text = bop_read_bytes(reader);

    if (!bop_slice_is_utf8(text)) {
        fail_reader(reader);
        return bop_slice(NULL, 0);
    }
    return text;
}

/* ---- Checked writer ---- */

static void write_bytes(struct bop_writer *writer, const void *data, size_t size)
{
    if (writer->code == 0) {
        writer->code = bop_buf_append(writer->buf, data, size);
    }
}

void bop_write_u8(struct bop_writer *writer, uint8_t value)
{
    write_bytes(writer, &value, sizeof(value));
}

void bop_write_u16(struct bop_writer *writer, uint16_t value)
{
    write_bytes(writer, &value, sizeof(value));
}

void bop_write_u32(struct bop_writer *writer, uint32_t value)
{
    write_bytes(writer, &value, sizeof(value));
}

void bop_write_u64(struct bop_writer *writer, uint64_t value)
{
    write_bytes(writer, &value, sizeof(value));
}

void bop_write_i64(struct bop_writer *writer, int64_t value)
{
    write_bytes(writer, &value, sizeof(value));
}

void bop_write_bool(struct bop_writer *writer, bool value)
{
    bop_write_u8(writer, value ? 1 : 0);
}

void bop_write_raw(struct bop_writer *writer, struct bop_slice bytes)
{
    write_bytes(writer, bytes.data, bytes.size);
}

void bop_write_bytes(struct bop_writer *writer, struct bop_slice bytes)
{
    if (bytes.size > UINT32_MAX) {
        if (writer->code == 0) {
            writer->code = BOP_EFULL;
        }
        return;
    }
    bop_write_u32(writer, (uint32_t)bytes.size);
    bop_write_raw(writer, bytes);
}
