/*
 * The names on the simulated disk, and what a power loss does to them.
 */
#include <stdio.h>

#include <bop/sim.h>

#include "sim_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

static int gather(void *user, const char *name)
{
    struct bop_buf *text = user;

    CHECK_EQ(bop_buf_append(text, name, strlen(name)), 0);
    return bop_buf_append(text, " ", 1);
}

/* The names in a directory, with a blank after each. */
#define CHECK_LIST(disk, path, expected)                                                           \
    do {                                                                                           \
        struct bop_buf text_;                                                                      \
                                                                                                   \
        bop_buf_init(&text_, NULL, 0);                                                             \
        CHECK_EQ((disk)->fs->list((disk)->fs, path, gather, &text_), 0);                           \
        CHECK_SLICE_EQ(bop_buf_slice(&text_), bytes(expected));                                    \
        bop_buf_deinit(&text_);                                                                    \
    } while (0)

static void make_empty(struct disk *disk, const char *path)
{
    close_file(disk, open_file(disk, path));
}

static void rename_file(struct disk *disk, const char *from, const char *to)
{
    REQUIRE_EQ(disk->fs->rename(disk->fs, from, to), 0);
}

static void sync_dir(struct disk *disk, const char *path)
{
    REQUIRE_EQ(disk->fs->sync_dir(disk->fs, path), 0);
}

/* ---- Without a power loss ---- */

TEST(sim_names, lists_in_byte_order)
{
    struct disk *disk = &f->disk;

    disk_begin(disk, 1);
    REQUIRE_EQ(disk->fs->mkdir(disk->fs, "/d"), 0);
    make_empty(disk, "/d/b");
    make_empty(disk, "/d/ab");
    make_empty(disk, "/d/a.b");
    make_empty(disk, "/d/\xc3\xa9"); /* Above all of ASCII. */
    make_empty(disk, "/d/B");
    make_empty(disk, "/d/a");
    REQUIRE_EQ(disk->fs->mkdir(disk->fs, "/d/aa"), 0);
    make_empty(disk, "/d/aa/x");
    CHECK_LIST(disk, "/d", "B a a.b aa ab b \xc3\xa9 ");
    CHECK_LIST(disk, "/", "d ");
    CHECK_EQ(disk->fs->unlink(disk->fs, "/d/a"), 0);
    CHECK_LIST(disk, "d/", "B a.b aa ab b \xc3\xa9 ");
}

static int stop_at_b(void *user, const char *name)
{
    ++*(int *)user;
    return name[0] == 'b' ? 7 : 0;
}

TEST(sim_names, ends_a_walk_when_told)
{
    struct disk *disk = &f->disk;
    int calls = 0;

    disk_begin(disk, 1);
    make_empty(disk, "a");
    make_empty(disk, "b");
    make_empty(disk, "c");
    CHECK_EQ(disk->fs->list(disk->fs, "/", stop_at_b, &calls), 7);
    CHECK_EQ(calls, 2);
}

static int unlink_it(void *user, const char *name)
{
    struct disk *disk = user;

    return disk->fs->unlink(disk->fs, name);
}

TEST(sim_names, may_change_during_a_walk)
{
    struct disk *disk = &f->disk;

    disk_begin(disk, 1);
    make_empty(disk, "a");
    make_empty(disk, "b");
    CHECK_EQ(disk->fs->list(disk->fs, "/", unlink_it, disk), 0);
    CHECK_LIST(disk, "/", "");
}

