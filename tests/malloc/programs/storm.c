/*
 * Forks while threads allocate, free each other's blocks and come and go. Each
 * child allocates, starts threads and exits; prints how much was done.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4
#define SLOTS   1024
#define ROUNDS  3000

static void *_Atomic slots[SLOTS];
static _Atomic int stop;

static void *churn(void *argument)
{
    unsigned long seed = (unsigned long)argument * 7919 + 1;

    for (int round = 0; round < ROUNDS; round++) {
        size_t size;
        unsigned char *block;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size = 1 + (seed >> 33) % (round % 100 == 0 ? 300000 : 600);
        block = malloc(size);
        if (!block) {
            abort();
        }
        block[0] = block[size - 1] = 0x5a;
        free(atomic_exchange(&slots[seed >> 54], block));
    }
    return NULL;
}

/* Threads that come and go until they are told to stop. */
static void *generations(void *argument)
{
    while (!stop) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, churn, argument) != 0) {
            abort();
        }
        pthread_join(thread, NULL);
    }
    return NULL;
}

static void child(void)
{
    pthread_t threads[2];

    for (unsigned long i = 0; i < 2; i++) {
        if (pthread_create(&threads[i], NULL, churn, (void *)(i + 100)) != 0) {
            _exit(2);
        }
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < SLOTS; i++) {
        free(atomic_exchange(&slots[i], NULL));
    }
    exit(0);
}

int main(int argc, char **argv)
{
    int forks = argc > 1 ? atoi(argv[1]) : 40;
    pthread_t threads[THREADS];
    int failed = 0;

    for (unsigned long i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, generations, (void *)i) != 0) {
            abort();
        }
    }
    for (int i = 0; i < forks; i++) {
        int status = -1;
        pid_t pid = fork();

        if (pid == 0) {
            child();
        }
        if (waitpid(pid, &status, 0) != pid || status != 0) {
            failed++;
        }
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("%d forks, %d failed\n", forks, failed);
    return failed != 0;
}
