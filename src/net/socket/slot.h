/*
 * Slots: the memory of sockets, and the handles users hold.
 *
 * A slot's memory is its loop's until the loop is destroyed: it is reused for
 * slots only, so that a handle of the past can always be looked at. A handle is
 * the slot's address with its generation in the bits that addresses leave
 * unused: 6 below (slots are aligned to 64 bytes) and 16 above (user space ends
 * at 2^47 or 2^48). Each end of use, of a socket or of an exchange on it, makes
 * a new generation; a slot whose generations are used up is not used again. So
 * a handle never means another socket than the one it was given for.
 */
#ifndef BOP_NET_SLOT_H
#define BOP_NET_SLOT_H

#include <bop/base.h>

#define BOP__SLOT_GENERATIONS (1u << 22)

/** First member of what lives in a slot. */
struct bop__slot {
    uint32_t generation; /* 1 to BOP__SLOT_GENERATIONS - 2 while in use; pages given back read 0. */
};

/** The handle of a slot's present generation. */
static inline void *bop__slot_handle(const struct bop__slot *slot)
{
    uintptr_t generation = slot->generation;

    return (void *)((uintptr_t)slot | (generation & 63u) | (generation >> 6) << 48);
}

/** The slot of a handle; NULL if the handle is NULL or of a past generation. */
static inline struct bop__slot *bop__slot_of(const void *handle)
{
    uintptr_t bits = (uintptr_t)handle;
    uint32_t generation = (uint32_t)(bits >> 48) << 6 | (uint32_t)(bits & 63u);
    struct bop__slot *slot = (struct bop__slot *)(bits & 0x0000ffffffffffc0u);

    return slot != NULL && slot->generation == generation ? slot : NULL;
}

#endif
