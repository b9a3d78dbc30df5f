/*
 * The nearest name by edits (optimal string alignment): a slip of the fingers is
 * one or two of them, and a word with more is another word.
 */
#include "suggest.h"

#include <stdint.h>
#include <string.h>

#include <bop/base.h>

#define NAME_LONGEST 40
#define EDITS_MAX    3

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t suggest_distance(const char *a, const char *b)
{
    size_t rows[3][NAME_LONGEST + 1];
    size_t *two_above = rows[0], *above = rows[1], *row = rows[2];
    size_t height = strlen(a), width = strlen(b);

    if (height > NAME_LONGEST || width > NAME_LONGEST) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= width; j++) {
        above[j] = j;
    }
    for (size_t i = 1; i <= height; i++) {
        size_t *recycled = two_above;

        row[0] = i;
        for (size_t j = 1; j <= width; j++) {
            row[j] = least(above[j - 1] + (a[i - 1] != b[j - 1]), least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = least(row[j], two_above[j - 2] + 1);
            }
        }
        two_above = above;
        above = row;
        row = recycled;
    }
    return above[width];
}

const char *suggest_nearest(const char *name, const char *const *names, size_t count)
{
    /* Half of a short word may not be wrong: it would be any other word. */
    size_t best = 1 + least(EDITS_MAX, strlen(name) / 2);
    const char *nearest = NULL;

    for (size_t i = 0; i < count; i++) {
        size_t edits = suggest_distance(name, names[i]);

        if (edits < best) {
            best = edits;
            nearest = names[i];
        }
    }
    return nearest;
}
