/* sha256.h -- the SHA-256 of a file, as sha256sum and Hugging Face's hub name it.
 *
 * Pure; any number of threads. The one door to OpenSSL's libcrypto, which uses the processor's SHA
 * instructions where it has them: a checkpoint has 217 GB. */
#ifndef SCOUT_LIBFORMAT_HF_SHA256_H
#define SCOUT_LIBFORMAT_HF_SHA256_H

#include <stdbool.h>

#include "libformat/base/err.h"

enum { SF_SHA256_TEXT = 65 };

/* 64 hexadecimal digits and a NUL into out[SF_SHA256_TEXT]. go_on (may be NULL) is asked now and
 * then: false ends with SF_EINTERRUPTED. */
int sf_sha256_file(char *out, const char *path, bool (*go_on)(void *context), void *context,
                   struct sf_err *err);
/* Copies 64 hexadecimal digits in lower case; false if text does not start with just those. */
bool sf_sha256_parse(char *out, const char *text);

#endif
