/*
 * The end of a program that found a bug in itself.
 */
#include <bop/base.h>

#include <stdio.h>
#include <stdlib.h>

void bop_assert_failed(const char *file, int line, const char *function, const char *condition)
{
    fprintf(stderr, "%s:%d: %s: assertion failed: %s\n", file, line, function, condition);
    abort();
}
