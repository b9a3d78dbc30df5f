/*
 * Chunk headers and records of the manifest.
 */
#include "manifest_format.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const kind_names[] = {
    [BOP__MANIFEST_SEGMENT_OPENED] = "segment-opened",
    [BOP__MANIFEST_SEAL_SEGMENT] = "seal-segment",
    [BOP__MANIFEST_COMPRESSION_STARTED] = "compression-started",
    [BOP__MANIFEST_COMPRESSION_DONE] = "compression-done",
    [BOP__MANIFEST_COMPRESSION_FAILED] = "compression-failed",
    [BOP__MANIFEST_UPLOAD_STARTED] = "upload-started",
    [BOP__MANIFEST_UPLOAD_DONE] = "upload-done",
    [BOP__MANIFEST_UPLOAD_FAILED] = "upload-failed",
    [BOP__MANIFEST_TIER2_DELETE_QUEUED] = "tier2-delete-queued",
    [BOP__MANIFEST_TIER2_DELETED] = "tier2-deleted",
    [BOP__MANIFEST_HYDRATION_STARTED] = "hydration-started",
    [BOP__MANIFEST_HYDRATION_DONE] = "hydration-done",
    [BOP__MANIFEST_HYDRATION_FAILED] = "hydration-failed",
    [BOP__MANIFEST_LOCAL_EVICTED] = "local-evicted",
    [BOP__MANIFEST_SNAPSHOT_MARKER] = "snapshot-marker",
    [BOP__MANIFEST_CUSTOM_EVENT] = "custom-event",
    [BOP__MANIFEST_CATALOGUE] = "catalogue",
    [BOP__MANIFEST_TRUNCATED] = "truncated",
};

const char *bop__manifest_kind_name(enum bop__manifest_kind kind)
{
    return (size_t)kind < BOP_COUNT_OF(kind_names) ? kind_names[kind] : "unknown";
}

/* ---- Names ---- */

void bop__manifest_name(uint64_t index, char out_name[BOP__MANIFEST_NAME_SIZE])
{
    int size = snprintf(out_name, BOP__MANIFEST_NAME_SIZE, "%020" PRIu64 ".mlog", index);

    BOP_ASSERT(size == BOP__MANIFEST_NAME_SIZE - 1);
}

bool bop__manifest_name_parse(const char *name, uint64_t *out_index)
{
    char again[BOP__MANIFEST_NAME_SIZE];

    if (strlen(name) != BOP__MANIFEST_NAME_SIZE - 1) {
        return false;
    }
    *out_index = strtoull(name, NULL, 10);
    bop__manifest_name(*out_index, again);
    return *out_index > 0 && strcmp(name, again) == 0;
}

/* ---- Header ---- */

static uint32_t header_crc(struct bop__manifest_chunk_header header)
{
    header.crc = 0;
    return bop_crc32c(0, &header, sizeof(header));
}

int bop__manifest_header_encode(uint64_t index, const uint8_t log_id[BOP_AOF_ID_SIZE],
                                uint64_t first, uint32_t seed, struct bop_buf *out,
                                struct bop__manifest_place *out_place)
{
    struct bop__manifest_chunk_header header = {.magic = BOP__MANIFEST_MAGIC,
                                                .version = BOP__MANIFEST_VERSION,
                                                .index = index,
                                                .first = first,
                                                .seed = seed};

    memcpy(header.log_id, log_id, BOP_AOF_ID_SIZE);
    header.crc = header_crc(header);
    *out_place = (struct bop__manifest_place){.salt = header.crc, .number = first, .chain = seed};
    return bop_buf_append(out, &header, sizeof(header));
}

int bop__manifest_header_decode(struct bop_slice chunk, const char *path,
                                struct bop__manifest_chunk_header *out_header,
                                struct bop__manifest_place *out_place, struct bop_error *err)
{
    if (chunk.size < BOP__MANIFEST_HEADER) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: no whole header", path);
    }
    memcpy(out_header, chunk.data, sizeof(*out_header));
    if (out_header->magic != BOP__MANIFEST_MAGIC) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: not a chunk of a manifest", path);
    }
    if (out_header->crc != header_crc(*out_header)) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: the header's checksum is wrong", path);
    }
    if (out_header->version != BOP__MANIFEST_VERSION || out_header->flags != 0) {
        return bop_error_set(err, BOP_EVERSION,
                             "%s: version %u, flags %#x; this program knows version %u", path,
                             out_header->version, out_header->flags, BOP__MANIFEST_VERSION);
    }
    if (out_header->first == 0) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: the header has no first record", path);
    }
    *out_place = (struct bop__manifest_place){
        .salt = out_header->crc, .number = out_header->first, .chain = out_header->seed};
    return 0;
}

