/*
 * From a request to an operation: pure functions, no socket and no replica.
 *
 * What the route does not take is refused rather than ignored: a misspelt ?limit
 * or a condition that nobody looks at would do something else than was asked for.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include <bop/url.h>

#include "http.h"

static int no_memory(struct http_problem *out_problem)
{
    return bop__http_problem(out_problem, HTTP_BUSY, "no memory for the request");
}

struct bop_slice bop__http_keep(struct http_call *call, struct bop_slice bytes)
{
    void *copy = bop_arena_alloc(call->arena, bytes.size + 1, 1);

    if (!copy) {
        return bop_slice(NULL, 0);
    }
    if (bytes.size > 0) {
        memcpy(copy, bytes.data, bytes.size);
    }
    return bop_slice(copy, bytes.size);
}

/* A part of a path, decoded: "+" is itself. */
static int decode(struct http_call *call, struct bop_slice text, const char *what,
                  struct bop_slice *out, struct http_problem *out_problem)
{
    struct bop_buf buf;
    int rc;

    bop_buf_init(&buf, &call->arena->allocator, 0);
    rc = text.size > 0 ? bop_url_decode(text, &buf) : 0;
    if (rc == BOP_EMALFORMED) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                                 "%s: a %% is not followed by two hexadecimal digits", what);
    }
    *out = buf.size > 0 ? bop_buf_slice(&buf) : bop_slice("", 0);
    return rc < 0 ? no_memory(out_problem) : 0;
}

/* ---- Path ---- */

static int take_name(struct http_call *call, const struct bop_router_match *match,
                     struct http_problem *out_problem)
{
    struct bop_slice name = bop_router_param(match, "name");
    int rc;

    if (!name.data) {
        return 0;
    }
    rc = decode(call, name, "the name", &call->operation.name, out_problem);
    if (rc < 0) {
        return rc;
    }
    if (call->operation.name.size > BOP_NAME_MAX) {
        return bop__http_problem(out_problem, HTTP_TOO_BIG, "the name has more than %d bytes",
                                 BOP_NAME_MAX);
    }
    return bop_slice_is_utf8(call->operation.name)
               ? 0
               : bop__http_problem(out_problem, HTTP_BAD_REQUEST, "the name is not UTF-8");
}

static int take_key(struct http_call *call, struct bop_slice bytes,
                    struct http_problem *out_problem)
{
    if (bytes.size > BOP_KEY_MAX) {
        return bop__http_problem(out_problem, HTTP_TOO_BIG, "the key has more than %u bytes",
                                 BOP_KEY_MAX);
    }
    call->operation.key = bytes;
    call->has_key = true;
    return 0;
}

/* ---- Query ---- */

/* A number in decimal digits. */
static int parse_number(struct bop_slice text, uint64_t least, uint64_t most, const char *name,
                        uint64_t *out_number, struct http_problem *out_problem)
{
    uint64_t number = 0;
    bool good = text.size > 0;

    for (size_t at = 0; at < text.size && good; at++) {
        unsigned digit = (unsigned)(text.data[at] - '0');

        good = digit <= 9 && number <= (UINT64_MAX - digit) / 10;
        number = good ? number * 10 + digit : number;
    }
    *out_number = number;
    return good && number >= least && number <= most
               ? 0
               : bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                                   "%s is not a whole number from %" PRIu64 " to %" PRIu64, name,
                                   least, most);
}

static int set_consistency(struct http_call *call, struct bop_slice value,
                           struct http_problem *out_problem)
{
    call->stale = bop_slice_equal(value, bop_slice_cstr("stale"));
    return call->stale || bop_slice_equal(value, bop_slice_cstr("linearizable"))
               ? 0
               : bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                                   "consistency is linearizable or stale");
}

static int set_cursor(struct http_call *call, struct bop_slice value,
                      struct http_problem *out_problem)
{
    struct bop_buf buf;
    int rc;

    bop_buf_init(&buf, &call->arena->allocator, 0);
    rc = bop__base64_decode(&buf, value, true);
    if (rc == BOP_EMALFORMED || buf.size > BOP_CURSOR_MAX) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                                 "the cursor is not one that a page ended with");
    }
    call->operation.cursor = bop_buf_slice(&buf);
    return rc < 0 ? no_memory(out_problem) : 0;
}

static int set_limit(struct http_call *call, struct bop_slice value,
                     struct http_problem *out_problem)
{
    uint64_t number = 0;
    int rc = parse_number(value, 1, HTTP_LIMIT_MAX, "limit", &number, out_problem);

