#include "tools/ft_tokens.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/utf8_check.h"

/* Text that can be looked at: control characters and what is no whole character are escaped. */
static const char *visible(char *out, size_t room, const char *text, uint64_t bytes)
{
    size_t n = 0;
    for (uint64_t i = 0; i < bytes && n + 8 < room;) {
        unsigned char c = (unsigned char)text[i];
        int length = sf_utf8_length(text + i, bytes - i);
        bool hidden = c < 0x20 || c == 0x7f ||
                      (length == 2 && c == 0xc2 && (unsigned char)text[i + 1] < 0xa0);
        if (c == '\n' || c == '\t' || c == '\r') {
            n += (size_t)snprintf(out + n, room - n, "\\%c",
                                  c == '\n'   ? 'n'
                                  : c == '\t' ? 't'
                                              : 'r');
            i++;
        } else if (length == 0 || hidden) {
            n += (size_t)snprintf(out + n, room - n, "\\x%02x", c);
            i++;
        } else {
            memcpy(out + n, text + i, (size_t)length);
            n += (size_t)length;
            i += (uint64_t)length;
        }
    }
    out[n] = 0;
    return out;
}

int ft_token_text(char *out, const struct ft_model *model, int32_t id, struct sf_err *err)
{
    struct sf_arena arena = {0};
    char *text;
    uint64_t bytes;
    snprintf(out, FT_TOKEN_TEXT, "%d", (int)id);
    if (!model->tokenizer || !sf_tokenizer_token(model->tokenizer, id))
        return SF_OK; /* rows of ids without a tokenizer: the number */
    int code = sf_tokenizer_decode(&text, &bytes, model->tokenizer, &id, 1, false, &arena, err);
    if (!code)
        visible(out, FT_TOKEN_TEXT, text, bytes);
    sf_arena_free(&arena);
    return code;
}

/* On a terminal trained tokens are green, neighbours told apart by shade; elsewhere they stand in [[
 * ]] and a bar is between tokens. */
int ft_print_tokens(const struct ft_model *model, const int32_t *id, const int32_t *label,
                    int64_t count, struct sf_err *err)
{
    char piece[FT_TOKEN_TEXT];
    bool before = false, colour = isatty(STDOUT_FILENO) == 1;
    int code = SF_OK;
    for (int64_t i = 0; !code && i < count; i++) {
        bool trained = i > 0 && label[i] != SFT_NO_TARGET;
        code = ft_token_text(piece, model, id[i], err);
        size_t length = strlen(piece);
        bool line = length > 1 && strcmp(piece + length - 2, "\\n") == 0;
        if (colour)
            printf("\033[%sm%s\033[0m%s",
                   trained ? i % 2 ? "30;42" : "30;102"
                   : i % 2 ? "2"
                           : "0",
                   piece, line ? "\n" : "");
        else
            printf("%s%s%s", before && !trained ? "]]" : "",
                   i == 0               ? (trained ? "[[" : "")
                   : trained && !before ? "[["
                                        : "|",
                   piece);
        before = trained;
    }
    printf("%s\n", before && !colour ? "]]" : "");
    return code;
}
