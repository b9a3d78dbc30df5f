/*
 * Lines from a descriptor, through one buffer that holds the unread rest.
 */
#include <poll.h>
#include <unistd.h>

#include "source.h"

#define READ_BYTES (256u * 1024)

void lines_init(struct lines *lines, int fd, size_t line_max)
{
    *lines = (struct lines){.fd = fd, .line_max = line_max};
    bop_buf_init(&lines->buf, NULL, 0);
}

void lines_deinit(struct lines *lines)
{
    bop_buf_deinit(&lines->buf);
}

/* Read more behind what is there. */
static int fill(struct lines *lines)
{
    struct pollfd poll_fd = {.fd = lines->fd, .events = POLLIN};
    ssize_t size;
    int rc;

    bop_buf_consume(&lines->buf, lines->at);
    lines->scanned -= lines->at;
    lines->at = 0;
    if (lines->buf.size > lines->line_max) {
        return BOP_ETOOBIG;
    }
    if (!lines->patient && poll(&poll_fd, 1, 0) == 0) {
        return BOP_EAGAIN;
    }
    rc = bop_buf_reserve(&lines->buf, READ_BYTES);
    if (rc < 0) {
        return rc;
    }
    size = read(lines->fd, lines->buf.data + lines->buf.size, READ_BYTES);
    if (size < 0) {
        return errno == EINTR ? BOP_EAGAIN : -errno;
    }
    lines->buf.size += (size_t)size;
    lines->bytes += (uint64_t)size;
    lines->at_end = size == 0;
    return 0;
}

static int give(struct lines *lines, size_t end, struct bop_slice *out_line)
{
    *out_line = bop_slice(lines->buf.data + lines->at, end - lines->at);
    lines->at = lines->scanned = end;
    return out_line->size > lines->line_max ? BOP_ETOOBIG : 1;
}

int lines_next(struct lines *lines, struct bop_slice *out_line)
{
    for (;;) {
        const uint8_t *feed = lines->buf.size > lines->scanned
                                  ? memchr(lines->buf.data + lines->scanned, '\n',
                                           lines->buf.size - lines->scanned)
                                  : NULL;
        int rc;

        if (feed) {
            return give(lines, (size_t)(feed - lines->buf.data) + 1, out_line);
        }
        lines->scanned = lines->buf.size;
        if (lines->at_end) {
            return lines->at < lines->buf.size ? give(lines, lines->buf.size, out_line) : 0;
        }
        rc = fill(lines);
        if (rc < 0) {
            return rc;
        }
    }
}
