/*
 * Operations as JSON. What members an operation has follows from its shape
 * (../operation.h), so an operation that the wire knows is one row here: its name.
 *
 *     {"op": "map.put", "name": "m", "key": "k", "value": "v", "if": "absent", "ttl_ms": 1000}
 *
 * A transaction holds compares and such operations. What is built lies in the call's
 * arena.
 */
#include <jansson.h>
#include <stdio.h>

#include "../operation.h"
#include "http.h"

#define LIMIT_IN_TRANSACTION 100

static const struct {
    const char *name;
    enum bop_op op;
} names[] = {
    {"map.put", BOP_OP_MAP_PUT},
    {"map.delete", BOP_OP_MAP_DELETE},
    {"map.create", BOP_OP_MAP_CREATE},
    {"map.clear", BOP_OP_MAP_CLEAR},
    {"map.exchange", BOP_OP_MAP_EXCHANGE},
    {"map.take", BOP_OP_MAP_TAKE},
    {"map.put_all", BOP_OP_MAP_PUT_ALL},
    {"map.get", BOP_OP_MAP_GET},
    {"map.get_ttl", BOP_OP_MAP_GET_TTL},
    {"map.size", BOP_OP_MAP_SIZE},
    {"map.range", BOP_OP_MAP_RANGE},
    {"counter.add", BOP_OP_COUNTER_ADD},
    {"counter.create", BOP_OP_COUNTER_CREATE},
    {"counter.cas", BOP_OP_COUNTER_CAS},
    {"counter.set", BOP_OP_COUNTER_SET},
    {"counter.delete", BOP_OP_COUNTER_DELETE},
    {"counter.get", BOP_OP_COUNTER_GET},
    {"set.add", BOP_OP_SET_ADD},
    {"set.remove", BOP_OP_SET_REMOVE},
    {"set.create", BOP_OP_SET_CREATE},
    {"set.clear", BOP_OP_SET_CLEAR},
    {"set.contains", BOP_OP_SET_CONTAINS},
    {"set.size", BOP_OP_SET_SIZE},
    {"multimap.put", BOP_OP_MULTIMAP_PUT},
    {"multimap.remove", BOP_OP_MULTIMAP_REMOVE},
    {"multimap.remove_value", BOP_OP_MULTIMAP_REMOVE_VALUE},
    {"multimap.create", BOP_OP_MULTIMAP_CREATE},
    {"multimap.clear", BOP_OP_MULTIMAP_CLEAR},
    {"multimap.get", BOP_OP_MULTIMAP_GET},
    {"multimap.size", BOP_OP_MULTIMAP_SIZE},
    {"multimap.contains", BOP_OP_MULTIMAP_CONTAINS_ENTRY},
    {"lock.get", BOP_OP_LOCK_GET},
    {"member.get", BOP_OP_MEMBER_GET},
    {"member.list", BOP_OP_MEMBER_LIST},
    {"registration.get", BOP_OP_REGISTRATION_GET},
    {"registration.list", BOP_OP_REGISTRATION_LIST},
};

/** An object whose members are taken one by one; what is left over means nothing. */
struct taking {
    struct http_call *call;
    json_t *object;
    size_t taken;
    struct http_problem *problem;
};

static int bad(const struct taking *taking, const char *member, const char *wanted)
{
    return bop__http_problem(taking->problem, HTTP_BAD_REQUEST, "\"%s\" is %s", member, wanted);
}

static json_t *take(struct taking *taking, const char *member)
{
    json_t *value = json_object_get(taking->object, member);

    taking->taken += value != NULL;
    return value;
}

static int keep(struct taking *taking, struct bop_slice bytes, struct bop_slice *out)
{
    *out = bop__http_keep(taking->call, bytes);
    return out->data ? 0
                     : bop__http_problem(taking->problem, HTTP_BUSY, "no memory for the request");
}

static struct bop_slice text_of(const json_t *string)
{
    return bop_slice(json_string_value(string), json_string_length(string));
}

static int take_text(struct taking *taking, const char *member, struct bop_slice *out)
{
    const json_t *value = take(taking, member);

    return json_is_string(value) ? keep(taking, text_of(value), out)
                                 : bad(taking, member, "to be a string");
}

/* The bytes under "member" or "member64". */
static int take_bytes(struct taking *taking, const char *member, bool required,
                      struct bop_slice *out)
{
    char member64[32];
    const json_t *plain = take(taking, member), *coded;
    struct bop_buf buf;
    int rc;

