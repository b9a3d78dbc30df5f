/*
 * Groups: what connections have in common, and what all of a loop share.
 */
#include "conn.h"

/* For what is larger the memory of a message is given back. */
#define WHOLE_MESSAGE_DEFAULT ((size_t)16 << 20)

static uint64_t or_default(uint64_t value, uint64_t fallback)
{
    return value != 0 ? value : fallback;
}

static struct bop_ws_options with_defaults(const struct bop_ws_options *options)
{
    struct bop_ws_options full = *options;

    full.message_bytes_max = or_default(full.message_bytes_max,
                                        full.on_part != NULL ? SIZE_MAX : WHOLE_MESSAGE_DEFAULT);
    full.pressure_high = or_default(full.pressure_high, 64u << 10);
    full.pressure_max = or_default(full.pressure_max, 1u << 20);
    full.idle_timeout_ms = or_default(full.idle_timeout_ms, 120000);
    if (full.ping_interval_ms == 0) {
        full.ping_interval_ms = full.idle_timeout_ms == UINT64_MAX ? UINT64_MAX
                                                                   : full.idle_timeout_ms / 2;
        full.ping_interval_ms = bop_max_u64(full.ping_interval_ms, 1);
    }
    full.lifetime_ms = or_default(full.lifetime_ms, UINT64_MAX);
    full.close_timeout_ms = or_default(full.close_timeout_ms, 5000);
    full.deflate_window_bits = (unsigned)or_default(full.deflate_window_bits, 15);
    full.deflate_level = (unsigned)or_default(full.deflate_level, 6);
    full.deflate_threshold = or_default(full.deflate_threshold, 512);
    return full;
}

static bool are_good(const struct bop_ws_options *options)
{
    return (options->on_message != NULL) != (options->on_part != NULL) &&
           (unsigned)options->compression <= BOP_WS_COMPRESS_TAKEOVER &&
           (unsigned)options->slow <= BOP_WS_SLOW_CLOSE &&
           (options->deflate_window_bits == 0 ||
            (options->deflate_window_bits >= 9 && options->deflate_window_bits <= 15)) &&
           options->deflate_level <= 9 && (options->counters == NULL || options->metrics == NULL);
}

/* ---- What a loop's share ---- */

static struct bop__ws_home *home_of(struct bop_loop *loop)
{
    struct bop__ws_home *home = loop->ws;

    if (home == NULL) {
        home = (struct bop__ws_home *)bop_alloc_zeroed(loop->allocator, sizeof(*home));
        if (home == NULL) {
            return NULL;
        }
        home->loop = loop;
        bop_list_init(&home->groups);
        bop_buf_init(&home->inflated, loop->allocator, 0);
        bop_buf_init(&home->deflated, loop->allocator, 0);
        loop->ws = home;
    }
    home->references++;
    return home;
}

static void release_home(struct bop__ws_home *home)
{
    if (--home->references > 0) {
        return;
    }
    home->loop->ws = NULL;
    bop__ws_free_spares(home);
    bop_buf_deinit(&home->inflated);
    bop_buf_deinit(&home->deflated);
    bop_free(home->loop->allocator, home, sizeof(*home));
}

/* ---- Groups ---- */

int bop__ws_group_create(struct bop_loop *loop, const struct bop_ws_options *options, bool client,
                         struct bop__ws_group **out_group)
{
    struct bop__ws_group *group;
    int rc;

    if (!are_good(options)) {
        return BOP_EINVAL;
    }
    group = (struct bop__ws_group *)bop_alloc_zeroed(loop->allocator, sizeof(*group));
    if (group == NULL) {
        return BOP_ENOMEM;
    }
    group->home = home_of(loop);
    if (group->home == NULL) {
        bop_free(loop->allocator, group, sizeof(*group));
        return BOP_ENOMEM;
    }
    group->references = 1;
    group->given = options;
    group->options = with_defaults(options);
    group->short_queue_max = bop_min_u64(group->options.pressure_high, group->options.pressure_max);
    group->counters = options->counters != NULL ? options->counters : &group->own;
    group->client = client;
    bop_list_push_back(&group->home->groups, &group->link);
    bop__ws_wheel_init(group);
    rc = bop__ws_group_export(group);
    if (rc == 0 && options->topics != NULL) {
        rc = bop__branch_join(options->topics, loop, &group->branch);
    }
    if (rc != 0) {
        bop__ws_group_release(group);
        return rc;
    }
    *out_group = group;
    return 0;
}

void bop__ws_group_release(struct bop__ws_group *group)
{
    struct bop__ws_home *home = group->home;

    if (--group->references > 0) {
        return;
    }
    bop_list_remove(&group->link);
    bop_timer_stop(home->loop, &group->tick);
    bop__ws_group_unexport(group);
    if (group->branch != NULL) {
        bop__branch_leave(group->branch);
    }
    if (group->zip != NULL) {
        bop_ws_zip_destroy(group->zip);
    }
    bop_free(home->loop->allocator, group, sizeof(*group));
    release_home(home);
}

struct bop_ws_zip *bop__ws_zip(struct bop__ws_group *group)
{
    struct bop_ws_zip_options options = {.allocator = group->home->loop->allocator,
                                         .level = (int)group->options.deflate_level};

    if (group->zip == NULL && bop_ws_zip_create(&options, &group->zip) != 0) {
        group->zip = NULL;
    }
    return group->zip;
}

int bop__ws_client_group(struct bop_loop *loop, const struct bop_ws_options *options,
                         struct bop__ws_group **out_group)
{
    if (loop->ws != NULL) {
        BOP_LIST_FOR_EACH(link, &loop->ws->groups) {
            struct bop__ws_group *group = BOP_CONTAINER_OF(link, struct bop__ws_group, link);

            if (group->client && group->given == options) {
                group->references++;
                *out_group = group;
                return 0;
            }
        }
    }
    return bop__ws_group_create(loop, options, true, out_group);
}
