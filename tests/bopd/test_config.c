/* What bopd understands, and what it says about what it does not. */
#include <stdio.h>
#include <unistd.h>

#include <bop/fs.h>

#include "config.h"
#include "tap.h"

/* Parse a command line, cut at spaces. */
static int parse(const char *line, struct config *out, struct bop_error *err)
{
    static char name[] = "bopd", copy[8192];
    char *argv[64] = {name}, *rest = copy;
    int argc = 1;

    snprintf(copy, sizeof(copy), "%s", line);
    for (char *word; (word = strsep(&rest, " "));) {
        REQUIRE(argc < 64);
        if (*word) {
            argv[argc++] = word;
        }
    }
    memset(err, 0, sizeof(*err));
    return config_parse(argc, argv, out, err);
}

static void refused(const char *line, const char *message)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse(line, &config, &err), BOP_ECONFIG);
    CHECK_STR_EQ(err.message, message);
    CHECK(!strchr(err.message, '\n'));
}

/* A file by itself: what belongs together is not checked. */
static int parse_yaml(const char *text, struct config *out, struct bop_error *err)
{
    memset(err, 0, sizeof(*err));
    config_init(out);
    return config_parse_yaml(bytes(text), "c.yaml", out, err);
}

static void yaml_refused(const char *text, const char *message)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse_yaml(text, &config, &err), BOP_ECONFIG);
    CHECK_STR_EQ(err.message, message);
    CHECK(!strchr(err.message, '\n'));
}

/* ---- The command line ---- */

TEST(config_flags, set_everything)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse("--id 2 --data /d --listen [::1]:4701 --peer 2=a.example:4701 --peer=3=[::2]:80 "
                   "--cluster=c1 --log-level debug --join --check-config",
                   &config, &err),
             0);
    CHECK_EQ(config.id, 2);
    CHECK_STR_EQ(config.data, "/d");
    CHECK_STR_EQ(config.listen.host, "::1");
    CHECK_EQ(config.listen.port, 4701);
    CHECK_EQ(config.peer_count, 2);
    CHECK_EQ(config.peers[0].id, 2);
    CHECK_STR_EQ(config.peers[0].address.host, "a.example");
    CHECK_EQ(config.peers[1].id, 3);
    CHECK_STR_EQ(config.peers[1].address.host, "::2");
    CHECK_EQ(config.peers[1].address.port, 80);
    CHECK_STR_EQ(config.cluster, "c1");
    CHECK_EQ(config.log_level, BOP_LOG_DEBUG);
    CHECK(config.join && config.check_config && !config.dev);
    CHECK_PTR_EQ(config_self(&config), &config.peers[0]);
}

TEST(config_flags, have_defaults)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse("--id 1 --data d", &config, &err), 0);
    CHECK_STR_EQ(config.cluster, "bop");
    CHECK_STR_EQ(config.listen.host, "127.0.0.1");
    CHECK_EQ(config.listen.port, 4700);
    CHECK_EQ(config.peer_count, 0);
    CHECK_PTR_EQ(config_self(&config), NULL);
    CHECK_EQ(config.log_level, BOP_LOG_INFO);
    CHECK_EQ(config.election_timeout_ms, 300);
    CHECK_EQ(config.heartbeat_ms, 50);
    CHECK_EQ(config.snapshot_entries, 1000000);
    CHECK_EQ(config.trailing_entries, 10000);
    CHECK_EQ(config.inflight_entries, 65536);
    CHECK_EQ(config.uncommitted_bytes, 32 << 20);
    CHECK_EQ(config.send_bytes_s, 0);
    CHECK_EQ(config.connections_max, 10000);
    CHECK_EQ(config.state_bytes_max, UINT64_C(64) << 30);
    CHECK_EQ(config.segment_bytes, 64 << 20);
    CHECK(!config.join && !config.dev && !config.check_config && !config.help && !config.version);
}

