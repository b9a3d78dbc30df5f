/*
 * What a directory holds, from names, headers, footers and the manifest.
 *
 * A writer may be at work in it: a file that was listed and is gone when it is opened
 * has the whole listing done again.
 */
#include "admin.h"

#include <stdlib.h>

#include "manifest_format.h"

#define LISTINGS_MAX 8

int bop__admin_path(const struct bop__admin *admin, const char *name,
                    char out_path[BOP__ADMIN_PATH_MAX], struct bop_error *err)
{
    int length = snprintf(out_path, BOP__ADMIN_PATH_MAX, "%s/%s", admin->path, name);

    return length < 0 || length >= BOP__ADMIN_PATH_MAX
               ? bop_error_set(err, -ENAMETOOLONG, "%s", admin->path)
               : 0;
}

int bop__admin_exists(const struct bop__admin *admin, const char *path, bool *out_exists,
                      struct bop_error *err)
{
    int fd = admin->fs->open(admin->fs, path, O_RDONLY);

    *out_exists = fd >= 0;
    if (fd >= 0) {
        admin->fs->close(admin->fs, fd); /* Only looked at. */
    }
    return fd >= 0 || fd == -ENOENT ? 0 : bop_error_set(err, fd, "open %s", path);
}

void bop__admin_name(const struct bop__admin_segment *segment, char out_name[BOP__ADMIN_NAME_MAX])
{
    bop__aof_segment_name(segment->base, segment->generation, out_name);
}

static struct bop__admin_segment *add_segment(struct bop__admin *admin)
{
    if (admin->total == admin->capacity) {
        size_t capacity = admin->capacity > 0 ? admin->capacity * 2 : 16;
        struct bop__admin_segment *grown = bop_realloc(admin->allocator, admin->segments,
                                                       admin->capacity * sizeof(*grown),
                                                       capacity * sizeof(*grown));

        if (!grown) {
            return NULL;
        }
        admin->segments = grown;
        admin->capacity = capacity;
    }
    admin->segments[admin->total] = (struct bop__admin_segment){.footer_code = BOP_ENOTFOUND};
    return &admin->segments[admin->total++];
}

static int list_file(void *user, const char *name)
{
    struct bop__admin *admin = user;
    struct bop__admin_segment *segment;
    char own[BOP__ADMIN_NAME_MAX];
    size_t size = strlen(name);
    size_t moved = strlen(BOP__ADMIN_MOVED);
    uint64_t base, generation;

    if (size >= sizeof(own)) {
        return 0;
    }
    /* A repair was cut short between two renames. */
    moved = size > moved && strcmp(name + size - moved, BOP__ADMIN_MOVED) == 0 ? moved : 0;
    snprintf(own, sizeof(own), "%.*s", (int)(size - moved), name);
    if (!bop__aof_segment_name_parse(own, &base, &generation)) {
        return 0;
    }
    segment = add_segment(admin);
    if (!segment) {
        return BOP_ENOMEM;
    }
    segment->base = base;
    segment->generation = generation;
    segment->local = true;
    snprintf(segment->name, sizeof(segment->name), "%s", name);
    admin->generation = bop_max_u64(admin->generation, generation);
    return 0;
}

/* ---- Headers and footers ---- */

