/*
 * The catalogue: what replaying a manifest gives, and what may follow.
 */
#ifndef BOP_STORE_AOF_MANIFEST_CATALOGUE_H
#define BOP_STORE_AOF_MANIFEST_CATALOGUE_H

#include "manifest_format.h"

struct bop__catalogue_change;

struct bop__catalogue {
    struct bop_allocator *allocator;
    struct bop__manifest_entry **entries;       /* By ascending base, then generation. */
    struct bop__manifest_entry **by_generation; /* The same ones. */
    size_t count;
    size_t capacity;                       /* Of both. */
    struct bop__catalogue_change *changes; /* That can be undone. */
    size_t change_count;
    size_t change_capacity;
    bool undoable; /* Several records are one change: it is kept or undone as a whole. */
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

/** What is taken in from here on is kept by bop__catalogue_keep(), or undone. */
static inline void bop__catalogue_begin(struct bop__catalogue *catalogue)
{
    catalogue->undoable = true;
}
void bop__catalogue_keep(struct bop__catalogue *catalogue);
/** Undo the changes that came after so many; 0: all, which ends what was begun. */
void bop__catalogue_undo(struct bop__catalogue *catalogue, size_t mark);

/* ---- manifest_entries.c, for the rules ---- */

/** Note an entry as it is, before it changes. 0 or BOP_ENOMEM. */
int bop__catalogue_save(struct bop__catalogue *catalogue, struct bop__manifest_entry *entry);
/** Put in a copy of an entry; it has been checked. 0 or BOP_ENOMEM. */
int bop__catalogue_insert(struct bop__catalogue *catalogue,
                          const struct bop__manifest_entry *entry);
/** The entry that was saved last leaves. */
void bop__catalogue_remove(struct bop__catalogue *catalogue, struct bop__manifest_entry *entry);
/** The index in entries of the first one that is not before facts. */
size_t bop__catalogue_place(const struct bop__catalogue *catalogue,
                            const struct bop__segment_facts *facts);
bool bop__entry_is_before(const struct bop__manifest_entry *a, const struct bop__segment_facts *b);
void bop__entry_text_free(struct bop_allocator *allocator, char *text);
int bop__entry_text_copy(struct bop_allocator *allocator, const char *text, char **out_copy);

#endif
