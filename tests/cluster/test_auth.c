/*
 * Tokens and rights: who is known, what it may do, what is answered to whom it is
 * not allowed, and that a new set of tokens counts at once.
 */
#include <bop/sim.h>
#include <bop/watch.h>

#include <openssl/sha.h>

#include "auth.h"
#include "service.h"

#include "replica_help.h"

struct client {
    struct service_conn *conn;
    struct bop_buf in;
    unsigned closes;
    unsigned complaints;
};

struct fixture {
    struct world w;
    struct auth *auth;
    struct service *service;
    struct client client;
    struct bop_buf payload;
    struct bop_error err;
};

/* ---- Tokens that the tests know ---- */

static uint8_t hashes[3][BOP_TOKEN_HASH_SIZE];

static const struct bop_node_grant reader_grants[] = {{"blue", BOP_RIGHT_READ}};
static const struct bop_node_grant writer_grants[] = {
    {"blue", BOP_RIGHT_WRITE}, {"", BOP_RIGHT_READ}, {"*", BOP_RIGHT_READ}};
static const struct bop_node_grant admin_grants[] = {{"*", BOP_RIGHT_ADMIN}};

static const struct bop_node_token tokens[] = {
    {.name = "reader", .sha256 = hashes[0], .grants = reader_grants, .grant_count = 1},
    {.name = "writer",
     .sha256 = hashes[1],
     .certificate = "Writer.example.org",
     .grants = writer_grants,
     .grant_count = 3},
    {.name = "root", .sha256 = hashes[2], .grants = admin_grants, .grant_count = 1},
};

static void make_hashes(void)
{
    SHA256((const uint8_t *)"read me", 7, hashes[0]);
    SHA256((const uint8_t *)"write me", 8, hashes[1]);
    SHA256((const uint8_t *)"obey me", 7, hashes[2]);
}

/* ---- A service that wants them ---- */

static struct bop_buf *client_output(void *user)
{
    return &((struct client *)user)->in;
}

static void client_nothing(void *user)
{
}

static void client_close(void *user)
{
    ((struct client *)user)->closes++;
}

static void client_complain(void *user, const char *text)
{
    ((struct client *)user)->complaints++;
}

static const struct service_io io = {.output = client_output,
                                     .flush = client_nothing,
                                     .resume = client_nothing,
                                     .close = client_close,
                                     .complain = client_complain};

static void setup(struct fixture *f)
{
    struct service_options options = {.allocator = &f->w.heap.allocator,
                                      .clock = &f->w.clock,
                                      .cluster = "blue",
                                      .version = "1",
                                      .node = 1};

    make_hashes();
    world_init(&f->w);
    bop_buf_init(&f->payload, NULL, 0);
    bop_buf_init(&f->client.in, NULL, 0);
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE(world_settle(&f->w));
    REQUIRE_EQ(bop__auth_create(&f->w.heap.allocator, &f->auth), 0);
    REQUIRE_EQ(bop__auth_set(f->auth, tokens, BOP_COUNT_OF(tokens), &f->err), 0);
    options.replica = f->w.replica;
    options.auth = f->auth;
    REQUIRE_EQ(bop__service_create(&options, &f->service), 0);
    REQUIRE_EQ(bop__service_connect(f->service, &io, &f->client, &f->client.conn), 0);
}

static void teardown(struct fixture *f)
{
    if (f->client.conn) {
        bop__service_disconnect(f->client.conn);
    }
    world_close(&f->w);
    bop__service_destroy(f->service);
    bop__auth_destroy(f->auth);
    bop_buf_deinit(&f->client.in);
    bop_buf_deinit(&f->payload);
    world_deinit(&f->w);
}

FIXTURE(setup, teardown)

/* ---- The set ---- */

static struct auth_who show(struct fixture *f, const char *token)
{
    struct auth_who who = bop__auth_who(f->auth);

    CHECK(bop__auth_show_token(&who, bop_slice_cstr(token)));
    return who;
}

TEST(auth, takes_namespaces_from_names)
{
    CHECK_SLICE_EQ(bop__auth_namespace(bytes("a/b/c")), bytes("a"));
    CHECK_SLICE_EQ(bop__auth_namespace(bytes("/b")), bytes(""));
    CHECK_SLICE_EQ(bop__auth_namespace(bytes("ab")), bytes(""));
    CHECK_SLICE_EQ(bop__auth_namespace(bytes("")), bytes(""));
}