/* A single bit that is wrong can be found, as the checksum knows where it is. */
bool bop__admin_guess_header(uint8_t *block, struct bop__aof_segment_header *out_header)
{
    for (size_t bit = 0; bit < (size_t)BOP__AOF_SEGMENT_HEADER * 8; bit++) {
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (bop__aof_segment_header_decode(block, "", out_header, NULL) == 0) {
            return true;
        }
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    return false;
}

static void take_header(struct bop__admin *admin, struct bop__admin_segment *segment,
                        const char *path)
{
    struct bop__aof_segment_header header;

    segment->code = bop__aof_segment_header_decode(admin->block, path, &header, &segment->err);
    if (segment->code == BOP_ECORRUPT && bop__admin_guess_header(admin->block, &header) &&
        header.base == segment->base && header.generation == segment->generation) {
        segment->guessed = true;
    } else if (segment->code != 0) {
        return;
    }
    segment->header = header;
    if (header.base != segment->base || header.generation != segment->generation ||
        strlen(segment->name) > BOP__AOF_NAME_SIZE) {
        segment->misnamed = true;
        segment->base = header.base;
        segment->generation = header.generation;
        segment->code = bop_error_set(&segment->err, BOP_ECORRUPT,
                                      "%s: the header is of segment %016" PRIx64 "-%016" PRIx64,
                                      path, header.base, header.generation);
    }
}

static void take_footer(struct bop__admin *admin, struct bop__admin_segment *segment, int fd,
                        const char *path)
{
    uint8_t bytes[BOP__FOOTER_TRAILER];
    int rc;

    if (segment->file_bytes < BOP__AOF_SEGMENT_HEADER + sizeof(bytes)) {
        return;
    }
    rc = bop_fs_read_exact(admin->fs, fd, bytes, sizeof(bytes),
                           segment->file_bytes - sizeof(bytes));
    if (rc < 0) {
        segment->footer_code = bop_error_set(&segment->footer_err, rc, "read %s", path);
        return;
    }
    segment->footer_code = bop__footer_decode_trailer(bytes, segment->file_bytes, path,
                                                      &segment->facts, &segment->footer_err);
}

/* 0, BOP_EAGAIN if the file is gone, or BOP_ENOMEM. What the file itself answers is noted. */
static int read_ends(struct bop__admin *admin, struct bop__admin_segment *segment)
{
    char path[BOP__ADMIN_PATH_MAX];
    struct bop_fs *fs = admin->fs;
    int fd, rc;

    rc = bop__admin_path(admin, segment->name, path, &segment->err);
    fd = rc == 0 ? fs->open(fs, path, O_RDONLY) : rc;
    if (fd == -ENOENT) {
        return BOP_EAGAIN;
    }
    if (fd < 0) {
        segment->code = bop_error_set(&segment->err, fd, "open %s", path);
        return 0;
    }
    rc = fs->size(fs, fd, &segment->file_bytes);
    if (rc == 0) {
        rc = bop_fs_read_exact(fs, fd, admin->block, BOP__AOF_SEGMENT_HEADER, 0);
    }
    if (rc == BOP_ETRUNCATED) {
        segment->code = bop_error_set(&segment->err, BOP_ECORRUPT, "%s: no whole header", path);
    } else if (rc < 0) {
        segment->code = bop_error_set(&segment->err, rc, "read %s", path);
    } else {
        take_header(admin, segment, path);
        take_footer(admin, segment, fd, path);
    }
    fs->close(fs, fd); /* Only read. */
    return 0;
}

static int read_directory(struct bop__admin *admin, struct bop_error *err)
{
    int rc;

    admin->total = 0;
    rc = admin->fs->list(admin->fs, admin->path, list_file, admin);
    if (rc == -ENOENT || rc == -ENOTDIR) {
        return bop_error_say(err, BOP_ENOTFOUND, "%s: there is no such directory", admin->path);
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "list %s", admin->path);
    }
    for (size_t i = 0; i < admin->total; i++) {
        rc = read_ends(admin, &admin->segments[i]);
        if (rc < 0) {
            return rc == BOP_EAGAIN
                       ? rc
                       : bop_error_set(err, rc, "look at the segments of %s", admin->path);
        }
    }
    return 0;
}

static int read_segments(struct bop__admin *admin, struct bop_error *err)
{
    for (unsigned i = 0; i < LISTINGS_MAX; i++) {
        int rc = read_directory(admin, err);

        if (rc != BOP_EAGAIN) {
            return rc;
        }
    }
    return bop_error_say(err, BOP_EBUSY, "%s changes faster than it can be looked at", admin->path);
}

/* ---- Which log this is ---- */

static bool tells_identity(const struct bop__admin_segment *segment)
{
    return segment->header.version > 1 &&
           (segment->code == 0 || segment->guessed || segment->misnamed);
}

static bool is_of_log(const struct bop__admin *admin, const struct bop__admin_segment *segment)
{
    return memcmp(segment->header.log_id, admin->log_id, sizeof(admin->log_id)) == 0;
}

/* What most segments say (Boyer and Moore's vote): one file of another log is not to make all the
 * others strange. Without a majority, the last candidate. */
