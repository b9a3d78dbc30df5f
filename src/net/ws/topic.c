/*
 * Branches, topics and subscriptions: the tree of topic.h.
 */
#include "topic.h"

#include <bop/error.h>
#include <bop/mem.h>
#include <bop/random.h>

#include "../socket/burst.h"
#include "conn.h"

#define TABLE_SIZE_MIN 16

/* ---- Topics ---- */

/* Names come from clients, so the seed keeps them from choosing where they fall. */
uint64_t bop__topic_hash(const struct bop_topics *topics, const char *name, size_t size)
{
    uint64_t hash = topics->seed[0] ^ size;

    while (size > 0) {
        uint64_t word = 0;
        size_t part = size < 8 ? size : 8;
        __uint128_t product;

        memcpy(&word, name, part);
        product = (__uint128_t)(hash ^ word) * (topics->seed[1] | 1);
        hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ topics->seed[0];
        name += part;
        size -= part;
    }
    return hash ^ hash >> 32;
}

struct bop__topic *bop__topic_find(const struct bop__branch *branch, uint64_t hash,
                                   const char *name, size_t size)
{
    struct bop__topic *topic = branch->table_size > 0
                                   ? branch->table[hash & (branch->table_size - 1)]
                                   : NULL;

    while (topic != NULL && (topic->hash != hash || topic->name_size != size ||
                             memcmp(topic->name, name, size) != 0)) {
        topic = topic->next;
    }
    return topic;
}

/* Room for one more in the table. Returns 0 or BOP_ENOMEM. */
static int grow_table(struct bop__branch *branch)
{
    size_t size = branch->table_size != 0 ? 2 * branch->table_size : TABLE_SIZE_MIN;
    struct bop__topic **table;

    if (branch->table_count < branch->table_size) {
        return 0;
    }
    table = (struct bop__topic **)bop_alloc_array(branch->topics->allocator, size, sizeof(*table));
    if (table == NULL) {
        return BOP_ENOMEM;
    }
    for (size_t i = 0; i < branch->table_size; i++) {
        struct bop__topic *topic = branch->table[i];

        while (topic != NULL) {
            struct bop__topic *next = topic->next;

            topic->next = table[topic->hash & (size - 1)];
            table[topic->hash & (size - 1)] = topic;
            topic = next;
        }
    }
    bop_free(branch->topics->allocator, branch->table, branch->table_size * sizeof(*table));
    branch->table = table;
    branch->table_size = size;
    return 0;
}

static size_t topic_bytes(size_t name_size)
{
    return sizeof(struct bop__topic) + name_size + 1;
}

/* With tree_lock. NULL: no memory. */
static struct bop__topic *make_topic(struct bop__branch *branch, uint64_t hash, const char *name,
                                     size_t size)
{
    struct bop__topic *topic;

    if (grow_table(branch) != 0) {
        return NULL;
    }
    topic = (struct bop__topic *)bop_alloc_zeroed(branch->topics->allocator, topic_bytes(size));
    if (topic == NULL) {
        return NULL;
    }
    topic->hash = hash;
    topic->name_size = size;
    memcpy(topic->name, name, size + 1);
    topic->next = branch->table[hash & (branch->table_size - 1)];
    branch->table[hash & (branch->table_size - 1)] = topic;
    branch->table_count++;
    bop__count(&branch->counts.topics, 1);
    return topic;
}

static void free_topic(struct bop__branch *branch, struct bop__topic *topic)
{
    struct bop_allocator *allocator = branch->topics->allocator;
    struct bop__topic **at = &branch->table[topic->hash & (branch->table_size - 1)];

    while (*at != topic) {
        at = &(*at)->next;
    }
    *at = topic->next;
    branch->table_count--;
    bop__count(&branch->counts.topics, -1);
    if (topic->list != NULL) {
        bop_free(allocator, topic->list, topic->capacity * sizeof(*topic->list));
    }
    bop_free(allocator, topic, topic_bytes(topic->name_size));
}

