/*
 * The names on the simulated disk: directories, and which changes of names a
 * power loss may undo.
 *
 * A name has two meanings, the current one and the disk's. A change (create,
 * unlink, rename) sets the current meaning and waits in the list of changes; it
 * reaches the disk when one of its directories is synced, and with it the
 * earlier changes of the same names. At a power loss, changes that share names
 * form a group, and of each group a beginning is kept, chosen by chance: so one
 * name never goes back and forth, a rename is seen whole or not at all, and
 * unrelated names are independent, as POSIX leaves it.
 *
 * Directories are simpler than files: to make or rename one is durable at once.
 * So the tree of directories is the same in the cache and on disk, and nobody
 * loses a whole tree to a missing sync of its root.
 */
#include <string.h>

#include <bop/error.h>

#include "fs_sim.h"

struct sim_name {
    struct sim_node *dir;     /* The directory it is in. */
    struct sim_node *current; /* What it means to a user; NULL: nothing. */
    struct sim_node *durable; /* What it means on disk. */
    unsigned changes;         /* Pending ones that name it. */
    size_t size;              /* With the NUL. */

    /* Of the walk under way. */
    bool marked;
    struct sim_name *group; /* Towards the name that stands for its group. */
    unsigned group_size;    /* Changes in the group that it stands for. */
    unsigned group_keep;    /* The first of them, that are kept. */

    char text[];
};

/* Either name may be NULL: a creation has no `from`, a removal no `to`. */
struct sim_change {
    struct bop_list link;
    struct sim_name *from;
    struct sim_name *to;
    struct sim_node *node; /* What `to` means from now on. */
    bool needed;
};

static struct sim_change *change_of(struct bop_list *link)
{
    return BOP_CONTAINER_OF(link, struct sim_change, link);
}

/* ---- Nodes ---- */

static struct sim_node *node_create(struct sim_tree *tree, bool is_dir)
{
    struct sim_node *node = bop_alloc_zeroed(tree->allocator, sizeof(*node));

    if (node) {
        node->is_dir = is_dir;
        node->lock_fd = -1;
        bop__sim_file_init(&node->file, tree->allocator);
        bop_list_push_back(&tree->nodes, &node->link);
    }
    return node;
}

static void node_destroy(struct sim_tree *tree, struct sim_node *node)
{
    for (size_t i = 0; i < node->name_count; i++) {
        struct sim_name *name = node->names[i];

        bop_free(tree->allocator, name, sizeof(*name) + name->size);
    }
    bop_free(tree->allocator, node->names, node->name_capacity * sizeof(struct sim_name *));
    bop__sim_file_deinit(&node->file);
    bop_list_remove(&node->link);
    bop_free(tree->allocator, node, sizeof(*node));
}

static void node_ref(struct sim_node *node)
{
    if (node) {
        node->refs++;
    }
}

static void node_unref(struct sim_tree *tree, struct sim_node *node)
{
    if (!node) {
        return;
    }
    BOP_ASSERT(node->refs > 0);
    if (--node->refs == 0) {
        BOP_ASSERT(!node->is_dir); /* Directories have a name for ever. */
        node_destroy(tree, node);
    }
}

void bop__sim_node_open(struct sim_node *node)
{
    node->users++;
    node_ref(node);
}

void bop__sim_node_close(struct sim_tree *tree, struct sim_node *node)
{
    node->users--;
    node_unref(tree, node);
}

static void set_current(struct sim_tree *tree, struct sim_name *name, struct sim_node *node)
{
    struct sim_node *before = name->current;

    node_ref(node);
    name->current = node;
    if (node) {
        node->users++;
    }
    if (before) {
        before->users--;
    }
    node_unref(tree, before);
}

static void set_durable(struct sim_tree *tree, struct sim_name *name, struct sim_node *node)
{
    struct sim_node *before = name->durable;

    node_ref(node);
    name->durable = node;
    node_unref(tree, before);
}

int bop__sim_tree_init(struct sim_tree *tree, struct bop_allocator *allocator)
{
    *tree = (struct sim_tree){.allocator = allocator};
    bop_list_init(&tree->nodes);
    bop_list_init(&tree->changes);
    tree->root = node_create(tree, true);
    if (!tree->root) {
        return BOP_ENOMEM;
    }
    tree->root->refs = 1;
    return 0;
}

