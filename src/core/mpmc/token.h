/*
 * Tokens as the user holds them.
 *
 * In builds with debug_checks that is a handle with the token behind it, so that
 * a token used with another queue, after it was closed, or after its queue was
 * destroyed, aborts with a message. Without debug_checks it is the token itself,
 * and all of this is nothing.
 *
 * Handles come from the C library and not from the queue's allocator, which may
 * be gone by the time that a token is misused. The handle of a destroyed queue's
 * open token is kept for ever, that of a closed token until BOP__TOKENS_CLOSED_MAX
 * more were closed; later than that a misuse is not told apart from other reads of
 * freed memory. Using a handle takes no lock and orders nothing, so that the thread
 * sanitizer sees the same program with it as without.
 */
#ifndef BOP_MPMC_TOKEN_H
#define BOP_MPMC_TOKEN_H

#include "internal.h"

#define BOP__TOKENS_CLOSED_MAX 4096

#ifdef BOP_DEBUG

/* The handle for a token of the queue, or NULL without memory for it. */
void *bop__token_wrap(struct bop_mpmc *queue, void *token);
/* The token behind a handle, or NULL for NULL. queue NULL: of whichever queue. Aborts on misuse. */
void *bop__token_unwrap(const struct bop_mpmc *queue, const void *handle);
/* The token is closed: the handle must not be used any more. */
void bop__token_retire(void *handle);
/* The queue is destroyed: none of its handles must be used any more. */
void bop__tokens_kill(const struct bop_mpmc *queue);

#else

static inline void *bop__token_wrap(struct bop_mpmc *queue, void *token)
{
    return token;
}

static inline void *bop__token_unwrap(const struct bop_mpmc *queue, const void *handle)
{
    return (void *)handle;
}

static inline void bop__token_retire(void *handle)
{
}

static inline void bop__tokens_kill(const struct bop_mpmc *queue)
{
}

#endif
#endif
