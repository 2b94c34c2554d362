/* hf_files.h -- small Hugging Face files, whole and broken, written into the scratch directory. */
#ifndef SCOUT_TESTS_FORMAT_HF_FILES_H
#define SCOUT_TESTS_FORMAT_HF_FILES_H

#include <stdint.h>

/* A safetensors file `name` in scratch: header length, header text, data_bytes zero bytes. Returns
 * its path. claimed_header < 0: the true length. */
const char *hf_write_safetensors(const char *name, const char *header, int64_t claimed_header,
                                 uint64_t data_bytes);
/* Plain text into scratch/name; returns its path. */
const char *hf_write_text(const char *name, const char *text);

#endif
