/*
 * Reading every record of a log and telling what is wrong.
 *
 * Damage is told as the range of records it costs: from the first that is not good to
 * the next good header behind it. What another copy has of that range is given from
 * there, and counts as not lost.
 */
#include "admin.h"

#include <time.h>

#include "look.h"

#define US_PER_S UINT64_C(1000000)

/* ---- Telling ---- */

const char *bop_aof_problem_word(enum bop_aof_problem_kind kind)
{
    static const char *const words[] = {
        [BOP_AOF_PROBLEM_HEADER] = "header",   [BOP_AOF_PROBLEM_MISSING] = "missing",
        [BOP_AOF_PROBLEM_RECORDS] = "records", [BOP_AOF_PROBLEM_FOOTER] = "footer",
        [BOP_AOF_PROBLEM_ORDER] = "order",     [BOP_AOF_PROBLEM_PACKED] = "packed",
        [BOP_AOF_PROBLEM_OBJECT] = "object",   [BOP_AOF_PROBLEM_MANIFEST] = "manifest",
        [BOP_AOF_PROBLEM_READ] = "read",
    };

    return (size_t)kind < BOP_COUNT_OF(words) ? words[kind] : "";
}

static void count_lost(struct bop_aof_report *report, const struct bop__admin_finding *finding)
{
    if (finding->elsewhere || finding->last_seq < finding->first_seq) {
        return;
    }
    if (report->lost == 0) {
        report->lost_first = finding->first_seq;
    }
    report->lost += finding->last_seq - finding->first_seq + 1;
    report->lost_last = bop_max_u64(report->lost_last, finding->last_seq);
}

int bop__admin_found(struct bop__admin_check *check, const struct bop__admin_finding *finding,
                     const char *file, uint64_t bytes, const char *text)
{
    struct bop_aof_problem problem = {.kind = finding->kind,
                                      .file = file,
                                      .offset = finding->offset,
                                      .bytes = bytes,
                                      .first_seq = finding->first_seq,
                                      .last_seq = finding->last_seq,
                                      .elsewhere = finding->elsewhere,
                                      .code = finding->code,
                                      .text = text};

    if (check->report.problems++ == 0) {
        bop_error_say(&check->first, finding->code, "%s", text);
    }
    count_lost(&check->report, finding);
    if (check->options.on_problem) {
        check->options.on_problem(check->options.user, &problem);
    }
    return check->on_finding ? check->on_finding(check->user, finding) : 0;
}

static void sleep_us(uint64_t us)
{
    struct timespec time = {.tv_sec = (time_t)(us / US_PER_S),
                            .tv_nsec = (long)(us % US_PER_S * 1000)};

    while (nanosleep(&time, &time) < 0 && errno == EINTR) {
    }
}

void bop__admin_pace(struct bop__admin_check *check, uint64_t bytes)
{
    uint64_t rate = check->options.bytes_per_s;

    check->report.bytes += bytes;
    if (rate > 0) {
        uint64_t due_us = (uint64_t)((double)check->report.bytes / (double)rate * US_PER_S);
        uint64_t us = bop_clock_monotonic_us(check->admin->clock) - check->began_us;

        if (due_us > us + 1000) {
            sleep_us(due_us - us);
        }
    }
    if (check->options.on_progress && check->report.bytes - check->told_bytes >= (1u << 20)) {
        check->told_bytes = check->report.bytes;
        check->options.on_progress(check->options.user, check->report.bytes, check->bytes_total);
    }
}

int bop__admin_give(struct bop__admin_check *check, const struct bop__aof_record_header *header,
                    struct bop_slice bytes, uint64_t offset,
                    const struct bop__admin_segment *segment, const char *file,
                    enum bop_aof_tier tier)
{
    const struct bop_aof_check_options *options = &check->options;
    struct bop_aof_view view = {
        .seq = header->seq,
        .tag = header->tag,
        .time_us = header->time_us,
        .tier = tier,
        .payload = bop_slice(bytes.data + BOP__AOF_RECORD_HEADER, bop__aof_record_length(header))};
    struct bop_aof_place place = {.file = file,
                                  .generation = segment->generation,
                                  .offset = offset,
                                  .durable_seq = header->durable_seq};

