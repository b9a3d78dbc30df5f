/*
 * Operations: the bytes that WRITE and READ requests and the log's entries carry.
 *
 * Every operation begins with its number (u8) and the name it works on (s); what
 * follows is in its shape. The decoder checks all that can be checked without the
 * state, so whoever holds a decoded operation need not. It accepts exactly what the
 * encoder makes: one operation has one encoding.
 */
#include "operation.h"

static const struct operation_shape shapes[] = {
    [BOP_OP_MAP_PUT] = {"kvc", "BQ", NULL},
    [BOP_OP_MAP_DELETE] = {"kc", "B", NULL},
    [BOP_OP_MAP_CREATE] = {"", "B", NULL},
    [BOP_OP_MAP_CLEAR] = {"", "Z", NULL},
    [BOP_OP_MAP_PUT_TTL] = {"kvct", "BQ", NULL},
    [BOP_OP_MAP_EXCHANGE] = {"kvct", "QBV", "QBV"},
    [BOP_OP_MAP_TAKE] = {"kc", "QBV", "QBV"},
    [BOP_OP_MAP_PUT_ALL] = {"t*", "Z", NULL},
    [BOP_OP_COUNTER_ADD] = {"d", "N", NULL},
    [BOP_OP_COUNTER_CREATE] = {"", "B", NULL},
    [BOP_OP_COUNTER_CAS] = {"en", "N", "N"},
    [BOP_OP_COUNTER_SET] = {"n", "B", NULL},
    [BOP_OP_COUNTER_DELETE] = {"", "B", NULL},
    [BOP_OP_SET_ADD] = {"k", "B", NULL},
    [BOP_OP_SET_REMOVE] = {"k", "B", NULL},
    [BOP_OP_SET_CREATE] = {"", "B", NULL},
    [BOP_OP_SET_CLEAR] = {"", "Z", NULL},
    [BOP_OP_MULTIMAP_PUT] = {"kw", "B", NULL},
    [BOP_OP_MULTIMAP_REMOVE] = {"k", "Z", NULL},
    [BOP_OP_MULTIMAP_REMOVE_VALUE] = {"kw", "B", NULL},
    [BOP_OP_MULTIMAP_CREATE] = {"", "B", NULL},
    [BOP_OP_MULTIMAP_CLEAR] = {"", "Z", NULL},
    [BOP_OP_LOCK_ACQUIRE] = {"artb", "KTP", NULL},
    [BOP_OP_LOCK_RELEASE] = {"q", "B", NULL},
    [BOP_OP_LOCK_CREATE] = {"a", "B", NULL},
    [BOP_OP_LOCK_DELETE] = {"", "B", NULL},
    [BOP_OP_LOCK_ADOPT] = {"b", "KT", NULL},
    [BOP_OP_MEMBER_JOIN] = {"kw", "Q", NULL},
    [BOP_OP_MEMBER_SET] = {"kw", "B", NULL},
    [BOP_OP_MEMBER_LEAVE] = {"k", "B", NULL},
    [BOP_OP_REGISTRATION_ADD] = {"kq", "B", NULL},
    [BOP_OP_REGISTRATION_REMOVE] = {"kq", "B", NULL},
    [BOP_OP_REGISTRATION_ADD_ALL] = {"*", "Z", NULL},
    [BOP_OP_TRANSACTION] = {"-x", "BX", NULL},
    [BOP_OP_MAP_GET] = {"k", "QV", NULL},
    [BOP_OP_MAP_SIZE] = {"", "Z", NULL},
    [BOP_OP_MAP_SCAN] = {"ul", "S", NULL},
    [BOP_OP_MAP_RANGE] = {"pfoul", "S", NULL},
    [BOP_OP_MAP_GET_TTL] = {"k", "QMV", NULL},
    [BOP_OP_COUNTER_GET] = {"", "N", NULL},
    [BOP_OP_SET_CONTAINS] = {"k", "B", NULL},
    [BOP_OP_SET_SIZE] = {"", "Z", NULL},
    [BOP_OP_SET_SCAN] = {"ul", "S", NULL},
    [BOP_OP_MULTIMAP_GET] = {"kul", "S", NULL},
    [BOP_OP_MULTIMAP_SIZE] = {"", "Z", NULL},
    [BOP_OP_MULTIMAP_KEY_SIZE] = {"k", "Z", NULL},
    [BOP_OP_MULTIMAP_CONTAINS_KEY] = {"k", "B", NULL},
    [BOP_OP_MULTIMAP_CONTAINS_VALUE] = {"w", "B", NULL},
    [BOP_OP_MULTIMAP_CONTAINS_ENTRY] = {"kw", "B", NULL},
    [BOP_OP_MULTIMAP_KEYS] = {"ul", "S", NULL},
    [BOP_OP_MULTIMAP_VALUES] = {"ul", "S", NULL},
    [BOP_OP_MULTIMAP_ENTRIES] = {"ul", "S", NULL},
    [BOP_OP_LOCK_GET] = {"ul", "ARS", NULL},
    [BOP_OP_LOCK_OWNED] = {"-sul", "S", NULL},
    [BOP_OP_MEMBER_LIST] = {"ul", "S", NULL},
    [BOP_OP_MEMBER_GET] = {"k", "QV", NULL},
    [BOP_OP_REGISTRATION_GET] = {"kul", "S", NULL},
    [BOP_OP_REGISTRATION_LIST] = {"ul", "S", NULL},
    [BOP_OP_NAMES] = {"-ipul", "S", NULL},
};

