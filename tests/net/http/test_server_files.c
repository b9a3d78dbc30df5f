/*
 * Files: what is served and what is not, validators, conditions, ranges and
 * compression. Every row is one request on a connection of its own.
 */
#include <sys/stat.h>
#include <zlib.h>

#include "server_fixture.h"
#include "state.h"

static const char *directory;

static void write_file(const char *name, const char *content, size_t size)
{
    FILE *file = fopen(test_path(directory, name), "wb");
    struct timespec times[2] = {{.tv_sec = 784111777}, {.tv_sec = 784111777}};

    REQUIRE(file != NULL);
    REQUIRE_EQ(fwrite(content, 1, size, file), size);
    REQUIRE_EQ(fclose(file), 0);
    REQUIRE_EQ(utimensat(AT_FDCWD, test_path(directory, name), times, 0), 0);
}

static char big[200000];
static char text[4000];

static void make_tree(void)
{
    directory = test_path(NULL, "www");
    REQUIRE_EQ(mkdir(directory, 0755), 0);
    REQUIRE_EQ(mkdir(test_path(directory, "sub"), 0755), 0);
    REQUIRE_EQ(mkdir(test_path(directory, "empty"), 0755), 0);
    REQUIRE_EQ(mkdir(test_path(directory, ".git"), 0755), 0);
    for (size_t i = 0; i < sizeof(big); i++) {
        big[i] = (char)('a' + i % 26);
    }
    memset(text, 't', sizeof(text));
    write_file("index.html", "<p>index", 8);
    write_file("ten.txt", "0123456789", 10);
    write_file("none.txt", "", 0);
    write_file("big.bin", big, sizeof(big));
    write_file("text.css", text, sizeof(text));
    write_file("pre.js", "plain", 5);
    write_file("pre.js.gz", "gzipped", 7);
    write_file("a b\xc3\xa4.txt", "space", 5);
    write_file("sub/index.html", "sub", 3);
    write_file("sub/file.JSON", "{}", 2);
    write_file(".hidden", "no", 2);
    write_file(".git/config", "no", 2);
    write_file("../secret", "no", 2);
    REQUIRE_EQ(symlink("../secret", test_path(directory, "out")), 0);
    REQUIRE_EQ(symlink("/etc/passwd", test_path(directory, "passwd")), 0);
    REQUIRE_EQ(symlink("ten.txt", test_path(directory, "in")), 0);
    REQUIRE_EQ(mkfifo(test_path(directory, "fifo"), 0644), 0);
}

static void setup(struct fixture *f)
{
    server_setup(f);
    make_tree();
    server_create(f, NULL);
    REQUIRE_EQ(bop_http_files(f->server, "/static", directory, NULL, NULL), 0);
    REQUIRE_EQ(bop_http_files(f->server, "/z/", directory,
                              &(struct bop_http_files_options){.compress = true,
                                                               .precompressed = true,
                                                               .index = "",
                                                               .cache_control = "max-age=60"},
                              NULL),
               0);
    add_routes(f);
    server_listen(f, &(struct bop_http_listen_options){0});
}

FIXTURE(setup, server_teardown)

struct row {
    const char *what;
    const char *path;
    const char *headers; /* Lines with their CRLF; "%E" is ten.txt's ETag. */
    unsigned status;
    const char *body; /* NULL: any. */
    const char *has;  /* In the head, NULL: anything. */
    const char *lacks;
};