    if (header->seq < options->first_seq ||
        (options->last_seq > 0 && header->seq > options->last_seq)) {
        return 0;
    }
    check->report.records++;
    return options->on_record ? options->on_record(options->user, &view, &place) : 0;
}

/* True if the file ends there, or has only zeros. */
static bool is_blank(struct bop_slice bytes)
{
    for (size_t i = 0; i < bytes.size; i++) {
        if (bytes.data[i] != 0) {
            return false;
        }
    }
    return true;
}

/* ---- One segment ---- */

struct reading {
    struct bop__admin_check *check;
    struct bop__admin_segment *segment;
    struct bop__segment_source *source;
    struct bop__look look;
    char path[BOP__ADMIN_PATH_MAX];
    uint64_t paced; /* Bytes below are counted. */
    bool torn;      /* What comes is not of the log. */
    bool damaged;   /* Records are bad, and so are their digests. */
};

/* Range of records that this segment should have and that are bad in it: try the other copies. */
static int lose(struct reading *reading, struct bop__admin_finding *finding,
                const struct bop__look *before, uint64_t bytes, const char *text)
{
    char why[BOP__ADMIN_PATH_MAX + 256];
    int rc = 0;

    reading->damaged = true;
    finding->segment = reading->segment;
    finding->link = before->link;
    finding->link_known = before->link_known;
    finding->code = finding->code ? finding->code : BOP_ECORRUPT;
    if (finding->last_seq >= finding->first_seq) {
        rc = bop__admin_copy_give(reading->check, reading->segment, finding->first_seq,
                                  finding->last_seq, &finding->elsewhere);
        snprintf(why, sizeof(why), "%s: record %" PRIu64 " at offset %" PRIu64 ": %s",
                 reading->path, finding->first_seq, finding->offset, text);
    } else {
        snprintf(why, sizeof(why), "%s: at offset %" PRIu64 ": %s", reading->path, finding->offset,
                 text);
    }
    return rc != 0 ? rc : bop__admin_found(reading->check, finding, reading->path, bytes, why);
}

/* The newest segment has no good entry at this place. Sets torn if the log ends here. */
static int judge_end(struct reading *reading, const struct bop__aof_record_header *header,
                     enum bop__look_verdict verdict, const char **out_why)
{
    struct bop__admin_check *check = reading->check;
    uint64_t torn_end = 0;
    bool vouched = false;
    int rc = bop__look_judge(&reading->look, header, verdict, out_why, &torn_end, &vouched,
                             check->err);

    if (rc < 0) {
        return rc;
    }
    if (torn_end > 0 && !vouched && bop__admin_in_use(check->admin)) {
        check->report.in_use = true; /* On its way to the disk. */
        *out_why = NULL;
        torn_end = 0;
    }
    reading->torn = !*out_why;
    if (reading->torn && torn_end > reading->look.offset) {
        check->report.torn_bytes = torn_end - reading->look.offset;
        check->report.torn_from_seq = reading->look.seq;
    }
    return 0;
}

/* True if nothing was ever written at the place: the segment ends, and what should follow is in
 * no file. */
static bool ends_here(const struct reading *reading, struct bop_slice bytes)
{
    const struct bop__admin_segment *segment = reading->segment;

    return is_blank(bytes) ||
           (segment->footer_code == 0 && segment->facts.end == reading->look.offset);
}

