/* step_private.h -- what a step holds between opening (step_open.c) and running (step.c). */
#ifndef SCOUT_TRAIN_STEP_PRIVATE_H
#define SCOUT_TRAIN_STEP_PRIVATE_H

#include "train/step.h"

struct step_program {
    struct sft_program wanted;
    struct sft_tape tape;
    struct sft_ports ports;
};

struct sft_step {
    struct sf_arena arena; /* tapes and what goes with them */
    struct sft_step_config config;
    const struct sft_image *image; /* NULL until allocated */
    struct step_program *program;
    struct sft_tape zero, update; /* of the adapter; without nodes where there is none */
    int32_t norm, clip, hyper;    /* ports of `update` */
    float *inv_freq;
    void *block, *host; /* where ops work; host memory that they reach */
    uint64_t block_bytes, host_bytes;
    int32_t *targets, *positions, *documents; /* of a batch, filled up to its tape's shape */
    const struct step_program *last;          /* runs, or ran last */
    sft_node_watch watch;
    void *watch_context;
    struct sft_profile profile;
};

#endif
