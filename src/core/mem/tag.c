/*
 * Tags: counting by thread, limits, and the low-memory callback.
 *
 * A tag without a limit or a callback touches two counters of the thread's own
 * an operation, and compares one number. tag.h says how the sums are kept.
 *
 * With a limit an allocation first reserves its bytes in tag->live, which it
 * never lets above the limit, and counts them on its thread as flushed already.
 */
#include "tag.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bop/mem.h>

#include "check.h"
#include "fast.h"
#include "purge.h"
#include "raw.h"
#include "sample.h"

/* The last two are kept for "other" and "untagged" until those have been made. */
#define TAG_OTHER    "other"
#define TAG_UNTAGGED "untagged"

struct bop__tag bop__tags[BOP_TAG_MAX];
static _Atomic unsigned tag_count;
static unsigned reserved_count = 2; /* Of the two above, those not made. Under make_lock. */
static pthread_mutex_t make_lock = PTHREAD_MUTEX_INITIALIZER;

struct bop__tag *_Atomic bop__tag_untagged;
_Atomic int64_t bop__total_live;
_Atomic int64_t bop__total_peak;

/* -- Counting ---------------------------------------------------------------------------------- */

#define LOAD(field)         atomic_load_explicit(&(field), memory_order_relaxed)
#define STORE(field, value) atomic_store_explicit(&(field), value, memory_order_relaxed)
#define ADD(field, value)   atomic_fetch_add_explicit(&(field), value, memory_order_relaxed)

static void raise_to(_Atomic int64_t *peak, int64_t value)
{
    int64_t seen = atomic_load_explicit(peak, memory_order_relaxed);

    while (seen < value && !atomic_compare_exchange_weak_explicit(
                               peak, &seen, value, memory_order_relaxed, memory_order_relaxed)) {
    }
}

static int64_t live_of(const struct bop__tag_counts *counts)
{
    return (int64_t)(LOAD(counts->bytes_allocated) - LOAD(counts->bytes_deallocated));
}

static void total_add(struct bop__mem_thread *thread, int64_t delta)
{
    if (thread == bop__mem_self && !bop__mem_is_direct(thread)) {
        thread->total_pending += delta;
        if (thread->total_pending <= BOP__TAG_SLACK && thread->total_pending >= -BOP__TAG_SLACK) {
            return;
        }
        delta = thread->total_pending;
        thread->total_pending = 0;
    }
    raise_to(&bop__total_peak, ADD(bop__total_live, delta) + delta);
}

/* Who moves `flushed` adds the difference to the sum; whoever does it, it happens once. */
void bop__tag_flush(struct bop__mem_thread *thread, struct bop__tag *tag)
{
    struct bop__tag_counts *counts = &thread->tags[tag->index];
    int64_t flushed = LOAD(counts->flushed);
    int64_t live, high;

    do {
        live = live_of(counts);
        if (live == flushed) {
            return;
        }
    } while (!atomic_compare_exchange_weak_explicit(&counts->flushed, &flushed, live,
                                                    memory_order_relaxed, memory_order_relaxed));
    high = LOAD(counts->high);
    if (high < live) {
        high = live;
    }
    raise_to(&tag->peak, ADD(tag->live, live - flushed) + high - flushed);
    STORE(counts->high, live);
    total_add(thread, live - flushed);
}

/*
 * The owner's; a plain load and store is enough. `high` is looked at by each allocation, as the
 * peak is to be exact for one thread, and a rise is met there too. A fall is looked for only once
 * in FALL_BYTES of frees.
 */
#define FALL_BYTES (BOP__TAG_SLACK / 2)

static struct bop__tag_counts *counts_of(struct bop__mem_thread *thread, const struct bop__tag *tag)
{
    return (struct bop__tag_counts *)((char *)thread + tag->counts_offset);
}

/* What only the owner writes, it need not read as if others did. */
#define OWN(field) (*(const uint64_t *)(const void *)&(field))

/* As a relaxed load, an addition and a relaxed store, which compilers make no one instruction of.
 */
static inline void bump(_Atomic uint64_t *counter)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    __asm__("incq %0" : "+m"(*counter) : : "cc");
#else
    STORE(*counter, LOAD(*counter) + 1);
#endif
}

static __attribute__((noinline)) void *flush_after(struct bop__mem_thread *self,
                                                   struct bop__tag *tag, void *block)
{
    bop__tag_flush(self, tag);
    return block;
}

