/*
 * What URLs and HTTP's targets share.
 */
#ifndef BOP_NET_HTTP_URL_INTERNAL_H
#define BOP_NET_HTTP_URL_INTERNAL_H

#include <bop/base.h>

/* The value of a hexadecimal digit, or -1. */
static inline int bop__url_hex(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Whether "%" and two hexadecimal digits are there. */
static inline bool bop__url_is_encoded(const uint8_t *at, const uint8_t *end)
{
    return end - at >= 3 && at[0] == '%' && bop__url_hex(at[1]) >= 0 && bop__url_hex(at[2]) >= 0;
}

/* The byte of an encoding that is known to be there. */
static inline uint8_t bop__url_decoded(const uint8_t *at)
{
    return (uint8_t)((unsigned)bop__url_hex(at[1]) << 4 | (unsigned)bop__url_hex(at[2]));
}

/* What stands in brackets: an IPv6 address without a zone, or an address of the future. */
bool bop__url_ip_literal_is_valid(const uint8_t *at, const uint8_t *end);

#endif