/* Tell of a bad place, and go on behind it. */
static int bad_place(struct reading *reading, const struct bop__aof_record_header *header,
                     struct bop_slice bytes, enum bop__look_verdict verdict)
{
    struct bop__admin_segment *segment = reading->segment;
    struct bop__look before = reading->look;
    struct bop__admin_finding finding = {
        .kind = BOP_AOF_PROBLEM_RECORDS, .offset = before.offset, .first_seq = before.seq};
    const char *why = "a later segment says that it was on disk";
    bool blank = ends_here(reading, bytes);
    char text[128];
    bool found;
    int rc = 0;

    if (segment->newest) {
        rc = judge_end(reading, header, verdict, &why);
        if (rc < 0 || reading->torn) {
            return rc;
        }
    }
    rc = bop__look_resume(&reading->look, header, verdict, &found, reading->check->err);
    if (rc < 0) {
        return rc;
    }
    if (!found && blank && !segment->newest) {
        reading->torn = true; /* The next segment will show what is missing. */
        return 0;
    }
    if (found && reading->look.seq <= segment->limit) {
        finding.last_seq = reading->look.seq - 1;
    } else {
        reading->torn = true;
        finding.last_seq = segment->newest ? before.seq : segment->limit - 1;
        reading->look.seq = finding.last_seq + 1;
        reading->look.link_known = false;
    }
    snprintf(text, sizeof(text), "%s: %s", bop__look_text(verdict), why);
    return lose(reading, &finding, &before, found ? reading->look.offset - before.offset : 0, text);
}

/* All records up to where they are bad and cannot be gone on from, or the limit. */
static int read_records(struct reading *reading)
{
    struct bop__admin_check *check = reading->check;
    struct bop__look *look = &reading->look;

    while (!reading->torn && look->seq < reading->segment->limit) {
        struct bop__aof_record_header header;
        struct bop_slice bytes;
        enum bop__look_verdict verdict;
        int rc = bop__look_entry(look, &header, &bytes, &verdict, check->err);

        if (rc < 0) {
            return rc;
        }
        if (verdict != BOP__LOOK_GOOD) {
            rc = bad_place(reading, &header, bytes, verdict);
        } else {
            uint64_t offset = look->offset;

            if (!bop__aof_is_filler(&header)) {
                rc = bop__admin_give(check, &header, bytes, offset, reading->segment,
                                     reading->segment->name, BOP_AOF_HOT);
            }
            bop__look_step(look, &header);
        }
        if (rc != 0) {
            return rc;
        }
        bop__admin_pace(check, look->offset > reading->paced ? look->offset - reading->paced : 0);
        reading->paced = bop_max_u64(reading->paced, look->offset);
    }
    return 0;
}

/* ---- What is beside the records ---- */

static int footer_bad(struct reading *reading, const char *text)
{
    struct bop__admin_finding finding = {.kind = BOP_AOF_PROBLEM_FOOTER,
                                         .offset = reading->look.offset,
                                         .first_seq = 1,
                                         .segment = reading->segment,
                                         .code = BOP_ECORRUPT};
    char why[BOP__ADMIN_PATH_MAX + BOP_ERROR_MESSAGE_MAX];

    snprintf(why, sizeof(why), "%s: footer: %s", reading->path, text);
    return bop__admin_found(reading->check, &finding, reading->path,
                            reading->source->size - reading->look.offset, why);
}

/* The footer with all its leaves, against the records that were just read. */
static int check_footer(struct reading *reading)
{
    struct bop__admin_check *check = reading->check;
    struct bop__footer built = {0}, footer = {0};
    struct bop_error err = {0};
    const char *text = NULL;
    int rc = bop__footer_read(check->admin->allocator, reading->source, false, &footer, &err);

    if (rc < 0 && rc != BOP_ENOMEM) {
        return footer_bad(reading, err.message);
    }
    if (rc == 0) {
        built.facts = footer.facts;
        rc = bop__footer_build(check->admin->allocator, reading->source, &built, &err);
        if (rc == 0 && memcmp(built.facts.root, footer.facts.root, sizeof(built.facts.root)) != 0) {
            text = "its root is not that of the records";
        } else if (rc == BOP_ECORRUPT) {
            text = err.message;
        }
        rc = rc == BOP_ECORRUPT ? 0 : rc;
        bop__footer_deinit(&built);
    }
    if (rc == 0 && !text && reading->segment->entry &&
        memcmp(reading->segment->entry->facts.root, footer.facts.root, sizeof(footer.facts.root)) !=
            0) {
        text = "its root is not the manifest's";
    }
    bop__footer_deinit(&footer);
    if (rc < 0) {
        return bop_error_set(check->err, rc, "check the footer of %s", reading->path);
    }
    return text ? footer_bad(reading, text) : 0;
}

