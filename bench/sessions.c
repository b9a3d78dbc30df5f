/*
 * Many sessions that only live: what it costs the nodes to know that they do.
 *
 *     sessions --servers HOST:PORT,... --pids PID,... [--sessions N] [--connections C]
 *              [--timeout MS] [--settle S] [--seconds S]
 *
 * N sessions are opened on C connections, which are spread over the servers; each session says
 * every third of its timeout that it is alive, as the client library does. They are spread over
 * that time and neighbours are on different connections, so that a server seldom finds two of
 * them in one read: as if each program that has a session sent its own. From raw frames, for the
 * library has one session for each client.
 *
 * The CPU time of the processes --pids, user and system, is read before and after the seconds
 * counted. It prints "NAME VALUE" lines. Exit status 1 if a session cannot be opened or is lost,
 * or if a word of life is still unanswered when the next one is due.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bop/clock.h>
#include <bop/random.h>
#include <bop/socket.h>
#include <bop/wire.h>

#define CONNECTIONS_MAX 10000
#define SERVERS_MAX     16
#define PIDS_MAX        16
#define WINDOW          16 /* Sessions being opened, of one connection. */
#define TICK_MS         10
#define PATIENCE_MS     120000 /* To open all. */

struct connection {
    struct bench *bench;
    struct bop_socket *socket;
    uint64_t next; /* Session to be opened. */
};

struct session {
    uint64_t id; /* 0: not open yet. */
    bool asked;
};

struct bench {
    struct bop_loop *loop;
    struct connection *connections;
    struct session *sessions; /* The n-th is on connection n % connection_count. */
    struct bop_random random;
    char *servers[SERVERS_MAX];
    size_t server_count;
    int pids[PIDS_MAX];
    size_t pid_count;
    uint64_t count;
    uint64_t connection_count;
    uint64_t timeout_ms;
    double settle;
    double seconds;
    uint64_t open;
    uint64_t answers;
    uint64_t slot; /* Of a wheel that turns once in a third of the timeout. */
    uint64_t slot_ms;
};

static double now_ms(void)
{
    return (double)bop_clock_monotonic_us(bop_clock_system()) / 1000;
}

static _Noreturn void complain(const char *text)
{
    fprintf(stderr, "sessions: %s\n", text);
    exit(1);
}

/* ---- Frames ---- */

static void send_frame(struct connection *connection, struct bop_buf *frame, size_t at,
                       enum bop_wire_kind kind, uint64_t number)
{
    bop_wire_end(frame, at, kind, BOP_WIRE_REQUEST, (uint32_t)number);
    bop_socket_flush_later(connection->socket);
}

static struct bop_buf *begin_frame(struct connection *connection, size_t *out_at)
{
    struct bop_buf *frame = bop_socket_output(connection->socket);

    if (!frame || bop_wire_begin(frame, out_at) < 0) {
        complain("a connection does not take what is sent");
    }
    return frame;
}

static void send_open(struct connection *connection)
{
    struct bench *bench = connection->bench;
    struct bop_session_open_request request = {.timeout_ms = (uint32_t)bench->timeout_ms};
    size_t at;
    struct bop_buf *frame = begin_frame(connection, &at);
    struct bop_writer writer = bop_writer(frame);

    for (size_t n = 0; n < BOP_TOKEN_SIZE; n++) {
        request.token[n] = (uint8_t)bop_random_next(&bench->random);
    }
    bop_session_open_request_encode(&writer, &request);
    send_frame(connection, frame, at, BOP_WIRE_KIND_SESSION_OPEN_REQUEST, connection->next);
    connection->next += bench->connection_count;
}

static void send_alive(struct bench *bench, uint64_t number)
{
    struct connection *connection = &bench->connections[number % bench->connection_count];
    struct session *session = &bench->sessions[number];
    size_t at;
    struct bop_buf *frame = begin_frame(connection, &at);
    struct bop_writer writer = bop_writer(frame);

    if (session->asked) {
        complain("a word of life is unanswered and the next one is due");
    }
    session->asked = true;
    bop_session_alive_request_encode(&writer, session->id);
    send_frame(connection, frame, at, BOP_WIRE_KIND_SESSION_ALIVE_REQUEST, number);
}

