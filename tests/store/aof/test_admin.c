/*
 * Tools that look after a log: good logs are good and not touched; of damaged ones every
 * problem is told, nothing good is lost, and repairing ends with a log that opens, wherever it
 * is cut short.
 */
#include <stdio.h>
#include <stdlib.h>

#include <bop/aof_admin.h>
#include <bop/sim.h>

#include "object_store_memory.h"
#include "store/aof/footer.h"
#include "store/aof/format.h"
#include "store/aof/manifest.h"
#include "store/aof/warm.h"
#include "tap.h"

#define LOG_PATH "/log"
#define RECORDS  130

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_sim *sim;
    struct bop_fs *fs;
    struct bop_inline_executor executor;
    struct bop_aof_admin_options log;
    struct bop_error err;

    /* What a check told. */
    uint64_t seen[2 * RECORDS]; /* How often each record was given. */
    uint64_t last_seen;
    unsigned problems;
    uint64_t told_lost;
    unsigned repairs;
    uint8_t log_id[BOP_AOF_ID_SIZE];
};

static void setup(struct fixture *f)
{
    struct bop_fs_sim_options options = {.seed = 5};

    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop_fs_sim_create(&options, &f->sim), 0);
    f->fs = bop_fs_sim_fs(f->sim);
    bop_inline_init(&f->executor);
    f->log = (struct bop_aof_admin_options){
        .allocator = &f->heap.allocator, .fs = f->fs, .path = LOG_PATH};
}

static void teardown(struct fixture *f)
{
    CHECK_EQ(f->heap.live, 0);
    bop_fs_sim_destroy(f->sim);
}

FIXTURE(setup, teardown)

/* ---- Logs ---- */

static size_t payload_of(uint64_t seq, char out_text[256])
{
    int size = snprintf(out_text, 256, "record %llu %.*s", (unsigned long long)seq,
                        (int)(seq * 7 % 150),
                        "................................................................"
                        "........................................................................"
                        "...............");

    return (size_t)size;
}

static int open_log(struct fixture *f, struct bop_aof **out_aof)
{
    struct bop_aof_options options = {.allocator = f->log.allocator,
                                      .fs = f->fs,
                                      .executor = &f->executor.executor,
                                      .path = LOG_PATH,
                                      .segment_bytes = 8192};

    return bop_aof_open(&options, out_aof, NULL, &f->err);
}

static void close_log(struct fixture *f, struct bop_aof *aof)
{
    bop_inline_poll(&f->executor);
    bop_aof_close(aof);
}

static void append(struct fixture *f, struct bop_aof *aof, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t seq = bop_aof_last(aof) + 1;
        char text[256];
        size_t size = payload_of(seq, text);
        struct bop_aof_record record = {
            .tag = seq, .time_us = seq * 2, .body = bop_slice(text, size)};

        REQUIRE_EQ(bop_aof_append(aof, &record, 1), 0);
        if (i % 3 == 0) {
            bop_inline_poll(&f->executor);
        }
    }
    bop_inline_poll(&f->executor);
}

static void make_log(struct fixture *f)
{
    struct bop_aof *aof;

    REQUIRE_EQ(open_log(f, &aof), 0);
    append(f, aof, RECORDS);
    close_log(f, aof);
}

/* A new disk with the same log. */
static void make_anew(struct fixture *f)
{
    struct bop_fs_sim_options options = {.seed = 5};

    bop_fs_sim_destroy(f->sim);
    REQUIRE_EQ(bop_fs_sim_create(&options, &f->sim), 0);
    f->fs = bop_fs_sim_fs(f->sim);
    f->log.fs = f->fs;
    make_log(f);
}

/* ---- Looking ---- */

static int on_record(void *user, const struct bop_aof_view *view, const struct bop_aof_place *place)
{
    struct fixture *f = user;
    char text[256];
    size_t size = payload_of(view->seq, text);

    CHECK(view->seq > f->last_seen);
    REQUIRE(view->seq < BOP_COUNT_OF(f->seen));
    CHECK_SLICE_EQ(view->payload, bop_slice(text, size));
    CHECK_EQ(view->tag, view->seq);
    CHECK_EQ(view->time_us, view->seq * 2);
    CHECK(place->generation > 0);
    f->last_seen = view->seq;
    f->seen[view->seq]++;
    return 0;
}