TEST(sim_names, takes_paths_apart_as_the_system_does)
{
    struct disk *disk = &f->disk;
    struct bop_fs *fs;
    char longer[300];
    uint64_t room;

    disk_begin(disk, 1);
    fs = disk->fs;
    REQUIRE_EQ(fs->mkdir(fs, "d"), 0);
    make_empty(disk, "d/f");
    CHECK(exists(disk, "//d/./f"));
    CHECK(exists(disk, "/d/"));
    CHECK(exists(disk, "."));
    CHECK_EQ(fs->open(fs, "d/f/", O_RDONLY), -ENOTDIR);
    CHECK_EQ(fs->open(fs, "d/f/.", O_RDONLY), -ENOTDIR);
    CHECK_EQ(fs->open(fs, "d/f/g", O_RDWR | O_CREAT), -ENOTDIR);
    CHECK_EQ(fs->open(fs, "e/f", O_RDWR | O_CREAT), -ENOENT);
    CHECK_EQ(fs->open(fs, "d/g/", O_RDWR | O_CREAT), -EISDIR);
    CHECK_EQ(fs->open(fs, "", O_RDONLY), -ENOENT);
    CHECK_EQ(fs->open(fs, "d/../d/f", O_RDONLY), BOP_EINVAL);
    memset(longer, 'x', sizeof(longer));
    longer[256] = '\0';
    CHECK_EQ(fs->open(fs, longer, O_RDWR | O_CREAT), -ENAMETOOLONG);
    longer[255] = '\0';
    CHECK(fs->open(fs, longer, O_RDWR | O_CREAT) >= 0);
    CHECK_EQ(fs->mkdir(fs, "d"), -EEXIST);
    CHECK_EQ(fs->mkdir(fs, "d/f"), -EEXIST);
    CHECK_EQ(fs->mkdir(fs, "/"), -EEXIST);
    CHECK_EQ(fs->mkdir(fs, "e/f"), -ENOENT);
    CHECK_EQ(fs->unlink(fs, "d"), -EISDIR);
    CHECK_EQ(fs->unlink(fs, "e"), -ENOENT);
    CHECK_EQ(fs->sync_dir(fs, "d/f"), -ENOTDIR);
    CHECK_EQ(fs->sync_dir(fs, "e"), -ENOENT);
    CHECK_EQ(fs->list(fs, "d/f", gather, NULL), -ENOTDIR);
    CHECK_EQ(fs->free_bytes(fs, "e", &room), -ENOENT);
}

TEST(sim_names, renames_as_the_system_does)
{
    struct disk *disk = &f->disk;
    struct bop_fs *fs;

    disk_begin(disk, 1);
    fs = disk->fs;
    REQUIRE_EQ(fs->mkdir(fs, "d"), 0);
    REQUIRE_EQ(fs->mkdir(fs, "d/e"), 0);
    make_empty(disk, "f");
    CHECK_EQ(fs->rename(fs, "g", "h"), -ENOENT);
    CHECK_EQ(fs->rename(fs, "f", "f"), 0);
    CHECK_EQ(fs->rename(fs, "f", "d"), -EISDIR);
    CHECK_EQ(fs->rename(fs, "f", "d/g/"), -ENOTDIR);
    CHECK_EQ(fs->rename(fs, "d", "f"), -ENOTDIR);
    CHECK_EQ(fs->rename(fs, "d", "d/e/x"), BOP_EINVAL);
    CHECK_EQ(fs->rename(fs, "d", "d/x"), BOP_EINVAL);
    CHECK_EQ(fs->rename(fs, "/", "x"), -EBUSY);
    CHECK_EQ(fs->rename(fs, "f", "d/e/f"), 0);
    CHECK_EQ(fs->rename(fs, "d", "x"), 0);
    CHECK(exists(disk, "x/e/f"));
    CHECK_LIST(disk, "/", "x ");
}

TEST(sim_names, keep_a_deleted_file_for_its_descriptors)
{
    struct disk *disk = &f->disk;
    char letter;
    int fd;

    disk_begin(disk, 1);
    fd = make_durable(disk, "f", 'a', 100);
    REQUIRE_EQ(disk->fs->unlink(disk->fs, "f"), 0);
    CHECK(!exists(disk, "f"));
    CHECK_EQ(disk->fs->pread(disk->fs, fd, &letter, 1, 50), 1);
    CHECK_EQ(letter, 'a');
    close_file(disk, fd);
}

/* ---- With one ---- */

TEST(sim_names, may_lose_a_new_name)
{
    struct disk *disk = &f->disk;
    unsigned there = 0;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        int fd = open_file(disk, "f");

        fill(disk, fd, 'a', 100, 0);
        REQUIRE_EQ(disk->fs->sync(disk->fs, fd), 0);
        bop_fs_sim_lose_power(disk->sim);
        there += exists(disk, "f");
        CHECK(!exists(disk, "f") || letter_at(disk, "f", 0, 100) == 'a');
    }
    CHECK(there > 0 && there < SEEDS);
}

