/*
 * What an answer means: a code, whether another attempt may help, and a
 * sentence that says what was being done, to what, what happened and what to do
 * about it. One line, whatever the server sent.
 */
#include "s3.h"

#include <stdio.h>
#include <strings.h>

#define KEY_SHOWN 160 /* Bytes of a key in a message. */

enum hint {
    HINT_NONE,
    HINT_BUCKET,
    HINT_REGION,
    HINT_CREDENTIALS,
    HINT_TOKEN,
    HINT_RIGHTS,
    HINT_CLOCK,
    HINT_KMS,
    HINT_ENCRYPTION,
    HINT_DIGEST,
    HINT_LATER,
};

/* The codes that servers give, and what we make of them. docs/design/s3.md has this table. */
static const struct meaning {
    const char *server_code;
    int code;
    bool retry;
    enum hint hint;
} meanings[] = {
    {"AccessDenied", BOP_EDENIED, false, HINT_RIGHTS},
    {"AccountProblem", BOP_EDENIED, false, HINT_RIGHTS},
    {"AllAccessDisabled", BOP_EDENIED, false, HINT_RIGHTS},
    {"AuthorizationHeaderMalformed", BOP_ECONFIG, false, HINT_REGION},
    {"BadDigest", BOP_ECORRUPT, true, HINT_DIGEST},
    {"ConditionalRequestConflict", BOP_EBUSY, true, HINT_LATER},
    {"EntityTooLarge", BOP_ETOOBIG, false, HINT_NONE},
    {"ExpiredToken", BOP_EDENIED, false, HINT_TOKEN},
    {"IllegalLocationConstraintException", BOP_ECONFIG, false, HINT_REGION},
    {"InternalError", BOP_EIO, true, HINT_LATER},
    {"InvalidAccessKeyId", BOP_EDENIED, false, HINT_CREDENTIALS},
    {"InvalidBucketName", BOP_ECONFIG, false, HINT_BUCKET},
    {"InvalidDigest", BOP_ECORRUPT, true, HINT_DIGEST},
    {"InvalidRange", BOP_EEND, false, HINT_NONE},
    {"InvalidRegionName", BOP_ECONFIG, false, HINT_REGION},
    {"InvalidSecurity", BOP_EDENIED, false, HINT_CREDENTIALS},
    {"InvalidToken", BOP_EDENIED, false, HINT_TOKEN},
    {"InvalidTokenId", BOP_EDENIED, false, HINT_TOKEN},
    {"KMS.ThrottlingException", BOP_EBUSY, true, HINT_LATER},
    {"MethodNotAllowed", BOP_EUNSUPPORTED, false, HINT_NONE},
    {"NoSuchBucket", BOP_ENOTFOUND, false, HINT_BUCKET},
    {"NoSuchKey", BOP_ENOTFOUND, false, HINT_NONE},
    {"NoSuchUpload", BOP_ENOTFOUND, false, HINT_NONE},
    {"NotImplemented", BOP_EUNSUPPORTED, false, HINT_NONE},
    {"OperationAborted", BOP_EBUSY, true, HINT_LATER},
    {"PermanentRedirect", BOP_ECONFIG, false, HINT_REGION},
    {"PreconditionFailed", BOP_ECONDITION, false, HINT_NONE},
    {"RequestTimeTooSkewed", BOP_EDENIED, false, HINT_CLOCK},
    {"RequestTimeout", BOP_ETIMEOUT, true, HINT_LATER},
    {"ServiceUnavailable", BOP_EBUSY, true, HINT_LATER},
    {"SignatureDoesNotMatch", BOP_EDENIED, false, HINT_CREDENTIALS},
    {"SlowDown", BOP_EBUSY, true, HINT_LATER},
    {"SlowDownRead", BOP_EBUSY, true, HINT_LATER},
    {"SlowDownWrite", BOP_EBUSY, true, HINT_LATER},
    {"TemporaryRedirect", BOP_ECONFIG, false, HINT_REGION},
    {"TooManyRequests", BOP_EBUSY, true, HINT_LATER},
    {"XAmzContentChecksumMismatch", BOP_ECORRUPT, true, HINT_DIGEST},
    {"XAmzContentSHA256Mismatch", BOP_ECORRUPT, true, HINT_DIGEST},
};

