/*
 * A client's life: its options, checked before anything is sent, and its end.
 */
#include "s3.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/crypto.h>

#include <bop/clock.h>
#include <bop/mem.h>

#define PART_BYTES_DEFAULT         (UINT64_C(16) << 20)
#define ATTEMPTS_DEFAULT           4
#define ATTEMPTS_MAX               100
#define BACKOFF_MS_DEFAULT         100
#define CONNECT_TIMEOUT_MS_DEFAULT 5000
#define STALL_TIMEOUT_MS_DEFAULT   15000
#define TIMEOUT_MS_MAX             3600000u
#define CONNECTIONS_DEFAULT        8
#define TEXT_MAX                   2048 /* Of an option. Session tokens are the longest. */

static const char lower_digits_dash[] = "abcdefghijklmnopqrstuvwxyz0123456789-";

static int refuse(struct bop_error *err, const char *what, const char *text)
{
    return bop_error_say(err, BOP_ECONFIG, "S3: %s%s%s", what, text ? ": " : "", text ? text : "");
}

/* ---- Checks ---- */

static bool is_text(const char *text)
{
    if (!text) {
        return true;
    }
    for (const char *at = text; *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            return false; /* A line feed would begin another header. */
        }
    }
    return strlen(text) <= TEXT_MAX;
}

static const char *bad_text(const struct bop_s3_options *options)
{
    const struct {
        const char *name;
        const char *text;
    } texts[] = {
        {"endpoint", options->endpoint},       {"region", options->region},
        {"bucket", options->bucket},           {"access key", options->access_key},
        {"secret key", options->secret_key},   {"session token", options->session_token},
        {"CA file", options->ca_file},         {"KMS key id", options->kms_key_id},
        {"KMS context", options->kms_context}, {"prefix", options->prefix},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(texts); i++) {
        if (!is_text(texts[i].text)) {
            return texts[i].name;
        }
    }
    return NULL;
}

