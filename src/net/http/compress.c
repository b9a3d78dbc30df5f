/*
 * Compressed answers, with zlib: gzip, and deflate for clients that like it better.
 * One deflate state of each lies ready in the server once it was used; more are
 * made for answers that go on at the same time, 260 KiB each.
 */
#include <zlib.h>

#include "server_internal.h"

/* Half the time of zlib's default for a few percent more bytes. */
#define LEVEL 4

struct bop__http_deflate {
    struct bop_allocator *allocator;
    enum bop__http_coding coding;
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

static struct bop__http_deflate *deflate_take(struct bop_http_server *server,
                                              enum bop__http_coding coding)
{
    struct bop__http_deflate *deflate = server->deflate_spares[coding];
    int wrapping = coding == BOP__HTTP_GZIP ? 16 : 0; /* zlib's head and sum, or gzip's. */

    BOP_ASSERT(coding != BOP__HTTP_IDENTITY);
    if (deflate != NULL) {
        server->deflate_spares[coding] = NULL;
        return deflate;
    }
    deflate = (struct bop__http_deflate *)bop_alloc_zeroed(server->allocator, sizeof(*deflate));
    if (deflate == NULL) {
        return NULL;
    }
    deflate->allocator = server->allocator;
    deflate->coding = coding;
    bop_buf_init(&deflate->out, server->allocator, 0);
    deflate->stream.zalloc = zlib_alloc;
    deflate->stream.zfree = zlib_free;
    deflate->stream.opaque = server->allocator;
    if (deflateInit2(&deflate->stream, LEVEL, Z_DEFLATED, 15 + wrapping, 8, Z_DEFAULT_STRATEGY) !=
        Z_OK) {
        bop_free(server->allocator, deflate, sizeof(*deflate));
        return NULL;
    }
    return deflate;
}

static void deflate_give(struct bop_http_server *server, struct bop__http_deflate *deflate)
{
    struct bop__http_deflate **spare = &server->deflate_spares[deflate->coding];

    if (*spare != NULL || deflateReset(&deflate->stream) != Z_OK) {
        deflate_destroy(deflate);
        return;
    }
    bop_buf_deinit(&deflate->out);
    *spare = deflate;
}

void bop__http_deflate_free(struct bop_http_server *server)
{
    for (unsigned i = 0; i < BOP__HTTP_CODINGS; i++) {
        if (server->deflate_spares[i] != NULL) {
            deflate_destroy(server->deflate_spares[i]);
            server->deflate_spares[i] = NULL;
        }
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

int bop__http_deflate_all(struct bop__http_deflate *deflate, struct bop_slice bytes,
                          struct bop_buf *out)
{
    return run(&deflate->stream, bytes, Z_FINISH, out);
}

const char *bop__http_deflate_name(const struct bop__http_deflate *deflate)
{
    return bop__http_coding_name(deflate->coding);
}

int bop__http_deflate_begin(struct bop__exchange *ex, enum bop__http_coding coding)
{
    ex->deflate = deflate_take(ex->conn->server, coding);
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

int bop_http_compress(struct bop_http_exchange *http)
{
    struct bop__exchange *ex = bop__exchange_of(http);
    struct bop__http_accepts accepts;
    enum bop__http_coding coding;
    int rc;

    if (ex == NULL) {
        return BOP_ECLOSED;
    }
    if (ex->head == NULL || ex->head_sent || ex->has_length || ex->deflate != NULL) {
        return BOP_EINVAL;
    }
    rc = bop__exchange_add_header(ex, "Vary", bop_slice_cstr("Accept-Encoding"));
    if (rc != 0) {
        return rc;
    }
    accepts = bop__http_accepts(ex->head);
    coding = bop__http_choose_coding(&accepts);
    return coding != BOP__HTTP_IDENTITY ? bop__http_deflate_begin(ex, coding) : 0;
}