static void on_problem(void *user, const struct bop_aof_problem *problem)
{
    struct fixture *f = user;

    f->problems++;
    CHECK(problem->text[0] != '\0');
    CHECK(problem->file[0] != '\0');
    CHECK(problem->code < 0);
    CHECK(bop_aof_problem_word(problem->kind)[0] != '\0');
    if (!problem->elsewhere && problem->last_seq >= problem->first_seq) {
        f->told_lost += problem->last_seq - problem->first_seq + 1;
    }
}

static void on_repair(void *user, const struct bop_aof_repair *repair)
{
    struct fixture *f = user;

    CHECK(repair->text[0] != '\0');
    f->repairs++;
}

static int check(struct fixture *f, struct bop_aof_report *out_report)
{
    struct bop_aof_check_options options = {
        .log = f->log, .packed = true, .on_record = on_record, .on_problem = on_problem, .user = f};

    f->last_seen = 0;
    f->problems = 0;
    f->told_lost = 0;
    memset(f->seen, 0, sizeof(f->seen));
    f->err = (struct bop_error){0};
    *out_report = (struct bop_aof_report){0};
    return bop_aof_check(&options, out_report, &f->err);
}

static int repair(struct fixture *f, struct bop_aof_repair_report *out_report)
{
    struct bop_aof_repair_options options = {.log = f->log, .on_repair = on_repair, .user = f};

    f->repairs = 0;
    f->err = (struct bop_error){0};
    return bop_aof_repair(&options, out_report, &f->err);
}

static void check_good(struct fixture *f, uint64_t last)
{
    struct bop_aof_report report;
    int rc = check(f, &report);

    CHECK_EQ(rc, 0);
    CHECK_EQ(report.problems, 0);
    CHECK_EQ(report.records, last);
    CHECK_EQ(report.last, last);
    CHECK_EQ(f->last_seen, last);
}

/* The log itself finds records 1 to last, and goes on. */
static void check_opens(struct fixture *f, uint64_t last)
{
    struct bop_aof *aof;

    REQUIRE_EQ(open_log(f, &aof), 0);
    CHECK_EQ(bop_aof_first(aof), 1);
    CHECK_EQ(bop_aof_last(aof), last);
    append(f, aof, 3);
    close_log(f, aof);
    check_good(f, last + 3);
}

/* Files of the log, by name. */
struct names {
    char name[16][64];
    unsigned count;
};

static int add_name(void *user, const char *name)
{
    struct names *names = user;
    size_t size = strlen(name);

    if (size > 4 && strcmp(name + size - 4, ".seg") == 0) {
        REQUIRE(names->count < BOP_COUNT_OF(names->name));
        snprintf(names->name[names->count++], sizeof(names->name[0]), "%s", name);
    }
    return 0;
}

static void list_segments(struct fixture *f, struct names *out_names)
{
    *out_names = (struct names){0};
    REQUIRE_EQ(f->fs->list(f->fs, LOG_PATH, add_name, out_names), 0);
}

static void path_of(const struct names *names, unsigned i, char out_path[128])
{
    snprintf(out_path, 128, LOG_PATH "/%s", names->name[i]);
}

static uint64_t size_of(struct fixture *f, const char *path)
{
    int fd = f->fs->open(f->fs, path, O_RDONLY);
    uint64_t size;

    REQUIRE(fd >= 0);
    REQUIRE_EQ(f->fs->size(f->fs, fd, &size), 0);
    f->fs->close(f->fs, fd);
    return size;
}

static void truncate_file(struct fixture *f, const char *path, uint64_t size)
{
    int fd = f->fs->open(f->fs, path, O_RDWR);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(f->fs->truncate(f->fs, fd, size), 0);
    REQUIRE_EQ(f->fs->sync(f->fs, fd), 0);
    f->fs->close(f->fs, fd);
}

