/*
 * Sessions that servers gave to clients, by the server's name, to resume the
 * next connections with.
 *
 * A TLS 1.3 ticket is used once, so that connections cannot be told to be of
 * one client (RFC 8446, C.4); a TLS 1.2 session again and again. At most
 * BOP__TLS_SESSIONS_MAX are kept, and BOP__TLS_SESSIONS_PER_NAME of one name;
 * the oldest give way.
 *
 * Threads: any.
 */
#ifndef BOP_NET_TLS_SESSIONS_H
#define BOP_NET_TLS_SESSIONS_H

#include <bop/base.h>
#include <bop/list.h>
#include <openssl/ssl.h>
#include <pthread.h>

#define BOP__TLS_SESSIONS_MAX      1024
#define BOP__TLS_SESSIONS_PER_NAME 4
#define BOP__TLS_SESSION_BUCKETS   256

struct bop__tls_sessions {
    pthread_mutex_t lock;
    struct bop_list by_age; /* Oldest first. */
    struct bop_list buckets[BOP__TLS_SESSION_BUCKETS];
    size_t count;
};

void bop__tls_sessions_init(struct bop__tls_sessions *sessions);
/** Free all; usable on. */
void bop__tls_sessions_clear(struct bop__tls_sessions *sessions);
void bop__tls_sessions_deinit(struct bop__tls_sessions *sessions);

/** Keep a session, whose reference is taken over if the result is true. */
BOP_MUST_USE bool bop__tls_sessions_put(struct bop__tls_sessions *sessions, const char *name,
                                        SSL_SESSION *session);
/** The newest of a name, the caller's to free; NULL: none. */
BOP_MUST_USE SSL_SESSION *bop__tls_sessions_take(struct bop__tls_sessions *sessions,
                                                 const char *name);

#endif
