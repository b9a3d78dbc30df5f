/*
 * The purger: gives back what threads hold free while they are idle.
 *
 * Every 200 ms it looks at each thread's `busy`, marks it as seen, and takes a
 * thread that has not been inside since for idle. It shuts the gate of an idle
 * thread, runs the fence that makes the owner's stores visible, makes sure that
 * the owner is outside, and has the heap to itself until it opens the gate.
 *
 * Whatever any thread did since may have freed memory of any heap; so a thread
 * is purged again only after somebody was active, and not before the last purge
 * of it was 5 % of the time since. With nobody active and nothing left to do it
 * sleeps until the first thread that calls the family finds BOP__GATE_WAKE.
 *
 * Where others use mimalloc past this family (bop__mem_owns_malloc is false) no
 * gate keeps a thread out of its heap. Then an idle thread is only asked, by
 * BOP__GATE_COLLECT, to collect its heap itself when it next comes by.
 *
 * Locks: purge_lock before bop__mem_lock. Neither is held inside a heap but
 * purge_lock, which no allocating function takes.
 */
#include "purge.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../mpmc/asymmetric_fence.h"
#include "collect.h"
#include "raw.h"

#define TICK_NS     UINT64_C(200000000)
#define IDLE_TICKS  2    /* Before the purger sleeps for good. */
#define CALM_TICKS  3    /* Of little use of the CPU, for a thread that is not quite idle. */
#define CALM_PART   20   /* Little is less than this part of the time. */
#define PURGE_TIMES 19   /* The least time between purges, in times of the last one's. */
#define CHILD_CALLS 1000 /* A fork's child that allocates less gets no purger. */
#define ASK_TICKS   5    /* Idle for so long, a thread is asked to collect by itself. */
/* Calls between looks at the process's size, ever more while it stays small. */
#define LOOK_CALLS_LEAST 256u
#define LOOK_CALLS_MOST  8192u
#define NS_PER_S         UINT64_C(1000000000)

/* One purge at a time, and no fork meanwhile. */
static pthread_mutex_t purge_lock = PTHREAD_MUTEX_INITIALIZER;

/* Starting and stopping. */
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t purger;
static bool running;

/* Under bop__mem_lock, as are the conditions. */
static pthread_cond_t gate_opened = PTHREAD_COND_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER; /* By the monotonic clock; see start. */
static bool stopping;
static uint64_t generation; /* Ticks in which somebody was active. */

static _Atomic unsigned child_calls;
static _Atomic uint64_t start_from; /* Bytes; 0: does not start by itself. */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    if (clock_gettime(clock, &now) != 0) {
        return 0;
    }
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void bop__purge_process_init(void)
{
    bop__asymmetric_fence_init();
}

void bop__purge_thread_init(struct bop__mem_thread *thread)
{
    thread->heap = bop__mem_foreign ? NULL : bop__collect_heap();
    if (pthread_getcpuclockid(pthread_self(), &thread->cpu_clock) != 0) {
        thread->cpu_clock = CLOCK_MONOTONIC; /* Always busy. */
    }
}

/* Can heaps be purged from outside? */
static bool heaps_are_guarded(void)
{
    return bop__mem_owns_malloc && bop__collect_is_for_others() &&
           !bop__asymmetric_fence_hot_is_full;
}

/* -- The owner's side of the gate -------------------------------------------------------------- */

static bool gate_has(const struct bop__mem_thread *thread, unsigned bits)
{
    return atomic_load_explicit(&thread->door->gate, memory_order_acquire) & bits;
}

void bop__purge_wait(struct bop__mem_thread *thread)
{
    while (gate_has(thread, BOP__GATE_PURGING)) {
        pthread_cond_wait(&gate_opened, &bop__mem_lock);
    }
}

