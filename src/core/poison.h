/*
 * Telling the address sanitizer which bytes of memory that we manage ourselves
 * may be touched. Without it these do nothing, and the gap is 0.
 */
#ifndef BOP_CORE_POISON_H
#define BOP_CORE_POISON_H

#include <bop/base.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BOP__POISONS 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(BOP__POISONS)
#define BOP__POISONS 1
#endif

#ifdef BOP__POISONS

#include <sanitizer/asan_interface.h>

/* Left poisoned between pieces, so that running over an end is found; also what poison is counted
 * in: pieces start at multiples of it. */
#define BOP__POISON_GAP 8

static inline void bop__poison(const void *memory, size_t size)
{
    __asan_poison_memory_region(memory, size);
}

static inline void bop__unpoison(const void *memory, size_t size)
{
    __asan_unpoison_memory_region(memory, size);
}

#else

#define BOP__POISON_GAP 0

static inline void bop__poison(const void *memory, size_t size)
{
}

static inline void bop__unpoison(const void *memory, size_t size)
{
}

#endif
#endif
