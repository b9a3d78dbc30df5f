/*
 * Names: answered once each, whatever their lookup, their loop and their asker
 * do meanwhile.
 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "../net_fixture.h"
#include "fake_resolver.h"

/** One lookup, and what came of it. */
struct asked {
    struct bop_resolve *resolve;
    unsigned dones;
    int code;
    size_t count;
    struct bop_address addresses[BOP_RESOLVE_ADDRESSES_MAX];
    char text[200];
    bool in_call;
    struct asked *cancels; /* on_done cancels this one. */
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct net_clock clock;
    struct bop_loop *loop;
    struct fake_resolver fake;
};

static void create_loop(struct fixture *f)
{
    struct bop_loop_options options = {.allocator = &f->heap.allocator, .clock = &f->clock.clock};

    REQUIRE_EQ(bop_loop_create(&options, &f->loop), 0);
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    net_clock_init(&f->clock, 1000);
    create_loop(f);
    fake_resolver_init(&f->fake, &f->heap.allocator, 2, 3);
}

static void teardown(struct fixture *f)
{
    fake_resolver_deinit(&f->fake);
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void on_done(struct bop_resolve *resolve, void *user, const struct bop_resolved *result)
{
    struct asked *asked = user;

    CHECK_PTR_EQ(resolve, asked->resolve);
    CHECK(!asked->in_call);
    CHECK_EQ(result->code == 0, result->count > 0);
    CHECK_EQ(result->code == 0, result->text[0] == '\0');
    asked->dones++;
    asked->code = result->code;
    asked->count = result->count;
    memcpy(asked->addresses, result->addresses, result->count * sizeof(result->addresses[0]));
    snprintf(asked->text, sizeof(asked->text), "%s", result->text);
    if (asked->cancels != NULL) {
        bop_resolve_cancel(asked->cancels->resolve);
    }
}

static int ask_with(struct fixture *f, struct asked *asked, struct bop_resolve_options options)
{
    int rc;

    options.resolver = f->fake.resolver;
    options.on_done = on_done;
    options.user = asked;
    asked->in_call = true;
    rc = bop_resolve(f->loop, &options, &asked->resolve, NULL);
    asked->in_call = false;
    return rc;
}

static int ask(struct fixture *f, struct asked *asked, const char *host)
{
    return ask_with(f, asked, (struct bop_resolve_options){.host = host, .port = 80});
}

/* Answers come from threads: turn until it is there, however long that takes. */
static void turn_until_done(struct fixture *f, const struct asked *asked)
{
    while (asked->dones == 0) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, -1), 0);
    }
    CHECK_EQ(asked->dones, 1);
}

static void check_address(const struct asked *asked, size_t i, const char *expected)
{
    char text[BOP_ADDRESS_TEXT_MAX];

    REQUIRE(i < asked->count);
    bop_address_format(&asked->addresses[i], text);
    CHECK_STR_EQ(text, expected);
}

/* ---- Answers ---- */

TEST(resolve, gives_the_addresses_in_the_order_found)
{
    struct asked asked = {0};

    f->fake.addresses[0] = "2001:db8::1";
    f->fake.addresses[1] = "10.0.0.1";
    f->fake.addresses[2] = "10.0.0.1";
    f->fake.addresses[3] = "10.0.0.2";
    REQUIRE_EQ(ask(f, &asked, "db.example"), 0);
    turn_until_done(f, &asked);
    CHECK_EQ(asked.code, 0);
    CHECK_EQ(asked.count, 3); /* The same address twice is one. */
    check_address(&asked, 0, "[2001:db8::1]:80");
    check_address(&asked, 1, "10.0.0.1:80");
    check_address(&asked, 2, "10.0.0.2:80");
    CHECK_STR_EQ(f->fake.last_host, "db.example");
}

TEST(resolve, keeps_to_the_family_asked_for)
{
    struct asked four = {0}, six = {0};

    f->fake.addresses[0] = "10.0.0.1";
    f->fake.addresses[1] = "2001:db8::1";
    REQUIRE_EQ(ask_with(f, &four, (struct bop_resolve_options){.host = "a", .family = AF_INET}), 0);
    REQUIRE_EQ(ask_with(f, &six, (struct bop_resolve_options){.host = "a", .family = AF_INET6}), 0);
    turn_until_done(f, &four);
    turn_until_done(f, &six);
    CHECK_EQ(four.count, 1);
    check_address(&four, 0, "10.0.0.1:0");
    CHECK_EQ(six.count, 1);
    check_address(&six, 0, "[2001:db8::1]:0");
}

TEST(resolve, without_an_address_of_the_family_is_not_found)
{
    struct asked asked = {0};

    REQUIRE_EQ(ask_with(f, &asked, (struct bop_resolve_options){.host = "a", .family = AF_INET6}),
               0);
    turn_until_done(f, &asked);
    CHECK_EQ(asked.code, BOP_ENOTFOUND);
    CHECK_STR_EQ(asked.text, "resolve a: no such host with an IPv6 address");
}

