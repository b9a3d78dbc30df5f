/*
 * Blocks reserved ahead of use, so that a full disk is a refusal.
 *
 *      0            used             reserved                 map_bytes
 *      +-------------+-----------------+------------------------+
 *      | pages in use| blocks, unused  |  hole in a sparse file |
 *      +-------------+-----------------+------------------------+
 *
 * LMDB writes through the map, and a first write to a hole that the disk has no
 * block for is SIGBUS. So no transaction may write above `reserved`. LMDB does
 * not tell how many new pages a transaction has taken before it commits, and we
 * keep an upper bound instead. Where new pages come from:
 *
 *   (1) A change copies the pages on its way from root to leaf, each once a
 *       transaction. One leaf a change; all branches of the table at most.
 *   (2) A put may split its leaf, one page, and then branches. Of the lowest
 *       branches every put could split a different one. A branch above is split
 *       for a second time only after three or more splits below it, and for a first
 *       time once. Together 1.5 a put, and the branches there were.
 *   (3) A delete copies its leaf and a neighbour it is merged with. A separator
 *       that gets longer may split a branch as in (2).
 *   (4) A value too big for a leaf takes whole pages of its own.
 *   (5) The commit writes the list of free pages, 8 bytes a page, and the roots of
 *       the tables.
 *
 * (1) to (3) make CHANGE_PAGES a change and two times the branches a table. In
 * a bulk load this is far too much, so when it does not fit, there is a second
 * bound: a page of a tree that a transaction took and gave back is taken again
 * first, so it cannot have taken more of them than its trees had at most, which
 * is what they have now but for merges.
 *
 * A tree of a key's duplicates is changed as in (1) to (3) too, but LMDB does not
 * count its pages anywhere: each change is charged its deepest possible path, and
 * there is no second bound. Instead there is a count: LMDB keeps the page that it
 * will take next in the third word of its transaction, in all of 0.9. Whether it does
 * is looked at each time a transaction begins, when the word must be the page after
 * the last in use; if it is not, the bounds above are all there is.
 *
 * The bound of the map needs no account: there LMDB refuses by itself.
 *
 * The page cache keeps a file in folios of up to 2 MiB, as it was read: by a warm-up, a backup
 * program, or LMDB's map with read_ahead. A first write to a page of one makes the file system find
 * blocks for all of it. So what is reserved ends where a folio does, and none of them lies on both
 * sides of the end.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "kv.h"

#define CHANGE_PAGES     4
#define MERGE_PAGES      2   /* Tree pages that one delete can give back, of which it took none. */
#define IDS_A_PAGE       256 /* Half of 4096 / 8: records are not packed. */
#define SPARE_PAGES      32
#define ROOTS_A_PAGE     4 /* Names can be long. */
#define LOW_PAGES        64
#define INTERRUPTIONS    100
#define FOLIO_BYTES      (UINT64_C(2) << 20)
#define COPY_CHUNK_BYTES 16384

/*
 * For file systems that cannot reserve: write what is there, which allocates. Nobody else writes
 * to the range, so this cannot undo a change.
 */
static int allocate_by_writing(int fd, uint64_t from, uint64_t to)
{
    uint8_t chunk[COPY_CHUNK_BYTES];

    while (from < to) {
        size_t size = (size_t)bop_min_u64(to - from, sizeof(chunk));
        size_t done = 0;

        memset(chunk, 0, size);
        if (pread(fd, chunk, size, (off_t)from) < 0) {
            return -errno;
        }
        while (done < size) {
            ssize_t n = pwrite(fd, chunk + done, size - done, (off_t)(from + done));

            if (n < 0 && errno != EINTR) {
                return errno == ENOSPC || errno == EDQUOT ? BOP_ENOROOM : -errno;
            }
            done += n < 0 ? 0 : (size_t)n;
        }
        from += size;
    }
    return 0;
}

/*
 * False if the disk lacks the room. fallocate() would say so as well, but may take what is left
 * first, and the log on the same disk would starve.
 */
static bool disk_has_room(int fd, uint64_t to)
{
    struct statvfs disk;
    struct stat file;
    uint64_t have, free_bytes;

    if (fstatvfs(fd, &disk) != 0 || fstat(fd, &file) != 0 || disk.f_blocks == 0) {
        return true; /* It does not tell; fallocate() will. */
    }
    have = (uint64_t)file.st_blocks * 512;
    free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    return to <= have || to - have <= free_bytes;
}

