/*
 * Puts in parts.
 *
 *      create -> part 1 .. n -> complete
 *         \         |
 *          \        +-- cut off: the caller keeps the upload's token, and a later put goes on
 *           +---------- failed for good: abort
 *
 * The token names what is put as well as the upload, so that one that belongs
 * to other content, or to parts of another size, is not gone on with:
 *
 *      <32 hex digits of the content's SHA-256>.<bytes of a part>.<the server's upload id>
 *
 * A resumed upload asks the server which parts it has, and sends those anew
 * whose SHA-256 is not that of our own bytes. All parts together must have the digest
 * that the put was ordered with, before the upload is completed.
 */
#include "s3.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/evp.h>

#include <bop/clock.h>

#define READ_BYTES   262144
#define TOKEN_DIGITS 32

struct part {
    char etag[72];              /* Empty: it is not there. */
    char sha256[S3_BASE64_MAX]; /* Of what is there, as the server says; later, of ours. */
};

struct upload {
    struct s3 *s3;
    struct bop_object_put *put;
    struct bop_error *err;
    char id[1024];
    uint64_t part_bytes;
    unsigned count;
    struct part *parts; /* count of them. */
    EVP_MD_CTX *whole;
    uint8_t *buffer; /* READ_BYTES. */
    uint64_t sent;   /* Of parts that are done. */
    bool resumed;
};

/* ---- The token ---- */

static void token_write(const struct upload *upload, char *out, size_t size)
{
    char hex[S3_HEX_MAX];

    bop__s3_hex(upload->put->sha256, hex);
    snprintf(out, size, "%.*s.%" PRIu64 ".%s", TOKEN_DIGITS, hex, upload->part_bytes, upload->id);
}

/* False if there is none, or it is of something else. */
static bool token_read(struct upload *upload)
{
    const char *token = upload->put->upload_id;
    uint64_t size = upload->put->source.size;
    unsigned long long part_bytes;
    char hex[S3_HEX_MAX];
    int used = 0;

    bop__s3_hex(upload->put->sha256, hex);
    if (strncmp(token, hex, TOKEN_DIGITS) != 0 || token[TOKEN_DIGITS] != '.' ||
        sscanf(token + TOKEN_DIGITS + 1, "%19llu.%n", &part_bytes, &used) != 1 || used == 0) {
        return false;
    }
    if (part_bytes < S3_PART_BYTES_MIN || part_bytes > S3_PART_BYTES_MAX ||
        (size + part_bytes - 1) / part_bytes > S3_PARTS_MAX) {
        return false;
    }
    upload->part_bytes = part_bytes;
    snprintf(upload->id, sizeof(upload->id), "%s", token + TOKEN_DIGITS + 1 + used);
    return upload->id[0] != '\0';
}

static void tell(const struct upload *upload, const char *token)
{
    struct bop_object_put *put = upload->put;

    snprintf(put->upload_id, sizeof(put->upload_id), "%s", token);
    if (put->on_upload_id) {
        put->on_upload_id(put->user, put->upload_id);
    }
}

/* ---- Requests ---- */

static int run(struct upload *upload, struct s3_request *request, int rc)
{
    request->verb = "put";
    request->key = upload->put->key;
    return rc < 0 ? rc : bop__s3_run(upload->s3, request, upload->err);
}

static int create(struct upload *upload)
{
    struct s3 *s3 = upload->s3;
    struct s3_request request = {.method = S3_POST, .params = {{"uploads", ""}}, .param_count = 1};
    char token[sizeof(upload->put->upload_id) + 64];
    int rc = bop__s3_object_headers(s3, upload->put, &request);

    rc = rc < 0 ? rc : bop__s3_header(&request, "x-amz-checksum-algorithm", "SHA256");
    rc = run(upload, &request, rc);
    if (rc == 0 && bop__s3_xml_text(s3->allocator, bop_buf_slice(&request.response.body),
                                    "/InitiateMultipartUploadResult/UploadId", upload->id,
                                    sizeof(upload->id)) != 0) {
        rc = bop__s3_fail(s3, &request, BOP_ECORRUPT, upload->err,
                          "the server began an upload and gave no id");
    }
    bop__s3_done(&request);
    if (rc < 0) {
        return rc;
    }
    token_write(upload, token, sizeof(token));
    if (strlen(token) < sizeof(upload->put->upload_id)) {
        tell(upload, token);
    } /* Else it cannot be resumed, and all is well but for that. */
    return 0;
}

