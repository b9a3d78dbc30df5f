/*
 * What of TLS and tokens belongs together, and the rule that nothing listens where
 * other machines can reach it without both, unless told so.
 */
#include "config.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* Of names only this one is known to be this machine, wherever it is asked for. */
static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
    }
    return strcmp(host, "localhost") == 0;
}

static int check_tls(const struct config *config, struct bop_error *err)
{
    bool on = config->tls_certificate[0] != '\0';

    if (!on && (config->tls_key[0] || config->tls_ca[0] || config->tls_node_name[0] ||
                config->client_certificates != BOP_NODE_CERTIFICATES_NONE)) {
        return bop_error_say(err, BOP_ECONFIG,
                             "tls: no certificate; add --tls-certificate FILE, or drop the rest");
    }
    if (on && !config->tls_key[0]) {
        return bop_error_say(err, BOP_ECONFIG,
                             "tls: no key of the certificate; add --tls-key FILE");
    }
    if (config->tls_ca[0]) {
        return 0;
    }
    if (config->client_certificates != BOP_NODE_CERTIFICATES_NONE) {
        return bop_error_say(err, BOP_ECONFIG,
                             "tls: no CA to know clients' certificates by; add --tls-ca FILE");
    }
    if (on && (config->join || config->peer_count > (config_self(config) ? 1 : 0))) {
        return bop_error_say(err, BOP_ECONFIG,
                             "tls: no CA for the nodes to know each other by; add --tls-ca FILE");
    }
    return 0;
}

int config_check_exposure(const struct config *config, const char *name,
                          const struct config_address *address, struct bop_error *err)
{
    bool tls = config->tls_certificate[0] != '\0';
    bool known = config->tokens[0] != '\0' ||
                 config->client_certificates == BOP_NODE_CERTIFICATES_REQUIRED;
    char text[BOP_ADDRESS_MAX + 1];

    if (config->insecure || (tls && known) || is_loopback(address->host)) {
        return 0;
    }
    return bop_error_say(err, BOP_ECONFIG,
                         "%s %s: other machines can reach it, and there is no %s; add %s%s%s, or "
                         "--insecure if whoever reaches it may do everything",
                         name, config_address_format(address, text),
                         tls     ? "authentication"
                         : known ? "TLS"
                                 : "TLS and no authentication",
                         tls ? "" : "--tls-certificate, --tls-key and --tls-ca",
                         tls || known ? "" : ", and ",
                         known ? "" : "--tokens FILE (see bop token new)");
}

int config_check_security(const struct config *config, struct bop_error *err)
{
    int rc = check_tls(config, err);

    if (rc == 0) {
        rc = config_check_exposure(config, "listen", &config->listen, err);
    }
    if (rc == 0 && config->http.host[0]) {
        rc = config_check_exposure(config, "http", &config->http, err);
    }
    return rc;
}