/* True if the file ends with bytes that were once a footer's: a seal that a crash cut short has
 * zeros there still. */
static int ends_written(struct reading *reading, bool *out_written)
{
    struct bop__segment_source *source = reading->source;
    uint64_t from = bop_max_u64(reading->look.offset,
                                source->size - bop_min_u64(source->size, BOP__FOOTER_TRAILER));
    struct bop_slice bytes = {0};
    int rc = 0;

    if (from < source->size) {
        rc = source->at(source, from, (size_t)(source->size - from), &bytes, reading->check->err);
    }
    *out_written = rc == 0 && !is_blank(bytes);
    return rc;
}

/* Behind the records of a segment that has no footer are zeros, records that were truncated, or
 * the beginning of a footer. */
static int check_rest(struct reading *reading)
{
    struct bop__look *look = &reading->look;
    struct bop__aof_record_header header;
    enum bop__look_verdict verdict;
    struct bop_slice bytes;
    bool written;
    int rc;

    do {
        rc = bop__look_entry(look, &header, &bytes, &verdict, reading->check->err);
        if (rc < 0 || bytes.size == 0) {
            return rc;
        }
        if (verdict == BOP__LOOK_GOOD) {
            if (!bop__aof_is_filler(&header)) {
                return 0;
            }
            bop__look_step(look, &header);
        }
    } while (verdict == BOP__LOOK_GOOD);
    if (is_blank(bytes)) {
        return 0;
    }
    rc = ends_written(reading, &written);
    return rc < 0 || !written ? rc : footer_bad(reading, "there is one, and it cannot be read");
}

static int check_beside(struct reading *reading)
{
    struct bop__admin_segment *segment = reading->segment;

    if (segment->newest) {
        reading->check->tail_end = reading->look.offset;
        return 0;
    }
    if (reading->torn || reading->damaged) {
        return 0;
    }
    if (segment->footer_code == BOP_ENOTFOUND) {
        return check_rest(reading);
    }
    if (segment->footer_code < 0) {
        return footer_bad(reading, segment->footer_err.message);
    }
    return segment->facts.end_seq < segment->limit   ? footer_bad(reading, "it ends too early")
           : segment->facts.end_seq > segment->limit ? 0 /* Truncated after it was sealed. */
                                                     : check_footer(reading);
}

/* ---- From segment to segment ---- */

/* No file has these records; the segment before may have lost them. */
static int missing(struct bop__admin_check *check, struct bop__admin_segment *before,
                   uint64_t first, uint64_t last)
{
    struct bop__admin_finding finding = {.kind = BOP_AOF_PROBLEM_MISSING,
                                         .first_seq = first,
                                         .last_seq = last,
                                         .segment = before,
                                         .code = BOP_ECORRUPT,
                                         .link = check->link,
                                         .link_known = check->link_known};
    char why[BOP__ADMIN_PATH_MAX + 256];
    int rc = 0;

    if (before) {
        rc = bop__admin_copy_give(check, before, first, last, &finding.elsewhere);
    }
    snprintf(why, sizeof(why), "%s: records %" PRIu64 " to %" PRIu64 " are missing%s%s",
             check->admin->path, first, last, before ? ": what is there ends with " : "",
             before ? (before->local ? before->name : before->packed_name) : "");
    return rc != 0 ? rc : bop__admin_found(check, &finding, check->admin->path, 0, why);
}