TEST(sim_names, keep_a_synced_name)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        close_file(disk, make_durable(disk, "f", 'a', 100));
        bop_fs_sim_lose_power(disk->sim);
        CHECK_EQ(letter_at(disk, "f", 0, 100), 'a');
    }
}

/* To sync the name says nothing of the content. */
TEST(sim_names, may_keep_a_name_and_lose_its_content)
{
    struct disk *disk = &f->disk;
    bool empty = false;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        fill(disk, open_file(disk, "f"), 'a', 100, 0);
        sync_dir(disk, "/");
        bop_fs_sim_lose_power(disk->sim);
        CHECK(exists(disk, "f"));
        empty |= size_of(disk, "f") == 0;
    }
    CHECK(empty);
}

TEST(sim_names, may_bring_a_deleted_file_back)
{
    struct disk *disk = &f->disk;
    unsigned there = 0;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        close_file(disk, make_durable(disk, "f", 'a', 100));
        REQUIRE_EQ(disk->fs->unlink(disk->fs, "f"), 0);
        bop_fs_sim_lose_power(disk->sim);
        there += exists(disk, "f");
        CHECK(!exists(disk, "f") || letter_at(disk, "f", 0, 100) == 'a');
    }
    CHECK(there > 0 && there < SEEDS);
}

TEST(sim_names, keep_a_synced_deletion)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        close_file(disk, make_durable(disk, "f", 'a', 100));
        REQUIRE_EQ(disk->fs->unlink(disk->fs, "f"), 0);
        sync_dir(disk, "/");
        bop_fs_sim_lose_power(disk->sim);
        CHECK(!exists(disk, "f"));
    }
}

TEST(sim_names, rename_in_one_step)
{
    struct disk *disk = &f->disk;
    unsigned renamed = 0;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        close_file(disk, make_durable(disk, "new", 'n', 100));
        close_file(disk, make_durable(disk, "old", 'o', 100));
        rename_file(disk, "new", "old");
        bop_fs_sim_lose_power(disk->sim);
        if (exists(disk, "new")) {
            CHECK_EQ(letter_at(disk, "new", 0, 100), 'n');
            CHECK_EQ(letter_at(disk, "old", 0, 100), 'o');
        } else {
            CHECK_EQ(letter_at(disk, "old", 0, 100), 'n');
            renamed++;
        }
    }
    CHECK(renamed > 0 && renamed < SEEDS);
}

/* Made, renamed, deleted: any beginning of that may be what the disk has, and nothing else. */
TEST(sim_names, go_through_their_history_in_order)
{
    struct disk *disk = &f->disk;
    unsigned seen[4] = {0};

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        close_file(disk, make_durable(disk, "f", 'a', 100));
        rename_file(disk, "f", "g");
        rename_file(disk, "g", "h");
        REQUIRE_EQ(disk->fs->unlink(disk->fs, "h"), 0);
        bop_fs_sim_lose_power(disk->sim);
        CHECK(exists(disk, "f") + exists(disk, "g") + exists(disk, "h") <= 1);
        seen[exists(disk, "f") ? 0 : exists(disk, "g") ? 1 : exists(disk, "h") ? 2 : 3]++;
    }
    CHECK(seen[0] > 0 && seen[1] > 0 && seen[2] > 0 && seen[3] > 0);
}

TEST(sim_names, are_independent_of_each_other)
{
    struct disk *disk = &f->disk;
    unsigned seen[2][2] = {{0}};

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        make_empty(disk, "first");
        make_empty(disk, "second");
        bop_fs_sim_lose_power(disk->sim);
        seen[exists(disk, "first")][exists(disk, "second")]++;
    }
    CHECK(seen[0][0] > 0 && seen[0][1] > 0 && seen[1][0] > 0 && seen[1][1] > 0);
}

static void make_two_dirs(struct disk *disk)
{
    REQUIRE_EQ(disk->fs->mkdir(disk->fs, "a"), 0);
    REQUIRE_EQ(disk->fs->mkdir(disk->fs, "b"), 0);
}

