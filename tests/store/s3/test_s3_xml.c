/*
 * What the S3 client makes of answers, without a network: XML that is well, odd
 * or hostile, and the names on the wire.
 */
#include "store/s3/s3.h"

#include <stdio.h>

#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct s3_page page;
    struct s3_parts_page parts;
    struct s3_uploads_page uploads;
    struct s3_failure failure;
    char seen[512];
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
}

static void teardown(struct fixture *f)
{
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static int see_key(void *user, const char *key, const struct bop_object_info *info)
{
    struct fixture *f = user;
    size_t used = strlen(f->seen);

    snprintf(f->seen + used, sizeof(f->seen) - used, "%s=%d@%d ", key, (int)info->size,
             (int)info->modified_s);
    return strcmp(key, "stop") == 0 ? 7 : 0;
}

static int page(struct fixture *f, const char *text)
{
    f->seen[0] = '\0';
    f->page.fn = see_key;
    f->page.user = f;
    return bop__s3_xml_page(&f->heap.allocator, bytes(text), &f->page);
}

#define LIST(inside) "<ListBucketResult xmlns=\"urn:x\">" inside "</ListBucketResult>"
#define KEY(key)     "<Contents><Key>" key "</Key><Size>5</Size></Contents>"

TEST(s3_xml, reads_a_page)
{
    CHECK_EQ(page(f, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" LIST(
                         "<Name>b</Name><IsTruncated>true</IsTruncated>"
                         "<NextContinuationToken> a/b+=&amp; </NextContinuationToken>"
                         "<Contents><Key>a%2Fb</Key><Size>12</Size>"
                         "<LastModified>2001-09-09T01:46:40.000Z</LastModified>"
                         "<ETag>&quot;abc&quot;</ETag><Owner><ID>x</ID></Owner></Contents>" KEY(
                             "c+d%2b%C3%BC") "<EncodingType>url</EncodingType>")),
             0);
    CHECK_STR_EQ(f->seen, "a/b=12@1000000000 c d+\xc3\xbc=5@0 ");
    CHECK(f->page.truncated);
    CHECK_STR_EQ(f->page.token, "a/b+=&");
    CHECK_EQ(f->page.keys, 2);
}

TEST(s3_xml, leaves_keys_as_they_are_without_an_encoding)
{
    CHECK_EQ(page(f, LIST(KEY("a%2Fb+c"))), 0);
    CHECK_STR_EQ(f->seen, "a%2Fb+c=5@0 ");
    CHECK(!f->page.truncated);
}

TEST(s3_xml, ends_a_page_when_told_to)
{
    CHECK_EQ(page(f, LIST(KEY("a") KEY("stop") KEY("z"))), 7);
    CHECK_STR_EQ(f->seen, "a=5@0 stop=5@0 ");
}

/* Each is refused, and none of them is looked at further. */
TEST(s3_xml, refuses_what_is_no_listing)
{
    static const char *const texts[] = {
        "",
        "no XML",
        "<ListBucketResult>",
        "<html><body>Welcome</body></html>",
        LIST("<Contents><Key></Key></Contents>"),
        LIST("<Contents><Size>5</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size>-1</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size>99999999999999999999</Size></Contents>"),
        LIST("<Contents><Key>a</Key><ETag>a&lt;b</ETag></Contents>"),
        LIST("<EncodingType>url</EncodingType>" KEY("a%2")),
        LIST("<EncodingType>url</EncodingType>" KEY("a%00")),
        LIST("") "<More/>",
        "<!DOCTYPE l [<!ENTITY a \"x\">]>" LIST(KEY("&a;")),
        "<!DOCTYPE l SYSTEM \"file:///etc/passwd\">" LIST(KEY("a")),
        LIST(KEY("&undefined;")),
    };

    for (size_t i = 0; i < BOP_COUNT_OF(texts); i++) {
        int rc = page(f, texts[i]);

        if (rc != BOP_EMALFORMED) {
            test_note("text %zu", i);
        }
        CHECK_EQ(rc, BOP_EMALFORMED);
        CHECK_STR_EQ(f->seen, "");
    }
}

