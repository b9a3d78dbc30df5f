/*
 * The catalogue of local segment files.
 */
#include "catalogue.h"

#include <errno.h>
#include <time.h>

#include "internal.h"

/* ---- Files ---- */

struct bop__segment_file *bop__segment_file_new(struct bop_allocator *allocator, const char *dir)
{
    size_t path_size = strlen(dir) + 1 + BOP__AOF_NAME_SIZE;
    struct bop__segment_file *file = bop_alloc_zeroed(allocator, sizeof(*file) + path_size);

    if (file) {
        file->allocator = allocator;
        file->path_size = path_size;
        atomic_init(&file->references, 1);
    }
    return file;
}

void bop__segment_file_init(struct bop__segment_file *file,
                            const struct bop__aof_segment_header *header, const char *dir)
{
    char name[BOP__AOF_NAME_SIZE];

    file->header = *header;
    file->salt = bop__aof_salt(header->seed, header->base, header->generation);
    file->aligned = (header->flags & BOP__AOF_FLAG_ALIGNED) != 0;
    file->end_seq = header->base;
    file->end = BOP__AOF_SEGMENT_HEADER;
    bop__aof_segment_name(header->base, header->generation, name);
    BOP_IGNORE(snprintf(file->path, file->path_size, "%s/%s", dir, name));
}

struct bop__segment_file *bop__segment_file_ref(struct bop__segment_file *file)
{
    atomic_fetch_add_explicit(&file->references, 1, memory_order_relaxed);
    return file;
}

void bop__segment_file_unref(struct bop__segment_file *file)
{
    if (file && atomic_fetch_sub_explicit(&file->references, 1, memory_order_acq_rel) == 1) {
        bop_free(file->allocator, file, sizeof(*file) + file->path_size);
    }
}

/* ---- Under the lock ---- */

static void lock(struct bop__aof_catalogue *catalogue)
{
    pthread_mutex_lock(&catalogue->lock);
}

static void unlock(struct bop__aof_catalogue *catalogue)
{
    pthread_mutex_unlock(&catalogue->lock);
}

/* Something changed: whoever waits looks again. */
static void unlock_changed(struct bop__aof_catalogue *catalogue)
{
    catalogue->state.changes++;
    if (catalogue->waiters > 0) {
        pthread_cond_broadcast(&catalogue->changed);
    }
    unlock(catalogue);
}

static const struct bop__watermark *watermark(const struct bop__aof_catalogue *catalogue,
                                              enum bop_aof_level level)
{
    return level == BOP_AOF_OS ? &catalogue->os : &catalogue->durable;
}

/* The file with the highest base at or below seq; count if there is none. */
static size_t place_of(const struct bop__aof_catalogue *catalogue, uint64_t seq)
{
    size_t low = 0;
    size_t high = catalogue->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (catalogue->files[middle]->header.base <= seq) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0 ? low - 1 : catalogue->count;
}

static void take_view(const struct bop__aof_catalogue *catalogue, enum bop_aof_level level,
                      struct bop__segment_file *file, struct bop__file_view *out_view)
{
    const struct bop__watermark *visible = watermark(catalogue, level);

    *out_view = (struct bop__file_view){
        .file = bop__segment_file_ref(file),
        .end_seq = file->header.base,
        .end = BOP__AOF_SEGMENT_HEADER,
        .sealed = file->sealed,
        .facts = file->facts,
        .truncations = catalogue->state.truncations,
    };
    if (!file->newest && visible->seq + 1 >= file->end_seq) {
        out_view->end_seq = file->end_seq;
        out_view->end = file->end;
        out_view->whole = true;
    } else if (visible->seq >= file->header.base) {
        out_view->end_seq = visible->seq + 1;
        out_view->end = visible->end;
    }
}

/* ---- Readers ---- */

struct bop__catalogue_state bop__aof_catalogue_state(struct bop__aof_catalogue *catalogue,
                                                     enum bop_aof_level level)
{
    struct bop__catalogue_state state;

    lock(catalogue);
    state = catalogue->state;
    state.files = catalogue->count;
    state.first = catalogue->count > 0 ? catalogue->files[0]->header.base : state.oldest;
    state.oldest = bop_min_u64(state.oldest, state.first);
    state.visible = watermark(catalogue, level)->seq;
    unlock(catalogue);
    return state;
}