const struct operation_shape *bop__operation_shape(enum bop_op op)
{
    return (unsigned)op < BOP_COUNT_OF(shapes) && shapes[op].fields ? &shapes[op] : NULL;
}

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

/* A time to live, or a lock's timeout, which may be for ever. */
static uint64_t read_time(struct bop_reader *reader, enum bop_op op, int *code)
{
    uint64_t time_ms = bop_read_u64(reader);

    if (time_ms > BOP_TTL_MAX_MS &&
        (op != BOP_OP_LOCK_ACQUIRE || time_ms != BOP_LOCK_TIMEOUT_NEVER) && *code == 0) {
        *code = BOP_ETOOBIG;
    }
    return time_ms;
}

static void read_kind(struct bop_reader *reader, struct bop_operation *operation)
{
    uint8_t kind = bop_read_u8(reader);

    operation->kind = (enum bop_name_kind)kind;
    if (kind < BOP_NAME_MAP || kind > BOP_NAME_REGISTRY) {
        reader->failed = true;
    }
}

static void read_permits(struct bop_reader *reader, struct bop_operation *operation)
{
    operation->permits = bop_read_u32(reader);
    if (operation->permits == 0 || operation->permits > operation->capacity) {
        reader->failed = true;
    }
}

static void read_capacity(struct bop_reader *reader, struct bop_operation *operation)
{
    operation->capacity = bop_read_u32(reader);
    if (operation->capacity == 0) {
        reader->failed = true;
    }
}

static void read_field(struct bop_reader *reader, char field, struct bop_operation *operation,
                       int *code)
{
    switch (field) {
    case 'k':
        operation->key = read_bounded(reader, BOP_KEY_MAX, code);
        break;
    case 'v':
        operation->value = read_bounded(reader, BOP_VALUE_MAX, code);
        break;
    case 'w':
        operation->value = read_bounded(reader, BOP_KEY_MAX, code);
        break;
    case 'c':
        read_condition(reader, operation, code);
        break;
    case 't':
        operation->ttl_ms = read_time(reader, operation->op, code);
        break;
    case 'd':
        operation->delta = bop_read_i64(reader);
        break;
    case 'e':
        operation->expected_number = bop_read_i64(reader);
        break;
    case 'n':
        operation->number = bop_read_i64(reader);
        break;
    case 'p':
        operation->prefix = read_bounded(reader, BOP_KEY_MAX, code);
        break;
    case 'f':
        operation->from = read_bounded(reader, BOP_KEY_MAX, code);
        break;
    case 'o':
        operation->to = read_bounded(reader, BOP_KEY_MAX, code);
        break;
    case 'u':
        operation->cursor = read_bounded(reader, BOP_CURSOR_MAX, code);
        break;
    case 'l':
        operation->limit = bop_read_u32(reader);
        break;
    case 's':
        operation->session = bop_read_u64(reader);
        break;
    case 'q':
        operation->sequence = bop_read_u64(reader);
        break;
    case 'a':
        read_capacity(reader, operation);
        break;
    case 'r':
        read_permits(reader, operation);
        break;
    case 'b':
        operation->label = read_bounded(reader, BOP_LABEL_MAX, code);
        break;
    case 'i':
        read_kind(reader, operation);
        break;
    case '*':
        bop__items_read(reader, operation, code);
        break;
    case 'x':
        bop__transaction_read(reader, operation, code);
        break;
    default:
        break; /* '-' */
    }
}

