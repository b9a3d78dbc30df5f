/*
 * Sending a file: whole, as one range, or as multipart/byteranges. What is small
 * is read into the output, behind its head, which spares a system call; the rest
 * is sent from file to socket by the kernel.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "files.h"

#define COPY_BYTES_MAX (16u * 1024)

/* A part's head in multipart/byteranges. */
#define PART_HEAD_MAX 256u

/* Append a piece of the file. Takes fd over. Returns 0 or a code, after which the connection must
 * go: its head is out. */
static int put_piece(struct bop__exchange *ex, int fd, uint64_t first, uint64_t size)
{
    struct bop__socket *sock = bop__http_sock(ex->conn);
    struct bop_buf *out;
    ssize_t got;
    int rc;

    if (size > COPY_BYTES_MAX) {
        return bop__socket_write_file(sock, fd, first, size);
    }
    out = bop__socket_output(sock);
    rc = out == NULL ? BOP_EFULL : bop_buf_reserve(out, size);
    if (rc == 0) {
        got = pread(fd, out->data + out->size, size, (off_t)first);
        rc = got == (ssize_t)size ? 0 : -EIO; /* It became shorter, or cannot be read. */
    }
    close(fd);
    if (rc == 0) {
        out->size += size;
        bop__socket_flush_later(sock);
    }
    return rc;
}

/* The head is out and so much of the body will be. */
static void finish(struct bop__exchange *ex, uint64_t size, int rc)
{
    if (rc != 0) {
        bop__http_conn_kill(ex->conn);
        return;
    }
    bop__exchange_wrote(ex, size);
    bop__exchange_answered(ex);
}

static void send_piece(struct bop__exchange *ex, const struct bop__file *file, uint64_t first,
                       uint64_t size)
{
    int rc = bop__exchange_begin_length(ex, size);

    if (rc != 0 || ex->no_content || size == 0) {
        close(file->fd);
        finish(ex, 0, rc);
        return;
    }
    finish(ex, size, put_piece(ex, file->fd, first, size));
}

static int add_type(struct bop__exchange *ex, const struct bop__file *file)
{
    int rc = bop__exchange_add_header(ex, "Content-Type", bop_slice_cstr(file->type));

    if (rc == 0 && file->gzip) {
        rc = bop__exchange_add_header(ex, "Content-Encoding", bop_slice_cstr("gzip"));
    }
    return rc;
}

static void send_whole(struct bop__exchange *ex, const struct bop__file *file)
{
    int rc = add_type(ex, file);

    rc = rc != 0 ? rc : bop__exchange_add_header(ex, "Accept-Ranges", bop_slice_cstr("bytes"));
    if (rc != 0) {
        close(file->fd);
        bop__http_conn_kill(ex->conn);
        return;
    }
    send_piece(ex, file, 0, file->size);
}

static int format_range(char *text, size_t text_size, const struct bop__range *range, uint64_t size)
{
    return snprintf(text, text_size, "bytes %llu-%llu/%llu", (unsigned long long)range->first,
                    (unsigned long long)(range->first + range->size - 1), (unsigned long long)size);
}

static void send_range(struct bop__exchange *ex, const struct bop__file *file,
                       const struct bop__range *range)
{
    char text[80];
    int rc = add_type(ex, file);

    format_range(text, sizeof(text), range, file->size);
    rc = rc != 0 ? rc : bop__exchange_add_header(ex, "Content-Range", bop_slice_cstr(text));
    if (rc != 0) {
        close(file->fd);
        bop__http_conn_kill(ex->conn);
        return;
    }
    ex->status = 206;
    send_piece(ex, file, range->first, range->size);
}

/* ---- Several ranges ---- */

struct parts {
    const struct bop__file *file;
    const struct bop__range *ranges;
    int count;
    char boundary[40];
};

static int part_head(const struct parts *parts, int index, char text[PART_HEAD_MAX])
{
    char range[80];

    format_range(range, sizeof(range), &parts->ranges[index], parts->file->size);
    return snprintf(text, PART_HEAD_MAX, "%s--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n",
                    index > 0 ? "\r\n" : "", parts->boundary, parts->file->type, range);
}

