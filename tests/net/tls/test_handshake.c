/*
 * Handshakes: who answers to which name, what is agreed on, who is let in.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../../src/net/tls/context.h"
#include "tls_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

/* A server and a client with the options as they are. */
static void start(struct fixture *f)
{
    struct bop_tls_options server = server_options(f);
    struct bop_tls_options client = client_options(f);

    make_server(f, &server);
    make_client(f, &client);
    start_listening(f, NULL);
}

/* Connect in vain: the client closes with a text that has this in it. */
static void check_client_fails(struct fixture *f, const char *name, const char *text)
{
    struct end client;
    unsigned before = f->accepts;

    end_init(&client, f);
    end_connect(&client, f->client, name);
    /* It may fail before the other side has as much as accepted it. */
    TURN_UNTIL(client.closes == 1 && f->accepts == before + 1);
    CHECK_EQ(client.opens, 0);
    CHECK_EQ(client.reason, BOP_ETLS);
    CHECK_STR_HAS(client.text, text);
    end_deinit(&client);
}

TEST(handshake, carries_bytes_both_ways)
{
    struct end client, *server;

    start(f);
    end_init(&client, f);
    end_connect(&client, f->client, "a.test");
    end_write(&client, "before it is open, "); /* Waits for the handshake. */
    TURN_UNTIL(client.opens == 1);
    end_write(&client, "and after");
    server = &f->accepted[0];
    TURN_UNTIL(server->got.size == 28);
    CHECK_SLICE_EQ(bop_buf_slice(&server->got), bytes("before it is open, and after"));
    end_write(server, "hello");
    TURN_UNTIL(client.got.size == 5);
    CHECK_EQ(server->opens, 1);
    CHECK_STR_EQ(client.info.version, "TLSv1.3");
    CHECK_STR_EQ(client.info.cipher, "TLS_AES_128_GCM_SHA256");
    CHECK_STR_EQ(server->info.server_name, "a.test");
    CHECK_EQ(client.info.alpn.size, 0);
    CHECK(client.info.peer_verified);
    CHECK(!server->info.peer_verified);
    CHECK(!client.info.resumed);
    close_both(&client, server);
    CHECK_EQ(client.reason, BOP_ECANCELED);
    CHECK_EQ(server->ends, 1);
    end_deinit(&client);
}

/* As a peer that is older than TLS 1.3. */
static void limit_to_tls_1_2(struct bop_tls *tls)
{
    SSL_CTX *ctx = bop__tls_context(tls);

    CHECK_EQ(SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION), 1);
    SSL_CTX_free(ctx);
}

TEST(handshake, speaks_tls_1_2_with_who_has_no_more)
{
    struct bop_tls_options options = server_options(f);
    struct end client, *server;

    start(f);
    limit_to_tls_1_2(f->client);
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    CHECK_STR_EQ(server->info.version, "TLSv1.2");
    CHECK_STR_EQ(client.info.cipher, "ECDHE-ECDSA-AES128-GCM-SHA256");
    end_write(&client, "hello");
    TURN_UNTIL(server->got.size == 5);
    close_both(&client, server);
    end_deinit(&client);
    options.tls13_only = true;
    bop_listener_close(f->listener);
    make_server(f, &options);
    start_listening(f, NULL);
    check_client_fails(f, "a.test", "the peer gave up: protocol version");
}

TEST(handshake, verifies_the_name)
{
    struct end client, *server;

    start(f);
    check_client_fails(f, "b.test", "hostname mismatch");
    check_client_fails(f, "127.0.0.2", "IP address mismatch");
    check_client_fails(f, "no name", "no name");
    end_init(&client, f);
    server = connect_both(&client, NULL); /* By the host: an address of the certificate. */
    CHECK(server->info.server_name == NULL);
    CHECK(client.info.peer_verified);
    close_both(&client, server);
    end_deinit(&client);
}