/* A header that is bad, or another's. True in *out_usable: its records can be read. */
static int header_bad(struct bop__admin_check *check, struct bop__admin_segment *segment,
                      bool *out_usable)
{
    struct bop__admin_finding finding = {.kind = BOP_AOF_PROBLEM_HEADER,
                                         .segment = segment,
                                         .first_seq = 1,
                                         .code = segment->code,
                                         .link = check->link,
                                         .link_known = check->link_known};
    struct reading reading = {.check = check, .segment = segment};
    int rc = bop__admin_path(check->admin, segment->name, reading.path, check->err);

    *out_usable = segment->guessed || segment->misnamed;
    if (rc == 0 && !*out_usable) {
        finding.first_seq = segment->base;
        finding.last_seq = segment->newest ? segment->base : segment->limit - 1;
        rc = bop__admin_copy_give(check, segment, finding.first_seq, finding.last_seq,
                                  &finding.elsewhere);
        finding.kind = segment->code == BOP_ECORRUPT || segment->code == BOP_EVERSION
                           ? BOP_AOF_PROBLEM_HEADER
                           : BOP_AOF_PROBLEM_READ;
    }
    return rc != 0 ? rc
                   : bop__admin_found(check, &finding, reading.path, BOP__AOF_SEGMENT_HEADER,
                                      segment->err.message);
}

static int check_order(struct bop__admin_check *check, const struct reading *reading)
{
    struct bop__admin_finding finding = {.kind = BOP_AOF_PROBLEM_ORDER,
                                         .segment = reading->segment,
                                         .first_seq = reading->segment->base,
                                         .code = BOP_ECORRUPT,
                                         .link = check->link,
                                         .link_known = true};
    char why[BOP__ADMIN_PATH_MAX + 128];

    if (!check->link_known || reading->segment->header.seed == check->link) {
        return 0;
    }
    snprintf(why, sizeof(why), "%s: does not follow the segment before", reading->path);
    return bop__admin_found(check, &finding, reading->path, 0, why);
}

/* Where the log begins, as far as is known without the newest header. */
static uint64_t oldest_or_front(const struct bop__admin *admin)
{
    return bop_max_u64(admin->front, admin->segments[0].base);
}

/* A header that is bad altogether: with the link of the record before it, all that its records
 * need is known. */
static int guess_from_link(struct bop__admin_check *check, struct reading *reading)
{
    struct bop__admin_segment *segment = reading->segment;
    struct bop__aof_record_header record;
    struct bop_slice bytes;
    enum bop__look_verdict verdict;
    struct bop__look look;
    int rc;

    if (segment->code != BOP_ECORRUPT || segment->guessed || segment->misnamed ||
        segment->foreign || !check->link_known || check->next != segment->base) {
        return 0;
    }
    look = bop__look_begin(reading->source, check->link, segment->base, segment->generation,
                           UINT64_MAX, false);
    rc = bop__look_entry(&look, &record, &bytes, &verdict, check->err);
    if (rc < 0 || verdict != BOP__LOOK_GOOD) {
        return rc;
    }
    segment->guessed = true;
    segment->header = (struct bop__aof_segment_header){.base = segment->base,
                                                       .generation = segment->generation,
                                                       .size = reading->source->size,
                                                       .front = oldest_or_front(check->admin),
                                                       .seed = check->link,
                                                       .epoch = check->admin->epoch,
                                                       .version = BOP__AOF_VERSION};
    memcpy(segment->header.log_id, check->admin->log_id, sizeof(segment->header.log_id));
    return 0;
}