/* Returns the block, which spares the caller to keep it. */
static inline void *count_alloc(struct bop__mem_thread *self, struct bop__tag *tag, size_t size,
                                void *block)
{
    struct bop__tag_counts *counts = counts_of(self, tag);
    uint64_t allocated = OWN(counts->bytes_allocated) + size;
    int64_t live = (int64_t)(allocated - OWN(counts->bytes_deallocated));

    bump(&counts->allocations);
    STORE(counts->bytes_allocated, allocated);
    if (BOP_UNLIKELY(live > LOAD(counts->high))) {
        STORE(counts->high, live);
        if (BOP_UNLIKELY(live - LOAD(counts->flushed) > BOP__TAG_SLACK)) {
            return flush_after(self, tag, block);
        }
    }
    return block;
}

static __attribute__((noinline)) void look_at_fall(struct bop__mem_thread *self,
                                                   struct bop__tag *tag)
{
    struct bop__tag_counts *counts = counts_of(self, tag);

    counts->look_from = LOAD(counts->bytes_deallocated) + FALL_BYTES;
    if (LOAD(counts->flushed) - live_of(counts) > BOP__TAG_SLACK - FALL_BYTES) {
        bop__tag_flush(self, tag);
    }
}

static inline void count_free(struct bop__mem_thread *self, struct bop__tag *tag, size_t size)
{
    struct bop__tag_counts *counts = counts_of(self, tag);
    uint64_t deallocated = OWN(counts->bytes_deallocated) + size;

    bump(&counts->deallocations);
    STORE(counts->bytes_deallocated, deallocated);
    if (BOP_UNLIKELY(deallocated > counts->look_from)) {
        look_at_fall(self, tag);
    }
}

/* The sentinel is shared, so it takes real additions, and it has nothing pending ever. */
static void count_direct(struct bop__tag *tag, uint64_t *allocated, uint64_t *deallocated)
{
    struct bop__tag_counts *counts = &bop__mem_direct.tags[tag->index];

    if (allocated) {
        ADD(counts->allocations, 1);
        ADD(counts->bytes_allocated, *allocated);
    }
    if (deallocated) {
        ADD(counts->deallocations, 1);
        ADD(counts->bytes_deallocated, *deallocated);
    }
    bop__tag_flush(&bop__mem_direct, tag);
}

void bop__tag_count_alloc(struct bop__mem_thread *thread, struct bop__tag *tag, size_t size)
{
    uint64_t allocated = size;

    if (bop__mem_is_direct(thread)) {
        count_direct(tag, &allocated, NULL);
    } else {
        BOP_IGNORE(count_alloc(thread, tag, size, NULL));
    }
}

void bop__tag_count_free(struct bop__mem_thread *thread, struct bop__tag *tag, size_t size)
{
    uint64_t deallocated = size;

    if (bop__mem_is_direct(thread)) {
        count_direct(tag, NULL, &deallocated);
    } else {
        count_free(thread, tag, size);
    }
}

void bop__tag_fold(struct bop__mem_thread *thread)
{
    struct bop__tag_counts *to, *from;

    for (unsigned i = 0; i < bop__tag_count(); i++) {
        bop__tag_flush(thread, &bop__tags[i]);
        from = &thread->tags[i];
        to = &bop__mem_direct.tags[i];
        /* flushed first, or somebody who flushes the sentinel meanwhile would count it twice for
         * good; this way it is undone by the next. */
        ADD(to->flushed, LOAD(from->flushed));
        ADD(to->allocations, LOAD(from->allocations));
        ADD(to->deallocations, LOAD(from->deallocations));
        ADD(to->bytes_allocated, LOAD(from->bytes_allocated));
        ADD(to->bytes_deallocated, LOAD(from->bytes_deallocated));
        bop__tag_flush(&bop__mem_direct, &bop__tags[i]);
    }
    ADD(bop__total_live, thread->total_pending);
    thread->total_pending = 0;
}

/* -- Limits and callbacks ---------------------------------------------------------------------- */

static void call_low(struct bop__mem_thread *self, struct bop__tag *tag)
{
    uint64_t bit = UINT64_C(1) << tag->index;
    void (*fn)(void *user, size_t live_bytes);
    int64_t live = LOAD(tag->live);
    void *user;

    /* Threads that share the sentinel cannot tell whether they are inside already. */
    if (bop__mem_is_direct(self) || (self->in_callback & bit)) {
        return;
    }
    pthread_mutex_lock(&bop__mem_lock);
    fn = tag->low_fn;
    user = tag->low_user;
    pthread_mutex_unlock(&bop__mem_lock);
    if (fn) {
        self->in_callback |= bit;
        fn(user, live > 0 ? (size_t)live : 0);
        self->in_callback &= ~bit;
    }
}

