#include "tests/fault/fault_scenes.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define CONVERT "$BIN/scout-convert in/model -o in/m.scout >log 2>&1"
#define ROWS "head -c 1500 $SOURCE/examples/data/moby.txt >in/rows.txt"
#define CHATS "head -n 2 $SOURCE/tests/golden/chat/chat.jsonl >in/chat.jsonl"
#define ADAPTER "cp -r $SOURCE/tests/golden/merge/tiny_swapped in/adapter"
#define ON_CPU "--device cpu --threads 1 "

/* ---- what converts ---- */

static const struct scene converting[] = {
    {.name = "convert",
     .tool = "scout-convert",
     .arguments = "in/model -o out/m.scout --threads 2",
     .says = "written and read back",
     .again = "",
     .keeps_progress = true,
     .leftovers_vanish = true},
    /* The sources go, too: what is lost then is lost. */
    {.name = "delete",
     .tool = "scout-convert",
     .prepare = "mv in/model ../kept && cp -r ../kept in/model",
     .before = "rm -rf in/model && cp -r ../kept in/model",
     .arguments = "in/model -o out/m.scout --threads 2 --delete-source",
     .says = "m.scout: ",
     .again = "",
     .keeps_progress = true,
     .leftovers_vanish = true},
    /* Several files: those behind the first are renamed before it. */
    {.name = "parts",
     .tool = "scout-convert",
     .arguments = "in/model -o out/m.scout --threads 2 --max-part-size 2MB",
     .says = "in 5 files",
     .again = "",
     .keeps_progress = true,
     .leftovers_vanish = true},
    {.name = "parts-delete",
     .tool = "scout-convert",
     .prepare = "mv in/model ../kept && cp -r ../kept in/model",
     .before = "rm -rf in/model && cp -r ../kept in/model",
     .arguments = "in/model -o out/m.scout --threads 2 --max-part-size 3MB --delete-source",
     .says = "scout: ",
     .again = "",
     .keeps_progress = true,
     .leftovers_vanish = true},
    {.name = "dry-run", .tool = "scout-convert", .arguments = "in/model -o out/m.scout --dry-run"},
    {.name = "follow",
     .tool = "scout-convert",
     .prepare = "for f in in/model/*.safetensors; do : >$f.done; done",
     .arguments = "in/model -o out/m.scout --threads 2 --follow --table --report out/report.json",
     .says = "written and read back",
     .again = "",
     .keeps_progress = true,
     .leftovers_vanish = true},
    {.name = "export",
     .tool = "scout-convert",
     .prepare = CONVERT,
     .arguments = "export in/m.scout --to hf-bnb4 -o out/hf --threads 2",
     .says = "",
     .again = "",
     .finished = "holds a checkpoint already",
     .leftovers_vanish = true},
    {.name = "export-bf16",
     .tool = "scout-convert",
     .prepare = CONVERT " && " ADAPTER,
     .arguments = "export in/m.scout --to hf-bf16 --adapter in/adapter -o out/hf --threads 2",
     .says = "7 modules of the adapter are merged",
     .again = "",
     .finished = "holds a checkpoint already",
     .leftovers_vanish = true},
    {.name = "merge",
     .tool = "scout-convert",
     .prepare = ADAPTER,
     .arguments = "merge --base in/model --adapter in/adapter -o out/hf --threads 2",
     .says = "modules of the adapter merged into 7 of",
     .again = "",
     .finished = "is there and not empty",
     .leftovers_vanish = true},
};

/* ---- what looks into a container ---- */

#define LOOK(called, verb)                                                                         \
    {                                                                                              \
        .name = called, .tool = "scout-inspect", .prepare = CONVERT, .arguments = verb             \
    }
static const struct scene inspecting[] = {
    LOOK("summary", "in/m.scout --json"),
    LOOK("inspect", "tensors in/m.scout"),
    LOOK("tensors", "tensors in/m.scout --layer 1-2 --sort size"),
    LOOK("tree", "tensors in/m.scout --tree --name *proj*"),
    LOOK("layout", "layout in/m.scout"),
    LOOK("experts", "experts in/m.scout --norm"),
    LOOK("config", "config in/m.scout"),
    LOOK("files", "files in/m.scout"),
    LOOK("file", "file in/m.scout tokenizer.json"),
    LOOK("tokenizer", "tokenizer in/m.scout --encode Whale --find ale --special"),
    LOOK("provenance", "provenance in/m.scout"),
    LOOK("inspect-plan", "plan in/m.scout --card 4090"),
    {.name = "verify",
     .tool = "scout-inspect",
     .prepare = CONVERT,
     .arguments = "verify in/m.scout --threads 2",
     .says = ": good: "},
    {.name = "verify-parts",
     .tool = "scout-inspect",
     .prepare = "$BIN/scout-convert in/model -o in/m.scout --max-part-size 2MB >log 2>&1",
     .arguments = "verify in/m-00001-of-00005.scout --threads 2",
     .says = ": good: "},
    LOOK("against", "verify in/m.scout --against in/model --threads 2"),
    {.name = "diff",
     .tool = "scout-inspect",
     .prepare = CONVERT " && cp in/m.scout in/n.scout",
     .arguments = "diff in/m.scout in/n.scout --threads 2"},
    {.name = "diff-folder",
     .tool = "scout-inspect",
     .prepare = "$BIN/scout-convert in/model -o in/m.scout --keep-bf16 '*' >log 2>&1",
     .arguments = "diff in/m.scout in/model --all"},
    {.name = "extract",
     .tool = "scout-inspect",
     .prepare = CONVERT,
     .arguments = "extract in/m.scout *layers.0.*q_proj* -o out/q.safetensors",
     .again = "",
     .leftovers_vanish = true},
    {.name = "extract-npy",
     .tool = "scout-inspect",
     .prepare = CONVERT,
     .arguments = "extract in/m.scout language_model.model.layers.1.*q_proj* -o out/q.npy --as "
                  "bf16 --rows 3:70",
     .again = "",
     .leftovers_vanish = true},
    {.name = "report",
     .tool = "scout-inspect",
     .prepare = CONVERT,
     .arguments = "report in/m.scout -o out/page.html",
     .again = "",
     .leftovers_vanish = true},
};

