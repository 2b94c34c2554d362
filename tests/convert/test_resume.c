/* A conversion may be killed anywhere: what goes on afterwards ends in the very same file. */
#include "tests/support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/convert/journal.h"
#include "tests/convert/conversion.h"

static const char TINY[] = "examples/tiny-scout";
enum { DIED = 77, WAVE = 256 << 10 };

/* ---- the door to the disk, in the hands of this suite ---- */

/* These stand in front of libc's: every change of a file counts down, and the process dies right
 * before (or in the middle of) the one that is due, or sees it fail. */
static struct {
    int count; /* changes so far */
    int due;   /* 0: none */
    int error; /* 0: die; else this errno, once */
} disk;

static bool is_due(void)
{
    disk.count++;
    return disk.count == disk.due;
}

static int die_or_fail(void)
{
    if (!disk.error)
        _exit(DIED);
    errno = disk.error;
    return -1;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset);
int fdatasync(int fd);
int fsync(int fd);
int rename(const char *from, const char *to);
int unlink(const char *path);
int ftruncate(int fd, off_t bytes);

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    if (is_due()) {
        if (!disk.error && bytes > 1) /* torn: half of it arrives */
            syscall(SYS_pwrite64, fd, data, bytes / 2, offset);
        return die_or_fail();
    }
    return syscall(SYS_pwrite64, fd, data, bytes, offset);
}

/* Processes die here, the machine does not: nothing need reach a disk, which would take minutes. */
int fdatasync(int fd)
{
    (void)fd;
    return is_due() ? die_or_fail() : 0;
}

int fsync(int fd)
{
    (void)fd;
    return is_due() ? die_or_fail() : 0;
}

int rename(const char *from, const char *to)
{
    return is_due() ? die_or_fail() : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path)
{
    return is_due() ? die_or_fail() : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int ftruncate(int fd, off_t bytes)
{
    return is_due() ? die_or_fail() : (int)syscall(SYS_ftruncate, fd, bytes);
}

/* ---- help ---- */

/* The paths live until the next call with the same `slot`: the support's ring turns too fast here. */
static const char *keep_path(int slot, const char *path)
{
    static char kept[4][4096];
    snprintf(kept[slot], sizeof kept[slot], "%s", path);
    return kept[slot];
}

static struct conversion tiny(const char *output)
{
    return (struct conversion){.source = keep_path(0, scout_source_path(TINY)),
                               .output = keep_path(1, scout_scratch_path(output)),
                               .wave_bytes = WAVE};
}

static const char *beside(const char *path, const char *suffix)
{
    static char name[2][4096];
    static int turn;
    char *out = name[turn++ % 2];
    snprintf(out, sizeof name[0], "%s%s", path, suffix);
    return out;
}

static char *slurp(const char *path, uint64_t *bytes, struct sf_arena *arena)
{
    struct sf_err err = {0};
    char *data;
    assert_ok(sf_read_file(&data, bytes, arena, path, 1 << 28, &err), err);
    return data;
}

static bool same_file(const char *a, const char *b)
{
    struct sf_arena arena = {0};
    uint64_t n, m;
    char *x = slurp(a, &n, &arena), *y = slurp(b, &m, &arena);
    bool same = n == m && memcmp(x, y, n) == 0;
    sf_arena_free(&arena);
    return same;
}

static void assert_clean(const char *path)
{
    ck_assert(!sf_file_exists(beside(path, ".journal")));
    ck_assert(!sf_file_exists(beside(path, ".partial")));
}

/* Converts in a child that dies, or sees an error, at change number `due`. Its exit status: DIED, 0,
 * or 1 when the conversion failed. */
static int convert_in_child(const struct conversion *c, int due, int error)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct sf_err err = {0};
        disk.count = 0;
        disk.due = due;
        disk.error = error;
        _exit(convert(c, &err) == SF_OK ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "signal %d at change %d", WTERMSIG(status), due);
    return WEXITSTATUS(status);
}

static const char *whole(void)
{
    struct sf_err err = {0};
    struct conversion c = {.source = scout_source_path(TINY),
                           .output = keep_path(2, scout_scratch_path("whole.scout"))};
    assert_ok(convert(&c, &err), err);
    return c.output;
}

/* ---- cases ---- */

