#include "libformat/convert/convert.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/jobs.h"
#include "libformat/base/mem.h"
#include "libformat/convert/convert_finish.h"
#include "libformat/convert/convert_resume.h"
#include "libformat/convert/convert_work.h"
#include "libformat/convert/matrix_encode.h"

/* At most three waves are unfinished at a time: one computed, one written, one synced. Killed then,
 * that much is done again: 3 x 128 MiB, below the 512 MB that we promise. */
static const uint64_t WAVE_BYTES = 128u << 20;
/* Waves begin small and double: a run that is stopped soon after it began has done something, too. */
static const uint64_t FIRST_WAVE_BYTES = 8u << 20;
static const uint64_t UNFINISHED_BYTES = 480u << 20;
static const uint64_t AHEAD_BYTES = 192u << 20; /* of source, read while a wave is computed */

enum { WAVE_UNITS = 256, WAVES = 3 };

struct wave {
    int64_t unit[WAVE_UNITS];
    uint64_t at[WAVE_UNITS]; /* of the unit in the buffer */
    int64_t units;
    unsigned char *buffer; /* zero but for what this wave wrote */
};

enum task_kind {
    TASK_SYNC,  /* a wave: sync, journal */
    TASK_PUT,   /* a unit: checksums, write */
    TASK_AHEAD, /* read ahead behind the wave in hand */
    TASK_HASH,  /* a piece */
    TASK_BUILD, /* one tensor of a unit */
    TASK_COPY   /* a stored unit */
};

struct task {
    enum task_kind kind;
    struct wave *wave;
    int64_t index; /* in the wave; for HASH of the piece */
    int64_t row;
};

struct run {
    struct sf_convert_plan *plan;
    const struct sf_convert_options *options;
    struct sf_journal *journal;
    struct sf_writer *writer;
    struct sf_work work;
    struct sf_encode_scratch *scratch; /* [threads] */
    int threads;
    unsigned char *buffer[2];
    uint64_t buffer_bytes, wave_bytes, next_wave_bytes;
    bool one_wave; /* units so large that a wave is finished before the next begins */
    struct wave wave[WAVES];
    struct task *task;
    int64_t tasks, next_unit;
    bool progress;     /* the journal holds a unit: worth keeping */
    atomic_ullong put; /* payload bytes written, by earlier runs too */
    atomic_bool stop;  /* on_progress said so */
};

static const struct sf_extent *extent_of(const struct run *run, const struct sf_unit *unit)
{
    return sf_layout_extent_at(run->plan->layout, unit->extent);
}

static const struct sf_safetensors *file_of(const struct run *run, const struct sf_piece *piece)
{
    return sf_hf_index_shard(run->plan->index, piece->shard)->file;
}

/* ---- tasks, each on any thread ---- */

static int sync_wave(struct run *run, const struct wave *wave, struct sf_err *err)
{
    int code = sf_writer_sync(run->writer, err); /* the data first, then the word for it */
    for (int64_t i = 0; i < wave->units && code == SF_OK; i++)
        code = sf_resume_record(run->journal, &run->work, run->writer,
                                &run->work.unit[wave->unit[i]], err);
    if (code == SF_OK)
        code = sf_journal_sync(run->journal, err);
    for (int64_t i = 0; i < wave->units && code == SF_OK; i++) {
        run->work.unit[wave->unit[i]].done = true;
        run->progress = true;
    }
    return code;
}

static int put_unit(struct run *run, const struct wave *wave, int64_t index, struct sf_err *err)
{
    const struct sf_unit *unit = &run->work.unit[wave->unit[index]];
    unsigned char *data = wave->buffer + wave->at[index];
    int code = sf_writer_put(run->writer, unit->extent, unit->offset, data, unit->bytes, err);
    memset(data, 0, unit->bytes);
    atomic_fetch_add(&run->put, unit->bytes);
    return code;
}

