/*
 * multipart/form-data (RFC 7578), as it comes: what a browser's form with files
 * sends. A pure parser over memory.
 *
 *      bop_multipart_feed(&multipart, bytes);      on_body's
 *      while ((rc = bop_multipart_next(&multipart, &piece)) > 0) {
 *          rc == BOP_MULTIPART_PART: piece.name, piece.file_name, piece.content_type
 *          rc == BOP_MULTIPART_DATA: piece.data, any number of times
 *          rc == BOP_MULTIPART_DONE: there is no more
 *      }
 *
 * It keeps what may be the begin of a boundary, or of a part's head, and nothing
 * else: parts may be of any size.
 */
#ifndef BOP_MULTIPART_H
#define BOP_MULTIPART_H

#include <bop/base.h>
#include <bop/slice.h>

#define BOP_MULTIPART_BOUNDARY_MAX 70          /* RFC 2046, 5.1.1. */
#define BOP_MULTIPART_HEAD_MAX     (8u * 1024) /* Of one part's head. */

enum bop_multipart_event {
    BOP_MULTIPART_MORE = 0, /* Feed it more. */
    BOP_MULTIPART_PART,     /* A part begins; the one before it has ended. */
    BOP_MULTIPART_DATA,     /* A piece of it. */
    BOP_MULTIPART_DONE,     /* The last boundary came. What follows is ignored. */
};

/** Slices are good until the next call of feed. */
struct bop_multipart_piece {
    struct bop_slice head;         /* A part's header lines, each with its CRLF. */
    struct bop_slice name;         /* As sent between the quotes. data NULL: none. */
    struct bop_slice file_name;    /* The same; a path in it is the client's own: don't open it. */
    struct bop_slice content_type; /* data NULL: none, that is text/plain. */
    struct bop_slice data;
};

struct bop_multipart {
    struct bop_buf kept;
    size_t at; /* In kept: what is before it was given. */
    uint8_t state;
    uint8_t delimiter_size;
    char delimiter[BOP_MULTIPART_BOUNDARY_MAX + 4]; /* CRLF "--" boundary. */
};

/** For a body with this Content-Type. Returns 0, or BOP_EMALFORMED if it is not multipart with a
 * boundary. */
BOP_API BOP_MUST_USE int bop_multipart_init(struct bop_multipart *multipart,
                                            struct bop_slice content_type,
                                            struct bop_allocator *allocator);
BOP_API void bop_multipart_deinit(struct bop_multipart *multipart);

/** Add bytes of the body. Call next until it wants more before the next feed. 0 or BOP_ENOMEM. */
BOP_API BOP_MUST_USE int bop_multipart_feed(struct bop_multipart *multipart,
                                            struct bop_slice bytes);
/** An event, BOP_EMALFORMED, or BOP_ETOOBIG (a part's head). A body that ends before DONE was cut.
 */
BOP_API BOP_MUST_USE int bop_multipart_next(struct bop_multipart *multipart,
                                            struct bop_multipart_piece *out_piece);

#endif
