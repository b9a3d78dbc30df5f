/*
 * The content of a file on the simulated disk.
 *
 * Pages hold what a reader sees. Where the disk differs, an undo record beside
 * the page holds the disk's bytes of those sectors; so a write costs its size, a
 * sync costs what is dirty, and what is synced takes no room twice.
 *
 *      differs   bit a sector: the disk holds the bytes of the record
 *      dirty     bit a sector: the next sync will write it
 *
 * Invariants, checked by file_check() when a file is cut, synced or loses power:
 *
 *   (1) dirty is a part of differs, and differs is not 0.
 *   (2) A page with a record has bytes.
 *   (3) lowest_size <= size.
 *   (4) What lies above size is zero in the pages, so that growing needs no write.
 *
 * A sector that differs and is not dirty is what a failed sync leaves behind:
 * the cache shows the new bytes, no sync will write them, and a power loss brings
 * the old ones back. Writing to it makes it dirty again.
 *
 * A kernel writes back at any time, so of a sector written twice the disk may
 * hold the first version: now and then a write first puts the dirty sectors of
 * its page on disk.
 */
#include <string.h>

#include <bop/error.h>

#include "fs_sim.h"

/* One in this many writes to a dirty page finds it written back. */
#define WRITE_BACK_ODDS 8

struct sim_undo {
    struct bop_list link; /* On the file's unsynced. */
    size_t page;
    uint8_t differs;
    uint8_t dirty;
    uint8_t bytes[SIM_PAGE_BYTES];
};

struct sim_page {
    uint8_t *bytes; /* NULL: zeros. */
    struct sim_undo *undo;
};

_Static_assert(SIM_PAGE_SECTORS == 8, "a byte has a bit for each sector of a page");

static struct sim_undo *undo_of(struct bop_list *link)
{
    return BOP_CONTAINER_OF(link, struct sim_undo, link);
}

static void file_check(const struct sim_file *file)
{
    BOP_ASSERT(file->lowest_size <= file->size);
    BOP_ASSERT(file->size <= SIM_FILE_BYTES_MAX);
    BOP_LIST_FOR_EACH(link, &file->unsynced) {
        const struct sim_undo *undo = undo_of(link);

        BOP_ASSERT(undo->differs != 0 && (undo->dirty & ~undo->differs) == 0);
        BOP_ASSERT(undo->page < file->page_count && file->pages[undo->page].undo == undo);
        BOP_ASSERT(file->pages[undo->page].bytes != NULL);
    }
}

void bop__sim_file_init(struct sim_file *file, struct bop_allocator *allocator)
{
    *file = (struct sim_file){.allocator = allocator};
    bop_list_init(&file->unsynced);
}

void bop__sim_file_deinit(struct sim_file *file)
{
    for (size_t i = 0; i < file->page_count; i++) {
        bop_free(file->allocator, file->pages[i].bytes, SIM_PAGE_BYTES);
        bop_free(file->allocator, file->pages[i].undo, sizeof(struct sim_undo));
    }
    bop_free(file->allocator, file->pages, file->page_count * sizeof(file->pages[0]));
}

/* ---- Pages ---- */

static void drop_undo(struct sim_file *file, struct sim_undo *undo)
{
    file->pages[undo->page].undo = NULL;
    bop_list_remove(&undo->link);
    bop_free(file->allocator, undo, sizeof(*undo));
}

/* Make room for pages [0, count) in the table. */
static int reserve_pages(struct sim_file *file, size_t count)
{
    size_t more = file->page_count + file->page_count / 2;
    struct sim_page *pages;

    if (count <= file->page_count) {
        return 0;
    }
    count = bop_max_u64(count, more);
    pages = bop_realloc(file->allocator, file->pages, file->page_count * sizeof(*pages),
                        count * sizeof(*pages));
    if (!pages) {
        return BOP_ENOMEM;
    }
    memset(pages + file->page_count, 0, (count - file->page_count) * sizeof(*pages));
    file->pages = pages;
    file->page_count = count;
    return 0;
}

static int reserve_bytes(struct sim_file *file, size_t index)
{
    int rc = reserve_pages(file, index + 1);

    if (rc == 0 && !file->pages[index].bytes) {
        file->pages[index].bytes = bop_alloc_zeroed(file->allocator, SIM_PAGE_BYTES);
        rc = file->pages[index].bytes ? 0 : BOP_ENOMEM;
    }
    return rc;
}

