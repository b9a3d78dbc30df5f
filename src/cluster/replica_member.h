/*
 * Who belongs to the cluster, beyond what consensus keeps of it: which data directory
 * a server is, what nodes say of themselves when they connect, removal, and who should
 * lead. docs/design/membership.md has the rules and why they are right.
 */
#ifndef BOP_CLUSTER_REPLICA_MEMBER_H
#define BOP_CLUSTER_REPLICA_MEMBER_H

#include "member.h"
#include "member_file.h"

struct replica;

enum introduction {
    INTRODUCTION_ACCEPTED,
    INTRODUCTION_REFUSED,  /* The text says why and what to do. */
    INTRODUCTION_REMOVED,  /* Likewise; and it is to be told that it was removed... */
    INTRODUCTION_REPLACED, /* ...or that its place is taken. */
};

#define MEMBERS_GONE 16

/** The replica's part of it. */
struct replica_members {
    struct member_file file;
    uint64_t committed_index; /* Of the newest configuration known to be committed. */
    uint64_t conf_index;      /* ...when the newest one was last another. */
    struct bop_raft_configuration committed; /* The newest that is so; empty: none in this run. */
    uint64_t gone_index;                     /* Its entry. */
    uint64_t gone[MEMBERS_GONE];             /* Incarnations that left it, the oldest goes first. */
    unsigned gone_count;                     /* All that were. */
    bool belongs;           /* A committed configuration had this node, perhaps not saved yet: */
    uint64_t belongs_index; /* the one of this entry. */
    bool hellos;            /* Peers say hello: this is not a test that has none. */
    bool introductions;     /* A peer said who it is: this cluster keeps incarnations. */
    bool complained;        /* Of another incarnation under our id. */
    uint64_t led_since_ms;  /* 0: this node does not lead. */
    uint64_t prefer_ms;     /* When to look next for a leader that is preferred. */
    uint64_t tell_ms;       /* When to tell removed ones again. */
};

/** What this node says of itself in a hello. */
void bop__replica_introduction(const struct replica *replica, char out_text[MEMBER_TEXT_MAX]);

/** A peer says who it is. A refusal is a sentence that both sides log. */
enum introduction bop__replica_introduced(struct replica *replica, uint64_t id,
                                          struct bop_slice text, char *out_refusal,
                                          size_t refusal_size);

/** It was a member, by what it says or as this node remembers, and is none by the newest committed
 * configuration. */
bool bop__replica_was_removed(const struct replica *replica, const struct member *hello);

/** The entry of the newest committed configuration: what a node is told that is not in it. */
uint64_t bop__replica_configuration_index(const struct replica *replica);

/** PEER_REMOVED: a peer says that this node is no member by the configuration of this entry, or
 * that another data directory is. to_hello: in answer to our hello, so it is this very directory
 * that is meant; else one that has not joined yet may be taken for another one of its id. Returns 0
 * or BOP_EMALFORMED. */
BOP_MUST_USE int bop__replica_removed(struct replica *replica, struct bop_slice payload,
                                      bool to_hello);

/** Its payload. */
void bop__replica_removed_encode(const struct replica *replica, struct bop_writer *writer,
                                 enum introduction why);

#endif