TEST(s3_xml, bounds_depth_and_text)
{
    char text[3 * S3_XML_TEXT_MAX] = "<ListBucketResult>";

    CHECK_EQ(page(f, "<a><a><a><a><a><a><a><a><a></a></a></a></a></a></a></a></a></a>"),
             BOP_ETOOBIG); /* 9 deep. */
    for (size_t i = 0; i < 2 * S3_XML_TEXT_MAX; i++) {
        text[strlen("<ListBucketResult>") + i] = 'x';
    }
    CHECK_EQ(page(f, text), BOP_ETOOBIG);
    snprintf(text, sizeof(text), "<%0300d/>", 0);
    text[1] = 'a';
    CHECK_EQ(page(f, text), BOP_ETOOBIG); /* A name longer than any path. */
}

static bool failed(struct fixture *f, const char *text)
{
    f->failure = (struct s3_failure){0};
    return bop__s3_xml_failure(&f->heap.allocator, bytes(text), &f->failure);
}

TEST(s3_xml, reads_an_error)
{
    CHECK(failed(f, "<Error><Code>RequestTimeTooSkewed</Code><Message>two\nlines\x7f</Message>"
                    "<Region>eu-west-1</Region><ServerTime>2026-01-31T12:00:00Z</ServerTime>"
                    "<Endpoint>b.example</Endpoint></Error>"));
    CHECK_STR_EQ(f->failure.code, "RequestTimeTooSkewed");
    CHECK_STR_EQ(f->failure.message, "two lines ");
    CHECK_STR_EQ(f->failure.region, "eu-west-1");
    CHECK_STR_EQ(f->failure.server_time, "2026-01-31T12:00:00Z");
    CHECK_STR_EQ(f->failure.endpoint, "b.example");
    CHECK(!failed(f, LIST(KEY("a"))));
    CHECK(!failed(f, "<Error><Code>Cut"));
    CHECK_STR_EQ(f->failure.code, "");
}

static int see_part(void *user, const struct s3_part *part)
{
    struct fixture *f = user;
    size_t used = strlen(f->seen);

    snprintf(f->seen + used, sizeof(f->seen) - used, "%u:%d:%s:%s ", part->number, (int)part->size,
             part->etag, part->sha256);
    return 0;
}

static int parts(struct fixture *f, const char *text)
{
    f->seen[0] = '\0';
    f->parts.fn = see_part;
    f->parts.user = f;
    return bop__s3_xml_parts(&f->heap.allocator, bytes(text), &f->parts);
}

#define PARTS(inside) "<ListPartsResult>" inside "</ListPartsResult>"

TEST(s3_xml, reads_parts)
{
    CHECK_EQ(parts(f, PARTS("<PartNumberMarker>0</PartNumberMarker><IsTruncated>true</IsTruncated>"
                            "<NextPartNumberMarker>3</NextPartNumberMarker>"
                            "<Part><PartNumber>1</PartNumber><ETag>\"e1\"</ETag><Size>5</Size>"
                            "<ChecksumSHA256>c1=</ChecksumSHA256></Part>"
                            "<Part><PartNumber>3</PartNumber><ETag>e3</ETag></Part>")),
             0);
    CHECK_STR_EQ(f->seen, "1:5:e1:c1= 3:0:e3: ");
    CHECK(f->parts.truncated);
    CHECK_EQ(f->parts.next, 3);
    CHECK_EQ(parts(f, PARTS("<Part><PartNumber>0</PartNumber><ETag>e</ETag></Part>")),
             BOP_EMALFORMED);
    CHECK_EQ(parts(f, PARTS("<Part><PartNumber>10001</PartNumber><ETag>e</ETag></Part>")),
             BOP_EMALFORMED);
    CHECK_EQ(parts(f, PARTS("<Part><PartNumber>1</PartNumber></Part>")), BOP_EMALFORMED);
    CHECK_EQ(parts(f, LIST("")), BOP_EMALFORMED);
}

