#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bop_address bop_address_ipv4(uint32_t ip, uint16_t port)
{
    return (struct bop_address){
        .ip = {(uint8_t)(ip >> 24), (uint8_t)(ip >> 16), (uint8_t)(ip >> 8), (uint8_t)ip},
        .port = port,
        .family = AF_INET,
    };
}

struct bop_address bop_address_from_sockaddr(const struct sockaddr *sockaddr)
{
    struct bop_address address = {.family = AF_UNSPEC};

    if (sockaddr->sa_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, sockaddr, sizeof(in));
        memcpy(address.ip, &in.sin_addr, sizeof(in.sin_addr));
        address.port = ntohs(in.sin_port);
        address.family = AF_INET;
    } else if (sockaddr->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;

        memcpy(&in6, sockaddr, sizeof(in6));
        memcpy(address.ip, &in6.sin6_addr, sizeof(in6.sin6_addr));
        address.port = ntohs(in6.sin6_port);
        address.scope = in6.sin6_scope_id;
        address.family = AF_INET6;
    }
    return address;
}

socklen_t bop_address_to_sockaddr(const struct bop_address *address,
                                  struct sockaddr_storage *out_sockaddr)
{
    if (address->family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(address->port)};

        memcpy(&in.sin_addr, address->ip, sizeof(in.sin_addr));
        memcpy(out_sockaddr, &in, sizeof(in));
        return sizeof(in);
    }
    if (address->family == AF_INET6) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                                   .sin6_port = htons(address->port),
                                   .sin6_scope_id = address->scope};

        memcpy(&in6.sin6_addr, address->ip, sizeof(in6.sin6_addr));
        memcpy(out_sockaddr, &in6, sizeof(in6));
        return sizeof(in6);
    }
    return 0;
}

bool bop_address_equal(const struct bop_address *a, const struct bop_address *b)
{
    return a->family == b->family && a->port == b->port && a->scope == b->scope &&
           memcmp(a->ip, b->ip, a->family == AF_INET ? 4 : sizeof(a->ip)) == 0;
}

/* ---- Numbers in hosts ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex_digit(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Whether the last label is a number, decimal or 0x...: no name of the Internet
 * ends so, but some resolvers would take it for an address of their own making. */
static bool ends_in_number(const char *host)
{
    size_t end = strlen(host), start;
    bool decimal = true, hex;

    end -= end > 0 && host[end - 1] == '.';
    for (start = end; start > 0 && host[start - 1] != '.'; start--) {
        decimal = decimal && is_digit(host[start - 1]);
    }
    hex = end - start >= 2 && host[start] == '0' && (host[start + 1] | 0x20) == 'x';
    for (size_t i = start + 2; hex && i < end; i++) {
        hex = is_hex_digit(host[i]);
    }
    return start < end && (decimal || hex);
}

/* The scope after '%': an interface by name or number. 0: none such. */
static uint32_t parse_scope(const char *text)
{
    uint64_t scope = 0;

    for (const char *at = text; *at != '\0'; at++) {
        if (!is_digit(*at)) {
            return if_nametoindex(text);
        }
        scope = scope * 10 + (uint64_t)(*at - '0');
        if (scope > UINT32_MAX) {
            return 0;
        }
    }
    return (uint32_t)scope;
}

static int parse_ipv6(const char *host, struct bop_address *address)
{
    char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
    size_t size = strlen(host);
    char *percent;

    if (size >= 2 && host[0] == '[' && host[size - 1] == ']') {
        host++;
        size -= 2;
    }
    if (size >= sizeof(text)) {
        return BOP_EINVAL;
    }
    memcpy(text, host, size);
    text[size] = '\0';
    percent = strchr(text, '%');
    if (percent != NULL) {
        *percent = '\0';
        address->scope = parse_scope(percent + 1);
        if (address->scope == 0) {
            return BOP_EINVAL;
        }
    }
    address->family = AF_INET6;
    return inet_pton(AF_INET6, text, address->ip) == 1 ? 0 : BOP_EINVAL;
}

int bop_address_parse(const char *host, uint16_t port, struct bop_address *out_address)
{
    struct bop_address address = {.port = port, .family = AF_INET};
    int rc;

    if (host[0] == '\0') {
        return BOP_EINVAL;
    }
    if (strpbrk(host, ":[]%") != NULL) {
        rc = parse_ipv6(host, &address);
    } else if (ends_in_number(host)) {
        rc = inet_pton(AF_INET, host, address.ip) == 1 ? 0 : BOP_EINVAL;
    } else {
        return BOP_ENOTFOUND;
    }
    if (rc == 0) {
        *out_address = address;
    }
    return rc;
}

/* ---- For people ---- */

void bop_address_format(const struct bop_address *address, char text[BOP_ADDRESS_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN];

    if (address->family == AF_UNSPEC ||
        inet_ntop(address->family, address->ip, ip, sizeof(ip)) == NULL) {
        snprintf(text, BOP_ADDRESS_TEXT_MAX, "unknown");
    } else if (address->family == AF_INET) {
        snprintf(text, BOP_ADDRESS_TEXT_MAX, "%s:%u", ip, address->port);
    } else if (address->scope != 0) {
        snprintf(text, BOP_ADDRESS_TEXT_MAX, "[%s%%%u]:%u", ip, address->scope, address->port);
    } else {
        snprintf(text, BOP_ADDRESS_TEXT_MAX, "[%s]:%u", ip, address->port);
    }
}

int bop__address_error(struct bop_error *err, int code, const char *what, const char *host,
                       uint16_t port)
{
    /* A host with colons is an IPv6 address, which is written in brackets. */
    if (strchr(host, ':') != NULL && host[0] != '[') {
        return bop_error_set(err, code, "%s [%s]:%u", what, host, port);
    }
    return bop_error_set(err, code, "%s %s:%u", what, host, port);
}

/* ---- Blocking ---- */

int bop__address_resolve(const char *host, uint16_t port, const char *what,
                         struct addrinfo **out_list, struct bop_error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_protocol = IPPROTO_TCP,
                             .ai_flags = AI_NUMERICSERV};
    struct bop_address numeric;
    char service[8], text[BOP_ADDRESS_TEXT_MAX];
    int rc = bop_address_parse(host, port, &numeric);

    if (rc == BOP_EINVAL) {
        return bop__address_error(err, rc, what, host, port);
    }
    snprintf(service, sizeof(service), "%u", port);
    if (rc == 0) {
        hints.ai_flags |= AI_NUMERICHOST;
        /* Brackets are not getaddrinfo's. */
        if (host[0] == '[') {
            snprintf(text, sizeof(text), "%.*s", (int)strlen(host) - 2, host + 1);
            host = text;
        }
    }
    rc = getaddrinfo(host, service, &hints, out_list);
    switch (rc) {
    case 0:
        return 0;
    case EAI_MEMORY:
        return bop__address_error(err, BOP_ENOMEM, what, host, port);
    case EAI_SYSTEM:
        return bop__address_error(err, errno != 0 ? -errno : -EIO, what, host, port);
    default:
        return bop_error_say(err, BOP_ENOTFOUND, "%s %s:%u: %s", what, host, port,
                             gai_strerror(rc));
    }
}
