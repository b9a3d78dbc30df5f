/*
 * The state as it was at one moment, walked by and by while the machine goes on.
 *
 * A view that is open for long keeps the store from using any page again that a transaction
 * gives back. So the walk goes in slices, and each has a view of its own, which is of the
 * moment the slice began. What changes ahead of the walk is kept as it was: before each such
 * change the machine notes what is there. The first note of a key is what it was when the walk
 * began; a key without a note has not changed since, and the view tells what it is.
 *
 *      told already | place | this slice's view, under the notes | later views, under the notes
 *
 * A change behind the place is of no interest. Notes that the view does not need, as the change
 * was made after it was opened, do no harm: they say what the view says.
 *
 * The walk meets in the view what it has notes of, and looks each key up. But for what was deleted:
 * the keys of that are kept in order as well.
 *
 * Memory is bounded: once the notes are too many, a view is opened that stays open up to the
 * end, and from then on there is nothing to note.
 *
 * Threads: open, turn, close and whatever changes the machine: the machine's. Walk: any, at no
 * time together with turn or close.
 */
#ifndef BOP_CLUSTER_MACHINE_PAST_H
#define BOP_CLUSTER_MACHINE_PAST_H

#include <bop/crc32c.h>

#include "machine_internal.h"

#define PAST_LEVELS 12 /* Of the list of deleted keys: enough for 4 to the 12th. */

/** Begin. No batch may be open, and no other past of this machine. Notes may take bytes_max. */
BOP_MUST_USE int bop__machine_past_open(struct machine *machine, size_t bytes_max,
                                        struct machine_past **out_past);
struct machine_position bop__machine_past_position(const struct machine_past *past);
/** Before each walk: give the slice a view and the notes. On a failure it can only be closed. */
BOP_MUST_USE int bop__machine_past_turn(struct machine_past *past);
/** No slice is begun for a while: let go of the view. False if one stays open up to the end, as
 * there were too many notes: then there is no time to lose. */
bool bop__machine_past_rest(struct machine_past *past);
/** Walk a slice: call fn for each record, in the order of tables and keys, until they had so many
 * bytes. *out_more: it is not the end. 0, or what fn returned, or a code; then it can only be
 * closed. */
BOP_MUST_USE int bop__machine_past_walk(struct machine_past *past, size_t bytes,
                                        machine_walk_fn *fn, void *user, bool *out_more);
/** NULL is fine. */
void bop__machine_past_close(struct machine_past *past);

/* ---- For whoever changes the store ---- */

/** Whether it must be told what is there before the record of this key changes, or goes. */
bool bop__machine_past_wants(const struct machine_past *past, enum machine_table table,
                             struct bop_slice key, bool goes);

/** What was there before a change. */
struct past_note {
    enum machine_table table;
    bool existed;
    bool goes; /* With the change. */
    struct bop_slice key;
    struct bop_slice value;
};
/** Note it. A lack of memory is seen to here. */
void bop__machine_past_note(struct machine_past *past, const struct past_note *note);

/** All records up to and with this key of this table; with an empty key, of the tables before. */
struct past_place {
    unsigned table;
    uint16_t key_size;
    uint8_t key[BOP_KV_KEY_MAX];
};

static inline bool past_is_beyond(const struct past_place *place, enum machine_table table,
                                  struct bop_slice key)
{
    return (unsigned)table != place->table
               ? (unsigned)table > place->table
               : bop_slice_compare(key, bop_slice(place->key, place->key_size)) > 0;
}

/* ---- Notes: machine_past_notes.c ---- */

/** In the order in which they were made. */
struct past_run {
    struct bop_buf bytes;
    size_t count;
    size_t going; /* Of count. */
};

BOP_MUST_USE int bop__past_run_add(struct past_run *run, const struct past_note *note);
/** The note that begins there; *out_next is where the next one does. */
struct past_note bop__past_run_at(const struct past_run *run, size_t at, size_t *out_next);

static inline uint32_t past_hash(enum machine_table table, struct bop_slice key)
{
    return bop_crc32c((uint32_t)table, key.data, key.size);
}

struct past_gone;

/** The first note of each key. */
struct past_notes {
    struct bop_allocator *allocator;
    struct past_run *runs;
    size_t run_count;
    size_t run_capacity;
    uint64_t *slots; /* Open addressing, linear: 0, or run, place in it and a part of the hash. */
    size_t slot_count;
    size_t count;
    struct past_gone *gone[PAST_LEVELS]; /* Of keys that were deleted, in order: a skip list. */
    size_t bytes;                        /* Of memory. */
    uint64_t random;
};

void bop__past_notes_init(struct past_notes *notes, struct bop_allocator *allocator);
void bop__past_notes_deinit(struct past_notes *notes);
/** Take over the notes of a run that lie beyond the place; the run is left empty in any case. 0 or
 * BOP_ENOMEM. */
BOP_MUST_USE int bop__past_notes_add(struct past_notes *notes, struct past_run *run,
                                     const struct past_place *place);
/** Bring where such a hash is looked up closer to the processor. */
static inline void past_notes_fetch(const struct past_notes *notes, uint32_t hash)
{
    if (notes->count > 0) {
        __builtin_prefetch(&notes->slots[hash & (notes->slot_count - 1)]);
    }
}
/** hash is that of table and key. */
bool bop__past_notes_find(const struct past_notes *notes, enum machine_table table,
                          struct bop_slice key, uint32_t hash, struct past_note *out_note);
/** The first deleted key, borrowed until it is dropped. False: there is none. */
bool bop__past_notes_gone(const struct past_notes *notes, enum machine_table *out_table,
                          struct bop_slice *out_key);
void bop__past_notes_drop_gone(struct past_notes *notes);

#endif
