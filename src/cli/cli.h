/*
 * What the files of `bop` share: the command line as it was understood, the
 * commands, exit codes, and how failures are told.
 *
 * A command is a function that gets the parsed arguments and returns an exit
 * code. What it was asked for goes to standard output, all else to standard
 * error. A failure is one line that names the thing and the way out.
 */
#ifndef BOP_CLI_CLI_H
#define BOP_CLI_CLI_H

#include <stdio.h>

#include <bop/client.h>

#define CLI_PORT              "4700" /* Of an address that names none. */
#define CLI_VALUES_MAX        4      /* Arguments of a command. */
#define CLI_PEERS_MAX         15
#define CLI_TIMEOUT_MS        10000
#define CLI_GRACE_MS          2000 /* Of what is there as long as bop is. */
#define CLI_IMPORT_TIMEOUT_MS 30000
#define CLI_TIMEOUT_MAX_S     86400
#define CLI_DEMO_ENTRIES      100000
#define CLI_DEMO_ENTRIES_MAX  5000000

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NOT_FOUND = 3,
    CLI_CONDITION = 4,
    CLI_INTERRUPTED = 130, /* As shells say it of a program that SIGINT ended. */
};

/** What the group `aof` exits with, which differs: its tools are called by scripts that watch logs.
 */
enum cli_aof_exit {
    CLI_AOF_USAGE = 1,
    CLI_AOF_NOT_FOUND = 2, /* No such log, segment or record. */
    CLI_AOF_DENIED = 3,    /* The object store refuses credentials, certificate or address. */
    CLI_AOF_FAILED = 4,    /* Damage was found, or a file or the network failed. */
};

struct cli_command;

struct cli_address {
    char text[BOP_ADDRESS_MAX + 1];
};

/** What the commands of the group `aof` are given beside their arguments. */
struct cli_aof_args {
    uint64_t from; /* Records; 0: not given. */
    uint64_t to;
    const char *from_text; /* As given: of maps a key. */
    const char *to_text;
    uint64_t segment; /* A generation; 0: not given. */
    uint64_t rate;    /* Bytes a second; 0: no limit. */
    uint64_t size;    /* Of a record; 0: the default. */
    uint64_t batch;
    uint64_t segment_bytes;
    unsigned tier; /* 1 above the tier's number; 0: not given. */
    const char *endpoint;
    const char *bucket;
    const char *region;
    const char *prefix;
    const char *ca;
    const char *name;
    bool records;
    bool packed;
    bool objects;
    bool raw;
    bool skip_damage;
    bool renumber;
    bool resume;
    bool dry_run;
    bool force;
    bool repair;
    bool events;
};

/** Whom to trust and what to show; each NULL or false if not given. */
struct cli_trust {
    bool tls;
    const char *ca;
    const char *certificate;
    const char *key;
    const char *server_name;
    const char *token_file;
};

/** The command line. Texts are borrowed from argv. */
struct cli_args {
    const struct cli_command *command; /* NULL: none was given. */
    const char *group;                 /* Of `bop map --help`; else NULL. */
    const char *values[CLI_VALUES_MAX];
    size_t value_count;
    struct cli_address servers[BOP_CLIENT_ENDPOINTS_MAX];
    size_t server_count;
    bool servers_given; /* By --server, not by the environment or the default. */
    const char *cluster;
    uint64_t timeout_ms; /* 0: the command's default. */
    bool json;
    bool help;
    bool version;
    struct bop_client_if only_if;
    bool stale;
    bool keys;
    bool voter;
    bool dpkg;
    uint64_t limit; /* 0: none. */
    const char *bopd;
    const char *dir;
    uint64_t entries;
    bool keep;
    bool no_color;
    bool compact;
    const char *table;
    struct cli_aof_args aof;
    struct cli_trust trust;
    bool shared; /* Of locks, as the next three. */
    uint64_t permits;
    uint64_t capacity;
    const char *label;
    const char *info; /* Of a member. */
    const char *data; /* Of restore, as the next three. */
    uint64_t id;
    const char *peers[CLI_PEERS_MAX]; /* "ID=HOST:PORT". */
    size_t peer_count;
    uint64_t ttl_ms; /* 0: for good. */
    bool with_ttl;
    bool settle;   /* Wait until all who watch have heard. */
    bool previous; /* Of watches, as the next four. */
    bool snapshot;
    uint64_t revision;
    const char *first;
    const char *below;
    char *const *rest; /* What stands behind "--", NULL at its end; NULL: there is none. */
};

/** A set of enum cli_flag, a bit each. */
__extension__ typedef unsigned __int128 cli_flag_set;

