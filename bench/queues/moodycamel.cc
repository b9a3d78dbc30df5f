/*
 * moodycamel::ConcurrentQueue, and with -DBLOCKING its BlockingConcurrentQueue, with a token for
 * each side of each thread; with -DNO_TOKENS without.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <concurrentqueue/blockingconcurrentqueue.h>
#include <concurrentqueue/concurrentqueue.h>

#ifdef BLOCKING
using implementation = moodycamel::BlockingConcurrentQueue<uint64_t>;
#else
using implementation = moodycamel::ConcurrentQueue<uint64_t>;
#endif

struct queue {
    implementation inner;
};

#ifdef NO_TOKENS

struct producer {
};
struct consumer {
};

#define WITH(token)
#define OPEN(token)  true
#define CLOSE(token) (void)0

#else

/* A place to construct the token in, as the workloads declare theirs before there is a queue. */
template <class Token> struct slot {
    alignas(Token) unsigned char bytes[sizeof(Token)];

    Token &operator*()
    {
        return *reinterpret_cast<Token *>(bytes);
    }
};

struct producer : slot<moodycamel::ProducerToken> {
};
struct consumer : slot<moodycamel::ConsumerToken> {
};

#define WITH(token)  **token,
#define OPEN(token)  open_token(queue, token)
#define CLOSE(token) close_token(token)

template <class Token> static bool open_token(struct queue *queue, slot<Token> *place)
{
    new (place->bytes) Token(queue->inner);
    return true;
}

template <class Token> static void close_token(slot<Token> *place)
{
    (**place).~Token();
}

#endif

static struct queue *queue_create(void)
{
    return new queue;
}

static void queue_destroy(struct queue *queue)
{
    delete queue;
}

static bool producer_open(struct queue *queue, struct producer *token)
{
    (void)queue, (void)token;
    return OPEN(token);
}

static void producer_close(struct queue *queue, struct producer *token)
{
    (void)queue, (void)token;
    CLOSE(token);
}

static bool consumer_open(struct queue *queue, struct consumer *token)
{
    (void)queue, (void)token;
    return OPEN(token);
}

static void consumer_close(struct queue *queue, struct consumer *token)
{
    (void)queue, (void)token;
    CLOSE(token);
}

static inline bool push(struct queue *queue, struct producer *token, uint64_t item)
{
    (void)token;
    return queue->inner.enqueue(WITH(token) item);
}

static inline size_t push_bulk(struct queue *queue, struct producer *token, const uint64_t *items,
                               size_t count)
{
    (void)token;
    return queue->inner.enqueue_bulk(WITH(token) items, count) ? count : 0;
}

static inline bool pop(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    (void)token;
    return queue->inner.try_dequeue(WITH(token) * out_item);
}

static inline size_t pop_bulk(struct queue *queue, struct consumer *token, uint64_t *out_items,
                              size_t count)
{
    (void)token;
    return queue->inner.try_dequeue_bulk(WITH(token) out_items, count);
}

#ifdef BLOCKING
#define QUEUE_WAITS 1

static inline void pop_wait(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    (void)token;
    queue->inner.wait_dequeue(WITH(token) * out_item);
}

static inline size_t pop_bulk_wait(struct queue *queue, struct consumer *token, uint64_t *out_items,
                                   size_t count)
{
    (void)token;
    return queue->inner.wait_dequeue_bulk(WITH(token) out_items, count);
}
#endif

#include "workloads.h"