/* A rename is one change: to sync either of its directories is to sync it, with the creation
 * before it. */
TEST(sim_names, rename_across_directories_in_one_step)
{
    struct disk *disk = &f->disk;

    for (int which = 0; which < 3; which++) {
        for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
            make_two_dirs(disk);
            make_empty(disk, "a/f");
            sync_dir(disk, "a");
            rename_file(disk, "a/f", "b/g");
            if (which > 0) {
                sync_dir(disk, which == 1 ? "a" : "b");
            }
            bop_fs_sim_lose_power(disk->sim);
            CHECK_EQ(exists(disk, "a/f") + exists(disk, "b/g"), 1);
            CHECK(which == 0 || exists(disk, "b/g"));
        }
    }
}

TEST(sim_names, sync_with_what_led_to_them)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        make_two_dirs(disk);
        make_empty(disk, "a/f");
        rename_file(disk, "a/f", "b/g");
        sync_dir(disk, "b");
        bop_fs_sim_lose_power(disk->sim);
        CHECK(exists(disk, "b/g"));
        CHECK(!exists(disk, "a/f"));
    }
}

TEST(sim_names, of_other_directories_stay_unsynced)
{
    struct disk *disk = &f->disk;
    unsigned there = 0;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        make_two_dirs(disk);
        make_empty(disk, "a/f");
        sync_dir(disk, "b");
        bop_fs_sim_lose_power(disk->sim);
        there += exists(disk, "a/f");
    }
    CHECK(there > 0 && there < SEEDS);
}

TEST(sim_names, of_directories_survive)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        /* The name was a file's before, whose deletion is not synced. */
        close_file(disk, make_durable(disk, "a", 'a', 100));
        REQUIRE_EQ(disk->fs->unlink(disk->fs, "a"), 0);
        make_two_dirs(disk);
        rename_file(disk, "b", "a/c");
        bop_fs_sim_lose_power(disk->sim);
        CHECK_EQ(disk->fs->sync_dir(disk->fs, "a/c"), 0);
        CHECK(!exists(disk, "b"));
    }
}

TEST(sim_names, lose_what_a_failed_sync_should_have_written)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        close_file(disk, make_durable(disk, "f", 'a', 100));
        rename_file(disk, "f", "g");
        bop_fs_sim_fail_syncs(disk->sim, 1);
        CHECK_EQ(disk->fs->sync_dir(disk->fs, "/"), -EIO);
        sync_dir(disk, "/");
        CHECK(exists(disk, "g"));
        bop_fs_sim_lose_power(disk->sim);
        CHECK(exists(disk, "f"));
        CHECK(!exists(disk, "g"));
    }
}

TEST(sim_names, stay_when_the_process_dies)
{
    struct disk *disk = &f->disk;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        close_file(disk, make_durable(disk, "f", 'a', 100));
        rename_file(disk, "f", "g");
        bop_fs_sim_kill_process(disk->sim);
        CHECK_LIST(disk, "/", "g ");
    }
}

/* Changes without a sync do not gather without bound: the older become durable. */
TEST(sim_names, become_durable_when_very_many)
{
    struct disk *disk = &f->disk;
    char path[32];

    for (uint64_t seed = 0; seed < 10; seed++) {
        disk_begin(disk, seed);
        for (int i = 0; i < 5000; i++) {
            snprintf(path, sizeof(path), "f%d", i);
            make_empty(disk, path);
        }
        bop_fs_sim_lose_power(disk->sim);
        for (int i = 0; i < 904; i++) { /* 5000 - 4096. */
            snprintf(path, sizeof(path), "f%d", i);
            CHECK(exists(disk, path));
        }
        disk_end(disk);
    }
}

TEST(sim_names, take_no_room_once_gone)
{
    struct disk *disk = &f->disk;
    char path[32];
    size_t live = 0;

    disk_begin(disk, 1);
    for (int i = 0; i < 20000; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        make_empty(disk, path);
        REQUIRE_EQ(disk->fs->unlink(disk->fs, path), 0);
        if (i == 10000) {
            live = f->heap.live;
        }
    }
    CHECK(f->heap.live <= live + live / 2);
    sync_dir(disk, "/");
    CHECK_LIST(disk, "/", "");
}
