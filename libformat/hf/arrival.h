/* arrival.h -- is a file of a checkpoint there as a whole, or is it still being downloaded?
 *
 * Its size proves nothing: downloaders reserve it beforehand. What proves it: NAME.done beside it;
 * being renamed into place before our eyes; its SHA-256, where a list (sha256sum's form) or Hugging
 * Face's hub names one: .cache/huggingface/download/NAME.metadata, or the blob behind a link in the
 * hub's cache, whose name is its hash. A file that the list names must have that hash whatever else
 * speaks for it. Reads only files of the final name. Not thread-safe. */
#ifndef SCOUT_LIBFORMAT_HF_ARRIVAL_H
#define SCOUT_LIBFORMAT_HF_ARRIVAL_H

#include <stdbool.h>

#include "libformat/base/err.h"

struct sf_arrivals;

struct sf_arrivals_options {
    const char *sha256_list; /* a file; NULL: none */
    bool (*go_on)(
        void *context); /* asked while hashing: false ends with SF_EINTERRUPTED. NULL: yes */
    void *context;
};

int sf_arrivals_open(struct sf_arrivals **out, const char *directory,
                     const struct sf_arrivals_options *options, struct sf_err *err);
void sf_arrivals_close(struct sf_arrivals *arrivals); /* NULL is welcome */

/* *whole: it is there and proven. *why: half a sentence for people ("renamed into place", "there,
 * but nothing proves that it is whole"), valid until close. SF_EDAMAGED: something proves it, but
 * its hash is not the list's. `at_once`: nobody is writing, so hash a file even if it is new. */
int sf_arrivals_look(bool *whole, const char **why, struct sf_arrivals *arrivals, const char *name,
                     bool at_once, struct sf_err *err);
/* Is it in the list of hashes? */
bool sf_arrivals_lists(const struct sf_arrivals *arrivals, const char *name);
/* Waits until something happens in the folder, at most `seconds`. */
void sf_arrivals_wait(struct sf_arrivals *arrivals, double seconds);

#endif
