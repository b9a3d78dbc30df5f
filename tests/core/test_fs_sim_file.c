/*
 * What a power loss on the simulated disk does to the content of files. The
 * names are durable throughout.
 */
#include <bop/sim.h>

#include "sim_fixture.h"

#define SECTOR 512

FIXTURE(fixture_setup, fixture_teardown)

TEST(sim_file, reads_back_what_was_written)
{
    struct disk *disk = &f->disk;
    char buffer[16];
    int fd;

    disk_begin(disk, 1);
    fd = open_file(disk, "f");
    REQUIRE_EQ(disk->fs->pwrite(disk->fs, fd, "hello", 5, 4094), 5); /* Across two pages. */
    CHECK_EQ(disk->fs->pread(disk->fs, fd, buffer, 16, 4092), 7);    /* 4099 - 4092. */
    CHECK_MEM_EQ(buffer, "\0\0hello", 7);
    CHECK_EQ(disk->fs->pread(disk->fs, fd, buffer, 16, 4099), 0);
    CHECK_EQ(disk->fs->pread(disk->fs, fd, buffer, 16, 1000000), 0);
}

TEST(sim_file, reads_zeros_in_holes_and_where_it_grew)
{
    struct disk *disk = &f->disk;
    int fd;

    disk_begin(disk, 1);
    fd = open_file(disk, "f");
    fill(disk, fd, 'a', 100, 20000);
    CHECK_EQ(letter_at(disk, "f", 0, 20000), 0);
    REQUIRE_EQ(disk->fs->truncate(disk->fs, fd, 20050), 0);
    REQUIRE_EQ(disk->fs->truncate(disk->fs, fd, 30000), 0);
    CHECK_EQ(letter_at(disk, "f", 20000, 20050), 'a');
    CHECK_EQ(letter_at(disk, "f", 20050, 30000), 0);
    REQUIRE_EQ(disk->fs->allocate(disk->fs, fd, 40000), 0);
    CHECK_EQ(letter_at(disk, "f", 30000, 40000), 0);
    REQUIRE_EQ(disk->fs->allocate(disk->fs, fd, 10), 0); /* Never cuts. */
    CHECK_EQ(size_of(disk, "f"), 40000);
}

TEST(sim_file, keeps_what_was_synced)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int fd = make_durable(disk, "f", 'a', 10000);

        fill(disk, fd, 'b', 3000, 5000);
        REQUIRE_EQ(disk->fs->sync(disk->fs, fd), 0);
        bop_fs_sim_lose_power(disk->sim);
        CHECK_EQ(size_of(disk, "f"), 10000);
        CHECK_EQ(letter_at(disk, "f", 0, 5000), 'a');
        CHECK_EQ(letter_at(disk, "f", 5000, 8000), 'b');
        CHECK_EQ(letter_at(disk, "f", 8000, 10000), 'a');
    }
}

/* The sectors of an overwritten file are old or new, each by itself. */
TEST(sim_file, loses_sectors_by_chance)
{
    struct disk *disk = &f->disk;
    unsigned all_old = 0, all_new = 0, mixed = 0;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        unsigned kept = 0;

        fill(disk, make_durable(disk, "f", 'a', 20 * SECTOR), 'b', 20 * SECTOR, 0);
        bop_fs_sim_lose_power(disk->sim);
        CHECK_EQ(size_of(disk, "f"), 20 * SECTOR);
        for (uint64_t i = 0; i < 20; i++) {
            char letter = letter_at(disk, "f", i * SECTOR, (i + 1) * SECTOR);

            CHECK(letter == 'a' || letter == 'b');
            kept += letter == 'b';
        }
        all_old += kept == 0;
        all_new += kept == 20;
        mixed += kept > 0 && kept < 20;
    }
    CHECK(all_old > 0);
    CHECK(all_new > 0);
    CHECK(mixed > 0);
}

