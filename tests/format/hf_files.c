#include "tests/format/hf_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "tests/support/support.h"

const char *hf_write_safetensors(const char *name, const char *header, int64_t claimed_header,
                                 uint64_t data_bytes)
{
    struct sf_err err = {0};
    const char *path = scout_scratch_path(name);
    size_t n = strlen(header);
    unsigned char *bytes = calloc(1, 8 + n + data_bytes);
    ck_assert_ptr_nonnull(bytes);
    sf_put_u64(bytes, claimed_header < 0 ? n : (uint64_t)claimed_header);
    memcpy(bytes + 8, header, n);
    assert_ok(sf_write_file(path, bytes, 8 + n + data_bytes, &err), err);
    free(bytes);
    return path;
}

const char *hf_write_text(const char *name, const char *text)
{
    struct sf_err err = {0};
    const char *path = scout_scratch_path(name);
    assert_ok(sf_write_file(path, text, strlen(text), &err), err);
    return path;
}