/* Make sure that a page can note what differs from the disk. The record is put to use by
 * note_change(), and must be at once: an empty one is against the rules. */
static int reserve_undo(struct sim_file *file, size_t index)
{
    int rc = reserve_bytes(file, index);
    struct sim_undo *undo;

    if (rc < 0 || file->pages[index].undo) {
        return rc;
    }
    undo = bop_alloc(file->allocator, sizeof(*undo));
    if (!undo) {
        return BOP_ENOMEM;
    }
    undo->page = index;
    undo->differs = 0;
    undo->dirty = 0;
    bop_list_push_back(&file->unsynced, &undo->link);
    file->pages[index].undo = undo;
    return 0;
}

/* Bytes [begin, end) of a page are about to change: keep the disk's version of their sectors. */
static void note_change(struct sim_page *page, size_t begin, size_t end)
{
    struct sim_undo *undo = page->undo;

    for (size_t i = begin / SIM_SECTOR_BYTES; i * SIM_SECTOR_BYTES < end; i++) {
        uint8_t bit = (uint8_t)(1u << i);

        if (!(undo->differs & bit)) {
            memcpy(undo->bytes + i * SIM_SECTOR_BYTES, page->bytes + i * SIM_SECTOR_BYTES,
                   SIM_SECTOR_BYTES);
        }
        undo->differs |= bit;
        undo->dirty |= bit;
    }
}

/* Put the dirty sectors of a page on disk. */
static void write_back(struct sim_undo *undo, const struct sim_page *page)
{
    for (size_t i = 0; i < SIM_PAGE_SECTORS; i++) {
        if (undo->dirty & 1u << i) {
            memcpy(undo->bytes + i * SIM_SECTOR_BYTES, page->bytes + i * SIM_SECTOR_BYTES,
                   SIM_SECTOR_BYTES);
        }
    }
}

/* ---- Reading and writing ---- */

size_t bop__sim_file_read(const struct sim_file *file, void *out_bytes, size_t size,
                          uint64_t offset)
{
    uint8_t *out = out_bytes;
    size_t done = 0;

    if (offset >= file->size) {
        return 0;
    }
    size = (size_t)bop_min_u64(size, file->size - offset);
    while (done < size) {
        size_t index = (size_t)((offset + done) / SIM_PAGE_BYTES);
        size_t begin = (size_t)((offset + done) % SIM_PAGE_BYTES);
        size_t count = (size_t)bop_min_u64(size - done, SIM_PAGE_BYTES - begin);
        const uint8_t *bytes = index < file->page_count ? file->pages[index].bytes : NULL;

        if (bytes) {
            memcpy(out + done, bytes + begin, count);
        } else {
            memset(out + done, 0, count);
        }
        done += count;
    }
    return size;
}

static int write_page(struct sim_file *file, struct bop_random *random, const uint8_t *bytes,
                      size_t size, uint64_t offset)
{
    size_t index = (size_t)(offset / SIM_PAGE_BYTES);
    size_t begin = (size_t)(offset % SIM_PAGE_BYTES);
    int rc = reserve_undo(file, index);
    struct sim_page *page;

    if (rc < 0) {
        return rc;
    }
    page = &file->pages[index];
    if (page->undo->dirty != 0 && bop_random_chance(random, 1, WRITE_BACK_ODDS)) {
        write_back(page->undo, page);
    }
    note_change(page, begin, begin + size);
    memcpy(page->bytes + begin, bytes, size);
    return 0;
}

ssize_t bop__sim_file_write(struct sim_file *file, struct bop_random *random, const void *bytes,
                            size_t size, uint64_t offset)
{
    size_t done = 0;

    if (offset > SIM_FILE_BYTES_MAX || size > SIM_FILE_BYTES_MAX - offset) {
        return -EFBIG;
    }
    while (done < size) {
        size_t begin = (size_t)((offset + done) % SIM_PAGE_BYTES);
        size_t count = (size_t)bop_min_u64(size - done, SIM_PAGE_BYTES - begin);
        int rc = write_page(file, random, (const uint8_t *)bytes + done, count, offset + done);

        if (rc < 0 && done == 0) {
            return rc;
        }
        if (rc < 0) {
            break;
        }
        done += count;
        if (offset + done > file->size) {
            file->size = offset + done;
            file->size_dirty = true;
        }
    }
    return (ssize_t)done;
}

