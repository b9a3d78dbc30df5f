/*
 * C++'s operators new and delete.
 *
 * Those of libstdc++ end in malloc() and free() as well, but libmimalloc has its
 * own, and in a process that loads libstdc++ late those are found first: they
 * would go to its heap past the malloc family. So they are here, in C, for the
 * library not to need libstdc++; what only C++ can do, finding the handler and
 * throwing, is looked up there when it is needed.
 *
 * The nothrow forms ask the handler too; one that throws is not caught.
 */
#include <dlfcn.h>
#include <stdlib.h>

#include <bop/mem.h>

#include "../core/mem/family.h"
#include "../core/mem/sample.h"
#include "internal.h"

/* libstdc++'s, in the process however it got there. NULL if it is not. */
static void *of_libstdcxx(const char *name)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);
    void *library;

    if (!symbol) {
        library = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
        symbol = library ? dlsym(library, name) : NULL;
    }
    return symbol;
}

/* Let the program's handler free something. False if there is none. */
static bool call_handler(void)
{
    void (*(*get_handler)(void))(void);
    void (*handler)(void);

    *(void **)&get_handler = of_libstdcxx("_ZSt15get_new_handlerv");
    handler = get_handler ? get_handler() : NULL;
    if (handler) {
        handler();
    }
    return handler != NULL;
}

static BOP_NORETURN void throw_bad_alloc(void)
{
    void (*throw)(void);

    *(void **)&throw = of_libstdcxx("_ZSt17__throw_bad_allocv");
    if (throw) {
        throw();
    }
    abort();
}

BOP__ALLOCATES static inline void *allocate(size_t size, size_t alignment)
{
    return alignment == 0 ? bop__family_alloc_missed(size) : bop_mem_alloc_aligned(size, alignment);
}

/* Anything but the fast path. */
BOP__ALLOCATES static __attribute__((noinline)) void *new_missed(size_t size, size_t alignment,
                                                                 bool nothrow)
{
    void *memory = allocate(size, alignment);

    while (!memory && call_handler()) {
        memory = allocate(size, alignment);
    }
    if (!memory && !nothrow) {
        throw_bad_alloc();
    }
    return memory;
}

BOP__ALLOCATES static inline void *new_block(size_t size, size_t alignment, bool nothrow)
{
    void *memory = alignment == 0 ? bop__family_alloc(size) : NULL;

    return BOP_LIKELY(memory) ? memory : new_missed(size, alignment, nothrow);
}

/* By their names in the Itanium ABI: w is new, a[] is a, l is delete. */
#define NEW(name)                                                                                  \
    void *_Zn##name##m(size_t size);                                                               \
    void *_Zn##name##mRKSt9nothrow_t(size_t size, const void *nothrow);                            \
    void *_Zn##name##mSt11align_val_t(size_t size, size_t alignment);                              \
    void *_Zn##name##mSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,                 \
                                                    const void *nothrow);                          \
    BOP__EXPORT BOP__ALLOCATES void *_Zn##name##m(size_t size)                                     \
    {                                                                                              \
        return new_block(size, 0, false);                                                          \
    }                                                                                              \
    BOP__EXPORT BOP__ALLOCATES void *_Zn##name##mRKSt9nothrow_t(size_t size, const void *nothrow)  \
    {                                                                                              \
        return new_block(size, 0, true);                                                           \
    }                                                                                              \
    BOP__EXPORT BOP__ALLOCATES void *_Zn##name##mSt11align_val_t(size_t size, size_t alignment)    \
    {                                                                                              \
        return new_block(size, alignment, false);                                                  \
    }                                                                                              \
    BOP__EXPORT BOP__ALLOCATES void *_Zn##name##mSt11align_val_tRKSt9nothrow_t(                    \
        size_t size, size_t alignment, const void *nothrow)                                        \
    {                                                                                              \
        return new_block(size, alignment, true);                                                   \
    }

#define DELETE(name)                                                                               \
    void _Zd##name##Pv(void *memory);                                                              \
    void _Zd##name##Pvm(void *memory, size_t size);                                                \
    void _Zd##name##PvRKSt9nothrow_t(void *memory, const void *nothrow);                           \
    void _Zd##name##PvSt11align_val_t(void *memory, size_t alignment);                             \
    void _Zd##name##PvmSt11align_val_t(void *memory, size_t size, size_t alignment);               \
    void _Zd##name##PvSt11align_val_tRKSt9nothrow_t(void *memory, size_t alignment,                \
                                                    const void *nothrow);                          \
    BOP__EXPORT void _Zd##name##Pv(void *memory)                                                   \
    {                                                                                              \
        bop__family_free(memory, BOP__CHECK_ANY_SIZE);                                             \
    }                                                                                              \
    BOP__EXPORT void _Zd##name##Pvm(void *memory, size_t size)                                     \
    {                                                                                              \
        bop__family_free(memory, size);                                                            \
    }                                                                                              \
    BOP__EXPORT void _Zd##name##PvRKSt9nothrow_t(void *memory, const void *nothrow)                \
    {                                                                                              \
        bop__family_free(memory, BOP__CHECK_ANY_SIZE);                                             \
    }                                                                                              \
    BOP__EXPORT void _Zd##name##PvSt11align_val_t(void *memory, size_t alignment)                  \
    {                                                                                              \
        bop__family_free(memory, BOP__CHECK_ANY_SIZE);                                             \
    }                                                                                              \
    BOP__EXPORT void _Zd##name##PvmSt11align_val_t(void *memory, size_t size, size_t alignment)    \
    {                                                                                              \
        bop__family_free(memory, size);                                                            \
    }                                                                                              \
    BOP__EXPORT void _Zd##name##PvSt11align_val_tRKSt9nothrow_t(void *memory, size_t alignment,    \
                                                                const void *nothrow)               \
    {                                                                                              \
        bop__family_free(memory, BOP__CHECK_ANY_SIZE);                                             \
    }

NEW(w)
NEW(a)
DELETE(l)
DELETE(a)