/* A node that is in the list of peers listens where the list says. */
TEST(config_flags, take_listen_from_the_peers)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse("--peer 1=h:1 --peer 2=h:2 --id 2 --data d --insecure", &config, &err), 0);
    CHECK_STR_EQ(config.listen.host, "h");
    CHECK_EQ(config.listen.port, 2);
    CHECK_EQ(parse("--peer 1=h:1 --peer 2=h:2 --id 2 --data d --listen 0.0.0.0:7 --insecure",
                   &config, &err),
             0);
    CHECK_STR_EQ(config.listen.host, "0.0.0.0");
    CHECK_EQ(config.listen.port, 7);
}

/* A node that is not in the list is fine. */
TEST(config_flags, take_peers_without_self)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(
        parse("--id 3 --data d --peer 1=h:1 --peer 2=h:2 --listen h:3 --insecure", &config, &err),
        0);
    CHECK_EQ(config.peer_count, 2);
    CHECK_PTR_EQ(config_self(&config), NULL);
}

TEST(config_flags, know_dev)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse("--dev", &config, &err), 0);
    CHECK(config.dev);
    CHECK_EQ(config.id, 1);
    CHECK_STR_EQ(config.data, "");
    CHECK_EQ(parse("--dev --id 7 --listen 127.0.0.1:0", &config, &err), 0);
    CHECK_EQ(config.id, 7);
    CHECK_EQ(config.listen.port, 0);
    refused("--dev --peer 2=h:1", "--dev is a node by itself; drop --dev, or the peers and --join");
}

/* Help is given whatever else is there. */
TEST(config_flags, give_help_first)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse("--help", &config, &err), 0);
    CHECK(config.help);
    CHECK_EQ(parse("--config /nonexistent -h --id", &config, &err), 0);
    CHECK(config.help);
    CHECK_EQ(err.code, 0);
    CHECK_EQ(parse("--version", &config, &err), 0);
    CHECK(config.version && !config.help);
    CHECK_STR_HAS(config_help(), "--check-config");
    CHECK_STR_HAS(config_help(), "Exit status");
}

TEST(config_flags, name_what_is_missing)
{
    refused("", "no id; add --id N, a number from 1 that no other node of the cluster has (or try "
                "bopd --dev)");
    refused("--id 1", "no data directory; add --data DIR (or try bopd --dev)");
    refused("--id", "--id: no value; write --id N");
    refused("--id --join", "--id: no value; write --id N");
    refused("--config", "--config: no value; write --config FILE");
    refused("--id 1 --data d --join",
            "--join: no peer to ask; add --peer ID=HOST:PORT of a member");
    refused("--id 1 --data d --join --peer 1=h:1",
            "--join: no peer to ask; add --peer ID=HOST:PORT of a member");
}

TEST(config_flags, suggest_the_nearest)
{
    refused("--lissten h:1", "--lissten: no such flag; did you mean --listen?");
    refused("--peers 1=h:1", "--peers: no such flag; did you mean --peer?");
    refused("--loglevel=x", "--loglevel: no such flag; did you mean --log-level?");
    refused("--frobnicate", "--frobnicate: no such flag; bopd --help lists them");
    refused("-x", "-x: no such flag; bopd --help lists them");
    refused("serve", "serve: what is this for? Every setting has a flag before it; bopd --help "
                     "lists them");
}

TEST(config_flags, refuse_bad_values)
{
    const char *const number = "not a whole number from 1 to 18446744073709551615";
    static const char *const ids[] = {"0", "-1", "x", "1x", "18446744073709551616", "0x10", "+1"};
    char line[64], message[128];

    for (size_t i = 0; i < BOP_COUNT_OF(ids); i++) {
        snprintf(line, sizeof(line), "--id %s", ids[i]);
        snprintf(message, sizeof(message), "%s: %s", line, number);
        refused(line, message);
    }
    refused("--id 1 --id 2", "--id: is there twice; drop one");
    refused("--config a --config b", "--config: is there twice; drop one");
    refused("--join=yes", "--join: takes no value; write --join alone");
    refused("--help=me", "--help: takes no value; write --help alone");
    refused("--log-level loud",
            "--log-level loud: no such level; write debug, info, warn or error");
    refused("--cluster=", "--cluster : empty");
    refused("--cluster a\tb", "--cluster a?b: has a control character");
    refused("--cluster \xff", "--cluster \xff: not UTF-8");
}

