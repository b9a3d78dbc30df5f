/*
 * Defects of the state machine, put in on purpose. All nodes have them, so that only
 * the model can tell. The linker leads calls from one file to another through here
 * (--wrap); nothing of this is in the product.
 */
#include "machine_internal.h"
#include "sim.h"

enum sim_mutation sim_defect;

struct session *__real_bop__machine_session_find(const struct machine *machine, uint64_t id);
struct session *__wrap_bop__machine_session_find(const struct machine *machine, uint64_t id);
int __real_bop__machine_undo_run(struct machine *machine);
int __wrap_bop__machine_undo_run(struct machine *machine);
int __real_bop__machine_timers(struct machine *machine, struct machine_reply *out_reply);
int __wrap_bop__machine_timers(struct machine *machine, struct machine_reply *out_reply);

/* Locks ask whether a session lives. */
struct session *__wrap_bop__machine_session_find(const struct machine *machine, uint64_t id)
{
    static struct session alive;
    struct session *found = __real_bop__machine_session_find(machine, id);

    if (found && found->ending && sim_defect == SIM_MUTATE_DEAD_OWNER) {
        alive = *found;
        alive.ending = false;
        return &alive;
    }
    return found;
}

int __wrap_bop__machine_undo_run(struct machine *machine)
{
    if (sim_defect == SIM_MUTATE_NO_UNDO) {
        bop__machine_undo_drop(machine);
        return 0;
    }
    return __real_bop__machine_undo_run(machine);
}

int __wrap_bop__machine_timers(struct machine *machine, struct machine_reply *out_reply)
{
    uint64_t time_ms = machine->position.time_ms;
    int rc;

    if (sim_defect == SIM_MUTATE_EARLY) {
        machine->position.time_ms += 300;
    }
    rc = __real_bop__machine_timers(machine, out_reply);
    machine->position.time_ms = time_ms;
    return rc;
}