void bop__purge_gate(struct bop__mem_thread *thread)
{
    bool collect;

    pthread_mutex_lock(&bop__mem_lock);
    bop__purge_wait(thread);
    if (gate_has(thread, BOP__GATE_WAKE)) {
        bop__mem_gate_none(BOP__GATE_WAKE);
        pthread_cond_signal(&wake);
    }
    collect = gate_has(thread, BOP__GATE_COLLECT);
    bop__mem_gate_clear(thread, BOP__GATE_COLLECT);
    pthread_mutex_unlock(&bop__mem_lock);
    if (collect) {
        bop__collect_own(true);
    }
}

void bop__purge_count_child(struct bop__mem_thread *thread)
{
    if (atomic_fetch_add_explicit(&child_calls, 1, memory_order_relaxed) + 1 < CHILD_CALLS) {
        return;
    }
    pthread_mutex_lock(&bop__mem_lock);
    bop__mem_gate_none(BOP__GATE_START);
    pthread_mutex_unlock(&bop__mem_lock);
    /* Without a purger the child works as well. */
    BOP_IGNORE(bop_mem_purge_start());
}

/* -- Purging one thread ------------------------------------------------------------------------ */

/* Under bop__mem_lock, which is released meanwhile: the record stays, for its owner waits at the
 * gate before it exits. False: the owner is inside. */
static bool purge_guarded(struct bop__mem_thread *thread)
{
    bool outside;

    bop__mem_gate_set(thread, BOP__GATE_PURGING);
    /* Pairs with the compiler fence in bop__mem_enter(). */
    bop__fence_rare();
    /* Acquire pairs with the release in bop__mem_leave(). */
    outside = atomic_load_explicit(&thread->door->busy, memory_order_acquire) != BOP__MEM_INSIDE;
    if (outside) {
        pthread_mutex_unlock(&bop__mem_lock);
        bop__collect_other(thread->heap);
        pthread_mutex_lock(&bop__mem_lock);
    }
    bop__mem_gate_clear(thread, BOP__GATE_PURGING);
    pthread_cond_broadcast(&gate_opened);
    return outside;
}

/* Give back what the purging thread may, all of it or what has not been needed for a while. */
static void purge_own(bool force)
{
    struct bop__mem_thread *self = bop__mem_enter_slow();

    if (bop__mem_foreign) {
        malloc_trim(0);
    } else if (force && heaps_are_guarded() && self->heap) {
        bop__collect_other(self->heap);
        bop__collect_own(true);
    } else {
        bop__collect_own(force);
    }
    bop__mem_leave(self->door);
}

void bop_mem_purge(void)
{
    struct bop__mem_thread *self = bop__mem_thread();

    pthread_mutex_lock(&purge_lock);
    pthread_mutex_lock(&bop__mem_lock);
    for (struct bop__mem_thread *thread = bop__mem_threads; thread; thread = thread->next) {
        if (thread != self && thread->heap) {
            if (heaps_are_guarded()) {
                BOP_IGNORE(purge_guarded(thread));
            } else {
                bop__mem_gate_set(thread, BOP__GATE_COLLECT);
            }
        }
    }
    pthread_mutex_unlock(&bop__mem_lock);
    purge_own(true);
    pthread_mutex_unlock(&purge_lock);
}

/* -- The background thread --------------------------------------------------------------------- */

/* Has the thread been inside since the last look? */
static bool look_active(struct bop__mem_thread *thread)
{
    uint8_t outside = BOP__MEM_OUTSIDE;

    /* The owner's plain stores may come at any time; whichever is last stands, and all of them say
     * that it is active. */
    return atomic_load_explicit(&thread->door->busy, memory_order_relaxed) != BOP__MEM_QUIET &&
           (atomic_compare_exchange_strong_explicit(&thread->door->busy, &outside, BOP__MEM_QUIET,
                                                    memory_order_relaxed, memory_order_relaxed) ||
            outside != BOP__MEM_QUIET);
}

/* Count the ticks a thread was idle for; one that is not but uses little of the CPU is calm. */
static void look_at(struct bop__mem_thread *thread, uint64_t elapsed_ns, bool *any_active)
{
    uint64_t cpu_ns;

    if (!look_active(thread)) {
        thread->idle_ticks++;
        return;
    }
    *any_active = true;
    thread->idle_ticks = 0;
    cpu_ns = clock_ns(thread->cpu_clock);
    thread->calm_ticks = cpu_ns - thread->cpu_ns < elapsed_ns / CALM_PART ? thread->calm_ticks + 1
                                                                          : 0;
    thread->cpu_ns = cpu_ns;
}

