/*
 * Resolvers: a queue of names and the threads that look them up, started one by
 * one as names come and no thread is free, up to a bound, and kept.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

#include <bop/mem.h>

#include "resolve_internal.h"

#define THREADS_MAX_DEFAULT 4
#define QUEUE_MAX_DEFAULT   1024

/* Of the process's own resolver, which allocates nothing. */
#define THREADS_MAX_BOUND 64

struct bop_resolver {
    struct bop_allocator *allocator; /* NULL: the default one. */
    bop_resolve_fn resolve;
    void *user;
    unsigned threads_max;
    unsigned queue_max;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* A name came, or the end. */
    struct bop_list queue;  /* bop__lookup.link */
    unsigned waiting;       /* In the queue. */
    unsigned started;
    unsigned idle;
    bool closed;
    _Atomic unsigned references; /* Of its creator, and of each lookup. */
    pthread_t threads[THREADS_MAX_BOUND];
};

/* Never destroyed: a thread may be in getaddrinfo() when the process ends. */
static struct bop_resolver process_resolver = {
    .resolve = bop__lookup_system,
    .threads_max = THREADS_MAX_DEFAULT,
    .queue_max = QUEUE_MAX_DEFAULT,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .changed = PTHREAD_COND_INITIALIZER,
    .queue = {&process_resolver.queue, &process_resolver.queue},
    .references = 1,
};

struct bop_resolver *bop__resolver_default(void)
{
    return &process_resolver;
}

static void release(struct bop_resolver *resolver)
{
    /* Release and acquire: whoever frees it has seen what the others did with it. */
    if (atomic_fetch_sub_explicit(&resolver->references, 1, memory_order_acq_rel) == 1) {
        pthread_cond_destroy(&resolver->changed);
        pthread_mutex_destroy(&resolver->lock);
        bop_free(resolver->allocator, resolver, sizeof(*resolver));
    }
}

static void free_lookup(struct bop__lookup *lookup)
{
    struct bop_resolver *resolver = lookup->resolver;

    bop_free(lookup->allocator, lookup, sizeof(*lookup));
    release(resolver);
}

/* ---- The threads ---- */

/* The answer reached its loop. */
static void on_posted(struct bop_post *post)
{
    struct bop__lookup *lookup = BOP_CONTAINER_OF(post, struct bop__lookup, post);

    /* The thread that posted may be about to wake this loop, which may be about to
     * be freed: let it come out. */
    pthread_mutex_lock(&lookup->resolver->lock);
    pthread_mutex_unlock(&lookup->resolver->lock);
    if (lookup->owner != NULL) {
        bop__resolve_answered(lookup->owner, lookup);
    }
    free_lookup(lookup);
}

static struct bop__lookup *next_lookup(struct bop_resolver *resolver)
{
    struct bop_list *link;

    pthread_mutex_lock(&resolver->lock);
    resolver->idle++;
    while (bop_list_empty(&resolver->queue) && !resolver->closed) {
        pthread_cond_wait(&resolver->changed, &resolver->lock);
    }
    resolver->idle--;
    link = bop_list_pop_front(&resolver->queue);
    if (link != NULL) {
        resolver->waiting--;
        BOP_CONTAINER_OF(link, struct bop__lookup, link)->state = BOP__LOOKUP_RUNNING;
    }
    pthread_mutex_unlock(&resolver->lock);
    return link != NULL ? BOP_CONTAINER_OF(link, struct bop__lookup, link) : NULL;
}

static void finish_lookup(struct bop__lookup *lookup)
{
    struct bop_resolver *resolver = lookup->resolver;
    bool given_up;

    pthread_mutex_lock(&resolver->lock);
    given_up = lookup->owner == NULL;
    if (!given_up) {
        /* Posted under the lock: who gives up a lookup, as a loop that ends does
         * with all of its own, knows that no post comes later. */
        lookup->state = BOP__LOOKUP_ANSWERED;
        bop_loop_post(lookup->loop, &lookup->post);
    }
    pthread_mutex_unlock(&resolver->lock);
    if (given_up) {
        free_lookup(lookup);
    }
}

static void *thread_main(void *user)
{
    struct bop_resolver *resolver = (struct bop_resolver *)user;
    struct bop__lookup *lookup;

    while ((lookup = next_lookup(resolver)) != NULL) {
        lookup->result = resolver->resolve(resolver->user, lookup->host, lookup->addresses,
                                           BOP_RESOLVE_ADDRESSES_MAX, &lookup->err);
        finish_lookup(lookup);
    }
    return NULL;
}

