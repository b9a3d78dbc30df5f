/*
 * Settling through a blocking client: a call on its caller's stack, run by the loop's thread, as
 * in client_blocking.c.
 */
#include <semaphore.h>

#include <bop/client_watch.h>

#include "client_lock.h"

struct settle_call {
    struct bop_post post;
    struct bop_client *client;
    enum bop_watch_what what;
    struct bop_slice name;
    struct bop_slice key;
    uint64_t sequence;
    uint32_t timeout_ms;
    bool added;
    struct bop_error *err;
    int code;
    sem_t done;
};

static void finish(struct settle_call *call, int code)
{
    struct bop_client_info info;

    if (code == BOP_EDENIED) {
        bop_client_info(call->client, &info);
        bop_error_set(call->err, code, "%s", info.denied.message);
    } else if (code != 0) {
        bop_error_say(call->err, code, "%s",
                      code == BOP_EUNCERTAIN ? "not all who watch it are known to have heard"
                                             : bop_strerror(code));
    }
    call->code = code;
    sem_post(&call->done);
}

static int wait_for(struct bop_client_blocking *client, struct settle_call *call)
{
    int rc = sem_init(&call->done, 0, 0);

    BOP_ASSERT(rc == 0); /* Fails for bad arguments only. */
    call->client = bop__client_blocking_client(client);
    bop__client_blocking_post(client, &call->post);
    while (sem_wait(&call->done) != 0) {
        BOP_ASSERT(errno == EINTR);
    }
    sem_destroy(&call->done);
    return call->code;
}

/* ---- On the loop's thread ---- */

static void on_settled(void *user, int code)
{
    finish((struct settle_call *)user, code);
}

static void on_added(void *user, int code, const struct bop_result *result)
{
    struct settle_call *call = (struct settle_call *)user;

    call->added = (code == 0 || code == BOP_EUNCERTAIN) && result->existed;
    finish(call, code);
}

static void run_settle(struct bop_post *post)
{
    struct settle_call *call = BOP_CONTAINER_OF(post, struct settle_call, post);
    int rc = bop_client_watch_settle(call->client, call->what, call->name, call->key,
                                     call->timeout_ms, on_settled, call);

    if (rc < 0) {
        finish(call, rc);
    }
}

static void run_add(struct bop_post *post)
{
    struct settle_call *call = BOP_CONTAINER_OF(post, struct settle_call, post);
    int rc = bop_client_registration_add_settled(call->client, call->name, call->key,
                                                 call->sequence, call->timeout_ms, on_added, call);

    if (rc < 0) {
        finish(call, rc);
    }
}

/* ---- On the caller's ---- */

int bop_client_blocking_watch_settle(struct bop_client_blocking *client, enum bop_watch_what what,
                                     struct bop_slice name, struct bop_slice key,
                                     uint32_t timeout_ms, struct bop_error *err)
{
    struct settle_call call = {.post = {.fn = run_settle},
                               .what = what,
                               .name = name,
                               .key = key,
                               .timeout_ms = timeout_ms,
                               .err = err};

    return wait_for(client, &call);
}

int bop_client_blocking_registration_add_settled(struct bop_client_blocking *client,
                                                 struct bop_slice registry,
                                                 struct bop_slice address, uint64_t sequence,
                                                 uint32_t timeout_ms, bool *out_added,
                                                 struct bop_error *err)
{
    struct settle_call call = {.post = {.fn = run_add},
                               .name = registry,
                               .key = address,
                               .sequence = sequence,
                               .timeout_ms = timeout_ms,
                               .err = err};
    int rc = wait_for(client, &call);

    if (out_added) {
        *out_added = call.added;
    }
    return rc;
}
