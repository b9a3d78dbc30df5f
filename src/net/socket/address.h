/*
 * Addresses of sockets, as their own files see them.
 */
#ifndef BOP_NET_ADDRESS_H
#define BOP_NET_ADDRESS_H

#include <netinet/in.h>
#include <sys/socket.h>

#include <bop/address.h>
#include <bop/base.h>
#include <bop/error.h>

struct addrinfo;

/**
 * The TCP addresses to listen on, to be freed with freeaddrinfo(). Blocks for a
 * name. Returns 0, BOP_EINVAL for a malformed address, BOP_ENOTFOUND for a name
 * without one, BOP_ENOMEM or -errno; the error is "<what> HOST:PORT: reason".
 */
BOP_MUST_USE int bop__address_resolve(const char *host, uint16_t port, const char *what,
                                      struct addrinfo **out_list, struct bop_error *err);

/** Set err to "<what> HOST:PORT: text of code" and return code. */
int bop__address_error(struct bop_error *err, int code, const char *what, const char *host,
                       uint16_t port);

#endif
