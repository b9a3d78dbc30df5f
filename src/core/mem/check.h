/*
 * The record of live blocks that builds with debug_checks keep.
 *
 * A block is noted when it is handed out and struck off before it goes back. What
 * does not fit aborts the process with one line that names pointer, size and tag.
 */
#ifndef BOP_CORE_MEM_CHECK_H
#define BOP_CORE_MEM_CHECK_H

#include <bop/base.h>

/* The tag of blocks of the malloc family; and, of bop_tag_pages(), this much above the tag's. */
#define BOP__CHECK_FAMILY 255u
#define BOP__CHECK_PAGES  64u

#define BOP__CHECK_ANY_SIZE SIZE_MAX

#ifdef BOP_DEBUG

/* memory may be NULL for all of them. */
void bop__check_allocated(const void *memory, size_t size, unsigned tag);
/* Returns the size it was asked for with. */
size_t bop__check_freed(const void *memory, size_t size, unsigned tag);

/* For fork(): all of it. */
void bop__check_lock(void);
void bop__check_unlock(void);

#else

static inline void bop__check_allocated(const void *memory, size_t size, unsigned tag)
{
}

static inline size_t bop__check_freed(const void *memory, size_t size, unsigned tag)
{
    return size;
}

static inline void bop__check_lock(void)
{
}

static inline void bop__check_unlock(void)
{
}

#endif

#endif
