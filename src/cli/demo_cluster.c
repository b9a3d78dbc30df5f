/*
 * Processes and directories of the demo.
 *
 * Ports are chosen below the range from which the system takes those of outgoing
 * connections: a node that tries again and again to reach a dead one at a port of
 * that range would sooner or later be given this very port, and talk to itself.
 */
#include "demo_cluster.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <bop/random.h>

#define PORT_LOWEST    10000
#define PORT_ATTEMPTS  200
#define STOP_WAIT_MS   5000
#define STOP_TURN_MS   10
#define LOG_TAIL_BYTES 2048
#define OPEN_FILES_MAX 16 /* While removing. */

/* ---- Ports ---- */

static bool is_free(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)},
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

    if (fd >= 0) {
        close(fd);
    }
    return is;
}

static unsigned highest_port(void)
{
    FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    unsigned low = 0;

    if (file) {
        if (fscanf(file, "%u", &low) != 1) {
            low = 0;
        }
        fclose(file);
    }
    return low > PORT_LOWEST + 1000 && low <= UINT16_MAX ? low - 1 : 32767;
}

/* Three in a row, so that people can remember them. */
static int choose_ports(struct demo_cluster *cluster, struct bop_error *err)
{
    unsigned span = highest_port() - PORT_LOWEST - DEMO_NODES;
    struct bop_random random;
    uint64_t seed = 0;
    int rc = bop_random_secret(&seed, sizeof(seed));

    if (rc < 0) {
        return bop_error_set(err, rc, "choose ports");
    }
    bop_random_seed(&random, seed);
    for (int attempt = 0; attempt < PORT_ATTEMPTS; attempt++) {
        uint16_t first = (uint16_t)(PORT_LOWEST + bop_random_below(&random, span));
        unsigned found = 0;

        while (found < DEMO_NODES && is_free((uint16_t)(first + found))) {
            found++;
        }
        for (unsigned i = 0; found == DEMO_NODES && i < DEMO_NODES; i++) {
            struct demo_node *node = &cluster->nodes[i];

            node->port = (uint16_t)(first + i);
            snprintf(node->address, sizeof(node->address), "127.0.0.1:%u", node->port);
        }
        if (found == DEMO_NODES) {
            return 0;
        }
    }
    return bop_error_say(err, BOP_EFAILED, "no three free ports in a row on 127.0.0.1 from %d on",
                         PORT_LOWEST);
}

/* ---- Places ---- */

/* bopd beside this very program, else in PATH, else what was said. */
static int find_bopd(struct demo_cluster *cluster, const char *path, struct bop_error *err)
{
    char self[DEMO_PATH];
    ssize_t size;
    char *slash;

    if (path) {
        if (snprintf(cluster->bopd, DEMO_PATH, "%s%s", strchr(path, '/') ? "" : "./", path) >=
            DEMO_PATH) {
            return bop_error_say(err, BOP_EINVAL, "--bopd: the path is too long");
        }
        return access(cluster->bopd, X_OK) < 0 ? bop_error_set(err, -errno, "--bopd %s", path) : 0;
    }
    size = readlink("/proc/self/exe", self, sizeof(self) - 8);
    self[size > 0 ? size : 0] = '\0';
    slash = strrchr(self, '/');
    if (slash) {
        memcpy(slash + 1, "bopd", sizeof("bopd"));
        if (access(self, X_OK) == 0) {
            snprintf(cluster->bopd, DEMO_PATH, "%s", self);
            return 0;
        }
    }
    snprintf(cluster->bopd, DEMO_PATH, "bopd"); /* execvp() looks in PATH. */
    return 0;
}

static bool is_empty(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    bool empty = directory != NULL;

    while (empty && (entry = readdir(directory))) {
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    }
    if (directory) {
        closedir(directory);
    }
    return empty;
}