static void find_identity(struct bop__admin *admin)
{
    size_t lead = 0;

    for (size_t i = 0; i < admin->total; i++) {
        const struct bop__admin_segment *segment = &admin->segments[i];

        if (!tells_identity(segment)) {
            continue;
        }
        if (lead == 0) {
            memcpy(admin->log_id, segment->header.log_id, sizeof(admin->log_id));
            admin->identity_known = true;
        }
        lead = is_of_log(admin, segment) ? lead + 1 : lead - 1;
    }
}

static void find_foreign(struct bop__admin *admin)
{
    for (size_t i = 0; i < admin->total; i++) {
        struct bop__admin_segment *segment = &admin->segments[i];

        if (tells_identity(segment) && !is_of_log(admin, segment)) {
            segment->foreign = true;
            segment->code = bop_error_set(&segment->err, BOP_ECORRUPT,
                                          "%s/%s: it is a segment of another log", admin->path,
                                          segment->name);
        }
    }
}

/* ---- Which segments are of the log ---- */

static int by_generation(const void *a_void, const void *b_void)
{
    const struct bop__admin_segment *a = a_void;
    const struct bop__admin_segment *b = b_void;

    if (a->generation != b->generation) {
        return a->generation < b->generation ? -1 : 1;
    }
    return a->misnamed == b->misnamed ? 0 : a->misnamed ? -1 : 1;
}

/* The log's ones first, then by base. */
static int by_base(const void *a_void, const void *b_void)
{
    const struct bop__admin_segment *a = a_void;
    const struct bop__admin_segment *b = b_void;

    if (a->kept != b->kept) {
        return a->kept ? -1 : 1;
    }
    if (a->base != b->base) {
        return a->base < b->base ? -1 : 1;
    }
    return a->generation < b->generation ? -1 : a->generation > b->generation;
}

/* The newest header that can be read says where the log begins. */
static void find_front(struct bop__admin *admin)
{
    for (size_t i = 0; i < admin->total && admin->front == 0; i++) {
        const struct bop__admin_segment *segment = &admin->segments[admin->total - 1 - i];

        if (!segment->foreign && segment->header.base > 0) {
            admin->front = segment->header.front;
            admin->epoch = segment->header.epoch;
        }
    }
}

/* A copy under another name of a segment that is there under its own. */
static bool is_double(const struct bop__admin *admin, size_t i)
{
    return i + 1 < admin->total && admin->segments[i].misnamed &&
           admin->segments[i + 1].generation == admin->segments[i].generation &&
           admin->segments[i + 1].base == admin->segments[i].base;
}

/* Void is what later generations say to be, as at open. */
static void resolve(struct bop__admin *admin)
{
    uint64_t limit = UINT64_MAX;

    if (admin->total == 0) {
        return;
    }
    qsort(admin->segments, admin->total, sizeof(*admin->segments), by_generation);
    find_front(admin);
    for (size_t i = admin->total; i-- > 0;) {
        struct bop__admin_segment *segment = &admin->segments[i];

        if (segment->foreign || is_double(admin, i) || segment->base >= limit ||
            limit <= admin->front) {
            continue;
        }
        segment->newest = limit == UINT64_MAX;
        segment->kept = true;
        segment->limit = limit;
        limit = segment->base;
        admin->count++;
    }
    qsort(admin->segments, admin->total, sizeof(*admin->segments), by_base);
}

/* ---- Lower tiers ---- */

static bool is_archived(const struct bop__manifest_entry *entry)
{
    return !entry->dropped &&
           ((entry->packed && !entry->packed_evicted) || (entry->uploaded && !entry->deleted));
}

/* Among the first `count`. They are asked for in order, mostly: looks on from the last one. */
static struct bop__admin_segment *find_segment(struct bop__admin *admin, size_t count,
                                               uint64_t base, uint64_t generation)
{
    for (size_t k = 0; k < count; k++) {
        size_t i = (admin->found + k) % count;

        if (admin->segments[i].base == base && admin->segments[i].generation == generation) {
            admin->found = i;
            return &admin->segments[i];
        }
    }
    return NULL;
}

/* Add what only lower tiers have, and say of the others what the manifest knows. */
static int merge_entry(struct bop__admin *admin, size_t local_count,
                       const struct bop__manifest_entry *entry)
{
    struct bop__admin_segment *segment;

    admin->generation = bop_max_u64(admin->generation, entry->facts.generation);
    segment = find_segment(admin, local_count, entry->facts.base, entry->facts.generation);
    if (!segment) {
        segment = add_segment(admin);
        if (!segment) {
            return BOP_ENOMEM;
        }
        segment->base = entry->facts.base;
        segment->generation = entry->facts.generation;
        segment->limit = entry->facts.end_seq;
        segment->kept = is_archived(entry);
        admin->count += segment->kept;
        segment->facts = entry->facts;
    }
    segment->entry = entry;
    return 0;
}

