/*
 * Header values that are lists: elements between commas, white space around them
 * dropped (RFC 9110, 5.6.1).
 */
#ifndef BOP_NET_HTTP_PARSE_LIST_H
#define BOP_NET_HTTP_PARSE_LIST_H

#include <bop/slice.h>

struct bop__http_list {
    const uint8_t *at; /* NULL: no more. */
    const uint8_t *end;
};

static inline struct bop__http_list bop__http_list(struct bop_slice value)
{
    return (struct bop__http_list){.at = value.data,
                                   .end = value.data ? value.data + value.size : NULL};
}

/* The next element, which may be empty. False if there is none. */
static inline bool bop__http_list_next(struct bop__http_list *list, struct bop_slice *out_element)
{
    const uint8_t *start = list->at, *end, *comma;

    if (!start) {
        return false;
    }
    comma = memchr(start, ',', (size_t)(list->end - start));
    list->at = comma ? comma + 1 : NULL;
    end = comma ? comma : list->end;
    while (start < end && (*start == ' ' || *start == '\t')) {
        start++;
    }
    while (end > start && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    *out_element = bop_slice(start, (size_t)(end - start));
    return true;
}

#endif