struct cli_command {
    const char *group;    /* "map", or NULL. */
    const char *name;     /* Of one word or two. */
    const char *synopsis; /* What follows the name. */
    const char *summary;
    const char *help;
    unsigned values_min;
    unsigned values_max;
    cli_flag_set flags; /* Those that are its own. */
    bool rest;          /* What stands behind "--" are no arguments but another command. */
    int (*run)(const struct cli_args *args);
};

/** Say why something failed, in one line that begins with "bop: ". Returns exit_code. */
int cli_complain(int exit_code, const char *format, ...) BOP_PRINTF(2, 3);

/** As cli_complain(CLI_FAILED, ...) with the message of err. */
int cli_complain_error(const struct bop_error *err);

/** The exit code that says the same as an error code of a request. */
int cli_exit_code(int code);

/** Flush standard output. Returns exit_code, or CLI_FAILED with a line if it could not be written.
 */
int cli_finish_output(int exit_code);

int cmd_map_put(const struct cli_args *args);
int cmd_map_get(const struct cli_args *args);
int cmd_map_del(const struct cli_args *args);
int cmd_map_scan(const struct cli_args *args);
int cmd_map_size(const struct cli_args *args);
int cmd_map_import(const struct cli_args *args);
int cmd_map_export(const struct cli_args *args);
int cmd_map_clear(const struct cli_args *args);
int cmd_set_add(const struct cli_args *args);
int cmd_set_remove(const struct cli_args *args);
int cmd_set_contains(const struct cli_args *args);
int cmd_set_size(const struct cli_args *args);
int cmd_set_scan(const struct cli_args *args);
int cmd_set_clear(const struct cli_args *args);
int cmd_set_import(const struct cli_args *args);
int cmd_set_export(const struct cli_args *args);
int cmd_multimap_put(const struct cli_args *args);
int cmd_multimap_get(const struct cli_args *args);
int cmd_multimap_remove(const struct cli_args *args);
int cmd_multimap_contains(const struct cli_args *args);
int cmd_multimap_size(const struct cli_args *args);
int cmd_multimap_scan(const struct cli_args *args);
int cmd_multimap_clear(const struct cli_args *args);
int cmd_multimap_import(const struct cli_args *args);
int cmd_multimap_export(const struct cli_args *args);
int cmd_member_list(const struct cli_args *args);
int cmd_member_join(const struct cli_args *args);
int cmd_registration_list(const struct cli_args *args);
int cmd_registration_get(const struct cli_args *args);
int cmd_registration_add(const struct cli_args *args);
int cmd_names(const struct cli_args *args);
int cmd_txn(const struct cli_args *args);
int cmd_counter_add(const struct cli_args *args);
int cmd_counter_get(const struct cli_args *args);
int cmd_counter_cas(const struct cli_args *args);
int cmd_counter_set(const struct cli_args *args);
int cmd_counter_delete(const struct cli_args *args);
int cmd_counter_export(const struct cli_args *args);
int cmd_counter_import(const struct cli_args *args);
int cmd_lock(const struct cli_args *args);
int cmd_lock_list(const struct cli_args *args);
int cmd_lock_release(const struct cli_args *args);
int cmd_backup(const struct cli_args *args);
int cmd_backup_check(const struct cli_args *args);
int cmd_restore(const struct cli_args *args);
int cmd_watch(const struct cli_args *args);
int cmd_kv_check(const struct cli_args *args);
int cmd_kv_stat(const struct cli_args *args);
int cmd_kv_dump(const struct cli_args *args);
int cmd_kv_load(const struct cli_args *args);
int cmd_kv_copy(const struct cli_args *args);
int cmd_aof_inspect(const struct cli_args *args);
int cmd_aof_dump(const struct cli_args *args);
int cmd_aof_segments_list(const struct cli_args *args);
int cmd_aof_segments_delete(const struct cli_args *args);
int cmd_aof_manifest_check(const struct cli_args *args);
int cmd_aof_verify(const struct cli_args *args);
int cmd_aof_scrub(const struct cli_args *args);
int cmd_aof_repair(const struct cli_args *args);
int cmd_aof_export(const struct cli_args *args);
int cmd_aof_import(const struct cli_args *args);
int cmd_aof_seal(const struct cli_args *args);
int cmd_aof_flush(const struct cli_args *args);
int cmd_aof_hydrate(const struct cli_args *args);
int cmd_aof_restore(const struct cli_args *args);
int cmd_aof_bench(const struct cli_args *args);
int cmd_token_new(const struct cli_args *args);
int cmd_status(const struct cli_args *args);
int cmd_demo(const struct cli_args *args);
int cmd_help(const struct cli_args *args);

#endif
