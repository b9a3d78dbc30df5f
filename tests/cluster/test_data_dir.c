#include "data_dir.h"

#include <stdio.h>

#include <bop/sim.h>

#include "tap.h"

#define PATH "/data/node"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_sim *sim;
    struct bop_fs *fs;
    struct data_dir dir;
    struct bop_error err;
};

static void setup(struct fixture *f)
{
    struct bop_fs_sim_options options = {.allocator = &f->heap.allocator, .seed = 1};

    test_heap_init(&f->heap, NULL);
    f->dir.lock_fd = -1;
    REQUIRE_EQ(bop_fs_sim_create(&options, &f->sim), 0);
    f->fs = bop_fs_sim_fs(f->sim);
}

static void teardown(struct fixture *f)
{
    if (f->fs) {
        bop__data_dir_close(&f->dir, f->fs);
    }
    bop_fs_sim_destroy(f->sim);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static int open_as(struct fixture *f, uint64_t node, const char *cluster, const char *boot_id)
{
    memset(&f->err, 0, sizeof(f->err));
    return bop__data_dir_open(&f->dir, f->fs, PATH, node, cluster, boot_id, &f->err);
}

static void close_dir(struct fixture *f)
{
    bop__data_dir_close(&f->dir, f->fs);
}

static void write_file(struct fixture *f, const char *name, struct bop_slice content)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/%s", PATH, name);
    REQUIRE_EQ(bop_fs_write_file(f->fs, path, content, NULL), 0);
}

/* A directory of node 3 of cluster "blue", closed. */
static void make_dir(struct fixture *f)
{
    REQUIRE_EQ(open_as(f, 3, "blue", "boot-1"), 0);
    REQUIRE_EQ(bop__data_dir_claim(f->fs, PATH, 3, "blue", NULL), 0);
    close_dir(f);
}

TEST(data_dir, is_fresh_until_it_is_claimed)
{
    REQUIRE_EQ(open_as(f, 3, "blue", "boot-1"), 0);
    CHECK(f->dir.fresh);
    CHECK(!f->dir.state_whole);
    close_dir(f);
    REQUIRE_EQ(open_as(f, 4, "red", "boot-1"), 0); /* Nobody's yet. */
    CHECK(f->dir.fresh);
    REQUIRE_EQ(bop__data_dir_claim(f->fs, PATH, 4, "red", NULL), 0);
    close_dir(f);
    REQUIRE_EQ(open_as(f, 4, "red", "boot-1"), 0);
    CHECK(!f->dir.fresh);
}

/* docs/design/data-directory.md */
TEST(data_dir, has_this_identity)
{
    struct bop_buf text;

    make_dir(f);
    bop_buf_init(&text, &f->heap.allocator, 0);
    REQUIRE_EQ(bop_fs_read_file(f->fs, PATH "/identity", 1000, &text), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&text), bytes("bop-data 1\nnode 3\ncluster blue\n"));
    bop_buf_deinit(&text);
}

TEST(data_dir, of_another_node_says_whose_it_is)
{
    make_dir(f);
    CHECK_EQ(open_as(f, 4, "blue", "boot-1"), BOP_EMISMATCH);
    CHECK_STR_EQ(f->err.message, "data directory /data/node belongs to node 3, not 4: start with "
                                 "--id 3 or choose another directory with --data");
    CHECK_EQ(f->dir.lock_fd, -1);
}

TEST(data_dir, of_another_cluster_says_which)
{
    make_dir(f);
    CHECK_EQ(open_as(f, 3, "red", "boot-1"), BOP_EMISMATCH);
    CHECK_STR_EQ(f->err.message,
                 "data directory /data/node belongs to cluster \"blue\", not \"red\": start with "
                 "--cluster blue or choose another directory with --data");
    CHECK_EQ(open_as(f, 3, "blu", "boot-1"), BOP_EMISMATCH);
    CHECK_EQ(open_as(f, 3, "blue2", "boot-1"), BOP_EMISMATCH);
}

TEST(data_dir, of_a_newer_format_names_both)
{
    make_dir(f);
    write_file(f, "identity", bytes("bop-data 2\nsomething else\n"));
    CHECK_EQ(open_as(f, 3, "blue", "boot-1"), BOP_EVERSION);
    CHECK_STR_EQ(f->err.message, "data directory /data/node has format 2, this bopd knows format "
                                 "1: use the bopd that wrote it");
}

