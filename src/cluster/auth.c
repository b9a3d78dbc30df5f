/*
 * A set of tokens and what each may do.
 *
 * The set is one block: tokens first, then their grants, then all texts. A token's grants
 * are few, so they are searched one by one; the right on "*" is kept apart, as
 * most tokens have nothing else.
 */
#include "auth.h"

#include <ctype.h>
#include <stdio.h>

#include <bop/mem.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

struct auth_grant {
    struct bop_slice name_space;
    enum bop_right right;
};

struct auth_token {
    const char *name;
    uint8_t hash[BOP_TOKEN_HASH_SIZE];        /* Of the token... */
    uint8_t certificate[BOP_TOKEN_HASH_SIZE]; /* ...and of the certificate's name, in lower case. */
    bool has_hash;
    bool has_certificate;
    enum bop_right everywhere; /* 0: none. */
    const struct auth_grant *grants;
    size_t grant_count;
};

struct auth {
    struct bop_allocator *allocator;
    uint64_t version; /* From 1; grows with each set. */
    struct auth_token *tokens;
    size_t count;
    size_t bytes; /* Of the block. */
};

_Static_assert(BOP_TOKEN_HASH_SIZE == SHA256_DIGEST_LENGTH, "hashes are SHA-256");

int bop__auth_create(struct bop_allocator *allocator, struct auth **out_auth)
{
    struct auth *auth;

    allocator = bop_allocator_or_tag(allocator, "cluster.auth");
    auth = bop_alloc_zeroed(allocator, sizeof(*auth));
    if (!auth) {
        return BOP_ENOMEM;
    }
    auth->allocator = allocator;
    auth->version = 1;
    *out_auth = auth;
    return 0;
}

static void free_set(struct auth *auth)
{
    if (auth->tokens) {
        bop_free(auth->allocator, auth->tokens, auth->bytes);
    }
    auth->tokens = NULL;
}

void bop__auth_destroy(struct auth *auth)
{
    if (auth) {
        free_set(auth);
        bop_free(auth->allocator, auth, sizeof(*auth));
    }
}

/* ---- Making a set ---- */

static void hash_bytes(const void *bytes, size_t size, uint8_t out_hash[BOP_TOKEN_HASH_SIZE])
{
    SHA256(bytes, size, out_hash);
}

/* Names of hosts are the same in any case. */
static void hash_name(const char *name, size_t size, uint8_t out_hash[BOP_TOKEN_HASH_SIZE])
{
    char lower[BOP_NODE_CERTIFICATE_NAME_MAX];
    size_t used = bop_min_u64(size, sizeof(lower));

    for (size_t n = 0; n < used; n++) {
        lower[n] = (char)tolower((unsigned char)name[n]);
    }
    hash_bytes(lower, used, out_hash);
}

static int check_token(const struct bop_node_token *token, struct bop_error *err)
{
    if (!token->name || !token->name[0]) {
        return bop_error_say(err, BOP_EINVAL, "a token without a name");
    }
    if (!token->sha256 && !token->certificate) {
        return bop_error_say(err, BOP_EINVAL, "token %.80s has neither a hash nor a certificate",
                             token->name);
    }
    if (token->certificate &&
        (!token->certificate[0] || strlen(token->certificate) > BOP_NODE_CERTIFICATE_NAME_MAX)) {
        return bop_error_say(err, BOP_EINVAL,
                             "token %.80s: the certificate's name has 1 to %d bytes", token->name,
                             BOP_NODE_CERTIFICATE_NAME_MAX);
    }
    for (size_t n = 0; n < token->grant_count; n++) {
        if (!token->grants[n].name_space || token->grants[n].right < BOP_RIGHT_READ ||
            token->grants[n].right > BOP_RIGHT_ADMIN) {
            return bop_error_say(err, BOP_EINVAL, "token %.80s: right %zu makes no sense",
                                 token->name, n + 1);
        }
        if (token->grants[n].right == BOP_RIGHT_ADMIN &&
            strcmp(token->grants[n].name_space, "*") != 0) {
            return bop_error_say(err, BOP_EINVAL,
                                 "token %.80s: admin is about the cluster, so it is given on "
                                 "\"*\" only",
                                 token->name);
        }
    }
    return 0;
}

/* Two with the same secret could mean two things. */
static int check_twins(const struct bop_node_token *tokens, size_t count, struct bop_error *err)
{
    for (size_t a = 0; a < count; a++) {
        for (size_t b = 0; b < a; b++) {
            if (strcmp(tokens[a].name, tokens[b].name) == 0) {
                return bop_error_say(err, BOP_EINVAL, "two tokens have the name %.80s",
                                     tokens[a].name);
            }
            if (tokens[a].sha256 && tokens[b].sha256 &&
                memcmp(tokens[a].sha256, tokens[b].sha256, BOP_TOKEN_HASH_SIZE) == 0) {
                return bop_error_say(err, BOP_EINVAL, "tokens %.80s and %.80s are the same",
                                     tokens[b].name, tokens[a].name);
            }
        }
    }
    return 0;
}