static struct response request(struct client *client, const char *method, const char *path,
                               const char *headers)
{
    static char line[4096];

    snprintf(line, sizeof(line), "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, path, headers);
    if (client->taken == client->size) {
        client->taken = client->size = 0; /* Room for a large one. */
    }
    client_says(client, line);
    return take_response_to(client, strcmp(method, "HEAD") == 0);
}

static void etag_of(struct fixture *f, const char *path, char out[512])
{
    struct client *client = client_open(f);
    struct response response = request(client, "GET", path, "");
    const char *etag = response_header(&response, "ETag");

    REQUIRE(etag != NULL);
    snprintf(out, 512, "%s", etag);
    client_close(client);
}

static void run(struct fixture *f, const struct row *rows, size_t count)
{
    char etag[512], headers[2048];
    struct client *client = client_open(f);

    etag_of(f, "/static/ten.txt", etag);
    for (size_t i = 0; i < count; i++) {
        unsigned failures = test__failures();
        const char *lines = rows[i].headers != NULL ? rows[i].headers : "";
        const char *mark = strstr(lines, "%E");
        struct response response;

        if (mark != NULL) {
            snprintf(headers, sizeof(headers), "%.*s%s%s", (int)(mark - lines), lines, etag,
                     mark + 2);
            lines = headers;
        }
        response = request(client, "GET", rows[i].path, lines);
        CHECK_EQ(response.status, rows[i].status);
        if (rows[i].body != NULL) {
            CHECK_STR_EQ(response.body, rows[i].body);
        }
        if (rows[i].has != NULL) {
            CHECK_STR_HAS(response.head, rows[i].has);
        }
        if (rows[i].lacks != NULL) {
            CHECK(strstr(response.head, rows[i].lacks) == NULL);
        }
        if (test__failures() != failures) {
            test_note("in the row \"%s\": %s", rows[i].what, response.head);
        }
    }
    client_close(client);
}

#define RUN(rows) run(f, rows, BOP_COUNT_OF(rows))

/* ---- What is there ---- */

static const struct row files[] = {
    {"a file", "/static/ten.txt", NULL, 200, "0123456789",
     "Content-Type: text/plain; charset=utf-8\r\n"},
    {"its date", "/static/ten.txt", NULL, 200, NULL,
     "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"},
    {"ranges are announced", "/static/ten.txt", NULL, 200, NULL, "Accept-Ranges: bytes\r\n"},
    {"an empty file", "/static/none.txt", NULL, 200, "", "Content-Length: 0\r\n"},
    {"a type by its name, whatever the case", "/static/sub/file.JSON", NULL, 200, "{}",
     "application/json\r\n"},
    {"an unknown type", "/static/big.bin", NULL, 200, NULL, "application/octet-stream\r\n"},
    {"the index", "/static/", NULL, 200, "<p>index", "text/html; charset=utf-8\r\n"},
    {"the index of a directory", "/static/sub/", NULL, 200, "sub"},
    {"a directory without its slash", "/static/sub?a=b", NULL, 301, NULL,
     "Location: /static/sub/?a=b\r\n"},
    {"the prefix without its slash", "/static", NULL, 301, NULL, "Location: /static/\r\n"},
    {"a directory without index", "/static/empty/", NULL, 404},
    {"no index wanted", "/z/sub/", NULL, 404},
    {"escapes", "/static/a%20b%C3%a4.txt", NULL, 200, "space"},
    {"a link inside", "/static/in", NULL, 200, "0123456789"},
    {"a query is no part of the name", "/static/ten.txt?x=/../", NULL, 200, "0123456789"},
    {"nothing there", "/static/nope", NULL, 404},
    {"below a file", "/static/ten.txt/x", NULL, 404},
    {"a file with a slash", "/static/ten.txt/", NULL, 404},
    {"a link that leads out", "/static/out", NULL, 404},
    {"a link to an absolute path", "/static/passwd", NULL, 404},
    {"no pipe", "/static/fifo", NULL, 404},
    {"..", "/static/../secret", NULL, 404},
    {".. within", "/static/sub/../../secret", NULL, 404},
    {"an escaped ..", "/static/%2e%2e/secret", NULL, 404},
    {"an escaped slash", "/static/..%2fsecret", NULL, 404},
    {"a backslash", "/static/sub%5c..%5csecret", NULL, 404},
    {"a NUL", "/static/ten.txt%00.html", NULL, 404},
    {"a bad escape", "/static/ten.tx%7", NULL, 404},
    {"an absolute path", "/static//etc/passwd", NULL, 404},
    {"a hidden file", "/static/.hidden", NULL, 404},
    {"a hidden directory", "/static/.git/config", NULL, 404},
    {"caching", "/z/ten.txt", NULL, 200, NULL, "Cache-Control: max-age=60\r\n"},
};

TEST(files, are_served_from_below_the_directory_only)
{
    RUN(files);
}

TEST(files, are_not_served_by_names_too_long)
{
    struct client *client = client_open(f);
    char path[2200] = "/static/";

    memset(path + 8, 'a', 1500);
    CHECK_EQ(request(client, "GET", path, "").status, 404);
    memset(path + 8, 'a', 300);
    path[308] = '\0';
    CHECK_EQ(request(client, "GET", path, "").status, 404);
    client_close(client);
}

TEST(files, have_a_head_without_a_body)
{
    struct client *client = client_open(f);
    struct response response = request(client, "HEAD", "/static/big.bin", "Range: bytes=0-1\r\n");

    CHECK_EQ(response.status, 200); /* A range is of GET's. */
    CHECK_STR_EQ(response_header(&response, "Content-Length"), "200000");
    CHECK_EQ(request(client, "POST", "/static/ten.txt", "Content-Length: 0\r\n").status, 405);
    CHECK_EQ(request(client, "GET", "/static/ten.txt", "").status, 200);
    client_close(client);
}

/* ---- Conditions (RFC 9110, 13) ---- */

#define DATE    "Sun, 06 Nov 1994 08:49:37 GMT\r\n"
#define EARLIER "Sun, 06 Nov 1994 08:49:36 GMT\r\n"
#define LATER   "Mon, 07 Nov 1994 08:49:37 GMT\r\n"
#define TEN     "/static/ten.txt"

static const struct row conditions[] = {
    {"the tag", TEN, "If-None-Match: %E\r\n", 304, NULL, "ETag: \"", "Content-Length"},
    {"the tag, weak", TEN, "If-None-Match: W/%E\r\n", 304},
    {"the tag among others", TEN, "If-None-Match: \"a\", W/\"b\" , %E\r\n", 304},
    {"the tag in a second line", TEN, "If-None-Match: \"a\"\r\nIf-None-Match: %E\r\n", 304},
    {"any tag", TEN, "If-None-Match: *\r\n", 304},
    {"another tag", TEN, "If-None-Match: \"a\"\r\n", 200},
    {"a tag without quotes", TEN, "If-None-Match: a\r\n", 200},
    {"not modified", TEN, "If-Modified-Since: " DATE, 304},
    {"not modified since later", TEN, "If-Modified-Since: " LATER, 304},
    {"modified", TEN, "If-Modified-Since: " EARLIER, 200},
    {"no date", TEN, "If-Modified-Since: yesterday\r\n", 200},
    {"the tag goes before the date", TEN, "If-None-Match: \"a\"\r\nIf-Modified-Since: " DATE, 200},
    {"and the other way", TEN, "If-None-Match: %E\r\nIf-Modified-Since: " EARLIER, 304},
    {"If-Match", TEN, "If-Match: %E\r\n", 200},
    {"If-Match of any", TEN, "If-Match: *\r\n", 200},
    {"If-Match of another", TEN, "If-Match: \"a\"\r\n", 412},
    {"If-Match is strong", TEN, "If-Match: W/%E\r\n", 412},
    {"If-Unmodified-Since", TEN, "If-Unmodified-Since: " DATE, 200},
    {"modified since", TEN, "If-Unmodified-Since: " EARLIER, 412},
    {"If-Match goes before it", TEN, "If-Match: %E\r\nIf-Unmodified-Since: " EARLIER, 200},
    {"nothing there comes first", "/static/nope", "If-Match: \"a\"\r\n", 404},
};

TEST(files, are_served_on_condition)
{
    RUN(conditions);
}

/* ---- Ranges (RFC 9110, 14) ---- */

static const struct row ranges[] = {
    {"the first", TEN, "Range: bytes=0-3\r\n", 206, "0123", "Content-Range: bytes 0-3/10\r\n"},
    {"one byte", TEN, "Range: bytes=9-9\r\n", 206, "9", "Content-Range: bytes 9-9/10\r\n"},
    {"from there on", TEN, "Range: bytes=7-\r\n", 206, "789", "Content-Range: bytes 7-9/10\r\n"},
    {"the last", TEN, "Range: bytes=-2\r\n", 206, "89", "Content-Range: bytes 8-9/10\r\n"},
    {"more than there is", TEN, "Range: bytes=5-100\r\n", 206, "56789"},
    {"more at the end than there is", TEN, "Range: bytes=-100\r\n", 206, "0123456789"},
    {"numbers beyond all", TEN, "Range: bytes=1-99999999999999999999999\r\n", 206, "123456789"},
    {"beyond the end", TEN, "Range: bytes=10-\r\n", 416, NULL, "Content-Range: bytes */10\r\n"},
    {"nothing at the end", TEN, "Range: bytes=-0\r\n", 416},
    {"of an empty file", "/static/none.txt", "Range: bytes=0-\r\n", 416},
    {"the unit, whatever its case", TEN, "Range: Bytes=0-0\r\n", 206, "0"},
    {"another unit", TEN, "Range: lines=0-1\r\n", 200, "0123456789"},
    {"backwards", TEN, "Range: bytes=3-1\r\n", 200, "0123456789"},
    {"no number", TEN, "Range: bytes=-\r\n", 200, "0123456789"},
    {"no dash", TEN, "Range: bytes=3\r\n", 200, "0123456789"},
    {"letters", TEN, "Range: bytes=a-b\r\n", 200, "0123456789"},
    {"nothing", TEN, "Range: bytes=\r\n", 200, "0123456789"},
    {"a negative", TEN, "Range: bytes=--1\r\n", 200, "0123456789"},
    {"one that exists of two", TEN, "Range: bytes=20-30, 1-2\r\n", 206, "12"},
    {"none of two exists", TEN, "Range: bytes=20-30,40-\r\n", 416},
    {"two that overlap to more than all", TEN, "Range: bytes=0-9,0-9\r\n", 200, "0123456789"},
    {"more than anyone needs", TEN,
     "Range: bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0\r\n", 200},
    {"If-Range with the tag", TEN, "If-Range: %E\r\nRange: bytes=0-0\r\n", 206, "0"},
    {"If-Range with another", TEN, "If-Range: \"a\"\r\nRange: bytes=0-0\r\n", 200, "0123456789"},
    {"If-Range is strong", TEN, "If-Range: W/%E\r\nRange: bytes=0-0\r\n", 200},
    {"If-Range with the date", TEN, "If-Range: " DATE "Range: bytes=0-0\r\n", 206, "0"},
    {"If-Range with another date", TEN, "If-Range: " LATER "Range: bytes=0-0\r\n", 200},
    {"a condition goes first", TEN, "If-None-Match: %E\r\nRange: bytes=0-0\r\n", 304},
};

TEST(files, are_served_in_parts)
{
    RUN(ranges);
}

TEST(files, are_served_in_several_parts)
{
    struct client *client = client_open(f);
    struct response response = request(client, "GET", TEN, "Range: bytes=0-1, 4-5 ,-1\r\n");
    char expected[1024], boundary[64];
    const char *type = response_header(&response, "Content-Type");

    CHECK_EQ(response.status, 206);
    REQUIRE(type != NULL && sscanf(type, "multipart/byteranges; boundary=%63s", boundary) == 1);
    snprintf(expected, sizeof(expected),
             "--%s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 0-1/10\r\n"
             "\r\n01\r\n"
             "--%s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 4-5/10\r\n"
             "\r\n45\r\n"
             "--%s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 9-9/10\r\n"
             "\r\n9\r\n--%s--\r\n",
             boundary, boundary, boundary, boundary);
    CHECK_STR_EQ(response.body, expected);
    response = request(client, "GET", "/static/big.bin", "Range: bytes=0-49999,100000-149999\r\n");
    CHECK_EQ(response.status, 206);
    CHECK(response.body_size > 100000);
    CHECK(memmem(response.body, response.body_size, big + 100000, 50000) != NULL);
    CHECK_EQ(request(client, "GET", TEN, "").status, 200); /* Still in step. */
    client_close(client);
}

TEST(files, of_some_size_are_sent_whole)
{
    struct client *client = client_open(f);
    struct response response = request(client, "GET", "/static/big.bin", "");

    CHECK_EQ(response.body_size, sizeof(big));
    CHECK_MEM_EQ(response.body, big, sizeof(big));
    response = request(client, "GET", "/static/big.bin", "Range: bytes=1000-199000\r\n");
    CHECK_EQ(response.body_size, 198001);
    CHECK_MEM_EQ(response.body, big + 1000, 198001);
    client_close(client);
}

/* ---- Compression ---- */

#define GZIP    "Accept-Encoding: gzip\r\n"
#define DEFLATE "Accept-Encoding: deflate, gzip;q=0.5\r\n"

static const struct row compressed[] = {
    {"a twin", "/z/pre.js", GZIP, 200, "gzipped", "Content-Encoding: gzip\r\n"},
    {"its type", "/z/pre.js", GZIP, 200, NULL, "text/javascript"},
    {"no twin wanted", "/z/pre.js", NULL, 200, "plain", "Vary: Accept-Encoding\r\n",
     "Content-Encoding"},
    {"a range of the twin", "/z/pre.js", GZIP "Range: bytes=0-0\r\n", 206, "g",
     "Content-Encoding: gzip\r\n"},
    {"too small to compress", "/z/ten.txt", GZIP, 200, "0123456789", NULL, "Content-Encoding"},
    {"no text", "/z/big.bin", GZIP, 200, NULL, NULL, "Content-Encoding"},
    {"not where it is not asked for", "/static/text.css", GZIP, 200, NULL, NULL,
     "Content-Encoding"},
    {"a range is of the file itself", "/z/text.css", GZIP "Range: bytes=0-1\r\n", 206, "tt", NULL,
     "Content-Encoding"},
    {"a file of text", "/z/text.css", GZIP, 200, NULL, "Content-Encoding: gzip\r\n"},
    {"deflate where it weighs more", "/z/text.css", DEFLATE, 200, NULL,
     "Content-Encoding: deflate\r\n"},
    {"a twin all the same", "/z/pre.js", DEFLATE, 200, "gzipped", "Content-Encoding: gzip\r\n"},
    {"the bytes as they are, if they weigh more", "/z/pre.js",
     "Accept-Encoding: identity, gzip;q=0.9\r\n", 200, "plain", NULL, "Content-Encoding"},
};

TEST(files, are_compressed_where_that_pays)
{
    RUN(compressed);
}

static size_t inflate_all(const char *from, size_t from_size, int wrapping, char *to,
                          size_t to_size)
{
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)from,
                       .avail_in = (uInt)from_size,
                       .next_out = (Bytef *)to,
                       .avail_out = (uInt)to_size};

    REQUIRE_EQ(inflateInit2(&stream, 15 + wrapping), Z_OK);
    CHECK_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
    inflateEnd(&stream);
    return to_size - stream.avail_out;
}

