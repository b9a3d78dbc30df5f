/*
 * What the engines ask of a configuration beyond its encoding.
 */
#ifndef BOP_RAFT_CONFIGURATION_H
#define BOP_RAFT_CONFIGURATION_H

#include <bop/raft.h>

/** True if it keeps every rule that bop_raft_configuration_decode() lists. */
bool bop__raft_configuration_valid(const struct bop_raft_configuration *conf);

/** The server with this id, or NULL. */
const struct bop_raft_server *
bop__raft_configuration_find(const struct bop_raft_configuration *conf, uint64_t id);

unsigned bop__raft_configuration_voters(const struct bop_raft_configuration *conf);

/**
 * Put `to` in the order of `from`: servers they share first, as they stand in
 * `from`, a new one last. Returns the number of servers added, removed or
 * altered (role or address).
 */
unsigned bop__raft_configuration_difference(const struct bop_raft_configuration *from,
                                            const struct bop_raft_configuration *to,
                                            struct bop_raft_configuration *out_ordered);

#endif
