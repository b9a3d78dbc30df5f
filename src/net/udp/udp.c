/*
 * The life of a UDP socket: made, connected, closed, freed.
 */
#include <netinet/in.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "udp_internal.h"

#define QUEUE_BYTES_MAX_DEFAULT (1u << 20)

/* ---- Errors from the network ---- */

void bop__udp_tell_error(struct bop__udp *udp, int code, const struct bop_address *peer)
{
    if (udp->events->on_error != NULL) {
        udp->events->on_error(bop__udp_handle(udp), udp->user, code, peer);
    }
}

static void on_error_timer(struct bop_timer *timer)
{
    struct bop__udp *udp = BOP_CONTAINER_OF(timer, struct bop__udp, error_timer);
    struct bop_address peer = udp->peer;

    bop__udp_tell_error(udp, udp->error, &peer);
}

void bop__udp_owe_error(struct bop__udp *udp, int code)
{
    udp->counters.errors++;
    udp->error = code;
    bop_timer_start(udp->loop, &udp->error_timer, 0);
}

static void take_error(struct bop__udp *udp)
{
    struct bop_address peer = udp->peer;
    int error = 0;
    socklen_t size = sizeof(error);

    if (getsockopt(udp->source.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error != 0) {
        udp->counters.errors++;
        bop__udp_tell_error(udp, -error, &peer);
    }
}

/* ---- Events ---- */

static void on_events(struct bop__source *source, uint32_t events)
{
    struct bop__udp *udp = BOP_CONTAINER_OF(source, struct bop__udp, source);

    if (events & EPOLLERR) {
        take_error(udp);
    }
    if (udp->open && (events & EPOLLIN) && !udp->paused) {
        bop__udp_receive(udp);
    }
    if (udp->open && (events & EPOLLOUT)) {
        bop__udp_flush(udp);
    }
}

void bop__udp_update_watch(struct bop__udp *udp)
{
    uint32_t events = (udp->events->on_datagrams != NULL && !udp->paused ? EPOLLIN : 0) |
                      (bop_list_empty(&udp->queue) ? 0 : EPOLLOUT);
    int rc;

    if (!udp->open) {
        return;
    }
    rc = bop__loop_rewatch(udp->loop, &udp->source, events);
    if (rc != 0) {
        bop__udp_begin_close(udp, rc);
    }
}

/* ---- The end ---- */

void bop__udp_begin_close(struct bop__udp *udp, int reason)
{
    if (!udp->open) {
        return;
    }
    udp->open = false;
    udp->reason = reason;
    bop__loop_close_source(udp->loop, &udp->source);
    bop_timer_stop(udp->loop, &udp->error_timer);
    bop__udp_drop_queue(udp);
    bop__loop_guest_leaves(udp->loop, &udp->guest);
}

static void free_udp(struct bop__udp *udp)
{
    bop__pool_give(udp->loop->udps->pool, &udp->slot);
}

static void finish(struct bop__guest *guest)
{
    struct bop__udp *udp = BOP_CONTAINER_OF(guest, struct bop__udp, guest);

    udp->events->on_close(bop__udp_handle(udp), udp->user, udp->reason);
    free_udp(udp);
}

static void on_loop_destroyed(struct bop__guest *guest)
{
    bop__udp_begin_close(BOP_CONTAINER_OF(guest, struct bop__udp, guest), BOP_ECANCELED);
}

void bop__udps_free(struct bop_loop *loop)
{
    struct bop__udps *udps = loop->udps;

    if (udps != NULL) {
        bop__udp_room_free(udps);
        bop__slots_deinit(&udps->slots);
        bop_free(loop->allocator, udps, sizeof(*udps));
        loop->udps = NULL;
    }
}

/* ---- The beginning ---- */

static struct bop__udps *udps_of(struct bop_loop *loop)
{
    struct bop__udps *udps = loop->udps;

    if (udps == NULL) {
        udps = (struct bop__udps *)bop_alloc_zeroed(loop->allocator, sizeof(*udps));
        if (udps == NULL) {
            return NULL;
        }
        bop__slots_init(&udps->slots, loop->allocator);
        loop->udps = udps;
    }
    if (udps->pool == NULL) {
        udps->pool = bop__slots_pool(&udps->slots, sizeof(struct bop__udp));
    }
    return udps->pool != NULL ? udps : NULL;
}

/* What to bind to. Returns 0 or BOP_EINVAL. */
static int local_of(const struct bop_udp_options *options, struct bop_address *out_local)
{
    if (options->address != NULL) {
        *out_local = *options->address;
        return out_local->family != AF_UNSPEC ? 0 : BOP_EINVAL;
    }
    if (options->host == NULL) {
        *out_local = (struct bop_address){.family = AF_INET6, .port = options->port};
        return 0;
    }
    return bop_address_parse(options->host, options->port, out_local) == 0 ? 0 : BOP_EINVAL;
}

static bool is_any(const struct bop_address *address)
{
    static const uint8_t zeros[sizeof(address->ip)];

    return memcmp(address->ip, zeros, sizeof(zeros)) == 0;
}

/* A descriptor of the local address's family; IPv4 if any would do and there is
 * no IPv6. */
static int open_socket(struct bop__udp *udp, struct bop_address *local, bool any)
{
    int fd = socket(local->family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 && errno == EAFNOSUPPORT && any) {
        local->family = AF_INET;
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (fd < 0) {
        return -errno;
    }
    udp->source.fd = fd;
    udp->family = local->family;
    return 0;
}

int bop__udp_bind(struct bop__udp *udp, const struct bop_address *local)
{
    struct sockaddr_storage storage;
    socklen_t size = bop_address_to_sockaddr(local, &storage);

    if (bind(udp->source.fd, (struct sockaddr *)&storage, size) != 0) {
        return -errno;
    }
    size = sizeof(storage);
    if (getsockname(udp->source.fd, (struct sockaddr *)&storage, &size) != 0) {
        return -errno;
    }
    udp->bound = bop_address_from_sockaddr((struct sockaddr *)&storage);
    return 0;
}

static int set_up(struct bop__udp *udp, const struct bop_udp_options *options,
                  struct bop_address *local)
{
    bool any = options->address == NULL && options->host == NULL;
    int rc = open_socket(udp, local, any && !options->only_ipv6);

    udp->splits = udp->family == AF_INET6 && !options->only_ipv6 && is_any(local);
    if (rc == 0) {
        rc = bop__udp_set_options(udp, options);
    }
    if (rc == 0) {
        rc = bop__udp_bind(udp, local);
    }
    if (rc == 0) {
        rc = bop__loop_watch(udp->loop, &udp->source,
                             options->events->on_datagrams != NULL ? EPOLLIN : 0);
    }
    if (rc == 0) {
        udp->open = true;
        rc = options->peer != NULL ? bop_udp_connect(bop__udp_handle(udp), options->peer) : 0;
    }
    return rc;
}

static struct bop__udp *create_udp(struct bop_loop *loop, const struct bop_udp_options *options)
{
    struct bop__udps *udps = udps_of(loop);
    struct bop__udp *udp;

    if (udps == NULL || (udps->room == NULL && bop__udp_room_create(udps) != 0)) {
        return NULL;
    }
    udp = (struct bop__udp *)bop__pool_take(udps->pool);
    if (udp == NULL) {
        return NULL;
    }
    udp->source.fd = -1;
    udp->source.on_events = on_events;
    udp->guest.close = on_loop_destroyed;
    udp->guest.finish = finish;
    udp->loop = loop;
    udp->events = options->events;
    udp->user = options->user;
    udp->datagram_bytes_max = options->datagram_bytes_max != 0 ? options->datagram_bytes_max
                                                               : BOP__UDP_ROOM_BYTES;
    udp->queue_bytes_max = options->queue_bytes_max != 0 ? options->queue_bytes_max
                                                         : QUEUE_BYTES_MAX_DEFAULT;
    bop_list_init(&udp->queue);
    bop_timer_init(&udp->error_timer, on_error_timer);
    return udp;
}

int bop_udp_create(struct bop_loop *loop, const struct bop_udp_options *options,
                   struct bop_udp **out_udp, struct bop_error *err)
{
    struct bop_address local;
    struct bop__udp *udp;
    char text[BOP_ADDRESS_TEXT_MAX];
    int rc;

    if (options->events == NULL || options->events->on_close == NULL) {
        return bop_error_set(err, BOP_EINVAL, "make a UDP socket");
    }
    if (local_of(options, &local) != 0) {
        return bop_error_say(err, BOP_EINVAL, "bind UDP to %s: no numeric address",
                             options->host != NULL ? options->host : "nothing");
    }
    bop_address_format(&local, text);
    if (loop->destroying) {
        return bop_error_set(err, BOP_ECLOSED, "bind UDP to %s", text);
    }
    udp = create_udp(loop, options);
    if (udp == NULL) {
        return bop_error_set(err, BOP_ENOMEM, "bind UDP to %s", text);
    }
    rc = set_up(udp, options, &local);
    if (rc != 0) {
        udp->open = false;
        bop__loop_close_source(loop, &udp->source);
        free_udp(udp);
        return bop_error_set(err, rc, "bind UDP to %s", text);
    }
    bop__loop_add_guest(loop, &udp->guest);
    *out_udp = bop__udp_handle(udp);
    return 0;
}

/* ---- For users ---- */

void bop_udp_close(struct bop_udp *handle)
{
    struct bop__udp *udp = bop__udp_of(handle);

    if (udp != NULL) {
        bop__udp_begin_close(udp, BOP_ECANCELED);
    }
}

static void set_paused(struct bop_udp *handle, bool paused)
{
    struct bop__udp *udp = bop__udp_of(handle);

    if (udp != NULL) {
        udp->paused = paused;
        bop__udp_update_watch(udp);
    }
}

void bop_udp_pause(struct bop_udp *handle)
{
    set_paused(handle, true);
}

void bop_udp_resume(struct bop_udp *handle)
{
    set_paused(handle, false);
}

bool bop_udp_is_open(const struct bop_udp *handle)
{
    const struct bop__udp *udp = bop__udp_of(handle);

    return udp != NULL && udp->open;
}

void *bop_udp_user(const struct bop_udp *handle)
{
    const struct bop__udp *udp = bop__udp_of(handle);

    return udp != NULL ? udp->user : NULL;
}

struct bop_loop *bop_udp_loop(const struct bop_udp *handle)
{
    const struct bop__udp *udp = bop__udp_of(handle);

    return udp != NULL ? udp->loop : NULL;
}

struct bop_address bop_udp_local(const struct bop_udp *handle)
{
    const struct bop__udp *udp = bop__udp_of(handle);
    struct sockaddr_storage storage;
    socklen_t size = sizeof(storage);

    if (udp == NULL || !udp->open ||
        getsockname(udp->source.fd, (struct sockaddr *)&storage, &size) != 0) {
        return (struct bop_address){.family = AF_UNSPEC};
    }
    return bop__udp_unmap(bop_address_from_sockaddr((struct sockaddr *)&storage));
}

struct bop_address bop_udp_peer(const struct bop_udp *handle)
{
    const struct bop__udp *udp = bop__udp_of(handle);

    return udp != NULL ? udp->peer : (struct bop_address){.family = AF_UNSPEC};
}

int bop_udp_fd(const struct bop_udp *handle)
{
    const struct bop__udp *udp = bop__udp_of(handle);

    return udp != NULL ? udp->source.fd : -1;
}

struct bop_udp_counters bop_udp_counters(const struct bop_udp *handle)
{
    const struct bop__udp *udp = bop__udp_of(handle);
    struct bop_udp_counters counters = {0};

    if (udp != NULL) {
        counters = udp->counters;
        counters.has_gso = udp->has_gso;
        counters.has_gro = udp->has_gro;
    }
    return counters;
}
