/*
 * Inside the S3 client. One file is one subject:
 *
 *      s3.c            life, options, check
 *      s3_pool.c       the connections, and how a transfer runs on one
 *      s3_request.c    a request with its attempts: headers, signature, body, answer
 *      s3_url.c        names on the wire
 *      s3_encrypt.c    headers of server-side encryption
 *      s3_xml.c        answers in XML
 *      s3_error.c      what an answer means, in a code and a sentence
 *      s3_object.c     head, get, remove, put in one piece
 *      s3_multipart.c  put in parts, and the end of uploads that nobody goes on with
 *      s3_list.c       listings
 *
 * docs/design/s3.md says what is sent and what is retried.
 */
#ifndef BOP_STORE_S3_H
#define BOP_STORE_S3_H

#include <pthread.h>
#include <stdatomic.h>

#include <bop/object_store.h>
#include <bop/random.h>
#include <curl/curl.h>

#define S3_HEX_MAX         65 /* A SHA-256 in hexadecimal, with its NUL. */
#define S3_BASE64_MAX      48 /* One in base64, with its NUL. */
#define S3_URL_MAX         5120
#define S3_RESPONSE_MAX    (8u << 20) /* Bytes of XML: 1000 keys of 1024 bytes, all escaped, fit. */
#define S3_CONNECTIONS_MAX 256
#define S3_PARTS_MAX       10000
#define S3_PART_BYTES_MIN  (UINT64_C(5) << 20)
#define S3_PART_BYTES_MAX  (UINT64_C(5) << 30)
#define S3_SHA256_META     "x-amz-meta-bop-sha256"

/* ---- Life ---- */

struct s3_metrics {
    struct bop_metric *requests;
    struct bop_metric *retries;
    struct bop_metric *throttled;
    struct bop_metric *failures;
    struct bop_metric *sent_bytes;
    struct bop_metric *received_bytes;
    struct bop_histogram *request_us;
};

/* A connection: libcurl's handles, used by one thread at a time. */
struct s3_slot {
    CURL *easy;
    CURLM *multi;
    bool busy;
    char text[CURL_ERROR_SIZE]; /* What libcurl says of its last failure. */
};

struct s3 {
    struct bop_object_store store; /* First: this is what is handed out. */
    struct bop_allocator *allocator;
    struct bop_log *log;

    /* Copied options. Strings are never NULL, and empty where there is none. */
    char *endpoint; /* "https://host[:port]" without a slash at the end. */
    char *region;
    char *bucket;
    char *prefix; /* With a slash at its end, unless it is empty. */
    char *access_key;
    char *secret_key;
    char *session_token;
    char *ca_file;
    char *kms_key_id;
    char *kms_context;
    bool is_signed;
    bool virtual_host;
    enum bop_s3_encryption encryption;
    uint8_t customer_key[32];
    uint64_t part_bytes;
    unsigned attempts;
    unsigned backoff_ms;
    unsigned connect_timeout_ms;
    unsigned stall_timeout_ms;
    unsigned connections_max;

    struct s3_metrics metrics;
    atomic_bool canceled;
    atomic_bool bucket_seen; /* Some answer has shown that the bucket is there. */

    pthread_mutex_t lock;   /* Of what follows. */
    pthread_cond_t changed; /* A slot is free, or all is canceled. */
    struct s3_slot *slots;  /* connections_max of them; made when first used. */
    struct bop_random random;
    bool lock_ready;
    bool curl_ready;
};

static inline struct s3 *bop__s3_of(struct bop_object_store *self)
{
    return BOP_CONTAINER_OF(self, struct s3, store);
}

static inline bool bop__s3_canceled(struct s3 *s3)
{
    /* Acquire pairs with the release in cancel, whose caller may have set other things before. */
    return atomic_load_explicit(&s3->canceled, memory_order_acquire);
}

/* ---- s3_url.c ---- */

/* Append text with all but unreserved characters as %XX; slashes stay if keep_slash. */
BOP_MUST_USE int bop__s3_encode(struct bop_buf *out, const char *text, bool keep_slash);

