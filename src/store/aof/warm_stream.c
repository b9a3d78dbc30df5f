/*
 * Bytes that go by once, in order: those of a segment to whoever packs or unpacks it while
 * they are checked, those of a new file, and those of a packed one.
 */
#include "warm_stream.h"

#include <inttypes.h>
#include <openssl/evp.h>

#include "footer.h"
#include "format.h"

/* What is handed on at once: it is still in the processor's cache for the one that reads. */
#define TEE_BYTES (256u * 1024)
/* What a new file is written in, and a packed one is read in. */
#define WRITE_BYTES  (256u * 1024)
#define WINDOW_BYTES (1024u * 1024)

/* ---- Handing on ---- */

static int tee_at(struct bop__segment_source *source, uint64_t offset, size_t least,
                  struct bop_slice *out_bytes, struct bop_error *err)
{
    struct bop__tee *tee = BOP_CONTAINER_OF(source, struct bop__tee, source);
    struct bop_slice bytes;
    int rc = tee->under->at(tee->under, offset, least, &bytes, err);

    if (rc < 0) {
        return rc;
    }
    bytes.size = (size_t)bop_min_u64(bytes.size, bop_max_u64(least, TEE_BYTES));
    if (offset <= tee->next && tee->next < bop_min_u64(offset + bytes.size, tee->end)) {
        size_t skipped = (size_t)(tee->next - offset);
        size_t size = (size_t)bop_min_u64(bytes.size - skipped, tee->end - tee->next);

        rc = tee->feed(tee->user, bytes.data + skipped, size, err);
        if (rc < 0) {
            return rc;
        }
        tee->next += size;
    }
    *out_bytes = bytes;
    return 0;
}

static void tee_close(struct bop__segment_source *source)
{
    (void)source; /* What is under it is borrowed. */
}

void bop__tee_init(struct bop__tee *tee, struct bop__segment_source *under, uint64_t end,
                   int (*feed)(void *user, const uint8_t *bytes, size_t size,
                               struct bop_error *err),
                   void *user)
{
    *tee = (struct bop__tee){
        .source = {.tier = under->tier,
                   .name = under->name,
                   .size = under->size,
                   .at = tee_at,
                   .close = tee_close},
        .under = under,
        .end = end,
        .feed = feed,
        .user = user,
    };
}

int bop__tee_finish(struct bop__tee *tee, struct bop_error *err)
{
    while (tee->next < tee->end) {
        uint64_t before = tee->next;
        struct bop_slice bytes;
        int rc = tee_at(&tee->source, before, 1, &bytes, err);

        if (rc < 0) {
            return rc;
        }
        if (tee->next == before) {
            return bop_error_set(err, BOP_ECORRUPT, "%s: it ends at %" PRIu64 ", before %" PRIu64,
                                 tee->under->name, before, tee->end);
        }
    }
    return 0;
}

/* The header block, which the root does not cover, must be of the segment that the footer is of. */
static int check_header(struct bop__segment_source *through, const struct bop__segment_facts *facts,
                        struct bop_error *err)
{
    struct bop__aof_segment_header header;
    struct bop_slice bytes;
    int rc = through->at(through, 0, BOP__AOF_SEGMENT_HEADER, &bytes, err);

    if (rc < 0) {
        return rc;
    }
    if (bytes.size < BOP__AOF_SEGMENT_HEADER) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: ends in its header", through->name);
    }
    rc = bop__aof_segment_header_decode(bytes.data, through->name, &header, err);
    if (rc < 0) {
        return rc;
    }
    /* Before version 2 a segment did not say which log's it was. */
    if (header.base != facts->base || header.generation != facts->generation ||
        header.seed != facts->seed ||
        (header.version >= 2 && memcmp(header.log_id, facts->log_id, sizeof(header.log_id)) != 0)) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: header and footer are not of one segment",
                             through->name);
    }
    return 0;
}

int bop__segment_check(struct bop_allocator *allocator, struct bop__segment_source *source,
                       struct bop__segment_source *through, const uint8_t *root,
                       struct bop__segment_facts *out_facts, struct bop_error *err)
{
    struct bop__footer told = {0};
    struct bop__footer built = {0};
    int rc = bop__footer_read(allocator, source, true, &told, err);