TEST(config_flags, refuse_bad_peers)
{
    refused("--peer 2=10.0.0.2", "--peer 2=10.0.0.2: no port; write ID=HOST:PORT, for example "
                                 "2=10.0.0.2:4700");
    refused("--peer 10.0.0.2:4700", "--peer 10.0.0.2:4700: no id; write ID=HOST:PORT, for example "
                                    "2=10.0.0.2:4700");
    refused("--peer x=h:1", "--peer x=h:1: the id is not a whole number from 1; write "
                            "ID=HOST:PORT, for example 2=10.0.0.2:4700");
    refused("--peer 0=h:1", "--peer 0=h:1: the id is not a whole number from 1; write "
                            "ID=HOST:PORT, for example 2=10.0.0.2:4700");
    refused("--peer 2=h:0", "--peer 2=h:0: the port is not a number from 1 to 65535");
    refused("--peer 2=h:65536", "--peer 2=h:65536: the port is not a number from 1 to 65535");
    refused("--peer 2=h:", "--peer 2=h:: the port is not a number from 1 to 65535");
    refused("--peer 2=:1", "--peer 2=:1: no host; write ID=HOST:PORT, for example 2=10.0.0.2:4700");
    refused("--peer 2=::1:80", "--peer 2=::1:80: an IPv6 address needs brackets; write "
                               "[ADDRESS]:PORT, for example [::1]:4700");
    refused("--peer 2=[::1]", "--peer 2=[::1]: no port; write ID=HOST:PORT, for example "
                              "2=10.0.0.2:4700");
    refused("--peer 2=[::1:80", "--peer 2=[::1:80: brackets around an IPv6 address do not match");
    refused("--peer 2=[h]:80", "--peer 2=[h]:80: not an IPv6 address in the brackets");
    refused("--peer 2=a/b:80", "--peer 2=a/b:80: not a host name; write ID=HOST:PORT, for example "
                               "2=10.0.0.2:4700");
    refused("--peer 2=h:1 --peer 2=i:2",
            "--peer 2=i:2: the id 2 is there twice; every node has one of its own");
    refused("--peer 2=h:1 --peer 3=h:1",
            "--peer 3=h:1: peer 2 has this address too; every node has one of its own");
    refused("--listen 4700", "--listen 4700: no port; write HOST:PORT, for example 127.0.0.1:4700");
}

/* A cluster has at most 15 nodes, this one among them. */
TEST(config_flags, bound_the_cluster)
{
    char line[512] = "--data d --insecure --listen h:99 --id 99";
    struct config config;
    struct bop_error err;

    for (int i = 1; i <= 14; i++) {
        snprintf(line + strlen(line), sizeof(line) - strlen(line), " --peer %d=h:%d", i, i);
    }
    CHECK_EQ(parse(line, &config, &err), 0);
    CHECK_EQ(config.peer_count, 14);
    strcat(line, " --peer 15=h:15");
    refused(line, "15 peers and this node are more than the 15 nodes that a cluster can have");
    strcat(line, " --peer 16=h:16");
    refused(line, "--peer 16=h:16: more than 15 peers");
}

/* Peers cannot reach 0.0.0.0, or a port that is not known yet. */
TEST(config_flags, want_an_address_that_peers_can_reach)
{
    struct config config;
    struct bop_error err;

    refused("--id 1 --data d --peer 2=h:1 --listen 0.0.0.0:4700",
            "listen 0.0.0.0:4700: the peers need an address of this node that they can reach; add "
            "--peer 1=HOST:PORT");
    refused("--id 1 --data d --peer 2=h:1 --listen [::]:4700",
            "listen [::]:4700: the peers need an address of this node that they can reach; add "
            "--peer 1=HOST:PORT");
    CHECK_EQ(parse("--id 1 --data d --peer 2=h:1 --peer 1=i:1 --listen 0.0.0.0:1 --insecure",
                   &config, &err),
             0);
    CHECK_EQ(parse("--id 1 --data d --listen 0.0.0.0:1 --insecure", &config, &err), 0);
}

