/* run_facts.h -- what decides the arithmetic of a run, as facts to compare (resume_record.h).
 *
 * Names are the command line's. What only decides when things are written, or how memory is used,
 * is left out: it may change from session to session. */
#ifndef SCOUT_TRAIN_RUN_FACTS_H
#define SCOUT_TRAIN_RUN_FACTS_H

#include "train/resume_record.h"
#include "train/trainer.h"

/* `schedule` with the run's steps and warm-up. SF_ENOMEM. */
int sft_run_facts(struct sft_facts *out, struct sf_arena *arena,
                  const struct sft_trainer_config *config, const struct sft_schedule *schedule,
                  struct sf_err *err);

#endif