TEST(auth, gives_each_right_with_those_before_it)
{
    struct auth_who reader = show(f, "read me"), writer = show(f, "write me");
    struct auth_who root = show(f, "obey me");

    CHECK(bop__auth_allows(&reader, BOP_RIGHT_READ, bytes("blue/m")));
    CHECK(!bop__auth_allows(&reader, BOP_RIGHT_WRITE, bytes("blue/m")));
    CHECK(!bop__auth_allows(&reader, BOP_RIGHT_READ, bytes("blu/m")));
    CHECK(!bop__auth_allows(&reader, BOP_RIGHT_READ, bytes("blue")));
    CHECK(!bop__auth_allows(&reader, BOP_RIGHT_READ, bytes("blueish/m")));
    CHECK(!bop__auth_allows_all(&reader, BOP_RIGHT_READ));
    CHECK(bop__auth_allows(&writer, BOP_RIGHT_WRITE, bytes("blue/m")));
    CHECK(bop__auth_allows(&writer, BOP_RIGHT_READ, bytes("red/m")));
    CHECK(!bop__auth_allows(&writer, BOP_RIGHT_WRITE, bytes("red/m")));
    CHECK(!bop__auth_allows(&writer, BOP_RIGHT_WRITE, bytes("m")));
    CHECK(!bop__auth_allows(&writer, BOP_RIGHT_ADMIN, bytes("blue/m")));
    CHECK(bop__auth_allows_all(&writer, BOP_RIGHT_READ));
    CHECK(bop__auth_allows_all(&root, BOP_RIGHT_ADMIN));
    CHECK(bop__auth_allows(&root, BOP_RIGHT_WRITE, bytes("any/thing")));
    CHECK_STR_EQ(bop__auth_name(&root), "root");
}

TEST(auth, allows_everything_where_no_tokens_are_wanted)
{
    struct auth_who who = bop__auth_who(NULL);

    CHECK(bop__auth_known(&who));
    CHECK(bop__auth_allows_all(&who, BOP_RIGHT_ADMIN));
    CHECK(bop__auth_allows(&who, BOP_RIGHT_WRITE, bytes("m")));
    CHECK(bop__auth_show_token(&who, bytes("anything")));
}

TEST(auth, knows_nobody_who_showed_nothing_or_something_else)
{
    struct auth_who who = bop__auth_who(f->auth);

    CHECK(!bop__auth_known(&who));
    CHECK(!bop__auth_allows(&who, BOP_RIGHT_READ, bytes("blue/m")));
    CHECK(!bop__auth_allows_all(&who, BOP_RIGHT_READ));
    CHECK(!bop__auth_show_token(&who, bytes("read m")));
    CHECK(!bop__auth_show_token(&who, bytes("read me ")));
    /* A hash is not what it is the hash of, and a name in a certificate is no token. */
    CHECK(!bop__auth_show_token(&who, bop_slice(hashes[0], sizeof(hashes[0]))));
    CHECK(!bop__auth_show_token(&who, bytes("writer.example.org")));
    CHECK_EQ(who.failures, 4);
    CHECK_STR_EQ(bop__auth_name(&who), "");
    /* Who is known and then shows what is not is nobody again. */
    CHECK(bop__auth_show_token(&who, bytes("read me")));
    CHECK(bop__auth_known(&who));
    CHECK(!bop__auth_show_token(&who, bytes("x")));
    CHECK(!bop__auth_known(&who));
}

TEST(auth, knows_certificates_by_any_of_their_names)
{
    struct auth_who who = bop__auth_who(f->auth);

    CHECK(!bop__auth_show_certificate(&who, ""));
    CHECK(!bop__auth_show_certificate(&who, "a.example.org,,10.0.0.1"));
    CHECK(!bop__auth_show_certificate(&who, "write me"));
    CHECK(bop__auth_show_certificate(&who, "a.example.org,WRITER.example.org"));
    CHECK_STR_EQ(bop__auth_name(&who), "writer");
}

