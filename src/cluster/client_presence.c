/*
 * What a client is in a cluster, kept so across sessions.
 *
 * An item is a member or a registration. It lies in one of these lists:
 *
 *     todo       it is not as it should be: to be asked for, or to be taken back
 *     question   it is being asked for, or taken back, in a request with others
 *     settled    it is there
 *     failed     it will not be, in this session
 *
 *     todo --flush--> question --answer--> settled, failed --session lost, unwanted--> todo
 *                        |                    (or freed, if it was to go)
 *                        +--not done--> todo
 *
 * One that becomes unwanted while it is asked for waits for the answer, so that what takes
 * it back cannot overtake what made it.
 */
#include "client_internal.h"

#include <bop/crc32c.h>
#include <bop/mem.h>
#include <bop/presence.h>

#define RETRY_MS       1000
#define BULK_ITEMS_MAX 1000
#define BULK_BYTES_MAX (256 * 1024) /* Of addresses in one request, the last one left out. */
#define BUCKETS_MIN    16           /* A power of two. */

struct item {
    struct bop_list link;
    struct item *next; /* In its bucket. */
    uint32_t hash;
    bool is_member;
    bool unwanted;
    bool there;          /* Done in this session, or perhaps done. */
    bool asked;          /* In a question. */
    bool again;          /* Its information changed while it was asked for. */
    uint64_t sequence;   /* Of a registration. */
    struct bop_buf name; /* Of the group or registry. */
    struct bop_buf key;  /* The member, or the address. */
    struct bop_buf info;
};

struct bop_presence {
    struct bop_list link; /* Of its client. */
    struct bop_presence_options options;
    struct bop_client *client;
    struct bop_allocator *allocator;
    struct bop_list todo;
    struct bop_list settled;
    struct bop_list failed; /* Will not be there in this session. */
    struct bop_list questions;
    struct item **buckets;
    size_t capacity; /* A power of two, or 0. */
    size_t count;
    struct bop_timer retry;
    bool told_there;
    bool busy; /* Nothing is asked for or freed just now. */
};

/* What an answer is handed to. It outlives a presence that is destroyed meanwhile. */
struct question {
    struct bop_list link;
    struct bop_list items;
    struct bop_presence *presence; /* NULL: it is gone. */
    struct bop_allocator *allocator;
    bool leaving;
};

/* ---- Items ---- */

static struct item *item_of(struct bop_list *link)
{
    return BOP_CONTAINER_OF(link, struct item, link);
}

static void move_item(struct item *item, struct bop_list *list)
{
    bop_list_remove(&item->link);
    bop_list_push_back(list, &item->link);
}

static struct item **bucket_of(const struct bop_presence *presence, uint32_t hash)
{
    return &presence->buckets[hash & (presence->capacity - 1)];
}

static void free_item(struct bop_presence *presence, struct item *item)
{
    struct item **at = bucket_of(presence, item->hash);

    while (*at != item) {
        at = &(*at)->next;
    }
    *at = item->next;
    presence->count--;
    bop_list_remove(&item->link);
    bop_buf_deinit(&item->name);
    bop_buf_deinit(&item->key);
    bop_buf_deinit(&item->info);
    bop_free(presence->allocator, item, sizeof(*item));
}

static uint32_t hash_of(bool is_member, struct bop_slice name, struct bop_slice key,
                        uint64_t sequence)
{
    uint32_t hash = bop_crc32c(is_member, name.data, name.size);

    hash = bop_crc32c(hash, key.data, key.size);
    return bop_crc32c(hash, (const uint8_t *)&sequence, sizeof(sequence));
}

static struct item *find_item(const struct bop_presence *presence, bool is_member,
                              struct bop_slice name, struct bop_slice key, uint64_t sequence)
{
    uint32_t hash = hash_of(is_member, name, key, sequence);
    struct item *item = presence->capacity > 0 ? *bucket_of(presence, hash) : NULL;

