#include "tools/ft_options.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/jobs.h"
#include "tools/ft_lists.h"

enum {
    P = 1 << FT_PLAN,
    T = 1 << FT_TRAIN,
    E = 1 << FT_EVAL,
    X = 1 << FT_PROBE,
    V = 1 << FT_PREVIEW,
    G = 1 << FT_GENERATE,
    A = 1 << FT_ADAPTERS
};

const char *ft_program = "scout-ft";

static const struct {
    const char *name, *usage, *about;
} verbs[] = {
    [FT_PLAN] = {"plan", "scout-ft plan --model M.scout [options of train]",
                 "Tells every byte that a run would take, by kind, without running."},
    [FT_TRAIN] = {"train",
                  "scout-ft train --model M.scout --data FILE... --output-dir DIR [options]",
                  "Fine-tunes with LoRA; writes a PEFT adapter, checkpoints and metrics.jsonl."},
    [FT_EVAL] = {"eval", "scout-ft eval --model M.scout --data FILE... [--adapter DIR] [options]",
                 "Held-out loss and perplexity of the model, or of model and adapter."},
    [FT_PROBE] = {"probe",
                  "scout-ft probe --model M.scout --inputs F.safetensors -o OUT.safetensors "
                  "[--adapter DIR] [--grads]",
                  "Runs input_ids and labels [B, S] (int32) through and writes hidden states, "
                  "router logits, logits, losses and gradients."},
    [FT_GENERATE] = {"generate",
                     "scout-ft generate --model M.scout --prompt TEXT | --chat FILE [--adapter DIR "
                     "[--compare]] [options]",
                     "Goes on with a text or answers a conversation, with an adapter or without."},
    [FT_PREVIEW] = {"preview",
                    "scout-ft preview --model M.scout --data FILE... [--rows N] [options]",
                    "Shows rows as tokens, those that are trained marked."},
    [FT_ADAPTERS] = {"adapters",
                     "scout-ft adapters DIR [-o OUT_DIR [--peft-layout L] [--adapter-class C] "
                     "[--for vllm --model M.scout]]",
                     "Tells what a PEFT adapter holds and what serves it; writes it in another "
                     "form."},
};
enum { VERBS = sizeof verbs / sizeof verbs[0], MOST_OPTIONS = 128 };

void ft_options_overview(void)
{
    printf("usage: scout-ft VERB [options]\nFine-tunes a .scout container. scout-ft VERB --help "
           "lists the options.\n\n");
    for (int i = 0; i < VERBS; i++)
        printf("  %-8s %s\n", verbs[i].name, verbs[i].about);
}

static void set_defaults(struct ft_options *o)
{
    *o = (struct ft_options){.threads = sf_cpu_count(),
                             .device_name = "auto",
                             .recompute_name = "auto",
                             .text_mode_name = "blocks",
                             .too_long_name = "default",
                             .untrainable_name = "error",
                             .train_on_name = "default",
                             .max_seq_length = 1024,
                             .lora_r = 16,
                             .lora_alpha = 32,
                             .loraplus_lr_ratio = 1,
                             .train_batch = 8,
                             .eval_batch = 8,
                             .accumulation = 1,
                             .max_steps = -1,
                             .epochs = 3,
                             .learning_rate = 5e-5,
                             .schedule_name = "linear",
                             .rows = 5,
                             .max_new_tokens = 128,
                             .temperature = 0.6,
                             .top_p = 0.9,
                             .save_steps = 500,
                             .logging_steps = 10,
                             .seed = 42,
                             .on_nan_name = "stop",
                             .optim_name = "adamw_torch",
                             .beta1 = 0.9,
                             .beta2 = 0.999,
                             .epsilon = 1e-8,
                             .max_grad_norm = 1};
}

struct row { /* an option and the verbs that take it */
    int verbs;
    struct tool_option option;
};

