/*
 * Who may do what, by the node's tokens (../auth.h): every request passes here once
 * its route and name are known, before its body is read.
 *
 * Who asks is who the token in Authorization belongs to, or else the certificate of
 * the connection. Each request shows it anew, so nothing is remembered that a new set
 * of tokens would have to undo.
 */
#include <strings.h>

#include "http.h"

#define SCHEME "Bearer "

/* 0, or -1 for a token that is not known. */
static int show(struct auth_who *who, struct bop_http_exchange *http,
                const struct bop_http_head *head)
{
    struct bop_slice value = bop_http_known(head, BOP_HTTP_AUTHORIZATION);
    const size_t scheme = strlen(SCHEME);
    struct bop_tls_certificate certificate;

    if (value.data) {
        return value.size > scheme && value.size - scheme <= BOP_AUTH_TOKEN_MAX &&
                       strncasecmp((const char *)value.data, SCHEME, scheme) == 0 &&
                       bop__auth_show_token(who,
                                            bop_slice(value.data + scheme, value.size - scheme))
                   ? 0
                   : -1;
    }
    if (bop_http_peer_certificate(http, &certificate) == 0) {
        BOP_IGNORE(bop__auth_show_certificate(who, certificate.names)); /* Nobody, then. */
    }
    return 0;
}

static bool is_allowed(struct auth_who *who, enum http_right right, struct bop_slice name)
{
    if (name.size == 0 && right != HTTP_RIGHT_ADMIN) {
        return true; /* The names are in the body: see bop__http_authorise_operation(). */
    }
    switch (right) {
    case HTTP_RIGHT_NONE:
    case HTTP_RIGHT_KNOWN:
        return true;
    case HTTP_RIGHT_READ:
        return bop__auth_allows(who, BOP_RIGHT_READ, name);
    case HTTP_RIGHT_WRITE:
        return bop__auth_allows(who, BOP_RIGHT_WRITE, name);
    case HTTP_RIGHT_ADMIN:
        break;
    }
    return bop__auth_allows_all(who, BOP_RIGHT_ADMIN);
}

static int refuse(struct auth_who *who, enum http_right right, struct bop_slice name,
                  struct http_problem *out_problem)
{
    char text[AUTH_TEXT_MAX];
    enum bop_right wanted = right == HTTP_RIGHT_READ    ? BOP_RIGHT_READ
                            : right == HTTP_RIGHT_WRITE ? BOP_RIGHT_WRITE
                                                        : BOP_RIGHT_ADMIN;

    return bop__http_problem(out_problem, HTTP_DENIED, "%s",
                             bop__auth_refusal(who, wanted, name, right == HTTP_RIGHT_ADMIN, text));
}

int bop__http_authorise(struct http_api *api, struct bop_http_exchange *http,
                        const struct bop_http_head *head, const struct http_call *call,
                        struct auth_who *out_who, struct http_problem *out_problem)
{
    enum http_right right = call->route->right;

    *out_who = bop__auth_who(api->backend.auth);
    if (!out_who->auth || right == HTTP_RIGHT_NONE) {
        return 0;
    }
    if (show(out_who, http, head) < 0) {
        return bop__http_problem(out_problem, HTTP_NO_TOKEN, "this token is not known");
    }
    if (!bop__auth_known(out_who)) {
        return bop__http_problem(out_problem, HTTP_NO_TOKEN, "there is no token");
    }
    return is_allowed(out_who, right, call->operation.name)
               ? 0
               : refuse(out_who, right, call->operation.name, out_problem);
}

int bop__http_authorise_operation(struct auth_who *who, const struct bop_operation *operation,
                                  struct http_problem *out_problem)
{
    char text[AUTH_TEXT_MAX];

    return bop__auth_allows_operation(who, operation)
               ? 0
               : bop__http_problem(out_problem, HTTP_DENIED, "%s",
                                   bop__auth_operation_refusal(who, operation, text));
}
