/*
 * Gathers what a step hands out. See outbox.h.
 */
#include "outbox.h"

#define CAPACITY_FIRST 8

void bop__raft_outbox_init(struct raft_outbox *out, struct bop_allocator *allocator)
{
    memset(out, 0, sizeof(*out));
    out->allocator = allocator;
}

void bop__raft_outbox_deinit(struct raft_outbox *out)
{
    bop_free(out->allocator, out->messages, out->message_capacity * sizeof(*out->messages));
    bop_free(out->allocator, out->appends, out->append_capacity * sizeof(*out->appends));
    bop_free(out->allocator, out->reads, out->read_capacity * sizeof(*out->reads));
}

void bop__raft_outbox_clear(struct raft_outbox *out)
{
    out->message_count = 0;
    out->append_count = 0;
    out->read_count = 0;
}

/* Make room for one more in an array. The counts are bounded by what one step can ask for, far
 * below where they would overflow. */
static bool grow(struct raft_outbox *out, void **array, unsigned count, unsigned *capacity,
                 size_t size)
{
    unsigned wanted = *capacity > 0 ? *capacity * 2 : CAPACITY_FIRST;
    void *grown;

    if (count < *capacity) {
        return true;
    }
    grown = bop_realloc(out->allocator, *array, *capacity * size, wanted * size);
    if (!grown) {
        out->failed = true;
        return false;
    }
    *array = grown;
    *capacity = wanted;
    return true;
}

struct bop_raft_message *bop__raft_outbox_message(struct raft_outbox *out,
                                                  enum bop_raft_message_type type, uint64_t peer,
                                                  uint64_t term)
{
    struct bop_raft_message *message;
    void *array = out->messages;

    if (!grow(out, &array, out->message_count, &out->message_capacity, sizeof(*message))) {
        return NULL;
    }
    out->messages = array;
    message = &out->messages[out->message_count++];
    message->type = type;
    message->peer = peer;
    message->term = term;
    return message;
}

void bop__raft_outbox_append(struct raft_outbox *out, uint64_t index,
                             const struct bop_raft_entry *entries, unsigned count)
{
    struct bop_raft_append_update *append;
    void *array = out->appends;

    if (out->append_count > 0) {
        append = &out->appends[out->append_count - 1];
        if (append->index + append->count == index && append->entries + append->count == entries) {
            append->count += count;
            return;
        }
    }
    if (!grow(out, &array, out->append_count, &out->append_capacity, sizeof(*append))) {
        return;
    }
    out->appends = array;
    append = &out->appends[out->append_count++];
    append->index = index;
    append->entries = entries;
    append->count = count;
}

void bop__raft_outbox_read(struct raft_outbox *out, uint64_t context, uint64_t index, int code)
{
    struct bop_raft_read_update *read;
    void *array = out->reads;

    if (!grow(out, &array, out->read_count, &out->read_capacity, sizeof(*read))) {
        return;
    }
    out->reads = array;
    read = &out->reads[out->read_count++];
    read->context = context;
    read->index = index;
    read->code = code;
}
