#include "sessions.h"

#include <string.h>

/** One session. The name lies behind it. */
struct entry {
    struct bop_list by_age;
    struct bop_list in_bucket;
    SSL_SESSION *session;
    char name[];
};

void bop__tls_sessions_init(struct bop__tls_sessions *sessions)
{
    BOP_ASSERT(pthread_mutex_init(&sessions->lock, NULL) == 0);
    bop_list_init(&sessions->by_age);
    for (size_t i = 0; i < BOP__TLS_SESSION_BUCKETS; i++) {
        bop_list_init(&sessions->buckets[i]);
    }
    sessions->count = 0;
}

/* FNV-1a: names are of this process's choosing. */
static struct bop_list *bucket_of(struct bop__tls_sessions *sessions, const char *name)
{
    uint32_t hash = 2166136261u;

    for (; *name != '\0'; name++) {
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    }
    return &sessions->buckets[(hash ^ hash >> 16) % BOP__TLS_SESSION_BUCKETS];
}

/* Unlink, and give back the session. With the lock. */
static SSL_SESSION *drop(struct bop__tls_sessions *sessions, struct entry *entry)
{
    SSL_SESSION *session = entry->session;

    bop_list_remove(&entry->by_age);
    bop_list_remove(&entry->in_bucket);
    sessions->count--;
    OPENSSL_free(entry);
    return session;
}

static struct entry *oldest(struct bop__tls_sessions *sessions)
{
    return BOP_CONTAINER_OF(sessions->by_age.next, struct entry, by_age);
}

void bop__tls_sessions_clear(struct bop__tls_sessions *sessions)
{
    pthread_mutex_lock(&sessions->lock);
    while (!bop_list_empty(&sessions->by_age)) {
        SSL_SESSION_free(drop(sessions, oldest(sessions)));
    }
    pthread_mutex_unlock(&sessions->lock);
}

void bop__tls_sessions_deinit(struct bop__tls_sessions *sessions)
{
    bop__tls_sessions_clear(sessions);
    pthread_mutex_destroy(&sessions->lock);
}

/* The newest of a name, and if `crowded` is given, the oldest once there are
 * as many as may be. */
static struct entry *find(struct bop_list *bucket, const char *name, struct entry **crowded)
{
    struct entry *newest = NULL, *first = NULL;
    unsigned count = 0;

    BOP_LIST_FOR_EACH(link, bucket) {
        struct entry *entry = BOP_CONTAINER_OF(link, struct entry, in_bucket);

        if (strcmp(entry->name, name) == 0) {
            first = first != NULL ? first : entry;
            newest = entry;
            count++;
        }
    }
    if (crowded != NULL) {
        *crowded = count >= BOP__TLS_SESSIONS_PER_NAME ? first : NULL;
    }
    return newest;
}

bool bop__tls_sessions_put(struct bop__tls_sessions *sessions, const char *name,
                           SSL_SESSION *session)
{
    size_t size = strlen(name) + 1;
    struct entry *entry = OPENSSL_malloc(sizeof(*entry) + size);
    struct bop_list *bucket = bucket_of(sessions, name);
    SSL_SESSION *dropped = NULL;
    struct entry *crowded;

    if (entry == NULL) {
        return false;
    }
    entry->session = session;
    memcpy(entry->name, name, size);
    pthread_mutex_lock(&sessions->lock);
    BOP_IGNORE(find(bucket, name, &crowded));
    if (crowded != NULL) {
        dropped = drop(sessions, crowded);
    } else if (sessions->count == BOP__TLS_SESSIONS_MAX) {
        dropped = drop(sessions, oldest(sessions));
    }
    bop_list_push_back(&sessions->by_age, &entry->by_age);
    bop_list_push_back(bucket, &entry->in_bucket);
    sessions->count++;
    pthread_mutex_unlock(&sessions->lock);
    SSL_SESSION_free(dropped);
    return true;
}

SSL_SESSION *bop__tls_sessions_take(struct bop__tls_sessions *sessions, const char *name)
{
    SSL_SESSION *session = NULL;
    struct entry *entry;

    pthread_mutex_lock(&sessions->lock);
    entry = find(bucket_of(sessions, name), name, NULL);
    if (entry != NULL) {
        session = entry->session;
        if (SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION) {
            BOP_IGNORE(drop(sessions, entry));
        } else {
            SSL_SESSION_up_ref(session);
        }
    }
    pthread_mutex_unlock(&sessions->lock);
    return session;
}
