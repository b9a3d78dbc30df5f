/*
 * Members of groups: sessions that say who they are, under a name that is theirs alone in
 * the group, with a few bytes of information for the others.
 *
 * A member's number is the index of the entry by which it joined, and members are in the
 * order of their numbers: the same on every node, and never another one while they stay.
 * Joining once more is to set the information anew. A member ends with its session.
 *
 *      GROUPS         name -> id, members, created
 *      MEMBERS        id u32, number u64 -> session u64, group b, member b, info
 *      MEMBER_NAMES   id u32, member (as a key of an entry) -> number u64
 *      OWNED          session, kind, id, number -> empty
 */
#include "machine_internal.h"

#define MEMBER_KEY 12

struct member {
    uint64_t session;
    struct bop_slice group;
    struct bop_slice name;
    struct bop_slice info;
};

/* ---- Records ---- */

static struct bop_slice member_key(uint8_t out_key[MEMBER_KEY], uint32_t id, uint64_t number)
{
    machine_store_be32(out_key, id);
    machine_store_be64(out_key + MACHINE_MAP_ID_SIZE, number);
    return bop_slice(out_key, MEMBER_KEY);
}

static int member_decode(struct bop_slice bytes, struct member *out_member)
{
    struct bop_reader reader = bop_reader(bytes);

    out_member->session = bop_read_u64(&reader);
    out_member->group = bop_read_bytes(&reader);
    out_member->name = bop_read_bytes(&reader);
    out_member->info = bop_read_raw(&reader, bop_reader_left(&reader));
    return reader.failed || out_member->session == 0 || out_member->group.size == 0 ||
                   out_member->group.size > BOP_NAME_MAX || out_member->name.size > BOP_KEY_MAX ||
                   out_member->info.size > BOP_KEY_MAX
               ? BOP_ECORRUPT
               : 0;
}

int bop__machine_member_check(struct bop_slice key, struct bop_slice value)
{
    struct member member;

    return key.size == MEMBER_KEY ? member_decode(value, &member) : BOP_ECORRUPT;
}

int bop__machine_member_name_check(struct bop_slice key, struct bop_slice value)
{
    return key.size >= MACHINE_MAP_ID_SIZE && key.size <= BOP_KV_KEY_MAX && value.size == 8 &&
                   bop_load_u64(value.data) > 0
               ? 0
               : BOP_ECORRUPT;
}

/* Put the record of a member, in machine->scratch: what of the member is borrowed must not lie
 * there. */
static int member_put(struct machine *machine, uint32_t id, uint64_t number,
                      const struct member *member)
{
    struct bop_writer writer = bop_writer(&machine->scratch);
    uint8_t key[MEMBER_KEY];

    bop_buf_clear(&machine->scratch);
    bop_write_u64(&writer, member->session);
    bop_write_bytes(&writer, member->group);
    bop_write_bytes(&writer, member->name);
    bop_write_raw(&writer, member->info);
    return writer.code ? writer.code
                       : bop__machine_put(machine, MACHINE_MEMBERS, member_key(key, id, number),
                                          bop_buf_slice(&machine->scratch));
}

/* By its number; what is found is borrowed from the store. 0, BOP_ENOTFOUND or another code. */
static int member_get(struct bop_kv_txn *txn, const struct bop_kv_table *tables, uint32_t id,
                      uint64_t number, struct member *out_member)
{
    uint8_t key[MEMBER_KEY];
    struct bop_slice value;
    int rc = bop_kv_get(txn, tables[MACHINE_MEMBERS], member_key(key, id, number), &value);

    return rc ? rc : member_decode(value, out_member);
}

/* By its name, of which store_key was made. BOP_EEXISTS for a digest met twice, too. */
static int member_find(struct bop_kv_txn *txn, const struct bop_kv_table *tables, uint32_t id,
                       const struct machine_key *store_key, struct bop_slice name,
                       uint64_t *out_number, struct member *out_member)
{
    struct bop_slice value;
    int rc = bop_kv_get(txn, tables[MACHINE_MEMBER_NAMES],
                        bop_slice(store_key->bytes, store_key->size), &value);

    if (rc < 0) {
        return rc;
    }
    if (value.size != 8) {
        return BOP_ECORRUPT;
    }
    *out_number = bop_load_u64(value.data);
    rc = member_get(txn, tables, id, *out_number, out_member);
    if (rc != 0) {
        return rc == BOP_ENOTFOUND ? BOP_ECORRUPT : rc;
    }
    return bop_slice_equal(out_member->name, name) ? 0 : BOP_EEXISTS;
}