/* Take size bytes out of what the limit leaves. */
static bool reserve_once(struct bop__tag *tag, size_t size, int64_t *out_live)
{
    uint64_t limit = LOAD(tag->limit);
    int64_t live = LOAD(tag->live);

    do {
        uint64_t held = live > 0 ? (uint64_t)live : 0;

        if (limit && (held > limit || size > limit - held)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&tag->live, &live, live + (int64_t)size,
                                                    memory_order_relaxed, memory_order_relaxed));
    *out_live = live + (int64_t)size;
    return true;
}

/* The callback may make room: ask twice. */
static bool reserve(struct bop__mem_thread *self, struct bop__tag *tag, size_t size,
                    int64_t *out_live)
{
    bop__tag_flush(self, tag);
    if (reserve_once(tag, size, out_live)) {
        return true;
    }
    call_low(self, tag);
    return reserve_once(tag, size, out_live);
}

static void unreserve(struct bop__tag *tag, size_t size)
{
    ADD(tag->live, -(int64_t)size);
}

/* The reserved bytes become the thread's: they are in the sum already. */
static void count_reserved(struct bop__mem_thread *self, struct bop__tag *tag, size_t reserved,
                           int64_t live)
{
    ADD(self->tags[tag->index].flushed, (int64_t)reserved);
    total_add(self, (int64_t)reserved);
    raise_to(&tag->peak, live);
}

static void after_alloc(struct bop__mem_thread *self, struct bop__tag *tag, int64_t live)
{
    uint64_t low = LOAD(tag->low_bytes);

    if (live > 0 && (uint64_t)live > low &&
        atomic_exchange_explicit(&tag->low_armed, false, memory_order_relaxed)) {
        call_low(self, tag);
    }
}

static void after_free(struct bop__mem_thread *self, struct bop__tag *tag)
{
    int64_t live;

    bop__tag_flush(self, tag);
    live = LOAD(tag->live);
    if (live <= 0 || (uint64_t)live <= LOAD(tag->low_bytes)) {
        STORE(tag->low_armed, true);
    }
}

/* -- The heap's face of a tag ------------------------------------------------------------------ */

static struct bop__tag *tag_of(struct bop_allocator *allocator)
{
    return BOP_CONTAINER_OF(allocator, struct bop__tag, heap);
}

BOP__ALLOCATES __attribute__((noinline)) static void *alloc_slow(struct bop__tag *tag, size_t size)
{
    bool exact = LOAD(tag->exact);
    struct bop__mem_thread *self;
    int64_t live = 0;
    void *block;

    bop__mem_leave(&bop__mem_own_door);
    self = bop__mem_thread();
    if (exact && !reserve(self, tag, size, &live)) {
        return NULL;
    }
    self = bop__mem_enter_slow();
    block = bop__raw_alloc(bop__mem_foreign, bop__raw_size(size), BOP__RAW_ALIGNMENT, false);
    bop__mem_leave(self->door);
    bop__purge_count(&bop__mem_own_door);
    if (block) {
        if (exact) {
            count_reserved(self, tag, size, live);
        }
        bop__tag_count_alloc(self, tag, size);
        bop__check_allocated(block, size, tag->index);
        bop__sample_allocated(block, size, tag->index);
        if (exact) {
            after_alloc(self, tag, live);
        }
    } else if (exact) {
        unreserve(tag, size);
    }
    return block;
}

/* What is not small, or for which the thread's pages have no room. */
BOP__ALLOCATES __attribute__((noinline)) static void *alloc_through_door(struct bop__tag *tag,
                                                                         size_t size)
{
    void *block;

    if (BOP_UNLIKELY(size > BOP__RAW_SIZE_MAX)) {
        return NULL;
    }
    if (!bop__mem_enter(&bop__mem_own_door, BOP__GATE_ALL) || BOP_UNLIKELY(LOAD(tag->exact))) {
        return alloc_slow(tag, size);
    }
    block = bop__raw_alloc(false, bop__raw_size(size), BOP__RAW_ALIGNMENT, false);
    bop__mem_leave(&bop__mem_own_door);
    bop__purge_count(&bop__mem_own_door);
    if (BOP_LIKELY(block)) {
        BOP_IGNORE(count_alloc(bop__mem_self, tag, size, block));
        bop__check_allocated(block, size, tag->index);
    }
    return block;
}