    call->operation.limit = (uint32_t)number;
    return rc;
}

static int set_sample(struct http_call *call, struct bop_slice value,
                      struct http_problem *out_problem)
{
    return parse_number(value, 1, UINT64_C(1) << 30, "sample_bytes", &call->sample_bytes,
                        out_problem);
}

static int set_key(struct http_call *call, struct bop_slice value, struct http_problem *out_problem)
{
    return take_key(call, value, out_problem);
}

static int set_value(struct http_call *call, struct bop_slice value,
                     struct http_problem *out_problem)
{
    call->operation.value = value;
    call->has_value = true;
    return 0;
}

static int set_if_value(struct http_call *call, struct bop_slice value,
                        struct http_problem *out_problem)
{
    if (!bop_op_is_write(call->operation.op)) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST, "if_value is for writes");
    }
    call->operation.condition = BOP_IF_VALUE;
    call->operation.expected = value;
    return 0;
}

static int set_prefix(struct http_call *call, struct bop_slice value,
                      struct http_problem *out_problem)
{
    call->operation.prefix = value;
    return 0;
}

static int set_from(struct http_call *call, struct bop_slice value,
                    struct http_problem *out_problem)
{
    call->operation.from = value;
    return 0;
}

static int set_to(struct http_call *call, struct bop_slice value, struct http_problem *out_problem)
{
    call->operation.to = value;
    return 0;
}

static int set_ttl_ms(struct http_call *call, struct bop_slice value,
                      struct http_problem *out_problem)
{
    if (!bop_op_is_write(call->operation.op)) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST, "ttl_ms is for writes");
    }
    return parse_number(value, 1, BOP_TTL_MAX_MS, "ttl_ms", &call->operation.ttl_ms, out_problem);
}

static int set_ttl(struct http_call *call, struct bop_slice value, struct http_problem *out_problem)
{
    if (call->operation.op != BOP_OP_MAP_GET || !bop_slice_equal(value, bop_slice_cstr("true"))) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST, "ttl is for reads, and true");
    }
    call->operation.op = BOP_OP_MAP_GET_TTL;
    return 0;
}

static int set_return(struct http_call *call, struct bop_slice value,
                      struct http_problem *out_problem)
{
    if (!bop_slice_equal(value, bop_slice_cstr("previous"))) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST, "return is previous");
    }
    call->operation.op = call->operation.op == BOP_OP_MAP_DELETE ? BOP_OP_MAP_TAKE
                                                                 : BOP_OP_MAP_EXCHANGE;
    return 0;
}

static int set_sequence(struct http_call *call, struct bop_slice value,
                        struct http_problem *out_problem)
{
    return parse_number(value, 0, UINT64_MAX, "sequence", &call->operation.sequence, out_problem);
}

/* ---- Of watches ---- */

static int set_watch_kind(struct http_call *call, struct bop_slice value,
                          struct http_problem *out_problem)
{
    call->watch.what = bop__http_watch_kind(value);
    return call->watch.what
               ? 0
               : bop__http_problem(out_problem, HTTP_BAD_REQUEST, "there is no such kind");
}

static int set_watch_of(struct http_call *call, struct bop_slice value,
                        struct http_problem *out_problem)
{
    call->watch.of = bop__http_watch_kind(value);
    return call->watch.of
               ? 0
               : bop__http_problem(out_problem, HTTP_BAD_REQUEST, "of is a kind that has names");
}

static int set_watch_name(struct http_call *call, struct bop_slice value,
                          struct http_problem *out_problem)
{
    call->operation.name = value;
    return 0;
}

static int set_watch_revision(struct http_call *call, struct bop_slice value,
                              struct http_problem *out_problem)
{
    return parse_number(value, 0, UINT64_MAX, "revision", &call->watch.revision, out_problem);
}

static int set_watch_session(struct http_call *call, struct bop_slice value,
                             struct http_problem *out_problem)
{
    return parse_number(value, 1, UINT64_MAX, "session", &call->watch.session, out_problem);
}

static int set_watch_timeout(struct http_call *call, struct bop_slice value,
                             struct http_problem *out_problem)
{
    return parse_number(value, 0, HTTP_WATCH_MAX_MS, "timeout_ms", &call->watch.timeout_ms,
                        out_problem);
}

/* 0: the default. */
static int set_settle_timeout(struct http_call *call, struct bop_slice value,
                              struct http_problem *out_problem)
{
    return parse_number(value, 1, HTTP_SETTLE_MAX_MS, "timeout_ms", &call->watch.timeout_ms,
                        out_problem);
}

