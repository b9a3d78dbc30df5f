/*
 * A bop_tls: made, changed and freed. See context.h for who holds which lock.
 */
#include <openssl/err.h>
#include <string.h>

#include "context.h"
#include "tls_internal.h"

#define HANDSHAKES_PER_TURN_DEFAULT  8
#define HANDSHAKE_TIMEOUT_MS_DEFAULT 10000

static char *copy_text(const char *text, bool *failed)
{
    char *copy;

    if (text == NULL) {
        return NULL;
    }
    copy = OPENSSL_strdup(text);
    *failed = *failed || copy == NULL;
    return copy;
}

/* ---- References ---- */

void bop__tls_ref(struct bop_tls *tls)
{
    /* Relaxed: who takes one has one, or the user's promise that it is alive. */
    atomic_fetch_add_explicit(&tls->references, 1, memory_order_relaxed);
}

static void free_tls(struct bop_tls *tls)
{
    bop__tls_set_deinit(&tls->set);
    bop__tls_source_deinit(&tls->source);
    bop__tls_tickets_deinit(&tls->tickets);
    bop__tls_sessions_deinit(&tls->sessions);
    pthread_mutex_destroy(&tls->lock);
    pthread_mutex_destroy(&tls->change);
    OPENSSL_free(tls->ca_file);
    OPENSSL_free(tls->ca_path);
    OPENSSL_free(tls->ciphers);
    OPENSSL_free(tls->ciphersuites);
    OPENSSL_free(tls->dh_file);
    bop_buf_deinit(&tls->ca_pem);
    bop_buf_deinit(&tls->plain_answer);
    bop_buf_deinit(&tls->alpn);
    OPENSSL_free(tls);
}

void bop__tls_unref(struct bop_tls *tls)
{
    /* Release what this thread did with it to the one that frees it, which acquires it. */
    if (atomic_fetch_sub_explicit(&tls->references, 1, memory_order_acq_rel) == 1) {
        free_tls(tls);
    }
}

void bop_tls_destroy(struct bop_tls *tls)
{
    if (tls != NULL) {
        bop__tls_unref(tls);
    }
}

struct bop_tls *bop__tls_of(const SSL *ssl)
{
    return (struct bop_tls *)SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

SSL_CTX *bop__tls_context(struct bop_tls *tls)
{
    SSL_CTX *ctx;

    pthread_mutex_lock(&tls->lock);
    ctx = tls->set.ctx;
    SSL_CTX_up_ref(ctx);
    pthread_mutex_unlock(&tls->lock);
    return ctx;
}

/* ---- Making one ---- */

static int copy_alpn(struct bop_tls *tls, const char *const *names, struct bop_error *err)
{
    for (; names != NULL && *names != NULL; names++) {
        size_t size = strlen(*names);
        uint8_t length = (uint8_t)size;

        if (size == 0 || size > 255 || tls->alpn.size + 1 + size > UINT16_MAX) {
            return bop_error_set(err, BOP_EINVAL, "ALPN name \"%s\"", *names);
        }
        if (bop_buf_append(&tls->alpn, &length, 1) != 0 ||
            bop_buf_append(&tls->alpn, *names, size) != 0) {
            return bop_error_set(err, BOP_ENOMEM, "load TLS");
        }
    }
    return 0;
}

static enum bop_tls_verify effective_verify(const struct bop_tls_options *options)
{
    bool has_ca = options->ca_file != NULL || options->ca_path != NULL || options->ca_pem.size > 0;

    if (options->verify == BOP_TLS_VERIFY_DEFAULT) {
        return !options->server || has_ca ? BOP_TLS_VERIFY_REQUIRED : BOP_TLS_VERIFY_NONE;
    }
    return options->verify;
}

static int check_options(const struct bop_tls_options *options, struct bop_error *err)
{
    const struct bop_tls_identity *identity = &options->identity;
    bool has_identity = identity->cert_file != NULL || identity->cert_pem.size > 0;
    bool has_ca = options->ca_file != NULL || options->ca_path != NULL || options->ca_pem.size > 0;

    if (options->server && !has_identity) {
        return bop_error_say(err, BOP_EINVAL, "a TLS server needs a certificate");
    }
    if (!has_identity && (identity->key_file != NULL || identity->key_pem.size > 0)) {
        return bop_error_say(err, BOP_EINVAL, "a key was given without its certificate");
    }
    /* The public authorities vouch for servers; to let in whoever they know is a mistake. */
    if (options->server && !has_ca && effective_verify(options) != BOP_TLS_VERIFY_NONE) {
        return bop_error_say(err, BOP_EINVAL, "a TLS server that verifies clients needs a CA");
    }
    return 0;
}

static int copy_options(struct bop_tls *tls, const struct bop_tls_options *options,
                        struct bop_error *err)
{
    bool failed = false;