    while (item &&
           (item->hash != hash || item->is_member != is_member || item->sequence != sequence ||
            !bop_slice_equal(bop_buf_slice(&item->key), key) ||
            !bop_slice_equal(bop_buf_slice(&item->name), name))) {
        item = item->next;
    }
    return item;
}

/* Room for one more. */
static int reserve(struct bop_presence *presence)
{
    size_t capacity = presence->capacity ? presence->capacity * 2 : BUCKETS_MIN;
    struct item **old = presence->buckets;
    size_t old_capacity = presence->capacity;
    struct item **buckets;

    if (presence->count < presence->capacity) {
        return 0;
    }
    buckets = (struct item **)bop_alloc_array(presence->allocator, capacity, sizeof(struct item *));
    if (!buckets) {
        return BOP_ENOMEM;
    }
    presence->buckets = buckets;
    presence->capacity = capacity;
    for (size_t i = 0; i < old_capacity; i++) {
        for (struct item *item = old[i], *next; item; item = next) {
            struct item **bucket = bucket_of(presence, item->hash);

            next = item->next;
            item->next = *bucket;
            *bucket = item;
        }
    }
    bop_free(presence->allocator, old, old_capacity * sizeof(struct item *));
    return 0;
}

static int make_item(struct bop_presence *presence, bool is_member, struct bop_slice name,
                     struct bop_slice key, struct bop_slice info, uint64_t sequence)
{
    struct item **bucket;
    struct item *item;
    int rc = reserve(presence);

    item = rc == 0 ? (struct item *)bop_alloc_zeroed(presence->allocator, sizeof(*item)) : NULL;
    if (!item) {
        return BOP_ENOMEM;
    }
    item->hash = hash_of(is_member, name, key, sequence);
    item->is_member = is_member;
    item->sequence = sequence;
    bop_buf_init(&item->name, presence->allocator, 0);
    bop_buf_init(&item->key, presence->allocator, 0);
    bop_buf_init(&item->info, presence->allocator, 0);
    bucket = bucket_of(presence, item->hash);
    item->next = *bucket;
    *bucket = item;
    presence->count++;
    bop_list_push_back(&presence->todo, &item->link);
    rc = bop_buf_append(&item->name, name.data, name.size);
    if (rc == 0) {
        rc = bop_buf_append(&item->key, key.data, key.size);
    }
    if (rc == 0) {
        rc = bop_buf_append(&item->info, info.data, info.size);
    }
    if (rc < 0) {
        free_item(presence, item);
    }
    return rc;
}

static void tell(struct bop_presence *presence, enum bop_presence_news news, struct bop_slice name,
                 int code)
{
    if (presence->options.news) {
        presence->options.news(presence->options.user, news, name, code);
    }
}

bool bop_presence_there(const struct bop_presence *presence)
{
    return bop_list_empty(&presence->todo) && bop_list_empty(&presence->questions) &&
           bop_list_empty(&presence->failed);
}

/* ---- Asking ---- */

static void on_answer(void *user, int code, const struct bop_result *result);

static void retry_later(struct bop_presence *presence)
{
    if (!bop_timer_is_running(&presence->retry)) {
        /* Without memory for it, the next change or answer tries again. */
        BOP_IGNORE(
            bop_timer_start(presence->client->loop, &presence->retry, presence->options.retry_ms));
    }
}

/* The question, its items yet to be moved to it, or NULL. */
static struct question *ask(struct bop_presence *presence, const struct bop_operation *operation)
{
    struct question *question = (struct question *)bop_alloc_zeroed(presence->allocator,
                                                                    sizeof(*question));

