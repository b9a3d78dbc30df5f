/*
 * Whom connections trust, what they show, and what to do when that is not enough.
 */
#include "trust.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static const char *or_environment(const char *flag, const char *name)
{
    const char *text = flag ? flag : getenv(name);

    return text && text[0] ? text : NULL;
}

/* The first line of a file; a line feed behind it is not the token's. */
static int read_token(const char *path, char out_token[BOP_AUTH_TOKEN_MAX + 1],
                      struct bop_error *err)
{
    char text[BOP_AUTH_TOKEN_MAX + 3];
    ssize_t size;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return bop_error_set(err, -errno, "the token's file %s: cannot read it", path);
    }
    size = read(fd, text, sizeof(text) - 1);
    if (size < 0) {
        bop_error_set(err, -errno, "the token's file %s: cannot read it", path);
        close(fd);
        return BOP_EIO;
    }
    close(fd);
    text[size] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    if (!text[0] || strlen(text) > BOP_AUTH_TOKEN_MAX) {
        return bop_error_say(err, BOP_EINVAL,
                             "the token's file %s: its first line is no token of 1 to %d bytes",
                             path, BOP_AUTH_TOKEN_MAX);
    }
    memcpy(out_token, text, strlen(text) + 1);
    explicit_bzero(text, sizeof(text));
    return 0;
}

static int take_token(const struct cli_args *args, struct trust *trust, struct bop_error *err)
{
    const char *path = or_environment(args->trust.token_file, "BOP_TOKEN_FILE");
    const char *token = or_environment(NULL, "BOP_TOKEN");

    if (path) {
        return read_token(path, trust->token, err);
    }
    if (token && strlen(token) > BOP_AUTH_TOKEN_MAX) {
        return bop_error_say(err, BOP_EINVAL, "BOP_TOKEN has more than %d bytes",
                             BOP_AUTH_TOKEN_MAX);
    }
    snprintf(trust->token, sizeof(trust->token), "%s", token ? token : "");
    return 0;
}

int trust_options(const struct cli_args *args, struct trust *out_trust,
                  struct bop_client_options *options, struct bop_error *err)
{
    struct bop_client_tls *tls = &out_trust->tls;
    int rc;

    *out_trust = (struct trust){
        .tls = {.ca = or_environment(args->trust.ca, "BOP_CA"),
                .certificate = or_environment(args->trust.certificate, "BOP_CERT"),
                .key = or_environment(args->trust.key, "BOP_KEY"),
                .server_name = or_environment(args->trust.server_name, "BOP_TLS_NAME")}};
    if (args->trust.tls || or_environment(NULL, "BOP_TLS") || tls->ca || tls->certificate ||
        tls->key || tls->server_name) {
        options->tls = tls;
    }
    if (tls->certificate && !tls->key) {
        return bop_error_say(err, BOP_EINVAL, "--cert %s: its key is missing; add --key FILE",
                             tls->certificate);
    }
    rc = take_token(args, out_trust, err);
    if (rc == 0 && out_trust->token[0]) {
        options->token = out_trust->token;
    }
    return rc;
}

/* ---- What to do ---- */

/* What TLS says of a connection in vain, and the way out; the first that fits. */
static const struct {
    const char *part;
    const char *advice;
} advices[] = {
    {"gave up: certificate expired", "your own certificate has expired: renew it"},
    {"gave up: unknown CA", "another CA made your certificate than the server trusts"},
    {"gave up: ", "the server wants a certificate of its CA: give yours with --cert and --key"},
    {"has expired", "the server's certificate must be renewed there"},
    {"not yet valid", "compare the clocks of the two machines"},
    {"hostname mismatch", "call the server as its certificate does, or give that name with "
                          "--tls-name"},
    {"IP address mismatch", "call the server as its certificate does, or give that name with "
                            "--tls-name"},
    {"self-signed certificate", "give the CA that made it with --ca"},
    {"local issuer", "give the CA that made it with --ca"},
    {"does not speak TLS", "drop --ca and the like (and BOP_CA), or give the server a certificate"},
    {"speaks TLS", "say whom to trust with --ca FILE"},
};

bool trust_is_about(const struct bop_error *trouble)
{
    return trouble->code == BOP_ETLS || trouble->code == BOP_EDENIED ||
           (trouble->code == BOP_EPROTOCOL && strstr(trouble->message, "it says: "));
}

int trust_complain(const struct bop_error *trouble)
{
    if (trouble->code == BOP_EDENIED) {
        return cli_complain(CLI_FAILED,
                            "access denied: %s: give another with --token-file or BOP_TOKEN",
                            trouble->message);
    }
    for (size_t i = 0; i < BOP_COUNT_OF(advices); i++) {
        if (strstr(trouble->message, advices[i].part)) {
            return cli_complain(CLI_FAILED, "%s: %s", trouble->message, advices[i].advice);
        }
    }
    return cli_complain_error(trouble);
}
