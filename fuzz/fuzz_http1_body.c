/*
 * Fuzzes the decoder of bodies. The first byte picks the framing, the next three
 * where it is cut.
 *
 * Property: in whatever pieces a body comes, its content, what is left and the
 * verdict are those of the whole; and nothing is both content and left.
 */
#include <stdlib.h>

#include <bop/error.h>
#include <bop/http1.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

struct decoded {
    struct bop_http1_body body;
    struct bop_buf content;
    size_t taken;
    int rc;
};

static void begin(struct decoded *d, uint8_t choice)
{
    static struct bop_http_head head;

    head.framing = choice % 8 == 0   ? BOP_HTTP_LENGTH
                   : choice % 8 == 1 ? BOP_HTTP_UNTIL_CLOSE
                   : choice % 8 == 2 ? BOP_HTTP_NO_BODY
                                     : BOP_HTTP_CHUNKED;
    head.content_length = choice;
    bop_http1_body_init(&d->body, &head);
    bop_buf_init(&d->content, NULL, 0);
    d->taken = 0;
    d->rc = BOP_ETRUNCATED;
}

static void piece(struct decoded *d, struct bop_slice bytes)
{
    uint8_t *copy = malloc(bytes.size > 0 ? bytes.size : 1);
    struct bop_slice left, data;

    require(copy != NULL);
    memcpy(copy, bytes.data, bytes.size);
    left = bop_slice(copy, bytes.size);
    for (;;) {
        const uint8_t *from = left.data;

        d->rc = bop_http1_body_decode(&d->body, &left, &data);
        require(left.data + left.size == copy + bytes.size);
        if (d->rc != 1) {
            break;
        }
        require(data.size > 0 && data.data >= from && data.data + data.size <= left.data);
        require(bop_buf_append(&d->content, data.data, data.size) == 0);
    }
    require(data.size == 0 && (d->rc != BOP_ETRUNCATED || left.size == 0));
    d->taken += bytes.size - left.size;
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct decoded whole, cut;
    size_t at = 0, turn = 0;

    if (size < 4) {
        return 0;
    }
    begin(&whole, data[0]);
    piece(&whole, bop_slice(data + 4, size - 4));
    begin(&cut, data[0]);
    while (at < size - 4 && cut.rc == BOP_ETRUNCATED) {
        size_t next = 1 + data[1 + turn++ % 3] % 32;

        next = next < size - 4 - at ? next : size - 4 - at;
        piece(&cut, bop_slice(data + 4 + at, next));
        at += next;
    }
    require(size == 4 || cut.rc == whole.rc);
    require(size == 4 || cut.taken == whole.taken);
    require(bop_slice_equal(bop_buf_slice(&cut.content), bop_buf_slice(&whole.content)));
    bop_buf_deinit(&whole.content);
    bop_buf_deinit(&cut.content);
    return 0;
}
