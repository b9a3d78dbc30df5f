/*
 * The public calls: through the table of the engine that made the instance.
 */
#include <bop/raft.h>

int bop_raft_create(const struct bop_raft_engine *engine, const struct bop_raft_options *options,
                    struct bop_raft **out_raft, struct bop_error *err)
{
    if (!engine) {
        engine = bop_raft_engine_libraft();
    }
    return engine->create(options, out_raft, err);
}

void bop_raft_destroy(struct bop_raft *raft)
{
    if (raft) {
        raft->engine->destroy(raft);
    }
}

int bop_raft_step(struct bop_raft *raft, const struct bop_raft_event *event,
                  struct bop_raft_update *out_update)
{
    return raft->engine->step(raft, event, out_update);
}

uint64_t bop_raft_deadline_ms(const struct bop_raft *raft)
{
    return raft->engine->deadline_ms(raft);
}

void bop_raft_status(const struct bop_raft *raft, struct bop_raft_status *out_status)
{
    raft->engine->status(raft, out_status);
}

void bop_raft_configuration(const struct bop_raft *raft, struct bop_raft_configuration *out_conf,
                            uint64_t *out_committed_index)
{
    raft->engine->configuration(raft, out_conf, out_committed_index);
}

uint64_t bop_raft_match_index(const struct bop_raft *raft, uint64_t peer)
{
    return raft->engine->match_index(raft, peer);
}

int bop_raft_tune(struct bop_raft *raft, const struct bop_raft_options *options)
{
    return raft->engine->tune ? raft->engine->tune(raft, options) : BOP_EUNSUPPORTED;
}

const char *bop_raft_last_error(const struct bop_raft *raft)
{
    return raft->engine->last_error(raft);
}
