/*
 * Serving files, as its own files see it.
 */
#ifndef BOP_NET_HTTP_FILES_H
#define BOP_NET_HTTP_FILES_H

#include <sys/stat.h>

#include "server_internal.h"

/** A directory that is served. */
struct bop__files {
    struct bop_list link; /* server.files */
    struct bop_http_server *server;
    int directory;
    bool compress;
    bool precompressed;
    char index[64];
    char cache_control[128];
};

enum {
    BOP__FILES_PATH_MAX = 1024, /* Of a path below the directory, decoded, with its NUL. */
    BOP__FILES_ETAG_MAX = 64,
    BOP__FILES_RANGES_MAX = 16, /* More are answered with the whole. */
};

/** A file that is about to be sent. */
struct bop__file {
    int fd;
    uint64_t size;
    int64_t modified_s;
    const char *type;
    bool gzip; /* It is the file's compressed twin. */
    char etag[BOP__FILES_ETAG_MAX];
};

struct bop__range {
    uint64_t first;
    uint64_t size;
};

/* ---- files_path.c ---- */

/** Decode the path below the prefix into a NUL-terminated relative one. False: there can be no such
 * file, as for "..", hidden files, empty segments and bad escapes. */
BOP_MUST_USE bool bop__files_path(struct bop_slice rest, char out_path[BOP__FILES_PATH_MAX]);
/** Open what lies below the directory, never outside it. Returns a descriptor or -errno. */
BOP_MUST_USE int bop__files_open(int directory, const char *path);
/** The media type of a name, and whether it is worth to be compressed. */
const char *bop__files_type(const char *path, bool *out_text);

/* ---- files_condition.c ---- */

/** What If-Match, If-Unmodified-Since, If-None-Match and If-Modified-Since make of a request:
 * 200 (go on), 304 or 412. */
unsigned bop__files_condition(const struct bop_http_head *head, const struct bop__file *file);
/** Whether If-Range, if there, lets the ranges hold. */
bool bop__files_range_holds(const struct bop_http_head *head, const struct bop__file *file);
/** The ranges asked for that exist. Returns their number; 0: serve the whole; -1: none exists. */
int bop__files_ranges(struct bop_slice value, uint64_t size,
                      struct bop__range ranges[BOP__FILES_RANGES_MAX]);

/* ---- files_send.c ---- */

/** Send it, whole or in the parts the request asks for. Takes file->fd over. */
void bop__files_send(struct bop__exchange *ex, const struct bop_http_head *head,
                     struct bop__file *file);

#endif
