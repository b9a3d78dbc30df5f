/*
 * The bytes of a local segment file: by mapping what is in the page cache, by pread what is not.
 *
 * Both have their case: out of the page cache a mapping gives small records at six times the rate
 * of pread; from the disk it gives big ones at a tenth, as each fault waits for a part of the
 * record, and a failing disk then is a signal instead of a code. So a mapping is asked first
 * (mincore) whether the pages are there, and if not, they are read with one call.
 *
 * A file that is being written grows, and is cut behind its footer when it is sealed. A page
 * behind a file's end must not be touched (SIGBUS). So nothing is handed out from `size` on, which
 * is at most how far the log has got: below lie records, which are never cut while somebody reads.
 * The mapping itself covers what the file had when it was made, and is made anew when that is too
 * little.
 *
 * Reading on from where the last call ended, each call takes twice as much as the one before; after
 * a jump it takes only what was asked for.
 */
#include "source.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES_MIN 4096u
#define AHEAD_MIN      (64u * 1024)
#define AHEAD_MAX      (1024u * 1024)
#define HOT_BLOCK      (64u * 1024)
#define HOT_USES       4096u
/* A buffer above this is given back when less is enough again. */
#define BUFFER_KEEP (2u * AHEAD_MAX)

struct file_source {
    struct bop__segment_source source;
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    int fd;
    bool mapping; /* Maps, as far as the file system can. */
    size_t page_bytes;

    const uint8_t *map;
    size_t map_size;
    /* A bit for each HOT_BLOCK of the map that was in the page cache when it was asked for.
     * Believed HOT_USES times, then all is asked for again. NULL: each time. */
    uint8_t *hot;
    size_t hot_size;
    unsigned hot_uses;

    /* Bytes [offset, offset + size) of the file, read. */
    uint8_t *buffer;
    size_t capacity;
    uint64_t buffer_offset;
    size_t buffer_size;

    int advice; /* What the kernel was told of the reads to come. */

    /* What the last call gave, and how much the next one that goes on there takes. */
    uint64_t last_offset, last_end;
    size_t ahead;

    char path[];
};

static void unmap(struct file_source *f)
{
    if (f->map) {
        f->fs->unmap(f->fs, f->map, f->map_size);
        f->map = NULL;
        f->map_size = 0;
    }
    if (f->hot) {
        bop_free(f->allocator, f->hot, f->hot_size);
        f->hot = NULL;
    }
}

/* Map as much as the file has, which must be `needed` at least. False: it cannot be mapped. */
static bool map_up_to(struct file_source *f, uint64_t needed)
{
    const void *bytes = NULL;
    uint64_t size = 0;

    if (f->map_size >= needed) {
        return true;
    }
    unmap(f);
    if (f->fs->size(f->fs, f->fd, &size) < 0 || size < needed || size > SIZE_MAX) {
        return false; /* pread will say what is wrong. */
    }
    if (f->fs->map(f->fs, f->fd, (size_t)size, &bytes) < 0) {
        f->mapping = false;
        return false;
    }
    f->map = bytes;
    f->map_size = (size_t)size;
    f->hot_size = f->map_size / HOT_BLOCK / 8 + 1;
    f->hot = bop_alloc_zeroed(f->allocator, f->hot_size);
    return true;
}

/* How many of the `wanted` bytes of the mapping are in the page cache, without a gap. */
static size_t resident(const struct file_source *f, const uint8_t *bytes, size_t wanted)
{
    unsigned char pages[AHEAD_MAX / PAGE_BYTES_MIN];
    const uint8_t *end = bytes + wanted;
    const uint8_t *at = bytes - (uintptr_t)bytes % f->page_bytes;
    bool all = true;

    /* One page first: mostly it is all there or nothing is, and the kernel looks up each. */
    for (size_t most = f->page_bytes; at < end && all; most = AHEAD_MAX) {
        size_t size = bop_min_u64((size_t)(end - at), most);

        if (mincore((void *)(uintptr_t)at, size, pages) < 0) {
            break;
        }
        for (size_t page = 0; page * f->page_bytes < size; page++) {
            all = all && (pages[page] & 1);
            at += all ? f->page_bytes : 0;
        }
    }
    if (at <= bytes) {
        return 0;
    }
    return at < end ? (size_t)(at - bytes) : wanted;
}