TEST(auth, counts_a_new_set_at_once)
{
    struct auth_who reader = show(f, "read me"), writer = show(f, "write me");
    struct bop_node_token fewer[] = {tokens[1]};

    fewer[0].grants = reader_grants;
    fewer[0].grant_count = 1;
    REQUIRE_EQ(bop__auth_set(f->auth, fewer, 1, &f->err), 0);
    CHECK(!bop__auth_known(&reader));
    CHECK(bop__auth_known(&writer));
    CHECK(!bop__auth_allows(&writer, BOP_RIGHT_WRITE, bytes("blue/m")));
    CHECK(bop__auth_allows(&writer, BOP_RIGHT_READ, bytes("blue/m")));
    REQUIRE_EQ(bop__auth_set(f->auth, tokens, BOP_COUNT_OF(tokens), &f->err), 0);
    CHECK(bop__auth_allows(&reader, BOP_RIGHT_READ, bytes("blue/m")));
    REQUIRE_EQ(bop__auth_set(f->auth, NULL, 0, &f->err), 0);
    CHECK(!bop__auth_known(&reader));
    CHECK(!bop__auth_known(&writer));
}

/* ---- Operations ---- */

static void put_operation(struct bop_buf *out, enum bop_op op, const char *name)
{
    struct bop_operation operation = {.op = op, .name = bop_slice_cstr(name), .delta = 1};
    struct bop_buf bare;
    struct bop_writer w = bop_writer(&bare);

    bop_buf_init(&bare, NULL, 0);
    bop_operation_encode(&w, &operation);
    w = bop_writer(out);
    bop_write_bytes(&w, bop_buf_slice(&bare));
    REQUIRE_EQ(w.code, 0);
    bop_buf_deinit(&bare);
}

/* What is said against a transaction that compares one thing and does one or the other; "" if
 * nothing is. */
static const char *judge(struct auth_who *who, const char *compared, enum bop_op then_op,
                         const char *then_name, enum bop_op else_op, const char *else_name)
{
    static char text[AUTH_TEXT_MAX];
    struct bop_compare compare = {
        .kind = BOP_COMPARE_COUNTER, .relation = BOP_EQUAL, .name = bop_slice_cstr(compared)};
    struct bop_operation operation = {
        .op = BOP_OP_TRANSACTION, .compare_count = 1, .then_count = 1, .else_count = 1};
    struct bop_buf compares, then_items, else_items, whole;
    struct bop_operation decoded;
    struct bop_writer w = bop_writer(&compares);

    bop_buf_init(&compares, NULL, 0);
    bop_buf_init(&then_items, NULL, 0);
    bop_buf_init(&else_items, NULL, 0);
    bop_buf_init(&whole, NULL, 0);
    bop_compare_encode(&w, &compare);
    put_operation(&then_items, then_op, then_name);
    put_operation(&else_items, else_op, else_name);
    operation.compares = bop_buf_slice(&compares);
    operation.then_items = bop_buf_slice(&then_items);
    operation.else_items = bop_buf_slice(&else_items);
    w = bop_writer(&whole);
    bop_operation_encode(&w, &operation);
    REQUIRE_EQ(w.code, 0);
    REQUIRE_EQ(bop_operation_decode(bop_buf_slice(&whole), &decoded), 0);
    text[0] = '\0';
    if (!bop__auth_allows_operation(who, &decoded)) {
        bop__auth_operation_refusal(who, &decoded, text);
    }
    bop_buf_deinit(&compares);
    bop_buf_deinit(&then_items);
    bop_buf_deinit(&else_items);
    bop_buf_deinit(&whole);
    return text;
}

TEST(auth, looks_into_transactions)
{
    enum bop_op add = BOP_OP_COUNTER_ADD, get = BOP_OP_COUNTER_GET;
    struct auth_who reader = show(f, "read me"), writer = show(f, "write me");
    struct auth_who nobody = bop__auth_who(f->auth), everybody = bop__auth_who(NULL);

    CHECK_STR_EQ(judge(&reader, "blue/c", get, "blue/d", get, "blue/e"), "");
    CHECK_STR_EQ(judge(&reader, "red/c", get, "blue/d", get, "blue/e"),
                 "token reader may not read in namespace \"red\"");
    CHECK_STR_EQ(judge(&reader, "blue/c", get, "red/d", get, "blue/e"),
                 "token reader may not read in namespace \"red\"");
    CHECK_STR_EQ(judge(&reader, "blue/c", get, "blue/d", add, "blue/e"),
                 "token reader may not write in namespace \"blue\"");
    CHECK_STR_EQ(judge(&writer, "red/c", add, "blue/d", get, "e"), "");
    CHECK_STR_EQ(judge(&writer, "red/c", add, "blue/d", add, "red/e"),
                 "token writer may not write in namespace \"red\"");
    CHECK_STR_EQ(judge(&nobody, "blue/c", get, "blue/d", get, "blue/e"),
                 "this cluster wants a token, and none was shown");
    CHECK_STR_EQ(judge(&everybody, "red/c", add, "x", add, "y/z"), "");
}