    if (rc < 0) {
        return rc;
    }
    built.facts = told.facts;
    memset(built.facts.root, 0, sizeof(built.facts.root));
    rc = check_header(through, &told.facts, err);
    if (rc == 0) {
        rc = bop__footer_build(allocator, through, &built, err);
    }
    if (rc == 0 && (memcmp(built.facts.root, told.facts.root, sizeof(told.facts.root)) != 0 ||
                    built.facts.link != told.facts.link)) {
        rc = bop_error_set(err, BOP_ECORRUPT, "%s: its records' root is not the one in its footer",
                           source->name);
    }
    if (rc == 0 && root && memcmp(built.facts.root, root, sizeof(built.facts.root)) != 0) {
        rc = bop_error_set(err, BOP_ECORRUPT, "%s: its root is not the one of this segment",
                           source->name);
    }
    if (rc == 0) {
        *out_facts = told.facts;
    }
    bop__footer_deinit(&built);
    bop__footer_deinit(&told);
    return rc;
}

/* ---- A hash on the way ---- */

static EVP_MD_CTX *hash_create(void)
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();

    if (hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(hash);
        hash = NULL;
    }
    return hash;
}

static int hash_add(EVP_MD_CTX *hash, const void *bytes, size_t size)
{
    return EVP_DigestUpdate(hash, bytes, size) == 1 ? 0 : BOP_ENOMEM;
}

static int hash_end(EVP_MD_CTX *hash, uint8_t out_sha256[32])
{
    return EVP_DigestFinal_ex(hash, out_sha256, NULL) == 1 ? 0 : BOP_ENOMEM;
}

/* ---- A new file ---- */

int bop__new_file_init(struct bop__new_file *file, struct bop_allocator *allocator,
                       struct bop_fs *fs, const char *path, struct bop_error *err)
{
    int size;

    *file = (struct bop__new_file){.fs = fs, .path = path, .fd = -1};
    bop_buf_init(&file->buffer, allocator, 0);
    file->hash = hash_create();
    if (!file->hash || bop_buf_reserve(&file->buffer, WRITE_BYTES) < 0) {
        return bop_error_set(err, BOP_ENOMEM, "write %s", path);
    }
    size = snprintf(file->temporary, sizeof(file->temporary), "%s.tmp", path);
    if (size < 0 || (size_t)size >= sizeof(file->temporary)) {
        return bop_error_set(err, -ENAMETOOLONG, "write %s", path);
    }
    file->fd = fs->open(fs, file->temporary, O_RDWR | O_CREAT | O_TRUNC);
    if (file->fd < 0) {
        return bop_error_set(err, file->fd, "create %s", file->temporary);
    }
    file->made = true;
    return 0;
}

static int flush(struct bop__new_file *file, struct bop_error *err)
{
    int rc = hash_add(file->hash, file->buffer.data, file->buffer.size);

    if (rc == 0) {
        rc = bop_fs_write_all(file->fs, file->fd, file->buffer.data, file->buffer.size,
                              file->size - file->buffer.size);
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "write %s", file->temporary);
    }
    bop_buf_clear(&file->buffer);
    return 0;
}

int bop__new_file_append(struct bop__new_file *file, const void *bytes, size_t size,
                         struct bop_error *err)
{
    const uint8_t *at = bytes;

    while (size > 0) {
        size_t step = (size_t)bop_min_u64(size, WRITE_BYTES - file->buffer.size);
        int rc = bop_buf_append(&file->buffer, at, step);

        BOP_ASSERT(rc == 0); /* It was reserved. */
        at += step;
        size -= step;
        file->size += step;
        if (file->buffer.size == WRITE_BYTES) {
            rc = flush(file, err);
            if (rc < 0) {
                return rc;
            }
        }
    }
    return 0;
}

/* The directory that holds the file, in place of the temporary's name, which is not needed more. */
static const char *directory_of(struct bop__new_file *file)
{
    char *slash = strrchr(file->temporary, '/');

    if (!slash) {
        return ".";
    }
    slash[slash == file->temporary] = '\0'; /* The root keeps its slash. */
    return file->temporary;
}