/* ---- Writing records ---- */

static void write_string(struct bop_writer *writer, const char *text)
{
    size_t size = text ? strlen(text) : 0;

    if (size > BOP__MANIFEST_STRING_MAX) {
        writer->code = writer->code == 0 ? BOP_ETOOBIG : writer->code;
        return;
    }
    bop_write_u16(writer, (uint16_t)size);
    bop_write_raw(writer, bop_slice(text, size));
}

static void write_facts(struct bop_writer *writer, const struct bop__segment_facts *facts)
{
    bop_write_raw(writer, bop_slice(facts, sizeof(*facts)));
}

static uint32_t flags_of(const struct bop__manifest_entry *entry)
{
    return (entry->packed ? BOP__ENTRY_PACKED : 0u) |
           (entry->packed_evicted ? BOP__ENTRY_PACKED_EVICTED : 0u) |
           (entry->raw_evicted ? BOP__ENTRY_RAW_EVICTED : 0u) |
           (entry->uploading ? BOP__ENTRY_UPLOADING : 0u) |
           (entry->uploaded ? BOP__ENTRY_UPLOADED : 0u) |
           (entry->delete_queued ? BOP__ENTRY_DELETE_QUEUED : 0u) |
           (entry->deleted ? BOP__ENTRY_DELETED : 0u) | (entry->dropped ? BOP__ENTRY_DROPPED : 0u) |
           (entry->packing ? BOP__ENTRY_PACKING : 0u) |
           (entry->hydrating ? BOP__ENTRY_HYDRATING : 0u);
}

static void write_entry(struct bop_writer *writer, const struct bop__manifest_entry *entry)
{
    write_facts(writer, &entry->facts);
    bop_write_u32(writer, flags_of(entry));
    bop_write_u64(writer, entry->packed_bytes);
    bop_write_raw(writer, bop_slice(entry->sha256, sizeof(entry->sha256)));
    bop_write_u64(writer, entry->packed_ms);
    bop_write_u64(writer, entry->uploaded_ms);
    bop_write_u64(writer, entry->due_ms);
    write_string(writer, entry->key);
    write_string(writer, entry->etag);
    write_string(writer, entry->upload_id);
}

static void write_payload(struct bop_writer *writer, const struct bop__manifest_record *record,
                          const struct bop__manifest_entry *entry)
{
    switch (record->kind) {
    case BOP__MANIFEST_SEGMENT_OPENED:
        bop_write_u64(writer, record->facts.base);
        bop_write_u64(writer, record->facts.epoch);
        return;
    case BOP__MANIFEST_SEAL_SEGMENT:
        write_facts(writer, &record->facts);
        return;
    case BOP__MANIFEST_COMPRESSION_STARTED:
        return;
    case BOP__MANIFEST_COMPRESSION_DONE:
        bop_write_u64(writer, record->packed_bytes);
        bop_write_raw(writer, bop_slice(record->sha256, sizeof(record->sha256)));
        return;
    case BOP__MANIFEST_COMPRESSION_FAILED:
    case BOP__MANIFEST_HYDRATION_FAILED:
        bop_write_u32(writer, record->reason);
        return;
    case BOP__MANIFEST_UPLOAD_STARTED:
        write_string(writer, record->key);
        write_string(writer, record->text);
        return;
    case BOP__MANIFEST_UPLOAD_DONE:
        write_string(writer, record->key);
        write_string(writer, record->text);
        bop_write_raw(writer, bop_slice(record->sha256, sizeof(record->sha256)));
        return;
    case BOP__MANIFEST_UPLOAD_FAILED:
        write_string(writer, record->key);
        bop_write_u32(writer, record->reason);
        return;
    case BOP__MANIFEST_TIER2_DELETE_QUEUED:
        write_string(writer, record->key);
        bop_write_u64(writer, record->due_ms);
        return;
    case BOP__MANIFEST_TIER2_DELETED:
        write_string(writer, record->key);
        return;
    case BOP__MANIFEST_HYDRATION_STARTED:
        bop_write_u32(writer, record->tier);
        return;
    case BOP__MANIFEST_HYDRATION_DONE:
    case BOP__MANIFEST_LOCAL_EVICTED:
        bop_write_u64(writer, record->packed_bytes);
        bop_write_u32(writer, record->tier);
        return;
    case BOP__MANIFEST_SNAPSHOT_MARKER:
        bop_write_u64(writer, record->first_seq);
        return;
    case BOP__MANIFEST_CUSTOM_EVENT:
        bop_write_u32(writer, record->schema);
        bop_write_bytes(writer, record->blob);
        return;
    case BOP__MANIFEST_CATALOGUE:
        write_entry(writer, entry);
        return;
    case BOP__MANIFEST_TRUNCATED:
        bop_write_u64(writer, record->first_seq);
        bop_write_u64(writer, record->last_seq);
        return;
    default:
        bop_write_raw(writer, record->blob);
        return;
    }
}

