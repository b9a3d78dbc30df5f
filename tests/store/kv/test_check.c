/*
 * The integrity check: fine stores are fine, and of damaged ones every page is cut
 * off or has bits flipped: the check answers, and never reads outside of what it has.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include <bop/kv_admin.h>
#include <bop/random.h>

#include "kv_test.h"

FIXTURE(setup, teardown)

/* Tables of all kinds with values of all sizes, and free pages. */
static void fill(struct fixture *f, unsigned scale)
{
    static uint8_t filler[20000];
    struct bop_kv *kv = open_store(f);
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_kv_table plain, dups, fixed;
    char word[64];

    REQUIRE_EQ(bop_kv_table_open(txn, "plain", true, &plain), 0);
    REQUIRE_EQ(bop_kv_table_open_with(txn, "dups", BOP_KV_CREATE | BOP_KV_DUP_SORT, &dups), 0);
    REQUIRE_EQ(bop_kv_table_open_with(txn, "fixed",
                                      BOP_KV_CREATE | BOP_KV_DUP_SORT | BOP_KV_DUP_FIXED |
                                          BOP_KV_INTEGER_DUP | BOP_KV_INTEGER_KEY,
                                      &fixed),
               0);
    for (uint64_t i = 0; i < scale; i++) {
        uint64_t key = i % 7;

        snprintf(word, sizeof(word), "%" PRIu64 " some words of no meaning", i * 2654435761u);
        CHECK_EQ(bop_kv_put(txn, plain, bytes(word), bop_slice(filler, i % 50 ? 20 : 9000)), 0);
        CHECK_EQ(bop_kv_put(txn, dups, bop_slice(word, 1 + i % 2), bytes(word)), 0);
        CHECK_EQ(bop_kv_put(txn, fixed, bop_slice(&key, 8), bop_slice(&i, 8)), 0);
    }
    CHECK_EQ(bop_kv_commit(txn), 0);
    txn = begin(kv, true);
    for (uint64_t i = 0; i < scale; i += 3) {
        snprintf(word, sizeof(word), "%" PRIu64 " some words of no meaning", i * 2654435761u);
        CHECK_EQ(bop_kv_del(txn, plain, bytes(word)), 0);
    }
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}

static void data_path(struct fixture *f, char out_path[800])
{
    snprintf(out_path, 800, "%s/data.mdb", f->path);
}

static int check(struct fixture *f, struct bop_kv_check_result *out_result, struct bop_error *err)
{
    struct bop_kv_check_options options = {.allocator = &f->heap.allocator};

    return bop_kv_check_path(f->path, &options, out_result, err);
}

TEST(kv_check, finds_nothing_in_a_sound_store)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv_check_result result, open_result;
    struct bop_error err = {0};
    struct bop_kv_table table;
    struct bop_kv_txn *txn;
    struct bop_kv *kv = NULL;

    fill(f, 3000);
    CHECK_EQ(check(f, &result, &err), 0);
    CHECK_STR_EQ(err.message, "");
    CHECK_EQ(result.tables, 3);
    CHECK_EQ(result.entries, 2000 + 3000 + 3000);
    CHECK_EQ(result.pages_used + result.pages_free, result.pages);
    CHECK(result.pages_free > 10);

    options.check = true;
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    CHECK_EQ(check(f, &open_result, NULL), BOP_ELOCKED);
    txn = begin(kv, true); /* The check is of the last commit. */
    CHECK_EQ(bop_kv_table_open(txn, "plain", false, &table), 0);
    CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bytes("v")), 0);
    CHECK_EQ(bop_kv_check(kv, NULL, &open_result, NULL), 0);
    CHECK_EQ(open_result.entries, result.entries);
    CHECK_EQ(open_result.txn, result.txn);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

static uint8_t *read_file(struct fixture *f, size_t size)
{
    static uint8_t bytes_[4 << 20];
    char path[800];
    int fd;

    data_path(f, path);
    REQUIRE(size <= sizeof(bytes_));
    fd = open(path, O_RDONLY);
    REQUIRE(fd >= 0);
    REQUIRE_EQ(pread(fd, bytes_, size, 0), (ssize_t)size);
    close(fd);
    return bytes_;
}

static void overwrite(struct fixture *f, const uint8_t *content, size_t size, size_t offset)
{
    char path[800];
    int fd;

    data_path(f, path);
    fd = open(path, O_WRONLY);
    REQUIRE(fd >= 0);
    REQUIRE_EQ(pwrite(fd, content, size, (off_t)offset), (ssize_t)size);
    close(fd);
}

