/*
 * A TCP echo server with TLS.
 *
 *     tls-echo --port N --cert FILE --key FILE [--client-ca FILE]
 *
 * SIGHUP reads the files again: connections go on, new ones get the new
 * certificate. With --client-ca, clients need a certificate of that authority.
 * Try it with `openssl s_client -connect localhost:N`.
 */
#include <bop/loop.h>
#include <bop/socket.h>
#include <bop/tls.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct bop_loop *loop;
static volatile sig_atomic_t wants_reload;
static volatile sig_atomic_t wants_end;

static void on_signal(int number)
{
    if (number == SIGHUP) {
        wants_reload = 1;
    } else {
        wants_end = 1;
    }
    bop_loop_wakeup(loop);
}

static void on_open(struct bop_socket *socket, void *user)
{
    struct bop_tls_certificate peer;
    struct bop_tls_info info;

    (void)user;
    if (bop_socket_tls_info(socket, &info) != 0) {
        return;
    }
    printf("%s: %s, %s%s", bop_socket_peer_name(socket), info.version, info.cipher,
           info.resumed ? ", resumed" : "");
    if (bop_socket_peer_certificate(socket, &peer) == 0) {
        printf(", client %s", peer.common_name);
    }
    printf("\n");
    fflush(stdout);
}

/* What the queue does not take now is given again when there is more. */
static size_t on_data(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    (void)user;
    return bop_socket_write(socket, bytes) == 0 ? bytes.size : 0;
}

static void on_close(struct bop_socket *socket, void *user, int reason)
{
    (void)user;
    if (reason != 0 && reason != BOP_ECANCELED) {
        printf("%s: %s\n", bop_socket_peer_name(socket), bop_socket_error_text(socket, reason));
        fflush(stdout);
    }
}

static const struct bop_socket_events events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_close = on_close,
};

static bool on_accept(struct bop_listener *listener, struct bop_socket *socket, void *user)
{
    (void)listener;
    (void)user;
    bop_socket_attach(socket, &events, NULL);
    return true;
}

static void reload(struct bop_tls *tls)
{
    struct bop_error err = {0};

    if (bop_tls_reload(tls, NULL, &err) == 0) {
        printf("reloaded\n");
    } else {
        printf("not reloaded: %s\n", err.message);
    }
    fflush(stdout);
}

static int serve(uint16_t port, struct bop_tls *tls, struct bop_error *err)
{
    struct bop_listen_options options = {
        .host = "0.0.0.0",
        .port = port,
        .tls = tls,
        .on_accept = on_accept,
        /* An echo cannot outrun a peer that does not read. */
        .limits = {.when_full = BOP_SOCKET_PAUSE},
    };
    struct bop_listener *listener;
    int rc = bop_listen(loop, &options, &listener, err);

    if (rc != 0) {
        return rc;
    }
    printf("listening on port %u\n", bop_listener_port(listener));
    fflush(stdout);
    while (rc == 0 && !wants_end) {
        rc = bop_loop_run_once(loop, -1);
        if (wants_reload) {
            wants_reload = 0;
            reload(tls);
        }
    }
    bop_listener_close(listener);
    return rc;
}

static int parse(int argc, char **argv, struct bop_tls_options *options, uint16_t *out_port)
{
    const char *port = NULL;

    for (int i = 1; i + 1 < argc; i += 2) {
        const char **value = strcmp(argv[i], "--port") == 0        ? &port
                             : strcmp(argv[i], "--cert") == 0      ? &options->identity.cert_file
                             : strcmp(argv[i], "--key") == 0       ? &options->identity.key_file
                             : strcmp(argv[i], "--client-ca") == 0 ? &options->ca_file
                                                                   : NULL;

        if (value == NULL) {
            return BOP_EINVAL;
        }
        *value = argv[i + 1];
    }
    if (argc % 2 == 0 || port == NULL || options->identity.cert_file == NULL) {
        return BOP_EINVAL;
    }
    *out_port = (uint16_t)atoi(port);
    return 0;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct bop_tls_options options = {.server = true};
    struct bop_error err = {0};
    struct bop_tls *tls = NULL;
    uint16_t port;
    int rc;

    if (parse(argc, argv, &options, &port) != 0) {
        fprintf(stderr, "usage: tls-echo --port N --cert FILE --key FILE [--client-ca FILE]\n");
        return 2;
    }
    rc = bop_loop_create(NULL, &loop);
    if (rc != 0) {
        fprintf(stderr, "tls-echo: %s\n", bop_strerror(rc));
        return 1;
    }
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    rc = bop_tls_create(&options, &tls, &err);
    if (rc == 0) {
        rc = serve(port, tls, &err);
    }
    if (rc != 0) {
        fprintf(stderr, "tls-echo: %s\n", err.message);
    }
    /* From here on there is no loop to stop. */
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    bop_loop_destroy(loop);
    bop_tls_destroy(tls);
    return rc != 0;
}