static int list_options(struct tool_option out[MOST_OPTIONS], struct ft_options *o)
{
    const struct row rows[] = {
        {P | T | E | X | V | G | A,
         {"model", 0, TOOL_STRING, &o->model, "FILE",
          "the container (needed; adapters: where the tensors do not tell all)"}},
        {P | T | E | X | V | G,
         {"config", 0, TOOL_STRING, &o->config, "FILE",
          "JSON file of options, '_' for '-'; flags win"}},
        {P | T | E | V,
         {"data", 0, TOOL_LIST, &o->data, "FILE...",
          ".txt, or .jsonl of text, input_ids, prompt and completion, instruction and output, "
          "messages "
          "or conversations; more files may follow"}},
        {P | T,
         {"data-weights", 0, TOOL_LIST, &o->data_weight_text, "X,Y,...",
          "how often the rows of each --data file count in an epoch: 2 twice, 0.5 half of them "
          "(1)"}},
        {P | T | E,
         {"data-cache", 0, TOOL_STRING, &o->data_cache, "DIR",
          "keep tokens in files there for the next time, and map them: for data larger than memory "
          "(train: DIR/data of --output-dir from 64 MiB of files on; none: never)"}},
        {P | T, {"eval-data", 0, TOOL_LIST, &o->eval_data, "FILE", "held-out data; repeatable"}},
        {P | T,
         {"eval-split", 0, TOOL_DOUBLE, &o->eval_split, "X",
          "hold out this part of the data's rows, chosen by --seed (0: none)"}},
        {P | T, {"output-dir", 0, TOOL_STRING, &o->output_dir, "DIR", "for the adapter (needed)"}},
        {P | T | A,
         {"overwrite-output-dir", 0, TOOL_FLAG, &o->overwrite_output_dir, NULL,
          "replace an adapter and checkpoints that are there"}},
        {P | T,
         {"resume", 0, TOOL_FLAG, &o->resume, NULL,
          "go on from the newest checkpoint in --output-dir; begin where there is none yet"}},
        {E | X | G, {"adapter", 0, TOOL_STRING, &o->adapter, "DIR", "a PEFT LoRA adapter"}},
        {P | T,
         {"init-adapter", 0, TOOL_STRING, &o->init_adapter, "DIR",
          "start from this PEFT LoRA adapter"}},
        {P | T, {"lora-r", 0, TOOL_INT, &o->lora_r, "N", "rank (16)"}},
        {P | T, {"lora-alpha", 0, TOOL_DOUBLE, &o->lora_alpha, "X", "scale times rank (32)"}},
        {P | T,
         {"lora-dropout", 0, TOOL_DOUBLE, &o->lora_dropout, "X",
          "numbers of A's inputs dropped in training (0)"}},
        {P | T, {"use-rslora", 0, TOOL_FLAG, &o->use_rslora, NULL, "scale alpha / sqrt(r)"}},
        {P | T,
         {"target-modules", 0, TOOL_LIST, &o->target_modules, "NAME",
          "what is adapted; repeatable or with commas: also lm_head (all q k v o gate up down "
          "_proj, unless parameters are targeted)"}},
        {P | T,
         {"target-parameters", 0, TOOL_LIST, &o->target_parameters, "NAME",
          "routed experts and router: experts.gate_up_proj, experts.down_proj, router.weight"}},
        {P | T,
         {"rank-pattern", 0, TOOL_LIST, &o->rank_pattern_text, "PATTERN=N",
          "rank of modules whose path ends so, a regular expression as PEFT's; repeatable"}},
        {P | T,
         {"alpha-pattern", 0, TOOL_LIST, &o->alpha_pattern_text, "PATTERN=X", "likewise alpha"}},
        {P | T | A,
         {"peft-layout", 0, TOOL_STRING, &o->peft_layout_name, "LAYOUT",
          "of routed experts: swapped (PEFT 0.19.1 and newer) or natural (0.17.0 to 0.19.0, "
          "Unsloth) (swapped; adapters: as it is)"}},
        {A,
         {"for", 0, TOOL_STRING, &o->serve, "SERVER",
          "with -o: vllm, which wants the rows of q and k in another order"}},
        {P | T | X | A,
         {"adapter-class", 0, TOOL_STRING, &o->adapter_class, "CLASS",
          "text or multimodal: the adapter's key names (as --init-adapter, --adapter or the "
          "checkpoint)"}},
        {P | T,
         {"base-model-name-or-path", 0, TOOL_STRING, &o->base_model, "ID",
          "the base model in adapter_config.json (as the container says)"}},
        {G, {"prompt", 0, TOOL_STRING, &o->prompt, "TEXT", "what is gone on with, as it stands"}},
        {G,
         {"chat", 0, TOOL_STRING, &o->chat, "FILE",
          "a conversation to answer: JSON, a list of messages or an object with messages"}},
        {G, {"compare", 0, TOOL_FLAG, &o->compare, NULL, "without --adapter first, then with it"}},
        {G, {"max-new-tokens", 0, TOOL_INT, &o->max_new_tokens, "N", "(128)"}},
        {G,
         {"temperature", 0, TOOL_DOUBLE, &o->temperature, "X",
          "0: always the likeliest token (0.6)"}},
        {G, {"top-p", 0, TOOL_DOUBLE, &o->top_p, "X", "(0.9)"}},
        {G, {"top-k", 0, TOOL_INT, &o->top_k, "N", "0: all (0)"}},
        {P | T | E | V | G,
         {"chat-format", 0, TOOL_STRING, &o->chat_format, "FORMAT",
          "of conversations: llama4, llama4-trimmed or none (as the model's chat template says)"}},
        {P | T | E | V,
         {"train-on", 0, TOOL_STRING, &o->train_on_name, "WHAT",
          "assistant: what assistants say, and completions; last: their last turn; all: every "
          "token "
          "(assistant, of texts all)"}},
        {V, {"rows", 0, TOOL_INT, &o->rows, "N", "how many rows are shown (5)"}},
        {P | T | E | V,
         {"max-seq-length", 0, TOOL_INT, &o->max_seq_length, "N", "tokens of a row (1024)"}},
        {P | T | E,
         {"text-mode", 0, TOOL_STRING, &o->text_mode_name, "MODE",
          "blocks: all text end to end, cut; documents: a row each (blocks)"}},
        {P | T,
         {"packing", 0, TOOL_FLAG, &o->packing, NULL,
          "put short rows together into rows of up to --max-seq-length, each apart in attention"}},
        {P | T | E,
         {"too-long", 0, TOOL_STRING, &o->too_long_name, "WHAT",
          "rows above --max-seq-length: truncate, skip or error (truncate, but error for "
          "input_ids)"}},
        {P | T | E,
         {"untrainable", 0, TOOL_STRING, &o->untrainable_name, "WHAT",
          "rows without a token to train on: error or skip (error)"}},
        {P | T | E | V,
         {"add-special-tokens", 0, TOOL_FLAG, &o->add_special_tokens, NULL,
          "begin each text with the tokenizer's begin-of-text"}},
        {P | T, {"no-shuffle", 0, TOOL_FLAG, &o->no_shuffle, NULL, "rows in their order"}},
        {P | T,
         {"per-device-train-batch-size", 0, TOOL_INT, &o->train_batch, "N",
          "rows of a micro-batch (8)"}},
        {P | T | E,
         {"per-device-eval-batch-size", 0, TOOL_INT, &o->eval_batch, "N",
          "held-out rows at once, never packed (8)"}},
        {P | T,
         {"gradient-accumulation-steps", 0, TOOL_INT, &o->accumulation, "N",
          "micro-batches of a step (1)"}},
        {P | T,
         {"gradient-checkpointing", 0, TOOL_FLAG, &o->gradient_checkpointing, NULL,
          "less memory: layers are computed again for the backward"}},
        {P | T,
         {"recompute", 0, TOOL_STRING, &o->recompute_name, "WHAT",
          "made again in the backward: none, selective, full, or auto: as little as fits (auto)"}},
        {P | T,
         {"offload", 0, TOOL_FLAG, &o->offload, NULL,
          "keep the residual stream on the host between forward and backward, whatever fits"}},
        {P | T | G,
         {"vram-limit", 0, TOOL_STRING, &o->vram_limit_text, "SIZE",
          "use no more of the card than this: 64GB, 60GiB (all of it)"}},
        {P | T, {"num-train-epochs", 0, TOOL_DOUBLE, &o->epochs, "X", "(3)"}},
        {P | T,
         {"max-steps", 0, TOOL_INT, &o->max_steps, "N",
          "instead of epochs; -1: as epochs say (-1)"}},
        {P | T, {"learning-rate", 0, TOOL_DOUBLE, &o->learning_rate, "X", "the highest (5e-5)"}},
        {P | T,
         {"loraplus-lr-ratio", 0, TOOL_DOUBLE, &o->loraplus_lr_ratio, "X",
          "LoRA+: B's learning rate over A's, as PEFT's create_loraplus_optimizer (1)"}},
        {P | T,
         {"lr-scheduler-type", 0, TOOL_STRING, &o->schedule_name, "KIND",
          "linear, cosine, constant, constant_with_warmup or cosine_with_min_lr (linear)"}},
        {P | T,
         {"min-lr", 0, TOOL_DOUBLE, &o->min_lr, "X", "of cosine_with_min_lr: the lowest rate"}},
        {P | T,
         {"min-lr-rate", 0, TOOL_DOUBLE, &o->min_lr_rate, "X",
          "the same, as a share of --learning-rate"}},
        {P | T, {"warmup-steps", 0, TOOL_INT, &o->warmup_steps, "N", "(0)"}},
        {P | T, {"warmup-ratio", 0, TOOL_DOUBLE, &o->warmup_ratio, "X", "of all steps (0)"}},
        {P | T,
         {"optim", 0, TOOL_STRING, &o->optim_name, "NAME",
          "adamw_torch, or adamw_8bit: moments of a byte each (adamw_torch)"}},
        {P | T, {"weight-decay", 0, TOOL_DOUBLE, &o->weight_decay, "X", "(0)"}},
        {P | T, {"adam-beta1", 0, TOOL_DOUBLE, &o->beta1, "X", "(0.9)"}},
        {P | T, {"adam-beta2", 0, TOOL_DOUBLE, &o->beta2, "X", "(0.999)"}},
        {P | T, {"adam-epsilon", 0, TOOL_DOUBLE, &o->epsilon, "X", "(1e-8)"}},
        {P | T, {"max-grad-norm", 0, TOOL_DOUBLE, &o->max_grad_norm, "X", "clipping; 0: none (1)"}},
        {P | T | G,
         {"seed", 0, TOOL_INT, &o->seed, "N", "of shuffle, of A's start, of sampling (42)"}},
        {P | T,
         {"eval-steps", 0, TOOL_INT, &o->eval_steps, "N",
          "held-out loss every N steps; 0: at start and end (0)"}},
        {P | T,
         {"save-steps", 0, TOOL_INT, &o->save_steps, "N",
          "checkpoint-N/ every N steps; 0: none (500)"}},
        {P | T,
         {"save-total-limit", 0, TOOL_INT, &o->save_total_limit, "N",
          "keep so many checkpoints, and the best; 0: all (0)"}},
        {P | T,
         {"load-best-model-at-end", 0, TOOL_FLAG, &o->load_best, NULL,
          "the result is the adapter of the lowest held-out loss (needs --eval-steps)"}},
        {P | T,
         {"early-stopping-patience", 0, TOOL_INT, &o->early_stopping_patience, "N",
          "end after N evaluations in a row without a lower held-out loss; 0: never (0)"}},
        {P | T,
         {"early-stopping-threshold", 0, TOOL_DOUBLE, &o->early_stopping_threshold, "X",
          "lower by more than this counts (0)"}},
        {P | T,
         {"on-nan", 0, TOOL_STRING, &o->on_nan_name, "WHAT",
          "a loss or gradient that is no number: stop, or skip the step (stop)"}},
        {P | T,
         {"logging-steps", 0, TOOL_INT, &o->logging_steps, "N",
          "where there is no terminal: a line every N steps (10)"}},
        {T,
         {"dry-run", 0, TOOL_FLAG, &o->dry_run, NULL,
          "everything but the steps: data, plan, the first batch as tokens; nothing is written"}},
        {T,
         {"profile", 0, TOOL_INT, &o->profile, "N",
          "time every op in N steps behind the first, and print a table"}},
        {X,
         {"inputs", 0, TOOL_STRING, &o->inputs, "FILE",
          "safetensors with input_ids and labels [B, S], int32 (needed)"}},
        {X | A,
         {"output", 'o', TOOL_STRING, &o->output, "FILE",
          "what to write (probe: needed; adapters: a folder)"}},
        {X, {"grads", 0, TOOL_FLAG, &o->grads, NULL, "the adapter's gradients too"}},
        {P | E | V | G | A, {"json", 0, TOOL_FLAG, &o->json, NULL, "the result as JSON"}},
        {P | T | E | X | G,
         {"device", 0, TOOL_STRING, &o->device_name, "WHERE",
          "auto, cuda or cpu: where it is computed (auto: a GPU if there is one)"}},
        {P | T | E | X | G, {"threads", 0, TOOL_INT, &o->threads, "N", "(all processors)"}},
    };
    _Static_assert(sizeof rows / sizeof rows[0] <= MOST_OPTIONS, "room for all options");
    int count = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].verbs & 1 << o->verb)
            out[count++] = rows[i].option;
    return count;
}

