/*
 * The allocator that finds bugs. Each block is
 *
 *      +--------+----------------+-------+
 *      | header | size bytes     | guard |
 *      +--------+----------------+-------+
 *
 * Under the address sanitizer there is no guard: there a write past the end is
 * to meet the sanitizer's own, and so is a read.
 */
#include "heap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"
#include "tap.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GUARD_SIZE 0
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(GUARD_SIZE)
#define GUARD_SIZE 0
#endif
#ifndef GUARD_SIZE
#define GUARD_SIZE 16
#endif

#define GUARD_BYTE  0xc7
#define FRESH_BYTE  0xa5
#define FREED_BYTE  0xdd
#define BLOCK_MAGIC UINT64_C(0x9d1b3c5f7e240a68)

/* Far more than any code under test has operations; a sweep that gets there does not end. */
#define SWEEP_ROUNDS_MAX 100000

struct header {
    uint64_t magic;
    size_t size;
};

_Static_assert(sizeof(struct header) % _Alignof(max_align_t) == 0, "blocks must stay aligned");

static BOP_NORETURN void die(const char *what, size_t size, size_t given)
{
    fprintf(stderr, "test heap: %s (block of %zu bytes, given %zu)\n", what, size, given);
    abort();
}

static void *new_block(struct test_heap *heap, size_t size)
{
    struct header *header;
    uint8_t *memory;

    if (size > SIZE_MAX - sizeof(*header) - GUARD_SIZE) {
        return NULL;
    }
    header = malloc(sizeof(*header) + size + GUARD_SIZE);
    if (!header) {
        return NULL;
    }
    *header = (struct header){.magic = BLOCK_MAGIC, .size = size};
    memory = (uint8_t *)(header + 1);
    memset(memory, FRESH_BYTE, size);
    memset(memory + size, GUARD_BYTE, GUARD_SIZE);
    /* Relaxed: counts order nothing; who reads them has joined the others. */
    atomic_fetch_add_explicit(&heap->live, size, memory_order_relaxed);
    atomic_fetch_add_explicit(&heap->blocks, 1, memory_order_relaxed);
    return memory;
}

static void drop_block(struct test_heap *heap, void *memory, size_t size)
{
    struct header *header = (struct header *)memory - 1;
    const uint8_t *guard;

    if (header->magic != BLOCK_MAGIC) {
        die("freed twice, or not from this heap", 0, size);
    }
    if (header->size != size) {
        die("freed with a wrong size", header->size, size);
    }
    guard = (const uint8_t *)memory + size;
    for (int i = 0; i < GUARD_SIZE; i++) {
        if (guard[i] != GUARD_BYTE) {
            die("written past its end", header->size, size);
        }
    }
    header->magic = 0;
    memset(memory, FREED_BYTE, size);
    free(header);
    /* Relaxed: as in new_block(). */
    atomic_fetch_sub_explicit(&heap->live, size, memory_order_relaxed);
    atomic_fetch_sub_explicit(&heap->blocks, 1, memory_order_relaxed);
}

static bool is_to_fail(struct test_heap *heap)
{
    int rc;

    pthread_mutex_lock(&heap->lock);
    rc = bop_faults_step(heap->faults, -ENOMEM);
    pthread_mutex_unlock(&heap->lock);
    return rc != 0;
}

static void *heap_alloc(struct bop_allocator *self, size_t size)
{
    struct test_heap *heap = BOP_CONTAINER_OF(self, struct test_heap, allocator);

    if (size == 0) {
        die("asked for 0 bytes", 0, 0);
    }
    return is_to_fail(heap) ? NULL : new_block(heap, size);
}

static void *heap_realloc(struct bop_allocator *self, void *memory, size_t old_size,
                          size_t new_size)
{
    struct test_heap *heap = BOP_CONTAINER_OF(self, struct test_heap, allocator);
    void *moved;

    if (new_size == 0 || (!memory && old_size != 0)) {
        die("realloc to 0 bytes, or of nothing with a size", old_size, new_size);
    }
    moved = is_to_fail(heap) ? NULL : new_block(heap, new_size);
    if (moved && memory) {
        memcpy(moved, memory, old_size < new_size ? old_size : new_size);
        drop_block(heap, memory, old_size);
    }
    return moved;
}

static void heap_free(struct bop_allocator *self, void *memory, size_t size)
{
    if (memory) {
        drop_block(BOP_CONTAINER_OF(self, struct test_heap, allocator), memory, size);
    }
}

void test_heap_init(struct test_heap *heap, struct bop_faults *faults)
{
    memset(heap, 0, sizeof(*heap));
    heap->allocator = (struct bop_allocator){
        .alloc = heap_alloc,
        .realloc = heap_realloc,
        .free = heap_free,
    };
    heap->faults = faults;
    pthread_mutex_init(&heap->lock, NULL);
}

/* ---- The sweep ---- */

struct test__sweep test__sweep_begin(struct bop_faults *faults)
{
    return (struct test__sweep){.faults = faults, .failures_before = test__failures()};
}

bool test__sweep_next(struct test__sweep *sweep)
{
    struct bop_faults *faults = sweep->faults;
    bool first = sweep->round == 0;

    if (sweep->round == SWEEP_ROUNDS_MAX) {
        test__failed(__FILE__, __LINE__, "the fault sweep has not ended after %d rounds",
                     SWEEP_ROUNDS_MAX);
    }
    if ((!first && faults->fired == 0) || test__failures() != sweep->failures_before) {
        faults->fail_at = 0;
        test__set_round(0);
        return false;
    }
    sweep->round++;
    faults->fail_at = sweep->round;
    faults->at = 0;
    faults->fired = 0;
    test__set_round(sweep->round);
    return true;
}