static int set_watch_previous(struct http_call *call, struct bop_slice value,
                              struct http_problem *out_problem)
{
    bool wanted = bop_slice_equal(value, bop_slice_cstr("true"));

    call->watch.flags = wanted ? BOP_WATCH_PREVIOUS : 0;
    return wanted || bop_slice_equal(value, bop_slice_cstr("false"))
               ? 0
               : bop__http_problem(out_problem, HTTP_BAD_REQUEST, "previous is true or false");
}

/* What the parameters that others have, too, say of a watch. */
static void finish_watch(struct http_call *call)
{
    struct bop_operation *operation = &call->operation;

    call->watch.name = operation->name;
    call->watch.has_key = call->has_key;
    call->watch.key = operation->key;
    call->watch.prefix = operation->prefix;
    call->watch.from = operation->from;
    call->watch.to = operation->to;
}

static const struct parameter {
    const char *name;
    unsigned takes; /* 0: all reads of operations. */
    int (*set)(struct http_call *call, struct bop_slice value, struct http_problem *out_problem);
} parameters[] = {
    {"consistency", 0, set_consistency},
    {"consistency", TAKES_CONSISTENCY, set_consistency},
    {"cursor", TAKES_PAGE, set_cursor},
    {"limit", TAKES_PAGE, set_limit},
    {"prefix", TAKES_RANGE | TAKES_PREFIX | TAKES_WATCH, set_prefix},
    {"from", TAKES_RANGE | TAKES_WATCH, set_from},
    {"to", TAKES_RANGE | TAKES_WATCH, set_to},
    {"key", TAKES_KEY_QUERY | TAKES_WATCH | TAKES_SETTLE, set_key},
    {"value", TAKES_VALUE_QUERY, set_value},
    {"if_value", TAKES_CONDITION, set_if_value},
    {"ttl_ms", TAKES_TTL, set_ttl_ms},
    {"ttl", TAKES_TTL, set_ttl},
    {"return", TAKES_RETURN, set_return},
    {"sequence", TAKES_SEQUENCE, set_sequence},
    {"sample_bytes", TAKES_SAMPLE, set_sample},
    {"kind", TAKES_WATCH | TAKES_SETTLE, set_watch_kind},
    {"of", TAKES_WATCH, set_watch_of},
    {"name", TAKES_WATCH | TAKES_SETTLE, set_watch_name},
    {"revision", TAKES_WATCH, set_watch_revision},
    {"session", TAKES_WATCH, set_watch_session},
    {"timeout_ms", TAKES_WATCH, set_watch_timeout},
    {"timeout_ms", TAKES_SETTLE, set_settle_timeout},
    {"previous", TAKES_WATCH, set_watch_previous},
};

static bool is_taken(const struct parameter *parameter, const struct http_route *route)
{
    return parameter->takes ? (route->takes & parameter->takes) != 0
                            : route->op != 0 && !bop_op_is_write(route->op);
}

static int unknown_parameter(const struct http_route *route, struct bop_slice name,
                             struct http_problem *out_problem)
{
    char known[HTTP_DETAIL_MAX] = "";
    size_t size = 0;

    for (size_t n = 0; n < BOP_COUNT_OF(parameters); n++) {
        if (is_taken(&parameters[n], route) && size < sizeof(known) - 20) {
            size += (size_t)snprintf(known + size, sizeof(known) - size, "%s%s",
                                     size > 0 ? ", " : "", parameters[n].name);
        }
    }
    return bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                             "there is no parameter \"%.*s\" here, %s%s",
                             (int)bop_min_u64(name.size, 40), (const char *)name.data,
                             size > 0 ? "but " : "nor any other", known);
}

/* Decode one "name=value" and set what it says. seen: a bit a parameter. */
static int take_parameter(struct http_call *call, struct bop_slice name, struct bop_slice value,
                          unsigned *seen, struct http_problem *out_problem)
{
    struct bop_buf buf;
    int rc;

    for (size_t n = 0; n < BOP_COUNT_OF(parameters); n++) {
        if (!is_taken(&parameters[n], call->route) ||
            !bop_slice_equal(name, bop_slice_cstr(parameters[n].name))) {
            continue;
        }
        if (*seen & 1u << n) {
            return bop__http_problem(out_problem, HTTP_BAD_REQUEST, "%s is there twice",
                                     parameters[n].name);
        }
        *seen |= 1u << n;
        bop_buf_init(&buf, &call->arena->allocator, 0);
        rc = value.size > 0 ? bop_url_decode_form(value, &buf) : 0;
        if (rc == BOP_EMALFORMED) {
            return bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                                     "%s: a %% is not followed by two hexadecimal digits",
                                     parameters[n].name);
        }
        if (rc < 0) {
            return no_memory(out_problem);
        }
        return parameters[n].set(call, buf.size > 0 ? bop_buf_slice(&buf) : bop_slice("", 0),
                                 out_problem);
    }
    return unknown_parameter(call->route, name, out_problem);
}

