/*
 * Certificates and keys out of PEM, from files or memory, with errors that say
 * in one line which of them is bad and why.
 */
#ifndef BOP_NET_TLS_PEM_H
#define BOP_NET_TLS_PEM_H

#include <bop/error.h>
#include <bop/slice.h>
#include <openssl/ssl.h>

/** What a bop_tls_identity holds, copied, so that it can be loaded again. Zeroed: nothing. */
struct bop__tls_source {
    char *cert_file; /* Each NULL if not given. */
    char *key_file;
    char *passphrase;
    struct bop_buf cert_pem;
    struct bop_buf key_pem;
};

/** Copy. Returns 0 or BOP_ENOMEM, with nothing to free then. */
BOP_MUST_USE int bop__tls_source_copy(struct bop__tls_source *source,
                                      const struct bop_tls_identity *identity);
/** As an identity that borrows the copy. */
struct bop_tls_identity bop__tls_source_view(const struct bop__tls_source *source);
/** Wipe and free. A zeroed one is fine. */
void bop__tls_source_deinit(struct bop__tls_source *source);
static inline bool bop__tls_source_is_empty(const struct bop__tls_source *source)
{
    return source->cert_file == NULL && source->cert_pem.size == 0;
}

/** A certificate, those that vouch for it, and its key. */
struct bop__tls_identity {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
};

/** Load, and check that the key fits and that the certificate is good today. */
BOP_MUST_USE int bop__tls_identity_load(const struct bop_tls_identity *source,
                                        struct bop__tls_identity *out_identity,
                                        struct bop_error *err);
void bop__tls_identity_deinit(struct bop__tls_identity *identity);

/** All certificates of a file, or of memory if file is NULL; at least one. */
BOP_MUST_USE int bop__tls_load_certificates(const char *file, struct bop_slice memory,
                                            const char *what, STACK_OF(X509) * *out_certificates,
                                            struct bop_error *err);
/** Diffie-Hellman parameters. */
BOP_MUST_USE int bop__tls_load_dh(const char *file, EVP_PKEY **out_parameters,
                                  struct bop_error *err);

/** The newest error OpenSSL has noted, as text, and forget them all. */
const char *bop__tls_openssl_reason(void);

#endif
