/*
 * From an operation's result to an answer, by the operation's form.
 */
#include "http.h"

static void write_entry(struct http_json *json, const struct http_form *form,
                        const struct bop_scan_entry *entry)
{
    bop__json_open(json, NULL, '{');
    if (form->entry) {
        form->entry(json, entry);
    }
    if (form->key) {
        bop__json_bytes(json, form->key, entry->key);
    }
    if (form->version) {
        bop__json_u64(json, "version", entry->version);
    }
    if (form->value) {
        bop__json_bytes(json, form->value, entry->value);
    }
    bop__json_close(json, '}');
}

static void write_cursor(struct http_json *json, struct bop_slice cursor)
{
    bop__json_raw(json, ",\"cursor\":\"");
    if (json->code == 0) {
        json->code = bop__base64_encode(json->buf, cursor, true);
    }
    bop__json_raw(json, "\"");
}

static void write_page(struct http_json *json, const struct http_form *form,
                       const struct bop_result *result)
{
    struct bop_slice entries = result->entries;
    struct bop_scan_entry entry;

    bop__json_u64(json, "revision", result->revision);
    bop__json_open(json, form->member, '[');
    while (bop_scan_next(&entries, &entry)) {
        write_entry(json, form, &entry);
    }
    bop__json_close(json, ']');
    if (result->cursor.size > 0) {
        write_cursor(json, result->cursor);
    }
}

static void write_member(struct http_json *json, const struct bop_result *result)
{
    struct bop_reader reader = bop_reader(result->value);

    bop__json_u64(json, "number", result->version);
    bop__json_u64(json, "session", bop_read_u64(&reader));
    bop__json_bytes(json, "info", bop_read_bytes(&reader));
}

static void write_members(struct http_json *json, enum bop_op op, const struct bop_result *result)
{
    const struct http_form *form = bop__http_form(op);

    switch (form->shape) {
    case SHAPE_FLAG:
    case SHAPE_MADE:
        bop__json_bool(json, form->member, result->existed);
        break;
    case SHAPE_PUT:
        bop__json_bool(json, form->member, result->existed);
        bop__json_u64(json, "version", result->version);
        break;
    case SHAPE_SIZE:
        bop__json_u64(json, form->member, result->size);
        break;
    case SHAPE_NUMBER:
        bop__json_i64(json, form->member, result->number);
        break;
    case SHAPE_PREVIOUS:
        bop__json_bool(json, form->member, result->existed);
        bop__json_u64(json, "version", result->version);
        if (result->existed) {
            bop__json_bytes(json, "previous", result->value);
        }
        break;
    case SHAPE_VALUE:
        bop__json_u64(json, "version", result->version);
        bop__json_bytes(json, "value", result->value);
        break;
    case SHAPE_VERSION:
        bop__json_u64(json, form->member, result->version);
        break;
    case SHAPE_TICKET:
        bop__json_u64(json, "ticket", result->ticket);
        bop__json_u64(json, "token", result->token);
        bop__json_u64(json, "position", result->position);
        break;
    case SHAPE_MEMBER:
        write_member(json, result);
        break;
    case SHAPE_PAGE:
        if (op == BOP_OP_LOCK_GET) {
            bop__json_u64(json, "capacity", result->capacity);
            bop__json_u64(json, "permits", result->permits);
        }
        write_page(json, form, result);
        break;
    case SHAPE_TRANSACTION: /* It has operations to go by: see write_transaction(). */
    case SHAPE_NONE:
        break;
    }
}

/* One result of a transaction: what the operation alone would have answered, or its status. */
static void write_inner(struct http_json *json, enum bop_op op, uint8_t status,
                        struct bop_slice bytes)
{
    struct bop_result result;

