/* End the log of a node that is down early, as a repair after damage does. */
#ifndef BOP_TESTS_CUT_LOG_H
#define BOP_TESTS_CUT_LOG_H

#include <bop/aof.h>
#include <bop/executor.h>

/** Drop all records above last_kept; BOP_EINVAL if it has none. Returns 0 or the code of what
 * failed. */
BOP_UNUSED static int cut_log(struct bop_fs *fs, const char *path, size_t segment_bytes,
                              uint64_t last_kept)
{
    struct bop_inline_executor executor;
    struct bop_aof_options options = {.fs = fs,
                                      .executor = &executor.executor,
                                      .path = path,
                                      .segment_bytes = segment_bytes,
                                      .no_footers = true};
    struct bop_aof_recovery recovery;
    struct bop_error err = {0};
    struct bop_aof *aof = NULL;
    int rc;

    bop_inline_init(&executor);
    rc = bop_aof_open(&options, &aof, &recovery, &err);
    if (rc < 0) {
        return rc;
    }
    rc = last_kept < bop_aof_last(aof) ? bop_aof_truncate_back(aof, last_kept) : BOP_EINVAL;
    while (bop_aof_busy(aof)) {
        bop_inline_poll(&executor);
    }
    bop_aof_close(aof);
    return rc;
}

#endif
