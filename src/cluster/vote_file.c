/*
 * Term and vote on disk.
 *
 *      slot n at n * 4096:
 *      magic "BOPVOTE1" | counter u64 | term u64 | vote u64 | crc32c u32 of the 32 bytes before
 *
 * The slot with the higher counter counts. Slots lie in different pages, so that
 * neither a torn sector nor a torn page reaches both.
 */
#include "vote_file.h"

#include <bop/crc32c.h>
#include <bop/slice.h>

#define SLOT_SIZE   36
#define SLOT_STRIDE 4096
#define SLOTS       2
#define COUNTER_MAX (UINT64_MAX / 2) /* No honest file gets there, and it must not begin anew. */

static const char magic[8] = {'B', 'O', 'P', 'V', 'O', 'T', 'E', '1'};

static bool slot_decode(const uint8_t *slot, struct vote_file *out)
{
    if (memcmp(slot, magic, sizeof(magic)) != 0 ||
        bop_load_u32(slot + 32) != bop_crc32c(0, slot, 32) ||
        bop_load_u64(slot + 8) > COUNTER_MAX) {
        return false;
    }
    out->counter = bop_load_u64(slot + 8);
    out->term = bop_load_u64(slot + 16);
    out->vote = bop_load_u64(slot + 24);
    return true;
}

static int load(struct vote_file *file)
{
    uint8_t slots[SLOT_STRIDE + SLOT_SIZE];
    bool found = false;
    int rc = bop_fs_read_exact(file->fs, file->fd, slots, sizeof(slots), 0);

    if (rc < 0) {
        return rc == BOP_ETRUNCATED ? BOP_ECORRUPT : rc; /* It was made with both slots. */
    }
    for (unsigned n = 0; n < SLOTS; n++) {
        struct vote_file seen = *file;

        if (slot_decode(slots + (size_t)n * SLOT_STRIDE, &seen) &&
            (!found || seen.counter > file->counter)) {
            *file = seen;
            found = true;
        }
    }
    return found ? 0 : BOP_ECORRUPT;
}

int bop__vote_file_save(struct vote_file *file, uint64_t term, uint64_t vote)
{
    uint8_t slot[SLOT_SIZE];
    uint64_t counter = file->counter + 1;
    int rc;

    memcpy(slot, magic, sizeof(magic));
    bop_store_u64(slot + 8, counter);
    bop_store_u64(slot + 16, term);
    bop_store_u64(slot + 24, vote);
    bop_store_u32(slot + 32, bop_crc32c(0, slot, 32));
    rc = bop_fs_write_all(file->fs, file->fd, slot, sizeof(slot), counter % SLOTS * SLOT_STRIDE);
    if (rc == 0) {
        rc = file->fs->sync(file->fs, file->fd);
    }
    if (rc < 0) {
        return rc;
    }
    file->counter = counter;
    file->term = term;
    file->vote = vote;
    return 0;
}

/* Write both slots: load() reads them in one piece. */
static int make(struct vote_file *file)
{
    int rc = bop__vote_file_save(file, 0, 0);

    return rc < 0 ? rc : bop__vote_file_save(file, 0, 0);
}

int bop__vote_file_open(struct vote_file *file, struct bop_fs *fs, const char *path, bool create,
                        struct bop_error *err)
{
    int rc;

    *file = (struct vote_file){.fs = fs, .fd = -1};
    rc = fs->open(fs, path, O_RDWR | (create ? O_CREAT | O_TRUNC : 0));
    if (rc < 0) {
        return bop_error_set(err, rc, "open %s", path);
    }
    file->fd = rc;
    rc = create ? make(file) : load(file);
    if (rc == 0 && !create) {
        /* If the last save's sync failed, what was read is in memory only: it must be on
         * disk before it is acted upon. */
        rc = bop__vote_file_save(file, file->term, file->vote);
    }
    if (rc < 0) {
        bop_error_set(err, rc, "%s %s", create ? "write" : "read", path);
        bop__vote_file_close(file);
    }
    return rc;
}

void bop__vote_file_close(struct vote_file *file)
{
    if (file->fs && file->fd >= 0) {
        /* Nothing is pending: every save synced. */
        BOP_IGNORE(file->fs->close(file->fs, file->fd));
        file->fd = -1;
    }
}