/* Where the next piece of the block is. */
struct layout {
    struct auth_grant *grants;
    char *texts;
};

static const char *put_text(struct layout *at, const char *text)
{
    size_t size = strlen(text) + 1;

    memcpy(at->texts, text, size);
    at->texts += size;
    return at->texts - size;
}

static void put_token(struct layout *at, struct auth_token *out, const struct bop_node_token *in)
{
    *out = (struct auth_token){.name = put_text(at, in->name), .grants = at->grants};
    if (in->sha256) {
        out->has_hash = true;
        memcpy(out->hash, in->sha256, sizeof(out->hash));
    }
    if (in->certificate) {
        out->has_certificate = true;
        hash_name(in->certificate, strlen(in->certificate), out->certificate);
    }
    for (size_t n = 0; n < in->grant_count; n++) {
        const struct bop_node_grant *grant = &in->grants[n];

        if (strcmp(grant->name_space, "*") == 0) {
            out->everywhere = grant->right > out->everywhere ? grant->right : out->everywhere;
        } else {
            at->grants->name_space = bop_slice_cstr(put_text(at, grant->name_space));
            at->grants->right = grant->right;
            at->grants++;
            out->grant_count++;
        }
    }
}

int bop__auth_set(struct auth *auth, const struct bop_node_token *tokens, size_t count,
                  struct bop_error *err)
{
    size_t grants = 0, texts = 0, bytes;
    struct auth_token *block;
    struct layout at;
    int rc = 0;

    for (size_t n = 0; n < count && rc == 0; n++) {
        rc = check_token(&tokens[n], err);
        texts += rc == 0 ? strlen(tokens[n].name) + 1 : 0;
        for (size_t g = 0; rc == 0 && g < tokens[n].grant_count; g++) {
            texts += strlen(tokens[n].grants[g].name_space) + 1;
            grants++;
        }
    }
    if (rc == 0) {
        rc = check_twins(tokens, count, err);
    }
    if (rc < 0) {
        return rc;
    }
    /* One more, so that an empty set is a block as well. */
    bytes = (count + 1) * sizeof(struct auth_token) + grants * sizeof(struct auth_grant) + texts;
    block = bop_alloc_zeroed(auth->allocator, bytes);
    if (!block) {
        return bop_error_set(err, BOP_ENOMEM, "take over the tokens");
    }
    at.grants = (struct auth_grant *)(void *)(block + count + 1);
    at.texts = (char *)(at.grants + grants);
    for (size_t n = 0; n < count; n++) {
        put_token(&at, &block[n], &tokens[n]);
    }
    free_set(auth);
    auth->tokens = block;
    auth->count = count;
    auth->bytes = bytes;
    auth->version++;
    return 0;
}

/* ---- Who it is ---- */

/* All of them are looked at, whichever it is. */
static const struct auth_token *find(const struct auth_who *who)
{
    const struct auth *auth = who->auth;
    const struct auth_token *found = NULL;

    for (size_t n = 0; n < auth->count; n++) {
        const struct auth_token *token = &auth->tokens[n];
        bool by_token = who->shown == AUTH_TOKEN;
        bool same = CRYPTO_memcmp(by_token ? token->hash : token->certificate, who->hash,
                                  sizeof(who->hash)) == 0;

        found = same && (by_token ? token->has_hash : token->has_certificate) ? token : found;
    }
    return found;
}

/* As of the set that there is now. */
static const struct auth_token *identify(struct auth_who *who)
{
    if (who->version != who->auth->version) {
        who->token = who->shown == AUTH_NOTHING ? NULL : find(who);
        who->version = who->auth->version;
    }
    return who->token;
}

static bool show(struct auth_who *who)
{
    who->version = 0;
    return identify(who) != NULL;
}

bool bop__auth_show_token(struct auth_who *who, struct bop_slice token)
{
    if (!who->auth) {
        return true;
    }
    hash_bytes(token.data, token.size, who->hash);
    who->shown = AUTH_TOKEN;
    who->failures += !show(who);
    return who->token != NULL;
}

bool bop__auth_show_certificate(struct auth_who *who, const char *names)
{
    if (!who->auth) {
        return true;
    }
    who->shown = AUTH_CERTIFICATE;
    while (*names) {
        size_t size = strcspn(names, ",");

        if (size > 0 && size <= BOP_NODE_CERTIFICATE_NAME_MAX) {
            hash_name(names, size, who->hash);
            if (show(who)) {
                return true;
            }
        }
        names += size + (names[size] == ',');
    }
    who->shown = AUTH_NOTHING;
    who->token = NULL;
    return false;
}

bool bop__auth_known_slowly(struct auth_who *who)
{
    return identify(who) != NULL;
}

