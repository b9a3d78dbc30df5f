/*
 * bopd: one node of a cluster, as a daemon in the foreground.
 *
 * Exit status: 0 stopped in order, 1 failed at run time, 2 wrong usage or
 * configuration, 3 the data cannot be opened, 4 cannot listen, 5 the node was removed
 * from its cluster, or its place was taken.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bop/fs.h>
#include <bop/node.h>

#include "config.h"
#include "profiler.h"
#include "security.h"

/* About what a disk's flush and a peer's answer take: see bop_loop_options. */
#define BUSY_POLL_US 150

enum {
    EXIT_IN_ORDER = 0,
    EXIT_AT_RUN_TIME = 1,
    EXIT_DATA = 3,
    EXIT_LISTEN = 4,
    EXIT_REMOVED = 5,
};

struct daemon {
    struct config config;
    struct bop_loop *loop;
    struct bop_metrics *metrics;
    struct bop_node *node;
    struct bop_post stop_post;
    struct bop_post reload_post;
    struct bop_timer ready_timer;
    struct profiler profiler;
    bool stopping;
    atomic_bool reloading; /* It is posted, and must not be again. */
    int exit_code;
    char temporary[64]; /* --dev's data directory; empty: none was made. */
    char address[BOP_ADDRESS_MAX + 1];
    char http_address[BOP_ADDRESS_MAX + 1]; /* Empty: not served. */
};

/* The one daemon of the process, for signal handlers. */
static struct daemon *signaled;

static int complain(const struct bop_error *err, int exit_code)
{
    fprintf(stderr, "bopd: %s\n", err->message);
    return exit_code;
}

/* What to do about an address that cannot be listened on. */
static void complain_of_address(const struct bop_error *err, const char *flag)
{
    const char *advice = err->code == -EADDRINUSE ? ": stop what listens there, or choose another "
                                                    "port with "
                         : err->code == -EADDRNOTAVAIL ? ": give an address of this machine to "
                         : err->code == -EACCES        ? ": ports below 1024 are for root, choose "
                                                         "another one with "
                                                       : NULL;

    fprintf(stderr, "bopd: %s%s%s\n", err->message, advice ? advice : "", advice ? flag : "");
}

/* ---- Stopping ---- */

static void on_stopped(void *user)
{
    struct daemon *daemon = user;

    bop_loop_stop(daemon->loop);
}

static void on_stop_post(struct bop_post *post)
{
    struct daemon *daemon = BOP_CONTAINER_OF(post, struct daemon, stop_post);

    bop_log(bop_log_stderr(), BOP_LOG_INFO, "bopd", "stopping");
    bop_node_stop(daemon->node, on_stopped, daemon);
}

static void on_reload_post(struct bop_post *post)
{
    struct daemon *daemon = BOP_CONTAINER_OF(post, struct daemon, reload_post);
    struct bop_error err = {0};

    atomic_store(&daemon->reloading, false); /* First, so that no change comes too late. */
    if (!daemon->node) {
        return; /* What it starts with is just being read. */
    }
    if (security_reload(&daemon->config, daemon->node, &err) < 0) {
        bop_log(bop_log_stderr(), BOP_LOG_ERROR, "bopd", "reload: %s; what was there stays",
                err.message);
    } else {
        bop_log(bop_log_stderr(), BOP_LOG_INFO, "bopd", "reloaded certificates and tokens");
    }
}

static void on_hangup(int number)
{
    if (!atomic_exchange(&signaled->reloading, true)) {
        bop_loop_post(signaled->loop, &signaled->reload_post);
    }
}

static void on_signal(int number)
{
    if (!signaled->stopping) {
        signaled->stopping = true;
        bop_loop_post(signaled->loop, &signaled->stop_post);
    }
}

/* Before the data is opened, so that a stop during a long recovery is in order too. A second
 * signal of the kind is not waited for: it ends the process at once. */
