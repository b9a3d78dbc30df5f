/*
 * Unix sockets: paths, and abstract names, which begin with '@' here.
 *
 * The path of a listener that ended without removing it is in the way of the
 * next one. Whether somebody still listens is asked by connecting; two that find
 * nobody at the same time may both bind, and the last one has the path.
 */
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "socket_internal.h"

int bop__unix_address(const char *path, struct sockaddr_un *out_address)
{
    size_t length = strlen(path);
    bool abstract = path[0] == '@';

    if (length == 0 || (abstract && length == 1)) {
        return BOP_EINVAL;
    }
    /* A path ends with a NUL, an abstract name with the address. */
    if (length + !abstract > sizeof(out_address->sun_path)) {
        return -ENAMETOOLONG;
    }
    *out_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out_address->sun_path, path, length);
    if (abstract) {
        out_address->sun_path[0] = '\0';
    }
    return (int)(offsetof(struct sockaddr_un, sun_path) + length + !abstract);
}

static int open_unix(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    return fd >= 0 ? fd : -errno;
}

/* Is there a socket that nobody listens on? */
static bool is_stale(const char *path, const struct sockaddr_un *address, socklen_t size)
{
    struct stat status;
    int fd, rc;

    if (lstat(path, &status) != 0 || !S_ISSOCK(status.st_mode)) {
        return false;
    }
    fd = open_unix();
    if (fd < 0) {
        return false;
    }
    rc = connect(fd, (const struct sockaddr *)address, size) == 0 ? 0 : errno;
    BOP_IGNORE(close(fd)); /* It was only a question. */
    return rc == ECONNREFUSED;
}

int bop__unix_listen(const char *path, int backlog)
{
    struct sockaddr_un address;
    int size = bop__unix_address(path, &address), fd, rc;

    if (size < 0) {
        return size;
    }
    fd = open_unix();
    if (fd < 0) {
        return fd;
    }
    rc = bind(fd, (struct sockaddr *)&address, (socklen_t)size) == 0 ? 0 : -errno;
    if (rc == -EADDRINUSE && path[0] != '@' && is_stale(path, &address, (socklen_t)size)) {
        BOP_IGNORE(unlink(path)); /* If it cannot be removed, binding says so. */
        rc = bind(fd, (struct sockaddr *)&address, (socklen_t)size) == 0 ? 0 : -errno;
    }
    if (rc == 0 && listen(fd, backlog) != 0) {
        rc = -errno;
    }
    if (rc != 0) {
        BOP_IGNORE(close(fd)); /* Nothing was done with it. */
        return rc;
    }
    return fd;
}
