#include "cli.h"
int cmd_demo(const struct cli_args *args)
{
    return cli_complain(CLI_FAILED, "not yet");
}