static int parts_end(const struct parts *parts, char text[PART_HEAD_MAX])
{
    return snprintf(text, PART_HEAD_MAX, "\r\n--%s--\r\n", parts->boundary);
}

static uint64_t parts_size(const struct parts *parts)
{
    char text[PART_HEAD_MAX];
    uint64_t size = (uint64_t)parts_end(parts, text);

    for (int i = 0; i < parts->count; i++) {
        size += (uint64_t)part_head(parts, i, text) + parts->ranges[i].size;
    }
    return size;
}

static int put_parts(struct bop__exchange *ex, const struct parts *parts)
{
    struct bop__socket *sock = bop__http_sock(ex->conn);
    char text[PART_HEAD_MAX];
    int rc = 0;

    for (int i = 0; i < parts->count && rc == 0; i++) {
        size_t size = (size_t)part_head(parts, i, text);
        int fd;

        rc = bop__socket_write(sock, bop_slice(text, size));
        if (rc == 0) {
            fd = fcntl(parts->file->fd, F_DUPFD_CLOEXEC, 0);
            rc = fd < 0 ? -errno : put_piece(ex, fd, parts->ranges[i].first, parts->ranges[i].size);
        }
    }
    if (rc == 0) {
        size_t size = (size_t)parts_end(parts, text);

        rc = bop__socket_write(sock, bop_slice(text, size));
    }
    return rc;
}

static void send_parts(struct bop__exchange *ex, const struct bop__file *file,
                       const struct bop__range *ranges, int count)
{
    struct bop_http_server *server = ex->conn->server;
    struct parts parts = {.file = file, .ranges = ranges, .count = count};
    char type[80];
    uint64_t size;
    int rc;

    /* No file was written to hold it, and none can tell it beforehand. */
    snprintf(parts.boundary, sizeof(parts.boundary), "bop-%016llx%08x",
             (unsigned long long)(bop_clock_wall_ms(server->loop->clock) * 0x9e3779b97f4a7c15u ^
                                  (uintptr_t)ex),
             (unsigned)server->counters.requests * 0x85ebca6bu);
    snprintf(type, sizeof(type), "multipart/byteranges; boundary=%s", parts.boundary);
    size = parts_size(&parts);
    ex->status = 206;
    rc = bop__exchange_add_header(ex, "Content-Type", bop_slice_cstr(type));
    if (rc == 0 && file->gzip) {
        rc = bop__exchange_add_header(ex, "Content-Encoding", bop_slice_cstr("gzip"));
    }
    rc = rc != 0 ? rc : bop__exchange_begin_length(ex, size);
    rc = rc != 0 ? rc : put_parts(ex, &parts);
    close(file->fd);
    finish(ex, size, rc);
}

static void reply_unsatisfiable(struct bop__exchange *ex, const struct bop__file *file)
{
    char text[48];

    close(file->fd);
    snprintf(text, sizeof(text), "bytes */%llu", (unsigned long long)file->size);
    if (bop__exchange_add_header(ex, "Content-Range", bop_slice_cstr(text)) != 0) {
        bop__http_conn_kill(ex->conn);
        return;
    }
    bop__exchange_reply_text(ex, 416, "no such range");
}

void bop__files_send(struct bop__exchange *ex, const struct bop_http_head *head,
                     struct bop__file *file)
{
    struct bop_slice wanted = bop_http_known(head, BOP_HTTP_RANGE);
    struct bop__range ranges[BOP__FILES_RANGES_MAX];
    int count = 0;

    if (wanted.data != NULL && head->method == BOP_HTTP_GET && bop__files_range_holds(head, file)) {
        count = bop__files_ranges(wanted, file->size, ranges);
    }
    if (count < 0) {
        reply_unsatisfiable(ex, file);
    } else if (count == 0) {
        send_whole(ex, file);
    } else if (count == 1) {
        send_range(ex, file, &ranges[0]);
    } else {
        send_parts(ex, file, ranges, count);
    }
}
