/*
 * Making the footer of a segment from its records: by reading the file, or from what is being
 * written to it, as it passes.
 *
 * Leaves cover everything from the segment's header to the end of its last record. Each but the
 * first begins with a record; fillers belong to the leaf that is open, but for one behind the last
 * record, which the footer takes the place of. Memory is the leaves' alone.
 */
#include "footer.h"
#include "merkle.h"
#include "walk.h"

struct build {
    struct bop__footer footer;
    size_t capacity;
    struct bop__merkle merkle;
    bool mixed;           /* The leaf that is open has fillers, or records of several sizes. */
    uint32_t record_link; /* Of the last record. */
    /* The last of the leaf that is open, one piece of memory, not hashed yet: a call for each entry
     * would take longer than hashing small ones. */
    const uint8_t *run;
    size_t run_size;
};

/* Before the memory of what came last is given up, or the leaf ends. */
static void hash_run(struct build *b)
{
    if (b->run_size > 0) {
        bop__merkle_leaf_add(&b->merkle, b->run, b->run_size);
    }
    b->run_size = 0;
}

static void add_bytes(struct build *b, const uint8_t *bytes, size_t size)
{
    if (b->run_size == 0 || bytes != b->run + b->run_size) {
        hash_run(b);
        b->run = bytes;
    }
    b->run_size += size;
}

static void end_leaf(struct build *b)
{
    struct bop__footer_leaf *leaf = &b->footer.leaves[b->footer.leaf_count - 1];

    hash_run(b);
    bop__merkle_leaf_end(&b->merkle, leaf->hash);
    if (b->mixed) {
        leaf->stride = 0;
    }
}

/* A leaf begins at offset with the record that has this header. */
static int begin_leaf(struct build *b, uint64_t offset, const struct bop__aof_record_header *header)
{
    struct bop__footer *footer = &b->footer;

    if (footer->leaf_count > 0) {
        end_leaf(b);
    }
    if (footer->leaf_count == b->capacity) {
        size_t capacity = bop_max_u64(64, 2 * (uint64_t)b->capacity);
        struct bop__footer_leaf *leaves = bop_realloc(footer->allocator, footer->leaves,
                                                      b->capacity * sizeof(*leaves),
                                                      capacity * sizeof(*leaves));

        if (!leaves) {
            return BOP_ENOMEM;
        }
        footer->leaves = leaves;
        b->capacity = capacity;
    }
    footer->leaves[footer->leaf_count++] = (struct bop__footer_leaf){
        .seq = header->seq,
        .offset = offset,
        .time_us = header->time_us,
        .tag = header->tag,
        .stride = (uint32_t)bop__aof_record_size(bop__aof_record_length(header)),
    };
    b->mixed = false;
    bop__merkle_leaf_begin(&b->merkle);
    return 0;
}

/* Take in the next entry, which was checked. Its bytes stay until hash_run(). */
static int add_entry(struct build *b, uint64_t offset, const struct bop__aof_record_header *header,
                     const uint8_t *bytes)
{
    struct bop__segment_facts *facts = &b->footer.facts;
    size_t leaves = b->footer.leaf_count;
    size_t size = (size_t)bop__aof_record_size(bop__aof_record_length(header));
    bool filler = bop__aof_is_filler(header);

    /* The first entry begins one whatever it is, so that leaves cover all. */
    if (leaves == 0 ||
        (!filler && offset - b->footer.leaves[leaves - 1].offset >= BOP__FOOTER_LEAF_BYTES)) {
        int rc = begin_leaf(b, offset, header);

        if (rc < 0) {
            return rc;
        }
    }
    b->mixed = b->mixed || filler || size != b->footer.leaves[b->footer.leaf_count - 1].stride;
    add_bytes(b, bytes, size);
    if (!filler) {
        if (header->seq == facts->base) {
            struct bop__footer_leaf *first = &b->footer.leaves[0];

            facts->first_time_us = first->time_us = header->time_us;
            facts->first_tag = first->tag = header->tag;
        }
        facts->last_time_us = header->time_us;
        facts->last_tag = header->tag;
        b->record_link = bop__aof_link(header);
    }
    return 0;
}

/* True if fetching the next entry asks nothing of the source, so that what it gave stays. */
static bool is_held(const struct bop__walk *walk)
{
    struct bop__aof_record_header header;

    if (walk->held < sizeof(header)) {
        return false;
    }
    memcpy(&header, walk->at, sizeof(header));
    return walk->held >= bop__aof_record_size(bop__aof_record_length(&header));
}

