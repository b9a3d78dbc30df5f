/*
 * Making a damaged log usable.
 *
 * In rounds: look at all of it, do what can be done without losing anything, look again. When
 * only lost records are left, the log is cut before the first of them, with a new
 * segment, as truncating does: so there is no moment in which a crash leaves less than before.
 *
 * The order within a step is always: the copy, synced; the change; the name.
 */
#include "admin.h"

#define ROUNDS_MAX   4
#define COPIES_MAX   100
#define COPY_BYTES   (1024u * 1024)
#define SEGMENT_SIZE (UINT64_C(64) << 20)

struct repair {
    const struct bop_aof_repair_options *options;
    struct bop_aof_repair_report report;
    struct bop__admin *admin;
    struct bop_error *err;
    struct bop_buf findings; /* struct bop__admin_finding. */
    uint64_t tail_end;
    struct bop_aof_report round;
    /* The first record that no copy has, if there is one. */
    bool losing;
    struct bop__admin_finding lost;
    uint64_t good_behind;
    unsigned done; /* In this round. */
};

/* ---- The lock ---- */

int bop__admin_lock(struct bop__admin *admin, int *out_fd, struct bop_error *err)
{
    char path[BOP__ADMIN_PATH_MAX];
    int rc = bop__admin_path(admin, BOP__AOF_LOCK_NAME, path, err);
    int fd;

    if (rc < 0) {
        return rc;
    }
    fd = admin->fs->open(admin->fs, path, O_RDWR | O_CREAT);
    if (fd < 0) {
        return bop_error_set(err, fd, "open %s", path);
    }
    rc = admin->fs->lock(admin->fs, fd);
    if (rc < 0) {
        admin->fs->close(admin->fs, fd); /* Not written. */
        return rc == BOP_ELOCKED
                   ? bop_error_say(err, rc,
                                   "%s is in use by another process: stop that one first; nothing "
                                   "was changed",
                                   admin->path)
                   : bop_error_set(err, rc, "lock %s", path);
    }
    *out_fd = fd;
    return 0;
}

void bop__admin_unlock(struct bop__admin *admin, int fd)
{
    if (fd >= 0) {
        admin->fs->close(admin->fs, fd); /* Not written. */
    }
}

/* ---- Steps ---- */

static int tell(struct repair *r, enum bop_aof_repaired what, const char *file, const char *broken,
                const char *text)
{
    struct bop_aof_repair repair = {.what = what, .file = file, .broken = broken, .text = text};

    r->done++;
    r->report.repairs++;
    if (r->options->on_repair) {
        r->options->on_repair(r->options->user, &repair);
    }
    return 0;
}

/* A name that is free: a file may be changed by more than one repair, and each keeps what it
 * found. */
static int broken_path(struct repair *r, const char *name, char out_path[BOP__ADMIN_PATH_MAX],
                       char out_name[BOP__ADMIN_PATH_MAX])
{
    for (unsigned i = 1; i <= COPIES_MAX; i++) {
        char number[16] = "";
        bool exists = false;
        int rc;

        if (i > 1) {
            snprintf(number, sizeof(number), "-%u", i);
        }
        BOP_IGNORE(snprintf(out_name, BOP__ADMIN_PATH_MAX, "%s.broken%s", name, number));
        rc = bop__admin_path(r->admin, out_name, out_path, r->err);
        if (rc == 0) {
            rc = bop__admin_exists(r->admin, out_path, &exists, r->err);
        }
        if (rc < 0 || !exists) {
            return rc;
        }
    }
    return bop_error_say(r->err, BOP_EEXISTS,
                         "%s has %u copies of earlier repairs beside it: move them away first",
                         name, COPIES_MAX);
}

static int sync_directory(struct repair *r)
{
    int rc = r->admin->fs->sync_dir(r->admin->fs, r->admin->path);

    return rc < 0 ? bop_error_set(r->err, rc, "sync directory %s", r->admin->path) : 0;
}

