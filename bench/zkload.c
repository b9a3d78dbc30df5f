/*
 * The load of bench/cluster for ZooKeeper: what load.c does, through ZooKeeper's own C client.
 *
 * bench/cluster builds it where libzookeeper-mt-dev is installed. It takes the options of load.c
 * that are of use here and prints the same names. --clients are connections, each with a thread
 * of the client's that sends and receives and one that calls back, which is where the next
 * request is made; the modes are write (a set of a random node) and fill (create all of them).
 */
#define THREADED
#include <getopt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

#define CLIENTS_MAX 64
#define VALUE_MAX   65536
#define CONNECT_MS  20000
#define SESSION_MS  10000
#define ANSWERS_MAX (1u << 24) /* Latencies kept, of each connection. */

struct client {
    zhandle_t *handle;
    unsigned seed;
    float *latencies_us;
    size_t counted;
    size_t answers;
};

struct request {
    struct client *client;
    double asked_s;
};

static struct settings {
    char *servers;
    bool fill;
    unsigned outstanding;
    unsigned clients;
    double seconds;
    double warmup;
    unsigned keys;
    unsigned size;
} settings = {
    .outstanding = 1, .clients = 1, .seconds = 5, .warmup = 1, .keys = 10000, .size = 128};

static struct client clients[CLIENTS_MAX];
static char value[VALUE_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* Of what follows. */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned under_way;
static unsigned next_key; /* Of fill. */
static bool counting;
static bool stopping;

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void fail(const char *what, int code)
{
    fprintf(stderr, "zkload: %s: %s\n", what, code ? zerror(code) : "no");
    exit(1);
}

/* ---- Requests ---- */

static void ask(struct request *request);

static void answered(struct request *request, int code)
{
    struct client *client = request->client;
    double now = now_s();
    bool more, count;

    if (code != ZOK) {
        fail("a request", code);
    }
    pthread_mutex_lock(&lock);
    more = !stopping && (!settings.fill || next_key < settings.keys);
    count = counting;
    if (!more && --under_way == 0) {
        pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&lock);
    client->answers++;
    if (count && client->counted < ANSWERS_MAX) {
        client->latencies_us[client->counted++] = (float)((now - request->asked_s) * 1e6);
    }
    if (more) {
        ask(request);
    }
}

static void on_set(int code, const struct Stat *stat, const void *data)
{
    (void)stat;
    answered((struct request *)data, code);
}

static void on_created(int code, const char *name, const void *data)
{
    (void)name;
    answered((struct request *)data, code);
}

static void ask(struct request *request)
{
    struct client *client = request->client;
    char path[32];
    unsigned number;
    int code;

    if (settings.fill) {
        pthread_mutex_lock(&lock);
        number = next_key++;
        pthread_mutex_unlock(&lock);
    } else {
        number = (unsigned)rand_r(&client->seed) % settings.keys;
    }
    snprintf(path, sizeof(path), "/key-%08u", number);
    request->asked_s = now_s();
    code = settings.fill
               ? zoo_acreate(client->handle, path, value, (int)settings.size, &ZOO_OPEN_ACL_UNSAFE,
                             0, on_created, request)
               : zoo_aset(client->handle, path, value, (int)settings.size, -1, on_set, request);
    if (code != ZOK) {
        fail("a request was not taken", code);
    }
}

/* ---- The run ---- */

static void on_event(zhandle_t *handle, int type, int state, const char *path, void *user)
{
    (void)handle, (void)type, (void)path, (void)user;
    if (state == ZOO_EXPIRED_SESSION_STATE) {
        fail("the session", ZSESSIONEXPIRED);
    }
}

static void connect_all(void)
{
    double begun = now_s();

    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    for (unsigned n = 0; n < settings.clients; n++) {
        clients[n].seed = n + 1;
        clients[n].latencies_us = malloc(ANSWERS_MAX * sizeof(float)); /* Touched as it is used. */
        clients[n].handle = zookeeper_init(settings.servers, on_event, SESSION_MS, NULL, NULL, 0);
        if (!clients[n].handle || !clients[n].latencies_us) {
            fail("a client", ZSYSTEMERROR);
        }
    }
    for (unsigned n = 0; n < settings.clients; n++) {
        while (zoo_state(clients[n].handle) != ZOO_CONNECTED_STATE) {
            if (now_s() - begun > CONNECT_MS / 1000.0) {
                fail("connecting", ZCONNECTIONLOSS);
            }
            usleep(10000);
        }
    }
}

static void set(bool *flag, bool to)
{
    pthread_mutex_lock(&lock);
    *flag = to;
    pthread_mutex_unlock(&lock);
}

/* Returns how long was counted. */
static double run(struct request *requests)
{
    double begun = 0, ended = 0;

    under_way = settings.outstanding < settings.keys ? settings.outstanding : settings.keys;
    for (unsigned n = 0, all = under_way; n < all; n++) {
        requests[n].client = &clients[n % settings.clients];
        ask(&requests[n]);
    }
    if (!settings.fill) {
        usleep((useconds_t)(settings.warmup * 1e6));
        begun = now_s();
        set(&counting, true);
        usleep((useconds_t)(settings.seconds * 1e6));
        set(&counting, false);
        ended = now_s();
        set(&stopping, true);
    }
    pthread_mutex_lock(&lock);
    while (under_way > 0) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    return ended - begun;
}

static int compare(const void *a, const void *b)
{
    float left = *(const float *)a, right = *(const float *)b;

    return (left > right) - (left < right);
}

static void print_results(double seconds)
{
    size_t counted = 0, answers = 0, at = 0;
    struct rusage usage;
    float *all;

    for (unsigned n = 0; n < settings.clients; n++) {
        counted += clients[n].counted;
        answers += clients[n].answers;
    }
    all = malloc((counted + 1) * sizeof(*all));
    if (!all) {
        fail("memory", ZSYSTEMERROR);
    }
    all[counted] = 0;
    for (unsigned n = 0; n < settings.clients; n++) {
        memcpy(all + at, clients[n].latencies_us, clients[n].counted * sizeof(*all));
        at += clients[n].counted;
    }
    qsort(all, counted, sizeof(*all), compare);
    getrusage(RUSAGE_SELF, &usage);
    printf("ops %.0f\n", seconds > 0 ? (double)counted / seconds : 0);
    printf("p50_us %.1f\n", (double)all[counted / 2]);
    printf("p99_us %.1f\n", (double)all[counted - counted / 100 - (counted > 0)]);
    printf("answers %zu\n", answers);
    printf("cpu_us %.3f\n", ((double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
                             (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec)) /
                                (double)(answers + 1));
    free(all);
}

static bool take_options(int argc, char **argv)
{
    static const struct option options[] = {{"servers", required_argument, NULL, 'a'},
                                            {"mode", required_argument, NULL, 'm'},
                                            {"outstanding", required_argument, NULL, 'k'},
                                            {"clients", required_argument, NULL, 'c'},
                                            {"seconds", required_argument, NULL, 't'},
                                            {"warmup", required_argument, NULL, 'w'},
                                            {"keys", required_argument, NULL, 'n'},
                                            {"size", required_argument, NULL, 's'},
                                            {0}};
    bool good = false;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'a':
            settings.servers = optarg;
            break;
        case 'm':
            settings.fill = strcmp(optarg, "fill") == 0;
            good = settings.fill || strcmp(optarg, "write") == 0;
            break;
        case 'k':
            settings.outstanding = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'c':
            settings.clients = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 't':
            settings.seconds = strtod(optarg, NULL);
            break;
        case 'w':
            settings.warmup = strtod(optarg, NULL);
            break;
        case 'n':
            settings.keys = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 's':
            settings.size = (unsigned)strtoul(optarg, NULL, 10);
            break;
        default:
            return false;
        }
    }
    return good && settings.servers && settings.outstanding > 0 && settings.clients > 0 &&
           settings.clients <= CLIENTS_MAX && settings.keys > 0 && settings.size <= VALUE_MAX;
}

int main(int argc, char **argv)
{
    struct request *requests;
    double seconds;

    if (!take_options(argc, argv)) {
        fprintf(stderr, "zkload: give --servers and --mode write or fill\n");
        return 2;
    }
    for (unsigned n = 0; n < settings.size; n++) {
        value[n] = (char)rand();
    }
    requests = calloc(settings.outstanding, sizeof(*requests));
    if (!requests) {
        return 1;
    }
    connect_all();
    seconds = run(requests);
    print_results(seconds);
    for (unsigned n = 0; n < settings.clients; n++) {
        zookeeper_close(clients[n].handle);
        free(clients[n].latencies_us);
    }
    free(requests);
    return 0;
}