static int on_listed(void *user, const struct s3_part *listed)
{
    struct upload *upload = user;
    uint64_t at, size;

    if (listed->number > upload->count) {
        return BOP_EMALFORMED;
    }
    at = (listed->number - 1) * upload->part_bytes;
    size = bop_min_u64(upload->part_bytes, upload->put->source.size - at);
    if (listed->size == size && listed->sha256[0]) {
        struct part *part = &upload->parts[listed->number - 1];

        memcpy(part->etag, listed->etag, sizeof(part->etag));
        memcpy(part->sha256, listed->sha256, sizeof(part->sha256));
    }
    return 0;
}

/* Which parts are there. BOP_ENOTFOUND: the upload is not. */
static int list_parts(struct upload *upload)
{
    struct s3 *s3 = upload->s3;
    struct s3_parts_page page = {.fn = on_listed, .user = upload};
    char marker[16];
    unsigned from = 0;
    int rc;

    do {
        struct s3_request request = {
            .method = S3_GET,
            .params = {{"part-number-marker", marker}, {"uploadId", upload->id}},
            .param_count = 2,
            .may_be_missing = true,
        };

        snprintf(marker, sizeof(marker), "%u", from);
        rc = run(upload, &request, bop__s3_encrypt(s3, &request, S3_ENCRYPT_ACCESS));
        if (rc == 0) {
            rc = bop__s3_xml_parts(s3->allocator, bop_buf_slice(&request.response.body), &page);
            if (rc != 0 || (page.truncated && page.next <= from)) {
                rc = bop__s3_fail(s3, &request, rc == BOP_ENOMEM ? rc : BOP_ECORRUPT, upload->err,
                                  "the list of parts cannot be read");
            }
        }
        bop__s3_done(&request);
        from = page.next;
    } while (rc == 0 && page.truncated);
    return rc;
}

static int abort_upload(struct s3 *s3, const char *verb, const char *key, const char *id,
                        struct bop_error *err)
{
    struct s3_request request = {
        .verb = verb,
        .key = key,
        .method = S3_DELETE,
        .params = {{"uploadId", id}},
        .param_count = 1,
        .may_be_missing = true,
    };
    int rc = bop__s3_run(s3, &request, err);

    if (rc == BOP_ENOTFOUND && strcmp(request.failure.code, "NoSuchBucket") != 0) {
        rc = 0;
    }
    bop__s3_done(&request);
    return rc;
}

/* ---- Parts ---- */

static int read_some(struct upload *upload, uint64_t at, size_t size)
{
    const struct bop_object_source *source = &upload->put->source;

    if (source->fs) {
        return bop_fs_read_exact(source->fs, source->fd, upload->buffer, size, source->offset + at);
    }
    memcpy(upload->buffer, (const uint8_t *)source->bytes + source->offset + at, size);
    return 0;
}

/* The digest of a part; the whole's goes on. */
static int hash_part(struct upload *upload, uint64_t at, uint64_t size, uint8_t out_digest[32])
{
    struct s3_request named = {.verb = "put", .key = upload->put->key};
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    int rc = hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1 ? 0 : BOP_ENOMEM;

    while (rc == 0 && size > 0) {
        size_t some = (size_t)bop_min_u64(size, READ_BYTES);

        rc = read_some(upload, at, some);
        if (rc == 0 && (EVP_DigestUpdate(hash, upload->buffer, some) != 1 ||
                        EVP_DigestUpdate(upload->whole, upload->buffer, some) != 1)) {
            rc = BOP_ENOMEM;
        }
        at += some;
        size -= some;
    }
    if (rc == 0 && EVP_DigestFinal_ex(hash, out_digest, NULL) != 1) {
        rc = BOP_ENOMEM;
    }
    EVP_MD_CTX_free(hash);
    if (rc < 0) {
        bop__s3_fail(upload->s3, &named, rc, upload->err, "read what is to be sent: %s",
                     bop_strerror(rc));
    }
    return rc;
}

static void on_part_sent(void *user, uint64_t bytes)
{
    struct upload *upload = user;

    upload->put->on_progress(upload->put->user, upload->sent + bytes);
}

