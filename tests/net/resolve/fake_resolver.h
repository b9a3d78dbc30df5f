/*
 * A resolver whose names are the test's, and which takes as long as it is told.
 */
#ifndef BOP_TESTS_FAKE_RESOLVER_H
#define BOP_TESTS_FAKE_RESOLVER_H

#include <pthread.h>
#include <stdio.h>

#include <bop/resolve.h>

#include "tap.h"

struct fake_resolver {
    struct bop_resolver *resolver;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool held;            /* Lookups wait until this is off. */
    unsigned running;     /* Inside the function now, */
    unsigned running_max; /* and the most that ever were. */
    unsigned calls;
    int code;                                             /* Fail with this if not 0. */
    const char *addresses[BOP_RESOLVE_ADDRESSES_MAX + 8]; /* Up to NULL. */
    char last_host[300];
};

static inline int fake_resolve(void *user, const char *host, struct bop_address *out_addresses,
                               size_t max, struct bop_error *err)
{
    struct fake_resolver *fake = user;
    size_t count = 0;
    int code;

    pthread_mutex_lock(&fake->lock);
    fake->calls++;
    fake->running++;
    fake->running_max = (unsigned)bop_max_u64(fake->running_max, fake->running);
    snprintf(fake->last_host, sizeof(fake->last_host), "%s", host);
    pthread_cond_broadcast(&fake->changed);
    while (fake->held) {
        pthread_cond_wait(&fake->changed, &fake->lock);
    }
    code = fake->code;
    for (; code == 0 && count < max && fake->addresses[count] != NULL; count++) {
        CHECK_EQ(bop_address_parse(fake->addresses[count], 0, &out_addresses[count]), 0);
    }
    fake->running--;
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->lock);
    return code != 0 ? bop_error_say(err, code, "the fake said no") : (int)count;
}

static inline void fake_resolver_init(struct fake_resolver *fake, struct bop_allocator *allocator,
                                      unsigned threads_max, unsigned queue_max)
{
    struct bop_resolver_options options = {.allocator = allocator,
                                           .threads_max = threads_max,
                                           .queue_max = queue_max,
                                           .resolve = fake_resolve,
                                           .user = fake};

    pthread_mutex_init(&fake->lock, NULL);
    pthread_cond_init(&fake->changed, NULL);
    fake->addresses[0] = "127.0.0.1";
    REQUIRE_EQ(bop_resolver_create(&options, &fake->resolver), 0);
}

static inline void fake_resolver_hold(struct fake_resolver *fake, bool held)
{
    pthread_mutex_lock(&fake->lock);
    fake->held = held;
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->lock);
}

/** Wait until so many lookups are inside the function. */
static inline void fake_resolver_await(struct fake_resolver *fake, unsigned running)
{
    pthread_mutex_lock(&fake->lock);
    while (fake->running != running) {
        pthread_cond_wait(&fake->changed, &fake->lock);
    }
    pthread_mutex_unlock(&fake->lock);
}

static inline void fake_resolver_deinit(struct fake_resolver *fake)
{
    fake_resolver_hold(fake, false);
    bop_resolver_destroy(fake->resolver);
    pthread_cond_destroy(&fake->changed);
    pthread_mutex_destroy(&fake->lock);
}

#endif
