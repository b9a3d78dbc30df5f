/*
 * What both backends must do alike: events of sources, level-triggered, also
 * while sources come and go.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../net_fixture.h"
#include "net/loop/loop_internal.h"

struct fixture {
    struct test_heap heap;
    struct bop_loop *loop;
};

/* One end of a pair of sockets is watched, the other one is the test's. */
struct pair {
    struct bop__source source;
    int peer;
    unsigned calls;
    uint32_t last; /* Events. */
    bool reads;    /* All there is. */
    struct pair *closes;
    struct fixture *f;
};

static void on_events(struct bop__source *source, uint32_t events)
{
    struct pair *pair = BOP_CONTAINER_OF(source, struct pair, source);
    char bytes[4096];

    pair->calls++;
    pair->last = events;
    if (pair->reads) {
        BOP_IGNORE(recv(source->fd, bytes, sizeof(bytes), MSG_DONTWAIT) < 0);
    }
    if (pair->closes != NULL) {
        bop__loop_close_source(pair->f->loop, &pair->closes->source);
    }
}

static void open_pair(struct fixture *f, struct pair *pair)
{
    int fds[2];

    REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    *pair = (struct pair){.f = f, .peer = fds[1], .source = {.fd = fds[0], .on_events = on_events}};
}

static void watch(struct pair *pair, uint32_t events)
{
    REQUIRE_EQ(bop__loop_watch(pair->f->loop, &pair->source, events), 0);
}

static void close_pair(struct pair *pair)
{
    bop__loop_close_source(pair->f->loop, &pair->source);
    close(pair->peer);
}

static void send_byte(const struct pair *pair)
{
    CHECK_EQ(send(pair->peer, "x", 1, MSG_NOSIGNAL), 1);
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    REQUIRE_EQ(
        bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator}, &f->loop), 0);
}