/* ---- Good logs ---- */

static int take_info(void *user, const struct bop_aof_segment_info *info)
{
    uint64_t *next = user;

    CHECK_EQ(info->base, *next);
    CHECK(info->local);
    CHECK(!info->left);
    CHECK_EQ(info->code, 0);
    CHECK_EQ(info->residency, BOP_TIERS_TIER0);
    CHECK(info->end_seq > info->base);
    *next = info->end_seq;
    return info->generation == 99 ? 1 : 0;
}

TEST(admin, says_what_there_is_and_changes_nothing)
{
    struct bop_aof_info info = {0};
    struct bop_aof_repair_report repaired;
    uint64_t next = 1, digest;
    struct names names;

    make_log(f);
    digest = bop_fs_sim_digest(f->sim);
    list_segments(f, &names);
    REQUIRE_EQ(bop_aof_inspect(&f->log, take_info, &next, &info, &f->err), 0);
    CHECK_EQ(next, RECORDS + 1);
    CHECK_EQ(info.first, 1);
    CHECK_EQ(info.oldest, 1);
    CHECK_EQ(info.last, RECORDS);
    CHECK_EQ(info.segments, names.count);
    CHECK_EQ(info.problems, 0);
    CHECK(names.count > 3);
    CHECK(bop_aof_is_log(&f->log));
    check_good(f, RECORDS);
    CHECK_EQ(repair(f, &repaired), 0);
    CHECK_EQ(repaired.repairs, 0);
    CHECK_EQ(repaired.lost_last + 1, repaired.lost_first);
    CHECK_EQ(bop_fs_sim_digest(f->sim), digest);
}

TEST(admin, knows_what_is_no_log)
{
    struct bop_aof_admin_options strange = {
        .allocator = &f->heap.allocator, .fs = f->fs, .path = "/nothing"};
    struct bop_aof_repair_options options = {.log = strange};
    struct bop_aof_repair_report report;
    struct bop_aof_info info;

    CHECK_EQ(bop_aof_inspect(&strange, NULL, NULL, &info, &f->err), BOP_ENOTFOUND);
    CHECK(!bop_aof_is_log(&strange));
    CHECK_EQ(bop_aof_repair(&options, &report, &f->err), BOP_ENOTFOUND);
    REQUIRE_EQ(f->fs->mkdir(f->fs, "/nothing"), 0);
    CHECK_EQ(bop_aof_inspect(&strange, NULL, NULL, &info, &f->err), BOP_ENOTFOUND);
    CHECK_EQ(bop_aof_repair(&options, &report, &f->err), BOP_ENOTFOUND);
}

TEST(admin, leaves_a_log_in_use_alone)
{
    struct bop_aof_repair_report report;
    struct bop_aof *aof;
    uint64_t digest;

    make_log(f);
    REQUIRE_EQ(open_log(f, &aof), 0);
    append(f, aof, 2);
    digest = bop_fs_sim_digest(f->sim);
    check_good(f, RECORDS + 2);
    CHECK_EQ(repair(f, &report), BOP_ELOCKED);
    CHECK_EQ(bop_fs_sim_digest(f->sim), digest);
    close_log(f, aof);
}

/* ---- Damage ---- */

/* What is given is right and what is not given was told to be lost; repairing keeps all that lies
 * before the first lost one. */
static void survive(struct fixture *f)
{
    struct bop_aof_repair_report repaired = {0};
    struct bop_aof_report report;
    uint64_t first_lost = 1;
    int rc = check(f, &report);

    CHECK(rc == 0 || rc == BOP_ECORRUPT || rc == BOP_EVERSION);
    CHECK_EQ(report.problems, f->problems);
    CHECK_EQ(report.lost, f->told_lost);
    CHECK(report.problems == 0 || f->err.message[0] != '\0');
    while (first_lost <= RECORDS && f->seen[first_lost] == 1) {
        first_lost++;
    }
    rc = repair(f, &repaired);
    if (rc == BOP_EVERSION) {
        return;
    }
    CHECK_EQ(rc, 0);
    CHECK_EQ(f->repairs, repaired.repairs);
    CHECK_EQ(repaired.last, first_lost - 1);
    if (rc == 0 && report.problems > 0 && repaired.lost_last >= repaired.lost_first) {
        CHECK_EQ(repaired.lost_first, first_lost);
    }
    check_good(f, first_lost - 1);
    check_opens(f, first_lost - 1);
}

