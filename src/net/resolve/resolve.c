/*
 * Lookups as the loop sees them. What needs no thread is answered at the end of
 * the turn, never from inside the call.
 */
#include <stdio.h>

#include "resolve_internal.h"

#define TIMEOUT_MS_DEFAULT 30000

/* Of DNS. */
#define LABEL_MAX 63

struct bop_resolve {
    struct bop__guest guest;
    struct bop_loop *loop;
    struct bop__lookup *lookup; /* While it is under way. */
    struct bop_timer timer;
    uint16_t port;
    uint16_t family;
    void (*on_done)(struct bop_resolve *resolve, void *user, const struct bop_resolved *result);
    void *user;
    bool done; /* The rest says how. */
    int code;
    size_t count;
    char host[BOP__HOST_NAME_MAX + 1];
    struct bop_error err;
    struct bop_address addresses[BOP_RESOLVE_ADDRESSES_MAX];
};

/* ---- The end ---- */

/* Stop all that could still answer, and have on_done called. */
static void leave(struct bop_resolve *resolve, int code)
{
    resolve->done = true;
    resolve->code = code;
    if (resolve->lookup != NULL) {
        bop__lookup_give_up(resolve->lookup);
        resolve->lookup = NULL;
    }
    bop_timer_stop(resolve->loop, &resolve->timer);
    bop__loop_guest_leaves(resolve->loop, &resolve->guest);
}

/* End with an error, unless an answer is due already. */
static void fail(struct bop_resolve *resolve, int code)
{
    if (!resolve->done) {
        leave(resolve, bop_error_set(&resolve->err, code, "resolve %s", resolve->host));
    }
}

static void on_timeout(struct bop_timer *timer)
{
    fail(BOP_CONTAINER_OF(timer, struct bop_resolve, timer), -ETIMEDOUT);
}

static void on_loop_destroyed(struct bop__guest *guest)
{
    fail(BOP_CONTAINER_OF(guest, struct bop_resolve, guest), BOP_ECANCELED);
}

static void free_resolve(struct bop_resolve *resolve)
{
    bop_free(resolve->loop->allocator, resolve, sizeof(*resolve));
}

static void finish(struct bop__guest *guest)
{
    struct bop_resolve *resolve = BOP_CONTAINER_OF(guest, struct bop_resolve, guest);
    struct bop_resolved result = {
        .code = resolve->code,
        .addresses = resolve->addresses,
        .count = resolve->code == 0 ? resolve->count : 0,
        .text = resolve->err.message,
    };

    resolve->on_done(resolve, resolve->user, &result);
    free_resolve(resolve);
}

void bop_resolve_cancel(struct bop_resolve *resolve)
{
    fail(resolve, BOP_ECANCELED);
}

void bop__resolve_drop(struct bop_resolve *resolve)
{
    fail(resolve, BOP_ECANCELED);
    bop_list_remove(&resolve->guest.link);
    free_resolve(resolve);
}

/* ---- Answers ---- */

/* Keep an address of the family asked for, once. */
static void add_address(struct bop_resolve *resolve, struct bop_address address)
{
    address.port = resolve->port;
    if (resolve->family != AF_UNSPEC && resolve->family != address.family) {
        return;
    }
    for (size_t i = 0; i < resolve->count; i++) {
        if (bop_address_equal(&resolve->addresses[i], &address)) {
            return;
        }
    }
    BOP_ASSERT(resolve->count < BOP_RESOLVE_ADDRESSES_MAX);
    resolve->addresses[resolve->count++] = address;
}

static void answer(struct bop_resolve *resolve)
{
    if (resolve->count > 0) {
        leave(resolve, 0);
        return;
    }
    leave(resolve,
          bop_error_say(&resolve->err, BOP_ENOTFOUND, "resolve %s: no such host%s", resolve->host,
                        resolve->family == AF_INET    ? " with an IPv4 address"
                        : resolve->family == AF_INET6 ? " with an IPv6 address"
                                                      : ""));
}

void bop__resolve_answered(struct bop_resolve *resolve, const struct bop__lookup *lookup)
{
    BOP_ASSERT(!resolve->done && resolve->lookup == lookup);
    resolve->lookup = NULL;
    if (lookup->result < 0) {
        resolve->err = lookup->err;
        leave(resolve, lookup->result);
        return;
    }
    for (int i = 0; i < lookup->result && i < BOP_RESOLVE_ADDRESSES_MAX; i++) {
        add_address(resolve, lookup->addresses[i]);
    }
    answer(resolve);
}

/* ---- The beginning ---- */

bool bop__host_may_be_name(const char *host)
{
    size_t label = 0;

    for (const char *at = host; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;

        if (c <= ' ' || c == 0x7f || c == '/') {
            return false;
        }
        if (c == '.' ? label == 0 : label == LABEL_MAX) {
            return false;
        }
        label = c == '.' ? 0 : label + 1;
    }
    return true;
}

/* Answer, or have it looked up. */
static int begin(struct bop_resolve *resolve, const struct bop_resolve_options *options)
{
    struct bop_address numeric;
    uint64_t timeout_ms = options->timeout_ms != 0 ? options->timeout_ms : TIMEOUT_MS_DEFAULT;
    int rc = bop_address_parse(options->host, options->port, &numeric);

    if (rc == 0) {
        add_address(resolve, numeric);
        answer(resolve);
        return 0;
    }
    if (rc != BOP_ENOTFOUND) {
        return rc;
    }
    if (!bop__host_may_be_name(options->host)) {
        resolve->family = AF_UNSPEC; /* It has no address of any. */
        answer(resolve);
        return 0;
    }
    rc = bop__lookup_start(options->resolver != NULL ? options->resolver : bop__resolver_default(),
                           resolve->loop, resolve, options->host, &resolve->lookup);
    if (rc == 0) {
        bop_timer_start(resolve->loop, &resolve->timer, timeout_ms);
    }
    return rc;
}

int bop_resolve(struct bop_loop *loop, const struct bop_resolve_options *options,
                struct bop_resolve **out_resolve, struct bop_error *err)
{
    struct bop_resolve *resolve;
    int rc;

    if (options->host == NULL || options->on_done == NULL ||
        strlen(options->host) > BOP__HOST_NAME_MAX) {
        return bop_error_set(err, BOP_EINVAL, "resolve");
    }
    if (loop->destroying) {
        return bop_error_set(err, BOP_ECLOSED, "resolve %s", options->host);
    }
    resolve = (struct bop_resolve *)bop_alloc_zeroed(loop->allocator, sizeof(*resolve));
    if (resolve == NULL) {
        return bop_error_set(err, BOP_ENOMEM, "resolve %s", options->host);
    }
    resolve->guest.close = on_loop_destroyed;
    resolve->guest.finish = finish;
    bop__loop_add_guest(loop, &resolve->guest);
    resolve->loop = loop;
    bop_timer_init(&resolve->timer, on_timeout);
    resolve->port = options->port;
    resolve->family = options->family;
    resolve->on_done = options->on_done;
    resolve->user = options->user;
    snprintf(resolve->host, sizeof(resolve->host), "%s", options->host);
    rc = begin(resolve, options);
    if (rc != 0) {
        bop_list_remove(&resolve->guest.link);
        free_resolve(resolve);
        return bop_error_set(err, rc, "resolve %s", options->host);
    }
    *out_resolve = resolve;
    return 0;
}