/* ---- The file ---- */

TEST(config_yaml, sets_everything)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse_yaml("id: 2\n"
                        "cluster: 'c 1'\n"
                        "data: /d\n"
                        "listen: \"[::1]:4701\"\n"
                        "peers:\n"
                        "  - 1=h:1\n"
                        "  - 2=[::1]:4701\n"
                        "join: true\n"
                        "log_level: warn\n"
                        "election_timeout_ms: 1000\n"
                        "heartbeat_ms: 100\n"
                        "snapshot_entries: 500\n"
                        "trailing_entries: 7\n"
                        "inflight_entries: 9\n"
                        "uncommitted_bytes: 64KiB\n"
                        "send_bytes_s: 20M\n"
                        "limits:\n"
                        "  connections: 10\n"
                        "  state_bytes: 1GiB\n"
                        "  segment_bytes: 8M\n",
                        &config, &err),
             0);
    CHECK_EQ(config.id, 2);
    CHECK_STR_EQ(config.cluster, "c 1");
    CHECK_STR_EQ(config.data, "/d");
    CHECK_STR_EQ(config.listen.host, "::1");
    CHECK_EQ(config.peer_count, 2);
    CHECK_EQ(config.peers[1].id, 2);
    CHECK(config.join);
    CHECK_EQ(config.log_level, BOP_LOG_WARN);
    CHECK_EQ(config.election_timeout_ms, 1000);
    CHECK_EQ(config.heartbeat_ms, 100);
    CHECK_EQ(config.snapshot_entries, 500);
    CHECK_EQ(config.trailing_entries, 7);
    CHECK_EQ(config.inflight_entries, 9);
    CHECK_EQ(config.uncommitted_bytes, 64 << 10);
    CHECK_EQ(config.send_bytes_s, 20 << 20);
    CHECK_EQ(config.connections_max, 10);
    CHECK_EQ(config.state_bytes_max, 1 << 30);
    CHECK_EQ(config.segment_bytes, 8 << 20);
    CHECK_EQ(config_check(&config, &err), 0);
}

/* Nothing but comments is a file too, and so is a list of peers without any. */
TEST(config_yaml, may_be_empty)
{
    static const char *const texts[] = {"", "# nothing\n", "\n\n", "peers:\n", "peers: []\n"};
    struct config config;
    struct bop_error err;

    for (size_t i = 0; i < BOP_COUNT_OF(texts); i++) {
        CHECK_EQ(parse_yaml(texts[i], &config, &err), 0);
        CHECK_EQ(config.peer_count, 0);
    }
    CHECK_EQ(config_parse_yaml(bop_slice(NULL, 0), "c.yaml", &config, &err), 0);
}