START_TEST(dying_at_any_change_loses_nothing)
{
    struct sf_err err = {0};
    const char *want = whole();
    struct conversion c = tiny("dies.scout");
    int due = 1, kept = 0;
    for (;; due++) {
        int status = convert_in_child(&c, due, 0);
        if (status == 0)
            break;
        ck_assert_int_eq(status, DIED);
        /* what stands at the target, if anything, is the finished file */
        ck_assert_msg(!sf_file_exists(c.output) || same_file(want, c.output), "change %d", due);
        kept += sf_file_exists(beside(c.output, ".journal"));
        assert_ok(convert(&c, &err), err);
        ck_assert_msg(same_file(want, c.output), "change %d", due);
        assert_clean(c.output);
        unlink(c.output);
    }
    ck_assert_int_gt(due, 60); /* header, waves, sections, rename ... */
    ck_assert_int_gt(kept, 50);
}
END_TEST

/* Each run dies a little further on; no run begins again. */
START_TEST(dying_again_and_again_ends_too)
{
    const char *want = whole();
    struct conversion c = tiny("again.scout");
    int runs = 0, status = DIED;
    for (; status == DIED && runs < 500; runs++)
        status = convert_in_child(&c, 30, 0); /* three waves take fewer changes than this */
    ck_assert_int_eq(status, 0);
    ck_assert_int_gt(runs, 2);
    ck_assert(same_file(want, c.output));
    assert_clean(c.output);
}
END_TEST

START_TEST(any_change_may_fail_and_the_next_run_goes_on)
{
    static const int errors[] = {EIO, ENOSPC};
    struct sf_err err = {0};
    const char *want = whole();
    for (int e = 0; e < 2; e++) {
        struct conversion c = tiny("fails.scout");
        int failed = 0;
        for (int due = 1;; due += 3) {
            int status = convert_in_child(&c, due, errors[e]);
            ck_assert_int_ne(status, DIED);
            failed += status;
            if (status == 0 && failed > 20 && due > 60)
                break;
            assert_ok(convert(&c, &err), err);
            ck_assert_msg(same_file(want, c.output), "change %d", due);
            assert_clean(c.output);
            unlink(c.output);
        }
    }
}
END_TEST

/* SIGKILL from outside, with threads, at random times. */
START_TEST(killed_at_random_times)
{
    enum { KILLS = 200 };
    const char *want = whole();
    struct scout_random random = {11};
    struct sf_err err = {0};
    int killed = 0;
    double longest = 0.08;
    for (int i = 0; i < KILLS; i++) {
        struct conversion c = tiny("killed.scout");
        c.threads = 1 + i % 3;
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0)
            _exit(convert(&c, &err) == SF_OK ? 0 : 1);

        double wait = scout_random_uniform(&random) * longest;
        struct timespec t = {0, (long)(wait * 1e9)};
        nanosleep(&t, NULL);
        kill(child, SIGKILL);
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        killed += WIFSIGNALED(status);
        ck_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
        if (WIFEXITED(status)) {
            ck_assert(same_file(want, c.output));
            unlink(c.output);
            longest *= 0.9; /* on this machine a run is faster than that */
        }
    }
    struct conversion c = tiny("killed.scout");
    assert_ok(convert(&c, &err), err);
    ck_assert(same_file(want, c.output));
    ck_assert_int_gt(killed, KILLS / 2);
}
END_TEST

/* Dies with most of the work done. */
static struct conversion partly_done(const char *output)
{
    struct conversion c = tiny(output);
    ck_assert_int_eq(convert_in_child(&c, 60, 0), DIED);
    ck_assert(sf_file_exists(beside(c.output, ".journal")));
    return c;
}

START_TEST(other_options_are_refused)
{
    struct sf_err err = {0};
    struct conversion c = partly_done("options.scout");
    c.options_text = "something=else";
    assert_fails(convert(&c, &err), SF_EINVAL, "options \"something=else\"", err);
    c.options_text = NULL;
    assert_ok(convert(&c, &err), err);
    ck_assert(same_file(whole(), c.output));
}
END_TEST

static void copy_tiny(const char *folder)
{
    static const char *const names[] = {"config.json", "model.safetensors.index.json",
                                        "model-00001-of-00002.safetensors",
                                        "model-00002-of-00002.safetensors"};
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    assert_ok(sf_make_directory(folder, &err), err);
    for (int i = 0; i < 4; i++) {
        uint64_t bytes;
        char *from = sf_path_join(&arena, scout_source_path(TINY), names[i]);
        char *data = slurp(from, &bytes, &arena);
        assert_ok(sf_write_file(sf_path_join(&arena, folder, names[i]), data, bytes, &err), err);
    }
    sf_arena_free(&arena);
}

/* One byte of a weight near the shard's begin or end. */
static void flip(const char *path, int64_t from_end)
{
    FILE *f = fopen(path, "r+b");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fseek(f, -(long)from_end, SEEK_END), 0);
    int was = fgetc(f);
    ck_assert_int_eq(fseek(f, -1, SEEK_CUR), 0);
    fputc(was ^ 1, f);
    fclose(f);
}

