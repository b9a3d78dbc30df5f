/*
 * A directory behind a prefix. Files are opened and looked at for each request,
 * on the loop's thread: what is in the page cache costs a few microseconds.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "files.h"

/* What is compressed on the fly: less gains nothing, more keeps the loop too long. */
#define COMPRESS_BYTES_MIN 1024u
#define COMPRESS_BYTES_MAX (1024u * 1024)

static void reply_failed(struct bop__exchange *ex, int rc)
{
    switch (rc) {
    case -EACCES:
    case -EPERM:
        bop__exchange_reply_text(ex, 403, "forbidden");
        break;
    case -EMFILE:
    case -ENFILE:
    case -ENOMEM:
        bop__exchange_reply_text(ex, 503, "out of resources, try again");
        break;
    case -EIO:
        bop__exchange_reply_text(ex, 500, "the file cannot be read");
        break;
    default:
        bop__exchange_reply_text(ex, 404, "not found");
    }
}

/* Open and look. Returns 0, -EISDIR or another -errno. */
static int open_file(const struct bop__files *files, const char *path, struct bop__file *out_file)
{
    struct stat stat;
    int rc = 0;
    int fd = bop__files_open(files->directory, path);

    if (fd < 0) {
        return fd;
    }
    if (fstat(fd, &stat) != 0) {
        rc = -errno;
    } else if (S_ISDIR(stat.st_mode)) {
        rc = -EISDIR;
    } else if (!S_ISREG(stat.st_mode)) {
        rc = -ENOENT;
    }
    if (rc != 0) {
        close(fd);
        return rc;
    }
    out_file->fd = fd;
    out_file->size = (uint64_t)stat.st_size;
    out_file->modified_s = stat.st_mtim.tv_sec;
    snprintf(out_file->etag, sizeof(out_file->etag), "\"%llx-%llx-%llx%s\"",
             (unsigned long long)stat.st_ino, (unsigned long long)stat.st_size,
             (unsigned long long)stat.st_mtim.tv_sec * 1000000000u +
                 (unsigned long long)stat.st_mtim.tv_nsec,
             out_file->gzip ? "-gz" : "");
    return 0;
}

/* "name.gz" beside it, if there is one. */
static bool open_twin(const struct bop__files *files, const char *path, struct bop__file *out_file)
{
    char twin[BOP__FILES_PATH_MAX + 4];

    snprintf(twin, sizeof(twin), "%s.gz", path);
    out_file->gzip = true;
    if (open_file(files, twin, out_file) == 0) {
        return true;
    }
    out_file->gzip = false;
    return false;
}

/* "/docs" -> "/docs/", so that relative links in its index hold. */
static void redirect(struct bop__exchange *ex, const struct bop_http_head *head)
{
    struct bop_buf location;
    int rc;

    bop_buf_init(&location, ex->conn->server->allocator, 0);
    rc = bop_buf_append(&location, head->path.data, head->path.size);
    rc = rc != 0 ? rc : bop_buf_append(&location, "/", 1);
    if (rc == 0 && head->query.size > 0) {
        rc = bop_buf_append(&location, "?", 1);
        rc = rc != 0 ? rc : bop_buf_append(&location, head->query.data, head->query.size);
    }
    rc = rc != 0 ? rc : bop__exchange_add_header(ex, "Location", bop_buf_slice(&location));
    bop_buf_deinit(&location);
    if (rc == 0) {
        bop__exchange_reply_text(ex, 301, "moved");
    } else {
        reply_failed(ex, rc);
    }
}

/* Read a small file whole and let the answer be compressed. */
static void send_compressed(struct bop__exchange *ex, const struct bop__file *file,
                            enum bop__http_coding coding)
{
    struct bop_http_server *server = ex->conn->server;
    struct bop_buf content;
    ssize_t got = -1;
    int rc;

