/*
 * Endpoints: "host:port", where a host with colons is in brackets.
 */
#include "client_internal.h"

static bool parse_port(struct bop_slice text, uint16_t *out_port)
{
    unsigned port = 0;

    if (text.size == 0 || text.size > 5) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        port = port * 10 + (unsigned)(text.data[i] - '0');
    }
    if (port == 0 || port > UINT16_MAX) {
        return false;
    }
    *out_port = (uint16_t)port;
    return true;
}

int bop__client_endpoint_parse(struct bop_slice text, struct client_endpoint *out)
{
    struct bop_slice host;
    size_t colon = text.size;
    uint16_t port;

    while (colon > 0 && text.data[colon - 1] != ':') {
        colon--;
    }
    if (colon < 2 || memchr(text.data, '\0', text.size)) {
        return BOP_EINVAL; /* No colon, nothing before it, or not text. */
    }
    host = bop_slice(text.data, colon - 1);
    if (!parse_port(bop_slice(text.data + colon, text.size - colon), &port)) {
        return BOP_EINVAL;
    }
    if (host.data[0] == '[') {
        if (host.size < 3 || host.data[host.size - 1] != ']') {
            return BOP_EINVAL;
        }
        host = bop_slice(host.data + 1, host.size - 2);
    } else if (memchr(host.data, ':', host.size)) {
        return BOP_EINVAL; /* "::1:4000" could mean two things. */
    }
    if (host.size >= sizeof(out->host)) {
        return BOP_EINVAL;
    }
    memcpy(out->host, host.data, host.size);
    out->host[host.size] = '\0';
    out->port = port;
    return 0;
}
