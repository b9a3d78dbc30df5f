/*
 * gzip of answers, with zlib. One deflate state lies ready in the server; more
 * are made for answers that go on at the same time, 260 KiB each.
 */
#include <zlib.h>

#include "../text.h"
#include "files.h"
#include "server_internal.h"

/* Half the time of zlib's default for a few percent more bytes. */
#define LEVEL 4

struct bop__http_deflate {
    struct bop_allocator *allocator;
    z_stream stream;
    struct bop_buf out;
};

/* zlib does not give sizes back: they lie before the blocks. */
#define SIZE_ROOM 16u

static void *zlib_alloc(void *opaque, unsigned count, unsigned size)
{
    struct bop_allocator *allocator = (struct bop_allocator *)opaque;
    size_t bytes = (size_t)count * size + SIZE_ROOM;
    uint8_t *block = (uint8_t *)bop_alloc(allocator, bytes);

    if (block == NULL) {
        return NULL;
    }
    memcpy(block, &bytes, sizeof(bytes));
    return block + SIZE_ROOM;
}

static void zlib_free(void *opaque, void *memory)
{
    struct bop_allocator *allocator = (struct bop_allocator *)opaque;
    uint8_t *block = (uint8_t *)memory - SIZE_ROOM;
    size_t bytes;

    memcpy(&bytes, block, sizeof(bytes));
    bop_free(allocator, block, bytes);
}

static void deflate_destroy(struct bop__http_deflate *deflate)
{
    BOP_IGNORE(deflateEnd(&deflate->stream)); /* Says only whether some was left. */
    bop_buf_deinit(&deflate->out);
    bop_free(deflate->allocator, deflate, sizeof(*deflate));
}

static struct bop__http_deflate *deflate_take(struct bop_http_server *server)
{
    struct bop__http_deflate *deflate = server->deflate_spare;

    if (deflate != NULL) {
        server->deflate_spare = NULL;
        return deflate;
    }
    deflate = (struct bop__http_deflate *)bop_alloc_zeroed(server->allocator, sizeof(*deflate));
    if (deflate == NULL) {
        return NULL;
    }
    deflate->allocator = server->allocator;
    bop_buf_init(&deflate->out, server->allocator, 0);
    deflate->stream.zalloc = zlib_alloc;
    deflate->stream.zfree = zlib_free;
    deflate->stream.opaque = server->allocator;
    /* 15 bits of window, and 16 for gzip's head and sum. */
    if (deflateInit2(&deflate->stream, LEVEL, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        bop_free(server->allocator, deflate, sizeof(*deflate));
        return NULL;
    }
    return deflate;
}

static void deflate_give(struct bop_http_server *server, struct bop__http_deflate *deflate)
{
    if (server->deflate_spare != NULL || deflateReset(&deflate->stream) != Z_OK) {
        deflate_destroy(deflate);
        return;
    }
    bop_buf_deinit(&deflate->out);
    server->deflate_spare = deflate;
}

void bop__http_deflate_free(struct bop_http_server *server)
{
    if (server->deflate_spare != NULL) {
        deflate_destroy(server->deflate_spare);
        server->deflate_spare = NULL;
    }
}

/* Append what becomes of some bytes. */
static int run(z_stream *stream, struct bop_slice bytes, int flush, struct bop_buf *out)
{
    struct bop_slice left = bytes;
    int rc;

    do {
        /* avail_in has 32 bits. */
        size_t size = bop_min_u64(left.size, 1u << 30);
        bool all = size == left.size;

        stream->next_in = (Bytef *)(uintptr_t)left.data; /* zlib reads only. */
        stream->avail_in = (uInt)size;
        do {
            rc = bop_buf_reserve(out, bop_max_u64(size / 4, 512));
            if (rc != 0) {
                return rc;
            }
            stream->next_out = out->data + out->size;
            stream->avail_out = (uInt)bop_min_u64(out->capacity - out->size, 1u << 30);
            rc = deflate(stream, all ? flush : Z_NO_FLUSH);
            BOP_ASSERT(rc != Z_STREAM_ERROR);
            out->size = (size_t)(stream->next_out - out->data);
        } while (stream->avail_out == 0);
        left = all ? bop_slice(NULL, 0) : bop_slice(left.data + size, left.size - size);
    } while (left.size > 0);
    return 0;
}

int bop__http_gzip(struct bop_http_server *server, struct bop_slice bytes, struct bop_buf *out)
{
    struct bop__http_deflate *deflate = deflate_take(server);
    int rc;

    if (deflate == NULL) {
        return BOP_ENOMEM;
    }
    rc = run(&deflate->stream, bytes, Z_FINISH, out);
    deflate_give(server, deflate);
    return rc;
}

int bop__http_deflate_begin(struct bop__exchange *ex)
{
    ex->deflate = deflate_take(ex->conn->server);
    return ex->deflate != NULL ? 0 : BOP_ENOMEM;
}

int bop__http_deflate_piece(struct bop__http_deflate *deflate, struct bop_slice bytes, bool last,
                            struct bop_slice *out_bytes)
{
    int rc;

