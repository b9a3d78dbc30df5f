/*
 * Single objects: head, get, remove, and put of what goes in one piece.
 *
 * What is put carries its SHA-256 three times: as the signed digest of the body and as
 * x-amz-checksum-sha256, by which the server refuses a body that changed on its
 * way, and as user metadata, by which a later put finds that there is nothing to
 * do and a later get of the whole sees that it got what was put.
 */
#include "s3.h"

#include <inttypes.h>
#include <stdio.h>

#include <openssl/crypto.h>

#define META_BYTES_MAX 2048 /* Names and values; what S3 allows. */

/* ---- head ---- */

int bop__s3_head_quietly(struct s3 *s3, const char *verb, const char *key,
                         struct bop_object_info *out_info, struct bop_error *err)
{
    struct s3_request request = {
        .verb = verb, .key = key, .method = S3_HEAD, .may_be_missing = true};
    struct bop_error probe_err;
    int rc = bop__s3_encrypt(s3, &request, S3_ENCRYPT_ACCESS);

    rc = rc < 0 ? rc : bop__s3_run(s3, &request, err);
    if (rc == 0) {
        *out_info = request.response.info;
    } else if (rc == BOP_EDENIED || rc == BOP_ECONFIG || rc == BOP_EPROTOCOL) {
        /* An answer to HEAD has no body that would say why: a listing's has. */
        int probe = request.response.status ? bop__s3_probe(s3, verb, &probe_err) : 0;

        if (probe < 0) {
            rc = probe;
            *err = probe_err;
        }
    }
    bop__s3_done(&request);
    return rc;
}

int bop__s3_head(struct bop_object_store *self, const char *key, struct bop_object_info *out_info,
                 struct bop_error *err)
{
    struct s3 *s3 = bop__s3_of(self);
    struct bop_error local, probe_err;
    int rc;

    err = err ? err : &local;
    rc = bop__s3_check_key(s3, "head", key, err);
    rc = rc < 0 ? rc : bop__s3_head_quietly(s3, "head", key, out_info, err);
    /* Relaxed: at worst one request too many. */
    if (rc == BOP_ENOTFOUND && !atomic_load_explicit(&s3->bucket_seen, memory_order_relaxed) &&
        bop__s3_probe(s3, "head", &probe_err) == BOP_ENOTFOUND) {
        *err = probe_err;
    }
    return rc;
}

int bop__s3_probe(struct s3 *s3, const char *verb, struct bop_error *err)
{
    struct s3_request request = {
        .verb = verb,
        .method = S3_GET,
        .params = {{"list-type", "2"}, {"max-keys", "1"}},
        .param_count = 2,
    };
    int rc = bop__s3_run(s3, &request, err);
    char root[8];

    /* Any web server may answer 200. */
    if (rc == 0 && bop__s3_xml_text(s3->allocator, bop_buf_slice(&request.response.body),
                                    "/ListBucketResult/IsTruncated", root, sizeof(root)) != 0) {
        rc = bop__s3_fail(s3, &request, BOP_EPROTOCOL, err,
                          "the answer is not a listing; is this an S3 endpoint?");
    }
    bop__s3_done(&request);
    return rc;
}

/* ---- get ---- */

struct get {
    struct s3_request request;
    uint64_t offset;
    uint64_t last; /* UINT64_MAX: to the end. */
    bool ranged;
};

static int wrong_answer(struct s3 *s3, const struct get *get, struct bop_error *err,
                        const char *what)
{
    return bop__s3_fail(s3, &get->request, BOP_ECORRUPT, err, "%s", what);
}

static int judge_range(struct s3 *s3, const struct get *get, uint64_t got, struct bop_error *err)
{
    const struct s3_response *response = &get->request.response;

    if (response->status != 206 || !response->ranged) {
        return wrong_answer(s3, get, err, "the server left the range out of account");
    }
    if (response->range_first != get->offset || response->range_last > get->last ||
        response->range_last < response->range_first ||
        response->range_last - response->range_first + 1 != got) {
        return wrong_answer(s3, get, err, "the answer is of another range");
    }
    if (response->range_last < get->last && response->range_total != response->range_last + 1) {
        return wrong_answer(s3, get, err, "the answer is short");
    }
    return 0;
}

