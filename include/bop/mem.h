/*
 * Memory of the whole process: a malloc family, tags that tell which part of a
 * program holds how much, limits, and giving memory back to the system.
 *
 * Underneath is mimalloc; a build without it, and every sanitizer build, uses
 * the C library's malloc. Where the program is linked with bop-malloc, or runs
 * with libbop-malloc.so preloaded, malloc() and its kin are this family too.
 *
 * A tag is a struct bop_allocator: hand it to whatever allocates. It counts by
 * the sizes that its callers give on alloc and on free, so a block carries no
 * header; the counts are kept by thread and summed when asked for, so counting
 * costs no atomic operation. Whichever thread frees a block, the sums are exact.
 *
 * Builds with debug_checks keep a record of every block that is alive, and abort
 * with a message that names the block, its size and its tag on a double free, a
 * free of a pointer from elsewhere, a wrong size, or a wrong tag.
 *
 * Threads: any thread may call any function, unless it says otherwise.
 */
#ifndef BOP_MEM_H
#define BOP_MEM_H

#include <stdio.h>

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/error.h>

/* -- The malloc family ------------------------------------------------------------------------- */

/*
 * Alignments are powers of two; others, and sizes above PTRDIFF_MAX, give NULL. A size of 0 gives
 * a valid pointer that may be freed. NULL means no memory, never an abort.
 */

/** size bytes aligned to 16. */
BOP_API BOP_MUST_USE void *bop_mem_alloc(size_t size);
BOP_API BOP_MUST_USE void *bop_mem_zalloc(size_t size);
/** count * size bytes, zeroed; NULL also if the product overflows. */
BOP_API BOP_MUST_USE void *bop_mem_calloc(size_t count, size_t size);
BOP_API BOP_MUST_USE void *bop_mem_alloc_aligned(size_t size, size_t alignment);
BOP_API BOP_MUST_USE void *bop_mem_zalloc_aligned(size_t size, size_t alignment);

/**
 * Grow or shrink. memory may be NULL; NULL as the result leaves the old block as it was, but for a
 * size of 0, which frees it and returns NULL. A block from an aligned form keeps its alignment only
 * through bop_mem_realloc_aligned().
 */
BOP_API BOP_MUST_USE void *bop_mem_realloc(void *memory, size_t size);
BOP_API BOP_MUST_USE void *bop_mem_realloc_aligned(void *memory, size_t size, size_t alignment);

/** memory may be NULL. */
BOP_API void bop_mem_free(void *memory);
/** As bop_mem_free(); size is what was asked for, which builds with debug_checks verify. */
BOP_API void bop_mem_free_sized(void *memory, size_t size);

/** Bytes that may be used, at least what was asked for. 0 for NULL. */
BOP_API size_t bop_mem_usable_size(const void *memory);

/* -- Tags -------------------------------------------------------------------------------------- */

#define BOP_TAG_MAX      64 /* Tags in a process. */
#define BOP_TAG_NAME_MAX 31

/**
 * The tag of this name, made by the first call: "store.aof". Lives for ever. Letters, digits, '.',
 * '_' and '-' only. Never fails: beyond BOP_TAG_MAX, or for a bad name, it is the tag "other".
 */
BOP_API struct bop_allocator *bop_tag(const char *name);

/** allocator, or the tag of this name if it is NULL. */
static inline struct bop_allocator *bop_allocator_or_tag(struct bop_allocator *allocator,
                                                         const char *name)
{
    return allocator ? allocator : bop_tag(name);
}

/**
 * Whole pages straight from the system under this tag's count, and given back at once by free; for
 * blocks of 64 KiB and more that come and go. Lives for ever; never fails, as bop_tag().
 */
BOP_API struct bop_allocator *bop_tag_pages(const char *name);

/**
 * Refuse (NULL) what would take the tag's live bytes above bytes_max; 0: no limit. With a limit the
 * tag counts on one shared counter, exactly and somewhat slower; without, on the thread's own.
 */
BOP_API void bop_tag_limit(struct bop_allocator *tag, size_t bytes_max);

/**
 * Call fn when the tag's live bytes rise above bytes (and again only after they fell below), and
 * when its limit refuses a request: on the thread that allocates, before it gets its answer; fn
 * may free and allocate, but is not called again from inside itself. A tag has one; NULL removes.
 */
BOP_API void bop_tag_on_low_memory(struct bop_allocator *tag, size_t bytes,
                                   void (*fn)(void *user, size_t live_bytes), void *user);

/* -- Statistics -------------------------------------------------------------------------------- */

struct bop_tag_stats {
    char name[BOP_TAG_NAME_MAX + 1];
    uint64_t allocations; /* Since the start, or the last reset. */
    uint64_t deallocations;
    uint64_t bytes_allocated; /* As asked for. A realloc counts the old size out, the new in. */
    uint64_t bytes_deallocated;
    uint64_t live_allocations; /* Exact while no operation is under way. */
    uint64_t live_bytes;
    uint64_t peak_bytes;  /* Of live_bytes; with several threads at once at most 64 KiB a thread
                           * off, exact with a limit. */
    uint64_t limit_bytes; /* 0: none. */
};

struct bop_mem_stats {
    uint64_t resident_bytes;    /* Of the process. */
    uint64_t committed_bytes;   /* That the heap holds from the system; 0 if it cannot be told. */
    struct bop_tag_stats total; /* Of all tags; named "total". */
    size_t tag_count;
    struct bop_tag_stats tags[BOP_TAG_MAX]; /* In the order of their making. */
};

/**
 * Count what goes through the malloc family too, under the tag "untagged", by usable size. Off
 * until then; exact for what is allocated from then on, so call it first of all.
 */
BOP_API void bop_mem_count_untagged(void);

BOP_API void bop_mem_stats(struct bop_mem_stats *out_stats);

/** Zero the counters since the start and set each peak to the live bytes. */
BOP_API void bop_mem_stats_reset(void);

/** A one-line summary as text, without a newline: live, peak, counts, leaks. */
BOP_API void bop_mem_stats_line(const struct bop_tag_stats *stats, char *text, size_t text_size);

/** One JSON object; an object a tag under "tags". Returns 0 or -errno of the stream. */
BOP_API int bop_mem_stats_json(const struct bop_mem_stats *stats, FILE *out);

/** In Prometheus's text format: bop_memory_live_bytes{tag="..."} and so on. */
BOP_API int bop_mem_stats_prometheus(const struct bop_mem_stats *stats, FILE *out);

/* -- Giving memory back ------------------------------------------------------------------------ */

/**
 * Give back now what is free: the caller's, what exited threads left, and of threads that allocate
 * through this family (linked with bop-malloc, or preloaded) also what they hold while they are
 * not inside a call of it.
 */
BOP_API void bop_mem_purge(void);

/**
 * Start the background thread "bop-purge", which gives back within a second what idle threads hold
 * free. It runs once however often this is called; a fork's child starts its own when it allocates.
 * Returns 0 or -errno.
 */
BOP_API BOP_MUST_USE int bop_mem_purge_start(void);
BOP_API void bop_mem_purge_stop(void);

#endif