TEST(admin, survives_every_flipped_bit)
{
    struct names names;
    char path[128];

    make_log(f);
    list_segments(f, &names);
    for (unsigned i = 0; i < names.count; i++) {
        uint64_t bits;

        make_anew(f);
        path_of(&names, i, path);
        bits = size_of(f, path) * 8;
        for (uint64_t bit = i * 13; bit < bits; bit += bit < 120 * 8 ? 5 : 797) {
            make_anew(f);
            REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, path, bit), 0);
            survive(f);
        }
    }
}

TEST(admin, survives_every_truncation)
{
    struct names names;
    char path[128];

    make_log(f);
    list_segments(f, &names);
    for (unsigned i = 0; i < names.count; i++) {
        uint64_t size;

        make_anew(f);
        path_of(&names, i, path);
        size = size_of(f, path);
        for (uint64_t cut = 0; cut < size; cut += 97) {
            make_anew(f);
            truncate_file(f, path, cut);
            survive(f);
        }
    }
}

TEST(admin, tells_which_segment_is_missing)
{
    struct names names;

    make_log(f);
    list_segments(f, &names);
    for (unsigned i = 0; i + 1 < names.count; i++) {
        struct bop_aof_report report;
        uint64_t base, next, generation;
        char path[128];
        int rc;

        make_anew(f);
        path_of(&names, i, path);
        REQUIRE(bop__aof_segment_name_parse(names.name[i], &base, &generation));
        REQUIRE(bop__aof_segment_name_parse(names.name[i + 1], &next, &generation));
        REQUIRE_EQ(f->fs->unlink(f->fs, path), 0);
        rc = check(f, &report);
        CHECK_EQ(rc, BOP_ECORRUPT);
        CHECK_EQ(report.problems, 1);
        CHECK_EQ(report.lost_first, base);
        CHECK_EQ(report.lost_last, next - 1);
        CHECK_EQ(report.records, RECORDS - (next - base));
        survive(f);
    }
}

/* ---- Other tiers ---- */

