/*
 * Going through a whole packed segment: to verify it, and to write the segment out of it.
 *
 * The file is read once, front to back. Its frames are hashed, decompressed and checked, what comes
 * out of them goes to the check of the records, and from there, when unpacking, to the new file.
 */
#include "warm_stream.h"

static int ignore(void *user, const uint8_t *bytes, size_t size, struct bop_error *err)
{
    (void)user;
    (void)bytes;
    (void)size;
    (void)err;
    return 0;
}

static int write_on(void *user, const uint8_t *bytes, size_t size, struct bop_error *err)
{
    return bop__new_file_append(user, bytes, size, err);
}

static bool same_facts(const struct bop__segment_facts *a, const struct bop__segment_facts *b)
{
    return memcmp(a->log_id, b->log_id, sizeof(a->log_id)) == 0 && a->base == b->base &&
           a->end_seq == b->end_seq && a->generation == b->generation && a->epoch == b->epoch &&
           a->seed == b->seed && a->link == b->link && a->end == b->end && a->size == b->size &&
           a->first_time_us == b->first_time_us && a->last_time_us == b->last_time_us &&
           a->first_tag == b->first_tag && a->last_tag == b->last_tag &&
           memcmp(a->root, b->root, sizeof(a->root)) == 0;
}

/* Check all that the source, which reads sequential, has. file may be NULL. */
static int go_through(struct bop_allocator *allocator, struct bop__sequential *sequential,
                      struct bop__segment_source *source, const uint8_t *root,
                      struct bop__new_file *file, struct bop__warm_facts *out_facts,
                      struct bop_error *err)
{
    const char *name = sequential->packed.name;
    struct bop__tee tee;
    int rc;

    /* All bytes go by, those of the footer too. */
    bop__tee_init(&tee, source, source->size, file ? write_on : ignore, file);
    rc = bop__segment_check(allocator, source, &tee.source, root, &out_facts->segment, err);
    if (rc == BOP_ENOTFOUND) {
        rc = bop_error_set(err, BOP_ECORRUPT, "%s: packed segment: the segment in it has no footer",
                           name);
    }
    if (rc == 0 && !same_facts(&out_facts->segment, bop__warm_segment(source))) {
        rc = bop_error_set(err, BOP_ECORRUPT,
                           "%s: packed segment: its trailer is not of the segment in it", name);
    }
    if (rc == 0) {
        rc = bop__tee_finish(&tee, err);
    }
    if (rc == 0) {
        rc = bop__sequential_finish(sequential, out_facts->sha256, err);
    }
    out_facts->frames = bop__warm_frames(source);
    out_facts->packed_size = sequential->packed.size;
    return rc;
}

static int check(struct bop_allocator *allocator, struct bop__packed *packed, const uint8_t *root,
                 struct bop__new_file *file, struct bop__warm_facts *out_facts,
                 struct bop_error *err)
{
    struct bop__warm_facts facts = {0};
    struct bop__sequential sequential;
    struct bop__segment_source *source;
    int rc;

    BOP_ASSERT(!packed->ask);
    rc = bop__sequential_init(&sequential, allocator, packed);
    if (rc == 0) {
        rc = bop__warm_open(allocator, &sequential.packed, NULL, &source, err);
        if (rc == 0) {
            rc = go_through(allocator, &sequential, source, root, file, &facts, err);
            source->close(source);
        }
    }
    bop__sequential_deinit(&sequential);
    if (rc == 0) {
        *out_facts = facts;
    }
    return rc;
}

int bop__warm_verify(struct bop_allocator *allocator, struct bop__packed *packed,
                     const uint8_t root[BOP_AOF_DIGEST_SIZE], struct bop__warm_facts *out_facts,
                     struct bop_error *err)
{
    return check(bop_allocator_or_default(allocator), packed, root, NULL, out_facts, err);
}

int bop__warm_unpack(struct bop_allocator *allocator, struct bop_fs *fs, struct bop__packed *packed,
                     const char *path, struct bop_error *err)
{
    struct bop__new_file file;
    struct bop__warm_facts facts;
    uint8_t sha256[32];
    int rc;

    allocator = bop_allocator_or_default(allocator);
    rc = bop__new_file_init(&file, allocator, fs, path, err);
    if (rc == 0) {
        rc = check(allocator, packed, NULL, &file, &facts, err);
    }
    if (rc == 0) {
        rc = bop__new_file_finish(&file, sha256, err);
    }
    bop__new_file_deinit(&file);
    return rc;
}