static uint32_t record_crc(uint32_t salt, struct bop__manifest_record_header header)
{
    header.header_crc = 0;
    return bop_crc32c(salt, &header, sizeof(header));
}

static uint32_t link_of(const struct bop__manifest_record_header *header)
{
    const uint32_t words[3] = {header->header_crc, header->payload_crc, header->chain};

    return bop_crc32c(0, words, sizeof(words));
}

int bop__manifest_record_encode(const struct bop__manifest_record *record,
                                const struct bop__manifest_entry *entry,
                                struct bop__manifest_place *place, struct bop_buf *out)
{
    static const uint8_t zeros[BOP__MANIFEST_RECORD];
    struct bop__manifest_record_header header = {.number = place->number,
                                                 .generation = record->generation,
                                                 .time_ms = record->time_ms,
                                                 .kind = (uint16_t)record->kind,
                                                 .back = place->back,
                                                 .chain = place->chain,
                                                 .mark = BOP__MANIFEST_MARK};
    struct bop_writer writer = bop_writer(out);
    size_t start = out->size;
    size_t length;

    bop_write_raw(&writer, bop_slice(zeros, sizeof(header)));
    write_payload(&writer, record, entry);
    length = out->size - start - (writer.code == 0 ? sizeof(header) : 0);
    if (writer.code == 0 && length > BOP__MANIFEST_PAYLOAD_MAX) {
        writer.code = BOP_ETOOBIG;
    }
    if (writer.code == 0) {
        bop_write_raw(
            &writer, bop_slice(zeros, bop__manifest_record_size(length) - sizeof(header) - length));
    }
    if (writer.code < 0) {
        out->size = start;
        return writer.code;
    }
    header.length = (uint32_t)length;
    header.payload_crc = bop_crc32c(0, out->data + start + sizeof(header), length);
    header.header_crc = record_crc(place->salt, header);
    memcpy(out->data + start, &header, sizeof(header));
    place->number++;
    place->back++;
    place->chain = link_of(&header);
    return 0;
}

/* ---- Reading records ---- */

static const char *read_string(struct bop_reader *reader, char out_text[])
{
    struct bop_slice text = bop_read_raw(reader, bop_read_u16(reader));

    if (text.size > BOP__MANIFEST_STRING_MAX ||
        (text.size > 0 && memchr(text.data, 0, text.size) != NULL)) {
        reader->failed = true;
    }
    if (reader->failed) {
        return NULL;
    }
    if (text.size > 0) {
        memcpy(out_text, text.data, text.size);
    }
    out_text[text.size] = '\0';
    return text.size > 0 ? out_text : NULL;
}

static void read_array(struct bop_reader *reader, uint8_t *out_bytes, size_t size)
{
    struct bop_slice bytes = bop_read_raw(reader, size);

    if (!reader->failed) {
        memcpy(out_bytes, bytes.data, size);
    }
}

static void read_facts(struct bop_reader *reader, struct bop__segment_facts *out_facts)
{
    read_array(reader, (uint8_t *)out_facts, sizeof(*out_facts));
}