static int see_upload(void *user, const struct s3_upload *upload)
{
    struct fixture *f = user;
    size_t used = strlen(f->seen);

    snprintf(f->seen + used, sizeof(f->seen) - used, "%s:%s:%d ", upload->key, upload->id,
             (int)upload->begun_s);
    return 0;
}

static int uploads(struct fixture *f, const char *text)
{
    f->seen[0] = '\0';
    f->uploads.fn = see_upload;
    f->uploads.user = f;
    return bop__s3_xml_uploads(&f->heap.allocator, bytes(text), &f->uploads);
}

#define UPLOADS(inside) "<ListMultipartUploadsResult>" inside "</ListMultipartUploadsResult>"

TEST(s3_xml, reads_uploads)
{
    CHECK_EQ(uploads(f, UPLOADS("<UploadIdMarker/><EncodingType>url</EncodingType>"
                                "<NextKeyMarker>a%20b</NextKeyMarker>"
                                "<NextUploadIdMarker>u9</NextUploadIdMarker>"
                                "<IsTruncated>true</IsTruncated>"
                                "<Upload><Key>a%2Fb</Key><UploadId>u1</UploadId>"
                                "<Initiated>2001-09-09T01:46:40Z</Initiated></Upload>")),
             0);
    CHECK_STR_EQ(f->seen, "a/b:u1:1000000000 ");
    CHECK_STR_EQ(f->uploads.next_key, "a b");
    CHECK_STR_EQ(f->uploads.next_id, "u9");
    CHECK_EQ(uploads(f, UPLOADS("<Upload><Key>a</Key></Upload>")), BOP_EMALFORMED);
}

