/*
 * Crash-testing code that keeps data in files: a store of one value, done twice, once in the
 * wrong way. Each is stopped at every I/O call, by a kill and by a power loss, and what is
 * left is compared with what it had acknowledged.
 *
 *     crash_test
 */
#include <inttypes.h>
#include <stdio.h>

#include <bop/sim.h>

#define PUTS 4

struct store {
    bool careful;
    uint64_t begun;        /* The last value that a put began with. */
    uint64_t acknowledged; /* The last one whose put returned 0. */
};

/* Replace the value: beside the old one, synced, and renamed. */
static int put(struct store *store, struct bop_fs *fs, uint64_t value)
{
    int fd, rc;

    if (store->careful) {
        return bop_fs_write_file(fs, "/value", bop_slice(&value, sizeof(value)), NULL);
    }
    fd = fs->open(fs, "/value.tmp", O_RDWR | O_CREAT);
    if (fd < 0) {
        return fd;
    }
    rc = bop_fs_write_all(fs, fd, &value, sizeof(value), 0);
    fs->close(fs, fd);
    if (rc == 0) {
        rc = fs->rename(fs, "/value.tmp", "/value"); /* Of bytes that nobody has synced. */
    }
    return rc == 0 ? fs->sync_dir(fs, "/") : rc;
}

/* Use the store until all is done or a call fails. */
static bool run(void *user, struct bop_fs *fs, uint64_t seed)
{
    struct store *store = user;

    store->begun = store->acknowledged = 0;
    for (uint64_t value = 1; value <= PUTS; value++) {
        store->begun = value;
        if (put(store, fs, value) < 0) {
            return false;
        }
        store->acknowledged = value;
    }
    return true;
}

/* What was acknowledged must be there; what was begun may be. */
static int check(void *user, struct bop_fs *fs, struct bop_error *err)
{
    const struct store *store = user;
    struct bop_buf buf;
    uint64_t value = 0;
    int rc;

    bop_buf_init(&buf, NULL, 0);
    rc = bop_fs_read_file(fs, "/value", sizeof(value), &buf);
    if (rc == 0 && buf.size == sizeof(value)) {
        value = bop_load_u64(buf.data);
    } else if (rc == 0) {
        rc = bop_error_set(err, BOP_ECORRUPT, "the file has %zu bytes", buf.size);
    } else if (rc == -ENOENT) {
        rc = 0;
    }
    if (rc == 0 && (value < store->acknowledged || value > store->begun)) {
        rc = bop_error_set(err, BOP_ECORRUPT,
                           "value %" PRIu64 ", though %" PRIu64 " was acknowledged", value,
                           store->acknowledged);
    }
    bop_buf_deinit(&buf);
    return rc;
}

static int crash(bool careful)
{
    struct store store = {.careful = careful};
    struct bop_sim_crash crash = {.run = run, .check = check, .user = &store, .seeds = 50};
    struct bop_sim_crashed crashed;
    struct bop_error err;
    int rc = bop_sim_crash_sweep(&crash, &crashed, &err);

    printf("%s: %" PRIu64 " crashes, %s\n", careful ? "careful" : "careless", crashed.crashes,
           rc == 0 ? "nothing lost" : err.message);
    return rc;
}

int main(void)
{
    bool careless_found = crash(false) != 0;

    return crash(true) == 0 && careless_found ? 0 : 1;
}