TEST(config_yaml, names_line_and_key)
{
    yaml_refused("# one\nid: abc\n",
                 "c.yaml:2: id: abc: not a whole number from 1 to 18446744073709551615");
    yaml_refused("id: -1\n", "c.yaml:1: id: -1: not a whole number from 1 to 18446744073709551615");
    yaml_refused("id:\n", "c.yaml:1: id: : not a whole number from 1 to 18446744073709551615");
    yaml_refused("id: 1\njoin: perhaps\n", "c.yaml:2: join: perhaps: write true or false");
    yaml_refused("peers:\n  - 1=h\n", "c.yaml:1: peers: 1=h: no port; write ID=HOST:PORT, for "
                                      "example 2=10.0.0.2:4700");
    yaml_refused("limits:\n  connections: 0\n",
                 "c.yaml:2: limits.connections: 0: not a whole number from 1 to 1000000");
    yaml_refused("limits:\n  connections: 1\n  state_bytes: 3MiB\n",
                 "c.yaml:3: limits.state_bytes: 3MiB: not a size from 16MiB to 67108864MiB; write "
                 "a number and KiB, MiB, GiB or TiB, for example 64GiB");
    yaml_refused("limits: {segment_bytes: 99999999999T}\n",
                 "c.yaml: limits.segment_bytes: 99999999999T: not a size from 1MiB to 4096MiB; "
                 "write a number and KiB, MiB, GiB or TiB, for example 64GiB");
    yaml_refused("inflight_entries: 0\n",
                 "c.yaml:1: inflight_entries: 0: not a whole number from 1 to 1000000");
    yaml_refused("uncommitted_bytes: 1KiB\n",
                 "c.yaml:1: uncommitted_bytes: 1KiB: not a size from 64KiB to 1024MiB; write a "
                 "number and KiB, MiB, GiB or TiB, for example 64MiB");
    yaml_refused("send_bytes_s: fast\n",
                 "c.yaml:1: send_bytes_s: fast: not a size from 0KiB to 1048576MiB; write a number "
                 "and KiB, MiB, GiB or TiB, for example 64MiB");
    yaml_refused("log_level: loud\n",
                 "c.yaml:1: log_level: loud: no such level; write debug, info, warn or error");
}

TEST(config_yaml, suggests_the_nearest_key)
{
    yaml_refused("id: 1\nlog-level: info\n",
                 "c.yaml:2: log-level: no such key; did you mean log_level?");
    yaml_refused("peer: [1=h:1]\n", "c.yaml:1: peer: no such key; did you mean peers?");
    yaml_refused("limits:\n  conections: 1\n",
                 "c.yaml:2: conections: no such key; did you mean connections?");
    yaml_refused("frobnicate: 1\n", "c.yaml:1: frobnicate: no such key; bopd.conf(5) lists them");
}

TEST(config_yaml, tells_a_wrong_shape)
{
    yaml_refused("peers: 3\n", "c.yaml:1: peers: not a list of peers; write each as - ID=HOST:PORT "
                               "on a line of its own");
    yaml_refused("- a\n", "c.yaml: not a list of keys and values; write one setting a line, for "
                          "example id: 1");
    yaml_refused("hello\n", "c.yaml: not a list of keys and values; write one setting a line, for "
                            "example id: 1");
    yaml_refused("id: 1\nid: 2\n", "c.yaml:1: id: is there twice; drop one");
    yaml_refused("data: &x /a\ncluster: *x\n",
                 "c.yaml:2: cluster: aliases are not supported; write the value itself");
    yaml_refused("id: 1\n---\nid: 2\n", "c.yaml: has a second document after ---; drop it");
    yaml_refused("id: 1\n\tdata: x\n",
                 "c.yaml:2: not YAML: found a tab character that violates indentation");
}

/* A value of many lines does not make a message of many lines. */
TEST(config_yaml, answers_with_one_line)
{
    yaml_refused("log_level: |\n  a\n  b\n",
                 "c.yaml:1: log_level: a?b?: no such level; write debug, info, warn or error");
    yaml_refused("? |\n  a\n  b\n: 1\n", "c.yaml: a: no such key; bopd.conf(5) lists them");
}

/* Bytes that are no text. */
TEST(config_yaml, refuses_binary)
{
    static char large[CONFIG_FILE_MAX + 1];
    struct config config;
    struct bop_error err = {0};

    config_init(&config);
    CHECK_EQ(config_parse_yaml(bop_slice("id: 1\0\n", 7), "c.yaml", &config, &err), BOP_ECONFIG);
    CHECK_STR_EQ(err.message, "c.yaml: not a text: has NUL bytes");
    memset(large, '\n', sizeof(large));
    CHECK_EQ(config_parse_yaml(bop_slice(large, sizeof(large)), "c.yaml", &config, &err),
             BOP_ECONFIG);
    CHECK_STR_EQ(err.message, "c.yaml: larger than 1048576 bytes");
    CHECK_EQ(config_parse_yaml(bop_slice(large, sizeof(large)), "c.yaml", &config, NULL),
             BOP_ECONFIG);
}

