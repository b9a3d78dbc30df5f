/*
 * The client's watches, for the other files of the client.
 */
#ifndef BOP_CLUSTER_CLIENT_WATCH_H
#define BOP_CLUSTER_CLIENT_WATCH_H

#include <bop/client_watch.h>

struct client_watches {
    struct bop_list all;
    struct bop_list waiting;         /* To be opened on the present connection. */
    struct bop_client_watch **slots; /* By the lower bits of the id; NULL: free. */
    size_t capacity;
    size_t count;
    size_t acknowledging;             /* Of these, with BOP_WATCH_ACKNOWLEDGE. */
    size_t next_slot;                 /* No free one below, as far as is known. */
    uint64_t told;                    /* All that are live were told all up to here. */
    struct bop_timer pause;           /* While it runs none is opened. */
    struct bop_list *walk;            /* The next one of a walk over all that calls back. */
    struct bop_client_watch *calling; /* Whose callback runs... */
    bool called_closed;               /* ...and has closed it. */
};

/** True for the kinds that bop__client_watch_answer() takes. */
static inline bool bop__client_watch_kind(uint16_t kind)
{
    return kind >= BOP_WIRE_KIND_WATCH_OPEN_REQUEST && kind <= BOP_WIRE_KIND_WATCH_ACK;
}

void bop__client_watches_init(struct bop_client *client);
/** All end with BOP_ECANCELED. */
void bop__client_watches_close(struct bop_client *client);
/** Open those that are not, as far as there is room. */
void bop__client_watches_flush(struct bop_client *client);
/** The connection is gone: they are to be opened on the next one. */
void bop__client_watches_unlinked(struct bop_client *client);
BOP_MUST_USE int bop__client_watch_answer(struct bop_client *client,
                                          const struct bop_wire_frame *frame);

#endif
