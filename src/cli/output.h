/*
 * Where a command writes what it was asked for: a file, a device, or standard output.
 *
 * A file is written under another name beside it and takes its own only when all
 * is there and on disk, so nobody mistakes the half of it for the whole.
 */
#ifndef BOP_CLI_OUTPUT_H
#define BOP_CLI_OUTPUT_H

#include <bop/slice.h>

#define OUTPUT_PATH_MAX 4096

/** One a process at a time. */
struct output {
    const char *path;              /* What was asked for; "-" is standard output. */
    char partial[OUTPUT_PATH_MAX]; /* Where we write meanwhile; empty: there itself. */
    int fd;
};

/** Open it. Returns an exit code, having said why if it is not CLI_OK. */
int output_open(struct output *output, const char *path);
/** Returns 0 or -errno. */
int output_write(struct output *output, struct bop_slice bytes);
/** Take back all that was written. False if it cannot be: it went to a pipe or a device. */
BOP_MUST_USE bool output_rewind(struct output *output);

/** All is written: give a file its name. Returns as output_open(). */
int output_finish(struct output *output);
/** Close; a file that was not finished is removed. */
void output_close(struct output *output);

#endif