/* ---- what runs the model ---- */

static const struct scene running[] = {
    {.name = "train",
     .tool = "scout-ft",
     .prepare = CONVERT " && " ROWS,
     .arguments = "train --model in/m.scout --data in/rows.txt --output-dir out/a " ON_CPU
                  "--max-seq-length 16 --max-steps 2 --save-steps 1",
     .says = "done after 2 steps",
     .again = "--overwrite-output-dir"},
    /* A second run, which goes on where the first was stopped: what is whole is never lost. */
    {.name = "resume",
     .tool = "scout-ft",
     .prepare = CONVERT " && " ROWS,
     .arguments = "train --model in/m.scout --data in/rows.txt --output-dir out/a " ON_CPU
                  "--max-seq-length 16 --max-steps 3 --save-steps 1 --save-total-limit 1 --resume",
     .says = "done after 3 steps",
     .again = "",
     .leftovers_vanish = true},
    {.name = "plan",
     .tool = "scout-ft",
     .prepare = CONVERT,
     .arguments = "plan --model in/m.scout " ON_CPU},
    {.name = "eval",
     .tool = "scout-ft",
     .prepare =
         CONVERT " && " ADAPTER " && " CHATS " && echo '{\"max_seq_length\": 24}' >in/options.json",
     .arguments = "eval --config in/options.json --model in/m.scout --data in/chat.jsonl "
                  "--adapter in/adapter " ON_CPU,
     .says = "held-out loss"},
    {.name = "probe",
     .tool = "scout-ft",
     .prepare = CONVERT
     " && " ADAPTER
     " && cp $SOURCE/tests/golden/llama4-tiny/scout/base.safetensors in/inputs.safetensors",
     .arguments = "probe --model in/m.scout --inputs in/inputs.safetensors --adapter in/adapter "
                  "--grads -o out/p.safetensors " ON_CPU,
     .again = "",
     .leftovers_vanish = true},
    {.name = "preview",
     .tool = "scout-ft",
     .prepare = CONVERT " && " CHATS " && " ROWS,
     .arguments = "preview --model in/m.scout --data in/rows.txt in/chat.jsonl"},
    {.name = "generate",
     .tool = "scout-ft",
     .prepare = CONVERT " && " ADAPTER,
     .arguments = "generate --model in/m.scout --adapter in/adapter --compare --prompt Whale "
                  "--max-new-tokens 2 --seed 3 " ON_CPU},
    {.name = "answer",
     .tool = "scout-ft",
     .prepare = CONVERT " && echo '[{\"role\": \"user\", \"content\": \"Who?\"}]' >in/chat.json",
     .arguments =
         "generate --model in/m.scout --chat in/chat.json --max-new-tokens 2 --seed 3 " ON_CPU},
    {.name = "adapters",
     .tool = "scout-ft",
     .prepare = ADAPTER,
     .arguments = "adapters in/adapter --json"},
    {.name = "adapters-write",
     .tool = "scout-ft",
     .prepare = ADAPTER " && " CONVERT,
     .arguments = "adapters in/adapter -o out/b --peft-layout natural --model in/m.scout",
     .again = "--overwrite-output-dir",
     .leftovers_vanish = true},
    /* In the place of another with the same shapes: old numbers times a new scale would pass. */
    {.name = "adapters-replace",
     .tool = "scout-ft",
     .prepare = "cp -r $SOURCE/tests/golden/training/nf4_adapter_final in/new && mkdir in/old && "
                "cp -r $SOURCE/tests/golden/training/adapter_init in/older && "
                "sed -i 's/\"lora_alpha\": 32/\"lora_alpha\": 7/' in/older/adapter_config.json && "
                "$BIN/scout-ft adapters in/older -o in/old/b >log 2>&1 && " CONVERT,
     .before = "cp -r in/old/. out",
     .arguments = "adapters in/new -o out/b --overwrite-output-dir --model in/m.scout",
     .again = "",
     .reader = "$BIN/scout-ft adapters out/b --json",
     .replaces = true,
     .leftovers_vanish = true},
};

static const struct {
    const struct scene *scene;
    size_t scenes;
} groups[] = {{converting, sizeof converting / sizeof *converting},
              {inspecting, sizeof inspecting / sizeof *inspecting},
              {running, sizeof running / sizeof *running}};

void fault_scenes_list(void)
{
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (size_t i = 0; i < groups[g].scenes; i++)
            puts(groups[g].scene[i].name);
}

const struct scene *fault_scene_find(const char *name)
{
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (size_t i = 0; i < groups[g].scenes; i++)
            if (strcmp(groups[g].scene[i].name, name) == 0)
                return &groups[g].scene[i];
    return NULL;
}
