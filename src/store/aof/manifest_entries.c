/*
 * The entries of a catalogue, in two orders, and what undoes their changes.
 *
 * Each change is noted before it is made, so that undoing needs no memory:
 *
 *      save     the entry as it was. Its texts stay with that: a record that speaks of an entry by
 *               its own key may be used until the changes are kept
 *      insert   that it was not there
 *      remove   with the save before it: the entry lives until the changes are kept
 *
 * So a record costs what it touches, however many entries there are.
 */
#include "manifest_catalogue.h"

/* ---- Texts ---- */

void bop__entry_text_free(struct bop_allocator *allocator, char *text)
{
    if (text) {
        bop_free(allocator, text, strlen(text) + 1);
    }
}

int bop__entry_text_copy(struct bop_allocator *allocator, const char *text, char **out_copy)
{
    size_t size = text ? strlen(text) + 1 : 0;

    *out_copy = NULL;
    if (size == 0) {
        return 0;
    }
    *out_copy = bop_alloc(allocator, size);
    if (!*out_copy) {
        return BOP_ENOMEM;
    }
    memcpy(*out_copy, text, size);
    return 0;
}

static void free_texts(struct bop_allocator *allocator, struct bop__manifest_entry *entry)
{
    bop__entry_text_free(allocator, entry->key);
    bop__entry_text_free(allocator, entry->etag);
    bop__entry_text_free(allocator, entry->upload_id);
}

static void free_entry(struct bop_allocator *allocator, struct bop__manifest_entry *entry)
{
    free_texts(allocator, entry);
    bop_free(allocator, entry, sizeof(*entry));
}

static struct bop__manifest_entry *copy_entry(struct bop_allocator *allocator,
                                              const struct bop__manifest_entry *entry)
{
    struct bop__manifest_entry *copy = bop_alloc(allocator, sizeof(*copy));

    if (!copy) {
        return NULL;
    }
    *copy = *entry;
    copy->key = copy->etag = copy->upload_id = NULL;
    if (bop__entry_text_copy(allocator, entry->key, &copy->key) < 0 ||
        bop__entry_text_copy(allocator, entry->etag, &copy->etag) < 0 ||
        bop__entry_text_copy(allocator, entry->upload_id, &copy->upload_id) < 0) {
        free_entry(allocator, copy);
        return NULL;
    }
    return copy;
}

/* ---- Places ---- */

bool bop__entry_is_before(const struct bop__manifest_entry *a, const struct bop__segment_facts *b)
{
    return a->facts.base != b->base ? a->facts.base < b->base : a->facts.generation < b->generation;
}

