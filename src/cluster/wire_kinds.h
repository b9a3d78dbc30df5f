/*
 * What is known of each message kind, for the files of the wire protocol.
 */
#ifndef BOP_CLUSTER_WIRE_KINDS_H
#define BOP_CLUSTER_WIRE_KINDS_H

#include <stdint.h>

/** One row of wire_kinds.def. */
struct wire_kind_info {
    const char *name;
    const char *fields;     /* Field letters. */
    unsigned flags_allowed; /* Bit i: the flags byte may be i. */
};

/** The row of a kind, or NULL for one that is not known. */
const struct wire_kind_info *bop__wire_kind(uint16_t kind);

#endif