/* Seal and pack every segment but the newest, and tell a manifest. */
static void archive_all(struct fixture *f, struct bop_object_store *objects)
{
    struct bop__manifest_options options = {
        .allocator = &f->heap.allocator, .fs = f->fs, .path = LOG_PATH "/manifest"};
    struct bop__manifest *manifest = NULL;
    struct bop_aof_info info;
    struct names names;

    REQUIRE_EQ(bop_aof_inspect(&f->log, NULL, NULL, &info, &f->err), 0);
    memcpy(options.log_id, info.log_id, sizeof(options.log_id));
    REQUIRE_EQ(bop__manifest_open(&options, &manifest, &f->err), 0);
    REQUIRE_EQ(f->fs->mkdir(f->fs, LOG_PATH "/warm"), 0);
    list_segments(f, &names);
    for (unsigned i = 0; i + 1 < names.count; i++) {
        struct bop__warm_pack_options pack = {.allocator = &f->heap.allocator,
                                              .fs = f->fs,
                                              .level = 1,
                                              .frame_bytes = BOP__WARM_FRAME_MAX};
        struct bop__aof_segment_header header;
        uint8_t block[BOP__AOF_SEGMENT_HEADER];
        struct bop__segment_source *source;
        struct bop__warm_facts facts;
        struct bop__footer footer = {0};
        struct bop_aof_check_options one = {.log = f->log};
        struct bop_aof_report report;
        uint64_t next, generation;
        char path[128], packed[128], key[64];
        int fd;

        path_of(&names, i, path);
        fd = f->fs->open(f->fs, path, O_RDONLY);
        REQUIRE(fd >= 0);
        REQUIRE_EQ(bop_fs_read_exact(f->fs, fd, block, sizeof(block), 0), 0);
        f->fs->close(f->fs, fd);
        REQUIRE_EQ(bop__aof_segment_header_decode(block, path, &header, &f->err), 0);
        REQUIRE(bop__aof_segment_name_parse(names.name[i + 1], &next, &generation));
        one.generation = header.generation;
        REQUIRE_EQ(bop_aof_check(&one, &report, &f->err), 0);
        footer.facts = (struct bop__segment_facts){.base = header.base,
                                                   .end_seq = next,
                                                   .generation = header.generation,
                                                   .epoch = header.epoch,
                                                   .seed = header.seed,
                                                   .end = BOP__AOF_SEGMENT_HEADER + report.bytes -
                                                          BOP__AOF_SEGMENT_HEADER};
        memcpy(footer.facts.log_id, header.log_id, sizeof(header.log_id));
        REQUIRE_EQ(
            bop__file_source_open(&f->heap.allocator, f->fs, path, true, true, &source, &f->err),
            0);
        REQUIRE_EQ(bop__footer_build(&f->heap.allocator, source, &footer, &f->err), 0);
        source->close(source);
        REQUIRE_EQ(bop__footer_seal(f->fs, path, &footer, &f->err), 0);
        bop__footer_deinit(&footer);

        snprintf(packed, sizeof(packed), LOG_PATH "/warm/segment-%020llu-%020llu.zst",
                 (unsigned long long)header.generation, (unsigned long long)header.base);
        REQUIRE_EQ(
            bop__file_source_open(&f->heap.allocator, f->fs, path, true, true, &source, &f->err),
            0);
        REQUIRE_EQ(bop__warm_pack(&pack, source, packed, &facts, &f->err), 0);
        source->close(source);

        snprintf(key, sizeof(key), "aof/segment-%llu", (unsigned long long)header.generation);
        REQUIRE_EQ(bop__manifest_append(manifest,
                                        (struct bop__manifest_record[]){
                                            {.kind = BOP__MANIFEST_SEAL_SEGMENT,
                                             .generation = header.generation,
                                             .facts = facts.segment},
                                            {.kind = BOP__MANIFEST_COMPRESSION_STARTED,
                                             .generation = header.generation},
                                        },
                                        2, &f->err),
                   0);
        {
            struct bop__manifest_record done = {.kind = BOP__MANIFEST_COMPRESSION_DONE,
                                                .generation = header.generation,
                                                .packed_bytes = facts.packed_size};

            memcpy(done.sha256, facts.sha256, sizeof(done.sha256));
            REQUIRE_EQ(bop__manifest_append(manifest, &done, 1, &f->err), 0);
        }
        if (objects) {
            struct bop__manifest_record begun = {
                .kind = BOP__MANIFEST_UPLOAD_STARTED, .generation = header.generation, .key = key};
            struct bop__manifest_record done = {
                .kind = BOP__MANIFEST_UPLOAD_DONE, .generation = header.generation, .key = key};
            struct bop_object_put put = {.key = key};
            struct bop_buf bytes;

            bop_buf_init(&bytes, &f->heap.allocator, 0);
            REQUIRE_EQ(bop_fs_read_file(f->fs, packed, 1u << 20, &bytes), 0);
            put.source = (struct bop_object_source){.size = bytes.size, .bytes = bytes.data};
            memcpy(put.sha256, facts.sha256, sizeof(put.sha256));
            memcpy(done.sha256, facts.sha256, sizeof(done.sha256));
            REQUIRE_EQ(objects->put(objects, &put, NULL, &f->err), 0);
            bop_buf_deinit(&bytes);
            REQUIRE_EQ(bop__manifest_append(manifest, &begun, 1, &f->err), 0);
            REQUIRE_EQ(bop__manifest_append(manifest, &done, 1, &f->err), 0);
        }
    }
    bop__manifest_close(manifest);
}

