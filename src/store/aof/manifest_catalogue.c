/*
 * The rules by which records change entries.
 */
#include "manifest_catalogue.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

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

/* Those that are not dropped do not overlap each other: the nearest on either side decides. */
static const struct bop__manifest_entry *overlapping(const struct bop__catalogue *catalogue,
                                                     const struct bop__segment_facts *facts)
{
    size_t at = bop__catalogue_place(catalogue, facts);

    for (size_t i = at; i-- > 0;) {
        const struct bop__manifest_entry *before = catalogue->entries[i];

        if (!before->dropped) {
            if (before->facts.end_seq > facts->base) {
                return before;
            }
            break;
        }
    }
    for (size_t i = at; i < catalogue->count; i++) {
        const struct bop__manifest_entry *after = catalogue->entries[i];

        if (!after->dropped) {
            return after->facts.base < facts->end_seq ? after : NULL;
        }
    }
    return NULL;
}

static int check_new(const struct bop__catalogue *catalogue,
                     const struct bop__manifest_record *record,
                     const struct bop__segment_facts *facts, struct bop_error *err)
{
    const struct bop__manifest_entry *entry;

    if (facts->generation == 0 || facts->base == 0 || facts->end_seq <= facts->base) {
        return refuse(record, err, "it holds no records");
    }
    if (bop__catalogue_find(catalogue, facts->generation)) {
        return refuse(record, err, "it is there already");
    }
    entry = overlapping(catalogue, facts);
    if (entry) {
        return refuse(record, err,
                      "records %" PRIu64 " to %" PRIu64 " overlap generation %" PRIu64
                      " with %" PRIu64 " to %" PRIu64,
                      facts->base, facts->end_seq - 1, entry->facts.generation, entry->facts.base,
                      entry->facts.end_seq - 1);
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

    if (bop__entry_text_copy(allocator, record->key, &key_copy) < 0) {
        return BOP_ENOMEM;
    }
    if (bop__entry_text_copy(allocator, record->text, &text_copy) < 0) {
        bop__entry_text_free(allocator, key_copy);
        return BOP_ENOMEM;
    }
    bop__entry_text_free(allocator, *key);
    bop__entry_text_free(allocator, *text);
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
    bop__entry_text_free(allocator, entry->upload_id);
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
    bop__entry_text_free(allocator, entry->upload_id);
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

/* Entries that nothing is left of leave. */
static void sweep(struct bop__catalogue *catalogue, struct bop__manifest_entry *entry)
{
    if ((entry->dropped || entry->deleted) && !entry->uploaded && !entry->uploading) {
        bop__catalogue_remove(catalogue, entry);
    }
}

static int truncate(struct bop__catalogue *catalogue, const struct bop__manifest_record *record)
{
    for (size_t i = catalogue->count; i-- > 0;) {
        struct bop__manifest_entry *entry = catalogue->entries[i];

        if (!entry->dropped && (entry->facts.end_seq <= record->first_seq ||
                                entry->facts.end_seq - 1 > record->last_seq)) {
            int rc = bop__catalogue_save(catalogue, entry);

            if (rc < 0) {
                return rc;
            }
            entry->dropped = true;
            sweep(catalogue, entry);
        }
    }
    return 0;
}

/* What it changed before it failed is undone by the caller. */
static int apply(struct bop__catalogue *catalogue, const struct bop__manifest_record *record,
                 struct bop_error *err)
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
        return bop__catalogue_insert(catalogue, &sealed);
    case BOP__MANIFEST_TRUNCATED:
        return truncate(catalogue, record);
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
    rc = bop__catalogue_save(catalogue, entry);
    if (rc == 0) {
        rc = change(catalogue->allocator, entry, record);
    }
    if (rc == 0) {
        sweep(catalogue, entry);
    }
    return rc;
}

int bop__catalogue_apply(struct bop__catalogue *catalogue,
                         const struct bop__manifest_record *record, struct bop_error *err)
{
    size_t mark = catalogue->change_count;
    int rc = apply(catalogue, record, err);

    if (rc < 0) {
        bop__catalogue_undo(catalogue, mark);
    } else if (!catalogue->undoable) {
        bop__catalogue_keep(catalogue);
    }
    return rc;
}

int bop__catalogue_restore(struct bop__catalogue *catalogue,
                           const struct bop__manifest_entry *entry, struct bop_error *err)
{
    const struct bop__segment_facts *facts = &entry->facts;
    int rc;

    if (facts->generation == 0 || facts->base == 0 || facts->end_seq <= facts->base) {
        return bop_error_set(err, BOP_ECONDITION, "an entry of the snapshot holds no records");
    }
    /* They come in order, so that the nearest kept one is the only one to look at. */
    for (size_t i = catalogue->count; i-- > 0;) {
        const struct bop__manifest_entry *before = catalogue->entries[i];

        if (!bop__entry_is_before(before, facts)) {
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
    rc = bop__catalogue_insert(catalogue, entry);
    bop__catalogue_keep(catalogue);
    return rc;
}