    snprintf(member64, sizeof(member64), "%s64", member);
    coded = take(taking, member64);
    if (!plain && !coded && !required) {
        return 0;
    }
    if ((plain != NULL) == (coded != NULL) || !json_is_string(plain ? plain : coded)) {
        return bad(taking, member, "to be a string, or with 64 behind its name base64");
    }
    if (plain) {
        return keep(taking, text_of(plain), out);
    }
    bop_buf_init(&buf, &taking->call->arena->allocator, 0);
    rc = bop__base64_decode(&buf, text_of(coded), false);
    *out = buf.size > 0 ? bop_buf_slice(&buf) : bop_slice("", 0);
    return rc < 0 ? bad(taking, member64, "no base64") : 0;
}

static int take_integer(struct taking *taking, const char *member, bool required, int64_t *out)
{
    const json_t *value = take(taking, member);

    if (!value && !required) {
        return 0;
    }
    *out = json_integer_value(value);
    return json_is_integer(value) ? 0 : bad(taking, member, "to be a whole number");
}

static int take_unsigned(struct taking *taking, const char *member, bool required, uint64_t most,
                         uint64_t *out)
{
    int64_t number = (int64_t)*out;
    int rc = take_integer(taking, member, required, &number);

    *out = (uint64_t)number;
    return rc < 0 || (number >= 0 && (uint64_t)number <= most)
               ? rc
               : bad(taking, member, "out of range");
}

static int take_u32(struct taking *taking, const char *member, bool required, uint32_t *out)
{
    uint64_t number = *out;
    int rc = take_unsigned(taking, member, required, UINT32_MAX, &number);

    *out = (uint32_t)number;
    return rc;
}

static int take_rest(const struct taking *taking)
{
    return json_object_size(taking->object) == taking->taken
               ? 0
               : bop__http_problem(taking->problem, HTTP_BAD_REQUEST,
                                   "there are members that mean nothing here");
}

/* ---- Fields ---- */

/* "if": "absent", "present", {"version": 7} or {"value": "v"}. */
static int take_condition(struct taking *taking, struct bop_operation *operation)
{
    json_t *condition = take(taking, "if");
    struct taking inner = {.call = taking->call, .object = condition, .problem = taking->problem};
    int rc = 0;

    if (!condition) {
        return 0;
    }
    if (json_object_get(condition, "version")) {
        operation->condition = BOP_IF_VERSION;
        rc = take_unsigned(&inner, "version", true, INT64_MAX, &operation->version);
        return rc < 0 ? rc : take_rest(&inner);
    }
    if (json_is_object(condition)) {
        operation->condition = BOP_IF_VALUE;
        rc = take_bytes(&inner, "value", true, &operation->expected);
        return rc < 0 ? rc : take_rest(&inner);
    }
    operation->condition = json_is_string(condition)
                               ? bop_slice_equal(text_of(condition), bop_slice_cstr("absent"))
                                     ? BOP_IF_ABSENT
                                 : bop_slice_equal(text_of(condition), bop_slice_cstr("present"))
                                     ? BOP_IF_PRESENT
                                     : BOP_IF_ALWAYS
                               : BOP_IF_ALWAYS;
    return operation->condition != BOP_IF_ALWAYS
               ? 0
               : bad(taking, "if", "absent, present, {\"version\": n} or {\"value\": bytes}");
}

/* "entries": [{"key": "k", "value": "v"}, ...] */
static int take_items(struct taking *taking, struct bop_operation *operation)
{
    json_t *array = take(taking, "entries"), *element;
    struct bop_writer writer;
    struct bop_buf buf;
    size_t at;

    if (!json_is_array(array)) {
        return bad(taking, "entries", "to be an array");
    }
    bop_buf_init(&buf, &taking->call->arena->allocator, 0);
    writer = bop_writer(&buf);
    json_array_foreach(array, at, element)
    {
        struct taking inner = {.call = taking->call, .object = element, .problem = taking->problem};
        struct bop_item item = {0};
        int rc = take_bytes(&inner, "key", true, &item.key);

        if (rc == 0) {
            rc = operation->op == BOP_OP_MAP_PUT_ALL
                     ? take_bytes(&inner, "value", true, &item.value)
                     : take_unsigned(&inner, "sequence", true, INT64_MAX, &item.sequence);
        }
        if (rc < 0 || take_rest(&inner) < 0) {
            return -1;
        }
        bop_item_encode(&writer, operation->op, &item);
    }
    operation->count = (uint32_t)json_array_size(array);
    operation->items = bop_buf_slice(&buf);
    return writer.code < 0 ? bop__http_problem(taking->problem, HTTP_BUSY, "no memory") : 0;
}

