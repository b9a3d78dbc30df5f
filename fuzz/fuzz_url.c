/*
 * Fuzzes URLs, their encoding and their paths.
 *
 * Properties: the parts of a URL, put together, are the URL; encoding and decoding
 * give the same bytes back; a normalized path has no dots left and stays as it is;
 * the name of a file never leads out of its directory.
 */
#include <stdlib.h>

#include <bop/error.h>
#include <bop/url.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static struct bop_buf a, b;

static void put(const char *before, struct bop_slice part, const char *after)
{
    if (part.data) {
        require(bop_buf_append(&a, before, strlen(before)) == 0);
        require(bop_buf_append(&a, part.data, part.size) == 0);
        require(bop_buf_append(&a, after, strlen(after)) == 0);
    }
}

static void check_parts(struct bop_slice text)
{
    struct bop_slice host;
    struct bop_url url;
    uint16_t port;

    if (bop_url_parse(text, &url) != 0) {
        return;
    }
    bop_buf_clear(&a);
    put("", url.scheme, ":");
    put("//", url.authority, "");
    put("", url.path, "");
    put("?", url.query, "");
    put("#", url.fragment, "");
    require(bop_slice_equal(bop_buf_slice(&a), text));
    if (url.authority.data && !url.user.data && url.host.size > 0) {
        require(bop_url_split_host_port(url.authority, &host, &port) == 0);
        require(host.data == url.host.data && host.size == url.host.size);
        require(!url.has_port || port == url.port);
    }
}

static void check_encoding(struct bop_slice text)
{
    struct bop_slice rest = text, name, value;
    size_t pieces = 0;

    bop_buf_clear(&a);
    bop_buf_clear(&b);
    require(bop_url_encode(text, &a) == 0);
    require(bop_url_decode(bop_buf_slice(&a), &b) == 0);
    require(bop_slice_equal(bop_buf_slice(&b), text));
    bop_buf_clear(&b);
    if (bop_url_decode_form(text, &b) != 0) {
        require(b.size == 0);
    }
    while (bop_url_query_next(&rest, &name, &value)) {
        require(++pieces <= text.size);
        require(name.size + value.size <= text.size);
    }
    if (bop_url_query_find(text, "q", &value)) {
        require(value.data == NULL || value.size < text.size);
    }
}

static bool has_segment(struct bop_slice path, const char *segment)
{
    size_t size = strlen(segment);

    for (size_t i = 0; i + size <= path.size; i++) {
        bool begins = i == 0 || path.data[i - 1] == '/';
        bool ends = i + size == path.size || path.data[i + size] == '/';

        if (begins && ends && memcmp(path.data + i, segment, size) == 0) {
            return true;
        }
    }
    return false;
}

static void check_paths(struct bop_slice text)
{
    bop_buf_clear(&a);
    bop_buf_clear(&b);
    require(bop_url_normalize(text, &a) == 0);
    require(a.size <= text.size);
    require(!has_segment(bop_buf_slice(&a), ".") && !has_segment(bop_buf_slice(&a), ".."));
    require(bop_url_normalize(bop_buf_slice(&a), &b) == 0);
    require(bop_slice_equal(bop_buf_slice(&a), bop_buf_slice(&b)));

    bop_buf_clear(&a);
    if (bop_url_file_name(text, &a) == 0) {
        require(a.size == 0 || (a.data[0] != '/' && !has_segment(bop_buf_slice(&a), "..")));
        require(!has_segment(bop_buf_slice(&a), "."));
        for (size_t i = 0; i < a.size; i++) {
            require(a.data[i] >= ' ' && a.data[i] != '\\' && a.data[i] != 0x7f);
            require(a.data[i] != '/' || i + 1 == a.size || a.data[i + 1] != '/');
        }
    } else {
        require(a.size == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_slice text = bop_slice(data, size), base = bop_slice_cstr("http://h/a/b/c?d#e");

    if (!a.allocator) {
        bop_buf_init(&a, NULL, 0);
        bop_buf_init(&b, NULL, 0);
    }
    check_parts(text);
    check_encoding(text);
    check_paths(text);
    bop_buf_clear(&a);
    if (bop_url_resolve(base, text, &a) != 0) {
        require(a.size == 0);
    }
    bop_buf_clear(&a);
    if (bop_url_resolve(text, bop_slice_cstr("../x?y"), &a) != 0) {
        require(a.size == 0);
    }
    return 0;
}