static int merge_manifest(struct bop__admin *admin)
{
    size_t local_count = admin->total;

    for (size_t i = 0; i < bop__manifest_count(admin->manifest); i++) {
        int rc = merge_entry(admin, local_count, bop__manifest_at(admin->manifest, i));

        if (rc < 0) {
            return rc;
        }
    }
    if (admin->total > 0) {
        qsort(admin->segments, admin->total, sizeof(*admin->segments), by_base);
    }
    /* Newer local segments win over what is archived of the same records. */
    for (size_t i = 0; i + 1 < admin->count; i++) {
        admin->segments[i].limit = bop_min_u64(admin->segments[i].limit,
                                               admin->segments[i + 1].base);
    }
    return 0;
}

static int read_identity(void *user, const char *name)
{
    struct bop__admin *admin = user;
    struct bop__manifest_chunk_header header;
    char path[BOP__ADMIN_PATH_MAX];
    uint64_t index;
    int fd;

    if (!bop__manifest_name_parse(name, &index) ||
        snprintf(path, sizeof(path), "%s/manifest/%s", admin->path, name) >= (int)sizeof(path)) {
        return 0;
    }
    fd = admin->fs->open(admin->fs, path, O_RDONLY);
    if (fd >= 0) {
        if (bop_fs_read_exact(admin->fs, fd, &header, sizeof(header), 0) == 0) {
            memcpy(admin->log_id, header.log_id, sizeof(admin->log_id));
            admin->identity_known = true;
        }
        admin->fs->close(admin->fs, fd); /* Only read. */
    }
    return 0;
}

static int open_manifest(struct bop__admin *admin, struct bop_error *err)
{
    char path[BOP__ADMIN_PATH_MAX];
    struct bop__manifest_options options = {.allocator = admin->allocator,
                                            .fs = admin->fs,
                                            .clock = admin->clock,
                                            .path = path,
                                            .read_only = true};
    int rc = bop__admin_path(admin, "manifest", path, err);

    if (rc == 0) {
        rc = bop__admin_exists(admin, path, &admin->has_manifest, err);
    }
    if (rc < 0 || !admin->has_manifest) {
        return rc;
    }
    if (!admin->identity_known) { /* There is no segment that says it. */
        rc = admin->fs->list(admin->fs, path, read_identity, admin);
        if (rc < 0) {
            return bop_error_set(err, rc, "list %s", path);
        }
    }
    memcpy(options.log_id, admin->log_id, sizeof(options.log_id));
    rc = bop__manifest_open(&options, &admin->manifest, &admin->manifest_err);
    if (rc == BOP_ENOMEM) {
        return bop_error_set(err, rc, "open the manifest of %s", admin->path);
    }
    admin->manifest_code = rc;
    return rc == 0 ? merge_manifest(admin) : 0;
}

static int list_packed(void *user, const char *name)
{
    struct bop__admin *admin = user;
    struct bop__admin_segment *segment;
    uint64_t base, generation;
    char end;

    /* "segment-<generation>-<base>.zst", 20 digits each. */
    if (strlen(name) != 53 ||
        sscanf(name, "segment-%20" SCNu64 "-%20" SCNu64 ".zs%c", &generation, &base, &end) != 3 ||
        end != 't') {
        return 0;
    }
    segment = find_segment(admin, admin->total, base, generation);
    if (segment) {
        snprintf(segment->packed_name, sizeof(segment->packed_name), "warm/%s", name);
    }
    return 0;
}

/* One that cannot be opened is there all the same: checking it says why. */
static void size_packed(struct bop__admin *admin, struct bop__admin_segment *segment)
{
    char path[BOP__ADMIN_PATH_MAX];
    int fd = bop__admin_path(admin, segment->packed_name, path, NULL);

    fd = fd == 0 ? admin->fs->open(admin->fs, path, O_RDONLY) : fd;
    if (fd == -ENOENT) {
        segment->packed_name[0] = '\0';
    } else if (fd >= 0) {
        BOP_IGNORE(admin->fs->size(admin->fs, fd, &segment->packed_bytes));
        admin->fs->close(admin->fs, fd); /* Only looked at. */
    }
}