void bop__topic_look_unused(struct bop__branch *branch, struct bop__topic *topic)
{
    if (topic->count == 0 && topic->walks == 0 && topic->batches == 0) {
        pthread_mutex_lock(&branch->tree_lock);
        free_topic(branch, topic);
        pthread_mutex_unlock(&branch->tree_lock);
    }
}

/* ---- Subscriptions ---- */

/* Room for one more. Returns 0 or BOP_ENOMEM. */
static int reserve(struct bop_allocator *allocator, void **list, size_t item_bytes, size_t count,
                   size_t *capacity)
{
    size_t bigger = *capacity != 0 ? 2 * *capacity : 4;
    void *grown;

    if (count < *capacity) {
        return 0;
    }
    grown = bop_realloc(allocator, *list, *capacity * item_bytes, bigger * item_bytes);
    if (grown == NULL) {
        return BOP_ENOMEM;
    }
    *list = grown;
    *capacity = bigger;
    return 0;
}

static struct bop__subscription *find_subscription(const struct bop__ws *ws,
                                                   const struct bop__topic *topic)
{
    struct bop__subscriptions *subs = &ws->extra->subscriptions;

    for (size_t i = 0; i < subs->count; i++) {
        if (subs->list[i].topic == topic) {
            return &subs->list[i];
        }
    }
    return NULL;
}

static void count_load(struct bop__branch *branch, const struct bop__topic *topic, int change)
{
    /* Release pairs with the acquire of who publishes: what is posted after it was seen finds the
     * subscriber. */
    atomic_fetch_add_explicit(&branch->load[topic->hash % BOP__LOAD_CLASSES], (uint32_t)change,
                              memory_order_release);
    bop__count(&branch->counts.subscriptions, change);
}

/* With tree_lock. Returns 0 or BOP_ENOMEM. */
static int add_subscriber(struct bop__branch *branch, struct bop__topic *topic, struct bop__ws *ws)
{
    struct bop__subscriptions *subs = &ws->extra->subscriptions;
    void *subscribers = topic->list, *list = subs->list;
    int rc = reserve(branch->topics->allocator, &subscribers, sizeof(*topic->list), topic->count,
                     &topic->capacity);

    topic->list = (struct bop__subscriber *)subscribers;
    if (rc == 0) {
        rc = reserve(branch->topics->allocator, &list, sizeof(*subs->list), subs->count,
                     &subs->capacity);
        subs->list = (struct bop__subscription *)list;
    }
    if (rc != 0) {
        return rc;
    }
    topic->list[topic->count] = (struct bop__subscriber){.ws = ws, .at = subs->count};
    subs->list[subs->count++] = (struct bop__subscription){.topic = topic, .at = topic->count++};
    return 0;
}

/* The last takes the place of the one at `at`. */
static void remove_subscriber(struct bop__topic *topic, size_t at)
{
    struct bop__subscriber *last = &topic->list[--topic->count];

    topic->list[at] = *last;
    if (at < topic->count) {
        last->ws->extra->subscriptions.list[last->at].at = at;
    }
}

/* With tree_lock. */
static void remove_subscription(struct bop__ws *ws, struct bop__subscription *sub)
{
    struct bop__subscriptions *subs = &ws->extra->subscriptions;
    struct bop__topic *topic = sub->topic;
    size_t at = sub->at;

    *sub = subs->list[--subs->count];
    if (sub != &subs->list[subs->count]) {
        sub->topic->list[sub->at].at = (size_t)(sub - subs->list);
    }
    if (topic->walks > 0) {
        topic->list[at].ws = NULL;
        topic->gone++;
    } else {
        remove_subscriber(topic, at);
    }
}

