/*
 * Administration at a replica: what is refused and why, what is done, and who is believed
 * to be whom.
 */
#include "replica_help.h"

struct fixture {
    struct world w;
};

static void setup(struct fixture *f)
{
    world_init(&f->w);
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE(world_settle(&f->w));
}

static void teardown(struct fixture *f)
{
    world_deinit(&f->w);
}

FIXTURE(setup, teardown)

struct ask {
    struct replica_admin admin;
    struct bop_buf request;
    struct bop_buf response;
    unsigned answers;
};

static void on_answer(struct replica_admin *admin, struct bop_slice response)
{
    struct ask *ask = BOP_CONTAINER_OF(admin, struct ask, admin);

    ask->answers++;
    REQUIRE_EQ(bop_buf_append(&ask->response, response.data, response.size), 0);
}

static struct bop_writer begin(struct ask *ask)
{
    *ask = (struct ask){.answers = 0};
    bop_buf_init(&ask->request, NULL, 0);
    bop_buf_init(&ask->response, NULL, 0);
    return bop_writer(&ask->request);
}

static void send(struct world *f, struct ask *ask, uint16_t kind)
{
    ask->admin = (struct replica_admin){
        .kind = kind, .payload = bop_buf_slice(&ask->request), .done = on_answer};
    bop__replica_admin(f->replica, &ask->admin);
    for (unsigned n = 0; n < WORLD_TURNS && ask->answers == 0; n++) {
        world_run(f, 1);
    }
    CHECK_EQ(ask->answers, 1);
}

static void end(struct ask *ask)
{
    bop_buf_deinit(&ask->request);
    bop_buf_deinit(&ask->response);
}

/* Returns the code; text (if not NULL) must be in the sentence. */
static uint8_t change(struct world *f, struct bop_admin_change_request request, const char *text)
{
    struct bop_admin_change_response response = {.code = 255};
    char sentence[BOP_ADMIN_TEXT_MAX + 1];
    struct ask ask;
    struct bop_writer writer = begin(&ask);

    bop_admin_change_request_encode(&writer, &request);
    send(f, &ask, BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST);
    REQUIRE_EQ(bop_admin_change_response_decode(bop_buf_slice(&ask.response), &response), 0);
    snprintf(sentence, sizeof(sentence), "%.*s", (int)response.text.size,
             (const char *)response.text.data);
    CHECK_STR_HAS(sentence, text);
    end(&ask);
    return response.code;
}

TEST(replica_admin, adds_and_removes_a_learner)
{
    struct bop_admin_change_request add = {
        .action = BOP_ADMIN_ADD, .node = 2, .priority = 3, .address = bytes("host:2")};
    struct bop_admin_change_request drop = {.action = BOP_ADMIN_REMOVE, .node = 2};
    struct bop_raft_configuration conf;

    CHECK_EQ(change(&f->w, add, "has no vote"), BOP_ADMIN_OK);
    bop__replica_configuration(f->w.replica, &conf);
    REQUIRE_EQ(conf.count, 2);
    CHECK_EQ(conf.servers[1].role, BOP_RAFT_STANDBY);
    CHECK_STR_HAS(conf.servers[1].address, "host:2;p=3;l;m=");
    world_run(&f->w, 1000);
    bop__replica_configuration(f->w.replica, &conf);
    CHECK_EQ(conf.servers[1].role, BOP_RAFT_STANDBY); /* A learner stays one. */
    CHECK_EQ(change(&f->w, add, "already"), BOP_ADMIN_OK);
    CHECK_EQ(change(&f->w, drop, "is removed"), BOP_ADMIN_OK);
    bop__replica_configuration(f->w.replica, &conf);
    CHECK_EQ(conf.count, 1);
}