static int find_packed(struct bop__admin *admin, struct bop_error *err)
{
    char path[BOP__ADMIN_PATH_MAX];
    bool exists = false;
    int rc = bop__admin_path(admin, "warm", path, err);

    if (rc == 0) {
        rc = bop__admin_exists(admin, path, &exists, err);
    }
    if (rc == 0 && exists) {
        rc = admin->fs->list(admin->fs, path, list_packed, admin);
        if (rc < 0) {
            return bop_error_set(err, rc, "list %s", path);
        }
    }
    for (size_t i = 0; rc == 0 && i < admin->total; i++) {
        if (admin->segments[i].packed_name[0]) {
            size_packed(admin, &admin->segments[i]);
        }
    }
    return rc;
}

/* ---- Opening ---- */

int bop__admin_open(const struct bop_aof_admin_options *options, struct bop__admin *admin,
                    struct bop_error *err)
{
    int rc;

    *admin = (struct bop__admin){
        .allocator = bop_allocator_or_default(options->allocator),
        .fs = options->fs ? options->fs : bop_fs_real(),
        .clock = options->clock ? options->clock : bop_clock_system(),
        .path = options->path,
    };
    admin->block = bop_alloc(admin->allocator, BOP__AOF_SEGMENT_HEADER);
    if (!admin->block) {
        return bop_error_set(err, BOP_ENOMEM, "look at %s", admin->path);
    }
    rc = read_segments(admin, err);
    if (rc < 0) {
        return rc;
    }
    find_identity(admin);
    find_foreign(admin);
    resolve(admin);
    rc = open_manifest(admin, err);
    if (rc == 0) {
        rc = find_packed(admin, err);
    }
    if (rc == BOP_ENOMEM) {
        return bop_error_set(err, rc, "look at %s", admin->path);
    }
    if (rc == 0 && admin->total == 0 && !admin->has_manifest) {
        return bop_error_say(err, BOP_ENOTFOUND,
                             "%s is no log: it holds no segment file (*.seg); name the directory "
                             "that does",
                             admin->path);
    }
    return rc;
}

void bop__admin_deinit(struct bop__admin *admin)
{
    bop__manifest_close(admin->manifest);
    bop_free(admin->allocator, admin->segments, admin->capacity * sizeof(*admin->segments));
    if (admin->block) {
        bop_free(admin->allocator, admin->block, BOP__AOF_SEGMENT_HEADER);
    }
}

struct bop__admin_segment *bop__admin_newest(const struct bop__admin *admin)
{
    for (size_t i = 0; i < admin->count; i++) {
        if (admin->segments[i].newest) {
            return &admin->segments[i];
        }
    }
    return NULL;
}

bool bop__admin_elsewhere(const struct bop__admin_segment *segment)
{
    return segment->packed_name[0] ||
           (segment->entry && segment->entry->uploaded && !segment->entry->deleted);
}

bool bop__admin_in_use(const struct bop__admin *admin)
{
    char path[BOP__ADMIN_PATH_MAX];
    int fd, rc;

    if (admin->locked || bop__admin_path(admin, BOP__AOF_LOCK_NAME, path, NULL) < 0) {
        return false;
    }
    fd = admin->fs->open(admin->fs, path, O_RDONLY);
    if (fd < 0) {
        return false;
    }
    rc = admin->fs->lock(admin->fs, fd);
    admin->fs->close(admin->fs, fd); /* It was not written. */
    return rc == BOP_ELOCKED;
}

int bop__admin_source(const struct bop__admin *admin, const struct bop__admin_segment *segment,
                      struct bop__segment_source **out_source, struct bop_error *err)
{
    char path[BOP__ADMIN_PATH_MAX];
    int rc = bop__admin_path(admin, segment->name, path, err);

    /* Never mapped: a writer may cut it. */
    return rc < 0 ? rc
                  : bop__file_source_open(admin->allocator, admin->fs, path, true, true, out_source,
                                          err);
}

bool bop_aof_is_log(const struct bop_aof_admin_options *options)
{
    struct bop__admin admin;
    int rc = bop__admin_open(options, &admin, NULL);

    bop__admin_deinit(&admin);
    return rc == 0;
}
