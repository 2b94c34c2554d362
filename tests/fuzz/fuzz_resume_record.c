/* Any bytes as a checkpoint's resume.json, its checksum made right so that they go deep, and as a row of
 * metrics.jsonl: refused with a sentence, or read, and then written and read again to the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/metric_row.h"
#include "train/resume_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sf_arena arena;

static void check(int code, const struct sf_err *err)
{
    if (code != SF_OK && (err->code != code || !err->message[0]))
        abort(); /* no sentence */
}

static char *write_again(const struct sft_resume_record *record, uint64_t *bytes)
{
    struct sf_err err = {0};
    char *text;
    if (sft_resume_record_write(&text, bytes, &arena, record, &err) != SF_OK)
        abort();
    return text;
}

static void try_record(const char *text, uint64_t bytes)
{
    struct sft_resume_record record, again;
    struct sf_err err = {0};
    uint64_t once_bytes, twice_bytes;
    int code = sft_resume_record_read(&record, &arena, text, bytes, &err);
    check(code, &err);
    if (code != SF_OK)
        return;
    char *once = write_again(&record, &once_bytes);
    if (sft_resume_record_read(&again, &arena, once, once_bytes, &err) != SF_OK)
        abort();
    char *twice = write_again(&again, &twice_bytes);
    if (once_bytes != twice_bytes || memcmp(once, twice, once_bytes) != 0)
        abort();
    if (sft_facts_differences(&arena, &record.run, &again.run))
        abort();
    sft_facts_add(&again.run, &arena, "seed", "%d", 42);
    sft_facts_add_double(&again.run, &arena, "a fact that no record has", 0.1);
    if (!sft_facts_differences(&arena, &record.run, &again.run) ||
        !sft_facts_differences(&arena, &again.run, &record.run))
        abort();
}

static void try_row(const char *text, uint64_t bytes)
{
    struct sft_metric_row row, again;
    struct sf_err err = {0};
    char *line;
    uint64_t line_bytes;
    int code = sft_metric_row_read(&row, &arena, text, bytes, &err);
    check(code, &err);
    if (code != SF_OK)
        return;
    if (sft_metric_row_write(&line, &line_bytes, &arena, &row, &err) != SF_OK ||
        sft_metric_row_read(&again, &arena, line, line_bytes, &err) != SF_OK ||
        again.count != row.count)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    try_record(text, size);
    try_row(text, size);
    if (size < 1 << 16) {
        struct sf_hash128 h = sf_hash128(data, size);
        char *whole = sf_arena_alloc(&arena, size + 64);
        if (!whole)
            abort();
        memcpy(whole, data, size);
        int more = snprintf(whole + size, 64, ",\"checksum\":\"%016llx%016llx\"}\n",
                            (unsigned long long)h.high, (unsigned long long)h.low);
        try_record(whole, size + (uint64_t)more);
    }
    sf_arena_reset(&arena);
    return 0;
}
