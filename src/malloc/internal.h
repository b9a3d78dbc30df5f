/*
 * What the files of libbop-malloc share.
 */
#ifndef BOP_MALLOC_INTERNAL_H
#define BOP_MALLOC_INTERNAL_H

#include <stdio.h>

#include <bop/base.h>

/* All that leaves the library; everything else stays hidden in it, and is called directly. */
#define BOP__EXPORT __attribute__((visibility("default")))

/* What the process holds, and a line a tag. */
void bop__malloc_summary(FILE *out);

#endif
