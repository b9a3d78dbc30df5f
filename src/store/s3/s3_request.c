/*
 * A request with its attempts. What may be done twice without harm is tried
 * again, after a pause that doubles, with jitter, or that the server asked for.
 *
 * libcurl signs. Each request carries the SHA-256 of its body in a header,
 * which libcurl takes over, so that bodies can be streamed. libcurl before 8.10
 * sorts headers by whole lines rather than by name: where one name begins another ("x-amz-a",
 * "x-amz-a-b") the signature is wrong, and such a request is refused here with a
 * sentence instead of being refused by the server without one.
 * From 8.14 to 8.18 it takes an encoded '+' in a query for a space, and the same is done;
 * listings, where a '+' may well come, have a way around (s3_list.c).
 */
#include "s3.h"

#include <stdio.h>
#include <strings.h>

#include <bop/clock.h>

#define RETRY_AFTER_MAX_S 60    /* A server that wants to be left alone for longer is: give up. */
#define BACKOFF_MAX_MS    20000 /* Doubling ends here. */
#define HEADER_MAX        5120  /* The longest option, in base64, and the longest name fit. */
#define FAILURE_BODY_MAX  65536
#define CURL_FIXED_SORT   0x080a00
#define CURL_PLUS_BROKEN  0x080e00
#define CURL_PLUS_FIXED   0x081300

/* One attempt. */
struct attempt {
    struct s3 *s3;
    struct s3_request *request;
    struct s3_slot *slot;
    struct s3_transfer transfer;
    struct curl_slist *headers;
    struct bop_buf url;
    uint64_t sent;     /* Bytes of the source handed to libcurl. */
    uint64_t received; /* Bytes of the body. */
};

/* ---- Headers ---- */

static int add(struct curl_slist **headers, const char *name, const char *value)
{
    struct curl_slist *longer;
    char line[HEADER_MAX];

    if (snprintf(line, sizeof(line), "%s: %s", name, value) >= HEADER_MAX) {
        return BOP_ETOOBIG;
    }
    longer = curl_slist_append(*headers, line);
    if (!longer) {
        return BOP_ENOMEM;
    }
    *headers = longer;
    return 0;
}

int bop__s3_header(struct s3_request *request, const char *name, const char *value)
{
    int rc = add(&request->headers, name, value);

    if (rc < 0) {
        curl_slist_free_all(request->headers);
        request->headers = NULL;
    }
    return rc;
}

/* True if a's name is the beginning of b's, and not all of it. */
static bool begins(const char *a, const char *b)
{
    size_t size = strcspn(a, ":");

    return strncasecmp(a, b, size) == 0 && b[size] != ':';
}

const char *bop__s3_unsignable(const struct curl_slist *headers)
{
    if (curl_version_info(CURLVERSION_NOW)->version_num >= CURL_FIXED_SORT) {
        return NULL;
    }
    for (const struct curl_slist *a = headers; a; a = a->next) {
        for (const struct curl_slist *b = headers; b; b = b->next) {
            if (begins(a->data, b->data)) {
                return b->data;
            }
        }
    }
    return NULL;
}

bool bop__s3_query_signable(const struct s3 *s3, const char *value)
{
    unsigned version = curl_version_info(CURLVERSION_NOW)->version_num;

    return !s3->is_signed || version < CURL_PLUS_BROKEN || version >= CURL_PLUS_FIXED ||
           !strchr(value, '+');
}

/* 0, or BOP_EUNSUPPORTED with the reason. */
static int check_signable(const struct attempt *attempt, struct bop_error *err)
{
    const struct s3_request *request = attempt->request;
    const char *version = curl_version_info(CURLVERSION_NOW)->version;
    const char *bad = attempt->s3->is_signed ? bop__s3_unsignable(attempt->headers) : NULL;

    if (bad) {
        return bop__s3_fail(attempt->s3, request, BOP_EUNSUPPORTED, err,
                            "libcurl %s signs header %.*s wrongly; 8.10 or later is needed",
                            version, (int)strcspn(bad, ":"), bad);
    }
    for (size_t i = 0; i < request->param_count; i++) {
        if (!bop__s3_query_signable(attempt->s3, request->params[i].value)) {
            return bop__s3_fail(attempt->s3, request, BOP_EUNSUPPORTED, err,
                                "libcurl %s signs a %s with '+' wrongly; 8.19 or later, or one "
                                "before 8.14, is needed",
                                version, request->params[i].name);
        }
    }
    return 0;
}