TEST(auth, asks_for_all_where_there_is_no_name)
{
    struct auth_who reader = show(f, "read me"), writer = show(f, "write me");
    struct bop_operation names = {.op = BOP_OP_NAMES}, owned = {.op = BOP_OP_LOCK_OWNED};
    struct bop_operation nothing = {.op = BOP_OP_TRANSACTION};
    struct auth_who nobody = bop__auth_who(f->auth);

    CHECK(!bop__auth_allows_operation(&reader, &names));
    CHECK(!bop__auth_allows_operation(&reader, &owned));
    CHECK(bop__auth_allows_operation(&writer, &names));
    CHECK(bop__auth_allows_operation(&writer, &owned));
    names.prefix = bytes("blue/m");
    CHECK(bop__auth_allows_operation(&reader, &names));
    names.prefix = bytes("blue"); /* "bluer/x" begins with it too. */
    CHECK(!bop__auth_allows_operation(&reader, &names));
    CHECK(bop__auth_allows_operation(&reader, &nothing));
    CHECK(!bop__auth_allows_operation(&nobody, &nothing));
}

/* ---- Sets that make no sense ---- */

static void refuses(struct fixture *f, struct bop_node_token token, const char *why)
{
    struct bop_node_token set[] = {tokens[0], token};

    f->err = (struct bop_error){0};
    CHECK_EQ(bop__auth_set(f->auth, set, 2, &f->err), BOP_EINVAL);
    CHECK_STR_HAS(f->err.message, why);
}

TEST(auth, refuses_sets_that_make_no_sense)
{
    static const struct bop_node_grant strange[] = {{"x", (enum bop_right)4}};
    static const struct bop_node_grant nowhere[] = {{NULL, BOP_RIGHT_READ}};
    static const struct bop_node_grant boss[] = {{"*", BOP_RIGHT_ADMIN}, {"x", BOP_RIGHT_ADMIN}};
    struct auth_who reader = show(f, "read me");
    char longest[BOP_NODE_CERTIFICATE_NAME_MAX + 2];

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    refuses(f, (struct bop_node_token){.sha256 = hashes[1]}, "without a name");
    refuses(f, (struct bop_node_token){.name = "", .sha256 = hashes[1]}, "without a name");
    refuses(f, (struct bop_node_token){.name = "t"}, "neither a hash nor a certificate");
    refuses(f, (struct bop_node_token){.name = "t", .certificate = ""}, "1 to 255 bytes");
    refuses(f, (struct bop_node_token){.name = "t", .certificate = longest}, "1 to 255 bytes");
    refuses(f, (struct bop_node_token){.name = "reader", .sha256 = hashes[1]}, "two tokens");
    refuses(f, (struct bop_node_token){.name = "t", .sha256 = hashes[0]}, "are the same");
    refuses(f,
            (struct bop_node_token){
                .name = "t", .sha256 = hashes[1], .grants = strange, .grant_count = 1},
            "makes no sense");
    refuses(f,
            (struct bop_node_token){
                .name = "t", .sha256 = hashes[1], .grants = nowhere, .grant_count = 1},
            "makes no sense");
    refuses(
        f,
        (struct bop_node_token){.name = "t", .sha256 = hashes[1], .grants = boss, .grant_count = 2},
        "given on \"*\" only");
    CHECK(bop__auth_allows(&reader, BOP_RIGHT_READ, bytes("blue/m"))); /* Nothing was changed. */
}

TEST(auth, survives_a_lack_of_memory)
{
    FAULT_SWEEP(&f->w.faults) {
        struct auth *auth = NULL;
        int rc = bop__auth_create(&f->w.heap.allocator, &auth);

        if (rc == 0) {
            rc = bop__auth_set(auth, tokens, BOP_COUNT_OF(tokens), NULL);
        }
        CHECK_EQ(rc, f->w.faults.fired);
        bop__auth_destroy(auth);
    }
}

/* ---- The service ---- */

static int send(struct fixture *f, enum bop_wire_kind kind, struct bop_slice payload)
{
    struct bop_wire_frame frame = {
        .flags = BOP_WIRE_REQUEST, .kind = kind, .request = 9, .payload = payload};

    return bop__service_frame(f->client.conn, &frame);
}

