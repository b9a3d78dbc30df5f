/*
 * Tokens from YAML. The document that libyaml makes is kept as long as the tokens
 * are, whose texts lie in it; its nodes know their lines.
 */
#include "tokens.h"

#include <stdlib.h>
#include <string.h>

#include <bop/fs.h>
#include <yaml.h>

#define SHOWN_BYTES 80

struct tokens {
    yaml_document_t document;
    bool loaded;
    struct bop_node_token *list;
    uint8_t (*hashes)[BOP_TOKEN_HASH_SIZE]; /* One a token. */
    struct bop_node_grant *grants;          /* Of all tokens, one behind another. */
    size_t count;
    size_t grant_count;
};

/* Where a text is being read. */
struct reading {
    struct tokens *tokens;
    const char *name;
    struct bop_error *err;
};

/* "name:line: " before the sentence. */
BOP_PRINTF(3, 4)
static int blame(const struct reading *reading, const yaml_node_t *node, const char *format, ...)
{
    char text[BOP_ERROR_MESSAGE_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return bop_error_say(reading->err, BOP_ECONFIG, "%s:%zu: %s", reading->name,
                         node->start_mark.line + 1, text);
}

static yaml_node_t *node_of(const struct reading *reading, int id)
{
    return yaml_document_get_node(&reading->tokens->document, id);
}

/* A text without control characters; NULL for anything else. */
static const char *text_of(const yaml_node_t *node)
{
    const char *text;

    if (node->type != YAML_SCALAR_NODE) {
        return NULL;
    }
    text = (const char *)node->data.scalar.value;
    for (size_t n = 0; n < node->data.scalar.length; n++) {
        if ((unsigned char)text[n] < ' ' || text[n] == 0x7f) {
            return NULL;
        }
    }
    return text;
}

/* ---- Values ---- */

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static bool parse_hash(const char *text, uint8_t out_hash[BOP_TOKEN_HASH_SIZE])
{
    if (strlen(text) != 2 * BOP_TOKEN_HASH_SIZE) {
        return false;
    }
    for (size_t n = 0; n < BOP_TOKEN_HASH_SIZE; n++) {
        int high = hex_digit(text[2 * n]), low = hex_digit(text[2 * n + 1]);

        if (high < 0 || low < 0) {
            return false;
        }
        out_hash[n] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static enum bop_right parse_right(const char *text)
{
    static const char *const words[] = {
        [BOP_RIGHT_READ] = "read", [BOP_RIGHT_WRITE] = "write", [BOP_RIGHT_ADMIN] = "admin"};

    for (size_t n = BOP_RIGHT_READ; n < BOP_COUNT_OF(words); n++) {
        if (strcmp(text, words[n]) == 0) {
            return (enum bop_right)n;
        }
    }
    return (enum bop_right)0;
}

static int take_right_key(const struct reading *reading, const char *key, const yaml_node_t *value,
                          struct bop_node_grant *grant)
{
    const char *text = text_of(value);

    if (!text) {
        return blame(reading, value, "%s: not a text", key);
    }
    if (strcmp(key, "namespace") == 0) {
        if (strchr(text, '/')) {
            return blame(reading, value,
                         "namespace %.*s: has a '/'; it is what names have before their first one",
                         SHOWN_BYTES, text);
        }
        grant->name_space = text;
        return 0;
    }
    if (strcmp(key, "right") == 0) {
        grant->right = parse_right(text);
        return grant->right ? 0
                            : blame(reading, value, "right %.*s: write read, write or admin",
                                    SHOWN_BYTES, text);
    }
    return blame(reading, value, "%.*s: no such key; a right has namespace and right", SHOWN_BYTES,
                 key);
}

static int take_right(const struct reading *reading, const yaml_node_t *node)
{
    struct bop_node_grant *grant = &reading->tokens->grants[reading->tokens->grant_count];
    int rc = 0;

    if (node->type != YAML_MAPPING_NODE) {
        return blame(reading, node,
                     "not a right; write each as - {namespace: NAME, right: read|write|admin}");
    }
    *grant = (struct bop_node_grant){0};
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         rc == 0 && pair < node->data.mapping.pairs.top; pair++) {
        const char *key = text_of(node_of(reading, pair->key));

        rc = key ? take_right_key(reading, key, node_of(reading, pair->value), grant)
                 : blame(reading, node, "not a right: a key is no text");
    }
    if (rc == 0 && (!grant->name_space || !grant->right)) {
        rc = blame(reading, node, "a right lacks its %s; write {namespace: NAME, right: read}",
                   grant->name_space ? "right" : "namespace");
    } else if (rc == 0 && grant->right == BOP_RIGHT_ADMIN && strcmp(grant->name_space, "*") != 0) {
        rc = blame(reading, node,
                   "namespace %.*s: admin is about the cluster, so it is given on \"*\" only; "
                   "write allows everything in a namespace",
                   SHOWN_BYTES, grant->name_space);
    }
    reading->tokens->grant_count += rc == 0;
    return rc;
}

static int take_rights(const struct reading *reading, const yaml_node_t *node,
                       struct bop_node_token *token)
{
    struct tokens *tokens = reading->tokens;
    const yaml_node_item_t *item;
    size_t count;
    void *grown;
    int rc = 0;

    if (node->type != YAML_SEQUENCE_NODE) {
        return blame(reading, node,
                     "not a list of rights; write each as - {namespace: NAME, right: read}");
    }
    item = node->data.sequence.items.start;
    count = (size_t)(node->data.sequence.items.top - item);
    if (count > TOKEN_RIGHTS_MAX) {
        return blame(reading, node, "more than %d rights of one token", TOKEN_RIGHTS_MAX);
    }
    grown = realloc(tokens->grants, (tokens->grant_count + count + 1) * sizeof(*tokens->grants));
    if (!grown) {
        return bop_error_set(reading->err, BOP_ENOMEM, "%s", reading->name);
    }
    tokens->grants = grown;
    for (size_t n = 0; rc == 0 && n < count; n++) {
        rc = take_right(reading, node_of(reading, item[n]));
    }
    token->grant_count = count;
    return rc;
}

/* ---- Tokens ---- */

static int take_token_key(const struct reading *reading, const char *key, const yaml_node_t *value,
                          struct bop_node_token *token)
{
    const char *text = text_of(value);

    if (strcmp(key, "rights") == 0) {
        return take_rights(reading, value, token);
    }
    if (!text || !text[0]) {
        return blame(reading, value, "%.*s: %s", SHOWN_BYTES, key, text ? "empty" : "not a text");
    }
    if (strcmp(key, "name") == 0) {
        token->name = text;
    } else if (strcmp(key, "certificate") == 0) {
        token->certificate = text;
    } else if (strcmp(key, "sha256") == 0) {
        uint8_t *hash = reading->tokens->hashes[token - reading->tokens->list];

        if (!parse_hash(text, hash)) {
            return blame(reading, value,
                         "sha256: not 64 hex digits; `bop token new` makes a token and its hash");
        }
        token->sha256 = hash;
    } else {
        return blame(reading, value,
                     "%.*s: no such key; a token has name, sha256, certificate and rights",
                     SHOWN_BYTES, key);
    }
    return 0;
}

static int take_token(const struct reading *reading, const yaml_node_t *node)
{
    struct bop_node_token *token = &reading->tokens->list[reading->tokens->count];
    int rc = 0;

    if (node->type != YAML_MAPPING_NODE) {
        return blame(reading, node, "not a token; write name, sha256 and rights of each");
    }
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         rc == 0 && pair < node->data.mapping.pairs.top; pair++) {
        const char *key = text_of(node_of(reading, pair->key));

        rc = key ? take_token_key(reading, key, node_of(reading, pair->value), token)
                 : blame(reading, node, "not a token: a key is no text");
    }
    if (rc == 0 && !token->name) {
        rc = blame(reading, node, "a token without a name; add name: NAME");
    }
    if (rc == 0 && !token->sha256 && !token->certificate) {
        rc = blame(reading, node,
                   "token %.*s has no sha256; `bop token new` makes a token and its hash",
                   SHOWN_BYTES, token->name);
    }
    reading->tokens->count += rc == 0;
    return rc;
}

/* Grants moved while they grew: only now do the tokens know where theirs are. */
static void place_grants(struct tokens *tokens)
{
    size_t at = 0;

    for (size_t n = 0; n < tokens->count; n++) {
        tokens->list[n].grants = tokens->grants ? tokens->grants + at : NULL;
        at += tokens->list[n].grant_count;
    }
}

static int take_list(const struct reading *reading, const yaml_node_t *root)
{
    struct tokens *tokens = reading->tokens;
    size_t count = 0;
    int rc = 0;

    if (root && root->type == YAML_SEQUENCE_NODE) {
        count = (size_t)(root->data.sequence.items.top - root->data.sequence.items.start);
    } else if (root) {
        return blame(reading, root, "not a list of tokens; each begins with - name: NAME");
    }
    if (count == 0) {
        return bop_error_say(reading->err, BOP_ECONFIG,
                             "%s: no token in it, so nobody could do anything; `bop token "
                             "new` makes one",
                             reading->name);
    }
    if (count > TOKENS_MAX) {
        return blame(reading, root, "more than %d tokens", TOKENS_MAX);
    }
    tokens->list = calloc(count, sizeof(*tokens->list));
    tokens->hashes = calloc(count, sizeof(*tokens->hashes));
    if (!tokens->list || !tokens->hashes) {
        return bop_error_set(reading->err, BOP_ENOMEM, "%s", reading->name);
    }
    for (size_t n = 0; rc == 0 && n < count; n++) {
        rc = take_token(reading, node_of(reading, root->data.sequence.items.start[n]));
    }
    place_grants(tokens);
    return rc;
}

static int load(const struct reading *reading, struct bop_slice text)
{
    yaml_parser_t parser;
    int rc = 0;

    if (!yaml_parser_initialize(&parser)) {
        return bop_error_set(reading->err, BOP_ENOMEM, "%s", reading->name);
    }
    yaml_parser_set_input_string(&parser, text.data ? text.data : (const uint8_t *)"", text.size);
    if (!yaml_parser_load(&parser, &reading->tokens->document)) {
        rc = parser.error == YAML_MEMORY_ERROR
                 ? bop_error_set(reading->err, BOP_ENOMEM, "%s", reading->name)
                 : bop_error_say(reading->err, BOP_ECONFIG, "%s:%zu: not YAML: %s", reading->name,
                                 parser.problem_mark.line + 1,
                                 parser.problem ? parser.problem : "unknown error");
    } else {
        reading->tokens->loaded = true;
    }
    yaml_parser_delete(&parser);
    return rc;
}

int tokens_parse(struct bop_slice text, const char *name, struct tokens **out_tokens,
                 struct bop_error *err)
{
    struct tokens *tokens = calloc(1, sizeof(*tokens));
    struct reading reading = {.tokens = tokens, .name = name, .err = err};
    int rc;

    if (!tokens) {
        return bop_error_set(err, BOP_ENOMEM, "%s", name);
    }
    rc = load(&reading, text);
    if (rc == 0) {
        rc = take_list(&reading, yaml_document_get_root_node(&tokens->document));
    }
    if (rc < 0) {
        tokens_free(tokens);
        return rc;
    }
    *out_tokens = tokens;
    return 0;
}

int tokens_read(const char *path, struct tokens **out_tokens, struct bop_error *err)
{
    struct bop_buf text;
    int rc;

    bop_buf_init(&text, NULL, 0);
    rc = bop_fs_read_file(bop_fs_real(), path, TOKENS_FILE_MAX, &text);
    if (rc == 0) {
        rc = tokens_parse(bop_buf_slice(&text), path, out_tokens, err);
    } else {
        bop_error_set(err, rc, "tokens %s: cannot read it", path);
    }
    bop_buf_deinit(&text);
    return rc;
}

const struct bop_node_token *tokens_list(const struct tokens *tokens, size_t *out_count)
{
    *out_count = tokens->count;
    return tokens->list;
}

void tokens_free(struct tokens *tokens)
{
    if (!tokens) {
        return;
    }
    if (tokens->loaded) {
        yaml_document_delete(&tokens->document);
    }
    free(tokens->list);
    free(tokens->hashes);
    free(tokens->grants);
    free(tokens);
}