    bop_buf_init(&content, server->allocator, 0);
    rc = bop_buf_reserve(&content, file->size);
    if (rc == 0) {
        got = pread(file->fd, content.data, file->size, 0);
        rc = got == (ssize_t)file->size ? bop__http_deflate_begin(ex, coding) : -EIO;
    }
    close(file->fd);
    if (rc == 0) {
        content.size = (size_t)got;
        rc = bop_http_reply(bop__exchange_handle(ex), 200, file->type, bop_buf_slice(&content));
    }
    bop_buf_deinit(&content);
    if (rc < 0) {
        reply_failed(ex, rc);
    }
}

static int add_headers(const struct bop__files *files, struct bop__exchange *ex,
                       const struct bop__file *file, bool varies)
{
    char date[30];
    int rc = bop__exchange_add_header(ex, "ETag", bop_slice_cstr(file->etag));

    bop_http_date_format(file->modified_s, date);
    rc = rc != 0 ? rc : bop__exchange_add_header(ex, "Last-Modified", bop_slice_cstr(date));
    if (files->cache_control[0] != '\0') {
        rc = rc != 0 ? rc
                     : bop__exchange_add_header(ex, "Cache-Control",
                                                bop_slice_cstr(files->cache_control));
    }
    if (varies) {
        rc = rc != 0 ? rc : bop__exchange_add_header(ex, "Vary", bop_slice_cstr("Accept-Encoding"));
    }
    return rc;
}

/* The tag of what compressing on the fly makes: other bytes, another tag. */
static void mark_compressed(struct bop__file *file, enum bop__http_coding coding)
{
    size_t size = strlen(file->etag);

    BOP_ASSERT(size + 4 <= sizeof(file->etag));
    memcpy(file->etag + size - 1, coding == BOP__HTTP_GZIP ? "-z\"" : "-d\"", 4);
}

static void serve(const struct bop__files *files, struct bop__exchange *ex,
                  const struct bop_http_head *head, const struct bop__http_accepts *accepts,
                  struct bop__file *file, bool text)
{
    enum bop__http_coding coding = BOP__HTTP_IDENTITY;
    bool compress = files->compress && text && !file->gzip && file->size >= COMPRESS_BYTES_MIN &&
                    file->size <= COMPRESS_BYTES_MAX;
    bool varies = files->precompressed || compress;
    unsigned status;
    int rc;

    /* A range is of the file as it lies there. */
    if (compress && bop_http_known(head, BOP_HTTP_RANGE).data == NULL) {
        coding = bop__http_choose_coding(accepts);
    }
    if (coding != BOP__HTTP_IDENTITY) {
        mark_compressed(file, coding);
    }
    status = bop__files_condition(head, file);
    rc = add_headers(files, ex, file, varies);
    if (rc != 0 || status != 200) {
        close(file->fd);
        if (rc != 0) {
            reply_failed(ex, rc);
        } else if (status == 412) {
            bop__exchange_reply_text(ex, 412, "the file is another one");
        } else if (bop_http_reply(bop__exchange_handle(ex), 304, NULL, bop_slice(NULL, 0)) < 0) {
            bop__http_conn_kill(ex->conn);
        }
    } else if (coding != BOP__HTTP_IDENTITY) {
        send_compressed(ex, file, coding);
    } else {
        bop__files_send(ex, head, file);
    }
}

/* The file of a path, or of the index in it. Returns 0 or a code. */
static int find(const struct bop__files *files, const struct bop__http_accepts *accepts, char *path,
                struct bop__file *file)
{
    size_t size = strlen(path);

    if (size == 0 || path[size - 1] == '/') {
        if (files->index[0] == '\0' || size + strlen(files->index) >= BOP__FILES_PATH_MAX) {
            return -ENOENT;
        }
        memcpy(path + size, files->index, strlen(files->index) + 1);
    }
    if (files->precompressed && bop__http_accepts_coding(accepts, BOP__HTTP_GZIP) &&
        open_twin(files, path, file)) {
        return 0;
    }
    return open_file(files, path, file);
}

