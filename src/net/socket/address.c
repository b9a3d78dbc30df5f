#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

struct bop__address bop__address_of(const struct sockaddr *sockaddr)
{
    struct bop__address address = {.family = AF_UNSPEC};

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

void bop__address_format(const struct bop__address *address, char text[BOP__ADDRESS_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN];

    if (address->family == AF_UNSPEC ||
        inet_ntop(address->family, address->ip, ip, sizeof(ip)) == NULL) {
        snprintf(text, BOP__ADDRESS_TEXT_MAX, "unknown");
    } else if (address->family == AF_INET) {
        snprintf(text, BOP__ADDRESS_TEXT_MAX, "%s:%u", ip, address->port);
    } else if (address->scope != 0) {
        snprintf(text, BOP__ADDRESS_TEXT_MAX, "[%s%%%u]:%u", ip, address->scope, address->port);
    } else {
        snprintf(text, BOP__ADDRESS_TEXT_MAX, "[%s]:%u", ip, address->port);
    }
}

int bop__address_error(struct bop_error *err, int code, const char *what, const char *host,
                       uint16_t port)
{
    /* A host with colons is an IPv6 address, which is written in brackets. */
    if (strchr(host, ':') != NULL) {
        return bop_error_set(err, code, "%s [%s]:%u", what, host, port);
    }
    return bop_error_set(err, code, "%s %s:%u", what, host, port);
}

int bop__address_resolve(const char *host, uint16_t port, const char *what,
                         struct addrinfo **out_list, struct bop_error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_protocol = IPPROTO_TCP,
                             .ai_flags = AI_NUMERICSERV};
    char service[8];
    int rc;

    snprintf(service, sizeof(service), "%u", port);
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