static unsigned count_warm(struct fixture *f)
{
    struct bop_aof_report report;

    REQUIRE_EQ(check(f, &report), 0);
    return report.packed;
}

TEST(admin, gets_a_segment_back_from_its_packed_file)
{
    struct names names;
    char path[128];

    make_log(f);
    list_segments(f, &names);
    for (unsigned i = 0; i + 1 < names.count; i++) {
        for (uint64_t at = 10; at < 7000; at += 651) {
            struct bop_aof_repair_report repaired = {0};
            struct bop_aof_report report;
            uint64_t size;
            int rc;

            make_anew(f);
            archive_all(f, NULL);
            CHECK_EQ(count_warm(f), names.count - 1);
            path_of(&names, i, path);
            size = size_of(f, path);
            truncate_file(f, path, at < size ? at : size - 1);
            rc = check(f, &report);
            CHECK_EQ(rc, BOP_ECORRUPT);
            CHECK_EQ(report.lost, 0);
            CHECK_EQ(report.records, RECORDS);
            CHECK_EQ(repair(f, &repaired), 0);
            CHECK(repaired.repairs > 0);
            CHECK_EQ(repaired.last, RECORDS);
            check_good(f, RECORDS);
            CHECK_EQ(size_of(f, path), size);
        }
    }
}

TEST(admin, notices_every_flipped_bit_of_footers_and_packed_files)
{
    struct bop_aof_report report;
    struct bop_aof_info info;
    struct names names;
    char path[128];
    uint64_t end = 0, bits;

    make_log(f);
    archive_all(f, NULL);
    list_segments(f, &names);
    REQUIRE_EQ(bop_aof_inspect(&f->log, NULL, NULL, &info, &f->err), 0);
    CHECK(info.has_manifest);
    CHECK_EQ(info.manifest_code, 0);
    path_of(&names, 1, path);
    bits = size_of(f, path) * 8;
    for (uint64_t bit = bits - (BOP__FOOTER_TRAILER + BOP__FOOTER_LEAF) * 8; bit < bits;
         bit += 11) {
        struct bop_aof_repair_report repaired;
        int rc;

        make_anew(f);
        archive_all(f, NULL);
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, path, bit), 0);
        rc = check(f, &report);
        CHECK_EQ(rc, BOP_ECORRUPT);
        CHECK_EQ(report.problems, 1);
        CHECK_EQ(report.records, RECORDS);
        CHECK_EQ(repair(f, &repaired), 0);
        CHECK_EQ(repaired.last, RECORDS);
        check_good(f, RECORDS);
        end++;
    }
    CHECK(end > 100);
}

TEST(admin, reads_what_only_lower_tiers_have)
{
    struct object_memory *memory = object_memory_create(NULL);
    struct bop_object_store *objects = object_memory_store(memory);
    struct bop_aof_check_options options = {.log = f->log,
                                            .packed = true,
                                            .objects = objects,
                                            .on_record = on_record,
                                            .on_problem = on_problem,
                                            .user = f};
    struct bop_aof_manifest_options manifest = {.log = f->log};
    struct bop_aof_manifest_report listed;
    struct bop_aof_report report;
    struct bop_aof_info info;
    struct names names;
    char path[128];

    make_log(f);
    archive_all(f, objects);
    list_segments(f, &names);
    REQUIRE_EQ(bop_aof_check(&options, &report, &f->err), 0);
    CHECK_EQ(report.objects, names.count - 1);
    CHECK_EQ(bop_aof_manifest_check(&manifest, &listed, &f->err), 0);
    CHECK_EQ(listed.segments, names.count - 1);
    CHECK_EQ(listed.in_tier2, names.count - 1);

    /* Without the first file as written, and without the second in any local form. */
    path_of(&names, 0, path);
    REQUIRE_EQ(f->fs->unlink(f->fs, path), 0);
    path_of(&names, 1, path);
    REQUIRE_EQ(f->fs->unlink(f->fs, path), 0);
    REQUIRE_EQ(bop_aof_inspect(&f->log, NULL, NULL, &info, &f->err), 0);
    CHECK_EQ(info.archived, 2);
    CHECK_EQ(info.oldest, 1);
    f->last_seen = 0;
    memset(f->seen, 0, sizeof(f->seen));
    REQUIRE_EQ(bop_aof_check(&options, &report, &f->err), 0);
    CHECK_EQ(report.records, RECORDS);
    object_memory_destroy(memory);
}