int bop__new_file_finish(struct bop__new_file *file, uint8_t out_sha256[32], struct bop_error *err)
{
    struct bop_fs *fs = file->fs;
    int rc = flush(file, err);
    int fd = file->fd;

    if (rc == 0) {
        rc = hash_end(file->hash, out_sha256);
        if (rc == 0) {
            rc = fs->sync(fs, fd);
        }
        if (rc < 0) {
            bop_error_set(err, rc, "sync %s", file->temporary);
        }
    }
    if (rc < 0) {
        return rc;
    }
    file->fd = -1;
    rc = fs->close(fs, fd);
    if (rc < 0) {
        return bop_error_set(err, rc, "close %s", file->temporary);
    }
    rc = fs->rename(fs, file->temporary, file->path);
    if (rc < 0) {
        return bop_error_set(err, rc, "rename %s to %s", file->temporary, file->path);
    }
    file->made = false;
    rc = fs->sync_dir(fs, directory_of(file));
    if (rc < 0) {
        /* It is whole and has its name, but may lose it in a crash. */
        return bop_error_set(err, rc, "sync the directory of %s", file->path);
    }
    return 0;
}

void bop__new_file_deinit(struct bop__new_file *file)
{
    if (file->fd >= 0) {
        /* It goes. */
        BOP_IGNORE(file->fs->close(file->fs, file->fd));
    }
    if (file->made) {
        /* Best effort: the next attempt writes over it. */
        BOP_IGNORE(file->fs->unlink(file->fs, file->temporary));
    }
    EVP_MD_CTX_free(file->hash);
    bop_buf_deinit(&file->buffer);
}

/* ---- Reading front to back ---- */

/* Read the next piece into the window. */
static int extend(struct bop__sequential *s, struct bop_error *err)
{
    uint64_t at = s->window_at + s->window.size;
    size_t size = (size_t)bop_min_u64(WINDOW_BYTES, s->under->size - at);
    size_t before = s->window.size;
    int rc = s->under->read(s->under, at, size, &s->window, err);

    if (rc == 0) {
        BOP_ASSERT(s->window.size == before + size);
        rc = hash_add(s->hash, s->window.data + before, size);
        if (rc < 0) {
            bop_error_set(err, rc, "hash %s", s->under->name);
        }
    }
    return rc;
}

static int sequential_read(struct bop__packed *packed, uint64_t offset, size_t size,
                           struct bop_buf *out, struct bop_error *err)
{
    struct bop__sequential *s = BOP_CONTAINER_OF(packed, struct bop__sequential, packed);
    int rc;

    if (offset < s->window_at || offset > s->window_at + s->window.size) {
        return s->under->read(s->under, offset, size, out, err);
    }
    if (s->window.size - (size_t)(offset - s->window_at) < size) {
        bop_buf_consume(&s->window, (size_t)(offset - s->window_at));
        s->window_at = offset;
        while (s->window.size < size) {
            rc = extend(s, err);
            if (rc < 0) {
                return rc;
            }
        }
    }
    rc = bop_buf_append(out, s->window.data + (offset - s->window_at), size);
    return rc < 0 ? bop_error_set(err, rc, "read %s", s->under->name) : 0;
}

static void sequential_close(struct bop__packed *packed)
{
    (void)packed; /* What is under it is borrowed. */
}

int bop__sequential_init(struct bop__sequential *sequential, struct bop_allocator *allocator,
                         struct bop__packed *under)
{
    *sequential = (struct bop__sequential){
        .packed = {.tier = under->tier,
                   .name = under->name,
                   .size = under->size,
                   .read = sequential_read,
                   .close = sequential_close},
        .under = under,
        .hash = hash_create(),
    };
    bop_buf_init(&sequential->window, allocator, 0);
    return sequential->hash ? 0 : BOP_ENOMEM;
}

int bop__sequential_finish(struct bop__sequential *sequential, uint8_t out_sha256[32],
                           struct bop_error *err)
{
    while (sequential->window_at + sequential->window.size < sequential->under->size) {
        int rc;

        sequential->window_at += sequential->window.size;
        bop_buf_clear(&sequential->window);
        rc = extend(sequential, err);
        if (rc < 0) {
            return rc;
        }
    }
    return hash_end(sequential->hash, out_sha256);
}

void bop__sequential_deinit(struct bop__sequential *sequential)
{
    EVP_MD_CTX_free(sequential->hash);
    bop_buf_deinit(&sequential->window);
}