TEST(resolve, without_any_address_is_not_found)
{
    struct asked asked = {0};

    f->fake.addresses[0] = NULL;
    REQUIRE_EQ(ask(f, &asked, "nobody.example"), 0);
    turn_until_done(f, &asked);
    CHECK_EQ(asked.code, BOP_ENOTFOUND);
    CHECK_STR_EQ(asked.text, "resolve nobody.example: no such host");
}

TEST(resolve, gives_the_error_as_it_came)
{
    struct asked asked = {0};

    f->fake.code = BOP_EAGAIN;
    REQUIRE_EQ(ask(f, &asked, "a"), 0);
    turn_until_done(f, &asked);
    CHECK_EQ(asked.code, BOP_EAGAIN);
    CHECK_STR_EQ(asked.text, "the fake said no");
}

TEST(resolve, drops_addresses_above_its_bound)
{
    struct asked asked = {0};
    char hosts[BOP_COUNT_OF(f->fake.addresses)][16];

    for (size_t i = 0; i + 1 < BOP_COUNT_OF(hosts); i++) {
        snprintf(hosts[i], sizeof(hosts[i]), "10.0.0.%zu", i);
        f->fake.addresses[i] = hosts[i];
    }
    REQUIRE_EQ(ask(f, &asked, "a"), 0);
    turn_until_done(f, &asked);
    CHECK_EQ(asked.count, BOP_RESOLVE_ADDRESSES_MAX);
}

/* ---- Without a thread ---- */

TEST(resolve, of_a_number_asks_nobody)
{
    struct asked four = {0}, six = {0};

    REQUIRE_EQ(ask(f, &four, "127.0.0.1"), 0);
    REQUIRE_EQ(ask(f, &six, "[::1]"), 0);
    turn(f->loop);
    CHECK_EQ(four.dones, 1);
    check_address(&four, 0, "127.0.0.1:80");
    CHECK_EQ(six.dones, 1);
    check_address(&six, 0, "[::1]:80");
    CHECK_EQ(f->fake.calls, 0);
}

TEST(resolve, of_a_number_of_the_other_family_is_not_found)
{
    struct asked asked = {0};

    REQUIRE_EQ(ask_with(f, &asked, (struct bop_resolve_options){.host = "::1", .family = AF_INET}),
               0);
    turn(f->loop);
    CHECK_EQ(asked.code, BOP_ENOTFOUND);
}

TEST(resolve, of_a_malformed_address_fails_at_once)
{
    struct asked asked = {0};

    CHECK_EQ(ask(f, &asked, "256.0.0.1"), BOP_EINVAL);
    CHECK_EQ(ask(f, &asked, "::g"), BOP_EINVAL);
    CHECK_EQ(ask(f, &asked, ""), BOP_EINVAL);
    turn(f->loop);
    CHECK_EQ(asked.dones, 0);
    CHECK_EQ(f->fake.calls, 0);
}

TEST(resolve, of_what_no_server_can_know_asks_nobody)
{
    static const char *const hosts[] = {
        "no..name",
        ".name",
        "a b",
        "a/b",
        "a\n",
        "\x7f",
        "a123456789012345678901234567890123456789012345678901234567890123.example", /* 64. */
    };

    for (size_t i = 0; i < BOP_COUNT_OF(hosts); i++) {
        struct asked asked = {0};

        REQUIRE_EQ(ask(f, &asked, hosts[i]), 0);
        turn(f->loop);
        CHECK_EQ(asked.dones, 1);
        CHECK_EQ(asked.code, BOP_ENOTFOUND);
    }
    CHECK_EQ(f->fake.calls, 0);
}

TEST(resolve, refuses_bad_options)
{
    struct asked asked = {0};
    struct bop_resolve_options options = {.host = "a"};
    char host[300];

    CHECK_EQ(bop_resolve(f->loop, &options, &asked.resolve, NULL), BOP_EINVAL);
    CHECK_EQ(ask(f, &asked, NULL), BOP_EINVAL);
    memset(host, 'a', sizeof(host) - 1);
    host[sizeof(host) - 1] = '\0';
    CHECK_EQ(ask(f, &asked, host), BOP_EINVAL);
}

/* ---- Canceled, late, too many ---- */

TEST(resolve, canceled_while_it_runs_answers_at_once)
{
    struct asked asked = {0};

    fake_resolver_hold(&f->fake, true);
    REQUIRE_EQ(ask(f, &asked, "a"), 0);
    fake_resolver_await(&f->fake, 1);
    bop_resolve_cancel(asked.resolve);
    bop_resolve_cancel(asked.resolve);
    CHECK_EQ(asked.dones, 0);
    turn(f->loop);
    CHECK_EQ(asked.dones, 1);
    CHECK_EQ(asked.code, BOP_ECANCELED);
    CHECK_STR_EQ(asked.text, "resolve a: canceled");
    fake_resolver_hold(&f->fake, false);
    fake_resolver_await(&f->fake, 0);
    turn(f->loop);
    CHECK_EQ(asked.dones, 1);
}

