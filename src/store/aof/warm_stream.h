/*
 * What packing, verifying and unpacking share: bytes that go by once, in order.
 */
#ifndef BOP_STORE_AOF_WARM_STREAM_H
#define BOP_STORE_AOF_WARM_STREAM_H

#include <limits.h>

#include "warm.h"

/* OpenSSL's. */
struct evp_md_ctx_st;

/* ---- A source whose bytes are handed on once, in order, while somebody reads them ---- */

/**
 * What is read through `source` goes to feed as well, each byte once and in order, up to `end`.
 * Whatever the reader skipped, bop__tee_finish reads.
 */
struct bop__tee {
    struct bop__segment_source source; /* To be read from. */
    struct bop__segment_source *under; /* Borrowed. */
    uint64_t next;                     /* What is fed next. */
    uint64_t end;
    int (*feed)(void *user, const uint8_t *bytes, size_t size, struct bop_error *err);
    void *user;
};

void bop__tee_init(struct bop__tee *tee, struct bop__segment_source *under, uint64_t end,
                   int (*feed)(void *user, const uint8_t *bytes, size_t size,
                               struct bop_error *err),
                   void *user);
/** Feed what is left up to `end`. */
int bop__tee_finish(struct bop__tee *tee, struct bop_error *err);

/**
 * Read a sealed segment through `through`, whose bytes are those of `source`, and check it: all
 * records, the leaves, the root in its footer, and `root`, which may be NULL. The facts are the
 * footer's.
 */
int bop__segment_check(struct bop_allocator *allocator, struct bop__segment_source *source,
                       struct bop__segment_source *through, const uint8_t *root,
                       struct bop__segment_facts *out_facts, struct bop_error *err);

/* ---- A new file that gets its name when it is whole ---- */

struct bop__new_file {
    struct bop_fs *fs;
    const char *path; /* Borrowed. */
    int fd;
    bool made; /* The temporary file may be there. */
    uint64_t size;
    struct bop_buf buffer;
    struct evp_md_ctx_st *hash;
    char temporary[PATH_MAX];
};

/** Begin. deinit is to be called in any case; it removes what is not finished. */
int bop__new_file_init(struct bop__new_file *file, struct bop_allocator *allocator,
                       struct bop_fs *fs, const char *path, struct bop_error *err);
int bop__new_file_append(struct bop__new_file *file, const void *bytes, size_t size,
                         struct bop_error *err);
/** Sync it, name it, sync the directory. */
int bop__new_file_finish(struct bop__new_file *file, uint8_t out_sha256[32], struct bop_error *err);
void bop__new_file_deinit(struct bop__new_file *file);

/* ---- A packed file read front to back ---- */

/**
 * Another packed, borrowed, read in big pieces and hashed on the way as long as each read begins
 * where the last one ended or before; others go through.
 */
struct bop__sequential {
    struct bop__packed packed; /* To be read from; its close does nothing. */
    struct bop__packed *under;
    struct bop_buf window;
    uint64_t window_at;
    struct evp_md_ctx_st *hash;
};

int bop__sequential_init(struct bop__sequential *sequential, struct bop_allocator *allocator,
                         struct bop__packed *under);
/** Read what is left, and give the digest of all. */
int bop__sequential_finish(struct bop__sequential *sequential, uint8_t out_sha256[32],
                           struct bop_error *err);
void bop__sequential_deinit(struct bop__sequential *sequential);

#endif
