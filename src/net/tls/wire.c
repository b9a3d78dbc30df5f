/*
 * The BIO between OpenSSL and the buffers of a loop.
 */
#include <openssl/err.h>

#include "stream.h"

/* Room for records around a batch: a header, a tag and a type byte for each. */
#define OUT_BYTES (BOP__TLS_BATCH_BYTES + BOP__TLS_RECORD_BYTES + 1024)

static int wire_read(BIO *bio, char *data, int size)
{
    struct bop__tls_wire *wire = (struct bop__tls_wire *)BIO_get_data(bio);
    size_t count = bop_min_u64((size_t)size, wire->in.size);

    BIO_clear_retry_flags(bio);
    if (count == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(data, wire->in.data, count);
    wire->in.data += count;
    wire->in.size -= count;
    return (int)count;
}

static int wire_write(BIO *bio, const char *data, int size)
{
    struct bop__tls_wire *wire = (struct bop__tls_wire *)BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    return bop_buf_append(&wire->out, data, (size_t)size) == 0 ? size : -1;
}

static long wire_control(BOP_UNUSED BIO *bio, int command, BOP_UNUSED long number,
                         BOP_UNUSED void *pointer)
{
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static pthread_once_t method_once = PTHREAD_ONCE_INIT;
static BIO_METHOD *method; /* For the life of the process; NULL: no memory. */

static void make_method(void)
{
    BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "bop");

    if (made != NULL && BIO_meth_set_read(made, wire_read) == 1 &&
        BIO_meth_set_write(made, wire_write) == 1 && BIO_meth_set_ctrl(made, wire_control) == 1) {
        method = made;
    } else {
        BIO_meth_free(made);
    }
}

static BIO *make_bio(struct bop__tls_wire *wire)
{
    BIO *bio;

    if (pthread_once(&method_once, make_method) != 0 || method == NULL) {
        return NULL;
    }
    bio = BIO_new(method);
    if (bio != NULL) {
        BIO_set_data(bio, wire);
        BIO_set_init(bio, 1);
    }
    return bio;
}

struct bop__tls_wire *bop__tls_wire_of(struct bop_loop *loop)
{
    struct bop_allocator *allocator = loop->allocator;
    struct bop__tls_wire *wire = loop->tls;

    if (wire != NULL) {
        return wire;
    }
    wire = (struct bop__tls_wire *)bop_alloc_zeroed(allocator, sizeof(*wire));
    if (wire == NULL) {
        return NULL;
    }
    wire->loop = loop;
    bop_list_init(&wire->waiting);
    bop_buf_init(&wire->out, allocator, 0);
    loop->tls = wire;
    wire->bio = make_bio(wire);
    wire->plain = (uint8_t *)bop_alloc(allocator, BOP__TLS_BATCH_BYTES);
    wire->gather = (uint8_t *)bop_alloc(allocator, BOP__TLS_RECORD_BYTES);
    if (wire->bio == NULL || wire->plain == NULL || wire->gather == NULL ||
        bop_buf_reserve(&wire->out, OUT_BYTES) != 0) {
        bop__tls_wire_free(loop);
        return NULL;
    }
    return wire;
}

void bop__tls_wire_free(struct bop_loop *loop)
{
    struct bop_allocator *allocator = loop->allocator;
    struct bop__tls_wire *wire = loop->tls;

    if (wire == NULL) {
        return;
    }
    loop->tls = NULL;
    BIO_free(wire->bio);
    bop_buf_deinit(&wire->out);
    if (wire->plain != NULL) {
        OPENSSL_cleanse(wire->plain, BOP__TLS_BATCH_BYTES);
        bop_free(allocator, wire->plain, BOP__TLS_BATCH_BYTES);
    }
    if (wire->gather != NULL) {
        OPENSSL_cleanse(wire->gather, BOP__TLS_RECORD_BYTES);
        bop_free(allocator, wire->gather, BOP__TLS_RECORD_BYTES);
    }
    bop_free(allocator, wire, sizeof(*wire));
}

void bop__tls_wire_begin(struct bop__tls_stream *stream, struct bop_slice in)
{
    struct bop__tls_wire *wire = stream->wire;

    BOP_DEBUG_ASSERT(wire->stream == NULL);
    wire->stream = stream;
    wire->in = in;
    ERR_clear_error(); /* Left by others, it would be taken for ours. */
}

struct bop_slice bop__tls_wire_end(struct bop__tls_wire *wire)
{
    struct bop_slice rest = wire->in;

    wire->stream = NULL;
    wire->in = bop_slice(NULL, 0);
    return rest;
}
