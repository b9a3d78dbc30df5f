/*
 * malloc() and its kin as the malloc family of <bop/mem.h>: for a program that
 * is linked with this or runs with it preloaded.
 *
 * Each is the family's function, with errno set as C and POSIX want it. They may
 * be called before any constructor has run and after the last destructor, by the
 * loader as well.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include <bop/mem.h>

#include "../core/mem/family.h"
#include "../core/mem/sample.h"
#include "internal.h"

/* By this other copies of libbop-core in the process know whose malloc() it is. */
BOP__EXPORT extern const char bop_malloc_owner;
BOP__EXPORT const char bop_malloc_owner = 1;

BOP__ALLOCATES static inline void *or_enomem(void *memory)
{
    if (BOP_UNLIKELY(!memory)) {
        errno = ENOMEM;
    }
    return memory;
}

/* -- C ----------------------------------------------------------------------------------------- */

BOP__ALLOCATES static __attribute__((noinline)) void *malloc_missed(size_t size)
{
    return or_enomem(bop__family_alloc_missed(size));
}

BOP__EXPORT BOP__ALLOCATES void *malloc(size_t size)
{
    void *block = bop__family_alloc(size);

    return BOP_LIKELY(block) ? block : malloc_missed(size);
}

BOP__EXPORT void free(void *memory)
{
    bop__family_free(memory, BOP__CHECK_ANY_SIZE);
}

BOP__EXPORT BOP__ALLOCATES void *calloc(size_t count, size_t size)
{
    return or_enomem(bop_mem_calloc(count, size));
}

BOP__EXPORT BOP__ALLOCATES void *realloc(void *memory, size_t size)
{
    if (!memory) {
        return or_enomem(bop_mem_alloc(size));
    }
    if (size == 0) { /* As the GNU C library has it: no block, no error. */
        bop_mem_free(memory);
        return NULL;
    }
    return or_enomem(bop_mem_realloc(memory, size));
}

static bool is_power_of_two(size_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

BOP__EXPORT BOP__ALLOCATES void *aligned_alloc(size_t alignment, size_t size)
{
    if (!is_power_of_two(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    return or_enomem(bop_mem_alloc_aligned(size, alignment));
}

/* C23's; <stdlib.h> may not have them yet. */
void free_sized(void *memory, size_t size);
void free_aligned_sized(void *memory, size_t alignment, size_t size);

BOP__EXPORT void free_sized(void *memory, size_t size)
{
    bop_mem_free_sized(memory, size);
}

BOP__EXPORT void free_aligned_sized(void *memory, size_t alignment, size_t size)
{
    bop_mem_free_sized(memory, size);
}

/* -- POSIX and older --------------------------------------------------------------------------- */

/* errno is as before: the code is returned. */
BOP__EXPORT BOP__ALLOCATES int posix_memalign(void **out_memory, size_t alignment, size_t size)
{
    void *memory;

    if (alignment % sizeof(void *) != 0 || !is_power_of_two(alignment)) {
        return EINVAL;
    }
    memory = bop_mem_alloc_aligned(size, alignment);
    if (!memory) {
        return ENOMEM;
    }
    *out_memory = memory;
    return 0;
}

BOP__EXPORT BOP__ALLOCATES void *memalign(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

BOP__EXPORT BOP__ALLOCATES void *valloc(size_t size)
{
    return or_enomem(bop_mem_alloc_aligned(size, page_size()));
}

BOP__EXPORT BOP__ALLOCATES void *pvalloc(size_t size)
{
    size_t page = page_size();
    size_t whole;

    if (__builtin_add_overflow(size, page - 1, &whole)) {
        errno = ENOMEM;
        return NULL;
    }
    whole -= whole % page;
    return or_enomem(bop_mem_alloc_aligned(whole ? whole : page, page));
}

BOP__EXPORT BOP__ALLOCATES void *reallocarray(void *memory, size_t count, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(count, size, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(memory, total);
}

void cfree(void *memory);

BOP__EXPORT void cfree(void *memory)
{
    bop_mem_free(memory);
}

/* -- What the GNU C library adds --------------------------------------------------------------- */

BOP__EXPORT size_t malloc_usable_size(void *memory)
{
    return bop_mem_usable_size(memory);
}

BOP__EXPORT int malloc_trim(size_t pad)
{
    bop_mem_purge();
    return 1;
}

BOP__EXPORT void malloc_stats(void)
{
    bop__malloc_summary(stderr);
}

/* What is held from the system, and what of it is in use, if that is counted. */
BOP__EXPORT struct mallinfo2 mallinfo2(void)
{
    struct bop_mem_stats stats;

    bop_mem_stats(&stats);
    return (struct mallinfo2){
        .arena = stats.committed_bytes,
        .uordblks = stats.total.live_bytes,
        .fordblks = stats.committed_bytes > stats.total.live_bytes
                        ? stats.committed_bytes - stats.total.live_bytes
                        : 0,
    };
}

BOP__EXPORT struct mallinfo mallinfo(void)
{
    struct mallinfo2 wide = mallinfo2();

    return (struct mallinfo){
        .arena = (int)wide.arena, .uordblks = (int)wide.uordblks, .fordblks = (int)wide.fordblks};
}
