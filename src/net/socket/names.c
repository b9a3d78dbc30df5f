/*
 * What sockets are called: asked of the kernel on the first call, as most are
 * never named.
 */
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "socket_internal.h"

_Static_assert(BOP__PEER_NAME_MAX >= BOP_ADDRESS_TEXT_MAX, "a name may be an address");
_Static_assert(BOP__PEER_NAME_MAX > sizeof("unix:") + sizeof(((struct sockaddr_un *)0)->sun_path),
               "a name may be a path");

typedef int (*ask_fn)(int fd, struct sockaddr *address, socklen_t *size);

/* Returns the size of the address, 0 if there is none to be had. */
static socklen_t ask(const struct bop__socket *sock, ask_fn which, struct sockaddr_storage *storage)
{
    socklen_t size = sizeof(*storage);

    return sock->source.fd >= 0 && which(sock->source.fd, (struct sockaddr *)storage, &size) == 0
               ? size
               : 0;
}

static void format_unix(const struct sockaddr_un *address, socklen_t size, char *name)
{
    size_t length = size - offsetof(struct sockaddr_un, sun_path);

    if (length == 0) {
        snprintf(name, BOP__PEER_NAME_MAX, "unix:"); /* Clients mostly have no path. */
    } else if (address->sun_path[0] == '\0') {
        snprintf(name, BOP__PEER_NAME_MAX, "unix:@%.*s", (int)(length - 1), address->sun_path + 1);
    } else {
        snprintf(name, BOP__PEER_NAME_MAX, "unix:%.*s", (int)length, address->sun_path);
    }
}

static char *name_block(struct bop__socket *sock)
{
    struct bop__socket_more *more = bop__socket_more(sock);

    if (more != NULL && more->peer_name == NULL) {
        more->peer_name = (char *)bop_alloc(bop__socket_loop(sock)->allocator, BOP__PEER_NAME_MAX);
    }
    return more != NULL ? more->peer_name : NULL;
}

void bop__socket_set_peer_name(struct bop__socket *sock, const char *name)
{
    char *block = name_block(sock);

    if (block != NULL) {
        snprintf(block, BOP__PEER_NAME_MAX, "%s", name);
    }
}

const char *bop__socket_peer_name(struct bop__socket *sock)
{
    struct sockaddr_storage storage;
    socklen_t size;
    char *name;

    if (sock->more != NULL && sock->more->peer_name != NULL) {
        return sock->more->peer_name;
    }
    size = ask(sock, getpeername, &storage);
    name = size != 0 ? name_block(sock) : NULL;
    if (name == NULL) {
        return "unknown";
    }
    if (storage.ss_family == AF_UNIX) {
        format_unix((const struct sockaddr_un *)&storage, size, name);
    } else {
        struct bop_address address = bop_address_from_sockaddr((struct sockaddr *)&storage);

        bop_address_format(&address, name);
    }
    return name;
}

/* ---- For users ---- */

const char *bop_socket_peer_name(const struct bop_socket *socket)
{
    struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL ? bop__socket_peer_name(sock) : "unknown";
}

static uint16_t port_of(const struct bop_socket *socket, ask_fn which)
{
    const struct bop__socket *sock = bop__socket_of(socket);
    struct sockaddr_storage storage;

    if (sock == NULL || ask(sock, which, &storage) == 0) {
        return 0;
    }
    return bop_address_from_sockaddr((struct sockaddr *)&storage).port;
}

uint16_t bop_socket_peer_port(const struct bop_socket *socket)
{
    return port_of(socket, getpeername);
}

uint16_t bop_socket_local_port(const struct bop_socket *socket)
{
    return port_of(socket, getsockname);
}

void bop__socket_set_error_text(struct bop__socket *sock, const char *text)
{
    struct bop__socket_more *more = bop__socket_more(sock);

    if (more != NULL && more->error_text == NULL) {
        more->error_text = (char *)bop_alloc(bop__socket_loop(sock)->allocator,
                                             BOP_ERROR_MESSAGE_MAX);
    }
    if (more != NULL && more->error_text != NULL) {
        snprintf(more->error_text, BOP_ERROR_MESSAGE_MAX, "%s", text);
    }
}

const char *bop_socket_error_text(const struct bop_socket *socket, int reason)
{
    const struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL && sock->more != NULL && sock->more->error_text != NULL
               ? sock->more->error_text
               : bop_strerror(reason);
}