/* ---- Writes ---- */

static int tell(struct machine *machine, enum bop_event_type type, uint8_t flags, uint64_t number,
                const struct member *member)
{
    struct bop_event event = {.type = type,
                              .flags = flags,
                              .name = member->group,
                              .key = member->name,
                              .value = member->info,
                              .session = member->session,
                              .number = (int64_t)number};

    return bop__machine_event(machine, &event);
}

/* What a write works on. */
struct write {
    struct machine *machine;
    const struct bop_operation *operation;
    struct machine_reply *reply;
    struct collection *group; /* NULL: there is none. */
    struct machine_key store_key;
    bool existed;
    uint64_t number; /* Of the member, if it is there, as the next. */
    bool own;        /* It is the session's. */
};

static struct member wanted(const struct write *write)
{
    return (struct member){.session = write->machine->entry.session,
                           .group = write->operation->name,
                           .name = write->operation->key,
                           .info = write->operation->value};
}

static int set(struct write *write)
{
    struct member member = wanted(write);
    int rc = member_put(write->machine, write->group->record.id, write->number, &member);

    return rc ? rc : tell(write->machine, BOP_EVENT_MEMBER_SET, 0, write->number, &member);
}

/* Write the records of one that is not there. */
static int add(struct write *write, const struct member *member)
{
    struct machine *machine = write->machine;
    uint64_t number = machine->entry.index;
    struct machine_owned owned = {.session = member->session,
                                  .kind = OWNED_MEMBER,
                                  .id = write->group->record.id,
                                  .number = number};
    uint8_t value[8];
    int rc = member_put(machine, owned.id, number, member);

    if (rc == 0) {
        bop_store_u64(value, number);
        rc = bop__machine_put(machine, MACHINE_MEMBER_NAMES,
                              bop_slice(write->store_key.bytes, write->store_key.size),
                              bop_slice(value, sizeof(value)));
    }
    if (rc == 0) {
        rc = bop__machine_owned_put(machine, &owned, bop_slice(NULL, 0));
    }
    if (rc == 0) {
        write->group->record.entries++;
        write->group->dirty = true;
        rc = tell(machine, BOP_EVENT_MEMBER_JOIN, 0, number, member);
    }
    return rc;
}

static int join_new(struct write *write)
{
    struct machine *machine = write->machine;
    struct member member = wanted(write), other;
    bool full = false;
    int rc;

    if (!write->group) {
        rc = bop__machine_collection_make(machine, machine->entry.index, COLLECTION_GROUP,
                                          write->operation->name, &write->group);
        if (rc < 0 || !write->group) {
            machine_reply_set(write->reply, BOP_STATUS_BUSY);
            return rc;
        }
        machine_store_be32(write->store_key.bytes, write->group->record.id);
    }
    /* The number is taken if another operation of this transaction joined this group. */
    rc = member_get(machine->txn, machine->tables, write->group->record.id, machine->entry.index,
                    &other);
    if (rc == 0) {
        machine_reply_set(write->reply, BOP_STATUS_BAD_REQUEST);
        return 0;
    }
    if (rc == BOP_ENOTFOUND) {
        rc = bop__machine_owned_add(machine, member.session, OWNED_MEMBER, &full);
    }
    if (rc < 0 || full) {
        machine_reply_set(write->reply, BOP_STATUS_BUSY);
        return rc;
    }
    machine_reply_set(write->reply, BOP_STATUS_OK);
    machine_reply_add_u64(write->reply, machine->entry.index);
    return add(write, &member);
}

static int join(struct write *write)
{
    if (!write->existed) {
        return join_new(write);
    }
    machine_reply_set(write->reply, write->own ? BOP_STATUS_OK : BOP_STATUS_CONDITION);
    machine_reply_add_u64(write->reply, write->number);
    return write->own ? set(write) : 0;
}

