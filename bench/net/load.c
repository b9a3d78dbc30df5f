/*
 * Closed-loop load for one core: HTTP/1.1 keep-alive or WebSocket echo, with any
 * number of messages in flight a connection; messages to all subscribers; idle
 * connections.
 *
 *      net_load MODE PORT [--connections N] [--seconds S] [--depth N] [--payload BYTES]
 *               [--path PATH] [--tls] [--server PID]
 *
 * MODE is http, ws, fanout, idle-http or idle-ws. It prints "NAME VALUE" lines:
 * rate (messages or deliveries a second), p50_us, p99_us, per_cpu (as rate, but
 * for a second of the server's processor), resident (bytes of the server for
 * each idle connection). An answer that is not the one expected ends it.
 *
 * It does as little as it can, so that the server stays the slower side: answers
 * are counted by their bytes, the first of each connection is looked at.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP_NS   200000000u
#define EVENTS_MAX   1024
#define RECEIVE_SIZE (1u << 20)

struct connection {
    int fd;
    SSL *tls;
    size_t wanted; /* Bytes of the answers to what is in flight. */
    size_t got;
    uint64_t sent_ns;
};

static struct {
    const char *mode;
    const char *path;
    int port;
    int connections;
    int depth;
    double seconds;
    size_t payload;
    long server;
    bool ws;
    bool tls;
} options = {.path = "/", .connections = 64, .depth = 1, .seconds = 1, .payload = 20};

static char receive_buffer[RECEIVE_SIZE];
static char request[4096];
static size_t request_size;
static SSL_CTX *tls_context;

static void fail(const char *what)
{
    fprintf(stderr, "net_load: %s\n", what);
    exit(1);
}

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "net_load: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Latencies: 64 buckets for each power of two ---- */

static uint64_t buckets[64 * 64];

static void record(uint64_t ns, uint64_t count)
{
    unsigned shift;

    if (ns < 64) {
        buckets[ns] += count;
        return;
    }
    shift = 63u - (unsigned)__builtin_clzll(ns) - 6u;
    buckets[(size_t)(shift + 1) * 64 + (ns >> shift & 63)] += count;
}

static double percentile_us(double share)
{
    uint64_t total = 0, wanted, seen = 0;

    for (size_t i = 0; i < 64 * 64; i++) {
        total += buckets[i];
    }
    wanted = (uint64_t)((double)total * share);
    for (size_t i = 0; i < 64 * 64; i++) {
        seen += buckets[i];
        if (seen > wanted) {
            return i < 64 ? (double)i / 1e3 : (double)((64 + i % 64) << (i / 64 - 1)) / 1e3;
        }
    }
    return 0;
}

/* ---- What the server costs ---- */

/* Of its first thread, which is what each of the servers works with: to the nanosecond. */
static double server_cpu_s(void)
{
    char path[64];
    unsigned long long ran_ns = 0;
    FILE *file;

    if (options.server == 0) {
        return 0;
    }
    snprintf(path, sizeof(path), "/proc/%ld/schedstat", options.server);
    file = fopen(path, "r");
    check(file != NULL, path);
    if (fscanf(file, "%llu", &ran_ns) != 1) {
        fail("cannot read the server's processor time");
    }
    fclose(file);
    return (double)ran_ns / 1e9;
}

static double server_resident(void)
{
    char path[64], line[256];
    double kib = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%ld/status", options.server);
    file = fopen(path, "r");
    check(file != NULL, path);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0) {
            kib = atof(line + 6);
        }
    }
    fclose(file);
    return kib * 1024;
}

/* ---- Connections ---- */

static void dial(struct connection *c)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    check(c->fd >= 0, "socket");
    check(connect(c->fd, (struct sockaddr *)&address, sizeof(address)) == 0, "connect");
    check(setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0, "TCP_NODELAY");
    if (options.tls) {
        c->tls = SSL_new(tls_context);
        if (c->tls == NULL || SSL_set_fd(c->tls, c->fd) != 1 || SSL_connect(c->tls) != 1) {
            fail("TLS handshake failed");
        }
    }
}

/* All of it: the server takes what is in flight. */
static void send_all(const struct connection *c, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = c->tls != NULL ? SSL_write(c->tls, bytes, (int)size)
                                      : send(c->fd, bytes, size, MSG_NOSIGNAL);

        if (sent <= 0) {
            check(c->tls != NULL || errno == EAGAIN || errno == EINTR, "send");
            continue;
        }
        bytes += sent;
        size -= (size_t)sent;
    }
}

/* What came, or 0 for nothing yet. */
static size_t receive(const struct connection *c)
{
    ssize_t got;

    if (c->tls != NULL) {
        got = SSL_read(c->tls, receive_buffer, RECEIVE_SIZE - 1);
        if (got <= 0 && SSL_get_error(c->tls, (int)got) != SSL_ERROR_WANT_READ) {
            fail("the server closed a TLS connection");
        }
        return got > 0 ? (size_t)got : 0;
    }
    got = recv(c->fd, receive_buffer, RECEIVE_SIZE - 1, 0);
    if (got == 0) {
        fail("the server closed a connection");
    }
    check(got > 0 || errno == EAGAIN, "recv");
    return got > 0 ? (size_t)got : 0;
}

