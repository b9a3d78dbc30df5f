/*
 * Certificates for tests, made when they run: none is committed, none expires.
 */
#ifndef BOP_TESTS_NET_TLS_CERTS_H
#define BOP_TESTS_NET_TLS_CERTS_H

#include <bop/slice.h>
#include <openssl/x509.h>

/** A certificate with its key, and both as PEM. */
struct cert {
    X509 *x509;
    EVP_PKEY *key;
    char *pem; /* NUL-terminated. */
    char *key_pem;
};

struct cert_options {
    const char *name;          /* Common name. */
    const char *alternatives;  /* "DNS:a.test,IP:127.0.0.1", or NULL. */
    const struct cert *issuer; /* NULL: signed by itself, and an authority. */
    int from_days;             /* From today; default: yesterday. */
    int to_days;               /* Default: in ten days. */
    bool rsa;                  /* 2048 bits; else P-256. */
    int rsa_bits;              /* Instead of 2048. */
    const char *passphrase;    /* Encrypts key_pem. */
};

struct cert cert_make(const struct cert_options *options);
void cert_free(struct cert *cert);

/** Write a text to a new file in the directory; the path lives as long as it. */
const char *cert_write(const char *directory, const char *name, const char *text);

static inline struct bop_slice cert_pem(const struct cert *cert)
{
    return bop_slice_cstr(cert->pem);
}

static inline struct bop_slice cert_key_pem(const struct cert *cert)
{
    return bop_slice_cstr(cert->key_pem);
}

#endif