static int judge_get(struct s3 *s3, struct s3_request *request, struct bop_error *err)
{
    const struct get *get = BOP_CONTAINER_OF(request, struct get, request);
    const struct s3_response *response = &request->response;
    const struct bop_buf *out = request->sink.out;
    uint64_t got = out->size - request->sink.start;
    uint8_t digest[32];

    if (get->ranged) {
        return judge_range(s3, get, got, err);
    }
    if (response->status != 200) {
        return wrong_answer(s3, get, err, "the answer is a part of what was asked for");
    }
    if (response->content_length != UINT64_MAX && response->content_length != got) {
        return wrong_answer(s3, get, err, "the answer is short");
    }
    if (response->info.sha256_known) {
        int rc = bop__s3_sha256(got ? out->data + request->sink.start : NULL, (size_t)got, digest);

        if (rc < 0) {
            return rc;
        }
        if (memcmp(digest, response->info.sha256, sizeof(digest)) != 0) {
            return wrong_answer(s3, get, err, "the content has another SHA-256 than was put");
        }
    }
    return 0;
}

static int add_range(struct get *get)
{
    char text[64];

    if (!get->ranged) {
        return 0;
    }
    if (get->last == UINT64_MAX) {
        snprintf(text, sizeof(text), "bytes=%" PRIu64 "-", get->offset);
    } else {
        snprintf(text, sizeof(text), "bytes=%" PRIu64 "-%" PRIu64, get->offset, get->last);
    }
    return bop__s3_header(&get->request, "Range", text);
}

int bop__s3_get(struct bop_object_store *self, const char *key, uint64_t offset, uint64_t size,
                struct bop_buf *out, struct bop_error *err)
{
    struct s3 *s3 = bop__s3_of(self);
    struct get get = {
        .request = {.verb = "get",
                    .key = key,
                    .method = S3_GET,
                    .sink = {.out = out, .start = out->size, .size_max = size},
                    .judge = judge_get,
                    .may_be_missing = true},
        .offset = offset,
        .ranged = offset > 0 || size < UINT64_MAX,
    };
    struct bop_object_info info = {0};
    int rc = bop__s3_check_key(s3, "get", key, err);

    if (rc < 0) {
        return rc;
    }
    if (size == 0) { /* There is no such range. */
        return bop__s3_head(self, key, &info, err);
    }
    get.last = size > UINT64_MAX - offset ? UINT64_MAX : offset + size - 1;
    rc = add_range(&get);
    rc = rc < 0 ? rc : bop__s3_encrypt(s3, &get.request, S3_ENCRYPT_ACCESS);
    rc = rc < 0 ? rc : bop__s3_run(s3, &get.request, err);
    bop__s3_done(&get.request);
    /* Nothing of the object is that far behind. */
    return rc == BOP_EEND ? 0 : rc;
}

/* ---- remove ---- */

int bop__s3_remove(struct bop_object_store *self, const char *key, struct bop_error *err)
{
    struct s3 *s3 = bop__s3_of(self);
    struct s3_request request = {
        .verb = "remove", .key = key, .method = S3_DELETE, .may_be_missing = true};
    int rc = bop__s3_check_key(s3, "remove", key, err);

    if (rc < 0) {
        return rc;
    }
    rc = bop__s3_run(s3, &request, err);
    /* Some servers say so of an object that is not there. Of a bucket it is another matter. */
    if (rc == BOP_ENOTFOUND && strcmp(request.failure.code, "NoSuchBucket") != 0) {
        rc = 0;
    }
    bop__s3_done(&request);
    return rc;
}

/* ---- put ---- */

bool bop__s3_same(const struct bop_object_info *info, const struct bop_object_put *put)
{
    return info->size == put->source.size && info->sha256_known &&
           memcmp(info->sha256, put->sha256, sizeof(put->sha256)) == 0;
}

