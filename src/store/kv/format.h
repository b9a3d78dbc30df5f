/*
 * LMDB 0.9's file format, as the check reads it. Numbers are the machine's own,
 * of 64 bits where LMDB has a size_t.
 *
 *      page     number u64, pad u16, flags u16, lower u16, upper u16 (or pages u32)
 *      node     low u16, high u16, flags u16, key size u16, key, data
 *      tree     pad u32, flags u16, depth u16, branches u64, leaves u64, overflow u64,
 *               entries u64, root u64
 *      meta     page head, magic u32, version u32, address u64, map size u64,
 *               free tree, main tree, last page u64, transaction u64
 */
#ifndef BOP_STORE_KV_FORMAT_H
#define BOP_STORE_KV_FORMAT_H

#include "kv.h"

#include <bop/kv_admin.h>

#define FORMAT_PAGE_HEAD  16
#define FORMAT_NODE_HEAD  8
#define FORMAT_TREE_BYTES 48
#define FORMAT_MAGIC      0xBEEFC0DEu
#define FORMAT_VERSION    1u
#define FORMAT_META_BYTES 152
#define FORMAT_NO_PAGE    UINT64_MAX
#define FORMAT_DEPTH_MAX  32
#define FORMAT_FIRST_PAGE 2 /* After the two metas. */
#define FORMAT_PAGE_LEAST 512
#define FORMAT_PAGE_MOST  32768
#define FORMAT_ID_BYTES   8

enum { /* Of pages. */
       FORMAT_BRANCH = 0x01,
       FORMAT_LEAF = 0x02,
       FORMAT_OVERFLOW = 0x04,
       FORMAT_META = 0x08,
       FORMAT_LEAF2 = 0x20,
       FORMAT_SUBPAGE = 0x40,
       FORMAT_TYPES = 0x6f,
};

enum { /* Of nodes. */
       FORMAT_BIG = 0x01,
       FORMAT_SUBTREE = 0x02,
       FORMAT_DUPS = 0x04,
};

struct format_tree {
    uint32_t pad;
    uint16_t flags;
    uint16_t depth;
    uint64_t branches, leaves, overflow, entries, root;
};

struct format_meta {
    uint64_t txn;
    uint64_t last_page;
    uint64_t page_bytes;
    struct format_tree free, main;
};

/** A page in memory, or a page inside of a node. */
struct format_page {
    const uint8_t *bytes;
    size_t size;
    unsigned flags; /* Of FORMAT_TYPES. */
    unsigned count; /* Keys. */
    unsigned pad;
    unsigned upper;
};

struct format_node {
    unsigned flags;
    struct bop_slice key;
    uint64_t child;        /* Of a branch. */
    uint64_t data_size;    /* Of a leaf. */
    struct bop_slice data; /* What the page holds of it: a page number if it is BIG. */
};

struct format_tree bop__format_tree(const uint8_t *bytes);
/** Look at the head of a page with nodes. False if it makes no sense. */
bool bop__format_page(const uint8_t *bytes, size_t size, struct format_page *out_page);
/** One node of a page; false if it is not within the page. */
bool bop__format_node(const struct format_page *page, unsigned i, struct format_node *out_node);
/** Read both metas, and give the one of a transaction (0: the newest). 0, BOP_ENOTFOUND for an
 * empty file, BOP_EAGAIN if there is none of that transaction, BOP_EVERSION, BOP_ECORRUPT. */
int bop__format_metas(int fd, uint64_t txn, struct format_meta *out_meta, struct bop_error *err);
/** Read exactly so many bytes. 0, BOP_ETRUNCATED, or an errno. */
int bop__format_read(int fd, uint64_t offset, void *out, size_t size);

/* ---- check.c ---- */

/** Check the file as of a transaction (0: the newest). */
int bop__kv_check_fd(int fd, uint64_t txn, const struct bop_kv_check_options *options,
                     struct bop_kv_check_result *out_result, struct bop_error *err);

#endif
