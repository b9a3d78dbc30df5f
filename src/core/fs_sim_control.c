/*
 * What tests do to the simulated disk: crashes, faults and looks.
 */
#include <string.h>

#include "fs_sim.h"

struct bop_fs_sim *bop__sim_lock(const struct bop_fs_sim *const_sim)
{
    struct bop_fs_sim *sim = (struct bop_fs_sim *)(uintptr_t)const_sim;

    BOP_IGNORE(pthread_mutex_lock(&sim->lock)); /* Cannot fail: taken once, by us. */
    return sim;
}

void bop__sim_unlock(struct bop_fs_sim *sim)
{
    BOP_IGNORE(pthread_mutex_unlock(&sim->lock));
}

/* ---- Crashes ---- */

static void forget_process(struct bop_fs_sim *sim)
{
    for (unsigned slot = 0; slot < FD_SLOTS; slot++) {
        if (sim->descriptors[slot].node) {
            bop__sim_close(sim, &sim->descriptors[slot]);
        }
    }
    sim->stop_at = 0;
    sim->crashes++;
    BOP_IGNORE(pthread_cond_broadcast(&sim->released)); /* Cannot fail. */
}

/* Flip a bit of a file by chance. */
static void rot_by_chance(struct bop_fs_sim *sim, struct sim_file *file)
{
    if (sim->faults.rot > 0 && file->size > 0 &&
        bop_random_chance(&sim->random, sim->faults.rot, 65536)) {
        /* Without memory for it, it is spared. */
        BOP_IGNORE(bop__sim_file_flip_bit(file, bop_random_below(&sim->random, file->size * 8)));
    }
}

void bop_fs_sim_kill_process(struct bop_fs_sim *sim)
{
    bop__sim_lock(sim);
    forget_process(sim);
    bop__sim_unlock(sim);
}

void bop_fs_sim_lose_power(struct bop_fs_sim *sim)
{
    enum sim_fate fate = SIM_FATE_CHANCE;

    bop__sim_lock(sim);
    forget_process(sim);
    /* Now and then the whole disk is lucky or not: a mixture alone would hardly ever
     * show those ends when there are many files. */
    switch (bop_random_below(&sim->random, 8)) {
    case 0:
        fate = SIM_FATE_KEEP;
        break;
    case 1:
        fate = SIM_FATE_DROP;
        break;
    default:
        break;
    }
    bop__sim_tree_lose_power(&sim->tree, &sim->random, fate);
    BOP_LIST_FOR_EACH(link, &sim->tree.nodes) {
        struct sim_node *node = BOP_CONTAINER_OF(link, struct sim_node, link);

        bop__sim_file_lose_power(&node->file, &sim->random, fate, sim->tear_bytes);
        rot_by_chance(sim, &node->file);
    }
    bop__sim_unlock(sim);
}

void bop_fs_sim_stop_after(struct bop_fs_sim *sim, uint64_t operations)
{
    bop__sim_lock(sim);
    sim->stop_at = operations ? sim->operations + operations : 0;
    bop__sim_unlock(sim);
}

uint64_t bop_fs_sim_operations(const struct bop_fs_sim *const_sim)
{
    struct bop_fs_sim *sim = bop__sim_lock(const_sim);
    uint64_t operations = sim->operations;

    bop__sim_unlock(sim);
    return operations;
}

void bop_fs_sim_fail_syncs(struct bop_fs_sim *sim, unsigned count)
{
    bop__sim_lock(sim);
    sim->failing_syncs = count;
    bop__sim_unlock(sim);
}

void bop_fs_sim_fail_sync_at(struct bop_fs_sim *sim, uint64_t n)
{
    bop__sim_lock(sim);
    sim->fail_sync_at = n ? sim->syncs + n : 0;
    bop__sim_unlock(sim);
}

void bop_fs_sim_set_faults(struct bop_fs_sim *sim, const struct bop_fs_sim_faults *faults)
{
    bop__sim_lock(sim);
    sim->faults = *faults;
    bop__sim_unlock(sim);
}

void bop_fs_sim_hang_syncs(struct bop_fs_sim *sim)
{
    bop__sim_lock(sim);
    sim->hang = true;
    bop__sim_unlock(sim);
}

void bop_fs_sim_release_syncs(struct bop_fs_sim *sim)
{
    bop__sim_lock(sim);
    sim->hang = false;
    BOP_IGNORE(pthread_cond_broadcast(&sim->released)); /* Cannot fail. */
    bop__sim_unlock(sim);
}

unsigned bop_fs_sim_hanging(const struct bop_fs_sim *const_sim)
{
    struct bop_fs_sim *sim = bop__sim_lock(const_sim);
    unsigned hanging = sim->hanging;

    bop__sim_unlock(sim);
    return hanging;
}

void bop_fs_sim_set_capacity(struct bop_fs_sim *sim, uint64_t capacity_bytes)
{
    bop__sim_lock(sim);
    sim->capacity = capacity_bytes;
    bop__sim_unlock(sim);
}

int bop_fs_sim_flip_bit(struct bop_fs_sim *sim, const char *path, uint64_t bit)
{
    struct sim_node *node;
    int rc;

    bop__sim_lock(sim);
    rc = bop__sim_tree_find(&sim->tree, path, &node);
    if (rc == 0) {
        rc = bop__sim_file_flip_bit(&node->file, bit);
    }
    bop__sim_unlock(sim);
    return rc;
}

/* ---- Rot ---- */

struct rot {
    uint64_t bits; /* Of the files so far. */
    uint64_t wanted;
    struct bop_fs_sim_rotten *rotten;
};

static int count_bits(void *user, const char *path, struct sim_node *node)
{
    ((struct rot *)user)->bits += node->file.size * 8;
    return 0;
}

static int flip_wanted(void *user, const char *path, struct sim_node *node)
{
    struct rot *rot = user;
    uint64_t bit = rot->wanted - rot->bits;
    int rc;

    rot->bits += node->file.size * 8;
    if (rot->wanted >= rot->bits) {
        return 0;
    }
    if (strlen(path) >= sizeof(rot->rotten->path)) {
        return BOP_ENOTFOUND;
    }
    memcpy(rot->rotten->path, path, strlen(path) + 1);
    rot->rotten->bit = bit;
    rc = bop__sim_file_flip_bit(&node->file, bit);
    return rc < 0 ? rc : 1;
}

int bop_fs_sim_rot(struct bop_fs_sim *sim, struct bop_fs_sim_rotten *out_rotten)
{
    struct rot rot = {.rotten = out_rotten};
    int rc;

    bop__sim_lock(sim);
    rc = bop__sim_tree_walk(&sim->tree, count_bits, &rot);
    if (rc == 0 && rot.bits > 0) {
        rot.wanted = bop_random_below(&sim->random, rot.bits);
        rot.bits = 0;
        rc = bop__sim_tree_walk(&sim->tree, flip_wanted, &rot);
    }
    bop__sim_unlock(sim);
    return rc == 1 ? 0 : rc == 0 ? BOP_ENOTFOUND : rc;
}

uint64_t bop_fs_sim_digest(const struct bop_fs_sim *const_sim)
{
    struct bop_fs_sim *sim = bop__sim_lock(const_sim);
    uint64_t digest = bop__sim_tree_digest(&sim->tree);

    bop__sim_unlock(sim);
    return digest;
}