/* ---- what the table cannot say ---- */

static int add_operands(struct ft_options *o, const struct tool_args *args, struct sf_arena *arena)
{
    if (o->verb == FT_ADAPTERS && args->operands == 1) {
        o->adapter = args->operand[0];
        return TOOL_DONE;
    }
    if (args->operands == 0)
        return TOOL_DONE;
    if (o->data.count == 0)
        return tool_usage(FT_PROGRAM, "\"%s\" belongs to no option", args->operand[0]);
    uint64_t count = (uint64_t)(o->data.count + args->operands);
    const char **item = sf_arena_array(arena, count, sizeof *item);
    if (!item)
        return tool_usage(FT_PROGRAM, "no memory for a list of files");
    memcpy(item, o->data.item, (size_t)o->data.count * sizeof *item);
    memcpy(item + o->data.count, args->operand, (size_t)args->operands * sizeof *item);
    o->data.item = item;
    o->data.count = (int64_t)count;
    return TOOL_DONE;
}

/* transformers' rule: exactly one of the two, and for this schedule alone. */
static int read_least_rate(struct ft_options *o, bool rate, bool share)
{
    bool wanted = strcmp(o->schedule_name, "cosine_with_min_lr") == 0;
    if (wanted ? rate == share : rate || share)
        return tool_usage(FT_PROGRAM, wanted ? "cosine_with_min_lr needs --min-lr or --min-lr-rate"
                                             : "--min-lr and --min-lr-rate belong to "
                                               "--lr-scheduler-type cosine_with_min_lr");
    if (rate)
        o->min_lr_rate = o->min_lr / o->learning_rate;
    return TOOL_DONE;
}

