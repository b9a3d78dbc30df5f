/*
 * Where objects live: a flat space of keys with bytes, as S3 offers it, as an
 * interface, so that the same code runs on a real server and on one that fails.
 *
 * All calls block, for long if the network does; call them from a worker's thread. Any
 * number of threads may call at once. Each call has its own limit of time and
 * retries; the code it returns is the last attempt's:
 *
 *   BOP_ENOTFOUND  there is no such object (or bucket: the message says which)
 *   BOP_EDENIED    credentials, signature or clock are wrong, or rights are missing: retrying does
 *                  not help
 *   BOP_ECONFIG    the certificate, address, region or bucket name is wrong: likewise
 *   BOP_ECONDITION the object is there already and only_new was asked for
 *   BOP_ECORRUPT   what came back is not what was asked for or what its digest says
 *   BOP_EBUSY      the server throttles, BOP_ETIMEOUT, BOP_EIO: worth another try later
 *   BOP_ECANCELED  bop_object_store.cancel was called
 */
#ifndef BOP_OBJECT_STORE_H
#define BOP_OBJECT_STORE_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/error.h>
#include <bop/fs.h>
#include <bop/log.h>
#include <bop/metrics.h>
#include <bop/slice.h>

#define BOP_OBJECT_KEY_MAX  1024 /* Bytes of a key without the NUL. */
#define BOP_OBJECT_META_MAX 16   /* Entries of user metadata. */

/** User metadata: name in lower case letters, digits and dashes; value in printable ASCII. */
struct bop_object_meta {
    const char *name;
    const char *value;
};

/** What is known of an object. */
struct bop_object_info {
    uint64_t size;
    uint64_t modified_s; /* Seconds since 1970. */
    char etag[72];       /* Without quotes; empty if the store has none. */
    uint8_t sha256[32];  /* Of the content, as put by us; zeros if unknown. */
    bool sha256_known;
};

/** Content to put: size bytes from offset on, of a file, or of memory when fs is NULL. */
struct bop_object_source {
    struct bop_fs *fs;
    int fd;
    uint64_t offset;
    uint64_t size;
    const void *bytes;
};

struct bop_object_put {
    const char *key;
    struct bop_object_source source;
    const struct bop_object_meta *meta;
    size_t meta_count;
    uint8_t sha256[32]; /* Of the content. Required: it is what makes a put idempotent. */
    bool only_new;      /* BOP_ECONDITION instead of replacing an object of other content. */
    /* An upload id of an earlier attempt that was cut off, to go on with; the store writes the one
     * in use here as soon as it has one ("" when none is), and calls on_upload_id, if set, so that
     * it can be kept. One that is of other content, or is gone, is left out of account. */
    char upload_id[1024];
    void (*on_upload_id)(void *user, const char *upload_id);
    /* Bytes sent so far, fewer again when some are sent once more; may be NULL. */
    void (*on_progress)(void *user, uint64_t bytes);
    void *user;
};

struct bop_object_store {
    /* Put an object. One that is there with the same size and digest is left as it is (a HEAD
     * comes first): then out_info says so all the same. out_info, which costs a HEAD afterwards,
     * may be NULL. */
    int (*put)(struct bop_object_store *self, struct bop_object_put *put,
               struct bop_object_info *out_info, struct bop_error *err);
    /* Append [offset, offset + size) to out; less if the object ends before. size
     * UINT64_MAX: all of it. out's size_max bounds memory: BOP_ETOOBIG. */
    int (*get)(struct bop_object_store *self, const char *key, uint64_t offset, uint64_t size,
               struct bop_buf *out, struct bop_error *err);
    int (*head)(struct bop_object_store *self, const char *key, struct bop_object_info *out_info,
                struct bop_error *err);
    /* Deleting what is not there is fine. */
    int (*remove)(struct bop_object_store *self, const char *key, struct bop_error *err);
    /* Call fn for each key with this prefix, in byte order; a non-zero result ends the walk and is
     * returned. A store may list late or, after a deletion, what is gone. Listings know no
     * digests. fn may call the store. */
    int (*list)(struct bop_object_store *self, const char *prefix,
                int (*fn)(void *user, const char *key, const struct bop_object_info *info),
                void *user, struct bop_error *err);
    /* Every call under way and to come returns BOP_ECANCELED soon. Any thread. */
    void (*cancel)(struct bop_object_store *self);
    void (*destroy)(struct bop_object_store *self);
};

/* ---- S3 and what is compatible with it ---- */

enum bop_s3_encryption {
    BOP_S3_ENCRYPTION_NONE,
    BOP_S3_ENCRYPTION_S3,       /* SSE-S3: the server's key. */
    BOP_S3_ENCRYPTION_KMS,      /* SSE-KMS: kms_key_id, kms_context. */
    BOP_S3_ENCRYPTION_CUSTOMER, /* SSE-C: customer_key; sent with every put, get and head. TLS only.
                                 */
};

/** Strings are copied. NULL means none or the default. */
struct bop_s3_options {
    struct bop_allocator *allocator; /* Borrowed until destroy. Default: the process's. */
    struct bop_log *log;             /* Borrowed. Default: none. */
    struct bop_metrics *metrics;     /* Borrowed. Default: none. */
    const char *endpoint;            /* "https://host[:port]". Required. */
    const char *region;              /* Default "us-east-1". */
    const char *bucket;              /* Required. */
    const char *prefix;              /* Before every key, with a slash between. Default: none. */
    const char *access_key;          /* NULL: requests are not signed. */
    const char *secret_key;
    const char *session_token;
    const char *ca_file; /* PEM, instead of the system's. */
    bool virtual_host;   /* bucket.host instead of host/bucket. */
    enum bop_s3_encryption encryption;
    const char *kms_key_id;
    const char *kms_context;
    const uint8_t *customer_key; /* 32 bytes. */
    uint64_t part_bytes; /* A bigger object is put in parts. Default 16 MiB, at least 5 MiB. */
    unsigned attempts;   /* Of each request. Default 4. */
    unsigned backoff_ms; /* Before the second, doubled each time, with jitter. Default 100. */
    unsigned connect_timeout_ms; /* Default 5,000. */
    unsigned stall_timeout_ms;   /* A transfer that moves no byte so long. Default 15,000. */
    unsigned connections_max;    /* At once; more calls wait. Default 8. */
};

/**
 * Check the options and make a client. Nothing is sent yet. 0, BOP_ECONFIG,
 * BOP_ENOMEM, or BOP_EUNSUPPORTED if this libcurl cannot sign requests with such
 * encryption (before 8.10: KMS with a key id or context, and CUSTOMER).
 */
BOP_API BOP_MUST_USE int bop_s3_create(const struct bop_s3_options *options,
                                       struct bop_object_store **out_store, struct bop_error *err);

/**
 * One request that shows whether address, certificate, clock, credentials and bucket are right,
 * with an error that names the one that is not and says what to do.
 */
BOP_API BOP_MUST_USE int bop_s3_check(struct bop_object_store *store, struct bop_error *err);

/**
 * Abort the uploads in parts of keys with this prefix that were begun more than
 * older_than_s seconds ago (0: all), which nobody will go on with: their parts
 * cost money and are not listed. out_count, how many, may be NULL.
 */
BOP_API BOP_MUST_USE int bop_s3_abort_uploads(struct bop_object_store *store, const char *prefix,
                                              uint64_t older_than_s, unsigned *out_count,
                                              struct bop_error *err);

#endif
