/*
 * Operations and their results: the bytes that WRITE and READ requests, their
 * responses and the log's entries carry.
 *
 * Every operation begins with its number (u8) and the name it works on (s);
 * what follows is in the switches below. The decoder checks all that can be
 * checked without the state, so whoever holds a decoded operation need not. It
 * accepts exactly what the encoder makes: one operation has one encoding.
 */
#include <bop/wire.h>

/* The fewest bytes of a scan's entry: two lengths and a version. */
#define MIN_SCAN_ENTRY 16

/* A failure that the reader's one flag cannot tell: too long rather than malformed. */
static struct bop_slice read_bounded(struct bop_reader *reader, size_t size_max, int *code)
{
    struct bop_slice bytes = bop_read_bytes(reader);

    if (!reader->failed && bytes.size > size_max && *code == 0) {
        *code = BOP_ETOOBIG;
    }
    return bytes;
}

static void read_condition(struct bop_reader *reader, struct bop_operation *operation, int *code)
{
    uint8_t condition = bop_read_u8(reader);

    operation->condition = (enum bop_condition)condition;
    switch (condition) {
    case BOP_IF_ALWAYS:
    case BOP_IF_ABSENT:
    case BOP_IF_PRESENT:
        break;
    case BOP_IF_VERSION:
        operation->version = bop_read_u64(reader);
        break;
    case BOP_IF_VALUE:
        operation->expected = read_bounded(reader, BOP_VALUE_MAX, code);
        break;
    default:
        reader->failed = true;
    }
}

static void write_condition(struct bop_writer *writer, const struct bop_operation *operation)
{
    bop_write_u8(writer, (uint8_t)operation->condition);
    if (operation->condition == BOP_IF_VERSION) {
        bop_write_u64(writer, operation->version);
    } else if (operation->condition == BOP_IF_VALUE) {
        bop_write_bytes(writer, operation->expected);
    }
}

