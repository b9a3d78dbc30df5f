/*
 * A name looked up by the C library: files, DNS, whatever the system is set up
 * for, in the order of RFC 6724.
 */
#include <netdb.h>
#include <netinet/in.h>

#include "resolve_internal.h"

static int error_of(int code)
{
    switch (code) {
    case EAI_MEMORY:
        return BOP_ENOMEM;
    case EAI_SYSTEM:
        return errno != 0 ? -errno : -EIO;
    case EAI_AGAIN:
        return BOP_EAGAIN;
    default:
        return BOP_ENOTFOUND;
    }
}

int bop__lookup_system(void *user, const char *host, struct bop_address *out_addresses, size_t max,
                       struct bop_error *err)
{
    /* One socket type, or each address would come three times. */
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list;
    size_t count = 0;
    int rc;

    errno = 0;
    rc = getaddrinfo(host, NULL, &hints, &list);
    if (rc != 0) {
        int code = error_of(rc);

        return rc == EAI_SYSTEM
                   ? bop_error_set(err, code, "resolve %s", host)
                   : bop_error_say(err, code, "resolve %s: %s", host, gai_strerror(rc));
    }
    for (const struct addrinfo *at = list; at != NULL && count < max; at = at->ai_next) {
        struct bop_address address = bop_address_from_sockaddr(at->ai_addr);

        if (address.family != AF_UNSPEC) {
            out_addresses[count++] = address;
        }
    }
    freeaddrinfo(list);
    return (int)count;
}
