/*
 * Making the footer of a segment from its records.
 *
 * Leaves cover everything from the segment's header to the end of its last record. Each but the
 * first begins with a record; fillers belong to the leaf that is open. Memory is the leaves' alone.
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
};

static void end_leaf(struct build *b)
{
    struct bop__footer_leaf *leaf = &b->footer.leaves[b->footer.leaf_count - 1];

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

/* Take in the next entry, which was checked. */
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
    bop__merkle_leaf_add(&b->merkle, bytes, size);
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

static int add_entries(struct build *b, struct bop__segment_source *source, struct bop_error *err)
{
    struct bop__segment_facts *facts = &b->footer.facts;
    struct bop__walk walk = bop__walk_begin(facts->seed, facts->base, facts->generation);

    while (walk.offset < facts->end) {
        struct bop__aof_record_header header = {0};
        int rc = bop__walk_fetch(&walk, source, facts->end, 0, &header, err);
        const char *wrong = NULL;

        if (rc < 0) {
            return rc;
        }
        wrong = bop__walk_body(&header, walk.at);
        if (!wrong && walk.seq >= facts->end_seq) {
            wrong = "lies beyond the last one";
        }
        if (wrong) {
            return bop__walk_corrupt(&walk, source->name, wrong, err);
        }
        rc = add_entry(b, walk.offset, &header, walk.at);
        if (rc < 0) {
            return bop_error_set(err, rc, "index %s", source->name);
        }
        bop__walk_step(&walk, &header);
    }
    if (walk.seq != facts->end_seq) {
        return bop__walk_corrupt(&walk, source->name, "is missing", err);
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

int bop__footer_build(struct bop_allocator *allocator, struct bop__segment_source *source,
                      struct bop__footer *out_footer, struct bop_error *err)
{
    struct build b = {.footer = {.allocator = allocator, .facts = out_footer->facts}};
    int rc = bop__merkle_init(&b.merkle);

    BOP_ASSERT(b.footer.facts.end_seq > b.footer.facts.base);
    if (rc < 0) {
        return bop_error_set(err, rc, "index %s", source->name);
    }
    rc = add_entries(&b, source, err);
    if (rc == 0) {
        rc = finish(&b);
        if (rc < 0) {
            bop_error_set(err, rc, "index %s", source->name);
        }
    }
    bop__merkle_deinit(&b.merkle);
    if (rc < 0) {
        if (b.footer.leaves) {
            bop_free(allocator, b.footer.leaves, b.capacity * sizeof(*b.footer.leaves));
        }
        return rc;
    }
    *out_footer = b.footer;
    return 0;
}
