/*
 * Answers in XML, by expat. An answer may come from anybody: depth and texts
 * are bounded, a document type ends the reading before any entity of it could be
 * expanded, and expat's memory comes from our allocator.
 *
 * An element's path is kept as a string, "/ListBucketResult/Contents/Key", so
 * that what reads an answer is a table of paths.
 */
#include "s3.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <expat.h>

#define PATH_MAX_BYTES 256
#define CHUNK_BYTES    65536

struct parser {
    XML_Parser expat;
    int (*fn)(void *user, const char *path, const char *text);
    void *user;
    unsigned depth;
    size_t path_size;
    size_t text_size;
    int code;
    char path[PATH_MAX_BYTES];
    char text[S3_XML_TEXT_MAX];
};

/* ---- expat's memory ---- */

/* expat hands its allocator no context. A parser lives within one call. */
static _Thread_local struct bop_allocator *parser_allocator;

struct block {
    size_t size;
    max_align_t bytes[];
};

static void *block_alloc(size_t size)
{
    struct block *block;

    if (size > SIZE_MAX - sizeof(*block)) {
        return NULL;
    }
    block = bop_alloc(parser_allocator, sizeof(*block) + size);
    if (!block) {
        return NULL;
    }
    block->size = size;
    return block->bytes;
}

static struct block *block_of(void *memory)
{
    return BOP_CONTAINER_OF(memory, struct block, bytes);
}

static void block_free(void *memory)
{
    if (memory) {
        bop_free(parser_allocator, block_of(memory), sizeof(struct block) + block_of(memory)->size);
    }
}

static void *block_realloc(void *memory, size_t size)
{
    struct block *block;

    if (!memory) {
        return block_alloc(size);
    }
    if (size > SIZE_MAX - sizeof(*block)) {
        return NULL;
    }
    block = block_of(memory);
    block = bop_realloc(parser_allocator, block, sizeof(*block) + block->size,
                        sizeof(*block) + size);
    if (!block) {
        return NULL;
    }
    block->size = size;
    return block->bytes;
}

static const XML_Memory_Handling_Suite memory_suite = {block_alloc, block_realloc, block_free};

/* ---- Elements ---- */

static void stop(struct parser *parser, int code)
{
    if (parser->code == 0) {
        parser->code = code;
    }
    XML_StopParser(parser->expat, XML_FALSE);
}

/* The name without a namespace prefix. */
static const char *local_name(const char *name)
{
    const char *colon = strrchr(name, ':');

    return colon ? colon + 1 : name;
}