void bop__sim_tree_deinit(struct sim_tree *tree)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(&tree->changes)) != NULL) {
        bop_free(tree->allocator, change_of(link), sizeof(struct sim_change));
    }
    BOP_LIST_FOR_EACH_SAFE(at, &tree->nodes) {
        node_destroy(tree, BOP_CONTAINER_OF(at, struct sim_node, link));
    }
}

/* ---- Directories ---- */

/* Where text[0..size) is in a directory, or would be. */
static size_t dir_search(const struct sim_node *dir, const char *text, size_t size, bool *out_found)
{
    size_t low = 0, high = dir->name_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct sim_name *name = dir->names[middle];
        size_t common = bop_min_u64(name->size - 1, size);
        int order = memcmp(name->text, text, common);

        if (order == 0 && name->size - 1 == size) {
            *out_found = true;
            return middle;
        }
        if (order < 0 || (order == 0 && name->size - 1 < size)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *out_found = false;
    return low;
}

/* Free the entries that mean nothing and that no change names. */
static void dir_purge(struct sim_tree *tree, struct sim_node *dir)
{
    size_t kept = 0;

    for (size_t i = 0; i < dir->name_count; i++) {
        struct sim_name *name = dir->names[i];

        if (name->current || name->durable || name->changes > 0) {
            dir->names[kept++] = name;
        } else {
            bop_free(tree->allocator, name, sizeof(*name) + name->size);
        }
    }
    dir->name_count = kept;
}

/* Make room for one more entry. */
static int dir_reserve(struct sim_tree *tree, struct sim_node *dir)
{
    size_t capacity = dir->name_capacity ? 2 * dir->name_capacity : 8;
    struct sim_name **names;

    if (dir->name_count < dir->name_capacity) {
        return 0;
    }
    dir_purge(tree, dir);
    if (dir->name_count < dir->name_capacity / 2) {
        return 0;
    }
    names = bop_realloc(tree->allocator, dir->names, dir->name_capacity * sizeof(dir->names[0]),
                        capacity * sizeof(dir->names[0]));
    if (!names) {
        return BOP_ENOMEM;
    }
    dir->names = names;
    dir->name_capacity = capacity;
    return 0;
}

/* The entry of a name, made without a meaning if there is none. It stays until the next call
 * unless it is given one. NULL: out of memory. */
static struct sim_name *dir_entry(struct sim_tree *tree, struct sim_node *dir, const char *text,
                                  size_t size)
{
    bool found;
    size_t at = dir_search(dir, text, size, &found);
    struct sim_name *name;

    if (found) {
        return dir->names[at];
    }
    if (dir_reserve(tree, dir) < 0) {
        return NULL;
    }
    name = bop_alloc_zeroed(tree->allocator, sizeof(*name) + size + 1);
    if (!name) {
        return NULL;
    }
    name->dir = dir;
    name->size = size + 1;
    memcpy(name->text, text, size);
    at = dir_search(dir, text, size, &found); /* The purge has moved the others. */
    memmove(dir->names + at + 1, dir->names + at, (dir->name_count - at) * sizeof(dir->names[0]));
    dir->names[at] = name;
    dir->name_count++;
    return name;
}

const char *bop__sim_dir_next(const struct sim_node *dir, size_t *i)
{
    while (*i < dir->name_count) {
        const struct sim_name *name = dir->names[(*i)++];

        if (name->current) {
            return name->text;
        }
    }
    return NULL;
}

/* ---- Paths ---- */

/* A path taken apart: the directory that holds its last name, and that name. */
struct place {
    struct sim_node *dir;
    const char *text; /* Not NUL-terminated; size 0: the path is the root. */
    size_t size;
    bool slash_after;      /* Only a directory can be meant. */
    struct sim_node *node; /* What it means now; NULL: nothing. */
};

/* The next name of a path, without slashes and "."; false at the end. */
static bool next_part(const char **at, const char **out_text, size_t *out_size)
{
    const char *path = *at;

    for (;;) {
        size_t size;

        path += strspn(path, "/");
        size = strcspn(path, "/");
        if (size == 0) {
            *at = path;
            return false;
        }
        if (size != 1 || path[0] != '.') {
            *out_text = path;
            *out_size = size;
            *at = path + size;
            return true;
        }
        path++;
    }
}

static int check_part(const char *text, size_t size)
{
    if (size > SIM_NAME_BYTES_MAX) {
        return -ENAMETOOLONG;
    }
    return size == 2 && memcmp(text, "..", 2) == 0 ? BOP_EINVAL : 0;
}

static int find_place(const struct sim_tree *tree, const char *path, struct place *out_place)
{
    struct place place = {.node = tree->root};
    const char *text;
    size_t size;

    if (path[0] == '\0') {
        return -ENOENT;
    }
    while (next_part(&path, &text, &size)) {
        bool found;
        size_t at;
        int rc = check_part(text, size);

        if (rc < 0) {
            return rc;
        }
        if (!place.node) {
            return -ENOENT;
        }
        if (!place.node->is_dir) {
            return -ENOTDIR;
        }
        place.dir = place.node;
        place.text = text;
        place.size = size;
        place.slash_after = *path == '/';
        at = dir_search(place.dir, text, size, &found);
        place.node = found ? place.dir->names[at]->current : NULL;
    }
    if (place.slash_after && place.node && !place.node->is_dir) {
        return -ENOTDIR;
    }
    *out_place = place;
    return 0;
}

int bop__sim_tree_find(const struct sim_tree *tree, const char *path, struct sim_node **out_node)
{
    struct place place;
    int rc = find_place(tree, path, &place);

    if (rc < 0) {
        return rc;
    }
    if (!place.node) {
        return -ENOENT;
    }
    *out_node = place.node;
    return 0;
}

/* ---- Changes reach the disk ---- */

static void name_release(struct sim_name *name)
{
    if (name) {
        BOP_ASSERT(name->changes > 0);
        name->changes--;
    }
}

/* Take a change off the list; `apply`: the disk has it from now on. */
static void change_finish(struct sim_tree *tree, struct sim_change *change, bool apply)
{
    if (apply && change->from) {
        set_durable(tree, change->from, NULL);
    }
    if (apply && change->to) {
        set_durable(tree, change->to, change->node);
    }
    name_release(change->from);
    name_release(change->to);
    node_unref(tree, change->node);
    bop_list_remove(&change->link);
    tree->change_count--;
    bop_free(tree->allocator, change, sizeof(*change));
}

static void set_marked(struct sim_change *change, bool marked)
{
    if (change->from) {
        change->from->marked = marked;
    }
    if (change->to) {
        change->to->marked = marked;
    }
}

static bool is_marked(const struct sim_change *change)
{
    return (change->from && change->from->marked) || (change->to && change->to->marked);
}

static bool touches(const struct sim_change *change, const struct sim_node *dir)
{
    return (change->from && change->from->dir == dir) || (change->to && change->to->dir == dir);
}

/* Finish all changes in dir, or only the one given, and before each those that led to it. */
static void finish_needed(struct sim_tree *tree, const struct sim_node *dir,
                          const struct sim_change *only, bool apply)
{
    BOP_LIST_FOR_EACH(link, &tree->changes) {
        set_marked(change_of(link), false);
    }
    /* Backwards, so that a change marks what must come before it. */
    for (struct bop_list *link = tree->changes.prev; link != &tree->changes; link = link->prev) {
        struct sim_change *change = change_of(link);

        change->needed = change == only || (dir && touches(change, dir)) || is_marked(change);
        if (change->needed) {
            set_marked(change, true);
        }
    }
    BOP_LIST_FOR_EACH_SAFE(link, &tree->changes) {
        if (change_of(link)->needed) {
            change_finish(tree, change_of(link), apply);
        }
    }
}

void bop__sim_tree_sync(struct sim_tree *tree, struct sim_node *dir, bool fail)
{
    finish_needed(tree, dir, NULL, !fail);
    dir_purge(tree, dir);
}

/* Finish the older half of all changes: a beginning, so nothing that led to them is missing. */
static void finish_oldest(struct sim_tree *tree)
{
    for (unsigned i = 0; i < SIM_CHANGES_MAX / 2; i++) {
        change_finish(tree, change_of(tree->changes.next), true);
    }
}

/* ---- Changes are made ---- */

/* Note a change and make it the current state. `at_once`: and the disk's. */
static int make_change(struct sim_tree *tree, struct sim_name *from, struct sim_name *to,
                       struct sim_node *node, bool at_once)
{
    struct sim_change *change = bop_alloc_zeroed(tree->allocator, sizeof(*change));

    if (!change) {
        return BOP_ENOMEM;
    }
    if (tree->change_count == SIM_CHANGES_MAX) {
        finish_oldest(tree);
    }
    change->from = from;
    change->to = to;
    change->node = node;
    node_ref(node);
    if (from) {
        from->changes++;
        set_current(tree, from, NULL);
    }
    if (to) {
        to->changes++;
        set_current(tree, to, node);
    }
    bop_list_push_back(&tree->changes, &change->link);
    tree->change_count++;
    if (at_once) {
        finish_needed(tree, NULL, change, true);
    }
    return 0;
}

static int make_node(struct sim_tree *tree, const struct place *place, bool is_dir,
                     struct sim_node **out_node)
{
    struct sim_name *name = dir_entry(tree, place->dir, place->text, place->size);
    struct sim_node *node = name ? node_create(tree, is_dir) : NULL;
    int rc;

    if (!node) {
        return BOP_ENOMEM; /* An entry without a meaning is purged later. */
    }
    rc = make_change(tree, NULL, name, node, is_dir);
    if (rc < 0) {
        node_destroy(tree, node);
        return rc;
    }
    *out_node = node;
    return 0;
}

int bop__sim_tree_create(struct sim_tree *tree, const char *path, struct sim_node **out_node)
{
    struct place place;
    int rc = find_place(tree, path, &place);

    if (rc < 0) {
        return rc;
    }
    if (place.node) {
        return -EEXIST;
    }
    if (place.slash_after) {
        return -EISDIR;
    }
    return make_node(tree, &place, false, out_node);
}

int bop__sim_tree_mkdir(struct sim_tree *tree, const char *path)
{
    struct sim_node *node;
    struct place place;
    int rc = find_place(tree, path, &place);

    if (rc < 0) {
        return rc;
    }
    return place.node ? -EEXIST : make_node(tree, &place, true, &node);
}

int bop__sim_tree_unlink(struct sim_tree *tree, const char *path)
{
    struct place place;
    int rc = find_place(tree, path, &place);

    if (rc < 0) {
        return rc;
    }
    if (!place.node) {
        return -ENOENT;
    }
    if (place.node->is_dir) {
        return -EISDIR;
    }
    return make_change(tree, dir_entry(tree, place.dir, place.text, place.size), NULL, NULL, false);
}

/* True if dir is `top` or somewhere under it. */
static bool is_under(const struct sim_node *dir, const struct sim_node *top)
{
    if (dir == top) {
        return true;
    }
    for (size_t i = 0; i < top->name_count; i++) {
        const struct sim_node *child = top->names[i]->current;

        if (child && child->is_dir && is_under(dir, child)) {
            return true;
        }
    }
    return false;
}

int bop__sim_tree_rename(struct sim_tree *tree, const char *from, const char *to)
{
    struct place old, new;
    struct sim_name *old_name, *new_name;
    int rc = find_place(tree, from, &old);

    if (rc == 0) {
        rc = find_place(tree, to, &new);
    }
    if (rc < 0) {
        return rc;
    }
    if (!old.node) {
        return -ENOENT;
    }
    if (!old.dir || !new.dir) {
        return -EBUSY; /* The root. */
    }
    if (old.node == new.node) {
        return 0;
    }
    if (old.node->is_dir && is_under(new.dir, old.node)) {
        return BOP_EINVAL;
    }
    if (new.node &&new.node->is_dir) {
        return old.node->is_dir ? -EEXIST : -EISDIR; /* No directory is ever removed. */
    }
    if (old.node->is_dir ? new.node != NULL : new.slash_after) {
        return -ENOTDIR;
    }
    old_name = dir_entry(tree, old.dir, old.text, old.size);
    new_name = dir_entry(tree, new.dir, new.text, new.size);
    if (!old_name || !new_name) {
        return BOP_ENOMEM;
    }
    return make_change(tree, old_name, new_name, old.node, old.node->is_dir);
}

/* ---- Power loss ---- */

static struct sim_name *group_of(struct sim_name *name)
{
    while (name->group != name) {
        name->group = name->group->group; /* Halves the way for the next. */
        name = name->group;
    }
    return name;
}

/* The name that stands for the group of a change. */
static struct sim_name *group_of_change(const struct sim_change *change)
{
    return group_of(change->from ? change->from : change->to);
}

static void reset_group(struct sim_name *name)
{
    if (name) {
        name->group = name;
        name->group_size = 0;
    }
}

/* Join names that a change has in common, and count each group's changes. */
static void form_groups(struct sim_tree *tree)
{
    BOP_LIST_FOR_EACH(link, &tree->changes) {
        reset_group(change_of(link)->from);
        reset_group(change_of(link)->to);
    }
    BOP_LIST_FOR_EACH(link, &tree->changes) {
        const struct sim_change *change = change_of(link);

        if (change->from && change->to) {
            group_of(change->from)->group = group_of(change->to);
        }
    }
    BOP_LIST_FOR_EACH(link, &tree->changes) {
        struct sim_name *group = group_of_change(change_of(link));

        group->group_size++;
        group->marked = false; /* Not chosen yet. */
    }
}

static unsigned choose_keep(struct bop_random *random, unsigned size, enum sim_fate fate)
{
    switch (fate) {
    case SIM_FATE_KEEP:
        return size;
    case SIM_FATE_DROP:
        return 0;
    case SIM_FATE_CHANCE:
        break;
    }
    return (unsigned)bop_random_below(random, (uint64_t)size + 1);
}

static void dir_revert(struct sim_tree *tree, struct sim_node *dir)
{
    for (size_t i = 0; i < dir->name_count; i++) {
        set_current(tree, dir->names[i], dir->names[i]->durable);
    }
    dir_purge(tree, dir);
}

void bop__sim_tree_lose_power(struct sim_tree *tree, struct bop_random *random, enum sim_fate fate)
{
    form_groups(tree);
    BOP_LIST_FOR_EACH_SAFE(link, &tree->changes) {
        struct sim_change *change = change_of(link);
        struct sim_name *group = group_of_change(change);
        bool keep;

        if (!group->marked) {
            group->marked = true;
            group->group_keep = choose_keep(random, group->group_size, fate);
        }
        keep = group->group_keep > 0;
        group->group_keep -= keep;
        change_finish(tree, change, keep);
    }
    /* Files may go with their last name, but directories stay: first make a reference
     * hold the next link. */
    for (struct bop_list *link = tree->nodes.next; link != &tree->nodes;) {
        struct sim_node *node = BOP_CONTAINER_OF(link, struct sim_node, link);

        node_ref(node);
        if (node->is_dir) {
            dir_revert(tree, node);
        }
        link = link->next;
        node_unref(tree, node);
    }
}

/* ---- Walk ---- */

#define WALK_PATH_MAX 1024

struct walk {
    int (*fn)(void *user, const char *path, struct sim_node *node);
    void *user;
    char path[WALK_PATH_MAX];
};

static int walk_node(struct walk *walk, struct sim_node *node, size_t size)
{
    int rc = 0;

    if (!node->is_dir) {
        return walk->fn(walk->user, walk->path, node);
    }
    for (size_t i = 0; rc == 0 && i < node->name_count; i++) {
        const struct sim_name *name = node->names[i];

        if (!name->current) {
            continue;
        }
        if (size + 1 + name->size > sizeof(walk->path)) {
            return -ENAMETOOLONG;
        }
        walk->path[size] = '/';
        memcpy(walk->path + size + 1, name->text, name->size);
        rc = walk_node(walk, name->current, size + name->size); /* Its NUL for the slash. */
    }
    walk->path[size] = '\0';
    return rc;
}

int bop__sim_tree_walk(const struct sim_tree *tree,
                       int (*fn)(void *user, const char *path, struct sim_node *node), void *user)
{
    struct walk walk = {.fn = fn, .user = user};

    return walk_node(&walk, tree->root, 0);
}

/* ---- Digest ---- */

static uint64_t node_digest(const struct sim_node *node, uint64_t digest)
{
    if (!node->is_dir) {
        return bop__sim_file_digest(&node->file, digest);
    }
    for (size_t i = 0; i < node->name_count; i++) {
        const struct sim_name *name = node->names[i];

        if (name->current) {
            digest = bop__sim_digest(digest, name->text, name->size);
            digest = node_digest(name->current, digest);
        }
    }
    return bop__sim_digest(digest, "/", 1); /* The end of a directory. */
}

uint64_t bop__sim_tree_digest(const struct sim_tree *tree)
{
    return node_digest(tree->root, 0);
}
