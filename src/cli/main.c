/*
 * bop: talk to a cluster from the command line. See `bop help` and bop(1).
 */
#include <signal.h>
#include <stdlib.h>

#include "args.h"

int main(int argc, char **argv)
{
    static struct cli_args args;
    struct bop_error err = {0};

    signal(SIGPIPE, SIG_IGN); /* Writing then fails, and is told like any other failure. */
    if (args_parse(argc, argv, getenv("BOP_SERVER"), &args, &err) < 0) {
        return cli_complain(args_usage_exit(argc, argv), "%s", err.message);
    }
    if (args.version) {
        printf("bop %s\n", BOP_VERSION);
        return cli_finish_output(CLI_OK);
    }
    if (args.help) {
        args_print_help(&args, stdout);
        return cli_finish_output(CLI_OK);
    }
    return args.command->run(&args);
}