BOP__ALLOCATES __attribute__((noinline)) static void *alloc_missed(struct bop__tag *tag,
                                                                   size_t size)
{
    void *block = LOAD(tag->exact) ? NULL : bop__fast_alloc_medium(BOP__FAST_TAGS, size);

    if (!block) {
        return alloc_through_door(tag, size);
    }
    bop__check_allocated(block, size, tag->index);
    return count_alloc(bop__mem_self, tag, size, block);
}

BOP__ALLOCATES static void *heap_alloc(struct bop_allocator *allocator, size_t size)
{
    struct bop__tag *tag = tag_of(allocator);
    void *block = BOP_LIKELY(!LOAD(tag->exact)) ? bop__fast_alloc(BOP__FAST_TAGS, size) : NULL;

    if (BOP_UNLIKELY(!block)) {
        return alloc_missed(tag, size);
    }
    bop__check_allocated(block, size, tag->index);
    return count_alloc(bop__mem_self, tag, size, block);
}

__attribute__((noinline)) static void free_slow(struct bop__tag *tag, void *memory, size_t size)
{
    struct bop__mem_thread *self;

    bop__sample_freed(memory);
    self = bop__mem_enter_slow();
    bop__raw_free(bop__mem_foreign, memory);
    bop__mem_leave(self->door);
    bop__tag_count_free(self, tag, size);
    if (LOAD(tag->exact)) {
        after_free(self, tag);
    }
}

static __attribute__((noinline)) void free_missed(struct bop__tag *tag, void *memory, size_t size)
{
    if (!bop__mem_enter(&bop__mem_own_door, BOP__GATE_ALL) || BOP_UNLIKELY(LOAD(tag->exact))) {
        free_slow(tag, memory, size);
        return;
    }
    bop__raw_free(false, memory);
    bop__mem_leave(&bop__mem_own_door);
    count_free(bop__mem_self, tag, size);
}

static void heap_free(struct bop_allocator *allocator, void *memory, size_t size)
{
    struct bop__tag *tag = tag_of(allocator);

    if (BOP_UNLIKELY(!memory)) {
        return;
    }
    BOP_IGNORE(bop__check_freed(memory, size, tag->index));
    if (BOP_UNLIKELY(LOAD(tag->exact)) || !bop__fast_free(BOP__FAST_TAGS, memory)) {
        free_missed(tag, memory, size);
        return;
    }
    count_free(bop__mem_self, tag, size);
}

/* Counts a realloc out and in. Growth was reserved before, if the tag is exact. */
static void count_realloc(struct bop__mem_thread *self, struct bop__tag *tag, size_t old_size,
                          size_t new_size, bool exact, int64_t live)
{
    if (exact && new_size > old_size) {
        count_reserved(self, tag, new_size - old_size, live);
    }
    if (bop__mem_is_direct(self)) {
        count_direct(tag, &(uint64_t){new_size}, &(uint64_t){old_size});
    } else {
        struct bop__tag_counts *counts = counts_of(self, tag);

        /* Not through count_free(), which might flush what is no fall. */
        STORE(counts->deallocations, LOAD(counts->deallocations) + 1);
        STORE(counts->bytes_deallocated, LOAD(counts->bytes_deallocated) + old_size);
        BOP_IGNORE(count_alloc(self, tag, new_size, NULL));
        if (LOAD(counts->flushed) - live_of(counts) > BOP__TAG_SLACK) {
            bop__tag_flush(self, tag);
        }
    }
    if (exact) {
        after_free(self, tag);
        if (new_size > old_size) {
            after_alloc(self, tag, live);
        }
    }
}

/* What a face of a tag does to resize a block, between the counting. */
typedef void *(*resize_fn)(void *memory, size_t old_size, size_t new_size);

BOP__ALLOCATES static void *resize(struct bop__tag *tag, unsigned face, resize_fn fn, void *memory,
                                   size_t old_size, size_t new_size)
{
    struct bop__mem_thread *self = bop__mem_thread();
    bool exact = LOAD(tag->exact);
    bool grows = new_size > old_size;
    int64_t live = 0;
    void *moved;

    if (exact && grows && !reserve(self, tag, new_size - old_size, &live)) {
        return NULL;
    }
    bop__sample_freed(memory);
    BOP_IGNORE(bop__check_freed(memory, old_size, face));
    moved = fn(memory, old_size, new_size);
    if (!moved) {
        bop__check_allocated(memory, old_size, face);
        bop__sample_allocated(memory, old_size, tag->index);
        if (exact && grows) {
            unreserve(tag, new_size - old_size);
        }
        return NULL;
    }
    bop__check_allocated(moved, new_size, face);
    bop__sample_allocated(moved, new_size, tag->index);
    count_realloc(self, tag, old_size, new_size, exact, live);
    return moved;
}