static void XMLCALL on_start(void *user, const char *name, BOP_UNUSED const char **attributes)
{
    struct parser *parser = user;
    const char *local = local_name(name);
    size_t size = strlen(local);

    if (parser->code != 0) {
        return;
    }
    if (parser->depth == S3_XML_DEPTH_MAX || size + 2 > PATH_MAX_BYTES - parser->path_size) {
        stop(parser, BOP_ETOOBIG);
        return;
    }
    parser->depth++;
    parser->path[parser->path_size++] = '/';
    memcpy(parser->path + parser->path_size, local, size + 1);
    parser->path_size += size;
    parser->text_size = 0;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void XMLCALL on_end(void *user, const char *name)
{
    struct parser *parser = user;
    const char *text = parser->text;
    int rc;

    if (parser->code != 0) {
        return;
    }
    while (parser->text_size > 0 && is_space(parser->text[parser->text_size - 1])) {
        parser->text_size--;
    }
    parser->text[parser->text_size] = '\0';
    while (is_space(*text)) {
        text++;
    }
    rc = parser->fn(parser->user, parser->path, text);
    parser->text_size = 0;
    parser->depth--;
    parser->path_size -= strlen(local_name(name)) + 1;
    parser->path[parser->path_size] = '\0';
    if (rc != 0) {
        stop(parser, rc);
    }
}

static void XMLCALL on_text(void *user, const char *bytes, int size)
{
    struct parser *parser = user;

    if (parser->code != 0 || size < 0) {
        return;
    }
    if ((size_t)size >= S3_XML_TEXT_MAX - parser->text_size) {
        stop(parser, BOP_ETOOBIG);
        return;
    }
    memcpy(parser->text + parser->text_size, bytes, (size_t)size);
    parser->text_size += (size_t)size;
}

static void XMLCALL on_doctype(void *user, BOP_UNUSED const char *name,
                               BOP_UNUSED const char *system_id, BOP_UNUSED const char *public_id,
                               BOP_UNUSED int has_internal_subset)
{
    stop(user, BOP_EMALFORMED);
}

static void feed(struct parser *parser, struct bop_slice document)
{
    size_t at = 0;

    do {
        size_t left = document.size - at;
        size_t size = left < CHUNK_BYTES ? left : CHUNK_BYTES;

        if (XML_Parse(parser->expat, (const char *)document.data + at, (int)size, size == left) !=
            XML_STATUS_OK) {
            if (parser->code == 0) {
                parser->code = XML_GetErrorCode(parser->expat) == XML_ERROR_NO_MEMORY
                                   ? BOP_ENOMEM
                                   : BOP_EMALFORMED;
            }
            return;
        }
        at += size;
    } while (at < document.size);
}

int bop__s3_xml_parse(struct bop_allocator *allocator, struct bop_slice document,
                      int (*fn)(void *user, const char *path, const char *text), void *user)
{
    struct bop_allocator *outer = parser_allocator;
    struct parser *parser;
    int rc;

    if (document.size == 0) {
        return BOP_EMALFORMED;
    }
    parser = bop_alloc_zeroed(allocator, sizeof(*parser));
    if (!parser) {
        return BOP_ENOMEM;
    }
    parser->fn = fn;
    parser->user = user;
    parser_allocator = allocator;
    parser->expat = XML_ParserCreate_MM("UTF-8", &memory_suite, NULL);
    if (parser->expat) {
        XML_SetUserData(parser->expat, parser);
        XML_SetElementHandler(parser->expat, on_start, on_end);
        XML_SetCharacterDataHandler(parser->expat, on_text);
        XML_SetStartDoctypeDeclHandler(parser->expat, on_doctype);
        feed(parser, document);
        XML_ParserFree(parser->expat);
        rc = parser->code;
    } else {
        rc = BOP_ENOMEM;
    }
    parser_allocator = outer;
    bop_free(allocator, parser, sizeof(*parser));
    return rc;
}

/* ---- Values ---- */

/* Copy what fits whole; BOP_EMALFORMED for what does not. */
static int take(const char *text, char *out, size_t size)
{
    size_t length = strlen(text);

    if (length >= size) {
        return BOP_EMALFORMED;
    }
    memcpy(out, text, length + 1);
    return 0;
}

/* Copy what fits, for people: one line of printable text. */
static void take_line(const char *text, char *out, size_t size)
{
    size_t length = strlen(text);

    length = length < size ? length : size - 1;
    for (size_t i = 0; i < length; i++) {
        out[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? ' ' : text[i];
    }
    out[length] = '\0';
}

static int take_number(const char *text, uint64_t *out)
{
    uint64_t value = 0;

    if (!text[0] || strlen(text) > 19) {
        return BOP_EMALFORMED; /* 20 digits may not fit. */
    }
    for (; *text; text++) {
        if (*text < '0' || *text > '9') {
            return BOP_EMALFORMED;
        }
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *out = value;
    return 0;
}

static int take_etag(const char *text, char out[72])
{
    size_t size = strlen(text);

    if (size >= 2 && text[0] == '"' && text[size - 1] == '"') {
        text++;
        size -= 2;
    }
    /* It goes into a request again: nothing that could end a string there. */
    if (size >= 72 || strcspn(text, "\"<>&\r\n") < size) {
        return BOP_EMALFORMED;
    }
    memcpy(out, text, size);
    out[size] = '\0';
    return 0;
}

uint64_t bop__s3_xml_time(const char *text)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    time_t seconds;

    if (!end || (*end != '.' && *end != 'Z')) {
        return 0;
    }
    seconds = timegm(&tm);
    return seconds > 0 ? (uint64_t)seconds : 0;
}

/* The rest of the path behind a beginning, or NULL. */
static const char *behind(const char *path, const char *beginning)
{
    size_t size = strlen(beginning);

    return strncmp(path, beginning, size) == 0 ? path + size : NULL;
}

/* ---- Error ---- */

struct failure_reader {
    struct s3_failure *failure;
    bool found;
};

static int on_failure(void *user, const char *path, const char *text)
{
    struct failure_reader *reader = user;
    struct s3_failure *failure = reader->failure;
    const char *name = behind(path, "/Error");

    if (!name) {
        return BOP_EMALFORMED;
    }
    if (strcmp(name, "") == 0) {
        reader->found = true;
    } else if (strcmp(name, "/Code") == 0) {
        take_line(text, failure->code, sizeof(failure->code));
    } else if (strcmp(name, "/Message") == 0) {
        take_line(text, failure->message, sizeof(failure->message));
    } else if (strcmp(name, "/Region") == 0) {
        take_line(text, failure->region, sizeof(failure->region));
    } else if (strcmp(name, "/Endpoint") == 0) {
        take_line(text, failure->endpoint, sizeof(failure->endpoint));
    } else if (strcmp(name, "/ServerTime") == 0) {
        take_line(text, failure->server_time, sizeof(failure->server_time));
    }
    return 0;
}

bool bop__s3_xml_failure(struct bop_allocator *allocator, struct bop_slice body,
                         struct s3_failure *out_failure)
{
    struct s3_failure failure = {0};
    struct failure_reader reader = {.failure = &failure};
    int rc = bop__s3_xml_parse(allocator, body, on_failure, &reader);

    if (rc != 0 || !reader.found) {
        return false;
    }
    *out_failure = failure;
    return true;
}

/* ---- ListBucketResult ---- */

static int end_of_entry(struct s3_page *page)
{
    struct bop_object_info info = page->info;
    int rc;

    if (page->encoded && !bop__s3_decode(page->key)) {
        return BOP_EMALFORMED;
    }
    if (!page->key[0] || strlen(page->key) > BOP_OBJECT_KEY_MAX) {
        return BOP_EMALFORMED;
    }
    page->keys++;
    rc = page->fn(page->user, page->key, &info);
    page->key[0] = '\0';
    page->info = (struct bop_object_info){0};
    return rc;
}

static int on_entry(struct s3_page *page, const char *name, const char *text)
{
    if (strcmp(name, "/Key") == 0) {
        return take(text, page->key, sizeof(page->key));
    }
    if (strcmp(name, "/Size") == 0) {
        return take_number(text, &page->info.size);
    }
    if (strcmp(name, "/ETag") == 0) {
        return take_etag(text, page->info.etag);
    }
    if (strcmp(name, "/LastModified") == 0) {
        page->info.modified_s = bop__s3_xml_time(text);
    }
    return strcmp(name, "") == 0 ? end_of_entry(page) : 0;
}

static int on_page(void *user, const char *path, const char *text)
{
    struct s3_page *page = user;
    const char *name = behind(path, "/ListBucketResult");
    const char *entry;

    if (!name) {
        return BOP_EMALFORMED;
    }
    entry = behind(name, "/Contents");
    if (entry && (!entry[0] || entry[0] == '/')) {
        return on_entry(page, entry, text);
    }
    if (strcmp(name, "/IsTruncated") == 0) {
        page->truncated = strcmp(text, "true") == 0;
    } else if (strcmp(name, "/NextContinuationToken") == 0) {
        return take(text, page->token, sizeof(page->token));
    }
    return 0;
}

/* Where the encoding is said is up to the server: look for it first. */
static int on_encoding(void *user, const char *path, const char *text)
{
    const char *name = strrchr(path, '/');

    if (name && strcmp(name, "/EncodingType") == 0) {
        *(bool *)user = strcmp(text, "url") == 0;
    }
    return 0;
}

int bop__s3_xml_page(struct bop_allocator *allocator, struct bop_slice body, struct s3_page *page)
{
    int rc;

    page->truncated = page->encoded = false;
    page->token[0] = page->key[0] = '\0';
    page->keys = 0;
    page->info = (struct bop_object_info){0};
    rc = bop__s3_xml_parse(allocator, body, on_encoding, &page->encoded);
    return rc != 0 ? rc : bop__s3_xml_parse(allocator, body, on_page, page);
}

/* ---- ListPartsResult ---- */

static int on_part(struct s3_parts_page *page, const char *name, const char *text)
{
    uint64_t number;
    int rc = 0;

    if (strcmp(name, "/PartNumber") == 0) {
        rc = take_number(text, &number);
        if (rc == 0 && (number == 0 || number > S3_PARTS_MAX)) {
            rc = BOP_EMALFORMED;
        }
        if (rc == 0) {
            page->part.number = (unsigned)number;
        }
    } else if (strcmp(name, "/Size") == 0) {
        rc = take_number(text, &page->part.size);
    } else if (strcmp(name, "/ETag") == 0) {
        rc = take_etag(text, page->part.etag);
    } else if (strcmp(name, "/ChecksumSHA256") == 0) {
        rc = take(text, page->part.sha256, sizeof(page->part.sha256));
    } else if (strcmp(name, "") == 0) {
        struct s3_part part = page->part;

        page->part = (struct s3_part){0};
        rc = part.number == 0 || !part.etag[0] ? BOP_EMALFORMED : page->fn(page->user, &part);
    }
    return rc;
}

static int on_parts(void *user, const char *path, const char *text)
{
    struct s3_parts_page *page = user;
    const char *name = behind(path, "/ListPartsResult");
    const char *part;
    uint64_t number;
    int rc = 0;

    if (!name) {
        return BOP_EMALFORMED;
    }
    part = behind(name, "/Part");
    if (part && (!part[0] || part[0] == '/')) {
        return on_part(page, part, text);
    }
    if (strcmp(name, "/IsTruncated") == 0) {
        page->truncated = strcmp(text, "true") == 0;
    } else if (strcmp(name, "/NextPartNumberMarker") == 0 && text[0]) {
        rc = take_number(text, &number);
        if (rc == 0) {
            page->next = (unsigned)bop_min_u64(number, S3_PARTS_MAX);
        }
    }
    return rc;
}

int bop__s3_xml_parts(struct bop_allocator *allocator, struct bop_slice body,
                      struct s3_parts_page *page)
{
    page->truncated = false;
    page->next = 0;
    page->part = (struct s3_part){0};
    return bop__s3_xml_parse(allocator, body, on_parts, page);
}

/* ---- ListMultipartUploadsResult ---- */

static int end_of_upload(struct s3_uploads_page *page)
{
    if (page->encoded && !bop__s3_decode(page->upload.key)) {
        return BOP_EMALFORMED;
    }
    if (!page->upload.key[0] || !page->upload.id[0]) {
        return BOP_EMALFORMED;
    }
    return page->fn(page->user, &page->upload);
}

static int on_upload(struct s3_uploads_page *page, const char *name, const char *text)
{
    int rc = 0;

    if (strcmp(name, "/Key") == 0) {
        rc = take(text, page->upload.key, sizeof(page->upload.key));
    } else if (strcmp(name, "/UploadId") == 0) {
        rc = take(text, page->upload.id, sizeof(page->upload.id));
    } else if (strcmp(name, "/Initiated") == 0) {
        page->upload.begun_s = bop__s3_xml_time(text);
    } else if (strcmp(name, "") == 0) {
        rc = end_of_upload(page);
        memset(&page->upload, 0, sizeof(page->upload));
    }
    return rc;
}

static int on_uploads(void *user, const char *path, const char *text)
{
    struct s3_uploads_page *page = user;
    const char *name = behind(path, "/ListMultipartUploadsResult");
    const char *upload;

    if (!name) {
        return BOP_EMALFORMED;
    }
    upload = behind(name, "/Upload");
    if (upload && (!upload[0] || upload[0] == '/')) {
        return on_upload(page, upload, text);
    }
    if (strcmp(name, "/IsTruncated") == 0) {
        page->truncated = strcmp(text, "true") == 0;
    } else if (strcmp(name, "/NextKeyMarker") == 0) {
        return take(text, page->next_key, sizeof(page->next_key));
    } else if (strcmp(name, "/NextUploadIdMarker") == 0) {
        return take(text, page->next_id, sizeof(page->next_id));
    }
    return 0;
}

int bop__s3_xml_uploads(struct bop_allocator *allocator, struct bop_slice body,
                        struct s3_uploads_page *page)
{
    int rc;

    page->truncated = page->encoded = false;
    page->next_key[0] = page->next_id[0] = '\0';
    memset(&page->upload, 0, sizeof(page->upload));
    rc = bop__s3_xml_parse(allocator, body, on_encoding, &page->encoded);
    rc = rc != 0 ? rc : bop__s3_xml_parse(allocator, body, on_uploads, page);
    if (rc == 0 && page->encoded && !bop__s3_decode(page->next_key)) {
        rc = BOP_EMALFORMED;
    }
    return rc;
}

/* ---- One element ---- */

struct text_reader {
    const char *path;
    char *text;
    size_t size;
    bool found;
};

static int on_one(void *user, const char *path, const char *text)
{
    struct text_reader *reader = user;

    if (strcmp(path, reader->path) != 0) {
        return 0;
    }
    reader->found = true;
    return take(text, reader->text, reader->size);
}

int bop__s3_xml_text(struct bop_allocator *allocator, struct bop_slice body, const char *path,
                     char *out_text, size_t size)
{
    struct text_reader reader = {.path = path, .text = out_text, .size = size};
    int rc = bop__s3_xml_parse(allocator, body, on_one, &reader);

    return rc != 0 ? rc : reader.found && out_text[0] ? 0 : BOP_EMALFORMED;
}