static bool known_hot(struct file_source *f, uint64_t begin, uint64_t end)
{
    if (!f->hot) {
        return false;
    }
    if (++f->hot_uses >= HOT_USES) {
        f->hot_uses = 0;
        memset(f->hot, 0, f->hot_size);
    }
    for (uint64_t block = begin / HOT_BLOCK; block * HOT_BLOCK < end; block++) {
        if (!(f->hot[block / 8] & 1u << block % 8)) {
            return false;
        }
    }
    return true;
}

/* How many of the `wanted` bytes at offset can be had from the mapping without waiting. */
static size_t hot_bytes(struct file_source *f, uint64_t offset, size_t wanted)
{
    uint64_t begin = offset - offset % HOT_BLOCK;
    uint64_t end = bop_min_u64((offset + wanted + HOT_BLOCK - 1) & ~(uint64_t)(HOT_BLOCK - 1),
                               f->map_size);
    uint64_t there;

    if (known_hot(f, begin, end)) {
        return wanted;
    }
    there = begin + resident(f, f->map + begin, (size_t)(end - begin));
    if (there == end && f->hot) {
        for (uint64_t block = begin / HOT_BLOCK; block * HOT_BLOCK < end; block++) {
            f->hot[block / 8] |= (uint8_t)(1u << block % 8);
        }
    }
    return there > offset ? (size_t)bop_min_u64(there - offset, wanted) : 0;
}

/* ---- Reading ---- */

static int buffer_reserve(struct file_source *f, size_t size, struct bop_error *err)
{
    size_t capacity = bop_max_u64(AHEAD_MIN,
                                  (size + PAGE_BYTES_MIN - 1) & ~(size_t)(PAGE_BYTES_MIN - 1));
    uint8_t *bytes;

    if (size <= f->capacity && (f->capacity <= BUFFER_KEEP || size > BUFFER_KEEP)) {
        return 0;
    }
    bytes = bop_alloc(f->allocator, capacity);
    if (!bytes) {
        return bop_error_set(err, BOP_ENOMEM, "read %zu bytes of %s", size, f->path);
    }
    if (f->buffer) {
        size_t keep = bop_min_u64(f->buffer_size, capacity);

        memcpy(bytes, f->buffer, keep);
        f->buffer_size = keep;
        bop_free(f->allocator, f->buffer, f->capacity);
    }
    f->buffer = bytes;
    f->capacity = capacity;
    return 0;
}

/* Forget what lies before offset; what is kept moves to the front. */
static void buffer_move_to(struct file_source *f, uint64_t offset)
{
    uint64_t end = f->buffer_offset + f->buffer_size;

    if (offset >= f->buffer_offset && offset < end) {
        f->buffer_size = (size_t)(end - offset);
        memmove(f->buffer, f->buffer + (offset - f->buffer_offset), f->buffer_size);
    } else {
        f->buffer_size = 0;
    }
    f->buffer_offset = offset;
}

/* After a jump the kernel is not to guess: it would look around in its cache whether something is
 * read in order here, and take what lies behind one record for what is wanted next. */
static void advise(struct file_source *f)
{
    int advice = f->ahead > 0 ? POSIX_FADV_NORMAL : POSIX_FADV_RANDOM;

    if (f->advice != advice && f->fs == bop_fs_real()) {
        BOP_IGNORE(posix_fadvise(f->fd, 0, 0, advice)); /* Only advice. */
        f->advice = advice;
    }
}

/* `least` bytes at offset, and up to `wanted` if they have to be read. All lie below size. */
static int read_at(struct file_source *f, uint64_t offset, size_t least, size_t wanted,
                   struct bop_slice *out_bytes, struct bop_error *err)
{
    uint64_t end = f->buffer_offset + f->buffer_size;

    if (f->buffer_size == 0 || offset < f->buffer_offset || offset + least > end) {
        int rc;

        buffer_move_to(f, offset);
        rc = buffer_reserve(f, wanted, err);
        if (rc < 0) {
            return rc;
        }
        advise(f);
        while (f->buffer_size < least) {
            ssize_t count = f->fs->pread(f->fs, f->fd, f->buffer + f->buffer_size,
                                         wanted - f->buffer_size, offset + f->buffer_size);

            if (count < 0) {
                return bop_error_set(err, (int)count, "read %s", f->path);
            }
            if (count == 0) {
                break;
            }
            f->buffer_size += (size_t)count;
        }
        end = offset + f->buffer_size;
    }
    *out_bytes = bop_slice(f->buffer + (offset - f->buffer_offset), (size_t)(end - offset));
    return 0;
}