/* All records of a member but what its session owns. */
static int remove_member(struct machine *machine, struct collection *group,
                         const struct machine_key *store_key, uint64_t number)
{
    uint8_t key[MEMBER_KEY];
    int rc = bop__machine_del(machine, MACHINE_MEMBERS, member_key(key, group->record.id, number));

    if (rc == 0) {
        rc = bop__machine_del(machine, MACHINE_MEMBER_NAMES,
                              bop_slice(store_key->bytes, store_key->size));
    }
    if (rc == BOP_ENOTFOUND || (rc == 0 && group->record.entries == 0)) {
        return BOP_ECORRUPT;
    }
    if (rc == 0) {
        group->record.entries--;
        group->dirty = true;
    }
    return rc;
}

static int leave(struct write *write)
{
    struct machine *machine = write->machine;
    struct machine_owned owned = {.session = machine->entry.session,
                                  .kind = OWNED_MEMBER,
                                  .id = write->group->record.id,
                                  .number = write->number};
    struct member member;
    int rc = member_get(machine->txn, machine->tables, owned.id, write->number, &member);

    /* While what it is made of is still there. */
    if (rc == 0) {
        rc = tell(machine, BOP_EVENT_MEMBER_LEAVE, 0, write->number, &member);
    }
    if (rc == 0) {
        rc = remove_member(machine, write->group, &write->store_key, write->number);
    }
    if (rc == 0) {
        rc = bop__machine_owned_del(machine, &owned);
    }
    if (rc == 0) {
        rc = bop__machine_owned_sub(machine, owned.session, OWNED_MEMBER);
    }
    return rc == BOP_ENOTFOUND ? BOP_ECORRUPT : rc;
}

