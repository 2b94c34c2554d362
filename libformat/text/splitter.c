#define PCRE2_CODE_UNIT_WIDTH 8
#include "libformat/text/splitter.h"

#include <pcre2.h>
#include <string.h>

#include "libformat/base/arena.h"
#include "libformat/base/mem.h"
#include "libformat/text/pattern.h"
#include "libformat/text/utf8.h"

enum { JIT_STACK_START = 32 << 10, JIT_STACK_MOST = 8 << 20 };

struct sf_splitter {
    struct sf_arena arena;
    pcre2_general_context *general;
    pcre2_code *code;
    const uint8_t *symbol;
};

struct sf_splitter_scratch {
    pcre2_general_context *general;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    pcre2_jit_stack *stack; /* NULL where PCRE2 has no JIT */
    uint8_t *symbols;       /* the text, one symbol a character */
    uint64_t capacity;
};

static void *heap_alloc(PCRE2_SIZE bytes, void *context)
{
    (void)context;
    return sf_alloc(bytes);
}

static void heap_free(void *block, void *context)
{
    (void)context;
    sf_free(block);
}

/* ---- the pattern ---- */

static int compile(struct sf_splitter *s, const char *pattern, struct sf_err *err)
{
    struct sf_pattern rewritten;
    int code = sf_pattern_rewrite(&rewritten, pattern, &s->arena, err);
    if (code != SF_OK)
        return code;
    s->symbol = rewritten.symbol;
    s->general = pcre2_general_context_create(heap_alloc, heap_free, NULL);
    pcre2_compile_context *context = s->general ? pcre2_compile_context_create(s->general) : NULL;
    if (!context)
        return sf_fail(err, SF_ENOMEM, "cannot allocate the split pattern");
    int number;
    PCRE2_SIZE place;
    s->code = pcre2_compile((PCRE2_SPTR)rewritten.regex, PCRE2_ZERO_TERMINATED, 0, &number, &place,
                            context);
    pcre2_compile_context_free(context);
    if (!s->code) {
        char why[128] = "";
        pcre2_get_error_message(number, (PCRE2_UCHAR *)why, sizeof why);
        return sf_fail(err, number == PCRE2_ERROR_HEAP_FAILED ? SF_ENOMEM : SF_EFORMAT,
                       "split pattern: %s", why);
    }
    uint32_t matches_empty = 0;
    pcre2_pattern_info(s->code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
    if (matches_empty)
        return sf_fail(err, SF_EUNSUPPORTED, "split pattern can match an empty text");
    pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE); /* without JIT: the same, slower */
    return SF_OK;
}

int sf_splitter_open(struct sf_splitter **out, const char *pattern, struct sf_err *err)
{
    void *block;
    int code = sf_alloc_for(&block, sizeof(struct sf_splitter), "split pattern", err);
    if (code != SF_OK)
        return code;
    code = compile(block, pattern, err);
    if (code != SF_OK)
        sf_splitter_close(block);
    else
        *out = block;
    return code;
}

void sf_splitter_close(struct sf_splitter *s)
{
    if (!s)
        return;
    pcre2_code_free(s->code);
    pcre2_general_context_free(s->general);
    sf_arena_free(&s->arena);
    sf_free(s);
}

/* ---- scratch ---- */

int sf_splitter_scratch_open(struct sf_splitter_scratch **out, struct sf_err *err)
{
    void *block;
    int code = sf_alloc_for(&block, sizeof(struct sf_splitter_scratch), "splitter scratch", err);
    if (code != SF_OK)
        return code;
    struct sf_splitter_scratch *s = block;
    s->general = pcre2_general_context_create(heap_alloc, heap_free, NULL);
    if (s->general) {
        s->match = pcre2_match_data_create(1, s->general);
        s->limits = pcre2_match_context_create(s->general);
        s->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MOST, s->general);
    }
    if (!s->match || !s->limits) {
        sf_splitter_scratch_close(s);
        return sf_fail(err, SF_ENOMEM, "cannot allocate splitter scratch");
    }
    if (s->stack)
        pcre2_jit_stack_assign(s->limits, NULL, s->stack);
    *out = s;
    return SF_OK;
}

