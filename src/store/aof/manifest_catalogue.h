/*
 * The catalogue: what replaying a manifest gives, and what may follow.
 */
#ifndef BOP_STORE_AOF_MANIFEST_CATALOGUE_H
#define BOP_STORE_AOF_MANIFEST_CATALOGUE_H

#include "manifest_format.h"

struct bop__catalogue {
    struct bop_allocator *allocator;
    struct bop__manifest_entry **entries; /* By ascending base, then generation. */
    size_t count;
    size_t capacity;
};

void bop__catalogue_init(struct bop__catalogue *catalogue, struct bop_allocator *allocator);
void bop__catalogue_deinit(struct bop__catalogue *catalogue);

/** The entry of a segment, or NULL. */
struct bop__manifest_entry *bop__catalogue_find(const struct bop__catalogue *catalogue,
                                                uint64_t generation);

/**
 * Take in a record. Returns 0; BOP_ECONDITION, with why in err, if it does not follow from what is
 * there; BOP_ENOMEM. Nothing changes on failure.
 */
int bop__catalogue_apply(struct bop__catalogue *catalogue,
                         const struct bop__manifest_record *record, struct bop_error *err);

/** Take in an entry of a snapshot. Codes as above. */
int bop__catalogue_restore(struct bop__catalogue *catalogue,
                           const struct bop__manifest_entry *entry, struct bop_error *err);

/** Make out_copy, which is initialised and empty, the same. 0 or BOP_ENOMEM. */
int bop__catalogue_copy(const struct bop__catalogue *catalogue, struct bop__catalogue *out_copy);

#endif
