/*
 * Reading a log most of which has left its directory: the same records by the same calls, from
 * packed files and from the object store.
 */
#include <bop/tiers.h>

#include "harness.h"
#include "object_store_memory.h"

#define RECORDS 3000u

struct tiered {
    struct fixture *f;
    struct object_memory *memory;
    struct bop_executor *executors[2];
    struct bop_tiers_options options;
    struct bop_tiers *tiers;
    unsigned room; /* Times that on_room told of bytes that have come. */
};

static void on_room(void *user, enum bop_aof_refusal refusal)
{
    struct tiered *t = BOP_CONTAINER_OF(user, struct tiered, f);

    t->room += refusal == BOP_AOF_REFUSED_HYDRATION;
}

static void no_durable(void *user, uint64_t seq)
{
}

static void no_failure(void *user, int code, const char *message)
{
    CHECK(!"the log failed");
}

/* Do all that does not wait for time. */
static void settle(struct tiered *t)
{
    for (int idle = 0; idle < 3;) {
        BOP_IGNORE(bop_tiers_poll(t->tiers));
        idle = bop_inline_poll(&t->f->executor) == 0 && !bop_tiers_busy(t->tiers) ? idle + 1 : 0;
    }
}

/* Open a log over a directory and an object store of its own. Sealed segments leave tier 0 at once,
 * and with `cold` tier 1 too. */
static void begin(struct fixture *f, struct tiered *t, bool cold)
{
    *t = (struct tiered){.f = f, .memory = object_memory_create(NULL)};
    REQUIRE(t->memory);
    t->executors[0] = t->executors[1] = &f->executor.executor;
    t->options = (struct bop_tiers_options){
        .fs = f->fs,
        .executors = t->executors,
        .executor_count = 2,
        .objects = object_memory_store(t->memory),
        .tier0_bytes = 1,
        .tier1_bytes = cold ? 1 : 0,
        .cache_bytes = 65536,
        .frame_bytes = 4096,
    };
    REQUIRE_EQ(bop_tiers_create(&t->options, &t->tiers, &f->err), 0);
    f->options.tiers = t->tiers;
    f->options.on_room = on_room;
    f->options.on_durable = no_durable;
    f->options.on_failed = no_failure;
    f->options.user = &t->f;
    REQUIRE_EQ(bop_aof_open(&f->options, &f->aof, NULL, &f->err), 0);
}

static void end(struct fixture *f, struct tiered *t)
{
    settle(t);
    bop_aof_close(f->aof);
    f->aof = NULL;
    bop_inline_poll(&f->executor);
    bop_tiers_destroy(t->tiers);
    object_memory_destroy(t->memory);
}

/* Fill it, and let the tiers do their work. */
static void fill(struct fixture *f, struct tiered *t)
{
    struct bop_aof_status status;

    for (unsigned i = 0; i < RECORDS; i += 50) {
        append_texts(f, "record", 50);
        settle(t);
    }
    bop_aof_status(f->aof, &status);
    CHECK_EQ(status.oldest, 1);
    CHECK(status.first > RECORDS / 2);
    CHECK(status.archived > 5);
}

/* What the reader gives next, after waiting for what has to be fetched. */
static int next(struct tiered *t, struct bop_aof_reader *reader, struct bop_aof_view *out_view)
{
    int rc = bop_aof_reader_next(reader, out_view, &t->f->err);

    for (unsigned i = 0; rc == BOP_EHYDRATING && i < 100; i++) {
        settle(t);
        CHECK_EQ(bop_aof_reader_wait(reader, 0), BOP_AOF_EVENT_RECORDS);
        rc = bop_aof_reader_next(reader, out_view, &t->f->err);
    }
    return rc;
}

static void check_view(const struct bop_aof_view *view, uint64_t seq)
{
    char payload[64];

    snprintf(payload, sizeof(payload), "record %llu", (unsigned long long)seq);
    CHECK_EQ(view->seq, seq);
    CHECK_EQ(view->tag, seq);
    CHECK_EQ(view->time_us, seq * 2);
    CHECK_SLICE_EQ(view->payload, bytes(payload));
}

static void read_everything(struct fixture *f, bool cold)
{
    struct bop_aof_reader_options options = {.allocator = &f->heap.allocator};
    struct bop_aof_reader *reader = NULL;
    struct bop_aof_view view = {0};
    struct tiered t;

    begin(f, &t, cold);
    fill(f, &t);
    REQUIRE_EQ(bop_aof_reader_open(f->aof, &options, &reader), 0);
    while (bop_aof_reader_wait(reader, 0) == BOP_AOF_EVENT_SEALED) {
    }
    for (uint64_t seq = 1; seq <= RECORDS; seq++) {
        REQUIRE_EQ(next(&t, reader, &view), 0);
        check_view(&view, seq);
        if (seq == 1) {
            CHECK_EQ(view.tier, cold ? BOP_AOF_COLD : BOP_AOF_WARM);
        }
    }
    CHECK_EQ(view.tier, BOP_AOF_HOT);
    CHECK_EQ(next(&t, reader, &view), BOP_EEND);
    for (uint64_t seq = RECORDS; seq > 40; seq -= 37) {
        REQUIRE_EQ(bop_aof_reader_seek(reader, seq, &f->err), 0);
        REQUIRE_EQ(next(&t, reader, &view), 0);
        check_view(&view, seq);
    }
    bop_aof_reader_close(reader);
    end(f, &t);
}

