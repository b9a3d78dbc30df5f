/*
 * Entries and the rules by which records change them.
 */
#include "manifest_catalogue.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

/* ---- Entries ---- */

static void free_text(struct bop_allocator *allocator, char *text)
{
    if (text) {
        bop_free(allocator, text, strlen(text) + 1);
    }
}

static int copy_text(struct bop_allocator *allocator, const char *text, char **out_copy)
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

static void free_entry(struct bop_allocator *allocator, struct bop__manifest_entry *entry)
{
    free_text(allocator, entry->key);
    free_text(allocator, entry->etag);
    free_text(allocator, entry->upload_id);
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
    copy->etag = NULL;
    copy->upload_id = NULL;
    if (copy_text(allocator, entry->key, &copy->key) < 0 ||
        copy_text(allocator, entry->etag, &copy->etag) < 0 ||
        copy_text(allocator, entry->upload_id, &copy->upload_id) < 0) {
        free_entry(allocator, copy);
        return NULL;
    }
    return copy;
}

void bop__catalogue_init(struct bop__catalogue *catalogue, struct bop_allocator *allocator)
{
    *catalogue = (struct bop__catalogue){.allocator = allocator};
}

void bop__catalogue_deinit(struct bop__catalogue *catalogue)
{
    for (size_t i = 0; i < catalogue->count; i++) {
        free_entry(catalogue->allocator, catalogue->entries[i]);
    }
    if (catalogue->entries) {
        bop_free(catalogue->allocator, catalogue->entries,
                 catalogue->capacity * sizeof(*catalogue->entries));
    }
    bop__catalogue_init(catalogue, catalogue->allocator);
}

struct bop__manifest_entry *bop__catalogue_find(const struct bop__catalogue *catalogue,
                                                uint64_t generation)
{
    /* Newest first: most records are about those. */
    for (size_t i = catalogue->count; i-- > 0;) {
        if (catalogue->entries[i]->facts.generation == generation) {
            return catalogue->entries[i];
        }
    }
    return NULL;
}

static bool is_before(const struct bop__manifest_entry *a, const struct bop__segment_facts *b)
{
    return a->facts.base != b->base ? a->facts.base < b->base : a->facts.generation < b->generation;
}

static int grow(struct bop__catalogue *catalogue, size_t capacity)
{
    struct bop__manifest_entry **grown;

    if (capacity <= catalogue->capacity) {
        return 0;
    }
    grown = bop_realloc(catalogue->allocator, catalogue->entries,
                        catalogue->capacity * sizeof(*grown), capacity * sizeof(*grown));
    if (!grown) {
        return BOP_ENOMEM;
    }
    catalogue->entries = grown;
    catalogue->capacity = capacity;
    return 0;
}

/* Put in a copy of an entry; it has been checked. */
static int insert(struct bop__catalogue *catalogue, const struct bop__manifest_entry *entry)
{
    struct bop__manifest_entry *copy;
    size_t at = catalogue->count;

    if (catalogue->count == catalogue->capacity &&
        grow(catalogue, catalogue->capacity > 0 ? catalogue->capacity * 2 : 16) < 0) {
        return BOP_ENOMEM;
    }
    copy = copy_entry(catalogue->allocator, entry);
    if (!copy) {
        return BOP_ENOMEM;
    }
    while (at > 0 && !is_before(catalogue->entries[at - 1], &entry->facts)) {
        catalogue->entries[at] = catalogue->entries[at - 1];
        at--;
    }
    catalogue->entries[at] = copy;
    catalogue->count++;
    return 0;
}

/* Entries that nothing is left of leave. */
static bool is_gone(const struct bop__manifest_entry *entry)
{
    return (entry->dropped || entry->deleted) && !entry->uploaded && !entry->uploading;
}

static void sweep(struct bop__catalogue *catalogue)
{
    size_t kept = 0;

    for (size_t i = 0; i < catalogue->count; i++) {
        if (is_gone(catalogue->entries[i])) {
            free_entry(catalogue->allocator, catalogue->entries[i]);
        } else {
            catalogue->entries[kept++] = catalogue->entries[i];
        }
    }
    catalogue->count = kept;
}

/* ---- What may follow ---- */

BOP_PRINTF(3, 4)
static int refuse(const struct bop__manifest_record *record, struct bop_error *err,
                  const char *format, ...)
{
    char why[160];
    va_list args;

    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    return bop_error_set(err, BOP_ECONDITION, "%s of segment generation %" PRIu64 ": %s",
                         bop__manifest_kind_name(record->kind), record->generation, why);
}

static int check_new(const struct bop__catalogue *catalogue,
                     const struct bop__manifest_record *record,
                     const struct bop__segment_facts *facts, struct bop_error *err)
{
    if (facts->generation == 0 || facts->base == 0 || facts->end_seq <= facts->base) {
        return refuse(record, err, "it holds no records");
    }
    for (size_t i = 0; i < catalogue->count; i++) {
        const struct bop__manifest_entry *entry = catalogue->entries[i];

        if (entry->facts.generation == facts->generation) {
            return refuse(record, err, "it is there already");
        }
        if (!entry->dropped && entry->facts.base < facts->end_seq &&
            facts->base < entry->facts.end_seq) {
            return refuse(record, err,
                          "records %" PRIu64 " to %" PRIu64 " overlap generation %" PRIu64
                          " with %" PRIu64 " to %" PRIu64,
                          facts->base, facts->end_seq - 1, entry->facts.generation,
                          entry->facts.base, entry->facts.end_seq - 1);
        }
    }
    return 0;
}