void sf_splitter_scratch_close(struct sf_splitter_scratch *s)
{
    if (!s)
        return;
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->limits);
    pcre2_jit_stack_free(s->stack);
    pcre2_general_context_free(s->general);
    sf_free(s->symbols);
    sf_free(s);
}

static int reserve_symbols(struct sf_splitter_scratch *s, uint64_t bytes, struct sf_err *err)
{
    if (bytes <= s->capacity)
        return SF_OK;
    void *block;
    uint64_t capacity = bytes + bytes / 2;
    int code = sf_alloc_for(&block, capacity, "splitter scratch", err);
    if (code != SF_OK)
        return code;
    sf_free(s->symbols);
    s->symbols = block;
    s->capacity = capacity;
    return SF_OK;
}

/* ---- splitting ---- */

/* Where the character `count` characters behind `p` begins. */
static const char *skip_characters(const char *p, uint64_t count)
{
    for (; count > 0; count--)
        p += sf_utf8_bytes((unsigned char)*p);
    return p;
}

/* Steps that one match may take: any that backtracks a bounded number of times per character fits.
 */
static uint32_t step_limit(uint64_t characters)
{
    uint64_t limit = 10000000 + 64 * characters;
    return limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit;
}

/* The next match at or behind `from`: *start and *end in characters; *start = count if none. */
static int next_match(uint64_t *start, uint64_t *end, const struct sf_splitter *splitter,
                      uint64_t count, uint64_t from, struct sf_splitter_scratch *scratch,
                      struct sf_err *err)
{
    int n = pcre2_match(splitter->code, scratch->symbols, count, from, 0, scratch->match,
                        scratch->limits);
    if (n == PCRE2_ERROR_NOMATCH) {
        *start = *end = count;
        return SF_OK;
    }
    if (n < 0) {
        char why[128] = "";
        pcre2_get_error_message(n, (PCRE2_UCHAR *)why, sizeof why);
        return sf_fail(err, SF_EUNSUPPORTED, "split pattern gives up at character %llu of %llu: %s",
                       (unsigned long long)from, (unsigned long long)count, why);
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(scratch->match);
    *start = range[0];
    *end = range[1];
    if (*end <= from || *end < *start) /* a lookahead cannot get here; an empty match would loop */
        return sf_fail(err, SF_EUNSUPPORTED, "split pattern matches nothing at character %llu",
                       (unsigned long long)from);
    return SF_OK;
}

int sf_splitter_run(const struct sf_splitter *splitter, const char *text, uint64_t bytes,
                    struct sf_splitter_scratch *scratch, sf_piece_fn *piece, void *context,
                    struct sf_err *err)
{
    int code = reserve_symbols(scratch, bytes, err);
    uint64_t count = 0, at = 0, start = 0, end = 0;
    if (code == SF_OK)
        for (const unsigned char *p = (const unsigned char *)text, *stop = p + bytes; p < stop;)
            scratch->symbols[count++] = splitter->symbol[sf_utf8_next(&p)];
    pcre2_set_match_limit(scratch->limits, step_limit(count));
    while (code == SF_OK && at < count) {
        code = next_match(&start, &end, splitter, count, at, scratch, err);
        if (code == SF_OK && start > at) { /* a gap is a piece of its own */
            const char *stop = skip_characters(text, start - at);
            code = piece(context, text, (uint64_t)(stop - text), err);
            text = stop;
        }
        if (code == SF_OK && end > start) {
            const char *stop = skip_characters(text, end - start);
            code = piece(context, text, (uint64_t)(stop - text), err);
            text = stop;
        }
        at = end;
    }
    return code;
}