static void read_entry(struct bop_reader *reader, struct bop__manifest_decoded *out)
{
    struct bop__manifest_entry *entry = &out->entry;
    uint32_t flags;

    read_facts(reader, &entry->facts);
    flags = bop_read_u32(reader);
    entry->packed = flags & BOP__ENTRY_PACKED;
    entry->packed_evicted = flags & BOP__ENTRY_PACKED_EVICTED;
    entry->raw_evicted = flags & BOP__ENTRY_RAW_EVICTED;
    entry->uploading = flags & BOP__ENTRY_UPLOADING;
    entry->uploaded = flags & BOP__ENTRY_UPLOADED;
    entry->delete_queued = flags & BOP__ENTRY_DELETE_QUEUED;
    entry->deleted = flags & BOP__ENTRY_DELETED;
    entry->dropped = flags & BOP__ENTRY_DROPPED;
    entry->packing = flags & BOP__ENTRY_PACKING;
    entry->hydrating = flags & BOP__ENTRY_HYDRATING;
    entry->packed_bytes = bop_read_u64(reader);
    read_array(reader, entry->sha256, sizeof(entry->sha256));
    entry->packed_ms = bop_read_u64(reader);
    entry->uploaded_ms = bop_read_u64(reader);
    entry->due_ms = bop_read_u64(reader);
    /* Copied by whoever keeps the entry. */
    entry->key = (char *)read_string(reader, out->strings[0]);
    entry->etag = (char *)read_string(reader, out->strings[1]);
    entry->upload_id = (char *)read_string(reader, out->strings[2]);
    out->record.facts = entry->facts;
}

static enum bop__manifest_reason read_reason(struct bop_reader *reader)
{
    uint32_t reason = bop_read_u32(reader);

    return reason <= BOP__MANIFEST_OBJECT_MISSING ? (enum bop__manifest_reason)reason
                                                  : BOP__MANIFEST_TRANSIENT;
}

/* True if the kind is known; the reader then says if the payload made sense. */
static bool read_payload(struct bop_reader *reader, struct bop__manifest_decoded *out)
{
    struct bop__manifest_record *record = &out->record;

    switch (record->kind) {
    case BOP__MANIFEST_SEGMENT_OPENED:
        record->facts.base = bop_read_u64(reader);
        record->facts.epoch = bop_read_u64(reader);
        return true;
    case BOP__MANIFEST_SEAL_SEGMENT:
        read_facts(reader, &record->facts);
        return true;
    case BOP__MANIFEST_COMPRESSION_STARTED:
        return true;
    case BOP__MANIFEST_COMPRESSION_DONE:
        record->packed_bytes = bop_read_u64(reader);
        read_array(reader, record->sha256, sizeof(record->sha256));
        return true;
    case BOP__MANIFEST_COMPRESSION_FAILED:
    case BOP__MANIFEST_HYDRATION_FAILED:
        record->reason = read_reason(reader);
        return true;
    case BOP__MANIFEST_UPLOAD_STARTED:
        record->key = read_string(reader, out->strings[0]);
        record->text = read_string(reader, out->strings[1]);
        return true;
    case BOP__MANIFEST_UPLOAD_DONE:
        record->key = read_string(reader, out->strings[0]);
        record->text = read_string(reader, out->strings[1]);
        read_array(reader, record->sha256, sizeof(record->sha256));
        return true;
    case BOP__MANIFEST_UPLOAD_FAILED:
        record->key = read_string(reader, out->strings[0]);
        record->reason = read_reason(reader);
        return true;
    case BOP__MANIFEST_TIER2_DELETE_QUEUED:
        record->key = read_string(reader, out->strings[0]);
        record->due_ms = bop_read_u64(reader);
        return true;
    case BOP__MANIFEST_TIER2_DELETED:
        record->key = read_string(reader, out->strings[0]);
        return true;
    case BOP__MANIFEST_HYDRATION_STARTED:
        record->tier = bop_read_u32(reader);
        return true;
    case BOP__MANIFEST_HYDRATION_DONE:
    case BOP__MANIFEST_LOCAL_EVICTED:
        record->packed_bytes = bop_read_u64(reader);
        record->tier = bop_read_u32(reader);
        return true;
    case BOP__MANIFEST_SNAPSHOT_MARKER:
        out->entries = bop_read_u64(reader);
        return true;
    case BOP__MANIFEST_CUSTOM_EVENT:
        record->schema = bop_read_u32(reader);
        record->blob = bop_read_bytes(reader);
        return true;
    case BOP__MANIFEST_CATALOGUE:
        read_entry(reader, out);
        return true;
    case BOP__MANIFEST_TRUNCATED:
        record->first_seq = bop_read_u64(reader);
        record->last_seq = bop_read_u64(reader);
        return true;
    default:
        return false;
    }
}