static bool meta_ok(const struct bop_object_meta *meta)
{
    if (!meta->name || !meta->name[0] || !meta->value ||
        strspn(meta->name, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(meta->name) ||
        strcmp(meta->name, "bop-sha256") == 0) {
        return false;
    }
    for (const char *at = meta->value; *at; at++) {
        if (*at < ' ' || *at > '~') {
            return false;
        }
    }
    return true;
}

static int check_put(const struct s3 *s3, const struct bop_object_put *put, struct bop_error *err)
{
    int rc = bop__s3_check_key(s3, "put", put->key, err);
    size_t bytes = 0;

    if (rc < 0) {
        return rc;
    }
    if (put->meta_count > BOP_OBJECT_META_MAX) {
        return bop_error_say(err, BOP_EINVAL, "put %.100s: more than %d entries of metadata",
                             put->key, BOP_OBJECT_META_MAX);
    }
    for (size_t i = 0; i < put->meta_count; i++) {
        if (!meta_ok(&put->meta[i])) {
            return bop_error_say(err, BOP_EINVAL,
                                 "put %.100s: entry %zu of the metadata has characters that it "
                                 "must not have",
                                 put->key, i);
        }
        bytes += strlen(put->meta[i].name) + strlen(put->meta[i].value);
    }
    if (bytes > META_BYTES_MAX) {
        return bop_error_say(err, BOP_EINVAL, "put %.100s: more than %d bytes of metadata",
                             put->key, META_BYTES_MAX);
    }
    return 0;
}

int bop__s3_object_headers(const struct s3 *s3, const struct bop_object_put *put,
                           struct s3_request *request)
{
    char hex[S3_HEX_MAX];
    char name[META_BYTES_MAX + 16];
    int rc = bop__s3_header(request, "Content-Type", "application/octet-stream");

    bop__s3_hex(put->sha256, hex);
    rc = rc < 0 ? rc : bop__s3_header(request, S3_SHA256_META, hex);
    for (size_t i = 0; rc == 0 && i < put->meta_count; i++) {
        snprintf(name, sizeof(name), "x-amz-meta-%s", put->meta[i].name);
        rc = bop__s3_header(request, name, put->meta[i].value);
    }
    return rc < 0 ? rc : bop__s3_encrypt(s3, request, S3_ENCRYPT_CREATE);
}

static void on_sent(void *user, uint64_t bytes)
{
    struct bop_object_put *put = user;

    put->on_progress(put->user, bytes);
}

static int put_whole(struct s3 *s3, struct bop_object_put *put, struct bop_error *err)
{
    struct s3_request request = {
        .verb = "put",
        .key = put->key,
        .method = S3_PUT,
        .source = &put->source,
        .sha256 = put->sha256,
        .on_sent = put->on_progress ? on_sent : NULL,
        .user = put,
        .may_be_missing = put->only_new,
    };
    char digest[S3_BASE64_MAX];
    int rc = bop__s3_object_headers(s3, put, &request);

    bop__s3_base64(put->sha256, 32, digest);
    rc = rc < 0 ? rc : bop__s3_header(&request, "x-amz-checksum-sha256", digest);
    if (rc == 0 && put->only_new) {
        rc = bop__s3_header(&request, "If-None-Match", "*");
    }
    rc = rc < 0 ? rc : bop__s3_run(s3, &request, err);
    bop__s3_done(&request);
    return rc;
}

static void forget_upload(struct bop_object_put *put)
{
    if (put->upload_id[0]) {
        put->upload_id[0] = '\0';
        if (put->on_upload_id) {
            put->on_upload_id(put->user, "");
        }
    }
}

/* The object came to be there while we put it: by us, if an answer was lost, or by others. */
static int settle_condition(struct s3 *s3, struct bop_object_put *put, struct bop_error *err)
{
    struct bop_object_info info = {0};
    struct bop_error head_err;
    int rc = bop__s3_head_quietly(s3, "put", put->key, &info, &head_err);

    if (rc < 0) {
        *err = head_err;
        return rc;
    }
    return bop__s3_same(&info, put) ? 0 : BOP_ECONDITION;
}

/* Nothing of it is there: send it. */
static int put_new(struct s3 *s3, struct bop_object_put *put, struct bop_error *err)
{
    int rc = put->source.size > s3->part_bytes ? bop__s3_put_parts(s3, put, err)
                                               : put_whole(s3, put, err);

    return rc == BOP_ECONDITION ? settle_condition(s3, put, err) : rc;
}

int bop__s3_put(struct bop_object_store *self, struct bop_object_put *put,
                struct bop_object_info *out_info, struct bop_error *err)
{
    struct s3 *s3 = bop__s3_of(self);
    struct s3_request named = {.verb = "put", .key = put->key};
    struct bop_object_info info = {0};
    struct bop_error local;
    int rc;

    err = err ? err : &local;
    rc = check_put(s3, put, err);
    if (rc < 0) {
        return rc;
    }
    rc = bop__s3_head_quietly(s3, "put", put->key, &info, err);
    if (rc == 0 && bop__s3_same(&info, put)) {
        forget_upload(put);
    } else if (rc == 0 && put->only_new) {
        return bop__s3_fail(s3, &named, BOP_ECONDITION, err, "there is one with other content");
    } else if (rc == 0 || rc == BOP_ENOTFOUND) {
        rc = put_new(s3, put, err);
        if (rc == 0) {
            forget_upload(put);
        }
        /* What the server says is there now, not what we hope. */
        if (rc == 0 && out_info) {
            rc = bop__s3_head_quietly(s3, "put", put->key, &info, err);
        }
    }
    if (rc == 0 && out_info) {
        *out_info = info;
    }
    return rc;
}
