/*
 * A bop_tls: rules that never change, and identities that do.
 *
 * Each identity, the default one and those of names, is an SSL_CTX of its own,
 * counted by OpenSSL: a handshake takes a reference under `lock`, so that a
 * reload is one swap of pointers, and connections keep what they began with.
 *
 *      bop_tls --> set --> ctx (default)
 *         ^         \----> names, sorted: name -> ctx
 *         |
 *      streams, one reference each; another is the user's until bop_tls_destroy()
 *
 * `change` is held by whoever builds something new, which may read files; `lock`
 * only for the time of looking up and swapping. No callback is called with either.
 */
#ifndef BOP_NET_TLS_CONTEXT_H
#define BOP_NET_TLS_CONTEXT_H

#include <stdatomic.h>

#include <bop/tls.h>
#include <openssl/ssl.h>
#include <pthread.h>

#include "pem.h"
#include "sessions.h"
#include "tickets.h"

#define BOP__TLS_NAME_MAX 255 /* Of a host's name (RFC 1035), and of SNI's. */

/** An identity for a name, "*." first if for all names one label longer. */
struct bop__tls_name {
    char *name; /* Lower case, without a final dot. */
    struct bop__tls_source source;
    SSL_CTX *ctx;
};

/** What a reload exchanges. */
struct bop__tls_set {
    SSL_CTX *ctx;
    struct bop__tls_name *names; /* Sorted. */
    size_t count;
};

struct bop_tls {
    _Atomic unsigned references;
    bool server;
    bool tls13_only;
    bool no_tickets;
    enum bop_tls_verify verify; /* Not DEFAULT. */
    unsigned handshakes_per_turn;
    unsigned handshake_timeout_ms;
    bool (*on_unknown_name)(struct bop_tls *tls, const char *name, void *user);
    void *user;
    char *ca_file; /* Each NULL if not given. */
    char *ca_path;
    char *ciphers;
    char *ciphersuites;
    char *dh_file;
    struct bop_buf ca_pem;
    struct bop_buf plain_answer;
    struct bop_buf alpn; /* As on the wire: each with its length in front. */

    pthread_mutex_t change;
    struct bop__tls_source source; /* Of the default identity. Under `change`. */
    pthread_mutex_t lock;
    struct bop__tls_set set;
    struct bop__tls_tickets tickets;   /* Servers. */
    struct bop__tls_sessions sessions; /* Clients. */
};

/* ---- context.c: an SSL_CTX by the rules ---- */

/** What all contexts of one loading share. */
struct bop__tls_trust {
    X509_STORE *store;                 /* NULL: of the SSL_CTX itself, nobody is verified. */
    STACK_OF(X509_NAME) * authorities; /* Told to clients, by servers that verify. */
    EVP_PKEY *dh;                      /* Or NULL. */
    unsigned char session_id[32];      /* Sessions resume among those who trust the same. */
};

BOP_MUST_USE int bop__tls_trust_load(const struct bop_tls *tls, struct bop__tls_trust *out_trust,
                                     struct bop_error *err);
void bop__tls_trust_deinit(struct bop__tls_trust *trust);

/** source may be empty for clients. */
BOP_MUST_USE int bop__tls_context_create(struct bop_tls *tls, const struct bop__tls_trust *trust,
                                         const struct bop_tls_identity *source, SSL_CTX **out_ctx,
                                         struct bop_error *err);

/* ---- names.c: the sorted table ---- */

/** Lower case, no final dot. False: not a name, or a '*' that is not its whole first label. */
BOP_MUST_USE bool bop__tls_name_normalize(const char *name, bool wildcard_allowed,
                                          char out_name[BOP__TLS_NAME_MAX + 1]);
/** The place of a name, or where it would be inserted. */
BOP_MUST_USE bool bop__tls_set_find(const struct bop__tls_set *set, const char *name,
                                    size_t *out_index);
/** The context of a normal name, exact over wildcard; NULL: none. */
BOP_MUST_USE SSL_CTX *bop__tls_set_match(const struct bop__tls_set *set, const char *name);
/** Take over an entry; one of the same name is replaced. Returns 0 or BOP_ENOMEM (nothing taken).
 */
BOP_MUST_USE int bop__tls_set_put(struct bop__tls_set *set, const struct bop__tls_name *name);
void bop__tls_set_remove(struct bop__tls_set *set, const char *name);
void bop__tls_set_deinit(struct bop__tls_set *set);

/* ---- tls.c ---- */

/** The default context, with a reference for the caller. */
BOP_MUST_USE SSL_CTX *bop__tls_context(struct bop_tls *tls);
/** The bop_tls that a handshake is made by. */
BOP_MUST_USE struct bop_tls *bop__tls_of(const SSL *ssl);

/* ---- stream.c ---- */

/** The loop's time for a handshake. */
BOP_MUST_USE uint64_t bop__tls_now_ms(const SSL *ssl);
/** What a client keeps its session under; NULL: nothing. */
BOP_MUST_USE const char *bop__tls_session_name(const SSL *ssl);

#endif
