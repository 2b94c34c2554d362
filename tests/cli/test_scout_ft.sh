#!/bin/sh
# scout-ft as a user runs it: plan, train, eval and probe on a converted tiny-scout; every bad input
# gets one sentence, exit status 1 (2 for a wrong command line), and leaves nothing behind.
#   test_scout_ft.sh SCOUT_CONVERT SCOUT_FT JSON_GET PROBE_COMPARE SOURCE_DIR SCRATCH_DIR
# shellcheck disable=SC2086 # $small and $new are many words
set -u
convert=$1 ft=$2 json_get=$3 compare=$4 source=$5 scratch=$6
golden=$source/tests/golden
LC_ALL=C
export LC_ALL

failures=0
fail() {
    echo "test_scout_ft: $1" >&2
    failures=$((failures + 1))
}
# runs ARGS...: must succeed; stdout and stderr go to out and err.
runs() {
    "$ft" "$@" >out 2>err || fail "scout-ft $*: exit status $?: $(tail -n 1 err)"
}
# refused STATUS PATTERN ARGS...: that exit status, one last line on stderr that matches, nothing on
# stdout, no folder "new".
refused() {
    want=$1 pattern=$2
    shift 2
    "$ft" "$@" >out 2>err
    got=$?
    [ "$got" = "$want" ] || fail "scout-ft $*: exit status $got, not $want: $(tail -n 1 err)"
    [ "$(grep -c '^scout-ft: ' err)" = 1 ] || fail "scout-ft $*: not one sentence but: $(cat err)"
    tail -n 1 err | grep -Eq -- "^scout-ft: .*$pattern" || fail "scout-ft $*: says $(tail -n 1 err), not $pattern"
    [ -s out ] && fail "scout-ft $*: stdout is not empty"
    [ -e new ] && fail "scout-ft $*: left new/ behind"
    rm -rf new
}
has() { # has FILE PATTERN
    grep -Eq -- "$2" "$1" || fail "$1 has no line like $2 but: $(cat "$1")"
}
same() { # same WHAT GOT WANT
    [ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""
}

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o m.scout --model-id example/tiny >log 2>&1 || {
    cat log >&2
    exit 1
}
head -c 6000 "$source/examples/data/moby.txt" >train.txt
head -c 9000 "$source/examples/data/moby.txt" | tail -c 1500 >held-out.txt
printf '{"text": "Call me Ishmael."}\n{"text": "Some years ago, never mind how long."}\n' >rows.jsonl
printf '{"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]}\n{"input_ids": [5, 6]}\n' >ids.jsonl
small="--model m.scout --max-seq-length 32 --per-device-train-batch-size 2 --threads 2"

# ---- train, eval, plan agree with each other ----
runs train $small --data train.txt --eval-data held-out.txt --output-dir a --max-steps 4 \
    --learning-rate 2e-3 --save-steps 2 --eval-steps 2 --logging-steps 1
has err '^data: [0-9]+ rows of up to 32 tokens, [0-9]+ tokens; [0-9]+ more at the end'
has err '^step 4/4  loss [0-9.]+  lr [0-9.e-]+  [0-9]+ tokens/s  [0-9.]+ MB  0:00 left$'
has err '^held-out loss after step 2: [0-9.]+$'
has out '^done after 4 steps, 256 tokens in [0-9.]+ s: loss [0-9.]+ -> [0-9.]+$'
has out '^held-out loss [0-9.]+ -> [0-9.]+$'
for file in adapter_model.safetensors adapter_config.json metrics.jsonl \
    checkpoint-2/adapter_model.safetensors checkpoint-4/adapter_config.json; do
    [ -s "a/$file" ] || fail "train did not write a/$file"
done
same "lines of metrics" "$(wc -l <a/metrics.jsonl | tr -d ' ')" 7
has a/adapter_config.json '"base_model_name_or_path": "example/tiny"'
has a/adapter_config.json 'language_model'
cmp -s a/adapter_model.safetensors a/checkpoint-4/adapter_model.safetensors || fail "the last checkpoint is not the result"
cmp -s a/checkpoint-2/adapter_model.safetensors a/checkpoint-4/adapter_model.safetensors && fail "steps 3 and 4 changed nothing"
after=$(sed -n 's/^held-out loss .* -> //p' out)
before=$(sed -n 's/^held-out loss \(.*\) -> .*/\1/p' out)
planned=$(sed -n 's/.*; \(.*\) planned$/\1/p' err)
[ "$(echo "$after < $before" | awk '{print ($1 < $3)}')" = 1 ] || fail "held-out loss $before -> $after"
runs eval --model m.scout --max-seq-length 32 --data held-out.txt --adapter a
has out "^held-out loss $after, perplexity [0-9.]+ over [0-9]+ targets in [0-9]+ rows"
runs eval --model m.scout --max-seq-length 32 --data held-out.txt --json
same "eval --json" "$("$json_get" out loss | cut -c 1-6)" "$(echo "$before" | cut -c 1-6)"
runs plan $small --data train.txt --eval-data held-out.txt --max-steps 4
has out "^total [0-9]+ bytes, $planned; 4 steps$"
total=$(sed -n 's/^total \([0-9]*\) bytes.*/\1/p' out)
runs plan $small --data train.txt --eval-data held-out.txt --max-steps 4 --json
same "plan --json" "$("$json_get" out total_bytes)" "$total"
step_bytes=$("$json_get" out step_bytes)
runs plan $small --data train.txt --eval-data held-out.txt --gradient-checkpointing --json
[ "$("$json_get" out step_bytes)" -lt "$step_bytes" ] || fail "--gradient-checkpointing saves nothing"

# ---- moments of 8 bits: less memory, nearly the same road ----
moments=$("$json_get" out adapter_moment_bytes)
eight="--optim adamw_8bit --max-steps 4 --learning-rate 2e-3"
runs train $small --data train.txt --eval-data held-out.txt --output-dir eight $eight
planned=$(sed -n 's/.*; \(.*\) planned$/\1/p' err)
loss=$(sed -n 's/^held-out loss .* -> //p' out)
[ "$(echo "$loss $after" | awk '{d = $1 - $2; print (d < 0.01 && d > -0.01)}')" = 1 ] || fail "held-out loss $after, with 8 bits $loss"
cmp -s a/adapter_model.safetensors eight/adapter_model.safetensors && fail "--optim changes nothing"
runs plan $small --data train.txt --eval-data held-out.txt $eight
has out "^total [0-9]+ bytes, $planned; 4 steps$"
runs plan $small --data train.txt --eval-data held-out.txt $eight --json
[ "$(($("$json_get" out adapter_moment_bytes) * 15 / 4))" -lt "$moments" ] || fail "--optim adamw_8bit saves too little"

runs plan $small --data train.txt --device cuda $eight # without a GPU, too
has out "^ +a step's block"

# ---- the same whatever the threads; config files; other rows ----
runs train $small --data train.txt --output-dir b --max-steps 2 --learning-rate 1e-3
"$ft" train --model m.scout --max-seq-length 32 --per-device-train-batch-size 2 --threads 1 --data train.txt \
    --output-dir c --max-steps 2 --learning-rate 1e-3 >out 2>err || fail "train with one thread"
cmp -s b/adapter_model.safetensors c/adapter_model.safetensors || fail "1 and 2 threads differ"
cat >run.json <<'JSON'
{"model": "m.scout", "max_seq_length": 32, "per_device_train_batch_size": 2, "data": ["train.txt"],
 "output_dir": "d", "max_steps": 9, "learning_rate": 1e-3, "threads": 2}
JSON
runs train --config run.json --max-steps 2
cmp -s b/adapter_model.safetensors d/adapter_model.safetensors || fail "--config gives another run"
runs train $small --data rows.jsonl --text-mode documents --add-special-tokens --output-dir e --max-steps 2 \
    --target-modules q_proj,v_proj --lora-r 4 --lora-alpha 8 --use-rslora --adapter-class text --base-model-name-or-path x/y
has e/adapter_config.json '"use_rslora": true'
has e/adapter_config.json '"base_model_name_or_path": "x/y"'
same "target modules" "$("$json_get" e/adapter_config.json "target_modules[0]")" q_proj
runs train $small --data ids.jsonl --init-adapter e --output-dir f --num-train-epochs 2
has f/adapter_config.json '"r": 4'
has out '^done after 2 steps, 12 tokens'

# ---- router and head: trained, run, continued; with and without what was made again ----
outer="--target-modules lm_head,q_proj --target-parameters router.weight,experts.down_proj --lora-r 4 --rank-pattern router.weight=2"
runs train $small --data train.txt --output-dir g --max-steps 3 --learning-rate 1e-2 $outer --recompute none
runs train $small --data train.txt --output-dir g2 --max-steps 3 --learning-rate 1e-2 $outer --recompute full
cmp -s g/adapter_model.safetensors g2/adapter_model.safetensors || fail "router and head: --recompute full gives another adapter"
same "target parameters" "$("$json_get" g/adapter_config.json "target_parameters[0]")" feed_forward.router.weight
runs adapters g --json --model m.scout
same "modules that were not trained" "$("$json_get" out untrained)" 0
same "modules" "$("$json_get" out modules)" 13
runs eval --model m.scout --data held-out.txt --max-seq-length 32
before=$(grep -o 'held-out loss [0-9.]*' out)
runs eval --model m.scout --data held-out.txt --max-seq-length 32 --adapter g
[ "$(grep -o 'held-out loss [0-9.]*' out)" != "$before" ] || fail "router and head: the adapter changes nothing"
runs generate --model m.scout --adapter g --prompt Call --max-new-tokens 3 --temperature 0 --device cpu
runs train $small --data train.txt --init-adapter g --output-dir g3 --max-steps 1
refused 1 "the router is a parameter to PEFT: --target-parameters router.weight" \
    train $small --data train.txt --output-dir h --target-modules router
refused 1 "LoRA dropout 0.1: router is adapted, and PEFT has no dropout for parameters" \
    train $small --data train.txt --output-dir h --target-parameters router.weight --lora-dropout 0.1

# ---- where the time goes: over the steps that were timed, also where the run was shorter than --profile ----
runs train $small --data train.txt --output-dir p --max-steps 3 --profile 2
calls=$(sed -n 's/^forward *head_loss *[0-9.]* *\([0-9.]*\) .*/\1/p' out)
runs train $small --data train.txt --output-dir p2 --max-steps 3 --profile 50
same "calls of head_loss a step" "$(sed -n 's/^forward *head_loss *[0-9.]* *\([0-9.]*\) .*/\1/p' out)" "${calls:-none}"
runs train $small --data train.txt --output-dir p3 --max-steps 1 --profile 2
has err 'nothing to tell of --profile'

# ---- interruption: the step is finished, the adapter saved, exit status 0 ----
for signal in INT TERM; do
    "$ft" train $small --data train.txt --output-dir "stop-$signal" --max-steps 100000 >out 2>err &
    child=$!
    waited=0
    while ! [ -s "stop-$signal/metrics.jsonl" ] && [ $waited -lt 600 ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    kill -s "$signal" $child
    wait $child || fail "SIG$signal: exit status $?"
    has out '^interrupted after [0-9]+ steps'
    has out "^to go on from stop-$signal/checkpoint-[0-9]+: the same command with --resume$"
    [ -s "stop-$signal/adapter_model.safetensors" ] || fail "SIG$signal: nothing was saved"
done

# ---- going on: tests/cli/test_resume.sh has the kills; here, what is said and refused ----
going="--data train.txt --max-steps 4 --learning-rate 2e-3"
refused 1 'checkpoint-[0-9]+ is of another run: learning-rate was 5e-05, is 0.002; steps was 100000, is 4' train $small $going --output-dir stop-INT --resume
refused 1 'a: there is an adapter already' train $small $going --output-dir a
runs train $small $going --eval-data held-out.txt --eval-steps 2 --output-dir a --resume
has err '^going on behind step 4 of 4$'
has out '^done after 4 steps, 0 tokens'
rm -rf gone && runs train $small $going --output-dir gone --resume --save-steps 2 --save-total-limit 1
has err '^gone: no checkpoint yet; the run begins at its beginning$'
[ -e gone/checkpoint-2 ] && fail "--save-total-limit 1 keeps two"
printf x >>gone/checkpoint-4/optimizer.bin
refused 1 'gone: none of its 1 checkpoints is whole' train $small $going --output-dir gone --resume
has err 'checkpoint-4 is not whole and is passed over: .*optimizer.bin: [0-9]+ bytes, not the [0-9]+ that were written'
refused 2 'give one of them' train $small $going --output-dir gone --resume --overwrite-output-dir
refused 1 'need held-out data' train $small $going --output-dir new --load-best-model-at-end
refused 2 'on-nan is stop or skip' train $small $going --output-dir new --on-nan go
refused 2 'needs --min-lr' train $small $going --output-dir new --lr-scheduler-type cosine_with_min_lr
refused 2 'belong to --lr-scheduler-type' train $small $going --output-dir new --min-lr 1e-6
runs train $small $going --output-dir least --lr-scheduler-type cosine_with_min_lr --min-lr 1e-3
has least/metrics.jsonl '"step": 3, .*"learning_rate": 0.0015'

# ---- probe ----
inputs=$golden/llama4-tiny/scout/base.safetensors
runs probe --model m.scout --inputs "$inputs" --adapter a --grads -o p.safetensors
has out '^[0-9]+ tensors in p.safetensors; loss [0-9.]+$'
for name in hidden.0 router.3 logits token_loss loss \
    grad.base_model.model.language_model.model.layers.3.self_attn.q_proj.lora_B.weight; do
    grep -aq "\"$name\"" p.safetensors || fail "the probe has no $name"
done
# What the tools give for transformers' and PEFT's own models, through files alone.
for preset in scout scout_base maverick; do
    reference=$golden/llama4-tiny/$preset
    rm -rf hf && cp -r "$reference/model" hf && chmod -R u+w hf
    [ -e hf/model.safetensors ] || cp "$golden/llama4-tiny/scout/model/model.safetensors" hf
    "$convert" hf -o tiny.scout --keep-bf16 '*' >log 2>&1 || fail "$preset does not convert: $(cat log)"
    runs probe --model tiny.scout --inputs "$reference/base.safetensors" -o p.safetensors
    "$compare" p.safetensors "$reference/base.safetensors" 1e-5 inv_freq >log 2>&1 ||
        fail "$preset: $(cat log)"
    runs probe --model tiny.scout --inputs "$reference/base.safetensors" --adapter "$reference/lora_linear" \
        --grads -o p.safetensors
    "$compare" p.safetensors "$reference/lora_linear.safetensors" 1e-5 >log 2>&1 ||
        fail "$preset, lora_linear: $(cat log)"
done
"$compare" p.safetensors "$golden/llama4-tiny/scout/lora_linear.safetensors" 1e-5 >log 2>&1 &&
    fail "another preset's reference is met, too: the comparison sees nothing"
refused 1 'there is no tensor labels' probe --model m.scout --inputs "$golden/training/bf16_logits.safetensors" -o new
refused 2 'give --adapter' probe --model m.scout --inputs "$inputs" --grads -o new
refused 2 'probe needs -o' probe --model m.scout --inputs "$inputs"

# ---- what is refused, before any work ----
refused 2 'a verb is missing'
refused 2 'unknown verb "tran"' tran
refused 2 '--optim is adamw_torch or adamw_8bit, not "sgd"' train $small --data train.txt --output-dir new --optim sgd
refused 2 'did you mean --learning-rate' train --learning-rat 1
refused 2 'train needs --model' train --data train.txt --output-dir new
refused 2 'train needs --data' train --model m.scout --output-dir new
refused 2 'train needs --output-dir' train --model m.scout --data train.txt
refused 2 'belongs to no option' eval --model m.scout train.txt
refused 2 'text-mode' eval --model m.scout --data train.txt --text-mode lines
refused 2 'lr-scheduler-type' train $small --data train.txt --output-dir new --lr-scheduler-type poly
refused 2 'init-adapter' train $small --data train.txt --output-dir new --init-adapter a --lora-r 4
for option in per-device-eval-batch-size gradient-accumulation-steps save-steps eval-steps warmup-steps; do
    refused 2 "--$option is -3" train $small --data train.txt --output-dir new "--$option" -3
done
refused 2 '--per-device-train-batch-size is -3' train --model m.scout --data train.txt --output-dir new \
    --per-device-train-batch-size -3
new="train $small --output-dir new"
refused 1 'no_such.scout' train --model no_such.scout --data train.txt --output-dir new
refused 1 "target module 'w_proj' matches nothing" $new --data train.txt --target-modules q_proj,w_proj
refused 1 'LoRA rank 0' $new --data train.txt --lora-r 0
refused 1 'learning rate is 0' $new --data train.txt --learning-rate 0
refused 1 'no_such.txt' $new --data no_such.txt
refused 1 'no_such.jsonl' $new --data train.txt --eval-data no_such.jsonl
: >empty.txt
refused 1 'empty.txt: the dataset is empty' $new --data empty.txt
printf 'good \303(' >latin.txt
refused 1 'latin.txt: .*UTF-8' $new --data latin.txt
printf '{"text": "a"}\n{"text"\n' >broken.jsonl
refused 1 'broken.jsonl: line 2: ' $new --data broken.jsonl
printf '{"input_ids": [1, 2]}\n{"input_ids": [1, 9999]}\n' >range.jsonl
refused 1 'range.jsonl: line 2: token 1 has id 9999' $new --data range.jsonl
printf '{"input_ids": [1, 2], "labels": [-100, -100]}\n' >untrained.jsonl
refused 1 'untrained.jsonl: line 1: .*without any' $new --data untrained.jsonl
{ cat ids.jsonl && echo '{"text": "a row of text"}'; } >mixed.jsonl
refused 1 'line 3: a row of text, but line 1 of mixed.jsonl is a row of input_ids' $new --data train.txt mixed.jsonl
printf '{"learning_rat": 1}' >bad.json
refused 1 'bad.json: unknown option "learning_rat"; did you mean learning-rate' $new --data train.txt --config bad.json
refused 1 'a: there is an adapter already; --overwrite-output-dir' train $small --data train.txt --output-dir a
refused 1 'train.txt/new' train $small --data train.txt --output-dir train.txt/new
refused 1 'adapter_config.json' $new --data train.txt --init-adapter nowhere
[ "$failures" -eq 0 ] && runs train $small --data train.txt --output-dir b --max-steps 1 --overwrite-output-dir

# ---- damage stops the run before step 1 ----
cp m.scout damaged.scout
printf '\125\252\125\252' | dd of=damaged.scout bs=1 seek=70000 conv=notrunc 2>log
refused 1 'damaged.scout: .*layer 0' train --model damaged.scout --data train.txt --output-dir new --max-seq-length 32
refused 1 'layer 0' eval --model damaged.scout --data train.txt --max-seq-length 32

[ "$failures" -eq 0 ] || {
    echo "test_scout_ft: $failures checks failed" >&2
    exit 1
}
echo "test_scout_ft: passed"
