/*
 * Objects are kept in an array sorted by key, uploads in a list. The lock is
 * not held while callbacks run, so that they may call the store.
 */
#include "object_store_memory.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#define PART_BYTES_DEFAULT 1048576
#define NOW_DEFAULT        1000000000

struct object {
    char *key;
    uint8_t *bytes; /* NULL when size is 0. */
    size_t size;
    uint8_t sha256[32];
    bool sha256_known;
    uint64_t modified_s;
};

struct objects {
    struct object **items; /* Sorted by key. */
    size_t count;
    size_t capacity;
};

struct upload {
    struct upload *next;
    char id[32];
    char *key;
    struct bop_buf received;
};

/* Counts down to 0, the call it is for; below, it is off. */
struct countdown {
    int64_t left;
};

struct object_memory {
    struct bop_object_store store; /* First: this is what is handed out. */
    struct bop_allocator *allocator;
    pthread_mutex_t lock;
    pthread_cond_t changed;

    struct objects objects;
    struct objects stale; /* What lists show while stale_on; content is left out. */
    bool stale_on;
    struct upload *uploads;
    uint64_t upload_last;
    uint64_t part_bytes;
    uint64_t now_s;

    enum object_memory_call fail_call;
    struct countdown fail;
    int fail_code;
    enum object_memory_failure fail_how;
    int outage;
    struct bop_faults *faults;
    struct countdown corrupt;
    struct countdown cut;
    bool hold;
    unsigned held;
    bool canceled;

    uint64_t calls[OBJECT_MEMORY_CALLS];
    uint64_t bytes_put;
    uint64_t bytes_got;
};

/* What is to happen to a call. */
struct verdict {
    int code; /* 0: nothing. */
    enum object_memory_failure how;
};

static struct object_memory *memory_of(struct bop_object_store *self)
{
    return BOP_CONTAINER_OF(self, struct object_memory, store);
}

static bool due(struct countdown *countdown)
{
    return countdown->left > 0 && --countdown->left == 0;
}

/* ---- Objects ---- */

static void *copy(struct bop_allocator *allocator, const void *bytes, size_t size)
{
    void *memory = bop_alloc(allocator, size);

    if (memory) {
        memcpy(memory, bytes, size);
    }
    return memory;
}

static void object_free(struct object_memory *memory, struct object *object)
{
    if (!object) {
        return;
    }
    if (object->key) {
        bop_free(memory->allocator, object->key, strlen(object->key) + 1);
    }
    if (object->bytes) {
        bop_free(memory->allocator, object->bytes, object->size);
    }
    bop_free(memory->allocator, object, sizeof(*object));
}

static struct object *object_new(struct object_memory *memory, const char *key,
                                 struct bop_slice content)
{
    struct object *object = bop_alloc_zeroed(memory->allocator, sizeof(*object));

    if (!object) {
        return NULL;
    }
    object->size = content.size;
    object->modified_s = memory->now_s;
    object->key = copy(memory->allocator, key, strlen(key) + 1);
    if (content.data && content.size > 0) {
        object->bytes = copy(memory->allocator, content.data, content.size);
    }
    if (!object->key || (content.data && content.size > 0 && !object->bytes)) {
        object_free(memory, object);
        return NULL;
    }
    return object;
}

