/*
 * Sealing a segment's file: the footer goes behind the last record, and is the end of the file.
 *
 * Mostly the file is cut there in place, behind all that anybody reads. But when records were
 * dropped from the segment, some reader may just be at one of them, in a mapping: a page that is
 * cut off then would end the process. So such a file is left as it is to those who have it open,
 * and a copy without the dropped records takes its name.
 */
#include "footer.h"
#include "format.h"

#define COPY_BYTES (1024u * 1024)

/* ---- In place ---- */

/* True if the file ends in this very footer. */
static bool sealed_already(struct bop_fs *fs, int fd, uint64_t size, struct bop_slice footer)
{
    uint8_t bytes[BOP__FOOTER_TRAILER];
    uint64_t file_size = 0;

    return fs->size(fs, fd, &file_size) == 0 && file_size == size &&
           bop_fs_read_exact(fs, fd, bytes, sizeof(bytes), size - sizeof(bytes)) == 0 &&
           memcmp(bytes, footer.data + footer.size - sizeof(bytes), sizeof(bytes)) == 0;
}

/*
 * The leaves are on disk before the trailer is where a reader looks for it, so a crash leaves a
 * file that is sealed whole or not at all. It is cut last: no byte below the records' end changes.
 */
static int write_footer(struct bop_fs *fs, int fd, uint64_t end, struct bop_slice footer)
{
    size_t leaves = footer.size - BOP__FOOTER_TRAILER;
    int rc = bop_fs_write_all(fs, fd, footer.data, leaves, end);

    if (rc == 0) {
        rc = fs->sync(fs, fd);
    }
    if (rc == 0) {
        rc = bop_fs_write_all(fs, fd, footer.data + leaves, BOP__FOOTER_TRAILER, end + leaves);
    }
    if (rc == 0) {
        rc = fs->truncate(fs, fd, end + footer.size);
    }
    return rc < 0 ? rc : fs->sync(fs, fd);
}

/* ---- As a copy ---- */

/* True if a record lies behind those that are kept, maybe behind a filler. */
static bool has_dropped(struct bop_fs *fs, int fd, const struct bop__segment_facts *facts)
{
    uint32_t salt = bop__aof_salt(facts->seed, facts->base, facts->generation);
    struct bop__aof_record_header header;
    uint64_t offset = facts->end;

    /* One filler at most: another has a commit before it, and so a record. */
    for (int i = 0; i < 2; i++) {
        if (bop_fs_read_exact(fs, fd, &header, sizeof(header), offset) < 0 ||
            !bop__aof_header_valid(salt, &header)) {
            return false;
        }
        if (!bop__aof_is_filler(&header)) {
            return true;
        }
        offset += bop__aof_record_size(bop__aof_record_length(&header));
    }
    return false;
}

static int copy_bytes(struct bop_allocator *allocator, struct bop_fs *fs, int from, int to,
                      uint64_t size)
{
    uint8_t *bytes = bop_alloc(allocator, COPY_BYTES);
    int rc = bytes ? 0 : BOP_ENOMEM;

    for (uint64_t at = 0; rc == 0 && at < size;) {
        size_t step = (size_t)bop_min_u64(COPY_BYTES, size - at);

        rc = bop_fs_read_exact(fs, from, bytes, step, at);
        if (rc == 0) {
            rc = bop_fs_write_all(fs, to, bytes, step, at);
        }
        at += step;
    }
    if (bytes) {
        bop_free(allocator, bytes, COPY_BYTES);
    }
    return rc;
}

/* "<directory of path>/seal.tmp", and the directory. */
static int copy_paths(struct bop_buf *dir, struct bop_buf *copy, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t size = slash ? (size_t)(slash - path) + 1 : 0;
    int rc = bop_buf_append(copy, path, size);

    if (rc == 0) {
        rc = bop_buf_append(copy, BOP__FOOTER_COPY_NAME, sizeof(BOP__FOOTER_COPY_NAME));
    }
    if (rc == 0) {
        rc = size > 0 ? bop_buf_append(dir, path, size) : bop_buf_append(dir, ".", 1);
    }
    return rc < 0 ? rc : bop_buf_append(dir, "", 1);
}

static int write_copy(struct bop_fs *fs, int fd, const char *dir, const char *copy,
                      const char *path, const struct bop__footer *footer, struct bop_slice bytes)
{
    int to = fs->open(fs, copy, O_RDWR | O_CREAT | O_TRUNC);
    int rc;

    if (to < 0) {
        return to;
    }
    rc = copy_bytes(footer->allocator, fs, fd, to, footer->facts.end);
    if (rc == 0) {
        rc = bop_fs_write_all(fs, to, bytes.data, bytes.size, footer->facts.end);
    }
    if (rc == 0) {
        rc = fs->sync(fs, to);
    }
    /* All was synced. */
    BOP_IGNORE(fs->close(fs, to));
    if (rc == 0) {
        rc = fs->rename(fs, copy, path);
    }
    if (rc < 0) {
        /* The next copy overwrites what is left. */
        BOP_IGNORE(fs->unlink(fs, copy));
        return rc;
    }
    return fs->sync_dir(fs, dir);
}

static int seal_copy(struct bop_fs *fs, int fd, const char *path, const struct bop__footer *footer,
                     struct bop_slice bytes)
{
    struct bop_buf dir, copy;
    int rc;

    bop_buf_init(&dir, footer->allocator, 0);
    bop_buf_init(&copy, footer->allocator, 0);
    rc = copy_paths(&dir, &copy, path);
    if (rc == 0) {
        rc = write_copy(fs, fd, (const char *)dir.data, (const char *)copy.data, path, footer,
                        bytes);
    }
    bop_buf_deinit(&copy);
    bop_buf_deinit(&dir);
    return rc;
}

/* ---- */

static int seal_file(struct bop_fs *fs, int fd, const char *path, const struct bop__footer *footer,
                     struct bop_slice bytes)
{
    if (sealed_already(fs, fd, footer->facts.size, bytes)) {
        return fs->sync(fs, fd);
    }
    return has_dropped(fs, fd, &footer->facts) ? seal_copy(fs, fd, path, footer, bytes)
                                               : write_footer(fs, fd, footer->facts.end, bytes);
}

int bop__footer_seal(struct bop_fs *fs, const char *path, struct bop__footer *footer,
                     struct bop_error *err)
{
    struct bop_buf bytes;
    int fd, rc;

    bop_buf_init(&bytes, footer->allocator, 0);
    rc = bop__footer_encode(footer, &bytes);
    if (rc < 0) {
        return bop_error_set(err, rc, "seal %s", path);
    }
    fd = fs->open(fs, path, O_RDWR);
    rc = fd;
    if (rc >= 0) {
        rc = seal_file(fs, fd, path, footer, bop_buf_slice(&bytes));
        /* All was synced. */
        BOP_IGNORE(fs->close(fs, fd));
    }
    if (rc < 0) {
        bop_error_set(err, rc, "seal %s", path);
    }
    bop_buf_deinit(&bytes);
    return rc;
}