TEST(s3_xml, survives_each_failed_allocation)
{
    f->heap.faults = &f->faults;
    FAULT_SWEEP(&f->faults) {
        int rc = page(f, LIST(KEY("a")));

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK(f->faults.at > 10);
    f->heap.faults = NULL;
}

TEST(s3_xml, reads_times)
{
    CHECK_EQ(bop__s3_xml_time("2001-09-09T01:46:40.000Z"), 1000000000);
    CHECK_EQ(bop__s3_xml_time("2001-09-09"), 0);
    CHECK_EQ(bop__s3_xml_time("1969-12-31T23:59:59Z"), 0);
    CHECK_EQ(bop__s3_xml_time(""), 0);
}

/* ---- Codes ---- */

static int code_of(long status, const char *server_code, bool *out_retry)
{
    struct s3_outcome outcome = {.status = status};
    struct s3_failure failure = {0};

    snprintf(failure.code, sizeof(failure.code), "%s", server_code);
    return bop__s3_code(&outcome, &failure, out_retry);
}

/* The table of docs/design/s3.md, in part. */
TEST(s3_error, gives_answers_their_codes)
{
    static const struct {
        long status;
        const char *server_code;
        int code;
        bool retry;
    } rows[] = {
        {200, "", 0, false},
        {206, "", 0, false},
        {200, "InternalError", BOP_EIO, true},
        {301, "PermanentRedirect", BOP_ECONFIG, false},
        {307, "", BOP_ECONFIG, false},
        {400, "AuthorizationHeaderMalformed", BOP_ECONFIG, false},
        {400, "BadDigest", BOP_ECORRUPT, true},
        {400, "ExpiredToken", BOP_EDENIED, false},
        {400, "Unheard", BOP_EPROTOCOL, false},
        {400, "RequestTimeout", BOP_ETIMEOUT, true},
        {403, "", BOP_EDENIED, false},
        {403, "RequestTimeTooSkewed", BOP_EDENIED, false},
        {403, "SignatureDoesNotMatch", BOP_EDENIED, false},
        {404, "NoSuchBucket", BOP_ENOTFOUND, false},
        {404, "", BOP_ENOTFOUND, false},
        {409, "ConditionalRequestConflict", BOP_EBUSY, true},
        {412, "", BOP_ECONDITION, false},
        {416, "InvalidRange", BOP_EEND, false},
        {429, "", BOP_EBUSY, true},
        {500, "", BOP_EIO, true},
        {501, "NotImplemented", BOP_EUNSUPPORTED, false},
        {503, "SlowDown", BOP_EBUSY, true},
        {599, "Unheard", BOP_EIO, true},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(rows); i++) {
        bool retry = !rows[i].retry;
        int code = code_of(rows[i].status, rows[i].server_code, &retry);

        if (code != rows[i].code) {
            test_note("row %zu", i);
        }
        CHECK_EQ(code, rows[i].code);
        CHECK_EQ(retry, rows[i].retry);
    }
}

TEST(s3_error, tells_failures_of_the_transfer_apart)
{
    static const struct {
        CURLcode curl;
        int code;
        bool retry;
    } rows[] = {
        {CURLE_COULDNT_CONNECT, BOP_EIO, true},
        {CURLE_COULDNT_RESOLVE_HOST, BOP_EIO, true},
        {CURLE_OPERATION_TIMEDOUT, BOP_ETIMEOUT, true},
        {CURLE_PEER_FAILED_VERIFICATION, BOP_ECONFIG, false},
        {CURLE_SSL_CACERT_BADFILE, BOP_ECONFIG, false},
        {CURLE_PARTIAL_FILE, BOP_EIO, true},
        {CURLE_OUT_OF_MEMORY, BOP_ENOMEM, false},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(rows); i++) {
        struct s3_outcome outcome = {.curl = rows[i].curl};
        struct s3_failure failure = {0};
        bool retry = !rows[i].retry;
        int code = bop__s3_code(&outcome, &failure, &retry);

        CHECK_EQ(code, rows[i].code);
        CHECK_EQ(retry, rows[i].retry);
    }
}

/* A key and a message of the server's as long as they come leave room for the way out. */
TEST(s3_error, says_the_way_out_in_one_line)
{
    static char key[1025];
    char endpoint[] = "https://s3.example", bucket[] = "b", region[] = "us-east-1";
    char access[] = "AK", none[] = "";
    struct s3 s3 = {.endpoint = endpoint,
                    .bucket = bucket,
                    .region = region,
                    .access_key = access,
                    .ca_file = none,
                    .kms_key_id = none,
                    .is_signed = true,
                    .attempts = 4};
    struct s3_request request = {.verb = "put", .key = key};
    struct s3_outcome outcome = {.status = 403};
    struct bop_error err;

    memset(key, 'k', 1024);
    memset(request.failure.message, 'm', sizeof(request.failure.message) - 1);
    snprintf(request.failure.code, sizeof(request.failure.code), "SignatureDoesNotMatch");
    CHECK_EQ(bop__s3_explain(&s3, &request, &outcome, BOP_EDENIED, &err), BOP_EDENIED);
    CHECK_STR_HAS(err.message, "kkk... in bucket b at https://s3.example: SignatureDoesNotMatch");
    CHECK_STR_HAS(err.message, "; check access key AK and its secret key");
}

/* ---- Names on the wire ---- */

static void check_url(const struct s3 *s3, const char *key, const struct s3_param *params,
                      size_t count, const char *expected)
{
    struct bop_buf url;

    bop_buf_init(&url, NULL, 0);
    CHECK_EQ(bop__s3_url(s3, key, params, count, &url), 0);
    CHECK_STR_EQ((const char *)url.data, expected);
    bop_buf_deinit(&url);
}

TEST(s3_url, is_in_the_canonical_form_that_is_signed)
{
    char endpoint[] = "https://host:9000", bucket[] = "my-bucket", prefix[] = "p/", none[] = "";
    struct s3 s3 = {.endpoint = endpoint, .bucket = bucket, .prefix = none};
    struct s3_param params[] = {{"prefix", "a/b c"}, {"uploads", ""}};

    check_url(&s3, NULL, NULL, 0, "https://host:9000/my-bucket");
    check_url(&s3, "a/b +~\xc3\xbc", NULL, 0, "https://host:9000/my-bucket/a/b%20%2B~%C3%BC");
    check_url(&s3, NULL, params, 2, "https://host:9000/my-bucket?prefix=a%2Fb%20c&uploads=");
    s3.virtual_host = true;
    s3.prefix = prefix;
    check_url(&s3, NULL, NULL, 0, "https://my-bucket.host:9000/");
    check_url(&s3, "k", params, 1, "https://my-bucket.host:9000/p/k?prefix=a%2Fb%20c");
}

TEST(s3_url, refuses_keys_that_would_change_on_the_way)
{
    static const char *const bad[] = {"", ".", "..", "a/./b", "a/..", "../a", "a/../b", "\xff"};
    static const char *const good[] = {"a", "...", "a/.b", "a//b", "a/b.", ".a", "a/..b/c"};
    char prefix[] = "p/";
    struct s3 s3 = {.prefix = prefix};
    struct bop_error err;
    char key[1025];

    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        CHECK_EQ(bop__s3_check_key(&s3, "get", bad[i], &err), BOP_EINVAL);
    }
    for (size_t i = 0; i < BOP_COUNT_OF(good); i++) {
        CHECK_EQ(bop__s3_check_key(&s3, "get", good[i], &err), 0);
    }
    memset(key, 'k', 1024);
    key[1023] = '\0';
    CHECK_EQ(bop__s3_check_key(&s3, "get", key, &err), BOP_EINVAL); /* 1023 and 2. */
    key[1022] = '\0';
    CHECK_EQ(bop__s3_check_key(&s3, "get", key, &err), 0);
}

