/* Reading LMDB's pages with every offset checked. */
#include "format.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A store without a writable map need not have written its last pages, if they are free. */
#define UNWRITTEN_PAGES_MAX 256

static uint16_t load16(const uint8_t *bytes)
{
    uint16_t value;

    memcpy(&value, bytes, sizeof(value));
    return value;
}

static uint32_t load32(const uint8_t *bytes)
{
    uint32_t value;

    memcpy(&value, bytes, sizeof(value));
    return value;
}

static uint64_t load64(const uint8_t *bytes)
{
    uint64_t value;

    memcpy(&value, bytes, sizeof(value));
    return value;
}

int bop__format_read(int fd, uint64_t offset, void *out, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = pread(fd, (uint8_t *)out + done, size - done, (off_t)(offset + done));

        if (n == 0) {
            return BOP_ETRUNCATED;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        done += n < 0 ? 0 : (size_t)n;
    }
    return 0;
}

struct format_tree bop__format_tree(const uint8_t *bytes)
{
    return (struct format_tree){
        .pad = load32(bytes),
        .flags = load16(bytes + 4),
        .depth = load16(bytes + 6),
        .branches = load64(bytes + 8),
        .leaves = load64(bytes + 16),
        .overflow = load64(bytes + 24),
        .entries = load64(bytes + 32),
        .root = load64(bytes + 40),
    };
}

bool bop__format_page(const uint8_t *bytes, size_t size, struct format_page *out_page)
{
    unsigned lower, upper;

    if (size < FORMAT_PAGE_HEAD) {
        return false;
    }
    lower = load16(bytes + 12);
    upper = load16(bytes + 14);
    *out_page = (struct format_page){
        .bytes = bytes,
        .size = size,
        .flags = load16(bytes + 10) & FORMAT_TYPES,
        .count = (lower - FORMAT_PAGE_HEAD) / 2,
        .pad = load16(bytes + 8),
        .upper = upper,
    };
    if (lower < FORMAT_PAGE_HEAD || lower % 2 != 0 || lower > upper || upper > size) {
        return false;
    }
    return (out_page->flags & FORMAT_LEAF2) == 0 ||
           (out_page->pad > 0 && out_page->pad <= BOP_KV_KEY_MAX &&
            FORMAT_PAGE_HEAD + (size_t)out_page->count * out_page->pad <= size);
}

bool bop__format_node(const struct format_page *page, unsigned i, struct format_node *out_node)
{
    size_t at, left, key_size;
    const uint8_t *node;

    if ((page->flags & FORMAT_LEAF2) != 0) {
        *out_node = (struct format_node){
            .key = bop_slice(page->bytes + FORMAT_PAGE_HEAD + (size_t)i * page->pad, page->pad)};
        return true;
    }
    at = load16(page->bytes + FORMAT_PAGE_HEAD + 2 * (size_t)i);
    if (at < page->upper || at % 2 != 0 || at + FORMAT_NODE_HEAD > page->size) {
        return false;
    }
    node = page->bytes + at;
    left = page->size - at - FORMAT_NODE_HEAD;
    key_size = load16(node + 6);
    if (key_size > left || key_size > BOP_KV_KEY_MAX) {
        return false;
    }
    left -= key_size;
    *out_node = (struct format_node){.flags = load16(node + 4),
                                     .key = bop_slice(node + FORMAT_NODE_HEAD, key_size),
                                     .data_size = load16(node) | (uint64_t)load16(node + 2) << 16};
    if ((page->flags & FORMAT_BRANCH) != 0) {
        out_node->child = out_node->data_size | (uint64_t)out_node->flags << 32;
        return true;
    }
    out_node->data = bop_slice(node + FORMAT_NODE_HEAD + key_size,
                               out_node->flags & FORMAT_BIG ? 8 : (size_t)out_node->data_size);
    return out_node->data.size <= left;
}

static int read_meta(int fd, uint64_t offset, struct format_meta *out_meta, struct bop_error *err)
{
    uint8_t bytes[FORMAT_META_BYTES];
    int rc = bop__format_read(fd, offset, bytes, sizeof(bytes));

    if (rc < 0) {
        return bop_error_set(err, rc == BOP_ETRUNCATED ? BOP_ECORRUPT : rc, "page of roots");
    }
    if ((load16(bytes + 10) & FORMAT_META) == 0 ||
        load32(bytes + FORMAT_PAGE_HEAD) != FORMAT_MAGIC) {
        return bop_error_set(err, BOP_ECORRUPT, "page of roots: not one of LMDB's");
    }
    if (load32(bytes + FORMAT_PAGE_HEAD + 4) != FORMAT_VERSION) {
        return bop_error_set(err, BOP_EVERSION, "LMDB's format %u",
                             load32(bytes + FORMAT_PAGE_HEAD + 4));
    }
    out_meta->free = bop__format_tree(bytes + FORMAT_PAGE_HEAD + 24);
    out_meta->main = bop__format_tree(bytes + FORMAT_PAGE_HEAD + 72);
    out_meta->last_page = load64(bytes + FORMAT_PAGE_HEAD + 120);
    out_meta->txn = load64(bytes + FORMAT_PAGE_HEAD + 128);
    out_meta->page_bytes = out_meta->free.pad;
    if (out_meta->page_bytes < FORMAT_PAGE_LEAST || out_meta->page_bytes > FORMAT_PAGE_MOST ||
        (out_meta->page_bytes & (out_meta->page_bytes - 1)) != 0) {
        return bop_error_set(err, BOP_ECORRUPT, "page of roots: pages of %" PRIu64 " bytes",
                             out_meta->page_bytes);
    }
    return 0;
}

static bool root_fits(const struct format_tree *tree, const struct format_meta *meta)
{
    return tree->root == FORMAT_NO_PAGE ||
           (tree->root >= FORMAT_FIRST_PAGE && tree->root <= meta->last_page &&
            tree->depth <= FORMAT_DEPTH_MAX);
}

int bop__format_metas(int fd, uint64_t txn, struct format_meta *out_meta, struct bop_error *err)
{
    struct format_meta metas[2];
    const struct format_meta *meta;
    struct stat stat;
    int rc;

    if (fstat(fd, &stat) != 0) {
        return bop_error_set(err, -errno, "stat");
    }
    if (stat.st_size == 0) {
        return BOP_ENOTFOUND;
    }
    rc = read_meta(fd, 0, &metas[0], err);
    if (rc == 0) {
        rc = read_meta(fd, metas[0].page_bytes, &metas[1], err);
    }
    if (rc < 0) {
        return rc;
    }
    meta = metas[1].txn > metas[0].txn ? &metas[1] : &metas[0];
    if (txn != 0 && meta->txn != txn) {
        meta = meta == metas ? &metas[1] : &metas[0];
        if (meta->txn != txn) {
            return BOP_EAGAIN;
        }
    }
    if (metas[0].page_bytes != metas[1].page_bytes || !root_fits(&meta->free, meta) ||
        !root_fits(&meta->main, meta)) {
        return bop_error_set(err, BOP_ECORRUPT, "page of roots");
    }
    if (meta->last_page >= (uint64_t)stat.st_size / meta->page_bytes + UNWRITTEN_PAGES_MAX) {
        return bop_error_set(err, BOP_ECORRUPT, "the file ends before page %" PRIu64,
                             meta->last_page);
    }
    *out_meta = *meta;
    return 0;
}
