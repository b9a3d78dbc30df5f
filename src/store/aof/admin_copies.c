/*
 * What lower tiers have of a segment: packed files here, and objects.
 */
#include "admin.h"
#include "look.h"

/* ---- Opening one ---- */

struct object {
    struct bop__packed packed;
    struct bop_allocator *allocator;
    struct bop_object_store *store;
    char key[BOP_OBJECT_KEY_MAX + 1];
};

static int object_read(struct bop__packed *self, uint64_t offset, size_t size, struct bop_buf *out,
                       struct bop_error *err)
{
    struct object *object = BOP_CONTAINER_OF(self, struct object, packed);
    size_t before = out->size;
    int rc = object->store->get(object->store, object->key, offset, size, out, err);

    if (rc == 0 && out->size - before != size) {
        rc = bop_error_set(err, BOP_ECORRUPT, "object %s ends at %" PRIu64, object->key,
                           offset + (out->size - before));
    }
    return rc;
}

static void object_close(struct bop__packed *self)
{
    struct object *object = BOP_CONTAINER_OF(self, struct object, packed);

    bop_free(object->allocator, object, sizeof(*object));
}

int bop__admin_open_object(struct bop__admin *admin, struct bop_object_store *store,
                           const struct bop__admin_segment *segment,
                           struct bop__packed **out_packed, struct bop_error *err)
{
    struct object *object = bop_alloc(admin->allocator, sizeof(*object));
    struct bop_object_info info;
    int rc;

    if (!object) {
        return bop_error_set(err, BOP_ENOMEM, "read object %s", segment->entry->key);
    }
    *object = (struct object){.packed = {.tier = BOP_AOF_COLD,
                                         .name = object->key,
                                         .read = object_read,
                                         .close = object_close},
                              .allocator = admin->allocator,
                              .store = store};
    snprintf(object->key, sizeof(object->key), "%s", segment->entry->key);
    rc = store->head(store, object->key, &info, err);
    if (rc < 0) {
        object_close(&object->packed);
        return rc;
    }
    object->packed.size = info.size;
    *out_packed = &object->packed;
    return 0;
}

int bop__admin_open_packed(struct bop__admin *admin, const struct bop__admin_segment *segment,
                           struct bop__packed **out_packed, struct bop_error *err)
{
    char path[BOP__ADMIN_PATH_MAX];
    int rc = bop__admin_path(admin, segment->packed_name, path, err);

    return rc < 0 ? rc : bop__packed_file_open(admin->allocator, admin->fs, path, out_packed, err);
}

bool bop__admin_has_object(const struct bop__admin_segment *segment)
{
    return segment->entry && segment->entry->uploaded && !segment->entry->deleted &&
           segment->entry->key;
}

/* ---- Giving records of one ---- */

/* The records [first, last] of a source. True in *out_all: all of them were good. */
static int give_from(struct bop__admin_check *check, const struct bop__admin_segment *segment,
                     struct bop__segment_source *source, uint64_t first, uint64_t last,
                     bool *out_all, struct bop_error *err)
{
    const struct bop__segment_facts *facts = bop__warm_segment(source);
    struct bop__look look = bop__look_begin(source, facts->seed, facts->base, facts->generation,
                                            facts->end, false);

    if (facts->generation != segment->generation || facts->base != segment->base) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: it is of another segment", source->name);
    }
    while (look.seq <= last && look.seq < facts->end_seq) {
        struct bop__aof_record_header header;
        enum bop__look_verdict verdict;
        struct bop_slice bytes;
        int rc = bop__look_entry(&look, &header, &bytes, &verdict, err);

        if (rc == 0 && verdict != BOP__LOOK_GOOD) {
            rc = bop_error_set(err, BOP_ECORRUPT, "%s: record %" PRIu64, source->name, look.seq);
        }
        if (rc == 0 && look.seq >= first && !bop__aof_is_filler(&header)) {
            rc = bop__admin_give(check, &header, bytes, look.offset, segment, source->name,
                                 source->tier);
            bop__admin_pace(check, bytes.size);
        }
        if (rc != 0) {
            return rc;
        }
        bop__look_step(&look, &header);
    }
    *out_all = look.seq > last;
    return 0;
}

/* What is wrong with a copy is told where it is checked; here it only means that it has not got
 * what was asked for. A server that does not answer, or refuses, is another matter: what it has is
 * not known, and so nothing can be said to be lost. */
static bool has_not_got_it(int code)
{
    return code == BOP_ECORRUPT || code == BOP_ENOTFOUND || code == -ENOENT ||
           code == BOP_EVERSION || code == BOP_ETRUNCATED;
}

static int give_from_packed(struct bop__admin_check *check,
                            const struct bop__admin_segment *segment, struct bop__packed *packed,
                            uint64_t first, uint64_t last, bool *out_all, struct bop_error *err)
{
    struct bop__segment_source *source;
    uint64_t records = check->report.records;
    int rc = bop__warm_open(check->admin->allocator, packed, NULL, &source, err);

    if (rc == 0) {
        rc = give_from(check, segment, source, first, last, out_all, err);
        source->close(source);
    }
    /* Given only in part: another copy would give it again. */
    return has_not_got_it(rc) && err->code == rc && check->report.records > records ? BOP_EEXISTS
                                                                                    : rc;
}

static int give_from_tier1(struct bop__admin_check *check, const struct bop__admin_segment *segment,
                           uint64_t first, uint64_t last, bool *out_all, struct bop_error *err)
{
    struct bop__packed *packed;
    int rc = bop__admin_open_packed(check->admin, segment, &packed, err);

    return rc < 0 ? rc : give_from_packed(check, segment, packed, first, last, out_all, err);
}