/* The headers of a request with a digest of its body, if it is signed, and the caller's. */
static int collect_headers(struct attempt *attempt)
{
    struct s3 *s3 = attempt->s3;
    struct s3_request *request = attempt->request;
    char hex[S3_HEX_MAX];
    uint8_t digest[32];
    int rc = 0;

    for (struct curl_slist *at = request->headers; rc == 0 && at; at = at->next) {
        struct curl_slist *longer = curl_slist_append(attempt->headers, at->data);

        rc = longer ? 0 : BOP_ENOMEM;
        attempt->headers = longer ? longer : attempt->headers;
    }
    if (rc < 0 || !s3->is_signed) {
        return rc;
    }
    if (request->sha256) {
        memcpy(digest, request->sha256, sizeof(digest));
    } else {
        rc = bop__s3_sha256(request->content.data, request->content.size, digest);
    }
    bop__s3_hex(digest, hex);
    rc = rc < 0 ? rc : add(&attempt->headers, "x-amz-content-sha256", hex);
    if (rc == 0 && s3->session_token[0]) {
        rc = add(&attempt->headers, "x-amz-security-token", s3->session_token);
    }
    return rc;
}

/* ---- Bodies ---- */

static ssize_t read_source(struct attempt *attempt, char *buffer, size_t size)
{
    const struct bop_object_source *source = attempt->request->source;
    uint64_t left = source->size - attempt->sent;
    uint64_t at = source->offset + attempt->sent;

    size = left < size ? (size_t)left : size;
    if (size == 0) {
        return 0;
    }
    if (source->fs) {
        ssize_t got = source->fs->pread(source->fs, source->fd, buffer, size, at);

        return got == 0 ? BOP_ETRUNCATED : got;
    }
    memcpy(buffer, (const char *)source->bytes + at, size);
    return (ssize_t)size;
}

static size_t on_read(char *buffer, size_t size, size_t count, void *user)
{
    struct attempt *attempt = user;
    ssize_t got = read_source(attempt, buffer, size * count);

    if (got < 0) {
        attempt->request->source_code = (int)got;
        return CURL_READFUNC_ABORT;
    }
    attempt->sent += (uint64_t)got;
    attempt->transfer.moved += (uint64_t)got;
    bop_metric_add(attempt->s3->metrics.sent_bytes, got);
    if (attempt->request->on_sent && got > 0) {
        attempt->request->on_sent(attempt->request->user, attempt->sent);
    }
    return (size_t)got;
}

/* libcurl sends the body anew, when a connection kept open turns out to be closed. */
static int on_seek(void *user, curl_off_t offset, int origin)
{
    struct attempt *attempt = user;

    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > attempt->request->source->size) {
        return CURL_SEEKFUNC_FAIL;
    }
    attempt->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* Where the bytes of this answer go: the caller's buffer only if it is what was asked for. */
static int store_bytes(struct attempt *attempt, const char *bytes, size_t size)
{
    struct s3_request *request = attempt->request;
    long status = 0;
    int rc;

    curl_easy_getinfo(attempt->slot->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200 || status > 299) {
        size_t room = FAILURE_BODY_MAX - request->response.body.size;

        return bop_buf_append(&request->response.body, bytes, size < room ? size : room);
    }
    if (!request->sink.out) {
        rc = bop_buf_append(&request->response.body, bytes, size);
        return rc == BOP_EFULL ? BOP_ETOOBIG : rc;
    }
    if (size > request->sink.size_max - (attempt->received - size)) {
        return BOP_ECORRUPT;
    }
    rc = bop_buf_append(request->sink.out, bytes, size);
    return rc == BOP_EFULL ? BOP_ETOOBIG : rc;
}

static size_t on_write(char *bytes, size_t size, size_t count, void *user)
{
    struct attempt *attempt = user;

    size *= count;
    attempt->transfer.moved += size;
    attempt->received += size;
    bop_metric_add(attempt->s3->metrics.received_bytes, (int64_t)size);
    attempt->request->sink.code = store_bytes(attempt, bytes, size);
    return attempt->request->sink.code == 0 ? size : 0;
}

