/*
 * The connections. A slot is an easy handle with a multi handle of its own,
 * which keeps the connection open between requests, and whose poll can be woken
 * from another thread: so cancel does not wait for a timeout.
 *
 * The lowest free slot is taken, so that little work uses few connections, which stay open.
 */
#include "s3.h"

#include <time.h>

#include <bop/clock.h>

#define POLL_MS_MAX 1000 /* Also the longest that a wake-up missed by a hair can cost. */

static int slot_open(struct s3_slot *slot)
{
    slot->easy = slot->easy ? slot->easy : curl_easy_init();
    slot->multi = slot->multi ? slot->multi : curl_multi_init();
    return slot->easy && slot->multi ? 0 : BOP_ENOMEM;
}

static struct s3_slot *free_slot(struct s3 *s3)
{
    for (unsigned i = 0; i < s3->connections_max; i++) {
        if (!s3->slots[i].busy) {
            return &s3->slots[i];
        }
    }
    return NULL;
}

int bop__s3_acquire(struct s3 *s3, struct s3_slot **out_slot)
{
    struct s3_slot *slot = NULL;
    int rc = 0;

    pthread_mutex_lock(&s3->lock);
    while (!bop__s3_canceled(s3) && !(slot = free_slot(s3))) {
        pthread_cond_wait(&s3->changed, &s3->lock);
    }
    if (slot) {
        rc = slot_open(slot);
        slot->busy = rc == 0;
    } else {
        rc = BOP_ECANCELED;
    }
    pthread_mutex_unlock(&s3->lock);
    if (rc == 0) {
        *out_slot = slot;
    }
    return rc;
}

void bop__s3_release(struct s3 *s3, struct s3_slot *slot)
{
    /* Keys and tokens do not stay in the handle; its connection does. */
    curl_easy_reset(slot->easy);
    pthread_mutex_lock(&s3->lock);
    slot->busy = false;
    pthread_cond_broadcast(&s3->changed); /* Those that pause wait on it too. */
    pthread_mutex_unlock(&s3->lock);
}

int bop__s3_pause(struct s3 *s3, uint64_t pause_ms)
{
    struct timespec until;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(pause_ms / 1000);
    until.tv_nsec += (long)(pause_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&s3->lock);
    while (!bop__s3_canceled(s3) && rc == 0) {
        rc = pthread_cond_timedwait(&s3->changed, &s3->lock, &until);
    }
    pthread_mutex_unlock(&s3->lock);
    return bop__s3_canceled(s3) ? BOP_ECANCELED : 0;
}

/* True once the request has begun to go out: until then the connect timeout counts. */
static bool connected(struct s3_slot *slot)
{
    curl_off_t time_us = 0;

    return curl_easy_getinfo(slot->easy, CURLINFO_PRETRANSFER_TIME_T, &time_us) == CURLE_OK &&
           time_us > 0;
}

static CURLcode result_of(struct s3_slot *slot)
{
    struct CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(slot->multi, &left)) != NULL) {
        if (message->msg == CURLMSG_DONE && message->easy_handle == slot->easy) {
            return message->data.result;
        }
    }
    return CURLE_FAILED_INIT;
}

CURLcode bop__s3_perform(struct s3 *s3, struct s3_slot *slot, struct s3_transfer *transfer)
{
    struct bop_clock *clock = bop_clock_system();
    uint64_t since_ms = bop_clock_monotonic_ms(clock);
    uint64_t moved = transfer->moved;
    CURLcode result = CURLE_ABORTED_BY_CALLBACK;
    int running = 1;

    if (curl_multi_add_handle(slot->multi, slot->easy) != CURLM_OK) {
        return CURLE_OUT_OF_MEMORY;
    }
    while (true) {
        uint64_t now_ms, left_ms;

        if (curl_multi_perform(slot->multi, &running) != CURLM_OK) {
            result = CURLE_OUT_OF_MEMORY;
            break;
        }
        if (running == 0) {
            result = result_of(slot);
            break;
        }
        if (bop__s3_canceled(s3)) {
            transfer->code = BOP_ECANCELED;
            break;
        }
        now_ms = bop_clock_monotonic_ms(clock);
        if (transfer->moved != moved || !connected(slot)) {
            moved = transfer->moved;
            since_ms = now_ms;
        }
        if (now_ms - since_ms >= s3->stall_timeout_ms) {
            transfer->code = BOP_ETIMEOUT;
            break;
        }
        left_ms = s3->stall_timeout_ms - (now_ms - since_ms);
        curl_multi_poll(slot->multi, NULL, 0, (int)bop_min_u64(left_ms, POLL_MS_MAX), NULL);
    }
    curl_multi_remove_handle(slot->multi, slot->easy);
    return result;
}

void bop__s3_pool_wake(struct s3 *s3)
{
    pthread_mutex_lock(&s3->lock);
    for (unsigned i = 0; i < s3->connections_max; i++) {
        if (s3->slots[i].multi) {
            curl_multi_wakeup(s3->slots[i].multi);
        }
    }
    pthread_cond_broadcast(&s3->changed);
    pthread_mutex_unlock(&s3->lock);
}

void bop__s3_pool_destroy(struct s3 *s3)
{
    for (unsigned i = 0; s3->slots && i < s3->connections_max; i++) {
        BOP_ASSERT(!s3->slots[i].busy);
        curl_easy_cleanup(s3->slots[i].easy);
        curl_multi_cleanup(s3->slots[i].multi);
    }
}
