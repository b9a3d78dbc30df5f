/*
 * LMDB's errors as ours, and the cause of the last failure, which is kept for
 * each thread: a code of ours stands for several of LMDB's.
 */
#include <stdio.h>

#include "kv.h"

static _Thread_local struct {
    int code;         /* LMDB's or a positive errno; 0: none of LMDB's. */
    const char *text; /* NULL: LMDB has the words. */
} cause;

static int code_of(int lmdb_code)
{
    switch (lmdb_code) {
    case MDB_NOTFOUND:
        return BOP_ENOTFOUND;
    case MDB_PAGE_NOTFOUND:
    case MDB_CORRUPTED:
    case MDB_INVALID:
    case MDB_CURSOR_FULL:
    case MDB_PAGE_FULL:
        return BOP_ECORRUPT;
    case MDB_VERSION_MISMATCH:
        return BOP_EVERSION;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return BOP_ENOROOM;
    case MDB_DBS_FULL:
        return BOP_EFULL;
    case MDB_READERS_FULL:
    case MDB_TLS_FULL:
        return BOP_EBUSY;
    case MDB_TXN_FULL:
        return BOP_ETOOBIG;
    case MDB_PANIC:
    case MDB_BAD_TXN:
    case MDB_MAP_RESIZED:
    case MDB_BAD_RSLOT:
        return BOP_EFAILED;
    case MDB_KEYEXIST: /* Of an append out of order. */
    case MDB_INCOMPATIBLE:
    case MDB_BAD_VALSIZE:
    case MDB_BAD_DBI:
        return BOP_EINVAL;
    default:
        return lmdb_code > 0 ? -lmdb_code : BOP_EFAILED;
    }
}

int bop__kv_code(int lmdb_code)
{
    if (BOP_LIKELY(lmdb_code == MDB_SUCCESS)) {
        return 0;
    }
    cause.code = lmdb_code;
    cause.text = NULL;
    return code_of(lmdb_code);
}

int bop__kv_refuse(int rc, const char *text)
{
    cause.code = 0;
    cause.text = text;
    return rc;
}

int bop_kv_cause(void)
{
    return cause.code;
}

const char *bop_kv_cause_text(void)
{
    if (cause.text) {
        return cause.text;
    }
    /* LMDB leaves an errno to the C library, whose words may not be safe between threads. */
    return cause.code > 0 ? bop_strerror(-cause.code) : mdb_strerror(cause.code);
}

int bop__kv_error(struct bop_error *err, int rc, const char *what)
{
    return bop_error_say(err, rc, "%s: %s (%s%s)", what, bop_strerror(rc),
                         cause.text ? "" : "LMDB: ", bop_kv_cause_text());
}