int bop_operation_decode(struct bop_slice bytes, struct bop_operation *out_operation)
{
    struct bop_reader reader = bop_reader(bytes);
    struct bop_operation operation = {0};
    int code = 0;

    operation.op = (enum bop_op)bop_read_u8(&reader);
    operation.name = bop_read_string(&reader);
    if (reader.failed || operation.name.size == 0) {
        return BOP_EMALFORMED;
    }
    if (operation.name.size > BOP_NAME_MAX) {
        return BOP_ETOOBIG;
    }

    switch (operation.op) {
    case BOP_OP_MAP_PUT:
        operation.key = read_bounded(&reader, BOP_KEY_MAX, &code);
        operation.value = read_bounded(&reader, BOP_VALUE_MAX, &code);
        read_condition(&reader, &operation, &code);
        break;
    case BOP_OP_MAP_DELETE:
        operation.key = read_bounded(&reader, BOP_KEY_MAX, &code);
        read_condition(&reader, &operation, &code);
        break;
    case BOP_OP_MAP_GET:
    case BOP_OP_SET_ADD:
    case BOP_OP_SET_REMOVE:
    case BOP_OP_SET_CONTAINS:
    case BOP_OP_MULTIMAP_REMOVE:
    case BOP_OP_MULTIMAP_KEY_SIZE:
    case BOP_OP_MULTIMAP_CONTAINS_KEY:
        operation.key = read_bounded(&reader, BOP_KEY_MAX, &code);
        break;
    case BOP_OP_MAP_SCAN:
    case BOP_OP_SET_SCAN:
    case BOP_OP_MULTIMAP_KEYS:
    case BOP_OP_MULTIMAP_VALUES:
    case BOP_OP_MULTIMAP_ENTRIES:
        operation.cursor = read_bounded(&reader, BOP_CURSOR_MAX, &code);
        operation.limit = bop_read_u32(&reader);
        break;
    case BOP_OP_MULTIMAP_GET:
        operation.key = read_bounded(&reader, BOP_KEY_MAX, &code);
        operation.cursor = read_bounded(&reader, BOP_CURSOR_MAX, &code);
        operation.limit = bop_read_u32(&reader);
        break;
    case BOP_OP_MULTIMAP_PUT:
    case BOP_OP_MULTIMAP_REMOVE_VALUE:
    case BOP_OP_MULTIMAP_CONTAINS_ENTRY:
        operation.key = read_bounded(&reader, BOP_KEY_MAX, &code);
        operation.value = read_bounded(&reader, BOP_KEY_MAX, &code);
        break;
    case BOP_OP_MULTIMAP_CONTAINS_VALUE:
        operation.value = read_bounded(&reader, BOP_KEY_MAX, &code);
        break;
    case BOP_OP_MAP_RANGE:
        operation.prefix = read_bounded(&reader, BOP_KEY_MAX, &code);
        operation.from = read_bounded(&reader, BOP_KEY_MAX, &code);
        operation.to = read_bounded(&reader, BOP_KEY_MAX, &code);
        operation.cursor = read_bounded(&reader, BOP_CURSOR_MAX, &code);
        operation.limit = bop_read_u32(&reader);
        break;
    case BOP_OP_COUNTER_CAS:
        operation.expected_number = bop_read_i64(&reader);
        operation.number = bop_read_i64(&reader);
        break;
    case BOP_OP_COUNTER_SET:
        operation.number = bop_read_i64(&reader);
        break;
    case BOP_OP_COUNTER_ADD:
        operation.delta = bop_read_i64(&reader);
        break;
    case BOP_OP_MAP_CREATE:
    case BOP_OP_MAP_SIZE:
    case BOP_OP_COUNTER_CREATE:
    case BOP_OP_COUNTER_GET:
    case BOP_OP_COUNTER_DELETE:
    case BOP_OP_SET_CREATE:
    case BOP_OP_SET_SIZE:
    case BOP_OP_MAP_CLEAR:
    case BOP_OP_SET_CLEAR:
    case BOP_OP_MULTIMAP_CREATE:
    case BOP_OP_MULTIMAP_CLEAR:
    case BOP_OP_MULTIMAP_SIZE:
        break;
    default:
        reader.failed = true;
    }
    if (!bop_reader_done(&reader)) {
        return BOP_EMALFORMED;
    }
    if (code < 0) {
        return code;
    }
    *out_operation = operation;
    return 0;
}

void bop_operation_encode(struct bop_writer *writer, const struct bop_operation *operation)
{
    bop_write_u8(writer, (uint8_t)operation->op);
    bop_write_bytes(writer, operation->name);

    switch (operation->op) {
    case BOP_OP_MAP_PUT:
        bop_write_bytes(writer, operation->key);
        bop_write_bytes(writer, operation->value);
        write_condition(writer, operation);
        break;
    case BOP_OP_MAP_DELETE:
        bop_write_bytes(writer, operation->key);
        write_condition(writer, operation);
        break;
    case BOP_OP_MAP_GET:
    case BOP_OP_SET_ADD:
    case BOP_OP_SET_REMOVE:
    case BOP_OP_SET_CONTAINS:
    case BOP_OP_MULTIMAP_REMOVE:
    case BOP_OP_MULTIMAP_KEY_SIZE:
    case BOP_OP_MULTIMAP_CONTAINS_KEY:
        bop_write_bytes(writer, operation->key);
        break;
    case BOP_OP_MAP_SCAN:
    case BOP_OP_SET_SCAN:
    case BOP_OP_MULTIMAP_KEYS:
    case BOP_OP_MULTIMAP_VALUES:
    case BOP_OP_MULTIMAP_ENTRIES:
        bop_write_bytes(writer, operation->cursor);
        bop_write_u32(writer, operation->limit);
        break;
    case BOP_OP_MULTIMAP_GET:
        bop_write_bytes(writer, operation->key);
        bop_write_bytes(writer, operation->cursor);
        bop_write_u32(writer, operation->limit);
        break;
    case BOP_OP_MULTIMAP_PUT:
    case BOP_OP_MULTIMAP_REMOVE_VALUE:
    case BOP_OP_MULTIMAP_CONTAINS_ENTRY:
        bop_write_bytes(writer, operation->key);
        bop_write_bytes(writer, operation->value);
        break;
    case BOP_OP_MULTIMAP_CONTAINS_VALUE:
        bop_write_bytes(writer, operation->value);
        break;
    case BOP_OP_MAP_RANGE:
        bop_write_bytes(writer, operation->prefix);
        bop_write_bytes(writer, operation->from);
        bop_write_bytes(writer, operation->to);
        bop_write_bytes(writer, operation->cursor);
        bop_write_u32(writer, operation->limit);
        break;
    case BOP_OP_COUNTER_CAS:
        bop_write_i64(writer, operation->expected_number);
        bop_write_i64(writer, operation->number);
        break;
    case BOP_OP_COUNTER_SET:
        bop_write_i64(writer, operation->number);
        break;
    case BOP_OP_COUNTER_ADD:
        bop_write_i64(writer, operation->delta);
        break;
    case BOP_OP_MAP_CREATE:
    case BOP_OP_MAP_SIZE:
    case BOP_OP_COUNTER_CREATE:
    case BOP_OP_COUNTER_GET:
    case BOP_OP_COUNTER_DELETE:
    case BOP_OP_SET_CREATE:
    case BOP_OP_SET_SIZE:
    case BOP_OP_MAP_CLEAR:
    case BOP_OP_SET_CLEAR:
    case BOP_OP_MULTIMAP_CREATE:
    case BOP_OP_MULTIMAP_CLEAR:
    case BOP_OP_MULTIMAP_SIZE:
        break;
    }
}