static void read_ahead(const struct run *run)
{
    uint64_t left = AHEAD_BYTES;
    for (int64_t u = run->next_unit; u < run->work.units && left > 0; u++) {
        const struct sf_unit *unit = &run->work.unit[u];
        for (int64_t i = 0; !unit->done && !unit->waits && i < unit->pieces && left > 0; i++) {
            const struct sf_piece *p = &run->work.piece[unit->first_piece + i];
            sf_safetensors_prefetch(file_of(run, p), &p->bytes);
            left -= p->bytes.bytes < left ? p->bytes.bytes : left;
        }
    }
}

/* First the whole piece in one go, in the disk's order: turning then finds it in memory. */
static void hash_piece(const struct run *run, struct sf_piece *p)
{
    sf_safetensors_prefetch(file_of(run, p), &p->bytes);
    p->hash = sf_hash128(p->bytes.data, p->bytes.bytes);
    p->done = true;
}

static int copy_row(const struct run *run, unsigned char *out, const struct sf_unit *unit,
                    const struct sf_convert_row *row, struct sf_err *err)
{
    const struct sf_entry *e = row->entry;
    uint64_t begin, end, base = extent_of(run, unit)->address + unit->offset;
    if (!sf_work_overlap(&begin, &end, &run->work, unit, row))
        return SF_OK;
    uint64_t offset = begin - e->plane[SF_PLANE_CODES].address;
    const unsigned char *src = (const unsigned char *)row->source.tensor->data + offset;
    memcpy(out + (begin - base), src, end - begin);
    if (e->role.part == SF_PART_UNUSED)
        return SF_OK;
    uint64_t size = sf_dtype_bytes(e->dtype);
    return sf_check_finite(src, e->dtype, (int64_t)(offset / size), (int64_t)((end - begin) / size),
                           e->name, err);
}

static int copy_unit(const struct run *run, const struct wave *wave, int64_t index,
                     struct sf_err *err)
{
    const struct sf_unit *unit = &run->work.unit[wave->unit[index]];
    int code = SF_OK;
    for (int64_t i = unit->first_row; i < unit->first_row + unit->rows && code == SF_OK; i++)
        code = copy_row(run, wave->buffer + wave->at[index], unit, &run->plan->row[i], err);
    return code;
}

static int run_task(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct run *run = context;
    const struct task *t = &run->task[index];
    const struct sf_convert_options *o = run->options;
    int code = SF_OK;
    if (t->kind == TASK_SYNC)
        code = sync_wave(run, t->wave, err);
    else if (t->kind == TASK_PUT)
        code = put_unit(run, t->wave, t->index, err);
    else if (t->kind == TASK_AHEAD)
        read_ahead(run);
    else if (t->kind == TASK_HASH)
        hash_piece(run, &run->work.piece[t->index]);
    else if (t->kind == TASK_COPY)
        code = copy_unit(run, t->wave, t->index, err);
    else
        code = sf_matrix_encode(t->wave->buffer + t->wave->at[t->index],
                                extent_of(run, &run->work.unit[t->wave->unit[t->index]])->address,
                                &run->plan->row[t->row], &run->scratch[worker], err);
    /* The caller's own thread is worker 0: it alone talks to the caller. */
    if (worker == 0 && o->on_progress &&
        !o->on_progress(o->context, atomic_load(&run->put), run->work.bytes))
        atomic_store(&run->stop, true);
    if (code == SF_OK && atomic_load(&run->stop))
        return sf_fail(err, SF_EINTERRUPTED, "interrupted");
    return code;
}

/* ---- waves ---- */