static struct bop_wire_frame answer(struct fixture *f)
{
    static uint8_t copy[4096];
    struct bop_wire_frame frame = {0};
    size_t used;

    for (unsigned n = 0; n < WORLD_TURNS && f->client.in.size == 0; n++) {
        world_run(&f->w, 1);
    }
    REQUIRE_EQ(bop_wire_parse(bop_buf_slice(&f->client.in), 0, &frame, &used, NULL), 0);
    REQUIRE(frame.payload.size <= sizeof(copy));
    CHECK_EQ(frame.request, 9);
    if (frame.payload.size > 0) {
        memcpy(copy, frame.payload.data, frame.payload.size);
    }
    frame.payload.data = copy;
    bop_buf_consume(&f->client.in, used);
    return frame;
}

static uint8_t shown(struct fixture *f, const char *token)
{
    struct bop_wire_frame frame;

    REQUIRE_EQ(send(f, BOP_WIRE_KIND_AUTH_REQUEST, bop_slice_cstr(token)), 0);
    frame = answer(f);
    CHECK_EQ(frame.kind, BOP_WIRE_KIND_AUTH_RESPONSE);
    REQUIRE_EQ(frame.payload.size, 1);
    return frame.payload.data[0];
}

/* Ask for an operation; the status it comes to, and in *out_why what a denial says. */
static uint8_t run(struct fixture *f, enum bop_op op, const char *name, struct bop_slice *out_why)
{
    struct bop_operation operation = {.op = op, .name = bop_slice_cstr(name), .delta = 1};
    struct bop_writer w = bop_writer(&f->payload);
    struct bop_wire_frame frame;
    struct bop_reader reader;

    bop_buf_clear(&f->payload);
    if (bop_op_is_write(op)) {
        bop_write_u64(&w, 0);
        bop_write_u64(&w, 0);
        bop_write_u64(&w, 0);
    } else {
        bop_write_u8(&w, BOP_READ_LINEARIZABLE);
    }
    bop_operation_encode(&w, &operation);
    REQUIRE_EQ(send(f,
                    bop_op_is_write(op) ? BOP_WIRE_KIND_WRITE_REQUEST : BOP_WIRE_KIND_READ_REQUEST,
                    bop_buf_slice(&f->payload)),
               0);
    frame = answer(f);
    reader = bop_reader(frame.payload);
    CHECK_EQ(frame.kind,
             bop_op_is_write(op) ? BOP_WIRE_KIND_WRITE_RESPONSE : BOP_WIRE_KIND_READ_RESPONSE);
    if (bop_read_u8(&reader) == BOP_STATUS_DENIED) {
        *out_why = bop_read_string(&reader);
        CHECK(bop_reader_done(&reader));
    }
    return frame.payload.data[0];
}

TEST(auth_service, denies_whoever_shows_nothing)
{
    struct bop_slice why;
    struct bop_wire_frame frame;
    struct bop_reader reader;

    CHECK_EQ(run(f, BOP_OP_COUNTER_ADD, "blue/c", &why), BOP_STATUS_DENIED);
    CHECK_SLICE_EQ(why, bytes("this cluster wants a token, and none was shown"));
    CHECK_EQ(run(f, BOP_OP_COUNTER_GET, "blue/c", &why), BOP_STATUS_DENIED);
    CHECK_EQ(world_counter(&f->w), 0);

    REQUIRE_EQ(send(f, BOP_WIRE_KIND_STATUS_REQUEST, bytes("")), 0);
    frame = answer(f);
    CHECK_EQ(frame.kind, BOP_WIRE_KIND_ERROR_RESPONSE);
    reader = bop_reader(frame.payload);
    bop_read_u8(&reader);
    CHECK_SLICE_EQ(bop_read_string(&reader),
                   bytes("access denied: this cluster wants a token, and none was shown"));
    CHECK_EQ(f->client.closes, 0);
}

