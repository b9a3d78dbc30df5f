#include "certs.h"

#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

#include "tap.h"

static EVP_PKEY *make_key(const struct cert_options *options)
{
    size_t bits = options->rsa_bits != 0 ? (size_t)options->rsa_bits : 2048;

    return options->rsa ? EVP_RSA_gen((unsigned)bits) : EVP_EC_gen("P-256");
}

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    REQUIRE(extension != NULL);
    REQUIRE(X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static void set_names(X509 *certificate, const struct cert_options *options)
{
    X509_NAME *name = X509_get_subject_name(certificate);
    const X509 *issuer = options->issuer != NULL ? options->issuer->x509 : certificate;
    unsigned char serial[8];
    BIGNUM *number;

    REQUIRE(X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"Tests", -1,
                                       -1, 0) == 1);
    REQUIRE(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                       (const unsigned char *)options->name, -1, -1, 0) == 1);
    REQUIRE(X509_set_issuer_name(certificate, X509_get_subject_name(issuer)) == 1);
    REQUIRE(RAND_bytes(serial, sizeof(serial)) == 1);
    serial[0] = (serial[0] & 0x7f) | 0x10;
    number = BN_bin2bn(serial, sizeof(serial), NULL);
    REQUIRE(BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL);
    BN_free(number);
}

static char *to_text(BIO *bio)
{
    char *data, *text;
    long size = BIO_get_mem_data(bio, &data);

    text = malloc((size_t)size + 1);
    REQUIRE(text != NULL);
    memcpy(text, data, (size_t)size);
    text[size] = '\0';
    BIO_free(bio);
    return text;
}

static void write_pem(struct cert *cert, const char *passphrase)
{
    BIO *bio = BIO_new(BIO_s_mem());

    REQUIRE(PEM_write_bio_X509(bio, cert->x509) == 1);
    cert->pem = to_text(bio);
    bio = BIO_new(BIO_s_mem());
    REQUIRE(PEM_write_bio_PKCS8PrivateKey(
                bio, cert->key, passphrase != NULL ? EVP_aes_256_cbc() : NULL, passphrase,
                passphrase != NULL ? (int)strlen(passphrase) : 0, NULL, NULL) == 1);
    cert->key_pem = to_text(bio);
}

struct cert cert_make(const struct cert_options *options)
{
    struct cert cert = {.x509 = X509_new(), .key = make_key(options)};
    X509 *issuer = options->issuer != NULL ? options->issuer->x509 : cert.x509;
    EVP_PKEY *issuer_key = options->issuer != NULL ? options->issuer->key : cert.key;
    int from = options->from_days != 0 ? options->from_days : -1;
    int to = options->to_days != 0 ? options->to_days : 10;

    REQUIRE(cert.x509 != NULL && cert.key != NULL);
    REQUIRE(X509_set_version(cert.x509, X509_VERSION_3) == 1);
    set_names(cert.x509, options);
    REQUIRE(X509_gmtime_adj(X509_getm_notBefore(cert.x509), from * 86400L) != NULL);
    REQUIRE(X509_gmtime_adj(X509_getm_notAfter(cert.x509), to * 86400L) != NULL);
    REQUIRE(X509_set_pubkey(cert.x509, cert.key) == 1);
    add_extension(cert.x509, issuer, NID_basic_constraints,
                  options->issuer == NULL ? "critical,CA:TRUE" : "critical,CA:FALSE");
    add_extension(cert.x509, issuer, NID_subject_key_identifier, "hash");
    if (options->alternatives != NULL) {
        add_extension(cert.x509, issuer, NID_subject_alt_name, options->alternatives);
    }
    REQUIRE(X509_sign(cert.x509, issuer_key, EVP_sha256()) > 0);
    write_pem(&cert, options->passphrase);
    return cert;
}

void cert_free(struct cert *cert)
{
    X509_free(cert->x509);
    EVP_PKEY_free(cert->key);
    free(cert->pem);
    free(cert->key_pem);
    memset(cert, 0, sizeof(*cert));
}

const char *cert_write(const char *directory, const char *name, const char *text)
{
    const char *path = test_path(directory, name);
    FILE *file = fopen(path, "w");

    REQUIRE(file != NULL);
    REQUIRE(fputs(text, file) >= 0);
    REQUIRE_EQ(fclose(file), 0);
    return path;
}
