/*
 * Unix sockets: paths that stay behind, abstract names, names for people.
 */
#include <sys/stat.h>
#include <sys/un.h>

#include "socket_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

static void listen_on(struct fixture *f, const char *path)
{
    bop_listener_close(f->listener);
    fixture_listen(f, (struct bop_listen_options){.path = path});
}

/* A raw client. '@' is an abstract name. */
static int unix_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(fd >= 0 && length < sizeof(address.sun_path));
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') {
        address.sun_path[0] = '\0';
    } else {
        length++;
    }
    REQUIRE_EQ(connect(fd, (struct sockaddr *)&address,
                       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)),
               0);
    return fd;
}

static void make_echo(struct end *end)
{
    end->echo = true;
}

static void check_echo(struct fixture *f, const char *path)
{
    unsigned before = f->accepts;
    char buffer[8];
    int fd = unix_connect(path);

    raw_send(fd, "hello", 5);
    TURN_UNTIL(f->accepts == before + 1 && f->accepted[before].got.size == 5);
    turn(f->loop);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 5);
    CHECK_MEM_EQ(buffer, "hello", 5);
    close(fd);
    TURN_UNTIL(f->accepted[before].closes == 1);
    CHECK_EQ(f->accepted[before].reason, 0);
}

TEST(unix_socket, carries_bytes_and_removes_its_path)
{
    const char *path = test_path(NULL, "socket");
    struct stat status;

    f->prepare = make_echo;
    listen_on(f, path);
    CHECK_EQ(bop_listener_port(f->listener), 0);
    check_echo(f, path);
    CHECK_EQ(stat(path, &status), 0);
    bop_listener_close(f->listener);
    CHECK_EQ(stat(path, &status), -1);
}

TEST(unix_socket, by_an_abstract_name)
{
    char name[64];

    snprintf(name, sizeof(name), "@bop-test-%d", (int)getpid());
    f->prepare = make_echo;
    listen_on(f, name);
    check_echo(f, name);
}

TEST(unix_socket, replaces_a_path_that_nobody_listens_on)
{
    const char *path = test_path(NULL, "socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, path, strlen(path));
    REQUIRE_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    REQUIRE_EQ(listen(fd, 1), 0);
    close(fd); /* As a crash leaves it. */
    f->prepare = make_echo;
    listen_on(f, path);
    check_echo(f, path);
}

TEST(unix_socket, leaves_a_path_that_is_in_use)
{
    const char *path = test_path(NULL, "socket"), *file = test_path(NULL, "file");
    struct bop_listen_options options = {.path = path, .on_accept = fixture_on_accept, .user = f};
    struct bop_listener *listener = NULL;
    struct bop_error err = {0};
    struct stat status;
    int fd;

    listen_on(f, path);
    CHECK_EQ(bop_listen(f->loop, &options, &listener, &err), -EADDRINUSE);
    CHECK_STR_HAS(err.message, "listen on unix:");
    CHECK_STR_HAS(err.message, path);
    /* A file that is no socket is nobody's to remove. */
    fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    close(fd);
    options.path = file;
    CHECK_EQ(bop_listen(f->loop, &options, &listener, &err), -EADDRINUSE);
    CHECK_EQ(stat(file, &status), 0);
    CHECK_PTR_EQ(listener, NULL);
}

/* Another may have taken the path: it is not ours to remove then. */
TEST(unix_socket, leaves_a_path_that_is_another_ones_by_now)
{
    const char *path = test_path(NULL, "socket");
    struct bop_listen_options options = {.path = path, .on_accept = fixture_on_accept, .user = f};
    struct bop_listener *next;
    struct stat status;

    listen_on(f, path);
    REQUIRE_EQ(unlink(path), 0);
    REQUIRE_EQ(bop_listen(f->loop, &options, &next, NULL), 0);
    bop_listener_close(f->listener);
    CHECK_EQ(stat(path, &status), 0);
    bop_listener_close(next);
    CHECK_EQ(stat(path, &status), -1);
}

TEST(unix_socket, refuses_bad_paths)
{
    struct bop_listen_options options = {.on_accept = fixture_on_accept};
    struct bop_listener *listener = NULL;
    char path[200];

    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    options.path = path;
    CHECK_EQ(bop_listen(f->loop, &options, &listener, NULL), -ENAMETOOLONG);
    options.path = "";
    CHECK_EQ(bop_listen(f->loop, &options, &listener, NULL), BOP_EINVAL);
    options.path = "@";
    CHECK_EQ(bop_listen(f->loop, &options, &listener, NULL), BOP_EINVAL);
    options.path = "/nonexistent/directory/socket";
    CHECK_EQ(bop_listen(f->loop, &options, &listener, NULL), -ENOENT);
    CHECK_PTR_EQ(listener, NULL);
}