/* Find out what is there. 0, BOP_EEXISTS or another code. */
static int look(struct write *write)
{
    struct machine *machine = write->machine;
    struct member member;
    int rc = bop__machine_collection_find(machine, COLLECTION_GROUP, write->operation->name,
                                          &write->group);

    if (rc == 0) {
        rc = bop__machine_key_make(write->group ? write->group->record.id : 0,
                                   write->operation->key, &write->store_key);
    }
    if (rc < 0 || !write->group) {
        return rc;
    }
    rc = member_find(machine->txn, machine->tables, write->group->record.id, &write->store_key,
                     write->operation->key, &write->number, &member);
    write->existed = rc == 0;
    write->own = rc == 0 && member.session == machine->entry.session;
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

int bop__machine_member_write(struct machine *machine, const struct bop_operation *operation,
                              struct machine_reply *out_reply)
{
    struct write write = {.machine = machine, .operation = operation, .reply = out_reply};
    int rc;

    machine_reply_set(out_reply, BOP_STATUS_BAD_REQUEST);
    if (machine->entry.session == 0) {
        return 0; /* Nobody would ever end it. */
    }
    rc = look(&write);
    if (rc < 0) {
        return rc == BOP_EEXISTS ? 0 : rc;
    }
    if (operation->op == BOP_OP_MEMBER_JOIN) {
        return join(&write);
    }
    machine_reply_set(out_reply, BOP_STATUS_OK);
    machine_reply_add_u8(out_reply, write.own);
    if (!write.own) {
        return 0;
    }
    return operation->op == BOP_OP_MEMBER_SET ? set(&write) : leave(&write);
}

int bop__machine_member_end(struct machine *machine, const struct machine_owned *owned)
{
    struct collection *group = NULL;
    struct machine_key store_key;
    struct member member;
    uint8_t name[BOP_NAME_MAX];
    int rc = member_get(machine->txn, machine->tables, owned->id, owned->number, &member);

    if (rc == 0) {
        rc = tell(machine, BOP_EVENT_MEMBER_LEAVE, BOP_EVENT_EXPIRED, owned->number, &member);
    }
    if (rc == 0) {
        rc = bop__machine_key_make(owned->id, member.name, &store_key);
    }
    if (rc == 0) {
        /* A full cache is written to the store, and then what was borrowed from it is gone. */
        memcpy(name, member.group.data, member.group.size);
        rc = bop__machine_collection_find(machine, COLLECTION_GROUP,
                                          bop_slice(name, member.group.size), &group);
    }
    if (rc == 0) {
        rc = group && group->record.id == owned->id
                 ? remove_member(machine, group, &store_key, owned->number)
                 : BOP_ECORRUPT;
    }
    return rc == BOP_ENOTFOUND ? BOP_ECORRUPT : rc;
}

/* ---- Reads ---- */

/* What others see of a member: session q, info b. */
static int visible(const struct member *member, struct bop_buf *buf)
{
    struct bop_writer writer = bop_writer(buf);

    bop_buf_clear(buf);
    bop_write_u64(&writer, member->session);
    bop_write_bytes(&writer, member->info);
    return writer.code;
}

/* The member that a walk is at: to the walk its session is a version. */
static int add_member(struct machine_page *page, const struct machine_walk *walk,
                      struct bop_buf *buf)
{
    struct bop_reader reader = bop_reader(walk->entry.value);
    struct member member = {.session = walk->entry.version, .group = bop_read_bytes(&reader)};
    struct machine_entry entry;
    int rc;

    member.name = bop_read_bytes(&reader);
    member.info = bop_read_raw(&reader, bop_reader_left(&reader));
    if (reader.failed || walk->key.size != 8) {
        return BOP_ECORRUPT;
    }
    rc = visible(&member, buf);
    entry = (struct machine_entry){.version = machine_load_be64(walk->key.data),
                                   .key = member.name,
                                   .value = bop_buf_slice(buf)};
    return rc ? rc : bop__machine_page_add(page, walk->key, &entry);
}

static int fill(struct machine_page *page, struct machine_view *view, uint32_t id)
{
    struct machine_walk walk;
    struct bop_buf buf;
    int rc = bop__machine_walk_begin(&walk, view->txn, view->tables[MACHINE_MEMBERS], id);

    if (rc < 0) {
        return rc;
    }
    bop_buf_init(&buf, view->allocator, 0);
    rc = bop__machine_walk_seek(&walk, page->from, page->again);
    while (rc == 0) {
        rc = add_member(page, &walk, &buf);
        if (rc == 0) {
            rc = bop__machine_walk_next(&walk);
        }
    }
    bop_buf_deinit(&buf);
    bop__machine_walk_end(&walk);
    return rc < 0 && rc != BOP_ENOTFOUND ? rc : 0;
}

static int list(struct machine_view *view, const struct bop_operation *operation,
                struct bop_buf *out)
{
    struct machine_collection_record group;
    struct machine_page page;
    int rc = bop__machine_page_begin(&page, operation, out);

    if (rc != 0) {
        return rc;
    }
    rc = bop__machine_view_collection(view, COLLECTION_GROUP, operation->name, &group);
    if (rc == 0) {
        rc = fill(&page, view, group.id);
    } else if (rc == BOP_ENOTFOUND) {
        rc = 0;
    }
    return rc ? rc : bop__machine_page_end(&page, view->position.index);
}

static int get(struct machine_view *view, const struct bop_operation *operation,
               struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);
    struct machine_collection_record group;
    struct machine_key store_key;
    struct member member;
    uint64_t number = 0;
    int rc = bop__machine_view_collection(view, COLLECTION_GROUP, operation->name, &group);

    if (rc == 0) {
        rc = bop__machine_key_make(group.id, operation->key, &store_key);
    }
    if (rc == 0) {
        rc = member_find(view->txn, view->tables, group.id, &store_key, operation->key, &number,
                         &member);
    }
    if (rc != 0) {
        return rc == BOP_ENOTFOUND || rc == BOP_EEXISTS ? BOP_STATUS_NOT_FOUND : rc;
    }
    bop_write_u64(&writer, number);
    bop_write_u32(&writer, (uint32_t)(8 + 4 + member.info.size));
    bop_write_u64(&writer, member.session);
    bop_write_bytes(&writer, member.info);
    return writer.code ? writer.code : BOP_STATUS_OK;
}

int bop__machine_member_read(struct machine_view *view, const struct bop_operation *operation,
                             struct bop_buf *out)
{
    switch (operation->op) {
    case BOP_OP_MEMBER_LIST:
        return list(view, operation, out);
    case BOP_OP_MEMBER_GET:
        return get(view, operation, out);
    default:
        return BOP_STATUS_BAD_REQUEST;
    }
}
