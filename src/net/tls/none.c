/*
 * Sockets without TLS.
 */
#include <bop/error.h>

#include "tls_internal.h"

int bop__tls_start(struct bop__socket *socket, struct bop_tls *tls, const char *name)
{
    return BOP_EUNSUPPORTED;
}

void bop__tls_received(struct bop__socket *socket, struct bop_slice bytes)
{
}

void bop__tls_end(struct bop__socket *socket)
{
}

int bop__tls_send(struct bop__socket *socket)
{
    return BOP_EUNSUPPORTED;
}

size_t bop__tls_unsent(const struct bop__socket *socket)
{
    return 0;
}

void bop__tls_shutdown(struct bop__socket *socket)
{
}

void bop__tls_free(struct bop__socket *socket)
{
}

void bop__tls_wire_free(struct bop_loop *loop)
{
}
