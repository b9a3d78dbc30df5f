/*
 * The profile as pprof reads it: gperftools' text format for heaps.
 *
 *      heap profile: <live>: <bytes> [<total>: <bytes>] @ heap_v2/<sample_bytes>
 *      <live>: <bytes> [<total>: <bytes>] @ <address> <address> ...
 *      ...
 *
 *      MAPPED_LIBRARIES:
 *      <what /proc/self/maps says>
 *
 * The figures are those of the samples; who reads "heap_v2" scales them up by
 * the chance that a block of the stack's mean size had to be sampled. The
 * addresses are return addresses, and what maps them to symbols are the
 * mappings. The format knows no tags: the same stack of two tags is two lines,
 * which readers add up.
 */
#include <bop/heap_profile.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#include "sample.h"

#define COPY_BYTES 4096

static void write_figures(FILE *out, const struct bop__sample_stack *stack)
{
    fprintf(out, "%" PRIu64 ": %" PRIu64 " [%" PRIu64 ": %" PRIu64 "] @", stack->live_count,
            stack->live_bytes, stack->total_count, stack->total_bytes);
}

static void write_stacks(FILE *out, const struct bop__sample_snapshot *snapshot)
{
    struct bop__sample_stack sum = {.depth = 0};

    for (size_t i = 0; i < snapshot->count; i++) {
        sum.live_count += snapshot->stacks[i].live_count;
        sum.live_bytes += snapshot->stacks[i].live_bytes;
        sum.total_count += snapshot->stacks[i].total_count;
        sum.total_bytes += snapshot->stacks[i].total_bytes;
    }
    fprintf(out, "heap profile: ");
    write_figures(out, &sum);
    fprintf(out, " heap_v2/%zu\n", snapshot->sample_bytes ? snapshot->sample_bytes : 1);
    for (size_t i = 0; i < snapshot->count; i++) {
        write_figures(out, &snapshot->stacks[i]);
        for (uint32_t frame = 0; frame < snapshot->stacks[i].depth; frame++) {
            fprintf(out, " 0x%" PRIxPTR, snapshot->stacks[i].frames[frame]);
        }
        fputc('\n', out);
    }
}

static int write_mappings(FILE *out)
{
    char part[COPY_BYTES];
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    ssize_t got;

    if (fd < 0) {
        return -errno;
    }
    fprintf(out, "\nMAPPED_LIBRARIES:\n");
    while ((got = read(fd, part, sizeof(part))) != 0) {
        if (got < 0) {
            int rc = -errno;

            close(fd);
            return rc;
        }
        fwrite(part, 1, (size_t)got, out);
    }
    close(fd);
    return 0;
}

int bop_heap_profile_write(FILE *out)
{
    struct bop__sample_snapshot snapshot;
    int rc = bop__sample_snapshot(&snapshot);

    if (rc < 0) {
        return rc;
    }
    errno = 0;
    write_stacks(out, &snapshot);
    bop__sample_snapshot_deinit(&snapshot);
    rc = write_mappings(out);
    if (rc < 0) {
        return rc;
    }
    if (fflush(out) != 0 || ferror(out)) {
        return errno != 0 ? -errno : -EIO;
    }
    return 0;
}