static int copy_bytes(struct repair *r, int from, int to, const char *path)
{
    struct bop_fs *fs = r->admin->fs;
    uint8_t *bytes = bop_alloc(r->admin->allocator, COPY_BYTES);
    uint64_t offset = 0;
    ssize_t size = 0;
    int rc = bytes ? 0 : BOP_ENOMEM;

    while (rc == 0) {
        size = fs->pread(fs, from, bytes, COPY_BYTES, offset);
        if (size <= 0) {
            rc = (int)size;
            break;
        }
        rc = bop_fs_write_all(fs, to, bytes, (size_t)size, offset);
        offset += (uint64_t)size;
    }
    if (rc == 0) {
        rc = fs->sync(fs, to);
    }
    if (bytes) {
        bop_free(r->admin->allocator, bytes, COPY_BYTES);
    }
    return rc < 0 ? bop_error_set(r->err, rc, "copy to %s", path) : 0;
}

/* Copy a file to <name>.broken, under another name until it is whole. */
static int keep_copy(struct repair *r, const char *name, char out_name[BOP__ADMIN_PATH_MAX])
{
    struct bop_fs *fs = r->admin->fs;
    char path[BOP__ADMIN_PATH_MAX], broken[BOP__ADMIN_PATH_MAX], part[BOP__ADMIN_PATH_MAX];
    int from, to = -1, rc = broken_path(r, name, broken, out_name);

    if (rc == 0) {
        rc = bop__admin_path(r->admin, name, path, r->err);
    }
    if (rc < 0 || r->options->dry_run) {
        return rc;
    }
    if (snprintf(part, sizeof(part), "%s.part", broken) >= (int)sizeof(part)) {
        return bop_error_set(r->err, -ENAMETOOLONG, "%s", broken);
    }
    from = fs->open(fs, path, O_RDONLY);
    if (from < 0) {
        return bop_error_set(r->err, from, "open %s", path);
    }
    to = fs->open(fs, part, O_RDWR | O_CREAT | O_TRUNC);
    rc = to < 0 ? bop_error_set(r->err, to, "open %s", part) : copy_bytes(r, from, to, part);
    fs->close(fs, from); /* Only read. */
    if (to >= 0) {
        fs->close(fs, to); /* Synced, or of no use. */
    }
    if (rc == 0) {
        rc = fs->rename(fs, part, broken);
        rc = rc < 0 ? bop_error_set(r->err, rc, "rename %s", part) : sync_directory(r);
    } else {
        BOP_IGNORE(fs->unlink(fs, part)); /* What went wrong is said already. */
    }
    return rc;
}

/* Rename a file to <name>.broken. */
static int put_aside(struct repair *r, const char *name, enum bop_aof_repaired what,
                     const char *text)
{
    char path[BOP__ADMIN_PATH_MAX], broken[BOP__ADMIN_PATH_MAX], broken_name[BOP__ADMIN_PATH_MAX];
    int rc = broken_path(r, name, broken, broken_name);

    if (rc == 0) {
        rc = bop__admin_path(r->admin, name, path, r->err);
    }
    if (rc == 0 && !r->options->dry_run) {
        rc = r->admin->fs->rename(r->admin->fs, path, broken);
        rc = rc < 0 ? bop_error_set(r->err, rc, "rename %s", path) : sync_directory(r);
    }
    return rc < 0 ? rc : tell(r, what, name, broken_name, text);
}

static int cut_file(struct repair *r, const char *name, uint64_t size, enum bop_aof_repaired what,
                    const char *text)
{
    struct bop_fs *fs = r->admin->fs;
    char path[BOP__ADMIN_PATH_MAX], broken[BOP__ADMIN_PATH_MAX];
    int rc = keep_copy(r, name, broken);
    int fd = -1;

    if (rc == 0) {
        rc = bop__admin_path(r->admin, name, path, r->err);
    }
    if (rc == 0 && !r->options->dry_run) {
        fd = fs->open(fs, path, O_RDWR);
        rc = fd < 0 ? fd : fs->truncate(fs, fd, size);
        if (rc == 0) {
            rc = fs->sync(fs, fd);
        }
        if (fd >= 0) {
            fs->close(fs, fd); /* Synced. */
        }
        if (rc < 0) {
            bop_error_set(r->err, rc, "cut %s", path);
        }
    }
    return rc < 0 ? rc : tell(r, what, name, broken, text);
}

/* ---- Headers and names ---- */

