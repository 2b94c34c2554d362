#!/bin/sh
# scout-ft adapters: what it tells, the forms it writes; rank and alpha patterns of training.
#   test_adapters.sh SCOUT_CONVERT SCOUT_FT JSON_GET SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 ft=$2 get=$3 source=$4 scratch=$5
failures=0
fail() {
    echo "test_adapters: $1" >&2
    failures=$((failures + 1))
}
same() { # same WHAT GOT WANT
    [ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""
}
runs() { # runs STATUS ARGS...
    want=$1
    shift
    "$ft" "$@" >out 2>err
    got=$?
    [ "$got" = "$want" ] || fail "scout-ft $*: exit status $got, not $want: $(tail -n 2 err)"
}
says() {
    grep -q -- "$1" err || fail "says $(tail -n 1 err), not $1"
}
alike() { # alike A B: two adapters' files
    cmp -s "$1/adapter_model.safetensors" "$2/adapter_model.safetensors" || fail "the tensors of $1 and $2 differ"
    cmp -s "$1/adapter_config.json" "$2/adapter_config.json" || fail "the configs of $1 and $2 differ"
}
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o m.scout >log 2>&1 || {
    cat log >&2
    exit 1
}
head -c 3000 "$source/examples/data/moby.txt" >rows.txt
train="train --model m.scout --data rows.txt --device cpu --threads 1 --max-seq-length 32 --max-steps 1
    --per-device-train-batch-size 1 --save-steps 0"
merged=$source/tests/golden/merge

# ---- what it tells ----
runs 0 adapters "$merged/tiny_swapped" --json
same modules "$($get out modules)" 7
same layout "$($get out layout)" swapped
same "rank of the pattern" "$($get out 'groups[module=experts.down_proj].rank')" 1
same "its experts" "$($get out 'groups[module=experts.down_proj].experts')" 4
same "vLLM" "$($get out 'serves[by=vLLM].as_it_is')" false
runs 0 adapters "$merged/tiny_natural"
grep -q '^transformers + PEFT: yes, PEFT 0.17.0 to 0.19.0' out || fail "the natural layout's PEFT is not told"
runs 1 adapters "$merged/maverick_natural"
says 'give the model\|--model'
runs 1 adapters "$scratch"
runs 2 adapters
runs 2 adapters "$merged/tiny_natural" --peft-layout swapped
runs 2 adapters "$merged/tiny_natural" -o x --peft-layout sideways
runs 2 adapters "$merged/tiny_natural" -o x --for somebody

# ---- patterns ----
runs 0 $train --output-dir pattern --lora-r 4 --target-modules q_proj,o_proj,down_proj \
    --rank-pattern q_proj=2 --rank-pattern '2.self_attn.o_proj=6' --alpha-pattern 'layers\.[01]\.self_attn\.(q|o)_proj=5'
runs 0 adapters pattern --json
same "modules with patterns" "$($get out modules)" 12
"$ft" adapters pattern >out
# layers 0, 1: q rank 2 alpha 5, o rank 4 alpha 5; layer 2: o rank 6; the others as the options say
for line in 'q_proj +0\.\.1 +2 +1 +2 +5 +2\.5 ' 'q_proj +2\.\.3 +2 +1 +2 +32 +16 ' 'o_proj +0\.\.1 +2 +1 +4 +5 +1\.25 ' \
    'o_proj +2 +1 +1 +6 +32 ' 'o_proj +3 +1 +1 +4 +32 +8 ' 'down_proj +0\.\.3 +4 +1 +4 +32 +8 '; do
    grep -Eq "(^|\\.)$line" out || fail "no line like $line in: $(cat out)"
done
grep -q '"rank_pattern": {' pattern/adapter_config.json || fail "adapter_config.json has no rank_pattern"
runs 0 $train --output-dir again --init-adapter pattern
runs 1 $train --output-dir none --rank-pattern nothing=3
says "rank pattern 'nothing' matches nothing"
runs 1 $train --output-dir none --alpha-pattern 'q_proj(=3'
says 'q_proj('
runs 1 $train --output-dir none --rank-pattern q_proj=2.5
says 'rank 2.5 is no whole number'
runs 2 $train --output-dir none --rank-pattern q_proj
runs 2 $train --output-dir none --rank-pattern q_proj=0
[ ! -e none ] || fail "a refused run left its folder"

# ---- layouts: there and back again, and of training ----
experts="--lora-r 2 --target-modules v_proj --target-parameters experts.gate_up_proj,experts.down_proj"
runs 0 $train --output-dir swapped $experts
runs 0 $train --output-dir natural $experts --peft-layout natural
runs 0 adapters swapped -o turned --peft-layout natural --model m.scout
alike natural turned
runs 0 adapters turned -o back --peft-layout swapped --model m.scout
alike swapped back
cmp -s swapped/adapter_model.safetensors natural/adapter_model.safetensors && fail "the layouts are one"
runs 1 adapters swapped -o back
says 'back/adapter_model.safetensors is there'
runs 0 adapters swapped -o back --overwrite-output-dir --adapter-class text
grep -aq 'base_model.model.model.layers.0' back/adapter_model.safetensors || fail "the keys are not of the text class"

# ---- for vLLM ----
runs 1 adapters swapped -o vllm --for vllm
says 'vLLM cannot serve it: routed experts are adapted'
runs 0 $train --output-dir q --lora-r 2 --target-modules q_proj,v_proj
runs 1 adapters q -o vllm --for vllm
says 'give --model'
[ ! -e vllm ] || fail "a refusal left a folder"
runs 0 adapters q -o vllm --for vllm --model m.scout
runs 0 adapters vllm
grep -q '^vLLM: yes' out || fail "the copy for vLLM is not served by vLLM"
grep -q '^transformers + PEFT: no' out || fail "the copy for vLLM is served by PEFT"
runs 1 generate --model m.scout --adapter vllm --prompt Call --max-new-tokens 1 --device cpu
cmp -s q/adapter_model.safetensors vllm/adapter_model.safetensors && fail "rows of q were not moved"
[ "$failures" = 0 ] || exit 1
echo "test_adapters: all checks passed"
