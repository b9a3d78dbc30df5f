/*
 * The records of threads: made by a thread's first call of the family, dropped
 * by a destructor of thread-locals, which runs before those of pthread keys and
 * thus before mimalloc gives the thread's heap up.
 */
#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "collect.h"
#include "fast.h"
#include "purge.h"
#include "raw.h"
#include "sample.h"
#include "tag.h"

static struct bop__mem_door direct_door = {.gate = BOP__GATE_DIRECT};

/* What the pointer of a thread refers to that has not allocated yet. */
static struct bop__mem_thread thread_none = {.door = &direct_door};
struct bop__mem_thread bop__mem_direct = {.door = &direct_door};

_Thread_local __attribute__((tls_model("initial-exec"))) struct bop__mem_door bop__mem_own_door = {
    .gate = BOP__GATE_DIRECT,
#ifdef BOP_HAVE_MIMALLOC
    .heaps = {&bop__fast_shut, &bop__fast_shut},
#endif
    .owners = {BOP__FAST_NOBODY, BOP__FAST_NOBODY},
    .looks_in = 1,
};

_Thread_local
    __attribute__((tls_model("initial-exec"))) struct bop__mem_thread *bop__mem_self = &thread_none;

bool bop__mem_foreign;
bool bop__mem_owns_malloc;

pthread_mutex_t bop__mem_lock = PTHREAD_MUTEX_INITIALIZER;
struct bop__mem_thread *bop__mem_threads;
static struct bop__mem_thread *spare_threads; /* Records of threads that have exited. */
static unsigned gate_of_new_threads;

static pthread_once_t init_once = PTHREAD_ONCE_INIT;

/* glibc's, for C++'s thread_local; the C library keeps the object loaded until they have run. */
extern int __cxa_thread_atexit_impl(void (*destructor)(void *), void *object, void *dso)
    __attribute__((weak));
extern void *__dso_handle;

/* -- A record's life --------------------------------------------------------------------------- */

static struct bop__mem_thread *record_take(void)
{
    struct bop__mem_thread *record;

    pthread_mutex_lock(&bop__mem_lock);
    record = spare_threads;
    if (record) {
        spare_threads = record->next;
    }
    pthread_mutex_unlock(&bop__mem_lock);
    if (record) {
        memset(record, 0, sizeof(*record));
        return record;
    }
    record = mmap(NULL, sizeof(*record), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                  0);
    return record == MAP_FAILED ? NULL : record;
}

static void record_link(struct bop__mem_thread *record)
{
    pthread_mutex_lock(&bop__mem_lock);
    atomic_store_explicit(&record->door->gate, (uint32_t)gate_of_new_threads, memory_order_relaxed);
    bop__fast_update(record);
    record->next = bop__mem_threads;
    if (record->next) {
        record->next->previous = record;
    }
    bop__mem_threads = record;
    pthread_mutex_unlock(&bop__mem_lock);
}

/* Under the lock. */
static void record_unlink(struct bop__mem_thread *record)
{
    if (record->previous) {
        record->previous->next = record->next;
    } else {
        bop__mem_threads = record->next;
    }
    if (record->next) {
        record->next->previous = record->previous;
    }
    record->heap = NULL;
    bop__tag_fold(record);
    record->next = spare_threads;
    spare_threads = record;
}

/* Destructors that run after this one may allocate still: they use the sentinel. */
static void thread_exit(void *object)
{
    struct bop__mem_thread *record = object;

    bop__mem_self = &bop__mem_direct;
    pthread_mutex_lock(&bop__mem_lock);
    bop__purge_wait(record);
    record_unlink(record);
    /* Relaxed: nobody else knows this door any more. */
    atomic_store_explicit(&bop__mem_own_door.gate, BOP__GATE_DIRECT, memory_order_relaxed);
    bop__fast_update(record);
    pthread_mutex_unlock(&bop__mem_lock);
}

static void process_init(void);

/* What this calls may allocate: that goes to the sentinel, which the caller has put in place. */
static struct bop__mem_thread *thread_register(void)
{
    struct bop__mem_thread *record;

    pthread_once(&init_once, process_init);
    record = record_take();
    if (!record) {
        return NULL;
    }
    if (!__cxa_thread_atexit_impl || __cxa_thread_atexit_impl(thread_exit, record, &__dso_handle)) {
        /* Without the destructor the record would outlive its thread, and the purger must not meet
         * that: the thread stays with the sentinel. */
        munmap(record, sizeof(*record));
        return NULL;
    }
    record->door = &bop__mem_own_door;
    bop__purge_thread_init(record);
    bop__fast_thread_init(record);
    record_link(record);
    return record;
}

