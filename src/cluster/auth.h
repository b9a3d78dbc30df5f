/*
 * Who may do what: tokens and their rights by namespace.
 *
 * A node holds one set of tokens, replaced as a whole. Whoever is served holds a struct
 * auth_who, which says what was shown and caches who that is: as long as the set is
 * the same, a question costs a comparison of numbers and of the rights. After a new set
 * the next question looks it up again, so a token that was taken away is worth
 * nothing from then on, on connections that showed it long ago too.
 *
 * Of tokens only SHA-256 is kept. They are compared in constant time, all of them, so
 * that the time an answer takes says nothing of what would have been right.
 *
 * Threads: the node's loop only.
 */
#ifndef BOP_CLUSTER_AUTH_H
#define BOP_CLUSTER_AUTH_H

#include <bop/alloc.h>
#include <bop/error.h>
#include <bop/node.h>
#include <bop/wire.h>

#define AUTH_TEXT_MAX     400
#define AUTH_FAILURES_MAX 3 /* Wrong tokens of one connection; then it is closed. */

struct auth;
struct auth_token; /* One of the set. */

/** What somebody showed. All zero: nothing, and no tokens are wanted. */
struct auth_who {
    struct auth *auth;              /* NULL: no tokens are wanted, everything is allowed. */
    const struct auth_token *token; /* As of `version`; NULL: nobody. */
    uint64_t version;
    enum { AUTH_NOTHING, AUTH_TOKEN, AUTH_CERTIFICATE } shown;
    uint8_t hash[BOP_TOKEN_HASH_SIZE]; /* Of what was shown. */
    unsigned failures;
};

BOP_MUST_USE int bop__auth_create(struct bop_allocator *allocator, struct auth **out_auth);
void bop__auth_destroy(struct auth *auth);

/** Replace all tokens; they are copied. 0, BOP_EINVAL (err says why) or BOP_ENOMEM: all is as it
 * was. */
BOP_MUST_USE int bop__auth_set(struct auth *auth, const struct bop_node_token *tokens, size_t count,
                               struct bop_error *err);

/** Somebody came, who has shown nothing yet. */
static inline struct auth_who bop__auth_who(struct auth *auth)
{
    return (struct auth_who){.auth = auth};
}

/** Show a token. False: it is not known, and what was shown before counts no more. */
BOP_MUST_USE bool bop__auth_show_token(struct auth_who *who, struct bop_slice token);

/** Show the names of a verified certificate, with commas between them. False: none is known. */
BOP_MUST_USE bool bop__auth_show_certificate(struct auth_who *who, const char *names);

/** Whether it is somebody. Out of line only where tokens are wanted. */
BOP_MUST_USE bool bop__auth_known_slowly(struct auth_who *who);
static inline bool bop__auth_known(struct auth_who *who)
{
    return !who->auth || bop__auth_known_slowly(who);
}

/** What the identity is called: a token's name, or "" for nobody. */
const char *bop__auth_name(struct auth_who *who);

/** Whether something may be done with what is called `name` (map, set, lock, ...). */
BOP_MUST_USE bool bop__auth_allows(struct auth_who *who, enum bop_right right,
                                   struct bop_slice name);

/** Whether it may be done everywhere: the right on "*". */
BOP_MUST_USE bool bop__auth_allows_all(struct auth_who *who, enum bop_right right);

/**
 * Whether a decoded operation is allowed: writes want WRITE, reads want READ, in the namespace
 * of its name; a transaction, what each of its operations wants, of both branches, and READ for
 * what it compares; a list of names, READ in the namespace of its prefix. What else has no name
 * reaches everywhere and wants the right on "*".
 */
BOP_MUST_USE bool bop__auth_allows_operation(struct auth_who *who,
                                             const struct bop_operation *operation);

/** In one sentence why bop__auth_allows() said no; name may be empty with `everywhere`. */
const char *bop__auth_refusal(struct auth_who *who, enum bop_right right, struct bop_slice name,
                              bool everywhere, char out_text[AUTH_TEXT_MAX]);
/** As of bop__auth_allows_operation(). */
const char *bop__auth_operation_refusal(struct auth_who *who, const struct bop_operation *operation,
                                        char out_text[AUTH_TEXT_MAX]);

/** The namespace of a name: what is before its first '/', or nothing. */
static inline struct bop_slice bop__auth_namespace(struct bop_slice name)
{
    const uint8_t *slash = name.size > 0 ? memchr(name.data, '/', name.size) : NULL;

    return bop_slice(name.data, slash ? (size_t)(slash - name.data) : 0);
}

#endif