void bop__topic_end_walk(struct bop__branch *branch, struct bop__topic *topic)
{
    if (--topic->walks > 0) {
        return;
    }
    if (topic->gone > 0) {
        pthread_mutex_lock(&branch->tree_lock);
        for (size_t i = topic->count; i-- > 0;) {
            if (topic->list[i].ws == NULL) {
                remove_subscriber(topic, i); /* What comes from behind it is there. */
            }
        }
        topic->gone = 0;
        pthread_mutex_unlock(&branch->tree_lock);
    }
}

static void tell(struct bop__ws *ws, const char *topic, bool subscribed)
{
    if (ws->group->options.on_subscription != NULL) {
        ws->group->options.on_subscription(bop__ws_handle(ws), ws->user, topic, subscribed);
    }
}

static void unsubscribe(struct bop__ws *ws, struct bop__subscription *sub)
{
    struct bop__branch *branch = ws->group->branch;
    struct bop__topic *topic = sub->topic;

    count_load(branch, topic, -1);
    pthread_mutex_lock(&branch->tree_lock);
    remove_subscription(ws, sub);
    pthread_mutex_unlock(&branch->tree_lock);
    topic->batches++; /* Its name is needed yet. */
    tell(ws, topic->name, false);
    topic->batches--;
    bop__topic_look_unused(branch, topic);
}

void bop__subscriptions_end(struct bop__ws *ws)
{
    struct bop__subscriptions *subs = &ws->extra->subscriptions;

    while (subs->count > 0) {
        unsubscribe(ws, &subs->list[subs->count - 1]);
    }
    if (subs->list != NULL) {
        bop_free(ws->group->branch->topics->allocator, subs->list,
                 subs->capacity * sizeof(*subs->list));
        *subs = (struct bop__subscriptions){.count = 0};
    }
}

/* ---- Branches ---- */

static void on_wake(struct bop_post *post)
{
    struct bop__branch *branch = BOP_CONTAINER_OF(post, struct bop__branch, wake);

    /* It made the turn whose end delivers. */
    branch->waking = false;
    bop__topics_unref(branch->topics);
}

/* With join_lock. NULL: no memory. */
static struct bop__branch *make_branch(struct bop_topics *topics, struct bop_loop *loop,
                                       struct bop_loop_handle *handle)
{
    struct bop__branch *branch = (struct bop__branch *)bop_alloc_zeroed(topics->allocator,
                                                                        sizeof(*branch));

    if (branch == NULL) {
        return NULL;
    }
    branch->topics = topics;
    branch->loop = loop;
    branch->handle = bop_loop_handle_ref(handle);
    branch->hook.fn = bop__branch_deliver;
    branch->wake.fn = on_wake;
    bop_list_init(&branch->batches);
    pthread_mutex_init(&branch->tree_lock, NULL);
    /* Relaxed: under join_lock nobody else changes it. Release: who walks the list finds the branch
     * filled in. */
    branch->next = atomic_load_explicit(&topics->branches, memory_order_relaxed);
    atomic_store_explicit(&topics->branches, branch, memory_order_release);
    return branch;
}

int bop__branch_join(struct bop_topics *topics, struct bop_loop *loop,
                     struct bop__branch **out_branch)
{
    struct bop_loop_handle *handle = bop_loop_handle(loop);
    struct bop__branch *branch;

    if (handle == NULL) {
        return BOP_ENOMEM;
    }
    pthread_mutex_lock(&topics->join_lock);
    branch = atomic_load_explicit(&topics->branches, memory_order_relaxed); /* As above. */
    while (branch != NULL && branch->handle != handle) {
        branch = branch->next;
    }
    if (branch == NULL) {
        branch = make_branch(topics, loop, handle);
    }
    pthread_mutex_unlock(&topics->join_lock);
    bop_loop_handle_unref(handle);
    if (branch == NULL) {
        return BOP_ENOMEM;
    }
    if (branch->joined++ == 0) {
        bop_loop_add_hook(loop, &branch->hook);
        /* Relaxed: the caller's own reference keeps it meanwhile. */
        atomic_fetch_add_explicit(&topics->references, 1, memory_order_relaxed);
    }
    *out_branch = branch;
    return 0;
}

