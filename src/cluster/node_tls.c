/*
 * Certificates of a node: those it shows to clients and peers, and how it knows a
 * peer by its own.
 *
 * One listener serves clients and peers, so a handshake asks everybody for a
 * certificate as soon as there is a CA; that a peer has one, and which node's, is
 * judged when it says PEER_HELLO. Who dials checks the name in the handshake itself.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "node.h"

#define ID_MARK "{id}"

/* What a client hears that does not speak TLS: a frame as of any other error. */
static int plain_answer(struct bop_buf *buf)
{
    struct bop_writer writer = bop_writer(buf);
    size_t at;
    int rc = bop_wire_begin(buf, &at);

    if (rc == 0) {
        bop_write_u8(&writer, 1);
        bop_write_bytes(&writer, bop_slice_cstr("this port speaks TLS"));
        rc = writer.code;
        bop_wire_end(buf, at, BOP_WIRE_KIND_ERROR_RESPONSE, BOP_WIRE_RESPONSE, 0);
    }
    return rc;
}

static int open_server(struct bop_node *node, const struct bop_node_tls *options,
                       struct bop_error *err)
{
    struct bop_buf answer;
    int rc;
    struct bop_tls_options tls = {
        .server = true,
        .identity = {.cert_file = options->certificate, .key_file = options->key},
        .ca_file = options->ca,
        .verify = BOP_TLS_VERIFY_NONE,
    };

    if (options->client_certificates == BOP_NODE_CERTIFICATES_REQUIRED) {
        tls.verify = BOP_TLS_VERIFY_REQUIRED;
    } else if (options->ca) {
        tls.verify = BOP_TLS_VERIFY_OPTIONAL;
    }
    bop_buf_init(&answer, NULL, 0);
    rc = plain_answer(&answer);
    tls.plain_answer = bop_buf_slice(&answer);
    if (rc == 0) {
        rc = bop_tls_create(&tls, &node->tls.server, err);
    } else {
        bop_error_set(err, rc, "load TLS");
    }
    bop_buf_deinit(&answer);
    return rc;
}

/* Browsers ask people for a certificate as soon as they are asked: so they are only if it counts.
 */
static int open_http(struct bop_node *node, const struct bop_node_tls *options,
                     struct bop_error *err)
{
    static const char plain_answer[] = "HTTP/1.1 400 Bad Request\r\n"
                                       "Content-Type: text/plain\r\n"
                                       "Content-Length: 34\r\n"
                                       "Connection: close\r\n\r\n"
                                       "This port speaks TLS: use https.\r\n";
    static const enum bop_tls_verify verify[] = {
        [BOP_NODE_CERTIFICATES_NONE] = BOP_TLS_VERIFY_NONE,
        [BOP_NODE_CERTIFICATES_OPTIONAL] = BOP_TLS_VERIFY_OPTIONAL,
        [BOP_NODE_CERTIFICATES_REQUIRED] = BOP_TLS_VERIFY_REQUIRED,
    };
    static const char *const alpn[] = {"http/1.1", NULL};
    struct bop_tls_options tls = {
        .server = true,
        .identity = {.cert_file = options->certificate, .key_file = options->key},
        .ca_file = options->ca,
        .verify = verify[options->client_certificates],
        .alpn = alpn,
        .plain_answer = bop_slice_cstr(plain_answer),
    };

    return bop_tls_create(&tls, &node->tls.http, err);
}

static int open_peers(struct bop_node *node, const struct bop_node_tls *options,
                      struct bop_error *err)
{
    struct bop_tls_options tls = {
        .identity = {.cert_file = options->certificate, .key_file = options->key},
        .ca_file = options->ca,
    };

    return options->ca ? bop_tls_create(&tls, &node->tls.peers, err) : 0;
}

int bop__node_tls_open(struct bop_node *node, struct bop_error *err)
{
    const struct bop_node_tls *options = node->options.tls;
    const char *name;
    int rc;

    if (!options) {
        return 0;
    }
    name = options->node_name ? options->node_name : "bop-node-" ID_MARK;
    /* Room for the longest number. */
    if (strlen(name) + 20 >= sizeof(node->tls.name) || !strstr(name, ID_MARK)) {
        return bop_error_say(err, BOP_EINVAL,
                             "the name of nodes in certificates, \"%.80s\", has no " ID_MARK
                             " or is too long",
                             name);
    }
    if (!options->certificate || !options->key) {
        return bop_error_say(err, BOP_EINVAL, "TLS wants a certificate and its key");
    }
    memcpy(node->tls.name, name, strlen(name) + 1);
    node->tls.clients = options->client_certificates;
    rc = open_server(node, options, err);
    if (rc == 0) {
        rc = open_http(node, options, err);
    }
    if (rc == 0) {
        rc = open_peers(node, options, err);
    }
    node->options.tls = NULL; /* It is copied, and the caller's may go. */
    return rc;
}

void bop__node_tls_close(struct bop_node *node)
{
    bop_tls_destroy(node->tls.server);
    bop_tls_destroy(node->tls.http);
    bop_tls_destroy(node->tls.peers);
}

int bop_node_reload_tls(struct bop_node *node, struct bop_error *err)
{
    int rc = 0;

    if (node->tls.server) {
        rc = bop_tls_reload(node->tls.server, NULL, err);
    }
    if (rc == 0 && node->tls.http) {
        rc = bop_tls_reload(node->tls.http, NULL, err);
    }
    if (rc == 0 && node->tls.peers) {
        rc = bop_tls_reload(node->tls.peers, NULL, err);
    }
    return rc;
}

/* ---- Names ---- */

const char *bop__node_tls_name(const struct bop_node *node, uint64_t id, char out_name[HOST_MAX])
{
    const char *mark = strstr(node->tls.name, ID_MARK);

    snprintf(out_name, HOST_MAX, "%.*s%" PRIu64 "%s", (int)(mark - node->tls.name), node->tls.name,
             id, mark + strlen(ID_MARK));
    return out_name;
}

static bool same_name(const char *name, const char *text, size_t size)
{
    if (strlen(name) != size) {
        return false;
    }
    for (size_t n = 0; n < size; n++) {
        if (tolower((unsigned char)name[n]) != tolower((unsigned char)text[n])) {
            return false;
        }
    }
    return true;
}

/* Whether a list with commas holds a name. No wildcards: who may speak as a node is named. */
static bool has_name(const char *list, const char *name)
{
    while (*list) {
        size_t size = strcspn(list, ",");

        if (same_name(name, list, size)) {
            return true;
        }
        list += size + (list[size] == ',');
    }
    return false;
}

bool bop__node_tls_is_peer(const struct bop_node *node, const struct bop_socket *tcp, uint64_t id,
                           char *out_refusal, size_t size)
{
    struct bop_tls_certificate certificate;
    struct bop_tls_info info;
    char name[HOST_MAX];

    if (!node->tls.server) {
        return true; /* Without TLS whoever reaches the port is believed. */
    }
    bop__node_tls_name(node, id, name);
    if (bop_socket_tls_info(tcp, &info) < 0 || !info.peer_verified ||
        bop_socket_peer_certificate(tcp, &certificate) < 0) {
        snprintf(out_refusal, size,
                 "node %" PRIu64 " shows no certificate; it needs one with the "
                 "DNS name %s",
                 id, name);
        return false;
    }
    if (!has_name(certificate.names, name)) {
        snprintf(out_refusal, size, "the certificate of node %" PRIu64 " is for %.100s, not for %s",
                 id, certificate.names[0] ? certificate.names : "no name at all", name);
        return false;
    }
    return true;
}