static void teardown(struct fixture *f)
{
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

TEST(source, hears_in_each_turn_until_it_has_read)
{
    struct pair pair;

    open_pair(f, &pair);
    watch(&pair, EPOLLIN);
    turn(f->loop);
    CHECK_EQ(pair.calls, 0);
    send_byte(&pair);
    for (unsigned n = 1; n <= 3; n++) {
        CHECK_EQ(bop_loop_run_once(f->loop, -1), 0);
        CHECK_EQ(pair.calls, n);
        CHECK_EQ(pair.last, EPOLLIN);
    }
    pair.reads = true;
    turn(f->loop);
    turn(f->loop);
    CHECK_EQ(pair.calls, 4);
    close_pair(&pair);
}

TEST(source, hears_what_it_watches_now)
{
    struct pair pair;

    open_pair(f, &pair);
    watch(&pair, EPOLLIN);
    send_byte(&pair);
    turn(f->loop);
    CHECK_EQ(pair.calls, 1);
    CHECK_EQ(bop__loop_rewatch(f->loop, &pair.source, 0), 0);
    turn(f->loop);
    turn(f->loop);
    CHECK_EQ(pair.calls, 1);
    CHECK_EQ(bop__loop_rewatch(f->loop, &pair.source, EPOLLOUT), 0);
    turn(f->loop);
    CHECK_EQ(pair.calls, 2);
    CHECK_EQ(pair.last, EPOLLOUT);
    CHECK_EQ(bop__loop_rewatch(f->loop, &pair.source, EPOLLIN | EPOLLOUT), 0);
    turn(f->loop);
    CHECK_EQ(pair.last, EPOLLIN | EPOLLOUT);
    close_pair(&pair);
}

TEST(source, watched_for_nothing_hears_of_a_hang_up)
{
    struct pair pair;

    open_pair(f, &pair);
    watch(&pair, 0);
    send_byte(&pair);
    turn(f->loop);
    CHECK_EQ(pair.calls, 0);
    close(pair.peer);
    CHECK_EQ(bop_loop_run_once(f->loop, -1), 0);
    CHECK(pair.last & EPOLLHUP);
    pair.peer = -1;
    close_pair(&pair);
}

/* Both have events in one turn, and the first to hear closes the other. */
TEST(source, closed_in_a_turn_hears_no_more)
{
    struct pair a, b;

    open_pair(f, &a);
    open_pair(f, &b);
    watch(&a, EPOLLIN);
    watch(&b, EPOLLIN);
    turn(f->loop);
    a.closes = &b;
    b.closes = &a;
    send_byte(&a);
    send_byte(&b);
    turn(f->loop);
    turn(f->loop);
    CHECK_EQ((a.calls > 0) + (b.calls > 0), 1);
    close_pair(&a);
    close_pair(&b);
}

struct reopener {
    struct pair pair;
    struct pair *victim;
    struct pair *heir; /* Opened in place of the victim, likely with its descriptor. */
};

static void reopen(struct bop__source *source, uint32_t events)
{
    struct reopener *self = BOP_CONTAINER_OF(source, struct reopener, pair.source);
    struct fixture *f = self->pair.f;

    if (self->victim != NULL) {
        close_pair(self->victim);
        self->victim = NULL;
        open_pair(f, self->heir);
        watch(self->heir, EPOLLIN);
    }
    bop__loop_close_source(f->loop, source);
}

/* The event of a closed descriptor is not taken for one of the next with its number. */
TEST(source, is_not_called_for_who_had_its_descriptor)
{
    struct reopener self;
    struct pair victim, heir = {.calls = 0};

    open_pair(f, &self.pair);
    self.pair.source.on_events = reopen;
    open_pair(f, &victim);
    self.victim = &victim;
    self.heir = &heir;
    watch(&self.pair, EPOLLIN);
    watch(&victim, EPOLLIN);
    turn(f->loop);
    send_byte(&self.pair);
    send_byte(&victim);
    turn(f->loop);
    turn(f->loop);
    REQUIRE(self.victim == NULL);
    CHECK_EQ(heir.calls, 0);
    send_byte(&heir);
    turn(f->loop);
    CHECK_EQ(heir.calls, 1);
    close(self.pair.peer);
    close_pair(&heir);
}

TEST(source, can_be_moved)
{
    struct pair from, to;

    open_pair(f, &from);
    watch(&from, EPOLLIN);
    turn(f->loop);
    to = (struct pair){.f = f, .peer = from.peer, .source = {.fd = -1, .on_events = on_events}};
    CHECK_EQ(bop__loop_move_source(f->loop, &from.source, &to.source), 0);
    CHECK_EQ(from.source.fd, -1);
    send_byte(&to);
    turn(f->loop);
    CHECK_EQ(from.calls, 0);
    CHECK_EQ(to.calls, 1);
    close_pair(&to);
}

/* Unwatched, the descriptor is whole and can be watched again. */
TEST(source, can_be_unwatched_and_watched_again)
{
    struct pair pair;

    open_pair(f, &pair);
    for (unsigned n = 1; n <= 3; n++) {
        watch(&pair, EPOLLIN);
        send_byte(&pair);
        turn(f->loop);
        CHECK_EQ(pair.calls, n);
        bop__loop_unwatch(f->loop, &pair.source);
        turn(f->loop);
        CHECK_EQ(pair.calls, n);
    }
    close_pair(&pair);
}

/* The peer learns at once, not with the loop's next turn. */
TEST(source, is_closed_when_close_returns)
{
    struct pair pair;
    char byte;

    open_pair(f, &pair);
    watch(&pair, EPOLLIN);
    turn(f->loop);
    bop__loop_close_source(f->loop, &pair.source);
    CHECK_EQ(recv(pair.peer, &byte, 1, MSG_DONTWAIT), 0);
    close(pair.peer);
}

/* More than a turn reports, all of them ready all the time: each has its turn. */
TEST(source, none_starves)
{
    enum { COUNT = 700 };
    struct pair *pairs = malloc(COUNT * sizeof(*pairs));
    struct rlimit limit;

    REQUIRE(pairs != NULL);
    REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int i = 0; i < COUNT; i++) {
        open_pair(f, &pairs[i]);
        watch(&pairs[i], EPOLLIN);
        send_byte(&pairs[i]);
    }
    for (int n = 0; n < 6; n++) {
        turn(f->loop);
    }
    for (int i = 0; i < COUNT; i++) {
        REQUIRE(pairs[i].calls >= 2);
        close_pair(&pairs[i]);
    }
    free(pairs);
}

static void *run_a_turn(void *loop)
{
    CHECK_EQ(bop_loop_run_once(loop, -1), 0);
    return NULL;
}

/* Run by one thread after the other, all of which end meanwhile. */
TEST(loop, may_change_its_thread)
{
    struct pair pair;

    open_pair(f, &pair);
    watch(&pair, EPOLLIN);
    turn(f->loop);
    for (unsigned n = 1; n <= 3; n++) {
        pthread_t thread;

        send_byte(&pair);
        /* A first turn may be the wake descriptor's. */
        for (int i = 0; i < 4 && pair.calls < n; i++) {
            REQUIRE_EQ(pthread_create(&thread, NULL, run_a_turn, f->loop), 0);
            pthread_join(thread, NULL);
        }
        CHECK_EQ(pair.calls, n);
        pair.reads = true;
        turn(f->loop);
        pair.reads = false;
        pair.calls = n;
    }
    close_pair(&pair);
}

TEST(loop, wakes_after_many_wakes)
{
    for (int n = 0; n < 1000; n++) {
        bop_loop_wakeup(f->loop);
        CHECK_EQ(bop_loop_run_once(f->loop, -1), 0);
    }
}