int bop__kv_allocate(int fd, uint64_t from, uint64_t to)
{
    if (!disk_has_room(fd, to)) {
        return BOP_ENOROOM;
    }
    for (int i = 0; i < INTERRUPTIONS; i++) {
        if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)) == 0) {
            return 0;
        }
        switch (errno) {
        case EINTR:
            break;
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
            return BOP_ENOROOM;
        case EOPNOTSUPP:
        case ENOSYS:
            return allocate_by_writing(fd, from, to);
        default:
            return -errno;
        }
    }
    return -EINTR;
}

static uint64_t folio_end(const struct bop_kv *kv, uint64_t offset)
{
    return bop_min_u64((offset + FOLIO_BYTES - 1) / FOLIO_BYTES * FOLIO_BYTES, kv->map_bytes);
}

/* Reserve up to `want`, or, if that does not fit on the disk, up to `need` at least. */
static int reserve(struct bop_kv *kv, uint64_t need, uint64_t want)
{
    uint64_t reserved = atomic_load_explicit(&kv->reserved_bytes, memory_order_relaxed);
    int rc;

    need = folio_end(kv, need);
    want = folio_end(kv, want);
    if (reserved >= want) {
        return 0;
    }
    rc = bop__kv_allocate(kv->data_fd, reserved, want);
    if (rc == BOP_ENOROOM && reserved >= need) {
        return 0;
    }
    if (rc == BOP_ENOROOM) {
        want = need;
        rc = bop__kv_allocate(kv->data_fd, reserved, want);
    }
    if (rc == 0) {
        atomic_store_explicit(&kv->reserved_bytes, want, memory_order_relaxed);
    }
    return rc;
}

/* What the commit of a transaction with an empty account could write. */
static uint64_t commit_pages(struct bop_kv *kv, MDB_txn *txn, uint64_t used_bytes)
{
    uint64_t pages = 2 * (used_bytes / kv->page_bytes / IDS_A_PAGE) + kv->tables_max / ROOTS_A_PAGE;
    MDB_stat stat;

    /* The list of free pages is rewritten in whole at most. */
    if (txn && mdb_stat(txn, KV_FREE_TABLE, &stat) == 0) {
        pages += 2 * (stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages);
    }
    return pages + SPARE_PAGES;
}

static void grant(struct bop_kv *kv)
{
    struct kv_account *account = &kv->account;
    uint64_t reserved = atomic_load_explicit(&kv->reserved_bytes, memory_order_relaxed);
    uint64_t pages = (reserved - bop_min_u64(reserved, account->used_bytes)) / kv->page_bytes;

    if (reserved >= kv->map_bytes) {
        account->granted_pages = UINT64_MAX;
        return;
    }
    pages -= bop_min_u64(pages, account->allowance_pages);
    /* A page taken is a page to be listed when it is freed. */
    account->granted_pages = pages - pages / IDS_A_PAGE - (pages % IDS_A_PAGE != 0);
}

int bop__kv_reserve_first(struct bop_kv *kv)
{
    uint64_t used = bop__kv_used(kv);
    uint64_t least = used + commit_pages(kv, NULL, used) * kv->page_bytes;

    return reserve(kv, least + kv->step_bytes, least + kv->step_bytes);
}

/* The page that LMDB would take next, if we know it; else 0. */
static uint64_t next_page(MDB_txn *txn)
{
    size_t words[3];

    memcpy(words, (const void *)txn, sizeof(words));
    return words[2];
}

/* How deep a tree over so many pages can be: a branch has 3 children or more. */
static uint64_t depth_max(uint64_t pages)
{
    uint64_t depth = 2;

    for (; pages > 0; pages /= 3) {
        depth++;
    }
    return depth;
}

int bop__kv_account_open(struct bop_kv *kv, MDB_txn *txn)
{
    struct kv_account *account = &kv->account;
    bool *written = account->written;
    uint64_t used = bop__kv_used(kv);
    uint64_t reserved = atomic_load_explicit(&kv->reserved_bytes, memory_order_relaxed);
    uint64_t least;
    int rc = 0;

    memset(written, 0, (kv->tables_max + KV_FIRST_TABLE) * sizeof(*written));
    *account = (struct kv_account){
        .used_bytes = used,
        .counts_pages = next_page(txn) == used / kv->page_bytes,
        .dup_pages = 2 * depth_max(used / kv->page_bytes + kv->step_bytes / kv->page_bytes),
        .allowance_pages = commit_pages(kv, txn, used),
        .written = written,
    };
    least = used + (account->allowance_pages + LOW_PAGES) * kv->page_bytes;
    /* Half a step of slack, so that not every small transaction asks the system. */
    if (reserved < bop_min_u64(least + kv->step_bytes / 2, kv->map_bytes)) {
        rc = reserve(kv, least, least + kv->step_bytes);
    }
    grant(kv);
    return rc;
}