/* A removal that is not committed may be taken back. */
TEST(replica_admin, counts_a_server_until_its_removal_is_applied)
{
    struct bop_admin_change_request add = {
        .action = BOP_ADMIN_ADD, .node = 2, .address = bytes("host:2")};
    uint64_t ids[REPLICA_SERVERS_MAX];
    struct bop_raft_configuration conf;

    CHECK_EQ(bop__replica_servers(f->w.replica, ids), 1);
    CHECK_EQ(change(&f->w, add, "has no vote"), BOP_ADMIN_OK);
    world_run(&f->w, 1000);
    REQUIRE_EQ(bop__replica_servers(f->w.replica, ids), 2);
    CHECK_EQ(ids[0], 1);
    CHECK_EQ(ids[1], 2);
    bop__replica_configuration(f->w.replica, &conf);
    conf.count = 1;
    REQUIRE_EQ(bop__replica_change(f->w.replica, &conf), 0);
    bop__replica_configuration(f->w.replica, &conf);
    CHECK_EQ(conf.count, 1);
    REQUIRE_EQ(bop__replica_servers(f->w.replica, ids), 2);
    CHECK_EQ(ids[1], 2);
    world_run(&f->w, 1000);
    REQUIRE_EQ(bop__replica_servers(f->w.replica, ids), 1);
    CHECK_EQ(ids[0], 1);
}

TEST(replica_admin, plans_and_does_nothing)
{
    struct bop_admin_change_request add = {
        .action = BOP_ADMIN_ADD, .node = 2, .flags = BOP_ADMIN_PLAN, .address = bytes("host:2")};
    struct bop_raft_configuration conf;

    CHECK_EQ(change(&f->w, add, "gets the log"), BOP_ADMIN_OK);
    bop__replica_configuration(f->w.replica, &conf);
    CHECK_EQ(conf.count, 1);
}

TEST(replica_admin, refuses_with_a_code_each)
{
    struct bop_admin_change_request add = {
        .action = BOP_ADMIN_ADD, .node = 2, .address = bytes("host:2")};
    struct bop_admin_change_request in = {.action = BOP_ADMIN_REMOVE, .node = 1};

    CHECK_EQ(change(&f->w, in, "only voter"), BOP_ADMIN_REFUSED);
    in.action = BOP_ADMIN_DEMOTE;
    CHECK_EQ(change(&f->w, in, "only voter"), BOP_ADMIN_REFUSED);
    in.node = 9;
    CHECK_EQ(change(&f->w, in, "no node 9"), BOP_ADMIN_UNKNOWN_NODE);
    in.action = 77;
    CHECK_EQ(change(&f->w, in, "cannot be"), BOP_ADMIN_BAD_REQUEST);
    CHECK_EQ(change(&f->w, add, "no vote"), BOP_ADMIN_OK);
    add.node = 3;
    CHECK_EQ(change(&f->w, add, "is a server"), BOP_ADMIN_EXISTS);
    add.address = bytes("nowhere");
    CHECK_EQ(change(&f->w, add, "HOST:PORT"), BOP_ADMIN_BAD_REQUEST);
    in = (struct bop_admin_change_request){.action = BOP_ADMIN_PROMOTE, .node = 2};
    CHECK_EQ(change(&f->w, in, "cannot be reached"), BOP_ADMIN_LAGS);
}

TEST(replica_admin, takes_so_many_servers)
{
    struct bop_admin_change_request add = {.action = BOP_ADMIN_ADD};
    char address[32];

    for (unsigned n = 2; n <= BOP_RAFT_SERVERS_MAX; n++) {
        snprintf(address, sizeof(address), "host:%u", n);
        add.node = n;
        add.address = bytes(address);
        REQUIRE_EQ(change(&f->w, add, "no vote"), BOP_ADMIN_OK);
    }
    add.node = 99;
    add.address = bytes("host:99");
    CHECK_EQ(change(&f->w, add, "at most 15"), BOP_ADMIN_TOO_MANY);
}

TEST(replica_admin, knows_no_leader_without_one)
{
    struct bop_admin_change_request in = {.action = BOP_ADMIN_REMOVE, .node = 2};

    world_close(&f->w);
    world_make_disk(&f->w, 2);
    world_add_server(&f->w, 2);
    world_add_server(&f->w, 3);
    REQUIRE_EQ(world_open(&f->w), 0);
    f->w.now_us += 1000;
    for (unsigned n = 0; n < 4; n++) {
        world_run(&f->w, WORLD_TURNS);
    }
    {
        struct ask ask;
        struct bop_writer writer = begin(&ask);

        bop_admin_change_request_encode(&writer, &in);
        ask.admin = (struct replica_admin){.kind = BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST,
                                           .payload = bop_buf_slice(&ask.request),
                                           .done = on_answer};
        bop__replica_admin(f->w.replica, &ask.admin);
        world_run(&f->w, 9000);
        REQUIRE_EQ(ask.answers, 1);
        CHECK_EQ(ask.response.data[0], BOP_ADMIN_NO_LEADER);
        end(&ask);
    }
}