/* Which bytes come, under which tag. */
static void check_compressed(struct client *client, const char *accept, int wrapping,
                             const char *other_etag, char out_etag[512])
{
    struct response response = request(client, "GET", "/z/text.css", accept);
    static char back[8192];
    char line[1024];

    CHECK_EQ(inflate_all(response.body, response.body_size, wrapping, back, sizeof(back)),
             sizeof(text));
    CHECK_MEM_EQ(back, text, sizeof(text));
    /* Other bytes, another tag, which is good for a condition. */
    snprintf(out_etag, 512, "%s", response_header(&response, "ETag"));
    CHECK(strcmp(out_etag, other_etag) != 0);
    snprintf(line, sizeof(line), "%sIf-None-Match: %s\r\n", accept, out_etag);
    CHECK_EQ(request(client, "GET", "/z/text.css", line).status, 304);
    snprintf(line, sizeof(line), "%sIf-None-Match: %s\r\n", accept, other_etag);
    CHECK_EQ(request(client, "GET", "/z/text.css", line).status, 200);
}

TEST(files, are_the_same_after_compression)
{
    struct client *client = client_open(f);
    char plain[512], gzip[512], deflate[512];

    etag_of(f, "/z/text.css", plain);
    check_compressed(client, GZIP, 16, plain, gzip);
    check_compressed(client, DEFLATE, 0, gzip, deflate);
    CHECK(strcmp(deflate, plain) != 0);
    client_close(client);
}

