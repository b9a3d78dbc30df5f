#include "check.h"

#ifdef BOP_DEBUG

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tag.h"

#define SHARDS         32 /* A fork holds all; the thread sanitizer bears 64 locks held at once. */
#define SHARD_SLOTS    1024 /* To begin with; a power of two. */
#define LOAD_PERCENT   70
#define MESSAGE_LENGTH 256

enum slot_state {
    SLOT_EMPTY = 0,
    SLOT_LIVE = 1,
    SLOT_FREED = 2, /* Remembered, that a double free is told from a foreign pointer. */
};

struct slot {
    uintptr_t address;
    size_t size;
    uint8_t tag;
    uint8_t state; /* enum slot_state */
};

/* Open addressing with linear probing, in pages of its own. */
struct shard {
    pthread_mutex_t lock;
    struct slot *slots;
    size_t capacity;
    size_t used; /* Slots that are not empty. */
    size_t live;
};

/* Usable before any constructor has run. */
#define FOUR(x)  x, x, x, x
#define EIGHT(x) x, x, x, x, x, x, x, x
#define SHARD                                                                                      \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER                                                          \
    }

static struct shard shards[] = {FOUR(EIGHT(SHARD))};

_Static_assert(BOP_COUNT_OF(shards) == SHARDS, "as many as SHARDS");

static uint64_t hash_of(uintptr_t address)
{
    return (address >> 4) * UINT64_C(0x9E3779B97F4A7C15);
}

static struct shard *shard_of(uintptr_t address)
{
    return &shards[hash_of(address) >> 59];
}

/* One line, without allocating. */
BOP_PRINTF(1, 2) BOP_NORETURN static void die(const char *format, ...)
{
    char text[MESSAGE_LENGTH];
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    BOP_IGNORE(write(STDERR_FILENO, text, (size_t)length));
    abort();
}

static const char *tag_name(unsigned tag)
{
    return tag == BOP__CHECK_FAMILY ? "the malloc family" : bop__tag_name(tag % BOP__CHECK_PAGES);
}

static const char *face_name(unsigned tag)
{
    return tag != BOP__CHECK_FAMILY && tag >= BOP__CHECK_PAGES ? " (pages)" : "";
}

/* The slot of the address, or the empty one where it would go. */
static struct slot *find(struct shard *shard, uintptr_t address)
{
    size_t i = hash_of(address) & (shard->capacity - 1);

    while (shard->slots[i].state != SLOT_EMPTY && shard->slots[i].address != address) {
        i = (i + 1) & (shard->capacity - 1);
    }
    return &shard->slots[i];
}

/* What was freed is forgotten with it. */
static void make_room(struct shard *shard)
{
    struct slot *old = shard->slots;
    size_t old_capacity = shard->capacity;
    void *slots;

    if (old && (shard->used + 1) * 100 <= old_capacity * LOAD_PERCENT) {
        return;
    }
    while (!shard->capacity || (shard->live + 1) * 200 > shard->capacity * LOAD_PERCENT) {
        shard->capacity = shard->capacity ? shard->capacity * 2 : SHARD_SLOTS;
    }
    slots = mmap(NULL, shard->capacity * sizeof(*old), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slots == MAP_FAILED) {
        die("bop: no memory for the record of live blocks\n");
    }
    shard->slots = slots;
    shard->used = shard->live;
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i].state == SLOT_LIVE) {
            *find(shard, old[i].address) = old[i];
        }
    }
    if (old) {
        munmap(old, old_capacity * sizeof(*old));
    }
}

void bop__check_allocated(const void *memory, size_t size, unsigned tag)
{
    uintptr_t address = (uintptr_t)memory;
    struct shard *shard = shard_of(address);
    struct slot *slot;

    if (!memory) {
        return;
    }
    pthread_mutex_lock(&shard->lock);
    make_room(shard);
    slot = find(shard, address);
    if (slot->state == SLOT_LIVE) {
        die("bop: memory error: %p (%zu bytes, tag %s%s) was handed out although it is alive: "
            "somebody freed it past its allocator\n",
            memory, slot->size, tag_name(slot->tag), face_name(slot->tag));
    }
    shard->used += slot->state == SLOT_EMPTY;
    shard->live++;
    *slot = (struct slot){
        .address = address, .size = size, .tag = (uint8_t)tag, .state = SLOT_LIVE};
    pthread_mutex_unlock(&shard->lock);
}

/* The block is no block, or not what the caller says. */
static void check_slot(const struct slot *slot, const void *memory, size_t size, unsigned tag)
{
    if (!slot || slot->state == SLOT_EMPTY) {
        die("bop: memory error: free of foreign pointer %p, which tag %s%s never handed out\n",
            memory, tag_name(tag), face_name(tag));
    }
    if (slot->state == SLOT_FREED) {
        die("bop: memory error: double free of %p (%zu bytes, tag %s%s)\n", memory, slot->size,
            tag_name(slot->tag), face_name(slot->tag));
    }
    if (slot->tag != tag) {
        die("bop: memory error: wrong tag: %p (%zu bytes, tag %s%s) was freed to tag %s%s\n",
            memory, slot->size, tag_name(slot->tag), face_name(slot->tag), tag_name(tag),
            face_name(tag));
    }
    if (size != BOP__CHECK_ANY_SIZE && slot->size != size) {
        die("bop: memory error: wrong size: %p (%zu bytes, tag %s%s) was freed as %zu bytes\n",
            memory, slot->size, tag_name(slot->tag), face_name(slot->tag), size);
    }
}

size_t bop__check_freed(const void *memory, size_t size, unsigned tag)
{
    uintptr_t address = (uintptr_t)memory;
    struct shard *shard = shard_of(address);
    struct slot *slot;

    if (!memory) {
        return 0;
    }
    pthread_mutex_lock(&shard->lock);
    slot = shard->slots ? find(shard, address) : NULL;
    check_slot(slot, memory, size, tag);
    slot->state = SLOT_FREED;
    shard->live--;
    size = slot->size;
    pthread_mutex_unlock(&shard->lock);
    return size;
}

void bop__check_lock(void)
{
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&shards[i].lock);
    }
}

void bop__check_unlock(void)
{
    for (size_t i = SHARDS; i > 0; i--) {
        pthread_mutex_unlock(&shards[i - 1].lock);
    }
}

#else

/* The whole file is for builds with checks. */
_Static_assert(sizeof(char) == 1, "no empty translation unit");

#endif