    tls->server = options->server;
    tls->tls13_only = options->tls13_only;
    tls->no_tickets = options->no_tickets;
    tls->verify = effective_verify(options);
    tls->handshakes_per_turn = options->handshakes_per_turn ? options->handshakes_per_turn
                                                            : HANDSHAKES_PER_TURN_DEFAULT;
    tls->handshake_timeout_ms = options->handshake_timeout_ms ? options->handshake_timeout_ms
                                                              : HANDSHAKE_TIMEOUT_MS_DEFAULT;
    tls->on_unknown_name = options->on_unknown_name;
    tls->user = options->user;
    tls->ca_file = copy_text(options->ca_file, &failed);
    tls->ca_path = copy_text(options->ca_path, &failed);
    tls->ciphers = copy_text(options->ciphers, &failed);
    tls->ciphersuites = copy_text(options->ciphersuites, &failed);
    tls->dh_file = copy_text(options->dh_file, &failed);
    bop_buf_init(&tls->ca_pem, NULL, 0);
    bop_buf_init(&tls->plain_answer, NULL, 0);
    bop_buf_init(&tls->alpn, NULL, 0);
    if (failed || bop_buf_append(&tls->ca_pem, options->ca_pem.data, options->ca_pem.size) != 0 ||
        bop_buf_append(&tls->plain_answer, options->plain_answer.data,
                       options->plain_answer.size) != 0) {
        return bop_error_set(err, BOP_ENOMEM, "load TLS");
    }
    return copy_alpn(tls, options->alpn, err);
}

int bop_tls_create(const struct bop_tls_options *options, struct bop_tls **out_tls,
                   struct bop_error *err)
{
    struct bop_tls *tls;
    int rc = check_options(options, err);

    if (rc != 0) {
        return rc;
    }
    tls = OPENSSL_zalloc(sizeof(*tls));
    if (tls == NULL) {
        return bop_error_set(err, BOP_ENOMEM, "load TLS");
    }
    atomic_init(&tls->references, 1);
    BOP_ASSERT(pthread_mutex_init(&tls->lock, NULL) == 0);
    BOP_ASSERT(pthread_mutex_init(&tls->change, NULL) == 0);
    bop__tls_tickets_init(&tls->tickets);
    bop__tls_sessions_init(&tls->sessions);
    rc = copy_options(tls, options, err);
    if (rc == 0) {
        rc = bop_tls_reload(tls, &options->identity, err);
    }
    if (rc != 0) {
        bop__tls_unref(tls);
        return rc;
    }
    *out_tls = tls;
    return 0;
}

/* ---- Changing it ---- */

/* Load a name anew. */
static int build_name(struct bop_tls *tls, const struct bop__tls_trust *trust, const char *name,
                      const struct bop_tls_identity *identity, struct bop__tls_name *out_entry,
                      struct bop_error *err)
{
    struct bop__tls_name entry = {.name = OPENSSL_strdup(name)};
    int rc = entry.name != NULL ? bop__tls_source_copy(&entry.source, identity) : BOP_ENOMEM;

    if (rc != 0) {
        OPENSSL_free(entry.name);
        return bop_error_set(err, rc, "load TLS for %s", name);
    }
    rc = bop__tls_context_create(tls, trust, identity, &entry.ctx, err);
    if (rc != 0) {
        OPENSSL_free(entry.name);
        bop__tls_source_deinit(&entry.source);
        BOP_IGNORE(bop_error_wrap(err, "load TLS for %s", name));
        return rc;
    }
    *out_entry = entry;
    return 0;
}

static void free_entry(struct bop__tls_name *entry)
{
    OPENSSL_free(entry->name);
    bop__tls_source_deinit(&entry->source);
    SSL_CTX_free(entry->ctx);
}

/* Load the default identity and all names anew. With `change`. */
static int build_set(struct bop_tls *tls, const struct bop__tls_trust *trust,
                     const struct bop_tls_identity *identity, struct bop__tls_set *set,
                     struct bop_error *err)
{
    int rc = bop__tls_context_create(tls, trust, identity, &set->ctx, err);