static int give_from_tier2(struct bop__admin_check *check, const struct bop__admin_segment *segment,
                           uint64_t first, uint64_t last, bool *out_all, struct bop_error *err)
{
    struct bop__packed *packed;
    int rc = bop__admin_open_object(check->admin, check->options.objects, segment, &packed, err);

    return rc < 0 ? rc : give_from_packed(check, segment, packed, first, last, out_all, err);
}

int bop__admin_copy_give(struct bop__admin_check *check, const struct bop__admin_segment *segment,
                         uint64_t first, uint64_t last, bool *out_all)
{
    struct bop_error err = {0};
    int rc = 0;

    *out_all = false;
    if (segment->packed_name[0]) {
        rc = give_from_tier1(check, segment, first, last, out_all, &err);
        /* A file that the disk does not give is told of where it is checked. */
        rc = rc < 0 && rc != BOP_ENOMEM && rc != BOP_EEXISTS && err.code == rc ? 0 : rc;
    }
    if (rc == 0 && !*out_all && check->options.objects && bop__admin_has_object(segment)) {
        err = (struct bop_error){0};
        rc = give_from_tier2(check, segment, first, last, out_all, &err);
        rc = has_not_got_it(rc) && err.code == rc ? 0 : rc;
    }
    if (rc < 0 && rc != BOP_EEXISTS && err.code == rc) {
        *check->err = err;
    } else if (rc == BOP_ENOMEM) {
        bop_error_set(check->err, rc, "read segment %" PRIu64, segment->generation);
    }
    return rc == BOP_EEXISTS ? 0 : rc;
}

/* ---- Checking one ---- */

static int copy_bad(struct bop__admin_check *check, enum bop_aof_problem_kind kind,
                    struct bop__admin_segment *segment, bool elsewhere, const char *name,
                    const struct bop_error *err)
{
    struct bop__admin_finding finding = {.kind = kind,
                                         .segment = segment,
                                         .first_seq = 1,
                                         .elsewhere = elsewhere,
                                         .code = err->code};

    return bop__admin_found(check, &finding, name, 0, err->message);
}

static int verify(struct bop__admin *admin, struct bop__packed *packed,
                  const struct bop__admin_segment *segment, struct bop__warm_facts *out_facts,
                  struct bop_error *err)
{
    const struct bop__manifest_entry *entry = segment->entry;
    bool sealed = segment->local && segment->footer_code == 0;
    const uint8_t *root = entry ? entry->facts.root : sealed ? segment->facts.root : NULL;
    struct bop__segment_source *source;
    uint8_t own[BOP_AOF_DIGEST_SIZE];
    int rc = 0;

    if (!root) { /* Nothing else is known than what it says itself. */
        rc = bop__warm_open(admin->allocator, packed, NULL, &source, err);
        return rc < 0 ? rc : (source->close(source), 0);
    }
    memcpy(own, root, sizeof(own));
    rc = bop__warm_verify(admin->allocator, packed, own, out_facts, err);
    packed->close(packed);
    if (rc == 0 && entry && entry->packed &&
        memcmp(entry->sha256, out_facts->sha256, sizeof(entry->sha256)) != 0) {
        rc = bop_error_set(err, BOP_ECORRUPT, "%s: not the file that the manifest speaks of",
                           segment->packed_name);
    }
    return rc;
}

static int check_packed(struct bop__admin_check *check, struct bop__admin_segment *segment)
{
    struct bop__warm_facts facts = {0};
    struct bop__packed *packed;
    struct bop_error err = {0};
    int rc = bop__admin_open_packed(check->admin, segment, &packed, &err);

    check->report.packed++;
    if (rc == 0) {
        rc = verify(check->admin, packed, segment, &facts, &err);
        bop__admin_pace(check, segment->packed_bytes);
    }
    if (rc == BOP_ENOMEM) {
        *check->err = err;
        return rc;
    }
    return rc == 0 ? 0
                   : copy_bad(check, BOP_AOF_PROBLEM_PACKED, segment,
                              segment->local || bop__admin_has_object(segment),
                              segment->packed_name, &err);
}

static int check_object(struct bop__admin_check *check, struct bop__admin_segment *segment)
{
    struct bop__warm_facts facts = {0};
    struct bop__packed *packed;
    struct bop_error err = {0};
    int rc = bop__admin_open_object(check->admin, check->options.objects, segment, &packed, &err);

    check->report.objects++;
    if (rc == 0) {
        rc = verify(check->admin, packed, segment, &facts, &err);
        bop__admin_pace(check, segment->entry->packed_bytes);
    }
    if (rc < 0 && !has_not_got_it(rc)) {
        *check->err = err;
        return rc;
    }
    return rc == 0 ? 0
                   : copy_bad(check, BOP_AOF_PROBLEM_OBJECT, segment,
                              segment->local || segment->packed_name[0], segment->entry->key, &err);
}

int bop__admin_copies_check(struct bop__admin_check *check, struct bop__admin_segment *segment)
{
    int rc = 0;

    if (check->options.packed && segment->packed_name[0]) {
        rc = check_packed(check, segment);
    }
    if (rc == 0 && check->options.objects && bop__admin_has_object(segment)) {
        rc = check_object(check, segment);
    }
    return rc;
}

bool bop__admin_packed_good(struct bop__admin *admin, const struct bop__admin_segment *segment)
{
    struct bop__warm_facts facts;
    struct bop__packed *packed;

    return segment->packed_name[0] && bop__admin_open_packed(admin, segment, &packed, NULL) == 0 &&
           verify(admin, packed, segment, &facts, NULL) == 0;
}