/* The block as it should be. */
static int make_block(struct repair *r, const struct bop__admin_segment *segment, int fd,
                      const char *path)
{
    struct bop__aof_segment_header header;
    uint8_t *block = r->admin->block;
    int rc = bop_fs_read_exact(r->admin->fs, fd, block, BOP__AOF_SEGMENT_HEADER, 0);

    if (rc < 0 && rc != BOP_ETRUNCATED) {
        return bop_error_set(r->err, rc, "read %s", path);
    }
    if (rc == BOP_ETRUNCATED || !bop__admin_guess_header(block, &header)) {
        bop__aof_segment_header_encode(&segment->header, block);
    }
    return 0;
}

static int write_header(struct repair *r, const struct bop__admin_segment *segment)
{
    struct bop_fs *fs = r->admin->fs;
    char path[BOP__ADMIN_PATH_MAX], broken[BOP__ADMIN_PATH_MAX];
    int rc = keep_copy(r, segment->name, broken);
    int fd;

    if (rc == 0) {
        rc = bop__admin_path(r->admin, segment->name, path, r->err);
    }
    if (rc == 0 && !r->options->dry_run) {
        fd = fs->open(fs, path, O_RDWR);
        if (fd < 0) {
            return bop_error_set(r->err, fd, "open %s", path);
        }
        rc = make_block(r, segment, fd, path);
        if (rc == 0) {
            rc = bop_fs_write_all(fs, fd, r->admin->block, BOP__AOF_SEGMENT_HEADER, 0);
            if (rc == 0) {
                rc = fs->sync(fs, fd);
            }
            if (rc < 0) {
                bop_error_set(r->err, rc, "write the header of %s", path);
            }
        }
        fs->close(fs, fd); /* Synced, or said to have failed. */
    }
    return rc < 0 ? rc
                  : tell(r, BOP_AOF_REPAIRED_HEADER, segment->name, broken,
                         "its header was written anew");
}

/* Its own name, by a detour if that is taken by another one that is to move too. */
static int rename_segment(struct repair *r, const struct bop__admin_segment *segment, bool detour)
{
    struct bop_fs *fs = r->admin->fs;
    char name[BOP__ADMIN_NAME_MAX];
    char from[BOP__ADMIN_PATH_MAX], to[BOP__ADMIN_PATH_MAX];
    int rc;

    bop__admin_name(segment, name);
    if (detour) {
        snprintf(name + strlen(name), sizeof(name) - strlen(name), "%s", BOP__ADMIN_MOVED);
    }
    rc = bop__admin_path(r->admin, segment->name, from, r->err);
    if (rc == 0) {
        rc = bop__admin_path(r->admin, name, to, r->err);
    }
    if (rc == 0 && !r->options->dry_run) {
        rc = fs->rename(fs, from, to);
        rc = rc < 0 ? bop_error_set(r->err, rc, "rename %s", from) : sync_directory(r);
    }
    return rc < 0 ? rc
                  : tell(r, BOP_AOF_REPAIRED_NAME, segment->name, NULL,
                         detour ? "it is another segment: it got a name of its own for now"
                                : "it got its own name back");
}

static int give_name(struct repair *r, const struct bop__admin_segment *segment)
{
    char name[BOP__ADMIN_NAME_MAX];
    char path[BOP__ADMIN_PATH_MAX];
    bool taken = false;
    int rc;

    bop__admin_name(segment, name);
    rc = bop__admin_path(r->admin, name, path, r->err);
    if (rc == 0) {
        rc = bop__admin_exists(r->admin, path, &taken, r->err);
    }
    return rc < 0 ? rc : rename_segment(r, segment, taken);
}

/* ---- Segments that lower tiers have ---- */

static bool in_object_store(const struct repair *r, const struct bop__admin_segment *segment)
{
    for (size_t i = 0; i < r->admin->count && &r->admin->segments[i] != segment; i++) {
        if (r->admin->segments[i].local) {
            return false; /* A log has no holes: what is missing in it lies before the rest. */
        }
    }
    return segment->entry && segment->entry->uploaded && !segment->entry->deleted &&
           segment->entry->facts.end_seq >= segment->limit;
}