static void on_opened(struct connection *connection, const struct bop_wire_frame *frame)
{
    struct bench *bench = connection->bench;
    struct bop_session_open_response response;

    if (bop_session_open_response_decode(frame->payload, &response) < 0 ||
        response.status != BOP_STATUS_OK) {
        complain("a session was not opened: refused, or the leader changed meanwhile");
    }
    bench->sessions[frame->request].id = response.session;
    bench->open++;
    if (connection->next < bench->count) {
        send_open(connection);
    }
}

static void take(struct connection *connection, const struct bop_wire_frame *frame)
{
    struct bench *bench = connection->bench;
    uint8_t status;

    if (frame->kind == BOP_WIRE_KIND_SESSION_OPEN_RESPONSE && frame->request < bench->count) {
        on_opened(connection, frame);
    } else if (frame->kind == BOP_WIRE_KIND_SESSION_ALIVE_RESPONSE &&
               frame->request < bench->count) {
        if (bop_session_status_decode(frame->payload, &status) < 0 || status != BOP_STATUS_OK) {
            complain("a session was lost");
        }
        bench->sessions[frame->request].asked = false;
        bench->answers++;
    }
}

/* ---- Connections ---- */

static size_t on_data(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    struct connection *connection = user;
    struct bop_wire_frame frame;
    size_t taken = 0, used;
    int rc;

    BOP_IGNORE(socket);
    while ((rc = bop_wire_parse(bop_slice((const uint8_t *)bytes.data + taken, bytes.size - taken),
                                0, &frame, &used, NULL)) == 0) {
        take(connection, &frame);
        taken += used;
    }
    if (rc != BOP_EAGAIN) {
        complain("a server sent what is no frame");
    }
    return taken;
}

static void on_open(struct bop_socket *socket, void *user)
{
    struct connection *connection = user;
    struct bop_hello_request hello = {.protocol = BOP_WIRE_VERSION,
                                      .client = bop_slice_cstr("sessions")};
    size_t at;
    struct bop_buf *frame = begin_frame(connection, &at);
    struct bop_writer writer = bop_writer(frame);

    BOP_IGNORE(socket);
    bop_hello_request_encode(&writer, &hello);
    send_frame(connection, frame, at, BOP_WIRE_KIND_HELLO_REQUEST, UINT32_MAX);
    for (unsigned n = 0; n < WINDOW && connection->next < connection->bench->count; n++) {
        send_open(connection);
    }
}

static void on_close(struct bop_socket *socket, void *user, int reason)
{
    BOP_IGNORE(socket);
    BOP_IGNORE(user);
    fprintf(stderr, "sessions: %s\n", bop_strerror(reason));
    complain("a connection was closed");
}

static void connect_all(struct bench *bench)
{
    static const struct bop_socket_events events = {
        .on_open = on_open, .on_data = on_data, .on_close = on_close};

    for (uint64_t n = 0; n < bench->connection_count; n++) {
        struct connection *connection = &bench->connections[n];
        char host[256];
        const char *server = bench->servers[n % bench->server_count];
        const char *colon = strrchr(server, ':');
        struct bop_connect_options options = {.host = host, .events = &events, .user = connection};

        if (!colon || (size_t)(colon - server) >= sizeof(host)) {
            complain("a server is HOST:PORT");
        }
        memcpy(host, server, (size_t)(colon - server));
        host[colon - server] = 0;
        options.port = (uint16_t)strtoul(colon + 1, NULL, 10);
        connection->bench = bench;
        connection->next = n;
        if (bop_connect(bench->loop, &options, &connection->socket, NULL) < 0) {
            complain("no connection");
        }
    }
}

/* ---- Time ---- */

static uint64_t slots(const struct bench *bench)
{
    return bop_max_u64(bench->timeout_ms / 3 / TICK_MS, 1);
}

/* Those whose turn it is; after a late turn of the loop, those of all slots passed. */
static void tick(struct bench *bench)
{
    uint64_t now = (uint64_t)now_ms();

    for (; bench->slot_ms + TICK_MS <= now; bench->slot_ms += TICK_MS) {
        bench->slot = (bench->slot + 1) % slots(bench);
        for (uint64_t n = bench->slot; n < bench->count; n += slots(bench)) {
            if (bench->sessions[n].id != 0) {
                send_alive(bench, n);
            }
        }
    }
}

static void turn(struct bench *bench)
{
    if (bop_loop_run_once(bench->loop, TICK_MS) < 0) {
        complain("the loop failed");
    }
    tick(bench);
}