/* Undo %XX and '+' in place. False if it is not well-formed or has a NUL. */
bool bop__s3_decode(char *text);

/* 0 or BOP_EINVAL with what is wrong. The prefix counts too. */
BOP_MUST_USE int bop__s3_check_key(const struct s3 *s3, const char *verb, const char *key,
                                   struct bop_error *err);

struct s3_param {
    const char *name;
    const char *value; /* Not encoded. */
};

/* The URL of a key (NULL: of the bucket) with its parameters, which must be sorted by name. */
BOP_MUST_USE int bop__s3_url(const struct s3 *s3, const char *key, const struct s3_param *params,
                             size_t param_count, struct bop_buf *out);

void bop__s3_hex(const uint8_t digest[32], char out_text[S3_HEX_MAX]);
bool bop__s3_unhex(const char *text, uint8_t out_digest[32]);
/* size at most 33. */
void bop__s3_base64(const uint8_t *bytes, size_t size, char out_text[S3_BASE64_MAX]);
BOP_MUST_USE int bop__s3_sha256(const void *bytes, size_t size, uint8_t out_digest[32]);

/* ---- s3_xml.c ---- */

#define S3_XML_DEPTH_MAX 8
#define S3_XML_TEXT_MAX                                                                            \
    4096 /* Bytes of one element's text: a key with every byte escaped fits.                       \
          */

/*
 * Read a document, calling fn at the end of each element with its path
 * ("/ListBucketResult/Contents/Key") and its own text, without the white space around it. A
 * non-zero result ends it and is returned. BOP_EMALFORMED for what is not well-formed or has a
 * document type (so no entity is ever expanded), BOP_ETOOBIG for what is beyond the bounds,
 * BOP_ENOMEM.
 */
BOP_MUST_USE int bop__s3_xml_parse(struct bop_allocator *allocator, struct bop_slice document,
                                   int (*fn)(void *user, const char *path, const char *text),
                                   void *user);

/* What a failed request's body says; empty where it says nothing. */
struct s3_failure {
    char code[64];
    char message[256];
    char region[64];
    char endpoint[256];
    char server_time[40];
};

/* True if the body is an <Error>. */
bool bop__s3_xml_failure(struct bop_allocator *allocator, struct bop_slice body,
                         struct s3_failure *out_failure);

/* One page of a listing. */
struct s3_page {
    bool truncated;
    bool encoded; /* Keys are URL-encoded. */
    char token[S3_XML_TEXT_MAX];
    size_t keys; /* On this page. */
    int (*fn)(void *user, const char *key, const struct bop_object_info *info);
    void *user;
    /* The entry being read. */
    char key[S3_XML_TEXT_MAX];
    struct bop_object_info info;
};

/* Calls page->fn, which the caller sets with user, for each entry. Its result, if not 0, or a
 * code as above. */
BOP_MUST_USE int bop__s3_xml_page(struct bop_allocator *allocator, struct bop_slice body,
                                  struct s3_page *page);

/* What became of a multipart upload: ListParts. */
struct s3_part {
    unsigned number;
    uint64_t size;
    char etag[72];
    char sha256[S3_BASE64_MAX]; /* As sent by the server; empty if it keeps none. */
};

struct s3_parts_page {
    bool truncated;
    unsigned next; /* The number to go on behind. */
    int (*fn)(void *user, const struct s3_part *part);
    void *user;
    struct s3_part part;
};

BOP_MUST_USE int bop__s3_xml_parts(struct bop_allocator *allocator, struct bop_slice body,
                                   struct s3_parts_page *page);

/* ListMultipartUploads. */
struct s3_upload {
    char key[S3_XML_TEXT_MAX];
    char id[1024];
    uint64_t begun_s;
};

struct s3_uploads_page {
    bool truncated;
    bool encoded;
    char next_key[S3_XML_TEXT_MAX];
    char next_id[1024];
    int (*fn)(void *user, const struct s3_upload *upload);
    void *user;
    struct s3_upload upload;
};

