/*
 * What the configuration names for TLS and authentication, given to a node: the
 * files are read here, at the start and again when asked to.
 */
#ifndef BOP_BOPD_SECURITY_H
#define BOP_BOPD_SECURITY_H

#include "config.h"
#include "tokens.h"

/** Read all files, and say in one line what is wrong with the first that is not good. */
BOP_MUST_USE int security_check(const struct config *config, struct bop_error *err);

/** What a node is started with. Borrowed by its options until it has started. */
struct security {
    struct bop_node_tls tls;
    struct tokens *tokens;
};

/** Set tls and tokens of the options. security_free() in any case. */
BOP_MUST_USE int security_options(const struct config *config, struct security *out_security,
                                  struct bop_node_options *options, struct bop_error *err);
void security_free(struct security *security);

/** Read everything again. What is wrong is told and changes nothing; it is 0 if all was good. */
BOP_MUST_USE int security_reload(const struct config *config, struct bop_node *node,
                                 struct bop_error *err);

#endif
