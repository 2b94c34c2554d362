/* err.h -- how everything in this project says that something went wrong.
 *
 * A call that can fail returns SF_OK (0) or a negative SF_E* code and fills the caller's struct
 * sf_err, which it takes as its last argument. The function that notices states the fact with its
 * numbers (sf_fail); callers that know a name put it in front (sf_err_prefix), so that a message
 * reads from the outside in:
 *     model-00003.safetensors: layers.7.q_proj: 5120x4096 bf16 needs 41943040 bytes, range holds
 * 41943000 Libraries print nothing and never exit. assert() is for our own mistakes, sf_err for the
 * world.
 *
 * Life: a struct sf_err is plain storage, usually on the caller's stack; `= {0}` is ready for use.
 * Threads: one sf_err per thread. `err` may be NULL: the code is still returned. */
#ifndef SCOUT_LIBFORMAT_BASE_ERR_H
#define SCOUT_LIBFORMAT_BASE_ERR_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

enum sf_code {
    SF_OK = 0,
    SF_ENOMEM = -1,       /* the allocator gave nothing */
    SF_ENOENT = -2,       /* a file, tensor or key that was asked for is not there */
    SF_EIO = -3,          /* the system failed to read or write */
    SF_ENOSPC = -4,       /* no space left on the device, or a quota is used up */
    SF_EACCES = -5,       /* not permitted: unreadable, not writable, read-only file system */
    SF_EFORMAT = -6,      /* bytes that are not what their format demands */
    SF_EUNSUPPORTED = -7, /* well-formed, but a version, type or architecture we do not handle */
    SF_EINVAL = -8,       /* an argument or option that makes no sense */
    SF_EDAMAGED = -9,     /* a checksum does not match */
    SF_ECUDA = -10,       /* the CUDA runtime or a CUDA library failed */
    SF_ENUMERIC = -11,    /* NaN or Inf where numbers were expected */
    SF_EINTERRUPTED = -12 /* stopped by a signal at a safe point */
};

struct sf_err {
    int code;         /* an enum sf_code */
    int sys_errno;    /* errno behind it, 0 if none */
    const char *file; /* source file and line that noticed */
    int line;
    char message[1024]; /* one sentence, UTF-8, no newline; cut with "..." when too long */
};

#define SF_PRINTF(fmt_index, first_index) __attribute__((format(printf, fmt_index, first_index)))

/* What makes an error never gives SF_OK: clang's analyzer is told, as it does not look into err.c. */
#ifdef __clang_analyzer__
static inline int sf_not_ok(int code)
{
    if (code == SF_OK)
        __builtin_unreachable();
    return code;
}
#else
#define sf_not_ok(code) (code)
#endif

/* Records `code` with a formatted message and returns `code`. A message that quotes names from a
 * file shows control characters escaped, so that it is safe to print. */
#define sf_fail(err, code, ...)                                                                    \
    sf_not_ok(sf_fail_at((err), (code), 0, __FILE__, __LINE__, __VA_ARGS__))
int sf_fail_at(struct sf_err *err, int code, int sys_errno, const char *file, int line,
               const char *fmt, ...) SF_PRINTF(6, 7);

/* Like sf_fail for a failed system call: the code follows from `sys_errno` (ENOENT, EACCES, ENOSPC,
 * ENOMEM, else SF_EIO) and ": <strerror>" is appended. */
#define sf_fail_errno(err, sys_errno, ...)                                                         \
    sf_not_ok(sf_fail_errno_at((err), (sys_errno), __FILE__, __LINE__, __VA_ARGS__))
int sf_fail_errno_at(struct sf_err *err, int sys_errno, const char *file, int line, const char *fmt,
                     ...) SF_PRINTF(5, 6);

/* Puts "<formatted>: " in front of the message and returns err->code. */
#define sf_err_prefix(...) sf_not_ok(sf_put_before(__VA_ARGS__))
int sf_put_before(struct sf_err *err, const char *fmt, ...) SF_PRINTF(2, 3);

/* "SF_EFORMAT" and "malformed data": for logs and for a message that came without one. */
const char *sf_code_name(int code);
const char *sf_code_sentence(int code);

#ifdef __cplusplus
}
#endif

#endif