static void catch_signals(struct daemon *daemon)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | (int)SA_RESETHAND};

    signaled = daemon;
    daemon->stop_post.fn = on_stop_post;
    daemon->reload_post.fn = on_reload_post;
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (daemon->config.tls_certificate[0] || daemon->config.tokens[0]) {
        /* Without anything to reload it ends a daemon whose terminal goes, as ever. */
        action = (struct sigaction){.sa_handler = on_hangup, .sa_flags = SA_RESTART};
        sigaction(SIGHUP, &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
}

static void on_failed(void *user, int code, const char *message)
{
    struct daemon *daemon = user;
    struct bop_error err;

    bop_error_say(&err, code, "%s", message);
    daemon->exit_code = complain(&err, code == BOP_EREMOVED ? EXIT_REMOVED : EXIT_AT_RUN_TIME);
    bop_loop_stop(daemon->loop);
}

/* ---- --dev ---- */

static int make_temporary(struct daemon *daemon, struct bop_error *err)
{
    const char *base = getenv("TMPDIR");
    int length = snprintf(daemon->temporary, sizeof(daemon->temporary), "%s/bopd-dev-XXXXXX",
                          base && strlen(base) < 40 ? base : "/tmp");

    if (length < 0 || !mkdtemp(daemon->temporary)) {
        int rc = -errno;

        bop_error_set(err, rc, "make a directory like %s", daemon->temporary);
        daemon->temporary[0] = '\0';
        return rc;
    }
    snprintf(daemon->config.data, sizeof(daemon->config.data), "%s", daemon->temporary);
    return 0;
}

struct removal {
    const char *directory;
};

static void remove_tree(const char *path);

static int remove_entry(void *user, const char *name)
{
    const struct removal *removal = user;
    char path[CONFIG_PATH_MAX + 256];

    snprintf(path, sizeof(path), "%s/%s", removal->directory, name);
    remove_tree(path);
    return 0;
}

/* Best effort: what cannot be removed is only left behind in the temporary directory. */
static void remove_tree(const char *path)
{
    struct bop_fs *fs = bop_fs_real();
    struct removal removal = {.directory = path};

    if (unlink(path) < 0) {
        BOP_IGNORE(fs->list(fs, path, remove_entry, &removal));
        BOP_IGNORE(rmdir(path));
    }
}

/* With TLS or tokens the other lines would lack what only its users have. */
static void say_ready_with_security(const struct daemon *daemon)
{
    const struct config *config = &daemon->config;

    printf("bopd: ready on %s\n"
           "  bop --server %s%s%s%s status\n"
           "data in %s, removed at the end; stop with Ctrl-C\n",
           daemon->address, daemon->address, config->tls_certificate[0] ? " --ca " : "",
           config->tls_ca[0] ? config->tls_ca : config->tls_certificate,
           config->tokens[0] ? " --token-file FILE" : "", config->data);
}

static void say_ready(struct daemon *daemon)
{
    if (daemon->config.tls_certificate[0] || daemon->config.tokens[0]) {
        say_ready_with_security(daemon);
        fflush(stdout);
        return;
    }
    printf("bopd: ready on %s\n"
           "  bop --server %s map put greetings hello world\n"
           "  bop --server %s map get greetings hello\n"
           "  bop --server %s status\n"
           "  curl http://%s/v1/maps/greetings/entries/hello\n"
           "data in %s, removed at the end; stop with Ctrl-C\n",
           daemon->address, daemon->address, daemon->address, daemon->address, daemon->http_address,
           daemon->config.data);
    fflush(stdout);
}

/* A single node leads itself after its first election timeout: say so when it does. */
static void on_ready_timer(struct bop_timer *timer)
{
    struct daemon *daemon = BOP_CONTAINER_OF(timer, struct daemon, ready_timer);
    struct bop_node_status status;

    bop_node_status(daemon->node, &status);
    if (status.state == BOP_RAFT_LEADER && status.applied > 0) {
        say_ready(daemon);
    } else if (bop_timer_start(daemon->loop, timer, 1) < 0) {
        say_ready(daemon);
    }
}

/* ---- Running ---- */

static unsigned collect_peers(const struct config *config, struct bop_node_peer *out_peers)
{
    for (unsigned n = 0; n < config->peer_count; n++) {
        out_peers[n] = (struct bop_node_peer){
            .id = config->peers[n].id,
            .host = config->peers[n].address.host,
            .port = config->peers[n].address.port,
        };
    }
    return config->peer_count;
}

/* To try it, any port does: another --dev may have the usual one. */
static int start_node_anywhere(struct daemon *daemon, struct bop_node_options *options,
                               enum bop_node_part *part, struct bop_error *err)
{
    int rc = bop_node_start(options, &daemon->node, part, err);

    if (rc == -EADDRINUSE && *part == BOP_NODE_HTTP && !daemon->config.http_given) {
        options->http_port = 0;
        rc = bop_node_start(options, &daemon->node, part, err);
    }
    return rc;
}

static int start_node(struct daemon *daemon, struct bop_error *err)
{
    const struct config *config = &daemon->config;
    struct bop_node_peer peers[CONFIG_PEERS_MAX];
    enum bop_node_part part = BOP_NODE_TLS;
    struct security security;
    struct bop_node_options options = {
        .loop = daemon->loop,
        .log = bop_log_stderr(),
        .metrics = daemon->metrics,
        .data = config->data,
        .cluster = config->cluster,
        .id = config->id,
        .listen_host = config->listen.host,
        .listen_port = config->listen.port,
        .http_host = config->http.host[0] ? config->http.host : NULL,
        .http_port = config->http.port,
        .peers = peers,
        .peer_count = collect_peers(config, peers),
        .join = config->join,
        .learner = config->learner,
        .election_timeout_ms = (unsigned)config->election_timeout_ms,
        .heartbeat_ms = (unsigned)config->heartbeat_ms,
        .clients_max = (unsigned)config->connections_max,
        .snapshot_entries = config->snapshot_entries,
        .trailing_entries = config->trailing_entries,
        .inflight_entries = (unsigned)config->inflight_entries,
        .uncommitted_bytes = config->uncommitted_bytes,
        .send_bytes_s = config->send_bytes_s,
        .segment_bytes = config->segment_bytes,
        .state_bytes_max = config->state_bytes_max,
        .on_failed = on_failed,
        .user = daemon,
    };
    int rc = security_options(config, &security, &options, err);

    if (rc == 0) {
        rc = start_node_anywhere(daemon, &options, &part, err);
    }
    security_free(&security);
    if (rc == 0) {
        return EXIT_IN_ORDER;
    }
    if (part == BOP_NODE_LISTEN || part == BOP_NODE_HTTP) {
        complain_of_address(err, part == BOP_NODE_HTTP ? "--http" : "--listen");
        return EXIT_LISTEN;
    }
    return complain(err, part == BOP_NODE_TLS        ? CONFIG_EXIT_USAGE
                         : err->code == BOP_EREMOVED ? EXIT_REMOVED
                                                     : EXIT_DATA);
}

static void note_http(struct daemon *daemon)
{
    struct config_address bound = daemon->config.http;

    if (bound.host[0]) {
        bound.port = bop_node_http_port(daemon->node);
        config_address_format(&bound, daemon->http_address);
        bop_log(bop_log_stderr(), BOP_LOG_INFO, "bopd", "serves HTTP on %s", daemon->http_address);
    }
}

static int run(struct daemon *daemon, struct bop_error *err)
{
    struct config_address bound = daemon->config.listen;
    int exit_code, rc;

    catch_signals(daemon);
    exit_code = start_node(daemon, err);
    if (exit_code != EXIT_IN_ORDER) {
        return exit_code;
    }
    rc = profiler_start(&daemon->profiler, daemon->config.data);
    if (rc < 0) {
        bop_error_set(err, rc, "start a thread");
        return complain(err, EXIT_AT_RUN_TIME);
    }
    bound.port = bop_node_port(daemon->node);
    config_address_format(&bound, daemon->address);
    bop_log(bop_log_stderr(), BOP_LOG_INFO, "bopd", "node %" PRIu64 " listens on %s data=%s",
            daemon->config.id, daemon->address, daemon->config.data);
    note_http(daemon);
    if (daemon->config.dev) {
        bop_timer_init(&daemon->ready_timer, on_ready_timer);
        on_ready_timer(&daemon->ready_timer);
    }
    rc = bop_loop_run(daemon->loop);
    if (daemon->config.dev) {
        bop_timer_stop(daemon->loop, &daemon->ready_timer);
    }
    if (rc < 0) {
        bop_error_set(err, rc, "wait for events");
        return complain(err, EXIT_AT_RUN_TIME);
    }
    return daemon->exit_code;
}

static int serve(struct daemon *daemon)
{
    struct bop_loop_options options = {.busy_poll_us = BUSY_POLL_US};
    struct bop_error err = {0};
    int exit_code = EXIT_AT_RUN_TIME;
    int rc;

    profiler_block_signals();
    rc = bop_loop_create(&options, &daemon->loop);
    if (rc == 0) {
        rc = bop_metrics_create(NULL, &daemon->metrics);
    }
    if (rc < 0) {
        bop_error_set(&err, rc, "start");
        complain(&err, exit_code);
    } else if (daemon->config.data[0] == '\0' && make_temporary(daemon, &err) < 0) {
        exit_code = complain(&err, EXIT_DATA);
    } else {
        exit_code = run(daemon, &err);
    }
    profiler_stop(&daemon->profiler);
    signal(SIGHUP, SIG_IGN);
    bop_node_destroy(daemon->node);
    bop_loop_destroy(daemon->loop);
    bop_metrics_destroy(daemon->metrics);
    if (daemon->temporary[0]) {
        remove_tree(daemon->temporary);
    }
    return exit_code;
}

int main(int argc, char **argv)
{
    static struct daemon daemon;
    struct bop_error err = {0};

    if (config_parse(argc, argv, &daemon.config, &err) < 0) {
        return complain(&err, CONFIG_EXIT_USAGE);
    }
    if (daemon.config.help) {
        fputs(config_help(), stdout);
        return EXIT_IN_ORDER;
    }
    if (daemon.config.version) {
        printf("bopd %s\n", BOP_VERSION);
        return EXIT_IN_ORDER;
    }
    if (daemon.config.check_config) {
        if (security_check(&daemon.config, &err) < 0) {
            return complain(&err, CONFIG_EXIT_USAGE);
        }
        printf("bopd: configuration is in order\n");
        return EXIT_IN_ORDER;
    }
    bop_log_stderr()->level = daemon.config.log_level;
    return serve(&daemon);
}