static int take_field(struct taking *taking, struct bop_operation *operation, char letter)
{
    bool lock = operation->op == BOP_OP_LOCK_ACQUIRE;

    switch (letter) {
    case 'k':
        return operation->key.data ? 0 : take_bytes(taking, "key", true, &operation->key);
    case 'v':
    case 'w':
        return take_bytes(taking, "value", true, &operation->value);
    case 'c':
        return take_condition(taking, operation);
    case 't':
        return take_unsigned(taking, lock ? "timeout_ms" : "ttl_ms", false, BOP_TTL_MAX_MS,
                             &operation->ttl_ms);
    case 'd':
        return take_integer(taking, "delta", true, &operation->delta);
    case 'e':
        return take_integer(taking, "expected", true, &operation->expected_number);
    case 'n':
        return take_integer(taking, "value", true, &operation->number);
    case 'p':
        return take_bytes(taking, "prefix", false, &operation->prefix);
    case 'f':
        return take_bytes(taking, "from", false, &operation->from);
    case 'o':
        return take_bytes(taking, "to", false, &operation->to);
    case 'l':
        operation->limit = LIMIT_IN_TRANSACTION;
        return take_u32(taking, "limit", false, &operation->limit);
    case 'q':
        return take_unsigned(taking, operation->op == BOP_OP_LOCK_RELEASE ? "ticket" : "sequence",
                             true, INT64_MAX, &operation->sequence);
    case 'a':
        operation->capacity = 1;
        return take_u32(taking, "capacity", false, &operation->capacity);
    case 'r':
        operation->permits = 1;
        return take_u32(taking, "permits", false, &operation->permits);
    case 'b':
        return take_bytes(taking, "label", false, &operation->label);
    case '*':
        return take_items(taking, operation);
    default: /* A cursor: pages of a transaction begin at the begin. */
        return 0;
    }
}

static int take_fields(struct taking *taking, struct bop_operation *operation)
{
    int rc = 0;

    for (const char *letter = bop__operation_shape(operation->op)->fields; *letter && rc == 0;
         letter++) {
        rc = take_field(taking, operation, *letter);
    }
    return rc < 0 ? rc : take_rest(taking);
}

/* ---- Operations ---- */

static enum bop_op op_of(struct bop_slice name)
{
    for (size_t n = 0; n < BOP_COUNT_OF(names); n++) {
        if (bop_slice_equal(name, bop_slice_cstr(names[n].name))) {
            return names[n].op;
        }
    }
    return 0;
}

static int take_operation(struct taking *taking, struct bop_operation *operation)
{
    struct bop_slice name = bop_slice(NULL, 0);
    int rc = take_text(taking, "op", &name);

    if (rc < 0) {
        return rc;
    }
    operation->op = op_of(name);
    if (operation->op == 0) {
        return bad(taking, "op", "none that a transaction can have, such as map.put");
    }
    if (operation->op == BOP_OP_MAP_PUT && json_object_get(taking->object, "ttl_ms")) {
        operation->op = BOP_OP_MAP_PUT_TTL;
    }
    rc = take_text(taking, "name", &operation->name);
    return rc < 0 ? rc : take_fields(taking, operation);
}

/* ---- Transactions ---- */

static const char *const compare_kinds[] = {"",    "version",  "value", "counter",
                                            "set", "multimap", "lock",  "member"};
static const char *const relations[] = {"", "equal", "not_equal", "less", "greater"};

/* The index of the text under `member` in a list whose first word is none. */
static int take_word(struct taking *taking, const char *member, const char *const *words,
                     size_t count, unsigned *out)
{
    const json_t *value = take(taking, member);

    if (!value && *out) {
        return 0;
    }
    for (size_t n = 1; json_is_string(value) && n < count; n++) {
        if (bop_slice_equal(text_of(value), bop_slice_cstr(words[n]))) {
            *out = (unsigned)n;
            return 0;
        }
    }
    return bad(taking, member, "none of its words; see /v1/openapi.json");
}