/* ---- Introductions ---- */

static enum introduction hello(struct world *f, uint64_t id, const char *text)
{
    char refusal[512];

    return bop__replica_introduced(f->replica, id, bytes(text), refusal, sizeof(refusal));
}

TEST(replica_member, refuses_another_directory_under_a_known_id)
{
    struct bop_admin_change_request add = {
        .action = BOP_ADMIN_ADD, .node = 2, .address = bytes("host:2")};
    struct bop_raft_configuration conf;

    CHECK_EQ(change(&f->w, add, "no vote"), BOP_ADMIN_OK);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa"), INTRODUCTION_ACCEPTED);
    world_run(&f->w, 1000); /* It is recorded, and so are we. */
    bop__replica_configuration(f->w.replica, &conf);
    CHECK_STR_EQ(conf.servers[1].address, "host:2;i=00000000000000aa;p=0;l");
    CHECK_STR_HAS(conf.servers[0].address, ";i=");
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa"), INTRODUCTION_ACCEPTED);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000bb"), INTRODUCTION_REPLACED);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000bb;m=1"), INTRODUCTION_REPLACED);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000bb;m=1000"), INTRODUCTION_ACCEPTED);
    CHECK_EQ(hello(&f->w, 2, "host:2"), INTRODUCTION_ACCEPTED); /* Of an older version. */
    CHECK_EQ(hello(&f->w, 2, "host:2;i=nonsense"), INTRODUCTION_REFUSED);
}

TEST(replica_member, tells_one_that_was_removed_from_one_that_joins)
{
    struct bop_admin_change_request add = {
        .action = BOP_ADMIN_ADD, .node = 2, .address = bytes("host:2")};
    struct bop_admin_change_request drop = {.action = BOP_ADMIN_REMOVE, .node = 2};

    CHECK_EQ(change(&f->w, add, "no vote"), BOP_ADMIN_OK);
    CHECK_EQ(change(&f->w, drop, "removed"), BOP_ADMIN_OK);
    world_run(&f->w, 200);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa"), INTRODUCTION_ACCEPTED);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa;m=1"), INTRODUCTION_REMOVED);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa;m=1000"), INTRODUCTION_ACCEPTED);
}

/* Its removal is not committed yet. It will be told, whoever else comes by then. */
TEST(replica_member, remembers_who_said_hello_when_others_come)
{
    CHECK_EQ(hello(&f->w, 9, "host:9;i=00000000000000aa;m=1000"), INTRODUCTION_ACCEPTED);
    CHECK(bop__replica_peer(f->w.replica, 4) != NULL);
    CHECK_EQ(bop__replica_peer(f->w.replica, 9)->since, 1000);
}

/* A node asks to be added, by what it says of itself. */
static int try_to_join(struct world *f, uint64_t id, const char *text)
{
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);
    int rc;

    bop_buf_init(&buf, NULL, 0);
    bop_write_u64(&writer, id);
    bop_write_bytes(&writer, bytes(text));
    rc = bop__replica_join_asked(f->replica, id, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
    return rc;
}

static void ask_to_join(struct world *f, uint64_t id, const char *text)
{
    CHECK_EQ(try_to_join(f, id, text), 0);
}

static int say_alive(struct world *f, uint64_t id)
{
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST, .kind = BOP_WIRE_KIND_PEER_ALIVE};

    frame.payload = bop_slice("\0\0\0", 4);
    return bop__replica_peer_frame(f->replica, id, &frame);
}

/* It asked while it was one, and the network kept that for a while: the next directory under its id
 * would find its place taken. */
TEST(replica_member, adds_none_that_was_removed_by_what_it_asked_before)
{
    struct bop_admin_change_request drop = {.action = BOP_ADMIN_REMOVE, .node = 2};

    ask_to_join(&f->w, 2, "host:2;i=00000000000000aa");
    world_run(&f->w, 1000);
    CHECK_EQ(change(&f->w, drop, "removed"), BOP_ADMIN_OK);
    world_run(&f->w, 200);
    CHECK_EQ(try_to_join(&f->w, 2, "host:2;i=00000000000000cc;m=2"), BOP_EREMOVED);
    CHECK_EQ(try_to_join(&f->w, 2, "host:2;i=00000000000000aa"), BOP_EREMOVED);
    CHECK_EQ(f->w.replica->conf.count, 1);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa"), INTRODUCTION_REMOVED);
    ask_to_join(&f->w, 2, "host:2;i=00000000000000bb");
    CHECK_EQ(f->w.replica->conf.count, 2);
}

