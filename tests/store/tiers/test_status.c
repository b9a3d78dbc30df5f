/*
 * What the tiers say: metrics by their names, events, the snapshot; and owners that close early.
 */
#include "harness.h"

struct heard {
    struct bop_log log;
    char text[16384];
    size_t size;
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct heard heard;
    struct world w;
    struct fake_log *log;
    struct bop_metrics *metrics;
};

static void hear(struct bop_log *self, enum bop_log_level level, const char *module,
                 const char *message)
{
    struct heard *heard = BOP_CONTAINER_OF(self, struct heard, log);
    int size = snprintf(heard->text + heard->size, sizeof(heard->text) - heard->size, "%d %s %s\n",
                        (int)level, module, message);

    REQUIRE(size > 0 && heard->size + (size_t)size < sizeof(heard->text));
    heard->size += (size_t)size;
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    world_init(&f->w, &f->heap.allocator, 1);
    f->log = &f->w.logs[0];
    f->heard.log = (struct bop_log){.level = BOP_LOG_DEBUG, .write = hear};
    REQUIRE_EQ(bop_metrics_create(NULL, &f->metrics), 0);
    f->w.options.log = &f->heard.log;
    f->w.options.metrics = f->metrics;
}

static void teardown(struct fixture *f)
{
    world_deinit(&f->w);
    bop_metrics_destroy(f->metrics);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void begin(struct fixture *f)
{
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE_EQ(log_open(f->log), 0);
}

TEST(status, metrics_have_the_names_that_are_documented)
{
    struct bop_buf text;

    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 1;
    begin(f);
    REQUIRE(log_seal(f->log) && log_seal(f->log));
    settle(&f->w);
    CHECK_EQ(read_archived(f->log, &f->log->made[0], true, NULL), 0);
    bop_tiers_poll(f->w.tiers);
    bop_buf_init(&text, NULL, 0);
    REQUIRE_EQ(bop_metrics_write(f->metrics, &text), 0);
    REQUIRE_EQ(bop_buf_append(&text, "", 1), 0);
    CHECK_STR_HAS((char *)text.data, "\nbop_aof_tier0_bytes 0\n");
    CHECK_STR_HAS((char *)text.data, "\nbop_aof_tier0_drops_total 2\n");
    CHECK_STR_HAS((char *)text.data, "\nbop_aof_tier1_bytes 0\n");
    CHECK_STR_HAS((char *)text.data, "\nbop_aof_tier1_compressions_total 2\n");
    CHECK_STR_HAS((char *)text.data, "\nbop_aof_tier1_compression_level 1\n");
    CHECK_STR_HAS((char *)text.data, "\nbop_aof_tier1_evictions_total 2\n");
    CHECK_STR_HAS((char *)text.data, "\nbop_aof_tier2_uploads_total 2\n");
    CHECK_STR_HAS((char *)text.data, "\nbop_aof_tier2_upload_queue_depth 0\n");
    CHECK_STR_HAS((char *)text.data, "\nbop_aof_segments{residency=\"tier2\"} 2\n");
    CHECK_STR_HAS((char *)text.data, "\nbop_aof_segments{residency=\"needs_recovery\"} 0\n");
    CHECK_STR_HAS((char *)text.data, "bop_aof_tier1_hydration_latency_us_count 0\n");
    CHECK_STR_HAS((char *)text.data, "bop_aof_manifest_publishes_total");
    bop_buf_deinit(&text);
}

TEST(status, events_tell_the_life_of_a_segment)
{
    char *text = f->heard.text;

    f->w.options.tier0_bytes = 1;
    f->w.options.tier1_bytes = 1;
    f->w.options.retention_ms = 60000;
    begin(f);
    object_memory_fail(f->w.memory, OBJECT_MEMORY_HEAD, 1, BOP_EBUSY, OBJECT_MEMORY_REFUSE);
    REQUIRE(log_seal(f->log) && log_seal(f->log));
    pass(&f->w, 100000);
    CHECK_STR_HAS(text, "0 aof.tier0 tiered_admit_segment log=orders segment=1 base=1 bytes=");
    CHECK_STR_HAS(text, "1 aof.tier1 tier1_compression_success log=orders segment=1 base=1 ");
    CHECK_STR_HAS(text, "0 aof.tier0 tier0_eviction_scheduled log=orders segment=1");
    CHECK_STR_HAS(text, "1 aof.tier0 tier0_segment_dropped log=orders segment=1");
    CHECK_STR_HAS(text, "2 aof.tier2 tier2_upload_failed log=orders segment=1");
    CHECK_STR_HAS(text, "1 aof.tier2 tier2_upload_success log=orders segment=1");
    CHECK_STR_HAS(text, "1 aof.tier1 tier1_evicted log=orders segment=1");
    CHECK_STR_HAS(text, "1 aof.tier2 tier2_delete_queued log=orders segment=1");
    CHECK_STR_HAS(text, "1 aof.tier2 tier2_delete_success log=orders segment=1");
}

TEST(status, a_snapshot_tells_what_waits)
{
    struct bop_tiers_status status;

    begin(f);
    settle(&f->w);
    object_memory_outage(f->w.memory, BOP_EIO);
    REQUIRE(log_seal(f->log) && log_seal(f->log));
    CHECK_EQ(status_of(&f->w).packs_waiting, 2);
    settle(&f->w);
    status = status_of(&f->w);
    CHECK_EQ(status.packs_waiting, 0);
    CHECK_EQ(status.uploads_waiting, 2);
    CHECK_EQ(status.packs, 2);
    CHECK_EQ(status.segments[BOP_TIERS_TIER0], 2);
    CHECK(status.tier0_bytes > status.tier1_bytes && status.tier1_bytes > 0);
    CHECK_EQ(status.tier2_bytes, 0);
    CHECK_EQ(status.last_error, BOP_EIO);
    CHECK(status.message[0] != '\0');
}

/* ---- Closing while something is under way ---- */

TEST(status, a_log_closed_early_opens_when_its_tasks_are_through)
{
    begin(f);
    REQUIRE(log_seal(f->log));
    bop_tiers_poll(f->w.tiers);
    CHECK(bop_tiers_busy(f->w.tiers));
    bop__archive_close(f->log->archive);
    f->log->archive = NULL;
    CHECK_EQ(log_open(f->log), BOP_EBUSY);
    bop_inline_poll(&f->w.executor);
    REQUIRE_EQ(log_open(f->log), 0);
    settle(&f->w);
    CHECK_EQ(f->log->tier2, 60);
}

TEST(status, equal_runs_are_equal)
{
    uint64_t digests[2];

    for (unsigned run = 0; run < 2; run++) {
        if (run > 0) {
            f->w.options.log = NULL;
            world_deinit(&f->w);
            world_init(&f->w, &f->heap.allocator, 1);
        }
        f->w.options.tier0_bytes = 20000;
        f->w.options.tier1_bytes = 8000;
        f->w.options.retention_bytes = 13000;
        begin(f);
        object_memory_fail(f->w.memory, OBJECT_MEMORY_PUT, 2, BOP_EIO, OBJECT_MEMORY_REFUSE);
        for (unsigned i = 0; i < 5; i++) {
            REQUIRE(log_seal(f->log));
            pass(&f->w, 777);
        }
        digests[run] = bop_fs_sim_digest(f->w.sim) + f->w.mortal.calls;
    }
    CHECK_EQ(digests[0], digests[1]);
}
