/*
 * A blocking client: a loop, a client on it and a thread that turns it.
 *
 * A call lies on its caller's stack. It is posted to the loop, run there, and
 * its caller waits on a semaphore in it; after the post nothing touches it, for its
 * memory is the caller's again. The results are encoded anew into the caller's buffer,
 * so that one copy takes all slices.
 */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

#include <bop/client_view.h>
#include <bop/mem.h>

#include "client_lock.h"

#define LAST_TURNS 3 /* To send the session's end and to close. */

struct bop_client_blocking {
    struct bop_allocator *allocator;
    struct bop_loop *loop;
    struct bop_client *client;
    pthread_t thread;
};

struct call {
    struct bop_post post;
    struct bop_client_blocking *client;
    const struct bop_operation *operation;
    enum bop_consistency consistency;
    struct bop_buf *buf;
    struct bop_result *result;
    struct bop_status_response *status;
    const struct bop_client_view *view; /* To read from; NULL: from the cluster. */
    struct bop_client_view *opened;
    struct bop_client_info *info;
    struct bop_error *err;
    int code;
    sem_t done;
};

/* ---- On the thread ---- */

static void *run(void *user)
{
    struct bop_client_blocking *client = (struct bop_client_blocking *)user;
    int rc = bop_loop_run(client->loop);

    /* epoll_wait fails for bugs only. */
    BOP_ASSERT(rc == 0);
    bop_client_destroy(client->client);
    for (int i = 0; i < LAST_TURNS; i++) {
        /* Whatever cannot be said any more: the session expires. */
        BOP_IGNORE(bop_loop_run_once(client->loop, 0));
    }
    return NULL;
}

static void finish(struct call *call, int code)
{
    struct bop_client_info info;

    if (code == BOP_ETIMEOUT && call->err) {
        bop_client_info(call->client->client, &info);
        if (info.trouble.code != 0) {
            bop_error_set(call->err, code, "no answer (%s)", info.trouble.message);
        } else {
            bop_error_set(call->err, code, "no answer");
        }
    } else if (code == BOP_EDENIED && call->err) {
        bop_client_info(call->client->client, &info);
        bop_error_set(call->err, code, "%s", info.denied.message);
    } else if (code == BOP_EUNCERTAIN && call->err) {
        bop_client_info(call->client->client, &info);
        bop_error_set(call->err, code, "%s; it was sent before, and may be done",
                      info.denied.message);
    } else if (code != 0) {
        bop_error_say(call->err, code, "%s", bop_strerror(code));
    }
    call->code = code;
    sem_post(&call->done);
}

static void on_result(void *user, int code, const struct bop_result *result)
{
    struct call *call = (struct call *)user;
    enum bop_op op = call->operation->op;
    struct bop_writer writer;
    uint8_t status = result->status;

    if (!call->buf) {
        *call->result = *result;
        call->result->value = call->result->cursor = call->result->entries = bop_slice(NULL, 0);
    } else if (code == 0 || code == BOP_ECONDITION) {
        writer = bop_writer(call->buf);
        bop_result_encode(&writer, op, result);
        code = writer.code ? writer.code : code;
        if (writer.code == 0) {
            int rc = bop_result_decode(op, status, bop_buf_slice(call->buf), call->result);

            BOP_ASSERT(rc == 0); /* It was decoded before. */
        }
    } else {
        call->result->status = status;
    }
    finish(call, code);
}

static void on_status(void *user, int code, const struct bop_status_response *status)
{
    struct call *call = (struct call *)user;
    struct bop_writer writer = bop_writer(call->buf);

    if (code == 0) {
        bop_status_response_encode(&writer, status);
        code = writer.code;
    }
    if (code == 0) {
        code = bop_status_response_decode(bop_buf_slice(call->buf), call->status);
    }
    finish(call, code);
}

static void run_execute(struct bop_post *post)
{
    struct call *call = BOP_CONTAINER_OF(post, struct call, post);
    struct bop_client *client = call->client->client;
    int rc = call->view
                 ? bop_client_view_read(client, call->view, call->operation, on_result, call)
                 : bop_client_execute(client, call->operation, call->consistency, on_result, call);

    if (rc < 0) {
        finish(call, rc);
    }
}

static void on_view(void *user, int code, const struct bop_client_view *view)
{
    struct call *call = (struct call *)user;

    if (code == 0) {
        *call->opened = *view;
    }
    finish(call, code);
}

static void run_view_open(struct bop_post *post)
{
    struct call *call = BOP_CONTAINER_OF(post, struct call, post);
    int rc = bop_client_view_open(call->client->client, on_view, call);

    if (rc < 0) {
        finish(call, rc);
    }
}

static void run_view_close(struct bop_post *post)
{
    struct call *call = BOP_CONTAINER_OF(post, struct call, post);

    /* If it cannot be said, the view ends by itself. */
    BOP_IGNORE(bop_client_view_close(call->client->client, call->view));
    finish(call, 0);
}

static void run_status(struct bop_post *post)
{
    struct call *call = BOP_CONTAINER_OF(post, struct call, post);
    int rc = bop_client_status(call->client->client, on_status, call);

    if (rc < 0) {
        finish(call, rc);
    }
}

