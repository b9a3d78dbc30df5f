#include "tickets.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <string.h>

void bop__tls_tickets_init(struct bop__tls_tickets *tickets)
{
    memset(tickets, 0, sizeof(*tickets));
    BOP_ASSERT(pthread_mutex_init(&tickets->lock, NULL) == 0);
}

void bop__tls_tickets_deinit(struct bop__tls_tickets *tickets)
{
    OPENSSL_cleanse(tickets->keys, sizeof(tickets->keys));
    pthread_mutex_destroy(&tickets->lock);
}

/* With the lock. */
static bool rotate(struct bop__tls_tickets *tickets, uint64_t now_ms)
{
    struct bop__tls_ticket_key key;
    uint64_t periods;

    /* Loops read the clock at different times: one that is behind changes nothing. */
    if (tickets->count > 0 && now_ms < tickets->made_ms + BOP__TLS_TICKET_ROTATE_MS) {
        return true;
    }
    if (RAND_priv_bytes((unsigned char *)&key, sizeof(key)) != 1) {
        return tickets->count > 0;
    }
    /* Where nobody came for a while, the keys between have been skipped: they are as old. */
    periods = tickets->count > 0 ? (now_ms - tickets->made_ms) / BOP__TLS_TICKET_ROTATE_MS : 0;
    if (periods >= BOP__TLS_TICKET_KEYS) {
        tickets->count = 0;
    }
    memmove(&tickets->keys[1], &tickets->keys[0],
            (BOP__TLS_TICKET_KEYS - 1) * sizeof(tickets->keys[0]));
    tickets->keys[0] = key;
    tickets->count += tickets->count < BOP__TLS_TICKET_KEYS ? 1 : 0;
    tickets->made_ms = now_ms;
    OPENSSL_cleanse(&key, sizeof(key));
    return true;
}

bool bop__tls_tickets_rotate(struct bop__tls_tickets *tickets, uint64_t now_ms)
{
    bool usable;

    pthread_mutex_lock(&tickets->lock);
    usable = rotate(tickets, now_ms);
    pthread_mutex_unlock(&tickets->lock);
    return usable;
}

/* The key of a name, and whether it is the newest. */
static bool find(struct bop__tls_tickets *tickets, const unsigned char *name,
                 struct bop__tls_ticket_key *out_key, bool *out_newest)
{
    bool found = false;

    pthread_mutex_lock(&tickets->lock);
    for (unsigned i = 0; i < tickets->count && !found; i++) {
        if (memcmp(tickets->keys[i].name, name, sizeof(tickets->keys[i].name)) == 0) {
            *out_key = tickets->keys[i];
            *out_newest = i == 0;
            found = true;
        }
    }
    pthread_mutex_unlock(&tickets->lock);
    return found;
}

static bool newest(struct bop__tls_tickets *tickets, struct bop__tls_ticket_key *out_key)
{
    bool found;

    pthread_mutex_lock(&tickets->lock);
    found = tickets->count > 0;
    if (found) {
        *out_key = tickets->keys[0];
    }
    pthread_mutex_unlock(&tickets->lock);
    return found;
}

static bool set_keys(struct bop__tls_ticket_key *key, const unsigned char *iv,
                     EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool seal)
{
    char digest[] = "sha256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->hmac, sizeof(key->hmac)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };

    return EVP_MAC_CTX_set_params(mac, params) == 1 &&
           EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->aes, iv, seal ? 1 : 0) == 1;
}

int bop__tls_tickets_use(struct bop__tls_tickets *tickets, uint64_t now_ms, unsigned char *name,
                         unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool seal)
{
    struct bop__tls_ticket_key key;
    bool is_newest = true;
    int result = -1;

    if (!bop__tls_tickets_rotate(tickets, now_ms)) {
        return seal ? -1 : 0;
    }
    if (!seal) {
        if (!find(tickets, name, &key, &is_newest)) {
            return 0; /* Not ours any more: a full handshake. */
        }
    } else if (!newest(tickets, &key) ||
               RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1) {
        return -1;
    } else {
        memcpy(name, key.name, sizeof(key.name));
    }
    if (set_keys(&key, iv, cipher, mac, seal)) {
        result = is_newest ? 1 : 2; /* 2: give a new ticket. */
    }
    OPENSSL_cleanse(&key, sizeof(key));
    return result;
}
