/*
 * URLs: tables of good and bad ones, the examples of RFC 3986, 5.4, encoding and
 * back, and names of files that never lead out.
 */
#include <bop/url.h>

#include <bop/error.h>
#include <bop/random.h>

#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_buf buf;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop_buf_init(&f->buf, &f->heap.allocator, 0);
}

static void teardown(struct fixture *f)
{
    bop_buf_deinit(&f->buf);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* NULL: the part is not there. */
static void check_part(const char *text, struct bop_slice part, const char *expected)
{
    if (!expected) {
        CHECK(part.data == NULL);
        return;
    }
    CHECK(part.data != NULL);
    if (!bop_slice_equal(part, bytes(expected))) {
        test_note("of %s", text);
    }
    CHECK_SLICE_EQ(part, bytes(expected));
}

TEST(url, takes_good_ones_apart)
{
    static const struct {
        const char *text, *scheme, *user, *host, *path, *query, *fragment;
        uint16_t port;
    } cases[] = {
        {"http://example.org", "http", NULL, "example.org", "", NULL, NULL, 80},
        {"HTTPS://h/", "HTTPS", NULL, "h", "/", NULL, NULL, 443},
        {"ws://h:0/", "ws", NULL, "h", "/", NULL, NULL, 0},
        {"wss://h:/x", "wss", NULL, "h", "/x", NULL, NULL, 443},
        {"http://a:b@h:8080/p/q;r?x=/?#f/?", "http", "a:b", "h", "/p/q;r", "x=/?", "f/?", 8080},
        {"http://[2001:db8::7]:81/c=GB?", "http", NULL, "2001:db8::7", "/c=GB", "", NULL, 81},
        {"http://[v1.a:b]/", "http", NULL, "v1.a:b", "/", NULL, NULL, 80},
        {"http://@h/#", "http", "", "h", "/", NULL, "", 80},
        {"http://?q", "http", NULL, "", "", "q", NULL, 80},
        {"ldap://[::1]", "ldap", NULL, "::1", "", NULL, NULL, 0},
        {"mailto:a@b.example", "mailto", NULL, NULL, "a@b.example", NULL, NULL, 0},
        {"urn:a:b", "urn", NULL, NULL, "a:b", NULL, NULL, 0},
        {"a+b-c.9:", "a+b-c.9", NULL, NULL, "", NULL, NULL, 0},
        {"file:///etc", "file", NULL, "", "/etc", NULL, NULL, 0},
        {"//h/a", NULL, NULL, "h", "/a", NULL, NULL, 0},
        {"/a/b?c", NULL, NULL, NULL, "/a/b", "c", NULL, 0},
        {"a/b:c", NULL, NULL, NULL, "a/b:c", NULL, NULL, 0},
        {"", NULL, NULL, NULL, "", NULL, NULL, 0},
        {"?", NULL, NULL, NULL, "", "", NULL, 0},
        {"#", NULL, NULL, NULL, "", NULL, "", 0},
        {"http://%41.b/%2f", "http", NULL, "%41.b", "/%2f", NULL, NULL, 80},
        {"http://h/~a!$&'()*+,;=:@", "http", NULL, "h", "/~a!$&'()*+,;=:@", NULL, NULL, 80},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        struct bop_url url;
        int rc = bop_url_parse(bytes(cases[i].text), &url);

        CHECK_EQ(rc, 0);
        if (rc != 0) {
            test_note("of %s", cases[i].text);
            continue;
        }
        check_part(cases[i].text, url.scheme, cases[i].scheme);
        check_part(cases[i].text, url.user, cases[i].user);
        check_part(cases[i].text, url.host, cases[i].host);
        check_part(cases[i].text, url.path, cases[i].path);
        check_part(cases[i].text, url.query, cases[i].query);
        check_part(cases[i].text, url.fragment, cases[i].fragment);
        CHECK_EQ(url.port, cases[i].port);
    }
}

TEST(url, refuses_bad_ones)
{
    static const char *const cases[] = {
        "http://h/a b",
        "http://h/%",
        "http://h/%4",
        "http://h/%4g",
        "http://h:65536/",
        "http://h:1a/",
        "http://h:-1/",
        "http://h:000080/",
        "http://a@b@c/",
        "http://[::1/",
        "http://[::1]a/",
        "http://[]/",
        "http://[1.2.3.4]/",
        "http://[::1%25e]/",
        "http://::1/",
        "http://h/\x80",
        "http://h\\/",
        "http://h/<",
        "http://h/?{}",
        "http://h/#a#b",
        ":a",
        "1a:b",
        "a_b:c",
        "a b",
        "http://h/\x7f",
        "http://[v.a]/",
        "http://[v1.]/",
        "http://[::g]/",
        "http://[1::2::3]/",
        "http://[:1]/",
        "http://[1:]/",
        "http://[1:2:3:4:5:6:7]/",
        "http://[1:2:3:4:5:6:7:8:9]/",
        "http://[12345::]/",
        "http://[::1.2.3]/",
        "http://[::1.2.3.256]/",
        "http://[::01.2.3.4]/",
        "http://[1:2:3:4:5:6:7:1.2.3.4]/",
        "http://h/\n",
        "http://h:80:80/",
        "[::1]",
        "http://a[b]/",
    };

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        struct bop_url url;
        int rc = bop_url_parse(bytes(cases[i]), &url);

        CHECK_EQ(rc, BOP_EMALFORMED);
        if (rc != BOP_EMALFORMED) {
            test_note("of %s", cases[i]);
        }
    }
}