/* Over the damaged file, by way of a temporary one. packed is closed. */
static int get_back(struct repair *r, const struct bop__admin_segment *segment,
                    struct bop__packed *packed, const char *text)
{
    char path[BOP__ADMIN_PATH_MAX], broken[BOP__ADMIN_PATH_MAX];
    int rc = keep_copy(r, segment->name, broken);

    if (rc == 0) {
        rc = bop__admin_path(r->admin, segment->name, path, r->err);
    }
    if (rc == 0 && !r->options->dry_run) {
        rc = bop__warm_unpack(r->admin->allocator, r->admin->fs, packed, path, r->err);
    }
    packed->close(packed);
    return rc < 0 ? rc : tell(r, BOP_AOF_REPAIRED_SEGMENT, segment->name, broken, text);
}

/* From whichever copy is good. True in *out_done: from one. */
static int get_back_from_any(struct repair *r, const struct bop__admin_segment *segment,
                             bool *out_done)
{
    struct bop__packed *packed;
    int rc;

    *out_done = true;
    if (bop__admin_packed_good(r->admin, segment)) {
        rc = bop__admin_open_packed(r->admin, segment, &packed, r->err);
        return rc < 0
                   ? rc
                   : get_back(r, segment, packed, "its records were got back from its packed file");
    }
    if (r->options->objects && bop__admin_has_object(segment)) {
        rc = bop__admin_open_object(r->admin, r->options->objects, segment, &packed, r->err);
        return rc < 0 ? rc
                      : get_back(r, segment, packed,
                                 "its records were got back from the object store");
    }
    *out_done = false;
    return 0;
}

/* ---- One round ---- */

static int take_finding(void *user, const struct bop__admin_finding *finding)
{
    struct repair *r = user;

    int rc = bop_buf_append(&r->findings, finding, sizeof(*finding));

    return rc < 0 ? bop_error_set(r->err, rc, "note what is wrong with %s", r->admin->path) : 0;
}

static int count_good(void *user, const struct bop_aof_view *view,
                      const struct bop_aof_place *place)
{
    struct repair *r = user;
    const struct bop__admin_finding *findings = (const void *)r->findings.data;

    BOP_IGNORE(place);
    for (size_t i = 0; i < r->findings.size / sizeof(*findings); i++) {
        if (!findings[i].elsewhere && findings[i].last_seq >= findings[i].first_seq &&
            view->seq > findings[i].first_seq) {
            r->good_behind++;
            return 0;
        }
    }
    return 0;
}

/* Only the first round tells the caller of problems: later ones find the rest of them. */
static void pass_problem(void *user, const struct bop_aof_problem *problem)
{
    struct repair *r = user;

    if (r->options->on_problem && r->report.repairs == 0) {
        r->options->on_problem(r->options->user, problem);
    }
}

static int look(struct repair *r)
{
    struct bop__admin_check check = {.options = {.log = r->options->log,
                                                 .packed = true,
                                                 .objects = r->options->objects,
                                                 .on_record = count_good,
                                                 .on_problem = pass_problem,
                                                 .user = r},
                                     .admin = r->admin,
                                     .err = r->err,
                                     .on_finding = take_finding,
                                     .user = r};
    int rc;

    r->good_behind = 0;
    r->losing = false;
    r->done = 0;
    bop_buf_clear(&r->findings);
    rc = bop__admin_check(&check);
    r->tail_end = check.tail_end;
    r->round = check.report;
    return rc;
}

/* What cannot be repaired by anybody: another version, and a disk that does not read. */
static int refuse(struct repair *r)
{
    const struct bop__admin_finding *findings = (const void *)r->findings.data;

    for (size_t i = 0; i < r->findings.size / sizeof(*findings); i++) {
        if (findings[i].code == BOP_EVERSION) {
            return bop_error_say(r->err, BOP_EVERSION,
                                 "%s: %s is of a version that this program does not know; "
                                 "nothing was changed",
                                 r->admin->path,
                                 findings[i].segment ? findings[i].segment->name : "a file");
        }
        if (findings[i].kind == BOP_AOF_PROBLEM_READ) {
            return bop_error_set(r->err, findings[i].code,
                                 "%s: the disk does not give %s: copy it elsewhere first; nothing "
                                 "was changed",
                                 r->admin->path,
                                 findings[i].segment ? findings[i].segment->name : "a file");
        }
    }
    return r->admin->identity_known || r->findings.size == 0
               ? 0
               : bop_error_say(r->err, BOP_ECORRUPT,
                               "%s: no segment has a header that can be read; nothing was changed",
                               r->admin->path);
}

