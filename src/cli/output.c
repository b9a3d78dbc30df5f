/*
 * Files that appear only when they are whole.
 */
#include "output.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

/* For the signal handler: the file that must not stay behind. */
static const char *unfinished;

static void on_signal(int number)
{
    if (unfinished) {
        unlink(unfinished);
    }
    _exit(128 + number);
}

static int open_partial(struct output *output)
{
    int length = snprintf(output->partial, sizeof(output->partial), "%s.partial-%ld", output->path,
                          (long)getpid());

    if (length < 0 || (size_t)length >= sizeof(output->partial)) {
        output->partial[0] = '\0';
        errno = ENAMETOOLONG;
        return -1;
    }
    output->fd = open(output->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (output->fd < 0) {
        output->partial[0] = '\0';
        return -1;
    }
    unfinished = output->partial;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    return 0;
}

/* A pipe or device is written itself; what is to be a file, beside it. */
int output_open(struct output *output, const char *path)
{
    struct stat status;

    *output = (struct output){.path = path, .fd = -1};
    if (strcmp(path, "-") == 0) {
        output->fd = dup(STDOUT_FILENO);
    } else if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        output->fd = open(path, O_WRONLY | O_CLOEXEC);
    } else {
        open_partial(output);
    }
    if (output->fd < 0) {
        return cli_complain(CLI_FAILED, "write %s: %s", path, bop_strerror(-errno));
    }
    return CLI_OK;
}

/* Perhaps to a pipe, so in order and without positions. */
int output_write(struct output *output, struct bop_slice bytes)
{
    while (bytes.size > 0) {
        ssize_t size = write(output->fd, bytes.data, bytes.size);

        if (size < 0 && errno != EINTR) {
            return -errno;
        }
        if (size > 0) {
            bytes = bop_slice(bytes.data + size, bytes.size - (size_t)size);
        }
    }
    return 0;
}

bool output_rewind(struct output *output)
{
    return output->partial[0] && lseek(output->fd, 0, SEEK_SET) == 0 &&
           ftruncate(output->fd, 0) == 0;
}

int output_finish(struct output *output)
{
    int rc = 0;

    if (output->partial[0]) {
        rc = fsync(output->fd) < 0 || rename(output->partial, output->path) < 0 ? -errno : 0;
        if (rc == 0) {
            unfinished = NULL;
            output->partial[0] = '\0';
        }
    }
    if (rc < 0) {
        return cli_complain(CLI_FAILED, "write %s: %s", output->path, bop_strerror(rc));
    }
    return CLI_OK;
}

void output_close(struct output *output)
{
    if (output->partial[0]) {
        unlink(output->partial);
        unfinished = NULL;
    }
    if (output->fd >= 0) {
        close(output->fd);
    }
}