TEST(url, knows_every_shape_of_an_ipv6_address)
{
    static const char *const good[] = {"::",
                                       "::1",
                                       "1::",
                                       "1:2:3:4:5:6:7:8",
                                       "1:2:3:4:5:6:7::",
                                       "::2:3:4:5:6:7:8",
                                       "1::8",
                                       "ABCD:ef01::",
                                       "::1.2.3.4",
                                       "1:2:3:4:5:6:255.0.0.1",
                                       "1::1.2.3.4"};

    for (size_t i = 0; i < BOP_COUNT_OF(good); i++) {
        struct bop_slice host;
        uint16_t port = 0;
        char text[64] = "[";

        strcat(strcat(text, good[i]), "]:7");
        CHECK_EQ(bop_url_split_host_port(bytes(text), &host, &port), 0);
        CHECK_SLICE_EQ(host, bytes(good[i]));
        CHECK_EQ(port, 7);
    }
}

TEST(url, splits_host_and_port)
{
    static const char *const bad[] = {"",     ":80", "h:x", "a@b", "h:80:1",
                                      "[::1", "a b", "h/",  "::1"};
    struct bop_slice host;
    uint16_t port = 1;

    CHECK_EQ(bop_url_split_host_port(bytes("example.org"), &host, &port), 0);
    CHECK_SLICE_EQ(host, bytes("example.org"));
    CHECK_EQ(port, 0);
    CHECK_EQ(bop_url_split_host_port(bytes("h:65535"), &host, &port), 0);
    CHECK_EQ(port, 65535);
    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        CHECK_EQ(bop_url_split_host_port(bytes(bad[i]), &host, &port), BOP_EMALFORMED);
    }
}

/* RFC 3986, 5.4.1 and 5.4.2, and some of ours. */
TEST(url, resolves_references)
{
    static const struct {
        const char *reference, *expected, *base;
    } cases[] = {
        {"g:h", "g:h", NULL},
        {"g", "http://a/b/c/g", NULL},
        {"./g", "http://a/b/c/g", NULL},
        {"g/", "http://a/b/c/g/", NULL},
        {"/g", "http://a/g", NULL},
        {"//g", "http://g", NULL},
        {"?y", "http://a/b/c/d;p?y", NULL},
        {"g?y", "http://a/b/c/g?y", NULL},
        {"#s", "http://a/b/c/d;p?q#s", NULL},
        {"g#s", "http://a/b/c/g#s", NULL},
        {"g?y#s", "http://a/b/c/g?y#s", NULL},
        {";x", "http://a/b/c/;x", NULL},
        {"g;x", "http://a/b/c/g;x", NULL},
        {"g;x?y#s", "http://a/b/c/g;x?y#s", NULL},
        {"", "http://a/b/c/d;p?q", NULL},
        {".", "http://a/b/c/", NULL},
        {"./", "http://a/b/c/", NULL},
        {"..", "http://a/b/", NULL},
        {"../", "http://a/b/", NULL},
        {"../g", "http://a/b/g", NULL},
        {"../..", "http://a/", NULL},
        {"../../", "http://a/", NULL},
        {"../../g", "http://a/g", NULL},
        {"../../../g", "http://a/g", NULL},
        {"../../../../g", "http://a/g", NULL},
        {"/./g", "http://a/g", NULL},
        {"/../g", "http://a/g", NULL},
        {"g.", "http://a/b/c/g.", NULL},
        {".g", "http://a/b/c/.g", NULL},
        {"g..", "http://a/b/c/g..", NULL},
        {"..g", "http://a/b/c/..g", NULL},
        {"./../g", "http://a/b/g", NULL},
        {"./g/.", "http://a/b/c/g/", NULL},
        {"g/./h", "http://a/b/c/g/h", NULL},
        {"g/../h", "http://a/b/c/h", NULL},
        {"g;x=1/./y", "http://a/b/c/g;x=1/y", NULL},
        {"g;x=1/../y", "http://a/b/c/y", NULL},
        {"g?y/./x", "http://a/b/c/g?y/./x", NULL},
        {"g?y/../x", "http://a/b/c/g?y/../x", NULL},
        {"g#s/./x", "http://a/b/c/g#s/./x", NULL},
        {"http:g", "http:g", NULL},
        {"g", "http://h/g", "http://h"},
        {"?q", "http://h?q", "http://h"},
        {"https://x:8/y", "https://x:8/y", "http://h/z"},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        const char *base = cases[i].base ? cases[i].base : "http://a/b/c/d;p?q";

        bop_buf_clear(&f->buf);
        CHECK_EQ(bop_url_resolve(bytes(base), bytes(cases[i].reference), &f->buf), 0);
        CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes(cases[i].expected));
    }
    CHECK_EQ(bop_url_resolve(bytes("/a"), bytes("b"), &f->buf), BOP_EMALFORMED);
    CHECK_EQ(bop_url_resolve(bytes("http://a"), bytes("b c"), &f->buf), BOP_EMALFORMED);
}