/* Make what lies above size zero, as invariant (4) wants, without leaving a record. */
static void clear_above(struct sim_file *file, uint64_t size)
{
    size_t begin = (size_t)(size % SIM_PAGE_BYTES);

    for (size_t i = (size_t)(size / SIM_PAGE_BYTES); i < file->page_count; i++, begin = 0) {
        struct sim_page *page = &file->pages[i];

        if (!page->bytes) {
            continue;
        }
        if (begin == 0 && !page->undo) {
            bop_free(file->allocator, page->bytes, SIM_PAGE_BYTES);
            page->bytes = NULL;
        } else {
            memset(page->bytes + begin, 0, SIM_PAGE_BYTES - begin);
        }
    }
}

/* Keep the disk's version of all that lies in [size, file->size). */
static int note_cut(struct sim_file *file, uint64_t size)
{
    size_t first = (size_t)(size / SIM_PAGE_BYTES);
    int rc = 0;

    for (size_t i = first; rc == 0 && i < file->page_count; i++) {
        if (file->pages[i].bytes) {
            rc = reserve_undo(file, i);
        }
    }
    if (rc == 0) {
        size_t begin = (size_t)(size % SIM_PAGE_BYTES);

        for (size_t i = first; i < file->page_count; i++, begin = 0) {
            if (file->pages[i].bytes) {
                note_change(&file->pages[i], begin, SIM_PAGE_BYTES);
            }
        }
        return 0;
    }
    BOP_LIST_FOR_EACH_SAFE(link, &file->unsynced) {
        if (undo_of(link)->differs == 0) {
            drop_undo(file, undo_of(link));
        }
    }
    return rc;
}

int bop__sim_file_resize(struct sim_file *file, uint64_t size)
{
    if (size > SIM_FILE_BYTES_MAX) {
        return -EFBIG;
    }
    if (size < file->size) {
        int rc = note_cut(file, size);

        if (rc < 0) {
            return rc;
        }
        clear_above(file, size);
    }
    file->size_dirty |= size != file->size;
    file->size = size;
    file->lowest_size = bop_min_u64(file->lowest_size, size);
    file_check(file);
    return 0;
}

/* ---- Durability ---- */

void bop__sim_file_sync(struct sim_file *file)
{
    BOP_LIST_FOR_EACH_SAFE(link, &file->unsynced) {
        struct sim_undo *undo = undo_of(link);

        undo->differs &= (uint8_t)~undo->dirty;
        undo->dirty = 0;
        if (undo->differs == 0) {
            drop_undo(file, undo);
        }
    }
    if (file->size_dirty) {
        file->durable_size = file->size;
        file->size_dirty = false;
    }
    file->lowest_size = file->size;
    clear_above(file, file->size); /* Gives back the pages that a cut left. */
    file_check(file);
}

void bop__sim_file_fail_sync(struct sim_file *file)
{
    BOP_LIST_FOR_EACH(link, &file->unsynced) {
        undo_of(link)->dirty = 0;
    }
    file->size_dirty = false;
    file->lowest_size = file->size;
    file_check(file);
}

/* The size that the disk is found with. */
static uint64_t size_after_loss(const struct sim_file *file, struct bop_random *random,
                                enum sim_fate fate, unsigned tear)
{
    if (!file->size_dirty || fate == SIM_FATE_DROP) {
        return file->durable_size;
    }
    if (fate == SIM_FATE_KEEP) {
        return file->size;
    }
    switch (bop_random_below(random, 4)) {
    case 0:
        return file->durable_size;
    case 1:
        /* Cut and written again, and only the cut was kept. */
        return bop_min_u64(file->lowest_size, file->durable_size);
    case 2:
        if (file->size > file->durable_size) {
            /* A file grows on disk as its pages are written. */
            uint64_t from = file->durable_size / tear + 1;
            uint64_t to = file->size / tear + 1;
            uint64_t sector = from + bop_random_below(random, to - from + 1);

            return bop_min_u64(sector * tear, file->size);
        }
        return file->size;
    default:
        return file->size;
    }
}