/* A finding that costs records nobody has: of these, the first counts. */
static void note_lost(struct repair *r, const struct bop__admin_finding *finding)
{
    if (!r->losing || finding->first_seq < r->lost.first_seq) {
        r->losing = true;
        r->lost = *finding;
    }
}

static int mend_segment(struct repair *r, struct bop__admin_segment *segment,
                        const struct bop__admin_finding *finding)
{
    bool done = false;
    int rc = finding->elsewhere && segment && segment->local ? get_back_from_any(r, segment, &done)
                                                             : 0;

    if (rc < 0 || done) {
        return rc;
    }
    if (segment && segment->local && !segment->newest && in_object_store(r, segment)) {
        return put_aside(r, segment->name, BOP_AOF_REPAIRED_SEGMENT,
                         "it is left to the object store, which has it");
    }
    note_lost(r, finding);
    return 0;
}

static int mend_header(struct repair *r, struct bop__admin_segment *segment,
                       const struct bop__admin_finding *finding)
{
    if (!segment->kept) {
        return put_aside(r, segment->name, BOP_AOF_REPAIRED_STRAY,
                         segment->foreign ? "it is of another log" : "it is of no use");
    }
    if (segment->misnamed) {
        return give_name(r, segment);
    }
    return segment->guessed ? write_header(r, segment) : mend_segment(r, segment, finding);
}

static int mend(struct repair *r, const struct bop__admin_finding *finding)
{
    struct bop__admin_segment *segment = finding->segment;

    switch (finding->kind) {
    case BOP_AOF_PROBLEM_HEADER:
        return mend_header(r, segment, finding);
    case BOP_AOF_PROBLEM_RECORDS:
    case BOP_AOF_PROBLEM_MISSING:
        return mend_segment(r, segment, finding);
    case BOP_AOF_PROBLEM_ORDER:
        note_lost(r, finding);
        return 0;
    case BOP_AOF_PROBLEM_FOOTER:
        return cut_file(r, segment->name, finding->offset, BOP_AOF_REPAIRED_FOOTER,
                        "its footer was cut off; the log makes it again");
    case BOP_AOF_PROBLEM_PACKED:
        return finding->elsewhere ? put_aside(r, segment->packed_name, BOP_AOF_REPAIRED_PACKED,
                                              "another tier has its segment")
                                  : 0;
    default:
        return 0;
    }
}

static bool mended_before(const struct bop__admin_finding *findings, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (findings[k].segment && findings[k].segment == findings[i].segment &&
            (findings[k].kind == BOP_AOF_PROBLEM_PACKED) ==
                (findings[i].kind == BOP_AOF_PROBLEM_PACKED)) {
            return true;
        }
    }
    return false;
}

/* One thing for each file: the next round sees what is left. */
static int mend_all(struct repair *r)
{
    const struct bop__admin_finding *findings = (const void *)r->findings.data;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < r->findings.size / sizeof(*findings); i++) {
        if (!mended_before(findings, i)) {
            rc = mend(r, &findings[i]);
        }
    }
    return rc;
}

static int mend_tail(struct repair *r)
{
    const struct bop__admin_segment *newest = bop__admin_newest(r->admin);
    char text[128];

    if (r->round.torn_bytes == 0 || !newest || r->losing || newest->code != 0) {
        return 0;
    }
    snprintf(text, sizeof(text),
             "its torn tail of %" PRIu64 " bytes was cut, from record %" PRIu64
             " on: never acknowledged",
             r->round.torn_bytes, r->round.torn_from_seq);
    return cut_file(r, newest->name, r->tail_end, BOP_AOF_REPAIRED_TAIL, text);
}

/* ---- Cutting the log ---- */