    if (!question) {
        return NULL;
    }
    question->presence = presence;
    question->allocator = presence->allocator;
    question->leaving = operation->op == BOP_OP_MEMBER_LEAVE ||
                        operation->op == BOP_OP_REGISTRATION_REMOVE;
    bop_list_init(&question->items);
    if (bop_client_execute(presence->client, operation, BOP_READ_LINEARIZABLE, on_answer,
                           question) < 0) {
        bop_free(presence->allocator, question, sizeof(*question));
        return NULL;
    }
    bop_list_push_back(&presence->questions, &question->link);
    return question;
}

static bool ask_for_one(struct bop_presence *presence, struct item *item, enum bop_op op)
{
    struct bop_operation operation = {.op = op,
                                      .name = bop_buf_slice(&item->name),
                                      .key = bop_buf_slice(&item->key),
                                      .value = bop_buf_slice(&item->info),
                                      .sequence = item->sequence};
    struct question *question = ask(presence, &operation);

    if (question) {
        item->asked = true;
        move_item(item, &question->items);
    }
    return question != NULL;
}

static bool goes_with(const struct item *item, struct bop_slice registry)
{
    return !item->is_member && !item->unwanted &&
           bop_slice_equal(bop_buf_slice(&item->name), registry);
}

/* The first registration to do, and as many more of its registry as there is room for. */
static bool ask_for_registrations(struct bop_presence *presence, struct item *first)
{
    struct bop_operation operation = {.op = BOP_OP_REGISTRATION_ADD_ALL,
                                      .name = bop_buf_slice(&first->name)};
    struct question *question = NULL;
    struct bop_list *end = &first->link;
    struct bop_buf items;
    struct bop_writer writer = bop_writer(&items);

    bop_buf_init(&items, presence->allocator, 0);
    for (; end != &presence->todo && operation.count < BULK_ITEMS_MAX &&
           items.size < BULK_BYTES_MAX && goes_with(item_of(end), operation.name);
         end = end->next) {
        struct bop_item one = {.key = bop_buf_slice(&item_of(end)->key),
                               .sequence = item_of(end)->sequence};

        bop_item_encode(&writer, operation.op, &one);
        operation.count++;
    }
    operation.items = bop_buf_slice(&items);
    if (writer.code == 0) {
        question = ask(presence, &operation);
    }
    bop_buf_deinit(&items);
    for (struct bop_list *at = &first->link, *next; question && at != end; at = next) {
        next = at->next;
        item_of(at)->asked = true;
        move_item(item_of(at), &question->items);
    }
    return question != NULL;
}

static bool ask_for(struct bop_presence *presence, struct item *item)
{
    if (item->unwanted) {
        return ask_for_one(presence, item,
                           item->is_member ? BOP_OP_MEMBER_LEAVE : BOP_OP_REGISTRATION_REMOVE);
    }
    return item->is_member ? ask_for_one(presence, item, BOP_OP_MEMBER_JOIN)
                           : ask_for_registrations(presence, item);
}

/* Ask for what is to be asked for. */
static void flush(struct bop_presence *presence)
{
    if (presence->busy) {
        return; /* Whoever is at it does this behind. */
    }
    while (!bop_list_empty(&presence->todo)) {
        struct item *item = item_of(presence->todo.next);

        if (item->unwanted && !item->there) {
            free_item(presence, item);
        } else if (!ask_for(presence, item)) {
            retry_later(presence);
            return;
        }
    }
}

static void on_retry(struct bop_timer *timer)
{
    flush(BOP_CONTAINER_OF(timer, struct bop_presence, retry));
}

/* ---- Answers ---- */

/* Whether the same question may have another answer. What may be done, or may yet be, is asked
 * for again, which changes nothing then. */
static bool may_change(int code)
{
    return bop__client_may_be_done(code) || code == BOP_ESESSION || code == BOP_ENOMEM ||
           code == BOP_EFULL || code == BOP_ENOROOM || code == BOP_ECONDITION;
}