/* ---- Faults ---- */

struct sweep {
    struct bop_fs_faulty faulty;
    struct bop_fs *under;
};

/* Use a faulty file system from here on. */
static void make_faulty(struct fixture *f, struct sweep *s)
{
    s->under = f->fs;
    bop_fs_faulty_init(&s->faulty, f->fs, &f->faults);
    f->log.fs = &s->faulty.fs;
}

static void make_sound(struct fixture *f, struct sweep *s)
{
    CHECK_EQ(s->faulty.open_files, 0);
    f->log.fs = s->under;
    f->faults.fail_at = 0;
}

TEST(admin, looking_survives_every_fault)
{
    struct sweep s;

    make_log(f);
    archive_all(f, NULL);
    make_faulty(f, &s);
    FAULT_SWEEP(&f->faults) {
        struct bop_aof_report report;
        struct bop_aof_info info;
        uint64_t next = 1;
        int rc = bop_aof_inspect(&f->log, NULL, &next, &info, &f->err);

        CHECK(rc == 0 || f->faults.fired != 0);
        if (f->faults.fired == 0) {
            rc = check(f, &report);
            CHECK(rc == 0 || f->faults.fired != 0);
            CHECK(rc == 0 || f->err.message[0] != '\0');
            CHECK(rc != 0 || report.records == RECORDS);
        }
        CHECK_EQ(s.faulty.open_files, 0);
        CHECK_EQ(f->heap.live, 0);
    }
    make_sound(f, &s);
}

/* A log that needs most kinds of repair. */
static void break_log(struct fixture *f)
{
    struct names names;
    char path[128];

    make_anew(f);
    list_segments(f, &names);
    path_of(&names, 1, path);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, path, 100), 0);
    path_of(&names, 3, path);
    truncate_file(f, path, 5000);
}

static uint64_t kept_of_broken(struct fixture *f)
{
    struct bop_aof_report report;

    REQUIRE_EQ(check(f, &report), BOP_ECORRUPT);
    CHECK_EQ(report.problems, 2);
    return report.lost_first - 1;
}

TEST(admin, repairing_survives_every_fault)
{
    uint64_t kept;

    break_log(f);
    kept = kept_of_broken(f);
    FAULT_SWEEP(&f->faults) {
        struct bop_aof_repair_report repaired = {0};
        struct bop_faults saved = f->faults;
        struct sweep s;
        int rc;

        f->faults = (struct bop_faults){0};
        break_log(f);
        f->faults = saved;
        make_faulty(f, &s);
        rc = repair(f, &repaired);
        saved = f->faults;
        CHECK(rc == 0 || saved.fired != 0);
        CHECK(rc == 0 || f->err.message[0] != '\0');
        CHECK_EQ(f->heap.live, 0);
        make_sound(f, &s);
        if (rc != 0) {
            REQUIRE_EQ(repair(f, &repaired), 0);
        }
        check_good(f, kept);
        check_opens(f, kept);
        f->faults = saved;
    }
}

TEST(admin, repairing_may_be_cut_at_each_operation)
{
    uint64_t kept;

    break_log(f);
    kept = kept_of_broken(f);
    for (uint64_t stop = 1;; stop++) {
        struct bop_aof_repair_report repaired = {0};
        int rc;

        break_log(f);
        bop_fs_sim_stop_after(f->sim, stop);
        rc = repair(f, &repaired);
        bop_fs_sim_stop_after(f->sim, 0);
        bop_fs_sim_lose_power(f->sim);
        if (rc == 0) {
            CHECK(stop > 20);
            break;
        }
        REQUIRE_EQ(repair(f, &repaired), 0);
        check_good(f, kept);
        check_opens(f, kept);
    }
}