static int refuse_cut(struct repair *r, uint64_t cut)
{
    for (size_t i = 0; i < r->admin->count; i++) {
        const struct bop__admin_segment *segment = &r->admin->segments[i];

        if (segment->limit > cut && segment->base <= cut && bop__admin_has_object(segment) &&
            !r->options->objects) {
            return bop_error_say(r->err, BOP_ECONDITION,
                                 "%s: record %" PRIu64 " is in the object store: name that, to get "
                                 "it back from there",
                                 r->admin->path, cut);
        }
        if (segment->limit > cut && segment->entry && bop__admin_elsewhere(segment)) {
            return bop_error_say(
                r->err, BOP_ECONDITION,
                "%s: record %" PRIu64 " is lost, and lower tiers have good ones behind it, which "
                "cutting the log would give up; export what is good (--skip-damage) and begin a "
                "new log with it",
                r->admin->path, cut);
        }
    }
    return 0;
}

static int write_segment(struct repair *r, const struct bop__aof_segment_header *header,
                         const char *temporary, const char *path)
{
    struct bop_fs *fs = r->admin->fs;
    int fd = fs->open(fs, temporary, O_RDWR | O_CREAT | O_TRUNC);
    int rc = fd < 0 ? fd : 0;

    if (rc == 0) {
        bop__aof_segment_header_encode(header, r->admin->block);
        rc = bop_fs_write_all(fs, fd, r->admin->block, BOP__AOF_SEGMENT_HEADER, 0);
    }
    if (rc == 0) {
        rc = fs->sync(fs, fd);
    }
    if (fd >= 0) {
        fs->close(fs, fd); /* Synced. */
    }
    if (rc == 0) {
        rc = fs->rename(fs, temporary, path);
    }
    return rc < 0 ? bop_error_set(r->err, rc, "write %s", path) : sync_directory(r);
}

/* A segment that begins with the record `cut`, behind the last good one. */
static int begin_segment(struct repair *r, uint64_t cut)
{
    const struct bop__admin *admin = r->admin;
    struct bop__aof_segment_header header = {.base = cut,
                                             .generation = admin->generation + 1,
                                             .size = SEGMENT_SIZE,
                                             .front = cut,
                                             .seed = r->lost.link_known ? r->lost.link : 0,
                                             .epoch = admin->epoch};
    struct bop__admin_segment segment = {.base = cut, .generation = header.generation};
    char name[BOP__ADMIN_NAME_MAX];
    char path[BOP__ADMIN_PATH_MAX], temporary[BOP__ADMIN_PATH_MAX];
    int rc;

    memcpy(header.log_id, admin->log_id, sizeof(header.log_id));
    for (size_t i = 0; i < admin->count; i++) {
        const struct bop__admin_segment *kept = &admin->segments[i];

        if (kept->base < cut) {
            header.front = bop_min_u64(header.front, bop_max_u64(admin->front, kept->base));
        }
        if (kept->header.size > 0) {
            header.size = kept->header.size;
            header.flags = kept->header.flags;
        }
    }
    bop__admin_name(&segment, name);
    rc = bop__admin_path(admin, name, path, r->err);
    if (rc == 0) {
        rc = bop__admin_path(admin, BOP__AOF_NEXT_NAME, temporary, r->err);
    }
    if (rc == 0 && !r->options->dry_run) {
        rc = write_segment(r, &header, temporary, path);
    }
    return rc < 0 ? rc
                  : tell(r, BOP_AOF_REPAIRED_CUT, name, NULL,
                         "a new segment ends the log before the first lost record");
}

/* The segment that the cut goes through ends there, and what nobody can read goes with it. */
static int cut_segment(struct repair *r, const struct bop__admin_segment *segment)
{
    static const char text[] = "its records from the first lost one on are given up";
    char broken[BOP__ADMIN_PATH_MAX];
    int rc;

    if (r->lost.kind == BOP_AOF_PROBLEM_RECORDS && r->lost.segment == segment) {
        return cut_file(r, segment->name, r->lost.offset, BOP_AOF_REPAIRED_CUT, text);
    }
    rc = keep_copy(r, segment->name, broken);
    return rc < 0 ? rc : tell(r, BOP_AOF_REPAIRED_CUT, segment->name, broken, text);
}

/* First the one that is cut: from then on it is the records behind it that are missing, until the
 * new segment says that they are not. */