static void live_for(struct bench *bench, double seconds)
{
    double end_ms = now_ms() + seconds * 1000;

    while (now_ms() < end_ms) {
        turn(bench);
    }
}

static double cpu_seconds(const struct bench *bench)
{
    double sum = 0;

    for (size_t n = 0; n < bench->pid_count; n++) {
        unsigned long long user = 0, system = 0;
        char path[64];
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%d/stat", bench->pids[n]);
        file = fopen(path, "r");
        if (!file ||
            fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
                   &user, &system) != 2) {
            complain("a process of --pids is gone");
        }
        fclose(file);
        sum += (double)(user + system);
    }
    return sum / (double)sysconf(_SC_CLK_TCK);
}

static void measure(struct bench *bench)
{
    double begun_ms = now_ms(), cpu;
    uint64_t answers;

    bench->slot_ms = (uint64_t)begun_ms;
    connect_all(bench);
    while (bench->open < bench->count) {
        turn(bench);
        if (now_ms() - begun_ms > PATIENCE_MS) {
            complain("the sessions cannot be opened");
        }
    }
    printf("open_ms %.1f\n", now_ms() - begun_ms);
    live_for(bench, bench->settle);
    begun_ms = now_ms();
    answers = bench->answers;
    cpu = cpu_seconds(bench);
    live_for(bench, bench->seconds);
    cpu = cpu_seconds(bench) - cpu;
    printf("cpu_percent %.2f\n", cpu / (now_ms() - begun_ms) * 100000);
    printf("heartbeats_s %.0f\n",
           (double)(bench->answers - answers) / (now_ms() - begun_ms) * 1000);
}

/* ---- The command line ---- */

static void take_servers(struct bench *bench, char *text)
{
    for (char *at = strtok(text, ","); at && bench->server_count < SERVERS_MAX;
         at = strtok(NULL, ",")) {
        bench->servers[bench->server_count++] = at;
    }
}

static void take_pids(struct bench *bench, char *text)
{
    for (char *at = strtok(text, ","); at && bench->pid_count < PIDS_MAX; at = strtok(NULL, ",")) {
        bench->pids[bench->pid_count++] = (int)strtol(at, NULL, 10);
    }
}

static void take_option(struct bench *bench, int option)
{
    switch (option) {
    case 's':
        take_servers(bench, optarg);
        break;
    case 'p':
        take_pids(bench, optarg);
        break;
    case 'n':
        bench->count = strtoull(optarg, NULL, 10);
        break;
    case 'c':
        bench->connection_count = strtoull(optarg, NULL, 10);
        break;
    case 't':
        bench->timeout_ms = strtoull(optarg, NULL, 10);
        break;
    case 'l':
        bench->settle = strtod(optarg, NULL);
        break;
    case 'd':
        bench->seconds = strtod(optarg, NULL);
        break;
    default:
        exit(2);
    }
}

static void parse(struct bench *bench, int argc, char **argv)
{
    static const struct option options[] = {
        {"servers", required_argument, NULL, 's'},  {"pids", required_argument, NULL, 'p'},
        {"sessions", required_argument, NULL, 'n'}, {"connections", required_argument, NULL, 'c'},
        {"timeout", required_argument, NULL, 't'},  {"settle", required_argument, NULL, 'l'},
        {"seconds", required_argument, NULL, 'd'},  {0}};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        take_option(bench, option);
    }
    if (bench->server_count == 0 || bench->pid_count == 0 || bench->count == 0 ||
        bench->count >= UINT32_MAX || bench->connection_count == 0 ||
        bench->connection_count > CONNECTIONS_MAX || bench->timeout_ms < 100 ||
        bench->timeout_ms > UINT32_MAX || !(bench->seconds > 0)) {
        fprintf(stderr, "sessions: --servers and --pids are wanted, and numbers that make sense\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct bench bench = {
        .count = 100000, .connection_count = 500, .timeout_ms = 10000, .settle = 4, .seconds = 10};

    parse(&bench, argc, argv);
    bop_random_seed(&bench.random, (uint64_t)getpid());
    bench.sessions = calloc(bench.count, sizeof(*bench.sessions));
    bench.connections = calloc(bench.connection_count, sizeof(*bench.connections));
    if (!bench.sessions || !bench.connections || bop_loop_create(NULL, &bench.loop) < 0) {
        complain("no memory");
    }
    measure(&bench);
    /* Connections and memory end with the process; what is left of the sessions with its cluster.
     */
    return 0;
}