TEST(data_dir, is_used_by_one_at_a_time)
{
    struct data_dir second;

    make_dir(f);
    REQUIRE_EQ(open_as(f, 3, "blue", "boot-1"), 0);
    CHECK_EQ(bop__data_dir_open(&second, f->fs, PATH, 3, "blue", "boot-1", &f->err), BOP_ELOCKED);
    CHECK_STR_HAS(f->err.message, "in use by another process: stop that one, or choose another");
    CHECK_EQ(second.lock_fd, -1);
    bop__data_dir_close(&second, f->fs);
    close_dir(f);
    REQUIRE_EQ(open_as(f, 3, "blue", "boot-1"), 0);
    bop_fs_sim_kill_process(f->sim); /* Its lock goes with it. */
    f->dir.lock_fd = -1;
    REQUIRE_EQ(open_as(f, 3, "blue", "boot-1"), 0);
}

/* Whatever is in the file: a message and no crash, never somebody's directory. */
TEST(data_dir, with_a_strange_identity_is_refused)
{
    static const char *const texts[] = {
        "",
        "\n",
        "hello",
        "bop-data",
        "bop-data ",
        "bop-data 1",
        "bop-data x\n",
        "bop-data -1\n",
        "bop-data +1\n",
        "bop-data  1\n",
        "bop-data 1 \nnode 3\ncluster blue\n",
        "bop-data 99999999999999999999999999\n",
        "bop-data 1\n",
        "bop-data 1\nnode 3\n",
        "bop-data 1\nnode 3\ncluster",
        "bop-data 1\nnode 3\ncluster ",
        "bop-data 1\nnode 3\ncluster \n",
        "bop-data 1\nnode 3\ncluster blue",
        "bop-data 1\nnode 3\ncluster blue\nmore\n",
        "bop-data 1\nnode 3\ncluster blue\x1b[0m\n",
        "bop-data 1\nnode 3\ncluster \xff\n",
        "bop-data 1\nnode -3\ncluster blue\n",
        "bop-data 1\nnode 18446744073709551619\ncluster blue\n", /* 2^64 + 3. */
        "bop-data 1\nnode 3 \ncluster blue\n",
        "bop-data 1\n\nnode 3\ncluster blue\n",
        "bop-data 1\r\nnode 3\r\ncluster blue\r\n",
    };

    make_dir(f);
    for (size_t n = 0; n < BOP_COUNT_OF(texts); n++) {
        write_file(f, "identity", bytes(texts[n]));
        CHECK_EQ(open_as(f, 3, "blue", "boot-1"), BOP_ECORRUPT);
        CHECK_STR_HAS(f->err.message, PATH "/identity");
        CHECK(strstr(f->err.message, "--data") || strstr(f->err.message, "--join"));
    }
    write_file(f, "identity", bop_slice("bop-data 1\nnode 3\ncluster blue\0\n", 33));
    CHECK_EQ(open_as(f, 3, "blue", "boot-1"), BOP_ECORRUPT);
}

TEST(data_dir, with_an_endless_identity_is_refused)
{
    static char text[2000] = "bop-data 1\nnode 3\ncluster ";

    make_dir(f);
    memset(text + 26, 'x', sizeof(text) - 27);
    text[sizeof(text) - 1] = '\n';
    write_file(f, "identity", bop_slice(text, sizeof(text)));
    CHECK_EQ(open_as(f, 3, "blue", "boot-1"), BOP_ETOOBIG);
    write_file(f, "identity", bop_slice(text, 26 + 256)); /* A byte more than a name has. */
    CHECK_EQ(open_as(f, 3, "blue", "boot-1"), BOP_ECORRUPT);
}

