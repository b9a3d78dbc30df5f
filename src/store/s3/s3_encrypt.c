/*
 * Headers of server-side encryption. Names of keys go with what makes an
 * object; the customer's key goes with everything that touches one, since the
 * server forgets it at once.
 */
#include "s3.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define SSE "x-amz-server-side-encryption"

static int customer_headers(const struct s3 *s3, struct s3_request *request)
{
    uint8_t md5[EVP_MAX_MD_SIZE];
    char key[S3_BASE64_MAX], digest[S3_BASE64_MAX];
    int rc;

    /* Not for secrecy: the server wants it as a check of the key's way there. */
    if (EVP_Digest(s3->customer_key, 32, md5, NULL, EVP_md5(), NULL) != 1) {
        curl_slist_free_all(request->headers);
        request->headers = NULL;
        return BOP_EUNSUPPORTED; /* A libcrypto that is not to know MD5. */
    }
    bop__s3_base64(s3->customer_key, 32, key);
    bop__s3_base64(md5, 16, digest);
    rc = bop__s3_header(request, SSE "-customer-algorithm", "AES256");
    rc = rc < 0 ? rc : bop__s3_header(request, SSE "-customer-key", key);
    rc = rc < 0 ? rc : bop__s3_header(request, SSE "-customer-key-MD5", digest);
    OPENSSL_cleanse(key, sizeof(key));
    return rc;
}

/* The context is JSON, and goes in base64. */
static int kms_context_header(const struct s3 *s3, struct s3_request *request)
{
    unsigned char text[4 * ((S3_XML_TEXT_MAX + 2) / 3) + 1];

    EVP_EncodeBlock(text, (const unsigned char *)s3->kms_context, (int)strlen(s3->kms_context));
    return bop__s3_header(request, SSE "-context", (const char *)text);
}

int bop__s3_encrypt(const struct s3 *s3, struct s3_request *request, enum s3_encrypt_for what)
{
    int rc = 0;

    switch (s3->encryption) {
    case BOP_S3_ENCRYPTION_NONE:
        break;
    case BOP_S3_ENCRYPTION_S3:
        if (what == S3_ENCRYPT_CREATE) {
            rc = bop__s3_header(request, SSE, "AES256");
        }
        break;
    case BOP_S3_ENCRYPTION_KMS:
        if (what == S3_ENCRYPT_CREATE) {
            rc = bop__s3_header(request, SSE, "aws:kms");
            if (rc == 0 && s3->kms_key_id[0]) {
                rc = bop__s3_header(request, SSE "-aws-kms-key-id", s3->kms_key_id);
            }
            if (rc == 0 && s3->kms_context[0]) {
                rc = kms_context_header(s3, request);
            }
        }
        break;
    case BOP_S3_ENCRYPTION_CUSTOMER:
        rc = customer_headers(s3, request);
        break;
    }
    return rc;
}