START_TEST(a_changed_source_is_refused_and_a_touched_one_is_not)
{
    struct sf_err err = {0};
    struct conversion c = tiny("source.scout");
    char shard[4096];
    struct stat st;
    c.source = keep_path(3, scout_scratch_path("copy"));
    copy_tiny(c.source);
    snprintf(shard, sizeof shard, "%s/model-00001-of-00002.safetensors", c.source);
    ck_assert_int_eq(stat(shard, &st), 0);
    ck_assert_int_eq(convert_in_child(&c, 60, 0), DIED);
    /* some byte of what was used: each tensor of the shard in turn, until it is noticed */
    int refused = 0;
    for (int64_t at = 2; at < st.st_size - 20000; at += 300001) {
        flip(shard, at);
        /* dies at the first sync of the journal, so that all is as before but for the date */
        int code = convert_in_child(&c, 6, 0);
        ck_assert(code == DIED || code == 1);
        if (code == 1) {
            assert_fails(convert(&c, &err), SF_EINVAL,
                         "model-00001-of-00002.safetensors: has changed since", err);
            refused++;
        }
        flip(shard, at);
    }
    ck_assert_int_gt(refused, 0);
    assert_ok(convert(&c, &err), err); /* as it was, with another date */
    ck_assert(same_file(whole(), c.output));
}
END_TEST

START_TEST(a_partial_file_that_is_gone_means_beginning_anew)
{
    struct sf_err err = {0};
    struct conversion c = partly_done("gone.scout");
    ck_assert_int_eq(unlink(beside(c.output, ".partial")), 0);
    assert_ok(convert(&c, &err), err);
    ck_assert(same_file(whole(), c.output));
    assert_clean(c.output);
}
END_TEST

START_TEST(a_journal_torn_anywhere_is_believed_up_to_there)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    const char *want = whole();
    struct conversion c = partly_done("torn.scout");
    uint64_t journal_bytes, partial_bytes;
    char *journal = slurp(beside(c.output, ".journal"), &journal_bytes, &arena);
    char *partial = slurp(beside(c.output, ".partial"), &partial_bytes, &arena);
    ck_assert_uint_gt(journal_bytes, 1000);
    for (uint64_t cut = 0; cut <= journal_bytes; cut += 1 + journal_bytes / 40) {
        journal[cut / 2] ^= cut % 2; /* every other time damaged besides */
        assert_ok(sf_write_file(beside(c.output, ".journal"), journal, cut, &err), err);
        assert_ok(sf_write_file(beside(c.output, ".partial"), partial, partial_bytes, &err), err);
        journal[cut / 2] ^= cut % 2;
        assert_ok(convert(&c, &err), err);
        ck_assert_msg(same_file(want, c.output), "cut at %llu", (unsigned long long)cut);
        assert_clean(c.output);
    }
    sf_arena_free(&arena);
}
END_TEST

START_TEST(two_at_once_are_refused)
{
    struct sf_err err = {0};
    struct sf_journal *journal;
    struct conversion c = tiny("locked.scout");
    assert_ok(sf_journal_open(&journal, c.output, &err), err);
    assert_fails(convert(&c, &err), SF_EACCES, "another process", err);
    sf_journal_close(journal);
    assert_ok(convert(&c, &err), err);
    assert_clean(c.output);
}
END_TEST

/* The journal remembers a shard that is gone; what is done of it need not be there again. */
START_TEST(shards_whose_tensors_are_done_may_be_deleted)
{
    struct sf_err err = {0};
    const char *want = whole();
    int gone = 0, needed = 0;
    for (int due = 20; due < 200; due += 4) {
        char shard[4096];
        struct conversion c = tiny("shards.scout");
        c.source = keep_path(3, scout_scratch_path("deleted"));
        copy_tiny(c.source);
        snprintf(shard, sizeof shard, "%s/model-00001-of-00002.safetensors", c.source);
        int status = convert_in_child(&c, due, 0);
        if (status == 0)
            break;
        unlink(shard);
        int code = convert(&c, &err);
        if (code != SF_OK) {
            assert_fails(code, SF_ENOENT, "model-00001-of-00002.safetensors", err);
            needed++;
            copy_tiny(c.source);
            assert_ok(convert(&c, &err), err);
        } else {
            gone++;
        }
        ck_assert_msg(same_file(want, c.output), "change %d", due);
        unlink(c.output);
    }
    ck_assert_int_gt(needed, 0);
    ck_assert_int_gt(gone, 0);
}
END_TEST