static int use_directory(struct demo_cluster *cluster, const char *dir, struct bop_error *err)
{
    char full[PATH_MAX];

    cluster->made_directory = mkdir(dir, 0777) == 0;
    if (!cluster->made_directory && errno != EEXIST) {
        return bop_error_set(err, -errno, "make %s", dir);
    }
    if (!realpath(dir, full) || strlen(full) + 64 > DEMO_PATH) {
        return bop_error_say(err, BOP_EINVAL, "--dir %s: not a directory, or its path is too long",
                             dir);
    }
    if (!is_empty(full)) {
        return bop_error_say(err, BOP_EINVAL,
                             "--dir %s: not an empty directory; name one that is, or a new one",
                             dir);
    }
    memcpy(cluster->directory, full, strlen(full) + 1);
    return 0;
}

static int make_temporary(struct demo_cluster *cluster, struct bop_error *err)
{
    const char *base = getenv("TMPDIR");
    char path[DEMO_PATH];

    snprintf(path, sizeof(path), "%s/bop-demo-XXXXXX",
             base && base[0] == '/' && strlen(base) + 64 < DEMO_PATH ? base : "/tmp");
    if (!mkdtemp(path)) {
        return bop_error_set(err, -errno, "make a directory like %s", path);
    }
    memcpy(cluster->directory, path, strlen(path) + 1);
    cluster->made_directory = true;
    return 0;
}

int demo_cluster_prepare(struct demo_cluster *cluster, const char *path, const char *dir,
                         struct bop_error *err)
{
    int rc = find_bopd(cluster, path, err);

    if (rc == 0) {
        rc = choose_ports(cluster, err);
    }
    if (rc == 0) {
        rc = dir ? use_directory(cluster, dir, err) : make_temporary(cluster, err);
    }
    return rc;
}

static void path_of(const struct demo_cluster *cluster, const char *format, unsigned i,
                    char out_path[DEMO_PATH])
{
    size_t used = strlen(cluster->directory);

    memcpy(out_path, cluster->directory, used);
    snprintf(out_path + used, DEMO_PATH - used, "/node-%u%s", i + 1, format);
}

/* ---- Processes ---- */

struct command {
    char id[8];
    char data[DEMO_PATH];
    char peers[DEMO_NODES][BOP_ADDRESS_MAX + 8];
    const char *words[32];
};

static void make_command(const struct demo_cluster *cluster, unsigned i, struct command *out)
{
    size_t used = 0;

    snprintf(out->id, sizeof(out->id), "%u", i + 1);
    path_of(cluster, "", i, out->data);
    out->words[used++] = cluster->bopd;
    out->words[used++] = "--id";
    out->words[used++] = out->id;
    out->words[used++] = "--cluster";
    out->words[used++] = DEMO_CLUSTER;
    out->words[used++] = "--data";
    out->words[used++] = out->data;
    out->words[used++] = "--listen";
    out->words[used++] = cluster->nodes[i].address;
    for (unsigned j = 0; j < DEMO_NODES; j++) {
        snprintf(out->peers[j], sizeof(out->peers[j]), "%u=%s", j + 1, cluster->nodes[j].address);
        out->words[used++] = "--peer";
        out->words[used++] = out->peers[j];
    }
    out->words[used] = NULL;
}

/* In the child: its own session, so that Ctrl-C is ours alone; its output into the log. */
static BOP_NORETURN void become(const struct command *command, int log_fd, bool survives,
                                pid_t parent)
{
    int null_fd = open("/dev/null", O_RDONLY);

    setsid();
    if (!survives) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) {
            _exit(127);
        }
    }
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    if (null_fd >= 0 && dup2(null_fd, STDIN_FILENO) >= 0 && dup2(log_fd, STDOUT_FILENO) >= 0 &&
        dup2(log_fd, STDERR_FILENO) >= 0) {
        if (null_fd > STDERR_FILENO) {
            close(null_fd);
        }
        /* exec takes the words as they are, but is declared without const. */
        execvp(command->words[0], (char *const *)(uintptr_t)command->words);
        dprintf(STDERR_FILENO, "cannot run %s: %s\n", command->words[0], strerror(errno));
    }
    _exit(127);
}

