#include "openssl_faults.h"

#include <bop/base.h>
#include <openssl/crypto.h>
#include <stdlib.h>

static unsigned long fail_at; /* 0: none, nothing is counted. */
static unsigned long count;

static bool is_to_fail(void)
{
    return fail_at != 0 && ++count == fail_at;
}

static void *fail_malloc(size_t size, BOP_UNUSED const char *file, BOP_UNUSED int line)
{
    return is_to_fail() ? NULL : malloc(size);
}

static void *fail_realloc(void *memory, size_t size, BOP_UNUSED const char *file,
                          BOP_UNUSED int line)
{
    return is_to_fail() ? NULL : realloc(memory, size);
}

static void fail_free(void *memory, BOP_UNUSED const char *file, BOP_UNUSED int line)
{
    free(memory);
}

/* OpenSSL takes them only before it has allocated anything. */
__attribute__((constructor)) static void take_over(void)
{
    if (CRYPTO_set_mem_functions(fail_malloc, fail_realloc, fail_free) != 1) {
        abort();
    }
}

void openssl_fail_at(unsigned long at)
{
    count = 0;
    fail_at = at;
}

bool openssl_failed(void)
{
    bool failed = count >= fail_at;

    fail_at = 0;
    return failed;
}
