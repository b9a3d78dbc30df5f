/*
 * Looking into a parsed head.
 */
#include <bop/http1.h>

#include "parse_list.h"

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

static bool same_without_case(struct bop_slice a, const char *b, size_t b_size)
{
    if (a.size != b_size) {
        return false;
    }
    for (size_t i = 0; i < b_size; i++) {
        if (lower(a.data[i]) != lower((uint8_t)b[i])) {
            return false;
        }
    }
    return true;
}

struct bop_slice bop_http_find(const struct bop_http_head *head, const char *name)
{
    size_t size = strlen(name);

    for (unsigned i = 0; i < head->header_count; i++) {
        if (same_without_case(head->headers[i].name, name, size)) {
            return head->headers[i].value;
        }
    }
    return bop_slice(NULL, 0);
}

static bool list_has(struct bop_slice value, const char *token, size_t size)
{
    struct bop__http_list list = bop__http_list(value);
    struct bop_slice element;

    while (bop__http_list_next(&list, &element)) {
        if (same_without_case(element, token, size)) {
            return true;
        }
    }
    return false;
}

bool bop_http_has_token(const struct bop_http_head *head, const char *name, const char *token)
{
    size_t name_size = strlen(name), token_size = strlen(token);

    for (unsigned i = 0; i < head->header_count; i++) {
        if (same_without_case(head->headers[i].name, name, name_size) &&
            list_has(head->headers[i].value, token, token_size)) {
            return true;
        }
    }
    return false;
}