static int read_names(struct ft_options *o)
{
    if (strcmp(o->text_mode_name, "blocks") == 0)
        o->text_mode = SFT_TEXT_BLOCKS;
    else if (strcmp(o->text_mode_name, "documents") == 0)
        o->text_mode = SFT_TEXT_DOCUMENTS;
    else
        return tool_usage(FT_PROGRAM, "--text-mode is blocks or documents, not \"%s\"",
                          o->text_mode_name);
    if (!sft_too_long_from_name(&o->too_long, o->too_long_name))
        return tool_usage(FT_PROGRAM, "--too-long is truncate, skip or error, not \"%s\"",
                          o->too_long_name);
    if (!sft_untrainable_from_name(&o->untrainable, o->untrainable_name))
        return tool_usage(FT_PROGRAM, "--untrainable is error or skip, not \"%s\"",
                          o->untrainable_name);
    if (!(o->eval_split >= 0 && o->eval_split < 1))
        return tool_usage(FT_PROGRAM, "--eval-split is a part from 0 to below 1, not %g",
                          o->eval_split);
    if (o->eval_split > 0 && o->eval_data.count)
        return tool_usage(FT_PROGRAM, "--eval-split and --eval-data: give one of them");
    enum sf_chat_format format;
    if (o->chat_format && !sf_chat_format_from_name(&format, o->chat_format))
        return tool_usage(FT_PROGRAM, "--chat-format is llama4, llama4-trimmed or none, not \"%s\"",
                          o->chat_format);
    if (!sft_train_on_from_name(&o->train_on, o->train_on_name))
        return tool_usage(FT_PROGRAM, "--train-on is all, assistant or last, not \"%s\"",
                          o->train_on_name);
    if (!sft_device_from_name(&o->device, o->device_name))
        return tool_usage(FT_PROGRAM, "--device is auto, cuda or cpu, not \"%s\"", o->device_name);
    if (!sft_schedule_from_name(&o->schedule, o->schedule_name))
        return tool_usage(FT_PROGRAM,
                          "--lr-scheduler-type is linear, cosine, constant, constant_with_warmup "
                          "or cosine_with_min_lr, not \"%s\"",
                          o->schedule_name);
    if (!sft_optim_from_name(&o->optim, o->optim_name))
        return tool_usage(FT_PROGRAM, "--optim is adamw_torch or adamw_8bit, not \"%s\"",
                          o->optim_name);
    o->skip_nan = strcmp(o->on_nan_name, "skip") == 0;
    if (!o->skip_nan && strcmp(o->on_nan_name, "stop") != 0)
        return tool_usage(FT_PROGRAM, "--on-nan is stop or skip, not \"%s\"", o->on_nan_name);
    if (o->adapter_class && strcmp(o->adapter_class, "text") != 0 &&
        strcmp(o->adapter_class, "multimodal") != 0)
        return tool_usage(FT_PROGRAM, "--adapter-class is text or multimodal, not \"%s\"",
                          o->adapter_class);
    o->peft_layout = SF_ADAPTER_SWAPPED;
    if (o->peft_layout_name && strcmp(o->peft_layout_name, "natural") == 0)
        o->peft_layout = SF_ADAPTER_NATURAL;
    else if (o->peft_layout_name && strcmp(o->peft_layout_name, "swapped") != 0)
        return tool_usage(FT_PROGRAM, "--peft-layout is swapped or natural, not \"%s\"",
                          o->peft_layout_name);
    if (!(o->loraplus_lr_ratio > 0 && o->loraplus_lr_ratio <= 1e6))
        return tool_usage(FT_PROGRAM, "--loraplus-lr-ratio is %g, not above 0",
                          o->loraplus_lr_ratio);
    if (o->serve && strcmp(o->serve, "vllm") != 0)
        return tool_usage(FT_PROGRAM, "--for is vllm, not \"%s\"", o->serve);
    if (!sft_recompute_from_name(&o->recompute, o->recompute_name))
        return tool_usage(FT_PROGRAM, "--recompute is none, selective, full or auto, not \"%s\"",
                          o->recompute_name);
    if (o->gradient_checkpointing && o->recompute == SFT_RECOMPUTE_AUTO)
        o->recompute = SFT_RECOMPUTE_FULL;
    if (o->gradient_checkpointing && o->recompute != SFT_RECOMPUTE_FULL)
        return tool_usage(FT_PROGRAM, "--gradient-checkpointing is --recompute full, not %s",
                          o->recompute_name);
    if (o->vram_limit_text && !tool_size_from_text(&o->vram_limit, o->vram_limit_text))
        return tool_usage(FT_PROGRAM, "--vram-limit \"%s\" is no size such as 64GB or 60GiB",
                          o->vram_limit_text);
    return TOOL_DONE;
}

