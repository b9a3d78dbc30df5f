/*
 * Registries: who listens at an address. A registration is an address, a session and a
 * number that the session chose: one of its own in the registry, so that it names one
 * address. It ends with its session.
 *
 *      REGISTRIES   name -> id, registrations, created
 *      ENTRIES      id u32, pair (machine_pair.h) of the address and, both big-endian,
 *                   session u64, sequence u64 -> version
 *      OWNED        session, kind, id, sequence -> registry b, address; session, kind, 0, 0 -> how
 *                   many
 *
 * So those of an address lie side by side, in the order of sessions and sequences, and
 * the end of a session costs what the session had, however large the registry is.
 */
#include "machine_pair.h"

#define WHO_SIZE 16

static struct bop_slice who_encode(uint8_t out_who[WHO_SIZE], uint64_t session, uint64_t sequence)
{
    machine_store_be64(out_who, session);
    machine_store_be64(out_who + 8, sequence);
    return bop_slice(out_who, WHO_SIZE);
}

static int tell(struct machine *machine, enum bop_event_type type, uint8_t flags,
                struct bop_slice registry, struct bop_slice address,
                const struct machine_owned *owned)
{
    struct bop_event event = {.type = type,
                              .flags = flags,
                              .name = registry,
                              .key = address,
                              .session = owned->session,
                              .number = (int64_t)owned->number};

    return bop__machine_event(machine, &event);
}

/* The entry of a registration, its key in machine->pair, and where it is stored. */
static int make_entry(struct machine *machine, struct bop_slice address,
                      const struct machine_owned *owned, struct machine_entry *out_entry,
                      struct machine_key *out_key)
{
    struct machine_head head;
    uint8_t who[WHO_SIZE];
    int rc = bop__machine_head_make(address, &head);

    if (rc == 0) {
        rc = bop__machine_pair_encode(&head, address,
                                      who_encode(who, owned->session, owned->number),
                                      &machine->pair, out_entry);
    }
    return rc ? rc : bop__machine_key_make(owned->id, out_entry->key, out_key);
}

/* ---- What a session owns ---- */

static int owned_decode(struct bop_slice value, struct bop_slice *out_registry,
                        struct bop_slice *out_address)
{
    struct bop_reader reader = bop_reader(value);

    *out_registry = bop_read_bytes(&reader);
    *out_address = bop_read_raw(&reader, bop_reader_left(&reader));
    return reader.failed || out_registry->size == 0 || out_registry->size > BOP_NAME_MAX ||
                   out_address->size > BOP_KEY_MAX
               ? BOP_ECORRUPT
               : 0;
}

int bop__machine_registration_owned_check(struct bop_slice value)
{
    struct bop_slice registry, address;

    return owned_decode(value, &registry, &address);
}

/* What a session has of this sequence. *out_here: at this address. */
static int owned_compare(struct bop_slice value, struct bop_slice address, bool *out_here)
{
    struct bop_slice registry, known;
    int rc = owned_decode(value, &registry, &known);

    *out_here = rc == 0 && bop_slice_equal(known, address);
    return rc;
}

/* Does the session have this sequence? *out_here: at this address. */
static int owned_look(struct machine *machine, const struct machine_owned *owned,
                      struct bop_slice address, bool *out_used, bool *out_here)
{
    struct bop_slice value;
    int rc = bop__machine_owned_get(machine, owned, &value);

    *out_used = rc == 0;
    *out_here = false;
    if (rc == 0) {
        rc = owned_compare(value, address, out_here);
    }
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

/* Give the session this sequence, unless it has it. */
static int owned_insert(struct machine *machine, const struct machine_owned *owned,
                        struct bop_slice registry, struct bop_slice address, bool *out_used,
                        bool *out_here)
{
    struct bop_writer writer = bop_writer(&machine->scratch);
    struct bop_slice existing;
    int rc;

    *out_used = *out_here = false;
    bop_buf_clear(&machine->scratch);
    bop_write_bytes(&writer, registry);
    bop_write_raw(&writer, address);
    rc = writer.code ? writer.code
                     : bop__machine_owned_insert(machine, owned, bop_buf_slice(&machine->scratch),
                                                 &existing);
    *out_used = rc == BOP_EEXISTS;
    return *out_used ? owned_compare(existing, address, out_here) : rc;
}

/* ---- Writes ---- */

/* The status of one that cannot be added, or is there: its session has as many as it may. */
static int judge_full(struct machine *machine, const struct machine_owned *owned,
                      struct bop_slice address, enum bop_status *out_status)
{
    struct machine_entry entry, found;
    struct machine_key store_key;
    bool used, here;
    int rc = owned_look(machine, owned, address, &used, &here);

