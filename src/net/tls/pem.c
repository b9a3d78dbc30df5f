/*
 * PEM texts are read whole and parsed from memory, so that files and memory
 * take one path, and so that a file which is being replaced is either the old
 * one or the new one for all that is read from it.
 */
#include <bop/fs.h>
#include <bop/tls.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "pem.h"

/* A bundle of all public authorities has 0.2 MiB. */
#define PEM_BYTES_MAX (16u << 20)

/** A text being parsed. */
struct pem {
    const char *origin; /* The file, or what it is if from memory. */
    struct bop_buf text;
    BIO *bio;
};

const char *bop__tls_openssl_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    ERR_clear_error();
    return reason != NULL ? reason : "unknown error";
}

/* ---- Copies of what the user gave ---- */

static char *copy_text(const char *text, bool *failed)
{
    char *copy;

    if (text == NULL || *failed) {
        return NULL;
    }
    copy = OPENSSL_strdup(text);
    *failed = copy == NULL;
    return copy;
}

int bop__tls_source_copy(struct bop__tls_source *source, const struct bop_tls_identity *identity)
{
    bool failed = false;

    memset(source, 0, sizeof(*source));
    bop_buf_init(&source->cert_pem, NULL, 0);
    bop_buf_init(&source->key_pem, NULL, 0);
    source->cert_file = copy_text(identity->cert_file, &failed);
    source->key_file = copy_text(identity->key_file, &failed);
    source->passphrase = copy_text(identity->passphrase, &failed);
    if (failed ||
        bop_buf_append(&source->cert_pem, identity->cert_pem.data, identity->cert_pem.size) != 0 ||
        bop_buf_append(&source->key_pem, identity->key_pem.data, identity->key_pem.size) != 0) {
        bop__tls_source_deinit(source);
        return BOP_ENOMEM;
    }
    return 0;
}

struct bop_tls_identity bop__tls_source_view(const struct bop__tls_source *source)
{
    return (struct bop_tls_identity){
        .cert_file = source->cert_file,
        .key_file = source->key_file,
        .cert_pem = bop_buf_slice(&source->cert_pem),
        .key_pem = bop_buf_slice(&source->key_pem),
        .passphrase = source->passphrase,
    };
}

/* Keys do not stay behind in freed memory. */
static void wipe(struct bop_buf *buf)
{
    if (buf->data != NULL) {
        OPENSSL_cleanse(buf->data, buf->capacity);
        bop_buf_deinit(buf);
    }
}

void bop__tls_source_deinit(struct bop__tls_source *source)
{
    OPENSSL_free(source->cert_file);
    OPENSSL_free(source->key_file);
    if (source->passphrase != NULL) {
        OPENSSL_clear_free(source->passphrase, strlen(source->passphrase));
    }
    wipe(&source->cert_pem);
    wipe(&source->key_pem);
    memset(source, 0, sizeof(*source));
}

/* ---- Parsing ---- */

static void pem_close(struct pem *pem)
{
    BIO_free(pem->bio);
    wipe(&pem->text);
}

/* Read a file, or copy memory. */
static int pem_open(struct pem *pem, const char *file, struct bop_slice memory, const char *what,
                    struct bop_error *err)
{
    int rc;

    pem->origin = file != NULL ? file : what;
    pem->bio = NULL;
    bop_buf_init(&pem->text, NULL, 0);
    ERR_clear_error();
    if (file != NULL) {
        rc = bop_fs_read_file(bop_fs_real(), file, PEM_BYTES_MAX, &pem->text);
    } else {
        rc = bop_buf_append(&pem->text, memory.data, memory.size);
    }
    if (rc == 0 && pem->text.size > PEM_BYTES_MAX) {
        rc = BOP_ETOOBIG;
    }
    if (rc == 0) {
        rc = bop_buf_append(&pem->text, "", 1); /* For strstr(), and an empty file has data too. */
    }
    if (rc != 0) {
        wipe(&pem->text);
        return bop_error_set(err, rc, "read %s", pem->origin);
    }
    pem->bio = BIO_new_mem_buf(pem->text.data, (int)pem->text.size - 1);
    if (pem->bio == NULL) {
        wipe(&pem->text);
        return bop_error_set(err, BOP_ENOMEM, "read %s", pem->origin);
    }
    return 0;
}

