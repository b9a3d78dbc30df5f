/*
 * Failures: one line each, and the exit code that goes with them.
 */
#include "cli.h"

/* A name from the command line may hold anything; the line must stay one, and text. */
static void make_printable(char *text)
{
    bool utf8 = bop_slice_is_utf8(bop_slice_cstr(text));

    for (char *at = text; *at; at++) {
        unsigned char byte = (unsigned char)*at;

        if (byte < ' ' || byte == 0x7f || (byte > 0x7f && !utf8)) {
            *at = '?';
        }
    }
}

int cli_complain(int exit_code, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    make_printable(text);
    fflush(stdout);
    fprintf(stderr, "bop: %s\n", text);
    return exit_code;
}

int cli_complain_error(const struct bop_error *err)
{
    return cli_complain(CLI_FAILED, "%s", err->message);
}

int cli_exit_code(int code)
{
    switch (code) {
    case 0:
        return CLI_OK;
    case BOP_ENOTFOUND:
        return CLI_NOT_FOUND;
    case BOP_ECONDITION:
        return CLI_CONDITION;
    default:
        return CLI_FAILED;
    }
}

int cli_finish_output(int exit_code)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return exit_code;
    }
    if (errno == EPIPE) {
        return CLI_FAILED; /* Its reader has seen enough, as `head` does. */
    }
    return cli_complain(CLI_FAILED, "cannot write the output: %s", bop_strerror(-errno));
}
