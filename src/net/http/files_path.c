/*
 * From a request's path to an open file, without a way out of the directory: the
 * path is checked as text, and the kernel resolves it beneath the directory.
 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files.h"

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The next character of a path; -1 if it is none that a file's name may have. An escaped slash
 * would be part of a name, so there is no such file. */
static int decode(struct bop_slice text, size_t *in_out_at)
{
    size_t at = *in_out_at;
    int high, low;

    if (text.data[at] != '%') {
        *in_out_at = at + 1;
        return text.data[at];
    }
    if (text.size - at < 3) {
        return -1;
    }
    high = hex_digit(text.data[at + 1]);
    low = hex_digit(text.data[at + 2]);
    *in_out_at = at + 3;
    if (high < 0 || low < 0 || (high << 4 | low) == '/') {
        return -1;
    }
    return high << 4 | low;
}

bool bop__files_path(struct bop_slice rest, char out_path[BOP__FILES_PATH_MAX])
{
    size_t size = 0;
    bool at_segment = true;

    for (size_t at = 0; at < rest.size;) {
        int c = decode(rest, &at);

        if (c <= 0 || size + 1 >= BOP__FILES_PATH_MAX) {
            return false;
        }
        /* A segment that is empty or begins with a dot: "//", ".", "..", ".git". */
        if (at_segment && (c == '/' || c == '.')) {
            return false;
        }
        at_segment = c == '/';
        out_path[size++] = (char)c;
    }
    out_path[size] = '\0';
    return true;
}

#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

/* Segment by segment, no links at all: for kernels and sandboxes without openat2. */
static int open_by_segments(int directory, const char *path)
{
    char segment[BOP__FILES_PATH_MAX];
    int at = dup(directory);

    while (at >= 0) {
        size_t size = strcspn(path, "/");
        bool last = path[size] == '\0' || path[size + 1] == '\0';
        int next;

        memcpy(segment, path, size);
        segment[size] = '\0';
        next = openat(at, segment, OPEN_FLAGS | O_NOFOLLOW | (last ? 0 : O_DIRECTORY));
        if (next < 0) {
            next = -errno;
        }
        close(at);
        if (next < 0 || last) {
            return next;
        }
        at = next;
        path += size + 1;
    }
    return -errno;
}

int bop__files_open(int directory, const char *path)
{
    struct open_how how = {
        .flags = OPEN_FLAGS,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    long fd;

    if (path[0] == '\0') {
        path = ".";
    }
    fd = syscall(SYS_openat2, directory, path, &how, sizeof(how));
    if (fd >= 0) {
        return (int)fd;
    }
    if (errno != ENOSYS && errno != EPERM) {
        return -errno;
    }
    return open_by_segments(directory, path);
}

/* ---- Types ---- */

static const struct {
    const char *extension;
    const char *type;
    bool text;
} types[] = {
    {"html", "text/html; charset=utf-8", true},
    {"htm", "text/html; charset=utf-8", true},
    {"css", "text/css; charset=utf-8", true},
    {"js", "text/javascript; charset=utf-8", true},
    {"mjs", "text/javascript; charset=utf-8", true},
    {"json", "application/json", true},
    {"map", "application/json", true},
    {"txt", "text/plain; charset=utf-8", true},
    {"md", "text/markdown; charset=utf-8", true},
    {"csv", "text/csv; charset=utf-8", true},
    {"xml", "application/xml", true},
    {"svg", "image/svg+xml", true},
    {"wasm", "application/wasm", true},
    {"webmanifest", "application/manifest+json", true},
    {"ico", "image/x-icon", false},
    {"png", "image/png", false},
    {"jpg", "image/jpeg", false},
    {"jpeg", "image/jpeg", false},
    {"gif", "image/gif", false},
    {"webp", "image/webp", false},
    {"avif", "image/avif", false},
    {"woff", "font/woff", false},
    {"woff2", "font/woff2", false},
    {"ttf", "font/ttf", false},
    {"otf", "font/otf", false},
    {"mp3", "audio/mpeg", false},
    {"ogg", "audio/ogg", false},
    {"wav", "audio/wav", false},
    {"mp4", "video/mp4", false},
    {"webm", "video/webm", false},
    {"pdf", "application/pdf", false},
    {"zip", "application/zip", false},
    {"gz", "application/gzip", false},
    {"zst", "application/zstd", false},
    {"tar", "application/x-tar", false},
};

const char *bop__files_type(const char *path, bool *out_text)
{
    const char *name = strrchr(path, '/');
    const char *dot = strrchr(name != NULL ? name : path, '.');

    *out_text = false;
    for (size_t i = 0; dot != NULL && i < BOP_COUNT_OF(types); i++) {
        if (strcasecmp(dot + 1, types[i].extension) == 0) {
            *out_text = types[i].text;
            return types[i].type;
        }
    }
    return "application/octet-stream";
}
