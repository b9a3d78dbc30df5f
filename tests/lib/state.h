/*
 * What the files of the harness share.
 */
#ifndef BOP_TESTS_STATE_H
#define BOP_TESTS_STATE_H

#include <bop/base.h>

/** Failed checks of the running test. Any thread. */
unsigned test__failures(void);

/** The round of the fault sweep under way, 0 for none: failures name it. */
void test__set_round(uint64_t round);

/** Remove all directories of test_tmpdir() that this process made. */
void test__remove_tmpdirs(void);

#endif