/* ---- Trouble ---- */

TEST(files, of_no_directory_are_an_error_that_names_it)
{
    struct bop_error err;

    CHECK_EQ(bop_http_files(f->server, "/x", test_path(directory, "nope"), NULL, &err), -ENOENT);
    CHECK_STR_HAS(err.message, "nope");
    CHECK_EQ(bop_http_files(f->server, "/x", test_path(directory, "ten.txt"), NULL, &err),
             -ENOTDIR);
    CHECK_EQ(bop_http_files(f->server, "/static", directory, NULL, &err), BOP_EEXISTS);
}

TEST(files, that_cannot_be_read_are_forbidden)
{
    struct client *client;

    if (geteuid() == 0) {
        TEST_SKIP("root may read all");
    }
    client = client_open(f);
    REQUIRE_EQ(chmod(test_path(directory, "ten.txt"), 0), 0);
    CHECK_EQ(request(client, "GET", TEN, "").status, 403);
    client_close(client);
}

TEST(files, for_which_there_is_no_descriptor_are_answered_later)
{
    struct client *client = client_open(f);
    int held[4096];
    int count = 0;

    CHECK_EQ(request(client, "GET", TEN, "").status, 200);
    do {
        held[count] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    } while (held[count] >= 0 && ++count < 4096);
    if (count < 4096) {
        CHECK_EQ(request(client, "GET", TEN, "").status, 503);
    }
    while (count-- > 0) {
        close(held[count]);
    }
    CHECK_EQ(request(client, "GET", TEN, "").status, 200);
    client_close(client);
}
