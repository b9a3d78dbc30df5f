/*
 * bop demo: the story from its beginning to its end, whatever happens between.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include <bop/fs.h>

#include "demo.h"

#define PACKAGES   "/var/lib/dpkg/status"
#define LAST_TURNS 3 /* To say goodbye. */

static int make_data(struct demo *demo)
{
    char packages[COUNT_TEXT_MAX], entries[COUNT_TEXT_MAX];
    int rc = 0;

    demo_data_init(&demo->data);
    if (bop_fs_exists(bop_fs_real(), PACKAGES)) {
        rc = demo_data_add_packages(&demo->data, PACKAGES, &demo->err);
        if (rc < 0) {
            return rc;
        }
    }
    demo->packages = (uint64_t)rc;
    rc = demo_data_generate(&demo->data, demo->args->entries);
    if (rc == 0) {
        rc = demo_data_finish(&demo->data);
    }
    if (rc < 0) {
        return bop_error_set(&demo->err, rc, "make the entries");
    }
    demo_tell(demo, DEMO_PLAIN, "to write: %s packages of %s and %s generated entries, %.1f MB",
              count_text(demo->packages, packages), PACKAGES,
              count_text(demo->args->entries, entries), (double)demo->data.bytes.size / 1e6);
    return 0;
}

static int play(struct demo *demo)
{
    int rc = make_data(demo);

    if (rc == 0) {
        rc = demo_cluster_prepare(&demo->cluster, demo->args->bopd, demo->args->dir, &demo->err);
    }
    if (rc == 0) {
        rc = bop_loop_create(NULL, &demo->loop);
        if (rc < 0) {
            bop_error_set(&demo->err, rc, "create a loop");
        }
    }
    return rc < 0 ? rc : demo_play(demo);
}

static void close_all(struct demo *demo)
{
    bop_client_destroy(demo->client);
    for (unsigned i = 0; i < DEMO_NODES && demo->probing; i++) {
        probe_close(&demo->probes[i]);
    }
    for (int i = 0; i < LAST_TURNS && demo->loop; i++) {
        /* What cannot be said any more: the session expires. */
        BOP_IGNORE(bop_loop_run_once(demo->loop, 0));
    }
    if (demo->loop) {
        bop_loop_destroy(demo->loop);
    }
    demo_data_deinit(&demo->data);
}

static int fail(struct demo *demo)
{
    progress_clear(&demo->progress);
    if (demo_interrupted()) {
        cli_complain(CLI_INTERRUPTED, "interrupted; stopping the nodes");
        return CLI_INTERRUPTED;
    }
    if (demo->err.code == 0) {
        return cli_complain(CLI_FAILED, "the demo found a fault in BOP; data and logs stay in %s",
                            demo->cluster.directory);
    }
    if (demo->cluster.directory[0]) {
        return cli_complain(CLI_FAILED, "%s (data and logs stay in %s)", demo->err.message,
                            demo->cluster.directory);
    }
    return cli_complain_error(&demo->err);
}

int cmd_demo(const struct cli_args *args)
{
    static struct demo demo; /* Large, and one a process. */
    int exit_code = CLI_OK;

    demo.args = args;
    demo.out = args->json ? stderr : stdout;
    demo.color = isatty(fileno(demo.out)) == 1 && !args->no_color && !getenv("NO_COLOR");
    demo.started_us = bop_clock_monotonic_us(bop_clock_system());
    demo.cluster.survives = args->keep;
    demo_catch_signals();
    fputs("Three nodes on this machine, the leader killed in mid-stream.\n\n", demo.out);
    if (play(&demo) == 0) {
        demo_print_report(&demo);
    }
    if (demo.err.code != 0 || !demo_is_good(&demo)) {
        exit_code = fail(&demo);
    }
    if (args->keep && exit_code == CLI_OK) {
        demo_print_how_to_talk(&demo);
    } else {
        demo_cluster_stop(&demo.cluster);
    }
    if (exit_code != CLI_FAILED && !args->keep) {
        demo_cluster_remove(&demo.cluster);
    }
    close_all(&demo);
    return cli_finish_output(exit_code);
}