/* ---- Results ---- */

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

static void read_ok(struct bop_reader *reader, enum bop_op op, struct bop_result *result)
{
    switch (op) {
    case BOP_OP_MAP_PUT:
        result->existed = bop_read_bool(reader);
        result->version = bop_read_u64(reader);
        break;
    case BOP_OP_MAP_DELETE:
    case BOP_OP_MAP_CREATE:
    case BOP_OP_COUNTER_CREATE:
    case BOP_OP_COUNTER_SET:
    case BOP_OP_COUNTER_DELETE:
    case BOP_OP_SET_ADD:
    case BOP_OP_SET_REMOVE:
    case BOP_OP_SET_CREATE:
    case BOP_OP_SET_CONTAINS:
    case BOP_OP_MULTIMAP_PUT:
    case BOP_OP_MULTIMAP_REMOVE_VALUE:
    case BOP_OP_MULTIMAP_CREATE:
    case BOP_OP_MULTIMAP_CONTAINS_KEY:
    case BOP_OP_MULTIMAP_CONTAINS_VALUE:
    case BOP_OP_MULTIMAP_CONTAINS_ENTRY:
        result->existed = bop_read_bool(reader);
        break;
    case BOP_OP_COUNTER_ADD:
    case BOP_OP_COUNTER_GET:
    case BOP_OP_COUNTER_CAS:
        result->number = bop_read_i64(reader);
        break;
    case BOP_OP_MAP_GET:
        result->version = bop_read_u64(reader);
        result->value = bop_read_bytes(reader);
        break;
    case BOP_OP_MAP_SIZE:
    case BOP_OP_SET_SIZE:
    case BOP_OP_MAP_CLEAR:
    case BOP_OP_SET_CLEAR:
    case BOP_OP_MULTIMAP_REMOVE:
    case BOP_OP_MULTIMAP_CLEAR:
    case BOP_OP_MULTIMAP_SIZE:
    case BOP_OP_MULTIMAP_KEY_SIZE:
        result->size = bop_read_u64(reader);
        break;
    case BOP_OP_MAP_SCAN:
    case BOP_OP_MAP_RANGE:
    case BOP_OP_SET_SCAN:
    case BOP_OP_MULTIMAP_GET:
    case BOP_OP_MULTIMAP_KEYS:
    case BOP_OP_MULTIMAP_VALUES:
    case BOP_OP_MULTIMAP_ENTRIES:
        read_scan(reader, result);
        break;
    default:
        reader->failed = true;
    }
}