TEST(handshake, verifies_the_issuer)
{
    struct cert other = cert_make(&(struct cert_options){.name = "Other CA"});
    struct bop_tls_options options = client_options(f);
    struct end client, *server;

    start(f);
    options.ca_pem = cert_pem(&other);
    make_client(f, &options);
    check_client_fails(f, "a.test", "unable to get local issuer certificate");
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, BOP_ETLS);
    CHECK_STR_HAS(f->accepted[0].text, "the peer gave up: unknown CA");
    options.verify = BOP_TLS_VERIFY_NONE;
    make_client(f, &options);
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    CHECK(!client.info.peer_verified);
    close_both(&client, server);
    end_deinit(&client);
    cert_free(&other);
}

/* What bop_tls_create() would refuse. */
static void present(struct bop_tls *tls, const struct cert *cert)
{
    SSL_CTX *ctx = bop__tls_context(tls);

    CHECK_EQ(SSL_CTX_use_cert_and_key(ctx, cert->x509, cert->key, NULL, 1), 1);
    SSL_CTX_free(ctx);
}

TEST(handshake, verifies_the_dates)
{
    struct cert past = cert_make(&(struct cert_options){.name = "a.test",
                                                        .alternatives = "DNS:a.test",
                                                        .issuer = &f->ca,
                                                        .from_days = -9,
                                                        .to_days = -2});

    start(f);
    present(f->server, &past);
    check_client_fails(f, "a.test", "certificate has expired");
    cert_free(&past);
}

/* ---- SNI ---- */

static struct cert named(struct fixture *f, const char *name, const char *alternatives)
{
    return cert_make(
        &(struct cert_options){.name = name, .alternatives = alternatives, .issuer = &f->ca});
}

static struct bop_tls_identity identity_of(const struct cert *cert)
{
    return (struct bop_tls_identity){.cert_pem = cert_pem(cert), .key_pem = cert_key_pem(cert)};
}

/* Who answers to the name, by the common name of the certificate. */
static void check_answers(struct fixture *f, const char *name, const char *common_name)
{
    struct bop_tls_certificate certificate = {0};
    struct end client, *server;

    end_init(&client, f);
    server = connect_both(&client, name);
    CHECK_EQ(bop_socket_peer_certificate(client.socket, &certificate), 0);
    CHECK_STR_EQ(certificate.common_name, common_name);
    CHECK_EQ(bop_socket_peer_certificate(server->socket, &certificate), BOP_ENOTFOUND);
    close_both(&client, server);
    end_deinit(&client);
}

TEST(sni, chooses_exact_names_over_wildcards_over_the_default)
{
    struct cert exact = named(f, "exact", "DNS:x.b.test");
    struct cert wild = named(f, "wild", "DNS:*.b.test");
    struct cert again = named(f, "again", "DNS:x.b.test");
    struct bop_tls_identity one = identity_of(&exact), two = identity_of(&wild),
                            three = identity_of(&again);
    struct bop_tls_options options = client_options(f);

    start(f);
    options.verify = BOP_TLS_VERIFY_NONE;
    options.no_tickets = true; /* Whoever resumes knows the certificate of the first time. */
    make_client(f, &options);
    REQUIRE_EQ(bop_tls_add_name(f->server, "X.b.test", &one, NULL), 0);
    REQUIRE_EQ(bop_tls_add_name(f->server, "*.b.test", &two, NULL), 0);
    check_answers(f, "x.b.test", "exact");
    check_answers(f, "x.B.test.", "exact");
    check_answers(f, "y.b.test", "wild");
    check_answers(f, "y.x.b.test", "a.test"); /* One label only. */
    check_answers(f, "b.test", "a.test");
    check_answers(f, NULL, "a.test"); /* Without a name. */
    REQUIRE_EQ(bop_tls_add_name(f->server, "x.b.test", &three, NULL), 0);
    make_client(f, &options); /* One that has no tickets of before. */
    check_answers(f, "x.b.test", "again");
    bop_tls_remove_name(f->server, "x.b.test");
    make_client(f, &options);
    check_answers(f, "x.b.test", "wild");
    bop_tls_remove_name(f->server, "*.b.test");
    make_client(f, &options);
    check_answers(f, "x.b.test", "a.test");
    cert_free(&exact);
    cert_free(&wild);
    cert_free(&again);
}

struct unknown {
    struct bop_tls_identity identity;
    unsigned calls;
    char name[64];
};

