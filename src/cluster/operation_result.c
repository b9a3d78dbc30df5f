/*
 * Results of operations as bytes, as their shapes say, and status codes in words.
 */
#include "operation.h"

/* The fewest bytes of a scan's entry: two lengths and a version. */
#define MIN_SCAN_ENTRY 16

static void read_scan_entry(struct bop_reader *reader, struct bop_scan_entry *out_entry)
{
    out_entry->key = bop_read_bytes(reader);
    out_entry->version = bop_read_u64(reader);
    out_entry->value = bop_read_bytes(reader);
}

static void read_scan(struct bop_reader *reader, struct bop_result *result)
{
    struct bop_scan_entry entry;

    result->revision = bop_read_u64(reader);
    result->cursor = bop_read_bytes(reader);
    result->count = bop_read_u32(reader);
    if (result->count > bop_reader_left(reader) / MIN_SCAN_ENTRY) {
        reader->failed = true;
        return;
    }
    result->entries = bop_slice(reader->at, bop_reader_left(reader));
    for (uint32_t i = 0; i < result->count && !reader->failed; i++) {
        read_scan_entry(reader, &entry);
    }
}

static void read_field(struct bop_reader *reader, char field, struct bop_result *result)
{
    switch (field) {
    case 'B':
        result->existed = bop_read_bool(reader);
        break;
    case 'Q':
        result->version = bop_read_u64(reader);
        break;
    case 'Z':
        result->size = bop_read_u64(reader);
        break;
    case 'N':
        result->number = bop_read_i64(reader);
        break;
    case 'V':
        result->value = bop_read_bytes(reader);
        break;
    case 'M':
        result->ttl_ms = bop_read_u64(reader);
        break;
    case 'K':
        result->ticket = bop_read_u64(reader);
        break;
    case 'T':
        result->token = bop_read_u64(reader);
        break;
    case 'P':
        result->position = bop_read_u64(reader);
        break;
    case 'A':
        result->capacity = bop_read_u32(reader);
        break;
    case 'R':
        result->permits = bop_read_u32(reader);
        break;
    case 'S':
        read_scan(reader, result);
        break;
    case 'X':
        bop__transaction_results_read(reader, result);
        break;
    default:
        reader->failed = true;
    }
}

/* What a result with this status holds; NULL: nothing that is looked at. */
static const char *fields_of(enum bop_op op, uint8_t status)
{
    const struct operation_shape *shape = bop__operation_shape(op);

    if (!shape) {
        return NULL;
    }
    if (status == BOP_STATUS_OK) {
        return shape->result;
    }
    if (status == BOP_STATUS_CONDITION) {
        return shape->condition ? shape->condition : "Q";
    }
    return NULL;
}

int bop_result_decode(enum bop_op op, uint8_t status, struct bop_slice bytes,
                      struct bop_result *out_result)
{
    struct bop_reader reader = bop_reader(bytes);
    struct bop_result result = {.status = status};
    const char *fields = fields_of(op, status);

    if (!bop__operation_shape(op)) {
        return BOP_EMALFORMED;
    }
    for (const char *field = fields; field && *field != '\0' && !reader.failed; field++) {
        read_field(&reader, *field, &result);
    }
    if (fields && !bop_reader_done(&reader)) {
        return BOP_EMALFORMED;
    }
    *out_result = result;
    return 0;
}

static void write_field(struct bop_writer *writer, char field, const struct bop_result *result)
{
    switch (field) {
    case 'B':
        bop_write_bool(writer, result->existed);
        break;
    case 'Q':
        bop_write_u64(writer, result->version);
        break;
    case 'Z':
        bop_write_u64(writer, result->size);
        break;
    case 'N':
        bop_write_i64(writer, result->number);
        break;
    case 'V':
        bop_write_bytes(writer, result->value);
        break;
    case 'M':
        bop_write_u64(writer, result->ttl_ms);
        break;
    case 'K':
        bop_write_u64(writer, result->ticket);
        break;
    case 'T':
        bop_write_u64(writer, result->token);
        break;
    case 'P':
        bop_write_u64(writer, result->position);
        break;
    case 'A':
        bop_write_u32(writer, result->capacity);
        break;
    case 'R':
        bop_write_u32(writer, result->permits);
        break;
    case 'S':
        bop_write_u64(writer, result->revision);
        bop_write_bytes(writer, result->cursor);
        bop_write_u32(writer, result->count);
        bop_write_raw(writer, result->entries);
        break;
    case 'X':
        bop_write_u32(writer, result->count);
        bop_write_raw(writer, result->entries);
        break;
    default:
        break;
    }
}

void bop_result_encode(struct bop_writer *writer, enum bop_op op, const struct bop_result *result)
{
    for (const char *field = fields_of(op, result->status); field && *field != '\0'; field++) {
        write_field(writer, *field, result);
    }
}

bool bop_scan_next(struct bop_slice *entries, struct bop_scan_entry *out_entry)
{
    struct bop_reader reader = bop_reader(*entries);
    struct bop_scan_entry entry;

    if (entries->size == 0) {
        return false;
    }
    read_scan_entry(&reader, &entry);
    if (reader.failed) {
        return false;
    }
    *entries = bop_slice(reader.at, bop_reader_left(&reader));
    *out_entry = entry;
    return true;
}

void bop_scan_entry_encode(struct bop_writer *writer, const struct bop_scan_entry *entry)
{
    bop_write_bytes(writer, entry->key);
    bop_write_u64(writer, entry->version);
    bop_write_bytes(writer, entry->value);
}

/* ---- Status codes ---- */

static const struct {
    const char *text;
    int code;
} statuses[] = {
    [BOP_STATUS_OK] = {"ok", 0},
    [BOP_STATUS_NOT_FOUND] = {"not found", BOP_ENOTFOUND},
    [BOP_STATUS_CONDITION] = {"condition not met", BOP_ECONDITION},
    [BOP_STATUS_RETRY] = {"not decided here, send again", BOP_ENOTLEADER},
    [BOP_STATUS_NO_SESSION] = {"session expired or unknown", BOP_ESESSION},
    [BOP_STATUS_BAD_REQUEST] = {"bad request", BOP_EMALFORMED},
    [BOP_STATUS_TOO_BIG] = {"too big", BOP_ETOOBIG},
    [BOP_STATUS_BUSY] = {"busy, try again later", BOP_EBUSY},
    [BOP_STATUS_NO_ROOM] = {"no room on disk", BOP_ENOROOM},
    [BOP_STATUS_STALE] = {"already answered", BOP_ESESSION},
    [BOP_STATUS_OVERFLOW] = {"value out of range", BOP_EOVERFLOW},
    [BOP_STATUS_UNCERTAIN] = {"outcome unknown", BOP_EUNCERTAIN},
    [BOP_STATUS_REFUSED] = {"refused", BOP_EMISMATCH},
    [BOP_STATUS_DENIED] = {"access denied", BOP_EDENIED},
    [BOP_STATUS_TOO_OLD] = {"a node of the cluster is too old for this", BOP_EUNSUPPORTED},
    [BOP_STATUS_COMPACTED] = {"the events of that revision are gone", BOP_ECOMPACTED},
    [BOP_STATUS_NO_VIEW] = {"the view is over", BOP_ENOVIEW},
};

const char *bop_status_text(uint8_t status)
{
    return status < BOP_COUNT_OF(statuses) ? statuses[status].text : "unknown status";
}

int bop_status_code(uint8_t status)
{
    return status < BOP_COUNT_OF(statuses) ? statuses[status].code : BOP_EPROTOCOL;
}
