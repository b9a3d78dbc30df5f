/*
 * Invariants, checked by bop__watch_index_check():
 *
 *   (1) In order: intervals rise by from, then by to, an empty to being the highest.
 *   (2) No child's priority is above its parent's.
 *   (3) highest is the interval with the highest to of the node and its children's.
 */
#include "watch_index.h"

#include <bop/mem.h>

#define BUCKETS_MIN 16

void bop__watch_index_init(struct watch_index *index, struct bop_allocator *allocator,
                           uint64_t seed)
{
    *index = (struct watch_index){.allocator = allocator, .seed = seed};
    bop_random_seed(&index->random, seed);
}

void bop__watch_index_deinit(struct watch_index *index)
{
    BOP_ASSERT(index->count == 0);
    if (index->buckets) {
        bop_free(index->allocator, index->buckets, index->capacity * sizeof(struct watch_name *));
        index->buckets = NULL;
        index->capacity = 0;
    }
}

/* ---- Names ---- */

static uint64_t hash_of(const struct watch_index *index, uint8_t what, struct bop_slice name)
{
    uint64_t hash = index->seed ^ what;

    for (size_t i = 0; i < name.size; i++) {
        hash = (hash ^ name.data[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return hash * UINT64_C(0xbf58476d1ce4e5b9) ^ hash >> 32;
}

static struct watch_name *find_name(const struct watch_index *index, uint8_t what,
                                    struct bop_slice name, uint64_t hash)
{
    struct watch_name *at = index->capacity ? index->buckets[hash & (index->capacity - 1)] : NULL;

    while (at && !(at->hash == hash && at->what == what &&
                   bop_slice_equal(bop_slice(at->bytes, at->size), name))) {
        at = at->next;
    }
    return at;
}

static int grow(struct watch_index *index)
{
    size_t capacity = index->capacity ? index->capacity * 2 : BUCKETS_MIN;
    size_t size = capacity * sizeof(struct watch_name *);
    struct watch_name **buckets = (struct watch_name **)bop_alloc_zeroed(index->allocator, size);

    if (!buckets) {
        return BOP_ENOMEM;
    }
    for (size_t n = 0; n < index->capacity; n++) {
        while (index->buckets[n]) {
            struct watch_name *name = index->buckets[n];

            index->buckets[n] = name->next;
            name->next = buckets[name->hash & (capacity - 1)];
            buckets[name->hash & (capacity - 1)] = name;
        }
    }
    if (index->buckets) {
        bop_free(index->allocator, index->buckets, index->capacity * sizeof(struct watch_name *));
    }
    index->buckets = buckets;
    index->capacity = capacity;
    return 0;
}

static struct watch_name *make_name(struct watch_index *index, uint8_t what, struct bop_slice bytes,
                                    uint64_t hash)
{
    struct watch_name *name;
    size_t size = sizeof(*name) + bytes.size;

    if (index->count == index->capacity && grow(index) < 0) {
        return NULL;
    }
    name = (struct watch_name *)bop_alloc_zeroed(index->allocator, size);
    if (!name) {
        return NULL;
    }
    name->index = index;
    name->hash = hash;
    name->what = what;
    name->size = (uint8_t)bytes.size;
    if (bytes.size > 0) {
        memcpy(name->bytes, bytes.data, bytes.size);
    }
    name->next = index->buckets[hash & (index->capacity - 1)];
    index->buckets[hash & (index->capacity - 1)] = name;
    index->count++;
    index->bytes += size;
    return name;
}

static void free_name(struct watch_name *name)
{
    struct watch_index *index = name->index;
    struct watch_name **at = &index->buckets[name->hash & (index->capacity - 1)];
    size_t size = sizeof(*name) + name->size;

    while (*at != name) {
        at = &(*at)->next;
    }
    *at = name->next;
    index->count--;
    index->bytes -= size;
    bop_free(index->allocator, name, size);
}

/* ---- Intervals ---- */

struct bop_slice bop__watch_interval_from(const struct watch_interval *interval)
{
    return bop_slice(interval->bytes, interval->from_size);
}

static size_t size_of(const struct watch_interval *interval)
{
    return sizeof(*interval) + interval->to_size + (interval->exact ? 0 : interval->from_size);
}

struct bop_slice bop__watch_interval_to(const struct watch_interval *interval)
{
    return bop_slice(interval->bytes + (interval->exact ? 0 : interval->from_size),
                     interval->to_size);
}

static bool is_exact(struct bop_slice from, struct bop_slice to)
{
    return to.size == from.size + 1 && to.data[from.size] == 0 &&
           bop_slice_equal(from, bop_slice(to.data, from.size));
}

/* An empty one is the end of all keys. */
static int compare_to(struct bop_slice a, struct bop_slice b)
{
    if (a.size == 0 || b.size == 0) {
        return (a.size == 0) - (b.size == 0);
    }
    return bop_slice_compare(a, b);
}

static int compare(const struct watch_interval *interval, struct bop_slice from,
                   struct bop_slice to)
{
    int order = bop_slice_compare(bop__watch_interval_from(interval), from);

    return order != 0 ? order : compare_to(bop__watch_interval_to(interval), to);
}

bool bop__watch_interval_matches(const struct watch_interval *interval, enum watch_scope scope,
                                 struct bop_slice key)
{
    struct bop_slice to = bop__watch_interval_to(interval);

    switch (scope) {
    case WATCH_ALL:
        return true;
    case WATCH_WHOLE:
        return interval->from_size == 0 && interval->to_size == 0;
    case WATCH_KEY:
        break;
    }
    return bop_slice_compare(bop__watch_interval_from(interval), key) <= 0 &&
           (to.size == 0 || bop_slice_compare(key, to) < 0);
}

static void set_highest(struct watch_interval *node)
{
    node->highest = node;
    for (int side = 0; side < 2; side++) {
        const struct watch_interval *child = side ? node->right : node->left;

        if (child && compare_to(bop__watch_interval_to(child->highest),
                                bop__watch_interval_to(node->highest)) > 0) {
            node->highest = child->highest;
        }
    }
}

static struct watch_interval *rotate_right(struct watch_interval *node)
{
    struct watch_interval *left = node->left;

    node->left = left->right;
    left->right = node;
    set_highest(node);
    set_highest(left);
    return left;
}

static struct watch_interval *rotate_left(struct watch_interval *node)
{
    struct watch_interval *right = node->right;

    node->right = right->left;
    right->left = node;
    set_highest(node);
    set_highest(right);
    return right;
}

/* Returns the root of what was below node, with added in it. */
static struct watch_interval *insert(struct watch_interval *node, struct watch_interval *added)
{
    if (!node) {
        return added;
    }
    if (compare(node, bop__watch_interval_from(added), bop__watch_interval_to(added)) > 0) {
        node->left = insert(node->left, added);
        set_highest(node);
        return node->left->priority > node->priority ? rotate_right(node) : node;
    }
    node->right = insert(node->right, added);
    set_highest(node);
    return node->right->priority > node->priority ? rotate_left(node) : node;
}

/* What is below both, all of left being before all of right. */
static struct watch_interval *merge(struct watch_interval *left, struct watch_interval *right)
{
    if (!left || !right) {
        return left ? left : right;
    }
    if (left->priority > right->priority) {
        left->right = merge(left->right, right);
        set_highest(left);
        return left;
    }
    right->left = merge(left, right->left);
    set_highest(right);
    return right;
}

static struct watch_interval *take_out(struct watch_interval *node, struct watch_interval *gone)
{
    if (node == gone) {
        return merge(node->left, node->right);
    }
    if (compare(node, bop__watch_interval_from(gone), bop__watch_interval_to(gone)) > 0) {
        node->left = take_out(node->left, gone);
    } else {
        node->right = take_out(node->right, gone);
    }
    set_highest(node);
    return node;
}

static struct watch_interval *find_interval(const struct watch_name *name, struct bop_slice from,
                                            struct bop_slice to)
{
    struct watch_interval *node = name->root;

    while (node) {
        int order = compare(node, from, to);

        if (order == 0) {
            return node;
        }
        node = order > 0 ? node->left : node->right;
    }
    return NULL;
}

static struct watch_interval *make_interval(struct watch_name *name, struct bop_slice from,
                                            struct bop_slice to)
{
    bool exact = is_exact(from, to);
    struct watch_interval *interval;
    uint8_t *bytes;

    interval = (struct watch_interval *)bop_alloc_zeroed(
        name->index->allocator, sizeof(*interval) + to.size + (exact ? 0 : from.size));
    if (!interval) {
        return NULL;
    }
    interval->name = name;
    interval->priority = (uint32_t)bop_random_next(&name->index->random);
    interval->from_size = (uint32_t)from.size;
    interval->to_size = (uint32_t)to.size;
    interval->exact = exact;
    interval->highest = interval;
    bop_list_init(&interval->watches);
    bytes = interval->bytes;
    if (!exact && from.size > 0) {
        memcpy(bytes, from.data, from.size);
        bytes += from.size;
    }
    if (to.size > 0) {
        memcpy(bytes, to.data, to.size);
    }
    return interval;
}

int bop__watch_index_get(struct watch_index *index, uint8_t what, struct bop_slice name_bytes,
                         struct bop_slice from, struct bop_slice to,
                         struct watch_interval **out_interval)
{
    uint64_t hash = hash_of(index, what, name_bytes);
    struct watch_name *name = find_name(index, what, name_bytes, hash);
    struct watch_interval *interval = NULL;

    if (!name) {
        name = make_name(index, what, name_bytes, hash);
        if (!name) {
            return BOP_ENOMEM;
        }
    } else {
        interval = find_interval(name, from, to);
    }
    if (!interval) {
        interval = make_interval(name, from, to);
        if (!interval) {
            if (!name->root) {
                free_name(name);
            }
            return BOP_ENOMEM;
        }
        index->bytes += size_of(interval);
        name->root = insert(name->root, interval);
    }
    interval->references++;
    *out_interval = interval;
    return 0;
}

void bop__watch_index_put(struct watch_interval *interval)
{
    struct watch_name *name = interval->name;

    if (--interval->references > 0) {
        return;
    }
    BOP_ASSERT(bop_list_empty(&interval->watches));
    name->root = take_out(name->root, interval);
    name->index->bytes -= size_of(interval);
    bop_free(name->index->allocator, interval, size_of(interval));
    if (!name->root) {
        free_name(name);
    }
}

/* ---- Matching ---- */

struct match {
    enum watch_scope scope;
    struct bop_slice key;
    void (*hit)(void *user, struct watch_interval *interval);
    void *user;
};

static void match_below(struct watch_interval *node, const struct match *match)
{
    struct bop_slice highest;

    if (!node) {
        return;
    }
    highest = bop__watch_interval_to(node->highest);
    if (match->scope == WATCH_KEY && highest.size > 0 &&
        bop_slice_compare(match->key, highest) >= 0) {
        return; /* All of these end before the key. */
    }
    match_below(node->left, match);
    if (match->scope == WATCH_KEY &&
        bop_slice_compare(bop__watch_interval_from(node), match->key) > 0) {
        return; /* It and all to its right begin behind the key. */
    }
    if (bop__watch_interval_matches(node, match->scope, match->key)) {
        match->hit(match->user, node);
    }
    match_below(node->right, match);
}

void bop__watch_index_match(const struct watch_index *index, uint8_t what, struct bop_slice name,
                            enum watch_scope scope, struct bop_slice key,
                            void (*hit)(void *user, struct watch_interval *interval), void *user)
{
    struct match match = {.scope = scope, .key = key, .hit = hit, .user = user};
    const struct watch_name *found;
    struct watch_interval *whole;

    if (index->count == 0) {
        return;
    }
    found = find_name(index, what, name, hash_of(index, what, name));
    if (!found) {
        return;
    }
    if (scope == WATCH_WHOLE) {
        whole = find_interval(found, bop_slice(NULL, 0), bop_slice(NULL, 0));
        if (whole) {
            hit(user, whole);
        }
        return;
    }
    match_below(found->root, &match);
}

/* ---- Checking ---- */

static const struct watch_interval *check_below(const struct watch_interval *node,
                                                const struct watch_interval *before)
{
    const struct watch_interval *highest = node;

    for (int side = 0; side < 2; side++) {
        const struct watch_interval *child = side ? node->right : node->left;

        if (side) {
            BOP_ASSERT(!before || compare(before, bop__watch_interval_from(node),
                                          bop__watch_interval_to(node)) < 0);
            before = node;
        }
        if (child) {
            BOP_ASSERT(child->priority <= node->priority);
            before = check_below(child, before);
            if (compare_to(bop__watch_interval_to(child->highest),
                           bop__watch_interval_to(highest)) > 0) {
                highest = child->highest;
            }
        }
    }
    BOP_ASSERT(compare_to(bop__watch_interval_to(highest), bop__watch_interval_to(node->highest)) ==
               0);
    return before;
}

void bop__watch_index_check(const struct watch_index *index)
{
    for (size_t n = 0; n < index->capacity; n++) {
        for (const struct watch_name *name = index->buckets[n]; name; name = name->next) {
            BOP_ASSERT(name->root);
            check_below(name->root, NULL);
        }
    }
}
