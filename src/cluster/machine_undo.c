/*
 * Changing the store, so that a transaction can be taken back: while one is under
 * way, what was there is written down before each change, and put back from the end
 * to the beginning if the transaction fails.
 *
 * What lies in memory only (sizes of collections, how much sessions own) goes to the store
 * before the transaction begins, and is read from there again after it was taken back.
 *
 * A record of the list: its own size at the end, so that it can be walked backwards.
 *
 *      table u8, existed B, key b, [value], size of all that u32
 */
#include "machine_internal.h"

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

static int note_what_is(struct machine *machine, enum machine_table table, struct bop_slice key)
{
    struct bop_slice value = bop_slice(NULL, 0);
    int rc = bop_kv_get(machine->txn, machine->tables[table], key, &value);

    return rc < 0 && rc != BOP_ENOTFOUND ? rc : note_record(machine, table, key, rc == 0, value);
}

int bop__machine_put(struct machine *machine, enum machine_table table, struct bop_slice key,
                     struct bop_slice value)
{
    int rc = machine->undo.active ? note_what_is(machine, table, key) : 0;

    return rc ? rc : bop_kv_put(machine->txn, machine->tables[table], key, value);
}

int bop__machine_del(struct machine *machine, enum machine_table table, struct bop_slice key)
{
    int rc = machine->undo.active ? note_what_is(machine, table, key) : 0;

    return rc ? rc : bop_kv_del(machine->txn, machine->tables[table], key);
}

int bop__machine_cursor_del(struct machine *machine, enum machine_table table,
                            struct bop_kv_cursor *cursor, struct bop_slice key,
                            struct bop_slice value)
{
    int rc = machine->undo.active ? note_record(machine, table, key, true, value) : 0;

    return rc ? rc : bop_kv_cursor_del(cursor, false);
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
        return bop_kv_put(machine->txn, machine->tables[table], key,
                          bop_slice(reader.at, bop_reader_left(&reader)));
    }
    rc = bop_kv_del(machine->txn, machine->tables[table], key);
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