TEST(resolve, canceled_while_it_waits_is_never_looked_up)
{
    struct asked running[2] = {{0}}, waiting = {0};

    fake_resolver_hold(&f->fake, true);
    REQUIRE_EQ(ask(f, &running[0], "a"), 0);
    REQUIRE_EQ(ask(f, &running[1], "b"), 0);
    fake_resolver_await(&f->fake, 2);
    REQUIRE_EQ(ask(f, &waiting, "c"), 0);
    bop_resolve_cancel(waiting.resolve);
    turn(f->loop);
    CHECK_EQ(waiting.code, BOP_ECANCELED);
    fake_resolver_hold(&f->fake, false);
    turn_until_done(f, &running[0]);
    turn_until_done(f, &running[1]);
    CHECK_EQ(f->fake.calls, 2);
    CHECK_EQ(waiting.dones, 1);
}

/* The answer lies with the loop, which has not looked yet: to cancel comes first. */
TEST(resolve, canceled_after_its_answer_was_posted)
{
    struct asked asked = {0}, after = {0};

    REQUIRE_EQ(ask(f, &asked, "a"), 0);
    REQUIRE_EQ(ask(f, &after, "b"), 0);
    pthread_mutex_lock(&f->fake.lock);
    while (f->fake.calls < 2 || f->fake.running > 0) {
        pthread_cond_wait(&f->fake.changed, &f->fake.lock);
    }
    pthread_mutex_unlock(&f->fake.lock);
    bop_resolve_cancel(asked.resolve);
    turn_until_done(f, &after);
    CHECK_EQ(asked.dones, 1);
    CHECK_EQ(asked.code, BOP_ECANCELED);
}

TEST(resolve, canceled_by_the_answer_of_another)
{
    struct asked first = {0}, second = {0};

    REQUIRE_EQ(ask(f, &first, "127.0.0.1"), 0);
    REQUIRE_EQ(ask(f, &second, "127.0.0.2"), 0);
    first.cancels = &second;
    turn(f->loop);
    turn(f->loop);
    CHECK_EQ(first.dones, 1);
    CHECK_EQ(second.dones, 1);
    CHECK_EQ(second.code, 0); /* It was due already. */
}

TEST(resolve, that_takes_too_long_times_out)
{
    struct asked asked = {0}, by_default = {0};

    fake_resolver_hold(&f->fake, true);
    REQUIRE_EQ(ask_with(f, &asked, (struct bop_resolve_options){.host = "a", .timeout_ms = 500}),
               0);
    REQUIRE_EQ(ask(f, &by_default, "b"), 0);
    f->clock.now_us += 499999;
    turn(f->loop);
    CHECK_EQ(asked.dones, 0);
    f->clock.now_us += 1;
    turn(f->loop);
    CHECK_EQ(asked.dones, 1);
    CHECK_EQ(asked.code, -ETIMEDOUT);
    f->clock.now_us += 29499000;
    turn(f->loop);
    CHECK_EQ(by_default.dones, 0);
    f->clock.now_us += 1000;
    turn(f->loop);
    CHECK_EQ(by_default.code, -ETIMEDOUT);
}

TEST(resolve, of_too_many_names_is_refused)
{
    struct asked asked[5] = {{0}}, one_more = {0};

    fake_resolver_hold(&f->fake, true);
    for (int i = 0; i < 5; i++) { /* 2 run, 3 wait. */
        REQUIRE_EQ(ask(f, &asked[i], "a"), 0);
        fake_resolver_await(&f->fake, i < 2 ? (unsigned)i + 1 : 2);
    }
    CHECK_EQ(ask(f, &one_more, "b"), BOP_EBUSY);
    bop_resolve_cancel(asked[4].resolve);
    CHECK_EQ(ask(f, &one_more, "b"), 0);
    fake_resolver_hold(&f->fake, false);
    for (int i = 0; i < 5; i++) {
        turn_until_done(f, &asked[i]);
        CHECK_EQ(asked[i].code, i == 4 ? BOP_ECANCELED : 0);
    }
    turn_until_done(f, &one_more);
    CHECK_EQ(one_more.code, 0);
}