static int send_part(struct upload *upload, unsigned number, const struct bop_object_source *source,
                     const uint8_t digest[32], struct part *part)
{
    char text[16];
    struct s3_request request = {
        .method = S3_PUT,
        .params = {{"partNumber", text}, {"uploadId", upload->id}},
        .param_count = 2,
        .source = source,
        .sha256 = digest,
        .on_sent = upload->put->on_progress ? on_part_sent : NULL,
        .user = upload,
        .may_be_missing = true,
    };
    int rc;

    snprintf(text, sizeof(text), "%u", number);
    rc = bop__s3_header(&request, "x-amz-checksum-sha256", part->sha256);
    rc = rc < 0 ? rc : bop__s3_encrypt(upload->s3, &request, S3_ENCRYPT_ACCESS);
    rc = run(upload, &request, rc);
    if (rc == 0 && !request.response.info.etag[0]) {
        rc = bop__s3_fail(upload->s3, &request, BOP_EPROTOCOL, upload->err,
                          "the server gave no ETag of part %u", number);
    }
    if (rc == 0) {
        memcpy(part->etag, request.response.info.etag, sizeof(part->etag));
    }
    bop__s3_done(&request);
    return rc;
}

static int do_part(struct upload *upload, unsigned number)
{
    struct part *part = &upload->parts[number - 1];
    struct bop_object_source source = upload->put->source;
    uint64_t at = (number - 1) * upload->part_bytes;
    char there[S3_BASE64_MAX];
    uint8_t digest[32];
    int rc;

    source.offset += at;
    source.size = bop_min_u64(upload->part_bytes, source.size - at);
    rc = hash_part(upload, at, source.size, digest);
    if (rc < 0) {
        return rc;
    }
    memcpy(there, part->sha256, sizeof(there));
    bop__s3_base64(digest, 32, part->sha256);
    if (!part->etag[0] || strcmp(there, part->sha256) != 0) {
        rc = send_part(upload, number, &source, digest, part);
    }
    if (rc == 0) {
        upload->sent += source.size;
        if (upload->put->on_progress) {
            upload->put->on_progress(upload->put->user, upload->sent);
        }
    }
    return rc;
}

/* ---- Complete ---- */

static int append_text(struct bop_buf *out, const char *text)
{
    return bop_buf_append(out, text, strlen(text));
}