/* The next units that are not done, as many as a wave may hold; false when none is left. */
static bool compose(struct run *run, struct wave *wave, unsigned char *buffer)
{
    uint64_t used = 0;
    *wave = (struct wave){.buffer = buffer};
    for (; run->next_unit < run->work.units && wave->units < WAVE_UNITS; run->next_unit++) {
        const struct sf_unit *unit = &run->work.unit[run->next_unit];
        if (unit->done || unit->waits)
            continue;
        if (wave->units > 0 && used + unit->bytes > run->next_wave_bytes)
            break;
        wave->at[wave->units] = used;
        wave->unit[wave->units++] = run->next_unit;
        used += unit->bytes;
    }
    run->next_wave_bytes *= 2;
    if (run->next_wave_bytes > run->wave_bytes)
        run->next_wave_bytes = run->wave_bytes;
    return wave->units > 0;
}

static void add_task(struct run *run, struct task task)
{
    run->task[run->tasks++] = task;
}

/* Pieces before tensors: see hash_piece. */
static void add_computing(struct run *run, struct wave *wave)
{
    for (int64_t i = 0; i < wave->units; i++) {
        const struct sf_unit *unit = &run->work.unit[wave->unit[i]];
        for (int64_t k = 0; k < unit->pieces; k++)
            add_task(run, (struct task){TASK_HASH, wave, unit->first_piece + k, 0});
    }
    for (int64_t i = 0; i < wave->units; i++) {
        const struct sf_unit *unit = &run->work.unit[wave->unit[i]];
        if (unit->stored)
            add_task(run, (struct task){TASK_COPY, wave, i, 0});
        for (int64_t k = 0; !unit->stored && k < unit->rows; k++)
            add_task(run, (struct task){TASK_BUILD, wave, i, unit->first_row + k});
    }
    add_task(run, (struct task){TASK_AHEAD, wave, 0, 0});
}

static void let_go(const struct run *run, const struct wave *wave)
{
    for (int64_t i = 0; i < wave->units; i++) {
        const struct sf_unit *unit = &run->work.unit[wave->unit[i]];
        for (int64_t k = unit->first_piece; k < unit->first_piece + unit->pieces; k++)
            sf_safetensors_release(file_of(run, &run->work.piece[k]), &run->work.piece[k].bytes);
    }
}

/* Nothing of a shard that shrank while a wave was computed from it is written. */
static int check_sources(const struct run *run, struct sf_err *err)
{
    int code = SF_OK;
    for (int64_t i = 0; i < sf_hf_index_shard_count(run->plan->index) && code == SF_OK; i++)
        code = sf_safetensors_check(sf_hf_index_shard(run->plan->index, i)->file, err);
    return code;
}

/* Any of the three may be NULL. */
static int run_step(struct run *run, struct wave *compute, struct wave *put, struct wave *sync,
                    struct sf_err *err)
{
    run->tasks = 0;
    if (sync)
        add_task(run, (struct task){TASK_SYNC, sync, 0, 0});
    for (int64_t i = 0; put && i < put->units; i++)
        add_task(run, (struct task){TASK_PUT, put, i, 0});
    if (compute)
        add_computing(run, compute);
    int code = sf_jobs_run(run_task, run, run->tasks, run->threads, err);
    if (compute && code == SF_OK)
        code = check_sources(run, err);
    if (compute)
        let_go(run, compute);
    return code;
}

/* Tells of shards that are done, first letting go of them. */
static int tell_done(struct run *run, struct sf_err *err)
{
    const struct sf_hf_index *index = run->plan->index;
    const struct sf_convert_options *o = run->options;
    int code = SF_OK;
    if (!o->on_source_done)
        return SF_OK;
    sf_work_still_needed(run->plan->needed, &run->work);
    for (int64_t i = 0; i < sf_hf_index_shard_count(index) && code == SF_OK; i++) {
        const struct sf_hf_shard *s = sf_hf_index_shard(index, i);
        if (run->plan->needed[i] || !sf_safetensors_is_there(s->file))
            continue;
        code = sf_hf_index_forget(index, i, err);
        if (code == SF_OK)
            code = o->on_source_done(o->context, s, err);
    }
    return code;
}