TEST(resolve, of_many_names_uses_no_more_threads_than_allowed)
{
    enum { COUNT = 300 };
    struct asked *asked = calloc(COUNT, sizeof(*asked));
    struct fake_resolver fake = {0};

    REQUIRE(asked != NULL);
    fake_resolver_init(&fake, &f->heap.allocator, 3, COUNT);
    for (int i = 0; i < COUNT; i++) {
        struct bop_resolve_options options = {
            .host = "a", .resolver = fake.resolver, .on_done = on_done, .user = &asked[i]};

        REQUIRE_EQ(bop_resolve(f->loop, &options, &asked[i].resolve, NULL), 0);
        if (i % 7 == 3) {
            bop_resolve_cancel(asked[i].resolve);
        }
    }
    for (int i = 0; i < COUNT; i++) {
        turn_until_done(f, &asked[i]);
        CHECK_EQ(asked[i].code, i % 7 == 3 ? BOP_ECANCELED : 0);
    }
    fake_resolver_deinit(&fake);
    CHECK(fake.running_max <= 3);
    free(asked);
}

/* ---- The loop ends ---- */

TEST(loop, destroyed_while_names_are_looked_up)
{
    struct asked running[2] = {{0}}, waiting = {0}, due = {0}, none = {0};

    fake_resolver_hold(&f->fake, true);
    REQUIRE_EQ(ask(f, &running[0], "a"), 0);
    REQUIRE_EQ(ask(f, &running[1], "b"), 0);
    fake_resolver_await(&f->fake, 2);
    REQUIRE_EQ(ask(f, &waiting, "c"), 0);
    REQUIRE_EQ(ask(f, &due, "127.0.0.1"), 0);
    bop_loop_destroy(f->loop);
    CHECK_EQ(running[0].code, BOP_ECANCELED);
    CHECK_EQ(running[1].code, BOP_ECANCELED);
    CHECK_EQ(waiting.code, BOP_ECANCELED);
    CHECK_EQ(due.code, 0);
    CHECK_EQ(running[0].dones + running[1].dones + waiting.dones + due.dones, 4);
    CHECK_EQ(none.dones, 0);
    fake_resolver_hold(&f->fake, false);
    fake_resolver_await(&f->fake, 0);
    create_loop(f);
}

/* Over and over, in whatever moment the threads are. */
TEST(loop, destroyed_at_any_moment)
{
    for (int round = 0; round < 200; round++) {
        struct asked asked[3] = {{0}};

        for (int i = 0; i < 3; i++) {
            REQUIRE_EQ(ask(f, &asked[i], "a"), 0);
            if (round % 3 == 0) {
                turn(f->loop);
            }
        }
        bop_loop_destroy(f->loop);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(asked[i].dones, 1);
            CHECK(asked[i].code == 0 || asked[i].code == BOP_ECANCELED);
        }
        create_loop(f);
    }
}

static void ask_again(struct bop_resolve *resolve, void *user, const struct bop_resolved *result)
{
    struct fixture *f = user;
    struct asked asked = {0};

    CHECK_EQ(result->code, BOP_ECANCELED);
    CHECK_EQ(ask(f, &asked, "b"), BOP_ECLOSED);
}

TEST(loop, being_destroyed_looks_up_nothing_new)
{
    struct bop_resolve *resolve;
    struct bop_resolve_options options = {
        .host = "a", .resolver = f->fake.resolver, .on_done = ask_again, .user = f};

    fake_resolver_hold(&f->fake, true);
    REQUIRE_EQ(bop_resolve(f->loop, &options, &resolve, NULL), 0);
    bop_loop_destroy(f->loop);
    fake_resolver_hold(&f->fake, false);
    create_loop(f);
}

/* ---- The system's names, and faults ---- */

TEST(resolver, of_the_process_knows_localhost)
{
    struct asked asked = {0};
    struct bop_resolve_options options = {.host = "localhost", .on_done = on_done, .user = &asked};

    REQUIRE_EQ(bop_resolve(f->loop, &options, &asked.resolve, NULL), 0);
    turn_until_done(f, &asked);
    CHECK_EQ(asked.code, 0);
    for (size_t i = 0; i < asked.count; i++) {
        static const uint8_t loopback6[16] = {[15] = 1};
        const struct bop_address *address = &asked.addresses[i];

        CHECK(address->family == AF_INET ? address->ip[0] == 127
                                         : memcmp(address->ip, loopback6, 16) == 0);
    }
}

TEST(resolver, without_names_starts_no_thread_and_destroys)
{
    struct bop_resolver *resolver;

    REQUIRE_EQ(bop_resolver_create(&(struct bop_resolver_options){0}, &resolver), 0);
    bop_resolver_destroy(resolver);
    bop_resolver_destroy(NULL);
}

TEST(resolve, survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        struct asked asked = {0};
        int rc = ask(f, &asked, "a");

        CHECK_EQ(rc, f->faults.fired);
        if (rc == 0) {
            turn_until_done(f, &asked);
            CHECK_EQ(asked.code, 0);
        }
    }
    CHECK_EQ(f->faults.at, 2); /* Each half of the lookup. */
}