TEST(sim_file, tears_a_write_at_sectors_only)
{
    struct disk *disk = &f->disk;
    bool torn = false;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        char part[3];

        fill(disk, make_durable(disk, "f", 'a', 4 * SECTOR), 'b', 1000, 300);
        bop_fs_sim_lose_power(disk->sim);
        CHECK_EQ(letter_at(disk, "f", 0, 300), 'a');
        part[0] = letter_at(disk, "f", 300, 512);
        part[1] = letter_at(disk, "f", 512, 1024);
        part[2] = letter_at(disk, "f", 1024, 1300);
        CHECK_EQ(letter_at(disk, "f", 1300, 4 * SECTOR), 'a');
        for (int i = 0; i < 3; i++) {
            CHECK(part[i] == 'a' || part[i] == 'b');
        }
        torn |= part[0] == 'b' && part[1] == 'a' && part[2] == 'b';
    }
    CHECK(torn);
}

/* Not only the last version of a sector may be found: a kernel writes back when it likes. */
TEST(sim_file, may_keep_an_earlier_version)
{
    struct disk *disk = &f->disk;
    unsigned seen[3] = {0};

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int fd = make_durable(disk, "f", 'a', SECTOR);
        char letter;

        fill(disk, fd, 'b', SECTOR, 0);
        fill(disk, fd, 'c', SECTOR, 0);
        bop_fs_sim_lose_power(disk->sim);
        letter = letter_at(disk, "f", 0, SECTOR);
        REQUIRE(letter >= 'a' && letter <= 'c');
        seen[letter - 'a']++;
    }
    CHECK(seen[0] > 0 && seen[1] > 0 && seen[2] > 0);
}

TEST(sim_file, keeps_or_loses_growth)
{
    struct disk *disk = &f->disk;
    bool none = false, all = false, part = false, zeros = false;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int64_t size;

        fill(disk, make_durable(disk, "f", 'a', 700), 'b', 5000, 700);
        bop_fs_sim_lose_power(disk->sim);
        size = size_of(disk, "f");
        CHECK(size >= 700 && size <= 5700);
        CHECK_EQ(letter_at(disk, "f", 0, 700), 'a');
        for (int64_t at = 700; at < size;) {
            int64_t end = (at / SECTOR + 1) * SECTOR;
            char letter;

            end = end < size ? end : size;
            letter = letter_at(disk, "f", (uint64_t)at, (uint64_t)end);
            CHECK(letter == 'b' || letter == 0);
            zeros |= letter == 0;
            at = end;
        }
        none |= size == 700;
        all |= size == 5700;
        part |= size > 700 && size < 5700;
    }
    CHECK(none && all && part && zeros);
}

TEST(sim_file, keeps_or_loses_a_cut)
{
    struct disk *disk = &f->disk;
    bool cut = false, whole = false;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int fd = make_durable(disk, "f", 'a', 10000);
        int64_t size;

        REQUIRE_EQ(disk->fs->truncate(disk->fs, fd, 2 * SECTOR), 0);
        bop_fs_sim_lose_power(disk->sim);
        size = size_of(disk, "f");
        CHECK(size == 10000 || size == 2 * SECTOR);
        CHECK_EQ(letter_at(disk, "f", 0, (uint64_t)size), 'a');
        cut |= size == 2 * SECTOR;
        whole |= size == 10000;
    }
    CHECK(cut && whole);
}

TEST(sim_file, keeps_a_synced_cut)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int fd = make_durable(disk, "f", 'a', 10000);

        REQUIRE_EQ(disk->fs->truncate(disk->fs, fd, 700), 0);
        REQUIRE_EQ(disk->fs->allocate(disk->fs, fd, 5000), 0);
        REQUIRE_EQ(disk->fs->sync(disk->fs, fd), 0);
        bop_fs_sim_lose_power(disk->sim);
        CHECK_EQ(size_of(disk, "f"), 5000);
        CHECK_EQ(letter_at(disk, "f", 0, 700), 'a');
        CHECK_EQ(letter_at(disk, "f", 700, 5000), 0);
    }
}

/* The trap of replacing a file in place: opened with O_TRUNC and written, it may be found empty. */
TEST(sim_file, may_be_found_empty_after_a_rewrite)
{
    struct disk *disk = &f->disk;
    bool empty = false, old = false, new = false;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int fd;

        close_file(disk, make_durable(disk, "f", 'a', 4 * SECTOR));
        fd = disk->fs->open(disk->fs, "f", O_RDWR | O_TRUNC);
        fill(disk, fd, 'b', 4 * SECTOR, 0);
        bop_fs_sim_lose_power(disk->sim);
        if (size_of(disk, "f") == 0) {
            empty = true;
            continue;
        }
        CHECK_EQ(size_of(disk, "f"), 4 * SECTOR);
        old |= letter_at(disk, "f", 0, 4 * SECTOR) == 'a';
        new |= letter_at(disk, "f", 0, 4 * SECTOR) == 'b';
    }
    CHECK(empty && old && new);
}