TEST(auth_service, denies_sessions_with_their_own_answers)
{
    struct bop_session_open_request open = {.timeout_ms = 1000};
    struct bop_session_request about = {.session = 1};
    struct bop_session_open_response opened;
    struct bop_writer w = bop_writer(&f->payload);
    struct bop_wire_frame frame;

    bop_session_open_request_encode(&w, &open);
    REQUIRE_EQ(send(f, BOP_WIRE_KIND_SESSION_OPEN_REQUEST, bop_buf_slice(&f->payload)), 0);
    frame = answer(f);
    REQUIRE_EQ(bop_session_open_response_decode(frame.payload, &opened), 0);
    CHECK_EQ(opened.status, BOP_STATUS_DENIED);
    for (uint16_t kind = BOP_WIRE_KIND_SESSION_RESUME_REQUEST;
         kind <= BOP_WIRE_KIND_SESSION_ALIVE_REQUEST; kind += 2) {
        bop_buf_clear(&f->payload);
        bop_session_request_encode(&w, &about);
        REQUIRE_EQ(send(f, (enum bop_wire_kind)kind, bop_buf_slice(&f->payload)), 0);
        frame = answer(f);
        CHECK_EQ(frame.kind, kind + 1);
        REQUIRE_EQ(frame.payload.size, 1);
        CHECK_EQ(frame.payload.data[0], BOP_STATUS_DENIED);
    }
}

TEST(auth_service, answers_strangers_who_greet_or_ping)
{
    struct bop_hello_request hello = {.protocol = BOP_WIRE_VERSION};
    struct bop_writer w = bop_writer(&f->payload);

    bop_hello_request_encode(&w, &hello);
    REQUIRE_EQ(send(f, BOP_WIRE_KIND_HELLO_REQUEST, bop_buf_slice(&f->payload)), 0);
    CHECK_EQ(answer(f).payload.data[0], BOP_STATUS_OK);
    REQUIRE_EQ(send(f, BOP_WIRE_KIND_PING, bytes("")), 0);
    CHECK_EQ(answer(f).kind, BOP_WIRE_KIND_PONG);
}

TEST(auth_service, allows_what_the_token_says)
{
    struct bop_slice why;

    CHECK_EQ(shown(f, "read me"), BOP_STATUS_OK);
    CHECK_EQ(run(f, BOP_OP_COUNTER_GET, "blue/c", &why), BOP_STATUS_NOT_FOUND);
    CHECK_EQ(run(f, BOP_OP_COUNTER_ADD, "blue/c", &why), BOP_STATUS_DENIED);
    CHECK_SLICE_EQ(why, bytes("token reader may not write in namespace \"blue\""));
    CHECK_EQ(run(f, BOP_OP_COUNTER_GET, "c", &why), BOP_STATUS_DENIED);
    CHECK_SLICE_EQ(why, bytes("token reader may not read in namespace \"\""));

    CHECK_EQ(shown(f, "write me"), BOP_STATUS_OK);
    CHECK_EQ(run(f, BOP_OP_COUNTER_ADD, "blue/c", &why), BOP_STATUS_OK);
    CHECK_EQ(run(f, BOP_OP_COUNTER_GET, "blue/c", &why), BOP_STATUS_OK);
    CHECK_EQ(run(f, BOP_OP_COUNTER_ADD, "red/c", &why), BOP_STATUS_DENIED);

    REQUIRE_EQ(send(f, BOP_WIRE_KIND_STATUS_REQUEST, bytes("")), 0);
    CHECK_EQ(answer(f).kind, BOP_WIRE_KIND_STATUS_RESPONSE);
}

TEST(auth_service, asks_for_rights_in_the_prototypes_kinds_too)
{
    struct bop_writer w = bop_writer(&f->payload);
    struct bop_wire_frame frame;

    CHECK_EQ(shown(f, "read me"), BOP_STATUS_OK);
    bop_write_bytes(&w, bytes("blue/c"));
    REQUIRE_EQ(send(f, BOP_WIRE_KIND_COUNTER_GET_REQUEST, bop_buf_slice(&f->payload)), 0);
    CHECK_EQ(answer(f).kind, BOP_WIRE_KIND_COUNTER_GET_RESPONSE);
    bop_write_i64(&w, 5);
    REQUIRE_EQ(send(f, BOP_WIRE_KIND_COUNTER_INCREMENT_REQUEST, bop_buf_slice(&f->payload)), 0);
    frame = answer(f);
    CHECK_EQ(frame.kind, BOP_WIRE_KIND_ERROR_RESPONSE);
    CHECK(frame.payload.size > 5);
    CHECK_MEM_EQ(frame.payload.data + 5, "access denied: token reader", 27);
}

