/*
 * The integrity check: a walk over all trees of a snapshot, page by page.
 *
 * A page that was seen before is not entered again, so the walk ends whatever
 * the file holds. It goes into the depth, at most 32 pages in each of three kinds of
 * trees inside of each other (main, a table's, a key's duplicates), and has a
 * buffer for each of them.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "format.h"

#include <bop/mem.h>

#define PROBLEMS_MAX_DEFAULT 1000
#define LEVELS               (3 * FORMAT_DEPTH_MAX)
#define TEXT_MAX             160
#define META_TRIES           100
#define PATH_MAX_BYTES       4096
#define IDS_AT_ONCE          512

struct checker {
    const struct bop_kv_check_options *options;
    struct bop_allocator *allocator;
    struct bop_kv_check_result *result;
    struct bop_error *err;
    int fd;
    int failed; /* Reading failed, or no memory: no problem of the file's. */
    uint64_t problems_max;
    struct format_meta meta;
    uint8_t *used; /* A bit a page. */
    uint8_t *freed;
    size_t bitmap_bytes;
    uint8_t *buffers[LEVELS];
    char table[BOP_KV_KEY_MAX + 1];
};

/* A tree that is being walked. */
struct walk {
    unsigned kind;  /* Of keys: LMDB's flags REVERSEKEY and INTEGERKEY. */
    unsigned flags; /* Of the table; 0 for duplicates. */
    unsigned base;  /* Its first buffer. */
    unsigned depth;
    bool is_main, is_free, is_dups;
    uint64_t branches, leaves, overflow, entries;
};

static bool stopped(const struct checker *c)
{
    return c->failed || c->result->problems >= c->problems_max;
}