const char *bop__auth_name(struct auth_who *who)
{
    return who->auth && identify(who) ? who->token->name : "";
}

/* ---- What it may ---- */

bool bop__auth_allows_all(struct auth_who *who, enum bop_right right)
{
    const struct auth_token *token;

    if (!who->auth) {
        return true;
    }
    token = identify(who);
    return token && token->everywhere >= right;
}

bool bop__auth_allows(struct auth_who *who, enum bop_right right, struct bop_slice name)
{
    const struct auth_token *token;
    struct bop_slice name_space;

    if (!who->auth) {
        return true;
    }
    token = identify(who);
    if (!token || token->everywhere >= right) {
        return token != NULL;
    }
    name_space = bop__auth_namespace(name);
    for (size_t n = 0; n < token->grant_count; n++) {
        if (token->grants[n].right >= right &&
            bop_slice_equal(token->grants[n].name_space, name_space)) {
            return true;
        }
    }
    return false;
}

/* A right that something wants. */
struct want {
    enum bop_right right;
    bool everywhere;
    struct bop_slice name;
};

static bool has(struct auth_who *who, const struct want *want)
{
    return want->everywhere ? bop__auth_allows_all(who, want->right)
                            : bop__auth_allows(who, want->right, want->name);
}

static struct want want_of(const struct bop_operation *operation)
{
    struct want want = {
        .right = bop_op_is_write(operation->op) ? BOP_RIGHT_WRITE : BOP_RIGHT_READ,
        .name = operation->name,
        .everywhere = operation->name.size == 0,
    };

    if (operation->op == BOP_OP_NAMES && operation->prefix.size > 0 &&
        memchr(operation->prefix.data, '/', operation->prefix.size)) {
        want.name = operation->prefix;
        want.everywhere = false;
    }
    return want;
}

/* The first right that the operations of one branch want in vain. */
static bool branch_lacks(struct auth_who *who, struct bop_slice operations, struct want *out_want)
{
    struct bop_operation operation;
    struct bop_slice bytes;

    while (bop_transaction_next(&operations, &bytes)) {
        if (bop_operation_decode(bytes, &operation) < 0) {
            *out_want = (struct want){.right = BOP_RIGHT_ADMIN, .everywhere = true};
            return true; /* It was decoded before; what cannot be told is not allowed. */
        }
        *out_want = want_of(&operation);
        if (!has(who, out_want)) {
            return true;
        }
    }
    return false;
}

/* The first right that an operation wants in vain; false if it has all. */
static bool lacks(struct auth_who *who, const struct bop_operation *operation,
                  struct want *out_want)
{
    struct bop_slice compares = operation->compares;
    struct bop_compare compare;

    if (operation->op != BOP_OP_TRANSACTION) {
        *out_want = want_of(operation);
        return !has(who, out_want);
    }
    while (bop_compare_next(&compares, &compare)) {
        *out_want = (struct want){.right = BOP_RIGHT_READ, .name = compare.name};
        if (!has(who, out_want)) {
            return true;
        }
    }
    return branch_lacks(who, operation->then_items, out_want) ||
           branch_lacks(who, operation->else_items, out_want);
}

bool bop__auth_allows_operation(struct auth_who *who, const struct bop_operation *operation)
{
    struct want want;

    return !who->auth || (identify(who) && !lacks(who, operation, &want));
}

/* ---- Why not ---- */

const char *bop__auth_refusal(struct auth_who *who, enum bop_right right, struct bop_slice name,
                              bool everywhere, char out_text[AUTH_TEXT_MAX])
{
    static const char *const verbs[] = {
        [BOP_RIGHT_READ] = "read", [BOP_RIGHT_WRITE] = "write", [BOP_RIGHT_ADMIN] = "administer"};
    struct bop_slice name_space = bop__auth_namespace(name);

    if (who->auth && !identify(who)) {
        snprintf(out_text, AUTH_TEXT_MAX, "%s",
                 who->shown == AUTH_NOTHING ? "this cluster wants a token, and none was shown"
                                            : "the token that was shown is not known any more");
    } else if (everywhere) {
        snprintf(out_text, AUTH_TEXT_MAX, "token %.80s may not %s in all namespaces (\"*\")",
                 bop__auth_name(who), verbs[right]);
    } else {
        snprintf(out_text, AUTH_TEXT_MAX, "token %.80s may not %s in namespace \"%.*s\"",
                 bop__auth_name(who), verbs[right], (int)bop_min_u64(name_space.size, 200),
                 (const char *)name_space.data);
    }
    return out_text;
}

const char *bop__auth_operation_refusal(struct auth_who *who, const struct bop_operation *operation,
                                        char out_text[AUTH_TEXT_MAX])
{
    struct want want = {.right = BOP_RIGHT_READ};

    /* Nobody lacks nothing: then the sentence is about that. */
    (void)lacks(who, operation, &want);
    return bop__auth_refusal(who, want.right, want.name, want.everywhere, out_text);
}