BOP_MUST_USE int bop__s3_xml_uploads(struct bop_allocator *allocator, struct bop_slice body,
                                     struct s3_uploads_page *page);

/* The text of one element; BOP_EMALFORMED if it is not there or does not fit. */
BOP_MUST_USE int bop__s3_xml_text(struct bop_allocator *allocator, struct bop_slice body,
                                  const char *path, char *out_text, size_t size);

/* "2026-01-31T12:00:00.000Z" as seconds since 1970; 0 if it is something else. */
uint64_t bop__s3_xml_time(const char *text);

/* ---- s3_request.c ---- */

enum s3_method {
    S3_GET,
    S3_HEAD,
    S3_PUT,
    S3_POST,
    S3_DELETE,
};

#define S3_PARAMS_MAX  6
#define S3_HEADERS_MAX (BOP_OBJECT_META_MAX + 16)

/* Where the answer's body of a successful request goes. */
struct s3_sink {
    struct bop_buf *out; /* NULL: nowhere. */
    size_t start;        /* out->size before the request. */
    uint64_t size_max;   /* More than this is BOP_ECORRUPT. */
    int code;            /* What went wrong. */
};

struct s3_response {
    long status;         /* 0: there was none. */
    struct bop_buf body; /* Of a failure, and of what has no sink. */
    struct bop_object_info info;
    uint64_t content_length; /* UINT64_MAX: not said. */
    bool ranged;             /* There was a Content-Range, of these: */
    uint64_t range_first;
    uint64_t range_last;
    uint64_t range_total; /* UINT64_MAX: not said. */
    char region[64];      /* x-amz-bucket-region. */
    uint64_t retry_after_s;
};

struct s3_request {
    /* What to say of it: "put object a/b". */
    const char *verb;
    const char *key; /* NULL: the bucket. */

    enum s3_method method;
    struct s3_param params[S3_PARAMS_MAX];
    size_t param_count;
    struct curl_slist *headers; /* Beside those that every request has. Freed by the request. */

    const struct bop_object_source *source; /* Of a PUT; NULL: no body. */
    struct bop_slice content;               /* Of a POST. */
    const uint8_t *sha256;                  /* Of either; NULL: computed from content. */
    struct s3_sink sink;
    void (*on_sent)(void *user, uint64_t bytes); /* Bytes of this attempt so far. */
    void *user;

    /* Judge a successful answer: 0, or a code that makes it fail, with err set; BOP_ECORRUPT,
     * BOP_EIO and BOP_EBUSY are tried again. May be NULL. */
    int (*judge)(struct s3 *s3, struct s3_request *request, struct bop_error *err);
    /* 404 and 412 are answers to count on, to be left out of the count of failures. */
    bool may_be_missing;

    /* Out. */
    struct s3_response response;
    struct s3_failure failure;
    int source_code; /* A failed read of the source. */
};

/* Add a header; on failure all are freed and BOP_ENOMEM is returned. */
BOP_MUST_USE int bop__s3_header(struct s3_request *request, const char *name, const char *value);

/* The header that curl of this version would sign wrongly beside the others, or NULL. */
const char *bop__s3_unsignable(const struct curl_slist *headers);

/* Whether curl of this version signs a query with this value in it rightly. */
bool bop__s3_query_signable(const struct s3 *s3, const char *value);

/* Run it: all attempts. Frees the headers. The response is to be freed with bop__s3_done(). */
BOP_MUST_USE int bop__s3_run(struct s3 *s3, struct s3_request *request, struct bop_error *err);
void bop__s3_done(struct s3_request *request);

/* ---- s3_pool.c ---- */

/* Wait for a free slot. 0, BOP_ECANCELED or BOP_ENOMEM. */
BOP_MUST_USE int bop__s3_acquire(struct s3 *s3, struct s3_slot **out_slot);
void bop__s3_release(struct s3 *s3, struct s3_slot *slot);