int bop_result_decode(enum bop_op op, uint8_t status, struct bop_slice bytes,
                      struct bop_result *out_result)
{
    struct bop_reader reader = bop_reader(bytes);
    struct bop_result result = {.status = status};

    if (status == BOP_STATUS_OK) {
        read_ok(&reader, op, &result);
    } else if (status == BOP_STATUS_CONDITION && op == BOP_OP_COUNTER_CAS) {
        result.number = bop_read_i64(&reader);
    } else if (status == BOP_STATUS_CONDITION) {
        result.version = bop_read_u64(&reader);
    } else {
        *out_result = result;
        return 0;
    }
    if (!bop_reader_done(&reader)) {
        return BOP_EMALFORMED;
    }
    *out_result = result;
    return 0;
}

void bop_result_encode(struct bop_writer *writer, enum bop_op op, const struct bop_result *result)
{
    if (result->status == BOP_STATUS_CONDITION && op == BOP_OP_COUNTER_CAS) {
        bop_write_i64(writer, result->number);
        return;
    }
    if (result->status == BOP_STATUS_CONDITION) {
        bop_write_u64(writer, result->version);
        return;
    }
    if (result->status != BOP_STATUS_OK) {
        return;
    }
    switch (op) {
    case BOP_OP_MAP_PUT:
        bop_write_bool(writer, result->existed);
        bop_write_u64(writer, result->version);
        break;
    case BOP_OP_MAP_DELETE:
    case BOP_OP_MAP_CREATE:
    case BOP_OP_COUNTER_CREATE:
    case BOP_OP_COUNTER_SET:
    case BOP_OP_COUNTER_DELETE:
    case BOP_OP_SET_ADD:
    case BOP_OP_SET_REMOVE:
    case BOP_OP_SET_CREATE:
    case BOP_OP_SET_CONTAINS:
    case BOP_OP_MULTIMAP_PUT:
    case BOP_OP_MULTIMAP_REMOVE_VALUE:
    case BOP_OP_MULTIMAP_CREATE:
    case BOP_OP_MULTIMAP_CONTAINS_KEY:
    case BOP_OP_MULTIMAP_CONTAINS_VALUE:
    case BOP_OP_MULTIMAP_CONTAINS_ENTRY:
        bop_write_bool(writer, result->existed);
        break;
    case BOP_OP_COUNTER_ADD:
    case BOP_OP_COUNTER_GET:
    case BOP_OP_COUNTER_CAS:
        bop_write_i64(writer, result->number);
        break;
    case BOP_OP_MAP_GET:
        bop_write_u64(writer, result->version);
        bop_write_bytes(writer, result->value);
        break;
    case BOP_OP_MAP_SIZE:
    case BOP_OP_SET_SIZE:
    case BOP_OP_MAP_CLEAR:
    case BOP_OP_SET_CLEAR:
    case BOP_OP_MULTIMAP_REMOVE:
    case BOP_OP_MULTIMAP_CLEAR:
    case BOP_OP_MULTIMAP_SIZE:
    case BOP_OP_MULTIMAP_KEY_SIZE:
        bop_write_u64(writer, result->size);
        break;
    case BOP_OP_MAP_SCAN:
    case BOP_OP_MAP_RANGE:
    case BOP_OP_SET_SCAN:
    case BOP_OP_MULTIMAP_GET:
    case BOP_OP_MULTIMAP_KEYS:
    case BOP_OP_MULTIMAP_VALUES:
    case BOP_OP_MULTIMAP_ENTRIES:
        bop_write_u64(writer, result->revision);
        bop_write_bytes(writer, result->cursor);
        bop_write_u32(writer, result->count);
        bop_write_raw(writer, result->entries);
        break;
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
};

const char *bop_status_text(uint8_t status)
{
    return status < BOP_COUNT_OF(statuses) ? statuses[status].text : "unknown status";
}

int bop_status_code(uint8_t status)
{
    return status < BOP_COUNT_OF(statuses) ? statuses[status].code : BOP_EPROTOCOL;
}