/* A folder whose shards are links to tiny-scout's: they can be deleted often and cheaply. */
static void link_tiny(const char *folder)
{
    struct sf_err err = {0};
    char from[4096], to[4096];
    static const char *const names[] = {"config.json", "model.safetensors.index.json",
                                        "model-00001-of-00002.safetensors",
                                        "model-00002-of-00002.safetensors"};
    assert_ok(sf_make_directory(folder, &err), err);
    for (int i = 0; i < 4; i++) {
        snprintf(from, sizeof from, "%s/%s", scout_source_path(TINY), names[i]);
        snprintf(to, sizeof to, "%s/%s", folder, names[i]);
        unlink(to);
        ck_assert_int_eq(symlink(from, to), 0);
    }
}

START_TEST(dying_at_any_change_while_sources_are_deleted)
{
    struct sf_err err = {0};
    char shard[4096];
    const char *want = whole();
    struct conversion c = tiny("deletes.scout");
    int due = 1, gone = 0;
    c.source = keep_path(3, scout_scratch_path("linked"));
    c.delete_source = true;
    snprintf(shard, sizeof shard, "%s/model-00001-of-00002.safetensors", c.source);
    for (;; due += 3) {
        link_tiny(c.source);
        int status = convert_in_child(&c, due, due % 2 ? 0 : EIO);
        if (status == 0)
            break;
        gone += access(shard, F_OK) != 0;
        ck_assert_msg(!sf_file_exists(c.output) || same_file(want, c.output), "change %d", due);
        assert_ok(convert(&c, &err), err);
        ck_assert_msg(same_file(want, c.output), "change %d", due);
        assert_clean(c.output);
        ck_assert_int_ne(access(shard, F_OK), 0);
        unlink(c.output);
    }
    ck_assert_int_gt(due, 60);
    ck_assert_int_gt(gone, 2); /* deaths between the first deletion and the end */
}
END_TEST

/* What an earlier run did is kept, too, by one that fails before it can look at it. */
START_TEST(no_memory_loses_nothing)
{
    struct sf_err err = {0};
    const char *want = whole();
    struct conversion c = partly_done("memory.scout");
    int failed = 0;
    for (int64_t n = 1; n < 4000; n += 1 + n / 8) {
        sf_alloc_fail_after(n);
        int code = convert(&c, &err);
        sf_alloc_fail_after(0);
        if (code == SF_OK)
            break;
        failed++;
        ck_assert_msg(sf_file_exists(beside(c.output, ".journal")), "allocation %lld: %s",
                      (long long)n, err.message);
        ck_assert_msg(sf_file_exists(beside(c.output, ".partial")), "allocation %lld: %s",
                      (long long)n, err.message);
    }
    ck_assert_int_gt(failed, 10);
    ck_assert(same_file(want, c.output));
}
END_TEST

static bool stop_half_way(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    return done < total / 2;
}

START_TEST(a_signal_keeps_what_is_done)
{
    struct sf_err err = {0};
    struct conversion c = tiny("signal.scout");
    c.on_progress = stop_half_way;
    assert_fails(convert(&c, &err), SF_EINTERRUPTED, "% is kept, the same command goes on", err);
    ck_assert(!sf_file_exists(c.output));
    c.on_progress = NULL;
    assert_ok(convert(&c, &err), err);
    ck_assert(same_file(whole(), c.output));
}
END_TEST

static Suite *resume_suite(void)
{
    Suite *suite = suite_create("resume");
    TCase *tc = tcase_create("resume");
    tcase_set_timeout(tc, 600);
    tcase_add_test(tc, dying_at_any_change_loses_nothing);
    tcase_add_test(tc, dying_again_and_again_ends_too);
    tcase_add_test(tc, any_change_may_fail_and_the_next_run_goes_on);
    tcase_add_test(tc, killed_at_random_times);
    tcase_add_test(tc, other_options_are_refused);
    tcase_add_test(tc, a_changed_source_is_refused_and_a_touched_one_is_not);
    tcase_add_test(tc, a_partial_file_that_is_gone_means_beginning_anew);
    tcase_add_test(tc, a_journal_torn_anywhere_is_believed_up_to_there);
    tcase_add_test(tc, two_at_once_are_refused);
    tcase_add_test(tc, shards_whose_tensors_are_done_may_be_deleted);
    tcase_add_test(tc, dying_at_any_change_while_sources_are_deleted);
    tcase_add_test(tc, no_memory_loses_nothing);
    tcase_add_test(tc, a_signal_keeps_what_is_done);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(resume_suite)
