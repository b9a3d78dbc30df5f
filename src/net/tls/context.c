/*
 * An SSL_CTX by the rules of a bop_tls.
 *
 * All contexts of one bop_tls differ in certificate and key only: OpenSSL takes
 * no more than those over when SNI changes the context of a handshake.
 */
#include "context.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <string.h>

/* Forward secrecy and authenticated encryption, the cheaper cipher first. */
#define CIPHERS_DEFAULT                                                                            \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"                                   \
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"                                   \
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
/* Who gives DH parameters wants them used, by those who have no elliptic curves. */
#define CIPHERS_DH                                                                                 \
    CIPHERS_DEFAULT ":DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:"                        \
                    "DHE-RSA-CHACHA20-POLY1305"
#define CIPHERSUITES_DEFAULT                                                                       \
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define GROUPS "X25519:P-256:P-384"

/* 112 bits: RSA and DH from 2048 bits, no SHA-1. */
#define SECURITY_LEVEL 2
/* Certificates between a leaf and whom we trust. */
#define CHAIN_DEPTH_MAX 10

/* Tickets of a full handshake: a client takes one for each connection, and asks
 * again by making them. */
#define TICKETS_PER_HANDSHAKE 2

#define OPTIONS                                                                                    \
    (SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |           \
     SSL_OP_PRIORITIZE_CHACHA)

/* ---- Whom to trust ---- */

static int add_authorities(const struct bop_tls *tls, struct bop__tls_trust *trust,
                           EVP_MD_CTX *digest, const char *file, struct bop_slice memory,
                           struct bop_error *err)
{
    STACK_OF(X509) * certificates;
    int rc = bop__tls_load_certificates(file, memory, "the CA in memory", &certificates, err);

    if (rc != 0) {
        return rc;
    }
    for (int i = 0; i < sk_X509_num(certificates) && rc == 0; i++) {
        X509 *certificate = sk_X509_value(certificates, i);
        unsigned char print[EVP_MAX_MD_SIZE];
        unsigned int size = 0;

        if (X509_STORE_add_cert(trust->store, certificate) != 1 ||
            X509_digest(certificate, EVP_sha256(), print, &size) != 1 ||
            EVP_DigestUpdate(digest, print, size) != 1) {
            rc = BOP_ENOMEM;
        } else if (tls->server) {
            X509_NAME *name = X509_NAME_dup(X509_get_subject_name(certificate));

            if (name == NULL || sk_X509_NAME_push(trust->authorities, name) == 0) {
                X509_NAME_free(name);
                rc = BOP_ENOMEM;
            }
        }
    }
    sk_X509_pop_free(certificates, X509_free);
    return rc == 0 ? 0
                   : bop_error_set(err, rc, "take %s", file != NULL ? file : "the CA in memory");
}

static int load_store(const struct bop_tls *tls, struct bop__tls_trust *trust, EVP_MD_CTX *digest,
                      struct bop_error *err)
{
    int rc = 0;

    if (tls->ca_file != NULL) {
        rc = add_authorities(tls, trust, digest, tls->ca_file, bop_slice(NULL, 0), err);
    } else if (tls->ca_pem.size > 0) {
        rc = add_authorities(tls, trust, digest, NULL, bop_buf_slice(&tls->ca_pem), err);
    } else if (tls->ca_path == NULL && X509_STORE_set_default_paths(trust->store) != 1) {
        rc = bop_error_say(err, BOP_ETLS, "the system's CA certificates: %s",
                           bop__tls_openssl_reason());
    }
    if (rc == 0 && tls->ca_path != NULL) {
        if (X509_STORE_load_path(trust->store, tls->ca_path) != 1 ||
            EVP_DigestUpdate(digest, tls->ca_path, strlen(tls->ca_path)) != 1) {
            rc = bop_error_say(err, BOP_ETLS, "%s: %s", tls->ca_path, bop__tls_openssl_reason());
        }
    }
    return rc;
}

static int load_trust(const struct bop_tls *tls, struct bop__tls_trust *trust, EVP_MD_CTX *digest,
                      struct bop_error *err)
{
    unsigned int size = 0;
    int rc = 0;

    trust->store = X509_STORE_new();
    trust->authorities = sk_X509_NAME_new_null();
    if (digest == NULL || trust->store == NULL || trust->authorities == NULL ||
        EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(digest, &tls->verify, sizeof(tls->verify)) != 1) {
        return bop_error_set(err, BOP_ENOMEM, "load TLS");
    }
    if (tls->verify != BOP_TLS_VERIFY_NONE || tls->ca_file != NULL || tls->ca_pem.size > 0) {
        rc = load_store(tls, trust, digest, err);
    }
    if (rc == 0 && EVP_DigestFinal_ex(digest, trust->session_id, &size) != 1) {
        rc = bop_error_set(err, BOP_ENOMEM, "load TLS");
    }
    if (rc == 0 && tls->dh_file != NULL) {
        rc = bop__tls_load_dh(tls->dh_file, &trust->dh, err);
    }
    return rc;
}

