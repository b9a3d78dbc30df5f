/*
 * Fuzzes the reader of token files.
 *
 * Properties: nothing reads outside and nothing leaks (the sanitizers' part); a refusal is
 * BOP_ECONFIG with one line that says something; a node takes the list that was accepted,
 * and it is in the shape that its users rely on.
 */
#include "auth.h"
#include "tokens.h"

#include "fuzz_round_trip.h"

static void look(const struct bop_node_token *token)
{
    require(token->name[0] != '\0');
    require(token->sha256 || token->certificate);
    require(token->grant_count <= TOKEN_RIGHTS_MAX);
    for (size_t n = 0; n < token->grant_count; n++) {
        require(token->grants[n].name_space != NULL);
        require(token->grants[n].right >= BOP_RIGHT_READ &&
                token->grants[n].right <= BOP_RIGHT_ADMIN);
    }
}

static void require_line(const struct bop_error *err)
{
    require(err->message[0] != '\0');
    for (const char *at = err->message; *at; at++) {
        require((unsigned char)*at >= ' ');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_error err = {0};
    const struct bop_node_token *list;
    struct tokens *tokens;
    struct auth *auth;
    size_t count;
    int rc = tokens_parse(bop_slice(data, size), "tokens.yaml", &tokens, &err);

    if (rc < 0) {
        require(rc == BOP_ECONFIG && err.code == rc);
        require_line(&err);
        return 0;
    }
    list = tokens_list(tokens, &count);
    require(count <= TOKENS_MAX);
    for (size_t n = 0; n < count; n++) {
        look(&list[n]);
    }
    require(bop__auth_create(NULL, &auth) == 0);
    rc = bop__auth_set(auth, list, count, &err);
    require(rc == 0 || rc == BOP_EINVAL);
    if (rc < 0) {
        require_line(&err);
    }
    bop__auth_destroy(auth);
    tokens_free(tokens);
    return 0;
}