    *out_status = used && !here ? BOP_STATUS_BAD_REQUEST : BOP_STATUS_OK;
    if (rc < 0 || used) {
        return rc;
    }
    rc = make_entry(machine, address, owned, &entry, &store_key);
    if (rc == 0) {
        rc = bop__machine_entry_find(machine->txn, machine->tables[MACHINE_ENTRIES], &store_key,
                                     entry.key, &found);
    }
    *out_status = rc == BOP_ENOTFOUND ? BOP_STATUS_BUSY : BOP_STATUS_BAD_REQUEST;
    return rc == BOP_ENOTFOUND || rc == BOP_EEXISTS ? 0 : rc;
}

/* The entry of what the session was given. BOP_EEXISTS: another address has the same digest. */
static int entry_insert(struct machine *machine, struct collection *registry,
                        struct bop_slice address, const struct machine_owned *owned)
{
    struct machine_entry entry;
    struct machine_key store_key;
    int rc = make_entry(machine, address, owned, &entry, &store_key);

    if (rc == 0) {
        entry.version = machine->entry.index;
        rc = bop__machine_entry_insert(machine, registry, &store_key, &entry);
    }
    return rc;
}

/* Add one. *out_added may stay false; a status other than OK: it cannot be, nothing was done. */
static int add(struct machine *machine, struct collection *registry, struct bop_slice name,
               struct bop_slice address, uint64_t sequence, enum bop_status *out_status,
               bool *out_added)
{
    struct machine_owned owned = {.session = machine->entry.session,
                                  .kind = OWNED_REGISTRATION,
                                  .id = registry->record.id,
                                  .number = sequence};
    bool used, here, full;
    int rc = bop__machine_owned_full(machine, owned.session, OWNED_REGISTRATION, &full);

    *out_added = false;
    if (rc < 0 || full) {
        return rc ? rc : judge_full(machine, &owned, address, out_status);
    }
    rc = owned_insert(machine, &owned, name, address, &used, &here);
    *out_status = used && !here ? BOP_STATUS_BAD_REQUEST : BOP_STATUS_OK;
    if (rc < 0 || used) {
        return rc;
    }
    rc = entry_insert(machine, registry, address, &owned);
    if (rc == BOP_EEXISTS) {
        *out_status = BOP_STATUS_BAD_REQUEST;
        return bop__machine_owned_del(machine, &owned);
    }
    if (rc == 0) {
        rc = bop__machine_owned_add(machine, owned.session, OWNED_REGISTRATION, &full);
    }
    *out_added = rc == 0;
    return rc ? rc : tell(machine, BOP_EVENT_REGISTRATION_ADD, 0, name, address, &owned);
}

static int remove_one(struct machine *machine, const struct bop_operation *operation,
                      struct machine_reply *reply)
{
    struct machine_owned owned = {.session = machine->entry.session,
                                  .kind = OWNED_REGISTRATION,
                                  .number = operation->sequence};
    struct collection *registry;
    struct machine_entry entry;
    struct machine_key store_key;
    bool used = false, here = false;
    int rc = bop__machine_collection_find(machine, COLLECTION_REGISTRY, operation->name, &registry);

    if (rc == 0 && registry) {
        owned.id = registry->record.id;
        rc = owned_look(machine, &owned, operation->key, &used, &here);
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, here);
    if (rc < 0 || !here) {
        return rc;
    }
    rc = make_entry(machine, operation->key, &owned, &entry, &store_key);
    if (rc == 0) {
        rc = bop__machine_entry_delete(machine, registry, &store_key);
    }
    if (rc == 0) {
        rc = bop__machine_owned_del(machine, &owned);
    }
    if (rc == 0) {
        rc = bop__machine_owned_sub(machine, owned.session, OWNED_REGISTRATION);
    }
    if (rc == 0) {
        rc = tell(machine, BOP_EVENT_REGISTRATION_REMOVE, 0, operation->name, operation->key,
                  &owned);
    }
    return rc == BOP_ENOTFOUND ? BOP_ECORRUPT : rc;
}

/* The registry, made if there is none; NULL if there are too many. */
static int find_or_make(struct machine *machine, struct bop_slice name,
                        struct collection **out_registry)
{
    int rc = bop__machine_collection_find(machine, COLLECTION_REGISTRY, name, out_registry);

    return rc < 0 || *out_registry
               ? rc
               : bop__machine_collection_make(machine, machine->entry.index, COLLECTION_REGISTRY,
                                              name, out_registry);
}

static int add_one(struct machine *machine, const struct bop_operation *operation,
                   struct machine_reply *reply)
{
    enum bop_status status = BOP_STATUS_BUSY;
    struct collection *registry;
    bool added = false;
    int rc = find_or_make(machine, operation->name, &registry);

    if (rc == 0 && registry) {
        rc = add(machine, registry, operation->name, operation->key, operation->sequence, &status,
                 &added);
    }
    machine_reply_set(reply, status);
    if (status == BOP_STATUS_OK) {
        machine_reply_add_u8(reply, added);
    }
    return rc;
}

/* Add them until one cannot be. */
static int add_each(struct machine *machine, const struct bop_operation *operation,
                    enum bop_status *out_status, uint64_t *out_added)
{
    struct bop_slice items = operation->items;
    struct collection *registry;
    struct bop_item item;
    int rc = find_or_make(machine, operation->name, &registry);

