/*
 * Which threads are still there.
 *
 * A claim remembers the record of the thread that made it and the record's life
 * number. When a thread exits, the number moves on, so that whoever looks at the
 * claim sees that its thread is gone, without any list of claims that the exiting
 * thread would have to walk, and whatever became of the queue meanwhile. Records
 * are handed on to new threads and never freed: there are as many as there were
 * threads at once.
 */
#include "lanes.h"

#include <stdlib.h>

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_made;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct lanes_thread *free_records; /* Under the lock. */

static _Thread_local struct lanes_thread *own;
static _Thread_local unsigned own_number;
static atomic_uint last_number;

static void exited(void *pointer)
{
    struct lanes_thread *record = pointer;

    own = NULL; /* A later destructor may pop too: it gets a record of its own. */
    /* Release pairs with the acquire of who looks: it sees the claim as the thread left it. */
    atomic_fetch_add_explicit(&record->life, 1, memory_order_release);
    pthread_mutex_lock(&lock);
    record->next_free = free_records;
    free_records = record;
    pthread_mutex_unlock(&lock);
}

static void make_key(void)
{
    key_made = pthread_key_create(&key, exited) == 0;
}

static struct lanes_thread *new_record(void)
{
    struct lanes_thread *record;

    pthread_mutex_lock(&lock);
    record = free_records;
    if (record) {
        free_records = record->next_free;
    }
    pthread_mutex_unlock(&lock);
    /* From the C library: it outlives every allocator that a queue may be given. */
    return record ? record : calloc(1, sizeof(*record));
}

struct lanes_thread *bop__lanes_thread(void)
{
    struct lanes_thread *record = own;

    if (BOP_LIKELY(record != NULL)) {
        return record;
    }
    pthread_once(&key_once, make_key);
    if (!key_made) {
        return NULL;
    }
    record = new_record();
    if (record && pthread_setspecific(key, record) != 0) {
        pthread_mutex_lock(&lock);
        record->next_free = free_records;
        free_records = record;
        pthread_mutex_unlock(&lock);
        return NULL;
    }
    own = record;
    return record;
}

unsigned bop__lanes_thread_number(void)
{
    if (BOP_UNLIKELY(own_number == 0)) {
        /* Relaxed: it only has to be another one each time. */
        own_number = atomic_fetch_add_explicit(&last_number, 1, memory_order_relaxed) + 1;
    }
    return own_number;
}