static bool is_answer(int rc)
{
    return rc == 0 || rc == BOP_ECORRUPT || rc == BOP_EVERSION;
}

/* In each page, bits of the head, of the offsets and anywhere. */
TEST(kv_check, answers_whatever_bit_is_flipped)
{
    struct bop_kv_check_result result;
    struct bop_random random;
    unsigned found = 0, rounds = 0;
    uint8_t *content;
    size_t size;

    fill(f, 400);
    bop_random_seed(&random, 7);
    REQUIRE_EQ(check(f, &result, NULL), 0);
    size = (size_t)(result.pages * result.page_bytes);
    content = read_file(f, size);
    for (size_t page = 0; page < size; page += (size_t)result.page_bytes) {
        for (int i = 0; i < 40; i++) {
            size_t range = i < 15 ? 24 : i < 30 ? 200 : 4096;
            size_t at = page + (size_t)bop_random_below(&random, range);
            struct bop_kv_check_result damaged;
            uint8_t byte = (uint8_t)(content[at] ^ 1u << bop_random_below(&random, 8));
            int rc;

            overwrite(f, &byte, 1, at);
            rc = check(f, &damaged, NULL);
            CHECK(is_answer(rc));
            CHECK_EQ(rc == BOP_ECORRUPT, damaged.problems > 0);
            found += rc != 0;
            rounds++;
            overwrite(f, &content[at], 1, at);
        }
    }
    test_note("%u of %u flipped bits were found", found, rounds);
    CHECK(found > rounds / 10);
    CHECK_EQ(check(f, &result, NULL), 0);
}

TEST(kv_check, answers_wherever_the_file_is_cut_off)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv_check_result result, damaged;
    struct bop_kv *kv = NULL;
    char path[800];

    fill(f, 400);
    options.check = true;
    data_path(f, path);
    REQUIRE_EQ(check(f, &result, NULL), 0);
    for (uint64_t pages = result.pages; pages > 0; pages--) {
        int rc;

        REQUIRE_EQ(truncate(path, (off_t)(pages * result.page_bytes - 100)), 0);
        rc = check(f, &damaged, NULL);
        CHECK(is_answer(rc)); /* The last pages may be free. */
        CHECK(pages > result.pages / 2 || rc == BOP_ECORRUPT);
        if (rc != 0) {
            CHECK_EQ(bop_kv_open(&options, &kv, NULL), rc);
        }
    }
    REQUIRE_EQ(truncate(path, 0), 0);
    CHECK_EQ(check(f, &damaged, NULL), BOP_ECORRUPT);
}

struct first_problem {
    unsigned count;
    char table[64];
    char text[160];
};

static void keep_first(void *context, uint64_t page, const char *table, const char *text)
{
    struct first_problem *first = context;

    if (first->count++ == 0) {
        snprintf(first->table, sizeof(first->table), "%s", table);
        snprintf(first->text, sizeof(first->text), "%s", text);
    }
}

/* Two keys of a leaf swapped: the report names the table. */
TEST(kv_check, reports_where_it_is)
{
    struct first_problem first = {0};
    struct bop_kv_check_options options = {
        .allocator = &f->heap.allocator, .problem = keep_first, .context = &first};
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "swapped");
    struct bop_kv_check_result result;
    struct bop_error err = {0};
    const uint8_t *content, *at;
    size_t size;

    put_one(kv, table, "unlikely-1", "v");
    put_one(kv, table, "unlikely-2", "v");
    bop_kv_close(kv);
    REQUIRE_EQ(check(f, &result, NULL), 0);
    size = (size_t)(result.pages * result.page_bytes);
    content = read_file(f, size);
    for (at = content; (at = memmem(at, size - (size_t)(at - content), "unlikely-1", 10)); at++) {
        overwrite(f, (const uint8_t *)"unlikely-3", 10, (size_t)(at - content));
    }
    CHECK_EQ(bop_kv_check_path(f->path, &options, &result, &err), BOP_ECORRUPT);
    CHECK_EQ(first.count, result.problems);
    CHECK_STR_EQ(first.table, "swapped");
    CHECK_STR_HAS(first.text, "out of order");
    CHECK_STR_HAS(err.message, "swapped: page ");
}

/* A lack of memory is told as that, not as damage. */
TEST(kv_check, survives_each_fault_of_memory)
{
    struct bop_kv_check_result result;

    fill(f, 400);
    FAULT_SWEEP(&f->faults) {
        int rc = check(f, &result, NULL);

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK(f->faults.at > 3); /* Two maps of pages, and a buffer a level. */
}
