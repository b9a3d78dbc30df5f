/*
 * TLS and tokens of a daemon.
 */
#include "security.h"

#include <bop/tls.h>

static struct bop_node_tls tls_of(const struct config *config)
{
    return (struct bop_node_tls){
        .certificate = config->tls_certificate,
        .key = config->tls_key,
        .ca = config->tls_ca[0] ? config->tls_ca : NULL,
        .node_name = config->tls_node_name[0] ? config->tls_node_name : NULL,
        .client_certificates = config->client_certificates,
    };
}

static int check_tls(const struct config *config, struct bop_error *err)
{
    struct bop_tls_options options = {
        .server = true,
        .identity = {.cert_file = config->tls_certificate, .key_file = config->tls_key},
        .ca_file = config->tls_ca[0] ? config->tls_ca : NULL,
    };
    struct bop_tls *tls = NULL;
    int rc = config->tls_certificate[0] ? bop_tls_create(&options, &tls, err) : 0;

    bop_tls_destroy(tls);
    return rc;
}

int security_check(const struct config *config, struct bop_error *err)
{
    struct tokens *tokens = NULL;
    int rc = check_tls(config, err);

    if (rc == 0 && config->tokens[0]) {
        rc = tokens_read(config->tokens, &tokens, err);
    }
    tokens_free(tokens);
    return rc;
}

int security_options(const struct config *config, struct security *out_security,
                     struct bop_node_options *options, struct bop_error *err)
{
    int rc = 0;

    *out_security = (struct security){.tls = tls_of(config)};
    if (config->tls_certificate[0]) {
        options->tls = &out_security->tls;
    }
    if (config->tokens[0]) {
        rc = tokens_read(config->tokens, &out_security->tokens, err);
    }
    if (rc == 0 && out_security->tokens) {
        options->tokens = tokens_list(out_security->tokens, &options->token_count);
    }
    return rc;
}

void security_free(struct security *security)
{
    tokens_free(security->tokens);
    security->tokens = NULL;
}

static int reload_tokens(const struct config *config, struct bop_node *node, struct bop_error *err)
{
    const struct bop_node_token *list;
    struct tokens *tokens;
    size_t count;
    int rc;

    if (!config->tokens[0]) {
        return 0;
    }
    rc = tokens_read(config->tokens, &tokens, err);
    if (rc == 0) {
        list = tokens_list(tokens, &count);
        rc = bop_node_set_tokens(node, list, count, err);
        tokens_free(tokens);
    }
    return rc;
}

int security_reload(const struct config *config, struct bop_node *node, struct bop_error *err)
{
    int rc = security_check(config, err); /* All or nothing. */

    if (rc == 0) {
        rc = bop_node_reload_tls(node, err);
    }
    return rc < 0 ? rc : reload_tokens(config, node, err);
}
