/*
 * The file of tokens:
 *
 *     - name: billing
 *       sha256: 3f0a...          # 64 hex digits; `bop token new` makes both
 *       certificate: billing.example.org   # instead of it, or as well
 *       rights:
 *         - {namespace: billing, right: write}
 *         - {namespace: "*", right: read}
 *
 * Every mistake gives one line with file, line and the way out.
 */
#ifndef BOP_BOPD_TOKENS_H
#define BOP_BOPD_TOKENS_H

#include <bop/error.h>
#include <bop/node.h>
#include <bop/slice.h>

#define TOKENS_MAX       4096
#define TOKEN_RIGHTS_MAX 256
#define TOKENS_FILE_MAX  (4 * 1024 * 1024) /* Bytes. */

struct tokens;

/** Read a file. On success *out_tokens is the caller's, to be freed by tokens_free(). */
BOP_MUST_USE int tokens_read(const char *path, struct tokens **out_tokens, struct bop_error *err);

/** Likewise a text; name is for messages. */
BOP_MUST_USE int tokens_parse(struct bop_slice text, const char *name, struct tokens **out_tokens,
                              struct bop_error *err);

/** What was read; good until it is freed. */
const struct bop_node_token *tokens_list(const struct tokens *tokens, size_t *out_count);

/** NULL is fine. */
void tokens_free(struct tokens *tokens);

#endif