TEST(sim_file, keeps_everything_when_the_process_dies)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int fd = make_durable(disk, "f", 'a', 10000);
        uint64_t digest;

        fill(disk, fd, 'b', 9000, 5000);
        digest = bop_fs_sim_digest(disk->sim);
        bop_fs_sim_kill_process(disk->sim);
        CHECK_EQ(bop_fs_sim_digest(disk->sim), digest);
        CHECK_EQ(disk->fs->sync(disk->fs, fd), -EBADF);
        CHECK_EQ(letter_at(disk, "f", 5000, 14000), 'b');
    }
}

TEST(sim_file, is_settled_by_a_power_loss)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        uint64_t digest;

        fill(disk, make_durable(disk, "f", 'a', 10000), 'b', 9000, 5000);
        bop_fs_sim_lose_power(disk->sim);
        digest = bop_fs_sim_digest(disk->sim);
        bop_fs_sim_lose_power(disk->sim);
        CHECK_EQ(bop_fs_sim_digest(disk->sim), digest);
    }
}

/* ---- Syncs that fail ---- */

/* As on Linux: the pages are clean after the failure, so the next sync succeeds and means
 * nothing. */
TEST(sim_file, loses_what_a_failed_sync_should_have_written)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int fd = make_durable(disk, "f", 'a', 10000);

        fill(disk, fd, 'b', 20000, 0);
        bop_fs_sim_fail_syncs(disk->sim, 1);
        CHECK_EQ(disk->fs->sync(disk->fs, fd), -EIO);
        CHECK_EQ(disk->fs->sync(disk->fs, fd), 0);
        CHECK_EQ(letter_at(disk, "f", 0, 20000), 'b');
        bop_fs_sim_lose_power(disk->sim);
        CHECK_EQ(size_of(disk, "f"), 10000);
        CHECK_EQ(letter_at(disk, "f", 0, 10000), 'a');
    }
}

TEST(sim_file, can_be_written_again_after_a_failed_sync)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int fd = make_durable(disk, "f", 'a', 3 * SECTOR);

        fill(disk, fd, 'b', 3 * SECTOR, 0);
        bop_fs_sim_fail_syncs(disk->sim, 1);
        CHECK_EQ(disk->fs->sync(disk->fs, fd), -EIO);
        fill(disk, fd, 'c', SECTOR, SECTOR);
        CHECK_EQ(disk->fs->sync(disk->fs, fd), 0);
        bop_fs_sim_lose_power(disk->sim);
        CHECK_EQ(letter_at(disk, "f", 0, SECTOR), 'a');
        CHECK_EQ(letter_at(disk, "f", SECTOR, 2 * SECTOR), 'c');
        CHECK_EQ(letter_at(disk, "f", 2 * SECTOR, 3 * SECTOR), 'a');
    }
}

/* ---- Rot ---- */

TEST(sim_file, flips_a_bit_in_every_version)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        char letter;

        fill(disk, make_durable(disk, "f", 'a', 2 * SECTOR), 'b', SECTOR, 0);
        REQUIRE_EQ(bop_fs_sim_flip_bit(disk->sim, "f", 8 * 100 + 2), 0);
        REQUIRE_EQ(bop_fs_sim_flip_bit(disk->sim, "f", 8 * 600 + 2), 0);
        CHECK_EQ(letter_at(disk, "f", 100, 101), 'b' ^ 4);
        bop_fs_sim_lose_power(disk->sim);
        letter = letter_at(disk, "f", 101, 512);
        CHECK_EQ(letter_at(disk, "f", 100, 101), letter ^ 4);
        CHECK_EQ(letter_at(disk, "f", 600, 601), 'a' ^ 4);
    }
}