TEST(auth_service, closes_on_whoever_guesses)
{
    CHECK_EQ(shown(f, "guess 1"), BOP_STATUS_DENIED);
    CHECK_EQ(shown(f, "guess 2"), BOP_STATUS_DENIED);
    CHECK_EQ(f->client.complaints, 2);
    /* The last one is answered, and then it is over. */
    CHECK_EQ(send(f, BOP_WIRE_KIND_AUTH_REQUEST, bytes("guess 3")), BOP_EDENIED);
    CHECK_EQ(answer(f).payload.data[0], BOP_STATUS_DENIED);
}

TEST(auth_service, takes_no_token_that_is_empty_or_endless)
{
    static uint8_t endless[BOP_AUTH_TOKEN_MAX + 1];

    CHECK_EQ(send(f, BOP_WIRE_KIND_AUTH_REQUEST, bytes("")), BOP_EMALFORMED);
    CHECK_EQ(send(f, BOP_WIRE_KIND_AUTH_REQUEST, bop_slice(endless, sizeof(endless))),
             BOP_EMALFORMED);
}

TEST(auth_service, hears_of_a_new_set_on_connections_that_are_there)
{
    struct bop_slice why;

    CHECK_EQ(shown(f, "write me"), BOP_STATUS_OK);
    CHECK_EQ(run(f, BOP_OP_COUNTER_ADD, "blue/c", &why), BOP_STATUS_OK);
    REQUIRE_EQ(bop__auth_set(f->auth, tokens, 1, &f->err), 0);
    CHECK_EQ(run(f, BOP_OP_COUNTER_ADD, "blue/c", &why), BOP_STATUS_DENIED);
    CHECK_SLICE_EQ(why, bytes("the token that was shown is not known any more"));
    REQUIRE_EQ(bop__auth_set(f->auth, tokens, BOP_COUNT_OF(tokens), &f->err), 0);
    CHECK_EQ(run(f, BOP_OP_COUNTER_ADD, "blue/c", &why), BOP_STATUS_OK);
}

/* Open a watch under request id 9; what the answer says. */
static uint8_t watched(struct fixture *f, const struct bop_watch_open_request *request)
{
    struct bop_writer w = bop_writer(&f->payload);
    struct bop_wire_frame frame;

    bop_buf_clear(&f->payload);
    bop_watch_open_request_encode(&w, request);
    REQUIRE_EQ(send(f, BOP_WIRE_KIND_WATCH_OPEN_REQUEST, bop_buf_slice(&f->payload)), 0);
    frame = answer(f);
    REQUIRE_EQ(frame.kind, BOP_WIRE_KIND_WATCH_OPEN_RESPONSE);
    return frame.payload.data[0];
}

static void set_tokens(struct fixture *f, const struct bop_node_token *set, size_t count)
{
    REQUIRE_EQ(bop__auth_set(f->auth, set, count, &f->err), 0);
    bop__service_review(f->service);
}

static void expect_denied(struct fixture *f)
{
    struct bop_wire_frame frame = answer(f);
    struct bop_watch_events message;

    CHECK_EQ(frame.kind, BOP_WIRE_KIND_WATCH_EVENTS);
    REQUIRE_EQ(bop_watch_events_decode(frame.payload, &message), 0);
    CHECK_EQ(message.flags, BOP_WATCH_EVENTS_DENIED);
    CHECK_EQ(f->client.in.size, 0);
}

TEST(auth_service, ends_watches_with_the_right_to_them)
{
    struct bop_watch_open_request blue = {.what = BOP_WATCH_COUNTER, .name = bytes("blue/c")};
    struct bop_watch_open_request red = {.what = BOP_WATCH_COUNTER, .name = bytes("red/c")};
    struct bop_node_token less = tokens[1];

    CHECK_EQ(shown(f, "write me"), BOP_STATUS_OK);
    REQUIRE_EQ(watched(f, &red), BOP_STATUS_OK);
    set_tokens(f, tokens, BOP_COUNT_OF(tokens)); /* The same once more. */
    CHECK_EQ(f->client.in.size, 0);
    less.grants = reader_grants;
    less.grant_count = 1;
    set_tokens(f, &less, 1); /* No right on red any more. */
    expect_denied(f);
    CHECK_EQ(watched(f, &red), BOP_STATUS_DENIED);
    REQUIRE_EQ(watched(f, &blue), BOP_STATUS_OK);
    set_tokens(f, tokens, 1); /* No such token any more. */
    expect_denied(f);
    CHECK_EQ(watched(f, &blue), BOP_STATUS_DENIED);
}