size_t bop__catalogue_place(const struct bop__catalogue *catalogue,
                            const struct bop__segment_facts *facts)
{
    size_t low = 0, high = catalogue->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (bop__entry_is_before(catalogue->entries[middle], facts)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The first one of this generation or a later one, in by_generation. */
static size_t generation_place(const struct bop__catalogue *catalogue, uint64_t generation)
{
    size_t low = 0, high = catalogue->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (catalogue->by_generation[middle]->facts.generation < generation) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct bop__manifest_entry *bop__catalogue_find(const struct bop__catalogue *catalogue,
                                                uint64_t generation)
{
    size_t at = generation_place(catalogue, generation);

    return at < catalogue->count && catalogue->by_generation[at]->facts.generation == generation
               ? catalogue->by_generation[at]
               : NULL;
}

static void put_at(struct bop__manifest_entry **entries, size_t count, size_t at,
                   struct bop__manifest_entry *entry)
{
    memmove(entries + at + 1, entries + at, (count - at) * sizeof(struct bop__manifest_entry *));
    entries[at] = entry;
}

static void take_from(struct bop__manifest_entry **entries, size_t count, size_t at)
{
    memmove(entries + at, entries + at + 1,
            (count - at - 1) * sizeof(struct bop__manifest_entry *));
}

/* There is room. */
static void link_entry(struct bop__catalogue *catalogue, struct bop__manifest_entry *entry)
{
    size_t place = bop__catalogue_place(catalogue, &entry->facts);
    size_t by_generation = generation_place(catalogue, entry->facts.generation);

    put_at(catalogue->entries, catalogue->count, place, entry);
    put_at(catalogue->by_generation, catalogue->count, by_generation, entry);
    catalogue->count++;
}

static void unlink_entry(struct bop__catalogue *catalogue, const struct bop__manifest_entry *entry)
{
    take_from(catalogue->entries, catalogue->count, bop__catalogue_place(catalogue, &entry->facts));
    take_from(catalogue->by_generation, catalogue->count,
              generation_place(catalogue, entry->facts.generation));
    catalogue->count--;
}

/* Room for one more entry. */
static int reserve_entry(struct bop__catalogue *catalogue)
{
    size_t capacity = catalogue->capacity > 0 ? catalogue->capacity * 2 : 16;
    size_t pointer = sizeof(struct bop__manifest_entry *);
    struct bop__manifest_entry **entries, **by_generation;

    if (catalogue->count < catalogue->capacity) {
        return 0;
    }
    entries = bop_alloc(catalogue->allocator, capacity * pointer);
    by_generation = entries ? bop_alloc(catalogue->allocator, capacity * pointer) : NULL;
    if (!by_generation) {
        if (entries) {
            bop_free(catalogue->allocator, entries, capacity * pointer);
        }
        return BOP_ENOMEM;
    }
    if (catalogue->capacity > 0) {
        memcpy(entries, catalogue->entries, catalogue->count * pointer);
        memcpy(by_generation, catalogue->by_generation, catalogue->count * pointer);
        bop_free(catalogue->allocator, catalogue->entries, catalogue->capacity * pointer);
        bop_free(catalogue->allocator, catalogue->by_generation, catalogue->capacity * pointer);
    }
    catalogue->entries = entries;
    catalogue->by_generation = by_generation;
    catalogue->capacity = capacity;
    return 0;
}

/* ---- Changes ---- */

struct bop__catalogue_change {
    struct bop__manifest_entry *entry;
    struct bop__manifest_entry *before; /* NULL: it was not there. */
    bool removed;
};

/* Room for one more change. */
static int reserve_change(struct bop__catalogue *catalogue)
{
    size_t size = sizeof(*catalogue->changes);
    size_t capacity = catalogue->change_capacity > 0 ? catalogue->change_capacity * 2 : 16;
    struct bop__catalogue_change *grown;

    if (catalogue->change_count < catalogue->change_capacity) {
        return 0;
    }
    grown = bop_realloc(catalogue->allocator, catalogue->changes, catalogue->change_capacity * size,
                        capacity * size);
    if (!grown) {
        return BOP_ENOMEM;
    }
    catalogue->changes = grown;
    catalogue->change_capacity = capacity;
    return 0;
}

int bop__catalogue_save(struct bop__catalogue *catalogue, struct bop__manifest_entry *entry)
{
    int rc = reserve_change(catalogue);
    struct bop__manifest_entry *copy = rc == 0 ? copy_entry(catalogue->allocator, entry) : NULL;
    struct bop__manifest_entry was;

    if (!copy) {
        return BOP_ENOMEM;
    }
    was = *entry;
    *entry = *copy;
    *copy = was;
    catalogue->changes[catalogue->change_count++] = (struct bop__catalogue_change){.entry = entry,
                                                                                   .before = copy};
    return 0;
}

int bop__catalogue_insert(struct bop__catalogue *catalogue, const struct bop__manifest_entry *entry)
{
    int rc = reserve_entry(catalogue);
    struct bop__manifest_entry *copy;

    if (rc == 0) {
        rc = reserve_change(catalogue);
    }
    copy = rc == 0 ? copy_entry(catalogue->allocator, entry) : NULL;
    if (!copy) {
        return BOP_ENOMEM;
    }
    link_entry(catalogue, copy);
    catalogue->changes[catalogue->change_count++] = (struct bop__catalogue_change){.entry = copy};
    return 0;
}

void bop__catalogue_remove(struct bop__catalogue *catalogue, struct bop__manifest_entry *entry)
{
    struct bop__catalogue_change *last = &catalogue->changes[catalogue->change_count - 1];

    BOP_ASSERT(catalogue->change_count > 0 && last->entry == entry && last->before);
    unlink_entry(catalogue, entry);
    last->removed = true;
}

void bop__catalogue_keep(struct bop__catalogue *catalogue)
{
    struct bop_allocator *allocator = catalogue->allocator;

    for (size_t i = 0; i < catalogue->change_count; i++) {
        struct bop__catalogue_change *change = &catalogue->changes[i];

        if (change->before) {
            free_entry(allocator, change->before);
        }
        if (change->removed) {
            free_entry(allocator, change->entry);
        }
    }
    catalogue->change_count = 0;
    catalogue->undoable = false;
}

static void undo(struct bop__catalogue *catalogue, const struct bop__catalogue_change *change)
{
    struct bop_allocator *allocator = catalogue->allocator;

    if (!change->before) {
        unlink_entry(catalogue, change->entry);
        free_entry(allocator, change->entry);
        return;
    }
    free_texts(allocator, change->entry);
    *change->entry = *change->before;
    bop_free(allocator, change->before, sizeof(*change->before));
    if (change->removed) {
        link_entry(catalogue, change->entry); /* There is room: it was there. */
    }
}

void bop__catalogue_undo(struct bop__catalogue *catalogue, size_t mark)
{
    while (catalogue->change_count > mark) {
        undo(catalogue, &catalogue->changes[--catalogue->change_count]);
    }
    catalogue->undoable = catalogue->undoable && mark > 0;
}

/* ---- Life ---- */

void bop__catalogue_init(struct bop__catalogue *catalogue, struct bop_allocator *allocator)
{
    *catalogue = (struct bop__catalogue){.allocator = allocator};
}

void bop__catalogue_deinit(struct bop__catalogue *catalogue)
{
    struct bop_allocator *allocator = catalogue->allocator;
    size_t bytes = catalogue->capacity * sizeof(struct bop__manifest_entry *);

    bop__catalogue_keep(catalogue);
    for (size_t i = 0; i < catalogue->count; i++) {
        free_entry(allocator, catalogue->entries[i]);
    }
    if (bytes > 0) {
        bop_free(allocator, catalogue->entries, bytes);
        bop_free(allocator, catalogue->by_generation, bytes);
    }
    if (catalogue->changes) {
        bop_free(allocator, catalogue->changes,
                 catalogue->change_capacity * sizeof(*catalogue->changes));
    }
    bop__catalogue_init(catalogue, allocator);
}