void bop__branch_leave(struct bop__branch *branch)
{
    struct bop_list *link;

    if (--branch->joined > 0) {
        return;
    }
    bop_loop_remove_hook(branch->loop, &branch->hook);
    bop__burst_destroy(branch->burst);
    branch->burst = NULL;
    branch->burst_tried = false;
    while ((link = bop_list_pop_front(&branch->batches)) != NULL) {
        struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);
        struct bop__topic *topic = batch->topic;

        bop__topic_batch_free(branch, batch);
        topic->batches--;
        bop__topic_look_unused(branch, topic);
    }
    bop__topics_unref(branch->topics); /* May free the branch. */
}

static void free_branch(struct bop_topics *topics, struct bop__branch *branch)
{
    BOP_ASSERT(branch->joined == 0 && branch->table_count == 0);
    if (branch->spare != NULL) {
        bop_shared_unref(branch->spare->frames);
        bop_free(topics->allocator, branch->spare, sizeof(*branch->spare));
    }
    bop_free(topics->allocator, branch->table, branch->table_size * sizeof(*branch->table));
    bop_loop_handle_unref(branch->handle);
    pthread_mutex_destroy(&branch->tree_lock);
    bop_free(topics->allocator, branch, sizeof(*branch));
}

/* ---- All ---- */

struct bop_topics *bop_topics_create(struct bop_allocator *allocator)
{
    struct bop_allocator *from = bop_allocator_or_tag(allocator, "net.topics");
    struct bop_topics *topics = (struct bop_topics *)bop_alloc_zeroed(from, sizeof(*topics));

    if (topics == NULL) {
        return NULL;
    }
    if (bop_random_secret(topics->seed, sizeof(topics->seed)) != 0) {
        bop_free(from, topics, sizeof(*topics));
        return NULL;
    }
    topics->allocator = from;
    atomic_init(&topics->references, 1);
    pthread_mutex_init(&topics->join_lock, NULL);
    pthread_mutex_init(&topics->export_lock, NULL);
    return topics;
}