static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool is_packed(const struct bop__manifest_entry *entry)
{
    return entry->packed && !entry->packed_evicted;
}

/* Why a record about an entry does not follow; NULL if it does. */
static const char *objection(const struct bop__manifest_entry *entry,
                             const struct bop__manifest_record *record)
{
    switch (record->kind) {
    case BOP__MANIFEST_COMPRESSION_DONE:
    case BOP__MANIFEST_COMPRESSION_FAILED:
        return entry->packing ? NULL : "it was not begun";
    case BOP__MANIFEST_UPLOAD_STARTED:
        return entry->uploaded        ? "it is uploaded already"
               : entry->delete_queued ? "it is to be deleted"
               : !is_packed(entry)    ? "it is not packed"
               : !record->key         ? "it has no key"
                                      : NULL;
    case BOP__MANIFEST_UPLOAD_DONE:
    case BOP__MANIFEST_UPLOAD_FAILED:
        return !entry->uploading                     ? "it was not begun"
               : !same_text(entry->key, record->key) ? "it was begun under another key"
                                                     : NULL;
    case BOP__MANIFEST_TIER2_DELETE_QUEUED:
        return !entry->uploaded && !entry->uploading ? "it is not uploaded"
               : !same_text(entry->key, record->key) ? "it has another key"
                                                     : NULL;
    case BOP__MANIFEST_TIER2_DELETED:
        return !entry->delete_queued                 ? "it was not queued"
               : !same_text(entry->key, record->key) ? "it has another key"
                                                     : NULL;
    case BOP__MANIFEST_HYDRATION_DONE:
    case BOP__MANIFEST_HYDRATION_FAILED:
        return entry->hydrating ? NULL : "it was not begun";
    case BOP__MANIFEST_LOCAL_EVICTED:
        return entry->dropped || entry->uploaded       ? NULL
               : record->tier == 0 && is_packed(entry) ? NULL
                                                       : "no lower tier holds it";
    default:
        return NULL;
    }
}

/* ---- Changes ---- */

static void seal(struct bop__manifest_entry *out_entry, const struct bop__manifest_record *record)
{
    *out_entry = (struct bop__manifest_entry){.facts = record->facts};
}

/* Replace key and upload id or etag by copies; both or none. */
static int set_texts(struct bop_allocator *allocator, const struct bop__manifest_record *record,
                     char **key, char **text)
{
    char *key_copy, *text_copy;

    if (copy_text(allocator, record->key, &key_copy) < 0) {
        return BOP_ENOMEM;
    }
    if (copy_text(allocator, record->text, &text_copy) < 0) {
        free_text(allocator, key_copy);
        return BOP_ENOMEM;
    }
    free_text(allocator, *key);
    free_text(allocator, *text);
    *key = key_copy;
    *text = text_copy;
    return 0;
}

static int upload_started(struct bop_allocator *allocator, struct bop__manifest_entry *entry,
                          const struct bop__manifest_record *record)
{
    int rc = set_texts(allocator, record, &entry->key, &entry->upload_id);

    if (rc == 0) {
        entry->uploading = true;
    }
    return rc;
}

static int upload_done(struct bop_allocator *allocator, struct bop__manifest_entry *entry,
                       const struct bop__manifest_record *record)
{
    int rc = set_texts(allocator, record, &entry->key, &entry->etag);

    if (rc < 0) {
        return rc;
    }
    free_text(allocator, entry->upload_id);
    entry->upload_id = NULL;
    entry->uploading = false;
    entry->uploaded = true;
    entry->deleted = false;
    entry->uploaded_ms = record->time_ms;
    memcpy(entry->sha256, record->sha256, sizeof(entry->sha256));
    return 0;
}

static void compression_done(struct bop__manifest_entry *entry,
                             const struct bop__manifest_record *record)
{
    entry->packing = false;
    entry->packed = true;
    entry->packed_evicted = false;
    entry->packed_bytes = record->packed_bytes;
    entry->packed_ms = record->time_ms;
    memcpy(entry->sha256, record->sha256, sizeof(entry->sha256));
}

static void tier2_deleted(struct bop_allocator *allocator, struct bop__manifest_entry *entry)
{
    entry->uploaded = entry->uploading = entry->delete_queued = false;
    entry->deleted = true;
    free_text(allocator, entry->upload_id);
    entry->upload_id = NULL;
}

