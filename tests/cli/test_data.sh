#!/bin/sh
# scout-ft train's data: --dry-run, files of several kinds, weights; a packed and weighed run goes on bit for bit.
#   test_data.sh SCOUT_CONVERT SCOUT_FT SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 ft=$2 source=$3 scratch=$4
failures=0
fail() {
    echo "test_data: $1" >&2
    failures=$((failures + 1))
}
runs() { # runs STATUS ARGS...
    want=$1
    shift
    "$ft" "$@" >out 2>err
    got=$?
    [ "$got" = "$want" ] || fail "scout-ft $*: exit status $got, not $want: $(tail -n 2 err)"
}
has() { # has FILE TEXT
    grep -qF -- "$2" "$1" || fail "$1 does not say \"$2\": $(cat "$1")"
}
export OMP_WAIT_POLICY=passive # threads beside those of other tests
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o m.scout >log 2>&1 || {
    cat log >&2
    exit 1
}
head -c 4000 "$source/examples/data/moby.txt" >a.txt
for i in 1 2 3 4 5 6 7 8; do
    printf '{"prompt":[{"role":"user","content":"Row %s?"}],"completion":[{"role":"assistant","content":"Yes, %s of them."}]}\n' $i $i
done >c.jsonl
printf '{"messages":[{"role":"user","content":"Who?"},{"role":"assistant","content":"Ishmael."}]}\n' >d.jsonl
common="train --model m.scout --device cpu --threads 2 --max-seq-length 64 --per-device-train-batch-size 2"

# ---- all but the steps ----
runs 0 $common --data a.txt c.jsonl d.jsonl --data-weights 0.5,2.5,3 --dry-run --no-shuffle
has err 'c.jsonl: weight 2.5, 20 of its 8 rows in an epoch'
has err 'd.jsonl: weight 3, 3 of its 1 rows in an epoch'
has err 'MB planned'
has out 'the first micro-batch, 2 rows'
has out 'dry run: no step was taken, nothing was written'
has out ', 63 trained'
grep -q 'tokens  *[0-9]* rows' out || fail "no lengths: $(cat out)"
runs 0 $common --data d.jsonl --dry-run --output-dir none
has out 'eot|>|<|header_start|>|ass|ist|ant|<|header_end|>|\n|\n[[I|s|h|m|a|el|.|<|eot|>]]'
[ ! -e none ] || fail "--dry-run wrote its folder"
runs 1 $common --data d.jsonl --dry-run --lora-r 0
runs 2 $common --data a.txt c.jsonl --data-weights 1 --dry-run
has err '--data-weights has 1 numbers, --data 2 files'
runs 2 $common --data a.txt c.jsonl --data-weights 1,x --dry-run
runs 1 $common --data a.txt d.jsonl --data-weights 1,0.1 --dry-run
has err 'a weight of 0.1 leaves none of 1 rows'

# ---- packed and weighed, stopped in the middle ----
run="$common --data a.txt c.jsonl d.jsonl --data-weights 0.5,2.5,3 --packing --lora-dropout 0.1 --max-steps 6 --save-steps 3 --seed 7"
runs 0 $run --output-dir whole
runs 0 $run --output-dir part
rm -rf part/checkpoint-6 part/adapter_model.safetensors
runs 0 $run --output-dir part --resume
has err 'going on behind step 3 of 6'
cmp -s whole/adapter_model.safetensors part/adapter_model.safetensors || fail "a packed run that goes on is another"
runs 1 $common --data a.txt c.jsonl d.jsonl --data-weights 0.5,2.5,2 --packing --lora-dropout 0.1 --max-steps 6 --save-steps 3 \
    --seed 7 --output-dir part --resume
has err 'data was'
# ---- packed, planned as it is run ----
runs 0 $run --dry-run
planned=$(sed -n 's/.*; \([0-9.]* [kMG]B\) planned.*/\1/p' err)
runs 0 plan $(echo "$run" | sed 's/^train //')
[ -n "$planned" ] && grep -qF "$planned" out || fail "plan --packing does not say the $planned of train: $(cat out)"

# ---- tokens kept in files ----
kept="$run --data-cache kept --eval-data c.jsonl"
runs 0 $run --eval-data c.jsonl --output-dir plain
runs 0 $kept --output-dir first
[ -s kept/data.tokens ] && [ -s kept/eval.tokens ] || fail "no tokens are kept: $(ls kept)"
runs 0 $kept --output-dir second
has err 'kept/data.tokens: tokens of an earlier run, checked'
has err 'kept/eval.tokens: tokens of an earlier run, checked'
for other in first second; do
    cmp -s plain/adapter_model.safetensors $other/adapter_model.safetensors || fail "with kept tokens the $other run is another"
done
printf 'x' | dd of=kept/data.tokens bs=1 seek=4200 conv=notrunc 2>log
runs 0 $kept --output-dir third
has err 'kept/data.tokens: '
has err '; it is made anew'
cmp -s plain/adapter_model.safetensors third/adapter_model.safetensors || fail "after damage the run is another"
echo ' ' >>a.txt
runs 0 $kept --output-dir fourth
grep -q 'kept/data.tokens: tokens of' err && fail "other data, old tokens"
has err 'kept/eval.tokens: tokens of an earlier run, checked'
runs 0 eval --model m.scout --device cpu --data c.jsonl --max-seq-length 64 --data-cache kept
runs 0 eval --model m.scout --device cpu --data c.jsonl --max-seq-length 64 --data-cache none
runs 1 $run --data-cache a.txt --output-dir fifth
[ ! -e fifth ] || fail "a run that could not begin left its folder"
[ -z "$(ls kept | grep -v '^\(data\|eval\).tokens$')" ] || fail "left behind: $(ls kept)"
[ "$failures" = 0 ] || exit 1
echo "test_data: all checks passed"
