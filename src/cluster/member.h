/*
 * How a server is written down in a configuration and in a node's hello: its
 * address and what else is to be known of it, in one text.
 *
 *      host:port                    of a server that nothing more is known of
 *      host:port;i=HEX;p=5;l        in a configuration
 *      host:port;m=70               likewise, of one whose directory is not known yet
 *      host:port;i=HEX;l;m=90;v=2   in a hello
 *
 * Consensus carries these texts and does not look into them, so that what belongs to a
 * server comes and goes in the same entry as the server itself. An older node takes
 * host and port out of them all the same. Attributes that are not known are skipped.
 */
#ifndef BOP_CLUSTER_MEMBER_H
#define BOP_CLUSTER_MEMBER_H

#include <bop/raft.h>
#include <bop/slice.h>
#include <bop/wire.h>

#define MEMBER_TEXT_MAX (sizeof(((struct bop_raft_server *)NULL)->address))

/* Room for attributes: the longest address in a configuration or a hello. */
#define MEMBER_ADDRESS_MAX 200

struct member {
    char address[MEMBER_TEXT_MAX]; /* "host:port". */
    uint64_t incarnation;          /* i: of the data directory; 0: not known. */
    uint32_t priority;             /* p: 1 if it does not say. */
    bool learner;                  /* l: it is not made a voter by itself. */
    uint64_t since;                /* m: it is a member, by the configuration of this entry; in a
                                      configuration: none that was one by then. */
    uint32_t level;                /* v: the highest feature level it can do; 0: it does not say. */
    bool introduced;               /* It has attributes at all: a node that knows of them. */
};

/** Returns 0, or BOP_EMALFORMED if the text is too long or an attribute makes no sense. */
BOP_MUST_USE int bop__member_parse(struct bop_slice text, struct member *out_member);

/** Returns 0, or BOP_ETOOBIG if it has no room in a configuration. */
BOP_MUST_USE int bop__member_format(const struct member *member, char out_text[MEMBER_TEXT_MAX]);

/** The address alone, borrowed. */
struct bop_slice bop__member_address(const char *text);

/** What a server's text says; of one that makes no sense the address at least. */
void bop__member_of(const struct bop_raft_server *server, struct member *out_member);

const struct bop_raft_server *bop__member_find(const struct bop_raft_configuration *conf,
                                               uint64_t id);

#endif