    bop__json_open(json, NULL, '{');
    if (bop_result_decode(op, status, bytes, &result) < 0) {
        status = BOP_STATUS_BAD_REQUEST;
    }
    bop__json_text(
        json, "status",
        bop_slice_cstr(status == BOP_STATUS_OK
                           ? "ok"
                           : bop__http_problem_name(bop__http_problem_of_status(status))));
    if (status == BOP_STATUS_OK && bop__http_form(op)) {
        write_members(json, op, &result);
    }
    bop__json_close(json, '}');
}

static void write_transaction(struct http_json *json, const struct bop_operation *operation,
                              const struct bop_result *result)
{
    struct bop_slice operations = result->existed ? operation->then_items : operation->else_items;
    struct bop_slice entries = result->entries, one, bytes;
    uint8_t status;

    bop__json_bool(json, "held", result->existed);
    bop__json_open(json, "results", '[');
    while (bop_transaction_next(&operations, &one) &&
           bop_transaction_result_next(&entries, &status, &bytes)) {
        write_inner(json, (enum bop_op)one.data[0], status, bytes);
    }
    bop__json_close(json, ']');
}

static int answer_json(struct http_answer *answer, const struct http_call *call,
                       const struct http_form *form, const struct bop_result *result)
{
    struct http_json json = bop__http_json(&answer->text);

    bop__json_open(&json, NULL, '{');
    if (form->shape == SHAPE_TRANSACTION) {
        write_transaction(&json, &call->operation, result);
    } else {
        write_members(&json, call->operation.op, result);
    }
    bop__json_close(&json, '}');
    answer->type = "application/json";
    answer->content = bop_buf_slice(&answer->text);
    if ((form->shape == SHAPE_MADE && result->existed) ||
        (form->shape == SHAPE_PUT && !result->existed)) {
        answer->status = 201;
    }
    return json.code;
}

static int answer_value(struct http_answer *answer, const struct http_call *call,
                        const struct bop_result *result)
{
    struct http_problem problem = {
        .kind = HTTP_CONDITION, .has_version = true, .version = result->version};

    if (call->operation.condition == BOP_IF_VERSION && call->operation.version != result->version) {
        return bop__http_answer_problem(answer, &problem);
    }
    if (call->if_none_match && (call->if_none_any || call->if_none_version == result->version)) {
        answer->status = 304;
        return 0;
    }
    answer->type = "application/octet-stream";
    answer->content = result->value;
    return 0;
}

static int answer_status(struct http_answer *answer, const struct http_call *call,
                         const struct bop_result *result)
{
    struct http_problem problem = {.kind = bop__http_problem_of_status(result->status)};

    if (result->status == BOP_STATUS_CONDITION && call->operation.op == BOP_OP_COUNTER_CAS) {
        problem.has_value = true;
        problem.value = result->number;
    } else if (result->status == BOP_STATUS_CONDITION && call->operation.op == BOP_OP_TRANSACTION) {
        bop__http_problem(&problem, HTTP_CONDITION, "the condition of operation %llu, from 0",
                          (unsigned long long)result->version);
    } else if (result->status == BOP_STATUS_CONDITION) {
        problem.has_version = true;
        problem.version = result->version;
    }
    return bop__http_answer_problem(answer, &problem);
}

int bop__http_answer_result(struct http_answer *answer, const struct http_call *call,
                            const struct bop_result *result)
{
    const struct http_form *form = bop__http_form(call->operation.op);

    bop_buf_clear(&answer->text);
    if (result->status != BOP_STATUS_OK) {
        return answer_status(answer, call, result);
    }
    answer->status = 200;
    answer->has_ttl = call->operation.op == BOP_OP_MAP_GET_TTL;
    answer->ttl_ms = result->ttl_ms;
    if (form->shape == SHAPE_PUT || form->shape == SHAPE_VALUE ||
        (call->operation.op == BOP_OP_MAP_EXCHANGE)) {
        answer->has_version = true;
        answer->version = result->version;
    }
    return form->shape == SHAPE_VALUE ? answer_value(answer, call, result)
                                      : answer_json(answer, call, form, result);
}