TEST(url, resolving_survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_buf buf;
        int rc;

        bop_buf_init(&buf, &f->heap.allocator, 0);
        rc = bop_url_resolve(bytes("http://a/b/c"), bytes("../d?e#f"), &buf);
        CHECK_EQ(rc, f->faults.fired);
        CHECK(rc == 0 || buf.size == 0);
        bop_buf_deinit(&buf);
    }
    CHECK(f->faults.at >= 2);
}

TEST(url, encodes_and_decodes)
{
    CHECK_EQ(bop_url_encode(bytes("aZ09-._~ /+%\xff"), &f->buf), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("aZ09-._~%20%2F%2B%25%FF"));
    bop_buf_clear(&f->buf);
    CHECK_EQ(bop_url_encode_path(bytes("/a b/"), &f->buf), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("/a%20b/"));
    bop_buf_clear(&f->buf);
    CHECK_EQ(bop_url_decode(bytes("a+b%2B%2f%C3%a4"), &f->buf), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("a+b+/\xc3\xa4"));
    bop_buf_clear(&f->buf);
    CHECK_EQ(bop_url_decode_form(bytes("a+b%2B"), &f->buf), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("a b+"));
    CHECK_EQ(bop_url_decode(bytes("a%"), &f->buf), BOP_EMALFORMED);
    CHECK_EQ(bop_url_decode(bytes("a%2"), &f->buf), BOP_EMALFORMED);
    CHECK_EQ(bop_url_decode(bytes("%+1"), &f->buf), BOP_EMALFORMED);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("a b+"));
}

TEST(url, decodes_what_it_encoded)
{
    struct bop_random random;
    struct bop_buf text;
    uint8_t data[64];

    bop_random_seed(&random, 3);
    bop_buf_init(&text, &f->heap.allocator, 0);
    for (int i = 0; i < 500; i++) {
        size_t size = bop_random_below(&random, sizeof(data) + 1);

        for (size_t k = 0; k < size; k++) {
            data[k] = (uint8_t)bop_random_next(&random);
        }
        bop_buf_clear(&f->buf);
        bop_buf_clear(&text);
        REQUIRE_EQ(bop_url_encode(bop_slice(data, size), &f->buf), 0);
        REQUIRE_EQ(bop_url_decode(bop_buf_slice(&f->buf), &text), 0);
        CHECK_SLICE_EQ(bop_buf_slice(&text), bop_slice(data, size));
    }
    bop_buf_deinit(&text);
}