/* The index of the first object whose key is not below key, or the count. */
static size_t lower_bound(const struct objects *objects, const char *key)
{
    size_t low = 0, high = objects->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(objects->items[middle]->key, key) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct object *find(const struct objects *objects, const char *key)
{
    size_t at = lower_bound(objects, key);

    return at < objects->count && strcmp(objects->items[at]->key, key) == 0 ? objects->items[at]
                                                                            : NULL;
}

static int make_room(struct object_memory *memory, struct objects *objects)
{
    size_t capacity = objects->capacity ? objects->capacity * 2 : 8;
    void *items;

    if (objects->count < objects->capacity) {
        return 0;
    }
    items = bop_realloc(memory->allocator, objects->items,
                        objects->capacity * sizeof(struct object *),
                        capacity * sizeof(struct object *));
    if (!items) {
        return BOP_ENOMEM;
    }
    objects->items = items;
    objects->capacity = capacity;
    return 0;
}

/* Takes the object over, on failure too. */
static int insert(struct object_memory *memory, struct objects *objects, struct object *object)
{
    size_t at;

    if (!object || make_room(memory, objects) < 0) {
        object_free(memory, object);
        return BOP_ENOMEM;
    }
    at = lower_bound(objects, object->key);
    if (at < objects->count && strcmp(objects->items[at]->key, object->key) == 0) {
        object_free(memory, objects->items[at]);
    } else {
        memmove(objects->items + at + 1, objects->items + at,
                (objects->count - at) * sizeof(struct object *));
        objects->count++;
    }
    objects->items[at] = object;
    return 0;
}

static void objects_clear(struct object_memory *memory, struct objects *objects)
{
    for (size_t i = 0; i < objects->count; i++) {
        object_free(memory, objects->items[i]);
    }
    if (objects->items) {
        bop_free(memory->allocator, objects->items, objects->capacity * sizeof(struct object *));
    }
    *objects = (struct objects){0};
}

static void info_of(const struct object *object, struct bop_object_info *out_info)
{
    *out_info = (struct bop_object_info){.size = object->size, .modified_s = object->modified_s};
    for (size_t i = 0; i < 8; i++) {
        snprintf(out_info->etag + 2 * i, 3, "%02x", object->sha256[i]);
    }
    out_info->sha256_known = object->sha256_known;
    if (object->sha256_known) {
        memcpy(out_info->sha256, object->sha256, sizeof(out_info->sha256));
    }
}

/* ---- What happens to a call ---- */

/* Count a call, wait while the store is held, and say what is to become of it. Locked. */
static struct verdict admit(struct object_memory *memory, enum object_memory_call call)
{
    int code;

    memory->calls[OBJECT_MEMORY_ANY]++;
    memory->calls[call]++;
    memory->held++;
    pthread_cond_broadcast(&memory->changed);
    while (memory->hold && !memory->canceled) {
        pthread_cond_wait(&memory->changed, &memory->lock);
    }
    memory->held--;
    if (memory->canceled) {
        return (struct verdict){.code = BOP_ECANCELED};
    }
    if (memory->outage) {
        return (struct verdict){.code = memory->outage};
    }
    if ((memory->fail_call == OBJECT_MEMORY_ANY || memory->fail_call == call) &&
        due(&memory->fail)) {
        return (struct verdict){.code = memory->fail_code, .how = memory->fail_how};
    }
    code = bop_faults_step(memory->faults, BOP_EIO);
    return (struct verdict){.code = code};
}

static int refused(struct bop_error *err, int code, const char *verb, const char *key)
{
    return bop_error_set(err, code, "%s object %s", verb, key);
}

static int check_key(struct bop_error *err, const char *verb, const char *key)
{
    if (!key || !key[0] || strlen(key) > BOP_OBJECT_KEY_MAX ||
        !bop_slice_is_utf8(bop_slice_cstr(key))) {
        return bop_error_set(err, BOP_EINVAL, "%s object %s", verb, key ? key : "(none)");
    }
    return 0;
}

/* ---- put ---- */

static int read_content(const struct bop_object_source *source, struct bop_buf *out)
{
    int rc;

    if (source->size == 0) {
        return 0;
    }
    rc = bop_buf_reserve(out, (size_t)source->size);
    if (rc < 0) {
        return rc;
    }
    if (source->fs) {
        rc = bop_fs_read_exact(source->fs, source->fd, out->data, (size_t)source->size,
                               source->offset);
    } else {
        memcpy(out->data, (const uint8_t *)source->bytes + source->offset, (size_t)source->size);
    }
    if (rc == 0) {
        out->size = (size_t)source->size;
    }
    return rc;
}

static int check_digest(const struct bop_object_put *put, struct bop_slice content)
{
    uint8_t digest[32];

    if (EVP_Digest(content.data, content.size, digest, NULL, EVP_sha256(), NULL) != 1) {
        return BOP_ENOMEM;
    }
    return memcmp(digest, put->sha256, sizeof(digest)) == 0 ? 0 : BOP_ECORRUPT;
}

static void upload_free(struct object_memory *memory, struct upload *upload)
{
    bop_buf_deinit(&upload->received);
    bop_free(memory->allocator, upload->key, strlen(upload->key) + 1);
    bop_free(memory->allocator, upload, sizeof(*upload));
}

static struct upload *upload_find(struct object_memory *memory, const char *id, const char *key)
{
    for (struct upload *upload = memory->uploads; upload; upload = upload->next) {
        if (strcmp(upload->id, id) == 0 && strcmp(upload->key, key) == 0) {
            return upload;
        }
    }
    return NULL;
}

static void upload_remove(struct object_memory *memory, struct upload *upload)
{
    for (struct upload **at = &memory->uploads; *at; at = &(*at)->next) {
        if (*at == upload) {
            *at = upload->next;
            upload_free(memory, upload);
            return;
        }
    }
}

static struct upload *upload_begin(struct object_memory *memory, const char *key)
{
    struct upload *upload = bop_alloc_zeroed(memory->allocator, sizeof(*upload));

    if (!upload) {
        return NULL;
    }
    upload->key = copy(memory->allocator, key, strlen(key) + 1);
    if (!upload->key) {
        bop_free(memory->allocator, upload, sizeof(*upload));
        return NULL;
    }
    bop_buf_init(&upload->received, memory->allocator, 0);
    snprintf(upload->id, sizeof(upload->id), "upload-%llu",
             (unsigned long long)++memory->upload_last);
    upload->next = memory->uploads;
    memory->uploads = upload;
    return upload;
}

static void tell_upload(struct bop_object_put *put, const char *id)
{
    snprintf(put->upload_id, sizeof(put->upload_id), "%s", id);
    if (put->on_upload_id) {
        put->on_upload_id(put->user, id);
    }
}

static void tell_progress(struct bop_object_put *put, uint64_t bytes)
{
    if (put->on_progress) {
        put->on_progress(put->user, bytes);
    }
}

/* Send the parts that an upload lacks, or one of them only. Locked, and unlocked for callbacks. */
static int put_parts(struct object_memory *memory, struct bop_object_put *put,
                     struct bop_slice content, bool one_only)
{
    struct upload *upload = upload_find(memory, put->upload_id, put->key);
    char id[sizeof(upload->id)];
    int rc = 0;

    if (!upload) {
        upload = upload_begin(memory, put->key);
    }
    if (!upload) {
        return BOP_ENOMEM;
    }
    memcpy(id, upload->id, sizeof(id));
    pthread_mutex_unlock(&memory->lock);
    tell_upload(put, id);
    pthread_mutex_lock(&memory->lock);

    while ((upload = upload_find(memory, id, put->key)) && upload->received.size < content.size) {
        size_t at = upload->received.size;
        size_t part = content.size - at;

        part = part < memory->part_bytes ? part : (size_t)memory->part_bytes;
        rc = memory->canceled ? BOP_ECANCELED
                              : bop_buf_append(&upload->received, content.data + at, part);
        if (rc < 0) {
            return rc;
        }
        memory->bytes_put += part;
        pthread_mutex_unlock(&memory->lock);
        tell_progress(put, at + part);
        pthread_mutex_lock(&memory->lock);
        if (one_only) {
            return 0;
        }
    }
    return upload ? 0 : BOP_ENOTFOUND; /* Somebody else finished it meanwhile. */
}

/* Make the object of content that has all been sent. Locked. */
static int put_object(struct object_memory *memory, const struct bop_object_put *put,
                      struct bop_slice content, struct bop_object_info *out_info)
{
    struct object *object = object_new(memory, put->key, content);
    int rc;

    if (!object) {
        return BOP_ENOMEM;
    }
    memcpy(object->sha256, put->sha256, sizeof(object->sha256));
    object->sha256_known = true;
    rc = insert(memory, &memory->objects, object);
    if (rc == 0 && out_info) {
        info_of(object, out_info);
    }
    return rc;
}

/* As put, admitted already. Locked. */
static int put_content(struct object_memory *memory, struct bop_object_put *put,
                       struct bop_slice content, const struct verdict *verdict,
                       struct bop_object_info *out_info)
{
    bool in_parts = content.size > memory->part_bytes;
    bool refuse = verdict->code != 0 && verdict->how == OBJECT_MEMORY_REFUSE;
    const struct object *there = find(&memory->objects, put->key);
    struct upload *upload;
    int rc = 0;

    if (there && there->size == content.size && there->sha256_known &&
        memcmp(there->sha256, put->sha256, sizeof(put->sha256)) == 0) {
        if (out_info && verdict->code == 0) {
            info_of(there, out_info);
        }
        return verdict->code;
    }
    if (there && put->only_new && verdict->code == 0) {
        return BOP_ECONDITION;
    }
    if (in_parts) {
        rc = put_parts(memory, put, content, refuse);
    } else if (!refuse) {
        memory->bytes_put += content.size;
    }
    if (rc < 0 || refuse) {
        return rc < 0 ? rc : verdict->code;
    }
    rc = put_object(memory, put, content, out_info);
    upload = upload_find(memory, put->upload_id, put->key);
    if (rc == 0 && in_parts && upload) {
        upload_remove(memory, upload);
    }
    return rc < 0 ? rc : verdict->code;
}

static int memory_put(struct bop_object_store *self, struct bop_object_put *put,
                      struct bop_object_info *out_info, struct bop_error *err)
{
    struct object_memory *memory = memory_of(self);
    struct bop_object_info info = {0};
    struct verdict verdict;
    struct bop_buf content;
    int rc = check_key(err, "put", put->key);

    if (rc < 0) {
        return rc;
    }
    bop_buf_init(&content, memory->allocator, 0);
    pthread_mutex_lock(&memory->lock);
    verdict = admit(memory, OBJECT_MEMORY_PUT);
    pthread_mutex_unlock(&memory->lock);
    rc = verdict.code == BOP_ECANCELED ? BOP_ECANCELED : read_content(&put->source, &content);
    if (rc == 0) {
        rc = check_digest(put, bop_buf_slice(&content));
    }
    if (rc == 0) {
        pthread_mutex_lock(&memory->lock);
        rc = put_content(memory, put, bop_buf_slice(&content), &verdict, &info);
        pthread_mutex_unlock(&memory->lock);
    }
    bop_buf_deinit(&content);
    if (rc < 0) {
        return refused(err, rc, "put", put->key);
    }
    tell_progress(put, put->source.size);
    if (put->upload_id[0]) {
        tell_upload(put, "");
    }
    if (out_info) {
        *out_info = info;
    }
    return 0;
}

/* ---- get, head, remove ---- */

/* The bytes asked for of an object that is there. Locked. */
static int get_content(struct object_memory *memory, const struct object *object, uint64_t offset,
                       uint64_t size, struct bop_buf *out)
{
    size_t before = out->size;
    int rc;

    if (due(&memory->cut)) {
        size = object->size > offset && size > (object->size - offset) ? object->size - offset
                                                                       : size;
        size /= 2;
    }
    if (offset >= object->size || size == 0) {
        return 0;
    }
    if (size > object->size - offset) {
        size = object->size - offset;
    }
    rc = bop_buf_append(out, object->bytes + offset, (size_t)size);
    if (rc < 0) {
        return rc == BOP_EFULL ? BOP_ETOOBIG : rc;
    }
    if (due(&memory->corrupt)) {
        out->data[before + (out->size - before) / 2] ^= 1;
    }
    memory->bytes_got += size;
    return 0;
}

static int memory_get(struct bop_object_store *self, const char *key, uint64_t offset,
                      uint64_t size, struct bop_buf *out, struct bop_error *err)
{
    struct object_memory *memory = memory_of(self);
    const struct object *object;
    struct verdict verdict;
    size_t before = out->size;
    int rc = check_key(err, "get", key);

    if (rc < 0) {
        return rc;
    }
    pthread_mutex_lock(&memory->lock);
    verdict = admit(memory, OBJECT_MEMORY_GET);
    object = find(&memory->objects, key);
    rc = verdict.code;
    if (rc == 0) {
        rc = object ? get_content(memory, object, offset, size, out) : BOP_ENOTFOUND;
    }
    pthread_mutex_unlock(&memory->lock);
    if (rc < 0) {
        out->size = before;
        return refused(err, rc, "get", key);
    }
    return 0;
}

static int memory_head(struct bop_object_store *self, const char *key,
                       struct bop_object_info *out_info, struct bop_error *err)
{
    struct object_memory *memory = memory_of(self);
    const struct object *object;
    struct verdict verdict;
    int rc = check_key(err, "head", key);

    if (rc < 0) {
        return rc;
    }
    pthread_mutex_lock(&memory->lock);
    verdict = admit(memory, OBJECT_MEMORY_HEAD);
    object = find(&memory->objects, key);
    rc = verdict.code;
    if (rc == 0 && !object) {
        rc = BOP_ENOTFOUND;
    }
    if (rc == 0) {
        info_of(object, out_info);
    }
    pthread_mutex_unlock(&memory->lock);
    return rc < 0 ? refused(err, rc, "head", key) : 0;
}

static int memory_remove(struct bop_object_store *self, const char *key, struct bop_error *err)
{
    struct object_memory *memory = memory_of(self);
    struct objects *objects = &memory->objects;
    struct verdict verdict;
    size_t at;
    int rc = check_key(err, "remove", key);

    if (rc < 0) {
        return rc;
    }
    pthread_mutex_lock(&memory->lock);
    verdict = admit(memory, OBJECT_MEMORY_REMOVE);
    rc = verdict.code;
    at = lower_bound(objects, key);
    if ((rc == 0 || verdict.how == OBJECT_MEMORY_LOSE_ANSWER) && find(objects, key)) {
        object_free(memory, objects->items[at]);
        objects->count--;
        memmove(objects->items + at, objects->items + at + 1,
                (objects->count - at) * sizeof(struct object *));
    }
    pthread_mutex_unlock(&memory->lock);
    return rc < 0 ? refused(err, rc, "remove", key) : 0;
}

/* ---- list ---- */

/* Copy the first key at or, if `past`, after *key that has the prefix. False: there is none. */
static bool next_key(struct object_memory *memory, const char *prefix, bool past,
                     char key[BOP_OBJECT_KEY_MAX + 1], struct bop_object_info *out_info)
{
    const struct objects *objects = memory->stale_on ? &memory->stale : &memory->objects;
    size_t at = lower_bound(objects, key);
    const struct object *object;

    if (past && at < objects->count && strcmp(objects->items[at]->key, key) == 0) {
        at++;
    }
    if (at >= objects->count || strncmp(objects->items[at]->key, prefix, strlen(prefix)) != 0) {
        return false;
    }
    object = objects->items[at];
    snprintf(key, BOP_OBJECT_KEY_MAX + 1, "%s", object->key);
    info_of(object, out_info);
    out_info->sha256_known = false;
    memset(out_info->sha256, 0, sizeof(out_info->sha256));
    return true;
}

static int memory_list(struct bop_object_store *self, const char *prefix,
                       int (*fn)(void *user, const char *key, const struct bop_object_info *info),
                       void *user, struct bop_error *err)
{
    struct object_memory *memory = memory_of(self);
    char key[BOP_OBJECT_KEY_MAX + 1] = "";
    struct bop_object_info info;
    struct verdict verdict;
    bool past = false;
    int rc;

    prefix = prefix ? prefix : "";
    if (strlen(prefix) > BOP_OBJECT_KEY_MAX) {
        return refused(err, BOP_EINVAL, "list", prefix);
    }
    snprintf(key, sizeof(key), "%s", prefix);
    pthread_mutex_lock(&memory->lock);
    verdict = admit(memory, OBJECT_MEMORY_LIST);
    rc = verdict.code;
    while (rc == 0 && next_key(memory, prefix, past, key, &info)) {
        past = true;
        pthread_mutex_unlock(&memory->lock);
        rc = fn(user, key, &info);
        if (rc != 0) {
            return rc;
        }
        pthread_mutex_lock(&memory->lock);
        rc = memory->canceled ? BOP_ECANCELED : 0;
    }
    pthread_mutex_unlock(&memory->lock);
    return rc < 0 ? refused(err, rc, "list", prefix) : 0;
}

static void memory_cancel(struct bop_object_store *self)
{
    struct object_memory *memory = memory_of(self);

    pthread_mutex_lock(&memory->lock);
    memory->canceled = true;
    pthread_cond_broadcast(&memory->changed);
    pthread_mutex_unlock(&memory->lock);
}

static void memory_destroy(struct bop_object_store *self)
{
    object_memory_destroy(self ? memory_of(self) : NULL);
}

/* ---- Life ---- */

struct object_memory *object_memory_create(struct bop_allocator *allocator)
{
    struct object_memory *memory;

    allocator = bop_allocator_or_default(allocator);
    memory = bop_alloc_zeroed(allocator, sizeof(*memory));
    if (!memory) {
        return NULL;
    }
    memory->allocator = allocator;
    memory->part_bytes = PART_BYTES_DEFAULT;
    memory->now_s = NOW_DEFAULT;
    pthread_mutex_init(&memory->lock, NULL);
    pthread_cond_init(&memory->changed, NULL);
    memory->store = (struct bop_object_store){
        .put = memory_put,
        .get = memory_get,
        .head = memory_head,
        .remove = memory_remove,
        .list = memory_list,
        .cancel = memory_cancel,
        .destroy = memory_destroy,
    };
    return memory;
}

void object_memory_destroy(struct object_memory *memory)
{
    if (!memory) {
        return;
    }
    while (memory->uploads) {
        upload_remove(memory, memory->uploads);
    }
    objects_clear(memory, &memory->objects);
    objects_clear(memory, &memory->stale);
    pthread_cond_destroy(&memory->changed);
    pthread_mutex_destroy(&memory->lock);
    bop_free(memory->allocator, memory, sizeof(*memory));
}

struct bop_object_store *object_memory_store(struct object_memory *memory)
{
    return &memory->store;
}

/* ---- Faults ---- */

void object_memory_fail(struct object_memory *memory, enum object_memory_call call, unsigned n,
                        int code, enum object_memory_failure failure)
{
    pthread_mutex_lock(&memory->lock);
    memory->fail_call = call;
    memory->fail.left = n;
    memory->fail_code = code;
    memory->fail_how = failure;
    pthread_mutex_unlock(&memory->lock);
}

void object_memory_outage(struct object_memory *memory, int code)
{
    pthread_mutex_lock(&memory->lock);
    memory->outage = code;
    pthread_mutex_unlock(&memory->lock);
}

void object_memory_faults(struct object_memory *memory, struct bop_faults *faults)
{
    pthread_mutex_lock(&memory->lock);
    memory->faults = faults;
    pthread_mutex_unlock(&memory->lock);
}

int object_memory_stale_lists(struct object_memory *memory, bool on)
{
    int rc = 0;

    pthread_mutex_lock(&memory->lock);
    objects_clear(memory, &memory->stale);
    for (size_t i = 0; on && rc == 0 && i < memory->objects.count; i++) {
        const struct object *object = memory->objects.items[i];
        struct object *shown = object_new(memory, object->key, bop_slice(NULL, object->size));

        if (shown) {
            shown->modified_s = object->modified_s;
            memcpy(shown->sha256, object->sha256, sizeof(shown->sha256));
        }
        rc = insert(memory, &memory->stale, shown);
    }
    memory->stale_on = on && rc == 0;
    pthread_mutex_unlock(&memory->lock);
    return rc;
}

void object_memory_corrupt_get(struct object_memory *memory, unsigned n)
{
    pthread_mutex_lock(&memory->lock);
    memory->corrupt.left = n;
    pthread_mutex_unlock(&memory->lock);
}

void object_memory_short_get(struct object_memory *memory, unsigned n)
{
    pthread_mutex_lock(&memory->lock);
    memory->cut.left = n;
    pthread_mutex_unlock(&memory->lock);
}

bool object_memory_flip_bit(struct object_memory *memory, const char *key, uint64_t bit)
{
    struct object *object;
    bool done = false;

    pthread_mutex_lock(&memory->lock);
    object = find(&memory->objects, key);
    if (object && bit / 8 < object->size) {
        object->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        done = true;
    }
    pthread_mutex_unlock(&memory->lock);
    return done;
}

void object_memory_hold(struct object_memory *memory, bool on)
{
    pthread_mutex_lock(&memory->lock);
    memory->hold = on;
    pthread_cond_broadcast(&memory->changed);
    pthread_mutex_unlock(&memory->lock);
}

unsigned object_memory_held(struct object_memory *memory)
{
    unsigned held;

    pthread_mutex_lock(&memory->lock);
    held = memory->hold ? memory->held : 0;
    pthread_mutex_unlock(&memory->lock);
    return held;
}

void object_memory_revive(struct object_memory *memory)
{
    pthread_mutex_lock(&memory->lock);
    memory->canceled = false;
    pthread_mutex_unlock(&memory->lock);
}

/* ---- What is there, and what was done ---- */

void object_memory_part_bytes(struct object_memory *memory, uint64_t bytes)
{
    pthread_mutex_lock(&memory->lock);
    memory->part_bytes = bytes ? bytes : PART_BYTES_DEFAULT;
    pthread_mutex_unlock(&memory->lock);
}

void object_memory_now(struct object_memory *memory, uint64_t seconds)
{
    pthread_mutex_lock(&memory->lock);
    memory->now_s = seconds;
    pthread_mutex_unlock(&memory->lock);
}

int object_memory_set(struct object_memory *memory, const char *key, struct bop_slice content)
{
    struct object *object;
    int rc;

    pthread_mutex_lock(&memory->lock);
    object = object_new(memory, key, content);
    if (object) {
        object->sha256_known = EVP_Digest(content.data, content.size, object->sha256, NULL,
                                          EVP_sha256(), NULL) == 1;
    }
    rc = insert(memory, &memory->objects, object);
    pthread_mutex_unlock(&memory->lock);
    return rc;
}

struct bop_slice object_memory_find(struct object_memory *memory, const char *key)
{
    struct bop_slice content = {0};
    const struct object *object;

    pthread_mutex_lock(&memory->lock);
    object = find(&memory->objects, key);
    if (object) {
        /* Not NULL for an object without bytes: it is there. */
        content = bop_slice(object->size ? object->bytes : (const uint8_t *)"", object->size);
    }
    pthread_mutex_unlock(&memory->lock);
    return content;
}

size_t object_memory_count(struct object_memory *memory)
{
    size_t count;

    pthread_mutex_lock(&memory->lock);
    count = memory->objects.count;
    pthread_mutex_unlock(&memory->lock);
    return count;
}

size_t object_memory_uploads(struct object_memory *memory)
{
    size_t count = 0;

    pthread_mutex_lock(&memory->lock);
    for (const struct upload *upload = memory->uploads; upload; upload = upload->next) {
        count++;
    }
    pthread_mutex_unlock(&memory->lock);
    return count;
}

uint64_t object_memory_calls(struct object_memory *memory, enum object_memory_call call)
{
    uint64_t calls;

    pthread_mutex_lock(&memory->lock);
    calls = memory->calls[call];
    pthread_mutex_unlock(&memory->lock);
    return calls;
}

uint64_t object_memory_bytes_put(struct object_memory *memory)
{
    uint64_t total;

    pthread_mutex_lock(&memory->lock);
    total = memory->bytes_put;
    pthread_mutex_unlock(&memory->lock);
    return total;
}

uint64_t object_memory_bytes_got(struct object_memory *memory)
{
    uint64_t total;

    pthread_mutex_lock(&memory->lock);
    total = memory->bytes_got;
    pthread_mutex_unlock(&memory->lock);
    return total;
}
