/*
 * What went wrong, by RFC 9457. One table says for each kind its status code, title
 * and the way out; docs/errors.md has the same rows.
 */
#include <stdio.h>

#include "http.h"

#define RETRY_AFTER_S 1

static const struct {
    const char *name;
    unsigned code;
    const char *title;
    const char *way_out;
} problems[HTTP_PROBLEM_COUNT] = {
    [HTTP_NOT_FOUND] = {"not-found", 404, "there is no such thing",
                        "check the name and the key; maps and keys are case-sensitive bytes"},
    [HTTP_CONDITION] = {"condition", 412, "the condition is not met; nothing was changed",
                        "read what is there, decide again, and send its version in If-Match"},
    [HTTP_RETRY] = {"retry", 503, "not decided here",
                    "send the same request again, here or to another node: nothing was changed"},
    [HTTP_NO_SESSION] = {"no-session", 410, "the session has expired or was never opened",
                         "open a new one, and take what it held as lost"},
    [HTTP_BAD_REQUEST] = {"bad-request", 400, "the request makes no sense",
                          "see the detail, and /v1/openapi.json for what is understood"},
    [HTTP_TOO_BIG] = {"too-big", 413, "too big",
                      "a name has at most 255 bytes, a key 65536, a value 8388608"},
    [HTTP_BUSY] = {"busy", 429, "a bound is met", "send fewer requests at once, then this again"},
    [HTTP_NO_ROOM] = {"no-room", 507, "no room on disk",
                      "free some on the disks of the nodes; reads go on meanwhile"},
    [HTTP_STALE] = {"stale", 409, "already answered, and the answer acknowledged",
                    "number requests of a session upwards"},
    [HTTP_OVERFLOW] = {"overflow", 422, "the value would be out of range; nothing was changed",
                       "counters go from -2^63 to 2^63 - 1"},
    [HTTP_UNCERTAIN] = {"uncertain", 504, "the outcome is not known",
                        "read what is there before sending it again, or send it with a condition"},
    [HTTP_REFUSED] = {"refused", 403, "refused", "check the cluster's name and the token"},
    [HTTP_TOO_OLD] = {"too-old", 501, "the cluster does not speak of this yet",
                      "upgrade the nodes of an older version"},
    [HTTP_COMPACTED] = {"compacted", 410, "the past that was asked for is not kept any more",
                        "read how things stand, and go on from there"},
    [HTTP_NO_VIEW] = {"no-view", 410, "the view is over", "open another one"},
    [HTTP_NO_ROUTE] = {"no-route", 404, "nothing is served at this path",
                       "see /v1/openapi.json; names and keys in a path are percent-encoded"},
    [HTTP_NO_METHOD] = {"no-method", 405, "this method is not served here",
                        "use one of those that Allow names"},
    [HTTP_CROSS_ORIGIN] = {"cross-origin", 403, "a web page of another origin asks",
                           "ask from a page of this server's, or from no page"},
    [HTTP_MISDIRECTED] = {"misdirected", 421, "this server does not go by the name that was asked",
                          "ask by its address, as localhost, or by the name it listens at"},
    [HTTP_NO_TOKEN] = {"no-token", 401, "a valid token is needed",
                       "send one in Authorization: Bearer"},
    [HTTP_DENIED] = {"denied", 403, "the token does not allow this",
                     "ask for a token with this right in this namespace"},
    [HTTP_NOT_READY] = {"not-ready", 503, "not ready to serve",
                        "wait, or ask another node; the detail says for what"},
    [HTTP_FAILED] = {"failed", 500, "the node could not do this", "its log says more"},
};

int bop__http_problem(struct http_problem *out, enum http_problem_kind kind, const char *format,
                      ...)
{
    va_list args;

    *out = (struct http_problem){.kind = kind};
    va_start(args, format);
    vsnprintf(out->detail, sizeof(out->detail), format, args);
    va_end(args);
    return -1;
}

enum http_problem_kind bop__http_problem_of_status(uint8_t status)
{
    static const enum http_problem_kind kinds[] = {
        [BOP_STATUS_NOT_FOUND] = HTTP_NOT_FOUND,
        [BOP_STATUS_CONDITION] = HTTP_CONDITION,
        [BOP_STATUS_RETRY] = HTTP_RETRY,
        [BOP_STATUS_NO_SESSION] = HTTP_NO_SESSION,
        [BOP_STATUS_BAD_REQUEST] = HTTP_BAD_REQUEST,
        [BOP_STATUS_TOO_BIG] = HTTP_TOO_BIG,
        [BOP_STATUS_BUSY] = HTTP_BUSY,
        [BOP_STATUS_NO_ROOM] = HTTP_NO_ROOM,
        [BOP_STATUS_STALE] = HTTP_STALE,
        [BOP_STATUS_OVERFLOW] = HTTP_OVERFLOW,
        [BOP_STATUS_UNCERTAIN] = HTTP_UNCERTAIN,
        [BOP_STATUS_REFUSED] = HTTP_REFUSED,
        [BOP_STATUS_DENIED] = HTTP_DENIED,
        [BOP_STATUS_TOO_OLD] = HTTP_TOO_OLD,
        [BOP_STATUS_COMPACTED] = HTTP_COMPACTED,
        [BOP_STATUS_NO_VIEW] = HTTP_NO_VIEW,
    };

    return status < BOP_COUNT_OF(kinds) && kinds[status] ? kinds[status] : HTTP_FAILED;
}

unsigned bop__http_problem_code(enum http_problem_kind kind)
{
    return problems[kind].code;
}

const char *bop__http_problem_name(enum http_problem_kind kind)
{
    return problems[kind].name;
}

void bop__json_problem(struct http_json *json, const char *name, const struct http_problem *problem)
{
    char type[64];

    snprintf(type, sizeof(type), "urn:bop:error:%s", problems[problem->kind].name);
    bop__json_open(json, name, '{');
    bop__json_text(json, "type", bop_slice_cstr(type));
    bop__json_text(json, "title", bop_slice_cstr(problems[problem->kind].title));
    bop__json_u64(json, "status", problems[problem->kind].code);
    if (problem->detail[0]) {
        bop__json_text(json, "detail", bop_slice_cstr(problem->detail));
    }
    bop__json_text(json, "way_out", bop_slice_cstr(problems[problem->kind].way_out));
    if (problem->has_version) {
        bop__json_u64(json, "version", problem->version);
    }
    if (problem->has_value) {
        bop__json_i64(json, "value", problem->value);
    }
    if (problem->has_stored) {
        bop__json_u64(json, "stored", problem->stored);
    }
    if (problem->has_oldest) {
        bop__json_u64(json, "oldest", problem->oldest);
    }
    bop__json_close(json, '}');
}

int bop__http_answer_problem(struct http_answer *answer, const struct http_problem *problem)
{
    struct http_json json = bop__http_json(&answer->text);

    bop_buf_clear(&answer->text);
    bop__json_problem(&json, NULL, problem);
    answer->status = problems[problem->kind].code;
    answer->type = "application/problem+json";
    answer->has_version = problem->has_version && problem->version != 0;
    answer->version = problem->version;
    answer->wants_token = answer->status == 401;
    answer->retry_after_s = answer->status == 503 || answer->status == 429 ? RETRY_AFTER_S : 0;
    answer->content = bop_buf_slice(&answer->text);
    return json.code;
}
