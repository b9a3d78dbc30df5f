/*
 * Guests: what lives on the loop besides sockets and listeners, and is closed
 * with it.
 */
#include "loop_internal.h"

void bop__loop_add_guest(struct bop_loop *loop, struct bop__guest *guest)
{
    BOP_ASSERT(guest->close != NULL && guest->finish != NULL);
    bop_list_push_back(&loop->guests, &guest->link);
}

void bop__loop_guest_leaves(struct bop_loop *loop, struct bop__guest *guest)
{
    bop_list_remove(&guest->link);
    bop_list_push_back(&loop->leaving, &guest->link);
}

/* Those that leave from here on have their turn at the end of the next one. */
void bop__guests_finish(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->leaving, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        struct bop__guest *guest = BOP_CONTAINER_OF(link, struct bop__guest, link);

        guest->finish(guest);
    }
}

void bop__guests_close_all(struct bop_loop *loop)
{
    while (!bop_list_empty(&loop->guests)) {
        struct bop__guest *guest = BOP_CONTAINER_OF(loop->guests.next, struct bop__guest, link);

        guest->close(guest);
        BOP_ASSERT(loop->guests.next != &guest->link); /* It has left. */
    }
}
