#include "train/event_file.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "libformat/base/append_file.h"
#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"

enum {
    NAME_BYTES = 64,
    VALUE_BYTES = 2 * NAME_BYTES,
    EVENT_BYTES = 64 + SFT_METRICS_MOST * VALUE_BYTES
};

struct sft_event_file {
    struct sf_append_file *file;
    unsigned char record[EVENT_BYTES + 16];
};

uint32_t sft_crc32c(const void *data, uint64_t bytes)
{
    const unsigned char *at = data;
    uint32_t crc = UINT32_MAX;
    for (uint64_t i = 0; i < bytes; i++) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

/* TFRecord stores checksums rotated and shifted, so that a record of records looks like none. */
static uint32_t masked_crc(const void *data, uint64_t bytes)
{
    uint32_t crc = sft_crc32c(data, bytes);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* ---- protobuf's wire format ---- */

enum wire { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 };

struct message {
    unsigned char *data;
    uint64_t bytes, room;
};

static void put(struct message *m, const void *data, uint64_t bytes)
{
    assert(bytes <= m->room - m->bytes);
    memcpy(m->data + m->bytes, data, bytes);
    m->bytes += bytes;
}

static void put_varint(struct message *m, uint64_t value)
{
    do {
        unsigned char byte = (unsigned char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        put(m, &byte, 1);
        value >>= 7;
    } while (value);
}

static void put_key(struct message *m, int field, enum wire wire)
{
    put_varint(m, (uint64_t)field << 3 | wire);
}

static void put_bytes(struct message *m, int field, const void *data, uint64_t bytes)
{
    put_key(m, field, LENGTH);
    put_varint(m, bytes);
    put(m, data, bytes);
}

static void put_double(struct message *m, int field, double value)
{
    unsigned char bytes[8];
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    sf_put_u64(bytes, bits);
    put_key(m, field, FIXED64);
    put(m, bytes, sizeof bytes);
}

static void put_float(struct message *m, int field, float value)
{
    unsigned char bytes[4];
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    sf_put_u32(bytes, bits);
    put_key(m, field, FIXED32);
    put(m, bytes, sizeof bytes);
}

/* ---- TensorFlow's messages: event.proto, summary.proto ---- */

enum { EVENT_WALL_TIME = 1, EVENT_STEP = 2, EVENT_FILE_VERSION = 3, EVENT_SUMMARY = 5 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE_VALUE = 2 };

static void begin_event(struct message *m, double time, int64_t step)
{
    put_double(m, EVENT_WALL_TIME, time);
    put_key(m, EVENT_STEP, VARINT);
    put_varint(m, (uint64_t)step);
}

static void put_value(struct message *summary, const char *name, double number)
{
    unsigned char data[VALUE_BYTES];
    char tag[NAME_BYTES];
    struct message value = {data, 0, sizeof data};
    bool eval = strncmp(name, "eval_", 5) == 0;
    const char *base = eval ? "eval/" : "train/", *rest = eval ? name + 5 : name;
    if (strlen(base) + strlen(rest) >= sizeof tag)
        return;
    memcpy(tag, base, strlen(base));
    memcpy(tag + strlen(base), rest, strlen(rest) + 1);
    put_bytes(&value, VALUE_TAG, tag, strlen(tag));
    put_float(&value, VALUE_SIMPLE_VALUE, (float)number);
    put_bytes(summary, SUMMARY_VALUE, value.data, value.bytes);
}

/* ---- the file ---- */

/* The event in record + 12, then what goes around it; in one write, so that none is ever torn. */
static int add_record(struct sft_event_file *file, uint64_t bytes, struct sf_err *err)
{
    unsigned char *r = file->record;
    sf_put_u64(r, bytes);
    sf_put_u32(r + 8, masked_crc(r, 8));
    sf_put_u32(r + 12 + bytes, masked_crc(r + 12, bytes));
    return sf_append_file_add(file->file, r, bytes + 16, err);
}

static struct message event_of(struct sft_event_file *file)
{
    return (struct message){file->record + 12, 0, EVENT_BYTES};
}

static int begin(struct sft_event_file *file, const char *path, struct sf_err *err)
{
    static const char version[] = "brain.Event:2";
    int code = sf_append_file_open(&file->file, path, err);
    if (!code)
        code = sf_append_file_cut(file->file, 0, err);
    if (code)
        return code;
    struct message event = event_of(file);
    put_double(&event, EVENT_WALL_TIME, 0);
    put_bytes(&event, EVENT_FILE_VERSION, version, sizeof version - 1);
    return add_record(file, event.bytes, err);
}

int sft_event_file_open(struct sft_event_file **out, const char *path, struct sf_err *err)
{
    void *memory;
    int code = sf_alloc_for(&memory, sizeof(struct sft_event_file), "TensorBoard's file", err);
    if (code)
        return code;
    struct sft_event_file *file = memory;
    code = begin(file, path, err);
    if (code)
        sft_event_file_close(file);
    else
        *out = file;
    return code;
}

void sft_event_file_close(struct sft_event_file *file)
{
    if (!file)
        return;
    sf_append_file_close(file->file);
    sf_free(file);
}

/* The epoch stands in the step's own row already. */
static bool is_scalar(const struct sft_metric_row *row, int i)
{
    const char *name = row->item[i].name;
    bool eval = !isnan(sft_metric_row_get(row, "eval_loss"));
    return strcmp(name, "time") != 0 && strcmp(name, "step") != 0 &&
           !(eval && strcmp(name, "epoch") == 0) && !isnan(row->item[i].value);
}

int sft_event_file_add(struct sft_event_file *file, const struct sft_metric_row *row,
                       struct sf_err *err)
{
    unsigned char data[EVENT_BYTES - 64];
    struct message event = event_of(file), summary = {data, 0, sizeof data};
    double time = sft_metric_row_get(row, "time"), step = sft_metric_row_get(row, "step");
    for (int i = 0; i < row->count; i++)
        if (is_scalar(row, i))
            put_value(&summary, row->item[i].name, row->item[i].value);
    begin_event(&event, isnan(time) ? 0 : time, step > 0 && step < 0x1p53 ? (int64_t)step : 0);
    put_bytes(&event, EVENT_SUMMARY, summary.data, summary.bytes);
    return add_record(file, event.bytes, err);
}