/* Nobody is asked on the terminal. */
static int no_passphrase(BOP_UNUSED char *buffer, BOP_UNUSED int size, BOP_UNUSED int writing,
                         BOP_UNUSED void *user)
{
    return -1;
}

static bool was_end_of_pem(void)
{
    unsigned long error = ERR_peek_last_error();

    return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

static void free_certificates(STACK_OF(X509) * certificates)
{
    sk_X509_pop_free(certificates, X509_free);
}

static int parse_certificates(struct pem *pem, STACK_OF(X509) * certificates, struct bop_error *err)
{
    X509 *certificate;

    while ((certificate = PEM_read_bio_X509(pem->bio, NULL, no_passphrase, NULL)) != NULL) {
        if (sk_X509_push(certificates, certificate) == 0) {
            X509_free(certificate);
            return bop_error_set(err, BOP_ENOMEM, "read %s", pem->origin);
        }
    }
    if (!was_end_of_pem()) {
        return bop_error_say(err, BOP_ETLS, "%s: a certificate is broken: %s", pem->origin,
                             bop__tls_openssl_reason());
    }
    ERR_clear_error();
    if (sk_X509_num(certificates) == 0) {
        return bop_error_say(err, BOP_ETLS, "%s: not PEM, or no certificate in it", pem->origin);
    }
    return 0;
}

int bop__tls_load_certificates(const char *file, struct bop_slice memory, const char *what,
                               STACK_OF(X509) * *out_certificates, struct bop_error *err)
{
    STACK_OF(X509) * certificates;
    struct pem pem;
    int rc = pem_open(&pem, file, memory, what, err);

    if (rc != 0) {
        return rc;
    }
    certificates = sk_X509_new_null();
    rc = certificates != NULL ? parse_certificates(&pem, certificates, err)
                              : bop_error_set(err, BOP_ENOMEM, "read %s", pem.origin);
    pem_close(&pem);
    if (rc != 0) {
        free_certificates(certificates);
        return rc;
    }
    *out_certificates = certificates;
    return 0;
}

/** What the key's passphrase is, and whether it was needed. */
struct asked {
    const char *passphrase;
    bool was_asked;
};

static int give_passphrase(char *buffer, int size, BOP_UNUSED int writing, void *user)
{
    struct asked *asked = (struct asked *)user;
    size_t length = asked->passphrase != NULL ? strlen(asked->passphrase) : 0;

    asked->was_asked = true;
    if (asked->passphrase == NULL || length > (size_t)size) {
        return -1;
    }
    memcpy(buffer, asked->passphrase, length);
    return (int)length;
}

static int parse_key(struct pem *pem, const char *passphrase, EVP_PKEY **out_key,
                     struct bop_error *err)
{
    struct asked asked = {.passphrase = passphrase, .was_asked = false};
    EVP_PKEY *key = PEM_read_bio_PrivateKey(pem->bio, NULL, give_passphrase, &asked);

    if (key != NULL) {
        *out_key = key;
        return 0;
    }
    if (asked.was_asked) {
        ERR_clear_error();
        return bop_error_say(err, BOP_ETLS, "%s: %s", pem->origin,
                             passphrase != NULL ? "the passphrase is wrong"
                                                : "the key is encrypted and no passphrase given");
    }
    if (strstr((const char *)pem->text.data, "PRIVATE KEY-----") == NULL) {
        ERR_clear_error();
        return bop_error_say(err, BOP_ETLS, "%s: not PEM, or no private key in it", pem->origin);
    }
    return bop_error_say(err, BOP_ETLS, "%s: the private key is broken: %s", pem->origin,
                         bop__tls_openssl_reason());
}

/* One text may hold both: then no key is named. */
static int load_key(const struct bop_tls_identity *source, EVP_PKEY **out_key,
                    struct bop_error *err)
{
    const char *file = source->key_file;
    struct bop_slice memory = source->key_pem;
    const char *what = "the key in memory";
    struct pem pem;
    int rc;

    if (file == NULL && memory.size == 0) {
        file = source->cert_file;
        memory = source->cert_pem;
        what = "the certificate in memory";
    }
    rc = pem_open(&pem, file, memory, what, err);
    if (rc != 0) {
        return rc;
    }
    rc = parse_key(&pem, source->passphrase, out_key, err);
    pem_close(&pem);
    return rc;
}

int bop__tls_load_dh(const char *file, EVP_PKEY **out_parameters, struct bop_error *err)
{
    struct pem pem;
    int rc = pem_open(&pem, file, bop_slice(NULL, 0), "DH", err);

    if (rc != 0) {
        return rc;
    }
    *out_parameters = PEM_read_bio_Parameters(pem.bio, NULL);
    if (*out_parameters == NULL || !EVP_PKEY_is_a(*out_parameters, "DH")) {
        EVP_PKEY_free(*out_parameters);
        ERR_clear_error();
        rc = bop_error_say(err, BOP_ETLS, "%s: not PEM, or no DH parameters in it", file);
    }
    pem_close(&pem);
    return rc;
}

/* ---- An identity ---- */

static int check_dates(const X509 *leaf, const char *origin, struct bop_error *err)
{
    const ASN1_TIME *after = X509_get0_notAfter(leaf);
    const ASN1_TIME *before = X509_get0_notBefore(leaf);
    const ASN1_TIME *wrong = NULL;
    const char *what = "";
    char day[32] = "?";
    struct tm tm;

    if (X509_cmp_current_time(after) < 0) {
        wrong = after;
        what = "expired on";
    } else if (X509_cmp_current_time(before) > 0) {
        wrong = before;
        what = "is not good before";
    }
    if (wrong == NULL) {
        return 0;
    }
    if (ASN1_TIME_to_tm(wrong, &tm) == 1) {
        strftime(day, sizeof(day), "%Y-%m-%d %H:%M:%S UTC", &tm);
    }
    return bop_error_say(err, BOP_ETLS, "%s: the certificate %s %s", origin, what, day);
}

static int check_identity(const struct bop__tls_identity *identity,
                          const struct bop_tls_identity *source, struct bop_error *err)
{
    const char *cert = source->cert_file != NULL ? source->cert_file : "the certificate in memory";
    const char *key = source->key_file != NULL   ? source->key_file
                      : source->key_pem.size > 0 ? "the key in memory"
                                                 : cert;

    if (X509_check_private_key(identity->leaf, identity->key) != 1) {
        ERR_clear_error();
        return bop_error_say(err, BOP_ETLS, "%s: the key does not belong to the certificate of %s",
                             key, cert);
    }
    return check_dates(identity->leaf, cert, err);
}

int bop__tls_identity_load(const struct bop_tls_identity *source,
                           struct bop__tls_identity *out_identity, struct bop_error *err)
{
    struct bop__tls_identity identity = {.leaf = NULL};
    int rc;

    rc = bop__tls_load_certificates(source->cert_file, source->cert_pem,
                                    "the certificate in memory", &identity.chain, err);
    if (rc == 0) {
        identity.leaf = sk_X509_shift(identity.chain);
        rc = load_key(source, &identity.key, err);
    }
    if (rc == 0) {
        rc = check_identity(&identity, source, err);
    }
    if (rc != 0) {
        bop__tls_identity_deinit(&identity);
        return rc;
    }
    *out_identity = identity;
    return 0;
}

void bop__tls_identity_deinit(struct bop__tls_identity *identity)
{
    X509_free(identity->leaf);
    free_certificates(identity->chain);
    EVP_PKEY_free(identity->key);
    memset(identity, 0, sizeof(*identity));
}