struct bop__mem_thread *bop__mem_thread(void)
{
    struct bop__mem_thread *record = bop__mem_self;

    if (BOP_LIKELY(record != &thread_none)) {
        return record;
    }
    bop__mem_self = &bop__mem_direct;
    record = thread_register();
    if (record) {
        bop__mem_self = record;
    }
    return bop__mem_self;
}

struct bop__mem_thread *bop__mem_enter_slow(void)
{
    struct bop__mem_thread *record = bop__mem_thread();

    if (atomic_load_explicit(&record->door->gate, memory_order_relaxed) & BOP__GATE_SAMPLE) {
        bop__mem_leave(record->door);
        bop__sample_gate();
    }
    if (atomic_load_explicit(&record->door->gate, memory_order_relaxed) & BOP__GATE_START) {
        bop__mem_leave(record->door);
        bop__purge_count_child(record);
    }
    while (!bop__mem_enter(record->door, BOP__GATE_PURGING | BOP__GATE_WAKE | BOP__GATE_COLLECT)) {
        bop__mem_leave(record->door);
        bop__purge_gate(record);
    }
    return record;
}

void bop__mem_gate_set(struct bop__mem_thread *thread, unsigned bits)
{
    atomic_fetch_or_explicit(&thread->door->gate, (uint32_t)bits, memory_order_relaxed);
    bop__fast_update(thread);
}

void bop__mem_gate_clear(struct bop__mem_thread *thread, unsigned bits)
{
    /* Release: what was done to the heap comes before the owner's next look at the gate. */
    atomic_fetch_and_explicit(&thread->door->gate, (uint32_t)~bits, memory_order_release);
    bop__fast_update(thread);
}

void bop__mem_gate_all(unsigned bits)
{
    gate_of_new_threads |= bits;
    BOP__MEM_FOR_EACH(thread)
    {
        bop__mem_gate_set(thread, bits);
    }
}

void bop__mem_gate_none(unsigned bits)
{
    gate_of_new_threads &= ~bits;
    BOP__MEM_FOR_EACH(thread)
    {
        bop__mem_gate_clear(thread, bits);
    }
}

unsigned bop__mem_gate_of_new_threads(void)
{
    return gate_of_new_threads;
}

/* -- The process ------------------------------------------------------------------------------- */

/* A record of a thread that is not in the child folds into the sums: what it allocated is there. */
static void fork_child(void)
{
    struct bop__mem_thread *next;

    for (struct bop__mem_thread *record = bop__mem_threads; record; record = next) {
        next = record->next;
        if (record != bop__mem_self) {
            record_unlink(record);
        }
    }
    bop__purge_fork_child();
    bop__check_unlock();
    pthread_mutex_unlock(&bop__mem_lock);
}

/* The purger takes its own lock before this module's, and holds it while it is in a heap. */
static void fork_prepare(void)
{
    bop__purge_fork_prepare();
    pthread_mutex_lock(&bop__mem_lock);
    bop__check_lock();
}

static void fork_parent(void)
{
    bop__check_unlock();
    pthread_mutex_unlock(&bop__mem_lock);
    bop__purge_fork_parent();
}

#ifdef BOP_HAVE_MIMALLOC

/* Is malloc() exported by another copy of this library? */
static bool malloc_is_foreign(void)
{
    void *owner = dlsym(RTLD_DEFAULT, "bop_malloc_owner");
    Dl_info theirs, ours;

    return owner && dladdr(owner, &theirs) && dladdr(&bop__mem_direct, &ours) &&
           theirs.dli_fbase != ours.dli_fbase;
}

static void find_malloc(void)
{
    if (malloc_is_foreign()) {
        bop__mem_foreign = true;
        pthread_mutex_lock(&bop__mem_lock);
        bop__mem_gate_all(BOP__GATE_FOREIGN);
        pthread_mutex_unlock(&bop__mem_lock);
    }
}

#else

static void find_malloc(void)
{
}

#endif

static void process_init(void)
{
    find_malloc();
    bop__fast_init();
    bop__purge_process_init();
    /* It fails for lack of memory only; then a fork's child keeps what its parent had. */
    BOP_IGNORE(pthread_atfork(fork_prepare, fork_parent, fork_child));
}

void bop__heap_own_malloc(void)
{
    BOP_IGNORE(bop__mem_thread());
    bop__mem_owns_malloc = !bop__mem_foreign;
    if (bop__mem_owns_malloc) {
        bop__collect_tune();
    }
}