/* How much to take at offset when `least` is needed. */
static size_t how_much(struct file_source *f, uint64_t offset, size_t least)
{
    if (offset >= f->last_offset && offset <= f->last_end && f->last_end > 0) {
        f->ahead = bop_min_u64(bop_max_u64(2 * (uint64_t)f->ahead, AHEAD_MIN), AHEAD_MAX);
    } else {
        f->ahead = 0;
    }
    return bop_min_u64(bop_max_u64(least, f->ahead), f->source.size - offset);
}

static int file_at(struct bop__segment_source *self, uint64_t offset, size_t least,
                   struct bop_slice *out_bytes, struct bop_error *err)
{
    struct file_source *f = BOP_CONTAINER_OF(self, struct file_source, source);
    struct bop_slice bytes = {0};
    size_t wanted;
    int rc = 0;

    if (offset >= self->size) {
        *out_bytes = bop_slice(NULL, 0);
        return 0;
    }
    least = bop_min_u64(bop_max_u64(least, 1), self->size - offset);
    wanted = how_much(f, offset, least);
    if (f->mapping && map_up_to(f, offset + wanted)) {
        bytes = bop_slice(f->map + offset, hot_bytes(f, offset, wanted));
    }
    if (bytes.size < least) {
        rc = read_at(f, offset, least, wanted, &bytes, err);
    }
    if (rc < 0) {
        return rc;
    }
    f->last_offset = offset;
    f->last_end = offset + bytes.size;
    *out_bytes = bytes;
    return 0;
}

static void file_prefetch(struct bop__segment_source *self, uint64_t offset, uint64_t bytes)
{
    struct file_source *f = BOP_CONTAINER_OF(self, struct file_source, source);
    uint64_t end = bytes < self->size ? bop_min_u64(self->size, offset + bytes) : self->size;

    offset -= offset % f->page_bytes;
    if (offset < end && f->mapping && map_up_to(f, end)) {
        /* Only advice. */
        BOP_IGNORE(
            madvise((void *)(uintptr_t)(f->map + offset), (size_t)(end - offset), MADV_WILLNEED));
    }
}

/* ---- Opening and closing ---- */

static void file_close(struct bop__segment_source *self)
{
    struct file_source *f = BOP_CONTAINER_OF(self, struct file_source, source);

    unmap(f);
    if (f->buffer) {
        bop_free(f->allocator, f->buffer, f->capacity);
    }
    if (f->fd >= 0) {
        /* Only read from. */
        BOP_IGNORE(f->fs->close(f->fs, f->fd));
    }
    bop_free(f->allocator, f, sizeof(*f) + strlen(f->path) + 1);
}

int bop__file_source_open(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                          bool sealed, bool pread, struct bop__segment_source **out_source,
                          struct bop_error *err)
{
    size_t path_size = strlen(path) + 1;
    struct file_source *f = bop_alloc(allocator, sizeof(*f) + path_size);
    int rc;

    if (!f) {
        return bop_error_set(err, BOP_ENOMEM, "read %s", path);
    }
    *f = (struct file_source){
        .source = {.tier = BOP_AOF_HOT,
                   .at = file_at,
                   .prefetch = file_prefetch,
                   .close = file_close},
        .allocator = allocator,
        .fs = fs,
        .fd = -1,
        .advice = POSIX_FADV_NORMAL,
        .mapping = !pread && fs->map,
        .page_bytes = bop_max_u64(PAGE_BYTES_MIN, (uint64_t)sysconf(_SC_PAGESIZE)),
    };
    memcpy(f->path, path, path_size);
    f->source.name = f->path;
    f->fd = fs->open(fs, path, O_RDONLY);
    rc = f->fd;
    if (rc >= 0 && sealed) {
        rc = fs->size(fs, f->fd, &f->source.size);
    }
    if (rc < 0) {
        bop_error_set(err, rc, "open %s", path);
        file_close(&f->source);
        return rc;
    }
    *out_source = &f->source;
    return 0;
}