void bop__topics_unref(struct bop_topics *topics)
{
    struct bop__branch *branch;

    /* Release what was done with it; the last acquires what all did. */
    if (atomic_fetch_sub_explicit(&topics->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    branch = atomic_load_explicit(&topics->branches, memory_order_relaxed); /* It is ours alone. */
    while (branch != NULL) {
        struct bop__branch *next = branch->next;

        free_branch(topics, branch);
        branch = next;
    }
    pthread_mutex_destroy(&topics->join_lock);
    pthread_mutex_destroy(&topics->export_lock);
    bop_free(topics->allocator, topics, sizeof(*topics));
}

void bop_topics_destroy(struct bop_topics *topics)
{
    if (topics != NULL) {
        bop__topics_unexport(topics);
        bop__topics_unref(topics);
    }
}

/* ---- For users ---- */

int bop_ws_subscribe(struct bop_ws *handle, const char *name)
{
    struct bop__ws *ws = bop__ws_of(handle);
    size_t size = strlen(name);
    struct bop__branch *branch;
    struct bop__topic *topic;
    uint64_t hash;
    int rc;

    if (ws == NULL || !bop__ws_is_open(ws)) {
        return BOP_ECLOSED;
    }
    branch = ws->group->branch;
    if (branch == NULL) {
        return BOP_EUNSUPPORTED;
    }
    hash = bop__topic_hash(branch->topics, name, size);
    topic = bop__topic_find(branch, hash, name, size);
    if (topic != NULL && ws->extra != NULL && find_subscription(ws, topic) != NULL) {
        return 0;
    }
    if (bop__ws_extra(ws) == NULL) {
        return BOP_ENOMEM;
    }
    pthread_mutex_lock(&branch->tree_lock);
    if (topic == NULL) {
        topic = make_topic(branch, hash, name, size);
    }
    rc = topic != NULL ? add_subscriber(branch, topic, ws) : BOP_ENOMEM;
    pthread_mutex_unlock(&branch->tree_lock);
    if (rc != 0) {
        if (topic != NULL) {
            bop__topic_look_unused(branch, topic);
        }
        return rc;
    }
    count_load(branch, topic, 1);
    tell(ws, name, true);
    return 0;
}

/* The topic if the connection is subscribed to it, else NULL. */
static struct bop__subscription *subscription_of(const struct bop__ws *ws, const char *name)
{
    size_t size = strlen(name);
    struct bop__topic *topic;

    if (ws == NULL || ws->extra == NULL || ws->group->branch == NULL) {
        return NULL;
    }
    topic = bop__topic_find(ws->group->branch,
                            bop__topic_hash(ws->group->branch->topics, name, size), name, size);
    return topic != NULL ? find_subscription(ws, topic) : NULL;
}

int bop_ws_unsubscribe(struct bop_ws *handle, const char *name)
{
    struct bop__ws *ws = bop__ws_of(handle);
    struct bop__subscription *sub = subscription_of(ws, name);

    if (ws == NULL || !bop__ws_is_open(ws)) {
        return BOP_ECLOSED;
    }
    if (ws->group->branch == NULL) {
        return BOP_EUNSUPPORTED;
    }
    if (sub != NULL) {
        unsubscribe(ws, sub);
    }
    return 0;
}

bool bop_ws_is_subscribed(const struct bop_ws *handle, const char *name)
{
    return subscription_of(bop__ws_of(handle), name) != NULL;
}

void bop_ws_each_topic(const struct bop_ws *handle, bool (*fn)(const char *topic, void *user),
                       void *user)
{
    const struct bop__ws *ws = bop__ws_of(handle);

    /* From the end: fn may unsubscribe from the one it is given. */
    for (size_t i = ws != NULL && ws->extra != NULL ? ws->extra->subscriptions.count : 0;
         i-- > 0;) {
        if (i < ws->extra->subscriptions.count &&
            !fn(ws->extra->subscriptions.list[i].topic->name, user)) {
            break;
        }
    }
}

size_t bop_topics_subscribers(struct bop_topics *topics, const char *name)
{
    size_t size = strlen(name), count = 0;
    uint64_t hash = bop__topic_hash(topics, name, size);
    /* Acquire pairs with the release of make_branch(). */
    struct bop__branch *branch = atomic_load_explicit(&topics->branches, memory_order_acquire);

    for (; branch != NULL; branch = branch->next) {
        const struct bop__topic *topic;

        pthread_mutex_lock(&branch->tree_lock);
        topic = bop__topic_find(branch, hash, name, size);
        count += topic != NULL ? topic->count - topic->gone : 0;
        pthread_mutex_unlock(&branch->tree_lock);
    }
    return count;
}

struct bop_topics_counters bop_topics_counters(const struct bop_topics *topics)
{
    /* Acquire pairs with the release of make_branch(). */
    const struct bop__branch *branch = atomic_load_explicit(&topics->branches,
                                                            memory_order_acquire);
    struct bop_topics_counters all = {
        .published = atomic_load_explicit(&topics->published, memory_order_relaxed)};

    for (; branch != NULL; branch = branch->next) {
        const struct bop__branch_counts *counts = &branch->counts;

        /* Relaxed: numbers, each right at its own time. */
        all.topics += atomic_load_explicit(&counts->topics, memory_order_relaxed);
        all.subscriptions += atomic_load_explicit(&counts->subscriptions, memory_order_relaxed);
        all.delivered += atomic_load_explicit(&counts->delivered, memory_order_relaxed);
        all.dropped += atomic_load_explicit(&counts->dropped, memory_order_relaxed);
        all.closed += atomic_load_explicit(&counts->closed, memory_order_relaxed);
    }
    return all;
}
