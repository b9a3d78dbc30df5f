/*
 * Looking into a parsed head.
 */
#include <bop/http1.h>

#include "../text.h"
#include "parse_list.h"

struct bop_slice bop_http_find(const struct bop_http_head *head, const char *name)
{
    for (unsigned i = 0; i < head->header_count; i++) {
        if (bop__text_is(head->headers[i].name, name)) {
            return head->headers[i].value;
        }
    }
    return bop_slice(NULL, 0);
}

static bool list_has(struct bop_slice value, const char *token)
{
    struct bop__http_list list = bop__http_list(value);
    struct bop_slice element;

    while (bop__http_list_next(&list, &element)) {
        if (bop__text_is(element, token)) {
            return true;
        }
    }
    return false;
}

bool bop_http_has_token(const struct bop_http_head *head, const char *name, const char *token)
{
    for (unsigned i = 0; i < head->header_count; i++) {
        if (bop__text_is(head->headers[i].name, name) && list_has(head->headers[i].value, token)) {
            return true;
        }
    }
    return false;
}
