/* ft_options.h -- the command line of scout-ft: one table of options, and which verb takes which. */
#ifndef SCOUT_TOOLS_FT_OPTIONS_H
#define SCOUT_TOOLS_FT_OPTIONS_H

#include "tools/tool.h"
#include "train/backend.h"
#include "train/data/dataset.h"
#include "train/lora.h"
#include "train/plan/memory_policy.h"
#include "train/schedule.h"

extern const char *ft_program; /* "scout-ft"; scout-inspect plan says its own name */
#define FT_PROGRAM ft_program

enum ft_verb { FT_PLAN, FT_TRAIN, FT_EVAL, FT_PROBE, FT_PREVIEW, FT_GENERATE, FT_ADAPTERS };

struct ft_options {
    enum ft_verb verb;
    bool help;
    const char *model, *config;
    int64_t threads;
    const char *device_name;
    enum sft_device_kind device;
    bool json;
    int64_t rows; /* preview */
    /* generate */
    const char *prompt, *chat; /* one of them */
    bool compare;
    int64_t max_new_tokens, top_k;
    double temperature, top_p;
    /* data */
    struct tool_list data, eval_data;
    struct tool_list data_weight_text;
    const char *data_cache; /* a folder, or "none"; NULL: the run's, where there is much data */
    double *data_weight;    /* [data.count]; NULL: all 1 */
    bool dry_run;
    double eval_split; /* part of the rows that is held out; 0: none */
    const char *text_mode_name;
    enum sft_text_mode text_mode;
    bool packing;
    const char *too_long_name, *untrainable_name;
    enum sft_too_long too_long;
    enum sft_untrainable untrainable;
    const char *chat_format, *train_on_name; /* chat_format NULL: the model's own */
    enum sft_train_on train_on;
    bool add_special_tokens, no_shuffle;
    int64_t max_seq_length;
    /* adapter */
    const char *adapter, *init_adapter, *adapter_class, *base_model;
    struct tool_list target_modules, target_parameters, rank_pattern_text, alpha_pattern_text;
    struct sf_adapter_pattern *rank_pattern, *alpha_pattern;
    const char *peft_layout_name; /* NULL: as the adapter that was read; of a new one the newest */
    enum sf_adapter_layout peft_layout;
    const char *serve; /* adapters: "vllm" */
    int64_t lora_r;
    double lora_alpha, lora_dropout, loraplus_lr_ratio;
    bool use_rslora, lora_given; /* lora_given: some option of a new adapter */
    /* run */
    const char *output_dir;
    bool overwrite_output_dir, resume;
    int64_t train_batch, eval_batch, accumulation, max_steps, seed;
    double epochs, learning_rate, warmup_ratio;
    double min_lr, min_lr_rate;
    int64_t profile;
    int64_t warmup_steps, eval_steps, save_steps, logging_steps;
    int64_t save_total_limit, early_stopping_patience;
    double early_stopping_threshold;
    bool load_best;
    const char *on_nan_name;
    bool skip_nan;
    const char *schedule_name;
    enum sft_schedule_kind schedule;
    const char *optim_name;
    enum sft_optim optim;
    double weight_decay, beta1, beta2, epsilon, max_grad_norm;
    bool gradient_checkpointing;
    const char *recompute_name, *vram_limit_text;
    enum sft_recompute recompute;
    bool offload;
    uint64_t vram_limit; /* 0: what the card has */
    /* probe */
    const char *inputs, *output;
    bool grads;
};

/* argv[0] is the verb. Strings borrow from argv or `arena`. Returns a tool_status; a wrong command
 * line has been told about. */
int ft_options_read(struct ft_options *out, int argc, char **argv, struct sf_arena *arena);
/* "scout-ft --help". */
void ft_options_overview(void);

#endif
