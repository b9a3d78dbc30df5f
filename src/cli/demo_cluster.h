/*
 * Three bopd on this machine: started, killed, started again, stopped, and what
 * they leave removed. Only processes that were started here are ever ended.
 */
#ifndef BOP_CLI_DEMO_CLUSTER_H
#define BOP_CLI_DEMO_CLUSTER_H

#include <sys/types.h>

#include <bop/error.h>
#include <bop/wire.h>

#define DEMO_NODES   3
#define DEMO_CLUSTER "demo"
#define DEMO_PATH    512 /* Of the directory. Files in it have short names. */

struct demo_node {
    pid_t pid; /* 0: not running. */
    uint16_t port;
    char address[BOP_ADDRESS_MAX + 1];
};

struct demo_cluster {
    char bopd[DEMO_PATH];
    char directory[DEMO_PATH]; /* Empty: none was made yet. */
    bool made_directory;
    bool survives; /* The nodes outlive this process. */
    struct demo_node nodes[DEMO_NODES];
};

/**
 * Find bopd (path, or NULL: beside this program, else in PATH), make a directory
 * (dir, which must be empty or missing, or NULL: a temporary one) and choose ports.
 */
BOP_MUST_USE int demo_cluster_prepare(struct demo_cluster *cluster, const char *path,
                                      const char *dir, struct bop_error *err);

/** Start the node of this index. */
BOP_MUST_USE int demo_cluster_start(struct demo_cluster *cluster, unsigned i,
                                    struct bop_error *err);

/** Kill it with SIGKILL and wait until it is gone. */
void demo_cluster_kill(struct demo_cluster *cluster, unsigned i);

/** Returns 0, or a code with err set if a node ended by itself. */
BOP_MUST_USE int demo_cluster_watch(struct demo_cluster *cluster, struct bop_error *err);

/** End all in order, and after five seconds by force. */
void demo_cluster_stop(struct demo_cluster *cluster);

/** Remove the data, the logs, and the directory if it was made here. */
void demo_cluster_remove(struct demo_cluster *cluster);

#endif