static int change(struct bop_allocator *allocator, struct bop__manifest_entry *entry,
                  const struct bop__manifest_record *record)
{
    switch (record->kind) {
    case BOP__MANIFEST_COMPRESSION_STARTED:
        entry->packing = true;
        return 0;
    case BOP__MANIFEST_COMPRESSION_DONE:
        compression_done(entry, record);
        return 0;
    case BOP__MANIFEST_COMPRESSION_FAILED:
        entry->packing = false;
        return 0;
    case BOP__MANIFEST_UPLOAD_STARTED:
        return upload_started(allocator, entry, record);
    case BOP__MANIFEST_UPLOAD_DONE:
        return upload_done(allocator, entry, record);
    case BOP__MANIFEST_UPLOAD_FAILED:
        /* Something may have come there all the same: the key, and the upload, stay known. */
        return 0;
    case BOP__MANIFEST_TIER2_DELETE_QUEUED:
        entry->delete_queued = true;
        entry->due_ms = record->due_ms;
        return 0;
    case BOP__MANIFEST_TIER2_DELETED:
        tier2_deleted(allocator, entry);
        return 0;
    case BOP__MANIFEST_HYDRATION_STARTED:
        entry->hydrating = true;
        return 0;
    case BOP__MANIFEST_HYDRATION_DONE:
        entry->hydrating = false;
        entry->packed = entry->packed || record->tier > 0;
        entry->packed_evicted = false;
        return 0;
    case BOP__MANIFEST_HYDRATION_FAILED:
        entry->hydrating = false;
        return 0;
    case BOP__MANIFEST_LOCAL_EVICTED:
        entry->raw_evicted = entry->raw_evicted || record->tier == 0;
        entry->packed_evicted = entry->packed_evicted || record->tier == 1;
        return 0;
    default:
        return 0;
    }
}

static void truncate(struct bop__catalogue *catalogue, const struct bop__manifest_record *record)
{
    for (size_t i = 0; i < catalogue->count; i++) {
        struct bop__manifest_entry *entry = catalogue->entries[i];

        if (entry->facts.end_seq <= record->first_seq ||
            entry->facts.end_seq - 1 > record->last_seq) {
            entry->dropped = true;
        }
    }
    sweep(catalogue);
}

int bop__catalogue_apply(struct bop__catalogue *catalogue,
                         const struct bop__manifest_record *record, struct bop_error *err)
{
    struct bop__manifest_entry *entry, sealed;
    const char *why;
    int rc;

    switch (record->kind) {
    case BOP__MANIFEST_SEAL_SEGMENT:
        if (record->generation != record->facts.generation) {
            return refuse(record, err, "its facts are another's");
        }
        rc = check_new(catalogue, record, &record->facts, err);
        if (rc < 0) {
            return rc;
        }
        seal(&sealed, record);
        return insert(catalogue, &sealed);
    case BOP__MANIFEST_TRUNCATED:
        truncate(catalogue, record);
        return 0;
    case BOP__MANIFEST_CATALOGUE:
    case BOP__MANIFEST_SNAPSHOT_MARKER:
        return refuse(record, err, "it belongs in a snapshot");
    case BOP__MANIFEST_SEGMENT_OPENED:
    case BOP__MANIFEST_CUSTOM_EVENT:
        return 0;
    default:
        break;
    }
    if (record->kind > BOP__MANIFEST_TRUNCATED) {
        return 0; /* A newer program's: it changes nothing here. */
    }
    entry = bop__catalogue_find(catalogue, record->generation);
    if (!entry) {
        return refuse(record, err, "there is no such segment");
    }
    why = objection(entry, record);
    if (why) {
        return refuse(record, err, "%s", why);
    }
    rc = change(catalogue->allocator, entry, record);
    if (rc == 0) {
        sweep(catalogue);
    }
    return rc;
}

int bop__catalogue_restore(struct bop__catalogue *catalogue,
                           const struct bop__manifest_entry *entry, struct bop_error *err)
{
    const struct bop__segment_facts *facts = &entry->facts;

    if (facts->generation == 0 || facts->base == 0 || facts->end_seq <= facts->base) {
        return bop_error_set(err, BOP_ECONDITION, "an entry of the snapshot holds no records");
    }
    /* They come in order, so that the nearest kept one is the only one to look at. */
    for (size_t i = catalogue->count; i-- > 0;) {
        const struct bop__manifest_entry *before = catalogue->entries[i];

        if (!is_before(before, facts)) {
            return bop_error_set(err, BOP_ECONDITION, "the snapshot's entries are out of order");
        }
        if (entry->dropped) {
            break;
        }
        if (!before->dropped) {
            if (before->facts.end_seq > facts->base) {
                return bop_error_set(err, BOP_ECONDITION,
                                     "entries of the snapshot overlap at record %" PRIu64,
                                     facts->base);
            }
            break;
        }
    }
    return insert(catalogue, entry);
}

int bop__catalogue_copy(const struct bop__catalogue *catalogue, struct bop__catalogue *out_copy)
{
    int rc = grow(out_copy, catalogue->count);

    for (size_t i = 0; rc == 0 && i < catalogue->count; i++) {
        out_copy->entries[i] = copy_entry(out_copy->allocator, catalogue->entries[i]);
        if (!out_copy->entries[i]) {
            rc = BOP_ENOMEM;
        } else {
            out_copy->count++;
        }
    }
    return rc;
}
