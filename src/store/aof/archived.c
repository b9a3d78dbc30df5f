/*
 * A log and its archive: what lies in lower tiers, and when a segment may leave the directory.
 */
#include "internal.h"

#include <inttypes.h>

/* ---- What the archive asks ---- */

/* Only from the oldest on: what is missing in the directory is then what the archive has. */
static bool release(void *user, uint64_t generation)
{
    struct bop_aof *aof = user;
    struct bop__segment *oldest = aof->segments[0];

    if (aof->segment_count < 2 || oldest->generation != generation ||
        oldest->state != BOP__SEGMENT_NAMED || !oldest->sealed || aof->failed != 0 ||
        aof->poison != 0 || oldest == aof->writing || aof->beginning ||
        oldest->end_seq - 1 > aof->durable.seq) {
        return false;
    }
    bop__cursors_forget(aof, oldest);
    bop_list_remove(&oldest->seal_link);
    oldest->left = true;
    memmove(aof->segments, aof->segments + 1, (aof->segment_count - 1) * sizeof(*aof->segments));
    aof->segment_count--;
    bop__aof_catalogue_drop(&aof->catalogue, oldest->file);
    bop_list_push_back(&aof->removals, &oldest->link);
    bop__aof_update_metrics(aof);
    bop__jobs_start(aof);
    return true;
}

static void tier2(void *user, uint64_t seq)
{
    struct bop_aof *aof = user;

    aof->tier2 = bop_max_u64(aof->tier2, seq);
    bop__after(aof);
}

static void hydrated(void *user)
{
    struct bop_aof *aof = user;

    bop__aof_catalogue_hydrated(&aof->catalogue);
    if (aof->refused & 1u << BOP_AOF_REFUSED_HYDRATION) {
        aof->refused &= ~(1u << BOP_AOF_REFUSED_HYDRATION);
        if (aof->options.on_room) {
            aof->options.on_room(aof->options.user, BOP_AOF_REFUSED_HYDRATION);
        }
    }
}

static void room(void *user)
{
    bop__after(user);
}

static void oldest_moved(void *user, uint64_t seq)
{
    struct bop_aof *aof = user;

    aof->oldest = bop_max_u64(aof->oldest, seq);
    bop__aof_catalogue_oldest(&aof->catalogue, aof->oldest);
}

static void again(void *user)
{
    bop__archived_tell(user);
}

static const struct bop__archive_calls calls = {
    .release = release,
    .tier2 = tier2,
    .hydrated = hydrated,
    .room = room,
    .again = again,
    .oldest = oldest_moved,
};

/* ---- Life ---- */

int bop__archived_open(struct bop_aof *aof, struct bop_error *err)
{
    static const char digits[] = "0123456789abcdef";
    char name[BOP_AOF_ID_SIZE * 2 + 1] = {0};
    struct bop__archive_options options = {
        .path = aof->path,
        .name = aof->options.name ? aof->options.name : name,
        .calls = &calls,
        .log = aof,
    };

    for (size_t i = 0; i < BOP_AOF_ID_SIZE; i++) {
        name[i * 2] = digits[aof->id[i] >> 4];
        name[i * 2 + 1] = digits[aof->id[i] & 15];
    }
    memcpy(options.log_id, aof->id, sizeof(options.log_id));
    return bop__archive_open(aof->options.tiers, &options, &aof->archive, err);
}

void bop__archived_tell(struct bop_aof *aof)
{
    size_t i = 0;

    if (!aof->archive) {
        return;
    }
    while (i < aof->segment_count && aof->segments[i]->base < aof->archive_told) {
        i++;
    }
    for (; i < aof->segment_count && aof->segments[i]->sealed; i++) {
        struct bop__segment *segment = aof->segments[i];

        /* If it lacks memory it asks for it again. */
        if (bop__archive_sealed(aof->archive, &segment->file->facts, segment->file->path) < 0) {
            break;
        }
        aof->archive_told = segment->end_seq;
    }
}

void bop__archived_close(struct bop_aof *aof)
{
    bop_aof_reader_close(aof->below);
    aof->below = NULL;
    if (aof->archive) {
        bop__archive_close(aof->archive);
        aof->archive = NULL;
    }
}

unsigned bop__archived_count(const struct bop_aof *aof)
{
    struct bop__segment_facts facts[64];
    uint64_t first = bop_aof_first(aof);
    unsigned count = 0;
    size_t total;

    if (!aof->archive) {
        return 0;
    }
    total = bop__archive_segments(aof->archive, facts, BOP_COUNT_OF(facts));
    for (size_t i = 0; i < bop_min_u64(total, BOP_COUNT_OF(facts)); i++) {
        count += facts[i].end_seq <= first ? 1 : 0;
    }
    /* With more than that, those that are local too are the few. */
    return total > BOP_COUNT_OF(facts) ? (unsigned)total : count;
}

/* ---- What is missing in the directory ---- */

int bop__archived_check(struct bop_aof *aof, uint64_t front, uint64_t base, struct bop_error *err)
{
    struct bop__segment_facts *facts = NULL;
    size_t count = aof->archive ? bop__archive_segments(aof->archive, NULL, 0) : 0;
    uint64_t next = base; /* All from here on is there. */

    if (front >= base) {
        return 0;
    }
    if (count > 0) {
        facts = bop_alloc(aof->allocator, count * sizeof(*facts));
        if (!facts) {
            return bop_error_set(err, BOP_ENOMEM, "list the archived segments");
        }
        BOP_IGNORE(bop__archive_segments(aof->archive, facts, count));
    }
    for (size_t i = count; i-- > 0;) {
        if (facts[i].base < next && facts[i].end_seq >= next) {
            next = facts[i].base;
        }
    }
    bop_free(aof->allocator, facts, count * sizeof(*facts));
    aof->oldest = next;
    /* Retention takes the oldest ones: what is missing before the first archived one is no gap. */
    if (next <= front || (count > 0 && next < base)) {
        return 0;
    }
    return bop_error_set(
        err, BOP_ECORRUPT, "%s: records %" PRIu64 " to %" PRIu64 " are missing: %s", aof->path,
        front, base - 1,
        aof->options.tiers
            ? "the tiers do not have them; bring back the segment files or restore the log"
            : "their segment files are not there; bring them back, or open the log with the tiers "
              "it was used with");
}