static int run_waves(struct run *run, struct sf_err *err)
{
    struct wave *put = NULL, *sync = NULL;
    int code = SF_OK;
    for (int64_t n = 0; code == SF_OK; n++) {
        struct wave *wave = &run->wave[n % WAVES];
        if (!compose(run, wave, run->buffer[run->one_wave ? 0 : n % 2]))
            wave = NULL;
        if (!wave && !put && !sync)
            break;
        code = run_step(run, wave, put, sync, err);
        sync = put;
        put = wave;
        for (int i = 0; i < 2 && run->one_wave && code == SF_OK; i++) {
            code = run_step(run, NULL, put, sync, err);
            sync = put;
            put = NULL;
        }
        if (run->one_wave)
            sync = NULL;
        if (code == SF_OK)
            code = tell_done(run, err);
    }
    return code;
}

/* ---- the whole ---- */

static int open_buffers(struct run *run, struct sf_err *err)
{
    uint64_t wave = run->options->wave_bytes ? run->options->wave_bytes : WAVE_BYTES;
    uint64_t largest = run->work.largest_unit;
    run->wave_bytes = wave < run->work.bytes ? wave : run->work.bytes;
    run->buffer_bytes = run->wave_bytes > largest ? run->wave_bytes : largest;
    run->next_wave_bytes = FIRST_WAVE_BYTES < run->wave_bytes ? FIRST_WAVE_BYTES : run->wave_bytes;
    run->one_wave = run->buffer_bytes > UNFINISHED_BYTES / 3;
    int code = SF_OK;
    for (int i = 0; i < (run->one_wave ? 1 : 2) && code == SF_OK; i++) {
        void *buffer;
        code = sf_alloc_for(&buffer, run->buffer_bytes, "output in the making", err);
        run->buffer[i] = buffer;
    }
    for (int i = 0; i < run->threads && code == SF_OK; i++)
        code = sf_encode_scratch_open(&run->scratch[i], run->plan, err);
    return code;
}

static int open_run(struct run *run, struct sf_err *err)
{
    int64_t shards = sf_hf_index_shard_count(run->plan->index);
    int code = sf_work_cut(&run->work, run->plan, err);
    if (code != SF_OK)
        return code;
    struct sf_arena *a = &run->work.arena;
    run->plan->needed = sf_arena_array(&run->plan->arena, (uint64_t)shards, sizeof(bool));
    run->scratch = sf_arena_array(a, (uint64_t)run->threads, sizeof *run->scratch);
    run->task =
        sf_arena_array(a, (uint64_t)(run->plan->rows + run->work.pieces + 2 * run->work.units + 2),
                       sizeof *run->task);
    if (!run->plan->needed || !run->scratch || !run->task)
        return sf_fail(err, SF_ENOMEM, "no memory for a conversion");
    return SF_OK;
}

static void close_run(struct run *run)
{
    for (int i = 0; run->scratch && i < run->threads; i++)
        sf_encode_scratch_close(&run->scratch[i]);
    sf_free(run->buffer[0]);
    sf_free(run->buffer[1]);
    sf_work_free(&run->work);
}

static int take_up(struct run *run, uint64_t standing, struct sf_err *err)
{
    int code =
        sf_resume_take_up(&run->work, run->journal, run->writer, standing, run->options, err);
    for (int64_t i = 0; i < run->work.units; i++) {
        if (!run->work.unit[i].done)
            continue;
        atomic_fetch_add(&run->put, run->work.unit[i].bytes);
        run->progress = true;
    }
    return code;
}

static uint64_t done_bytes(const struct run *run)
{
    uint64_t done = 0;
    for (int64_t i = 0; i < run->work.units; i++)
        done += run->work.unit[i].done ? run->work.unit[i].bytes : 0;
    return done;
}

static bool is_waiting(const struct run *run)
{
    for (int64_t i = 0; i < run->work.units; i++)
        if (run->work.unit[i].waits)
            return true;
    return run->plan->waits != NULL;
}