TEST(url, goes_through_a_query)
{
    struct bop_slice rest = bytes("&&a=1&b&c=&=d&e=f=g&"), name, value;

    REQUIRE(bop_url_query_next(&rest, &name, &value));
    CHECK_SLICE_EQ(name, bytes("a"));
    CHECK_SLICE_EQ(value, bytes("1"));
    REQUIRE(bop_url_query_next(&rest, &name, &value));
    CHECK_SLICE_EQ(name, bytes("b"));
    CHECK(value.data == NULL);
    REQUIRE(bop_url_query_next(&rest, &name, &value));
    CHECK_SLICE_EQ(name, bytes("c"));
    CHECK(value.data != NULL && value.size == 0);
    REQUIRE(bop_url_query_next(&rest, &name, &value));
    CHECK_EQ(name.size, 0);
    CHECK_SLICE_EQ(value, bytes("d"));
    REQUIRE(bop_url_query_next(&rest, &name, &value));
    CHECK_SLICE_EQ(value, bytes("f=g"));
    CHECK(!bop_url_query_next(&rest, &name, &value));
    CHECK(!bop_url_query_next(&rest, &name, &value));
}

TEST(url, finds_a_name_however_it_is_encoded)
{
    struct bop_slice query = bytes("a%zz=0&na%6De=1&name=2&x+y=3&%00=4"), value;

    REQUIRE(bop_url_query_find(query, "name", &value));
    CHECK_SLICE_EQ(value, bytes("1"));
    REQUIRE(bop_url_query_find(query, "x y", &value));
    CHECK_SLICE_EQ(value, bytes("3"));
    CHECK(!bop_url_query_find(query, "", &value));
    CHECK(!bop_url_query_find(query, "nam", &value));
    CHECK(!bop_url_query_find(bop_slice(NULL, 0), "a", &value));
}

TEST(url, removes_dot_segments)
{
    static const char *const cases[][2] = {
        {"/a/b/c/./../../g", "/a/g"},
        {"mid/content=5/../6", "mid/6"},
        {"/", "/"},
        {"", ""},
        {".", ""},
        {"..", ""},
        {"/.", "/"},
        {"/..", "/"},
        {"/a/..", "/"},
        {"/a/../../b", "/b"},
        {"//a//..", "//a/"},
        {"/a/.../b", "/a/.../b"},
        {"/a/b/..", "/a/"},
        {"/%2e%2e/a", "/%2e%2e/a"},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        bop_buf_clear(&f->buf);
        CHECK_EQ(bop_url_normalize(bytes(cases[i][0]), &f->buf), 0);
        CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes(cases[i][1]));
    }
}

TEST(url, gives_file_names_that_stay_below)
{
    static const struct {
        const char *path, *name;
        int rc;
    } cases[] = {
        {"/", "", 0},
        {"", "", 0},
        {"/a", "a", 0},
        {"/a/b.txt", "a/b.txt", 0},
        {"/a/", "a/", 0},
        {"//a///b//", "a/b/", 0},
        {"/a/./b", "a/b", 0},
        {"/a/../b", "b", 0},
        {"/x/../a/", "a/", 0},
        {"/a/..", "", 0},
        {"/a/b/..", "a/", 0},
        {"/a/.", "a/", 0},
        {"/a%20b%C3%A4", "a b\xc3\xa4", 0},
        {"/%61/%2e%2e/c", "c", 0},
        {"/...", "...", 0},
        {"/..a", "..a", 0},
        {"/.hidden", ".hidden", 0},
        {"/..", NULL, BOP_EDENIED},
        {"/a/../../b", NULL, BOP_EDENIED},
        {"/%2e%2e/etc/passwd", NULL, BOP_EDENIED},
        {"/.%2E/", NULL, BOP_EDENIED},
        {"/a%2fb", NULL, BOP_EMALFORMED},
        {"/..%2f..%2fetc", NULL, BOP_EMALFORMED},
        {"/a%5cb", NULL, BOP_EMALFORMED},
        {"/a\\b", NULL, BOP_EMALFORMED},
        {"/a%00.txt", NULL, BOP_EMALFORMED},
        {"/a%0a", NULL, BOP_EMALFORMED},
        {"/a%7f", NULL, BOP_EMALFORMED},
        {"/a%", NULL, BOP_EMALFORMED},
        {"/%252e%252e/a", "%2e%2e/a", 0}, /* Decoded once, and only once. */
    };

    REQUIRE_EQ(bop_buf_append(&f->buf, "root/", 5), 0);
    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        f->buf.size = 5;
        CHECK_EQ(bop_url_file_name(bytes(cases[i].path), &f->buf), cases[i].rc);
        CHECK_SLICE_EQ(bop_slice(f->buf.data + 5, f->buf.size - 5),
                       bytes(cases[i].name ? cases[i].name : ""));
        CHECK_MEM_EQ(f->buf.data, "root/", 5);
    }
}