/* Of about so many bytes. 1: there are more. */
static int add_entries(struct build *b, struct bop__walk *walk, struct bop__segment_source *source,
                       uint64_t bytes, struct bop_error *err)
{
    struct bop__segment_facts *facts = &b->footer.facts;
    uint64_t until = walk->offset + bop_min_u64(bytes, facts->end - walk->offset);

    while (walk->offset < until) {
        struct bop__aof_record_header header = {0};
        const char *wrong = NULL;
        int rc;

        if (!is_held(walk)) {
            hash_run(b);
        }
        rc = bop__walk_fetch(walk, source, facts->end, 0, &header, err);
        if (rc < 0) {
            return rc;
        }
        wrong = bop__walk_body(&header, walk->at);
        if (!wrong && walk->seq >= facts->end_seq) {
            wrong = "lies beyond the last one";
        }
        if (wrong) {
            return bop__walk_corrupt(walk, source->name, wrong, err);
        }
        rc = add_entry(b, walk->offset, &header, walk->at);
        if (rc < 0) {
            return bop_error_set(err, rc, "index %s", source->name);
        }
        bop__walk_step(walk, &header);
    }
    if (walk->offset < facts->end) {
        return 1;
    }
    if (walk->seq != facts->end_seq) {
        return bop__walk_corrupt(walk, source->name, "is missing", err);
    }
    return 0;
}

/* What was allocated is as long as what there is: deinit gives back leaf_count. */
static int trim_leaves(struct build *b)
{
    struct bop__footer *footer = &b->footer;
    struct bop__footer_leaf *leaves = bop_realloc(footer->allocator, footer->leaves,
                                                  b->capacity * sizeof(*leaves),
                                                  footer->leaf_count * sizeof(*leaves));

    if (!leaves) {
        return BOP_ENOMEM;
    }
    footer->leaves = leaves;
    b->capacity = footer->leaf_count;
    return 0;
}

static int finish(struct build *b)
{
    int rc;

    end_leaf(b);
    rc = bop__merkle_root(&b->merkle, b->footer.facts.root);
    if (rc == 0) {
        rc = trim_leaves(b);
    }
    b->footer.facts.link = b->record_link;
    b->footer.facts.size = b->footer.facts.end + (uint64_t)b->footer.leaf_count * BOP__FOOTER_LEAF +
                           BOP__FOOTER_TRAILER;
    return rc;
}

static int begin(struct build *b, struct bop_allocator *allocator,
                 const struct bop__segment_facts *facts)
{
    *b = (struct build){.footer = {.allocator = allocator, .facts = *facts}};
    return bop__merkle_init(&b->merkle);
}

static void drop(struct build *b)
{
    bop__merkle_deinit(&b->merkle);
    if (b->footer.leaves) {
        bop_free(b->footer.allocator, b->footer.leaves, b->capacity * sizeof(*b->footer.leaves));
    }
}

/* ---- From the file ---- */

struct bop__footer_reading {
    struct build build;
    struct bop__walk walk;
    struct bop__segment_source *source;
};

int bop__footer_read_begin(struct bop_allocator *allocator, struct bop__segment_source *source,
                           const struct bop__segment_facts *facts,
                           struct bop__footer_reading **out_reading, struct bop_error *err)
{
    struct bop__footer_reading *reading = bop_alloc(allocator, sizeof(*reading));
    int rc = reading ? begin(&reading->build, allocator, facts) : BOP_ENOMEM;

    BOP_ASSERT(facts->end_seq > facts->base);
    if (rc < 0) {
        if (reading) {
            bop_free(allocator, reading, sizeof(*reading));
        }
        return bop_error_set(err, rc, "index %s", source->name);
    }
    reading->source = source;
    reading->walk = bop__walk_begin(facts->seed, facts->base, facts->generation);
    *out_reading = reading;
    return 0;
}

int bop__footer_read_step(struct bop__footer_reading *reading, uint64_t bytes,
                          struct bop_error *err)
{
    return add_entries(&reading->build, &reading->walk, reading->source, bytes, err);
}

int bop__footer_read_finish(struct bop__footer_reading *reading, struct bop__footer *out_footer,
                            struct bop_error *err)
{
    int rc = finish(&reading->build);

    if (rc < 0) {
        return bop_error_set(err, rc, "index %s", reading->source->name);
    }
    *out_footer = reading->build.footer;
    reading->build.footer.leaves = NULL;
    reading->build.footer.leaf_count = reading->build.capacity = 0;
    return 0;
}

void bop__footer_read_end(struct bop__footer_reading *reading)
{
    struct bop_allocator *allocator = reading->build.footer.allocator;

    drop(&reading->build);
    bop_free(allocator, reading, sizeof(*reading));
}