static int write_container(struct run *run, const char *path, struct sf_convert_result *result,
                           struct sf_err *err)
{
    uint64_t standing = 0;
    int code = sf_finish_check_room(run->plan, run->options, err);
    if (code == SF_OK)
        code = open_buffers(run, err);
    if (code == SF_OK)
        code = sf_finish_take_back(&run->work, run->journal, path, err);
    if (code == SF_OK)
        code = sf_writer_resume(&run->writer, &standing, path, run->plan->layout, err);
    if (code == SF_OK)
        code = take_up(run, standing, err);
    result->kept_bytes = atomic_load(&run->put);
    if (code == SF_OK)
        code = tell_done(run, err);
    if (code == SF_OK)
        code = run_waves(run, err);
    if (code != SF_OK)
        return code;
    result->done_bytes = done_bytes(run);
    if (!is_waiting(run)) {
        struct sf_writer *writer = run->writer;
        run->writer = NULL; /* gone either way */
        return sf_finish_commit(writer, &run->work, run->journal, run->options, err);
    }
    result->waits = true;
    sf_work_still_needed(run->plan->needed, &run->work);
    if (result->done_bytes == 0) { /* nothing to come back to */
        sf_writer_abort(run->writer);
        code = sf_journal_clear(run->journal, err);
    } else {
        sf_writer_keep(run->writer);
    }
    run->writer = NULL;
    return code;
}

/* Keeps what an interrupted or failed run has done, says so, and leaves nothing otherwise. */
static int give_up(struct run *run, int code, struct sf_err *err)
{
    uint64_t done = done_bytes(run);
    struct sf_err why = {0};
    if (run->progress) {
        sf_writer_keep(run->writer);
        if (err)
            why = *err;
        if (done == 0) /* failed before it could look what there is */
            return sf_fail(err, code, "%s; what was done is kept", why.message);
        return sf_fail(err, code, "%s; %.0f %% is kept, the same command goes on from there",
                       why.message, 100.0 * (double)done / (double)run->work.bytes);
    }
    sf_writer_abort(run->writer);
    sf_journal_clear(run->journal, NULL);
    return code;
}

int sf_convert_go_on(struct sf_convert_result *result, struct sf_convert_plan *plan,
                     struct sf_journal *journal, const char *path,
                     const struct sf_convert_options *options, struct sf_err *err)
{
    struct sf_convert_result unasked;
    struct run run = {.plan = plan,
                      .options = options,
                      .journal = journal,
                      .threads = options->threads < 1 ? 1 : options->threads,
                      .progress = sf_journal_find(journal, SF_JOURNAL_UNIT) != NULL};
    result = result ? result : &unasked;
    *result = (struct sf_convert_result){0};
    int code = open_run(&run, err);
    if (code == SF_OK && (code = sf_resume_match(journal, &run.work, options, err)) != SF_OK)
        sf_err_prefix(err, "%s.journal", path);
    if (code == SF_OK && sf_finish_is_committed(&run.work, journal, path)) {
        result->kept_bytes = result->done_bytes = run.work.bytes;
        code = sf_resume_recall(&run.work, journal, err);
    } else if (code == SF_OK && (code = write_container(&run, path, result, err)) != SF_OK) {
        code = give_up(&run, code, err);
    }
    if (code == SF_OK && !result->waits) {
        bool there, keep = options->on_source_done != NULL;
        code = sf_finish_read_back(&there, &run.work, path, run.threads, keep, err);
        if (code == SF_OK || !there)
            sf_journal_clear(journal, NULL);
    }
    close_run(&run);
    return code;
}

int sf_convert_run(struct sf_convert_plan *plan, const char *path,
                   const struct sf_convert_options *options, struct sf_err *err)
{
    struct sf_journal *journal;
    int code = sf_journal_open(&journal, path, err);
    if (code != SF_OK)
        return code;
    code = sf_convert_go_on(NULL, plan, journal, path, options, err);
    sf_journal_close(journal);
    return code;
}
