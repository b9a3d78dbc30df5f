/*
 * What a TLS socket agreed on, and who the peer is by its certificate.
 */
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "stream.h"

/* The stream of a socket whose handshake is done. */
static int find_stream(const struct bop_socket *socket, struct bop__tls_stream **out_stream)
{
    const struct bop__socket *sock = bop__socket_of(socket);

    if (sock == NULL) {
        return BOP_ECLOSED;
    }
    if (!sock->has_tls) {
        return BOP_EUNSUPPORTED;
    }
    *out_stream = sock->more->tls;
    return (*out_stream)->done ? 0 : BOP_EBUSY;
}

int bop_socket_tls_info(const struct bop_socket *socket, struct bop_tls_info *out_info)
{
    struct bop__tls_stream *stream;
    const unsigned char *alpn = NULL;
    unsigned alpn_size = 0;
    int rc = find_stream(socket, &stream);

    if (rc != 0) {
        return rc;
    }
    SSL_get0_alpn_selected(stream->ssl, &alpn, &alpn_size);
    *out_info = (struct bop_tls_info){
        .version = SSL_get_version(stream->ssl),
        .cipher = SSL_get_cipher_name(stream->ssl),
        .alpn = bop_slice(alpn, alpn_size),
        .server_name = SSL_get_servername(stream->ssl, TLSEXT_NAMETYPE_host_name),
        .resumed = SSL_session_reused(stream->ssl) == 1,
        .peer_verified = SSL_get0_peer_certificate(stream->ssl) != NULL &&
                         SSL_get_verify_result(stream->ssl) == X509_V_OK,
    };
    return 0;
}

/* ---- The certificate ---- */

static int find_certificate(const struct bop_socket *socket, X509 **out_certificate)
{
    struct bop__tls_stream *stream;
    int rc = find_stream(socket, &stream);

    if (rc != 0) {
        return rc;
    }
    *out_certificate = SSL_get0_peer_certificate(stream->ssl);
    return *out_certificate != NULL ? 0 : BOP_ENOTFOUND;
}

/* What a BIO holds, cut to fit. */
static void copy_from(BIO *bio, char *out, size_t out_size)
{
    char *data;
    long size = BIO_get_mem_data(bio, &data);
    size_t count = size > 0 ? bop_min_u64((size_t)size, out_size - 1) : 0;

    memcpy(out, data, count);
    out[count] = '\0';
}

static int copy_name(const X509_NAME *name, char *out, size_t out_size)
{
    BIO *bio = BIO_new(BIO_s_mem());

    /* It escapes what is not printable. */
    if (bio == NULL || X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) < 0) {
        BIO_free(bio);
        return BOP_ENOMEM;
    }
    copy_from(bio, out, out_size);
    BIO_free(bio);
    return 0;
}

/* A name with a control character in it, a NUL above all, is not what it seems:
 * it counts as none. */