/* ---- Both ---- */

static const char *write_file(const char *text)
{
    const char *path = test_path(NULL, "bopd.yaml");
    FILE *file = fopen(path, "w");

    REQUIRE(file);
    REQUIRE_EQ(fwrite(text, 1, strlen(text), file), strlen(text));
    REQUIRE_EQ(fclose(file), 0);
    return path;
}

/* Flags win over the file, wherever they stand; a list of peers replaces the file's. */
TEST(config, lets_flags_win)
{
    const char *path = write_file("id: 5\ndata: /file\nlog_level: warn\njoin: false\n"
                                  "peers:\n  - 5=h:5\n  - 6=h:6\n");
    struct config config;
    struct bop_error err;
    char line[512];

    snprintf(line, sizeof(line), "--data /flag --peer 5=i:5 --config %s --peer 7=i:7 --insecure",
             path);
    CHECK_EQ(parse(line, &config, &err), 0);
    CHECK_EQ(config.id, 5);
    CHECK_STR_EQ(config.data, "/flag");
    CHECK_EQ(config.log_level, BOP_LOG_WARN);
    CHECK_EQ(config.peer_count, 2);
    CHECK_EQ(config.peers[1].id, 7);
    CHECK_STR_EQ(config.listen.host, "i");
    CHECK_STR_EQ(err.message, "");
}

TEST(config, names_the_file_it_cannot_read)
{
    const char *path = write_file("id: 0\n");
    char line[512], message[512];

    refused("--config /nonexistent/x",
            "--config /nonexistent/x: cannot read it: No such file or directory");
    snprintf(line, sizeof(line), "--config %s --data d", path);
    snprintf(message, sizeof(message),
             "%s:1: id: 0: not a whole number from 1 to 18446744073709551615", path);
    refused(line, message);
}

TEST(config, checks_what_belongs_together)
{
    const char *path = write_file("id: 1\ndata: d\nelection_timeout_ms: 90\n");
    char line[512];

    snprintf(line, sizeof(line), "--config %s", path);
    refused(line, "heartbeat_ms: 50 is more than half of election_timeout_ms, 90; lower the one or "
                  "raise the other");
}

/* The example that is installed works as it is. */
TEST(config, reads_the_example)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse("--config " EXAMPLE_FILE, &config, &err), 0);
    CHECK_STR_EQ(err.message, "");
    CHECK_EQ(config.peer_count, 3);
    CHECK_EQ(config.id, 1);
}

TEST(config_address, is_formatted_as_it_is_parsed)
{
    struct config_address address = {.host = "::1", .port = 4700};
    char text[BOP_ADDRESS_MAX + 1];

    CHECK_STR_EQ(config_address_format(&address, text), "[::1]:4700");
    strcpy(address.host, "a.example");
    CHECK_STR_EQ(config_address_format(&address, text), "a.example:4700");
    memset(address.host, 'h', CONFIG_HOST_MAX);
    address.port = 65535;
    CHECK_EQ(strlen(config_address_format(&address, text)), CONFIG_HOST_MAX + 6);
}

/* ---- HTTP ---- */

TEST(config_http, is_served_where_it_is_said)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse("--id 1 --data d", &config, &err), 0);
    CHECK_STR_EQ(config.http.host, "");
    CHECK(!config.http_given);
    CHECK_EQ(parse("--id 1 --data d --http [::1]:8080", &config, &err), 0);
    CHECK_STR_EQ(config.http.host, "::1");
    CHECK_EQ(config.http.port, 8080);
    CHECK(config.http_given);
    CHECK_EQ(parse("--id 1 --data d --http 127.0.0.1:0", &config, &err), 0);
    CHECK_EQ(config.http.port, 0);
    CHECK_EQ(parse("--dev", &config, &err), 0);
    CHECK_STR_EQ(config.http.host, "127.0.0.1");
    CHECK_EQ(config.http.port, CONFIG_HTTP_PORT);
    CHECK(!config.http_given);
    CHECK_EQ(parse("--dev --http localhost:1", &config, &err), 0);
    CHECK_STR_EQ(config.http.host, "localhost");
    CHECK_EQ(config.http.port, 1);
}

