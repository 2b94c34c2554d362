/* event_file.h -- rows of metrics as TensorBoard reads them: a file of tfevents.
 *
 * A TFRecord file (length, masked CRC-32C, data, masked CRC-32C) of Event messages in protobuf's wire
 * format: first the version, then per row its time, step and one simple_value per metric, named as
 * transformers' TensorBoardCallback names them: eval_x becomes eval/x, all others train/x. Our own
 * 100 lines, as TensorFlow's writer would bring protobuf and more into the trainer.
 * Not thread-safe. */
#ifndef SCOUT_TRAIN_EVENT_FILE_H
#define SCOUT_TRAIN_EVENT_FILE_H

#include "train/metric_row.h"

struct sft_event_file; /* owns the file */

/* Replaces what stood at `path` by a file that holds the version alone. */
int sft_event_file_open(struct sft_event_file **out, const char *path, struct sf_err *err);
void sft_event_file_close(struct sft_event_file *file); /* NULL is welcome */
/* "step" and "time" of the row are the event's own. A metric without a number is left out. */
int sft_event_file_add(struct sft_event_file *file, const struct sft_metric_row *row,
                       struct sf_err *err);

/* CRC-32C (Castagnoli), reflected, as in iSCSI: "123456789" gives e3069283. */
uint32_t sft_crc32c(const void *data, uint64_t bytes);

#endif