static int read_open(struct bop__admin_check *check, struct reading *reading)
{
    struct bop__admin_segment *segment = reading->segment;
    bool usable = true;
    int rc = guess_from_link(check, reading);

    if (rc == 0 && segment->code != 0) {
        rc = header_bad(check, segment, &usable);
    }
    if (rc != 0 || !usable) {
        check->link_known = false;
        check->next = segment->newest ? segment->base + 1 : segment->limit;
        return rc;
    }
    rc = check_order(check, reading);
    if (rc != 0) {
        return rc;
    }
    reading->look = bop__look_begin(reading->source, segment->header.seed, segment->base,
                                    segment->generation, segment->header.size,
                                    segment->header.flags & BOP__AOF_FLAG_ALIGNED);
    rc = read_records(reading);
    check->next = reading->look.seq;
    check->link = reading->look.link;
    check->link_known = reading->look.link_known;
    return rc == 0 ? check_beside(reading) : rc;
}

/* The file could not be read: that is told, and the others are looked at all the same. */
static int unreadable(struct bop__admin_check *check, struct reading *reading,
                      const struct bop_error *err)
{
    struct bop__admin_segment *segment = reading->segment;
    uint64_t from = bop_max_u64(segment->base, reading->look.seq);
    struct bop__admin_finding finding = {.kind = BOP_AOF_PROBLEM_READ,
                                         .offset = reading->look.offset,
                                         .segment = segment,
                                         .first_seq = from,
                                         .last_seq = segment->newest ? from : segment->limit - 1,
                                         .code = err->code};
    int rc = bop__admin_copy_give(check, segment, from, finding.last_seq, &finding.elsewhere);

    check->link_known = false;
    check->next = segment->newest ? from : segment->limit;
    return rc != 0 ? rc : bop__admin_found(check, &finding, reading->path, 0, err->message);
}

static int read_local(struct bop__admin_check *check, struct bop__admin_segment *segment)
{
    struct reading reading = {.check = check, .segment = segment};
    struct bop_error *err = check->err;
    struct bop_error why = {0};
    int rc = bop__admin_path(check->admin, segment->name, reading.path, err);

    if (rc < 0) {
        return rc;
    }
    check->report.segments++;
    check->err = &why;
    rc = bop__admin_source(check->admin, segment, &reading.source, &why);
    if (rc == 0) {
        rc = read_open(check, &reading);
        reading.source->close(reading.source);
    }
    check->err = err;
    if (rc < 0 && rc != BOP_ENOMEM && why.code == rc) {
        return unreadable(check, &reading, &why);
    }
    if (rc < 0 && err->code == 0) {
        *err = why;
    }
    return rc;
}

static int read_archived(struct bop__admin_check *check, struct bop__admin_segment *segment)
{
    bool all = false;
    int rc = bop__admin_copy_give(check, segment, segment->base, segment->limit - 1, &all);

    check->next = segment->limit;
    check->link_known = all;
    check->link = segment->facts.link;
    /* What is only in an object store that was not given cannot be said to be missing. */
    if (rc == 0 && !all && (segment->packed_name[0] || check->options.objects)) {
        rc = missing(check, NULL, segment->base, segment->limit - 1);
    }
    return rc;
}

static bool wanted(const struct bop__admin_check *check, const struct bop__admin_segment *segment)
{
    const struct bop_aof_check_options *options = &check->options;

    return (options->generation == 0 || options->generation == segment->generation) &&
           segment->limit > options->first_seq &&
           (options->last_seq == 0 || segment->base <= options->last_seq);
}

static int check_segment(struct bop__admin_check *check, struct bop__admin_segment *segment)
{
    int rc = 0;

    if (check->next > 0 && segment->base > check->next) {
        if (check->options.generation == 0) {
            rc = missing(check, check->previous, check->next, segment->base - 1);
        }
        check->link_known = false;
    }
    if (rc == 0 && wanted(check, segment)) {
        check->next = segment->base;
        rc = segment->local ? read_local(check, segment) : read_archived(check, segment);
        if (rc == 0) {
            rc = bop__admin_copies_check(check, segment);
        }
    } else {
        check->next = segment->newest ? segment->base : segment->limit;
        check->link_known = false;
    }
    check->previous = segment;
    return rc;
}