/* ---- Setting up ---- */

#define SET(easy, option, value)                                                                   \
    do {                                                                                           \
        if (curl_easy_setopt(easy, option, value) != CURLE_OK) {                                   \
            return BOP_ENOMEM;                                                                     \
        }                                                                                          \
    } while (0)

static int set_connection(const struct s3 *s3, struct s3_slot *slot)
{
    CURL *easy = slot->easy;

    SET(easy, CURLOPT_NOSIGNAL, 1L);
    SET(easy, CURLOPT_ERRORBUFFER, slot->text);
    SET(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    SET(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(easy, CURLOPT_FOLLOWLOCATION, 0L);
    SET(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)s3->connect_timeout_ms);
    SET(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    SET(easy, CURLOPT_USERAGENT, "bop/" BOP_VERSION);
    if (s3->ca_file[0]) {
        SET(easy, CURLOPT_CAINFO, s3->ca_file);
        SET(easy, CURLOPT_CAPATH, NULL); /* Instead of the system's, not beside them. */
    }
    return 0;
}

static int set_signature(const struct s3 *s3, CURL *easy)
{
    char scope[96];

    if (!s3->is_signed) {
        return 0;
    }
    snprintf(scope, sizeof(scope), "aws:amz:%s:s3", s3->region);
    SET(easy, CURLOPT_AWS_SIGV4, scope);
    SET(easy, CURLOPT_USERNAME, s3->access_key);
    SET(easy, CURLOPT_PASSWORD, s3->secret_key);
    return 0;
}

static int set_upload(struct attempt *attempt, CURL *easy)
{
    const struct bop_object_source *source = attempt->request->source;

    SET(easy, CURLOPT_UPLOAD, 1L);
    SET(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)(source ? source->size : 0));
    if (source) {
        SET(easy, CURLOPT_READFUNCTION, on_read);
        SET(easy, CURLOPT_READDATA, attempt);
        SET(easy, CURLOPT_SEEKFUNCTION, on_seek);
        SET(easy, CURLOPT_SEEKDATA, attempt);
        SET(easy, CURLOPT_UPLOAD_BUFFERSIZE, 262144L);
    }
    return 0;
}

static int set_method(struct attempt *attempt, CURL *easy)
{
    const struct s3_request *request = attempt->request;

    switch (request->method) {
    case S3_GET:
        SET(easy, CURLOPT_HTTPGET, 1L);
        break;
    case S3_HEAD:
        SET(easy, CURLOPT_NOBODY, 1L);
        break;
    case S3_PUT:
        return set_upload(attempt, easy);
    case S3_POST:
        SET(easy, CURLOPT_POST, 1L);
        SET(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->content.size);
        SET(easy, CURLOPT_POSTFIELDS,
            request->content.size ? (const char *)request->content.data : "");
        break;
    case S3_DELETE:
        SET(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
        break;
    }
    return 0;
}

static int set_up(struct attempt *attempt)
{
    const struct s3_request *request = attempt->request;
    CURL *easy = attempt->slot->easy;
    int rc;

    curl_easy_reset(easy);
    attempt->slot->text[0] = '\0';
    rc = bop__s3_url(attempt->s3, request->key, request->params, request->param_count,
                     &attempt->url);
    rc = rc < 0 ? rc : collect_headers(attempt);
    rc = rc < 0 ? rc : set_connection(attempt->s3, attempt->slot);
    rc = rc < 0 ? rc : set_signature(attempt->s3, easy);
    rc = rc < 0 ? rc : set_method(attempt, easy);
    if (rc < 0) {
        return rc;
    }
    SET(easy, CURLOPT_URL, (const char *)attempt->url.data);
    SET(easy, CURLOPT_HTTPHEADER, attempt->headers);
    SET(easy, CURLOPT_WRITEFUNCTION, on_write);
    SET(easy, CURLOPT_WRITEDATA, attempt);
    return 0;
}

/* ---- The answer ---- */

/* A header's value, or NULL. */
static const char *header(CURL *easy, const char *name)
{
    struct curl_header *found;

    return curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &found) == CURLHE_OK ? found->value
                                                                                  : NULL;
}

/* "bytes 0-9/20", "bytes 0-9" with '*' for the total, "bytes *" with a total. */
static void read_range(const char *text, struct s3_response *response)
{
    unsigned long long first, last, total;
    int used = 0;

    if (strncmp(text, "bytes ", 6) != 0 || text[6] < '0' || text[6] > '9' ||
        sscanf(text + 6, "%19llu-%19llu/%n", &first, &last, &used) != 2 || used == 0) {
        return;
    }
    text += 6 + used;
    response->range_total = UINT64_MAX;
    if (strcmp(text, "*") != 0) {
        if (sscanf(text, "%19llu%n", &total, &used) != 1 || text[used] != '\0') {
            return;
        }
        response->range_total = total;
    }
    response->ranged = true;
    response->range_first = first;
    response->range_last = last;
}

static void read_info(CURL *easy, struct bop_object_info *info)
{
    const char *etag = header(easy, "ETag");
    const char *modified = header(easy, "Last-Modified");
    const char *digest = header(easy, S3_SHA256_META);
    size_t size = etag ? strlen(etag) : 0;
    time_t seconds;

    if (size >= 2 && etag[0] == '"' && etag[size - 1] == '"') {
        etag++;
        size -= 2;
    }
    if (size < sizeof(info->etag) && size > 0 && strcspn(etag, "\"<>&") >= size) {
        memcpy(info->etag, etag, size);
        info->etag[size] = '\0';
    }
    seconds = modified ? curl_getdate(modified, NULL) : 0;
    info->modified_s = seconds > 0 ? (uint64_t)seconds : 0;
    info->sha256_known = digest && bop__s3_unhex(digest, info->sha256);
}

static void read_answer(CURL *easy, struct s3_response *response)
{
    const char *region = header(easy, "x-amz-bucket-region");
    const char *range = header(easy, "Content-Range");
    curl_off_t length = -1, wait_s = 0;

    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &response->status);
    curl_easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &wait_s);
    response->content_length = length < 0 ? UINT64_MAX : (uint64_t)length;
    response->retry_after_s = wait_s > 0 ? (uint64_t)wait_s : 0;
    response->ranged = false;
    response->region[0] = '\0';
    if (region && strlen(region) < sizeof(response->region) &&
        strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(region)) {
        memcpy(response->region, region, strlen(region) + 1);
    }
    if (range) {
        read_range(range, response);
    }
    response->info = (struct bop_object_info){0};
    read_info(easy, &response->info);
    response->info.size = length < 0 ? 0 : (uint64_t)length;
}

