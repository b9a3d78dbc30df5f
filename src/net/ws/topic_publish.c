/*
 * Publishing: from any thread to the batches of all loops that have subscribers.
 */
#include "topic.h"

#include <bop/error.h>
#include <bop/mem.h>

#include "conn.h"

/* ---- On the loop itself ---- */

/* The turn whose end delivers: this one, or one that comes. */
static void ensure_turn(struct bop__branch *branch)
{
    struct bop_loop *loop = branch->loop;

    if (branch->waking || (loop->in_turn && branch->delivered_in != loop->iteration)) {
        return;
    }
    branch->waking = true;
    /* Relaxed: the caller's own reference keeps it meanwhile. */
    atomic_fetch_add_explicit(&branch->topics->references, 1, memory_order_relaxed);
    bop_loop_post(loop, &branch->wake);
}

static int publish_here(struct bop__branch *branch, struct bop__topic *topic,
                        struct bop_slice header, struct bop_slice payload, struct bop_shared *lent,
                        struct bop_ws_prepared *prepared, const struct bop_ws *except)
{
    int rc = bop__batch_add(branch, topic, header, payload, lent, prepared, except);

    if (rc == 0) {
        ensure_turn(branch);
    }
    return rc;
}

/* ---- To other loops ---- */

struct message;

/** The way of a message to one branch. */
struct delivery {
    struct bop_post post;
    struct message *message;
    struct bop__branch *branch;
};

/** One block: the deliveries, the topic's name, and the frame unless it is a prepared one's. */
struct message {
    struct bop_shared frame; /* Whose references are those of all this. */
    struct bop_topics *topics;
    struct bop_allocator *allocator;
    size_t bytes;
    uint64_t hash;
    size_t name_size;
    size_t header_size;
    struct bop_ws_prepared *prepared;
    char *name;
    size_t delivery_count;
    struct delivery deliveries[];
};

static void free_message(struct bop_shared *frame)
{
    struct message *message = BOP_CONTAINER_OF(frame, struct message, frame);
    struct bop_topics *topics = message->topics;

    bop_ws_prepared_unref(message->prepared);
    bop_free(message->allocator, message, message->bytes);
    bop__topics_unref(topics);
}

/* On the branch's loop. */
static void on_delivery(struct bop_post *post)
{
    struct delivery *delivery = BOP_CONTAINER_OF(post, struct delivery, post);
    struct message *message = delivery->message;
    struct bop__branch *branch = delivery->branch;
    struct bop_shared *frame = message->prepared != NULL ? &message->prepared->plain
                                                         : &message->frame;
    struct bop__topic *topic = bop__topic_find(branch, message->hash, message->name,
                                               message->name_size);

    if (topic != NULL && publish_here(branch, topic, bop_slice(frame->data, message->header_size),
                                      bop_slice(frame->data + message->header_size,
                                                frame->size - message->header_size),
                                      frame, message->prepared, NULL) != 0) {
        bop__count(&branch->counts.dropped, (int64_t)topic->count);
    }
    bop_shared_unref(&message->frame);
}

/* A message with room for so many deliveries. NULL: no memory. */
static struct message *make_message(struct bop_topics *topics, const char *name, size_t name_size,
                                    uint64_t hash, struct bop_slice header,
                                    struct bop_slice payload, struct bop_ws_prepared *prepared,
                                    size_t deliveries)
{
    size_t frame_size = prepared == NULL ? header.size + payload.size : 0;
    size_t names_at = sizeof(struct message) + deliveries * sizeof(struct delivery);
    size_t bytes = names_at + name_size + 1 + frame_size;
    struct message *message = (struct message *)bop_alloc(topics->allocator, bytes);
    uint8_t *data;

    if (message == NULL) {
        return NULL;
    }
    data = (uint8_t *)message + names_at + name_size + 1;
    message->topics = topics;
    message->allocator = topics->allocator;
    message->bytes = bytes;
    message->hash = hash;
    message->name_size = name_size;
    message->header_size = header.size;
    message->prepared = prepared;
    message->name = (char *)message + names_at;
    message->delivery_count = 0;
    memcpy(message->name, name, name_size + 1);
    if (prepared != NULL) {
        bop_shared_ref(&prepared->plain);
    } else {
        memcpy(data, header.data, header.size);
        if (payload.size > 0) {
            memcpy(data + header.size, payload.data, payload.size);
        }
    }
    bop_shared_init(&message->frame, data, frame_size, free_message);
    /* Relaxed: the caller's own reference keeps it meanwhile. */
    atomic_fetch_add_explicit(&topics->references, 1, memory_order_relaxed);
    return message;
}

