/*
 * Temporary directories of tests.
 *
 * They belong to the process that made them: a forked child that exits removes
 * nothing of its parent's.
 */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include "state.h"
#include "tap.h"

/* Descriptors that a walk may hold. */
#define WALK_FILES_MAX 16

struct text {
    struct text *next;
    bool is_directory; /* One to remove; else only a string. */
    char content[];
};

static struct text *texts;
static pid_t owner;

static BOP_NORETURN void die(const char *what)
{
    perror(what);
    abort();
}

static struct text *new_text(const char *directory, const char *name)
{
    size_t size = strlen(directory) + strlen(name) + 2;
    struct text *text = malloc(sizeof(*text) + size);

    if (!text) {
        die("out of memory");
    }
    snprintf(text->content, size, "%s/%s", directory, name);
    text->is_directory = false;
    text->next = texts;
    texts = text;
    return text;
}

const char *test_tmpdir(void)
{
    const char *base = getenv("TMPDIR");
    struct text *text;

    if (owner != getpid()) {
        texts = NULL; /* The parent's. */
        if (owner == 0) {
            atexit(test__remove_tmpdirs);
        }
        owner = getpid();
    }
    text = new_text(base && base[0] ? base : "/tmp", "bop-test-XXXXXX");
    if (!mkdtemp(text->content)) {
        die(text->content);
    }
    text->is_directory = true;
    return text->content;
}

const char *test_path(const char *directory, const char *name)
{
    if (!directory) {
        directory = test_tmpdir();
    }
    return new_text(directory, name)->content;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    if (remove(path) != 0) {
        perror(path);
    }
    return 0;
}

void test__remove_tmpdirs(void)
{
    if (owner != getpid()) {
        return;
    }
    while (texts) {
        struct text *text = texts;

        texts = text->next;
        if (text->is_directory) {
            nftw(text->content, remove_one, WALK_FILES_MAX, FTW_DEPTH | FTW_PHYS);
        }
        free(text);
    }
}