    for (size_t i = 0; i < tls->set.count && rc == 0; i++) {
        struct bop_tls_identity source = bop__tls_source_view(&tls->set.names[i].source);
        struct bop__tls_name entry;

        rc = build_name(tls, trust, tls->set.names[i].name, &source, &entry, err);
        if (rc == 0) {
            rc = bop__tls_set_put(set, &entry);
            if (rc != 0) {
                free_entry(&entry);
                rc = bop_error_set(err, rc, "load TLS");
            }
        }
    }
    return rc;
}

/* With `change`. */
static int reload(struct bop_tls *tls, struct bop__tls_source *source, struct bop_error *err)
{
    struct bop_tls_identity identity = bop__tls_source_view(source);
    struct bop__tls_set set = {.ctx = NULL}, old;
    struct bop__tls_trust trust;
    int rc = bop__tls_trust_load(tls, &trust, err);

    if (rc != 0) {
        return rc;
    }
    rc = build_set(tls, &trust, &identity, &set, err);
    bop__tls_trust_deinit(&trust);
    if (rc != 0) {
        bop__tls_set_deinit(&set);
        return rc;
    }
    pthread_mutex_lock(&tls->lock);
    old = tls->set;
    tls->set = set;
    pthread_mutex_unlock(&tls->lock);
    bop__tls_set_deinit(&old);
    /* What servers were trusted by may have changed. */
    bop__tls_sessions_clear(&tls->sessions);
    return 0;
}

int bop_tls_reload(struct bop_tls *tls, const struct bop_tls_identity *identity,
                   struct bop_error *err)
{
    struct bop__tls_source source;
    int rc = 0;

    if (identity != NULL) {
        rc = bop__tls_source_copy(&source, identity);
        if (rc != 0) {
            return bop_error_set(err, rc, "load TLS");
        }
    }
    pthread_mutex_lock(&tls->change);
    rc = reload(tls, identity != NULL ? &source : &tls->source, err);
    if (rc == 0 && identity != NULL) {
        struct bop__tls_source old = tls->source;

        tls->source = source;
        source = old;
    }
    pthread_mutex_unlock(&tls->change);
    if (identity != NULL) {
        bop__tls_source_deinit(&source);
    }
    return rc;
}

/* With `change`. */
static int add_name(struct bop_tls *tls, const char *name, const struct bop_tls_identity *identity,
                    struct bop_error *err)
{
    struct bop__tls_trust trust;
    struct bop__tls_name entry;
    int rc = bop__tls_trust_load(tls, &trust, err);

    if (rc != 0) {
        return rc;
    }
    rc = build_name(tls, &trust, name, identity, &entry, err);
    bop__tls_trust_deinit(&trust);
    if (rc != 0) {
        return rc;
    }
    pthread_mutex_lock(&tls->lock);
    rc = bop__tls_set_put(&tls->set, &entry);
    pthread_mutex_unlock(&tls->lock);
    if (rc != 0) {
        free_entry(&entry);
        return bop_error_set(err, rc, "load TLS for %s", name);
    }
    return 0;
}

int bop_tls_add_name(struct bop_tls *tls, const char *name, const struct bop_tls_identity *identity,
                     struct bop_error *err)
{
    char normal[BOP__TLS_NAME_MAX + 1];
    int rc;

    if (!tls->server || !bop__tls_name_normalize(name, true, normal) ||
        (identity->cert_file == NULL && identity->cert_pem.size == 0)) {
        return bop_error_set(err, BOP_EINVAL, "TLS for the name \"%s\"", name);
    }
    pthread_mutex_lock(&tls->change);
    rc = add_name(tls, normal, identity, err);
    pthread_mutex_unlock(&tls->change);
    return rc;
}

void bop_tls_remove_name(struct bop_tls *tls, const char *name)
{
    char normal[BOP__TLS_NAME_MAX + 1];

    if (!bop__tls_name_normalize(name, true, normal)) {
        return;
    }
    pthread_mutex_lock(&tls->change);
    pthread_mutex_lock(&tls->lock);
    bop__tls_set_remove(&tls->set, normal);
    pthread_mutex_unlock(&tls->lock);
    pthread_mutex_unlock(&tls->change);
}