/* A thread that signals of the process do not go to: its handlers expect threads of its own. */
static int start_thread(struct bop_resolver *resolver)
{
    static const int own_faults[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    pthread_t *thread = &resolver->threads[resolver->started];
    sigset_t all, before;
    int code;

    sigfillset(&all);
    for (size_t i = 0; i < BOP_COUNT_OF(own_faults); i++) {
        sigdelset(&all, own_faults[i]);
    }
    code = pthread_sigmask(SIG_BLOCK, &all, &before);
    if (code != 0) {
        return -code;
    }
    code = pthread_create(thread, NULL, thread_main, resolver);
    BOP_IGNORE(pthread_sigmask(SIG_SETMASK, &before, NULL)); /* Fails on a bad `how` only. */
    if (code == 0) {
        resolver->started++;
        /* A thread without its name works as well. */
        BOP_IGNORE(pthread_setname_np(*thread, "bop-resolve"));
    }
    return -code;
}

/* ---- Asking them ---- */

/* Under the lock. */
static int enqueue(struct bop_resolver *resolver, struct bop__lookup *lookup)
{
    int rc = 0;

    if (resolver->waiting >= resolver->queue_max) {
        return BOP_EBUSY;
    }
    if (resolver->idle <= resolver->waiting && resolver->started < resolver->threads_max) {
        rc = start_thread(resolver);
        /* With fewer threads than wanted names wait longer, no more. */
        if (rc != 0 && resolver->started == 0) {
            return rc;
        }
    }
    bop_list_push_back(&resolver->queue, &lookup->link);
    resolver->waiting++;
    pthread_cond_signal(&resolver->changed);
    return 0;
}

int bop__lookup_start(struct bop_resolver *resolver, struct bop_loop *loop,
                      struct bop_resolve *owner, const char *host, struct bop__lookup **out_lookup)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(resolver->allocator, "net");
    struct bop__lookup *lookup = (struct bop__lookup *)bop_alloc_zeroed(allocator, sizeof(*lookup));
    int rc;

    if (lookup == NULL) {
        return BOP_ENOMEM;
    }
    bop_list_init(&lookup->link);
    lookup->allocator = allocator;
    lookup->resolver = resolver;
    /* Relaxed: the caller has a reference, or the resolver is the process's. */
    atomic_fetch_add_explicit(&resolver->references, 1, memory_order_relaxed);
    lookup->owner = owner;
    lookup->loop = loop;
    lookup->post.fn = on_posted;
    snprintf(lookup->host, sizeof(lookup->host), "%s", host);
    pthread_mutex_lock(&resolver->lock);
    rc = enqueue(resolver, lookup);
    pthread_mutex_unlock(&resolver->lock);
    if (rc != 0) {
        free_lookup(lookup);
        return rc;
    }
    *out_lookup = lookup;
    return 0;
}

void bop__lookup_give_up(struct bop__lookup *lookup)
{
    struct bop_resolver *resolver = lookup->resolver;
    bool waited;

    pthread_mutex_lock(&resolver->lock);
    waited = lookup->state == BOP__LOOKUP_WAITING;
    if (waited) {
        bop_list_remove(&lookup->link);
        resolver->waiting--;
    }
    lookup->owner = NULL;
    pthread_mutex_unlock(&resolver->lock);
    if (waited) {
        free_lookup(lookup);
    }
}

/* ---- Making and ending ---- */

int bop_resolver_create(const struct bop_resolver_options *options,
                        struct bop_resolver **out_resolver)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "net");
    struct bop_resolver *resolver = (struct bop_resolver *)bop_alloc_zeroed(allocator,
                                                                            sizeof(*resolver));

    if (resolver == NULL) {
        return BOP_ENOMEM;
    }
    resolver->allocator = allocator;
    resolver->resolve = options->resolve != NULL ? options->resolve : bop__lookup_system;
    resolver->user = options->user;
    resolver->threads_max = options->threads_max != 0 ? options->threads_max : THREADS_MAX_DEFAULT;
    resolver->threads_max = (unsigned)bop_min_u64(resolver->threads_max, THREADS_MAX_BOUND);
    resolver->queue_max = options->queue_max != 0 ? options->queue_max : QUEUE_MAX_DEFAULT;
    /* Without attributes neither needs anything that could fail. */
    pthread_mutex_init(&resolver->lock, NULL);
    pthread_cond_init(&resolver->changed, NULL);
    bop_list_init(&resolver->queue);
    atomic_init(&resolver->references, 1);
    *out_resolver = resolver;
    return 0;
}

void bop_resolver_destroy(struct bop_resolver *resolver)
{
    if (resolver == NULL) {
        return;
    }
    pthread_mutex_lock(&resolver->lock);
    BOP_ASSERT(bop_list_empty(&resolver->queue));
    resolver->closed = true;
    pthread_mutex_unlock(&resolver->lock);
    pthread_cond_broadcast(&resolver->changed);
    for (unsigned i = 0; i < resolver->started; i++) {
        pthread_join(resolver->threads[i], NULL);
    }
    release(resolver); /* Answers that their loops have not looked at yet keep it. */
}
