/*
 * The practical limit of a server on epoll: it reads, answers and does nothing
 * else that can be left out. No parser, no limits, no error handling: a
 * measure, not a server.
 *
 *      net_raw_epoll PORT http|ws|fanout
 *
 * http: one fixed answer for each CRLFCRLF. ws: each frame is unmasked and sent
 * back. fanout: what one connection sends goes to all, by one send() each.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX (1u << 16)
#define EVENTS_MAX      1024

struct connection {
    uint32_t kept; /* Bytes of a frame that is not whole. */
    uint8_t state; /* Of finding CRLFCRLF: how much of it was seen. */
    bool upgraded;
    uint8_t *part;
};

static const char answer[] = "HTTP/1.1 200 OK\r\n"
                             "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
                             "Content-Length: 12\r\n\r\n"
                             "Hello world!";

static struct connection connections[CONNECTIONS_MAX];
static int fd_max;
static uint8_t in[1 << 19], out[1 << 20];

static size_t answer_requests(struct connection *c, size_t size)
{
    const char *at = (const char *)in, *end = at + size;
    size_t written = 0;

    while (at < end) {
        if (c->state == 0) {
            at = (const char *)memchr(at, '\r', (size_t)(end - at));
            if (at == NULL) {
                break;
            }
            at++;
            c->state = 1;
            continue;
        }
        if (*at == (c->state % 2 ? '\n' : '\r')) {
            c->state++;
        } else {
            c->state = *at == '\r';
        }
        at++;
        if (c->state == 4) {
            c->state = 0;
            memcpy(out + written, answer, sizeof(answer) - 1);
            written += sizeof(answer) - 1;
        }
    }
    return written;
}

static size_t answer_upgrade(struct connection *c, size_t size)
{
    char text[64], accept[32];
    uint8_t digest[SHA_DIGEST_LENGTH];
    const char *key;

    in[size] = '\0';
    key = strcasestr((const char *)in, "\nsec-websocket-key: ");
    if (key == NULL || strlen(key) < 20 + 24) {
        return 0;
    }
    memcpy(text, key + 20, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    SHA1((const uint8_t *)text, 60, digest);
    EVP_EncodeBlock((uint8_t *)accept, digest, sizeof(digest));
    c->upgraded = true;
    return (size_t)sprintf((char *)out,
                           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                           "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                           accept);
}

/* Unmask one frame to `to`. Returns the bytes it took of the input, 0: not whole. */
static size_t echo_frame(const uint8_t *at, size_t left, uint8_t *to, size_t *out_size)
{
    size_t size, head = 2, i = 0;
    uint32_t mask;
    uint64_t wide;

    if (left < 2) {
        return 0;
    }
    size = at[1] & 127;
    if (size == 126) {
        head = 4;
        size = left >= 4 ? (size_t)at[2] << 8 | at[3] : SIZE_MAX / 2;
    } else if (size == 127) {
        head = 10;
        size = left >= 10 ? (size_t)at[6] << 24 | (size_t)at[7] << 16 | (size_t)at[8] << 8 | at[9]
                          : SIZE_MAX / 2;
    }
    if (left < head + 4 || left - head - 4 < size) {
        return 0;
    }
    memcpy(to, at, head);
    to[1] &= 127;
    memcpy(&mask, at + head, 4);
    wide = (uint64_t)mask << 32 | mask;
    at += head + 4;
    to += head;
    for (; i + 8 <= size; i += 8) {
        uint64_t word;

        memcpy(&word, at + i, 8);
        word ^= wide;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++) {
        to[i] = at[i] ^ ((const uint8_t *)&mask)[i & 3];
    }
    *out_size = head + size;
    return head + 4 + size;
}

static size_t echo_frames(struct connection *c, size_t size)
{
    size_t at = 0, written = 0, taken, frame = 0;

    if (c->kept > 0) {
        memcpy(in, c->part, c->kept);
        size += c->kept;
        c->kept = 0;
    }
    while ((taken = echo_frame(in + at, size - at, out + written, &frame)) > 0) {
        at += taken;
        written += frame;
    }
    if (at < size) {
        c->part = (uint8_t *)realloc(c->part, size - at);
        c->kept = (uint32_t)(size - at);
        memcpy(c->part, in + at, c->kept);
    }
    return written;
}

static void send_all(int fd, size_t size)
{
    for (size_t sent = 0; sent < size;) {
        ssize_t now = send(fd, out + sent, size - sent, MSG_NOSIGNAL);

        if (now < 0 && errno != EAGAIN) {
            return;
        }
        sent += now > 0 ? (size_t)now : 0;
    }
}

static void on_readable(int fd, bool ws, bool fanout)
{
    struct connection *c = &connections[fd];
    ssize_t got = recv(fd, in + c->kept, sizeof(in) - 1 - c->kept, 0);
    bool upgraded = c->upgraded;
    size_t size;

    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) {
            free(c->part);
            memset(c, 0, sizeof(*c));
            close(fd);
        }
        return;
    }
    fd_max = fd > fd_max ? fd : fd_max;
    if (!ws) {
        size = answer_requests(c, (size_t)got);
    } else {
        size = upgraded ? echo_frames(c, (size_t)got) : answer_upgrade(c, (size_t)got);
    }
    if (!fanout || !upgraded) {
        send_all(fd, size);
        return;
    }
    for (int i = 0; i <= fd_max; i++) {
        if (connections[i].upgraded) {
            send_all(i, size);
        }
    }
}

static int listen_on(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 4096) != 0) {
        perror("net_raw_epoll: listen");
        exit(1);
    }
    return fd;
}

static void accept_all(int epoll, int listener)
{
    int one = 1, fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

        if ((unsigned)fd >= CONNECTIONS_MAX ||
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
            close(fd);
        }
    }
}

int main(int argc, char **argv)
{
    bool fanout = argc > 2 && strcmp(argv[2], "fanout") == 0;
    bool ws = fanout || (argc > 2 && strcmp(argv[2], "ws") == 0);
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS_MAX];

    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0) {
        perror("net_raw_epoll: epoll");
        return 1;
    }
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, -1);

        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener) {
                accept_all(epoll, listener);
            } else {
                on_readable(events[i].data.fd, ws, fanout);
            }
        }
    }
}