    bop_buf_clear(&deflate->out);
    rc = run(&deflate->stream, bytes, last ? Z_FINISH : Z_SYNC_FLUSH, &deflate->out);
    *out_bytes = bop_buf_slice(&deflate->out);
    return rc;
}

void bop__http_deflate_end(struct bop__exchange *ex)
{
    if (ex->deflate != NULL) {
        deflate_give(ex->conn->server, ex->deflate);
        ex->deflate = NULL;
    }
}

/* ---- What the client takes ---- */

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static struct bop_slice trim(struct bop_slice text)
{
    while (text.size > 0 && is_space(text.data[0])) {
        text = bop_slice(text.data + 1, text.size - 1);
    }
    while (text.size > 0 && is_space(text.data[text.size - 1])) {
        text.size--;
    }
    return text;
}

/* The part before a character, and the rest behind it; without it, all and nothing. */
static struct bop_slice cut(struct bop_slice *text, char at)
{
    const uint8_t *found = text->size > 0 ? (const uint8_t *)memchr(text->data, at, text->size)
                                          : NULL;
    struct bop_slice before = *text;

    if (found == NULL) {
        *text = bop_slice(NULL, 0);
    } else {
        before.size = (size_t)(found - text->data);
        *text = bop_slice(found + 1, text->size - before.size - 1);
    }
    return trim(before);
}

/* "q=0", "q=0.000": not acceptable. */
static bool is_refused(struct bop_slice parameters)
{
    while (parameters.size > 0) {
        struct bop_slice value = cut(&parameters, ';');
        struct bop_slice name = cut(&value, '=');

        if (bop__text_is(name, "q")) {
            value = trim(value);
            for (size_t i = 0; i < value.size; i++) {
                if (value.data[i] != '0' && value.data[i] != '.') {
                    return false;
                }
            }
            return value.size > 0;
        }
    }
    return false;
}

bool bop__http_accepts_gzip(const struct bop_http_head *head)
{
    struct bop_slice list = bop_http_known(head, BOP_HTTP_ACCEPT_ENCODING);
    bool any = false;

    while (list.size > 0) {
        struct bop_slice element = cut(&list, ',');
        struct bop_slice coding = cut(&element, ';');

        if (bop__text_is(coding, "gzip") || bop__text_is(coding, "x-gzip")) {
            return !is_refused(element); /* By its name, whatever "*" says. */
        }
        if (bop__text_is(coding, "*")) {
            any = !is_refused(element);
        }
    }
    return any;
}

int bop_http_compress(struct bop_http_exchange *http)
{
    struct bop__exchange *ex = bop__exchange_of(http);
    int rc;

    if (ex == NULL) {
        return BOP_ECLOSED;
    }
    if (ex->head == NULL || ex->head_sent || ex->has_length || ex->deflate != NULL) {
        return BOP_EINVAL;
    }
    rc = bop__exchange_add_header(ex, "Vary", bop_slice_cstr("Accept-Encoding"));
    if (rc == 0 && bop__http_accepts_gzip(ex->head)) {
        rc = bop__http_deflate_begin(ex);
    }
    return rc;
}
