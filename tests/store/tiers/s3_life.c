/*
 * The life of a log's segments on real files and a real S3 server, which test_s3_tiers.py starts
 * and speaks for by the environment. By itself it skips.
 */
#include <stdlib.h>
#include <unistd.h>

#include "harness.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct world w;
    struct fake_log *log;
    struct bop_object_store *s3;
};

/* The environment's word, or the test is skipped. */
static const char *word(const char *name)
{
    const char *value = getenv(name);

    if (!value) {
        TEST_SKIP("no S3 server is named");
    }
    return value;
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    world_init(&f->w, &f->heap.allocator, 1);
    f->log = &f->w.logs[0];
}

static void teardown(struct fixture *f)
{
    world_deinit(&f->w);
    if (f->s3) {
        f->s3->destroy(f->s3);
    }
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void begin(struct fixture *f, const char *prefix)
{
    struct bop_s3_options options = {.allocator = &f->heap.allocator,
                                     .endpoint = word("BOP_TEST_S3_ENDPOINT"),
                                     .bucket = word("BOP_TEST_S3_BUCKET"),
                                     .region = word("BOP_TEST_S3_REGION"),
                                     .access_key = word("BOP_TEST_S3_ACCESS_KEY"),
                                     .secret_key = word("BOP_TEST_S3_SECRET_KEY"),
                                     .attempts = 2,
                                     .backoff_ms = 5,
                                     .stall_timeout_ms = 5000};

    REQUIRE_EQ(bop_s3_create(&options, &f->s3, NULL), 0);
    f->w.fs = bop_fs_real();
    f->w.options.fs = f->w.fs;
    f->w.options.clock = NULL;
    f->w.options.executor_count = 0;
    f->w.options.objects = f->s3;
    f->w.options.prefix = prefix;
    f->w.options.retry_ms = 5;
    f->w.options.delete_grace_ms = 50;
    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 100000;
    snprintf(f->log->path, sizeof(f->log->path), "%s", test_tmpdir());
}

static void open_all(struct fixture *f)
{
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(f->log), 0);
}

/* Poll until so much is in tier 2; a minute is long for what takes a second. */
static void reach(struct fixture *f, uint64_t seq)
{
    for (unsigned i = 0; f->log->tier2 < seq && i < 60000; i++) {
        bop_tiers_poll(f->w.tiers);
        usleep(1000);
    }
    CHECK_EQ(f->log->tier2, seq);
    if (f->log->tier2 < seq) {
        test_note("%s", status_of(&f->w).message);
    }
}

static void check_all(struct fixture *f, unsigned from)
{
    for (unsigned i = from; i < f->log->count; i++) {
        int rc = BOP_EIO;

        /* The proxy may be in the way of one read or two. */
        for (unsigned tries = 0; tries < 20 && rc < 0; tries++) {
            rc = read_archived(f->log, &f->log->made[i], true, NULL);
        }
        CHECK_EQ(rc, 0);
    }
}

static int count_key(void *user, const char *key, const struct bop_object_info *info)
{
    BOP_IGNORE(key);
    BOP_IGNORE(info);
    (*(unsigned *)user)++;
    return 0;
}

static unsigned count_objects(struct fixture *f, const char *prefix)
{
    unsigned count = 0;
    int rc = BOP_EIO;

    for (unsigned tries = 0; tries < 20 && rc < 0; tries++) {
        count = 0;
        rc = f->s3->list(f->s3, prefix, count_key, &count, NULL);
    }
    CHECK_EQ(rc, 0);
    return count;
}

TEST(s3, segments_live_in_a_bucket_and_come_back_from_it)
{
    struct bop_tiers_restored restored;
    const char *path = NULL;
    int rc = BOP_EIO;

    begin(f, "life");
    open_all(f);
    for (unsigned i = 0; i < 6; i++) {
        REQUIRE(log_seal_of(f->log, 800, 400)); /* Each about 400 kB, and 60 packed. */
    }
    reach(f, 4800);
    check_all(f, 0);
    CHECK(status_of(&f->w).segments[BOP_TIERS_TIER2] >= 3);
    CHECK_EQ(count_objects(f, "life/orders/segment-"), 6);
    world_close(&f->w);

    /* The directory is lost. */
    for (unsigned i = 0; i < f->log->count; i++) {
        f->log->made[i].local = false;
    }
    for (unsigned tries = 0; tries < 20 && rc < 0; tries++) {
        path = test_tmpdir(); /* One for each try: it must be empty. */
        rc = bop_tiers_restore(&f->w.options, path, "orders", &restored, NULL);
    }
    REQUIRE_EQ(rc, 0);
    CHECK_EQ(restored.segments, 6);
    CHECK_EQ(restored.last_seq, 4800);
    snprintf(f->log->path, sizeof(f->log->path), "%s", path);

    /* It goes on, and retention takes what was there before. */
    f->w.options.retention_bytes = 100000;
    open_all(f);
    check_all(f, 4);
    REQUIRE(log_seal_of(f->log, 800, 400));
    reach(f, 5600);
    for (unsigned i = 0; count_objects(f, "life/orders/segment-") > 3 && i < 2000; i++) {
        bop_tiers_poll(f->w.tiers);
        usleep(10000);
    }
    CHECK(count_objects(f, "life/orders/segment-") <= 3);
    check_all(f, 6);
}
