/*
 * Allocations of OpenSSL, one of which can be made to fail. A program that links
 * this has all of them go through malloc().
 */
#ifndef BOP_TESTS_NET_TLS_OPENSSL_FAULTS_H
#define BOP_TESTS_NET_TLS_OPENSSL_FAULTS_H

#include <stdbool.h>

/** From now on the at-th allocation fails, counted from 1. One thread. */
void openssl_fail_at(unsigned long at);
/** No more fails. Returns whether one did. */
bool openssl_failed(void);

#endif
