/*
 * What a bop_tls takes and what it refuses, each refusal with one line that
 * names the file and says why.
 */
#include <bop/tls.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "certs.h"
#include "openssl_faults.h"
#include "tap.h"

struct fixture {
    struct cert ca;
    struct cert server;
    const char *directory;
    const char *cert_file;
    const char *key_file;
};

static void setup(struct fixture *f)
{
    f->ca = cert_make(&(struct cert_options){.name = "Test CA"});
    f->server = cert_make(
        &(struct cert_options){.name = "a.test", .alternatives = "DNS:a.test", .issuer = &f->ca});
    f->directory = test_tmpdir();
    f->cert_file = cert_write(f->directory, "cert.pem", f->server.pem);
    f->key_file = cert_write(f->directory, "key.pem", f->server.key_pem);
}

static void teardown(struct fixture *f)
{
    cert_free(&f->ca);
    cert_free(&f->server);
}

FIXTURE(setup, teardown)

static struct bop_tls_options files(struct fixture *f)
{
    return (struct bop_tls_options){
        .server = true, .identity = {.cert_file = f->cert_file, .key_file = f->key_file}};
}

/* The options are refused with a line that has both texts. */
static void check_refused(const struct bop_tls_options *options, int code, const char *where,
                          const char *why)
{
    struct bop_error err = {0};
    struct bop_tls *tls = NULL;
    int rc = bop_tls_create(options, &tls, &err);

    CHECK_EQ(rc, code);
    CHECK_EQ(err.code, code);
    CHECK_STR_HAS(err.message, where);
    CHECK_STR_HAS(err.message, why);
    CHECK(strchr(err.message, '\n') == NULL);
    CHECK_PTR_EQ(tls, NULL);
}

static void check_taken(const struct bop_tls_options *options)
{
    struct bop_error err = {0};
    struct bop_tls *tls = NULL;
    int rc = bop_tls_create(options, &tls, &err);

    CHECK_EQ(rc, 0);
    CHECK_STR_EQ(err.message, "");
    bop_tls_destroy(tls);
}

TEST(tls, takes_files_and_memory)
{
    struct bop_tls_options options = files(f);
    char both[16384];

    check_taken(&options);
    options.identity = (struct bop_tls_identity){.cert_pem = cert_pem(&f->server),
                                                 .key_pem = cert_key_pem(&f->server)};
    check_taken(&options);
    snprintf(both, sizeof(both), "%s%s%s", f->server.key_pem, f->server.pem, f->ca.pem);
    options.identity = (struct bop_tls_identity){.cert_pem = bytes(both)};
    check_taken(&options);
    options.identity = (struct bop_tls_identity){
        .cert_file = cert_write(f->directory, "both.pem", both)};
    options.ca_pem = cert_pem(&f->ca);
    options.verify = BOP_TLS_VERIFY_OPTIONAL;
    check_taken(&options);
    check_taken(&(struct bop_tls_options){.ca_pem = cert_pem(&f->ca)});
    check_taken(&(struct bop_tls_options){.server = false}); /* The system's authorities. */
    bop_tls_destroy(NULL);
}

TEST(tls, takes_a_passphrase)
{
    struct cert secret = cert_make(
        &(struct cert_options){.name = "a.test", .issuer = &f->ca, .passphrase = "open sesame"});
    struct bop_tls_options options = files(f);

    options.identity.cert_file = cert_write(f->directory, "secret.pem", secret.pem);
    options.identity.key_file = cert_write(f->directory, "secret.key", secret.key_pem);
    options.identity.passphrase = "open sesame";
    check_taken(&options);
    options.identity.passphrase = "open barley";
    check_refused(&options, BOP_ETLS, "/secret.key", "the passphrase is wrong");
    options.identity.passphrase = NULL;
    check_refused(&options, BOP_ETLS, "/secret.key", "encrypted and no passphrase");
    cert_free(&secret);
}

TEST(tls, names_the_file_it_cannot_read)
{
    struct bop_tls_options options = files(f);
    const char *missing = test_path(f->directory, "missing.pem");

    options.identity.cert_file = missing;
    check_refused(&options, -ENOENT, "/missing.pem", "No such file");
    options = files(f);
    options.identity.key_file = missing;
    check_refused(&options, -ENOENT, "/missing.pem", "No such file");
    options = files(f);
    options.ca_file = missing;
    check_refused(&options, -ENOENT, "/missing.pem", "No such file");
    options = files(f);
    options.dh_file = missing;
    check_refused(&options, -ENOENT, "/missing.pem", "No such file");
    options = files(f);
    options.identity.cert_file = f->directory;
    check_refused(&options, -EISDIR, f->directory, "directory");
}