/* ---- Options ---- */

static int create(struct fixture *f, const struct bop_s3_options *options, struct bop_error *err)
{
    struct bop_s3_options copy = *options;
    struct bop_object_store *store = NULL;
    int rc;

    copy.allocator = &f->heap.allocator;
    rc = bop_s3_create(&copy, &store, err);
    CHECK_EQ(rc == 0, store != NULL);
    if (store) {
        store->destroy(store);
    }
    CHECK_EQ(f->heap.live, 0);
    return rc;
}

TEST(s3_options, are_checked_before_anything_is_sent)
{
    const struct bop_s3_options good = {.endpoint = "https://host:9000/", .bucket = "abc"};
    static const uint8_t key[32] = {1};
    struct bop_s3_options options[16];
    struct bop_error err = {0};
    size_t count = 0;

    CHECK_EQ(create(f, &good, &err), 0);
    for (size_t i = 0; i < BOP_COUNT_OF(options); i++) {
        options[i] = good;
    }
    options[count++].endpoint = NULL;
    options[count++].endpoint = "host";
    options[count++].endpoint = "ftp://host";
    options[count++].endpoint = "https://host/path";
    options[count++].endpoint = "https://user@host";
    options[count++].bucket = NULL;
    options[count++].bucket = "a/b";
    options[count++].region = "eu west";
    options[count++].access_key = "AK";
    options[count++].part_bytes = 1;
    options[count++].attempts = 101;
    options[count++].session_token = "a\r\nb: c";
    options[count++].encryption = BOP_S3_ENCRYPTION_CUSTOMER;
    options[count++].prefix = "/a";
    options[count].virtual_host = true;
    options[count++].endpoint = "https://127.0.0.1";
    options[count].encryption = BOP_S3_ENCRYPTION_CUSTOMER;
    options[count].customer_key = key;
    options[count++].endpoint = "http://host";
    for (size_t i = 0; i < count; i++) {
        int rc = create(f, &options[i], &err);

        if (rc != BOP_ECONFIG) {
            test_note("options %zu", i);
        }
        CHECK_EQ(rc, BOP_ECONFIG);
    }
    CHECK_STR_HAS(err.message, "over TLS only");
}

TEST(s3_options, survive_each_failed_allocation)
{
    const struct bop_s3_options good = {.endpoint = "https://host:9000/", .bucket = "abc"};

    f->heap.faults = &f->faults;
    FAULT_SWEEP(&f->faults) {
        struct bop_error err = {0};
        int rc = create(f, &good, &err);

        CHECK_EQ(rc, f->faults.fired);
    }
    CHECK_EQ(f->faults.at, 12); /* The store, ten texts and the connections. */
    f->heap.faults = NULL;
}