/* Files that are not what their name says, beside the log's. */
static int check_strays(struct bop__admin_check *check)
{
    struct bop__admin *admin = check->admin;
    int rc = 0;

    for (size_t i = admin->count; rc == 0 && i < admin->total; i++) {
        struct bop__admin_segment *segment = &admin->segments[i];
        struct bop__admin_finding finding = {.kind = BOP_AOF_PROBLEM_HEADER,
                                             .segment = segment,
                                             .first_seq = 1,
                                             .code = segment->code};

        if (segment->local && segment->code != 0) {
            rc = bop__admin_found(check, &finding, segment->name, BOP__AOF_SEGMENT_HEADER,
                                  segment->err.message);
        }
    }
    return rc;
}

static int check_manifest(struct bop__admin_check *check)
{
    struct bop__admin_finding finding = {
        .kind = BOP_AOF_PROBLEM_MANIFEST, .first_seq = 1, .code = check->admin->manifest_code};

    return finding.code == 0 ? 0
                             : bop__admin_found(check, &finding, check->admin->path, 0,
                                                check->admin->manifest_err.message);
}

static void count_bytes(struct bop__admin_check *check)
{
    for (size_t i = 0; i < check->admin->count; i++) {
        const struct bop__admin_segment *segment = &check->admin->segments[i];

        if (wanted(check, segment)) {
            check->bytes_total += segment->local ? segment->file_bytes : segment->facts.end;
        }
    }
}

/* The record that must be there first; 0: not known. With a manifest the first ones may have gone
 * by retention, and without the newest header, by truncation. */
static uint64_t where_it_begins(const struct bop__admin *admin)
{
    const struct bop__admin_segment *newest = bop__admin_newest(admin);

    if ((admin->manifest && bop__manifest_count(admin->manifest) > 0) ||
        (newest && newest->code != 0 && !newest->guessed)) {
        return 0;
    }
    return admin->front;
}

int bop__admin_check(struct bop__admin_check *check)
{
    struct bop__admin *admin = check->admin;
    int rc = check_manifest(check);

    check->began_us = bop_clock_monotonic_us(admin->clock);
    count_bytes(check);
    check->next = where_it_begins(admin);
    for (size_t i = 0; rc == 0 && i < admin->count; i++) {
        struct bop__admin_segment *segment = &admin->segments[i];

        if (i == 0) {
            check->report.first = check->next > 0 ? check->next : segment->base;
        }
        rc = check_segment(check, segment);
    }
    check->report.last = check->next > 0 ? check->next - 1 : 0;
    return rc == 0 && check->options.generation == 0 ? check_strays(check) : rc;
}

static bool has_generation(const struct bop__admin *admin, uint64_t generation)
{
    for (size_t i = 0; i < admin->total; i++) {
        if (admin->segments[i].generation == generation) {
            return true;
        }
    }
    return false;
}

int bop_aof_check(const struct bop_aof_check_options *options, struct bop_aof_report *out_report,
                  struct bop_error *err)
{
    struct bop_error why = {0};
    struct bop__admin admin;
    struct bop__admin_check check = {.options = *options, .admin = &admin, .err = &why};
    int rc = bop__admin_open(&options->log, &admin, &why);

    if (rc == 0 && options->generation > 0 && !has_generation(&admin, options->generation)) {
        rc = bop_error_say(&why, BOP_ENOTFOUND, "%s has no segment %" PRIu64, options->log.path,
                           options->generation);
    }
    if (rc == 0) {
        rc = bop__admin_check(&check);
        *out_report = check.report;
        if (rc == 0 && check.report.problems > 0) {
            why = check.first;
            rc = BOP_ECORRUPT;
        }
    }
    bop__admin_deinit(&admin);
    if (rc < 0 && err) {
        *err = why;
        err->code = rc;
    }
    return rc;
}