TEST(tls, names_the_file_that_holds_something_else)
{
    const char *text = cert_write(f->directory, "text", "hello\n");
    const char *empty = cert_write(f->directory, "empty", "");
    const char *broken = cert_write(f->directory, "broken",
                                    "-----BEGIN CERTIFICATE-----\nAAAA\n"
                                    "-----END CERTIFICATE-----\n");
    const char *broken_key = cert_write(f->directory, "broken.key",
                                        "-----BEGIN PRIVATE KEY-----\nAAAA\n"
                                        "-----END PRIVATE KEY-----\n");
    struct bop_tls_options options = files(f);

    options.identity.cert_file = text;
    check_refused(&options, BOP_ETLS, "/text", "no certificate");
    options.identity.cert_file = empty;
    check_refused(&options, BOP_ETLS, "/empty", "no certificate");
    options.identity.cert_file = f->key_file;
    check_refused(&options, BOP_ETLS, "/key.pem", "no certificate");
    options.identity.cert_file = broken;
    check_refused(&options, BOP_ETLS, "/broken", "broken");
    options = files(f);
    options.identity.key_file = text;
    check_refused(&options, BOP_ETLS, "/text", "no private key");
    options.identity.key_file = f->cert_file;
    check_refused(&options, BOP_ETLS, "/cert.pem", "no private key");
    options.identity.key_file = NULL;
    check_refused(&options, BOP_ETLS, "/cert.pem", "no private key");
    options.identity.key_file = broken_key;
    check_refused(&options, BOP_ETLS, "/broken.key", "broken");
    options = files(f);
    options.ca_file = text;
    check_refused(&options, BOP_ETLS, "/text", "no certificate");
    options = files(f);
    options.dh_file = f->key_file;
    check_refused(&options, BOP_ETLS, "/key.pem", "no DH parameters");
}

TEST(tls, refuses_the_key_of_another_certificate)
{
    struct bop_tls_options options = files(f);

    options.identity.key_file = cert_write(f->directory, "ca.key", f->ca.key_pem);
    check_refused(&options, BOP_ETLS, "/ca.key", "does not belong to the certificate of");
}

TEST(tls, refuses_what_is_not_good_today)
{
    struct cert past = cert_make(
        &(struct cert_options){.name = "a.test", .issuer = &f->ca, .from_days = -9, .to_days = -2});
    struct cert future = cert_make(
        &(struct cert_options){.name = "a.test", .issuer = &f->ca, .from_days = 2, .to_days = 9});
    struct bop_tls_options options = files(f);

    options.identity = (struct bop_tls_identity){
        .cert_file = cert_write(f->directory, "past.pem", past.pem),
        .key_pem = cert_key_pem(&past)};
    check_refused(&options, BOP_ETLS, "/past.pem", "expired on 2");
    options.identity = (struct bop_tls_identity){.cert_pem = cert_pem(&future),
                                                 .key_pem = cert_key_pem(&future)};
    check_refused(&options, BOP_ETLS, "the certificate in memory", "is not good before 2");
    cert_free(&past);
    cert_free(&future);
}

TEST(tls, refuses_a_key_too_small)
{
    struct cert small = cert_make(
        &(struct cert_options){.name = "a.test", .issuer = &f->ca, .rsa = true, .rsa_bits = 1024});
    struct bop_tls_options options = files(f);

    options.identity = (struct bop_tls_identity){
        .cert_file = cert_write(f->directory, "small.pem", small.pem),
        .key_pem = cert_key_pem(&small)};
    check_refused(&options, BOP_ETLS, "/small.pem", "key too small");
    cert_free(&small);
}

TEST(tls, refuses_options_without_sense)
{
    struct bop_tls_options options = {.server = true};
    const char *const long_name[] = {"", NULL};

    check_refused(&options, BOP_EINVAL, "server", "needs a certificate");
    options = files(f);
    options.verify = BOP_TLS_VERIFY_REQUIRED;
    check_refused(&options, BOP_EINVAL, "verifies clients", "needs a CA");
    options = files(f);
    options.alpn = long_name;
    check_refused(&options, BOP_EINVAL, "ALPN", "\"\"");
    options = files(f);
    options.ciphers = "no-such-cipher";
    check_refused(&options, BOP_ETLS, "no-such-cipher", "no cipher match");
    options = files(f);
    options.ciphersuites = "no-such-suite";
    check_refused(&options, BOP_ETLS, "no-such-suite", "no cipher match");
    check_refused(&(struct bop_tls_options){.identity = {.key_file = f->key_file}}, BOP_EINVAL,
                  "key", "without its certificate");
}