/* For answers whose code is none of these, or that have none. */
static struct meaning meaning_of_status(long status)
{
    switch (status) {
    case 301:
    case 302:
    case 307:
    case 308:
        return (struct meaning){"", BOP_ECONFIG, false, HINT_REGION};
    case 401:
    case 403:
        return (struct meaning){"", BOP_EDENIED, false, HINT_RIGHTS};
    case 404:
        return (struct meaning){"", BOP_ENOTFOUND, false, HINT_NONE};
    case 408:
        return (struct meaning){"", BOP_ETIMEOUT, true, HINT_LATER};
    case 409:
        return (struct meaning){"", BOP_EBUSY, true, HINT_LATER};
    case 412:
        return (struct meaning){"", BOP_ECONDITION, false, HINT_NONE};
    case 413:
        return (struct meaning){"", BOP_ETOOBIG, false, HINT_NONE};
    case 429:
    case 503:
        return (struct meaning){"", BOP_EBUSY, true, HINT_LATER};
    case 416:
        return (struct meaning){"", BOP_EEND, false, HINT_NONE};
    case 501:
        return (struct meaning){"", BOP_EUNSUPPORTED, false, HINT_NONE};
    case 504:
        return (struct meaning){"", BOP_ETIMEOUT, true, HINT_LATER};
    default:
        return status >= 500 ? (struct meaning){"", BOP_EIO, true, HINT_LATER}
                             : (struct meaning){"", BOP_EPROTOCOL, false, HINT_NONE};
    }
}

static struct meaning meaning_of(long status, const struct s3_failure *failure)
{
    for (size_t i = 0; failure->code[0] && i < BOP_COUNT_OF(meanings); i++) {
        if (strcmp(failure->code, meanings[i].server_code) == 0) {
            return meanings[i];
        }
    }
    /* "KMS.NotFoundException", "kms:KeyNotFound" and many more, with any status. */
    if (strncasecmp(failure->code, "KMS", 3) == 0) {
        return (struct meaning){"", BOP_ECONFIG, false, HINT_KMS};
    }
    return meaning_of_status(status);
}

/* ---- Failures of the transfer ---- */

static int code_of_curl(CURLcode curl, bool *out_retry)
{
    *out_retry = true;
    switch (curl) {
    case CURLE_OPERATION_TIMEDOUT:
        return BOP_ETIMEOUT;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        *out_retry = false;
        return BOP_ECONFIG;
    case CURLE_OUT_OF_MEMORY:
    case CURLE_FAILED_INIT:
        *out_retry = false;
        return BOP_ENOMEM;
    default:
        return BOP_EIO;
    }
}

int bop__s3_code(const struct s3_outcome *outcome, const struct s3_failure *failure,
                 bool *out_retry)
{
    struct meaning meaning;

    *out_retry = false;
    if (outcome->source_code != 0) {
        return outcome->source_code;
    }
    if (outcome->transfer_code != 0) {
        *out_retry = outcome->transfer_code == BOP_ETIMEOUT;
        return outcome->transfer_code;
    }
    if (outcome->sink_code != 0) {
        *out_retry = outcome->sink_code == BOP_ECORRUPT;
        return outcome->sink_code;
    }
    /* An answer that came before the connection broke, as to a body too long to be read. */
    if (outcome->curl != CURLE_OK && outcome->status < 400) {
        return code_of_curl(outcome->curl, out_retry);
    }
    if (outcome->status >= 200 && outcome->status < 300 && !failure->code[0]) {
        return 0;
    }
    meaning = meaning_of(outcome->status, failure);
    *out_retry = meaning.retry;
    return meaning.code;
}

/* ---- Sentences ---- */

int bop__s3_fail(const struct s3 *s3, const struct s3_request *request, int code,
                 struct bop_error *err, const char *format, ...)
{
    char what[320];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    if (!request->key) {
        return bop_error_say(err, code, "%s bucket %s at %s: %s", request->verb, s3->bucket,
                             s3->endpoint, what);
    }
    return bop_error_say(err, code, "%s %.*s%s in bucket %s at %s: %s", request->verb, KEY_SHOWN,
                         request->key, strlen(request->key) > KEY_SHOWN ? "..." : "", s3->bucket,
                         s3->endpoint, what);
}

static void hint_region(const struct s3 *s3, const struct s3_request *request, char *text,
                        size_t size)
{
    const char *region = request->response.region[0] ? request->response.region
                                                     : request->failure.region;

    if (region[0] && strcmp(region, s3->region) != 0) {
        snprintf(text, size, "; the bucket is in region %s, the configuration says %s", region,
                 s3->region);
    } else if (request->failure.endpoint[0]) {
        snprintf(text, size, "; the bucket is to be reached at %.100s", request->failure.endpoint);
    } else {
        snprintf(text, size, "; check the endpoint and the region (%s)", s3->region);
    }
}

static void hint_rights(const struct s3 *s3, char *text, size_t size)
{
    if (s3->is_signed) {
        snprintf(text, size, "; check the rights of access key %.64s on this bucket",
                 s3->access_key);
    } else {
        snprintf(text, size, "; no access key is configured, and the bucket is not open to all");
    }
}