static uint64_t open_session(struct fixture *f)
{
    struct bop_session_open_request open = {.timeout_ms = 60000};
    struct bop_session_open_response opened;
    struct bop_writer w = bop_writer(&f->payload);

    bop_buf_clear(&f->payload);
    bop_session_open_request_encode(&w, &open);
    REQUIRE_EQ(send(f, BOP_WIRE_KIND_SESSION_OPEN_REQUEST, bop_buf_slice(&f->payload)), 0);
    REQUIRE_EQ(bop_session_open_response_decode(answer(f).payload, &opened), 0);
    REQUIRE_EQ(opened.status, BOP_STATUS_OK);
    return opened.session;
}

static uint8_t owned(struct fixture *f, uint64_t session)
{
    struct bop_operation operation = {.op = BOP_OP_LOCK_OWNED, .session = session, .limit = 10};
    struct bop_writer w = bop_writer(&f->payload);

    bop_buf_clear(&f->payload);
    bop_write_u8(&w, BOP_READ_LINEARIZABLE);
    bop_operation_encode(&w, &operation);
    REQUIRE_EQ(send(f, BOP_WIRE_KIND_READ_REQUEST, bop_buf_slice(&f->payload)), 0);
    return answer(f).payload.data[0];
}

TEST(auth_service, tells_of_a_session_to_whose_it_is)
{
    struct bop_node_token confined = tokens[1];
    struct bop_watch_open_request request = {.what = BOP_WATCH_SESSION};
    uint8_t id[9] = {0};
    uint64_t session;

    confined.grants = reader_grants; /* Nothing on "*". */
    confined.grant_count = 1;
    set_tokens(f, &confined, 1);
    CHECK_EQ(shown(f, "write me"), BOP_STATUS_OK);
    session = open_session(f);
    CHECK_EQ(owned(f, session), BOP_STATUS_OK);
    CHECK_EQ(owned(f, session + 1), BOP_STATUS_DENIED);
    CHECK_EQ(watched(f, &request), BOP_STATUS_DENIED);
    bop_store_u64(id, __builtin_bswap64(session));
    request.from = bop_slice(id, 8);
    CHECK_EQ(watched(f, &request), BOP_STATUS_DENIED);
    request.to = bop_slice(id, 9);
    CHECK_EQ(watched(f, &request), BOP_STATUS_OK);
    set_tokens(f, &confined, 1);
    CHECK_EQ(f->client.in.size, 0);
    set_tokens(f, tokens, 1);
    expect_denied(f);
    CHECK_EQ(owned(f, session), BOP_STATUS_DENIED);
}

/* Who comes back on another connection asks for what is his without waiting for the answer. */
TEST(auth_service, takes_the_token_of_a_session_at_once)
{
    struct bop_node_token confined = tokens[1];
    struct bop_session_request resume = {0};
    struct bop_writer w = bop_writer(&f->payload);

    confined.grants = reader_grants;
    confined.grant_count = 1;
    set_tokens(f, &confined, 1);
    CHECK_EQ(shown(f, "write me"), BOP_STATUS_OK);
    resume.session = open_session(f);
    bop__service_disconnect(f->client.conn);
    REQUIRE_EQ(bop__service_connect(f->service, &io, &f->client, &f->client.conn), 0);
    CHECK_EQ(shown(f, "write me"), BOP_STATUS_OK);
    CHECK_EQ(owned(f, resume.session), BOP_STATUS_DENIED);
    for (unsigned right = 0; right < 2; right++) {
        resume.token[0] = right ? 0 : 'x';
        bop_buf_clear(&f->payload);
        bop_session_request_encode(&w, &resume);
        REQUIRE_EQ(send(f, BOP_WIRE_KIND_SESSION_RESUME_REQUEST, bop_buf_slice(&f->payload)), 0);
        CHECK_EQ(owned(f, resume.session), right ? BOP_STATUS_OK : BOP_STATUS_DENIED);
        CHECK_EQ(answer(f).payload.data[0], right ? BOP_STATUS_OK : BOP_STATUS_REFUSED);
    }
}

TEST(auth_service, knows_a_client_by_its_certificate)
{
    struct bop_slice why;

    bop__service_show_certificate(f->client.conn, "other.example.org");
    CHECK(!bop__service_knows(f->client.conn));
    bop__service_show_certificate(f->client.conn, "writer.example.org");
    CHECK(bop__service_knows(f->client.conn));
    CHECK_EQ(run(f, BOP_OP_COUNTER_ADD, "blue/c", &why), BOP_STATUS_OK);
}