    *out_status = rc == 0 && registry ? BOP_STATUS_OK : BOP_STATUS_BUSY;
    *out_added = 0;
    while (rc == 0 && *out_status == BOP_STATUS_OK && bop_item_next(operation->op, &items, &item)) {
        bool added = false;

        rc = add(machine, registry, operation->name, item.key, item.sequence, out_status, &added);
        *out_added += added;
    }
    return rc;
}

/* All of them or none. In a transaction, that sees to it. */
static int add_all(struct machine *machine, const struct bop_operation *operation,
                   struct machine_reply *reply)
{
    bool alone = !machine->undo.active;
    enum bop_status status = BOP_STATUS_OK;
    uint64_t added = 0;
    int rc = alone ? bop__machine_undo_begin(machine) : 0;

    if (rc == 0) {
        rc = add_each(machine, operation, &status, &added);
    }
    if (rc < 0) {
        return rc; /* The batch is over, and with it what was written down. */
    }
    machine_reply_set(reply, status);
    if (status == BOP_STATUS_OK) {
        machine_reply_add_u64(reply, added);
    }
    if (alone && status != BOP_STATUS_OK) {
        return bop__machine_undo_run(machine);
    }
    if (alone) {
        bop__machine_undo_drop(machine);
    }
    return 0;
}

int bop__machine_registration_write(struct machine *machine, const struct bop_operation *operation,
                                    struct machine_reply *out_reply)
{
    if (machine->entry.session == 0) { /* Nobody would ever end it. */
        machine_reply_set(out_reply, BOP_STATUS_BAD_REQUEST);
        return 0;
    }
    switch (operation->op) {
    case BOP_OP_REGISTRATION_ADD:
        return add_one(machine, operation, out_reply);
    case BOP_OP_REGISTRATION_ADD_ALL:
        return add_all(machine, operation, out_reply);
    default:
        return remove_one(machine, operation, out_reply);
    }
}

int bop__machine_registration_end(struct machine *machine, const struct machine_owned *owned,
                                  struct bop_slice value)
{
    struct collection *registry = NULL;
    struct bop_slice name, address;
    struct machine_entry entry;
    struct machine_key store_key;
    int rc = owned_decode(value, &name, &address);

    if (rc == 0) {
        rc = bop__machine_collection_find(machine, COLLECTION_REGISTRY, name, &registry);
    }
    if (rc == 0 && (!registry || registry->record.id != owned->id)) {
        rc = BOP_ECORRUPT;
    }
    if (rc == 0) {
        rc = make_entry(machine, address, owned, &entry, &store_key);
    }
    if (rc == 0) {
        rc = bop__machine_entry_delete(machine, registry, &store_key);
    }
    if (rc == 0) {
        rc = tell(machine, BOP_EVENT_REGISTRATION_REMOVE, BOP_EVENT_EXPIRED, name, address, owned);
    }
    return rc == BOP_ENOTFOUND ? BOP_ECORRUPT : rc;
}

/* ---- Reads ---- */

/* The registration that a walk is at, as an entry of a page. */
static int add_found(struct machine_page *page, const struct machine_pairs *pairs, bool with_key)
{
    struct machine_entry entry = {.version = pairs->walk.entry.version};
    uint8_t who[WHO_SIZE];

    if (pairs->pair.value.size != WHO_SIZE) {
        return BOP_ECORRUPT;
    }
    bop_store_u64(who, machine_load_be64(pairs->pair.value.data));
    bop_store_u64(who + 8, machine_load_be64(pairs->pair.value.data + 8));
    entry.value = bop_slice(who, sizeof(who));
    if (with_key) {
        entry.key = pairs->pair.key;
    }
    return bop__machine_page_add(page, pairs->walk.key, &entry);
}

/* A page of those of an address, or of all. */
static int scan(struct machine_view *view, const struct bop_operation *operation,
                struct bop_slice head, bool with_key, struct bop_buf *out)
{
    struct machine_page page;
    struct machine_pairs pairs;
    int rc = bop__machine_page_begin(&page, operation, out);

    if (rc != 0) {
        return rc;
    }
    rc = bop__machine_pairs_begin(&pairs, view, COLLECTION_REGISTRY, operation->name, head);
    if (rc == 0) {
        rc = bop__machine_pairs_first(&pairs, &page);
        while (rc == 0) {
            rc = add_found(&page, &pairs, with_key);
            if (rc == 0) {
                rc = bop__machine_pairs_next(&pairs);
            }
        }
        bop__machine_walk_end(&pairs.walk);
    }
    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    return bop__machine_page_end(&page, view->position.index);
}

int bop__machine_registration_read(struct machine_view *view, const struct bop_operation *operation,
                                   struct bop_buf *out)
{
    struct machine_head head;
    int rc;

    switch (operation->op) {
    case BOP_OP_REGISTRATION_GET:
        rc = bop__machine_head_make(operation->key, &head);
        return rc ? rc : scan(view, operation, machine_head_slice(&head), false, out);
    case BOP_OP_REGISTRATION_LIST:
        return scan(view, operation, bop_slice(NULL, 0), true, out);
    default:
        return BOP_STATUS_BAD_REQUEST;
    }
}