static bool is_clean(const unsigned char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] < 0x20 || text[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static int copy_common_name(X509 *certificate, char *out, size_t out_size)
{
    X509_NAME *subject = X509_get_subject_name(certificate);
    int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *text = NULL;
    int size;

    out[0] = '\0';
    if (index < 0) {
        return 0;
    }
    size = ASN1_STRING_to_UTF8(&text,
                               X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
    if (size >= 0 && is_clean(text, (size_t)size)) {
        size_t count = bop_min_u64((size_t)size, out_size - 1);

        memcpy(out, text, count);
        out[count] = '\0';
    }
    OPENSSL_free(text);
    return 0;
}

/* Append ",name", if it fits whole. */
static void add_name(char *out, size_t out_size, const char *name, size_t size)
{
    size_t used = strlen(out);
    size_t comma = used > 0 ? 1 : 0;

    if (used + comma + size >= out_size) {
        return;
    }
    if (comma > 0) {
        out[used] = ',';
    }
    memcpy(out + used + comma, name, size);
    out[used + comma + size] = '\0';
}

static void add_address(char *out, size_t out_size, const ASN1_OCTET_STRING *address)
{
    char text[64];
    int family = ASN1_STRING_length(address) == 16 ? AF_INET6 : AF_INET;

    if ((ASN1_STRING_length(address) == 4 || family == AF_INET6) &&
        inet_ntop(family, ASN1_STRING_get0_data(address), text, sizeof(text)) != NULL) {
        add_name(out, out_size, text, strlen(text));
    }
}

static void copy_names(X509 *certificate, char *out, size_t out_size)
{
    GENERAL_NAMES *names = (GENERAL_NAMES *)X509_get_ext_d2i(certificate, NID_subject_alt_name,
                                                             NULL, NULL);

    out[0] = '\0';
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        int type;
        const void *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);

        if (type == GEN_IPADD) {
            add_address(out, out_size, (const ASN1_OCTET_STRING *)value);
        } else if (type == GEN_DNS) {
            const ASN1_STRING *name = (const ASN1_STRING *)value;
            size_t size = (size_t)ASN1_STRING_length(name);

            /* A comma would make two names of one. */
            if (is_clean(ASN1_STRING_get0_data(name), size) &&
                memchr(ASN1_STRING_get0_data(name), ',', size) == NULL) {
                add_name(out, out_size, (const char *)ASN1_STRING_get0_data(name), size);
            }
        }
    }
    GENERAL_NAMES_free(names);
}

static void to_hex(const unsigned char *bytes, size_t size, char *out, size_t out_size)
{
    static const char digits[] = "0123456789abcdef";
    size_t count = bop_min_u64(size, (out_size - 1) / 2);

    for (size_t i = 0; i < count; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * count] = '\0';
}

static int64_t to_unix(const ASN1_TIME *time)
{
    struct tm tm;

    return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static int copy_certificate(X509 *certificate, struct bop_tls_certificate *out)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
    unsigned char print[EVP_MAX_MD_SIZE];
    unsigned print_size = 0;
    int rc = copy_name(X509_get_subject_name(certificate), out->subject, sizeof(out->subject));

    if (rc == 0) {
        rc = copy_name(X509_get_issuer_name(certificate), out->issuer, sizeof(out->issuer));
    }
    if (rc == 0) {
        rc = copy_common_name(certificate, out->common_name, sizeof(out->common_name));
    }
    if (rc != 0 || X509_digest(certificate, EVP_sha256(), print, &print_size) != 1) {
        return BOP_ENOMEM;
    }
    copy_names(certificate, out->names, sizeof(out->names));
    to_hex(print, print_size, out->sha256, sizeof(out->sha256));
    to_hex(ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial), out->serial,
           sizeof(out->serial));
    out->not_before_s = to_unix(X509_get0_notBefore(certificate));
    out->not_after_s = to_unix(X509_get0_notAfter(certificate));
    return 0;
}

int bop_socket_peer_certificate(const struct bop_socket *socket,
                                struct bop_tls_certificate *out_certificate)
{
    struct bop_tls_certificate copy = {.not_before_s = 0};
    X509 *certificate;
    int rc = find_certificate(socket, &certificate);

    if (rc == 0) {
        rc = copy_certificate(certificate, &copy);
        ERR_clear_error();
    }
    if (rc == 0) {
        *out_certificate = copy;
    }
    return rc;
}

int bop_socket_peer_certificate_pem(const struct bop_socket *socket, struct bop_buf *buf)
{
    X509 *certificate;
    char *data;
    BIO *bio;
    long size;
    int rc = find_certificate(socket, &certificate);

    if (rc != 0) {
        return rc;
    }
    bio = BIO_new(BIO_s_mem());
    if (bio == NULL || PEM_write_bio_X509(bio, certificate) != 1) {
        ERR_clear_error();
        rc = BOP_ENOMEM;
    } else {
        size = BIO_get_mem_data(bio, &data);
        rc = bop_buf_append(buf, data, (size_t)size);
    }
    BIO_free(bio);
    return rc;
}
