/*
 * Checks that code ends its process: it is run in a child.
 */
#ifndef BOP_TESTS_CORE_DYING_H
#define BOP_TESTS_CORE_DYING_H

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

/** Run act(f) in a child, which must die with `what` in its standard error. */
static inline void check_dies(struct fixture *f, void (*act)(struct fixture *f), const char *what)
{
    char output[65536];
    size_t size = 0;
    ssize_t got;
    int ends[2];
    int status;
    pid_t child;

    REQUIRE_EQ(pipe(ends), 0);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const struct rlimit no_core = {.rlim_cur = 0, .rlim_max = 0};

        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        setrlimit(RLIMIT_CORE, &no_core);
        act(f);
        _exit(0);
    }
    close(ends[1]);
    while ((got = read(ends[0], output + size, sizeof(output) - 1 - size)) > 0) {
        size += (size_t)got;
    }
    output[size] = '\0';
    close(ends[0]);
    REQUIRE_EQ(waitpid(child, &status, 0), child);
    CHECK(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
    CHECK_STR_HAS(output, what);
}

#endif
