/*
 * Where the history goes: for main.c.
 */
#ifndef BOP_CHAOS_RECORD_H
#define BOP_CHAOS_RECORD_H

#include <stdio.h>

#include "load.h"

struct load_counts {
    uint64_t by_outcome[3]; /* enum chaos_outcome */
};

void load_record_to(FILE *out);
void load_record_counts(struct load_counts *out_counts);

#endif