/* Under bop__mem_lock. Returns true if it is to be looked at again although nobody is active. */
static bool purge_if_idle(struct bop__mem_thread *thread, uint64_t now_ns)
{
    uint64_t start_ns;

    if (!thread->heap || thread->purged_generation == generation) {
        return false;
    }
    if (!heaps_are_guarded()) {
        if (thread->idle_ticks == ASK_TICKS) {
            bop__mem_gate_set(thread, BOP__GATE_COLLECT);
        }
        return thread->idle_ticks < ASK_TICKS;
    }
    if (thread->idle_ticks == 0 && thread->calm_ticks < CALM_TICKS) {
        return true;
    }
    if (now_ns < thread->purge_after_ns) {
        return true;
    }
    start_ns = clock_ns(CLOCK_MONOTONIC);
    if (!purge_guarded(thread)) {
        return true;
    }
    thread->purged_generation = generation;
    now_ns = clock_ns(CLOCK_MONOTONIC);
    thread->purge_after_ns = now_ns + (now_ns - start_ns) * PURGE_TIMES;
    return false;
}

/* Returns whether there may be something to do at the next tick. Under bop__mem_lock. */
static bool tick(struct bop__mem_thread *self, uint64_t elapsed_ns)
{
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    bool any_active = false, again = false;

    for (struct bop__mem_thread *thread = bop__mem_threads; thread; thread = thread->next) {
        if (thread != self) {
            look_at(thread, elapsed_ns, &any_active);
        }
    }
    generation += any_active;
    for (struct bop__mem_thread *thread = bop__mem_threads; thread; thread = thread->next) {
        if (thread != self) {
            again |= purge_if_idle(thread, now_ns);
        }
    }
    pthread_mutex_unlock(&bop__mem_lock);
    /* With everybody idle nobody is to need soon what is kept for that. */
    purge_own(!any_active);
    pthread_mutex_lock(&bop__mem_lock);
    return any_active || again;
}

/* Ask to be woken, and look once more whether somebody has come by before he could know. */
static bool may_sleep(const struct bop__mem_thread *self)
{
    bop__mem_gate_all(BOP__GATE_WAKE);
    bop__fence_rare();
    for (struct bop__mem_thread *thread = bop__mem_threads; thread; thread = thread->next) {
        if (thread != self &&
            atomic_load_explicit(&thread->door->busy, memory_order_relaxed) != BOP__MEM_QUIET) {
            bop__mem_gate_none(BOP__GATE_WAKE);
            return false;
        }
    }
    return true;
}

/* Under bop__mem_lock. */
static void sleep_until(uint64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                                .tv_nsec = (long)(deadline_ns % NS_PER_S)};

    while (!stopping && clock_ns(CLOCK_MONOTONIC) < deadline_ns) {
        pthread_cond_clockwait(&wake, &bop__mem_lock, CLOCK_MONOTONIC, &deadline);
    }
}

static void *purger_main(void *argument)
{
    struct bop__mem_thread *self = bop__mem_thread();
    uint64_t last_ns = clock_ns(CLOCK_MONOTONIC);
    unsigned idle_ticks = 0;

    pthread_mutex_lock(&purge_lock);
    pthread_mutex_lock(&bop__mem_lock);
    while (!stopping) {
        uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);

        idle_ticks = tick(self, now_ns - last_ns) ? 0 : idle_ticks + 1;
        last_ns = now_ns;
        pthread_mutex_unlock(&purge_lock);
        if (idle_ticks >= IDLE_TICKS && may_sleep(self)) {
            while (!stopping && bop__mem_gate_of_new_threads() & BOP__GATE_WAKE) {
                pthread_cond_wait(&wake, &bop__mem_lock);
            }
            idle_ticks = 0;
        }
        sleep_until(last_ns + TICK_NS);
        /* In the order of the locks. */
        pthread_mutex_unlock(&bop__mem_lock);
        pthread_mutex_lock(&purge_lock);
        pthread_mutex_lock(&bop__mem_lock);
    }
    bop__mem_gate_none(BOP__GATE_WAKE);
    pthread_mutex_unlock(&bop__mem_lock);
    pthread_mutex_unlock(&purge_lock);
    return NULL;
}