static void on_request(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    const struct bop__files *files = (const struct bop__files *)user;
    struct bop__exchange *ex = bop__exchange_of(http);
    struct bop__http_accepts accepts = bop__http_accepts(head);
    char path[BOP__FILES_PATH_MAX];
    struct bop__file file = {.fd = -1};
    bool text;
    int rc;

    if (!bop__files_path(bop_http_param(http, "*"), path)) {
        reply_failed(ex, -ENOENT);
        return;
    }
    rc = find(files, &accepts, path, &file);
    if (rc == -EISDIR) {
        redirect(ex, head);
    } else if (rc != 0) {
        reply_failed(ex, rc);
    } else {
        file.type = bop__files_type(path, &text);
        serve(files, ex, head, &accepts, &file, text);
    }
}

/* The prefix without the slash that a directory ends with. */
static void on_prefix(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    redirect(bop__exchange_of(http), head);
}

static void free_files(struct bop__files *files)
{
    bop_list_remove(&files->link);
    if (files->directory >= 0) {
        close(files->directory);
    }
    bop_free(files->server->allocator, files, sizeof(*files));
}

void bop__files_free_all(struct bop_http_server *server)
{
    while (!bop_list_empty(&server->files)) {
        free_files(BOP_CONTAINER_OF(server->files.next, struct bop__files, link));
    }
}

static int make(struct bop_http_server *server, const struct bop_http_files_options *options,
                struct bop__files **out_files)
{
    const char *index = options != NULL && options->index != NULL ? options->index : "index.html";
    const char *cache = options != NULL && options->cache_control != NULL ? options->cache_control
                                                                          : "";
    struct bop__files *files;

    if (strlen(index) >= sizeof(files->index) || strlen(cache) >= sizeof(files->cache_control) ||
        !bop_http_header_is_valid(bop_slice_cstr("Cache-Control"), bop_slice_cstr(cache))) {
        return BOP_EINVAL;
    }
    files = (struct bop__files *)bop_alloc_zeroed(server->allocator, sizeof(*files));
    if (files == NULL) {
        return BOP_ENOMEM;
    }
    files->server = server;
    files->directory = -1;
    memcpy(files->index, index, strlen(index) + 1);
    memcpy(files->cache_control, cache, strlen(cache) + 1);
    files->compress = options != NULL && options->compress;
    files->precompressed = options != NULL && options->precompressed;
    bop_list_push_back(&server->files, &files->link);
    *out_files = files;
    return 0;
}

/* "/static" and all below "/static/"; "" or "/": all. */
static int add_routes(struct bop_http_server *server, const char *prefix, struct bop__files *files)
{
    char pattern[BOP__FILES_PATH_MAX];
    size_t size = strlen(prefix);
    int rc = 0;

    if (size + 3 > sizeof(pattern)) {
        return BOP_EINVAL;
    }
    memcpy(pattern, prefix, size);
    while (size > 0 && pattern[size - 1] == '/') {
        size--;
    }
    if (size > 0) {
        pattern[size] = '\0';
        rc = bop_http_route(server, "GET", pattern, on_prefix, files);
    }
    memcpy(pattern + size, "/*", 3);
    return rc != 0 ? rc : bop_http_route(server, "GET", pattern, on_request, files);
}

int bop_http_files(struct bop_http_server *server, const char *prefix, const char *directory,
                   const struct bop_http_files_options *options, struct bop_error *err)
{
    struct bop__files *files;
    int rc = make(server, options, &files);

    if (rc != 0) {
        bop_error_set(err, rc, "serve %s", directory);
        return rc;
    }
    files->directory = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (files->directory < 0) {
        rc = -errno;
        bop_error_set(err, rc, "open %s", directory);
        free_files(files);
        return rc;
    }
    rc = add_routes(server, prefix, files);
    if (rc != 0) {
        /* A route may lead there already: it goes with the server. */
        bop_error_set(err, rc, "route %s", prefix);
    }
    return rc;
}
