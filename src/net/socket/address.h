/*
 * Socket addresses: resolved from host and port, kept small, written for people.
 */
#ifndef BOP_NET_ADDRESS_H
#define BOP_NET_ADDRESS_H

#include <netinet/in.h>
#include <sys/socket.h>

#include <bop/base.h>
#include <bop/error.h>

struct addrinfo;

/* "[" 45 of IPv6 "%" 10 of a scope "]:" 5 of a port, and the NUL. */
#define BOP__ADDRESS_TEXT_MAX 72

/** The part of a sockaddr that names the other side: a quarter of its size. */
struct bop__address {
    uint8_t ip[16]; /* Network order; the first 4 for AF_INET. */
    uint32_t scope;
    uint16_t port; /* Host order. */
    uint16_t family;
};

/** Any other family gives an address that is written "unknown". */
struct bop__address bop__address_of(const struct sockaddr *sockaddr);

/** "127.0.0.1:4000", "[::1]:4000". */
void bop__address_format(const struct bop__address *address, char text[BOP__ADDRESS_TEXT_MAX]);

/**
 * The TCP addresses of a host, to be freed with freeaddrinfo(). May block for a
 * name. Returns 0, BOP_ENOTFOUND for a name without an address, BOP_ENOMEM or
 * -errno; the error is "<what> HOST:PORT: reason".
 */
BOP_MUST_USE int bop__address_resolve(const char *host, uint16_t port, const char *what,
                                      struct addrinfo **out_list, struct bop_error *err);

/** Set err to "<what> HOST:PORT: text of code" and return code. */
int bop__address_error(struct bop_error *err, int code, const char *what, const char *host,
                       uint16_t port);

#endif