static bool add_unknown(struct bop_tls *tls, const char *name, void *user)
{
    struct unknown *unknown = (struct unknown *)user;

    unknown->calls++;
    snprintf(unknown->name, sizeof(unknown->name), "%s", name);
    return strcmp(name, "new.test") == 0 &&
           bop_tls_add_name(tls, name, &unknown->identity, NULL) == 0;
}

TEST(sni, asks_for_names_it_does_not_know)
{
    struct cert cert = named(f, "new", "DNS:new.test");
    struct unknown unknown = {.identity = identity_of(&cert)};
    struct bop_tls_options server = server_options(f), client = client_options(f);

    server.on_unknown_name = add_unknown;
    server.user = &unknown;
    client.verify = BOP_TLS_VERIFY_NONE;
    client.no_tickets = true;
    make_server(f, &server);
    make_client(f, &client);
    start_listening(f, NULL);
    check_answers(f, "new.test", "new");
    CHECK_EQ(unknown.calls, 1);
    CHECK_STR_EQ(unknown.name, "new.test");
    check_answers(f, "new.test", "new");
    CHECK_EQ(unknown.calls, 1);
    check_answers(f, "other.test", "a.test");
    CHECK_EQ(unknown.calls, 2);
    cert_free(&cert);
}

/* ---- ALPN ---- */

static void check_alpn(struct fixture *f, const char *const *server_names,
                       const char *const *client_names, const char *chosen)
{
    struct bop_tls_options server_opts = server_options(f), client_opts = client_options(f);
    struct end client, *server;

    server_opts.alpn = server_names;
    client_opts.alpn = client_names;
    bop_listener_close(f->listener);
    f->listener = NULL;
    make_server(f, &server_opts);
    make_client(f, &client_opts);
    start_listening(f, NULL);
    if (chosen == NULL) {
        check_client_fails(f, "a.test", "no application protocol");
        return;
    }
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    CHECK_STR_EQ(client.alpn, chosen);
    CHECK_STR_EQ(server->alpn, chosen);
    close_both(&client, server);
    end_deinit(&client);
}

TEST(alpn, takes_the_first_of_the_server_that_the_client_has)
{
    const char *const both[] = {"h2", "http/1.1", NULL};
    const char *const turned[] = {"http/1.1", "h2", NULL};
    const char *const one[] = {"http/1.1", NULL};
    const char *const other[] = {"smtp", NULL};

    check_alpn(f, both, turned, "h2");
    check_alpn(f, turned, both, "http/1.1");
    check_alpn(f, both, one, "http/1.1");
    check_alpn(f, both, NULL, "");
    check_alpn(f, NULL, both, "");
    check_alpn(f, both, other, NULL);
}

/* ---- Mutual TLS ---- */

static void start_mutual(struct fixture *f, enum bop_tls_verify verify)
{
    struct bop_tls_options server = server_options(f);

    server.ca_pem = cert_pem(&f->ca);
    server.verify = verify;
    make_server(f, &server);
    start_listening(f, NULL);
}

static void become(struct fixture *f, const struct cert *cert)
{
    struct bop_tls_options client = client_options(f);

    if (cert != NULL) {
        client.identity = identity_of(cert);
    }
    make_client(f, &client);
}

TEST(mutual, shows_who_the_client_is)
{
    struct cert me = named(f, "me", "DNS:me.test,DNS:also.test,IP:10.0.0.1,IP:::1,email:me@x.test");
    struct bop_tls_certificate certificate = {0};
    struct bop_buf pem;
    struct end client, *server;

    start_mutual(f, BOP_TLS_VERIFY_DEFAULT);
    become(f, &me);
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    CHECK(server->info.peer_verified);
    CHECK_EQ(bop_socket_peer_certificate(server->socket, &certificate), 0);
    CHECK_STR_EQ(certificate.subject, "CN=me,O=Tests");
    CHECK_STR_EQ(certificate.issuer, "CN=Test CA,O=Tests");
    CHECK_STR_EQ(certificate.common_name, "me");
    CHECK_STR_EQ(certificate.names, "me.test,also.test,10.0.0.1,::1");
    CHECK_EQ(strlen(certificate.sha256), 64);
    CHECK_EQ(strlen(certificate.serial), 16);
    CHECK_EQ(certificate.not_after_s - certificate.not_before_s, 11 * 86400);
    bop_buf_init(&pem, NULL, 0);
    CHECK_EQ(bop_socket_peer_certificate_pem(server->socket, &pem), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&pem), cert_pem(&me));
    bop_buf_deinit(&pem);
    close_both(&client, server);
    CHECK_EQ(bop_socket_peer_certificate(server->socket, &certificate), BOP_ECLOSED);
    end_deinit(&client);
    cert_free(&me);
}