/* Bring the disk's version of a page back where it was not written. */
static void lose_page(struct sim_file *file, struct sim_undo *undo, struct bop_random *random,
                      enum sim_fate fate, unsigned keep_parts, unsigned tear)
{
    uint64_t at = (uint64_t)undo->page * SIM_PAGE_BYTES;
    uint8_t *bytes = file->pages[undo->page].bytes;
    bool drawn = false, chance = false;

    for (size_t i = 0; i < SIM_PAGE_SECTORS; i++) {
        unsigned bit = 1u << i;
        bool keep = fate == SIM_FATE_KEEP;

        if (!(undo->differs & bit)) {
            continue;
        }
        if (fate == SIM_FATE_CHANCE) {
            /* For each piece that the disk writes whole. */
            if (!drawn || tear == SIM_SECTOR_BYTES) {
                chance = bop_random_chance(random, keep_parts, 16);
                drawn = true;
            }
            keep = chance;
        }
        /* Above the current size there is nothing to keep: the bytes there are those of
         * a cut, which the disk either has (then its size says so) or has not. */
        if (!(undo->dirty & bit) || at + i * SIM_SECTOR_BYTES >= file->size) {
            keep = false;
        }
        if (!keep) {
            memcpy(bytes + i * SIM_SECTOR_BYTES, undo->bytes + i * SIM_SECTOR_BYTES,
                   SIM_SECTOR_BYTES);
        }
    }
}

void bop__sim_file_lose_power(struct sim_file *file, struct bop_random *random, enum sim_fate fate,
                              unsigned tear)
{
    /* From file to file the odds differ, so that many runs see few sectors lost, and many few
     * kept. */
    unsigned keep_parts = 1 + (unsigned)bop_random_below(random, 15);
    uint64_t size;

    if (fate == SIM_FATE_CHANCE && bop_random_chance(random, 1, 2)) {
        fate = bop_random_chance(random, 1, 2) ? SIM_FATE_KEEP : SIM_FATE_DROP;
    }
    size = size_after_loss(file, random, fate, tear);
    BOP_LIST_FOR_EACH_SAFE(link, &file->unsynced) {
        lose_page(file, undo_of(link), random, fate, keep_parts, tear);
        drop_undo(file, undo_of(link));
    }
    clear_above(file, size);
    file->size = size;
    file->durable_size = size;
    file->lowest_size = size;
    file->size_dirty = false;
    file_check(file);
}

/* ---- For tests ---- */

int bop__sim_file_flip_bit(struct sim_file *file, uint64_t bit)
{
    uint64_t offset = bit / 8;
    size_t index = (size_t)(offset / SIM_PAGE_BYTES);
    size_t at = (size_t)(offset % SIM_PAGE_BYTES);
    uint8_t mask = (uint8_t)(1u << bit % 8);
    struct sim_page *page;
    int rc;

    if (offset >= file->size) {
        return BOP_EINVAL;
    }
    rc = reserve_bytes(file, index);
    if (rc < 0) {
        return rc;
    }
    page = &file->pages[index];
    page->bytes[at] ^= mask;
    if (page->undo && (page->undo->differs & 1u << at / SIM_SECTOR_BYTES)) {
        page->undo->bytes[at] ^= mask;
    }
    return 0;
}

uint64_t bop__sim_digest(uint64_t digest, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    uint64_t word;

    /* Any mixing will do: it tells runs apart, nobody attacks it. */
    for (; size > 0; size -= bop_min_u64(size, 8), at += 8) {
        word = 0;
        memcpy(&word, at, (size_t)bop_min_u64(size, 8));
        digest = (digest ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        digest ^= digest >> 29;
    }
    return digest;
}

uint64_t bop__sim_file_digest(const struct sim_file *file, uint64_t digest)
{
    uint8_t page[SIM_PAGE_BYTES];

    digest = bop__sim_digest(digest, &file->size, sizeof(file->size));
    for (uint64_t at = 0; at < file->size; at += SIM_PAGE_BYTES) {
        size_t count = bop__sim_file_read(file, page, sizeof(page), at);

        digest = bop__sim_digest(digest, page, count);
    }
    return digest;
}
