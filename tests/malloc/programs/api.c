/*
 * Every function of the malloc family by its usual name, as C, POSIX and glibc
 * have it. Run with libbop-malloc preloaded, and linked with it. Without an
 * argument it checks that they are libbop-malloc's.
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Hidden from the compiler, which knows that some calls cannot succeed. */
static volatile size_t huge = SIZE_MAX;

static void *from_constructor;

__attribute__((constructor(110))) static void early(void)
{
    from_constructor = malloc(1000);
    CHECK(from_constructor);
}

static void late(void)
{
    void *block = realloc(malloc(10), 100000);

    CHECK(block);
    free(block);
    free(from_constructor);
}

static int is_aligned(const void *memory, size_t alignment)
{
    return (uintptr_t)memory % alignment == 0;
}

static void check_plain(void)
{
    for (size_t size = 0; size < 200000; size += size / 8 + 1) {
        unsigned char *block = malloc(size);
        unsigned char *zeroed = calloc(size, 3);

        CHECK(block && is_aligned(block, 16) && malloc_usable_size(block) >= size);
        memset(block, 0xee, malloc_usable_size(block));
        CHECK(zeroed && is_aligned(zeroed, 16));
        for (size_t i = 0; i < size * 3; i++) {
            CHECK(zeroed[i] == 0);
        }
        memset(zeroed, 0xee, size * 3);
        block = realloc(block, size + 5000);
        CHECK(block && (size == 0 || (block[0] == 0xee && block[size - 1] == 0xee)));
        free(block);
        free(zeroed);
    }
    free(NULL);
    CHECK(malloc_usable_size(NULL) == 0);
}

static void check_realloc(void)
{
    void *block = realloc(NULL, 0);

    CHECK(block);
    errno = 0;
    CHECK(realloc(block, 0) == NULL && errno == 0);
    block = reallocarray(NULL, 10, 10);
    CHECK(block);
    strcpy(block, "kept");
    errno = 0;
    CHECK(reallocarray(block, huge / 2, 3) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(realloc(block, huge) == NULL && errno == ENOMEM);
    CHECK(strcmp(block, "kept") == 0);
    free(block);
}

static void check_failure(void)
{
    errno = 0;
    CHECK(malloc(huge) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(malloc(huge / 2) == NULL && errno == ENOMEM); /* PTRDIFF_MAX: nobody has that. */
    errno = 0;
    CHECK(calloc(huge / 2, 4) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(pvalloc(huge) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(aligned_alloc(64, huge) == NULL && errno == ENOMEM);
}

/* Many at once, as it takes more than the first block of a page to see. */
static void check_aligned_powers(void)
{
    static void *blocks[64];

    for (size_t alignment = sizeof(void *); alignment <= 8192; alignment *= 2) {
        for (size_t size = 8; size <= 16384; size *= 2) {
            for (size_t i = 0; i < 64; i++) {
                CHECK(posix_memalign(&blocks[i], alignment, size) == 0);
                CHECK(is_aligned(blocks[i], alignment));
            }
            for (size_t i = 0; i < 64; i++) {
                free(blocks[i]);
            }
        }
    }
}

static void check_aligned(void)
{
    void *block = &block;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (size_t alignment = sizeof(void *); alignment <= (size_t)16 << 20; alignment *= 2) {
        for (size_t size = 1; size < 300000; size = size * 5 + 3) {
            CHECK(posix_memalign(&block, alignment, size) == 0 && is_aligned(block, alignment));
            memset(block, 0xee, size);
            CHECK(malloc_usable_size(block) >= size);
            free(block);
            block = memalign(alignment, size);
            CHECK(block && is_aligned(block, alignment));
            block = realloc(block, size + 100);
            CHECK(block);
            free(block);
            block = aligned_alloc(alignment, size);
            CHECK(block && is_aligned(block, alignment));
            free(block);
        }
    }
    block = &block;
    errno = 0;
    CHECK(posix_memalign(&block, 3, 10) == EINVAL && posix_memalign(&block, 0, 10) == EINVAL);
    CHECK(posix_memalign(&block, 4, 10) == EINVAL && posix_memalign(&block, 24, 10) == EINVAL);
    CHECK(posix_memalign(&block, 64, huge) == ENOMEM && errno == 0 && block == &block);
    CHECK(aligned_alloc(48 + (huge != SIZE_MAX), 96) == NULL && errno == EINVAL);
    block = valloc(10);
    CHECK(block && is_aligned(block, page));
    free(block);
    block = pvalloc(page + 1);
    CHECK(block && is_aligned(block, page) && malloc_usable_size(block) >= 2 * page);
    free(block);
}

static void check_extras(void)
{
    void *(*c23_alloc)(size_t size) = malloc;
    void (*c23_free)(void *memory, size_t size);
    void *block = c23_alloc(100);

    *(void **)&c23_free = dlsym(RTLD_DEFAULT, "free_sized");
    if (c23_free) {
        c23_free(block, 100);
    } else {
        free(block);
    }
    CHECK(malloc_trim(0) == 1);
    CHECK(mallinfo2().arena > 0);
    malloc_stats();
}

/* Frees in a thread's last moments what the main thread allocated, and allocates there. */
static void at_thread_exit(void *block)
{
    free(block);
    free(malloc(5000));
}

static pthread_key_t key;

static void *thread(void *block)
{
    pthread_setspecific(key, block);
    return malloc(300);
}

static void check_threads(void)
{
    CHECK(pthread_key_create(&key, at_thread_exit) == 0);
    for (int round = 0; round < 200; round++) {
        pthread_t threads[4];
        void *block;

        for (int i = 0; i < 4; i++) {
            CHECK(pthread_create(&threads[i], NULL, thread, malloc(200)) == 0);
        }
        for (int i = 0; i < 4; i++) {
            CHECK(pthread_join(threads[i], &block) == 0);
            free(block);
        }
    }
}

static void check_fork(void)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        check_plain();
        check_threads();
        exit(0); /* With the handlers of exit(). */
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(int argc, char **argv)
{
    atexit(late);
    if (argc == 1) {
        CHECK(dlsym(RTLD_DEFAULT, "bop_malloc_owner"));
    }
    check_plain();
    check_realloc();
    check_failure();
    check_aligned_powers();
    check_aligned();
    check_extras();
    check_threads();
    check_fork();
    puts("whole");
    return 0;
}