int bop__tls_trust_load(const struct bop_tls *tls, struct bop__tls_trust *out_trust,
                        struct bop_error *err)
{
    struct bop__tls_trust trust = {.store = NULL};
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    int rc = load_trust(tls, &trust, digest, err);

    EVP_MD_CTX_free(digest);
    if (rc != 0) {
        bop__tls_trust_deinit(&trust);
        return rc;
    }
    *out_trust = trust;
    return 0;
}

void bop__tls_trust_deinit(struct bop__tls_trust *trust)
{
    X509_STORE_free(trust->store);
    sk_X509_NAME_pop_free(trust->authorities, X509_NAME_free);
    EVP_PKEY_free(trust->dh);
    memset(trust, 0, sizeof(*trust));
}

/* ---- Callbacks of OpenSSL ---- */

/* Ours first. None in common ends the handshake, as RFC 7301 demands. */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                       const unsigned char *offered, unsigned int offered_size,
                       BOP_UNUSED void *user)
{
    const struct bop_tls *tls = bop__tls_of(ssl);
    unsigned char *chosen;

    if (SSL_select_next_proto(&chosen, out_size, tls->alpn.data, (unsigned)tls->alpn.size, offered,
                              offered_size) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int use_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                          EVP_MAC_CTX *mac, int seal)
{
    return bop__tls_tickets_use(&bop__tls_of(ssl)->tickets, bop__tls_now_ms(ssl), name, iv, cipher,
                                mac, seal != 0);
}

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    const char *name = bop__tls_session_name(ssl);

    return name != NULL && SSL_SESSION_is_resumable(session) &&
           bop__tls_sessions_put(&bop__tls_of(ssl)->sessions, name, session);
}

/* A lookup of the identity for a name, with a reference. */
static SSL_CTX *match(struct bop_tls *tls, const char *name)
{
    SSL_CTX *ctx;

    pthread_mutex_lock(&tls->lock);
    ctx = bop__tls_set_match(&tls->set, name);
    if (ctx != NULL) {
        SSL_CTX_up_ref(ctx);
    }
    pthread_mutex_unlock(&tls->lock);
    return ctx;
}

static int choose_identity(SSL *ssl, BOP_UNUSED int *alert, BOP_UNUSED void *user)
{
    const char *given = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    struct bop_tls *tls = bop__tls_of(ssl);
    char name[BOP__TLS_NAME_MAX + 1];
    SSL_CTX *ctx;

    if (given == NULL || !bop__tls_name_normalize(given, false, name)) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    ctx = match(tls, name);
    if (ctx == NULL && tls->on_unknown_name != NULL && tls->on_unknown_name(tls, name, tls->user)) {
        ctx = match(tls, name);
    }
    if (ctx == NULL) {
        return SSL_TLSEXT_ERR_OK; /* The default identity: its certificate tells the client. */
    }
    SSL_set_SSL_CTX(ssl, ctx); /* Takes a reference of its own. */
    SSL_CTX_free(ctx);
    return SSL_TLSEXT_ERR_OK;
}

/* ---- Rules ---- */

static int say(struct bop_error *err, const char *what)
{
    return bop_error_say(err, BOP_ETLS, "%s: %s", what, bop__tls_openssl_reason());
}

static int set_ciphers(const struct bop_tls *tls, SSL_CTX *ctx, struct bop_error *err)
{
    const char *ciphers = tls->ciphers != NULL   ? tls->ciphers
                          : tls->dh_file != NULL ? CIPHERS_DH
                                                 : CIPHERS_DEFAULT;
    const char *suites = tls->ciphersuites != NULL ? tls->ciphersuites : CIPHERSUITES_DEFAULT;

    if (SSL_CTX_set_cipher_list(ctx, ciphers) != 1) {
        return bop_error_say(err, BOP_ETLS, "ciphers \"%s\": %s", ciphers,
                             bop__tls_openssl_reason());
    }
    if (SSL_CTX_set_ciphersuites(ctx, suites) != 1) {
        return bop_error_say(err, BOP_ETLS, "cipher suites \"%s\": %s", suites,
                             bop__tls_openssl_reason());
    }
    if (SSL_CTX_set1_groups_list(ctx, GROUPS) != 1) {
        return say(err, "groups " GROUPS);
    }
    return 0;
}