static int take_compare(struct taking *taking, struct bop_writer *writer)
{
    struct bop_compare compare = {0};
    unsigned kind = 0, relation = BOP_EQUAL;
    int rc = take_word(taking, "kind", compare_kinds, BOP_COUNT_OF(compare_kinds), &kind);

    compare.key = compare.value = bop_slice("", 0);
    if (rc == 0) {
        rc = take_word(taking, "is", relations, BOP_COUNT_OF(relations), &relation);
    }
    if (rc == 0) {
        rc = take_text(taking, "name", &compare.name);
    }
    if (rc == 0) {
        rc = take_bytes(taking, "key", false, &compare.key);
    }
    if (rc == 0) {
        rc = take_bytes(taking, "value", false, &compare.value);
    }
    if (rc == 0) {
        rc = take_integer(taking, "number", false, &compare.number);
    }
    compare.kind = (enum bop_compare_kind)kind;
    compare.relation = (enum bop_relation)relation;
    bop_compare_encode(writer, &compare);
    return rc < 0 ? rc : take_rest(taking);
}

static int take_inner(struct taking *taking, struct bop_writer *writer)
{
    struct bop_operation operation = {0};
    struct bop_writer inner;
    struct bop_buf bytes;
    int rc = take_operation(taking, &operation);

    if (rc < 0) {
        return rc;
    }
    bop_buf_init(&bytes, &taking->call->arena->allocator, 0);
    inner = bop_writer(&bytes);
    bop_operation_encode(&inner, &operation);
    bop_write_bytes(writer, bop_buf_slice(&bytes));
    return inner.code < 0 ? bop__http_problem(taking->problem, HTTP_BUSY, "no memory") : 0;
}

/* An array of objects, each taken by `fn`, as bytes one behind the other. */
static int take_list(struct taking *taking, const char *member,
                     int (*fn)(struct taking *taking, struct bop_writer *writer),
                     uint32_t *out_count, struct bop_slice *out)
{
    json_t *array = take(taking, member), *element;
    struct bop_writer writer;
    struct bop_buf buf;
    size_t at;

    if (array && (!json_is_array(array) || json_array_size(array) > BOP_TRANSACTION_MAX)) {
        return bad(taking, member, "to be an array of at most 512");
    }
    bop_buf_init(&buf, &taking->call->arena->allocator, 0);
    writer = bop_writer(&buf);
    json_array_foreach(array, at, element)
    {
        struct taking inner = {.call = taking->call, .object = element, .problem = taking->problem};

        if (fn(&inner, &writer) < 0) {
            return -1;
        }
    }
    *out_count = (uint32_t)json_array_size(array);
    *out = bop_buf_slice(&buf);
    return writer.code < 0 ? bop__http_problem(taking->problem, HTTP_BUSY, "no memory") : 0;
}

static int take_transaction(struct taking *taking, struct bop_operation *operation)
{
    int rc = take_list(taking, "compare", take_compare, &operation->compare_count,
                       &operation->compares);

    if (rc == 0) {
        rc = take_list(taking, "then", take_inner, &operation->then_count, &operation->then_items);
    }
    if (rc == 0) {
        rc = take_list(taking, "else", take_inner, &operation->else_count, &operation->else_items);
    }
    return rc < 0 ? rc : take_rest(taking);
}

int bop__http_take_fields(struct http_call *call, struct bop_slice body,
                          struct http_problem *out_problem)
{
    json_error_t trouble;
    json_t *object = body.size == 0 ? json_object()
                                    : json_loadb((const char *)body.data, body.size,
                                                 JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &trouble);
    struct taking taking = {.call = call, .object = object, .problem = out_problem};
    int rc;

    if (!json_is_object(object)) {
        rc = bop__http_problem(out_problem, HTTP_BAD_REQUEST, "the body is no JSON object");
    } else if (call->operation.op == BOP_OP_TRANSACTION) {
        rc = take_transaction(&taking, &call->operation);
    } else {
        rc = take_fields(&taking, &call->operation);
    }
    json_decref(object);
    return rc;
}

/* ---- Messages of watches ---- */

static int take_flag(struct taking *taking, const char *member, uint8_t flag, uint8_t *in_out_flags)
{
    const json_t *value = take(taking, member);

    if (json_is_true(value)) {
        *in_out_flags = (uint8_t)(*in_out_flags | flag);
    }
    return !value || json_is_boolean(value) ? 0 : bad(taking, member, "to be true or false");
}

static int take_kind(struct taking *taking, const char *member, bool required, uint8_t *out)
{
    const json_t *value = take(taking, member);

    if (!value && !required) {
        return 0;
    }
    *out = json_is_string(value) ? bop__http_watch_kind(text_of(value)) : 0;
    return *out ? 0 : bad(taking, member, "to be a kind: map, set, ...");
}

