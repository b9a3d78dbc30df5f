/*
 * Intrusive doubly linked lists: the link lies in the element, so no operation
 * allocates or fails. A list is a ring through its head. An element is on at
 * most one list a link; a link that is on none points at itself.
 */
#ifndef BOP_LIST_H
#define BOP_LIST_H

#include <bop/base.h>

struct bop_list {
    struct bop_list *next;
    struct bop_list *prev;
};

/** Make an empty list of a head, or an unlinked link of a link. */
static inline void bop_list_init(struct bop_list *list)
{
    list->next = list;
    list->prev = list;
}

static inline bool bop_list_empty(const struct bop_list *list)
{
    return list->next == list;
}

static inline void bop_list_insert_between(struct bop_list *prev, struct bop_list *link,
                                           struct bop_list *next)
{
    link->prev = prev;
    link->next = next;
    prev->next = link;
    next->prev = link;
}

static inline void bop_list_push_back(struct bop_list *list, struct bop_list *link)
{
    bop_list_insert_between(list->prev, link, list);
}

static inline void bop_list_push_front(struct bop_list *list, struct bop_list *link)
{
    bop_list_insert_between(list, link, list->next);
}

/** Take a link off its list, if it is on one. */
static inline void bop_list_remove(struct bop_list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    bop_list_init(link);
}

/** The first link, taken off, or NULL. */
static inline struct bop_list *bop_list_pop_front(struct bop_list *list)
{
    struct bop_list *link = list->next;

    if (link == list) {
        return NULL;
    }
    bop_list_remove(link);
    return link;
}

#define BOP_LIST_FOR_EACH(link, list)                                                              \
    for (struct bop_list *link = (list)->next; link != (list); link = link->next)

/** As BOP_LIST_FOR_EACH; the body may remove or free the current link. */
#define BOP_LIST_FOR_EACH_SAFE(link, list)                                                         \
    for (struct bop_list *link = (list)->next, *link##_next_ = link->next; link != (list);         \
         link = link##_next_, link##_next_ = link->next)

#endif
