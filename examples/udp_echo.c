/*
 * Sends every datagram back to who sent it, by the address it came to.
 *
 *     udp-echo --port 7000
 *
 * Prints "listening on port N" and goes on until SIGINT or SIGTERM.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/udp.h>

static struct bop_loop *loop;

static void stop(int signal_number)
{
    bop_loop_stop(loop);
}

/* One send for all that one receive brought. What does not fit the queue is
 * dropped: UDP promises nothing else. */
static void on_datagrams(struct bop_udp *udp, void *user, const struct bop_udp_datagram *datagrams,
                         size_t count)
{
    struct bop_udp_message messages[64];
    size_t done = 0;

    while (done < count) {
        size_t batch = 0;

        for (; batch < 64 && done + batch < count; batch++) {
            const struct bop_udp_datagram *datagram = &datagrams[done + batch];

            messages[batch] = (struct bop_udp_message){.bytes = datagram->bytes,
                                                       .to = &datagram->peer,
                                                       .from = &datagram->local,
                                                       .ecn = datagram->ecn};
        }
        BOP_IGNORE(bop_udp_send(udp, messages, batch)); /* See above. */
        done += batch;
    }
}

static void on_close(struct bop_udp *udp, void *user, int reason)
{
    if (reason != BOP_ECANCELED) {
        fprintf(stderr, "udp-echo: %s\n", bop_strerror(reason));
        bop_loop_stop(loop);
    }
}

static int run(const char *host, uint16_t port)
{
    static const struct bop_udp_events events = {.on_datagrams = on_datagrams,
                                                 .on_close = on_close};
    struct bop_udp_options options = {.host = host, .port = port, .events = &events};
    struct bop_error err = {0};
    struct bop_udp *udp;
    int rc = bop_udp_create(loop, &options, &udp, &err);

    if (rc != 0) {
        fprintf(stderr, "udp-echo: %s\n", err.message);
        return rc;
    }
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    printf("listening on port %u\n", bop_udp_local(udp).port);
    fflush(stdout);
    rc = bop_loop_run(loop);
    printf("%" PRIu64 " datagrams in %" PRIu64 " receives, %" PRIu64 " sends\n",
           bop_udp_counters(udp).datagrams_received, bop_udp_counters(udp).receives,
           bop_udp_counters(udp).sends);
    return rc;
}

int main(int argc, char **argv)
{
    const char *host = NULL;
    unsigned long port = 7000;
    int rc;

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--port") == 0) {
            port = strtoul(argv[i + 1], NULL, 10);
        } else if (i + 1 < argc && strcmp(argv[i], "--host") == 0) {
            host = argv[i + 1];
        } else {
            port = UINT16_MAX + 1ul;
            break;
        }
    }
    if (port > UINT16_MAX) {
        fprintf(stderr, "usage: udp-echo [--host ADDRESS] [--port N]\n");
        return 2;
    }
    rc = bop_loop_create(NULL, &loop);
    if (rc == 0) {
        rc = run(host, (uint16_t)port);
        /* From here on there is no loop to stop. */
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        bop_loop_destroy(loop);
    }
    return rc == 0 ? 0 : 1;
}
