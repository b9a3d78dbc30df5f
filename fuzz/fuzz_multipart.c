/*
 * Fuzzes multipart/form-data: what comes out is the same however the body is cut.
 * The first byte says where.
 */
#include <stdlib.h>

#include <bop/error.h>
#include <bop/multipart.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void tell(struct bop_buf *story, struct bop_slice text)
{
    require(text.size == 0 || bop_buf_append(story, text.data, text.size) == 0);
}

/* Feed pieces of so many bytes, and write down what comes out. Returns how it ended. */
static int run(struct bop_slice body, size_t step, struct bop_buf *story)
{
    struct bop_multipart multipart;
    struct bop_multipart_piece piece;
    int rc;

    require(bop_multipart_init(&multipart, bop_slice_cstr("multipart/form-data; boundary=b"),
                               NULL) == 0);
    bop_buf_clear(story);
    do {
        size_t count = bop_min_u64(step, body.size);

        require(bop_multipart_feed(&multipart, bop_slice(body.data, count)) == 0);
        body = count > 0 ? bop_slice(body.data + count, body.size - count) : body;
        while ((rc = bop_multipart_next(&multipart, &piece)) > 0) {
            require(rc != BOP_MULTIPART_DATA || piece.data.size > 0);
            if (rc != BOP_MULTIPART_DATA) {
                tell(story, bop_slice_cstr(rc == BOP_MULTIPART_PART ? "\npart " : "\ndone"));
                tell(story, piece.name);
                tell(story, piece.file_name);
                tell(story, piece.content_type);
                tell(story, bop_slice_cstr("\n"));
            }
            tell(story, piece.data);
        }
    } while (rc == BOP_MULTIPART_MORE && body.size > 0);
    bop_multipart_deinit(&multipart);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bop_buf whole, cut;
    struct bop_slice body;

    if (size < 2) {
        return 0;
    }
    if (whole.allocator == NULL) {
        bop_buf_init(&whole, NULL, 0);
        bop_buf_init(&cut, NULL, 0);
    }
    body = bop_slice(data + 1, size - 1);
    require(run(body, SIZE_MAX, &whole) == run(body, 1u + data[0] % 16, &cut));
    require(bop_slice_equal(bop_buf_slice(&whole), bop_buf_slice(&cut)));
    return 0;
}