static int set_server(struct bop_tls *tls, const struct bop__tls_trust *trust, SSL_CTX *ctx,
                      struct bop_error *err)
{
    STACK_OF(X509_NAME) * authorities;

    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(ctx, BOP__TLS_TICKET_LIFE_S);
    if (SSL_CTX_set_session_id_context(ctx, trust->session_id, sizeof(trust->session_id)) != 1 ||
        SSL_CTX_set_num_tickets(ctx, tls->no_tickets ? 0 : TICKETS_PER_HANDSHAKE) != 1 ||
        SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, use_ticket_key) != 1) {
        return say(err, "session tickets");
    }
    if (tls->no_tickets) {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    }
    SSL_CTX_set_tlsext_servername_callback(ctx, choose_identity);
    if (tls->alpn.size > 0) {
        SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, NULL);
    }
    if (trust->dh != NULL) {
        if (EVP_PKEY_up_ref(trust->dh) != 1 || SSL_CTX_set0_tmp_dh_pkey(ctx, trust->dh) != 1) {
            EVP_PKEY_free(trust->dh);
            return say(err, tls->dh_file);
        }
    }
    if (tls->verify != BOP_TLS_VERIFY_NONE) {
        authorities = SSL_dup_CA_list(trust->authorities);
        if (authorities == NULL) {
            return bop_error_set(err, BOP_ENOMEM, "load TLS");
        }
        SSL_CTX_set_client_CA_list(ctx, authorities);
    }
    return 0;
}

static int set_client(struct bop_tls *tls, SSL_CTX *ctx, struct bop_error *err)
{
    if (tls->no_tickets) {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    } else {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ctx, keep_session);
    }
    /* Unlike its siblings it returns 0 for success. */
    if (tls->alpn.size > 0 &&
        SSL_CTX_set_alpn_protos(ctx, tls->alpn.data, (unsigned)tls->alpn.size) != 0) {
        return say(err, "ALPN");
    }
    return 0;
}

static int set_rules(struct bop_tls *tls, const struct bop__tls_trust *trust, SSL_CTX *ctx,
                     struct bop_error *err)
{
    int mode = SSL_VERIFY_NONE;

    SSL_CTX_set_security_level(ctx, SECURITY_LEVEL);
    SSL_CTX_set_options(ctx, OPTIONS);
    /* Whatever the system's configuration says; older ones are not spoken at all. */
    SSL_CTX_set_min_proto_version(ctx, tls->tls13_only ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(ctx, 0);
    /* AUTO_RETRY: after a ticket it reads on, as far as there are bytes. */
    SSL_CTX_set_mode(ctx, SSL_MODE_AUTO_RETRY | SSL_MODE_RELEASE_BUFFERS |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 0);
    SSL_CTX_set_verify_depth(ctx, CHAIN_DEPTH_MAX);
    if (tls->verify == BOP_TLS_VERIFY_REQUIRED) {
        mode = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    } else if (tls->verify == BOP_TLS_VERIFY_OPTIONAL) {
        mode = SSL_VERIFY_PEER;
    }
    SSL_CTX_set_verify(ctx, mode, NULL);
    SSL_CTX_set1_cert_store(ctx, trust->store);
    SSL_CTX_set_app_data(ctx, tls);
    return set_ciphers(tls, ctx, err);
}

static int use_identity(SSL_CTX *ctx, const struct bop_tls_identity *source, struct bop_error *err)
{
    const char *origin = source->cert_file != NULL ? source->cert_file
                                                   : "the certificate in memory";
    struct bop__tls_identity identity;
    int rc = bop__tls_identity_load(source, &identity, err);

    if (rc != 0) {
        return rc;
    }
    if (SSL_CTX_use_cert_and_key(ctx, identity.leaf, identity.key, identity.chain, 1) != 1) {
        rc = say(err, origin); /* A key that is too small, for example. */
    }
    bop__tls_identity_deinit(&identity);
    return rc;
}

int bop__tls_context_create(struct bop_tls *tls, const struct bop__tls_trust *trust,
                            const struct bop_tls_identity *source, SSL_CTX **out_ctx,
                            struct bop_error *err)
{
    SSL_CTX *ctx = SSL_CTX_new(tls->server ? TLS_server_method() : TLS_client_method());
    int rc;

    if (ctx == NULL) {
        return say(err, "make a TLS context");
    }
    rc = set_rules(tls, trust, ctx, err);
    if (rc == 0) {
        rc = tls->server ? set_server(tls, trust, ctx, err) : set_client(tls, ctx, err);
    }
    if (rc == 0 && (source->cert_file != NULL || source->cert_pem.size > 0)) {
        rc = use_identity(ctx, source, err);
    }
    if (rc != 0) {
        SSL_CTX_free(ctx);
        return rc;
    }
    *out_ctx = ctx;
    return 0;
}
