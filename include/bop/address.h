/*
 * Internet addresses: numeric, of IPv4 and IPv6, with a port. Plain values that
 * are copied freely; all zeros is no address.
 *
 * Threads: any.
 */
#ifndef BOP_ADDRESS_H
#define BOP_ADDRESS_H

#include <sys/socket.h>

#include <bop/base.h>
#include <bop/error.h>

struct bop_address {
    uint8_t ip[16];  /* Network order; the first 4 for AF_INET. */
    uint32_t scope;  /* AF_INET6: the interface of a link-local address. */
    uint16_t port;   /* Host order. */
    uint16_t family; /* AF_INET or AF_INET6; AF_UNSPEC: no address. */
};

/* "[" 45 of IPv6 "%" 10 of a scope "]:" 5 of a port, and the NUL. */
#define BOP_ADDRESS_TEXT_MAX 72

/** 0x7f000001 is 127.0.0.1. */
BOP_API struct bop_address bop_address_ipv4(uint32_t ip, uint16_t port);

/**
 * What a host says numerically: "127.0.0.1", "::1", "[::1]", "fe80::1%eth0".
 * IPv4 has four decimal parts without leading zeros; a host that ends like a
 * number or has a colon is an address and never a name, so that a mistyped one
 * is not asked of name servers. Does not block.
 *
 * Returns 0, BOP_ENOTFOUND for what can only be a name, or BOP_EINVAL for a
 * malformed address.
 */
BOP_API BOP_MUST_USE int bop_address_parse(const char *host, uint16_t port,
                                           struct bop_address *out_address);

/** "127.0.0.1:4000", "[::1]:4000", "[fe80::1%2]:4000"; "unknown" for no address. */
BOP_API void bop_address_format(const struct bop_address *address, char text[BOP_ADDRESS_TEXT_MAX]);

BOP_API bool bop_address_equal(const struct bop_address *a, const struct bop_address *b);

/** Of any family but AF_INET and AF_INET6: no address. */
BOP_API struct bop_address bop_address_from_sockaddr(const struct sockaddr *sockaddr);

/** Returns the size of what was written; 0 for no address. */
BOP_API socklen_t bop_address_to_sockaddr(const struct bop_address *address,
                                          struct sockaddr_storage *out_sockaddr);

#endif
