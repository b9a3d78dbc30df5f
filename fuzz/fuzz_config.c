/*
 * Fuzzes the reader of configuration files.
 *
 * Properties: nothing reads or writes outside (the sanitizers' part), nothing
 * leaks; a refusal is BOP_ECONFIG with one line that says something; what is
 * accepted keeps the bounds its users rely on.
 */
#include <stdlib.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void require_good_address(const struct config_address *address)
{
    char text[BOP_ADDRESS_MAX + 1];

    require(address->host[0] != 0 && strlen(address->host) <= CONFIG_HOST_MAX);
    require(strlen(config_address_format(address, text)) <= BOP_ADDRESS_MAX);
}

static void require_refusal(int rc, const struct bop_error *err)
{
    require(rc == BOP_ECONFIG && err->code == rc && err->message[0] != 0);
    for (const char *at = err->message; *at; at++) {
        require((unsigned char)*at >= ' ');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    struct bop_error err = {0};
    int rc;

    config_init(&config);
    rc = config_parse_yaml(bop_slice(data, size), "fuzz.yaml", &config, &err);
    if (rc < 0) {
        require_refusal(rc, &err);
        return 0;
    }
    rc = config_check(&config, &err);
    if (rc < 0) {
        require_refusal(rc, &err);
        return 0;
    }
    require(config.id != 0 && config.data[0] != 0 && config.cluster[0] != 0);
    require(config.peer_count <= CONFIG_PEERS_MAX);
    require(config.heartbeat_ms * 2 <= config.election_timeout_ms);
    require_good_address(&config.listen);
    for (unsigned i = 0; i < config.peer_count; i++) {
        require(config.peers[i].id != 0 && config.peers[i].address.port != 0);
        require_good_address(&config.peers[i].address);
    }
    return 0;
}