/* Numbers whose meaning a library states in other words than the command line. */
static int check_counts(const struct ft_options *o)
{
    const struct {
        const char *name;
        int64_t value, least;
    } counts[] = {
        {"per-device-train-batch-size", o->train_batch, 1},
        {"per-device-eval-batch-size", o->eval_batch, 1},
        {"gradient-accumulation-steps", o->accumulation, 1},
        {"save-steps", o->save_steps, 0},
        {"eval-steps", o->eval_steps, 0},
        {"warmup-steps", o->warmup_steps, 0},
        {"save-total-limit", o->save_total_limit, 0},
        {"early-stopping-patience", o->early_stopping_patience, 0},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (counts[i].value < counts[i].least)
            return tool_usage(FT_PROGRAM, "--%s is %lld; at least %lld is needed", counts[i].name,
                              (long long)counts[i].value, (long long)counts[i].least);
    return TOOL_DONE;
}

static int check_needed(const struct ft_options *o)
{
    const struct {
        int verbs;
        bool there;
        const char *name;
    } needed[] = {
        {P | T | E | X | V | G, o->model != NULL, "--model FILE"},
        {T | E | V, o->data.count > 0, "--data FILE"},
        {T, o->output_dir || o->dry_run, "--output-dir DIR"},
        {X, o->inputs != NULL, "--inputs FILE"},
        {X, o->output != NULL, "-o FILE"},
        {A, o->adapter != NULL, "the folder of an adapter"},
    };
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (needed[i].verbs & 1 << o->verb && !needed[i].there)
            return tool_usage(FT_PROGRAM, "%s needs %s", verbs[o->verb].name, needed[i].name);
    if (o->init_adapter && o->lora_given)
        return tool_usage(FT_PROGRAM,
                          "--init-adapter brings its own rank, alpha and modules: leave out "
                          "--lora-r, --lora-alpha, --lora-dropout, --use-rslora, "
                          "--target-modules, "
                          "--target-parameters, --rank-pattern and --alpha-pattern");
    if (o->verb == FT_ADAPTERS && !o->output &&
        (o->peft_layout_name || o->adapter_class || o->serve || o->overwrite_output_dir))
        return tool_usage(FT_PROGRAM, "adapters writes another form with -o DIR, which is missing");
    if (o->resume && o->overwrite_output_dir)
        return tool_usage(FT_PROGRAM,
                          "--resume goes on with what is there, --overwrite-output-dir replaces "
                          "it: give one of them");
    if (o->grads && !o->adapter)
        return tool_usage(FT_PROGRAM, "--grads are an adapter's: give --adapter DIR");
    if (o->verb == FT_GENERATE && !o->prompt == !o->chat)
        return tool_usage(FT_PROGRAM, "generate needs --prompt TEXT or --chat FILE, one of them");
    if (o->compare && !o->adapter)
        return tool_usage(FT_PROGRAM, "--compare is with --adapter DIR");
    if (o->max_new_tokens < 1)
        return tool_usage(FT_PROGRAM, "--max-new-tokens is %lld; at least 1 is needed",
                          (long long)o->max_new_tokens);
    if (o->rows < 1)
        return tool_usage(FT_PROGRAM, "--rows is %lld; at least 1 is needed", (long long)o->rows);
    if (o->threads < 1 || o->threads > 1024)
        return tool_usage(FT_PROGRAM, "--threads takes 1 to 1024");
    if (check_counts(o) != TOOL_DONE)
        return TOOL_USAGE;
    if (o->profile < 0)
        return tool_usage(FT_PROGRAM, "--profile is %lld", (long long)o->profile);
    if (o->max_steps < -1)
        return tool_usage(FT_PROGRAM, "--max-steps is %lld", (long long)o->max_steps);
    return TOOL_DONE;
}

static int find_verb(enum ft_verb *out, const char *name)
{
    for (int i = 0; i < VERBS; i++) {
        if (strcmp(verbs[i].name, name) == 0) {
            *out = (enum ft_verb)i;
            return TOOL_DONE;
        }
    }
    return tool_usage(
        FT_PROGRAM, "unknown verb \"%s\": plan, train, eval, probe, preview, generate or adapters",
        name);
}

int ft_options_read(struct ft_options *out, int argc, char **argv, struct sf_arena *arena)
{
    struct tool_option option[MOST_OPTIONS];
    set_defaults(out);
    int status = find_verb(&out->verb, argv[0]);
    if (status != TOOL_DONE)
        return status;
    struct tool_args args = {.program = FT_PROGRAM,
                             .usage = verbs[out->verb].usage,
                             .about = verbs[out->verb].about,
                             .option = option,
                             .options = list_options(option, out)};
    status = tool_parse(&args, argc, argv, arena);
    out->help = args.help;
    if (status != TOOL_DONE || args.help)
        return status;
    out->lora_given =
        tool_was_given(&args, "lora-r") || tool_was_given(&args, "lora-alpha") ||
        tool_was_given(&args, "use-rslora") || tool_was_given(&args, "lora-dropout") ||
        tool_was_given(&args, "target-modules") || tool_was_given(&args, "target-parameters") ||
        tool_was_given(&args, "rank-pattern") || tool_was_given(&args, "alpha-pattern");
    status =
        read_least_rate(out, tool_was_given(&args, "min-lr"), tool_was_given(&args, "min-lr-rate"));
    if (status != TOOL_DONE)
        return status;
    status = ft_split_names(&out->target_modules, "target-modules", arena);
    if (status == TOOL_DONE)
        status = ft_split_names(&out->target_parameters, "target-parameters", arena);
    if (status == TOOL_DONE)
        status =
            ft_read_patterns(&out->rank_pattern, &out->rank_pattern_text, "rank-pattern", arena);
    if (status == TOOL_DONE)
        status =
            ft_read_patterns(&out->alpha_pattern, &out->alpha_pattern_text, "alpha-pattern", arena);
    if (status == TOOL_DONE)
        status = add_operands(out, &args, arena);
    if (status == TOOL_DONE)
        status = ft_read_weights(&out->data_weight, &out->data_weight_text, out->data.count, arena);
    if (status == TOOL_DONE)
        status = read_names(out);
    return status == TOOL_DONE ? check_needed(out) : status;
}