static void *heap_resize(void *memory, size_t old_size, size_t new_size)
{
    struct bop__mem_thread *self = bop__mem_enter_slow();
    void *moved = bop__raw_realloc(bop__mem_foreign, memory, bop__raw_size(new_size),
                                   BOP__RAW_ALIGNMENT);

    bop__mem_leave(self->door);
    bop__purge_count(&bop__mem_own_door);
    return moved;
}

BOP__ALLOCATES static void *heap_realloc(struct bop_allocator *allocator, void *memory,
                                         size_t old_size, size_t new_size)
{
    struct bop__tag *tag = tag_of(allocator);

    BOP_ASSERT(new_size > 0);
    if (new_size > BOP__RAW_SIZE_MAX) {
        return NULL;
    }
    if (!memory) {
        return heap_alloc(allocator, new_size);
    }
    return resize(tag, tag->index, heap_resize, memory, old_size, new_size);
}

/* -- The face for whole pages ------------------------------------------------------------------ */

static struct bop__tag *tag_of_pages(struct bop_allocator *allocator)
{
    return BOP_CONTAINER_OF(allocator, struct bop__tag, pages);
}

static size_t whole_pages(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    return size ? (size + page - 1) & ~(page - 1) : page;
}

BOP__ALLOCATES static void *pages_alloc(struct bop_allocator *allocator, size_t size)
{
    struct bop__tag *tag = tag_of_pages(allocator);
    struct bop__mem_thread *self = bop__mem_thread();
    bool exact = LOAD(tag->exact);
    int64_t live = 0;
    void *block;

    if (size > BOP__RAW_SIZE_MAX || (exact && !reserve(self, tag, size, &live))) {
        return NULL;
    }
    block = mmap(NULL, whole_pages(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                 0);
    if (block == MAP_FAILED) {
        if (exact) {
            unreserve(tag, size);
        }
        return NULL;
    }
    if (exact) {
        count_reserved(self, tag, size, live);
    }
    bop__tag_count_alloc(self, tag, size);
    bop__check_allocated(block, size, tag->index + BOP__CHECK_PAGES);
    bop__sample_allocated(block, size, tag->index);
    if (exact) {
        after_alloc(self, tag, live);
    }
    return block;
}

static void pages_free(struct bop_allocator *allocator, void *memory, size_t size)
{
    struct bop__tag *tag = tag_of_pages(allocator);
    struct bop__mem_thread *self = bop__mem_thread();

    if (!memory) {
        return;
    }
    bop__sample_freed(memory);
    BOP_IGNORE(bop__check_freed(memory, size, tag->index + BOP__CHECK_PAGES));
    BOP_ASSERT(munmap(memory, whole_pages(size)) == 0);
    bop__tag_count_free(self, tag, size);
    if (LOAD(tag->exact)) {
        after_free(self, tag);
    }
}

static void *pages_resize(void *memory, size_t old_size, size_t new_size)
{
    void *moved = mremap(memory, whole_pages(old_size), whole_pages(new_size), MREMAP_MAYMOVE);

    return moved == MAP_FAILED ? NULL : moved;
}

BOP__ALLOCATES static void *pages_realloc(struct bop_allocator *allocator, void *memory,
                                          size_t old_size, size_t new_size)
{
    struct bop__tag *tag = tag_of_pages(allocator);

    BOP_ASSERT(new_size > 0);
    if (new_size > BOP__RAW_SIZE_MAX) {
        return NULL;
    }
    if (!memory) {
        return pages_alloc(allocator, new_size);
    }
    return resize(tag, tag->index + BOP__CHECK_PAGES, pages_resize, memory, old_size, new_size);
}

/* -- Making and finding ------------------------------------------------------------------------ */

unsigned bop__tag_count(void)
{
    /* Acquire pairs with the release in make(): the tags below the count are whole. */
    return atomic_load_explicit(&tag_count, memory_order_acquire);
}

const char *bop__tag_name(unsigned index)
{
    return index < bop__tag_count() ? bop__tags[index].name : TAG_UNTAGGED;
}

static bool name_is_valid(const char *name)
{
    size_t length = strlen(name);

    return length > 0 && length <= BOP_TAG_NAME_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
               length;
}

static struct bop__tag *find(const char *name)
{
    unsigned count = bop__tag_count();

    for (unsigned i = 0; i < count; i++) {
        if (strcmp(bop__tags[i].name, name) == 0) {
            return &bop__tags[i];
        }
    }
    return NULL;
}

/* Under make_lock. */
static struct bop__tag *make(const char *name)
{
    struct bop__tag *tag = &bop__tags[bop__tag_count()];

    tag->heap = (struct bop_allocator){
        .alloc = heap_alloc, .realloc = heap_realloc, .free = heap_free};
    tag->pages = (struct bop_allocator){
        .alloc = pages_alloc, .realloc = pages_realloc, .free = pages_free};
    tag->index = bop__tag_count();
    tag->counts_offset = (uint32_t)offsetof(struct bop__mem_thread, tags[tag->index]);
    memcpy(tag->name, name, strlen(name) + 1);
    STORE(tag->low_bytes, UINT64_MAX);
    STORE(tag->low_armed, true);
    atomic_store_explicit(&tag_count, tag->index + 1, memory_order_release);
    return tag;
}

static struct bop__tag *find_or_make(const char *name)
{
    bool reserved = strcmp(name, TAG_OTHER) == 0 || strcmp(name, TAG_UNTAGGED) == 0;
    struct bop__tag *tag;

    pthread_mutex_lock(&make_lock);
    tag = find(name);
    if (!tag && (reserved || bop__tag_count() + reserved_count < BOP_TAG_MAX)) {
        tag = make(name);
        reserved_count -= reserved;
    }
    pthread_mutex_unlock(&make_lock);
    return tag;
}

static struct bop__tag *tag_named(const char *name)
{
    struct bop__tag *tag = NULL;

    if (name && name_is_valid(name)) {
        tag = find(name);
        if (!tag) {
            tag = find_or_make(name);
        }
    }
    return tag ? tag : find_or_make(TAG_OTHER);
}

struct bop_allocator *bop_tag(const char *name)
{
    return &tag_named(name)->heap;
}

struct bop_allocator *bop_tag_pages(const char *name)
{
    return &tag_named(name)->pages;
}

void bop_mem_count_untagged(void)
{
    struct bop__tag *tag = find_or_make(TAG_UNTAGGED);

    atomic_store_explicit(&bop__tag_untagged, tag, memory_order_release);
    pthread_mutex_lock(&bop__mem_lock);
    bop__mem_gate_all(BOP__GATE_COUNT);
    pthread_mutex_unlock(&bop__mem_lock);
}

/* -- Setting limits ---------------------------------------------------------------------------- */

static struct bop__tag *tag_of_either(struct bop_allocator *allocator)
{
    BOP_ASSERT(allocator->alloc == heap_alloc || allocator->alloc == pages_alloc);
    return allocator->alloc == heap_alloc ? tag_of(allocator) : tag_of_pages(allocator);
}

/* Under bop__mem_lock. From here on all threads flush at once; bring in what they have not yet. */
static void exact_changed(struct bop__tag *tag)
{
    bool exact = LOAD(tag->limit) != 0 || tag->low_fn;

    STORE(tag->exact, exact);
    if (exact) {
        BOP__MEM_FOR_EACH(thread)
        {
            bop__tag_flush(thread, tag);
        }
    }
}

void bop_tag_limit(struct bop_allocator *allocator, size_t bytes_max)
{
    struct bop__tag *tag = tag_of_either(allocator);

    pthread_mutex_lock(&bop__mem_lock);
    STORE(tag->limit, bytes_max);
    exact_changed(tag);
    pthread_mutex_unlock(&bop__mem_lock);
}

void bop_tag_on_low_memory(struct bop_allocator *allocator, size_t bytes,
                           void (*fn)(void *user, size_t live_bytes), void *user)
{
    struct bop__tag *tag = tag_of_either(allocator);

    pthread_mutex_lock(&bop__mem_lock);
    tag->low_fn = fn;
    tag->low_user = user;
    STORE(tag->low_bytes, fn ? bytes : UINT64_MAX);
    STORE(tag->low_armed, true);
    exact_changed(tag);
    pthread_mutex_unlock(&bop__mem_lock);
}