/* In TLS 1.3 a client that is refused learns of it after its own handshake. */
static void check_refused(struct fixture *f, const char *text)
{
    struct end *server = &f->accepted[f->accepts % ACCEPTED_MAX];
    unsigned before = f->accepts;
    struct end client;

    end_init(&client, f);
    end_connect(&client, f->client, "a.test");
    TURN_UNTIL(client.closes == 1 && f->accepts > before && server->closes == 1);
    CHECK_EQ(server->opens, 0);
    CHECK_EQ(server->reason, BOP_ETLS);
    CHECK_STR_HAS(server->text, text);
    CHECK_EQ(client.reason, BOP_ETLS);
    CHECK_STR_HAS(client.text, "the peer gave up");
    end_deinit(&client);
}

TEST(mutual, refuses_none_the_wrong_and_the_expired)
{
    struct cert past = cert_make(
        &(struct cert_options){.name = "me", .issuer = &f->ca, .from_days = -9, .to_days = -2});
    struct cert other_ca = cert_make(&(struct cert_options){.name = "Other CA"});
    struct cert stranger = cert_make(&(struct cert_options){.name = "me", .issuer = &other_ca});

    start_mutual(f, BOP_TLS_VERIFY_DEFAULT);
    become(f, NULL);
    check_refused(f, "peer did not return a certificate");
    become(f, &stranger);
    check_refused(f, "unable to get local issuer certificate");
    become(f, NULL);
    present(f->client, &past);
    check_refused(f, "certificate has expired");
    cert_free(&other_ca);
    cert_free(&stranger);
    cert_free(&past);
}

TEST(mutual, may_be_optional)
{
    struct cert me = named(f, "me", NULL);
    struct cert other_ca = cert_make(&(struct cert_options){.name = "Other CA"});
    struct cert stranger = cert_make(&(struct cert_options){.name = "me", .issuer = &other_ca});
    struct end client, *server;

    start_mutual(f, BOP_TLS_VERIFY_OPTIONAL);
    become(f, NULL);
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    CHECK(!server->info.peer_verified);
    close_both(&client, server);
    end_deinit(&client);
    become(f, &me);
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    CHECK(server->info.peer_verified);
    close_both(&client, server);
    end_deinit(&client);
    become(f, &stranger);
    check_refused(f, "unable to get local issuer certificate");
    cert_free(&me);
    cert_free(&other_ca);
    cert_free(&stranger);
}

/* ---- Resumption ---- */

/* Connect, let the tickets come, close. Returns whether it was resumed. */
static bool connect_once(struct fixture *f, const char *name)
{
    struct end client, *server;
    bool resumed;

    end_init(&client, f);
    server = connect_both(&client, name);
    end_write(server, "x"); /* Behind the tickets. */
    TURN_UNTIL(client.got.size == 1);
    resumed = client.info.resumed;
    CHECK_EQ(server->info.resumed, resumed);
    CHECK(client.info.peer_verified);
    close_both(&client, server);
    end_deinit(&client);
    return resumed;
}

TEST(resumption, spares_the_second_handshake)
{
    start(f);
    CHECK(!connect_once(f, "a.test"));
    CHECK(connect_once(f, "a.test"));
    CHECK(connect_once(f, "a.test"));
    CHECK(!connect_once(f, "127.0.0.1")); /* Another name. */
    CHECK(connect_once(f, "127.0.0.1"));
}

TEST(resumption, works_in_tls_1_2)
{
    struct bop_tls_options client = client_options(f);

    start(f);
    make_client(f, &client);
    limit_to_tls_1_2(f->client);
    CHECK(!connect_once(f, "a.test"));
    CHECK(connect_once(f, "a.test"));
    CHECK(connect_once(f, "a.test"));
}

