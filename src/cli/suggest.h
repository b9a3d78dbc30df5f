/*
 * The nearest of some names to one that was mistyped.
 */
#ifndef BOP_CLI_SUGGEST_H
#define BOP_CLI_SUGGEST_H

#include <stddef.h>

/** Insertions, deletions, replacements and swaps of neighbours from a to b; SIZE_MAX: too long. */
size_t suggest_distance(const char *a, const char *b);

/** The name that was likely meant, or NULL if none is near. The first of equally near ones. */
const char *suggest_nearest(const char *name, const char *const *names, size_t count);

#endif