/* Reads one answer, blocking; returns its size. */
static size_t first_answer(const struct connection *c)
{
    size_t size = 0, body = 0;
    const char *end, *length;

    do {
        ssize_t got = c->tls != NULL
                          ? SSL_read(c->tls, receive_buffer + size, (int)(RECEIVE_SIZE - 1 - size))
                          : recv(c->fd, receive_buffer + size, RECEIVE_SIZE - 1 - size, 0);

        if (got <= 0) {
            fail("the server closed a connection at its first request");
        }
        size += (size_t)got;
        receive_buffer[size] = '\0';
        end = strstr(receive_buffer, "\r\n\r\n");
        if (end != NULL) {
            length = strcasestr(receive_buffer, "\ncontent-length:");
            body = length != NULL && length < end ? strtoul(length + 16, NULL, 10) : 0;
        }
    } while (end == NULL || size < (size_t)(end + 4 - receive_buffer) + body);
    if (strncmp(receive_buffer, options.ws ? "HTTP/1.1 101" : "HTTP/1.1 200", 12) != 0) {
        fprintf(stderr, "net_load: unexpected answer: %.60s\n", receive_buffer);
        exit(1);
    }
    return size;
}

static void make_request(void)
{
    int size = options.ws
                   ? snprintf(request, sizeof(request),
                              "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                              "Connection: Upgrade\r\nSec-WebSocket-Key: "
                              "x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                              options.path)
                   : snprintf(request, sizeof(request),
                              "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\n"
                              "Accept: */*\r\n\r\n",
                              options.path);

    request_size = (size_t)size;
}

/* Connects all, one request each; returns the size of an answer. */
static size_t open_all(struct connection *all)
{
    size_t size = 0;

    for (int i = 0; i < options.connections; i++) {
        dial(&all[i]);
        send_all(&all[i], request, request_size);
        size = first_answer(&all[i]);
    }
    return size;
}

static int watch_all(const struct connection *all)
{
    int epoll = epoll_create1(0);

    check(epoll >= 0, "epoll_create1");
    for (int i = 0; i < options.connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};

        check(fcntl(all[i].fd, F_SETFL, O_NONBLOCK) == 0, "O_NONBLOCK");
        check(epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event) == 0, "epoll_ctl");
    }
    return epoll;
}

/* ---- Messages ---- */

/* One masked binary frame. Returns its size. */
static size_t put_frame(uint8_t *out)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    size_t size = options.payload, head = 2;

    out[0] = 0x82;
    if (size < 126) {
        out[1] = (uint8_t)(0x80 | size);
    } else if (size < 65536) {
        out[1] = 0x80 | 126;
        out[2] = (uint8_t)(size >> 8);
        out[3] = (uint8_t)size;
        head = 4;
    } else {
        out[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) {
            out[2 + i] = (uint8_t)((uint64_t)size >> (56 - 8 * i));
        }
        head = 10;
    }
    memcpy(out + head, mask, 4);
    for (size_t i = 0; i < size; i++) {
        out[head + 4 + i] = (uint8_t)('T' ^ mask[i & 3]);
    }
    return head + 4 + size;
}

/* `depth` requests or frames; sets the size of one answer for frames. */
static char *make_messages(size_t *out_size, size_t *in_out_answer)
{
    size_t one = options.ws ? options.payload + 14 : request_size;
    char *messages = (char *)malloc(one * (size_t)options.depth);

    check(messages != NULL, "malloc");
    if (options.ws) {
        one = put_frame((uint8_t *)messages);
        *in_out_answer = one - 4; /* The server does not mask. */
    } else {
        memcpy(messages, request, one);
    }
    for (int i = 1; i < options.depth; i++) {
        memcpy(messages + (size_t)i * one, messages, one);
    }
    *out_size = one * (size_t)options.depth;
    return messages;
}

/* ---- Modes ---- */

struct run {
    struct connection *all;
    const char *messages;
    size_t size;
    uint64_t start_ns;
    uint64_t done;
    double cpu_s;
};

static void begin(struct run *run)
{
    memset(buckets, 0, sizeof(buckets));
    run->done = 0;
    run->cpu_s = server_cpu_s();
    run->start_ns = now_ns();
}

static void print_run(const struct run *run)
{
    double elapsed = (double)(now_ns() - run->start_ns) / 1e9;
    double cpu = server_cpu_s() - run->cpu_s;

    printf("rate %.0f\n", (double)run->done / elapsed);
    printf("p50_us %.1f\np99_us %.1f\n", percentile_us(0.5), percentile_us(0.99));
    if (cpu > 0) {
        printf("per_cpu %.0f\n", (double)run->done / cpu);
    }
}