/* Wait so long; BOP_ECANCELED if that comes first. */
BOP_MUST_USE int bop__s3_pause(struct s3 *s3, uint64_t pause_ms);

/* What a transfer that runs looks at. */
struct s3_transfer {
    uint64_t moved; /* Bytes handed to and from libcurl. */
    int code;       /* BOP_ECANCELED, or BOP_ETIMEOUT for one that stalled; else 0. */
};

/* Run the slot's easy handle to its end. */
CURLcode bop__s3_perform(struct s3 *s3, struct s3_slot *slot, struct s3_transfer *transfer);

void bop__s3_pool_wake(struct s3 *s3);
void bop__s3_pool_destroy(struct s3 *s3);

/* ---- s3_encrypt.c ---- */

enum s3_encrypt_for {
    S3_ENCRYPT_CREATE, /* A put, or the beginning of one in parts: all that there is. */
    S3_ENCRYPT_ACCESS, /* A part, a get, a head: the customer's key only. */
};

BOP_MUST_USE int bop__s3_encrypt(const struct s3 *s3, struct s3_request *request,
                                 enum s3_encrypt_for what);

/* ---- s3_error.c ---- */

/* What one attempt came to, all that a judgement needs. */
struct s3_outcome {
    CURLcode curl;
    const char *curl_text;
    int transfer_code; /* As in s3_transfer. */
    int sink_code;
    int source_code;
    long status;
};

/* The code of an outcome, and whether to try again. 0: it is a success. */
int bop__s3_code(const struct s3_outcome *outcome, const struct s3_failure *failure,
                 bool *out_retry);

/* Set err to what happened and what to do about it. Returns code. */
int bop__s3_explain(const struct s3 *s3, const struct s3_request *request,
                    const struct s3_outcome *outcome, int code, struct bop_error *err);

/* "<verb> <key> in bucket B at E: <formatted>". Returns code. */
BOP_PRINTF(5, 6)
int bop__s3_fail(const struct s3 *s3, const struct s3_request *request, int code,
                 struct bop_error *err, const char *format, ...);

/* ---- s3_object.c, s3_multipart.c, s3_list.c ---- */

BOP_MUST_USE int bop__s3_put(struct bop_object_store *self, struct bop_object_put *put,
                             struct bop_object_info *out_info, struct bop_error *err);
BOP_MUST_USE int bop__s3_get(struct bop_object_store *self, const char *key, uint64_t offset,
                             uint64_t size, struct bop_buf *out, struct bop_error *err);
BOP_MUST_USE int bop__s3_head(struct bop_object_store *self, const char *key,
                              struct bop_object_info *out_info, struct bop_error *err);
BOP_MUST_USE int bop__s3_remove(struct bop_object_store *self, const char *key,
                                struct bop_error *err);
BOP_MUST_USE int bop__s3_list(struct bop_object_store *self, const char *prefix,
                              int (*fn)(void *user, const char *key,
                                        const struct bop_object_info *info),
                              void *user, struct bop_error *err);

/* A HEAD as part of another call: BOP_ENOTFOUND costs no second request. */
BOP_MUST_USE int bop__s3_head_quietly(struct s3 *s3, const char *verb, const char *key,
                                      struct bop_object_info *out_info, struct bop_error *err);

/* True if the object is what this put would make. */
bool bop__s3_same(const struct bop_object_info *info, const struct bop_object_put *put);

/* Headers of a new object: type, digest, user metadata, encryption. */
BOP_MUST_USE int bop__s3_object_headers(const struct s3 *s3, const struct bop_object_put *put,
                                        struct s3_request *request);

/* put in parts, of an object that is not there yet. */
BOP_MUST_USE int bop__s3_put_parts(struct s3 *s3, struct bop_object_put *put,
                                   struct bop_error *err);

/* Ask for the bucket's first key: its answers always say what is wrong. */
BOP_MUST_USE int bop__s3_probe(struct s3 *s3, const char *verb, struct bop_error *err);

#endif
