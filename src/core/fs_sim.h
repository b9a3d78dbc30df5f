/*
 * The two halves of the simulated disk, what files hold and what they are
 * called, and the disk. fs_sim.c makes a file system of them, fs_sim_control.c has what
 * tests do to it. The halves lock nothing.
 */
#ifndef BOP_CORE_FS_SIM_H
#define BOP_CORE_FS_SIM_H

#include <pthread.h>
#include <sys/types.h>

#include <bop/alloc.h>
#include <bop/list.h>
#include <bop/random.h>
#include <bop/sim.h>

/* What the disk writes whole or not at all. */
#define SIM_SECTOR_BYTES 512
/* What is allocated at once; its sectors are the bits of a byte. */
#define SIM_PAGE_BYTES   4096
#define SIM_PAGE_SECTORS (SIM_PAGE_BYTES / SIM_SECTOR_BYTES)
/* -EFBIG above. */
#define SIM_FILE_BYTES_MAX (UINT64_C(1) << 32)
#define SIM_NAME_BYTES_MAX 255
/* Changes of names that may wait for a sync; above, the older half becomes durable. */
#define SIM_CHANGES_MAX 4096

/* What a power loss does to that which was not synced. */
enum sim_fate {
    SIM_FATE_KEEP,   /* All of it had reached the disk. */
    SIM_FATE_DROP,   /* None had. */
    SIM_FATE_CHANCE, /* Each piece by chance. */
};

/* ---- Contents ---- */

struct sim_page;

/* The content of a file: what a reader sees, and what of the disk's differs from it. */
struct sim_file {
    struct bop_allocator *allocator;
    uint64_t size;          /* As a reader sees it. */
    uint64_t durable_size;  /* As it is on disk. */
    uint64_t lowest_size;   /* The least since the last sync. */
    bool size_dirty;        /* A sync would make size durable. */
    struct sim_page *pages; /* Missing ones read as zeros. */
    size_t page_count;
    struct bop_list unsynced; /* struct sim_undo: the pages that differ from the disk. */
};

void bop__sim_file_init(struct sim_file *file, struct bop_allocator *allocator);
void bop__sim_file_deinit(struct sim_file *file);

/* Bytes read: fewer than size at the end of the file. */
size_t bop__sim_file_read(const struct sim_file *file, void *out_bytes, size_t size,
                          uint64_t offset);

/* Bytes written: fewer when memory runs out. BOP_ENOMEM if none were, or -EFBIG. */
ssize_t bop__sim_file_write(struct sim_file *file, struct bop_random *random, const void *bytes,
                            size_t size, uint64_t offset);

/* Cut, or extend with zeros. Returns 0, BOP_ENOMEM or -EFBIG; no change on failure. */
int bop__sim_file_resize(struct sim_file *file, uint64_t size);

void bop__sim_file_sync(struct sim_file *file);

/* A sync that failed: what it should have written is clean in the cache and not on disk. */
void bop__sim_file_fail_sync(struct sim_file *file);

/* tear: what the disk writes whole, SIM_SECTOR_BYTES or SIM_PAGE_BYTES. */
void bop__sim_file_lose_power(struct sim_file *file, struct bop_random *random, enum sim_fate fate,
                              unsigned tear);

/* Flip a bit in the cache and on disk. Returns 0, BOP_EINVAL past the end, or BOP_ENOMEM. */
int bop__sim_file_flip_bit(struct sim_file *file, uint64_t bit);

/* Mix bytes into a digest. */
uint64_t bop__sim_digest(uint64_t digest, const void *bytes, size_t size);
uint64_t bop__sim_file_digest(const struct sim_file *file, uint64_t digest);

/* ---- Names ---- */

struct sim_name;

/* A file or a directory. */
struct sim_node {
    struct bop_list link; /* On the tree's nodes, oldest first. */
    unsigned refs;        /* Names, current and durable, pending changes and descriptors. */
    unsigned users;       /* Current names and descriptors: 0 means deleted to a user. */
    bool is_dir;
    int lock_fd; /* The descriptor that has the lock; -1: none. */
    struct sim_file file;
    struct sim_name **names; /* Of a directory: in byte order. */
    size_t name_count;
    size_t name_capacity;
};

