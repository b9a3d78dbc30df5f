/*
 * Intrusive lists.
 */
#include <bop/list.h>

#include "tap.h"

struct item {
    int number;
    struct bop_list link;
};

struct fixture {
    struct bop_list list;
    struct item items[3];
};

static void setup(struct fixture *f)
{
    bop_list_init(&f->list);
    for (int i = 0; i < 3; i++) {
        f->items[i].number = i + 1;
        bop_list_init(&f->items[i].link);
    }
}

FIXTURE(setup, NULL)

/* The numbers on the list as digits of one number, forward; backward must mirror it. */
static int digits(const struct bop_list *list)
{
    int forward = 0, backward = 0, scale = 1;

    BOP_LIST_FOR_EACH(link, list) {
        forward = forward * 10 + BOP_CONTAINER_OF(link, struct item, link)->number;
    }
    for (const struct bop_list *link = list->prev; link != list; link = link->prev) {
        backward += scale * BOP_CONTAINER_OF(link, struct item, link)->number;
        scale *= 10;
    }
    CHECK_EQ(forward, backward);
    return forward;
}

TEST(list, is_empty_at_first)
{
    CHECK(bop_list_empty(&f->list));
    CHECK_EQ(digits(&f->list), 0);
    CHECK_PTR_EQ(bop_list_pop_front(&f->list), NULL);
}

TEST(list, keeps_the_order_of_pushes)
{
    bop_list_push_back(&f->list, &f->items[1].link);
    bop_list_push_back(&f->list, &f->items[2].link);
    bop_list_push_front(&f->list, &f->items[0].link);
    CHECK_EQ(digits(&f->list), 123);
    CHECK(!bop_list_empty(&f->list));
}

TEST(list, pops_from_the_front_until_empty)
{
    for (int i = 0; i < 3; i++) {
        bop_list_push_back(&f->list, &f->items[i].link);
    }
    for (int i = 0; i < 3; i++) {
        CHECK_PTR_EQ(bop_list_pop_front(&f->list), &f->items[i].link);
        CHECK(bop_list_empty(&f->items[i].link));
    }
    CHECK_PTR_EQ(bop_list_pop_front(&f->list), NULL);
}

TEST(list, removes_from_any_place)
{
    for (int i = 0; i < 3; i++) {
        bop_list_push_back(&f->list, &f->items[i].link);
    }
    bop_list_remove(&f->items[1].link);
    CHECK_EQ(digits(&f->list), 13);
    bop_list_remove(&f->items[2].link);
    CHECK_EQ(digits(&f->list), 1);
    bop_list_remove(&f->items[0].link);
    CHECK(bop_list_empty(&f->list));
}

TEST(list, lets_an_unlinked_link_be_removed_again)
{
    bop_list_push_back(&f->list, &f->items[0].link);
    bop_list_remove(&f->items[0].link);
    bop_list_remove(&f->items[0].link);
    CHECK(bop_list_empty(&f->list));
    bop_list_push_back(&f->list, &f->items[0].link);
    CHECK_EQ(digits(&f->list), 1);
}

TEST(list, lets_the_safe_walk_remove_what_it_visits)
{
    int visited = 0;

    for (int i = 0; i < 3; i++) {
        bop_list_push_back(&f->list, &f->items[i].link);
    }
    BOP_LIST_FOR_EACH_SAFE(link, &f->list) {
        struct item *item = BOP_CONTAINER_OF(link, struct item, link);

        visited++;
        if (item->number != 2) {
            bop_list_remove(link);
            memset(link, 0, sizeof(*link)); /* As if freed. */
        }
    }
    CHECK_EQ(visited, 3);
    CHECK_EQ(digits(&f->list), 2);
}