static void run_info(struct bop_post *post)
{
    struct call *call = BOP_CONTAINER_OF(post, struct call, post);

    bop_client_info(call->client->client, call->info);
    finish(call, 0);
}

/* ---- On the caller's ---- */

static int wait_for(struct call *call)
{
    int rc = sem_init(&call->done, 0, 0);

    BOP_ASSERT(rc == 0); /* Fails for bad arguments only. */
    bop_loop_post(call->client->loop, &call->post);
    while (sem_wait(&call->done) != 0) {
        BOP_ASSERT(errno == EINTR);
    }
    sem_destroy(&call->done);
    return call->code;
}

static int execute(struct bop_client_blocking *client, const struct bop_client_view *view,
                   const struct bop_operation *operation, enum bop_consistency consistency,
                   struct bop_buf *buf, struct bop_result *out_result, struct bop_error *err)
{
    struct bop_result unwanted;
    struct call call = {
        .post = {.fn = run_execute},
        .client = client,
        .view = view,
        .operation = operation,
        .consistency = consistency,
        .buf = buf,
        .result = out_result ? out_result : &unwanted,
        .err = err,
    };

    *call.result = (struct bop_result){0};
    if (buf) {
        bop_buf_clear(buf);
    }
    return wait_for(&call);
}

int bop_client_blocking_execute(struct bop_client_blocking *client,
                                const struct bop_operation *operation,
                                enum bop_consistency consistency, struct bop_buf *buf,
                                struct bop_result *out_result, struct bop_error *err)
{
    return execute(client, NULL, operation, consistency, buf, out_result, err);
}

int bop_client_blocking_view_read(struct bop_client_blocking *client,
                                  const struct bop_client_view *view,
                                  const struct bop_operation *operation, struct bop_buf *buf,
                                  struct bop_result *out_result, struct bop_error *err)
{
    return execute(client, view, operation, BOP_READ_LINEARIZABLE, buf, out_result, err);
}

int bop_client_blocking_view_open(struct bop_client_blocking *client,
                                  struct bop_client_view *out_view, struct bop_error *err)
{
    struct call call = {
        .post = {.fn = run_view_open}, .client = client, .opened = out_view, .err = err};

    return wait_for(&call);
}

void bop_client_blocking_view_close(struct bop_client_blocking *client,
                                    const struct bop_client_view *view)
{
    struct call call = {.post = {.fn = run_view_close}, .client = client, .view = view};

    BOP_IGNORE(wait_for(&call)); /* Always 0. */
}

int bop_client_blocking_status(struct bop_client_blocking *client, struct bop_buf *buf,
                               struct bop_status_response *out_status, struct bop_error *err)
{
    struct call call = {
        .post = {.fn = run_status},
        .client = client,
        .buf = buf,
        .status = out_status,
        .err = err,
    };

    bop_buf_clear(buf);
    return wait_for(&call);
}

void bop_client_blocking_info(struct bop_client_blocking *client, struct bop_client_info *out_info)
{
    struct call call = {.post = {.fn = run_info}, .client = client, .info = out_info};

    BOP_IGNORE(wait_for(&call)); /* Always 0. */
}

void bop__client_blocking_post(struct bop_client_blocking *client, struct bop_post *post)
{
    bop_loop_post(client->loop, post);
}

struct bop_client *bop__client_blocking_client(struct bop_client_blocking *client)
{
    return client->client;
}

struct bop_allocator *bop__client_blocking_allocator(struct bop_client_blocking *client)
{
    return client->allocator;
}

/* The program's signals are not for this thread. */
static int start_thread(struct bop_client_blocking *client)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&client->thread, NULL, run, client);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -rc;
}

int bop_client_blocking_open(const struct bop_client_options *options,
                             struct bop_client_blocking **out_client, struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "cluster.client");
    struct bop_loop_options loop_options = {.allocator = allocator};
    struct bop_client_options client_options = *options;
    struct bop_client_blocking *client;
    int rc;

    client = (struct bop_client_blocking *)bop_alloc_zeroed(allocator, sizeof(*client));
    if (!client) {
        return bop_error_set(err, BOP_ENOMEM, "create a client");
    }
    client->allocator = allocator;
    rc = bop_loop_create(&loop_options, &client->loop);
    if (rc < 0) {
        bop_error_set(err, rc, "create a loop");
        goto fail;
    }
    client_options.loop = client->loop;
    rc = bop_client_create(&client_options, &client->client, err);
    if (rc < 0) {
        goto fail;
    }
    rc = start_thread(client);
    if (rc < 0) {
        bop_error_set(err, rc, "start the client's thread");
        bop_client_destroy(client->client);
        goto fail;
    }
    *out_client = client;
    return 0;

fail:
    if (client->loop) {
        bop_loop_destroy(client->loop);
    }
    bop_free(allocator, client, sizeof(*client));
    return rc;
}

void bop_client_blocking_close(struct bop_client_blocking *client)
{
    if (!client) {
        return;
    }
    bop_loop_stop(client->loop);
    pthread_join(client->thread, NULL);
    bop_loop_destroy(client->loop);
    bop_free(client->allocator, client, sizeof(*client));
}