TEST(reader, reads_packed_segments)
{
    read_everything(f, false);
}

TEST(reader, reads_from_the_object_store)
{
    read_everything(f, true);
}

TEST(reader, seeks_by_time_and_tag_in_lower_tiers)
{
    struct bop_aof_reader_options options = {.allocator = &f->heap.allocator, .blocking = true};
    struct bop_aof_reader *reader = NULL;
    struct bop_aof_view view = {0};
    struct tiered t;

    begin(f, &t, false);
    fill(f, &t);
    REQUIRE_EQ(bop_aof_reader_open(f->aof, &options, &reader), 0);
    for (uint64_t seq = 1; seq <= RECORDS; seq += 41) {
        REQUIRE_EQ(bop_aof_reader_seek_time(reader, seq * 2 - 1, &f->err), 0);
        CHECK_EQ(bop_aof_reader_position(reader), seq);
        REQUIRE_EQ(bop_aof_reader_seek_tag(reader, seq, &f->err), 0);
        REQUIRE_EQ(bop_aof_reader_next(reader, &view, &f->err), 0);
        check_view(&view, seq);
    }
    bop_aof_reader_close(reader);
    end(f, &t);
}

/* A reader goes on when the segment that it is in leaves the directory. */
TEST(reader, follows_segments_down)
{
    struct bop_aof_reader_options options = {.allocator = &f->heap.allocator, .blocking = true};
    struct bop_aof_reader *reader = NULL;
    struct bop_aof_view view = {0};
    struct tiered t;
    uint64_t seq = 1;

    begin(f, &t, false);
    REQUIRE_EQ(bop_aof_reader_open(f->aof, &options, &reader), 0);
    for (unsigned i = 0; i < RECORDS; i += 100) {
        append_texts(f, "record", 100);
        for (unsigned k = 0; k < 30; k++, seq++) { /* It falls behind. */
            REQUIRE_EQ(bop_aof_reader_next(reader, &view, &f->err), 0);
            check_view(&view, seq);
        }
        settle(&t);
    }
    for (; seq <= RECORDS; seq++) {
        REQUIRE_EQ(bop_aof_reader_next(reader, &view, &f->err), 0);
        check_view(&view, seq);
    }
    CHECK_EQ(bop_aof_reader_next(reader, &view, &f->err), BOP_EEND);
    bop_aof_reader_close(reader);
    end(f, &t);
}

/* The owner's reads: from the object store they are refused once, and then there. */
TEST(aof, reads_what_is_only_in_lower_tiers)
{
    struct bop_aof_view views[64];
    unsigned refused = 0;
    uint64_t seq = 1;
    struct tiered t;

    begin(f, &t, true);
    fill(f, &t);
    CHECK_EQ(bop_aof_read(f->aof, 0, 64, SIZE_MAX, &f->buf, views, &f->err), BOP_ENOTFOUND);
    while (seq <= RECORDS) {
        int count = bop_aof_read(f->aof, seq, 64, 500, &f->buf, views, &f->err);

        if (count == BOP_EHYDRATING) {
            refused++;
            REQUIRE(refused < RECORDS);
            settle(&t);
            continue;
        }
        REQUIRE(count > 0);
        for (int i = 0; i < count; i++, seq++) {
            check_view(&views[i], seq);
        }
    }
    CHECK(refused > 0);
    CHECK_EQ(t.room, refused);
    end(f, &t);
}

TEST(proof, is_made_and_receipts_are_verified_in_lower_tiers)
{
    struct bop_aof_receipt receipt;
    struct bop_aof_verified verified;
    struct bop_aof_proof proof;
    struct bop_aof_record record = {.tag = 1, .time_us = 2, .head = bytes("record 1")};
    struct bop_aof_append append = {.records = &record, .count = 1, .level = BOP_AOF_TIER2};
    struct tiered t;

    begin(f, &t, true);
    REQUIRE_EQ(bop_aof_append_with(f->aof, &append, &receipt), 0);
    bop_inline_poll(&f->executor);
    REQUIRE_EQ(bop_aof_verify(f->aof, &receipt, &verified, &f->err), 0);
    CHECK_EQ(verified.verdict, BOP_AOF_VERDICT_PENDING);
    append_texts(f, "record", 49);
    fill(f, &t);
    REQUIRE_EQ(bop_aof_verify(f->aof, &receipt, &verified, &f->err), 0);
    CHECK_EQ(verified.verdict, BOP_AOF_VERDICT_KEPT);
    CHECK_EQ(verified.tier, BOP_AOF_COLD);
    CHECK_EQ(verified.offset, receipt.offset);
    REQUIRE_EQ(bop_aof_prove(f->aof, 20, &proof, &f->buf, &f->err), 0);
    CHECK(proof.first_seq <= 20 && proof.last_seq >= 20);
    CHECK_EQ(bop_aof_proof_check(&proof, bop_buf_slice(&f->buf), proof.root), 0);
    end(f, &t);
}