static BOP_PRINTF(3, 4) void problem(struct checker *c, uint64_t page, const char *format, ...)
{
    char text[TEXT_MAX];
    va_list args;

    if (stopped(c)) {
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (c->result->problems++ == 0) {
        BOP_IGNORE(bop_error_set(c->err, BOP_ECORRUPT, "%s%spage %" PRIu64 ": %s", c->table,
                                 c->table[0] ? ": " : "", page, text));
    }
    if (c->options->problem) {
        c->options->problem(c->options->context, page, c->table, text);
    }
}

static bool test_bit(const uint8_t *bits, uint64_t at)
{
    return bits[at / 8] >> at % 8 & 1;
}

static void set_bit(uint8_t *bits, uint64_t at)
{
    bits[at / 8] = (uint8_t)(bits[at / 8] | 1u << at % 8);
}

/* Mark pages as used; false if they cannot be. */
static bool claim(struct checker *c, uint64_t page, uint64_t count)
{
    if (page < FORMAT_FIRST_PAGE || page > c->meta.last_page ||
        count > c->meta.last_page - page + 1) {
        problem(c, page, "outside of the %" PRIu64 " pages", c->meta.last_page + 1);
        return false;
    }
    for (uint64_t i = page; i < page + count; i++) {
        if (test_bit(c->used, i)) {
            problem(c, i, "used twice");
            return false;
        }
        set_bit(c->used, i);
    }
    c->result->pages_used += count;
    return true;
}

static bool read_bytes(struct checker *c, uint64_t page, size_t skip, void *out, size_t size)
{
    int rc = bop__format_read(c->fd, page * c->meta.page_bytes + skip, out, size);

    if (rc == BOP_ETRUNCATED) {
        problem(c, page, "beyond the end of the file");
    } else if (rc < 0) {
        c->failed = bop_error_set(c->err, rc, "read page %" PRIu64, page);
    }
    return rc == 0;
}

static const uint8_t *read_page(struct checker *c, uint64_t page, unsigned level)
{
    uint64_t number;

    if (!c->buffers[level]) {
        c->buffers[level] = bop_alloc(c->allocator, (size_t)c->meta.page_bytes);
        if (!c->buffers[level]) {
            c->failed = bop_error_set(c->err, BOP_ENOMEM, "check");
            return NULL;
        }
    }
    if (!claim(c, page, 1) ||
        !read_bytes(c, page, 0, c->buffers[level], (size_t)c->meta.page_bytes)) {
        return NULL;
    }
    memcpy(&number, c->buffers[level], sizeof(number));
    if (number != page) {
        problem(c, page, "says that it is page %" PRIu64, number);
        return NULL;
    }
    return c->buffers[level];
}

/* ---- Order ---- */

static int compare_reverse(struct bop_slice a, struct bop_slice b)
{
    for (size_t i = 1; i <= a.size && i <= b.size; i++) {
        int order = a.data[a.size - i] - b.data[b.size - i];

        if (order != 0) {
            return order;
        }
    }
    return a.size < b.size ? -1 : a.size > b.size;
}

static uint64_t integer_of(struct bop_slice a)
{
    uint64_t wide = 0;
    uint32_t narrow = 0;

    if (a.size == sizeof(wide)) {
        memcpy(&wide, a.data, sizeof(wide));
        return wide;
    }
    memcpy(&narrow, a.data, sizeof(narrow));
    return narrow;
}

static int compare(const struct walk *walk, struct bop_slice a, struct bop_slice b)
{
    if ((walk->kind & MDB_INTEGERKEY) != 0) {
        uint64_t x = integer_of(a), y = integer_of(b);

        return x < y ? -1 : x > y;
    }
    return (walk->kind & MDB_REVERSEKEY) != 0 ? compare_reverse(a, b) : bop_slice_compare(a, b);
}

static bool key_fits(const struct walk *walk, struct bop_slice key)
{
    return (walk->kind & MDB_INTEGERKEY) != 0 ? key.size == 4 || key.size == 8 : key.size > 0;
}

/* ---- Leaves ---- */

static void check_tree(struct checker *c, const struct format_tree *tree, struct walk *walk);

/* The ids of a record of free pages, in pieces: the data may be in pages of its own. */
static void check_free_ids(struct checker *c, uint64_t page, uint64_t data_page,
                           const struct format_node *node)
{
    uint64_t ids[IDS_AT_ONCE], count = 0, last = UINT64_MAX;
    uint64_t words = node->data_size / FORMAT_ID_BYTES;

    for (uint64_t at = 0; at < words && (at == 0 || at <= count) && !stopped(c);) {
        uint64_t n = bop_min_u64(words - at, IDS_AT_ONCE);

        if (data_page == 0) {
            memcpy(ids, node->data.data + at * FORMAT_ID_BYTES, n * FORMAT_ID_BYTES);
        } else if (!read_bytes(c, data_page, FORMAT_PAGE_HEAD + at * FORMAT_ID_BYTES, ids,
                               n * FORMAT_ID_BYTES)) {
            return;
        }
        for (uint64_t i = 0; i < n; i++, at++) {
            if (at == 0) {
                count = ids[0];
            } else if (at <= count) {
                if (ids[i] < FORMAT_FIRST_PAGE || ids[i] > c->meta.last_page || ids[i] >= last) {
                    problem(c, page, "list of free pages out of order or bounds");
                    return;
                }
                last = ids[i];
                if (test_bit(c->freed, last)) {
                    problem(c, last, "free twice");
                }
                set_bit(c->freed, last);
            }
        }
    }
    if (words == 0 || count >= words) {
        problem(c, page, "a list of free pages is longer than its record");
    }
}

/* A value in pages of its own; returns the first of them, or 0. */
static uint64_t check_overflow(struct checker *c, struct walk *walk, uint64_t page,
                               const struct format_node *node)
{
    uint8_t head[FORMAT_PAGE_HEAD];
    uint64_t first, number;
    uint32_t pages;
    uint16_t flags;
    const uint64_t need = (FORMAT_PAGE_HEAD + node->data_size + c->meta.page_bytes - 1) /
                          c->meta.page_bytes;

    memcpy(&first, node->data.data, sizeof(first));
    if (first < FORMAT_FIRST_PAGE || first > c->meta.last_page) {
        problem(c, page, "a value at page %" PRIu64 ", outside of the file", first);
        return 0;
    }
    if (!read_bytes(c, first, 0, head, sizeof(head))) {
        return 0;
    }
    memcpy(&number, head, sizeof(number));
    memcpy(&flags, head + 10, sizeof(flags));
    memcpy(&pages, head + 12, sizeof(pages));
    if (number != first || (flags & FORMAT_TYPES) != FORMAT_OVERFLOW || pages < need) {
        problem(c, first, "not the pages of a value of %" PRIu64 " bytes", node->data_size);
        return 0;
    }
    walk->overflow += pages;
    return claim(c, first, pages) ? first : 0;
}

/* Duplicates that fit into their key's node: a page inside of the page. */
static void check_subpage(struct checker *c, const struct walk *dups, uint64_t page,
                          const struct format_node *node, uint64_t *entries)
{
    struct format_page inner;
    struct format_node value;
    struct bop_slice last = {0};

    if (!bop__format_page(node->data.data, node->data.size, &inner) ||
        (inner.flags & ~(unsigned)FORMAT_LEAF2) != (FORMAT_LEAF | FORMAT_SUBPAGE)) {
        problem(c, page, "damaged duplicates");
        return;
    }
    for (unsigned i = 0; i < inner.count; i++) {
        if (!bop__format_node(&inner, i, &value) || !key_fits(dups, value.key)) {
            problem(c, page, "a damaged duplicate");
            return;
        }
        if (i > 0 && compare(dups, last, value.key) >= 0) {
            problem(c, page, "duplicates out of order");
            return;
        }
        last = value.key;
    }
    *entries += inner.count;
}

static void check_dups(struct checker *c, struct walk *walk, uint64_t page,
                       const struct format_node *node)
{
    struct walk dups = {.base = 2 * FORMAT_DEPTH_MAX, .is_dups = true};
    struct format_tree tree;

    if ((walk->flags & MDB_DUPSORT) == 0 || (node->flags & FORMAT_BIG) != 0) {
        problem(c, page, "duplicates in a table without");
        return;
    }
    dups.kind = (walk->flags & MDB_INTEGERDUP ? MDB_INTEGERKEY : 0) |
                (walk->flags & MDB_REVERSEDUP ? MDB_REVERSEKEY : 0);
    if ((node->flags & FORMAT_SUBTREE) == 0) {
        check_subpage(c, &dups, page, node, &walk->entries);
        return;
    }
    if (node->data.size != FORMAT_TREE_BYTES) {
        problem(c, page, "a damaged tree of duplicates");
        return;
    }
    tree = bop__format_tree(node->data.data);
    check_tree(c, &tree, &dups);
    walk->entries += dups.entries;
}

static void check_table(struct checker *c, uint64_t page, const struct format_node *node)
{
    struct walk walk = {.base = FORMAT_DEPTH_MAX};
    struct format_tree tree;

    if (node->data.size != FORMAT_TREE_BYTES) {
        problem(c, page, "a damaged root of a table");
        return;
    }
    memcpy(c->table, node->key.data, node->key.size);
    c->table[node->key.size] = 0;
    tree = bop__format_tree(node->data.data);
    walk.flags = tree.flags;
    walk.kind = tree.flags & (MDB_REVERSEKEY | MDB_INTEGERKEY);
    check_tree(c, &tree, &walk);
    c->table[0] = 0;
    c->result->tables++;
    c->result->entries += walk.entries;
}

static void check_leaf_node(struct checker *c, struct walk *walk, uint64_t page,
                            const struct format_node *node)
{
    uint64_t data_page = 0;

    if ((node->flags & FORMAT_DUPS) != 0) {
        check_dups(c, walk, page, node);
        return;
    }
    walk->entries++;
    if ((node->flags & FORMAT_SUBTREE) != 0) {
        if (walk->is_main && (node->flags & FORMAT_BIG) == 0) {
            check_table(c, page, node);
        } else {
            problem(c, page, "a table inside of a table");
        }
        return;
    }
    if ((node->flags & FORMAT_BIG) != 0) {
        data_page = check_overflow(c, walk, page, node);
        if (data_page == 0) {
            return;
        }
    }
    if (walk->is_free) {
        check_free_ids(c, page, data_page, node);
    } else if ((walk->flags & MDB_DUPSORT) != 0 && node->data_size > BOP_KV_KEY_MAX) {
        problem(c, page, "a duplicate that is too big");
    }
}

/* ---- Trees ---- */

static bool page_type_fits(const struct walk *walk, const struct format_page *page, unsigned level)
{
    if (level < walk->depth) {
        return page->flags == FORMAT_BRANCH && page->count >= 2;
    }
    return page->count > 0 && (page->flags == FORMAT_LEAF ||
                               (walk->is_dups && page->flags == (FORMAT_LEAF | FORMAT_LEAF2)));
}

/* A page and what is under it, whose keys are from `low` on (size 0: any) and below `high`. */
static void check_page(struct checker *c, struct walk *walk, uint64_t number, unsigned level,
                       struct bop_slice low, struct bop_slice high)
{
    const uint8_t *bytes = read_page(c, number, walk->base + level - 1);
    struct format_page page;
    struct format_node node, next;
    struct bop_slice last = low;

    if (!bytes) {
        return;
    }
    if (!bop__format_page(bytes, (size_t)c->meta.page_bytes, &page) ||
        !page_type_fits(walk, &page, level)) {
        problem(c, number, "damaged head");
        return;
    }
    walk->branches += level < walk->depth;
    walk->leaves += level == walk->depth;
    for (unsigned i = 0; i < page.count && !stopped(c); i++) {
        bool is_branch = level < walk->depth;
        bool has_key = !is_branch || i > 0; /* A branch's first key stands for all below. */

        if (!bop__format_node(&page, i, &node) || (has_key && !key_fits(walk, node.key))) {
            problem(c, number, "damaged entry %u", i);
            return;
        }
        /* The first of a page may be what the branch above says. */
        if (has_key && last.size > 0 &&
            compare(walk, last, node.key) >= (i == 0 && !is_branch ? 1 : 0)) {
            problem(c, number, "entry %u out of order", i);
            return;
        }
        if (has_key && high.size > 0 && compare(walk, node.key, high) >= 0) {
            problem(c, number, "entry %u belongs to another page", i);
            return;
        }
        if (is_branch) {
            struct bop_slice end = high;

            if (i + 1 < page.count) {
                if (!bop__format_node(&page, i + 1, &next) || !key_fits(walk, next.key)) {
                    problem(c, number, "damaged entry %u", i + 1);
                    return;
                }
                end = next.key;
            }
            check_page(c, walk, node.child, level + 1, has_key ? node.key : low, end);
        } else if (walk->is_dups) {
            walk->entries++;
        } else {
            check_leaf_node(c, walk, number, &node);
        }
        last = has_key ? node.key : last;
    }
}

static void check_tree(struct checker *c, const struct format_tree *tree, struct walk *walk)
{
    if (tree->root == FORMAT_NO_PAGE) {
        if (tree->entries != 0) {
            problem(c, 0, "an empty tree with %" PRIu64 " entries", tree->entries);
        }
        return;
    }
    if (tree->depth == 0 || tree->depth > FORMAT_DEPTH_MAX) {
        problem(c, tree->root, "a tree of depth %u", tree->depth);
        return;
    }
    walk->depth = tree->depth;
    check_page(c, walk, tree->root, 1, (struct bop_slice){0}, (struct bop_slice){0});
    if (walk->entries != tree->entries) {
        problem(c, tree->root, "%" PRIu64 " entries, but %" PRIu64 " counted", tree->entries,
                walk->entries);
    }
    if (walk->branches != tree->branches || walk->leaves != tree->leaves ||
        walk->overflow != tree->overflow) {
        problem(c, tree->root, "counts of pages differ from the pages there are");
    }
}

/* Every page is used or free, and not both. */
static void check_pages(struct checker *c)
{
    uint64_t lost_from = 0;

    for (uint64_t i = FORMAT_FIRST_PAGE; i <= c->meta.last_page + 1 && !stopped(c); i++) {
        bool inside = i <= c->meta.last_page;
        bool used = inside && test_bit(c->used, i), freed = inside && test_bit(c->freed, i);
        bool lost = inside && !used && !freed;

        c->result->pages_free += freed;
        c->result->pages_lost += lost;
        if (used && freed) {
            problem(c, i, "used, and free");
        }
        if (lost && lost_from == 0) {
            lost_from = i;
        } else if (!lost && lost_from != 0) {
            problem(c, lost_from, "%" PRIu64 " pages neither used nor free", i - lost_from);
            lost_from = 0;
        }
    }
}

static void check_all(struct checker *c)
{
    struct walk main_walk = {.is_main = true,
                             .flags = c->meta.main.flags,
                             .kind = c->meta.main.flags & (MDB_REVERSEKEY | MDB_INTEGERKEY)};
    struct walk free_walk = {.is_free = true, .kind = MDB_INTEGERKEY};

    check_tree(c, &c->meta.main, &main_walk);
    check_tree(c, &c->meta.free, &free_walk);
    /* After other problems, pages are missing for that reason. */
    if (c->result->problems == 0) {
        check_pages(c);
    }
}

int bop__kv_check_fd(int fd, uint64_t txn, const struct bop_kv_check_options *options,
                     struct bop_kv_check_result *out_result, struct bop_error *err)
{
    static const struct bop_kv_check_options defaults;
    struct checker c = {.fd = fd, .result = out_result, .err = err};
    int rc;

    c.options = options ? options : &defaults;
    c.allocator = bop_allocator_or_tag(c.options->allocator, "store.kv");
    c.problems_max = c.options->problems_max ? c.options->problems_max : PROBLEMS_MAX_DEFAULT;
    memset(out_result, 0, sizeof(*out_result));
    rc = bop__format_metas(fd, txn, &c.meta, err);
    if (rc < 0) {
        out_result->problems += rc == BOP_ECORRUPT;
        return rc;
    }
    out_result->txn = c.meta.txn;
    out_result->page_bytes = c.meta.page_bytes;
    out_result->pages = c.meta.last_page + 1;
    out_result->pages_used = FORMAT_FIRST_PAGE;
    c.bitmap_bytes = (size_t)(c.meta.last_page / 8 + 1);
    c.used = bop_alloc_zeroed(c.allocator, c.bitmap_bytes);
    c.freed = bop_alloc_zeroed(c.allocator, c.bitmap_bytes);
    if (c.used && c.freed) {
        check_all(&c);
    } else {
        c.failed = bop_error_set(err, BOP_ENOMEM, "check");
    }
    for (unsigned i = 0; i < LEVELS; i++) {
        bop_free(c.allocator, c.buffers[i], c.buffers[i] ? (size_t)c.meta.page_bytes : 0);
    }
    bop_free(c.allocator, c.freed, c.freed ? c.bitmap_bytes : 0);
    bop_free(c.allocator, c.used, c.used ? c.bitmap_bytes : 0);
    return c.failed ? c.failed : out_result->problems ? BOP_ECORRUPT : 0;
}

int bop_kv_check_path(const char *path, const struct bop_kv_check_options *options,
                      struct bop_kv_check_result *out_result, struct bop_error *err)
{
    char file[PATH_MAX_BYTES];
    int n = snprintf(file, sizeof(file), "%s/%s", path, KV_DATA_FILE);
    int fd, rc;

    if (n < 0 || (size_t)n >= sizeof(file)) {
        return bop_error_set(err, -ENAMETOOLONG, "%s", path);
    }
    fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return bop_error_set(err, -errno, "open %s", file);
    }
    if (flock(fd, LOCK_SH | LOCK_NB) != 0) {
        rc = bop_error_set(err, errno == EWOULDBLOCK ? BOP_ELOCKED : -errno, "lock %s", file);
    } else {
        rc = bop__kv_check_fd(fd, 0, options, out_result, err);
        if (rc == BOP_ENOTFOUND) {
            rc = bop_error_set(err, BOP_ECORRUPT, "the file is empty");
        }
        if (rc < 0) {
            BOP_IGNORE(bop_error_wrap(err, "check %s", file)); /* The code stays. */
        }
    }
    close(fd);
    return rc;
}

int bop_kv_check(struct bop_kv *kv, const struct bop_kv_check_options *options,
                 struct bop_kv_check_result *out_result, struct bop_error *err)
{
    struct bop_kv_txn *txn;
    int rc = BOP_EAGAIN;

    /* The roots of a snapshot are overwritten by the second commit after it. */
    for (int i = 0; i < META_TRIES && rc == BOP_EAGAIN; i++) {
        rc = bop_kv_begin(kv, false, &txn);
        if (rc < 0) {
            return bop__kv_error(err, rc, "check the store");
        }
        rc = bop__kv_check_fd(kv->data_fd, bop_kv_txn_id(txn), options, out_result, err);
        bop_kv_abort(txn);
    }
    return rc == BOP_EAGAIN ? bop_error_set(err, BOP_EBUSY, "check the store") : rc;
}
