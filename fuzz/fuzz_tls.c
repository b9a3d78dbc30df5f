/*
 * Fuzzes a TLS server on a real socket with bytes in place of a handshake, and
 * with bytes in place of records behind a good one. The first byte of the input
 * says which.
 *
 * Properties: nothing reads outside of what came (the sanitizers' part); every
 * socket closes, once, and never with success: no input is a good end.
 */
#include <bop/loop.h>
#include <bop/socket.h>
#include <bop/tls.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TURNS_MAX 10000

static struct bop_loop *loop;
static struct bop_tls *server_tls;
static struct bop_tls *client_tls;
static struct bop_listener *listener;

/** One side of the connection. */
struct side {
    struct bop_socket *socket;
    bool open;
    unsigned closes;
    int reason;
};
static struct side server;
static struct side client;

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void on_open(struct bop_socket *socket, void *user)
{
    ((struct side *)user)->open = true;
}

static size_t on_data(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    return bytes.size;
}

static void on_close(struct bop_socket *socket, void *user, int reason)
{
    struct side *side = (struct side *)user;

    side->closes++;
    side->reason = reason;
}

static const struct bop_socket_events events = {
    .on_open = on_open, .on_data = on_data, .on_close = on_close};

static bool on_accept(struct bop_listener *from, struct bop_socket *socket, void *user)
{
    server.socket = socket;
    bop_socket_attach(socket, &events, &server);
    return true;
}

/* A certificate signed by itself, as one PEM text with its key. */
static char *make_identity(void)
{
    X509 *certificate = X509_new();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_mem());
    char *data, *text;
    long size;

    require(certificate != NULL && key != NULL && bio != NULL);
    require(X509_gmtime_adj(X509_getm_notBefore(certificate), -86400) != NULL &&
            X509_gmtime_adj(X509_getm_notAfter(certificate), 86400L * 30) != NULL &&
            X509_set_pubkey(certificate, key) == 1 &&
            X509_sign(certificate, key, EVP_sha256()) > 0);
    require(PEM_write_bio_X509(bio, certificate) == 1 &&
            PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    size = BIO_get_mem_data(bio, &data);
    text = calloc(1, (size_t)size + 1);
    require(text != NULL);
    memcpy(text, data, (size_t)size);
    BIO_free(bio);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return text;
}

static void set_up(void)
{
    char *identity = make_identity();
    struct bop_tls_options server_options = {.server = true,
                                             .identity = {.cert_pem = bop_slice_cstr(identity)}};
    struct bop_tls_options client_options = {.verify = BOP_TLS_VERIFY_NONE};
    struct bop_listen_options listen = {.on_accept = on_accept};

    require(bop_tls_create(&server_options, &server_tls, NULL) == 0);
    require(bop_tls_create(&client_options, &client_tls, NULL) == 0);
    require(bop_loop_create(NULL, &loop) == 0);
    listen.tls = server_tls;
    require(bop_listen(loop, &listen, &listener, NULL) == 0);
    free(identity);
}

static void turn(void)
{
    require(bop_loop_run_once(loop, 10) == 0);
}

/* Whatever the client's own state is, these are its bytes now, and its last. */
static void send_raw(const uint8_t *data, size_t size)
{
    int fd = bop_socket_fd(client.socket);

    if (fd >= 0) {
        BOP_IGNORE(send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT));
        BOP_IGNORE(shutdown(fd, SHUT_WR));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_connect_options connect = {.host = "127.0.0.1", .events = &events, .user = &client};
    bool shakes;

    if (size < 2 || size > 65536) {
        return 0;
    }
    if (loop == NULL) {
        set_up();
    }
    shakes = (data[0] & 1) != 0;
    server = (struct side){.closes = 0};
    client = (struct side){.closes = 0};
    connect.port = bop_listener_port(listener);
    connect.tls = shakes ? client_tls : NULL;
    require(bop_connect(loop, &connect, &client.socket, NULL) == 0);
    for (int i = 0; i < TURNS_MAX && (!client.open || (shakes && !server.open)); i++) {
        turn();
    }
    require(client.open && (!shakes || server.open));
    send_raw(data + 1, size - 1);
    for (int i = 0; i < TURNS_MAX && (server.socket == NULL || server.closes == 0); i++) {
        turn();
    }
    require(server.closes == 1 && server.reason != 0);
    require(shakes || !server.open);
    bop_socket_close(client.socket);
    for (int i = 0; i < TURNS_MAX && client.closes == 0; i++) {
        turn();
    }
    require(client.closes == 1);
    return 0;
}