static int keep_what_goes(struct repair *r, uint64_t cut)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < r->admin->count; i++) {
        const struct bop__admin_segment *segment = &r->admin->segments[i];

        if (!segment->local || segment->limit <= cut) {
            continue;
        }
        rc = segment->base >= cut ? put_aside(r, segment->name, BOP_AOF_REPAIRED_CUT,
                                              "it lies behind the first lost record")
                                  : cut_segment(r, segment);
    }
    return rc;
}

static int cut_log(struct repair *r)
{
    uint64_t cut = r->lost.first_seq;
    int rc = refuse_cut(r, cut);

    if (rc == 0) {
        rc = keep_what_goes(r, cut);
    }
    if (rc == 0) {
        rc = begin_segment(r, cut);
    }
    if (rc == 0) {
        r->report.lost_first = cut;
        r->report.lost_last = bop_max_u64(r->round.last, r->lost.last_seq);
        r->report.lost_last = bop_max_u64(r->report.lost_last, cut);
        r->report.lost_good = r->good_behind;
        r->report.last = cut - 1;
    }
    return rc;
}

/* ---- All of it ---- */

/* Returns 1 if another round is due. */
static int do_round(struct repair *r, unsigned number)
{
    int rc = look(r);

    if (rc == 0 && number == 0) {
        r->report.found = r->round;
    }
    if (rc == 0) {
        rc = refuse(r);
    }
    if (rc == 0) {
        r->report.last = r->round.last;
        rc = mend_all(r);
    }
    if (rc == 0) {
        rc = mend_tail(r);
    }
    if (rc < 0) {
        return rc;
    }
    if (r->done > 0 && !r->options->dry_run) {
        return 1;
    }
    return r->losing ? cut_log(r) : 0;
}

static int repair_locked(struct repair *r)
{
    struct bop_aof_admin_options log = r->options->log;
    int rc = 1;

    for (unsigned i = 0; rc == 1 && i < ROUNDS_MAX; i++) {
        struct bop__admin admin;

        rc = bop__admin_open(&log, &admin, r->err);
        r->admin = &admin;
        admin.locked = true;
        if (rc == 0) {
            rc = do_round(r, i);
        }
        r->admin = NULL;
        bop__admin_deinit(&admin);
    }
    return rc == 1 ? bop_error_say(r->err, BOP_ECORRUPT,
                                   "%s: repairing it does not end; the .broken copies have all",
                                   log.path)
                   : rc;
}

/* A manifest comes first: it says what else there is of a segment. */
static int repair_manifest(struct repair *r)
{
    struct bop__admin *admin = r->admin;
    char path[BOP__ADMIN_PATH_MAX];
    struct bop__manifest_options options = {
        .allocator = admin->allocator, .fs = admin->fs, .clock = admin->clock, .path = path};
    int rc = bop__admin_path(admin, "manifest", path, r->err);

    if (rc < 0 || admin->manifest_code != BOP_ECORRUPT) {
        return rc;
    }
    memcpy(options.log_id, admin->log_id, sizeof(options.log_id));
    if (!r->options->dry_run) {
        rc = bop__manifest_repair(&options, &r->report.chunks_lost, r->err);
    }
    return rc < 0 ? rc
                  : tell(r, BOP_AOF_REPAIRED_MANIFEST, "manifest", NULL,
                         "chunks that cannot be read were put aside as .broken");
}

int bop_aof_repair(const struct bop_aof_repair_options *options,
                   struct bop_aof_repair_report *out_report, struct bop_error *err)
{
    struct bop__admin admin;
    struct repair r = {.options = options, .err = err, .admin = &admin};
    int lock_fd = -1;
    int rc = bop__admin_open(&options->log, &admin, err);

    r.report.lost_first = 1;
    bop_buf_init(&r.findings, admin.allocator, 0);
    if (rc == 0) {
        rc = bop__admin_lock(&admin, &lock_fd, err);
    }
    if (rc == 0) {
        rc = repair_manifest(&r);
    }
    if (rc == 0) {
        rc = repair_locked(&r);
    }
    bop__admin_unlock(&admin, lock_fd);
    bop__admin_deinit(&admin);
    bop_buf_deinit(&r.findings);
    if (rc == 0) {
        *out_report = r.report;
    }
    return rc;
}