TEST(config_http, is_read_from_the_file)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse_yaml("http: 127.0.0.1:8080\n", &config, &err), 0);
    CHECK_STR_EQ(config.http.host, "127.0.0.1");
    CHECK_EQ(config.http.port, 8080);
    CHECK(config.http_given);
    CHECK_EQ(parse_yaml("http:\n  port: 1\n", &config, &err), BOP_ECONFIG);
    CHECK_STR_HAS(err.message, "http");
    CHECK_EQ(parse_yaml("http: nowhere\n", &config, &err), BOP_ECONFIG);
    CHECK_STR_HAS(err.message, "HOST:PORT");
    CHECK_STR_HAS(err.message, "127.0.0.1:4780");
}

TEST(config_http, refuses_what_is_no_address)
{
    static const char *const values[] = {"8080", "h:", ":80", "h:65536", "h:-1", "::1:80"};
    struct config config;
    struct bop_error err;
    char line[128];

    for (size_t i = 0; i < BOP_COUNT_OF(values); i++) {
        snprintf(line, sizeof(line), "--id 1 --data d --http %s", values[i]);
        CHECK_EQ(parse(line, &config, &err), BOP_ECONFIG);
        CHECK_STR_HAS(err.message, "--http");
    }
}

/* The rule for the port of clients is the rule for this one. */
TEST(config_http, listens_elsewhere_with_tls_and_authentication_only)
{
    static const char line[] = "--id 1 --data d --http 0.0.0.0:80";
    char text[256];
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse(line, &config, &err), BOP_ECONFIG);
    CHECK_STR_HAS(err.message, "http 0.0.0.0:80: other machines can reach it");
    snprintf(text, sizeof(text), "%s --tls-certificate c --tls-key k", line);
    CHECK_EQ(parse(text, &config, &err), BOP_ECONFIG);
    snprintf(text, sizeof(text), "%s --tls-certificate c --tls-key k --tokens t", line);
    CHECK_EQ(parse(text, &config, &err), 0);
    snprintf(text, sizeof(text), "%s --insecure", line);
    CHECK_EQ(parse(text, &config, &err), 0);
}

/* ---- TLS, tokens, and who can reach us ---- */

TEST(config_security, is_read_from_the_file)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse_yaml("tls:\n"
                        "  certificate: /c\n"
                        "  key: /k\n"
                        "  ca: /a\n"
                        "  client_certificates: required\n"
                        "  node_name: n{id}.example.org\n"
                        "tokens: /t\n"
                        "insecure: true\n",
                        &config, &err),
             0);
    CHECK_STR_EQ(config.tls_certificate, "/c");
    CHECK_STR_EQ(config.tls_key, "/k");
    CHECK_STR_EQ(config.tls_ca, "/a");
    CHECK_EQ(config.client_certificates, BOP_NODE_CERTIFICATES_REQUIRED);
    CHECK_STR_EQ(config.tls_node_name, "n{id}.example.org");
    CHECK_STR_EQ(config.tokens, "/t");
    CHECK(config.insecure);
}

TEST(config_security, is_read_from_flags)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse("--id 1 --data d --tls-certificate c --tls-key k --tls-ca a "
                   "--tls-client-certificates optional --tokens t",
                   &config, &err),
             0);
    CHECK_STR_EQ(config.tls_certificate, "c");
    CHECK_STR_EQ(config.tls_key, "k");
    CHECK_STR_EQ(config.tls_ca, "a");
    CHECK_EQ(config.client_certificates, BOP_NODE_CERTIFICATES_OPTIONAL);
    CHECK_STR_EQ(config.tokens, "t");
    CHECK(!config.insecure);
    refused("--id 1 --data d --tls-client-certificates maybe",
            "--tls-client-certificates maybe: write none, optional or required");
}