/* Its place was another's all the time, as we learn only now. */
TEST(replica_member, hangs_up_on_one_that_turns_out_to_be_another)
{
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000bb"), INTRODUCTION_ACCEPTED);
    CHECK_EQ(say_alive(&f->w, 2), 0);
    ask_to_join(&f->w, 2, "host:2;i=00000000000000aa");
    CHECK_EQ(say_alive(&f->w, 2), BOP_EREMOVED);
    world_run(&f->w, 1000);
    CHECK_EQ(say_alive(&f->w, 2), BOP_EREMOVED);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000bb"), INTRODUCTION_REPLACED);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa"), INTRODUCTION_ACCEPTED);
    CHECK_EQ(say_alive(&f->w, 2), 0);
}

/* The removal that is under way may be that of a member whose disk it replaced, and not come to be.
 */
TEST(replica_member, hears_of_no_stranger_while_members_change)
{
    ask_to_join(&f->w, 2, "host:2;i=00000000000000aa");
    CHECK(f->w.replica->status.changing);
    CHECK_EQ(hello(&f->w, 3, "host:3;i=00000000000000cc"), INTRODUCTION_REFUSED);
    CHECK_EQ(hello(&f->w, 3, "host:3;i=00000000000000cc;m=1000"), INTRODUCTION_ACCEPTED);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa"), INTRODUCTION_ACCEPTED);
    world_run(&f->w, 1000);
    CHECK(!f->w.replica->status.changing);
    CHECK_EQ(hello(&f->w, 3, "host:3;i=00000000000000cc"), INTRODUCTION_ACCEPTED);
}

/* Its directory is gone; the one that is to come has not been there yet. */
TEST(replica_member, forgets_who_it_was_that_is_added_again)
{
    struct bop_admin_change_request add = {
        .action = BOP_ADMIN_ADD, .node = 2, .priority = 3, .address = bytes("host:2")};
    struct bop_admin_change_request drop = {.action = BOP_ADMIN_REMOVE, .node = 2};
    struct bop_raft_configuration conf;

    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa"), INTRODUCTION_ACCEPTED);
    ask_to_join(&f->w, 2, "host:2;i=00000000000000aa");
    world_run(&f->w, 1000);
    CHECK_EQ(change(&f->w, drop, "removed"), BOP_ADMIN_OK);
    CHECK_EQ(change(&f->w, add, "no vote"), BOP_ADMIN_OK);
    world_run(&f->w, 1000);
    bop__replica_configuration(f->w.replica, &conf);
    CHECK_STR_HAS(conf.servers[1].address, "host:2;p=3;l;m=");
    CHECK_EQ(say_alive(&f->w, 2), BOP_EREMOVED);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa;m=2"), INTRODUCTION_REMOVED);
    CHECK_EQ(say_alive(&f->w, 2), BOP_EREMOVED);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000bb"), INTRODUCTION_ACCEPTED);
    CHECK_EQ(say_alive(&f->w, 2), 0);
    world_run(&f->w, 1000);
    bop__replica_configuration(f->w.replica, &conf);
    CHECK_STR_EQ(conf.servers[1].address, "host:2;i=00000000000000bb;p=3;l");
    CHECK_EQ(say_alive(&f->w, 2), 0);
}

TEST(replica_member, ends_when_it_is_told_that_it_was_removed)
{
    uint8_t payload[9] = {0};

    bop_store_u64(payload, 1); /* No newer than what it knows itself. */
    CHECK_EQ(bop__replica_removed(f->w.replica, bop_slice(payload, 9), false), 0);
    CHECK_EQ(bop__replica_failed(f->w.replica), 0);
    CHECK_EQ(bop__replica_removed(f->w.replica, bop_slice(payload, 8), false), BOP_EMALFORMED);
    bop_store_u64(payload, 1000);
    CHECK_EQ(bop__replica_removed(f->w.replica, bop_slice(payload, 9), false), 0);
    world_run(&f->w, 1);
    CHECK_EQ(f->w.failed, BOP_EREMOVED);
    world_close(&f->w);
    CHECK_EQ(world_open(&f->w), BOP_EREMOVED);
    CHECK_STR_HAS(f->w.err.message, "--join");
}

