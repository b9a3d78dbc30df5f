/*
 * TLS by OpenSSL 3 for sockets of bop/socket.h: certificates and rules in one
 * object that listeners and connections share.
 *
 * TLS 1.2 and 1.3, forward-secret AEAD ciphers only, no renegotiation, no
 * compression. Idle connections keep no buffers (SSL_MODE_RELEASE_BUFFERS).
 *
 * Reload swaps certificates for handshakes to come; connections go on with
 * what they began with. A reload that fails changes nothing.
 *
 * Threads: create, reload and destroy on any thread, one at a time for one
 * object; loops of several threads may use one object at once.
 */
#ifndef BOP_TLS_H
#define BOP_TLS_H

#include <bop/base.h>
#include <bop/error.h>
#include <bop/slice.h>

struct bop_tls;
struct bop_socket;

/** A certificate chain with its key, in PEM. Files win over memory. */
struct bop_tls_identity {
    const char *cert_file; /* Leaf first. */
    const char *key_file;
    struct bop_slice cert_pem;
    struct bop_slice key_pem;
    const char *passphrase; /* Of the key, or NULL. */
};

enum bop_tls_verify {
    BOP_TLS_VERIFY_DEFAULT =
        0, /* Clients: required; servers: required if a CA is given, else none. */
    BOP_TLS_VERIFY_NONE,
    BOP_TLS_VERIFY_OPTIONAL, /* Servers: ask; a certificate that is sent must be good. */
    BOP_TLS_VERIFY_REQUIRED,
};

struct bop_tls_options {
    bool server; /* Else for clients. */
    struct bop_tls_identity identity;
    const char *ca_file; /* Whom to trust. Clients without any: the system's. */
    const char *ca_path; /* A hashed directory. */
    struct bop_slice ca_pem;
    enum bop_tls_verify verify;
    const char *ciphers;      /* TLS 1.2, OpenSSL's syntax. Default: ECDHE with AEAD. */
    const char *ciphersuites; /* TLS 1.3. */
    const char *dh_file;      /* Optional DH parameters. */
    bool tls13_only;
    const char *const *alpn; /* In order of preference, NULL-terminated; NULL: none. */
    bool no_tickets;
    /* Servers: said, in the clear, to whoever begins with something that is not TLS. Copied. */
    struct bop_slice plain_answer;
    unsigned handshakes_per_turn;  /* Begun or continued in a loop's turn. Default 8. */
    unsigned handshake_timeout_ms; /* Default 10,000. */
    /* A name that no identity matches: add one with bop_tls_add_name() and return true, or false:
     * the default identity answers. Called on the loop's thread. */
    bool (*on_unknown_name)(struct bop_tls *tls, const char *name, void *user);
    void *user;
};

/** Load everything, or say in one line which file failed and why. */
BOP_API BOP_MUST_USE int bop_tls_create(const struct bop_tls_options *options,
                                        struct bop_tls **out_tls, struct bop_error *err);
/** Connections that use it go on. NULL is fine. */
BOP_API void bop_tls_destroy(struct bop_tls *tls);

/** Another identity for a name: "example.org" or "*.example.org" (one label). Replaces. */
BOP_API BOP_MUST_USE int bop_tls_add_name(struct bop_tls *tls, const char *name,
                                          const struct bop_tls_identity *identity,
                                          struct bop_error *err);
BOP_API void bop_tls_remove_name(struct bop_tls *tls, const char *name);

/** Read all files again, or take a new default identity (NULL: the old one's files). */
BOP_API BOP_MUST_USE int
bop_tls_reload(struct bop_tls *tls, const struct bop_tls_identity *identity, struct bop_error *err);

/** What a TLS socket agreed on. Strings are good as long as the socket. */
struct bop_tls_info {
    const char *version; /* "TLSv1.3" */
    const char *cipher;
    struct bop_slice alpn;   /* Empty: none. */
    const char *server_name; /* SNI, or NULL. */
    bool resumed;
    bool peer_verified; /* The peer sent a certificate and it is good. */
};
/** 0, BOP_EUNSUPPORTED on a plain socket, BOP_EBUSY before the handshake is done, BOP_ECLOSED. */
BOP_API BOP_MUST_USE int bop_socket_tls_info(const struct bop_socket *socket,
                                             struct bop_tls_info *out_info);

/** What the peer's certificate says. */
struct bop_tls_certificate {
    char subject[256]; /* RFC 2253 one line, cut. */
    char issuer[256];
    char common_name[128];
    char names[512];      /* DNS and IP names, comma-separated, cut. */
    char sha256[65];      /* Of the DER, hex. */
    char serial[64];      /* Hex. */
    int64_t not_before_s; /* Unix time. */
    int64_t not_after_s;
};
/** 0, BOP_ENOTFOUND (none was sent), and as bop_socket_tls_info(). */
BOP_API BOP_MUST_USE int bop_socket_peer_certificate(const struct bop_socket *socket,
                                                     struct bop_tls_certificate *out_certificate);
/** The certificate as PEM, appended to buf. As above, or BOP_ENOMEM. */
BOP_API BOP_MUST_USE int bop_socket_peer_certificate_pem(const struct bop_socket *socket,
                                                         struct bop_buf *buf);

#endif