int bop__footer_build(struct bop_allocator *allocator, struct bop__segment_source *source,
                      struct bop__footer *out_footer, struct bop_error *err)
{
    struct bop__footer_reading *reading;
    int rc = bop__footer_read_begin(allocator, source, &out_footer->facts, &reading, err);

    if (rc < 0) {
        return rc;
    }
    rc = bop__footer_read_step(reading, UINT64_MAX, err);
    if (rc == 0) {
        rc = bop__footer_read_finish(reading, out_footer, err);
    }
    bop__footer_read_end(reading);
    return rc;
}

/* ---- From what is written ---- */

struct bop__footer_draft {
    struct build build;
    unsigned refs;
    uint64_t offset; /* What comes next. */
    uint64_t end;    /* Of the last record. */
    uint64_t end_seq;
    int code; /* The first failure: what comes is left out. */
    size_t filler_size;
    uint8_t filler[BOP__AOF_BLOCK + BOP__AOF_FILLER_MIN]; /* Met last, and no record since. */
};

struct bop__footer_draft *bop__footer_draft_new(struct bop_allocator *allocator,
                                                const struct bop__segment_facts *facts)
{
    struct bop__footer_draft *draft = bop_alloc(allocator, sizeof(*draft));

    if (!draft) {
        return NULL;
    }
    if (begin(&draft->build, allocator, facts) < 0) {
        bop_free(allocator, draft, sizeof(*draft));
        return NULL;
    }
    draft->refs = 1;
    draft->offset = draft->end = BOP__AOF_SEGMENT_HEADER;
    draft->end_seq = facts->base;
    draft->code = 0;
    draft->filler_size = 0;
    return draft;
}

struct bop__footer_draft *bop__footer_draft_ref(struct bop__footer_draft *draft)
{
    draft->refs++;
    return draft;
}

bool bop__footer_draft_is_shared(const struct bop__footer_draft *draft)
{
    return draft->refs > 1;
}

void bop__footer_draft_unref(struct bop__footer_draft *draft)
{
    if (draft && --draft->refs == 0) {
        struct bop_allocator *allocator = draft->build.footer.allocator;

        drop(&draft->build);
        bop_free(allocator, draft, sizeof(*draft));
    }
}

static int take(struct bop__footer_draft *draft, const struct bop__aof_record_header *header,
                const uint8_t *bytes, size_t size)
{
    struct bop__aof_record_header before;
    int rc = 0;

    if (bop__aof_is_filler(header)) {
        if (draft->filler_size > 0 || size > sizeof(draft->filler)) {
            return BOP_EMISMATCH; /* There is one at most, and no larger. */
        }
        memcpy(draft->filler, bytes, size);
        draft->filler_size = size;
        return 0;
    }
    if (draft->filler_size > 0) {
        memcpy(&before, draft->filler, sizeof(before));
        rc = add_entry(&draft->build, draft->offset - draft->filler_size, &before, draft->filler);
        draft->filler_size = 0;
    }
    if (rc == 0) {
        rc = add_entry(&draft->build, draft->offset, header, bytes);
    }
    draft->end = draft->offset + size;
    draft->end_seq = header->seq + 1;
    return rc;
}

void bop__footer_draft_add(struct bop__footer_draft *draft, uint64_t offset, const uint8_t *bytes,
                           size_t size)
{
    if (draft->code == 0 && offset != draft->offset) {
        draft->code = BOP_ECORRUPT;
    }
    while (size > 0 && draft->code == 0) {
        struct bop__aof_record_header header;
        size_t step;

        memcpy(&header, bytes, sizeof(header));
        step = (size_t)bop__aof_record_size(bop__aof_record_length(&header));
        BOP_ASSERT(step <= size); /* It is a commit's: whole entries. */
        draft->code = take(draft, &header, bytes, step);
        draft->offset += step;
        bytes += step;
        size -= step;
    }
    hash_run(&draft->build);
}

int bop__footer_draft_finish(struct bop__footer_draft *draft, struct bop__footer *out_footer)
{
    struct build *b = &draft->build;
    const struct bop__segment_facts *facts = &out_footer->facts;
    int rc = draft->code;

    if (rc == 0 && (draft->end != facts->end || draft->end_seq != facts->end_seq ||
                    b->footer.leaf_count == 0)) {
        rc = BOP_EMISMATCH;
    }
    if (rc == 0) {
        b->footer.facts.end = facts->end;
        b->footer.facts.end_seq = facts->end_seq;
        rc = finish(b);
    }
    draft->code = BOP_EMISMATCH; /* It is used up. */
    if (rc < 0) {
        return rc;
    }
    *out_footer = b->footer;
    b->footer.leaves = NULL;
    b->footer.leaf_count = b->capacity = 0;
    return 0;
}