/* The entry that added it never came to it. */
TEST(replica_member, ends_when_it_was_removed_while_it_joined)
{
    uint8_t payload[9] = {0};

    world_close(&f->w);
    f->w.options.join = true;
    f->w.options.path = "/joining";
    REQUIRE_EQ(world_open(&f->w), 0);
    bop_store_u64(payload, 1000);
    CHECK_EQ(bop__replica_removed(f->w.replica, bop_slice(payload, 9), false), 0);
    CHECK_EQ(bop__replica_failed(f->w.replica), 0); /* It may be another one that is meant. */
    payload[8] = 1;
    CHECK_EQ(bop__replica_removed(f->w.replica, bop_slice(payload, 9), true), 0);
    CHECK_EQ(bop__replica_failed(f->w.replica), 0);
    payload[8] = 0;
    CHECK_EQ(bop__replica_removed(f->w.replica, bop_slice(payload, 9), true), 0);
    CHECK_EQ(bop__replica_failed(f->w.replica), BOP_EREMOVED);
    world_run(&f->w, 1);
    world_close(&f->w);
    CHECK_EQ(world_open(&f->w), BOP_EREMOVED);
}

TEST(replica_member, raises_the_level_to_what_all_announce)
{
    struct bop_admin_change_request add = {
        .action = BOP_ADMIN_ADD, .node = 2, .address = bytes("host:2")};

    CHECK_EQ(bop__replica_level(f->w.replica), MACHINE_LEVEL);
    CHECK_EQ(change(&f->w, add, "no vote"), BOP_ADMIN_OK);
    CHECK_EQ(hello(&f->w, 2, "host:2"), INTRODUCTION_ACCEPTED);
    CHECK_EQ(bop__replica_level(f->w.replica), 0);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa;v=1"), INTRODUCTION_ACCEPTED);
    CHECK_EQ(bop__replica_level(f->w.replica), 1);
    CHECK_EQ(hello(&f->w, 2, "host:2;i=00000000000000aa;v=99"), INTRODUCTION_ACCEPTED);
    CHECK_EQ(bop__replica_level(f->w.replica), MACHINE_LEVEL);
}

/* ---- Parameters ---- */

static uint8_t set(struct world *f, const char *name, const char *value)
{
    struct bop_admin_params params = {.count = 1};
    struct ask ask;
    struct bop_writer writer = begin(&ask);

    params.params[0].name = bytes(name);
    params.params[0].value = bytes(value);
    bop_admin_params_request_encode(&writer, &params);
    send(f, &ask, BOP_WIRE_KIND_CLUSTER_PARAMS_REQUEST);
    REQUIRE_EQ(bop_admin_params_response_decode(bop_buf_slice(&ask.response), &params), 0);
    end(&ask);
    return params.code;
}

TEST(replica_param, are_set_while_it_runs)
{
    CHECK_EQ(set(&f->w, "election_timeout_ms", "900"), BOP_ADMIN_OK);
    CHECK_EQ(set(&f->w, "heartbeat_ms", "300"), BOP_ADMIN_OK);
    CHECK_EQ(f->w.replica->options.election_timeout_ms, 900);
    CHECK_EQ(f->w.replica->options.heartbeat_ms, 300);
    CHECK_EQ(set(&f->w, "heartbeat_ms", "500"), BOP_ADMIN_BAD_REQUEST); /* 1,000 > 900. */
    CHECK_EQ(set(&f->w, "heartbeat_ms", "1"), BOP_ADMIN_BAD_REQUEST);
    CHECK_EQ(set(&f->w, "heartbeat_ms", "x"), BOP_ADMIN_BAD_REQUEST);
    CHECK_EQ(set(&f->w, "nonsense", "1"), BOP_ADMIN_BAD_REQUEST);
    CHECK_EQ(set(&f->w, "segment_bytes", "1"), BOP_ADMIN_REFUSED);
    CHECK_EQ(set(&f->w, "snapshot_entries", "10"), BOP_ADMIN_OK);
    CHECK_EQ(f->w.replica->options.heartbeat_ms, 300);
    world_added(&f->w, 1);
}