static int take_query(struct http_call *call, struct bop_slice query,
                      struct http_problem *out_problem)
{
    struct bop_slice rest = query, name, value;
    unsigned seen = 0;
    int rc = 0;

    while (rc == 0 && bop_url_query_next(&rest, &name, &value)) {
        rc = take_parameter(call, name, value, &seen, out_problem);
    }
    return rc;
}

/* ---- Which operation it is ---- */

/* Some routes stand for several operations, by what was given. */
static int choose(struct http_call *call, struct http_problem *out_problem)
{
    struct bop_operation *operation = &call->operation;

    switch (operation->op) {
    case BOP_OP_MAP_PUT:
        operation->op = operation->ttl_ms > 0 ? BOP_OP_MAP_PUT_TTL : operation->op;
        break;
    case BOP_OP_MULTIMAP_SIZE:
        operation->op = call->has_key ? BOP_OP_MULTIMAP_KEY_SIZE : operation->op;
        break;
    case BOP_OP_MULTIMAP_REMOVE:
        operation->op = call->has_value ? BOP_OP_MULTIMAP_REMOVE_VALUE : operation->op;
        break;
    case BOP_OP_MULTIMAP_CONTAINS_ENTRY:
        operation->op = !call->has_value ? BOP_OP_MULTIMAP_CONTAINS_KEY
                        : !call->has_key ? BOP_OP_MULTIMAP_CONTAINS_VALUE
                                         : operation->op;
        if (!call->has_value && !call->has_key) {
            return bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                                     "give key, value, or both in the query");
        }
        break;
    default:
        break;
    }
    return 0;
}

bool bop__http_take_token(struct http_call *call, struct bop_slice text,
                          uint8_t out_token[BOP_TOKEN_SIZE])
{
    struct bop_buf buf;
    bool good;

    bop_buf_init(&buf, &call->arena->allocator, 0);
    good = text.size > 0 && bop__base64_decode(&buf, text, true) == 0 && buf.size == BOP_TOKEN_SIZE;
    if (good) {
        memcpy(out_token, buf.data, BOP_TOKEN_SIZE);
    }
    return good;
}

/* The session of a path, and the token that goes with it. */
static int take_id(struct http_call *call, const struct bop_http_head *head,
                   const struct bop_router_match *match, struct http_problem *out_problem)
{
    struct bop_slice id = bop_router_param(match, "id");

    if (!id.data) {
        return 0;
    }
    call->has_token = bop__http_take_token(call, bop_http_find(head, "BOP-Token"), call->token);
    return parse_number(id, 1, UINT64_MAX, "the session", &call->session, out_problem);
}

/* BOP-Session, BOP-Sequence and BOP-Acked: the write is a session's, and done once however often it
 * is sent. */
static int take_session(struct http_call *call, const struct bop_http_head *head,
                        struct http_problem *out_problem)
{
    struct bop_slice session = bop_http_find(head, "BOP-Session");
    struct bop_slice sequence = bop_http_find(head, "BOP-Sequence");
    struct bop_slice acked = bop_http_find(head, "BOP-Acked");
    int rc;

    if (!session.data) {
        return 0;
    }
    if (!bop_op_is_write(call->operation.op) || call->route->serve) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST, "a session is for single writes");
    }
    rc = parse_number(session, 1, UINT64_MAX, "BOP-Session", &call->session, out_problem);
    if (rc == 0) {
        rc = parse_number(sequence, 1, UINT64_MAX, "BOP-Sequence", &call->sequence, out_problem);
    }
    return rc == 0 && acked.data
               ? parse_number(acked, 0, UINT64_MAX, "BOP-Acked", &call->acked, out_problem)
               : rc;
}