/* "; what to do". Empty if there is nothing to say. */
static void write_hint(const struct s3 *s3, const struct s3_request *request, enum hint hint,
                       char *text, size_t size)
{
    text[0] = '\0';
    switch (hint) {
    case HINT_NONE:
        break;
    case HINT_BUCKET:
        snprintf(text, size, "; create the bucket, or correct its name");
        break;
    case HINT_REGION:
        hint_region(s3, request, text, size);
        break;
    case HINT_CREDENTIALS:
        snprintf(text, size, "; check access key %.64s and its secret key", s3->access_key);
        break;
    case HINT_TOKEN:
        snprintf(text, size, "; get a new session token");
        break;
    case HINT_RIGHTS:
        hint_rights(s3, text, size);
        break;
    case HINT_CLOCK:
        snprintf(text, size, "; set this machine's clock%s%s",
                 request->failure.server_time[0] ? ": the server's says " : "",
                 request->failure.server_time);
        break;
    case HINT_KMS:
        snprintf(text, size, "; check the KMS key %.100s", s3->kms_key_id);
        break;
    case HINT_ENCRYPTION:
        snprintf(text, size, "; check the customer's key");
        break;
    case HINT_DIGEST:
        snprintf(text, size,
                 "; the content is not what its digest was made of, or was changed "
                 "on its way");
        break;
    case HINT_LATER:
        snprintf(text, size, "; gave up after %u attempts", s3->attempts);
        break;
    }
}

static int explain_status(const struct s3 *s3, const struct s3_request *request,
                          const struct s3_outcome *outcome, int code, struct bop_error *err)
{
    const struct s3_failure *failure = &request->failure;
    struct meaning meaning = meaning_of(outcome->status, failure);
    char hint[160];

    if (s3->encryption == BOP_S3_ENCRYPTION_CUSTOMER && meaning.hint == HINT_RIGHTS) {
        meaning.hint = HINT_ENCRYPTION;
    }
    write_hint(s3, request, meaning.hint, hint, sizeof(hint));
    if (failure->code[0]) {
        return bop__s3_fail(s3, request, code, err, "%s: %.150s%s", failure->code,
                            failure->message[0] ? failure->message : bop_strerror(code), hint);
    }
    return bop__s3_fail(s3, request, code, err, "%s (HTTP status %ld)%s", bop_strerror(code),
                        outcome->status, hint);
}

static int explain_curl(const struct s3 *s3, const struct s3_request *request,
                        const struct s3_outcome *outcome, int code, struct bop_error *err)
{
    const char *text = outcome->curl_text[0] ? outcome->curl_text
                                             : curl_easy_strerror(outcome->curl);
    const char *hint = "";

    switch (outcome->curl) {
    case CURLE_COULDNT_RESOLVE_HOST:
        hint = "; check the endpoint's name, and this machine's DNS";
        break;
    case CURLE_COULDNT_CONNECT:
        hint = "; check the endpoint's port, and that the server runs and can be reached from here";
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
        hint = s3->ca_file[0] ? "; check the endpoint's name and the CA file"
                              : "; check the endpoint's name, or give the CA file of its issuer";
        break;
    case CURLE_SSL_CACERT_BADFILE:
        hint = "; the CA file cannot be read";
        break;
    case CURLE_SSL_CONNECT_ERROR:
        hint = "; is this the server's TLS port?";
        break;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
        hint = "; is this an S3 endpoint?";
        break;
    default:
        break;
    }
    return bop__s3_fail(s3, request, code, err, "%.180s%s", text, hint);
}

int bop__s3_explain(const struct s3 *s3, const struct s3_request *request,
                    const struct s3_outcome *outcome, int code, struct bop_error *err)
{
    if (outcome->source_code != 0) {
        return bop__s3_fail(s3, request, code, err, "read what is to be sent: %s",
                            bop_strerror(code));
    }
    if (outcome->transfer_code == BOP_ETIMEOUT) {
        return bop__s3_fail(s3, request, code, err, "no byte moved for %u ms",
                            s3->stall_timeout_ms);
    }
    if (outcome->transfer_code != 0) {
        return bop__s3_fail(s3, request, code, err, "%s", bop_strerror(code));
    }
    if (outcome->sink_code == BOP_ECORRUPT) {
        return bop__s3_fail(s3, request, code, err, "the answer is not what was asked for");
    }
    if (outcome->sink_code != 0) {
        return bop__s3_fail(s3, request, code, err, "%s", bop_strerror(code));
    }
    if (outcome->curl != CURLE_OK && outcome->status < 400) {
        return explain_curl(s3, request, outcome, code, err);
    }
    return explain_status(s3, request, outcome, code, err);
}