TEST(tls, takes_names_and_refuses_what_is_none)
{
    static const char *const bad[] = {"",        ".",   "*",       "*.", "a.*",
                                      "*a.test", "a b", "**.test", "a\n"};
    struct bop_tls_options options = files(f);
    struct bop_error err = {0};
    struct bop_tls *tls;

    REQUIRE_EQ(bop_tls_create(&options, &tls, NULL), 0);
    CHECK_EQ(bop_tls_add_name(tls, "B.Test.", &options.identity, &err), 0);
    CHECK_EQ(bop_tls_add_name(tls, "b.test", &options.identity, &err), 0);
    CHECK_EQ(bop_tls_add_name(tls, "*.c.test", &options.identity, &err), 0);
    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        CHECK_EQ(bop_tls_add_name(tls, bad[i], &options.identity, &err), BOP_EINVAL);
    }
    bop_tls_remove_name(tls, "b.TEST");
    bop_tls_remove_name(tls, "nobody.test");
    options.identity.key_file = test_path(f->directory, "missing.pem");
    CHECK_EQ(bop_tls_add_name(tls, "d.test", &options.identity, &err), -ENOENT);
    CHECK_STR_HAS(err.message, "d.test");
    CHECK_STR_HAS(err.message, "/missing.pem");
    bop_tls_destroy(tls);
}

/* A reload that fails says why and changes nothing: the next one succeeds. */
TEST(tls, reloads_all_or_nothing)
{
    struct bop_tls_options options = files(f);
    struct bop_error err = {0};
    struct bop_tls *tls;
    int rc;

    REQUIRE_EQ(bop_tls_create(&options, &tls, NULL), 0);
    REQUIRE_EQ(bop_tls_add_name(tls, "b.test", &options.identity, NULL), 0);
    rc = unlink(f->key_file);
    REQUIRE_EQ(rc, 0);
    CHECK_EQ(bop_tls_reload(tls, NULL, &err), -ENOENT);
    CHECK_STR_HAS(err.message, "/key.pem");
    options.identity = (struct bop_tls_identity){.cert_pem = cert_pem(&f->server),
                                                 .key_pem = cert_key_pem(&f->server)};
    CHECK_EQ(bop_tls_reload(tls, &options.identity, &err), -ENOENT); /* The name's are read too. */
    CHECK_STR_HAS(err.message, "b.test");
    bop_tls_remove_name(tls, "b.test");
    CHECK_EQ(bop_tls_reload(tls, &options.identity, &err), 0);
    CHECK_EQ(bop_tls_reload(tls, NULL, &err), 0); /* From memory now. */
    bop_tls_destroy(tls);
}

TEST(tls, takes_dh_parameters)
{
    /* RFC 7919, ffdhe2048. */
    static const char ffdhe2048[] =
        "-----BEGIN DH PARAMETERS-----\n"
        "MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz\n"
        "+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a\n"
        "87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7\n"
        "YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi\n"
        "7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD\n"
        "ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==\n"
        "-----END DH PARAMETERS-----\n";
    struct bop_tls_options options = files(f);

    options.dh_file = cert_write(f->directory, "dh.pem", ffdhe2048);
    check_taken(&options);
}

/* Whichever allocation of OpenSSL fails, the caller gets an object that is whole
 * or an error that says something; nothing crashes. Rounds grow apart: there
 * are thousands of allocations, and OpenSSL's ways of failing are few. */
TEST(tls, survives_openssl_without_memory)
{
    struct bop_tls_options options = files(f);
    unsigned failures = 0;
    bool fired = true;
    struct bop_tls *tls;

    options.ca_pem = cert_pem(&f->ca);
    REQUIRE_EQ(bop_tls_create(&options, &tls, NULL), 0); /* What is made once is made. */
    bop_tls_destroy(tls);
    for (unsigned long at = 1; fired; at += 1 + at / 16) {
        struct bop_error err = {0};
        int rc;

        tls = NULL;
        openssl_fail_at(at);
        rc = bop_tls_create(&options, &tls, &err);
        fired = openssl_failed();
        CHECK_EQ(rc == 0, tls != NULL);
        CHECK_EQ(rc == 0, err.message[0] == '\0');
        failures += rc != 0 ? 1 : 0;
        bop_tls_destroy(tls);
    }
    CHECK(failures > 20);
}