TEST(sim_file, flips_bits_of_holes_but_none_past_the_end)
{
    struct disk *disk = &f->disk;

    disk_begin(disk, 1);
    REQUIRE_EQ(disk->fs->truncate(disk->fs, open_file(disk, "f"), 10000), 0);
    CHECK_EQ(bop_fs_sim_flip_bit(disk->sim, "f", 8 * 9999), 0);
    CHECK_EQ(letter_at(disk, "f", 9999, 10000), 1);
    CHECK_EQ(bop_fs_sim_flip_bit(disk->sim, "f", 8 * 10000), BOP_EINVAL);
    CHECK_EQ(bop_fs_sim_flip_bit(disk->sim, "g", 0), -ENOENT);
}

/* ---- Against a model ---- */

#define MODEL_SECTORS 40

/* For each sector the fill bytes that a power loss may leave there. */
struct model {
    bool allowed[MODEL_SECTORS][256];
    uint8_t now[MODEL_SECTORS];
    uint64_t size, durable_size, size_min, size_max; /* In sectors. */
};

static void model_put(struct model *model, uint64_t sector, uint8_t value)
{
    model->now[sector] = value;
    model->allowed[sector][value] = true;
}

static void model_size(struct model *model, uint64_t size)
{
    for (uint64_t i = size; i < model->size; i++) {
        model_put(model, i, 0);
    }
    model->size = size;
    model->size_min = bop_min_u64(model->size_min, size);
    model->size_max = bop_max_u64(model->size_max, size);
}

/* What is seen now is what is on disk. */
static void model_settle(struct model *model)
{
    for (int i = 0; i < MODEL_SECTORS; i++) {
        memset(model->allowed[i], 0, sizeof(model->allowed[i]));
        model->allowed[i][model->now[i]] = true;
    }
    model->durable_size = model->size_min = model->size_max = model->size;
}

static void model_step(struct model *model, struct disk *disk, int fd, struct bop_random *random)
{
    uint64_t begin = bop_random_below(random, MODEL_SECTORS);
    uint64_t end = begin + 1 + bop_random_below(random, MODEL_SECTORS - begin);
    uint8_t value = (uint8_t)(1 + bop_random_below(random, 255));

    switch (bop_random_below(random, 8)) {
    case 0:
        REQUIRE_EQ(disk->fs->sync(disk->fs, fd), 0);
        model_settle(model);
        break;
    case 1:
        REQUIRE_EQ(disk->fs->truncate(disk->fs, fd, begin * SECTOR), 0);
        model_size(model, begin);
        break;
    case 2:
        REQUIRE_EQ(disk->fs->allocate(disk->fs, fd, end * SECTOR), 0);
        model_size(model, bop_max_u64(model->size, end));
        break;
    default:
        fill(disk, fd, (char)value, (end - begin) * SECTOR, begin * SECTOR);
        model_size(model, bop_max_u64(model->size, end));
        for (uint64_t i = begin; i < end; i++) {
            model_put(model, i, value);
        }
    }
}

static void model_check_now(const struct model *model, struct disk *disk)
{
    CHECK_EQ(size_of(disk, "f"), model->size * SECTOR);
    for (uint64_t i = 0; i < model->size; i++) {
        CHECK_EQ((uint8_t)letter_at(disk, "f", i * SECTOR, (i + 1) * SECTOR), model->now[i]);
    }
}

/* Take over what a power loss left, which must be allowed. */
static void model_check_loss(struct model *model, struct disk *disk)
{
    uint64_t size = (uint64_t)size_of(disk, "f") / SECTOR;

    CHECK(size >= model->size_min && size <= model->size_max);
    for (uint64_t i = 0; i < MODEL_SECTORS; i++) {
        uint8_t value = 0;

        if (i < size) {
            value = (uint8_t)letter_at(disk, "f", i * SECTOR, (i + 1) * SECTOR);
            CHECK(model->allowed[i][value]);
        }
        model->now[i] = value;
    }
    model->size = size;
    model_settle(model);
}

TEST(sim_file, behaves_like_a_simple_model)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int fd = make_durable(disk, "f", 'a', 0);
        struct bop_random random;
        struct model model = {0};

        bop_random_seed(&random, seed);
        model_settle(&model);
        for (int round = 0; round < 10; round++) {
            uint64_t steps = bop_random_below(&random, 12);

            for (uint64_t i = 0; i < steps; i++) {
                model_step(&model, disk, fd, &random);
            }
            model_check_now(&model, disk);
            bop_fs_sim_lose_power(disk->sim);
            model_check_loss(&model, disk);
            fd = open_file(disk, "f");
        }
    }
}