static void left(struct bop_presence *presence, struct item *item, int code)
{
    item->there = bop__client_may_be_done(code);
    if (item->there) {
        retry_later(presence);
    }
    if (item->unwanted && !item->there) {
        free_item(presence, item);
    } else {
        move_item(item, &presence->todo); /* Once more; or it is wanted again. */
    }
}

static void came(struct bop_presence *presence, struct item *item, int code)
{
    bool again = item->again || item->unwanted;

    item->again = false;
    item->there = code == 0 || bop__client_may_be_done(code);
    if (code == 0 || code == BOP_ESESSION || item->unwanted) {
        move_item(item, code == 0 && !again ? &presence->settled : &presence->todo);
    } else if (may_change(code)) {
        move_item(item, &presence->todo);
        retry_later(presence);
        if (code == BOP_ECONDITION) {
            tell(presence, BOP_PRESENCE_TAKEN, bop_buf_slice(&item->key), code);
        }
    } else {
        move_item(item, &presence->failed);
        tell(presence, BOP_PRESENCE_FAILED, bop_buf_slice(&item->key), code);
    }
}

static void answered(struct bop_presence *presence, struct question *question, int code)
{
    presence->busy = true;
    while (!bop_list_empty(&question->items)) {
        struct item *item = item_of(question->items.next);

        item->asked = false;
        if (question->leaving) {
            left(presence, item, code);
        } else {
            came(presence, item, code);
        }
    }
    presence->busy = false;
    if (!bop_timer_is_running(&presence->retry)) {
        flush(presence);
    }
    if (!presence->told_there && bop_presence_there(presence)) {
        presence->told_there = true;
        tell(presence, BOP_PRESENCE_THERE, bop_slice(NULL, 0), 0);
    }
}

static void on_answer(void *user, int code, const struct bop_result *result)
{
    struct question *question = (struct question *)user;

    bop_list_remove(&question->link);
    if (question->presence) {
        answered(question->presence, question, code);
    }
    bop_free(question->allocator, question, sizeof(*question));
}

/* All of a list is to be done, in the session that comes. */
static void begin_anew(struct bop_presence *presence, struct bop_list *items)
{
    while (!bop_list_empty(items)) {
        struct item *item = item_of(items->next);

        item->there = false;
        move_item(item, &presence->todo);
    }
}

void bop__client_presences_lost(struct bop_client *client)
{
    BOP_LIST_FOR_EACH_SAFE(at, &client->presences) {
        struct bop_presence *presence = BOP_CONTAINER_OF(at, struct bop_presence, link);

        presence->busy = true;
        BOP_LIST_FOR_EACH(link, &presence->todo) {
            item_of(link)->there = false;
        }
        begin_anew(presence, &presence->settled);
        begin_anew(presence, &presence->failed);
        presence->told_there = presence->count == 0;
        tell(presence, BOP_PRESENCE_LOST, bop_slice(NULL, 0), 0);
        presence->busy = false;
        flush(presence);
    }
}

/* ---- Wanting ---- */

int bop_presence_create(const struct bop_presence_options *options,
                        struct bop_presence **out_presence)
{
    struct bop_allocator *allocator = options->client->allocator;
    struct bop_presence *presence = (struct bop_presence *)bop_alloc_zeroed(allocator,
                                                                            sizeof(*presence));

    if (!presence) {
        return BOP_ENOMEM;
    }
    presence->options = *options;
    if (presence->options.retry_ms == 0) {
        presence->options.retry_ms = RETRY_MS;
    }
    presence->client = options->client;
    presence->allocator = allocator;
    presence->told_there = true; /* Of nothing there is nothing to tell. */
    bop_list_init(&presence->todo);
    bop_list_init(&presence->settled);
    bop_list_init(&presence->failed);
    bop_list_init(&presence->questions);
    bop_timer_init(&presence->retry, on_retry);
    bop_list_push_back(&presence->client->presences, &presence->link);
    *out_presence = presence;
    return 0;
}

