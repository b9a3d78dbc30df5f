/*
 * Changing the store, so that a transaction can be taken back: while one is under
 * way, what was there is written down before each change, and put back from the end
 * to the beginning if the transaction fails.
 *
 * A past of the state that is being walked is told by the same functions (machine_past.h).
 *
 * What lies in memory only (sizes of collections, how much sessions own) goes to the store
 * before the transaction begins, and is read from there again after it was taken back.
 *
 * A record of the list: its own size at the end, so that it can be walked backwards.
 *
 *      table u8, existed B, key b, [value], size of all that u32
 */
#include "machine_past.h"

/* ---- Writing down what was there ---- */

static int note_record(struct machine *machine, enum machine_table table, struct bop_slice key,
                       bool existed, struct bop_slice value)
{
    struct bop_buf *records = &machine->undo.records;
    struct bop_writer writer = bop_writer(records);
    size_t begin = records->size;

    bop_write_u8(&writer, (uint8_t)table);
    bop_write_bool(&writer, existed);
    bop_write_bytes(&writer, key);
    bop_write_raw(&writer, value);
    bop_write_u32(&writer, (uint32_t)(records->size - begin));
    return writer.code;
}

/* Whether a past that is being walked wants to know. */
static bool past_wants(const struct machine *machine, enum machine_table table,
                       struct bop_slice key, bool goes)
{
    return BOP_UNLIKELY(machine->past != NULL) &&
           bop__machine_past_wants(machine->past, table, key, goes);
}

/* What is there before it changes, to whoever may want it. */
static int note_what_is(struct machine *machine, enum machine_table table, struct bop_slice key,
                        bool goes, bool undo)
{
    bool past = past_wants(machine, table, key, goes);
    struct bop_slice value = bop_slice(NULL, 0);
    int rc;

    if (BOP_LIKELY(!past && !undo)) {
        return 0;
    }
    rc = bop_kv_get(machine->txn, machine->tables[table], key, &value);
    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    if (past) {
        bop__machine_past_note(
            machine->past,
            &(struct past_note){
                .table = table, .existed = rc == 0, .goes = goes, .key = key, .value = value});
    }
    return undo ? note_record(machine, table, key, rc == 0, value) : 0;
}

static int put(struct machine *machine, enum machine_table table, struct bop_slice key,
               struct bop_slice value, bool undo)
{
    int rc = note_what_is(machine, table, key, false, undo);

    return rc ? rc : bop_kv_put(machine->txn, machine->tables[table], key, value);
}

static int del(struct machine *machine, enum machine_table table, struct bop_slice key, bool undo)
{
    int rc = note_what_is(machine, table, key, true, undo);

    return rc ? rc : bop_kv_del(machine->txn, machine->tables[table], key);
}

static int cursor_del(struct machine *machine, enum machine_table table,
                      struct bop_kv_cursor *cursor, struct bop_slice key, struct bop_slice value,
                      bool undo)
{
    int rc = undo ? note_record(machine, table, key, true, value) : 0;

    if (past_wants(machine, table, key, true)) {
        bop__machine_past_note(
            machine->past,
            &(struct past_note){
                .table = table, .existed = true, .goes = true, .key = key, .value = value});
    }
    return rc ? rc : bop_kv_cursor_del(cursor, false);
}

int bop__machine_put(struct machine *machine, enum machine_table table, struct bop_slice key,
                     struct bop_slice value)
{
    return put(machine, table, key, value, machine->undo.active);
}

int bop__machine_insert(struct machine *machine, enum machine_table table, struct bop_slice key,
                        struct bop_slice value, struct bop_slice *out_existing)
{
    int rc = note_what_is(machine, table, key, false, machine->undo.active);

    return rc ? rc
              : bop_kv_put_with(machine->txn, machine->tables[table], key, value,
                                BOP_KV_NO_OVERWRITE, out_existing);
}

int bop__machine_del(struct machine *machine, enum machine_table table, struct bop_slice key)
{
    return del(machine, table, key, machine->undo.active);
}

int bop__machine_cursor_del(struct machine *machine, enum machine_table table,
                            struct bop_kv_cursor *cursor, struct bop_slice key,
                            struct bop_slice value)
{
    return cursor_del(machine, table, cursor, key, value, machine->undo.active);
}

int bop__machine_put_lasting(struct machine *machine, enum machine_table table,
                             struct bop_slice key, struct bop_slice value)
{
    return put(machine, table, key, value, false);
}

int bop__machine_del_lasting(struct machine *machine, enum machine_table table,
                             struct bop_slice key)
{
    return del(machine, table, key, false);
}

int bop__machine_cursor_del_lasting(struct machine *machine, enum machine_table table,
                                    struct bop_kv_cursor *cursor, struct bop_slice key,
                                    struct bop_slice value)
{
    return cursor_del(machine, table, cursor, key, value, false);
}

/* ---- Taking it back ---- */

int bop__machine_undo_begin(struct machine *machine)
{
    struct machine_undo *undo = &machine->undo;
    int rc = bop__machine_collections_flush(machine);

    BOP_ASSERT(!undo->active);
    if (rc == 0) {
        rc = bop__machine_owned_flush(machine);
    }
    if (rc < 0) {
        return rc;
    }
    bop_buf_clear(&undo->records);
    undo->active = true;
    undo->map_next = machine->map_next;
    undo->garbage = machine->garbage;
    undo->batch_entries = machine->batch_entries;
    undo->deadline_next = machine->deadline_next;
    undo->events_size = machine->events ? machine->events->size : 0;
    return 0;
}

void bop__machine_undo_drop(struct machine *machine)
{
    machine->undo.active = false;
    if (machine->undo.records.capacity > MACHINE_SCRATCH_BYTES_KEPT) {
        bop_buf_deinit(&machine->undo.records);
        bop_buf_init(&machine->undo.records, machine->allocator, 0);
    }
}

/* Put back what the record that ends at `end` says; *out_begin is where the one before it ends. */
static int put_back(struct machine *machine, size_t end, size_t *out_begin)
{
    const uint8_t *bytes = machine->undo.records.data;
    size_t size = bop_load_u32(bytes + end - 4);
    struct bop_reader reader = bop_reader(bop_slice(bytes + end - 4 - size, size));
    enum machine_table table = (enum machine_table)bop_read_u8(&reader);
    bool existed = bop_read_bool(&reader);
    struct bop_slice key = bop_read_bytes(&reader);
    int rc;

    *out_begin = end - 4 - size;
    if (existed) {
        return put(machine, table, key, bop_slice(reader.at, bop_reader_left(&reader)), false);
    }
    rc = del(machine, table, key, false);
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

int bop__machine_undo_run(struct machine *machine)
{
    struct machine_undo *undo = &machine->undo;

    BOP_ASSERT(undo->active);
    for (size_t end = undo->records.size; end > 0;) {
        int rc = put_back(machine, end, &end);

        if (rc < 0) {
            return rc;
        }
    }
    bop__machine_collections_forget(machine);
    bop__machine_owned_forget(machine);
    machine->map_next = undo->map_next;
    machine->garbage = undo->garbage;
    machine->batch_entries = undo->batch_entries;
    machine->deadline_next = undo->deadline_next;
    if (machine->events) {
        machine->events->size = undo->events_size;
    }
    bop__machine_undo_drop(machine);
    return 0;
}

/* ---- Telling ---- */

int bop__machine_event(struct machine *machine, const struct bop_event *event)
{
    struct bop_writer writer;

    if (!machine->events) {
        return 0;
    }
    writer = bop_writer(machine->events);
    bop_event_encode(&writer, event);
    return writer.code;
}