int demo_cluster_start(struct demo_cluster *cluster, unsigned i, struct bop_error *err)
{
    struct command command;
    char log_path[DEMO_PATH];
    pid_t parent = getpid(), pid;
    int log_fd;

    make_command(cluster, i, &command);
    path_of(cluster, ".log", i, log_path);
    log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log_fd < 0) {
        return bop_error_set(err, -errno, "open %s", log_path);
    }
    pid = fork();
    if (pid == 0) {
        become(&command, log_fd, cluster->survives, parent);
    }
    close(log_fd);
    if (pid < 0) {
        return bop_error_set(err, -errno, "start %s", cluster->bopd);
    }
    cluster->nodes[i].pid = pid;
    return 0;
}

void demo_cluster_kill(struct demo_cluster *cluster, unsigned i)
{
    struct demo_node *node = &cluster->nodes[i];

    if (node->pid > 0) {
        kill(node->pid, SIGKILL);
        while (waitpid(node->pid, NULL, 0) < 0 && errno == EINTR) {
        }
        node->pid = 0;
    }
}

/* The last line of a node's log into text. */
static void last_line(const struct demo_cluster *cluster, unsigned i, char *out_text, size_t size)
{
    char path[DEMO_PATH], tail[LOG_TAIL_BYTES + 1];
    ssize_t count = 0;
    off_t end;
    char *line;
    int fd;

    path_of(cluster, ".log", i, path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        end = lseek(fd, 0, SEEK_END);
        count = pread(fd, tail, LOG_TAIL_BYTES, end > LOG_TAIL_BYTES ? end - LOG_TAIL_BYTES : 0);
        close(fd);
    }
    while (count > 0 && tail[count - 1] == '\n') {
        count--;
    }
    tail[count > 0 ? count : 0] = '\0';
    line = strrchr(tail, '\n');
    snprintf(out_text, size, "%.*s", (int)size - 1, line ? line + 1 : tail);
}

int demo_cluster_watch(struct demo_cluster *cluster, struct bop_error *err)
{
    for (unsigned i = 0; i < DEMO_NODES; i++) {
        struct demo_node *node = &cluster->nodes[i];
        char line[300], end[64];
        int status;

        if (node->pid == 0 || waitpid(node->pid, &status, WNOHANG) != node->pid) {
            continue;
        }
        node->pid = 0;
        snprintf(end, sizeof(end), WIFSIGNALED(status) ? "signal %d" : "exit status %d",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        last_line(cluster, i, line, sizeof(line));
        return bop_error_say(err, BOP_EFAILED, "node %u ended by itself (%s); its last words: %s",
                             i + 1, end, line[0] ? line : "none");
    }
    return 0;
}

/* ---- The end ---- */

static bool all_ended(struct demo_cluster *cluster)
{
    bool all = true;

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        struct demo_node *node = &cluster->nodes[i];

        if (node->pid > 0 && waitpid(node->pid, NULL, WNOHANG) == node->pid) {
            node->pid = 0;
        }
        all = all && node->pid == 0;
    }
    return all;
}

void demo_cluster_stop(struct demo_cluster *cluster)
{
    struct timespec turn = {.tv_nsec = STOP_TURN_MS * 1000000L};

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        if (cluster->nodes[i].pid > 0) {
            kill(cluster->nodes[i].pid, SIGTERM);
        }
    }
    for (int waited = 0; waited < STOP_WAIT_MS && !all_ended(cluster); waited += STOP_TURN_MS) {
        nanosleep(&turn, NULL);
    }
    for (unsigned i = 0; i < DEMO_NODES; i++) {
        demo_cluster_kill(cluster, i);
    }
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    /* Best effort: what cannot be removed is only left behind. */
    BOP_IGNORE(remove(path));
    return 0;
}

void demo_cluster_remove(struct demo_cluster *cluster)
{
    char path[DEMO_PATH];

    if (!cluster->directory[0]) {
        return;
    }
    for (unsigned i = 0; i < DEMO_NODES; i++) {
        path_of(cluster, "", i, path);
        nftw(path, remove_one, OPEN_FILES_MAX, FTW_DEPTH | FTW_PHYS);
        path_of(cluster, ".log", i, path);
        unlink(path);
    }
    if (cluster->made_directory) {
        rmdir(cluster->directory);
    }
    cluster->directory[0] = '\0';
}
