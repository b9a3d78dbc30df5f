/* Entries out of files: lines, JSON lines, package databases. */
#include <stdlib.h>
#include <unistd.h>

#include "source.h"
#include "tap.h"

struct fixture {
    struct source source;
    struct bop_error err;
    int fds[2];
};

static void teardown(struct fixture *f)
{
    source_deinit(&f->source);
    if (f->fds[0] > 0) {
        close(f->fds[0]);
    }
    if (f->fds[1] > 0) {
        close(f->fds[1]);
    }
}

static void setup(struct fixture *f)
{
    REQUIRE_EQ(pipe(f->fds), 0);
    source_init(&f->source, f->fds[0], false);
}

FIXTURE(setup, teardown)

static void feed(struct fixture *f, const char *text)
{
    REQUIRE_EQ(write(f->fds[1], text, strlen(text)), strlen(text));
}

static void end(struct fixture *f)
{
    close(f->fds[1]);
    f->fds[1] = -1;
}

static void expect(struct fixture *f, const char *key, const char *value)
{
    REQUIRE_EQ(source_next(&f->source, &f->err), 1);
    CHECK_SLICE_EQ(bop_buf_slice(&f->source.key), bytes(key));
    CHECK_SLICE_EQ(bop_buf_slice(&f->source.value), bytes(value));
}

/* ---- Lines ---- */

TEST(lines, come_one_by_one)
{
    struct bop_slice line;

    feed(f, "a\n\nbc\nd");
    end(f);
    REQUIRE_EQ(lines_next(&f->source.lines, &line), 1);
    CHECK_SLICE_EQ(line, bytes("a\n"));
    REQUIRE_EQ(lines_next(&f->source.lines, &line), 1);
    CHECK_SLICE_EQ(line, bytes("\n"));
    REQUIRE_EQ(lines_next(&f->source.lines, &line), 1);
    CHECK_SLICE_EQ(line, bytes("bc\n"));
    REQUIRE_EQ(lines_next(&f->source.lines, &line), 1);
    CHECK_SLICE_EQ(line, bytes("d"));
    CHECK_EQ(lines_next(&f->source.lines, &line), 0);
    CHECK_EQ(lines_next(&f->source.lines, &line), 0);
}

TEST(lines, that_are_not_there_yet_are_waited_for_elsewhere)
{
    struct bop_slice line;

    CHECK_EQ(lines_next(&f->source.lines, &line), BOP_EAGAIN);
    feed(f, "ab");
    CHECK_EQ(lines_next(&f->source.lines, &line), BOP_EAGAIN);
    feed(f, "c\nd");
    REQUIRE_EQ(lines_next(&f->source.lines, &line), 1);
    CHECK_SLICE_EQ(line, bytes("abc\n"));
    CHECK_EQ(lines_next(&f->source.lines, &line), BOP_EAGAIN);
}

TEST(lines, have_a_bound)
{
    struct bop_slice line;

    f->source.lines.line_max = 4;
    feed(f, "abc\nabcd\n");
    REQUIRE_EQ(lines_next(&f->source.lines, &line), 1);
    CHECK_EQ(lines_next(&f->source.lines, &line), BOP_ETOOBIG);
}

TEST(lines, without_an_end_have_a_bound_too)
{
    struct bop_slice line;

    f->source.lines.line_max = 4;
    feed(f, "abcdefgh");
    CHECK_EQ(lines_next(&f->source.lines, &line), BOP_ETOOBIG);
}

/* ---- JSON lines ---- */

TEST(source, reads_json_lines)
{
    feed(f, "{\"key\":\"a\",\"value\":\"1\"}\n\n  \r\n{\"key\":\"b\",\"value\":\"2\"}");
    end(f);
    expect(f, "a", "1");
    expect(f, "b", "2");
    CHECK_EQ(f->source.line, 4);
    CHECK_EQ(source_next(&f->source, &f->err), 0);
}

TEST(source, says_in_which_line_a_mistake_is)
{
    feed(f, "{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\"}\n");
    expect(f, "a", "1");
    CHECK_EQ(source_next(&f->source, &f->err), BOP_EMALFORMED);
    CHECK_STR_EQ(f->err.message, "line 2: neither \"value\" nor \"value64\"");
}

/* ---- Package databases ---- */

TEST(dpkg, gives_a_stanza_a_package)
{
    f->source.dpkg = true;
    feed(f, "Package: a\nDescription: one\n more\n .\n Package: no field\n\n"
            "\n\nVersion: 1\nPackage: b\n");
    end(f);
    expect(f, "a", "Package: a\nDescription: one\n more\n .\n Package: no field\n");
    expect(f, "b", "Version: 1\nPackage: b\n");
    CHECK_EQ(source_next(&f->source, &f->err), 0);
}

TEST(dpkg, does_without_the_last_line_feed)
{
    f->source.dpkg = true;
    feed(f, "Package: a");
    end(f);
    expect(f, "a", "Package: a");
    CHECK_EQ(source_next(&f->source, &f->err), 0);
}

TEST(dpkg, knows_field_names_in_any_case)
{
    f->source.dpkg = true;
    feed(f, "PACKAGE:a\t\nX-Package: c\nPackages: d\n\n");
    expect(f, "a", "PACKAGE:a\t\nX-Package: c\nPackages: d\n");
}

/* Of these several may be installed, under one name. */
TEST(dpkg, tells_architectures_apart)
{
    f->source.dpkg = true;
    feed(f, "Package: libc6\nArchitecture: amd64\nMulti-Arch: same\n\n"
            "Package: libc6\nArchitecture: i386\nMulti-Arch: same\n\n"
            "Package: bash\nArchitecture: amd64\nMulti-Arch: foreign\n\n"
            "Package: odd\nMulti-Arch: same\n\n");
    expect(f, "libc6:amd64", "Package: libc6\nArchitecture: amd64\nMulti-Arch: same\n");
    expect(f, "libc6:i386", "Package: libc6\nArchitecture: i386\nMulti-Arch: same\n");
    expect(f, "bash", "Package: bash\nArchitecture: amd64\nMulti-Arch: foreign\n");
    expect(f, "odd", "Package: odd\nMulti-Arch: same\n");
}

TEST(dpkg, refuses_a_paragraph_that_is_no_package)
{
    f->source.dpkg = true;
    feed(f, "hello\n\n");
    CHECK_EQ(source_next(&f->source, &f->err), BOP_EMALFORMED);
    CHECK_STR_HAS(f->err.message, "line 2: a paragraph without a Package field");
}

TEST(dpkg, takes_an_empty_file_for_no_packages)
{
    f->source.dpkg = true;
    feed(f, "\n\n");
    end(f);
    CHECK_EQ(source_next(&f->source, &f->err), 0);
}