int bop_operation_decode(struct bop_slice bytes, struct bop_operation *out_operation)
{
    struct bop_reader reader = bop_reader(bytes);
    struct bop_operation operation = {0};
    const struct operation_shape *shape;
    int code = 0;

    operation.op = (enum bop_op)bop_read_u8(&reader);
    operation.name = bop_read_string(&reader);
    shape = bop__operation_shape(operation.op);
    if (reader.failed || !shape || (operation.name.size == 0) != (shape->fields[0] == '-')) {
        return BOP_EMALFORMED;
    }
    if (operation.name.size > BOP_NAME_MAX) {
        return BOP_ETOOBIG;
    }
    for (const char *field = shape->fields; *field != '\0' && !reader.failed; field++) {
        read_field(&reader, *field, &operation, &code);
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

static void write_field(struct bop_writer *writer, char field,
                        const struct bop_operation *operation)
{
    switch (field) {
    case 'k':
        bop_write_bytes(writer, operation->key);
        break;
    case 'v':
    case 'w':
        bop_write_bytes(writer, operation->value);
        break;
    case 'c':
        write_condition(writer, operation);
        break;
    case 't':
        bop_write_u64(writer, operation->ttl_ms);
        break;
    case 'd':
        bop_write_i64(writer, operation->delta);
        break;
    case 'e':
        bop_write_i64(writer, operation->expected_number);
        break;
    case 'n':
        bop_write_i64(writer, operation->number);
        break;
    case 'p':
        bop_write_bytes(writer, operation->prefix);
        break;
    case 'f':
        bop_write_bytes(writer, operation->from);
        break;
    case 'o':
        bop_write_bytes(writer, operation->to);
        break;
    case 'u':
        bop_write_bytes(writer, operation->cursor);
        break;
    case 'l':
        bop_write_u32(writer, operation->limit);
        break;
    case 's':
        bop_write_u64(writer, operation->session);
        break;
    case 'q':
        bop_write_u64(writer, operation->sequence);
        break;
    case 'a':
        bop_write_u32(writer, operation->capacity);
        break;
    case 'r':
        bop_write_u32(writer, operation->permits);
        break;
    case 'b':
        bop_write_bytes(writer, operation->label);
        break;
    case 'i':
        bop_write_u8(writer, (uint8_t)operation->kind);
        break;
    case '*':
        bop_write_u32(writer, operation->count);
        bop_write_raw(writer, operation->items);
        break;
    case 'x':
        bop__transaction_write(writer, operation);
        break;
    default:
        break; /* '-' */
    }
}

void bop_operation_encode(struct bop_writer *writer, const struct bop_operation *operation)
{
    const struct operation_shape *shape = bop__operation_shape(operation->op);

    if (!shape) {
        writer->code = writer->code ? writer->code
                                    : BOP_EINVAL; /* Programs may ask for anything. */
        return;
    }
    bop_write_u8(writer, (uint8_t)operation->op);
    bop_write_bytes(writer, operation->name);
    for (const char *field = shape->fields; *field != '\0'; field++) {
        write_field(writer, *field, operation);
    }
}