int bop__http_translate(struct http_call *call, const struct bop_http_head *head,
                        const struct bop_router_match *match, struct http_problem *out_problem)
{
    int rc;

    call->route = match->route;
    call->operation.op = call->route->op;
    call->operation.limit = HTTP_LIMIT_DEFAULT;
    call->operation.kind = call->route->kind;
    call->watch.timeout_ms = call->route->takes & TAKES_WATCH ? HTTP_WATCH_MS : 0;
    rc = take_name(call, match, out_problem);
    if (rc == 0) {
        rc = take_id(call, head, match, out_problem);
    }
    if (rc == 0 && (call->route->takes & TAKES_KEY)) {
        struct bop_slice key = bop_slice(NULL, 0);

        rc = decode(call, bop_router_param(match, "*"), "the key", &key, out_problem);
        if (rc == 0) {
            rc = take_key(call, key, out_problem);
        }
    }
    if (rc == 0) {
        rc = take_query(call, head->query, out_problem);
    }
    if (rc == 0) {
        rc = bop__http_condition(call, head, out_problem);
    }
    if (rc == 0) {
        rc = take_session(call, head, out_problem);
    }
    if (call->route->takes & (TAKES_WATCH | TAKES_SETTLE)) {
        finish_watch(call);
    }
    return rc == 0 ? choose(call, out_problem) : rc;
}

/* ---- Body ---- */

uint64_t bop__http_body_max(const struct http_route *route)
{
    return route->takes & TAKES_STREAM   ? UINT64_MAX
           : route->takes & TAKES_VALUE  ? BOP_VALUE_MAX
           : route->takes & TAKES_FIELDS ? HTTP_FIELDS_MAX
                                         : HTTP_JSON_MAX;
}

/* A member of a JSON object that must be a whole number. */
static int take_integer(json_t *object, const char *name, int64_t *out_number,
                        struct http_problem *out_problem)
{
    json_t *member = json_object_get(object, name);

    if (!json_is_integer(member)) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                                 "\"%s\" must be there, a whole number", name);
    }
    *out_number = json_integer_value(member);
    return 0;
}

static int take_numbers(struct http_call *call, json_t *object, struct http_problem *out_problem)
{
    struct bop_operation *operation = &call->operation;
    size_t known = 1;
    int rc;

    if (call->route->takes & TAKES_DELTA) {
        rc = take_integer(object, "delta", &operation->delta, out_problem);
    } else {
        rc = take_integer(object, "value", &operation->number, out_problem);
        call->has_expected = json_object_get(object, "expected") != NULL;
        if (rc == 0 && call->has_expected) {
            rc = take_integer(object, "expected", &operation->expected_number, out_problem);
            operation->op = BOP_OP_COUNTER_CAS;
            known++;
        }
    }
    if (rc == 0 && json_object_size(object) > known) {
        rc = bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                               "the body has members that mean nothing here");
    }
    return rc;
}

static int take_json(struct http_call *call, struct bop_slice body,
                     struct http_problem *out_problem)
{
    json_error_t trouble;
    json_t *object = json_loadb(body.size > 0 ? (const char *)body.data : "", body.size,
                                JSON_REJECT_DUPLICATES, &trouble);
    int rc;

    if (!json_is_object(object)) {
        rc = bop__http_problem(out_problem, HTTP_BAD_REQUEST, "the body is no JSON object%s%.120s",
                               object ? "" : ": ", object ? "" : trouble.text);
    } else {
        rc = take_numbers(call, object, out_problem);
    }
    json_decref(object);
    return rc;
}

int bop__http_translate_body(struct http_call *call, struct bop_slice body,
                             struct http_problem *out_problem)
{
    if (call->route->takes & TAKES_VALUE) {
        call->operation.value = body;
        return 0;
    }
    if (call->route->takes & (TAKES_NUMBER | TAKES_DELTA)) {
        return take_json(call, body, out_problem);
    }
    if (call->route->takes & TAKES_FIELDS) {
        return bop__http_take_fields(call, body, out_problem);
    }
    return body.size == 0
               ? 0
               : bop__http_problem(out_problem, HTTP_BAD_REQUEST, "no body is taken here");
}

int bop__http_encode(const struct http_call *call, struct bop_buf *out,
                     struct http_problem *out_problem)
{
    struct bop_writer writer = bop_writer(out);
    struct bop_operation operation;
    int rc;

    bop_buf_clear(out);
    bop_operation_encode(&writer, &call->operation);
    if (writer.code < 0) {
        return no_memory(out_problem);
    }
    rc = bop_operation_decode(bop_buf_slice(out), &operation);
    if (rc == BOP_ETOOBIG) {
        return bop__http_problem(out_problem, HTTP_TOO_BIG,
                                 "a key, a value or a bound of a range is too long");
    }
    return rc < 0 ? bop__http_problem(out_problem, HTTP_BAD_REQUEST, "that is no operation") : 0;
}