/* Forget what an attempt before this one has left. */
static void clear_answer(struct s3_request *request)
{
    request->response.status = 0;
    bop_buf_clear(&request->response.body);
    request->failure = (struct s3_failure){0};
    request->source_code = 0;
    request->sink.code = 0;
    if (request->sink.out) {
        request->sink.out->size = request->sink.start;
    }
}

/* ---- Attempts ---- */

static void transfer(struct attempt *attempt, struct s3_outcome *outcome)
{
    struct s3 *s3 = attempt->s3;
    struct s3_request *request = attempt->request;
    struct bop_clock *clock = bop_clock_system();
    uint64_t began_us = bop_clock_monotonic_us(clock);

    outcome->curl = bop__s3_perform(s3, attempt->slot, &attempt->transfer);
    outcome->transfer_code = attempt->transfer.code;
    outcome->source_code = request->source_code;
    outcome->sink_code = request->sink.code;
    read_answer(attempt->slot->easy, &request->response);
    outcome->status = request->response.status;
    if (s3->metrics.request_us) {
        bop_histogram_record(s3->metrics.request_us, bop_clock_monotonic_us(clock) - began_us);
    }
    bop_metric_add(s3->metrics.requests, 1);
}

/* What the request came to: its code, and whether to go on. */
static int judge(struct s3 *s3, struct s3_request *request, struct s3_outcome *outcome,
                 bool *out_retry, struct bop_error *err)
{
    struct bop_slice body = bop_buf_slice(&request->response.body);
    int rc;

    /* A success too may say <Error>: the server had to begin its answer before it knew. */
    if (outcome->curl == CURLE_OK && body.size > 0) {
        BOP_IGNORE(bop__s3_xml_failure(s3->allocator, body, &request->failure));
    }
    rc = bop__s3_code(outcome, &request->failure, out_retry);
    if (outcome->status == 503 || outcome->status == 429) {
        bop_metric_add(s3->metrics.throttled, 1);
    }
    if (rc < 0) {
        return bop__s3_explain(s3, request, outcome, rc, err);
    }
    rc = request->judge ? request->judge(s3, request, err) : 0;
    *out_retry = rc == BOP_ECORRUPT || rc == BOP_EIO || rc == BOP_EBUSY;
    return rc;
}