TEST(resumption, can_be_forbidden_by_either_side)
{
    struct bop_tls_options server = server_options(f), client = client_options(f);

    server.no_tickets = true;
    make_server(f, &server);
    make_client(f, &client);
    start_listening(f, NULL);
    CHECK(!connect_once(f, "a.test"));
    CHECK(!connect_once(f, "a.test"));
    bop_listener_close(f->listener);
    server.no_tickets = false;
    client.no_tickets = true;
    make_server(f, &server);
    make_client(f, &client);
    start_listening(f, NULL);
    CHECK(!connect_once(f, "a.test"));
    CHECK(!connect_once(f, "a.test"));
}

/* A session is one of those who were trusted then. */
TEST(resumption, ends_with_the_authorities)
{
    struct cert other_ca = cert_make(&(struct cert_options){.name = "Other CA"});
    struct cert me = named(f, "me", NULL);
    struct bop_tls_options server = server_options(f);
    const char *ca_file = cert_write(NULL, "ca.pem", f->ca.pem);
    FILE *file;

    server.ca_file = ca_file;
    make_server(f, &server);
    start_listening(f, NULL);
    become(f, &me);
    CHECK(!connect_once(f, "a.test"));
    CHECK(connect_once(f, "a.test"));
    REQUIRE_EQ(bop_tls_reload(f->server, NULL, NULL), 0);
    CHECK(connect_once(f, "a.test")); /* The same ones. */
    file = fopen(ca_file, "w");
    REQUIRE(file != NULL);
    REQUIRE(fputs(other_ca.pem, file) >= 0);
    REQUIRE_EQ(fclose(file), 0);
    REQUIRE_EQ(bop_tls_reload(f->server, NULL, NULL), 0);
    check_refused(f, "unable to get local issuer certificate");
    cert_free(&other_ca);
    cert_free(&me);
}

/* ---- Reload ---- */

TEST(reload, changes_handshakes_to_come_and_nothing_else)
{
    struct cert fresh = named(f, "fresh", "DNS:a.test");
    struct bop_tls_identity identity = identity_of(&fresh);
    struct bop_tls_certificate certificate = {0};
    struct end old, *server;

    start(f);
    end_init(&old, f);
    server = connect_both(&old, "a.test");
    REQUIRE_EQ(bop_tls_reload(f->server, &identity, NULL), 0);
    end_write(&old, "still here");
    TURN_UNTIL(server->got.size == 10);
    CHECK_EQ(bop_socket_peer_certificate(old.socket, &certificate), 0);
    CHECK_STR_EQ(certificate.common_name, "a.test");
    become(f, NULL); /* With no session of before. */
    check_answers(f, "a.test", "fresh");
    close_both(&old, server);
    end_deinit(&old);
    cert_free(&fresh);
}

/* Connections go on without the object that they were made by. */
TEST(destroy, leaves_connections_alone)
{
    struct end client, *server;

    start(f);
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    bop_listener_close(f->listener);
    f->listener = NULL;
    bop_tls_destroy(f->server);
    f->server = NULL;
    end_write(&client, "still here");
    TURN_UNTIL(server->got.size == 10);
    close_both(&client, server);
    end_deinit(&client);
}

TEST(info, knows_plain_and_unfinished_sockets)
{
    struct bop_tls_certificate certificate;
    struct bop_tls_info info;
    struct end plain;

    start(f);
    end_init(&plain, f);
    end_connect(&plain, NULL, NULL);
    TURN_UNTIL(f->accepts == 1);
    CHECK_EQ(bop_socket_tls_info(plain.socket, &info), BOP_EUNSUPPORTED);
    CHECK_EQ(bop_socket_peer_certificate(plain.socket, &certificate), BOP_EUNSUPPORTED);
    CHECK_EQ(bop_socket_tls_info(f->accepted[0].socket, &info), BOP_EBUSY);
    bop_socket_close(plain.socket);
    TURN_UNTIL(plain.closes == 1 && f->accepted[0].closes == 1);
    CHECK_EQ(bop_socket_tls_info(plain.socket, &info), BOP_ECLOSED);
    CHECK_EQ(f->accepted[0].reason, -ECONNRESET);
    CHECK_STR_HAS(f->accepted[0].text, "the peer closed the connection");
    end_deinit(&plain);
}
