/*
 * IP literals in URLs: what RFC 3986, 3.2.2 allows between brackets.
 */
#include "url_internal.h"

#include "parse.h"

/* Four numbers up to 255 without leading zeros. */
static bool is_ipv4(const uint8_t *at, const uint8_t *end)
{
    for (int part = 0; part < 4; part++) {
        const uint8_t *start;
        unsigned value = 0;

        if (part > 0) {
            if (at == end || *at != '.') {
                return false;
            }
            at++;
        }
        for (start = at; at < end && at - start < 3 && *at >= '0' && *at <= '9'; at++) {
            value = value * 10 + (*at - (unsigned)'0');
        }
        if (at == start || value > 255 || (*start == '0' && at - start > 1)) {
            return false;
        }
    }
    return at == end;
}

static bool is_ipv6(const uint8_t *at, const uint8_t *end)
{
    unsigned groups = 0;
    bool gap = false;

    if (end - at >= 2 && at[0] == ':' && at[1] == ':') {
        gap = true;
        at += 2;
    }
    while (at < end) {
        const uint8_t *start = at;

        while (at < end && at - start < 4 && bop__url_hex(*at) >= 0) {
            at++;
        }
        if (at < end && *at == '.') {
            groups += 2;
            at = is_ipv4(start, end) ? end : NULL;
            break;
        }
        if (at == start || ++groups > 8) {
            return false;
        }
        if (at == end) {
            break;
        }
        if (*at++ != ':' || at == end) {
            return false;
        }
        if (*at == ':') {
            if (gap) {
                return false;
            }
            gap = true;
            at++;
        }
    }
    return at && (gap ? groups <= 7 : groups == 8);
}

/* "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ) */
static bool is_future(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *start;

    if (at == end || (*at | 0x20) != 'v') {
        return false;
    }
    for (start = ++at; at < end && bop__url_hex(*at) >= 0; at++) {
    }
    if (at == start || at == end || *at != '.') {
        return false;
    }
    for (start = ++at; at < end && (bop__http_is(*at, BOP__HTTP_HOST) || *at == ':'); at++) {
    }
    return at > start && at == end;
}

bool bop__url_ip_literal_is_valid(const uint8_t *at, const uint8_t *end)
{
    return is_ipv6(at, end) || is_future(at, end);
}
