/*
 * Holds 48 MiB of one function's and 16 MiB of another's when it ends, among
 * much that it has freed, and a little by threads that are gone.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK  2048
#define LEAKED ((48 << 20) / BLOCK)
#define KEPT   ((16 << 20) / BLOCK)

/* Volatile, or the compiler could do without blocks that nobody reads. */
static void *volatile leaked[LEAKED];
static void *volatile kept[KEPT];

/* Noinline, and with something after the call, for the functions to be in the stacks. */
__attribute__((noinline)) static void leak_here(size_t i)
{
    leaked[i] = malloc(BLOCK);
    memset(leaked[i], 1, BLOCK);
}

__attribute__((noinline)) static void keep_here(size_t i)
{
    kept[i] = calloc(1, BLOCK);
    memset(kept[i], 1, BLOCK);
}

__attribute__((noinline)) static void free_all(size_t i)
{
    void *volatile block = malloc(BLOCK + i % 100);

    free(block);
}

static void *thread(void *unused)
{
    for (size_t i = 0; i < KEPT; i++) {
        keep_here(i);
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t id;

    for (size_t i = 0; i < LEAKED; i++) {
        leak_here(i);
        free_all(i);
        free_all(i + 1);
    }
    if (pthread_create(&id, NULL, thread, NULL) != 0) {
        return 1;
    }
    pthread_join(id, NULL);
    if (argc > 1) { /* Say that it is all there, and wait to be ended. */
        puts("ready");
        fflush(stdout);
        getchar();
    }
    return 0;
}