/* Send the message on its way, and give up the caller's reference. */
static void post_message(struct message *message)
{
    for (size_t i = 0; i < message->delivery_count; i++) {
        struct delivery *delivery = &message->deliveries[i];

        bop_shared_ref(&message->frame);
        if (bop_loop_handle_post(delivery->branch->handle, &delivery->post) != 0) {
            bop_shared_unref(&message->frame); /* That loop is gone, with all its subscribers. */
        }
    }
    bop_shared_unref(&message->frame);
}

/* ---- Any thread ---- */

static bool may_have_subscribers(const struct bop__branch *branch, uint64_t hash)
{
    /* Acquire pairs with the release of count_load(). */
    return atomic_load_explicit(&branch->load[hash % BOP__LOAD_CLASSES], memory_order_acquire) > 0;
}

int bop__publish(struct bop_topics *topics, const char *name, unsigned opcode,
                 struct bop_slice payload, struct bop_ws_prepared *prepared,
                 const struct bop_ws *except)
{
    size_t size = strlen(name), others = 0;
    uint64_t hash = bop__topic_hash(topics, name, size);
    /* Acquire pairs with the release of make_branch(). */
    struct bop__branch *first = atomic_load_explicit(&topics->branches, memory_order_acquire);
    struct bop__branch *here = NULL;
    struct bop__topic *topic = NULL;
    struct message *message = NULL;
    struct bop_shared *lent = prepared != NULL ? &prepared->plain : NULL;
    uint8_t head[BOP_WS_HEADER_MAX];
    struct bop_slice header;
    int rc = 0;

    atomic_fetch_add_explicit(&topics->published, 1, memory_order_relaxed); /* Only counts. */
    for (struct bop__branch *branch = first; branch != NULL; branch = branch->next) {
        if (!may_have_subscribers(branch, hash)) {
            continue;
        }
        if (here == NULL && bop__loop_handle_is_here(branch->handle)) {
            here = branch;
        } else {
            others++;
        }
    }
    if (prepared != NULL) {
        header = bop_slice(prepared->plain.data, prepared->header_size);
        payload = bop_slice(prepared->plain.data + header.size, prepared->plain.size - header.size);
    } else {
        header = bop_slice(head, bop_ws_header(head, BOP_WS_FIN | opcode, payload.size, NULL));
    }
    if (others > 0) {
        message = make_message(topics, name, size, hash, header, payload, prepared, others);
        if (message == NULL) {
            return BOP_ENOMEM;
        }
        lent = lent != NULL ? lent : &message->frame;
        /* Those that a topic came to since were not counted, and get no message: it was published
         * before. */
        for (struct bop__branch *branch = first; branch != NULL; branch = branch->next) {
            if (branch != here && message->delivery_count < others &&
                may_have_subscribers(branch, hash)) {
                message->deliveries[message->delivery_count++] = (struct delivery){
                    .post.fn = on_delivery, .message = message, .branch = branch};
            }
        }
    }
    if (here != NULL) {
        topic = bop__topic_find(here, hash, name, size);
    }
    if (topic != NULL) {
        rc = publish_here(here, topic, header, payload, lent, prepared, except);
    }
    if (message != NULL && rc == 0) {
        post_message(message);
    } else if (message != NULL) {
        bop_shared_unref(&message->frame);
    }
    return rc;
}

/* ---- For users ---- */

int bop_topics_publish(struct bop_topics *topics, const char *topic, enum bop_ws_opcode opcode,
                       struct bop_slice message)
{
    if (opcode != BOP_WS_TEXT && opcode != BOP_WS_BINARY) {
        return BOP_EINVAL;
    }
    return bop__publish(topics, topic, opcode, message, NULL, NULL);
}

int bop_topics_publish_prepared(struct bop_topics *topics, const char *topic,
                                struct bop_ws_prepared *prepared)
{
    return bop__publish(topics, topic, prepared->opcode, bop_slice(NULL, 0), prepared, NULL);
}

int bop_ws_publish(struct bop_ws *handle, const char *topic, enum bop_ws_opcode opcode,
                   struct bop_slice message)
{
    struct bop__ws *ws = bop__ws_of(handle);

    if (ws == NULL || ws->state == BOP__WS_OPENING) {
        return BOP_ECLOSED;
    }
    if (ws->group->branch == NULL) {
        return BOP_EUNSUPPORTED;
    }
    if (opcode != BOP_WS_TEXT && opcode != BOP_WS_BINARY) {
        return BOP_EINVAL;
    }
    ws->publishes = true;
    return bop__publish(ws->group->branch->topics, topic, opcode, message, NULL, handle);
}