static int write_parts(const struct upload *upload, struct bop_buf *out)
{
    char text[256];
    int rc = append_text(
        out, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");

    for (unsigned i = 0; rc == 0 && i < upload->count; i++) {
        snprintf(text, sizeof(text),
                 "<Part><PartNumber>%u</PartNumber><ETag>&quot;%s&quot;</ETag>"
                 "<ChecksumSHA256>%s</ChecksumSHA256></Part>",
                 i + 1, upload->parts[i].etag, upload->parts[i].sha256);
        rc = append_text(out, text);
    }
    return rc < 0 ? rc : append_text(out, "</CompleteMultipartUpload>");
}

/* The server may have said 200 before it knew. An <Error> has been dealt with already. */
static int judge_complete(struct s3 *s3, struct s3_request *request, struct bop_error *err)
{
    char key[S3_XML_TEXT_MAX];

    if (bop__s3_xml_text(s3->allocator, bop_buf_slice(&request->response.body),
                         "/CompleteMultipartUploadResult/Key", key, sizeof(key)) != 0) {
        return bop__s3_fail(s3, request, BOP_EIO, err,
                            "the server did not say whether the upload is complete");
    }
    return 0;
}

static int complete(struct upload *upload)
{
    struct s3 *s3 = upload->s3;
    struct s3_request request = {
        .method = S3_POST,
        .params = {{"uploadId", upload->id}},
        .param_count = 1,
        .judge = judge_complete,
        .may_be_missing = true,
    };
    struct bop_buf body;
    int rc;

    bop_buf_init(&body, s3->allocator, 0);
    rc = write_parts(upload, &body);
    request.content = bop_buf_slice(&body);
    rc = rc < 0 ? rc : bop__s3_header(&request, "Content-Type", "application/xml");
    rc = rc < 0 ? rc : bop__s3_encrypt(s3, &request, S3_ENCRYPT_ACCESS);
    if (rc == 0 && upload->put->only_new) {
        rc = bop__s3_header(&request, "If-None-Match", "*");
    }
    rc = run(upload, &request, rc);
    bop__s3_done(&request);
    bop_buf_deinit(&body);
    return rc;
}

/* ---- All of it ---- */

static int check_whole(struct upload *upload)
{
    struct s3_request named = {.verb = "put", .key = upload->put->key};
    uint8_t digest[32];

    if (EVP_DigestFinal_ex(upload->whole, digest, NULL) != 1) {
        return bop__s3_fail(upload->s3, &named, BOP_ENOMEM, upload->err, "out of memory");
    }
    if (memcmp(digest, upload->put->sha256, sizeof(digest)) != 0) {
        return bop__s3_fail(upload->s3, &named, BOP_ECORRUPT, upload->err,
                            "the content is not what its SHA-256 was made of");
    }
    return 0;
}

static int prepare(struct upload *upload)
{
    struct s3 *s3 = upload->s3;
    uint64_t size = upload->put->source.size;
    uint64_t needed = (size + S3_PARTS_MAX - 1) / S3_PARTS_MAX;

    upload->resumed = token_read(upload);
    if (!upload->resumed) {
        upload->part_bytes = bop_max_u64(s3->part_bytes, needed);
    }
    if (upload->part_bytes > S3_PART_BYTES_MAX) {
        return BOP_ETOOBIG;
    }
    upload->count = (unsigned)((size + upload->part_bytes - 1) / upload->part_bytes);
    upload->parts = bop_alloc_array(s3->allocator, upload->count, sizeof(*upload->parts));
    upload->buffer = bop_alloc(s3->allocator, READ_BYTES);
    upload->whole = EVP_MD_CTX_new();
    if (!upload->parts || !upload->buffer || !upload->whole ||
        EVP_DigestInit_ex(upload->whole, EVP_sha256(), NULL) != 1) {
        return BOP_ENOMEM;
    }
    return 0;
}

static void clean_up(struct upload *upload)
{
    if (upload->parts) {
        bop_free(upload->s3->allocator, upload->parts, upload->count * sizeof(*upload->parts));
    }
    if (upload->buffer) {
        bop_free(upload->s3->allocator, upload->buffer, READ_BYTES);
    }
    EVP_MD_CTX_free(upload->whole);
}

static int begin(struct upload *upload)
{
    int rc;

    if (upload->resumed) {
        rc = list_parts(upload);
        if (rc != BOP_ENOTFOUND) {
            return rc;
        }
        bop_log(upload->s3->log, BOP_LOG_INFO, "s3", "upload is gone, beginning anew key=\"%s\"",
                upload->put->key);
        upload->resumed = false;
    }
    return create(upload);
}

static int send_all(struct upload *upload)
{
    int rc = begin(upload);

    for (unsigned number = 1; rc == 0 && number <= upload->count; number++) {
        rc = do_part(upload, number);
    }
    rc = rc < 0 ? rc : check_whole(upload);
    return rc < 0 ? rc : complete(upload);
}

/* No later attempt could end otherwise: what is there of it only costs money. */
static bool is_final(int code)
{
    return code == BOP_ECORRUPT || code == BOP_ECONDITION || code == BOP_ETRUNCATED ||
           code == BOP_EUNSUPPORTED || code == BOP_ETOOBIG;
}

static int put_once(struct upload *upload)
{
    struct s3_request named = {.verb = "put", .key = upload->put->key};
    struct bop_error ignored;
    int rc = prepare(upload);

    if (rc < 0) {
        bop__s3_fail(upload->s3, &named, rc, upload->err, "%s", bop_strerror(rc));
    } else {
        rc = send_all(upload);
    }
    if (is_final(rc) && upload->id[0]) {
        BOP_IGNORE(abort_upload(upload->s3, "put", upload->put->key, upload->id, &ignored));
        tell(upload, "");
    }
    clean_up(upload);
    return rc;
}

int bop__s3_put_parts(struct s3 *s3, struct bop_object_put *put, struct bop_error *err)
{
    struct bop_object_info info = {0};
    struct bop_error head_err;
    int rc;

    for (unsigned turn = 0;; turn++) {
        struct upload upload = {.s3 = s3, .put = put, .err = err};

        rc = put_once(&upload);
        if (rc != BOP_ENOTFOUND || !upload.id[0]) {
            return rc;
        }
        /* The upload is gone under us: completed, if an answer was lost, or aborted. */
        tell(&upload, "");
        if (bop__s3_head_quietly(s3, "put", put->key, &info, &head_err) == 0 &&
            bop__s3_same(&info, put)) {
            return 0;
        }
        if (turn == 1) {
            return bop_error_say(err, BOP_EIO,
                                 "put %.160s in bucket %s at %s: somebody aborts "
                                 "the upload; two writers of one key?",
                                 put->key, s3->bucket, s3->endpoint);
        }
    }
}

/* ---- Uploads that nobody goes on with ---- */

struct sweep {
    struct s3 *s3;
    uint64_t begun_before_s;
    unsigned count;
    struct bop_error *err;
    int result;
};

static int on_listed_upload(void *user, const struct s3_upload *upload)
{
    struct sweep *sweep = user;
    const char *prefix = sweep->s3->prefix;
    size_t size = strlen(prefix);

    if (strncmp(upload->key, prefix, size) != 0 || !upload->key[size] ||
        upload->begun_s > sweep->begun_before_s) {
        return 0;
    }
    sweep->result = abort_upload(sweep->s3, "abort an upload of", upload->key + size, upload->id,
                                 sweep->err);
    sweep->count += sweep->result == 0;
    return sweep->result;
}

static int sweep_page(struct sweep *sweep, struct s3_uploads_page *page, const char *prefix,
                      const char *key, const char *id)
{
    struct s3 *s3 = sweep->s3;
    struct s3_request request = {
        .verb = "list uploads in", .method = S3_GET, .params = {{"encoding-type", "url"}}};
    int rc;

    request.param_count = 1;
    if (key[0]) {
        request.params[request.param_count++] = (struct s3_param){"key-marker", key};
    }
    request.params[request.param_count++] = (struct s3_param){"prefix", prefix};
    if (key[0] && id[0]) {
        request.params[request.param_count++] = (struct s3_param){"upload-id-marker", id};
    }
    request.params[request.param_count++] = (struct s3_param){"uploads", ""};
    rc = bop__s3_run(s3, &request, sweep->err);
    if (rc == 0) {
        rc = bop__s3_xml_uploads(s3->allocator, bop_buf_slice(&request.response.body), page);
        if (sweep->result != 0) {
            rc = sweep->result;
        } else if (rc != 0) {
            rc = bop__s3_fail(s3, &request, rc == BOP_ENOMEM ? rc : BOP_ECORRUPT, sweep->err,
                              "the list of uploads cannot be read");
        }
    }
    bop__s3_done(&request);
    return rc;
}

static int sweep_all(struct sweep *sweep, struct s3_uploads_page *page, const char *prefix)
{
    char key[S3_XML_TEXT_MAX] = "";
    char id[1024] = "";
    int rc;

    do {
        rc = sweep_page(sweep, page, prefix, key, id);
        if (rc == 0 && page->truncated && strcmp(page->next_key, key) == 0 &&
            strcmp(page->next_id, id) == 0) {
            rc = bop_error_say(sweep->err, BOP_ECORRUPT,
                               "list uploads in bucket %s at %s: the listing does not end",
                               sweep->s3->bucket, sweep->s3->endpoint);
        }
        memcpy(key, page->next_key, sizeof(key));
        memcpy(id, page->next_id, sizeof(id));
    } while (rc == 0 && page->truncated);
    return rc;
}

int bop_s3_abort_uploads(struct bop_object_store *store, const char *prefix, uint64_t older_than_s,
                         unsigned *out_count, struct bop_error *err)
{
    struct s3 *s3 = bop__s3_of(store);
    uint64_t now_s = bop_clock_wall_ms(bop_clock_system()) / 1000;
    struct bop_error local;
    struct sweep sweep = {.s3 = s3, .err = err ? err : &local};
    char whole[BOP_OBJECT_KEY_MAX + 1];
    struct s3_uploads_page *page;
    int rc;

    if (store->put != bop__s3_put) {
        return bop_error_say(err, BOP_EINVAL, "abort uploads: this is no S3 store");
    }
    if ((size_t)snprintf(whole, sizeof(whole), "%s%s", s3->prefix, prefix ? prefix : "") >=
        sizeof(whole)) {
        return bop_error_say(err, BOP_EINVAL, "abort uploads: the prefix is longer than a key");
    }
    /* 0 means all, whatever the clocks say. */
    sweep.begun_before_s = older_than_s == 0      ? UINT64_MAX
                           : older_than_s > now_s ? 0
                                                  : now_s - older_than_s;
    page = bop_alloc_zeroed(s3->allocator, sizeof(*page));
    if (!page) {
        return bop_error_set(err, BOP_ENOMEM, "abort uploads");
    }
    page->fn = on_listed_upload;
    page->user = &sweep;
    rc = sweep_all(&sweep, page, whole);
    bop_free(s3->allocator, page, sizeof(*page));
    if (rc == 0 && out_count) {
        *out_count = sweep.count;
    }
    return rc;
}
