/* ft_model.h -- what every verb of scout-ft opens: the container, its config, tokenizer and views,
 * an adapter. */
#ifndef SCOUT_TOOLS_FT_MODEL_H
#define SCOUT_TOOLS_FT_MODEL_H

#include "libformat/container/container_map.h"
#include "libformat/text/tokenizer.h"
#include "tools/ft_chat.h"
#include "tools/ft_options.h"
#include "train/backend.h"
#include "train/lora.h"

struct ft_model {
    struct sf_arena arena;
    struct sf_map *map;
    struct sf_model_spec spec;
    struct sf_tokenizer *tokenizer; /* NULL: the container carries none */
    struct ft_chat chat;
    struct sft_image *image;
    struct sft_backend *backend;
    const struct sk_ops *ops; /* the back end's */
    struct sk_ctx *ctx;
    struct sf_adapter adapter;     /* one that was read; else without modules */
    struct sft_lora lora;          /* without modules until one of the calls below */
    enum sf_adapter_prefix prefix; /* the checkpoint's, or that of the adapter that was read */
};

/* Container, config.json, tokenizer.json, back end; no byte of the payload yet. */
int ft_model_open(struct ft_model *out, const struct ft_options *options, struct sf_err *err);
/* The same without a back end: what rows need. */
int ft_model_open_text(struct ft_model *out, const struct ft_options *options, struct sf_err *err);
void ft_model_close(struct ft_model *model); /* a zeroed one is welcome */
/* The weights, with a progress line: on a device loaded and checked there, on the CPU checked in the
 * mapping. SF_EDAMAGED names the first damage. */
int ft_model_load(struct ft_model *model, const struct ft_options *options, struct sf_err *err);

/* Lists the modules of a new adapter, or of --init-adapter or --adapter. */
int ft_model_lora(struct ft_model *model, const struct ft_options *options, bool training,
                  struct sf_err *err);
/* Allocates what was listed, and starts or loads A and B. */
int ft_model_fill_lora(struct ft_model *model, const struct ft_options *options, bool training,
                       struct sf_err *err);
/* The container's identity as 32 hexadecimal digits, in the model's arena; NULL: no memory. */
const char *ft_model_identity(struct ft_model *model);
/* The key names for the adapter: --adapter-class, else those of the adapter that was read, else the
 * checkpoint's own. */
enum sf_adapter_prefix ft_model_prefix(const struct ft_model *model,
                                       const struct ft_options *options);

#endif
