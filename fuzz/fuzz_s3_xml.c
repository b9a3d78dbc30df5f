/*
 * Fuzzes what the S3 client does with the answers it gets: listings, lists of
 * parts and of uploads, errors.
 *
 * Properties: nothing reads outside of the input (the sanitizers' part) and
 * nothing leaks; a page that is refused the first time is refused the second,
 * with as many keys handed out; keys are never empty nor longer than a key may
 * be, and what goes into a request again has nothing in it that could end a
 * string there.
 */
#include <stdlib.h>

#include "store/s3/s3.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static bool has_end(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static int on_key(void *user, const char *key, const struct bop_object_info *info)
{
    size_t *keys = user;

    require(key[0] && strlen(key) <= BOP_OBJECT_KEY_MAX);
    require(has_end(info->etag, sizeof(info->etag)) && !strpbrk(info->etag, "\"<>&\r\n"));
    require(!info->sha256_known);
    return ++*keys == 1000 ? 7 : 0;
}

static int on_part(BOP_UNUSED void *user, const struct s3_part *part)
{
    require(part->number >= 1 && part->number <= S3_PARTS_MAX);
    require(part->etag[0] && !strpbrk(part->etag, "\"<>&\r\n"));
    require(has_end(part->sha256, sizeof(part->sha256)));
    return 0;
}

static int on_upload(BOP_UNUSED void *user, const struct s3_upload *upload)
{
    require(upload->key[0] && upload->id[0]);
    return 0;
}

static void page(struct bop_slice body)
{
    static struct s3_page first, second;
    size_t first_keys = 0, second_keys = 0;
    int first_rc, second_rc;

    first.fn = second.fn = on_key;
    first.user = &first_keys;
    second.user = &second_keys;
    first_rc = bop__s3_xml_page(bop_allocator_default(), body, &first);
    second_rc = bop__s3_xml_page(bop_allocator_default(), body, &second);
    require(first_rc == second_rc && first_keys == second_keys);
    require(has_end(first.token, sizeof(first.token)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct s3_uploads_page uploads;
    struct s3_parts_page parts = {.fn = on_part};
    struct bop_slice body = bop_slice(data, size);
    struct s3_failure failure = {0};
    char id[64];
    int rc;

    page(body);
    BOP_IGNORE(bop__s3_xml_parts(bop_allocator_default(), body, &parts)); /* Any code will do. */
    require(parts.next <= S3_PARTS_MAX);
    uploads.fn = on_upload;
    BOP_IGNORE(bop__s3_xml_uploads(bop_allocator_default(), body, &uploads));
    if (bop__s3_xml_failure(bop_allocator_default(), body, &failure)) {
        require(!strpbrk(failure.code, "\r\n") && !strpbrk(failure.message, "\r\n"));
    }
    rc = bop__s3_xml_text(bop_allocator_default(), body, "/InitiateMultipartUploadResult/UploadId",
                          id, sizeof(id));
    require(rc != 0 || (id[0] && has_end(id, sizeof(id))));
    return 0;
}