static void on_readable(struct run *run, struct connection *c)
{
    size_t got;

    /* With TLS a record may be there without the socket being readable again. */
    while ((got = receive(c)) > 0) {
        c->got += got;
        if (c->got > c->wanted) {
            fail("more bytes came than were asked for");
        }
        if (c->got == c->wanted) {
            uint64_t now = now_ns();

            record(now - c->sent_ns, (uint64_t)options.depth);
            run->done += (uint64_t)options.depth;
            c->got = 0;
            c->sent_ns = now;
            send_all(c, run->messages, run->size);
            return;
        }
        if (c->tls == NULL) {
            return;
        }
    }
}

/* Each connection sends its messages again when all answers have come. */
static void run_echo(struct connection *all)
{
    struct run run = {.all = all};
    size_t answer = open_all(all);
    int epoll = watch_all(all);
    struct epoll_event events[EVENTS_MAX];
    uint64_t now = now_ns(), warm_ns = now + WARM_UP_NS;
    uint64_t end_ns = warm_ns + (uint64_t)(options.seconds * 1e9);
    bool warm = false;

    run.messages = make_messages(&run.size, &answer);
    for (int i = 0; i < options.connections; i++) {
        all[i].wanted = answer * (size_t)options.depth;
        all[i].sent_ns = now_ns();
        send_all(&all[i], run.messages, run.size);
    }
    while (now < end_ns) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, 100);

        now = now_ns();
        if (!warm && now >= warm_ns) {
            warm = true;
            begin(&run);
        }
        for (int i = 0; i < count; i++) {
            on_readable(&run, &all[events[i].data.u32]);
        }
    }
    print_run(&run);
}

/* The first connection sends; when all have got everything, again. */
static void run_fanout(struct connection *all)
{
    struct run run = {.all = all};
    size_t answer = 0, wanted, got = 0;
    struct epoll_event events[EVENTS_MAX];
    uint64_t end_ns, sent_ns, now;
    int epoll;

    open_all(all);
    epoll = watch_all(all);
    usleep(100000);
    run.messages = make_messages(&run.size, &answer);
    wanted = answer * (size_t)options.depth * (size_t)options.connections;
    begin(&run);
    now = sent_ns = run.start_ns;
    end_ns = now + (uint64_t)(options.seconds * 1e9);
    send_all(&all[0], run.messages, run.size);
    while (now < end_ns) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, 100);

        for (int i = 0; i < count; i++) {
            got += receive(&all[events[i].data.u32]);
        }
        now = now_ns();
        if (got > wanted) {
            fail("more bytes came than were sent");
        }
        if (got == wanted) {
            record(now - sent_ns, 1);
            run.done += (uint64_t)options.connections * (uint64_t)options.depth;
            got = 0;
            sent_ns = now;
            send_all(&all[0], run.messages, run.size);
        }
    }
    print_run(&run);
}

static void run_idle(struct connection *all)
{
    double before = server_resident();

    open_all(all);
    usleep(1500000); /* For what the server gives back when idle. */
    printf("resident %.0f\n", (server_resident() - before) / options.connections);
}

/* ---- Options ---- */

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"connections", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 's'},
        {"depth", required_argument, NULL, 'k'},
        {"payload", required_argument, NULL, 'b'},
        {"path", required_argument, NULL, 'u'},
        {"server", required_argument, NULL, 'p'},
        {"tls", no_argument, NULL, 't'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (c) {
        case 'c':
            options.connections = atoi(optarg);
            break;
        case 's':
            options.seconds = atof(optarg);
            break;
        case 'k':
            options.depth = atoi(optarg);
            break;
        case 'b':
            options.payload = strtoul(optarg, NULL, 10);
            break;
        case 'u':
            options.path = optarg;
            break;
        case 'p':
            options.server = atol(optarg);
            break;
        case 't':
            options.tls = true;
            break;
        default:
            exit(2);
        }
    }
    if (argc - optind != 2 || options.connections < 1 || options.depth < 1) {
        fail("usage: net_load MODE PORT [options]");
    }
    options.mode = argv[optind];
    options.port = atoi(argv[optind + 1]);
    options.ws = strstr(options.mode, "http") == NULL;
    if (strcmp(options.mode, "idle-ws") == 0) {
        options.ws = true;
    }
}

int main(int argc, char **argv)
{
    struct connection *all;

    parse_options(argc, argv);
    if (options.tls) {
        tls_context = SSL_CTX_new(TLS_client_method());
        check(tls_context != NULL, "TLS");
        SSL_CTX_set_verify(tls_context, SSL_VERIFY_NONE, NULL);
    }
    make_request();
    all = (struct connection *)calloc((size_t)options.connections, sizeof(*all));
    check(all != NULL, "calloc");
    if (strncmp(options.mode, "idle", 4) == 0) {
        run_idle(all);
    } else if (strcmp(options.mode, "fanout") == 0) {
        run_fanout(all);
    } else if (strcmp(options.mode, "http") == 0 || strcmp(options.mode, "ws") == 0) {
        run_echo(all);
    } else {
        fail("MODE is http, ws, fanout, idle-http or idle-ws");
    }
    free(all);
    return 0;
}