struct sim_tree {
    struct bop_allocator *allocator;
    struct sim_node *root;
    struct bop_list nodes;
    struct bop_list changes; /* Pending, in the order made. */
    unsigned change_count;
};

int bop__sim_tree_init(struct sim_tree *tree, struct bop_allocator *allocator);
/* Accepts one whose init failed. */
void bop__sim_tree_deinit(struct sim_tree *tree);

/* The node of a path. Returns 0, -ENOENT, -ENOTDIR, -ENAMETOOLONG, or BOP_EINVAL for a path
 * with "..", which a simulation has no use for. */
int bop__sim_tree_find(const struct sim_tree *tree, const char *path, struct sim_node **out_node);

/* Make a file. -EEXIST if the name is in use. */
int bop__sim_tree_create(struct sim_tree *tree, const char *path, struct sim_node **out_node);
int bop__sim_tree_mkdir(struct sim_tree *tree, const char *path);
int bop__sim_tree_unlink(struct sim_tree *tree, const char *path);
int bop__sim_tree_rename(struct sim_tree *tree, const char *from, const char *to);

/* Make the pending changes in a directory durable, or with `fail` forget them. */
void bop__sim_tree_sync(struct sim_tree *tree, struct sim_node *dir, bool fail);

/* Of the pending changes keep what chance gives; then make the disk's names the current ones. */
void bop__sim_tree_lose_power(struct sim_tree *tree, struct bop_random *random, enum sim_fate fate);

/* A descriptor's hold on a node. Closing the last may free the node. */
void bop__sim_node_open(struct sim_node *node);
void bop__sim_node_close(struct sim_tree *tree, struct sim_node *node);

/* The i-th name of a directory that a user sees, or NULL when there are no more; *i moves on. */
const char *bop__sim_dir_next(const struct sim_node *dir, size_t *i);

/* Call fn for each file that a user sees under some name; a non-zero result ends it. */
int bop__sim_tree_walk(const struct sim_tree *tree,
                       int (*fn)(void *user, const char *path, struct sim_node *node), void *user);

uint64_t bop__sim_tree_digest(const struct sim_tree *tree);

/* ---- The disk ---- */

/* A descriptor is a slot and, above it, how often the slot was used: a closed one stays
 * invalid when the slot is used again, and none equals a descriptor of the real system's
 * standard streams. */
#define FD_SLOT_BITS       10
#define FD_SLOTS           (1u << FD_SLOT_BITS)
#define FD_GENERATIONS_MAX (1u << 20)

struct descriptor {
    struct sim_node *node; /* NULL: free. */
    unsigned generation;   /* From 1. */
    int access;
    bool direct;
};

struct bop_fs_sim {
    struct bop_fs fs;
    struct bop_allocator *allocator;
    pthread_mutex_t lock; /* Over all that follows. */
    struct bop_random random;
    uint64_t capacity; /* 0: no limit. */
    uint64_t operations;
    uint64_t stop_at; /* The first operation that fails; 0: none. */
    unsigned failing_syncs;
    uint64_t syncs;
    uint64_t fail_sync_at; /* The sync that fails; 0: none. */
    unsigned tear_bytes;
    struct bop_fs_sim_faults faults;
    pthread_cond_t released;
    bool hang;        /* Syncs wait. */
    uint64_t crashes; /* What waits and finds more than when it began fails. */
    unsigned hanging;
    struct sim_tree tree;
    struct descriptor descriptors[FD_SLOTS];
};

/* Looking takes the lock too, which const does not mean. */
struct bop_fs_sim *bop__sim_lock(const struct bop_fs_sim *sim);
void bop__sim_unlock(struct bop_fs_sim *sim);

void bop__sim_close(struct bop_fs_sim *sim, struct descriptor *d);

#endif