int bop__aof_catalogue_find(struct bop__aof_catalogue *catalogue, enum bop_aof_level level,
                            uint64_t seq, struct bop__file_view *out_view)
{
    int rc = BOP_ENOTFOUND;
    size_t at;

    lock(catalogue);
    at = place_of(catalogue, seq);
    if (seq > watermark(catalogue, level)->seq) {
        rc = BOP_EEND;
    } else if (at < catalogue->count) {
        take_view(catalogue, level, catalogue->files[at], out_view);
        rc = 0;
    }
    unlock(catalogue);
    return rc;
}

bool bop__aof_catalogue_nth(struct bop__aof_catalogue *catalogue, enum bop_aof_level level,
                            size_t n, struct bop__file_view *out_view)
{
    bool there;

    lock(catalogue);
    there = n < catalogue->count;
    if (there) {
        take_view(catalogue, level, catalogue->files[n], out_view);
    }
    unlock(catalogue);
    return there;
}

bool bop__aof_catalogue_generation(struct bop__aof_catalogue *catalogue, enum bop_aof_level level,
                                   uint64_t generation, struct bop__file_view *out_view)
{
    size_t low = 0;
    size_t high;
    bool there = false;

    lock(catalogue);
    high = catalogue->count; /* Generations rise with the bases. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (catalogue->files[middle]->header.generation < generation) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < catalogue->count && catalogue->files[low]->header.generation == generation) {
        take_view(catalogue, level, catalogue->files[low], out_view);
        there = true;
    }
    unlock(catalogue);
    return there;
}

static struct timespec deadline_in(int timeout_ms)
{
    struct timespec at;

    BOP_IGNORE(clock_gettime(CLOCK_MONOTONIC, &at)); /* Fails for a bad clock only. */
    at.tv_sec += timeout_ms / 1000;
    at.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

bool bop__aof_catalogue_wait(struct bop__aof_catalogue *catalogue, uint64_t seen, int timeout_ms)
{
    struct timespec deadline = deadline_in(timeout_ms > 0 ? timeout_ms : 0);
    bool changed;
    int rc = 0;

    lock(catalogue);
    catalogue->waiters++;
    while (catalogue->state.changes == seen && rc != ETIMEDOUT) {
        rc = timeout_ms < 0
                 ? pthread_cond_wait(&catalogue->changed, &catalogue->lock)
                 : pthread_cond_timedwait(&catalogue->changed, &catalogue->lock, &deadline);
    }
    catalogue->waiters--;
    changed = catalogue->state.changes != seen;
    unlock(catalogue);
    return changed;
}

/* ---- The owner ---- */

int bop__aof_catalogue_init(struct bop__aof_catalogue *catalogue, struct bop_allocator *allocator)
{
    pthread_condattr_t attributes;
    int rc;

    *catalogue = (struct bop__aof_catalogue){.allocator = allocator};
    rc = pthread_condattr_init(&attributes);
    if (rc != 0) {
        return -rc;
    }
    rc = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (rc == 0) {
        rc = pthread_cond_init(&catalogue->changed, &attributes);
    }
    pthread_condattr_destroy(&attributes);
    if (rc != 0) {
        return -rc;
    }
    rc = pthread_mutex_init(&catalogue->lock, NULL);
    if (rc != 0) {
        pthread_cond_destroy(&catalogue->changed);
        return -rc;
    }
    catalogue->made = true;
    return 0;
}

void bop__aof_catalogue_deinit(struct bop__aof_catalogue *catalogue)
{
    if (!catalogue->made) {
        return;
    }
    for (size_t i = 0; i < catalogue->count; i++) {
        bop__segment_file_unref(catalogue->files[i]);
    }
    bop_free(catalogue->allocator, catalogue->files,
             catalogue->capacity * sizeof(*catalogue->files));
    pthread_cond_destroy(&catalogue->changed);
    pthread_mutex_destroy(&catalogue->lock);
    catalogue->made = false;
}

int bop__aof_catalogue_reserve(struct bop__aof_catalogue *catalogue, size_t more)
{
    /* Only the owner changes what is looked at here; files is changed under the lock. */
    size_t wanted = catalogue->count + more;
    size_t capacity = bop_max_u64(wanted, catalogue->capacity * 2);
    struct bop__segment_file **files, **old = catalogue->files;

    if (wanted <= catalogue->capacity) {
        return 0;
    }
    files = bop_alloc(catalogue->allocator, capacity * sizeof(*files));
    if (!files) {
        return BOP_ENOMEM;
    }
    lock(catalogue);
    if (catalogue->count > 0) {
        memcpy(files, old, catalogue->count * sizeof(*files));
    }
    catalogue->files = files;
    unlock(catalogue);
    bop_free(catalogue->allocator, old, catalogue->capacity * sizeof(*files));
    catalogue->capacity = capacity;
    return 0;
}

void bop__aof_catalogue_add(struct bop__aof_catalogue *catalogue, struct bop__segment_file *file)
{
    lock(catalogue);
    while (catalogue->count > 0 &&
           catalogue->files[catalogue->count - 1]->header.base >= file->header.base) {
        catalogue->count--;
        bop__segment_file_unref(catalogue->files[catalogue->count]);
    }
    if (catalogue->count > 0) {
        catalogue->files[catalogue->count - 1]->newest = false;
    }
    BOP_ASSERT(catalogue->count < catalogue->capacity);
    file->newest = true;
    catalogue->files[catalogue->count++] = bop__segment_file_ref(file);
    unlock_changed(catalogue);
}

void bop__aof_catalogue_end(struct bop__aof_catalogue *catalogue, struct bop__segment_file *file,
                            uint64_t end_seq, uint64_t end)
{
    lock(catalogue);
    file->newest = false;
    file->end_seq = end_seq;
    file->end = end;
    unlock(catalogue);
}

void bop__aof_catalogue_drop(struct bop__aof_catalogue *catalogue, struct bop__segment_file *file)
{
    lock(catalogue);
    for (size_t i = 0; i < catalogue->count; i++) {
        if (catalogue->files[i] == file) {
            memmove(&catalogue->files[i], &catalogue->files[i + 1],
                    (catalogue->count - i - 1) * sizeof(*catalogue->files));
            catalogue->count--;
            bop__segment_file_unref(file);
            break;
        }
    }
    unlock_changed(catalogue);
}

void bop__aof_catalogue_sealed(struct bop__aof_catalogue *catalogue, struct bop__segment_file *file,
                               const struct bop__segment_facts *facts, bool counts)
{
    lock(catalogue);
    file->sealed = true;
    file->facts = *facts;
    catalogue->state.sealed += counts ? 1 : 0;
    unlock_changed(catalogue);
}

void bop__aof_catalogue_publish(struct bop__aof_catalogue *catalogue, struct bop__watermark os,
                                struct bop__watermark durable)
{
    lock(catalogue);
    catalogue->os = os;
    catalogue->durable = durable;
    unlock_changed(catalogue);
}

static void clip(struct bop__watermark *visible, uint64_t last_kept, uint64_t end)
{
    if (visible->seq > last_kept) {
        *visible = (struct bop__watermark){.seq = last_kept, .end = end};
    }
}

void bop__aof_catalogue_truncate(struct bop__aof_catalogue *catalogue, uint64_t last_kept,
                                 uint64_t end)
{
    size_t at;

    lock(catalogue);
    clip(&catalogue->os, last_kept, end);
    clip(&catalogue->durable, last_kept, end);
    at = place_of(catalogue, last_kept);
    if (at < catalogue->count &&
        (catalogue->files[at]->newest || catalogue->files[at]->end_seq > last_kept + 1)) {
        catalogue->files[at]->newest = false;
        catalogue->files[at]->end_seq = last_kept + 1;
        catalogue->files[at]->end = end;
    }
    catalogue->state.truncations++;
    /* Release: who sees it sees, under the lock, what it is about. */
    atomic_store_explicit(&catalogue->atomic_truncations, catalogue->state.truncations,
                          memory_order_release);
    unlock_changed(catalogue);
}

void bop__aof_catalogue_oldest(struct bop__aof_catalogue *catalogue, uint64_t oldest)
{
    lock(catalogue);
    catalogue->state.oldest = oldest;
    unlock_changed(catalogue);
}

void bop__aof_catalogue_hydrated(struct bop__aof_catalogue *catalogue)
{
    lock(catalogue);
    catalogue->state.hydrations++;
    unlock_changed(catalogue);
}

void bop__aof_catalogue_close(struct bop__aof_catalogue *catalogue)
{
    lock(catalogue);
    catalogue->state.closed = true;
    unlock_changed(catalogue);
}
