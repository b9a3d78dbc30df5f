/*
 * What bopd is told: the command line, over a YAML file, over the defaults.
 *
 * Every mistake gives one line that names the flag, or the file, line and key,
 * what is wrong there and the way out. docs/man/bopd.conf.5.scd lists all.
 */
#ifndef BOP_BOPD_CONFIG_H
#define BOP_BOPD_CONFIG_H

#include <bop/error.h>
#include <bop/log.h>
#include <bop/node.h>
#include <bop/slice.h>
#include <bop/wire.h>

#define CONFIG_PEERS_MAX  15
#define CONFIG_HOST_MAX   253 /* Of a DNS name. */
#define CONFIG_PATH_MAX   4095
#define CONFIG_FILE_MAX   (1024 * 1024) /* Bytes of a configuration file. */
#define CONFIG_PORT       4700
#define CONFIG_HTTP_PORT  4780 /* Of --dev, if it is free. */
#define CONFIG_EXIT_USAGE 2    /* What bopd exits with if configuration fails. */

struct config_address {
    char host[CONFIG_HOST_MAX + 1]; /* A name or numeric address; of IPv6 without brackets. */
    uint16_t port;
};

struct config_peer {
    uint64_t id;
    struct config_address address;
};

struct config {
    uint64_t id;
    char cluster[BOP_NAME_MAX + 1];
    char data[CONFIG_PATH_MAX + 1]; /* Empty (with dev only): a temporary directory. */
    struct config_address listen;   /* Port 0: any free one. */
    bool listen_given;
    struct config_address http; /* An empty host: HTTP is not served. */
    bool http_given;
    struct config_peer peers[CONFIG_PEERS_MAX]; /* With or without this node. */
    unsigned peer_count;
    bool join;
    bool learner;
    bool dev;
    bool check_config;
    bool help;    /* Nothing else was looked at: print config_help() and leave. */
    bool version; /* Likewise. */
    enum bop_log_level log_level;
    uint64_t election_timeout_ms;
    uint64_t heartbeat_ms;
    uint64_t snapshot_entries;
    uint64_t trailing_entries;
    uint64_t inflight_entries;
    uint64_t uncommitted_bytes;
    uint64_t send_bytes_s;    /* 0: no bound. */
    uint64_t connections_max; /* Of clients. */
    uint64_t state_bytes_max;
    uint64_t segment_bytes;
    char tls_certificate[CONFIG_PATH_MAX + 1]; /* Empty: no TLS. */
    char tls_key[CONFIG_PATH_MAX + 1];
    char tls_ca[CONFIG_PATH_MAX + 1];
    char tls_node_name[CONFIG_HOST_MAX + 1]; /* Empty: the default. */
    enum bop_node_certificates client_certificates;
    char tokens[CONFIG_PATH_MAX + 1]; /* The file of them; empty: none are wanted. */
    bool insecure;                    /* Listen anywhere, whatever is missing. */
};

/** The defaults; id and data have none. */
void config_init(struct config *out);

/**
 * Read flags and the file they name, and check all together. out is undefined
 * after a failure, whose code is BOP_ECONFIG, or BOP_ENOMEM.
 */
BOP_MUST_USE int config_parse(int argc, char **argv, struct config *out, struct bop_error *err);

/** Set what a YAML text says; name is for messages. config_init() comes before, config_check()
 * after. */
BOP_MUST_USE int config_parse_yaml(struct bop_slice text, const char *name, struct config *config,
                                   struct bop_error *err);

/** Check what belongs together, and fill in what follows from other settings. */
BOP_MUST_USE int config_check(struct config *config, struct bop_error *err);

/** config_secure.c: the part of it that is about TLS, tokens and who can reach us. */
BOP_MUST_USE int config_check_security(const struct config *config, struct bop_error *err);

/**
 * Whether an address may be listened on: only this machine reaches it, or TLS and authentication
 * are there, or it was said to be wanted so. name is the key of the setting.
 */
BOP_MUST_USE int config_check_exposure(const struct config *config, const char *name,
                                       const struct config_address *address, struct bop_error *err);

/** The entry of this node in peers, or NULL. */
const struct config_peer *config_self(const struct config *config);

/** "host:port", with brackets if the host needs them. Returns out_text. */
char *config_address_format(const struct config_address *address,
                            char out_text[BOP_ADDRESS_MAX + 1]);

/** What --help prints. */
const char *config_help(void);

#endif