/* What could not be read back is not written. */
TEST(data_dir, wants_a_name_that_fits_its_line)
{
    char name[257];

    CHECK_EQ(open_as(f, 3, "", "boot-1"), BOP_EINVAL);
    CHECK_STR_HAS(f->err.message, "--cluster");
    CHECK_EQ(open_as(f, 3, "a\nb", "boot-1"), BOP_EINVAL);
    CHECK_EQ(open_as(f, 3, "\xff", "boot-1"), BOP_EINVAL);
    memset(name, 'x', sizeof(name));
    name[256] = '\0';
    CHECK_EQ(open_as(f, 3, name, "boot-1"), BOP_EINVAL);
    CHECK(!bop_fs_exists(f->fs, PATH));
    name[255] = '\0';
    REQUIRE_EQ(open_as(f, 3, name, "boot-1"), 0);
    REQUIRE_EQ(bop__data_dir_claim(f->fs, PATH, 3, name, NULL), 0);
    close_dir(f);
    REQUIRE_EQ(open_as(f, 3, name, "boot-1"), 0);
    close_dir(f);
    CHECK_EQ(open_as(f, 3, "blue", "boot-1"), BOP_EMISMATCH);
}

/* ---- The boot mark ---- */

static bool whole(struct fixture *f, const char *boot_id)
{
    bool state_whole;

    REQUIRE_EQ(open_as(f, 3, "blue", boot_id), 0);
    state_whole = f->dir.state_whole;
    close_dir(f);
    return state_whole;
}

TEST(data_dir, trusts_the_state_within_one_boot)
{
    make_dir(f);
    CHECK(!whole(f, "boot-1")); /* Never marked. */
    REQUIRE_EQ(bop__data_dir_mark(f->fs, PATH, "boot-1", NULL), 0);
    CHECK(whole(f, "boot-1"));
    CHECK(!whole(f, "boot-2"));
    CHECK(!whole(f, "boot-11"));
    CHECK(!whole(f, "boot-"));
    CHECK(whole(f, "boot-1")); /* Looking alone changes nothing. */
}

TEST(data_dir, trusts_a_clean_state_in_any_boot)
{
    make_dir(f);
    REQUIRE_EQ(bop__data_dir_mark(f->fs, PATH, DATA_DIR_CLEAN, NULL), 0);
    CHECK(whole(f, "boot-1"));
    CHECK(whole(f, "boot-2"));
    CHECK(whole(f, ""));
}

/* A system that does not say which boot it is in may be in any. */
TEST(data_dir, trusts_nothing_in_an_unknown_boot)
{
    make_dir(f);
    REQUIRE_EQ(bop__data_dir_mark(f->fs, PATH, "", NULL), 0);
    CHECK(!whole(f, ""));
    CHECK(!whole(f, "boot-1"));
}

TEST(data_dir, with_a_strange_mark_trusts_nothing)
{
    make_dir(f);
    write_file(f, "boot", bytes("clean\n"));
    CHECK(!whole(f, "boot-1"));
    write_file(f, "boot", bop_slice("boot-1\0", 7));
    CHECK(!whole(f, "boot-1"));
}

/* ---- Faults ---- */

static int use(struct bop_fs *fs, struct data_dir *dir, struct bop_error *err)
{
    int rc = bop__data_dir_open(dir, fs, PATH, 3, "blue", "boot-1", err);

    if (rc == 0) {
        rc = bop__data_dir_mark(fs, PATH, "boot-1", err);
    }
    if (rc == 0 && dir->fresh) {
        rc = bop__data_dir_claim(fs, PATH, 3, "blue", err);
    }
    bop__data_dir_close(dir, fs);
    return rc;
}

/* Each operation fails once in turn, with the power cut after it: the error is said, and what
 * is left is either a whole directory or a fresh one. */
TEST(data_dir, survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_fs_sim_options options = {.seed = f->faults.fail_at};
        struct bop_fs_faulty faulty;
        struct bop_fs_sim *sim;
        struct data_dir dir;
        struct bop_error err = {0};
        int rc;

        REQUIRE_EQ(bop_fs_sim_create(&options, &sim), 0);
        bop_fs_faulty_init(&faulty, bop_fs_sim_fs(sim), &f->faults);
        rc = use(&faulty.fs, &dir, &err);
        if (rc == 0) {
            rc = use(&faulty.fs, &dir, &err);
        }
        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(err.code, rc);
        CHECK(rc == 0 || err.message[0] != '\0');
        CHECK_EQ(faulty.open_files, 0);
        bop_fs_sim_lose_power(sim);
        err.message[0] = '\0';
        CHECK_EQ(use(bop_fs_sim_fs(sim), &dir, &err), 0);
        CHECK_STR_EQ(err.message, "");
        bop_fs_sim_destroy(sim);
    }
    CHECK(f->faults.at >= 30); /* The disk makes some reads and writes short. */
}
