/*
 * TLS and token of the connections that this program makes: flags, else the
 * environment (BOP_TLS, BOP_CA, BOP_CERT, BOP_KEY, BOP_TLS_NAME, BOP_TOKEN_FILE, BOP_TOKEN).
 */
#ifndef BOP_CLI_TRUST_H
#define BOP_CLI_TRUST_H

#include "cli.h"

/** What a client is made with. Borrowed by its options until it is made. */
struct trust {
    struct bop_client_tls tls;
    char token[BOP_AUTH_TOKEN_MAX + 1];
};

/** Set tls and token of options. Returns 0, or a code with a sentence in err. */
BOP_MUST_USE int trust_options(const struct cli_args *args, struct trust *out_trust,
                               struct bop_client_options *options, struct bop_error *err);

/** Whether this trouble is about TLS or the token, so that trust_complain() has more to say. */
bool trust_is_about(const struct bop_error *trouble);

/** Say it, with the way out. Returns the exit code. */
int trust_complain(const struct bop_error *trouble);

#endif
