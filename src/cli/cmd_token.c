/*
 * `bop token new`: a token, and what the servers' file has to say of it.
 *
 * A token is 32 random bytes in letters, digits, '-' and '_'. As it cannot be guessed,
 * its plain SHA-256 is safe to keep.
 */
#include "cli.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <bop/random.h>
#include <openssl/sha.h>

#define TOKEN_BYTES 32
#define TOKEN_TEXT  (4 + (TOKEN_BYTES * 8 + 5) / 6) /* "bop_", then 6 bits a letter. */

static void write_token(const uint8_t bytes[TOKEN_BYTES], char out_text[TOKEN_TEXT + 1])
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char *at = out_text + 4;
    unsigned held = 0, bits = 0;

    snprintf(out_text, TOKEN_TEXT + 1, "bop_");
    for (size_t i = 0; i < TOKEN_BYTES; i++) {
        held = held << 8 | bytes[i];
        for (bits += 8; bits >= 6; bits -= 6) {
            *at++ = letters[held >> (bits - 6) & 63];
        }
    }
    *at++ = letters[held << (6 - bits) & 63];
    *at = '\0';
}

static const char *hash_token(const char *token, char out_text[2 * SHA256_DIGEST_LENGTH + 1])
{
    uint8_t hash[SHA256_DIGEST_LENGTH];

    SHA256((const uint8_t *)token, strlen(token), hash);
    for (size_t i = 0; i < sizeof(hash); i++) {
        snprintf(out_text + 2 * i, 3, "%02x", hash[i]);
    }
    return out_text;
}

/* For its owner only, and never over another one. */
static int keep_token(const char *path, const char *token)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool good;

    if (fd < 0) {
        return cli_complain(CLI_FAILED, "cannot make %s: %s", path, bop_strerror(-errno));
    }
    good = dprintf(fd, "%s\n", token) > 0;
    good = fsync(fd) == 0 && good;
    close(fd);
    return good ? CLI_OK : cli_complain(CLI_FAILED, "cannot write %s", path);
}

/* "NAMESPACE:RIGHT", where the right has no colon. Names go between double quotes. */
static int check_right(const char *text)
{
    static const char *const rights[] = {"read", "write", "admin"};
    const char *colon = strrchr(text, ':');

    for (size_t i = 0; colon && i < BOP_COUNT_OF(rights); i++) {
        if (strcmp(colon + 1, "admin") == 0 && strncmp(text, "*:", 2) != 0) {
            return cli_complain(CLI_USAGE,
                                "%.80s: admin is about the cluster, so it is given as \"*:admin\" "
                                "only; :write allows everything in a namespace",
                                text);
        }
        if (strcmp(colon + 1, rights[i]) == 0 && strcspn(text, "/\"\\\n\r\t") == strlen(text) &&
            bop_slice_is_utf8(bop_slice_cstr(text))) {
            return CLI_OK;
        }
    }
    return cli_complain(CLI_USAGE,
                        "%.80s: no right; write NAMESPACE:read or :write, for example "
                        "billing:write or \"*:read\"; or \"*:admin\"",
                        text);
}

static void print_stanza(const struct cli_args *args, const char *token)
{
    char hash[2 * SHA256_DIGEST_LENGTH + 1];

    printf("- name: \"%s\"\n  sha256: %s\n  rights:\n", args->values[0], hash_token(token, hash));
    for (size_t i = 1; i < args->value_count; i++) {
        const char *colon = strrchr(args->values[i], ':');

        printf("    - {namespace: \"%.*s\", right: %s}\n", (int)(colon - args->values[i]),
               args->values[i], colon + 1);
    }
}

int cmd_token_new(const struct cli_args *args)
{
    const char *name = args->values[0];
    char token[TOKEN_TEXT + 1];
    uint8_t bytes[TOKEN_BYTES];
    int exit_code = CLI_OK;
    int rc;

    if (!name[0] || strcspn(name, "\"\\\n\r\t") != strlen(name) ||
        !bop_slice_is_utf8(bop_slice_cstr(name))) {
        return cli_complain(CLI_USAGE, "a token's name is text without quotes and backslashes");
    }
    for (size_t i = 1; i < args->value_count && exit_code == CLI_OK; i++) {
        exit_code = check_right(args->values[i]);
    }
    if (exit_code != CLI_OK) {
        return exit_code;
    }
    rc = bop_random_secret(bytes, sizeof(bytes));
    if (rc < 0) {
        return cli_complain(CLI_FAILED, "get random bytes: %s", bop_strerror(rc));
    }
    write_token(bytes, token);
    if (args->trust.token_file) {
        exit_code = keep_token(args->trust.token_file, token);
    } else {
        fprintf(stderr, "bop: the token, shown this once: %s\n", token);
    }
    if (exit_code == CLI_OK) {
        print_stanza(args, token);
    }
    return cli_finish_output(exit_code);
}