static int attempt_once(struct s3 *s3, struct s3_request *request, bool *out_retry,
                        struct bop_error *err)
{
    struct attempt attempt = {.s3 = s3, .request = request};
    struct s3_outcome outcome = {0};
    int rc;

    *out_retry = false;
    clear_answer(request);
    rc = bop__s3_acquire(s3, &attempt.slot);
    if (rc < 0) {
        return bop__s3_fail(s3, request, rc, err, "%s", bop_strerror(rc));
    }
    bop_buf_init(&attempt.url, s3->allocator, 4 * S3_URL_MAX);
    rc = set_up(&attempt);
    if (rc < 0) {
        bop__s3_fail(s3, request, rc, err, "%s", bop_strerror(rc));
    } else {
        rc = check_signable(&attempt, err);
    }
    if (rc == 0) {
        outcome.curl_text = attempt.slot->text;
        transfer(&attempt, &outcome);
        rc = judge(s3, request, &outcome, out_retry, err);
    }
    bop__s3_release(s3, attempt.slot);
    curl_slist_free_all(attempt.headers);
    bop_buf_deinit(&attempt.url);
    return rc;
}

/* Half of the pause is certain, half by chance, so that clients come apart. */
static uint64_t pause_of(struct s3 *s3, const struct s3_request *request, unsigned attempt)
{
    uint64_t pause_ms = bop_min_u64((uint64_t)s3->backoff_ms << (attempt < 16 ? attempt : 16),
                                    BACKOFF_MAX_MS);
    uint64_t chance;

    pthread_mutex_lock(&s3->lock);
    chance = bop_random_below(&s3->random, pause_ms / 2 + 1);
    pthread_mutex_unlock(&s3->lock);
    pause_ms = pause_ms - pause_ms / 2 + chance;
    return bop_max_u64(pause_ms, request->response.retry_after_s * 1000);
}

int bop__s3_run(struct s3 *s3, struct s3_request *request, struct bop_error *err)
{
    struct bop_error local = {0};
    bool retry = false;
    int rc = 0;

    err = err ? err : &local;
    bop_buf_init(&request->response.body, s3->allocator, S3_RESPONSE_MAX);
    for (unsigned attempt = 0;; attempt++) {
        rc = attempt_once(s3, request, &retry, err);
        if (rc == 0 || !retry || attempt + 1 >= s3->attempts ||
            request->response.retry_after_s > RETRY_AFTER_MAX_S) {
            break;
        }
        bop_log(s3->log, BOP_LOG_WARN, "s3", "trying again attempt=%u code=%s error=\"%s\"",
                attempt + 2, bop_error_name(rc), err->message);
        bop_metric_add(s3->metrics.retries, 1);
        rc = bop__s3_pause(s3, pause_of(s3, request, attempt));
        if (rc < 0) {
            bop__s3_fail(s3, request, rc, err, "%s", bop_strerror(rc));
            break;
        }
    }
    curl_slist_free_all(request->headers);
    request->headers = NULL;
    if (rc < 0 && request->sink.out) {
        request->sink.out->size = request->sink.start;
    }
    /* NoSuchBucket is an answer that has a body; a HEAD's 404 says nothing. */
    if (rc == 0 || strcmp(request->failure.code, "NoSuchKey") == 0) {
        atomic_store_explicit(&s3->bucket_seen, true, memory_order_relaxed);
    } else if (rc < 0 && !(request->may_be_missing &&
                           (rc == BOP_ENOTFOUND || rc == BOP_ECONDITION || rc == BOP_EEND))) {
        bop_metric_add(s3->metrics.failures, 1);
    }
    return rc;
}

void bop__s3_done(struct s3_request *request)
{
    curl_slist_free_all(request->headers);
    request->headers = NULL;
    if (request->response.body.allocator) {
        bop_buf_deinit(&request->response.body);
    }
}
