/*
 * Conditions of a request, by RFC 9110, 13: entity tags are versions, "7".
 *
 *      If-Match: *         there is one             If-None-Match: *     there is none
 *      If-Match: "7"       with this version        If-None-Match: "7"   (GET) another one
 *
 * A list of several tags is refused, for an operation has one condition; a weak
 * tag, and one that is no version, matches nothing.
 */
#include "http.h"

/* A version that nothing has. */
#define NO_VERSION 0

static bool is_star(struct bop_slice value)
{
    return bop_slice_equal(value, bop_slice_cstr("*"));
}

/* One tag: 0, or -1 for what is no single tag. */
static int parse_tag(struct bop_slice value, uint64_t *out_version)
{
    struct bop_slice tag = value;
    uint64_t version = 0;
    bool weak = tag.size > 2 && memcmp(tag.data, "W/", 2) == 0;
    bool number = !weak;

    if (weak) {
        tag = bop_slice(tag.data + 2, tag.size - 2);
    }
    if (tag.size < 2 || tag.data[0] != '"' || tag.data[tag.size - 1] != '"' ||
        memchr(tag.data + 1, '"', tag.size - 2)) {
        return -1;
    }
    for (size_t at = 1; at < tag.size - 1 && number; at++) {
        unsigned digit = (unsigned)(tag.data[at] - '0');

        number = digit <= 9 && version <= (UINT64_MAX - digit) / 10;
        version = number ? version * 10 + digit : 0;
    }
    *out_version = number && tag.size > 2 && tag.data[1] != '0' ? version : NO_VERSION;
    return 0;
}

static int bad_tag(struct http_problem *out_problem, const char *header)
{
    return bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                             "%s is neither * nor one version in quotes, such as \"7\"", header);
}

static int if_match(struct http_call *call, struct bop_slice value,
                    struct http_problem *out_problem)
{
    if (is_star(value)) {
        call->operation.condition = BOP_IF_PRESENT;
        return 0;
    }
    call->operation.condition = BOP_IF_VERSION;
    return parse_tag(value, &call->operation.version) < 0 ? bad_tag(out_problem, "If-Match") : 0;
}

static int if_none_match(struct http_call *call, struct bop_slice value,
                         struct http_problem *out_problem)
{
    call->if_none_any = is_star(value);
    if (!bop_op_is_write(call->operation.op)) {
        call->if_none_match = true;
        /* Several versions, or one that is not ours: the answer is then sent in any case. */
        if (!call->if_none_any && parse_tag(value, &call->if_none_version) < 0) {
            call->if_none_match = false;
        }
        return 0;
    }
    call->operation.condition = BOP_IF_ABSENT;
    return call->if_none_any
               ? 0
               : bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                                   "If-None-Match of a write is *, for \"only if there is none\"");
}

int bop__http_condition(struct http_call *call, const struct bop_http_head *head,
                        struct http_problem *out_problem)
{
    struct bop_slice match = bop_http_find(head, "If-Match");
    struct bop_slice none_match = bop_http_known(head, BOP_HTTP_IF_NONE_MATCH);
    bool given = call->operation.condition != BOP_IF_ALWAYS;

    if (!(call->route->takes & TAKES_CONDITION)) {
        /* To go on as if it had not been asked could change what was to stay. */
        return !match.data && (!none_match.data || head->method == BOP_HTTP_GET ||
                               head->method == BOP_HTTP_HEAD)
                   ? 0
                   : bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                                       "conditions are not taken here");
    }
    if ((match.data != NULL) + (none_match.data != NULL) + given > 1) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST,
                                 "one of If-Match, If-None-Match and if_value at a time");
    }
    if (match.data) {
        return if_match(call, match, out_problem);
    }
    return none_match.data ? if_none_match(call, none_match, out_problem) : 0;
}
