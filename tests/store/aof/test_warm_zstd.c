/*
 * The zstd program and packed files: what it makes of them is the segment's file.
 */
#include <spawn.h>
#include <sys/wait.h>

#include "warm_harness.h"

extern char **environ;

static const struct segment_options some = {.base = 1,
                                            .generation = 1,
                                            .records = 2000,
                                            .length_max = 300,
                                            .big_every = 400,
                                            .big_length = 50000,
                                            .fillers = true,
                                            .seed = 4};

/* Run a shell script with arguments; returns its exit status. */
static int run(const char *script, const char *a, const char *b)
{
    char *argv[] = {
        (char *)"sh", (char *)"-euc", (char *)script, (char *)"sh", (char *)a, (char *)b, NULL};
    int status;
    pid_t pid;

    REQUIRE_EQ(posix_spawnp(&pid, "sh", NULL, NULL, argv, environ), 0);
    REQUIRE_EQ(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Pack onto the real disk. Returns the path. */
static const char *pack_for_real(struct fixture *f)
{
    const char *path = test_path(NULL, "packed.zst");
    struct memory_source source;

    if (run("command -v zstd >/dev/null", "", "") != 0) {
        TEST_SKIP("there is no zstd");
    }
    f->options.fs = bop_fs_real();
    segment_make(&f->segment, &some);
    source = memory_source(f->segment.bytes.data, f->segment.bytes.size);
    REQUIRE_EQ(bop__warm_pack(&f->options, &source.source, path, &f->facts, &f->err), 0);
    return path;
}

static void check_content(struct fixture *f, const char *path)
{
    struct bop_buf got;

    bop_buf_init(&got, NULL, 0);
    REQUIRE_EQ(bop_fs_read_file(bop_fs_real(), path, SIZE_MAX / 2, &got), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&got), bop_buf_slice(&f->segment.bytes));
    bop_buf_deinit(&got);
}

TEST(warm_zstd, unpacks_a_file)
{
    const char *path = pack_for_real(f);
    const char *out = test_path(NULL, "out.seg");

    REQUIRE_EQ(run("zstd -q -d \"$1\" -o \"$2\"", path, out), 0);
    check_content(f, out);
}

TEST(warm_zstd, finds_the_file_whole)
{
    const char *path = pack_for_real(f);

    CHECK_EQ(run("zstd -q -t \"$1\"", path, ""), 0);
    CHECK_EQ(run("zstd -l -v \"$1\" 2>&1 | grep -q 'Check: XXH64'", path, ""), 0);
}

/* By the recipe in docs/design/warm.md. */
TEST(warm_zstd, unpacks_a_file_with_a_dictionary)
{
    static const char recipe[] =
        "F=$1\n"
        "size=$(stat -c %s $F)\n"
        "table=$((17 + 8 * $(tail -c 9 $F | od -An -tu4 -N4)))\n"
        "u32() { tail -c $((table + 256 - $1)) $F | od -An -tu4 -N4; }\n"
        "tail -c $((table + $(u32 176) + 8 + $(u32 144))) $F | head -c $(($(u32 144))) >$F.dict\n"
        "zstd -q -d -D $F.dict $F -o $2\n";
    const char *path, *out = test_path(NULL, "out.seg");

    f->options.frame_bytes = 4096;
    f->options.dictionary_bytes = 4096;
    path = pack_for_real(f);
    REQUIRE_EQ(run(recipe, path, out), 0);
    check_content(f, out);
    CHECK(run("zstd -q -t \"$1\" 2>/dev/null", path, "") != 0); /* It does need it. */
}
