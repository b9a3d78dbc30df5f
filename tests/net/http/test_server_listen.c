/*
 * Where requests come from: several listeners and loops, Unix sockets, proxies;
 * and crowds: clients that do nothing, more connections than descriptors.
 */
#include <pthread.h>
#include <sys/resource.h>
#include <sys/un.h>

#include "server_fixture.h"
#include "upgrade.h"

static void setup(struct fixture *f)
{
    server_setup(f);
}

FIXTURE(setup, server_teardown)

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

/* ---- Listening ---- */

TEST(listen, on_a_unix_socket)
{
    const char *path = test_path(NULL, "socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct client *client;

    server_start(f, NULL);
    server_listen(f, &(struct bop_http_listen_options){.path = path});
    server_listen(f, &(struct bop_http_listen_options){0});
    client = client_open(f);
    close(client->fd);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE_EQ(connect(client->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    client_says(client, GET("/hello"));
    CHECK_EQ(take_response(client).status, 200);
    client_close(client);
}

TEST(listen, says_which_port_is_busy)
{
    struct bop_http_listen_options options = {0};
    struct bop_error err;
    char port[16];

    server_start(f, NULL);
    options.port = f->port;
    CHECK_EQ(bop_http_listen(f->server, &options, NULL, &err), -EADDRINUSE);
    snprintf(port, sizeof(port), ":%u", f->port);
    CHECK_STR_HAS(err.message, port);
}

TEST(listen, refuses_options_that_make_no_sense)
{
    struct bop_http_server *server;

    server_start(f, NULL);
    CHECK_EQ(bop_http_server_create(
                 f->loop, &(struct bop_http_server_options){.server_name = "a\r\nb"}, &server),
             BOP_EINVAL);
    CHECK_EQ(bop_http_route(f->server, "GET", "no-slash", say_hello, f), BOP_EINVAL);
    CHECK_EQ(bop_http_route(f->server, "GET", "/hello", say_hello, f), BOP_EEXISTS);
    CHECK_EQ(bop_http_route(f->server, "GET", "/x", NULL, f), BOP_EINVAL);
}

static const char *ask(struct fixture *f, const char *request, struct response *response)
{
    struct client *client = client_open(f);

    client_says(client, request);
    *response = take_response(client);
    client_close(client);
    return response->body;
}

static void say_host(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    CHECK_EQ(bop_http_reply(http, 200, NULL, bytes((const char *)user)), 0);
}

TEST(listen, serves_hosts_by_name)
{
    struct response response;

    server_start(f, &(struct bop_http_server_options){.server_name = "bop", .no_date = true});
    CHECK_EQ(
        bop_http_route_host(f->server, "a.org", "GET", "/who", say_host, (void *)(uintptr_t) "a"),
        0);
    CHECK_EQ(bop_http_route_host(f->server, "*.a.org", "GET", "/who", say_host,
                                 (void *)(uintptr_t) "below a"),
             0);
    CHECK_EQ(bop_http_route(f->server, "GET", "/who", say_host, (void *)(uintptr_t) "any"), 0);
    CHECK_STR_EQ(ask(f, "GET /who HTTP/1.1\r\nHost: A.org:80\r\n\r\n", &response), "a");
    CHECK_STR_EQ(ask(f, "GET /who HTTP/1.1\r\nHost: www.a.org\r\n\r\n", &response), "below a");
    CHECK_STR_EQ(ask(f, "GET /who HTTP/1.1\r\nHost: b.org\r\n\r\n", &response), "any");
    CHECK_STR_EQ(ask(f, "GET http://a.org/who HTTP/1.1\r\nHost: b.org\r\n\r\n", &response), "a");
    CHECK_STR_EQ(response_header(&response, "Server"), "bop");
    CHECK(response_header(&response, "Date") == NULL);
}

/* ---- Behind a proxy ---- */

static void say_peer(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    CHECK_EQ(bop_http_reply(http, 200, NULL, bytes(bop_http_peer_name(http))), 0);
}

static void start_proxied(struct fixture *f)
{
    server_create(f, NULL);
    REQUIRE_EQ(bop_http_route(f->server, "GET", "/peer", say_peer, f), 0);
    server_listen(f, &(struct bop_http_listen_options){.proxy_protocol = true});
}

TEST(proxy, tells_who_the_client_is)
{
    static const char v1[] = "PROXY TCP4 192.0.2.7 198.51.100.1 4000 80\r\n" GET("/peer");
    static const char v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
                             "\xc0\0\2\7\xc6\x33\x64\1\x0f\xa0\0\x50" GET("/peer");
    struct response response;

    start_proxied(f);
    for (size_t cut = 0; cut < sizeof(v1) - 1; cut++) {
        struct client *client = client_open(f);

        client_send(client, bop_slice(v1, cut));
        client_send(client, bop_slice(v1 + cut, sizeof(v1) - 1 - cut));
        CHECK_STR_EQ(take_response(client).body, "192.0.2.7:4000");
        client_says(client, GET("/peer")); /* It holds for the connection. */
        CHECK_STR_EQ(take_response(client).body, "192.0.2.7:4000");
        client_close(client);
    }
    for (size_t cut = 0; cut < sizeof(v2) - 1; cut++) {
        struct client *client = client_open(f);

        client_send(client, bop_slice(v2, cut));
        client_send(client, bop_slice(v2 + cut, sizeof(v2) - 1 - cut));
        CHECK_STR_EQ(take_response(client).body, "192.0.2.7:4000");
        client_close(client);
    }
    CHECK_STR_EQ(ask(f, "PROXY TCP6 2001:db8::1 ::1 4000 80\r\n" GET("/peer"), &response),
                 "[2001:db8::1]:4000");
    ask(f, "PROXY UNKNOWN\r\n" GET("/peer"), &response);
    CHECK_EQ(strncmp(response.body, "127.0.0.1:", 10), 0);
}

TEST(proxy, gets_no_answer_without_its_header)
{
    struct client *client;

    start_proxied(f);
    client = client_open(f);
    client_says(client, GET("/peer"));
    AWAIT(f, client_ended(client));
    CHECK_EQ(client->size, 0);
    client_close(client);
    client = client_open(f);
    client_says(client, "PROXY TCP4 1.2.3.4\r\n" GET("/peer"));
    AWAIT(f, client_ended(client));
    CHECK_EQ(client->size, 0);
    client_close(client);
    client = client_open(f);
    client_says(client, "PROXY TC");
    pass_time(f, 12000); /* As long as a head may take. */
    AWAIT(f, client_ended(client));
    client_close(client);
    AWAIT(f, bop_http_counters(f->server).connections_now == 0);
}

/* ---- Crowds ---- */

TEST(crowd, of_idle_and_dripping_clients_costs_little_and_disturbs_nobody)
{
    enum { COUNT = 2000 };
    struct rlimit files;
    static int fds[COUNT];
    struct response response;
    size_t before;
    int count;

    REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max < 2 * COUNT + 100 ? files.rlim_max : 2 * COUNT + 100;
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
    count = files.rlim_cur < 2 * COUNT + 100 ? (int)(files.rlim_cur - 100) / 2 : COUNT;
    server_start(f, NULL);
    turns(f, 3);
    before = f->heap.live;
    for (int i = 0; i < count; i++) {
        fds[i] = connect_to(f->port);
        if (i % 100 == 99) {
            turns(f, 3);
        }
    }
    AWAIT(f, bop_http_counters(f->server).connections_now == (unsigned)count);
    test_note("%zu bytes an idle connection", (f->heap.live - before) / (size_t)count);
    CHECK((f->heap.live - before) / (size_t)count <= 272);
    for (int i = 0; i < count; i++) {
        CHECK(send(fds[i], "GET /hel", 8, 0) == 8);
        if (i % 100 == 99) {
            turns(f, 3);
        }
    }
    turns(f, 3);
    CHECK((f->heap.live - before) / (size_t)count <= 1024);
    CHECK_STR_EQ(ask(f, GET("/hello"), &response), "hello");
    for (int i = 0; i < count; i++) {
        close(fds[i]);
        if (i % 100 == 99) {
            turns(f, 3);
        }
    }
    AWAIT(f, bop_http_counters(f->server).connections_now == 0);
}

TEST(crowd, that_takes_all_descriptors_waits_for_one)
{
    enum { MOST = 600 };
    struct client *client, *late;
    struct rlimit files, fewer;
    static int fds[MOST];
    int count = 0, waiting;

    REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
    server_start(f, NULL);
    client = client_open(f);
    client_says(client, GET("/hello"));
    CHECK_EQ(take_response(client).status, 200);
    late = client_open(f); /* Connected by the kernel, and not accepted yet. */
    fewer = files;
    fewer.rlim_cur = 100;
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &fewer), 0);
    while (count < MOST && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) {
        count++;
    }
    REQUIRE(count > 0);
    waiting = late->fd;
    CHECK(send(waiting, GET("/hello"), strlen(GET("/hello")), 0) > 0);
    turns(f, 5);
    client_says(client, GET("/hello")); /* Those that are there are served. */
    CHECK_EQ(take_response(client).status, 200);
    CHECK_EQ(late->size, 0);
    while (count > 0) {
        close(fds[--count]);
    }
    for (int i = 0; i < 20; i++) {
        pass_time(f, 250);
    }
    CHECK_EQ(take_response(late).status, 200);
    client_close(late);
    client_close(client);
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
}

/* ---- Guests ---- */

struct guest {
    struct bop__http_guest guest;
    unsigned stops, kills, frees;
};

static void guest_stop(struct bop__http_guest *guest, uint64_t deadline_ms)
{
    BOP_CONTAINER_OF(guest, struct guest, guest)->stops++;
}

static void guest_kill(struct bop__http_guest *guest)
{
    BOP_CONTAINER_OF(guest, struct guest, guest)->kills++;
    bop__http_guest_leave(guest);
}

static void guest_free(struct bop__http_guest *guest)
{
    BOP_CONTAINER_OF(guest, struct guest, guest)->frees++;
}

static void on_stopped(struct bop_http_server *server, void *user)
{
    ((struct fixture *)user)->stopped = true;
}

TEST(guest, is_waited_for_until_the_deadline)
{
    struct guest patient = {
        .guest = {.on_stop = guest_stop, .on_kill = guest_kill, .on_free = guest_free}};
    struct guest quick = patient;

    server_start(f, NULL);
    bop__http_guest_join(f->server, &patient.guest);
    bop__http_guest_join(f->server, &quick.guest);
    bop_http_server_stop(f->server, 1000, on_stopped, f);
    CHECK_EQ(patient.stops, 1);
    bop__http_guest_leave(&quick.guest);
    pass_time(f, 900);
    CHECK(!f->stopped);
    pass_time(f, 200);
    CHECK_EQ(patient.kills, 1);
    CHECK_EQ(quick.kills, 0);
    AWAIT(f, f->stopped);
    bop_http_server_destroy(f->server);
    f->server = NULL;
    CHECK_EQ(patient.frees, 1);
    CHECK_EQ(quick.frees, 1);
}

/* ---- A server in one call ---- */

struct visit {
    pthread_t thread;
    uint16_t port;
    char got[256];
};

/* Comes as soon as somebody listens. */
static void *visit(void *arg)
{
    struct visit *v = (struct visit *)arg;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(v->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    size_t size = 0;
    ssize_t got;
    int fd = -1;

    for (int i = 0, rc = -1; rc != 0 && i < PATIENCE_TURNS; i++) {
        if (fd >= 0) {
            close(fd);
            usleep(1000);
        }
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        rc = connect(fd, (struct sockaddr *)&address, sizeof(address));
    }
    if (send(fd, GET("/"), strlen(GET("/")), MSG_NOSIGNAL) > 0) {
        while ((got = recv(fd, v->got + size, sizeof(v->got) - 1 - size, 0)) > 0) {
            size += (size_t)got;
        }
    }
    close(fd);
    return NULL;
}

static void answer_and_stop(struct bop_http_exchange *http, const struct bop_http_head *head,
                            void *user)
{
    struct bop_loop *loop = bop_http_loop(http);

    CHECK_EQ(bop_http_reply(http, 200, "text/plain", bytes("Hello world!")), 0);
    bop_loop_stop(loop);
}

/* One that nobody uses; it is ours again if nobody is quicker. */
static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE_EQ(bind(fd, (struct sockaddr *)&address, size), 0);
    REQUIRE_EQ(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

TEST(serve, answers_until_it_is_stopped)
{
    struct visit v = {.port = free_port()};

    REQUIRE_EQ(pthread_create(&v.thread, NULL, visit, &v), 0);
    CHECK_EQ(bop_http_serve(v.port, "/", answer_and_stop, NULL), 0);
    pthread_join(v.thread, NULL);
    CHECK_STR_HAS(v.got, "HTTP/1.1 200 OK\r\n");
    CHECK_STR_HAS(v.got, "Hello world!");
}

TEST(serve, says_why_it_cannot)
{
    server_start(f, NULL);
    CHECK_EQ(bop_http_serve(f->port, "/", answer_and_stop, NULL), -EADDRINUSE);
    CHECK_EQ(bop_http_serve(0, "no slash", answer_and_stop, NULL), BOP_EINVAL);
}

/* ---- Loops ---- */

struct worker {
    pthread_t thread;
    struct bop_loop *loop;
    uint16_t port;
    atomic_uint served;
};

static void count_served(struct bop_http_exchange *http, const struct bop_http_head *head,
                         void *user)
{
    atomic_fetch_add(&((struct worker *)user)->served, 1);
    CHECK_EQ(bop_http_reply(http, 200, NULL, bytes("hello")), 0);
}

static void *work(void *arg)
{
    struct worker *worker = (struct worker *)arg;
    struct bop_http_server *server;

    CHECK_EQ(bop_http_server_create(worker->loop, NULL, &server), 0);
    CHECK_EQ(bop_http_route(server, "GET", "/hello", count_served, worker), 0);
    CHECK_EQ(
        bop_http_listen(server,
                        &(struct bop_http_listen_options){.port = worker->port, .reuse_port = true},
                        NULL, NULL),
        0);
    CHECK_EQ(bop_loop_run(worker->loop), 0);
    bop_http_server_destroy(server);
    return NULL;
}

static bool ask_blocking(uint16_t port)
{
    int fd = connect_to(port);
    char answer[512] = "";
    size_t size = 0;
    ssize_t got;

    CHECK(send(fd, GET("/hello"), strlen(GET("/hello")), 0) > 0);
    fcntl(fd, F_SETFL, 0);
    while (size < sizeof(answer) - 1 && strstr(answer, "hello") == NULL &&
           (got = recv(fd, answer + size, sizeof(answer) - 1 - size, 0)) > 0) {
        size += (size_t)got;
        answer[size] = '\0';
    }
    close(fd);
    return strstr(answer, "hello") != NULL;
}

TEST(loops, of_several_threads_share_a_port)
{
    static struct worker workers[2];
    unsigned served = 0;

    server_create(f, NULL);
    server_listen(f, &(struct bop_http_listen_options){.reuse_port = true});
    for (size_t i = 0; i < BOP_COUNT_OF(workers); i++) {
        workers[i].port = f->port;
        REQUIRE_EQ(bop_loop_create(&(struct bop_loop_options){0}, &workers[i].loop), 0);
        REQUIRE_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    /* The port stays busy until both listen as well: then those two are all. */
    bop_http_server_destroy(f->server);
    f->server = NULL;
    turns(f, 2);
    for (int tries = 0; served < 200 && tries < 20000; tries++) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons(f->port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool listening = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

        close(fd);
        if (listening && ask_blocking(f->port)) {
            served++;
        }
    }
    CHECK_EQ(served, 200);
    for (size_t i = 0; i < BOP_COUNT_OF(workers); i++) {
        bop_loop_stop(workers[i].loop);
        REQUIRE_EQ(pthread_join(workers[i].thread, NULL), 0);
        bop_loop_destroy(workers[i].loop);
    }
    CHECK(atomic_load(&workers[0].served) + atomic_load(&workers[1].served) >= 200);
}
