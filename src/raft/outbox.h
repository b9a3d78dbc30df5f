/*
 * What a step hands out, while it is being gathered: the arrays behind a
 * bop_raft_update. They belong to the instance and are used again by each step,
 * so a steady load allocates nothing.
 *
 * A push that finds no memory sets `failed`, once for all; whoever runs the step
 * checks it at its end.
 */
#ifndef BOP_RAFT_OUTBOX_H
#define BOP_RAFT_OUTBOX_H

#include <bop/raft.h>

struct raft_outbox {
    struct bop_allocator *allocator;
    struct bop_raft_message *messages;
    unsigned message_count;
    unsigned message_capacity;
    struct bop_raft_append_update *appends;
    unsigned append_count;
    unsigned append_capacity;
    struct bop_raft_read_update *reads;
    unsigned read_count;
    unsigned read_capacity;
    bool failed;
};

void bop__raft_outbox_init(struct raft_outbox *out, struct bop_allocator *allocator);
void bop__raft_outbox_deinit(struct raft_outbox *out);
void bop__raft_outbox_clear(struct raft_outbox *out);

/** A new message with type, peer and term set, for the caller to fill; NULL: no memory. */
struct bop_raft_message *bop__raft_outbox_message(struct raft_outbox *out,
                                                  enum bop_raft_message_type type, uint64_t peer,
                                                  uint64_t term);

/** Joined to the append before it if it goes on where that ends, in the log and in memory. */
void bop__raft_outbox_append(struct raft_outbox *out, uint64_t index,
                             const struct bop_raft_entry *entries, unsigned count);

void bop__raft_outbox_read(struct raft_outbox *out, uint64_t context, uint64_t index, int code);

#endif