/* {"kind": "map", "name": "m", "prefix": "p", "revision": 7, "previous": true, ...} */
static int take_watch(struct taking *taking, struct http_watch *out)
{
    int rc = take_kind(taking, "kind", true, &out->what);

    if (rc == 0) {
        rc = take_kind(taking, "of", false, &out->of);
    }
    if (rc == 0 && json_object_get(taking->object, "name")) {
        rc = take_text(taking, "name", &out->name);
    }
    if (rc == 0) {
        out->has_key = json_object_get(taking->object, "key") != NULL ||
                       json_object_get(taking->object, "key64") != NULL;
        rc = take_bytes(taking, "key", false, &out->key);
    }
    if (rc == 0) {
        rc = take_bytes(taking, "prefix", false, &out->prefix);
    }
    if (rc == 0) {
        rc = take_bytes(taking, "from", false, &out->from);
    }
    if (rc == 0) {
        rc = take_bytes(taking, "to", false, &out->to);
    }
    if (rc == 0) {
        rc = take_unsigned(taking, "session", false, INT64_MAX, &out->session);
    }
    if (rc == 0) {
        rc = take_unsigned(taking, "revision", false, INT64_MAX, &out->revision);
    }
    if (rc == 0) {
        rc = take_flag(taking, "previous", BOP_WATCH_PREVIOUS, &out->flags);
    }
    if (rc == 0) {
        rc = take_flag(taking, "snapshot", BOP_WATCH_SNAPSHOT, &out->flags);
    }
    if (rc == 0) {
        rc = take_flag(taking, "progress", BOP_WATCH_PROGRESS, &out->flags);
    }
    return rc < 0 ? rc : take_rest(taking);
}

static int take_watch_id(struct taking *taking, const char *member, uint32_t *out)
{
    uint64_t id = 0;
    int rc = take_unsigned(taking, member, true, UINT32_MAX, &id);

    *out = rc == 0 ? (uint32_t)id : 0;
    return rc == 0 && id == 0 ? bad(taking, member, "to be at least 1") : rc;
}

static int take_standing(struct taking *taking, struct http_watch_message *out)
{
    const json_t *token = take(taking, "token");
    int rc = take_watch_id(taking, "id", &out->id);

    rc = rc < 0 ? rc : take_unsigned(taking, "session", true, INT64_MAX, &out->session);
    return rc < 0 || (json_is_string(token) &&
                      bop__http_take_token(taking->call, text_of(token), out->token))
               ? rc
               : bad(taking, "token", "to be that of the session");
}

static int take_message(struct taking *taking, struct http_watch_message *out)
{
    json_t *open = take(taking, "open");
    struct taking inner = {.call = taking->call, .object = open, .problem = taking->problem};
    int rc;

    if (open) {
        out->kind = WATCH_MESSAGE_OPEN;
        rc = take_watch_id(taking, "id", &out->id);
        rc = rc == 0 && !json_is_object(open) ? bad(taking, "open", "to be an object") : rc;
        rc = rc < 0 ? rc : take_watch(&inner, &out->watch);
    } else if (json_object_get(taking->object, "close")) {
        out->kind = WATCH_MESSAGE_CLOSE;
        rc = take_watch_id(taking, "close", &out->id);
    } else if (json_object_get(taking->object, "session")) {
        out->kind = WATCH_MESSAGE_SESSION;
        rc = take_standing(taking, out);
    } else {
        out->kind = WATCH_MESSAGE_ACK;
        rc = take_unsigned(taking, "ack", true, INT64_MAX, &out->ack.revision);
        rc = rc < 0 ? rc : take_flag(taking, "mark", BOP_WATCH_ACK_MARK, &out->ack.flags);
    }
    return rc < 0 ? rc : take_rest(taking);
}

int bop__http_take_watch_message(struct http_call *call, struct bop_slice text,
                                 struct http_watch_message *out, struct http_problem *out_problem)
{
    json_error_t trouble;
    json_t *object = json_loadb(text.size > 0 ? (const char *)text.data : "", text.size,
                                JSON_REJECT_DUPLICATES, &trouble);
    struct taking taking = {.call = call, .object = object, .problem = out_problem};
    int rc;

    *out = (struct http_watch_message){0};
    rc = json_is_object(object)
             ? take_message(&taking, out)
             : bop__http_problem(out_problem, HTTP_BAD_REQUEST, "the message is no JSON object");
    json_decref(object);
    return rc;
}