TEST(config_security, wants_what_belongs_together)
{
    refused("--id 1 --data d --tls-key k",
            "tls: no certificate; add --tls-certificate FILE, or drop the rest");
    refused("--id 1 --data d --tls-certificate c",
            "tls: no key of the certificate; add --tls-key FILE");
    refused("--id 1 --data d --tls-certificate c --tls-key k --tls-client-certificates optional",
            "tls: no CA to know clients' certificates by; add --tls-ca FILE");
    refused("--id 1 --data d --tls-certificate c --tls-key k --peer 2=h:1",
            "tls: no CA for the nodes to know each other by; add --tls-ca FILE");
}

TEST(config_security, wants_the_nodes_number_in_their_names)
{
    struct config config;
    struct bop_error err;

    CHECK_EQ(parse_yaml("tls:\n  node_name: node.example.org\n", &config, &err), BOP_ECONFIG);
    CHECK_STR_HAS(err.message, "node_name: node.example.org: no {id} in it");
}

TEST(config_security, listens_on_loopback_with_nothing)
{
    static const char *const hosts[] = {"127.0.0.1", "127.8.9.10", "localhost", "[::1]",
                                        "[::ffff:127.0.0.1]"};
    struct config config;
    struct bop_error err;
    char line[128];

    for (size_t i = 0; i < BOP_COUNT_OF(hosts); i++) {
        snprintf(line, sizeof(line), "--id 1 --data d --listen %s:1", hosts[i]);
        CHECK_EQ(parse(line, &config, &err), 0);
    }
}

TEST(config_security, listens_elsewhere_with_tls_and_authentication_only)
{
    static const char *const hosts[] = {"0.0.0.0",          "10.0.0.1",          "128.0.0.1",
                                        "db.example",       "localhost.example", "[::]",
                                        "[::ffff:10.0.0.1]"};
    static const char tls[] = "--tls-certificate c --tls-key k --tls-ca a";
    struct config config;
    struct bop_error err;
    char line[256];

    for (size_t i = 0; i < BOP_COUNT_OF(hosts); i++) {
        snprintf(line, sizeof(line), "--id 1 --data d --listen %s:1", hosts[i]);
        CHECK_EQ(parse(line, &config, &err), BOP_ECONFIG);
        CHECK_STR_HAS(err.message, "there is no TLS and no authentication; add --tls-certificate, "
                                   "--tls-key and --tls-ca, and --tokens FILE");
        snprintf(line, sizeof(line), "--id 1 --data d --listen %s:1 --insecure", hosts[i]);
        CHECK_EQ(parse(line, &config, &err), 0);
        snprintf(line, sizeof(line), "--id 1 --data d --listen %s:1 --tokens t", hosts[i]);
        CHECK_EQ(parse(line, &config, &err), BOP_ECONFIG);
        CHECK_STR_HAS(err.message, "there is no TLS; add --tls-certificate, --tls-key and "
                                   "--tls-ca, or --insecure");
        snprintf(line, sizeof(line), "--id 1 --data d --listen %s:1 %s", hosts[i], tls);
        CHECK_EQ(parse(line, &config, &err), BOP_ECONFIG);
        CHECK_STR_HAS(err.message, "there is no authentication; add --tokens FILE");
        snprintf(line, sizeof(line), "--id 1 --data d --listen %s:1 %s --tokens t", hosts[i], tls);
        CHECK_EQ(parse(line, &config, &err), 0);
        snprintf(line, sizeof(line),
                 "--id 1 --data d --listen %s:1 %s --tls-client-certificates required", hosts[i],
                 tls);
        CHECK_EQ(parse(line, &config, &err), 0);
        snprintf(line, sizeof(line),
                 "--id 1 --data d --listen %s:1 %s --tls-client-certificates optional", hosts[i],
                 tls);
        CHECK_EQ(parse(line, &config, &err), BOP_ECONFIG);
    }
    /* Of a development node it is true as well. */
    CHECK_EQ(parse("--dev --listen 0.0.0.0:1", &config, &err), BOP_ECONFIG);
}