/* "http[s]://host[:port]" and nothing behind it but a slash. */
static bool endpoint_ok(const char *endpoint)
{
    char *path = NULL, *query = NULL, *fragment = NULL, *user = NULL;
    CURLU *url = curl_url();
    bool ok;

    ok = url && curl_url_set(url, CURLUPART_URL, endpoint, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
         curl_url_get(url, CURLUPART_PATH, &path, 0) == CURLUE_OK && strcmp(path, "/") == 0 &&
         curl_url_get(url, CURLUPART_QUERY, &query, 0) != CURLUE_OK &&
         curl_url_get(url, CURLUPART_FRAGMENT, &fragment, 0) != CURLUE_OK &&
         curl_url_get(url, CURLUPART_USER, &user, 0) != CURLUE_OK &&
         (strncmp(endpoint, "https://", 8) == 0 || strncmp(endpoint, "http://", 7) == 0);
    curl_free(path);
    curl_free(query);
    curl_free(fragment);
    curl_free(user);
    curl_url_cleanup(url);
    return ok;
}

static bool bucket_ok(const char *bucket)
{
    size_t size = strlen(bucket);

    return size >= 3 && size <= 63 &&
           strspn(bucket, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") ==
               size &&
           bucket[0] != '.' && bucket[0] != '-' && !strstr(bucket, "..");
}

/* An address is not to be put behind a bucket's name. */
static bool host_is_address(const char *endpoint)
{
    const char *host = strstr(endpoint, "://") + 3;

    return host[0] == '[' || strspn(host, "0123456789.") == strcspn(host, ":/");
}

static int check_encryption(const struct bop_s3_options *options, struct bop_error *err)
{
    switch (options->encryption) {
    case BOP_S3_ENCRYPTION_NONE:
    case BOP_S3_ENCRYPTION_S3:
    case BOP_S3_ENCRYPTION_KMS:
        return 0;
    case BOP_S3_ENCRYPTION_CUSTOMER:
        if (!options->customer_key) {
            return refuse(err, "encryption with the customer's key needs one", NULL);
        }
        if (strncmp(options->endpoint, "https://", 8) != 0) {
            return refuse(err,
                          "the customer's key is sent over TLS only: the endpoint must be "
                          "https",
                          options->endpoint);
        }
        return 0;
    }
    return refuse(err, "there is no such kind of encryption", NULL);
}

static int check_numbers(const struct bop_s3_options *options, struct bop_error *err)
{
    if (options->part_bytes != 0 &&
        (options->part_bytes < S3_PART_BYTES_MIN || options->part_bytes > S3_PART_BYTES_MAX)) {
        return refuse(err, "a part has 5 MiB to 5 GiB", NULL);
    }
    if (options->attempts > ATTEMPTS_MAX) {
        return refuse(err, "at most 100 attempts", NULL);
    }
    if (options->connections_max > S3_CONNECTIONS_MAX) {
        return refuse(err, "at most 256 connections", NULL);
    }
    if (options->backoff_ms > TIMEOUT_MS_MAX || options->connect_timeout_ms > TIMEOUT_MS_MAX ||
        options->stall_timeout_ms > TIMEOUT_MS_MAX) {
        return refuse(err, "a timeout or pause is at most an hour", NULL);
    }
    return 0;
}

static int check_options(const struct bop_s3_options *options, struct bop_error *err)
{
    const char *region = options->region ? options->region : "us-east-1";
    const char *bad = bad_text(options);
    int rc;

    if (bad) {
        return refuse(err, "too long, or with characters that it must not have", bad);
    }
    if (!options->endpoint || !endpoint_ok(options->endpoint)) {
        return refuse(err, "the endpoint must be https://host[:port]",
                      options->endpoint ? options->endpoint : "(none)");
    }
    if (!options->bucket || !bucket_ok(options->bucket)) {
        return refuse(err, "this is no bucket's name",
                      options->bucket ? options->bucket : "(none)");
    }
    /* libcurl takes 64 bytes of it. */
    if (!region[0] || strlen(region) > 63 || strspn(region, lower_digits_dash) != strlen(region)) {
        return refuse(err, "this is no region's name", region);
    }
    if (!options->access_key != !options->secret_key) {
        return refuse(err, "an access key and a secret key go together", NULL);
    }
    if (options->virtual_host && host_is_address(options->endpoint)) {
        return refuse(err, "bucket.host needs a host with a name", options->endpoint);
    }
    if (options->prefix &&
        (strlen(options->prefix) > BOP_OBJECT_KEY_MAX / 2 || options->prefix[0] == '/' ||
         !bop_slice_is_utf8(bop_slice_cstr(options->prefix)))) {
        return refuse(err, "the prefix is too long, not UTF-8, or begins with a slash", NULL);
    }
    rc = check_encryption(options, err);
    return rc < 0 ? rc : check_numbers(options, err);
}

/* Better said now than at the first put. */
static int check_signable(const struct s3 *s3, struct bop_error *err)
{
    struct s3_request request = {0};
    const char *bad;
    int rc = s3->is_signed ? bop__s3_encrypt(s3, &request, S3_ENCRYPT_CREATE) : 0;

    if (rc < 0) {
        return bop_error_set(err, rc, "S3: headers of encryption");
    }
    bad = bop__s3_unsignable(request.headers);
    if (bad) {
        rc = bop_error_say(err, BOP_EUNSUPPORTED,
                           "S3: libcurl %s signs requests with header %.*s wrongly; this kind of "
                           "encryption needs libcurl 8.10 or later",
                           curl_version_info(CURLVERSION_NOW)->version, (int)strcspn(bad, ":"),
                           bad);
    }
    curl_slist_free_all(request.headers);
    return rc;
}

/* ---- Copies ---- */

static char *copy_text(const struct s3 *s3, const char *text, const char *more)
{
    size_t size;
    char *copy;

    text = text ? text : "";
    size = strlen(text) + strlen(more) + 1;
    copy = bop_alloc(s3->allocator, size);
    if (copy) {
        snprintf(copy, size, "%s%s", text, more);
    }
    return copy;
}

/* Some are secret: none stays behind. */
static void free_text(const struct s3 *s3, char *text)
{
    size_t size = text ? strlen(text) + 1 : 0;

    if (text) {
        OPENSSL_cleanse(text, size);
        bop_free(s3->allocator, text, size);
    }
}

/* Without the slash at its end. */
static char *copy_endpoint(const struct s3 *s3, const char *endpoint)
{
    size_t size = strlen(endpoint);
    char *copy;

    size -= endpoint[size - 1] == '/';
    copy = bop_alloc(s3->allocator, size + 1);
    if (copy) {
        memcpy(copy, endpoint, size);
        copy[size] = '\0';
    }
    return copy;
}

static int copy_texts(struct s3 *s3, const struct bop_s3_options *options)
{
    const char *prefix = options->prefix ? options->prefix : "";
    size_t size = strlen(prefix);

    s3->endpoint = copy_endpoint(s3, options->endpoint);
    s3->region = copy_text(s3, options->region ? options->region : "us-east-1", "");
    s3->bucket = copy_text(s3, options->bucket, "");
    s3->prefix = copy_text(s3, prefix, size > 0 && prefix[size - 1] != '/' ? "/" : "");
    s3->access_key = copy_text(s3, options->access_key, "");
    s3->secret_key = copy_text(s3, options->secret_key, "");
    s3->session_token = copy_text(s3, options->session_token, "");
    s3->ca_file = copy_text(s3, options->ca_file, "");
    s3->kms_key_id = copy_text(s3, options->kms_key_id, "");
    s3->kms_context = copy_text(s3, options->kms_context, "");
    return s3->endpoint && s3->region && s3->bucket && s3->prefix && s3->access_key &&
                   s3->secret_key && s3->session_token && s3->ca_file && s3->kms_key_id &&
                   s3->kms_context
               ? 0
               : BOP_ENOMEM;
}

static unsigned or_default(unsigned value, unsigned default_value)
{
    return value ? value : default_value;
}

static void copy_rest(struct s3 *s3, const struct bop_s3_options *options)
{
    s3->log = options->log;
    s3->is_signed = options->access_key != NULL;
    s3->virtual_host = options->virtual_host;
    s3->encryption = options->encryption;
    if (options->encryption == BOP_S3_ENCRYPTION_CUSTOMER) {
        memcpy(s3->customer_key, options->customer_key, sizeof(s3->customer_key));
    }
    s3->part_bytes = options->part_bytes ? options->part_bytes : PART_BYTES_DEFAULT;
    s3->attempts = or_default(options->attempts, ATTEMPTS_DEFAULT);
    s3->backoff_ms = or_default(options->backoff_ms, BACKOFF_MS_DEFAULT);
    s3->connect_timeout_ms = or_default(options->connect_timeout_ms, CONNECT_TIMEOUT_MS_DEFAULT);
    s3->stall_timeout_ms = or_default(options->stall_timeout_ms, STALL_TIMEOUT_MS_DEFAULT);
    s3->connections_max = or_default(options->connections_max, CONNECTIONS_DEFAULT);
}

static void register_metrics(struct s3_metrics *metrics, struct bop_metrics *all)
{
    if (!all) {
        return;
    }
    *metrics = (struct s3_metrics){
        .requests = bop_metrics_counter(all, "bop_s3_requests_total", NULL,
                                        "Requests sent to the object store, attempts counted."),
        .retries = bop_metrics_counter(all, "bop_s3_retries_total", NULL,
                                       "Requests sent again after a failure."),
        .throttled = bop_metrics_counter(all, "bop_s3_throttled_total", NULL,
                                         "Answers that asked to slow down."),
        .failures = bop_metrics_counter(all, "bop_s3_failures_total", NULL,
                                        "Requests that failed after all attempts."),
        .sent_bytes = bop_metrics_counter(all, "bop_s3_sent_bytes_total", NULL,
                                          "Bytes of objects sent, again or not."),
        .received_bytes = bop_metrics_counter(all, "bop_s3_received_bytes_total", NULL,
                                              "Bytes of answers received."),
        .request_us = bop_metrics_histogram(all, "bop_s3_request_us", NULL,
                                            "Microseconds from a request to its whole answer."),
    };
}

/* ---- Life ---- */

static void s3_cancel(struct bop_object_store *self)
{
    struct s3 *s3 = bop__s3_of(self);

    /* Release pairs with the acquire in bop__s3_canceled(). */
    atomic_store_explicit(&s3->canceled, true, memory_order_release);
    bop__s3_pool_wake(s3);
}

static void s3_destroy(struct bop_object_store *self)
{
    struct s3 *s3 = self ? bop__s3_of(self) : NULL;

    if (!s3) {
        return;
    }
    bop__s3_pool_destroy(s3);
    if (s3->slots) {
        bop_free(s3->allocator, s3->slots, s3->connections_max * sizeof(*s3->slots));
    }
    if (s3->lock_ready) {
        pthread_cond_destroy(&s3->changed);
        pthread_mutex_destroy(&s3->lock);
    }
    if (s3->curl_ready) {
        curl_global_cleanup();
    }
    free_text(s3, s3->endpoint);
    free_text(s3, s3->region);
    free_text(s3, s3->bucket);
    free_text(s3, s3->prefix);
    free_text(s3, s3->access_key);
    free_text(s3, s3->secret_key);
    free_text(s3, s3->session_token);
    free_text(s3, s3->ca_file);
    free_text(s3, s3->kms_key_id);
    free_text(s3, s3->kms_context);
    OPENSSL_cleanse(s3->customer_key, sizeof(s3->customer_key));
    bop_free(s3->allocator, s3, sizeof(*s3));
}

static int init_locks(struct s3 *s3)
{
    pthread_condattr_t attributes;
    int rc = -pthread_condattr_init(&attributes);

    if (rc < 0) {
        return rc;
    }
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    rc = -pthread_cond_init(&s3->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (rc < 0) {
        return rc;
    }
    rc = -pthread_mutex_init(&s3->lock, NULL);
    if (rc < 0) {
        pthread_cond_destroy(&s3->changed);
    }
    s3->lock_ready = rc == 0;
    return rc;
}

static int init(struct s3 *s3, const struct bop_s3_options *options)
{
    int rc = copy_texts(s3, options);

    if (rc < 0) {
        return rc;
    }
    copy_rest(s3, options);
    register_metrics(&s3->metrics, options->metrics);
    bop_random_seed(&s3->random, bop_clock_monotonic_us(bop_clock_system()) ^ (uintptr_t)s3);
    s3->slots = bop_alloc_array(s3->allocator, s3->connections_max, sizeof(*s3->slots));
    if (!s3->slots) {
        return BOP_ENOMEM;
    }
    rc = init_locks(s3);
    /* Counted by libcurl, and safe in any thread since 7.84. */
    s3->curl_ready = rc == 0 && curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    return rc == 0 && !s3->curl_ready ? BOP_ENOMEM : rc;
}

int bop_s3_create(const struct bop_s3_options *options, struct bop_object_store **out_store,
                  struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "store.s3");
    struct s3 *s3;
    int rc = check_options(options, err);

    if (rc < 0) {
        return rc;
    }
    s3 = bop_alloc_zeroed(allocator, sizeof(*s3));
    if (!s3) {
        return bop_error_set(err, BOP_ENOMEM, "S3");
    }
    s3->allocator = allocator;
    s3->store = (struct bop_object_store){
        .put = bop__s3_put,
        .get = bop__s3_get,
        .head = bop__s3_head,
        .remove = bop__s3_remove,
        .list = bop__s3_list,
        .cancel = s3_cancel,
        .destroy = s3_destroy,
    };
    rc = init(s3, options);
    if (rc < 0) {
        bop_error_set(err, rc, "S3");
    } else {
        rc = check_signable(s3, err);
    }
    if (rc < 0) {
        s3_destroy(&s3->store);
        return rc;
    }
    *out_store = &s3->store;
    return 0;
}

int bop_s3_check(struct bop_object_store *store, struct bop_error *err)
{
    if (store->put != bop__s3_put) {
        return bop_error_say(err, BOP_EINVAL, "check: this is no S3 store");
    }
    return bop__s3_probe(bop__s3_of(store), "check", err);
}