/* A header of this chunk, whatever its number, with the payload in the file. */
static bool header_at(struct bop_slice chunk, uint64_t offset, uint32_t salt,
                      struct bop__manifest_record_header *out_header)
{
    if (offset > chunk.size || chunk.size - offset < BOP__MANIFEST_RECORD) {
        return false;
    }
    memcpy(out_header, chunk.data + offset, sizeof(*out_header));
    return out_header->mark == BOP__MANIFEST_MARK &&
           out_header->length <= BOP__MANIFEST_PAYLOAD_MAX &&
           out_header->header_crc == record_crc(salt, *out_header) &&
           chunk.size - offset - BOP__MANIFEST_RECORD >= out_header->length;
}

int bop__manifest_record_decode(struct bop_slice chunk, uint64_t offset,
                                struct bop__manifest_place *place,
                                struct bop__manifest_decoded *out_decoded)
{
    struct bop__manifest_record_header header;
    struct bop_slice payload;
    struct bop_reader reader;

    if (!header_at(chunk, offset, place->salt, &header) || header.number != place->number ||
        header.chain != place->chain) {
        return BOP_ENOTFOUND;
    }
    payload = bop_slice(chunk.data + offset + BOP__MANIFEST_RECORD, header.length);
    if (bop_crc32c(0, payload.data, payload.size) != header.payload_crc) {
        return BOP_ENOTFOUND;
    }
    memset(&out_decoded->record, 0, sizeof(out_decoded->record));
    memset(&out_decoded->entry, 0, sizeof(out_decoded->entry));
    out_decoded->entries = 0;
    out_decoded->record.kind = (enum bop__manifest_kind)header.kind;
    out_decoded->record.generation = header.generation;
    out_decoded->record.time_ms = header.time_ms;
    out_decoded->size = bop__manifest_record_size(header.length);
    reader = bop_reader(payload);
    out_decoded->known = read_payload(&reader, out_decoded);
    if (!out_decoded->known) {
        out_decoded->record.blob = payload;
    }
    place->number++;
    place->chain = link_of(&header);
    return reader.failed ? BOP_EMALFORMED : 0;
}

/* ---- Where a chunk ends ---- */

/* Any part of [from, to) in one sector that is all zeros? */
static bool has_zero_sector(struct bop_slice chunk, uint64_t from, uint64_t to)
{
    while (from < to) {
        uint64_t next = (from / BOP__MANIFEST_SECTOR + 1) * BOP__MANIFEST_SECTOR;
        uint64_t end = next < to ? next : to;
        bool zeros = true;

        for (uint64_t i = from; i < end && zeros; i++) {
            zeros = chunk.data[i] == 0;
        }
        if (zeros) {
            return true;
        }
        from = end;
    }
    return false;
}

bool bop__manifest_tail_is_torn(struct bop_slice chunk, uint64_t offset,
                                const struct bop__manifest_place *place)
{
    struct bop__manifest_record_header header;
    uint64_t end = offset + BOP__MANIFEST_RECORD;

    for (uint64_t at = offset; at + BOP__MANIFEST_RECORD <= chunk.size; at += 8) {
        /* Of a later append: what comes before that was durable. */
        if (header_at(chunk, at, place->salt, &header) && header.number > place->number &&
            header.number - place->number > header.back) {
            return false;
        }
    }
    if (chunk.size < end) {
        return true;
    }
    if (header_at(chunk, offset, place->salt, &header)) {
        end += header.length; /* Its payload is bad then, or it does not belong here. */
    } else {
        memcpy(&header, chunk.data + offset, sizeof(header));
        if (header.mark == BOP__MANIFEST_MARK && header.length <= BOP__MANIFEST_PAYLOAD_MAX &&
            header.header_crc == record_crc(place->salt, header)) {
            return true; /* A good header, and the file ends in its payload. */
        }
    }
    return has_zero_sector(chunk, offset, end);
}