/* Returns 0 or -errno. */
static int create_purger(void)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = -pthread_create(&purger, NULL, purger_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) {
        BOP_IGNORE(pthread_setname_np(purger, "bop-purge"));
    }
    return rc;
}

int bop_mem_purge_start(void)
{
    int rc = 0;

    /* That its heap has a record, and the process knows whose malloc() it uses. */
    BOP_IGNORE(bop__mem_thread());
    pthread_mutex_lock(&start_lock);
    if (!running && !bop__mem_foreign) {
        stopping = false;
        rc = create_purger();
        running = rc == 0;
    }
    pthread_mutex_unlock(&start_lock);
    return rc;
}

void bop_mem_purge_stop(void)
{
    pthread_mutex_lock(&start_lock);
    if (running) {
        pthread_mutex_lock(&bop__mem_lock);
        stopping = true;
        pthread_cond_signal(&wake);
        pthread_mutex_unlock(&bop__mem_lock);
        pthread_join(purger, NULL);
        running = false;
    }
    pthread_mutex_unlock(&start_lock);
}

/* -- Starting by itself ------------------------------------------------------------------------ */

/* Without allocating. 0 if it cannot be told. What getrusage() tells is the most it ever was, and
 * of programs that the process ran before too. */
static uint64_t resident_bytes(void)
{
    char text[64];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    char *end;

    if (fd >= 0) {
        close(fd);
    }
    if (length <= 0) {
        return 0;
    }
    text[length] = '\0';
    strtoull(text, &end, 10); /* The size of the address space. */
    return strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

void bop__purge_start_from(uint64_t bytes)
{
    atomic_store_explicit(&start_from, bytes, memory_order_relaxed);
}

void bop__purge_look(struct bop__mem_door *door)
{
    uint64_t from = atomic_load_explicit(&start_from, memory_order_relaxed);
    bool is_first = door->looks_step == 0;
    int saved;

    door->looks_step = is_first ? LOOK_CALLS_LEAST
                                : (uint32_t)bop_min_u64(door->looks_step * 2, LOOK_CALLS_MOST);
    door->looks_in = door->looks_step;
    if (is_first || from == 0 || bop__mem_is_direct(bop__mem_self)) {
        return;
    }
    saved = errno;
    /* Whoever takes it starts: what starting allocates may come here again. */
    if (resident_bytes() >= from &&
        atomic_compare_exchange_strong_explicit(&start_from, &from, 0, memory_order_relaxed,
                                                memory_order_relaxed)) {
        /* Without a purger the process works as well. */
        BOP_IGNORE(bop_mem_purge_start());
    }
    errno = saved;
}

/* -- fork() ------------------------------------------------------------------------------------ */

void bop__purge_fork_prepare(void)
{
    pthread_mutex_lock(&start_lock);
    pthread_mutex_lock(&purge_lock);
}

void bop__purge_fork_parent(void)
{
    pthread_mutex_unlock(&purge_lock);
    pthread_mutex_unlock(&start_lock);
}

/* Under bop__mem_lock still. Waiters did not come along. */
void bop__purge_fork_child(void)
{
    gate_opened = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    wake = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    bop__mem_gate_none(BOP__GATE_WAKE | BOP__GATE_COLLECT);
    if (running) {
        running = false;
        atomic_store_explicit(&child_calls, 0, memory_order_relaxed);
        bop__mem_gate_all(BOP__GATE_START);
    }
    pthread_mutex_unlock(&purge_lock);
    pthread_mutex_unlock(&start_lock);
}