static void free_all(struct bop_presence *presence, struct bop_list *items)
{
    while (!bop_list_empty(items)) {
        free_item(presence, item_of(items->next));
    }
}

void bop_presence_destroy(struct bop_presence *presence)
{
    if (!presence) {
        return;
    }
    BOP_ASSERT(!presence->busy);
    bop_timer_stop(presence->client->loop, &presence->retry);
    while (!bop_list_empty(&presence->questions)) {
        struct question *question = BOP_CONTAINER_OF(presence->questions.next, struct question,
                                                     link);

        free_all(presence, &question->items);
        question->presence = NULL;
        bop_list_remove(&question->link);
        bop_list_init(&question->link); /* Its answer takes it out of this list. */
    }
    free_all(presence, &presence->todo);
    free_all(presence, &presence->settled);
    free_all(presence, &presence->failed);
    bop_free(presence->allocator, presence->buckets, presence->capacity * sizeof(struct item *));
    bop_list_remove(&presence->link);
    bop_free(presence->allocator, presence, sizeof(*presence));
}

static int check(struct bop_slice name, struct bop_slice key, struct bop_slice info)
{
    if (name.size == 0 || !bop_slice_is_utf8(name)) {
        return BOP_EINVAL;
    }
    return name.size > BOP_NAME_MAX || key.size > BOP_KEY_MAX || info.size > BOP_KEY_MAX
               ? BOP_ETOOBIG
               : 0;
}

/* It is wanted, with other information perhaps. */
static int want_item(struct bop_presence *presence, struct item *item, struct bop_slice info)
{
    bool same = bop_slice_equal(bop_buf_slice(&item->info), info) && !item->unwanted;
    struct bop_buf copy;
    int rc;

    if (same) {
        return 0;
    }
    bop_buf_init(&copy, presence->allocator, 0);
    rc = bop_buf_append(&copy, info.data, info.size);
    if (rc < 0) {
        return rc;
    }
    bop_buf_deinit(&item->info);
    item->info = copy;
    item->unwanted = false;
    if (item->asked) {
        item->again = true;
    } else {
        move_item(item, &presence->todo); /* To join once more is to set. */
    }
    return 0;
}

static int want(struct bop_presence *presence, bool is_member, struct bop_slice name,
                struct bop_slice key, struct bop_slice info, uint64_t sequence)
{
    struct item *item;
    int rc = check(name, key, info);

    if (rc < 0) {
        return rc;
    }
    item = find_item(presence, is_member, name, key, sequence);
    rc = item ? want_item(presence, item, info)
              : make_item(presence, is_member, name, key, info, sequence);
    if (rc == 0) {
        presence->told_there = presence->told_there && bop_presence_there(presence);
        flush(presence);
    }
    return rc;
}

static void want_no_more(struct bop_presence *presence, bool is_member, struct bop_slice name,
                         struct bop_slice key, uint64_t sequence)
{
    struct item *item = find_item(presence, is_member, name, key, sequence);

    if (!item || item->unwanted) {
        return;
    }
    item->unwanted = true;
    if (!item->asked) {
        move_item(item, &presence->todo);
    }
    flush(presence);
}

int bop_presence_join(struct bop_presence *presence, struct bop_slice group,
                      struct bop_slice member, struct bop_slice info)
{
    return want(presence, true, group, member, info, 0);
}

void bop_presence_leave(struct bop_presence *presence, struct bop_slice group,
                        struct bop_slice member)
{
    want_no_more(presence, true, group, member, 0);
}

int bop_presence_add(struct bop_presence *presence, struct bop_slice registry,
                     struct bop_slice address, uint64_t sequence)
{
    return want(presence, false, registry, address, bop_slice(NULL, 0), sequence);
}

void bop_presence_remove(struct bop_presence *presence, struct bop_slice registry,
                         struct bop_slice address, uint64_t sequence)
{
    want_no_more(presence, false, registry, address, sequence);
}