/* The second bound of the comment above: what the trees written to have now. */
static uint64_t tree_pages(struct bop_kv_txn *txn)
{
    struct kv_account *account = &txn->kv->account;
    uint64_t pages = MERGE_PAGES * account->deletes + account->cleared_pages;

    for (unsigned i = 0; i < txn->kv->tables_max + KV_FIRST_TABLE; i++) {
        MDB_stat stat;

        if (account->written[i] && mdb_stat(txn->txn, i, &stat) == 0) {
            /* The branches once more, for (2). */
            pages += 2 * stat.ms_branch_pages + stat.ms_leaf_pages + 1;
        }
    }
    return pages;
}

/* The account is overdrawn: count anew, then reserve more. */
static int settle(struct bop_kv_txn *txn, uint64_t change_pages)
{
    struct bop_kv *kv = txn->kv;
    struct kv_account *account = &kv->account;
    uint64_t used_pages = account->used_bytes / kv->page_bytes;
    uint64_t tight = UINT64_MAX, need;
    int rc;

    if (account->counts_pages) {
        /* What was taken, and this change. */
        tight = next_page(txn->txn) - used_pages + change_pages;
    } else if (!account->any_dup) {
        tight = account->overflow_pages + tree_pages(txn) + CHANGE_PAGES;
    }
    account->charged_pages = bop_min_u64(account->charged_pages, tight);
    if (account->charged_pages <= account->granted_pages &&
        account->granted_pages - account->charged_pages >= LOW_PAGES) {
        return 0;
    }
    need = account->charged_pages + account->charged_pages / (IDS_A_PAGE / 2) + 2 +
           account->allowance_pages;
    need = account->used_bytes + need * kv->page_bytes;
    /* A refusal matters only if it leaves the account overdrawn, and a failure likewise. */
    rc = reserve(kv, need, need + kv->step_bytes);
    grant(kv);
    if (account->charged_pages <= account->granted_pages) {
        return 0;
    }
    txn->failed = rc ? rc : BOP_ENOROOM;
    return txn->failed;
}

static void charge_table(struct bop_kv_txn *txn, unsigned table)
{
    struct kv_account *account = &txn->kv->account;
    MDB_stat stat;

    if (table < txn->kv->tables_max + KV_FIRST_TABLE && !account->written[table] &&
        mdb_stat(txn->txn, table, &stat) == 0) {
        account->written[table] = true;
        account->charged_pages += 2 * stat.ms_branch_pages + 1;
    }
}

int bop__kv_charge_many(struct bop_kv_txn *txn, unsigned table, uint64_t node_bytes, uint64_t count)
{
    struct kv_account *account = &txn->kv->account;
    uint64_t pages = CHANGE_PAGES;

    charge_table(txn, table);
    /* LMDB moves a node to pages of its own above about half a page; from a third on we count it
     * as moved. The page's head takes 16 bytes. */
    if (node_bytes > txn->kv->page_bytes / 3) {
        uint64_t overflow = (node_bytes + 16 + txn->kv->page_bytes - 1) / txn->kv->page_bytes;

        account->overflow_pages += overflow * count;
        pages += overflow;
    }
    if ((txn->kv->kinds[table].flags & MDB_DUPSORT) != 0) {
        account->any_dup = true;
        pages += account->dup_pages;
    }
    pages *= count;
    account->put_bytes += node_bytes * count;
    account->charged_pages += pages;
    return BOP_LIKELY(account->charged_pages <= account->granted_pages) ? 0 : settle(txn, pages);
}

int bop__kv_charge(struct bop_kv_txn *txn, unsigned table, uint64_t node_bytes, bool is_delete)
{
    txn->kv->account.deletes += is_delete;
    return bop__kv_charge_many(txn, table, node_bytes, 1);
}

int bop__kv_charge_clear(struct bop_kv_txn *txn, unsigned table)
{
    struct kv_account *account = &txn->kv->account;
    MDB_stat stat;

    charge_table(txn, table);
    if (mdb_stat(txn->txn, table, &stat) == 0) {
        account->cleared_pages += stat.ms_branch_pages + stat.ms_leaf_pages;
    }
    account->charged_pages += CHANGE_PAGES;
    return account->charged_pages <= account->granted_pages ? 0 : settle(txn, CHANGE_PAGES);
}
