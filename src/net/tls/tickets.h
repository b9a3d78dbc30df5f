/*
 * The keys that session tickets are sealed with: made at random, never stored,
 * shared by all names and all reloads of one bop_tls, and changed every hour.
 *
 * A ticket is good for two hours at most, so three keys are kept. Whoever gets
 * hold of the process's memory can read no session older than that.
 *
 * Threads: any.
 */
#ifndef BOP_NET_TLS_TICKETS_H
#define BOP_NET_TLS_TICKETS_H

#include <bop/base.h>
#include <openssl/ssl.h>
#include <pthread.h>

#define BOP__TLS_TICKET_ROTATE_MS (UINT64_C(3600) * 1000)
#define BOP__TLS_TICKET_KEYS      3
/* A ticket's life, in seconds: as long as its key is kept in any case. */
#define BOP__TLS_TICKET_LIFE_S ((BOP__TLS_TICKET_KEYS - 1) * 3600)

struct bop__tls_ticket_key {
    unsigned char name[16]; /* Sent in the clear, to find the key again. */
    unsigned char aes[32];
    unsigned char hmac[32];
};

struct bop__tls_tickets {
    pthread_mutex_t lock;
    struct bop__tls_ticket_key keys[BOP__TLS_TICKET_KEYS]; /* Newest first. */
    unsigned count;
    uint64_t made_ms; /* The newest, by the loop's clock. */
};

void bop__tls_tickets_init(struct bop__tls_tickets *tickets);
void bop__tls_tickets_deinit(struct bop__tls_tickets *tickets);

/** Make a new key the one to seal with, if it is time. Returns whether there is one at all. */
bool bop__tls_tickets_rotate(struct bop__tls_tickets *tickets, uint64_t now_ms);

/** Seal (or open) a ticket: what SSL_CTX_set_tlsext_ticket_key_evp_cb()'s callback returns. */
int bop__tls_tickets_use(struct bop__tls_tickets *tickets, uint64_t now_ms, unsigned char *name,
                         unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool seal);

#endif
